"""Commitments of an order that are opened later, with the encodings of the contracts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eth_abi.abi import encode

from zhiyi.errors import BadInput, IntegrityError
from zhiyi.types import keccak

SHARES: Final = 16  # of one confirm mark
SHARE_TAG: Final = keccak(b"zhiyi.share.v1")


def key_commit(key: bytes, license_id: int, buyer: str) -> bytes:
    """keccak256(abi.encode(bytes32 key, uint256 licenseId, address buyer)).

    Raises BadInput for a key not of 32 bytes.
    """
    if len(key) != 32:
        raise BadInput(f"a delivery key has 32 bytes, given {len(key)}")
    return keccak(encode(["bytes32", "uint256", "address"], [key, license_id, buyer]))


def share_leaf(license_id: int, index: int, seed: bytes) -> bytes:
    """keccak256(abi.encode(keccak256("zhiyi.share.v1"), uint256 licenseId, uint256 index, bytes32 seed)).

    Raises BadInput.
    """
    if not 0 <= index < SHARES:
        raise BadInput(f"share {index} is not in 0 .. {SHARES - 1}")
    if len(seed) != 32:
        raise BadInput(f"a share seed has 32 bytes, given {len(seed)}")
    return keccak(encode(["bytes32", "uint256", "uint256", "bytes32"], [SHARE_TAG, license_id, index, seed]))


def mark_commit(license_id: int, seeds: Sequence[bytes]) -> bytes:
    """Root over the 16 share leaves: node = keccak256(left | right), ordered by index. Raises BadInput."""
    return _levels(license_id, seeds)[-1][0]


def share_proof(license_id: int, seeds: Sequence[bytes], index: int) -> list[bytes]:
    """The four siblings that lead from share `index` to `mark_commit(license_id, seeds)`. Raises BadInput."""
    levels = _levels(license_id, seeds)
    if not 0 <= index < SHARES:
        raise BadInput(f"share {index} is not in 0 .. {SHARES - 1}")
    return [level[(index >> depth) ^ 1] for depth, level in enumerate(levels[:-1])]


def verify_share(commit: bytes, license_id: int, index: int, seed: bytes, proof: Sequence[bytes]) -> None:
    """Raises IntegrityError when the share does not lead to `commit`, BadInput when it cannot be a share."""
    at = share_leaf(license_id, index, seed)
    if len(proof) != 4:
        raise BadInput(f"a share's proof has 4 hashes, given {len(proof)}")
    for depth, step in enumerate(proof):
        at = keccak(step + at) if index >> depth & 1 else keccak(at + step)
    if at != commit:
        raise IntegrityError(f"share {index} leads to 0x{at.hex()}, the order committed to 0x{commit.hex()}")


def _levels(license_id: int, seeds: Sequence[bytes]) -> list[list[bytes]]:
    if len(seeds) != SHARES:
        raise BadInput(f"a confirm mark has {SHARES} share seeds, given {len(seeds)}")
    levels = [[share_leaf(license_id, index, seed) for index, seed in enumerate(seeds)]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([keccak(below[k] + below[k + 1]) for k in range(0, len(below), 2)])
    return levels
