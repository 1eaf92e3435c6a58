"""Orders, fees, licenses, royalties, sales of models, and the powers over them: the moves of a market."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from courtroom import share_levels, share_seeds
from eth_utils.address import to_checksum_address
from market import DAY, ETHER, FIRST_ONWARD, HOUR, NATIVE, Order, Parcel, State, terms
from reference_books import COMMERCIAL, COURT, DISCLOSURE, ESCROW, RESALE, SUBLICENSE, Purchase, Terms
from walk_machine import Machine, Move
from walk_stage import (
    BUYERS,
    OWNERS,
    PARCELS,
    TEXT,
    THRESHOLD,
    ModelSale,
    RangeVerdict,
    Renewal,
    order_hash,
    sale_hash,
    struct_hash,
)

FAR = 2**40 - 1
ORDERS = 10  # of one walk


class MarketMoves(Machine):
    """Each method draws what it needs, sends one transaction (or a few) and tells the books."""

    def market_moves(self) -> tuple[list[Move], list[Move]]:
        """What may follow now, and what follows only after waiting."""
        books = self.books
        now: list[Move] = []
        later: list[Move] = []
        if len(books.purchases) < ORDERS:
            now += (
                [("open", {})] * 2 + [("buy", {})] * (3 if len(books.licenses) < 4 else 1) + [("pay_fee", {})]
            )
            now += [("open", {"fee_of": key}) for key in books.fees]
        for number, p in books.purchases.items():
            soon, late = self.order_moves(p)
            now += [(move, {"number": number}) for move in soon]
            later += [(move, {"number": number}) for move in late]
        for number in books.licenses:
            soon, late = self.license_moves(number)
            now += [(move, {"number": number}) for move in soon]
            later += [(move, {"number": number}) for move in late]
        later += [
            (move, {"key": key, "late": True}) for key in books.fees for move in ("reclaim_fee", "earn_fee")
        ]
        for (model, token), pool in list(books.pools.items()):
            due = [share for share in books.shares(model) if books.due(model, token, share) > 0]
            if pool.balance and due:
                now.append(("pull", {"model": model, "token": token, "share": due[len(due) // 2]}))
                now.append(("pull_all", {"model": model, "token": token}))
        now += [("sell_model", {}), ("withdraw", {})]
        now.append((self.pick("freeze", "delist", "prefer", "pause", "deposit", "cancel"), {}))
        if any(self.clock < pause.until for pause in books.pauses.values()):
            now += [("resume", {})] * 3
        if any(self.clock < m.frozen_until for m in books.models.values()):
            now += [("lift", {})] * 2
        return now, [*later, ("wait", {})]

    def order_moves(self, p: Purchase) -> tuple[list[str], list[str]]:
        if p.live and self.clock >= p.deadline:
            return ["settle" if p.state == State.REVEALED else "refund"], []
        match p.state:
            case State.OPEN:
                return ["reveal"] * 4, ["late_refund"]
            case State.REVEALED if p.parcel.wrong is not None:
                return ["complain", "complain", "accept"], ["late_settle"]
            case State.REVEALED:
                return ["accept", "claim_range", "claim_range"], ["late_settle"]
            case State.RANGE_CHECK:
                return ["answer_range"] * 4, ["late_refund"]
        return [], []

    def license_moves(self, number: int) -> tuple[list[str], list[str]]:
        books, bond = self.books, self.books.bonds[number]
        t = Terms.of(books.licenses[number].terms)
        if not books.ended(number):
            room = t.flags & (RESALE | SUBLICENSE) and len(books.purchases) < ORDERS
            more = ["pass_on"] * 3 if room else []
            return [*more, "renew" if t.expiry else self.pick("surrender", "renew")], []
        if bond.amount:
            return ([], ["late_release"] * 2) if bond.asked is not None else (["request_release"], [])
        return [], []

    def market_thoughts(self) -> list[Move]:
        numbers = [*self.books.purchases, next(iter(self.stage.models)) << 28 | 99]
        moves: list[Move] = [
            (move, {"number": number})
            for number in numbers
            for move in (
                "reveal", "complain", "accept", "settle", "refund", "claim_range", "answer_range", "surrender",
                "request_release", "release", "renew", "pass_on",
            )
        ]  # fmt: skip
        keys = [*self.books.fees, (self.address("emma"), bytes(32))]
        moves += [(move, {"key": key}) for key in keys for move in ("reclaim_fee", "earn_fee")]
        moves += [("open", {"twisted": True})] * 4 + [
            ("sell_model", {"twisted": True}),
            ("pull_anything", {}),
        ]
        return [*moves, ("withdraw", {"too_much": True}), ("cancel_all", {}), ("pause", {}), ("freeze", {})]

    # ---------------------------------------------------------------- orders

    def buy(self) -> None:
        """From opening to a license at one go, so that a walk gets far."""
        before = set(self.books.purchases)
        self.open()
        for number in set(self.books.purchases) - before:
            self.reveal(number)
            if self.books.purchases[number].parcel.wrong is None:
                self.accept(number)

    def open(self, *, fee_of: tuple[str, bytes] | None = None, twisted: bool = False) -> None:
        model = self.pick(*self.stage.models)
        m = self.books.models[model]
        buyer = self.address(self.pick(*BUYERS))
        token = self.pick(*self.tokens)
        price = self.pick(10**15 + 7, ETHER // 3, ETHER // 3, 0)
        fingerprinter = self.address(self.pick("fred", "flora"))
        changes: dict[str, Any] = {}
        if fee_of is not None:
            fee = self.books.fees[fee_of]
            buyer, request = fee_of
            model, token, fingerprinter, price = fee.model, fee.token, fee.fingerprinter, ETHER // 3
            m = self.books.models[model]
            changes["requestHash"] = request
        parcel = PARCELS[self.pick(None, None, None, 1)]
        expiry = self.pick(0, self.clock + self.pick(20, 200, 800) * DAY)
        flags = self.pick(
            COMMERCIAL, COMMERCIAL | RESALE | SUBLICENSE, COMMERCIAL | RESALE | SUBLICENSE | DISCLOSURE
        )
        changes |= {
            "token": token,
            "price": price,
            "bond": self.pick(ETHER // 5, ETHER // 5 + 3, 0),
            "terms": terms(
                flags=flags,
                expiry=expiry,
                uses=self.pick(0, 1, 3),
                onward_bps=self.pick(0, 333, 2_500),
                min_tier=self.pick(0, 0, 0, 0, 1),
            ),
            "deposit": self.pick(ETHER // 3, ETHER // 3, 3 * ETHER),
            "fingerprinter": fingerprinter,
            "saleNonce": m.nonce,
            "orderNonce": self.books.floors[m.owner],
        }
        self.send_order(self.new_order(model, parcel, m.owner, buyer, changes, twisted), parcel, twisted)

    def new_order(
        self, model: int, parcel: Parcel, seller: str, buyer: str, changes: dict[str, Any], twisted: bool
    ) -> Order:
        self.stage.time = self.clock
        taken = [number & 0xFFFFFFF for number in self.books.purchases]
        number = (FIRST_ONWARD if changes.get("basis") else 0) + len(taken) + 1
        if twisted and taken and self.pick(True, False):
            number = self.pick(*taken)  # a fingerprint number that may be used up
        license_id = model << 28 | number
        changes["markCommit"] = share_levels(license_id, share_seeds(str(license_id)))[-1][0]
        order = self.stage.order(model, number, parcel, seller=seller, buyer=buyer, **changes)
        if not twisted:
            return order
        twist: dict[str, Any] = self.pick(
            {"openBy": self.clock},
            {"saleNonce": order.sale.saleNonce + 1},
            {"orderNonce": order.sale.orderNonce + 2**32},
            {"seller": self.address("sam")},
            {"deposit": 50 * ETHER},
            {"requestHash": b"\x01" * 32},
            {"terms": terms(expiry=self.clock)},
            {"source": 7},
            {"basis": 1, "source": 7},
            {},
        )
        return order.with_(**twist)

    def send_order(self, order: Order, parcel: Parcel, twisted: bool) -> None:
        hash_ = order_hash(order)
        genuine = not twisted or self.pick(True, True, False)
        signers = [self.name(order.sale.seller), self.name(order.delivery.fingerprinter)]
        if not genuine:
            signers[self.pick(0, 1)] = "sam" if "sam" not in signers else "kai"
        sender = self.name(order.delivery.buyer) if not twisted else self.pick(*BUYERS)
        # The books price the fee that a request brings; a twisted one brings none.
        fee = self.books.fees.get((order.delivery.buyer, order.sale.requestHash))
        due = order.sale.price + order.sale.bond - (fee.amount if fee else 0)
        self.step(
            lambda: self.books.open(order, parcel, hash_, sender=self.address(sender), genuine=genuine),
            "LicenseEscrow", "open", order.as_tuple(), *self.stage.signed(order, *signers),
            by=sender, value=due if order.sale.token == NATIVE else 0,
        )  # fmt: skip

    def pass_on(self, number: int) -> None:
        """The holder resells or sublicenses; sometimes somebody else tries, or with wider terms."""
        source = self.books.licenses.get(number)
        if source is None:
            return
        own = Terms.of(source.terms)
        basis = self.pick(1, 1, 2)
        kept = own.flags & ~(RESALE | SUBLICENSE) | (RESALE if basis == 1 else 0) & own.flags
        narrower = {
            "flags": self.pick(kept, kept, kept, own.flags),
            "territory": own.territory,
            "expiry": self.pick(
                own.expiry, own.expiry, own.expiry and own.expiry - DAY, own.expiry and own.expiry + 1
            ),
            "uses": own.uses & self.pick(1, 3),
            "onward_bps": own.onward_bps,
            "min_tier": own.min_tier,
        }
        seller = self.pick(*[source.holder] * 9, self.address("sam"))
        bond = self.books.bonds[number]
        parcel = PARCELS[None]
        buyer = self.pick(*(self.address(b) for b in BUYERS))
        changes = {
            "basis": basis,
            "source": number,
            "token": bond.token,
            "price": self.pick(ETHER // 7, 10**9 + 1),
            "bond": max(0, bond.amount + self.pick(0, 0, 0, 5, -1)),
            "terms": terms(**narrower),
            "fingerprinter": self.address(self.pick("fred", "flora")),
            "saleNonce": self.pick(*[0] * 9, 1),
            "orderNonce": self.books.floors[seller],
        }
        model = self.pick(*[number >> 28] * 16, *self.stage.models)
        order = self.new_order(model, parcel, seller, buyer, changes, False)
        self.send_order(order, parcel, False)

    def reveal(self, number: int) -> None:
        order, parcel = self.known(number)
        self.step(
            lambda: self.books.reveal(number),
            "LicenseEscrow", "revealKey", sale_hash(order), astuple(order.delivery), parcel.key, by="sam",
        )  # fmt: skip

    def complain(self, number: int) -> None:
        order, parcel = self.known(number)
        index, sender = self.pick(1, 1, 1, 0), self.by_buyer(order)
        self.step(
            lambda: self.books.complain(number, index, sender=self.address(sender)),
            "LicenseEscrow", "complain", order.as_tuple(), *parcel.proof(index), by=sender,
        )  # fmt: skip

    def accept(self, number: int) -> None:
        order, _ = self.known(number)
        sender = self.by_buyer(order)
        self.on_order(
            number, "accept", lambda: self.books.accept(number, sender=self.address(sender)), sender
        )

    def settle(self, number: int) -> None:
        self.on_order(number, "settle", lambda: self.books.settle(number))

    def refund(self, number: int) -> None:
        self.on_order(number, "refund", lambda: self.books.refund(number))

    def late_settle(self, number: int) -> None:
        self.to_the_edge(self.books.purchases[number].deadline)
        self.settle(number)

    def late_refund(self, number: int) -> None:
        self.to_the_edge(self.books.purchases[number].deadline)
        self.refund(number)

    def claim_range(self, number: int) -> None:
        order, _ = self.known(number)
        sender = self.by_buyer(order)
        bond = order.sale.price // 10 if order.sale.token == NATIVE else 0
        self.on_order(
            number,
            "rangeClaim",
            lambda: self.books.claim_range(number, sender=self.address(sender)),
            sender,
            bytes(32),
            value=bond,
        )

    def answer_range(self, number: int) -> None:
        order, _ = self.known(number)
        seats = self.pick([0, 1, 2], [1, 3, 4], [0, 1, 2, 3, 4], [2, 4])
        upheld = self.pick(True, False)
        verdict = RangeVerdict(number, order_hash(order), upheld, 1, FAR)
        signed = self.stage.committee_signs(self.stage.digest("LicenseEscrow", struct_hash(verdict)), seats)
        self.step(
            lambda: self.books.answer_range(number, upheld, signers=len(seats), k=THRESHOLD),
            "LicenseEscrow", "resolveRange", order.as_tuple(), upheld, 1, FAR, *signed, by="sam",
        )  # fmt: skip

    def on_order(
        self,
        number: int,
        function: str,
        reference: Callable[[], None],
        by: str = "sam",
        *more: Any,
        value: int = 0,
    ) -> None:
        order, _ = self.known(number)
        self.step(reference, "LicenseEscrow", function, order.as_tuple(), *more, by=by, value=value)

    def known(self, number: int) -> tuple[Order, Parcel]:
        """An order that was opened, or one that never was."""
        if number in self.books.purchases:
            return self.books.purchases[number].order, self.books.purchases[number].parcel
        self.stage.time = self.clock
        seller, buyer = self.address("anna"), self.address("emma")
        return self.stage.order(
            number >> 28, number & 0xFFFFFFF, PARCELS[None], seller=seller, buyer=buyer
        ), PARCELS[None]

    def by_buyer(self, order: Order) -> str:
        return self.pick(*[self.name(order.delivery.buyer)] * 5, "sam")

    # ---------------------------------------------------------------- prepare fees

    def pay_fee(self) -> None:
        self.requests += 1
        request, buyer = self.requests.to_bytes(32, "big"), self.pick(*BUYERS)
        model, token, fingerprinter = (
            self.pick(*self.stage.models),
            self.pick(*self.tokens),
            self.pick("fred", "flora"),
        )
        amount, by = self.pick(ETHER // 100, 7), self.clock + self.pick(5, 12, 30) * DAY
        self.step(
            lambda: self.books.pay_fee(
                self.address(buyer), request, model, self.address(fingerprinter), token, amount, by
            ),
            "LicenseEscrow", "payPrepareFee", request, model, self.address(fingerprinter), token, amount, by,
            by=buyer, value=amount if token == NATIVE else 0,
        )  # fmt: skip

    def reclaim_fee(self, key: tuple[str, bytes], late: bool = False) -> None:
        if late:
            self.to_the_edge(self.books.fees[key].by)
        self.step(
            lambda: self.books.reclaim_fee(*key),
            "LicenseEscrow", "reclaimPrepareFee", key[1], by=self.name(key[0]),
        )  # fmt: skip

    def earn_fee(self, key: tuple[str, bytes], late: bool = False) -> None:
        """With an order of the model's owner that the buyer let pass."""
        buyer, request = key
        fee = self.books.fees.get(key)
        model = fee.model if fee else next(iter(self.stage.models))
        m = self.books.models[model]
        self.stage.time = self.clock
        order = self.stage.order(
            model, 77, PARCELS[None], seller=m.owner, buyer=buyer, requestHash=request, openBy=self.clock + HOUR,
            price=self.pick(ETHER // 3, ETHER // 3, 1), token=fee.token if fee else NATIVE, saleNonce=m.nonce,
            fingerprinter=fee.fingerprinter if fee else self.address("fred"), orderNonce=self.books.floors[m.owner],
        )  # fmt: skip
        if late and fee is not None:
            self.to_the_edge(max(order.sale.openBy, fee.paid_at + DAY))
        (signature,) = self.stage.signed(order, self.name(m.owner))
        self.step(
            lambda: self.books.earn_fee(order, order_hash(order)),
            "LicenseEscrow", "earnPrepareFee", order.as_tuple(), signature, by="sam",
        )  # fmt: skip

    # ---------------------------------------------------------------- licenses and bonds

    def renew(self, number: int) -> None:
        model = number >> 28
        m, license_ = self.books.models[model], self.books.licenses.get(number)
        before = Terms.of(license_.terms).expiry if license_ else 0
        renewal = Renewal(
            licenseId=number,
            seller=self.pick(m.owner, m.owner, m.owner, self.address("sam")),
            token=self.pick(*self.tokens),
            price=self.pick(10**12 + 1, 0),
            expiry=self.pick(before + 90 * DAY, before + 1, before, 0),
            saleNonce=m.nonce,
            orderNonce=self.books.floors[m.owner],
            openBy=self.clock + self.pick(*[DAY] * 7, 0),
        )
        hash_ = struct_hash(renewal)
        signer = self.name(renewal.seller)
        genuine = self.pick(True, True, True, False)
        signature = self.stage.people[signer if genuine else "kai"].sign(
            self.stage.digest("LicenseEscrow", hash_)
        )
        sender = self.pick(*[self.name(license_.holder)] * 4, "sam") if license_ else "sam"
        self.step(
            lambda: self.books.renew(
                license_id=number, seller=renewal.seller, token=renewal.token, price=renewal.price,
                expiry=renewal.expiry, nonce=renewal.saleNonce, order_nonce=renewal.orderNonce, hash_=hash_,
                open_by=renewal.openBy, sender=self.address(sender), genuine=genuine,
            ),
            "LicenseEscrow", "renew", astuple(renewal), signature,
            by=sender, value=renewal.price if renewal.token == NATIVE else 0,
        )  # fmt: skip

    def surrender(self, number: int) -> None:
        license_ = self.books.licenses.get(number)
        by = self.pick(*[self.name(license_.holder)] * 4, "sam") if license_ else "sam"
        self.step(
            lambda: self.books.surrender(number, sender=self.address(by)),
            "LicenseNFT",
            "surrender",
            number,
            by=by,
        )

    def request_release(self, number: int) -> None:
        self.step(
            lambda: self.books.request_release(number),
            "LicenseEscrow",
            "requestBondRelease",
            number,
            by="sam",
        )

    def release(self, number: int) -> None:
        self.on_order(number, "releaseBond", lambda: self.books.release(number))

    def late_release(self, number: int) -> None:
        self.books.now = self.clock
        self.to_the_edge(self.books.release_at(number) - 1)
        self.release(number)

    # ---------------------------------------------------------------- royalties and balances

    def pull(self, model: int, token: str, share: int) -> None:
        shares = self.stage.models[model].shares
        function, index = {0: ("pullPlatform", []), 1: ("pullOwner", [])}.get(
            share, ("pullAncestor", [share - 32]) if share >= 32 else ("pullCollaborator", [share - 16])
        )
        self.step(
            lambda: self.books.pull(model, token, share),
            "RoyaltyLedger", function, model, token, *index, shares, by="sam",
        )  # fmt: skip

    def pull_all(self, model: int, token: str) -> None:
        """Every share in turn, in either direction: nobody's claim blocks another's."""
        shares = self.books.shares(model)
        for share in shares if self.pick(True, False) else reversed(shares):
            self.pull(model, token, share)

    def pull_anything(self) -> None:
        model, token = self.pick(*self.stage.models), self.pick(*self.tokens)
        self.pull(model, token, self.pick(*self.books.shares(model)))

    def withdraw(self, too_much: bool = False) -> None:
        name, token = self.pick("emma", "fred", "anna", "treasury", "kim"), self.pick(*self.tokens)
        held = self.books.free[self.address(name), token]
        amount = held + 1 if too_much else self.pick(held, held // 3)
        self.take_out(name, token, amount)

    def take_out(self, name: str, token: str, amount: int) -> None:
        self.step(
            lambda: self.books.withdraw(self.address(name), token, amount),
            "LicenseEscrow", "withdraw", token, amount, self.pocket(name), by=name,
        )  # fmt: skip

    @staticmethod
    def pocket(name: str) -> str:
        """Where a person's withdrawals go: an address that nothing else reaches."""
        return to_checksum_address("0x" + name.encode().hex().rjust(40, "e"))

    def deposit(self) -> None:
        name = self.pick("emma", "finn", "anna", "hugo")
        to = self.address(name)
        if self.pick(True, False):
            self.step(
                lambda: self.books.deposit(to, NATIVE, 5),
                "LicenseEscrow",
                "depositNative",
                to,
                by=name,
                value=5,
            )
        else:
            token = self.stage.token.address
            self.step(
                lambda: self.books.deposit(to, token, ETHER),
                "LicenseEscrow",
                "depositToken",
                token,
                ETHER,
                to,
                by=name,
            )

    # ---------------------------------------------------------------- owners, regulator, pauser

    def sell_model(self, twisted: bool = False) -> None:
        model = self.pick(*self.stage.models)
        m = self.books.models[model]
        buyer = self.address(self.pick(*OWNERS))
        sale = ModelSale(
            modelId=model,
            seller=m.owner,
            buyer=self.pick(buyer, NATIVE, self.address("sam") if twisted else buyer),
            token=self.pick(*self.tokens),
            price=self.pick(ETHER, 0),
            termsHash=TEXT,
            saleNonce=m.nonce + (self.pick(0, 1) if twisted else 0),
            orderNonce=self.books.floors[m.owner],
            openBy=self.clock + DAY,
        )
        hash_ = struct_hash(sale)
        genuine = not twisted or self.pick(True, False)
        signer = self.name(m.owner) if genuine else "kai"
        signature = self.stage.people[signer].sign(self.stage.digest("LicenseEscrow", hash_))
        escrow = self.stage.faces["LicenseEscrow"].address
        self.step(lambda: None, "ModelNFT", "approve", escrow, model, by=self.name(m.owner))
        sender = self.name(buyer)
        self.step(
            lambda: self.books.buy_model(
                model=model, seller=m.owner, buyer=sale.buyer, sender=buyer, token=sale.token, price=sale.price,
                nonce=sale.saleNonce, order_nonce=sale.orderNonce, hash_=hash_, open_by=sale.openBy, genuine=genuine,
            ),
            "LicenseEscrow", "buyModel", astuple(sale), self.stage.models[model].shares, signature,
            by=sender, value=sale.price if sale.token == NATIVE else 0,
        )  # fmt: skip

    def freeze(self) -> None:
        model, until = self.pick(*self.stage.models), self.clock + self.pick(1, 20, 30, 31) * DAY
        self.step(
            lambda: self.books.freeze(model, until), "ModelNFT", "freeze", model, until, TEXT, by="last"
        )

    def lift(self) -> None:
        frozen = [number for number, m in self.books.models.items() if self.clock < m.frozen_until]
        model = self.pick(*(frozen or self.stage.models))
        self.step(lambda: self.books.lift(model), "ModelNFT", "lift", model, TEXT, by="last")

    def delist(self) -> None:
        delisted = [number for number, m in self.books.models.items() if self.clock < m.delisted_until]
        model = self.pick(*(delisted or self.stage.models))
        day = 0 if delisted else self.clock // DAY + self.pick(3, 3, 366, 0)
        self.step(lambda: self.books.delist(model, day), "ModelNFT", "delist", model, day, TEXT, by="last")

    def prefer(self) -> None:
        model, preferences = self.pick(*self.stage.models), self.pick(0, 0, 0b11, 0b10_01)

        def changed() -> None:
            self.books.models[model].preferences = preferences

        owner = self.name(self.books.models[model].owner)
        self.step(changed, "ModelNFT", "setPreferences", model, preferences, TEXT, by=owner)

    def pause(self) -> None:
        what, until = self.pick(ESCROW, COURT), self.clock + self.pick(HOUR, HOUR, DAY, 7 * DAY, 8 * DAY)
        contract, function = self.switch(what, "pause")
        self.step(lambda: self.books.pause(what, until), contract, function, until, by="pauser")

    def resume(self) -> None:
        what = self.pick(ESCROW, COURT)
        self.step(lambda: self.books.resume(what), *self.switch(what, "resume"), by="pauser")

    @staticmethod
    def switch(what: str, verb: str) -> tuple[str, str]:
        return ("LicenseEscrow", f"{verb}Opening") if what == ESCROW else ("MisuseCourt", f"{verb}Posting")

    def cancel(self) -> None:
        name, hash_ = self.pick(*OWNERS), self.pick(b"\x11" * 32, b"\x12" * 32)
        self.step(
            lambda: self.books.cancel(self.address(name), hash_), "LicenseEscrow", "cancel", hash_, by=name
        )

    def cancel_all(self) -> None:
        name = self.pick(*OWNERS, *BUYERS)
        self.step(lambda: self.books.cancel_all(self.address(name)), "LicenseEscrow", "cancelAll", by=name)

    def wait(self) -> None:
        self.clock += self.pick(HOUR, DAY, 8 * DAY, 40 * DAY)
