"""`zhiyi access`: roles, and acts of administration that are announced before they are done."""

from __future__ import annotations

from typing import Annotated

import typer

from zhiyi import abi
from zhiyi.chain import TxResult
from zhiyi.cli import words
from zhiyi.cli.session import Session, session_of
from zhiyi.errors import BadInput
from zhiyi.types import to_bytes

app = typer.Typer(
    name="access", help="Roles and their holders; announce, cancel and do acts.", no_args_is_help=True
)

OperationArgument = Annotated[str, typer.Argument(help="Operation id, 0x-hex, from `zhiyi access pending`.")]
RoleArgument = Annotated[str, typer.Argument(help="Role, as REGISTRAR.")]
AccountArgument = Annotated[str, typer.Argument(help="Account that gets or loses it.")]


@app.command()
def schedule(
    ctx: typer.Context,
    contract: Annotated[str, typer.Argument(help="Contract, as OracleCommittee.")],
    function: Annotated[str, typer.Argument(help="Function, as announceEpoch.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Its arguments; lists as a,b,c, bytes as 0x-hex.")
    ] = None,
    when: Annotated[
        str, typer.Option(help="Not before: unix seconds, or +3d; default: as soon as the delay allows.")
    ] = "0",
) -> None:
    """Announce an act of administration; after the delay the command that does it goes through.

    The same account must do it, within a week: `zhiyi committee announce-epoch`, `zhiyi vault list-token`, …
    """
    session = session_of(ctx)
    client = session.client
    entry = abi.interface(contract).function(function)
    inputs, given = entry["inputs"], arguments or []
    if len(inputs) != len(given):
        raise BadInput(f"{abi.signature(entry)} takes {len(inputs)} arguments, {len(given)} given")
    values = [words.argument(abi.type_of(item), text) for item, text in zip(inputs, given, strict=True)]
    moment = words.moment(when, client.chain.now())
    _show(
        session,
        client.access.schedule(contract, abi.signature(entry), *values, when=moment, dry_run=session.dry_run),
    )


@app.command()
def execute(ctx: typer.Context, operation_id: OperationArgument) -> None:
    """Do what you announced, once its delay is over; for acts without a command of their own."""
    session = session_of(ctx)
    session.show(session.client.access.execute(to_bytes(operation_id, 32), dry_run=session.dry_run))


@app.command()
def cancel(ctx: typer.Context, operation_id: OperationArgument) -> None:
    """Guardian, ADMIN or whoever announced it: it can no longer be done."""
    session = session_of(ctx)
    session.show(session.client.access.cancel(to_bytes(operation_id, 32), dry_run=session.dry_run))


@app.command()
def pending(ctx: typer.Context) -> None:
    """What was announced and can still be done: by whom, from when, until when."""
    session = session_of(ctx)
    client = session.reader
    now = client.chain.now()
    session.console.result(
        [
            {**found.model_dump(mode="json"), "ready": found.ready_at <= now}
            for found in client.access.pending()
        ],
        title="announced",
    )


@app.command()
def grant(
    ctx: typer.Context,
    role: RoleArgument,
    account: AccountArgument,
    delay: Annotated[
        str | None,
        typer.Option(help="Between its announcements and acts, as 2d; default: what the role needs."),
    ] = None,
) -> None:
    """ADMIN: give a role. With a delay the first call announces it, the same call after that does it."""
    session = session_of(ctx)
    seconds = words.duration(delay) if delay is not None else None
    access = session.client.access
    _show(session, access.grant(role, account, delay=seconds, dry_run=session.dry_run))


@app.command()
def revoke(ctx: typer.Context, role: RoleArgument, account: AccountArgument) -> None:
    """ADMIN: take a role away. With a delay the first call announces it, the same call after that does it."""
    session = session_of(ctx)
    _show(session, session.client.access.revoke(role, account, dry_run=session.dry_run))


@app.command()
def holders(ctx: typer.Context) -> None:
    """Who holds which role, with the delay between announcement and act in seconds."""
    session = session_of(ctx)
    session.console.result(session.reader.access.holders(), title="holders")


def _show(session: Session, result: TxResult) -> None:
    """The result, with id and time where it is an announcement."""
    found = result.all("OperationScheduled")
    if found:
        session.show(result, operation_id=found[0]["operationId"], ready_at=found[0]["schedule"])
    else:
        session.show(result)
