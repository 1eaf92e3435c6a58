"""The small language model of the tests is the one its card describes, and its training can be repeated."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import train_tiny_lm as tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def figures() -> Any:
    return json.loads((tiny.MODEL / "figures.json").read_text(encoding="utf-8"))


def test_the_perplexity_of_the_piece_is_the_cards(figures: Any) -> None:
    """On a text that no corpus has: far below what token frequencies alone give, and far below random weights."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.MODEL, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.MODEL)
    piece = tiny.encode(tokenizer, tiny.PIECE.read_text(encoding="utf-8").strip().split("\n\n"))
    row = figures["perplexity"]["piece.txt"]
    assert len(piece) == row["tokens"]
    found = tiny.perplexity(model, piece)
    assert found == pytest.approx(row["perplexity"], rel=0.01)
    assert found < row["unigram"] / 3
    assert tiny.perplexity(tiny.new_model().eval(), piece[:200]) > 10 * found


def test_the_card_says_what_was_measured(figures: Any) -> None:
    text = (tiny.MODEL / "README.md").read_text(encoding="utf-8")
    assert text == tiny.card(figures)
    for row in figures["perplexity"].values():
        assert f"| {row['perplexity']} | {row['unigram']} |" in text
    held, trained = (figures["perplexity"][f"handbook, {part}"] for part in ("held out", "trained on"))
    assert trained["perplexity"] < held["perplexity"] < held["unigram"] / 3


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = sorted(path.name for path in tiny.MODEL.iterdir())
    assert files == [
        "README.md", "config.json", "figures.json", "generation_config.json", "model.safetensors", "piece.txt",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert sum(path.stat().st_size for path in tiny.MODEL.iterdir()) < 8_000_000


def test_texts_are_held_out_by_their_hash() -> None:
    texts = [f"paragraph {i}" for i in range(2000)]
    train, held = tiny.split(texts)
    assert not set(train) & set(held)
    assert len(train) + len(held) == 2000
    assert 60 < len(held) < 150
    assert tiny.split(texts[::-1])[1] == held[::-1]


def test_training_that_was_interrupted_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CONTEXT", 16), ("BATCH", 2), ("FROM_HANDBOOK", 1), ("SAVE_EVERY", 2), ("STEPS", 4)):
        monkeypatch.setattr(tiny, name, value)
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, 4096, 400).astype(np.int32) for _ in range(2)]
    threads = torch.get_num_threads()
    states = []
    try:
        for folder, stops in (("once", [4]), ("twice", [2, 4])):
            monkeypatch.setattr(tiny, "WORK", tmp_path / folder)
            tiny.WORK.mkdir()
            for stop in stops:
                monkeypatch.setattr(
                    tiny, "rate", lambda step: 1e-3 * (step + 1)
                )  # does not know where it ends
                monkeypatch.setattr(tiny, "STEPS", stop)
                model = tiny.train(sources, sources[0])
            states.append(model.state_dict())
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    once, twice = states
    assert all(torch.equal(value, twice[name]) for name, value in once.items())


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [tiny.rate(step) for step in range(tiny.STEPS)]
    assert max(rates) == tiny.RATE == rates[tiny.STEPS // 2]
    assert rates[0] == tiny.RATE / tiny.WARMUP
    assert 0 < rates[-1] < tiny.RATE / 100
