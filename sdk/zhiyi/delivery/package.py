"""The folder that travels from fingerprinter to buyer, and the figures of it that the order fixes.

manifest.json     the bundle's manifest
plain_leaves.bin  32 bytes a chunk: what each chunk is promised to decrypt to
cipher.bin        the encrypted segments one after another, without gaps
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Final, NamedTuple, Protocol

from zhiyi.delivery.bundle import MAX_MANIFEST_BYTES, Bundle, open_file
from zhiyi.delivery.hashing import HASH_BYTES, SUITE_CHACHA20
from zhiyi.errors import BadInput, IntegrityError

logger = logging.getLogger(__name__)

MANIFEST: Final = "manifest.json"
LEAVES: Final = "plain_leaves.bin"
CIPHER: Final = "cipher.bin"

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


class OrderFigures(Protocol):
    """What an order says of its copy: `zhiyi.types.Delivery`, or `DeliveryFigures`."""

    @property
    def copy_root(self) -> bytes: ...
    @property
    def delivery_root(self) -> bytes: ...
    @property
    def total_bytes(self) -> int: ...
    @property
    def chunks(self) -> int: ...
    @property
    def chunk_size(self) -> int: ...
    @property
    def suite(self) -> int: ...


class DeliveryFigures(NamedTuple):
    """The bundle figures of an order."""

    copy_root: bytes  # over the plain leaves
    delivery_root: bytes  # over the delivery leaves
    total_bytes: int  # manifest included
    chunks: int
    chunk_size: int  # bytes
    suite: int = SUITE_CHACHA20


class Package:
    """A package on disk whose sizes and manifest fit the order; its hashes are not checked by opening it."""

    def __init__(self, folder: Path, figures: OrderFigures) -> None:
        """Raises NotFound, BadInput or IntegrityError when files are missing or do not have the order's sizes."""
        if figures.suite != SUITE_CHACHA20:
            raise BadInput(f"suite {figures.suite} is unknown: this version decrypts suite {SUITE_CHACHA20}")
        self.folder = folder
        self.figures = figures
        self.bundle = Bundle.from_manifest(read_file(folder / MANIFEST, MAX_MANIFEST_BYTES))
        for what, found, needed in (
            ("total bytes", self.bundle.total_bytes, figures.total_bytes),
            ("chunks", self.bundle.chunks, figures.chunks),
            ("chunk size", self.bundle.chunk_size, figures.chunk_size),
        ):
            if found != needed:
                raise IntegrityError(f"the package's manifest has {what} {found}, the order says {needed}")
        for name, needed in ((LEAVES, figures.chunks * HASH_BYTES), (CIPHER, figures.total_bytes)):
            handle = open_file(folder / name)
            found = os.fstat(handle).st_size
            os.close(handle)
            if found != needed:
                raise IntegrityError(
                    f"{folder / name} has {found} bytes, expected {needed}: fetch the package again"
                )

    def plain_leaves(self) -> bytes:
        """All promised plain leaves, 32 bytes each."""
        return read_file(self.folder / LEAVES, self.bundle.chunks * HASH_BYTES)

    @contextmanager
    def cipher(self) -> Iterator[int]:
        """Descriptor of the cipher file."""
        handle = open_file(self.folder / CIPHER)
        try:
            yield handle
        finally:
            os.close(handle)


def read_file(path: Path, limit: int) -> bytes:
    """A whole file. Raises BadInput above `limit` bytes, before reading it."""
    handle = open_file(path)
    try:
        size = os.fstat(handle).st_size
        if size > limit:
            raise BadInput(f"{path} has {size} bytes: at most {limit} are allowed")
        with os.fdopen(handle, "rb", buffering=0, closefd=False) as file:
            data = file.read(size)
        if len(data) != size:
            raise IntegrityError(f"{path} ends at byte {len(data)} of {size}: fetch it again")
        return data
    finally:
        os.close(handle)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well. Raises BadInput if `path` exists."""
    if path.exists() or path.is_symlink():
        raise BadInput(f"{path} exists already: name a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield made
        made.chmod(0o755)
        os.rename(made, path)
    except BaseException:
        rmtree(made, ignore_errors=True)
        raise


def reserve(handle: int, size: int) -> None:
    """Have the file system set `size` bytes aside, so that a full disk shows at once and writing costs less."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                raise BadInput(
                    f"the disk has no room for {size} bytes: free some or name another folder"
                ) from exc
            logger.debug("no space reserved: %s", exc)


def write_all(handle: int, view: memoryview) -> None:
    """Write the whole view."""
    done = 0
    while done < len(view):
        done += os.write(handle, view[done:])


def silent(done: int, total: int) -> None:
    """A progress callback that shows nothing."""
