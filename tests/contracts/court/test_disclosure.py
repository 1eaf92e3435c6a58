"""DISCLOSURE: reportDisclosureDisabled, the 96 hours of notice, cure, and what revokes.

Branches of cure: no verdict posted, or the case ended; nothing to cure (another kind, no notice given); late; paused;
verdict expired; another case, license, kind, decision, an earlier epoch; signatures; cured while POSTED, SERVING,
CHALLENGED, ESCALATED, FINAL_GUILTY.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from courtroom import (
    DAY,
    ETHER,
    HOUR,
    CaseFile,
    Courtroom,
    Decision,
    Kind,
    State,
    refused,
    send,
)

NOTICE = 96 * HOUR


@pytest.fixture
def failed(room: Courtroom, license_id: int) -> CaseFile:
    """A probe failed; notice is given."""
    file = room.open(license_id, Kind.DISCLOSURE)
    room.post(file, bucket=0, samples=0)
    return file


def cure_by(room: Courtroom, file: CaseFile) -> int:
    return int(room.court.defenceOf(file.id).cureBy)


# ---- the report


def test_a_missing_label_is_reported_by_the_license_alone(
    room: Courtroom, license_id: int, books: None
) -> None:
    receipt = send(
        room.court.reportDisclosureDisabled,
        license_id,
        b"\xe1" * 32,
        b"\xe2" * 32,
        ETHER,
        sender=room.reporter,
        value=ETHER,
    )
    event = next(e for e in receipt.events if e.event_name == "CaseOpened")
    file = CaseFile(*event.file)
    assert file.id == bytes(event.caseId)
    assert (file.kind, file.model_id, file.license_id) == (Kind.DISCLOSURE, room.model_id, license_id)
    assert (file.reporter, file.accused) == (room.reporter.address.lower(), room.holder.address.lower())
    assert (file.bond, file.evidence_hash, file.evidence_digest) == (ETHER, b"\xe1" * 32, b"\xe2" * 32)
    room.cases[file.id] = file
    assert room.vault.caseBondOf(event.caseId) == ETHER
    assert room.court.caseState(event.caseId)[0] == State.OPEN


def test_a_report_against_no_license_is_refused(room: Courtroom, license_id: int) -> None:
    for wrong in (0, license_id + 1, license_id | 1 << 92):  # the last names this model in its low bits only
        with refused(room.court, "LicenseNotAccusable", licenseId=wrong):
            send(
                room.court.reportDisclosureDisabled,
                wrong,
                b"\xe1" * 32,
                b"\xe2" * 32,
                ETHER,
                sender=room.reporter,
                value=ETHER,
            )


def test_terms_without_the_duty_cannot_be_broken(room: Courtroom, license_id: int) -> None:
    free = room.place_license(8, terms=0)
    with refused(room.court, "NoSuchDuty", licenseId=free):
        room.open(free, Kind.DISCLOSURE)
    room.open(free, Kind.TERMS)


def test_a_license_that_has_ended_labels_nothing(room: Courtroom, license_id: int) -> None:
    room.licenses.surrender(license_id, sender=room.holder)
    with refused(room.court, "LicenseNotAccusable", licenseId=license_id):
        room.open(license_id, Kind.DISCLOSURE)
    room.open(license_id)  # the copy may still leak


def test_a_disclosure_case_holds_no_bond(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id, Kind.DISCLOSURE)
    assert room.bond(license_id).openCases == 0
    assert room.court.caseDetail(file.id).held is False


# ---- cured


def test_a_passing_probe_closes_the_case_and_lifts_the_suspension(
    room: Courtroom, license_id: int, failed: CaseFile, books: None
) -> None:
    before = room.money(failed)
    verdict = room.passing(failed)
    assert room.licenses.isActive(license_id) is False
    room.wait_until(cure_by(room, failed))  # the last second
    receipt = room.cure(failed, verdict)
    cured = next(e for e in receipt.events if e.event_name == "Cured")
    assert (bytes(cured.caseId), cured.licenseId) == (failed.id, license_id)
    assert bytes(cured.verdictHash) == room.digest(verdict)
    assert room.court.VerdictFinal(caseId=failed.id, state=State.CLOSED) in receipt.events
    assert room.moved(before, failed) == {"reporter": room.rest(failed), "case": -room.rest(failed)}
    assert room.state(failed) == State.CLOSED
    assert room.licenses.isActive(license_id) is True
    for seat in (0, 1, 2):
        room.call("claimFee", failed, seat)
    with refused(room.court, "WrongCaseState", given=State.CLOSED, needed=State.POSTED):
        room.cure(failed, verdict)


def test_after_the_notice_anyone_revokes(room: Courtroom, license_id: int, failed: CaseFile) -> None:
    verdict, deadline = room.passing(failed), cure_by(room, failed)
    room.wait_until(deadline)
    with refused(room.court, "TooEarly", notBefore=deadline):
        room.call("execute", failed)
    room.wait_until(deadline + 1)
    with refused(room.court, "TooLate", deadline=deadline):
        room.cure(failed, verdict)
    room.call("execute", failed)
    assert room.licenses.endOf(license_id) == 1
    assert room.licenses.isSuspended(license_id) is False  # it ended with its case
    with refused(room.court, "WrongCaseState", given=State.EXECUTED, needed=State.POSTED):
        room.cure(failed, verdict)


def test_who_signed_both_has_not_contradicted_himself(
    room: Courtroom, license_id: int, failed: CaseFile
) -> None:
    guilty, passing = room.verdict(failed, Decision.GUILTY, bucket=0, samples=0), room.passing(failed)
    assert passing.case_id != guilty.case_id
    with refused(room.committee, "NotEquivocation"):
        send(
            room.committee.proveEquivocation,
            guilty.encoded(),
            room.sign(guilty, (0,)),
            passing.encoded(),
            room.sign(passing, (0,)),
            sender=room.stranger,
        )


@pytest.mark.parametrize(
    "change",
    [
        {"license_id": 2**28 + 99},
        {"kind": Kind.LEAK},
        {"decision": Decision.GUILTY},
        {"decision": Decision.INCONCLUSIVE},
        {"epoch": 0},
    ],
    ids=str,
)
def test_what_does_not_cure(
    room: Courtroom, license_id: int, failed: CaseFile, change: dict[str, Any]
) -> None:
    with refused(room.court, "VerdictMismatch", caseId=failed.id):
        room.cure(failed, room.passing(failed, **change))


def test_a_probe_cures_its_own_case_only(room: Courtroom, license_id: int, failed: CaseFile) -> None:
    other = room.open(license_id, Kind.DISCLOSURE)
    room.post(other)
    for case_id in (failed.id, other.id, bytes(room.court.cureIdOf(other.id))):
        with refused(room.court, "VerdictMismatch", caseId=failed.id):
            room.cure(failed, room.passing(failed, case_id=case_id))
    room.cure(failed)
    assert room.licenses.isActive(license_id) is False  # the other stands
    room.cure(other)
    assert room.licenses.isActive(license_id) is True


def test_a_cure_takes_the_committees_signatures(room: Courtroom, license_id: int, failed: CaseFile) -> None:
    verdict = room.passing(failed)
    with refused(room.committee, "CommitteeMismatch", epoch=1):
        room.cure(failed, verdict, signers=room.signers[:3])
    soon = room.now + HOUR
    expiring = replace(verdict, deadline=soon)
    room.wait_until(soon + 1)
    with refused(room.court, "TooLate", deadline=soon):
        room.cure(failed, expiring)
    future = replace(verdict, epoch=2)
    with refused(room.committee, "EpochNotActive", epoch=2):
        room.cure(failed, future)


def test_the_next_committee_may_look_again(room: Courtroom, license_id: int) -> None:
    signers = room.signers
    room.committee.announceEpoch(signers, 3, sender=room.admin)
    room.wait(14 * DAY - 2 * HOUR)
    file = room.open(license_id, Kind.DISCLOSURE)
    room.post(file)
    room.wait_until(room.committee.activeFrom(2) + 1)
    room.committee.activateEpoch(2, sender=room.stranger)
    assert file.epoch == 1
    room.cure(file, room.passing(file, epoch=2))
    assert room.state(file) == State.CLOSED


@pytest.mark.parametrize("kind", [Kind.LEAK, Kind.TERMS])
def test_only_a_label_can_be_restored(room: Courtroom, license_id: int, kind: Kind) -> None:
    file = room.guilty_leak(license_id) if kind == Kind.LEAK else room.open(license_id, kind)
    if kind == Kind.TERMS:
        with refused(room.court, "WrongCaseState", given=State.OPEN, needed=State.POSTED):
            room.cure(file)
        room.post(file, samples=3)
    with refused(room.court, "NothingToCure", caseId=file.id):
        room.cure(file)


def test_without_notice_there_is_nothing_to_cure(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id, Kind.DISCLOSURE)
    room.post(file, Decision.NOT_GUILTY)
    assert cure_by(room, file) == 0
    with refused(room.court, "NothingToCure", caseId=file.id):
        room.cure(file)


def test_a_pause_stops_the_cure_and_its_clock(room: Courtroom, license_id: int, failed: CaseFile) -> None:
    verdict, deadline = room.passing(failed), cure_by(room, failed)
    until = room.now + 5 * DAY
    room.court.pausePosting(until, sender=room.admin)
    with refused(room.court, "PostingIsPaused", until=until):
        room.cure(failed, verdict)
    room.wait_until(until)
    room.wait(1)
    room.wait_until(deadline + room.paused())
    room.cure(failed, verdict)


# ---- what happens in between


def test_a_hostile_challenge_takes_nothing_of_the_time_to_cure(
    room: Courtroom, license_id: int, failed: CaseFile, books: None
) -> None:
    before, deadline = room.money(failed), cure_by(room, failed)
    room.wait(40 * HOUR)
    room.challenge(failed, room.stranger)
    room.wait_until(deadline)
    room.cure(failed)
    assert room.moved(before, failed) == {
        "reporter": room.rest(failed),
        "stranger": room.params.challenge_bond,
        "case": -room.rest(failed),
    }
    assert room.licenses.isActive(license_id) is True


def test_a_ruling_takes_nothing_of_the_time_to_cure(
    room: Courtroom, license_id: int, failed: CaseFile, books: None
) -> None:
    before, deadline = room.money(failed), cure_by(room, failed)
    room.wait(40 * HOUR)
    room.challenge(failed, room.stranger)
    room.call("rule", failed, True, by=room.arbiter)
    with refused(room.court, "TooEarly", notBefore=deadline):
        room.call("execute", failed)
    room.wait_until(deadline)
    room.cure(failed)
    assert room.moved(before, failed) == {
        "reporter": room.rest(failed),
        "arbiter": room.params.challenge_bond,
        "case": -room.rest(failed),
    }
    assert room.state(failed) == State.CLOSED
    assert room.licenses.isActive(license_id) is True


def test_a_ruling_that_finds_the_label_missing_gives_notice(
    room: Courtroom, license_id: int, books: None
) -> None:
    before = room.money()
    file = room.open(license_id, Kind.DISCLOSURE)
    room.post(file, Decision.NOT_GUILTY)
    room.challenge(file, room.reporter)
    receipt = room.call("rule", file, False, by=room.arbiter)
    deadline = receipt.timestamp + NOTICE
    assert cure_by(room, file) == deadline
    assert room.licenses.isActive(license_id) is False
    with refused(room.court, "TooEarly", notBefore=deadline):
        room.call("execute", file)
    room.wait_until(deadline)
    room.cure(file)
    assert room.licenses.isActive(license_id) is True
    cost = room.params.challenge_bond // 3 * 3
    after = room.money(file)
    moved = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: wei for name, wei in moved.items() if wei} == {
        "reporter": file.bond + room.params.challenge_bond,
        "arbiter": cost,
        "stakes": -cost,
    }


def test_while_he_waits_for_the_evidence_the_time_to_cure_does_not_run(
    room: Courtroom, license_id: int, failed: CaseFile
) -> None:
    room.wait_until(cure_by(room, failed))
    room.ask(failed)
    assert cure_by(room, failed) == 2**40 - 1
    served = room.serve(failed).timestamp
    assert cure_by(room, failed) == room.until(failed) == served + NOTICE
    room.wait_until(served + NOTICE)
    room.cure(failed)


def test_the_label_may_be_restored_while_he_waits(room: Courtroom, license_id: int, failed: CaseFile) -> None:
    room.ask(failed)
    room.cure(failed)
    assert room.state(failed) == State.CLOSED


def test_asking_late_does_not_bring_the_time_to_cure_back(
    room: Courtroom, license_id: int, failed: CaseFile
) -> None:
    deadline = cure_by(room, failed)
    room.challenge(failed, room.holder)
    room.wait_until(deadline + 1)
    room.ask(failed)
    room.serve(failed)
    assert cure_by(room, failed) == deadline
    with refused(room.court, "TooLate", deadline=deadline):
        room.cure(failed)


def test_the_last_instance_does_not_stop_a_cure_either(room: Courtroom, license_id: int) -> None:
    """Only where the authority's time is shorter than the notice."""
    file = room.open(license_id, Kind.DISCLOSURE)
    room.post(file)
    room.challenge(file, room.holder)
    deadline = cure_by(room, file)
    room.past(file)
    room.call("escalate", file)
    with refused(room.court, "TooLate", deadline=deadline):
        room.cure(file)
