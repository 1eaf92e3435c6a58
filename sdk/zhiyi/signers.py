"""Who signs: a key in memory, a keystore file, a callback (KMS, hardware), or nobody.

With `UnsignedSigner` the caller takes the unsigned transaction. A signer signs transactions and EIP-712 data; a bare
digest only under a name that says so.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, Self, runtime_checkable

from zhiyi.eip712 import SECP256K1_N, TypedData, recover
from zhiyi.errors import BadInput, BadSignature, ConfigError
from zhiyi.types import keccak, to_address, to_bytes

logger = logging.getLogger(__name__)

MAX_KEYSTORE_BYTES: Final = 1 << 16
_TX_FIELDS: Final = frozenset(
    {"type", "chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value", "data"}
)


@runtime_checkable
class Signer(Protocol):
    """What the SDK needs of a signer."""

    @property
    def address(self) -> str:
        """The signing account, checksummed."""
        ...

    def sign_transaction(self, tx: Mapping[str, Any]) -> bytes:
        """The signed EIP-1559 transaction (type 2), ready to send."""
        ...

    def sign_typed_data(
        self, domain: Mapping[str, Any], types: Mapping[str, Any], message: Mapping[str, Any]
    ) -> bytes:
        """65 bytes r | s | v over EIP-712 data; the first of `types` is the primary one."""
        ...


class _DigestSigner:
    """A signer made of one operation: 32 bytes in, 65 bytes out."""

    def __init__(self, address: str) -> None:
        self._address = to_address(address)

    @property
    def address(self) -> str:
        """The signing account, checksummed."""
        return self._address

    def sign_transaction(self, tx: Mapping[str, Any]) -> bytes:
        """The signed EIP-1559 transaction. Raises BadInput for fields missing or unknown."""
        fields = _fields(tx)
        signature = self._checked(keccak(b"\x02" + _rlp(fields)))
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        return b"\x02" + _rlp([*fields, signature[64] - 27, r, s])

    def sign_typed_data(
        self, domain: Mapping[str, Any], types: Mapping[str, Any], message: Mapping[str, Any]
    ) -> bytes:
        """65 bytes r | s | v."""
        return self._checked(TypedData(dict(domain), dict(types), dict(message)).digest())

    def unsafe_sign_hash(self, digest: bytes) -> bytes:
        """Signs 32 bytes whose meaning nobody sees. It may be a transaction or a license: know its origin."""
        logger.warning("%s signs a bare hash", self._address)
        return self._checked(to_bytes(digest, 32))

    def _checked(self, digest: bytes) -> bytes:
        signature = _low_s(self._sign(digest))
        found = recover(digest, signature)
        if found != self._address:
            raise BadSignature(f"the key signs as {found}, not as {self._address}: configure the right key")
        return signature

    def _sign(self, digest: bytes) -> bytes:
        raise NotImplementedError


class LocalSigner(_DigestSigner):
    """A private key in memory."""

    def __init__(self, private_key: bytes | str) -> None:
        """32 bytes or 0x-hex. Raises BadInput for anything else."""
        from eth_keys.datatypes import PrivateKey
        from eth_utils.exceptions import ValidationError

        try:
            raw = to_bytes(private_key, 32)
        except BadInput as exc:
            raise BadInput("a private key is 32 bytes, or 0x and 64 hex digits") from exc
        if not 0 < int.from_bytes(raw, "big") < SECP256K1_N:
            raise BadInput("this private key is out of range for secp256k1")
        try:
            self._key = PrivateKey(raw)
        except ValidationError as exc:
            raise BadInput("this private key is out of range for secp256k1") from exc
        super().__init__(self._key.public_key.to_checksum_address())

    def _sign(self, digest: bytes) -> bytes:
        return bytes(self._key.sign_msg_hash(digest).to_bytes())

    def __repr__(self) -> str:
        return f"LocalSigner({self.address})"


class KeystoreSigner(LocalSigner):
    """A key in a Web3 Secret Storage (v3) file, as geth and Ape write it."""

    def __init__(self, path: str | Path, password: str | bytes) -> None:
        """Raises ConfigError when the file is missing, open to others, malformed or the password wrong."""
        from eth_account import Account

        path = Path(path)
        try:
            info = path.stat()
            if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_KEYSTORE_BYTES:
                raise ConfigError(f"{path} is not a keystore file")
            if info.st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others: chmod 600 {path}")
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
        except ValueError as exc:
            raise ConfigError(f"{path} is not a keystore file: no JSON") from exc
        try:
            secret = password if isinstance(password, str) else password.decode()
            key = bytes(Account.decrypt(content, secret))
        except (ValueError, KeyError, TypeError) as exc:
            raise ConfigError(f"{path} does not open: wrong password, or no keystore of version 3") from exc
        super().__init__(key)

    @classmethod
    def from_ape(cls, alias: str, password: str | bytes) -> Self:
        """The account that `ape accounts generate ALIAS` made. Raises ConfigError as the constructor."""
        if not alias or os.sep in alias or alias.startswith("."):
            raise BadInput(f"{alias!r} is no Ape account alias")
        return cls(Path.home() / ".ape" / "accounts" / f"{alias}.json", password)


class CallbackSigner(_DigestSigner):
    """A key elsewhere: `sign(digest32)` returns 65 bytes r | s | v each time; a high s is normalized."""

    def __init__(self, address: str, sign: Callable[[bytes], bytes]) -> None:
        super().__init__(address)
        self._callback = sign

    def _sign(self, digest: bytes) -> bytes:
        return self._callback(digest)


class UnsignedSigner:
    """Signs nothing: writes return the unsigned transaction of `address` instead of sending it."""

    def __init__(self, address: str) -> None:
        self._address = to_address(address)

    @property
    def address(self) -> str:
        """The account that will sign elsewhere."""
        return self._address

    def sign_transaction(self, tx: Mapping[str, Any]) -> bytes:
        """Raises ConfigError."""
        raise ConfigError(f"{self._address} has no key here: sign the returned transaction elsewhere")

    def sign_typed_data(
        self, domain: Mapping[str, Any], types: Mapping[str, Any], message: Mapping[str, Any]
    ) -> bytes:
        """Raises ConfigError."""
        raise ConfigError(f"{self._address} has no key here: sign the typed data in its wallet")


def sign(signer: Signer, data: TypedData) -> bytes:
    """The signer's 65 bytes over `data`."""
    return signer.sign_typed_data(data.domain, data.types, data.message)


def _low_s(signature: bytes) -> bytes:
    if len(signature) != 65:
        raise BadSignature(f"the signer returned {len(signature)} bytes, 65 are needed")
    v = signature[64] + 27 if signature[64] < 27 else signature[64]
    s = int.from_bytes(signature[32:64], "big")
    if s > SECP256K1_N // 2:
        s, v = SECP256K1_N - s, 55 - v
    return signature[:32] + s.to_bytes(32, "big") + bytes([v])


def _fields(tx: Mapping[str, Any]) -> list[Any]:
    unknown, missing = set(tx) - _TX_FIELDS - {"from"}, _TX_FIELDS - set(tx) - {"type"}
    if unknown or missing or tx.get("type", 2) != 2:
        raise BadInput(f"not an EIP-1559 transaction: missing {sorted(missing)}, unknown {sorted(unknown)}")
    return [
        tx["chainId"],
        tx["nonce"],
        tx["maxPriorityFeePerGas"],
        tx["maxFeePerGas"],
        tx["gas"],
        to_bytes(tx["to"], 20) if tx["to"] else b"",
        tx["value"],
        to_bytes(tx["data"]),
        [],
    ]


def _rlp(value: Any) -> bytes:
    if isinstance(value, list):
        body = b"".join(_rlp(item) for item in value)
        return _rlp_head(len(body), 0xC0) + body
    raw = value if isinstance(value, bytes) else value.to_bytes((value.bit_length() + 7) // 8, "big")
    return raw if len(raw) == 1 and raw[0] < 0x80 else _rlp_head(len(raw), 0x80) + raw


def _rlp_head(length: int, base: int) -> bytes:
    if length < 56:
        return bytes([base + length])
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(size)]) + size
