"""Canaries: hidden test cases whose right verdict was committed before they were opened.

Branches of accuseCanary: another case's file; other evidence; root unknown; path, salt or expectation not under the
root; committed at or after the opening; verdict as expected; no operator's signature; accused before; accused.
contestCanary: not accused; contested before; late; contested. ruleCanary: not the authority; not accused, or ended;
the operator's time is not over; late (both states); upheld; rejected. endCanary: nothing to end; early (both states);
authority silent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from courtroom import (
    DAY,
    ETHER,
    CaseFile,
    Courtroom,
    Decision,
    Kind,
    Verdict,
    operator_key,
    refused,
    send,
)
from eth_abi.abi import encode
from eth_utils.crypto import keccak

CANARY_DOMAIN = keccak(b"zhiyi.canary.v1")
PENALTY = ETHER  # a fifth of the minimum stake
CONTEST, RULING = 7 * DAY, 14 * DAY
EVIDENCE = keccak(text="canary evidence")
NONE, ACCUSED, CONTESTED, ENDED = range(4)


@dataclass(frozen=True)
class Canary:
    """What is expected, beside one other leaf under the root."""

    evidence: bytes = EVIDENCE
    salt: bytes = b"\x5a" * 32
    decision: Decision = Decision.NOT_GUILTY
    bucket: int = 0
    samples: int = 65_536
    sibling: bytes = b"\x77" * 32

    @property
    def leaf(self) -> bytes:
        types = ["bytes32", "bytes32", "bytes32", "uint8", "uint8", "uint32"]
        values = [CANARY_DOMAIN, self.salt, self.evidence, int(self.decision), self.bucket, self.samples]
        return keccak(encode(types, values))

    @property
    def root(self) -> bytes:
        return keccak(b"".join(sorted((self.leaf, self.sibling))))

    def as_tuple(self, root: bytes | None = None) -> tuple[Any, ...]:
        return (root or self.root, self.salt, int(self.decision), self.bucket, self.samples, [self.sibling])


def plant(room: Courtroom, license_id: int, canary: Canary = Canary()) -> CaseFile:
    """Committed, then reported like any other case."""
    room.committee.commitCanaries(1, canary.root, sender=room.admin)
    room.wait(1)
    return room.open(license_id, Kind.TERMS, evidence=canary.evidence)


def accuse(
    room: Courtroom,
    file: CaseFile,
    verdict: Verdict,
    *,
    seat: int = 0,
    canary: Canary = Canary(),
    signature: bytes | None = None,
    root: bytes | None = None,
) -> Any:
    return send(
        room.committee.accuseCanary,
        file.as_tuple(),
        verdict.as_tuple(),
        room.sign(verdict, (seat,)) if signature is None else signature,
        canary.as_tuple(root),
        sender=room.stranger,
    )


@pytest.fixture
def file(room: Courtroom, license_id: int) -> CaseFile:
    return plant(room, license_id)


@pytest.fixture
def wrong(room: Courtroom, file: CaseFile) -> Verdict:
    return room.verdict(file, Decision.GUILTY)


@pytest.fixture
def accused(room: Courtroom, file: CaseFile, wrong: Verdict) -> Any:
    """The operator of seat 0, accused."""
    accuse(room, file, wrong)
    return room.operators[0].account


def test_a_wrong_verdict_on_a_canary_accuses_its_signer(
    room: Courtroom, file: CaseFile, wrong: Verdict
) -> None:
    before = room.money(file)
    receipt = accuse(room, file, wrong)
    operator = room.operators[0].account
    until = receipt.timestamp + CONTEST
    expected = Canary()
    assert receipt.events == [
        room.committee.CanaryAccused(
            account=operator.address,
            caseId=file.id,
            root=expected.root,
            decision=expected.decision,
            bucket=expected.bucket,
            samples=expected.samples,
            until=until,
        )
    ]
    assert room.committee.canaryAccusation(operator, file.id) == (ACCUSED, until)
    assert room.committee.accusations(operator) == 1
    assert room.money(file) == before
    with refused(
        room.committee,
        "WrongCanaryState",
        account=operator.address,
        caseId=file.id,
        given=ACCUSED,
        needed=NONE,
    ):
        accuse(room, file, wrong)
    accuse(room, file, wrong, seat=1)
    assert room.committee.accusations(room.operators[1].account) == 1


@pytest.mark.parametrize(
    "change", [{"decision": Decision.INCONCLUSIVE}, {"bucket": 12}, {"samples": 65_535}], ids=str
)
def test_each_expected_integer_counts(room: Courtroom, file: CaseFile, change: dict[str, Any]) -> None:
    right = room.verdict(file, Decision.NOT_GUILTY, bucket=0)
    with refused(room.committee, "VerdictAsExpected", caseId=file.id):
        accuse(room, file, right)
    accuse(room, file, replace(right, **change))


def test_what_is_no_canary(room: Courtroom, file: CaseFile, wrong: Verdict) -> None:
    good = Canary()
    for canary, root in (
        (replace(good, salt=b"\x5b" * 32), good.root),
        (replace(good, decision=Decision.UNAVAILABLE), good.root),
        (replace(good, bucket=12), good.root),
        (replace(good, samples=1), good.root),
        (replace(good, sibling=b"\x78" * 32), good.root),
        (good, b"\x99" * 32),
        (replace(good, salt=b"\x5b" * 32), None),  # a root of its own, not committed
    ):
        with refused(room.committee, "NotACanary", root=root or canary.root):
            accuse(room, file, wrong, canary=canary, root=root)


def test_an_inner_node_is_no_canary(room: Courtroom, license_id: int) -> None:
    """A leaf has six words, a node two: the root itself proves nothing."""
    file = plant(room, license_id)
    canary = Canary()
    call = room.committee.accuseCanary
    verdict = room.verdict(file)
    empty = (canary.root, canary.salt, int(canary.decision), canary.bucket, canary.samples, [])
    with refused(room.committee, "NotACanary"):
        send(
            call,
            file.as_tuple(),
            verdict.as_tuple(),
            room.sign(verdict, (0,)),
            empty,
            sender=room.stranger,
        )


def test_a_canary_is_about_its_own_case(room: Courtroom, license_id: int, file: CaseFile) -> None:
    other = room.open(license_id, Kind.TERMS)
    with refused(room.committee, "CaseMismatch", caseId=other.id):
        accuse(room, file, room.verdict(other))
    with refused(room.committee, "CaseMismatch", caseId=file.id):
        accuse(room, file, replace(room.verdict(file), evidence_hash=other.evidence_hash))
    with refused(room.committee, "NotACanary"):
        accuse(room, other, room.verdict(other))  # evidence that no canary expected
    forged = replace(file, opened_at=file.opened_at + 1)
    with refused(room.committee, "CaseMismatch", caseId=file.id):
        accuse(room, forged, room.verdict(file))


def test_an_expectation_that_follows_the_case_convicts_nobody(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id, Kind.TERMS, evidence=EVIDENCE)
    verdict = room.verdict(file)
    receipt = room.committee.commitCanaries(1, Canary().root, sender=room.admin)
    with refused(room.committee, "CanaryTooYoung", committedAt=receipt.timestamp, openedAt=file.opened_at):
        accuse(room, file, verdict)


def test_only_an_operators_own_signature_accuses_it(
    room: Courtroom, bare_room: Courtroom, file: CaseFile, wrong: Verdict
) -> None:
    outsider = replace(room.operators[0], key=operator_key("nobody"))
    elsewhere = room.operators[0].sign(bare_room.digest(wrong))
    for signature in (
        outsider.sign(room.digest(wrong)),
        elsewhere,
        room.sign(replace(wrong, bucket=40), (0,)),
        b"",
        bytes(65),
    ):
        with refused(room.committee, "NotAnOperator"):
            accuse(room, file, wrong, signature=signature)


@pytest.mark.parametrize("answers", [True, False], ids=["contested", "silent operator"])
@pytest.mark.parametrize("upheld", [True, False], ids=["upheld", "rejected"])
def test_the_appeal_authority_rules(
    room: Courtroom, file: CaseFile, accused: Any, books: None, upheld: bool, answers: bool
) -> None:
    before = room.money(file)
    rule, end = room.committee.ruleCanary, room.committee.endCanary
    _, answer_by = room.committee.canaryAccusation(accused, file.id)
    room.wait_until(answer_by)
    with refused(room.committee, "TooEarly", notBefore=answer_by):
        send(rule, accused, file.id, upheld, sender=room.arbiter)
    if answers:
        receipt = room.committee.contestCanary(file.id, b"\xc0" * 32, sender=accused)
        until = receipt.timestamp + RULING
        assert receipt.events == [
            room.committee.CanaryContested(
                account=accused.address, caseId=file.id, digest=b"\xc0" * 32, until=until
            )
        ]
        assert room.committee.canaryAccusation(accused, file.id) == (CONTESTED, until)
        with refused(room.committee, "WrongCanaryState", given=CONTESTED, needed=ACCUSED):
            send(room.committee.contestCanary, file.id, b"\xc1" * 32, sender=accused)
    else:
        room.wait_until(answer_by + 1)
        until = answer_by + RULING
    for wrong_judge in (room.admin, room.last_instance, accused):
        with refused(
            room.committee,
            "NotTheAuthority",
            caller=wrong_judge.address,
            authority=room.arbiter.address,
        ):
            send(rule, accused, file.id, upheld, sender=wrong_judge)
    room.wait_until(until)
    with refused(room.committee, "TooEarly", notBefore=until):
        send(end, accused, file.id, sender=room.stranger)
    receipt = rule(accused, file.id, upheld, sender=room.arbiter)
    slashed = PENALTY if upheld else 0
    assert (
        room.committee.CanaryEnded(account=accused.address, caseId=file.id, upheld=upheld, slashed=slashed)
        in receipt.events
    )
    assert room.moved(before, file) == ({"treasury": PENALTY, "stakes": -PENALTY} if upheld else {})
    assert room.stake(accused) == room.operator_stake - slashed
    assert room.committee.canaryAccusation(accused, file.id)[0] == ENDED
    assert room.committee.accusations(accused) == 0
    for step in (
        lambda: send(end, accused, file.id, sender=room.stranger),
        lambda: send(room.committee.contestCanary, file.id, b"\x01" * 32, sender=accused),
        lambda: send(rule, accused, file.id, True, sender=room.arbiter),
    ):
        with refused(room.committee, "WrongCanaryState", given=ENDED):
            step()
    with refused(room.committee, "WrongCanaryState", given=ENDED, needed=NONE):
        accuse(room, file, room.verdict(file))
    if upheld:
        with refused(room.committee, "StakeBelowMinimum", given=4 * ETHER):  # no seat until it adds stake
            send(room.committee.announceEpoch, room.signers, 3, sender=room.admin)


@pytest.mark.parametrize("answers", [True, False], ids=["contested", "silent operator"])
def test_a_silent_authority_drops_the_accusation(
    room: Courtroom, file: CaseFile, accused: Any, books: None, answers: bool
) -> None:
    before = room.money(file)
    _, until = room.committee.canaryAccusation(accused, file.id)
    if answers:
        until = room.committee.contestCanary(file.id, b"\xc0" * 32, sender=accused).timestamp
    until += RULING
    room.wait_until(until)
    with refused(room.committee, "TooEarly", notBefore=until):
        send(room.committee.endCanary, accused, file.id, sender=room.stranger)
    room.wait_until(until + 1)
    with refused(room.committee, "TooLate", deadline=until):
        send(room.committee.ruleCanary, accused, file.id, True, sender=room.arbiter)
    receipt = room.committee.endCanary(accused, file.id, sender=room.stranger)
    assert receipt.events == [
        room.committee.CanaryEnded(account=accused.address, caseId=file.id, upheld=False, slashed=0)
    ]
    assert room.moved(before, file) == {}
    assert room.committee.accusations(accused) == 0


def test_a_canary_that_expects_every_outcome_costs_an_honest_operator_nothing(
    room: Courtroom, license_id: int, books: None
) -> None:
    """One root may hold a leaf for each outcome of one evidence: whoever commits it accuses whatever is signed."""
    evidence = keccak(text="trap")
    other = Canary(evidence=evidence, decision=Decision.NOT_GUILTY, bucket=0)
    trap = Canary(evidence=evidence, decision=Decision.GUILTY, bucket=20, sibling=other.leaf)
    file = plant(room, license_id, trap)
    honest = room.verdict(file, Decision.NOT_GUILTY, bucket=0)
    before = room.money(file)
    accuse(room, file, honest, canary=trap)
    operator = room.operators[0].account
    _, until = room.committee.canaryAccusation(operator, file.id)
    room.wait_until(until + RULING + 1)
    room.committee.endCanary(operator, file.id, sender=room.stranger)
    assert room.moved(before, file) == {}


def test_only_the_accused_contests_and_in_time(room: Courtroom, file: CaseFile, accused: Any) -> None:
    with refused(room.committee, "WrongCanaryState", account=room.stranger.address, given=NONE):
        send(room.committee.contestCanary, file.id, b"\xc0" * 32, sender=room.stranger)
    with refused(room.committee, "WrongCanaryState", account=room.stranger.address, given=NONE):
        send(room.committee.endCanary, room.stranger, file.id, sender=room.stranger)
    with refused(room.committee, "WrongCanaryState", account=room.stranger.address, given=NONE):
        send(room.committee.ruleCanary, room.stranger, file.id, True, sender=room.arbiter)
    _, until = room.committee.canaryAccusation(accused, file.id)
    room.wait_until(until + 1)
    with refused(room.committee, "TooLate", deadline=until):
        send(room.committee.contestCanary, file.id, b"\xc0" * 32, sender=accused)
    room.wait_until(until)
    room.committee.contestCanary(file.id, b"\xc0" * 32, sender=accused)


def test_a_pause_gives_the_accused_operator_its_time_back(
    room: Courtroom, file: CaseFile, accused: Any
) -> None:
    _, until = room.committee.canaryAccusation(accused, file.id)
    room.court.pausePosting(room.now + 2 * DAY, sender=room.admin)
    room.wait_until(until + 1)
    with refused(room.committee, "TooEarly", notBefore=until):
        send(room.committee.ruleCanary, accused, file.id, True, sender=room.arbiter)
    room.wait_until(until + room.paused())
    room.committee.contestCanary(file.id, b"\xc0" * 32, sender=accused)


def test_an_accused_operator_waits_for_the_end_before_it_leaves(
    room: Courtroom, file: CaseFile, wrong: Verdict
) -> None:
    operator = room.operators[0].account
    exit_at = room.committee.requestExit(sender=operator).timestamp + 90 * DAY
    room.wait_until(exit_at - DAY)
    accuse(room, file, wrong)  # its stake still answers
    room.wait_until(exit_at)
    with refused(room.committee, "AccusationPending", account=operator.address, count=1):
        send(room.committee.leave, sender=operator)
    _, until = room.committee.canaryAccusation(operator, file.id)
    room.wait_until(until + 1)
    room.committee.ruleCanary(operator, file.id, True, sender=room.arbiter)
    room.committee.leave(sender=operator)
    assert room.free(operator) == room.operator_stake - PENALTY
    with refused(room.committee, "NotAnOperator"):
        accuse(room, file, replace(wrong, bucket=40))
