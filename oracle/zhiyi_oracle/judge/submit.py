"""Posting a verdict that enough operators signed: in turn, once, whoever else posts.

Promises: may be repeated; a transaction is in the outbox before it is sent; at most one of ours is in flight; a verdict
posted by somebody else ends the step as well as our own does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from zhiyi.errors import TxReverted
from zhiyi.types import CaseFile, CaseState, Epoch, Verdict, keccak
from zhiyi_oracle.errors import FeeCapReached, NotYet
from zhiyi_oracle.judge.config import FeesSection
from zhiyi_oracle.judge.ledger import Fee, Head, Ledger, Mined, Poster, SignedTx
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


@dataclass(frozen=True)
class Errand:
    """One thing that a transaction of ours is to do, once."""

    what: str  # for people
    case_id: str
    key: str  # of the outbox
    build: Callable[[Fee, int | None], SignedTx]  # raises TxReverted when it would fail
    record: Callable[[OutboxRow], bool]  # writes it down before it is sent
    settled: Callable[[], bool]  # whether there is nothing left to do, whoever did it


class Carrier:
    """Carries one transaction at a time to a block."""

    def __init__(self, store: CaseStore, poster: Poster, fees: FeesSection) -> None:
        self._store, self._poster, self._fees = store, poster, fees

    def start(self, errand: Errand) -> None:
        """Sends the first transaction, unless the errand is settled by then.

        Raises:
            NotYet: another transaction is in flight.
            TxReverted: the court would refuse.
        """
        if self._store.in_flight():
            raise NotYet("another transaction is in flight")
        fee = self._capped(self._poster.suggest_fee())
        try:
            tx = errand.build(fee, None)
        except TxReverted:
            if errand.settled():
                return
            raise
        self._send(errand, tx)

    def follow(self, errand: Errand) -> tuple[OutboxRow, Mined] | None:
        """The transaction that succeeded, None where the errand is settled without; sends again, with a higher
        fee after a while.

        Raises:
            NotYet: not mined yet.
            FeeCapReached: not mined at the highest fee allowed.
        """
        sent = self._store.outbox(errand.key)
        for past in sent:
            mined = self._poster.mined(past.tx_hash)
            if mined is None:
                continue
            if mined.succeeded:
                return past, mined
            if errand.settled():
                return None
            failed = len({p.nonce for p in sent})
            if failed < MAX_FAILED_POSTS:
                # Only the transaction was wrong. A fresh nonce makes a fresh one.
                self._send(errand, errand.build(Fee(past.fee, past.tip), None))
            raise NotYet(f"{errand.what} {past.tx_hash} failed on chain and is still to do; try {failed}")
        if errand.settled():
            return None
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
                self._send(errand, errand.build(self._capped(fee), last.nonce))
        raise NotYet(f"{last.tx_hash} is not mined yet")

    @property
    def _cap(self) -> int:
        return int(self._fees.max_fee_gwei * GWEI)

    def _capped(self, fee: Fee) -> Fee:
        return Fee(min(fee.most, self._cap), min(fee.tip, self._cap))

    def _send(self, errand: Errand, tx: SignedTx) -> None:
        errand.record(
            OutboxRow(
                idempotency_key=errand.key,
                case_id=errand.case_id,
                nonce=tx.nonce,
                fee=tx.fee.most,
                tip=tx.fee.tip,
                tx_hash=tx.tx_hash,
                raw=tx.raw,
                sent_at=None,
            )
        )
        self._poster.send(tx.raw)
        self._store.sent(tx.tx_hash)
        log.info(
            f"{errand.what} sent",
            case_id=errand.case_id,
            tx_hash=tx.tx_hash,
            nonce=tx.nonce,
            fee=tx.fee.most,
        )


class Submitter:
    """Carries a signed case to a mined verdict."""

    def __init__(
        self, *, store: CaseStore, ledger: Ledger, poster: Poster, carrier: Carrier, signer: str
    ) -> None:
        self._store, self._ledger, self._poster, self._signer = store, ledger, poster, signer
        self._carrier = carrier

    def post(self, row: CaseRow, file: CaseFile, verdict: Verdict, epoch: Epoch, head: Head) -> None:
        """SIGNED → SUBMITTED, or MINED when somebody else was faster.

        Raises:
            NotYet: not our turn, too few signatures, or another transaction in flight.
            TxReverted: the court would refuse, and the case is still open.
        """
        if self._taken(row, CaseStep.SIGNED):
            return
        errand = self._errand(row, file, verdict, epoch, CaseStep.SIGNED)
        if errand.settled():
            return
        mine = {a.signer: a.signature for a in self._store.attestations(row.case_id)}
        pack(verdict.case_id, epoch, mine, self._signer)
        if head.timestamp < (row.turn_at or 0):
            raise NotYet(f"our turn to post comes in {(row.turn_at or 0) - head.timestamp} s")
        self._carrier.start(errand)

    def follow(self, row: CaseRow, file: CaseFile, verdict: Verdict, epoch: Epoch) -> None:
        """SUBMITTED → MINED; sends again, with a higher fee after a while.

        Raises:
            NotYet: not mined yet.
            FeeCapReached: not mined at the highest fee allowed.
        """
        errand = self._errand(row, file, verdict, epoch, CaseStep.SUBMITTED)
        if not self._store.outbox(errand.key):
            if not errand.settled():
                self._store.advance(row.case_id, CaseStep.SUBMITTED, CaseStep.SIGNED)
            return
        found = self._carrier.follow(errand)
        if found is None:
            return
        sent, mined = found
        self._store.advance(
            row.case_id, CaseStep.SUBMITTED, CaseStep.MINED, posted_block=mined.block, note=sent.tx_hash
        )
        log.info("verdict mined", case_id=row.case_id, tx_hash=sent.tx_hash, block=mined.block)

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

    def _errand(self, row: CaseRow, file: CaseFile, verdict: Verdict, epoch: Epoch, step: CaseStep) -> Errand:
        def build(fee: Fee, nonce: int | None) -> SignedTx:
            mine = {a.signer: a.signature for a in self._store.attestations(row.case_id)}
            bitmap, signatures = pack(verdict.case_id, epoch, mine, self._signer)
            return self._poster.build(file, verdict, epoch.signers, bitmap, signatures, fee=fee, nonce=nonce)

        return Errand(
            what="verdict",
            case_id=row.case_id,
            key=idempotency_key(verdict.case_id, verdict.detector_hash),
            build=build,
            record=lambda sent: self._store.put_outbox(sent, case_id=row.case_id),
            settled=lambda: self._taken(row, step),
        )

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


def signers_of(bitmap: int, seats: Sequence[str]) -> list[str]:
    """The signers whose bits are set."""
    return [signer for seat, signer in enumerate(seats) if bitmap >> seat & 1]


def _bumped(wei: int) -> int:
    return wei * BUMP[0] // BUMP[1] + 1
