"""Royalties: paid once, pulled in any order, never more than came in."""

from __future__ import annotations

import random
from dataclasses import astuple, replace
from typing import Any

import pytest
from market import DAY, NATIVE, Model, RoyaltyTerms, System, refuses, reverts, sha, sign_digest

REASON = b"\x05" * 32
FAR = 2**40 - 1


def pay(system: System, model: Model, amount: int) -> None:
    system.income(model, amount)


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
    system.open_terms(made)
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
    ledger, shares_of = system.royalties, child.shares
    treasury = system.free(system.treasury)
    owner = system.free(system.stranger)
    receipt = ledger.pullPlatform(child.id, NATIVE, shares_of, sender=system.buyer)
    (event,) = receipt.decode_logs(ledger.RoyaltyPulled)
    assert (event.modelId, event.account, event.amount) == (child.id, system.treasury, shares["platform"])
    assert system.free(system.treasury) == treasury + shares["platform"]
    receipt = ledger.pullAncestor(child.id, NATIVE, 0, shares_of, sender=system.buyer)
    (event,) = receipt.decode_logs(ledger.RoyaltyInherited)
    assert (event.modelId, event.ancestorId, event.amount) == (child.id, model.id, shares["ancestor"])
    ledger.pullCollaborator(child.id, NATIVE, 0, shares_of, sender=system.buyer)
    ledger.pullCollaborator(child.id, NATIVE, 1, shares_of, sender=system.buyer)
    assert system.free(system.collaborator) == shares["first"]
    assert system.free(system.registrar) == shares["second"]
    ledger.pullOwner(child.id, NATIVE, shares_of, sender=system.buyer)
    assert system.free(system.stranger) == owner + shares["owner"]
    # what the parent inherited is shared between its collaborator (10 %) and its owner, without platform or ancestors
    assert ledger.inherited(model.id, NATIVE) == shares["ancestor"]
    ledger.pullCollaborator(model.id, NATIVE, 0, model.shares, sender=system.buyer)
    ledger.pullOwner(model.id, NATIVE, model.shares, sender=system.buyer)
    assert system.free(system.collaborator) == shares["first"] + shares["ancestor"] // 10
    assert system.free(system.creator) == shares["ancestor"] * 9 // 10
    with reverts(ledger.NothingToPull):
        ledger.pullPlatform(model.id, NATIVE, model.shares, sender=system.buyer)
    keys = {0: "platform", 1: "owner", 16: "first", 17: "second", 32: "ancestor"}
    for index, name in keys.items():
        assert ledger.pulled(child.id, NATIVE, index) == shares[name]


def test_pulls_never_exceed_payments_in_any_order(system: System, model: Model, child: Model) -> None:
    """Payments of a few units, pulls at random: each pays what plain arithmetic says, and never more than came in."""
    dice = random.Random(7)
    ledger, shares_of = system.royalties, child.shares
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
            with reverts(ledger.NothingToPull):
                call(child.id, NATIVE, *index, shares_of, sender=system.buyer)
        else:
            receipt = call(child.id, NATIVE, *index, shares_of, sender=system.buyer)
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
    amount = system.royalties.pullOwner(child.id, NATIVE, child.shares, sender=system.creator).return_value
    assert (system.free(system.buyer), system.free(system.stranger)) == (amount, before)


def test_a_freeze_stops_the_owner_and_nobody_else(system: System, child: Model) -> None:
    pay(system, child, 10_000)
    until = system.now + DAY
    system.models.freeze(child.id, until, REASON, sender=system.regulator)
    ledger, shares_of = system.royalties, child.shares
    with reverts(ledger.OwnerPullFrozen, values={"modelId": child.id, "until": until}):
        ledger.pullOwner(child.id, NATIVE, shares_of, sender=system.stranger)
    ledger.pullAncestor(child.id, NATIVE, 0, shares_of, sender=system.stranger)
    ledger.pullPlatform(child.id, NATIVE, shares_of, sender=system.stranger)
    ledger.pullCollaborator(child.id, NATIVE, 0, shares_of, sender=system.stranger)
    system.go_to(until)
    ledger.pullOwner(child.id, NATIVE, shares_of, sender=system.stranger)


def test_nothing_is_pulled_twice(system: System, child: Model) -> None:
    pay(system, child, 10_000)
    ledger, shares_of = system.royalties, child.shares
    for pull, index in (
        (ledger.pullPlatform, ()),
        (ledger.pullOwner, ()),
        (ledger.pullAncestor, (0,)),
        (ledger.pullCollaborator, (0,)),
    ):
        pull(child.id, NATIVE, *index, shares_of, sender=system.buyer)
        with reverts(ledger.NothingToPull, values={"modelId": child.id, "token": NATIVE}):
            pull(child.id, NATIVE, *index, shares_of, sender=system.buyer)


def test_a_pull_needs_the_models_own_terms(system: System, model: Model, child: Model) -> None:
    pay(system, child, 10_000)
    ledger = system.royalties
    greedy = RoyaltyTerms(0, ((system.buyer.address, 10_000),))
    for pull, index in ((ledger.pullCollaborator, (0,)), (ledger.pullPlatform, ()), (ledger.pullOwner, ())):
        for terms in (greedy.as_tuple(), model.shares):
            with reverts(ledger.TermsMismatch, values={"modelId": child.id}):
                pull(child.id, NATIVE, *index, terms, sender=system.buyer)
    with reverts(ledger.TermsMismatch):
        ledger.pullAncestor(child.id, NATIVE, 0, model.shares, sender=system.buyer)


def test_terms_are_opened_by_the_record_that_commits_to_them(system: System, model: Model) -> None:
    ledger = system.royalties
    fresh = system.register(system.stranger, "fresh")
    assert ledger.termsHash(fresh.id) == bytes(32)
    with reverts(ledger.TermsMismatch):
        ledger.pullPlatform(fresh.id, NATIVE, fresh.shares, sender=system.buyer)
    greedy = RoyaltyTerms(0, ((system.buyer.address, 10_000),))
    record = replace(fresh.record, royaltyHash=greedy.hash())
    with reverts(ledger.TermsMismatch, values={"modelId": fresh.id}):
        ledger.openTerms(fresh.id, astuple(fresh.record), greedy.as_tuple(), sender=system.buyer)
    for opening in ((astuple(record), greedy.as_tuple()), model.opening):
        with refuses("RecordMismatch(uint64,bytes32)"):
            ledger.openTerms(fresh.id, *opening, sender=system.buyer)
    receipt = ledger.openTerms(fresh.id, *fresh.opening, sender=system.buyer)
    (event,) = receipt.decode_logs(ledger.TermsOpened)
    assert (event.modelId, bytes(event.royaltyHash)) == (fresh.id, fresh.royalties.hash())
    assert ledger.termsHash(fresh.id) == fresh.royalties.hash()


def test_a_share_must_exist(system: System, child: Model) -> None:
    ledger = system.royalties
    with reverts(ledger.NoSuchShare, values={"modelId": child.id, "index": 1}):
        ledger.pullAncestor(child.id, NATIVE, 1, child.shares, sender=system.buyer)
    with reverts(ledger.NoSuchShare, values={"modelId": child.id, "index": 2}):
        ledger.pullCollaborator(child.id, NATIVE, 2, child.shares, sender=system.buyer)


@pytest.mark.parametrize("name", ["MisuseCourt", "OracleCommittee", None])
def test_only_the_vault_settles_with_an_owner(system: System, model: Model, name: str | None) -> None:
    sender: Any = system.as_contract(name) if name else system.deployer
    with reverts(system.royalties.NotTheVault, values={"caller": sender.address}):
        system.royalties.settleOwner(model.id, NATIVE, model.shares, sender=sender)
