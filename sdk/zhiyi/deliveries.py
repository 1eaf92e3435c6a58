"""The buyer's side of a delivery, with what chain and IPFS say of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from zhiyi import delivery, metadata
from zhiyi.chain import Chain
from zhiyi.delivery import ComplaintProof, DeclaredRange, DecryptResult, Package, Progress, Registered
from zhiyi.delivery.hashing import HASH_BYTES
from zhiyi.delivery.package import silent
from zhiyi.deployment import Deployment
from zhiyi.errors import BadInput, IntegrityError, NotFound, Timeout, ZhiyiError
from zhiyi.group import Group
from zhiyi.models import Models
from zhiyi.offers import Offers
from zhiyi.orders import Orders
from zhiyi.types import CopyRequest, Model, Offer, Order, SignedOrder, model_of_license


class Reader(Protocol):
    """What is asked of IPFS (`zhiyi.ipfs.Ipfs`): bytes that were checked against their CID."""

    def cat(self, cid: str, max_bytes: int = ...) -> bytes: ...


class Deliveries(Group):
    """Checking a copy before paying, decrypting it after, and proving a wrong chunk."""

    def __init__(self, chain: Chain, deployment: Deployment, ipfs: Callable[[], Reader]) -> None:
        super().__init__(chain, deployment)
        self._ipfs = ipfs
        self._models = Models(chain, deployment)
        self._orders = Orders(chain, deployment)

    def registered(self, model: Model | int) -> Registered:
        """Leaves and declared range of the version in force, from the public files that its metadata names.

        That is the metadata it was submitted with, else the model's present one: a version that waits or was rejected
        brought its own. Whoever uses leaves and range checks both against the chain's hashes.
        Raises NotFound, BadInput, IntegrityError, Timeout.
        """
        found = model if isinstance(model, Model) else self._models.get(model)
        problem: ZhiyiError = NotFound(
            f"the metadata of model {found.model_id} names no leaves_cid and declared_range: ask its owner"
        )
        for source in dict.fromkeys((found.record_cid, found.metadata_cid)):
            try:
                described = metadata.parse(self._ipfs().cat(source, metadata.MAX_BYTES)).model
            except (NotFound, Timeout, BadInput) as error:
                problem = error
                continue
            cid, declared = described.get("leaves_cid"), described.get("declared_range")
            if isinstance(cid, str) and declared is not None:
                return Registered(
                    weights_root=found.record.weights_root,
                    range_hash=found.record.range_hash,
                    leaves=self._ipfs().cat(cid, found.record.chunks * HASH_BYTES),
                    declared_range=DeclaredRange.from_json(declared),
                )
        raise problem

    def verify(
        self,
        signed: SignedOrder,
        offer: Offer,
        request: CopyRequest,
        package: Path,
        *,
        registered: Registered | None = None,
        progress: Progress = silent,
    ) -> Package:
        """Everything a buyer can check before paying.

        1. Seller and fingerprinter signed the order. 2. It says what offer and request said. 3. It can be opened now:
        in time, a prepare fee that it counts on was paid, and the model can be sold so (`Offers.check`). 4. It has the
        model's figures. 5. Every leaf of the package fits the order and the registered model
        (`zhiyi.delivery.verify_before_payment`).
        Raises BadSignature (1), BadInput (2, 3), TxReverted (3), IntegrityError (4, 5), NotFound.
        """
        order = signed.order
        self._orders.verify(signed)  # 1
        expected = self._orders.draft(offer, request, order.delivery, open_by=order.sale.open_by).sale  # 2
        differing = [
            f"{name} {getattr(order.sale, name)} instead of {value}"
            for name, value in expected
            if name != "order_nonce" and getattr(order.sale, name) != value
        ]
        if differing:
            raise BadInput(f"the order is not what was offered: {'; '.join(differing)}")
        now = self._chain.now()  # 3
        if now > order.sale.open_by:
            raise BadInput(f"the order could be opened until {order.sale.open_by}, the chain's time is {now}")
        self._orders.quote(order)
        parties = {"buyer": order.delivery.buyer, "fingerprinter": order.delivery.fingerprinter}
        Offers(self._chain, self._deployment).check(offer, **parties)
        model = self._models.get(model_of_license(order.delivery.license_id))  # 4
        for name in ("total_bytes", "chunks", "chunk_size"):
            given, needed = getattr(order.delivery, name), getattr(model.record, name)
            if given != needed:
                raise IntegrityError(
                    f"the order has {name} {given}, the registered model {needed}: do not pay"
                )
        known = registered or self.registered(model)
        if (known.weights_root, known.range_hash) != (model.record.weights_root, model.record.range_hash):
            raise IntegrityError("the leaves and range given are not those of the order's model")
        return delivery.verify_before_payment(package, order.delivery, known, progress)  # 5

    def decrypt(
        self, order: Order, package: Path, out: Path, *, key: bytes | None = None, progress: Progress = silent
    ) -> DecryptResult:
        """Decrypts a verified package into the new folder `out` with the revealed key.

        Raises NotFound before the key is revealed; WrongChunk (with its index for `complaint`), IntegrityError.
        """
        revealed = key if key is not None else self._orders.key(order.delivery.license_id)
        commit = delivery.key_commit(revealed, order.delivery.license_id, order.delivery.buyer)
        if commit != order.delivery.key_commit:
            raise IntegrityError("this key is not the one that the order commits to")
        return delivery.decrypt(package, order.delivery, revealed, out, progress)

    def complaint(
        self, order: Order, package: Path, index: int, *, progress: Progress = silent
    ) -> ComplaintProof:
        """What `orders.complain` needs to prove chunk `index` wrong. Raises BadInput, IntegrityError."""
        return delivery.complaint(package, order.delivery, index, progress)
