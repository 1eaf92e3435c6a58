"""Commands of what follows a first sale: resale, renewal, sale of the model itself."""

from __future__ import annotations

from typing import Any

from conftest import DAY, ETHER, Node
from test_cli import Shell, agreed, ordered, reveal
from test_cli import ipfs_node as ipfs_node  # fixtures
from test_cli import registered as registered
from test_cli import zhiyi as zhiyi

from zhiyi.types import FIRST_ONWARD


def signed_offer(zhiyi: Shell, role: str, model_id: int, name: str, *options: object) -> Any:
    return zhiyi(
        *(role, "offer", "sign", model_id, "--price", "1eth", "--bond", "2eth", "--use", "ai_inference"),
        *("--license-text", zhiyi.folder / "license.txt", "--out", zhiyi.folder / name, *options),
    )


def settled(zhiyi: Shell, buyer: str, offer: str, *, fingerprint: int, seller: str = "creator") -> int:
    license_id, paths = ordered(zhiyi, buyer, fingerprint=fingerprint, seller=seller, offer_name=offer)
    assert zhiyi(buyer, "order", "check", *agreed(zhiyi, paths, offer))["ok"]
    zhiyi(buyer, "order", "buy", *agreed(zhiyi, paths, offer))
    reveal(zhiyi, license_id)
    zhiyi(buyer, "order", "accept", license_id)
    return license_id


def test_a_license_is_resold_and_renewed_by_commands(
    zhiyi: Shell, registered: dict[str, Any], node: Node
) -> None:
    model_id = registered["model_id"]
    options = ("--onward-share", "10%", "--expires", "+30d")
    said = signed_offer(zhiyi, "creator", model_id, "first.json", "--resale", "--updates", *options)
    assert (said["basis"], said["terms"]["onward_bps"], said["terms"]["updates"]) == ("owner", 1000, True)
    source = settled(zhiyi, "buyer", "first.json", fingerprint=41)

    both = ("--resell", source, "--sublicense-of", source)
    refused = signed_offer_refused(zhiyi, model_id, *both, *options)
    assert "not both" in refused["error"]["message"]
    refused = signed_offer_refused(zhiyi, model_id, "--resell", source)
    assert "beyond the terms" in refused["error"]["message"]
    until = zhiyi("", "license", "show", source)["terms"]["expires_at"]
    within = ("--onward-share", "10%", "--expires", until)
    said = signed_offer(zhiyi, "buyer", model_id, "second.json", "--resell", source, *within)
    assert (said["basis"], said["source"]) == ("resale", source)
    resold = settled(zhiyi, "buyer2", "second.json", fingerprint=FIRST_ONWARD + 42, seller="buyer")
    shown = zhiyi("", "license", "show", source)
    assert (shown["end"], shown["active"], shown["offered_for_resale"]) == ("resold", False, False)
    assert zhiyi("buyer", "vault", "balance")["free"] == ETHER * 9 // 10

    file = zhiyi.folder / "renewal.json"
    more = ("--price", "0.5eth", "--until", "+90d", "--out", file)
    zhiyi("creator", "license", "sign-renewal", resold, *more)
    assert zhiyi("buyer2", "license", "renew", file, "--dry-run")["status"] == "simulated"
    later = zhiyi("buyer2", "license", "renew", file)["expires_at"]
    assert zhiyi("", "license", "show", f"{model_id}/{FIRST_ONWARD + 42}")["terms"]["expires_at"] == later
    assert later >= node.chain.now() + 89 * DAY
    zhiyi("creator", "license", "sign-renewal", resold, *more[:3], "never", *more[4:])
    zhiyi("creator", "license", "cancel-renewal", file)
    assert zhiyi("buyer2", "license", "renew", file, code=6)["error"]["error_name"] == "OrderVoid"


def signed_offer_refused(zhiyi: Shell, model_id: int, *options: object) -> Any:
    return zhiyi(
        *("buyer", "offer", "sign", model_id, "--price", "1eth", "--bond", "2eth", "--use", "ai_inference"),
        *("--license-text", zhiyi.folder / "license.txt", "--out", zhiyi.folder / "bad.json", *options),
        code=2,
    )


def test_a_model_is_sold_by_commands(zhiyi: Shell, registered: dict[str, Any]) -> None:
    model_id, file = registered["model_id"], zhiyi.folder / "sale.json"
    (zhiyi.folder / "contract.txt").write_text("All rights.")
    sell = ("model", "sell", model_id, "--price", "5eth", "--contract", zhiyi.folder / "contract.txt")
    assert zhiyi("creator", *sell, "--out", file)["function"] == "ModelNFT.approve"
    assert "function" not in zhiyi("creator", *sell, "--out", file)  # approved already
    zhiyi("creator", "model", "cancel-sale", file)
    assert zhiyi("buyer2", "model", "buy", file, code=6)["error"]["error_name"] == "OrderVoid"
    zhiyi("creator", *sell, "--out", file, "--valid", "+2d")
    assert zhiyi("buyer2", "model", "buy", file)["price"] == 5 * ETHER
    buyer = zhiyi("buyer2", "keys", "address")["address"]
    assert zhiyi("", "model", "show", model_id, "--no-metadata")["owner"] == buyer
    assert zhiyi("creator", "vault", "balance")["free"] > 0
