"""An accused sees the evidence, or is cleared: requestService, serve, clearUnserved.

Branches of requestService: neither POSTED nor CHALLENGED; nobody held guilty; not the accused; no key; asked before;
late; POSTED, CHALLENGED (by anyone, by the committee's own TERMS verdict, by the reporter after "not guilty").
serve: not SERVING; late; neither reporter nor operator; back to POSTED, back to CHALLENGED. clearUnserved: not SERVING;
early; cleared with and without a challenger, with and without a suspension.
"""

from __future__ import annotations

import pytest
from courtroom import (
    DAY,
    ETHER,
    HOUR,
    CaseFile,
    Courtroom,
    Decision,
    Kind,
    Params,
    State,
    refused,
)

SERVICE = 24 * HOUR


def test_an_accused_is_served_and_has_the_whole_window_again(
    room: Courtroom, license_id: int, books: None
) -> None:
    file = room.guilty_leak(license_id)
    before, deadline = room.money(file), room.until(file)
    room.wait_until(deadline)  # the last second
    receipt = room.ask(file)
    serve_by = receipt.timestamp + SERVICE
    assert receipt.events == [
        room.court.ServiceRequested(
            caseId=file.id, accused=room.holder.address, encryptionKey=b"\x19" * 32, serveBy=serve_by
        )
    ]
    assert room.court.caseState(file.id)[:3] == (State.SERVING, Decision.GUILTY, serve_by)
    assert room.court.defenceOf(file.id)[:2] == (True, False)
    room.wait_until(serve_by)
    receipt = room.serve(file)
    until = receipt.timestamp + room.params.challenge_window
    assert receipt.events == [
        room.court.Served(caseId=file.id, by=room.reporter.address, digest=b"\x5e" * 32, until=until)
    ]
    assert room.court.caseState(file.id)[:3] == (State.POSTED, Decision.GUILTY, until)
    assert room.money(file) == before
    room.wait_until(until)
    with refused(room.court, "TooEarly", notBefore=until):
        room.call("execute", file)
    room.wait_until(until + 1)
    room.call("execute", file)
    assert room.bond(license_id).amount == 3 * ETHER


def test_nothing_passes_while_the_accused_waits(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    room.ask(file)
    for step in ("finalize", "execute", "escalate", "clearSilent", "lapse"):
        with refused(room.court, "WrongCaseState", caseId=file.id, given=State.SERVING):
            room.call(step, file)
    with refused(room.court, "WrongCaseState", given=State.SERVING, needed=State.POSTED):
        room.challenge(file, room.holder)
    with refused(room.court, "WrongCaseState", given=State.SERVING, needed=State.CHALLENGED):
        room.call("rule", file, True, by=room.arbiter)
    with refused(room.court, "NothingToClaim", caseId=file.id, seat=0):
        room.call("claimFee", file, 0)
    room.call("fileDefence", file, b"\xdd" * 32, by=room.holder)  # he may speak all the same
    room.open_chunk(file)


def test_an_operator_serves_from_its_own_seat(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    room.ask(file)
    operator = room.operators[3].account
    for caller, seat in ((room.stranger, 0), (room.owner, 3), (room.arbiter, 1), (operator, 2)):
        with refused(room.court, "NotAllowedToServe", caller=caller.address):
            room.serve(file, by=caller, seat=seat)
    with refused(room.committee, "NoSuchSeat", epoch=1, seat=5):
        room.serve(file, by=operator, seat=5)
    room.serve(file, by=operator, seat=3)
    assert room.state(file) == State.POSTED
    with refused(room.court, "WrongCaseState", given=State.POSTED, needed=State.SERVING):
        room.serve(file)


@pytest.mark.parametrize("seat", [0, 99])
def test_the_reporter_serves_whatever_seat_he_names(room: Courtroom, license_id: int, seat: int) -> None:
    file = room.guilty_leak(license_id)
    room.ask(file)
    room.serve(file, seat=seat)


def test_the_evidence_is_asked_for_once(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    room.ask(file)
    with refused(room.court, "WrongCaseState", given=State.SERVING, needed=State.POSTED):
        room.ask(file)
    room.serve(file)
    with refused(room.court, "ServiceAskedBefore", caseId=file.id):
        room.ask(file)
    room.challenge(file, room.holder)
    with refused(room.court, "ServiceAskedBefore", caseId=file.id):
        room.ask(file)


def test_only_the_accused_asks_with_a_key_and_in_time(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    with refused(room.court, "WrongCaseState", given=State.OPEN, needed=State.POSTED):
        room.ask(file)
    room.open_share(file)
    room.post(file)
    for other in (room.reporter, room.stranger, room.owner):
        with refused(room.court, "NotTheAccused", caller=other.address, accused=room.holder.address):
            room.ask(file, by=other)
    with refused(room.court, "EncryptionKeyMissing"):
        room.ask(file, key=bytes(32))
    until = room.until(file)
    room.wait_until(until + 1)
    with refused(room.court, "TooLate", deadline=until):
        room.ask(file)
    room.call("execute", file)
    with refused(room.court, "WrongCaseState", given=State.EXECUTED, needed=State.POSTED):
        room.ask(file)


@pytest.mark.parametrize("decision", [d for d in Decision if d not in (Decision.NONE, Decision.GUILTY)])
def test_whom_nobody_holds_guilty_is_served_nothing(
    room: Courtroom, license_id: int, decision: Decision
) -> None:
    file = room.open(license_id)
    room.post(file, decision)
    with refused(room.court, "NothingToServe", caseId=file.id):
        room.ask(file)


def test_a_hostile_challenge_does_not_keep_him_from_the_evidence(
    room: Courtroom, license_id: int, books: None
) -> None:
    file = room.guilty_leak(license_id)
    room.wait(5 * DAY)
    room.challenge(file, room.stranger)
    room.past(file)
    with refused(room.court, "TooLate", deadline=room.until(file)):
        room.ask(file)


def test_served_while_challenged_he_is_heard_for_the_whole_ruling_window(
    room: Courtroom, license_id: int, books: None
) -> None:
    file = room.guilty_leak(license_id)
    room.wait(5 * DAY)
    room.challenge(file, room.stranger)
    room.wait_until(room.until(file))
    room.ask(file)
    served = room.serve(file).timestamp
    until = served + room.params.ruling_window
    assert room.court.caseState(file.id)[:3] == (State.CHALLENGED, Decision.GUILTY, until)
    assert room.court.caseDetail(file.id).challenger == room.stranger
    room.wait_until(until)
    room.call("rule", file, True, by=room.arbiter)
    assert room.state(file) == State.FINAL_GUILTY


def test_a_terms_verdict_is_served_before_it_is_ruled_on(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id, Kind.TERMS)
    room.post(file, samples=3)
    assert room.state(file) == State.CHALLENGED
    room.ask(file)
    served = room.serve(file).timestamp
    until = served + room.params.ruling_window
    assert room.court.caseState(file.id)[:3] == (State.CHALLENGED, Decision.GUILTY, until)


@pytest.mark.parametrize("decision", [Decision.INCONCLUSIVE, Decision.UNAVAILABLE, Decision.UNLICENSED])
def test_an_appeal_for_want_of_a_decision_accuses_nobody(
    room: Courtroom, license_id: int, decision: Decision
) -> None:
    file = room.open(license_id)
    room.post(file, decision)
    room.challenge(file, room.reporter)
    with refused(room.court, "NothingToServe", caseId=file.id):
        room.ask(file)


def test_an_acquitted_holder_is_served_when_the_reporter_appeals(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    room.post(file, Decision.NOT_GUILTY)
    room.challenge(file, room.reporter)
    room.ask(file)
    room.serve(file)
    assert room.court.caseState(file.id)[:2] == (State.CHALLENGED, Decision.NOT_GUILTY)


def test_when_the_last_instance_sits_the_time_to_ask_is_over(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    room.challenge(file, room.holder)
    room.past(file)
    room.call("escalate", file)
    with refused(room.court, "WrongCaseState", given=State.ESCALATED, needed=State.POSTED):
        room.ask(file)


def unserved(room: Courtroom, file: CaseFile) -> None:
    room.ask(file)
    serve_by = room.until(file)
    room.wait_until(serve_by)
    with refused(room.court, "TooEarly", notBefore=serve_by):
        room.call("clearUnserved", file)
    room.wait_until(serve_by + 1)
    with refused(room.court, "TooLate", deadline=serve_by):
        room.serve(file)
    receipt = room.call("clearUnserved", file)
    assert room.court.VerdictFinal(caseId=file.id, state=State.CLEARED) in receipt.events
    assert room.until(file) == receipt.timestamp + 14 * DAY


def test_row_cleared_unserved(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.guilty_leak(license_id)
    unserved(room, file)
    after = room.money(file)
    moved = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: wei for name, wei in moved.items() if wei} == {
        "reporter": room.rest(file),
        "case": room.fee(file),
    }
    assert room.state(file) == State.CLEARED
    assert room.bond(license_id).openCases == 1  # held 14 d more
    assert room.licenses.isActive(license_id) is True
    room.past(file)
    room.call("releaseHold", file)
    assert room.bond(license_id).openCases == 0
    for seat in (0, 1, 2):
        room.call("claimFee", file, seat)
    again = room.guilty_leak(license_id, share=1)  # without prejudice
    room.past(again)
    room.call("execute", again)
    assert room.bond(license_id).amount == 3 * ETHER


def test_row_cleared_unserved_while_challenged(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.guilty_leak(license_id)
    room.wait(5 * DAY)
    room.challenge(file, room.stranger)
    unserved(room, file)
    after = room.money(file)
    moved = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: wei for name, wei in moved.items() if wei} == {
        "reporter": room.rest(file),
        "stranger": room.params.challenge_bond,
        "case": room.fee(file),
    }


def test_nobody_is_cleared_who_did_not_ask(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    with refused(room.court, "WrongCaseState", given=State.POSTED, needed=State.SERVING):
        room.call("clearUnserved", file)


def test_unserved_a_suspension_ends(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id, Kind.DISCLOSURE)
    room.post(file)
    assert room.licenses.isActive(license_id) is False
    unserved(room, file)
    assert room.licenses.isActive(license_id) is True


def test_a_pause_gives_those_who_serve_their_time(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    room.ask(file)
    serve_by = room.until(file)
    until = room.now + 3 * DAY
    pause = until - room.court.pausePosting(until, sender=room.admin).timestamp
    room.wait_until(serve_by + 1)
    with refused(room.court, "TooEarly", notBefore=serve_by):
        room.call("clearUnserved", file)
    room.wait_until(serve_by + pause)
    receipt = room.serve(file)
    assert room.until(file) == receipt.timestamp - room.paused() + room.params.challenge_window


def test_a_case_with_one_service_ends_before_any_stake_may_leave() -> None:
    """What the constructor adds up, for the windows of these tests."""
    p = Params()
    twice = max(p.challenge_window, p.ruling_window)
    life = p.post_window + p.challenge_window + p.ruling_window + SERVICE + twice + p.last_window
    assert life <= 60 * DAY
    assert life + 4 * 7 * DAY < 90 * DAY


def test_the_half_that_serves_works_at_the_courts_address_only(room: Courtroom, license_id: int) -> None:
    alone = room.others["extension"]
    file = room.guilty_leak(license_id)
    record = room.records[license_id].as_tuple()
    verdict = room.passing(file).as_tuple()
    data = (file.as_tuple(), record, 3, 0, b"\x01", [])
    for name, arguments in {
        "requestService": (file.as_tuple(), b"\x19" * 32),
        "serve": (file.as_tuple(), 0, b"\x5e" * 32),
        "clearUnserved": (file.as_tuple(),),
        "fileDefence": (file.as_tuple(), b"\xdd" * 32),
        "cure": (file.as_tuple(), verdict, room.signers, 7, b""),
        "openChunk": data,
        "ruleFault": (file.as_tuple(), record),
        "lapse": (file.as_tuple(),),
        "shareMissed": (file.as_tuple(), record),
        "escalate": (file.as_tuple(),),
        "clearSilent": (file.as_tuple(),),
        "releaseHold": (file.as_tuple(),),
        "pausePosting": (room.now + DAY,),
        "resumePosting": (),
    }.items():
        with refused(room.court, "OnlyThroughCourt"):
            send_to(alone, name, arguments, room)


def send_to(contract: object, name: str, arguments: tuple[object, ...], room: Courtroom) -> None:
    from courtroom import send

    send(getattr(contract, name), *arguments, sender=room.admin)
