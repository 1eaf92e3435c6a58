"""`zhiyi keys`: delivery keys, encryption keys, trace keys, accounts."""

from __future__ import annotations

import json
import os
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zhiyi.cli.session import Session, session_of
from zhiyi.errors import ConfigError
from zhiyi.keys import KeyKind, KeyPair, load_key, new_key, save_key

app = typer.Typer(name="keys", help="Make and show keys. No key is ever printed.", no_args_is_help=True)


class NewKind(StrEnum):
    """What `keys new` makes."""

    DELIVERY = "delivery"
    ENCRYPTION = "encryption"
    TRACE = "trace"
    SIGNER = "signer"
    ACCOUNT = "account"


@app.command()
def new(
    ctx: typer.Context,
    kind: Annotated[NewKind, typer.Argument(help="account: a wallet keystore; others: a key file.")],
    out: Annotated[Path, typer.Argument(help="New file, made with mode 0600.")],
    unsafe_plain: Annotated[
        bool, typer.Option("--unsafe-plain", help="No password. Whoever reads the file has the key.")
    ] = False,
) -> None:
    """Make a key; the password comes from --password-file or is asked."""
    session = session_of(ctx)
    if kind is NewKind.ACCOUNT:
        if unsafe_plain:
            raise ConfigError("an account always has a password; --key-file takes a plain key made elsewhere")
        session.console.result({"file": str(out), "kind": str(kind), "address": _new_account(session, out)})
        return
    password = None if unsafe_plain else session.password(f"password for {out}")
    pair = save_key(
        out,
        KeyKind(kind.value),
        new_key(KeyKind(kind.value)).secret,
        password=password,
        unsafe_plain=unsafe_plain,
    )
    session.console.result(_shown(out, kind.value, pair))


@app.command()
def show(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Key file.")],
    kind: Annotated[KeyKind, typer.Option(help="What the key must be for.")] = KeyKind.DELIVERY,
) -> None:
    """Open a key file and print its public part: proves that file and password fit."""
    session = session_of(ctx)
    session.console.result(_shown(file, kind.value, open_key(session, file, kind)))


@app.command()
def address(ctx: typer.Context) -> None:
    """Address of the account in use."""
    session = session_of(ctx)
    session.console.result({"address": session.signer().address})


def open_key(session: Session, path: Path, kind: KeyKind) -> KeyPair:
    """A key file, asking for its password only when it has one. Raises ConfigError."""
    try:
        locked = "plain" not in json.loads(path.read_bytes()[: 1 << 16])
    except (OSError, ValueError):
        locked = False  # load_key says what is wrong
    return load_key(path, kind, password=session.password(f"password of {path}") if locked else None)


def _shown(path: Path, kind: str, pair: KeyPair) -> dict[str, object]:
    return {"file": str(path), "kind": kind, "public": pair.public or None}


def _new_account(session: Session, out: Path) -> str:
    from eth_account import Account

    password = session.password(f"password for {out}")
    account = Account.from_key(secrets.token_bytes(32))
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise ConfigError(f"{out} exists: keys are never overwritten; choose another name") from exc
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(account.encrypt(password), file)
    return str(account.address)
