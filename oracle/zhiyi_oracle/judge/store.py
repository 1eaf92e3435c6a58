"""An operator's memory: one row a case, one signed attestation a case, an outbox of transactions. SQLite.

Promises: every change of state is one transaction that names the state it leaves (compare and swap), so a
crash between any two steps loses nothing and a step that runs twice changes nothing the second time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    Update,
    create_engine,
    event,
    func,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from zhiyi_oracle.errors import JudgeError
from zhiyi_oracle.secret_files import private_folder

MAX_NOTE: Final = 2_000  # characters of a stored explanation


class CaseStep(StrEnum):
    """How far this operator is with a case."""

    SEEN = "seen"  # opened, finalized
    FETCHED = "fetched"  # evidence (and base tensors) checked, or known to be unusable
    DETECTED = "detected"  # result and ruling recorded
    SIGNED = "signed"  # attestation recorded; from here the ruling never changes
    SUBMITTED = "submitted"  # a transaction of ours is in the outbox
    MINED = "mined"  # the verdict is on chain, ours or a peer's
    FINAL = "final"  # ... in a finalized block
    ENDED = "ended"  # closed without a verdict, or not ours to judge


LIVE: Final = (
    CaseStep.SEEN,
    CaseStep.FETCHED,
    CaseStep.DETECTED,
    CaseStep.SIGNED,
    CaseStep.SUBMITTED,
    CaseStep.MINED,
)


class ServiceStep(StrEnum):
    """How far this operator is with giving an accused the evidence."""

    KEPT = "kept"  # a verdict of guilty stands: the accused may ask, so the evidence stays on this disk
    ASKED = "asked"  # he has asked, finalized
    SEALED = "sealed"  # what he is to get is on IPFS; from here its digest never changes
    SENT = "sent"  # a transaction of ours is in the outbox
    MINED = "mined"  # ... and in a block
    OVER = "over"  # served by anyone, too late, or the case ended; finalized
    DONE = "done"  # ... and the evidence has left this disk


LIVE_SERVICES: Final = tuple(step for step in ServiceStep if step is not ServiceStep.DONE)


class Base(DeclarativeBase):
    pass


class CursorRow(Base):
    """The last finalized block that was read whole."""

    __tablename__ = "cursor"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    block: Mapped[int] = mapped_column(BigInteger)


class CaseRow(Base):
    """One case. JSON texts hold values of zhiyi.types as written by pydantic."""

    __tablename__ = "cases"
    case_id: Mapped[str] = mapped_column(String(66), primary_key=True)
    step: Mapped[str] = mapped_column(String(12), index=True)
    file: Mapped[str] = mapped_column(Text)  # CaseFile
    seen_block: Mapped[int] = mapped_column(BigInteger)
    share: Mapped[str | None] = mapped_column(Text)  # OpenedShare
    evidence: Mapped[str | None] = mapped_column(String(12))  # EvidenceStatus
    base: Mapped[str | None] = mapped_column(String(12))  # BaseStatus
    subject: Mapped[bytes | None] = mapped_column(LargeBinary(32))  # canonical root of the object
    committee_key: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    detection: Mapped[str | None] = mapped_column(Text)  # canonical JSON; never leaves this folder
    digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    ruling: Mapped[str | None] = mapped_column(Text)  # Ruling
    turn_at: Mapped[int | None] = mapped_column(
        BigInteger
    )  # unix seconds of the chain from which we may post
    posted_hash: Mapped[str | None] = mapped_column(
        String(66)
    )  # digest of the verdict found on chain, finalized
    posted_decision: Mapped[str | None] = mapped_column(String(16))
    posted_block: Mapped[int | None] = mapped_column(BigInteger)  # of a finalized block
    note: Mapped[str | None] = mapped_column(Text)
    tries: Mapped[int] = mapped_column(default=0)
    changed_at: Mapped[float] = mapped_column(default=time.time)


class ServiceRow(Base):
    """An accused who may ask, or has asked, for the evidence of a case."""

    __tablename__ = "services"
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.case_id"), primary_key=True)
    step: Mapped[str] = mapped_column(String(12), index=True)
    # court time: while KEPT, when to look whether the case has ended; else the last second to serve
    until: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[bytes | None] = mapped_column(LargeBinary(32))  # X25519, of the accused
    digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))  # of the CIDv0 that he is to get
    turn_at: Mapped[int | None] = mapped_column(BigInteger)  # court time from which we may serve
    note: Mapped[str | None] = mapped_column(Text)


class AttestationRow(Base):
    """A signature over a verdict of a case: ours, and those of peers that we checked."""

    __tablename__ = "attestations"
    __table_args__ = (UniqueConstraint("case_id", "signer"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.case_id"), index=True)
    signer: Mapped[str] = mapped_column(String(42))
    ours: Mapped[bool]
    verdict: Mapped[str] = mapped_column(Text)  # JSON of zhiyi.types.Verdict
    signature: Mapped[bytes] = mapped_column(LargeBinary(65))
    tag: Mapped[bytes] = mapped_column(LargeBinary(32))


class LieRow(Base):
    """A peer's attestation that did not hold, kept as it came: two verdicts of one signer are an
    equivocation.
    """

    __tablename__ = "lies"
    __table_args__ = (UniqueConstraint("case_id", "signer", "reason"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.case_id"), index=True)
    signer: Mapped[str] = mapped_column(String(42))
    reason: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)


class OutboxRow(Base):
    """A signed transaction, written before it is sent. A replacement with a higher fee is a further row of
    the same nonce.
    """

    __tablename__ = "outbox"
    __table_args__ = (UniqueConstraint("idempotency_key", "nonce", "fee"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(String(66), index=True)
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.case_id"), index=True)
    nonce: Mapped[int] = mapped_column(BigInteger)
    fee: Mapped[int] = mapped_column(BigInteger)  # most, wei per gas
    tip: Mapped[int] = mapped_column(BigInteger)  # priority fee, wei per gas
    tx_hash: Mapped[str] = mapped_column(String(66), unique=True)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    sent_at: Mapped[float | None]


class CaseStore:
    """The database of one operator. Safe for one writer process and reading threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = private_folder(folder)
        self._engine = create_engine(f"sqlite:///{folder / 'judge.sqlite'}", connect_args={"timeout": 30})

        @event.listens_for(self._engine, "connect")
        def _pragmas(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")  # a signature given must survive a power cut
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.close()

        Base.metadata.create_all(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def cursor(self, name: str) -> int | None:
        """The last finalized block read, None before the first."""
        with self._session() as session:
            row = session.get(CursorRow, name)
            return row.block if row else None

    def set_cursor(self, name: str, block: int) -> None:
        """Moves forward only."""
        with self._session() as session:
            row = session.get(CursorRow, name)
            if row is None:
                session.add(CursorRow(name=name, block=block))
            else:
                row.block = max(row.block, block)

    def add_case(
        self, case_id: str, file: str, block: int, step: CaseStep = CaseStep.SEEN, note: str = ""
    ) -> bool:
        """False when the case is known already; then nothing changes."""
        try:
            with self._session() as session:
                session.add(
                    CaseRow(
                        case_id=case_id, step=step, file=file, seen_block=block, note=note[:MAX_NOTE] or None
                    )
                )
        except IntegrityError:
            return False
        return True

    def case(self, case_id: str) -> CaseRow | None:
        """A detached copy of the row."""
        with self._session() as session:
            return session.get(CaseRow, case_id)

    def cases(self, steps: Sequence[CaseStep] = LIVE) -> list[CaseRow]:
        """In the order in which they were seen."""
        with self._session() as session:
            query = (
                select(CaseRow).where(CaseRow.step.in_(steps)).order_by(CaseRow.seen_block, CaseRow.case_id)
            )
            return list(session.scalars(query))

    def counts(self) -> dict[str, int]:
        """Number of cases by step."""
        with self._session() as session:
            rows = session.execute(select(CaseRow.step, func.count()).group_by(CaseRow.step))
            return {str(step): int(count) for step, count in rows}

    def note(self, case_id: str, text: str) -> None:
        """Records a failed try without a change of step."""
        with self._session() as session:
            session.execute(
                update(CaseRow)
                .where(CaseRow.case_id == case_id)
                .values(note=text[:MAX_NOTE], tries=CaseRow.tries + 1, changed_at=time.time())
            )

    def record(self, case_id: str, step: CaseStep, **values: object) -> bool:
        """Adds what a part of a step left, without leaving the step; False when the case is elsewhere by now."""
        return self.advance(case_id, step, step, **values)

    def finish(self, case_id: str, after: CaseStep, **values: object) -> bool:
        """Moves a live case to FINAL or ENDED from wherever it is; False when it is there already."""
        with self._session() as session:
            result = session.execute(
                update(CaseRow)
                .where(CaseRow.case_id == case_id, CaseRow.step.in_(LIVE))
                .values(step=after, changed_at=time.time(), **values)
            )
            return bool(result.rowcount)  # type: ignore[attr-defined]  # CursorResult of a DML statement

    def set_posted(self, case_id: str, verdict_hash: str, decision: str, block: int) -> None:
        """The verdict found in a finalized block; the first one stays."""
        with self._session() as session:
            session.execute(
                update(CaseRow)
                .where(CaseRow.case_id == case_id, CaseRow.posted_hash.is_(None))
                .values(posted_hash=verdict_hash, posted_decision=decision, posted_block=block)
            )

    def set_share(self, case_id: str, share: str) -> None:
        """The share opened in this case; the first one finalized stays."""
        with self._session() as session:
            session.execute(
                update(CaseRow)
                .where(CaseRow.case_id == case_id, CaseRow.share.is_(None))
                .values(share=share, changed_at=time.time())
            )

    def advance(self, case_id: str, before: CaseStep, after: CaseStep, **values: object) -> bool:
        """Moves a case from one step to another together with what the step left; False when it is elsewhere
        by now.
        """
        with self._session() as session:
            result = session.execute(
                update(CaseRow)
                .where(CaseRow.case_id == case_id, CaseRow.step == before)
                .values(step=after, changed_at=time.time(), tries=0, **values)
            )
            return bool(result.rowcount)  # type: ignore[attr-defined]  # CursorResult of a DML statement

    def sign(
        self, case_id: str, signer: str, verdict: str, signature: bytes, tag: bytes, turn_at: int
    ) -> None:
        """Records our one attestation and moves the case to SIGNED in the same transaction.

        Raises:
            JudgeError: the case is not DETECTED, or a signature of ours exists: signing twice could be
            equivocation.
        """
        try:
            with self._session() as session:
                row = session.get(CaseRow, case_id)
                if row is None or row.step != CaseStep.DETECTED:
                    raise JudgeError(
                        f"case {case_id} is {row.step if row else 'unknown'}, only a detected one is signed"
                    )
                row.step = CaseStep.SIGNED
                row.turn_at = turn_at
                row.changed_at = time.time()
                session.add(
                    AttestationRow(
                        case_id=case_id,
                        signer=signer,
                        ours=True,
                        verdict=verdict,
                        signature=signature,
                        tag=tag,
                    )
                )
        except IntegrityError as exc:
            raise JudgeError(
                f"case {case_id} carries a signature of {signer} already; it is never signed again"
            ) from exc

    def ours(self, case_id: str) -> AttestationRow | None:
        """Our attestation, once signed."""
        with self._session() as session:
            return session.scalar(
                select(AttestationRow).where(AttestationRow.case_id == case_id, AttestationRow.ours.is_(True))
            )

    def attestations(self, case_id: str) -> list[AttestationRow]:
        """Ours and the peers' that count."""
        with self._session() as session:
            return list(session.scalars(select(AttestationRow).where(AttestationRow.case_id == case_id)))

    def add_peer(self, case_id: str, signer: str, verdict: str, signature: bytes, tag: bytes) -> bool:
        """Records a peer's attestation that holds; False when that signer's is known."""
        try:
            with self._session() as session:
                session.add(
                    AttestationRow(
                        case_id=case_id,
                        signer=signer,
                        ours=False,
                        verdict=verdict,
                        signature=signature,
                        tag=tag,
                    )
                )
        except IntegrityError:
            return False
        return True

    def add_lie(self, case_id: str, signer: str, reason: str, body: str) -> bool:
        """Records a peer's attestation that does not hold; False when the same reason is on record."""
        try:
            with self._session() as session:
                session.add(LieRow(case_id=case_id, signer=signer, reason=reason[:MAX_NOTE], body=body))
        except IntegrityError:
            return False
        return True

    def lies(self, case_id: str) -> list[LieRow]:
        with self._session() as session:
            return list(session.scalars(select(LieRow).where(LieRow.case_id == case_id)))

    def put_outbox(self, row: OutboxRow, *, case_id: str) -> bool:
        """Writes a signed posting before it is sent and marks the case SUBMITTED; False when it is there
        already.
        """
        mark = (
            update(CaseRow)
            .where(CaseRow.case_id == case_id, CaseRow.step.in_((CaseStep.SIGNED, CaseStep.SUBMITTED)))
            .values(step=CaseStep.SUBMITTED, changed_at=time.time())
        )
        return self._put(row, mark)

    def put_serving(self, row: OutboxRow, *, case_id: str) -> bool:
        """The same for a serving: marks the service SENT."""
        mark = (
            update(ServiceRow)
            .where(ServiceRow.case_id == case_id, ServiceRow.step.in_((ServiceStep.SEALED, ServiceStep.SENT)))
            .values(step=ServiceStep.SENT)
        )
        return self._put(row, mark)

    def _put(self, row: OutboxRow, mark: Update) -> bool:
        try:
            with self._session() as session:
                session.add(row)
                session.execute(mark)
        except IntegrityError:
            return False
        return True

    def sent(self, tx_hash: str) -> None:
        """Notes when a transaction was last handed to a node."""
        with self._session() as session:
            session.execute(update(OutboxRow).where(OutboxRow.tx_hash == tx_hash).values(sent_at=time.time()))

    def outbox(self, key: str) -> list[OutboxRow]:
        """All transactions under an idempotency key, cheapest fee first."""
        with self._session() as session:
            query = select(OutboxRow).where(OutboxRow.idempotency_key == key).order_by(OutboxRow.fee)
            return list(session.scalars(query))

    def in_flight(self) -> bool:
        """Whether a transaction of ours may be waiting to be mined."""
        sending = ServiceRow.step == ServiceStep.SENT
        with self._session() as session:
            return bool(session.scalar(select(func.count()).where(sending))) or bool(
                session.scalar(select(func.count()).where(CaseRow.step == CaseStep.SUBMITTED))
            )

    # -- services

    def add_service(self, case_id: str, step: ServiceStep, until: int, key: bytes | None = None) -> bool:
        """False when the case has one already; then nothing changes."""
        try:
            with self._session() as session:
                session.add(ServiceRow(case_id=case_id, step=step, until=until, key=key))
        except IntegrityError:
            return False
        return True

    def service(self, case_id: str) -> ServiceRow | None:
        """A detached copy of the row."""
        with self._session() as session:
            return session.get(ServiceRow, case_id)

    def services(self, steps: Sequence[ServiceStep] = LIVE_SERVICES) -> list[ServiceRow]:
        """The most urgent first."""
        with self._session() as session:
            query = select(ServiceRow).where(ServiceRow.step.in_(steps)).order_by(ServiceRow.until)
            return list(session.scalars(query))

    def advance_service(
        self, case_id: str, before: Sequence[ServiceStep], after: ServiceStep, **values: object
    ) -> bool:
        """As `advance`."""
        with self._session() as session:
            result = session.execute(
                update(ServiceRow)
                .where(ServiceRow.case_id == case_id, ServiceRow.step.in_(before))
                .values(step=after, **values)
            )
            return bool(result.rowcount)  # type: ignore[attr-defined]  # CursorResult of a DML statement

    def note_service(self, case_id: str, text: str) -> None:
        """Records what a service waits for."""
        with self._session() as session:
            session.execute(
                update(ServiceRow).where(ServiceRow.case_id == case_id).values(note=text[:MAX_NOTE])
            )
