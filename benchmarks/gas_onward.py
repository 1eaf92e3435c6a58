"""Gas of what follows a purchase - resale, sublicense, renewal, sale of the model, a new version; rows for `gas.py`.

"Repeat": seller, model and token have been paid before.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import ape
from market import (
    DAY,
    ETHER,
    FIRST_ONWARD,
    NATIVE,
    Model,
    ModelRecord,
    Order,
    Review,
    System,
    key_commit,
    make_parcel,
    sha,
    sign_digest,
    terms,
)

from report import Row
from zhiyi import eip712
from zhiyi.types import ModelSale, Renewal

COMMERCIAL_RESALE_SUBLICENSE = 0b111
RESALE, SUBLICENSE = 1, 2  # basis of an order
ONWARD = {SUBLICENSE: "sublicense", RESALE: "resale"}  # a license that was resold is not sublicensed
WHAT = {
    "open_resale": "open an order of a license's holder, resale",
    "settle_resale": "settle a resale: the old license ends; royalty and seller paid, repeat",
    "open_sublicense": "open an order of a license's holder, sublicense",
    "settle_sublicense": "settle a sublicense: the old license stays; royalty and seller paid, repeat",
    "renew": "renew a license: royalty paid, repeat",
    "buy_model": "buy a model token: royalty paid, all of the seller's shares pulled; the buyer's first model",
    "add_version": "add a version to a model",
    "rotate_trace_key": "rotate a model's trace key, first",
}


def measure(system: System) -> dict[str, int]:
    """Gas used by name of the step."""
    gas: dict[str, int] = {}
    model = system.register(system.creator, "onward", collaborators=((system.collaborator.address, 1_000),))
    system.approve(model)
    system.open_terms(model)
    if not system.committee.memberOf(system.fingerprinter).role:
        system.stake(system.fingerprinter, 5 * ETHER)

    expiry = system.now + 800 * DAY
    rights = terms(flags=COMMERCIAL_RESALE_SUBLICENSE, expiry=expiry, onward_bps=2_000)
    parcel = make_parcel("onward")
    for number in (1, 2):
        held = system.make_order(model, parcel, number, terms=rights)
        system.buy(held, parcel)
        for basis, name in ONWARD.items():
            gas[f"open_{name}"], gas[f"settle_{name}"] = pass_on(system, held, basis, 10 * basis + number)

    held = system.make_order(model, parcel, 3, terms=rights)
    system.buy(held, parcel)
    for years in (1, 2):
        gas["renew"] = renew(system, held, expiry + years * 365 * DAY)
    gas["add_version"] = add_version(system, model)
    gas["rotate_trace_key"] = used(
        system.models.rotateTraceKey(model.id, sha(b"second key"), sender=system.creator)
    )
    gas["buy_model"] = buy_model(system, model)
    return gas


def used(receipt: Any) -> int:
    return int(receipt.gas_used)


def pass_on(system: System, source: Order, basis: int, number: int) -> tuple[int, int]:
    """Opening and settling an order by which the buyer passes his license on to the stranger."""
    copy = make_parcel(f"onward {number}")
    id_ = source.delivery.licenseId >> 28 << 28 | FIRST_ONWARD | number
    order = source.with_(
        seller=system.buyer.address,
        basis=basis,
        source=source.delivery.licenseId,
        terms=source.sale.terms & ~0b110,
        licenseId=id_,
        buyer=system.stranger.address,
        keyCommit=key_commit(copy.key, id_, system.stranger.address),
        saleNonce=0,
        openBy=system.now + DAY,
        **copy.figures,
    )
    digest = system.digest(order)
    signatures = sign_digest(digest, system.buyer), sign_digest(digest, system.fingerprinter)
    paid = order.sale.price + order.sale.bond
    opened = system.escrow.open(order.as_tuple(), *signatures, sender=system.stranger, value=paid)
    system.reveal(order, copy)
    return used(opened), used(system.settle(order))


def renew(system: System, held: Order, expiry: int) -> int:
    value = Renewal(
        license_id=held.delivery.licenseId,
        seller=system.creator.address,
        token=NATIVE,
        price=held.sale.price,
        expiry=expiry,
        sale_nonce=held.sale.saleNonce,
        order_nonce=held.sale.orderNonce,
        open_by=system.now + DAY,
    )
    digest = eip712.renewal(value, ape.chain.chain_id, system.escrow.address).digest()
    signature = sign_digest(digest, system.creator)
    return used(system.escrow.renew(value.as_tuple(), signature, sender=system.buyer, value=value.price))


def buy_model(system: System, model: Model) -> int:
    value = ModelSale(
        model_id=model.id,
        seller=system.creator.address,
        buyer=system.buyer.address,
        token=NATIVE,
        price=ETHER,
        terms_hash=sha(b"assignment"),
        sale_nonce=system.models.statusOf(model.id).saleNonce,
        order_nonce=system.escrow.orderFloor(system.creator),
        open_by=system.now + DAY,
    )
    system.models.approve(system.escrow, model.id, sender=system.creator)
    digest = eip712.model_sale(value, ape.chain.chain_id, system.escrow.address).digest()
    signature = sign_digest(digest, system.creator)
    sale = value.as_tuple(), model.shares, signature
    return used(system.escrow.buyModel(*sale, sender=system.buyer, value=value.price))


def add_version(system: System, model: Model) -> int:
    new = ModelRecord(sha(b"onward, second version"))
    opened = astuple(model.record), astuple(new), sha(b"second metadata")
    gas = used(system.models.addVersion(model.id, *opened, sender=system.creator))
    system.models.review(model.id, new.weightsRoot, Review.APPROVED, b"\x01" * 32, sender=system.registrar)
    return gas


def rows(system: System) -> list[Row]:
    """The rows of gas.json about licenses and models passed on; `system` keeps what the measuring leaves behind."""
    gas = measure(system)
    return [Row(id_, what, gas[id_], "gas", 1) for id_, what in WHAT.items()]
