"""The parts of LKD in the repository: what they were trained for, and that a copy made with them is named."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zhiyi_watermark.image_weights import LkdReader, Parts, decoder_config, decoder_hash, issue
from zhiyi_watermark.pictures import Picture

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

MODELS = Path(__file__).resolve().parents[1] / "models"
VAE = MODELS / "tiny-image" / "vae"
PARTS = MODELS / "tiny-image-lkd"
KEY = bytes(range(32))
LICENSE = 4_711
REGISTERED = range(1, 10_001)
PICTURES = 24


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts.load(PARTS)


def decoded(folder: Path, number: int) -> list[Picture]:
    """Textures through the autoencoder of a folder."""
    from diffusers import AutoencoderKL

    from image_data import texture

    vae: Any = AutoencoderKL.from_pretrained(folder).eval()
    shown = np.stack([texture(np.random.default_rng([number, i])) for i in range(PICTURES)])
    pixels = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        made = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    whole = ((made.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Picture(np.ascontiguousarray(rgb)) for rgb in whole]


def test_they_are_of_the_model_beside_them(parts: Parts) -> None:
    assert parts.modulation.base_hash == decoder_hash(VAE)
    assert parts.modulation.config == decoder_config(VAE)
    assert parts.extractor.bits == 64


def test_a_copy_is_named_by_its_pictures_and_no_other_is(parts: Parts, tmp_path: Path) -> None:
    issue(VAE, tmp_path / "vae", parts.modulation, KEY, LICENSE)
    reader = LkdReader(parts.extractor, KEY)
    found = reader.detect_case(decoded(tmp_path / "vae", 1), REGISTERED)
    assert (found.license, found.also) == (LICENSE, ())
    assert reader.detect_case(decoded(VAE, 1), REGISTERED).license is None
    stranger = LkdReader(parts.extractor, bytes(32))
    assert stranger.detect_case(decoded(tmp_path / "vae", 1), REGISTERED).license is None


def test_the_extractor_reads_the_same_integers_everywhere(parts: Parts) -> None:
    """Class B: int8 weights, sums in integers."""
    state = hashlib.sha256()
    for seed in range(4):
        noise = np.random.default_rng(seed).integers(0, 256, (64 + seed, 64, 3), dtype=np.uint8)
        state.update(parts.extractor.read(Picture(noise)).q.tobytes())
    assert state.hexdigest()[:32] == "d227e4e33904c27fdbb1ade394064860"
