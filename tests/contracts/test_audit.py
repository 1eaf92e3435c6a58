"""Attacks that a review found, each closed and named."""

from __future__ import annotations

from typing import Any

from market import NATIVE, Model, Order, Parcel, System, reverts, sha, sign_digest
from test_model import consent, register

REQUEST = sha(b"request")
DAY = 86_400


def test_a_native_fee_earns_no_token_that_is_not_listed(system: System, model: Model, parcel: Parcel) -> None:
    """A token that was never listed has index 0, like the native coin: the fee must count in its own token only."""
    unlisted = system.models.address
    system.escrow.payPrepareFee(
        REQUEST,
        model.id,
        system.fingerprinter,
        NATIVE,
        100,
        system.now + 3 * DAY,
        sender=system.buyer,
        value=100,
    )
    order = system.make_order(
        model, parcel, requestHash=REQUEST, token=unlisted, openBy=system.now + DAY + 60
    )
    system.go_to(order.sale.openBy + 1)
    signature = sign_digest(system.digest(order), system.creator)
    with reverts(system.escrow.RequestUnknown, values={"requestHash": REQUEST}):
        system.escrow.earnPrepareFee(order.as_tuple(), signature, sender=system.fingerprinter)
    assert system.free(system.fingerprinter, unlisted) == 0


def test_an_operators_stake_cannot_hide_in_a_deposit(
    system: System, model: Model, parcel: Parcel, accounts: Any
) -> None:
    operator = accounts[9]
    system.stake(operator, 20 * 10**18, role=1)
    order = system.make_order(model, parcel, fingerprinter=operator.address)
    digest = system.digest(order)
    pair = sign_digest(digest, system.creator), sign_digest(digest, operator)
    with reverts(system.escrow.DepositsNotAllowed, values={"account": operator.address}):
        system.escrow.open(
            order.as_tuple(), *pair, sender=system.buyer, value=order.sale.price + order.sale.bond
        )


def test_a_leaving_fingerprinter_locks_no_new_deposit(system: System, order: Order) -> None:
    system.committee.requestExit(sender=system.fingerprinter)
    with reverts(system.escrow.DepositsNotAllowed):
        system.open(order)


def test_a_parent_is_named_once(system: System, model: Model) -> None:
    root = sha(b"fresh")
    proof = consent(system, model, root, 100)
    with reverts(system.models.ParentRepeated, values={"parentId": model.id}):
        register(system, parents=[proof, proof])


def test_a_range_claim_needs_a_committee_to_answer_it(system: System, order: Order, parcel: Parcel) -> None:
    system.open(order)
    system.reveal(order, parcel)
    assert system.committee.currentEpoch() == 0
    with reverts(system.escrow.NoCommittee):
        system.escrow.rangeClaim(
            order.as_tuple(), bytes(32), sender=system.buyer, value=order.sale.price // 10
        )
