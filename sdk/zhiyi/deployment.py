"""Where the contracts of one deployment are.

An address book comes from a file that is named, from the file that ZHIYI_DEPLOYMENT names, or from this package, which
carries one for each chain in `deployments/CHAINID.json`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self

from pydantic import Field, ValidationError

from zhiyi.abi import NAMES, Interface, interface
from zhiyi.errors import ConfigError, IntegrityError, WrongChain
from zhiyi.types import Address, Bytes32, Value, keccak

ENVIRONMENT: Final = "ZHIYI_DEPLOYMENT"
MAX_FILE_BYTES: Final = 1 << 16


class Node(Protocol):
    """What `Deployment.check` asks of a chain (`zhiyi.chain.Chain` is one)."""

    @property
    def chain_id(self) -> int:
        """The node's chain id."""
        ...

    def code(self, address: str) -> bytes:
        """The code at an address, empty if none."""
        ...


class Contract(NamedTuple):
    """A contract at an address, with its ABI."""

    name: str
    address: str
    interface: Interface


class Deployment(Value):
    """The address book of one deployment. `block` is the first block that can hold its events.

    `code` has the hash of the code at each address where the book's writer looked at it.
    """

    chain_id: int = Field(gt=0)
    contracts: Mapping[str, Address]
    block: int = Field(ge=0)
    deployer: Address
    code: Mapping[str, Bytes32] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path | None = None, *, chain_id: Callable[[], int] | None = None) -> Self:
        """From a JSON file, else from the file that ZHIYI_DEPLOYMENT names, else the package's for `chain_id()`.

        The chain is asked for its id only then. Raises ConfigError.
        """
        found = path or os.environ.get(ENVIRONMENT)
        if found:
            return cls._read(Path(found))
        if chain_id is None:
            raise ConfigError(f"no deployment given: pass the file, or set {ENVIRONMENT} to its path")
        return cls.packaged(chain_id())

    @classmethod
    def packaged(cls, chain_id: int) -> Self:
        """The address book that this package carries for a chain. Raises ConfigError when it has none."""
        with as_file(files("zhiyi").joinpath("deployments", f"{chain_id}.json")) as path:
            if path.is_file():
                return cls._read(path)
        raise ConfigError(
            f"no address book for chain {chain_id} comes with this package: pass the deployment's file, or set "
            f"{ENVIRONMENT} to its path"
        )

    @classmethod
    def _read(cls, path: Path) -> Self:
        try:
            with path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except OSError as exc:
            raise ConfigError(f"deployment file {path} cannot be read: {exc.strerror}") from exc
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError(f"deployment file {path} is larger than {MAX_FILE_BYTES} bytes")
        try:
            return cls.model_validate_json(text)
        except ValidationError as exc:
            raise ConfigError(f"deployment file {path} is malformed: {exc}") from exc

    def save(self, path: str | Path) -> None:
        """Writes the JSON file (through a temporary one)."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        temporary.replace(target)

    def contract(self, name: str) -> Contract:
        """By name. Raises ConfigError when this deployment has none."""
        if name not in self.contracts:
            raise ConfigError(f"this deployment on chain {self.chain_id} has no {name}: use a full file")
        return Contract(name, self.contracts[name], interface(name))

    def check(self, chain: Node) -> None:
        """Raises WrongChain for another chain, ConfigError for a missing contract, IntegrityError for other code."""
        if chain.chain_id != self.chain_id:
            raise WrongChain(chain.chain_id, self.chain_id, "the node")
        missing = [name for name in NAMES if name not in self.contracts]
        if missing:
            raise ConfigError(f"the deployment lacks {', '.join(missing)}: use a complete file")
        for name, address in self.contracts.items():
            code = chain.code(address)
            if not code:
                raise ConfigError(
                    f"{name} has no code at {address} on chain {self.chain_id}: the node was reset, or the file "
                    "belongs to another chain; deploy again or use its own file"
                )
            if name in self.code and keccak(code) != self.code[name]:
                raise IntegrityError(
                    f"{name} at {address} on chain {self.chain_id} has other code than this address book was written "
                    "for: send nothing; get the book from whoever deployed"
                )
