"""One step of a walk: sent to the chain and told to the books, which must agree; then the chain is read once."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from event_replay import Replay
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from market import NATIVE, isolated
from quick_node import Log, Reverted
from reference_books import Books, Forbidden
from walk_stage import Stage

SEEDS = st.integers(0, 2**32)
Move = tuple[str, dict[str, Any]]  # a method's name and its arguments
LICENSE_VIEWS = ("ownerOf", "termsOf", "endOf", "isSuspended", "isOffered", "isActive")


@dataclass
class Seen:
    """The chain as it is read after a step."""

    free: dict[tuple[str, str], int]
    stakes: dict[str, tuple[int, int]]
    royalties: dict[tuple[int, str], tuple[int, int]]
    inherited: dict[tuple[int, str], int]
    orders: dict[int, tuple[int, int]]
    bonds: dict[int, tuple[int, int, int, int, int]]
    licenses: dict[int, tuple[str, int, int, bool, bool, bool]]  # as LICENSE_VIEWS
    models: dict[int, Any]
    vault: dict[str, int]  # by token


class Machine(RuleBasedStateMachine):
    """`stage`, `start` and `reached` are set on a subclass by the test; moves come from the classes mixed in."""

    stage: Stage
    start: Books
    reached: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.isolation = isolated()
        self.isolation.__enter__()

    @initialize()
    def begin(self) -> None:
        self.books = copy.deepcopy(self.start)
        self.clock = self.start.now
        self.requests = 0
        self.replay = Replay(self.stage.address("treasury"))
        self.replay.fold(self.stage.history)
        self.tokens = [NATIVE, self.stage.token.address]
        self.moved = 0
        self.look()

    def teardown(self) -> None:
        try:
            if hasattr(self, "books"):
                self.end_everything()
        finally:
            self.isolation.__exit__(None, None, None)

    def end_everything(self) -> None:
        raise NotImplementedError

    # ---------------------------------------------------------------- a step

    def step(
        self,
        reference: Callable[[], None],
        contract: str,
        function: str,
        *arguments: Any,
        by: str,
        value: int = 0,
    ) -> bool:
        """Sends it one second later than the step before; the books must agree that it may be, or that it may not."""
        self.clock += 1
        self.books.now = self.stage.time = self.clock
        forbidden: set[str] = set()
        try:
            reference()
        except Forbidden as reasons:
            forbidden = reasons.reasons
        refused = ""
        logs: list[Log] = []
        try:
            logs = self.stage.send(contract, function, *arguments, by=by, value=value)
        except Reverted as error:
            refused = error.error
        if refused:
            assert refused in forbidden, (
                f"{function} was refused for {refused}; the books say {forbidden or 'yes'}"
            )
            self.reached[f"{function}: {refused}"] += 1
            return False
        assert not forbidden, f"{function} was done, and the books forbid it: {forbidden}"
        self.replay.fold(logs)
        self.reached[function] += 1
        return True

    def name(self, address: str) -> str:
        return self.stage.names[address]

    def address(self, name: str) -> str:
        return self.stage.people[name].address

    def to_the_edge(self, deadline: int) -> None:
        """The next step comes in the first second after the deadline, or in its last one."""
        self.clock = max(self.clock, deadline - self.pick(0, 0, 0, 1))

    # ---------------------------------------------------------------- which step

    @rule(seed=SEEDS)
    def move(self, seed: int) -> None:
        """Four of five follow from something alive; the fifth is any move on anything, mostly one that is refused.

        The dice are the walk's own: what Hypothesis draws leans to the first of a list, and is slow for so many.
        """
        self.moved += 1
        self.dice = Random(f"{seed} {self.moved}")
        name, arguments = self.pick(*(self.invited() if self.pick(*range(5)) else self.thinkable()))
        getattr(self, name)(**arguments)
        self.look()

    def invited(self) -> list[Move]:
        """One move of four waits for something: more, and everything else would run out of time."""
        now, later = self.moves()
        return later if later and self.pick(False, False, False, True) else now

    def moves(self) -> tuple[list[Move], list[Move]]:
        """What may follow now, and what follows only after waiting."""
        raise NotImplementedError

    def thinkable(self) -> list[Move]:
        """Every move that has a subject."""
        raise NotImplementedError

    def pick(self, *options: Any) -> Any:
        return self.dice.choice(options)

    # ---------------------------------------------------------------- reading

    def look(self) -> None:
        """One request for all that the invariants ask."""
        stage, books = self.stage, self.books
        escrow, licenses, models, ledger = (
            stage.faces[name] for name in ("LicenseEscrow", "LicenseNFT", "ModelNFT", "RoyaltyLedger")
        )
        accounts = [person.address for person in stage.people.values()]
        pairs = [(account, token) for account in accounts for token in self.tokens]
        incomes = [(model, token) for model in stage.models for token in self.tokens]
        groups: list[list[tuple[Any, ...]]] = [
            [(escrow, "balanceOf", *pair) for pair in pairs],
            [(escrow, "stakeOf", account) for account in books.stakes],
            [(escrow, "royaltyOf", *income) for income in incomes],
            [(ledger, "inherited", *income) for income in incomes],
            [(escrow, "orderState", number) for number in books.purchases],
            [(escrow, "bondOf", number) for number in books.purchases],
            *([(licenses, view, number) for number in books.licenses] for view in LICENSE_VIEWS),
            [(models, "statusOf", number) for number in stage.models],
            [(stage.token, "balanceOf", escrow.address)],
        ]
        answers = iter(stage.node.read(*(call for group in groups for call in group)))
        free, stakes, royalties, inherited, orders, bonds, *views, status, tokens = (
            [next(answers) for _ in group] for group in groups
        )
        coins = int(stage.node.ask("eth_getBalance", escrow.address, "latest"), 16)
        self.seen = Seen(
            free=dict(zip(pairs, free, strict=True)),
            stakes={a: (s[0], s[1]) for a, s in zip(books.stakes, stakes, strict=True)},
            royalties=dict(zip(incomes, royalties, strict=True)),
            inherited=dict(zip(incomes, inherited, strict=True)),
            orders={n: (state, since) for n, (state, since, _) in zip(books.purchases, orders, strict=True)},
            bonds=dict(zip(books.purchases, bonds, strict=True)),
            licenses=dict(zip(books.licenses, zip(*views, strict=True), strict=True))
            if books.licenses
            else {},
            models=dict(zip(stage.models, status, strict=True)),
            vault={NATIVE: coins, self.tokens[1]: tokens[0]},
        )

    def past(self, name: str) -> list[Log]:
        """Every event of that name since the system was deployed."""
        return [log for log in self.replay.seen if log.name == name]
