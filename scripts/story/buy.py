"""2 and 3. Two buyers ask for licenses; a fingerprinter makes their copies; they check, pay, decrypt and use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from story import language_model
from story.world import ETHER, World
from zhiyi import delivery
from zhiyi.delivery import ecies
from zhiyi.errors import TxReverted
from zhiyi.keys import KeyKind, load_key, new_key, save_key
from zhiyi.metadata import parse
from zhiyi.types import (
    ZERO32,
    CopyRequest,
    LicenseTerms,
    Offer,
    Order,
    SignedOffer,
    SignedOrder,
    SignedRequest,
    Use,
)
from zhiyi_oracle.fingerprinter import chain_market, copies, service

PRICE, BOND, FEE = 10 * ETHER, 8 * ETHER, ETHER // 5
MAX_PACKAGE = 2 << 30
HONEST_CHUNK = 4_242
DAY = 86_400


def fingerprinter(world: World) -> service.Fingerprinter:
    """The neutral fingerprinter's service, as its command line starts it."""
    if "fingerprinter" not in world.facts:
        home, client = world.folder("fingerprinter"), world.as_("fingerprinter")
        made = service.Fingerprinter(
            store=copies.CopyStore.create(home / "state"),
            market=chain_market.ChainMarket(client),
            files=client.ipfs,
            sealer=ecies,
            work=home / "work",
            rules=service.Rules(min_fee=FEE),
            start_block=world.deployment.block,
        )
        made.add_model(
            world.facts["model_id"],
            world.model,
            (world.folder("creator") / "kit.json").read_text(),
            world.facts["declared"],
        )
        world.facts["fingerprinter"] = made
    service_: service.Fingerprinter = world.facts["fingerprinter"]
    return service_


def make_offer(world: World, *, nonce: int, seller: str = "creator", **changes: Any) -> SignedOffer:
    """A public offer, signed off chain: the owner's of the first model, but for `changes`."""
    now = world.node.now()
    fields: dict[str, Any] = {
        "model_id": world.facts["model_id"],
        "seller": world.address(seller),
        "fingerprinter": world.address("fingerprinter"),
        "price": PRICE,
        "bond": BOND,
        "terms": LicenseTerms(
            commercial=True, expires_at=now + 365 * DAY, uses=frozenset({Use.AI_INFERENCE})
        ),
        "terms_hash": world.facts["terms_hash"],
        "valid_until": now + 30 * DAY,
        "nonce": nonce,
    }
    return world.as_(seller).offers.sign(Offer(**(fields | changes)))


def ask(world: World, buyer: str, signed: SignedOffer, fee: int = FEE) -> SignedRequest:
    """A buyer's signed request, with the delivery key made for it and the prepare fee in the vault."""
    me = world.as_(buyer)
    me.offers.verify(signed, buyer=me.account)
    key = new_key(KeyKind.DELIVERY)
    save_key(key_file(world, buyer, signed.offer.nonce), KeyKind.DELIVERY, key.secret, unsafe_plain=True)
    request = CopyRequest(
        model_id=signed.offer.model_id,
        offer_hash=me.offers.hash(signed.offer),
        buyer=me.account,
        delivery_key=key.public,
        nonce=signed.offer.nonce,
        prepare_fee=fee,
        by=world.node.now() + 7 * DAY,
    )
    if fee and signed.offer.fingerprinter:
        paid = me.orders.pay_prepare_fee(request, signed.offer.fingerprinter)
        world.sent(f"{buyer} pays the prepare fee", paid)
    return me.orders.sign_request(request)


def play_requests(world: World) -> None:
    """The owner's offer and two requests."""
    signed = make_offer(world, nonce=1)
    world.say(f"offer signed off chain, no gas: {PRICE / ETHER:g} ETH, misuse bond {BOND / ETHER:g} ETH")
    world.facts["offer"] = signed
    world.facts["requests"] = {buyer: ask(world, buyer, signed) for buyer in ("buyer1", "buyer2")}


def play_purchases(world: World) -> None:
    """Each buyer's copy: made, checked leaf by leaf, paid, revealed, decrypted, used."""
    maker = fingerprinter(world)
    for buyer, request in world.facts["requests"].items():
        with world.bar(f"the fingerprinter makes {buyer}'s copy") as progress:
            prepared = maker.prepare(world.facts["offer"], request, progress=progress)
        license_id = prepared.delivery.license_id
        creator = world.as_("creator")
        order = creator.orders.draft(
            world.facts["offer"].offer, request.request, prepared.delivery, open_by=world.node.now() + DAY
        )
        signed = SignedOrder(
            order=order,
            seller_signature=creator.orders.sign(order),
            fingerprinter_signature=maker.sign_order(order),
        )
        world.say(f"{buyer}'s copy is license {license_id}, sealed at ipfs://{prepared.package_cid}")
        package = fetch_package(world, buyer, prepared.package_cid)
        with world.bar(f"{buyer} checks every leaf before paying") as progress:
            delivery.verify_before_payment(package, order.delivery, registered(world), progress)
        pay(world, buyer, signed)
        maker.step()
        world.node.mine()
        world.say(f"the fingerprinter reveals the key of license {license_id}")
        copy = world.folder(buyer) / "copy"
        with world.bar(f"{buyer} decrypts and checks every chunk") as progress:
            delivery.decrypt(package, order.delivery, world.as_(buyer).orders.key(license_id), copy, progress)
        text = language_model.write(copy, "What is a harbour?", tokens=32, seed=license_id & 0xFFFF)
        world.say(f"the copy runs in transformers: “{' '.join(text.split())[:90]}…”")
        if buyer == "buyer1":
            complain_about_nothing(world, buyer, order, package)
        world.sent(f"{buyer} accepts: the license is minted", world.as_(buyer).orders.accept(order))
        world.earned(world.facts["model_id"], "sales", order.sale.price)
        world.facts.setdefault("orders", {})[buyer] = signed
        world.facts.setdefault("licenses", {})[buyer] = license_id


def license_of(world: World, signed: SignedOffer, *, seller: str, buyer: str) -> Order:
    """A whole purchase under an offer, as `play_purchases` tells it at length; returns the settled order."""
    maker, me, owner = fingerprinter(world), world.as_(buyer), world.as_(seller)
    offer, request = signed.offer, ask(world, buyer, signed)
    prepared = maker.prepare(signed, request)
    order = owner.orders.draft(offer, request.request, prepared.delivery, open_by=world.node.now() + DAY)
    both = SignedOrder(
        order=order,
        seller_signature=owner.orders.sign(order),
        fingerprinter_signature=maker.sign_order(order),
    )
    name = f"package-{offer.nonce}"
    package = fetch_package(world, buyer, prepared.package_cid, nonce=offer.nonce, name=name)
    me.delivery.verify(both, offer, request.request, package)
    pay(world, buyer, both)
    maker.step()
    world.node.mine()
    me.delivery.decrypt(order, package, world.folder(buyer) / f"copy-{offer.nonce}")
    license_id = order.delivery.license_id
    world.sent(f"{buyer} accepts: license {license_id} is minted", me.orders.accept(order))
    return order


def complain_about_nothing(world: World, buyer: str, order: Order, package: Path) -> None:
    """A complaint about an honest chunk, simulated: the contract decrypts it and refuses."""
    me = world.as_(buyer)
    proof = delivery.complaint(package, order.delivery, HONEST_CHUNK)
    try:
        me.orders.complain(order, me.orders.key(order.delivery.license_id), proof, dry_run=True)
    except TxReverted as refused:
        if refused.error_name != "ChunkIsRight":
            raise
        world.say("a complaint after an honest delivery is rejected: ChunkIsRight")
        world.refused("honest chunk", order.delivery.license_id, HONEST_CHUNK, "ChunkIsRight")
        return
    raise AssertionError("a complaint against an honest chunk was accepted")


def pay(world: World, buyer: str, signed: SignedOrder) -> None:
    """Checks both signatures and opens the order with price and bond."""
    me = world.as_(buyer)
    me.orders.verify(signed)
    opened = me.orders.open(signed.order, signed.seller_signature, signed.fingerprinter_signature)
    world.sent(
        f"{buyer} pays {me_price(signed.order) / ETHER:g} ETH for price and bond, less the fee", opened
    )


def me_price(order: Order) -> int:
    """What opening costs, wei."""
    fee = FEE if order.sale.request_hash != ZERO32 else 0
    return order.sale.price + order.sale.bond - fee


def registered(world: World) -> delivery.Registered:
    """What anybody can know of the model: from chain and IPFS."""
    client = world.as_("anyone")
    model = client.models.get(world.facts["model_id"])
    described = parse(client.ipfs.cat(model.metadata_cid))
    leaves = world.folder("public") / "leaves.bin"
    if not leaves.exists():
        client.ipfs.download(described.model["leaves_cid"], leaves, 32 * model.record.chunks)
    return delivery.Registered(
        weights_root=model.record.weights_root,
        range_hash=model.record.range_hash,
        leaves=leaves.read_bytes(),
        declared_range=delivery.DeclaredRange.from_json(described.model["declared_range"]),
    )


def key_file(world: World, buyer: str, nonce: int) -> Path:
    """Where a buyer keeps the delivery key made for an offer."""
    return world.folder(buyer) / f"delivery-{nonce}.key"


def fetch_package(world: World, buyer: str, cid: str, *, nonce: int = 1, name: str = "package") -> Path:
    """Downloads the sealed package by CID and opens it with the buyer's delivery key."""
    home = world.folder(buyer)
    world.as_(buyer).ipfs.download(cid, home / "package.sealed", MAX_PACKAGE)
    key = load_key(key_file(world, buyer, nonce), KeyKind.DELIVERY)
    ecies.open_folder(home / "package.sealed", key.secret, home / name)
    (home / "package.sealed").unlink()
    return home / name
