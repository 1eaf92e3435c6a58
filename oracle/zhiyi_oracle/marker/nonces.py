"""The nonces of a key's pictures: a small ledger beside the key file, so that none is used twice.

The ledger, FILE.nonces beside the key's FILE, says at which of the 4,096 it began and how many are spent. It is written
to disk before a picture is drawn, under a lock on the key file: a crash loses nonces and repeats none. Copies of the
key file elsewhere know nothing of each other: keep the two together. A ledger that was lost cannot be told from one
that never was; each begins at a nonce drawn by chance, so that a loss repeats some pictures' signs, not surely all.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from zhiyi.errors import BadInput, ConfigError
from zhiyi_watermark.image_generated import NONCES
from zhiyi_watermark.prf import derive_key
from zhiyi_watermark.tensorfile import parsed

_MAX_BYTES: Final = 1 << 10


def ledger_of(key_file: Path) -> Path:
    """Where the ledger of a key file lies; links to one key file have one ledger."""
    real = key_file.resolve()
    return real.with_name(real.name + ".nonces")


def check_left(key_file: Path, key: bytes, count: int) -> None:
    """Raises BadInput where fewer than `count` nonces are left, ConfigError on a ledger that is none of this key, or a
    key file under more than one name."""
    try:
        names = key_file.stat().st_nlink
    except OSError as exc:
        raise ConfigError(f"{key_file} cannot be read: {exc.strerror}") from exc
    if names > 1:
        raise ConfigError(
            f"{key_file} is one file under {names} names (hard links), and a ledger belongs to one; keep one"
        )
    _, used = _spent(ledger_of(key_file), key) or (0, 0)
    if used + count > NONCES:
        raise BadInput(
            f"{count} pictures are asked for, and the key has {NONCES - used} of {NONCES} nonces left; make "
            "fewer, or a new key (`zhiyi keys new trace FILE`)"
        )


def reserve(key_file: Path, key: bytes, count: int) -> list[int]:
    """The next `count` nonces, spent from now on. Raises as check_left, ConfigError where nothing can be written."""
    ledger = ledger_of(key_file)
    with _locked(key_file):
        check_left(key_file, key, count)
        first, used = _spent(ledger, key) or (secrets.randbelow(NONCES), 0)
        _write(ledger, {"key": _tag(key), "first": first, "used": used + count})
    return [(first + used + i) % NONCES for i in range(count)]


def _tag(key: bytes) -> str:
    return derive_key(key, "kgs nonce ledger").hex()[:16]


def _spent(ledger: Path, key: bytes) -> tuple[int, int] | None:
    """The first nonce, and how many are spent; None where there is no ledger."""
    try:
        with ledger.open("rb") as file:
            said = parsed(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{ledger} is no ledger of nonces ({exc}); restore it from a copy") from exc
    first, used = (said.get("first"), said.get("used")) if isinstance(said, dict) else (None, None)
    if type(first) is not int or type(used) is not int or not (0 <= first < NONCES and 0 <= used <= NONCES):
        raise ConfigError(
            f"{ledger} is no ledger of nonces: it says {first!r:.40}, {used!r:.40}; restore it from a copy"
        )
    if said.get("key") != _tag(key):
        raise ConfigError(f"{ledger} is the ledger of another key; restore that of this one")
    return first, used


@contextmanager
def _locked(key_file: Path) -> Iterator[None]:
    try:
        file = os.open(key_file, os.O_RDONLY)
    except OSError as exc:
        raise ConfigError(f"{key_file} cannot be read: {exc.strerror}") from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _write(path: Path, value: dict[str, object]) -> None:
    """Whole or not at all, and on the disk when it returns. Links in the way are replaced, not followed."""
    try:
        file, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(file, "wb") as out:
                out.write(json.dumps(value).encode())
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be written ({exc.strerror}), so no nonce can be spent; keep the key where it can"
        ) from exc
