"""License tokens: issued by the escrow, ended by court or holder, never moved."""

from __future__ import annotations

import base64
import json
from typing import Any

import ape
import pytest
from eth_abi import encode
from eth_utils import keccak, to_checksum_address
from market import DAY, Model, Order, Parcel, System, isolated, refuses, reverts, terms

CAUSE = b"\xca" * 32
NONE, REVOKED, SURRENDERED, RESOLD = range(4)


@pytest.fixture
def issued(system: System, order: Order, parcel: Parcel) -> Order:
    system.buy(order, parcel)
    return order


def record_of(system: System, order: Order) -> tuple[Any, ...]:
    return (
        system.order_hash(order),
        order.delivery.copyRoot,
        order.delivery.markCommit,
        order.sale.termsHash,
        order.delivery.fingerprinter,
    )


def test_issue_is_complete(system: System, model: Model, order: Order, parcel: Parcel) -> None:
    packed = terms(
        flags=63,
        territory=156,
        expiry=system.now + 400 * DAY,
        uses=0b101,
        derivative_bps=4_999,
        onward_bps=5_000,
    )
    order = order.with_(terms=packed)
    receipt = system.buy(order, parcel)
    licenses, license_id = system.licenses, order.delivery.licenseId
    assert licenses.ownerOf(license_id) == system.buyer
    assert licenses.termsOf(license_id) == packed
    assert licenses.modelOf(license_id) == model.id
    assert licenses.expiresAt(license_id) == order.sale.terms >> 18 & (2**40 - 1)
    assert licenses.isActive(license_id)
    assert licenses.locked(license_id)
    assert not licenses.hasEnded(license_id)
    assert licenses.isRenewable(license_id)
    assert not licenses.isSuspended(license_id)
    assert licenses.endOf(license_id) == NONE
    record = record_of(system, order)
    assert licenses.recordHash(license_id) == keccak(encode(["bytes32"] * 4 + ["address"], record))
    licenses.checkRecord(license_id, record)
    (event,) = receipt.decode_logs(licenses.LicenseIssued)
    assert (event.licenseId, event.modelId, event.holder) == (license_id, model.id, system.buyer)
    *hashes, fingerprinter = event.record
    assert (event.terms, *hashes, to_checksum_address(fingerprinter)) == (packed, *record)
    assert receipt.decode_logs(licenses.Locked)[0].tokenId == license_id
    assert receipt.decode_logs(licenses.SubscriptionUpdate)[0].expiration == licenses.expiresAt(license_id)


def test_a_license_without_expiry_never_expires(system: System, issued: Order) -> None:
    license_id = issued.delivery.licenseId
    assert system.licenses.expiresAt(license_id) == 2**64 - 1
    assert not system.licenses.isRenewable(license_id)
    system.pass_time(50 * 365 * DAY)
    assert system.licenses.isActive(license_id)


def test_a_license_ends_in_the_second_of_its_expiry(system: System, order: Order, parcel: Parcel) -> None:
    end = system.now + 400 * DAY
    order = order.with_(terms=terms(expiry=end))
    system.buy(order, parcel)
    license_id = order.delivery.licenseId
    system.go_to(end - 1)
    ape.chain.mine()
    assert system.licenses.isActive(license_id)
    assert not system.licenses.hasEnded(license_id)
    system.go_to(end)
    ape.chain.mine()
    assert not system.licenses.isActive(license_id)
    assert system.licenses.hasEnded(license_id)
    assert system.licenses.endOf(license_id) == NONE


def test_a_license_never_moves(system: System, issued: Order) -> None:
    licenses, license_id = system.licenses, issued.delivery.licenseId
    licenses.approve(system.stranger, license_id, sender=system.buyer)
    licenses.setApprovalForAll(system.stranger, True, sender=system.buyer)
    for sender in (system.buyer, system.stranger):
        for move in (licenses.transferFrom, licenses.safeTransferFrom):
            with reverts(licenses.LicenseCarriesFingerprint, values={"licenseId": license_id}):
                move(system.buyer, system.stranger, license_id, sender=sender)


def test_surrender_is_the_holders_and_final(system: System, issued: Order) -> None:
    licenses, license_id = system.licenses, issued.delivery.licenseId
    with reverts(licenses.NotTheHolder, values={"holder": system.buyer.address}):
        licenses.surrender(license_id, sender=system.stranger)
    receipt = licenses.surrender(license_id, sender=system.buyer)
    assert receipt.decode_logs(licenses.LicenseSurrendered)[0].holder == system.buyer
    assert (licenses.isActive(license_id), licenses.hasEnded(license_id)) == (False, True)
    assert licenses.endOf(license_id) == SURRENDERED
    assert licenses.ownerOf(license_id) == system.buyer
    assert licenses.expiresAt(license_id) == 0
    (event,) = receipt.decode_logs(licenses.SubscriptionUpdate)
    assert (event.tokenId, event.expiration) == (license_id, 0)
    with reverts(licenses.LicenseEnded, values={"end": SURRENDERED}):
        licenses.surrender(license_id, sender=system.buyer)


def test_the_court_revokes_what_has_not_ended(system: System, issued: Order) -> None:
    licenses, license_id = system.licenses, issued.delivery.licenseId
    court = system.as_contract("MisuseCourt")
    with isolated():
        licenses.surrender(license_id, sender=system.buyer)
        receipt = licenses.revoke(license_id, CAUSE, sender=court)
        assert receipt.decode_logs(licenses.LicenseRevoked) == []
        assert licenses.endOf(license_id) == SURRENDERED
    receipt = licenses.revoke(license_id, CAUSE, sender=court)
    assert receipt.decode_logs(licenses.LicenseRevoked)[0].cause == CAUSE
    assert licenses.endOf(license_id) == REVOKED
    assert licenses.termsOf(license_id) == issued.sale.terms


def test_a_suspension_comes_and_goes(system: System, issued: Order) -> None:
    licenses, license_id = system.licenses, issued.delivery.licenseId
    court = system.as_contract("MisuseCourt")
    receipt = licenses.suspend(license_id, True, CAUSE, sender=court)
    assert receipt.decode_logs(licenses.LicenseSuspended)[0].suspended
    assert licenses.isSuspended(license_id)
    assert not licenses.isActive(license_id)
    assert not licenses.hasEnded(license_id)
    licenses.suspend(license_id, False, CAUSE, sender=court)
    assert licenses.isActive(license_id)


def test_only_peers_issue_and_end(system: System, issued: Order) -> None:
    licenses, license_id = system.licenses, issued.delivery.licenseId
    record = record_of(system, issued)
    for sender in (system.deployer, system.buyer):
        for call in (
            lambda who: licenses.issue(who, license_id + 1, 0, record, sender=who),
            lambda who: licenses.revoke(license_id, CAUSE, sender=who),
            lambda who: licenses.suspend(license_id, True, CAUSE, sender=who),
        ):
            with reverts(licenses.NotAPeer, values={"caller": sender.address}):
                call(sender)
    with reverts(licenses.NotAPeer):
        licenses.revoke(license_id, CAUSE, sender=system.as_contract("LicenseEscrow"))


def test_views_refuse_a_license_that_is_not_there(system: System) -> None:
    licenses = system.licenses
    for name in (
        "hasEnded",
        "endOf",
        "termsOf",
        "locked",
        "expiresAt",
        "isRenewable",
        "isSuspended",
        "isOffered",
        "tokenURI",
    ):
        with reverts(licenses.NoSuchLicense, values={"licenseId": 7}):
            getattr(licenses, name)(7)
    assert not licenses.isActive(7)
    with reverts(licenses.NoSuchLicense):
        licenses.revoke(7, CAUSE, sender=system.as_contract("MisuseCourt"))


def test_a_record_opens_only_as_it_was(system: System, issued: Order) -> None:
    record = record_of(system, issued)
    for i, value in enumerate(record):
        bent = list(record)
        bent[i] = system.stranger.address if isinstance(value, str) else b"\xbe" * 32
        with reverts(system.licenses.RecordMismatch):
            system.licenses.checkRecord(issued.delivery.licenseId, bent)


def test_erc5643_renewal_is_an_order_and_cancelling_is_surrender(system: System, issued: Order) -> None:
    licenses, license_id = system.licenses, issued.delivery.licenseId
    for value in (0, 1):
        with reverts(licenses.RenewalIsAnOrder):
            licenses.renewSubscription(license_id, DAY, sender=system.buyer, value=value)
    with reverts(licenses.ValueNotTaken, values={"value": 1}):
        licenses.cancelSubscription(license_id, sender=system.buyer, value=1)
    with reverts(licenses.ValueNotTaken):
        licenses.approve(system.stranger, license_id, sender=system.buyer, value=1)
    licenses.cancelSubscription(license_id, sender=system.buyer)
    assert licenses.endOf(license_id) == SURRENDERED


def test_standards(system: System, model: Model, issued: Order) -> None:
    licenses, license_id = system.licenses, issued.delivery.licenseId
    for interface in ("01ffc9a7", "80ac58cd", "5b5e139f", "b45a3c0e", "8c65f84d", "49064906"):
        assert licenses.supportsInterface(bytes.fromhex(interface))
    assert not licenses.supportsInterface(b"\xff" * 4)
    assert (licenses.name(), licenses.symbol()) == ("ZhiYiChain License", "ZYL")
    head, _, body = licenses.tokenURI(license_id).partition(";base64,")
    assert head == "data:application/json"
    shown = json.loads(base64.b64decode(body))
    assert shown["name"] == f"ZhiYiChain License {license_id}"
    assert shown["description"] == f"License of model {model.id}, fingerprint 1. Not transferable."


def test_an_id_is_issued_once(system: System, issued: Order, parcel: Parcel) -> None:
    with refuses("WrongState(uint256,uint8,uint8)"):
        system.open(system.make_order(Model(issued.delivery.licenseId >> 28, None, None), parcel))  # type: ignore[arg-type]
