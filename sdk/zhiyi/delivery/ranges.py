"""The declared range: the only chunks in which a delivered copy may differ from the registered bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from eth_abi.abi import encode

from zhiyi.delivery.bundle import Bundle, Segment, open_file, read_exactly
from zhiyi.errors import BadInput, IntegrityError
from zhiyi.types import keccak

MAX_INTERVALS: Final = 8
MAX_SHARE: Final = 4  # at most a quarter of the bundle's bytes
MAX_HEADER_BYTES: Final = 100_000_000  # the safetensors format's own limit
PPM: Final = 1_000_000


class Interval(NamedTuple):
    """Chunks start .. end-1."""

    start: int
    end: int


@dataclass(frozen=True)
class DeclaredRange:
    """At most 8 chunk intervals, in order and apart, and the largest relative change of a tensor, in millionths."""

    intervals: tuple[Interval, ...]
    max_change_ppm: int  # of the tensor's norm

    def __post_init__(self) -> None:
        if len(self.intervals) > MAX_INTERVALS:
            raise BadInput(f"{len(self.intervals)} intervals are too many: at most {MAX_INTERVALS}")
        before = -1
        for start, end in self.intervals:
            if not before < start < end < 1 << 32:
                raise BadInput(
                    f"interval {start} .. {end} is empty, or not after and apart from the one before"
                )
            before = end
        if not 0 <= self.max_change_ppm <= PPM:
            raise BadInput(f"a relative change of {self.max_change_ppm} millionths is not in 0 .. {PPM}")

    def check(self, bundle: Bundle) -> None:
        """Raises BadInput when it covers the manifest, chunks that are not there, or over 25 % of the bytes."""
        if not self.intervals:
            return
        if self.intervals[-1].end > bundle.chunks:
            raise BadInput(
                f"the range ends at chunk {self.intervals[-1].end}, the bundle has {bundle.chunks}"
            )
        if self.intervals[0].start < bundle.segments[0].chunks:
            raise BadInput("the range covers the manifest, which no copy may change")
        covered = self.covered_bytes(bundle)
        if covered * MAX_SHARE > bundle.total_bytes:
            raise BadInput(
                f"the range covers {covered} of {bundle.total_bytes} bytes: at most a quarter is allowed; "
                "declare fewer tensors"
            )

    def covered_bytes(self, bundle: Bundle) -> int:
        """Bytes of the bundle in the range."""
        total = 0
        for segment in bundle.segments:
            for start, end in self.intervals:
                low = max(start, segment.first) - segment.first
                high = min(end, segment.first + segment.chunks) - segment.first
                if low < high:
                    size = bundle.chunk_size
                    total += min(high * size, segment.size) - low * size
        return total

    def contains(self, index: int) -> bool:
        """Whether chunk `index` may differ."""
        return any(start <= index < end for start, end in self.intervals)

    def covers(self, start: int, end: int) -> bool:
        """Whether chunks start .. end-1 all lie in one interval."""
        return any(low <= start and end <= high for low, high in self.intervals)

    def outside(self, chunks: int) -> Iterator[Interval]:
        """The intervals of 0 .. chunks-1 that must not differ."""
        at = 0
        for start, end in self.intervals:
            if at < start:
                yield Interval(at, start)
            at = end
        if at < chunks:
            yield Interval(at, chunks)

    def hash(self) -> bytes:
        """keccak256(abi.encode(uint32[2][] intervals, uint32 maxChangePpm)), as registered on chain."""
        return keccak(
            encode(["uint32[2][]", "uint32"], [[tuple(i) for i in self.intervals], self.max_change_ppm])
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"intervals": [list(i) for i in self.intervals], "maxChangePpm": self.max_change_ppm}

    @classmethod
    def from_json(cls, value: Any) -> DeclaredRange:
        """Raises BadInput for anything but what `to_json` gives."""
        try:
            intervals = tuple(Interval(*map(_index, pair)) for pair in value["intervals"])
            return cls(intervals, _index(value["maxChangePpm"]))
        except (KeyError, TypeError, ValueError) as exc:
            raise BadInput(f"the declared range is malformed: {exc!r:.200}") from exc


def range_for_tensors(
    folder: Path, bundle: Bundle, names: Iterable[str], *, max_change_ppm: int
) -> DeclaredRange:
    """The smallest range that covers the named tensors of the bundle's safetensors files; edge chunks belong to it.

    Raises BadInput for a name that is in no file or in two, for more than 8 intervals or over 25 % of the
    bytes.
    """
    wanted = list(names)
    places: dict[str, Interval] = {}
    for segment in bundle.segments:
        if not segment.path.endswith(".safetensors"):
            continue
        for name, start, end in _tensors(folder, segment):
            if name in places:
                raise BadInput(f"tensor {name!r} is in two files of the bundle")
            low, high = start // bundle.chunk_size, -(-end // bundle.chunk_size)
            places[name] = Interval(segment.first + low, segment.first + high)
    missing = [name for name in wanted if name not in places]
    if missing or not wanted:
        raise BadInput(
            f"no such tensor in the bundle: {missing[:5]}" if missing else "name at least one tensor"
        )
    merged: list[Interval] = []
    for place in sorted(places[name] for name in wanted if places[name].start < places[name].end):
        if merged and place.start <= merged[-1].end:
            merged[-1] = Interval(merged[-1].start, max(merged[-1].end, place.end))
        else:
            merged.append(place)
    declared = DeclaredRange(tuple(merged), max_change_ppm)
    declared.check(bundle)
    return declared


def header_bytes(folder: Path, segment: Segment) -> bytes:
    """A safetensors file's header with its length field. Raises IntegrityError when it cannot be one."""
    handle = open_file(folder / segment.path)
    try:
        prefix = bytearray(8)
        read_exactly(handle, memoryview(prefix), 0, segment.path)
        length = int.from_bytes(prefix, "little")
        if length > min(MAX_HEADER_BYTES, segment.size - 8):
            raise IntegrityError(
                f"{segment.path} announces a header of {length} bytes: it is no safetensors file"
            )
        data = bytearray(length)
        read_exactly(handle, memoryview(data), 8, segment.path)
        return bytes(prefix + data)
    finally:
        os.close(handle)


def _tensors(folder: Path, segment: Segment) -> Iterator[tuple[str, int, int]]:
    header = header_bytes(folder, segment)
    try:
        value: dict[str, Any] = json.loads(header[8:])
        for name, tensor in value.items():
            if name != "__metadata__":
                start, end = map(_index, tensor["data_offsets"])
                if not start <= end <= segment.size - len(header):
                    raise ValueError(f"tensor {name[:60]!r} lies outside the file")
                yield name, len(header) + start, len(header) + end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise IntegrityError(f"{segment.path} has a malformed safetensors header: {exc!r:.200}") from exc


def _index(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{str(value)[:40]} is not a whole number")
    return value
