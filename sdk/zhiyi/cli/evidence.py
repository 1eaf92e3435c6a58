"""`zhiyi evidence`: ERC-7053 commits and anchored batches of usage logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zhiyi.cli.session import session_of
from zhiyi.evidence import topic_of
from zhiyi.usage_log import UsageLog

app = typer.Typer(
    name="evidence", help="What was said when: commits and anchored batches.", no_args_is_help=True
)


@app.command()
def commit(
    ctx: typer.Context,
    cid: Annotated[str, typer.Argument(help="CID of the asset.")],
    data: Annotated[str, typer.Argument(help="What is said about it; put the CID in, too.")],
) -> None:
    """Leave an ERC-7053 commit."""
    session = session_of(ctx)
    session.show(session.client.evidence.commit(cid, data, dry_run=session.dry_run))


@app.command()
def commits(ctx: typer.Context, cid: Annotated[str, typer.Argument(help="CID of the asset.")]) -> None:
    """Commits about an asset, oldest first."""
    session = session_of(ctx)
    session.console.result(list(session.reader.evidence.commits(cid)), title="commits")


@app.command()
def anchor(
    ctx: typer.Context,
    log: Annotated[Path, typer.Argument(help="Folder of a usage log.")],
    stream: Annotated[str, typer.Option(help="Name of the stream.")] = "usage",
) -> None:
    """Anchor the next leaves of a usage log: leaf hashes to IPFS, their Merkle root on chain."""
    session = session_of(ctx)
    with UsageLog(log) as usage:
        batch = usage.pending()
        if batch is None:
            session.console.result({"anchored": 0, "leaves": len(usage)})
            return
        cid = session.ipfs.add_bytes(batch.data)
        result = session.client.evidence.anchor(
            topic_of(stream), batch.root, batch.count, cid, dry_run=session.dry_run
        )
        if result.status == "mined":
            usage.mark_anchored(batch, cid=cid, tx_hash=result.tx_hash)
        session.show(result, anchored=batch.count, first=batch.first, root=batch.root, cid=cid)


@app.command()
def anchors(
    ctx: typer.Context,
    recorder: Annotated[str | None, typer.Option(help="Only batches of this account.")] = None,
    stream: Annotated[str | None, typer.Option(help="Only batches of this stream.")] = None,
) -> None:
    """Anchored batches, oldest first."""
    session = session_of(ctx)
    found = session.reader.evidence.anchors(recorder, topic_of(stream) if stream else None)
    session.console.result(list(found), title="batches")


@app.command()
def proof(
    ctx: typer.Context,
    log: Annotated[Path, typer.Argument(help="Folder of a usage log.")],
    number: Annotated[int, typer.Argument(help="Number of the leaf.")],
) -> None:
    """Inclusion proof of one leaf in its anchored batch."""
    session = session_of(ctx)
    with UsageLog(log) as usage:
        session.console.result(usage.proof(number))
