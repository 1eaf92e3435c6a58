"""Royalties: who may pull what. Each pull goes into the claimant's free balance in the vault; anyone may call."""

from __future__ import annotations

from typing import Any

from zhiyi.chain import TxResult
from zhiyi.errors import NotFound, TxReverted
from zhiyi.group import Group
from zhiyi.models import Models
from zhiyi.types import NATIVE, Model, to_address


class Royalties(Group):
    """Income of models (contract RoyaltyLedger)."""

    def pull_owner(self, model_id: int, *, token: str = NATIVE, dry_run: bool = False) -> TxResult:
        """The owner's rest. Raises TxReverted NothingToPull, OwnerPullFrozen."""
        return self._pull("pullOwner", model_id, token, dry_run=dry_run)

    def pull_platform(self, model_id: int, *, token: str = NATIVE, dry_run: bool = False) -> TxResult:
        """The platform's share."""
        return self._pull("pullPlatform", model_id, token, dry_run=dry_run)

    def pull_collaborator(
        self, model_id: int, collaborator: int | str, *, token: str = NATIVE, dry_run: bool = False
    ) -> TxResult:
        """A collaborator's share, by index or account."""
        index = self._index(model_id, collaborator)
        return self._pull("pullCollaborator", model_id, token, index, dry_run=dry_run)

    def pull_ancestor(
        self, model_id: int, index: int, *, token: str = NATIVE, dry_run: bool = False
    ) -> TxResult:
        """Moves an ancestor's share into what that ancestor model inherited."""
        return self._pull("pullAncestor", model_id, token, index, dry_run=dry_run)

    def gross(self, model_id: int, *, token: str = NATIVE) -> int:
        """All that ever came in for the model."""
        return int(self._call("RoyaltyLedger", "gross", model_id, to_address(token)))

    def inherited(self, model_id: int, *, token: str = NATIVE) -> int:
        """What the model got as an ancestor of others."""
        return int(self._call("RoyaltyLedger", "inherited", model_id, to_address(token)))

    def claimable(self, model_id: int, *, token: str = NATIVE) -> dict[str, int]:
        """What each share could pull now, by name: platform, owner, collaborator:i, ancestor:i (simulated on chain)."""
        model = self._model(model_id)
        shares: dict[str, tuple[str, tuple[int, ...]]] = {
            "platform": ("pullPlatform", ()),
            "owner": ("pullOwner", ()),
        }
        shares |= {
            f"collaborator:{i}": ("pullCollaborator", (i,)) for i in range(len(model.royalties.collaborators))
        }
        shares |= {f"ancestor:{i}": ("pullAncestor", (i,)) for i in range(len(model.royalties.ancestors))}
        return {name: self._preview(model, token, *share) for name, share in shares.items()}

    def _preview(self, model: Model, token: str, function: str, index: tuple[int, ...]) -> int:
        try:
            return int(self._call("RoyaltyLedger", function, *_arguments(model, token, *index)))
        except TxReverted as exc:
            if exc.error_name in ("NothingToPull", "OwnerPullFrozen"):
                return 0
            raise

    def _pull(self, function: str, model_id: int, token: str, *index: int, dry_run: bool) -> TxResult:
        arguments = _arguments(self._model(model_id), token, *index)
        return self._send("RoyaltyLedger", function, *arguments, dry_run=dry_run)

    def _model(self, model_id: int) -> Model:
        return Models(self._chain, self._deployment).get(model_id)

    def _index(self, model_id: int, collaborator: int | str) -> int:
        if isinstance(collaborator, int):
            return collaborator
        accounts = [split.account for split in self._model(model_id).royalties.collaborators]
        wanted = to_address(collaborator)
        if wanted not in accounts:
            raise NotFound(f"{wanted} is no collaborator of model {model_id}")
        return accounts.index(wanted)


def _arguments(model: Model, token: str, *index: int) -> tuple[Any, ...]:
    return (model.model_id, to_address(token), *index, model.record.as_tuple(), model.royalties.as_tuple())
