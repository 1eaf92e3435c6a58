"""The examples of docs/sdk.md run, one after another, against a real node and a real IPFS node."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from conftest import ROOT, Clients, key_of
from eth_account import Account

from zhiyi.ipfs_node import EmbeddedNode

TEXT = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def write_model(folder: Path) -> None:
    header = json.dumps(
        {
            "embed.weight": {"dtype": "U8", "shape": [60_000], "data_offsets": [0, 60_000]},
            "mlp.down_proj.weight": {"dtype": "U8", "shape": [8_000], "data_offsets": [60_000, 68_000]},
        }
    ).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(68_000))


def test_examples_run(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clients.deployment.save("deployment.json")
    Path("owner.json").write_text(
        json.dumps(Account.encrypt(key_of("creator"), "password", kdf="scrypt", iterations=2))
    )
    Path("owner.json").chmod(0o600)
    write_model(Path("model"))
    names: dict[str, object] = {}
    with EmbeddedNode(tmp_path / "ipfs") as ipfs:
        for block in BLOCKS:
            code = block.replace("http://127.0.0.1:8545", clients.node.url)
            code = code.replace("http://127.0.0.1:5001", ipfs.api)
            exec(compile(code, "docs/sdk.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "gas, nothing is sent" in printed
    assert "model 1 in 0x" in printed
    assert "RootAlreadyRegistered 1 These weights are model 1 already" in printed
