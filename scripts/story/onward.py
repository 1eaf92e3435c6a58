"""10. A license lives on: renewed by the owner, sublicensed and resold by its holder; the model gets its part."""

from __future__ import annotations

from story import buy
from story.world import ETHER, World
from zhiyi.errors import BadInput, TxReverted
from zhiyi.types import Basis, License, LicenseEnd, LicenseTerms, Order, Use

PRICE, BOND = 6 * ETHER, 2 * ETHER
RENEWAL, SUBLICENSE, RESALE = ETHER, 4 * ETHER, 5 * ETHER
ONWARD_BPS = 1_000  # of what a holder gets for passing on, to the model
DAY = 86_400


def play(world: World) -> None:
    """One license of the small model, from its sale to its resale; `play_tail` ends its bond three months later."""
    small = world.facts["small"]
    sold = _sale(world)
    license_id = sold.delivery.license_id
    _renewal(world, license_id)
    under = _passed_on(world, sold, Basis.SUBLICENSE, buyer="buyer3", price=SUBLICENSE, nonce=12)
    again = _passed_on(world, sold, Basis.RESALE, buyer="buyer2", price=RESALE, nonce=13)
    small |= {
        "sold": sold,
        "sublicense": under.delivery.license_id,
        "resold": again.delivery.license_id,
    }
    _bond_stays(world, license_id)


def _sale(world: World) -> Order:
    """The owner's sale, to people who are known only."""
    model_id = world.facts["small"]["model_id"]
    terms = LicenseTerms(
        commercial=True,
        resale=True,
        sublicense=True,
        disclosure_duty=True,
        expires_at=world.node.now() + 60 * DAY,
        uses=frozenset({Use.AI_INFERENCE}),
        onward_bps=ONWARD_BPS,
        min_tier=1,
    )
    offer = buy.make_offer(world, nonce=11, model_id=model_id, price=PRICE, bond=BOND, terms=terms)
    for role in ("reporter", "liar"):
        try:
            world.as_(role).offers.verify(offer, buyer=world.address(role))
        except BadInput as refused:
            world.say(f"{role} cannot buy: {refused}")
        else:
            raise AssertionError(f"{role} has no identity and could buy")
    sold = buy.license_of(world, offer, seller="creator", buyer="buyer1")
    world.earned(model_id, "sales", PRICE)
    return sold


def _renewal(world: World, license_id: int) -> None:
    creator, holder = world.as_("creator").sales, world.as_("buyer1")
    expiry = world.node.now() + 365 * DAY
    renewal = creator.renewal(license_id, price=RENEWAL, expiry=expiry, open_by=world.node.now() + DAY)
    world.sent(
        f"buyer1 renews for {RENEWAL / ETHER:g} ETH: ten more months (ERC-5643)",
        holder.sales.renew(creator.sign_renewal(renewal)),
    )
    assert holder.licenses.get(license_id).terms.expires_at == expiry
    world.facts["renewals"] = [
        {"license_id": license_id, "holder": holder.account, "price": RENEWAL, "expiry": expiry}
    ]
    world.earned(world.facts["small"]["model_id"], "renewals", RENEWAL)


def _passed_on(world: World, source: Order, basis: Basis, *, buyer: str, price: int, nonce: int) -> Order:
    """Buyer 1 sells on what he may: a new copy with a new fingerprint, under terms that go no further than his."""
    seller, model_id = world.as_("buyer1"), world.facts["small"]["model_id"]
    source_id = source.delivery.license_id
    resale = basis is Basis.RESALE
    held = seller.licenses.get(source_id).terms
    offer = buy.make_offer(
        world,
        nonce=nonce,
        seller="buyer1",
        model_id=model_id,
        price=price,
        bond=BOND,
        terms=held.model_copy(update={"sublicense": False, "resale": False}),
        basis=basis,
        source=source_id,
    )
    before = seller.vault.balance()
    passed = buy.license_of(world, offer, seller="buyer1", buyer=buyer)
    to_model = price * ONWARD_BPS // 10_000
    assert seller.vault.balance() - before == price - to_model
    world.earned(model_id, "onward", to_model)
    old, new = seller.licenses.get(source_id), seller.licenses.get(passed.delivery.license_id)
    assert (old.active, old.end) == ((False, LicenseEnd.RESOLD) if resale else (True, LicenseEnd.NONE))
    assert (new.active, new.holder) == (True, world.address(buyer))
    what = "resold" if resale else "sublicensed"
    world.say(
        f"{what} for {price / ETHER:g} ETH: buyer1 keeps {(price - to_model) / ETHER:g}, the model gets "
        f"{to_model / ETHER:g}; license {source_id} {_state(old)}, license {new.license_id} {_state(new)}"
    )
    return passed


def _state(license_: License) -> str:
    if license_.active:
        return "is active"
    return f"has ended: {license_.end.name.lower()}" if license_.end else "is suspended"


def _bond_stays(world: World, license_id: int) -> None:
    """The old holder still has the copy: his bond stays for the tail, and a leak would still be slashed."""
    me, order = world.as_("buyer1"), world.facts["small"]["sold"]
    world.sent("buyer1 asks for the bond of the resold license", me.orders.request_bond_release(license_id))
    try:
        me.orders.release_bond(order, dry_run=True)
    except TxReverted as refused:
        if refused.error_name != "BondHeld":
            raise
        world.say(f"it stays for {order.sale.bond_tail // DAY} days, his copy could still leak: BondHeld")
    else:
        raise AssertionError("the bond of a resold license was free at once")
    assert me.licenses.bond(license_id).amount == BOND


def play_tail(world: World) -> None:
    """The tail is over and no case is open: the bond of the resold license is its holder's again."""
    me, order = world.as_("buyer1"), world.facts["small"]["sold"]
    license_id = order.delivery.license_id
    asked = me.licenses.bond(license_id).release_requested_at
    world.node.travel(max(0, asked + order.sale.bond_tail - world.node.now()) + 1)
    before = me.vault.balance()
    released = me.orders.release_bond(order)
    world.sent(
        f"{order.sale.bond_tail // DAY} days after the resale buyer1's bond of {BOND / ETHER:g} ETH is free",
        released,
    )
    assert me.vault.balance() - before == BOND
    assert me.licenses.bond(license_id).amount == 0
