"""The base package: whoever wrote it, only registered bytes come out."""

from __future__ import annotations

import dataclasses
import secrets
import struct
from pathlib import Path

import pytest
from tiny_model import Registered, make_registered

from zhiyi.delivery import Bundle, DeclaredRange, Interval, range_for_tensors
from zhiyi_oracle import base_tensors
from zhiyi_oracle.base_tensors import MAGIC, BaseTensors, base_intervals, read_base, write_base
from zhiyi_oracle.errors import BadBase
from zhiyi_watermark import weights
from zhiyi_watermark.tensorfile import Checkpoint


@pytest.fixture
def package(registered: Registered, tmp_path: Path) -> Path:
    path = tmp_path / "base"
    write_base(
        registered.folder, registered.bundle, registered.declared, registered.spec, bytes(range(32)), path
    )
    return path


def read(registered: Registered, package: Path, out: Path, **changes: object) -> BaseTensors:
    arguments = {
        "record": registered.record,
        "leaves": registered.tree.leaves,
        **changes,
    }
    return read_base(package, out=out, **arguments)  # type: ignore[arg-type]


def test_the_declared_tensors_come_out_bit_for_bit(
    registered: Registered, package: Path, tmp_path: Path
) -> None:
    base = read(registered, package, tmp_path / "out")
    assert base.committee_key == bytes(range(32))
    with Checkpoint(registered.folder) as before, Checkpoint(base.folder) as after:
        for tensor in registered.spec.tensors:
            assert after.raw(tensor.name) == before.raw(tensor.name)
        assert after.raw("model.embed_tokens.weight") != before.raw("model.embed_tokens.weight")


def test_a_share_is_confirmed_with_the_rebuilt_tensors(
    registered: Registered, package: Path, tmp_path: Path
) -> None:
    seeds = [secrets.token_bytes(32) for _ in range(16)]
    weights.mark(registered.folder, tmp_path / "marked", registered.spec, registered.kit.trace_key, 5, seeds)
    base = read(registered, package, tmp_path / "out")
    found = weights.confirm(tmp_path / "marked", base.folder, registered.spec, 3, seeds[3])
    assert found.decision == "detected"
    assert found.bucket == 40
    assert (
        weights.confirm(tmp_path / "marked", base.folder, registered.spec, 3, seeds[4]).decision
        == "not_detected"
    )
    assert (
        weights.confirm(registered.folder, base.folder, registered.spec, 3, seeds[3]).decision != "detected"
    )


@pytest.mark.parametrize("where", ["first byte", "spec", "manifest", "interval", "chunk", "last byte"])
def test_one_flipped_bit_is_refused(
    registered: Registered, package: Path, tmp_path: Path, where: str
) -> None:
    data = bytearray(package.read_bytes())
    start = len(MAGIC) + 36 + struct.unpack(">I", data[len(MAGIC) + 32 : len(MAGIC) + 36])[0]
    length = struct.unpack(">I", data[start : start + 4])[0]
    place = {
        "first byte": 0,
        "spec": len(MAGIC) + 60,
        "manifest": start + 4 + length // 2,
        "interval": start + 4 + length + 4 + 7,
        "chunk": len(data) // 2,
        "last byte": len(data) - 1,
    }[where]
    data[place] ^= 1
    package.write_bytes(data)
    with pytest.raises(BadBase):
        read(registered, package, tmp_path / "out")


def test_a_cut_or_a_longer_package_is_refused(registered: Registered, package: Path, tmp_path: Path) -> None:
    data = package.read_bytes()
    package.write_bytes(data[:-1])
    with pytest.raises(BadBase, match="ends 1 bytes early"):
        read(registered, package, tmp_path / "cut")
    package.write_bytes(data + b"x")
    with pytest.raises(BadBase, match="bytes follow"):
        read(registered, package, tmp_path / "long")


def test_base_tensors_of_another_model_are_refused(registered: Registered, tmp_path: Path) -> None:
    other = make_registered(tmp_path / "other", seed=8)
    package = tmp_path / "base"
    write_base(other.folder, other.bundle, other.declared, other.spec, bytes(32), package)
    with pytest.raises(BadBase, match="not the registered one"):
        read(registered, package, tmp_path / "out")


def test_leaves_of_another_model_are_refused(registered: Registered, package: Path, tmp_path: Path) -> None:
    leaves = bytearray(registered.tree.leaves)
    leaves[0] ^= 1
    with pytest.raises(BadBase, match="registered root"):
        read(registered, package, tmp_path / "out", leaves=bytes(leaves))
    with pytest.raises(BadBase, match="registered root"):
        read(registered, package, tmp_path / "out2", leaves=registered.tree.leaves[:-32])


def test_a_range_that_was_not_registered_is_refused(registered: Registered, tmp_path: Path) -> None:
    start, end = registered.declared.intervals[0]
    other = DeclaredRange((Interval(start, end - 1), *registered.declared.intervals[1:]), 100_000)
    package = tmp_path / "base"
    write_base(registered.folder, registered.bundle, other, registered.spec, bytes(32), package)
    with pytest.raises(BadBase, match="not the declared range"):
        read(registered, package, tmp_path / "out")


@pytest.mark.parametrize("facts", [b"{}", b"[" * 10_000, b"\xff", b'{"detector":1,"declaredRange":{}}'])
def test_malformed_facts_are_refused(
    registered: Registered, package: Path, tmp_path: Path, facts: bytes
) -> None:
    package.write_bytes(MAGIC + bytes(32) + struct.pack(">I", len(facts)) + facts)
    with pytest.raises(BadBase, match="malformed"):
        read(registered, package, tmp_path / "out")


def test_a_package_that_leaves_out_a_tensor_is_refused(
    registered: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fewer(folder: Path, bundle: Bundle, declared: DeclaredRange) -> tuple[Interval, ...]:
        return base_intervals(folder, bundle, declared)[:-1]

    package = tmp_path / "base"
    monkeypatch.setattr(base_tensors, "base_intervals", fewer)
    write_base(registered.folder, registered.bundle, registered.declared, registered.spec, bytes(32), package)
    monkeypatch.undo()
    with pytest.raises(BadBase, match="missing"):
        read(registered, package, tmp_path / "out")


def test_a_detector_reading_outside_the_range_is_refused(registered: Registered, tmp_path: Path) -> None:
    """A creator may register a spec and a range that do not fit; such a model cannot convict anybody."""
    names = [t.name for t in registered.spec.tensors]
    declared = range_for_tensors(registered.folder, registered.bundle, names[:1], max_change_ppm=100_000)
    package = tmp_path / "base"
    write_base(registered.folder, registered.bundle, declared, registered.spec, bytes(32), package)
    record = registered.record.model_copy(update={"range_hash": declared.hash()})
    with pytest.raises(BadBase, match="outside the declared range"):
        read(registered, package, tmp_path / "out", record=record)


def test_another_detector_is_refused(registered: Registered, tmp_path: Path) -> None:
    other = dataclasses.replace(registered.spec, epsilon=0.03)
    package = tmp_path / "base"
    write_base(registered.folder, registered.bundle, registered.declared, other, bytes(32), package)
    with pytest.raises(BadBase, match="not of the registered one"):
        read(registered, package, tmp_path / "out")
