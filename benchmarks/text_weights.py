"""Texts of models whose weights are marked (GSW): the marked copy, and scores, which need the base model.

A score costs a forward and a backward pass over the text, which takes a CPU long. So it is computed in
bf16, as the model is stored, which can only add noise; and scores are made apart (text_bench.py --score), kept in
texts/gsw.json by the text's key, and made again on request.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from text_series import LICENSE, SERIES, GswSeries, Prompts, current, gsw_license
from texts import FOLDER, Store, Text
from zhiyi_watermark.stats import TRACE
from zhiyi_watermark.text_gaussian import METHOD, GswSpec, gradient, law_of, totals
from zhiyi_watermark.text_stream import canonical_text

SCORES: Final = FOLDER / "gsw.json"
OTHERS: Final = range(2, 12)  # innocent licenses that every text is tried with
HELD_OUT: Final = 40  # human texts for the perplexity
HELD_OUT_TOKENS: Final = 500


class GswScore(NamedTuple):
    """What the detector says of one text."""

    log2_p: float  # of the license that wrote it, alone
    innocent: int  # of OTHERS with p < 1e-6


def score_name(text: Text, tokens: int) -> str:
    """Under which the score of a text's first tokens is kept."""
    return f"{text.key} {tokens} {METHOD}"


def read_scores() -> dict[str, Any]:
    """The kept scores by text key, and perplexities by series."""
    known: dict[str, Any] = json.loads(SCORES.read_text()) if SCORES.exists() else {}
    return known


def score_missing(
    store: Store, prompts: Prompts, minutes: float, human: Callable[[int, int], Sequence[str]]
) -> int:
    """Scores kept texts that have no score, until the time is over. human: texts by count and tokens.

    Returns how many are left.
    """
    deadline = time.monotonic() + 60 * minutes
    left = 0
    for series in SERIES.values():
        if not isinstance(series, GswSeries):
            continue
        spec = series.spec(prompts)
        known = read_scores()
        if series.name not in known and current(series, prompts, store):
            grown = ppl_increase(series, prompts, human(HELD_OUT, HELD_OUT_TOKENS))
            known[series.name] = {"ppl_increase": grown}
            SCORES.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n")
            print(f"{series.name}: perplexity of human text grows by {grown:.4f}", flush=True)
        for text in current(series, prompts, store):
            for tokens in series.scored:
                name = score_name(text, tokens)
                if name in known:
                    continue
                if time.monotonic() > deadline:
                    left += 1
                    continue
                known[name] = score(spec, prompts, prompts.text(text.tokens[:tokens]))._asdict()
                SCORES.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n")
                print(
                    f"{series.name} {text.index}, {tokens} tokens: log2 p {known[name]['log2_p']:.1f}",
                    flush=True,
                )
    return left


@cache
def _base(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


def score(spec: GswSpec, prompts: Prompts, text: str) -> GswScore:
    """The detector on a text as found."""
    ids = prompts.tokenizer.encode(canonical_text(text), add_special_tokens=False)
    found = gradient(_base(prompts.folder), [ids], spec)
    own, *others = totals(found, spec, [gsw_license(i) for i in (LICENSE, *OTHERS)]).tolist()
    tail_of, _ = law_of(found)
    hits = [i for i, total in zip(OTHERS, others, strict=True) if tail_of(total).at_most(TRACE)]
    return GswScore(tail_of(own).log2_p, len(hits))


def ppl_increase(series: GswSeries, prompts: Prompts, texts: Sequence[str]) -> float:
    """How much the marked copy's perplexity on human text is above the base's, both in bf16."""
    import torch
    from transformers import AutoModelForCausalLM

    marked = AutoModelForCausalLM.from_pretrained(series.weights(prompts), dtype=torch.bfloat16)
    losses = [[_loss(model, prompts, text) for text in texts] for model in (_base(prompts.folder), marked)]
    return math.expm1(float(np.mean(losses[1]) - np.mean(losses[0])))


def _loss(model: Any, prompts: Prompts, text: str) -> float:
    """Nats a token."""
    import torch

    ids = torch.tensor([prompts.tokenizer.encode(text, add_special_tokens=False)])
    with torch.inference_mode():
        return float(model(input_ids=ids, labels=ids).loss)
