"""Posting a verdict that enough operators signed: in turn, once, whoever else posts.

Promises: may be repeated; a transaction is in the outbox before it is sent; at most one posting of ours is in
flight; a verdict posted by somebody else ends the step as well as our own does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from zhiyi.errors import TxReverted
from zhiyi.types import CaseFile, CaseState, Epoch, Verdict, keccak
from zhiyi_oracle.errors import FeeCapReached, NotYet
from zhiyi_oracle.judge.config import FeesSection
from zhiyi_oracle.judge.ledger import Fee, Head, Ledger, Poster, SignedTx
from zhiyi_oracle.judge.store import CaseRow, CaseStep, CaseStore, OutboxRow
from zhiyi_oracle.logs import get_logger

GWEI: Final = 10**9
BUMP: Final = (1125, 1000)  # nodes accept a replacement that pays at least 10 % more
MAX_FAILED_POSTS: Final = 3  # mined and failed while the case is open; then somebody has to look

log = get_logger(__name__)


def turn_order(case_id: bytes, epoch: Epoch) -> list[str]:
    """The operators in the order in which they should post: by seat, starting where the case id says."""
    first = int.from_bytes(case_id, "big") % len(epoch.signers)
    return [*epoch.signers[first:], *epoch.signers[:first]]


def turn_at(case_id: bytes, epoch: Epoch, signer: str, now: int, delay: int) -> int:
    """Unix seconds from which `signer` may post: `delay` seconds after the one before."""
    return now + turn_order(case_id, epoch).index(signer) * delay


def pack(case_id: bytes, epoch: Epoch, signatures: Mapping[str, bytes], poster: str) -> tuple[int, bytes]:
    """Bitmap and signatures in seat order of exactly `threshold` signers: the poster, then those next in
    turn.

    Raises:
        NotYet: fewer than the threshold signed.
    """
    order = [poster, *(signer for signer in turn_order(case_id, epoch) if signer != poster)]
    chosen = [signer for signer in order if signer in signatures][: epoch.threshold]
    if len(chosen) < epoch.threshold:
        raise NotYet(f"{len(chosen)} of {epoch.threshold} signatures agree")
    seats = sorted(epoch.seat(signer) for signer in chosen)
    return sum(1 << seat for seat in seats), b"".join(signatures[epoch.signers[seat]] for seat in seats)


def idempotency_key(case_id: bytes, detector_hash: bytes) -> str:
    """One posting a case and detector."""
    return "0x" + keccak(case_id + b"verdict" + detector_hash).hex()


class Submitter:
    """Carries a signed case to a mined verdict."""

    def __init__(
        self, *, store: CaseStore, ledger: Ledger, poster: Poster, signer: str, fees: FeesSection
    ) -> None:
        self._store, self._ledger, self._poster, self._signer = store, ledger, poster, signer
        self._fees = fees

    def post(self, row: CaseRow, file: CaseFile, verdict: Verdict, epoch: Epoch, head: Head) -> None:
        """SIGNED → SUBMITTED, or MINED when somebody else was faster.

        Raises:
            NotYet: not our turn, too few signatures, or another posting in flight.
            TxReverted: the court would refuse, and the case is still open.
        """
        case_id = verdict.case_id
        if self._taken(row, CaseStep.SIGNED):
            return
        mine = {a.signer: a.signature for a in self._store.attestations(row.case_id)}
        bitmap, signatures = pack(case_id, epoch, mine, self._signer)
        if head.timestamp < (row.turn_at or 0):
            raise NotYet(f"our turn to post comes in {(row.turn_at or 0) - head.timestamp} s")
        if self._store.cases((CaseStep.SUBMITTED,)):
            raise NotYet("another posting is in flight")
        fee = self._capped(self._poster.suggest_fee())
        try:
            tx = self._poster.build(file, verdict, epoch.signers, bitmap, signatures, fee=fee, nonce=None)
        except TxReverted:
            if self._taken(row, CaseStep.SIGNED):
                return
            raise
        self._send(row, verdict, tx)

    def follow(self, row: CaseRow, file: CaseFile, verdict: Verdict, epoch: Epoch) -> None:
        """SUBMITTED → MINED; sends again, with a higher fee after a while.

        Raises:
            NotYet: not mined yet.
            FeeCapReached: not mined at the highest fee allowed.
        """
        sent = self._store.outbox(row.case_id)
        for past in sent:
            mined = self._poster.mined(past.tx_hash)
            if mined is None:
                continue
            if mined.succeeded:
                self._store.advance(
                    row.case_id,
                    CaseStep.SUBMITTED,
                    CaseStep.MINED,
                    posted_block=mined.block,
                    note=past.tx_hash,
                )
                log.info("verdict mined", case_id=row.case_id, tx_hash=past.tx_hash, block=mined.block)
                return
            if self._taken(row, CaseStep.SUBMITTED):
                return
            failed = len({p.nonce for p in sent})
            if failed < MAX_FAILED_POSTS:
                # The signatures stay; only the transaction was wrong. A fresh nonce makes a fresh one.
                self._repost(row, file, verdict, epoch, None, Fee(past.fee, past.tip))
            raise NotYet(f"posting {past.tx_hash} failed on chain while the case is open; try {failed}")
        if self._taken(row, CaseStep.SUBMITTED):
            return
        if not sent:
            self._store.advance(row.case_id, CaseStep.SUBMITTED, CaseStep.SIGNED)
            return
        last = sent[-1]
        if last.sent_at is None or time.time() - last.sent_at >= self._fees.bump_after_s:
            if last.sent_at is None:
                self._poster.send(last.raw)
                self._store.sent(last.tx_hash)
            elif last.fee >= self._cap:
                self._poster.send(last.raw)
                self._store.sent(last.tx_hash)
                raise FeeCapReached(
                    f"{last.tx_hash} is not mined at {last.fee} wei a gas, the cap; raise fees.max_fee_gwei"
                )
            else:
                wanted = self._poster.suggest_fee()
                fee = Fee(max(_bumped(last.fee), wanted.most), max(_bumped(last.tip), wanted.tip))
                fee = self._capped(fee)
                self._repost(row, file, verdict, epoch, last.nonce, fee)
        raise NotYet(f"{last.tx_hash} is not mined yet")

    def confirm(self, row: CaseRow) -> None:
        """MINED → SIGNED when a reorganisation took the posting away; the watch step moves MINED to FINAL.

        Raises:
            NotYet: posted, but not in a finalized block.
        """
        status = self._ledger.case_status(bytes.fromhex(row.case_id[2:]))
        if status.state is CaseState.OPEN:
            self._store.advance(row.case_id, CaseStep.MINED, CaseStep.SIGNED)
            log.warning("posting was reorganised away", case_id=row.case_id)
            return
        raise NotYet("the verdict is not in a finalized block yet")

    @property
    def _cap(self) -> int:
        return int(self._fees.max_fee_gwei * GWEI)

    def _capped(self, fee: Fee) -> Fee:
        return Fee(min(fee.most, self._cap), min(fee.tip, self._cap))

    def _taken(self, row: CaseRow, step: CaseStep) -> bool:
        """Moves on when the case is no longer open: somebody posted, or it ended."""
        status = self._ledger.case_status(bytes.fromhex(row.case_id[2:]))
        if status.state is CaseState.OPEN:
            return False
        if status.state is CaseState.NONE:
            raise NotYet("the node does not know the case; is it behind?")
        if status.state is CaseState.LAPSED:
            self._store.advance(row.case_id, step, CaseStep.ENDED, note=f"the case is {status.state.name}")
        else:
            self._store.advance(row.case_id, step, CaseStep.MINED, note=f"the case is {status.state.name}")
        log.info("case is no longer open", case_id=row.case_id, state=status.state.name)
        return True

    def _repost(
        self, row: CaseRow, file: CaseFile, verdict: Verdict, epoch: Epoch, nonce: int | None, fee: Fee
    ) -> None:
        mine = {a.signer: a.signature for a in self._store.attestations(row.case_id)}
        bitmap, signatures = pack(verdict.case_id, epoch, mine, self._signer)
        tx = self._poster.build(file, verdict, epoch.signers, bitmap, signatures, fee=fee, nonce=nonce)
        self._send(row, verdict, tx)

    def _send(self, row: CaseRow, verdict: Verdict, tx: SignedTx) -> None:
        self._store.put_outbox(
            OutboxRow(
                idempotency_key=idempotency_key(verdict.case_id, verdict.detector_hash),
                case_id=row.case_id,
                nonce=tx.nonce,
                fee=tx.fee.most,
                tip=tx.fee.tip,
                tx_hash=tx.tx_hash,
                raw=tx.raw,
                sent_at=None,
            ),
            case_id=row.case_id,
        )
        self._poster.send(tx.raw)
        self._store.sent(tx.tx_hash)
        log.info("verdict sent", case_id=row.case_id, tx_hash=tx.tx_hash, nonce=tx.nonce, fee=tx.fee.most)


def signers_of(bitmap: int, seats: Sequence[str]) -> list[str]:
    """The signers whose bits are set."""
    return [signer for seat, signer in enumerate(seats) if bitmap >> seat & 1]


def _bumped(wei: int) -> int:
    return wei * BUMP[0] // BUMP[1] + 1
