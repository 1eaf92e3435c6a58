"""`zhiyi index`: the record as database tables."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from zhiyi.cli.session import session_of
from zhiyi.errors import ConfigError

app = typer.Typer(name="index", help="The record as database tables.", no_args_is_help=True)


@app.command()
def sync(
    ctx: typer.Context,
    finalized: Annotated[bool, typer.Option("--finalized", help="Stop at the last finalized block.")] = False,
    documents: Annotated[
        bool,
        typer.Option("--documents/--no-documents", help="Fetch the metadata that models name from IPFS."),
    ] = True,
) -> None:
    """Read new events into the index; safe to repeat and to interrupt."""
    session = session_of(ctx)
    client = session.reader
    with session.console.progress("blocks") as progress:
        report = session.index.sync(
            client.chain, client.deployment, progress, tag="finalized" if finalized else "latest"
        )
    came = 0
    try:
        came = session.index.fetch_documents(session.ipfs, int(time.time())) if documents else 0
    except ConfigError as error:  # no IPFS daemon: the chain's facts are there all the same
        session.console.note(f"metadata was not fetched: {error}")
    session.console.result({**report._asdict(), "documents": came, **session.index.counts()._asdict()})


@app.command()
def status(ctx: typer.Context) -> None:
    """Up to where the index tells, and how much it holds."""
    session = session_of(ctx)
    head = session.index.head()
    session.console.result(
        {
            "index": session.index.url,
            "block": head.number if head else None,
            "block_time": head.time if head else None,
            **session.index.counts()._asdict(),
        }
    )
