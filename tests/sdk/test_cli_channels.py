"""`zhiyi channel` from the deposit to the end."""

from __future__ import annotations

from conftest import DAY, ETHER, Clients, Node
from test_cli import Shell
from test_cli import ipfs_node as ipfs_node  # fixtures
from test_cli import zhiyi as zhiyi
from test_story import bought, register

from zhiyi.types import LicenseTerms


def test_a_channel_is_opened_used_and_closed_by_commands(zhiyi: Shell, clients: Clients, node: Node) -> None:
    model_id, file = register(clients), zhiyi.folder / "voucher.json"
    key = zhiyi("stranger", "keys", "address")["address"]
    made = zhiyi("buyer", "channel", "open", model_id, "--amount", "0.1eth", "--signer", key)
    channel = made["channel_id"]
    assert [row["left"] for row in zhiyi("", "channel", "list")] == [ETHER // 10]
    zhiyi("stranger", "channel", "voucher", channel, "0.04eth", "--out", file)
    checked = zhiyi("", "channel", "check", file, "--owed", "0.03eth")
    assert (checked["ok"], checked["worth_now"]) == (True, 4 * ETHER // 100)
    zhiyi("", "channel", "check", file, "--owed", "0.05eth", code=2)
    zhiyi("creator", "channel", "redeem", file)
    assert zhiyi("", "channel", "show", channel)["redeemed"] == 4 * ETHER // 100
    assert zhiyi("", "channel", "check", file)["worth_now"] == 0
    zhiyi("buyer", "channel", "top-up", channel, "1eth", "--from-balance", code=6)
    zhiyi("buyer", "channel", "top-up", channel, "0.1eth")
    zhiyi("buyer", "channel", "request-close", channel)
    assert zhiyi("buyer", "channel", "close", channel, code=6)["error"]["error_name"] == "TooEarly"
    node.travel(2 * DAY + 1)
    zhiyi("buyer", "channel", "close", channel)
    assert zhiyi("", "channel", "show", channel)["phase"] == "closed"
    assert zhiyi("buyer", "vault", "balance")["free"] == 16 * ETHER // 100


def test_vouchers_are_signed_without_a_node(zhiyi: Shell) -> None:
    zhiyi.options[1] = "http://127.0.0.1:9"
    file = zhiyi.folder / "voucher.json"
    zhiyi("stranger", "channel", "voucher", "0x" + "07" * 32, "7", "--out", file)
    assert "signature" in file.read_text()
    zhiyi("", "channel", "check", file, code=8)


def test_a_channel_to_a_licensee_names_its_holder(zhiyi: Shell, clients: Clients) -> None:
    model_id = register(clients)
    terms = LicenseTerms(commercial=True, onward_bps=1_000)
    license_id = bought(clients, model_id, buyer="buyer2", terms=terms).order.delivery.license_id
    key = zhiyi("stranger", "keys", "address")["address"]
    more = ("--amount", "0.1eth", "--signer", key, "--license", license_id)
    made = zhiyi("buyer", "channel", "open", model_id, *more)
    shown = zhiyi("", "channel", "show", made["channel_id"])
    assert (shown["provider"], shown["onward_bps"]) == (clients["buyer2"].account, 1_000)
    zhiyi("buyer", "channel", "open", model_id + 1, *more, code=2)
