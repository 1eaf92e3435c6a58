"""Usage channels: what is locked, what a voucher pays and to whom, and that everybody gets out in time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields, replace
from enum import IntEnum
from typing import Any

import ape
import pytest
from eth_abi import encode
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from market import (
    DAY,
    ETHER,
    NATIVE,
    Model,
    Parcel,
    Review,
    System,
    isolated,
    malleable_twin,
    refuses,
    reverts,
    sign_digest,
    terms,
)

REASON = b"\x05" * 32
WINDOW = 2 * DAY
ONWARD = 2_500


class Phase(IntEnum):
    NONE, OPEN, CLOSED = range(3)


@dataclass(frozen=True)
class Channel:
    payer: str
    provider: str
    signer: str
    token: str
    amount: int
    expiry: int
    modelId: int
    licenseId: int
    salt: bytes


TYPES = ["address", "address", "address", "address", "uint96", "uint40", "uint64", "uint256", "bytes32"]


@pytest.fixture
def channel(system: System, model: Model) -> Channel:
    """The buyer pays the model's owner; vouchers are signed by the stranger's key."""
    return Channel(
        payer=system.buyer.address,
        provider=system.creator.address,
        signer=system.stranger.address,
        token=NATIVE,
        amount=ETHER,
        expiry=system.now + 30 * DAY,
        modelId=model.id,
        licenseId=0,
        salt=b"\x5a" * 32,
    )


@pytest.fixture(scope="module")
def license_id(system: System, model: Model, parcel: Parcel) -> int:
    """The collaborator's, commercial; a quarter of the income goes to the model."""
    return buy_license(system, model, parcel, 1, flags=1, onward_bps=ONWARD)


@pytest.fixture
def licensed(system: System, channel: Channel, license_id: int) -> Channel:
    """The collaborator provides under the license."""
    return replace(channel, provider=system.collaborator.address, licenseId=license_id)


def buy_license(system: System, model: Model, parcel: Parcel, number: int, **packed: Any) -> int:
    order = system.make_order(model, parcel, number, buyer=system.collaborator.address, terms=terms(**packed))
    system.open(order, sender=system.collaborator)
    system.reveal(order, parcel)
    system.settle(order)
    return order.delivery.licenseId


def id_of(system: System, channel: Channel) -> bytes:
    return keccak(encode(["address", *TYPES], [system.channels.address, *astuple(channel)]))


def digest(system: System, channel: Channel, cumulative: int, **domain: Any) -> bytes:
    message = encode_typed_data(
        {
            "name": "ZhiYiChain UsageChannel",
            "version": "1",
            "chainId": ape.chain.chain_id,
            "verifyingContract": system.channels.address,
            **domain,
        },
        {
            "Voucher": [
                {"name": "channelId", "type": "bytes32"},
                {"name": "cumulative", "type": "uint96"},
            ]
        },
        {"channelId": id_of(system, channel), "cumulative": cumulative},
    )
    return keccak(b"\x19" + message.version + message.header + message.body)


def open_(system: System, channel: Channel, *, sender: Any = None, value: int | None = None) -> Any:
    if value is None:
        value = channel.amount if channel.token == NATIVE else 0
    return system.channels.open(astuple(channel), sender=sender or system.buyer, value=value)


def redeem(system: System, channel: Channel, cumulative: int, *, sender: Any = None) -> Any:
    signature = sign_digest(digest(system, channel, cumulative), system.stranger)
    return system.channels.redeem(
        astuple(channel), cumulative, signature, sender=sender or system.fingerprinter
    )


def top_up(
    system: System, channel: Channel, amount: int, *, sender: Any = None, value: int | None = None
) -> Any:
    given = amount if value is None else value
    return system.channels.topUp(astuple(channel), amount, sender=sender or system.buyer, value=given)


def request(system: System, channel: Channel, *, sender: Any = None) -> Any:
    return system.channels.requestClose(astuple(channel), sender=sender or system.buyer)


def close(system: System, channel: Channel, *, sender: Any = None) -> Any:
    return system.channels.close(astuple(channel), sender=sender or system.fingerprinter)


def state(system: System, channel: Channel) -> tuple[Any, ...]:
    """deposited, redeemed, closesAt, onwardBps, phase."""
    return tuple(system.channels.stateOf(id_of(system, channel)))


def money(system: System, model: Model, *accounts: Any, token: str = NATIVE) -> tuple[int, ...]:
    """What channels hold, the model's royalties, the accounts' free balances."""
    return (
        int(system.escrow.channelFunds(token)),
        system.pool(model, token),
        *(system.free(account, token) for account in accounts),
    )


def plus(before: tuple[int, ...], *moved: int) -> tuple[int, ...]:
    return tuple(b + m for b, m in zip(before, moved, strict=True))


# ---------------------------------------------------------------- open


def test_open_locks_the_value_sent(system: System, model: Model, channel: Channel) -> None:
    before = money(system, model, system.buyer)
    receipt = open_(system, channel)
    (event,) = receipt.decode_logs(system.channels.ChannelOpened)
    assert (event.channelId, event.payer) == (id_of(system, channel), system.buyer)
    assert event.event_arguments["provider"] == system.creator  # `event.provider` is Ape's
    opened = encode(["address", *TYPES], [system.channels.address, *event.channel])
    assert keccak(opened) == event.channelId  # the event says all that the other calls need
    assert event.onwardBps == 10_000
    assert state(system, channel) == (ETHER, 0, 0, 10_000, Phase.OPEN)
    assert money(system, model, system.buyer) == plus(before, ETHER, 0, 0)
    assert system.channels.closableAt(astuple(channel)) == channel.expiry + WINDOW
    assert system.channels.balance == 0


def test_open_takes_what_is_missing_from_the_balance_and_leaves_the_rest_there(
    system: System, model: Model, channel: Channel
) -> None:
    system.fund(system.buyer, ETHER)
    before = money(system, model, system.buyer)
    for number, (value, left) in enumerate(
        ((0, -ETHER), (ETHER // 4, -3 * ETHER // 4), (3 * ETHER, 2 * ETHER))
    ):
        with isolated():
            open_(system, replace(channel, salt=bytes([number]) * 32), value=value)
            assert money(system, model, system.buyer) == plus(before, ETHER, 0, left)


def test_open_needs_the_money(system: System, channel: Channel) -> None:
    with reverts(system.escrow.BalanceTooSmall, values={"given": ETHER - 1, "needed": ETHER}):
        open_(system, channel, value=ETHER - 1)


def test_open_locks_tokens_of_the_balance(system: System, model: Model, channel: Channel, token: Any) -> None:
    system.escrow.depositToken(token, 3 * ETHER, system.buyer, sender=system.buyer)
    before = money(system, model, system.buyer, token=token.address)
    open_(system, replace(channel, token=token.address))
    assert money(system, model, system.buyer, token=token.address) == plus(before, ETHER, 0, -ETHER)


def test_open_takes_no_coins_for_tokens_and_no_delisted_tokens(
    system: System, channel: Channel, token: Any
) -> None:
    in_tokens = replace(channel, token=token.address)
    system.escrow.depositToken(token, 3 * ETHER, system.buyer, sender=system.buyer)
    with reverts(system.channels.ValueNotTaken, values={"value": 1}):
        open_(system, in_tokens, value=1)
    open_(system, in_tokens)
    system.escrow.listToken(token, False, sender=system.deployer)
    with reverts(system.channels.TokenNotListed, values={"token": token.address}):
        open_(system, replace(in_tokens, salt=bytes(32)))
    with reverts(system.channels.TokenNotListed, values={"token": token.address}):
        top_up(system, in_tokens, 1, value=0)
    redeem(system, in_tokens, ETHER // 2)  # what is locked still leaves
    close(system, in_tokens, sender=system.creator)


def test_only_the_payer_opens(system: System, channel: Channel) -> None:
    for sender in (system.creator, system.stranger):
        with reverts(system.channels.NotThePayer, values={"caller": sender.address, "payer": channel.payer}):
            open_(system, channel, sender=sender)


def test_a_channel_is_opened_once_for_good(system: System, channel: Channel) -> None:
    """Else its vouchers would count again."""
    taken = {"channelId": id_of(system, channel)}
    open_(system, channel)
    with reverts(system.channels.ChannelExists, values=taken):
        open_(system, channel)
    redeem(system, channel, 7)
    close(system, channel, sender=system.creator)
    with reverts(system.channels.ChannelExists, values=taken):
        open_(system, channel)
    open_(system, replace(channel, salt=bytes(32)))


def test_a_channel_opens_before_its_expiry(system: System, channel: Channel) -> None:
    now = system.now + 10
    for expiry, passes in ((now, False), (now + 1, True)):
        changed = replace(channel, expiry=expiry)
        with isolated():
            system.go_to(now)
            if passes:
                open_(system, changed)
                continue
            with reverts(system.channels.ChannelCloses, values={"closesAt": now + WINDOW}):
                open_(system, changed)


def test_an_empty_channel_is_refused(system: System, channel: Channel) -> None:
    with reverts(system.channels.EmptyChannel):
        open_(system, replace(channel, amount=0))
    open_(system, channel)
    with reverts(system.channels.EmptyChannel):
        top_up(system, channel, 0)


# ---------------------------------------------------------------- who may serve what


def pending(system: System, model: Model) -> None:
    """A version waits for review."""
    new = replace(model.record, weightsRoot=REASON)
    system.models.addVersion(model.id, astuple(model.record), astuple(new), REASON, sender=system.creator)


def delisted(system: System, model: Model) -> None:
    system.models.delist(model.id, system.now // DAY + 9, REASON, sender=system.regulator)


def frozen(system: System, model: Model) -> None:
    system.models.freeze(model.id, system.now + 9 * DAY, REASON, sender=system.regulator)


@pytest.mark.parametrize("stop", [pending, delisted, frozen])
def test_a_stopped_model_gets_no_more_money_but_pays_and_closes(
    system: System, model: Model, channel: Channel, stop: Callable[[System, Model], None]
) -> None:
    open_(system, channel)
    stop(system, model)
    with reverts(system.channels.ModelNotServed, values={"modelId": model.id}):
        open_(system, replace(channel, salt=bytes(32)))
    with reverts(system.channels.ModelNotServed, values={"modelId": model.id}):
        top_up(system, channel, 1)
    redeem(system, channel, ETHER // 2)
    request(system, channel)
    close(system, channel, sender=system.creator)
    assert state(system, channel)[-1] == Phase.CLOSED


def test_a_model_serves_again_in_the_second_its_freeze_ends(
    system: System, model: Model, channel: Channel
) -> None:
    until = system.now + DAY
    system.models.freeze(model.id, until, REASON, sender=system.regulator)
    for time, passes in ((until - 1, False), (until, True)):
        system.go_to(time)
        if passes:
            open_(system, channel)
            continue
        with reverts(system.channels.ModelNotServed):
            open_(system, channel)


def test_a_rejected_or_missing_model_is_not_served(system: System, channel: Channel) -> None:
    made = system.register(system.creator, "rejected")
    system.models.review(made.id, made.record.weightsRoot, Review.REJECTED, REASON, sender=system.registrar)
    with reverts(system.channels.ModelNotServed, values={"modelId": made.id}):
        open_(system, replace(channel, modelId=made.id))
    with reverts(system.models.NoSuchModel, values={"modelId": 999}):
        open_(system, replace(channel, modelId=999))


def test_without_a_license_the_owner_provides(system: System, channel: Channel) -> None:
    other = replace(channel, provider=system.collaborator.address)
    with reverts(
        system.channels.NotTheProvider,
        values={"account": system.collaborator.address, "provider": system.creator.address},
    ):
        open_(system, other)


def test_under_a_license_its_holder_provides(system: System, licensed: Channel) -> None:
    open_(system, licensed)
    assert state(system, licensed) == (ETHER, 0, 0, ONWARD, Phase.OPEN)
    for account in (system.creator, system.buyer):
        with reverts(
            system.channels.NotTheProvider,
            values={"account": account.address, "provider": system.collaborator.address},
        ):
            open_(system, replace(licensed, provider=account.address))


def test_a_license_must_be_commercial_active_and_of_the_model(
    system: System, model: Model, parcel: Parcel, licensed: Channel, license_id: int
) -> None:
    private = buy_license(system, model, parcel, 2, flags=16)
    other = system.register(system.creator, "another model")
    system.approve(other)
    for changed in (
        replace(licensed, licenseId=private),
        replace(licensed, modelId=other.id),
    ):
        with reverts(system.channels.LicenseNotCommercial, values={"licenseId": changed.licenseId}):
            open_(system, changed)
    with reverts(system.licenses.NoSuchLicense, values={"licenseId": license_id + 9}):
        open_(system, replace(licensed, licenseId=license_id + 9))


def test_an_ended_license_gets_no_more_money_but_is_paid(
    system: System, model: Model, licensed: Channel, license_id: int
) -> None:
    open_(system, licensed)
    system.licenses.surrender(license_id, sender=system.collaborator)
    for act in (
        lambda: open_(system, replace(licensed, salt=bytes(32))),
        lambda: top_up(system, licensed, 1),
    ):
        with reverts(system.channels.LicenseNotCommercial, values={"licenseId": license_id}):
            act()
    before = money(system, model, system.collaborator)
    redeem(system, licensed, 1_000)
    assert money(system, model, system.collaborator) == plus(before, -1_000, 250, 750)


def test_a_sold_models_channels_are_paid_but_not_filled(
    system: System, model: Model, channel: Channel
) -> None:
    open_(system, channel)
    system.models.transferFrom(system.creator, system.regulator, model.id, sender=system.creator)
    with reverts(system.channels.NotTheProvider, values={"account": system.creator.address}):
        top_up(system, channel, 1)
    before = money(system, model)
    redeem(system, channel, 1_000)
    assert money(system, model) == plus(before, -1_000, 1_000)
    close(system, channel, sender=system.creator)


# ---------------------------------------------------------------- top up


def test_top_up_adds_to_the_deposit(system: System, model: Model, channel: Channel) -> None:
    open_(system, channel)
    redeem(system, channel, 5)
    before = money(system, model, system.buyer)
    receipt = top_up(system, channel, 40, value=30 + 10)
    (event,) = receipt.decode_logs(system.channels.ChannelToppedUp)
    assert (event.channelId, event.amount, event.deposited) == (id_of(system, channel), 40, ETHER + 40)
    assert state(system, channel) == (ETHER + 40, 5, 0, 10_000, Phase.OPEN)
    assert money(system, model, system.buyer) == plus(before, 40, 0, 0)


def test_only_the_payer_tops_up_and_with_its_own_money(system: System, channel: Channel) -> None:
    open_(system, channel)
    with reverts(system.channels.NotThePayer, values={"caller": system.creator.address}):
        top_up(system, channel, 1, sender=system.creator)
    with reverts(system.escrow.BalanceTooSmall, values={"given": 0, "needed": 1}):
        top_up(system, channel, 1, value=0)


def test_a_closing_channel_is_not_topped_up(system: System, channel: Channel) -> None:
    open_(system, channel)
    with isolated():
        closes = request(system, channel).timestamp + WINDOW
        with reverts(system.channels.ChannelCloses, values={"closesAt": closes}):
            top_up(system, channel, 1)
    system.go_to(channel.expiry - 1)
    top_up(system, channel, 1)
    system.go_to(channel.expiry)
    with reverts(system.channels.ChannelCloses, values={"closesAt": channel.expiry + WINDOW}):
        top_up(system, channel, 1)


# ---------------------------------------------------------------- redeem


def test_the_owners_vouchers_pay_the_model(system: System, model: Model, channel: Channel) -> None:
    open_(system, channel)
    gross = system.escrow.royaltyOf(model.id, NATIVE).gross
    before = money(system, model, system.creator, system.buyer)
    receipt = redeem(system, channel, 300, sender=system.creator)
    (event,) = receipt.decode_logs(system.channels.VoucherRedeemed)
    assert (event.channelId, event.redeemed) == (id_of(system, channel), 300)
    assert (event.toProvider, event.toModel) == (0, 300)
    assert state(system, channel) == (ETHER, 300, 0, 10_000, Phase.OPEN)
    redeem(system, channel, 1_000, sender=system.deployer)  # anyone may bring it
    assert money(system, model, system.creator, system.buyer) == plus(before, -1_000, 1_000, 0, 0)
    assert system.escrow.royaltyOf(model.id, NATIVE).gross == gross + 1_000


def test_a_licensees_vouchers_pay_him_and_the_model(system: System, model: Model, licensed: Channel) -> None:
    open_(system, licensed)
    before = money(system, model, system.collaborator, system.creator)
    receipt = redeem(system, licensed, 1_003)
    (event,) = receipt.decode_logs(system.channels.VoucherRedeemed)
    assert (event.redeemed, event.toProvider, event.toModel) == (1_003, 753, 250)
    assert money(system, model, system.collaborator, system.creator) == plus(before, -1_003, 250, 753, 0)


def test_many_small_vouchers_round_nothing_away_from_the_model(
    system: System, model: Model, licensed: Channel
) -> None:
    open_(system, licensed)
    before = money(system, model, system.collaborator)
    for cumulative in range(1, 12):
        redeem(system, licensed, cumulative)
    assert money(system, model, system.collaborator) == plus(before, -11, 2, 9)


def test_a_license_without_a_share_pays_its_holder_alone(
    system: System, model: Model, parcel: Parcel, licensed: Channel
) -> None:
    free = replace(licensed, licenseId=buy_license(system, model, parcel, 3, flags=1))
    open_(system, free)
    before = money(system, model, system.collaborator)
    receipt = redeem(system, free, 10)
    assert money(system, model, system.collaborator) == plus(before, -10, 0, 10)
    assert receipt.decode_logs(system.escrow.RoyaltyPaid) == []


def test_tokens_are_paid_in_tokens(system: System, model: Model, licensed: Channel, token: Any) -> None:
    in_tokens = replace(licensed, token=token.address)
    system.escrow.depositToken(token, ETHER, system.buyer, sender=system.buyer)
    open_(system, in_tokens)
    accounts = (system.collaborator, system.buyer)
    before = money(system, model, *accounts, token=token.address)
    redeem(system, in_tokens, 1_000)
    close(system, in_tokens, sender=system.collaborator)
    after = plus(before, -ETHER, 250, 750, ETHER - 1_000)
    assert money(system, model, *accounts, token=token.address) == after


def test_a_voucher_counts_once(system: System, channel: Channel) -> None:
    open_(system, channel)
    redeem(system, channel, 100)
    for cumulative in (100, 99, 0):
        with reverts(system.channels.VoucherTooSmall, values={"given": cumulative, "redeemed": 100}):
            redeem(system, channel, cumulative)


def test_a_voucher_pays_as_far_as_the_deposit_goes(system: System, model: Model, channel: Channel) -> None:
    """And the rest of the same voucher after a top-up."""
    open_(system, channel)
    before = money(system, model)
    redeem(system, channel, ETHER + 50)
    assert money(system, model) == plus(before, -ETHER, ETHER)
    with reverts(system.channels.VoucherTooSmall, values={"given": ETHER, "redeemed": ETHER}):
        redeem(system, channel, ETHER + 50)
    top_up(system, channel, 30)
    redeem(system, channel, ETHER + 50)
    assert state(system, channel)[:2] == (ETHER + 30, ETHER + 30)


def test_vouchers_of_others_and_for_others_do_not_count(
    system: System, channel: Channel, project: Any
) -> None:
    twin = replace(channel, salt=bytes(32))
    for one in (channel, twin):
        open_(system, one)
    other = system.deployer.deploy(project.UsageChannel, system.escrow, system.models, system.licenses)
    good = sign_digest(digest(system, channel, 100), system.stranger)
    for signature in (
        sign_digest(digest(system, channel, 100), system.buyer),  # the payer is not the signer
        sign_digest(digest(system, channel, 99), system.stranger),
        sign_digest(digest(system, twin, 100), system.stranger),
        sign_digest(digest(system, channel, 100, chainId=1), system.stranger),
        sign_digest(digest(system, channel, 100, verifyingContract=other.address), system.stranger),
        malleable_twin(good),
        good[:64],
        good + b"\x00",
        b"",
    ):
        with reverts(system.channels.VoucherUnsigned, values={"signer": channel.signer}):
            system.channels.redeem(astuple(channel), 100, signature, sender=system.creator)
    system.channels.redeem(astuple(channel), 100, good, sender=system.creator)


def test_nobody_signs_for_no_signer(system: System, channel: Channel) -> None:
    """The zero address is what a failed recovery gives."""
    silent = replace(channel, signer=NATIVE)
    open_(system, silent)
    for signature in (b"", bytes(65), bytes(64) + b"\x1b"):
        with reverts(system.channels.VoucherUnsigned):
            system.channels.redeem(astuple(silent), 1, signature, sender=system.creator)


def test_a_contract_signs_by_erc1271(system: System, channel: Channel, project: Any) -> None:
    """Two wallets of one key: a voucher for one's channel is not the other's."""
    one, two = (system.deployer.deploy(project.TestWallet, system.stranger) for _ in range(2))
    first, second = (replace(channel, signer=wallet.address) for wallet in (one, two))
    for made in (first, second):
        open_(system, made)
    signature = sign_digest(digest(system, first, 100), system.stranger)
    with reverts(system.channels.VoucherUnsigned, values={"signer": two.address}):
        system.channels.redeem(astuple(second), 100, signature, sender=system.creator)
    system.channels.redeem(astuple(first), 100, signature, sender=system.creator)


def test_a_wallet_contract_pays_and_gets_its_refund(
    system: System, model: Model, channel: Channel, project: Any
) -> None:
    """It takes no coins: nothing is sent to it, the refund waits in the vault."""
    wallet = system.deployer.deploy(project.TestWallet, system.buyer, value=ETHER)
    of_wallet = replace(channel, payer=wallet.address)
    for call, value in (
        (system.channels.open.encode_input(astuple(of_wallet)), ETHER),
        (system.channels.requestClose.encode_input(astuple(of_wallet)), 0),
    ):
        wallet.execute(system.channels, value, call, sender=system.buyer)
    redeem(system, of_wallet, 400)
    system.pass_time(WINDOW)
    close(system, of_wallet)
    assert system.free(wallet) == ETHER - 400


def test_redeeming_goes_on_until_somebody_closes(system: System, channel: Channel) -> None:
    open_(system, channel)
    request(system, channel)
    redeem(system, channel, 1)
    system.pass_time(WINDOW + 1)
    redeem(system, channel, 2)
    system.go_to(channel.expiry + WINDOW + DAY)
    redeem(system, channel, 3)
    assert state(system, channel)[1] == 3


# ---------------------------------------------------------------- close


def test_the_payer_asks_and_two_days_later_anyone_closes(
    system: System, model: Model, channel: Channel
) -> None:
    open_(system, channel)
    receipt = request(system, channel)
    closes = receipt.timestamp + WINDOW
    (event,) = receipt.decode_logs(system.channels.CloseRequested)
    assert (event.channelId, event.closesAt) == (id_of(system, channel), closes)
    assert state(system, channel) == (ETHER, 0, closes, 10_000, Phase.OPEN)
    assert system.channels.closableAt(astuple(channel)) == closes
    redeem(system, channel, 100)
    before = money(system, model, system.buyer)
    for sender in (system.buyer, system.deployer):
        with isolated():
            system.go_to(closes - 1)
            with reverts(system.channels.TooEarly, values={"notBefore": closes}):
                close(system, channel, sender=sender)
    system.go_to(closes)
    receipt = close(system, channel)
    (event,) = receipt.decode_logs(system.channels.ChannelClosed)
    assert (event.channelId, event.redeemed, event.refund) == (id_of(system, channel), 100, ETHER - 100)
    assert state(system, channel) == (ETHER, 100, closes, 10_000, Phase.CLOSED)
    assert money(system, model, system.buyer) == plus(before, 100 - ETHER, 0, ETHER - 100)


def test_the_provider_closes_at_once(system: System, model: Model, channel: Channel) -> None:
    open_(system, channel)
    before = money(system, model, system.buyer, system.creator)
    close(system, channel, sender=system.creator)
    assert money(system, model, system.buyer, system.creator) == plus(before, -ETHER, 0, ETHER, 0)


def test_an_expired_channel_closes_two_days_later(system: System, channel: Channel) -> None:
    open_(system, channel)
    end = channel.expiry + WINDOW
    with isolated():
        system.go_to(end - 1)
        with reverts(system.channels.TooEarly, values={"notBefore": end}):
            close(system, channel)
    system.go_to(end)
    close(system, channel)


def test_a_request_before_the_expiry_does_not_wait_for_it(system: System, channel: Channel) -> None:
    """Nor does one a second before it add to the two days."""
    open_(system, channel)
    system.go_to(channel.expiry - 1)
    request(system, channel)
    assert system.channels.closableAt(astuple(channel)) == channel.expiry - 1 + WINDOW
    system.go_to(channel.expiry - 1 + WINDOW)
    close(system, channel)


def test_a_close_is_requested_once_by_the_payer_and_in_time(system: System, channel: Channel) -> None:
    open_(system, channel)
    for sender in (system.creator, system.stranger):
        with reverts(system.channels.NotThePayer, values={"caller": sender.address}):
            request(system, channel, sender=sender)
    with isolated():
        closes = request(system, channel).timestamp + WINDOW
        system.pass_time(DAY)
        with reverts(system.channels.ChannelCloses, values={"closesAt": closes}):
            request(system, channel)
    system.go_to(channel.expiry)
    with reverts(system.channels.ChannelCloses, values={"closesAt": channel.expiry + WINDOW}):
        request(system, channel)


def test_nothing_is_refunded_of_an_empty_deposit(system: System, model: Model, channel: Channel) -> None:
    open_(system, channel)
    redeem(system, channel, ETHER)
    before = money(system, model, system.buyer)
    receipt = close(system, channel, sender=system.creator)
    (event,) = receipt.decode_logs(system.channels.ChannelClosed)
    assert (event.redeemed, event.refund) == (ETHER, 0)
    assert money(system, model, system.buyer) == before


@pytest.mark.parametrize("phase", [Phase.NONE, Phase.CLOSED])
def test_only_an_open_channel_moves(system: System, channel: Channel, phase: Phase) -> None:
    if phase == Phase.CLOSED:
        open_(system, channel)
        close(system, channel, sender=system.creator)
    values = {"channelId": id_of(system, channel), "phase": phase}
    for act in (
        lambda: top_up(system, channel, 1),
        lambda: request(system, channel),
        lambda: redeem(system, channel, 1),
        lambda: close(system, channel, sender=system.creator),
        lambda: system.channels.closableAt(astuple(channel)),
    ):
        with reverts(system.channels.ChannelNotOpen, values=values):
            act()


def test_a_channels_members_are_all_in_its_id(system: System, channel: Channel) -> None:
    """So nobody closes, fills or empties a channel by naming another party, token, signer or time."""
    open_(system, channel)
    assert bytes(system.channels.channelIdOf(astuple(channel))) == id_of(system, channel)
    for field in fields(Channel):
        value = getattr(channel, field.name)
        bent: Any = keccak(value) if isinstance(value, bytes) else system.regulator.address
        changed = replace(channel, **{field.name: value + 1 if isinstance(value, int) else bent})
        with reverts(
            system.channels.ChannelNotOpen,
            values={"channelId": id_of(system, changed), "phase": Phase.NONE},
        ):
            close(system, changed, sender=system.creator)


def test_the_digest_is_eip712(system: System, channel: Channel) -> None:
    made = system.channels.voucherDigest(id_of(system, channel), 123)
    assert bytes(made) == digest(system, channel, 123)
    sealed, name, version, chain_id, contract, salt, extensions = system.channels.eip712Domain()
    assert (bytes(sealed), name, version) == (b"\x0f", "ZhiYiChain UsageChannel", "1")
    assert (chain_id, contract) == (ape.chain.chain_id, system.channels.address)
    assert (bytes(salt), list(extensions)) == (bytes(32), [])


def test_coins_are_not_taken_without_a_channel(system: System) -> None:
    with ape.reverts("Transaction failed."):  # there is no function that takes them
        system.buyer.transfer(system.channels, 1)


def test_a_license_sold_on_stays_with_the_channels_provider(system: System, licensed: Channel) -> None:
    """A suspended license is not active either: the vault's peers stop it, the channel only reads it."""
    court = system.as_contract("MisuseCourt")
    open_(system, licensed)
    system.licenses.suspend(licensed.licenseId, True, REASON, sender=court)
    with reverts(system.channels.LicenseNotCommercial):
        top_up(system, licensed, 1)
    redeem(system, licensed, 8)
    system.licenses.suspend(licensed.licenseId, False, REASON, sender=court)
    top_up(system, licensed, 1)


def test_the_vault_takes_orders_from_no_other_channel_contract(
    system: System, channel: Channel, project: Any
) -> None:
    other = system.deployer.deploy(project.UsageChannel, system.escrow, system.models, system.licenses)
    with refuses("NotAPeer(address)"):
        other.open(astuple(channel), sender=system.buyer, value=ETHER)


def test_a_walk_over_many_channels_conserves_money(
    system: System, model: Model, channel: Channel, licensed: Channel
) -> None:
    """Against a plain model: no channel pays more than its own deposit, and what they hold is what is left."""
    dice = random.Random(7)
    made = [replace(base, salt=bytes([n]) * 32) for n in range(3) for base in (channel, licensed)]
    deposited = dict.fromkeys(made, 0)
    redeemed = dict.fromkeys(made, 0)
    is_open = dict.fromkeys(made, False)
    start = money(system, model, system.collaborator)
    paid = 0
    for _ in range(60):
        one = dice.choice(made)
        act = dice.choice(["open", "open", "fill", "pay", "pay", "pay", "close"])
        if act == "open" and deposited[one] == 0:
            open_(system, one)
            deposited[one], is_open[one] = one.amount, True
        elif not is_open[one]:
            continue
        elif act == "fill":
            amount = dice.randrange(1, ETHER)
            top_up(system, one, amount)
            deposited[one] += amount
        elif act == "pay":
            cumulative = redeemed[one] + dice.randrange(1, ETHER)
            capped = min(cumulative, deposited[one])
            if capped > redeemed[one]:
                redeem(system, one, cumulative)
                redeemed[one] = capped
        elif act == "close":
            close(system, one, sender=system.creator if one.licenseId == 0 else system.collaborator)
            is_open[one] = False
    share = {one: redeemed[one] if one.licenseId == 0 else redeemed[one] * ONWARD // 10_000 for one in made}
    paid = sum(redeemed.values()) - sum(share.values())
    held = sum(deposited[one] - redeemed[one] for one in made if is_open[one])
    assert money(system, model, system.collaborator) == plus(start, held, sum(share.values()), paid)
    assert {is_open[one] for one in made} == {True, False}
