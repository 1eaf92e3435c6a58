"""The benchmark of generated pictures gives a row for every mark and attack, from one tiny pipeline."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "watermark"))

from diffusion import tiny_pipeline

import image_model_bench as bench


def test_every_mark_is_measured_under_every_attack() -> None:
    rows = bench.measure(tiny_pipeline(), ["owl"], ["none", "crop50", "reencode"], 2, 1.0)
    ids = [row.id for row in rows]
    for attack in ("none", "crop50", "reencode"):
        for id_ in ("kgs_bits", "kgs_tpr", "gaussian_shading_bits", "gaussian_shading_tpr", "tree_ring_auc"):
            assert ids.count(f"{id_}_{attack}") == 1
    assert len(ids) == 15
    assert all(0 <= row.value <= 1 for row in rows)


def test_attacks_of_the_model_are_offered() -> None:
    assert {"none", "jpeg50", "reencode", "img2img30", "img2img50"} <= set(bench.attacks_of(tiny_pipeline()))
