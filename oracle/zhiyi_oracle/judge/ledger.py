"""What a judge reads from the chain and the one thing it writes, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from zhiyi.types import CaseFile, CaseState, Epoch, ModelRecord, OpenedShare, PostedVerdict, Verdict


@dataclass(frozen=True)
class Head:
    """The latest block."""

    number: int
    timestamp: int  # the court's clock: unix seconds less the time for which posting was paused


@dataclass(frozen=True)
class CaseSeen:
    """CaseOpened."""

    block: int
    case_id: bytes
    file: CaseFile


@dataclass(frozen=True)
class ShareSeen:
    """ShareOpened."""

    block: int
    share: OpenedShare


@dataclass(frozen=True)
class VerdictSeen:
    """VerdictPosted."""

    block: int
    case_id: bytes
    posted: PostedVerdict


@dataclass(frozen=True)
class CaseEnded:
    """VerdictFinal."""

    block: int
    case_id: bytes
    state: CaseState


@dataclass(frozen=True)
class ServiceAsked:
    """ServiceRequested."""

    block: int
    case_id: bytes
    key: bytes  # X25519, 32 bytes; whether anything can be sealed to it is not checked on chain
    serve_by: int  # court time


@dataclass(frozen=True)
class ServiceDone:
    """Served."""

    block: int
    case_id: bytes


Observation = CaseSeen | ShareSeen | VerdictSeen | CaseEnded | ServiceAsked | ServiceDone


@dataclass(frozen=True)
class RegisteredModel:
    """What the registration of a model, or of one version of it, fixed."""

    model_id: int
    record: ModelRecord
    metadata_cid: str


@dataclass(frozen=True)
class RegisteredKey:
    """What others seal to an operator with."""

    key: bytes  # X25519, 32 bytes
    since: int  # unix seconds


@dataclass(frozen=True)
class CaseStatus:
    """Where a case stands at the head of the chain."""

    state: CaseState
    share_index: int


class Ledger(Protocol):
    """The chain as one judge uses it. Reads may be repeated at will."""

    def finalized(self) -> int:
        """Number of the last finalized block."""
        ...

    def head(self) -> Head:
        """The latest block; its clock is that of deadlines and turns."""
        ...

    def observations(self, first: int, last: int) -> list[Observation]:
        """Events of the court in blocks first .. last, in order."""
        ...

    def epoch(self, number: int) -> Epoch:
        """The committee of an epoch, in seat order."""
        ...

    def peer_urls(self, epoch: Epoch) -> dict[str, str]:
        """URL by signer, for those seats that registered one."""
        ...

    def encryption_key(self, epoch: Epoch, signer: str) -> RegisteredKey:
        """The key that the member behind a seat has now, and since when."""
        ...

    def models_of(self, file: CaseFile) -> Sequence[RegisteredModel]:
        """What the case can be about: the versions that its license can be of, else the one in force; likeliest first.

        Checked against the chain's hashes.
        """
        ...

    def case_status(self, case_id: bytes) -> CaseStatus:
        """At the head, not finalized: what a posting would meet."""
        ...

    def verdict_digest(self, verdict: Verdict) -> bytes:
        """The 32 bytes that operators sign."""
        ...

    def sign_verdict(self, verdict: Verdict) -> bytes:
        """This operator's signature, 65 bytes."""
        ...


@dataclass(frozen=True)
class Fee:
    """What a transaction pays, wei per gas."""

    most: int
    tip: int


@dataclass(frozen=True)
class SignedTx:
    """A transaction ready to be sent, by nonce and fee."""

    tx_hash: str
    raw: bytes
    nonce: int
    fee: Fee


@dataclass(frozen=True)
class Mined:
    """What became of a sent transaction."""

    block: int
    succeeded: bool


class Poster(Protocol):
    """How a judge writes: builds, signs and sends `postVerdict` and `serve`, and nothing else."""

    def build(
        self,
        file: CaseFile,
        verdict: Verdict,
        seats: Sequence[str],
        bitmap: int,
        signatures: bytes,
        *,
        fee: Fee,
        nonce: int | None,
    ) -> SignedTx:
        """Simulates, then signs; a nonce of None takes the account's next one. Raises TxReverted when it
        would fail.
        """
        ...

    def build_serving(
        self, file: CaseFile, seat: int, digest: bytes, *, fee: Fee, nonce: int | None
    ) -> SignedTx:
        """The same for `serve`."""
        ...

    def suggest_fee(self) -> Fee:
        """What should be mined soon."""
        ...

    def send(self, tx: bytes) -> None:
        """Hands a signed transaction to a node; one that is known already is no error."""
        ...

    def mined(self, tx_hash: str) -> Mined | None:
        """None while it is not in a block."""
        ...
