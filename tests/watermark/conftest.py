"""A small synthetic language model on disk, and what tests do to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[Any]
Writer = Callable[[Path, Mapping[str, Array]], Path]
LAYERS, HIDDEN, INNER = 8, 160, 512


def to_bf16(values: Array) -> Array:
    word = values.astype(np.float32).view(np.uint32)
    return ((word + 0x7FFF + ((word >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(stored: Array) -> npt.NDArray[np.float32]:
    return (stored.astype(np.uint32) << 16).view(np.float32)


def write_tensors(path: Path, tensors: Mapping[str, Array]) -> Path:
    """safetensors by hand: uint16 arrays are stored as BF16."""
    kinds = {"uint16": "BF16", "float16": "F16", "float32": "F32", "int8": "I8"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": kinds[array.dtype.name], "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]
        }  # fmt: skip
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in tensors.values()))
    return path


@pytest.fixture(scope="session")
def base_tensors() -> dict[str, Array]:
    """bf16 tensors of the base model, heavier-tailed than a Gaussian."""
    rng = np.random.default_rng(2024)
    out: dict[str, Array] = {"model.embed_tokens.weight": to_bf16(rng.normal(0, 0.1, (1500, HIDDEN)))}
    for layer in range(LAYERS):
        for name, shape in (
            ("mlp.down_proj", (HIDDEN, INNER)), ("mlp.gate_proj", (INNER, HIDDEN)), ("mlp.up_proj", (INNER, HIDDEN)),
            ("self_attn.o_proj", (HIDDEN, HIDDEN)),
        ):  # fmt: skip
            values = rng.normal(0, 0.05, shape) * (1 + 0.3 * rng.standard_exponential(shape))
            out[f"model.layers.{layer}.{name}.weight"] = to_bf16(values)
        out[f"model.layers.{layer}.input_layernorm.weight"] = to_bf16(np.ones(HIDDEN))
    return out


@pytest.fixture(scope="session")
def base_file(base_tensors: dict[str, Array], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tensors(tmp_path_factory.mktemp("base") / "model.safetensors", base_tensors)
