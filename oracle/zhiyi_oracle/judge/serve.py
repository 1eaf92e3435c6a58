"""Giving an accused what he is accused of: a guilty accused who asks is cleared when nobody serves him within a day.

Promises: may be repeated; only evidence that the case's hash fixed is sealed; what he is to get is written down before
the court hears of it, and stays the same; somebody else's serving ends the step as well as our own does. A key that
nothing can be sealed to, which the court can't tell from another, is answered with a notice that says so.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Protocol

from zhiyi import case_evidence
from zhiyi.cid import digest_from_cid
from zhiyi.delivery import ecies
from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi.types import CaseFile, CaseState, keccak
from zhiyi_oracle.errors import JudgeError, NotYet
from zhiyi_oracle.judge.fetch import Evidence
from zhiyi_oracle.judge.ledger import Head, Ledger, Poster
from zhiyi_oracle.judge.store import CaseRow, CaseStore, ServiceRow, ServiceStep
from zhiyi_oracle.judge.submit import Carrier, Errand, turn_order
from zhiyi_oracle.logs import get_logger

# The last operator in turn still has half of the time that was left when the request was seen.
TURNS_PART: Final = 2
LOOK_AGAIN_SECONDS: Final = 86_400  # whether a case has ended whose accused may still ask
# In any other state the accused cannot ask, nor be served.
_MAY_ASK: Final = (CaseState.POSTED, CaseState.SERVING, CaseState.CHALLENGED)

log = get_logger(__name__)


class Files(Protocol):
    """Where what an accused gets is put; see zhiyi.ipfs."""

    def add_file(self, path: Path) -> str:
        """Stores and pins; returns the CIDv0."""
        ...

    def add_bytes(self, data: bytes) -> str:
        """The same for bytes."""
        ...


class EvidenceFetcher(Protocol):
    """The part of fetch.py that is needed here."""

    def evidence(self, file: CaseFile, folder: Path) -> Evidence:
        """Raises NotYet, BadEvidence, NotSealedToUs."""
        ...


def idempotency_key(case_id: bytes) -> str:
    """One serving a case: nobody can ask twice."""
    return "0x" + keccak(case_id + b"serve").hex()


def turn_to_serve(index: int, seats: int, now: int, until: int, delay: int) -> int:
    """Court time from which the operator `index` in turn may serve: `delay` seconds after the one before, less where
    the time is short.
    """
    return now + index * min(delay, max(until - now, 0) // TURNS_PART // seats)


class Server:
    """Carries a request of an accused to a mined serving."""

    def __init__(
        self,
        *,
        store: CaseStore,
        ledger: Ledger,
        poster: Poster,
        carrier: Carrier,
        fetcher: EvidenceFetcher,
        files: Files,
        signer: str,
        turn_delay: int,
    ) -> None:
        """turn_delay: seconds between the operators' turns."""
        self._store, self._ledger, self._poster, self._carrier = store, ledger, poster, carrier
        self._fetcher, self._files, self._signer, self._delay = fetcher, files, signer, turn_delay

    def work(self, row: ServiceRow, case: CaseRow, folder: Path, head: Head) -> None:
        """One step further. `folder` is the case's.

        Raises:
            NotYet: not our turn, not mined, not final, or no evidence to be had now.
            NotSealedToUs, BadEvidence: somebody else has to serve.
            TxReverted: the court would refuse, and the accused still waits.
            FeeCapReached: not mined at the highest fee allowed.
        """
        file, step = CaseFile.model_validate_json(case.file), ServiceStep(row.step)
        if step is ServiceStep.KEPT:
            self._look(row, head)
        elif step is ServiceStep.MINED:
            self._confirm(row)
        elif step is ServiceStep.SENT:
            self._follow(row, file, head)
        elif step in (ServiceStep.ASKED, ServiceStep.SEALED):
            if self._late(row, head):
                return
            if self._state(row) is not CaseState.SERVING:
                raise NotYet("somebody served, not in a finalized block yet")
            if step is ServiceStep.ASKED:
                self._seal(row, file, folder, head)
            else:
                self._carrier.start(self._errand(row, file))

    def _look(self, row: ServiceRow, head: Head) -> None:
        """KEPT → OVER, when the case went on without his asking. An execution in one step is no event of the court."""
        if head.timestamp <= row.until:
            raise NotYet("the accused may ask for the evidence")
        if self._state(row) in _MAY_ASK:
            until = head.timestamp + LOOK_AGAIN_SECONDS
            self._store.advance_service(row.case_id, [ServiceStep.KEPT], ServiceStep.KEPT, until=until)
            return
        self._store.advance_service(row.case_id, [ServiceStep.KEPT], ServiceStep.OVER)

    def _seal(self, row: ServiceRow, file: CaseFile, folder: Path, head: Head) -> None:
        """ASKED → SEALED, in turn: one operator, as a rule, seals and stores what may be many gigabytes, not each."""
        if row.key is None:
            raise JudgeError("the database lost the key of the accused; restore it from the backup")
        turn = self._turn(row, file, head)
        if head.timestamp < turn:
            raise NotYet(f"our turn to serve comes in {turn - head.timestamp} s")
        case_id, sealed = bytes.fromhex(row.case_id[2:]), folder / "served.sealed"
        if ecies.is_usable(row.key):
            # Sealing takes time and is not the same twice: after a crash the file that is there, whole, is taken.
            if not sealed.exists():
                ecies.seal_folder(self._opened(file, folder / "evidence"), [row.key], sealed)
            cid = self._files.add_file(sealed)
        else:
            log.warning("nothing can be sealed to the key of the accused", case_id=row.case_id)
            cid = self._files.add_bytes(case_evidence.unusable_key_notice(case_id, row.key))
        digest = digest_from_cid(cid)
        self._store.advance_service(row.case_id, [ServiceStep.ASKED], ServiceStep.SEALED, digest=digest)
        sealed.unlink(missing_ok=True)
        log.info("evidence is sealed to the accused", case_id=row.case_id, cid=cid)

    def _turn(self, row: ServiceRow, file: CaseFile, head: Head) -> int:
        """Counted from when this operator saw the request; written down, so that a restart does not begin anew."""
        if row.turn_at is not None:
            return row.turn_at
        case_id, epoch = bytes.fromhex(row.case_id[2:]), self._ledger.epoch(file.epoch)
        index = turn_order(case_id, epoch).index(self._signer)
        turn = turn_to_serve(index, len(epoch.signers), head.timestamp, row.until, self._delay)
        self._store.advance_service(row.case_id, [ServiceStep.ASKED], ServiceStep.ASKED, turn_at=turn)
        return turn

    def _opened(self, file: CaseFile, folder: Path) -> Path:
        """The folder of the evidence, checked: what lies there, or it is fetched again."""
        try:
            case_evidence.check_opened(folder, reporter=file.reporter, expected=file.evidence_hash)
        except (BadInput, IntegrityError, NotFound):
            shutil.rmtree(folder, ignore_errors=True)
            self._fetcher.evidence(file, folder)
        return folder

    def _follow(self, row: ServiceRow, file: CaseFile, head: Head) -> None:
        """SENT → MINED; back to SEALED when somebody else was faster, which may be reorganised away."""
        errand = self._errand(row, file)
        before, sent = [ServiceStep.SENT], self._store.outbox(errand.key)
        mined = [self._poster.mined(past.tx_hash) for past in sent]
        if not any(m is not None and m.succeeded for m in mined) and self._late(row, head):
            return
        found = self._carrier.follow(errand) if sent else None
        if found is None:
            self._store.advance_service(row.case_id, before, ServiceStep.SEALED)
            return
        self._store.advance_service(row.case_id, before, ServiceStep.MINED, note=found[0].tx_hash)
        log.info("served", case_id=row.case_id, tx_hash=found[0].tx_hash, block=found[1].block)

    def _confirm(self, row: ServiceRow) -> None:
        """MINED → SEALED when a reorganisation took it away; the watch step moves MINED to OVER."""
        if self._state(row) is CaseState.SERVING:
            self._store.advance_service(row.case_id, [ServiceStep.MINED], ServiceStep.SEALED)
            log.warning("serving was reorganised away", case_id=row.case_id)
            return
        raise NotYet("the serving is not in a finalized block yet")

    def _late(self, row: ServiceRow, head: Head) -> bool:
        if head.timestamp <= row.until:
            return False
        note = "the time to serve is over"
        before = [ServiceStep.ASKED, ServiceStep.SEALED, ServiceStep.SENT]
        if self._store.advance_service(row.case_id, before, ServiceStep.OVER, note=note):
            log.error("the accused was not served by us in time", case_id=row.case_id)
        return True

    def _state(self, row: ServiceRow) -> CaseState:
        return self._ledger.case_status(bytes.fromhex(row.case_id[2:])).state

    def _errand(self, row: ServiceRow, file: CaseFile) -> Errand:
        digest = row.digest
        if digest is None:
            raise JudgeError("the database lost what the accused is to get; restore it from the backup")
        seat = self._ledger.epoch(file.epoch).seat(self._signer)
        return Errand(
            what="serving",
            case_id=row.case_id,
            key=idempotency_key(bytes.fromhex(row.case_id[2:])),
            build=lambda fee, nonce: self._poster.build_serving(file, seat, digest, fee=fee, nonce=nonce),
            record=lambda sent: self._store.put_serving(sent, case_id=row.case_id),
            settled=lambda: self._state(row) is not CaseState.SERVING,
        )
