"""Commands of a model's life: review queue, versions, trace keys, derivatives."""

from __future__ import annotations

import json
import struct
from typing import Any

from test_cli import Shell, make_model
from test_cli import ipfs_node as ipfs_node  # fixtures
from test_cli import zhiyi as zhiyi


def write_plan(zhiyi: Shell, name: str, key: str) -> Any:
    plan = {"tensors": ["mark.*"], "detector_hash": "0x" + "d1" * 32, "trace_key_commit": "0x" + key * 32}
    path = zhiyi.folder / name
    path.write_text(json.dumps(plan))
    return path


def registered_as(zhiyi: Shell, role: str, folder: str, plan: Any, *options: object, code: int = 0) -> Any:
    return zhiyi(
        *(role, "model", "register", zhiyi.folder / folder, "--name", "Tiny", "--plan", plan),
        *("--out", zhiyi.folder / f"{folder}-public", "--no-commit", *options),
        code=code,
    )


def test_versions_keys_and_filings_by_commands(zhiyi: Shell) -> None:
    make_model(zhiyi.folder / "model")
    plan = write_plan(zhiyi, "plan.json", "71")
    filing = ("--compliance", "genai_filing_no=Beijing-42")
    bad = registered_as(zhiyi, "creator", "model", plan, "--compliance", "Filing 1", code=2)
    assert "KEY=TEXT" in bad["error"]["message"]
    model_id = registered_as(zhiyi, "creator", "model", plan, *filing)["model_id"]
    [waiting] = zhiyi("registrar", "model", "queue")
    assert (waiting["model_id"], waiting["is_version"]) == (model_id, False)
    assert (waiting["name"], waiting["outcome"]) == ("Tiny", "pending")
    zhiyi("registrar", "model", "review", model_id, "approve", "--reason", "papers seen")
    [row] = zhiyi("", "model", "reviews", model_id, "--reason", "papers seen")
    registrar = zhiyi("registrar", "keys", "address")["address"]
    assert (row["name"], row["outcome"], row["registrar"]) == ("Tiny", "approved", registrar)
    assert row["reason_fits"]
    [row] = zhiyi("", "model", "reviews", "--reason", "paid me", "--no-metadata")
    assert not row["reason_fits"]
    assert "name" not in row
    ipfs = zhiyi.options.index("--ipfs") + 1
    zhiyi.options[ipfs], kept = "http://127.0.0.1:9", zhiyi.options[ipfs]
    assert zhiyi("", "model", "reviews")[0]["name"] is None
    zhiyi.options[ipfs] = kept

    make_model(zhiyi.folder / "better")
    with (zhiyi.folder / "better" / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(struct.pack("<f", 0.125))
    added = zhiyi(
        *("creator", "model", "add-version", model_id, zhiyi.folder / "better"),
        *("--plan", write_plan(zhiyi, "plan2.json", "72"), "--out", zhiyi.folder / "better-public"),
    )
    [waiting] = zhiyi("registrar", "model", "queue")
    assert (waiting["weights_root"], waiting["is_version"]) == (added["weights_root"], True)
    zhiyi("registrar", "model", "review", model_id, "approve")
    assert zhiyi("", "model", "check", model_id, zhiyi.folder / "better")["same"]
    shown = zhiyi("", "model", "show", model_id)
    assert shown["metadata"]["compliance"] == {"genai_filing_no": "Beijing-42"}
    assert shown["metadata"]["model"]["weights_root"] == added["weights_root"]

    zhiyi("creator", "model", "rotate-key", model_id, "0x" + "73" * 32)
    told = zhiyi("", "model", "history", model_id)
    assert told["versions"][1] == added["weights_root"]
    keys = [(key["commit"][:4], bool(key["until"])) for key in told["trace_keys"]]
    assert keys == [("0x71", True), ("0x72", True), ("0x73", False)]
    assert len(told["preferences"]) == 1
    assert [review["outcome"] for review in told["reviews"]] == ["approved", "approved"]


def test_a_derivative_is_registered_with_its_parents_consent(zhiyi: Shell) -> None:
    make_model(zhiyi.folder / "model")
    plan = write_plan(zhiyi, "plan.json", "71")
    parent = registered_as(zhiyi, "creator", "model", plan)["model_id"]
    zhiyi("registrar", "model", "review", parent, "approve")
    make_model(zhiyi.folder / "child")
    (zhiyi.folder / "child" / "config.json").write_text('{"model_type": "small"}')
    consent = zhiyi.folder / "consent.json"
    buyer = zhiyi("buyer", "keys", "address")["address"]
    # what the derivative's root will be, without asking anybody
    registered_as(zhiyi, "buyer", "child", plan, "--dry-run")
    root = json.loads((zhiyi.folder / "child-public" / "record.json").read_text())["weights_root"]
    zhiyi(
        *("creator", "model", "consent", parent, "--root", root, "--registrant", buyer),
        *("--share", "5%", "--out", consent),
    )
    refused = registered_as(zhiyi, "stranger", "child", plan, "--parent-consent", consent, code=6)
    assert refused["error"]["error_name"] == "ParentNotAgreed"
    child = registered_as(zhiyi, "buyer", "child", plan, "--parent-consent", consent)["model_id"]
    assert zhiyi("", "model", "show", child)["royalties"]["ancestors"] == [{"model_id": parent, "bps": 500}]
    unknown = registered_as(zhiyi, "buyer", "child", plan, "--parent-license", "9/1=5%", code=4)
    assert "model 9" in unknown["error"]["message"]
