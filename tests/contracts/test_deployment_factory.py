"""The factory creates by name, for its owner alone, until it is closed.

create
├── caller is not the owner → NotFactoryOwner
├── closed → FactoryClosed
├── the name is taken → NameTaken
├── the constructor reverts or leaves no code → DeploymentFailed, the name stays free
└── else → code at addressOf(name), hash recorded, event
close
├── caller is not the owner → NotFactoryOwner
├── closed → FactoryClosed
└── else → closed for good
"""

from __future__ import annotations

from typing import Any

import ape
import pytest
from eth_utils import keccak
from market import refuses

from contracts_plan import name_word
from zhiyi.creation import create3_address

NAME = name_word("EvidenceLog")
ZERO32 = bytes(32)


@pytest.fixture(scope="module")
def owner(accounts: Any) -> Any:
    return accounts[0]


@pytest.fixture(scope="module")
def stranger(accounts: Any) -> Any:
    return accounts[1]


@pytest.fixture(scope="module")
def factory(project: Any, owner: Any) -> Any:
    return owner.deploy(project.DeploymentFactory, owner)


@pytest.fixture(scope="module")
def code(project: Any) -> bytes:
    return bytes(project.EvidenceLog.contract_type.get_deployment_bytecode())


def code_at(address: str) -> bytes:
    return bytes(ape.chain.provider.get_code(address))


def test_it_begins_open_and_empty(factory: Any, owner: Any) -> None:
    assert factory.owner() == owner
    assert factory.startBlock() == factory.creation_metadata.block
    assert not factory.closed()
    assert factory.initCodeHashOf(NAME) == ZERO32


def test_create_puts_the_code_where_the_name_says(
    factory: Any, owner: Any, project: Any, code: bytes
) -> None:
    at = factory.addressOf(NAME)
    assert at == create3_address(factory.address, NAME)
    assert code_at(at) == b""
    receipt = factory.create(NAME, code, sender=owner)
    assert receipt.return_value == at
    hash_ = keccak(code)
    events = receipt.decode_logs()
    assert [(e.event_name, dict(e.event_arguments)) for e in events] == [
        ("ContractCreated", {"name": NAME, "at": at, "initCodeHash": hash_})
    ]
    assert code_at(at) == bytes(project.EvidenceLog.contract_type.get_runtime_bytecode())
    assert factory.initCodeHashOf(NAME) == hash_
    assert factory.initCodeHashOf(name_word("EvidenceLo")) == ZERO32
    assert factory.balance == 0


def test_addresses_differ_by_factory_and_name_not_by_code(project: Any, factory: Any, owner: Any) -> None:
    other = owner.deploy(project.DeploymentFactory, owner)
    assert other.addressOf(NAME) != factory.addressOf(NAME)
    assert factory.addressOf(name_word("ModelNFT")) != factory.addressOf(NAME)
    at = factory.addressOf(NAME)
    factory.create(NAME, bytes.fromhex("600160005360016000f3"), sender=owner)  # one byte of code
    assert code_at(at) == b"\x01"


def test_only_the_owner_creates(factory: Any, stranger: Any, code: bytes) -> None:
    with refuses("NotFactoryOwner(address,address)"):
        factory.create(NAME, code, sender=stranger)
    assert factory.initCodeHashOf(NAME) == ZERO32
    assert code_at(factory.addressOf(NAME)) == b""


def test_a_name_is_taken_once(factory: Any, owner: Any, code: bytes) -> None:
    factory.create(NAME, code, sender=owner)
    with refuses("NameTaken(bytes32,address)"):
        factory.create(NAME, code, sender=owner)
    assert factory.initCodeHashOf(NAME) == keccak(code)


@pytest.mark.parametrize(
    "init_code",
    [b"", bytes.fromhex("60006000fd"), bytes.fromhex("60006000f3"), b"\xfe"],
    ids=["nothing", "reverts", "leaves no code", "invalid opcode"],
)
def test_a_creation_that_fails_leaves_the_name_free(
    factory: Any, owner: Any, code: bytes, init_code: bytes
) -> None:
    with refuses("DeploymentFailed()"):
        factory.create(NAME, init_code, sender=owner)
    assert factory.initCodeHashOf(NAME) == ZERO32
    factory.create(NAME, code, sender=owner)
    assert code_at(factory.addressOf(NAME))


def test_a_constructor_has_no_power_over_the_factory_that_runs_it(factory: Any, owner: Any) -> None:
    """Its code calls `close()` on the factory and leaves the call's success as its one byte of code."""
    close = keccak(text="close()")[:4].hex()
    call = f"63{close}60e01b600052600060006004600060007f{factory.address[2:].rjust(64, '0')}5af1"
    factory.create(NAME, bytes.fromhex(call + "60005360016000f3"), sender=owner)
    assert code_at(factory.addressOf(NAME)) == b"\x00"
    assert not factory.closed()


def test_close_ends_the_owners_power(factory: Any, owner: Any, stranger: Any, code: bytes) -> None:
    with refuses("NotFactoryOwner(address,address)"):
        factory.close(sender=stranger)
    assert not factory.closed()
    receipt = factory.close(sender=owner)
    assert [e.event_name for e in receipt.decode_logs()] == ["DeploymentClosed"]
    assert factory.closed()
    with refuses("FactoryClosed()"):
        factory.close(sender=owner)
    with refuses("FactoryClosed()"):
        factory.create(NAME, code, sender=owner)
    assert factory.initCodeHashOf(NAME) == ZERO32


def test_it_takes_no_coin(factory: Any, owner: Any, code: bytes) -> None:
    for call in (
        lambda: factory.create(NAME, code, sender=owner, value=1),
        lambda: owner.transfer(factory, 1),
    ):
        with pytest.raises(ape.exceptions.ContractLogicError):
            call()
    assert factory.balance == 0
