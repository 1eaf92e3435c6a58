"""Orders: request, order, opening, key, complaint, settlement, refund."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from zhiyi import eip712
from zhiyi.chain import TxResult
from zhiyi.cid import digest_of
from zhiyi.errors import BadInput, BadSignature, IntegrityError, NotFound
from zhiyi.group import Group
from zhiyi.signers import sign
from zhiyi.types import (
    NATIVE,
    ZERO32,
    Basis,
    CopyRequest,
    Delivery,
    Epoch,
    ModelSale,
    Offer,
    Order,
    OrderState,
    OrderStatus,
    PrepareFee,
    RangeVerdict,
    Renewal,
    Sale,
    SignedOrder,
    SignedRangeVerdict,
    SignedRequest,
    model_of_license,
    to_address,
    to_bytes,
)
from zhiyi.vault import Permit
from zhiyi.votes import bundle

ORDER_HASH_BYTES = 26


class ComplaintProof(Protocol):
    """What `zhiyi.delivery` makes: one chunk with its Merkle path."""

    @property
    def index(self) -> int: ...
    @property
    def cipher(self) -> bytes: ...
    @property
    def plain_leaf(self) -> bytes: ...
    @property
    def path(self) -> Sequence[bytes]: ...


class Orders(Group):
    """The purchase (contract LicenseEscrow). `get` finds an opened order by its license id."""

    # -- before the purchase -------------------------------------------------------------------

    def request_data(self, request: CopyRequest) -> eip712.TypedData:
        """What the buyer signs to ask for a copy."""
        return eip712.copy_request(
            request, self._deployment.chain_id, self._deployment.contracts["LicenseEscrow"]
        )

    def request_hash(self, request: CopyRequest) -> bytes:
        """`Sale.request_hash`: the digest of the request on this chain."""
        return self.request_data(request).digest()

    def sign_request(self, request: CopyRequest) -> SignedRequest:
        """The caller's request. Raises BadSignature when `request.buyer` is another account."""
        if request.buyer != self._chain.account:
            raise BadSignature(
                f"the request's buyer is {request.buyer}, this client signs as {self._chain.account}"
            )
        return SignedRequest(request=request, signature=sign(self._chain.signer, self.request_data(request)))

    def verify_request(self, signed: SignedRequest) -> None:
        """Raises BadSignature unless the buyer signed it, BadInput when its time is over by the chain's clock."""
        self._chain.check_signature(self.request_data(signed.request), signed.signature, signed.request.buyer)
        now = self._chain.now()
        if now > signed.request.by:
            raise BadInput(f"the request was wanted by {signed.request.by}, the chain's time is {now}")

    def draft(self, offer: Offer, request: CopyRequest, delivery: Delivery, *, open_by: int) -> Order:
        """The order that follows from an offer, a request and the prepared copy.

        Raises BadInput when the three do not fit together. Reads the model's sale nonce (an owner's orders end with the
        sale of the model, a holder's do not) and the seller's order floor.
        The order names the request only where it promises a prepare fee, which must be paid before opening.
        """
        fits = {
            "offer": request.offer_hash
            == eip712.offer(
                offer, self._deployment.chain_id, self._deployment.contracts["LicenseEscrow"]
            ).digest(),
            "model": offer.model_id == request.model_id == model_of_license(delivery.license_id),
            "buyer": request.buyer == delivery.buyer,
            "fingerprinter": offer.fingerprinter in (None, delivery.fingerprinter),
            "reveal window": offer.reveal_window == delivery.reveal_window,
            "grace": offer.grace == delivery.grace,
            "complaint window": offer.complaint_window == delivery.complaint_window,
        }
        wrong = [name for name, right in fits.items() if not right]
        if wrong:
            raise BadInput(f"offer, request and copy disagree on: {', '.join(wrong)}")
        owned = offer.basis is Basis.OWNER
        sale = Sale(
            seller=offer.seller,
            token=offer.token,
            price=offer.price,
            bond=offer.bond,
            terms=offer.terms.pack(),
            terms_hash=offer.terms_hash,
            request_hash=self.request_hash(request) if request.prepare_fee else ZERO32,
            basis=offer.basis,
            sale_nonce=self._call("ModelNFT", "statusOf", offer.model_id)["saleNonce"] if owned else 0,
            order_nonce=self.floor(offer.seller),
            open_by=open_by,
            bond_tail=offer.bond_tail,
            source=offer.source,
        )
        return Order(sale=sale, delivery=delivery)

    def data(self, order: Order) -> eip712.TypedData:
        """What seller and fingerprinter sign."""
        return eip712.order(order, self._deployment.chain_id, self._deployment.contracts["LicenseEscrow"])

    def sign(self, order: Order) -> bytes:
        """The caller's 65 bytes, as seller or fingerprinter. Raises BadSignature when it is neither."""
        if self._chain.account not in (order.sale.seller, order.delivery.fingerprinter):
            raise BadSignature(f"{self._chain.account} is neither seller nor fingerprinter of this order")
        return sign(self._chain.signer, self.data(order))

    def verify(self, signed: SignedOrder) -> None:
        """Raises BadSignature unless seller and fingerprinter signed. A buyer also checks the copy before paying."""
        data = self.data(signed.order)
        self._chain.check_signature(data, signed.seller_signature, signed.order.sale.seller)
        self._chain.check_signature(data, signed.fingerprinter_signature, signed.order.delivery.fingerprinter)

    def pay_prepare_fee(
        self, request: CopyRequest, fingerprinter: str, *, token: str = NATIVE, dry_run: bool = False
    ) -> TxResult:
        """Buyer: the fee that the request promises; credited against the price, or back after `request.by`."""
        value = request.prepare_fee if to_address(token) == NATIVE else 0
        return self._send(
            "LicenseEscrow",
            "payPrepareFee",
            self.request_hash(request),
            request.model_id,
            to_address(fingerprinter),
            to_address(token),
            request.prepare_fee,
            request.by,
            value=value,
            dry_run=dry_run,
        )

    def prepare_fee(self, buyer: str, request_hash: bytes) -> PrepareFee:
        """The fee that waits in the vault for a buyer's request; all zero if none."""
        found = self._call("LicenseEscrow", "prepareFeeOf", to_address(buyer), to_bytes(request_hash, 32))
        return PrepareFee.from_abi(found)

    def reclaim_prepare_fee(self, request_hash: bytes, *, dry_run: bool = False) -> TxResult:
        """Buyer, after `by`: the fee becomes free balance."""
        return self._send("LicenseEscrow", "reclaimPrepareFee", to_bytes(request_hash, 32), dry_run=dry_run)

    def earn_prepare_fee(self, order: Order, seller_signature: bytes, *, dry_run: bool = False) -> TxResult:
        """Fingerprinter: the fee of an order that the buyer let pass.

        From the order's `open_by` (a day after payment at the soonest) until the request's `by`.
        """
        arguments = (order.as_tuple(), seller_signature)
        return self._send("LicenseEscrow", "earnPrepareFee", *arguments, dry_run=dry_run)

    def cancel(self, signed: Order | Renewal | ModelSale, *, dry_run: bool = False) -> TxResult:
        """Seller: what he signed can no longer be used. Not for an order that is open. Raises BadSignature."""
        seller = signed.sale.seller if isinstance(signed, Order) else signed.seller
        if self._chain.account != seller:
            raise BadSignature(
                f"only its seller {seller} can cancel it, this client signs as {self._chain.account}"
            )
        return self._send("LicenseEscrow", "cancel", signed.hash(), dry_run=dry_run)

    def cancel_all(self, *, dry_run: bool = False) -> TxResult:
        """Seller: no order signed so far can be opened."""
        return self._send("LicenseEscrow", "cancelAll", dry_run=dry_run)

    def floor(self, seller: str) -> int:
        """The lowest order nonce of a seller that counts."""
        return int(self._call("LicenseEscrow", "orderFloor", to_address(seller)))

    # -- purchase ------------------------------------------------------------------------------

    def quote(self, order: Order) -> int:
        """What opening costs now, in the order's token: price + bond less a prepare fee paid."""
        return int(self._call("LicenseEscrow", "quoteOpen", order.as_tuple()))

    def open(
        self, order: Order, seller_signature: bytes, fingerprinter_signature: bytes, *, dry_run: bool = False
    ) -> TxResult:
        """Buyer: pays price and bond. An ERC-20 price needs `vault.approve` first."""
        value = self.quote(order) if order.sale.token == NATIVE else 0
        arguments = (order.as_tuple(), seller_signature, fingerprinter_signature)
        return self._send("LicenseEscrow", "open", *arguments, value=value, dry_run=dry_run)

    def open_with_permit(
        self,
        order: Order,
        seller_signature: bytes,
        fingerprinter_signature: bytes,
        permit: Permit,
        *,
        dry_run: bool = False,
    ) -> TxResult:
        """Buyer: as `open` for an ERC-20 price, with `vault.sign_permit` in place of an approval."""
        r, s, v = permit.signature[:32], permit.signature[32:64], permit.signature[64]
        signatures = (seller_signature, fingerprinter_signature)
        arguments = (order.as_tuple(), *signatures, permit.deadline, v, r, s)
        return self._send("LicenseEscrow", "openWithPermit", *arguments, dry_run=dry_run)

    def reveal(self, order: Order, key: bytes, *, dry_run: bool = False) -> TxResult:
        """Anyone who knows the key publishes it; it opens nothing without the buyer's delivery key."""
        arguments = (eip712.sale_hash(order.sale), order.delivery.as_tuple(), to_bytes(key, 32))
        return self._send("LicenseEscrow", "revealKey", *arguments, dry_run=dry_run)

    def complain(self, order: Order, key: bytes, proof: ComplaintProof, *, dry_run: bool = False) -> TxResult:
        """Buyer: one chunk decrypts to something else than promised; refund and deposit follow."""
        return self._send(
            "LicenseEscrow",
            "complain",
            order.as_tuple(),
            to_bytes(key, 32),
            proof.index,
            proof.cipher,
            to_bytes(proof.plain_leaf, 32),
            [to_bytes(step, 32) for step in proof.path],
            dry_run=dry_run,
        )

    def accept(self, order: Order, *, dry_run: bool = False) -> TxResult:
        """Buyer: takes the copy and ends the complaint window; the license is issued."""
        return self._send("LicenseEscrow", "accept", order.as_tuple(), dry_run=dry_run)

    def settle(self, order: Order, *, dry_run: bool = False) -> TxResult:
        """Anyone, after the complaint window: the license is issued, the price becomes royalties."""
        return self._send("LicenseEscrow", "settle", order.as_tuple(), dry_run=dry_run)

    def refund(self, order: Order, *, dry_run: bool = False) -> TxResult:
        """Anyone, after the time to reveal (or to answer a range claim) is over."""
        return self._send("LicenseEscrow", "refund", order.as_tuple(), dry_run=dry_run)

    def range_claim(self, order: Order, *, evidence_cid: str = "", dry_run: bool = False) -> TxResult:
        """Buyer: claims that the declared range breaks its bound, with the bond of `range_bond`.

        `evidence_cid`: the chunks in question, sealed to the committee; empty if they are handed over otherwise.
        """
        digest = digest_of(evidence_cid)
        value = self.range_bond(order) if order.sale.token == NATIVE else 0
        return self._send(
            "LicenseEscrow", "rangeClaim", order.as_tuple(), digest, value=value, dry_run=dry_run
        )

    def range_bond(self, order: Order) -> int:
        """What a range claim costs, in the order's token; back when the claim is upheld or not answered.

        The contract has no view of it: derived from the price, as the contract derives it.
        """
        return order.sale.price // 10

    def range_data(self, verdict: RangeVerdict) -> eip712.TypedData:
        """What an operator signs about a range claim."""
        return eip712.range_verdict(
            verdict, self._deployment.chain_id, self._deployment.contracts["LicenseEscrow"]
        )

    def sign_range(self, verdict: RangeVerdict) -> SignedRangeVerdict:
        """Operator: the caller's answer to a range claim."""
        return SignedRangeVerdict(
            verdict=verdict, signature=sign(self._chain.signer, self.range_data(verdict))
        )

    def range_epoch(self, license_id: int) -> int:
        """The committee that may answer the range claim on an order. Raises NotFound without a claim."""
        epoch = int(self._call("LicenseEscrow", "rangeClaimEpoch", license_id))
        if not epoch:
            raise NotFound(f"no range claim was made on the order of license {license_id}")
        return epoch

    def resolve_range(
        self,
        order: Order,
        verdict: RangeVerdict,
        epoch: Epoch,
        signatures: Mapping[str, bytes],
        *,
        dry_run: bool = False,
    ) -> TxResult:
        """Anyone: the committee's answer to a range claim; `signatures` by signer."""
        bitmap, joined = bundle(epoch, signatures)
        return self._send(
            "LicenseEscrow",
            "resolveRange",
            order.as_tuple(),
            verdict.upheld,
            verdict.epoch,
            verdict.deadline,
            list(epoch.signers),
            bitmap,
            joined,
            dry_run=dry_run,
        )

    # -- bond ----------------------------------------------------------------------------------

    def request_bond_release(self, license_id: int, *, dry_run: bool = False) -> TxResult:
        """After the license has ended: starts the bond's tail."""
        return self._send("LicenseEscrow", "requestBondRelease", license_id, dry_run=dry_run)

    def release_bond(self, order: Order, *, dry_run: bool = False) -> TxResult:
        """After the tail, with no case open: the bond becomes the holder's free balance."""
        return self._send("LicenseEscrow", "releaseBond", order.as_tuple(), dry_run=dry_run)

    # -- reading -------------------------------------------------------------------------------

    def state(self, license_id: int) -> OrderStatus:
        """Where the order under a license id stands; NONE when there never was one."""
        state, since, digest = self._call("LicenseEscrow", "orderState", license_id)
        return OrderStatus(license_id=license_id, state=OrderState(state), since=since, hash=digest)

    def get(self, license_id: int) -> Order:
        """The order opened under a license id. Raises NotFound; IntegrityError when it is not the one stored."""
        found = self._events("LicenseEscrow", "OrderOpened", {"licenseId": license_id})
        if not found:
            raise NotFound(f"no order was opened for license {license_id}")
        order = Order.from_abi(found[-1]["order"])
        if order.hash()[:ORDER_HASH_BYTES] != self.state(license_id).hash:
            raise IntegrityError(
                f"the order in the event of license {license_id} is not the one the escrow keeps"
            )
        return order

    def key(self, license_id: int) -> bytes:
        """The key revealed for a license id. Raises NotFound before that."""
        found = self._events("LicenseEscrow", "KeyRevealed", {"licenseId": license_id})
        if not found:
            raise NotFound(f"no key is revealed for license {license_id} yet")
        return bytes(found[-1]["key"])

    def list(self, buyer: str | None = None) -> tuple[Order, ...]:
        """Opened orders, oldest first, of one buyer or of all."""
        filters = {"buyer": to_address(buyer)} if buyer else None
        return tuple(
            Order.from_abi(event["order"]) for event in self._events("LicenseEscrow", "OrderOpened", filters)
        )
