"""Identity: attestations by registered issuers. No personal data on chain: only a salted hash of what was verified."""

from __future__ import annotations

from zhiyi import eip712
from zhiyi.chain import TxResult
from zhiyi.errors import BadInput, BadSignature, IntegrityError
from zhiyi.group import Group, reason_hash, salted_hash
from zhiyi.signers import sign
from zhiyi.types import Attestation, IdentityStatus, SignedAttestation, to_address, to_bytes


def check_claim(salt: bytes, claim: bytes, recorded: bytes) -> None:
    """Whoever is shown salt and claim: raises IntegrityError unless they open the hash that was recorded."""
    if salted_hash(salt, claim) != to_bytes(recorded, 32):
        raise IntegrityError(
            "salt and claim do not open the hash on chain: this is not what the issuer verified"
        )


class Identity(Group):
    """Who is verified (contract IdentityRegistry). Tiers 1 to 3; 0 is nobody known. License terms may ask for one."""

    # -- issuer --------------------------------------------------------------------------------

    def attestation(
        self, subject: str, claim: bytes, *, tier: int, expiry: int, deadline: int
    ) -> Attestation:
        """The caller's next attestation for an account; `claim` is a `salted_hash`, times are unix seconds."""
        issuer, account = self._chain.account, to_address(subject)
        return Attestation(
            issuer=issuer,
            subject=account,
            claim_hash=to_bytes(claim, 32),
            tier=tier,
            expiry=expiry,
            nonce=self._call("IdentityRegistry", "nonceOf", issuer, account),
            deadline=deadline,
        )

    def data(self, attestation: Attestation) -> eip712.TypedData:
        """What an issuer signs."""
        registry = self._deployment.contracts["IdentityRegistry"]
        return eip712.attestation(attestation, self._deployment.chain_id, registry)

    def sign(self, attestation: Attestation) -> SignedAttestation:
        """The caller's attestation. Raises BadSignature when `issuer` is another account."""
        if attestation.issuer != self._chain.account:
            raise BadSignature(
                f"the issuer is {attestation.issuer}, this client signs as {self._chain.account}"
            )
        signature = sign(self._chain.signer, self.data(attestation))
        return SignedAttestation(attestation=attestation, signature=signature)

    def revoke(self, subject: str, reason: str, *, dry_run: bool = False) -> TxResult:
        """Issuer: what it attested stops counting, what it signed and was not recorded is void."""
        arguments = (to_address(subject), reason_hash(reason))
        return self._send("IdentityRegistry", "revoke", *arguments, dry_run=dry_run)

    def resign(self, *, dry_run: bool = False) -> TxResult:
        """Issuer: leaves at once; nothing it attested counts any more."""
        return self._send("IdentityRegistry", "resign", dry_run=dry_run)

    # -- subject -------------------------------------------------------------------------------

    def record(self, signed: SignedAttestation, *, dry_run: bool = False) -> TxResult:
        """Subject: records what an issuer signed, in place of what was recorded before."""
        arguments = (signed.attestation.as_tuple(), signed.signature)
        return self._send("IdentityRegistry", "attest", *arguments, dry_run=dry_run)

    def withdraw(self, *, dry_run: bool = False) -> TxResult:
        """Subject: its attestation stops counting. Events stay."""
        return self._send("IdentityRegistry", "withdraw", dry_run=dry_run)

    # -- identity admin ------------------------------------------------------------------------

    def set_issuer(self, issuer: str, max_tier: int, *, dry_run: bool = False) -> TxResult:
        """Identity admin: names an issuer and the highest tier that it may attest; 0 removes it."""
        if not 0 <= max_tier <= 3:
            raise BadInput(f"tiers are 1 to 3, 0 removes an issuer; not {max_tier}")
        arguments = (to_address(issuer), max_tier)
        return self._send("IdentityRegistry", "setIssuer", *arguments, dry_run=dry_run)

    # -- reading -------------------------------------------------------------------------------

    def tier(self, account: str) -> int:
        """The tier that counts now; 0 for none, expired, revoked, or an issuer that is none any more."""
        return int(self._call("IdentityRegistry", "tierOf", to_address(account)))

    def get(self, account: str) -> IdentityStatus:
        """What an account recorded last and what counts of it now; zeros for none."""
        who = to_address(account)
        issuer, tier, expiry = self._call("IdentityRegistry", "attestationOf", who)
        found = self._events("IdentityRegistry", "Attested", {"subject": who}) if tier else []
        return IdentityStatus(
            account=who,
            tier=self.tier(who),
            issuer=to_address(issuer),
            attested_tier=tier,
            expiry=expiry,
            claim_hash=found[-1]["claimHash"] if found else bytes(32),
        )

    def issuers(self) -> dict[str, int]:
        """Present issuers with the highest tier that they may attest."""
        named = {to_address(event["issuer"]) for event in self._events("IdentityRegistry", "IssuerSet")}
        tiers = {who: int(self._call("IdentityRegistry", "issuerTier", who)) for who in sorted(named)}
        return {who: tier for who, tier in tiers.items() if tier}
