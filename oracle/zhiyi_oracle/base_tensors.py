"""The registered tensors of the declared range, as a fingerprinter hands them to a case's committee.

File layout (before it is sealed), integers big-endian:

    "zhiyi.base.v1\\n" | committee key (32) | u32 facts length | facts | u32 manifest length | manifest
    u32 n | n * (u32 start, u32 end) | bytes of those chunks, in order

The facts are JSON: what the model registered by hash only, the detector's spec and the declared range. The chunks are
the headers of all safetensors files and the declared range. Whoever reads it checks the facts against the registered
hashes and every chunk against the registered leaves, so it cannot matter who wrote it. The committee key is fresh for a
case: operators compare HMACs under it without telling anyone their statistics.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from zhiyi.delivery.bundle import (
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    WINDOW_CHUNKS,
    Bundle,
    Reader,
    Segment,
    Window,
)
from zhiyi.delivery.hashing import HASH_BYTES, plain_leaves
from zhiyi.delivery.merkle import RootBuilder
from zhiyi.delivery.ranges import MAX_INTERVALS, DeclaredRange, Interval, header_bytes, range_for_tensors
from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi.types import ModelRecord
from zhiyi_oracle.errors import BadBase
from zhiyi_watermark.errors import WatermarkError
from zhiyi_watermark.weights import WfpSpec

MAGIC: Final = b"zhiyi.base.v1\n"
KEY_BYTES: Final = 32
MAX_FACTS_BYTES: Final = 1 << 20
MAX_PACKAGE_INTERVALS: Final = MAX_INTERVALS + MAX_FILES
_U32: Final = struct.Struct(">I")
_PAIR: Final = struct.Struct(">II")

Progress = Callable[[int, int], None]  # chunks done, chunks in all


@dataclass(frozen=True)
class BaseTensors:
    """Registered tensors, rebuilt: files of full length whose other tensors are holes."""

    folder: Path
    committee_key: bytes  # 32 bytes
    spec: WfpSpec  # the registered detector


def base_intervals(folder: Path, bundle: Bundle, declared: DeclaredRange) -> tuple[Interval, ...]:
    """Chunks of a base package: headers of all safetensors files and the declared range, merged, in order."""
    found = list(declared.intervals)
    for segment in bundle.segments:
        if segment.path.endswith(".safetensors"):
            chunks = -(-len(header_bytes(folder, segment)) // bundle.chunk_size)
            found.append(Interval(segment.first, segment.first + chunks))
    merged: list[Interval] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1].end:
            merged[-1] = Interval(merged[-1].start, max(merged[-1].end, end))
        else:
            merged.append(Interval(start, end))
    return tuple(merged)


def write_base(
    folder: Path, bundle: Bundle, declared: DeclaredRange, spec: WfpSpec, committee_key: bytes, out: Path
) -> None:
    """Writes the package of a registered bundle.

    Raises:
        BadInput: a key of another length; ZhiyiError of zhiyi.delivery for unreadable files.
    """
    if len(committee_key) != KEY_BYTES:
        raise BadInput(f"a committee key has {KEY_BYTES} bytes, given {len(committee_key)}")
    intervals = base_intervals(folder, bundle, declared)
    reader = Reader(bundle, folder)
    try:
        with out.open("xb") as file:
            facts = {"declaredRange": declared.to_json(), "detector": json.loads(spec.to_json())}
            text = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
            file.write(MAGIC + committee_key + _U32.pack(len(text)) + text)
            file.write(_U32.pack(len(bundle.manifest)) + bundle.manifest)
            file.write(_U32.pack(len(intervals)) + b"".join(_PAIR.pack(*pair) for pair in intervals))
            for window in _windows(bundle, intervals):
                file.write(reader.read(window))
            file.flush()
            os.fsync(file.fileno())
    finally:
        reader.close()


def read_base(
    package: Path,
    *,
    record: ModelRecord,
    leaves: bytes | mmap.mmap,
    out: Path,
    progress: Progress = lambda done, total: None,
) -> BaseTensors:
    """Checks a package against the registration and rebuilds its files in the new folder `out`.

    1. The leaves are the registered ones: their number and root.
    2. Detector and range have the registered hashes.
    3. The manifest is canonical, equals its leaves, and is that of the registered bundle.
    4. Every chunk equals its registered leaf; nothing is missing, nothing follows.
    5. Header chunks are complete, and every tensor that the detector reads lies in the declared range.

    Raises:
        BadBase: naming the step.
    """
    # 1
    if len(leaves) != record.chunks * HASH_BYTES or _root_of(leaves) != record.weights_root:
        raise BadBase("1: these are not the leaves under the model's registered root")
    out.mkdir(parents=True)
    with package.open("rb") as file:
        if _take(file, len(MAGIC)) != MAGIC:
            raise BadBase("the file is no base package of version 1")
        key = _take(file, KEY_BYTES)
        # 2
        length = _U32.unpack(_take(file, _U32.size))[0]
        if length > MAX_FACTS_BYTES:
            raise BadBase(f"2: facts of {length} bytes are over the limit of {MAX_FACTS_BYTES}")
        spec, declared = _facts_of(_take(file, length), record)
        # 3
        length = _U32.unpack(_take(file, _U32.size))[0]
        if length > MAX_MANIFEST_BYTES:
            raise BadBase(f"3: a manifest of {length} bytes is over the limit of {MAX_MANIFEST_BYTES}")
        manifest = _take(file, length)
        try:
            bundle = Bundle.from_manifest(manifest)
        except BadInput as exc:
            raise BadBase(f"3: {exc}") from exc
        if (bundle.chunks, bundle.total_bytes, bundle.chunk_size) != (
            record.chunks,
            record.total_bytes,
            record.chunk_size,
        ):
            raise BadBase("3: the manifest is not that of the registered bundle")
        _check_leaves(0, manifest, bundle.chunk_size, leaves)
        # 4
        count = _U32.unpack(_take(file, _U32.size))[0]
        if count > MAX_PACKAGE_INTERVALS:
            raise BadBase(f"4: {count} intervals are over the limit of {MAX_PACKAGE_INTERVALS}")
        intervals = tuple(Interval(*_PAIR.unpack(_take(file, _PAIR.size))) for _ in range(count))
        _check_intervals(intervals, bundle)
        total = sum(end - start for start, end in intervals)
        done = 0
        for segment in bundle.segments:
            if segment.path.endswith(".safetensors"):
                path = out / segment.path
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as created:
                    created.truncate(segment.size)
        for window in _windows(bundle, intervals):
            data = _take(file, window.size)
            _check_leaves(window.first, data, bundle.chunk_size, leaves)
            if not window.segment.path.endswith(".safetensors"):
                raise BadBase(
                    f"4: chunk {window.first} belongs to {window.segment.path!r}, which holds no tensors"
                )
            with (out / window.segment.path).open("r+b") as target:
                target.seek(window.start)
                target.write(data)
            done += window.chunks
            progress(done, total)
        if file.read(1):
            raise BadBase("4: bytes follow the last chunk")
    # 5
    try:
        needed = base_intervals(out, bundle, declared)
        used = range_for_tensors(
            out, bundle, [t.name for t in spec.tensors], max_change_ppm=declared.max_change_ppm
        )
    except (BadInput, IntegrityError, NotFound) as exc:
        raise BadBase(f"5: {exc}") from exc
    if needed != intervals:
        raise BadBase("5: chunks of a header or of the declared range are missing, or others were added")
    if not all(
        any(low <= start and end <= high for low, high in declared.intervals) for start, end in used.intervals
    ):
        raise BadBase("5: the detector reads tensors outside the declared range")
    return BaseTensors(out, key, spec)


def _facts_of(data: bytes, record: ModelRecord) -> tuple[WfpSpec, DeclaredRange]:
    try:
        facts = json.loads(data)
        spec = WfpSpec.from_json(json.dumps(facts["detector"]))
        declared = DeclaredRange.from_json(facts["declaredRange"])
    except (WatermarkError, BadInput, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise BadBase(f"2: the facts are malformed: {exc!r:.200}") from exc
    if spec.spec_hash() != record.detector_hash:
        raise BadBase(
            f"2: this is the spec of detector 0x{spec.spec_hash().hex()}, not of the registered one"
        )
    if declared.hash() != record.range_hash:
        raise BadBase("2: this is not the declared range that the model registered")
    return spec, declared


def _windows(bundle: Bundle, intervals: Iterable[Interval]) -> list[Window]:
    """The chunks of the intervals, up to WINDOW_CHUNKS of one segment at a time."""
    found = []
    for start, end in intervals:
        at = start
        while at < end:
            segment: Segment = bundle.place(at).segment
            stop = min(end, segment.first + segment.chunks, at + WINDOW_CHUNKS)
            begin = (at - segment.first) * bundle.chunk_size
            size = min((stop - segment.first) * bundle.chunk_size, segment.size) - begin
            found.append(Window(segment, at, stop - at, begin, size))
            at = stop
    return found


def _check_intervals(intervals: tuple[Interval, ...], bundle: Bundle) -> None:
    before = -1
    for start, end in intervals:
        if not before < start < end <= bundle.chunks:
            raise BadBase(f"4: interval {start} .. {end} is empty, out of order or beyond the bundle")
        before = end


def _root_of(leaves: bytes | mmap.mmap) -> bytes:
    builder, step = RootBuilder(), 1 << 20
    for at in range(0, len(leaves), step):
        builder.add(leaves[at : at + step])
    return builder.root()


def _check_leaves(first: int, data: bytes, chunk_size: int, leaves: bytes | mmap.mmap) -> None:
    found = plain_leaves(first, data, chunk_size)
    if leaves[first * HASH_BYTES : first * HASH_BYTES + len(found)] != found:
        raise BadBase(f"4: a chunk from {first} on is not the registered one")


def _take(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise BadBase(f"the package ends {size - len(data)} bytes early")
    return data
