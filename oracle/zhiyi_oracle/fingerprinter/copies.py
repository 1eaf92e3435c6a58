"""The fingerprinter's memory: models it may copy, copies it made with their secrets, shares it opened.
SQLite.

Promises: secrets are on disk before anything made with them leaves; a license id is drawn once and never
serves a second copy; an interrupted preparation goes on with the secrets drawn first. Secrets are encrypted
under the key file, so a copy of the database alone reveals nothing.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from sqlalchemy import (
    BigInteger,
    ForeignKey,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    create_engine,
    delete,
    event,
    func,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError as Duplicate
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from zhiyi.errors import ConfigError, IntegrityError, NotFound
from zhiyi.types import FIRST_ONWARD, license_id_of, to_hex
from zhiyi_oracle.errors import Refused
from zhiyi_oracle.secret_files import private_folder, read_secret, write_private

SHARES: Final = 16  # confirm shares a copy carries
SECRET_BYTES: Final = 32
MAX_DRAWS: Final = 64  # tries for a license number nobody has; 2^28 numbers, so one is the rule
_NONCE_BYTES: Final = 12


class CopyStep(StrEnum):
    """How far a copy is."""

    DRAWN = "drawn"  # number and secrets are fixed
    PREPARED = "prepared"  # marked, encrypted, sealed, on IPFS
    SIGNED = "signed"  # we signed one order for it, and never another
    OPENED = "opened"  # paid, in a finalized block
    REVEALED = "revealed"
    ENDED = "ended"  # not bought in time, or refunded


@dataclass(frozen=True)
class CopySecrets:
    """What makes one copy: the delivery key and the confirm shares' seeds, 32 bytes each."""

    key: bytes
    seeds: tuple[bytes, ...]

    @classmethod
    def draw(cls) -> CopySecrets:
        return cls(
            secrets.token_bytes(SECRET_BYTES), tuple(secrets.token_bytes(SECRET_BYTES) for _ in range(SHARES))
        )

    def pack(self) -> bytes:
        return self.key + b"".join(self.seeds)

    @classmethod
    def unpack(cls, data: bytes) -> CopySecrets:
        """Raises IntegrityError on another length than pack's."""
        if len(data) != SECRET_BYTES * (SHARES + 1):
            raise IntegrityError(
                f"{len(data)} bytes of secrets in the database, {SECRET_BYTES * (SHARES + 1)} expected"
            )
        pieces = [data[i : i + SECRET_BYTES] for i in range(0, len(data), SECRET_BYTES)]
        return cls(pieces[0], tuple(pieces[1:]))


class Base(DeclarativeBase):
    pass


class CursorRow(Base):
    __tablename__ = "cursor"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    block: Mapped[int] = mapped_column(BigInteger)


class ModelRow(Base):
    """A version of a model that this fingerprinter may copy, or has copied."""

    __tablename__ = "models"
    weights_root: Mapped[str] = mapped_column(String(66), primary_key=True)  # 0x-hex
    model_id: Mapped[int] = mapped_column(BigInteger)
    folder: Mapped[str] = mapped_column(Text)  # registered bundle
    leaves: Mapped[str] = mapped_column(Text)  # file of its registered leaves
    declared_range: Mapped[str] = mapped_column(Text)  # JSON
    kit: Mapped[bytes] = mapped_column(LargeBinary)  # TraceKit JSON, encrypted


class CopyRow(Base):
    """One copy for one buyer under one license id."""

    __tablename__ = "copies"
    __table_args__ = (UniqueConstraint("buyer", "request_nonce"),)
    license_id: Mapped[str] = mapped_column(
        String(80), primary_key=True
    )  # decimal: wider than SQLite's integers
    weights_root: Mapped[str] = mapped_column(
        ForeignKey("models.weights_root")
    )  # the version that was copied
    request_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    offer: Mapped[str] = mapped_column(Text)  # SignedOffer
    request: Mapped[str] = mapped_column(Text)  # SignedRequest
    buyer: Mapped[str] = mapped_column(String(42))
    request_nonce: Mapped[str] = mapped_column(String(20))
    secrets: Mapped[bytes] = mapped_column(LargeBinary)  # encrypted
    step: Mapped[str] = mapped_column(String(12), index=True)
    delivery: Mapped[str | None] = mapped_column(Text)  # Delivery
    package_cid: Mapped[str | None] = mapped_column(String(64))
    report: Mapped[str | None] = mapped_column(Text)  # MarkReport, JSON
    order_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    order: Mapped[str | None] = mapped_column(Text)  # Order
    order_signature: Mapped[bytes | None] = mapped_column(LargeBinary(65))
    seller_signature: Mapped[bytes | None] = mapped_column(
        LargeBinary
    )  # earns the prepare fee of an order let pass
    reveal_tx: Mapped[str | None] = mapped_column(String(66))
    created_at: Mapped[float] = mapped_column(default=time.time)
    note: Mapped[str | None] = mapped_column(Text)


class ShareRow(Base):
    """A share spent on a case: drawn before it is sent, never spent again."""

    __tablename__ = "shares"
    __table_args__ = (UniqueConstraint("license_id", "share_index"),)
    case_id: Mapped[str] = mapped_column(String(66), primary_key=True)
    license_id: Mapped[str] = mapped_column(ForeignKey("copies.license_id"))
    share_index: Mapped[int]
    base_cid: Mapped[str | None] = mapped_column(String(64))
    attempted: Mapped[bool] = mapped_column(default=False)  # the seed may have left this machine
    tx: Mapped[str | None] = mapped_column(String(66))
    file: Mapped[str] = mapped_column(Text)  # CaseFile
    ended: Mapped[bool] = mapped_column(default=False)  # opened for good, or the case no longer asks
    note: Mapped[str | None] = mapped_column(Text)


class WaitingRow(Base):
    """A case that found every share spent or set aside; one may come back while the case is open."""

    __tablename__ = "waiting"
    case_id: Mapped[str] = mapped_column(String(66), primary_key=True)
    license_id: Mapped[str] = mapped_column(ForeignKey("copies.license_id"))
    file: Mapped[str] = mapped_column(Text)  # CaseFile


class CopyStore:
    """The database of one fingerprinter, in a private folder. One writer process."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError when the folder or the key file can be read by others, or the key file is
        missing.
        """
        self.folder = private_folder(folder)
        raw = read_secret(folder / "store.key")
        try:
            master = bytes.fromhex(raw)
        except ValueError as exc:
            raise ConfigError(f"{folder / 'store.key'} holds no hex; restore it from the backup") from exc
        if len(master) != SECRET_BYTES:
            raise ConfigError(
                f"{folder / 'store.key'} holds {len(master)} bytes, {SECRET_BYTES} needed; restore it"
            )
        self._cipher = ChaCha20Poly1305(master)
        path = folder / "copies.sqlite"
        path.touch(mode=0o600)
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

        @event.listens_for(self._engine, "connect")
        def _pragmas(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.close()

        Base.metadata.create_all(self._engine)

    @classmethod
    def create(cls, folder: Path) -> CopyStore:
        """Makes folder, key file and database; opens them where they are there."""
        private_folder(folder)
        if not (folder / "store.key").exists():
            if (folder / "copies.sqlite").exists():
                raise ConfigError(
                    f"{folder} has copies.sqlite but no store.key; restore the key file from the backup"
                )
            write_private(folder / "store.key", secrets.token_hex(SECRET_BYTES).encode())
        return cls(folder)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def _lock(self, data: bytes, name: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, name.encode())

    def _unlock(self, data: bytes, name: str) -> bytes:
        try:
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], name.encode())
        except InvalidTag as exc:
            raise IntegrityError(
                f"secrets of {name} do not open with store.key; restore key and database together"
            ) from exc

    # -- cursor

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

    # -- models

    def put_model(
        self,
        model_id: int,
        weights_root: bytes,
        *,
        folder: Path,
        leaves: Path,
        declared_range: str,
        kit: bytes,
    ) -> None:
        """Adds a version of a model, or replaces where its files are. kit: TraceKit JSON, stored encrypted."""
        with self._session() as session:
            session.merge(
                ModelRow(
                    weights_root=to_hex(weights_root),
                    model_id=model_id,
                    folder=str(folder),
                    leaves=str(leaves),
                    declared_range=declared_range,
                    kit=self._lock(kit, f"model {to_hex(weights_root)}"),
                )
            )

    def model(self, weights_root: bytes | str) -> ModelRow:
        """The version with this root (bytes or 0x-hex). Raises NotFound."""
        root = weights_root if isinstance(weights_root, str) else to_hex(weights_root)
        with self._session() as session:
            row = session.get(ModelRow, root)
        if row is None:
            raise NotFound(
                f"the weights {root} are not known to this fingerprinter; add their model with "
                "`zhiyi fingerprint add-model`"
            )
        return row

    def kit(self, row: ModelRow) -> bytes:
        """The model's trace kit, JSON. Raises IntegrityError as `secrets_of`."""
        return self._unlock(row.kit, f"model {row.weights_root}")

    # -- copies

    def draw(
        self,
        *,
        model_id: int,
        weights_root: bytes,
        request_hash: bytes,
        offer: str,
        request: str,
        buyer: str,
        request_nonce: int,
        onward: bool,
        taken: Callable[[int], bool],
    ) -> CopyRow:
        """The copy of this request: the one drawn before, else one with a fresh number and fresh secrets.

        onward: a holder passes his license on; such copies have the upper half of the numbers.
        taken: says whether the chain has an order under a license id.

        Raises:
            Refused: the buyer used this nonce for another request.
        """
        for _ in range(MAX_DRAWS):
            known = self.copy_of_request(request_hash)
            if known is not None:
                return known
            license_id = license_id_of(
                model_id, FIRST_ONWARD * onward + 1 + secrets.randbelow(FIRST_ONWARD - 1)
            )
            if taken(license_id):
                continue
            try:
                with self._session() as session:
                    session.add(
                        CopyRow(
                            license_id=str(license_id),
                            weights_root=to_hex(weights_root),
                            request_hash=request_hash,
                            offer=offer,
                            request=request,
                            buyer=buyer,
                            request_nonce=str(request_nonce),
                            secrets=self._lock(CopySecrets.draw().pack(), f"license {license_id}"),
                            step=CopyStep.DRAWN,
                        )
                    )
            except Duplicate as exc:
                if self._nonce_used(buyer, request_nonce) and self.copy_of_request(request_hash) is None:
                    raise Refused(
                        f"buyer {buyer} used nonce {request_nonce} for another request; sign with a new nonce"
                    ) from exc
        raise Refused(f"no free license number of model {model_id} in {MAX_DRAWS} draws")

    def _nonce_used(self, buyer: str, nonce: int) -> bool:
        with self._session() as session:
            return (
                session.scalar(
                    select(func.count())
                    .select_from(CopyRow)
                    .where(CopyRow.buyer == buyer, CopyRow.request_nonce == str(nonce))
                )
                or 0
            ) > 0

    def copy(self, license_id: int) -> CopyRow | None:
        with self._session() as session:
            return session.get(CopyRow, str(license_id))

    def copy_of_request(self, request_hash: bytes) -> CopyRow | None:
        with self._session() as session:
            return session.scalar(select(CopyRow).where(CopyRow.request_hash == request_hash))

    def copies(self, *steps: CopyStep) -> list[CopyRow]:
        """In the order in which they were drawn; all where no step is named."""
        with self._session() as session:
            query = select(CopyRow).order_by(CopyRow.created_at)
            return list(session.scalars(query.where(CopyRow.step.in_(steps)) if steps else query))

    def unsold(self, buyer: str) -> int:
        """Copies of this buyer that no order was opened for."""
        with self._session() as session:
            steps = (CopyStep.DRAWN, CopyStep.PREPARED, CopyStep.SIGNED)
            query = (
                select(func.count())
                .select_from(CopyRow)
                .where(CopyRow.buyer == buyer, CopyRow.step.in_(steps))
            )
            return session.scalar(query) or 0

    def secrets_of(self, row: CopyRow) -> CopySecrets:
        """Raises IntegrityError when the database was tampered with or belongs to another key file."""
        return CopySecrets.unpack(self._unlock(row.secrets, f"license {row.license_id}"))

    def advance(self, license_id: str, before: CopyStep, after: CopyStep, **values: object) -> bool:
        """Moves a copy from one step to another together with what the step left; False when it is elsewhere
        by now.
        """
        with self._session() as session:
            result = session.execute(
                update(CopyRow)
                .where(CopyRow.license_id == license_id, CopyRow.step == before)
                .values(step=after, **values)
            )
            return bool(result.rowcount)  # type: ignore[attr-defined]  # CursorResult of a DML statement

    def note_reveal(self, license_id: str, tx: str) -> None:
        with self._session() as session:
            session.execute(update(CopyRow).where(CopyRow.license_id == license_id).values(reveal_tx=tx))

    # -- shares

    def spend_share(self, *, case_id: str, license_id: int, file: str, opened: int) -> ShareRow | None:
        """The share of this case: the one spent before, else the lowest index never spent; None when all are, and
        then the case is among those that wait.

        opened: bitmap of the shares that the chain has seen opened.
        """
        with self._session() as session:
            known = session.get(ShareRow, case_id)
            if known is not None:
                return known
            query = select(ShareRow.share_index).where(ShareRow.license_id == str(license_id))
            used = set(session.scalars(query)) | {i for i in range(SHARES) if opened >> i & 1}
            free = next((i for i in range(SHARES) if i not in used), None)
            waiting = session.get(WaitingRow, case_id)
            if free is None:
                if waiting is None:
                    session.add(WaitingRow(case_id=case_id, license_id=str(license_id), file=file))
                return None
            if waiting is not None:
                session.delete(waiting)
            row = ShareRow(case_id=case_id, license_id=str(license_id), share_index=free, file=file)
            session.add(row)
            return row

    def waiting(self) -> list[WaitingRow]:
        """Cases that wait for a share to come back."""
        with self._session() as session:
            return list(session.scalars(select(WaitingRow)))

    def stop_waiting(self, case_id: str) -> None:
        """The case no longer asks."""
        with self._session() as session:
            session.execute(delete(WaitingRow).where(WaitingRow.case_id == case_id))

    def shares(self, *, ended: bool = False) -> list[ShareRow]:
        with self._session() as session:
            return list(session.scalars(select(ShareRow).where(ShareRow.ended.is_(ended))))

    def set_share(self, case_id: str, **values: object) -> None:
        with self._session() as session:
            session.execute(update(ShareRow).where(ShareRow.case_id == case_id).values(**values))

    def return_share(self, case_id: str) -> None:
        """The case no longer asks: a share whose seed never left may serve another case, any other is spent."""
        with self._session() as session:
            row = session.get(ShareRow, case_id)
            if row is not None and not row.attempted:
                session.delete(row)
            elif row is not None:
                row.ended = True
