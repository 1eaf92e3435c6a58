"""Commands whose price is in an ERC-20 token: approval and permit."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Clients
from test_cli import Shell, agreed, ordered, reveal
from test_cli import ipfs_node as ipfs_node  # fixtures
from test_cli import registered as registered
from test_cli import zhiyi as zhiyi
from test_cli_verdicts import seated
from test_erc20 import token as token

PRICE, BOND = 1_000, 2_000


@pytest.fixture
def priced(zhiyi: Shell, registered: dict[str, Any], token: str) -> str:
    """The token; an offer in it lies in token.json."""
    fingerprinter = zhiyi("fingerprinter", "keys", "address")["address"]
    zhiyi(
        *(
            "creator",
            "offer",
            "sign",
            registered["model_id"],
            "--price",
            PRICE,
            "--bond",
            BOND,
            "--token",
            token,
        ),
        *("--use", "ai_inference", "--license-text", zhiyi.folder / "license.txt"),
        *("--fingerprinter", fingerprinter, "--out", zhiyi.folder / "token.json"),
    )
    return token


def test_an_order_is_paid_by_permit(zhiyi: Shell, priced: str, clients: Clients) -> None:
    license_id, paths = ordered(zhiyi, "buyer", fingerprint=51, offer_name="token.json")
    buy = ("order", "buy", *agreed(zhiyi, paths, "token.json"))
    both = zhiyi("buyer", *buy, "--permit", "--approve", code=2)
    assert "not both" in both["error"]["message"]
    refused = zhiyi("buyer", *buy, code=6)
    assert refused["error"]["kind"] == "TxReverted"
    before = clients["buyer"].vault.token_balance(token=priced)
    assert zhiyi("buyer", *buy, "--permit", "--dry-run")["status"] == "simulated"
    assert zhiyi("buyer", *buy, "--permit")["function"] == "LicenseEscrow.openWithPermit"
    assert zhiyi("", "order", "state", license_id)["state"] == "open"
    assert clients["buyer"].vault.token_balance(token=priced) == before - PRICE - BOND


def test_what_is_pulled_in_a_token_can_be_approved(zhiyi: Shell, priced: str, clients: Clients) -> None:
    seated(zhiyi)
    offer, key = zhiyi.folder / "token.json", zhiyi.folder / "fee.key"
    zhiyi("", "keys", "new", "delivery", key, "--unsafe-plain")
    ask = ("order", "request", offer, "--delivery-key", key, "--fee", 50, "--out", zhiyi.folder / "asked")
    assert zhiyi("buyer", *ask, code=6)["error"]["kind"] == "TxReverted"
    assert zhiyi("buyer", *ask, "--approve")["fee"] == 50

    license_id, paths = ordered(zhiyi, "buyer", fingerprint=52, offer_name="token.json")
    assert zhiyi("buyer", "vault", "approve", PRICE + BOND, "--token", priced)["status"] == "mined"
    zhiyi("buyer", "order", "buy", *agreed(zhiyi, paths, "token.json"))
    reveal(zhiyi, license_id)
    before = clients["buyer"].vault.token_balance(token=priced)
    claim = ("order", "range-claim", license_id)
    assert zhiyi("buyer", *claim, code=6)["error"]["kind"] == "TxReverted"
    zhiyi("buyer", *claim, "--approve")
    assert zhiyi("", "order", "state", license_id)["state"] == "range_check"
    assert clients["buyer"].vault.token_balance(token=priced) == before - PRICE // 10


def test_the_chains_coin_needs_no_permit(zhiyi: Shell, registered: dict[str, Any]) -> None:
    _, paths = ordered(zhiyi, "buyer", fingerprint=53)
    refused = zhiyi("buyer", "order", "buy", *agreed(zhiyi, paths), "--permit", code=2)
    assert "needs no permit" in refused["error"]["message"]
    assert zhiyi("buyer", "order", "buy", *agreed(zhiyi, paths), "--approve")["status"] == "mined"
