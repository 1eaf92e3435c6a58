"""What was said when: ERC-7053 commits and anchored Merkle batches."""

from __future__ import annotations

from typing import NamedTuple

from zhiyi.chain import TxResult
from zhiyi.cid import cid_v0_from_digest, digest_from_cid
from zhiyi.group import Group
from zhiyi.types import ZERO32, keccak, to_address, to_bytes


class Commit(NamedTuple):
    """One ERC-7053 commit."""

    recorder: str
    asset_cid: str
    data: str
    block_number: int
    tx_hash: str


class Anchor(NamedTuple):
    """One anchored batch."""

    recorder: str
    topic: bytes
    root: bytes
    leaf_count: int
    cid: str  # of the batch, or empty
    head: bytes
    block_number: int
    tx_hash: str


def topic_of(text: str) -> bytes:
    """A stream's topic from its name: keccak256 of the UTF-8 text."""
    return keccak(text.encode())


class Evidence(Group):
    """The public log (contract EvidenceLog)."""

    def commit(self, asset_cid: str, data: str, *, dry_run: bool = False) -> TxResult:
        """ERC-7053 commit. The log holds only the hash of the CID: put the CID into `data` too."""
        return self._send("EvidenceLog", "commit", asset_cid, data, dry_run=dry_run)

    def commits(self, asset_cid: str) -> tuple[Commit, ...]:
        """Commits about an asset, oldest first."""
        found = self._events("EvidenceLog", "Commit", {"assetCid": asset_cid})
        return tuple(
            Commit(e["recorder"], asset_cid, e["commitData"], e.block_number, e.tx_hash) for e in found
        )

    def anchor(
        self, topic: bytes, root: bytes, leaf_count: int, cid: str | None = None, *, dry_run: bool = False
    ) -> TxResult:
        """Anchors a batch in the caller's stream; event BatchAnchored has the new head."""
        digest = digest_from_cid(cid) if cid else ZERO32
        arguments = (to_bytes(topic, 32), to_bytes(root, 32), leaf_count, digest)
        return self._send("EvidenceLog", "anchor", *arguments, dry_run=dry_run)

    def anchors(self, recorder: str | None = None, topic: bytes | None = None) -> tuple[Anchor, ...]:
        """Anchored batches, oldest first."""
        filters: dict[str, object] = {}
        if recorder:
            filters["recorder"] = to_address(recorder)
        if topic:
            filters["topic"] = to_bytes(topic, 32)
        return tuple(
            Anchor(
                e["recorder"],
                e["topic"],
                e["root"],
                e["leafCount"],
                cid_v0_from_digest(e["cidDigest"]) if any(e["cidDigest"]) else "",
                e["head"],
                e.block_number,
                e.tx_hash,
            )
            for e in self._events("EvidenceLog", "BatchAnchored", filters)
        )

    def head(self, recorder: str, topic: bytes) -> bytes:
        """The head of a stream; zero before its first batch."""
        return bytes(self._call("EvidenceLog", "headOf", to_address(recorder), to_bytes(topic, 32)))
