"""Keys that are not the wallet's: X25519 keys (delivery, evidence) and watermark keys, in files of mode 0600.

A file is JSON: scrypt of the password, then ChaCha20-Poly1305 over the 32 secret bytes, with kind and public key as
associated data. Without a password only on request (`unsafe_plain=True`).
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import stat
from enum import StrEnum
from hashlib import scrypt
from pathlib import Path
from typing import Any, Final, NamedTuple

from zhiyi.errors import BadInput, ConfigError
from zhiyi.types import to_bytes, to_hex

logger = logging.getLogger(__name__)

SCHEMA: Final = "zhiyi.key.v1"
MAX_FILE_BYTES: Final = 4096
KEY_BYTES: Final = 32
SCRYPT_N: Final = 1 << 16  # 64 MiB, about 0.2 s
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
MAX_SCRYPT_N: Final = 1 << 18  # a hostile file must not take more memory than 256 MiB


class KeyKind(StrEnum):
    """What a key is for; a key of one kind does not open as another."""

    DELIVERY = "delivery"  # X25519: a buyer's copy is sealed to it
    ENCRYPTION = "encryption"  # X25519: an operator's evidence is sealed to it
    TRACE = "trace"  # a model's watermark key
    SIGNER = "signer"  # secp256k1: signs verdicts


class KeyPair(NamedTuple):
    """32 secret bytes, and the 32 public bytes of an X25519 key (empty for other kinds)."""

    secret: bytes
    public: bytes


def new_key(kind: KeyKind) -> KeyPair:
    """A fresh key from the system's random source."""
    return _pair(kind, secrets.token_bytes(KEY_BYTES))


def public_key(secret: bytes) -> bytes:
    """The X25519 public key of 32 secret bytes. Raises BadInput."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    raw = to_bytes(secret, KEY_BYTES)
    return X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()


def save_key(
    path: str | Path,
    kind: KeyKind,
    secret: bytes,
    *,
    password: str | bytes | None = None,
    unsafe_plain: bool = False,
) -> KeyPair:
    """Writes a new key file. Raises ConfigError when the file exists, BadInput without password or `unsafe_plain`."""
    pair = _pair(kind, to_bytes(secret, KEY_BYTES))
    content: dict[str, Any] = {"schema": SCHEMA, "kind": str(kind), "public": to_hex(pair.public)}
    if password:
        content |= _sealed(kind, pair, password)
    elif unsafe_plain:
        logger.warning("%s is written without a password", path)
        content["plain"] = to_hex(pair.secret)
    else:
        raise BadInput(
            "a key file needs a password (or unsafe_plain=True, for tests and machines of your own)"
        )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise ConfigError(f"{target} exists: keys are never overwritten; choose another name") from exc
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return pair


def load_key(path: str | Path, kind: KeyKind, *, password: str | bytes | None = None) -> KeyPair:
    """Reads a key file. Raises ConfigError when missing, open to others, malformed, of another kind or locked."""
    target = Path(path)
    try:
        with target.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"key file {target} cannot be read: {exc.strerror}") from exc
    if not stat.S_ISREG(mode) or len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{target} is not a key file")
    if mode & 0o077:
        raise ConfigError(f"key file {target} can be read by others: chmod 600 {target}")
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA:
            raise ConfigError(f"{target} has schema {str(content['schema'])[:40]!r}, {SCHEMA!r} is needed")
        if content["kind"] != kind:
            raise ConfigError(
                f"{target} is a key for {str(content['kind'])[:40]!r}, one for {str(kind)!r} is needed"
            )
        secret = (
            to_bytes(content["plain"], KEY_BYTES)
            if "plain" in content
            else _opened(content, password, target)
        )
        pair = _pair(kind, secret)
        if to_hex(pair.public) != content["public"]:
            raise ConfigError(f"{target} is damaged: secret and public key do not belong together")
    except (ValueError, KeyError, TypeError, BadInput) as exc:
        raise ConfigError(f"{target} is not a key file: {exc!r:.200}") from exc
    return pair


def _pair(kind: KeyKind, secret: bytes) -> KeyPair:
    exchange = kind in (KeyKind.DELIVERY, KeyKind.ENCRYPTION)
    return KeyPair(secret, public_key(secret) if exchange else b"")


def _sealed(kind: KeyKind, pair: KeyPair, password: str | bytes) -> dict[str, Any]:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    key = _derived(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    sealed = ChaCha20Poly1305(key).encrypt(nonce, pair.secret, _associated(kind, pair.public))
    return {
        "kdf": {"name": "scrypt", "n": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P, "salt": to_hex(salt)},
        "cipher": {"name": "chacha20-poly1305", "nonce": to_hex(nonce), "text": to_hex(sealed)},
    }


def _opened(content: Any, password: str | bytes | None, path: Path) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    if not password:
        raise ConfigError(f"{path} is locked: give its password")
    kdf, cipher = content["kdf"], content["cipher"]
    if kdf["name"] != "scrypt" or cipher["name"] != "chacha20-poly1305":
        raise ConfigError(f"{path} uses a method that this version does not know")
    costs = [kdf["n"], kdf["r"], kdf["p"]]
    if (
        any(type(c) is not int for c in costs)
        or not 2 <= costs[0] <= MAX_SCRYPT_N
        or costs[1:] != [SCRYPT_R, SCRYPT_P]
    ):
        raise ConfigError(f"{path} asks for scrypt costs {costs}: more than this version allows")
    key = _derived(password, to_bytes(kdf["salt"], 16), *costs)
    associated = _associated(KeyKind(content["kind"]), to_bytes(content["public"]))
    try:
        return ChaCha20Poly1305(key).decrypt(
            to_bytes(cipher["nonce"], 12), to_bytes(cipher["text"], KEY_BYTES + 16), associated
        )
    except InvalidTag as exc:
        raise ConfigError(f"{path} does not open: wrong password, or the file is damaged") from exc


def _derived(password: str | bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    raw = password.encode() if isinstance(password, str) else password
    return scrypt(raw, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=KEY_BYTES)


def _associated(kind: KeyKind, public: bytes) -> bytes:
    return b"|".join((SCHEMA.encode(), str(kind).encode(), public))
