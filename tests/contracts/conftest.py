"""Shared fixtures: the system as deployed, and a model offered by a creator and delivered by a fingerprinter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(Path(__file__).parent)]

from market import ETHER, Model, Order, Parcel, System, deploy, make_parcel  # noqa: E402


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
