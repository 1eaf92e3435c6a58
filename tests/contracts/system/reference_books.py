"""What the contracts promise about money, orders and licenses, in plain Python.

A step checks everything that could forbid it, then changes the books. What forbids it is collected by the names of the
contracts' errors: the chain must refuse for one of them. Amounts in the token's smallest unit, times in unix seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from market import DAY, FIRST_ONWARD, NATIVE, Order, Parcel, Review, State

BPS = 10_000
COMMERCIAL, RESALE, SUBLICENSE, DERIVATIVES, DISCLOSURE, UPDATES = (1 << i for i in range(6))
PLATFORM, OWNER, COLLABORATOR, ANCESTOR = 0, 1, 16, 32  # names of shares in the ledger
RANGE_ANSWER = 7 * DAY
PAUSE, PAUSE_PERIOD = 7 * DAY, 30 * DAY
CLOSE_WINDOW = 2 * DAY
LIVE = (State.OPEN, State.REVEALED, State.RANGE_CHECK)
ESCROW, COURT = "escrow", "court"  # the two things that can be paused
NOBODY = NATIVE
REVOKED, SURRENDERED, RESOLD = 1, 2, 3
PLATFORM_BPS = 500
MAX_TIER = 2  # that the stage's issuer may attest


class Forbidden(Exception):
    """The books forbid the step, for these reasons."""

    def __init__(self, reasons: set[str]) -> None:
        super().__init__(", ".join(sorted(reasons)))
        self.reasons = reasons


class Need:
    """Collects what forbids a step."""

    def __init__(self) -> None:
        self.reasons: set[str] = set()

    def __call__(self, met: bool, *reasons: str) -> bool:
        if not met:
            self.reasons.update(reasons)
        return met

    def stop(self) -> None:
        """What follows makes no sense unless all was met."""
        if self.reasons:
            raise Forbidden(self.reasons)


@contextmanager
def step() -> Iterator[Need]:
    """The checks of a step; raises Forbidden at the end of the block."""
    need = Need()
    yield need
    need.stop()


class Terms(NamedTuple):
    """Packed license terms, opened."""

    flags: int
    territory: int
    expiry: int
    uses: int
    derivative_bps: int
    onward_bps: int
    min_tier: int

    @classmethod
    def of(cls, packed: int) -> Terms:
        widths = (8, 10, 40, 6, 13, 13, 2)
        values, at = [], 0
        for width in widths:
            values.append(packed >> at & (1 << width) - 1)
            at += width
        assert packed >> at == 0
        return cls(*values)

    def within(self, source: Terms) -> bool:
        """No right that the source lacks, no duty or share that it imposes dropped."""
        rights, granted = self.flags & ~DISCLOSURE, source.flags & ~DISCLOSURE
        return (
            rights & ~granted == 0
            and self.flags & DISCLOSURE >= source.flags & DISCLOSURE
            and source.territory in (0, self.territory)
            and (source.expiry == 0 or 0 < self.expiry <= source.expiry)
            and self.uses & ~source.uses == 0
            and self.derivative_bps >= source.derivative_bps
            and self.onward_bps >= source.onward_bps
            and self.min_tier >= source.min_tier
        )

    def expired(self, now: int) -> bool:
        return self.expiry != 0 and now >= self.expiry


@dataclass
class Purchase:
    """An order that was opened."""

    order: Order
    parcel: Parcel
    state: State
    since: int
    fee: int  # prepare fee that was credited
    key_out: bool = False

    @property
    def paid(self) -> int:
        return self.order.sale.price + self.order.sale.bond

    @property
    def claim_bond(self) -> int:
        return self.order.sale.price // 10

    @property
    def held(self) -> int:
        """What the vault keeps for the order itself."""
        return self.paid + (self.claim_bond if self.state == State.RANGE_CHECK else 0) if self.live else 0

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def deadline(self) -> int:
        """The last second of the present state."""
        delivery = self.order.delivery
        return self.since + {
            State.OPEN: delivery.revealWindow + delivery.grace,
            State.REVEALED: delivery.complaintWindow,
            State.RANGE_CHECK: RANGE_ANSWER,
        }.get(self.state, 0)


@dataclass
class License:
    """A license token."""

    holder: str
    terms: int
    source: int
    end: int = 0
    suspended: bool = False
    offered: bool = False
    first_expiry: int = 0
    renewals: list[int] = field(default_factory=list)


@dataclass
class Bond:
    """A misuse bond; `asked` is the escrow's clock when its release was requested."""

    amount: int
    price: int
    token: str
    holder: str
    tail: int
    original: int
    cases: int = 0
    asked: int | None = None
    ended: bool = False  # released


@dataclass
class Fee:
    """A prepare fee that waits."""

    fingerprinter: str
    amount: int
    by: int
    token: str
    model: int
    paid_at: int


@dataclass
class ModelState:
    """A model token."""

    owner: str
    collaborators: tuple[tuple[str, int], ...]
    ancestors: tuple[tuple[int, int], ...]
    review: Review = Review.APPROVED
    preferences: int = 0
    frozen_until: int = 0
    freezes: int = 0
    delisted_until: int = 0
    nonce: int = 0

    @property
    def lineage_bps(self) -> int:
        return sum(bps for _, bps in self.ancestors)


@dataclass
class Pool:
    """A model's income in one token."""

    gross: int = 0
    inherited: int = 0
    pulled: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def balance(self) -> int:
        return self.gross + self.inherited - sum(self.pulled.values())


@dataclass
class Stake:
    """What a member has at stake; `reserve` of it no deposit may lock."""

    staked: int
    locked: int = 0
    may_lock: bool = False


@dataclass
class Channel:
    """A usage channel."""

    terms: tuple[Any, ...]  # as the contract takes it
    deposited: int
    onward_bps: int
    redeemed: int = 0
    to_model: int = 0
    closes_at: int = 0
    closed: bool = False

    @property
    def payer(self) -> str:
        return str(self.terms[0])

    @property
    def provider(self) -> str:
        return str(self.terms[1])

    @property
    def signer(self) -> str:
        return str(self.terms[2])

    @property
    def token(self) -> str:
        return str(self.terms[3])

    @property
    def expiry(self) -> int:
        return int(self.terms[5])

    @property
    def model(self) -> int:
        return int(self.terms[6])

    @property
    def held(self) -> int:
        return 0 if self.closed else self.deposited - self.redeemed

    @property
    def closable_at(self) -> int:
        by_expiry = self.expiry + CLOSE_WINDOW
        return min(self.closes_at, by_expiry) if self.closes_at else by_expiry


@dataclass
class Pause:
    """Pauses of one thing."""

    until: int = 0
    start: int = 0
    period: int = 0
    before: int = 0  # seconds of the pauses before the running one

    def seconds(self, now: int) -> int:
        return self.before + min(now, self.until) - self.start

    def begin(self, now: int, until: int) -> None:
        period = now if now >= self.period + PAUSE_PERIOD else self.period
        with step() as need:
            need(now < until <= period + PAUSE, "PauseTooLong")
        self.before = self.seconds(now)
        self.period, self.start, self.until = period, now, until

    def finish(self, now: int) -> None:
        with step() as need:
            need(now < self.until, "NotPaused")
        self.until = now


class Books:
    """Orders, licenses, models and all money. `now` is the second of the step."""

    def __init__(self, treasury: str, reserve: int) -> None:
        self.treasury, self.reserve = treasury, reserve
        self.now = 0
        self.free: dict[tuple[str, str], int] = defaultdict(int)  # (account, token)
        self.came_in: dict[str, int] = defaultdict(int)  # by token
        self.went_out: dict[tuple[str, str], int] = defaultdict(int)  # (account, token)
        self.stakes: dict[str, Stake] = {}
        self.models: dict[int, ModelState] = {}
        self.pools: dict[tuple[int, str], Pool] = defaultdict(Pool)
        self.purchases: dict[int, Purchase] = {}
        self.licenses: dict[int, License] = {}
        self.bonds: dict[int, Bond] = {}
        self.fees: dict[tuple[str, bytes], Fee] = {}
        self.fee_ends: dict[tuple[str, bytes], list[str]] = defaultdict(list)
        self.cancelled: set[tuple[str, bytes]] = set()
        self.floors: dict[str, int] = defaultdict(int)
        self.pauses = {ESCROW: Pause(), COURT: Pause()}
        self.listed: set[str] = set()
        self.attested: dict[str, tuple[int, int]] = {}  # tier and expiry by account
        self.attestations: dict[str, int] = defaultdict(int)  # the issuer's nonces
        self.channels: dict[bytes, Channel] = {}

    # ---------------------------------------------------------------- money

    def take(self, account: str, token: str, amount: int, need: Need) -> None:
        """What a free balance must hold."""
        need(self.free[account, token] >= amount, "BalanceTooSmall")

    def pay_royalty(self, model: int, token: str, amount: int) -> None:
        self.pools[model, token].gross += amount

    def deposit(self, account: str, token: str, amount: int) -> None:
        with step() as need:
            need(token in self.listed or token == NATIVE, "TokenNotListed")
        self.came_in[token] += amount
        self.free[account, token] += amount

    def withdraw(self, account: str, token: str, amount: int) -> None:
        with step() as need:
            self.take(account, token, amount, need)
        self.free[account, token] -= amount
        self.went_out[account, token] += amount

    def earned(self, model: int, token: str, share: int) -> int:
        """All that a share of the model's income has ever come to; rounds down."""
        m, pool = self.models[model], self.pools[model, token]
        if share == PLATFORM:
            return pool.gross * PLATFORM_BPS // BPS
        if share >= ANCESTOR:
            return pool.gross * m.ancestors[share - ANCESTOR][1] // BPS
        net = pool.gross * (BPS - PLATFORM_BPS - m.lineage_bps) // BPS + pool.inherited
        if share >= COLLABORATOR:
            return net * m.collaborators[share - COLLABORATOR][1] // BPS
        return net * (BPS - sum(bps for _, bps in m.collaborators)) // BPS

    def shares(self, model: int) -> list[int]:
        m = self.models[model]
        collaborators = [COLLABORATOR + i for i in range(len(m.collaborators))]
        return [PLATFORM, *[ANCESTOR + i for i in range(len(m.ancestors))], *collaborators, OWNER]

    def due(self, model: int, token: str, share: int) -> int:
        return self.earned(model, token, share) - self.pools[model, token].pulled[share]

    def pull(self, model: int, token: str, share: int) -> None:
        m, pool = self.models[model], self.pools[model, token]
        due = self.due(model, token, share)
        with step() as need:
            need(due > 0, "NothingToPull")
            need(share != OWNER or self.now >= m.frozen_until, "OwnerPullFrozen")
        pool.pulled[share] += due
        if share >= ANCESTOR:
            self.pools[m.ancestors[share - ANCESTOR][0], token].inherited += due
        else:
            self.free[self.payee(model, share), token] += due

    def payee(self, model: int, share: int) -> str:
        m = self.models[model]
        if share == PLATFORM:
            return self.treasury
        return m.collaborators[share - COLLABORATOR][0] if share >= COLLABORATOR else m.owner

    # ---------------------------------------------------------------- models

    def check_seller(self, need: Need, model: int, seller: str, nonce: int) -> None:
        m = self.models[model]
        need(m.owner == seller, "NotTheOwner")
        need(m.nonce == nonce, "SaleNonceStale")

    def move_model(self, model: int, to: str) -> None:
        self.models[model].owner = to
        self.models[model].nonce += 1

    def freeze(self, model: int, until: int) -> None:
        m = self.models[model]
        forgotten = self.now > m.frozen_until + 180 * DAY
        with step() as need:
            need(self.now < until <= self.now + 30 * DAY, "FreezeTooLong")
            need(forgotten or m.freezes < 3, "FreezeLimit")
        m.freezes = 1 if forgotten else m.freezes + 1
        m.frozen_until = until

    def freeze_by_verdict(self, model: int) -> None:
        m = self.models[model]
        if self.now > m.frozen_until + 180 * DAY:
            m.freezes = 0
        m.frozen_until = self.now + 30 * DAY

    def lift(self, model: int) -> None:
        with step() as need:
            need(self.now < self.models[model].frozen_until, "NotFrozen")
        self.models[model].frozen_until = self.now

    def delist(self, model: int, until_day: int) -> None:
        today = self.now // DAY
        with step() as need:
            need(until_day == 0 or today < until_day <= today + 365, "DelistTooLong")
        self.models[model].delisted_until = until_day * DAY

    def buy_model(
        self, *, model: int, seller: str, buyer: str, sender: str, token: str, price: int, nonce: int, order_nonce: int,
        hash_: bytes, open_by: int, genuine: bool,
    ) -> None:  # fmt: skip
        with step() as need:
            need(self.now <= open_by, "TooLate")
            need(token in self.listed or token == NATIVE, "TokenNotListed")
            need(buyer in (NOBODY, sender), "NotTheBuyer")
            self.check_seller(need, model, seller, nonce)
            need(self.models[model].review == Review.APPROVED, "ModelNotOffered")
            need(self.now >= self.models[model].frozen_until, "ModelFrozen")
            self.check_not_void(need, seller, order_nonce, hash_)
            need(genuine, "BadSignature")
        self.came_in[token] += price
        self.pay_royalty(model, token, price)
        due = self.due(model, token, OWNER)
        self.pools[model, token].pulled[OWNER] += due
        self.free[seller, token] += due
        self.move_model(model, sender)

    # ---------------------------------------------------------------- orders

    def check_not_void(self, need: Need, seller: str, order_nonce: int, hash_: bytes) -> None:
        floor = self.floors[seller]
        valid = floor <= order_nonce < floor + 2**32 and (seller, hash_) not in self.cancelled
        need(valid, "OrderVoid")

    def ended(self, license_id: int) -> bool:
        license_ = self.licenses[license_id]
        return license_.end != 0 or Terms.of(license_.terms).expired(self.now)

    def active(self, license_id: int) -> bool:
        return not self.ended(license_id) and not self.licenses[license_id].suspended

    def open(self, order: Order, parcel: Parcel, hash_: bytes, *, sender: str, genuine: bool = True) -> None:
        sale, delivery = order.sale, order.delivery
        license_id, model = delivery.licenseId, delivery.licenseId >> 28
        m, terms = self.models[model], Terms.of(sale.terms)
        fee = 0
        with step() as need:
            need(self.now >= self.pauses[ESCROW].until, "OpeningIsPaused")
            need(sender == delivery.buyer, "NotTheBuyer")
            need(self.now <= sale.openBy, "OrderExpired")
            need(license_id not in self.purchases, "WrongState")
            need((license_id & 0xFFFFFFF >= FIRST_ONWARD) is (sale.basis != 0), "NotALicenseId")
            need(not terms.expired(self.now), "TermsExpired")
            need(sale.token in self.listed or sale.token == NATIVE, "TokenNotListed")
            if sale.basis == 0:
                self.check_seller(need, model, sale.seller, sale.saleNonce)
                need(sale.source == 0, "SourceMismatch")
                need(m.review == Review.APPROVED, "ModelNotOffered")
                refused = sum(1 << i for i in range(6) if m.preferences >> 2 * i & 3 == 3)
                need(terms.uses & refused == 0, "UseNotAllowed")
            else:
                self.check_onward(need, order)
            need(self.now >= m.delisted_until, "ModelNotOffered")
            need(self.now >= m.frozen_until, "ModelFrozen")
            self.check_not_void(need, sale.seller, sale.orderNonce, hash_)
            need(self.tier(sender) >= terms.min_tier, "IdentityTooLow")
            need(genuine, "BadSignature")
            if any(sale.requestHash):
                fee = self.fee_for(need, order)
            stake = self.stakes[delivery.fingerprinter]
            need(stake.may_lock, "DepositsNotAllowed")
            need(stake.staked >= stake.locked + delivery.deposit + self.reserve, "StakeTooSmall")
            need(sale.token != NATIVE or delivery.deposit >= sale.price, "DepositTooSmall")
        if fee:
            self.end_fee(delivery.buyer, sale.requestHash, "credited")
        stake.locked += delivery.deposit
        purchase = Purchase(order, parcel, State.OPEN, self.now, fee)
        self.purchases[license_id] = purchase
        self.came_in[sale.token] += purchase.paid - fee
        if sale.basis == 1:
            self.licenses[sale.source].offered = True

    def check_onward(self, need: Need, order: Order) -> None:
        sale = order.sale
        source, bond = self.licenses.get(sale.source), self.bonds.get(sale.source)
        if not need(source is not None, "NoSuchLicense", "SourceMismatch"):
            return
        assert source is not None
        resale = sale.basis == 1
        need(sale.source >> 28 == order.delivery.licenseId >> 28, "SourceMismatch")
        need(sale.saleNonce == 0, "SaleNonceStale")
        need(order.delivery.fingerprinter != self.models[sale.source >> 28].owner, "NotNeutral")
        need(bond is None or bond.cases == 0, "BondHeld")
        left = bond.amount if bond is not None else 0
        need(sale.bond >= left, "BondTooSmall")
        need(bond is None or not left or bond.token == sale.token, "BondTooSmall")
        need(source.holder == sale.seller, "NotTheHolder")
        need(self.active(sale.source) and not source.offered, "NotForSale")
        given, own = Terms.of(sale.terms), Terms.of(source.terms)
        right = RESALE if resale else SUBLICENSE
        chained = not resale and given.flags & SUBLICENSE
        need(bool(own.flags & right) and not chained and given.within(own), "TermsNotWithin")

    def known(self, need: Need, license_id: int, *states: State) -> Purchase:
        purchase = self.purchases.get(license_id)
        need(purchase is not None and purchase.state in states, "WrongState")
        need.stop()
        assert purchase is not None
        return purchase

    def reveal(self, license_id: int) -> None:
        with step() as need:
            p = self.known(need, license_id, State.OPEN)
            need(self.now <= p.deadline, "TooLate")
        p.state, p.since, p.key_out = State.REVEALED, self.now, True

    def complain(self, license_id: int, index: int, *, sender: str) -> None:
        with step() as need:
            p = self.known(need, license_id, State.REVEALED)
            need(sender == p.order.delivery.buyer, "NotTheBuyer")
            need(self.now <= p.deadline, "TooLate")
            need(p.parcel.wrong == index, "ChunkIsRight")
        self.refunded(p, p.order.delivery.deposit)

    def accept(self, license_id: int, *, sender: str) -> None:
        with step() as need:
            p = self.known(need, license_id, State.REVEALED)
            need(sender == p.order.delivery.buyer, "NotTheBuyer")
        self.settled(license_id)

    def settle(self, license_id: int) -> None:
        with step() as need:
            p = self.known(need, license_id, State.REVEALED)
            need(self.now > p.deadline, "TooEarly")
        self.settled(license_id)

    def refund(self, license_id: int) -> None:
        with step() as need:
            p = self.known(need, license_id, State.OPEN, State.RANGE_CHECK)
            need(self.now > p.deadline, "TooEarly")
        if p.state == State.OPEN:
            self.refunded(p, p.order.delivery.deposit // 10)
        else:
            self.free[p.order.delivery.buyer, p.order.sale.token] += p.claim_bond
            self.refunded(p, 0)

    def claim_range(self, license_id: int, *, sender: str) -> None:
        with step() as need:
            p = self.known(need, license_id, State.REVEALED)
            need(sender == p.order.delivery.buyer, "NotTheBuyer")
            need(self.now <= p.deadline, "TooLate")
        self.came_in[p.order.sale.token] += p.claim_bond
        p.state, p.since = State.RANGE_CHECK, self.now

    def answer_range(self, license_id: int, upheld: bool, *, signers: int, k: int) -> None:
        with step() as need:
            p = self.known(need, license_id, State.RANGE_CHECK)
            need(self.now <= p.deadline, "TooLate")
            need(signers >= k, "NotEnoughSignatures")
        to = p.order.delivery.buyer if upheld else self.treasury
        self.free[to, p.order.sale.token] += p.claim_bond
        if upheld:
            self.refunded(p, p.order.delivery.deposit)
        else:
            self.settled(license_id)

    def refunded(self, p: Purchase, penalty: int) -> None:
        sale, delivery = p.order.sale, p.order.delivery
        stake = self.stakes[delivery.fingerprinter]
        stake.locked -= delivery.deposit
        stake.staked -= penalty
        self.free[delivery.buyer, sale.token] += p.paid
        self.free[delivery.buyer, NATIVE] += penalty
        p.state, p.since = State.REFUNDED, self.now
        if sale.basis == 1:
            self.licenses[sale.source].offered = False

    def settled(self, license_id: int) -> None:
        p = self.purchases[license_id]
        sale, delivery = p.order.sale, p.order.delivery
        self.stakes[delivery.fingerprinter].locked -= delivery.deposit
        p.state, p.since = State.SETTLED, self.now
        to_model = sale.price
        if sale.basis != 0:
            source = self.licenses[sale.source]
            to_model = sale.price * Terms.of(source.terms).onward_bps // BPS
            self.free[sale.seller, sale.token] += sale.price - to_model
            if sale.basis == 1:
                source.offered = False
                source.end = source.end or RESOLD
        self.pay_royalty(license_id >> 28, sale.token, to_model)
        self.licenses[license_id] = License(
            delivery.buyer, sale.terms, sale.source, first_expiry=Terms.of(sale.terms).expiry
        )
        self.bonds[license_id] = Bond(
            sale.bond, to_model, sale.token, delivery.buyer, sale.bondTail, sale.bond, ended=not sale.bond
        )

    def cancel(self, seller: str, hash_: bytes) -> None:
        self.cancelled.add((seller, hash_))

    def cancel_all(self, seller: str) -> None:
        self.floors[seller] += 2**32

    # ---------------------------------------------------------------- prepare fees

    def fee_for(self, need: Need, order: Order) -> int:
        """The fee that the order's request brings; 0 where there is none."""
        sale, delivery = order.sale, order.delivery
        fee = self.fees.get((delivery.buyer, sale.requestHash))
        fits = fee is not None and (fee.fingerprinter, fee.token, fee.model) == (
            delivery.fingerprinter,
            sale.token,
            delivery.licenseId >> 28,
        )
        if not need(fits, "RequestUnknown"):
            return 0
        assert fee is not None
        need(fee.amount <= sale.price * 500 // BPS, "FeeTooLarge")
        return fee.amount

    def pay_fee(
        self, buyer: str, request: bytes, model: int, fingerprinter: str, token: str, amount: int, by: int
    ) -> None:
        with step() as need:
            need(amount > 0, "NothingToDo")
            need(token in self.listed or token == NATIVE, "TokenNotListed")
            need(self.now < by <= self.now + 30 * DAY, "WindowOutOfRange")
            need((buyer, request) not in self.fees, "RequestTaken")
        self.fees[buyer, request] = Fee(fingerprinter, amount, by, token, model, self.now)
        self.came_in[token] += amount

    def reclaim_fee(self, buyer: str, request: bytes) -> None:
        fee = self.fees.get((buyer, request))
        with step() as need:
            need(fee is not None, "RequestUnknown")
            need.stop()
            assert fee is not None
            need(self.now > fee.by, "TooEarly")
        self.free[buyer, fee.token] += fee.amount
        self.end_fee(buyer, request, "reclaimed")

    def earn_fee(self, order: Order, hash_: bytes, *, genuine: bool = True) -> None:
        sale, delivery = order.sale, order.delivery
        model = self.models[delivery.licenseId >> 28]
        with step() as need:
            amount = self.fee_for(need, order)
            need.stop()
            fee = self.fees[delivery.buyer, sale.requestHash]
            need(self.now > max(sale.openBy, fee.paid_at + DAY), "TooEarly")
            need(self.now <= fee.by, "TooLate")
            self.check_not_void(need, sale.seller, sale.orderNonce, hash_)
            source = self.licenses.get(sale.source)
            owner = model.owner if sale.basis == 0 else source.holder if source else None
            need(owner == sale.seller, "NotTheOwner", "SourceMismatch", "TokenDoesNotExist")
            need(delivery.fingerprinter not in (model.owner, sale.seller, delivery.buyer), "NotNeutral")
            if sale.basis != 0:
                right = RESALE if sale.basis == 1 else SUBLICENSE
                held = source is not None and self.active(sale.source)
                may = held and Terms.of(source.terms).flags & right if source else False
                need(bool(may) and sale.source >> 28 == delivery.licenseId >> 28, "SourceMismatch")
            need(genuine, "BadSignature")
        self.free[fee.fingerprinter, fee.token] += amount
        self.end_fee(delivery.buyer, sale.requestHash, "earned")

    def end_fee(self, buyer: str, request: bytes, how: str) -> None:
        del self.fees[buyer, request]
        self.fee_ends[buyer, request].append(how)

    # ---------------------------------------------------------------- licenses and bonds

    def renew(
        self, *, license_id: int, seller: str, token: str, price: int, expiry: int, nonce: int, order_nonce: int,
        hash_: bytes, open_by: int, sender: str, genuine: bool,
    ) -> None:  # fmt: skip
        model = self.models[license_id >> 28]
        license_ = self.licenses.get(license_id)
        with step() as need:
            need(self.now <= open_by, "TooLate")
            need(token in self.listed or token == NATIVE, "TokenNotListed")
            self.check_seller(need, license_id >> 28, seller, nonce)
            need(self.now >= model.frozen_until, "ModelFrozen")
            self.check_not_void(need, seller, order_nonce, hash_)
            need(genuine, "BadSignature")
            if need(license_ is not None, "NoSuchLicense"):
                assert license_ is not None
                before = Terms.of(license_.terms).expiry
                need(license_.holder == sender, "NotTheHolder")
                need(not self.ended(license_id), "LicenseEnded")
                need(before != 0 and (expiry == 0 or expiry > before), "NotLonger")
        assert license_ is not None
        license_.terms = license_.terms & ~((2**40 - 1) << 18) | expiry << 18
        license_.renewals.append(expiry)
        self.came_in[token] += price
        self.pay_royalty(license_id >> 28, token, price)

    def surrender(self, license_id: int, *, sender: str) -> None:
        license_ = self.licenses.get(license_id)
        with step() as need:
            need(license_ is not None, "NoSuchLicense")
            need.stop()
            assert license_ is not None
            need(license_.holder == sender, "NotTheHolder")
            need(license_.end == 0, "LicenseEnded")
        license_.end = SURRENDERED

    def request_release(self, license_id: int) -> None:
        bond = self.bonds.get(license_id)
        with step() as need:
            open_ = bond is not None and bond.amount > 0 and bond.asked is None
            need(open_, "NothingToDo")
            if license_id in self.licenses:
                need(self.ended(license_id), "LicenseStillActive")
        assert bond is not None
        bond.asked = self.now - self.pauses[ESCROW].seconds(self.now)

    def release_at(self, license_id: int) -> int:
        """The first second in which the bond may leave, cases apart."""
        bond = self.bonds[license_id]
        assert bond.asked is not None
        return bond.asked + bond.tail + self.pauses[ESCROW].seconds(self.now)

    def release(self, license_id: int) -> None:
        bond = self.bonds.get(license_id)
        with step() as need:
            self.known(need, license_id, State.SETTLED)
            assert bond is not None
            if need(bond.amount > 0, "NothingToDo") and need(bond.asked is not None, "ReleaseNotRequested"):
                need(bond.cases == 0 and self.now >= self.release_at(license_id), "BondHeld")
        self.free[bond.holder, bond.token] += bond.amount
        self.bonds[license_id] = Bond(0, 0, bond.token, bond.holder, bond.tail, bond.original, ended=True)

    def pause(self, what: str, until: int) -> None:
        self.pauses[what].begin(self.now, until)

    def resume(self, what: str) -> None:
        self.pauses[what].finish(self.now)

    # ---------------------------------------------------------------- identity

    def tier(self, account: str) -> int:
        tier, expiry = self.attested.get(account, (0, 0))
        return tier if self.now < expiry else 0

    def attest(self, account: str, tier: int, expiry: int, nonce: int, *, sender: str) -> None:
        with step() as need:
            need(sender == account, "NotTheSubject")
            need(0 < tier <= MAX_TIER, "TierOutOfRange")
            need(self.now < expiry, "AttestationExpired")
            need(nonce == self.attestations[account], "WrongNonce")
        self.attestations[account] += 1
        self.attested[account] = (tier, expiry)

    def revoke_attestation(self, account: str) -> None:
        self.attestations[account] += 1
        self.attested.pop(account, None)

    # ---------------------------------------------------------------- usage channels

    def check_provider(self, need: Need, model: int, license_id: int, provider: str) -> int:
        """The model's share of the income, in basis points."""
        m = self.models[model]
        served = m.review == Review.APPROVED and self.now >= max(m.delisted_until, m.frozen_until)
        need(served, "ModelNotServed")
        if not license_id:
            need(provider == m.owner, "NotTheProvider")
            return BPS
        license_ = self.licenses.get(license_id)
        if not need(license_ is not None, "NoSuchLicense"):
            return 0
        assert license_ is not None
        commercial = Terms.of(license_.terms).flags & COMMERCIAL and license_id >> 28 == model
        need(bool(commercial) and self.active(license_id), "LicenseNotCommercial")
        need(provider == license_.holder, "NotTheProvider")
        return Terms.of(license_.terms).onward_bps

    def open_channel(self, number: bytes, terms: tuple[Any, ...], *, sender: str) -> None:
        payer, provider, _, token, amount, expiry, model, license_id, _ = terms
        with step() as need:
            need(sender == payer, "NotThePayer")
            need(number not in self.channels, "ChannelExists")
            need(self.now < expiry, "ChannelCloses")
            onward_bps = self.check_provider(need, model, license_id, provider)
            need(amount > 0, "EmptyChannel")
            need(token in self.listed or token == NATIVE, "TokenNotListed")
            self.take(sender, token, amount, need)
        self.free[payer, token] -= amount
        self.channels[number] = Channel(terms, amount, onward_bps)

    def live_channel(self, need: Need, number: bytes) -> Channel:
        channel = self.channels.get(number)
        need(channel is not None and not channel.closed, "ChannelNotOpen")
        need.stop()
        assert channel is not None
        return channel

    def top_up(self, number: bytes, amount: int, *, sender: str) -> None:
        with step() as need:
            channel = self.live_channel(need, number)
            need(sender == channel.payer, "NotThePayer")
            need(not channel.closes_at and self.now < channel.expiry, "ChannelCloses")
            self.check_provider(need, channel.model, channel.terms[7], channel.provider)
            need(amount > 0, "EmptyChannel")
            need(channel.token in self.listed or channel.token == NATIVE, "TokenNotListed")
            self.take(sender, channel.token, amount, need)
        self.free[channel.payer, channel.token] -= amount
        channel.deposited += amount

    def request_close(self, number: bytes, *, sender: str) -> None:
        with step() as need:
            channel = self.live_channel(need, number)
            need(sender == channel.payer, "NotThePayer")
            need(not channel.closes_at and self.now < channel.expiry, "ChannelCloses")
        channel.closes_at = self.now + CLOSE_WINDOW

    def redeem(self, number: bytes, cumulative: int, *, genuine: bool) -> None:
        with step() as need:
            channel = self.live_channel(need, number)
            redeemed = min(cumulative, channel.deposited)
            need(redeemed > channel.redeemed, "VoucherTooSmall")
            need(genuine, "VoucherUnsigned")
        to_model = redeemed * channel.onward_bps // BPS - channel.redeemed * channel.onward_bps // BPS
        self.free[channel.provider, channel.token] += redeemed - channel.redeemed - to_model
        self.pay_royalty(channel.model, channel.token, to_model)
        channel.redeemed, channel.to_model = redeemed, channel.to_model + to_model

    def close_channel(self, number: bytes, *, sender: str) -> None:
        with step() as need:
            channel = self.live_channel(need, number)
            need(sender == channel.provider or self.now >= channel.closable_at, "TooEarly")
        self.free[channel.payer, channel.token] += channel.held
        channel.closed = True

    # ---------------------------------------------------------------- sums

    def held(self) -> dict[str, int]:
        """What the vault has to hold, by token, cases apart."""
        sums: dict[str, int] = defaultdict(int)
        for (_, token), amount in self.free.items():
            sums[token] += amount
        sums[NATIVE] += sum(stake.staked for stake in self.stakes.values())
        for (_, token), pool in self.pools.items():
            sums[token] += pool.balance
        for p in self.purchases.values():
            sums[p.order.sale.token] += p.held
        for bond in self.bonds.values():
            sums[bond.token] += bond.amount
        for fee in self.fees.values():
            sums[fee.token] += fee.amount
        for channel in self.channels.values():
            sums[channel.token] += channel.held
        return sums
