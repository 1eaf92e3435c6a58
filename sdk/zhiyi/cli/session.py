"""Where a command works: endpoints, deployment, key, from options or the environment. No secret is ever an option."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from zhiyi.cli.console import Console
from zhiyi.errors import BadInput, ConfigError

if TYPE_CHECKING:
    import typer

    from zhiyi.chain import TxResult
    from zhiyi.client import Zhiyi
    from zhiyi.deployment import Deployment
    from zhiyi.index import Index
    from zhiyi.ipfs import Ipfs
    from zhiyi.signers import Signer

DEFAULT_RPC: Final = "http://127.0.0.1:8545"
DEFAULT_IPFS: Final = "http://127.0.0.1:5001"
MAX_SECRET_BYTES: Final = 4096
MAX_FILE_BYTES: Final = 1 << 20  # of a JSON document that a command reads

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass
class Session:
    """One run of the command line."""

    rpc: str = DEFAULT_RPC
    deployment: Path | None = None
    ipfs_api: str = DEFAULT_IPFS
    index_url: str = "sqlite:///zhiyi-index.db"
    keystore: Path | None = None
    password_file: Path | None = None
    key_file: Path | None = None
    unsigned: str | None = None
    dry_run: bool = False
    console: Console = field(default_factory=Console)

    @cached_property
    def book(self) -> Deployment:
        """The address book in use. Raises ConfigError, RpcUnavailable."""
        from zhiyi.chain import Chain
        from zhiyi.deployment import Deployment

        return Deployment.load(self.deployment, chain_id=lambda: Chain(self.rpc.split(",")).chain_id)

    @cached_property
    def reader(self) -> Zhiyi:
        """A client without an account. Raises ConfigError, WrongChain, RpcUnavailable."""
        from zhiyi.client import Zhiyi

        return Zhiyi.connect(self.rpc.split(","), deployment=self.deployment, ipfs=self.ipfs_api)

    @cached_property
    def client(self) -> Zhiyi:
        """A client that signs. Raises ConfigError when no key is set."""
        from zhiyi.client import Zhiyi

        signer = self.signer()
        return Zhiyi.connect(
            self.rpc.split(","), signer=signer, deployment=self.deployment, ipfs=self.ipfs_api
        )

    @cached_property
    def ipfs(self) -> Ipfs:
        """The IPFS client."""
        from zhiyi.ipfs import Ipfs

        return Ipfs(self.ipfs_api)

    @cached_property
    def index(self) -> Index:
        """The index database."""
        from zhiyi.index import Index

        return Index(self.index_url)

    def signer(self) -> Signer:
        """The account that signs: keystore with password, key file, or nobody (`--unsigned`). Raises ConfigError."""
        from zhiyi.signers import KeystoreSigner, LocalSigner, UnsignedSigner

        given = [name for name in ("keystore", "key_file", "unsigned") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"choose one account: {' and '.join(given)} are both given")
        if self.unsigned is not None:
            return UnsignedSigner(self.unsigned)
        if self.key_file is not None:
            return LocalSigner(_prefixed(read_secret(self.key_file)))
        if self.keystore is not None:
            return KeystoreSigner(self.keystore, self.password(f"password of {self.keystore}"))
        raise ConfigError(
            "this signs, so it needs an account: set ZHIYI_KEYSTORE (and ZHIYI_PASSWORD_FILE),"
            " or ZHIYI_KEY_FILE, or give --unsigned ADDRESS to get the unsigned transaction"
        )

    def password(self, what: str) -> str:
        """From the password file, else asked on the terminal. Raises ConfigError without either."""
        if self.password_file is not None:
            return read_secret(self.password_file)
        if not sys.stdin.isatty():
            raise ConfigError(f"the {what} is needed: set ZHIYI_PASSWORD_FILE to a file with it")
        import getpass

        return getpass.getpass(f"{what}: ")

    def approve(self, wanted: bool, amount: int, token: str) -> None:
        """Before a command pulls `amount` of an ERC-20 token: lets the vault take it, where asked for (`--approve`)."""
        from zhiyi.types import NATIVE

        if wanted and amount and token != NATIVE and not self.dry_run:
            self.client.vault.approve(amount, token=token)

    def show(self, result: TxResult, **more: Any) -> None:
        """What a write did, would do, or asks to be signed."""
        if result.status == "unsigned":
            self.console.result(
                {"status": "unsigned", "function": result.function, "transaction": result.transaction}
            )
            return
        answer: dict[str, Any] = {
            "status": result.status,
            "function": result.function,
            "gas_used": result.gas_used,
        }
        if result.status == "mined":
            answer |= {
                "tx_hash": result.tx_hash,
                "block_number": result.block_number,
                "gas_cost": result.gas_cost,
            }
            answer["events"] = [
                {"name": e.name, "contract": e.contract, "args": e.args} for e in result.events
            ]
        elif result.returned is not None:
            answer["returned"] = result.returned
        self.console.result({**more, **answer})


def session_of(ctx: typer.Context) -> Session:
    """The session of a command."""
    found = ctx.find_root().obj
    assert isinstance(found, Session)
    return found


def read_secret(path: Path) -> str:
    """First line of a file that only its owner can read. Raises ConfigError."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_SECRET_BYTES:
            raise ConfigError(f"{path} is no file with a secret")
        if info.st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others: chmod 600 {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is no text") from exc
    if not lines or not lines[0].strip():
        raise ConfigError(f"{path} is empty")
    return lines[0].strip()


def _prefixed(key: str) -> str:
    return key if key.startswith("0x") else f"0x{key}"


def read_document(path: Path, kind: type[_Model]) -> _Model:
    """A JSON file as one of the SDK's values. Raises BadInput naming what is wrong."""
    data = read_bytes(path, MAX_FILE_BYTES)
    try:
        return kind.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput(f"{path} is no {kind.__name__}: {where}: {first['msg']}") from exc


def read_bytes(path: Path, limit: int) -> bytes:
    """A whole file. Raises BadInput when missing or longer than `limit` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as exc:
        raise BadInput(f"{path} cannot be read: {exc.strerror}") from exc
    if len(data) > limit:
        raise BadInput(f"{path} is larger than {limit} bytes")
    return data


def write_document(path: Path, value: BaseModel) -> None:
    """Write a value as JSON, whole or not at all."""
    write_bytes(path, (value.model_dump_json(indent=2) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all. Raises BadInput when the folder cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):  # the folder itself may be none
            temporary.unlink()
        raise BadInput(f"{path} cannot be written: {exc.strerror}") from exc
