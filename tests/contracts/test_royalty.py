"""Royalties: paid once, pulled in any order, never more than came in."""

from __future__ import annotations

import random
from dataclasses import astuple, replace
from typing import Any

import ape
import pytest
from market import DAY, ETHER, NATIVE, Model, RoyaltyTerms, System, sha, sign_digest

REASON = b"\x05" * 32
FAR = 2**40 - 1


def pay(system: System, model: Model, amount: int) -> None:
    """Money that entered the pool for the model: as the vault does it, with the coins really there."""
    system.escrow.depositNative(system.stranger, sender=system.stranger, value=amount)
    vault = system.as_contract("LicenseEscrow")
    system.royalties.pay(model.id, NATIVE, amount, sender=vault)


def raise_pool(system: System, amount: int) -> None:
    """The pool's slot, set as a sale would raise it."""
    from eth_abi import encode
    from eth_utils import keccak

    web3 = ape.chain.provider.web3
    before = system.escrow.royaltyPool(NATIVE)
    for slot in range(12):
        place = keccak(encode(["address", "uint256"], [NATIVE, slot])).hex()
        snapshot = web3.provider.make_request("evm_snapshot", [])["result"]
        word = "0x" + (before + amount).to_bytes(32, "big").hex()
        web3.provider.make_request("anvil_setStorageAt", [system.escrow.address, "0x" + place, word])
        if system.escrow.royaltyPool(NATIVE) == before + amount:
            return
        web3.provider.make_request("evm_revert", [snapshot])
    raise AssertionError("no slot holds the pool")


@pytest.fixture
def child(system: System, model: Model) -> Model:
    """10 % of its gross to `model`; two collaborators with 30 % and 12.34 % of its net."""
    root = sha(b"child")
    digest = system.models.consentDigest(model.id, root, system.stranger, 1_000, FAR)
    signature = sign_digest(bytes(digest), system.creator)
    proof = (model.id, 1_000, 0, FAR, signature, model.royalties.as_tuple(), astuple(model.record))
    shares = ((system.collaborator.address, 3_000), (system.registrar.address, 1_234))
    made = system.register(
        system.stranger, "child", collaborators=shares, parents=(proof,), ancestors=((model.id, 1_000),)
    )
    raise_pool(system, 100 * ETHER)
    return made


def test_shares_of_a_sale(system: System, model: Model, child: Model) -> None:
    """1,000,003: platform 5 %, ancestor 10 %, the rest 30 / 12.34 / 57.66; each rounded down."""
    pay(system, child, 1_000_003)
    net = 1_000_003 * 8_500 // 10_000
    shares = {
        "platform": 1_000_003 * 500 // 10_000,
        "ancestor": 1_000_003 * 1_000 // 10_000,
        "first": net * 3_000 // 10_000,
        "second": net * 1_234 // 10_000,
        "owner": net * 5_766 // 10_000,
    }
    assert 1_000_003 - 22 <= sum(shares.values()) <= 1_000_003
    ledger, opening = system.royalties, child.opening
    treasury = system.free(system.treasury)
    owner = system.free(system.stranger)
    receipt = ledger.pullPlatform(child.id, NATIVE, *opening, sender=system.buyer)
    (event,) = receipt.decode_logs(ledger.RoyaltyPulled)
    assert (event.modelId, event.account, event.amount) == (child.id, system.treasury, shares["platform"])
    assert system.free(system.treasury) == treasury + shares["platform"]
    receipt = ledger.pullAncestor(child.id, NATIVE, 0, *opening, sender=system.buyer)
    (event,) = receipt.decode_logs(ledger.RoyaltyInherited)
    assert (event.modelId, event.ancestorId, event.amount) == (child.id, model.id, shares["ancestor"])
    ledger.pullCollaborator(child.id, NATIVE, 0, *opening, sender=system.buyer)
    ledger.pullCollaborator(child.id, NATIVE, 1, *opening, sender=system.buyer)
    assert system.free(system.collaborator) == shares["first"]
    assert system.free(system.registrar) == shares["second"]
    ledger.pullOwner(child.id, NATIVE, *opening, sender=system.buyer)
    assert system.free(system.stranger) == owner + shares["owner"]
    # what the parent inherited is shared between its collaborator (10 %) and its owner, without platform or ancestors
    assert ledger.inherited(model.id, NATIVE) == shares["ancestor"]
    ledger.pullCollaborator(model.id, NATIVE, 0, *model.opening, sender=system.buyer)
    ledger.pullOwner(model.id, NATIVE, *model.opening, sender=system.buyer)
    assert system.free(system.collaborator) == shares["first"] + shares["ancestor"] // 10
    assert system.free(system.creator) == shares["ancestor"] * 9 // 10
    with ape.reverts(ledger.NothingToPull):
        ledger.pullPlatform(model.id, NATIVE, *model.opening, sender=system.buyer)
    keys = {0: "platform", 1: "owner", 16: "first", 17: "second", 32: "ancestor"}
    for index, name in keys.items():
        assert ledger.pulled(child.id, NATIVE, index) == shares[name]


def test_pulls_never_exceed_payments_in_any_order(system: System, model: Model, child: Model) -> None:
    """Payments of a few units, pulls at random: each pays what plain arithmetic says, and never more than came in."""
    dice = random.Random(7)
    ledger, opening = system.royalties, child.opening
    pulls: dict[int, tuple[Any, tuple[int, ...]]] = {
        0: (ledger.pullPlatform, ()),
        1: (ledger.pullOwner, ()),
        16: (ledger.pullCollaborator, (0,)),
        17: (ledger.pullCollaborator, (1,)),
        32: (ledger.pullAncestor, (0,)),
    }
    paid = 0
    pulled = dict.fromkeys(pulls, 0)

    def pull(share: int) -> None:
        net = paid * 8_500 // 10_000
        earned = {
            0: paid * 500 // 10_000,
            1: net * 5_766 // 10_000,
            16: net * 3_000 // 10_000,
            17: net * 1_234 // 10_000,
            32: paid * 1_000 // 10_000,
        }[share]
        call, index = pulls[share]
        if earned == pulled[share]:
            with ape.reverts(ledger.NothingToPull):
                call(child.id, NATIVE, *index, *opening, sender=system.buyer)
        else:
            receipt = call(child.id, NATIVE, *index, *opening, sender=system.buyer)
            assert receipt.return_value == earned - pulled[share]
            pulled[share] = earned
        assert sum(pulled.values()) <= paid

    for _ in range(20):
        amount = dice.choice([1, 2, 3, 7, 19, 9_999])
        pay(system, child, amount)
        paid += amount
        for share in dice.sample(sorted(pulls), 2):
            pull(share)
    for share in pulls:
        pull(share)
    assert paid - 22 <= sum(pulled.values()) <= paid
    assert [ledger.pulled(child.id, NATIVE, share) for share in pulls] == list(pulled.values())


def test_what_the_owner_left_goes_with_the_token(system: System, child: Model) -> None:
    pay(system, child, 10_000)
    system.models.transferFrom(system.stranger, system.buyer, child.id, sender=system.stranger)
    before = system.free(system.stranger)
    amount = system.royalties.pullOwner(child.id, NATIVE, *child.opening, sender=system.creator).return_value
    assert (system.free(system.buyer), system.free(system.stranger)) == (amount, before)


def test_a_freeze_stops_the_owner_and_nobody_else(system: System, child: Model) -> None:
    pay(system, child, 10_000)
    until = system.now + DAY
    system.models.freeze(child.id, until, REASON, sender=system.regulator)
    ledger, opening = system.royalties, child.opening
    with ape.reverts(ledger.OwnerPullFrozen, error_inputs={"modelId": child.id, "until": until}):
        ledger.pullOwner(child.id, NATIVE, *opening, sender=system.stranger)
    ledger.pullAncestor(child.id, NATIVE, 0, *opening, sender=system.stranger)
    ledger.pullPlatform(child.id, NATIVE, *opening, sender=system.stranger)
    ledger.pullCollaborator(child.id, NATIVE, 0, *opening, sender=system.stranger)
    system.go_to(until)
    ledger.pullOwner(child.id, NATIVE, *opening, sender=system.stranger)


def test_nothing_is_pulled_twice(system: System, child: Model) -> None:
    pay(system, child, 10_000)
    ledger, opening = system.royalties, child.opening
    for pull, index in (
        (ledger.pullPlatform, ()),
        (ledger.pullOwner, ()),
        (ledger.pullAncestor, (0,)),
        (ledger.pullCollaborator, (0,)),
    ):
        pull(child.id, NATIVE, *index, *opening, sender=system.buyer)
        with ape.reverts(ledger.NothingToPull, error_inputs={"modelId": child.id, "token": NATIVE}):
            pull(child.id, NATIVE, *index, *opening, sender=system.buyer)


def test_a_pull_needs_the_models_own_terms(system: System, model: Model, child: Model) -> None:
    pay(system, child, 10_000)
    ledger = system.royalties
    greedy = RoyaltyTerms(0, ((system.buyer.address, 10_000),))
    record = replace(child.record, royaltyHash=greedy.hash())
    with ape.reverts(ledger.TermsMismatch, error_inputs={"modelId": child.id}):
        ledger.pullCollaborator(
            child.id, NATIVE, 0, astuple(child.record), greedy.as_tuple(), sender=system.buyer
        )
    with ape.reverts(ledger.RecordMismatch, error_inputs={"modelId": child.id}):
        ledger.pullCollaborator(child.id, NATIVE, 0, astuple(record), greedy.as_tuple(), sender=system.buyer)
    with ape.reverts(ledger.RecordMismatch, error_inputs={"modelId": child.id}):
        ledger.pullOwner(child.id, NATIVE, *model.opening, sender=system.buyer)


def test_a_share_must_exist(system: System, child: Model) -> None:
    ledger = system.royalties
    with ape.reverts(ledger.NoSuchShare, error_inputs={"modelId": child.id, "index": 1}):
        ledger.pullAncestor(child.id, NATIVE, 1, *child.opening, sender=system.buyer)
    with ape.reverts(ledger.NoSuchShare, error_inputs={"modelId": child.id, "index": 2}):
        ledger.pullCollaborator(child.id, NATIVE, 2, *child.opening, sender=system.buyer)


@pytest.mark.parametrize("name", ["MisuseCourt", "OracleCommittee", None])
def test_only_the_vault_pays(system: System, model: Model, name: str | None) -> None:
    sender: Any = system.as_contract(name) if name else system.deployer
    with ape.reverts(system.royalties.NotTheVault, error_inputs={"caller": sender.address}):
        system.royalties.pay(model.id, NATIVE, 1, sender=sender)
