"""Train the small language model that tests run on: tests/models/tiny-lm, a transformers folder under 8 MB.

    python scripts/train_tiny_lm.py              # an hour on one core; resumes from build/tiny-lm
    python scripts/train_tiny_lm.py --evaluate   # only recompute the printed figures of the folder as it is

A Llama of about 2.4 million parameters with tied embeddings and a byte-level BPE of its own, trained on the English
Debian handbook and on the glosses of WordNet (scripts/fetch_corpora.py), because a model of random weights makes every
mark look good: its next token is nearly uniform. One twentieth of the paragraphs and of the glosses, chosen by the
hash of their text, is held out. The same command on the same kind of machine with the same torch makes the same
weights: seeds are fixed, each step draws its windows from its own number, and one thread is used. The committed
folder is what tests use, wherever they run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fetch_corpora import CORPORA, ensure_corpus, paragraphs
from fetch_model import FetchError

ROOT: Final = Path(__file__).resolve().parent.parent
MODEL: Final = ROOT / "tests" / "models" / "tiny-lm"
WORK: Final = ROOT / "build" / "tiny-lm"
PIECE: Final = MODEL / "piece.txt"  # prose written for this project, on the handbook's subject
END: Final = "<|end|>"
PROMPT: Final = "The system"
VOCABULARY: Final = 4096
CONTEXT: Final = 512
SHAPE: Final = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": CONTEXT,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
SEED: Final = 20250101
STEPS: Final = 1500
BATCH: Final = 4  # windows of CONTEXT tokens a step
FROM_HANDBOOK: Final = 2  # of the windows of a step; the rest are glosses
RATE: Final = 2e-3
WARMUP: Final = 100
DECAY: Final = 0.1
SAVE_EVERY: Final = 100

Int32 = npt.NDArray[np.int32]


def _say(text: str) -> None:
    print(text, flush=True)


# --- texts --------------------------------------------------------------------------------------------------


def glosses() -> list[str]:
    """`word, word: what it means; "an example"` for every synset of WordNet, in the order of its files."""
    folder = ensure_corpus(CORPORA["wordnet"])
    out = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):  # the license at the head
                continue
            fields, meaning = line.split(" | ", 1)
            head = fields.split(" ")
            words = [re.sub(r"\(.*\)$", "", head[4 + 2 * i]) for i in range(int(head[3], 16))]
            out.append(f"{', '.join(words).replace('_', ' ')}: {meaning.strip()}")
    return out


def split(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts to train on, and the twentieth held out, by their hash."""
    train: list[str] = []
    held: list[str] = []
    for text in texts:
        (held if hashlib.sha256(text.encode()).digest()[0] * 20 < 256 else train).append(text)
    return train, held


def train_tokenizer(texts: Sequence[str], folder: Path) -> Any:
    """A byte-level BPE with one special token, END, saved as a transformers tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=END, bos_token=END, pad_token=END, model_max_length=CONTEXT
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def encode(tokenizer: Any, texts: Sequence[str]) -> Int32:
    """All texts in a row, END before each.  # (tokens,)"""
    out: list[int] = []
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        out += [tokenizer.eos_token_id, *ids]
    return np.array(out, dtype=np.int32)


# --- training -----------------------------------------------------------------------------------------------


def new_model() -> Any:
    """The model before its first step."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, pad_token_id=None, initializer_range=0.03, **SHAPE
    )  # fmt: skip
    return LlamaForCausalLM(config)  # type: ignore[no-untyped-call]  # transformers


def windows(step: int, sources: Sequence[Int32]) -> npt.NDArray[np.int64]:
    """The windows of one step: a function of its number alone.  # (BATCH, CONTEXT + 1)"""
    rng = np.random.default_rng([SEED, step])
    rows = []
    for i in range(BATCH):
        tokens = sources[0 if i < FROM_HANDBOOK else 1]
        at = int(rng.integers(0, len(tokens) - CONTEXT - 1))
        rows.append(tokens[at : at + CONTEXT + 1])
    return np.stack(rows).astype(np.int64)


def rate(step: int) -> float:
    """Linear warm-up, constant, and a linear way down over the last quarter."""
    return RATE * min(1.0, (step + 1) / WARMUP, (STEPS - step) * 4 / STEPS)


def train(sources: Sequence[Int32], held: Int32) -> Any:
    """The model after STEPS steps; from the last checkpoint under WORK if there is one."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = new_model()
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
        lr=RATE, betas=(0.9, 0.95), fused=True,
    )  # fmt: skip
    saved = WORK / "checkpoint.pt"
    first = 0
    if saved.is_file():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = int(state["step"])
        _say(f"resuming at step {first}")
    started = time.process_time()
    for step in range(first, STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        rows = torch.from_numpy(windows(step, sources))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == STEPS:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, saved.with_suffix(".tmp"))
            os.replace(saved.with_suffix(".tmp"), saved)
            spent = (time.process_time() - started) / (step + 1 - first)
            shown = (
                f", held-out perplexity {perplexity(model, held[: 16 * CONTEXT]):.1f}"
                if (step + 1) % 500 == 0
                else ""
            )
            _say(f"step {step + 1} of {STEPS}: loss {loss.item():.3f}{shown}, {spent:.2f} CPU s a step")
    return model


# --- figures ------------------------------------------------------------------------------------------------


def perplexity(model: Any, tokens: Int32) -> float:
    """exp of the mean -ln p of every token but the first of each window of CONTEXT; windows do not overlap."""
    import torch

    total, count = 0.0, 0
    for at in range(0, len(tokens), CONTEXT):
        row = torch.from_numpy(tokens[at : at + CONTEXT].astype(np.int64))
        if len(row) < 2:
            break
        with torch.no_grad():
            logits = model(row[None]).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum"))
        count += len(row) - 1
    return math.exp(total / count)


def unigram_perplexity(seen: Int32, tokens: Int32) -> float:
    """Of a model that knows only how often each token occurs in `seen`, one added to each count; the same tokens."""
    counts = np.bincount(seen, minlength=VOCABULARY) + 1
    scored = np.concatenate([tokens[at + 1 : at + CONTEXT] for at in range(0, len(tokens), CONTEXT)])
    return float(math.exp(-np.log(counts[scored] / counts.sum()).mean()))


def evaluate(folder: Path, sources: Sequence[Int32], held: Sequence[Int32], tokenizer: Any) -> dict[str, Any]:
    """The figures of the stored weights, computed in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    fresh = new_model().eval()
    piece = encode(tokenizer, PIECE.read_text(encoding="utf-8").strip().split("\n\n"))
    seen = np.concatenate(sources)
    texts = {
        "handbook, trained on": sources[0][: 40 * CONTEXT],
        "handbook, held out": held[0],
        "glosses, trained on": sources[1][: 40 * CONTEXT],
        "glosses, held out": held[1][: 40 * CONTEXT],
        "piece.txt": piece,
    }
    table = {
        name: {
            "tokens": len(tokens),
            "perplexity": round(perplexity(model, tokens), 3),
            "unigram": round(unigram_perplexity(seen, tokens), 1),
            "random_weights": round(perplexity(fresh, tokens[: 4 * CONTEXT]), 1),
        }
        for name, tokens in texts.items()
    }
    return {"parameters": sum(p.numel() for p in model.parameters()), "steps": STEPS, "perplexity": table}


def sample(folder: Path, tokenizer: Any) -> str:
    """Sixty tokens, temperature 1, one seed: what the model sounds like."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(SEED)
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer.encode(PROMPT, add_special_tokens=False)]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=60,
                         eos_token_id=None, pad_token_id=0)  # fmt: skip
    return str(tokenizer.decode(out[0, 1:], skip_special_tokens=False))


def card(figures: dict[str, Any]) -> str:
    """README.md of the folder."""
    handbook, wordnet = CORPORA["debian-handbook"], CORPORA["wordnet"]
    rows = "\n".join(
        f"| {name} | {row['tokens']} | {row['perplexity']} | {row['unigram']} | {row['random_weights']} |"
        for name, row in figures["perplexity"].items()
    )
    made = f"{figures['parameters']:,} parameters ({SHAPE['num_hidden_layers']} layers of width {SHAPE['hidden_size']}"
    return f"""---
license: cc-by-sa-3.0
language: en
library_name: transformers
---
# tiny-lm

Made by `scripts/train_tiny_lm.py`; do not edit. A Llama of {made}, tied
embeddings, context {CONTEXT}) with a byte-level BPE of {VOCABULARY} entries, for the tests of marks: small enough for
continuous integration, yet with the uneven next-token distribution that random weights lack. It knows nothing and is
of no other use.

## Perplexity

In float32, windows of {CONTEXT} tokens that do not overlap, every token but a window's first. Unigram: only the
frequencies of tokens in what was trained on. Random weights: the same model before training.

| text | tokens | perplexity | unigram | random weights |
|---|---|---|---|---|
{rows}

`piece.txt` was written for this project (Apache-2.0) and is in no corpus; a test recomputes its row. What the model
says at temperature 1, one seed:

> {figures["sample"]}

## Trained on

- The Debian Administrator's Handbook in English, by Raphaël Hertzog and Roland Mas: Debian package
  {handbook.package} {handbook.version}; {handbook.license}.
- Glosses of WordNet 3.0, copyright 2006 by Princeton University, all rights reserved: Debian package
  {wordnet.package} {wordnet.version}; WordNet 3.0 license.

Neither text is shipped here. The weights and the tokenizer were derived from them and are offered under CC-BY-SA-3.0,
apart from the project's own license. WordNet is provided "as is", without representations or warranties of any kind;
the name of Princeton University may not be used in advertising.

{STEPS} steps of {BATCH} windows, AdamW, seed {SEED}. One twentieth of the paragraphs and glosses was held out, by the
hash of their text.
"""


def save(model: Any, folder: Path) -> None:
    """bf16 safetensors and configuration."""
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model.to(torch.bfloat16).save_pretrained(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--evaluate", action="store_true", help="only recompute the figures")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        parts = [split(paragraphs("en")), split(glosses())]
    except FetchError as error:
        sys.exit(f"error: {error}")
    WORK.mkdir(parents=True, exist_ok=True)
    if options.evaluate:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(MODEL)
    else:
        # both corpora in the proportion in which they are trained on
        tokenizer = train_tokenizer([*parts[0][0] * 3, *parts[1][0]], WORK)
    sources = [encode(tokenizer, texts) for texts, _ in parts]
    held = [encode(tokenizer, texts) for _, texts in parts]
    _say(
        "tokens to train on and held out: "
        + ", ".join(f"{len(a)} + {len(b)}" for a, b in zip(sources, held, strict=True))
    )
    if not options.evaluate:
        save(train(sources, held[0]), WORK)
        for name in (
            "model.safetensors",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ):
            shutil.copyfile(WORK / name, MODEL / name)
    figures = evaluate(MODEL, sources, held, tokenizer)
    figures["sample"] = " ".join(sample(MODEL, tokenizer).replace("<|end|>", "¶").split())
    (MODEL / "figures.json").write_text(
        json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (MODEL / "README.md").write_text(card(figures), encoding="utf-8")
    for name, row in figures["perplexity"].items():
        _say(f"{name}: {row}")
    size = sum(path.stat().st_size for path in MODEL.iterdir())
    _say(f"{MODEL}: {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
