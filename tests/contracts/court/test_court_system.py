"""The court on the system as it is deployed: a license that was bought, its bond, and the money of a case."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from courtroom import ETHER, Courtroom, Decision, Kind, State, refused, send

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))


@pytest.fixture
def bought(system: Any) -> Courtroom:
    from gas_court import SystemCourtroom

    return SystemCourtroom.of(system)


def test_a_bought_license_is_judged_slashed_and_revoked(bought: Any) -> None:
    room, escrow = bought, bought.vault
    license_id = room.place_license()
    held = int(escrow.balance)
    file = room.guilty_leak(license_id, bucket=20, bond=ETHER // 2, value=0)
    room.past(file)
    reporter, pool = room.free(room.reporter), room.royalties()
    room.call("execute", file)
    slashed = ETHER // 5 * room.params.slash_bps[1] // 10_000
    assert room.bond(license_id).amount == ETHER // 5 - slashed
    to_reporter = slashed * room.params.reporter_bps // 10_000
    assert room.free(room.reporter) == reporter + room.rest(file) + to_reporter
    to_owner = min(slashed - to_reporter, ETHER // 10)
    assert room.royalties() == pool + to_owner
    assert room.licenses.hasEnded(license_id) is True
    assert int(escrow.balance) == held


def test_an_open_case_keeps_the_bond_from_leaving(bought: Any) -> None:
    room, escrow = bought, bought.vault
    license_id = room.place_license()
    order = room.orders[license_id]
    room.licenses.surrender(license_id, sender=room.holder)
    escrow.requestBondRelease(license_id, sender=room.holder)
    room.wait(order.sale.bondTail)
    file = room.open(license_id, Kind.LEAK, bond=ETHER // 2, value=0)
    with refused(escrow, "BondHeld", licenseId=license_id, openCases=1):
        send(escrow.releaseBond, order.as_tuple(), sender=room.holder)
    room.post(file, Decision.NOT_GUILTY)
    room.past(file)
    room.call("finalize", file)
    assert room.state(file) == State.DISMISSED
    free = room.free(room.holder)
    escrow.releaseBond(order.as_tuple(), sender=room.holder)
    assert room.free(room.holder) == free + ETHER // 5
    with refused(room.court, "LicenseNotAccusable", licenseId=license_id):
        room.open(license_id, bond=ETHER // 2, value=0)
