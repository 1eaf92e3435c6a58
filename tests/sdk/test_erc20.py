"""Orders paid in an ERC-20 token: by approval and by permit."""

from __future__ import annotations

import json

import pytest
from conftest import MANIFEST, Clients
from eth_abi.abi import encode
from test_story import BOND, PRICE, Purchase, agree, register

from zhiyi.errors import TxReverted
from zhiyi.types import OrderState, keccak


@pytest.fixture
def token(clients: Clients) -> str:
    """A listed token with permits; the buyer holds ten orders' worth."""
    code = json.loads(MANIFEST.read_text())["contractTypes"]["PermitToken"]["deploymentBytecode"]["bytecode"]
    chain = clients["deployer"].chain
    address = str(chain.transact(None, bytes.fromhex(code[2:])).receipt["contractAddress"])
    escrow = clients.deployment.contract("LicenseEscrow")
    chain.send(escrow, "listToken", address, True)
    mint = keccak(b"mint(address,uint256)")[:4]
    chain.transact(
        address, mint + encode(["address", "uint256"], [clients["buyer"].account, 10 * (PRICE + BOND)])
    )
    return address


def order_in(clients: Clients, token: str) -> Purchase:
    return agree(clients, register(clients), token=token)


def test_approval_pays_price_and_bond(clients: Clients, token: str) -> None:
    purchase, buyer = order_in(clients, token), clients["buyer"]
    signed = purchase.signed
    arguments = (signed.order, signed.seller_signature, signed.fingerprinter_signature)
    with pytest.raises(TxReverted):
        buyer.orders.open(*arguments)
    buyer.vault.approve(PRICE + BOND, token=token)
    buyer.orders.open(*arguments)
    clients["fingerprinter"].orders.reveal(signed.order, purchase.key)
    buyer.orders.accept(signed.order)
    royalties = clients["creator"].royalties
    due = royalties.claimable(signed.order.delivery.license_id >> 28, token=token)
    assert sum(due.values()) == PRICE
    royalties.pull_owner(signed.order.delivery.license_id >> 28, token=token)
    clients["creator"].vault.withdraw(due["owner"], token=token)
    assert clients["creator"].vault.token_balance(token=token) == due["owner"]
    assert clients["creator"].vault.balance(token=token) == 0


def test_permit_needs_no_approval(clients: Clients, token: str) -> None:
    purchase, buyer = order_in(clients, token), clients["buyer"]
    signed = purchase.signed
    permit = buyer.vault.sign_permit(PRICE + BOND, token=token, deadline=clients.node.chain.now() + 600)
    buyer.orders.open_with_permit(
        signed.order, signed.seller_signature, signed.fingerprinter_signature, permit
    )
    status = buyer.orders.state(signed.order.delivery.license_id)
    assert status.state == OrderState.OPEN
    assert buyer.vault.token_balance(token=token) == 9 * (PRICE + BOND)


def test_deposit_and_withdraw_a_token(clients: Clients, token: str) -> None:
    buyer = clients["buyer"]
    buyer.vault.approve(7, token=token)
    buyer.vault.deposit(7, token=token)
    assert buyer.vault.balance(token=token) == 7
    buyer.vault.withdraw(7, token=token, to=clients["stranger"].account)
    assert clients["stranger"].vault.token_balance(token=token) == 7
