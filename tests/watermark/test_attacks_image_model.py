"""Attacks that need a model do what their names say on a tiny one, repeat under a seed, and leave the model alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from diffusion import tiny_pipeline

from zhiyi_watermark.attacks import image_model as attacks
from zhiyi_watermark.errors import SpecError

PICTURE = np.random.default_rng(3).integers(60, 180, (32, 32, 3), dtype=np.uint8)
OTHER = np.random.default_rng(4).integers(0, 90, (32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


def test_every_attack_gives_a_picture_again_and_leaves_the_rest_alone(pipeline: Any) -> None:
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    copy = PICTURE.copy()
    for attack in (
        lambda: attacks.reencode(pipeline, PICTURE),
        lambda: attacks.img2img(pipeline, PICTURE, 0.5, seed=1, steps=4),
        lambda: attacks.transfer_style(pipeline, PICTURE, OTHER),
        lambda: attacks.reprompt(pipeline, PICTURE, "owl", steps=2, inversion_steps=2),
        lambda: attacks.imprint(pipeline, OTHER, PICTURE, rounds=2, inversion_steps=2),
    ):
        out = attack()
        assert (out.dtype, out.shape) == (np.uint8, PICTURE.shape)
        assert np.array_equal(out, attack())
    assert np.array_equal(PICTURE, copy)
    assert all(bool((value == before[name]).all()) for name, value in pipeline.unet.state_dict().items())
    assert all(parameter.requires_grad for parameter in pipeline.unet.parameters())


@pytest.mark.parametrize("own_mark", [False, True])
def test_xl_pictures_are_drawn_again_without_another_mark(
    own_mark: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where invisible-watermark is installed, the library marks what its XL pipelines draw, unless it is told."""
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_img2img as library

    monkeypatch.setattr(library, "is_invisible_watermark_available", lambda: own_mark)
    xl = tiny_pipeline(xl=True)
    one, other = (attacks.img2img(xl, PICTURE, 0.5, seed=seed, steps=4) for seed in (1, 2))
    assert one.shape == PICTURE.shape
    assert not np.array_equal(one, other)
    assert np.array_equal(one, attacks.img2img(xl, PICTURE, 0.5, seed=1, steps=4))


def test_no_style_transfer_is_a_reencoding(pipeline: Any) -> None:
    assert np.array_equal(
        attacks.transfer_style(pipeline, PICTURE, OTHER, 0.0), attacks.reencode(pipeline, PICTURE)
    )
    assert not np.array_equal(
        attacks.transfer_style(pipeline, PICTURE, OTHER, 1.0), attacks.reencode(pipeline, PICTURE)
    )


def test_imprinting_brings_the_noise_nearer(pipeline: Any) -> None:
    import torch

    from zhiyi_watermark.image_generated import Inverter, plan

    model = Inverter(pipeline, plan(pipeline))

    def distance(of: Any) -> float:
        with torch.no_grad():
            one, other = (model.invert(latent, 3) for latent in (of, model.encode(attacks._tensor(PICTURE))))
            return float((one - other).square().mean())

    seen: list[Any] = []
    decoded, attacks_decoded = attacks._decoded, "_decoded"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacks, attacks_decoded, lambda p, latent: seen.append(latent) or decoded(p, latent))
        attacks.imprint(pipeline, OTHER, PICTURE, rounds=20, rate=0.01, inversion_steps=3)
    assert distance(seen[0].detach()) < 0.7 * distance(model.encode(attacks._tensor(OTHER)).detach())


def test_what_makes_no_sense_is_refused(pipeline: Any) -> None:
    for wrong in (
        lambda: attacks.img2img(pipeline, PICTURE, 0, seed=1),
        lambda: attacks.img2img(pipeline, PICTURE, 0.1, seed=1, steps=4),
        lambda: attacks.transfer_style(pipeline, PICTURE, OTHER[:16]),
        lambda: attacks.transfer_style(pipeline, PICTURE, OTHER, 2.0),
        lambda: attacks.imprint(pipeline, OTHER[:16], PICTURE),
        lambda: attacks.imprint(pipeline, OTHER, PICTURE, rounds=0),
        lambda: attacks.reencode(pipeline, PICTURE[..., 0]),
        lambda: attacks.reencode(pipeline, PICTURE[:31]),
    ):
        with pytest.raises(SpecError):
            wrong()
