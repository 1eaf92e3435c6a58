"""The state of the system as its events alone tell it: what an auditor who has nothing but logs would say."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from eth_utils.address import to_checksum_address
from market import NATIVE
from quick_node import Log

_ENDS = {"LicenseRevoked": 1, "LicenseSurrendered": 2}
_ORDER_STATES = {
    "OrderOpened": 1,
    "KeyRevealed": 2,
    "RangeClaimed": 3,
    "OrderSettled": 4,
    "OrderRefunded": 5,
}


CASE_STATES = {
    "CaseOpened": 1,
    "VerdictPosted": 2,
    "ServiceRequested": 3,
    "Challenged": 4,
    "Escalated": 5,
    "Executed": 11,
}


class Replay:
    """Folds events in order. Amounts by (account, token), states by id."""

    def __init__(self, treasury: str) -> None:
        self.treasury = treasury  # fixed at deployment
        self.free: dict[tuple[str, str], int] = defaultdict(int)
        self.stakes: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # staked, locked
        self.gross: dict[tuple[int, str], int] = defaultdict(int)
        self.balance: dict[tuple[int, str], int] = defaultdict(int)
        self.inherited: dict[tuple[int, str], int] = defaultdict(int)
        self.bonds: dict[int, int] = {}
        self.case_bonds: dict[bytes, int] = defaultdict(int)
        self.channels: dict[str, int] = defaultdict(int)  # funds by token
        self.orders: dict[int, Any] = {}
        self.states: dict[int, int] = {}
        self.terms: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.holders: dict[int, str] = {}
        self.suspended: dict[int, bool] = defaultdict(bool)
        self.offered: dict[int, bool] = defaultdict(bool)
        self.owners: dict[int, str] = {}
        self.nonces: dict[int, int] = defaultdict(int)
        self.frozen: dict[int, int] = defaultdict(int)
        self.fees: dict[bytes, int] = {}  # by request
        self.channel_terms: dict[bytes, Any] = {}
        self.cases: dict[bytes, int] = {}  # states
        self.finals: dict[bytes, list[int]] = defaultdict(list)
        self.before_service: dict[bytes, int] = {}
        self.seen: list[Log] = []

    def fold(self, logs: list[Log]) -> None:
        for log in logs:
            self.seen.append(log)
            handler = getattr(self, f"_{log.contract}", None)
            if handler is not None:
                handler(log, log.args)

    # ---------------------------------------------------------------- vault and escrow

    def _LicenseEscrow(self, log: Log, a: dict[str, Any]) -> None:
        if log.name in _ORDER_STATES:
            self.states[a["licenseId"]] = _ORDER_STATES[log.name]
        handler = getattr(self, f"_on{log.name}", None)
        if handler is not None:
            handler(a)

    def _onDeposited(self, a: dict[str, Any]) -> None:
        self.free[a["account"], a["token"]] += a["amount"]

    _onCredited = _onDeposited

    def _onWithdrawn(self, a: dict[str, Any]) -> None:
        self.free[a["account"], a["token"]] -= a["amount"]

    def _onStakeAdded(self, a: dict[str, Any]) -> None:
        self.free[a["account"], NATIVE] -= a["amount"]
        self.stakes[a["account"]][0] += a["amount"]

    def _onStakeRemoved(self, a: dict[str, Any]) -> None:
        self.stakes[a["account"]][0] -= a["amount"]
        self.free[a["account"], NATIVE] += a["amount"]

    def _onStakeSlashed(self, a: dict[str, Any]) -> None:
        self.stakes[a["account"]][0] -= a["amount"]
        self.free[a["to"], NATIVE] += a["amount"]

    def _onOrderOpened(self, a: dict[str, Any]) -> None:
        sale, delivery = a["order"]
        self.orders[a["licenseId"]] = (sale, delivery)
        self.stakes[to_checksum_address(delivery[2])][1] += delivery[3]

    def _onOrderSettled(self, a: dict[str, Any]) -> None:
        sale, delivery = self.orders[a["licenseId"]]
        self.stakes[to_checksum_address(delivery[2])][1] -= delivery[3]
        self.bonds[a["licenseId"]] = sale[3]

    def _onOrderRefunded(self, a: dict[str, Any]) -> None:
        sale, delivery = self.orders[a["licenseId"]]
        stake = self.stakes[to_checksum_address(delivery[2])]
        stake[0] -= a["penalty"]
        stake[1] -= delivery[3]
        self.free[a["buyer"], to_checksum_address(sale[1])] += a["refund"]
        self.free[a["buyer"], NATIVE] += a["penalty"]

    def _onCopyRequested(self, a: dict[str, Any]) -> None:
        self.fees[a["requestHash"]] = a["fee"]

    def _fee_ended(self, a: dict[str, Any]) -> None:
        del self.fees[a["requestHash"]]

    _onPrepareFeeCredited = _onPrepareFeeReclaimed = _onPrepareFeeEarned = _fee_ended

    def _onBondReleased(self, a: dict[str, Any]) -> None:
        self.bonds[a["licenseId"]] -= a["amount"]

    def _onRoyaltyPaid(self, a: dict[str, Any]) -> None:
        self.gross[a["modelId"], a["token"]] += a["amount"]
        self.balance[a["modelId"], a["token"]] += a["amount"]

    def _onCaseBondLocked(self, a: dict[str, Any]) -> None:
        self.free[a["payer"], NATIVE] -= a["amount"]
        self.case_bonds[a["caseId"]] += a["amount"]

    def _onCaseBondPaid(self, a: dict[str, Any]) -> None:
        self.case_bonds[a["caseId"]] -= a["amount"]
        self.free[a["to"], NATIVE] += a["amount"]

    def _onCaseExecuted(self, a: dict[str, Any]) -> None:
        self.cases[a["caseId"]] = CASE_STATES["Executed"]
        self.case_bonds[a["caseId"]] -= a["bondBack"]
        self.free[a["reporter"], NATIVE] += a["bondBack"]
        if not a["slashed"]:
            return
        sale, _ = self.orders[a["licenseId"]]
        token = to_checksum_address(sale[1])
        self.bonds[a["licenseId"]] -= a["slashed"]
        self.free[a["reporter"], token] += a["toReporter"]
        rest = a["slashed"] - a["toReporter"] - a["toOwner"]
        self.free[self.treasury, token] += rest  # toOwner comes by RoyaltyPaid

    # ---------------------------------------------------------------- royalties

    def _RoyaltyLedger(self, log: Log, a: dict[str, Any]) -> None:
        if log.name == "RoyaltyPulled":
            self.balance[a["modelId"], a["token"]] -= a["amount"]
            self.free[a["account"], a["token"]] += a["amount"]
        elif log.name == "RoyaltyInherited":
            self.balance[a["modelId"], a["token"]] -= a["amount"]
            self.balance[a["ancestorId"], a["token"]] += a["amount"]
            self.inherited[a["ancestorId"], a["token"]] += a["amount"]

    # ---------------------------------------------------------------- channels and cases

    def _UsageChannel(self, log: Log, a: dict[str, Any]) -> None:
        match log.name:
            case "ChannelOpened":
                self.channel_terms[a["channelId"]] = a["channel"]
                self._into_channel(a["channel"], a["channel"][4])
            case "ChannelToppedUp":
                self._into_channel(self.channel_terms[a["channelId"]], a["amount"])
            case "VoucherRedeemed":
                _, provider, _, token, *_ = self.channel_terms[a["channelId"]]
                token = to_checksum_address(token)
                self.channels[token] -= a["toProvider"] + a["toModel"]
                self.free[to_checksum_address(provider), token] += a[
                    "toProvider"
                ]  # toModel comes by RoyaltyPaid
            case "ChannelClosed":
                terms = self.channel_terms[a["channelId"]]
                self._into_channel(terms, -a["refund"])

    def _into_channel(self, terms: Any, amount: int) -> None:
        payer, token = to_checksum_address(terms[0]), to_checksum_address(terms[3])
        self.channels[token] += amount
        self.free[payer, token] -= amount

    def _MisuseCourt(self, log: Log, a: dict[str, Any]) -> None:
        if log.name == "VerdictFinal":
            self.cases[a["caseId"]] = a["state"]
            self.finals[a["caseId"]].append(a["state"])
        elif log.name == "Served":
            self.cases[a["caseId"]] = self.before_service[a["caseId"]]
        elif log.name in CASE_STATES:
            if log.name == "ServiceRequested":
                self.before_service[a["caseId"]] = self.cases[a["caseId"]]
            self.cases[a["caseId"]] = CASE_STATES[log.name]

    # ---------------------------------------------------------------- tokens

    def _LicenseNFT(self, log: Log, a: dict[str, Any]) -> None:
        match log.name:
            case "LicenseIssued":
                number = a["licenseId"]
                self.terms[number], self.holders[number], self.ends[number] = a["terms"], a["holder"], 0
            case "LicenseRevoked" | "LicenseSurrendered":
                self.ends[a["licenseId"]] = _ENDS[log.name]
            case "LicenseSuspended":
                self.suspended[a["licenseId"]] = a["suspended"]
            case "LicenseOffered":
                self.offered[a["licenseId"]] = a["offered"]
            case "LicensePassedOn" if a["resale"]:
                self.offered[a["source"]] = False
                self.ends[a["source"]] = self.ends[a["source"]] or 3
            case "SubscriptionUpdate" if a["expiration"]:
                expiry = 0 if a["expiration"] == 2**64 - 1 else a["expiration"]
                number = a["tokenId"]
                self.terms[number] = self.terms[number] & ~((2**40 - 1) << 18) | expiry << 18

    def _ModelNFT(self, log: Log, a: dict[str, Any]) -> None:
        match log.name:
            case "ModelRegistered":
                self.owners[a["modelId"]] = a["owner"]
            case "Transfer" if a["from"] != NATIVE:
                self.owners[a["id"]] = a["to"]
                self.nonces[a["id"]] += 1
            case "ModelFrozen" | "ModelFrozenByVerdict":
                self.frozen[a["modelId"]] = a["until"]
            case "FreezeLifted":
                self.frozen[a["modelId"]] = log.time
