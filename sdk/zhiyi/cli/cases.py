"""`zhiyi case`: report, follow, challenge, finish."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from zhiyi import case_evidence, delivery
from zhiyi.case_evidence import ObjectKind
from zhiyi.cli import words
from zhiyi.cli.console import jsonable
from zhiyi.cli.keys import open_key
from zhiyi.cli.session import Session, read_document, session_of, write_document
from zhiyi.delivery import ecies
from zhiyi.errors import BadInput, NotFound
from zhiyi.keys import KeyKind
from zhiyi.types import (
    Bytes32,
    Case,
    Decision,
    Kind,
    SignedVerdict,
    Value,
    Verdict,
    model_of_license,
    to_hex,
)

app = typer.Typer(name="case", help="Report misuse and follow cases.", no_args_is_help=True)

MAX_EVIDENCE_BYTES = 64 << 30
NO_SHARE = 255  # Verdict.share_index and Case.share_index where none was used
POST_SLACK = 14 * 86_400  # a verdict may be posted so long after `post_by`, which pauses of the court put off

SuspectArgument = Annotated[Path, typer.Argument(help="File or folder that was found: weights, or a text.")]
ReportOption = Annotated[Path, typer.Option(help="File to keep the report in (it holds the salt).")]
ObjectOption = Annotated[
    ObjectKind | None,
    typer.Option("--object", help="What was found; default: text for .txt and .md files."),
]
BondOption = Annotated[str | None, typer.Option(help="Bond, as 1eth; default: the smallest that counts.")]
CaseArgument = Annotated[str, typer.Argument(help="Case id, 0x-hex.")]
ValueOption = Annotated[
    str, typer.Option(help="Amount to add to the free balance first, as 1eth; the bond is taken from there.")
]

KeyOption = Annotated[
    Path, typer.Option("--key", help="Key file (encryption) that the evidence was asked for with.")
]


class KindName(StrEnum):
    """What a case is about."""

    LEAK = "leak"
    TERMS = "terms"
    DISCLOSURE = "disclosure"
    UNLICENSED = "unlicensed"
    UNDECLARED_PARENT = "undeclared-parent"
    OWNERSHIP = "ownership"


class DecisionName(StrEnum):
    """What operators find."""

    GUILTY = "guilty"
    NOT_GUILTY = "not-guilty"
    INCONCLUSIVE = "inconclusive"
    UNAVAILABLE = "unavailable"
    UNLICENSED = "unlicensed"


class Report(Value):
    """What a reporter keeps of his report; the salt opens the evidence hash."""

    case_id: Bytes32 | None
    kind: Kind
    model_id: int
    license_id: int
    reporter: str
    salt: Bytes32
    canonical_root: Bytes32
    evidence_hash: Bytes32
    evidence_cid: str


@app.command("open")
def open_case(
    ctx: typer.Context,
    suspect: SuspectArgument,
    out: ReportOption,
    kind: Annotated[KindName, typer.Option(help="What the case is about.")] = KindName.LEAK,
    what: ObjectOption = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="License that is accused, or MODEL/FINGERPRINT.")
    ] = None,
    model: Annotated[int | None, typer.Option(help="Model id, where no license is accused.")] = None,
    bond: BondOption = None,
    value: ValueOption = "0",
) -> None:
    """Report misuse: seal what was found to the committee, put it on IPFS, open a case with a bond.

    `zhiyi trace FILE` names a candidate license first.
    """
    number = words.license_id(license_id) if license_id else 0
    model_id = model if model is not None else model_of_license(number)
    if not model_id or (number and model is not None and model != model_of_license(number)):
        raise BadInput("name the accused license, or the model where no license is accused")
    _report(ctx, suspect, out, Kind[kind.name], what, number, model_id, bond, value)


@app.command("report-disclosure")
def report_disclosure(
    ctx: typer.Context,
    license_id: Annotated[
        str, typer.Argument(help="License whose outputs lack their label, or MODEL/FINGERPRINT.")
    ],
    suspect: SuspectArgument,
    out: ReportOption,
    what: ObjectOption = None,
    bond: BondOption = None,
    value: ValueOption = "0",
) -> None:
    """Report outputs without the label that the license's terms ask for; judged so, the license is suspended.

    Without a passing probe within 96 hours anyone may have it revoked.
    """
    number = words.license_id(license_id)
    _report(ctx, suspect, out, Kind.DISCLOSURE, what, number, model_of_license(number), bond, value)


def _report(
    ctx: typer.Context,
    suspect: Path,
    out: Path,
    kind: Kind,
    what: ObjectKind | None,
    number: int,
    model_id: int,
    bond: str | None,
    value: str,
) -> None:
    session = session_of(ctx)
    client = session.client
    amount = client.cases.min_bond(number, kind) if bond is None else words.amount(bond)
    epoch = client.oracles.current_epoch()
    keys = list(client.oracles.sealing_keys(epoch.number))
    with tempfile.TemporaryDirectory(prefix="zhiyi-case-") as scratch:
        sealed_file = Path(scratch) / "evidence.sealed"
        with session.console.progress("sealing the evidence"):
            sealed = case_evidence.seal(
                suspect, what or _object_of(suspect), reporter=client.account, keys=keys, out=sealed_file
            )
        with session.console.progress("adding to IPFS") as progress:
            cid = session.ipfs.add_file(sealed_file, progress=progress)
    report = Report(
        case_id=None,
        kind=kind,
        model_id=model_id,
        license_id=number,
        reporter=client.account,
        salt=sealed.salt,
        canonical_root=sealed.canonical_root,
        evidence_hash=sealed.evidence_hash,
        evidence_cid=cid,
    )
    write_document(out, report)  # before the transaction: without the salt the report is worth nothing
    more: dict[str, Any] = {"value": words.amount(value), "dry_run": session.dry_run}
    if kind is Kind.DISCLOSURE:
        result = client.cases.report_disclosure(number, sealed.evidence_hash, cid, amount, **more)
    else:
        result = client.cases.open(number, model_id, kind, sealed.evidence_hash, cid, amount, **more)
    if result.status == "mined":
        report = report.model_copy(update={"case_id": result.case_id})
        write_document(out, report)
    session.show(
        result, case_id=report.case_id, evidence_hash=report.evidence_hash, evidence_cid=cid, file=str(out)
    )


@app.command()
def show(ctx: typer.Context, case_id: CaseArgument) -> None:
    """A case as it stands: state, decision, windows, share, verdict, challenger, seats still to be paid."""
    session = session_of(ctx)
    found = session.reader.cases.get(words.case_id(case_id))
    more = {
        "file": found.file,
        "share": found.share,
        "verdict": found.posted,
        "defence": session.reader.cases.defence(found.case_id),
        "challenger": found.challenger,
        "unpaid_seats": found.unpaid_seats,
        "held": found.held,
        "now": session.reader.chain.now(),
    }
    session.console.result({**_summary(found), **more})


@app.command()
def params(ctx: typer.Context) -> None:
    """What the deployment fixed: bonds, windows, slashes, who rules (seconds, wei, basis points)."""
    session = session_of(ctx)
    session.console.result(session.reader.cases.params())


@app.command("list")
def list_cases(
    ctx: typer.Context,
    license_id: Annotated[str | None, typer.Option("--license", help="Only cases of this license.")] = None,
) -> None:
    """Cases, oldest first."""
    session = session_of(ctx)
    number = words.license_id(license_id) if license_id else None
    session.console.result([_summary(found) for found in session.reader.cases.list(number)], title="cases")


@app.command()
def served(
    ctx: typer.Context,
    case_id: CaseArgument,
    out: Annotated[Path, typer.Argument(help="New folder for the evidence.")],
    key: KeyOption,
) -> None:
    """Accused: fetch, open and check what you were served; fails when it is not the evidence of the case."""
    session = session_of(ctx)
    cases, number = session.reader.cases, words.case_id(case_id)
    file, given = cases.file(number), cases.defence(number)
    if not given.served_cid:
        raise NotFound(
            "nobody has served the accused yet; ask with `zhiyi case request-service`"
            if given.service_key is None
            else "the accused has asked and was not served yet; after 24 hours `zhiyi case clear-unserved`"
        )
    pair = open_key(session, key, KeyKind.ENCRYPTION)
    with tempfile.TemporaryDirectory(prefix="zhiyi-case-") as scratch:
        sealed = Path(scratch) / "evidence.sealed"
        with session.console.progress("fetching from IPFS") as progress:
            session.ipfs.download(given.served_cid, sealed, MAX_EVIDENCE_BYTES, progress=progress)
        opened = case_evidence.open_sealed(
            sealed, pair.secret, out, reporter=file.reporter, expected=file.evidence_hash
        )
    session.console.result(_opened(opened))


@app.command()
def defend(
    ctx: typer.Context,
    case_id: CaseArgument,
    defence: Annotated[Path, typer.Argument(help="File with the defence; it becomes public on IPFS.")],
) -> None:
    """Accused: put a defence on IPFS and name it to whoever decides."""
    session = session_of(ctx)
    cid = session.ipfs.add_file(defence)
    result = session.client.cases.file_defence(words.case_id(case_id), cid, dry_run=session.dry_run)
    session.show(result, cid=cid)


@app.command("request-service")
def request_service(
    ctx: typer.Context,
    case_id: CaseArgument,
    encryption_key: Annotated[
        Path,
        typer.Option(help="Your key file (`zhiyi keys new encryption FILE`) that will open the evidence."),
    ],
) -> None:
    """Accused, once: ask to see the evidence you are judged on. Not shown within 24 hours, you are cleared."""
    session = session_of(ctx)
    key = open_key(session, encryption_key, KeyKind.ENCRYPTION).public
    session.show(session.client.cases.request_service(words.case_id(case_id), key, dry_run=session.dry_run))


@app.command()
def serve(
    ctx: typer.Context,
    case_id: CaseArgument,
    report: Annotated[
        Path | None, typer.Option(help="Reporter: the file that `case open` kept, with --suspect.")
    ] = None,
    suspect: Annotated[Path | None, typer.Option(help="Reporter: what was found.")] = None,
    what: ObjectOption = None,
    encryption_key: Annotated[
        Path | None, typer.Option(help="Operator: the key file that opens the committee's evidence.")
    ] = None,
) -> None:
    """Reporter, or operator of the case's committee: seal the evidence to the accused, who asked for it."""
    session = session_of(ctx)
    client, number = session.client, words.case_id(case_id)
    case = client.cases.get(number)
    key = client.cases.defence(number).service_key
    if key is None:
        raise BadInput("the accused has not asked for the evidence")
    with tempfile.TemporaryDirectory(prefix="zhiyi-serve-") as scratch:
        sealed = Path(scratch) / "evidence.sealed"
        if encryption_key is not None:
            _reseal(session, case, encryption_key, key, Path(scratch), sealed)
        elif report is not None and suspect is not None:
            kept = read_document(report, Report)
            made = case_evidence.seal(
                suspect,
                what or _object_of(suspect),
                reporter=kept.reporter,
                keys=[key],
                out=sealed,
                salt=kept.salt,
            )
            if made.evidence_hash != case.file.evidence_hash:
                raise BadInput("this is not what the case was opened with: another file, salt or reporter")
        else:
            raise BadInput("give --report and --suspect (reporter), or --encryption-key (operator)")
        cid = session.ipfs.add_file(sealed)
    session.show(client.cases.serve(number, cid, dry_run=session.dry_run), cid=cid)


@app.command("clear-unserved")
def clear_unserved(ctx: typer.Context, case_id: CaseArgument) -> None:
    """Anyone, 24 hours after the accused asked in vain: clear him."""
    session = session_of(ctx)
    session.show(session.client.cases.clear_unserved(words.case_id(case_id), dry_run=session.dry_run))


@app.command()
def evidence(
    ctx: typer.Context,
    case_id: CaseArgument,
    out: Annotated[Path, typer.Argument(help="New folder for the evidence.")],
    key: Annotated[Path, typer.Option("--key", help="Operator's key file (encryption).")],
) -> None:
    """Operator: fetch, open and check the evidence of a case of one's committee; tells its canonical root."""
    session = session_of(ctx)
    case = session.reader.cases.get(words.case_id(case_id))
    with tempfile.TemporaryDirectory(prefix="zhiyi-case-") as scratch:
        opened = _open(session, case.evidence_cid, case, key, Path(scratch) / "evidence.sealed", out)
    session.console.result(_opened(opened))


@app.command("sign-verdict")
def sign_verdict(
    ctx: typer.Context,
    case_id: CaseArgument,
    decision: Annotated[DecisionName, typer.Option(help="What is found.")],
    subject: Annotated[
        str,
        typer.Option(help="Canonical root of the object judged, 0x-hex (`zhiyi case evidence` tells it)."),
    ],
    out: Annotated[Path, typer.Option(help="File to write the signed verdict to.")],
    samples: Annotated[int, typer.Option(help="How many values or outputs were looked at.")] = 0,
    bucket: Annotated[
        int, typer.Option(help="Strength: -log10 of the p-value, rounded down to 0, 12, 20 or 40.")
    ] = 0,
    detector: Annotated[
        str | None, typer.Option(help="Hash of the detector's specification, 0x-hex; default: none was used.")
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(
            help="Until when it may be posted: unix seconds, or +2d; default: 14 days past the case's."
        ),
    ] = None,
) -> None:
    """Operator: sign what you found in a case. Signing another decision later costs your stake.

    `zhiyi oracle` signs LEAK cases by itself; the other kinds are judged by hand. All operators sign one and the same
    verdict, so they agree on every option first. A confirm share that was opened is named in it.
    """
    session = session_of(ctx)
    client, number = session.client, words.case_id(case_id)
    case = client.cases.get(number)
    if out.exists():
        raise BadInput(f"{out} exists already: signing two decisions in one case costs your stake")
    client.oracles.epoch(case.file.epoch).seat(client.account)
    until = words.moment(valid, client.chain.now()) if valid else case.file.post_by + POST_SLACK
    verdict = Verdict(
        case_id=number,
        license_id=case.file.license_id,
        kind=case.file.kind,
        decision=Decision[decision.name],
        evidence_hash=case.file.evidence_hash,
        subject=words.case_id(subject),
        detector_hash=words.case_id(detector) if detector else bytes(32),
        share_index=case.share_index,
        samples=samples,
        bucket=bucket,
        epoch=case.file.epoch,
        deadline=until,
    )
    write_document(out, SignedVerdict(verdict=verdict, signature=client.cases.sign_verdict(verdict)))
    session.console.result({"file": str(out), **verdict.model_dump()})


@app.command("post-verdict")
def post_verdict(
    ctx: typer.Context,
    verdicts: Annotated[list[Path], typer.Argument(help="The verdict, signed by enough operators.")],
) -> None:
    """Anyone: post a verdict that enough operators of the case's committee signed."""
    session = session_of(ctx)
    verdict, votes = _votes(session, verdicts)
    session.show(session.client.cases.post_verdict(verdict, votes, dry_run=session.dry_run))


@app.command("sign-cure")
def sign_cure(
    ctx: typer.Context,
    case_id: CaseArgument,
    subject: Annotated[str, typer.Option(help="Canonical root of the outputs probed, 0x-hex.")],
    samples: Annotated[int, typer.Option(help="How many outputs were probed.")],
    out: Annotated[Path, typer.Option(help="File to write the signed verdict to.")],
    valid: Annotated[str, typer.Option(help="Until when it may be sent: unix seconds, or +2d.")] = "+2d",
) -> None:
    """Operator: sign that the label is back (a passing probe) in a DISCLOSURE case."""
    session = session_of(ctx)
    client, number = session.client, words.case_id(case_id)
    posted = client.cases.get(number).posted
    if posted is None:
        raise BadInput("the case has no verdict yet: there is nothing to cure")
    passing = posted.verdict.model_copy(
        update={
            "case_id": client.cases.cure_id(number),
            "decision": Decision.NOT_GUILTY,
            "subject": words.case_id(subject),
            "samples": samples,
            "bucket": 0,
            "deadline": words.moment(valid, client.chain.now()),
        }
    )
    write_document(out, SignedVerdict(verdict=passing, signature=client.cases.sign_verdict(passing)))
    session.console.result({"file": str(out), **passing.model_dump()})


@app.command()
def cure(
    ctx: typer.Context,
    case_id: CaseArgument,
    answers: Annotated[list[Path], typer.Argument(help="Passing probe, signed by enough operators.")],
) -> None:
    """Anyone, within 96 hours: end a DISCLOSURE case with a passing probe; the license is active again."""
    session = session_of(ctx)
    verdict, votes = _votes(session, answers)
    session.show(session.client.cases.cure(words.case_id(case_id), verdict, votes, dry_run=session.dry_run))


@app.command("open-chunk")
def open_chunk(
    ctx: typer.Context,
    case_id: CaseArgument,
    copy: Annotated[Path, typer.Argument(help="Folder of your decrypted copy, unchanged.")],
    index: Annotated[int, typer.Argument(help="Chunk to open; it becomes public.")],
) -> None:
    """Accused of a leak: open a chunk of your own copy on chain; it shows which mark the copy carries."""
    session = session_of(ctx)
    client, number = session.client, words.case_id(case_id)
    order = client.orders.get(client.cases.file(number).license_id)
    with session.console.progress("hashing the copy"):
        chunk = delivery.plain_chunk(copy, order.delivery, index)
    result = client.cases.open_chunk(
        number, chunk.chunks, index, chunk.data, chunk.path, dry_run=session.dry_run
    )
    session.show(result, chunk=index)


@app.command("rule-fault")
def rule_fault(ctx: typer.Context, case_id: CaseArgument) -> None:
    """The case's authority: the copy never carried the mark found; the fingerprinter pays, the accused is cleared."""
    session = session_of(ctx)
    session.show(session.client.cases.rule_fault(words.case_id(case_id), dry_run=session.dry_run))


@app.command()
def challenge(ctx: typer.Context, case_id: CaseArgument, value: ValueOption = "0") -> None:
    """Accused (later anyone) of a guilty verdict, reporter of another: ask for a ruling, with a bond.

    `zhiyi case params` says how much: challenge_bond.
    """
    session = session_of(ctx)
    cases = session.client.cases
    result = cases.challenge(words.case_id(case_id), value=words.amount(value), dry_run=session.dry_run)
    session.show(result, bond=cases.params().challenge_bond)


@app.command()
def rule(
    ctx: typer.Context,
    case_id: CaseArgument,
    uphold: Annotated[bool, typer.Option("--uphold/--overturn", help="The ruling.")],
) -> None:
    """The case's authority, or the last instance once escalated: uphold or overturn."""
    session = session_of(ctx)
    session.show(session.client.cases.rule(words.case_id(case_id), uphold, dry_run=session.dry_run))


@app.command()
def escalate(ctx: typer.Context, case_id: CaseArgument) -> None:
    """Anyone: the authority was silent, the last instance may rule."""
    session = session_of(ctx)
    session.show(session.client.cases.escalate(words.case_id(case_id), dry_run=session.dry_run))


@app.command("clear-silent")
def clear_silent(ctx: typer.Context, case_id: CaseArgument) -> None:
    """Anyone: the last instance was silent too."""
    session = session_of(ctx)
    session.show(session.client.cases.clear_silent(words.case_id(case_id), dry_run=session.dry_run))


@app.command("release-hold")
def release_hold(ctx: typer.Context, case_id: CaseArgument) -> None:
    """Anyone, 14 days after a clearing by silence: the case no longer holds the license's bond."""
    session = session_of(ctx)
    session.show(session.client.cases.release_hold(words.case_id(case_id), dry_run=session.dry_run))


@app.command()
def lapse(ctx: typer.Context, case_id: CaseArgument) -> None:
    """Anyone: no verdict came in time, the reporter's bond goes back."""
    session = session_of(ctx)
    session.show(session.client.cases.lapse(words.case_id(case_id), dry_run=session.dry_run))


@app.command("share-missed")
def share_missed(ctx: typer.Context, case_id: CaseArgument) -> None:
    """Anyone: the fingerprinter opened no share in time and pays."""
    session = session_of(ctx)
    session.show(session.client.cases.share_missed(words.case_id(case_id), dry_run=session.dry_run))


@app.command()
def finalize(ctx: typer.Context, case_id: CaseArgument) -> None:
    """Anyone: end a posted verdict whose window is over."""
    session = session_of(ctx)
    session.show(session.client.cases.finalize(words.case_id(case_id), dry_run=session.dry_run))


@app.command()
def execute(ctx: typer.Context, case_id: CaseArgument) -> None:
    """Anyone: slash the bond, revoke the license, pay; finalizes first where the window is over."""
    session = session_of(ctx)
    session.show(session.client.cases.execute(words.case_id(case_id), dry_run=session.dry_run))


@app.command("claim-fee")
def claim_fee(
    ctx: typer.Context,
    case_id: CaseArgument,
    seat: Annotated[int, typer.Argument(help="Seat that signed the verdict.")],
) -> None:
    """Anyone: the account behind a seat gets its part of the fee."""
    session = session_of(ctx)
    session.show(session.client.cases.claim_fee(words.case_id(case_id), seat, dry_run=session.dry_run))


def _votes(session: Session, files: list[Path]) -> tuple[Verdict, dict[str, bytes]]:
    """One verdict and its signatures by signer. Raises BadInput where the files differ."""
    signed = [read_document(path, SignedVerdict) for path in files]
    verdict = signed[0].verdict
    for path, one in zip(files, signed, strict=True):
        differing = [name for name, value in verdict if getattr(one.verdict, name) != value]
        if differing:
            raise BadInput(
                f"{path} differs from {files[0]} in {', '.join(differing)}: operators sign one and the same"
            )
    cases = session.client.cases
    return verdict, {cases.verdict_signer(verdict, one.signature): one.signature for one in signed}


def _opened(opened: case_evidence.Opened) -> dict[str, Any]:
    return {
        "object": str(opened.kind),
        "canonical_root": to_hex(opened.canonical_root),
        "path": str(opened.path),
    }


def _open(session: Session, cid: str, case: Case, key: Path, sealed: Path, out: Path) -> case_evidence.Opened:
    """Evidence from IPFS, opened with a key file into a new folder and checked against the case."""
    secret = open_key(session, key, KeyKind.ENCRYPTION).secret
    session.ipfs.download(cid, sealed, MAX_EVIDENCE_BYTES)
    return case_evidence.open_sealed(
        sealed, secret, out, reporter=case.file.reporter, expected=case.file.evidence_hash
    )


def _reseal(session: Session, case: Case, key: Path, to: bytes, scratch: Path, out: Path) -> None:
    """The committee's evidence, opened by one of its operators, sealed to the accused as it is."""
    folder = scratch / "opened"
    _open(session, case.evidence_cid, case, key, scratch / "committee.sealed", folder)
    ecies.seal_folder(folder, [to], out)


def _object_of(suspect: Path) -> ObjectKind:
    return ObjectKind.TEXT if suspect.suffix.lower() in (".txt", ".md") else ObjectKind.WEIGHTS


def _summary(found: Case) -> dict[str, Any]:
    return {
        "case_id": to_hex(found.case_id),
        "kind": found.file.kind.name.lower(),
        "model_id": found.file.model_id,
        "license_id": found.file.license_id or None,
        "reporter": found.file.reporter,
        "accused": found.file.accused,
        "state": found.state.name.lower(),
        "decision": found.decision.name.lower(),
        "until": found.until,
        "share_index": found.share_index if found.share_index != NO_SHARE else None,
        "evidence_cid": jsonable(found.evidence_cid),
    }
