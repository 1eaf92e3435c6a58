"""Attacks on the decoder of a diffusion model's AutoencoderKL, whose pictures show a mark, and on those pictures.

Fine-tuning on one's own pictures and averaging are the removals of Fernandez et al., "The Stable Signature" (ICCV
2023); distillation is Hinton et al. (2015); channels are matched before averaging as by Ainsworth et al., "Git
Re-Basin" (ICLR 2023), each by the assignment of largest correlation. Who has the extractor goes up or
down its gradient by signed steps (Madry et al., ICLR 2018): to unsay the bits of a picture or a decoder, or to make a
picture say another's.

Prune, round and add noise with attacks.weights on tensors that `in_decoder` takes by name.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.attacks.weights import rewrite
from zhiyi_watermark.errors import SpecError, UnavailableError
from zhiyi_watermark.image_weights import SHIFT, Extractor
from zhiyi_watermark.tensorfile import Checkpoint

if TYPE_CHECKING:  # torch is heavy and only who trains needs it
    import torch

Float32 = npt.NDArray[np.float32]
Rgb = npt.NDArray[np.uint8]
Draw = Callable[[int, int], Rgb]  # step, how many -> pictures  # (n, side, side, 3)
Logits = Callable[["torch.Tensor"], "torch.Tensor"]  # (n, 3, side, side), -1 to 1 -> (n, bits)

_CONV1: Final = re.compile(r"(.*\bdecoder\..*resnets\.\d+)\.conv1\.weight")
_PARTS: Final = ("conv1.weight", "conv1.bias", "norm2.weight", "norm2.bias", "conv2.weight")


def in_decoder(name: str) -> bool:
    """Whether a tensor is the decoder's."""
    return name.startswith("decoder.")


# --- of several copies --------------------------------------------------------------------------------------


def align(source: Path, like: Path, out: Path) -> None:
    """The source with the channels inside its residual blocks in the order, sign and scale of another copy's.

    The function stays what it was. Raises SpecError if out exists, UnavailableError where the copies' shapes differ.
    """
    from scipy.optimize import linear_sum_assignment

    changed: dict[str, Float32] = {}
    with Checkpoint(source) as ours, Checkpoint(like) as theirs:
        shapes = {entry.name: entry.shape for entry in ours}
        for name in shapes:
            if not (match := _CONV1.fullmatch(name)):
                continue
            names = [f"{match[1]}.{part}" for part in _PARTS]
            first, bias, scale, shift, second = (ours.floats(n, shapes[n]).reshape(shapes[n]) for n in names)
            wanted = theirs.floats(name, shapes[name]).reshape(len(first), -1)
            rows = first.reshape(len(first), -1)
            fit = _unit(wanted) @ _unit(rows).T
            _, order = linear_sum_assignment(-np.abs(fit))
            own = rows[order]
            factor = (wanted * own).sum(axis=1) / np.maximum((own * own).sum(axis=1), 1e-30)
            # issue() scales groups of channels by powers of two; any other factor would not pass their normalisation
            factor = np.sign(factor) * np.exp2(np.rint(np.log2(np.maximum(np.abs(factor), 1e-30))))
            factor = np.where(factor == 0, 1, factor).astype(np.float32)
            changed[names[0]] = first[order] * factor[:, None, None, None]
            changed[names[1]] = bias[order] * factor
            changed[names[2]] = scale[order] * np.sign(factor)
            changed[names[3]] = shift[order]
            changed[names[4]] = second[:, order]
    rewrite(source, out, lambda name, values: changed.get(name, values), where=in_decoder, rank=1)


def average(sources: Sequence[Path], out: Path) -> None:
    """The mean of several copies' decoders, biases and norms with them.

    Raises SpecError on fewer than two or if out exists, UnavailableError where the copies' shapes differ.
    """
    if len(sources) < 2:
        raise SpecError(f"an average takes at least two copies, given {len(sources)}")
    with ExitStack() as stack:
        others = [stack.enter_context(Checkpoint(path)) for path in sources[1:]]

        def change(name: str, values: Float32) -> Float32:
            rows = [values, *(c.floats(name, values.shape).reshape(values.shape) for c in others)]
            return np.asarray(np.mean(rows, axis=0, dtype=np.float32), dtype=np.float32)

        rewrite(sources[0], out, change, where=in_decoder, rank=1)


def _unit(rows: Float32) -> Float32:
    out: Float32 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-30))
    return out


# --- with training ------------------------------------------------------------------------------------------


def tuned(
    vae: Any,
    draw: Draw,
    stops: Sequence[int],
    *,
    rate: float = 5e-4,
    batch: int = 8,
    anew: bool = False,
    from_copy: bool = False,
    unsaid: Logits | None = None,
    weight: float = 0.05,
) -> Iterator[tuple[int, Any]]:
    """The autoencoder with its decoder trained by AdamW, at each of the ascending `stops` (steps).

    draw: the attacker's own pictures, encoded by the encoder as it is. The decoder learns to give them back, or with
    from_copy what the copy decodes of them. anew: a new decoder of the same shapes, its weights drawn, learns instead:
    distillation. unsaid: the extractor, whose logits the decoder learns besides, by `weight`, to bring to nothing.
    """
    import torch

    if not stops or list(stops) != sorted(set(stops)) or stops[0] < 1:
        raise SpecError(f"stops {list(stops)} must be steps from 1 on, each later than the one before")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        fresh = type(vae).from_config(vae.config) if anew else None
    made = copy.deepcopy(vae)
    if fresh is not None:
        made.decoder.load_state_dict(fresh.decoder.state_dict())
        made.decoder.to(vae.device)
    made.requires_grad_(False)
    learning = list(made.decoder.parameters())
    for values in learning:
        values.requires_grad_(True)
    optimizer = torch.optim.AdamW(learning, lr=rate, weight_decay=0.0)
    for step in range(stops[-1]):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 10)
        x = torch.from_numpy(draw(step, batch)).to(vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mode()
            wanted = vae.decode(z).sample.clamp(-1, 1) if from_copy else x
        given = made.decode(z).sample
        loss = (given - wanted).square().mean()
        if unsaid is not None:
            loss = loss + weight * unsaid(given.clamp(-1, 1)).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        if step + 1 in stops:
            yield step + 1, copy.deepcopy(made).requires_grad_(False).eval()


# --- with the extractor -------------------------------------------------------------------------------------


def logits_of(extractor: Extractor) -> Logits:
    """The integer net as one that lets a gradient through, in units of its q."""
    import torch
    import torch.nn.functional as F

    layers = [
        (
            torch.from_numpy(layer.weight.astype(np.float32)),
            torch.from_numpy(layer.bias.astype(np.float32)),
            torch.from_numpy((layer.factor / (1 << SHIFT)).astype(np.float32)),
            layer.stride,
        )
        for layer in extractor.layers
    ]
    head = torch.from_numpy((extractor.head * (256 / extractor.unit)).astype(np.float32))
    shift = torch.from_numpy((extractor.head_bias / extractor.unit).astype(np.float32))

    def logits(pictures: torch.Tensor) -> torch.Tensor:
        x = (pictures + 1) * 127.5 - 128
        for weight, bias, factor, stride in layers:
            sums = F.conv2d(x, weight.to(x.device), bias.to(x.device), stride=stride, padding=1)
            x = (sums * factor.to(x.device)[:, None, None]).clamp(0, 255)
        out: torch.Tensor = x.mean(dim=(2, 3)) @ head.to(x.device).T + shift.to(x.device)
        return out

    return logits


def pushed(
    pictures: Rgb,
    logits: Logits,
    levels: int,
    *,
    towards: npt.NDArray[np.int8] | None = None,
    steps: int = 20,
) -> Rgb:
    """Pictures changed by at most that many levels a value until their bits are wrong, or those of a word.

    towards: -1 / +1  # (bits,); None: away from what each picture says.  # (n, side, side, 3)
    Raises SpecError on levels outside 1 .. 255, UnavailableError on a word of other length than the logits.
    """
    import torch

    if not 1 <= levels <= 255 or steps < 1:
        raise SpecError(f"levels {levels} must lie in 1 .. 255 and steps {steps} be at least 1")
    start = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        said = logits(start / 127.5 - 1)
    if towards is not None and len(towards) != said.shape[1]:
        raise UnavailableError(f"a word of {len(towards)} bits, the extractor reads {said.shape[1]}")
    signs = (
        -said.sign()
        if towards is None
        else torch.from_numpy(towards.astype(np.float32)).to(said).expand_as(said)
    )
    x = start.clone()
    stride = max(1.0, 2.5 * levels / steps)
    for _ in range(steps):
        x.requires_grad_(True)
        loss = torch.nn.functional.softplus(-signs * logits(x / 127.5 - 1)).sum()
        (slope,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            x = (x - stride * slope.sign()).clamp(start - levels, start + levels).clamp(0, 255)
    out: Rgb = x.detach().round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return out
