"""Optional compiled loops over SHA-256: the same digests, without one Python call for each.

    python -m zhiyi.delivery      # builds them with the system's C compiler

Without a compiler, or where the interpreter hides OpenSSL's symbols, `LIBRARY` is None and `hashing` does the
same in Python, some two to three times slower. The library is loaded only after it reproduced digests of
hashlib.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

_SOURCE: Final = Path(__file__).with_name("native.c")
# Named by its source, so that what another version built is never loaded.
BINARY: Final = Path(__file__).with_name(
    f"_native-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]}.so"
)
_SYMBOLS: Final = ("SHA256_Init", "SHA256_Update", "SHA256_Final")

Buffer = bytes | bytearray | memoryview


class Library:
    """The compiled loops."""

    def __init__(self, path: Path, *, through_openssl: bool = False) -> None:
        """Two messages at a time where the processor can, else (or when told so) through OpenSSL.

        Raises OSError when the file or a symbol is missing, ValueError when digests differ from hashlib's.
        """
        loops = ctypes.CDLL(str(path))
        self.uses_openssl = through_openssl or bool(loops.zhiyi_needs_openssl())
        self._sha = _openssl_sha256() if self.uses_openssl else [None] * 3
        self._leaves = loops.zhiyi_leaves
        self._leaves.argtypes = [
            *([ctypes.c_void_p] * 3),
            ctypes.c_uint8,
            ctypes.c_uint32,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_size_t,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self._leaves.restype = ctypes.c_int
        self._parents = loops.zhiyi_parents
        self._parents.argtypes = [*([ctypes.c_void_p] * 3), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        self._parents.restype = None
        self._self_test()

    def leaves(self, tag: int, first: int, data: Buffer, chunk_size: int, bound: Buffer | None) -> bytes:
        """As `hashing.plain_leaves` (no `bound`) and `hashing.delivery_leaves` (32 bytes bound to each chunk)."""
        view = _Span(data)
        count = -(-view.size // chunk_size)
        held = None if bound is None else _Span(bound)
        if held is not None and held.size != 32 * count:
            raise ValueError(f"{count} chunks need {32 * count} bytes of plain leaves, given {held.size}")
        out = bytearray(32 * count)
        target = _Span(out)
        done = self._leaves(
            *self._sha,
            tag,
            first,
            view.address,
            view.size,
            chunk_size,
            None if held is None else held.address,
            target.address,
        )
        if not done:
            raise ValueError(f"chunks of {chunk_size} bytes are not served by the compiled loops")
        return bytes(out)

    def parents(self, level: Buffer) -> bytes:
        """As `hashing.parents`."""
        view = _Span(level)
        if view.size % 64:
            raise ValueError(f"{view.size} bytes are not whole pairs of nodes")
        out = bytearray(view.size // 2)
        target = _Span(out)
        self._parents(*self._sha, view.address, view.size // 64, target.address)
        return bytes(out)

    def _self_test(self) -> None:
        data = bytes(range(256)) * 5
        head = b"\x02\x00\x00\x00\x08\x00\x00\x01\x00"
        expected = hashlib.sha256(head + data[32:64] + data[1024:]).digest()
        leaf_ok = self.leaves(2, 7, data, 1024, data[:64])[32:] == expected
        if not leaf_ok or self.parents(data[:64]) != hashlib.sha256(b"\x01" + data[:64]).digest():
            raise ValueError("the compiled loops do not reproduce hashlib's SHA-256")


def _openssl_sha256() -> list[ctypes.c_void_p | None]:
    import _hashlib

    try:
        openssl = ctypes.CDLL(_hashlib.__file__)
        return [ctypes.cast(getattr(openssl, name), ctypes.c_void_p) for name in _SYMBOLS]
    except AttributeError as exc:
        raise OSError(f"this interpreter's OpenSSL does not show its SHA-256: {exc}") from exc


class _Span:
    """Address and length of a buffer; keeps the buffer alive."""

    def __init__(self, data: Buffer) -> None:
        self.size = memoryview(data).nbytes
        self._hold: object
        if isinstance(data, bytes):
            self._hold = ctypes.c_char_p(data)
            self.address = ctypes.cast(self._hold, ctypes.c_void_p)
            return
        view = memoryview(data)
        if view.readonly:
            self._hold = ctypes.c_char_p(bytes(view))
            self.address = ctypes.cast(self._hold, ctypes.c_void_p)
        else:
            self._hold = (ctypes.c_char * self.size).from_buffer(view)
            self.address = ctypes.cast(ctypes.addressof(self._hold), ctypes.c_void_p)


def load() -> Library | None:
    """The compiled loops, or None where they are not built or do not work here."""
    if os.environ.get("ZHIYI_NATIVE") == "0" or not BINARY.exists():
        return None
    try:
        return Library(BINARY)
    except (OSError, ValueError) as exc:
        logger.warning("compiled hashing is not used: %s. Rebuild: python -m zhiyi.delivery", exc)
        return None


def build() -> Path:
    """Compile the loops beside this file.

    Raises FileNotFoundError without a compiler, CalledProcessError if it fails.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise FileNotFoundError("no C compiler found (cc, or the one named by CC)")
    with tempfile.TemporaryDirectory(dir=BINARY.parent) as folder:
        made = Path(folder) / BINARY.name
        subprocess.run(
            [
                compiler,
                "-O2",
                "-std=c11",
                "-Wall",
                "-Werror",
                "-fPIC",
                "-shared",
                "-o",
                str(made),
                str(_SOURCE),
            ],
            check=True,
        )
        os.replace(made, BINARY)
    discard(keep=BINARY)
    return BINARY


def discard(keep: Path | None = None) -> None:
    """Remove what was built, but for `keep`."""
    for old in BINARY.parent.glob("_native*.so"):
        if old != keep:
            old.unlink()


LIBRARY = load()
