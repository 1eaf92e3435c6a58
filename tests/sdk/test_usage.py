"""Usage channels on a real node: open, vouchers, redeem, top up, close."""

from __future__ import annotations

import pytest
from conftest import DAY, ETHER, Clients, key_of
from test_story import bought, h, register

from zhiyi import LocalSigner
from zhiyi.errors import BadInput, BadSignature, NotFound, TxReverted
from zhiyi.types import Channel, ChannelInfo, ChannelPhase, LicenseTerms, SignedVoucher, Voucher

API_KEY = LocalSigner(key_of("stranger"))  # the payer's, not his wallet
DEPOSIT = ETHER // 10


def opened(clients: Clients, **changes: object) -> ChannelInfo:
    """A channel of the buyer to the creator, or as `changes` say."""
    payer = clients["buyer"]
    model_id = register(clients)
    channel = payer.usage.channel(
        model_id,
        clients["creator"].account,
        amount=DEPOSIT,
        expiry=clients.node.chain.now() + 30 * DAY,
        signer=API_KEY.address,
    )
    channel = Channel(**{**dict(channel), **changes})
    payer.usage.open(channel, value=DEPOSIT)
    return payer.usage.get(payer.usage.channel_id(channel))


def voucher(clients: Clients, info: ChannelInfo, cumulative: int) -> SignedVoucher:
    owed = Voucher(channel_id=info.channel_id, cumulative=cumulative)
    return clients["buyer"].usage.sign_voucher(owed, API_KEY)


def test_vouchers_bring_the_model_its_income(clients: Clients) -> None:
    info = opened(clients)
    creator, usage = clients["creator"], clients["creator"].usage
    assert (info.state.phase, info.state.deposited, info.left) == (ChannelPhase.OPEN, DEPOSIT, DEPOSIT)
    assert usage.list(provider=creator.account) == (info,)
    assert usage.list(payer=creator.account) == ()
    assert creator.vault.channel_funds() == DEPOSIT
    first, second = voucher(clients, info, DEPOSIT // 4), voucher(clients, info, DEPOSIT // 2)
    usage.verify_voucher(second, info, owed=DEPOSIT // 2)
    event = usage.redeem(first).event("VoucherRedeemed")
    assert (event["redeemed"], event["toModel"], event["toProvider"]) == (DEPOSIT // 4, DEPOSIT // 4, 0)
    usage.redeem(second)
    with pytest.raises(TxReverted, match="VoucherTooSmall"):
        usage.redeem(first)
    assert creator.royalties.gross(info.channel.model_id) == DEPOSIT // 2
    usage.close(info.channel_id)
    assert clients["buyer"].vault.balance() == DEPOSIT // 2
    closed = usage.get(info.channel_id)
    assert (closed.state.phase, closed.state.redeemed) == (ChannelPhase.CLOSED, DEPOSIT // 2)
    assert creator.vault.channel_funds() == 0
    with pytest.raises(TxReverted, match="ChannelNotOpen"):
        usage.redeem(voucher(clients, info, DEPOSIT))


def test_a_licensee_who_serves_shares_with_the_model(clients: Clients) -> None:
    model_id, payer = register(clients), clients["buyer"]
    terms = LicenseTerms(commercial=True, onward_bps=2_000)
    license_id = bought(clients, model_id, buyer="buyer2", terms=terms).order.delivery.license_id
    gross = payer.royalties.gross(model_id)
    channel = payer.usage.channel(
        model_id,
        clients["buyer2"].account,
        amount=DEPOSIT,
        expiry=clients.node.chain.now() + DAY,
        license_id=license_id,
    )
    assert payer.usage.open(channel, value=DEPOSIT, dry_run=True).status == "simulated"
    payer.usage.open(channel, value=DEPOSIT)
    owed = Voucher(channel_id=payer.usage.channel_id(channel), cumulative=DEPOSIT)
    clients["buyer2"].usage.redeem(payer.usage.sign_voucher(owed))
    assert clients["buyer2"].vault.balance() == DEPOSIT * 8 // 10
    assert payer.royalties.gross(model_id) == gross + DEPOSIT * 2 // 10


def test_the_payer_closes_after_two_days_and_tops_up_before(clients: Clients) -> None:
    info, payer, other = opened(clients), clients["buyer"], clients["buyer2"]
    with pytest.raises(TxReverted, match="BalanceTooSmall"):
        payer.usage.top_up(info.channel_id, DEPOSIT)
    payer.usage.top_up(info.channel_id, DEPOSIT, value=DEPOSIT)
    assert payer.usage.get(info.channel_id).left == 2 * DEPOSIT
    with pytest.raises(TxReverted, match="NotThePayer"):
        other.usage.request_close(info.channel_id)
    payer.usage.request_close(info.channel_id)
    with pytest.raises(TxReverted, match="ChannelCloses"):
        payer.usage.top_up(info.channel_id, DEPOSIT, value=DEPOSIT)
    with pytest.raises(TxReverted, match="TooEarly"):
        other.usage.close(info.channel_id)
    clients.node.travel(2 * DAY + 1)
    other.usage.redeem(voucher(clients, info, DEPOSIT))  # in time as long as nobody closed
    other.usage.close(info.channel_id)
    assert payer.vault.balance() == DEPOSIT
    with pytest.raises(NotFound):
        payer.usage.get(h("no channel"))


def test_a_provider_believes_no_voucher_that_would_not_be_paid(clients: Clients) -> None:
    info, usage = opened(clients), clients["creator"].usage
    good = voucher(clients, info, DEPOSIT)
    usage.verify_voucher(good, info, owed=DEPOSIT)
    with pytest.raises(BadInput, match="the channel holds"):
        usage.verify_voucher(voucher(clients, info, 2 * DEPOSIT), info, owed=2 * DEPOSIT)
    with pytest.raises(BadInput, match="are owed"):
        usage.verify_voucher(good, info, owed=DEPOSIT + 1)
    other = good.voucher.model_copy(update={"channel_id": h("other")})
    with pytest.raises(BadInput, match="is of channel"):
        usage.verify_voucher(SignedVoucher(voucher=other, signature=good.signature), info, owed=0)
    more = good.voucher.model_copy(update={"cumulative": DEPOSIT - 1})
    with pytest.raises(BadSignature):
        usage.verify_voucher(SignedVoucher(voucher=more, signature=good.signature), info, owed=0)
    by_wallet = clients["buyer"].usage.sign_voucher(good.voucher)  # not the channel's signer
    with pytest.raises(BadSignature):
        usage.verify_voucher(by_wallet, info, owed=0)
    with pytest.raises(TxReverted, match="VoucherUnsigned"):
        usage.redeem(by_wallet)


def test_id_and_digest_are_the_contracts(clients: Clients) -> None:
    info = opened(clients)
    contract, chain = clients.deployment.contract("UsageChannel"), clients.node.chain
    assert chain.call(contract, "channelIdOf", info.channel.as_tuple()) == info.channel_id
    owed = Voucher(channel_id=info.channel_id, cumulative=7)
    digest = chain.call(contract, "voucherDigest", *owed.as_tuple())
    assert digest == clients["buyer"].usage.voucher_data(owed).digest()
