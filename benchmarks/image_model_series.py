"""What the benchmark of generated pictures makes and keeps: pictures, conditions, and what detectors read of each.

Every prompt is drawn four times: with each mark and without. All pictures of a mark carry one message under one key,
those of KGS each with a nonce of its own. A condition is an attack with its parameters; what is kept of each attacked
picture is what its detector needs: KGS's integers (q of every reading, int8), Gaussian Shading's votes, Tree-Ring's
distance. Pictures themselves are kept under build/ alone and drawn again where they are missing.

Sizes in px are those of the papers, for pictures of 512 px a side, times side / 512; `*_px` are the papers' own px. On
64 px a median of 7 is one of .9, which is none: the smallest there is, 3, stands for it; a blur's kernel of 8 x 8 would
be one pixel, so the whole kernel is used. JPEG's blocks of 8 x 8 px and noise a pixel have no size to scale.

20 steps of inversion read, as 50 find hardly more of the noise's signs, and 4 look for turns and crops; in float32,
which bfloat16 would outrun, but differently on each processor. Turns and crops are looked for in pictures that are not
mirrored, half of the views.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from inversions import Item, Origin, Place, Store
from peers.gaussian_shading import GaussianShading
from peers.tree_ring import TreeRing
from report import ROOT
from zhiyi_watermark import image_generated as kgs
from zhiyi_watermark.attacks import image, image_model
from zhiyi_watermark.errors import SpecError, UnavailableError
from zhiyi_watermark.image_generated import Inverter, Kgs, Noise, View
from zhiyi_watermark.payload import Long
from zhiyi_watermark.pictures import Picture

Rgb = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Group = Literal[
    "clean", "solver", "distortion", "pixels", "strength", "regeneration", "style", "averaging", "geometry", "weights",
    "forgery", "features",
]  # fmt: skip

KEY: Final = hashlib.sha256(b"zhiyi generated pictures benchmark").digest()
PAYLOAD: Final = Long(1_000_003, 7919)
MARKS: Final = ("kgs", "gs", "treering", "plain")
ENGINE: Final = 1  # raised by hand when drawing, attacks or inversion come to make something else
BLOCK: Final = 25  # pictures drawn together, and by which the table grows
PAPERS: Final = 512  # px a side of the pictures that the papers' sizes are for
FEATURES: Final = 32
TUNED: Final = {"steps": 40, "rows": 8, "rate": 1e-4}
BUILD: Final = ROOT / "build" / "image_model"
RIVAGAN: Final = ROOT / "build" / "peers" / "pictures" / "bin" / "python"
_SEEDED: Final = frozenset({"noise", "brightness_jitter", "crop", "crop_and_resize", "drop"})


@dataclass(frozen=True)
class Settings:
    """How pictures are drawn and inverted, and how many there are."""

    steps: int = 25  # of drawing
    guidance: float = 3.0
    inversion: int = 20  # steps
    search: int = 4  # steps of the inversions that only the sync pattern is looked for in
    first: int = 100  # pictures that are attacked; averages are over others of them
    clean: int = 500

    def making(self) -> dict[str, Any]:
        """What an item depends on."""
        return {name: value for name, value in asdict(self).items() if name != "clean"}


@dataclass(frozen=True)
class Condition:
    """What is done to a picture before it is read, or to the model that reads it."""

    name: str
    what: str
    group: Group
    run: Callable[..., Rgb] | None = None  # of studio, mark, picture and the parameters
    parameters: Mapping[str, Any] = field(default_factory=dict)
    counts: tuple[int, int, int, int] = (100, 50, 50, 25)  # pictures by MARKS
    wide: bool = False  # whether turns and crops are looked for
    weights: str = ""  # other weights of the model that inverts

    def described(self) -> dict[str, Any]:
        """What an item depends on."""
        function = self.run.__name__ if self.run else ""
        return {
            "name": self.name, "function": function, "parameters": dict(self.parameters),
            "wide": self.wide, "weights": self.weights,
        }  # fmt: skip

    @property
    def slow(self) -> bool:
        """Whether a picture takes many seconds."""
        return self.wide or self.group == "forgery"

    def count(self, mark: str, settings: Settings) -> int:
        """Pictures of a mark."""
        most = settings.clean if self.group in ("clean", "features") else settings.first
        if mark == "reference":
            return most if self.group == "features" else 0
        return min(most, self.counts[MARKS.index(mark)])


class Unit(NamedTuple):
    """Pictures that are made together."""

    condition: Condition
    mark: str
    indices: tuple[int, ...]


# --- the attacks --------------------------------------------------------------------------------------------


def finished(studio: Studio, mark: str, index: int, *, attack: str, **parameters: Any) -> Rgb:
    """One of zhiyi_watermark.attacks.image."""
    more = {"seed": index} if attack in _SEEDED else {}
    out: Rgb = getattr(image, attack)(studio.picture(mark, index), **parameters, **more)
    return out


def reencoded(studio: Studio, mark: str, index: int) -> Rgb:
    """Through the model's own autoencoder."""
    return image_model.reencode(studio.pipeline, studio.picture(mark, index))


def reencoded_elsewhere(studio: Studio, mark: str, index: int) -> Rgb:
    """Through another autoencoder."""
    import torch

    from train_image_model import to_tensor

    vae = other_autoencoder()
    with torch.inference_mode():
        out = vae.decode(vae.encode(to_tensor(studio.picture(mark, index)[None])).latent_dist.mode()).sample
    return _bytes(out[0].permute(1, 2, 0).numpy() / 2 + 0.5)


@cache
def other_autoencoder() -> Any:
    """The project's autoencoder before its first step, of another width: nearly linear, 2 x 2 px to four values."""
    from train_image_model import Plan, new_vae

    return new_vae(Plan(vae_channels=(32, 40))).eval()


def redrawn(studio: Studio, mark: str, index: int, *, strength: float) -> Rgb:
    """img2img by the model itself, without prompt."""
    return image_model.img2img(studio.pipeline, studio.picture(mark, index), strength, seed=index)


def by_dpm_solver(studio: Studio, mark: str, index: int) -> Rgb:
    """Drawn from the same noise by DPM-Solver++ of the second order, in as many steps."""
    from diffusers import DPMSolverMultistepScheduler

    before = studio.pipeline.scheduler
    studio.pipeline.scheduler = DPMSolverMultistepScheduler.from_config(before.config)
    try:
        return studio.drawn([studio.prompt(index)], studio.start(mark, index)[None])[0]
    finally:
        studio.pipeline.scheduler = before


def restyled(studio: Studio, mark: str, index: int) -> Rgb:
    """With the style of an unmarked picture."""
    other = studio.picture("plain", studio.after(index, 1)[0])
    return image_model.transfer_style(studio.pipeline, studio.picture(mark, index), other)


def averaged(studio: Studio, mark: str, index: int, *, pictures: int) -> Rgb:
    """Less the mean difference of so many other marked pictures of the key and unmarked ones of the same prompts."""
    others = studio.after(index, pictures)
    marked, plain = ([studio.picture(which, i) for i in others] for which in (mark, "plain"))
    return image.remove_average(studio.picture(mark, index), image.averaged_difference(marked, plain))


def averaged_noise(studio: Studio, mark: str, index: int, *, pictures: int) -> Rgb:
    """Drawn again from its own noise without what it shares with the mean noise of so many others of the key."""
    z = studio.noise(mark, [index])[0]
    mean = studio.noise(mark, studio.after(index, pictures)).mean(axis=0)
    z = z - float((z * mean).sum() / (mean * mean).sum()) * mean
    return studio.drawn([""], (z / z.std())[None], guidance=1.0)[0]


def forged_by_average(studio: Studio, mark: str, index: int, *, pictures: int) -> Rgb:
    """A new picture of another prompt from the mean noise of so many marked ones, without the key."""
    mean = studio.noise(mark, studio.after(index, pictures)).mean(axis=0)
    return studio.drawn([studio.prompt(studio.after(index, 1)[0])], (mean / mean.std())[None])[0]


def reprompted(studio: Studio, mark: str, index: int) -> Rgb:
    """A new picture of another prompt from the noise of one marked picture, without the key."""
    settings = studio.settings
    return image_model.reprompt(
        studio.pipeline,
        studio.picture(mark, index),
        studio.prompt(studio.after(index, 1)[0]),
        steps=settings.steps,
        guidance=settings.guidance,
        inversion_steps=settings.inversion,
    )


def imprinted(studio: Studio, mark: str, index: int, *, rounds: int, rate: float, steps: int) -> Rgb:
    """An unmarked picture, changed until the model finds a marked one's noise in it."""
    cover = studio.picture("plain", studio.after(index, 1)[0])
    return image_model.imprint(
        studio.pipeline, cover, studio.picture(mark, index), rounds=rounds, rate=rate, inversion_steps=steps
    )


def by_proxy(studio: Studio, mark: str, index: int, *, forger: str, **parameters: Any) -> Rgb:
    """Forged by the named attack with a model like the mark's own: the fine-tuned one. Pictures are of the real one."""
    studio.picture(mark, index)
    studio.picture("plain", studio.after(index, 1)[0])
    with studio.weights("tuned"):
        return FORGERS[forger](studio, mark, index, **parameters)


FORGERS: Final[dict[str, Callable[..., Rgb]]] = {"reprompt": reprompted, "imprint": imprinted}


def stretched(studio: Studio, mark: str, index: int, *, width: float) -> Rgb:
    """The whole height and that part of the width, from a place by seed, stretched to the size before."""
    from PIL import Image

    picture = studio.picture(mark, index)
    rows, columns = picture.shape[:2]
    wide = max(1, round(columns * width))
    left = int(np.random.default_rng([0x57, index]).integers(0, columns - wide + 1))
    cut = Image.fromarray(np.ascontiguousarray(picture[:, left : left + wide]))
    return np.asarray(cut.resize((columns, rows), Image.Resampling.BILINEAR))


def conditions(side: int) -> dict[str, Condition]:
    """All, in the order in which they are made, for pictures of that side in px."""
    scale = side / PAPERS
    median = max(3, 2 * round((7 * scale - 1) / 2) + 1)
    few, wide = (25, 25, 25, 25), (25, 0, 0, 0)

    def image_of(
        name: str, what: str, attack: str, group: Group = "distortion", counts: Any = None, **given: Any
    ) -> Condition:
        more = {"counts": counts} if counts else {}
        return Condition(name, what, group, finished, {"attack": attack, **given}, **more)

    all_ = [
        Condition("none", "as drawn", "clean", counts=(500, 100, 100, 100)),
        Condition("dpm", "drawn by DPM-Solver++", "solver", by_dpm_solver, counts=(50, 25, 25, 25)),
        image_of("jpeg80", "JPEG 80", "jpeg", quality=80),
        image_of("jpeg50", "JPEG 50", "jpeg", quality=50),
        image_of("jpeg25", "JPEG 25", "jpeg", quality=25),
        image_of("blur4", f"Gaussian blur, sigma {4 * scale:g} px (4 at 512)", "blur", sigma=4 * scale),
        image_of("noise05", "Gaussian noise .05", "noise", deviation=0.05),
        image_of("noise10", "Gaussian noise .1", "noise", deviation=0.1),
        image_of("bright15", "brightness 1.5", "brightness", factor=1.5),
        image_of("bright_u6", "brightness U(0, 6)", "brightness_jitter", highest=6.0),
        image_of("saturation15", "saturation 1.5", "saturation", factor=1.5),
        image_of("contrast15", "contrast 1.5", "contrast", factor=1.5),
        image_of("resize50", "resized to 50 % and back", "resize_and_back", factor=0.5),
        image_of("resize30", "resized to 30 % and back", "resize_and_back", factor=0.3),
        image_of("drop40", "40 % of the area black", "drop", area=0.4),
        image_of("flip", "mirrored", "flip"),
        image_of("median7", f"median of {median} x {median} px (7 at 512)", "median", size=median),
        Condition("reencode", "through the model's autoencoder", "regeneration", reencoded),
        Condition("reencode_other", "through another autoencoder", "regeneration", reencoded_elsewhere),
        *(
            Condition(
                f"img2img{round(100 * s)}",
                f"img2img by the model, strength {s:g}",
                "regeneration",
                redrawn,
                {"strength": s},
            )
            for s in (0.1, 0.3, 0.5)
        ),
        *(
            Condition(
                f"average{n}",
                f"less the average of {n} other pictures",
                "averaging",
                averaged,
                {"pictures": n},
                (50, 50, 50, 0),
            )
            for n in (5, 20, 50, 99)
        ),
        Condition(
            "average_noise20",
            "drawn again less the average noise of 20",
            "averaging",
            averaged_noise,
            {"pictures": 20},
            (25, 25, 25, 0),
        ),
        Condition(
            "rotate75",
            "rotated by 75 degrees, searched",
            "geometry",
            finished,
            {"attack": "rotate", "degrees": 75},
            (50, 25, 25, 25),
            wide=True,
        ),
        Condition(
            "cropscale75",
            "cropped to 75 % of the area, resized to the size before, searched",
            "geometry",
            finished,
            {"attack": "crop_and_resize", "area": 0.75},
            (50, 25, 25, 25),
            wide=True,
        ),
        Condition(
            "cropstretch75",
            "75 % of the width, stretched to the size before, not searched",
            "geometry",
            stretched,
            {"width": 0.75},
            (50, 25, 25, 25),
        ),
        Condition(
            "style", "style of another picture, in the latent", "style", restyled, counts=(50, 25, 25, 25)
        ),
        *(
            Condition(f"weights_{name}", f"inverted by {what}", "weights", weights=name, counts=(50, 0, 0, 0))
            for name, what in (
                ("bf16", "weights rounded to bfloat16"),
                ("int8", "weights of int8"),
                ("int4", "weights of int4"),
                ("tuned", "a denoiser fine-tuned on 100 unmarked pictures"),
            )
        ),
        Condition(
            "forged_reprompt",
            "forged: another prompt, noise of one marked picture",
            "forgery",
            reprompted,
            counts=(25, 25, 25, 0),
        ),
        Condition(
            "forged_average20",
            "forged: another prompt, mean noise of 20",
            "forgery",
            forged_by_average,
            {"pictures": 20},
            (25, 25, 25, 0),
        ),
        Condition(
            "forged_imprint",
            "forged: imprinted on an unmarked picture",
            "forgery",
            imprinted,
            {"rounds": 50, "rate": 0.02, "steps": 5},
            (10, 10, 10, 0),
        ),
        Condition(
            "forged_proxy_reprompt",
            "forged with a fine-tuned model: another prompt, noise of one marked picture",
            "forgery",
            by_proxy,
            {"forger": "reprompt"},
            (25, 25, 25, 0),
        ),
        Condition(
            "forged_proxy_imprint",
            "forged with a fine-tuned model: imprinted on an unmarked picture",
            "forgery",
            by_proxy,
            {"forger": "imprint", "rounds": 50, "rate": 0.02, "steps": 5},
            (10, 10, 10, 0),
        ),
        image_of("blur4_px", "Gaussian blur, sigma 4 px", "blur", "pixels", few, sigma=4.0),
        image_of(
            "blur4_8x8_px", "Gaussian blur, sigma 4 px in 8 x 8", "blur", "pixels", few, sigma=4.0, size=8
        ),
        image_of("median7_px", "median of 7 x 7 px", "median", "pixels", few, size=7),
        image_of("jpeg10", "JPEG 10", "jpeg", "strength", few, quality=10),
        image_of("noise20", "Gaussian noise .2", "noise", "strength", few, deviation=0.2),
        image_of("noise40", "Gaussian noise .4", "noise", "strength", few, deviation=0.4),
        image_of("blur8", f"Gaussian blur, sigma {8 * scale:g} px", "blur", "strength", few, sigma=8 * scale),
        image_of(
            "blur16", f"Gaussian blur, sigma {16 * scale:g} px", "blur", "strength", few, sigma=16 * scale
        ),
        Condition(
            "img2img70", "img2img by the model, strength .7", "strength", redrawn, {"strength": 0.7}, few
        ),
        *(
            Condition(name, f"{what}, searched", "geometry", finished, given, wide, wide=True)
            for name, what, given in (
                ("rotate5", "rotated by 5 degrees", {"attack": "rotate", "degrees": 5}),
                ("rotate25", "rotated by 25 degrees", {"attack": "rotate", "degrees": 25}),
                ("crop50", "cropped to 50 % of the area", {"attack": "crop", "area": 0.5}),
            )
        ),
        Condition("features", "features of a random network", "features", counts=(500, 0, 0, 500)),
        Condition("rivagan", "what RivaGAN's decoder gives", "features", counts=(500, 0, 0, 500)),
    ]
    return {condition.name: condition for condition in all_}


def units(all_: Sequence[Condition], settings: Settings) -> Iterator[Unit]:
    """What is to be made, in an order in which every beginning gives a usable table: the first pictures clean, then
    each attack on a quarter, half and all of them, the other clean pictures last."""
    first, last = settings.first, settings.clean
    always = [c for c in all_ if c.group in ("clean", "features")]
    attacks = [c for c in all_ if c.group not in ("clean", "features")]
    yield from _between(always, 0, first, settings)
    low = 0
    for high in sorted({max(1, first // 4), max(1, first // 2), first}):
        yield from _between(attacks, low, high, settings)
        low = high
    yield from _between(always, first, last, settings)


def _between(all_: Sequence[Condition], low: int, high: int, settings: Settings) -> Iterator[Unit]:
    for condition in all_:
        step = 5 if condition.slow else BLOCK
        for at in range(low, high, step):
            for mark in (*MARKS, "reference"):
                end = min(at + step, high, condition.count(mark, settings))
                if at < end:
                    yield Unit(condition, mark, tuple(range(at, end)))


# --- what is made -------------------------------------------------------------------------------------------


class Studio:
    """A pipeline that draws marked pictures, attacks them and reads them."""

    def __init__(
        self,
        pipeline: Any,
        captions: Sequence[str],
        settings: Settings,
        *,
        build: Path = BUILD,
        reference: Callable[[int], Rgb] | None = None,
    ) -> None:
        """reference: real pictures of the kind that the model was trained on, for feature distances."""
        kgs.check_solver(pipeline)
        self.pipeline, self.settings, self._captions = pipeline, settings, captions
        self.spec = kgs.plan(pipeline, steps=settings.inversion, search_steps=settings.search)
        self.kgs, self.reference = Kgs(KEY, self.spec), reference
        self.gs, self.rings = GaussianShading(KEY, self.spec.shape), TreeRing(KEY, self.spec.shape)
        self.message = np.random.default_rng(1).integers(0, 2, self.gs.bits, dtype=np.uint8)
        self._pictures: dict[tuple[str, int], Rgb] = {}
        self._noises: dict[tuple[str, int], Float32] = {}
        self._build = build / self._origin({"drawn": True}, "", 0).key()

    @property
    def side(self) -> int:
        """Of the pictures, px; the shorter."""
        return min(self.spec.rows, self.spec.columns) * self.spec.cell

    @cached_property
    def code(self) -> str:
        """Changes when the marks do: signs of all three, and what KGS keeps of a picture."""
        digest = hashlib.sha256(self.kgs.signs(PAYLOAD, 7).tobytes())
        digest.update(
            self.gs.votes(np.ones(self.spec.shape, dtype=np.float32)).tobytes() + bytes(self.message)
        )
        digest.update(np.sign(np.round(self.rings.pattern().real, 3)).astype(np.int8).tobytes())
        kept = [kgs.NONCES, kgs.SYNC_PART, kgs.UNITS, kgs.LEVELS, kgs.READINGS, kgs.SURE, kgs.FITS, kgs.LATE]
        digest.update(json.dumps(kept).encode())
        return f"engine {ENGINE}, marks {digest.hexdigest()[:16]}"

    def _origin(self, condition: Mapping[str, Any], mark: str, index: int) -> Origin:
        found = self.pipeline.scheduler.config
        solver = {name: found.get(name) for name in ("timestep_spacing", "steps_offset", "prediction_type")}
        made = {**self.settings.making(), "solver": type(self.pipeline.scheduler).__name__, **solver}
        prompts = hashlib.sha256(json.dumps(list(self._captions)).encode()).hexdigest()[:16]
        shape = "x".join(map(str, self.spec.shape))
        return Origin(f"{self.spec.model_hash} {shape}", self.code, made, condition, mark, prompts, index)

    def keys(self, condition: Condition) -> dict[Place, str]:
        """The key of each item that belongs to a condition."""
        described = condition.described()
        return {
            (mark, i): self._origin(described, mark, i).key()
            for mark in (*MARKS, "reference")
            for i in range(condition.count(mark, self.settings))
        }

    def after(self, index: int, count: int) -> list[int]:
        """So many of the other pictures, those that follow."""
        first = self.settings.first
        return [(index + 1 + i) % first for i in range(min(count, first - 1))]

    def prompt(self, index: int) -> str:
        """That a picture is drawn of."""
        drawn = hashlib.sha256(f"prompt {index}".encode()).digest()
        return self._captions[int.from_bytes(drawn[:8], "big") % len(self._captions)]

    # --- pictures

    def start(self, mark: str, index: int) -> Float32:
        """Starting noise."""
        rng = np.random.default_rng([MARKS.index(mark), index])
        if mark == "kgs":
            return self.kgs.latents([PAYLOAD], [7 * index % kgs.NONCES], rng)[0]
        if mark == "gs":
            return self.gs.latents(self.message, rng)
        if mark == "treering":
            return self.rings.latents(rng)
        plain: Float32 = rng.standard_normal(self.spec.shape, dtype=np.float32)
        return plain

    def drawn(self, prompts: Sequence[str], noise: Float32, guidance: float | None = None) -> list[Rgb]:
        """Pictures of the prompts from this noise."""
        import torch

        images = self.pipeline(
            prompt=list(prompts),
            latents=torch.from_numpy(noise).to(self.pipeline.unet.device, self.pipeline.unet.dtype),
            num_inference_steps=self.settings.steps,
            guidance_scale=self.settings.guidance if guidance is None else guidance,
            output_type="np",
        ).images
        return [_bytes(made) for made in np.asarray(images)]

    def picture(self, mark: str, index: int) -> Rgb:
        """A picture before any attack; drawn with its block if it is not there."""
        if (mark, index) not in self._pictures:
            low = index // BLOCK * BLOCK
            end = min(low + BLOCK, max(self.settings.clean, self.settings.first))
            path = self._build / f"{mark}-{low}-{end}.npy"
            if path.exists():
                block = list(np.load(path, allow_pickle=False))
            else:
                block = self.drawn(
                    [self.prompt(i) for i in range(low, end)],
                    np.stack([self.start(mark, i) for i in range(low, end)]),
                )
                _save(path, np.stack(block))
            self._pictures.update({(mark, low + i): made for i, made in enumerate(block)})
        return self._pictures[mark, index]

    # --- reading

    @cached_property
    def model(self) -> Inverter:
        """The pipeline that reads."""
        return Inverter(self.pipeline, self.spec, batch=BLOCK)

    def noise(self, mark: str, indices: Sequence[int]) -> Float32:
        """What inversion finds in pictures before any attack.  # (pictures, channels, rows, columns)"""
        missing = [i for i in indices if (mark, i) not in self._noises]
        found = self.inverted([self.picture(mark, i) for i in missing]) if missing else ()
        self._noises.update({(mark, i): z for i, z in zip(missing, found, strict=True)})
        return np.stack([self._noises[mark, i] for i in indices])

    def inverted(self, pictures: Sequence[Rgb]) -> Float32:
        """Starting noise of pictures of any size, resized to the model's.  # (n, channels, rows, columns)"""
        import torch
        from PIL import Image

        size = self.spec.columns * self.spec.cell, self.spec.rows * self.spec.cell
        resized = [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p in pictures]
        pixels = torch.from_numpy(np.stack(resized).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
        out = []
        with torch.inference_mode():
            for part in torch.split(pixels, BLOCK):
                out.append(self.model.invert(self.model.encode(part), self.spec.steps).float().cpu().numpy())
        return np.concatenate(out)

    def make(self, unit: Unit) -> list[Item]:
        """The items of a unit. Raises UnavailableError on features that can't be had here."""
        condition, mark = unit.condition, unit.mark
        if mark == "reference":
            assert self.reference is not None
            pictures = [self.reference(i) for i in unit.indices]
        else:
            run = condition.run or Studio.picture
            pictures = [run(self, mark, i, **condition.parameters) for i in unit.indices]
        if condition.group == "features":
            read = rivagan if condition.name == "rivagan" else features
            data = [row.astype("<f2").tobytes() for row in read(pictures)]
        elif mark == "kgs":
            data = self._read_kgs(condition, pictures)
        else:
            noise = self.inverted(pictures)
            if mark == "gs":
                data = [self.gs.votes(z).tobytes() for z in noise]
            else:
                data = [np.array(self.rings.distance(z), dtype="<f4").tobytes() for z in noise]
        keys = self.keys(condition)
        return [Item(keys[mark, i], mark, i, d) for i, d in zip(unit.indices, data, strict=True)]

    def _read_kgs(self, condition: Condition, pictures: Sequence[Rgb]) -> list[bytes]:
        views = tuple(v for v in kgs.wide_views(self.spec) if not v.flip) if condition.wide else kgs.FLIPS
        given = [Picture(made) for made in pictures]
        if not condition.weights:
            return [packed(noise) for noise in self.model.noises(given, self.kgs, views)]
        with self.weights(condition.weights):
            spec = kgs.plan(self.pipeline, steps=self.spec.steps, search_steps=self.spec.search_steps)
            model = Inverter(self.pipeline, spec, batch=BLOCK)
            return [packed(noise) for noise in model.noises(given, Kgs(KEY, spec), views)]

    @contextmanager
    def weights(self, name: str) -> Iterator[None]:
        """The pipeline with other weights for a while."""
        parts = [self.pipeline.unet, self.pipeline.vae, self.pipeline.text_encoder]
        if getattr(self.pipeline, "text_encoder_2", None) is not None:
            parts.append(self.pipeline.text_encoder_2)
        before = [copy.deepcopy(part.state_dict()) for part in parts]
        try:
            if name == "tuned":
                parts[0].load_state_dict(self._tuned)
            else:
                for part, state in zip(parts, before, strict=True):
                    part.load_state_dict({key: _rounded(value, name) for key, value in state.items()})
            yield
        finally:
            for part, state in zip(parts, before, strict=True):
                part.load_state_dict(state)

    @cached_property
    def _tuned(self) -> dict[str, Any]:
        """The denoiser after some steps of AdamW on unmarked pictures, without prompts."""
        import torch

        unet = copy.deepcopy(self.pipeline.unet).train()
        alphas = torch.from_numpy(kgs._alphas(self.pipeline)).float()
        prompt = {
            name: value.clone().expand(int(TUNED["rows"]), *value.shape[1:])
            for name, value in self.model._conditions.items()
        }
        hidden = prompt.pop("encoder_hidden_states")
        optimizer = torch.optim.AdamW(unet.parameters(), lr=TUNED["rate"])
        rows = int(TUNED["rows"])
        for step in range(int(TUNED["steps"])):
            rng = np.random.default_rng([17, step])
            shown = [self.picture("plain", i) for i in rng.integers(0, self.settings.first, rows).tolist()]
            pixels = torch.from_numpy(np.stack(shown).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
            with torch.no_grad():
                start = self.model.encode(pixels)
            eps = torch.from_numpy(rng.standard_normal(start.shape, dtype=np.float32)).to(start)
            t = torch.from_numpy(rng.integers(0, len(alphas), rows))
            signal = alphas[t].sqrt().view(-1, 1, 1, 1).to(start)
            rest = (1 - alphas[t]).sqrt().view(-1, 1, 1, 1).to(start)
            wanted = signal * eps - rest * start if self.spec.prediction == "v_prediction" else eps
            out = unet(
                signal * start + rest * eps, t.to(start.device),
                encoder_hidden_states=hidden, added_cond_kwargs=prompt or None, return_dict=False,
            )[0]  # fmt: skip
            loss = torch.nn.functional.mse_loss(out, wanted)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return dict(unet.state_dict())


def _rounded(values: Any, kind: str) -> Any:
    """Weights of two axes or more as bfloat16, int8 or int4 (a scale for each output) would hold them."""
    import torch

    if not values.is_floating_point() or values.ndim < 2:
        return values
    if kind == "bf16":
        return values.to(torch.bfloat16).to(values.dtype)
    most = {"int8": 127, "int4": 7}[kind]
    scale = values.abs().amax(dim=tuple(range(1, values.ndim)), keepdim=True).clamp(min=1e-12) / most
    return (values / scale).round() * scale


def _bytes(values: npt.NDArray[np.floating[Any]]) -> Rgb:
    out: Rgb = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return out


def _save(path: Path, values: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp.npy")
    np.save(scratch, values)
    scratch.replace(path)


# --- what is kept -------------------------------------------------------------------------------------------


def packed(noise: Noise) -> bytes:
    """Readings and views of a KGS picture."""
    views = np.array(noise.views, dtype="<i2")
    return bytes([len(noise.q)]) + views.tobytes() + np.ascontiguousarray(noise.q).tobytes()


def unpacked(item: Item, spec: kgs.KgsSpec) -> Noise:
    """Inverse of packed. Raises SpecError on data of another size."""
    count, width = item.data[0], len(View())
    end = 1 + 2 * width * count
    rows = np.frombuffer(item.data[1:end], dtype="<i2").reshape(count, width).tolist()
    views = tuple(View(turn, scale, bool(flip), *put, bool(late)) for turn, scale, flip, *put, late in rows)
    q = np.frombuffer(item.data[end:], dtype=np.int8)
    if q.size != count * spec.chips:
        raise SpecError(f"picture {item.index} has {q.size} values, {count} readings of {spec.chips} wanted")
    return Noise(q.reshape(count, *spec.shape), views, spec.spec_hash().hex(), item.key)


def features(pictures: Sequence[Rgb]) -> Float32:
    """Means over the picture of what a random convolution network of three layers gives.  # (n, FEATURES)"""
    import torch

    layers = _random_network()
    x = torch.from_numpy(np.stack(pictures).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    with torch.inference_mode():
        for weights in layers:
            x = torch.relu(torch.nn.functional.conv2d(x, weights, stride=2, padding=1))
        out: Float32 = x.mean(dim=(2, 3)).numpy()
    return out


@cache
def _random_network() -> list[Any]:
    import torch

    rng = np.random.default_rng(0)
    out = []
    for a, b in ((3, 16), (16, 32), (32, FEATURES)):
        drawn = rng.standard_normal((b, a, 3, 3)) * math.sqrt(2 / (9 * a))
        out.append(torch.from_numpy(drawn.astype(np.float32)))
    return out


def rivagan(pictures: Sequence[Rgb]) -> Float32:
    """The 32 values that RivaGAN's decoder gives, in the environment of `make peers`.  # (n, 32)

    Raises UnavailableError where it is not installed.
    """
    if not RIVAGAN.exists():
        raise UnavailableError("RivaGAN's decoder is not installed; run `make peers`")
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "pictures.npy", Path(folder) / "features.npy"
        np.save(given, np.stack(pictures))
        script = Path(__file__).resolve().parent / "peers" / "rivagan_features.py"
        done = subprocess.run([RIVAGAN, script, given, out], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"RivaGAN's decoder failed: {done.stderr.strip()[-200:]}")
        found: Float32 = np.load(out, allow_pickle=False).astype(np.float32)
    return found


def todo(store: Store, studio: Studio, all_: Sequence[Condition]) -> Iterator[Unit]:
    """The units of which something is not kept, without what is."""
    kept: dict[str, set[Place]] = {}
    for unit in units(all_, studio.settings):
        name = unit.condition.name
        if unit.mark == "reference" and studio.reference is None:
            continue
        if name not in kept:
            kept[name] = set(store.current(name, studio.keys(unit.condition)))
        left = tuple(i for i in unit.indices if (unit.mark, i) not in kept[name])
        if left:
            yield unit._replace(indices=left)
