"""The fingerprinter at work: prepare copies, sign orders, reveal keys, open shares. The only place where its
parts meet.

Trusted for: drawing honest shares, keeping seeds secret, marking inside the declared range. Not trusted for:
the delivery (a buyer proves a wrong chunk on chain) or for who is guilty (a committee decides, the accused
can rebut).
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from zhiyi import delivery
from zhiyi.delivery import Bundle, DeclaredRange, Tree, ecies
from zhiyi.errors import BadInput, IntegrityError, NotFound, RpcUnavailable, Timeout, TxReverted, ZhiyiError
from zhiyi.types import (
    NATIVE,
    ZERO32,
    Basis,
    Bytes32,
    CaseFile,
    Delivery,
    Offer,
    Order,
    OrderState,
    SignedOffer,
    SignedRequest,
    Value,
    to_bytes,
)
from zhiyi_oracle.base_tensors import KEY_BYTES, write_base
from zhiyi_oracle.errors import Refused
from zhiyi_oracle.fingerprinter.copies import (
    CopyRow,
    CopyStep,
    CopyStore,
    ModelRow,
    ShareRow,
    WaitingRow,
)
from zhiyi_oracle.fingerprinter.mark_copy import Source, make_copy
from zhiyi_oracle.fingerprinter.market import LeakSeen, Market, OrderSeen
from zhiyi_oracle.logs import get_logger
from zhiyi_watermark import weights
from zhiyi_watermark.errors import WatermarkError

MAX_UNSOLD_PER_BUYER: Final = 3  # copies a buyer may have waiting: each costs minutes of work and disk
MAX_FEE_SHARE: Final = 20  # a prepare fee is at most price / 20, as the escrow rules
MIN_FEE_TIME: Final = 86_400  # seconds after payment before which the escrow lets nobody earn a fee
MAX_BLOCKS: Final = 2_000  # read at once
STALE_SCRATCH_S: Final = 86_400
_CURSOR: Final = "chain"

log = get_logger(__name__)

Row = TypeVar("Row")


class Files(Protocol):
    """Content-addressed storage, as `zhiyi.ipfs.Ipfs`."""

    def add_file(self, path: Path) -> str:
        """Its CIDv0."""
        ...


class Sealer(Protocol):
    """Envelopes for X25519 public keys, as `zhiyi.delivery.ecies`."""

    def seal_folder(self, folder: Path, keys: Sequence[bytes], out: Path) -> None: ...

    def seal_file(self, path: Path, keys: Sequence[bytes], out: Path) -> None: ...


class Prepared(Value):
    """What a buyer and a seller get: the delivery half of the order and where the sealed package is."""

    delivery: Delivery
    request_hash: Bytes32
    package_cid: str


@dataclass(frozen=True)
class Rules:
    """What this fingerprinter asks of requests."""

    min_fee: int = 0  # smallest unit of the offer's token
    token_deposit: int = 0  # wei locked for an order paid in a token other than the native coin


class Fingerprinter:
    """One fingerprinter."""

    def __init__(
        self,
        *,
        store: CopyStore,
        market: Market,
        files: Files,
        sealer: Sealer,
        work: Path,
        rules: Rules,
        start_block: int,
    ) -> None:
        """work: scratch folder with room for two copies of the largest model."""
        self._store, self._market, self._files, self._sealer = store, market, files, sealer
        self._work, self._rules, self._start = work, rules, start_block
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in (*work.glob("copy-*"), *work.glob("base-*")):  # of a process that was killed
            if time.time() - left.stat().st_mtime > STALE_SCRATCH_S:
                shutil.rmtree(left, ignore_errors=True)

    # -- models

    def add_model(self, model_id: int, folder: Path, kit: str, declared: DeclaredRange) -> None:
        """Takes on a model, after checking files, kit and range against its registration.

        Raises:
            IntegrityError: the files, the kit or the range are not the registered ones.
            BadInput: the kit is malformed.
        """
        model = self._market.model(model_id)
        record = model.record
        try:
            trace_kit = weights.TraceKit.from_json(kit)
        except WatermarkError as exc:
            raise BadInput(f"the trace kit cannot be used: {exc}") from exc
        if trace_kit.commitment() != model.trace_key_commit:
            raise IntegrityError(f"this is not the trace kit that model {model_id} committed to")
        if trace_kit.spec.spec_hash() != record.detector_hash:
            raise IntegrityError(f"the kit's detector is not the one that model {model_id} registered")
        if declared.hash() != record.range_hash:
            raise IntegrityError(f"this is not the declared range that model {model_id} registered")
        bundle = Bundle.scan(folder, record.chunk_size)
        tree = Tree(bundle.leaves(folder))
        if tree.root != record.weights_root:
            raise IntegrityError(
                f"the files in {folder} have root 0x{tree.root.hex()}, model {model_id} registered "
                f"0x{record.weights_root.hex()}"
            )
        leaves = self._store.folder / f"leaves-{record.weights_root.hex()}.bin"
        tree.save(leaves)
        self._store.put_model(
            model_id,
            record.weights_root,
            folder=folder.absolute(),
            leaves=leaves,
            declared_range=_range_text(declared),
            kit=kit.encode(),
        )
        log.info("model added", model_id=model_id, chunks=bundle.chunks)

    def _source(self, row: ModelRow) -> Source:
        return Source(
            Path(row.folder),
            Tree.load(Path(row.leaves), to_bytes(row.weights_root, 32)),
            _range_of(row.declared_range),
            weights.TraceKit.from_json(self._store.kit(row).decode()),
        )

    # -- prepare

    def prepare(
        self,
        signed_offer: SignedOffer,
        signed_request: SignedRequest,
        progress: delivery.Progress = lambda done, total: None,
    ) -> Prepared:
        """Makes the copy of a request, once: asked again, the same copy is returned.

        1. The seller signed the offer, the buyer the request; the request names this offer.
        2. Both are in time; the offer lets us prepare; the seller owns the model, which may be sold on these terms
           to this buyer.
        3. A request known already gives its copy; its nonce serves no other request.
        4. The fee is what we ask, within the escrow's limit, and lies in the vault for us.
        5. Our free stake covers the deposit; the buyer has not too many copies waiting.
        6. Number and secrets are drawn and stored; then the copy is made, sealed to the buyer's key, and
           published.

        Raises:
            BadSignature, Refused (naming the step), ZhiyiError of the parts.
        """
        offer, request = signed_offer.offer, signed_request.request
        request_hash = self._market.request_hash(request)
        # 3, first half: a finished copy is given out again whatever the clock says, to whoever holds the signed request
        known = self._store.copy_of_request(request_hash)
        if known is not None and known.package_cid is not None:
            return _prepared(known)
        # 1, 2
        self._market.check_offer(signed_offer, request.buyer)
        self._market.check_request(signed_request)
        if request.offer_hash != self._market.offer_hash(offer) or request.model_id != offer.model_id:
            raise Refused("1: the request names another offer or model; sign a request for this offer")
        if offer.fingerprinter not in (None, self._market.account):
            raise Refused(f"2: the offer names the fingerprinter {offer.fingerprinter}; ask there")
        if self._market.account in (offer.seller, request.buyer):
            raise Refused("2: a fingerprinter is neither seller nor buyer; ask another one")
        if not ecies.is_usable(request.delivery_key):
            raise Refused("2: the delivery key is no X25519 key that can be sealed to; sign with another one")
        model = self._market.model(offer.model_id)
        self._store.model(model.record.weights_root)  # refused here, before anything is drawn
        # 4
        self._check_fee(offer, signed_request)
        # 5
        deposit = self._deposit(offer)
        free = self._market.free_stake()
        if free < deposit:
            raise Refused(
                f"5: the order needs a deposit of {deposit} wei, our free stake is {free}; try again later"
            )
        if known is None and self._store.unsold(request.buyer) >= MAX_UNSOLD_PER_BUYER:
            raise Refused(
                f"5: {request.buyer} has {MAX_UNSOLD_PER_BUYER} copies that were not bought; buy or wait"
            )
        # 3, second half, and 6
        copy = self._store.draw(
            model_id=offer.model_id,
            weights_root=model.record.weights_root,
            request_hash=request_hash,
            offer=signed_offer.model_dump_json(),
            request=signed_request.model_dump_json(),
            buyer=request.buyer,
            request_nonce=request.nonce,
            onward=offer.basis is not Basis.OWNER,
            taken=self._is_taken,
        )
        license_id = int(copy.license_id)
        log.info("preparing", license_id=license_id, buyer=request.buyer)
        with tempfile.TemporaryDirectory(dir=self._work, prefix="copy-") as scratch:
            made = make_copy(
                self._source(self._store.model(copy.weights_root)),
                self._store.secrets_of(copy),
                license_id=license_id,
                buyer=request.buyer,
                work=Path(scratch),
                progress=progress,
            )
            sealed = Path(scratch) / "package.sealed"
            self._sealer.seal_folder(made.package, [request.delivery_key], sealed)
            cid = self._files.add_file(sealed)
        figures = made.figures
        half = Delivery(
            license_id=license_id,
            buyer=request.buyer,
            fingerprinter=self._market.account,
            deposit=deposit,
            copy_root=figures.copy_root,
            delivery_root=figures.delivery_root,
            key_commit=made.key_commit,
            mark_commit=made.mark_commit,
            total_bytes=figures.total_bytes,
            chunks=figures.chunks,
            chunk_size=figures.chunk_size,
            suite=figures.suite,
            reveal_window=offer.reveal_window,
            grace=offer.grace,
            complaint_window=offer.complaint_window,
        )
        self._store.advance(
            copy.license_id,
            CopyStep.DRAWN,
            CopyStep.PREPARED,
            delivery=half.model_dump_json(),
            package_cid=cid,
            report=made.report,
        )
        log.info("prepared", license_id=license_id, package_cid=cid)
        made_row = self._store.copy(
            license_id
        )  # another process may have been first: its package is the copy
        if made_row is None:
            raise IntegrityError(
                f"license {license_id} vanished from the database; restore it from the backup"
            )
        return _prepared(made_row)

    def _is_taken(self, license_id: int) -> bool:
        return self._market.order_status(license_id).state is not OrderState.NONE

    def _check_fee(self, offer: Offer, signed: SignedRequest) -> None:
        request = signed.request
        if request.prepare_fee < self._rules.min_fee:
            raise Refused(
                f"4: the prepare fee is {request.prepare_fee}, we ask {self._rules.min_fee}; offer more"
            )
        if request.prepare_fee * MAX_FEE_SHARE > offer.price:
            raise Refused(
                f"4: the prepare fee {request.prepare_fee} is over a twentieth of the price {offer.price}"
            )
        if request.prepare_fee == 0:
            return
        paid = self._market.fee_paid(request)
        if paid is None:
            raise Refused(
                "4: the prepare fee does not lie in the vault in a finalized block yet; pay it, then ask again"
            )
        ours = (self._market.account, offer.token, request.model_id)
        if (paid.fingerprinter, paid.token, paid.model_id) != ours or paid.fee < request.prepare_fee:
            raise Refused(
                f"4: the vault holds {paid.fee} of {paid.token} for {paid.fingerprinter} and model {paid.model_id}, "
                f"the request says {request.prepare_fee} of {offer.token} for us and model {request.model_id}; reclaim "
                "it and pay again"
            )
        if paid.by <= paid.paid_at + MIN_FEE_TIME:
            raise Refused(
                f"4: the prepare fee can be taken back from {paid.by} on, a day after it was paid or sooner; "
                "reclaim it and pay again with more time"
            )

    def _deposit(self, offer: Offer) -> int:
        return offer.price if offer.token == NATIVE else self._rules.token_deposit

    # -- order

    def sign_order(self, order: Order, seller_signature: bytes | None = None) -> bytes:
        """Our signature over the one order of a copy; asked again for the same order, the same one.

        seller_signature: where given it is kept, and earns the prepare fee should the buyer let the order pass.

        Raises:
            NotFound: no such copy. BadSignature: not the seller's.
            Refused: it does not say what offer, request and copy say, or another order was signed.
        """
        if seller_signature is not None:
            self._market.check_seller(order, seller_signature)
        row = self._store.copy(order.delivery.license_id)
        if row is None or row.delivery is None:
            raise NotFound(
                f"license {order.delivery.license_id} is not a copy prepared here; prepare it first"
            )
        if row.order_hash is not None and row.order_signature is not None:
            if row.order_hash != order.hash():
                raise Refused(
                    f"license {row.license_id} has an order already; prepare a new copy for a new order"
                )
            return row.order_signature
        if Delivery.model_validate_json(row.delivery) != order.delivery:
            raise Refused(
                "the order's delivery half is not what was prepared; use the one that `prepare` returned"
            )
        offer = SignedOffer.model_validate_json(row.offer).offer
        request = SignedRequest.model_validate_json(row.request).request
        fee, sale = request.prepare_fee, order.sale
        if sale.open_by > request.by:
            raise Refused(
                f"the order can be opened until {sale.open_by}, the buyer asked for it by {request.by}; "
                "shorten the order's time"
            )
        for name, given, needed in (
            ("seller", sale.seller, offer.seller),
            ("token", sale.token, offer.token),
            ("price", sale.price, offer.price),
            ("bond", sale.bond, offer.bond),
            ("terms", sale.terms, offer.terms.pack()),
            ("terms hash", sale.terms_hash, offer.terms_hash),
            ("bond tail", sale.bond_tail, offer.bond_tail),
            ("basis", sale.basis, offer.basis),
            ("source", sale.source, offer.source),
            ("request hash", sale.request_hash, row.request_hash if fee else ZERO32),
        ):
            if given != needed:
                raise Refused(f"the order's {name} is {given!r}, offer and request say {needed!r}")
        signature = self._market.sign_order(order)
        if not self._store.advance(
            row.license_id,
            CopyStep.PREPARED,
            CopyStep.SIGNED,
            order_hash=order.hash(),
            order=order.model_dump_json(),
            order_signature=signature,
            seller_signature=seller_signature,
        ):
            raise Refused(f"license {row.license_id} is {row.step}; only a prepared copy gets an order")
        return signature

    # -- chain

    def step(self) -> int:
        """Reads newly finalized blocks, then does what they ask for; returns how many blocks were read.

        Safe to repeat and to interrupt: what was read is stored before the cursor moves.
        """
        last, horizon = self._market.finalized()
        first = max(self._start, (self._store.cursor(_CURSOR) or -1) + 1)
        read = 0
        while first <= last:
            until = min(last, first + MAX_BLOCKS - 1)
            for seen in self._market.observations(first, until):
                if isinstance(seen, OrderSeen):
                    self._note_order(seen)
                else:
                    self._note_leak(seen)
            self._store.set_cursor(_CURSOR, until)
            read += until - first + 1
            first = until + 1
        for row in self._store.copies(CopyStep.DRAWN, CopyStep.PREPARED, CopyStep.SIGNED):
            self._try(lambda copy: self._expire(copy, horizon), row, row.license_id)
        for row in self._store.copies(CopyStep.OPENED):
            self._try(self._reveal, row, row.license_id)
        for share in self._store.shares():
            self._try(self._open_share, share, share.license_id)
        for waiting in self._store.waiting():  # after the shares: those given back now can serve at once
            self._try(self._wait_for_share, waiting, waiting.license_id)
        return read

    def _note_order(self, seen: OrderSeen) -> None:
        half = seen.order.delivery
        row = self._store.copy(half.license_id)
        if row is None or row.order_hash != seen.order_hash:
            log.warning(
                "opened order is not ours",
                license_id=half.license_id,
                order_hash="0x" + seen.order_hash.hex(),
            )
            return
        self._store.advance(row.license_id, CopyStep.SIGNED, CopyStep.OPENED)

    def _expire(self, row: CopyRow, horizon: int) -> None:
        """Ends a copy that can no longer be bought, by the time of the last finalized block, and takes its fee."""
        request = SignedRequest.model_validate_json(row.request).request
        if row.step != CopyStep.SIGNED or row.order is None:
            if horizon > request.by:
                self._store.advance(row.license_id, CopyStep(row.step), CopyStep.ENDED)
            return
        order = Order.model_validate_json(row.order)
        if horizon <= order.sale.open_by:
            return
        if request.prepare_fee and row.seller_signature and self._market.now() <= request.by:
            tx = self._market.earn_fee(order, row.seller_signature)
            log.info("prepare fee earned", license_id=row.license_id, tx_hash=tx)
        self._store.advance(row.license_id, CopyStep.SIGNED, CopyStep.ENDED)

    def _note_leak(self, seen: LeakSeen) -> None:
        row = self._store.copy(seen.file.license_id)
        if row is None:
            return
        share = self._store.spend_share(
            case_id="0x" + seen.case_id.hex(),
            license_id=seen.file.license_id,
            file=seen.file.model_dump_json(),
            opened=self._market.shares_opened(seen.file.license_id),
        )
        if share is None:
            log.error("no share is left", license_id=row.license_id, case_id="0x" + seen.case_id.hex())

    def _wait_for_share(self, waiting: WaitingRow) -> None:
        """Takes a share that came back since; the next case in line gets it while its own is open."""
        file = CaseFile.model_validate_json(waiting.file)
        if not self._market.share_wanted(bytes.fromhex(waiting.case_id[2:]), file.post_by):
            self._store.stop_waiting(waiting.case_id)
            return
        license_id = int(waiting.license_id)
        share = self._store.spend_share(
            case_id=waiting.case_id,
            license_id=license_id,
            file=waiting.file,
            opened=self._market.shares_opened(license_id),
        )
        if share is not None:
            self._open_share(share)

    def _try(self, action: Callable[[Row], None], row: Row, license_id: str) -> None:
        """Runs one action; what fails now is tried again at the next step."""
        try:
            action(row)
        except (RpcUnavailable, Timeout, TxReverted) as exc:
            log.warning("will try again", license_id=license_id, reason=str(exc))
        except ZhiyiError as exc:
            log.error("needs attention", license_id=license_id, reason=str(exc))

    def _reveal(self, row: CopyRow) -> None:
        """Publishes the key of a paid order, inside the reveal window only.

        In the grace period after it a reveal still counts on chain, but it could be overtaken by a refund: a
        key that is out without payment cannot be taken back.
        """
        if row.order is None or row.order_hash is None:
            raise IntegrityError(
                f"the database lost the order of license {row.license_id}; restore it from the backup"
            )
        order = Order.model_validate_json(row.order)
        status = self._market.order_status(order.delivery.license_id)
        if status.hash != row.order_hash[: len(status.hash)]:
            raise IntegrityError(
                f"the escrow holds another order under license {row.license_id}; the key stays secret"
            )
        if status.state is OrderState.OPEN:
            if self._market.now() > status.since + order.delivery.reveal_window:
                log.error("reveal window missed, the order will be refunded", license_id=row.license_id)
                return
            tx = self._market.reveal(order, self._store.secrets_of(row).key)
            self._store.advance(row.license_id, CopyStep.OPENED, CopyStep.REVEALED, reveal_tx=tx)
            log.info("key revealed", license_id=row.license_id, tx_hash=tx)
        elif status.state is OrderState.REFUNDED:
            self._store.advance(row.license_id, CopyStep.OPENED, CopyStep.ENDED)
        else:
            self._store.advance(row.license_id, CopyStep.OPENED, CopyStep.REVEALED)

    def _open_share(self, share: ShareRow) -> None:
        """Seals the base tensors to the case's committee and opens the share that was set aside for the case."""
        case_id = bytes.fromhex(share.case_id[2:])
        file = CaseFile.model_validate_json(share.file)
        if not self._market.share_wanted(case_id, file.post_by):
            self._store.return_share(share.case_id)
            return
        row = self._store.copy(file.license_id)
        if row is None:
            raise NotFound(f"license {file.license_id} is not a copy prepared here")
        seeds = self._store.secrets_of(row).seeds
        if delivery.mark_commit(file.license_id, seeds) != self._market.mark_commit(file.license_id):
            raise IntegrityError(f"our seeds of license {file.license_id} do not match its mark commitment")
        if share.base_cid is None:
            keys = self._market.committee_keys(file.epoch)
            model = self._store.model(row.weights_root)
            folder = Path(model.folder)
            with tempfile.TemporaryDirectory(dir=self._work, prefix="base-") as scratch:
                package, sealed = Path(scratch) / "base", Path(scratch) / "base.sealed"
                bundle = Bundle.scan(folder, _delivery_of(row).chunk_size)
                kit = weights.TraceKit.from_json(self._store.kit(model).decode())
                declared, key = _range_of(model.declared_range), secrets.token_bytes(KEY_BYTES)
                write_base(folder, bundle, declared, kit.spec, key, package)
                self._sealer.seal_file(package, keys, sealed)
                share.base_cid = self._files.add_file(sealed)
            self._store.set_share(share.case_id, base_cid=share.base_cid)
        self._store.set_share(share.case_id, attempted=True)
        tx = self._market.open_share(
            case_id,
            share.share_index,
            seeds[share.share_index],
            delivery.share_proof(file.license_id, seeds, share.share_index),
            share.base_cid,
        )
        self._store.set_share(share.case_id, tx=tx, ended=True)
        log.info(
            "share opened",
            case_id=share.case_id,
            license_id=share.license_id,
            index=share.share_index,
            tx_hash=tx,
        )


def _delivery_of(row: CopyRow) -> Delivery:
    """What was prepared. Raises NotFound before that."""
    if row.delivery is None:
        raise NotFound(f"the copy of license {row.license_id} was never made")
    return Delivery.model_validate_json(row.delivery)


def _prepared(row: CopyRow) -> Prepared:
    if row.delivery is None or row.package_cid is None:
        raise NotFound(f"license {row.license_id} is {row.step}, its copy is not made yet")
    return Prepared(
        delivery=Delivery.model_validate_json(row.delivery),
        request_hash=row.request_hash,
        package_cid=row.package_cid,
    )


def _range_text(declared: DeclaredRange) -> str:
    return json.dumps(declared.to_json(), sort_keys=True)


def _range_of(text: str) -> DeclaredRange:
    return DeclaredRange.from_json(json.loads(text))
