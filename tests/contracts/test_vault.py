"""The vault: free balances, stakes, case bonds, license bonds, and what each peer may and may not move."""

from __future__ import annotations

from typing import Any

import ape
import pytest
from ape.exceptions import VirtualMachineError
from market import ETHER, NATIVE, Model, Order, Parcel, System, refuses, reverts

CASE = b"\xca" * 32


@pytest.fixture
def court(system: System) -> Any:
    return system.as_contract("MisuseCourt")


@pytest.fixture
def committee(system: System) -> Any:
    return system.as_contract("OracleCommittee")


# ---------------------------------------------------------------- balances


def test_coins_go_in_and_out(system: System) -> None:
    held = system.escrow.balance
    receipt = system.escrow.depositNative(system.buyer, sender=system.stranger, value=100)
    (event,) = receipt.decode_logs(system.escrow.Deposited)
    assert (event.account, event.token, event.amount) == (system.buyer, NATIVE, 100)
    assert (system.free(system.buyer), system.free(system.stranger)) == (100, 0)
    before = system.collaborator.balance
    receipt = system.escrow.withdraw(NATIVE, 60, system.collaborator, sender=system.buyer)
    (event,) = receipt.decode_logs(system.escrow.Withdrawn)
    assert (event.account, event.token, event.to, event.amount) == (
        system.buyer,
        NATIVE,
        system.collaborator,
        60,
    )
    assert system.collaborator.balance == before + 60
    assert system.free(system.buyer) == 40
    assert system.escrow.balance == held + 40


def test_tokens_go_in_and_out(system: System, token: Any) -> None:
    system.escrow.depositToken(token, 100, system.stranger, sender=system.buyer)
    assert system.free(system.stranger, token.address) == 100
    system.escrow.withdraw(token, 100, system.stranger, sender=system.stranger)
    assert token.balanceOf(system.stranger) == 100
    assert token.balanceOf(system.escrow) == 0


def test_nobody_withdraws_what_is_not_his(system: System) -> None:
    system.fund(system.buyer, 100)
    expected = {"account": system.buyer.address, "token": NATIVE, "given": 100, "needed": 101}
    with reverts(system.escrow.BalanceTooSmall, values=expected):
        system.escrow.withdraw(NATIVE, 101, system.buyer, sender=system.buyer)
    with reverts(system.escrow.BalanceTooSmall):
        system.escrow.withdraw(NATIVE, 1, system.stranger, sender=system.stranger)


def test_the_vault_takes_no_stray_coins(system: System) -> None:
    with ape.reverts():
        system.buyer.transfer(system.escrow, 1)


def test_a_receiver_that_refuses_keeps_its_balance(system: System, project: Any) -> None:
    wallet = system.deployer.deploy(project.TestWallet, system.buyer)
    system.fund(system.buyer, 100)
    expected = {"token": NATIVE, "to": wallet.address, "amount": 100}
    with reverts(system.escrow.TransferFailed, values=expected):
        system.escrow.withdraw(NATIVE, 100, wallet, sender=system.buyer)
    assert system.free(system.buyer) == 100


def test_a_withdrawal_cannot_be_reentered(system: System, project: Any) -> None:
    wallet = system.deployer.deploy(project.TestWallet, system.buyer)
    system.escrow.depositNative(wallet, sender=system.buyer, value=100)
    system.escrow.depositNative(system.stranger, sender=system.buyer, value=100)
    wallet.setOpen(True, sender=system.buyer)
    withdraw = system.escrow.withdraw.encode_input(NATIVE, 50, wallet)
    wallet.setOnReceive(withdraw, sender=system.buyer)
    wallet.execute(system.escrow, 0, withdraw, sender=system.buyer)
    assert not wallet.reentered()
    assert (wallet.balance, system.free(wallet)) == (50, 50)


# ---------------------------------------------------------------- tokens


def test_tokens_are_listed_by_the_administrator(system: System, token: Any, project: Any) -> None:
    assert system.escrow.isListed(NATIVE)
    assert system.escrow.isListed(token)
    assert (system.escrow.tokenAt(0), system.escrow.tokenAt(1)) == (NATIVE, token)
    other = system.deployer.deploy(project.PermitToken)
    receipt = system.escrow.listToken(other, True, sender=system.deployer)
    (event,) = receipt.decode_logs(system.escrow.TokenListed)
    assert (event.token, event.index, event.listed) == (other, 2, True)
    receipt = system.escrow.listToken(other, False, sender=system.deployer)
    assert receipt.decode_logs(system.escrow.TokenListed)[0].index == 2
    assert not system.escrow.isListed(other)
    system.escrow.listToken(other, True, sender=system.deployer)
    assert system.escrow.tokenAt(2) == other


def test_only_contracts_are_listed(system: System) -> None:
    for token in (NATIVE, system.stranger):
        with reverts(system.escrow.TokenNotListed):
            system.escrow.listToken(token, True, sender=system.deployer)


def test_unlisted_tokens_are_not_taken(system: System, project: Any) -> None:
    other = system.deployer.deploy(project.PermitToken)
    for token in (other, NATIVE):
        with reverts(system.escrow.TokenNotListed):
            system.escrow.depositToken(token, 0, system.buyer, sender=system.buyer)


def test_a_token_index_fits_its_byte(system: System, project: Any) -> None:
    """The list's length is set to 256 by hand; 255 listings would only be slow."""
    token = system.deployer.deploy(project.PermitToken)
    web3 = ape.chain.provider.web3
    words = {
        slot: int.from_bytes(web3.eth.get_storage_at(system.escrow.address, slot), "big")
        for slot in range(12)
    }
    (slot,) = [slot for slot, word in words.items() if word == 1]  # the list holds the native coin only
    full = ["0x" + (256).to_bytes(32, "big").hex()]
    web3.provider.make_request("anvil_setStorageAt", [system.escrow.address, hex(slot), *full])
    with reverts(system.escrow.TooManyTokens, values={"max": 256}):
        system.escrow.listToken(token, True, sender=system.deployer)


# ---------------------------------------------------------------- stakes


def test_stakes_move_between_balance_and_stake(system: System, committee: Any) -> None:
    system.fund(system.buyer, 100)
    receipt = system.escrow.addStake(system.buyer, 70, sender=committee)
    assert receipt.decode_logs(system.escrow.StakeAdded)[0].amount == 70
    assert (system.free(system.buyer), tuple(system.escrow.stakeOf(system.buyer))) == (30, (70, 0, False))
    receipt = system.escrow.removeStake(system.buyer, 20, sender=committee)
    assert receipt.decode_logs(system.escrow.StakeRemoved)[0].amount == 20
    assert (system.free(system.buyer), tuple(system.escrow.stakeOf(system.buyer))) == (50, (50, 0, False))
    with reverts(system.escrow.BalanceTooSmall):
        system.escrow.addStake(system.buyer, 51, sender=committee)


def test_a_locked_stake_is_neither_removed_nor_slashed(
    system: System, model: Model, order: Order, committee: Any
) -> None:
    system.open(order)
    stake = system.escrow.stakeOf(system.fingerprinter)
    free = stake.staked - stake.locked
    expected = {"account": system.fingerprinter.address, "given": free, "needed": free + 1}
    with reverts(system.escrow.StakeTooSmall, values=expected):
        system.escrow.removeStake(system.fingerprinter, free + 1, sender=committee)
    receipt = system.escrow.slashStake(system.fingerprinter, stake.staked, system.stranger, sender=committee)
    (event,) = receipt.decode_logs(system.escrow.StakeSlashed)
    assert (event.account, event.to, event.amount) == (system.fingerprinter, system.stranger, free)
    assert tuple(system.escrow.stakeOf(system.fingerprinter)) == (stake.locked, stake.locked, True)
    assert system.free(system.stranger) == free
    receipt = system.escrow.slashStake(system.fingerprinter, 1, system.stranger, sender=committee)
    assert receipt.decode_logs(system.escrow.StakeSlashed) == []


# ---------------------------------------------------------------- case bonds


def test_case_bonds_come_from_the_payer_and_go_where_the_court_says(system: System, court: Any) -> None:
    system.fund(system.buyer, 100)
    for amount in (60, 40):
        receipt = system.escrow.lockCaseBond(CASE, system.buyer, amount, sender=court)
        (event,) = receipt.decode_logs(system.escrow.CaseBondLocked)
        assert (event.payer, event.amount) == (system.buyer, amount)
    assert (system.escrow.caseBondOf(CASE), system.free(system.buyer)) == (100, 0)
    with reverts(system.escrow.BalanceTooSmall):
        system.escrow.lockCaseBond(CASE, system.buyer, 1, sender=court)
    receipt = system.escrow.payCaseBond(CASE, system.stranger, 30, sender=court)
    assert receipt.decode_logs(system.escrow.CaseBondPaid)[0].to == system.stranger
    assert (system.escrow.caseBondOf(CASE), system.free(system.stranger)) == (70, 30)
    with reverts(system.escrow.CaseBondTooSmall, values={"given": 70, "needed": 71}):
        system.escrow.payCaseBond(CASE, system.stranger, 71, sender=court)


# ---------------------------------------------------------------- license bonds


@pytest.fixture
def licensed(system: System, order: Order, parcel: Parcel) -> Order:
    """Price 0.1 ether, bond 0.2."""
    system.open(order)
    system.reveal(order, parcel)
    system.escrow.accept(order.as_tuple(), sender=system.buyer)
    return order


def case_end(system: System, order: Order, **changes: Any) -> tuple[Any, ...]:
    """A case that gives nothing back and asks for the whole bond."""
    values: dict[str, Any] = {
        "caseId": CASE,
        "reporter": system.stranger.address,
        "bondBack": 0,
        "licenseId": order.delivery.licenseId,
        "tableBps": 10_000,
        "reporterBps": 1_000,
        "slashedForKind": 0,
        "slashedAll": 0,
        "unhold": False,
    }
    assert set(changes) <= set(values)
    return tuple((values | changes).values())


def test_a_slash_is_split_and_bounded_by_the_bond(
    system: System, model: Model, licensed: Order, court: Any
) -> None:
    """The reporter has a tenth, the owner never more than the price in all, the treasury the rest."""
    escrow, license_id, tenth = system.escrow, licensed.delivery.licenseId, ETHER // 10
    price, bond = licensed.sale.price, licensed.sale.bond
    gross, treasury = system.royalties.gross(model.id, NATIVE), system.free(system.treasury)
    system.fund(system.buyer, 500)
    escrow.lockCaseBond(CASE, system.buyer, 500, sender=court)
    escrow.holdBond(license_id, sender=court)
    end = case_end(system, licensed, tableBps=5_000, bondBack=400, unhold=True)
    assert tenth == bond // 2
    receipt = escrow.enforceCase(end, sender=court)
    (event,) = receipt.decode_logs(escrow.CaseExecuted)
    assert (event.caseId, event.licenseId, event.reporter) == (CASE, license_id, system.stranger)
    assert (event.bondBack, event.slashed, event.left) == (400, tenth, bond - tenth)
    assert (event.toReporter, event.toOwner) == (tenth // 10, tenth - tenth // 10)
    assert system.free(system.stranger) == 400 + tenth // 10
    assert escrow.caseBondOf(CASE) == 100
    owner = tenth - tenth // 10
    assert system.royalties.gross(model.id, NATIVE) == gross + owner
    assert system.free(system.treasury) == treasury
    assert tuple(escrow.bondOf(license_id)) == (bond - tenth, price - owner, 0, 0, 0)
    escrow.enforceCase(case_end(system, licensed, slashedForKind=tenth, slashedAll=tenth), sender=court)
    assert tuple(escrow.bondOf(license_id)) == (0, 0, 0, 0, 0)
    assert system.free(system.stranger) == 400 + bond // 10
    assert system.royalties.gross(model.id, NATIVE) == gross + price
    assert system.free(system.treasury) == treasury + bond - bond // 10 - price
    receipt = escrow.enforceCase(case_end(system, licensed, slashedAll=bond), sender=court)
    (event,) = receipt.decode_logs(escrow.CaseExecuted)
    assert (event.slashed, event.left, event.toReporter, event.toOwner) == (0, 0, 0, 0)


def test_a_bond_in_a_token_is_slashed_in_the_token(
    system: System, model: Model, order: Order, parcel: Parcel, token: Any, court: Any
) -> None:
    paid = order.with_(token=token.address)
    system.buy(paid, parcel)
    escrow, bond, price = system.escrow, paid.sale.bond, paid.sale.price
    system.fund(system.buyer, 500)
    escrow.lockCaseBond(CASE, system.buyer, 500, sender=court)
    native = system.free(system.stranger)
    escrow.enforceCase(case_end(system, paid, bondBack=500), sender=court)
    assert system.free(system.stranger) == native + 500
    assert system.free(system.stranger, token.address) == bond // 10
    assert system.free(system.treasury, token.address) == bond - bond // 10 - price
    assert system.pool(model, token.address) == 2 * price  # of the sale and of the slash


def test_a_reporter_gets_a_tenth_at_most(system: System, licensed: Order, court: Any) -> None:
    end = case_end(system, licensed, reporterBps=9_999)
    system.escrow.enforceCase(end, sender=court)
    assert system.free(system.stranger) == licensed.sale.bond // 10


def test_a_case_gives_back_no_more_than_it_holds(system: System, licensed: Order, court: Any) -> None:
    expected = {"caseId": CASE, "given": 0, "needed": 1}
    with reverts(system.escrow.CaseBondTooSmall, values=expected):
        system.escrow.enforceCase(case_end(system, licensed, bondBack=1), sender=court)


def test_holding_counts_cases_on_bonds_that_are_there(system: System, licensed: Order, court: Any) -> None:
    license_id = licensed.delivery.licenseId
    system.escrow.holdBond(license_id, sender=court)
    assert system.escrow.bondOf(license_id).openCases == 1
    with reverts(system.escrow.BondTooSmall, values={"given": 0, "needed": 1}):
        system.escrow.holdBond(license_id + 1, sender=court)
    system.escrow.enforceCase(case_end(system, licensed, reporterBps=0), sender=court)
    system.escrow.unholdBond(license_id, sender=court)  # works on an empty bond, or the case could not end
    assert system.escrow.bondOf(license_id).openCases == 0
    with pytest.raises(VirtualMachineError, match="0x11"):  # underflow
        system.escrow.unholdBond(license_id, sender=court)


# ---------------------------------------------------------------- peers


def test_royalties_leave_only_what_came_in(system: System, licensed: Order) -> None:
    ledger = system.as_contract("RoyaltyLedger")
    model, price = licensed.delivery.licenseId >> 28, licensed.sale.price
    assert tuple(system.escrow.royaltyOf(model, NATIVE)) == (price, price)
    for other, held in ((model, price), (model + 1, 0)):
        expected = {"modelId": other, "token": NATIVE, "given": held, "needed": price + 1}
        with reverts(system.escrow.RoyaltyTooSmall, values=expected):
            system.escrow.payRoyalty(other, NATIVE, system.stranger, price + 1, sender=ledger)
        with reverts(system.escrow.RoyaltyTooSmall, values=expected):
            system.escrow.passRoyalty(other, model, NATIVE, price + 1, sender=ledger)
    system.escrow.passRoyalty(model, model + 1, NATIVE, 10, sender=ledger)
    assert tuple(system.escrow.royaltyOf(model + 1, NATIVE)) == (0, 10)
    system.escrow.payRoyalty(model, NATIVE, system.stranger, price - 10, sender=ledger)
    assert tuple(system.escrow.royaltyOf(model, NATIVE)) == (price, 0)
    assert system.free(system.stranger) == price - 10


def test_channels_pay_only_what_they_locked(system: System, model: Model) -> None:
    channels = system.as_peer("channels")
    system.fund(system.buyer, 100)
    expected: dict[str, Any] = {"account": system.buyer.address, "given": 100, "needed": 101}
    with reverts(system.escrow.BalanceTooSmall, values=expected):
        system.escrow.lockChannel(system.buyer, NATIVE, 101, sender=channels)
    system.escrow.lockChannel(system.buyer, NATIVE, 100, sender=channels)
    assert (system.free(system.buyer), system.escrow.channelFunds(NATIVE)) == (0, 100)
    before = system.pool(model)
    system.escrow.payChannel(NATIVE, system.stranger, 30, sender=channels)
    system.escrow.payChannelRoyalty(model.id, NATIVE, 50, sender=channels)
    expected = {"token": NATIVE, "given": 20, "needed": 21}
    with reverts(system.escrow.ChannelFundsTooSmall, values=expected):
        system.escrow.payChannel(NATIVE, system.stranger, 21, sender=channels)
    with reverts(system.escrow.ChannelFundsTooSmall, values=expected):
        system.escrow.payChannelRoyalty(model.id, NATIVE, 21, sender=channels)
    assert (system.free(system.stranger), system.pool(model)) == (30, before + 50)
    assert system.escrow.channelFunds(NATIVE) == 20


PEERS = {
    "addStake": ("OracleCommittee",),
    "removeStake": ("OracleCommittee",),
    "slashStake": ("OracleCommittee", "MisuseCourt"),
    "lockCaseBond": ("MisuseCourt",),
    "payCaseBond": ("MisuseCourt",),
    "holdBond": ("MisuseCourt",),
    "unholdBond": ("MisuseCourt",),
    "enforceCase": ("MisuseCourt",),
    "payRoyalty": ("RoyaltyLedger",),
    "passRoyalty": ("RoyaltyLedger",),
    "lockChannel": ("UsageChannel",),
    "payChannel": ("UsageChannel",),
    "payChannelRoyalty": ("UsageChannel",),
}


@pytest.mark.parametrize("function", PEERS)
def test_each_move_belongs_to_its_peers(system: System, function: str) -> None:
    """Tried by everybody else, the administrator and the other contracts included."""
    arguments: dict[str, tuple[Any, ...]] = {
        "addStake": (system.buyer, 1),
        "removeStake": (system.buyer, 1),
        "slashStake": (system.buyer, 1, system.stranger),
        "lockCaseBond": (CASE, system.buyer, 1),
        "payCaseBond": (CASE, system.buyer, 1),
        "holdBond": (1,),
        "unholdBond": (1,),
        "enforceCase": ((CASE, system.stranger, 0, 1, 0, 0, 0, 0, False),),
        "payRoyalty": (1, NATIVE, system.stranger, 1),
        "passRoyalty": (1, 2, NATIVE, 1),
        "lockChannel": (system.buyer, NATIVE, 1),
        "payChannel": (NATIVE, system.stranger, 1),
        "payChannelRoyalty": (1, NATIVE, 1),
    }
    strangers = [system.deployer, system.buyer, system.treasury]
    peers = {system.at[name].address for name in PEERS[function]}
    strangers += [system.as_contract(name) for name, at in system.at.items() if at.address not in peers]
    for sender in strangers:
        with refuses("NotAPeer(address)"):
            getattr(system.escrow, function)(*arguments[function], sender=sender)


def test_nothing_is_withdrawn_to_nobody(system: System, token: Any) -> None:
    system.fund(system.buyer, 5)
    system.escrow.depositToken(token, 5, system.buyer, sender=system.buyer)
    for coin in (NATIVE, token.address):
        for nobody in (NATIVE, system.escrow.address):
            expected = {"token": coin, "to": nobody, "amount": 5}
            with reverts(system.escrow.TransferFailed, values=expected):
                system.escrow.withdraw(coin, 5, nobody, sender=system.buyer)
        assert system.free(system.buyer, coin) == 5
