"""Canaries: hidden test cases whose right verdict is committed, by a Merkle root, before they are reported like others.

leaf = keccak256(abi.encode(keccak256("zhiyi.canary.v1"), salt, evidence hash, decision, bucket, samples)); a node is
the keccak256 of its two children in ascending order; one without a sibling moves up as it is.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from zhiyi.errors import NotFound
from zhiyi.types import U8, U32, Bytes32, Canary, Decision, Value, keccak, to_hex

DOMAIN: Final = keccak(b"zhiyi.canary.v1")
MAX_CASES: Final = 10_000


class CanaryCase(Value):
    """What is expected of the committee; secret until an operator is accused by it."""

    salt: Bytes32  # random, a new one for each
    evidence_hash: Bytes32
    decision: Decision
    bucket: U8
    samples: U32

    def leaf(self) -> bytes:
        """32 bytes."""
        from eth_abi.abi import encode as abi_encode

        kinds = ["bytes32", "bytes32", "bytes32", "uint8", "uint8", "uint32"]
        values = [DOMAIN, self.salt, self.evidence_hash, int(self.decision), self.bucket, self.samples]
        return keccak(abi_encode(kinds, values))


class CanarySet(Value):
    """The canaries under one root."""

    cases: Annotated[tuple[CanaryCase, ...], Field(min_length=1, max_length=MAX_CASES)]

    def root(self) -> bytes:
        """What the oracle admin commits."""
        return self._levels()[-1][0]

    def expected(self, evidence_hash: bytes) -> Canary:
        """The opening of the canary with this evidence, as the chain takes it. Raises NotFound."""
        hashes = [case.evidence_hash for case in self.cases]
        if evidence_hash not in hashes:
            raise NotFound(f"no canary has the evidence hash {to_hex(evidence_hash)}")
        index = hashes.index(evidence_hash)
        case, path, at = self.cases[index], [], index
        levels = self._levels()
        for level in levels[:-1]:
            if at ^ 1 < len(level):
                path.append(level[at ^ 1])
            at //= 2
        return Canary(
            root=levels[-1][0],
            salt=case.salt,
            decision=case.decision,
            bucket=case.bucket,
            samples=case.samples,
            path=tuple(path),
        )

    def _levels(self) -> list[list[bytes]]:
        levels = [[case.leaf() for case in self.cases]]
        while len(levels[-1]) > 1:
            below = levels[-1]
            pairs = (below[i : i + 2] for i in range(0, len(below), 2))
            levels.append([keccak(b"".join(sorted(pair))) if len(pair) == 2 else pair[0] for pair in pairs])
        return levels
