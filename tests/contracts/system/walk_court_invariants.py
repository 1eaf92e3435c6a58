"""What must hold of cases, channels and the committee after every step of a walk. `docs/invariants.md` says why."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

from courtroom import Decision, Kind, State
from hypothesis.stateful import invariant
from quick_node import Log
from reference_court import ENDED, NOTICE, ROWS, UNDECIDED
from walk_court import CourtMoves
from walk_invariants import MarketInvariants
from walk_stage import THRESHOLD

FINAL = "VerdictFinal"
AFTER_THE_END = ("FeeClaimed", "HoldReleased", "CaseBondPaid")
WITH_THE_END = ("LicenseSuspended", "SignersSlashed", "FaultFound", "ShareMissed", "ModelFrozenByVerdict")


class CourtInvariants(MarketInvariants, CourtMoves):
    """Cases, slashes, signatures."""

    def of_case(self, case_id: bytes) -> list[Log]:
        """What was said of the case, in order."""
        return [log for log in self.replay.seen if log.args.get("caseId") == case_id]

    def executed(self) -> list[Log]:
        return self.past("CaseExecuted")

    def file(self, case_id: bytes) -> tuple[Kind, int]:
        f = self.court.cases[case_id].file
        return f.kind, f.license_id

    @invariant()
    def a_case_is_where_the_books_put_it(self) -> None:
        for case in self.court.cases.values():
            (state, decision, until, share), detail, pot, defence = self.seen.cases[case.file.id]
            assert (state, decision) == (case.state, case.decision)
            if case.state in UNDECIDED or (case.state == State.CLEARED and case.held):
                assert until == case.until
            assert share == (255 if case.share is None else case.share)
            challenger, unpaid, _, held = detail
            assert (int(challenger, 16) == 0) == (case.challenger is None)
            assert unpaid == sum(1 << seat for seat in case.unpaid)
            assert (held, pot) == (case.held, case.pot)
            asked, opened, cure_by = defence
            assert (asked, opened) == (case.service_asked, case.chunk_opened)
            if case.state in UNDECIDED:
                assert cure_by == case.cure_by

    @invariant()
    def a_case_has_one_final_verdict(self) -> None:
        """Execution is the one thing that may follow it, and only of guilt; after the end there is only paying out."""
        for case_id in self.court.cases:
            logs = self.of_case(case_id)
            finals = [log.args["state"] for log in logs if log.name == FINAL]
            executions = [log for log in logs if log.name == "CaseExecuted"]
            cured = any(log.name == "Cured" for log in logs)
            assert len(finals) <= 1 or (cured and finals == [State.FINAL_GUILTY, State.CLOSED])
            assert len(executions) <= 1
            assert not executions or finals in ([], [State.FINAL_GUILTY])
            over = [i for i, log in enumerate(logs) if log.name == "CaseExecuted" or self.is_end(log)]
            for log in logs[over[0] + 1 :] if over else []:
                assert log.name in (*AFTER_THE_END, *WITH_THE_END), log

    @staticmethod
    def is_end(log: Log) -> bool:
        return log.name == FINAL and log.args["state"] in ENDED

    @invariant()
    def no_slash_without_a_final_verdict(self) -> None:
        """A bond shrinks only by the execution of a guilty verdict whose window is over, or of a ruling."""
        for log in self.executed():
            before = self.of_case(log.args["caseId"])
            before = before[: before.index(log)]
            posted = [e for e in before if e.name == "VerdictPosted"]
            assert len(posted) == 1
            ruled = [e for e in before if e.name == FINAL and e.args["state"] == State.FINAL_GUILTY]
            if not ruled:
                assert posted[0].args["decision"] == Decision.GUILTY
                until = [e.args["until"] for e in before if e.name == "Served"] or [
                    posted[0].args["challengeUntil"]
                ]
                assert log.time > until[-1]  # court time never runs before the real one
        for number, bond in self.books.bonds.items():
            slashed = sum(e.args["slashed"] for e in self.executed() if e.args["licenseId"] == number)
            released = sum(
                e.args["amount"] for e in self.past("BondReleased") if e.args["licenseId"] == number
            )
            assert bond.original == slashed + released + self.seen.bonds[number][0]

    @invariant()
    def a_slash_stays_in_the_table(self) -> None:
        """For each license and kind together no more than the table gives for the strongest verdict."""
        taken: dict[tuple[int, Kind], int] = defaultdict(int)
        rows: dict[tuple[int, Kind], int] = defaultdict(int)
        for log in self.executed():
            kind, number = self.file(log.args["caseId"])
            bucket = self.court.cases[log.args["caseId"]].bucket
            if log.args["slashed"]:
                assert kind in (Kind.LEAK, Kind.TERMS)
                taken[number, kind] += log.args["slashed"]
                rows[number, kind] = max(rows[number, kind], self.court.p.slash_bps[ROWS[bucket]])
        for (number, kind), amount in taken.items():
            assert amount <= self.books.bonds[number].original * rows[number, kind] // 10_000

    @invariant()
    def a_slash_is_shared_as_the_rules_say(self) -> None:
        """A reporter gets a tenth at most; the model's owner together no more than was paid for the license."""
        to_owner: dict[int, int] = defaultdict(int)
        for log in self.executed():
            slashed, to_reporter, part = (log.args[key] for key in ("slashed", "toReporter", "toOwner"))
            assert to_reporter <= slashed // 10
            assert to_reporter + part <= slashed
            to_owner[log.args["licenseId"]] += part
        for number, amount in to_owner.items():
            assert number == 0 or amount <= self.books.purchases[number].order.sale.price

    @invariant()
    def a_misuse_counts_once(self) -> None:
        """For each license final guilty LEAK verdicts get stronger, and TERMS verdicts name different objects, as do
        those that freeze a model."""
        buckets: dict[int, list[int]] = defaultdict(list)
        subjects: dict[int, list[bytes]] = defaultdict(list)
        for log in self.executed():
            (posted,) = [e for e in self.of_case(log.args["caseId"]) if e.name == "VerdictPosted"]
            kind, number = self.file(log.args["caseId"])
            if kind == Kind.LEAK:
                buckets[number].append(self.court.cases[log.args["caseId"]].bucket)
            elif kind in (Kind.TERMS, Kind.OWNERSHIP, Kind.UNDECLARED_PARENT):
                accused = number or self.court.cases[log.args["caseId"]].file.model_id
                subjects[accused].append(posted.args["verdict"][5])
        assert all(len(found) == len(set(found)) for found in (*buckets.values(), *subjects.values()))

    @invariant()
    def only_a_threshold_of_the_committee_is_heard(self) -> None:
        for log in (*self.past("VerdictPosted"), *self.past("Cured")):
            assert int(log.args["bitmap"]).bit_count() >= THRESHOLD
            assert len(self.stage.operators) < 2 * THRESHOLD

    @invariant()
    def a_share_is_opened_once(self) -> None:
        opened = Counter((log.args["licenseId"], log.args["index"]) for log in self.past("ShareOpened"))
        assert all(count == 1 for count in opened.values())
        by_case = Counter(log.args["caseId"] for log in self.past("ShareOpened"))
        assert all(count == 1 for count in by_case.values())

    @invariant()
    def open_cases_are_counted_on_the_bond(self) -> None:
        held = Counter(c.license for i, c in self.court.cases.items() if self.seen.cases[i][1][3])
        for number, (_, _, cases, *_) in self.seen.bonds.items():
            assert cases == held[number]

    @invariant()
    def a_suspension_ends_with_its_case(self) -> None:
        suspending = {
            case.license
            for case in self.court.cases.values()
            if case.cure_by and case.state in (*UNDECIDED, State.FINAL_GUILTY)
        }
        assert {n for n, seen in self.seen.licenses.items() if seen[3]} == suspending

    @invariant()
    def a_label_has_its_time_to_be_restored(self) -> None:
        """Four days from notice: of a guilty verdict, or of the ruling that overturned another."""
        for log in self.executed():
            logs = self.of_case(log.args["caseId"])
            if self.file(log.args["caseId"])[0] == Kind.DISCLOSURE:
                given = min(e.time for e in logs if self.gives_notice(e))
                assert log.time > given + NOTICE

    @staticmethod
    def gives_notice(log: Log) -> bool:
        guilty = log.name == "VerdictPosted" and log.args["decision"] == Decision.GUILTY
        return guilty or (log.name == "Ruled" and not log.args["upheld"])

    @invariant()
    def who_signed_what_was_overturned_is_paid_nothing(self) -> None:
        for case_id in self.court.cases:
            logs = self.of_case(case_id)
            faults = any(log.name == "FaultFound" for log in logs)
            overturned = any(log.name == "Ruled" and not log.args["upheld"] for log in logs)
            assert faults or not overturned or all(log.name != "FeeClaimed" for log in logs)

    @invariant()
    def an_accused_is_served_or_cleared(self) -> None:
        """Once he asked, nothing but serving, curing or clearing follows; and then he has his whole window."""
        for case_id in self.court.cases:
            logs = [log for log in self.of_case(case_id) if log.name not in AFTER_THE_END]
            for log, after in pairwise(logs):
                if log.name == "ServiceRequested":
                    cleared = after.name == FINAL and after.args["state"] == State.CLEARED
                    assert cleared or after.name in ("Served", "Cured", "ChunkOpened")
            for log in logs:
                if log.name == "Served":
                    window = min(self.court.p.challenge_window, self.court.p.ruling_window, NOTICE)
                    assert log.args["until"] >= self.court_time(log.time) + window

    def court_time(self, second: int) -> int:
        return second - sum(
            min(end, second) - start for start, end in self.paused("Posting") if start < second
        )

    @invariant()
    def every_case_can_be_ended_by_anyone(self) -> None:
        """Past its deadline each state is left by a stranger's call; simulated after every step."""
        court, calls = self.stage.faces["MisuseCourt"], []
        self.books.now = now = self.clock + 1
        for case in self.court.cases.values():
            way = self.way_out(case)
            if way is not None and self.court.clock() > self.over_at(case):
                data = court.data(way[0], case.file.as_tuple(), *way[1])
                calls.append((court.address, data, self.address("sam"), 0))
        assert all(isinstance(answer, bytes) for answer in self.stage.node.simulate_all(calls, now))


class ChannelInvariants(MarketInvariants):
    """Usage channels."""

    @invariant()
    def a_channel_is_what_the_books_say(self) -> None:
        for number, channel in self.books.channels.items():
            deposited, redeemed, closes_at, onward_bps, phase = self.seen.channels[number]
            assert (deposited, redeemed) == (channel.deposited, channel.redeemed)
            assert (closes_at, onward_bps) == (channel.closes_at, channel.onward_bps)
            assert phase == (2 if channel.closed else 1)

    @invariant()
    def a_channel_never_pays_more_than_was_deposited(self) -> None:
        """Vouchers and the refund together come to the deposit when it closes, and to no more before."""
        for number, channel in self.books.channels.items():
            logs = [log for log in self.replay.seen if log.args.get("channelId") == number]
            paid = sum(
                log.args["toProvider"] + log.args["toModel"] for log in logs if log.name == "VoucherRedeemed"
            )
            refund = sum(log.args["refund"] for log in logs if log.name == "ChannelClosed")
            locked = channel.terms[4] + sum(
                log.args["amount"] for log in logs if log.name == "ChannelToppedUp"
            )
            assert locked == channel.deposited
            assert paid + refund <= locked
            assert paid + refund == locked or not channel.closed

    @invariant()
    def channels_hold_what_they_have_not_paid(self) -> None:
        for token in self.tokens:
            held = [c.held for c in self.books.channels.values() if c.token == token]
            assert self.seen.channel_funds[token] == sum(held)

    @invariant()
    def a_provider_has_two_days_to_redeem(self) -> None:
        """Nobody but the provider closes a channel earlier than two days after the payer's request or the expiry."""
        for log in self.past("ChannelClosed"):
            channel = self.books.channels[log.args["channelId"]]
            asked = [
                e.args["closesAt"]
                for e in self.past("CloseRequested")
                if e.args["channelId"] == log.args["channelId"]
            ]
            due = min([channel.expiry + 2 * 86_400, *asked])
            assert log.time >= due or log.args["channelId"] in self.closed_by_provider
