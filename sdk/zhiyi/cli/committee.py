"""`zhiyi committee`: members, stakes and epochs. The services run by `zhiyi oracle` and `zhiyi fingerprint`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zhiyi.canaries import CanarySet
from zhiyi.cli import words
from zhiyi.cli.keys import open_key
from zhiyi.cli.orders import OrderFile
from zhiyi.cli.session import Session, read_document, session_of, write_document
from zhiyi.errors import BadInput
from zhiyi.keys import KeyKind
from zhiyi.types import Order, ProvenSigner, Role, SignedVerdict, to_bytes

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
CaseArgument = Annotated[str, typer.Argument(help="Case id, 0x-hex.")]
OperatorArgument = Annotated[str, typer.Argument(help="Account of the operator.")]
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
    """The committee of an epoch: signers in seat order, how many must sign, seats that no longer count."""
    session = session_of(ctx)
    oracles = session.reader.oracles
    found = oracles.current_epoch() if number is None else oracles.epoch(number)
    more = {"counts": oracles.counts(found.number), "vacated_seats": oracles.vacated_seats(found.number)}
    session.console.result({**found.model_dump(), **more})


@app.command()
def params(ctx: typer.Context) -> None:
    """What the deployment fixed: stakes, threshold, delays (seconds, wei)."""
    session = session_of(ctx)
    session.console.result(session.reader.oracles.params())


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
    """Oracle admin: name the next committee; announced first: `zhiyi access schedule OracleCommittee announceEpoch`."""
    session = session_of(ctx)
    session.show(session.client.oracles.announce_epoch(signers, threshold, dry_run=session.dry_run))


@app.command("activate-epoch")
def activate_epoch(ctx: typer.Context, number: Annotated[int, typer.Argument(help="Epoch.")]) -> None:
    """Anyone, once the announcement's delay is over."""
    session = session_of(ctx)
    session.show(session.client.oracles.activate_epoch(number, dry_run=session.dry_run))


@app.command("prove-equivocation")
def prove_equivocation(
    ctx: typer.Context,
    first: Annotated[Path, typer.Argument(help="Verdict with an operator's signature.")],
    second: Annotated[Path, typer.Argument(help="Another verdict on the same case, by the same signer.")],
) -> None:
    """Anyone: an operator signed two contradicting verdicts on one case; its stake is lost."""
    session = session_of(ctx)
    one, two = read_document(first, SignedVerdict), read_document(second, SignedVerdict)
    session.show(session.client.oracles.prove_equivocation(one, two, dry_run=session.dry_run))


@app.command("prove-double-copy")
def prove_double_copy(
    ctx: typer.Context,
    first: Annotated[Path, typer.Argument(help="Order file with the fingerprinter's signature.")],
    second: Annotated[Path, typer.Argument(help="Another one under the same license id.")],
) -> None:
    """Anyone: a fingerprinter signed two orders under one license id; its stake is lost and it is barred."""
    session = session_of(ctx)
    one, two = (_signed_order(path) for path in (first, second))
    session.show(session.client.oracles.prove_double_copy(*one, *two, dry_run=session.dry_run))


@app.command("commit-canaries")
def commit_canaries(
    ctx: typer.Context,
    epoch: Annotated[int, typer.Argument(help="Epoch that is tested.")],
    canaries: Annotated[
        Path, typer.Argument(help="Test cases (JSON): salts, evidence hashes, what is right.")
    ],
) -> None:
    """Oracle admin: fix hidden test cases by their root; report them afterwards, like any other case."""
    session = session_of(ctx)
    root = read_document(canaries, CanarySet).root()
    session.show(session.client.oracles.commit_canaries(epoch, root, dry_run=session.dry_run), root=root)


@app.command("canaries-root")
def canaries_root(
    ctx: typer.Context, canaries: Annotated[Path, typer.Argument(help="Test cases (JSON).")]
) -> None:
    """Oracle admin: the root of hidden test cases, for `zhiyi access schedule OracleCommittee commitCanaries`."""
    session_of(ctx).console.result({"root": read_document(canaries, CanarySet).root()})


@app.command("accuse-canary")
def accuse_canary(
    ctx: typer.Context,
    verdict: Annotated[Path, typer.Argument(help="Verdict with the operator's signature.")],
    canaries: Annotated[Path, typer.Option(help="Test cases under the root that was committed (JSON).")],
) -> None:
    """Anyone who can open a canary: an operator signed something else than is right."""
    session = session_of(ctx)
    client, signed = session.client, read_document(verdict, SignedVerdict)
    expected = read_document(canaries, CanarySet).expected(signed.verdict.evidence_hash)
    file = client.cases.file(signed.verdict.case_id)
    session.show(client.oracles.accuse_canary(file, signed, expected, dry_run=session.dry_run))


@app.command("contest-canary")
def contest_canary(
    ctx: typer.Context,
    case_id: CaseArgument,
    answer: Annotated[Path, typer.Argument(help="File with the answer; it becomes public on IPFS.")],
) -> None:
    """Accused operator, within 7 days: answer, and have the appeal authority rule at once."""
    session = session_of(ctx)
    cid = session.ipfs.add_file(answer)
    result = session.client.oracles.contest_canary(words.case_id(case_id), cid, dry_run=session.dry_run)
    session.show(result, cid=cid)


@app.command("rule-canary")
def rule_canary(
    ctx: typer.Context,
    account: OperatorArgument,
    case_id: CaseArgument,
    uphold: Annotated[bool, typer.Option("--uphold/--reject", help="The ruling.")],
) -> None:
    """Appeal authority, within 14 days of the answer or of the time for one: after running the detector again."""
    session = session_of(ctx)
    number = words.case_id(case_id)
    session.show(session.client.oracles.rule_canary(account, number, uphold, dry_run=session.dry_run))


@app.command("end-canary")
def end_canary(ctx: typer.Context, account: OperatorArgument, case_id: CaseArgument) -> None:
    """Anyone, once the authority's time is over: not ruled on, it is dropped."""
    session = session_of(ctx)
    number = words.case_id(case_id)
    session.show(session.client.oracles.end_canary(account, number, dry_run=session.dry_run))


def _signed_order(path: Path) -> tuple[Order, bytes]:
    found = read_document(path, OrderFile)
    if found.fingerprinter_signature is None:
        raise BadInput(f"{path} has no fingerprinter's signature")
    return found.order, found.fingerprinter_signature


def _signer(given: str) -> str | ProvenSigner:
    """An address, or a key with its word. Raises BadInput."""
    return given if given.startswith("0x") else read_document(Path(given), ProvenSigner)


def _public(session: Session, given: str) -> bytes:
    """A public key in hex, or that of a key file. Raises BadInput, ConfigError."""
    if given.startswith("0x"):
        return to_bytes(given, 32)
    return open_key(session, Path(given), KeyKind.ENCRYPTION).public
