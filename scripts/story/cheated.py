"""4. A cheating fingerprinter is caught with one Merkle path; what must be refused is refused."""

from __future__ import annotations

from secrets import token_bytes

from adversaries.cheating_fingerprinter import prepare_cheated
from story import buy
from story.world import ETHER, World
from zhiyi import delivery
from zhiyi.delivery import Tree, WrongChunk, ecies
from zhiyi.errors import TxReverted
from zhiyi.types import Delivery, SignedOrder, license_id_of

WRONG_CHUNK = 12_345  # outside the declared range
CHEAT_NUMBER = 900_001  # fingerprint numbers of the cheat's two orders
DAY = 86_400


def play(world: World) -> None:
    """The cheated purchase, a wrong path, and an order whose key never comes."""
    _cheated_purchase(world)
    _no_reveal(world)


def _order(world: World, number: int, figures: delivery.DeliveryFigures, key: bytes) -> SignedOrder:
    offer = buy.make_offer(world, nonce=number, fingerprinter=world.address("cheat"))
    request = world.facts["cheat_request"] = buy.ask(world, "buyer3", offer, fee=0)
    license_id = license_id_of(world.facts["model_id"], number)
    half = Delivery(
        license_id=license_id,
        buyer=world.address("buyer3"),
        fingerprinter=world.address("cheat"),
        deposit=offer.offer.price,
        copy_root=figures.copy_root,
        delivery_root=figures.delivery_root,
        key_commit=delivery.key_commit(key, license_id, world.address("buyer3")),
        mark_commit=delivery.mark_commit(license_id, [token_bytes(32) for _ in range(16)]),
        total_bytes=figures.total_bytes,
        chunks=figures.chunks,
        chunk_size=figures.chunk_size,
        suite=figures.suite,
        reveal_window=offer.offer.reveal_window,
        grace=offer.offer.grace,
        complaint_window=offer.offer.complaint_window,
    )
    order = world.as_("creator").orders.draft(
        offer.offer, request.request, half, open_by=world.node.now() + DAY
    )
    return SignedOrder(
        order=order,
        seller_signature=world.as_("creator").orders.sign(order),
        fingerprinter_signature=world.as_("cheat").orders.sign(order),
    )


def _cheated_purchase(world: World) -> None:
    home, key = world.folder("cheat"), delivery.new_key()
    known = buy.registered(world)
    made = prepare_cheated(
        world.model, Tree(known.leaves), known.declared_range, key, home / "package", WRONG_CHUNK
    )
    world.say(f"the cheat encrypts other bytes at chunk {WRONG_CHUNK}; every hash of order and package fits")
    signed = _order(world, CHEAT_NUMBER, made.figures, key)
    request = world.facts["cheat_request"].request
    ecies.seal_folder(home / "package", [request.delivery_key], home / "package.sealed")
    cid = world.as_("cheat").ipfs.add_file(home / "package.sealed")
    package = buy.fetch_package(world, "buyer3", cid, nonce=CHEAT_NUMBER)
    with world.bar("buyer3 checks every leaf before paying") as progress:
        delivery.verify_before_payment(package, signed.order.delivery, known, progress)
    world.say("all checks before payment pass, as they must: the lie shows only with the key")
    buyer = world.as_("buyer3")
    buy.pay(world, "buyer3", signed)
    world.sent("the cheat reveals the key", world.as_("cheat").orders.reveal(signed.order, key))
    license_id = signed.order.delivery.license_id
    try:
        with world.bar("buyer3 decrypts") as progress:
            delivery.decrypt(
                package,
                signed.order.delivery,
                buyer.orders.key(license_id),
                world.folder("buyer3") / "copy",
                progress,
            )
    except WrongChunk as wrong:
        world.say(f"chunk {wrong.index} is not what was promised")
        proof = delivery.complaint(package, signed.order.delivery, wrong.index)
        _wrong_path_refused(world, signed, key, proof)
        before = buyer.vault.balance()
        world.sent("buyer3 proves it with one Merkle path", buyer.orders.complain(signed.order, key, proof))
        back = buyer.vault.balance() - before
        world.say(
            f"refunded with the deposit: {back / ETHER:g} ETH wait in the vault; the cheat paid {PRICE_TEXT}"
        )
        return
    raise AssertionError("the cheated copy decrypted without a wrong chunk")


PRICE_TEXT = f"{buy.PRICE / ETHER:g} ETH"


def _wrong_path_refused(
    world: World, signed: SignedOrder, key: bytes, proof: delivery.ComplaintProof
) -> None:
    path = (bytes(32), *proof.path[1:])
    bad = delivery.ComplaintProof(proof.index, proof.cipher, proof.plain_leaf, path)
    try:
        world.as_("buyer3").orders.complain(signed.order, key, bad, dry_run=True)
    except TxReverted as refused:
        if refused.error_name != "NotInDelivery":
            raise
        world.say("a wrong path is rejected: NotInDelivery")
        world.refused("wrong path", signed.order.delivery.license_id, proof.index, "NotInDelivery")
        return
    raise AssertionError("a complaint with a wrong path was accepted")


def _no_reveal(world: World) -> None:
    key = delivery.new_key()
    figures = delivery.DeliveryFigures(token_bytes(32), token_bytes(32), 1024, 1, 1024)
    signed = _order(world, CHEAT_NUMBER + 1, figures, key)
    buy.pay(world, "buyer3", signed)
    half = signed.order.delivery
    world.node.travel(half.reveal_window + half.grace + 1)
    done = world.as_("anyone").orders.refund(signed.order)
    refund = done.event("OrderRefunded")
    world.sent(
        f"no key came: anyone refunds buyer3 with a penalty of {refund['penalty'] / ETHER:g} ETH", done
    )
