"""The report's sections about people, papers, licenses, income and oversight, recomputed from the chain's events.

Part of `check_report`. States are folded from events; what the contracts' views say is held against that where a
figure is money. Nothing of the demo is imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zhiyi import Zhiyi
from zhiyi.chain import Event
from zhiyi.cid import cid_of, cid_v0_from_digest
from zhiyi.errors import ZhiyiError
from zhiyi.types import (
    Basis,
    CaseFile,
    CaseState,
    Channel,
    ComplaintOutcome,
    DemandState,
    LicenseTerms,
    Order,
    Review,
    RoyaltyTerms,
    SubjectKind,
    Verdict,
    keccak,
    model_of_license,
    to_address,
    to_hex,
)

BPS = 10_000
VERDICT_FREEZE = 30 * 86_400
NOBODY = "0x" + "0" * 40


class Market:
    """Everything that events say of the market; `now` is the time of the last block, unix seconds."""

    def __init__(self, client: Zhiyi, folder: Path, roles: Mapping[str, str], now: int) -> None:
        self.client, self.folder, self.roles, self.now = client, folder, roles, now
        self._orders = {
            event["licenseId"]: Order.from_abi(event["order"])
            for event in self._events("LicenseEscrow", "OrderOpened")
        }

    def sections(self) -> dict[str, Any]:
        """By name, in the report's order."""
        return {
            "identities": list(self.identities()),
            "registry": list(self.registry()),
            "licenses": list(self.licenses()),
            "sales": {"renewals": list(self.renewals()), "models": list(self.model_sales())},
            "channels": list(self.channels()),
            "income": list(self.income()),
            "oversight": self.oversight(),
            "model_cases": list(self.model_cases()),
        }

    def _events(self, contract: str, *names: str) -> list[Event]:
        """Events of these names, in the chain's order."""
        at = self.client.deployment.contract(contract)
        found = [event for name in names for event in self.client.chain.events(at, name, from_block=0)]
        return sorted(found, key=lambda event: (event.block_number, event.log_index))

    # -- people ---------------------------------------------------------------------------------

    def identities(self) -> Iterator[dict[str, Any]]:
        """What was recorded last and not revoked or withdrawn; it counts until it expires, up to the issuer's tier."""
        tiers = {event["issuer"]: event["maxTier"] for event in self._events("IdentityRegistry", "IssuerSet")}
        names = ("Attested", "AttestationRevoked", "AttestationWithdrawn")
        state: dict[str, Event] = {}
        for event in self._events("IdentityRegistry", *names):
            subject = to_address(event["subject"])
            if event.name == "Attested":
                state[subject] = event
            elif subject in state and event["issuer"] == state[subject]["issuer"]:
                del state[subject]
        claims = json.loads((self.folder / "issuer" / "claims.json").read_text(encoding="utf-8"))
        for account in self.roles.values():
            if account not in state:
                continue
            event = state[account]
            known = claims[account]
            if keccak(bytes.fromhex(known["salt"][2:]) + known["claim"].encode()) != event["claimHash"]:
                raise ZhiyiError(f"issuer/claims.json does not open the claim of {account}")
            counts = min(event["tier"], tiers[event["issuer"]]) if self.now < event["expiry"] else 0
            yield {
                "account": account,
                "tier": counts,
                "attested_tier": event["tier"],
                "issuer": event["issuer"],
                "expiry": event["expiry"],
                "claim_hash": to_hex(event["claimHash"]),
            }

    # -- papers ---------------------------------------------------------------------------------

    def registry(self) -> Iterator[dict[str, Any]]:
        names = (
            "ModelRegistered",
            "VersionAdded",
            "ModelReviewed",
            "PreferencesChanged",
            "Transfer",
            "ModelFrozen",
            "ModelFrozenByVerdict",
            "FreezeLifted",
            "ModelDelisted",
        )
        models: dict[int, dict[str, Any]] = {}
        added: dict[int, str] = {}
        for event in self._events("ModelNFT", *names):
            model_id = list(event.args.values())[2] if event.name == "Transfer" else event["modelId"]
            if event.name == "ModelRegistered":
                models[model_id] = _registered(event)
                continue
            if event.name == "Transfer" and model_id not in models:
                continue  # the minting, which comes first
            self._fold(models[model_id], added, event)
        yield from models.values()

    def _fold(self, row: dict[str, Any], added: dict[int, str], event: Event) -> None:
        model_id = row["model_id"]
        if event.name == "Transfer":
            row["owner"] = event["to"]
        elif event.name == "VersionAdded":
            added[model_id] = to_hex(event["weightsRoot"])
            row["metadata_cid"] = cid_v0_from_digest(event["metadataDigest"])
            row["waiting"], row["review"] = True, Review.PENDING.name
        elif event.name == "ModelReviewed":
            row["waiting"] = False
            if model_id not in added:
                row["review"] = Review(event["review"]).name
                return
            row["review"] = Review.APPROVED.name
            root = added.pop(model_id)
            if event["review"] == Review.APPROVED:
                row["versions"].append(root)
        elif event.name == "PreferencesChanged":
            row["metadata_cid"] = cid_v0_from_digest(event["metadataDigest"])
            row["preferences"].append([event["preferences"], row["metadata_cid"]])
        elif event.name == "ModelDelisted":
            row["delisted"] = event["until"] > self.now
        else:
            row["frozen"] = event.name != "FreezeLifted" and event["until"] > self.now

    # -- licenses -------------------------------------------------------------------------------

    def licenses(self) -> Iterator[dict[str, Any]]:
        names = (
            "LicenseIssued",
            "LicenseRevoked",
            "LicenseSurrendered",
            "LicenseSuspended",
            "LicensePassedOn",
            "SubscriptionUpdate",
        )
        rows: dict[int, dict[str, Any]] = {}
        for event in self._events("LicenseNFT", *names):
            if event.name == "LicenseIssued":
                rows[event["licenseId"]] = self._issued(event)
            elif event.name == "LicenseRevoked":
                rows[event["licenseId"]]["end"] = "REVOKED"
            elif event.name == "LicenseSurrendered":
                rows[event["licenseId"]]["end"] = "SURRENDERED"
            elif event.name == "LicenseSuspended":
                rows[event["licenseId"]]["suspended"] = event["suspended"]
            elif event.name == "LicensePassedOn" and event["resale"]:
                rows[event["source"]]["end"] = "RESOLD"
        for event in self._events("LicenseEscrow", "LicenseRenewed", "CaseExecuted", "BondReleased"):
            if not event["licenseId"]:
                continue  # a case against a model
            row = rows[event["licenseId"]]
            if event.name == "LicenseRenewed":
                row["expires_at"] = event["expiry"]
            else:
                row["bond"] -= event["slashed" if event.name == "CaseExecuted" else "amount"]
        for license_id, row in rows.items():
            expired = 0 < row["expires_at"] <= self.now
            row["active"] = row["end"] == "NONE" and not row["suspended"] and not expired
            kept = self.client.vault.bond_of(license_id).amount
            if kept != row["bond"]:
                raise ZhiyiError(
                    f"the vault keeps {kept} under license {license_id}, events say {row['bond']}"
                )
            yield row

    def _issued(self, event: Event) -> dict[str, Any]:
        sale = self._orders[event["licenseId"]].sale
        return {
            "license_id": event["licenseId"],
            "model_id": event["modelId"],
            "holder": event["holder"],
            "basis": sale.basis.name,
            "source": sale.source,
            "end": "NONE",
            "active": True,
            "suspended": False,
            "expires_at": LicenseTerms.unpack(event["terms"]).expires_at,
            "bond": sale.bond,
        }

    # -- money ----------------------------------------------------------------------------------

    def renewals(self) -> Iterator[dict[str, Any]]:
        for event in self._events("LicenseEscrow", "LicenseRenewed"):
            yield {name: event.args[name] for name in ("holder", "price", "expiry")} | {
                "license_id": event["licenseId"]
            }

    def model_sales(self) -> Iterator[dict[str, Any]]:
        pulled = self._events("RoyaltyLedger", "RoyaltyPulled")
        for event in self._events("LicenseEscrow", "ModelSold"):
            settled = [one["amount"] for one in pulled if one.tx_hash == event.tx_hash]
            yield {
                "model_id": event["modelId"],
                "seller": event["seller"],
                "buyer": event["buyer"],
                "price": event["price"],
                "to_seller": sum(settled),
            }

    def channels(self) -> Iterator[dict[str, Any]]:
        names = ("ChannelOpened", "ChannelToppedUp", "VoucherRedeemed", "ChannelClosed")
        rows: dict[bytes, dict[str, Any]] = {}
        for event in self._events("UsageChannel", *names):
            key = bytes(event["channelId"])
            if event.name == "ChannelOpened":
                rows[key] = _opened(event)
            elif event.name == "ChannelToppedUp":
                rows[key]["deposited"] += event["amount"]
            elif event.name == "VoucherRedeemed":
                rows[key]["redeemed"] = event["redeemed"]
                rows[key]["to_model"] += event["toModel"]
                rows[key]["to_provider"] += event["toProvider"]
            else:
                rows[key] |= {"refund": event["refund"], "phase": "CLOSED"}
        yield from rows.values()

    def income(self) -> Iterator[dict[str, Any]]:
        """By source, from the events of what was sold; gross, inherited and left from ledger and vault."""
        by: dict[int, dict[str, int]] = {}

        def add(model_id: int, source: str, amount: int) -> None:
            sums = by.setdefault(model_id, {})
            if amount:
                sums[source] = sums.get(source, 0) + amount

        terms = {event["licenseId"]: event["terms"] for event in self._events("LicenseNFT", "LicenseIssued")}
        for event in self._events(
            "LicenseEscrow", "OrderSettled", "LicenseRenewed", "ModelSold", "CaseExecuted"
        ):
            if event.name == "ModelSold":
                add(event["modelId"], "model_sales", event["price"])
                continue
            model_id = model_of_license(event["licenseId"])
            if event.name == "LicenseRenewed":
                add(model_id, "renewals", event["price"])
            elif event.name == "CaseExecuted":
                add(model_id, "slashes", event["toOwner"])
            else:
                sale = self._orders[event["licenseId"]].sale
                if sale.basis is Basis.OWNER:
                    add(model_id, "sales", sale.price)
                else:
                    share = LicenseTerms.unpack(terms[sale.source]).onward_bps
                    add(model_id, "onward", sale.price * share // BPS)
        for channel in self.channels():
            add(channel["model_id"], "usage", channel["to_model"])
        for event in self._events("ModelNFT", "ModelRegistered"):
            model_id = event["modelId"]
            held = self.client.vault.royalty_of(model_id)
            yield {
                "model_id": model_id,
                "by": dict(sorted(by.get(model_id, {}).items())),
                "gross": held.gross,
                "inherited": self.client.royalties.inherited(model_id),
                "left": held.balance,
            }

    def owner_had_earned(self, model_id: int) -> int:
        """The owner's share of all income up to the sale of the model, by the model's own terms."""
        sold = next(e for e in self._events("LicenseEscrow", "ModelSold") if e["modelId"] == model_id)
        paid = [e for e in self._events("LicenseEscrow", "RoyaltyPaid") if e["modelId"] == model_id]
        gross: int = sum(
            e["amount"] for e in paid if e.block_number < sold.block_number or e.tx_hash == sold.tx_hash
        )
        registered = next(e for e in self._events("ModelNFT", "ModelRegistered") if e["modelId"] == model_id)
        terms = RoyaltyTerms.from_abi(registered["royalties"])
        net = gross * (BPS - terms.platform_bps - sum(a.bps for a in terms.ancestors)) // BPS
        own: int = net * (BPS - sum(split.bps for split in terms.collaborators)) // BPS
        return own

    # -- oversight ------------------------------------------------------------------------------

    def oversight(self) -> dict[str, Any]:
        answers = {e["complaintId"]: e for e in self._events("Oversight", "ComplaintAnswered")}
        ends = {e["demandId"]: e for e in self._events("Oversight", "DemandAnswered", "DemandUnanswered")}
        return {
            "complaints": [
                {
                    "complaint_id": event["complaintId"],
                    "kind": SubjectKind(event["kind"]).name,
                    "subject_id": event["subjectId"],
                    "complainant": event["complainant"],
                    "evidence_cid": cid_of(event["cidDigest"]),
                    "outcome": ComplaintOutcome(
                        answers[event["complaintId"]]["outcome"] if event["complaintId"] in answers else 0
                    ).name,
                    "overdue": event["complaintId"] not in answers and self.now > event["answerDue"],
                }
                for event in self._events("Oversight", "ComplaintFiled")
            ],
            "demands": [_demand(event, ends) for event in self._events("Oversight", "DisclosureDemanded")],
            "acts": list(self._acts()),
        }

    def _acts(self) -> Iterator[dict[str, Any]]:
        """What the regulator did, with the reason's text as it was published beside the hash."""
        texts = json.loads((self.folder / "regulator" / "reasons.json").read_text(encoding="utf-8"))
        by_hash = {keccak(text.encode()): text for text in texts}
        for event in self._events("ModelNFT", "ModelFrozen", "FreezeLifted", "ModelDelisted"):
            yield {
                "act": event.name,
                "model_id": event["modelId"],
                "until": event.args.get("until", 0),
                "reason": by_hash[bytes(event["reasonHash"])],
            }

    # -- cases against a model ------------------------------------------------------------------

    def model_cases(self) -> Iterator[dict[str, Any]]:
        """Who ruled, and what each end paid to whom, as the events of case bonds and stakes have it."""
        opened = [e for e in self._events("MisuseCourt", "CaseOpened") if not e["licenseId"]]
        ruled = self._by_case("MisuseCourt", "Ruled")
        challenged = self._by_case("MisuseCourt", "Challenged")
        finals = self._by_case("MisuseCourt", "VerdictFinal")
        executed = self._by_case("LicenseEscrow", "CaseExecuted")
        frozen = self._by_case("ModelNFT", "ModelFrozenByVerdict")
        lost = self._by_case("OracleCommittee", "SignersSlashed")
        slashes = self._events("LicenseEscrow", "StakeSlashed")
        for event in opened:
            key, file = bytes(event["caseId"]), CaseFile.from_abi(event["file"])
            ruling = ruled.get(key)
            judge = to_address(ruling["authority"]) if ruling else ""
            from_stakes = sum(
                e["amount"] for e in slashes if ruling and e.tx_hash == ruling.tx_hash and e["to"] == judge
            )
            paid = self._paid(key)
            yield {
                "case_id": to_hex(key),
                "kind": file.kind.name,
                "model_id": file.model_id,
                "accused": file.accused,
                "challenger": challenged[key]["challenger"] if key in challenged else "",
                "judge": judge,
                "ruling": "" if not ruling else "UPHELD" if ruling["upheld"] else "OVERTURNED",
                "state": "EXECUTED" if key in executed else CaseState(finals[key]["state"]).name,
                "to_reporter": paid.get(file.reporter, 0)
                + (executed[key]["bondBack"] if key in executed else 0),
                "to_accused": paid.get(file.accused, 0),
                "to_judge": paid.get(judge, 0) + from_stakes,
                "stakes_lost": lost[key]["slashed"] if key in lost else 0,
                "fee": sum(
                    e["amount"] for e in self._events("MisuseCourt", "FeeClaimed") if e["caseId"] == key
                ),
                "frozen_until": frozen[key]["until"] if key in frozen else 0,
            }

    def _by_case(self, contract: str, name: str) -> dict[bytes, Event]:
        """The last such event of each case."""
        return {bytes(event["caseId"]): event for event in self._events(contract, name)}

    def _paid(self, case_id: bytes) -> dict[str, int]:
        """Wei by account out of what was locked under a case; what an execution gives back is not among it."""
        sums: dict[str, int] = {}
        for event in self._events("LicenseEscrow", "CaseBondPaid"):
            if event["caseId"] == case_id:
                sums[event["to"]] = sums.get(event["to"], 0) + event["amount"]
        return sums

    # -- how it had to end ----------------------------------------------------------------------

    def ended_well(self, found: Mapping[str, Any]) -> bool:
        """Everybody has what the contracts promise; amounts are those of orders and terms."""
        return all(
            check(found)
            for check in (
                self._people_are_known,
                self._papers_are_right,
                self._licenses_went_on,
                self._money_is_where_it_belongs,
                self._regulator_kept_its_limits,
                self._labels_were_judged,
                self._appeals_were_paid,
            )
        )

    def _people_are_known(self, found: Mapping[str, Any]) -> bool:
        tiers = {one["account"]: one["tier"] for one in found["identities"]}
        revoked = [event["subject"] for event in self._events("IdentityRegistry", "AttestationRevoked")]
        expected = {"buyer1": 2, "buyer2": 2, "buyer3": 1}
        return tiers == {self.roles[role]: tier for role, tier in expected.items()} and [
            to_address(subject) for subject in revoked
        ] == [self.roles["liar"]]

    def _papers_are_right(self, found: Mapping[str, Any]) -> bool:
        first, rejected, small = found["registry"]
        return (
            [row["review"] for row in found["registry"]] == ["APPROVED", "REJECTED", "APPROVED"]
            and not any(row["waiting"] for row in found["registry"])
            and small["versions"][0] == rejected["versions"][0]  # the same weights, registered anew
            and len(set(small["versions"])) == 2
            and len({bits for bits, _ in small["preferences"]}) == 2
            and small["ancestors"] == [[first["model_id"], 1_000]]
            and (first["owner"], small["owner"]) == (self.roles["creator"], self.roles["heir"])
        )

    def _licenses_went_on(self, found: Mapping[str, Any]) -> bool:
        small = found["registry"][-1]["model_id"]
        rows = {row["basis"]: row for row in found["licenses"] if row["model_id"] == small}
        sold, under, resold = rows["OWNER"], rows["SUBLICENSE"], rows["RESALE"]
        bonds = {name: self._orders[row["license_id"]].sale.bond for name, row in rows.items()}
        (renewal,) = found["sales"]["renewals"]
        return (
            under["source"] == resold["source"] == sold["license_id"]
            and (sold["end"], sold["active"], sold["bond"]) == ("RESOLD", False, 0)
            and (under["end"], under["active"], under["bond"]) == ("REVOKED", False, bonds["SUBLICENSE"])
            and (resold["end"], resold["active"], resold["bond"]) == ("NONE", True, bonds["RESALE"])
            and min(bonds.values()) == bonds["OWNER"] > 0  # passing on shed no bond
            and [sold["holder"], under["holder"], resold["holder"]]
            == [self.roles[role] for role in ("buyer1", "buyer3", "buyer2")]
            and (renewal["license_id"], renewal["expiry"]) == (sold["license_id"], sold["expires_at"])
            and resold["expires_at"] == renewal["expiry"]
            and self._tail_was_kept(sold["license_id"])
        )

    def _tail_was_kept(self, license_id: int) -> bool:
        """The bond left no sooner than a whole tail after it was asked for."""
        asked, released = (
            next(e for e in self._events("LicenseEscrow", name) if e["licenseId"] == license_id)
            for name in ("BondReleaseRequested", "BondReleased")
        )
        left_at = self.client.chain.block(released.block_number).timestamp
        return bool(left_at - asked["at"] >= self._orders[license_id].sale.bond_tail)

    def _money_is_where_it_belongs(self, found: Mapping[str, Any]) -> bool:
        small = found["registry"][-1]["model_id"]
        (sale,) = found["sales"]["models"]
        mine, licensed = found["channels"]
        sources = {name for row in found["income"] for name in row["by"]}
        return (
            all(sum(row["by"].values()) == row["gross"] for row in found["income"])
            and all(
                row["left"] < BPS for row in found["income"]
            )  # all was pulled, but for what rounding leaves
            and sources == {"sales", "renewals", "onward", "model_sales", "usage", "slashes"}
            and found["income"][0]["inherited"] == found["income"][-1]["gross"] * 1_000 // BPS
            and sale["model_id"] == small
            and sale["to_seller"] == self.owner_had_earned(small)
            and (sale["seller"], sale["buyer"]) == (self.roles["creator"], self.roles["heir"])
            and all(
                (row["phase"], row["refund"], row["to_model"] + row["to_provider"])
                == ("CLOSED", row["deposited"] - row["redeemed"], row["redeemed"])
                for row in (mine, licensed)
            )
            and (mine["license_id"], mine["to_provider"]) == (0, 0)
            and licensed["to_model"] == licensed["redeemed"] // 10 > 0
        )

    def _regulator_kept_its_limits(self, found: Mapping[str, Any]) -> bool:
        small = found["registry"][-1]
        acts = found["oversight"]["acts"]
        return (
            [(one["outcome"], one["overdue"]) for one in found["oversight"]["complaints"]]
            == [("UPHELD", False)]
            and [one["state"] for one in found["oversight"]["demands"]] == ["ANSWERED", "UNANSWERED"]
            and [act["act"] for act in acts]
            == ["ModelFrozen", "FreezeLifted", "ModelDelisted", "ModelDelisted", "FreezeLifted"]
            and all(act["model_id"] == small["model_id"] for act in acts)
            and (small["frozen"], small["delisted"]) == (False, False)
        )

    def _labels_were_judged(self, found: Mapping[str, Any]) -> bool:
        cases = [case for case in found["cases"] if case["kind"] == "DISCLOSURE"]
        ends = [(c["decision"], c["state"], c["cured"], c["license_end"], c["slashed"]) for c in cases]
        return ends == [("GUILTY", "CLOSED", True, "NONE", 0), ("GUILTY", "EXECUTED", False, "REVOKED", 0)]

    def _appeals_were_paid(self, found: Mapping[str, Any]) -> bool:
        """The money table of docs/protocol.md, row by row; no subject froze the model twice."""
        params, heir = self.client.cases.params(), self.roles["heir"]
        cases = [case for case in found["cases"] if not case["license_id"]]
        bonds = [case["bond"] for case in cases]
        fees = [bond * params.fee_bps // BPS for bond in bonds]
        locked = params.challenge_bond
        rows = found["model_cases"]
        posted = self._by_case("MisuseCourt", "VerdictPosted")
        ids = [bytes.fromhex(row["case_id"][2:]) for row in rows]
        subjects = [Verdict.from_abi(posted[case_id]["verdict"]).subject for case_id in ids]
        by_verdict = self._events("ModelNFT", "ModelFrozenByVerdict")
        frozen_at = [self.client.chain.block(event.block_number).timestamp for event in by_verdict]
        *_, lifted = self._events("ModelNFT", "FreezeLifted")
        lifted_at = self.client.chain.block(lifted.block_number).timestamp
        names = ("kind", "judge", "ruling", "state", "challenger")
        sums = ("to_reporter", "to_accused", "to_judge", "stakes_lost", "fee", "frozen_until")
        return (
            [[row[name] for name in names] for row in rows]
            == [
                ["OWNERSHIP", params.appeal_authority, "OVERTURNED", "CLEARED", heir],
                ["UNDECLARED_PARENT", params.last_instance, "UPHELD", "EXECUTED", heir],
                ["UNDECLARED_PARENT", "", "", "CLOSED", ""],
            ]
            and [[row[name] for name in sums] for row in rows]
            == [
                [0, bonds[0] + locked, locked, locked, 0, 0],
                [bonds[1] - fees[1], 0, locked, 0, fees[1], frozen_at[0] + VERDICT_FREEZE],
                [bonds[2] - fees[2], 0, 0, 0, fees[2], 0],
            ]
            and all(row["accused"] == heir for row in rows)
            and all(
                (case["decision"], case["slashed"], case["signatures"]) == ("GUILTY", 0, 2) for case in cases
            )
            and [e["caseId"] for e in self._events("MisuseCourt", "Escalated")] == [ids[1]]
            and subjects[1] == subjects[2] != subjects[0]
            and len(by_verdict) == 1
            and lifted_at < by_verdict[0]["until"]
        )


def _registered(event: Event) -> dict[str, Any]:
    cid = cid_v0_from_digest(event["metadataDigest"])
    return {
        "model_id": event["modelId"],
        "owner": event["owner"],
        "review": Review.PENDING.name,
        "waiting": True,
        "versions": [to_hex(event["weightsRoot"])],
        "preferences": [[event["preferences"], cid]],
        "metadata_cid": cid,
        "ancestors": [[a.model_id, a.bps] for a in RoyaltyTerms.from_abi(event["royalties"]).ancestors],
        "delisted": False,
        "frozen": False,
    }


def _opened(event: Event) -> dict[str, Any]:
    channel = Channel.from_abi(event["channel"])
    return {
        "channel_id": to_hex(event["channelId"]),
        "model_id": channel.model_id,
        "payer": channel.payer,
        "provider": channel.provider,
        "license_id": channel.license_id,
        "deposited": channel.amount,
        "redeemed": 0,
        "to_model": 0,
        "to_provider": 0,
        "refund": 0,
        "phase": "OPEN",
    }


def _demand(made: Event, ends: Mapping[int, Event]) -> dict[str, Any]:
    end = ends.get(made["demandId"])
    answered = end is not None and end.name == "DemandAnswered"
    state = DemandState.OPEN if end is None else DemandState.ANSWERED if answered else DemandState.UNANSWERED
    return {
        "demand_id": made["demandId"],
        "kind": SubjectKind(made["kind"]).name,
        "subject_id": made["subjectId"],
        "addressee": made["addressee"],
        "state": state.name,
        "answer_cid": cid_of(end["digest"]) if end is not None and answered else "",
    }
