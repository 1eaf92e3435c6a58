"""KGS: a 64-bit message in the noise that a diffusion model starts from, read from the finished picture.

Gaussian Shading class (Yang et al., "Gaussian Shading: Provable Performance-Lossless Image Watermarking for Diffusion
Models", CVPR 2024; a nonce for every picture as in Gaussian Shading++, 2025), any latent pipeline of diffusers.
Symbols: z_T the starting noise (channels, rows, columns), one chip a value; s = ±1 a sign for every chip from the
model's key and the picture's nonce, one of 4096; c = ±1 the coded payload, each bit in many chips.
- Marking: z_T = s c |N(0,1)|. The signs are fair and independent of the sizes, so z_T is exactly Gaussian for whoever
  lacks the key: pictures have the distribution that they have without the mark. One chip in eight carries the sync
  pattern, signs of the same nonce from a key of its own, in place of s c.
- Detecting: encode, invert the probability flow by DDIM (Song et al. 2021; empty prompt, guidance 1), whatever solver
  made the picture; q = 4 z rounded and clipped. From here on integers alone: under every nonce the chips of each bit
  are summed, Q_b = sum q s; the nonce is read under which the bits stand out most, sum of Q_b^2, and the sync pattern.
- A picture that was turned, mirrored or cropped is put back in many ways, each inverted in a few steps; those that the
  sync pattern fits are inverted fully. The sync signs are independent of the payload's, so this choice costs nothing.

Which message: T = sum Q_b c_b, |Q_b| in whole units, so a wrong bit costs as much as was seen of it, most often little.
Flipping all signs of a bit, under every nonce at once, leaves every |Q_b| and the sync pattern, and so the choice of
nonce and reading, as it was: of pictures made without the key the signs of Q_b are fair coins, and T reaches t with a
chance of P(sum +-|Q_b| >= t), exact (stats). Nonces and readings cost nothing; p_global pays for every message.
There is a second way to a wrong name: pictures that the key made for others, perhaps for several of one case, whose
sums or products mix to a word that nobody wrote. Then the coins are not fair, but each message's bits are fair and
independent of those of all others (payload, `mixable`). So:
- Where at most LISTED messages may be named, all are tried. T counts the 64 bits alone of which most was seen and
  which are independent in a codeword. One law holds there for both ways: without the key the signs are fair coins,
  with it the bits of a message that none of the pictures was made for are.
- Where more may be named, the likeliest codeword is tried alone, on all its bits; its MAC must be right and its numbers
  registered. A word that others mix to opens to one of N messages with N / 2^64, times the keys tried.
Where no message can be read the nearest codeword is scored chip by chip, T = sum q s c (closed bound), and every nonce,
every reading and all 2^64 messages count: that says "this key", and names nobody.

z comes of floats and differs from machine to machine: q is shared between operators, see detect_shared.

Limits: with 4096 nonces two of about 75 pictures share one. Whoever holds the model can invert a marked picture and
start another one from the noise found (Mueller et al., "Black-Box Forgery Attacks on Semantic Watermarks", CVPR 2025):
the mark traces, it convicts nobody. Turned and cropped at once is not searched for.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf, shared, stats
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.payload import MAX_FINGERPRINT, Long, Nameable, PayloadCode, Short
from zhiyi_watermark.pictures import MAX_PIXELS, Picture
from zhiyi_watermark.result import Detection, detection
from zhiyi_watermark.tensorfile import TensorFile, parsed

if TYPE_CHECKING:  # torch is heavy and only the pipeline needs it
    import torch

METHOD: Final = "kgs-5"
NULL: Final = (
    "none of the pictures was made for the message named: either they were made without this key, whose signs are fair "
    "and independent of them, or with it for others, and what theirs mix to opens by chance to a message that may be "
    "named"
)
NULL_KEY: Final = (
    "the pictures were made without this key, whose signs are fair and independent of them"  # names nobody
)
NONCES: Final = 1 << 12
SYNC_PART: Final = 8  # one chip in this many
UNITS: Final = 4  # q of a standard deviation
LEVELS: Final = 15  # |q|
WEIGHTS: Final = 63  # |Q_b| in whole units, where the word is weighed
LISTED: Final = 1 << 17  # messages that may be named, up to which each is tried
SYNC_GAIN: Final = 15  # weight of the sync pattern beside the bits, where the nonce is chosen
READINGS: Final = 5  # of a picture: as it is, and as the sync pattern fits best
SURE: Final = 49  # z^2 of the sync pattern, best of all nonces, at which nothing else is looked for
FITS: Final = 36  # z^2 at which a way to put the picture back is read
LATE: Final = 250  # thousandths of the training steps after which a damaged picture's inversion begins
MIN_CHIPS: Final = 1 << 10
MAX_CHIPS: Final = 1 << 18  # latents of 4 x 256 x 256
MAX_PICTURES: Final = 64  # of a case
MAX_ASPECT: Final = 8

_AT_ONCE: Final = 1 << 20  # chips times nonces summed at once
_WORDS: Final = 1 << 64
_SOLVERS: Final = ("DDIMScheduler", "DPMSolverMultistepScheduler")
_PREDICTIONS: Final = ("epsilon", "v_prediction")
_GRAY: Final = 128  # drawn where a picture does not reach
_PX: Final = 8  # diffusers draws multiples of it
_WHOLE: Final = 1000  # View.scale of a picture that fills the frame

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


# --- the specification --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KgsSpec:
    """The pipeline whose pictures are marked; public, pinned at registration by spec_hash()."""

    model_hash: str  # hex, see model_hash()
    prediction: str  # what the UNet gives: epsilon or v_prediction
    channels: int  # of the latent
    rows: int
    columns: int
    cell: int  # px a side of the picture for one value of the latent
    steps: int = 50  # of the inversion
    search_steps: int = 10  # of the inversions that only the sync pattern is looked for in

    def __post_init__(self) -> None:
        if not isinstance(self.model_hash, str) or not re.fullmatch("[0-9a-f]{64}", self.model_hash):
            raise SpecError(f"model_hash is 64 hexadecimal digits, given {self.model_hash!r:.80}")
        if self.prediction not in _PREDICTIONS:
            raise SpecError(f"prediction {self.prediction!r:.40} must be one of {', '.join(_PREDICTIONS)}")
        for name, low, high in (
            ("channels", 1, 64),
            ("rows", 8, 1024),
            ("columns", 8, 1024),
            ("cell", 1, 64),
            ("steps", 2, 1000),
            ("search_steps", 2, 1000),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise SpecError(f"{name} = {value!r:.40} must be a whole number of {low} .. {high}")
        if not MIN_CHIPS <= self.chips <= MAX_CHIPS:
            raise SpecError(
                f"a latent of {self.channels} x {self.rows} x {self.columns} has {self.chips} values; "
                f"{MIN_CHIPS} to {MAX_CHIPS} carry a message"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the latent: channels, rows, columns."""
        return self.channels, self.rows, self.columns

    @property
    def chips(self) -> int:
        """Values of the latent."""
        return self.channels * self.rows * self.columns

    def to_json(self) -> str:
        """Canonical JSON, read back by from_json."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> KgsSpec:
        """Raises SpecError on anything but the output of to_json."""
        try:
            made = cls(**parsed(text))
        except (ValueError, TypeError) as error:
            raise SpecError(f"not a KGS specification: {error!s:.120}") from error
        if made.to_json() != text:
            raise SpecError("not a KGS specification as to_json writes it")
        return made

    def spec_hash(self) -> bytes:
        """SHA-256 over the spec, the constants of this file and the thresholds: the detector's identity."""
        constants = [
            METHOD, NONCES, SYNC_PART, UNITS, LEVELS, WEIGHTS, LISTED, SYNC_GAIN, READINGS, SURE, FITS, LATE,
            _GRAY,
        ]  # fmt: skip
        limits = [str(x) for x in (stats.TRACE, stats.REJECT, shared.AGREEMENT)]
        return hashlib.sha256(json.dumps([self.to_json(), constants, limits]).encode()).digest()


def model_hash(pipeline: Any) -> str:
    """SHA-256, hex, of what the inversion computes with: the weights of VAE, UNet and text encoders as float32 in the
    order of their names, the noise schedule, the latent's scale and shift, and the tokens of the empty prompt.

    The solver is not in it: the inversion is the same for all. Raises UnavailableError on a pipeline that lacks one.
    """
    state = hashlib.sha256()
    for part in ("vae", "unet", "text_encoder", "text_encoder_2"):
        module: Any = getattr(pipeline, part, None)
        if module is None and part == "text_encoder_2":
            continue
        if module is None or not hasattr(module, "state_dict"):
            raise UnavailableError(
                f"the pipeline has no {part}; give a latent text-to-image pipeline with a UNet"
            )
        state.update(part.encode() + b"\0")
        for name, tensor in sorted(module.state_dict().items()):
            state.update(name.encode() + b"\0")
            state.update(np.ascontiguousarray(tensor.detach().float().cpu().numpy(), dtype="<f4").tobytes())
    state.update(_alphas(pipeline).astype("<f4").tobytes())
    state.update(np.array(_scale(pipeline), dtype="<f8").tobytes())
    for part in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipeline, part, None)
        if tokenizer is not None:
            ids = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
            state.update(np.asarray(ids["input_ids"], dtype="<i4").tobytes())
    return state.hexdigest()


def plan(
    pipeline: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    steps: int = 50,
    search_steps: int = 10,
) -> KgsSpec:
    """The spec of a diffusers latent pipeline (Stable Diffusion 1.5, 2.1, XL class) for pictures of that size in px.

    height, width: unless given those that the pipeline makes by itself.
    Raises SpecError on sizes that the VAE's factor or diffusers' 8 does not divide, UnavailableError on another kind of
    pipeline, or one that tells no size where none is given.
    """
    hashed = model_hash(pipeline)
    config = pipeline.unet.config
    cell: int = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    side = config.sample_size
    own = list(side) if isinstance(side, list | tuple) else [side, side]
    if (height is None or width is None) and [type(value) for value in own] != [int, int]:
        raise UnavailableError(f"the UNet's sample_size is {side!r:.40}; give height and width")
    high: int = height or own[0] * cell
    wide: int = width or own[1] * cell
    whole = math.lcm(cell, _PX)
    if high % whole or wide % whole:
        raise SpecError(f"{wide} x {high} px are no multiples of {whole}, in which the pipeline draws")
    said = str(pipeline.scheduler.config.get("prediction_type", "epsilon"))
    if said not in _PREDICTIONS:
        raise UnavailableError(f"the model predicts {said}; marked are those of {', '.join(_PREDICTIONS)}")
    return KgsSpec(
        hashed, said, int(config.in_channels), high // cell, wide // cell, cell, steps, search_steps
    )


def check_spec(pipeline: Any, spec: KgsSpec) -> None:
    """Raises UnavailableError when the spec is not of this pipeline: of other weights, or says what is not so of it."""
    try:
        own = plan(pipeline, height=spec.rows * spec.cell, width=spec.columns * spec.cell)
    except SpecError as error:
        raise UnavailableError(f"the spec does not fit the pipeline: {error}") from error
    if own.model_hash != spec.model_hash:
        raise UnavailableError(
            f"the pipeline has SHA-256 {own.model_hash[:16]}…, the spec names another model, {spec.model_hash[:16]}…; "
            "give the model that was registered, in the precision it was registered in"
        )
    for name in ("prediction", "channels", "rows", "columns", "cell"):
        found, said = getattr(own, name), getattr(spec, name)
        if found != said:
            raise UnavailableError(
                f"the spec says {name} {said}, the pipeline has {found}; make it anew from the pipeline"
            )


def _alphas(pipeline: Any) -> npt.NDArray[np.float64]:
    """Part of the signal in the variance at every training step, falling.  # (T,)"""
    given = getattr(getattr(pipeline, "scheduler", None), "alphas_cumprod", None)
    if given is None:
        raise UnavailableError(
            "the pipeline's scheduler has no alphas_cumprod; give it a DDIM or DPM-Solver scheduler"
        )
    out = np.asarray(given.double().cpu().numpy(), dtype=np.float64)
    if not (
        len(out) > 1 and (out[:-1] > 0).all() and (np.diff(out) <= 0).all() and out[-1] >= 0 and out[0] <= 1
    ):
        raise UnavailableError(
            "the scheduler's alphas_cumprod do not fall from 1 to 0; its configuration is broken"
        )
    return out


def _scale(pipeline: Any) -> tuple[float, float]:
    """Factor and shift between the VAE's latent and the UNet's."""
    config = pipeline.vae.config
    given = config.scaling_factor, getattr(config, "shift_factor", None) or 0.0
    if not all(type(value) in (int, float) and math.isfinite(value) for value in given) or given[0] <= 0:
        raise UnavailableError(
            f"the VAE's scaling_factor is {given[0]!r:.40} and its shift_factor {given[1]!r:.40}; numbers are wanted, "
            "the first over 0"
        )
    return float(given[0]), float(given[1])


# --- the mark -----------------------------------------------------------------------------------------------


class View(NamedTuple):
    """What may have been done to a picture, and is undone before it is read."""

    turn: int = 0  # degrees counter-clockwise
    scale: int = (
        _WHOLE  # thousandths of the frame's sides that the picture makes up: under 1000 it is cropped
    )
    flip: bool = False  # left and right exchanged
    down: int = 0  # px by which it is put off the middle of the frame, so that its cells fall on the frame's
    right: int = 0
    row: int = 0  # its cell (0, 0) is this one of the frame's; found by the sync pattern
    column: int = 0
    late: bool = False  # inverted from LATE on, not from the first training step


FLIPS: Final = (View(flip=True),)


def wide_views(spec: KgsSpec) -> tuple[View, ...]:
    """Turned by up to 90 degrees or cropped to no less than .6 of the sides; mirrored or not."""
    side = max(spec.rows, spec.columns)
    turn = max(1, 64 // side)
    turned = [View(turn=t) for t in range(-90, 91, turn) if t]
    cropped, scale = [], float(_WHOLE)
    while (scale := scale * (1 - 1 / side)) > 0.6 * _WHOLE:
        places = sorted({0, spec.cell // 2})
        cropped += [View(scale=round(scale), down=y, right=x) for y in places for x in places]
    plain = [*turned, *cropped]
    return (*FLIPS, *plain, *(view._replace(flip=True) for view in plain))


@dataclass(frozen=True, eq=False)
class Noise:
    """The starting noise of one picture as integers, in one or more readings: the object of the test, made without
    the payload's key.

    Readings after the first are those that the sync pattern fits; a cell that the picture does not reach has q = 0.
    """

    q: Int8  # |q| <= LEVELS.  # (readings, channels, rows, columns)
    views: tuple[View, ...]  # of each reading; the first is View()
    spec_hash: str  # hex
    picture_hash: str  # hex, Picture.digest

    def __post_init__(self) -> None:
        if self.q.dtype != np.int8 or self.q.ndim != 4 or not 1 <= len(self.q) == len(self.views) <= READINGS:
            raise SpecError(
                f"q is int8 (1 .. {READINGS}, channels, rows, columns) with a view for each reading, "
                f"given {self.q.dtype} {self.q.shape} and {len(self.views)} views"
            )
        if self.q.size and not -LEVELS <= int(self.q.min()) <= int(self.q.max()) <= LEVELS:
            raise SpecError(
                f"|q| reaches {max(-int(self.q.min()), int(self.q.max()))}; it is at most {LEVELS}"
            )
        for view in self.views:  # 0.0 and false equal 0, and give another digest
            if [type(value) for value in view] != [type(value) for value in View()]:
                raise SpecError(f"{tuple(view)!r:.80} is no view: whole numbers, and whether it is mirrored")
        if not isinstance(self.spec_hash, str) or not isinstance(self.picture_hash, str):
            raise SpecError("spec_hash and picture_hash are hexadecimal digits")

    @property
    def _about(self) -> bytes:
        fields = {
            "method": METHOD,
            "q_sha256": hashlib.sha256(np.ascontiguousarray(self.q).data).hexdigest(),
            "views": self.views,
            "spec_hash": self.spec_hash,
            "picture_hash": self.picture_hash,
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> bytes:
        """SHA-256 over q and all other fields: what the committee writes down. 32 bytes."""
        return hashlib.sha256(b"zhiyi.kgs-noise.v1\0" + self._about).digest()

    def save(self, path: Path) -> None:
        """Writes safetensors: q as int8, and `about`, the other fields with q's hash as JSON bytes.

        Only a new file: raises FileExistsError where there is one, or a link, however broken.
        """
        from safetensors.numpy import save

        q = np.ascontiguousarray(self.q)
        data = save({"about": np.frombuffer(self._about, dtype=np.uint8), "q": q})
        with path.open("xb") as file:
            file.write(data)

    @classmethod
    def load(cls, path: Path) -> Noise:
        """What save wrote. Raises CarrierError on any other or a changed file."""
        with TensorFile(path) as file:
            entries = {e.name: e for e in file.entries}
            try:
                kinds = {name: (entry.dtype, len(entry.shape)) for name, entry in entries.items()}
                if kinds != {"about": ("U8", 1), "q": ("I8", 4)} or entries["about"].count > 4096:
                    raise ValueError("it has other tensors than `about` and `q`")
                if entries["q"].count > READINGS * MAX_CHIPS:
                    raise ValueError(f"q has {entries['q'].count} values")
                written = file.raw(entries["about"])
                about = parsed(written)
                q = np.frombuffer(file.raw(entries["q"]), dtype=np.int8).reshape(entries["q"].shape)
                views = tuple(View(*view) for view in about["views"])
                made = cls(q, views, about["spec_hash"], about["picture_hash"])
                if made._about != written:
                    raise ValueError("its hash is wrong")
            except (ValueError, TypeError, KeyError, SpecError) as error:
                raise CarrierError(f"{path.name} is no KGS noise: {error!s:.120}") from error
        return made


class Chosen(NamedTuple):
    """The reading and the nonce under which a picture's coded bits stand out most."""

    reading: int
    nonce: int
    sums: Int64  # Q_b.  # (127,)


class Likeliest(NamedTuple):
    """A message, and how much of what was seen speaks for it."""

    message: Long | None  # None: the likeliest word is nobody's who may be named
    sums: Int64  # Q_b in whole units, of the bits that count
    total: int  # T = sum Q_b c_b


@dataclass(frozen=True, repr=False)
class Kgs:
    """The mark under one model key, for one pipeline."""

    key: bytes
    spec: KgsSpec

    def __post_init__(self) -> None:
        prf.check_key(self.key)

    @cached_property
    def code(self) -> PayloadCode:
        """Messages to coded bits."""
        return PayloadCode(prf.derive_key(self.key, "kgs payload"), long=True, mixable=True)

    @property
    def kit_key(self) -> bytes:
        """Key of Detection.digest."""
        return prf.derive_key(self.key, "kgs digest")

    @cached_property
    def _places(self) -> tuple[Int64, Int64, Int64]:
        """Chips of the sync pattern; chips that carry bits, those of bit 0 first; where each bit's begin."""
        order = prf.permutation(prf.derive_key(self.key, "kgs layout"), self.spec.chips)
        cut = self.spec.chips // SYNC_PART
        bit = np.arange(self.spec.chips - cut) % self.code.bits
        by_bit = np.argsort(bit, kind="stable")
        begins = np.searchsorted(bit[by_bit], np.arange(self.code.bits))
        return order[:cut], order[cut:][by_bit], begins

    @property
    def _chips_a_bit(self) -> Int64:
        """Chips of each coded bit.  # (127,)"""
        return np.diff(self._places[2], append=len(self._places[1]))

    @cached_property
    def _packed(self) -> npt.NDArray[np.uint8]:
        """Signs of the chips that carry bits under every nonce, a bit each: 2 MB for 4 x 32 x 32, 117 for MAX_CHIPS.

        # (NONCES, payload chips / 8)
        """
        count = -(-len(self._places[1]) // 8)
        out = np.empty((NONCES, count), dtype=np.uint8)
        for nonce in range(NONCES):
            out[nonce] = prf.keystream(prf.derive_key(self.key, "kgs chips", nonce), count)
        return out

    def _signs_of(self, nonces: slice) -> Int8:
        """±1 of the chips that carry bits, in the order of _places.  # (nonces, payload chips)"""
        bits = np.unpackbits(self._packed[nonces], axis=1, count=len(self._places[1]))
        out: Int8 = (bits.view(np.int8) << 1) - np.int8(1)
        return out

    def _signs(self, nonce: int) -> Int8:
        """The same of one nonce, without the table: marking needs no other.  # (payload chips,)"""
        return prf.signs(prf.derive_key(self.key, "kgs chips", nonce), len(self._places[1]))

    @cached_property
    def _sync(self) -> Float32:
        """±1 of the sync pattern under every nonce, in the order of _places.  # (NONCES, sync chips)"""
        key = prf.derive_key(self.key, "kgs sync")
        count = len(self._places[0])
        out = np.empty((NONCES, count), dtype=np.float32)
        for nonce in range(NONCES):
            out[nonce] = prf.signs(prf.derive_key(key, "kgs sync of a nonce", nonce), count)
        return out

    # --- marking

    def signs(self, payload: Long, nonce: int) -> Int8:
        """The signs of a picture's starting noise.  # (channels, rows, columns)

        Raises SpecError on a payload or nonce out of range.
        """
        if not 0 <= nonce < NONCES:
            raise SpecError(f"nonce {nonce} is outside 0 .. {NONCES - 1}")
        sync, chips, _ = self._places
        out = np.empty(self.spec.chips, dtype=np.int8)
        out[chips] = self._signs(nonce) * np.repeat(self.code.signs(payload), self._chips_a_bit)
        key = prf.derive_key(self.key, "kgs sync")
        out[sync] = prf.signs(prf.derive_key(key, "kgs sync of a nonce", nonce), len(sync))
        return out.reshape(self.spec.shape)

    def latents(self, payloads: Sequence[Long], nonces: Sequence[int], rng: np.random.Generator) -> Float32:
        """Starting noise for any latent pipeline: one picture's for each payload and nonce. Exactly N(0, 1).

        rng: draws the sizes; its seed must not tell the nonces.  # (pictures, channels, rows, columns)
        Raises SpecError on payloads or nonces out of range, or not as many of both.
        """
        if len(payloads) != len(nonces):
            raise SpecError(f"{len(payloads)} payloads and {len(nonces)} nonces: one of each a picture")
        out: Float32 = np.abs(rng.standard_normal((len(payloads), *self.spec.shape), dtype=np.float32))
        for made, payload, nonce in zip(out, payloads, nonces, strict=True):
            made *= self.signs(payload, nonce)
        return out

    # --- detecting

    def sync_fit(self, q: Int8, reach: int = 0) -> tuple[int, int, int, int]:
        """How well the sync pattern fits one reading: the best of all nonces and of moves by up to `reach` cells.

        Returns T, sum q^2, rows and columns moved: cell (y, x) of q is the frame's (y + rows, x + columns).
        q: |q| <= LEVELS.  # (channels, rows, columns)
        """
        sync = self._places[0]
        moves = [(r, c) for r in range(-reach, reach + 1) for c in range(-reach, reach + 1)]
        rows = np.stack([moved(q, r, c).reshape(-1)[sync] for r, c in moves]).astype(np.float32)
        totals = rows @ self._sync.T  # sums of integers under 2^24: exact  # (moves, NONCES)
        best = totals.max(axis=1)
        squares = np.einsum("ij,ij->i", rows, rows)
        at = int(np.argmax(np.maximum(best, 0) ** 2 / np.maximum(squares, 1)))
        return int(best[at]), int(squares[at]), *moves[at]

    def chosen(self, noise: Noise) -> Chosen:
        """The reading and nonce with the largest (sum Q_b^2 + SYNC_GAIN rms(q) T) / sum q^2, T of the sync pattern.

        That is the likelihood of a faint mark to second order, where a chip's size holds 2 / SYNC_GAIN of it. Exact,
        rms(q) in whole 1024ths; ties to the first.
        """
        self._own(noise)
        sync, chips, begins = self._places
        flat = noise.q.reshape(len(noise.q), -1)
        patterns = flat[:, sync].astype(np.float32)
        carrying = flat[:, chips].astype(np.int16)
        squares = (flat.astype(np.int64) ** 2).sum(axis=1).tolist()
        gains = [SYNC_GAIN * math.isqrt((square << 20) // flat.shape[1]) for square in squares]
        best: tuple[Fraction, Chosen] | None = None
        tops: list[tuple[int, Chosen] | None] = [None] * len(flat)
        for low in range(0, NONCES, size := max(1, _AT_ONCE // len(chips))):
            signs, here = self._signs_of(slice(low, low + size)), self._sync[low : low + size]
            for i, reading in enumerate(carrying):
                sums = np.add.reduceat(signs * reading, begins, axis=1, dtype=np.int64)
                fits = (here @ patterns[i]).astype(np.int64)  # sums of integers under 2^24: exact
                scores = ((sums * sums).sum(axis=1) << 10) + gains[i] * fits
                at = int(np.argmax(scores))
                top = tops[i]
                if top is None or int(scores[at]) > top[0]:
                    tops[i] = int(scores[at]), Chosen(i, low + at, sums[at])
        for top, square in zip(tops, squares, strict=True):
            assert top is not None
            share = Fraction(top[0], max(1, square))
            if best is None or share > best[0]:
                best = share, top[1]
        assert best is not None
        return best[1]

    def _own(self, noise: Noise) -> None:
        if noise.spec_hash != self.spec.spec_hash().hex() or noise.q.shape[1:] != self.spec.shape:
            raise SpecError("the noise was read for another specification; read it anew from the picture")

    def verdict(
        self,
        noises: Sequence[Noise],
        users: int | Collection[int],
        fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
        *,
        models: int = 1,
    ) -> Detection:
        """Whose message is in these pictures together, all committed before detection; equal ones count once.

        users: the registered user numbers, or how many (then 0 .. users-1); fingerprints: the same for the license's
        number, all 2^28 unless given; models: how many keys are tried on these pictures. Pictures with one nonce are
        added up chip by chip: each sign is used once. A payload is given only where p_global <= 1e-6.
        Raises SpecError on numbers out of range, another spec, or too many pictures.
        """
        distinct = list({noise.picture_hash: noise for noise in noises}.values())
        if not 1 <= len(distinct) <= MAX_PICTURES:
            raise SpecError(f"a case has 1 .. {MAX_PICTURES} pictures, given {len(distinct)}")
        known = Nameable.of(users, fingerprints)
        q, bits_signs, sums = self._together([(noise, self.chosen(noise)) for noise in distinct])

        # the message and the bare key are two questions: each pays for both
        word = self._likeliest(sums, known)
        fair = stats.sign_tail(word.sums, word.total)
        count = stats.hypotheses(models=models, licenses=known.count, windows=2)
        besides = models * self.code.wrong_message(known)
        if word.message is not None and fair.at_most(stats.TRACE, count, besides):
            return detection(
                fair,
                method=METHOD,
                license=word.message.fingerprint,
                payload=self.code.message(word.message),
                n=int(np.count_nonzero(word.sums)),
                T=word.total,
                sum_q2=int((word.sums * word.sums).sum()),
                hypotheses=count,
                besides=besides,
                threshold=stats.TRACE,
                null=NULL,
                spec_hash=self.spec.spec_hash(),
            )
        nearest = 2 * self.code.nearest(sums).astype(np.int8) - np.int8(1)
        test = stats.chip_test(q, bits_signs * np.repeat(nearest, self._chips_a_bit))
        tries = 2 * (NONCES * READINGS) ** len(distinct)
        return detection(
            test.tail(),
            method=METHOD,
            license=None,
            n=test.n,
            T=test.total,
            sum_q2=test.sum_q2,
            hypotheses=stats.hypotheses(models=models, licenses=_WORDS, windows=tries),
            threshold=stats.TRACE,
            null=NULL_KEY,
            spec_hash=self.spec.spec_hash(),
        )

    def _likeliest(self, sums: Int64, known: Nameable) -> Likeliest:
        """Of the messages that may be named the one that the bits speak for most, if it is one alone."""
        weighed = stats.BitSums(sums).quantised(WEIGHTS).q
        if known.count > LISTED:  # too many to try: the likeliest codeword alone
            word = self.code.nearest(sums)
            found = self.code.decode(word)
            total = int((weighed * (2 * word.astype(np.int64) - 1)).sum())
            return Likeliest(found if isinstance(found, Long) and found in known else None, weighed, total)
        messages, words = self._listed(known)
        places = self.code.independent(sums)
        totals = words[:, places].astype(np.int64) @ weighed[places]
        at = int(np.argmax(totals))
        alone = np.count_nonzero(totals == totals[at]) == 1
        message = messages[at]
        assert isinstance(message, Long)
        return Likeliest(message if alone else None, weighed[places], int(totals[at]))

    @cached_property
    def _lists(self) -> dict[Nameable, tuple[list[Long] | list[Short], Int8]]:
        return {}

    def _listed(self, known: Nameable) -> tuple[list[Long] | list[Short], Int8]:
        """PayloadCode.listed, the last one kept."""
        if known not in self._lists:
            self._lists.clear()
            self._lists[known] = self.code.listed(known)
        return self._lists[known]

    def bits(self, noises: Sequence[Noise]) -> npt.NDArray[np.uint8]:
        """The 64 bits of the nearest message, registered and authentic or not: for counting wrong bits."""
        return self.code.data_bits(self._together([(noise, self.chosen(noise)) for noise in noises])[2])

    def _together(self, case: Sequence[tuple[Noise, Chosen]]) -> tuple[Int64, Int8, Int64]:
        """q of all chips that carry bits, added over pictures of one nonce; their signs; Q_b.

        # (nonces, payload chips) both, (127,)
        """
        chips = self._places[1]
        rows: dict[int, Int64] = {}
        for noise, at in case:
            q = noise.q[at.reading].reshape(-1)[chips].astype(np.int64)
            rows[at.nonce] = rows[at.nonce] + q if at.nonce in rows else q
        total = np.sum([at.sums for _, at in case], axis=0)
        return np.stack(list(rows.values())), np.stack([self._signs(nonce) for nonce in rows]), total


def moved(q: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[Any]:
    """Cell (y, x) put to (y + rows, x + columns), zeros where nothing comes from.  # (..., rows, columns)"""
    out = np.zeros_like(q)
    high, wide = q.shape[-2:]
    out[..., max(0, rows) : high + min(0, rows), max(0, columns) : wide + min(0, columns)] = q[
        ..., max(0, -rows) : high - max(0, rows), max(0, -columns) : wide - max(0, columns)
    ]
    return out


def compare_shared(
    mark: Kgs,
    given: Sequence[Noise],
    ours: Sequence[Noise],
    users: int | Collection[int],
    fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
    *,
    models: int = 1,
) -> shared.Shared:
    """The detection on the first operator's integers, which every operator gets alike, beside that on one's own.

    given, ours: of the same pictures in the same order.
    Raises UnavailableError when they are of other pictures, specs or views.
    """
    about = [[(n.picture_hash, n.spec_hash, n.views) for n in noises] for noises in (given, ours)]
    if about[0] != about[1] or not about[0]:
        raise UnavailableError("the shared noise and ours are of different pictures, specifications or views")
    share = min(
        shared.agreement(a, b)
        for one, other in zip(ours, given, strict=True)
        for a, b in zip(one.q, other.q, strict=True)
    )
    said, own = (mark.verdict(noises, users, fingerprints, models=models) for noises in (given, ours))
    return shared.Shared(share, said, own)


def detect_shared(
    mark: Kgs,
    given: Sequence[Noise],
    ours: Sequence[Noise],
    users: int | Collection[int],
    fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
    *,
    models: int = 1,
) -> Detection:
    """The detection on the first operator's integers, checked against one's own.

    Raises as compare_shared, and CarrierError as shared.accepted.
    """
    return compare_shared(mark, given, ours, users, fingerprints, models=models).accepted()


# --- the pipeline, in floats --------------------------------------------------------------------------------


class Made(NamedTuple):
    """A marked picture, and what its maker logs of it."""

    picture: Picture
    nonce: int


def check_solver(pipeline: Any) -> None:
    """Raises UnavailableError on a pipeline whose scheduler adds noise on the way."""
    name = type(pipeline.scheduler).__name__
    if name not in _SOLVERS or str(pipeline.scheduler.config.get("algorithm_type", "")).startswith("sde"):
        raise UnavailableError(f"{name} may add noise on the way; use one of {', '.join(_SOLVERS)} (no sde)")


def generate(
    pipeline: Any,
    mark: Kgs,
    prompts: Sequence[str],
    payload: Long,
    *,
    seed: int,
    nonces: Sequence[int] | None = None,
    steps: int = 50,
    guidance: float = 7.5,
) -> list[Made]:
    """Pictures of the prompts, all with one payload, each with a nonce of its own (drawn unless given).

    seed: the same for the same pictures again; the sizes of the noise come of it with key, nonce and payload, so one
    seed may be used for all. pipeline: the one that the mark's spec was made of, by class and size; its weights are
    not hashed again here.
    Raises SpecError on payloads, nonces or prompts that do not fit, UnavailableError on a scheduler that adds noise or
    a pipeline that draws no numbers.
    """
    import torch

    check_solver(pipeline)
    if not prompts:
        raise SpecError("no prompts given; one a picture")
    spec = mark.spec
    drawn = list(nonces) if nonces is not None else [secrets.randbelow(NONCES) for _ in prompts]
    if len(drawn) != len(prompts):
        raise SpecError(f"{len(prompts)} prompts need as many nonces, given {len(drawn)}")
    rows = []
    for nonce in drawn:
        sizes = prf.derive_key(mark.key, "kgs sizes", seed, nonce, payload.fingerprint, payload.user)
        rows.append(mark.latents([payload], [nonce], np.random.default_rng(int.from_bytes(sizes, "big"))))
    noise = torch.from_numpy(np.concatenate(rows))
    images = pipeline(
        prompt=list(prompts),
        latents=noise.to(pipeline.unet.device, pipeline.unet.dtype),
        height=spec.rows * spec.cell,
        width=spec.columns * spec.cell,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="np",
    ).images
    if not bool(np.isfinite(images).all()):
        raise UnavailableError("the pipeline draws infinite values; load it as float32")
    pixels = np.clip(np.rint(np.asarray(images) * 255), 0, 255).astype(np.uint8)
    return [Made(Picture(rgb), nonce) for rgb, nonce in zip(pixels, drawn, strict=True)]


class Inverter:
    """A pipeline that reads pictures back to their starting noise, in batches."""

    def __init__(self, pipeline: Any, spec: KgsSpec, *, batch: int = 8) -> None:
        """pipeline: as loaded for making pictures; left as it is. batch: pictures inverted at once.

        Raises UnavailableError when it is not the spec's, SpecError on a batch under 1.
        """
        if batch < 1:
            raise SpecError(f"batch = {batch} must be at least 1")
        check_spec(pipeline, spec)
        self.spec = spec
        self.batch = batch
        self._pipeline = pipeline
        self._conditions = _unprompted(pipeline, spec)

    def noise(self, picture: Picture, mark: Kgs, views: Sequence[View] = FLIPS) -> Noise:
        """The picture's readings: as it is; unless the sync pattern is plain there, the same inverted from LATE on; and
        unless it is plain there either, as it fits best when the views are undone.

        views: () to look for none, FLIPS, or wide_views(spec): hundreds of inversions.

        Raises SpecError on a mark of another spec and on late views, UnavailableError on sizes that are not examined.
        """
        return self.noises([picture], mark, views)[0]

    def noises(self, pictures: Sequence[Picture], mark: Kgs, views: Sequence[View] = FLIPS) -> list[Noise]:
        """noise() of several pictures, inverted together."""
        if mark.spec != self.spec:
            raise SpecError("the mark is of another specification than the pipeline")
        if late := [view for view in views if view.late]:
            raise SpecError(
                f"{late[0]} is late; pictures are read late where they need it, views say how they lie"
            )
        for picture in pictures:
            check_size(picture)
        found = [[View()] for _ in pictures]
        read = [q[None] for q in self._read([(picture, View()) for picture in pictures], self.spec.steps)]
        damaged = [i for i, q in enumerate(read) if not _reaches(mark.sync_fit(q[0]), SURE)]
        again = self._read([(pictures[i], View(late=True)) for i in damaged], self.spec.search_steps)
        for i, q in zip(damaged, again, strict=True):
            found[i].append(View(late=True))
            read[i] = np.stack([read[i][0], q])
            if views and not _reaches(mark.sync_fit(q), SURE):
                found[i] += self._fitting(pictures[i], mark, views)[: READINGS - 2]
                more = self._read([(pictures[i], view) for view in found[i][2:]], self.spec.steps)
                read[i] = np.concatenate([read[i], more])
        return [
            Noise(q, tuple(kept), self.spec.spec_hash().hex(), picture.digest.hex())
            for picture, kept, q in zip(pictures, found, read, strict=True)
        ]

    def _fitting(self, picture: Picture, mark: Kgs, views: Sequence[View]) -> list[View]:
        """Those at which the sync pattern fits, the best first, and where."""
        hits = []
        tries = self._read([(picture, view) for view in views], self.spec.search_steps)
        for view, tried in zip(views, tries, strict=True):
            fit = mark.sync_fit(tried, self._reach(view))
            if _reaches(fit, FITS):
                hits.append((Fraction(fit[0] ** 2, fit[1]), view._replace(row=fit[2], column=fit[3])))
        hits.sort(key=lambda hit: hit[0], reverse=True)
        return [view for _, view in hits]

    def _reach(self, view: View) -> int:
        """By how many cells a cropped picture may lie off the middle of the frame."""
        if view.scale >= _WHOLE:
            return 0
        return math.ceil(max(self.spec.rows, self.spec.columns) * (_WHOLE - view.scale) / (2 * _WHOLE))

    def _read(self, framed: Sequence[tuple[Picture, View]], steps: int) -> Int8:
        """q of each picture when its view is undone, all of them late or none.  # (pairs, channels, rows, columns)"""
        import torch

        out = np.zeros((len(framed), *self.spec.shape), dtype=np.int8)
        for low in range(0, len(framed), self.batch):
            batch = framed[low : low + self.batch]
            frames = [_framed(picture, view, self.spec) for picture, view in batch]
            pixels = np.stack([frame for frame, _ in frames]).astype(np.float32) / 127.5 - 1
            with torch.inference_mode():
                z = self.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2))
                z = self.invert(z, steps, late=batch[0][1].late)
            values = z.float().cpu().numpy()
            if not bool(np.isfinite(values).all()):
                raise UnavailableError("the inversion gives infinite values; load the pipeline as float32")
            q = np.clip(np.rint(UNITS * values), -LEVELS, LEVELS).astype(np.int8)
            for i, ((_, view), (_, inside)) in enumerate(zip(batch, frames, strict=True)):
                out[low + i] = moved(q[i] * inside, view.row, view.column)
        return out

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures in -1 .. 1 to the UNet's latents.  # (n, 3, height, width) -> (n, channels, rows, columns)"""
        vae = self._pipeline.vae
        factor, shift = _scale(self._pipeline)
        made = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode()
        latents: torch.Tensor = ((made - shift) * factor).to(self._pipeline.unet.dtype)
        return latents

    def invert(self, latents: torch.Tensor, steps: int, *, late: bool = False) -> torch.Tensor:
        """The noise that leads to these latents without a prompt: DDIM's step, taken backwards.  # as given

        From t = 0 to the last training step T-1, x_t' = sqrt(a') x_0 + sqrt(1-a') eps with x_0 and eps as the UNet
        sees them at t. late: from t = LATE T / 1000, where the latents times sqrt(a) are taken for x_t: at the first
        steps the UNet takes what an attack did to a picture for a little noise, and makes it large.
        """
        import torch

        alphas = _alphas(self._pipeline)
        unet = self._pipeline.unet
        conditions = {
            name: value.expand(len(latents), *value.shape[1:]) for name, value in self._conditions.items()
        }
        hidden = conditions.pop("encoder_hidden_states")
        begin = LATE * (len(alphas) - 1) // 1000 if late else 0
        x = latents * math.sqrt(alphas[begin]) if late else latents
        for now, then in pairwise(
            np.rint(np.linspace(begin, len(alphas) - 1, steps + 1)).astype(int).tolist()
        ):
            signal, rest = math.sqrt(alphas[now]), math.sqrt(1 - alphas[now])
            out = unet(
                x,
                torch.tensor(now, device=x.device),
                encoder_hidden_states=hidden,
                added_cond_kwargs=conditions or None,
                return_dict=False,
            )[0]
            if self.spec.prediction == "v_prediction":
                start, eps = signal * x - rest * out, signal * out + rest * x
            else:
                start, eps = (x - rest * out) / signal, out
            x = math.sqrt(alphas[then]) * start + math.sqrt(1 - alphas[then]) * eps
        return x


@dataclass(frozen=True, eq=False)
class KgsReader:
    """The mark with the pipeline that reads it: what detect() takes."""

    mark: Kgs
    model: Inverter
    views: Sequence[View] = FLIPS
    _read: dict[bytes, Noise] = field(default_factory=dict, init=False, repr=False)

    def detect(
        self,
        picture: Picture,
        users: int | Collection[int],
        fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
        *,
        models: int = 1,
    ) -> Detection:
        """Whose message is in one picture; see Kgs.verdict and Inverter.noise."""
        return self.detect_case([picture], users, fingerprints, models=models)

    def detect_case(
        self,
        pictures: Sequence[Picture],
        users: int | Collection[int],
        fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
        *,
        models: int = 1,
    ) -> Detection:
        """Whose message is in these pictures together, all committed before detection; equal ones count once.

        They are inverted together, the model's `batch` at once.
        """
        distinct = {picture.digest: picture for picture in pictures}
        unread = [picture for digest, picture in distinct.items() if digest not in self._read]
        found = dict(self._read)
        for picture, noise in zip(unread, self.model.noises(unread, self.mark, self.views), strict=True):
            found[picture.digest] = self._kept(picture, noise)
        return self.mark.verdict([found[digest] for digest in distinct], users, fingerprints, models=models)

    def noise(self, picture: Picture) -> Noise:
        """The picture's readings, see Inverter.noise; those of the last picture that was read are kept."""
        if picture.digest in self._read:
            return self._read[picture.digest]
        return self._kept(picture, self.model.noise(picture, self.mark, self.views))

    def _kept(self, picture: Picture, noise: Noise) -> Noise:
        self._read.clear()
        self._read[picture.digest] = noise
        return noise


def check_size(picture: Picture) -> None:
    """Raises UnavailableError on a picture that is too small, too large or too long."""
    height, width = picture.rgb.shape[:2]
    short, long = min(height, width), max(height, width)
    if short < 8 or long > MAX_ASPECT * short or height * width > MAX_PIXELS:
        raise UnavailableError(
            f"the picture has {width} x {height} px; read are pictures of at least 8 px a side, at most "
            f"{MAX_ASPECT} : 1 and {MAX_PIXELS} px"
        )


def _reaches(fit: tuple[int, int, int, int], square: int) -> bool:
    """Whether z > 0 and z^2 >= square."""
    return fit[0] > 0 and fit[0] ** 2 >= square * fit[1]


def _unprompted(pipeline: Any, spec: KgsSpec) -> dict[str, torch.Tensor]:
    """What the UNet is given for the empty prompt, one row each; with two text encoders what XL models want too."""
    import torch

    with torch.inference_mode():
        device, dtype = pipeline.unet.device, pipeline.unet.dtype
        given = pipeline.encode_prompt(
            prompt="", device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        out = {"encoder_hidden_states": given[0].to(device, dtype)}
        if getattr(pipeline, "text_encoder_2", None) is not None:
            height, width = spec.rows * spec.cell, spec.columns * spec.cell
            sizes = torch.tensor([[height, width, 0, 0, height, width]], device=device, dtype=dtype)
            out |= {"text_embeds": given[2].to(device, dtype), "time_ids": sizes}
    return out


def _framed(
    picture: Picture, view: View, spec: KgsSpec
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """The picture in the pipeline's size with a view undone, and the cells that it fills.

    # (height, width, 3), (rows, columns)
    """
    from PIL import Image

    height, width = spec.rows * spec.cell, spec.columns * spec.cell
    image = Image.fromarray(picture.rgb)
    if view.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    size = max(1, width * view.scale // _WHOLE), max(1, height * view.scale // _WHOLE)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    mask = Image.new("L", size, 255)
    if view.turn:
        fill = (_GRAY, _GRAY, _GRAY)
        image = image.rotate(-view.turn, Image.Resampling.BICUBIC, fillcolor=fill)
        mask = mask.rotate(-view.turn, Image.Resampling.NEAREST, fillcolor=0)
    left, top = ((w - s) // (2 * spec.cell) * spec.cell for w, s in zip((width, height), size, strict=True))
    frame, filled = (
        Image.new("RGB", (width, height), (_GRAY, _GRAY, _GRAY)),
        Image.new("L", (width, height), 0),
    )
    frame.paste(image, (left + view.right, top + view.down))
    filled.paste(mask, (left + view.right, top + view.down))
    cells = np.asarray(filled).reshape(spec.rows, spec.cell, spec.columns, spec.cell)
    return np.asarray(frame), cells.min(axis=(1, 3)) == 255
