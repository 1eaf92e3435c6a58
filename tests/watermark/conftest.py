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


VOCABULARY = 600


@pytest.fixture(scope="session")
def text_model() -> Any:
    """A tiny random Llama that samples under any processor; the prompt is PROMPT of write_text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    made: Any = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]  # transformers
    made.eval()
    with torch.no_grad():
        made.lm_head.weight.mul_(15)  # a random head is nearly flat
    return made


def write_text(
    model: Any, processor: Any, tokens: int = 400, rows: int = 1, seed: int = 1
) -> list[list[int]]:
    """What the model writes after four tokens, top-k 50 at temperature 1, a list of ids for each row."""
    import torch

    torch.manual_seed(seed)
    prompt = torch.tensor([[5, 6, 7, 8]]).expand(rows, -1)
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=True, top_k=50, max_new_tokens=tokens,
        logits_processor=[processor] if processor else [],
    )  # fmt: skip
    written: list[list[int]] = out[:, 4:].tolist()
    return written


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
