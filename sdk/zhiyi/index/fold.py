"""Events → rows. Pure: a row is the fold of the events about its subject, in order, and nothing else.

So a reorganisation is undone by folding again the events that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from zhiyi.cid import cid_of
from zhiyi.errors import IntegrityError
from zhiyi.index.tables import Base, CaseRow, EventRow, LicenseRow, ModelRow, OrderRow, split_license
from zhiyi.types import NATIVE, CaseState, Decision, Kind, LicenseEnd, LicenseTerms, OrderState, Review

AFTERMATH: Final = 14 * 86_400  # seconds, as in CourtExtension

Subject = tuple[str, str]  # kind and key
_Row = TypeVar("_Row")

_MODEL_EVENTS: Final = frozenset(
    {
        "ModelRegistered",
        "VersionAdded",
        "ModelReviewed",
        "PreferencesChanged",
        "TraceKeyRotated",
        "ModelFrozen",
        "ModelFrozenByVerdict",
        "FreezeLifted",
        "ModelDelisted",
        "ModelSold",
        "RoyaltyPaid",
        "TermsOpened",
    }
)
_ORDER_EVENTS: Final = frozenset(
    {
        "OrderOpened",
        "KeyRevealed",
        "OrderSettled",
        "OrderRefunded",
        "ChunkProvenWrong",
        "RangeClaimed",
        "RangeClaimRejected",
    }
)
_LICENSE_EVENTS: Final = frozenset(
    {
        "LicenseIssued",
        "LicenseRevoked",
        "LicenseSurrendered",
        "LicenseSuspended",
        "LicenseOffered",
        "LicensePassedOn",
        "LicenseRenewed",
        "BondReleaseRequested",
        "BondReleased",
        "CaseExecuted",
    }
)
_CASE_EVENTS: Final = frozenset(
    {
        "CaseOpened",
        "ShareOpened",
        "ShareMissed",
        "VerdictPosted",
        "Challenged",
        "Escalated",
        "Ruled",
        "VerdictFinal",
        "ServiceRequested",
        "Served",
        "Cured",
        "ChunkOpened",
        "FaultFound",
        "CaseExecuted",
        "FeeClaimed",
        "DefenceFiled",
        "HoldReleased",
        "CaseBondPaid",
    }
)


def subjects_of(event: EventRow) -> list[Subject]:
    """What the event is about. Each subject's row is folded from its events."""
    found: list[Subject] = []
    if event.name in _MODEL_EVENTS:
        found.append(("model", str(event.args["modelId"])))
    moved = _token_moved(event)
    if event.contract == "ModelNFT" and moved is not None:
        found.append(("model", moved))
    if event.name in _ORDER_EVENTS:
        found.append(("order", str(event.args["licenseId"])))
    if event.name in _LICENSE_EVENTS and event.args["licenseId"]:  # a case may end without a license
        found.append(("license", str(event.args["licenseId"])))
    if event.name == "LicensePassedOn":
        found.append(("license", str(event.args["source"])))
    if event.contract == "LicenseNFT" and moved is not None:
        found.append(("license", moved))
    if event.name in _CASE_EVENTS:
        found.append(("case", str(event.args["caseId"])))
    return found


def fold_model(row: ModelRow | None, event: EventRow) -> ModelRow:
    """A model after one more event."""
    args = event.args
    if event.name == "ModelRegistered":
        return ModelRow(
            key=str(args["modelId"]),
            model_id=args["modelId"],
            owner=args["owner"],
            weights_root=args["weightsRoot"],
            record=args["record"],
            trace_key_commit=args["record"]["traceKeyCommit"],
            royalties=args["royalties"],
            preferences=args["preferences"],
            metadata_cid=_cid(args["metadataDigest"]),
            review=0,
            delisted_until=0,
            frozen_until=0,
            gross={},
            registered_block=event.block_number,
            registered_time=event.time,
            registered_tx=event.tx_hash,
        )
    row = _known(row, event)
    if event.name == "Transfer":
        row.owner = args["to"]
    elif event.name == "ModelReviewed":
        _reviewed(row, event)
    elif event.name == "VersionAdded":
        row.waiting, row.review = args["record"], int(Review.PENDING)
        row.metadata_cid = _cid(args["metadataDigest"])
    elif event.name == "PreferencesChanged":
        row.preferences, row.metadata_cid = args["preferences"], _cid(args["metadataDigest"])
    elif event.name == "TraceKeyRotated":
        row.trace_key_commit = args["traceKeyCommit"]
    elif event.name in ("ModelFrozen", "ModelFrozenByVerdict"):
        row.frozen_until = args["until"]
    elif event.name == "FreezeLifted":
        row.frozen_until = 0
    elif event.name == "ModelDelisted":
        row.delisted_until = args["until"]
    elif event.name == "RoyaltyPaid":
        before = int(row.gross.get(args["token"], "0"))
        row.gross = {**row.gross, args["token"]: str(before + args["amount"])}
    return row


def _reviewed(row: ModelRow, event: EventRow) -> None:
    """A version rejected after the first leaves the model approved as it was."""
    args = event.args
    row.registrar, row.reason_hash, row.reviewed_time = args["registrar"], args["reasonHash"], event.time
    if row.waiting is None:
        row.review = args["review"]
        return
    if args["review"] == Review.APPROVED:
        row.record, row.weights_root = row.waiting, args["weightsRoot"]
    row.review, row.waiting = int(Review.APPROVED), None


def fold_order(row: OrderRow | None, event: EventRow) -> OrderRow:
    """An order after one more event."""
    args = event.args
    if event.name == "OrderOpened":
        sale, delivery = args["order"]["sale"], args["order"]["delivery"]
        return OrderRow(
            key=str(args["licenseId"]),
            model_id=split_license(args["licenseId"])[0],
            buyer=args["buyer"],
            seller=sale["seller"],
            fingerprinter=delivery["fingerprinter"],
            token=sale["token"],
            price=sale["price"],
            bond=sale["bond"],
            basis=sale["basis"],
            source_key=str(sale["source"]) if sale["source"] else None,
            order=args["order"],
            order_hash=args["orderHash"],
            state=int(OrderState.OPEN),
            since=event.time,
            opened_block=event.block_number,
            opened_time=event.time,
            opened_tx=event.tx_hash,
        )
    row = _known(row, event)
    if event.name == "KeyRevealed":
        row.state, row.since, row.revealed_key = int(OrderState.REVEALED), event.time, args["key"]
    elif event.name == "OrderSettled":
        row.state, row.since = int(OrderState.SETTLED), event.time
    elif event.name == "OrderRefunded":
        row.state, row.since = int(OrderState.REFUNDED), event.time
        row.refund_reason, row.refund, row.penalty = args["reason"], args["refund"], args["penalty"]
    elif event.name == "ChunkProvenWrong":
        row.wrong_chunk = args["index"]
    elif event.name == "RangeClaimed":
        row.state, row.since = int(OrderState.RANGE_CHECK), event.time
    return row


def fold_license(row: LicenseRow | None, event: EventRow) -> LicenseRow:
    """A license after one more event."""
    args = event.args
    if event.name == "LicenseIssued":
        model_id, fingerprint = split_license(args["licenseId"])
        return LicenseRow(
            key=str(args["licenseId"]),
            model_id=model_id,
            fingerprint=fingerprint,
            holder=args["holder"],
            terms=args["terms"],
            expires_at=LicenseTerms.unpack(args["terms"]).expires_at,
            record=args["record"],
            end=int(LicenseEnd.NONE),
            suspended=False,
            offered=False,
            bond_slashed=0,
            issued_block=event.block_number,
            issued_time=event.time,
            issued_tx=event.tx_hash,
        )
    row = _known(row, event)
    if event.name == "Transfer" and args["to"] != NATIVE:
        row.holder = args["to"]
    elif event.name == "LicenseRevoked":
        row.end, row.ended_time, row.end_cause = int(LicenseEnd.REVOKED), event.time, args["cause"]
    elif event.name == "LicenseSurrendered":
        row.end, row.ended_time = int(LicenseEnd.SURRENDERED), event.time
    elif event.name == "LicenseSuspended":
        row.suspended = args["suspended"]
    elif event.name == "LicenseOffered":
        row.offered = args["offered"]
    elif event.name == "LicensePassedOn" and row.key == str(args["licenseId"]):
        row.source_key = str(args["source"])
    elif event.name == "LicensePassedOn" and args["resale"]:
        row.offered = False
        if row.end == LicenseEnd.NONE:  # an end that came while the resale was open stays
            row.end, row.ended_time, row.end_cause = (
                int(LicenseEnd.RESOLD),
                event.time,
                str(args["licenseId"]),
            )
    elif event.name == "LicenseRenewed":
        terms = LicenseTerms.unpack(row.terms).model_copy(update={"expires_at": args["expiry"]})
        row.terms, row.expires_at = terms.pack(), args["expiry"]
    elif event.name == "CaseExecuted":
        row.bond_slashed += args["slashed"]
    elif event.name == "BondReleased":
        row.bond_released = args["amount"]
    return row


def paused_seconds(pauses: Iterable[EventRow], now: int) -> int:
    """For how long the court's clock has stood still at `now`, unix seconds, by all its pauses before, in order."""
    before = start = end = 0
    for event in pauses:
        if event.name == "PostingPaused":
            before += min(end, event.time) - start
            start, end = event.time, event.args["until"]
        else:
            end = event.time
    return before + min(end, now) - start


def fold_case(row: CaseRow | None, event: EventRow, court_time: int | None = None) -> CaseRow:
    """A case after one more event. `court_time`: the court's clock at the event; default: it never stood still."""
    args = event.args
    if event.name == "CaseOpened":
        file = args["file"]
        return CaseRow(
            key=args["caseId"],
            kind=file["kind"],
            model_id=file["modelId"],
            license_key=str(file["licenseId"]) if file["licenseId"] else None,
            reporter=file["reporter"],
            accused=file["accused"],
            bond=file["bond"],
            evidence_cid=_cid(file["evidenceDigest"]),
            file=file,
            state=int(CaseState.OPEN),
            decision=int(Decision.NONE),
            until=file["postBy"],
            opened_block=event.block_number,
            opened_time=event.time,
            opened_tx=event.tx_hash,
        )
    row = _known(row, event)
    if event.name == "ShareOpened":
        row.share_index, row.base_cid = args["index"], _cid(args["baseDigest"])
    elif event.name == "VerdictPosted":
        row.state, row.decision, row.until = int(CaseState.POSTED), args["decision"], args["challengeUntil"]
        row.verdict, row.signers = args["verdict"], args["bitmap"]
    elif event.name == "Challenged":
        row.state, row.until = int(CaseState.CHALLENGED), args["ruleBy"]
        row.challenger = args["challenger"] if args["challenger"] != NATIVE else None
    elif event.name == "Escalated":
        row.state, row.until = int(CaseState.ESCALATED), args["ruleBy"]
    elif event.name == "ShareMissed":
        row.decision = int(Decision.INCONCLUSIVE)
    elif event.name == "Ruled":
        row.upheld = args["upheld"]
        if not row.upheld and row.decision not in (Decision.GUILTY, Decision.NOT_GUILTY):
            row.decision = int(Decision.INCONCLUSIVE)
    elif event.name == "VerdictFinal":
        row.state = args["state"]
        if (
            row.state == CaseState.CLEARED and row.upheld is None
        ):  # by silence: the bond stays held for a while
            row.until = (event.time if court_time is None else court_time) + AFTERMATH
    elif event.name == "ServiceRequested":
        row.state, row.until = int(CaseState.SERVING), args["serveBy"]
    elif event.name == "Served":
        ruled = row.challenger or (row.kind == Kind.TERMS and row.decision == Decision.GUILTY)
        row.state, row.until = int(CaseState.CHALLENGED if ruled else CaseState.POSTED), args["until"]
    elif event.name == "CaseExecuted":
        row.state, row.slashed = int(CaseState.EXECUTED), args["slashed"]
    return row


FOLDS: Final[dict[str, tuple[type[Base], Callable[..., Base]]]] = {
    "model": (ModelRow, fold_model),
    "order": (OrderRow, fold_order),
    "license": (LicenseRow, fold_license),
    "case": (CaseRow, fold_case),
}


# The event with which a subject begins. What comes without it is of a subject that the index never saw begin.
BEGINNINGS: Final = {
    "model": "ModelRegistered",
    "order": "OrderOpened",
    "license": "LicenseIssued",
    "case": "CaseOpened",
}


def _token_moved(event: EventRow) -> str | None:
    """The token of an ERC-721 Transfer that is no minting. Its third argument has no settled name."""
    if event.name != "Transfer" or event.args["from"] == NATIVE:
        return None
    return str(list(event.args.values())[2])


def _known(row: _Row | None, event: EventRow) -> _Row:
    if row is None:
        raise IntegrityError(f"{event.name} in block {event.block_number} cannot be the first event of a row")
    return row


def _cid(digest: str) -> str:
    """CIDv0 of a 0x-hex digest, empty for zero."""
    return cid_of(bytes.fromhex(digest[2:]))
