"""The fingerprinter's market over a real chain."""

from __future__ import annotations

from collections.abc import Sequence

from zhiyi.client import Zhiyi
from zhiyi.types import (
    CaseFile,
    CaseState,
    CopyRequest,
    Kind,
    Model,
    Offer,
    Order,
    OrderStatus,
    PrepareFee,
    SignedOffer,
    SignedRequest,
)
from zhiyi_oracle.fingerprinter.market import FeePaid, LeakSeen, Observation, OrderSeen

NO_SHARE = 255  # the court's word for "none opened"


class ChainMarket:
    """Reads and writes of one fingerprinter, whose account is the client's signer. Implements `Market`."""

    def __init__(self, client: Zhiyi) -> None:
        self._client = client
        self._chain = client.chain
        self._escrow = client.deployment.contract("LicenseEscrow")
        self._court = client.deployment.contract("MisuseCourt")

    @property
    def account(self) -> str:
        """Our account."""
        return self._client.account

    def finalized(self) -> tuple[int, int]:
        """Number and unix seconds of the last finalized block."""
        block = self._chain.block("finalized")
        return block.number, block.timestamp

    def now(self) -> int:
        """Unix seconds of the latest block."""
        return self._chain.now()

    def observations(self, first: int, last: int) -> list[Observation]:
        """Orders that name us, and LEAK cases, in blocks first .. last, in order."""
        found: list[Observation] = []
        for event in self._chain.events([self._escrow, self._court], from_block=first, to_block=last):
            if event.name == "OrderOpened":
                order = Order.from_abi(event["order"])
                if order.delivery.fingerprinter == self.account:
                    found.append(OrderSeen(event.block_number, order, event["orderHash"]))
            elif event.name == "CaseOpened":
                file = CaseFile.from_abi(event["file"])
                if file.kind is Kind.LEAK:
                    found.append(LeakSeen(event.block_number, event["caseId"], file))
        return found

    def model(self, model_id: int) -> Model:
        """Record and status now."""
        return self._client.models.get(model_id)

    def offer_hash(self, offer: Offer) -> bytes:
        """What a request names."""
        return self._client.offers.hash(offer)

    def request_hash(self, request: CopyRequest) -> bytes:
        """What an order names."""
        return self._client.orders.request_hash(request)

    def check_offer(self, signed: SignedOffer, buyer: str) -> None:
        """Raises BadSignature; BadInput when it is over, or seller, model, terms, buyer and we do not fit now."""
        self._client.offers.verify(signed, buyer=buyer, fingerprinter=self.account)

    def check_request(self, signed: SignedRequest) -> None:
        """Raises BadSignature; BadInput when it is over."""
        self._client.orders.verify_request(signed)

    def fee_paid(self, request: CopyRequest) -> FeePaid | None:
        """The prepare fee that its buyer paid for a request and that waits at the last finalized block."""
        key = (request.buyer, self.request_hash(request))
        found = PrepareFee.from_abi(self._chain.call(self._escrow, "prepareFeeOf", *key, block="finalized"))
        if not found.fee:
            return None
        token = str(self._chain.call(self._escrow, "tokenAt", found.token_index))
        return FeePaid(found.fingerprinter, token, found.fee, found.by, found.model_id, found.paid_at)

    def order_status(self, license_id: int) -> OrderStatus:
        """State of the order under a license id, now."""
        return self._client.orders.state(license_id)

    def free_stake(self) -> int:
        """Wei of our stake that a further deposit may lock."""
        stake = self._client.vault.stake_of(self.account)
        reserve = int(self._chain.call(self._escrow, "stakeReserve"))
        return max(0, stake.staked - stake.locked - reserve)

    def sign_order(self, order: Order) -> bytes:
        """Our signature over an order."""
        return self._client.orders.sign(order)

    def earn_fee(self, order: Order, seller_signature: bytes) -> str:
        """Takes the prepare fee of an order that the buyer let pass; returns the transaction hash."""
        return self._client.orders.earn_prepare_fee(order, seller_signature).tx_hash

    def check_seller(self, order: Order, signature: bytes) -> None:
        """Raises BadSignature unless the order's seller signed it."""
        self._chain.check_signature(self._client.orders.data(order), signature, order.sale.seller)

    def reveal(self, order: Order, key: bytes) -> str:
        """Publishes the key; returns the transaction hash."""
        return self._client.orders.reveal(order, key).tx_hash

    def mark_commit(self, license_id: int) -> bytes:
        """Of the license as issued; raises NotFound before settlement."""
        return self._client.licenses.record(license_id).mark_commit

    def committee_keys(self, epoch: int) -> Sequence[bytes]:
        """X25519 keys of an epoch's operators that can be sealed to. Raises BadInput when they are too few."""
        return self._client.oracles.sealing_keys(epoch)

    def shares_opened(self, license_id: int) -> int:
        """Bitmap of shares opened on chain."""
        return self._client.cases.shares_opened(license_id)

    def share_wanted(self, case_id: bytes, post_by: int) -> bool:
        """Whether the case is open, has no share yet and still takes one: the first half of its window does."""
        state, _, _, index = self._chain.call(self._court, "caseState", case_id)
        if state != CaseState.OPEN or index != NO_SHARE:
            return False
        window: int = self._chain.call(self._court, "params")["postWindow"]
        return bool(self._chain.call(self._court, "clock") <= post_by - window // 2)

    def open_share(
        self, case_id: bytes, index: int, seed: bytes, proof: Sequence[bytes], base_cid: str
    ) -> str:
        """Opens one share; returns the transaction hash."""
        return self._client.cases.open_share(case_id, index, seed, proof, base_cid).tx_hash
