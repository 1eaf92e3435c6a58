"""A small registered bundle, a marked copy of it and its package."""

from __future__ import annotations

import json
import random
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from zhiyi.delivery import (
    Bundle,
    DeclaredRange,
    PreparedCopy,
    Registered,
    Tree,
    native,
    prepare,
    range_for_tensors,
)

KEY = bytes(range(1, 33))
VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "delivery.json"
TENSOR_BYTES = 4000
TENSORS = 20
MARKED = ("t5", "t6", "t15")


@dataclass
class Scene:
    """One delivery on disk."""

    home: Path
    base: Path
    marked: Path
    bundle: Bundle
    tree: Tree
    declared: DeclaredRange
    prepared: PreparedCopy
    registered: Registered

    @property
    def package(self) -> Path:
        return self.prepared.folder


@pytest.fixture(params=["compiled", "python"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test with the compiled loops, where they are built, and without."""
    if request.param == "python":
        monkeypatch.setattr(native, "LIBRARY", None)
    elif native.LIBRARY is None:
        pytest.skip("the compiled loops are not built: python -m zhiyi.delivery")
    return str(request.param)


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(VECTORS.read_text())
    return value


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    base, marked = tmp_path / "base", tmp_path / "marked"
    make_model(base)
    shutil.copytree(base, marked)
    change_tensors(marked, MARKED)
    bundle = Bundle.scan(base)
    tree = Tree(bundle.leaves(base))
    declared = range_for_tensors(base, bundle, MARKED, max_change_ppm=50_000)
    prepared = prepare(marked, base, tree, declared, KEY, tmp_path / "package")
    registered = Registered(tree.root, declared.hash(), tree.leaves, declared)
    return Scene(tmp_path, base, marked, bundle, tree, declared, prepared, registered)


def make_model(folder: Path) -> None:
    """A safetensors file of 20 tensors, a config, a nested and an empty file."""
    noise = random.Random(7)
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(header() + noise.randbytes(TENSORS * TENSOR_BYTES))
    (folder / "config.json").write_text('{"model_type": "toy"}')
    (folder / "sub" / "tokenizer.json").write_bytes(noise.randbytes(3 * 704))
    (folder / "empty.txt").write_bytes(b"")


def header() -> bytes:
    tensors = {
        f"t{k}": {
            "dtype": "F32",
            "shape": [TENSOR_BYTES // 4],
            "data_offsets": [k * TENSOR_BYTES, (k + 1) * TENSOR_BYTES],
        }
        for k in range(TENSORS)
    }
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


def change_tensors(folder: Path, names: tuple[str, ...]) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    for name in names:
        start = len(header()) + int(name[1:]) * TENSOR_BYTES
        for at in range(start, start + TENSOR_BYTES, 7):
            data[at] ^= 1
    path.write_bytes(data)


def flip_bit(path: Path, at: int) -> None:
    """Flip the lowest bit of byte `at`."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
