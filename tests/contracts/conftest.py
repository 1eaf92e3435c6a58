"""Shared fixtures: the system as deployed, and a model offered by a creator and delivered by a fingerprinter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ape.api.providers import SubprocessProvider
from ape.exceptions import ContractLogicError, CustomError
from ape.pytest.contextmanagers import RevertsContextManager
from ape_ethereum.trace import Trace
from eth_utils import keccak

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
sys.path[:0] = [str(ROOT / "scripts"), str(HERE), str(HERE / "court"), str(HERE / "system")]

from market import ETHER, Model, Order, Parcel, System, deploy, make_parcel  # noqa: E402


def pytest_configure() -> None:
    """Ape gives a node 20 s to answer, which a busy machine has been seen to exceed."""
    start = SubprocessProvider.start
    SubprocessProvider.start = lambda self, timeout=90: start(self, timeout)


@pytest.fixture(scope="session", autouse=True)
def exact_reverts() -> Iterator[None]:
    """Ape lets a revert that it can't name, such as a panic, pass for any custom error that a test expects: refuse it.

    Nor does Ape print the call tree of every revert, expected or not: a seventh of the tests' time."""
    as_ape_does = RevertsContextManager.__exit__

    def exit_(expected: Any, kind: Any, raised: Any, traceback: Any) -> bool:
        passed = as_ape_does(expected, kind, raised, traceback)
        abi = getattr(expected.expected_message, "abi", None)
        if abi and isinstance(raised, ContractLogicError) and not isinstance(raised, CustomError):
            selector, message = keccak(text=abi.selector)[:4], str(raised.revert_message)
            named = f"0x{selector.hex()}" in message or message.encode().startswith(selector)
            assert named, f"expected {abi.selector}, was {raised!r}"
        return bool(passed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RevertsContextManager, "__exit__", exit_)
        patch.setattr(Trace, "show", lambda *_, **__: None)
        yield


@pytest.fixture(scope="session")
def system(project: Any, accounts: Any) -> System:
    return deploy(project, accounts)


@pytest.fixture(scope="session")
def model(system: System) -> Model:
    """Approved; a collaborator has 10 %; its fingerprinter has 5 ether at stake."""
    offered = system.register(system.creator, collaborators=((system.collaborator.address, 1_000),))
    system.open_terms(offered)
    system.approve(offered)
    system.stake(system.fingerprinter, 5 * ETHER)
    return offered


@pytest.fixture(scope="session")
def parcel() -> Parcel:
    return make_parcel()


@pytest.fixture
def order(system: System, model: Model, parcel: Parcel) -> Order:
    return system.make_order(model, parcel)


@pytest.fixture
def token(system: System, project: Any) -> Any:
    """A listed ERC-20 with permit; the buyer has 10 units of it and has allowed the escrow to take them."""
    deployed = system.deployer.deploy(project.PermitToken)
    deployed.mint(system.buyer, 10 * ETHER, sender=system.deployer)
    deployed.approve(system.escrow, 10 * ETHER, sender=system.buyer)
    system.escrow.listToken(deployed, True, sender=system.deployer)
    return deployed
