"""KGS beside Gaussian Shading and Tree-Ring on pictures that one diffusion model made, under attack.

    python benchmarks/image_model_bench.py --pictures 500                 # docs/benchmarks/image_generated.json, .md
    python benchmarks/image_model_bench.py --pictures 4 --only none,jpeg80  # prints, writes nothing
    python benchmarks/image_model_bench.py --model FOLDER --prompts FILE  # any Stable Diffusion of diffusers; prints

Every picture is drawn four times of one prompt: with each mark and without. All are attacked alike and inverted alike,
as they are (no search for turns and crops). A KGS message counts as read when it is named at global p < 1e-6 among
65,536 users and all 2^28 fingerprint numbers; Gaussian Shading's when 64 known bits match at p < 1e-6, which is the
easier question; Tree-Ring names nobody, and its row is the area under the ROC curve against the unmarked pictures.
The peers are our own re-implementations (benchmarks/peers). 500 pictures want a GPU; on one core a picture and attack
takes about ten seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from peers.gaussian_shading import GaussianShading
from peers.tree_ring import TreeRing
from report import Row, environment, proportion, write

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

from image_data import NAMES  # noqa: E402
from train_image_model import MODEL, load_pipeline  # noqa: E402
from zhiyi_watermark.attacks import image_model  # noqa: E402
from zhiyi_watermark.attacks.image import SUITE  # noqa: E402
from zhiyi_watermark.image_generated import NONCES, Inverter, Kgs, Noise, View, plan  # noqa: E402
from zhiyi_watermark.payload import Long  # noqa: E402
from zhiyi_watermark.pictures import Picture  # noqa: E402

Rgb = npt.NDArray[np.uint8]
Attack = Callable[[Rgb, int], Rgb]
KEY: Final = hashlib.sha256(b"zhiyi generated pictures benchmark").digest()
USERS: Final = 1 << 16
MARKS: Final = ("kgs", "gaussian_shading", "tree_ring", "plain")


def attacks_of(pipeline: Any) -> dict[str, Attack]:
    """The attacks of finished pictures, and those that the model itself is needed for."""
    return {
        **SUITE,
        "reencode": lambda p, s: image_model.reencode(pipeline, p),
        "img2img30": lambda p, s: image_model.img2img(pipeline, p, 0.3, seed=s),
        "img2img50": lambda p, s: image_model.img2img(pipeline, p, 0.5, seed=s),
    }


def measure(pipeline: Any, prompts: list[str], names: list[str], steps: int, guidance: float) -> list[Row]:
    """Rows over all attacks."""
    spec = plan(pipeline)
    mark, model = Kgs(KEY, spec), Inverter(pipeline, spec)
    shading, rings = GaussianShading(KEY, spec.shape), TreeRing(KEY, spec.shape)
    attacks = attacks_of(pipeline)
    rng = np.random.default_rng(1)
    known = rng.integers(0, 2, shading.bits, dtype=np.uint8)
    right: dict[tuple[str, str], list[float]] = defaultdict(list)
    named: dict[tuple[str, str], list[bool]] = defaultdict(list)
    score: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        payload = Long(1_000_003 * number % (1 << 28), 7919 * number % USERS)
        message = np.unpackbits(np.frombuffer(mark.code.message(payload), dtype=np.uint8))
        starts = {
            "kgs": mark.latents([payload], [7 * number % NONCES], rng)[0],
            "gaussian_shading": shading.latents(known, rng),
            "tree_ring": rings.latents(rng),
            "plain": rng.standard_normal(spec.shape, dtype=np.float32),
        }
        drawn = _drawn(pipeline, prompt, np.stack([starts[name] for name in MARKS]), steps, guidance)
        for attack in names:
            attacked = [attacks[attack](picture, number) for picture in drawn]
            noise = dict(zip(MARKS, _inverted(model, attacked), strict=True))
            q = np.clip(np.rint(4 * noise["kgs"]), -15, 15).astype(np.int8)[None]
            seen = Noise(q, (View(),), spec.spec_hash().hex(), Picture(attacked[0]).digest.hex())
            said = mark.verdict([seen], USERS)
            named["kgs", attack].append(said.payload == mark.code.message(payload))
            right["kgs", attack].append(float((mark.bits([seen]) == message).mean()))
            shaded = noise["gaussian_shading"]
            named["gaussian_shading", attack].append(shading.log2_p(shaded, known) < np.log2(1e-6))
            right["gaussian_shading", attack].append(float((shading.read(shaded) == known).mean()))
            for name in ("tree_ring", "plain"):
                score[name, attack].append(rings.distance(noise[name]))
        print(f"{number + 1} / {len(prompts)}: {prompt}", file=sys.stderr, flush=True)
    rows, n = [], len(prompts)
    for attack in names:
        for name in ("kgs", "gaussian_shading"):
            hits = named[name, attack]
            rows.append(
                Row(
                    f"{name}_bits_{attack}",
                    f"{attack}: bits right",
                    float(np.mean(right[name, attack])),
                    "",
                    n,
                )
            )
            rows.append(proportion(f"{name}_tpr_{attack}", f"{attack}: p < 1e-6", sum(hits), len(hits)))
        one, other = np.array(score["tree_ring", attack]), np.array(score["plain", attack])
        area = float((one[:, None] < other).mean() + (one[:, None] == other).mean() / 2)
        rows.append(Row(f"tree_ring_auc_{attack}", f"{attack}: area under the ROC curve", area, "", n))
    return rows


def _drawn(
    pipeline: Any, prompt: str, noise: npt.NDArray[np.float32], steps: int, guidance: float
) -> list[Rgb]:
    import torch

    images = pipeline(
        prompt=[prompt] * len(noise),
        latents=torch.from_numpy(noise).to(pipeline.unet.device, pipeline.unet.dtype),
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="np",
    ).images
    return list(np.rint(np.asarray(images) * 255).astype(np.uint8))


def _inverted(model: Inverter, pictures: list[Rgb]) -> npt.NDArray[np.float32]:
    """Starting noise of pictures of any size, resized to the model's.  # (n, channels, rows, columns)"""
    import torch
    from PIL import Image

    spec = model.spec
    size = spec.columns * spec.cell, spec.rows * spec.cell
    resized = [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p in pictures]
    pixels = torch.from_numpy(np.stack(resized).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    with torch.inference_mode():
        out: npt.NDArray[np.float32] = model.invert(model.encode(pixels), spec.steps).float().cpu().numpy()
    return out


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument(
        "--only", default="", metavar="ATTACK,...", help="these attacks alone; writes nothing"
    )
    parser.add_argument("--model", type=Path, default=MODEL, help="a folder of StableDiffusionPipeline")
    parser.add_argument(
        "--prompts", type=Path, help="a text file of prompts, one a line; else the model's captions"
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=3.0)
    given = parser.parse_args()
    if given.pictures < 1:
        sys.exit(f"error: --pictures {given.pictures} must be at least 1")
    if not (given.model / "model_index.json").is_file():
        sys.exit(f"error: {given.model} holds no pipeline; give a folder with model_index.json")
    pipeline = load_pipeline(given.model)
    captions = given.prompts.read_text(encoding="utf-8").splitlines() if given.prompts else list(NAMES)
    picked = np.random.default_rng(0).integers(0, len(captions), given.pictures).tolist()
    attacks = attacks_of(pipeline)
    names = given.only.split(",") if given.only else list(attacks)
    if unknown := sorted(set(names) - set(attacks)):
        sys.exit(f"error: no attack {', '.join(unknown)}; there are {', '.join(attacks)}")
    rows = measure(pipeline, [captions[i] for i in picked], names, given.steps, given.guidance)
    for row in rows:
        print(f"{row.id:36s} {row.value:.4f} n={row.n}")
    if not given.only and given.model == MODEL and given.prompts is None:
        command = f"python benchmarks/image_model_bench.py --pictures {given.pictures}"
        print(write("image_generated", command, rows, environment=environment()))


if __name__ == "__main__":
    main()
