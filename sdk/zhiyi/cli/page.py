"""`zhiyi page`: the web page (extra `frontend`)."""

from __future__ import annotations

import importlib.util
import os
import sys

import typer

from zhiyi.cli.session import session_of
from zhiyi.errors import MissingExtra


def page(ctx: typer.Context) -> None:
    """Serve the web page; options after `page` are those of `python -m zhiyi_frontend` (see its --help)."""
    session = session_of(ctx)
    for module in ("flask", "waitress", "zhiyi_frontend"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra("frontend")
    environment = {
        "ZHIYI_RPC": session.rpc,
        "ZHIYI_IPFS": session.ipfs_api,
        "ZHIYI_INDEX": session.index_url,
        **({"ZHIYI_DEPLOYMENT": str(session.deployment)} if session.deployment else {}),
    }
    # The SDK does not import the page; it only starts it.
    os.execve(  # noqa: S606
        sys.executable, [sys.executable, "-m", "zhiyi_frontend", *ctx.args], {**os.environ, **environment}
    )
