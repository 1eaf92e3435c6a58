"""What is sold: a folder as one numbered row of chunks.

A bundle is a manifest (RFC 8785 JSON) and the files it lists, sorted by UTF-8 path. The manifest is the first
segment, each file the next; every segment begins a new chunk and only its last chunk may be short. So the
leaves over the chunks fix names, order and lengths as well as bytes, and a file of no bytes takes no chunk.
"""

from __future__ import annotations

import json
import os
import stat
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import rfc8785

from zhiyi.delivery.hashing import plain_leaves
from zhiyi.errors import BadInput, IntegrityError, NotFound

SCHEMA: Final = "zhiyi.bundle.v1"
CHUNK_SIZE: Final = 704  # bytes: 11 blocks of the keystream; docs/decisions/0001
MIN_CHUNK_SIZE: Final = 64
MAX_CHUNK_SIZE: Final = 4096  # as in FairDelivery.sol: larger ones cost too much gas to complain about
MAX_CHUNKS: Final = (1 << 32) - 1  # u32 in the order
MAX_FILES: Final = 4096
MAX_PATH_BYTES: Final = 512
MAX_NAME_BYTES: Final = 255  # of one folder or file: more no usual file system takes
MAX_MANIFEST_BYTES: Final = MAX_FILES * (MAX_PATH_BYTES * 6 + 64)
WINDOW_CHUNKS: Final = 512  # read at once: 448 KiB stay in a core's cache
# Formats that run code when loaded.
REFUSED_SUFFIXES: Final = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill"})


class Segment(NamedTuple):
    """The manifest (path "") or one file."""

    path: str
    size: int  # bytes
    first: int  # index of its first chunk
    chunks: int
    offset: int  # bytes of all segments before it


class Window(NamedTuple):
    """Whole chunks of one segment that are handled at once."""

    segment: Segment
    first: int  # chunk index
    chunks: int
    start: int  # byte in the segment
    size: int  # bytes


@dataclass(frozen=True)
class Bundle:
    """Names, sizes and numbering of a bundle; holds no file bytes."""

    chunk_size: int
    files: tuple[tuple[str, int], ...]  # (path, bytes), sorted by UTF-8 path

    def __post_init__(self) -> None:
        size = self.chunk_size
        if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE or size % MIN_CHUNK_SIZE:
            raise BadInput(f"chunk size {size} is not a multiple of {MIN_CHUNK_SIZE} up to {MAX_CHUNK_SIZE}")
        if not any(length for _, length in self.files):
            raise BadInput("the bundle is empty: it needs at least one file with bytes in it")
        if len(self.files) > MAX_FILES:
            raise BadInput(f"{len(self.files)} files are too many: at most {MAX_FILES}")
        seen: set[str] = set()
        before = b""
        for path, length in self.files:
            name = check_path(path)
            if name <= before:
                raise BadInput(
                    f"{path!r} is not after the file before it: paths are sorted by their UTF-8 bytes"
                )
            folded = path.casefold()
            if folded in seen:
                raise BadInput(f"{path!r} differs from another file only in case: rename one")
            if length < 0:
                raise BadInput(f"{path!r} has a length of {length} bytes")
            before = name
            seen.add(folded)
        for path in seen:
            parent = path
            while "/" in parent:
                parent = parent.rpartition("/")[0]
                if parent in seen:
                    raise BadInput(f"{parent!r} is both a file and the folder of another file")
        if self.chunks > MAX_CHUNKS:
            raise BadInput(f"{self.chunks} chunks are too many: at most {MAX_CHUNKS}; take larger chunks")

    @classmethod
    def scan(cls, folder: Path, chunk_size: int = CHUNK_SIZE) -> Bundle:
        """The bundle of all files below `folder`.

        Raises NotFound without such a folder; BadInput for links, devices, pickles, bad names, too much or
        nothing.
        """
        if not folder.is_dir():
            raise NotFound(f"{folder} is not a folder: name the folder with the model's files")
        files: list[tuple[str, int]] = []
        for path in regular_files(folder):
            files.append((path.relative_to(folder).as_posix(), path.stat().st_size))
            if len(files) > MAX_FILES:
                raise BadInput(f"{folder} has more than {MAX_FILES} files: a bundle holds at most so many")
        return cls(chunk_size, tuple(sorted(files, key=lambda item: os.fsencode(item[0]))))

    @classmethod
    def from_manifest(cls, data: bytes) -> Bundle:
        """Read a manifest.

        Raises BadInput unless it is exactly the canonical manifest of an allowed bundle.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise BadInput(f"a manifest of {len(data)} bytes is too large: at most {MAX_MANIFEST_BYTES}")
        try:
            value: Any = json.loads(data)
            if value["schema"] != SCHEMA:
                raise BadInput(
                    f"manifest schema {str(value['schema'])[:40]!r} is unknown: {SCHEMA!r} is needed"
                )
            bundle = cls(
                _whole(value["chunkSize"]), tuple((f["path"], _whole(f["size"])) for f in value["files"])
            )
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise BadInput(f"the manifest is malformed: {exc!r:.200}") from exc
        if bundle.manifest != data:
            raise BadInput(
                "the manifest is not in canonical form (RFC 8785): take the one the seller published"
            )
        return bundle

    @cached_property
    def manifest(self) -> bytes:
        """The manifest's bytes: segment 0 of the bundle."""
        return rfc8785.dumps(
            {
                "schema": SCHEMA,
                "chunkSize": self.chunk_size,
                "files": [{"path": path, "size": size} for path, size in self.files],
            }
        )

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Manifest and files in order, with their places."""
        result = []
        first = offset = 0
        for path, size in (("", len(self.manifest)), *self.files):
            chunks = -(-size // self.chunk_size)
            result.append(Segment(path, size, first, chunks, offset))
            first += chunks
            offset += size
        return tuple(result)

    @property
    def chunks(self) -> int:
        """Number of chunks, the manifest's included."""
        last = self.segments[-1]
        return last.first + last.chunks

    @property
    def total_bytes(self) -> int:
        """Bytes of manifest and files."""
        last = self.segments[-1]
        return last.offset + last.size

    def place(self, index: int) -> Window:
        """The one chunk `index`. Raises BadInput out of range."""
        if not 0 <= index < self.chunks:
            raise BadInput(f"chunk {index} is not below the {self.chunks} chunks of the bundle")
        held = [segment for segment in self.segments if segment.chunks]
        segment = held[bisect_right([s.first for s in held], index) - 1]
        start = (index - segment.first) * self.chunk_size
        return Window(segment, index, 1, start, min(self.chunk_size, segment.size - start))

    def windows(self) -> Iterator[Window]:
        """All chunks in order, up to `WINDOW_CHUNKS` of one segment at a time."""
        step = WINDOW_CHUNKS * self.chunk_size
        for segment in self.segments:
            for start in range(0, segment.size, step):
                size = min(step, segment.size - start)
                first = segment.first + start // self.chunk_size
                yield Window(segment, first, -(-size // self.chunk_size), start, size)

    def leaves(self, folder: Path) -> bytes:
        """Plain leaves of all chunks, read from `folder`.

        Raises IntegrityError when a file changed its length.
        """
        reader = Reader(self, folder)
        try:
            return b"".join(plain_leaves(w.first, reader.read(w), self.chunk_size) for w in self.windows())
        finally:
            reader.close()


class Reader:
    """Reads windows of a bundle in order, from a folder with its files."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        self._bundle = bundle
        self._folder = folder
        self._path = ""
        self._file: int | None = None
        self._buffer = bytearray(WINDOW_CHUNKS * bundle.chunk_size)

    def read(self, window: Window) -> memoryview:
        """The window's bytes, valid until the next call. Raises NotFound, IntegrityError."""
        if window.segment.path == "":
            return memoryview(self._bundle.manifest)[window.start : window.start + window.size]
        if window.segment.path != self._path or self._file is None:
            self.close()
            path = self._folder / window.segment.path
            self._file = open_file(path)
            self._path = window.segment.path
            if os.fstat(self._file).st_size != window.segment.size:
                raise IntegrityError(
                    f"{path} has {os.fstat(self._file).st_size} bytes, "
                    f"the manifest says {window.segment.size}"
                )
        view = memoryview(self._buffer)[: window.size]
        read_exactly(self._file, view, window.start, self._path)
        return view

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextmanager
def open_file_of(path: Path) -> Iterator[BinaryIO]:
    """A regular file as a stream. Raises as `open_file`."""
    with os.fdopen(open_file(path), "rb") as file:
        yield file


def open_file(path: Path) -> int:
    """Open a regular file for reading, never a link. Raises NotFound, BadInput."""
    try:
        handle = os.open(
            path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        )
    except FileNotFoundError as exc:
        raise NotFound(f"{path} is missing") from exc
    except OSError as exc:
        raise BadInput(f"{path} cannot be read: {exc.strerror}") from exc
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BadInput(f"{path} is not a regular file")
    return handle


def read_exactly(handle: int, view: memoryview, start: int, name: str) -> None:
    """Fill `view` from byte `start`. Raises IntegrityError when the file ends before."""
    done = 0
    while done < len(view):
        got = os.preadv(handle, [view[done:]], start + done)
        if got == 0:
            raise IntegrityError(f"{name} ends at byte {start + done}: it is {len(view) - done} bytes short")
        done += got


def regular_files(folder: Path) -> Iterator[Path]:
    """All files below `folder`. Raises BadInput for a link or a device."""
    waiting = [
        _entries(folder)
    ]  # no recursion: a stranger's folder may be nested as deep as paths can be long
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            raise BadInput(f"{path} is a link: copy the file itself into the folder")
        if entry.is_dir(follow_symlinks=False):
            waiting.append(_entries(path))
        elif entry.is_file(follow_symlinks=False):
            yield path
        else:
            raise BadInput(f"{path} is neither file nor folder: remove it")


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    return iter(sorted(os.scandir(folder), key=lambda e: e.name))


def check_path(path: str) -> bytes:
    """As `check_name`, and BadInput for formats that run code when loaded."""
    name = check_name(path)
    if Path(path).suffix.lower() in REFUSED_SUFFIXES:
        raise BadInput(f"{path!r} may hold a pickle, which runs code when loaded: convert it to safetensors")
    return name


def check_name(path: str) -> bytes:
    """UTF-8 of a path inside a bundle. Raises BadInput for whatever could leave the folder."""
    try:
        name = path.encode()
    except (UnicodeEncodeError, AttributeError) as exc:
        raise BadInput(f"{path!r} is not a path in UTF-8") from exc
    if not 0 < len(name) <= MAX_PATH_BYTES:
        raise BadInput(f"a path has 1 .. {MAX_PATH_BYTES} bytes, {path[:60]!r} has {len(name)}")
    parts = path.split("/")
    for part in parts:
        if len(part.encode()) > MAX_NAME_BYTES:
            raise BadInput(
                f"{part[:60]!r}… has {len(part.encode())} bytes, a name has at most {MAX_NAME_BYTES}"
            )
    bad = any(part in ("", ".", "..") or part != part.strip(" ") or part.endswith(".") for part in parts)
    if bad or any(ord(c) < 32 or c in '\\:*?"<>|\x7f' for c in path):
        raise BadInput(f"{path!r} is not a plain relative path: use letters, digits, '-', '_', '.' and '/'")
    return name


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError(f"{str(value)[:40]} is not a whole number below 2^53")
    return value
