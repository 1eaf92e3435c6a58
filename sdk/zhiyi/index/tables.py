"""The index's tables. Everything but `EventRow` and `DocumentRow` can be made again from the events.

Amounts are decimal text (they pass 64 bits), times unix seconds, hashes and ids of 32 bytes 0x-hex.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Dialect, Index, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from zhiyi.types import FINGERPRINT_BITS, MAX_FINGERPRINT


class Amount(TypeDecorator[int]):
    """A whole number of any size, as decimal text."""

    impl = String(78)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 - SQLAlchemy's own attribute


class HeadRow(Base):
    """One row: which deployment this index follows and up to which block."""

    __tablename__ = "head"
    id: Mapped[int] = mapped_column(primary_key=True)
    chain_id: Mapped[int] = mapped_column(BigInteger)
    deployment: Mapped[str] = mapped_column(String(66))  # digest of chain id and addresses
    number: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(66))  # empty before the first block
    time: Mapped[int] = mapped_column(BigInteger)


class BlockRow(Base):
    """Blocks with events, and the last block of each chunk: enough to find where a reorganisation starts."""

    __tablename__ = "blocks"
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    hash: Mapped[str] = mapped_column(String(66))
    time: Mapped[int] = mapped_column(BigInteger)


class EventRow(Base):
    """One decoded event of the deployment's contracts; `args` is its JSON form."""

    __tablename__ = "events"
    block_number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    log_index: Mapped[int] = mapped_column(primary_key=True)
    tx_hash: Mapped[str] = mapped_column(String(66), index=True)
    contract: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(60), index=True)
    time: Mapped[int] = mapped_column(BigInteger)
    args: Mapped[dict[str, Any]]


class SubjectRow(Base):
    """Which model, order, license or case an event is about."""

    __tablename__ = "subjects"
    kind: Mapped[str] = mapped_column(String(10), primary_key=True)
    key: Mapped[str] = mapped_column(String(78), primary_key=True)
    block_number: Mapped[int] = mapped_column(BigInteger, primary_key=True, index=True)
    log_index: Mapped[int] = mapped_column(primary_key=True)


class ModelRow(Base):
    """A model as its events leave it."""

    __tablename__ = "models"
    key: Mapped[str] = mapped_column(String(78), primary_key=True)
    model_id: Mapped[int] = mapped_column(BigInteger, unique=True)
    owner: Mapped[str] = mapped_column(String(42), index=True)
    weights_root: Mapped[str] = mapped_column(String(66), index=True)
    record: Mapped[dict[str, Any]]  # of the version in force, `weights_root` too
    waiting: Mapped[dict[str, Any] | None]  # record of a version added and not reviewed
    trace_key_commit: Mapped[str] = mapped_column(String(66))
    royalties: Mapped[dict[str, Any]]
    preferences: Mapped[int]
    metadata_cid: Mapped[str] = mapped_column(String(46))
    review: Mapped[int] = mapped_column(default=0, index=True)
    registrar: Mapped[str | None] = mapped_column(String(42))
    reason_hash: Mapped[str | None] = mapped_column(String(66))
    reviewed_time: Mapped[int | None] = mapped_column(BigInteger)
    delisted_until: Mapped[int] = mapped_column(BigInteger, default=0)
    frozen_until: Mapped[int] = mapped_column(BigInteger, default=0)
    gross: Mapped[dict[str, Any]]  # by token: income so far, decimal text
    registered_block: Mapped[int] = mapped_column(BigInteger)
    registered_time: Mapped[int] = mapped_column(BigInteger)
    registered_tx: Mapped[str] = mapped_column(String(66))


class OrderRow(Base):
    """An opened order."""

    __tablename__ = "orders"
    key: Mapped[str] = mapped_column(String(78), primary_key=True)  # license id, decimal
    model_id: Mapped[int] = mapped_column(BigInteger, index=True)
    buyer: Mapped[str] = mapped_column(String(42), index=True)
    seller: Mapped[str] = mapped_column(String(42), index=True)
    fingerprinter: Mapped[str] = mapped_column(String(42), index=True)
    token: Mapped[str] = mapped_column(String(42))
    price: Mapped[int] = mapped_column(Amount)
    bond: Mapped[int] = mapped_column(Amount)
    basis: Mapped[int] = mapped_column(default=0)
    source_key: Mapped[str | None] = mapped_column(String(78), index=True)  # license resold or sublicensed
    order: Mapped[dict[str, Any]] = mapped_column("order_json")
    order_hash: Mapped[str] = mapped_column(String(66))
    state: Mapped[int] = mapped_column(index=True)
    since: Mapped[int] = mapped_column(BigInteger)
    revealed_key: Mapped[str | None] = mapped_column(String(66))
    refund_reason: Mapped[int | None]
    refund: Mapped[int | None] = mapped_column(Amount)
    penalty: Mapped[int | None] = mapped_column(Amount)
    wrong_chunk: Mapped[int | None] = mapped_column(BigInteger)
    opened_block: Mapped[int] = mapped_column(BigInteger)
    opened_time: Mapped[int] = mapped_column(BigInteger)
    opened_tx: Mapped[str] = mapped_column(String(66))

    @property
    def license_id(self) -> int:
        return int(self.key)


class LicenseRow(Base):
    """An issued license."""

    __tablename__ = "licenses"
    key: Mapped[str] = mapped_column(String(78), primary_key=True)  # license id, decimal
    model_id: Mapped[int] = mapped_column(BigInteger, index=True)
    fingerprint: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str] = mapped_column(String(42), index=True)
    terms: Mapped[int] = mapped_column(Amount)  # packed, see LicenseTerms
    expires_at: Mapped[int] = mapped_column(BigInteger)  # 0 never
    record: Mapped[dict[str, Any]]
    end: Mapped[int] = mapped_column("ended", default=0, index=True)
    ended_time: Mapped[int | None] = mapped_column(BigInteger)
    end_cause: Mapped[str | None] = mapped_column(String(78))  # case id, or the license it was resold as
    suspended: Mapped[bool] = mapped_column(default=False)
    offered: Mapped[bool] = mapped_column(default=False)
    source_key: Mapped[str | None] = mapped_column(String(78), index=True)  # license it was passed on from
    bond_slashed: Mapped[int] = mapped_column(Amount, default=0)
    bond_released: Mapped[int | None] = mapped_column(Amount)
    issued_block: Mapped[int] = mapped_column(BigInteger)
    issued_time: Mapped[int] = mapped_column(BigInteger)
    issued_tx: Mapped[str] = mapped_column(String(66))

    @property
    def license_id(self) -> int:
        return int(self.key)


class CaseRow(Base):
    """A case, from report to end."""

    __tablename__ = "cases"
    key: Mapped[str] = mapped_column(String(78), primary_key=True)  # case id, 0x-hex
    kind: Mapped[int] = mapped_column(index=True)
    model_id: Mapped[int] = mapped_column(BigInteger, index=True)
    license_key: Mapped[str | None] = mapped_column(
        String(78), index=True
    )  # None where no license is accused
    reporter: Mapped[str] = mapped_column(String(42), index=True)
    accused: Mapped[str] = mapped_column(String(42), index=True)
    bond: Mapped[int] = mapped_column(Amount)
    evidence_cid: Mapped[str] = mapped_column(String(46))
    file: Mapped[dict[str, Any]]
    state: Mapped[int] = mapped_column(index=True)
    decision: Mapped[int] = mapped_column(default=0)
    until: Mapped[int] = mapped_column(BigInteger)  # end of the current window, court time
    share_index: Mapped[int | None]
    base_cid: Mapped[str | None] = mapped_column(String(46))
    verdict: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    signers: Mapped[int | None] = mapped_column(BigInteger)  # bitmap of seats
    challenger: Mapped[str | None] = mapped_column(String(42))
    upheld: Mapped[bool | None]
    slashed: Mapped[int | None] = mapped_column(Amount)
    opened_block: Mapped[int] = mapped_column(BigInteger)
    opened_time: Mapped[int] = mapped_column(BigInteger)
    opened_tx: Mapped[str] = mapped_column(String(66))

    @property
    def case_id(self) -> bytes:
        return bytes.fromhex(self.key[2:])

    @property
    def license_id(self) -> int:
        return int(self.license_key or 0)


class DocumentRow(Base):
    """Metadata of a model fetched by CID; the bits on chain rule, this is display."""

    __tablename__ = "documents"
    cid: Mapped[str] = mapped_column(String(46), primary_key=True)
    value: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    problem: Mapped[str] = mapped_column(Text, default="")  # empty when `value` was read
    tries: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[int] = mapped_column(BigInteger, default=0)  # unix seconds


Index("subjects_by_event", SubjectRow.block_number, SubjectRow.log_index)


def split_license(license_id: int) -> tuple[int, int]:
    """Model id and fingerprint number."""
    return license_id >> FINGERPRINT_BITS, license_id & MAX_FINGERPRINT
