"""`zhiyi committee`: members, stakes and epochs. The services run by `zhiyi oracle` and `zhiyi fingerprint`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zhiyi.cli import words
from zhiyi.cli.keys import open_key
from zhiyi.cli.session import Session, read_document, session_of, write_document
from zhiyi.keys import KeyKind
from zhiyi.types import ProvenSigner, Role, to_bytes

app = typer.Typer(name="committee", help="Members of the committee, stakes and epochs.", no_args_is_help=True)


class MemberRole(StrEnum):
    """What a member does."""

    OPERATOR = "operator"
    FINGERPRINTER = "fingerprinter"


KeyOption = Annotated[
    str, typer.Option(help="Public encryption key (0x-hex), or a file of `zhiyi keys new encryption`.")
]
SignerOption = Annotated[
    str,
    typer.Option(
        help="Address of the key that signs verdicts, if it is the account's own or was before; else a file of "
        "`zhiyi committee prove-signer`."
    ),
]
UrlOption = Annotated[str, typer.Option(help="Where the service answers.")]


@app.command()
def members(ctx: typer.Context) -> None:
    """Present members."""
    session = session_of(ctx)
    client = session.reader
    session.console.result(
        [
            {
                "account": found.account,
                "role": found.member.role.name.lower(),
                "signer": found.member.signer,
                "url": found.url,
                "stake": client.vault.stake_of(found.account).staked,
                "leaving_at": found.member.exit_at or None,
            }
            for found in client.oracles.members()
        ],
        title="members",
    )


@app.command()
def epoch(
    ctx: typer.Context,
    number: Annotated[int | None, typer.Argument(help="Epoch; default: the present one.")] = None,
) -> None:
    """The committee of an epoch: signers in seat order and how many must sign."""
    session = session_of(ctx)
    oracles = session.reader.oracles
    session.console.result(oracles.current_epoch() if number is None else oracles.epoch(number))


@app.command()
def join(
    ctx: typer.Context,
    role: Annotated[MemberRole, typer.Argument(help="operator or fingerprinter.")],
    signer: SignerOption,
    encryption_key: KeyOption,
    stake: Annotated[str, typer.Option(help="Stake, as 32eth; from the free balance in the vault.")],
    url: UrlOption = "",
) -> None:
    """Join with a stake."""
    session = session_of(ctx)
    session.show(
        session.client.oracles.join(
            Role[role.name],
            signer=_signer(signer),
            encryption_key=_public(session, encryption_key),
            stake=words.amount(stake),
            url=url,
            dry_run=session.dry_run,
        )
    )


@app.command()
def update(
    ctx: typer.Context,
    signer: SignerOption,
    encryption_key: KeyOption,
    url: UrlOption,
) -> None:
    """Change signer, encryption key and URL; a new signer takes its seat with the next epoch."""
    session = session_of(ctx)
    key = _public(session, encryption_key)
    session.show(
        session.client.oracles.update(
            signer=_signer(signer), encryption_key=key, url=url, dry_run=session.dry_run
        )
    )


@app.command("prove-signer")
def prove_signer(
    ctx: typer.Context,
    account: Annotated[str, typer.Argument(help="Account that registers the key.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
) -> None:
    """Run with the signer key: its word that it is the account's, good for a day."""
    session = session_of(ctx)
    proven = session.client.oracles.prove_signer(account)
    write_document(out, proven)
    session.console.result(proven)


@app.command("add-stake")
def add_stake(ctx: typer.Context, amount: Annotated[str, typer.Argument(help="Amount, as 1eth.")]) -> None:
    """More stake from the free balance."""
    session = session_of(ctx)
    session.show(session.client.oracles.add_stake(words.amount(amount), dry_run=session.dry_run))


@app.command("request-exit")
def request_exit(ctx: typer.Context) -> None:
    """Start the time after which the stake may leave."""
    session = session_of(ctx)
    session.show(session.client.oracles.request_exit(dry_run=session.dry_run))


@app.command()
def leave(ctx: typer.Context) -> None:
    """Take the stake back once the time is over."""
    session = session_of(ctx)
    session.show(session.client.oracles.leave(dry_run=session.dry_run))


@app.command("announce-epoch")
def announce_epoch(
    ctx: typer.Context,
    threshold: Annotated[int, typer.Argument(help="How many must sign.")],
    signers: Annotated[list[str], typer.Argument(help="Signer addresses of the operators.")],
) -> None:
    """Oracle admin: name the next committee."""
    session = session_of(ctx)
    session.show(session.client.oracles.announce_epoch(signers, threshold, dry_run=session.dry_run))


@app.command("activate-epoch")
def activate_epoch(ctx: typer.Context, number: Annotated[int, typer.Argument(help="Epoch.")]) -> None:
    """Anyone, once the announcement's delay is over."""
    session = session_of(ctx)
    session.show(session.client.oracles.activate_epoch(number, dry_run=session.dry_run))


def _signer(given: str) -> str | ProvenSigner:
    """An address, or a key with its word. Raises BadInput."""
    return given if given.startswith("0x") else read_document(Path(given), ProvenSigner)


def _public(session: Session, given: str) -> bytes:
    """A public key in hex, or that of a key file. Raises BadInput, ConfigError."""
    if given.startswith("0x"):
        return to_bytes(given, 32)
    return open_key(session, Path(given), KeyKind.ENCRYPTION).public
