"""The absolute defence: the accused opens chunks of the copy he got, the authority finds the fingerprinter at fault.

Branches of openChunk: no verdict posted, or the case ended; another kind; not the accused; another record; index, path,
length; not under the copy root; opened, opened again. ruleFault: not challenged; not the judge; late; another kind; not
guilty; no chunk opened; another record; CHALLENGED, ESCALATED; a stake too small.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from courtroom import (
    ETHER,
    CaseFile,
    Courtroom,
    Decision,
    Kind,
    State,
    copy_chunks,
    copy_levels,
    copy_path,
    refused,
)


@pytest.fixture
def leak(room: Courtroom, license_id: int) -> CaseFile:
    return room.guilty_leak(license_id)


def fault(room: Courtroom, file: CaseFile, **by: object) -> object:
    return room.call(
        "ruleFault", file, room.records[file.license_id].as_tuple(), by=by.get("by", room.arbiter)
    )


# ---- openChunk


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_accused_opens_a_chunk_of_his_copy(room: Courtroom, leak: CaseFile, index: int) -> None:
    before = room.money(leak)
    receipt = room.open_chunk(leak, index)
    leaf = copy_levels(leak.license_id)[0][index]
    assert receipt.events == [
        room.court.ChunkOpened(caseId=leak.id, licenseId=leak.license_id, index=index, leaf=leaf)
    ]
    assert room.court.defenceOf(leak.id)[:2] == (False, True)
    assert room.court.caseState(leak.id)[0] == State.POSTED
    assert room.court.caseDetail(leak.id) == room.court.caseDetail(leak.id)
    assert room.money(leak) == before
    room.open_chunk(leak, (index + 1) % 3)


def test_only_chunks_of_the_copy_open(room: Courtroom, leak: CaseFile) -> None:
    license_id = leak.license_id
    data, path = copy_chunks(license_id)[1], copy_path(license_id, 1)
    root = copy_levels(license_id)[-1][0]
    for changes in (
        {"data": data[:-1]},
        {"data": data + b"\x00"},
        {"data": bytes([data[0] ^ 1]) + data[1:]},
        {"data": copy_chunks(license_id)[0]},
        {"path": path[::-1]},
        {"path": copy_path(license_id, 0)},
    ):
        with refused(room.court, "ChunkNotInCopy", licenseId=license_id, copyRoot=root):
            room.open_chunk(leak, 1, **changes)
    with refused(room.court, "ChunkNotInCopy"):
        room.open_chunk(
            leak, 0, data=copy_levels(license_id)[1][0], chunks=2, path=[copy_levels(license_id)[1][1]]
        )


def test_only_the_accused_of_a_leak_opens_his_copy(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    with refused(room.court, "WrongCaseState", given=State.OPEN, needed=State.POSTED):
        room.open_chunk(file)
    room.open_share(file)
    room.post(file)
    for other in (room.reporter, room.fingerprinter, room.stranger):
        with refused(room.court, "NotTheAccused", caller=other.address):
            room.open_chunk(file, by=other)
    forged = replace(room.records[license_id], copy_root=b"\x0c" * 32)
    with refused(room.licenses, "RecordMismatch", licenseId=license_id):
        room.open_chunk(file, record=forged)
    terms = room.open(license_id, Kind.TERMS)
    room.post(terms, samples=3)
    with refused(room.court, "WrongKind", given=Kind.TERMS):
        room.open_chunk(terms)
    room.past(file)
    room.call("finalize", file)
    with refused(room.court, "WrongCaseState", given=State.FINAL_GUILTY, needed=State.POSTED):
        room.open_chunk(file)


# ---- ruleFault


@pytest.mark.parametrize("escalated", [False, True])
def test_row_cleared_because_the_copy_never_had_the_mark(
    room: Courtroom, leak: CaseFile, books: None, escalated: bool
) -> None:
    before = room.money(leak)
    judge, name = (room.last_instance, "last") if escalated else (room.arbiter, "arbiter")
    room.open_chunk(leak)
    room.challenge(leak, room.holder)
    if escalated:
        room.past(leak)
        room.call("escalate", leak)
    receipt = fault(room, leak, by=judge)
    bond = room.params.challenge_bond
    stake = room.fingerprinter_stake
    assert room.moved(before, leak) == {
        "holder": room.rest(leak) + bond,
        name: bond,
        "treasury": stake - bond,  # half of a bond of 10 ether is more than it has
        "stakes": -stake,
        "case": -room.rest(leak),
    }
    assert receipt.events[-1] == room.court.FaultFound(  # type: ignore[attr-defined]
        caseId=leak.id, fingerprinter=room.fingerprinter.address, costs=bond, slashed=stake - bond
    )
    assert room.court.Ruled(caseId=leak.id, authority=judge.address, upheld=False) in receipt.events  # type: ignore[attr-defined]
    assert room.state(leak) == State.CLEARED
    assert room.licenses.endOf(leak.license_id) == 0
    assert room.bond(leak.license_id).openCases == 0
    assert room.court.leakBucket(leak.license_id) == 0
    assert all(room.stake(operator.account) == room.operator_stake for operator in room.operators)
    for seat in (0, 1, 2):  # the mark was there: they read it right
        room.call("claimFee", leak, seat)
    assert room.vault.caseBondOf(leak.id) == 0


@pytest.mark.parametrize(("bond", "penalty"), [(ETHER // 10, ETHER // 2), (3 * ETHER, 3 * ETHER // 2)])
def test_a_fault_costs_half_the_bond_it_could_have_taken(
    room: Courtroom, license_id: int, books: None, bond: int, penalty: int
) -> None:
    other = room.place_license(4, bond=bond)
    file = room.guilty_leak(other)
    room.open_chunk(file)
    room.challenge(file, room.holder)
    fault(room, file)
    assert room.stake(room.fingerprinter) == room.fingerprinter_stake - penalty - room.params.challenge_bond
    assert room.free(room.treasury) == penalty


def test_no_fault_is_found_without_the_copy(room: Courtroom, leak: CaseFile) -> None:
    with refused(room.court, "WrongCaseState", given=State.POSTED, needed=State.CHALLENGED):
        fault(room, leak)
    room.challenge(leak, room.holder)
    with refused(room.court, "NoChunkOpened", caseId=leak.id):
        fault(room, leak)
    room.open_chunk(leak)
    for other in (room.holder, room.last_instance, room.stranger):
        with refused(room.court, "NotTheAuthority", caller=other.address, authority=room.arbiter.address):
            fault(room, leak, by=other)
    innocent = replace(room.records[leak.license_id], fingerprinter=room.stranger.address)
    with refused(room.licenses, "RecordMismatch", licenseId=leak.license_id):
        room.call("ruleFault", leak, innocent.as_tuple(), by=room.arbiter)
    until = room.until(leak)
    room.wait_until(until + 1)
    with refused(room.court, "TooLate", deadline=until):
        fault(room, leak)


def test_a_fault_takes_a_guilty_leak(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    room.open_share(file)
    room.post(file, Decision.NOT_GUILTY)
    room.open_chunk(file)
    room.challenge(file, room.reporter)
    with refused(room.court, "NoChunkOpened", caseId=file.id):
        fault(room, file)
    terms = room.open(license_id, Kind.TERMS)
    room.post(terms, samples=3)
    with refused(room.court, "WrongKind", given=Kind.TERMS):
        fault(room, terms)
