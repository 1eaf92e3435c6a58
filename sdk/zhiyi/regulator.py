"""Powers with limits: freeze, lift, delist, pause."""

from __future__ import annotations

from typing import Final, Literal

from zhiyi.chain import TxResult
from zhiyi.group import Group, reason_hash
from zhiyi.types import Pause, RegulatorAct

_ACTS: Final = ("ModelFrozen", "FreezeLifted", "ModelDelisted")


class Regulator(Group):
    """What regulator and pauser may do. The chain keeps keccak256 of each reason's text; money is never moved."""

    def freeze(self, model_id: int, until: int, reason: str, *, dry_run: bool = False) -> TxResult:
        """No new order and no pull by the owner until `until` (unix seconds, at most 30 d ahead)."""
        return self._send("ModelNFT", "freeze", model_id, until, reason_hash(reason), dry_run=dry_run)

    def lift(self, model_id: int, reason: str, *, dry_run: bool = False) -> TxResult:
        """Ends a freeze early."""
        return self._send("ModelNFT", "lift", model_id, reason_hash(reason), dry_run=dry_run)

    def delist(self, model_id: int, until_day: int, reason: str, *, dry_run: bool = False) -> TxResult:
        """No new order until the day begins (days since 1970-01-01 UTC, at most 365 ahead); 0 lists the model again.

        Licenses and opened orders are untouched.
        """
        return self._send("ModelNFT", "delist", model_id, until_day, reason_hash(reason), dry_run=dry_run)

    def acts(self, model_id: int | None = None) -> tuple[RegulatorAct, ...]:
        """Every freeze, lifting and delisting, oldest first, of one model or all. Freezes by a verdict are cases."""
        filters = {"modelId": model_id} if model_id is not None else None
        found = [event for name in _ACTS for event in self._events("ModelNFT", name, filters)]
        return tuple(
            RegulatorAct(
                act=event.name,
                model_id=event["modelId"],
                by=event["by"],
                until=event.args.get("until", 0),
                reason_hash=event["reasonHash"],
                time=self._chain.block(event.block_number).timestamp,
                tx_hash=event.tx_hash,
            )
            for event in sorted(found, key=lambda e: (e.block_number, e.log_index))
        )

    def pauses(self) -> tuple[Pause, ...]:
        """Pauses that are running; from events, the contracts have no view of them."""
        found = (self._pause("opening", "LicenseEscrow"), self._pause("posting", "MisuseCourt"))
        return tuple(pause for pause in found if pause)

    def _pause(self, what: Literal["opening", "posting"], contract: str) -> Pause | None:
        names = (f"{what.capitalize()}Paused", f"{what.capitalize()}Resumed")
        events = [event for name in names for event in self._events(contract, name)]
        last = max(events, key=lambda e: (e.block_number, e.log_index), default=None)
        if last is None or last.args.get("until", 0) <= self._chain.now():
            return None
        return Pause(what=what, by=last["by"], until=last["until"])

    def pause_opening(self, until: int, *, dry_run: bool = False) -> TxResult:
        """Pauser: no order can be opened until `until` (unix seconds, at most 7 d ahead)."""
        return self._send("LicenseEscrow", "pauseOpening", until, dry_run=dry_run)

    def pause_posting(self, until: int, *, dry_run: bool = False) -> TxResult:
        """Pauser: no verdict can be posted until `until`; the deadlines of cases move by as much."""
        return self._send("MisuseCourt", "pausePosting", until, dry_run=dry_run)

    def resume_posting(self, *, dry_run: bool = False) -> TxResult:
        """Pauser: ends that pause."""
        return self._send("MisuseCourt", "resumePosting", dry_run=dry_run)

    def resume_opening(self, *, dry_run: bool = False) -> TxResult:
        """Pauser: ends the pause."""
        return self._send("LicenseEscrow", "resumeOpening", dry_run=dry_run)
