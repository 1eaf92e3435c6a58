"""`zhiyi channel`: pay per use by deposit and signed vouchers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zhiyi import eip712
from zhiyi.cli import words
from zhiyi.cli.session import read_document, session_of, write_document
from zhiyi.errors import BadInput
from zhiyi.signers import sign
from zhiyi.types import NATIVE, ChannelInfo, SignedVoucher, Voucher, model_of_license, to_address, to_bytes

app = typer.Typer(name="channel", help="Pay per use: deposit, vouchers, redeem, close.", no_args_is_help=True)

ChannelArgument = Annotated[str, typer.Argument(help="Channel id, 0x-hex.")]
VoucherArgument = Annotated[Path, typer.Argument(help="Signed voucher.")]
FromBalanceOption = Annotated[
    bool, typer.Option("--from-balance", help="Take it from the free balance; default: send the coin along.")
]


@app.command("open")
def open_channel(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model that is used.")],
    amount: Annotated[str, typer.Option(help="Deposit, as 1eth; vouchers can be worth as much.")],
    signer: Annotated[
        str, typer.Option(help="Address of the API key that signs vouchers (`keys new signer`).")
    ],
    expires: Annotated[
        str, typer.Option(help="End of the channel: unix seconds, or +30d; two days more to redeem.")
    ] = "+30d",
    license_id: Annotated[
        str | None,
        typer.Option("--license", help="License under which the provider serves; default: the owner serves."),
    ] = None,
    token: Annotated[str, typer.Option(help="ERC-20 address; default: the chain's coin.")] = NATIVE,
    from_balance: FromBalanceOption = False,
) -> None:
    """Payer: open a channel to the model's owner, or to the holder of a commercial license of it."""
    session = session_of(ctx)
    client = session.client
    number = words.license_id(license_id) if license_id else 0
    if number and model_of_license(number) != model_id:
        raise BadInput(f"license {number} is not one of model {model_id}")
    provider = client.licenses.get(number).holder if number else client.models.status(model_id).owner
    channel = client.usage.channel(
        model_id,
        provider,
        amount=words.amount(amount),
        expiry=words.moment(expires, client.chain.now()),
        signer=to_address(signer),
        license_id=number,
        token=to_address(token),
    )
    value = 0 if from_balance or channel.token != NATIVE else channel.amount
    result = client.usage.open(channel, value=value, dry_run=session.dry_run)
    session.show(result, channel_id=client.usage.channel_id(channel), provider=provider)


@app.command()
def show(ctx: typer.Context, channel_id: ChannelArgument) -> None:
    """A channel as it stands."""
    session = session_of(ctx)
    session.console.result(_summary(session.reader.usage.get(to_bytes(channel_id, 32))))


@app.command("list")
def list_channels(
    ctx: typer.Context,
    payer: Annotated[str | None, typer.Option(help="Only channels of this payer.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only channels to this provider.")] = None,
) -> None:
    """Channels, oldest first."""
    session = session_of(ctx)
    found = session.reader.usage.list(payer=payer, provider=provider)
    session.console.result([_summary(info) for info in found], title="channels")


@app.command()
def voucher(
    ctx: typer.Context,
    channel_id: ChannelArgument,
    cumulative: Annotated[str, typer.Argument(help="All that is owed since the opening, as 0.02eth.")],
    out: Annotated[Path, typer.Option(help="File to write the signed voucher to.")],
) -> None:
    """The channel's API key: sign a voucher. Asks no node, costs no gas; a later one replaces it."""
    session = session_of(ctx)
    book = session.book
    found = Voucher(channel_id=to_bytes(channel_id, 32), cumulative=words.amount(cumulative))
    contract = book.contract("UsageChannel").address
    signature = sign(session.signer(), eip712.voucher(found, book.chain_id, contract))
    write_document(out, SignedVoucher(voucher=found, signature=signature))
    session.console.result({"file": str(out), **found.model_dump()})


@app.command()
def check(
    ctx: typer.Context,
    file: VoucherArgument,
    owed: Annotated[str, typer.Option(help="All that is owed since the opening, as 0.02eth.")] = "0",
) -> None:
    """Provider: check that a voucher is of an open channel, signed by its key, and covers what is owed."""
    session = session_of(ctx)
    usage, signed = session.reader.usage, read_document(file, SignedVoucher)
    info = usage.get(signed.voucher.channel_id)
    usage.verify_voucher(signed, info, owed=words.amount(owed))
    worth = min(signed.voucher.cumulative, info.state.deposited) - info.state.redeemed
    session.console.result({"ok": True, "worth_now": max(0, worth), **_summary(info)})


@app.command()
def redeem(ctx: typer.Context, file: VoucherArgument) -> None:
    """Provider, or anyone: cash a voucher. The model's share goes into its royalties, the rest to the provider."""
    session = session_of(ctx)
    signed = read_document(file, SignedVoucher)
    session.show(session.client.usage.redeem(signed, dry_run=session.dry_run))


@app.command("top-up")
def top_up(
    ctx: typer.Context,
    channel_id: ChannelArgument,
    amount: Annotated[str, typer.Argument(help="Amount, as 1eth.")],
    from_balance: FromBalanceOption = False,
) -> None:
    """Payer: add to the deposit."""
    session = session_of(ctx)
    usage, number, more = session.client.usage, to_bytes(channel_id, 32), words.amount(amount)
    value = 0 if from_balance or usage.get(number).channel.token != NATIVE else more
    session.show(usage.top_up(number, more, value=value, dry_run=session.dry_run))


@app.command("request-close")
def request_close(ctx: typer.Context, channel_id: ChannelArgument) -> None:
    """Payer: ask for the end; the provider has two days to redeem, then anyone may close."""
    session = session_of(ctx)
    session.show(session.client.usage.request_close(to_bytes(channel_id, 32), dry_run=session.dry_run))


@app.command()
def close(ctx: typer.Context, channel_id: ChannelArgument) -> None:
    """Provider at any time, anyone once its time is over: what was not redeemed goes back to the payer."""
    session = session_of(ctx)
    session.show(session.client.usage.close(to_bytes(channel_id, 32), dry_run=session.dry_run))


def _summary(info: ChannelInfo) -> dict[str, Any]:
    channel, state = info.channel, info.state
    return {
        "channel_id": info.channel_id,
        "model_id": channel.model_id,
        "license_id": channel.license_id or None,
        "payer": channel.payer,
        "provider": channel.provider,
        "signer": channel.signer,
        "token": "native coin" if channel.token == NATIVE else channel.token,
        "phase": state.phase.name.lower(),
        "deposited": state.deposited,
        "redeemed": state.redeemed,
        "left": info.left,
        "expiry": channel.expiry,
        "closes_at": state.closes_at or None,
        "onward_bps": state.onward_bps,
    }
