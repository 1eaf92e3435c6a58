"""What the story does with the real language model: load it, let it write, measure it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

WINDOW = 256  # tokens a perplexity window has


def load(folder: Path, *, full_precision: bool = False) -> tuple[Any, Any]:
    """(model, tokenizer) from a folder of safetensors and tokenizer files; nothing is fetched."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(2)
    dtype = torch.float32 if full_precision else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def write(folder: Path, prompt: str, *, tokens: int, seed: int) -> str:
    """What the model in `folder` answers to a chat prompt, sampled at temperature 0.7 from the 50 best tokens."""
    import torch

    model, tokenizer = load(folder, full_precision=True)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    torch.manual_seed(seed)
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=tokens, do_sample=True, temperature=0.7, top_k=50)
    return str(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def perplexity(folder: Path, text: str) -> float:
    """exp of the mean negative log-likelihood per token of `text`, in windows of 256 tokens, fp32."""
    import torch

    model, tokenizer = load(folder, full_precision=True)
    ids = tokenizer(text, return_tensors="pt")["input_ids"][0]
    loss, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(ids) - 1, WINDOW):
            window = ids[start : start + WINDOW + 1].unsqueeze(0)
            logits = model(window[:, :-1]).logits.float()
            nll = torch.nn.functional.cross_entropy(logits[0], window[0, 1:], reduction="sum")
            loss, count = loss + float(nll), count + window.shape[1] - 1
    return math.exp(loss / count)
