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
from reference_books import Forbidden
from reference_court import Court
from walk_stage import Stage

SEEDS = st.integers(0, 2**32)
Move = tuple[str, dict[str, Any]]  # a method's name and its arguments
CASE_VIEWS = (
    ("MisuseCourt", "caseState"),
    ("MisuseCourt", "caseDetail"),
    ("LicenseEscrow", "caseBondOf"),
    ("MisuseCourt", "defenceOf"),
)
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
    channel_funds: dict[str, int]  # by token
    channels: dict[bytes, Any]
    cases: dict[bytes, tuple[Any, Any, int, Any]]  # as CASE_VIEWS


class Machine(RuleBasedStateMachine):
    """`stage`, `start` and `reached` are set on a subclass by the test; moves come from the classes mixed in."""

    stage: Stage
    start: Court  # over the books as the setup left the system
    reached: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.isolation = isolated()
        self.isolation.__enter__()

    @initialize()
    def begin(self) -> None:
        self.court = copy.deepcopy(self.start)
        self.books = self.court.books
        self.clock = self.books.now
        self.requests = 0
        self.closed_by_provider: set[bytes] = set()
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
        faces, books = self.stage.faces, self.books
        escrow = faces["LicenseEscrow"]
        people = [person.address for person in self.stage.people.values()]
        cases = list(self.court.cases)
        keys: dict[str, list[Any]] = {
            "free": [(account, token) for account in people for token in self.tokens],
            "stakes": list(books.stakes),
            "royalties": [(model, token) for model in self.stage.models for token in self.tokens],
            "orders": list(books.purchases),
            "models": list(self.stage.models),
            "licenses": list(books.licenses),
            "channels": list(books.channels),
        }
        calls: dict[str, list[tuple[Any, ...]]] = {
            "free": [(escrow, "balanceOf", *key) for key in keys["free"]],
            "stakes": [(escrow, "stakeOf", key) for key in keys["stakes"]],
            "royalties": [(escrow, "royaltyOf", *key) for key in keys["royalties"]],
            "inherited": [(faces["RoyaltyLedger"], "inherited", *key) for key in keys["royalties"]],
            "orders": [(escrow, "orderState", key) for key in keys["orders"]],
            "bonds": [(escrow, "bondOf", key) for key in keys["orders"]],
            "models": [(faces["ModelNFT"], "statusOf", key) for key in keys["models"]],
            "channels": [(faces["UsageChannel"], "stateOf", key) for key in keys["channels"]],
            "funds": [(escrow, "channelFunds", token) for token in self.tokens],
            "vault": [(self.stage.token, "balanceOf", escrow.address)],
            **{
                view: [(faces["LicenseNFT"], view, key) for key in keys["licenses"]] for view in LICENSE_VIEWS
            },
            **{view: [(faces[contract], view, key) for key in cases] for contract, view in CASE_VIEWS},
        }
        answers = iter(self.stage.node.read(*(call for group in calls.values() for call in group)))
        read = {name: [next(answers) for _ in group] for name, group in calls.items()}
        coins = int(self.stage.node.ask("eth_getBalance", escrow.address, "latest"), 16)

        def by_key(name: str, key: str = "") -> dict[Any, Any]:
            return dict(zip(keys[key or name], read[name], strict=True))

        self.seen = Seen(
            free=by_key("free"),
            stakes={account: (stake[0], stake[1]) for account, stake in by_key("stakes").items()},
            royalties=by_key("royalties"),
            inherited=by_key("inherited", "royalties"),
            orders={number: (state, since) for number, (state, since, _) in by_key("orders").items()},
            bonds=by_key("bonds", "orders"),
            licenses=dict(
                zip(keys["licenses"], zip(*(read[v] for v in LICENSE_VIEWS), strict=True), strict=True)
            ),
            models=by_key("models"),
            vault=dict(zip(self.tokens, (coins, read["vault"][0]), strict=True)),
            channel_funds=dict(zip(self.tokens, read["funds"], strict=True)),
            channels=by_key("channels"),
            cases=dict(zip(cases, zip(*(read[v] for _, v in CASE_VIEWS), strict=True), strict=True)),
        )

    def past(self, name: str) -> list[Log]:
        """Every event of that name since the system was deployed."""
        return [log for log in self.replay.seen if log.name == name]
