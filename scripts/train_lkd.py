"""Train LKD for the decoder of a latent diffusion model: the extractor, and how words change the decoder.

    python scripts/train_lkd.py --stage train --minutes 90   # build/lkd; takes long on one core
    python scripts/train_lkd.py --stage export               # writes tests/models/tiny-image-lkd
    python scripts/train_lkd.py --stage check                # bits right, PSNR, identification, seconds to issue
    python scripts/train_lkd.py --stage train --vae FOLDER --pictures FOLDER2 --side 256 --work FOLDER3 --out FOLDER4
                                                             # another AutoencoderKL, on pictures of one's own

Both are trained together over random words, the decoder itself frozen. In every 3 x 3 convolution of it a word scales
the output channels and adds a product of low rank to the kernel (zhiyi_watermark/image_weights.py has the formula), so
a copy is issued by folding, without training. The curriculum goes on only while bits are read (Plan.enough_at_first,
then Plan.enough of them right, in a running mean), so it waits where it is hard instead of losing what was learned:
- it begins with few bits and a loud change, without attacks; the other bits come in by and by;
- when all are in use the budget for the change falls from Plan.loud to Plan.quiet dB, also while some bits are still
  weak (1,900 steps of waiting at 17.7 dB brought .02 more of the bits; a case has several pictures to add up). The
  budget is of squared error, blurred error and error in the features of a fixed random net together; below it
  quality costs nothing;
- at the same time attacks come in at growing strength: JPEG (rounding passed straight through), blur, noise,
  brightness, contrast, saturation, resizing, turning and zooming, cropping, dropping;
- in the last part of the steps the rates fall.

Resumes from its checkpoint under --work, and without one from the exported folder where --out names it (float16, no
optimizer moments); either has to be of the same decoder.
Who may have what. The seller alone: modulation.safetensors, reader.safetensors (the extractor in floats, nearer to what
was trained) and the checkpoint under --work, which holds both; they are written readable by their owner alone. Who
traces for the seller, and nobody else: extractor.safetensors, for with it and one picture of a copy that copy's word
can be put into any picture. Anybody: training.json, with the hashes that are to be registered.

Each step draws from its own number, so a run that was stopped and goes on from a checkpoint makes the same weights as
one that was not, on the same kind of machine with the same torch and threads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fetch_model import FetchError
from image_data import Batch, FolderPictures, Pictures, Split
from train_image_model import MODEL as IMAGE_MODEL
from train_image_model import Draw, _Clock, _host, _load, _save, _say, _thinned, device, to_tensor
from zhiyi_watermark import stats
from zhiyi_watermark.attacks import image as attacks
from zhiyi_watermark.errors import CarrierError, UnavailableError
from zhiyi_watermark.image_weights import (
    EXTRACTOR,
    MODULATION,
    SHIFT,
    Extractor,
    Layer,
    LayerModulation,
    LkdReader,
    Modulation,
    Parts,
    decoder_config,
    decoder_hash,
    decoder_layers,
    issue,
    other_config,
    word,
)
from zhiyi_watermark.pictures import Picture
from zhiyi_watermark.tensorfile import scratch_beside, take_place

ROOT: Final = Path(__file__).resolve().parent.parent
MODEL: Final = ROOT / "tests" / "models" / "tiny-image-lkd"
WORK: Final = ROOT / "build" / "lkd"
LOG: Final = "training.json"
READER: Final = "reader.safetensors"  # the extractor in floats, to go on from
FIGURES: Final = "figures.json"  # of the check
SEED: Final = 20250301
SAY_EVERY: Final = 20
MOMENTUM: Final = 0.05  # of the running statistics of the extractor's normalisations
TYPICAL: Final = 8  # q of the median bit
KEY: Final = bytes(range(32))  # of the check
LICENSES: Final = 100_000  # of the check

Tensor = Any  # torch is imported where it is used
Distort = Callable[[Tensor, float, np.random.Generator], Tensor]  # pictures, strength 0 .. 1, draws


class Plan(NamedTuple):
    """Sizes, rates and the curriculum."""

    bits: int = 64
    rank: int = 16
    channels: tuple[int, ...] = (32, 64, 96, 128, 128, 192)
    strides: tuple[int, ...] = (1, 2, 1, 2, 1, 2)
    pool: int = 4096  # pictures encoded once
    batch: int = 16
    group: int = 4  # pictures under one attack
    steps: int = 20000
    rate: float = 1e-3  # of the extractor
    rate_of_words: float = 6e-4  # of what the words change
    warmup: int = 100
    slow_from: float = 0.6  # part of all steps after which the rates fall, to a twentieth
    few: int = 8  # bits at the beginning
    loud: float = 15.0  # dB, where the change begins
    quiet: float = 32.0  # dB, where it ends
    enough_at_first: float = 0.8  # share of bits right while which more come in
    enough: float = 0.72  # and, with all in use, while which the curriculum goes on, by these each step:
    bits_a_step: float = 0.1
    decibels_a_step: float = 0.004
    strength_a_step: float = 1 / 5000

    def rate_at(self, step: int, since: int) -> float:
        """The part of the rates. since: the step at which the optimizer began."""
        late = min(1.0, max(0.0, (step / self.steps - self.slow_from) / (1 - self.slow_from)))
        slowed = 0.5 * (1 + math.cos(math.pi * late))
        return min(1.0, (step - since + 1) / self.warmup) * (0.05 + 0.95 * slowed)


class Curriculum(NamedTuple):
    """How far it has come."""

    bits: float  # in use
    decibels: float  # of the change allowed
    strength: float = 0.0  # of the attacks, 0 .. 1
    right: float = 0.5  # running mean of the share of bits right

    @property
    def active(self) -> int:
        """Bits in use."""
        return int(self.bits)

    @property
    def budget(self) -> float:
        """Squared error allowed, of values -1 to 1."""
        return float(4 * 10 ** (-self.decibels / 10))

    def after(self, right: float, plan: Plan) -> Curriculum:
        """After a step in which that share of the bits was right."""
        mean = 0.98 * self.right + 0.02 * right
        if self.active < plan.bits:
            more = plan.bits_a_step if mean >= plan.enough_at_first else 0.0
            return self._replace(right=mean, bits=min(plan.bits, self.bits + more))
        if mean < plan.enough:
            return self._replace(right=mean)
        decibels = min(plan.quiet, self.decibels + plan.decibels_a_step)
        return Curriculum(self.bits, decibels, min(1.0, self.strength + plan.strength_a_step), mean)


# --- parts --------------------------------------------------------------------------------------------------


def new_reader(plan: Plan) -> Any:
    """The extractor in floats: pictures of -1 to 1 to a logit a bit."""
    import torch
    from torch import nn

    torch.manual_seed(SEED)
    layers: list[Any] = []
    inside = 3
    for outside, stride in zip(plan.channels, plan.strides, strict=True):
        layers += [
            nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outside, momentum=MOMENTUM),
            nn.ReLU(),
        ]
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, plan.bits))


class Modulated:
    """A frozen decoder whose convolutions change with the words of a batch."""

    def __init__(self, vae: Any, names: list[str], plan: Plan) -> None:
        import torch

        generator = torch.Generator().manual_seed(SEED + 1)
        self.vae = vae.requires_grad_(False)
        self.words: Tensor | None = None  # (batch, bits), ±1
        self.parameters: dict[str, Tensor] = {}
        for name in names:
            conv = vae.get_submodule(name)
            out, inside, rows, columns = conv.weight.shape
            shapes = (
                ((out, plan.bits), 0.05 / plan.bits**0.5),
                ((out, plan.rank), plan.rank**-0.5),
                ((plan.rank, inside, rows, columns), (inside * rows * columns) ** -0.5),
                ((plan.rank, plan.bits), 0.1 / plan.bits**0.5),
            )
            for part, (shape, deviation) in zip(LayerModulation._fields, shapes, strict=True):
                drawn = deviation * torch.randn(shape, generator=generator)
                self.parameters[f"{name}.{part}"] = drawn.to(conv.weight.device).requires_grad_(True)
            conv.register_forward_hook(self._hook(name))
        self.names = names

    def _hook(self, name: str) -> Any:
        import torch.nn.functional as F

        parts = [self.parameters[f"{name}.{part}"] for part in LayerModulation._fields]

        def changed(conv: Any, given: tuple[Tensor], made: Tensor) -> Tensor:
            if self.words is None:
                return made
            gain, left, right, mix = parts
            gains, mixed = 1 + self.words @ gain.T, self.words @ mix.T
            inner = F.conv2d(given[0], right.to(given[0].dtype), stride=conv.stride, padding=conv.padding)
            added = F.conv2d(inner * mixed[:, :, None, None].to(inner.dtype), left[:, :, None, None])
            return made * gains[:, :, None, None].to(made.dtype) + added

        return changed

    def decode(self, latents: Tensor, words: Tensor | None) -> Tensor:
        """# (batch, 3, side, side), about -1 to 1; words None: the decoder as it was."""
        self.words = words
        try:
            return self.vae.decode(latents).sample
        finally:
            self.words = None

    def scale(self, factor: float) -> None:
        """All changes by that factor, nearly."""
        import torch

        with torch.no_grad():
            for name, value in self.parameters.items():
                if name.endswith((".gain", ".mix")):
                    value.mul_(factor)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(weights[name])

    def modulation(self, base: Path, extractor: str) -> Modulation:
        """As it is exported: in float16. extractor: hash of the net, hex."""
        layers = {
            name: LayerModulation(*(
                self.parameters[f"{name}.{part}"].detach().cpu().half().float().numpy()
                for part in LayerModulation._fields
            ))
            for name in self.names
        }  # fmt: skip
        return Modulation(layers, decoder_hash(base), decoder_config(base), extractor)


def load_vae(folder: Path) -> Any:
    """An AutoencoderKL in float32, frozen; of safetensors only.

    Raises FetchError where there is none, or where weights are missing: diffusers would draw those.
    """
    import torch
    from diffusers import AutoencoderKL
    from safetensors import SafetensorError

    if not (folder / "config.json").is_file():
        raise FetchError(f"{folder} is no AutoencoderKL; give the folder `vae` of a pipeline")
    try:
        loaded: Any = AutoencoderKL.from_pretrained(
            folder,
            torch_dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise FetchError(f"no AutoencoderKL can be loaded from {folder}: {error!s:.160}") from error
    vae, told = loaded
    if lacking := sorted(told["missing_keys"]):
        raise FetchError(f"{folder} lacks {len(lacking)} tensors, {lacking[0]} the first")
    return vae.eval().requires_grad_(False).to(device())


def layer_names(folder: Path) -> list[str]:
    """Of the decoder's convolutions that are modulated. Raises FetchError where there are none."""
    try:
        shapes = decoder_layers(folder)
    except UnavailableError as error:
        raise FetchError(str(error)) from error
    return [tensor.name.removesuffix(".weight") for tensor in shapes if tensor.name.endswith(".weight")]


class Pool(NamedTuple):
    """Latents of pictures, and what the unchanged decoder makes of them."""

    latents: Tensor  # (pool, channels, rows, columns), float16
    pictures: Tensor  # (pool, 3, side, side), uint8


def pool_of(vae: Any, draw: Draw, count: int, first: int = 0) -> Pool:
    """Pictures of the steps from `first`, sixteen at once."""
    import torch

    latents, pictures = [], []
    with torch.no_grad():
        for at in range(0, count, 16):
            x = to_tensor(draw(first + at // 16, min(16, count - at)).pictures).to(device())
            z = vae.encode(x).latent_dist.mode().half()
            latents.append(z.cpu())
            pictures.append(to_bytes(vae.decode(z.float()).sample).cpu())
    return Pool(torch.cat(latents), torch.cat(pictures))


def to_bytes(x: Tensor) -> Tensor:
    """-1 to 1 to uint8."""
    import torch

    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def rounded(x: Tensor) -> Tensor:
    """To the 256 values of a picture, the gradient passed straight through.  # -1 to 1"""
    x = x.clamp(-1, 1)
    return x + (((x + 1) * 127.5).round() / 127.5 - 1 - x).detach()


# --- attacks that let the gradient through --------------------------------------------------------------------


_LUMA: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA: Final = (
    (17, 18, 24, 47),
    (18, 21, 26, 66),
    (24, 26, 56, 99),
    (47, 66, 99, 99),
)  # the other entries are 99 (ITU-T T.81, annex K)


def jpeg(x: Tensor, quality: float) -> Tensor:
    """JPEG of that quality, chroma halved; rounding passes the gradient straight through (Shin and Song 2017)."""
    import torch
    import torch.nn.functional as F

    height, width = x.shape[2:]
    x = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate") * 127.5
    to_luma = torch.tensor(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], device=x.device
    )
    y = torch.einsum("kc,bchw->bkhw", to_luma, x)
    k = torch.arange(8, device=x.device)
    basis = (
        torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / 16)
        * torch.where(k == 0, 0.125**0.5, 0.5)[:, None]
    )
    chroma = torch.full((8, 8), 99.0, device=x.device)
    chroma[:4, :4] = torch.tensor(_CHROMA, device=x.device)
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality

    def coded(plane: Tensor, table: Tensor) -> Tensor:
        steps = ((table * percent + 50) / 100).floor().clamp(1, 255)
        rows, columns = plane.shape[2:]
        blocks = plane.reshape(len(plane), -1, rows // 8, 8, columns // 8, 8).transpose(3, 4)
        values = basis @ blocks @ basis.T / steps
        values = (values + (values.round() - values).detach()) * steps
        return (basis.T @ values @ basis).transpose(3, 4).reshape(plane.shape)

    luma = coded(y[:, :1], torch.tensor(_LUMA, dtype=torch.float32, device=x.device))
    colors = F.interpolate(coded(F.avg_pool2d(y[:, 1:], 2), chroma), scale_factor=2.0, mode="bilinear")
    out = torch.einsum("ck,bkhw->bchw", torch.linalg.inv(to_luma), torch.cat([luma, colors], dim=1))
    return rounded(out[:, :, :height, :width] / 127.5)


def _blur(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    import torch
    import torch.nn.functional as F

    sigma = 0.25 + strength * rng.uniform(0, 1.0)
    taps = torch.arange(-4, 5, device=x.device)
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 9)
    x = F.conv2d(F.pad(x, (4, 4, 4, 4), mode="reflect"), kernel[:, :, None, :], groups=3)
    return F.conv2d(x, kernel[:, :, :, None], groups=3)


def _noise(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    import torch

    drawn = torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32)).to(x.device)
    return x + drawn * (0.22 * strength * rng.random())


def _brightness(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return (x + 1) * (2.0 ** (strength * rng.uniform(-1.2, 1.2))) - 1


def _contrast(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    middle = x.mean(dim=(1, 2, 3), keepdim=True)
    return middle + (x - middle) * (2.0 ** (strength * rng.uniform(-1, 1)))


def _saturation(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    gray = x.mean(dim=1, keepdim=True)
    return gray + (x - gray) * (1 + strength * rng.uniform(-0.8, 0.8))


def _jpeg(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return jpeg(x, 95 - 75 * strength * rng.random())


def _resize(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    import torch.nn.functional as F

    side = max(8, round(x.shape[-1] * (1 - 0.72 * strength * rng.random())))
    small = rounded(F.interpolate(x, size=(side, side), mode="bicubic", antialias=True))
    return F.interpolate(small, size=x.shape[2:], mode="bicubic")


def _moved(x: Tensor, turn: float, zoom: float, right: float, down: float) -> Tensor:
    """Turned (radians) and zoomed about a center moved by parts of half the side; gray outside."""
    import torch
    import torch.nn.functional as F

    cos, sin = math.cos(turn) / zoom, math.sin(turn) / zoom
    rows = [[cos, -sin, right], [sin, cos, down]]
    matrix = torch.tensor(rows, dtype=torch.float32, device=x.device).expand(len(x), 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _turn(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    turn = strength * rng.uniform(-0.2, 0.2)  # what turning back leaves is under 7 degrees
    return _moved(x, turn, 1 + strength * rng.uniform(-0.25, 0.25), *(strength * rng.uniform(-0.1, 0.1, 2)))


def _crop(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    zoom = 1 + strength * rng.uniform(0, 0.9)
    return _moved(x, 0.0, zoom, *((1 - 1 / zoom) * rng.uniform(-1, 1, 2)))


def _drop(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    import torch

    side = x.shape[-1]
    rows, columns = (round(side * strength * rng.uniform(0.2, 0.65)) for _ in range(2))
    top, left = int(rng.integers(side - rows + 1)), int(rng.integers(side - columns + 1))
    kept = torch.ones_like(x[:1, :1])
    kept[:, :, top : top + rows, left : left + columns] = 0
    return (x + 1) * kept - 1


def _kept(x: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return x


DISTORTIONS: Final[tuple[tuple[Distort, float], ...]] = (
    (_kept, 0.2), (_jpeg, 0.15), (_blur, 0.07), (_noise, 0.12), (_brightness, 0.08), (_contrast, 0.04),
    (_saturation, 0.04), (_resize, 0.1), (_turn, 0.1), (_crop, 0.07), (_drop, 0.03),
)  # fmt: skip


def distorted(x: Tensor, strength: float, rng: np.random.Generator, group: int) -> Tensor:
    """Each `group` pictures under one attack drawn; rounded to 8 bits before and after."""
    import torch

    x = rounded(x)
    if strength <= 0:
        return x
    chances = np.array([chance for _, chance in DISTORTIONS])
    out = []
    for at in range(0, len(x), group):
        attack = DISTORTIONS[int(rng.choice(len(chances), p=chances / chances.sum()))][0]
        out.append(rounded(attack(x[at : at + group], strength, rng)))
    return torch.cat(out)


# --- training -----------------------------------------------------------------------------------------------


class Seen:
    """How far two pictures lie apart for a viewer, next to their squared error."""

    def __init__(self) -> None:
        import torch

        generator = torch.Generator().manual_seed(SEED + 2)
        self._weights = [
            (torch.randn((b, a, 3, 3), generator=generator) * (2 / (9 * a)) ** 0.5).to(device())
            for a, b in ((3, 12), (12, 24))
        ]

    def _features(self, x: Tensor) -> list[Tensor]:
        import torch.nn.functional as F

        out = []
        for weight in self._weights:
            x = F.relu(F.conv2d(x, weight, stride=2, padding=1))
            out.append(x)
        return out

    def __call__(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Blurred error and that of random features, about as large as the squared error.  # (batch,)"""
        import torch.nn.functional as F

        every = (1, 2, 3)
        error = made - wanted
        blurred = sum(F.avg_pool2d(error, size).square().mean(dim=every) * size for size in (4, 8))
        apart = zip(self._features(made), self._features(wanted), strict=True)
        return (blurred + sum((a - b).square().mean(dim=every) for a, b in apart)) / 4


def _fresh(plan: Plan, decoder: Modulated, pool: Pool) -> None:
    """Bring the change of a decoder that was not trained yet to plan.loud dB."""
    import torch

    rng = np.random.default_rng([SEED, 3])
    size = min(16, len(pool.latents))
    z = pool.latents[:size].float().to(device())
    words = torch.from_numpy(rng.integers(0, 2, (size, plan.bits)) * 2.0 - 1).float().to(device())
    words[:, plan.few :] = 0
    for _ in range(4):
        with torch.no_grad():
            error = decoder.decode(z, words).clamp(-1, 1) - decoder.decode(z, None).clamp(-1, 1)
        decoder.scale(
            (Curriculum(plan.few, plan.loud).budget / max(1e-12, float(error.square().mean()))) ** 0.5
        )


def train(
    plan: Plan,
    folder: Path,
    draw: Draw,
    work: Path,
    minutes: float = math.inf,
    steps: int | None = None,
    exported: Path | None = None,
) -> dict[str, Any]:
    """Train until plan.steps, the minutes or `steps` are reached; the state that was saved.

    folder: of the AutoencoderKL. exported: a folder of export() to go on from where there is no checkpoint.
    Raises FetchError on a saved state of another decoder, config.json or plan, or one that does not say of which it is.
    """
    import torch
    import torch.nn.functional as F

    on = device()
    vae = load_vae(folder)
    ours, config = decoder_hash(folder), decoder_config(folder)
    saved = work / "lkd.pt"
    state, told = _load(saved), None
    if state is not None:
        _same_plan(plan, state["plan"])
        _same_decoder(folder, state.get("decoder"), state.get("config"), saved)
    elif exported is not None and (exported / LOG).is_file():
        told = json.loads((exported / LOG).read_text(encoding="utf-8"))
        _same_plan(plan, told["plan"])
        former = Modulation.load(exported / MODULATION)
        _same_decoder(folder, former.base_hash, former.config, exported)
    decoder = Modulated(vae, layer_names(folder), plan)
    reader = new_reader(plan).to(on, memory_format=torch.channels_last)
    started = time.process_time()
    pool = pool_of(vae, draw, plan.pool)
    _say(f"lkd: {plan.pool} pictures encoded in {time.process_time() - started:.0f} CPU seconds")
    parameters = [*reader.parameters(), *decoder.parameters.values()]
    rates = (plan.rate, plan.rate_of_words)
    groups = [{"params": part} for part in (list(reader.parameters()), list(decoder.parameters.values()))]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)
    first, since, log, spent = 0, 0, [], 0.0
    now = Curriculum(plan.few, plan.loud)
    if state is not None:
        reader.load_state_dict(state["reader"])
        decoder.load(state["modulation"])
        optimizer.load_state_dict(state["optimizer"])
        first, since, now = int(state["step"]), int(state["since"]), Curriculum(*state["curriculum"])
        log, spent = state["log"], float(state["minutes"])
        _say(f"lkd: resuming at step {first}")
    elif told is not None:
        assert exported is not None
        weights = _exported(exported)
        reader.load_state_dict(
            weights["reader"], strict=False
        )  # without the count of batches, which is not used
        decoder.load(weights["modulation"])
        first = since = int(told["step"])
        now = Curriculum(*told["curriculum"])
        log, spent = told["log"], float(told["cpu_minutes"])
        _say(f"lkd: going on from the exported weights at step {first}")
    else:
        _fresh(plan, decoder, pool)
    seen, clock, end = Seen(), _Clock(minutes), min(plan.steps, steps or plan.steps)
    sums = np.zeros(4)
    if first >= end:
        _say(f"lkd: nothing left to train, {first} of {end} steps are done")

    def save(step: int) -> dict[str, Any]:
        out = {
            "reader": _host(reader.state_dict()), "modulation": _host(decoder.parameters),
            "optimizer": optimizer.state_dict(), "plan": dict(plan._asdict()), "step": step, "since": since,
            "curriculum": list(now), "log": log, "minutes": spent, "decoder": ours,
            "config": config,
        }  # fmt: skip
        _save(saved, out)
        return out

    step = first
    while step < end and not clock.over():
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * plan.rate_at(step, since)
        rng = np.random.default_rng([SEED, 4, step])
        rows = torch.from_numpy(rng.integers(0, len(pool.latents), plan.batch))
        bits = torch.from_numpy(rng.integers(0, 2, (plan.batch, plan.bits))).float().to(on)
        words = 2 * bits - 1
        words[:, now.active :] = 0
        z = pool.latents[rows].float().to(on, memory_format=torch.channels_last)
        wanted = pool.pictures[rows].to(on).float() / 127.5 - 1
        with torch.autocast(on, dtype=torch.bfloat16):
            made = decoder.decode(z, words)
        made = made.float().clamp(-1, 1)
        attacked = distorted(made, now.strength, rng, plan.group)
        attacked = attacked.contiguous(memory_format=torch.channels_last)
        with torch.autocast(on, dtype=torch.bfloat16):
            logits = reader(attacked)
        logits, bits = logits[:, : now.active], bits[:, : now.active]
        told_bits = F.binary_cross_entropy_with_logits(logits.float(), bits)
        mse = (made - wanted).square().mean(dim=(1, 2, 3))
        quality = F.relu((0.75 * mse + 0.25 * seen(made, wanted)) / now.budget - 1).mean()
        loss = told_bits + 0.3 * quality
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        right = ((logits > 0) == (bits > 0.5)).float().mean().item()
        now = now.after(right, plan)
        sums += [told_bits.item(), right, mse.mean().item(), 1]
        if step % SAY_EVERY == 0 or step == end:
            spent += clock.cpu_minutes()
            entropy, share, error = (sums[:3] / sums[3]).tolist()
            decibels = 10 * math.log10(4 / max(1e-9, error))
            row = (entropy, share, decibels, now.active, now.strength, spent)
            log.append([step, *(round(value, 4) for value in row)])
            _say(
                f"lkd step {step} of {plan.steps}: bits {entropy:.4f} ({share:.4f} of {now.active} right), "
                f"{decibels:.2f} dB, attacks {now.strength:.2f}, {spent:.1f} CPU minutes"
            )
            sums[:] = 0
        if clock.due():
            save(step)
    return save(step)


def _same_plan(plan: Plan, told: Mapping[str, Any]) -> None:
    """Raises FetchError where weights of another plan's sizes would be loaded."""
    for name in ("bits", "rank", "channels", "strides"):
        ours, theirs = getattr(plan, name), told[name]
        if ours != (tuple(theirs) if isinstance(theirs, list) else theirs):
            raise FetchError(
                f"{name} of the saved state is {theirs}, of the plan {ours}; take the state away to begin anew"
            )


def _same_decoder(folder: Path, decoder: object, config: Mapping[str, Any] | None, where: Path) -> None:
    """Raises FetchError where what was trained with one decoder would go on, or be exported, as another's."""
    ours, advice = decoder_hash(folder), "give another --work, and another --out"
    if decoder is None or config is None:
        raise FetchError(f"the decoder of {where} is not told, that of --vae has {ours}; {advice}")
    if decoder != ours:
        raise FetchError(f"the decoder of {where} has SHA-256 {decoder}, that of --vae has {ours}; {advice}")
    if said := other_config(decoder_config(folder), config):
        raise FetchError(f"{folder / 'config.json'} {said} in {where}; {advice}")


# --- the folder ---------------------------------------------------------------------------------------------


def integer_extractor(reader: Any, plan: Plan, pictures: Tensor, side: int) -> Extractor:
    """The net with int8 weights: normalisations folded in, activations scaled by what they are of these pictures.

    pictures: marked ones.  # (n, 3, side, side), uint8
    """
    import torch

    reader = reader.cpu().eval()
    x = (pictures.cpu().float() - 128) / 128
    given = 1 / 128  # what one unit of the integers is worth
    layers = []
    with torch.no_grad():
        for i, stride in enumerate(plan.strides):
            conv, norm = reader[3 * i], reader[3 * i + 1]
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight = (conv.weight * gain[:, None, None, None]).double().numpy()
            bias = (norm.bias - norm.running_mean * gain).double().numpy()
            x = reader[3 * i + 2](norm(conv(x)))
            worth = max(1e-6, float(torch.quantile(x.flatten()[::7][: 1 << 24], 0.9999))) / 255
            layers.append(_integer_layer(weight, bias, given, worth, stride))
            given = worth
        head = reader[-1].weight.double().numpy()
        unit = float(np.abs(head).max()) / 127
        whole = np.rint(head / unit).astype(np.int8)
        shift = np.rint(reader[-1].bias.double().numpy() / (unit * given / 256)).astype(np.int64)
    made = Extractor(tuple(layers), whole, shift, 1, side)
    sums = np.stack([np.abs(made.logits(p)) for p in pictures.permute(0, 2, 3, 1).cpu().numpy()])
    return Extractor(made.layers, whole, shift, max(1, int(np.median(sums)) // TYPICAL), side)


def _integer_layer(
    weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], given: float, worth: float, stride: int
) -> Layer:
    """given, worth: what one unit is worth before and after. No sum may reach 2^24, no bias 2^28."""
    rows = np.abs(weight).reshape(len(weight), -1)
    unit = np.maximum(rows.max(axis=1) / 127, rows.sum(axis=1) / ((1 << 24) / 256 - rows.shape[1]))
    unit = np.maximum(unit, np.maximum(np.abs(bias) / given / (1 << 28), 1e-12))
    return Layer(
        np.rint(weight / unit[:, None, None, None]).astype(np.int8),
        np.rint(bias / (unit * given)).astype(np.int32),
        np.minimum(np.rint(unit * given / worth * (1 << SHIFT)), (1 << 31) - 1).astype(np.int32),
        stride,
    )


def export(plan: Plan, folder: Path, draw: Draw, work: Path, out: Path) -> dict[str, Any]:
    """Write modulation, int8 extractor, the float16 state to go on from, and the log; what the log says.

    The folder `out` is replaced in one step: whoever looks, or stops it, finds the former or this one. What else lies
    there stays, but the figures of the former weights. Raises FetchError without a checkpoint, OSError.
    """
    import torch
    from safetensors.torch import save_file

    state = _load(work / "lkd.pt")
    if state is None:
        raise FetchError("nothing was trained yet; run --stage train first")
    _same_plan(plan, state["plan"])
    _same_decoder(folder, state.get("decoder"), state.get("config"), work / "lkd.pt")
    vae = load_vae(folder)
    decoder = Modulated(vae, layer_names(folder), plan)
    decoder.load(state["modulation"])
    reader = new_reader(plan)
    reader.load_state_dict(state["reader"])
    pool = pool_of(vae, draw, min(128, plan.pool))
    rng = np.random.default_rng([SEED, 5])
    words = (
        torch.from_numpy(rng.integers(0, 2, (len(pool.latents), plan.bits)) * 2.0 - 1).float().to(device())
    )
    with torch.no_grad():
        pictures = torch.cat([
            to_bytes(decoder.decode(pool.latents[at : at + 16].float().to(device()), words[at : at + 16])).cpu()
            for at in range(0, len(pool.latents), 16)
        ])  # fmt: skip
    extractor = integer_extractor(reader, plan, pictures, int(pictures.shape[-1]))
    modulation = decoder.modulation(folder, extractor.net_hash().hex())
    kept = {k: v.half() if v.ndim > 1 else v.float() for k, v in reader.state_dict().items() if v.ndim}
    told = {
        "net_hash": extractor.net_hash().hex(), "detector_hash": extractor.spec_hash().hex(),
        "detector_hash_turned": extractor.spec_hash(wide=True).hex(),
        "plan": dict(plan._asdict()), "step": state["step"], "cpu_minutes": round(state["minutes"], 1),
        "curriculum": state["curriculum"],
        "columns": ["step", "cross entropy of the bits", "share right", "PSNR in dB", "bits", "attacks", "CPU minutes"],
    }  # fmt: skip
    rows = ",\n".join(json.dumps(row) for row in _thinned(state["log"]))
    text = json.dumps(told, indent=1).removesuffix("\n}") + ',\n "log": [\n' + rows + "\n]}\n"
    with scratch_beside(out, ".zhiyi-lkd-") as scratch:
        made = scratch / "made"
        made.mkdir()
        if out.is_dir():
            shutil.copytree(out, made, dirs_exist_ok=True)
        (made / FIGURES).unlink(missing_ok=True)
        extractor.save(made / EXTRACTOR)
        modulation.save(made / MODULATION)
        save_file(kept, made / READER)
        (made / LOG).write_text(text, encoding="utf-8")
        if not out.resolve().is_relative_to(
            ROOT
        ):  # those of the repository are an example, others secret like a key
            for path in (made, *made.rglob("*")):
                path.chmod(0o700 if path.is_dir() else 0o600)
        take_place(made, out)
    return told


def _exported(out: Path) -> dict[str, dict[str, Tensor]]:
    """Weights of an exported folder, float32, named as the checkpoint names them."""
    import torch
    from safetensors.torch import load_file

    modulation = Modulation.load(out / MODULATION)
    parts = {
        f"{name}.{part}": torch.from_numpy(values)
        for name, layer in modulation.layers.items()
        for part, values in zip(LayerModulation._fields, layer, strict=True)
    }
    weights = {k: v.float() for k, v in load_file(out / READER).items()}
    return {"reader": weights, "modulation": parts}


# --- the check ----------------------------------------------------------------------------------------------


def suite(side: int) -> dict[str, attacks.Attack]:
    """The attacks of the tables; sizes in px are those for 512 px in proportion."""
    scale = side / 512
    scaled: dict[str, attacks.Attack] = {
        "blur4": lambda p, s: attacks.blur(p, 4.0 * scale),
        "blur4_8x8": lambda p, s: attacks.blur(p, 4.0 * scale, max(1, round(8 * scale))),
        "median7": lambda p, s: attacks.median(p, max(1, round(7 * scale) | 1)),
    }
    return {name: scaled.get(name, attack) for name, attack in attacks.SUITE.items()}


def share_right(q: npt.NDArray[Any], signs: npt.NDArray[np.int8]) -> float:
    """Of the bits, a silent one a half: fair logits give 1/2.  # (..., bits), (bits,)"""
    found = np.sign(q) * signs
    return float((found > 0).mean() + (found == 0).mean() / 2)


def check(
    plan: Plan,
    folder: Path,
    draw: Draw,
    out: Path,
    *,
    copies: int = 4,
    pictures: int = 16,
    licenses: int = LICENSES,
) -> dict[str, Any]:
    """Figures of issued copies: what is delivered, decoded as it is delivered and read in integers.

    They name what they are of, by hashes: decoder, modulation, extractor and the pictures of the unchanged decoder.
    copies: licenses issued; pictures: decoded by each. Pictures are of the split "check".
    """
    import torch

    parts = Parts.load(out)
    modulation, extractor = parts.modulation, parts.extractor
    reader = LkdReader(extractor, KEY)
    vae = load_vae(folder)
    rng = np.random.default_rng([SEED, 6])
    registered = list(range(1, licenses + 1))
    chosen = rng.choice(registered, copies, replace=False).tolist()
    base = pool_of(vae, draw, copies * pictures, first=1 << 40)
    right: dict[str, list[float]] = {}
    seconds, errors, one, many = [], [], [], []
    reading = 0.0
    for number, license in enumerate(chosen):
        signs = word(KEY, license, extractor.bits, extractor.net_hash())
        with tempfile.TemporaryDirectory() as scratch:
            started = time.perf_counter()
            issue(folder, Path(scratch) / "vae", modulation, KEY, license)
            seconds.append(time.perf_counter() - started)
            copy = load_vae(Path(scratch) / "vae")
        at = slice(number * pictures, (number + 1) * pictures)
        with torch.no_grad():
            made = to_bytes(copy.decode(base.latents[at].float().to(device())).sample).cpu()
        errors.append(float((made.float() - base.pictures[at].float()).square().mean()))
        rgb = made.permute(0, 2, 3, 1).numpy()
        for name, attack in suite(rgb.shape[1]).items():
            turns = name.startswith(("rotate", "flip"))
            read = [extractor.read(Picture(attack(p, i)), wide=turns) for i, p in enumerate(rgb)]
            shares = [share_right(r.q, signs) for r in read]
            right.setdefault(name, []).extend(shares)
            if name == "none":
                started = time.process_time()
                said = [reader.verdict([r], registered) for r in read]
                reading += time.process_time() - started
                one += [d.license == license for d in said]
                for low in range(0, len(read) - 7, 8):
                    found = reader.verdict(read[low : low + 8], registered, threshold=stats.CONVICT)
                    many.append(found.license == license and found.decision == "detected")
    means = {name: round(float(np.mean(shares)), 4) for name, shares in right.items()}
    attacked = [value for name, value in means.items() if name != "none"]
    return {
        "psnr": round(10 * math.log10(255**2 / float(np.mean(errors))), 2),
        "bits_clean": means["none"],
        "bits_attacked": round(float(np.mean(attacked)), 4),
        "identified_one": round(float(np.mean(one)), 4),
        "identified_eight": round(float(np.mean(many)), 4) if many else None,
        "licenses": licenses,
        "pictures": copies * pictures,
        "issue_seconds": round(max(seconds), 3),
        "verdict_seconds": round(reading / (copies * pictures), 4),
        "bits": means,
        "of": {
            "decoder": modulation.base_hash,
            "modulation": hashlib.sha256((out / MODULATION).read_bytes()).hexdigest(),
            "extractor": modulation.extractor,
            "pictures": hashlib.sha256(base.pictures.numpy().tobytes()).hexdigest(),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "",
        epilog=f"Keep {MODULATION}, {READER} and the folder --work to yourself. Give {EXTRACTOR} to nobody but those "
        f"who trace for you. {LOG} is public.",
    )
    parser.add_argument("--stage", choices=("train", "export", "check"), required=True)
    parser.add_argument("--vae", type=Path, default=IMAGE_MODEL / "vae", help="folder of the AutoencoderKL")
    parser.add_argument(
        "--out", type=Path, help=f"folder of the export, or to train on from [export, check: {MODEL.name}]"
    )
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument(
        "--pictures",
        type=Path,
        help="folder of pictures to train and check on, instead of tiny-image's of 64 px",
    )
    parser.add_argument(
        "--side", type=int, default=256, help="with --pictures: px of the squares cut out of them"
    )
    parser.add_argument("--bits", type=int, default=Plan().bits)
    parser.add_argument("--steps", type=int, default=Plan().steps, help="of the whole curriculum")
    parser.add_argument("--minutes", type=float, default=math.inf, help="of wall clock")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(options.threads)
    plan = Plan(bits=options.bits, steps=options.steps)
    try:
        draw = drawing("check" if options.stage == "check" else "train", options.pictures, options.side)
        return run(options.stage, plan, options.vae, draw, options.out, options.work, options.minutes)
    except (FetchError, CarrierError, UnavailableError) as error:
        sys.exit(f"error: {error}")


def drawing(split: Split, folder: Path | None, side: int) -> Draw:
    """Batches of a folder's pictures, or of those that the small model was made for. Raises FetchError."""
    if folder is not None:
        return FolderPictures(split, folder, side).batch
    pictures = Pictures(split)

    def draw(step: int, size: int) -> Batch:
        return pictures.batch(step, size, 0.3)

    return draw


def run(stage: str, plan: Plan, vae: Path, draw: Draw, given: Path | None, work: Path, minutes: float) -> int:
    """One stage. Raises FetchError where something it needs is not there."""
    out = given or MODEL
    if stage == "train":
        train(plan, vae, draw, work, minutes, exported=given)
    elif stage == "export":
        told = export(plan, vae, draw, work, out)
        for name in ("net_hash", "detector_hash", "detector_hash_turned"):
            _say(f"{name}: {told[name]}")
        _say(f"{out}: {sum(f.stat().st_size for f in out.rglob('*') if f.is_file()) / 1e6:.2f} MB")
    else:
        figures = check(plan, vae, draw, out)
        (out / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        for name, value in figures.items():
            _say(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
