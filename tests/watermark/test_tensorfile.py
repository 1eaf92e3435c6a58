"""Hostile safetensors files are refused before anything is allocated or followed."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import from_bf16, to_bf16, write_tensors
from safetensors.numpy import save_file

from zhiyi_watermark import tensorfile
from zhiyi_watermark.errors import CarrierError, UnavailableError
from zhiyi_watermark.tensorfile import (
    MAX_HEADER,
    Checkpoint,
    TensorFile,
    from_storage,
    step_storage,
    to_storage,
)


def raw_file(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(low: int, high: int, dtype: str = "F32", shape: list[Any] | None = None) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": shape if shape is not None else [(high - low) // 4],
        "data_offsets": [low, high],
    }


@pytest.mark.parametrize(
    ("header", "data"),
    [
        pytest.param(b"{", b"", id="cut JSON"),
        pytest.param(b"[]", b"", id="no map"),
        pytest.param(b"\xff\xfe", b"", id="not UTF-8"),
        pytest.param(b"[" * 200_000, b"", id="deep JSON"),
        pytest.param(b'{"a":{},"a":{}}', b"", id="a name twice"),
        pytest.param({"a": {"dtype": "F32"}}, b"", id="fields missing"),
        pytest.param({"a": tensor(0, 8) | {"extra": 1}}, bytes(8), id="a field too many"),
        pytest.param({"a": tensor(0, 8, "F31")}, bytes(8), id="unknown dtype"),
        pytest.param({"a": tensor(0, 8, shape=[3])}, bytes(8), id="shape and bytes differ"),
        pytest.param({"a": tensor(0, 8, shape=[-2])}, bytes(8), id="negative dimension"),
        pytest.param({"a": tensor(0, 8, shape=[2.0])}, bytes(8), id="fractional dimension"),
        pytest.param({"a": tensor(0, 8, shape=[True, 2])}, bytes(8), id="boolean dimension"),
        pytest.param({"a": tensor(0, 8, shape=[1] * 9 + [2])}, bytes(8), id="too many dimensions"),
        pytest.param({"a": tensor(0, 0, shape=[1 << 70, 0])}, b"", id="dimension over 2^63"),
        pytest.param({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12), id="overlap"),
        pytest.param({"a": tensor(0, 8), "b": tensor(0, 8)}, bytes(8), id="same bytes twice"),
        pytest.param({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12), id="hole"),
        pytest.param({"a": tensor(8, 0, shape=[0])}, b"", id="backwards"),
        pytest.param({"a": tensor(0, 8)}, bytes(4), id="cut data"),
        pytest.param({"a": tensor(0, 8)}, bytes(12), id="bytes after the end"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, header: Any, data: bytes) -> None:
    with pytest.raises(CarrierError):
        TensorFile(raw_file(tmp_path / "x.safetensors", header, data))


def test_a_number_of_thousands_of_digits_is_refused_in_words_of_ours() -> None:
    assert tensorfile.parsed("[" + "9" * 100 + "]") == [10**100 - 1]
    for digits in (101, 5_000):
        with pytest.raises(ValueError, match=f"a number has {digits} digits, at most 100"):
            tensorfile.parsed("[" + "9" * digits + "]")


@pytest.mark.parametrize("start", ["[", '{"a":', '["\\\\\\"",', '["]",'])
def test_deep_json_is_refused_where_a_library_raised_the_limit_of_recursion(start: str) -> None:
    """Python crashes else. In strings, and beside each other, brackets are as many as you like."""
    text = start * 200_000
    run = "import sys; sys.setrecursionlimit(1 << 20); from zhiyi_watermark.tensorfile import parsed; "
    made = subprocess.run(
        [sys.executable, "-c", run + "parsed(sys.stdin.read())"], input=text, capture_output=True, text=True
    )
    assert made.returncode == 1
    assert made.stderr.endswith("ValueError: it is nested too deep\n")
    levels = tensorfile.MAX_DEPTH
    deepest = "[" * levels + json.dumps(text) + "]" * levels
    assert tensorfile.parsed(deepest) == json.loads(deepest)
    assert tensorfile.parsed("[" + "[]," * 1000 + "[]]") == [[]] * 1001
    with pytest.raises(ValueError, match="too deep"):
        tensorfile.parsed(f"[{deepest}]")
    with pytest.raises(ValueError, match="Unterminated"):
        tensorfile.parsed('["' + '\\"' * 100_000 + "[" * 100)


@pytest.mark.parametrize("length", [MAX_HEADER + 1, 1 << 63, 100])
def test_an_oversized_header_is_refused_unread(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(CarrierError, match="header length"):
        TensorFile(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"")
    with pytest.raises(CarrierError):
        TensorFile(path)


def test_files_of_the_reference_library_are_read(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"a": values, "b": values.astype(np.float16)}, tmp_path / "x.safetensors")
    with Checkpoint(tmp_path / "x.safetensors") as found:
        assert (found.floats("a", (2, 3)) == values.reshape(-1)).all()
        assert (found.floats("b", (2, 3)) == values.reshape(-1)).all()


def test_links_and_double_tensors_in_a_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    outside = write_tensors(tmp_path / "outside.safetensors", {"a": np.ones(4, dtype=np.float32)})
    (folder / "1.safetensors").symlink_to(outside)
    with pytest.raises(CarrierError, match="plain file"):
        Checkpoint(folder)
    (folder / "1.safetensors").unlink()
    for name in "12":
        write_tensors(folder / f"{name}.safetensors", {"a": np.ones(4, dtype=np.float32)})
    with pytest.raises(CarrierError, match="two files"):
        Checkpoint(folder)


def test_missing_and_reshaped_tensors_are_unavailable_not_a_crash(tmp_path: Path) -> None:
    path = write_tensors(
        tmp_path / "x.safetensors", {"a": np.ones(4, dtype=np.float32), "q": np.ones(4, dtype=np.int8)}
    )
    with Checkpoint(path) as found:
        for name, shape in (("b", (4,)), ("a", (2, 2)), ("q", (4,))):
            with pytest.raises(UnavailableError):
                found.floats(name, shape)
    with pytest.raises(UnavailableError):
        Checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_a_step_is_the_neighbouring_value(dtype: str) -> None:
    values = np.array([1.0, -1.0, 0.5, -0.00390625, 2.0, 0.0, -0.0], dtype=np.float32)
    stored = to_storage(values, dtype)
    for up in (True, False):
        moved = from_storage(step_storage(stored, dtype, np.full(len(values), up)), dtype)
        assert ((moved > values) == up).all()
        assert (np.abs(moved - values) <= np.maximum(np.abs(values) / 127, 1e-7)).all()
        back = step_storage(to_storage(moved, dtype), dtype, np.full(len(values), not up))
        assert (from_storage(back, dtype)[:5] == values[:5]).all()


def test_bf16_rounding_is_to_nearest_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -1.00390625, 3.14159], dtype=np.float32)
    assert (to_storage(values, "BF16") == to_bf16(values)).all()
    assert from_bf16(to_storage(values, "BF16")).tolist() == [1.0, 1.0, 1.015625, -1.0, 3.140625]


def test_many_files_need_no_more_open_files_than_one(tmp_path: Path) -> None:
    """Seven hundred tiny shards under a low limit: the limit is the process's, the shards are a stranger's."""
    for number in range(700):
        raw_file(tmp_path / f"{number}.safetensors", {f"t{number}": tensor(0, 4)}, bytes(4))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with Checkpoint(tmp_path) as one, Checkpoint(tmp_path) as other:
            assert one.floats("t699", (1,)).tolist() == other.floats("t0", (1,)).tolist() == [0.0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_tensors_are_counted_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorfile, "MAX_TENSORS", 3)
    for number in range(2):
        header = {f"a{number}": tensor(0, 4), f"b{number}": tensor(4, 8)}
        raw_file(tmp_path / f"{number}.safetensors", header, bytes(8))
    with pytest.raises(CarrierError, match="more than 3 tensors"):
        Checkpoint(tmp_path)


def test_a_file_cut_after_it_was_opened_is_refused_and_only_a_writable_one_changes(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "x.safetensors", {"a": tensor(0, 8)}, bytes(8))
    with TensorFile(path, writable=True) as file:
        file.store(file.entries[0], b"\x00\x00\x80\x3f" * 2)
        assert file.floats(file.entries[0]).tolist() == [1.0, 1.0]
    found = TensorFile(path)
    with pytest.raises(CarrierError, match="not opened for writing"):
        found.store(found.entries[0], bytes(8))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CarrierError, match="shorter"):
        found.floats(found.entries[0])


def test_a_name_that_utf8_cannot_hold_is_refused(tmp_path: Path) -> None:
    text = b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(CarrierError, match="Unicode"):
        TensorFile(path)
