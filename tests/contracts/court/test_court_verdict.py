"""postVerdict.

Branches: not OPEN; paused; late; expired; another case's verdict (each field); share not this case's; too weak
(LEAK, TERMS); too few samples; signatures, which are the committee's `verify`; posted: each kind and decision.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from courtroom import (
    DAY,
    HOUR,
    NO_SHARE,
    ZERO,
    Courtroom,
    Decision,
    Kind,
    State,
    bits,
    operator_key,
    refused,
    send,
)
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

SECP256K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
VERDICT_FIELDS = [
    ("caseId", "bytes32"), ("licenseId", "uint256"), ("kind", "uint8"), ("decision", "uint8"),
    ("evidenceHash", "bytes32"), ("subject", "bytes32"), ("detectorHash", "bytes32"), ("shareIndex", "uint8"),
    ("samples", "uint32"), ("bucket", "uint8"), ("epoch", "uint64"), ("deadline", "uint40"),
]  # fmt: skip


def leak_with_share(room: Courtroom, license_id: int, index: int = 0):  # type: ignore[no-untyped-def]
    file = room.open(license_id)
    room.open_share(file, index)
    return file


def test_operators_sign_the_eip712_digest(room: Courtroom, license_id: int) -> None:
    verdict = room.verdict(room.open(license_id))
    message = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Verdict": [{"name": name, "type": kind} for name, kind in VERDICT_FIELDS],
        },
        "primaryType": "Verdict",
        "domain": {
            "name": "ZhiYiChain MisuseCourt",
            "version": "1",
            "chainId": room.court.provider.chain_id,
            "verifyingContract": room.court.address,
        },
        "message": dict(zip([name for name, _ in VERDICT_FIELDS], verdict.as_tuple(), strict=True)),
    }
    signable = encode_typed_data(full_message=message)
    expected = keccak(b"\x19" + signable.version + signable.header + signable.body)
    assert room.digest(verdict) == expected
    fields = room.court.eip712Domain()
    assert (fields.name, fields.version) == ("ZhiYiChain MisuseCourt", "1")


def test_a_guilty_leak_verdict_is_posted_by_anyone(room: Courtroom, license_id: int, books: None) -> None:
    file = leak_with_share(room, license_id, 3)
    before = room.money(file)
    verdict = room.verdict(file, bucket=20)
    receipt = room.post(file, verdict=verdict, seats=(0, 2, 4))
    until = receipt.timestamp + room.params.challenge_window
    assert room.court.caseState(file.id) == (State.POSTED, Decision.GUILTY, until, 3)
    assert room.court.caseDetail(file.id) == (ZERO, bits(0, 2, 4), 20, True)
    event = next(e for e in receipt.events if e.event_name == "VerdictPosted")
    assert (bytes(event.caseId), event.decision, event.bitmap) == (file.id, Decision.GUILTY, bits(0, 2, 4))
    assert bytes(event.verdictHash) == room.digest(verdict)
    assert event.challengeUntil == until
    assert room.money(file) == before
    with refused(room.court, "WrongCaseState", caseId=file.id, given=State.POSTED, needed=State.OPEN):
        room.post(file, Decision.NOT_GUILTY)


@pytest.mark.parametrize("decision", [d for d in Decision if d not in (Decision.NONE, Decision.GUILTY)])
def test_other_decisions_need_no_share_and_no_strength(
    room: Courtroom, license_id: int, decision: Decision
) -> None:
    file = room.open(license_id)
    room.post(file, decision, bucket=0, samples=0)
    assert room.court.caseState(file.id)[:2] == (State.POSTED, decision)


@pytest.mark.parametrize(
    "change",
    [
        {"case_id": b"\x99" * 32},
        {"license_id": 2**28 + 99},
        {"kind": Kind.TERMS},
        {"decision": Decision.NONE},
        {"evidence_hash": b"\x98" * 32},
        {"epoch": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_verdict_on_something_else_is_refused(room: Courtroom, license_id: int, change: dict) -> None:  # type: ignore[type-arg]
    file = leak_with_share(room, license_id)
    with refused(room.court, "VerdictMismatch", caseId=file.id):
        room.post(file, verdict=replace(room.verdict(file), **change))


def test_a_leak_verdict_uses_the_share_opened_in_its_own_case(room: Courtroom, license_id: int) -> None:
    other = leak_with_share(room, license_id, 1)
    file = room.open(license_id)
    for share in (1, NO_SHARE):
        with refused(room.court, "ShareNotOpened", caseId=file.id, index=share):
            room.post(file, share_index=share)
    room.open_share(file, 2)
    for share in (1, 0, NO_SHARE):
        with refused(room.court, "ShareNotOpened", caseId=file.id, index=share):
            room.post(file, share_index=share)
    with refused(room.court, "ShareNotOpened", caseId=file.id, index=1):
        room.post(file, Decision.NOT_GUILTY, share_index=1)
    room.post(file, share_index=2)
    assert room.state(other) == State.OPEN


@pytest.mark.parametrize("kind", [Kind.LEAK, Kind.TERMS])
def test_guilty_needs_two_to_the_minus_43(room: Courtroom, license_id: int, kind: Kind) -> None:
    file = leak_with_share(room, license_id) if kind == Kind.LEAK else room.open(license_id, kind)
    for bucket in (0, 11):
        with refused(room.court, "EvidenceTooWeak", bucket=bucket, needed=12):
            room.post(file, bucket=bucket)
    room.post(file, bucket=12)
    assert room.court.caseDetail(file.id).bucket == 12


def test_a_terms_verdict_needs_three_outputs_and_goes_to_the_authority(
    room: Courtroom, license_id: int, books: None
) -> None:
    file = room.open(license_id, Kind.TERMS)
    with refused(room.court, "TooFewSamples", given=2, needed=3):
        room.post(file, samples=2)
    receipt = room.post(file, samples=3)
    until = receipt.timestamp + room.params.ruling_window
    assert room.court.caseState(file.id)[:3] == (State.CHALLENGED, Decision.GUILTY, until)
    assert room.court.Challenged(caseId=file.id, challenger=ZERO, bond=0, ruleBy=until) in receipt.events
    room.past(file)
    for step in ("finalize", "execute"):
        with refused(room.court, "WrongCaseState"):
            room.call(step, file)


def test_a_disclosure_verdict_suspends_the_license_for_the_notice(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id, Kind.DISCLOSURE)
    receipt = room.post(file, bucket=0, samples=0)
    assert room.licenses.isActive(license_id) is False
    assert room.licenses.hasEnded(license_id) is False
    assert room.until(file) == receipt.timestamp + 96 * HOUR


@pytest.mark.parametrize("kind", [Kind.UNLICENSED, Kind.UNDECLARED_PARENT, Kind.OWNERSHIP])
def test_kinds_without_a_license_are_posted(room: Courtroom, license_id: int, kind: Kind) -> None:
    file = room.open(0, kind)
    decision = Decision.UNLICENSED if kind == Kind.UNLICENSED else Decision.GUILTY
    room.post(file, decision, bucket=0)
    assert room.state(file) == State.POSTED


def test_posting_ends_with_the_window_and_with_the_verdict(room: Courtroom, license_id: int) -> None:
    file = leak_with_share(room, license_id)
    deadline = file.opened_at + HOUR
    room.wait_until(deadline + 1)
    with refused(room.court, "TooLate", deadline=deadline):
        room.post(file, deadline=deadline)
    room.wait_until(file.post_by + 1)
    with refused(room.court, "TooLate", deadline=file.post_by):
        room.post(file)


def test_the_last_second_of_posting_counts(room: Courtroom, license_id: int) -> None:
    file = leak_with_share(room, license_id)
    room.wait_until(file.post_by)
    room.post(file, deadline=file.post_by)


# ---- who signed


def test_signatures_of_other_deployments_cases_and_verdicts_do_not_count(
    room: Courtroom, bare_room: Courtroom, license_id: int
) -> None:
    file, other = leak_with_share(room, license_id, 0), leak_with_share(room, license_id, 1)
    verdict = room.verdict(file)
    elsewhere = bare_room.digest(verdict)
    replays = {
        "another court": b"".join(room.operators[seat].sign(elsewhere) for seat in (0, 1, 2)),
        "another case": room.sign(room.verdict(other), (0, 1, 2)),
        "another bucket": room.sign(replace(verdict, bucket=40), (0, 1, 2)),
        "another decision": room.sign(replace(verdict, decision=Decision.NOT_GUILTY), (0, 1, 2)),
    }
    for signatures in replays.values():
        with refused(room.committee, "BadSigner", seat=0):
            room.post(file, verdict=verdict, signatures=signatures)


def test_a_copied_report_gets_no_verdict_of_the_first(room: Courtroom, license_id: int) -> None:
    file = leak_with_share(room, license_id)
    copy = room.open(license_id, reporter=room.stranger, evidence=file.evidence_hash)
    assert copy.id != file.id
    verdict = room.verdict(file)
    with refused(room.court, "ShareNotOpened", caseId=copy.id):
        room.post(copy, verdict=replace(verdict, case_id=copy.id))
    with refused(room.court, "VerdictMismatch", caseId=copy.id):
        room.post(copy, verdict=verdict)


def test_a_lying_minority_changes_nothing(room: Courtroom, license_id: int) -> None:
    file = leak_with_share(room, license_id)
    lie = room.verdict(file, Decision.NOT_GUILTY)
    with refused(room.committee, "NotEnoughSignatures", given=2, needed=3):
        room.post(file, verdict=lie, seats=(3, 4))
    truth = room.verdict(file)
    mixed = room.sign(truth, (0, 1)) + room.sign(lie, (3,))
    with refused(room.committee, "BadSigner", seat=3, expected=room.operators[3].signer):
        room.post(file, verdict=truth, bitmap=bits(0, 1, 3), signatures=mixed)
    room.post(file, verdict=truth, seats=(0, 1, 2))


def test_malleable_short_and_foreign_signatures_are_refused(room: Courtroom, license_id: int) -> None:
    file = leak_with_share(room, license_id)
    verdict = room.verdict(file)
    good = room.sign(verdict, (0, 1, 2))
    first, rest = good[:65], good[65:]
    r, s, v = first[:32], int.from_bytes(first[32:64], "big"), first[64]
    high_s = r + (SECP256K1_N - s).to_bytes(32, "big") + bytes([55 - v])
    for bad in (
        high_s,
        r + s.to_bytes(32, "big") + bytes([v - 27]),
        r + s.to_bytes(32, "big") + bytes([55 - v]),
        bytes(64) + bytes([27]),
        first[:64] + b"\x00",
        bytes(first[:1]) + bytes([first[1] ^ 1]) + first[2:],
        room.operators[4].sign(room.digest(verdict)),
    ):
        with refused(room.committee, "BadSigner", seat=0, expected=room.operators[0].signer):
            room.post(file, verdict=verdict, signatures=bad + rest)
    for wrong in (good[:-1], good + b"\x00", good[:130], b"", good + good[:65]):
        with refused(room.committee, "SignaturesMalformed", length=len(wrong)):
            room.post(file, verdict=verdict, signatures=wrong)


def test_one_signature_does_not_fill_three_seats(room: Courtroom, license_id: int) -> None:
    file = leak_with_share(room, license_id)
    verdict = room.verdict(file)
    one = room.sign(verdict, (0,))
    with refused(room.committee, "BadSigner", seat=1):
        room.post(file, verdict=verdict, signatures=one * 3)
    with refused(room.committee, "NotEnoughSignatures", given=1, needed=3):
        room.post(file, verdict=verdict, seats=(0,), signatures=one * 3)
    swapped = room.sign(verdict, (1,)) + room.sign(verdict, (0,)) + room.sign(verdict, (2,))
    with refused(room.committee, "BadSigner", seat=0):
        room.post(file, verdict=verdict, signatures=swapped)


def test_only_the_announced_list_of_signers_counts(room: Courtroom, license_id: int) -> None:
    file = leak_with_share(room, license_id)
    verdict = room.verdict(file)
    mine = operator_key("mallory")
    attacker = replace(room.operators[0], key=mine, signer=Account.from_key(mine).address)
    forged = [attacker.signer, *room.signers[1:]]
    signatures = attacker.sign(room.digest(verdict)) + room.sign(verdict, (1, 2))
    for signers in (forged, room.signers[:3], [*room.signers, attacker.signer], []):
        with refused(room.committee, "CommitteeMismatch", epoch=1):
            room.post(file, verdict=verdict, signers=signers, signatures=signatures)
    with refused(room.committee, "BitmapOutOfRange", bitmap=bits(0, 1, 5), seats=5):
        room.post(file, verdict=verdict, bitmap=bits(0, 1, 5))


# ---- pause


def test_a_pause_stops_posting_and_the_courts_clock(room: Courtroom, license_id: int) -> None:
    file = leak_with_share(room, license_id)
    start = room.now
    until = start + 2 * DAY
    with refused(room.court, "AccessManagedUnauthorized", caller=room.stranger.address):
        send(room.court.pausePosting, until, sender=room.stranger)
    with refused(room.court, "AccessManagedUnauthorized", caller=room.stranger.address):
        send(room.court.resumePosting, sender=room.stranger)
    with refused(room.court, "NotPaused"):
        send(room.court.resumePosting, sender=room.admin)
    receipt = room.court.pausePosting(until, sender=room.admin)
    with refused(room.court, "PostingIsPaused", until=until):
        room.post(file)
    room.wait_until(until)
    verdict = room.verdict(file)
    paused = until - receipt.timestamp
    room.wait_until(file.post_by + paused)  # the last second, moved by the pause
    receipt = room.post(file, verdict=verdict)
    assert room.court.clock() == receipt.timestamp - paused
    assert room.until(file) == receipt.timestamp - paused + room.params.challenge_window
    room.wait_until(receipt.timestamp + room.params.challenge_window)
    with refused(room.court, "TooEarly", notBefore=room.until(file)):
        room.call("finalize", file)
    room.past(file)
    room.call("finalize", file)


def test_pauses_last_seven_days_in_thirty_at_most(room: Courtroom, license_id: int) -> None:
    start = room.now
    room.wait_until(start)
    with refused(room.court, "PauseTooLong", until=start + 7 * DAY + 1, max=start + 7 * DAY):
        send(room.court.pausePosting, start + 7 * DAY + 1, sender=room.admin)
    with refused(room.court, "PauseTooLong", until=start):
        send(room.court.pausePosting, start, sender=room.admin)
    first = room.court.pausePosting(start + 3 * DAY, sender=room.admin).timestamp
    room.wait_until(first + DAY)
    ended = room.court.resumePosting(sender=room.admin).timestamp
    assert room.court.clock() == first
    room.wait_until(ended + 20 * DAY)
    with refused(room.court, "PauseTooLong", max=first + 7 * DAY):
        send(room.court.pausePosting, ended + 20 * DAY + HOUR, sender=room.admin)
    room.wait_until(first + 30 * DAY - 1)
    with refused(room.court, "PauseTooLong", max=first + 7 * DAY):
        send(room.court.pausePosting, first + 30 * DAY + HOUR, sender=room.admin)
    room.wait_until(first + 30 * DAY)
    again = room.court.pausePosting(first + 37 * DAY, sender=room.admin).timestamp
    room.wait_until(first + 40 * DAY)
    room.wait(1)
    assert room.paused() == (ended - first) + (first + 37 * DAY - again)
