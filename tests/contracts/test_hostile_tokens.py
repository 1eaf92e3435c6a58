"""Tokens that call back or tax: whatever an ERC-20 does during a payment, the vault owes what it holds and no more."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest
from busy_stage import Busy, make_busy, tour
from eth_abi.abi import encode
from market import DAY, ETHER, HOUR, NATIVE, Order, State, System, terms
from quick_node import Face, Reverted
from stage_play import FAR, Play
from test_known_failures import deployed
from walk_stage import build

LISTED = ("ReentrantToken", "TaxedToken", "FailingToken", "SilentToken")
AFTER, BEFORE, PERMIT = range(3)  # moments in which a token calls back
CALM, REVERTING, BURNING, CALLING = range(4)  # moods of a receiver
ENTRIES = (
    "depositToken", "withdraw", "open", "openWithPermit", "rangeClaim", "payPrepareFee", "renew", "buyModel",
)  # fmt: skip


@pytest.fixture(scope="module")
def busy(system: System, project: Any) -> Busy:
    play = Play(build(system, project))
    stage = play.stage
    wallet = deployed(stage, project, "BatchWallet", play.address("gina"), value=100 * ETHER)
    found = make_busy(play)
    tour(found)
    for name in LISTED:
        token = deployed(stage, project, name)
        play.send("LicenseEscrow", "listToken", token.address, True, by="admin")
        for owner in (play.address("emma"), wallet.address):
            play.send(name, "mint", owner, 100 * ETHER, by="admin")
        approve = token.data("approve", stage.faces["LicenseEscrow"].address, 2**256 - 1)
        play.send(name, "approve", stage.faces["LicenseEscrow"].address, 2**256 - 1, by="emma")
        deposit = stage.faces["LicenseEscrow"].data("depositToken", token.address, 9 * ETHER, wallet.address)
        into_vault = [(token.address, 0, approve), (stage.faces["LicenseEscrow"].address, 0, deposit)]
        play.send("BatchWallet", "execute", into_vault, by="sam")
        play.send("LicenseEscrow", "depositToken", token.address, ETHER, play.address("emma"), by="emma")
    return found


class Entry:
    """One way a token moves in or out, ready to go: a call of emma's, and the orders that it needs."""

    def __init__(self, busy: Busy, name: str, token: str) -> None:
        self.busy, self.name, play = busy, name, busy.play
        stage, escrow = busy.stage, "LicenseEscrow"
        self.orders: list[Order] = []
        self.call: tuple[Any, ...]
        order = play.order(token=token, price=ETHER // 10)
        match name:
            case "depositToken":
                self.call = (escrow, name, token, 5 * ETHER, play.address("emma"))
            case "withdraw":
                self.call = (escrow, name, token, ETHER // 2, play.address("emma"))
            case "open":
                self.call = (escrow, name, order.as_tuple(), *stage.signed(order, "anna", "fred"))
            case "openWithPermit":
                signed = stage.signed(order, "anna", "fred")
                self.call = (escrow, name, order.as_tuple(), *signed, FAR, 27, bytes(32), bytes(32))
            case "rangeClaim":
                play.open(order)
                play.reveal(order)
                self.call = (escrow, name, order.as_tuple(), bytes(32))
            case "payPrepareFee":
                fee = (b"\x44" * 32, play.model, play.address("fred"), token, 500, play.now + DAY)
                self.call = (escrow, name, *fee)
            case "renew":
                renewal = busy.renewal(busy.orders["expiring"], token=token, price=ETHER)
                self.call = (escrow, name, astuple(renewal), busy.signed(renewal, "anna"))
            case "buyModel":
                sale = busy.model_sale(token=token)
                shares = stage.models[play.model].shares
                self.call = (escrow, name, astuple(sale), shares, busy.signed(sale, "anna"))
        self.due = {
            "depositToken": 5 * ETHER,
            "rangeClaim": order.sale.price // 10,
            "payPrepareFee": 500,
        }.get(name, ETHER if name in ("renew", "buyModel") else order.sale.price + order.sale.bond)
        if name in ("open", "openWithPermit", "rangeClaim"):
            self.orders.append(order)

    def go(self) -> None:
        contract, function, *arguments = self.call
        self.busy.play.send(contract, function, *arguments, by="emma")


def owed(busy: Busy, token: Face, orders: list[Order]) -> int:
    """What the vault owes in the token, by its own views."""
    stage = busy.stage
    escrow = stage.faces["LicenseEscrow"]
    accounts = [*(p.address for p in stage.people.values()), stage.faces["BatchWallet"].address]
    reads: list[tuple[Any, ...]] = [(escrow, "balanceOf", account, token.address) for account in accounts]
    sums = sum(stage.node.read(*reads))
    royalties = [(escrow, "royaltyOf", model, token.address) for model in stage.models]
    sums += sum(balance for _, balance in stage.node.read(*royalties))
    fee = stage.view("LicenseEscrow", "prepareFeeOf", busy.play.address("emma"), b"\x44" * 32)
    sums += int(fee[1])
    for order in orders:
        state = busy.play.state(order)
        if state in (State.OPEN, State.REVEALED, State.RANGE_CHECK):
            sums += order.sale.price + order.sale.bond
        if state == State.RANGE_CHECK:
            sums += order.sale.price // 10
        sums += busy.play.bond(order)
    return int(sums)


def callbacks(busy: Busy, token: Face, orders: list[Order]) -> list[tuple[str, str, bytes]]:
    """What the token has a confederate do in the middle of the transfer: what anybody may, and what only it may."""
    stage, play = busy.stage, busy.play
    escrow, wallet = stage.faces["LicenseEscrow"], stage.faces["BatchWallet"]
    own = [
        ("withdraw", (token.address, 9 * ETHER, play.address("gina"))),
        ("withdraw", (token.address, 1, play.address("gina"))),
        ("depositToken", (token.address, ETHER, wallet.address)),
        ("payPrepareFee", (b"\x45" * 32, play.model, play.address("fred"), token.address, 5, play.now + DAY)),
        ("cancelAll", ()),
        *((name, (order.as_tuple(),)) for order in orders for name in ("refund", "settle", "accept")),
    ]
    return [
        *((f"own {name}", escrow.address, escrow.data(name, *arguments)) for name, arguments in own),
        *replays(busy),
    ]


def replays(busy: Busy) -> list[tuple[str, str, bytes]]:
    """The last call of every function that was ever called."""
    stage, seen, found = busy.stage, set(), []
    for sent in reversed(stage.sent):
        if sent.contract in stage.system.at and (sent.contract, sent.function) not in seen:
            seen.add((sent.contract, sent.function))
            face = stage.faces[sent.contract]
            found.append(
                (f"{sent.contract}.{sent.function}", face.address, face.data(sent.function, *sent.arguments))
            )
    return found


@pytest.mark.parametrize(
    ("entry", "moment"),
    [
        *((entry, AFTER) for entry in ENTRIES),
        ("withdraw", BEFORE),
        ("open", BEFORE),
        ("openWithPermit", PERMIT),
    ],
)
def test_a_token_that_calls_back_gains_nothing(busy: Busy, entry: str, moment: int) -> None:
    """Its confederate does every other thing that can be done, in the middle of every payment; the books stay even."""
    play, token, wallet = busy.play, busy.stage.faces["ReentrantToken"], busy.stage.faces["BatchWallet"]
    done = 0
    with play.undone():
        way = Entry(busy, entry, token.address)
        play.send("ReentrantToken", "setMoment", moment, by="sam")
        assert held(busy, token) == owed(busy, token, way.orders)
        for name, target, data in callbacks(busy, token, way.orders):
            with play.undone():
                play_out = wallet.data("execute", [(target, 0, data)])
                play.send("ReentrantToken", "arm", wallet.address, play_out, by="sam")
                try:
                    way.go()
                    assert play.view("ReentrantToken", "called"), name
                    done += play.view("ReentrantToken", "succeeded")
                except Reverted as refused:
                    if moment != PERMIT or refused.data[:4] not in busy.stage.node.errors:
                        raise  # before the opening the confederate may leave nothing to open
                assert held(busy, token) == owed(busy, token, way.orders), (entry, name)
    assert done  # some of it is anybody's to do, even then


def held(busy: Busy, token: Face) -> int:
    return int(busy.stage.node.read((token, "balanceOf", busy.stage.faces["LicenseEscrow"].address))[0])


@pytest.mark.parametrize("entry", [name for name in ENTRIES if name != "withdraw"])
def test_a_token_that_takes_its_cut_is_refused(busy: Busy, entry: str) -> None:
    """What arrives must be what was promised, wherever tokens come in."""
    token = busy.stage.faces["TaxedToken"]
    with busy.play.undone():
        way = Entry(busy, entry, token.address)
        busy.play.send("TaxedToken", "setTaxed", True, by="sam")
        with busy.play.refuses("TransferTaxed"):
            way.go()
        assert held(busy, token) == owed(busy, token, way.orders)


def test_a_token_that_begins_to_tax_takes_from_its_receiver_alone(busy: Busy) -> None:
    """What was deposited before leaves the vault whole; what the token keeps is between it and the receiver."""
    token, play = busy.stage.faces["TaxedToken"], busy.play
    with play.undone():
        before = held(busy, token)
        play.send("TaxedToken", "setTaxed", True, by="sam")
        play.send("LicenseEscrow", "withdraw", token.address, ETHER, play.address("kim"), by="emma")
        assert held(busy, token) == before - ETHER == owed(busy, token, [])


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_token_that_says_it_did_not_move_is_believed(busy: Busy, entry: str) -> None:
    """An answer of false is a failure, whether tokens come or go; no balance changes."""
    token = busy.stage.faces["FailingToken"]
    with busy.play.undone():
        way = Entry(busy, entry, token.address)
        busy.play.send("FailingToken", "setFailing", True, by="sam")
        before = held(busy, token), busy.play.free("emma", token.address)
        with busy.play.refuses("SafeERC20FailedOperation"):
            way.go()
        assert (held(busy, token), busy.play.free("emma", token.address)) == before
        assert held(busy, token) == owed(busy, token, way.orders)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_token_that_says_nothing_is_a_token(busy: Busy, entry: str) -> None:
    """Some of the oldest return no bool, and have no permit; a revert is how they fail."""
    token = busy.stage.faces["SilentToken"]
    with busy.play.undone():
        way = Entry(busy, entry, token.address)
        before = held(busy, token)
        way.go()
        assert held(busy, token) == owed(busy, token, way.orders) != before
    with busy.play.undone():
        way = Entry(busy, entry, token.address)
        if entry == "withdraw":
            return
        escrow, left = busy.stage.faces["LicenseEscrow"].address, way.due - 1
        busy.play.send("SilentToken", "approve", escrow, left, by="emma")
        with pytest.raises(Reverted):
            way.go()
        assert held(busy, token) == owed(busy, token, way.orders)


def test_a_delisted_token_still_leaves(busy: Busy) -> None:
    """Delisting stops what comes in; orders end and balances leave."""
    token, play = busy.stage.faces["TaxedToken"], busy.play
    with play.undone():
        order = play.order(token=token.address, terms=terms())
        play.open(order)
        play.send("LicenseEscrow", "listToken", token.address, False, by="admin")
        with play.refuses("TokenNotListed"):
            play.send("LicenseEscrow", "depositToken", token.address, 1, play.address("emma"), by="emma")
        with play.refuses("TokenNotListed"):
            play.open(play.order(token=token.address))
        play.wait(3 * HOUR)
        play.on(order, "refund")
        left = play.free("emma", token.address)
        play.send("LicenseEscrow", "withdraw", token.address, left, play.address("kim"), by="emma")
        assert held(busy, token) == owed(busy, token, [order])
        assert play.free("emma", token.address) == 0


def test_nobody_withdraws_what_is_not_his(busy: Busy) -> None:
    """Not one unit more than the own balance, in no token, to no receiver."""
    play = busy.play
    for token in (NATIVE, *(busy.stage.faces[name].address for name in LISTED)):
        for name in ("sam", "emma", "treasury"):
            balance = play.free(name, token)
            arguments = (token, balance + 1, play.address("sam"))
            with play.refuses("BalanceTooSmall"):
                play.simulated("LicenseEscrow", "withdraw", *arguments, by=name, at=play.now + 1)


# ---------------------------------------------------------------- receivers


@pytest.fixture(scope="module")
def moody(busy: Busy, project: Any) -> Face:
    """A contract with a free balance of 5 ether in the vault."""
    face = deployed(busy.stage, project, "MoodyReceiver")
    busy.play.send("LicenseEscrow", "depositNative", face.address, by="gina", value=5 * ETHER)
    return face


def fortunes(busy: Busy, moody: Face) -> dict[str, int]:
    """Everybody's free coins, what the vault holds, and all that the receiver has."""
    node, escrow = busy.stage.node, busy.stage.faces["LicenseEscrow"]
    people = {name: person.address for name, person in busy.stage.people.items()} | {"moody": moody.address}
    reads = [(escrow, "balanceOf", address, NATIVE) for address in people.values()]
    free = dict(zip(people, node.read(*reads), strict=True))
    coins = {name: int(node.ask("eth_getBalance", face.address, "latest"), 16) for name, face in
             (("vault", escrow), ("receiver", moody))}  # fmt: skip
    return free | coins


def tell(busy: Busy, moody: Face, mood: int, target: str = NATIVE, data: bytes = b"") -> None:
    busy.play.send("MoodyReceiver", "arm", mood, target, data, by="sam")


@pytest.mark.parametrize("mood", [REVERTING, BURNING])
def test_a_receiver_that_takes_no_coins_keeps_its_balance(busy: Busy, moody: Face, mood: int) -> None:
    """Whoever pays it out; somewhere else the same coins can go."""
    play, escrow = busy.play, busy.stage.faces["LicenseEscrow"]
    with play.undone():
        tell(busy, moody, mood)
        before = fortunes(busy, moody)
        to_itself = escrow.data("withdraw", NATIVE, ETHER, moody.address)
        with play.refuses("TransferFailed"):
            play.send("MoodyReceiver", "execute", escrow.address, 0, to_itself, by="sam")
        with play.refuses("TransferFailed"):
            play.send("LicenseEscrow", "withdraw", NATIVE, ETHER, moody.address, by="emma")
        assert fortunes(busy, moody) == before
        elsewhere = escrow.data("withdraw", NATIVE, ETHER, play.address("kim"))
        play.send("MoodyReceiver", "execute", escrow.address, 0, elsewhere, by="sam")
        after = fortunes(busy, moody)
        assert after == before | {"moody": 4 * ETHER, "vault": before["vault"] - ETHER}


def test_a_receiver_that_calls_back_gains_nothing(busy: Busy, moody: Face) -> None:
    """While its coins arrive it does everything that anybody ever did, and asks for its coins again."""
    play, escrow = busy.play, busy.stage.faces["LicenseEscrow"]
    withdraw = escrow.data("withdraw", NATIVE, ETHER, moody.address)
    own = [
        ("again", escrow.address, withdraw),
        ("all", escrow.address, escrow.data("withdraw", NATIVE, 5 * ETHER, moody.address)),
        ("cancelAll", escrow.address, escrow.data("cancelAll")),
    ]
    done = 0
    for name, target, data in [*own, *replays(busy)]:
        with play.undone():
            tell(busy, moody, CALLING, target, data)
            before = fortunes(busy, moody)
            play.send("MoodyReceiver", "execute", escrow.address, 0, withdraw, by="sam")
            assert play.view("MoodyReceiver", "called"), name
            done += play.view("MoodyReceiver", "succeeded")
            after = fortunes(busy, moody)
            assert after["moody"] + after["receiver"] <= before["moody"] + before["receiver"], name
            assert all(after[who] >= before[who] for who in busy.stage.people), name
            spent = before["moody"] - after["moody"]  # the ether, and what it spends or withdraws besides
            assert ETHER <= before["vault"] - after["vault"] <= spent, name
    assert done


@pytest.mark.parametrize("mood", [REVERTING, BURNING])
def test_a_receiver_that_takes_no_model_leaves_it_where_it_was(busy: Busy, moody: Face, mood: int) -> None:
    """`safeTransferFrom` fails as a whole; a sale, which asks no receiver, cannot be blocked by one."""
    play, anna = busy.play, busy.play.address("anna")
    with play.undone():
        tell(busy, moody, mood)
        before = play.view("ModelNFT", "statusOf", play.model)
        with pytest.raises(Reverted):
            send_model(busy, moody)
        assert play.view("ModelNFT", "statusOf", play.model) == before
        play.send("ModelNFT", "transferFrom", anna, moody.address, play.model, by="anna")
        assert play.view("ModelNFT", "ownerOf", play.model) == moody.address.lower()


def test_a_receiver_of_a_model_that_calls_back_gains_nothing(busy: Busy, moody: Face) -> None:
    """It is the owner when it is told, once, and nobody's coins are its."""
    play, models, moved = busy.play, busy.stage.faces["ModelNFT"], 0
    anna = play.address("anna")
    own = [
        ("take", models.address, models.data("transferFrom", anna, moody.address, play.model)),
        (
            "pass on",
            models.address,
            models.data("transferFrom", moody.address, play.address("kim"), play.model),
        ),
        ("preferences", models.address, models.data("setPreferences", play.model, 7, b"\x01" * 32)),
    ]
    for name, target, data in [*own, *replays(busy)]:
        with play.undone():
            tell(busy, moody, CALLING, target, data)
            before, sales = fortunes(busy, moody), play.view("ModelNFT", "statusOf", play.model)
            send_model(busy, moody)
            moved += play.view("MoodyReceiver", "succeeded")
            after = fortunes(busy, moody)
            passed_on = name == "pass on"
            owner = play.address("kim") if passed_on else moody.address
            assert play.view("ModelNFT", "ownerOf", play.model) == owner.lower(), name
            nonce = busy.stage.faces["ModelNFT"], play.view("ModelNFT", "statusOf", play.model)
            assert nonce[1] != sales
            assert all(after[who] >= before[who] for who in busy.stage.people), name
            # It may spend or withdraw what was its own, and pull royalties: the model is its own by then.
            spent = max(0, before["moody"] - after["moody"])
            paid = before["vault"] - after["vault"]
            assert 0 <= paid <= spent, name
            assert after["receiver"] <= before["receiver"] + paid, name
    assert moved


def send_model(busy: Busy, moody: Face) -> None:
    (plain,) = [
        f
        for f in busy.stage.faces["ModelNFT"].all_functions
        if f.name == "safeTransferFrom" and len(f.inputs) == 3
    ]
    data = plain.selector + encode(plain.inputs, [busy.play.address("anna"), moody.address, busy.play.model])
    face = busy.stage.faces["ModelNFT"]
    busy.stage.time += 1
    busy.stage.node.send(face.address, data, sender=busy.play.address("anna"), time=busy.stage.time)
