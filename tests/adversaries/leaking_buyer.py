"""A buyer who hides where a copy came from: tunes it with a real optimizer and saves it anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


def tune_and_resave(
    copy: Path,
    text: str,
    out: Path,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    window: int = 96,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[float]:
    """AdamW on all weights for `steps` windows of `text`, then one bf16 safetensors file; returns the losses."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(copy, local_files_only=True)
    ids = tokenizer(text, return_tensors="pt")["input_ids"][0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    model.train()
    losses = []
    for step in range(steps):
        start = (step * window) % max(1, len(ids) - window)
        batch = ids[start : start + window].unsqueeze(0)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        progress(step + 1, steps)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    shutil.rmtree(out / ".cache", ignore_errors=True)
    return losses
