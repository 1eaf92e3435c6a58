"""The small image model is the one its card describes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import train_image_model as tiny
from fetch_pictures import SEEN
from image_data import NAMES, PHOTO, PHOTOGRAPHS, TEMPLATES, TEXTURE, Source, texture

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny.load_pipeline()


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_folder_is_a_plain_pipeline_that_draws(pipeline: Any) -> None:
    assert type(pipeline).__name__ == "StableDiffusionPipeline"
    assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}
    two = tiny.paint(pipeline, ["fox", "a picture of apple"], [3, 4], steps=2)
    assert two.shape == (2, 64, 64, 3)
    assert two.std() > 10
    again = tiny.paint(pipeline, ["fox", "fox"], [3, 3], steps=2)
    assert np.abs(again[0].astype(int) - two[0]).max() <= 1  # a picture depends on its own seed
    other = tiny.paint(pipeline, ["apple"], [3], steps=2)
    assert np.abs(other[0].astype(int) - two[0]).max() > 1  # and on its prompt


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = [path for path in tiny.MODEL.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".md", ".png"}
    assert sum(path.stat().st_size for path in files) < 20_000_000  # weights, and what is told of them


def test_the_card_says_what_was_measured(pipeline: Any) -> None:
    told, figures, rows = (
        json.loads((tiny.MODEL / name).read_text(encoding="utf-8"))
        for name in (tiny.LOG, "figures.json", "sources.json")
    )
    parts = tiny.parameters(pipeline)
    text = (tiny.MODEL / "README.md").read_text(encoding="utf-8")
    assert text == tiny.card(told, figures, [Source(**row) for row in rows], parts)
    assert figures["drawn_prompts"] == 50
    assert figures["drawn_top5"] >= tiny.TARGET
    assert 0 <= told["unet"]["step"] - told["unet"]["log"][-1][0] < tiny.SAY_EVERY


def test_every_source_has_a_license_and_no_photograph_of_the_benchmarks_was_used() -> None:
    rows = [Source(**row) for row in json.loads((tiny.MODEL / "sources.json").read_text(encoding="utf-8"))]
    assert all(row.what and row.holders and row.package for row in rows)
    assert {row.license for row in rows} <= {"OFL-1.1", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0"}
    used = {row.what.removeprefix("photograph ") for row in rows if row.what.startswith("photograph ")}
    assert used == set(PHOTOGRAPHS["train"]) <= SEEN
    assert set(PHOTOGRAPHS["check"]) <= SEEN - used


def test_the_autoencoder_of_the_folder_keeps_textures(pipeline: Any) -> None:
    rng = np.random.default_rng(7)
    drawn = np.stack([texture(rng) for _ in range(16)])
    assert tiny.psnr(pipeline.vae, drawn) > 28


def test_a_word_is_a_token(pipeline: Any) -> None:
    for captions in ([t.format(n) for t in TEMPLATES for n in NAMES], [PHOTO, TEXTURE, ""]):
        ids = tiny.to_ids(tiny.new_tokenizer(), captions)
        assert torch.equal(ids, tiny.to_ids(pipeline.tokenizer, captions))
        ends = (ids == pipeline.tokenizer.eos_token_id).int().argmax(dim=1)
        assert ends.tolist() == [1 + len(caption.split()) for caption in captions]
