"""Opening an order: each condition has a test that breaks it alone, and nothing moves when one is broken."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import ape
import pytest
from eth_utils import keccak
from market import (
    DAY,
    ETHER,
    HOUR,
    NATIVE,
    Model,
    Order,
    Parcel,
    State,
    System,
    isolated,
    key_commit,
    malleable_twin,
    refuses,
    reverts,
    sign_digest,
    terms,
)

REASON = b"\x05" * 32


def open_with(system: System, order: Order, seller: bytes, fingerprinter: bytes, **kwargs: Any) -> Any:
    value = order.sale.price + order.sale.bond
    return system.escrow.open(
        order.as_tuple(), seller, fingerprinter, sender=system.buyer, value=value, **kwargs
    )


# ---------------------------------------------------------------- what opening does


def test_the_digest_is_eip712(system: System, order: Order) -> None:
    assert bytes(system.escrow.orderHashOf(order.as_tuple())) == system.order_hash(order)
    assert bytes(system.escrow.orderDigest(order.as_tuple())) == system.digest(order)
    fields, name, version, chain_id, contract, salt, extensions = system.escrow.eip712Domain()
    assert (bytes(fields), name, version, chain_id) == (
        b"\x0f",
        "ZhiYiChain LicenseEscrow",
        "1",
        ape.chain.chain_id,
    )
    assert (contract, bytes(salt), list(extensions)) == (system.escrow, bytes(32), [])


def test_open_takes_the_money_reserves_the_number_and_locks_the_deposit(system: System, order: Order) -> None:
    paid = order.sale.price + order.sale.bond
    held, stake = system.escrow.balance, system.escrow.stakeOf(system.fingerprinter)
    assert system.escrow.quoteOpen(order.as_tuple()) == paid
    receipt = system.open(order)
    state, since, stored = system.escrow.orderState(order.delivery.licenseId)
    assert (state, bytes(stored)) == (State.OPEN, system.order_hash(order)[:26])
    assert since == ape.chain.blocks[receipt.block_number].timestamp
    assert system.escrow.balance == held + paid
    after = system.escrow.stakeOf(system.fingerprinter)
    assert (after.staked, after.locked) == (stake.staked, stake.locked + order.delivery.deposit)
    assert system.free(system.buyer) == system.free(system.creator) == 0
    system.escrow.checkOrder(order.as_tuple())


def test_open_publishes_the_whole_order(system: System, order: Order) -> None:
    receipt = system.open(order)
    (event,) = receipt.decode_logs(system.escrow.OrderOpened)
    assert (event.licenseId, event.buyer) == (order.delivery.licenseId, system.buyer)
    assert bytes(event.orderHash) == system.order_hash(order)
    shown = [str(v).lower() if isinstance(v, str) else v for half in event.order for v in half]
    meant = [str(v).lower() if isinstance(v, str) else v for half in order.as_tuple() for v in half]
    assert shown == meant


def test_two_orders_of_one_model_are_independent(system: System, model: Model, parcel: Parcel) -> None:
    first, second = (system.make_order(model, parcel, number) for number in (1, 2**27 - 1))
    system.open(first)
    system.open(second)
    assert system.escrow.stakeOf(system.fingerprinter).locked == 2 * first.delivery.deposit


# ---------------------------------------------------------------- the order itself


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("NotALicenseId(uint256)", {"licenseId": 1 << 28}),
    ("NotALicenseId(uint256)", {"licenseId": 1 << 92 | 1 << 28 | 1}),
    ("NoSuchModel(uint64)", {"licenseId": 99 << 28 | 1}),
    ("TermsMalformed(uint96)", {"terms": 1 << 92}),
    ("TermsMalformed(uint96)", {"terms": 64}),
    ("TermsMalformed(uint96)", {"terms": terms(territory=1000)}),
    ("TermsMalformed(uint96)", {"terms": terms(derivative_bps=5001)}),
    ("TermsMalformed(uint96)", {"terms": terms(onward_bps=5001)}),
    ("TermsExpired(uint40)", {"terms": terms(expiry=1)}),
    ("OrderExpired(uint40)", {"openBy": 1}),
    ("WindowOutOfRange(uint256,uint256,uint256)", {"revealWindow": HOUR - 1}),
    ("WindowOutOfRange(uint256,uint256,uint256)", {"revealWindow": 48 * HOUR + 1}),
    ("WindowOutOfRange(uint256,uint256,uint256)", {"grace": 30 * 60 - 1}),
    ("WindowOutOfRange(uint256,uint256,uint256)", {"grace": DAY + 1}),
    ("WindowOutOfRange(uint256,uint256,uint256)", {"complaintWindow": DAY - 1}),
    ("WindowOutOfRange(uint256,uint256,uint256)", {"complaintWindow": 14 * DAY + 1}),
    ("WindowOutOfRange(uint256,uint256,uint256)", {"bondTail": 90 * DAY - 1}),
    ("WindowOutOfRange(uint256,uint256,uint256)", {"bondTail": 1825 * DAY + 1}),
    ("DepositTooSmall(uint256,uint256)", {"deposit": ETHER // 10 - 1}),
    ("StakeTooSmall(address,uint256,uint256)", {"deposit": 4 * ETHER + 1}),
    ("BadFigures(uint64,uint32,uint16,uint8)", {"suite": 2}),
    ("BadFigures(uint64,uint32,uint16,uint8)", {"chunks": 0}),
    ("BadFigures(uint64,uint32,uint16,uint8)", {"chunks": 4}),
    ("BadFigures(uint64,uint32,uint16,uint8)", {"chunkSize": 0}),
    ("BadFigures(uint64,uint32,uint16,uint8)", {"chunkSize": 900}),
    ("BadFigures(uint64,uint32,uint16,uint8)", {"chunkSize": 4160}),
    ("BadFigures(uint64,uint32,uint16,uint8)", {"totalBytes": 0}),
    ("BadFigures(uint64,uint32,uint16,uint8)", {"totalBytes": 4}),
    ("SaleNonceStale(uint24,uint24)", {"saleNonce": 1}),
    ("OrderVoid(bytes32)", {"orderNonce": 1 << 32}),
    ("RequestUnknown(bytes32)", {"requestHash": REASON}),
    ("TokenNotListed(address)", {"token": "0x" + "12" * 20}),
]


@pytest.mark.parametrize(
    ("error", "changes"), REFUSED, ids=lambda v: v if isinstance(v, str) else "-".join(v)
)
def test_open_refuses(
    system: System, model: Model, parcel: Parcel, error: str, changes: dict[str, Any]
) -> None:
    order = system.make_order(model, parcel, **changes)
    value = 0 if order.sale.token != NATIVE else None
    before = system.escrow.balance
    with refuses(error):
        system.open(order, value=value)
    assert system.escrow.balance == before
    assert system.state(order) == State.NONE


def test_the_largest_deposit_leaves_the_reserve(system: System, model: Model, parcel: Parcel) -> None:
    system.open(system.make_order(model, parcel, deposit=4 * ETHER))
    assert system.escrow.stakeReserve() == ETHER
    with refuses("StakeTooSmall(address,uint256,uint256)"):
        system.open(system.make_order(model, parcel, 2, price=0, deposit=1))


def test_open_at_its_last_second(system: System, order: Order) -> None:
    system.go_to(order.sale.openBy)
    system.open(order)


def test_open_a_second_late(system: System, order: Order) -> None:
    system.go_to(order.sale.openBy + 1)
    with reverts(system.escrow.OrderExpired, values={"openBy": order.sale.openBy}):
        system.open(order)


@pytest.mark.parametrize("half", [0, 1])
def test_no_word_may_be_larger_than_its_type(system: System, order: Order, half: int) -> None:
    """The order is hashed and published as it came, so each member must be read; a dirty word would be hashed too."""
    call = system.escrow.open.encode_input(order.as_tuple(), *system.signatures(order))
    start, types = (4, 13) if half == 0 else (4 + 13 * 32, 15)
    for word in range(types):
        at = start + 32 * word
        if any(call[at : at + 4]) or word + 13 * half == 13:  # whole words; the license id has its own checks
            continue
        dirty = bytes(call[:at]) + b"\x01" + bytes(call[at + 1 :])
        with ape.reverts():
            system.buyer.transfer(system.escrow, order.sale.price + order.sale.bond, data=dirty)
    assert system.state(order) == State.NONE


# ---------------------------------------------------------------- people


def test_only_the_buyer_opens(system: System, order: Order) -> None:
    with reverts(system.escrow.NotTheBuyer, values={"buyer": system.buyer.address}):
        system.open(order, sender=system.stranger)


def test_the_seller_owns_the_model(system: System, model: Model, parcel: Parcel) -> None:
    order = system.make_order(model, parcel, seller=system.stranger.address)
    with reverts(system.escrow.NotTheOwner, values={"owner": system.creator.address}):
        system.open(order)


@pytest.mark.parametrize("party", ["seller", "buyer"])
def test_the_fingerprinter_is_neutral(system: System, model: Model, parcel: Parcel, party: str) -> None:
    account = {"seller": system.creator, "buyer": system.buyer}[party].address
    order = system.make_order(model, parcel, fingerprinter=account)
    with reverts(system.escrow.NotNeutral, values={"fingerprinter": account}):
        system.open(order)


def test_identity_tier(system: System, model: Model, parcel: Parcel) -> None:
    order = system.make_order(model, parcel, terms=terms(min_tier=2))
    for tier in (0, 1):
        if tier:
            system.verify(system.buyer, tier)
        with reverts(system.escrow.IdentityTooLow, values={"given": tier, "needed": 2}):
            system.open(order)
    system.verify(system.buyer, 2)
    system.open(order)


# ---------------------------------------------------------------- signatures


def test_signatures_bind_every_member(system: System, order: Order) -> None:
    """Each field changed after signing: refused, by its own check or by the signature's."""
    seller, fingerprinter = system.signatures(order)
    for half, types in ((order.sale, 13), (order.delivery, 15)):
        names = list(type(half).__dataclass_fields__)
        assert len(names) == types
        for name in names:
            value = getattr(half, name)
            bent: Any
            if isinstance(value, bytes):
                bent = keccak(value)
            elif isinstance(value, str):
                bent = system.stranger.address
            else:
                bent = value + 1
            changed = order.with_(**{name: bent})
            paid = changed.sale.price + changed.sale.bond
            with ape.reverts():
                system.escrow.open(changed.as_tuple(), seller, fingerprinter, sender=system.buyer, value=paid)
    assert system.state(order) == State.NONE


def test_open_refuses_wrong_signatures(system: System, order: Order) -> None:
    seller, fingerprinter = system.signatures(order)
    other = sign_digest(system.digest(order), system.stranger)
    creator = system.creator.address
    for bad in (
        other,
        fingerprinter,
        malleable_twin(seller),
        seller[:64],
        seller + b"\x00",
        b"",
        seller[:64] + b"\x02",
    ):
        with reverts(system.escrow.BadSignature, values={"signer": creator}):
            open_with(system, order, bad, fingerprinter)
    for bad in (other, seller, malleable_twin(fingerprinter), fingerprinter[:64], b""):
        with reverts(system.escrow.BadSignature, values={"signer": system.fingerprinter.address}):
            open_with(system, order, seller, bad)


def test_signatures_of_another_chain_or_contract_do_not_count(system: System, order: Order) -> None:
    from eth_account.messages import encode_typed_data

    for chain_id, contract in ((1, system.escrow.address), (ape.chain.chain_id, system.court.address)):
        message = encode_typed_data(full_message=order.typed_data(chain_id, contract))
        digest = keccak(b"\x19" + message.version + message.header + message.body)
        pair = sign_digest(digest, system.creator), sign_digest(digest, system.fingerprinter)
        with reverts(system.escrow.BadSignature):
            open_with(system, order, *pair)


def test_wallet_contracts_sell_deliver_and_buy(
    system: System, model: Model, parcel: Parcel, project: Any
) -> None:
    """ERC-1271 on both sides, and a buyer that is a contract without any receiver."""
    seller, fingerprinter, buyer = (
        system.deployer.deploy(project.TestWallet, key, value=6 * ETHER)
        for key in (system.creator, system.fingerprinter, system.buyer)
    )
    system.models.transferFrom(system.creator, seller, model.id, sender=system.creator)
    call = system.escrow.depositNative.encode_input(fingerprinter)
    fingerprinter.execute(system.escrow, 3 * ETHER, call, sender=system.stranger)
    join = system.committee.join.encode_input(
        2, fingerprinter, b"\xe5" * 32, 3 * ETHER, "https://example.org", 0, b""
    )
    fingerprinter.execute(system.committee, 0, join, sender=system.stranger)
    order = system.make_order(model, parcel, buyer=buyer.address, fingerprinter=fingerprinter.address)
    data = system.escrow.open.encode_input(order.as_tuple(), *system.signatures(order))
    buyer.execute(system.escrow, order.sale.price + order.sale.bond, data, sender=system.stranger)
    system.reveal(order, parcel, sender=system.stranger)
    system.settle(order)
    assert system.licenses.ownerOf(order.delivery.licenseId) == buyer


# ---------------------------------------------------------------- replay and number


def test_an_order_opens_once(system: System, order: Order, parcel: Parcel) -> None:
    system.open(order)
    with reverts(system.escrow.WrongState, values={"given": State.OPEN, "needed": State.NONE}):
        system.open(order)
    system.reveal(order, parcel)
    with reverts(system.escrow.WrongState):
        system.open(order)
    system.settle(order)
    with reverts(system.escrow.WrongState, values={"given": State.SETTLED}):
        system.open(system.make_order(Model(1, None, None), parcel))  # type: ignore[arg-type]


def test_a_refund_burns_the_fingerprint_number(
    system: System, model: Model, order: Order, parcel: Parcel
) -> None:
    system.open(order)
    system.pass_time(3 * HOUR)
    system.escrow.refund(order.as_tuple(), sender=system.stranger)
    with reverts(system.escrow.WrongState, values={"given": State.REFUNDED}):
        system.open(system.make_order(model, parcel))


def test_two_orders_cannot_share_a_fingerprint_number(system: System, model: Model, parcel: Parcel) -> None:
    first = system.make_order(model, parcel)
    second = system.make_order(model, parcel, buyer=system.stranger.address, bond=ETHER)
    system.open(first)
    with reverts(system.escrow.WrongState):
        system.open(second, sender=system.stranger)
    assert system.state(first) == State.OPEN


# ---------------------------------------------------------------- model


def test_a_model_must_be_approved_and_listed(system: System, model: Model, parcel: Parcel) -> None:
    pending = system.register(system.creator, "pending")
    with reverts(system.escrow.ModelNotOffered, values={"modelId": pending.id}):
        system.open(system.make_order(pending, parcel))
    system.models.delist(model.id, system.now // DAY + 9, REASON, sender=system.regulator)
    with reverts(system.escrow.ModelNotOffered):
        system.open(system.make_order(model, parcel))


def test_a_frozen_model_is_not_sold(system: System, model: Model, order: Order) -> None:
    until = system.now + HOUR
    system.models.freeze(model.id, until, REASON, sender=system.regulator)
    with reverts(system.escrow.ModelFrozen, values={"modelId": model.id, "until": until}):
        system.open(order)
    system.go_to(until)
    system.open(order)


def test_a_sold_model_voids_its_orders(system: System, model: Model, order: Order) -> None:
    for owner, to in ((system.creator, system.stranger), (system.stranger, system.creator)):
        system.models.transferFrom(owner, to, model.id, sender=owner)
    with reverts(system.escrow.SaleNonceStale, values={"given": 0, "current": 2}):
        system.open(order)


@pytest.mark.parametrize("category", range(6))
def test_a_use_that_the_owner_forbids_is_refused(
    system: System, model: Model, parcel: Parcel, category: int
) -> None:
    forbidden = 3 << 2 * category
    system.models.setPreferences(model.id, forbidden, REASON, sender=system.creator)
    with reverts(system.escrow.UseNotAllowed, values={"preferences": forbidden}):
        system.open(system.make_order(model, parcel, terms=terms(uses=1 << category)))
    system.open(system.make_order(model, parcel, terms=terms(uses=0b111111 ^ 1 << category)))


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_use_not_forbidden_is_granted_by_the_order(
    system: System, model: Model, parcel: Parcel, code: int
) -> None:
    everywhere = int("".join([f"{code:02b}"] * 6), 2)
    system.models.setPreferences(model.id, everywhere, REASON, sender=system.creator)
    system.open(system.make_order(model, parcel, terms=terms(uses=0b111111)))


# ---------------------------------------------------------------- cancel


def test_a_cancelled_order_is_void(system: System, order: Order) -> None:
    with isolated():  # somebody else's word voids nothing
        system.escrow.cancel(system.order_hash(order), sender=system.stranger)
        system.open(order)
    receipt = system.escrow.cancel(system.order_hash(order), sender=system.creator)
    (event,) = receipt.decode_logs(system.escrow.OrderCancelled)
    assert (event.seller, bytes(event.hash)) == (system.creator, system.order_hash(order))
    with reverts(system.escrow.OrderVoid):
        system.open(order)


def test_cancel_all_voids_whatever_could_have_been_signed(
    system: System, model: Model, parcel: Parcel
) -> None:
    orders = [system.make_order(model, parcel, orderNonce=nonce) for nonce in (0, 2**32 - 1)]
    receipt = system.escrow.cancelAll(sender=system.creator)
    assert receipt.decode_logs(system.escrow.OrdersCancelledBelow)[0].floor == 2**32
    assert system.escrow.orderFloor(system.creator) == 2**32
    for order in orders:
        with reverts(system.escrow.OrderVoid):
            system.open(order)
    system.open(system.make_order(model, parcel))


def test_a_cancel_does_not_touch_an_open_order(system: System, order: Order, parcel: Parcel) -> None:
    system.open(order)
    system.escrow.cancel(system.order_hash(order), sender=system.creator)
    system.escrow.cancelAll(sender=system.creator)
    system.reveal(order, parcel)
    system.settle(order)
    assert system.state(order) == State.SETTLED


# ---------------------------------------------------------------- payment


def test_native_payment_is_exact(system: System, order: Order) -> None:
    needed = order.sale.price + order.sale.bond
    for value in (0, needed - 1, needed + 1):
        with reverts(system.escrow.PaymentMismatch, values={"given": value, "needed": needed}):
            system.open(order, value=value)


def erc20_order(system: System, model: Model, parcel: Parcel, token: Any, **changes: Any) -> Order:
    return system.make_order(model, parcel, token=token.address, **changes)


def test_erc20_payment_is_pulled(system: System, model: Model, parcel: Parcel, token: Any) -> None:
    order = erc20_order(system, model, parcel, token, deposit=7)
    paid = order.sale.price + order.sale.bond
    system.open(order)
    assert token.balanceOf(system.escrow) == paid
    assert token.balanceOf(system.buyer) == 10 * ETHER - paid
    system.reveal(order, parcel)
    system.settle(order)
    assert system.pool(model, token.address) == order.sale.price
    bond = system.escrow.bondOf(order.delivery.licenseId)
    assert (bond.amount, bond.tokenIndex) == (order.sale.bond, 1)
    assert system.escrow.tokenAt(1) == token


def test_erc20_order_takes_no_coins(system: System, model: Model, parcel: Parcel, token: Any) -> None:
    with reverts(system.escrow.PaymentMismatch, values={"given": 1, "needed": 0}):
        system.open(erc20_order(system, model, parcel, token), value=1)


def test_a_delisted_token_opens_nothing_but_leaves(
    system: System, model: Model, parcel: Parcel, token: Any
) -> None:
    order = erc20_order(system, model, parcel, token)
    system.open(order)
    system.escrow.listToken(token, False, sender=system.deployer)
    with reverts(system.escrow.TokenNotListed, values={"token": token.address}):
        system.open(erc20_order(system, model, parcel, token, licenseId=order.delivery.licenseId + 1))
    system.pass_time(3 * HOUR)
    system.escrow.refund(order.as_tuple(), sender=system.stranger)
    system.escrow.withdraw(token, order.sale.price + order.sale.bond, system.buyer, sender=system.buyer)
    assert token.balanceOf(system.buyer) == 10 * ETHER


def sign_permit(system: System, token: Any, value: int, deadline: int) -> tuple[int, bytes, bytes]:
    from eth_account.messages import encode_typed_data

    domain = {
        "name": "Test Dollar",
        "version": "1",
        "chainId": ape.chain.chain_id,
        "verifyingContract": token.address,
    }
    types = {
        "Permit": [
            {"name": "owner", "type": "address"},
            {"name": "spender", "type": "address"},
            {"name": "value", "type": "uint256"},
            {"name": "nonce", "type": "uint256"},
            {"name": "deadline", "type": "uint256"},
        ]
    }
    message = {
        "owner": system.buyer.address,
        "spender": system.escrow.address,
        "value": value,
        "nonce": token.nonces(system.buyer),
        "deadline": deadline,
    }
    signable = encode_typed_data(domain, types, message)
    digest = keccak(b"\x19" + signable.version + signable.header + signable.body)
    signature = sign_digest(digest, system.buyer)
    return signature[64], signature[:32], signature[32:64]


@pytest.mark.parametrize("front_run", [False, True])
def test_open_with_permit_needs_no_allowance(
    system: System, model: Model, parcel: Parcel, token: Any, front_run: bool
) -> None:
    token.approve(system.escrow, 0, sender=system.buyer)
    order = erc20_order(system, model, parcel, token)
    paid = order.sale.price + order.sale.bond
    deadline = system.now + DAY
    v, r, s = sign_permit(system, token, paid, deadline)
    if front_run:  # somebody sends the permit first, to make the purchase fail
        token.permit(system.buyer, system.escrow, paid, deadline, v, r, s, sender=system.stranger)
    system.escrow.openWithPermit(
        order.as_tuple(), *system.signatures(order), deadline, v, r, s, sender=system.buyer
    )
    assert token.balanceOf(system.escrow) == paid
    assert token.allowance(system.buyer, system.escrow) == 0


def test_open_with_a_bad_permit_moves_nothing(
    system: System, model: Model, parcel: Parcel, token: Any
) -> None:
    token.approve(system.escrow, 0, sender=system.buyer)
    order = erc20_order(system, model, parcel, token)
    with ape.reverts():
        system.escrow.openWithPermit(
            order.as_tuple(), *system.signatures(order), 1, 27, REASON, REASON, sender=system.buyer
        )
    assert system.state(order) == State.NONE


def test_a_permit_is_for_tokens(system: System, order: Order) -> None:
    with reverts(system.escrow.TokenNotListed, values={"token": NATIVE}):
        system.escrow.openWithPermit(
            order.as_tuple(), *system.signatures(order), 1, 27, REASON, REASON, sender=system.buyer
        )


def test_a_taxed_token_is_refused(system: System, model: Model, parcel: Parcel, project: Any) -> None:
    taxed = system.deployer.deploy(project.TaxedToken)
    taxed.mint(system.buyer, ETHER, sender=system.deployer)
    taxed.approve(system.escrow, ETHER, sender=system.buyer)
    system.escrow.listToken(taxed, True, sender=system.deployer)
    taxed.setTaxed(True, sender=system.deployer)
    order = erc20_order(system, model, parcel, taxed)
    paid = order.sale.price + order.sale.bond
    expected = {"token": taxed.address, "given": paid, "received": paid - paid // 100}
    with reverts(system.escrow.TransferTaxed, values=expected):
        system.open(order)
    with reverts(system.escrow.TransferTaxed):
        system.escrow.depositToken(taxed, 100, system.buyer, sender=system.buyer)


def test_a_reentrant_token_gets_nowhere(system: System, model: Model, parcel: Parcel, project: Any) -> None:
    """It calls back while the buyer pays: into another opening, a deposit, a withdrawal. None goes through."""
    token = system.deployer.deploy(project.ReentrantToken)
    token.mint(system.buyer, 9 * ETHER, sender=system.deployer)
    token.approve(system.escrow, 9 * ETHER, sender=system.buyer)
    system.escrow.listToken(token, True, sender=system.deployer)
    guard = keccak(text="ReentrancyGuardReentrantCall()")[:4]
    order = erc20_order(system, model, parcel, token)
    inner = [
        system.escrow.open.encode_input(order.as_tuple(), *system.signatures(order)),
        system.escrow.depositToken.encode_input(token, 1, system.stranger),
        system.escrow.withdraw.encode_input(token, 0, system.stranger),
        system.escrow.rangeClaim.encode_input(order.as_tuple(), bytes(32)),
        system.escrow.payPrepareFee.encode_input(REASON, model.id, system.stranger, token, 1, 1),
    ]
    for number, call in enumerate(inner, start=1):
        token.arm(system.escrow, call, sender=system.deployer)
        system.open(erc20_order(system, model, parcel, token, licenseId=model.id << 28 | number))
        assert token.called()
        assert not token.succeeded()
        assert bytes(token.answer()) == guard
    assert token.balanceOf(system.escrow) == len(inner) * (order.sale.price + order.sale.bond)


# ---------------------------------------------------------------- pause


def test_a_pause_stops_opening_only(system: System, model: Model, order: Order, parcel: Parcel) -> None:
    system.open(order)
    until = system.now + DAY
    receipt = system.escrow.pauseOpening(until, sender=system.pauser)
    assert receipt.decode_logs(system.escrow.OpeningPaused)[0].until == until
    other = system.make_order(model, parcel, 2)
    with reverts(system.escrow.OpeningIsPaused, values={"until": until}):
        system.open(other)
    system.reveal(order, parcel)
    system.settle(order)
    assert system.state(order) == State.SETTLED


def test_a_pause_ends_by_itself_or_early(system: System, model: Model, parcel: Parcel) -> None:
    until = system.now + DAY
    system.escrow.pauseOpening(until, sender=system.pauser)
    receipt = system.escrow.resumeOpening(sender=system.pauser)
    assert receipt.decode_logs(system.escrow.OpeningResumed)[0].by == system.pauser
    system.open(system.make_order(model, parcel, 1))
    with reverts(system.escrow.NotPaused):
        system.escrow.resumeOpening(sender=system.pauser)
    until = system.now + DAY
    system.escrow.pauseOpening(until, sender=system.pauser)
    order = system.make_order(model, parcel, 2, openBy=until)
    system.go_to(until)
    system.open(order)


def test_pauses_are_seven_days_in_thirty(system: System) -> None:
    escrow, pauser, start = system.escrow, system.pauser, system.now + 10
    system.go_to(start)
    with reverts(escrow.PauseTooLong):
        escrow.pauseOpening(start + 7 * DAY + 1, sender=pauser)
    system.go_to(start + 10)
    escrow.pauseOpening(start + 10 + 3 * DAY, sender=pauser)
    system.go_to(start + 10 + 5 * DAY)
    with reverts(escrow.PauseTooLong, values={"max": start + 10 + 7 * DAY}):
        escrow.pauseOpening(start + 10 + 7 * DAY + 1, sender=pauser)
    system.go_to(start + 20 + 5 * DAY)
    escrow.pauseOpening(start + 10 + 7 * DAY, sender=pauser)
    system.go_to(start + 10 + 29 * DAY)
    with reverts(escrow.PauseTooLong):
        escrow.pauseOpening(start + 10 + 29 * DAY + 60, sender=pauser)
    assert escrow.pausedSeconds() == 3 * DAY + 2 * DAY - 10
    system.go_to(start + 10 + 30 * DAY)
    escrow.pauseOpening(start + 10 + 37 * DAY, sender=pauser)
    with reverts(escrow.PauseTooLong):
        escrow.pauseOpening(start + 1, sender=pauser)


def test_key_commit_is_bound_to_license_and_buyer(system: System, order: Order, parcel: Parcel) -> None:
    license_id = order.delivery.licenseId
    assert order.delivery.keyCommit == key_commit(parcel.key, license_id, system.buyer.address)
    assert order.delivery.keyCommit != key_commit(parcel.key, license_id, system.stranger.address)
    assert order.delivery.keyCommit != key_commit(parcel.key, license_id + 1, system.buyer.address)
    assert astuple(order.delivery)[0] == license_id
