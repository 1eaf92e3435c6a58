"""Sales without delivery: a longer life for a license, and the model token itself."""

from __future__ import annotations

from zhiyi import eip712
from zhiyi.chain import TxResult
from zhiyi.errors import BadSignature
from zhiyi.group import Group
from zhiyi.royalties import Royalties
from zhiyi.signers import sign
from zhiyi.types import (
    NATIVE,
    ModelSale,
    Renewal,
    SignedModelSale,
    SignedRenewal,
    model_of_license,
    to_address,
    to_bytes,
)


class Sales(Group):
    """What the model's owner signs off chain and the other side pays at once (contract LicenseEscrow).

    `orders.cancel` takes a renewal or a model sale back, `orders.cancel_all` and each sale of the model void all.
    """

    # -- renewals ------------------------------------------------------------------------------

    def renewal(
        self, license_id: int, *, price: int, expiry: int, open_by: int, token: str = NATIVE
    ) -> Renewal:
        """The caller's renewal: `expiry` (unix seconds, 0 never) for `price`. Reads sale nonce and order floor."""
        sale_nonce, order_nonce = self._nonces(model_of_license(license_id))
        return Renewal(
            license_id=license_id,
            seller=self._chain.account,
            token=token,
            price=price,
            expiry=expiry,
            sale_nonce=sale_nonce,
            order_nonce=order_nonce,
            open_by=open_by,
        )

    def renewal_data(self, renewal: Renewal) -> eip712.TypedData:
        """What the model's owner signs."""
        return eip712.renewal(renewal, self._deployment.chain_id, self._deployment.contracts["LicenseEscrow"])

    def sign_renewal(self, renewal: Renewal) -> SignedRenewal:
        """The caller's renewal. Raises BadSignature when `renewal.seller` is another account."""
        self._check_seller(renewal.seller)
        return SignedRenewal(renewal=renewal, signature=sign(self._chain.signer, self.renewal_data(renewal)))

    def renew(self, signed: SignedRenewal, *, dry_run: bool = False) -> TxResult:
        """Holder: pays and gets the later expiry. An ERC-20 price needs `vault.approve` first."""
        renewal = signed.renewal
        value = renewal.price if renewal.token == NATIVE else 0
        return self._send(
            "LicenseEscrow", "renew", renewal.as_tuple(), signed.signature, value=value, dry_run=dry_run
        )

    # -- the model token -----------------------------------------------------------------------

    def model_sale(
        self,
        model_id: int,
        *,
        price: int,
        terms_hash: bytes,
        open_by: int,
        buyer: str = NATIVE,
        token: str = NATIVE,
    ) -> ModelSale:
        """The caller's sale of a model token, to `buyer` or (zero address) anyone. Reads sale nonce and order floor."""
        sale_nonce, order_nonce = self._nonces(model_id)
        return ModelSale(
            model_id=model_id,
            seller=self._chain.account,
            buyer=buyer,
            token=token,
            price=price,
            terms_hash=to_bytes(terms_hash, 32),
            sale_nonce=sale_nonce,
            order_nonce=order_nonce,
            open_by=open_by,
        )

    def model_sale_data(self, sale: ModelSale) -> eip712.TypedData:
        """What the model's owner signs."""
        return eip712.model_sale(sale, self._deployment.chain_id, self._deployment.contracts["LicenseEscrow"])

    def sign_model_sale(self, sale: ModelSale) -> SignedModelSale:
        """The caller's sale; `approve_model` must follow. Raises BadSignature when `sale.seller` is another account."""
        self._check_seller(sale.seller)
        return SignedModelSale(sale=sale, signature=sign(self._chain.signer, self.model_sale_data(sale)))

    def approve_model(self, model_id: int, *, dry_run: bool = False) -> TxResult:
        """Owner: lets the escrow move the model token, which it does only for a sale that the owner signed."""
        escrow = self._deployment.contracts["LicenseEscrow"]
        return self._send("ModelNFT", "approve", escrow, model_id, dry_run=dry_run)

    def is_approved(self, model_id: int) -> bool:
        """Whether the escrow may move the model token."""
        escrow = self._deployment.contracts["LicenseEscrow"]
        if to_address(self._call("ModelNFT", "getApproved", model_id)) == escrow:
            return True
        owner = self._call("ModelNFT", "ownerOf", model_id)
        return bool(self._call("ModelNFT", "isApprovedForAll", owner, escrow))

    def buy_model(self, signed: SignedModelSale, *, dry_run: bool = False) -> TxResult:
        """Buyer: pays the price as the model's income, gets the token. Licenses stay, older orders become void.

        Sends `openTerms` before where nobody has; without sending it stops there, as a first pull of royalties does.
        """
        royalties, sale = Royalties(self._chain, self._deployment), signed.sale
        if not royalties.terms_opened(sale.model_id):
            opened = royalties.open_terms(sale.model_id, dry_run=dry_run)
            if opened.status != "mined":
                return opened
        value = sale.price if sale.token == NATIVE else 0
        arguments = (sale.as_tuple(), royalties.terms(sale.model_id).as_tuple(), signed.signature)
        return self._send("LicenseEscrow", "buyModel", *arguments, value=value, dry_run=dry_run)

    def _nonces(self, model_id: int) -> tuple[int, int]:
        floor = int(self._call("LicenseEscrow", "orderFloor", self._chain.account))
        return int(self._call("ModelNFT", "statusOf", model_id)["saleNonce"]), floor

    def _check_seller(self, seller: str) -> None:
        if seller != self._chain.account:
            raise BadSignature(f"the seller is {seller}, this client signs as {self._chain.account}")
