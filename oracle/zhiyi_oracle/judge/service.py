"""One operator at work. The only place where the steps meet.

Each case moves seen → fetched → detected → signed → submitted → mined → final, one step file a transition, and so does
what its accused asks for; the database says where each is: stop the process anywhere, start it again, and it goes on
from there.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import httpx
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from zhiyi.errors import RpcUnavailable, ZhiyiError
from zhiyi.types import CaseFile, Decision, Epoch, OpenedShare, Verdict
from zhiyi_oracle.base_tensors import BaseTensors
from zhiyi_oracle.errors import BadBase, BadEvidence, JudgeError, LyingPeer, NotSealedToUs, NotYet, Unable
from zhiyi_oracle.judge.attest import NO_RESULT, Attestation, Peers, check_peer, result_tag
from zhiyi_oracle.judge.decide import BaseStatus, CaseFacts, EvidenceStatus, Ruling, decide
from zhiyi_oracle.judge.detect import ConfirmJob, Detector
from zhiyi_oracle.judge.fetch import Evidence
from zhiyi_oracle.judge.ledger import Head, Ledger, RegisteredModel
from zhiyi_oracle.judge.serve import Server
from zhiyi_oracle.judge.store import LIVE_SERVICES, CaseRow, CaseStep, CaseStore, ServiceRow, ServiceStep
from zhiyi_oracle.judge.submit import Submitter, turn_at
from zhiyi_oracle.judge.watch import watch
from zhiyi_oracle.logs import get_logger
from zhiyi_watermark.errors import WatermarkError
from zhiyi_watermark.result import Detection

# A case that failed here is tried again after 5 s, 10 s, 20 s, ...: measuring takes minutes.
RETRY_SECONDS: Final = 5.0
MAX_RETRY_SECONDS: Final = 600.0
# Whoever sealed something less than this after our key changed may have read the old one.
KEY_CHANGE_SECONDS: Final = 86_400
# Parts of the posting window after which something missing counts as missing: the rest is for signing and posting.
EVIDENCE_PATIENCE: Final = (3, 4)
BASE_PATIENCE: Final = (7, 8)

# The court's clock stands still while posting is paused, at most 7 days in 30; a verdict's own deadline does not, so it
# lies this much later. The court still takes nothing after its own deadline.
DEADLINE_SLACK: Final = 14 * 86_400

log = get_logger(__name__)


class Fetcher(Protocol):
    """How evidence and base tensors are had; see fetch.py."""

    def evidence(self, file: CaseFile, folder: Path) -> Evidence:
        """Raises NotYet, BadEvidence."""
        ...

    def base(self, model: RegisteredModel, share: OpenedShare, folder: Path) -> BaseTensors:
        """Raises NotYet, BadBase."""
        ...


class Metrics:
    """What monitors see; no statistic of any case."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.head = Gauge("zhiyi_oracle_head_block", "Latest block", registry=r)
        self.finalized = Gauge("zhiyi_oracle_finalized_block", "Last finalized block", registry=r)
        self.cases = Gauge("zhiyi_oracle_cases", "Cases by step", ["step"], registry=r)
        self.services = Gauge(
            "zhiyi_oracle_services",
            "Accused who may ask or asked for evidence, by step",
            ["step"],
            registry=r,
        )
        self.detect = Histogram("zhiyi_oracle_detect_seconds", "Duration of a detection", registry=r)
        self.errors = Counter("zhiyi_oracle_errors", "Failed tries by kind", ["kind"], registry=r)
        self.lies = Counter("zhiyi_oracle_lying_peers", "Attestations of peers that do not hold", registry=r)
        self.disagreements = Counter("zhiyi_oracle_disagreements", "Final verdicts unlike ours", registry=r)


@dataclass(frozen=True)
class Parts:
    """Everything one operator is made of."""

    signer: str
    store: CaseStore
    ledger: Ledger
    fetcher: Fetcher
    detector: Detector
    submitter: Submitter
    server: Server
    http: httpx.Client
    metrics: Metrics
    start_block: int
    turn_delay: int  # seconds
    dry_run: bool


class Judge:
    """Works all cases, one small step at a time."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self._store, self._ledger = parts.store, parts.ledger
        self.http = parts.http
        self.metrics = parts.metrics
        self._peers = Peers()
        self._put_off: dict[
            str, tuple[int, float]
        ] = {}  # by case: failures, monotonic seconds of the next try
        self._last_step: float | None = None
        self._failure: str | None = "no step was completed yet"

    # -- loop

    def run(self, stop: threading.Event, poll_s: float) -> None:
        """Steps until `stop` is set; a node that is away, or answers wrongly, is waited for."""
        while not stop.is_set():
            try:
                self.step()
            except ZhiyiError as exc:
                self._failure = str(exc)
                self.metrics.errors.labels(type(exc).__name__).inc()
                log.warning("step not completed, will try again", reason=str(exc))
            stop.wait(poll_s)

    def not_ready(self) -> str | None:
        """None when the last step was completed, else why not."""
        return self._failure

    def step(self) -> None:
        """Reads new blocks, then moves every live case as far as it goes now.

        Raises:
            RpcUnavailable: nothing was lost; call again.
        """
        head = self._ledger.head()
        self.metrics.head.set(head.number)
        self.metrics.finalized.set(self._ledger.finalized())
        watch(self._store, self._ledger, self._p.signer, self._p.start_block)
        for service in self._store.services():  # before the cases, which take minutes: they have a day
            self._serve(service, head)
        for row in self._store.cases():
            self._work(row, head)
        given = [service.step for service in self._store.services()]
        for stage in LIVE_SERVICES:
            self.metrics.services.labels(stage).set(given.count(stage))
        for step in CaseStep:
            self.metrics.cases.labels(step).set(self._store.counts().get(step, 0))
        self._last_step, self._failure = time.time(), None

    def _work(self, row: CaseRow, head: Head) -> None:
        """Moves one case until it has to wait. What it waits for is in its note."""
        while True:
            before = (row.step, row.evidence)
            try:
                self._one(row, head)
            except RpcUnavailable:
                raise
            # OSError: a full disk, say, stops this case and no other
            except (Unable, JudgeError, WatermarkError, OSError) as exc:
                self._later(row.case_id)
                self._attention(row, exc)
                return
            except NotYet as exc:
                self._store.note(row.case_id, str(exc))
                return
            except ZhiyiError as exc:
                self._attention(row, exc)
                return
            found = self._store.case(row.case_id)
            if found is not None and found.step in (CaseStep.FINAL, CaseStep.ENDED):
                self._tidy(row.case_id)
            if found is None or (found.step, found.evidence) == before:
                return
            self._put_off.pop(row.case_id, None)
            row = found

    def _later(self, what: str) -> None:
        tries = self._put_off.get(what, (0, 0.0))[0]
        pause = min(RETRY_SECONDS * 2**tries, MAX_RETRY_SECONDS)
        self._put_off[what] = (min(tries + 1, 16), time.monotonic() + pause)

    def _attention(self, row: CaseRow, exc: Exception) -> None:
        self.metrics.errors.labels(type(exc).__name__).inc()
        log.error("case needs attention", case_id=row.case_id, step=row.step, reason=str(exc))
        self._store.note(row.case_id, str(exc) or type(exc).__name__)

    def _serve(self, row: ServiceRow, head: Head) -> None:
        """Moves what one accused asks for until it has to wait."""
        what, case = f"serve {row.case_id}", self._store.case(row.case_id)
        if case is None or time.monotonic() < self._put_off.get(what, (0, 0.0))[1]:
            return
        while True:
            before = row.step
            try:
                if row.step == ServiceStep.OVER:
                    self._drop_evidence(case)
                elif self._p.dry_run and row.step != ServiceStep.KEPT:
                    raise NotYet("dry run: nobody is served; set dry_run = false to take part")
                else:
                    self._p.server.work(row, case, self._folder(row.case_id), head)
            except RpcUnavailable:
                raise
            except NotYet as exc:
                if isinstance(exc, Unable):
                    self._later(what)
                self._store.note_service(row.case_id, str(exc))
                return
            except (ZhiyiError, OSError) as exc:
                self._later(what)
                self.metrics.errors.labels(type(exc).__name__).inc()
                log.error("serving needs attention", case_id=row.case_id, step=row.step, reason=str(exc))
                self._store.note_service(row.case_id, str(exc) or type(exc).__name__)
                return
            found = self._store.service(row.case_id)
            if found is None or found.step in (before, ServiceStep.DONE):
                return
            self._put_off.pop(what, None)
            row = found

    def _one(self, row: CaseRow, head: Head) -> None:
        file = CaseFile.model_validate_json(row.file)
        if row.posted_hash is not None and self._after_verdict(row, file, head):
            return
        if row.step in (CaseStep.SEEN, CaseStep.FETCHED, CaseStep.DETECTED, CaseStep.SIGNED) and (
            head.timestamp > file.post_by
        ):
            self._store.finish(row.case_id, CaseStep.ENDED, note="the time to post a verdict is over")
            return
        if time.monotonic() < self._put_off.get(row.case_id, (0, 0.0))[1]:
            return
        if row.step == CaseStep.SEEN:
            self._fetch(row, file, head)
        elif row.step == CaseStep.FETCHED:
            self._detect(row, file)
        elif row.step == CaseStep.DETECTED:
            self._sign(row, file, head)
        elif row.step == CaseStep.SIGNED:
            self._gather(row, file)
            verdict, epoch = self._ours(row), self._ledger.epoch(file.epoch)
            self._p.submitter.post(row, file, verdict, epoch, head)
        elif row.step == CaseStep.SUBMITTED:
            self._p.submitter.follow(row, file, self._ours(row), self._ledger.epoch(file.epoch))
        elif row.step == CaseStep.MINED:
            self._p.submitter.confirm(row)

    def _after_verdict(self, row: CaseRow, file: CaseFile, head: Head) -> bool:
        """Ends a case whose verdict is final on chain; True when nothing more is to be done.

        An operator that has not ruled yet still does, for its own record, but signs nothing any more.
        """
        unruled = row.step in (CaseStep.SEEN, CaseStep.FETCHED)
        if unruled and head.timestamp <= file.post_by:
            return False
        ours = self._store.ours(row.case_id)
        agrees = True
        if ours is not None:
            digest = self._ledger.verdict_digest(Verdict.model_validate_json(ours.verdict))
            agrees = row.posted_hash == "0x" + digest.hex()
        elif row.ruling is not None:
            agrees = row.posted_decision == _ruling_of(row.ruling).decision.name
        if self._store.finish(row.case_id, CaseStep.FINAL):
            log.info(
                "verdict final",
                case_id=row.case_id,
                decision=row.posted_decision,
                ruled=not unruled,
                agrees=agrees,
            )
            if not agrees:
                self.metrics.disagreements.inc()
                self._store.note(row.case_id, f"the verdict posted says {row.posted_decision}, ours differs")
        return True

    # -- steps

    def _fetch(self, row: CaseRow, file: CaseFile, head: Head) -> None:
        """SEEN → FETCHED: evidence first; base tensors once the share is open."""
        folder = self._folder(row.case_id)
        if row.evidence is None:
            try:
                evidence = self._p.fetcher.evidence(file, _fresh(folder / "evidence"))
                self._store.record(
                    row.case_id, CaseStep.SEEN, evidence=EvidenceStatus.READY, subject=evidence.root
                )
            except BadEvidence as exc:
                log.warning("evidence is broken", case_id=row.case_id, reason=str(exc))
                self._without_evidence(row, EvidenceStatus.BROKEN, str(exc))
            except NotSealedToUs as exc:
                self._blame_sender(file, exc)
                log.warning("evidence is not sealed to us", case_id=row.case_id, reason=str(exc))
                self._without_evidence(row, EvidenceStatus.BROKEN, str(exc))
            except Unable:
                raise
            except NotYet as exc:
                if not _over(file, head, EVIDENCE_PATIENCE):
                    raise
                self._without_evidence(row, EvidenceStatus.MISSING, str(exc))
            return
        if row.share is None:
            raise NotYet("the fingerprinter has not opened a share in a finalized block yet")
        share = OpenedShare.model_validate_json(row.share)
        try:
            base = self._base(file, share, folder)
            (folder / "spec.json").write_text(base.spec.to_json(), encoding="utf-8")
            status, key, note = BaseStatus.READY, base.committee_key, None
        except BadBase as exc:
            log.warning("base tensors are broken", case_id=row.case_id, reason=str(exc))
            status, key, note = BaseStatus.BROKEN, None, str(exc)
        except NotSealedToUs as exc:
            self._blame_sender(file, exc)
            log.warning("base tensors are not sealed to us", case_id=row.case_id, reason=str(exc))
            status, key, note = BaseStatus.BROKEN, None, str(exc)
        except Unable:
            raise
        except NotYet as exc:
            if not _over(file, head, BASE_PATIENCE):
                raise
            status, key, note = BaseStatus.MISSING, None, str(exc)
        self._store.advance(
            row.case_id, CaseStep.SEEN, CaseStep.FETCHED, base=status, committee_key=key, note=note
        )

    def _blame_sender(self, file: CaseFile, exc: NotSealedToUs) -> None:
        """Returns when the sender had our key and did not use it.

        A reporter who seals to nobody must not get away with a lapse, nor be blamed for our change of keys.

        Raises:
            Unable: our key is not the one registered, or became it only a short time before the case.
        """
        registered = self._ledger.encryption_key(self._ledger.epoch(file.epoch), self._p.signer)
        if registered.key != exc.key:
            raise Unable(
                f"{exc}; our key is 0x{exc.key.hex()}, registered is 0x{registered.key.hex()}: we abstain, put "
                "the registered key's file into the settings"
            )
        if registered.since + KEY_CHANGE_SECONDS > file.opened_at:
            raise Unable(f"{exc}; our key was registered too short a time before the case: we abstain")

    def _without_evidence(self, row: CaseRow, status: EvidenceStatus, note: str) -> None:
        self._store.advance(
            row.case_id,
            CaseStep.SEEN,
            CaseStep.FETCHED,
            evidence=status,
            base=BaseStatus.MISSING,
            subject=bytes(32),
            note=note,
        )

    def _base(self, file: CaseFile, share: OpenedShare, folder: Path) -> BaseTensors:
        """The base tensors of the version that they are of. Raises as `Fetcher.base`."""
        *others, last = self._ledger.models_of(file)
        for model in others:
            try:
                return self._p.fetcher.base(model, share, _fresh(folder / "base"))
            except BadBase as exc:
                log.info("base tensors are of another version", model_id=file.model_id, reason=str(exc))
        return self._p.fetcher.base(last, share, _fresh(folder / "base"))

    def _detector_of(self, file: CaseFile, used: str | None) -> bytes:
        """The registered detector: the one that was used (hex), else that of the likeliest version."""
        hashes = [model.record.detector_hash for model in self._ledger.models_of(file)]
        return next((known for known in hashes if known.hex() == used), hashes[0])

    def _detect(self, row: CaseRow, file: CaseFile) -> None:
        """FETCHED → DETECTED: measures, rules, and writes both down before anything is signed."""
        share = OpenedShare.model_validate_json(row.share) if row.share else None
        evidence, base = EvidenceStatus(row.evidence or ""), BaseStatus(row.base or "")
        detection: Detection | None = None
        digest, note = NO_RESULT, row.note
        folder = self._folder(row.case_id)
        started = time.monotonic()
        if evidence is EvidenceStatus.READY and base is BaseStatus.READY and share is not None:
            if row.subject is None or row.committee_key is None:
                raise JudgeError("the database lost what the fetch step left; restore it from the backup")
            job = ConfirmJob(
                suspect=folder / "evidence" / "object",
                base=folder / "base",
                spec=(folder / "spec.json").read_text(encoding="utf-8"),
                share_index=share.index,
                share_seed=share.seed,
                subject=row.subject,
                committee_key=row.committee_key,
            )
            try:
                with self.metrics.detect.time():
                    detection, digest = self._p.detector.confirm(job)
            except BadEvidence as exc:
                evidence, note = EvidenceStatus.BROKEN, str(exc)
        facts = CaseFacts(
            kind=file.kind,
            evidence=evidence,
            base=base,
            share_index=share.index if share else None,
            detector_hash=self._detector_of(file, detection.spec_hash if detection else None),
            license_id=file.license_id,
        )
        ruling = decide(facts, detection)
        self._write_result(folder, row.case_id, file, ruling, detection, digest, time.monotonic() - started)
        self._store.advance(
            row.case_id,
            CaseStep.FETCHED,
            CaseStep.DETECTED,
            evidence=evidence,
            detection=detection.to_json() if detection else None,
            digest=digest,
            ruling=_ruling_json(ruling),
            note=note,
        )
        log.info("ruled", case_id=row.case_id, decision=ruling.decision.name, bucket=ruling.bucket)

    def _sign(self, row: CaseRow, file: CaseFile, head: Head) -> None:
        """DETECTED → SIGNED: one signature a case, recorded before anybody can ask for it."""
        if self._p.dry_run:
            raise NotYet(
                "dry run: the ruling is recorded, nothing is signed; set dry_run = false to take part"
            )
        used = json.loads(row.detection)["spec_hash"] if row.detection else None
        ruling = _ruling_of(row.ruling)
        case_id = bytes.fromhex(row.case_id[2:])
        verdict = Verdict(
            case_id=case_id,
            license_id=file.license_id,
            kind=file.kind,
            decision=ruling.decision,
            evidence_hash=file.evidence_hash,
            subject=row.subject or bytes(32),
            detector_hash=self._detector_of(file, used),
            share_index=ruling.share_index,
            samples=ruling.samples,
            bucket=ruling.bucket,
            epoch=file.epoch,
            deadline=file.post_by + DEADLINE_SLACK,
        )
        signature = self._ledger.sign_verdict(verdict)
        epoch = self._ledger.epoch(file.epoch)
        self._store.sign(
            row.case_id,
            self._p.signer,
            verdict.model_dump_json(),
            signature,
            result_tag(row.digest or NO_RESULT, case_id, self._p.signer),
            turn_at(case_id, epoch, self._p.signer, head.timestamp, self._p.turn_delay),
        )
        log.info("signed", case_id=row.case_id, decision=verdict.decision.name)

    def _gather(self, row: CaseRow, file: CaseFile) -> None:
        """Asks the peers whose attestation is not known yet; what does not hold is kept as a lie and not
        counted.
        """
        epoch = self._ledger.epoch(file.epoch)
        known = {a.signer for a in self._store.attestations(row.case_id)}
        missing = [signer for signer in epoch.signers if signer not in known]
        if len(known) >= epoch.threshold or not missing:
            return
        ours, urls = self._ours(row), self._ledger.peer_urls(epoch)
        asked = [signer for signer in missing if signer in urls]
        if not asked:
            return
        for signer, answer in self._peers.ask(
            self.http, {signer: urls[signer] for signer in asked}, ours.case_id
        ):
            self._weigh(row, epoch, ours, signer, answer)

    def _weigh(
        self, row: CaseRow, epoch: Epoch, ours: Verdict, signer: str, answer: bytes | NotYet | LyingPeer
    ) -> None:
        """Counts one peer's answer, or keeps it as a lie."""
        body = b""
        try:
            if isinstance(answer, Exception):
                raise answer
            body = answer
            given = Attestation.from_wire(body)
            check_peer(
                given,
                expected_signer=signer,
                ours=ours,
                seats=epoch.signers,
                result_digest=row.digest or NO_RESULT,
                digest_of=self._ledger.verdict_digest,
            )
        except NotYet as exc:
            log.debug("peer has nothing yet", case_id=row.case_id, peer=signer, reason=str(exc))
            return
        except LyingPeer as exc:
            if self._store.add_lie(row.case_id, signer, str(exc), body.decode("utf-8", "replace")):
                self.metrics.lies.inc()
                log.error("peer is not counted", case_id=row.case_id, peer=signer, reason=str(exc))
            return
        self._store.add_peer(row.case_id, signer, given.verdict.model_dump_json(), given.signature, given.tag)
        log.info("peer agrees", case_id=row.case_id, peer=signer)

    # -- files

    def _ours(self, row: CaseRow) -> Verdict:
        ours = self._store.ours(row.case_id)
        if ours is None:
            raise JudgeError(
                f"case {row.case_id} is {row.step} but carries no signature of ours; restore the database"
            )
        return Verdict.model_validate_json(ours.verdict)

    def _folder(self, case_id: str) -> Path:
        folder = self._store.folder / "cases" / case_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def _tidy(self, case_id: str) -> None:
        """What was judged leaves this disk when the case ends; it stays sealed on IPFS, and result.json stays here.

        While the accused may ask for it the evidence stays: its reporter may have it vanish from IPFS.
        """
        service = self._store.service(case_id)
        kept = service is not None and service.step not in (ServiceStep.OVER, ServiceStep.DONE)
        for name in ("base",) if kept else ("evidence", "base"):
            shutil.rmtree(self._folder(case_id) / name, ignore_errors=True)

    def _drop_evidence(self, case: CaseRow) -> None:
        """OVER → DONE. A case that is still worked on drops it by itself at its end."""
        folder = self._folder(case.case_id)
        (folder / "served.sealed").unlink(missing_ok=True)
        if case.step in (CaseStep.FINAL, CaseStep.ENDED):
            shutil.rmtree(folder / "evidence", ignore_errors=True)
        self._store.advance_service(case.case_id, [ServiceStep.OVER], ServiceStep.DONE)

    def _write_result(
        self,
        folder: Path,
        case_id: str,
        file: CaseFile,
        ruling: Ruling,
        detection: Detection | None,
        digest: bytes,
        seconds: float,
    ) -> None:
        """The operator's own record. T and p stay here: 2,000 published T would give a key's signs away."""
        result = {
            "case_id": case_id,
            "license_id": str(file.license_id),
            "signer": self._p.signer,
            "pid": os.getpid(),
            "decision": ruling.decision.name,
            "bucket": ruling.bucket,
            "samples": ruling.samples,
            "share_index": ruling.share_index,
            "why": ruling.why,
            "digest": "0x" + digest.hex(),
            "detection": json.loads(detection.to_json()) if detection else None,
            "seconds": round(seconds, 3),
        }
        path = folder / "result.json"
        fresh = path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as out:
            json.dump(result, out, indent=2, sort_keys=True)
            out.flush()
            os.fsync(out.fileno())
        os.replace(fresh, path)


def _fresh(folder: Path) -> Path:
    """An absent folder: what an interrupted try left is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _over(file: CaseFile, head: Head, patience: tuple[int, int]) -> bool:
    window = file.post_by - file.opened_at
    return head.timestamp >= file.opened_at + window * patience[0] // patience[1]


def _ruling_json(ruling: Ruling) -> str:
    return json.dumps(
        {
            "decision": int(ruling.decision),
            "bucket": ruling.bucket,
            "share_index": ruling.share_index,
            "samples": ruling.samples,
            "why": ruling.why,
        }
    )


def _ruling_of(text: str | None) -> Ruling:
    if text is None:
        raise JudgeError("the database lost the ruling of a detected case; restore it from the backup")
    fields = json.loads(text)
    return Ruling(
        Decision(fields["decision"]),
        fields["bucket"],
        fields["share_index"],
        fields["samples"],
        fields["why"],
    )
