"""Plays on the stage: purchases and cases in a line each, for tests that attack them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import pytest
from courtroom import CaseFile, Decision, Kind, LicenseRecord, Verdict, share_levels, share_proof, share_seeds
from eth_utils.address import to_checksum_address
from market import DAY, ETHER, NATIVE, Order, Parcel, State, tree
from quick_node import Log, Reverted
from walk_stage import PARCELS, Stage, order_hash, sale_hash

FAR = 2**40 - 1
GUILTY_SEATS = (0, 1, 2)


@dataclass
class Play:
    """What has been played; every transaction happens one second after the one before, unless time passes."""

    stage: Stage
    numbers: int = 0
    evidence: int = 0
    parcels: dict[int, Parcel] = field(default_factory=dict)

    # ---------------------------------------------------------------- calls

    def __post_init__(self) -> None:
        head = self.stage.node.ask("eth_getBlockByNumber", "latest", False)
        self.stage.time = int(head["timestamp"], 16)

    @property
    def now(self) -> int:
        return self.stage.time

    def wait(self, seconds: int) -> None:
        self.stage.time += seconds

    def at(self, second: int) -> None:
        """The next transaction happens then."""
        self.stage.time = second - 1

    def send(self, contract: str, function: str, *arguments: Any, by: str, value: int = 0) -> list[Log]:
        return self.stage.setup(contract, function, *arguments, by=by, value=value)

    def view(self, contract: str, function: str, *arguments: Any) -> Any:
        return self.stage.view(contract, function, *arguments)

    def address(self, name: str) -> str:
        return self.stage.address(name)

    def simulated(self, contract: str, function: str, *arguments: Any, by: str, at: int) -> None:
        """The transaction as it would go in a block of that second; no block is made. Raises Reverted."""
        face = self.stage.faces[contract]
        data = face.data(function, *arguments)
        self.stage.node.simulate(face.address, data, sender=self.address(by), time=at)

    @contextmanager
    def refuses(self, *errors: str) -> Iterator[None]:
        """The one transaction inside reverts with one of these errors."""
        with pytest.raises(Reverted) as caught:
            yield
        assert caught.value.error in errors, f"{caught.value.error} is not {errors}"

    @contextmanager
    def undone(self) -> Iterator[None]:
        """What happens inside is undone on the chain; `stage.sent` remembers it."""
        stage = self.stage
        before = stage.time, self.numbers, self.evidence, len(stage.history)
        snapshot = stage.node.ask("evm_snapshot")
        try:
            yield
        finally:
            assert stage.node.ask("evm_revert", snapshot), "the node forgot what it was to go back to"
            stage.time, self.numbers, self.evidence, told = before
            del stage.history[told:]

    def free(self, name: str, token: str = NATIVE) -> int:
        return int(self.view("LicenseEscrow", "balanceOf", self.address(name), token))

    # ---------------------------------------------------------------- purchases

    @property
    def model(self) -> int:
        """Anna's, derived from nothing."""
        return next(iter(self.stage.models))

    def order(
        self, *, buyer: str = "emma", owner: str = "anna", parcel: Parcel = PARCELS[None], **changes: Any
    ) -> Order:
        """An order of anna's model that can be opened as it is; its mark's shares are known here."""
        self.numbers += 1
        model, number = changes.pop("model", self.model), changes.pop("number", self.numbers)
        license_id = model << 28 | number
        commit = share_levels(license_id, share_seeds(str(license_id)))[-1][0]
        values = {"openBy": self.now + DAY, "markCommit": commit, "terms": 1, **changes}
        order = self.stage.order(
            model, number, parcel, seller=self.address(owner), buyer=self.address(buyer), **values
        )
        self.parcels[order.delivery.licenseId] = parcel
        return order

    def open(
        self, order: Order, *, by: str | None = None, value: int | None = None, signers: Any = None
    ) -> list[Log]:
        names = self.stage.names
        signed = self.stage.signed(
            order, *(signers or (names[order.sale.seller], names[order.delivery.fingerprinter]))
        )
        due = order.sale.price + order.sale.bond if order.sale.token == NATIVE else 0
        return self.send(
            "LicenseEscrow", "open", order.as_tuple(), *signed, by=by or names[order.delivery.buyer],
            value=due if value is None else value,
        )  # fmt: skip

    def reveal(self, order: Order, *, by: str = "fred", key: bytes | None = None) -> list[Log]:
        key = key or self.parcels[order.delivery.licenseId].key
        return self.send("LicenseEscrow", "revealKey", sale_hash(order), astuple(order.delivery), key, by=by)

    def on(self, order: Order, function: str, *more: Any, by: str = "sam", value: int = 0) -> list[Log]:
        return self.send("LicenseEscrow", function, order.as_tuple(), *more, by=by, value=value)

    def accept(self, order: Order) -> list[Log]:
        return self.on(order, "accept", by=self.stage.names[order.delivery.buyer])

    def buy(self, **changes: Any) -> Order:
        """From the opening to a license."""
        order = self.order(**changes)
        self.open(order)
        self.reveal(order)
        self.accept(order)
        return order

    def revealed(self, **changes: Any) -> Order:
        order = self.order(**changes)
        self.open(order)
        self.reveal(order)
        return order

    def complain(self, order: Order, index: int = 1) -> list[Log]:
        proof = self.parcels[order.delivery.licenseId].proof(index)
        return self.on(order, "complain", *proof, by=self.stage.names[order.delivery.buyer])

    def state(self, order: Order) -> State:
        return State(self.view("LicenseEscrow", "orderState", order.delivery.licenseId)[0])

    def bond(self, order: Order) -> int:
        return int(self.view("LicenseEscrow", "bondOf", order.delivery.licenseId)[0])

    # ---------------------------------------------------------------- cases

    def record(self, order: Order) -> LicenseRecord:
        d = order.delivery
        return LicenseRecord(
            order_hash(order), d.copyRoot, d.markCommit, order.sale.termsHash, d.fingerprinter
        )

    def accuse(
        self,
        order: Order | None,
        kind: Kind = Kind.LEAK,
        *,
        by: str = "hugo",
        bond: int = ETHER,
        evidence: bytes | None = None,
    ) -> CaseFile:
        """Opens a case with a bond out of the reporter's free balance."""
        self.evidence += 1
        evidence = evidence or self.evidence.to_bytes(32, "big")
        license_id = order.delivery.licenseId if order else 0
        logs = self.send(
            "MisuseCourt", "openCase", license_id, self.model, int(kind), evidence, b"\xcd" * 32, bond, by=by
        )
        (opened,) = [log for log in logs if log.name == "CaseOpened"]
        return file_of(opened.args["file"])

    def share(
        self, file: CaseFile, index: int = 0, *, by: str = "fred", order: Order, **changes: Any
    ) -> list[Log]:
        seeds = share_seeds(str(file.license_id))
        proof = share_proof(file.license_id, seeds, index)
        values = {"seed": seeds[index], "proof": proof, "record": self.record(order), **changes}
        return self.send(
            "MisuseCourt", "openShare", file.as_tuple(), values["record"].as_tuple(), index, values["seed"],
            values["proof"], b"\xba" * 32, by=by,
        )  # fmt: skip

    def verdict(self, file: CaseFile, decision: Decision = Decision.GUILTY, **changes: Any) -> Verdict:
        share = self.view("MisuseCourt", "caseState", file.id)[3]
        base = Verdict(
            file.id,
            file.license_id,
            file.kind,
            decision,
            file.evidence_hash,
            share_index=share,
            epoch=file.epoch,
        )
        return replace(base, **changes)

    def digest(self, verdict: Verdict) -> bytes:
        return bytes(self.view("MisuseCourt", "verdictDigest", verdict.as_tuple()))

    def post(
        self, file: CaseFile, decision: Decision = Decision.GUILTY, *, seats: tuple[int, ...] = GUILTY_SEATS,
        verdict: Verdict | None = None, signed: Any = None, **changes: Any,
    ) -> list[Log]:  # fmt: skip
        verdict = verdict or self.verdict(file, decision, **changes)
        signed = signed or self.stage.committee_signs(self.digest(verdict), list(seats))
        return self.send("MisuseCourt", "postVerdict", file.as_tuple(), verdict.as_tuple(), *signed, by="sam")

    def court(self, function: str, file: CaseFile, *more: Any, by: str = "sam") -> list[Log]:
        return self.send("MisuseCourt", function, file.as_tuple(), *more, by=by)

    def until(self, file: CaseFile) -> int:
        """The last second of the case's present state; nothing has been paused."""
        state, _, until, _ = self.view("MisuseCourt", "caseState", file.id)
        return file.post_by if state == 1 else int(until)

    def past(self, file: CaseFile) -> None:
        self.at(self.until(file) + 1)

    def guilty_leak(self, order: Order, *, bucket: int = 20, index: int = 0, **opening: Any) -> CaseFile:
        """A LEAK case up to the posted verdict; the license is old enough."""
        file = self.accuse(order, **opening)
        self.share(file, index, order=order)
        self.post(file, bucket=bucket)
        return file

    def leaked_license(self, **changes: Any) -> Order:
        """A license that is old enough for a LEAK case."""
        order = self.buy(**changes)
        self.wait(8 * DAY)
        return order


def file_of(values: Any) -> CaseFile:
    kind, model, license_id, reporter, accused, *rest = values
    bond, evidence, digest, epoch, authority, opened_at, post_by = rest
    people = [to_checksum_address(person) for person in (reporter, accused, authority)]
    return CaseFile(
        Kind(kind),
        model,
        license_id,
        *people[:2],
        bond,
        evidence,
        digest,
        epoch,
        people[2],
        opened_at,
        post_by,
    )


def copy_path(parcel: Parcel, index: int) -> list[bytes]:
    """The path of a plain chunk under the copy's root."""
    levels = tree(parcel.plain)
    return [level[(index >> i) ^ 1] for i, level in enumerate(levels[:-1])]
