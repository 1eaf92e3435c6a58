"""MarkLLM 0.1.5 (Pan et al., EMNLP 2024 demo) as a peer; runs in the environment of `make peers`.

    build/peers/markllm/bin/python benchmarks/peers/markllm_peer.py SCORES.json < TEXTS.json

TEXTS.json: {"method": "Unigram" | "SWEET" | "EXP", "texts": [...]}; SCORES.json: {"scores": [...], "p": [...]}, where
larger scores speak for a mark. Parameters are MarkLLM's defaults; p is its own where it has one (EXP), else that of
its z-score.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

from fetch_model import ensure_model


@cache
def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ensure_model())


def load(name: str, delta: float | None, model: Any = None) -> Any:
    """A mark of MarkLLM with its default parameters, and this strength if it has one. Raises ImportError without
    MarkLLM."""
    import markllm
    from markllm.utils.transformers_config import TransformersConfig
    from markllm.watermark.auto_watermark import AutoWatermark

    tokenizer = _tokenizer()
    seen = TransformersConfig(model=model, tokenizer=tokenizer, vocab_size=len(tokenizer), device="cpu")
    defaults = json.loads((Path(markllm.__path__[0]) / "config" / f"{name}.json").read_text())
    if delta is not None:
        defaults["delta"] = delta
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(defaults, file)
        file.flush()
        return AutoWatermark.load(name, file.name, seen)


def processor(name: str, delta: float | None) -> Any:
    """Its logits processor; for EXP, which has none, its sampling rule: the token it takes keeps the whole mass."""
    mark = load(name, delta)
    return Exponential(mark.utils, mark.config.vocab_size) if name == "EXP" else Copied(mark.logits_processor)


class Copied:
    """MarkLLM's processors write into the caller's scores; this one gives them a copy."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(input_ids, scores.clone())
        return out


class Exponential:
    """EXP as a processor: after it there is one token left."""

    def __init__(self, utils: Any, vocabulary: int) -> None:
        self.utils = utils
        self.vocabulary = vocabulary

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        out = torch.full_like(scores, -torch.inf)
        chances = scores.softmax(dim=-1)
        for row, ids in enumerate(input_ids):
            self.utils.seed_rng(ids)
            uniforms = torch.rand(self.vocabulary, generator=self.utils.rng)
            token = int(self.utils.exp_sampling(chances[row : row + 1], uniforms[None])[0, 0])
            out[row, token] = 0.0
        return out


def scored(name: str, texts: list[str]) -> tuple[list[float], list[float]]:
    """MarkLLM's detection of each text: scores and p."""
    from scipy.stats import norm

    model = None
    if name == "SWEET":  # its detector asks the model for every token's entropy
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(ensure_model(), dtype=torch.bfloat16)
    mark = load(name, None, model)
    scores, p = [], []
    for text in texts:
        value = float(mark.detect_watermark(text)["score"])
        scores.append(-value if name == "EXP" else value)
        p.append(value if name == "EXP" else float(norm.sf(value)))
    return scores, p


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = json.load(sys.stdin)
    found_scores, found_p = scored(asked["method"], asked["texts"])
    Path(sys.argv[1]).write_text(json.dumps({"scores": found_scores, "p": found_p}))
