"""12. The copyright is sold: token and future income go to the heir, licenses stay, what the seller signed is void."""

from __future__ import annotations

import hashlib

from story import channel
from story.world import ETHER, World
from zhiyi.errors import TxReverted
from zhiyi.types import ChannelPhase, SignedRenewal

PRICE = 20 * ETHER
CONTRACT = (
    "Copyright transfer of Harbour small, all rights, worldwide; licenses granted before stay in force."
)
DAY = 86_400


def play(world: World) -> None:
    """Sale, what survives it, what does not, and whose the late income is."""
    model_id = world.facts["small"]["model_id"]
    creator, heir = world.as_("creator"), world.as_("heir")
    sublicense = world.facts["small"]["sublicense"]
    stale = creator.sales.sign_renewal(
        creator.sales.renewal(sublicense, price=ETHER, expiry=0, open_by=world.node.now() + 30 * DAY)
    )
    active = [held.license_id for held in heir.licenses.list(model_id) if held.active]
    sale = creator.sales.model_sale(
        model_id,
        price=PRICE,
        terms_hash=hashlib.sha256(CONTRACT.encode()).digest(),
        open_by=world.node.now() + DAY,
        buyer=heir.account,
    )
    signed = creator.sales.sign_model_sale(sale)
    world.sent(
        "the creator lets the escrow move the token, for this sale only",
        creator.sales.approve_model(model_id),
    )
    before = creator.vault.balance()
    world.sent(f"the heir buys the model for {PRICE / ETHER:g} ETH", heir.sales.buy_model(signed))
    world.earned(model_id, "model_sales", PRICE)
    got = creator.vault.balance() - before
    world.facts["model_sales"] = [
        {
            "model_id": model_id,
            "seller": creator.account,
            "buyer": heir.account,
            "price": PRICE,
            "to_seller": got,
        }
    ]
    model = heir.models.get(model_id)
    assert (model.owner, heir.royalties.claimable(model_id)["owner"]) == (heir.account, 0)
    assert got == _owner_share(world, heir.royalties.gross(model_id))
    world.say(
        f"the seller has {got / ETHER:g} ETH more: his part of the price and of all income he had not pulled; the rest "
        "is platform's, parent's and collaborator's"
    )
    after = [held.license_id for held in heir.licenses.list(model_id) if held.active]
    assert after == active, "the sale touched a license"
    world.say(f"{len(active)} licenses are active as before")
    _void(world, stale)
    _late_income(world)


def _owner_share(world: World, gross: int) -> int:
    """What is the owner's of a gross, by the model's own terms; every share is rounded down."""
    terms = world.as_("anyone").royalties.terms(world.facts["small"]["model_id"])
    net = gross * (10_000 - terms.platform_bps - sum(a.bps for a in terms.ancestors)) // 10_000
    return net * (10_000 - sum(s.bps for s in terms.collaborators)) // 10_000


def _void(world: World, stale: SignedRenewal) -> None:
    try:
        world.as_("buyer3").sales.renew(stale, dry_run=True)
    except TxReverted as refused:
        if refused.error_name != "NotTheOwner":
            raise
        world.say("a renewal that the seller had signed is void: NotTheOwner")
        return
    raise AssertionError("what the seller signed outlived the sale")


def _late_income(world: World) -> None:
    """Vouchers of the seller's channel that come after the sale are the model's, so the new owner's."""
    small, creator, heir = world.facts["small"], world.as_("creator"), world.as_("heir")
    model_id, late = small["model_id"], 4 * channel.CALL
    before = heir.royalties.gross(model_id)
    world.sent(
        "the seller redeems a voucher late: the model's income", creator.usage.redeem(small["last_voucher"])
    )
    assert heir.royalties.gross(model_id) - before == late
    world.earned(model_id, "usage", late)
    owner = heir.royalties.claimable(model_id)["owner"]
    assert owner == _owner_share(world, before + late) - _owner_share(world, before)
    world.say(
        f"of it {owner / ETHER:g} ETH are the heir's to pull, none the seller's: redeem before you sell"
    )
    user = world.as_("buyer3")
    free = user.vault.balance()
    world.sent("the channel is closed by its provider", creator.usage.close(small["channel"]))
    left = channel.DEPOSIT + channel.TOP_UP - 7 * channel.CALL
    assert user.vault.balance() - free == left
    assert user.usage.get(small["channel"]).state.phase is ChannelPhase.CLOSED
