"""Many cases at once, in any order, against a plain Python model of the states and of the money table.

After every step each pot of the vault, each case and each license is what the model says; a step that the model forbids
is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from courtroom import (
    DAY,
    ETHER,
    HOUR,
    ZERO,
    CaseFile,
    Courtroom,
    Decision,
    Kind,
    Refused,
    State,
    bits,
    read,
    refusing,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from market import isolated

SEATS = ((0, 1, 2), (1, 2, 3), (0, 2, 3, 4), (0, 1, 2, 3, 4))
ENDED = (State.LAPSED, State.CLOSED, State.DISMISSED, State.CLEARED, State.EXECUTED)
ROWS = {12: 0, 20: 1, 40: 2}


@dataclass
class Case:
    """What the model knows of a case."""

    file: CaseFile
    held: bool
    state: State = State.OPEN
    decision: Decision = Decision.NONE
    until: int = 0
    share: int | None = None
    bucket: int = 0
    subject: bytes = b""
    seats: tuple[int, ...] = ()
    unpaid: set[int] = field(default_factory=set)
    challenger: str | None = None
    cure_by: int = 0  # 0: no notice was given
    pot: int = 0


@dataclass
class License:
    bond: int
    original: int
    price: int
    holds: int = 0
    shares: set[int] = field(default_factory=set)
    leak_bucket: int = 0
    slashed: dict[Kind, int] = field(default_factory=lambda: {Kind.LEAK: 0, Kind.TERMS: 0})
    counted: set[bytes] = field(default_factory=set)
    revoked: bool = False
    suspensions: int = 0


STEPS = [
    "open_share", "post", "challenge", "rule", "lapse", "shareMissed", "escalate", "clearSilent", "releaseHold",
    "finalize", "execute", "claimFee",
]  # fmt: skip


@dataclass(frozen=True)
class Move:
    """A step with all that it might need."""

    step: str
    who: str
    uphold: bool
    index: int
    decision: Decision
    bucket: int
    subject: bytes
    seats: tuple[int, ...]
    seat: int


def moves(steps: list[str]) -> st.SearchStrategy[Move]:
    return st.builds(
        Move,
        step=st.sampled_from(steps),
        who=st.sampled_from(["holder", "reporter", "stranger", "owner", "arbiter", "last"]),
        uphold=st.booleans(),
        index=st.integers(0, 5),
        decision=st.sampled_from([*[Decision.GUILTY] * 4, *[Decision.NOT_GUILTY] * 2, *list(Decision)[3:]]),
        bucket=st.sampled_from([*[12, 20, 40] * 3, 0]),
        subject=st.sampled_from([b"\x51" * 32, b"\x52" * 32]),
        seats=st.sampled_from(SEATS),
        seat=st.integers(0, 5),
    )


OPENINGS = st.fixed_dictionaries(
    {
        "which": st.integers(0, 1),
        "kind": st.sampled_from([*[Kind.LEAK] * 4, *[Kind.TERMS] * 2, Kind.DISCLOSURE, Kind.OWNERSHIP]),
        "more": st.integers(0, 2 * ETHER),  # than the least bond
        "reporter": st.sampled_from(["reporter", "stranger"]),
    }
)


class Ledger:
    """The state machine and the money table, once more, from the interface's words."""

    def __init__(self, room: Courtroom, licenses: dict[int, License]) -> None:
        self.p, self.room, self.licenses = room.params, room, licenses
        self.free = {name: room.free(account) for name, account in room.accounts().items()}
        self.stake = {name: room.stake(account) for name, account in room.accounts().items()}
        self.royalties = room.royalties()
        self.cases: list[Case] = []
        self.frozen: set[bytes] = set()  # subjects that froze the model
        self.now = 0

    # ---- what is allowed now

    def allows(self, case: Case, move: Move) -> bool:
        f, s, late = case.file, case.state, self.now > case.until
        over = self.now > f.post_by
        match move.step:
            case "open_share":
                fresh = case.share is None and move.index not in self.licenses[f.license_id].shares
                return s == State.OPEN and f.kind == Kind.LEAK and self.now <= self.share_by(case) and fresh
            case "post":
                convicts = f.kind in (Kind.LEAK, Kind.TERMS) and move.decision == Decision.GUILTY
                weak = move.bucket < 12 or (f.kind == Kind.LEAK and case.share is None)
                return s == State.OPEN and not over and not (convicts and weak)
            case "lapse":
                return s == State.OPEN and over and (f.kind != Kind.LEAK or case.share is not None)
            case "shareMissed":
                unshared = f.kind == Kind.LEAK and case.share is None
                return s == State.OPEN and unshared and self.now > self.share_by(case)
            case "challenge":
                if s != State.POSTED or late or move.who in ("arbiter", "last"):
                    return False
                if case.decision != Decision.GUILTY:
                    return self.is_account(move.who, f.reporter)
                window = self.window(case)
                return self.now > case.until - window + window // 3 or self.is_account(move.who, f.accused)
            case "rule":
                judge = {State.CHALLENGED: "arbiter", State.ESCALATED: "last"}.get(s)
                return move.who == judge and not late
            case "escalate":
                return s == State.CHALLENGED and late
            case "clearSilent":
                return s == State.ESCALATED and late
            case "releaseHold":
                return s == State.CLEARED and case.held and late
            case "finalize":
                return s == State.POSTED and late
            case "execute":
                posted = s == State.POSTED and case.decision == Decision.GUILTY and late
                return (posted or s == State.FINAL_GUILTY) and self.now > case.cure_by
            case "claimFee":
                return s in ENDED and move.seat in case.unpaid
        raise AssertionError(move.step)

    def done(self, case: Case) -> bool:
        return case.state in ENDED and not case.held and not case.unpaid

    def next_steps(self, case: Case) -> list[str]:
        """What may follow in this state, time apart."""
        shared = case.file.kind != Kind.LEAK or case.share is not None
        match case.state:
            case State.OPEN:
                return [*["post"] * 5, "lapse"] if shared else [*["open_share"] * 6, "post", "shareMissed"]
            case State.POSTED if case.decision == Decision.GUILTY:
                return ["challenge", "challenge", "execute", "finalize"]
            case State.POSTED:
                return ["challenge", "finalize"]
            case State.CHALLENGED:
                return ["rule", "rule", "escalate"]
            case State.ESCALATED:
                return ["rule", "clearSilent"]
            case State.FINAL_GUILTY:
                return ["execute"]
            case State.CLEARED if case.held:
                return ["releaseHold"]
        return ["claimFee"]

    def first_second(self, case: Case, step: str) -> int:
        if step == "lapse":
            return case.file.post_by + 1
        if step == "shareMissed":
            return self.share_by(case) + 1
        if step in ("escalate", "clearSilent", "releaseHold", "execute", "finalize"):
            return (case.until if case.state != State.FINAL_GUILTY else case.cure_by) + 1
        return 0

    def window(self, case: Case) -> int:
        notice = case.file.kind == Kind.DISCLOSURE and case.decision == Decision.GUILTY
        return 96 * HOUR if notice else self.p.challenge_window

    def share_by(self, case: Case) -> int:
        return case.file.post_by - self.p.post_window // 2

    def least(self, license: License | None, kind: Kind) -> int:
        if license is None:
            return self.p.min_report_bond
        doublings = license.holds + (len(license.shares) if kind == Kind.LEAK else 0)
        held = 0 if kind == Kind.DISCLOSURE else license.bond
        return max(self.p.min_report_bond, -(-held // 100)) * 2 ** min(8, doublings)

    def is_account(self, who: str, address: str) -> bool:
        return bool(self.room.accounts()[who].address == address)

    # ---- what it does

    def does(self, case: Case, move: Move) -> None:
        f = case.file
        match move.step:
            case "open_share":
                case.share = move.index
                self.licenses[f.license_id].shares.add(move.index)
            case "post":
                self.post(case, move.decision, move.bucket, move.subject, move.seats)
            case "lapse":
                self.end(case, State.LAPSED)
                self.pay(case, self.name_of(f.reporter), f.bond)
            case "shareMissed":
                self.share_missed(case)
            case "challenge":
                case.state, case.challenger = State.CHALLENGED, move.who
                case.until = self.now + self.p.ruling_window
                case.pot += self.p.challenge_bond  # came by value
            case "rule":
                self.rule(case, move.who, move.uphold)
            case "escalate":
                case.state, case.until = State.ESCALATED, self.now + self.p.last_window
            case "clearSilent":
                self.clear_silent(case)
            case "releaseHold":
                case.held = False
                self.licenses[f.license_id].holds -= 1
            case "finalize":
                self.finalize(case)
            case "execute":
                self.execute(case)
            case "claimFee":
                self.pay(case, f"operator{move.seat}", case.pot // len(case.unpaid))
                case.unpaid.remove(move.seat)

    def name_of(self, address: str) -> str:
        return next(
            (name for name, account in self.room.accounts().items() if account.address == address), "treasury"
        )

    def pay(self, case: Case, to: str, amount: int) -> None:
        case.pot -= amount
        assert case.pot >= 0
        self.free[to] += amount

    def rest(self, case: Case) -> int:
        """R - f; R where nobody has a fee to come."""
        fee = case.file.bond * self.p.fee_bps // 10_000 if case.unpaid else 0
        return case.file.bond - fee

    def end(self, case: Case, state: State) -> None:
        case.state = state
        self.lift(case)
        if case.held:
            self.licenses[case.file.license_id].holds -= 1
            case.held = False

    def share_missed(self, case: Case) -> None:
        self.end(case, State.CLOSED)
        case.decision = Decision.INCONCLUSIVE
        license = self.licenses[case.file.license_id]
        if len(license.shares) < 16:
            self.slash("fingerprinter", max(self.p.missed_share_penalty, license.bond // 2), "treasury")
        self.pay(case, self.name_of(case.file.reporter), case.file.bond)

    def slash(self, name: str, amount: int, to: str) -> None:
        taken = min(amount, self.stake[name])
        self.stake[name] -= taken
        self.free[to] += taken

    def post(
        self, case: Case, decision: Decision, bucket: int, subject: bytes, seats: tuple[int, ...]
    ) -> None:
        case.decision, case.subject, case.seats, case.unpaid = decision, subject, seats, set(seats)
        case.bucket = 0 if case.file.kind == Kind.LEAK and case.share is None else bucket
        if case.file.kind == Kind.TERMS and decision == Decision.GUILTY:
            case.state, case.until = State.CHALLENGED, self.now + self.p.ruling_window
        else:
            case.state, case.until = State.POSTED, self.now + self.window(case)
        if case.file.kind == Kind.DISCLOSURE and decision == Decision.GUILTY:
            self.notice(case)

    def notice(self, case: Case) -> None:
        case.cure_by = self.now + 96 * HOUR
        self.licenses[case.file.license_id].suspensions += 1

    def convict(self, case: Case) -> bool:
        license = self.licenses.get(case.file.license_id)
        if case.file.kind == Kind.LEAK:
            assert license is not None
            if license.leak_bucket and case.bucket <= license.leak_bucket:
                return self.close(case)
            license.leak_bucket = case.bucket
        elif case.file.kind == Kind.TERMS:
            assert license is not None
            if case.subject in license.counted:
                return self.close(case)
            license.counted.add(case.subject)
        elif case.file.kind == Kind.OWNERSHIP:
            if case.subject in self.frozen:
                return self.close(case)
            self.frozen.add(case.subject)
        elif not case.cure_by:
            self.notice(case)
        case.state = State.FINAL_GUILTY
        return True

    def close(self, case: Case) -> bool:
        self.end(case, State.CLOSED)
        unavailable = case.decision == Decision.UNAVAILABLE
        to = "treasury" if unavailable else self.name_of(case.file.reporter)
        self.pay(case, to, self.rest(case))
        return False

    def dismiss(self, case: Case) -> None:
        self.end(case, State.DISMISSED)
        rest = self.rest(case)
        self.pay(case, self.name_of(case.file.accused), rest // 2)
        self.pay(case, "treasury", rest - rest // 2)

    def lift(self, case: Case) -> None:
        if case.cure_by:
            self.licenses[case.file.license_id].suspensions -= 1

    def finalize(self, case: Case) -> None:
        if case.decision == Decision.GUILTY:
            self.convict(case)
        elif case.decision == Decision.NOT_GUILTY:
            self.dismiss(case)
        else:
            self.close(case)

    def execute(self, case: Case) -> None:
        if case.state == State.POSTED and not self.convict(case):
            return
        self.end(case, State.EXECUTED)
        reporter = self.name_of(case.file.reporter)
        self.pay(case, reporter, self.rest(case))
        license = self.licenses.get(case.file.license_id)
        if license is None:
            return
        license.revoked = True
        if case.file.kind == Kind.DISCLOSURE or not case.bucket:
            return
        table = license.original * self.p.slash_bps[ROWS[case.bucket]] // 10_000
        amount = min(max(0, table - license.slashed[case.file.kind]), license.bond)
        license.slashed[case.file.kind] += amount
        license.bond -= amount
        to_reporter = amount * self.p.reporter_bps // 10_000
        to_owner = min(amount - to_reporter, license.price)
        license.price -= to_owner
        self.free[reporter] += to_reporter
        self.royalties += to_owner
        self.free["treasury"] += amount - to_reporter - to_owner

    def rule(self, case: Case, judge: str, uphold: bool) -> None:
        challenger, seats, bond = case.challenger, case.seats, self.p.challenge_bond
        if not uphold:
            case.unpaid.clear()
        decided = case.decision in (Decision.GUILTY, Decision.NOT_GUILTY)
        if not decided:
            case.decision = case.decision if uphold else Decision.INCONCLUSIVE
            self.close(case)
        elif (case.decision == Decision.GUILTY) == uphold:
            if case.file.kind == Kind.TERMS:
                case.bucket = case.bucket or 12
            self.convict(case)
        elif uphold:
            self.dismiss(case)
        else:
            self.end(case, State.CLEARED)
            self.pay(case, self.name_of(case.file.accused), self.rest(case))
        if challenger is not None:
            self.pay(case, judge if uphold else challenger, bond)
            for seat in () if uphold or not decided else seats:
                self.slash(f"operator{seat}", bond // len(seats), judge)

    def clear_silent(self, case: Case) -> None:
        case.state, case.until = State.CLEARED, self.now + 14 * DAY
        self.lift(case)
        self.pay(case, self.name_of(case.file.reporter), self.rest(case))
        if case.challenger is not None:
            self.pay(case, case.challenger, self.p.challenge_bond)


class Cases(RuleBasedStateMachine):
    """Every transaction happens at the second the model says."""

    room: Courtroom
    seen: set[tuple[Kind, State]] = set()  # noqa: RUF012 - of all examples

    def __init__(self) -> None:
        super().__init__()
        self.isolation = isolated()
        self.isolation.__enter__()

    def teardown(self) -> None:
        self.seen.update((case.file.kind, case.state) for case in self.model.cases)
        self.isolation.__exit__(None, None, None)

    @initialize()
    def begin(self) -> None:
        room = self.room
        rich = room.place_license(101, bond=10 * ETHER, price=2 * ETHER, age=0)
        cheap = room.place_license(
            102, bond=3 * ETHER + 7, price=5 * ETHER, age=8 * DAY, holder=room.stranger
        )
        for account in (room.reporter, room.stranger, room.holder):
            room.vault.depositNative(account, sender=account, value=2_000 * ETHER)
        self.licenses = [rich, cheap]
        self.model = Ledger(
            room,
            {
                rich: License(10 * ETHER, 10 * ETHER, 2 * ETHER),
                cheap: License(3 * ETHER + 7, 3 * ETHER + 7, 5 * ETHER),
            },
        )
        self.model.now = room.now + 10

    # ---- rules

    @rule(data=st.data(), choice=st.sampled_from(["open"] * 2 + ["go on"] * 7 + ["try"]))
    def moves(self, data: st.DataObject, choice: str) -> None:
        """One rule, weighted here: Hypothesis would switch single rules off for whole examples."""
        going = [case for case in self.model.cases if not self.model.done(case)]
        if choice == "open" or not self.model.cases:
            self.opens(**data.draw(OPENINGS))
        elif choice == "go on" and going:
            self.goes_on(data.draw(st.sampled_from(going)), data)
        else:
            self.tries(data.draw(st.sampled_from(self.model.cases)), data.draw(moves(STEPS)), data)

    def opens(self, which: int, kind: Kind, more: int, reporter: str) -> None:
        model = self.model
        license_id = 0 if kind == Kind.OWNERSHIP else self.licenses[which]
        license = model.licenses.get(license_id)
        self.at(model.now + 1)
        bond = model.least(license, kind) + more
        arguments = {"reporter": self.room.accounts()[reporter], "bond": bond, "value": 0}
        spent = kind == Kind.LEAK and license is not None and (license.bond == 0 or license.leak_bucket == 40)
        ended = kind == Kind.DISCLOSURE and license is not None and license.revoked
        if spent or ended:
            self.is_refused(lambda: self.room.open(license_id, kind, **arguments))
            return
        if more == 0:
            self.is_refused(lambda: self.room.open(license_id, kind, **arguments | {"bond": bond - 1}))
        file = self.room.open(license_id, kind, **arguments)
        held = license is not None and license.bond != 0 and kind != Kind.DISCLOSURE
        case = Case(file, held=held, pot=bond)
        if case.held and license is not None:
            license.holds += 1
        model.free[reporter] -= bond
        model.cases.append(case)

    def goes_on(self, case: Case, data: st.DataObject) -> None:
        """A case takes a step that its state knows, after waiting for it where it must."""
        move = data.draw(moves(self.model.next_steps(case)))
        who = {State.CHALLENGED: "arbiter", State.ESCALATED: "last"}.get(case.state, move.who)
        seat = min(case.unpaid, default=move.seat)
        self.at(max(self.model.now + 1, self.model.first_second(case, move.step)))
        self.make(case, replace(move, who=who, seat=seat))

    def tries(self, case: Case, move: Move, data: st.DataObject) -> None:
        """Anyone tries anything."""
        self.at(self.model.now + data.draw(st.sampled_from([1, 1, HOUR, DAY])))
        self.make(case, move)

    # ---- one step, allowed or refused

    def at(self, second: int) -> None:
        self.model.now = second
        self.room.wait_until(second)

    def is_refused(self, send: Any) -> None:
        with refusing(), pytest.raises(Refused):
            send()

    def make(self, case: Case, move: Move) -> None:
        room, model, file = self.room, self.model, case.file
        account = room.accounts()[move.who]
        record = room.records.get(file.license_id, next(iter(room.records.values()))).as_tuple()
        verdict = room.verdict(file, move.decision, bucket=move.bucket, subject=move.subject)
        sends = {
            "open_share": lambda: room.open_share(file, move.index),
            "post": lambda: room.post(file, verdict=verdict, seats=move.seats),
            "challenge": lambda: room.challenge(file, account),
            "rule": lambda: room.call("rule", file, move.uphold, by=account),
            "shareMissed": lambda: room.call("shareMissed", file, record),
            "claimFee": lambda: room.call("claimFee", file, move.seat),
        }
        send = sends.get(move.step, lambda: room.call(move.step, file))
        if move.step == "open_share" and not file.license_id:
            return
        if not model.allows(case, move):
            self.is_refused(send)
            return
        send()
        model.does(case, move)

    # ---- what must hold

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        room, model = self.room, self.model
        accounts = room.accounts()
        free = read(*((room.vault.balanceOf, account, ZERO) for account in accounts.values()))
        assert dict(zip(accounts, free, strict=True)) == model.free
        stakes = read(*((room.vault.stakeOf, account) for account in accounts.values()))
        assert {name: staked for name, (staked, *_) in zip(accounts, stakes, strict=True)} == model.stake
        for case in model.cases:
            (state, decision, until, share), detail, pot = read(
                (room.court.caseState, case.file.id),
                (room.court.caseDetail, case.file.id),
                (room.vault.caseBondOf, case.file.id),
            )
            assert (state, decision) == (case.state, case.decision)
            if case.state in (State.POSTED, State.CHALLENGED, State.ESCALATED):
                assert until == case.until
            assert share == (255 if case.share is None else case.share)
            challenger, unpaid, _, held = detail
            assert (challenger == ZERO) == (case.challenger is None)
            assert (unpaid, held, pot) == (bits(*case.unpaid), case.held, case.pot)
        for license_id, license in model.licenses.items():
            bond, end, bucket, active, shares = read(
                (room.vault.bondOf, license_id),
                (room.licenses.endOf, license_id),
                (room.court.leakBucket, license_id),
                (room.licenses.isActive, license_id),
                (room.court.sharesOpened, license_id),
            )
            assert (bond[0], bond[2]) == (license.bond, license.holds)
            assert (end, bucket, shares) == (int(license.revoked), license.leak_bucket, bits(*license.shares))
            assert active == (not license.revoked and license.suspensions == 0)
        bonds = sum(amount for amount, *_ in read(*((room.vault.bondOf, number) for number in room.records)))
        pots = sum(case.pot for case in model.cases)
        money = sum(model.free.values()) + sum(model.stake.values()) + model.royalties + pots + bonds
        assert room.vault.balance == money


def test_cases_follow_the_model(room: Courtroom, license_id: int) -> None:
    Cases.room = room
    run_state_machine_as_test(
        Cases,
        settings=settings(
            max_examples=10,
            stateful_step_count=45,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )
    reached = {state for _, state in Cases.seen}
    assert reached >= set(ENDED), f"the examples reached too few ends to mean anything: {reached}"
