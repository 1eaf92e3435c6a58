"""Buyer: check a package before paying, decrypt it after, and prove a wrong chunk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zhiyi.delivery.bundle import WINDOW_CHUNKS, Bundle, Reader, Window, read_exactly
from zhiyi.delivery.hashing import (
    HASH_BYTES,
    KEY_BYTES,
    Keystream,
    delivery_leaves,
    plain_leaves,
)
from zhiyi.delivery.merkle import RootBuilder, root_and_path, roots_of_both
from zhiyi.delivery.package import OrderFigures, Package, Progress, new_folder, reserve, silent, write_all
from zhiyi.delivery.ranges import DeclaredRange
from zhiyi.errors import BadInput, IntegrityError

MAX_WRONG_LISTED: Final = 1000
_PIECE: Final = 16_384  # leaves


@dataclass(frozen=True)
class Registered:
    """What the chain says of the model: both hashes are fixed there, the leaves and the range are what they open to."""

    weights_root: bytes
    range_hash: bytes
    leaves: bytes  # n * 32 bytes
    declared_range: DeclaredRange


@dataclass(frozen=True)
class DecryptResult:
    """The copy, every chunk as promised."""

    folder: Path
    files: int
    total_bytes: int
    chunks: int


class WrongChunk(IntegrityError):
    """The key opens a chunk to something else than promised.

    Pass `index` to `complaint` before the window ends.
    """

    def __init__(self, wrong: Sequence[int], path: str) -> None:
        first, *others = wrong
        more = f" and {len(others)} more" if others else ""
        super().__init__(
            f"chunk {first} ({path!r}){more} decrypts to something else than promised: send a complaint"
        )
        self.index = first
        self.wrong = tuple(wrong)


@dataclass(frozen=True)
class ComplaintProof:
    """The arguments of `complain` after order and key."""

    index: int
    cipher: bytes
    plain_leaf: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True)
class PlainChunk:
    """One chunk of a copy with its place under the copy root."""

    chunks: int  # of the copy
    index: int
    data: bytes
    path: tuple[bytes, ...]


def verify_before_payment(
    package_dir: Path, figures: OrderFigures, registered: Registered, progress: Progress = silent
) -> Package:
    """Everything a buyer can check before paying; after it, a wrong chunk can be proven on chain.

    1. manifest, leaves and cipher have the order's sizes and a known suite
    2. the registered leaves lead to the registered weights root
    3. the declared range is the registered one, within 25 % of the bytes and not over the manifest
    4. outside the range every promised leaf is the registered leaf, so names, lengths and bytes are the
    model's 5. the promised leaves lead to the order's copy root 6. cipher and promised leaves lead to the
    order's delivery root

    Not checked, because nobody can yet: that the key decrypts the cipher to the promised leaves (that is the
    complaint), and what lies inside the range (that is the range claim). Raises BadInput, NotFound,
    IntegrityError.
    """
    package = Package(package_dir, figures)  # 1
    bundle = package.bundle
    if len(registered.leaves) != bundle.chunks * HASH_BYTES:
        raise IntegrityError(
            f"the registered bundle has {len(registered.leaves) // HASH_BYTES} chunks, "
            f"the package {bundle.chunks}"
        )
    _same("hash of the declared range", registered.declared_range.hash(), registered.range_hash)  # 3
    registered.declared_range.check(bundle)
    promised = package.plain_leaves()  # 4
    own = bundle.segments[0].chunks * HASH_BYTES
    if promised[:own] != plain_leaves(0, bundle.manifest, bundle.chunk_size):
        raise IntegrityError("the promised leaves are not those of the package's manifest: do not pay")
    for start, end in registered.declared_range.outside(bundle.chunks):
        index = _first_difference(promised, registered.leaves, start, end)
        if index is not None:
            raise IntegrityError(
                f"chunk {index} is promised to differ from the registered model outside the declared range: "
                "do not pay"
            )
    roots = roots_of_both(registered.leaves, promised)
    _same("root of the registered leaves", roots[0], registered.weights_root)  # 2
    _same("root of the promised leaves", roots[1], figures.copy_root)  # 5
    delivery = RootBuilder()  # 6
    for leaves in _delivery_leaves(package, promised, progress):
        delivery.add(leaves)
    _same("delivery root", delivery.root(), figures.delivery_root)
    return package


def decrypt(
    package_dir: Path, figures: OrderFigures, key: bytes, out_dir: Path, progress: Progress = silent
) -> DecryptResult:
    """Decrypt a package that passed `verify_before_payment` into the new folder `out_dir`.

    Raises WrongChunk, with all wrong indices up to 1,000, when chunks are not what was promised; then nothing
    is left in `out_dir`. A package that changed since it was verified shows as wrong too; `complaint` tells
    the difference.
    """
    if len(key) != KEY_BYTES:
        raise BadInput(f"a delivery key has {KEY_BYTES} bytes, given {len(key)}")
    package = Package(package_dir, figures)
    bundle = package.bundle
    promised = package.plain_leaves()
    wrong: list[int] = []
    stream = Keystream(key)
    most = WINDOW_CHUNKS * bundle.chunk_size
    sealed, opened = bytearray(most), bytearray(most)
    with package.cipher() as source, new_folder(out_dir) as folder:
        handle, path = -1, ""
        for name, size in bundle.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if size == 0:
                (folder / name).touch()
        try:
            for window in bundle.windows():
                cipher, data = memoryview(sealed)[: window.size], memoryview(opened)[: window.size]
                read_exactly(source, cipher, window.segment.offset + window.start, package_dir.name)
                stream.xor(window.first * bundle.chunk_size, cipher, data)
                leaves = plain_leaves(window.first, data, bundle.chunk_size)
                expected = promised[window.first * HASH_BYTES : (window.first + window.chunks) * HASH_BYTES]
                if leaves != expected:
                    wrong += _differences(leaves, expected, window.first)
                    if len(wrong) >= MAX_WRONG_LISTED:
                        break
                if window.segment.path and not wrong:
                    if window.segment.path != path:
                        if handle >= 0:
                            os.close(handle)
                        path = window.segment.path
                        handle = os.open(folder / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                        reserve(handle, window.segment.size)
                    write_all(handle, data)
                progress(window.segment.offset + window.start + window.size, bundle.total_bytes)
        finally:
            if handle >= 0:
                os.close(handle)
        if wrong:
            raise WrongChunk(
                tuple(wrong[:MAX_WRONG_LISTED]), bundle.place(wrong[0]).segment.path or "the manifest"
            )
    return DecryptResult(out_dir, len(bundle.files), bundle.total_bytes, bundle.chunks)


def complaint(
    package_dir: Path, figures: OrderFigures, index: int, progress: Progress = silent
) -> ComplaintProof:
    """What the contract needs to see that chunk `index` is wrong.

    Raises IntegrityError when the package changed.
    """
    package = Package(package_dir, figures)
    place = package.bundle.place(index)
    promised = package.plain_leaves()
    sealed = bytearray()
    for leaves in _delivery_leaves(package, promised, progress):
        sealed += leaves
    root, path = root_and_path(bytes(sealed), index)
    _same("delivery root", root, figures.delivery_root)
    cipher = bytearray(place.size)
    with package.cipher() as source:
        read_exactly(source, memoryview(cipher), place.segment.offset + place.start, package_dir.name)
    leaf = promised[index * HASH_BYTES : (index + 1) * HASH_BYTES]
    return ComplaintProof(index, bytes(cipher), leaf, path)


def plain_chunk(copy_dir: Path, figures: OrderFigures, index: int) -> PlainChunk:
    """Accused: a chunk of the copy that he got, as the court takes it (`cases.open_chunk`).

    Raises IntegrityError when the folder is not the copy of this order, BadInput for a chunk out of range.
    """
    bundle = Bundle.scan(copy_dir, figures.chunk_size)
    place = bundle.place(index)
    root, path = root_and_path(bundle.leaves(copy_dir), index)
    _same("copy root", root, figures.copy_root)
    reader = Reader(bundle, copy_dir)
    try:
        return PlainChunk(bundle.chunks, index, bytes(reader.read(place)), path)
    finally:
        reader.close()


def _delivery_leaves(package: Package, promised: bytes, progress: Progress) -> Iterator[bytes]:
    bundle = package.bundle
    buffer = bytearray(WINDOW_CHUNKS * bundle.chunk_size)
    with package.cipher() as source:
        for window in bundle.windows():
            view = memoryview(buffer)[: window.size]
            read_exactly(source, view, window.segment.offset + window.start, package.folder.name)
            yield delivery_leaves(window.first, view, bundle.chunk_size, _leaves_of(promised, window))
            progress(window.segment.offset + window.start + window.size, bundle.total_bytes)


def _leaves_of(promised: bytes, window: Window) -> bytes:
    return promised[window.first * HASH_BYTES : (window.first + window.chunks) * HASH_BYTES]


def _differences(a: bytes, b: bytes, first: int) -> list[int]:
    step = HASH_BYTES
    return [first + at // step for at in range(0, len(a), step) if a[at : at + step] != b[at : at + step]]


def _first_difference(a: bytes, b: bytes, start: int, end: int) -> int | None:
    """The first of the leaves start .. end-1 that differ, compared in pieces of half a megabyte."""
    for first in range(start, end, _PIECE):
        low, high = first * HASH_BYTES, min(first + _PIECE, end) * HASH_BYTES
        if a[low:high] != b[low:high]:
            return _differences(a[low:high], b[low:high], first)[0]
    return None


def _same(what: str, found: bytes, expected: bytes) -> None:
    if found != expected:
        raise IntegrityError(
            f"the {what} is 0x{found.hex()}, expected 0x{expected.hex()}: do not use this package"
        )
