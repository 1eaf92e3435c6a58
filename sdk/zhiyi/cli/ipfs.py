"""`zhiyi ipfs`: an embedded IPFS node, and files by CID."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from zhiyi.cli.session import session_of
from zhiyi.errors import ConfigError

app = typer.Typer(name="ipfs", help="Run an embedded IPFS node; add and get files by CID.")


@app.callback(invoke_without_command=True)
def serve(
    ctx: typer.Context,
    repo: Annotated[Path, typer.Option(envvar="ZHIYI_IPFS_REPO", help="Folder of the node's data.")] = Path(
        "ipfs-repo"
    ),
    port: Annotated[int | None, typer.Option(help="Port on 127.0.0.1; default: that of --ipfs.")] = None,
) -> None:
    """Without a command: run an embedded node until Ctrl-C (extra `node`)."""
    if ctx.invoked_subcommand is not None:
        return
    from zhiyi.ipfs_node import require_node_extra

    require_node_extra()
    address = session_of(ctx).ipfs_api
    chosen = port if port is not None else urlsplit(address).port
    if chosen is None:
        raise ConfigError(f"{address} names no port; give --port")
    command = [sys.executable, "-m", "zhiyi.ipfs_node", str(repo), "--port", str(chosen)]
    session_of(ctx).console.note(f"IPFS node in {repo}, RPC on 127.0.0.1:{chosen}; Ctrl-C ends it")
    os.execv(sys.executable, command)  # noqa: S606


@app.command()
def add(ctx: typer.Context, file: Annotated[Path, typer.Argument(help="File to store and pin.")]) -> None:
    """Store a file and pin it."""
    session = session_of(ctx)
    with session.console.progress(f"adding {file.name}") as progress:
        cid = session.ipfs.add_file(file, progress=progress)
    session.console.result({"cid": cid, "bytes": file.stat().st_size})


@app.command()
def get(
    ctx: typer.Context,
    cid: Annotated[str, typer.Argument(help="CID of a file.")],
    out: Annotated[Path, typer.Argument(help="File to write.")],
    max_bytes: Annotated[int, typer.Option(help="Refuse anything larger.")] = 1 << 34,
) -> None:
    """Fetch a file; every byte is checked against the CID."""
    session = session_of(ctx)
    with session.console.progress(f"fetching {cid[:16]}") as progress:
        size = session.ipfs.download(cid, out, max_bytes, progress=progress)
    session.console.result({"cid": cid, "file": str(out), "bytes": size})


@app.command()
def cid(ctx: typer.Context, file: Annotated[Path, typer.Argument(help="File to hash.")]) -> None:
    """The CID a file would get; nothing is stored."""
    from zhiyi.ipfs import cid_of_file

    session = session_of(ctx)
    with session.console.progress(f"hashing {file.name}") as progress:
        session.console.result({"cid": cid_of_file(file, progress=progress)})
