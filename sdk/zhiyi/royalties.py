"""Royalties: who may pull what. Each pull goes into the claimant's free balance in the vault; anyone may call."""

from __future__ import annotations

from typing import Final

from zhiyi.chain import TxResult
from zhiyi.errors import NotFound
from zhiyi.group import Group
from zhiyi.models import Models
from zhiyi.types import NATIVE, Model, RoyaltyTerms, to_address

BPS: Final = 10_000
# Places of the shares in `RoyaltyLedger.pulled`.
_PLATFORM, _OWNER, _COLLABORATOR, _ANCESTOR = 0, 1, 16, 32


class Royalties(Group):
    """Income of models (contract RoyaltyLedger).

    The first pull of a model sends `openTerms` before: two transactions. Without sending (a dry run, an unsigned
    signer) it stops there and returns that one; nothing can be simulated on terms that the ledger does not know yet.
    """

    def open_terms(self, model_id: int, *, dry_run: bool = False) -> TxResult:
        """Anyone, once a model: tells the ledger the shares that the model's record commits to."""
        model = self._model(model_id)
        arguments = (model_id, model.record.as_tuple(), model.royalties.as_tuple())
        return self._send("RoyaltyLedger", "openTerms", *arguments, dry_run=dry_run)

    def terms(self, model_id: int) -> RoyaltyTerms:
        """Who shares the model's income. Raises NotFound."""
        return self._model(model_id).royalties

    def terms_opened(self, model_id: int) -> bool:
        """Whether the ledger knows the model's shares."""
        return any(self._call("RoyaltyLedger", "termsHash", model_id))

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
        """What each share could pull now, by name: platform, owner, collaborator:i, ancestor:i.

        Counted from gross, inherited and pulled by the ledger's own rounding; the owner's is 0 while the model is
        frozen.
        """
        model, token = self._model(model_id), to_address(token)
        terms = model.royalties
        gross, lineage = self.gross(model_id, token=token), sum(a.bps for a in terms.ancestors)
        net = gross * (BPS - terms.platform_bps - lineage) // BPS + self.inherited(model_id, token=token)
        own = BPS - sum(split.bps for split in terms.collaborators)
        earned = {
            "platform": (_PLATFORM, gross * terms.platform_bps // BPS),
            "owner": (_OWNER, net * own // BPS),
        }
        earned |= {
            f"collaborator:{i}": (_COLLABORATOR + i, net * split.bps // BPS)
            for i, split in enumerate(terms.collaborators)
        }
        earned |= {
            f"ancestor:{i}": (_ANCESTOR + i, gross * ancestor.bps // BPS)
            for i, ancestor in enumerate(terms.ancestors)
        }
        found = {
            name: amount - int(self._call("RoyaltyLedger", "pulled", model_id, token, place))
            for name, (place, amount) in earned.items()
        }
        if model.status.frozen_until > self._chain.now():
            found["owner"] = 0
        return found

    def _pull(self, function: str, model_id: int, token: str, *index: int, dry_run: bool) -> TxResult:
        if not self.terms_opened(model_id):
            opened = self.open_terms(model_id, dry_run=dry_run)
            if opened.status != "mined":
                return opened
        shares = self.terms(model_id).as_tuple()
        return self._send(
            "RoyaltyLedger", function, model_id, to_address(token), *index, shares, dry_run=dry_run
        )

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
