"""Reading what the court says, from finalized blocks only.

Promises: events come in the chain's order, each at least once; what was read is stored before the cursor
moves, so a crash reads a block again and changes nothing. Inputs are decoded events of our own deployment.
"""

from __future__ import annotations

from typing import Final

import structlog

from zhiyi.types import Kind, Verdict
from zhiyi_oracle.judge.ledger import CaseEnded, CaseSeen, Ledger, Observation, ShareSeen, VerdictSeen
from zhiyi_oracle.judge.store import CaseStep, CaseStore

CURSOR: Final = "court"
MAX_BLOCKS: Final = 2_000  # read at once

log = structlog.get_logger()


def watch(store: CaseStore, ledger: Ledger, signer: str, start_block: int) -> int:
    """Reads every finalized block since the last one read; returns how many."""
    last = ledger.finalized().number
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
        if store.finish(case_id, CaseStep.ENDED, note=f"the case ended {seen.state.name} without a verdict"):
            log.info("case ended", case_id=case_id, state=seen.state.name)
    else:
        _note_verdict(
            store, ledger, "0x" + seen.case_id.hex(), ledger.verdict_digest(seen.posted.verdict), seen
        )


def _note_verdict(store: CaseStore, ledger: Ledger, case_id: str, digest: bytes, seen: VerdictSeen) -> None:
    ours = store.ours(case_id)
    verdict = seen.posted.verdict
    if store.finish(case_id, CaseStep.FINAL, posted_hash="0x" + digest.hex(), posted_block=seen.block):
        agrees = ours is None or ledger.verdict_digest(Verdict.model_validate_json(ours.verdict)) == digest
        log.info("verdict final", case_id=case_id, decision=verdict.decision.name, agrees_with_ours=agrees)
        if not agrees:
            store.note(case_id, f"the verdict posted says {verdict.decision.name}, ours differs")
