"""Attacks on pictures do what their names say, repeat under a seed and leave the caller's pixels alone."""

from __future__ import annotations

import numpy as np
import pytest

from zhiyi_watermark.attacks import image as attacks
from zhiyi_watermark.errors import SpecError

PICTURE = np.random.default_rng(3).integers(60, 180, (64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", attacks.SUITE)
def test_every_attack_is_pure_and_repeats(name: str) -> None:
    before = PICTURE.copy()
    first, again = attacks.SUITE[name](PICTURE, 5), attacks.SUITE[name](PICTURE, 5)
    assert np.array_equal(first, again)
    assert np.array_equal(PICTURE, before)
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert not np.shares_memory(first, PICTURE)
    assert np.array_equal(first, PICTURE) == (name == "none")
    assert (first.shape == PICTURE.shape) == (name not in ("crop50", "crop10"))


def test_seeds_differ() -> None:
    for name in ("noise05", "noise10", "bright_u6", "crop50", "crop10", "drop40"):
        assert not np.array_equal(attacks.SUITE[name](PICTURE, 1), attacks.SUITE[name](PICTURE, 2))


def test_parts_are_as_large_as_said() -> None:
    assert attacks.crop(PICTURE, 0.25).shape == (32, 48, 3)
    assert attacks.resize(PICTURE, 0.5).shape == (32, 48, 3)
    assert (attacks.drop(PICTURE, 0.25) == 0).all(axis=2).mean() == 0.25
    assert attacks.rotate(PICTURE, 90, expand=True).shape == (96, 64, 3)


def test_a_crop_is_a_part_of_the_picture() -> None:
    cut = attacks.crop(PICTURE, 0.5, seed=9)
    rows, columns = cut.shape[:2]
    places = [
        (y, x) for y in range(64 - rows + 1) for x in range(96 - columns + 1)
        if np.array_equal(PICTURE[y : y + rows, x : x + columns], cut)
    ]  # fmt: skip
    assert len(places) == 1


def test_noise_has_its_deviation() -> None:
    flat = np.full((200, 200, 3), 128, dtype=np.uint8)
    assert abs(float(attacks.noise(flat, 0.1).std()) - 25.5) < 0.5


def test_blur_keeps_the_mean_and_takes_the_detail() -> None:
    for size in (None, 8):
        out = attacks.blur(PICTURE, 4.0, size)
        assert abs(float(out.mean()) - float(PICTURE.mean())) < 1
        assert out.std() < PICTURE.std() / 4


def test_color_attacks_go_from_their_centers() -> None:
    gray = attacks.saturation(PICTURE, 0)
    assert int(np.ptp(gray.astype(int), axis=2).max()) == 0
    assert attacks.contrast(PICTURE, 0).std() == 0
    assert np.array_equal(attacks.brightness(PICTURE, 1), PICTURE)
    assert attacks.brightness(PICTURE, 2).max() == 255


def test_averaging_finds_a_fixed_pattern_and_takes_it_off() -> None:
    rng = np.random.default_rng(4)
    pattern = rng.choice([-6, 6], PICTURE.shape)
    plain = [rng.integers(60, 180, PICTURE.shape, dtype=np.uint8) for _ in range(20)]
    marked = [(p + pattern).astype(np.uint8) for p in plain]
    found = attacks.averaged_difference(iter(marked), iter(plain))
    assert np.allclose(found, pattern, atol=1e-9)
    assert np.array_equal(attacks.remove_average(marked[0], found), plain[0])


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in (
        lambda: attacks.jpeg(PICTURE, 0),
        lambda: attacks.jpeg(PICTURE[..., 0], 50),
        lambda: attacks.blur(PICTURE, 0),
        lambda: attacks.noise(PICTURE, 2),
        lambda: attacks.crop(PICTURE, 0),
        lambda: attacks.median(PICTURE, 4),
        lambda: attacks.averaged_difference([], []),
        lambda: attacks.averaged_difference([PICTURE, PICTURE[:5]], [PICTURE]),
        lambda: attacks.remove_average(PICTURE, np.zeros((2, 2, 3))),
    ):
        with pytest.raises(SpecError):
            wrong()
