"""`zhiyi deployment`: where the contracts are, and whether they are what they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zhiyi.cli.doctor import report
from zhiyi.cli.session import session_of
from zhiyi.probe import probe
from zhiyi.self_check import self_check

app = typer.Typer(
    name="deployment",
    help="Where the contracts are, and whether they are what they should be.",
    no_args_is_help=True,
)


@app.command()
def show(ctx: typer.Context) -> None:
    """The address book in use."""
    session = session_of(ctx)
    session.console.result(session.book)


@app.command()
def check(ctx: typer.Context) -> None:
    """Try the chain, then check code, wiring, roles, delays and domains. Exit code 3 when something failed."""
    from zhiyi.chain import Chain

    session = session_of(ctx)
    book = session.book
    chain = Chain(session.rpc.split(","))
    report(
        session.console,
        [*probe(chain, signer_chain_id=book.chain_id), *self_check(chain, book)],
        title="deployment",
    )


@app.command()
def export(ctx: typer.Context, out: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Copy the address book in use to a file."""
    session = session_of(ctx)
    session.book.save(out)
    session.console.result({"file": str(out)})
