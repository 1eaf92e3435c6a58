"""The ABI codec refuses what does not fit, and the exported files are those of the sources."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from zhiyi import abi
from zhiyi.errors import BadInput, IntegrityError


def test_exported_files_match_the_sources() -> None:
    script = ROOT / "scripts" / "export_abi.py"
    subprocess.run([sys.executable, str(script), "--solc", "--check"], check=True, timeout=300)


def test_files_say_that_they_are_generated() -> None:
    for name in abi.NAMES:
        content = json.loads((ROOT / "sdk" / "zhiyi" / "abi" / f"{name}.json").read_text())
        assert next(iter(content)) == "_note"
        assert "do not edit" in content["_note"]
        assert content["contract"] == name


def test_unknown_names_are_refused() -> None:
    with pytest.raises(BadInput, match="no ABI"):
        abi.interface("../../secret")
    with pytest.raises(BadInput, match="no function"):
        abi.interface("ModelNFT").function("mint")
    with pytest.raises(BadInput, match="overloaded"):
        abi.interface("ModelNFT").function("safeTransferFrom")
    assert abi.interface("ModelNFT").function("safeTransferFrom(address,address,uint256)")


def test_short_bytes_are_refused_not_padded() -> None:
    entry = abi.interface("EvidenceLog").function("anchor")
    with pytest.raises(BadInput, match="root must be 32 bytes"):
        abi.encode_call(entry, (bytes(32), bytes(31), 1, bytes(32)))
    entry = abi.interface("EvidenceLog").function("verifyLeaf")
    with pytest.raises(BadInput, match=r"path\[1\]"):
        abi.encode_call(entry, (bytes(32), bytes(32), 1, 2, [bytes(32), b"x"]))


@pytest.mark.parametrize(
    "args", [(bytes(32), bytes(32), 2**32, bytes(32)), (bytes(32),), ("a", "b", "c", "d")]
)
def test_arguments_that_do_not_fit_are_refused(args: tuple[object, ...]) -> None:
    with pytest.raises(BadInput):
        abi.encode_call(abi.interface("EvidenceLog").function("anchor"), args)


def test_strings_that_are_no_utf8_are_read_with_replacements() -> None:
    entry = abi.interface("EvidenceLog").event("Commit")
    topics = [abi.topic(entry), bytes(32), bytes(32)]
    for text in (b"\xff\xfe", b"\xed\xa0\x80", b"ok \xf0\x9f"):
        data = (32).to_bytes(32, "big") + len(text).to_bytes(32, "big") + text + bytes(-len(text) % 32)
        found = abi.decode_event(entry, topics, data)["commitData"]
        assert "\ufffd" in found
        found.encode()


def test_logs_that_do_not_fit_are_integrity_errors() -> None:
    entry = abi.interface("EvidenceLog").event("BatchAnchored")
    topics = [abi.topic(entry), bytes(32), bytes(32)]
    with pytest.raises(IntegrityError):
        abi.decode_event(entry, topics[:2], bytes(128))
    with pytest.raises(IntegrityError):
        abi.decode_event(entry, topics, bytes(127))
    found = abi.decode_event(entry, topics, bytes(128))
    assert list(found) == ["recorder", "topic", "root", "leafCount", "cidDigest", "head"]
