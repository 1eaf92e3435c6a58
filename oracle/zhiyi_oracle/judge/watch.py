"""Reading what the court says, from finalized blocks only.

Promises: events come in the chain's order, each at least once; what was read is stored before the cursor
moves, so a crash reads a block again and changes nothing. Inputs are decoded events of our own deployment.
"""

from __future__ import annotations

from typing import Final

from zhiyi.types import CaseFile, Decision, Kind
from zhiyi_oracle.judge.ledger import (
    CaseEnded,
    CaseSeen,
    Ledger,
    Observation,
    ServiceAsked,
    ServiceDone,
    ShareSeen,
)
from zhiyi_oracle.judge.store import LIVE_SERVICES, CaseStep, CaseStore, ServiceStep
from zhiyi_oracle.logs import get_logger

CURSOR: Final = "court"
MAX_BLOCKS: Final = 2_000  # read at once

log = get_logger(__name__)


def watch(store: CaseStore, ledger: Ledger, signer: str, start_block: int) -> int:
    """Reads every finalized block since the last one read; returns how many."""
    last = ledger.finalized()
    first = max(start_block, (store.cursor(CURSOR) or -1) + 1)
    read = 0
    while first <= last:
        until = min(last, first + MAX_BLOCKS - 1)
        for seen in ledger.observations(first, until):
            _note(store, ledger, signer, seen)
        store.set_cursor(CURSOR, until)
        read += until - first + 1
        first = until + 1
    return read


def _note(store: CaseStore, ledger: Ledger, signer: str, seen: Observation) -> None:
    if isinstance(seen, CaseSeen):
        step, note = CaseStep.SEEN, ""
        if seen.file.kind is not Kind.LEAK:
            step, note = CaseStep.ENDED, f"kind {seen.file.kind.name} is not decided by marks in weights"
        elif signer not in ledger.epoch(seen.file.epoch).signers:
            step, note = CaseStep.ENDED, f"{signer} has no seat in epoch {seen.file.epoch}"
        case_id = "0x" + seen.case_id.hex()
        if store.add_case(case_id, seen.file.model_dump_json(), seen.block, step, note):
            log.info("case seen", case_id=case_id, kind=seen.file.kind.name, block=seen.block, step=step)
    elif isinstance(seen, ShareSeen):
        store.set_share("0x" + seen.share.case_id.hex(), seen.share.model_dump_json())
    elif isinstance(seen, CaseEnded):
        case_id = "0x" + seen.case_id.hex()
        store.advance_service(case_id, LIVE_SERVICES, ServiceStep.OVER)
        row = store.case(case_id)
        if row is None or row.posted_hash is not None:
            return
        if store.finish(case_id, CaseStep.ENDED, note=f"the case ended {seen.state.name} without a verdict"):
            log.info("case ended", case_id=case_id, state=seen.state.name)
    elif isinstance(seen, ServiceAsked):
        case_id = "0x" + seen.case_id.hex()
        if not _seated(store, ledger, signer, case_id):
            return
        asked = {"key": seen.key, "until": seen.serve_by}
        if store.advance_service(
            case_id, [ServiceStep.KEPT], ServiceStep.ASKED, **asked
        ) or store.add_service(case_id, ServiceStep.ASKED, seen.serve_by, seen.key):
            log.info("the accused asks for the evidence", case_id=case_id, serve_by=seen.serve_by)
    elif isinstance(seen, ServiceDone):
        case_id = "0x" + seen.case_id.hex()
        if store.advance_service(case_id, LIVE_SERVICES, ServiceStep.OVER):
            log.info("the accused is served", case_id=case_id)
    else:
        case_id, verdict = "0x" + seen.case_id.hex(), seen.posted.verdict
        digest = "0x" + ledger.verdict_digest(verdict).hex()
        store.set_posted(case_id, digest, verdict.decision.name, seen.block)
        if verdict.decision is Decision.GUILTY and _seated(store, ledger, signer, case_id):
            store.add_service(case_id, ServiceStep.KEPT, seen.posted.challenge_until)


def _seated(store: CaseStore, ledger: Ledger, signer: str, case_id: str) -> bool:
    row = store.case(case_id)
    return row is not None and signer in ledger.epoch(CaseFile.model_validate_json(row.file).epoch).signers
