"""What a fingerprinter reads from the chain and the two things it writes, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from zhiyi.types import (
    CaseFile,
    CopyRequest,
    Model,
    Offer,
    Order,
    OrderStatus,
    SignedOffer,
    SignedRequest,
)


@dataclass(frozen=True)
class OrderSeen:
    """OrderOpened that names us as fingerprinter."""

    block: int
    order: Order
    order_hash: bytes


@dataclass(frozen=True)
class LeakSeen:
    """CaseOpened, kind LEAK."""

    block: int
    case_id: bytes
    file: CaseFile


@dataclass(frozen=True)
class FeePaid:
    """A prepare fee waiting in the vault."""

    fingerprinter: str
    token: str
    fee: int
    by: int  # unix seconds until which it can be earned
    model_id: int
    paid_at: int  # unix seconds


Observation = OrderSeen | LeakSeen


class Market(Protocol):
    """The chain as one fingerprinter uses it."""

    @property
    def account(self) -> str:
        """Our account."""
        ...

    def finalized(self) -> tuple[int, int]:
        """Number and unix seconds of the last finalized block."""
        ...

    def now(self) -> int:
        """Unix seconds of the latest block."""
        ...

    def observations(self, first: int, last: int) -> list[Observation]:
        """Events in blocks first .. last, in order."""
        ...

    def model(self, model_id: int) -> Model:
        """Record and status now."""
        ...

    def offer_hash(self, offer: Offer) -> bytes:
        """What a request names."""
        ...

    def request_hash(self, request: CopyRequest) -> bytes:
        """What an order names."""
        ...

    def check_offer(self, signed: SignedOffer, buyer: str) -> None:
        """Raises BadSignature; BadInput when it is over, or seller, model, terms and buyer do not fit now."""
        ...

    def check_request(self, signed: SignedRequest) -> None:
        """Raises BadSignature; BadInput when it is over."""
        ...

    def fee_paid(self, request: CopyRequest) -> FeePaid | None:
        """The prepare fee that lies in the vault for a request, finalized."""
        ...

    def order_status(self, license_id: int) -> OrderStatus:
        """State of the order under a license id, now."""
        ...

    def free_stake(self) -> int:
        """Wei of our stake that a further deposit may lock."""
        ...

    def sign_order(self, order: Order) -> bytes:
        """Our signature over an order."""
        ...

    def check_seller(self, order: Order, signature: bytes) -> None:
        """Raises BadSignature unless the order's seller signed it."""
        ...

    def earn_fee(self, order: Order, seller_signature: bytes) -> str:
        """Takes the prepare fee of an order that the buyer let pass; returns the transaction hash."""
        ...

    def reveal(self, order: Order, key: bytes) -> str:
        """Publishes the key; returns the transaction hash."""
        ...

    def mark_commit(self, license_id: int) -> bytes:
        """Of the license as issued; raises NotFound before settlement."""
        ...

    def committee_keys(self, epoch: int) -> Sequence[bytes]:
        """X25519 keys of an epoch's operators that can be sealed to. Raises BadInput when they are too few."""
        ...

    def shares_opened(self, license_id: int) -> int:
        """Bitmap of shares opened on chain."""
        ...

    def share_wanted(self, case_id: bytes, post_by: int) -> bool:
        """Whether the case is open, has no share yet and still takes one; `post_by` is the file's."""
        ...

    def open_share(
        self, case_id: bytes, index: int, seed: bytes, proof: Sequence[bytes], base_cid: str
    ) -> str:
        """Opens one share; returns the transaction hash."""
        ...
