"""What the groups of `Zhiyi` share: the chain, the deployment and three verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from zhiyi.chain import Chain, Event, Tag, TxResult
from zhiyi.deployment import Contract, Deployment
from zhiyi.types import keccak, to_bytes

SALT_BYTES: Final = 32


class Group:
    """The steps around one part of the record. Writes simulate first and take `dry_run=True` to stop there."""

    def __init__(self, chain: Chain, deployment: Deployment) -> None:
        self._chain = chain
        self._deployment = deployment

    def _contract(self, name: str) -> Contract:
        return self._deployment.contract(name)

    def _send(self, name: str, function: str, *args: Any, value: int = 0, dry_run: bool = False) -> TxResult:
        return self._chain.send(self._contract(name), function, *args, value=value, dry_run=dry_run)

    def _call(
        self, name: str, function: str, *args: Any, block: Tag = "latest", sender: str | None = None
    ) -> Any:
        return self._chain.call(self._contract(name), function, *args, block=block, sender=sender)

    def _events(
        self, name: str, event: str, filters: Mapping[str, Any] | None = None, *, to_block: Tag = "latest"
    ) -> list[Event]:
        return self._chain.events(
            self._contract(name), event, filters=filters, from_block=self._deployment.block, to_block=to_block
        )


def reason_hash(reason: str) -> bytes:
    """keccak256 of a reason's UTF-8 text; the text itself is published off chain."""
    return keccak(reason.encode())


def salted_hash(salt: bytes, content: bytes) -> bytes:
    """keccak256(salt | content): 32 random bytes of salt keep what is hashed from being guessed. Raises BadInput."""
    return keccak(to_bytes(salt, SALT_BYTES) + content)
