"""What must hold of the market after every step of a walk. `docs/invariants.md` says why."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis.stateful import invariant
from market import DAY, NATIVE, State
from reference_books import DISCLOSURE, OWNER, SUBLICENSE, Terms
from walk_machine import Machine

DUST = 23  # below it stays of a model's income in one token, whatever the number of payments


class MarketInvariants(Machine):
    """Money, orders, licenses, royalties, models."""

    # ---------------------------------------------------------------- invariants: money

    @invariant()
    def money_in_is_money_held_and_money_paid(self) -> None:
        for token in self.tokens:
            paid = sum(amount for (_, t), amount in self.books.went_out.items() if t == token)
            assert self.seen.vault[token] == self.books.came_in[token] - paid

    @invariant()
    def the_vault_holds_the_sum_of_its_accounts(self) -> None:
        """The accounts as the chain shows them; what an order or a fee holds, as its own terms say."""
        for token in self.tokens:
            owed = sum(amount for (_, t), amount in self.seen.free.items() if t == token)
            owed += sum(balance for (_, t), (_, balance) in self.seen.royalties.items() if t == token)
            owed += sum(self.seen.bonds[n][0] for n, b in self.books.bonds.items() if b.token == token)
            owed += sum(p.held for p in self.books.purchases.values() if p.order.sale.token == token)
            owed += sum(fee.amount for fee in self.books.fees.values() if fee.token == token)
            owed += self.seen.channel_funds[token]
            if token == NATIVE:
                owed += sum(staked for staked, _ in self.seen.stakes.values())
                owed += sum(pot for _, _, pot, _ in self.seen.cases.values())
            assert self.seen.vault[token] == owed

    @invariant()
    def every_balance_is_what_the_books_say(self) -> None:
        assert self.seen.free == {key: self.books.free[key] for key in self.seen.free}

    @invariant()
    def a_stake_covers_its_locks(self) -> None:
        for account, (staked, locked) in self.seen.stakes.items():
            live = [p.order.delivery for p in self.books.purchases.values() if p.live]
            assert locked == sum(d.deposit for d in live if d.fingerprinter == account)
            assert locked <= staked
            assert staked == self.books.stakes[account].staked

    @invariant()
    def events_tell_the_same_story(self) -> None:
        """Balances, stakes, royalties, bonds, orders, licenses and models by events alone."""
        told, seen = self.replay, self.seen
        assert {key: told.free[key] for key in seen.free} == seen.free
        assert {a: (told.stakes[a][0], told.stakes[a][1]) for a in seen.stakes} == seen.stakes
        assert {k: (told.gross[k], told.balance[k]) for k in seen.royalties} == seen.royalties
        assert {k: told.inherited[k] for k in seen.inherited} == seen.inherited
        assert told.states == {n: state for n, (state, _) in seen.orders.items()}
        assert told.bonds == {n: seen.bonds[n][0] for n in seen.licenses}
        for number, (holder, packed, end, suspended, offered, _) in seen.licenses.items():
            assert told.holders[number].lower() == holder.lower()
            assert (told.terms[number], told.ends[number]) == (packed, end)
            assert (told.suspended[number], told.offered[number]) == (suspended, offered)
        assert told.cases == {number: state[0] for number, (state, *_) in seen.cases.items()}
        assert {n: told.case_bonds[n] for n in seen.cases} == {
            n: pot for n, (_, _, pot, _) in seen.cases.items()
        }
        assert {token: told.channels[token] for token in self.tokens} == seen.channel_funds
        for number, (owner, *_, frozen, _, nonce) in seen.models.items():
            assert (told.owners[number].lower(), told.nonces[number]) == (owner.lower(), nonce)
            assert told.frozen[number] == frozen

    # ---------------------------------------------------------------- invariants: orders

    @invariant()
    def an_order_is_where_the_books_put_it(self) -> None:
        for number, p in self.books.purchases.items():
            state, since = self.seen.orders[number]
            assert state == p.state
            assert since == p.since

    @invariant()
    def an_order_ends_once(self) -> None:
        ends = Counter(
            log.args["licenseId"] for log in self.past("OrderSettled") + self.past("OrderRefunded")
        )
        assert all(count == 1 for count in ends.values())
        assert set(ends) == {n for n, (state, _) in self.seen.orders.items() if state in (4, 5)}

    @invariant()
    def a_license_is_issued_once_and_only_for_a_settled_order(self) -> None:
        issued = Counter(log.args["licenseId"] for log in self.past("LicenseIssued"))
        assert all(count == 1 for count in issued.values())
        assert set(issued) == {n for n, (state, _) in self.seen.orders.items() if state == State.SETTLED}

    @invariant()
    def a_fingerprint_number_is_used_once(self) -> None:
        opened = Counter(log.args["licenseId"] for log in self.past("OrderOpened"))
        assert all(count == 1 for count in opened.values())

    @invariant()
    def no_price_without_the_key(self) -> None:
        revealed = {log.args["licenseId"] for log in self.past("KeyRevealed")}
        assert all(n in revealed for n, (state, _) in self.seen.orders.items() if state == State.SETTLED)

    @invariant()
    def no_key_and_refund_but_for_a_wrong_chunk_or_a_range_claim(self) -> None:
        revealed = {log.args["licenseId"] for log in self.past("KeyRevealed")}
        claimed = {log.args["licenseId"] for log in self.past("RangeClaimed")}
        wrong = {log.args["licenseId"] for log in self.past("ChunkProvenWrong")}
        for log in self.past("OrderRefunded"):
            number, reason = log.args["licenseId"], log.args["reason"]
            if number not in revealed:
                assert reason == 1
            elif reason == 2:
                assert number in wrong
                assert self.books.purchases[number].parcel.wrong is not None
            else:
                assert reason in (3, 4)
                assert number in claimed

    @invariant()
    def a_refund_is_the_whole_price_and_bond(self) -> None:
        for log in self.past("OrderRefunded"):
            assert log.args["refund"] == self.books.purchases[log.args["licenseId"]].paid

    @invariant()
    def a_prepare_fee_ends_once(self) -> None:
        names = ("PrepareFeeCredited", "PrepareFeeReclaimed", "PrepareFeeEarned")
        ends = Counter(log.args["requestHash"] for name in names for log in self.past(name))
        assert all(count == 1 for count in ends.values())
        waiting = {request for _, request in self.books.fees}
        assert (
            waiting
            == set(self.replay.fees)
            == {log.args["requestHash"] for log in self.past("CopyRequested")} - set(ends)
        )

    @invariant()
    def a_frozen_or_paused_market_opens_nothing(self) -> None:
        for log in self.past("OrderOpened"):
            model = log.args["licenseId"] >> 28
            assert not any(start <= log.time < until for start, until in self.frozen(model))
            assert not any(start <= log.time < until for start, until in self.paused("Opening"))

    @invariant()
    def what_is_due_can_be_ended_whatever_is_stopped(self) -> None:
        """Anyone refunds or settles a late order now, in a pause, a freeze, a delisting; simulated after every step."""
        escrow = self.stage.faces["LicenseEscrow"]
        now = self.clock + 1
        calls = [
            (
                escrow.address,
                escrow.data("settle" if p.state == State.REVEALED else "refund", p.order.as_tuple()),
                self.address("sam"),
                0,
            )
            for p in self.books.purchases.values()
            if p.live and now > p.deadline
        ]
        assert all(isinstance(answer, bytes) for answer in self.stage.node.simulate_all(calls, now))

    # ---------------------------------------------------------------- invariants: licenses and bonds

    @invariant()
    def a_license_is_what_the_books_say(self) -> None:
        for number, license_ in self.books.licenses.items():
            holder, packed, end, suspended, offered, active = self.seen.licenses[number]
            assert holder.lower() == license_.holder.lower()
            assert (packed, end) == (license_.terms, license_.end)
            assert (suspended, offered) == (license_.suspended, license_.offered)
            self.books.now = self.stage.time
            assert active == self.books.active(number)

    @invariant()
    def an_expiry_grows_only_by_renewals(self) -> None:
        mask = (2**40 - 1) << 18
        for log in self.past("LicenseIssued"):
            number = log.args["licenseId"]
            renewals = [
                e.args["expiry"] for e in self.past("LicenseRenewed") if e.args["licenseId"] == number
            ]
            path = [Terms.of(log.args["terms"]).expiry, *renewals]
            assert all(after == 0 or 0 < before < after for before, after in pairwise(path))
            packed = self.seen.licenses[number][1]
            assert Terms.of(packed).expiry == path[-1]
            assert packed & ~mask == log.args["terms"] & ~mask

    @invariant()
    def a_source_resold_ends_once(self) -> None:
        resold = Counter(log.args["source"] for log in self.past("LicensePassedOn") if log.args["resale"])
        assert all(count == 1 for count in resold.values())
        for source in resold:
            assert self.seen.licenses[source][2] != 0
            assert not self.seen.licenses[source][5]
        assert all(n in resold for n, seen in self.seen.licenses.items() if seen[2] == 3)

    @invariant()
    def a_license_is_offered_while_one_open_order_resells_it(self) -> None:
        live = Counter(
            p.order.sale.source for p in self.books.purchases.values() if p.live and p.order.sale.basis == 1
        )
        assert all(count == 1 for count in live.values())
        assert {n for n, seen in self.seen.licenses.items() if seen[4]} == set(live)

    @invariant()
    def terms_passed_on_stay_within_the_source(self) -> None:
        for log in self.past("LicensePassedOn"):
            issued = {e.args["licenseId"]: e.args["terms"] for e in self.past("LicenseIssued")}
            given, own = (
                Terms.of(issued[log.args["licenseId"]]),
                Terms.of(self.seen.licenses[log.args["source"]][1]),
            )
            assert given.flags & ~DISCLOSURE & ~own.flags == 0
            assert given.onward_bps >= own.onward_bps
            assert log.args["resale"] or not given.flags & SUBLICENSE

    @invariant()
    def a_bond_leaves_only_after_end_tail_and_cases(self) -> None:
        asked = {log.args["licenseId"]: log.time for log in self.past("BondReleaseRequested")}
        for log in self.past("BondReleased"):
            number = log.args["licenseId"]
            assert number in asked
            assert log.time >= asked[number] + self.books.purchases[number].order.sale.bondTail
            assert self.books.bonds[number].cases == 0
            license_ = self.seen.licenses[number]
            expiry = Terms.of(license_[1]).expiry
            assert license_[2] != 0 or 0 < expiry <= asked[number]

    @invariant()
    def a_bond_is_not_shed_by_passing_the_license_on(self) -> None:
        for log in self.past("LicensePassedOn"):
            new, old = (self.books.purchases[log.args[key]].order.sale for key in ("licenseId", "source"))
            slashed = sum(
                e.args["slashed"]
                for e in self.past("CaseExecuted")
                if e.args["licenseId"] == log.args["source"]
            )
            assert new.bond >= old.bond - slashed
            assert new.token == old.token or not old.bond - slashed

    @invariant()
    def a_bond_is_what_the_books_say(self) -> None:
        for number, bond in self.books.bonds.items():
            amount, price, cases, asked, _ = self.seen.bonds[number]
            assert (amount, cases) == (bond.amount, bond.cases)
            assert price == (bond.price if amount or not bond.ended or not bond.original else 0)
            assert asked == (bond.asked or 0)

    # ---------------------------------------------------------------- invariants: royalties

    @invariant()
    def royalties_out_are_at_most_royalties_in(self) -> None:
        for (model, token), (gross, balance) in self.seen.royalties.items():
            pool = self.books.pools[model, token]
            out = sum(pool.pulled.values())
            assert gross == pool.gross
            assert balance == gross + self.seen.inherited[model, token] - out
            assert balance >= 0

    @invariant()
    def shares_never_add_up_to_more_than_the_income(self) -> None:
        for (model, token), (gross, _) in self.seen.royalties.items():
            earned = sum(self.books.earned(model, token, share) for share in self.books.shares(model))
            income = gross + self.seen.inherited[model, token]
            assert income - DUST < earned <= income

    @invariant()
    def nobodys_claim_blocks_anothers(self) -> None:
        """Every share that is due can be pulled now, before any other; simulated after every step."""
        ledger, now = self.stage.faces["RoyaltyLedger"], self.clock + 1
        calls = []
        for (model, token), pool in self.books.pools.items():
            if not pool.balance:
                continue
            m, shares = self.books.models[model], self.stage.models[model].shares
            for share in self.books.shares(model):
                if not self.books.due(model, token, share) or (share == OWNER and now < m.frozen_until):
                    continue
                if share in (0, 1):
                    data = ledger.data("pullOwner" if share else "pullPlatform", model, token, shares)
                elif share < 32:
                    data = ledger.data("pullCollaborator", model, token, share - 16, shares)
                else:
                    data = ledger.data("pullAncestor", model, token, share - 32, shares)
                calls.append((ledger.address, data, self.address("sam"), 0))
        assert all(isinstance(answer, bytes) for answer in self.stage.node.simulate_all(calls, now))

    @invariant()
    def gross_income_never_falls(self) -> None:
        gross = {key: income for key, (income, _) in self.seen.royalties.items()}
        before = getattr(self, "gross_before", gross)
        assert all(gross[key] >= before[key] for key in gross)
        self.gross_before = gross

    # ---------------------------------------------------------------- invariants: models and powers

    @invariant()
    def a_sale_nonce_counts_the_owners(self) -> None:
        for number, (owner, *_, nonce) in self.seen.models.items():
            moves = [
                log
                for log in self.past("Transfer")
                if log.contract == "ModelNFT" and log.args["id"] == number
            ]
            assert nonce == len(moves) - 1 == self.books.models[number].nonce
            assert owner.lower() == moves[-1].args["to"].lower()

    @invariant()
    def a_pause_is_bounded(self) -> None:
        """At most seven days in any thirty, of opening as of posting."""
        for what in ("Opening", "Posting"):
            spans = self.paused(what)
            for at in [end for _, end in spans]:
                within = sum(max(0, min(end, at) - max(start, at - 30 * DAY)) for start, end in spans)
                assert within <= 7 * DAY

    @invariant()
    def a_freeze_is_bounded(self) -> None:
        """Thirty days each, three in a row."""
        for number in self.stage.models:
            times = [log.time for log in self.past("ModelFrozen") if log.args["modelId"] == number]
            assert all(log.args["until"] <= log.time + 30 * DAY for log in self.past("ModelFrozen"))
            verdicts = {log.args["caseId"] for log in self.past("ModelFrozenByVerdict")}
            assert len(verdicts) == len(self.past("ModelFrozenByVerdict"))
            assert all(later - first > 180 * DAY for first, later in zip(times, times[3:], strict=False))

    def paused(self, what: str) -> list[tuple[int, int]]:
        """Spans of time without overlap, by the events."""
        spans: list[tuple[int, int]] = []
        for log in self.replay.seen:
            if log.name not in (f"{what}Paused", f"{what}Resumed"):
                continue
            if spans and spans[-1][1] > log.time:
                spans[-1] = (spans[-1][0], log.time)  # ended early, or by another
            if log.name.endswith("Paused"):
                spans.append((log.time, log.args["until"]))
        return spans

    def frozen(self, model: int) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for log in self.replay.seen:
            if (
                log.name not in ("ModelFrozen", "ModelFrozenByVerdict", "FreezeLifted")
                or log.args["modelId"] != model
            ):
                continue
            if spans and spans[-1][1] > log.time:
                spans[-1] = (spans[-1][0], log.time)
            if log.name != "FreezeLifted":
                spans.append((log.time, log.args["until"]))
        return spans
