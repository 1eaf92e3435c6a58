"""The SDK through one purchase, one refund and one case, on the real contracts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
from conftest import DAY, ETHER, Clients

from zhiyi import eip712
from zhiyi.cid import cid_v0_from_digest
from zhiyi.delivery.commitments import key_commit, mark_commit, share_proof
from zhiyi.errors import BadInput, BadSignature, InsufficientFunds, NotFound, TxReverted
from zhiyi.types import (
    FIRST_ONWARD,
    Basis,
    CaseState,
    CopyRequest,
    Decision,
    Delivery,
    Kind,
    LicenseEnd,
    LicenseTerms,
    ModelRecord,
    Offer,
    Order,
    OrderState,
    Preference,
    Preferences,
    Review,
    Role,
    Sale,
    SignedOffer,
    SignedOrder,
    SignedRequest,
    Split,
    Use,
    Verdict,
    license_id_of,
)

PRICE = ETHER
BOND = 2 * ETHER
PREFERENCES = Preferences(ai_inference=Preference.ALLOWED, ai_training=Preference.NOT_ALLOWED)
CID = cid_v0_from_digest(hashlib.sha256(b"metadata").digest())
OPERATORS = ("operator1", "operator2", "operator3")
SEEDS = [hashlib.sha256(b"share %d" % i).digest() for i in range(16)]


def h(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def make_record(**changes: object) -> ModelRecord:
    fields: dict[str, object] = {
        "weights_root": h("weights"),
        "total_bytes": 4096,
        "chunks": 4,
        "chunk_size": 1024,
        "detector_hash": h("detector"),
        "trace_key_commit": h("trace"),
        "range_hash": h("range"),
    }
    return ModelRecord(**(fields | changes))


def make_offer(clients: Clients, model_id: int, **changes: object) -> Offer:
    fields: dict[str, object] = {
        "model_id": model_id,
        "seller": clients["creator"].account,
        "price": PRICE,
        "bond": BOND,
        "terms": LicenseTerms(commercial=True, uses=frozenset({Use.AI_INFERENCE})),
        "terms_hash": h("license text"),
        "valid_until": clients.node.chain.now() + DAY,
        "nonce": 1,
    }
    return Offer(**(fields | changes))


@dataclass
class Purchase:
    offer: SignedOffer
    request: SignedRequest
    order: Order
    signed: SignedOrder
    key: bytes


def register(clients: Clients, record: ModelRecord | None = None) -> int:
    collaborators = (Split(account=clients["collaborator"].account, bps=1000),)
    creator = clients["creator"]
    model_id = creator.models.register(record or make_record(), CID, PREFERENCES, collaborators).model_id
    clients["registrar"].models.review(model_id, Review.APPROVED, "all documents seen")
    return model_id


def stake(clients: Clients) -> None:
    fingerprinter = clients["fingerprinter"]
    if fingerprinter.oracles.member(fingerprinter.account).role != Role.NONE:
        return
    fingerprinter.vault.deposit(10 * ETHER)
    fingerprinter.oracles.join(
        Role.FINGERPRINTER,
        signer=fingerprinter.account,
        encryption_key=h("fingerprinter"),
        stake=10 * ETHER,
        url="https://fingerprinter.example",
    )


def agree(
    clients: Clients,
    model_id: int,
    *,
    buyer: str = "buyer",
    seller: str = "creator",
    fingerprint: int = 77,
    fee: int = 0,
    **changes: object,
) -> Purchase:
    """Offer (with `changes`), request, a pretended copy, the order with both signatures."""
    stake(clients)
    owner, client, fingerprinter = clients[seller], clients[buyer], clients["fingerprinter"]
    offer = owner.offers.sign(make_offer(clients, model_id, seller=owner.account, **changes))
    client.offers.verify(offer)
    request = client.orders.sign_request(
        CopyRequest(
            model_id=model_id,
            offer_hash=client.offers.hash(offer.offer),
            buyer=client.account,
            delivery_key=h("delivery"),
            nonce=1,
            prepare_fee=fee,
            by=clients.node.chain.now() + DAY,
        )
    )
    fingerprinter.orders.verify_request(request)
    onward = offer.offer.basis is not Basis.OWNER
    license_id, key = license_id_of(model_id, FIRST_ONWARD * onward + fingerprint), h("key")
    delivery = Delivery(
        license_id=license_id,
        buyer=client.account,
        fingerprinter=fingerprinter.account,
        deposit=PRICE,
        copy_root=h("copy"),
        delivery_root=h("delivery root"),
        key_commit=key_commit(key, license_id, client.account),
        mark_commit=mark_commit(license_id, SEEDS),
        total_bytes=4096,
        chunks=4,
        chunk_size=1024,
        suite=1,
        reveal_window=offer.offer.reveal_window,
        grace=offer.offer.grace,
        complaint_window=offer.offer.complaint_window,
    )
    order = owner.orders.draft(offer.offer, request.request, delivery, open_by=clients.node.chain.now() + DAY)
    signed = SignedOrder(
        order=order,
        seller_signature=owner.orders.sign(order),
        fingerprinter_signature=fingerprinter.orders.sign(order),
    )
    client.orders.verify(signed)
    return Purchase(offer, request, order, signed, key)


def opened(clients: Clients, purchase: Purchase, *, buyer: str = "buyer") -> None:
    signed = purchase.signed
    clients[buyer].orders.open(signed.order, signed.seller_signature, signed.fingerprinter_signature)


def bought(
    clients: Clients,
    model_id: int,
    *,
    buyer: str = "buyer",
    seller: str = "creator",
    fingerprint: int = 77,
    **changes: object,
) -> Purchase:
    purchase = agree(clients, model_id, buyer=buyer, seller=seller, fingerprint=fingerprint, **changes)
    opened(clients, purchase, buyer=buyer)
    clients["fingerprinter"].orders.reveal(purchase.order, purchase.key)
    clients[buyer].orders.accept(purchase.order)
    return purchase


def committee(clients: Clients) -> None:
    for name in OPERATORS:
        operator = clients[name]
        operator.vault.deposit(5 * ETHER)
        url = f"http://{name}.example"
        operator.oracles.join(
            Role.OPERATOR, signer=operator.account, encryption_key=h(name), stake=5 * ETHER, url=url
        )
    admin = clients["deployer"]
    result = admin.oracles.announce_epoch([clients[name].account for name in OPERATORS], 2)
    admin.oracles.activate_epoch(result.event("EpochAnnounced")["epoch"])


def test_register_and_get_a_model(clients: Clients) -> None:
    preview = clients["creator"].models.register(make_record(), CID, PREFERENCES, dry_run=True)
    assert preview.status == "simulated"
    assert preview.tx_hash == ""
    assert preview.gas_used > 21_000
    model_id = register(clients)
    assert preview.model_id == model_id
    model = clients["stranger"].models.get(model_id)
    assert model.owner == clients["creator"].account
    assert model.record.weights_root == h("weights")
    assert model.record.royalty_hash == model.royalties.hash()
    assert model.royalties.collaborators[0].bps == 1000
    assert model.preferences == PREFERENCES
    assert model.metadata_cid == CID
    assert model.status.review == Review.APPROVED
    assert clients["stranger"].models.list() == (model,)
    assert clients["stranger"].models.list(clients["buyer"].account) == ()
    assert clients["stranger"].models.of_root(h("weights")) == model_id


def test_register_refuses_the_same_weights_twice_and_says_what_to_do(clients: Clients) -> None:
    model_id = register(clients)
    with pytest.raises(TxReverted) as caught:
        clients["buyer"].models.register(make_record(), CID, PREFERENCES)
    assert caught.value.error_name == "RootAlreadyRegistered"
    assert caught.value.values == {"weightsRoot": h("weights"), "modelId": model_id}
    assert f"model {model_id}" in caught.value.hint
    assert f"模型 {model_id}" in caught.value.hint_zh
    assert caught.value.tx_hash is None


def test_review_needs_the_role(clients: Clients) -> None:
    model_id = clients["creator"].models.register(make_record(), CID, PREFERENCES).model_id
    with pytest.raises(TxReverted) as caught:
        clients["stranger"].models.review(model_id, Review.APPROVED)
    assert caught.value.error_name == "AccessManagedUnauthorized"
    assert clients["stranger"].account in caught.value.hint


def test_preferences_and_trace_key_change_only_by_the_owner(clients: Clients) -> None:
    model_id = register(clients)
    changed = Preferences(data_mining=Preference.NOT_ALLOWED)
    other = cid_v0_from_digest(h("other metadata"))
    with pytest.raises(TxReverted, match="NotTheOwner"):
        clients["stranger"].models.set_preferences(model_id, changed, other)
    clients["creator"].models.set_preferences(model_id, changed, other)
    clients["creator"].models.rotate_trace_key(model_id, h("second trace key"))
    model = clients["stranger"].models.get(model_id)
    assert (model.preferences, model.metadata_cid) == (changed, other)
    assert model.trace_key_commit == h("second trace key")
    assert model.record.trace_key_commit == h("trace")


def test_versions_join_the_model_once_they_are_approved(clients: Clients) -> None:
    model_id = register(clients)
    creator, registrar = clients["creator"].models, clients["registrar"].models
    first = creator.get(model_id)
    with pytest.raises(BadInput, match="royalty_hash"):
        creator.add_version(model_id, first.record, CID)
    for seed, outcome in (("v2", Review.REJECTED), ("v3", Review.APPROVED), ("v2", Review.APPROVED)):
        creator.add_version(model_id, make_record(weights_root=h(seed)), CID)
        assert registrar.under_review(model_id) == h(seed)
        assert creator.get(model_id).status.review == Review.PENDING
        registrar.review(model_id, outcome, "seen", weights_root=h(seed))
    found = clients["stranger"].models.get(model_id)
    assert [record.weights_root for record in found.versions] == [h("weights"), h("v3"), h("v2")]
    assert {record.royalty_hash for record in found.versions} == {first.royalties.hash()}
    assert (found.record.weights_root, found.status.review) == (h("v2"), Review.APPROVED)
    assert clients["stranger"].models.list()[-1] == found


def test_the_root_of_a_rejected_model_may_be_anothers(clients: Clients) -> None:
    creator, buyer = clients["creator"].models, clients["buyer"].models
    squatted = creator.register(make_record(), CID, PREFERENCES).model_id
    clients["registrar"].models.review(squatted, Review.REJECTED, "copied")
    taken = buyer.register(make_record(), CID, PREFERENCES).model_id
    assert [creator.get(number).status.review for number in (squatted, taken)] == [
        Review.REJECTED,
        Review.PENDING,
    ]
    assert creator.of_root(h("weights")) == taken


def test_transfer_voids_offers_of_the_seller_before(clients: Clients) -> None:
    model_id = register(clients)
    offer = clients["creator"].offers.sign(make_offer(clients, model_id))
    clients["creator"].models.transfer(model_id, clients["buyer2"].account)
    with pytest.raises(BadInput, match="belongs to"):
        clients["buyer"].offers.verify(offer)


def test_offer_is_refused_when_forged_late_or_against_the_preferences(clients: Clients) -> None:
    model_id = register(clients)
    creator, buyer = clients["creator"], clients["buyer"]
    offer = creator.offers.sign(make_offer(clients, model_id))
    forged = SignedOffer(offer=offer.offer.model_copy(update={"price": 1}), signature=offer.signature)
    with pytest.raises(BadSignature):
        buyer.offers.verify(forged)
    training = LicenseTerms(uses=frozenset({Use.AI_TRAINING}))
    with pytest.raises(BadInput, match="AI_TRAINING"):
        buyer.offers.verify(creator.offers.sign(make_offer(clients, model_id, terms=training)))
    clients.node.travel(2 * DAY)
    with pytest.raises(BadInput, match="valid until"):
        buyer.offers.verify(offer)


def test_purchase_issues_the_license_and_pays_everybody(clients: Clients) -> None:
    model_id = register(clients)
    purchase = agree(clients, model_id)
    order, license_id = purchase.order, purchase.order.delivery.license_id
    buyer = clients["buyer"]
    assert buyer.orders.state(license_id).state == OrderState.NONE
    assert buyer.orders.quote(order) == PRICE + BOND
    opened(clients, purchase)
    status = buyer.orders.state(license_id)
    assert (status.state, status.hash) == (OrderState.OPEN, order.hash()[:26])
    assert clients["stranger"].orders.get(license_id) == order
    assert clients["stranger"].orders.list(buyer.account) == (order,)
    with pytest.raises(NotFound, match="no key"):
        buyer.orders.key(license_id)
    clients["fingerprinter"].orders.reveal(order, purchase.key)
    assert buyer.orders.key(license_id) == purchase.key
    with pytest.raises(TxReverted) as early:
        clients["stranger"].orders.settle(order)
    assert early.value.error_name == "TooEarly"
    clients.node.travel(order.delivery.complaint_window + 1)
    result = clients["stranger"].orders.settle(order)
    assert result.license_id == license_id
    assert result.gas_cost > 0
    held = buyer.licenses.get(license_id)
    assert (held.holder, held.model_id, held.active, held.end) == (
        buyer.account,
        model_id,
        True,
        LicenseEnd.NONE,
    )
    assert held.terms == purchase.offer.offer.terms
    assert held.record.order_hash == order.hash()
    assert buyer.licenses.bond(license_id).amount == BOND
    assert buyer.licenses.list(model_id=model_id) == (held,)

    royalties = clients["stranger"].royalties
    assert royalties.gross(model_id) == PRICE
    due = royalties.claimable(model_id)
    assert sum(due.values()) == PRICE
    assert all(due[share] for share in ("platform", "owner", "collaborator:0"))
    assert royalties.pull_platform(model_id, dry_run=True).function == "RoyaltyLedger.openTerms"
    assert not royalties.terms_opened(model_id)
    royalties.pull_collaborator(model_id, clients["collaborator"].account)
    assert royalties.terms_opened(model_id)
    preview = royalties.pull_platform(model_id, dry_run=True)
    assert (preview.function, preview.returned) == ("RoyaltyLedger.pullPlatform", due["platform"])
    royalties.pull_platform(model_id)
    royalties.pull_owner(model_id)
    assert set(royalties.claimable(model_id).values()) == {0}
    with pytest.raises(TxReverted, match="NothingToPull"):
        royalties.pull_owner(model_id)
    creator = clients["creator"]
    assert creator.vault.balance() == due["owner"]
    before = creator.chain.balance(creator.account)
    spent = creator.vault.withdraw(due["owner"]).gas_cost
    assert creator.chain.balance(creator.account) == before + due["owner"] - spent
    assert creator.vault.balance() == 0


def test_digests_are_those_of_the_contracts(clients: Clients) -> None:
    model_id = register(clients)
    order = agree(clients, model_id).order
    escrow = clients.deployment.contract("LicenseEscrow")
    chain = clients.node.chain
    assert chain.call(escrow, "orderDigest", order.as_tuple()) == clients["buyer"].orders.data(order).digest()
    assert chain.call(escrow, "orderHashOf", order.as_tuple()) == order.hash()
    assert chain.call(escrow, "saleHash", order.sale.as_tuple()) == eip712.sale_hash(order.sale)
    answer = eip712.RangeVerdict(
        license_id=order.delivery.license_id, order_hash=order.hash(), upheld=True, epoch=3, deadline=99
    )
    found = chain.call(escrow, "rangeVerdictDigest", *answer.as_tuple())
    assert found == clients["buyer"].orders.range_data(answer).digest()
    consent = eip712.ParentConsent(
        parent_id=model_id,
        weights_root=h("child"),
        registrant=clients["buyer"].account,
        bps=500,
        deadline=1 << 39,
    )
    models = clients.deployment.contract("ModelNFT")
    assert (
        chain.call(models, "consentDigest", *consent.as_tuple())
        == clients["creator"].models.consent_data(consent).digest()
    )


def test_order_is_refused_with_the_other_sides_signature_missing(clients: Clients) -> None:
    model_id = register(clients)
    purchase = agree(clients, model_id)
    signed = purchase.signed
    swapped = SignedOrder(
        order=signed.order,
        seller_signature=signed.fingerprinter_signature,
        fingerprinter_signature=signed.seller_signature,
    )
    with pytest.raises(BadSignature):
        clients["buyer"].orders.verify(swapped)
    with pytest.raises(TxReverted, match="BadSignature"):
        clients["buyer"].orders.open(signed.order, signed.fingerprinter_signature, signed.seller_signature)
    with pytest.raises(BadSignature, match="neither seller nor"):
        clients["buyer"].orders.sign(signed.order)


def test_draft_refuses_a_copy_that_does_not_fit_the_offer(clients: Clients) -> None:
    model_id = register(clients)
    purchase = agree(clients, model_id)
    other = purchase.order.delivery.model_copy(update={"buyer": clients["buyer2"].account, "grace": 1801})
    with pytest.raises(BadInput, match="buyer, grace"):
        clients["creator"].orders.draft(
            purchase.offer.offer, purchase.request.request, other, open_by=1 << 39
        )


def test_cancelled_orders_cannot_be_opened(clients: Clients) -> None:
    model_id = register(clients)
    first, second = agree(clients, model_id), agree(clients, model_id, fingerprint=78)
    with pytest.raises(BadSignature, match="only its seller"):
        clients["stranger"].orders.cancel(first.order)
    clients["creator"].orders.cancel(first.order)
    with pytest.raises(TxReverted, match="OrderVoid"):
        opened(clients, first)
    floor = clients["creator"].orders.floor(clients["creator"].account)
    clients["creator"].orders.cancel_all()
    assert clients["creator"].orders.floor(clients["creator"].account) > floor
    with pytest.raises(TxReverted, match="OrderVoid"):
        opened(clients, second)


def test_no_reveal_refunds_the_buyer(clients: Clients) -> None:
    model_id = register(clients)
    purchase = agree(clients, model_id)
    opened(clients, purchase)
    order = purchase.order
    clients.node.travel(order.delivery.reveal_window + order.delivery.grace + 1)
    with pytest.raises(TxReverted, match="TooLate"):
        clients["fingerprinter"].orders.reveal(order, purchase.key)
    result = clients["stranger"].orders.refund(order)
    assert result.event("OrderRefunded")["reason"] == 1
    assert clients["buyer"].vault.balance() == PRICE + BOND + order.delivery.deposit // 10
    assert clients["buyer"].orders.state(order.delivery.license_id).state == OrderState.REFUNDED


def test_wrong_key_is_refused(clients: Clients) -> None:
    model_id = register(clients)
    purchase = agree(clients, model_id)
    opened(clients, purchase)
    with pytest.raises(TxReverted, match="WrongKey"):
        clients["fingerprinter"].orders.reveal(purchase.order, h("another key"))


def test_prepare_fee_is_credited_or_comes_back(clients: Clients) -> None:
    model_id = register(clients)
    buyer, fee = clients["buyer"], PRICE // 100
    purchase = agree(clients, model_id, fee=fee)
    request = purchase.request.request
    digest = buyer.orders.request_hash(request)
    with pytest.raises(TxReverted, match="RequestUnknown"):
        buyer.orders.quote(purchase.order)
    buyer.orders.pay_prepare_fee(request, clients["fingerprinter"].account)
    assert buyer.orders.quote(purchase.order) == PRICE + BOND - fee
    waiting = buyer.orders.prepare_fee(buyer.account, digest)
    assert (waiting.fee, waiting.model_id, waiting.by) == (fee, model_id, request.by)
    with pytest.raises(TxReverted, match="TooEarly"):
        buyer.orders.reclaim_prepare_fee(digest)
    clients.node.travel(DAY + 60)
    buyer.orders.reclaim_prepare_fee(digest)
    assert buyer.vault.balance() == fee


def test_surrender_then_bond_comes_back_after_its_tail(clients: Clients) -> None:
    model_id = register(clients)
    purchase = bought(clients, model_id)
    license_id, buyer = purchase.order.delivery.license_id, clients["buyer"]
    with pytest.raises(TxReverted, match="LicenseStillActive"):
        buyer.orders.request_bond_release(license_id)
    buyer.licenses.surrender(license_id)
    assert buyer.licenses.get(license_id).end == LicenseEnd.SURRENDERED
    buyer.orders.request_bond_release(license_id)
    with pytest.raises(TxReverted, match="BondHeld"):
        buyer.orders.release_bond(purchase.order)
    clients.node.travel(purchase.order.sale.bond_tail + 1)
    buyer.orders.release_bond(purchase.order)
    assert buyer.vault.balance() == BOND


def test_committee_is_read_back_in_seat_order(clients: Clients) -> None:
    with pytest.raises(NotFound, match="no epoch"):
        clients["stranger"].oracles.current_epoch()
    committee(clients)
    oracles = clients["stranger"].oracles
    epoch = oracles.current_epoch()
    assert epoch.threshold == 2
    assert list(epoch.signers) == sorted((clients[n].account for n in OPERATORS), key=lambda a: int(a, 16))
    by_account = {clients[n].account: h(n) for n in OPERATORS}
    assert oracles.encryption_keys(epoch.number) == tuple(by_account[a] for a in epoch.signers)
    assert {info.url for info in oracles.seats(epoch.number)} == {f"http://{n}.example" for n in OPERATORS}
    clients["operator1"].oracles.update(
        signer=clients["operator1"].account, encryption_key=h("new"), url="http://moved.example"
    )
    urls = {info.account: info.url for info in oracles.members()}
    assert urls[clients["operator1"].account] == "http://moved.example"
    assert clients["stranger"].vault.stake_of(clients["operator2"].account).staked == 5 * ETHER


def test_operators_with_unusable_keys_are_not_sealed_to(clients: Clients) -> None:
    committee(clients)
    oracles, seats = clients["stranger"].oracles, list(OPERATORS)
    number = oracles.current_epoch().number
    assert oracles.sealing_keys(number) == oracles.encryption_keys(number)
    low_order = (
        (1).to_bytes(32, "little"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    )
    for left, key in enumerate(low_order[: len(seats) - 1], 1):
        me = clients[seats[left - 1]]
        me.oracles.update(signer=me.account, encryption_key=key, url="")
        if len(seats) - left >= oracles.current_epoch().threshold:
            keys = oracles.sealing_keys(number)
            assert len(keys) == len(seats) - left
            assert key not in keys
    with pytest.raises(BadInput, match="a verdict needs 2"):
        oracles.sealing_keys(number)


def leak_case(clients: Clients) -> tuple[Purchase, bytes]:
    model_id = register(clients)
    purchase = bought(clients, model_id)
    committee(clients)
    clients.node.travel(8 * DAY)
    reporter = clients["reporter"]
    bond = reporter.cases.min_bond()
    result = reporter.cases.open(
        purchase.order.delivery.license_id,
        model_id,
        Kind.LEAK,
        h("evidence"),
        cid_v0_from_digest(h("sealed evidence")),
        bond,
        value=bond,
    )
    return purchase, result.case_id


def proof_of(purchase: Purchase, index: int) -> list[bytes]:
    return share_proof(purchase.order.delivery.license_id, SEEDS, index)


def make_verdict(clients: Clients, case_id: bytes, **changes: object) -> Verdict:
    file = clients["stranger"].cases.file(case_id)
    fields: dict[str, object] = {
        "case_id": case_id,
        "license_id": file.license_id,
        "kind": file.kind,
        "decision": Decision.GUILTY,
        "evidence_hash": file.evidence_hash,
        "subject": h("object"),
        "detector_hash": h("detector"),
        "share_index": 3,
        "samples": 1000,
        "bucket": 40,
        "epoch": file.epoch,
        "deadline": file.post_by,
    }
    return Verdict(**(fields | changes))


def test_guilty_verdict_slashes_and_revokes(clients: Clients) -> None:
    purchase, case_id = leak_case(clients)
    license_id = purchase.order.delivery.license_id
    base = cid_v0_from_digest(h("base"))
    clients["fingerprinter"].cases.open_share(case_id, 3, SEEDS[3], proof_of(purchase, 3), base)
    case = clients["stranger"].cases.get(case_id)
    assert (case.state, case.share_index, case.posted) == (CaseState.OPEN, 3, None)
    assert case.share is not None
    assert (case.share.seed, case.share.base_cid) == (SEEDS[3], base)
    assert clients["stranger"].cases.shares_opened(license_id) == 1 << 3

    verdict = make_verdict(clients, case_id)
    court = clients.deployment.contract("MisuseCourt")
    on_chain = clients.node.chain.call(court, "verdictDigest", verdict.as_tuple())
    assert on_chain == clients["stranger"].cases.verdict_data(verdict).digest()
    signatures = {clients[n].account: clients[n].cases.sign_verdict(verdict) for n in OPERATORS[:2]}
    for account, signature in signatures.items():
        assert clients["stranger"].cases.verdict_signer(verdict, signature) == account
    one = dict(list(signatures.items())[:1])
    with pytest.raises(BadInput, match="needs 2"):
        clients["operator1"].cases.post_verdict(verdict, one)
    with pytest.raises(BadInput, match="no seat"):
        clients["operator1"].cases.post_verdict(verdict, one | {clients["stranger"].account: bytes(65)})
    posted = clients["operator1"].cases.post_verdict(verdict, signatures)
    until = posted.event("VerdictPosted")["challengeUntil"]
    case = clients["stranger"].cases.get(case_id)
    assert (case.state, case.decision) == (CaseState.POSTED, Decision.GUILTY)
    assert case.posted is not None
    assert case.posted.verdict == verdict
    with pytest.raises(TxReverted):
        clients["stranger"].cases.execute(case_id)
    clients.node.travel(until - clients.node.chain.now() + 1)
    result = clients["stranger"].cases.execute(case_id)
    slashed = result.event("CaseExecuted")["slashed"]
    assert slashed > 0
    assert clients["stranger"].licenses.bond(license_id).amount == BOND - slashed
    revoked = clients["stranger"].licenses.get(license_id)
    assert (revoked.end, revoked.active) == (LicenseEnd.REVOKED, False)
    assert clients["stranger"].cases.get(case_id).state == CaseState.EXECUTED
    assert clients["reporter"].vault.balance() > 0
    seat = clients["stranger"].oracles.current_epoch().seat(clients["operator1"].account)
    before = clients["operator1"].vault.balance()
    clients["stranger"].cases.claim_fee(case_id, seat)
    assert clients["operator1"].vault.balance() > before
    assert [c.case_id for c in clients["stranger"].cases.list(license_id)] == [case_id]


def test_verdict_not_guilty_costs_the_reporter_the_bond(clients: Clients) -> None:
    purchase, case_id = leak_case(clients)
    base = cid_v0_from_digest(h("base"))
    clients["fingerprinter"].cases.open_share(case_id, 0, SEEDS[0], proof_of(purchase, 0), base)
    verdict = make_verdict(clients, case_id, decision=Decision.NOT_GUILTY, bucket=0, share_index=0)
    signatures = {clients[n].account: clients[n].cases.sign_verdict(verdict) for n in OPERATORS}
    posted = clients["operator3"].cases.post_verdict(verdict, signatures)
    clients.node.travel(posted.event("VerdictPosted")["challengeUntil"] - clients.node.chain.now() + 1)
    clients["stranger"].cases.finalize(case_id)
    assert clients["stranger"].cases.get(case_id).state == CaseState.DISMISSED
    assert clients["reporter"].vault.balance() == 0
    assert clients["buyer"].vault.balance() > 0


def challenged(clients: Clients) -> tuple[int, bytes]:
    """A guilty verdict that the accused challenges."""
    purchase, case_id = leak_case(clients)
    base = cid_v0_from_digest(h("base"))
    clients["fingerprinter"].cases.open_share(case_id, 3, SEEDS[3], proof_of(purchase, 3), base)
    verdict = make_verdict(clients, case_id)
    signatures = {clients[n].account: clients[n].cases.sign_verdict(verdict) for n in OPERATORS}
    clients["operator1"].cases.post_verdict(verdict, signatures)
    with pytest.raises(TxReverted, match="NotAllowedToChallenge"):
        clients["stranger"].cases.challenge(case_id, value=ETHER)
    defence = cid_v0_from_digest(h("defence"))
    filed = clients["buyer"].cases.file_defence(case_id, defence)
    assert cid_v0_from_digest(filed.event("DefenceFiled")["digest"]) == defence
    clients["buyer"].cases.challenge(case_id, value=ETHER)
    assert clients["stranger"].cases.get(case_id).state == CaseState.CHALLENGED
    return purchase.order.delivery.license_id, case_id


def test_overturned_verdict_clears_the_accused_at_the_signers_cost(clients: Clients) -> None:
    license_id, case_id = challenged(clients)
    with pytest.raises(TxReverted, match="NotTheAuthority"):
        clients["stranger"].cases.rule(case_id, False)
    clients["authority"].cases.rule(case_id, False)
    assert clients["stranger"].cases.get(case_id).state == CaseState.CLEARED
    assert clients["stranger"].licenses.bond(license_id).amount == BOND
    assert clients["stranger"].vault.stake_of(clients["operator1"].account).staked < 5 * ETHER


def test_silent_authorities_clear_without_prejudice(clients: Clients) -> None:
    license_id, case_id = challenged(clients)
    stranger = clients["stranger"]
    with pytest.raises(TxReverted, match="TooEarly"):
        stranger.cases.escalate(case_id)
    for step, state in (
        (stranger.cases.escalate, CaseState.ESCALATED),
        (stranger.cases.clear_silent, CaseState.CLEARED),
    ):
        clients.node.travel(15 * DAY)
        step(case_id)
        assert stranger.cases.get(case_id).state == state
    assert stranger.licenses.bond(license_id).open_cases == 1
    clients.node.travel(15 * DAY)
    stranger.cases.release_hold(case_id)
    assert stranger.licenses.bond(license_id).open_cases == 0


def test_report_that_nobody_judges_lapses(clients: Clients) -> None:
    model_id = register(clients)
    committee(clients)
    reporter, bond = clients["reporter"], clients["reporter"].cases.min_bond()
    evidence = cid_v0_from_digest(h("sealed"))
    opened_case = reporter.cases.open(0, model_id, Kind.UNLICENSED, h("e"), evidence, bond, value=bond)
    assert clients["stranger"].cases.get(opened_case.case_id).evidence_cid == evidence
    clients.node.travel(8 * DAY)
    clients["stranger"].cases.lapse(opened_case.case_id)
    assert reporter.vault.balance() == bond


def test_missed_share_ends_the_case_at_the_fingerprinters_cost(clients: Clients) -> None:
    _, case_id = leak_case(clients)
    with pytest.raises(TxReverted, match="TooEarly"):
        clients["stranger"].cases.share_missed(case_id)
    clients.node.travel(8 * DAY)
    clients["stranger"].cases.share_missed(case_id)
    case = clients["stranger"].cases.get(case_id)
    assert case.state == CaseState.CLOSED
    assert clients["reporter"].vault.balance() == case.file.bond


def test_evidence_is_committed_and_anchored(clients: Clients) -> None:
    creator = clients["creator"]
    creator.evidence.commit(CID, '{"cid":"x"}')
    creator.evidence.commit(CID, "second")
    found = clients["stranger"].evidence.commits(CID)
    assert [(c.recorder, c.data) for c in found] == [
        (creator.account, '{"cid":"x"}'),
        (creator.account, "second"),
    ]
    blocks = clients.node.chain.call(clients.deployment.contract("EvidenceLog"), "getCommits", CID)
    assert blocks == [c.block_number for c in found]
    assert clients["stranger"].evidence.head(creator.account, h("topic")) == bytes(32)
    result = creator.evidence.anchor(h("topic"), h("root"), 5, CID)
    (anchor,) = clients["stranger"].evidence.anchors(creator.account, h("topic"))
    assert (anchor.root, anchor.leaf_count, anchor.cid) == (h("root"), 5, CID)
    assert anchor.head == result.event("BatchAnchored")["head"]
    assert clients["stranger"].evidence.head(creator.account, h("topic")) == anchor.head


def test_frozen_model_is_not_sold(clients: Clients) -> None:
    model_id = register(clients)
    offer = clients["creator"].offers.sign(make_offer(clients, model_id))
    purchase = agree(clients, model_id)
    regulator = clients["regulator"]
    until = clients.node.chain.now() + 5 * DAY
    regulator.regulator.freeze(model_id, until, "court order 7")
    with pytest.raises(BadInput, match="frozen"):
        clients["buyer"].offers.verify(offer)
    with pytest.raises(TxReverted, match="ModelFrozen"):
        opened(clients, purchase)
    regulator.regulator.lift(model_id, "order withdrawn")
    clients["buyer"].offers.verify(offer)
    regulator.regulator.delist(model_id, clients.node.chain.now() // DAY + 9, "again")
    with pytest.raises(BadInput, match="delisted"):
        clients["buyer"].offers.verify(offer)


def test_paused_opening_says_until_when(clients: Clients) -> None:
    model_id = register(clients)
    purchase = agree(clients, model_id)
    until = clients.node.chain.now() + DAY
    clients["deployer"].regulator.pause_opening(until)
    with pytest.raises(TxReverted, match=f"until {until}"):
        opened(clients, purchase)
    clients["deployer"].regulator.resume_opening()
    opened(clients, purchase)


def test_opening_without_money_is_insufficient_funds(clients: Clients) -> None:
    model_id = register(clients)
    purchase = agree(clients, model_id)
    clients.node.rpc("anvil_setBalance", clients["buyer"].account, hex(ETHER))
    with pytest.raises(InsufficientFunds, match="Fund the account"):
        opened(clients, purchase)


def test_missing_things_are_not_found(clients: Clients) -> None:
    stranger = clients["stranger"]
    with pytest.raises(NotFound):
        stranger.models.get(99)
    with pytest.raises(NotFound):
        stranger.licenses.get(99)
    with pytest.raises(NotFound):
        stranger.orders.get(99)
    with pytest.raises(NotFound):
        stranger.cases.get(bytes(32))
    with pytest.raises(NotFound):
        stranger.models.of_root(h("nothing"))


def test_sale_defaults_are_the_contracts_native_coin() -> None:
    sale = Sale(
        seller="0x" + "11" * 20,
        price=1,
        bond=1,
        terms=0,
        terms_hash=bytes(32),
        sale_nonce=0,
        order_nonce=0,
        open_by=0,
        bond_tail=0,
    )
    assert sale.token == "0x" + "00" * 20
