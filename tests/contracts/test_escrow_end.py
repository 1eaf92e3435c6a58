"""How an order ends: reveal, complaint, range claim, settlement, refund; the prepare fee; the bond afterwards."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import ape
import pytest
from eth_utils import keccak
from market import (
    CHUNK,
    DAY,
    ETHER,
    NATIVE,
    Model,
    Order,
    Parcel,
    Review,
    State,
    System,
    isolated,
    make_parcel,
    refuses,
    reverts,
    sha,
    sign_digest,
    terms,
)

REQUEST = b"\x4e" * 32
REASON = b"\x05" * 32


@pytest.fixture
def cheated(system: System, model: Model) -> tuple[Order, Parcel]:
    """Revealed; chunk 2 decrypts to zeros."""
    parcel = make_parcel(wrong=2)
    order = system.make_order(model, parcel)
    system.open(order)
    system.reveal(order, parcel)
    return order, parcel


@pytest.fixture
def revealed(system: System, order: Order, parcel: Parcel) -> Order:
    system.open(order)
    system.reveal(order, parcel)
    return order


def since(system: System, order: Order) -> int:
    return int(system.escrow.orderState(order.delivery.licenseId)[1])


def stake_of(system: System) -> tuple[int, int]:
    stake = system.escrow.stakeOf(system.fingerprinter)
    return stake.staked, stake.locked


# ---------------------------------------------------------------- reveal


def test_reveal_publishes_the_key(system: System, order: Order, parcel: Parcel) -> None:
    system.open(order)
    receipt = system.reveal(order, parcel, sender=system.stranger)
    (event,) = receipt.decode_logs(system.escrow.KeyRevealed)
    assert (event.licenseId, bytes(event.key)) == (order.delivery.licenseId, parcel.key)
    state, at, stored = system.escrow.orderState(order.delivery.licenseId)
    assert (state, bytes(stored)) == (State.REVEALED, system.order_hash(order)[:26])
    assert at == ape.chain.blocks[receipt.block_number].timestamp


def test_reveal_counts_to_the_last_second_of_the_grace(system: System, order: Order, parcel: Parcel) -> None:
    system.open(order)
    deadline = since(system, order) + order.delivery.revealWindow + order.delivery.grace
    with isolated():
        system.go_to(deadline + 1)
        with reverts(system.escrow.TooLate, values={"deadline": deadline}):
            system.reveal(order, parcel)
    system.go_to(deadline)
    system.reveal(order, parcel)


def test_reveal_needs_the_key_that_was_committed(system: System, order: Order, parcel: Parcel) -> None:
    system.open(order)
    with reverts(system.escrow.WrongKey, values={"needed": order.delivery.keyCommit}):
        system.reveal(order, replace(parcel, key=sha(b"other")))


def test_reveal_needs_an_open_order_and_its_two_halves(system: System, order: Order, parcel: Parcel) -> None:
    with reverts(system.escrow.WrongState, values={"given": State.NONE, "needed": State.OPEN}):
        system.reveal(order, parcel)
    system.open(order)
    with reverts(system.escrow.WrongOrder):
        system.reveal(order.with_(price=order.sale.price + 1), parcel)
    with reverts(system.escrow.WrongOrder):
        system.reveal(order.with_(grace=order.delivery.grace + 1), parcel)
    system.reveal(order, parcel)
    with reverts(system.escrow.WrongState, values={"given": State.REVEALED}):
        system.reveal(order, parcel)


# ---------------------------------------------------------------- complaint


def test_a_wrong_chunk_refunds_and_takes_the_deposit(system: System, cheated: tuple[Order, Parcel]) -> None:
    order, parcel = cheated
    staked, locked = stake_of(system)
    held = system.escrow.balance
    receipt = system.escrow.complain(order.as_tuple(), *parcel.proof(2), sender=system.buyer)
    assert receipt.decode_logs(system.escrow.ChunkProvenWrong)[0].index == 2
    (event,) = receipt.decode_logs(system.escrow.OrderRefunded)
    paid = order.sale.price + order.sale.bond
    assert (event.buyer, event.reason, event.refund, event.penalty) == (
        system.buyer,
        2,
        paid,
        order.delivery.deposit,
    )
    assert system.state(order) == State.REFUNDED
    assert system.free(system.buyer) == paid + order.delivery.deposit
    assert stake_of(system) == (staked - order.delivery.deposit, locked - order.delivery.deposit)
    assert system.escrow.balance == held
    assert system.licenses.balanceOf(system.buyer) == 0
    with reverts(system.escrow.WrongState):
        system.escrow.complain(order.as_tuple(), *parcel.proof(2), sender=system.buyer)


def test_a_wrong_chunk_of_an_erc20_order(system: System, model: Model, token: Any) -> None:
    parcel = make_parcel(wrong=0)
    order = system.make_order(model, parcel, token=token.address)
    system.open(order)
    system.reveal(order, parcel)
    system.escrow.complain(order.as_tuple(), *parcel.proof(0), sender=system.buyer)
    assert system.free(system.buyer, token.address) == order.sale.price + order.sale.bond
    assert system.free(system.buyer) == order.delivery.deposit


@pytest.mark.parametrize("index", [0, 1, 4])
def test_an_honest_chunk_is_no_complaint(system: System, cheated: tuple[Order, Parcel], index: int) -> None:
    order, parcel = cheated
    with reverts(system.escrow.ChunkIsRight, values={"index": index}):
        system.escrow.complain(order.as_tuple(), *parcel.proof(index), sender=system.buyer)


def test_a_bent_proof_is_refused(system: System, cheated: tuple[Order, Parcel]) -> None:
    order, parcel = cheated
    key, index, cipher, leaf, path = parcel.proof(2)
    not_in = "NotInDelivery(bytes32,bytes32)"
    for error, proof in (
        ("WrongKey(bytes32,bytes32)", (sha(b"key"), index, cipher, leaf, path)),
        (not_in, (key, 1, cipher, leaf, path)),
        ("IndexOutOfRange(uint256,uint256)", (key, 5, cipher, leaf, path)),
        (not_in, (key, index, bytes([cipher[0] ^ 1]) + cipher[1:], leaf, path)),
        (not_in, (key, index, cipher[:-1], leaf, path)),
        ("WrongChunkLength(uint256,uint256)", (key, index, b"", leaf, path)),
        ("WrongChunkLength(uint256,uint256)", (key, index, bytes(CHUNK + 1), leaf, path)),
        (not_in, (key, index, cipher, sha(b"leaf"), path)),
        (not_in, (key, index, cipher, leaf, [sha(b"node"), *path[1:]])),
        ("WrongPathLength(uint256,uint256)", (key, index, cipher, leaf, path[:-1])),
        ("WrongPathLength(uint256,uint256)", (key, index, cipher, leaf, [*path, path[0]])),
    ):
        with refuses(error):
            system.escrow.complain(order.as_tuple(), *proof, sender=system.buyer)
    assert system.state(order) == State.REVEALED


def test_a_complaint_is_the_buyers_and_in_time(system: System, cheated: tuple[Order, Parcel]) -> None:
    order, parcel = cheated
    with reverts(system.escrow.NotTheBuyer):
        system.escrow.complain(order.as_tuple(), *parcel.proof(2), sender=system.stranger)
    with reverts(system.escrow.WrongOrder):
        lie = order.with_(deposit=10 * ETHER)
        system.escrow.complain(lie.as_tuple(), *parcel.proof(2), sender=system.buyer)
    deadline = since(system, order) + order.delivery.complaintWindow
    with isolated():
        system.go_to(deadline + 1)
        with reverts(system.escrow.TooLate, values={"deadline": deadline}):
            system.escrow.complain(order.as_tuple(), *parcel.proof(2), sender=system.buyer)
    system.go_to(deadline)
    system.escrow.complain(order.as_tuple(), *parcel.proof(2), sender=system.buyer)


def test_no_complaint_before_the_key_is_out(system: System, model: Model) -> None:
    parcel = make_parcel(wrong=2)
    order = system.make_order(model, parcel)
    system.open(order)
    with reverts(system.escrow.WrongState, values={"given": State.OPEN, "needed": State.REVEALED}):
        system.escrow.complain(order.as_tuple(), *parcel.proof(2), sender=system.buyer)


def test_a_refund_goes_to_a_buyer_that_takes_no_coins(system: System, model: Model, project: Any) -> None:
    """Credited, not sent: a wallet that refuses coins blocks nobody, and takes them when it wants."""
    wallet = system.deployer.deploy(project.TestWallet, system.buyer, value=ETHER)
    parcel = make_parcel(wrong=1)
    order = system.make_order(model, parcel, buyer=wallet.address)
    call = system.escrow.open.encode_input(order.as_tuple(), *system.signatures(order))
    wallet.execute(system.escrow, order.sale.price + order.sale.bond, call, sender=system.buyer)
    system.reveal(order, parcel)
    call = system.escrow.complain.encode_input(order.as_tuple(), *parcel.proof(1))
    wallet.execute(system.escrow, 0, call, sender=system.buyer)
    owed = system.free(wallet)
    assert owed == order.sale.price + order.sale.bond + order.delivery.deposit
    withdraw = system.escrow.withdraw.encode_input(NATIVE, owed, wallet)
    with refuses("TransferFailed(address,address,uint256)"):
        wallet.execute(system.escrow, 0, withdraw, sender=system.buyer)
    wallet.setOpen(True, sender=system.buyer)
    wallet.execute(system.escrow, 0, withdraw, sender=system.buyer)
    assert system.free(wallet) == 0


# ---------------------------------------------------------------- settle, accept, refund


def test_settle_mints_pays_and_frees(system: System, model: Model, revealed: Order) -> None:
    order, license_id = revealed, revealed.delivery.licenseId
    staked, locked = stake_of(system)
    held, gross = system.escrow.balance, system.royalties.gross(model.id, NATIVE)
    pool = system.pool(model)
    receipt = system.settle(order)
    assert bytes(receipt.decode_logs(system.escrow.OrderSettled)[0].orderHash) == system.order_hash(order)
    assert receipt.decode_logs(system.escrow.RoyaltyPaid)[0].amount == order.sale.price
    assert system.state(order) == State.SETTLED
    assert system.licenses.ownerOf(license_id) == system.buyer
    assert system.royalties.gross(model.id, NATIVE) == gross + order.sale.price
    assert system.pool(model) == pool + order.sale.price
    assert tuple(system.escrow.bondOf(license_id)) == (order.sale.bond, order.sale.price, 0, 0, 0)
    assert stake_of(system) == (staked, locked - order.delivery.deposit)
    assert system.escrow.balance == held
    assert system.free(system.buyer) == 0
    with reverts(system.escrow.WrongState):
        system.escrow.settle(order.as_tuple(), sender=system.stranger)


def test_settle_waits_for_the_complaint_window(system: System, revealed: Order) -> None:
    end = since(system, revealed) + revealed.delivery.complaintWindow
    with isolated():
        system.go_to(end)
        with reverts(system.escrow.TooEarly, values={"notBefore": end + 1}):
            system.escrow.settle(revealed.as_tuple(), sender=system.stranger)
    system.go_to(end + 1)
    system.escrow.settle(revealed.as_tuple(), sender=system.stranger)


def test_accept_ends_the_window_and_is_the_buyers(system: System, revealed: Order) -> None:
    with reverts(system.escrow.NotTheBuyer):
        system.escrow.accept(revealed.as_tuple(), sender=system.creator)
    system.escrow.accept(revealed.as_tuple(), sender=system.buyer)
    assert system.state(revealed) == State.SETTLED
    assert system.licenses.isActive(revealed.delivery.licenseId)


def test_settle_and_accept_need_the_key(system: System, order: Order) -> None:
    system.open(order)
    system.pass_time(30 * DAY)
    for end in (system.escrow.settle, system.escrow.accept):
        with reverts(system.escrow.WrongState, values={"given": State.OPEN, "needed": State.REVEALED}):
            end(order.as_tuple(), sender=system.buyer)


def test_nothing_from_outside_blocks_settlement(
    system: System, model: Model, order: Order, parcel: Parcel, token: Any
) -> None:
    """Everything that `open` checks is turned against the order after it was opened."""
    system.models.approve(system.stranger, model.id, sender=system.creator)
    system.open(order)
    system.reveal(order, parcel)
    system.models.delist(model.id, system.now // DAY + 9, REASON, sender=system.regulator)
    system.models.freeze(model.id, system.now + 20 * DAY, REASON, sender=system.regulator)
    system.models.setPreferences(model.id, 0xFFF, REASON, sender=system.creator)
    system.models.transferFrom(system.creator, system.stranger, model.id, sender=system.stranger)
    system.escrow.cancelAll(sender=system.creator)
    system.escrow.pauseOpening(system.now + 6 * DAY, sender=system.pauser)
    system.committee.requestExit(sender=system.fingerprinter)
    committee = system.as_contract("OracleCommittee")
    staked, locked = stake_of(system)
    system.escrow.slashStake(system.fingerprinter, staked, system.treasury, sender=committee)
    assert stake_of(system) == (locked, locked)
    system.settle(order)
    assert system.state(order) == State.SETTLED
    assert stake_of(system) == (locked, 0)


def test_no_reveal_refunds_and_takes_a_tenth(system: System, order: Order, parcel: Parcel) -> None:
    system.open(order)
    staked, _ = stake_of(system)
    end = since(system, order) + order.delivery.revealWindow + order.delivery.grace
    with isolated():
        system.go_to(end)
        with reverts(system.escrow.TooEarly, values={"notBefore": end + 1}):
            system.escrow.refund(order.as_tuple(), sender=system.stranger)
    system.go_to(end + 1)
    receipt = system.escrow.refund(order.as_tuple(), sender=system.stranger)
    paid, penalty = order.sale.price + order.sale.bond, order.delivery.deposit // 10
    (event,) = receipt.decode_logs(system.escrow.OrderRefunded)
    assert (event.reason, event.refund, event.penalty) == (1, paid, penalty)
    assert system.free(system.buyer) == paid + penalty
    assert stake_of(system) == (staked - penalty, 0)
    with reverts(system.escrow.WrongState):
        system.escrow.refund(order.as_tuple(), sender=system.stranger)
    with reverts(system.escrow.WrongState):
        system.reveal(order, parcel)


def test_refund_needs_an_open_order(system: System, revealed: Order) -> None:
    system.pass_time(30 * DAY)
    with reverts(system.escrow.WrongState, values={"given": State.REVEALED, "needed": State.OPEN}):
        system.escrow.refund(revealed.as_tuple(), sender=system.buyer)


def test_refund_needs_the_stored_order(system: System, order: Order) -> None:
    system.open(order)
    system.pass_time(DAY)
    with reverts(system.escrow.WrongOrder):
        system.escrow.refund(order.with_(price=5 * ETHER).as_tuple(), sender=system.buyer)
    with reverts(system.escrow.WrongOrder):
        system.escrow.checkOrder(order.with_(price=5 * ETHER).as_tuple())


# ---------------------------------------------------------------- range claim


@pytest.fixture
def operators(system: System, model: Model, accounts: Any) -> list[Any]:
    """Three operators, seated in the first epoch, in the order of their seats."""
    people = [accounts.generate_test_account() for _ in range(3)]
    for person in people:
        ape.chain.provider.set_balance(person.address, 100 * ETHER)
        system.stake(person, 6 * ETHER, role=1)
    people.sort(key=lambda person: int(person.address, 16))
    system.committee.announceEpoch(people, 2 + 1, sender=system.deployer)
    system.committee.activateEpoch(1, sender=system.stranger)
    return people


@pytest.fixture
def claimed(system: System, operators: list[Any], revealed: Order) -> Order:
    system.escrow.rangeClaim(
        revealed.as_tuple(), bytes(32), sender=system.buyer, value=revealed.sale.price // 10
    )
    return revealed


def answer(
    system: System,
    order: Order,
    operators: list[Any],
    upheld: bool,
    *,
    epoch: int = 1,
    deadline: int = 2**40 - 1,
) -> Any:
    arguments = (order.delivery.licenseId, system.order_hash(order), upheld, epoch, deadline)
    digest = bytes(system.escrow.rangeVerdictDigest(*arguments))
    signatures = b"".join(sign_digest(digest, person) for person in operators)
    return system.escrow.resolveRange(
        order.as_tuple(), upheld, epoch, deadline, operators, 0b111, signatures, sender=system.stranger
    )


def test_a_range_verdict_is_eip712(system: System) -> None:
    from eth_account.messages import encode_typed_data

    kinds = {
        "licenseId": "uint256",
        "orderHash": "bytes32",
        "upheld": "bool",
        "epoch": "uint64",
        "deadline": "uint40",
    }
    message = encode_typed_data(
        {
            "name": "ZhiYiChain LicenseEscrow",
            "version": "1",
            "chainId": ape.chain.chain_id,
            "verifyingContract": system.escrow.address,
        },
        {"RangeVerdict": [{"name": name, "type": kind} for name, kind in kinds.items()]},
        {"licenseId": 5, "orderHash": REASON, "upheld": True, "epoch": 3, "deadline": 77},
    )
    expected = keccak(b"\x19" + message.version + message.header + message.body)
    assert bytes(system.escrow.rangeVerdictDigest(5, REASON, True, 3, 77)) == expected


def test_a_range_claim_carries_a_tenth_of_the_price(
    system: System, operators: list[Any], revealed: Order
) -> None:
    bond = revealed.sale.price // 10
    with reverts(system.escrow.PaymentMismatch, values={"given": bond - 1, "needed": bond}):
        system.escrow.rangeClaim(revealed.as_tuple(), bytes(32), sender=system.buyer, value=bond - 1)
    with reverts(system.escrow.NotTheBuyer):
        system.escrow.rangeClaim(revealed.as_tuple(), bytes(32), sender=system.stranger, value=bond)
    receipt = system.escrow.rangeClaim(revealed.as_tuple(), REASON, sender=system.buyer, value=bond)
    (event,) = receipt.decode_logs(system.escrow.RangeClaimed)
    assert (event.buyer, event.bond, event.epoch) == (system.buyer, bond, 1)
    assert bytes(event.evidenceDigest) == REASON
    assert system.state(revealed) == State.RANGE_CHECK
    assert system.escrow.rangeClaimEpoch(revealed.delivery.licenseId) == 1
    for end in (system.escrow.settle, system.escrow.accept):
        with reverts(system.escrow.WrongState):
            end(revealed.as_tuple(), sender=system.buyer)


def test_a_range_claim_is_in_time(system: System, revealed: Order) -> None:
    system.go_to(since(system, revealed) + revealed.delivery.complaintWindow + 1)
    with reverts(system.escrow.TooLate):
        system.escrow.rangeClaim(
            revealed.as_tuple(), bytes(32), sender=system.buyer, value=revealed.sale.price // 10
        )


def test_an_upheld_range_claim_refunds(system: System, operators: list[Any], claimed: Order) -> None:
    staked, _ = stake_of(system)
    receipt = answer(system, claimed, operators, True)
    assert receipt.decode_logs(system.escrow.OrderRefunded)[0].reason == 3
    paid, bond = claimed.sale.price + claimed.sale.bond, claimed.sale.price // 10
    assert system.free(system.buyer) == paid + claimed.delivery.deposit + bond
    assert stake_of(system) == (staked - claimed.delivery.deposit, 0)
    assert system.state(claimed) == State.REFUNDED


def test_a_rejected_range_claim_settles(system: System, operators: list[Any], claimed: Order) -> None:
    before = system.free(system.treasury)
    receipt = answer(system, claimed, operators, False)
    assert len(receipt.decode_logs(system.escrow.RangeClaimRejected)) == 1
    assert system.state(claimed) == State.SETTLED
    assert system.licenses.isActive(claimed.delivery.licenseId)
    assert system.free(system.treasury) == before + claimed.sale.price // 10
    assert system.free(system.buyer) == 0


def test_an_unanswered_range_claim_refunds_without_penalty(
    system: System, operators: list[Any], claimed: Order
) -> None:
    staked, _ = stake_of(system)
    end = since(system, claimed) + 7 * DAY
    with isolated():
        system.go_to(end)
        with reverts(system.escrow.TooEarly):
            system.escrow.refund(claimed.as_tuple(), sender=system.stranger)
        system.go_to(end)
        answer(system, claimed, operators, True)
    system.go_to(end + 1)
    with isolated(), reverts(system.escrow.TooLate, values={"deadline": end}):
        answer(system, claimed, operators, True)
    receipt = system.escrow.refund(claimed.as_tuple(), sender=system.stranger)
    (event,) = receipt.decode_logs(system.escrow.OrderRefunded)
    assert (event.reason, event.penalty) == (4, 0)
    assert system.free(system.buyer) == claimed.sale.price + claimed.sale.bond + claimed.sale.price // 10
    assert stake_of(system) == (staked, 0)


def test_only_the_committee_of_the_claim_answers(
    system: System, operators: list[Any], claimed: Order
) -> None:
    with reverts(system.escrow.WrongEpoch, values={"given": 2, "needed": 1}):
        answer(system, claimed, operators, True, epoch=2)
    with reverts(system.escrow.TooLate, values={"deadline": 1}):
        answer(system, claimed, operators, True, deadline=1)
    impostors = [*operators[:2], system.stranger]
    with reverts(system.committee.CommitteeMismatch, values={"epoch": 1}):
        answer(system, claimed, impostors, True)
    arguments = (claimed.delivery.licenseId, system.order_hash(claimed), True, 1, 2**40 - 1)
    digest = bytes(system.escrow.rangeVerdictDigest(*arguments))
    for_guilt = b"".join(sign_digest(digest, person) for person in operators)
    with reverts(system.committee.BadSigner, values={"seat": 0}):  # signed for the other answer
        system.escrow.resolveRange(
            claimed.as_tuple(), False, 1, 2**40 - 1, operators, 0b111, for_guilt, sender=system.stranger
        )
    with reverts(system.committee.NotEnoughSignatures, values={"given": 2, "needed": 3}):
        system.escrow.resolveRange(
            claimed.as_tuple(), True, 1, 2**40 - 1, operators, 0b011, for_guilt[:130], sender=system.stranger
        )
    assert system.state(claimed) == State.RANGE_CHECK


def test_an_answer_needs_a_claim(system: System, operators: list[Any], revealed: Order) -> None:
    with reverts(system.escrow.WrongState, values={"needed": State.RANGE_CHECK}):
        answer(system, revealed, operators, True)


def test_an_erc20_range_claim_that_nobody_answers(
    system: System, model: Model, operators: list[Any], parcel: Parcel, token: Any
) -> None:
    order = system.make_order(model, parcel, token=token.address)
    system.open(order)
    system.reveal(order, parcel)
    system.escrow.rangeClaim(order.as_tuple(), bytes(32), sender=system.buyer)
    stake, held = stake_of(system), token.balanceOf(system.escrow)
    system.go_to(since(system, order) + 7 * DAY + 1)
    system.escrow.refund(order.as_tuple(), sender=system.stranger)
    paid = order.sale.price + order.sale.bond + order.sale.price // 10
    assert (system.free(system.buyer, token.address), system.free(system.buyer)) == (paid, 0)
    assert stake_of(system) == (stake[0], 0)
    assert token.balanceOf(system.escrow) == held


def test_an_erc20_range_claim(
    system: System, model: Model, operators: list[Any], parcel: Parcel, token: Any
) -> None:
    order = system.make_order(model, parcel, token=token.address)
    system.open(order)
    system.reveal(order, parcel)
    system.escrow.rangeClaim(order.as_tuple(), bytes(32), sender=system.buyer)
    answer(system, order, operators, True)
    assert system.free(system.buyer, token.address) == order.sale.price * 11 // 10 + order.sale.bond


# ---------------------------------------------------------------- prepare fee


def pay_fee(system: System, fee: int, *, days: int = 3, **changes: Any) -> int:
    by = system.now + days * DAY
    fingerprinter = changes.get("fingerprinter", system.fingerprinter)
    token = changes.get("token", NATIVE)
    model_id = changes.get("model_id", 1)
    value = fee if token == NATIVE else 0
    system.escrow.payPrepareFee(
        REQUEST, model_id, fingerprinter, token, fee, by, sender=system.buyer, value=value
    )
    return by


def test_a_prepare_fee_is_credited_against_the_price(system: System, model: Model, parcel: Parcel) -> None:
    order = system.make_order(model, parcel, requestHash=REQUEST)
    fee = order.sale.price // 20
    by = pay_fee(system, fee)
    paid_at = ape.chain.blocks.head.timestamp
    expected = (system.fingerprinter.address, fee, by, 0, model.id, paid_at)
    assert tuple(system.escrow.prepareFeeOf(system.buyer, REQUEST)) == expected
    due = order.sale.price + order.sale.bond - fee
    assert system.escrow.quoteOpen(order.as_tuple()) == due
    receipt = system.open(order, value=due)
    assert receipt.decode_logs(system.escrow.PrepareFeeCredited)[0].fee == fee
    with reverts(system.escrow.RequestUnknown):
        system.escrow.reclaimPrepareFee(REQUEST, sender=system.buyer)
    system.reveal(order, parcel)
    system.settle(order)
    assert system.royalties.gross(model.id, NATIVE) == order.sale.price


def test_a_prepare_fee_comes_back_with_the_refund(system: System, model: Model, parcel: Parcel) -> None:
    order = system.make_order(model, parcel, requestHash=REQUEST)
    fee = order.sale.price // 20
    pay_fee(system, fee)
    system.open(order, value=order.sale.price + order.sale.bond - fee)
    system.pass_time(DAY)
    system.escrow.refund(order.as_tuple(), sender=system.stranger)
    paid = order.sale.price + order.sale.bond
    assert system.free(system.buyer) == paid + order.delivery.deposit // 10


def test_a_prepare_fee_is_bounded_and_once(system: System, model: Model, parcel: Parcel) -> None:
    order = system.make_order(model, parcel, requestHash=REQUEST)
    fee = order.sale.price // 20 + 1
    pay_fee(system, fee)
    with reverts(system.escrow.FeeTooLarge, values={"given": fee, "max": fee - 1}):
        system.open(order)
    with reverts(system.escrow.RequestTaken, values={"requestHash": REQUEST}):
        pay_fee(system, 1)


def test_a_prepare_fee_is_well_formed(system: System) -> None:
    call = system.escrow.payPrepareFee
    who, fingerprinter = system.buyer, system.fingerprinter
    with reverts(system.escrow.NothingToDo):
        call(REQUEST, 1, fingerprinter, NATIVE, 0, system.now + DAY, sender=who)
    with reverts(system.escrow.NothingToDo):
        call(bytes(32), 1, fingerprinter, NATIVE, 1, system.now + DAY, sender=who, value=1)
    with reverts(system.escrow.PaymentMismatch):
        call(REQUEST, 1, fingerprinter, NATIVE, 2, system.now + DAY, sender=who, value=1)
    for by in (system.now - 1, system.now + 31 * DAY):
        with reverts(system.escrow.WindowOutOfRange):
            call(REQUEST, 1, fingerprinter, NATIVE, 1, by, sender=who, value=1)
    with reverts(system.escrow.TokenNotListed):
        call(REQUEST, 1, fingerprinter, system.models, 1, system.now + DAY, sender=who)


@pytest.mark.parametrize("other", ["buyer", "fingerprinter", "token"])
def test_a_request_serves_its_own_order_only(
    system: System, model: Model, parcel: Parcel, token: Any, accounts: Any, other: str
) -> None:
    pay_fee(system, 100)
    if other == "buyer":
        order = system.make_order(model, parcel, requestHash=REQUEST, buyer=system.stranger.address)
        sender = system.stranger
    elif other == "fingerprinter":
        order = system.make_order(model, parcel, requestHash=REQUEST, fingerprinter=system.stranger.address)
        sender = system.buyer
    else:
        order = system.make_order(model, parcel, requestHash=REQUEST, token=token.address)
        sender = system.buyer
    digest = system.digest(order)
    fingerprinter = system.stranger if other == "fingerprinter" else system.fingerprinter
    pair = sign_digest(digest, system.creator), sign_digest(digest, fingerprinter)
    value = 0 if other == "token" else order.sale.price + order.sale.bond - 100
    with reverts(system.escrow.RequestUnknown, values={"requestHash": REQUEST}):
        system.escrow.open(order.as_tuple(), *pair, sender=sender, value=value)


def test_an_unused_prepare_fee_is_reclaimed_after_its_time(system: System, token: Any) -> None:
    by = pay_fee(system, 100, token=token)
    with reverts(system.escrow.RequestUnknown):
        system.escrow.reclaimPrepareFee(REQUEST, sender=system.stranger)
    with isolated():
        system.go_to(by)
        with reverts(system.escrow.TooEarly, values={"notBefore": by + 1}):
            system.escrow.reclaimPrepareFee(REQUEST, sender=system.buyer)
    system.go_to(by + 1)
    system.escrow.reclaimPrepareFee(REQUEST, sender=system.buyer)
    assert system.free(system.buyer, token.address) == 100
    with reverts(system.escrow.RequestUnknown):
        system.escrow.reclaimPrepareFee(REQUEST, sender=system.buyer)


def test_an_order_that_the_buyer_let_pass_earns_the_fee(system: System, model: Model, parcel: Parcel) -> None:
    order = system.make_order(model, parcel, requestHash=REQUEST, openBy=system.now + 2 * DAY)
    by = pay_fee(system, 100)
    seller, fingerprinter = system.signatures(order)
    earn = system.escrow.earnPrepareFee
    with reverts(system.escrow.TooEarly, values={"notBefore": order.sale.openBy + 1}):
        earn(order.as_tuple(), seller, sender=system.fingerprinter)
    with isolated():
        system.go_to(by + 1)
        with reverts(system.escrow.TooLate, values={"deadline": by}):
            earn(order.as_tuple(), seller, sender=system.fingerprinter)
    system.go_to(order.sale.openBy + 1)
    with reverts(system.escrow.BadSignature):
        earn(order.as_tuple(), fingerprinter, sender=system.fingerprinter)
    receipt = earn(order.as_tuple(), seller, sender=system.stranger)
    assert receipt.decode_logs(system.escrow.PrepareFeeEarned)[0].fee == 100
    assert system.free(system.fingerprinter) == 100
    with reverts(system.escrow.RequestUnknown):
        earn(order.as_tuple(), seller, sender=system.fingerprinter)
    with reverts(system.escrow.RequestUnknown):
        system.escrow.reclaimPrepareFee(REQUEST, sender=system.buyer)


def test_a_fee_is_earned_with_the_owners_word_only(system: System, model: Model, parcel: Parcel) -> None:
    pay_fee(system, 100)
    mine = system.make_order(model, parcel, requestHash=REQUEST, seller=system.stranger.address)
    void = system.make_order(model, parcel, requestHash=REQUEST)
    dear = system.make_order(model, parcel, 2, requestHash=REQUEST, price=1_999)
    other = system.make_order(model, parcel, 3, requestHash=REQUEST, fingerprinter=system.stranger.address)
    system.escrow.cancel(system.order_hash(void), sender=system.creator)
    system.go_to(void.sale.openBy + 10)
    earn = system.escrow.earnPrepareFee
    with reverts(system.escrow.NotTheOwner):
        signature = sign_digest(system.digest(mine), system.stranger)
        earn(mine.as_tuple(), signature, sender=system.fingerprinter)
    for order, error in (
        (void, system.escrow.OrderVoid),
        (dear, system.escrow.FeeTooLarge),
        (other, system.escrow.RequestUnknown),
    ):
        with reverts(error):
            earn(order.as_tuple(), system.signatures(order)[0], sender=system.fingerprinter)


# ---------------------------------------------------------------- bond


@pytest.fixture
def licensed(system: System, revealed: Order) -> Order:
    system.escrow.accept(revealed.as_tuple(), sender=system.buyer)
    return revealed


def test_a_bond_comes_back_after_the_tail(system: System, licensed: Order) -> None:
    escrow, license_id = system.escrow, licensed.delivery.licenseId
    with reverts(escrow.LicenseStillActive, values={"licenseId": license_id}):
        escrow.requestBondRelease(license_id, sender=system.buyer)
    with reverts(escrow.ReleaseNotRequested, values={"licenseId": license_id}):
        escrow.releaseBond(licensed.as_tuple(), sender=system.buyer)
    system.licenses.surrender(license_id, sender=system.buyer)
    receipt = escrow.requestBondRelease(license_id, sender=system.stranger)
    at = receipt.decode_logs(escrow.BondReleaseRequested)[0].at
    with reverts(escrow.NothingToDo):
        escrow.requestBondRelease(license_id, sender=system.buyer)
    end = at + licensed.sale.bondTail
    with isolated():
        system.go_to(end - 1)
        with reverts(escrow.BondHeld, values={"openCases": 0, "notBefore": end}):
            escrow.releaseBond(licensed.as_tuple(), sender=system.buyer)
    system.go_to(end)
    with reverts(escrow.WrongOrder):
        escrow.releaseBond(licensed.with_(bondTail=90 * DAY + 1).as_tuple(), sender=system.buyer)
    receipt = escrow.releaseBond(licensed.as_tuple(), sender=system.stranger)
    (event,) = receipt.decode_logs(escrow.BondReleased)
    assert (event.holder, event.amount) == (system.buyer, licensed.sale.bond)
    assert system.free(system.buyer) == licensed.sale.bond
    assert tuple(escrow.bondOf(license_id)) == (0, 0, 0, 0, 0)
    with reverts(escrow.NothingToDo):
        escrow.releaseBond(licensed.as_tuple(), sender=system.buyer)
    with reverts(escrow.NothingToDo):
        escrow.requestBondRelease(license_id, sender=system.buyer)


def test_a_bond_of_an_expired_license(system: System, model: Model, parcel: Parcel) -> None:
    order = system.make_order(model, parcel, terms=terms(expiry=system.now + 30 * DAY))
    system.buy(order, parcel)
    with reverts(system.escrow.LicenseStillActive):
        system.escrow.requestBondRelease(order.delivery.licenseId, sender=system.buyer)
    system.pass_time(30 * DAY)
    system.escrow.requestBondRelease(order.delivery.licenseId, sender=system.buyer)


def test_an_open_case_holds_the_bond(system: System, licensed: Order) -> None:
    escrow, license_id = system.escrow, licensed.delivery.licenseId
    court = system.as_contract("MisuseCourt")
    system.licenses.surrender(license_id, sender=system.buyer)
    escrow.requestBondRelease(license_id, sender=system.buyer)
    escrow.holdBond(license_id, sender=court)
    escrow.holdBond(license_id, sender=court)
    system.pass_time(licensed.sale.bondTail + 1)
    escrow.unholdBond(license_id, sender=court)
    with reverts(escrow.BondHeld, values={"openCases": 1}):
        escrow.releaseBond(licensed.as_tuple(), sender=system.buyer)
    escrow.unholdBond(license_id, sender=court)
    escrow.releaseBond(licensed.as_tuple(), sender=system.buyer)


def test_a_pause_lengthens_the_tail(system: System, licensed: Order) -> None:
    """Pauses before the request do not count, pauses after it do."""
    escrow, license_id = system.escrow, licensed.delivery.licenseId
    escrow.pauseOpening(system.now + 2 * DAY, sender=system.pauser)
    system.pass_time(40 * DAY)
    before = escrow.pausedSeconds()
    assert 0 < before <= 2 * DAY
    system.licenses.surrender(license_id, sender=system.buyer)
    receipt = escrow.requestBondRelease(license_id, sender=system.buyer)
    at = receipt.decode_logs(escrow.BondReleaseRequested)[0].at
    assert escrow.bondOf(license_id).releaseRequestedAt == at - before
    escrow.pauseOpening(system.now + 5 * DAY, sender=system.pauser)
    system.pass_time(10 * DAY)
    paused = escrow.pausedSeconds() - before
    assert 0 < paused <= 5 * DAY
    end = at + licensed.sale.bondTail + paused
    with isolated():
        system.go_to(end - 1)
        with reverts(escrow.BondHeld, values={"notBefore": end}):
            escrow.releaseBond(licensed.as_tuple(), sender=system.buyer)
    system.go_to(end)
    escrow.releaseBond(licensed.as_tuple(), sender=system.buyer)


def test_only_a_settled_orders_bond_is_released(system: System, order: Order) -> None:
    system.open(order)
    with reverts(system.escrow.WrongState, values={"given": State.OPEN, "needed": State.SETTLED}):
        system.escrow.releaseBond(order.as_tuple(), sender=system.buyer)


def test_views_of_an_unknown_order(system: System, order: Order) -> None:
    assert tuple(system.escrow.orderState(order.delivery.licenseId)) == (State.NONE, 0, bytes(26))
    assert bytes(system.escrow.saleHash(astuple(order.sale))) != bytes(32)
    assert system.models.statusOf(1).review == Review.APPROVED
