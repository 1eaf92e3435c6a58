"""Reading what the court says, from finalized blocks only.

Promises: events come in the chain's order, each at least once; what was read is stored before the cursor
moves, so a crash reads a block again and changes nothing. Inputs are decoded events of our own deployment.
"""

from __future__ import annotations

from typing import Final

from zhiyi.types import Kind
from zhiyi_oracle.judge.ledger import CaseEnded, CaseSeen, Ledger, Observation, ShareSeen
from zhiyi_oracle.judge.store import CaseStep, CaseStore
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
        row = store.case(case_id)
        if row is None or row.posted_hash is not None:
            return
        if store.finish(case_id, CaseStep.ENDED, note=f"the case ended {seen.state.name} without a verdict"):
            log.info("case ended", case_id=case_id, state=seen.state.name)
    else:
        digest = "0x" + ledger.verdict_digest(seen.posted.verdict).hex()
        store.set_posted("0x" + seen.case_id.hex(), digest, seen.posted.verdict.decision.name, seen.block)
