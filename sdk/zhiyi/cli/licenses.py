"""`zhiyi license`: issued licenses and their bonds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zhiyi.cli import words
from zhiyi.cli.offers import described_terms
from zhiyi.cli.session import session_of
from zhiyi.types import License

app = typer.Typer(name="license", help="Show and end licenses; get the bond back.", no_args_is_help=True)

LicenseArgument = Annotated[str, typer.Argument(help="License id, or MODEL/FINGERPRINT.")]


@app.command()
def show(ctx: typer.Context, license_id: LicenseArgument) -> None:
    """A license as it stands, with what is left of its bond."""
    session = session_of(ctx)
    number = words.license_id(license_id)
    found = session.reader.licenses.get(number)
    session.console.result(
        {**_summary(found), "record": found.record, "bond": session.reader.licenses.bond(number)}
    )


@app.command("list")
def list_licenses(
    ctx: typer.Context,
    model: Annotated[int | None, typer.Option(help="Only licenses of this model.")] = None,
    holder: Annotated[str | None, typer.Option(help="Only licenses of this account.")] = None,
) -> None:
    """Issued licenses, oldest first."""
    session = session_of(ctx)
    session.console.result(
        [_summary(found) for found in session.reader.licenses.list(model, holder)], title="licenses"
    )


@app.command()
def surrender(ctx: typer.Context, license_id: LicenseArgument) -> None:
    """Holder: end the license for good; then the bond's tail may start."""
    session = session_of(ctx)
    session.show(session.client.licenses.surrender(words.license_id(license_id), dry_run=session.dry_run))


@app.command("request-bond")
def request_bond(ctx: typer.Context, license_id: LicenseArgument) -> None:
    """Holder, after the license has ended: start the time after which the bond may leave."""
    session = session_of(ctx)
    session.show(
        session.client.orders.request_bond_release(words.license_id(license_id), dry_run=session.dry_run)
    )


@app.command("release-bond")
def release_bond(ctx: typer.Context, license_id: LicenseArgument) -> None:
    """Holder, after the bond's tail and with no case open: the bond becomes free balance."""
    session = session_of(ctx)
    order = session.client.orders.get(words.license_id(license_id))
    session.show(session.client.orders.release_bond(order, dry_run=session.dry_run))


def _summary(found: License) -> dict[str, Any]:
    return {
        "license_id": found.license_id,
        "model_id": found.model_id,
        "fingerprint": found.fingerprint,
        "holder": found.holder,
        "active": found.active,
        "end": found.end.name.lower(),
        "terms": described_terms(found.terms),
    }
