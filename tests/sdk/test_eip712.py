"""Digests against golden vectors that eth-account's encoder made."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from conftest import ROOT

from zhiyi import eip712
from zhiyi.types import to_bytes

FILE = json.loads((ROOT / "tests" / "vectors" / "eip712.json").read_text())
VECTORS = FILE["vectors"]


def typed(vector: dict[str, Any]) -> eip712.TypedData:
    def raw(value: Any, kind: str) -> Any:
        if kind == "bytes32":
            return to_bytes(value, 32)
        fields = vector["types"].get(kind)
        return {f["name"]: raw(value[f["name"]], f["type"]) for f in fields} if fields else value

    message = raw(vector["message"], vector["primary"])
    return eip712.TypedData(vector["domain"], vector["types"], message)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_digests_are_the_vectors(vector: dict[str, Any]) -> None:
    data = typed(vector)
    assert data.domain_separator() == to_bytes(vector["domain_separator"])
    assert data.struct_hash() == to_bytes(vector["struct_hash"])
    assert data.digest() == to_bytes(vector["digest"])
    eip712.check_signed_by(data, to_bytes(vector["signature"]), FILE["signer"])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_every_field_counts(vector: dict[str, Any]) -> None:
    data, digests = typed(vector), {to_bytes(vector["digest"])}

    def changed(value: Any) -> Any:
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return value - 1 if value else 1
        if isinstance(value, bytes):
            return bytes([value[0] ^ 1]) + value[1:]
        if value.startswith("0x"):
            return "0x" + "77" * 20
        return value + "x"

    count = 1
    for name, value in data.message.items():
        for inner in value if isinstance(value, dict) else (None,):
            message = dict(data.message)
            message[name] = {**value, inner: changed(value[inner])} if inner else changed(value)
            digests.add(data._replace(message=message).digest())
            count += 1
    assert len(digests) == count


def test_vectors_are_up_to_date() -> None:
    script = ROOT / "scripts" / "vectors_eip712.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True, timeout=60)
