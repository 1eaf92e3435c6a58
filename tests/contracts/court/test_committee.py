"""OracleCommittee: members, epochs, equivocation, slashing. Signature checks are in test_court_verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ape
import pytest
from courtroom import (
    DAY,
    ETHER,
    FAR,
    HOUR,
    NO_PROOF,
    CaseFile,
    Courtroom,
    Decision,
    Operator,
    bits,
    impersonated,
    operator_key,
    refused,
    send,
)
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

KEY = b"\x01" * 32
EXIT_DELAY = 90 * DAY
SECP256K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def equivocate(room: Courtroom, file: CaseFile, seat: int, *, sender: Any = None) -> Any:
    a = room.verdict(file, Decision.GUILTY)
    b = replace(a, decision=Decision.NOT_GUILTY)
    return send(
        room.committee.proveEquivocation,
        a.encoded(),
        room.sign(a, (seat,)),
        b.encoded(),
        room.sign(b, (seat,)),
        sender=sender or room.stranger,
    )


def by_signer(operators: list[Operator]) -> list[Operator]:
    return sorted(operators, key=lambda operator: int(operator.signer, 16))


def announce(room: Courtroom, operators: list[Operator], threshold: int, sender: Any = None) -> Any:
    signers = [operator.signer for operator in by_signer(operators)]
    return send(room.committee.announceEpoch, signers, threshold, sender=sender or room.admin)


# ---- members


def test_joining_stakes_from_the_free_balance(room: Courtroom, license_id: int, books: None) -> None:
    new = room.join("newcomer", 6 * ETHER)
    member = room.committee.memberOf(new.account)
    assert (member.role, member.signer, member.exitAt, bytes(member.encryptionKey)) == (1, new.signer, 0, KEY)
    assert room.stake(new.account) == 6 * ETHER
    assert room.committee.accountOfSigner(new.signer) == new.account
    assert room.committee.minStake(1) == 5 * ETHER
    assert room.committee.minStake(2) == 4 * ETHER


def test_joining_is_refused(room: Courtroom, license_id: int) -> None:
    join, mallory = room.committee.join, impersonated("mallory")
    signer = Account.from_key(operator_key("mallory")).address
    seated = room.operators[0]
    proof = room.possession(operator_key("mallory"), mallory)
    with refused(room.committee, "RoleMissing"):
        send(join, 0, signer, KEY, 5 * ETHER, "", *proof, sender=mallory)
    with refused(room.committee, "AlreadyMember", account=seated.account.address):
        send(join, 1, signer, KEY, 5 * ETHER, "", *proof, sender=seated.account)
    with refused(room.committee, "StakeBelowMinimum", given=5 * ETHER - 1, needed=5 * ETHER):
        send(join, 1, signer, KEY, 5 * ETHER - 1, "", *proof, sender=mallory)
    with refused(room.committee, "StakeBelowMinimum", given=4 * ETHER - 1, needed=4 * ETHER):
        send(join, 2, signer, KEY, 4 * ETHER - 1, "", *proof, sender=mallory)
    for taken in (seated.signer, "0x" + "00" * 20):
        with refused(room.committee, "SignerTaken", signer=taken):
            send(join, 1, taken, KEY, 5 * ETHER, "", *proof, sender=mallory)
    with refused(room.vault, "BalanceTooSmall", given=0, needed=5 * ETHER):
        send(join, 1, signer, KEY, 5 * ETHER, "", *proof, sender=mallory)


def test_nobody_joins_with_a_key_that_is_not_his(room: Courtroom, bare_room: Courtroom) -> None:
    """A known signer could be squatted, and its verdicts would answer to a stranger's stake."""
    mallory, victim = impersonated("mallory"), impersonated("victim")
    key = operator_key("victim")
    signer = Account.from_key(key).address
    room.vault.depositNative(mallory, sender=mallory, value=5 * ETHER)
    deadline, good = room.possession(key, mallory)
    r, s, v = good[:32], int.from_bytes(good[32:64], "big"), good[64]
    forged = {
        "none": (deadline, b""),
        "for another account": room.possession(key, victim),
        "by another key": room.possession(operator_key("mallory"), mallory),
        "another deadline": (deadline - 1, good),
        "another committee": bare_room.possession(key, mallory),
        "malleable": (deadline, r + (SECP256K1_N - s).to_bytes(32, "big") + bytes([55 - v])),
        "compact": (deadline, good[:64]),
    }
    assert room.committee.address != bare_room.committee.address
    for proof in forged.values():
        with refused(room.committee, "NotInPossession", signer=signer):
            send(room.committee.join, 1, signer, KEY, 5 * ETHER, "", *proof, sender=mallory)
    soon = room.now + HOUR
    proof = room.possession(key, mallory, soon)
    room.wait_until(soon + 1)
    with refused(room.committee, "TooLate", deadline=soon):
        send(room.committee.join, 1, signer, KEY, 5 * ETHER, "", *proof, sender=mallory)
    room.wait_until(soon)  # the last second
    room.committee.join(1, signer, KEY, 5 * ETHER, "", *proof, sender=mallory)
    assert room.committee.accountOfSigner(signer) == mallory


def test_an_account_that_is_its_own_signer_proves_nothing(room: Courtroom, license_id: int) -> None:
    plain = impersonated("plain")
    room.vault.depositNative(plain, sender=plain, value=5 * ETHER)
    room.committee.join(1, plain, KEY, 5 * ETHER, "", *NO_PROOF, sender=plain)
    assert room.committee.accountOfSigner(plain) == plain


def test_operators_prove_their_keys_by_the_eip712_digest(room: Courtroom) -> None:
    account, deadline = room.operators[0].account.address, 1_800_000_000
    message = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "SignerPossession": [
                {"name": "account", "type": "address"},
                {"name": "deadline", "type": "uint40"},
            ],
        },
        "primaryType": "SignerPossession",
        "domain": {
            "name": "ZhiYiChain OracleCommittee",
            "version": "1",
            "chainId": room.committee.provider.chain_id,
            "verifyingContract": room.committee.address,
        },
        "message": {"account": account, "deadline": deadline},
    }
    signable = encode_typed_data(full_message=message)
    expected = keccak(b"\x19" + signable.version + signable.header + signable.body)
    assert room.committee.possessionDigest(account, deadline) == expected


def test_a_member_must_have_a_key_to_seal_to(room: Courtroom, license_id: int) -> None:
    mallory, operator = impersonated("mallory"), room.operators[0]
    signer = Account.from_key(operator_key("mallory")).address
    with refused(room.committee, "EncryptionKeyMissing"):
        send(room.committee.join, 1, signer, bytes(32), 5 * ETHER, "", *NO_PROOF, sender=mallory)
    with refused(room.committee, "EncryptionKeyMissing"):
        send(room.committee.update, operator.signer, bytes(32), "", *NO_PROOF, sender=operator.account)


def test_a_new_signer_key_leaves_the_seat_of_the_old_one(room: Courtroom, license_id: int) -> None:
    operator = room.operators[0]
    key = operator_key("rotated")
    signer = Account.from_key(key).address
    with refused(room.committee, "SignerTaken", signer=room.operators[1].signer):
        send(room.committee.update, room.operators[1].signer, KEY, "", *NO_PROOF, sender=operator.account)
    with refused(room.committee, "NotInPossession", signer=signer):
        send(room.committee.update, signer, KEY, "", FAR, b"", sender=operator.account)
    proof = room.possession(key, operator.account)
    room.committee.update(signer, b"\x03" * 32, "https://new.example", *proof, sender=operator.account)
    assert room.committee.memberOf(operator.account).signer == signer
    assert room.committee.accountOfSigner(operator.signer) == operator.account
    file = room.open(license_id)
    room.post(file, Decision.INCONCLUSIVE)  # signed with the old key of seat 0
    room.past(file)
    room.call("finalize", file)
    room.call("claimFee", file, 0)
    assert room.free(operator.account) == room.fee(file) // 3
    with refused(room.committee, "NotAnOperator", signer=operator.signer):
        announce(room, room.operators, 3)
    announce(room, [replace(operator, signer=signer), *room.operators[1:]], 3)
    room.committee.update(operator.signer, KEY, "", *NO_PROOF, sender=operator.account)  # one's own old key


def test_strangers_have_no_membership_to_change(room: Courtroom, license_id: int) -> None:
    committee = room.committee
    for method, arguments in (
        (committee.update, (room.stranger, KEY, "", *NO_PROOF)),
        (committee.addStake, (ETHER,)),
        (committee.requestExit, ()),
        (committee.leave, ()),
    ):
        with refused(committee, "NotAMember", account=room.stranger.address):
            send(method, *arguments, sender=room.stranger)


def test_stake_is_added_from_the_free_balance(room: Courtroom, license_id: int, books: None) -> None:
    account = room.operators[0].account
    room.vault.depositNative(account, sender=account, value=ETHER)
    room.committee.addStake(ETHER, sender=account)
    assert room.stake(account) == 6 * ETHER


def test_leaving_takes_ninety_days_and_vacates_the_seat_at_once(
    room: Courtroom, license_id: int, books: None
) -> None:
    file = room.open(license_id)
    leaving = room.operators[1]
    with refused(room.committee, "ExitNotRequested", account=leaving.account.address):
        send(room.committee.leave, sender=leaving.account)
    receipt = room.committee.requestExit(sender=leaving.account)
    exit_at = receipt.timestamp + EXIT_DELAY
    assert room.committee.SeatsVacated(epoch=1, seats=bits(1)) in receipt.events
    assert room.committee.vacatedSeats(1) == bits(1)
    assert room.committee.memberOf(leaving.account).exitAt == exit_at
    with refused(room.committee, "SeatVacant", seats=bits(1)):
        room.post(file, Decision.NOT_GUILTY)
    room.post(file, Decision.NOT_GUILTY, seats=(0, 2, 3))
    for method, arguments in (
        (room.committee.requestExit, ()),
        (room.committee.addStake, (1,)),
        (room.committee.update, (leaving.signer, KEY, "", *NO_PROOF)),
    ):
        with refused(room.committee, "ExitPending", account=leaving.account.address, exitAt=exit_at):
            send(method, *arguments, sender=leaving.account)
    with refused(room.committee, "ExitPending", account=leaving.account.address):
        announce(room, room.operators, 3)
    room.wait_until(exit_at - 1)
    with refused(room.committee, "TooEarly", notBefore=exit_at):
        send(room.committee.leave, sender=leaving.account)
    room.wait_until(exit_at)
    room.committee.leave(sender=leaving.account)
    assert room.free(leaving.account) == 5 * ETHER
    assert room.stake(leaving.account) == 0
    assert room.committee.memberOf(leaving.account).role == 0
    assert room.committee.accountOfSigner(leaving.signer) == leaving.account  # never freed for others


def test_who_has_no_seat_leaves_without_vacating_one(room: Courtroom, license_id: int) -> None:
    new = room.join("newcomer", 6 * ETHER)
    receipt = room.committee.requestExit(sender=new.account)
    assert receipt.decode_logs(room.committee.SeatsVacated) == []
    assert room.committee.vacatedSeats(1) == 0


def test_every_case_ends_before_a_stake_leaves(room: Courtroom, license_id: int) -> None:
    p = room.params
    assert p.post_window + p.challenge_window + p.ruling_window + p.last_window + 28 * DAY < EXIT_DELAY


# ---- epochs


def test_the_first_epoch_is_active_at_once(bare_room: Courtroom) -> None:
    committee = bare_room.committee
    operators = by_signer([bare_room.join(f"first{i}") for i in range(3)])
    with refused(committee, "EpochNotActive", epoch=1):
        send(committee.activateEpoch, 1, sender=bare_room.stranger)
    receipt = announce(bare_room, operators, 3)
    signers = [operator.signer for operator in operators]
    assert committee.activeFrom(1) == receipt.timestamp
    assert committee.epochCounts(1) is False
    committee.activateEpoch(1, sender=bare_room.stranger)
    assert committee.currentEpoch() == 1
    assert committee.epochCounts(1) is True
    assert committee.threshold(1) == 3
    assert committee.signersOf(1) == signers
    assert bytes(committee.committeeHash(1)) == keccak(encode(["address[]", "uint8"], [signers, 3]))
    with refused(committee, "EpochNotActive", epoch=1):
        send(committee.activateEpoch, 1, sender=bare_room.stranger)


def test_only_the_oracle_admin_names_seats_and_canaries(room: Courtroom, license_id: int) -> None:
    with refused(room.committee, "AccessManagedUnauthorized", caller=room.stranger.address):
        announce(room, room.operators, 3, sender=room.stranger)
    with refused(room.committee, "AccessManagedUnauthorized", caller=room.stranger.address):
        send(room.committee.commitCanaries, 1, b"\x01" * 32, sender=room.stranger)
    receipt = room.committee.commitCanaries(1, b"\x01" * 32, sender=room.admin)
    assert receipt.events == [room.committee.CanariesCommitted(epoch=1, root=b"\x01" * 32)]
    assert room.committee.canariesCommittedAt(b"\x01" * 32) == receipt.timestamp
    with refused(room.committee, "CanariesKnown", root=b"\x01" * 32):
        send(room.committee.commitCanaries, 2, b"\x01" * 32, sender=room.admin)


@pytest.mark.parametrize(("threshold", "seats"), [(2, 5), (2, 3), (6, 5), (0, 5), (3, 6)])
def test_a_committee_decides_by_majority_of_at_least_three(
    room: Courtroom, license_id: int, threshold: int, seats: int
) -> None:
    operators = [*room.operators, *(room.join(f"spare{i}") for i in range(seats - 5))][:seats]
    with refused(room.committee, "ThresholdTooLow", threshold=threshold, signers=seats):
        announce(room, operators, threshold)


def test_seats_ascend_and_are_operators_with_stake(room: Courtroom, license_id: int) -> None:
    signers = room.signers
    announce_epoch = room.committee.announceEpoch
    for bad, seat in (
        ([signers[1], signers[0], *signers[2:]], 1),
        ([signers[0], *signers[:4]], 1),
        (["0x" + "00" * 20, *signers[:4]], 0),
    ):
        with refused(room.committee, "SignersNotAscending", seat=seat):
            send(announce_epoch, bad, 3, sender=room.admin)
    outsider = Account.from_key(operator_key("outsider")).address
    bad = sorted([*signers[:4], outsider], key=lambda a: int(a, 16))
    with refused(room.committee, "NotAnOperator", signer=outsider):
        send(announce_epoch, bad, 3, sender=room.admin)
    bad = sorted([*signers[:4], room.fingerprinter.address], key=lambda a: int(a, 16))
    with refused(room.committee, "NotAnOperator", signer=room.fingerprinter.address):
        send(announce_epoch, bad, 3, sender=room.admin)
    many = sorted(
        (Account.from_key(operator_key(f"many{i}")).address for i in range(32)), key=lambda a: int(a, 16)
    )
    with refused(room.committee, "TooManySigners", given=32, max=31):
        send(announce_epoch, many, 17, sender=room.admin)
    equivocate(room, room.open(license_id), 0)
    with refused(room.committee, "StakeBelowMinimum", given=0, needed=5 * ETHER):
        announce(room, room.operators, 3)


def test_at_most_a_third_of_the_seats_change(room: Courtroom, license_id: int) -> None:
    new = [room.join(f"third{i}") for i in range(2)]
    with refused(room.committee, "TooManySeatsChanged", changed=2, max=1):
        announce(room, [*room.operators[:3], *new], 3)
    with refused(room.committee, "TooManySeatsChanged", changed=2, max=1):
        announce(room, [*room.operators, *new], 4)
    with refused(room.committee, "TooManySeatsChanged", changed=2, max=1):
        announce(room, room.operators[:3], 3)
    announce(room, [*room.operators[:4], new[0]], 3)
    announce(room, room.operators[:4], 3)  # announced again: the later list counts
    announce(room, [*room.operators, new[1]], 4)
    assert len(room.committee.signersOf(2)) == 6


def test_seats_that_cannot_be_named_again_do_not_block_a_rotation(room: Courtroom, license_id: int) -> None:
    rekeyed, leaving, broke, *staying = room.operators
    key = operator_key("rekeyed")
    signer = Account.from_key(key).address
    proof = room.possession(key, rekeyed.account)
    room.committee.update(signer, KEY, "", *proof, sender=rekeyed.account)
    room.committee.requestExit(sender=leaving.account)
    equivocate(room, room.open(license_id), 2)
    assert room.stake(broke.account) == 0
    new = [room.join(f"relief{i}") for i in range(5)]
    with refused(room.committee, "TooManySeatsChanged", changed=2, max=1):
        announce(room, [*staying, *new], 4)  # a third of five, and one for each of the three
    with refused(room.committee, "TooManySeatsChanged", changed=2, max=1):
        announce(room, new[:3], 3)  # two seats that could stay would go
    announce(room, [*staying, replace(rekeyed, signer=signer), *new[:3]], 4)
    announce(room, [staying[0], *new[:4]], 3)
    receipt = announce(room, [*staying, new[0]], 3)
    assert room.committee.activeFrom(2) == receipt.timestamp + 14 * DAY  # with notice all the same
    room.wait(14 * DAY)
    room.committee.activateEpoch(2, sender=room.stranger)
    assert room.committee.vacatedSeats(2) == 0


def test_an_epoch_counts_on_no_longer_than_the_next_announcement_takes(
    room: Courtroom, quick_room: Courtroom
) -> None:
    assert room.committee.OVERLAP() == 14 * DAY
    committee = quick_room.committee
    assert committee.OVERLAP() == HOUR
    announce(quick_room, quick_room.operators, 3)
    quick_room.wait_until(committee.activeFrom(2))
    replaced = committee.activateEpoch(2, sender=quick_room.stranger).timestamp
    quick_room.wait_until(replaced + 1)
    announce(quick_room, quick_room.operators, 3)
    with refused(committee, "TooEarly", notBefore=replaced + 1 + HOUR):
        send(committee.activateEpoch, 3, sender=quick_room.stranger)
    quick_room.wait_until(replaced + HOUR - 1)
    ape.chain.mine()
    assert committee.epochCounts(1) is True
    quick_room.wait_until(replaced + HOUR)
    ape.chain.mine()
    assert committee.epochCounts(1) is False  # by its own time, before epoch 3 can begin


def test_the_committee_of_an_open_case_outlives_its_replacement(room: Courtroom, license_id: int) -> None:
    new = room.join("successor")
    receipt = announce(room, [*room.operators[:4], new], 3)
    active_from = receipt.timestamp + 14 * DAY
    assert room.committee.activeFrom(2) == active_from
    room.wait_until(active_from - 1)
    with refused(room.committee, "TooEarly", notBefore=active_from):
        send(room.committee.activateEpoch, 2, sender=room.stranger)
    file = room.open(license_id)
    room.wait_until(active_from)
    replaced = room.committee.activateEpoch(2, sender=room.stranger).timestamp
    assert file.epoch == 1
    assert room.open(license_id).epoch == 2
    verdict = room.verdict(file, Decision.NOT_GUILTY)
    room.wait_until(replaced + 14 * DAY - 1)
    digest, signatures = room.digest(verdict), room.sign(verdict, (0, 1, 2))
    arguments = (1, digest, room.signers, bits(0, 1, 2), signatures)
    assert room.committee.verify(*arguments) == 3
    room.post(file, verdict=verdict) if room.now <= file.post_by else None
    room.wait_until(replaced + 14 * DAY)
    with refused(room.committee, "EpochNotActive", epoch=1):
        send(room.committee.verify, *arguments, sender=room.stranger)


def test_the_epoch_before_the_last_counts_no_longer(room: Courtroom, license_id: int) -> None:
    for epoch in (2, 3):
        announce(room, room.operators, 3)
        room.wait(14 * DAY)
        room.committee.activateEpoch(epoch, sender=room.stranger)
    assert [room.committee.epochCounts(epoch) for epoch in (1, 2, 3, 4)] == [False, True, True, False]


def test_a_member_that_leaves_before_its_epoch_begins_has_no_seat(room: Courtroom, license_id: int) -> None:
    announce(room, room.operators, 3)
    room.committee.requestExit(sender=room.operators[2].account)
    room.wait(14 * DAY)
    receipt = room.committee.activateEpoch(2, sender=room.stranger)
    assert room.committee.SeatsVacated(epoch=2, seats=bits(2)) in receipt.events
    assert room.committee.vacatedSeats(2) == bits(2)


def test_leaving_vacates_the_seat_in_the_epoch_before_too(room: Courtroom, license_id: int) -> None:
    announce(room, room.operators, 3)
    room.wait(14 * DAY)
    room.committee.activateEpoch(2, sender=room.stranger)
    room.committee.requestExit(sender=room.operators[4].account)
    assert [room.committee.vacatedSeats(epoch) for epoch in (1, 2)] == [bits(4), bits(4)]


def test_no_such_seat(room: Courtroom, license_id: int) -> None:
    assert room.committee.accountAt(1, 4) == room.operators[4].account
    with refused(room.committee, "NoSuchSeat", epoch=1, seat=5):
        send(room.committee.accountAt, 1, 5, sender=room.stranger)


# ---- equivocation


def test_two_verdicts_of_one_operator_cost_its_stake_and_its_seat(
    room: Courtroom, license_id: int, books: None
) -> None:
    before = room.money()
    file = room.open(license_id)
    receipt = equivocate(room, file, 2)
    account = room.operators[2].account
    assert (
        room.committee.Equivocated(account=account.address, caseId=file.id, slashed=5 * ETHER)
        in receipt.events
    )
    after = room.money()
    assert {k: after[k] - before[k] for k in before if after[k] != before[k]} == {
        "treasury": 5 * ETHER,
        "stakes": -5 * ETHER,
    }
    assert room.committee.vacatedSeats(1) == bits(2)
    with refused(room.committee, "NotEquivocation"):
        equivocate(room, file, 2)  # once a case


def test_what_is_no_equivocation(room: Courtroom, license_id: int) -> None:
    file, other = room.open(license_id), room.open(license_id)
    a = room.verdict(file, Decision.GUILTY)
    prove = room.committee.proveEquivocation
    outsider = replace(room.operators[0], key=operator_key("nobody"))
    contradiction = replace(a, decision=Decision.NOT_GUILTY)
    pairs = {
        "the same verdict twice": (a, room.sign(a, (0,)), a, room.sign(a, (0,))),
        "another bucket": (
            a,
            room.sign(a, (0,)),
            replace(a, bucket=40),
            room.sign(replace(a, bucket=40), (0,)),
        ),
        "another case": (
            a,
            room.sign(a, (0,)),
            room.verdict(other, Decision.NOT_GUILTY),
            room.sign(room.verdict(other, Decision.NOT_GUILTY), (0,)),
        ),
        "two operators": (a, room.sign(a, (0,)), contradiction, room.sign(contradiction, (1,))),
        "a forged second": (a, room.sign(a, (0,)), contradiction, room.sign(a, (0,))),
        "no signature": (a, b"", contradiction, b""),
        "an outsider": (
            a,
            outsider.sign(room.digest(a)),
            contradiction,
            outsider.sign(room.digest(contradiction)),
        ),
    }
    for verdict_a, signature_a, verdict_b, signature_b in pairs.values():
        with refused(room.committee, "NotEquivocation"):
            send(
                prove,
                verdict_a.encoded(),
                signature_a,
                verdict_b.encoded(),
                signature_b,
                sender=room.stranger,
            )


def test_another_license_in_one_case_is_equivocation(room: Courtroom, license_id: int) -> None:
    a = room.verdict(room.open(license_id))
    b = replace(a, license_id=license_id + 1)
    room.committee.proveEquivocation(
        a.encoded(), room.sign(a, (1,)), b.encoded(), room.sign(b, (1,)), sender=room.stranger
    )
    assert room.stake(room.operators[1].account) == 0


def test_the_court_alone_slashes_signers(room: Courtroom, license_id: int) -> None:
    with refused(room.committee, "NotAPeer", caller=room.admin.address):
        send(room.committee.slashSigners, b"\x01" * 32, 1, 1, ETHER, room.admin, sender=room.admin)
