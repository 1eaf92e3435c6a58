"""Marks of text on causal language models of several architectures, tiny and drawn by chance."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zhiyi_watermark import text_gaussian as gsw
from zhiyi_watermark.payload import Short, user_of
from zhiyi_watermark.tensorfile import Checkpoint
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TINY = Path(__file__).resolve().parents[1] / "models" / "tiny-lm"
KEY = hashlib.sha256(b"a model's key").digest()
KEYS = {license: gsw.license_key(KEY, license) for license in range(20)}
SIZES: dict[str, dict[str, int]] = {
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2},
    "gpt_neox": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
    "qwen2": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "intermediate_size": 128,
    },
    "opt": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 128,
        "word_embed_proj_dim": 64,
    },
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 2},
    "phi3": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "intermediate_size": 128, "pad_token_id": 0,
    },
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2},
}  # fmt: skip


@pytest.fixture(params=SIZES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    shape = transformers.AutoConfig.for_model(request.param, vocab_size=4096, **SIZES[request.param])
    transformers.AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, tmp_path / "model")
    return tmp_path / "model"


def test_a_text_of_any_architecture_is_marked_and_a_copy_too(folder: Path, tmp_path: Path) -> None:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    mark = BinPlus(KEY, BinPlusConfig(delta=3.0))
    prompt = torch.tensor([[5, 6, 7]])
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=True, top_k=50, max_new_tokens=200,
        eos_token_id=None, pad_token_id=0, logits_processor=[mark.processor(Short(7))],
    )  # fmt: skip
    ids = out[0, 3:].tolist()
    found = mark.detect(ids, 50)
    assert (found.decision, found.payload and user_of(found.payload)) == ("detected", 7)

    spec = gsw.plan(folder, epsilon=0.5, top_k=0)
    gsw.mark(folder, tmp_path / "copy", KEYS[7], spec)
    with Checkpoint(folder) as before, Checkpoint(tmp_path / "copy") as after:
        moved = [
            (after.floats(t.name, t.shape) - before.floats(t.name, t.shape)).reshape(-1) for t in spec.tensors
        ]
    assert all(np.all(change != 0) for change in moved)
    # the copy's steps, summed along the base's gradient, are what the detector sums for its license
    gradient = gsw.gradient(model, [ids[:64]], spec)
    signs = np.sign(np.concatenate(moved)).astype(np.int64)
    assert gsw.totals(gradient, spec, [KEYS[7]]).tolist() == [int(signs @ gradient.q.astype(np.int64))]
