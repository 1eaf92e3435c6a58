"""What the court promises, in plain Python: the states of a case, who may move it when, and the money table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from courtroom import CaseFile, Decision, Kind, State
from market import DAY, HOUR, NATIVE
from market import State as OrderState
from reference_books import BPS, COURT, DISCLOSURE, REVOKED, Books, Need, Terms, step

from contracts_plan import CourtParams

NOTICE = 96 * HOUR
SERVICE = 24 * HOUR
AFTERMATH = 14 * DAY
WAITING = 2**40 - 1  # in place of the time to cure while the accused waits to be served
ENDED = (State.LAPSED, State.CLOSED, State.DISMISSED, State.CLEARED, State.EXECUTED)
UNDECIDED = (State.POSTED, State.SERVING, State.CHALLENGED, State.ESCALATED)
ROWS = {12: 0, 20: 1, 40: 2}
ON_LICENSES = (Kind.LEAK, Kind.TERMS, Kind.DISCLOSURE)


@dataclass
class Docket:
    """What cases left on a license."""

    shares: set[int] = field(default_factory=set)
    leak_bucket: int = 0
    slashed: dict[Kind, int] = field(default_factory=lambda: {Kind.LEAK: 0, Kind.TERMS: 0})
    counted: set[bytes] = field(default_factory=set)
    suspensions: int = 0


@dataclass
class Case:
    """A case; `until` is court time."""

    file: CaseFile
    held: bool
    pot: int
    state: State = State.OPEN
    decision: Decision = Decision.NONE
    until: int = 0
    share: int | None = None
    bucket: int = 0
    subject: bytes = b""
    seats: tuple[int, ...] = ()
    unpaid: set[int] = field(default_factory=set)
    challenger: str | None = None
    service_asked: bool = False
    chunk_opened: bool = False
    cure_by: int = 0

    @property
    def license(self) -> int:
        return self.file.license_id


class Court:
    """Cases over the books."""

    def __init__(
        self, books: Books, params: CourtParams, *, arbiter: str, last: str, seats: list[str], threshold: int
    ) -> None:
        self.books, self.p = books, params
        self.arbiter, self.last, self.seats, self.threshold = arbiter, last, seats, threshold
        self.cases: dict[bytes, Case] = {}
        self.dockets: dict[int, Docket] = {}
        self.frozen_for: defaultdict[int, set[bytes]] = defaultdict(set)  # subjects, by model

    # ---------------------------------------------------------------- time and sums

    def clock(self) -> int:
        return self.books.now - self.books.pauses[COURT].seconds(self.books.now)

    def docket(self, license_id: int) -> Docket:
        return self.dockets.setdefault(license_id, Docket())

    def share_by(self, file: CaseFile) -> int:
        return file.post_by - self.p.post_window // 2

    def window(self, case: Case) -> int:
        notice = case.file.kind == Kind.DISCLOSURE and case.decision == Decision.GUILTY
        return NOTICE if notice else self.p.challenge_window

    def least(self, kind: Kind, license_id: int) -> int:
        bond = self.books.bonds.get(license_id)
        held_by = bond.cases if bond else 0
        if kind == Kind.LEAK:
            held_by += len(self.docket(license_id).shares)
        held = bond.amount if bond and bond.token == NATIVE and kind != Kind.DISCLOSURE else 0
        return max(self.p.min_report_bond, -(-held // 100)) << min(8, held_by)

    def fee(self, case: Case) -> int:
        return case.file.bond * self.p.fee_bps // BPS

    def rest(self, case: Case) -> int:
        """R less the fee; R where nobody has a fee to come."""
        return case.file.bond - (self.fee(case) if case.unpaid else 0)

    def ended_unheld(self, case: Case) -> bool:
        return case.state in ENDED and not case.held

    # ---------------------------------------------------------------- money

    def pay(self, case: Case, to: str, amount: int) -> None:
        case.pot -= amount
        assert case.pot >= 0
        self.books.free[to, NATIVE] += amount

    def slash_stake(self, account: str, amount: int, to: str) -> None:
        stake = self.books.stakes[account]
        taken = min(amount, stake.staked - stake.locked)
        stake.staked -= taken
        self.books.free[to, NATIVE] += taken

    def penalty(self, license_id: int) -> int:
        bond = self.books.bonds[license_id]
        return max(self.p.missed_share_penalty, bond.amount // 2 if bond.token == NATIVE else 0)

    def accused_or_treasury(self, case: Case) -> str:
        return case.file.accused if case.file.accused != NATIVE else self.books.treasury

    # ---------------------------------------------------------------- a case until its verdict

    def accuse(self, need: Need, kind: Kind, license_id: int, model: int) -> tuple[str, bool]:
        """Who is accused, and whether a bond is at stake."""
        if kind not in ON_LICENSES:
            need(license_id == 0, "LicenseNotAccusable")
            need(model in self.books.models, "NoSuchModel")
            need.stop()
            return (NATIVE if kind == Kind.UNLICENSED else self.books.models[model].owner), False
        purchase = self.books.purchases.get(license_id)
        settled = purchase is not None and purchase.state == OrderState.SETTLED and license_id >> 28 == model
        need(settled, "LicenseNotAccusable")
        need.stop()
        assert purchase is not None
        bond, docket = self.books.bonds[license_id], self.docket(license_id)
        if kind == Kind.LEAK:
            need(bond.amount != 0, "LicenseNotAccusable")
            need(self.books.now >= purchase.since + self.p.mark_age, "MarkTooYoung")
            need(docket.leak_bucket < 40, "AlreadyCounted")
            need(len(docket.shares) < 16, "NoShareLeft")
        if kind == Kind.DISCLOSURE:
            need(bool(Terms.of(self.books.licenses[license_id].terms).flags & DISCLOSURE), "NoSuchDuty")
            need(not self.books.ended(license_id), "LicenseNotAccusable")
        return self.books.licenses[license_id].holder, bond.amount != 0 and kind != Kind.DISCLOSURE

    def open(
        self,
        *,
        kind: Kind,
        license_id: int,
        model: int,
        reporter: str,
        bond: int,
        evidence: bytes,
        digest: bytes,
    ) -> None:
        with step() as need:
            accused, hold = self.accuse(need, kind, license_id, model)
            need(bond != 0 and bond >= self.least(kind, license_id), "ReportBondTooSmall")
            self.books.take(reporter, NATIVE, bond, need)
        file = CaseFile(
            kind, model, license_id, reporter, accused, bond, evidence, digest, 1, self.arbiter, self.books.now,
            self.clock() + self.p.post_window,
        )  # fmt: skip
        assert file.id not in self.cases
        self.books.free[reporter, NATIVE] -= bond
        self.cases[file.id] = Case(file, hold, bond)
        if hold:
            self.books.bonds[license_id].cases += 1

    def opened(self, need: Need, case: Case, *states: State) -> None:
        need(case.state in states, "WrongCaseState")
        need.stop()

    def open_share(self, case: Case, index: int, *, sender: str) -> None:
        docket = self.docket(case.license)
        with step() as need:
            self.opened(need, case, State.OPEN)
            if need(case.file.kind == Kind.LEAK, "WrongKind"):
                need(self.clock() <= self.share_by(case.file), "TooLate")
                fingerprinter = self.books.purchases[case.license].order.delivery.fingerprinter
                need(sender == fingerprinter, "NotTheFingerprinter")
                need(case.share is None and index not in docket.shares, "ShareAlreadyOpened")
        case.share = index
        docket.shares.add(index)

    def share_missed(self, case: Case) -> None:
        docket = self.docket(case.license)
        with step() as need:
            self.opened(need, case, State.OPEN)
            if need(case.file.kind == Kind.LEAK, "WrongKind"):
                need(self.clock() > self.share_by(case.file), "TooEarly")
                need(case.share is None, "ShareOpenedInTime")
        case.decision = Decision.INCONCLUSIVE
        penalty = self.penalty(case.license)
        self.end(case, State.CLOSED)
        if len(docket.shares) < 16:
            fingerprinter = self.books.purchases[case.license].order.delivery.fingerprinter
            self.slash_stake(fingerprinter, penalty, self.books.treasury)
        self.pay(case, case.file.reporter, case.file.bond)

    def lapse(self, case: Case) -> None:
        with step() as need:
            self.opened(need, case, State.OPEN)
            need(self.clock() > case.file.post_by, "TooEarly")
            need(case.file.kind != Kind.LEAK or case.share is not None, "ShareNeverOpened")
        self.end(case, State.LAPSED)
        self.pay(case, case.file.reporter, case.file.bond)

    def check_signed(self, need: Need, seats: tuple[int, ...], genuine: bool) -> None:
        need(len(seats) >= self.threshold, "NotEnoughSignatures")
        need(genuine, "BadSigner")

    def check_posting(self, need: Need, deadline: int) -> None:
        need(self.books.now >= self.books.pauses[COURT].until, "PostingIsPaused")
        need(self.books.now <= deadline, "TooLate")

    def post(
        self, case: Case, decision: Decision, *, bucket: int, subject: bytes, samples: int, deadline: int,
        seats: tuple[int, ...], genuine: bool,
    ) -> None:  # fmt: skip
        kind, convicts = case.file.kind, decision == Decision.GUILTY
        with step() as need:
            self.opened(need, case, State.OPEN)
            need(self.clock() <= case.file.post_by, "TooLate")
            self.check_posting(need, deadline)
            if convicts and kind in (Kind.LEAK, Kind.TERMS):
                need(bucket >= 12, "EvidenceTooWeak")
            if convicts and kind == Kind.LEAK:
                need(case.share is not None, "ShareNotOpened")
            if convicts and kind == Kind.TERMS:
                need(samples >= 3, "TooFewSamples")
            self.check_signed(need, seats, genuine)
        case.decision, case.subject, case.seats, case.unpaid = decision, subject, seats, set(seats)
        case.bucket = 0 if kind == Kind.LEAK and case.share is None else bucket
        ruled = kind == Kind.TERMS and convicts
        case.state = State.CHALLENGED if ruled else State.POSTED
        case.until = self.clock() + (self.p.ruling_window if ruled else self.window(case))
        if kind == Kind.DISCLOSURE and convicts:
            self.give_notice(case)

    def give_notice(self, case: Case) -> None:
        case.cure_by = self.clock() + NOTICE
        self.docket(case.license).suspensions += 1
        self.books.licenses[case.license].suspended = True

    # ---------------------------------------------------------------- serving and defence

    def request_service(self, case: Case, *, sender: str) -> None:
        with step() as need:
            self.opened(need, case, State.POSTED, State.CHALLENGED)
            appealed = case.state == State.CHALLENGED and case.decision == Decision.NOT_GUILTY
            need(appealed or case.decision == Decision.GUILTY, "NothingToServe")
            need(sender == case.file.accused, "NotTheAccused")
            need(not case.service_asked, "ServiceAskedBefore")
            need(self.clock() <= case.until, "TooLate")
        if case.cure_by >= self.clock():
            case.cure_by = WAITING
        case.state, case.until, case.service_asked = State.SERVING, self.clock() + SERVICE, True

    def serve(self, case: Case, seat: int, *, sender: str) -> None:
        with step() as need:
            self.opened(need, case, State.SERVING)
            need(self.clock() <= case.until, "TooLate")
            if sender != case.file.reporter:
                need(seat < len(self.seats), "NoSuchSeat")
                need(seat < len(self.seats) and sender == self.seats[seat], "NotAllowedToServe", "NoSuchSeat")
        ruled = case.challenger is not None or (
            case.file.kind == Kind.TERMS and case.decision == Decision.GUILTY
        )
        case.state = State.CHALLENGED if ruled else State.POSTED
        case.until = self.clock() + (self.p.ruling_window if ruled else self.window(case))
        if case.cure_by == WAITING:
            case.cure_by = self.clock() + NOTICE

    def clear_unserved(self, case: Case) -> None:
        with step() as need:
            self.opened(need, case, State.SERVING)
            need(self.clock() > case.until, "TooEarly")
        self.clear_without_ruling(case)

    def cure(self, case: Case, *, deadline: int, seats: tuple[int, ...], genuine: bool) -> None:
        with step() as need:
            self.opened(need, case, *UNDECIDED, State.FINAL_GUILTY)
            if need(case.cure_by != 0, "NothingToCure"):
                need(self.clock() <= case.cure_by, "TooLate")
            self.check_posting(need, deadline)
            self.check_signed(need, seats, genuine)
        ruled = case.state == State.FINAL_GUILTY
        self.end(case, State.CLOSED)
        self.pay(case, case.file.reporter, self.rest(case))
        if case.challenger is not None and not ruled:
            self.pay(case, case.challenger, self.p.challenge_bond)

    def open_chunk(self, case: Case, *, sender: str) -> None:
        with step() as need:
            self.opened(need, case, *UNDECIDED)
            need(case.file.kind == Kind.LEAK, "WrongKind")
            need(sender == case.file.accused, "NotTheAccused")
        case.chunk_opened = True

    # ---------------------------------------------------------------- appeal

    def challenge(self, case: Case, *, sender: str) -> None:
        with step() as need:
            self.opened(need, case, State.POSTED)
            need(self.clock() <= case.until, "TooLate")
            if case.decision == Decision.GUILTY:
                window = self.window(case)
                open_ = self.clock() > case.until - window + window // 3
                need(open_ or sender == case.file.accused, "NotAllowedToChallenge")
            else:
                need(sender == case.file.reporter, "NotAllowedToChallenge")
            need(sender not in (self.arbiter, self.last), "NotAllowedToChallenge")
            self.books.take(sender, NATIVE, self.p.challenge_bond, need)
        self.books.free[sender, NATIVE] -= self.p.challenge_bond
        case.pot += self.p.challenge_bond
        case.state, case.challenger = State.CHALLENGED, sender
        case.until = self.clock() + self.p.ruling_window

    def judging(self, need: Need, case: Case, sender: str) -> None:
        self.opened(need, case, State.CHALLENGED, State.ESCALATED)
        need(sender == (self.arbiter if case.state == State.CHALLENGED else self.last), "NotTheAuthority")
        need(self.clock() <= case.until, "TooLate")

    def rule(self, case: Case, uphold: bool, *, sender: str) -> None:
        with step() as need:
            self.judging(need, case, sender)
        if not uphold:
            case.unpaid = set()
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
            self.clear(case)
        if case.challenger is None:
            return
        self.pay(case, sender if uphold else case.challenger, self.p.challenge_bond)
        for seat in () if uphold or not decided else case.seats:
            self.slash_stake(self.seats[seat], self.p.challenge_bond // len(case.seats), sender)

    def rule_fault(self, case: Case, *, sender: str) -> None:
        with step() as need:
            self.judging(need, case, sender)
            if need(case.file.kind == Kind.LEAK, "WrongKind"):
                need(case.decision == Decision.GUILTY and case.chunk_opened, "NoChunkOpened")
        penalty = self.penalty(case.license)
        self.clear(case)
        assert case.challenger is not None
        self.pay(case, case.challenger, self.p.challenge_bond)
        fingerprinter = self.books.purchases[case.license].order.delivery.fingerprinter
        self.slash_stake(fingerprinter, self.p.challenge_bond, sender)
        self.slash_stake(fingerprinter, penalty, self.books.treasury)

    def escalate(self, case: Case) -> None:
        with step() as need:
            self.opened(need, case, State.CHALLENGED)
            need(self.clock() > case.until, "TooEarly")
        case.state, case.until = State.ESCALATED, self.clock() + self.p.last_window

    def clear_silent(self, case: Case) -> None:
        with step() as need:
            self.opened(need, case, State.ESCALATED)
            need(self.clock() > case.until, "TooEarly")
        self.clear_without_ruling(case)

    def release_hold(self, case: Case) -> None:
        with step() as need:
            self.opened(need, case, State.CLEARED)
            if need(case.held, "NothingHeld"):
                need(self.clock() > case.until, "TooEarly")
        case.held = False
        self.books.bonds[case.license].cases -= 1

    # ---------------------------------------------------------------- ends

    def finalize(self, case: Case) -> None:
        with step() as need:
            self.opened(need, case, State.POSTED)
            need(self.clock() > case.until, "TooEarly")
        if case.decision == Decision.GUILTY:
            self.convict(case)
        elif case.decision == Decision.NOT_GUILTY:
            self.dismiss(case)
        else:
            self.close(case)

    def execute(self, case: Case) -> None:
        with step() as need:
            if case.state == State.POSTED and case.decision == Decision.GUILTY:
                need(self.clock() > case.until, "TooEarly")
            else:
                self.opened(need, case, State.FINAL_GUILTY)
            need(self.clock() > case.cure_by, "TooEarly")
        if case.state == State.POSTED and not self.convict(case):
            return
        self.lift(case)
        self.free_bond(case)
        case.state = State.EXECUTED
        self.pay(case, case.file.reporter, self.rest(case))
        if case.file.kind in (Kind.LEAK, Kind.TERMS):
            self.slash_bond(case)
        if case.license:
            license_ = self.books.licenses[case.license]
            license_.end = license_.end or REVOKED
        elif case.file.kind != Kind.UNLICENSED:
            self.books.freeze_by_verdict(case.file.model_id)

    def slash_bond(self, case: Case) -> None:
        bond, docket, kind = self.books.bonds[case.license], self.docket(case.license), case.file.kind
        if not case.bucket:
            return
        original = bond.amount + sum(docket.slashed.values())
        table = original * self.p.slash_bps[ROWS[case.bucket]] // BPS
        amount = min(max(0, table - docket.slashed[kind]), bond.amount)
        docket.slashed[kind] += amount
        to_reporter = amount * self.p.reporter_bps // BPS
        to_owner = min(amount - to_reporter, bond.price)
        bond.amount -= amount
        bond.price -= to_owner
        self.books.free[case.file.reporter, bond.token] += to_reporter
        self.books.free[self.books.treasury, bond.token] += amount - to_reporter - to_owner
        self.books.pay_royalty(case.license >> 28, bond.token, to_owner)

    def claim_fee(self, case: Case, seat: int) -> None:
        with step() as need:
            paid_out = case.state in ENDED and case.state != State.LAPSED
            need(paid_out and seat in case.unpaid, "NothingToClaim")
        self.pay(case, self.seats[seat], case.pot // len(case.unpaid))
        case.unpaid.remove(seat)

    def free_bond(self, case: Case) -> None:
        if case.held:
            self.books.bonds[case.license].cases -= 1
        case.held = False

    def end(self, case: Case, state: State) -> None:
        case.state = state
        self.free_bond(case)
        self.lift(case)

    def lift(self, case: Case) -> None:
        if case.cure_by:
            docket = self.docket(case.license)
            docket.suspensions -= 1
            self.books.licenses[case.license].suspended = docket.suspensions > 0

    def convict(self, case: Case) -> bool:
        """False where this misuse had been counted: then the case is closed."""
        kind, docket = case.file.kind, self.docket(case.license)
        if kind == Kind.LEAK:
            if docket.leak_bucket and case.bucket <= docket.leak_bucket:
                return self.close(case)
            docket.leak_bucket = case.bucket
        elif kind in (Kind.TERMS, Kind.OWNERSHIP, Kind.UNDECLARED_PARENT):
            counted = docket.counted if kind == Kind.TERMS else self.frozen_for[case.file.model_id]
            if case.subject in counted:
                return self.close(case)
            counted.add(case.subject)
        elif kind == Kind.DISCLOSURE and not case.cure_by:
            self.give_notice(case)
        case.state = State.FINAL_GUILTY
        return True

    def close(self, case: Case) -> bool:
        self.end(case, State.CLOSED)
        unavailable = case.decision == Decision.UNAVAILABLE
        self.pay(case, self.books.treasury if unavailable else case.file.reporter, self.rest(case))
        return False

    def dismiss(self, case: Case) -> None:
        self.end(case, State.DISMISSED)
        half = self.rest(case) // 2
        self.pay(case, self.accused_or_treasury(case), half)
        self.pay(case, self.books.treasury, self.rest(case) - half)

    def clear(self, case: Case) -> None:
        self.end(case, State.CLEARED)
        self.pay(case, self.accused_or_treasury(case), self.rest(case))

    def clear_without_ruling(self, case: Case) -> None:
        case.state, case.until = State.CLEARED, self.clock() + AFTERMATH
        self.lift(case)
        self.pay(case, case.file.reporter, self.rest(case))
        if case.challenger is not None:
            self.pay(case, case.challenger, self.p.challenge_bond)
