"""Licenses passed on: resale and sublicense as orders of the holder; renewal; sale of the model token."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any

import ape
import pytest
from ape.exceptions import ContractLogicError
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from market import (
    DAY,
    ETHER,
    FIRST_ONWARD,
    HOUR,
    NATIVE,
    Model,
    Order,
    Parcel,
    State,
    System,
    isolated,
    key_commit,
    make_parcel,
    malleable_twin,
    refuses,
    reverts,
    sha,
    sign_digest,
    terms,
)

COMMERCIAL, RESALE, SUBLICENSE, DERIVATIVES, DISCLOSURE, UPDATES = (1 << i for i in range(6))
ALL = 63
OWNER_BASIS, RESALE_BASIS, SUBLICENSE_BASIS = range(3)
RESOLD = 3
CAUSE = b"\xca" * 32
TEXT = b"\x7e" * 32


def rich_terms(system: System, **changes: Any) -> int:
    values: dict[str, Any] = {
        "flags": COMMERCIAL | RESALE | SUBLICENSE | DISCLOSURE,
        "territory": 156,
        "expiry": system.now + 800 * DAY,
        "uses": 0b011,
        "derivative_bps": 100,
        "onward_bps": 2_000,
        **changes,
    }
    return terms(**values)


@pytest.fixture
def licensed(system: System, model: Model, parcel: Parcel) -> Order:
    """The buyer's license, which may be resold and sublicensed; a fifth of the price is the model's."""
    order = system.make_order(model, parcel, terms=rich_terms(system))
    system.buy(order, parcel)
    return order


@pytest.fixture
def copy() -> Parcel:
    return make_parcel("copy for the next holder")


def onward(system: System, source: Order, copy: Parcel, basis: int, number: int = 7, **changes: Any) -> Order:
    """An order by which the holder passes his license on to the stranger."""
    license_id = source.delivery.licenseId >> 28 << 28 | FIRST_ONWARD | number
    values: dict[str, Any] = {
        "seller": source.delivery.buyer,
        "basis": basis,
        "source": source.delivery.licenseId,
        "terms": source.sale.terms & ~(RESALE | SUBLICENSE),
        "licenseId": license_id,
        "buyer": system.stranger.address,
        "keyCommit": key_commit(copy.key, license_id, system.stranger.address),
        "saleNonce": 0,
        "orderNonce": system.escrow.orderFloor(source.delivery.buyer),
        "openBy": system.now + DAY,
        **copy.figures,
        **changes,
    }
    return source.with_(**values)


def open_onward(system: System, order: Order, *, seller: Any = None) -> Any:
    digest = system.digest(order)
    pair = sign_digest(digest, seller or system.buyer), sign_digest(digest, system.fingerprinter)
    value = order.sale.price + order.sale.bond if order.sale.token == NATIVE else 0
    return system.escrow.open(order.as_tuple(), *pair, sender=system.stranger, value=value)


def finish(system: System, order: Order, copy: Parcel) -> Any:
    system.reveal(order, copy)
    return system.settle(order)


# ---------------------------------------------------------------- resale and sublicense


@pytest.mark.parametrize("basis", [RESALE_BASIS, SUBLICENSE_BASIS])
def test_a_license_passed_on_pays_model_and_holder(
    system: System, model: Model, licensed: Order, copy: Parcel, basis: int
) -> None:
    licenses, source = system.licenses, licensed.delivery.licenseId
    order = onward(system, licensed, copy, basis, price=ETHER // 10 - 3)
    gross, held = system.royalties.gross(model.id, NATIVE), system.escrow.balance
    receipt = open_onward(system, order)
    offered = [tuple(e.event_arguments.values()) for e in receipt.decode_logs(licenses.LicenseOffered)]
    assert offered == ([(source, True)] if basis == RESALE_BASIS else [])
    assert licenses.isOffered(source) is (basis == RESALE_BASIS)
    assert licenses.isActive(source)
    receipt = finish(system, order, copy)
    share = order.sale.price * 2_000 // 10_000
    (event,) = receipt.decode_logs(licenses.LicensePassedOn)
    assert (event.source, event.licenseId, event.resale) == (
        source,
        order.delivery.licenseId,
        basis == RESALE_BASIS,
    )
    assert system.free(system.buyer) == order.sale.price - share
    assert system.royalties.gross(model.id, NATIVE) == gross + share
    assert system.escrow.balance == held + order.sale.price + order.sale.bond
    assert licenses.ownerOf(order.delivery.licenseId) == system.stranger
    assert licenses.isActive(order.delivery.licenseId)
    assert not licenses.isOffered(source)
    assert licenses.isActive(source) is (basis == SUBLICENSE_BASIS)
    assert licenses.endOf(source) == (RESOLD if basis == RESALE_BASIS else 0)


def test_a_license_is_given_away(system: System, model: Model, licensed: Order, copy: Parcel) -> None:
    """At no price nobody is paid, and no payment is told."""
    gross, before = system.royalties.gross(model.id, NATIVE), system.free(system.buyer)
    order = onward(system, licensed, copy, RESALE_BASIS, price=0)
    open_onward(system, order)
    receipt = finish(system, order, copy)
    assert receipt.decode_logs(system.escrow.Credited) == []
    assert (system.royalties.gross(model.id, NATIVE), system.free(system.buyer)) == (gross, before)
    assert system.licenses.ownerOf(order.delivery.licenseId) == system.stranger


def test_the_old_bond_stays_through_the_tail(system: System, licensed: Order, copy: Parcel) -> None:
    source = licensed.delivery.licenseId
    order = onward(system, licensed, copy, RESALE_BASIS)
    with reverts(system.escrow.LicenseStillActive):
        system.escrow.requestBondRelease(source, sender=system.buyer)
    open_onward(system, order)
    finish(system, order, copy)
    system.escrow.requestBondRelease(source, sender=system.buyer)
    asked = ape.chain.blocks.head.timestamp
    system.go_to(asked + licensed.sale.bondTail - 1)
    with reverts(system.escrow.BondHeld):
        system.escrow.releaseBond(licensed.as_tuple(), sender=system.buyer)
    before = system.free(system.buyer)
    system.go_to(asked + licensed.sale.bondTail)
    system.escrow.releaseBond(licensed.as_tuple(), sender=system.stranger)
    assert system.free(system.buyer) == before + licensed.sale.bond


def test_a_refunded_resale_leaves_the_license_as_it_was(
    system: System, licensed: Order, copy: Parcel
) -> None:
    source = licensed.delivery.licenseId
    order = onward(system, licensed, copy, RESALE_BASIS)
    open_onward(system, order)
    system.pass_time(order.delivery.revealWindow + order.delivery.grace + 1)
    receipt = system.escrow.refund(order.as_tuple(), sender=system.stranger)
    (event,) = receipt.decode_logs(system.licenses.LicenseOffered)
    assert (event.licenseId, event.offered) == (source, False)
    assert not system.licenses.isOffered(source)
    assert system.licenses.isActive(source)
    assert system.free(system.buyer) == 0
    again = onward(system, licensed, copy, RESALE_BASIS, 8)
    open_onward(system, again)
    assert system.state(again) == State.OPEN


def test_a_license_is_sold_once(system: System, licensed: Order, copy: Parcel) -> None:
    source = licensed.delivery.licenseId
    open_onward(system, onward(system, licensed, copy, RESALE_BASIS, 7))
    for basis in (RESALE_BASIS, SUBLICENSE_BASIS):
        with reverts(system.licenses.NotForSale, values={"licenseId": source}):
            open_onward(system, onward(system, licensed, copy, basis, 8))


def test_a_source_that_ended_meanwhile_blocks_nothing(system: System, licensed: Order, copy: Parcel) -> None:
    """Surrender, revocation and expiry between opening and settling: the buyer still gets what he paid for."""
    source, court = licensed.delivery.licenseId, system.as_contract("MisuseCourt")
    order = onward(system, licensed, copy, RESALE_BASIS)
    open_onward(system, order)
    with isolated():
        system.licenses.surrender(source, sender=system.buyer)
        finish(system, order, copy)
        assert system.licenses.isActive(order.delivery.licenseId)
        assert system.licenses.endOf(source) == 2
        assert not system.licenses.isOffered(source)
    system.licenses.revoke(source, CAUSE, sender=court)
    finish(system, order, copy)
    assert system.licenses.isActive(order.delivery.licenseId)
    assert system.licenses.endOf(source) == 1


def test_only_an_active_license_without_open_cases_is_passed_on(
    system: System, licensed: Order, copy: Parcel
) -> None:
    source, court = licensed.delivery.licenseId, system.as_contract("MisuseCourt")
    order = onward(system, licensed, copy, RESALE_BASIS)
    with isolated():
        system.escrow.holdBond(source, sender=court)
        expected = {"licenseId": source, "openCases": 1, "notBefore": 0}
        with reverts(system.escrow.BondHeld, values=expected):
            open_onward(system, order)
    for end in (
        lambda: system.licenses.suspend(source, True, CAUSE, sender=court),
        lambda: system.licenses.surrender(source, sender=system.buyer),
        lambda: system.licenses.revoke(source, CAUSE, sender=court),
    ):
        with isolated():
            end()
            with reverts(system.licenses.NotForSale, values={"licenseId": source}):
                open_onward(system, order)
    system.go_to(licensed.sale.terms >> 18 & (2**40 - 1))
    ape.chain.mine()
    with reverts(system.licenses.NotForSale):
        open_onward(
            system,
            onward(system, licensed, copy, RESALE_BASIS, terms=rich_terms(system, flags=COMMERCIAL | 16)),
        )


WIDER: list[dict[str, Any]] = [
    {"flags": COMMERCIAL},  # the duty to disclose dropped
    {"flags": COMMERCIAL | DISCLOSURE | DERIVATIVES},
    {"flags": COMMERCIAL | DISCLOSURE | UPDATES},
    {"territory": 0},
    {"territory": 840},
    {"expiry": 0},
    {"uses": 0b111},
    {"uses": 0b100},
    {"derivative_bps": 99},
    {"onward_bps": 1_999},
]


@pytest.mark.parametrize("wider", WIDER, ids=str)
@pytest.mark.parametrize("basis", [RESALE_BASIS, SUBLICENSE_BASIS])
def test_terms_stay_within_the_source(
    system: System, licensed: Order, copy: Parcel, basis: int, wider: dict[str, Any]
) -> None:
    end = licensed.sale.terms >> 18 & (2**40 - 1)
    values = {"flags": COMMERCIAL | DISCLOSURE, "expiry": end, **wider}
    order = onward(system, licensed, copy, basis, terms=rich_terms(system, **values))
    with reverts(system.licenses.TermsNotWithin, values={"source": licensed.delivery.licenseId}):
        open_onward(system, order)


def test_the_expiry_is_not_stretched(system: System, licensed: Order, copy: Parcel) -> None:
    end = licensed.sale.terms >> 18 & (2**40 - 1)
    for later in (1, 10_000):
        order = onward(
            system, licensed, copy, RESALE_BASIS, terms=rich_terms(system, flags=17, expiry=end + later)
        )
        with reverts(system.licenses.TermsNotWithin):
            open_onward(system, order)


def test_a_tier_is_not_dropped(system: System, project: Any) -> None:
    """Whoever buys from a holder is as well known as whoever buys from the owner."""
    source = terms(flags=RESALE, min_tier=2)
    harness = system.deployer.deploy(project.LicenseTermsHarness)
    assert not harness.areWithin(terms(flags=0, min_tier=1), source)
    assert harness.areWithin(terms(flags=0, min_tier=2), source)
    assert harness.areWithin(terms(flags=0, min_tier=3), source)


@pytest.mark.parametrize("basis", [RESALE_BASIS, SUBLICENSE_BASIS])
def test_the_right_must_be_there(
    system: System, model: Model, parcel: Parcel, copy: Parcel, basis: int
) -> None:
    right = RESALE if basis == RESALE_BASIS else SUBLICENSE
    source = system.make_order(model, parcel, terms=rich_terms(system, flags=ALL & ~right))
    system.buy(source, parcel)
    order = onward(system, source, copy, basis, terms=source.sale.terms & ~(RESALE | SUBLICENSE))
    with reverts(system.licenses.TermsNotWithin):
        open_onward(system, order)


def test_a_sublicense_gives_no_sublicenses_and_a_resale_may(
    system: System, licensed: Order, copy: Parcel
) -> None:
    chained = onward(system, licensed, copy, SUBLICENSE_BASIS, terms=licensed.sale.terms)
    with reverts(system.licenses.TermsNotWithin):
        open_onward(system, chained)
    open_onward(system, onward(system, licensed, copy, RESALE_BASIS, terms=licensed.sale.terms))


def test_only_the_holder_passes_his_license_on(
    system: System, model: Model, licensed: Order, copy: Parcel
) -> None:
    """Neither the model's owner nor a stranger; and no order names the license of another model."""
    order = onward(system, licensed, copy, RESALE_BASIS, seller=system.creator.address)
    with reverts(system.licenses.NotTheHolder, values={"holder": system.buyer.address}):
        open_onward(system, order, seller=system.creator)
    order = onward(system, licensed, copy, RESALE_BASIS)
    with reverts(system.escrow.BadSignature, values={"signer": system.buyer.address}):
        open_onward(system, order, seller=system.creator)
    other = system.register(system.creator, "another model")
    system.approve(other)
    number = other.id << 28 | FIRST_ONWARD | 7
    order = onward(
        system,
        licensed,
        copy,
        RESALE_BASIS,
        licenseId=number,
        keyCommit=key_commit(copy.key, number, system.stranger.address),
    )
    expected = {"source": licensed.delivery.licenseId, "modelId": other.id}
    with reverts(system.escrow.SourceMismatch, values=expected):
        open_onward(system, order)


def test_an_owners_order_names_no_source(system: System, model: Model, parcel: Parcel) -> None:
    order = system.make_order(model, parcel, source=5)
    with reverts(system.escrow.SourceMismatch, values={"source": 5, "modelId": model.id}):
        system.open(order)
    unknown = system.make_order(
        model,
        parcel,
        FIRST_ONWARD,
        basis=RESALE_BASIS,
        source=model.id << 28 | 999,
        seller=system.creator.address,
    )
    with refuses("NoSuchLicense(uint256)"):
        system.open(unknown)


def test_a_basis_that_does_not_exist_is_refused(system: System, model: Model, parcel: Parcel) -> None:
    order = system.make_order(model, parcel)
    call = bytearray(system.escrow.open.encode_input(order.as_tuple(), *system.signatures(order)))
    at = 4 + 7 * 32  # the eighth word of the order
    call[at + 31] = 3
    with pytest.raises(ContractLogicError):
        system.buyer.transfer(
            system.escrow, order.sale.price + order.sale.bond, data=bytes(call), gas_limit=1_000_000
        )


def test_the_sale_of_a_model_voids_no_resale(
    system: System, model: Model, licensed: Order, copy: Parcel
) -> None:
    order = onward(system, licensed, copy, RESALE_BASIS)
    system.models.transferFrom(system.creator, system.treasury, model.id, sender=system.creator)
    open_onward(system, order)
    finish(system, order, copy)
    assert system.licenses.isActive(order.delivery.licenseId)


@pytest.mark.parametrize("basis", [RESALE_BASIS, SUBLICENSE_BASIS])
def test_a_fee_for_a_copy_passed_on_is_earned_with_the_holders_word(
    system: System, model: Model, licensed: Order, copy: Parcel, basis: int
) -> None:
    request = sha(b"request of the stranger")
    system.escrow.payPrepareFee(
        request,
        model.id,
        system.fingerprinter,
        NATIVE,
        100,
        system.now + 5 * DAY,
        sender=system.stranger,
        value=100,
    )
    order = onward(system, licensed, copy, basis, requestHash=request)
    foreign = order.with_(source=5)
    taken = onward(system, licensed, copy, basis, requestHash=request, seller=system.creator.address)
    system.go_to(order.sale.openBy + 10)
    earn = system.escrow.earnPrepareFee
    signed = [(foreign, system.buyer, "SourceMismatch(uint256,uint64)"), (taken, system.creator, None)]
    for bad, seller, error in signed:
        with refuses(error or "NotTheOwner(address,address)"):
            earn(bad.as_tuple(), sign_digest(system.digest(bad), seller), sender=system.fingerprinter)
    earn(order.as_tuple(), sign_digest(system.digest(order), system.buyer), sender=system.fingerprinter)
    assert system.free(system.fingerprinter) == 100


def test_a_fee_is_not_earned_with_another_model(system: System, model: Model, parcel: Parcel) -> None:
    """A fingerprinter's own worthless model cannot stand in for the one that was asked for."""
    request = sha(b"request")
    system.escrow.payPrepareFee(
        request,
        model.id,
        system.fingerprinter,
        NATIVE,
        100,
        system.now + 5 * DAY,
        sender=system.buyer,
        value=100,
    )
    own = system.register(system.stranger, "junk")
    order = system.make_order(own, parcel, requestHash=request, openBy=system.now + 2 * DAY)
    system.go_to(order.sale.openBy + 1)
    with reverts(system.escrow.RequestUnknown, values={"requestHash": request}):
        signature = sign_digest(system.digest(order), system.stranger)
        system.escrow.earnPrepareFee(order.as_tuple(), signature, sender=system.fingerprinter)


def test_a_fee_is_not_earned_within_a_day(system: System, model: Model, parcel: Parcel) -> None:
    """The buyer had a day to look at the copy, whatever the order says."""
    request = sha(b"request")
    system.escrow.payPrepareFee(
        request,
        model.id,
        system.fingerprinter,
        NATIVE,
        100,
        system.now + 5 * DAY,
        sender=system.buyer,
        value=100,
    )
    paid_at = ape.chain.blocks.head.timestamp
    order = system.make_order(model, parcel, requestHash=request, openBy=paid_at + 5)
    system.go_to(paid_at + DAY)
    with reverts(system.escrow.TooEarly, values={"notBefore": paid_at + DAY + 1}):
        system.escrow.earnPrepareFee(
            order.as_tuple(), system.signatures(order)[0], sender=system.fingerprinter
        )


def test_passing_a_license_on_sheds_no_bond(
    system: System, licensed: Order, copy: Parcel, token: Any
) -> None:
    """Sold to a second account of one's own for nothing, the license would be out of reach of every case."""
    source, bond = licensed.delivery.licenseId, licensed.sale.bond
    for basis in (RESALE_BASIS, SUBLICENSE_BASIS):
        for changes in ({"bond": 0}, {"bond": bond - 1}, {"token": token.address}):
            given = changes.get("bond", bond)
            expected = {"licenseId": source, "given": given, "needed": bond}
            with reverts(system.escrow.BondTooSmall, values=expected):
                open_onward(system, onward(system, licensed, copy, basis, **changes))
    open_onward(system, onward(system, licensed, copy, RESALE_BASIS, bond=bond + 1))


def test_what_is_passed_on_takes_no_number_of_the_owners(
    system: System, model: Model, parcel: Parcel, licensed: Order, copy: Parcel
) -> None:
    """Or any holder who may sublicense could open under the number of an owner's order first."""
    buyer = system.stranger.address
    for number in (8, FIRST_ONWARD - 1):
        license_id = model.id << 28 | number
        changes = {"licenseId": license_id, "keyCommit": key_commit(copy.key, license_id, buyer)}
        with reverts(system.escrow.NotALicenseId, values={"licenseId": license_id}):
            open_onward(system, onward(system, licensed, copy, SUBLICENSE_BASIS, **changes))
    with reverts(system.escrow.NotALicenseId):
        system.open(system.make_order(model, parcel, FIRST_ONWARD))
    open_onward(system, onward(system, licensed, copy, SUBLICENSE_BASIS, 0))


def test_an_onward_order_has_no_sale_nonce(system: System, licensed: Order, copy: Parcel) -> None:
    """Its word is read, so that no order opens under a hash that nobody can make again."""
    with reverts(system.escrow.SaleNonceStale, values={"given": 1, "current": 0}):
        open_onward(system, onward(system, licensed, copy, RESALE_BASIS, saleNonce=1))
    order = onward(system, licensed, copy, RESALE_BASIS)
    digest = system.digest(order)
    pair = sign_digest(digest, system.buyer), sign_digest(digest, system.fingerprinter)
    call = bytearray(system.escrow.open.encode_input(order.as_tuple(), *pair))
    call[4 + 8 * 32] = 1  # the ninth word of the order, a byte above its type
    with pytest.raises(ContractLogicError):
        system.stranger.transfer(
            system.escrow, order.sale.price + order.sale.bond, data=bytes(call), gas_limit=1_000_000
        )


def test_the_owner_prints_no_copies_of_a_resale(system: System, licensed: Order, copy: Parcel) -> None:
    """He would know the share seeds of a license whose bond pays him."""
    order = onward(system, licensed, copy, RESALE_BASIS, fingerprinter=system.creator.address)
    with reverts(system.escrow.NotNeutral, values={"fingerprinter": system.creator.address}):
        open_onward(system, order)


def test_a_slash_gives_the_owner_no_more_than_the_resale_did(
    system: System, licensed: Order, copy: Parcel
) -> None:
    order = onward(system, licensed, copy, RESALE_BASIS)
    open_onward(system, order)
    finish(system, order, copy)
    bond = system.escrow.bondOf(order.delivery.licenseId)
    assert (bond.amount, bond.price) == (order.sale.bond, order.sale.price * 2_000 // 10_000)


def test_the_owner_cannot_block_his_licensees(
    system: System, model: Model, licensed: Order, copy: Parcel
) -> None:
    """Neither by preferences nor by a version that waits for its review."""
    system.models.setPreferences(model.id, 0xFFF, CAUSE, sender=system.creator)
    later = replace(model.record, weightsRoot=sha(b"later version"))
    system.models.addVersion(model.id, astuple(model.record), astuple(later), CAUSE, sender=system.creator)
    open_onward(system, onward(system, licensed, copy, RESALE_BASIS))


def test_a_fee_is_not_earned_with_any_old_license(
    system: System, model: Model, licensed: Order, parcel: Parcel, copy: Parcel
) -> None:
    """Without the right, after its end, or by a fingerprinter that is the holder itself."""
    request = sha(b"request of the stranger")
    system.escrow.payPrepareFee(
        request,
        model.id,
        system.fingerprinter,
        NATIVE,
        100,
        system.now + 5 * DAY,
        sender=system.stranger,
        value=100,
    )
    poor = system.make_order(model, parcel, 3, terms=terms(flags=COMMERCIAL))
    system.buy(poor, parcel)
    own = system.make_order(model, parcel, 4, seller=system.fingerprinter.address, requestHash=request)
    own = own.with_(buyer=system.stranger.address)
    without_right = onward(system, poor, copy, RESALE_BASIS, requestHash=request)
    order = onward(system, licensed, copy, RESALE_BASIS, requestHash=request)
    system.licenses.surrender(licensed.delivery.licenseId, sender=system.buyer)
    system.go_to(order.sale.openBy + 2 * DAY)
    for bad, seller, error in (
        (own, system.fingerprinter, "NotNeutral(address)"),
        (without_right, system.buyer, "SourceMismatch(uint256,uint64)"),
        (order, system.buyer, "SourceMismatch(uint256,uint64)"),
    ):
        signature = sign_digest(system.digest(bad), seller)
        with refuses(error):
            system.escrow.earnPrepareFee(bad.as_tuple(), signature, sender=system.fingerprinter)


# ---------------------------------------------------------------- renewal


@dataclass(frozen=True)
class Renewal:
    licenseId: int
    seller: str
    token: str
    price: int
    expiry: int
    saleNonce: int
    orderNonce: int
    openBy: int


RENEWAL_TYPES = ["uint256", "address", "address", "uint96", "uint40", "uint24", "uint64", "uint40"]


@dataclass(frozen=True)
class ModelSale:
    modelId: int
    seller: str
    buyer: str
    token: str
    price: int
    termsHash: bytes
    saleNonce: int
    orderNonce: int
    openBy: int


MODEL_SALE_TYPES = [
    "uint64",
    "address",
    "address",
    "address",
    "uint96",
    "bytes32",
    "uint24",
    "uint64",
    "uint40",
]


def digest_of(system: System, value: Any, types: list[str], chain_id: int | None = None) -> bytes:
    members = [
        {"name": name, "type": kind} for name, kind in zip(value.__dataclass_fields__, types, strict=True)
    ]
    data: dict[str, Any] = {
        "domain": {
            "name": "ZhiYiChain LicenseEscrow",
            "version": "1",
            "chainId": chain_id or ape.chain.chain_id,
            "verifyingContract": system.escrow.address,
        },
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            type(value).__name__: members,
        },
        "primaryType": type(value).__name__,
        "message": vars(value),
    }
    message = encode_typed_data(full_message=data)
    return keccak(b"\x19" + message.version + message.header + message.body)


def sign_renewal(system: System, renewal: Renewal, signer: Any) -> bytes:
    return sign_digest(digest_of(system, renewal, RENEWAL_TYPES), signer)


@pytest.fixture
def renewal(system: System, model: Model, licensed: Order) -> Renewal:
    return Renewal(
        licenseId=licensed.delivery.licenseId,
        seller=system.creator.address,
        token=NATIVE,
        price=1_000_001,
        expiry=(licensed.sale.terms >> 18 & (2**40 - 1)) + 365 * DAY,
        saleNonce=system.models.statusOf(model.id).saleNonce,
        orderNonce=system.escrow.orderFloor(system.creator),
        openBy=system.now + DAY,
    )


def renew(
    system: System, renewal: Renewal, *, signer: Any = None, sender: Any = None, value: Any = None
) -> Any:
    signature = sign_renewal(system, renewal, signer or system.creator)
    paid = renewal.price if value is None else value
    return system.escrow.renew(astuple(renewal), signature, sender=sender or system.buyer, value=paid)


@pytest.mark.parametrize("forever", [False, True])
def test_a_renewal_extends_and_pays(system: System, model: Model, renewal: Renewal, forever: bool) -> None:
    if forever:
        renewal = replace(renewal, expiry=0)
    licenses, license_id = system.licenses, renewal.licenseId
    before, gross = licenses.termsOf(license_id), system.royalties.gross(model.id, NATIVE)
    receipt = renew(system, renewal)
    assert licenses.termsOf(license_id) == before & ~((2**40 - 1) << 18) | renewal.expiry << 18
    shown = renewal.expiry or 2**64 - 1
    assert licenses.expiresAt(license_id) == shown
    (event,) = receipt.decode_logs(licenses.SubscriptionUpdate)
    assert (event.tokenId, event.expiration) == (license_id, shown)
    (event,) = receipt.decode_logs(system.escrow.LicenseRenewed)
    assert (event.licenseId, event.holder, event.token, event.price, event.expiry) == (
        license_id,
        system.buyer,
        NATIVE,
        renewal.price,
        renewal.expiry,
    )
    assert system.royalties.gross(model.id, NATIVE) == gross + renewal.price
    with reverts(licenses.NotLonger, values={"expiry": renewal.expiry, "current": renewal.expiry}):
        renew(system, renewal)  # replayed


def test_a_renewal_in_a_token(system: System, model: Model, renewal: Renewal, token: Any) -> None:
    renew(system, replace(renewal, token=token.address), value=0)
    assert token.balanceOf(system.escrow) == renewal.price
    assert system.pool(model, token.address) == renewal.price
    later = replace(renewal, token=token.address, expiry=renewal.expiry + 1)
    with reverts(system.escrow.PaymentMismatch, values={"given": 1, "needed": 0}):
        renew(system, later, value=1)


def test_renew_refuses(system: System, model: Model, licensed: Order, renewal: Renewal) -> None:
    escrow, licenses = system.escrow, system.licenses
    end = licensed.sale.terms >> 18 & (2**40 - 1)
    with reverts(escrow.PaymentMismatch, values={"given": renewal.price - 1}):
        renew(system, renewal, value=renewal.price - 1)
    with reverts(escrow.TokenNotListed):
        renew(system, replace(renewal, token=system.models.address), value=0)
    with reverts(licenses.NotLonger, values={"expiry": end, "current": end}):
        renew(system, replace(renewal, expiry=end))
    with reverts(licenses.NotTheHolder, values={"holder": system.buyer.address}):
        renew(system, renewal, sender=system.stranger)
    with reverts(escrow.NotTheOwner, values={"owner": system.creator.address}):
        renew(system, replace(renewal, seller=system.buyer.address), signer=system.buyer)
    with reverts(escrow.SaleNonceStale):
        renew(system, replace(renewal, saleNonce=renewal.saleNonce + 1))
    for signature in (
        sign_renewal(system, renewal, system.buyer),
        malleable_twin(sign_renewal(system, renewal, system.creator)),
        sign_digest(digest_of(system, renewal, RENEWAL_TYPES, chain_id=1), system.creator),
    ):
        with reverts(escrow.BadSignature, values={"signer": system.creator.address}):
            escrow.renew(astuple(renewal), signature, sender=system.buyer, value=renewal.price)
    with isolated():
        system.escrow.cancel(system.escrow.renewalHash(astuple(renewal)), sender=system.creator)
        with reverts(escrow.OrderVoid):
            renew(system, renewal)
    with isolated():
        system.escrow.cancelAll(sender=system.creator)
        with reverts(escrow.OrderVoid):
            renew(system, renewal)
    with isolated():
        until = system.now + 10 * DAY
        system.models.freeze(model.id, until, CAUSE, sender=system.regulator)
        with reverts(escrow.ModelFrozen, values={"until": until}):
            renew(system, renewal)
    with isolated():
        system.licenses.surrender(renewal.licenseId, sender=system.buyer)
        with reverts(licenses.LicenseEnded, values={"end": 2}):
            renew(system, renewal)
    system.go_to(renewal.openBy + 1)
    with reverts(escrow.TooLate, values={"deadline": renewal.openBy}):
        renew(system, renewal)


def test_a_license_without_expiry_or_past_it_is_not_renewed(
    system: System, model: Model, parcel: Parcel, renewal: Renewal
) -> None:
    endless = system.make_order(model, parcel, 2, terms=terms())
    system.buy(endless, parcel)
    with reverts(system.licenses.NotLonger, values={"current": 0}):
        renew(system, replace(renewal, licenseId=endless.delivery.licenseId, openBy=system.now + DAY))
    end = renewal.expiry - 365 * DAY
    system.go_to(end)
    with reverts(system.licenses.LicenseEnded, values={"end": 0}):
        renew(system, replace(renewal, openBy=end + DAY))


# ---------------------------------------------------------------- sale of the model


@pytest.fixture
def sale(system: System, model: Model) -> ModelSale:
    system.models.approve(system.escrow, model.id, sender=system.creator)
    return ModelSale(
        modelId=model.id,
        seller=system.creator.address,
        buyer=system.buyer.address,
        token=NATIVE,
        price=ETHER,
        termsHash=TEXT,
        saleNonce=system.models.statusOf(model.id).saleNonce,
        orderNonce=system.escrow.orderFloor(system.creator),
        openBy=system.now + DAY,
    )


def buy_model(
    system: System,
    model: Model,
    sale: ModelSale,
    *,
    signer: Any = None,
    sender: Any = None,
    value: Any = None,
) -> Any:
    signature = sign_digest(digest_of(system, sale, MODEL_SALE_TYPES), signer or system.creator)
    paid = sale.price if value is None else value
    return system.escrow.buyModel(
        astuple(sale), model.shares, signature, sender=sender or system.buyer, value=paid
    )


def test_a_model_is_sold_with_royalty_and_its_licenses_stay(
    system: System, model: Model, licensed: Order, sale: ModelSale, parcel: Parcel
) -> None:
    """Platform 5 %, collaborator 10 % of the rest; the seller has the remainder, and what he had not pulled."""
    old = system.make_order(model, parcel, 9)
    ledger = system.royalties
    gross = ledger.gross(model.id, NATIVE) + sale.price
    owner = gross * 9_500 // 10_000 * 9_000 // 10_000
    before, held = system.free(system.creator), system.escrow.balance
    receipt = buy_model(system, model, sale)
    (event,) = receipt.decode_logs(system.escrow.ModelSold)
    assert (event.modelId, event.seller, event.buyer, event.token, event.price, bytes(event.termsHash)) == (
        model.id,
        system.creator,
        system.buyer,
        NATIVE,
        sale.price,
        TEXT,
    )
    assert system.models.ownerOf(model.id) == system.buyer
    assert ledger.gross(model.id, NATIVE) == gross
    assert system.free(system.creator) == before + owner
    assert system.escrow.balance == held + sale.price
    with reverts(ledger.NothingToPull):
        ledger.pullOwner(model.id, NATIVE, model.shares, sender=system.buyer)
    ledger.pullPlatform(model.id, NATIVE, model.shares, sender=system.buyer)
    ledger.pullCollaborator(model.id, NATIVE, 0, model.shares, sender=system.buyer)
    assert system.free(system.treasury) == gross * 500 // 10_000
    assert system.free(system.collaborator) == gross * 9_500 // 10_000 * 1_000 // 10_000
    assert system.licenses.isActive(licensed.delivery.licenseId)
    with reverts(system.escrow.NotTheOwner):
        system.open(old)
    with refuses("NotTheOwner(address,address)"):
        buy_model(system, model, sale)  # replayed


def test_anyone_may_buy_an_open_model_sale(system: System, model: Model, sale: ModelSale) -> None:
    buy_model(system, model, replace(sale, buyer=NATIVE, price=0), sender=system.stranger)
    assert system.models.ownerOf(model.id) == system.stranger


def test_a_model_is_sold_for_a_token(system: System, model: Model, sale: ModelSale, token: Any) -> None:
    buy_model(system, model, replace(sale, token=token.address), value=0)
    assert token.balanceOf(system.escrow) == sale.price
    owner = sale.price * 9_500 // 10_000 * 9_000 // 10_000
    assert system.free(system.creator, token.address) == owner


def test_buy_model_refuses(system: System, model: Model, sale: ModelSale) -> None:
    escrow = system.escrow
    with reverts(escrow.PaymentMismatch, values={"given": 1, "needed": sale.price}):
        buy_model(system, model, sale, value=1)
    with reverts(escrow.NotTheBuyer, values={"given": system.stranger.address}):
        buy_model(system, model, sale, sender=system.stranger)
    with reverts(escrow.TokenNotListed):
        buy_model(system, model, replace(sale, token=system.models.address), value=0)
    with reverts(escrow.SaleNonceStale):
        buy_model(system, model, replace(sale, saleNonce=sale.saleNonce + 1))
    with reverts(escrow.BadSignature):
        buy_model(system, model, sale, signer=system.buyer)
    with reverts(escrow.NotTheOwner):
        buy_model(system, model, replace(sale, seller=system.stranger.address), signer=system.stranger)
    greedy = (0, [(system.creator.address, 10_000)], [])
    signature = sign_digest(digest_of(system, sale, MODEL_SALE_TYPES), system.creator)
    with refuses("TermsMismatch(uint64)"):
        escrow.buyModel(astuple(sale), greedy, signature, sender=system.buyer, value=sale.price)
    with isolated():
        system.models.approve(NATIVE, model.id, sender=system.creator)
        with refuses("NotOwnerNorApproved()"):
            buy_model(system, model, sale)
    with isolated():
        escrow.cancel(escrow.modelSaleHash(astuple(sale)), sender=system.creator)
        with reverts(escrow.OrderVoid):
            buy_model(system, model, sale)
    with isolated():
        system.models.freeze(model.id, system.now + DAY, CAUSE, sender=system.regulator)
        with reverts(escrow.ModelFrozen):
            buy_model(system, model, sale)
    with isolated():  # a version slipped in front of the purchase
        later = replace(model.record, weightsRoot=sha(b"a later version"))
        system.models.addVersion(
            model.id, astuple(model.record), astuple(later), CAUSE, sender=system.creator
        )
        with reverts(escrow.ModelNotOffered, values={"modelId": model.id}):
            buy_model(system, model, sale)
    system.go_to(sale.openBy + 1)
    with reverts(escrow.TooLate):
        buy_model(system, model, sale)


# ---------------------------------------------------------------- the other half


def test_the_extension_refuses_to_be_called_directly(
    system: System, model: Model, licensed: Order, renewal: Renewal, sale: ModelSale, project: Any
) -> None:
    """On its own storage money would be stranded."""
    alone = project.IEscrow.at(system.at["EscrowExtension"].address)
    order, nobody = licensed.as_tuple(), system.stranger
    calls = [
        lambda: alone.rangeClaim(order, bytes(32), sender=nobody),
        lambda: alone.resolveRange(order, True, 1, 1, [], 0, b"", sender=nobody),
        lambda: alone.payPrepareFee(CAUSE, 1, nobody, NATIVE, 1, system.now + HOUR, sender=nobody, value=1),
        lambda: alone.reclaimPrepareFee(CAUSE, sender=nobody),
        lambda: alone.earnPrepareFee(order, b"", sender=nobody),
        lambda: alone.cancel(CAUSE, sender=nobody),
        lambda: alone.cancelAll(sender=nobody),
        lambda: alone.renew(astuple(renewal), b"", sender=nobody, value=renewal.price),
        lambda: alone.buyModel(astuple(sale), model.shares, b"", sender=nobody, value=sale.price),
        lambda: alone.requestBondRelease(licensed.delivery.licenseId, sender=nobody),
        lambda: alone.releaseBond(order, sender=nobody),
        lambda: alone.pauseOpening(system.now + HOUR, sender=system.pauser),
        lambda: alone.resumeOpening(sender=system.pauser),
    ]
    for call in calls:
        with reverts(alone.OnlyThroughEscrow):
            call()


def test_both_halves_have_one_storage(project: Any) -> None:
    """A delegated call reads what the escrow wrote only if every variable lies in the same place."""
    import json
    import subprocess
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    names = ("LicenseEscrow", "EscrowExtension")
    request = {
        "language": "Solidity",
        "sources": {
            f"contracts/{n}.sol": {"content": (root / "contracts" / f"{n}.sol").read_text()} for n in names
        },
        "settings": {
            "remappings": [
                "@openzeppelin/contracts=node_modules/@openzeppelin/contracts",
                "solady=node_modules/solady/src",
            ],
            "outputSelection": {"*": {n: ["storageLayout"] for n in names}},
        },
    }
    answer = subprocess.run(
        [str(root / "tools" / "solc"), "--standard-json", "--base-path", str(root)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    layouts = []
    for name in names:
        contract = json.loads(answer)["contracts"][f"contracts/{name}.sol"][name]
        layouts.append([(s["label"], s["slot"], s["offset"]) for s in contract["storageLayout"]["storage"]])
    assert layouts[0] == layouts[1]
    assert len(layouts[0]) > 10


def test_coins_sent_without_a_call_come_back(system: System) -> None:
    with pytest.raises(ContractLogicError):
        system.stranger.transfer(system.escrow, 1, gas_limit=100_000)
    unknown = keccak(text="noSuchFunction()")[:4]
    with pytest.raises(ContractLogicError):
        system.stranger.transfer(system.escrow, 0, data=unknown, gas_limit=100_000)
