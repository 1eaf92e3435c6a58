"""Secrets come from files that only their owner can read, never from a command line or a config value."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from zhiyi.errors import ConfigError

MAX_SECRET_BYTES = 64 * 1024


def check_private(path: Path) -> None:
    """Refuses a file that is missing, a link, or readable by anyone but its owner.

    Raises:
        ConfigError: naming the file and the command that mends it.
    """
    try:
        info = path.lstat()
    except FileNotFoundError as exc:
        raise ConfigError(f"secret file {path} does not exist; make it or correct the path") from exc
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError(f"secret file {path} is not a plain file; put the secret itself there")
    if info.st_mode & 0o077:
        raise ConfigError(
            f"secret file {path} has mode {stat.S_IMODE(info.st_mode):o}, so others can read it; run: chmod 600 {path}"
        )
    if info.st_size > MAX_SECRET_BYTES:
        raise ConfigError(f"secret file {path} has {info.st_size} bytes, more than {MAX_SECRET_BYTES}")


def read_secret(path: Path) -> str:
    """The text of a secret file without surrounding white space.

    Raises:
        ConfigError: see `check_private`; also for an empty file.
    """
    check_private(path)
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise ConfigError(f"secret file {path} is empty; write the secret there")
    return text


def write_private(path: Path, data: bytes) -> None:
    """Writes a new file with mode 0600; never overwrites.

    Raises:
        ConfigError: when the file exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise ConfigError(f"{path} exists already; move it away before making a new secret") from exc
    with os.fdopen(fd, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def private_folder(path: Path) -> Path:
    """Makes `path` with mode 0700 where it is missing and returns it.

    Raises:
        ConfigError: when it exists and others may enter it.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"folder {path} has mode {mode:o}, so others can enter it; run: chmod 700 {path}")
    return path
