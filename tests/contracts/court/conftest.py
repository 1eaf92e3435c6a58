"""The courtroom of a session: five operators, three of whom must sign; one model with one settled license."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from courtroom import DAY, ETHER, HOUR, NO_PROOF, Courtroom, Params
from eth_utils.crypto import keccak

from contracts_plan import ROLES
from zhiyi.creation import create_address


def build(
    project: Any, accounts: Any, params: Params, *, seats: int = 5, announce_delay: int = 14 * DAY
) -> Courtroom:
    """Deploys everything; with no seats, no committee is active."""
    admin, owner, holder, reporter, fingerprinter, stranger, arbiter, last_instance, treasury, poster = (
        accounts
    )
    authority = admin.deploy(project.AccessManager, admin)
    names = ["vault", "licenses", "models", "ledger", "committee", "extension", "court"]
    at = {name: create_address(admin.address, admin.nonce + i) for i, name in enumerate(names)}
    vault = admin.deploy(
        project.VaultForCourt,
        authority,
        at["committee"],
        at["court"],
        at["ledger"],
        treasury,
        at["licenses"],
        0,
    )
    licenses = admin.deploy(project.LicenseNFT, at["vault"], at["court"])
    models = admin.deploy(project.ModelNFT, authority, at["licenses"], at["court"], treasury, 200, "ipfs://")
    ledger = admin.deploy(project.RoyaltyLedger, at["vault"], at["models"], treasury)
    committee = admin.deploy(
        project.OracleCommittee,
        authority,
        at["vault"],
        at["court"],
        3,
        5 * ETHER,
        4 * ETHER,
        announce_delay,
    )
    peers = (at["vault"], at["licenses"], at["models"], at["committee"], arbiter, last_instance)
    extension = admin.deploy(project.CourtExtension, authority, peers, params.as_tuple())
    half = admin.deploy(project.MisuseCourt, authority, peers, params.as_tuple(), extension)
    deployed = [vault, licenses, models, ledger, committee, extension, half]
    assert [contract.address for contract in deployed] == list(at.values())
    court = project.ICourt.at(half.address)
    for role, target, functions in (
        (ROLES["ORACLE_ADMIN"], committee, ("announceEpoch", "commitCanaries")),
        (ROLES["PAUSER"], court, ("pausePosting", "resumePosting")),
    ):
        selectors = [getattr(target, name).abis[0].selector for name in functions]
        ids = [keccak(text=selector)[:4] for selector in selectors]
        authority.setTargetFunctionRole(target, ids, role, sender=admin)
        authority.grantRole(role, admin, 0, sender=admin)
    room = Courtroom(
        params, authority, vault, licenses, models, ledger, committee, court, admin, owner, holder, reporter,
        fingerprinter, stranger, arbiter, last_instance, treasury, poster,
    )  # fmt: skip
    room.others["extension"] = project.ICourt.at(extension.address)

    record = (b"\x11" * 32, 4096, 4, 1024, b"\xde" * 32, b"\x22" * 32, b"\x33" * 32, b"\x00" * 32)
    models.register(record, b"\x44" * 32, 0, [], [], sender=owner)
    vault.depositNative(fingerprinter, sender=fingerprinter, value=room.fingerprinter_stake)
    committee.join(
        2,
        fingerprinter,
        b"\x02" * 32,
        room.fingerprinter_stake,
        "https://f.example",
        *NO_PROOF,
        sender=fingerprinter,
    )
    if not seats:
        return room
    joined = [room.join(f"operator{i}") for i in range(seats)]
    room.operators = sorted(joined, key=lambda operator: int(operator.signer, 16))
    committee.announceEpoch(room.signers, seats // 2 + 1, sender=admin)
    committee.activateEpoch(1, sender=poster)
    return room


@pytest.fixture(scope="session")
def room(project: Any, accounts: Any) -> Courtroom:
    return build(project, [accounts[i] for i in range(10)], Params())


@pytest.fixture(scope="session")
def bare_room(project: Any, accounts: Any) -> Courtroom:
    """Nobody sits yet; the slash table ends under the whole bond."""
    return build(project, [accounts[i] for i in range(10)], Params(slash_bps=(1_000, 2_000, 5_000)), seats=0)


@pytest.fixture
def lenient_room(project: Any, accounts: Any) -> Courtroom:
    """The slash table ends at half of the bond."""
    return build(project, [accounts[i] for i in range(10)], Params(slash_bps=(1_000, 2_000, 5_000)))


@pytest.fixture
def quick_room(project: Any, accounts: Any) -> Courtroom:
    """A committee can be replaced every hour."""
    return build(project, [accounts[i] for i in range(10)], Params(), announce_delay=HOUR)


@pytest.fixture(scope="session")
def license_id(room: Courtroom) -> int:
    return room.place_license()


@pytest.fixture
def books(room: Courtroom, license_id: int) -> Iterator[None]:
    """The vault holds what its accounts add up to, to the wei, after the test as before."""
    yield
    held, owed = room.books()
    assert held == owed
