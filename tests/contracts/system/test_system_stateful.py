"""Everything at once, in any order: a walk through the whole deployed system beside plain Python books.

Every step is sent to the chain; what the books forbid must be refused there, for a reason that they give. After every
step the chain is read and each invariant asked. In the end everything that is still open is ended by whoever may,
everybody takes his money out, and the vault must be empty but for dust.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test
from market import DAY, ETHER, NATIVE, State, deploy
from reference_books import LIVE, Books, ModelState, Stake
from reference_court import Court
from walk_court_invariants import ChannelInvariants, CourtInvariants
from walk_invariants import DUST
from walk_machine import Move
from walk_market import MarketMoves
from walk_people import PeopleMoves
from walk_stage import OWNERS, STAKE, THRESHOLD, Stage, build
from walks import is_deep, walk


class Walk(CourtInvariants, ChannelInvariants, MarketMoves, PeopleMoves):
    """The whole system; `courtly` walks are mostly of cases and channels."""

    courtly: bool

    def moves(self) -> tuple[list[Move], list[Move]]:
        market, court, people = self.market_moves(), self.court_moves(), self.people_moves()
        if not self.courtly:
            return market
        now = [group for group in (market[0], *[court[0]] * 3, people[0]) if group]
        later = [group for group in (*[court[1]] * 3, people[1]) if group]
        return self.pick(*now), self.pick(*later) if later else []

    def thinkable(self) -> list[Move]:
        return [*self.market_thoughts(), *self.court_thoughts(), *self.people_thoughts()]

    # ---------------------------------------------------------------- everything ends

    def end_everything(self) -> None:
        """Whoever may ends what is open; then everybody takes out all he has, and the vault keeps dust alone."""
        self.clock += 40 * DAY  # no pause and no freeze lasts as long
        for number, p in self.books.purchases.items():
            while p.state in LIVE:
                self.clock = max(self.clock, p.deadline)
                (self.settle if p.state == State.REVEALED else self.refund)(number)
        for key, fee in list(self.books.fees.items()):
            self.clock = max(self.clock, fee.by)
            self.reclaim_fee(key)
        self.end_cases()
        self.end_channels()
        self.end_bonds()
        self.end_royalties()
        self.end_stakes()
        for (account, token), amount in list(self.books.free.items()):
            if amount:
                self.take_out(self.name(account), token, amount)
        self.look()
        self.only_dust_stays()
        self.reached["moves"] += self.moved
        for case in self.court.cases.values():
            self.reached[f"{case.file.kind.name} {case.state.name}"] += 1
        for p in self.books.purchases.values():
            self.reached[f"{p.state.name.lower()} on basis {p.order.sale.basis}"] += 1

    def end_bonds(self) -> None:
        for number, license_ in self.books.licenses.items():
            self.books.now = self.clock
            if not self.books.ended(number):
                name = self.name(license_.holder)
                self.step(
                    lambda n=number, a=license_.holder: self.books.surrender(n, sender=a),
                    "LicenseNFT", "surrender", number, by=name,
                )  # fmt: skip
            bond = self.books.bonds[number]
            if bond.amount and bond.asked is None:
                self.request_release(number)
        for number, bond in self.books.bonds.items():
            if bond.amount:
                self.books.now = self.clock
                self.clock = max(self.clock, self.books.release_at(number))
                self.release(number)

    def end_royalties(self) -> None:
        for model in sorted(
            self.stage.models, reverse=True
        ):  # descendants first: what they pass on is pulled after
            for token in self.tokens:
                for share in self.books.shares(model):
                    if self.books.due(model, token, share):
                        self.pull(model, token, share)

    def end_stakes(self) -> None:
        members = [
            name for name in self.stage.people if name in ("fred", "flora") or name.startswith("operator")
        ]
        for name in members:
            self.step(lambda: None, "OracleCommittee", "requestExit", by=name)
        self.clock += 90 * DAY
        for name in members:
            account = self.address(name)

            def left(account: str = account) -> None:
                stake = self.books.stakes[account]
                assert stake.locked == 0
                self.books.free[account, NATIVE] += stake.staked
                stake.staked = 0

            self.step(left, "OracleCommittee", "leave", by=name)

    def only_dust_stays(self) -> None:
        for token in self.tokens:
            pools = [self.books.pools[model, token].balance for model in self.stage.models]
            assert all(0 <= left < DUST for left in pools)
            assert self.seen.vault[token] == sum(pools)


def opening_books(stage: Stage) -> Court:
    """The books as the setup left the system."""
    books = Books(stage.address("treasury"), stage.system.params.min_fingerprinter_stake)
    books.now = stage.time
    books.listed.add(stage.token.address)
    for name, person in stage.people.items():
        books.came_in[NATIVE] += 100 * ETHER
        books.free[person.address, NATIVE] += 100 * ETHER
        if name in ("fred", "flora") or name.startswith("operator"):
            books.free[person.address, NATIVE] -= STAKE
            books.stakes[person.address] = Stake(STAKE, 0, name in ("fred", "flora"))
    for owner, (number, model) in zip(OWNERS, stage.models.items(), strict=True):
        royalties = model.royalties
        books.models[number] = ModelState(stage.address(owner), royalties.collaborators, royalties.ancestors)
    seats = [operator.address for operator in stage.operators]
    arbiter, last = stage.address("arbiter"), stage.address("last")
    return Court(
        books, stage.system.params.court, arbiter=arbiter, last=last, seats=seats, threshold=THRESHOLD
    )


MUST_REACH = {
    "open", "revealKey", "complain", "accept", "settle", "refund", "rangeClaim", "payPrepareFee",
    "reclaimPrepareFee", "earnPrepareFee", "renew", "surrender", "requestBondRelease", "releaseBond", "buyModel",
    "pullOwner", "pullAncestor", "pullCollaborator", "pullPlatform", "freeze", "pauseOpening", "cancelAll",
    "settled on basis 0", "settled on basis 1", "settled on basis 2",
}  # fmt: skip


MUST_JUDGE = {
    "openCase", "openShare", "shareMissed", "postVerdict", "lapse", "challenge", "rule", "requestService", "finalize",
    "execute", "claimFee", "redeem", "close", "topUp", "requestClose", "attest",
}  # fmt: skip


@pytest.mark.parametrize(
    ("courtly", "must_reach"), [(False, MUST_REACH), (True, MUST_JUDGE)], ids=["market", "court"]
)
def test_the_system_follows_the_books(
    project: Any, accounts: Any, courtly: bool, must_reach: set[str]
) -> None:
    stage = build(deploy(project, accounts), project)
    reached: Counter[str] = Counter()
    members = {"stage": stage, "start": opening_books(stage), "reached": reached, "courtly": courtly}
    steps = walk(10, 80) if courtly else walk(14, 60)
    run_state_machine_as_test(type("SystemWalk", (Walk,), members), settings=steps)
    assert is_deep() or set(reached) >= must_reach, (must_reach - set(reached), reached)
