"""Fingerprinter: encrypt a marked copy so that the buyer can check it before paying and prove a wrong chunk after."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from zhiyi.delivery.bundle import WINDOW_CHUNKS, Bundle, Reader
from zhiyi.delivery.hashing import HASH_BYTES, KEY_BYTES, Keystream, delivery_leaves, plain_leaves
from zhiyi.delivery.merkle import RootBuilder, Tree
from zhiyi.delivery.package import (
    CIPHER,
    LEAVES,
    MANIFEST,
    DeliveryFigures,
    Progress,
    new_folder,
    reserve,
    silent,
    write_all,
)
from zhiyi.delivery.ranges import DeclaredRange, header_bytes
from zhiyi.errors import BadInput, IntegrityError

_LEAF: Final = Struct(f"{HASH_BYTES}s")


@dataclass(frozen=True)
class PreparedCopy:
    """A package on the fingerprinter's disk and what the order has to say of it."""

    folder: Path
    figures: DeliveryFigures
    changed_chunks: int  # that differ from the registered bundle


def new_key() -> bytes:
    """A fresh delivery key, 32 bytes. One for each order: two copies under one key give both away."""
    return os.urandom(KEY_BYTES)


def prepare(
    marked: Path,
    registered: Path,
    registered_tree: Tree,
    declared_range: DeclaredRange,
    key: bytes,
    out_dir: Path,
    progress: Progress = silent,
) -> PreparedCopy:
    """Encrypt the bundle in folder `marked` into the new folder `out_dir`.

    `registered` is the folder of the registered bundle, `registered_tree` the tree over its plain leaves.
    Raises BadInput for a bad key, range or bundle; IntegrityError, naming file or chunk, when the copy
    differs from the registered bundle outside the range or in names, lengths or a safetensors header.
    """
    if len(key) != KEY_BYTES or key == bytes(KEY_BYTES):
        raise BadInput(f"a delivery key has {KEY_BYTES} random bytes; make one with new_key()")
    bundle = Bundle.scan(marked)
    _check_layout(bundle, marked, registered, registered_tree)
    declared_range.check(bundle)
    promised = registered_tree.leaves
    copy, delivery = RootBuilder(), RootBuilder()
    changed = 0
    source, stream = Reader(bundle, marked), Keystream(key)
    scratch = bytearray(WINDOW_CHUNKS * bundle.chunk_size)
    try:
        with new_folder(out_dir) as folder:
            with (
                open(folder / CIPHER, "xb", buffering=0) as target,
                open(folder / LEAVES, "xb") as leaves_file,
            ):
                reserve(target.fileno(), bundle.total_bytes)
                for window in bundle.windows():
                    data = source.read(window)
                    leaves = plain_leaves(window.first, data, bundle.chunk_size)
                    if (
                        leaves
                        != promised[window.first * HASH_BYTES : (window.first + window.chunks) * HASH_BYTES]
                    ):
                        changed += _check_changes(bundle, declared_range, promised, window.first, leaves)
                    cipher = memoryview(scratch)[: window.size]
                    stream.xor(window.first * bundle.chunk_size, data, cipher)
                    copy.add(leaves)
                    delivery.add(delivery_leaves(window.first, cipher, bundle.chunk_size, leaves))
                    leaves_file.write(leaves)
                    write_all(target.fileno(), cipher)
                    progress(window.segment.offset + window.start + window.size, bundle.total_bytes)
            (folder / MANIFEST).write_bytes(bundle.manifest)
    finally:
        source.close()
    figures = DeliveryFigures(
        copy.root(), delivery.root(), bundle.total_bytes, bundle.chunks, bundle.chunk_size
    )
    return PreparedCopy(out_dir, figures, changed)


def _check_layout(bundle: Bundle, marked: Path, registered: Path, tree: Tree) -> None:
    base = Bundle.scan(registered)
    if bundle != base:
        differing = sorted(set(bundle.files) ^ set(base.files))
        raise IntegrityError(
            "the marked copy has other files or lengths than the registered bundle, first "
            f"{differing[0][0]!r}: a mark may change tensor values only"
        )
    if tree.count != bundle.chunks:
        raise BadInput(f"the registered tree has {tree.count} leaves, the bundle {bundle.chunks} chunks")
    for segment in bundle.segments:
        if segment.path.endswith(".safetensors") and header_bytes(marked, segment) != header_bytes(
            registered, segment
        ):
            raise IntegrityError(
                f"{segment.path} has another header than registered: keep names, dtypes and order"
            )


def _check_changes(
    bundle: Bundle, declared: DeclaredRange, promised: bytes, first: int, leaves: bytes
) -> int:
    """Number of leaves that differ from the registered ones; all of them have to be in the range."""
    window = promised[first * HASH_BYTES : first * HASH_BYTES + len(leaves)]
    both = zip(_LEAF.iter_unpack(leaves), _LEAF.iter_unpack(window), strict=True)
    changed = [first + k for k, (made, registered) in enumerate(both) if made != registered]
    if changed and not declared.covers(changed[0], changed[-1] + 1):
        for index in changed:
            if not declared.contains(index):
                place = bundle.place(index)
                raise IntegrityError(
                    f"chunk {index} (byte {place.start} of {place.segment.path or 'the manifest'!r}) differs "
                    "from the registered bundle outside the declared range: mark only tensors of the range"
                )
    return len(changed)
