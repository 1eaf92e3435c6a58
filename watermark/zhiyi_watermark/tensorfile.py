"""Reading safetensors without trusting them: numpy only, never pickle, limits before parsing.

Format: u64 little-endian header length, JSON header, tensors back to back
(https://huggingface.co/docs/safetensors). bf16 is read through uint16 << 16. Opening a file neither copies
nor changes it. A checkpoint keeps no file open, so its number of files is no matter of the process's limits.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError

MAX_HEADER: Final = 32 << 20  # bytes
MAX_TENSORS: Final = 1 << 18  # of all files together
MAX_FILES: Final = 1024
MAX_RANK: Final = 8
MAX_DEPTH: Final = 64  # lists and maps of a JSON document within each other
MAX_DIGITS: Final = 100  # of a whole number in JSON

DTYPE_BYTES: Final[Mapping[str, int]] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
FLOATS: Final[Mapping[str, str]] = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}  # those a mark can live in

_ESCAPED: Final = re.compile(r"\\.", re.DOTALL)
_QUOTED: Final = re.compile('"[^"]*"?')
_LOCK: Final = "lock"  # of a scratch folder
_AT_CWD: Final = -100  # of Linux' renameat2: paths as they are
_EXCHANGE: Final = 2
PICKLED: Final = frozenset((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill"))
"""Suffixes of files that may be pickles."""

_PICKLES: Final = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Entry:
    """One tensor of one file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # absolute byte offset in the file
    end: int

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def parsed(text: str | bytes) -> Any:
    """JSON in which no key occurs twice; bytes are UTF-8. Raises ValueError, also over MAX_DEPTH.

    json goes down as deep as the interpreter's limit of recursion, and crashes where a library has raised that.
    """
    whole = text.decode("utf-8") if isinstance(text, bytes) else text
    if _is_deep(whole):
        raise ValueError("it is nested too deep")
    return json.loads(whole, object_pairs_hook=_unique, parse_int=_short)


def _short(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits, at most {MAX_DIGITS} are read")
    return int(digits)


def _is_deep(text: str) -> bool:
    """Whether over MAX_DEPTH lists and maps are open at once, as far as json would read."""
    depth = 0
    for character in _QUOTED.sub("", _ESCAPED.sub("", text)):
        if character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif character in "]}":
            depth -= 1
    return False


def is_unicode(text: str) -> bool:
    """Whether the text has no half of a surrogate pair, which JSON may bring in and UTF-8 cannot hold."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key occurs twice")
    return out


def _whole(value: object, what: str, path: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise CarrierError(
            f"{path.name}: {what} is {value!r:.80}, expected a whole number; the file is malformed"
        )
    return value


def _parse_header(raw: bytes, path: Path, data_start: int, size: int) -> list[Entry]:
    try:
        header = parsed(raw.decode("utf-8"))
    except ValueError as error:
        raise CarrierError(f"{path.name}: the safetensors header can't be read ({error!s:.120})") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise CarrierError(f"{path.name}: the header is no map of at most {MAX_TENSORS} tensors")
    entries = []
    for name, item in header.items():
        if name == "__metadata__":
            continue
        if not is_unicode(name):
            raise CarrierError(f"{path.name}: the name of tensor {name!r:.80} is not valid Unicode")
        if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
            raise CarrierError(f"{path.name}: tensor {name!r:.80} lacks dtype, shape or data_offsets")
        dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
            raise CarrierError(f"{path.name}: tensor {name!r:.80} has unknown dtype {dtype!r:.20}")
        if not isinstance(shape, list) or len(shape) > MAX_RANK:
            raise CarrierError(f"{path.name}: tensor {name!r:.80} has a malformed shape")
        if not isinstance(offsets, list) or len(offsets) != 2:
            raise CarrierError(f"{path.name}: tensor {name!r:.80} has malformed data_offsets")
        dims = tuple(_whole(x, f"a dimension of {name!r:.80}", path) for x in shape)
        low, high = (_whole(x, f"an offset of {name!r:.80}", path) for x in offsets)
        if high - low != math.prod(dims) * DTYPE_BYTES[dtype]:
            raise CarrierError(
                f"{path.name}: tensor {name!r:.80} spans {high - low} bytes, its shape needs others"
            )
        entries.append(Entry(name, dtype, dims, data_start + low, data_start + high))
    entries.sort(key=lambda e: (e.start, e.end))
    at = data_start
    for entry in entries:
        if entry.start != at:
            raise CarrierError(f"{path.name}: tensor {entry.name!r:.80} overlaps another or leaves a hole")
        at = entry.end
    if at != size:
        raise CarrierError(f"{path.name}: tensors end at byte {at}, the file at {size}; it is cut or padded")
    return entries


class TensorFile:
    """One safetensors file, opened for each read. Use as a context manager; writable=True allows patching in
    place."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._writable = writable
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise CarrierError(f"{path} is no plain file; give a safetensors file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                if head.startswith(_PICKLES):
                    raise CarrierError(
                        f"{path.name} is a pickle or a zip archive of PyTorch, which runs what it holds when it is "
                        "loaded; ask for safetensors"
                    )
                raise CarrierError(
                    f"{path.name}: header length {length} exceeds the file ({size} bytes) or {MAX_HEADER}; "
                    "it is not a safetensors file"
                )
            parsed = _parse_header(file.read(length), path, 8 + length, size)
        self.entries = parsed  # in file order
        self.bytes = size

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """No more changes."""
        self._writable = False

    def raw(self, entry: Entry) -> bytes:
        """The tensor's bytes as stored. Raises CarrierError when the file was cut meanwhile."""
        with self.path.open("rb") as file:
            file.seek(entry.start)
            found = file.read(entry.end - entry.start)
        if len(found) != entry.end - entry.start:
            raise CarrierError(f"{self.path.name}: the file became shorter while it was read")
        return found

    def floats(self, entry: Entry) -> Float32:
        """A copy of the tensor as float32, flat.  # (count,)"""
        kind = FLOATS.get(entry.dtype)
        if kind is None:
            raise UnavailableError(
                f"tensor {entry.name} is stored as {entry.dtype}; marks are read from {set(FLOATS)}"
            )
        raw = np.frombuffer(self.raw(entry), dtype=kind)
        if entry.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            return raw.astype(np.float32)

    def store(self, entry: Entry, raw: bytes) -> None:
        """Overwrites the tensor's bytes; the length can't change. Raises CarrierError, also if not writable."""
        if not self._writable:
            raise CarrierError(f"{self.path.name} was not opened for writing")
        if len(raw) != entry.end - entry.start:
            raise CarrierError(f"{entry.name} takes {entry.end - entry.start} bytes, given {len(raw)}")
        with self.path.open("r+b") as file:
            file.seek(entry.start)
            file.write(raw)


def files_of(path: Path) -> list[Path]:
    """The safetensors files of a file or folder, sorted by name. Symbolic links are refused.

    Raises UnavailableError if there are none, CarrierError on links or too many files.
    """
    if path.is_symlink():
        raise CarrierError(f"{path} is a symbolic link; give the file itself")
    if path.is_file():
        return [path]
    found = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    if not found:
        other = next((f for f in sorted(path.glob("*")) if f.suffix.lower() in PICKLED), None)
        if other is not None:
            raise UnavailableError(
                f"{path} holds no safetensors, only {other.name}, which may be a pickle and run what it holds when "
                "loaded: convert it to safetensors"
            )
        raise UnavailableError(f"{path} is neither a safetensors file nor a folder with some")
    if len(found) > MAX_FILES:
        raise CarrierError(f"{path} holds {len(found)} safetensors files, at most {MAX_FILES} are read")
    for file in found:
        if file.is_symlink() or not file.is_file():
            raise CarrierError(f"{file} is not a plain file; give a folder of plain files")
    return found


class Checkpoint:
    """All tensors of a file or of a folder of shards, by name."""

    def __init__(self, path: Path) -> None:
        self.files: list[TensorFile] = []
        self._where: dict[str, tuple[TensorFile, Entry]] = {}
        try:
            for file in files_of(path):
                opened = TensorFile(file)
                self.files.append(opened)
                if len(self._where) + len(opened.entries) > MAX_TENSORS:
                    raise CarrierError(f"{path} holds more than {MAX_TENSORS} tensors")
                for entry in opened.entries:
                    if entry.name in self._where:
                        raise CarrierError(f"tensor {entry.name!r:.80} is in two files of {path}")
                    self._where[entry.name] = (opened, entry)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes every file."""
        for file in self.files:
            file.close()

    def __iter__(self) -> Iterator[Entry]:
        """Entries in file order."""
        for file in self.files:
            yield from file.entries

    @property
    def data_bytes(self) -> int:
        """Bytes of all files, headers included."""
        return sum(f.bytes for f in self.files)

    def entry(self, name: str) -> Entry:
        """The entry of a tensor. Raises UnavailableError if it is missing."""
        if name not in self._where:
            raise UnavailableError(f"tensor {name} is missing; the detector can't be run on this object")
        return self._where[name][1]

    def floats(self, name: str, shape: tuple[int, ...]) -> Float32:
        """The tensor as flat float32. Raises UnavailableError if missing, of another shape or not a float
        type."""
        entry = self.entry(name)
        if entry.shape != shape:
            raise UnavailableError(f"tensor {name} has shape {entry.shape}, the mark was made in {shape}")
        return self._where[name][0].floats(entry)

    def raw(self, name: str) -> bytes:
        """The tensor's bytes as stored."""
        file, entry = self._where[self.entry(name).name]
        return file.raw(entry)


def to_storage(values: Float32, dtype: str) -> npt.NDArray[np.generic]:
    """float32 to the stored type, rounded to nearest even; finite values only."""
    if dtype == "BF16":
        word = values.view(np.uint32)
        return (
            (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        ).astype("<u2")
    with np.errstate(over="ignore"):
        return values.astype(FLOATS[dtype])


def from_storage(stored: npt.NDArray[np.generic], dtype: str) -> Float32:
    """The stored type as float32."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def step_storage(
    stored: npt.NDArray[np.generic], dtype: str, up: npt.NDArray[np.bool_]
) -> npt.NDArray[np.generic]:
    """The next representable value above (up) or below each.  # (n,)"""
    width, kind = (np.int64, "<u4") if dtype == "F32" else (np.int64, "<u2")
    top = 1 << (31 if dtype == "F32" else 15)
    word = stored.view(kind).astype(width)
    ordered = np.where(word < top, word, top - word) + np.where(up, 1, -1)
    return np.where(ordered >= 0, ordered, top - ordered).astype(kind).view(stored.dtype)


OTHER_WEIGHTS: Final = PICKLED | {".gguf", ".onnx", ".h5", ".msgpack", ".npz", ".safetensors"}
"""Suffixes of files that may hold a model's weights in another form."""


def check_out(base: Path, out: Path) -> None:
    """Before a copy of a model's folder is written. Raises SpecError where it would lie on or in something."""
    if os.path.lexists(out):
        raise SpecError(f"{out} exists; a marked copy is never written over anything")
    if out.resolve().is_relative_to(base.resolve()):
        raise SpecError(f"{out} lies inside {base}; write the copy elsewhere")


def _everything(folder: Path) -> Iterator[Path]:
    """All files and folders below a folder, links not followed; without recursion, however deep."""
    waiting = [folder]
    while waiting:
        for entry in sorted(waiting.pop().iterdir()):
            yield entry
            if entry.is_dir() and not entry.is_symlink():
                waiting.append(entry)


def check_bundle(base: Path, shards: set[str]) -> None:
    """That a folder holds its weights once, in these shards. Raises CarrierError on others, links and devices.

    shards: by their paths in the folder, with slashes.
    """
    for source in _everything(base):
        if source.is_symlink() or not (source.is_file() or source.is_dir()):
            raise CarrierError(f"{source} is neither a plain file nor a folder; give a folder of plain files")
        is_shard = source.relative_to(base).as_posix() in shards
        if source.is_file() and source.suffix.lower() in OTHER_WEIGHTS and not is_shard:
            raise CarrierError(f"{source} may hold the unmarked weights; take it out of the folder first")


def copy_bundle(base: Path, made: Path, shards: set[str]) -> None:
    """What belongs to a model besides its weights, after check_bundle; what `made` has already stays."""
    check_bundle(base, shards)
    for source in _everything(base):
        target = made / source.relative_to(base)
        if source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


@contextmanager
def scratch_beside(out: Path, prefix: str) -> Iterator[Path]:
    """An empty folder beside `out` in which it is made; what killed runs left under that prefix is taken away first.

    A run holds a lock in its folder as long as it lives, and the folder has the prefix only once it is held.
    """
    parent = out.parent
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{prefix}*"):
        if left.is_dir() and not left.is_symlink() and not _held(left / _LOCK):
            shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=".zhiyi-new-", dir=parent))
    with (fresh / _LOCK).open("xb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mine = parent / (prefix + fresh.name.removeprefix(".zhiyi-new-"))
        os.replace(fresh, mine)
        try:
            yield mine
        finally:
            shutil.rmtree(mine)


def _held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:  # it is being taken away already
        return False
    except BlockingIOError:
        return True
    return False


def appear(made: Path, out: Path) -> None:
    """Gives a folder its name, once all that is in it is on the disk. Raises OSError."""
    for path in (*_everything(made), made):
        _sync(path)
    os.replace(made, out)
    _sync(out.parent)


def take_place(made: Path, out: Path) -> None:
    """appear(), also where `out` is there already: that lies at `made` afterwards. At no time `out` is missing.

    Raises OSError, and leaves both as they were, where the system can't swap two folders in one step (Linux can).
    """
    if not os.path.lexists(out):
        appear(made, out)
        return
    for path in (*_everything(made), made):
        _sync(path)
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is None or swap(_AT_CWD, os.fsencode(made), _AT_CWD, os.fsencode(out), _EXCHANGE):
        reason = os.strerror(ctypes.get_errno() if swap else errno.ENOSYS)
        raise OSError(f"{out} can't be replaced in one step here ({reason}); write to a new folder")
    _sync(out.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
