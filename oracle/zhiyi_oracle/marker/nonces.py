"""The nonces of a key's pictures: a small ledger beside the key file, so that none is used twice.

The ledger, FILE.nonces beside the key's FILE, says how many of the 4,096 are spent. It is written to disk before a
picture is drawn, under a lock on the key file: a crash loses nonces and repeats none. Copies of the key file elsewhere
know nothing of each other: keep the two together.
"""

from __future__ import annotations

import fcntl
import json
import os
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
    """Raises BadInput where fewer than `count` nonces are left, ConfigError on a ledger that is none of this key."""
    used = _used(ledger_of(key_file), key)
    if used + count > NONCES:
        raise BadInput(
            f"{count} pictures are asked for, and the key has {NONCES - used} of {NONCES} nonces left; make "
            "fewer, or a new key (`zhiyi keys new trace FILE`)"
        )


def reserve(key_file: Path, key: bytes, count: int) -> range:
    """The next `count` nonces, spent from now on. Raises as check_left, ConfigError where nothing can be written."""
    ledger = ledger_of(key_file)
    with _locked(key_file):
        check_left(key_file, key, count)
        first = _used(ledger, key)
        _write(ledger, {"key": _tag(key), "used": first + count})
    return range(first, first + count)


def _tag(key: bytes) -> str:
    return derive_key(key, "kgs nonce ledger").hex()[:16]


def _used(ledger: Path, key: bytes) -> int:
    try:
        with ledger.open("rb") as file:
            said = parsed(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{ledger} is no ledger of nonces ({exc}); restore it from a copy") from exc
    used = said.get("used") if isinstance(said, dict) else None
    if type(used) is not int or not 0 <= used <= NONCES:
        raise ConfigError(f"{ledger} is no ledger of nonces: it says {used!r:.40}; restore it from a copy")
    if said.get("key") != _tag(key):
        raise ConfigError(f"{ledger} is the ledger of another key; restore that of this one")
    return used


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
    """Whole or not at all, and on the disk when it returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(json.dumps(value).encode())
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written ({exc.strerror}), so no nonce can be spent; keep the key where it can"
        ) from exc
