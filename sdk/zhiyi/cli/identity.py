"""`zhiyi identity`: attestations by issuers; nothing on chain tells a person."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from zhiyi.cli import words
from zhiyi.cli.session import read_bytes, read_document, session_of, write_document
from zhiyi.errors import BadInput, ConfigError
from zhiyi.group import SALT_BYTES, salted_hash
from zhiyi.identity import check_claim
from zhiyi.types import Address, Bytes32, HexBytes, SignedAttestation, Value, to_address

app = typer.Typer(name="identity", help="Who is verified, by whom, up to which tier.", no_args_is_help=True)

MAX_CLAIM_BYTES = 1 << 18

AccountArgument = Annotated[str, typer.Argument(help="Account.")]
ReasonOption = Annotated[str, typer.Option(help="Reason; the chain keeps its hash.")]


class Opening(Value):
    """What opens a claim hash: kept by issuer and subject, shown to whom the subject wants."""

    subject: Address
    claim_hash: Bytes32
    salt: Bytes32
    claim: HexBytes


@app.command()
def sign(
    ctx: typer.Context,
    subject: AccountArgument,
    tier: Annotated[int, typer.Option(help="1 to 3, at most what you may attest.")],
    claim: Annotated[Path, typer.Option(help="What was verified, in any form; it goes nowhere.")],
    out: Annotated[Path, typer.Option(help="File to write the attestation to, for the subject to record.")],
    opening: Annotated[
        Path, typer.Option(help="File (mode 0600) to write salt and claim to, for the subject.")
    ],
    expires: Annotated[str, typer.Option(help="Until when it counts: unix seconds, or +365d.")] = "+365d",
    valid: Annotated[str, typer.Option(help="Until when it may be recorded: unix seconds, or +7d.")] = "+7d",
) -> None:
    """Issuer: attest that you verified an account's holder. Costs no gas; the subject records it."""
    session = session_of(ctx)
    client = session.client
    now, salt = client.chain.now(), secrets.token_bytes(SALT_BYTES)
    found = read_bytes(claim, MAX_CLAIM_BYTES)
    attestation = client.identity.attestation(
        subject,
        salted_hash(salt, found),
        tier=tier,
        expiry=words.moment(expires, now),
        deadline=words.moment(valid, now),
    )
    signed = client.identity.sign(attestation)
    _write_private(
        opening,
        Opening(subject=attestation.subject, claim_hash=attestation.claim_hash, salt=salt, claim=found),
    )
    write_document(out, signed)
    session.console.result({"file": str(out), "opening": str(opening), **attestation.model_dump()})


@app.command()
def record(
    ctx: typer.Context, file: Annotated[Path, typer.Argument(help="Attestation, signed by its issuer.")]
) -> None:
    """Subject: record an attestation, in place of what was recorded before."""
    session = session_of(ctx)
    signed = read_document(file, SignedAttestation)
    session.show(
        session.client.identity.record(signed, dry_run=session.dry_run), tier=signed.attestation.tier
    )


@app.command()
def withdraw(ctx: typer.Context) -> None:
    """Subject: the attestation stops counting."""
    session = session_of(ctx)
    session.show(session.client.identity.withdraw(dry_run=session.dry_run))


@app.command()
def revoke(ctx: typer.Context, subject: AccountArgument, reason: ReasonOption) -> None:
    """Issuer: take back what you attested or signed for an account."""
    session = session_of(ctx)
    session.show(session.client.identity.revoke(subject, reason, dry_run=session.dry_run))


@app.command()
def resign(ctx: typer.Context) -> None:
    """Issuer: leave at once, as with a lost key; nothing you attested counts any more."""
    session = session_of(ctx)
    session.show(session.client.identity.resign(dry_run=session.dry_run))


@app.command("set-issuer")
def set_issuer(
    ctx: typer.Context,
    issuer: AccountArgument,
    max_tier: Annotated[int, typer.Argument(help="Highest tier it may attest, 1 to 3; 0 removes it.")],
) -> None:
    """Identity admin: name an issuer, or remove it."""
    session = session_of(ctx)
    session.show(session.client.identity.set_issuer(issuer, max_tier, dry_run=session.dry_run))


@app.command()
def issuers(ctx: typer.Context) -> None:
    """Present issuers and the highest tier that each may attest."""
    session = session_of(ctx)
    rows = session.reader.identity.issuers().items()
    session.console.result([{"issuer": who, "max_tier": tier} for who, tier in rows], title="issuers")


@app.command()
def show(ctx: typer.Context, account: AccountArgument) -> None:
    """The tier that an account has now, by whom, until when."""
    session = session_of(ctx)
    session.console.result(session.reader.identity.get(account))


@app.command("check-claim")
def check(
    ctx: typer.Context,
    opening: Annotated[Path, typer.Argument(help="Salt and claim, as the subject gave it.")],
) -> None:
    """Whoever was shown salt and claim: check that they are what the chain has for the account, and that it counts."""
    session = session_of(ctx)
    shown = read_document(opening, Opening)
    status = session.reader.identity.get(to_address(shown.subject))
    check_claim(shown.salt, shown.claim, status.claim_hash)
    if not status.tier:
        raise BadInput(f"{shown.subject} recorded this claim, but it does not count now")
    session.console.result({"ok": True, **status.model_dump()})


def _write_private(path: Path, value: Opening) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise ConfigError(f"{path} exists: an opening is never overwritten; choose another name") from exc
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(value.model_dump_json(indent=2) + "\n")
