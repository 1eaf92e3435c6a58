"""Cases through the real court, with the operators' own signatures: moves of accusers, accused, committee, judges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from courtroom import CaseFile, Decision, Kind, LicenseRecord, State, Verdict, share_proof, share_seeds
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from market import ETHER, NATIVE
from market import State as OrderState
from reference_books import COURT
from reference_court import ENDED, Case
from stage_play import copy_path
from walk_machine import Machine, Move
from walk_stage import PARCELS, TEXT, order_hash, verdict_hash

FAR = 2**40 - 1
CASES = 7  # of one walk
SEATS = ((0, 1, 2), (1, 3, 4), (0, 1, 2, 3, 4), (2, 3, 4))
SUBJECTS = (b"\x51" * 32, b"\x52" * 32)
DECISIONS = (*[Decision.GUILTY] * 6, *[Decision.NOT_GUILTY] * 2, *list(Decision)[3:])
CURE_DOMAIN = keccak(text="zhiyi.cure.v1")


class CourtMoves(Machine):
    """Each method draws what it needs, sends one transaction and tells the books."""

    def court_moves(self) -> tuple[list[Move], list[Move]]:
        """What may follow now, and what follows only after waiting."""
        now: list[Move] = []
        later: list[Move] = []
        self.books.now = self.clock
        settled = [n for n, p in self.books.purchases.items() if p.state == OrderState.SETTLED]
        if len(self.court.cases) < CASES:
            now.append(("accuse", {"number": self.pick(0, *settled, *settled)}))
        for case in self.court.cases.values():
            soon, late = self.case_moves(case)
            now += [(move, {"case": case}) for move in soon]
            later += [("late", {"case": case, "step": move}) for move in late]
        return now, later

    def case_moves(self, case: Case) -> tuple[list[str], list[str]]:
        clock, leak = self.court.clock(), case.file.kind == Kind.LEAK
        unshared = leak and case.share is None
        extra = ["open_chunk"] if leak and not case.chunk_opened else []
        extra += ["cure"] if case.file.kind == Kind.DISCLOSURE else []
        extra += [] if case.service_asked else ["request_service"]
        match case.state:
            case State.OPEN if unshared:
                past = clock > self.court.share_by(case.file)
                return (["share_missed"], []) if past else (["open_share"] * 5, ["share_missed"])
            case State.OPEN:
                return (["lapse"], []) if clock > case.file.post_by else (["post"] * 5, ["lapse"])
            case State.POSTED if case.decision == Decision.GUILTY:
                return ["challenge", *extra], ["execute", "execute", "finalize"]
            case State.POSTED:
                return ["challenge", "challenge"], ["finalize", "finalize"]
            case State.SERVING:
                return ["serve", "serve", *extra[:-1]], ["clear_unserved"]
            case State.CHALLENGED:
                judged = ["rule_fault"] * 2 if case.chunk_opened else []
                return ["rule", "rule", *judged, *extra], ["escalate"]
            case State.ESCALATED:
                return ["rule"], ["clear_silent"]
            case State.FINAL_GUILTY if case.cure_by:
                return ["cure"], ["execute", "execute", "cure"]
            case State.FINAL_GUILTY:
                return ["execute"] * 3, []
            case State.CLEARED if case.held:
                return [], ["release_hold"]
        return (["claim_fee"] * 2, []) if case.unpaid and case.state in ENDED else ([], [])

    def court_thoughts(self) -> list[Move]:
        steps = (
            "open_share", "share_missed", "lapse", "post", "challenge", "rule", "rule_fault", "request_service",
            "serve", "clear_unserved", "cure", "open_chunk", "escalate", "clear_silent", "release_hold", "finalize",
            "execute", "claim_fee",
        )  # fmt: skip
        moves: list[Move] = [(name, {"case": case}) for case in self.court.cases.values() for name in steps]
        return [*moves, ("accuse", {"number": next(iter(self.stage.models)) << 28 | 99})]

    # ---------------------------------------------------------------- time

    def second_of(self, court_time: int) -> int:
        """When the court's clock shows this, if nobody pauses it any more."""
        pause = self.books.pauses[COURT]
        standing = max(0, pause.until - self.clock) if self.clock >= pause.start else 0
        return court_time + pause.seconds(self.clock) + standing

    def wait_for(self, case: Case) -> None:
        """To the edge of the case's present state."""
        self.books.now = self.clock
        self.to_the_edge(self.second_of(self.over_at(case)))

    def late(self, case: Case, step: str) -> None:
        """The step at the edge of its time."""
        self.wait_for(case)
        getattr(self, step)(case)

    # ---------------------------------------------------------------- moves

    def on_case(
        self, case: Case, function: str, reference: Callable[[], None], *more: Any, by: str = "sam"
    ) -> bool:
        return self.step(reference, "MisuseCourt", function, case.file.as_tuple(), *more, by=by)

    def accuse(self, number: int) -> None:
        kind = self.pick(Kind.LEAK, Kind.LEAK, Kind.LEAK, Kind.TERMS, Kind.DISCLOSURE)
        if number == 0:
            kind = self.pick(Kind.OWNERSHIP, Kind.UNDECLARED_PARENT, Kind.UNLICENSED)
        elif number in self.books.purchases and kind == Kind.LEAK:
            self.clock = max(
                self.clock, self.books.purchases[number].since + self.court.p.mark_age - self.pick(1, 1, 1, 9)
            )
        model = number >> 28 or self.pick(*self.stage.models)
        reporter = self.pick("hugo", "hugo", "kim", "gina")
        self.requests += 1
        evidence = (1 << 255 | self.requests).to_bytes(32, "big")
        bond = self.court.least(kind, number) + self.pick(0, ETHER // 7, ETHER // 7, -1)
        made: list[CaseFile] = []

        def reference() -> None:
            before = set(self.court.cases)
            self.court.open(
                kind=kind, license_id=number, model=model, reporter=self.address(reporter), bond=bond,
                evidence=evidence, digest=TEXT,
            )  # fmt: skip
            made.extend(self.court.cases[i].file for i in set(self.court.cases) - before)

        arguments: tuple[Any, ...] = (number, model, int(kind), evidence, TEXT, bond)
        function = "openCase"
        if kind == Kind.DISCLOSURE and self.pick(True, False):
            function, arguments = "reportDisclosureDisabled", (number, evidence, TEXT, bond)
        if self.step(reference, "MisuseCourt", function, *arguments, by=reporter):
            *_, opened = [log for log in self.replay.seen if log.name == "CaseOpened"]
            assert opened.args["caseId"] == made[0].id, (opened.args, made[0])

    def order_of(self, case: Case) -> Any:
        """The order behind the case's license, or any where none is accused."""
        if case.license:
            return self.books.purchases[case.license].order
        return next(iter(self.books.purchases.values())).order if self.books.purchases else None

    def record_of(self, case: Case) -> LicenseRecord:
        order = self.order_of(case)
        if order is None:
            return LicenseRecord(TEXT, TEXT, TEXT, TEXT, NATIVE)
        d = order.delivery
        return LicenseRecord(
            order_hash(order), d.copyRoot, d.markCommit, order.sale.termsHash, d.fingerprinter
        )

    def open_share(self, case: Case) -> None:
        spent = self.court.docket(case.license).shares
        index = self.pick(*[i for i in range(16) if i not in spent][:3], *list(spent)[:1])
        order = self.order_of(case)
        fingerprinter = self.name(order.delivery.fingerprinter) if order else "fred"
        by = self.pick(*[fingerprinter] * 7, "hugo")
        seeds = share_seeds(str(case.license))
        proof = share_proof(case.license, seeds, index)
        self.on_case(
            case, "openShare", lambda: self.court.open_share(case, index, sender=self.address(by)),
            self.record_of(case).as_tuple(), index, seeds[index], proof, TEXT, by=by,
        )  # fmt: skip

    def share_missed(self, case: Case) -> None:
        record = self.record_of(case).as_tuple()
        self.on_case(case, "shareMissed", lambda: self.court.share_missed(case), record)

    def lapse(self, case: Case) -> None:
        self.on_case(case, "lapse", lambda: self.court.lapse(case))

    def post(self, case: Case) -> None:
        decision, bucket, subject = (
            self.pick(*DECISIONS),
            self.pick(12, 20, 40, 20, 12, 0),
            self.pick(*SUBJECTS),
        )
        samples, deadline = self.pick(5, 5, 5, 2), self.pick(*[FAR] * 7, self.clock)
        seats = self.pick(*SEATS, *SEATS, (2, 4))
        genuine = self.pick(*[True] * 7, False)
        verdict = Verdict(
            case.file.id, case.license, case.file.kind, decision, case.file.evidence_hash, subject=subject,
            share_index=255 if case.share is None else case.share, samples=samples, bucket=bucket, deadline=deadline,
        )  # fmt: skip
        signed = self.committee(verdict, seats, genuine)
        self.on_case(
            case, "postVerdict",
            lambda: self.court.post(
                case, decision, bucket=bucket, subject=subject, samples=samples, deadline=deadline, seats=seats,
                genuine=genuine,
            ),
            verdict.as_tuple(), *signed,
        )  # fmt: skip

    def committee(
        self, verdict: Verdict, seats: tuple[int, ...], genuine: bool
    ) -> tuple[list[str], int, bytes]:
        """The seats' signatures; where they are not genuine, a stranger's in place of the last."""
        digest = self.stage.digest("MisuseCourt", verdict_hash(verdict))
        signers, bitmap, signatures = self.stage.committee_signs(digest, list(seats))
        if not genuine:
            signatures = signatures[:-65] + self.stage.people["sam"].sign(digest)
        return signers, bitmap, signatures

    def challenge(self, case: Case) -> None:
        accused = self.stage.names.get(case.file.accused, "sam")
        by = self.pick(accused, accused, self.name(case.file.reporter), "finn")
        self.on_case(case, "challenge", lambda: self.court.challenge(case, sender=self.address(by)), by=by)

    def judge(self, case: Case) -> str:
        right = "last" if case.state == State.ESCALATED else "arbiter"
        return str(self.pick(*[right] * 6, "last", "sam"))

    def rule(self, case: Case) -> None:
        by, uphold = self.judge(case), self.pick(True, False)
        self.on_case(
            case, "rule", lambda: self.court.rule(case, uphold, sender=self.address(by)), uphold, by=by
        )

    def rule_fault(self, case: Case) -> None:
        by, record = self.judge(case), self.record_of(case).as_tuple()
        self.on_case(
            case, "ruleFault", lambda: self.court.rule_fault(case, sender=self.address(by)), record, by=by
        )

    def request_service(self, case: Case) -> None:
        by = self.pick(*[self.stage.names.get(case.file.accused, "sam")] * 6, "sam")
        self.on_case(
            case,
            "requestService",
            lambda: self.court.request_service(case, sender=self.address(by)),
            TEXT,
            by=by,
        )

    def serve(self, case: Case) -> None:
        seat = self.pick(0, 3, 3, 9)
        operator = self.name(self.stage.operators[seat % 5].address)
        by = self.pick(self.name(case.file.reporter), operator, "sam")
        self.on_case(
            case, "serve", lambda: self.court.serve(case, seat, sender=self.address(by)), seat, TEXT, by=by
        )

    def clear_unserved(self, case: Case) -> None:
        self.on_case(case, "clearUnserved", lambda: self.court.clear_unserved(case))

    def cure(self, case: Case) -> None:
        seats, genuine = self.pick(*SEATS, (1, 2)), self.pick(*[True] * 6, False)
        verdict = Verdict(
            keccak(encode(["bytes32", "bytes32"], [CURE_DOMAIN, case.file.id])), case.license, Kind.DISCLOSURE,
            Decision.NOT_GUILTY, b"\x0e" * 32,
        )  # fmt: skip
        signed = self.committee(verdict, seats, genuine)
        self.on_case(
            case, "cure", lambda: self.court.cure(case, deadline=FAR, seats=seats, genuine=genuine),
            verdict.as_tuple(), *signed,
        )  # fmt: skip

    def open_chunk(self, case: Case) -> None:
        parcel = self.books.purchases[case.license].parcel if case.license else PARCELS[None]
        index = self.pick(0, len(parcel.chunks) - 1)
        by = self.pick(*[self.stage.names.get(case.file.accused, "sam")] * 6, "sam")
        self.on_case(
            case, "openChunk", lambda: self.court.open_chunk(case, sender=self.address(by)),
            self.record_of(case).as_tuple(), len(parcel.chunks), index, parcel.chunks[index], copy_path(parcel, index),
            by=by,
        )  # fmt: skip

    def escalate(self, case: Case) -> None:
        self.on_case(case, "escalate", lambda: self.court.escalate(case))

    def clear_silent(self, case: Case) -> None:
        self.on_case(case, "clearSilent", lambda: self.court.clear_silent(case))

    def release_hold(self, case: Case) -> None:
        self.on_case(case, "releaseHold", lambda: self.court.release_hold(case))

    def finalize(self, case: Case) -> None:
        self.on_case(case, "finalize", lambda: self.court.finalize(case))

    def execute(self, case: Case) -> None:
        self.on_case(case, "execute", lambda: self.court.execute(case))

    def claim_fee(self, case: Case) -> None:
        seat = self.pick(*(case.unpaid or {0}), *range(5))
        self.on_case(case, "claimFee", lambda: self.court.claim_fee(case, seat), seat)

    # ---------------------------------------------------------------- everything ends

    def way_out(self, case: Case) -> tuple[str, tuple[Any, ...]] | None:
        """The court's function by which anyone ends the case's present state once its time is over."""
        match case.state:
            case State.OPEN if case.file.kind == Kind.LEAK and case.share is None:
                return "shareMissed", (self.record_of(case).as_tuple(),)
            case State.OPEN:
                return "lapse", ()
            case State.POSTED:
                return ("execute" if case.decision == Decision.GUILTY else "finalize"), ()
            case State.SERVING:
                return "clearUnserved", ()
            case State.CHALLENGED:
                return "escalate", ()
            case State.ESCALATED:
                return "clearSilent", ()
            case State.FINAL_GUILTY:
                return "execute", ()
            case State.CLEARED if case.held:
                return "releaseHold", ()
        return None

    def over_at(self, case: Case) -> int:
        """Court time of the last second that `way_out` waits for."""
        if case.state == State.OPEN:
            unshared = case.file.kind == Kind.LEAK and case.share is None
            return self.court.share_by(case.file) if unshared else case.file.post_by
        if case.state == State.FINAL_GUILTY:
            return case.cure_by
        return max(case.until, case.cure_by) if case.state == State.POSTED else case.until

    def end_cases(self) -> None:
        references = {
            "shareMissed": self.court.share_missed, "lapse": self.court.lapse, "execute": self.court.execute,
            "finalize": self.court.finalize, "clearUnserved": self.court.clear_unserved,
            "escalate": self.court.escalate, "clearSilent": self.court.clear_silent,
            "releaseHold": self.court.release_hold,
        }  # fmt: skip
        for case in self.court.cases.values():
            while (way := self.way_out(case)) is not None:
                self.clock = max(self.clock, self.second_of(self.over_at(case)))
                function, more = way
                done = self.on_case(case, function, lambda f=function, c=case: references[f](c), *more)
                assert done, f"{function} does not end a case that is {case.state.name}"
            assert case.state in ENDED
            for seat in sorted(case.unpaid) if case.state != State.LAPSED else ():
                self.on_case(case, "claimFee", lambda c=case, s=seat: self.court.claim_fee(c, s), seat)
            assert case.pot == 0
