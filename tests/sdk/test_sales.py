"""What a license or model can become after its first sale: resold, sublicensed, renewed, sold as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import DAY, Clients
from test_story import BOND, CID, PRICE, agree, bought, h, make_offer, make_record, opened, register

from zhiyi.errors import BadInput, BadSignature, TxReverted
from zhiyi.index import Index
from zhiyi.types import (
    NATIVE,
    Basis,
    LicenseEnd,
    LicenseTerms,
    OrderState,
    Preference,
    Preferences,
    Use,
)

ONWARD = 1_000  # bps
PASSED = LicenseTerms(commercial=True, uses=frozenset({Use.AI_INFERENCE}), onward_bps=ONWARD)
RESELLABLE = PASSED.model_copy(update={"resale": True, "sublicense": True})


def source_of(clients: Clients, terms: LicenseTerms = RESELLABLE) -> tuple[int, int]:
    """A model, and the buyer's license of it."""
    model_id = register(clients)
    return model_id, bought(clients, model_id, terms=terms).order.delivery.license_id


def onward(source: int, basis: Basis = Basis.RESALE, **changes: object) -> dict[str, object]:
    """Changes to an offer that make it the buyer's own."""
    return {"basis": basis, "source": source, "terms": PASSED, **changes}


def index_of(clients: Clients, folder: Path) -> Index:
    index = Index(f"sqlite:///{folder / 'index.db'}")
    index.sync(clients.node.chain, clients.deployment)
    return index


def test_a_resale_ends_the_license_and_shares_the_price(clients: Clients, tmp_path: Path) -> None:
    model_id, source = source_of(clients)
    buyer, second = clients["buyer"], clients["buyer2"]
    sold = agree(clients, model_id, seller="buyer", buyer="buyer2", fingerprint=78, **onward(source))
    assert (sold.order.sale.basis, sold.order.sale.source) == (Basis.RESALE, source)
    opened(clients, sold, buyer="buyer2")
    assert buyer.licenses.get(source).offered
    assert index_of(clients, tmp_path).license(source).offered
    clients["fingerprinter"].orders.reveal(sold.order, sold.key)
    before = buyer.royalties.gross(model_id)
    second.orders.accept(sold.order)

    old, new = second.licenses.get(source), second.licenses.get(sold.order.delivery.license_id)
    assert (old.end, old.active, old.offered) == (LicenseEnd.RESOLD, False, False)
    assert (new.holder, new.active, new.terms) == (second.account, True, PASSED)
    to_model = PRICE * ONWARD // 10_000
    assert buyer.royalties.gross(model_id) == before + to_model
    assert buyer.vault.balance() == PRICE - to_model
    assert buyer.licenses.bond(source).amount == BOND  # through its tail

    index = index_of(clients, tmp_path)
    row = index.license(source)
    assert (row.end, row.end_cause, row.offered) == (LicenseEnd.RESOLD, str(new.license_id), False)
    assert index.license(new.license_id).source_key == str(source)
    order = index.order(new.license_id)
    assert (order.basis, order.source_key, order.seller) == (Basis.RESALE, str(source), buyer.account)


def test_a_refunded_resale_leaves_the_license(clients: Clients, tmp_path: Path) -> None:
    model_id, source = source_of(clients)
    late = agree(clients, model_id, seller="buyer", buyer="buyer2", fingerprint=78, **onward(source))
    opened(clients, late, buyer="buyer2")
    clients.node.travel(late.order.delivery.reveal_window + late.order.delivery.grace + 1)
    clients["stranger"].orders.refund(late.order)
    held = clients["buyer"].licenses.get(source)
    assert (held.active, held.offered, held.end) == (True, False, LicenseEnd.NONE)
    row = index_of(clients, tmp_path).license(source)
    assert (row.offered, row.end) == (False, LicenseEnd.NONE)


def test_a_sublicense_stays_beside_its_source(clients: Clients, tmp_path: Path) -> None:
    model_id, source = source_of(clients)
    sold = bought(
        clients,
        model_id,
        seller="buyer",
        buyer="buyer2",
        fingerprint=78,
        **onward(source, Basis.SUBLICENSE),
    )
    licenses, under = clients["buyer2"].licenses, sold.order.delivery.license_id
    assert licenses.is_active(source)
    assert licenses.is_active(under)
    index = index_of(clients, tmp_path)
    assert (index.license(source).end, index.license(under).source_key) == (LicenseEnd.NONE, str(source))


def test_offers_that_go_beyond_their_source_are_refused(clients: Clients) -> None:
    model_id, source = source_of(clients)
    for changes, why in (
        (onward(source, terms=PASSED.model_copy(update={"derivatives": True})), "derivatives"),
        (onward(source, terms=PASSED.model_copy(update={"onward_bps": 0})), "onward_bps"),
        (onward(source, Basis.SUBLICENSE, terms=RESELLABLE), "sublicense"),
    ):
        with pytest.raises(BadInput, match=f"beyond the terms.*{why}"):
            agree(clients, model_id, seller="buyer", buyer="buyer2", fingerprint=78, **changes)
    with pytest.raises(BadInput, match="is held by"):
        agree(clients, model_id, seller="stranger", buyer="buyer2", fingerprint=78, **onward(source))
    sold = agree(clients, model_id, seller="buyer", buyer="buyer2", fingerprint=78, **onward(source))
    opened(clients, sold, buyer="buyer2")
    with pytest.raises(BadInput, match="offered already"):
        agree(clients, model_id, seller="buyer", buyer="buyer2", fingerprint=79, **onward(source))


def test_a_license_that_allows_nothing_onward_is_not_passed_on(clients: Clients) -> None:
    model_id, source = source_of(clients, PASSED)
    for basis, why in ((Basis.RESALE, "allow no resale"), (Basis.SUBLICENSE, "allow no sublicense")):
        with pytest.raises(BadInput, match=why):
            agree(clients, model_id, seller="buyer", buyer="buyer2", fingerprint=78, **onward(source, basis))
    clients["buyer"].licenses.surrender(source)
    with pytest.raises(BadInput, match="not active"):
        agree(clients, model_id, seller="buyer", buyer="buyer2", fingerprint=78, **onward(source))


def test_onward_offers_are_checked_as_the_escrow_checks_them(clients: Clients) -> None:
    model_id, source = source_of(clients)
    with pytest.raises(BadInput, match=f"carries a bond of {BOND}.*at least that"):
        agree(
            clients, model_id, seller="buyer", buyer="buyer2", fingerprint=78, bond=BOND - 1, **onward(source)
        )
    creator = clients["creator"].models
    creator.set_preferences(model_id, Preferences(ai_inference=Preference.NOT_ALLOWED), CID)
    creator.add_version(model_id, make_record(weights_root=h("version 2")), CID)
    # What the owner decides later stops his own sales, not those of his licensees.
    with pytest.raises(BadInput, match="cannot be sold now: PENDING"):
        agree(clients, model_id, fingerprint=79)
    under = onward(source, Basis.SUBLICENSE)
    sold = agree(clients, model_id, seller="buyer", buyer="buyer2", fingerprint=78, **under)
    opened(clients, sold, buyer="buyer2")
    clients["regulator"].regulator.freeze(model_id, clients.node.chain.now() + DAY, "a reason")
    with pytest.raises(BadInput, match="is frozen"):
        agree(clients, model_id, seller="buyer", buyer="buyer2", fingerprint=80, **under)


def test_who_makes_a_copy_is_no_party_to_its_sale(clients: Clients) -> None:
    model_id, source = source_of(clients)
    creator, buyer, second = (clients[name].account for name in ("creator", "buyer", "buyer2"))
    offers = clients["buyer2"].offers
    # Of a resale the escrow refuses the model's owner too.
    for maker, why in ((creator, "owns the model"), (buyer, "sells"), (second, "buys")):
        offer = make_offer(clients, model_id, seller=buyer, fingerprinter=maker, **onward(source))
        with pytest.raises(BadInput, match=f"{maker} {why}.*another fingerprinter"):
            offers.check(offer, buyer=second)
    offer = make_offer(clients, model_id, seller=buyer, **onward(source))
    offers.check(offer, buyer=second)
    with pytest.raises(BadInput, match="owns the model"):
        offers.check(offer, fingerprinter=creator)
    signed = clients["buyer"].offers.sign(offer)
    with pytest.raises(BadInput, match="owns the model"):
        offers.verify(signed, fingerprinter=creator)


def test_a_buyer_learns_before_he_pays_that_he_is_not_verified(clients: Clients) -> None:
    model_id = register(clients)
    terms = PASSED.model_copy(update={"min_tier": 1})
    offer = clients["creator"].offers.sign(make_offer(clients, model_id, terms=terms))
    buyer, issuer = clients["buyer"], clients["operator1"].identity
    buyer.offers.verify(offer)
    with pytest.raises(BadInput, match=f"tier 1, {buyer.account} has 0"):
        buyer.offers.verify(offer, buyer=buyer.account)
    clients["registrar"].identity.set_issuer(clients["operator1"].account, 1)
    now = clients.node.chain.now()
    attested = issuer.attestation(buyer.account, h("claim"), tier=1, expiry=now + DAY, deadline=now + DAY)
    buyer.identity.record(issuer.sign(attested))
    buyer.offers.verify(offer, buyer=buyer.account)


def test_a_renewal_gives_more_time_for_its_price(clients: Clients, tmp_path: Path) -> None:
    now = clients.node.chain.now()
    model_id, license_id = source_of(clients, PASSED.model_copy(update={"expires_at": now + 30 * DAY}))
    creator, buyer = clients["creator"], clients["buyer"]
    later = {"expiry": now + 90 * DAY, "open_by": now + 5 * DAY}
    signed = creator.sales.sign_renewal(creator.sales.renewal(license_id, price=PRICE, **later))
    with pytest.raises(BadSignature, match="the seller is"):
        buyer.sales.sign_renewal(signed.renewal)
    with pytest.raises(TxReverted, match="NotTheHolder"):
        clients["stranger"].sales.renew(signed)
    assert buyer.sales.renew(signed, dry_run=True).status == "simulated"
    gross = buyer.royalties.gross(model_id)
    event = buyer.sales.renew(signed).event("LicenseRenewed")
    assert (event["price"], event["expiry"]) == (PRICE, later["expiry"])
    assert buyer.licenses.get(license_id).terms.expires_at == later["expiry"]
    assert buyer.royalties.gross(model_id) == gross + PRICE
    row = index_of(clients, tmp_path).license(license_id)
    assert row.expires_at == LicenseTerms.unpack(row.terms).expires_at == later["expiry"]
    with pytest.raises(TxReverted, match="NotLonger"):
        buyer.sales.renew(signed)


def test_a_renewal_can_be_taken_back(clients: Clients) -> None:
    now = clients.node.chain.now()
    _, license_id = source_of(clients, PASSED.model_copy(update={"expires_at": now + 30 * DAY}))
    creator = clients["creator"]
    renewal = creator.sales.renewal(license_id, price=PRICE, expiry=0, open_by=now + 5 * DAY)
    signed = creator.sales.sign_renewal(renewal)
    creator.orders.cancel(renewal)
    with pytest.raises(TxReverted, match="OrderVoid"):
        clients["buyer"].sales.renew(signed)


def test_the_model_token_is_sold_with_its_income_and_its_licenses(clients: Clients) -> None:
    model_id, license_id = source_of(clients)
    creator, buyer2 = clients["creator"], clients["buyer2"]
    waiting = agree(clients, model_id, fingerprint=90)
    sale = creator.sales.model_sale(
        model_id,
        price=10 * PRICE,
        terms_hash=h("contract"),
        open_by=clients.node.chain.now() + DAY,
        buyer=buyer2.account,
    )
    signed = creator.sales.sign_model_sale(sale)
    with pytest.raises(BadSignature, match="the seller is"):
        buyer2.sales.sign_model_sale(sale)
    assert buyer2.sales.buy_model(signed, dry_run=True).function == "RoyaltyLedger.openTerms"
    assert not creator.sales.is_approved(model_id)
    with pytest.raises(TxReverted, match="NotOwnerNorApproved"):
        buyer2.sales.buy_model(signed)
    creator.sales.approve_model(model_id)
    assert creator.sales.is_approved(model_id)
    with pytest.raises(TxReverted, match="NotTheBuyer"):
        clients["buyer"].sales.buy_model(signed)
    event = buyer2.sales.buy_model(signed).event("ModelSold")
    assert (event["seller"], event["buyer"], event["price"]) == (creator.account, buyer2.account, 10 * PRICE)
    model = buyer2.models.get(model_id)
    assert model.owner == buyer2.account
    # the owner's share of the first sale, which nobody had pulled, went with the price
    terms = model.royalties
    net = 11 * PRICE * (10_000 - terms.platform_bps) // 10_000
    assert creator.vault.balance() == net * (10_000 - terms.collaborators[0].bps) // 10_000
    assert buyer2.royalties.claimable(model_id)["owner"] == 0
    assert buyer2.licenses.is_active(license_id)
    with pytest.raises(TxReverted, match="NotTheOwner"):
        opened(clients, waiting)
    assert buyer2.orders.state(waiting.order.delivery.license_id).state == OrderState.NONE


def test_hashes_are_those_of_the_contract(clients: Clients) -> None:
    model_id = register(clients)
    sales, escrow = clients["creator"].sales, clients.deployment.contract("LicenseEscrow")
    renewal = sales.renewal(model_id << 28 | 1, price=3, expiry=4, open_by=5, token=NATIVE)
    sale = sales.model_sale(model_id, price=3, terms_hash=h("contract"), open_by=5)
    chain = clients.node.chain
    assert chain.call(escrow, "renewalHash", renewal.as_tuple()) == renewal.hash()
    assert chain.call(escrow, "modelSaleHash", sale.as_tuple()) == sale.hash()
    assert sales.renewal_data(renewal).struct_hash() == renewal.hash()
    assert sales.model_sale_data(sale).struct_hash() == sale.hash()
