"""Who may serve an accused: the reporter, and every seat of the case's committee by its account or its signer."""

from __future__ import annotations

from typing import Any

import ape
import pytest
from courtroom import ETHER, CaseFile, Courtroom, State, refused

KEY, DIGEST = b"\x0b" * 32, b"\xd1" * 32


@pytest.fixture
def asked(room: Courtroom, license_id: int) -> CaseFile:
    """Found guilty, asked for the evidence."""
    file = room.guilty_leak(license_id)
    room.call("requestService", file, KEY, by=room.holder)
    assert room.state(file) == State.SERVING
    return file


def signer_of(room: Courtroom, seat: int) -> Any:
    """The seat's signer, with coin for gas: not the account that has the stake."""
    operator = room.operators[seat]
    assert operator.signer != operator.account.address
    ape.chain.provider.set_balance(operator.signer, ETHER)
    return ape.accounts[operator.signer]


@pytest.mark.parametrize("who", ["account", "signer"])
def test_a_seat_serves_by_its_account_or_its_signer(room: Courtroom, asked: CaseFile, who: str) -> None:
    by = room.operators[3].account if who == "account" else signer_of(room, 3)
    receipt = room.call("serve", asked, 3, DIGEST, by=by)
    assert room.state(asked) == State.POSTED
    until = room.until(asked)
    assert room.court.Served(caseId=asked.id, by=by.address, digest=DIGEST, until=until) in receipt.events


@pytest.mark.parametrize("who", ["account", "signer"])
def test_a_seat_does_not_serve_for_another(room: Courtroom, asked: CaseFile, who: str) -> None:
    by = room.operators[3].account if who == "account" else signer_of(room, 3)
    with refused(room.court, "NotAllowedToServe", caller=by.address):
        room.call("serve", asked, 2, DIGEST, by=by)


def test_a_stranger_and_the_fingerprinter_do_not_serve(room: Courtroom, asked: CaseFile) -> None:
    for by in (room.stranger, room.fingerprinter):
        for seat in range(5):
            with refused(room.court, "NotAllowedToServe", caller=by.address):
                room.call("serve", asked, seat, DIGEST, by=by)


def test_a_seat_that_is_none_serves_nobody(room: Courtroom, asked: CaseFile) -> None:
    with refused(room.committee, "NoSuchSeat", epoch=1, seat=5):
        room.call("serve", asked, 5, DIGEST, by=room.operators[0].account)


def test_the_reporter_serves_whatever_the_seat(room: Courtroom, asked: CaseFile) -> None:
    room.call("serve", asked, 99, DIGEST, by=room.reporter)
    assert room.state(asked) == State.POSTED
