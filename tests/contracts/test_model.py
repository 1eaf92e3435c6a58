"""Model tokens: registration, lineage, review, freeze, transfer."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import ape
import pytest
from eth_account.messages import encode_typed_data
from eth_utils import keccak, to_checksum_address
from market import (
    DAY,
    EMPTY_CID,
    Model,
    ModelRecord,
    Review,
    RoyaltyTerms,
    System,
    isolated,
    make_parcel,
    malleable_twin,
    refuses,
    reverts,
    sha,
    sign_digest,
    terms,
)

REASON = b"\x05" * 32
META = b"\x3e" * 32
LONG_AGO = 1
FAR = 2**40 - 1


CONSENT = {
    "ParentConsent": [
        {"name": "parentId", "type": "uint64"},
        {"name": "weightsRoot", "type": "bytes32"},
        {"name": "registrant", "type": "address"},
        {"name": "bps", "type": "uint16"},
        {"name": "deadline", "type": "uint40"},
    ]
}


def record(seed: str = "fresh", **changes: Any) -> tuple[Any, ...]:
    return astuple(replace(ModelRecord(sha(seed.encode())), **changes))


def register(
    system: System, *, sender: Any = None, rec: Any = None, preferences: int = 0, **lists: Any
) -> Any:
    return system.models.register(
        rec or record(),
        EMPTY_CID,
        preferences,
        lists.get("collaborators", []),
        lists.get("parents", []),
        sender=sender or system.creator,
    )


def reject(system: System, model_id: int, root: bytes) -> Any:
    return system.models.review(model_id, root, Review.REJECTED, REASON, sender=system.registrar)


def kept_hash(system: System, of: ModelRecord) -> bytes:
    return bytes(system.models.recordHashOf(of.weightsRoot))


# ---------------------------------------------------------------- register


def test_register_records_everything(system: System) -> None:
    share = (system.collaborator.address, 1_000)
    before, owned = system.models.modelCount(), system.models.balanceOf(system.creator)
    made = system.register(system.creator, "whole", preferences=0b11_10_01_00_01_10, collaborators=(share,))
    assert made.id == before + 1
    status = system.models.statusOf(made.id)
    assert status.owner == system.models.ownerOf(made.id) == system.creator
    assert status.preferences == 0b11_10_01_00_01_10
    assert (status.review, status.delisted, status.freezeCount) == (Review.PENDING, False, 0)
    assert (status.frozenUntil, status.delistedUntil, status.saleNonce) == (0, 0, 0)
    assert kept_hash(system, made.record) == made.record.hash()[:24]
    assert system.models.versionUnderReview(made.id) == bytes(32)
    assert tuple(system.models.traceKeyOf(made.id)) == (bytes(32), 0)
    system.models.checkRecord(made.id, astuple(made.record))
    assert system.models.modelOfRoot(made.record.weightsRoot) == made.id
    assert system.models.metadataDigest(made.id) == EMPTY_CID
    assert system.models.tokenURI(made.id) == "ipfs://f01701220" + EMPTY_CID.hex()
    assert system.models.balanceOf(system.creator) == owned + 1


def test_register_event_opens_the_record(system: System) -> None:
    share = (system.collaborator.address, 1_000)
    receipt = register(system, rec=record("event"), preferences=5, collaborators=[share])
    (event,) = receipt.decode_logs(system.models.ModelRegistered)
    stored = ModelRecord(*event.record)
    assert kept_hash(system, stored) == stored.hash()[:24]
    system.models.checkRecord(event.modelId, event.record)
    assert event.owner == system.creator
    assert event.weightsRoot == sha(b"event")
    assert event.preferences == 5
    platform_bps, collaborators, ancestors = event.royalties
    assert platform_bps == system.models.platformBps() == system.params.platform_bps
    assert [(to_checksum_address(account), bps) for account, bps in collaborators] == [share]
    assert list(ancestors) == []


def test_a_root_is_registered_once(system: System, model: Model) -> None:
    with reverts(system.models.RootAlreadyRegistered, values={"modelId": model.id}):
        register(system, sender=system.stranger, rec=record("model"))


def test_the_root_of_a_rejected_model_is_free_again(system: System) -> None:
    squatted = system.register(system.stranger, "squatted")
    reject(system, squatted.id, sha(b"squatted"))
    register(system, rec=record("squatted"))
    with reverts(system.models.RecordMismatch, values={"modelId": squatted.id}):
        system.models.checkRecord(squatted.id, astuple(squatted.record))
    assert system.models.modelOfRoot(sha(b"squatted")) == squatted.id + 1
    with reverts(system.models.RootAlreadyRegistered):
        register(system, sender=system.stranger, rec=record("squatted"))


def test_register_refuses_an_empty_bundle(system: System) -> None:
    with reverts(system.models.EmptyBundle):
        register(system, rec=record(totalBytes=0))
    with reverts(system.models.EmptyBundle):
        register(system, rec=record(chunks=0))
    with reverts(system.models.EmptyBundle):
        register(system, rec=record(weightsRoot=bytes(32)))


def test_register_refuses_chunks_that_do_not_hold_the_bytes(system: System) -> None:
    for wrong in ({"chunks": 9, "totalBytes": 10 * 896}, {"chunkSize": 0}, {"chunks": 11, "totalBytes": 10}):
        with reverts(system.models.ChunksDoNotFit):
            register(system, rec=record(**wrong))


def test_register_refuses_preferences_beyond_six_codes(system: System) -> None:
    with reverts(system.models.BadPreferences, values={"preferences": 0x1000}):
        register(system, preferences=0x1000)


def test_register_refuses_shares_over_the_whole(system: System) -> None:
    shares = [(system.collaborator, 6_000), (system.stranger, 4_001)]
    with reverts(system.models.SharesTooLarge, values={"bps": 10_001}):
        register(system, collaborators=shares)


def test_register_refuses_more_than_ten_collaborators(system: System) -> None:
    with reverts(system.models.TooManyShares, values={"given": 11, "max": 10}):
        register(system, collaborators=[(system.collaborator, 1)] * 11)


def test_a_platform_fee_over_a_tenth_is_refused(system: System, project: Any) -> None:
    with reverts(system.models.SharesTooLarge):
        system.deployer.deploy(
            project.ModelNFT, system.manager, system.licenses, system.court, system.treasury, 1_001, ""
        )


def test_the_royalty_hash_given_is_ignored(system: System) -> None:
    register(system, rec=record("own royalties", royaltyHash=b"\xff" * 32))
    given = replace(ModelRecord(sha(b"own royalties")), royaltyHash=b"\xff" * 32)
    assert kept_hash(system, given) != given.hash()[:24]
    ours = replace(given, royaltyHash=RoyaltyTerms(system.params.platform_bps).hash())
    assert kept_hash(system, ours) == ours.hash()[:24]


# ---------------------------------------------------------------- lineage


def consent(
    system: System, parent: Model, root: bytes, bps: int, *, registrant: Any = None, signer: Any = None
) -> Any:
    signer = signer or system.creator
    registrant = registrant or system.creator
    digest = system.models.consentDigest(parent.id, root, registrant, bps, FAR)
    signature = sign_digest(bytes(digest), signer)
    return (parent.id, bps, 0, FAR, signature, parent.royalties.as_tuple(), astuple(parent.record))


def test_consent_digest_is_eip712(system: System, model: Model) -> None:
    message = encode_typed_data(
        {
            "name": "ZhiYiChain ModelNFT",
            "version": "1",
            "chainId": ape.chain.chain_id,
            "verifyingContract": system.models.address,
        },
        CONSENT,
        {
            "parentId": 1,
            "weightsRoot": REASON,
            "registrant": system.buyer.address,
            "bps": 300,
            "deadline": 99,
        },
    )
    expected = keccak(b"\x19" + message.version + message.header + message.body)
    assert bytes(system.models.consentDigest(1, REASON, system.buyer, 300, 99)) == expected


def test_lineage_is_flattened_and_merged(system: System) -> None:
    """c takes 1000 of b and 500 of a; b gave a 2000 of its own: a gets 500 + 200, b keeps 800."""
    a = system.register(system.creator, "a")
    system.approve(a)
    b = system.register(
        system.creator, "b", parents=(consent(system, a, sha(b"b"), 2_000),), ancestors=((a.id, 2_000),)
    )
    system.approve(b)
    parents = (consent(system, b, sha(b"c"), 1_000), consent(system, a, sha(b"c"), 500))
    c = system.register(system.creator, "c", parents=parents, ancestors=((a.id, 700), (b.id, 800)))
    system.models.checkRecord(c.id, astuple(c.record))


def test_an_ancestor_whose_share_rounds_to_nothing_is_left_out(system: System) -> None:
    """Of 9 bps a tenth is nothing; of 10 it is 1. So a family may have more generations than a lineage has places."""
    a = system.register(system.creator, "a")
    system.approve(a)
    b = system.register(
        system.creator, "b", parents=(consent(system, a, sha(b"b"), 1_000),), ancestors=((a.id, 1_000),)
    )
    system.approve(b)
    for name, bps, lineage in (("c", 9, ((b.id, 9),)), ("d", 10, ((a.id, 1), (b.id, 9)))):
        proof = consent(system, b, sha(name.encode()), bps)
        child = system.register(system.creator, name, parents=(proof,), ancestors=lineage)
        system.models.checkRecord(child.id, astuple(child.record))


def test_a_parent_needs_its_owners_signature(system: System, model: Model) -> None:
    root = sha(b"fresh")
    for proof in (
        consent(system, model, root, 100, signer=system.stranger),
        consent(system, model, sha(b"other root"), 100),
        consent(system, model, root, 100, registrant=system.stranger),
        (*consent(system, model, root, 100)[:1], 99, *consent(system, model, root, 100)[2:]),
    ):
        with reverts(system.models.ParentNotAgreed, values={"parentId": model.id}):
            register(system, parents=[proof])


def test_a_consent_ends_at_its_deadline(system: System, model: Model) -> None:
    digest = system.models.consentDigest(model.id, sha(b"fresh"), system.creator, 100, LONG_AGO)
    signature = sign_digest(bytes(digest), system.creator)
    proof = (model.id, 100, 0, LONG_AGO, signature, model.royalties.as_tuple(), astuple(model.record))
    with reverts(system.models.ParentNotAgreed):
        register(system, parents=[proof])


def test_a_parents_terms_must_be_its_own(system: System, model: Model) -> None:
    good = consent(system, model, sha(b"fresh"), 100)
    forged = (*good[:5], (0, [], []), good[6])
    with reverts(system.models.RecordMismatch, values={"modelId": model.id}):
        register(system, parents=[forged])
    forged = (*good[:6], astuple(replace(model.record, traceKeyCommit=REASON)))
    with reverts(system.models.RecordMismatch, values={"modelId": model.id}):
        register(system, parents=[forged])


def test_a_parent_must_be_approved(system: System, model: Model) -> None:
    fresh = system.register(system.creator, "unseen parent")
    proof = consent(system, fresh, sha(b"fresh"), 100)
    for review in (Review.PENDING, Review.REJECTED):
        with reverts(system.models.ParentNotApproved, values={"parentId": fresh.id, "review": review}):
            register(system, parents=[proof])
        if review == Review.PENDING:
            reject(system, fresh.id, fresh.record.weightsRoot)


def test_a_parent_is_named_once(system: System, model: Model) -> None:
    proof = consent(system, model, sha(b"fresh"), 100)
    with reverts(system.models.ParentRepeated, values={"parentId": model.id}):
        register(system, parents=[proof, proof])


def test_a_consent_is_low_s_and_of_this_deployment(system: System, model: Model, project: Any) -> None:
    """Its mirrored twin, one for another chain and one for another deployment are refused."""
    root = sha(b"fresh")
    good = consent(system, model, root, 100)
    wrong = [(*good[:4], malleable_twin(good[4]), *good[5:])]
    other = system.deployer.deploy(
        project.ModelNFT, system.manager, system.licenses, system.court, system.treasury, 0, ""
    )
    for chain_id, contract in ((1, system.models.address), (ape.chain.chain_id, other.address)):
        message = encode_typed_data(
            {
                "name": "ZhiYiChain ModelNFT",
                "version": "1",
                "chainId": chain_id,
                "verifyingContract": contract,
            },
            CONSENT,
            {
                "parentId": model.id,
                "weightsRoot": root,
                "registrant": system.creator.address,
                "bps": 100,
                "deadline": FAR,
            },
        )
        digest = keccak(b"\x19" + message.version + message.header + message.body)
        wrong.append((*good[:4], sign_digest(digest, system.creator), *good[5:]))
    wrong.append((*good[:4], good[4][:64], *good[5:]))
    wrong.append((*good[:4], good[4] + b"\x00", *good[5:]))
    for proof in wrong:
        with reverts(system.models.ParentNotAgreed):
            register(system, parents=[proof])
    register(system, parents=[good])


def test_a_wallet_contract_consents_by_erc1271(system: System, model: Model, project: Any) -> None:
    wallet = system.deployer.deploy(project.TestWallet, system.collaborator)
    system.models.transferFrom(system.creator, wallet, model.id, sender=system.creator)
    with reverts(system.models.ParentNotAgreed):
        register(system, parents=[consent(system, model, sha(b"fresh"), 100)])  # the owner before
    register(system, parents=[consent(system, model, sha(b"fresh"), 100, signer=system.collaborator)])


def test_a_parent_must_exist(system: System, model: Model) -> None:
    ghost = replace(model, id=999)
    with reverts(system.models.NoSuchModel, values={"modelId": 999}):
        register(system, parents=[consent(system, ghost, sha(b"fresh"), 100)])


def test_lineage_takes_half_at_most(system: System, model: Model) -> None:
    with reverts(system.models.SharesTooLarge, values={"bps": 5_001, "max": 5_000}):
        register(system, parents=[consent(system, model, sha(b"fresh"), 5_001)])


def test_lineage_has_ten_ancestors_at_most(system: System) -> None:
    parents = [system.register(system.creator, f"ancestor {i}") for i in range(11)]
    for parent in parents:
        system.approve(parent)
    proofs = [consent(system, parent, sha(b"fresh"), 10) for parent in parents]
    register(system, parents=proofs[:10])
    with reverts(system.models.TooManyShares, values={"given": 11, "max": 10}):
        register(
            system,
            rec=record("eleven"),
            parents=[consent(system, parent, sha(b"eleven"), 10) for parent in parents],
        )


@pytest.mark.parametrize(
    ("packed", "bps", "agreed"),
    [
        (terms(flags=8, derivative_bps=300), 300, True),
        (terms(flags=8, derivative_bps=300), 299, False),
        (terms(flags=1), 300, False),
    ],
)
def test_a_license_that_allows_derivatives_is_consent(
    system: System, model: Model, packed: int, bps: int, agreed: bool
) -> None:
    parcel = make_parcel()
    order = system.make_order(model, parcel, terms=packed)
    system.buy(order, parcel)
    proof = (
        model.id,
        bps,
        order.delivery.licenseId,
        0,
        b"",
        model.royalties.as_tuple(),
        astuple(model.record),
    )
    with reverts(system.models.ParentNotAgreed):  # not the holder
        register(system, sender=system.stranger, parents=[proof])
    other = system.register(system.creator, "another parent")
    system.approve(other)
    borrowed = (other.id, *proof[1:5], other.royalties.as_tuple(), astuple(other.record))
    with reverts(system.models.ParentNotAgreed, values={"parentId": other.id}):
        register(system, sender=system.buyer, parents=[borrowed])
    if agreed:
        register(system, sender=system.buyer, parents=[proof])
        system.licenses.surrender(order.delivery.licenseId, sender=system.buyer)
        with reverts(system.models.ParentNotAgreed):  # not active any more
            register(system, sender=system.buyer, rec=record("later"), parents=[proof])
    else:
        with reverts(system.models.ParentNotAgreed):
            register(system, sender=system.buyer, parents=[proof])


# ---------------------------------------------------------------- owner


def test_preferences_change_with_their_metadata(system: System, model: Model) -> None:
    receipt = system.models.setPreferences(model.id, 0xABC, REASON, sender=system.creator)
    (event,) = receipt.decode_logs(system.models.PreferencesChanged)
    assert (event.before, event.preferences, event.metadataDigest) == (0, 0xABC, REASON)
    assert receipt.decode_logs(system.models.MetadataUpdate)[0].tokenId == model.id
    status = system.models.statusOf(model.id)
    assert (status.preferences, status.review, status.owner) == (0xABC, Review.APPROVED, system.creator)
    assert system.models.metadataDigest(model.id) == REASON


def test_preferences_are_the_owners_and_six_codes(system: System, model: Model) -> None:
    with reverts(system.models.NotTheOwner, values={"caller": system.stranger.address}):
        system.models.setPreferences(model.id, 0, REASON, sender=system.stranger)
    with reverts(system.models.BadPreferences):
        system.models.setPreferences(model.id, 0x1000, REASON, sender=system.creator)


def test_trace_key_counts_from_its_rotation_on(system: System, model: Model) -> None:
    for commit in (REASON, b"\x06" * 32):
        receipt = system.models.rotateTraceKey(model.id, commit, sender=system.creator)
        (event,) = receipt.decode_logs(system.models.TraceKeyRotated)
        assert (event.modelId, event.traceKeyCommit, event.at) == (model.id, commit, receipt.timestamp)
        assert tuple(system.models.traceKeyOf(model.id)) == (commit, receipt.timestamp)
    system.models.checkRecord(model.id, astuple(model.record))


def test_trace_key_is_the_owners(system: System, model: Model) -> None:
    with reverts(system.models.NotTheOwner, values={"caller": system.stranger.address}):
        system.models.rotateTraceKey(model.id, REASON, sender=system.stranger)
    with reverts(system.models.NoSuchModel, values={"modelId": 999}):
        system.models.rotateTraceKey(999, REASON, sender=system.creator)


def test_a_transfer_raises_the_sale_nonce_and_keeps_the_rest(system: System, model: Model) -> None:
    system.models.setPreferences(model.id, 0xFFF, REASON, sender=system.creator)
    system.models.transferFrom(system.creator, system.stranger, model.id, sender=system.creator)
    status = system.models.statusOf(model.id)
    assert (status.owner, status.saleNonce) == (system.stranger, 1)
    assert (status.preferences, status.review) == (0xFFF, Review.APPROVED)
    system.models.approve(system.buyer, model.id, sender=system.stranger)
    transfer = system.models.safeTransferFrom
    transfer(system.stranger, system.creator, model.id, sender=system.buyer)
    assert system.models.statusOf(model.id).saleNonce == 2


def test_the_model_token_takes_no_value(system: System, model: Model) -> None:
    with reverts(system.models.ValueNotTaken, values={"value": 1}):
        system.models.transferFrom(system.creator, system.stranger, model.id, sender=system.creator, value=1)
    with reverts(system.models.ValueNotTaken):
        system.models.approve(system.stranger, model.id, sender=system.creator, value=1)


# ---------------------------------------------------------------- registrar, regulator


def test_review_is_final(system: System, model: Model) -> None:
    with reverts(system.models.AlreadyReviewed, values={"modelId": model.id, "review": Review.APPROVED}):
        reject(system, model.id, model.record.weightsRoot)


def test_review_says_who_decided_what(system: System) -> None:
    for outcome in (Review.APPROVED, Review.REJECTED):
        fresh = system.register(system.creator, f"review {outcome}")
        root = fresh.record.weightsRoot
        receipt = system.models.review(fresh.id, root, outcome, REASON, sender=system.registrar)
        (event,) = receipt.decode_logs(system.models.ModelReviewed)
        assert (event.modelId, event.registrar, event.weightsRoot) == (fresh.id, system.registrar, root)
        assert (event.review, event.reasonHash) == (outcome, REASON)
        assert receipt.decode_logs(system.models.MetadataUpdate) == []
        assert system.models.statusOf(fresh.id).review == outcome


def test_review_names_what_was_examined(system: System, model: Model) -> None:
    fresh = system.register(system.creator, "fresh")
    for root in (sha(b"never registered"), model.record.weightsRoot):
        with reverts(system.models.NotUnderReview, values={"modelId": fresh.id, "weightsRoot": root}):
            system.models.review(fresh.id, root, Review.APPROVED, REASON, sender=system.registrar)


def test_review_needs_an_outcome_and_a_model(system: System) -> None:
    fresh = system.register(system.creator, "fresh")
    with reverts(system.models.NotAnOutcome):
        system.models.review(
            fresh.id, fresh.record.weightsRoot, Review.PENDING, REASON, sender=system.registrar
        )
    with reverts(system.models.NoSuchModel):
        reject(system, fresh.id + 1, fresh.record.weightsRoot)


def test_each_power_belongs_to_its_role(system: System, model: Model) -> None:
    models = system.models
    for call in (
        lambda who: models.review(model.id, REASON, Review.APPROVED, REASON, sender=who),
        lambda who: models.freeze(model.id, system.now + DAY, REASON, sender=who),
        lambda who: models.lift(model.id, REASON, sender=who),
        lambda who: models.delist(model.id, 0, REASON, sender=who),
        lambda who: models.setContractURI("ipfs://else", sender=who),
        lambda who: system.escrow.listToken(models.address, True, sender=who),
        lambda who: system.escrow.pauseOpening(system.now + DAY, sender=who),
        lambda who: system.escrow.resumeOpening(sender=who),
    ):
        with refuses("AccessManagedUnauthorized(address)"):
            call(system.creator)


def test_a_freeze_has_an_end_and_a_limit(system: System, model: Model) -> None:
    models, regulator = system.models, system.regulator
    with reverts(models.FreezeTooLong):
        models.freeze(model.id, system.now + 31 * DAY, REASON, sender=regulator)
    with reverts(models.FreezeTooLong):
        models.freeze(model.id, system.now - 1, REASON, sender=regulator)
    for count in (1, 2, 3):
        receipt = models.freeze(model.id, system.now + 29 * DAY, REASON, sender=regulator)
        (event,) = receipt.decode_logs(models.ModelFrozen)
        status = models.statusOf(model.id)
        assert (status.freezeCount, status.frozenUntil) == (count, event.until)
        system.pass_time(29 * DAY)
    with reverts(models.FreezeLimit, values={"count": 3}):
        models.freeze(model.id, system.now + DAY, REASON, sender=regulator)
    system.pass_time(181 * DAY)
    models.freeze(model.id, system.now + DAY, REASON, sender=regulator)
    assert models.statusOf(model.id).freezeCount == 1


def test_a_lift_ends_a_freeze_but_not_its_count(system: System, model: Model) -> None:
    models, regulator = system.models, system.regulator
    models.freeze(model.id, system.now + 29 * DAY, REASON, sender=regulator)
    models.lift(model.id, REASON, sender=regulator)
    status = models.statusOf(model.id)
    assert status.frozenUntil <= system.now
    assert status.freezeCount == 1
    with reverts(models.NotFrozen, values={"modelId": model.id}):
        models.lift(model.id, REASON, sender=regulator)


def test_a_freeze_starts_after_now(system: System, model: Model) -> None:
    now = system.now + 10
    system.go_to(now)
    with reverts(system.models.FreezeTooLong, values={"until": now, "max": now + 30 * DAY}):
        system.models.freeze(model.id, now, REASON, sender=system.regulator)


def test_a_verdict_freezes_outside_the_count(system: System, model: Model) -> None:
    models, court = system.models, system.as_contract("MisuseCourt")
    models.freeze(model.id, system.now + 29 * DAY, REASON, sender=system.regulator)
    receipt = models.freezeByVerdict(model.id, REASON, sender=court)
    (event,) = receipt.decode_logs(models.ModelFrozenByVerdict)
    assert (event.modelId, event.caseId, event.until) == (model.id, REASON, receipt.timestamp + 30 * DAY)
    status = models.statusOf(model.id)
    assert (status.freezeCount, status.frozenUntil) == (1, event.until)
    receipt = models.freezeByVerdict(model.id, b"\x06" * 32, sender=court)  # while frozen, and again
    assert models.statusOf(model.id).frozenUntil == receipt.timestamp + 30 * DAY
    models.lift(model.id, REASON, sender=system.regulator)
    assert models.statusOf(model.id).frozenUntil <= system.now
    for _ in range(2):
        models.freeze(model.id, system.now + DAY, REASON, sender=system.regulator)
    with reverts(models.FreezeLimit, values={"count": 3}):
        models.freeze(model.id, system.now + DAY, REASON, sender=system.regulator)
    models.freezeByVerdict(model.id, b"\x07" * 32, sender=court)  # the regulator's limit is not the court's
    system.pass_time(211 * DAY)
    models.freezeByVerdict(model.id, b"\x08" * 32, sender=court)
    assert models.statusOf(model.id).freezeCount == 0


def test_freezing_by_verdict_is_the_courts(system: System, model: Model) -> None:
    for sender in (system.regulator, system.deployer, system.as_contract("LicenseEscrow")):
        with reverts(system.models.NotTheCourt, values={"caller": sender.address}):
            system.models.freezeByVerdict(model.id, REASON, sender=sender)
    with reverts(system.models.NoSuchModel):
        system.models.freezeByVerdict(999, REASON, sender=system.as_contract("MisuseCourt"))


def test_a_delisting_ends_with_its_day(system: System, model: Model) -> None:
    models, before = system.models, system.models.statusOf(model.id)
    day = system.now // DAY + 2
    receipt = models.delist(model.id, day, REASON, sender=system.regulator)
    (event,) = receipt.decode_logs(models.ModelDelisted)
    assert (event.modelId, event.by, event.until, event.reasonHash) == (
        model.id,
        system.regulator,
        day * DAY,
        REASON,
    )
    system.go_to(day * DAY - 1)
    ape.chain.mine()
    status = models.statusOf(model.id)
    assert (status.delisted, status.delistedUntil) == (True, day * DAY)
    assert (status.review, status.saleNonce, status.frozenUntil) == (Review.APPROVED, *before[-1:], 0)
    system.go_to(day * DAY)
    ape.chain.mine()
    status = models.statusOf(model.id)
    assert (status.delisted, status.delistedUntil) == (False, day * DAY)


def test_a_delisting_is_renewed_and_taken_back(system: System, model: Model) -> None:
    models, day = system.models, system.now // DAY
    for until, delisted in ((day + 1, True), (day + 365, True), (0, False), (0, False)):
        models.delist(model.id, until, REASON, sender=system.regulator)
        status = models.statusOf(model.id)
        assert (status.delisted, status.delistedUntil) == (delisted, until * DAY)


def test_a_delisting_lasts_a_year_at_most(system: System, model: Model) -> None:
    day = system.now // DAY
    for until in (1, day, day + 366, 2**16 - 1):
        with reverts(system.models.DelistTooLong, values={"untilDay": until, "max": day + 365}):
            system.models.delist(model.id, until, REASON, sender=system.regulator)
    with reverts(system.models.NoSuchModel):
        system.models.delist(999, day + 1, REASON, sender=system.regulator)


def test_status_fields_do_not_touch_each_other(system: System) -> None:
    """Every field at its widest at once; each then changed alone."""
    models, regulator = system.models, system.regulator
    made = system.register(system.creator, "packed", preferences=0xFFF)
    system.approve(made)
    for _ in range(3):
        models.freeze(made.id, system.now + 29 * DAY, REASON, sender=regulator)
    day = system.now // DAY + 365
    models.delist(made.id, day, REASON, sender=regulator)
    models.transferFrom(system.creator, system.stranger, made.id, sender=system.creator)
    frozen = models.statusOf(made.id).frozenUntil
    assert tuple(models.statusOf(made.id)) == (
        system.stranger, 0xFFF, Review.APPROVED, True, 3, frozen, day * DAY, 1,
    )  # fmt: skip
    models.setPreferences(made.id, 0, REASON, sender=system.stranger)
    models.delist(made.id, 0, REASON, sender=regulator)
    receipt = models.lift(made.id, REASON, sender=regulator)
    assert tuple(models.statusOf(made.id)) == (
        system.stranger, 0, Review.APPROVED, False, 3, receipt.timestamp, 0, 1,
    )  # fmt: skip


# ---------------------------------------------------------------- versions


def add_version(
    system: System,
    model: Model,
    seed: str = "second",
    *,
    opened: Any = None,
    sender: Any = None,
    **changes: Any,
) -> tuple[Any, ModelRecord]:
    """The receipt, and the record that the chain then keeps."""
    new = replace(ModelRecord(sha(seed.encode())), **changes)
    receipt = system.models.addVersion(
        model.id, astuple(opened or model.record), astuple(new), META, sender=sender or system.creator
    )
    return receipt, replace(new, royaltyHash=model.record.royaltyHash)


def test_a_version_waits_for_review(system: System, model: Model) -> None:
    models = system.models
    receipt, stored = add_version(system, model, totalBytes=77, chunks=1, royaltyHash=b"\xff" * 32)
    (event,) = receipt.decode_logs(models.VersionAdded)
    assert (event.modelId, event.weightsRoot, event.metadataDigest) == (model.id, sha(b"second"), META)
    assert ModelRecord(*event.record) == stored
    assert receipt.decode_logs(models.MetadataUpdate)[0].tokenId == model.id
    assert receipt.decode_logs(models.TraceKeyRotated) == []
    assert models.statusOf(model.id).review == Review.PENDING
    assert models.versionUnderReview(model.id) == stored.weightsRoot
    assert models.metadataDigest(model.id) == META
    assert models.modelCount() == model.id
    for root in (stored.weightsRoot, model.record.weightsRoot):
        assert models.modelOfRoot(root) == model.id
    for opening in (model.record, stored):
        models.checkRecord(model.id, astuple(opening))


def test_an_approved_version_joins_the_model(system: System, model: Model) -> None:
    models = system.models
    _, stored = add_version(system, model)
    receipt = models.review(model.id, stored.weightsRoot, Review.APPROVED, REASON, sender=system.registrar)
    (event,) = receipt.decode_logs(models.ModelReviewed)
    assert (event.weightsRoot, event.review) == (stored.weightsRoot, Review.APPROVED)
    assert len(receipt.decode_logs(models.MetadataUpdate)) == 1
    assert models.statusOf(model.id).review == Review.APPROVED
    assert models.versionUnderReview(model.id) == bytes(32)
    for opening in (model.record, stored):
        models.checkRecord(model.id, astuple(opening))
    add_version(system, model, "third", opened=stored)  # any version's record opens


def test_a_rejected_version_leaves_the_model_as_it_was(system: System, model: Model) -> None:
    models = system.models
    _, stored = add_version(system, model)
    receipt = reject(system, model.id, stored.weightsRoot)
    (event,) = receipt.decode_logs(models.ModelReviewed)
    assert (event.weightsRoot, event.review) == (stored.weightsRoot, Review.REJECTED)
    assert models.statusOf(model.id).review == Review.APPROVED
    assert models.versionUnderReview(model.id) == bytes(32)
    assert (models.modelOfRoot(stored.weightsRoot), models.recordHashOf(stored.weightsRoot)) == (0, bytes(24))
    models.checkRecord(model.id, astuple(model.record))
    with reverts(models.RecordMismatch):
        models.checkRecord(model.id, astuple(stored))
    add_version(system, model)  # better documents, the same weights
    reject(system, model.id, stored.weightsRoot)
    register(system, sender=system.stranger, rec=record("second"))  # or whoever they belong to


def test_a_rejected_version_frees_no_older_root(system: System, model: Model) -> None:
    """Else a rejection would let a stranger take an approved root, and with it the opening of the royalties."""
    _, stored = add_version(system, model)
    for reviewed in (False, True):
        if reviewed:
            reject(system, model.id, stored.weightsRoot)
        with reverts(system.models.RootAlreadyRegistered, values={"modelId": model.id}):
            register(system, sender=system.stranger, rec=record("model"))


def test_no_order_opens_on_a_version_under_review(system: System, model: Model) -> None:
    parcel = make_parcel()
    opened, waiting = (system.make_order(model, parcel, number) for number in (1, 2))
    system.open(opened)
    _, stored = add_version(system, model)
    with refuses("ModelNotOffered(uint64)"):
        system.open(waiting)
    system.reveal(opened, parcel)
    system.settle(opened)  # an opened order is untouched
    assert system.licenses.isActive(opened.delivery.licenseId)
    waiting = system.make_order(model, parcel, 2)
    system.models.review(model.id, stored.weightsRoot, Review.APPROVED, REASON, sender=system.registrar)
    system.open(waiting)


def test_a_review_in_flight_does_not_approve_other_weights(system: System, model: Model) -> None:
    """Two registrars approve; between them the owner puts other weights up."""
    models, registrar = system.models, system.registrar
    _, harmless = add_version(system, model, "harmless")
    models.review(model.id, harmless.weightsRoot, Review.APPROVED, REASON, sender=registrar)
    _, other = add_version(system, model, "other")
    for root in (harmless.weightsRoot, model.record.weightsRoot):
        with reverts(models.NotUnderReview, values={"weightsRoot": root}):
            models.review(model.id, root, Review.APPROVED, REASON, sender=registrar)
    assert models.versionUnderReview(model.id) == other.weightsRoot


def test_a_version_is_the_owners(system: System, model: Model) -> None:
    with reverts(system.models.NotTheOwner, values={"caller": system.stranger.address}):
        add_version(system, model, sender=system.stranger)
    with reverts(system.models.NoSuchModel):
        add_version(system, replace(model, id=999))


def test_only_an_approved_model_gets_a_version(system: System, model: Model) -> None:
    fresh = system.register(system.creator, "fresh")
    with reverts(system.models.NotApproved, values={"modelId": fresh.id, "review": Review.PENDING}):
        add_version(system, fresh)
    reject(system, fresh.id, fresh.record.weightsRoot)
    with reverts(system.models.NotApproved, values={"review": Review.REJECTED}):
        add_version(system, fresh)
    add_version(system, model)
    with reverts(system.models.NotApproved):  # one at a time
        add_version(system, model, "third")


def test_a_version_needs_the_models_record(system: System, model: Model) -> None:
    other = system.register(system.creator, "other")
    greedy = replace(model.record, royaltyHash=RoyaltyTerms(0).hash())
    for opened in (other.record, greedy):
        with reverts(system.models.RecordMismatch, values={"modelId": model.id}):
            add_version(system, model, opened=opened)


def test_a_version_has_a_free_root_and_figures(system: System, model: Model) -> None:
    system.register(system.stranger, "taken")
    for seed in ("model", "taken"):
        with reverts(system.models.RootAlreadyRegistered):
            add_version(system, model, seed)
    with reverts(system.models.EmptyBundle):
        add_version(system, model, weightsRoot=bytes(32))
    with reverts(system.models.ChunksDoNotFit):
        add_version(system, model, chunks=1)


def test_a_version_with_another_key_rotates_it(system: System, model: Model) -> None:
    models, key = system.models, b"\x4e" * 32
    receipt, stored = add_version(system, model, traceKeyCommit=key)
    (event,) = receipt.decode_logs(models.TraceKeyRotated)
    assert (event.modelId, event.traceKeyCommit) == (model.id, key)
    assert tuple(models.traceKeyOf(model.id)) == (key, receipt.timestamp)
    models.review(model.id, stored.weightsRoot, Review.APPROVED, REASON, sender=system.registrar)
    again, _ = add_version(system, model, "third", traceKeyCommit=key)
    assert (
        again.decode_logs(models.TraceKeyRotated) == []
    )  # the key there is, whatever the opened record says
    assert tuple(models.traceKeyOf(model.id)) == (key, receipt.timestamp)


def test_every_versions_record_opens_the_royalties(system: System) -> None:
    made = system.register(system.creator, "opened")
    system.approve(made)
    _, stored = add_version(system, made)
    second = replace(made, record=stored)
    with isolated():
        system.open_terms(second)
    reject(system, made.id, stored.weightsRoot)
    with refuses("RecordMismatch(uint64,bytes32)"):
        system.open_terms(second)
    system.open_terms(made)
    assert system.royalties.termsHash(made.id) == made.record.royaltyHash


# ---------------------------------------------------------------- standards


def test_standards(system: System, model: Model) -> None:
    models = system.models
    for interface in ("01ffc9a7", "80ac58cd", "5b5e139f", "2a55205a", "49064906"):
        assert models.supportsInterface(bytes.fromhex(interface))
    assert not models.supportsInterface(b"\xff" * 4)
    assert (models.name(), models.symbol()) == ("ZhiYiChain Model", "ZYM")
    assert models.royaltyInfo(model.id, 10_000) == (system.treasury, system.params.platform_bps)
    assert models.contractURI() == "ipfs://collection"
    receipt = models.setContractURI("ipfs://else", sender=system.deployer)
    assert len(receipt.decode_logs(models.ContractURIUpdated)) == 1
    assert models.contractURI() == "ipfs://else"


def test_views_refuse_a_model_that_is_not_there(system: System) -> None:
    for call in (system.models.statusOf, system.models.tokenURI):
        with reverts(system.models.NoSuchModel):
            call(999)
    with reverts(system.models.TokenDoesNotExist):
        system.models.ownerOf(999)
