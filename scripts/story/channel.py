"""11. Pay per use: a deposit and signed vouchers, no transaction a call; the owner serves, then a licensee does."""

from __future__ import annotations

from story.onward import ONWARD_BPS
from story.world import ETHER, World
from zhiyi import LocalSigner
from zhiyi.errors import BadInput, TxReverted
from zhiyi.keys import KeyKind, new_key
from zhiyi.types import ChannelPhase, SignedVoucher, Voucher

DEPOSIT, TOP_UP = ETHER, ETHER // 2
CALL = ETHER // 10  # what a call costs in this story
DAY = 86_400


def play(world: World) -> None:
    """The owner's channel stays open for the next chapter; the licensee's is closed by its payer."""
    _owner_serves(world)
    _licensee_serves(world)


def _owner_serves(world: World) -> None:
    model_id = world.facts["small"]["model_id"]
    user, creator = world.as_("buyer3"), world.as_("creator")
    api_key = LocalSigner(
        new_key(KeyKind.SIGNER).secret
    )  # the payer's, in his program; his wallet stays shut
    channel = user.usage.channel(
        model_id,
        creator.account,
        amount=DEPOSIT,
        expiry=world.node.now() + 60 * DAY,
        signer=api_key.address,
    )
    channel_id = user.usage.channel_id(channel)
    world.sent("buyer3 opens a usage channel with 1 ETH", user.usage.open(channel, value=DEPOSIT))

    def voucher(calls: int) -> SignedVoucher:
        owed = Voucher(channel_id=channel_id, cumulative=calls * CALL)
        return user.usage.sign_voucher(owed, api_key)

    seen = creator.usage.get(channel_id)
    for calls in (1, 2, 3):
        creator.usage.verify_voucher(voucher(calls), seen, owed=calls * CALL)
    world.say(
        "three calls, each with a voucher for all that is owed; the provider checks them and asks no node"
    )
    try:
        creator.usage.verify_voucher(voucher(3), seen, owed=4 * CALL)
    except BadInput as refused:
        world.say(f"a fourth call with the old voucher is not served: {refused}")
    else:
        raise AssertionError("a voucher that is too small was taken")
    event = creator.usage.redeem(voucher(3))
    paid = event.event("VoucherRedeemed")
    assert (paid["toModel"], paid["toProvider"]) == (3 * CALL, 0)
    world.sent("the last voucher is redeemed: the owner serves, so all of it is the model's income", event)
    world.earned(model_id, "usage", 3 * CALL)
    added = user.usage.top_up(channel_id, TOP_UP, value=TOP_UP)
    world.sent("buyer3 adds 0.5 ETH, and uses four more calls before anybody redeems", added)
    world.facts["small"] |= {"channel": channel_id, "last_voucher": voucher(7)}


def _licensee_serves(world: World) -> None:
    """Under a commercial license: the model gets the share that the license's terms name."""
    small = world.facts["small"]
    user, provider, anyone = world.as_("buyer1"), world.as_("buyer2"), world.as_("anyone")
    channel = user.usage.channel(
        small["model_id"],
        provider.account,
        amount=DEPOSIT,
        expiry=world.node.now() + 60 * DAY,
        license_id=small["resold"],
    )
    channel_id = user.usage.channel_id(channel)
    world.sent(
        "buyer1 opens one with buyer2, who serves under his license", user.usage.open(channel, value=DEPOSIT)
    )
    world.sent("buyer1 wants to close it", user.usage.request_close(channel_id))
    try:
        anyone.usage.close(channel_id, dry_run=True)
    except TxReverted as refused:
        if refused.error_name != "TooEarly":
            raise
        world.say("nobody else can close it for two days, so that the provider can redeem: TooEarly")
    else:
        raise AssertionError("a channel was closed under its provider")
    before, owed = provider.vault.balance(), 6 * CALL
    signed = user.usage.sign_voucher(Voucher(channel_id=channel_id, cumulative=owed))
    done = provider.usage.redeem(signed)
    to_model = owed * ONWARD_BPS // 10_000
    assert provider.vault.balance() - before == owed - to_model
    assert done.event("VoucherRedeemed")["toModel"] == to_model
    world.sent(f"buyer2 redeems 0.6 ETH: {to_model / ETHER:g} of it are the model's", done)
    world.earned(small["model_id"], "usage", to_model)
    world.node.travel(2 * DAY + 1)
    before = user.vault.balance()
    world.sent("two days later anyone closes it", anyone.usage.close(channel_id))
    assert user.vault.balance() - before == DEPOSIT - owed
    assert user.usage.get(channel_id).state.phase is ChannelPhase.CLOSED
    world.say(f"{(DEPOSIT - owed) / ETHER:g} ETH went back to buyer1's free balance")
