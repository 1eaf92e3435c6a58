"""The re-implemented peers of generated pictures: their noise is noise, and their marks are read where they are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from peers.gaussian_shading import GaussianShading
from peers.tree_ring import TreeRing

KEY = bytes(range(32))
SHAPE = (4, 32, 32)


def noised(latent: np.ndarray, part: float, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(latent.shape)
    return (np.sqrt(1 - part**2) * latent + part * drawn).astype(np.float32)


def test_gaussian_shading_reads_its_message_and_no_other_key_does() -> None:
    mark = GaussianShading(KEY, SHAPE)
    assert mark.bits == 64
    assert GaussianShading(KEY, (4, 64, 64)).bits == 256
    message = np.random.default_rng(1).integers(0, 2, 64, dtype=np.uint8)
    rng = np.random.default_rng(2)
    latents = np.stack([mark.latents(message, rng) for _ in range(20)])
    assert kstest(latents[0].reshape(-1), "norm").pvalue > 1e-3
    seen = noised(latents[0], 0.8, 3)
    assert np.array_equal(mark.read(seen), message)
    assert mark.log2_p(mark.read(seen), message) == -64
    assert 12 < int((GaussianShading(bytes(32), SHAPE).read(seen) == message).sum()) < 52
    fixed = np.sign(latents).mean(axis=0)
    assert (np.abs(fixed) == 1).all()  # one pattern in all pictures: what averaging finds
    with pytest.raises(ValueError, match="blocks"):
        GaussianShading(KEY, (4, 30, 32))


def test_tree_rings_are_found_where_they_are_and_nowhere_else() -> None:
    mark = TreeRing(KEY, SHAPE)
    rng = np.random.default_rng(2)
    seen = [noised(mark.latents(rng), 0.5, i) for i in range(20)]
    plain = [rng.standard_normal(SHAPE).astype(np.float32) for _ in range(200)]
    assert np.median([mark.p_value(noise) for noise in seen]) < 1e-3
    assert max(mark.distance(noise) for noise in seen) < min(mark.distance(noise) for noise in plain)
    assert np.mean([mark.p_value(noise) < 0.01 for noise in plain]) < 0.04
    assert TreeRing(KEY, (4, 64, 64)).radius == 10
    turned = [np.rot90(noise, axes=(1, 2)) for noise in seen]
    assert np.mean([mark.distance(noise) for noise in turned]) < np.mean([mark.distance(n) for n in plain])
    with pytest.raises(ValueError, match="square"):
        TreeRing(KEY, (4, 32, 16))
