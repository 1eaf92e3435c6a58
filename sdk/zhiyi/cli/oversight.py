"""`zhiyi oversight`: complaints, demands for disclosure, pauses. Freezing and delisting are under `zhiyi model`."""

from __future__ import annotations

import secrets
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zhiyi.cli import words
from zhiyi.cli.session import Session, read_bytes, session_of, write_document
from zhiyi.delivery import ecies
from zhiyi.errors import BadInput
from zhiyi.group import SALT_BYTES, salted_hash
from zhiyi.types import Bytes32, ComplaintOutcome, SubjectKind, Value, to_bytes

app = typer.Typer(
    name="oversight",
    help="Complaints, demands for disclosure, pauses; each with its time.",
    no_args_is_help=True,
)

MAX_PAPERS_BYTES = 64 << 20


class About(StrEnum):
    """What a complaint or demand is about."""

    MODEL = "model"
    LICENSE = "license"


class Answer(StrEnum):
    """A regulator's answer."""

    UPHELD = "upheld"
    DISMISSED = "dismissed"
    REFERRED = "referred"


class Pausable(StrEnum):
    """What a pauser may stop for a while."""

    OPENING = "opening"
    POSTING = "posting"


class ComplaintPapers(Value):
    """What a complainant keeps: the salt opens the evidence hash of the papers."""

    complaint_id: int | None
    salt: Bytes32
    evidence_hash: Bytes32
    evidence_cid: str


AboutArgument = Annotated[About, typer.Argument(help="model or license.")]
SubjectArgument = Annotated[str, typer.Argument(help="Model id; license id or MODEL/FINGERPRINT.")]
ReasonOption = Annotated[str, typer.Option(help="Reason; the chain keeps its hash.")]
SealOption = Annotated[
    list[str] | None, typer.Option(help="X25519 public key (0x-hex) that may read the papers; repeatable.")
]


@app.command()
def complain(
    ctx: typer.Context,
    about: AboutArgument,
    subject: SubjectArgument,
    papers: Annotated[Path, typer.Argument(help="File with the complaint and its evidence.")],
    out: Annotated[Path, typer.Option(help="File to keep the salt in.")],
    seal_to: SealOption = None,
    publish: Annotated[bool, typer.Option("--publish", help="Put the papers on IPFS for everybody.")] = False,
) -> None:
    """Anyone: complain to the regulator, who owes an answer within 15 days. The papers stay with you unless you say."""
    session = session_of(ctx)
    salt = secrets.token_bytes(SALT_BYTES)
    digest = salted_hash(salt, read_bytes(papers, MAX_PAPERS_BYTES))
    if publish and seal_to:
        raise BadInput("papers are published or sealed, not both")
    cid = _sealed(session, papers, seal_to) if seal_to else session.ipfs.add_file(papers) if publish else ""
    kept = ComplaintPapers(complaint_id=None, salt=salt, evidence_hash=digest, evidence_cid=cid)
    write_document(out, kept)  # before the transaction: without the salt the hash opens nothing
    kind, number = _subject(about, subject)
    result = session.client.oversight.complain(kind, number, digest, cid, dry_run=session.dry_run)
    complaint_id = result.event("ComplaintFiled")["complaintId"] if result.status == "mined" else None
    write_document(out, kept.model_copy(update={"complaint_id": complaint_id}))
    session.show(result, complaint_id=complaint_id, evidence_hash=digest, evidence_cid=cid, file=str(out))


@app.command()
def answer(
    ctx: typer.Context,
    complaint_id: Annotated[int, typer.Argument(help="Complaint.")],
    outcome: Annotated[Answer, typer.Argument(help="upheld, dismissed or referred.")],
    reason: ReasonOption,
) -> None:
    """Regulator: answer a complaint."""
    session = session_of(ctx)
    decided = ComplaintOutcome[outcome.name]
    session.show(session.client.oversight.answer(complaint_id, decided, reason, dry_run=session.dry_run))


@app.command()
def complaints(
    ctx: typer.Context,
    pending: Annotated[bool, typer.Option("--pending", help="Only those without an answer.")] = False,
) -> None:
    """Complaints, oldest first; what is overdue says so."""
    session = session_of(ctx)
    rows = [
        {**one.model_dump(), "kind": one.kind.name.lower(), "outcome": one.outcome.name.lower()}
        for one in session.reader.oversight.complaints(pending=pending)
    ]
    session.console.result(rows, title="complaints")


@app.command()
def demand(
    ctx: typer.Context,
    about: AboutArgument,
    subject: SubjectArgument,
    answer_by: Annotated[str, typer.Option(help="Unix seconds, or +7d; 1 to 30 days ahead.")],
    reason: ReasonOption,
) -> None:
    """Regulator: ask a model's owner or a license's holder to disclose."""
    session = session_of(ctx)
    client, (kind, number) = session.client, _subject(about, subject)
    until = words.moment(answer_by, client.chain.now())
    result = client.oversight.demand(kind, number, reason, until, dry_run=session.dry_run)
    demand_id = result.event("DisclosureDemanded")["demandId"] if result.status == "mined" else None
    session.show(result, demand_id=demand_id)


@app.command()
def disclose(
    ctx: typer.Context,
    demand_id: Annotated[int, typer.Argument(help="Demand.")],
    papers: Annotated[Path, typer.Argument(help="File with what was asked for.")],
    seal_to: Annotated[list[str], typer.Option(help="Regulator's X25519 public key (0x-hex); repeatable.")],
) -> None:
    """Owner or holder: answer a demand; the papers go to IPFS, sealed to the regulator."""
    session = session_of(ctx)
    cid = _sealed(session, papers, seal_to)
    session.show(session.client.oversight.disclose(demand_id, cid, dry_run=session.dry_run), cid=cid)


@app.command("mark-unanswered")
def mark_unanswered(ctx: typer.Context, demand_id: Annotated[int, typer.Argument(help="Demand.")]) -> None:
    """Anyone, once the time is over: put on record that there was no answer."""
    session = session_of(ctx)
    session.show(session.client.oversight.mark_unanswered(demand_id, dry_run=session.dry_run))


@app.command()
def demands(
    ctx: typer.Context,
    pending: Annotated[bool, typer.Option("--pending", help="Only those that are open.")] = False,
) -> None:
    """Demands for disclosure, oldest first."""
    session = session_of(ctx)
    rows = [
        {**one.model_dump(), "kind": one.kind.name.lower(), "state": one.state.name.lower()}
        for one in session.reader.oversight.demands(pending=pending)
    ]
    session.console.result(rows, title="demands")


@app.command()
def acts(
    ctx: typer.Context,
    model: Annotated[int | None, typer.Option(help="Only this model's.")] = None,
) -> None:
    """What the regulator did to models: freezes, liftings, delistings, oldest first."""
    session = session_of(ctx)
    session.console.result(session.reader.regulator.acts(model), title="acts")


@app.command()
def pause(
    ctx: typer.Context,
    what: Annotated[Pausable, typer.Argument(help="Opening of orders, or posting of verdicts.")],
    until: Annotated[str, typer.Option(help="Unix seconds, or +2d; at most 7 d in any 30.")],
) -> None:
    """Pauser: stop the opening of orders or the posting of verdicts for a while. Nothing else stops."""
    session = session_of(ctx)
    regulator, end = session.client.regulator, words.moment(until, session.client.chain.now())
    stop = regulator.pause_opening if what is Pausable.OPENING else regulator.pause_posting
    session.show(stop(end, dry_run=session.dry_run))


@app.command()
def pauses(ctx: typer.Context) -> None:
    """Pauses that are running, and until when."""
    session = session_of(ctx)
    session.console.result(session.reader.regulator.pauses(), title="pauses")


@app.command()
def resume(
    ctx: typer.Context,
    what: Annotated[Pausable, typer.Argument(help="Opening of orders, or posting of verdicts.")],
) -> None:
    """Pauser: end a pause early."""
    session = session_of(ctx)
    regulator = session.client.regulator
    go_on = regulator.resume_opening if what is Pausable.OPENING else regulator.resume_posting
    session.show(go_on(dry_run=session.dry_run))


def _subject(about: About, subject: str) -> tuple[SubjectKind, int]:
    if about is About.LICENSE:
        return SubjectKind.LICENSE, words.license_id(subject)
    if not subject.isdecimal() or len(subject) > 20:
        raise BadInput(f"{subject!r} is no model id")
    return SubjectKind.MODEL, int(subject)


def _sealed(session: Session, papers: Path, keys: list[str]) -> str:
    """CID of the papers, sealed to the keys."""
    with tempfile.TemporaryDirectory(prefix="zhiyi-papers-") as scratch:
        sealed = Path(scratch) / "papers.sealed"
        ecies.seal_file(papers, [to_bytes(key, 32) for key in keys], sealed)
        return session.ipfs.add_file(sealed)
