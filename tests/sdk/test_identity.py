"""Attestations on a real node: who may make, record, revoke them, and what an order asks for."""

from __future__ import annotations

import secrets

import pytest
from conftest import DAY, Clients
from test_story import agree, h, opened, register

from zhiyi.errors import BadInput, BadSignature, IntegrityError, TxReverted
from zhiyi.group import salted_hash
from zhiyi.identity import check_claim
from zhiyi.types import LicenseTerms, SignedAttestation

SALT = secrets.token_bytes(32)
CLAIM = b"Zhang San, passport seen"
ISSUER = "authority"


def attested(
    clients: Clients, subject: str = "buyer", *, tier: int = 2, days: int = 300
) -> SignedAttestation:
    """Signed by an issuer of tier 2, not recorded yet."""
    issuer = clients[ISSUER]
    clients["registrar"].identity.set_issuer(issuer.account, 2)
    now = clients.node.chain.now()
    made = issuer.identity.attestation(
        clients[subject].account,
        salted_hash(SALT, CLAIM),
        tier=tier,
        expiry=now + days * DAY,
        deadline=now + DAY,
    )
    return issuer.identity.sign(made)


def test_the_subject_records_what_an_issuer_signed(clients: Clients) -> None:
    signed, buyer = attested(clients), clients["buyer"]
    identity = clients["stranger"].identity
    assert identity.issuers() == {clients[ISSUER].account: 2}
    assert identity.tier(buyer.account) == 0
    with pytest.raises(TxReverted, match="NotTheSubject"):
        clients["stranger"].identity.record(signed)
    event = buyer.identity.record(signed).event("Attested")
    assert (event["tier"], event["claimHash"]) == (2, salted_hash(SALT, CLAIM))
    found = identity.get(buyer.account)
    assert (found.tier, found.attested_tier, found.issuer) == (2, 2, clients[ISSUER].account)
    check_claim(SALT, CLAIM, found.claim_hash)
    with pytest.raises(IntegrityError):
        check_claim(SALT, CLAIM + b".", found.claim_hash)
    with pytest.raises(TxReverted, match="WrongNonce"):
        buyer.identity.record(signed)
    assert identity.get(clients["buyer2"].account).issuer == "0x" + "00" * 20


def test_what_stops_counting_does_so_at_once(clients: Clients) -> None:
    buyer, issuer, identity = clients["buyer"], clients[ISSUER], clients["stranger"].identity
    buyer.identity.record(attested(clients))
    issuer.identity.revoke(buyer.account, "document was false")
    assert (identity.tier(buyer.account), identity.get(buyer.account).attested_tier) == (0, 0)
    buyer.identity.record(attested(clients, days=2))
    clients.node.travel(2 * DAY)
    assert (identity.tier(buyer.account), identity.get(buyer.account).attested_tier) == (0, 2)
    buyer.identity.record(attested(clients))
    issuer.identity.resign()
    assert (identity.tier(buyer.account), identity.issuers()) == (0, {})
    clients["registrar"].identity.set_issuer(issuer.account, 1)
    assert identity.tier(buyer.account) == 1  # capped by what its issuer may attest now
    buyer.identity.withdraw()
    with pytest.raises(TxReverted, match="NotAttested"):
        buyer.identity.withdraw()


def test_nobody_attests_more_than_he_may_or_in_anothers_name(clients: Clients) -> None:
    signed = attested(clients, tier=3)
    with pytest.raises(TxReverted, match="TierOutOfRange"):
        clients["buyer"].identity.record(signed)
    with pytest.raises(BadSignature, match="the issuer is"):
        clients["stranger"].identity.sign(signed.attestation)
    forged = attested(clients)
    forged = forged.model_copy(update={"signature": signed.signature})
    with pytest.raises(TxReverted, match="AttestationUnsigned"):
        clients["buyer"].identity.record(forged)
    with pytest.raises(BadInput, match="tiers are"):
        clients["registrar"].identity.set_issuer(clients[ISSUER].account, 4)
    with pytest.raises(TxReverted, match="AccessManagedUnauthorized"):
        clients["stranger"].identity.set_issuer(clients["stranger"].account, 1)


def test_an_order_that_asks_for_a_tier_is_opened_by_those_who_have_it(clients: Clients) -> None:
    model_id = register(clients)
    purchase = agree(clients, model_id, terms=LicenseTerms(min_tier=2))
    with pytest.raises(TxReverted, match="IdentityTooLow"):
        opened(clients, purchase)
    clients["buyer"].identity.record(attested(clients))
    opened(clients, purchase)


def test_the_digest_is_the_contracts(clients: Clients) -> None:
    made = attested(clients).attestation
    registry = clients.deployment.contract("IdentityRegistry")
    found = clients.node.chain.call(registry, "attestationDigest", made.as_tuple())
    assert found == clients["buyer"].identity.data(made).digest()
    assert made.claim_hash != h("claim")
