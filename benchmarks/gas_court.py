"""Gas of the court's steps, as whole transactions on the deployed system; rows for `benchmarks/gas.py`.

"Repeat" means here that reporter, treasury, arbiter and the model's royalties have been paid before, so that no balance
slot is new. The case is a LEAK case with an opened share. Report bonds come from the free balance; in the row
`open_case_value` they are sent along.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(ROOT / "benchmarks"),
    str(ROOT / "tests" / "contracts"),
    str(ROOT / "tests" / "contracts" / "court"),
]

from courtroom import (  # noqa: E402
    ETHER,
    Courtroom,
    Decision,
    Kind,
    LicenseRecord,
    Params,
    share_levels,
    share_seeds,
)
from eth_abi.abi import encode  # noqa: E402
from eth_utils.crypto import keccak  # noqa: E402
from market import Model, Order, Parcel, System, make_parcel, terms  # noqa: E402

from report import Row  # noqa: E402

CANARY_DOMAIN = keccak(b"zhiyi.canary.v1")
DISCLOSURE_DUTY = 16
BUDGETS = {
    "open_case": 100_000,
    "verdict_3of5": 95_000,
    "verdict_5of7": 105_000,
    "challenge": 70_000,
    "execute_repeat": 90_000,
}


class SystemCourtroom(Courtroom):
    """The courtroom over the deployed system: licenses come from real purchases."""

    system: System
    model: Model
    orders: dict[int, Order]

    @classmethod
    def of(cls, system: System, seats: int = 5, threshold: int = 3) -> SystemCourtroom:
        """Registers a model of its own, stakes its fingerprinter where needed and seats the first operators."""
        court = system.court.params()
        params = Params(
            min_report_bond=court.minReportBond,
            fee_bps=court.feeBps,
            post_window=court.postWindow,
            challenge_window=court.challengeWindow,
            ruling_window=court.rulingWindow,
            last_window=court.lastWindow,
            mark_age=court.markAge,
            reporter_bps=court.reporterBps,
            slash_bps=tuple(court.slashBps),
            challenge_bond=court.challengeBond,
            missed_share_penalty=court.missedSharePenalty,
        )
        room = cls(
            params, system.manager, system.escrow, system.licenses, system.models, system.royalties, system.committee,
            system.court, system.deployer, system.creator, system.buyer, system.collaborator, system.fingerprinter,
            system.stranger, system.registrar, system.regulator, system.treasury, system.stranger,
        )  # fmt: skip
        room.system, room.orders = system, {}
        room.operator_stake = system.committee.minStake(1)
        room.model = system.register(system.creator, "court gas")
        system.approve(room.model)
        room.model_id = room.model.id
        if system.committee.memberOf(system.fingerprinter).role == 0:
            system.stake(system.fingerprinter, 5 * ETHER)
        room.seat([room.join(f"gas operator {i}") for i in range(seats)], threshold)
        for account in (room.reporter, room.holder):
            system.fund(account, 20 * ETHER)
        return room

    def seat(self, operators: list[Any], threshold: int) -> None:
        """The next epoch, active."""
        self.operators = sorted(operators, key=lambda operator: int(operator.signer, 16))
        epoch = self.committee.currentEpoch() + 1
        self.committee.announceEpoch(self.signers, threshold, sender=self.admin)
        self.wait_until(self.committee.activeFrom(epoch) + 1)
        self.committee.activateEpoch(epoch, sender=self.stranger)

    def place_license(self, number: int = 1, **changes: Any) -> int:
        """Bought, settled and old enough for a LEAK case. Price .1, bond .2 ether."""
        parcel = make_parcel(f"court gas {number}")
        order = self.marked_order(self.model, parcel, number, **changes)
        self.system.buy(order, parcel)
        return self.enter(order)

    def marked_order(self, model: Model, parcel: Parcel, number: int, **changes: Any) -> Order:
        """An order whose confirm shares the courtroom can open."""
        id_ = model.id << 28 | number
        commit = share_levels(id_, share_seeds(str(id_)))[-1][0]
        return self.system.make_order(model, parcel, number, markCommit=commit, **changes)

    def enter(self, order: Order) -> int:
        """Remembers a settled order's license, and waits until it is old enough."""
        license_id = order.delivery.licenseId
        self.records[license_id] = LicenseRecord(
            self.system.order_hash(order),
            order.delivery.copyRoot,
            order.delivery.markCommit,
            order.sale.termsHash,
            order.delivery.fingerprinter,
        )
        self.orders[license_id] = order
        self.wait(self.params.mark_age)
        return int(license_id)


def measure(room: SystemCourtroom) -> dict[str, int]:
    """Gas used by name of the step."""
    gas: dict[str, int] = {}

    def note(name: str, receipt: Any) -> Any:
        gas[name] = int(receipt.gas_used)
        return receipt

    def opened(name: str, license_id: int, kind: Kind = Kind.LEAK, *, value: int = 0) -> Any:
        file = room.open(license_id, kind, bond=ETHER // 2, value=value)
        note(name, room.last)
        return file

    # Everybody has been paid once before what is measured.
    first = room.guilty_leak(room.place_license(1), bucket=40, value=0, bond=ETHER // 2)
    room.past(first)
    note("execute_first", room.call("execute", first))

    license_id = room.place_license(2)
    file = opened("open_case", license_id)
    note("open_share", room.open_share(file))
    note("verdict_3of5", room.post(file, bucket=20))
    room.past(file)
    note("execute_repeat", room.call("execute", file))
    note("claim_fee", room.call("claimFee", file, 0))

    license_id = room.place_license(3)
    file = opened("open_case_value", license_id, value=ETHER // 2)
    room.open_share(file)
    room.post(file, bucket=40)
    note("challenge", room.challenge(file, room.holder, value=0))
    note("rule_uphold", room.call("rule", file, True, by=room.arbiter))
    note("execute_to_treasury", room.call("execute", file))

    license_id = room.place_license(4)
    file = opened("open_terms", license_id, Kind.TERMS)
    note("verdict_3of5_terms", room.post(file, bucket=20, samples=3))
    file = room.open(license_id, bond=ETHER // 2, value=0)
    room.open_share(file)
    room.post(file, Decision.NOT_GUILTY, bucket=0)
    room.past(file)
    note("finalize_dismissed", room.call("finalize", file))

    measure_defences(room, note)

    # A third of the seats an epoch: five, six, seven.
    room.seat([*room.operators, room.join("gas operator 5")], 4)
    room.seat([*room.operators, room.join("gas operator 6")], 5)
    file = room.open(license_id, bond=ETHER // 2, value=0)
    room.open_share(file, 1)
    note("verdict_5of7", room.post(file, bucket=20, seats=(0, 1, 2, 3, 4)))
    measure_canary(room, note)
    return gas


def measure_defences(room: SystemCourtroom, note: Callable[[str, Any], Any]) -> None:
    """An accused who is served, and one who restores the label."""
    file = room.guilty_leak(room.place_license(5), value=0, bond=ETHER // 2)
    note("request_service", room.call("requestService", file, b"\x0e" * 32, by=room.holder))
    note("serve", room.call("serve", file, 0, b"\x5e" * 32, by=room.reporter))

    labelled = room.place_license(6, terms=terms(flags=DISCLOSURE_DUTY))
    file = room.open(labelled, Kind.DISCLOSURE, bond=ETHER // 2, value=0)
    note("verdict_disclosure", room.post(file))
    cure = room.verdict(file, Decision.NOT_GUILTY, case_id=bytes(room.court.cureIdOf(file.id)))
    signed = room.signers, 0b111, room.sign(cure, (0, 1, 2))
    note("cure", room.call("cure", file, cure.as_tuple(), *signed))


def measure_canary(room: SystemCourtroom, note: Callable[[str, Any], Any]) -> None:
    """A canary among 1,024, on which one operator was wrong."""
    committee, evidence, salt, samples = room.committee, keccak(text="canary"), b"\x5a" * 32, 65_536
    types = ["bytes32", "bytes32", "bytes32", "uint8", "uint8", "uint32"]
    leaf = [CANARY_DOMAIN, salt, evidence, int(Decision.NOT_GUILTY), 0, samples]
    path = [keccak(text=f"canary sibling {i}") for i in range(10)]
    root = keccak(encode(types, leaf))
    for sibling in path:
        root = keccak(b"".join(sorted((root, sibling))))
    note("commit_canaries", committee.commitCanaries(1, root, sender=room.admin))
    file = room.open(room.place_license(7), Kind.TERMS, evidence=evidence, bond=ETHER // 2, value=0)
    wrong = room.verdict(file, Decision.GUILTY)
    accused = file.as_tuple(), wrong.as_tuple(), room.sign(wrong, (0,))
    expected = root, salt, int(Decision.NOT_GUILTY), 0, samples, path
    note("accuse_canary", committee.accuseCanary(*accused, expected, sender=room.stranger))
    operator = room.operators[0].account
    note("contest_canary", committee.contestCanary(file.id, b"\x1d" * 32, sender=operator))
    note("rule_canary", committee.ruleCanary(operator, file.id, True, sender=room.arbiter))


WHAT = {
    "open_case": "open a LEAK case, bond from the free balance",
    "open_case_value": "open a LEAK case, bond sent along",
    "open_share": "open a confirm share",
    "verdict_3of5": "post a verdict, 3 of 5 signatures",
    "verdict_5of7": "post a verdict, 5 of 7 signatures",
    "verdict_3of5_terms": "post a TERMS verdict, 3 of 5 signatures; the case's word is new",
    "challenge": "challenge a verdict, bond from the free balance",
    "rule_uphold": "uphold a guilty verdict",
    "execute_repeat": "finalize and execute: slash to reporter and royalties, revoke",
    "execute_to_treasury": "execute after a ruling: slash to reporter, royalties and treasury, revoke",
    "finalize_dismissed": "dismiss a report",
    "claim_fee": "a signer's part of the fee",
    "request_service": "the accused asks to be served",
    "serve": "serve the accused",
    "verdict_disclosure": "post a guilty DISCLOSURE verdict, 3 of 5: the license is suspended",
    "cure": "a passing probe, 3 of 5: the case is closed, the suspension ends",
    "commit_canaries": "commit a root of canaries",
    "accuse_canary": "accuse an operator of a wrong verdict on a canary, one of 1,024",
    "contest_canary": "the accused operator answers",
    "rule_canary": "the authority finds the operator wrong: a part of the stake goes to the treasury",
}


def rows(system: System) -> list[Row]:
    """The court's rows of gas.json, measured on `system`, which keeps what the measuring leaves behind."""
    gas = measure(SystemCourtroom.of(system))
    return [
        Row(id_, what, gas[id_], "gas", 1, BUDGETS.get(id_), "<=" if id_ in BUDGETS else None)
        for id_, what in WHAT.items()
    ]
