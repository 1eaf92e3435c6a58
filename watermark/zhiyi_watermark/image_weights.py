"""LKD: a license's word in the weights of a diffusion model's decoder, read from every picture that it decodes.

Class of method: Stable Signature (Fernandez et al., "The Stable Signature: Rooting Watermarks in Latent Diffusion
Models", ICCV 2023) with weight modulation in place of fine-tuning (after Kim et al., "WOUAF: Weight Modulation for User
Attribution and Fingerprinting in Text-to-Image Diffusion Models", CVPR 2024).
Symbols: c = ±1 the word of a license, one sign a bit, drawn from the model's key and the hash of the extractor; W, b
weight and bias of a decoder's convolution; gain G, mix M, left U and right V what was trained once for all words.
- Issuing: W' = (1 + G c) W + U diag(M c) V and b' = (1 + G c) b, row by row, in every 3 x 3 convolution of the decoder.
  What is delivered is an ordinary AutoencoderKL, with nothing beside it that could be taken off. Then the channels
  inside every residual block are put in another order, and groups of them turned and rescaled, which leaves what the
  decoder computes as it was: copies of two licenses, as they are, can't be averaged weight by weight. Whoever has two
  copies, or the base, can undo that: shifts of a normalisation are only put in another order, so sorting them tells it.
- Reading: a convolutional net with int8 weights (Class B): every sum stays under 2^24, so that float32 holds it exactly
  in whatever order it is added up; one picture at a time. q = an integer a bit, clipped.
- Pictures of a case are added bit by bit; T = sum Q_b c_b.

Only hypothesis (b) is tested: the word of a license is fair and independent of every picture that its copy did not
make, and of the net, so the law of T is exact, whatever the net says of such a picture. That takes an order: first the
net, then the key. A net made for a known word would read that word in any picture. So words are drawn from the net's
hash besides: another net has other words, and who knows the key has to try nets until chance makes one fit, as keys
could be tried for a net. Nothing here shows which was first; register spec_hash() before the model's key is drawn.
Among the ways to put back a picture that was turned, mirrored or resized the one with the largest sum |q| is read. No
word is used for that, so it costs nothing.

64 bits among 10^5 licenses: a trace at 10^-6 stands 5 or 6 wrong bits of 64 that weigh alike. A detection at 2^-43
needs p of 2^-59.6, so all bits right but at most a few that hardly weigh: of several pictures added, seldom of one.
64 bits hold no allowance of 2^40 for ground keys or nets; where a case asks for it, plan for 128.

Limits: the extractor and the trained modulation stay with the seller. Who has both and one picture of a copy, without
the key, makes that copy's decoder, and can take its word off; who has the base decoder swaps it in; who has copies of
several licenses and puts their channels in order can average them: bits in which they differ cancel, of 64 too many for
a name. Whoever has a copy can draw pictures with it, so a name is that of a copy, not of a hand. Fine-tuning the
decoder at the cost of quality removes the word in the end. A picture without texture holds few bits.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf, stats
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.pictures import MAX_PIXELS, Picture
from zhiyi_watermark.result import Detection, detection
from zhiyi_watermark.tensorfile import (
    FLOATS,
    Checkpoint,
    Entry,
    TensorFile,
    appear,
    check_out,
    copy_bundle,
    files_of,
    from_storage,
    parsed,
    scratch_beside,
    to_storage,
)
from zhiyi_watermark.weights import MAX_LICENSES, TensorShape

METHOD: Final = "lkd-1"
NULL: Final = (
    "the extractor was fixed before the model's key was drawn, and none of the pictures was decoded by this license's "
    "copy or made to carry its word: the bits of its word are fair and independent of both"
)
MIN_BITS: Final = 8  # too few to name anybody among many; for experiments
MAX_BITS: Final = 256
LEVELS: Final = 15  # |q| of one picture
MAX_PICTURES: Final = 64  # of a case
MIN_SIDE: Final = 16  # px
MAX_ASPECT: Final = 4
NATIVE: Final = 2  # a picture of at most so many times the extractor's side is also read as it is
SHIFT: Final = 24  # of the factors that bring sums back to 8 bits
KERNEL: Final = 3  # px, of all layers
MAX_ACTIVATIONS: Final = 1 << 27  # of one layer, of the largest picture that is read; float32
MAX_RELATIVE: Final = 32.0  # |W' - W| / |W| of a convolution
VAE: Final = "vae"  # the part of a pipeline
INDEX: Final = "model_index.json"
MODULATION: Final = "modulation.safetensors"  # of a folder of parts, by scripts/train_lkd.py
EXTRACTOR: Final = "extractor.safetensors"

_EXACT: Final = 1 << 24  # sums of integers up to here are exact in float32
_TOP: Final = 255  # largest activation
_MIDDLE: Final = 128  # of the pixels, taken off
_POOLED: Final = 256  # fixed point of the mean activation
_TURN: Final = 16  # the turn k is by 2 arctan(k / 16)
_TURNED: Final = (0, 1, 2, 3, 4, 5, 7, 9, 11, 13, 16)  # k: 0, 7, 14, 21, 28, 35, 47, 59, 69, 78, 90 degrees
_AT_ONCE: Final = 1 << 14  # words compared at once
_CELLS: Final = 1 << 18  # numbers of a picture worked on at once: what the cache of a core holds
_DECODING: Final[Mapping[str, Any]] = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [64],
    "force_upcast": True,
    "latent_channels": 4,
    "latents_mean": None,
    "latents_std": None,
    "layers_per_block": 1,
    "mid_block_add_attention": True,
    "norm_num_groups": 32,
    "out_channels": 3,
    "quantization_config": None,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "up_block_types": ["UpDecoderBlock2D"],
    "use_post_quant_conv": True,
}  # what in an AutoencoderKL's config.json changes pictures, and what diffusers takes where it is not said
_MAX_CONFIG: Final = 1 << 16  # bytes
_MAX_INDEX: Final = 1 << 16  # bytes
_RESIDUAL: Final = re.compile(r"(.*\bdecoder\..*resnets\.\d+)\.conv1\.weight")
_OWN: Final = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")  # of an AutoencoderKL's tensors
_FACTORS: Final = (0.5, 1.0, 2.0)  # of a group's channels; powers of two round nothing
_PARTS: Final = ("gain", "left", "right", "mix")

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


# --- words --------------------------------------------------------------------------------------------------


def word(model_key: bytes, license: int, bits: int, net_hash: bytes) -> Int8:
    """The signs of one license.  # (bits,)"""
    out: Int8 = words(model_key, [license], bits, net_hash)[0]
    return out


def words(model_key: bytes, licenses: Sequence[int], bits: int, net_hash: bytes) -> Int8:
    """-1 / +1, a row for every license. net_hash: of the extractor that reads them.  # (licenses, bits)

    Raises SpecError.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise SpecError(f"a word has {MIN_BITS} to {MAX_BITS} bits, asked for {bits}")
    if len(net_hash) != 32:
        raise SpecError(f"an extractor's hash has 32 bytes, given {len(net_hash)}; take Extractor.net_hash()")
    drawn = b"".join(prf.derive_key(model_key, "lkd word", net_hash, license) for license in licenses)
    rows = np.frombuffer(drawn, dtype=np.uint8).reshape(len(licenses), prf.KEY_BYTES)
    out: Int8 = (np.unpackbits(rows, axis=1, count=bits).view(np.int8) << 1) - np.int8(1)
    return out


# --- issuing ------------------------------------------------------------------------------------------------


class LayerModulation(NamedTuple):
    """How the words change one convolution."""

    gain: Float32  # (out, bits)
    left: Float32  # (out, rank)
    right: Float32  # (rank, in, 3, 3)
    mix: Float32  # (rank, bits)

    def folded(self, weight: Float32, bias: Float32, word: Int8) -> tuple[Float32, Float32]:
        """Weight and bias of the copy with this word.  # (out, in, 3, 3), (out,)"""
        signs = word.astype(np.float32)
        gains = 1 + self.gain @ signs
        added = (self.left * (self.mix @ signs)) @ self.right.reshape(len(self.right), -1)
        return (
            weight * gains[:, None, None, None] + added.reshape(weight.shape),
            bias * gains,
        )


@dataclass(frozen=True, eq=False)
class Modulation:
    """What was trained once for a decoder and all words; secret to the seller."""

    layers: Mapping[str, LayerModulation]  # by the name of the convolution: decoder.conv_in, ...
    base_hash: str  # hex, SHA-256 of the decoder before, see decoder_hash()
    config: Mapping[str, Any]  # of that decoder, see decoder_config()
    extractor: str  # hex, Extractor.net_hash() of the net trained with it; words are drawn from it

    def __post_init__(self) -> None:
        if not self.layers:
            raise SpecError("a modulation needs at least one layer")
        if self.config.keys() != _DECODING.keys():
            raise SpecError(f"config is that of decoder_config(), given {sorted(self.config)!s:.120}")
        if type(self.groups) is not int or self.groups < 1:
            raise SpecError(f"norm_num_groups is a whole number from 1, given {self.groups!r:.40}")
        for name, value in (("base_hash", self.base_hash), ("extractor", self.extractor)):
            if not re.fullmatch("[0-9a-f]{64}", value):
                raise SpecError(f"{name} is 64 hexadecimal digits, given {value!r:.80}")
        for name, layer in self.layers.items():
            out, rank = layer.left.shape if layer.left.ndim == 2 else (0, 0)
            if (
                layer.gain.shape != (out, self.bits)
                or layer.mix.shape != (rank, self.bits)
                or layer.right.ndim != 4
                or len(layer.right) != rank
                or layer.right.shape[2:] != (KERNEL, KERNEL)
                or not out
                or not layer.right.size  # of rank 0
            ):
                raise SpecError(f"{name}: the parts {[part.shape for part in layer]} do not fit together")
            if not all(bool(np.isfinite(part).all()) for part in layer):
                raise SpecError(f"{name} has infinite values; it was trained at too high a rate")

    @property
    def groups(self) -> int:
        """Of the decoder's normalisations."""
        out: int = self.config["norm_num_groups"]
        return out

    @property
    def bits(self) -> int:
        """Of a word."""
        first = next(iter(self.layers.values()))
        return int(first.gain.shape[-1])

    @property
    def tensors(self) -> tuple[TensorShape, ...]:
        """Weight and bias of every layer."""
        return tuple(
            tensor
            for name, layer in self.layers.items()
            for tensor in (
                TensorShape(f"{name}.weight", (len(layer.left), *layer.right.shape[1:])),
                TensorShape(f"{name}.bias", (len(layer.left),)),
            )
        )

    def save(self, path: Path) -> None:
        """Writes safetensors in float16. Raises OSError, SpecError on values that float16 cannot hold."""
        from safetensors.numpy import save

        about = {
            "base_hash": self.base_hash,
            "config": dict(self.config),
            "extractor": self.extractor,
            "layers": list(self.layers),
        }
        tensors: dict[str, npt.NDArray[Any]] = {"about": _as_tensor(about)}
        for name, layer in self.layers.items():
            for part, values in zip(_PARTS, layer, strict=True):
                with np.errstate(over="ignore"):
                    tensors[f"{name}.{part}"] = half = values.astype(np.float16)
                if not np.isfinite(half).all():
                    raise SpecError(
                        f"{name}.{part} has values up to {np.abs(values).max():.3g}, which float16 cannot hold; it was "
                        "trained at too high a rate"
                    )
        path.write_bytes(save(tensors))

    @classmethod
    def load(cls, path: Path) -> Modulation:
        """What save wrote. Raises CarrierError on any other file."""
        with _reading(path, "LKD modulation") as (file, about):
            if "config" not in about:
                raise ValueError("it does not tell its decoder's configuration; export it again")
            layers = {
                name: LayerModulation(*(file.floats(f"{name}.{part}") for part in _PARTS))
                for name in about["layers"]
            }
            return cls(layers, about["base_hash"], about["config"], about["extractor"])


def decoder_layers(base: Path) -> tuple[TensorShape, ...]:
    """Weight and bias of every 3 x 3 convolution of the decoder of an AutoencoderKL's folder, in file order.

    Raises UnavailableError where it has none, CarrierError on malformed files.
    """
    with Checkpoint(base) as checkpoint:
        shapes = {entry.name: entry.shape for entry in checkpoint}
    found = []
    for name, shape in shapes.items():
        if name.startswith("decoder.") and name.endswith(".weight") and shape[2:] == (KERNEL, KERNEL):
            bias = name.removesuffix("weight") + "bias"
            found += [TensorShape(name, shape), TensorShape(bias, shapes.get(bias, ()))]
    if not found or any(tensor.shape == () for tensor in found):
        raise UnavailableError(
            f"{base} holds no decoder of an AutoencoderKL; give the folder `vae` of the pipeline"
        )
    return tuple(found)


def decoder_hash(base: Path) -> str:
    """SHA-256, hex, of every tensor that decodes, as float32 and by name: of AutoencoderKL.decoder and post_quant_conv.

    Raises UnavailableError where the folder holds no decoder of an AutoencoderKL, CarrierError on malformed files.
    """
    decoder_layers(base)
    state = hashlib.sha256()
    with Checkpoint(base) as checkpoint:
        for entry in sorted(checkpoint, key=lambda entry: entry.name):
            if entry.name.startswith(("decoder.", "post_quant_conv.")):
                state.update(f"{entry.name} {entry.shape}\0".encode())
                state.update(
                    np.ascontiguousarray(checkpoint.floats(entry.name, entry.shape), dtype="<f4").data
                )
    return state.hexdigest()


def decoder_config(base: Path) -> dict[str, Any]:
    """What the folder's config.json says of decoding, by field, diffusers' defaults where it says nothing.

    What it says of the encoder, of versions and of names is left out, and the size of tiles, an option of who decodes.
    Raises UnavailableError where there is no such file.
    """
    try:
        found = _json_of(base / "config.json", _MAX_CONFIG)
        if not isinstance(found, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{base / 'config.json'} cannot be read: {error!s:.120}") from error
    return {name: found.get(name, default) for name, default in _DECODING.items()}


def other_config(found: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    """The first field in which two decoder_config() differ, with both values, in words; empty where they agree."""
    for name in _DECODING:
        if found[name] != trained[name]:
            ours, theirs = (f"{json.dumps(config[name]):.60}" for config in (found, trained))
            return f"says {name} {ours}, the modulation was trained with {theirs}"
    return ""


def _check_base(base: Path, modulation: Modulation) -> None:
    """That the modulation was trained with this decoder. Raises UnavailableError."""
    if said := other_config(decoder_config(base), modulation.config):
        raise UnavailableError(f"{base / 'config.json'} {said}; give the registered model")
    found = decoder_hash(base)
    if found != modulation.base_hash:
        raise UnavailableError(
            f"the decoder has SHA-256 {found[:16]}…, the modulation was trained with {modulation.base_hash[:16]}…; "
            "give the registered model in the precision it was registered in"
        )


def issue(
    base: Path, out: Path, modulation: Modulation, model_key: bytes, license: int, *, reorder: bool = True
) -> dict[str, float]:
    """Writes the copy of one license: the AutoencoderKL's folder `base`, or a diffusers pipeline with it in its folder
    `vae`, with the license's word in the decoder.

    Every other tensor and file stays as it is; types and shapes too. reorder: put the channels of residual blocks in
    an order, and at a scale, of the license's own. The same key and license give the same bytes again. The result
    appears under its name when complete; `out` must not exist. Returns each changed convolution's |W' - W| / |W|
    before it was put in that order.
    Raises SpecError, CarrierError (malformed shards, symbolic links, files that would carry the unmarked weights),
    UnavailableError (a decoder of other shapes, weights or config.json than the modulation was trained with; a copy
    that would be another decoder, or hold values that its type cannot).
    """
    signs = word(model_key, license, modulation.bits, bytes.fromhex(modulation.extractor))
    if not base.is_dir() or base.is_symlink():
        raise SpecError(f"{base} is no folder; give the folder of the pipeline, or of its part `{VAE}`")
    check_out(base, out)
    vae = vae_of(base)
    shards = files_of(vae)
    every = _weights_of(base, modulation) if vae != base else {shard.name for shard in shards}
    _check_base(vae, modulation)
    with Checkpoint(vae) as checkpoint:
        strange = next((entry.name for entry in checkpoint if not entry.name.startswith(_OWN)), None)
        if strange is not None:
            raise CarrierError(
                f"{vae} holds tensor {strange:.120}, which is none of an AutoencoderKL; it would be part of every copy"
            )
        entries = {entry.name: entry for entry in checkpoint if entry.dtype in FLOATS}
        changed, relative = _with_word(checkpoint, modulation, signs)
        if reorder:
            key = prf.derive_key(model_key, "lkd channels", license)
            for name in entries:
                if match := _RESIDUAL.fullmatch(name):
                    _reordered(match[1], checkpoint, entries, changed, modulation.groups, key)
    # Quality is no function of this: normalisations divide much of it out, and 17 dB of a picture come with 11. But a
    # weight of bfloat16 is rounded by 2^-9 of W': at 32 that is 33 / 512 of W, and what was trained is no longer told
    loud = max(relative, key=lambda name: relative[name])
    if not relative[loud] <= MAX_RELATIVE:
        raise UnavailableError(
            f"the word changes {loud} by {relative[loud]:.3g} of its size, at most {MAX_RELATIVE} is issued; the "
            "modulation was trained too loud"
        )
    with scratch_beside(out, ".zhiyi-issue-") as scratch:
        made = scratch / "copy"
        copy_bundle(base, made, every)
        for shard in shards:
            with TensorFile(made / shard.relative_to(base), writable=True) as file:
                for entry in file.entries:
                    if entry.name in changed:
                        file.store(entry, _stored(changed[entry.name], entry))
        appear(made, out)
    return relative


def vae_of(folder: Path) -> Path:
    """The folder of the AutoencoderKL: `vae` of a diffusers pipeline, any other folder itself."""
    return folder / VAE if (folder / INDEX).exists() else folder


def _weights_of(pipeline: Path, modulation: Modulation) -> set[str]:
    """Paths in a pipeline's folder of the safetensors of its parts; check_bundle then refuses weights elsewhere.

    Raises CarrierError where a part but `vae` holds tensors whose names end as the decoder's,
    UnavailableError without the index.
    """
    try:
        index = _json_of(pipeline / INDEX, _MAX_INDEX)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"{pipeline / INDEX} is no list of a pipeline's parts: {error!s:.120}"
        ) from error
    if not isinstance(index, dict) or not isinstance(index.get(VAE), list):
        raise UnavailableError(f"{pipeline / INDEX} names no part `{VAE}`")
    wanted = tuple(tensor.name for tensor in modulation.tensors)
    out = set()
    for part in index:
        folder = pipeline / part
        if folder.parent != pipeline or not folder.is_dir():
            continue
        for file in sorted(folder.glob("*.safetensors")):
            if part != VAE:
                with TensorFile(file) as opened:
                    if any(entry.name.endswith(wanted) for entry in opened.entries):
                        raise CarrierError(
                            f"{file} may hold the unmarked decoder; take it out of the folder first"
                        )
            out.add(f"{part}/{file.name}")
    return out


def _stored(values: Float32, entry: Entry) -> bytes:
    flat = to_storage(np.ascontiguousarray(values, dtype=np.float32).reshape(-1), entry.dtype)
    if not (np.isfinite(values).all() and np.isfinite(from_storage(flat, entry.dtype)).all()):
        raise UnavailableError(
            f"{entry.name} has values that {entry.dtype} cannot hold once the word is in it"
        )
    return flat.tobytes()


def _with_word(
    checkpoint: Checkpoint, modulation: Modulation, signs: Int8
) -> tuple[dict[str, Float32], dict[str, float]]:
    """The folded weights and biases by name, and by how much each weight changed."""
    changed: dict[str, Float32] = {}
    relative = {}
    shapes = dict(modulation.tensors)
    for name, layer in modulation.layers.items():
        both = [f"{name}.{part}" for part in ("weight", "bias")]
        weight, bias = (checkpoint.floats(part, shapes[part]).reshape(shapes[part]) for part in both)
        changed[both[0]], changed[both[1]] = layer.folded(weight, bias, signs)
        norm = float(np.linalg.norm(weight))
        relative[name] = float(np.linalg.norm(changed[both[0]] - weight)) / norm if norm else 0.0
    return changed, relative


def _reordered(
    block: str,
    checkpoint: Checkpoint,
    entries: Mapping[str, Entry],
    changed: dict[str, Float32],
    groups: int,
    key: bytes,
) -> None:
    """The channels between the two convolutions of a residual block in another order, sign and scale.

    The normalisation between them divides each group by its deviation and is told the sign; so groups trade places
    whole, channels within them, and the block computes what it did.
    """

    def taken(name: str) -> Float32:
        whole = f"{block}.{name}"
        if whole in changed:
            return changed[whole]
        if whole not in entries:
            raise UnavailableError(f"tensor {whole} is missing; {block} is no residual block of diffusers")
        return checkpoint.floats(whole, entries[whole].shape).reshape(entries[whole].shape)

    names = ("conv1.weight", "conv1.bias", "norm2.weight", "norm2.bias", "conv2.weight")
    first, bias, scale, shift, second = (taken(name) for name in names)
    channels = len(bias)
    if channels % groups or second.shape[1] != channels or len(scale) != channels:
        raise UnavailableError(f"{block} has {channels} channels, which {groups} groups do not divide")
    wide = channels // groups

    def own(purpose: str) -> bytes:
        return prf.derive_key(key, purpose, block.encode())

    inner = np.stack([prf.permutation(own(f"inner {g}"), wide) for g in range(groups)])
    order = (prf.permutation(own("groups"), groups)[:, None] * wide + inner).reshape(-1)
    sign = np.repeat(prf.signs(own("signs"), groups).astype(np.float32), wide)
    size = np.array(_FACTORS, dtype=np.float32)[prf.integers(own("sizes"), groups, len(_FACTORS))]
    both = sign * np.repeat(size, wide)
    changed[f"{block}.conv1.weight"] = first[order] * both[:, None, None, None]
    changed[f"{block}.conv1.bias"] = bias[order] * both
    changed[f"{block}.norm2.weight"] = scale[order] * sign
    changed[f"{block}.norm2.bias"] = shift[order]
    changed[f"{block}.conv2.weight"] = second[:, order]


# --- the extractor, in integers -----------------------------------------------------------------------------


class Layer(NamedTuple):
    """A convolution, 3 x 3 with zeros around, and what brings its sums back to 0 .. 255."""

    weight: Int8  # (out, in, 3, 3)
    bias: Int32  # (out,)
    factor: Int32  # (out,), over 2^SHIFT, not negative
    stride: int  # 1 or 2


@dataclass(frozen=True, eq=False)
class Extractor:
    """The net that reads pictures; all integers."""

    layers: tuple[Layer, ...]
    head: Int8  # (bits, channels of the last layer)
    head_bias: Int64  # (bits,)
    unit: int  # of the head's sums, one q
    side: int  # px of the short side that it was trained with

    def __post_init__(self) -> None:
        whole = (
            type(self.side) is int and type(self.unit) is int
        )  # neither True nor 64.0, which compare as well
        if not whole or not self.layers or not MIN_SIDE <= self.side <= 1024 or not 1 <= self.unit < 1 << 40:
            raise SpecError(f"{len(self.layers)} layers, unit {self.unit}, side {self.side} are no extractor")
        if self.head.ndim != 2 or not MIN_BITS <= len(self.head) <= MAX_BITS or self.head.dtype != np.int8:
            raise SpecError(f"the head is int8 (bits, channels), given {self.head.dtype} {self.head.shape}")
        if self.head_bias.shape != (self.bits,) or self.head_bias.dtype != np.int64:
            raise SpecError(
                f"biases of the head are int64 (bits,), given {self.head_bias.shape} for {self.bits} bits"
            )
        if max(int(self.head_bias.max()), -int(self.head_bias.min())) >= 1 << 40:
            raise SpecError("a bias of the head is over 2^40")
        channels, largest = 3, _MIDDLE
        short, long = self.side, MAX_ASPECT * self.side
        for i, layer in enumerate(self.layers):
            out = len(layer.weight)
            if (
                not out
                or layer.weight.shape != (out, channels, KERNEL, KERNEL)
                or layer.weight.dtype != np.int8
                or not layer.bias.shape == layer.factor.shape == (out,)
                or not layer.bias.dtype == layer.factor.dtype == np.int32
                or type(layer.stride) is not int
                or layer.stride not in (1, 2)
                or int(layer.factor.min(initial=0)) < 0
            ):
                raise SpecError(f"layer {i} of the extractor: shapes or types do not fit {channels} channels")
            reach = largest * np.abs(layer.weight.astype(np.int64)).sum(axis=(1, 2, 3))
            if int(reach.max(initial=0)) >= _EXACT:
                raise SpecError(
                    f"layer {i} of the extractor can sum up to {int(reach.max())}, float32 is exact to {_EXACT}; use "
                    "fewer channels or smaller weights"
                )
            channels, largest = out, _TOP
            short, long = -(-short // layer.stride), -(-long // layer.stride)
            if short * long * channels > MAX_ACTIVATIONS:
                raise SpecError(
                    f"layer {i} of the extractor has {short * long * channels} activations of the largest picture, at "
                    f"most {MAX_ACTIVATIONS} are computed; use fewer channels, or a smaller side"
                )
        if self.head.shape[1] != channels:
            raise SpecError(f"the head takes {self.head.shape[1]} channels, the last layer gives {channels}")

    @property
    def bits(self) -> int:
        """Of a word."""
        return len(self.head)

    @property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        out: dict[str, npt.NDArray[Any]] = {"head": self.head, "head_bias": self.head_bias}
        for i, layer in enumerate(self.layers):
            out |= {f"{i}.weight": layer.weight, f"{i}.bias": layer.bias, f"{i}.factor": layer.factor}
        return out

    @property
    def _about(self) -> dict[str, Any]:
        return {"side": self.side, "strides": [layer.stride for layer in self.layers], "unit": self.unit}

    def net_hash(self) -> bytes:
        """SHA-256 over the net alone: what words are drawn from, and what a modulation names."""
        state = hashlib.sha256(json.dumps(self._about, sort_keys=True).encode())
        for name, array in sorted(self._arrays.items()):
            kind = array.dtype.newbyteorder("<")
            state.update(f"{name} {kind.str} {array.shape}\0".encode())
            state.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        return state.digest()

    def spec_hash(self, *, wide: bool = False) -> bytes:
        """SHA-256 over the net, the constants of this file, the thresholds and `wide`: the detector's identity."""
        constants = [
            METHOD,
            LEVELS,
            MAX_PICTURES,
            MIN_SIDE,
            MAX_ASPECT,
            MAX_PIXELS,
            NATIVE,
            SHIFT,
            KERNEL,
            _TOP,
            _MIDDLE,
            _POOLED,
            _TURN,
            _TURNED,
        ]
        limits = [str(x) for x in (stats.TRACE, stats.CONVICT, stats.REJECT)]
        return hashlib.sha256(json.dumps([constants, limits, wide, self.net_hash().hex()]).encode()).digest()

    def save(self, path: Path) -> None:
        """Writes safetensors. Raises OSError."""
        from safetensors.numpy import save

        path.write_bytes(save({"about": _as_tensor(self._about), **self._arrays}))

    @classmethod
    def load(cls, path: Path) -> Extractor:
        """What save wrote. Raises CarrierError on any other file."""
        with _reading(path, "LKD extractor") as (file, about):
            layers = tuple(
                Layer(
                    file.integers(f"{i}.weight", "I8"),
                    file.integers(f"{i}.bias", "I32"),
                    file.integers(f"{i}.factor", "I32"),
                    stride,
                )
                for i, stride in enumerate(about["strides"])
            )
            head, bias = file.integers("head", "I8"), file.integers("head_bias", "I64")
            return cls(layers, head, bias, about["unit"], about["side"])

    def logits(self, rgb: UInt8) -> Int64:
        """What the net says of each bit of a picture as it is, before division by the unit.  # (h, w, 3) -> (bits,)"""
        x = rgb.astype(np.float32) - _MIDDLE
        for layer in self.layers:
            x = _convolved(x, layer)
        pooled = x.sum(axis=(0, 1), dtype=np.int64) * _POOLED // (x.shape[0] * x.shape[1])
        out: Int64 = self.head.astype(np.int64) @ pooled + self.head_bias
        return out

    def q(self, rgb: UInt8) -> Int8:
        """One integer a bit, rounded away from zero at a half, -LEVELS .. LEVELS.  # (h, w, 3) -> (bits,)"""
        sums = self.logits(rgb)
        size = np.minimum((2 * np.abs(sums) + self.unit) // (2 * self.unit), LEVELS)
        out: Int8 = (np.sign(sums) * size).astype(np.int8)
        return out

    def read(self, picture: Picture, *, wide: bool = False) -> Reading:
        """The picture's integers, read as it is and at the extractor's size; wide: also turned and mirrored.

        Raises UnavailableError on sizes that are not read.
        """
        check_size(picture)
        height, width = picture.rgb.shape[:2]
        short, long = min(height, width), max(height, width)
        upright: list[UInt8] = []
        if short != self.side:
            upright.append(resized(picture.rgb, height * self.side // short, width * self.side // short))
        if long <= NATIVE * self.side:
            upright.append(picture.rgb)
        sides = (False, True) if wide else (False,)
        turns = sorted({sign * k for k in _TURNED for sign in (-1, 1)}) if wide else [0]
        ways = [(flip, k, way) for flip in sides for k in turns for way in upright]
        read = (self.q(turned(way[:, ::-1] if flip else way, k)) for flip, k, way in ways)
        best = max(read, key=lambda q: int(np.abs(q.astype(np.int64)).sum()))
        return Reading(best, len(ways), self.spec_hash(wide=wide).hex(), picture.digest.hex(), wide)


@dataclass(frozen=True, eq=False)
class Reading:
    """What the extractor says of a picture, made without keys: the object of the test."""

    q: Int8  # (bits,)
    ways: int  # in which it was read
    spec_hash: str  # hex
    picture_hash: str  # hex, of the canonical object
    wide: bool = False  # whether turned and mirrored pictures were put back


@dataclass(frozen=True)
class Parts:
    """What was trained together for one decoder."""

    modulation: Modulation
    extractor: Extractor

    def __post_init__(self) -> None:
        if self.modulation.bits != self.extractor.bits:
            raise UnavailableError(
                f"the modulation has words of {self.modulation.bits} bits, the extractor reads {self.extractor.bits}"
            )
        found = self.extractor.net_hash().hex()
        if self.modulation.extractor != found:
            raise UnavailableError(
                f"the extractor has hash {found[:16]}…, the modulation was trained with "
                f"{self.modulation.extractor[:16]}…; take both files of one export"
            )

    @classmethod
    def load(cls, folder: Path) -> Parts:
        """Of a folder of scripts/train_lkd.py.

        Raises CarrierError on other files, UnavailableError on an extractor of another training.
        """
        return cls(Modulation.load(folder / MODULATION), Extractor.load(folder / EXTRACTOR))


def check_size(picture: Picture) -> None:
    """Raises UnavailableError on a picture that is too small, too large or too long."""
    height, width = picture.rgb.shape[:2]
    short, long = min(height, width), max(height, width)
    if short < MIN_SIDE or long > MAX_ASPECT * short or height * width > MAX_PIXELS:
        raise UnavailableError(
            f"the picture has {width} x {height} px; read are pictures of at least {MIN_SIDE} px a side, at most "
            f"{MAX_ASPECT} : 1 and {MAX_PIXELS} px"
        )


def _convolved(x: Float32, layer: Layer) -> Float32:
    """The next layer's activations, 0 .. 255.  # (h, w, in) -> (h', w', out)

    One product of matrices of integers for some rows at once: exact in float32 by the extractor's bound, in any order
    of summing.
    """
    height, width, channels = x.shape
    stride = layer.stride
    framed = np.zeros((height + 2, width + 2, channels), dtype=np.float32)
    framed[1:-1, 1:-1] = x
    taps = layer.weight.transpose(2, 3, 1, 0).reshape(-1, len(layer.weight)).astype(np.float32)
    out = np.empty((-(-height // stride), -(-width // stride), len(layer.weight)), dtype=np.float32)
    step = max(1, _CELLS // (out.shape[1] * max(taps.shape)))
    for low in range(0, len(out), step):
        rows = framed[low * stride : (min(low + step, len(out)) - 1) * stride + KERNEL]
        windows = np.concatenate(
            [
                rows[i : len(rows) - 2 + i : stride, j : j + width : stride]
                for i in range(KERNEL)
                for j in range(KERNEL)
            ],
            axis=2,
        )
        sums = windows.reshape(-1, len(taps)) @ taps
        wide = sums.astype(np.int64) + layer.bias
        scaled = (wide * layer.factor + (1 << (SHIFT - 1))) >> SHIFT
        out[low : low + step] = np.clip(scaled, 0, _TOP).reshape(windows.shape[0], out.shape[1], -1)
    return out


def resized(rgb: UInt8, rows: int, columns: int) -> UInt8:
    """Resampled by triangles as wide as the coarser of both grids, in exact integers.  # -> (rows, columns, 3)"""
    return _resampled(_resampled(rgb, rows).swapaxes(0, 1), columns).swapaxes(0, 1)


def _resampled(rgb: UInt8, rows: int) -> UInt8:
    """Some rows at once, and some columns: of each row only the part of the picture under its triangle is read."""
    height, width = rgb.shape[:2]
    if height == rows:
        return rgb
    reach = 2 * max(height, rows)
    out = np.empty((rows, width, 3), dtype=np.uint8)
    step = max(1, 64 * rows // max(height, rows))
    for low in range(0, rows, step):
        at = (np.arange(low, min(low + step, rows), dtype=np.int64)[:, None] * 2 + 1) * height
        first = max(0, (int(at[0, 0]) - reach) // (2 * rows))
        last = min(height, (int(at[-1, 0]) + reach) // (2 * rows) + 1)
        distance = np.abs(at - (np.arange(first, last, dtype=np.int64)[None, :] * 2 + 1) * rows)
        weights = np.maximum(reach - distance, 0)  # sums of these times 255 are exact in float64
        total = weights.sum(axis=1)[:, None]
        wide = max(1, _CELLS // (3 * (last - first)))
        for left in range(0, width, wide):
            part = rgb[first:last, left : left + wide].astype(np.float64)
            sums = (weights.astype(np.float64) @ part.reshape(last - first, -1)).astype(np.int64)
            mean = (2 * sums + total) // (2 * total)
            out[low : low + step, left : left + wide] = mean.reshape(len(at), -1, 3)
    return out


def turned(rgb: UInt8, k: int) -> UInt8:
    """Turned about the center by 2 arctan(k / 16), gray where nothing comes from; bilinear in 1/16 px, exact."""
    height, width = rgb.shape[:2]
    if not k:
        return rgb
    cosine, sine, whole = _TURN * _TURN - k * k, 2 * _TURN * k, _TURN * _TURN + k * k
    framed = np.full((height + 2, width + 2, 3), _MIDDLE, dtype=np.uint8)
    framed[1:-1, 1:-1] = rgb
    out = np.empty((height, width, 3), dtype=np.uint8)
    u = 2 * np.arange(width, dtype=np.int64)[None, :] - (width - 1)  # half px from the center

    def taken(row: Int64, column: Int64) -> Int64:
        clipped = np.clip(row + 1, 0, height + 1), np.clip(column + 1, 0, width + 1)
        return framed[clipped].astype(np.int64)

    step = max(1, _CELLS // (3 * width))
    for low in range(0, height, step):
        v = 2 * np.arange(low, min(low + step, height), dtype=np.int64)[:, None] - (height - 1)
        x = (cosine * u - sine * v) * 8 // whole + 8 * (width - 1)  # 1/16 px
        y = (sine * u + cosine * v) * 8 // whole + 8 * (height - 1)
        left, top, fx, fy = x >> 4, y >> 4, (x & 15)[..., None], (y & 15)[..., None]
        upper = taken(top, left) * (16 - fx) + taken(top, left + 1) * fx
        lower = taken(top + 1, left) * (16 - fx) + taken(top + 1, left + 1) * fx
        out[low : low + step] = (upper * (16 - fy) + lower * fy + 128) >> 8
    return out


# --- the verdict --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LkdReader:
    """The extractor with a model's key: what detect() takes."""

    extractor: Extractor
    model_key: bytes
    wide: bool = False  # whether turned and mirrored pictures are put back

    def __post_init__(self) -> None:
        prf.check_key(self.model_key)

    def detect(self, picture: Picture, licenses: Sequence[int], *, models: int = 1) -> Detection:
        """Whose copy decoded one picture; see verdict and Extractor.read."""
        return self.detect_case([picture], licenses, models=models)

    def detect_case(
        self, pictures: Sequence[Picture], licenses: Sequence[int], *, models: int = 1
    ) -> Detection:
        """Whose copy decoded these pictures together, all committed before detection; equal ones count once."""
        distinct = {picture.digest: picture for picture in pictures}.values()
        read = [self.extractor.read(picture, wide=self.wide) for picture in distinct]
        return self.verdict(read, licenses, models=models)

    def verdict(
        self,
        readings: Sequence[Reading],
        licenses: Sequence[int],
        *,
        models: int = 1,
        offered: int | None = None,
        threshold: Fraction = stats.TRACE,
    ) -> Detection:
        """Whose copy decoded the pictures, which are one case: their integers are added.

        licenses: all that were ever registered for the model, which all count. offered: of how many pictures these
        were chosen after the key could be tried on them; as many as given unless said. threshold: TRACE, or CONVICT in
        a case, where what lies between it and REJECT is inconclusive. `also` names other licenses that pass.
        Raises SpecError on no or too many pictures or licenses, or twice the same; UnavailableError on readings of
        another extractor, or made otherwise than this reader does.
        """
        if not 1 <= len(readings) <= MAX_PICTURES:
            raise SpecError(f"a case has 1 to {MAX_PICTURES} pictures, given {len(readings)}")
        if len({reading.picture_hash for reading in readings}) < len(readings):
            raise SpecError("a picture was given twice; each counts once")
        spec = self.extractor.spec_hash(wide=self.wide)
        if any(r.wide != self.wide for r in readings):
            raise UnavailableError(
                f"a picture was read with wide={not self.wide}, this reader is of wide={self.wide}; read all pictures "
                "of a case in one way"
            )
        if any(r.spec_hash != spec.hex() or r.q.shape != (self.extractor.bits,) for r in readings):
            raise UnavailableError(
                "a picture was read with another extractor; read it with the registered one"
            )
        numbers = list(licenses)
        if not 1 <= len(numbers) <= MAX_LICENSES or len(set(numbers)) < len(numbers):
            raise SpecError(
                f"{len(numbers)} licenses: give those registered, each once, at most {MAX_LICENSES}"
            )
        sums = np.sum([reading.q for reading in readings], axis=0, dtype=np.int64)
        totals = self._totals(sums, numbers)
        count = stats.hypotheses(
            models=models,
            licenses=len(numbers),
            offered=len(readings) if offered is None else offered,
            used=len(readings),
        )
        order = np.argsort(-totals, kind="stable").tolist()
        best = int(totals[order[0]])
        tail = stats.sign_tail(sums, best)
        passing = []
        for i in order:
            if not stats.sign_tail(sums, int(totals[i])).at_most(threshold, count):
                break
            passing.append(numbers[i])
        return detection(
            tail,
            method=METHOD,
            license=passing[0] if passing else None,
            also=tuple(passing[1:]),
            n=int(np.count_nonzero(sums)),
            T=best,
            sum_q2=int((sums * sums).sum()),
            hypotheses=count,
            threshold=threshold,
            null=NULL,
            spec_hash=spec,
        )

    def _totals(self, sums: Int64, licenses: Sequence[int]) -> Int64:
        """T of every license.  # (licenses,)"""
        out = np.empty(len(licenses), dtype=np.int64)
        net = self.extractor.net_hash()
        for low in range(0, len(licenses), _AT_ONCE):
            some = licenses[low : low + _AT_ONCE]
            signs = words(self.model_key, some, self.extractor.bits, net)
            out[low : low + _AT_ONCE] = signs.astype(np.int64) @ sums
        return out


# --- files --------------------------------------------------------------------------------------------------


def _json_of(path: Path, most: int) -> Any:
    """Raises OSError, ValueError."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no plain file")
    with path.open("rb") as file:
        return parsed(file.read(most))


def _as_tensor(about: Mapping[str, Any]) -> UInt8:
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return np.frombuffer(text.encode(), dtype=np.uint8)


class _Tensors:
    """The tensors of one file, copied."""

    def __init__(self, path: Path) -> None:
        self._file = TensorFile(path)
        self._entries = {entry.name: entry for entry in self._file.entries}

    def floats(self, name: str) -> Float32:
        entry = self._entries[name]
        return self._file.floats(entry).reshape(entry.shape)

    def integers(self, name: str, kind: str) -> Any:
        entry = self._entries[name]
        if entry.dtype != kind:
            raise ValueError(f"tensor {name} is {entry.dtype}, not {kind}")
        types = {"U8": "u1", "I8": "i1", "I32": "<i4", "I64": "<i8"}
        values = np.frombuffer(self._file.raw(entry), dtype=types[kind]).reshape(entry.shape)
        return values.astype(values.dtype.newbyteorder("="))


class _reading:
    """A file of ours: its tensors and what its `about` says; whatever is wrong with it is a CarrierError."""

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what

    def __enter__(self) -> tuple[_Tensors, Any]:
        try:
            tensors = _Tensors(self._path)
            about = parsed(tensors.integers("about", "U8").tobytes())
            if not isinstance(about, dict):
                raise ValueError("its `about` is no object")
            kinds = (("unit", int), ("side", int), ("config", dict), ("base_hash", str), ("extractor", str))
            for name, kind in kinds:
                if name in about and type(about[name]) is not kind:
                    raise ValueError(f"{name} is {about[name]!r:.40}")
            return tensors, about
        except OSError as error:
            raise CarrierError(f"{self._path} cannot be read: {error.strerror}") from error
        except (ValueError, LookupError) as error:
            raise CarrierError(f"{self._path.name} is no {self._what}: {error!s:.120}") from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (ValueError, LookupError, TypeError, SpecError, UnavailableError)):
            raise CarrierError(f"{self._path.name} is no {self._what}: {error!s:.120}") from error
