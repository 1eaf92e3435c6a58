"""Appeals and ends.

One test for each row of the money table, asserted over every pot of the vault; then who may do what, and when.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from courtroom import (
    DAY,
    ETHER,
    HOUR,
    ZERO,
    CaseFile,
    Courtroom,
    Decision,
    Kind,
    State,
    bits,
    refused,
)
from test_committee import equivocate


def pots(room: Courtroom, before: dict[str, int], file: CaseFile) -> dict[str, int]:
    after = room.money(file)
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}


def claim_all(room: Courtroom, file: CaseFile, *seats: int) -> None:
    for seat in seats:
        room.call("claimFee", file, seat)


# ---- the money table


def test_row_executed_unchallenged(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.guilty_leak(license_id, bucket=20)  # table: 70 % of 10 ETH
    room.past(file)
    receipt = room.call("execute", file)
    slashed = 7 * ETHER
    assert pots(room, before, file) == {
        "reporter": room.rest(file) + slashed // 10,
        "royalties": 2 * ETHER,  # the price paid
        "treasury": slashed - slashed // 10 - 2 * ETHER,
        "bonds": -slashed,
        "case": room.fee(file),
    }
    assert room.state(file) == State.EXECUTED
    assert room.licenses.endOf(license_id) == 1
    assert room.court.slashedFor(license_id, Kind.LEAK) == slashed
    assert room.court.leakBucket(license_id) == 20
    assert room.bond(license_id).openCases == 0
    names = [event.event_name for event in receipt.events]
    assert names.count("VerdictFinal") == names.count("CaseExecuted") == 1
    assert (
        room.vault.CaseExecuted(
            caseId=file.id,
            licenseId=license_id,
            reporter=room.reporter.address,
            bondBack=room.rest(file),
            slashed=slashed,
            left=3 * ETHER,
            toReporter=slashed // 10,
            toOwner=2 * ETHER,
        )
        in receipt.events
    )
    claim_all(room, file, 0, 1, 2)
    assert room.vault.caseBondOf(file.id) == 0
    parts = [room.free(room.operators[seat].account) for seat in (0, 1, 2)]
    assert sum(parts) == room.fee(file)
    assert max(parts) - min(parts) <= 1


@pytest.mark.parametrize(
    ("bucket", "bps"), [(12, 4_000), (19, 4_000), (20, 7_000), (40, 10_000), (255, 10_000)]
)
def test_the_slash_follows_the_table(room: Courtroom, license_id: int, bucket: int, bps: int) -> None:
    file = room.guilty_leak(license_id, bucket=bucket)
    room.past(file)
    room.call("execute", file)
    assert room.bond(license_id).amount == 10 * ETHER * (10_000 - bps) // 10_000


def test_row_dismissed_unchallenged(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.open(license_id, bond=ETHER + 1)
    room.post(file, Decision.NOT_GUILTY)
    with refused(room.court, "TooEarly", notBefore=room.until(file)):
        room.call("finalize", file)
    with refused(room.court, "WrongCaseState", given=State.POSTED, needed=State.FINAL_GUILTY):
        room.call("execute", file)
    room.past(file)
    room.call("finalize", file)
    rest = room.rest(file)
    assert pots(room, before, file) == {
        "holder": rest // 2,
        "treasury": rest - rest // 2,
        "case": room.fee(file),
    }
    assert room.state(file) == State.DISMISSED
    assert room.licenses.endOf(license_id) == 0
    assert room.bond(license_id).openCases == 0
    claim_all(room, file, 0, 1, 2)
    assert room.vault.caseBondOf(file.id) == 0


NO_DECISION = [
    (Decision.INCONCLUSIVE, "reporter"),
    (Decision.UNLICENSED, "reporter"),
    (Decision.UNAVAILABLE, "treasury"),
]


@pytest.mark.parametrize(("decision", "to"), NO_DECISION)
def test_row_closed(room: Courtroom, license_id: int, books: None, decision: Decision, to: str) -> None:
    before = room.money()
    file = room.open(license_id)
    room.post(file, decision)
    with refused(room.court, "TooEarly", notBefore=room.until(file)):
        room.call("finalize", file)
    room.past(file)
    room.call("finalize", file)
    assert pots(room, before, file) == {to: room.rest(file), "case": room.fee(file)}
    assert room.state(file) == State.CLOSED
    assert room.bond(license_id).openCases == 0
    claim_all(room, file, 0, 1, 2)


@pytest.mark.parametrize(("decision", "to"), NO_DECISION)
def test_row_closed_upheld(
    room: Courtroom, license_id: int, books: None, decision: Decision, to: str
) -> None:
    before = room.money()
    file = room.open(license_id)
    room.post(file, decision)
    room.challenge(file, room.reporter)
    room.call("rule", file, True, by=room.arbiter)
    assert pots(room, before, file) == {
        to: room.rest(file),
        "arbiter": room.params.challenge_bond,
        "case": room.fee(file),
    }
    assert room.court.caseState(file.id)[:2] == (State.CLOSED, decision)
    assert room.bond(license_id).openCases == 0
    claim_all(room, file, 0, 1, 2)


@pytest.mark.parametrize("decision", [decision for decision, _ in NO_DECISION])
def test_row_closed_overturned(room: Courtroom, license_id: int, books: None, decision: Decision) -> None:
    """The signers lose their fee and no stake: a reporter can hide his evidence until they sign, and show it then."""
    before = room.money()
    file = room.open(license_id)
    room.open_share(file)
    room.post(file, decision, bucket=40)
    room.challenge(file, room.reporter)
    room.call("rule", file, False, by=room.arbiter)
    assert pots(room, before, file) == {"reporter": file.bond + room.params.challenge_bond}
    assert room.court.caseState(file.id)[:2] == (State.CLOSED, Decision.INCONCLUSIVE)
    assert room.court.caseDetail(file.id).unpaidSeats == 0
    assert room.bond(license_id).openCases == 0
    assert room.licenses.endOf(license_id) == 0  # convicted by a verdict only
    assert room.court.leakBucket(license_id) == 0
    with refused(room.court, "NothingToClaim", caseId=file.id, seat=0):
        room.call("claimFee", file, 0)


def test_row_upheld_guilty(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.guilty_leak(license_id, bucket=12)
    room.challenge(file, room.holder)
    room.call("rule", file, True, by=room.arbiter)
    assert room.state(file) == State.FINAL_GUILTY
    assert room.bond(license_id).openCases == 1  # until executed
    room.call("execute", file)
    slashed = 4 * ETHER
    assert pots(room, before, file) == {
        "reporter": room.rest(file) + slashed // 10,
        "arbiter": room.params.challenge_bond,
        "royalties": 2 * ETHER,
        "treasury": slashed - slashed // 10 - 2 * ETHER,
        "bonds": -slashed,
        "case": room.fee(file),
    }
    claim_all(room, file, 0, 1, 2)


def test_row_cleared_by_ruling(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.guilty_leak(license_id)
    room.challenge(file, room.holder)
    receipt = room.call("rule", file, False, by=room.arbiter)
    bond = room.params.challenge_bond
    cost = bond // 3 * 3  # three signers
    assert pots(room, before, file) == {
        "holder": file.bond + bond,
        "arbiter": cost,
        "stakes": -cost,
    }
    assert room.state(file) == State.CLEARED
    assert [room.stake(operator.account) for operator in room.operators] == [
        room.operator_stake - (bond // 3 if seat in (0, 1, 2) else 0) for seat in range(5)
    ]
    assert room.bond(license_id).openCases == 0
    assert room.court.Ruled(caseId=file.id, authority=room.arbiter.address, upheld=False) in receipt.events
    with refused(room.court, "WrongCaseState", given=State.CLEARED):
        room.call("execute", file)
    for seat in (0, 1, 2):
        with refused(room.court, "NothingToClaim", caseId=file.id, seat=seat):
            room.call("claimFee", file, seat)


def test_who_did_not_sign_does_not_pay(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    room.open_share(file)
    room.post(file, seats=(0, 2, 4))
    room.challenge(file, room.holder)
    room.call("rule", file, False, by=room.arbiter)
    part = room.params.challenge_bond // 3
    assert [room.stake(operator.account) for operator in room.operators] == [
        room.operator_stake - (part if seat in (0, 2, 4) else 0) for seat in range(5)
    ]


def test_a_false_verdict_on_a_large_bond_pays_its_signers_nothing(
    room: Courtroom, license_id: int, books: None
) -> None:
    before = room.money()
    file = room.guilty_leak(license_id, bond=100 * ETHER)  # f would be 20 ETH, C is 0.2
    room.challenge(file, room.holder)
    room.call("rule", file, False, by=room.arbiter)
    after = room.money(file)
    assert all(after[f"operator{i}"] == before[f"operator{i}"] for i in range(5))
    assert after["stakes"] < before["stakes"]
    assert room.court.caseDetail(file.id).unpaidSeats == 0
    assert after["case"] == 0
    assert room.free(room.holder) == 100 * ETHER + room.params.challenge_bond


def test_row_not_guilty_upheld(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.open(license_id)
    room.post(file, Decision.NOT_GUILTY)
    room.challenge(file, room.reporter)
    room.call("rule", file, True, by=room.arbiter)
    rest, bond = room.rest(file), room.params.challenge_bond
    assert pots(room, before, file) == {
        "holder": rest // 2,
        "treasury": rest - rest // 2,
        "arbiter": bond,
        "case": room.fee(file),
    }
    assert room.state(file) == State.DISMISSED


def test_row_not_guilty_overturned_slashes_by_the_statistic_only(
    room: Courtroom, license_id: int, books: None
) -> None:
    before = room.money()
    file = room.open(license_id)
    room.open_share(file)
    room.post(file, Decision.NOT_GUILTY, bucket=0)
    room.challenge(file, room.reporter)
    room.call("rule", file, False, by=room.arbiter)
    assert room.state(file) == State.FINAL_GUILTY
    room.call("execute", file)
    bond = room.params.challenge_bond
    cost = bond // 3 * 3
    assert pots(room, before, file) == {
        "reporter": file.bond + bond,
        "arbiter": cost,
        "stakes": -cost,
    }
    assert room.licenses.endOf(license_id) == 1  # revoked; no bond without a p-value
    assert room.court.leakBucket(license_id) == 0
    again = room.guilty_leak(license_id, share=1, bucket=40)  # a statistic may still follow
    room.past(again)
    room.call("execute", again)
    assert room.bond(license_id).amount == 0


def test_row_not_guilty_overturned_with_a_strong_statistic_slashes(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    room.open_share(file)
    room.post(file, Decision.NOT_GUILTY, bucket=20)  # a committee that lies about the decision
    room.challenge(file, room.reporter)
    room.call("rule", file, False, by=room.arbiter)
    room.call("execute", file)
    assert room.bond(license_id).amount == 3 * ETHER


def test_a_strong_bucket_without_a_share_slashes_nothing(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    room.post(file, Decision.NOT_GUILTY, bucket=40)
    room.challenge(file, room.reporter)
    room.call("rule", file, False, by=room.arbiter)
    room.call("execute", file)
    assert room.bond(license_id).amount == 10 * ETHER


@pytest.mark.parametrize(
    "decision", [Decision.GUILTY, Decision.NOT_GUILTY, Decision.INCONCLUSIVE, Decision.UNAVAILABLE]
)
def test_row_cleared_by_silence(room: Courtroom, license_id: int, books: None, decision: Decision) -> None:
    before = room.money()
    file = room.open(license_id)
    room.open_share(file)
    room.post(file, decision)
    room.challenge(file, room.holder if decision == Decision.GUILTY else room.reporter)
    with refused(room.court, "TooEarly", notBefore=room.until(file)):
        room.call("escalate", file)
    room.past(file)
    with refused(room.court, "TooLate", deadline=room.until(file)):
        room.call("rule", file, True, by=room.arbiter)
    receipt = room.call("escalate", file)
    assert room.until(file) == receipt.timestamp + room.params.last_window
    with refused(room.court, "TooEarly", notBefore=room.until(file)):
        room.call("clearSilent", file)
    room.past(file)
    with refused(room.court, "TooLate"):
        room.call("rule", file, True, by=room.last_instance)
    receipt = room.call("clearSilent", file)
    challenger = "holder" if decision == Decision.GUILTY else "reporter"
    expected = {"reporter": room.rest(file), "case": room.fee(file)}
    expected[challenger] = expected.get(challenger, 0) + room.params.challenge_bond
    assert pots(room, before, file) == expected
    assert room.state(file) == State.CLEARED
    assert room.bond(license_id).openCases == 1  # frozen 14 d more
    assert room.until(file) == receipt.timestamp + 14 * DAY
    with refused(room.court, "TooEarly", notBefore=room.until(file)):
        room.call("releaseHold", file)
    room.past(file)
    room.call("releaseHold", file)
    assert room.bond(license_id).openCases == 0
    with refused(room.court, "NothingHeld", caseId=file.id):
        room.call("releaseHold", file)
    claim_all(room, file, 0, 1, 2)


def test_the_last_instance_rules_while_escalated(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.guilty_leak(license_id)
    room.challenge(file, room.holder)
    with refused(
        room.court, "NotTheAuthority", caller=room.last_instance.address, authority=room.arbiter.address
    ):
        room.call("rule", file, True, by=room.last_instance)
    room.past(file)
    room.call("escalate", file)
    with refused(
        room.court, "NotTheAuthority", caller=room.arbiter.address, authority=room.last_instance.address
    ):
        room.call("rule", file, True, by=room.arbiter)
    room.call("rule", file, False, by=room.last_instance)
    assert pots(room, before, file)["last"] == room.params.challenge_bond // 3 * 3
    assert room.state(file) == State.CLEARED


def test_a_missing_accused_is_replaced_by_the_treasury(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.open(0, Kind.UNLICENSED)
    room.post(file, Decision.NOT_GUILTY)
    room.past(file)
    room.call("finalize", file)
    assert pots(room, before, file) == {"treasury": room.rest(file), "case": room.fee(file)}


@pytest.mark.parametrize("kind", [Kind.OWNERSHIP, Kind.UNDECLARED_PARENT])
def test_ownership_and_parent_cases_freeze_the_model(
    room: Courtroom, license_id: int, books: None, kind: Kind
) -> None:
    before = room.money()
    file = room.open(0, kind)
    room.post(file, bucket=40)
    room.past(file)
    receipt = room.call("execute", file)
    assert (
        room.vault.CaseExecuted(
            caseId=file.id,
            licenseId=0,
            reporter=room.reporter.address,
            bondBack=room.rest(file),
            slashed=0,
            left=0,
            toReporter=0,
            toOwner=0,
        )
        in receipt.events
    )
    assert pots(room, before, file) == {"reporter": room.rest(file), "case": room.fee(file)}
    assert room.models.statusOf(room.model_id).frozenUntil == receipt.timestamp + 30 * DAY
    assert room.court.counted(room.model_id, b"\x51" * 32) is True


@pytest.mark.parametrize("kind", [Kind.OWNERSHIP, Kind.UNDECLARED_PARENT])
def test_one_matter_freezes_a_model_once(room: Courtroom, license_id: int, books: None, kind: Kind) -> None:
    first = room.open(0, kind, evidence=b"\xe5" * 32)
    room.post(first)
    room.past(first)
    room.call("execute", first)
    until = room.models.statusOf(room.model_id).frozenUntil
    room.wait(20 * DAY)
    before = room.money()
    again = room.open(0, kind, evidence=b"\xe5" * 32)
    room.post(again)
    room.past(again)
    room.call("execute", again)
    assert room.state(again) == State.CLOSED
    assert room.models.statusOf(room.model_id).frozenUntil == until
    assert pots(room, before, again) == {"reporter": room.rest(again), "case": room.fee(again)}
    appealed = room.open(0, kind)
    room.post(appealed, Decision.NOT_GUILTY)
    room.challenge(appealed, room.reporter)
    room.call("rule", appealed, False, by=room.arbiter)
    assert room.state(appealed) == State.CLOSED  # a ruling does not count it twice either
    other = room.open(0, kind)
    room.post(other, subject=b"\x52" * 32)
    room.past(other)
    receipt = room.call("execute", other)
    assert room.models.statusOf(room.model_id).frozenUntil == receipt.timestamp + 30 * DAY


def test_a_matter_of_one_model_does_not_count_for_another(room: Courtroom, license_id: int) -> None:
    file = room.open(0, Kind.OWNERSHIP)
    room.post(file)
    room.past(file)
    room.call("execute", file)
    assert room.court.counted(room.model_id + 1, b"\x51" * 32) is False
    assert room.court.counted(license_id, b"\x51" * 32) is False


def test_a_model_without_license_is_not_frozen(room: Courtroom, license_id: int) -> None:
    for _ in range(2):  # nothing is taken, so nothing is counted either: the same copy may be reported again
        file = room.open(0, Kind.UNLICENSED)
        room.post(file, bucket=40, subject=b"\x51" * 32)
        room.past(file)
        room.call("execute", file)
        assert room.state(file) == State.EXECUTED
        assert room.court.counted(room.model_id, b"\x51" * 32) is False
    assert room.models.statusOf(room.model_id).frozenUntil == 0


# ---- TERMS


def test_a_terms_case_is_slashed_after_a_ruling(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.open(license_id, Kind.TERMS)
    room.post(file, bucket=12, samples=3)
    room.call("rule", file, True, by=room.arbiter)
    room.call("execute", file)
    slashed = 4 * ETHER
    assert pots(room, before, file) == {
        "reporter": room.rest(file) + slashed // 10,
        "royalties": 2 * ETHER,
        "treasury": slashed - slashed // 10 - 2 * ETHER,
        "bonds": -slashed,
        "case": room.fee(file),
    }
    assert room.court.slashedFor(license_id, Kind.TERMS) == slashed
    assert room.court.counted(license_id, b"\x51" * 32) is True


@pytest.mark.parametrize(("bucket", "slashed"), [(0, 4), (12, 4), (20, 7), (40, 10)])
def test_an_overturned_clearing_of_a_terms_case_slashes_at_least_the_lowest_row(
    room: Courtroom, license_id: int, books: None, bucket: int, slashed: int
) -> None:
    file = room.open(license_id, Kind.TERMS)
    room.post(file, Decision.NOT_GUILTY, bucket=bucket, samples=0)
    room.challenge(file, room.reporter)
    room.call("rule", file, False, by=room.arbiter)
    assert room.court.caseDetail(file.id).bucket == (bucket or 12)
    room.call("execute", file)
    assert room.state(file) == State.EXECUTED
    assert room.bond(license_id).amount == (10 - slashed) * ETHER
    assert room.court.slashedFor(license_id, Kind.TERMS) == slashed * ETHER


def test_a_terms_case_overturned_costs_no_stake(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.open(license_id, Kind.TERMS)
    room.post(file, bucket=12, samples=3)
    room.call("rule", file, False, by=room.arbiter)
    assert pots(room, before, file) == {"holder": file.bond}  # but the fee


def test_a_terms_case_nobody_rules_on_is_cleared(room: Courtroom, license_id: int, books: None) -> None:
    before = room.money()
    file = room.open(license_id, Kind.TERMS)
    room.post(file, bucket=12, samples=3)
    for step in ("escalate", "clearSilent", "releaseHold"):
        room.past(file)
        room.call(step, file)
    assert pots(room, before, file) == {"reporter": room.rest(file), "case": room.fee(file)}
    assert room.bond(license_id).openCases == 0


def test_an_object_that_counted_never_counts_again(room: Courtroom, license_id: int, books: None) -> None:
    first, second, third = (room.open(license_id, Kind.TERMS) for _ in range(3))
    room.post(first, bucket=12, samples=3)
    room.post(second, bucket=40, samples=3)
    room.post(third, bucket=20, samples=3, subject=b"\x52" * 32)
    for file in (first, second, third):
        room.call("rule", file, True, by=room.arbiter)
    assert [room.state(file) for file in (first, second, third)] == [
        State.FINAL_GUILTY,
        State.CLOSED,
        State.FINAL_GUILTY,
    ]
    room.call("execute", first)
    assert room.bond(license_id).amount == 6 * ETHER
    room.call("execute", third)  # table 70 % of the original bond, less what TERMS took before
    assert room.bond(license_id).amount == 3 * ETHER
    assert room.bond(license_id).openCases == 0


def test_two_kinds_never_take_more_than_the_bond(room: Courtroom, license_id: int, books: None) -> None:
    terms, leak = room.open(license_id, Kind.TERMS), room.open(license_id)
    room.open_share(leak)
    room.post(terms, bucket=20, samples=3)
    room.post(leak, bucket=20)
    room.call("rule", terms, True, by=room.arbiter)
    room.call("execute", terms)
    room.past(leak)
    room.call("execute", leak)
    assert room.court.slashedFor(license_id, Kind.TERMS) == 7 * ETHER
    assert room.court.slashedFor(license_id, Kind.LEAK) == 3 * ETHER
    assert room.court.slashedFor(license_id, Kind.DISCLOSURE) == 0
    assert room.bond(license_id).amount == 0


# ---- LEAK counted once


def test_one_leak_reported_twice_is_slashed_once(room: Courtroom, license_id: int, books: None) -> None:
    first = room.guilty_leak(license_id, share=0, bucket=20)
    second = room.guilty_leak(license_id, share=1, bucket=20, reporter=room.stranger)
    room.past(second)
    room.call("execute", first)
    room.call("execute", second)
    assert [room.state(first), room.state(second)] == [State.EXECUTED, State.CLOSED]
    assert room.free(room.stranger) == room.rest(second)
    assert room.bond(license_id).amount == 3 * ETHER
    assert room.bond(license_id).openCases == 0


def test_a_cheap_self_report_does_not_shield_from_a_stronger_verdict(
    room: Courtroom, license_id: int, books: None
) -> None:
    cheap = room.guilty_leak(license_id, share=0, bucket=12, reporter=room.holder)
    room.past(cheap)
    room.call("execute", cheap)
    strong = room.guilty_leak(license_id, share=1, bucket=40)
    room.past(strong)
    room.call("execute", strong)
    assert room.state(strong) == State.EXECUTED
    assert room.court.slashedFor(license_id, Kind.LEAK) == 10 * ETHER
    assert room.bond(license_id).amount == 0


def test_executed_out_of_order_the_weaker_verdict_takes_nothing_more(
    room: Courtroom, license_id: int, books: None
) -> None:
    weak = room.guilty_leak(license_id, share=0, bucket=12)
    strong = room.guilty_leak(license_id, share=1, bucket=20)
    room.past(strong)
    room.call("finalize", weak)
    room.call("finalize", strong)
    room.call("execute", strong)
    room.call("execute", weak)
    assert room.bond(license_id).amount == 3 * ETHER


# ---- DISCLOSURE


def test_disclosure_is_revoked_after_the_notice_and_no_bond_moves(
    room: Courtroom, license_id: int, books: None
) -> None:
    before = room.money()
    file = room.open(license_id, Kind.DISCLOSURE)
    room.post(file, bucket=40)
    with refused(room.court, "TooEarly", notBefore=room.until(file)):
        room.call("execute", file)
    room.past(file)
    room.call("execute", file)
    assert room.licenses.endOf(license_id) == 1
    assert pots(room, before, file) == {"reporter": room.rest(file), "case": room.fee(file)}


def test_a_cleared_disclosure_lifts_the_suspension_when_none_other_stands(
    room: Courtroom, license_id: int
) -> None:
    first, second = room.open(license_id, Kind.DISCLOSURE), room.open(license_id, Kind.DISCLOSURE)
    for file in (first, second):
        room.post(file)
        room.challenge(file, room.holder)
    room.call("rule", first, False, by=room.arbiter)
    assert room.licenses.isActive(license_id) is False
    room.past(second)
    room.call("escalate", second)
    room.past(second)
    room.call("clearSilent", second)
    assert room.licenses.isActive(license_id) is True


def test_a_surrendered_license_is_neither_suspended_nor_revoked_but_slashed(
    room: Courtroom, license_id: int, books: None
) -> None:
    probe, cleared = room.open(license_id, Kind.DISCLOSURE), room.open(license_id, Kind.DISCLOSURE)
    room.post(cleared)
    room.challenge(cleared, room.holder)
    room.licenses.surrender(license_id, sender=room.holder)
    room.post(probe)
    room.call("rule", cleared, False, by=room.arbiter)
    room.past(probe)
    room.call("execute", probe)
    file = room.guilty_leak(license_id)
    room.past(file)
    room.call("execute", file)
    assert room.licenses.endOf(license_id) == 2  # SURRENDERED
    assert room.bond(license_id).amount == 3 * ETHER


# ---- who and when


def test_the_first_third_of_the_window_belongs_to_the_accused(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    third = room.until(file) - room.params.challenge_window + room.params.challenge_window // 3
    room.wait_until(third)
    for early in (room.stranger, room.reporter):
        with refused(room.court, "NotAllowedToChallenge", caller=early.address):
            room.challenge(file, early)
    room.wait_until(third + 1)
    receipt = room.challenge(file, room.stranger)
    assert room.court.caseDetail(file.id).challenger == room.stranger
    assert room.until(file) == receipt.timestamp + room.params.ruling_window
    with refused(room.court, "WrongCaseState", given=State.CHALLENGED, needed=State.POSTED):
        room.challenge(file, room.holder)


def test_the_notice_of_a_disclosure_has_its_own_first_third(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id, Kind.DISCLOSURE)
    room.post(file)
    room.wait_until(room.until(file) - 64 * HOUR)
    with refused(room.court, "NotAllowedToChallenge", caller=room.stranger.address):
        room.challenge(file, room.stranger)
    room.challenge(file, room.holder)


def test_a_challenge_counts_until_the_last_second(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    until = room.until(file)
    room.wait_until(until + 1)
    with refused(room.court, "TooLate", deadline=until):
        room.challenge(file, room.holder)


def test_a_challenge_in_the_last_second_stands(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    until = room.until(file)
    room.wait_until(until)
    with refused(room.court, "TooEarly", notBefore=until):
        room.call("execute", file)
    room.challenge(file, room.holder)


@pytest.mark.parametrize("decision", [d for d in Decision if d not in (Decision.NONE, Decision.GUILTY)])
def test_what_convicts_nobody_is_challenged_by_the_reporter_only(
    room: Courtroom, license_id: int, decision: Decision
) -> None:
    file = room.open(license_id)
    room.post(file, decision)
    room.wait_until(room.until(file))
    for caller in (room.holder, room.stranger):
        with refused(room.court, "NotAllowedToChallenge", caller=caller.address):
            room.challenge(file, caller)
    room.challenge(file, room.reporter)


def test_nobody_challenges_what_he_would_rule_on(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    room.wait(5 * DAY)
    for judge in (room.arbiter, room.last_instance):
        with refused(room.court, "NotAllowedToChallenge", caller=judge.address):
            room.challenge(file, judge)
    own = room.open(license_id, reporter=room.arbiter)
    room.post(own, Decision.NOT_GUILTY)
    with refused(room.court, "NotAllowedToChallenge", caller=room.arbiter.address):
        room.challenge(own, room.arbiter)
    room.challenge(file, room.stranger)


def test_a_challenge_costs_its_bond(room: Courtroom, license_id: int, books: None) -> None:
    file = room.guilty_leak(license_id)
    bond = room.params.challenge_bond
    with refused(room.vault, "BalanceTooSmall", given=bond - 1, needed=bond):
        room.challenge(file, room.holder, value=bond - 1)
    room.challenge(file, room.holder, value=bond + 5)
    assert room.free(room.holder) == 5
    assert room.vault.caseBondOf(file.id) == file.bond + bond


def test_nothing_ends_twice(room: Courtroom, license_id: int, books: None) -> None:
    file = room.guilty_leak(license_id)
    for early in ("finalize", "execute"):
        with refused(room.court, "TooEarly", notBefore=room.until(file)):
            room.call(early, file)
    room.past(file)
    room.call("finalize", file)
    assert room.state(file) == State.FINAL_GUILTY
    with refused(room.court, "NothingToClaim", caseId=file.id, seat=0):
        room.call("claimFee", file, 0)  # R - f is still to be paid
    room.call("execute", file)
    record = room.records[license_id].as_tuple()
    for again in ("finalize", "execute", "lapse", "escalate", "clearSilent", "releaseHold"):
        with refused(room.court, "WrongCaseState", caseId=file.id, given=State.EXECUTED):
            room.call(again, file)
    with refused(room.court, "WrongCaseState", given=State.EXECUTED):
        room.call("shareMissed", file, record)
    with refused(room.court, "WrongCaseState", given=State.EXECUTED):
        room.call("rule", file, True, by=room.arbiter)
    with refused(room.court, "WrongCaseState", given=State.EXECUTED):
        room.challenge(file, room.holder)


def test_a_fee_is_claimed_once_by_those_who_signed(room: Courtroom, license_id: int, books: None) -> None:
    file = room.open(license_id)
    room.post(file, Decision.INCONCLUSIVE, seats=(0, 2, 3, 4))
    room.past(file)
    room.call("finalize", file)
    for seat in (1, 5, 31, 32, 2**200):
        with refused(room.court, "NothingToClaim", caseId=file.id, seat=seat):
            room.call("claimFee", file, seat)
    receipt = room.call("claimFee", file, 2)
    part = room.fee(file) // 4
    account = room.operators[2].account
    assert room.court.FeeClaimed(caseId=file.id, account=account.address, amount=part) in receipt.events
    assert room.free(account) == part
    with refused(room.court, "NothingToClaim", caseId=file.id, seat=2):
        room.call("claimFee", file, 2)
    assert room.court.caseDetail(file.id).unpaidSeats == bits(0, 3, 4)


def test_no_fee_before_the_end(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    with refused(room.court, "NothingToClaim"):
        room.call("claimFee", file, 0)
    room.challenge(file, room.holder)
    with refused(room.court, "NothingToClaim"):
        room.call("claimFee", file, 0)


@pytest.mark.parametrize("name", ["bond", "reporter", "accused", "authority", "epoch", "post_by", "kind"])
def test_a_forged_case_file_names_no_case(room: Courtroom, license_id: int, name: str) -> None:
    file = room.guilty_leak(license_id)
    changed: dict[str, Any] = {
        "bond": file.bond * 2, "reporter": room.stranger.address, "accused": room.stranger.address,
        "authority": room.stranger.address, "epoch": 2, "post_by": 0, "kind": Kind.DISCLOSURE,
    }  # fmt: skip
    forged = replace(file, **{name: changed[name]})
    room.past(file)
    for step in ("execute", "finalize"):
        with refused(room.court, "WrongCaseState", caseId=forged.id, given=State.NONE):
            room.call(step, forged)
    with refused(room.court, "WrongCaseState", given=State.NONE):
        room.call("rule", forged, True, by=room.stranger)


def test_only_the_accused_files_a_defence_while_it_matters(room: Courtroom, license_id: int) -> None:
    file = room.guilty_leak(license_id)
    digest = b"\xdf" * 32
    with refused(room.court, "WrongCaseState", given=State.NONE):
        room.call("fileDefence", replace(file, bond=file.bond + 1), digest, by=room.holder)
    with refused(room.court, "NotTheAccused", caller=room.stranger.address, accused=room.holder.address):
        room.call("fileDefence", file, digest)
    receipt = room.call("fileDefence", file, digest, by=room.holder)
    assert (
        room.court.DefenceFiled(caseId=file.id, accused=room.holder.address, digest=digest) in receipt.events
    )
    room.past(file)
    room.call("execute", file)
    with refused(room.court, "WrongCaseState", given=State.EXECUTED):
        room.call("fileDefence", file, digest, by=room.holder)


def test_a_self_report_gives_no_bond_free(room: Courtroom, license_id: int, books: None) -> None:
    real = room.guilty_leak(license_id, share=0)
    own = room.open(license_id, reporter=room.holder)
    room.post(own, Decision.INCONCLUSIVE)
    room.past(own)
    room.call("finalize", own)
    with refused(room.court, "WrongCaseState"):
        room.call("finalize", own)
    with refused(room.court, "WrongCaseState"):
        room.call("releaseHold", own)
    assert room.bond(license_id).openCases == 1
    # the window of `real`, posted before `own`, is past too
    room.call("execute", real)
    assert room.bond(license_id).amount == 3 * ETHER


def test_a_case_that_holds_nothing_leaves_the_counter_alone(
    room: Courtroom, license_id: int, books: None
) -> None:
    bondless = room.place_license(6, bond=0)
    file = room.open(bondless, Kind.TERMS)
    room.post(file, bucket=40, samples=3)
    room.call("rule", file, True, by=room.arbiter)
    room.call("execute", file)
    assert room.bond(bondless).openCases == 0
    assert room.licenses.endOf(bondless) == 1
    assert room.court.caseDetail(file.id).challenger == ZERO


def test_operators_without_stake_do_not_stop_a_ruling(room: Courtroom, license_id: int, books: None) -> None:
    file = room.guilty_leak(license_id)
    room.challenge(file, room.holder)
    for seat in (0, 1, 2):
        equivocate(room, file, seat)
    room.call("rule", file, False, by=room.arbiter)
    assert room.free(room.arbiter) == 0
    assert room.free(room.holder) == file.bond + room.params.challenge_bond
