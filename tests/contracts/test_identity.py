"""Identity: who may attest, what counts and until when; nobody is listed against his will."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any

import ape
import pytest
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from market import DAY, System, isolated, malleable_twin, refuses, reverts, sha, sign_digest

from contracts_plan import ZERO_ADDRESS

REASON = b"\x05" * 32


@dataclass(frozen=True)
class Attestation:
    issuer: str
    subject: str
    claimHash: bytes
    tier: int
    expiry: int
    nonce: int
    deadline: int


TYPES = {
    "Attestation": [
        {"name": "issuer", "type": "address"},
        {"name": "subject", "type": "address"},
        {"name": "claimHash", "type": "bytes32"},
        {"name": "tier", "type": "uint8"},
        {"name": "expiry", "type": "uint40"},
        {"name": "nonce", "type": "uint64"},
        {"name": "deadline", "type": "uint40"},
    ]
}


def digest(system: System, made: Attestation, **domain: Any) -> bytes:
    message = encode_typed_data(
        {
            "name": "ZhiYiChain IdentityRegistry",
            "version": "1",
            "chainId": ape.chain.chain_id,
            "verifyingContract": system.identity.address,
            **domain,
        },
        TYPES,
        vars(made),
    )
    return keccak(b"\x19" + message.version + message.header + message.body)


@pytest.fixture
def issuer(system: System) -> Any:
    """May attest tiers 1 and 2."""
    system.identity.setIssuer(system.registrar, 2, sender=system.deployer)
    return system.registrar


@pytest.fixture
def made(system: System, issuer: Any) -> Attestation:
    """The buyer is of tier 2 for a year."""
    return Attestation(
        issuer.address,
        system.buyer.address,
        sha(b"salt and passport"),
        2,
        system.now + 365 * DAY,
        system.identity.nonceOf(issuer, system.buyer),
        system.now + DAY,
    )


def attest(system: System, made: Attestation, *, signer: Any = None, sender: Any = None) -> Any:
    signature = sign_digest(digest(system, made), signer or system.registrar)
    return system.identity.attest(astuple(made), signature, sender=sender or system.buyer)


def entry(system: System, account: Any) -> tuple[Any, ...]:
    return tuple(system.identity.attestationOf(account))


NOTHING = (ZERO_ADDRESS, 0, 0)


# ---------------------------------------------------------------- issuers


def test_issuers_have_a_highest_tier(system: System) -> None:
    identity = system.identity
    for tier in (1, 3, 0):
        receipt = identity.setIssuer(system.registrar, tier, sender=system.deployer)
        (event,) = receipt.decode_logs(identity.IssuerSet)
        assert (event.issuer, event.maxTier) == (system.registrar, tier)
        assert identity.issuerTier(system.registrar) == tier


def test_issuers_are_named_by_the_identity_admin_up_to_tier_three(system: System) -> None:
    with reverts(system.identity.TierOutOfRange, values={"given": 4, "max": 3}):
        system.identity.setIssuer(system.registrar, 4, sender=system.deployer)
    for sender in (system.registrar, system.regulator, system.stranger):
        with refuses("AccessManagedUnauthorized(address)"):
            system.identity.setIssuer(sender, 3, sender=sender)


def test_a_removed_issuers_attestations_stop_counting(system: System, made: Attestation) -> None:
    identity = system.identity
    attest(system, made)
    for most, counts in ((1, 1), (0, 0), (3, 2)):
        identity.setIssuer(system.registrar, most, sender=system.deployer)
        assert identity.tierOf(system.buyer) == counts
    assert entry(system, system.buyer) == (made.issuer, 2, made.expiry)


def test_an_issuer_resigns_at_once(system: System, made: Attestation) -> None:
    attest(system, made)
    receipt = system.identity.resign(sender=system.registrar)
    (event,) = receipt.decode_logs(system.identity.IssuerSet)
    assert (event.issuer, event.maxTier) == (system.registrar, 0)
    assert system.identity.tierOf(system.buyer) == 0
    with reverts(system.identity.TierOutOfRange, values={"given": 2, "max": 0}):
        attest(system, replace(made, nonce=1))


def test_resigning_removes_nobody_else(system: System, made: Attestation) -> None:
    attest(system, made)
    system.identity.resign(sender=system.stranger)
    assert system.identity.issuerTier(system.registrar) == 2
    assert system.identity.tierOf(system.buyer) == 2


# ---------------------------------------------------------------- attest


def test_attest_records_what_the_issuer_signed(system: System, made: Attestation) -> None:
    assert system.identity.tierOf(system.buyer) == 0
    assert entry(system, system.buyer) == NOTHING
    receipt = attest(system, made)
    (event,) = receipt.decode_logs(system.identity.Attested)
    assert (event.subject, event.issuer, event.claimHash) == (made.subject, made.issuer, made.claimHash)
    assert (event.tier, event.expiry, event.nonce) == (made.tier, made.expiry, made.nonce)
    assert system.identity.tierOf(system.buyer) == 2
    assert entry(system, system.buyer) == (made.issuer, 2, made.expiry)
    assert system.identity.nonceOf(made.issuer, system.buyer) == made.nonce + 1
    assert system.identity.nonceOf(made.issuer, system.stranger) == 0
    assert system.identity.tierOf(system.stranger) == 0


def test_the_digest_is_eip712(system: System, made: Attestation) -> None:
    assert bytes(system.identity.attestationDigest(astuple(made))) == digest(system, made)
    fields, name, version, chain_id, contract, salt, extensions = system.identity.eip712Domain()
    assert (bytes(fields), name, version) == (b"\x0f", "ZhiYiChain IdentityRegistry", "1")
    assert (chain_id, contract) == (ape.chain.chain_id, system.identity.address)
    assert (bytes(salt), list(extensions)) == (bytes(32), [])


def test_only_the_subject_records_it(system: System, made: Attestation) -> None:
    for sender in (system.registrar, system.stranger, system.deployer):
        with reverts(
            system.identity.NotTheSubject, values={"caller": sender.address, "subject": made.subject}
        ):
            attest(system, made, sender=sender)


def test_tiers_are_within_the_issuers(system: System, made: Attestation) -> None:
    for tier in (0, 3, 255):
        with reverts(system.identity.TierOutOfRange, values={"given": tier, "max": 2}):
            attest(system, replace(made, tier=tier))
    nobody = replace(made, issuer=system.stranger.address)
    with reverts(system.identity.TierOutOfRange, values={"given": 2, "max": 0}):
        attest(system, nobody, signer=system.stranger)


def test_an_attestation_counts_until_its_expiry(system: System, made: Attestation) -> None:
    attest(system, made)
    for time, tier in ((made.expiry - 1, 2), (made.expiry, 0)):
        system.go_to(time)
        ape.chain.mine()
        assert system.identity.tierOf(system.buyer) == tier


def test_an_expired_attestation_is_not_recorded(system: System, made: Attestation) -> None:
    now = system.now + 10
    for changes, passes in (
        ({"expiry": now}, False),
        ({"deadline": now - 1}, False),
        ({"expiry": now + 1, "deadline": now}, True),
    ):
        changed = replace(made, **changes)
        with isolated():
            system.go_to(now)
            if passes:
                attest(system, changed)
                continue
            (time,) = changes.values()
            with reverts(system.identity.AttestationExpired, values={"time": time}):
                attest(system, changed)


def test_an_attestation_is_recorded_once(system: System, made: Attestation) -> None:
    attest(system, made)
    with reverts(system.identity.WrongNonce, values={"given": 0, "needed": 1}):
        attest(system, made)
    attest(system, replace(made, nonce=1, tier=1))
    assert system.identity.tierOf(system.buyer) == 1
    with reverts(system.identity.WrongNonce, values={"given": 9, "needed": 2}):
        attest(system, replace(made, nonce=9))


def test_signatures_bind_every_member(system: System, made: Attestation) -> None:
    signature = sign_digest(digest(system, made), system.registrar)
    for name in ("claimHash", "tier", "expiry", "deadline"):
        value = getattr(made, name)
        bent = keccak(value) if isinstance(value, bytes) else value - 1
        changed = replace(made, **{name: bent})
        with reverts(system.identity.AttestationUnsigned, values={"issuer": made.issuer}):
            system.identity.attest(astuple(changed), signature, sender=system.buyer)
    stolen = replace(made, subject=system.stranger.address)
    with reverts(system.identity.AttestationUnsigned):
        system.identity.attest(astuple(stolen), signature, sender=system.stranger)


def test_signatures_of_another_chain_deployment_or_form_do_not_count(
    system: System, made: Attestation, project: Any
) -> None:
    good = sign_digest(digest(system, made), system.registrar)
    other = system.deployer.deploy(project.IdentityRegistry, system.manager)
    for signature in (
        sign_digest(digest(system, made, chainId=1), system.registrar),
        sign_digest(digest(system, made, verifyingContract=other.address), system.registrar),
        sign_digest(digest(system, made), system.stranger),
        malleable_twin(good),
        good[:64],
        good + b"\x00",
        b"",
    ):
        with reverts(system.identity.AttestationUnsigned):
            system.identity.attest(astuple(made), signature, sender=system.buyer)
    system.identity.attest(astuple(made), good, sender=system.buyer)


def test_issuers_and_subjects_may_be_wallet_contracts(
    system: System, made: Attestation, project: Any
) -> None:
    """Two wallets of one key: what was signed for one is not the other's."""
    one, two, subject = (system.deployer.deploy(project.TestWallet, system.registrar) for _ in range(3))
    for wallet in (one, two):
        system.identity.setIssuer(wallet, 3, sender=system.deployer)
    by_one = replace(made, issuer=one.address, subject=subject.address)
    signature = sign_digest(digest(system, by_one), system.registrar)
    for issuer, passes in ((two, False), (one, True)):
        call = system.identity.attest.encode_input(astuple(replace(by_one, issuer=issuer.address)), signature)
        if passes:
            subject.execute(system.identity, 0, call, sender=system.stranger)
        else:
            with refuses("AttestationUnsigned(address)"):
                subject.execute(system.identity, 0, call, sender=system.stranger)
    assert entry(system, subject) == (one.address, 2, made.expiry)


def test_a_later_attestation_takes_the_place_of_the_one_before(system: System, made: Attestation) -> None:
    """Of another issuer too; the first can then take nothing back but its own."""
    attest(system, made)
    system.identity.setIssuer(system.collaborator, 1, sender=system.deployer)
    attest(system, replace(made, issuer=system.collaborator.address, tier=1), signer=system.collaborator)
    assert entry(system, system.buyer) == (system.collaborator.address, 1, made.expiry)
    system.identity.revoke(system.buyer, REASON, sender=system.registrar)
    assert system.identity.tierOf(system.buyer) == 1


# ---------------------------------------------------------------- revoke, withdraw


def test_an_issuer_revokes_what_it_attested(system: System, made: Attestation) -> None:
    attest(system, made)
    receipt = system.identity.revoke(system.buyer, REASON, sender=system.registrar)
    (event,) = receipt.decode_logs(system.identity.AttestationRevoked)
    assert (event.subject, event.issuer, event.reasonHash) == (system.buyer, system.registrar, REASON)
    assert (system.identity.tierOf(system.buyer), entry(system, system.buyer)) == (0, NOTHING)
    assert system.identity.nonceOf(system.registrar, system.buyer) == 2


def test_revoking_voids_what_was_signed_and_not_recorded(system: System, made: Attestation) -> None:
    system.identity.revoke(system.buyer, REASON, sender=system.registrar)
    with reverts(system.identity.WrongNonce, values={"given": 0, "needed": 1}):
        attest(system, made)


def test_nobody_else_revokes(system: System, made: Attestation) -> None:
    attest(system, made)
    for sender in (system.deployer, system.regulator, system.stranger, system.buyer):
        system.identity.revoke(system.buyer, REASON, sender=sender)
        assert system.identity.tierOf(system.buyer) == 2
        assert system.identity.nonceOf(system.registrar, system.buyer) == 1


def test_a_subject_withdraws(system: System, made: Attestation) -> None:
    attest(system, made)
    receipt = system.identity.withdraw(sender=system.buyer)
    (event,) = receipt.decode_logs(system.identity.AttestationWithdrawn)
    assert (event.subject, event.issuer) == (system.buyer, system.registrar)
    assert (system.identity.tierOf(system.buyer), entry(system, system.buyer)) == (0, NOTHING)
    with reverts(system.identity.WrongNonce):  # what was recorded once is not recorded again
        attest(system, made)


def test_there_must_be_something_to_withdraw(system: System) -> None:
    with reverts(system.identity.NotAttested, values={"account": system.stranger.address}):
        system.identity.withdraw(sender=system.stranger)
