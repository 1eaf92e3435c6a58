"""Offers: what an owner offers to anybody, signed off chain, free of gas."""

from __future__ import annotations

from zhiyi import eip712
from zhiyi.errors import BadInput, BadSignature
from zhiyi.group import Group
from zhiyi.signers import sign
from zhiyi.types import ModelStatus, Offer, Preference, Preferences, Review, SignedOffer


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

    def verify(self, signed: SignedOffer) -> None:
        """Everything a buyer or fingerprinter should know before acting on an offer.

        1. The seller signed it. 2. It is still valid by the chain's clock. 3. The seller owns the model, which is
        approved, listed and not frozen. 4. No use is offered that the owner's preferences forbid.
        Raises BadSignature (1), BadInput (2-4), TxReverted NoSuchModel.
        """
        offer = signed.offer
        self._chain.check_signature(self.data(offer), signed.signature, offer.seller)  # 1
        now = self._chain.now()
        if now > offer.valid_until:  # 2
            raise BadInput(
                f"the offer was valid until {offer.valid_until}, the chain's time is {now}: ask for a new one"
            )
        status = ModelStatus.from_abi(self._call("ModelNFT", "statusOf", offer.model_id))
        if status.owner != offer.seller:  # 3
            raise BadInput(
                f"model {offer.model_id} belongs to {status.owner}, not to the offer's seller {offer.seller}"
            )
        if status.review != Review.APPROVED or status.delisted:
            state = "delisted" if status.delisted else status.review.name
            raise BadInput(f"model {offer.model_id} cannot be sold now: {state}")
        if status.frozen_until > now:
            raise BadInput(f"model {offer.model_id} is frozen until {status.frozen_until}")
        preferences = Preferences.unpack(status.preferences)
        forbidden = [use.name for use in offer.terms.uses if preferences.of(use) == Preference.NOT_ALLOWED]
        if forbidden:  # 4
            raise BadInput(f"the owner's preferences forbid {', '.join(sorted(forbidden))}")
