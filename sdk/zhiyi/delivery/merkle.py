"""The Merkle tree over leaves of 32 bytes: root, path and check, as `FairDelivery.verify` has them.

A tree of n leaves has ceil(log2 n) levels above them; places past the last leaf hold `hashing.MISSING`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from zhiyi.delivery.hashing import HASH_BYTES, MISSING, node, parents
from zhiyi.errors import BadInput, IntegrityError

MAX_LEAVES: Final = 1 << 32
_SUBTREE_DEPTH: Final = 13  # 8,192 leaves, 256 KiB: what is hashed at a time


def depth_of(leaves: int) -> int:
    """Length of a path in a tree of so many leaves: ceil(log2 n). Raises BadInput outside 1 .. 2^32."""
    if not 1 <= leaves <= MAX_LEAVES:
        raise BadInput(f"a tree has 1 .. 2^32 leaves, given {leaves}")
    return (leaves - 1).bit_length()


def root_of(leaves: bytes) -> bytes:
    """Root over n * 32 bytes of leaves, without keeping the levels. Raises BadInput for a wrong length."""
    return _climb(leaves, MISSING, depth_of(_count(leaves)))[0]


def root_and_path(leaves: bytes, index: int) -> tuple[bytes, tuple[bytes, ...]]:
    """Root and one path, without keeping the levels. Raises BadInput for a wrong length or index."""
    count = _count(leaves)
    if not 0 <= index < count:
        raise BadInput(f"index {index} is not below the {count} leaves of the tree")
    level, missing, path = leaves, MISSING, []
    for _ in range(depth_of(count)):
        at = (index ^ 1) * HASH_BYTES
        path.append(level[at : at + HASH_BYTES] or missing)
        level, missing = _up(level, missing)
        index >>= 1
    return bytes(level), tuple(path)


def roots_of_both(one: bytes, other: bytes) -> tuple[bytes, bytes]:
    """Roots over two rows of leaves, hashing what they share once. Raises BadInput for a wrong length."""
    depth = depth_of(_count(one))
    if len(other) != len(one):
        raise BadInput(f"two rows of leaves have {len(one)} and {len(other)} bytes")
    low = min(depth, _SUBTREE_DEPTH)
    step = HASH_BYTES << low
    tops: tuple[list[bytes], list[bytes]] = ([], [])
    for start in range(0, len(one), step):
        first, second = one[start : start + step], other[start : start + step]
        top = _climb(first, MISSING, low)[0]
        tops[0].append(top)
        tops[1].append(top if first == second else _climb(second, MISSING, low)[0])
    missing = _climb(b"", MISSING, low)[1]
    roots = [_climb(b"".join(level), missing, depth - low)[0] for level in tops]
    return roots[0], roots[1]


class RootBuilder:
    """The root over leaves that come in order; holds about half a megabyte, however many they are."""

    _BATCH: Final = HASH_BYTES << _SUBTREE_DEPTH

    def __init__(self) -> None:
        self._pending: list[bytearray] = [bytearray()]  # by level: nodes without a parent yet
        self._bytes = 0

    def add(self, leaves: bytes) -> None:
        """Take the next leaves, 32 bytes each."""
        self._pending[0] += leaves
        self._bytes += len(leaves)
        if len(self._pending[0]) >= self._BATCH:
            self._raise_pairs()

    def root(self) -> bytes:
        """The root over all leaves taken. Raises BadInput when there are none."""
        depth = depth_of(self._bytes // HASH_BYTES)
        self._raise_pairs()
        missing = MISSING
        for level in range(depth):
            rest = self._pending[level]  # one node or none
            if rest:
                if level + 1 == len(self._pending):
                    self._pending.append(bytearray())
                self._pending[level + 1] += parents(bytes(rest) + missing)
                rest.clear()
                self._raise_pairs(level + 1)
            missing = node(missing, missing)
        return bytes(self._pending[depth])

    def _raise_pairs(self, level: int = 0) -> None:
        while len(self._pending[level]) >= 2 * HASH_BYTES:
            held = self._pending[level]
            whole = len(held) - len(held) % (2 * HASH_BYTES)
            if level + 1 == len(self._pending):
                self._pending.append(bytearray())
            self._pending[level + 1] += parents(bytes(held[:whole]))
            del held[:whole]
            level += 1


def verify_path(root: bytes, leaf: bytes, index: int, leaves: int, path: Sequence[bytes]) -> None:
    """Raises BadInput for an index or length that cannot be, IntegrityError when the path leads to another root."""
    depth = depth_of(leaves)
    if not 0 <= index < leaves:
        raise BadInput(f"index {index} is not below the {leaves} leaves of the tree")
    if len(path) != depth or any(len(step) != HASH_BYTES for step in path):
        raise BadInput(
            f"a path in a tree of {leaves} leaves has {depth} hashes of 32 bytes, given {len(path)}"
        )
    at = leaf
    for level, step in enumerate(path):
        at = node(step, at) if index >> level & 1 else node(at, step)
    if at != root:
        raise IntegrityError(f"the path of leaf {index} leads to root 0x{at.hex()}, expected 0x{root.hex()}")


class Tree:
    """A tree over leaves in memory: 32 bytes a leaf, 64 once a path was asked for."""

    def __init__(self, leaves: bytes) -> None:
        """`leaves` are n * 32 bytes. Raises BadInput for another length or none."""
        self.count = _count(leaves)
        self.leaves = bytes(leaves)

    @cached_property
    def root(self) -> bytes:
        """The root, 32 bytes."""
        return root_of(self.leaves)

    @cached_property
    def _levels(self) -> list[tuple[bytes, bytes]]:
        """All levels below the root, each with the node that stands for what is missing there."""
        levels = [(self.leaves, MISSING)]
        for _ in range(depth_of(self.count)):
            levels.append(_up(*levels[-1]))
        return levels[:-1]

    def leaf(self, index: int) -> bytes:
        """One leaf. Raises BadInput out of range."""
        if not 0 <= index < self.count:
            raise BadInput(f"index {index} is not below the {self.count} leaves of the tree")
        return self.leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]

    def path(self, index: int) -> list[bytes]:
        """Siblings from the leaf's up to the root's children. Raises BadInput out of range."""
        self.leaf(index)
        path = []
        for level, missing in self._levels:
            at = (index ^ 1) * HASH_BYTES
            path.append(level[at : at + HASH_BYTES] or missing)
            index >>= 1
        return path

    def save(self, path: Path) -> None:
        """Write the leaves, n * 32 bytes, atomically."""
        write_atomically(path, self.leaves)

    @classmethod
    def load(cls, path: Path, root: bytes) -> Tree:
        """Read leaves and rebuild.

        Raises IntegrityError when their root is not `root`, BadInput for a bad length.
        """
        tree = cls(path.read_bytes())
        if tree.root != root:
            raise IntegrityError(
                f"{path} has root 0x{tree.root.hex()}, expected 0x{root.hex()}: fetch it again"
            )
        return tree


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside and rename, so that a reader sees all or nothing."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _count(leaves: bytes) -> int:
    if not leaves or len(leaves) % HASH_BYTES:
        raise BadInput(f"{len(leaves)} bytes are not one or more leaves of {HASH_BYTES} bytes")
    return len(leaves) // HASH_BYTES


def _climb(level: bytes, missing: bytes, steps: int) -> tuple[bytes, bytes]:
    """The level so many steps up, and what stands there for a missing node."""
    for _ in range(steps):
        level, missing = _up(level, missing)
    return bytes(level), missing


def _up(level: bytes, missing: bytes) -> tuple[bytes, bytes]:
    if len(level) % (2 * HASH_BYTES):
        level += missing
    return parents(level), node(missing, missing)
