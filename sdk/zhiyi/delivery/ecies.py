"""Envelopes to X25519 keys: a package to its buyer, evidence to a committee.

    "ZYEV" | version 1 | kind (0 file, 1 folder) | n recipients | n * wrapped key | key commitment | frames

The content key is wrapped to each recipient with HPKE (RFC 9180: X25519, HKDF-SHA256, ChaCha20-Poly1305). The
payload key is derived from it and the hash of the header, so no byte of the header can change. Frames of 1
MiB are sealed with ChaCha20-Poly1305 in the STREAM construction: the nonce is the frame's number and a flag
on the last one, so frames cannot be dropped, repeated or reordered. The key commitment keeps a sender from
showing two recipients different contents in one envelope. A recipient is not named; he tries each wrapped
key. The sender is not authenticated: what the contents are is fixed elsewhere, by an order's roots or an
evidence hash.

A folder's contents are its files, sorted by path: u16 path length | path | u64 length | bytes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from zhiyi.delivery.bundle import MAX_FILES, MAX_PATH_BYTES, check_name, open_file_of, regular_files
from zhiyi.delivery.package import new_folder
from zhiyi.errors import BadInput, IntegrityError

MAX_RECIPIENTS: Final = 64
FRAME_BYTES: Final = 1 << 20
MAX_FRAMES: Final = 1 << 32  # 4 PiB; far below what the nonce allows

_MAGIC: Final = b"ZYEV\x01"
_FILE: Final = 0
_FOLDER: Final = 1
_KINDS: Final = {_FILE: "file", _FOLDER: "folder"}
_TAG_BYTES: Final = 16
_WRAPPED_BYTES: Final = 32 + 32 + _TAG_BYTES  # encapsulated key, content key, tag
_COMMIT_BYTES: Final = 32
_INFO: Final = b"zhiyi.envelope.v1"
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_PATH: Final = Struct(">H")
_SIZE: Final = Struct(">Q")


def is_usable(key: bytes) -> bool:
    """Whether something can be sealed to this X25519 public key: 32 bytes and no point of low order."""
    try:
        X25519PrivateKey.generate().exchange(_public(key))
    except (BadInput, ValueError):
        return False
    return True


class NotARecipient(BadInput):
    """None of the envelope's wrapped keys opens with this secret key. Use the key it was sealed to."""


def seal_file(path: Path, keys: Sequence[bytes], out: Path) -> None:
    """Seal one file to X25519 public keys of 32 bytes into the new or replaced file `out`.

    Raises BadInput for no, too many or bad keys, NotFound for a missing file.
    """
    with _sealing(_FILE, keys, out) as sink, open_file_of(path) as source:
        while block := source.read(FRAME_BYTES):
            sink.write(block)


def seal_folder(folder: Path, keys: Sequence[bytes], out: Path) -> None:
    """Seal all files below `folder`. Raises as `seal_file`, and BadInput for links, devices and bad names."""
    names = {path.relative_to(folder).as_posix(): path for path in regular_files(folder)}
    if not 0 < len(names) <= MAX_FILES:
        raise BadInput(f"{folder} has {len(names)} files: an envelope holds 1 .. {MAX_FILES}")
    with _sealing(_FOLDER, keys, out) as sink:
        for name, raw in sorted((name, check_name(name)) for name in names):
            with open_file_of(names[name]) as source:
                size = os.fstat(source.fileno()).st_size
                sink.write(_PATH.pack(len(raw)) + raw + _SIZE.pack(size))
                left = size
                while left:
                    block = source.read(min(FRAME_BYTES, left))
                    if not block:
                        raise IntegrityError(f"{names[name]} became shorter while it was sealed: try again")
                    sink.write(block)
                    left -= len(block)


def open_file(sealed: Path, secret: bytes, out: Path) -> None:
    """Open a sealed file with a 32-byte X25519 secret key into the new or replaced file `out`.

    Raises NotARecipient, BadInput for something else than a sealed file, IntegrityError for a damaged one.
    """
    with open_file_of(sealed) as source:
        source_frames = _opened(source, secret, _FILE)
        with _atomic(out) as target:
            for frame in source_frames:
                target.write(frame)


def open_folder(sealed: Path, secret: bytes, out: Path) -> None:
    """Open a sealed folder into the new folder `out`. Raises as `open_file`; BadInput if `out` exists."""
    with open_file_of(sealed) as source:
        contents = _Contents(_opened(source, secret, _FOLDER))
        with new_folder(out) as folder:
            before, count = b"", 0
            while head := contents.take(_PATH.size, ending=True):
                raw = contents.take(min(_PATH.unpack(head)[0], MAX_PATH_BYTES + 1))
                count += 1
                try:
                    name = raw.decode()
                except UnicodeDecodeError as exc:
                    raise BadInput("the envelope has a file name that is not UTF-8") from exc
                if check_name(name) <= before or count > MAX_FILES:
                    raise BadInput("the envelope's files are out of order or too many")
                before = raw
                try:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    with open(folder / name, "xb") as target:
                        left = _SIZE.unpack(contents.take(_SIZE.size))[0]
                        while left:
                            block = contents.some(left)
                            target.write(block)
                            left -= len(block)
                except (FileExistsError, NotADirectoryError) as exc:
                    raise BadInput(f"the envelope has two files that need the name {name!r}") from exc
            if not count:
                raise BadInput("the envelope holds no file")


class _Sink(Protocol):
    def write(self, data: bytes) -> None: ...


class _FrameWriter:
    """Collects bytes into frames; the last one, which may be empty, carries the final flag."""

    def __init__(self, target: BinaryIO, key: bytes) -> None:
        self._target = target
        self._aead = ChaCha20Poly1305(key)
        self._number = 0
        self._held = bytearray()

    def write(self, data: bytes) -> None:
        self._held += data
        while len(self._held) > FRAME_BYTES:
            self._frame(bytes(self._held[:FRAME_BYTES]), final=False)
            del self._held[:FRAME_BYTES]

    def finish(self) -> None:
        self._frame(bytes(self._held), final=True)

    def _frame(self, data: bytes, *, final: bool) -> None:
        self._target.write(self._aead.encrypt(_nonce(self._number, final=final), data, None))
        self._number += 1
        if self._number > MAX_FRAMES:
            raise BadInput("too much for one envelope")


class _Contents:
    """Bytes of the frames in order, in pieces of any length."""

    def __init__(self, frames: Iterator[bytes]) -> None:
        self._frames = frames
        self._held = memoryview(b"")

    def some(self, most: int) -> memoryview:
        """1 .. `most` bytes. Raises IntegrityError at the end."""
        while not self._held:
            frame = next(self._frames, None)
            if frame is None:
                raise IntegrityError("the envelope's contents end inside a file")
            self._held = memoryview(frame)
        piece, self._held = self._held[:most], self._held[most:]
        return piece

    def take(self, count: int, *, ending: bool = False) -> bytes:
        """Exactly `count` bytes; nothing at the end if `ending`."""
        while ending and not self._held:
            frame = next(self._frames, None)
            if frame is None:
                return b""
            self._held = memoryview(frame)
        taken = bytearray()
        while len(taken) < count:
            taken += self.some(count - len(taken))
        return bytes(taken)


@contextmanager
def _sealing(kind: int, keys: Sequence[bytes], out: Path) -> Iterator[_Sink]:
    if not 0 < len(keys) <= MAX_RECIPIENTS:
        raise BadInput(f"an envelope has 1 .. {MAX_RECIPIENTS} recipients, given {len(keys)}")
    content_key = os.urandom(32)
    header = bytearray(_MAGIC + bytes((kind, len(keys))))
    for key in keys:
        try:
            header += _SUITE.encrypt(content_key, _public(key), info=_INFO)
        except ValueError as exc:  # a point of low order, which would give the content key away
            raise BadInput(f"0x{key.hex()} is no safe X25519 public key: ask its owner for another") from exc
    header += _derive(content_key, b"commit")
    with _atomic(out) as target:
        target.write(header)
        sink = _FrameWriter(target, _derive(content_key, b"payload" + sha256(header).digest()))
        yield sink
        sink.finish()


def _opened(source: BinaryIO, secret: bytes, kind: int) -> Iterator[bytes]:
    """Checks the header at once, then gives the frames."""
    if len(secret) != 32:
        raise BadInput(f"an X25519 secret key has 32 bytes, given {len(secret)}")
    start = source.read(len(_MAGIC) + 2)
    if len(start) < len(_MAGIC) + 2 or start[: len(_MAGIC)] != _MAGIC:
        raise BadInput("this is no envelope of a version known here")
    if start[-2] != kind:
        found, needed = _KINDS.get(start[-2], "thing unknown here"), _KINDS[kind]
        raise BadInput(f"the envelope holds a {found}, not a {needed}")
    count = start[-1]
    if not 0 < count <= MAX_RECIPIENTS:
        raise BadInput(f"the envelope has {count} recipients: 1 .. {MAX_RECIPIENTS} are allowed")
    wrapped = source.read(count * _WRAPPED_BYTES)
    commit = source.read(_COMMIT_BYTES)
    if len(wrapped) != count * _WRAPPED_BYTES or len(commit) != _COMMIT_BYTES:
        raise IntegrityError("the envelope is cut off in its header: fetch it again")
    content_key = _unwrap(wrapped, X25519PrivateKey.from_private_bytes(secret))
    if _derive(content_key, b"commit") != commit:
        raise IntegrityError(
            "the envelope's key commitment is wrong: its sender may show others something else"
        )
    header = start + wrapped + commit
    return _frames(source, _derive(content_key, b"payload" + sha256(header).digest()))


def _frames(source: BinaryIO, key: bytes) -> Iterator[bytes]:
    aead = ChaCha20Poly1305(key)
    sealed = source.read(FRAME_BYTES + _TAG_BYTES)
    for number in range(MAX_FRAMES):
        following = source.read(FRAME_BYTES + _TAG_BYTES)
        try:
            yield aead.decrypt(_nonce(number, final=not following), sealed, None)
        except InvalidTag as exc:
            raise IntegrityError(
                f"the envelope is damaged or cut off at frame {number}: fetch it again"
            ) from exc
        if not following:
            return
        sealed = following
    raise BadInput("the envelope has too many frames")


def _unwrap(wrapped: bytes, secret: X25519PrivateKey) -> bytes:
    for at in range(0, len(wrapped), _WRAPPED_BYTES):
        try:
            key = _SUITE.decrypt(wrapped[at : at + _WRAPPED_BYTES], secret, info=_INFO)
        except (InvalidTag, ValueError):
            continue  # wrapped to somebody else, or not a point
        return bytes(key)
    raise NotARecipient("the envelope was not sealed to this key: use the key named in the request")


def _public(key: bytes) -> X25519PublicKey:
    if len(key) != 32:
        raise BadInput(f"an X25519 public key has 32 bytes, given {len(key)}")
    return X25519PublicKey.from_public_bytes(key)


def _derive(content_key: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), 32, _INFO + b"|" + purpose).derive(content_key)


def _nonce(number: int, *, final: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes((final,))


@contextmanager
def _atomic(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that becomes `path` when the block ends well."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
