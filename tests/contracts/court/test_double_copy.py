"""proveDoubleCopy, on the system as it is deployed: two orders of one fingerprinter under one license id.

Branches: no fingerprinter; the second order another's; another license; the same copy for the same buyer; either
signature bad; proven by copy or by buyer; again, for a deposit that came free.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from courtroom import FAR, impersonated, refused, send
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from market import DAY, ETHER, Model, Order, Parcel, System, refuses, sign_digest

KEY = b"\x01" * 32


def prove(system: System, a: Order, b: Order, *, signatures: tuple[bytes, bytes] | None = None) -> Any:
    first, second = signatures or (signed(system, a), signed(system, b))
    return send(
        system.committee.proveDoubleCopy,
        a.as_tuple(),
        first,
        b.as_tuple(),
        second,
        sender=system.stranger,
    )


def signed(system: System, order: Order) -> bytes:
    return sign_digest(system.digest(order), system.fingerprinter)


@pytest.fixture
def double(order: Order) -> Order:
    """The same number, another copy."""
    return order.with_(copyRoot=b"\xc2" * 32)


@pytest.mark.parametrize("change", ["copyRoot", "buyer"])
def test_a_second_copy_under_one_number_costs_the_stake(system: System, order: Order, change: str) -> None:
    value = b"\xc2" * 32 if change == "copyRoot" else system.stranger.address
    double = order.with_(**{change: value})
    maker, vault = system.fingerprinter, system.escrow
    staked, treasury = vault.stakeOf(maker).staked, system.free(system.treasury)
    held = vault.balance
    receipt = prove(system, order, double)
    assert staked > 0
    assert (
        system.committee.DoubleCopied(
            account=maker.address, licenseId=order.delivery.licenseId, slashed=staked
        )
        in receipt.events
    )
    assert system.free(system.treasury) == treasury + staked
    assert vault.stakeOf(maker).staked == 0
    assert vault.stakeOf(maker).mayLock is False
    assert vault.balance == held
    assert system.committee.barred(maker) is True
    with refuses("DepositsNotAllowed(address)"):
        system.open(order)


def test_what_is_no_double_copy(system: System, order: Order, double: Order) -> None:
    other = system.collaborator
    orders = {
        "the same twice": (order, order),
        "only the price": (order, order.with_(price=order.sale.price + 1)),
        "only the key": (order, order.with_(keyCommit=b"\x01" * 32)),
        "another license": (order, double.with_(licenseId=order.delivery.licenseId + 1)),
        "another fingerprinter's": (order, double.with_(fingerprinter=other.address)),
    }
    for pair in orders.values():
        with refused(system.committee, "NotADoubleCopy"):
            prove(system, *pair)
    good, forged = signed(system, order), sign_digest(system.digest(double), system.creator)
    for signatures in ((good, forged), (forged, signed(system, double)), (good, good), (good, b"")):
        with refused(system.committee, "NotADoubleCopy"):
            prove(system, order, double, signatures=signatures)


def test_orders_of_other_chains_and_deployments_prove_nothing(
    system: System, order: Order, double: Order
) -> None:
    for chain_id, escrow in ((1, system.escrow.address), (31337, system.court.address)):
        message = encode_typed_data(full_message=double.typed_data(chain_id, escrow))
        digest = keccak(b"\x19" + message.version + message.header + message.body)
        with refused(system.committee, "NotADoubleCopy"):
            prove(
                system,
                order,
                double,
                signatures=(signed(system, order), sign_digest(digest, system.fingerprinter)),
            )


def test_only_a_fingerprinter_is_accused_of_it(system: System, order: Order, double: Order) -> None:
    stranger = system.stranger.address
    with refused(system.committee, "NotAFingerprinter", account=stranger):
        prove(
            system,
            order.with_(fingerprinter=stranger),
            double.with_(fingerprinter=stranger),
        )


def test_a_deposit_that_comes_free_later_is_taken_too(
    system: System, model: Model, parcel: Parcel, order: Order, double: Order
) -> None:
    maker, vault = system.fingerprinter, system.escrow
    system.open(order)
    locked = vault.stakeOf(maker).locked
    assert locked == order.delivery.deposit
    prove(system, order, double)
    assert vault.stakeOf(maker).staked == locked
    system.reveal(order, parcel)
    system.settle(order)  # the buyer's order goes its way
    assert vault.stakeOf(maker).locked == 0
    receipt = prove(system, order, double)
    assert next(e for e in receipt.events if e.event_name == "DoubleCopied").slashed == locked
    assert vault.stakeOf(maker).staked == 0


def test_it_never_joins_again(system: System, order: Order, double: Order) -> None:
    maker, committee = system.fingerprinter, system.committee
    prove(system, order, double)
    committee.requestExit(sender=maker)
    system.pass_time(91 * DAY)
    committee.leave(sender=maker)
    system.fund(maker, 5 * ETHER)
    for role in (1, 2):
        with refused(committee, "Barred", account=maker.address):
            send(committee.join, role, maker, KEY, 5 * ETHER, "", FAR, b"", sender=maker)
    with refused(committee, "NotAFingerprinter", account=maker.address):
        prove(system, order, double)  # no stake of it is left to take


def test_a_fingerprinter_that_is_a_contract_answers_as_well(
    project: Any, system: System, order: Order
) -> None:
    wallet = system.deployer.deploy(project.TestWallet, system.fingerprinter, value=6 * ETHER)
    deposit = system.escrow.depositNative.encode_input(wallet)
    wallet.execute(system.escrow, 5 * ETHER, deposit, sender=system.stranger)
    join = system.committee.join.encode_input(2, wallet, KEY, 5 * ETHER, "", 0, b"")
    wallet.execute(system.committee, 0, join, sender=system.stranger)
    first = order.with_(fingerprinter=wallet.address)
    prove(system, first, first.with_(copyRoot=b"\xc2" * 32))
    assert system.escrow.stakeOf(wallet).staked == 0


def test_the_parties_of_an_order_are_no_proof_of_a_fingerprinter(system: System, order: Order) -> None:
    """The same person twice: what counts is the account that both orders name."""
    twin = impersonated("twin")
    system.stake(twin, 5 * ETHER)
    a = order.with_(fingerprinter=twin.address)
    b = replace(a).with_(copyRoot=b"\xc2" * 32)
    with refused(system.committee, "NotADoubleCopy"):
        prove(system, a, b)  # signed by the other fingerprinter's key
