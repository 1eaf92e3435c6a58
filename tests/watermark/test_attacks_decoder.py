"""Attacks on marked decoders do what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_lkd import KEY, NET, modulation_of, photo, pictures_of, small_extractor

from zhiyi_watermark.attacks import decoder as attacks
from zhiyi_watermark.attacks import weights
from zhiyi_watermark.errors import SpecError, UnavailableError
from zhiyi_watermark.image_weights import issue, word

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusion import tiny_pipeline

    folder = tmp_path_factory.mktemp("attacks") / "vae"
    tiny_pipeline().vae.save_pretrained(folder)
    return folder


def test_aligned_copies_can_be_averaged(base: Path, tmp_path: Path) -> None:
    """The attacker finds the order, sign and scale of each channel, which is a license's own."""
    modulation = modulation_of(base, size=0.01)
    for license in (1, 2):
        issue(base, tmp_path / f"{license}", modulation, KEY, license)
    attacks.align(tmp_path / "2", tmp_path / "1", tmp_path / "aligned")
    first, second, aligned = (pictures_of(tmp_path / name) for name in ("1", "2", "aligned"))
    assert np.abs(second - aligned).max() < 1e-4 * np.abs(second).max()  # it computes what it did
    attacks.average([tmp_path / "1", tmp_path / "aligned"], tmp_path / "mean")
    attacks.average([tmp_path / "1", tmp_path / "2"], tmp_path / "naive")
    good, bad = pictures_of(tmp_path / "mean"), pictures_of(tmp_path / "naive")
    apart = np.abs(second - first).mean()
    assert np.abs(good - (first + second) / 2).mean() < 0.2 * apart
    assert np.abs(bad - first).mean() > 3 * apart
    with pytest.raises(SpecError, match="at least two"):
        attacks.average([tmp_path / "1"], tmp_path / "one")
    with pytest.raises(SpecError, match="exists"):
        attacks.align(tmp_path / "2", tmp_path / "1", tmp_path / "aligned")


def drawn(step: int, count: int) -> Any:
    return np.stack([photo(100 * step + i, 16, 16) for i in range(count)])


def test_training_starts_where_it_should_and_moves_the_decoder_alone(base: Path) -> None:
    vae = diffusers.AutoencoderKL.from_pretrained(base).eval()
    (one, early), (two, late) = attacks.tuned(vae, drawn, (1, 6), batch=2)
    assert (one, two) == (1, 6)

    def moved(made: Any, part: str) -> float:
        pairs = zip(getattr(made, part).parameters(), getattr(vae, part).parameters(), strict=True)
        return sum(float((a - b).abs().sum()) for a, b in pairs)

    assert moved(late, "decoder") > moved(early, "decoder") > 0
    assert moved(late, "encoder") == 0
    ((_, fresh),) = attacks.tuned(vae, drawn, (1,), batch=2, anew=True, from_copy=True)
    assert moved(fresh, "decoder") > 20 * moved(early, "decoder")
    quiet = dict(
        attacks.tuned(vae, drawn, (6,), batch=2, unsaid=lambda x: 100 * x.mean(dim=(2, 3)), weight=10.0)
    )[6]
    x = torch.from_numpy(drawn(9, 4)).permute(0, 3, 1, 2).float() / 127.5 - 1
    z = vae.encode(x).latent_dist.mode()
    means = [float(m.decode(z).sample.clamp(-1, 1).mean(dim=(2, 3)).abs().mean()) for m in (late, quiet)]
    assert means[1] < means[0]
    for stops in ((), (0,), (3, 2), (2, 2)):
        with pytest.raises(SpecError, match="stops"):
            list(attacks.tuned(vae, drawn, stops))


def test_the_extractors_gradient_unsays_a_picture_and_frames_another() -> None:
    """What one picture says is put into others: the extractor is enough."""
    extractor = small_extractor()
    pictures = np.stack([photo(seed) for seed in range(4)])
    middle = np.median([extractor.logits(p) - extractor.head_bias for p in pictures], axis=0).astype(np.int64)
    extractor = replace(extractor, head_bias=-middle)
    logits = attacks.logits_of(extractor)

    def said(given: Any) -> Any:
        return np.stack([extractor.logits(p) for p in given]) > 0

    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    floats = logits(x).numpy()
    whole = np.stack([extractor.logits(p) for p in pictures]) / extractor.unit
    assert np.corrcoef(floats.ravel(), whole.ravel())[0, 1] > 0.999
    away = attacks.pushed(pictures, logits, 4)
    assert np.abs(away.astype(int) - pictures).max() <= 4
    assert (said(away) == said(pictures)).mean() < 0.5
    wanted = said(pictures[:1])[0]
    others = pictures[1:]
    forged = attacks.pushed(others, logits, 12, towards=(2 * wanted - 1).astype(np.int8))
    assert (said(forged) == wanted).mean() > (said(others) == wanted).mean() + 0.1
    with pytest.raises(SpecError, match="levels 0"):
        attacks.pushed(pictures, logits, 0)
    with pytest.raises(UnavailableError, match="8 bits"):
        attacks.pushed(pictures, logits, 4, towards=word(KEY, 5, 8, NET))


def test_a_convolution_is_rounded_by_output_channels(base: Path, tmp_path: Path) -> None:
    """Not by runs of three weights, which would hardly be a rounding."""
    from safetensors.numpy import load_file

    weights.quantise(base, tmp_path / "q", 4, where=attacks.in_decoder)
    file = "diffusion_pytorch_model.safetensors"
    before, after = load_file(base / file), load_file(tmp_path / "q" / file)
    name = "decoder.conv_in.weight"
    levels = [len(np.unique(row)) for row in after[name].reshape(len(after[name]), -1)]
    assert max(levels) <= 15
    assert np.array_equal(before["encoder.conv_in.weight"], after["encoder.conv_in.weight"])
    assert np.array_equal(before["decoder.conv_in.bias"], after["decoder.conv_in.bias"])
