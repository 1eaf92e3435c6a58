"""Model tokens: registration, lineage, review, freeze, transfer."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import ape
import pytest
from ape.exceptions import ContractLogicError
from eth_utils import keccak, to_checksum_address
from market import (
    DAY,
    EMPTY_CID,
    Model,
    ModelRecord,
    Review,
    System,
    make_parcel,
    refuses,
    sha,
    sign_digest,
    terms,
)

REASON = b"\x05" * 32
LONG_AGO = 1
FAR = 2**40 - 1


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


# ---------------------------------------------------------------- register


def test_register_records_everything(system: System) -> None:
    share = (system.collaborator.address, 1_000)
    before, owned = system.models.modelCount(), system.models.balanceOf(system.creator)
    made = system.register(system.creator, "whole", preferences=0b11_10_01_00_01_10, collaborators=(share,))
    assert made.id == before + 1
    status = system.models.statusOf(made.id)
    assert status.owner == system.models.ownerOf(made.id) == system.creator
    assert status.preferences == 0b11_10_01_00_01_10
    assert (status.review, status.delisted, status.freezeCount, status.frozenUntil, status.saleNonce) == (
        0,
        False,
        0,
        0,
        0,
    )
    assert system.models.recordHash(made.id) == made.record.hash()
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
    assert system.models.recordHash(event.modelId) == stored.hash()
    assert event.owner == system.creator
    assert event.weightsRoot == sha(b"event")
    assert event.preferences == 5
    platform_bps, collaborators, ancestors = event.royalties
    assert platform_bps == system.models.platformBps() == system.params.platform_bps
    assert [(to_checksum_address(account), bps) for account, bps in collaborators] == [share]
    assert list(ancestors) == []


def test_a_root_is_registered_once(system: System, model: Model) -> None:
    with ape.reverts(system.models.RootAlreadyRegistered, error_inputs={"modelId": model.id}):
        register(system, sender=system.stranger, rec=record("model"))


def test_the_root_of_a_rejected_model_is_free_again(system: System) -> None:
    squatted = system.register(system.stranger, "squatted")
    system.models.review(squatted.id, Review.REJECTED, REASON, sender=system.registrar)
    register(system, rec=record("squatted"))
    assert system.models.modelOfRoot(sha(b"squatted")) == squatted.id + 1
    with ape.reverts(system.models.RootAlreadyRegistered):
        register(system, sender=system.stranger, rec=record("squatted"))


def test_register_refuses_an_empty_bundle(system: System) -> None:
    with ape.reverts(system.models.EmptyBundle):
        register(system, rec=record(totalBytes=0))
    with ape.reverts(system.models.EmptyBundle):
        register(system, rec=record(chunks=0))


def test_register_refuses_chunks_that_do_not_hold_the_bytes(system: System) -> None:
    for wrong in ({"chunks": 9, "totalBytes": 10 * 896}, {"chunkSize": 0}, {"chunks": 11, "totalBytes": 10}):
        with ape.reverts(system.models.ChunksDoNotFit):
            register(system, rec=record(**wrong))


def test_register_refuses_preferences_beyond_six_codes(system: System) -> None:
    with ape.reverts(system.models.BadPreferences, error_inputs={"preferences": 0x1000}):
        register(system, preferences=0x1000)


def test_register_refuses_shares_over_the_whole(system: System) -> None:
    shares = [(system.collaborator, 6_000), (system.stranger, 4_001)]
    with ape.reverts(system.models.SharesTooLarge, error_inputs={"bps": 10_001}):
        register(system, collaborators=shares)


def test_register_refuses_more_than_ten_collaborators(system: System) -> None:
    with ape.reverts(system.models.TooManyShares, error_inputs={"given": 11, "max": 10}):
        register(system, collaborators=[(system.collaborator, 1)] * 11)


def test_a_platform_fee_over_a_tenth_is_refused(system: System, project: Any) -> None:
    with ape.reverts(system.models.SharesTooLarge):
        system.deployer.deploy(project.ModelNFT, system.manager, system.licenses, system.treasury, 1_001, "")


def test_the_royalty_hash_given_is_ignored(system: System) -> None:
    register(system, rec=record("own royalties", royaltyHash=b"\xff" * 32))
    given = replace(ModelRecord(sha(b"own royalties")), royaltyHash=b"\xff" * 32)
    assert system.models.recordHash(system.models.modelCount()) != given.hash()


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
    from eth_account.messages import encode_typed_data

    message = encode_typed_data(
        {
            "name": "ZhiYiChain ModelNFT",
            "version": "1",
            "chainId": ape.chain.chain_id,
            "verifyingContract": system.models.address,
        },
        {
            "ParentConsent": [
                {"name": "parentId", "type": "uint64"},
                {"name": "weightsRoot", "type": "bytes32"},
                {"name": "registrant", "type": "address"},
                {"name": "bps", "type": "uint16"},
                {"name": "deadline", "type": "uint40"},
            ]
        },
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
    b = system.register(
        system.creator, "b", parents=(consent(system, a, sha(b"b"), 2_000),), ancestors=((a.id, 2_000),)
    )
    parents = (consent(system, b, sha(b"c"), 1_000), consent(system, a, sha(b"c"), 500))
    c = system.register(system.creator, "c", parents=parents, ancestors=((a.id, 700), (b.id, 800)))
    system.models.checkRecord(c.id, astuple(c.record))


def test_a_parent_needs_its_owners_signature(system: System, model: Model) -> None:
    root = sha(b"fresh")
    for proof in (
        consent(system, model, root, 100, signer=system.stranger),
        consent(system, model, sha(b"other root"), 100),
        consent(system, model, root, 100, registrant=system.stranger),
        (*consent(system, model, root, 100)[:1], 99, *consent(system, model, root, 100)[2:]),
    ):
        with ape.reverts(system.models.ParentNotAgreed, error_inputs={"parentId": model.id}):
            register(system, parents=[proof])


def test_a_consent_ends_at_its_deadline(system: System, model: Model) -> None:
    digest = system.models.consentDigest(model.id, sha(b"fresh"), system.creator, 100, LONG_AGO)
    signature = sign_digest(bytes(digest), system.creator)
    proof = (model.id, 100, 0, LONG_AGO, signature, model.royalties.as_tuple(), astuple(model.record))
    with ape.reverts(system.models.ParentNotAgreed):
        register(system, parents=[proof])


def test_a_parents_terms_must_be_its_own(system: System, model: Model) -> None:
    good = consent(system, model, sha(b"fresh"), 100)
    forged = (*good[:5], (0, [], []), good[6])
    with ape.reverts(system.models.RecordMismatch, error_inputs={"modelId": model.id}):
        register(system, parents=[forged])
    forged = (*good[:6], astuple(replace(model.record, traceKeyCommit=REASON)))
    with ape.reverts(system.models.RecordMismatch, error_inputs={"modelId": model.id}):
        register(system, parents=[forged])


def test_a_parent_must_exist(system: System, model: Model) -> None:
    ghost = replace(model, id=999)
    with ape.reverts(system.models.NoSuchModel, error_inputs={"modelId": 999}):
        register(system, parents=[consent(system, ghost, sha(b"fresh"), 100)])


def test_lineage_takes_half_at_most(system: System, model: Model) -> None:
    with ape.reverts(system.models.SharesTooLarge, error_inputs={"bps": 5_001, "max": 5_000}):
        register(system, parents=[consent(system, model, sha(b"fresh"), 5_001)])


def test_lineage_has_ten_ancestors_at_most(system: System) -> None:
    parents = [system.register(system.creator, f"ancestor {i}") for i in range(11)]
    proofs = [consent(system, parent, sha(b"fresh"), 10) for parent in parents]
    register(system, parents=proofs[:10])
    with ape.reverts(system.models.TooManyShares, error_inputs={"given": 11, "max": 10}):
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
    with ape.reverts(system.models.ParentNotAgreed):  # not the holder
        register(system, sender=system.stranger, parents=[proof])
    if agreed:
        register(system, sender=system.buyer, parents=[proof])
        system.licenses.surrender(order.delivery.licenseId, sender=system.buyer)
        with ape.reverts(system.models.ParentNotAgreed):  # not active any more
            register(system, sender=system.buyer, rec=record("later"), parents=[proof])
    else:
        with ape.reverts(system.models.ParentNotAgreed):
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
    with ape.reverts(system.models.NotTheOwner, error_inputs={"caller": system.stranger.address}):
        system.models.setPreferences(model.id, 0, REASON, sender=system.stranger)
    with ape.reverts(system.models.BadPreferences):
        system.models.setPreferences(model.id, 0x1000, REASON, sender=system.creator)


def test_trace_key_rotates_inside_the_record(system: System, model: Model) -> None:
    receipt = system.models.rotateTraceKey(astuple(model.record), model.id, REASON, sender=system.creator)
    (event,) = receipt.decode_logs(system.models.TraceKeyRotated)
    assert (event.before, event.traceKeyCommit) == (model.record.traceKeyCommit, REASON)
    changed = replace(model.record, traceKeyCommit=REASON)
    assert system.models.recordHash(model.id) == changed.hash()
    with ape.reverts(system.models.RecordMismatch):
        system.models.rotateTraceKey(astuple(model.record), model.id, REASON, sender=system.creator)
    with ape.reverts(system.models.NotTheOwner):
        system.models.rotateTraceKey(astuple(changed), model.id, REASON, sender=system.stranger)


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
    with ape.reverts(system.models.ValueNotTaken, error_inputs={"value": 1}):
        system.models.transferFrom(system.creator, system.stranger, model.id, sender=system.creator, value=1)
    with ape.reverts(system.models.ValueNotTaken):
        system.models.approve(system.stranger, model.id, sender=system.creator, value=1)


# ---------------------------------------------------------------- registrar, regulator


def test_review_is_final(system: System, model: Model) -> None:
    with ape.reverts(
        system.models.AlreadyReviewed, error_inputs={"modelId": model.id, "review": Review.APPROVED}
    ):
        system.models.review(model.id, Review.REJECTED, REASON, sender=system.registrar)


def test_review_needs_an_outcome_and_a_model(system: System) -> None:
    fresh = system.register(system.creator, "fresh")
    with ape.reverts(system.models.NotAnOutcome):
        system.models.review(fresh.id, Review.PENDING, REASON, sender=system.registrar)
    with ape.reverts(system.models.NoSuchModel):
        system.models.review(fresh.id + 1, Review.APPROVED, REASON, sender=system.registrar)


def test_each_power_belongs_to_its_role(system: System, model: Model) -> None:
    models = system.models
    for call in (
        lambda who: models.review(model.id, Review.APPROVED, REASON, sender=who),
        lambda who: models.freeze(model.id, system.now + DAY, REASON, sender=who),
        lambda who: models.lift(model.id, REASON, sender=who),
        lambda who: models.delist(model.id, True, REASON, sender=who),
        lambda who: models.setContractURI("ipfs://else", sender=who),
        lambda who: system.escrow.listToken(models.address, True, sender=who),
        lambda who: system.escrow.pauseOpening(system.now + DAY, sender=who),
        lambda who: system.escrow.resumeOpening(sender=who),
    ):
        with refuses("AccessManagedUnauthorized(address)"):
            call(system.creator)


def test_a_freeze_has_an_end_and_a_limit(system: System, model: Model) -> None:
    models, regulator = system.models, system.regulator
    with ape.reverts(models.FreezeTooLong):
        models.freeze(model.id, system.now + 31 * DAY, REASON, sender=regulator)
    with ape.reverts(models.FreezeTooLong):
        models.freeze(model.id, system.now - 1, REASON, sender=regulator)
    for count in (1, 2, 3):
        receipt = models.freeze(model.id, system.now + 29 * DAY, REASON, sender=regulator)
        (event,) = receipt.decode_logs(models.ModelFrozen)
        status = models.statusOf(model.id)
        assert (status.freezeCount, status.frozenUntil) == (count, event.until)
        system.pass_time(29 * DAY)
    with ape.reverts(models.FreezeLimit, error_inputs={"count": 3}):
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
    with ape.reverts(models.NotFrozen, error_inputs={"modelId": model.id}):
        models.lift(model.id, REASON, sender=regulator)


def test_delisting_comes_and_goes(system: System, model: Model) -> None:
    for delisted in (True, False):
        system.models.delist(model.id, delisted, REASON, sender=system.regulator)
        assert system.models.statusOf(model.id).delisted is delisted


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
        with ape.reverts(system.models.NoSuchModel):
            call(999)
    with pytest.raises(ContractLogicError):
        system.models.ownerOf(999)
