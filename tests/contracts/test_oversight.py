"""Oversight: complaints and demands for disclosure, each with a time that anyone can see missed."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import ape
import pytest
from market import DAY, ETHER, Model, Parcel, System, isolated, refuses, reverts, sha

REASON = b"\x05" * 32
EVIDENCE = sha(b"salt and papers")
CID = b"\xc1" * 32
DIGEST = sha(b"what was disclosed")
NOTHING_SAID = "Transaction failed."  # by Ape, of a revert without data: the decoder's, or no such function


class Kind(IntEnum):
    MODEL, LICENSE = range(2)


class Outcome(IntEnum):
    PENDING, UPHELD, DISMISSED, REFERRED = range(4)


class DemandState(IntEnum):
    NONE, OPEN, ANSWERED, UNANSWERED = range(4)


@pytest.fixture(scope="module")
def license_id(system: System, model: Model, parcel: Parcel) -> int:
    order = system.make_order(model, parcel)
    system.buy(order, parcel)
    return order.delivery.licenseId


def file(system: System, subject: int, kind: Kind = Kind.MODEL, *, sender: Any = None) -> tuple[int, Any]:
    receipt = system.oversight.fileComplaint(kind, subject, EVIDENCE, CID, sender=sender or system.stranger)
    return int(system.oversight.complaintCount()), receipt


def demand(system: System, subject: int, kind: Kind = Kind.MODEL, days: int = 10) -> tuple[int, int, Any]:
    """Number, time to answer, receipt."""
    by = system.now + days * DAY
    receipt = system.oversight.demandDisclosure(kind, subject, REASON, by, sender=system.regulator)
    return int(system.oversight.demandCount()), by, receipt


def at_time(system: System, time: int) -> None:
    system.go_to(time)
    ape.chain.mine()


# ---------------------------------------------------------------- complaints


def test_anyone_complains_about_models_and_licenses(system: System, model: Model, license_id: int) -> None:
    oversight, before = system.oversight, system.oversight.complaintCount()
    for number, (kind, subject) in enumerate(((Kind.MODEL, model.id), (Kind.LICENSE, license_id)), start=1):
        made, receipt = file(system, subject, kind)
        assert made == before + number
        (event,) = receipt.decode_logs(oversight.ComplaintFiled)
        assert (event.complaintId, event.kind, event.subjectId) == (made, kind, subject)
        assert (event.complainant, event.evidenceHash, event.cidDigest) == (system.stranger, EVIDENCE, CID)
        assert event.answerDue == receipt.timestamp + 15 * DAY
        assert tuple(oversight.complaintOf(made)) == (kind, subject, receipt.timestamp, Outcome.PENDING)
        assert not oversight.isOverdue(made)


def test_a_complaint_needs_a_subject_that_exists(system: System, license_id: int) -> None:
    with reverts(system.models.NoSuchModel, values={"modelId": 999}):
        file(system, 999)
    with refuses("TokenDoesNotExist()"):
        file(system, license_id + 1, Kind.LICENSE)
    alias = 1 << 64 | 1  # model 1 to whoever cuts it off
    with reverts(system.oversight.NoSuchSubject, values={"kind": Kind.MODEL, "subjectId": alias}):
        file(system, alias)
    with refuses("TokenDoesNotExist()"):
        file(system, license_id | 1 << 96, Kind.LICENSE)
    with ape.reverts(NOTHING_SAID):  # a kind that is none
        file(system, 1, 2)  # type: ignore[arg-type]


def test_the_regulator_answers_once(system: System, model: Model) -> None:
    oversight, regulator = system.oversight, system.regulator
    for outcome in (Outcome.UPHELD, Outcome.DISMISSED, Outcome.REFERRED):
        made, filed = file(system, model.id)
        receipt = oversight.answerComplaint(made, outcome, REASON, sender=regulator)
        (event,) = receipt.decode_logs(oversight.ComplaintAnswered)
        assert (event.complaintId, event.by, event.outcome) == (made, regulator, outcome)
        assert event.reasonHash == REASON
        assert tuple(oversight.complaintOf(made)) == (Kind.MODEL, model.id, filed.timestamp, outcome)
        with reverts(oversight.ComplaintIsAnswered, values={"complaintId": made, "outcome": outcome}):
            oversight.answerComplaint(made, Outcome.UPHELD, REASON, sender=regulator)


def test_pending_is_no_answer(system: System, model: Model) -> None:
    made, _ = file(system, model.id)
    with reverts(system.oversight.AnswerIsPending):
        system.oversight.answerComplaint(made, Outcome.PENDING, REASON, sender=system.regulator)


def test_a_late_answer_is_seen_to_be_late(system: System, model: Model) -> None:
    made, receipt = file(system, model.id)
    due = receipt.timestamp + 15 * DAY
    for time, overdue in ((due, False), (due + 1, True)):
        at_time(system, time)
        assert system.oversight.isOverdue(made) is overdue
    system.oversight.answerComplaint(made, Outcome.DISMISSED, REASON, sender=system.regulator)
    assert not system.oversight.isOverdue(made)


def test_what_was_never_filed_is_told(system: System) -> None:
    oversight, number = system.oversight, system.oversight.complaintCount() + 1
    for missing in (0, number):
        with reverts(oversight.NoSuchComplaint, values={"complaintId": missing}):
            oversight.answerComplaint(missing, Outcome.UPHELD, REASON, sender=system.regulator)
        for view in (oversight.complaintOf, oversight.isOverdue):
            with reverts(oversight.NoSuchComplaint):
                view(missing)


# ---------------------------------------------------------------- disclosure


def test_the_regulator_demands_disclosure(system: System, model: Model, license_id: int) -> None:
    oversight, before = system.oversight, system.oversight.demandCount()
    for number, (kind, subject) in enumerate(((Kind.MODEL, model.id), (Kind.LICENSE, license_id)), start=1):
        made, by, receipt = demand(system, subject, kind)
        assert made == before + number
        (event,) = receipt.decode_logs(oversight.DisclosureDemanded)
        assert (event.demandId, event.kind, event.subjectId) == (made, kind, subject)
        assert (event.by, event.reasonHash, event.answerBy) == (system.regulator, REASON, by)
        who = system.creator if kind == Kind.MODEL else system.buyer
        assert event.addressee == who
        assert tuple(oversight.demandOf(made)) == (kind, subject, by, DemandState.OPEN, who)


def test_the_time_to_answer_is_one_to_thirty_days(system: System, model: Model) -> None:
    now = system.now + 10
    for seconds, passes in ((DAY - 1, False), (DAY, True), (30 * DAY, True), (30 * DAY + 1, False)):
        with isolated():
            system.go_to(now)
            args = (Kind.MODEL, model.id, REASON, now + seconds)
            if passes:
                system.oversight.demandDisclosure(*args, sender=system.regulator)
                continue
            values = {"given": now + seconds, "min": now + DAY, "max": now + 30 * DAY}
            with reverts(system.oversight.AnswerTimeOutOfRange, values=values):
                system.oversight.demandDisclosure(*args, sender=system.regulator)


def test_a_demand_needs_a_subject_that_exists(system: System, license_id: int) -> None:
    with reverts(system.models.NoSuchModel):
        demand(system, 999)
    with refuses("TokenDoesNotExist()"):
        demand(system, license_id + 1, Kind.LICENSE)


def test_the_owner_answers_for_a_model_and_the_holder_for_a_license(
    system: System, model: Model, license_id: int
) -> None:
    oversight = system.oversight
    for kind, subject, who, other in (
        (Kind.MODEL, model.id, system.creator, system.buyer),
        (Kind.LICENSE, license_id, system.buyer, system.creator),
    ):
        made, by, _ = demand(system, subject, kind)
        for sender in (other, system.regulator, system.stranger):
            with reverts(
                oversight.NotTheAddressee, values={"caller": sender.address, "addressee": who.address}
            ):
                oversight.answerDemand(made, DIGEST, sender=sender)
        receipt = oversight.answerDemand(made, DIGEST, sender=who)
        (event,) = receipt.decode_logs(oversight.DemandAnswered)
        assert (event.demandId, event.by, event.digest) == (made, who, DIGEST)
        assert tuple(oversight.demandOf(made)) == (kind, subject, by, DemandState.ANSWERED, who)


def test_who_buys_a_model_is_not_on_record_as_silent(system: System, model: Model) -> None:
    made, by, _ = demand(system, model.id)
    system.models.transferFrom(system.creator, system.collaborator, model.id, sender=system.creator)
    with reverts(system.oversight.NotTheAddressee):
        system.oversight.answerDemand(made, DIGEST, sender=system.collaborator)
    with isolated():
        system.oversight.answerDemand(made, DIGEST, sender=system.creator)
    system.go_to(by + 1)
    receipt = system.oversight.markUnanswered(made, sender=system.stranger)
    (event,) = receipt.decode_logs(system.oversight.DemandUnanswered)
    assert event.addressee == system.creator


def test_an_answer_comes_in_time_or_not_at_all(system: System, model: Model) -> None:
    oversight = system.oversight
    made, by, _ = demand(system, model.id)
    with isolated():
        system.go_to(by)
        oversight.answerDemand(made, DIGEST, sender=system.creator)
    with isolated():
        system.go_to(by)
        with reverts(oversight.TooEarly, values={"notBefore": by + 1}):
            oversight.markUnanswered(made, sender=system.stranger)
    system.go_to(by + 1)
    with reverts(oversight.TooLate, values={"deadline": by}):
        oversight.answerDemand(made, DIGEST, sender=system.creator)
    receipt = oversight.markUnanswered(made, sender=system.stranger)
    (event,) = receipt.decode_logs(oversight.DemandUnanswered)
    assert (event.demandId, event.addressee) == (made, system.creator)
    assert oversight.demandOf(made).state == DemandState.UNANSWERED


def test_a_demand_ends_once(system: System, model: Model) -> None:
    oversight = system.oversight
    answered, by, _ = demand(system, model.id)
    oversight.answerDemand(answered, DIGEST, sender=system.creator)
    missed, by, _ = demand(system, model.id)
    system.go_to(by + 1)
    oversight.markUnanswered(missed, sender=system.stranger)
    for number, state in ((answered, DemandState.ANSWERED), (missed, DemandState.UNANSWERED)):
        for act in (
            lambda number=number: oversight.answerDemand(number, DIGEST, sender=system.creator),
            lambda number=number: oversight.markUnanswered(number, sender=system.stranger),
        ):
            with reverts(oversight.DemandIsOver, values={"demandId": number, "state": state}):
                act()


def test_what_was_never_demanded_is_told(system: System) -> None:
    oversight, number = system.oversight, system.oversight.demandCount() + 1
    for missing in (0, number):
        for act in (
            lambda missing=missing: oversight.answerDemand(missing, DIGEST, sender=system.creator),
            lambda missing=missing: oversight.markUnanswered(missing, sender=system.stranger),
            lambda missing=missing: oversight.demandOf(missing),
        ):
            with reverts(oversight.NoSuchDemand, values={"demandId": missing}):
                act()


# ---------------------------------------------------------------- powers


def test_only_the_regulator_answers_and_demands(system: System, model: Model) -> None:
    made, _ = file(system, model.id)
    for sender in (system.creator, system.registrar, system.deployer, system.stranger):
        with refuses("AccessManagedUnauthorized(address)"):
            system.oversight.answerComplaint(made, Outcome.UPHELD, REASON, sender=sender)
        with refuses("AccessManagedUnauthorized(address)"):
            system.oversight.demandDisclosure(
                Kind.MODEL, model.id, REASON, system.now + 9 * DAY, sender=sender
            )


def test_oversight_stops_nothing_and_takes_no_money(system: System, model: Model, parcel: Parcel) -> None:
    """Complaints and missed demands leave model, license and sale as they were."""
    file(system, model.id)
    made, by, _ = demand(system, model.id, days=1)
    system.go_to(by + 1)
    system.oversight.markUnanswered(made, sender=system.stranger)
    order = system.make_order(model, parcel, 2)
    system.buy(order, parcel)
    assert system.licenses.isActive(order.delivery.licenseId)
    with ape.reverts(NOTHING_SAID):
        system.stranger.transfer(system.oversight, ETHER)
