"""Follow a deployment's events into a database, in chunks, through interruptions and reorganisations."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import sqlalchemy.exc
from sqlalchemy import Engine, create_engine, delete, event, func, make_url, select, update
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from zhiyi.abi import NAMES
from zhiyi.deployment import Contract, Deployment
from zhiyi.errors import BadInput, ConfigError, IntegrityError, NotFound, Timeout
from zhiyi.index.fold import BEGINNINGS, FOLDS, Subject, paused_seconds, subjects_of
from zhiyi.index.tables import (
    Base,
    BlockRow,
    CaseRow,
    DocumentRow,
    EventRow,
    HeadRow,
    LicenseRow,
    ModelRow,
    OrderRow,
    SubjectRow,
)
from zhiyi.metadata import MAX_BYTES, preferences_from_json
from zhiyi.types import to_hex

logger = logging.getLogger(__name__)

CHUNK_BLOCKS: Final = 2_000
CHUNK_TRIES: Final = 5  # a chunk is read again when the chain changes under it
PAGE_MAX: Final = 200
DOCUMENT_TRIES: Final = 8  # then given up until the index is made anew
DOCUMENT_WAIT: Final = 60  # seconds before the second try; doubles

Progress = Callable[[int, int], None]  # blocks done, blocks in all
_Row = TypeVar("_Row")


class BlockLike(Protocol):
    """What the index needs of a block."""

    @property
    def number(self) -> int: ...
    @property
    def hash(self) -> str: ...
    @property
    def timestamp(self) -> int: ...


class EventLike(Protocol):
    """What the index needs of an event; `zhiyi.chain.Event` is one."""

    @property
    def contract(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def args(self) -> dict[str, Any]: ...
    @property
    def block_number(self) -> int: ...
    @property
    def block_hash(self) -> str: ...
    @property
    def tx_hash(self) -> str: ...
    @property
    def log_index(self) -> int: ...


class ChainLike(Protocol):
    """What the index asks of a chain; `zhiyi.chain.Chain` is one."""

    @property
    def chain_id(self) -> int: ...
    def block(self, tag: int | str = "latest") -> BlockLike: ...
    def events(
        self, contracts: Sequence[Contract], *, from_block: int = 0, to_block: int | str = "latest"
    ) -> Sequence[EventLike]: ...


class DocumentSource(Protocol):
    """Where metadata is read from; `zhiyi.ipfs.Ipfs` is one."""

    def cat(self, cid: str, max_bytes: int) -> bytes: ...


class Head(NamedTuple):
    """Up to which block the index tells."""

    number: int
    hash: str
    time: int  # unix seconds of that block


class SyncReport(NamedTuple):
    """What one `sync` did."""

    from_block: int
    to_block: int
    events: int
    rolled_back: int  # blocks


class Counts(NamedTuple):
    """Rows in all."""

    models: int
    orders: int
    licenses: int
    cases: int


class _ChainMoved(Exception):
    """Blocks changed between two reads of one chunk, or another process synced meanwhile."""


class Index:
    """The record as tables. `url`: a SQLAlchemy URL, `sqlite:///index.db` or `postgresql+psycopg://…`."""

    def __init__(self, url: str = "sqlite:///zhiyi-index.db") -> None:
        """Opens or creates the tables. Raises ConfigError when the database cannot be used."""
        try:
            parsed = make_url(url)
            self._engine = create_engine(parsed)
        except (ArgumentError, ModuleNotFoundError) as exc:
            raise ConfigError(f"the index address cannot be used ({exc}); give sqlite:///PATH") from exc
        self.url = parsed.render_as_string(hide_password=True)
        if parsed.get_backend_name() == "sqlite":
            event.listen(self._engine, "connect", _sqlite_settings)
        try:
            Base.metadata.create_all(self._engine)
        except SQLAlchemyError as exc:
            raise ConfigError(f"the index {self.url} cannot be opened: {exc.args[0]}") from exc

    @property
    def engine(self) -> Engine:
        """For queries of one's own; the tables are in `zhiyi.index.tables`."""
        return self._engine

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()

    # ---- following the chain

    def sync(
        self,
        chain: ChainLike,
        deployment: Deployment,
        progress: Progress | None = None,
        *,
        tag: int | str = "latest",
        chunk_blocks: int = CHUNK_BLOCKS,
    ) -> SyncReport:
        """Read all new events up to block `tag`; what a reorganisation took back is undone first.

        Each chunk is one database transaction, so an interrupted sync goes on where it stopped, and two
        processes may sync one database. Raises BadInput when the index holds another deployment,
        RpcUnavailable, Timeout when the chain keeps changing.
        """
        contracts = [deployment.contract(name) for name in deployment.contracts if name in NAMES]
        self._bind(chain.chain_id, deployment)
        start, events, tries = self._head().number + 1, 0, 0
        rolled_back = self._undo_reorganised(chain, deployment)
        target = chain.block(tag).number
        while (head := self._head()).number < target:
            first, last = head.number + 1, min(head.number + chunk_blocks, target)
            try:
                found, blocks = _read_chunk(chain, contracts, first, last)
                self._apply(head, found, blocks)
            except _ChainMoved as moved:
                tries += self._head() == head  # else another process got on with it
                if tries == CHUNK_TRIES:
                    raise Timeout(
                        f"blocks {first} to {last} keep changing ({moved}); sync again later"
                    ) from None
                rolled_back += self._undo_reorganised(chain, deployment)
                target = chain.block(tag).number
                continue
            events, tries = events + len(found), 0
            if progress:
                progress(last - start + 1, target - start + 1)
        return SyncReport(start, self._head().number, events, rolled_back)

    def _bind(self, chain_id: int, deployment: Deployment) -> None:
        """One database follows one deployment."""
        digest = _digest(chain_id, deployment)
        start = HeadRow(
            id=1, chain_id=chain_id, deployment=digest, number=deployment.block - 1, hash="", time=0
        )
        with (
            contextlib.suppress(sqlalchemy.exc.IntegrityError),
            Session(self._engine) as session,
            session.begin(),
        ):
            if session.get(HeadRow, 1) is None:
                session.add(start)  # another process may be quicker: then its row counts
        with Session(self._engine) as session:
            row = session.get_one(HeadRow, 1)
        if row.deployment != digest:
            raise BadInput(
                f"the index {self.url} follows another deployment (chain {row.chain_id});"
                " give each deployment its own database"
            )

    def _head(self) -> Head:
        with Session(self._engine) as session:
            row = session.get_one(HeadRow, 1)
            return Head(row.number, row.hash, row.time)

    def _undo_reorganised(self, chain: ChainLike, deployment: Deployment) -> int:
        """Go back to the last block that the chain still has; returns how many blocks were undone."""
        head = self._head()
        if not head.hash or _hash_at(chain, head.number) == head.hash:
            return 0
        with Session(self._engine) as session:
            blocks = session.scalars(select(BlockRow).order_by(BlockRow.number)).all()
        low, high = 0, len(blocks)  # blocks[:low] are still there, blocks[high:] are not
        while low < high:
            middle = (low + high) // 2
            if _hash_at(chain, blocks[middle].number) == blocks[middle].hash:
                low = middle + 1
            else:
                high = middle
        base = blocks[low - 1] if low else BlockRow(number=deployment.block - 1, hash="", time=0)
        logger.warning(
            "the chain changed after block %s: undoing %s blocks", base.number, head.number - base.number
        )
        self._rewind(head, Head(base.number, base.hash, base.time))
        return head.number - base.number

    def _rewind(self, head: Head, base: Head) -> None:
        with Session(self._engine) as session, session.begin():
            _move_head(session, head, base)
            above = SubjectRow.block_number > base.number
            touched = {
                (kind, key)
                for kind, key in session.execute(select(SubjectRow.kind, SubjectRow.key).where(above))
            }
            session.execute(delete(SubjectRow).where(above))
            session.execute(delete(EventRow).where(EventRow.block_number > base.number))
            session.execute(delete(BlockRow).where(BlockRow.number > base.number))
            for kind, key in sorted(touched):
                table, _ = FOLDS[kind]
                session.execute(delete(table).where(table.__table__.c.key == key))
                left = (
                    select(EventRow)
                    .join(
                        SubjectRow,
                        (SubjectRow.block_number == EventRow.block_number)
                        & (SubjectRow.log_index == EventRow.log_index),
                    )
                    .where(SubjectRow.kind == kind, SubjectRow.key == key)
                    .order_by(EventRow.block_number, EventRow.log_index)
                )
                _fold(session, (kind, key), session.scalars(left).all())

    def _apply(self, head: Head, events: Sequence[EventRow], blocks: Sequence[BlockRow]) -> None:
        last = blocks[-1]
        with Session(self._engine) as session, session.begin():
            _move_head(session, head, Head(last.number, last.hash, last.time))
            session.add_all(blocks)
            session.add_all(events)
            by_subject: dict[Subject, list[EventRow]] = {}
            for row in events:
                for subject in subjects_of(row):
                    by_subject.setdefault(subject, []).append(row)
                    kind, key = subject
                    session.add(
                        SubjectRow(kind=kind, key=key, block_number=row.block_number, log_index=row.log_index)
                    )
            for subject, rows in by_subject.items():
                _fold(session, subject, rows)

    # ---- metadata

    def fetch_documents(self, source: DocumentSource, now: int, *, limit: int = 20) -> int:
        """Read up to `limit` metadata documents that models name and that are not here yet; returns how
        many came.

        One that cannot be read is tried again later, less and less often. `now`: unix seconds.
        """
        named = select(ModelRow.metadata_cid).where(ModelRow.metadata_cid != "")
        done = select(DocumentRow.cid).where(
            (DocumentRow.problem == "") | (DocumentRow.retry_at > now) | (DocumentRow.tries >= DOCUMENT_TRIES)
        )
        with Session(self._engine) as session:
            wanted = session.scalars(
                named.where(ModelRow.metadata_cid.not_in(done)).distinct().limit(limit)
            ).all()
        came = 0
        for cid in wanted:
            value, problem = _read_document(source, cid)
            with Session(self._engine) as session, session.begin():
                row = session.get(DocumentRow, cid)
                tries = (row.tries if row else 0) + 1
                retry_at = now + DOCUMENT_WAIT * 2 ** (tries - 1)
                session.merge(
                    DocumentRow(cid=cid, value=value, problem=problem, tries=tries, retry_at=retry_at)
                )
            came += not problem
        return came

    # ---- reading

    def head(self) -> Head | None:
        """Up to where the index tells, None before the first sync."""
        with Session(self._engine) as session:
            row = session.get(HeadRow, 1)
            return Head(row.number, row.hash, row.time) if row and row.hash else None

    def counts(self) -> Counts:
        """Rows in all."""
        with Session(self._engine) as session:
            totals = [
                session.scalar(select(func.count()).select_from(table)) or 0
                for table in (ModelRow, OrderRow, LicenseRow, CaseRow)
            ]
        return Counts(*totals)

    def models(
        self,
        *,
        owner: str | None = None,
        review: int | None = None,
        below: int | None = None,
        limit: int = 50,
    ) -> Sequence[ModelRow]:
        """Newest first; `below`: only ids below this one, to page on."""
        query = select(ModelRow).order_by(ModelRow.model_id.desc()).limit(_page(limit))
        if owner is not None:
            query = query.where(ModelRow.owner == owner)
        if review is not None:
            query = query.where(ModelRow.review == review)
        if below is not None:
            query = query.where(ModelRow.model_id < below)
        with Session(self._engine) as session:
            return session.scalars(query).all()

    def model(self, model_id: int) -> ModelRow:
        """Raises NotFound."""
        return self._get(ModelRow, str(model_id), "model")

    def order(self, license_id: int) -> OrderRow:
        """The order that was opened under this license id. Raises NotFound."""
        return self._get(OrderRow, str(license_id), "order")

    def license(self, license_id: int) -> LicenseRow:
        """Raises NotFound."""
        return self._get(LicenseRow, str(license_id), "license")

    def case(self, case_id: bytes) -> CaseRow:
        """Raises NotFound."""
        return self._get(CaseRow, to_hex(case_id), "case")

    def orders(
        self, *, model_id: int | None = None, buyer: str | None = None, offset: int = 0, limit: int = 50
    ) -> Sequence[OrderRow]:
        """Newest first."""
        query = select(OrderRow).order_by(OrderRow.opened_block.desc(), OrderRow.key)
        if model_id is not None:
            query = query.where(OrderRow.model_id == model_id)
        if buyer is not None:
            query = query.where(OrderRow.buyer == buyer)
        with Session(self._engine) as session:
            return session.scalars(query.offset(offset).limit(_page(limit))).all()

    def licenses(
        self, *, model_id: int | None = None, holder: str | None = None, offset: int = 0, limit: int = 50
    ) -> Sequence[LicenseRow]:
        """Newest first."""
        query = select(LicenseRow).order_by(LicenseRow.issued_block.desc(), LicenseRow.key)
        if model_id is not None:
            query = query.where(LicenseRow.model_id == model_id)
        if holder is not None:
            query = query.where(LicenseRow.holder == holder)
        with Session(self._engine) as session:
            return session.scalars(query.offset(offset).limit(_page(limit))).all()

    def cases(
        self,
        *,
        model_id: int | None = None,
        license_id: int | None = None,
        state: int | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> Sequence[CaseRow]:
        """Newest first."""
        query = select(CaseRow).order_by(CaseRow.opened_block.desc(), CaseRow.key)
        if model_id is not None:
            query = query.where(CaseRow.model_id == model_id)
        if license_id is not None:
            query = query.where(CaseRow.license_key == str(license_id))
        if state is not None:
            query = query.where(CaseRow.state == state)
        with Session(self._engine) as session:
            return session.scalars(query.offset(offset).limit(_page(limit))).all()

    def history(self, kind: str, key: str, *, limit: int = 100) -> Sequence[EventRow]:
        """Events about a model (key: its id), order or license (license id) or case (0x-hex id), newest first."""
        query = (
            select(EventRow)
            .join(
                SubjectRow,
                (SubjectRow.block_number == EventRow.block_number)
                & (SubjectRow.log_index == EventRow.log_index),
            )
            .where(SubjectRow.kind == kind, SubjectRow.key == key)
            .order_by(EventRow.block_number.desc(), EventRow.log_index.desc())
            .limit(_page(limit))
        )
        with Session(self._engine) as session:
            return session.scalars(query).all()

    def events(
        self, *, name: str | None = None, from_block: int = 0, to_block: int | None = None, limit: int = 100
    ) -> Sequence[EventRow]:
        """Events in the chain's order."""
        query = select(EventRow).where(EventRow.block_number >= from_block)
        if name is not None:
            query = query.where(EventRow.name == name)
        if to_block is not None:
            query = query.where(EventRow.block_number <= to_block)
        query = query.order_by(EventRow.block_number, EventRow.log_index).limit(_page(limit))
        with Session(self._engine) as session:
            return session.scalars(query).all()

    def document(self, cid: str) -> DocumentRow | None:
        """The metadata under this CID, None while nobody asked for it."""
        with Session(self._engine) as session:
            return session.get(DocumentRow, cid)

    def documents(self, cids: Iterable[str]) -> dict[str, DocumentRow]:
        """Several at once, by CID."""
        with Session(self._engine) as session:
            rows = session.scalars(select(DocumentRow).where(DocumentRow.cid.in_(list(cids)))).all()
        return {row.cid: row for row in rows}

    def _get(self, table: type[_Row], key: str, what: str) -> _Row:
        with Session(self._engine) as session:
            row = session.get(table, key)
        if row is None:
            raise NotFound(f"the index knows no {what} {key[:80]}; is it synced past the block that made it?")
        return row


# ---- inside


def preferences_agree(document: dict[str, Any] | None, preferences: int) -> bool:
    """Whether the metadata states the preferences that the chain holds. No document agrees with nothing stated."""
    if document is None:
        return preferences == 0
    try:
        return preferences_from_json(document.get("dataMiningPreference", {})).pack() == preferences
    except BadInput:
        return False


def _read_chunk(
    chain: ChainLike, contracts: Sequence[Contract], first: int, last: int
) -> tuple[list[EventRow], list[BlockRow]]:
    """Events of the blocks and the blocks to remember, all of one and the same chain."""
    from zhiyi.chain import jsonable

    end = _block_at(chain, last)
    events = chain.events(contracts, from_block=first, to_block=last)
    blocks = {last: end}
    for number in {e.block_number for e in events}:
        blocks.setdefault(number, _block_at(chain, number))
    for found in events:
        if blocks[found.block_number].hash != found.block_hash:
            raise _ChainMoved(f"block {found.block_number} changed")
    if _hash_at(chain, last) != end.hash:
        raise _ChainMoved(f"block {last} changed")
    events = sorted(events, key=lambda e: (e.block_number, e.log_index))
    rows = [
        EventRow(
            block_number=e.block_number,
            log_index=e.log_index,
            tx_hash=e.tx_hash,
            contract=e.contract,
            name=e.name,
            time=blocks[e.block_number].timestamp,
            args=jsonable(e.args),
        )
        for e in events
    ]
    kept = [BlockRow(number=b.number, hash=b.hash, time=b.timestamp) for _, b in sorted(blocks.items())]
    return rows, kept


def _block_at(chain: ChainLike, number: int) -> BlockLike:
    try:
        return chain.block(number)
    except NotFound:
        raise _ChainMoved(f"block {number} is gone") from None


def _hash_at(chain: ChainLike, number: int) -> str:
    """The block's hash, empty when the chain has no such block."""
    try:
        return chain.block(number).hash
    except NotFound:
        return ""


def _move_head(session: Session, before: Head, after: Head) -> None:
    """First statement of every writing transaction: takes the write lock and notices another process."""
    moved = session.execute(
        update(HeadRow)
        .where(HeadRow.id == 1, HeadRow.number == before.number, HeadRow.hash == before.hash)
        .values(number=after.number, hash=after.hash, time=after.time)
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]  # an UPDATE gives a CursorResult
        raise _ChainMoved("another process is syncing this index")


def _fold(session: Session, subject: Subject, events: Iterable[EventRow]) -> None:
    kind, key = subject
    table, fold = FOLDS[kind]
    row: Any = session.get(table, key)
    for item in events:
        if row is None and item.name != BEGINNINGS[kind]:
            logger.warning(
                "%s in block %s is left out: the index never saw %s %s begin; does the deployment file name a block"
                " that is too late?",
                item.name,
                item.block_number,
                kind,
                key,
            )
            continue
        folded = fold(row, item, _court_time(session, item)) if kind == "case" else fold(row, item)
        if folded is not row:
            if row is not None:
                raise IntegrityError(f"{item.name} of {kind} {key} came twice, in block {item.block_number}")
            session.add(folded)
        row = folded


def _court_time(session: Session, item: EventRow) -> int:
    """The court's clock at an event: unix seconds less all pauses of posting."""
    earlier = (EventRow.block_number < item.block_number) | (
        (EventRow.block_number == item.block_number) & (EventRow.log_index < item.log_index)
    )
    pauses = select(EventRow).where(EventRow.name.in_(("PostingPaused", "PostingResumed")), earlier)
    ordered = pauses.order_by(EventRow.block_number, EventRow.log_index)
    return item.time - paused_seconds(session.scalars(ordered), item.time)


def _read_document(source: DocumentSource, cid: str) -> tuple[dict[str, Any] | None, str]:
    """The JSON object under the CID, or why there is none. Only reading it may fail, never the index."""
    try:
        value = json.loads(source.cat(cid, MAX_BYTES))
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # no lone surrogates, no NaN
    except (NotFound, Timeout, IntegrityError, BadInput) as exc:
        return None, str(exc)[:500]
    except (ValueError, RecursionError):
        return None, "the metadata is no JSON"
    if not isinstance(value, dict):
        return None, "the metadata is no JSON object"
    return value, ""


def _digest(chain_id: int, deployment: Deployment) -> str:
    parts = [str(chain_id), *(f"{name}={address}" for name, address in sorted(deployment.contracts.items()))]
    return "0x" + hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _page(limit: int) -> int:
    if not 0 < limit <= PAGE_MAX:
        raise BadInput(f"a page has 1 to {PAGE_MAX} rows, not {limit}")
    return limit


def _sqlite_settings(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "busy_timeout=30000", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
