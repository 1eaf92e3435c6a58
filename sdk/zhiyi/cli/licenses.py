"""`zhiyi license`: issued licenses, their renewal and their bonds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zhiyi.cli import words
from zhiyi.cli.offers import described_terms
from zhiyi.cli.session import read_document, session_of, write_document
from zhiyi.types import NATIVE, License, SignedRenewal, to_address

app = typer.Typer(
    name="license", help="Show, renew and end licenses; get the bond back.", no_args_is_help=True
)

LicenseArgument = Annotated[str, typer.Argument(help="License id, or MODEL/FINGERPRINT.")]
RenewalArgument = Annotated[Path, typer.Argument(help="Signed renewal.")]


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


@app.command("sign-renewal")
def sign_renewal(
    ctx: typer.Context,
    license_id: LicenseArgument,
    price: Annotated[str, typer.Option(help="Price, as 1.5eth, or in the token's smallest unit.")],
    until: Annotated[str, typer.Option(help="New end of the license: unix seconds, +365d, or `never`.")],
    out: Annotated[Path, typer.Option(help="File to write the signed renewal to.")],
    valid: Annotated[str, typer.Option(help="Until when the holder may pay: unix seconds, or +7d.")] = "+7d",
    token: Annotated[str, typer.Option(help="ERC-20 address; default: the chain's coin.")] = NATIVE,
) -> None:
    """Owner of the model: offer a license's holder more time. Costs no gas."""
    session = session_of(ctx)
    sales, now = session.client.sales, session.client.chain.now()
    renewal = sales.renewal(
        words.license_id(license_id),
        price=words.amount(price),
        expiry=0 if until == "never" else words.moment(until, now),
        open_by=words.moment(valid, now),
        token=to_address(token),
    )
    write_document(out, sales.sign_renewal(renewal))
    session.console.result({"file": str(out), "hash": renewal.hash(), **renewal.model_dump()})


@app.command()
def renew(
    ctx: typer.Context,
    file: RenewalArgument,
    approve: words.ApproveOption = False,
) -> None:
    """Holder: pay for a renewal that the model's owner signed."""
    session = session_of(ctx)
    signed = read_document(file, SignedRenewal)
    client, renewal = session.client, signed.renewal
    session.approve(approve, renewal.price, renewal.token)
    result = client.sales.renew(signed, dry_run=session.dry_run)
    session.show(result, license_id=renewal.license_id, expires_at=renewal.expiry or "never")


@app.command("cancel-renewal")
def cancel_renewal(ctx: typer.Context, file: RenewalArgument) -> None:
    """Owner of the model: make a signed renewal void."""
    session = session_of(ctx)
    renewal = read_document(file, SignedRenewal).renewal
    session.show(session.client.orders.cancel(renewal, dry_run=session.dry_run))


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
        "suspended": found.suspended,
        "offered_for_resale": found.offered,
        "end": found.end.name.lower(),
        "terms": described_terms(found.terms),
    }
