"""Who was answered what: an append-only log of salted leaves, anchored in Merkle batches.

A leaf names no person: it holds a salted commitment. Whoever is given user id and salt can check that a leaf is theirs;
the anchored root proves that the leaf was there at that time.

    leaf = SHA-256(0x04 | u64 model | u32 user number | commitment (32) | nonce (16) | output hash (32) | u64 time)
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import struct
import unicodedata
from hashlib import sha256
from pathlib import Path
from typing import Final, Self, TypeVar

from pydantic import ValidationError

from zhiyi.delivery.merkle import Tree, verify_path
from zhiyi.errors import BadInput, ConfigError, IntegrityError, NotFound
from zhiyi.types import U32, U64, Bytes32, HexBytes, Value

LEAF_TAG: Final = b"\x04"
TEXT_TAG: Final = b"\x06"
NONCE_BYTES: Final = 16
MAX_BATCH: Final = 1 << 20
MAX_LINE: Final = 1024
V = TypeVar("V", bound=Value)
_LAYOUT: Final = struct.Struct(">QI32s16s32sQ")


def output_hash(text: str) -> bytes:
    """Hash of a text output, and its canonical root in a case: SHA-256(0x06 | UTF-8 of the text in NFKC)."""
    return sha256(TEXT_TAG + unicodedata.normalize("NFKC", text).encode()).digest()


def user_commitment(user: str, salt: bytes) -> bytes:
    """SHA-256(salt | UTF-8 user id), with 32 bytes of salt: opened only to whom it concerns. Raises BadInput."""
    if len(salt) != 32:
        raise BadInput(f"a user's salt has 32 bytes, given {len(salt)}")
    return sha256(salt + user.encode()).digest()


class UsageLeaf(Value):
    """One answer to one API user."""

    model_id: U64
    user_number: U32  # as the output's watermark carries it
    user_commitment: Bytes32
    nonce: HexBytes
    output_hash: Bytes32
    time: U64  # unix seconds

    @classmethod
    def of(cls, *, model_id: int, user_number: int, commitment: bytes, output: bytes, time: int) -> Self:
        """A leaf with a fresh nonce; `output` is the 32-byte output hash."""
        return cls(
            model_id=model_id,
            user_number=user_number,
            user_commitment=commitment,
            nonce=secrets.token_bytes(NONCE_BYTES),
            output_hash=output,
            time=time,
        )

    def hash(self) -> bytes:
        """The 32 bytes that go into the batch. Raises BadInput for a nonce not of 16 bytes."""
        if len(self.nonce) != NONCE_BYTES:
            raise BadInput(f"a leaf's nonce has {NONCE_BYTES} bytes, this one {len(self.nonce)}")
        packed = _LAYOUT.pack(
            self.model_id, self.user_number, self.user_commitment, self.nonce, self.output_hash, self.time
        )
        return sha256(LEAF_TAG + packed).digest()


class InclusionProof(Value):
    """That a leaf is number `index` of the `leaf_count` under an anchored root."""

    leaf: UsageLeaf
    index: U32
    leaf_count: U32
    root: Bytes32
    path: tuple[Bytes32, ...]

    def verify(self, anchored_root: bytes) -> None:
        """Raises IntegrityError unless the leaf is under this root. Take the root from the chain."""
        if self.root != anchored_root:
            raise IntegrityError("the proof is for another root than the one anchored")
        verify_path(anchored_root, self.leaf.hash(), self.index, self.leaf_count, list(self.path))


class Anchored(Value):
    """A batch that is on chain."""

    first: U64
    count: U32
    root: Bytes32
    cid: str
    tx_hash: str


class Batch:
    """A run of the log's leaves, as one Merkle tree."""

    def __init__(self, first: int, leaves: tuple[UsageLeaf, ...]) -> None:
        if not 0 < len(leaves) <= MAX_BATCH:
            raise BadInput(f"a batch has 1 .. {MAX_BATCH} leaves, given {len(leaves)}")
        self.first = first
        self.leaves = leaves
        self.data = b"".join(leaf.hash() for leaf in leaves)  # what is published: hashes only
        self._tree = Tree(self.data)

    @property
    def root(self) -> bytes:
        """32 bytes."""
        return self._tree.root

    @property
    def count(self) -> int:
        """Number of leaves."""
        return len(self.leaves)

    def path(self, index: int) -> list[bytes]:
        """Merkle path of leaf `index` of the batch. Raises BadInput out of range."""
        return self._tree.path(index)

    def proof(self, index: int) -> InclusionProof:
        """Inclusion proof of leaf `index` of the batch. Raises BadInput out of range."""
        path = tuple(self.path(index))
        return InclusionProof(
            leaf=self.leaves[index], index=index, leaf_count=self.count, root=self.root, path=path
        )


class UsageLog:
    """The log in a folder: `leaves.jsonl` and `anchored.jsonl`, one writer at a time, every line flushed to disk."""

    def __init__(self, folder: str | Path) -> None:
        """Opens or starts the log; a half-written last line is cut. Raises ConfigError when another program has it."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(self._lock)
            raise ConfigError(f"usage log {self.folder} is in use by another program: stop it first") from exc
        self._offsets: list[int] = []
        self._leaves = self._open("leaves.jsonl")
        self._anchored = self._open("anchored.jsonl")
        self._index()

    def close(self) -> None:
        """Releases files and lock."""
        for handle in (self._leaves, self._anchored, self._lock):
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def append(self, leaf: UsageLeaf) -> int:
        """Adds a leaf; returns its number once it is on disk."""
        leaf.hash()
        number = len(self)
        self._offsets.append(self._offsets[-1] + _append(self._leaves, leaf))
        return number

    def leaf(self, number: int) -> UsageLeaf:
        """Raises NotFound, IntegrityError."""
        if not 0 <= number < len(self):
            raise NotFound(f"the usage log has leaves 0 .. {len(self) - 1}, not {number}")
        start, end = self._offsets[number], self._offsets[number + 1]
        return _parsed(UsageLeaf, os.pread(self._leaves, end - start, start))

    def find(self, output: bytes) -> list[int]:
        """Numbers of the leaves with this output hash."""
        return [number for number in range(len(self)) if self.leaf(number).output_hash == output]

    def of_user(self, user_number: int) -> list[int]:
        """Numbers of the leaves of one API user."""
        return [number for number in range(len(self)) if self.leaf(number).user_number == user_number]

    def anchored(self) -> tuple[Anchored, ...]:
        """Batches on chain, oldest first."""
        size = os.fstat(self._anchored).st_size
        lines = os.pread(self._anchored, size, 0).splitlines()
        return tuple(_parsed(Anchored, line) for line in lines)

    def batch(self, first: int, count: int) -> Batch:
        """Leaves first .. first+count-1 as a batch. Raises NotFound, BadInput."""
        return Batch(first, tuple(self.leaf(number) for number in range(first, first + count)))

    def pending(self, most: int = MAX_BATCH) -> Batch | None:
        """The next leaves that no batch on chain holds, None when there are none."""
        done = self.anchored()
        first = done[-1].first + done[-1].count if done else 0
        count = min(len(self) - first, most)
        return self.batch(first, count) if count else None

    def mark_anchored(self, batch: Batch, *, cid: str, tx_hash: str) -> Anchored:
        """Notes that a batch is on chain. Raises BadInput unless it is the next one."""
        done = self.anchored()
        expected = done[-1].first + done[-1].count if done else 0
        if batch.first != expected:
            raise BadInput(f"the next batch to anchor starts at leaf {expected}, not {batch.first}")
        entry = Anchored(first=batch.first, count=batch.count, root=batch.root, cid=cid, tx_hash=tx_hash)
        _append(self._anchored, entry)
        return entry

    def proof(self, number: int) -> InclusionProof:
        """Inclusion proof of a leaf in its anchored batch. Raises NotFound when it is not anchored yet."""
        for entry in self.anchored():
            if entry.first <= number < entry.first + entry.count:
                batch = self.batch(entry.first, entry.count)
                if batch.root != entry.root:
                    raise IntegrityError(
                        f"the log's leaves no longer give the root anchored in {entry.tx_hash}"
                    )
                return batch.proof(number - entry.first)
        raise NotFound(f"leaf {number} is not in an anchored batch yet")

    def _open(self, name: str) -> int:
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        size = os.fstat(handle).st_size
        tail = os.pread(handle, MAX_LINE, max(0, size - MAX_LINE))
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(handle, size - (len(tail) - (tail.rfind(b"\n") + 1)))
        return handle

    def _index(self) -> None:
        self._offsets = [0]
        with os.fdopen(os.dup(self._leaves), "rb") as file:
            file.seek(0)
            for line in file:
                self._offsets.append(self._offsets[-1] + len(line))


def _append(handle: int, value: Value) -> int:
    line = json.dumps(value.model_dump(mode="json"), separators=(",", ":")).encode() + b"\n"
    size = os.fstat(handle).st_size
    written = os.write(handle, line)
    os.fsync(handle)
    if written != len(line):
        os.ftruncate(handle, size)
        raise ConfigError(f"only {written} of {len(line)} bytes reached the usage log: is the disk full?")
    return written


def _parsed(kind: type[V], line: bytes) -> V:
    try:
        return kind.model_validate_json(line)
    except ValidationError as exc:
        raise IntegrityError(f"the usage log holds a line that is no {kind.__name__}: {exc}") from exc
