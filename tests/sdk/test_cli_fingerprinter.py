"""The commands of creator, buyer and the real fingerprinter together: what one writes the other reads."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import DAY, ETHER, Node
from test_cli import Shell, agreed
from test_cli import ipfs_node as ipfs_node  # fixtures
from test_cli import zhiyi as zhiyi

DECLARED = 0.25  # at most, of the bytes


def make_model(folder: Path) -> None:
    """Half-precision weights, 62 MB: the least that the planned marks fit into."""
    rng = np.random.default_rng(7)
    shapes = {"model.embed_tokens.weight": (8192, 2944)}
    shapes |= {f"model.layers.{layer}.mlp.down_proj.weight": (1024, 2344) for layer in range(3)}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as out:
        out.write(len(raw).to_bytes(8, "little") + raw)
        for shape in shapes.values():
            out.write((rng.standard_normal(shape, np.float32) * np.float32(0.02)).astype("<f2").tobytes())
    (folder / "config.json").write_text('{"model_type": "tiny"}')


def test_a_marked_copy_goes_from_creator_to_buyer_by_commands_alone(zhiyi: Shell, node: Node) -> None:
    folder = zhiyi.folder
    model, home = folder / "model", folder / "fingerprinter"
    make_model(model)
    (folder / "license.txt").write_text("Do no harm.")
    zhiyi("", "keys", "new", "trace", folder / "trace.key", "--unsafe-plain")
    plan = ["--out", folder / "plan.json", "--kit", folder / "kit.json"]
    planned = zhiyi("", "fingerprint", "plan", model, "--model-key", folder / "trace.key", *plan)
    assert planned["tensors"]
    registered = zhiyi(
        "creator",
        "model",
        "register",
        model,
        "--name",
        "Tiny",
        "--plan",
        folder / "plan.json",
        "--out",
        folder / "r",
    )
    model_id = registered["model_id"]
    zhiyi("registrar", "model", "review", model_id, "approve")

    zhiyi("fingerprinter", "vault", "deposit", "10eth")
    signer = zhiyi("fingerprinter", "keys", "address")["address"]
    key = ["--encryption-key", "0x" + "ab" * 32]
    zhiyi("fingerprinter", "committee", "join", "fingerprinter", "--signer", signer, *key, "--stake", "10eth")
    zhiyi("", "fingerprint", "init", "--home", home)
    known = ["--kit", folder / "kit.json", "--range", folder / "r" / "range.json", "--home", home]
    zhiyi("fingerprinter", "fingerprint", "add-model", model_id, model, *known)

    offer = folder / "offer.json"
    terms = [
        "--price",
        "1eth",
        "--bond",
        "2eth",
        "--license-text",
        folder / "license.txt",
        "--use",
        "ai_inference",
    ]
    zhiyi("creator", "offer", "sign", model_id, *terms, "--out", offer)
    zhiyi("", "keys", "new", "delivery", folder / "delivery.key", "--unsafe-plain")
    paths = {name: folder / name for name in ("request", "order", "package", "copy")}
    zhiyi(
        "buyer",
        "order",
        "request",
        offer,
        "--delivery-key",
        folder / "delivery.key",
        "--out",
        paths["request"],
    )
    made = zhiyi(
        "fingerprinter",
        "fingerprint",
        "prepare",
        offer,
        paths["request"],
        "--out",
        folder / "prepared",
        "--home",
        home,
    )
    license_id = made["license_id"]
    zhiyi("creator", "order", "draft", offer, paths["request"], folder / "prepared", "--out", paths["order"])
    zhiyi("fingerprinter", "fingerprint", "sign", paths["order"], "--home", home)
    zhiyi(
        *("buyer", "order", "fetch", paths["order"], "--delivery-key", folder / "delivery.key"),
        *("--package", paths["package"]),
    )
    zhiyi("buyer", "order", "buy", *agreed(zhiyi, paths))
    node.mine(3)  # what is paid becomes final
    zhiyi.plain("fingerprinter", "fingerprint", "run", "--once", "--home", home)
    assert zhiyi("", "order", "state", license_id)["state"] == "revealed"
    zhiyi("buyer", "order", "decrypt", license_id, "--package", paths["package"], "--out", paths["copy"])
    original, copy = (np.fromfile(f / "model.safetensors", np.uint8) for f in (model, paths["copy"]))
    changed = np.count_nonzero(original != copy)
    assert 0 < changed < original.size * DECLARED
    node.travel(DAY + 1)
    zhiyi("stranger", "order", "settle", license_id)
    assert zhiyi("", "license", "show", license_id)["bond"]["amount"] == 2 * ETHER


@pytest.mark.parametrize("command", ["fingerprint", "oracle", "provider", "trace"])
def test_commands_of_other_packages_are_loaded_by_name(
    zhiyi: Shell,
    command: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "Usage" in zhiyi.plain("", command, "--help")


def test_an_extra_that_is_missing_is_named(zhiyi: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    absent = EntryPoint("trace", "no_such_package_at_all.cli:app", "zhiyi.commands")
    monkeypatch.setattr("zhiyi.cli.app.plugins", lambda: {"trace": absent})
    missing = zhiyi("", "trace", "file", code=3)
    assert "zhiyi[oracle]" in missing["error"]["message"]
