"""Fair delivery through the SDK on the real contracts: an honest copy, a cheated one, and checks before paying."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import DAY, Clients
from test_story import BOND, PREFERENCES, PRICE, h, make_offer, stake

from adversaries.cheating_fingerprinter import prepare_cheated
from zhiyi import Zhiyi, delivery, metadata
from zhiyi.cid import cid_v0_from_digest, digest_from_cid
from zhiyi.delivery import Bundle, PreparedCopy, Tree, WrongChunk, range_for_tensors
from zhiyi.errors import BadInput, IntegrityError, NotFound, TxReverted
from zhiyi.types import (
    FIRST_ONWARD,
    Basis,
    CopyRequest,
    Delivery,
    LicenseTerms,
    ModelRecord,
    Offer,
    Order,
    OrderState,
    Review,
    SignedOrder,
    license_id_of,
)

KEY = h("delivery key of one order")
TENSOR_BYTES = 40_000


class Files:
    """Content by CID, as IPFS has it."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def add(self, data: bytes) -> str:
        cid = cid_v0_from_digest(h(data.hex()))
        self.content[cid] = data
        return cid

    def cat(self, cid: str, max_bytes: int = 1 << 20) -> bytes:
        digest_from_cid(cid)
        if cid not in self.content:
            raise NotFound(f"nobody has {cid}")
        if len(self.content[cid]) > max_bytes:
            raise BadInput(f"{cid} has more than {max_bytes} bytes")
        return self.content[cid]


@dataclass
class Market:
    clients: Clients
    files: Files
    model: Path
    tree: Tree
    declared: delivery.DeclaredRange
    model_id: int
    work: Path

    def client(self, role: str) -> Zhiyi:
        made = self.clients[role]
        made.__dict__["ipfs"] = self.files
        return made

    def signed(
        self,
        copy: PreparedCopy,
        *,
        fingerprint: int = 5,
        seller: str = "creator",
        buyer: str = "buyer",
        **changes: object,
    ) -> tuple[SignedOrder, Offer, CopyRequest]:
        payer, owner = self.client(buyer), self.client(seller)
        fingerprinter = self.client("fingerprinter")
        offer = make_offer(self.clients, self.model_id, seller=owner.account, **changes)
        request = CopyRequest(
            model_id=self.model_id,
            offer_hash=payer.offers.hash(offer),
            buyer=payer.account,
            delivery_key=h("buyer's delivery key"),
            nonce=1,
            by=self.clients.node.chain.now() + DAY,
        )
        license_id = license_id_of(self.model_id, fingerprint)
        half = Delivery(
            license_id=license_id,
            buyer=payer.account,
            fingerprinter=fingerprinter.account,
            deposit=PRICE,
            key_commit=delivery.key_commit(KEY, license_id, payer.account),
            mark_commit=h("marks"),
            reveal_window=offer.reveal_window,
            grace=offer.grace,
            complaint_window=offer.complaint_window,
            **copy.figures._asdict(),
        )
        order = owner.orders.draft(offer, request, half, open_by=self.clients.node.chain.now() + DAY)
        both = (owner.orders.sign(order), fingerprinter.orders.sign(order))
        signed = SignedOrder(order=order, seller_signature=both[0], fingerprinter_signature=both[1])
        return signed, offer, request

    def buy(self, signed: SignedOrder) -> Order:
        order = signed.order
        self.client("buyer").orders.open(order, signed.seller_signature, signed.fingerprinter_signature)
        self.client("fingerprinter").orders.reveal(order, KEY)
        return order


def write_model(folder: Path) -> None:
    folder.mkdir()
    tensors = {
        "a": {"dtype": "U8", "shape": [TENSOR_BYTES], "data_offsets": [0, TENSOR_BYTES]},
        "b": {
            "dtype": "U8",
            "shape": [TENSOR_BYTES // 4],
            "data_offsets": [TENSOR_BYTES, TENSOR_BYTES * 5 // 4],
        },
    }
    header = json.dumps(tensors).encode()
    body = bytes(i * 31 % 251 for i in range(TENSOR_BYTES * 5 // 4))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + body)
    (folder / "config.json").write_text("{}")


@pytest.fixture
def market(clients: Clients, tmp_path: Path) -> Market:
    stake(clients)
    model = tmp_path / "model"
    write_model(model)
    bundle = Bundle.scan(model)
    tree = Tree(bundle.leaves(model))
    declared = range_for_tensors(model, bundle, ["b"], max_change_ppm=100_000)
    files = Files()
    document = metadata.build(
        name="m",
        description="",
        preferences=PREFERENCES,
        model={"leaves_cid": files.add(tree.leaves), "declared_range": declared.to_json()},
    )
    record = ModelRecord(
        weights_root=tree.root,
        total_bytes=bundle.total_bytes,
        chunks=bundle.chunks,
        chunk_size=bundle.chunk_size,
        detector_hash=h("detector"),
        trace_key_commit=h("trace"),
        range_hash=declared.hash(),
    )
    cid = files.add(metadata.encode(document))
    model_id = clients["creator"].models.register(record, cid, PREFERENCES).model_id
    clients["registrar"].models.review(model_id, Review.APPROVED)
    return Market(clients, files, model, tree, declared, model_id, tmp_path)


def honest(market: Market) -> PreparedCopy:
    marked = market.work / "marked"
    write_model(marked)
    file = marked / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5000] ^= 1
    file.write_bytes(data)
    return delivery.prepare(marked, market.model, market.tree, market.declared, KEY, market.work / "package")


def test_honest_copy_is_checked_bought_and_decrypted(market: Market) -> None:
    copy = honest(market)
    assert copy.changed_chunks == 1
    signed, offer, request = market.signed(copy)
    buyer = market.client("buyer")
    buyer.delivery.verify(signed, offer, request, copy.folder)
    with pytest.raises(NotFound, match="no key"):
        buyer.delivery.decrypt(signed.order, copy.folder, market.work / "early")
    order = market.buy(signed)
    buyer.delivery.decrypt(order, copy.folder, market.work / "out")
    marked = market.work / "marked" / "model.safetensors"
    assert (market.work / "out" / "model.safetensors").read_bytes() == marked.read_bytes()
    proof = buyer.delivery.complaint(order, copy.folder, 3)
    with pytest.raises(TxReverted, match="ChunkIsRight"):
        buyer.orders.complain(order, KEY, proof)
    with pytest.raises(TxReverted, match="NotInDelivery"):
        buyer.orders.complain(order, KEY, replace(proof, path=proof.path[::-1]))
    with pytest.raises(IntegrityError, match="commits to"):
        buyer.delivery.decrypt(order, copy.folder, market.work / "no", key=h("other"))
    buyer.orders.accept(order)
    assert buyer.licenses.is_active(order.delivery.license_id)


def test_the_copy_of_a_resale_is_checked_against_its_source(market: Market) -> None:
    terms = LicenseTerms(resale=True, onward_bps=500)
    signed, _, _ = market.signed(honest(market), terms=terms)
    first = market.buy(signed)
    market.client("buyer").orders.accept(first)
    source = first.delivery.license_id
    passed = LicenseTerms(onward_bps=500)
    shutil.rmtree(market.work / "marked")
    shutil.rmtree(market.work / "package")
    changes = {"basis": Basis.RESALE, "source": source, "terms": passed}
    copy = honest(market)
    signed, offer, request = market.signed(
        copy, seller="buyer", buyer="buyer2", fingerprint=FIRST_ONWARD + 6, **changes
    )
    buyer = market.client("buyer2")
    buyer.delivery.verify(signed, offer, request, copy.folder)
    market.client("buyer").licenses.surrender(source)
    with pytest.raises(BadInput, match="not active"):
        buyer.delivery.verify(signed, offer, request, copy.folder)


def test_cheated_copy_passes_every_check_and_is_refunded_on_one_path(market: Market) -> None:
    wrong = 9
    copy = prepare_cheated(market.model, market.tree, market.declared, KEY, market.work / "package", wrong)
    signed, offer, request = market.signed(copy)
    buyer = market.client("buyer")
    buyer.delivery.verify(signed, offer, request, copy.folder)
    order = market.buy(signed)
    with pytest.raises(WrongChunk) as caught:
        buyer.delivery.decrypt(order, copy.folder, market.work / "out")
    assert caught.value.wrong == (wrong,)
    proof = buyer.delivery.complaint(order, copy.folder, caught.value.index)
    result = buyer.orders.complain(order, KEY, proof)
    assert result.event("ChunkProvenWrong")["index"] == wrong
    assert buyer.vault.balance() == PRICE + BOND + order.delivery.deposit
    assert buyer.orders.state(order.delivery.license_id).state == OrderState.REFUNDED


def test_order_that_is_not_what_was_offered_is_refused(market: Market) -> None:
    copy = honest(market)
    signed, offer, request = market.signed(copy)
    seller, fingerprinter = market.client("creator"), market.client("fingerprinter")
    for change in (
        {"price": offer.price + 1},
        {"terms": 0},
        {"bond": offer.bond + 1},
        {"bond_tail": 91 * DAY},
    ):
        sale = signed.order.sale.model_copy(update=change)
        order = Order(sale=sale, delivery=signed.order.delivery)
        changed = SignedOrder(
            order=order,
            seller_signature=seller.orders.sign(order),
            fingerprinter_signature=fingerprinter.orders.sign(order),
        )
        with pytest.raises(BadInput, match=f"not what was offered: {next(iter(change))}"):
            market.client("buyer").delivery.verify(changed, offer, request, copy.folder)


def test_package_changed_outside_the_range_is_refused(market: Market) -> None:
    copy = honest(market)
    signed, offer, request = market.signed(copy)
    leaves = bytearray((copy.folder / "plain_leaves.bin").read_bytes())
    leaves[5 * 32] ^= 1
    (copy.folder / "plain_leaves.bin").write_bytes(leaves)
    with pytest.raises(IntegrityError):
        market.client("buyer").delivery.verify(signed, offer, request, copy.folder)


def test_forged_public_files_are_refused(market: Market) -> None:
    copy = honest(market)
    signed, offer, request = market.signed(copy)
    buyer = market.client("buyer")
    known = buyer.delivery.registered(market.model_id)
    forged = replace(known, leaves=bytes(len(known.leaves)))
    with pytest.raises(IntegrityError, match="registered"):
        buyer.delivery.verify(signed, offer, request, copy.folder, registered=forged)
    forged = replace(known, weights_root=bytes(32))
    with pytest.raises(IntegrityError, match="not those of the order's model"):
        buyer.delivery.verify(signed, offer, request, copy.folder, registered=forged)
    buyer.delivery.verify(signed, offer, request, copy.folder, registered=known)


def test_what_waits_or_was_rejected_does_not_stop_checks_of_what_is_sold(market: Market) -> None:
    copy = honest(market)
    signed, offer, request = market.signed(copy)
    buyer, creator, registrar = (market.client(name) for name in ("buyer", "creator", "registrar"))
    in_force, number = buyer.delivery.registered(market.model_id), market.model_id
    own = creator.models.get(number).record_cid
    other = market.files.add(b"other leaves")
    described = {"leaves_cid": other, "declared_range": market.declared.to_json()}
    document = metadata.build(name="m2", description="", preferences=PREFERENCES, model=described)
    cid = market.files.add(metadata.encode(document))
    record = creator.models.get(number).record.model_copy(update={"royalty_hash": bytes(32)})

    creator.models.add_version(number, record.model_copy(update={"weights_root": h("v2")}), cid)
    waiting = buyer.models.get(number)
    assert (waiting.metadata_cid, waiting.record_cid) == (cid, own)
    assert buyer.delivery.registered(number) == in_force
    registrar.models.review(number, Review.REJECTED, "unclear sources")
    rejected = buyer.models.get(number)
    assert (rejected.metadata_cid, rejected.record_cid) == (cid, own)
    buyer.delivery.verify(signed, offer, request, copy.folder)

    # The owner states wishes anew with the old files' names, and nobody keeps the first metadata any more.
    again = {"leaves_cid": market.files.add(market.tree.leaves), "declared_range": market.declared.to_json()}
    document = metadata.build(name="m3", description="", preferences=PREFERENCES, model=again)
    creator.models.set_preferences(number, PREFERENCES, market.files.add(metadata.encode(document)))
    first = market.files.content.pop(own)
    assert buyer.delivery.registered(number) == in_force
    for present in (
        b"{",
        metadata.encode(metadata.build(name="m", description="", preferences=PREFERENCES, model={})),
    ):
        creator.models.set_preferences(number, PREFERENCES, market.files.add(present))
        with pytest.raises((NotFound, BadInput)):
            buyer.delivery.registered(number)
    market.files.content[own] = first

    creator.models.add_version(number, record.model_copy(update={"weights_root": h("v3")}), cid)
    registrar.models.review(number, Review.APPROVED)
    approved = buyer.models.get(number)
    assert (approved.record.weights_root, approved.record_cid) == (h("v3"), cid)
    assert buyer.delivery.registered(number).leaves == b"other leaves"


def test_late_order_is_refused(market: Market) -> None:
    copy = honest(market)
    signed, offer, request = market.signed(copy)
    market.clients.node.travel(2 * DAY)
    with pytest.raises(BadInput, match="could be opened until"):
        market.client("buyer").delivery.verify(signed, offer, request, copy.folder)
