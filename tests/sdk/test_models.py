"""What changes about a model after its registration, and its parents."""

from __future__ import annotations

import pytest
from conftest import DAY, Clients
from test_story import CID, PREFERENCES, PRICE, agree, bought, h, make_record, opened, register

from zhiyi.cid import cid_v0_from_digest
from zhiyi.errors import BadInput, NotFound, TxReverted
from zhiyi.types import LicenseTerms, ParentConsent, Preference, Preferences, Review

OTHER = cid_v0_from_digest(h("other metadata"))


def test_a_version_waits_in_the_queue_until_it_is_reviewed(clients: Clients) -> None:
    creator, registrar = clients["creator"], clients["registrar"]
    assert registrar.models.queue() == ()
    first = creator.models.register(make_record(), CID, PREFERENCES).model_id
    second = creator.models.register(make_record(weights_root=h("second")), OTHER, PREFERENCES).model_id
    queue = registrar.models.queue()
    assert [(item.model_id, item.is_version, item.metadata_cid) for item in queue] == [
        (first, False, CID),
        (second, False, OTHER),
    ]
    assert queue[0].submitted <= clients.node.chain.now()
    assert queue[0].owner == creator.account
    registrar.models.review(first, Review.APPROVED)
    registrar.models.review(second, Review.REJECTED, "a copy")

    version = make_record(weights_root=h("version 2"), trace_key_commit=h("second trace key"))
    with pytest.raises(BadInput, match="royalty_hash zero"):
        creator.models.add_version(first, version.model_copy(update={"royalty_hash": h("mine")}), OTHER)
    with pytest.raises(TxReverted, match="NotTheOwner"):
        clients["stranger"].models.add_version(first, version, OTHER)
    event = creator.models.add_version(first, version, OTHER).event("VersionAdded")
    assert event["weightsRoot"] == h("version 2")
    model = creator.models.get(first)
    assert (model.record.weights_root, model.status.review) == (h("weights"), Review.PENDING)
    [item] = registrar.models.queue()
    assert (item.weights_root, item.is_version) == (h("version 2"), True)
    registrar.models.review(first, Review.APPROVED, weights_root=item.weights_root)
    assert registrar.models.queue() == ()
    model = creator.models.get(first)
    assert [record.weights_root for record in model.versions] == [h("weights"), h("version 2")]
    assert creator.models.of_root(h("version 2")) == first


def test_every_review_is_kept_with_its_reason(clients: Clients) -> None:
    creator, registrar, reader = clients["creator"], clients["registrar"], clients["stranger"].models
    model_id = creator.models.register(make_record(), CID, PREFERENCES).model_id
    [waiting] = reader.reviews()
    assert [waiting] == list(reader.queue())
    assert (waiting.outcome, waiting.registrar, waiting.reviewed) == (Review.PENDING, None, None)
    assert not waiting.has_reason("")
    registrar.models.review(model_id, Review.APPROVED, "papers seen")
    version = make_record(weights_root=h("version 2"))
    for outcome in (Review.REJECTED, Review.APPROVED):
        creator.models.add_version(model_id, version, OTHER)
        clients.node.travel(DAY)
        done = registrar.models.review(model_id, outcome, f"now {outcome.name}")
    second = creator.models.register(make_record(weights_root=h("more")), CID, PREFERENCES).model_id
    found = reader.reviews(model_id)
    assert [(item.is_version, item.outcome) for item in found] == [
        (False, Review.APPROVED),
        (True, Review.REJECTED),
        (True, Review.APPROVED),
    ]
    assert {item.registrar for item in found} == {registrar.account}
    assert found[0].has_reason("papers seen")
    assert [item.has_reason("now REJECTED") for item in found] == [False, True, False]
    last = found[-1]
    assert last.reviewed is not None
    assert (last.reviewed_tx, last.reviewed - last.submitted) == (done.tx_hash, pytest.approx(DAY, abs=60))
    assert [item.model_id for item in reader.reviews()] == [model_id] * 3 + [second]
    assert [item.model_id for item in reader.queue()] == [second]


def test_a_license_is_of_a_version_that_was_approved_when_its_order_was_opened(clients: Clients) -> None:
    model_id, creator, registrar = register(clients), clients["creator"].models, clients["registrar"].models
    old = bought(clients, model_id).order.delivery.license_id
    waiting = agree(clients, model_id, fingerprint=78)
    for name in ("rejected", "version 2"):
        creator.add_version(model_id, make_record(weights_root=h(name)), OTHER)
        outcome = Review.APPROVED if name == "version 2" else Review.REJECTED
        registrar.review(model_id, outcome, name)
    opened(clients, waiting)
    assert [one.record.weights_root for one in creator.versions_at(old)] == [h("weights")]
    late = creator.versions_at(waiting.order.delivery.license_id)
    assert [one.record.weights_root for one in late] == [h("version 2"), h("weights")]
    assert [one.metadata_cid for one in late] == [OTHER, CID]
    assert late[1].record == creator.get(model_id).versions[0]
    creator.set_preferences(model_id, PREFERENCES, cid_v0_from_digest(h("something else")))
    assert (
        creator.versions_at(old)[0].metadata_cid == CID
    )  # what was submitted, whatever the owner says later
    with pytest.raises(NotFound):
        creator.versions_at(old + 5)


def test_trace_keys_count_from_their_commitment_on(clients: Clients) -> None:
    model_id, creator = register(clients), clients["creator"]
    clients.node.travel(10 * DAY)
    at = creator.models.rotate_trace_key(model_id, h("second trace key")).event("TraceKeyRotated")["at"]
    first, second = clients["stranger"].models.trace_keys(model_id)
    assert (first.commit, first.until) == (h("trace"), at)
    assert (second.commit, second.since, second.until) == (h("second trace key"), at, 0)
    assert first.since <= at - 10 * DAY
    with pytest.raises(NotFound):
        creator.models.trace_keys(99)


def test_stated_preferences_are_kept_with_their_times(clients: Clients) -> None:
    model_id, creator = register(clients), clients["creator"]
    changed = Preferences(data_mining=Preference.NOT_ALLOWED)
    tx = creator.models.set_preferences(model_id, changed, OTHER)
    before, after = clients["stranger"].models.preference_history(model_id)
    assert (before.preferences, before.metadata_cid) == (PREFERENCES, CID)
    assert (after.preferences, after.metadata_cid, after.tx_hash) == (changed, OTHER, tx.tx_hash)
    assert before.time <= after.time


def test_a_parent_is_recorded_by_license_or_consent_and_inherits(clients: Clients) -> None:
    parent, creator, buyer = register(clients), clients["creator"], clients["buyer"]
    terms = LicenseTerms(derivatives=True, derivative_bps=500)
    license_id = bought(clients, parent, terms=terms).order.delivery.license_id
    child = make_record(weights_root=h("child"))
    with pytest.raises(TxReverted, match="ParentNotAgreed"):
        buyer.models.register(
            child, OTHER, PREFERENCES, parents=[buyer.models.parent_by_license(license_id, 499)]
        )
    proof = buyer.models.parent_by_license(license_id, 500)
    by_license = buyer.models.register(child, OTHER, PREFERENCES, parents=[proof]).model_id
    [ancestor] = buyer.models.get(by_license).royalties.ancestors
    assert (ancestor.model_id, ancestor.bps) == (parent, 500)

    consent = ParentConsent(
        parent_id=parent,
        weights_root=h("cousin"),
        registrant=clients["buyer2"].account,
        bps=700,
        deadline=clients.node.chain.now() + DAY,
    )
    cousin = make_record(weights_root=h("cousin"))
    forged = clients["stranger"].models.sign_consent(consent)
    models = clients["buyer2"].models
    with pytest.raises(TxReverted, match="ParentNotAgreed"):
        models.register(cousin, OTHER, PREFERENCES, parents=[models.parent_by_consent(forged)])
    signed = creator.models.sign_consent(consent)
    by_consent = models.register(cousin, OTHER, PREFERENCES, parents=[models.parent_by_consent(signed)])
    assert models.get(by_consent.model_id).royalties.ancestors[0].bps == 700

    clients["registrar"].models.review(by_license, Review.APPROVED)
    bought(clients, by_license, seller="buyer", buyer="buyer2", fingerprint=5)
    royalties, before = creator.royalties, creator.royalties.claimable(parent)["owner"]
    due = royalties.claimable(by_license)["ancestor:0"]
    assert due == PRICE * 500 // 10_000
    royalties.pull_ancestor(by_license, 0)
    assert royalties.inherited(parent) == due
    assert royalties.claimable(parent)["owner"] > before


def test_a_delisting_ends_with_its_day(clients: Clients) -> None:
    model_id, regulator = register(clients), clients["regulator"]
    day = clients.node.chain.now() // DAY + 3
    regulator.regulator.delist(model_id, day, "labels missing")
    status = regulator.models.status(model_id)
    assert (status.delisted, status.delisted_until) == (True, day * DAY)
    clients.node.travel(day * DAY - clients.node.chain.now() + 1)
    assert not regulator.models.status(model_id).delisted
