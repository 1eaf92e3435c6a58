"""What the benchmark of finished pictures does to them with the small image model, and with averages of many.

Regeneration: the whole picture through the model's autoencoder; the same with the means and deviations of a drawn
texture's latent (zhiyi_watermark.attacks.image_model); img2img at strength .3 in tiles of the model's own size. A
reading's name has a hash of the weights and of the attack's code, so that those of another model are never used.

Averaging (Yang et al. 2024, "Can simple averaging defeat modern watermarks?"): all pictures carry ONE message under
one key. The pattern is learned on LEARNED pictures and tried on HARMED others: taken off marked ones, or added to
unmarked ones, which forges. Paired: the learner has the same pictures unmarked; unpaired: half of them marked, of the
other half none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from report import ROOT
from zhiyi_watermark.attacks import image, image_model

Rgb = npt.NDArray[np.uint8]
MODEL: Final = ROOT / "tests" / "models" / "tiny-image"
SIDE: Final = 64  # px of a tile: the model's own
LEARNED: Final = 50
HARMED: Final = 17
AVERAGES: Final = 1  # raised by hand when averages come to make something else


class Regenerated(NamedTuple):
    """An attack with the model."""

    name: str  # in what is kept
    what: str
    run: Callable[[Rgb, int], Rgb]  # picture, seed
    most: int  # photographs


@cache
def pipeline() -> Any:
    """The model."""
    from zhiyi_watermark.model_folder import load_pipeline

    return load_pipeline(MODEL)


def reencoded(picture: Rgb, seed: int) -> Rgb:
    """Through the autoencoder, whole."""
    return image_model.reencode(pipeline(), picture)


def restyled(picture: Rgb, seed: int) -> Rgb:
    """With the style of a drawn texture."""
    from PIL import Image

    from image_data import texture

    height, width = picture.shape[:2]
    drawn = Image.fromarray(texture(np.random.default_rng([0x57, seed])))
    style = np.asarray(drawn.resize((width, height), Image.Resampling.BICUBIC))
    return image_model.transfer_style(pipeline(), picture, style)


def redrawn(picture: Rgb, seed: int) -> Rgb:
    """img2img at strength .3, tile by tile. Sides must be multiples of SIDE."""
    out = np.empty_like(picture)
    for i, (top, left) in enumerate(np.ndindex(picture.shape[0] // SIDE, picture.shape[1] // SIDE)):
        at = np.s_[top * SIDE : (top + 1) * SIDE, left * SIDE : (left + 1) * SIDE]
        out[at] = image_model.img2img(
            pipeline(), np.ascontiguousarray(picture[at]), 0.3, seed=1000 * seed + i
        )
    return out


@cache
def _hash(*parts: str) -> str:
    state = hashlib.sha256(Path(image_model.__file__).read_bytes())
    for part in parts:
        for path in sorted((MODEL / part).iterdir()):
            state.update(path.name.encode() + b"\0" + path.read_bytes())
    return state.hexdigest()[:8]


REGENERATED: Final = {
    "reencode": Regenerated(
        f"reencode {_hash('vae')}", "through the autoencoder of a small model", reencoded, 23
    ),
    "style": Regenerated(f"style {_hash('vae')}", "style of a texture, in the latent", restyled, 23),
    "img2img30": Regenerated(
        f"img2img30 {_hash('vae', 'unet', 'scheduler', 'text_encoder')}",
        f"img2img by a small model, strength .3, in tiles of {SIDE} px",
        redrawn,
        8,
    ),
}
RUN: Final = {one.name: one.run for one in REGENERATED.values()}  # by name in what is kept


# --- averages -----------------------------------------------------------------------------------------------

# what is tried on pictures of the same message: id -> what
AVERAGED: Final = {
    "average5": "less the average difference of 5 others to them unmarked",
    "average20": "less the average difference of 20 others to them unmarked",
    "average50": "less the average difference of 50 others to them unmarked",
    "average25_unpaired": "less the average of 25 others less that of 25 unmarked ones",
    "copied50": "unmarked, with the average difference of 50 others added",
}


def patterns(marked: Sequence[Rgb], plain: Sequence[Rgb]) -> dict[str, npt.NDArray[np.float64]]:
    """What each of AVERAGED takes off; marked, plain: LEARNED pictures, the same ones.  # each (height, width, 3)"""
    half = len(marked) // 2
    return {
        "average5": image.averaged_difference(marked[:5], plain[:5]),
        "average20": image.averaged_difference(marked[:20], plain[:20]),
        "average50": image.averaged_difference(marked, plain),
        "average25_unpaired": image.averaged_difference(marked[:half], plain[half:]),
        "copied50": -image.averaged_difference(marked, plain),
    }


def averaged(name: str, marked: Rgb, plain: Rgb, pattern: npt.NDArray[np.float64]) -> Rgb:
    """One of AVERAGED, of a picture that is not among the learned ones."""
    return image.remove_average(plain if name.startswith("copied") else marked, pattern)
