"""Offers: what an owner offers to anybody, signed off chain, free of gas."""

from __future__ import annotations

from zhiyi import eip712
from zhiyi.errors import BadInput, BadSignature
from zhiyi.group import Group
from zhiyi.licenses import Licenses
from zhiyi.signers import sign
from zhiyi.types import Basis, ModelStatus, Offer, Preference, Preferences, Review, SignedOffer, to_address


class Offers(Group):
    """Signed offers. They bind nobody on chain: the order does."""

    def data(self, offer: Offer) -> eip712.TypedData:
        """What the seller signs."""
        return eip712.offer(offer, self._deployment.chain_id, self._deployment.contracts["LicenseEscrow"])

    def hash(self, offer: Offer) -> bytes:
        """Digest of an offer on this chain; `CopyRequest.offer_hash`."""
        return self.data(offer).digest()

    def sign(self, offer: Offer) -> SignedOffer:
        """The caller's offer. Raises BadSignature when `offer.seller` is another account."""
        if offer.seller != self._chain.account:
            raise BadSignature(
                f"the offer's seller is {offer.seller}, this client signs as {self._chain.account}"
            )
        return SignedOffer(offer=offer, signature=sign(self._chain.signer, self.data(offer)))

    def verify(
        self, signed: SignedOffer, *, buyer: str | None = None, fingerprinter: str | None = None
    ) -> None:
        """Everything a buyer, seller or fingerprinter should know before acting on an offer.

        1. The seller signed it. 2. It is still valid by the chain's clock. 3. It can be sold now, see `check`.
        Raises BadSignature (1), BadInput (2, 3), NotFound (3), TxReverted NoSuchModel.
        """
        offer = signed.offer
        self._chain.check_signature(self.data(offer), signed.signature, offer.seller)  # 1
        now = self._chain.now()
        if now > offer.valid_until:  # 2
            raise BadInput(
                f"the offer was valid until {offer.valid_until}, the chain's time is {now}: ask for a new one"
            )
        self.check(offer, buyer=buyer, fingerprinter=fingerprinter)  # 3

    def check(self, offer: Offer, *, buyer: str | None = None, fingerprinter: str | None = None) -> None:
        """Whether what is offered can be sold now, as the escrow will ask when the order is opened.

        1. The seller owns the model, or holds the license that is resold or sublicensed and may pass on what is
        offered. 2. The model is listed and not frozen; an owner's is approved. 3. No use is offered that the owner's
        preferences forbid: for an owner's offer, since what he states later leaves his licensees what they bought.
        4. Whoever makes the copy (`fingerprinter`, by default the one that the offer names) is neither seller, nor
        `buyer`, nor, where a holder sells, the model's owner. 5. `buyer`, where given, is verified as the terms ask.
        Raises BadInput, NotFound (1), TxReverted NoSuchModel.
        """
        now = self._chain.now()
        status = ModelStatus.from_abi(self._call("ModelNFT", "statusOf", offer.model_id))
        owned = offer.basis is Basis.OWNER
        if not owned:  # 1
            self.check_source(offer)
        elif status.owner != offer.seller:
            raise BadInput(
                f"model {offer.model_id} belongs to {status.owner}, not to the offer's seller {offer.seller}"
            )
        if status.delisted or (owned and status.review != Review.APPROVED):  # 2
            state = "delisted" if status.delisted else status.review.name
            raise BadInput(f"model {offer.model_id} cannot be sold now: {state}")
        if status.frozen_until > now:
            raise BadInput(f"model {offer.model_id} is frozen until {status.frozen_until}")
        preferences = Preferences.unpack(status.preferences)
        forbidden = [use.name for use in offer.terms.uses if preferences.of(use) == Preference.NOT_ALLOWED]
        if owned and forbidden:  # 3
            raise BadInput(f"the owner's preferences forbid {', '.join(sorted(forbidden))}")
        maker = to_address(fingerprinter) if fingerprinter else offer.fingerprinter
        parties = {offer.seller: "sells", status.owner: "owns the model"}
        if buyer is not None:
            parties[to_address(buyer)] = "buys"
        if maker in parties:  # 4
            raise BadInput(
                f"{maker} {parties[maker]}, so it cannot make the copy: choose another fingerprinter"
            )
        if buyer is not None:
            self._check_tier(offer, to_address(buyer))  # 5

    def _check_tier(self, offer: Offer, buyer: str) -> None:
        needed = offer.terms.min_tier
        tier = int(self._call("IdentityRegistry", "tierOf", buyer)) if needed else 0
        if tier < needed:
            raise BadInput(
                f"the terms ask for identity tier {needed}, {buyer} has {tier}: record an issuer's attestation first"
            )

    def check_source(self, offer: Offer) -> None:
        """Of a resale or sublicense: the seller holds the source and may pass on what is offered, under a bond that
        sheds nothing of the source's. Raises BadInput, NotFound.
        """
        licenses = Licenses(self._chain, self._deployment)
        source, what = licenses.get(offer.source), f"license {offer.source}"
        if source.holder != offer.seller:
            raise BadInput(f"{what} is held by {source.holder}, not by the offer's seller {offer.seller}")
        bond = licenses.bond(offer.source)
        cases = bond.open_cases
        if not source.active or source.offered or cases:
            state = "offered already" if source.offered else f"{cases} open cases" if cases else "not active"
            raise BadInput(f"{what} cannot be passed on now: {state}")
        resale = offer.basis is Basis.RESALE
        if not (source.terms.resale if resale else source.terms.sublicense):
            raise BadInput(f"the terms of {what} allow no {offer.basis.name.lower()}")
        beyond = offer.terms.beyond(source.terms)
        if not resale and offer.terms.sublicense:
            beyond = (*beyond, "sublicense")
        if beyond:
            raise BadInput(f"the offer goes beyond the terms of {what}: {', '.join(beyond)}")
        token = to_address(self._call("LicenseEscrow", "tokenAt", bond.token_index))
        if offer.bond < bond.amount or (bond.amount and token != offer.token):
            raise BadInput(f"{what} carries a bond of {bond.amount} in {token}: offer with at least that")
