"""Everything at once, in any order: a walk through the whole deployed system beside plain Python books.

Every step is sent to the chain; what the books forbid must be refused there, for a reason that they give. After every
step the chain is read and each invariant asked. In the end everything that is still open is ended by whoever may,
everybody takes his money out, and the vault must be empty but for dust.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis.stateful import run_state_machine_as_test
from market import DAY, ETHER, NATIVE, State, deploy
from reference_books import LIVE, Books, ModelState, Stake
from walk_invariants import DUST, MarketInvariants
from walk_machine import Move
from walk_market import MarketMoves
from walk_stage import OWNERS, STAKE, Stage, build
from walks import is_deep, walk


class Walk(MarketMoves, MarketInvariants):
    """The whole system."""

    def moves(self) -> tuple[list[Move], list[Move]]:
        return self.market_moves()

    def thinkable(self) -> list[Move]:
        return self.market_thoughts()

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
        self.end_bonds()
        self.end_royalties()
        self.end_stakes()
        for (account, token), amount in list(self.books.free.items()):
            if amount:
                self.take_out(self.name(account), token, amount)
        self.look()
        self.only_dust_stays()
        self.reached["moves"] += self.moved
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


def opening_books(stage: Stage) -> Books:
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
    return books


MUST_REACH = {
    "open", "revealKey", "complain", "accept", "settle", "refund", "rangeClaim", "payPrepareFee",
    "reclaimPrepareFee", "earnPrepareFee", "renew", "surrender", "requestBondRelease", "releaseBond", "buyModel",
    "pullOwner", "pullAncestor", "pullCollaborator", "pullPlatform", "freeze", "pauseOpening", "cancelAll",
    "settled on basis 0", "settled on basis 1", "settled on basis 2",
}  # fmt: skip


def test_the_system_follows_the_books(project: Any, accounts: Any) -> None:
    stage = build(deploy(project, accounts), project)
    reached: Counter[str] = Counter()
    members = {"stage": stage, "start": opening_books(stage), "reached": reached}
    run_state_machine_as_test(type("SystemWalk", (Walk,), members), settings=walk(14, 60))
    assert is_deep() or set(reached) >= MUST_REACH, (MUST_REACH - set(reached), reached)
