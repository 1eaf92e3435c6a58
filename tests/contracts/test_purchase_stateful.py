"""Several purchases at once, in any order of moves, against a plain Python model of states, times and money.

After every move the chain must hold what the model says, to the wei; a move that the model forbids must be refused.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any

import ape
import pytest
from eth_utils import keccak
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from market import (
    DAY,
    ETHER,
    HOUR,
    NATIVE,
    Model,
    Order,
    Parcel,
    State,
    System,
    isolated,
    make_parcel,
    sign_digest,
)
from walks import walk
from web3.exceptions import ContractLogicError

LIVE = (State.OPEN, State.REVEALED, State.RANGE_CHECK)
ANSWER_TIME = 7 * DAY
FAR = 2**40 - 1
PARCELS: dict[int | None, Parcel] = {
    wrong: make_parcel(f"stateful {wrong}", wrong=wrong) for wrong in (None, 1)
}
LAST = 6  # orders of the walk
NUMBERS = st.integers(1, LAST)
ENDS = {
    "no reveal", "wrong chunk", "upheld", "rejected", "silent", "accepted", "settled", "released", "pulled",
    "nothing to pull", "refused",
}  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """What a move might need."""

    price: int
    bond: int
    deposit: int
    wrong: int | None
    index: int
    who: str
    upheld: bool
    seconds: int


DRAWS = st.builds(
    Draw,
    price=st.sampled_from([10**15 + 7, ETHER // 3, 0]),
    bond=st.sampled_from([ETHER // 5, ETHER // 5, 0]),
    deposit=st.sampled_from([ETHER // 3, ETHER // 3, 3 * ETHER]),
    wrong=st.sampled_from([None, None, None, 1]),
    index=st.sampled_from([1, 1, 0]),
    who=st.sampled_from(["buyer", "buyer", "stranger"]),
    upheld=st.booleans(),
    seconds=st.sampled_from([0, 0, 0, -1, HOUR]),
)
MOVES = [
    "open", "reveal", "complain", "accept", "settle", "refund", "claim_range", "answer_range", "surrender",
    "request_release", "release", "withdraw", "pull_royalties",
]  # fmt: skip


@dataclass
class Purchase:
    """What the model knows of an order."""

    order: Order
    parcel: Parcel
    state: State = State.OPEN
    since: int = 0
    key_out: bool = False
    bond: int = 0
    ended: bool = False
    release_at: int | None = None

    @property
    def paid(self) -> int:
        return self.order.sale.price + self.order.sale.bond

    @property
    def claim_bond(self) -> int:
        return self.order.sale.price // 10

    @property
    def held(self) -> int:
        """What the vault keeps for the order itself."""
        if self.state == State.RANGE_CHECK:
            return self.paid + self.claim_bond
        return self.paid if self.state in LIVE else 0

    @property
    def reveal_deadline(self) -> int:
        return self.since + self.order.delivery.revealWindow + self.order.delivery.grace

    @property
    def complaint_deadline(self) -> int:
        return self.since + self.order.delivery.complaintWindow


class PurchaseMachine(RuleBasedStateMachine):
    """`system`, `model` and `operators` are set on a subclass by the test."""

    system: System
    model: Model
    operators: list[Any]
    reached: set[str]

    def __init__(self) -> None:
        super().__init__()
        self.isolation = isolated()
        self.isolation.__enter__()
        self.purchases: dict[int, Purchase] = {}

    def teardown(self) -> None:
        try:
            self.replay_agrees()
        finally:
            self.isolation.__exit__(None, None, None)

    @initialize()
    def begin(self) -> None:
        s = self.system
        self.first_block = ape.chain.blocks.height
        self.clock = s.now + 10
        self.free = {a.address: s.free(a) for a in (s.buyer, s.treasury, s.creator, s.collaborator)}
        stake = s.escrow.stakeOf(s.fingerprinter)
        self.staked, self.locked = stake.staked, stake.locked
        self.pool = s.pool(self.model)
        self.gross = s.royalties.gross(self.model.id, NATIVE)
        self.other_money = s.escrow.balance - self.staked - self.pool - sum(self.free.values())

    # ------------------------------------------------------------ moves

    def move(self, allowed: bool, method: Any, *arguments: Any, sender: Any, value: int = 0) -> bool:
        """Sends it in a block of exactly `clock`; what the model forbids is simulated there, and must revert."""
        self.clock += 1
        self.system.go_to(self.clock)
        if allowed:
            method(*arguments, sender=sender, value=value)
            return True
        call = {
            "from": sender.address,
            "to": method.contract.address,
            "data": bytes(method.encode_input(*arguments)),
            "value": value,
        }
        with pytest.raises(ContractLogicError):
            ape.chain.provider.web3.eth.call(call, "pending")
        self.reached.add("refused")
        return False

    def known(self, number: int) -> Purchase:
        """The purchase, or one that was never opened: moves on it must be refused."""
        if number in self.purchases:
            return self.purchases[number]
        parcel = PARCELS[None]
        return Purchase(self.system.make_order(self.model, parcel, number), parcel, State.NONE)

    @rule(data=st.data(), draw=DRAWS)
    def sensible(self, data: st.DataObject, draw: Draw) -> None:
        """A move that some purchase's state invites, at the edge of its time where it waits for one."""
        moves = [(number, name) for number, p in self.purchases.items() for name in self.invited(p)]
        if len(self.purchases) < LAST:
            moves += [(len(self.purchases) + 1, "open")] * 2
        if not moves:
            return
        number, name = data.draw(st.sampled_from(moves))
        if name.startswith("late") or name == "release":
            self.wait(self.purchases[number], draw.seconds)
        getattr(self, name.removeprefix("late "))(number, draw)

    @rule(data=st.data(), draw=DRAWS)
    def sensible_again(self, data: st.DataObject, draw: Draw) -> None:
        """Once more, so that two moves of three are."""
        self.sensible(data, draw)

    def invited(self, p: Purchase) -> list[str]:
        match p.state:
            case State.OPEN:
                return ["reveal", "reveal", "reveal", "late refund"]
            case State.REVEALED if p.parcel.wrong is not None:
                return ["complain", "complain"]
            case State.REVEALED:
                return ["accept", "late settle", "claim_range", "claim_range"]
            case State.RANGE_CHECK:
                return ["uphold", "reject", "late refund"]
            case State.SETTLED if p.bond:
                end = "release" if p.release_at else "request_release" if p.ended else "surrender"
                return ["pull_royalties", end, end]
            case _:
                return []

    @rule(number=NUMBERS, name=st.sampled_from(MOVES), draw=DRAWS)
    def anything(self, number: int, name: str, draw: Draw) -> None:
        """Any move, mostly one that is refused."""
        getattr(self, name)(number, draw)

    def wait(self, p: Purchase, seconds: int) -> None:
        """To the edge of what the purchase waits for: the next move comes in the first second after it, or before."""
        edge = {
            State.OPEN: p.reveal_deadline,
            State.REVEALED: p.complaint_deadline,
            State.RANGE_CHECK: p.since + ANSWER_TIME,
            State.SETTLED: (p.release_at or 0) - 1,
        }.get(p.state, 0)
        self.clock = max(self.clock, edge + seconds)

    def open(self, number: int, draw: Draw) -> None:
        s, parcel = self.system, PARCELS[draw.wrong]
        price, bond, deposit = draw.price, draw.bond, draw.deposit
        order = s.make_order(
            self.model, parcel, number, price=price, bond=bond, deposit=deposit, openBy=self.clock + DAY
        )
        fits = self.locked + deposit + ETHER <= self.staked
        arguments = (order.as_tuple(), *s.signatures(order))
        allowed = number not in self.purchases and fits
        if self.move(allowed, s.escrow.open, *arguments, sender=s.buyer, value=price + bond):
            self.purchases[number] = Purchase(order, parcel, State.OPEN, self.clock)
            self.locked += deposit

    def reveal(self, number: int, draw: Draw) -> None:
        p = self.known(number)
        s = self.system
        allowed = p.state == State.OPEN and self.clock + 1 <= p.reveal_deadline
        arguments = (s.escrow.saleHash(astuple(p.order.sale)), astuple(p.order.delivery), p.parcel.key)
        if self.move(allowed, s.escrow.revealKey, *arguments, sender=s.stranger):
            p.state, p.since, p.key_out = State.REVEALED, self.clock, True

    def complain(self, number: int, draw: Draw) -> None:
        p, s = self.known(number), self.system
        allowed = (
            p.state == State.REVEALED
            and self.clock + 1 <= p.complaint_deadline
            and p.parcel.wrong == draw.index
        )
        proof = p.parcel.proof(draw.index)
        if self.move(allowed, s.escrow.complain, p.order.as_tuple(), *proof, sender=s.buyer):
            self.refunded(p, p.order.delivery.deposit, "wrong chunk")

    def accept(self, number: int, draw: Draw) -> None:
        p, s = self.known(number), self.system
        allowed = p.state == State.REVEALED and draw.who == "buyer"
        if self.move(allowed, s.escrow.accept, p.order.as_tuple(), sender=getattr(s, draw.who)):
            self.settled(p, "accepted")

    def settle(self, number: int, draw: Draw) -> None:
        p, s = self.known(number), self.system
        allowed = p.state == State.REVEALED and self.clock + 1 > p.complaint_deadline
        if self.move(allowed, s.escrow.settle, p.order.as_tuple(), sender=s.stranger):
            self.settled(p, "settled")

    def refund(self, number: int, draw: Draw) -> None:
        p, s = self.known(number), self.system
        late = self.clock + 1 > p.reveal_deadline
        silent = self.clock + 1 > p.since + ANSWER_TIME
        allowed = (p.state == State.OPEN and late) or (p.state == State.RANGE_CHECK and silent)
        if self.move(allowed, s.escrow.refund, p.order.as_tuple(), sender=s.stranger):
            if p.state == State.OPEN:
                self.refunded(p, p.order.delivery.deposit // 10, "no reveal")
            else:
                self.free[s.buyer.address] += p.claim_bond
                self.refunded(p, 0, "silent")

    def claim_range(self, number: int, draw: Draw) -> None:
        p, s = self.known(number), self.system
        allowed = p.state == State.REVEALED and self.clock + 1 <= p.complaint_deadline
        call = s.escrow.rangeClaim
        if self.move(allowed, call, p.order.as_tuple(), bytes(32), sender=s.buyer, value=p.claim_bond):
            p.state, p.since = State.RANGE_CHECK, self.clock

    def answer_range(self, number: int, draw: Draw) -> None:
        p, s = self.known(number), self.system
        allowed = p.state == State.RANGE_CHECK and self.clock + 1 <= p.since + ANSWER_TIME
        said = (p.order.delivery.licenseId, s.order_hash(p.order), draw.upheld, 1, FAR)
        digest = bytes(s.escrow.rangeVerdictDigest(*said))
        signatures = b"".join(sign_digest(digest, operator) for operator in self.operators)
        arguments = (p.order.as_tuple(), draw.upheld, 1, FAR, self.operators, 0b111, signatures)
        if self.move(allowed, s.escrow.resolveRange, *arguments, sender=s.stranger):
            if draw.upheld:
                self.free[s.buyer.address] += p.claim_bond
                self.refunded(p, p.order.delivery.deposit, "upheld")
            else:
                self.free[s.treasury.address] += p.claim_bond
                self.settled(p, "rejected")

    def uphold(self, number: int, draw: Draw) -> None:
        self.answer_range(number, replace(draw, upheld=True))

    def reject(self, number: int, draw: Draw) -> None:
        self.answer_range(number, replace(draw, upheld=False))

    def surrender(self, number: int, draw: Draw) -> None:
        p, s = self.known(number), self.system
        allowed = p.state == State.SETTLED and not p.ended
        if self.move(allowed, s.licenses.surrender, p.order.delivery.licenseId, sender=s.buyer):
            p.ended = True

    def request_release(self, number: int, draw: Draw) -> None:
        p, s = self.known(number), self.system
        allowed = p.ended and p.bond > 0 and p.release_at is None
        if self.move(allowed, s.escrow.requestBondRelease, p.order.delivery.licenseId, sender=s.stranger):
            p.release_at = self.clock + p.order.sale.bondTail

    def release(self, number: int, draw: Draw) -> None:
        p, s = self.known(number), self.system
        allowed = p.bond > 0 and p.release_at is not None and self.clock + 1 >= p.release_at
        if self.move(allowed, s.escrow.releaseBond, p.order.as_tuple(), sender=s.stranger):
            self.free[s.buyer.address] += p.bond
            p.bond = 0
            self.reached.add("released")

    def pull_royalties(self, number: int, draw: Draw) -> None:
        """Platform, collaborator and owner, whatever each is owed."""
        s = self.system
        net = self.gross * (10_000 - s.params.platform_bps) // 10_000
        for call, index, key, account, earned in (
            (s.royalties.pullPlatform, (), 0, s.treasury, self.gross * s.params.platform_bps // 10_000),
            (s.royalties.pullCollaborator, (0,), 16, s.collaborator, net * 1_000 // 10_000),
            (s.royalties.pullOwner, (), 1, s.creator, net * 9_000 // 10_000),
        ):
            due = earned - s.royalties.pulled(self.model.id, NATIVE, key)
            arguments = (self.model.id, NATIVE, *index, self.model.shares)
            if self.move(due > 0, call, *arguments, sender=s.stranger):
                self.free[account.address] += due
                self.pool -= due
            self.reached.add("pulled" if due else "nothing to pull")

    def withdraw(self, number: int, draw: Draw) -> None:
        """Part or all of the buyer's balance, and never one more."""
        s = self.system
        held = self.free[s.buyer.address]
        amount = min(held, draw.deposit)
        self.move(False, s.escrow.withdraw, NATIVE, held + 1, s.buyer, sender=s.buyer)
        self.move(True, s.escrow.withdraw, NATIVE, amount, s.stranger, sender=s.buyer)
        self.free[s.buyer.address] -= amount

    # ------------------------------------------------------------ ends

    def refunded(self, p: Purchase, penalty: int, why: str) -> None:
        p.state = State.REFUNDED
        self.reached.add(why)
        self.locked -= p.order.delivery.deposit
        self.staked -= penalty
        self.free[self.system.buyer.address] += p.paid + penalty

    def settled(self, p: Purchase, why: str) -> None:
        p.state, p.bond = State.SETTLED, p.order.sale.bond
        self.reached.add(why)
        self.locked -= p.order.delivery.deposit
        self.gross += p.order.sale.price
        self.pool += p.order.sale.price

    # ------------------------------------------------------------ invariants

    @invariant()
    def every_wei_has_an_owner(self) -> None:
        bonds = sum(p.bond for p in self.purchases.values())
        held = sum(p.held for p in self.purchases.values())
        owned = sum(self.free.values()) + self.staked + self.pool + bonds + held + self.other_money
        assert self.system.escrow.balance == owned

    @invariant()
    def balances_are_the_models(self) -> None:
        assert {a: self.system.free(a) for a in self.free} == self.free

    @invariant()
    def the_stake_covers_its_locks(self) -> None:
        stake = self.system.escrow.stakeOf(self.system.fingerprinter)
        live = sum(p.order.delivery.deposit for p in self.purchases.values() if p.state in LIVE)
        assert (stake.staked, stake.locked) == (self.staked, self.locked)
        assert stake.locked == live <= stake.staked

    @invariant()
    def the_pool_is_what_was_earned_and_not_pulled(self) -> None:
        assert self.system.royalties.gross(self.model.id, NATIVE) == self.gross
        assert self.system.pool(self.model) == self.pool

    @invariant()
    def states_are_the_models(self) -> None:
        for number in range(1, LAST + 1):
            p = self.purchases.get(number)
            state, since, _ = self.system.escrow.orderState(self.model.id << 28 | number)
            assert state == (p.state if p else State.NONE)
            if p and p.state in LIVE:
                assert since == p.since

    @invariant()
    def a_license_exists_exactly_for_a_settled_order(self) -> None:
        settled = [p for p in self.purchases.values() if p.state == State.SETTLED]
        assert self.system.licenses.balanceOf(self.system.buyer) == len(settled)
        for p in self.purchases.values():
            license_id = p.order.delivery.licenseId
            assert self.system.licenses.isActive(license_id) == (p.state == State.SETTLED and not p.ended)

    @invariant()
    def bonds_are_the_models(self) -> None:
        for p in self.purchases.values():
            assert self.system.escrow.bondOf(p.order.delivery.licenseId).amount == p.bond

    @invariant()
    def no_price_without_the_key(self) -> None:
        assert all(p.key_out for p in self.purchases.values() if p.state == State.SETTLED)

    @invariant()
    def no_refund_with_the_key_but_for_a_proof(self) -> None:
        for p in self.purchases.values():
            if p.state == State.REFUNDED and p.key_out and p.parcel.wrong is None:
                assert self.system.escrow.rangeClaimEpoch(p.order.delivery.licenseId) != 0

    def replay_agrees(self) -> None:
        """The events alone lead to the same states."""
        if not hasattr(self, "first_block"):
            return
        escrow = self.system.escrow
        ends = {
            "OrderOpened": State.OPEN,
            "KeyRevealed": State.REVEALED,
            "RangeClaimed": State.RANGE_CHECK,
            "OrderSettled": State.SETTLED,
            "OrderRefunded": State.REFUNDED,
        }
        logs = ape.chain.provider.web3.eth.get_logs(
            {"address": escrow.address, "fromBlock": self.first_block, "toBlock": "latest"}
        )
        topics = {bytes.fromhex(ape_topic(escrow, name)): state for name, state in ends.items()}
        replayed: dict[int, State] = {}
        for log in logs:
            state = topics.get(bytes(log["topics"][0]))
            if state is not None:
                replayed[int.from_bytes(log["topics"][1], "big")] = state
        assert replayed == {p.order.delivery.licenseId: p.state for p in self.purchases.values()}


def ape_topic(contract: Any, event: str) -> str:
    return keccak(text=getattr(contract, event).abi.selector).hex()


@pytest.fixture
def operators(system: System, model: Model, accounts: Any) -> list[Any]:
    people = [accounts.generate_test_account() for _ in range(3)]
    for person in people:
        ape.chain.provider.set_balance(person.address, 100 * ETHER)
        system.stake(person, 6 * ETHER, role=1)
    people.sort(key=lambda person: int(person.address, 16))
    system.committee.announceEpoch(people, 3, sender=system.deployer)
    system.committee.activateEpoch(1, sender=system.stranger)
    return people


@pytest.mark.slow
def test_purchases_follow_the_model(system: System, model: Model, operators: list[Any]) -> None:
    ape.chain.provider.set_balance(system.buyer.address, 1_000 * ETHER)
    reached: set[str] = set()
    members = {"system": system, "model": model, "operators": operators, "reached": reached}
    run_state_machine_as_test(
        type("Machine", (PurchaseMachine,), members),
        settings=walk(8, 30),
    )
    assert reached == ENDS  # the walk is deterministic; raise max_examples if a change makes it miss an end
