"""`zhiyi deployment`: where the contracts are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zhiyi.cli.session import session_of
from zhiyi.deployment import Deployment

app = typer.Typer(name="deployment", help="Where the contracts are.", no_args_is_help=True)


@app.command()
def show(ctx: typer.Context) -> None:
    """The address book in use."""
    session = session_of(ctx)
    session.console.result(Deployment.load(session.deployment))


@app.command()
def check(ctx: typer.Context) -> None:
    """Compare the address book with the chain: chain id and code at every address."""
    session = session_of(ctx)
    client = session.reader  # connecting checks
    session.console.result(
        {"ok": True, "chain_id": client.deployment.chain_id, "head": client.chain.block().number}
    )


@app.command()
def export(ctx: typer.Context, out: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Copy the address book in use to a file."""
    session = session_of(ctx)
    Deployment.load(session.deployment).save(out)
    session.console.result({"file": str(out)})
