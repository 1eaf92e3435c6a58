"""`zhiyi vault`: free balances, stakes, listed tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from zhiyi.cli import words
from zhiyi.cli.session import session_of
from zhiyi.types import NATIVE, to_address

app = typer.Typer(
    name="vault", help="Free balances: look, deposit, approve a token, withdraw.", no_args_is_help=True
)

TokenOption = Annotated[str, typer.Option(help="ERC-20 address; default: the chain's coin.")]
ToOption = Annotated[str | None, typer.Option(help="Another receiver than the caller.")]


@app.command()
def balance(
    ctx: typer.Context,
    account: Annotated[str | None, typer.Argument(help="Account; default: the one in use.")] = None,
    token: TokenOption = NATIVE,
) -> None:
    """Free balance, stake and wallet of an account."""
    session = session_of(ctx)
    who = account or session.signer().address
    client = session.reader
    session.console.result(
        {
            "account": who,
            "free": client.vault.balance(who, token=token),
            "stake": client.vault.stake_of(who),
            "wallet": client.chain.balance(who),
        }
    )


@app.command()
def deposit(
    ctx: typer.Context,
    amount: Annotated[str, typer.Argument(help="Amount, as 1.5eth.")],
    token: TokenOption = NATIVE,
    to: ToOption = None,
) -> None:
    """Add to a free balance."""
    session = session_of(ctx)
    client = session.client
    value = words.amount(amount)
    session.approve(True, value, to_address(token))
    session.show(client.vault.deposit(value, token=token, to=to, dry_run=session.dry_run))


@app.command()
def approve(
    ctx: typer.Context,
    amount: Annotated[
        str, typer.Argument(help="Most that the vault may pull, in the token's smallest unit; 0 ends it.")
    ],
    token: Annotated[str, typer.Option(help="ERC-20 address.")],
) -> None:
    """Let the vault pull an ERC-20 token: what a command with such a price needs before, or its `--approve`."""
    session = session_of(ctx)
    session.show(session.client.vault.approve(words.amount(amount), token=token, dry_run=session.dry_run))


@app.command()
def withdraw(
    ctx: typer.Context,
    amount: Annotated[str, typer.Argument(help="Amount, as 1.5eth, or `all`.")],
    token: TokenOption = NATIVE,
    to: ToOption = None,
) -> None:
    """Take from the free balance of the account in use."""
    session = session_of(ctx)
    client = session.client
    value = client.vault.balance(token=token) if amount == "all" else words.amount(amount)
    session.show(client.vault.withdraw(value, token=token, to=to, dry_run=session.dry_run), amount=value)


@app.command()
def tokens(ctx: typer.Context) -> None:
    """ERC-20 tokens that orders may be paid in, and those that were taken off the list."""
    session = session_of(ctx)
    session.console.result(session.reader.vault.tokens(), title="tokens")


@app.command("list-token")
def list_token(
    ctx: typer.Context,
    token: Annotated[str, typer.Argument(help="ERC-20 address.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take it off the list.")] = False,
) -> None:
    """Steward: allow a token for new orders, or stop it; announced first: `zhiyi access schedule`."""
    session = session_of(ctx)
    session.show(session.client.vault.list_token(token, not remove, dry_run=session.dry_run))
