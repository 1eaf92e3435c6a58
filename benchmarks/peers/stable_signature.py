"""Stable Signature, our re-implementation of a peer: a decoder fine-tuned for every message of 48 bits.

Fernandez, Couairon, Jegou, Douze, Furon: "The Stable Signature: Rooting Watermarks in Latent Diffusion Models" (ICCV
2023). First an extractor of 48 bits is trained once, with an encoder that is thrown away: HiDDeN's scheme (Zhu et al.,
ECCV 2018), the encoder's output times alpha = 0.3, masked by what hides it, bits alone in the loss; then its outputs
are whitened on unmarked pictures. A license is 100 steps of AdamW on the decoder, batch 4, rate 5e-4 after 20 steps of
warmup and then half a cosine, loss = cross entropy of the message in clean pictures + lambda_i L_i, lambda_i = 0.2.

What differs: net and attacks of the extractor are those of LKD (scripts/train_lkd.py), so that the two are compared at
equal size. The encoder weighs features of the picture by the message; what it adds begins louder and falls to alpha and
attacks come in, as bits are learned. L_i, the Watson-VGG distance in the paper, is LKD's distance (blurred error and
features of a fixed random net, which needs no weights from elsewhere) over that of 30 dB.

    python benchmarks/peers/stable_signature.py  # trains the extractor, build/stable-signature; hours, resumable
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

import train_lkd as lkd  # noqa: E402
from train_image_model import Draw, _Clock, _host, _load, _save, _say, device, to_tensor  # noqa: E402

WORK: Final = ROOT / "build" / "stable-signature"
SEED: Final = 20250302
BITS: Final = 48
ALPHA: Final = 0.3  # of the encoder's output
LAMBDA: Final = 0.2
RATE: Final = 5e-4
STEPS: Final = 100
WARMUP: Final = 20
BATCH: Final = 4
PLAN: Final = lkd.Plan(
    bits=BITS, few=BITS, steps=20000, loud=10.0, enough=0.8, decibels_a_step=0.01, strength_a_step=1 / 3000
)  # enough: a share that 48 bits of 64 px do reach; at .9 the curriculum waited to the end


class Peer(NamedTuple):
    """The extractor and what whitens its outputs."""

    reader: Any
    whitening: Any  # (bits, bits), float64
    middle: Any  # (bits,), float64

    def logits(self, pictures: Any) -> Any:
        """# (batch, 3, side, side), -1 to 1 -> (batch, bits)"""
        return ((self.reader(pictures).double() - self.middle) @ self.whitening.T).float()


def new_encoder(plan: lkd.Plan) -> Any:
    """Features of the picture, each weighed by the message, to three channels: a message the same at every pixel has no
    texture of its own, and weighed features have."""
    import torch
    from torch import Tensor, nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[Any] = []
            for a, b in ((3, 32), (32, 48)):
                layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
            self.features = nn.Sequential(*layers)
            self.weights = nn.Linear(plan.bits, 48)
            self.end = nn.Conv2d(48, 3, 3, padding=1)
            with torch.no_grad():
                self.end.weight *= 5  # heard from the start

        def forward(self, x: Tensor, message: Tensor) -> Tensor:
            """# (batch, 3, side, side), (batch, bits) of -1, 0, 1 -> (batch, 3, side, side)"""
            made: Tensor = self.end(self.features(x) * self.weights(message)[:, :, None, None])
            return made.tanh()

    torch.manual_seed(SEED)
    return Encoder()


def hidden(x: Any, drawn: Any, louder: float = 1.0) -> Any:
    """The encoder's output where the picture hides it: by the deviation of luma over 5 x 5 px."""
    import torch.nn.functional as F

    luma = x.mean(dim=1, keepdim=True)
    around = F.pad(luma, (2, 2, 2, 2), mode="replicate")
    variance = (F.avg_pool2d(around.square(), 5, 1) - F.avg_pool2d(around, 5, 1).square()).clamp(min=0)
    return x + ALPHA * louder * drawn * (0.05 + variance.sqrt()).clamp(max=1.0)


def train_extractor(
    plan: lkd.Plan, draw: Draw, work: Path, minutes: float = math.inf, steps: int | None = None
) -> dict[str, Any]:
    """The extractor after plan.steps, or after as many as the minutes or `steps` allow: the state that was saved."""
    import torch
    import torch.nn.functional as F

    on = device()
    reader, encoder = lkd.new_reader(plan).to(on), new_encoder(plan).to(on)
    parameters = [*reader.parameters(), *encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=plan.rate, weight_decay=0.0)
    saved, first, now = work / "extractor.pt", 0, lkd.Curriculum(plan.few, plan.loud)
    if state := _load(saved):
        reader.load_state_dict(state["reader"])
        encoder.load_state_dict(state["encoder"])
        optimizer.load_state_dict(state["optimizer"])
        first, now = int(state["step"]), lkd.Curriculum(*state["curriculum"])
        _say(f"stable signature: resuming at step {first}")
    clock, end = _Clock(minutes), min(plan.steps, steps or plan.steps)
    spent, share = 0.0, 0.0

    def save(step: int) -> dict[str, Any]:
        out = {
            "reader": _host(reader.state_dict()), "encoder": _host(encoder.state_dict()),
            "optimizer": optimizer.state_dict(), "step": step, "curriculum": list(now),
        }  # fmt: skip
        _save(saved, out)
        return out

    step = first
    while step < end and not clock.over():
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * plan.rate_at(step, 0)
        rng = np.random.default_rng([SEED, 1, step])
        x = to_tensor(draw(step, plan.batch).pictures).to(on)
        bits = torch.from_numpy(rng.integers(0, 2, (plan.batch, plan.bits))).float().to(on)
        told = 2 * bits - 1
        told[:, now.active :] = 0
        with torch.autocast(on, dtype=torch.bfloat16):
            drawn = encoder(x, told)
        made = hidden(x, drawn.float(), 10 ** ((plan.quiet - now.decibels) / 20))
        attacked = lkd.distorted(made, now.strength, rng, plan.group)
        with torch.autocast(on, dtype=torch.bfloat16):
            logits = reader(attacked).float()
        logits, bits = logits[:, : now.active], bits[:, : now.active]
        loss = F.binary_cross_entropy_with_logits(logits, bits)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        right = float(((logits > 0) == (bits > 0.5)).float().mean())
        share, now = share + right, now.after(right, plan)
        if step % lkd.SAY_EVERY == 0:
            spent += clock.cpu_minutes()
            _say(
                f"stable signature step {step} of {plan.steps}: bits {loss.item():.4f} "
                f"({share / lkd.SAY_EVERY:.4f} right), {now.decibels:.1f} of {plan.quiet:.0f} dB, "
                f"attacks {now.strength:.2f}, {spent:.1f} CPU minutes"
            )
            share = 0.0
        if clock.due():
            save(step)
    return save(step)


def whitened(plan: lkd.Plan, state: dict[str, Any], pictures: npt.NDArray[np.uint8]) -> Peer:
    """The trained extractor, its outputs on unmarked pictures made independent, of mean 0 and deviation 1.

    pictures: more than bits.  # (n, side, side, 3)
    Raises ValueError on too few.
    """
    import torch

    if len(pictures) <= plan.bits:
        raise ValueError(
            f"{len(pictures)} pictures cannot whiten {plan.bits} bits; give at least twice as many"
        )
    reader = lkd.new_reader(plan)
    reader.load_state_dict(state["reader"])
    reader = reader.to(device()).eval().requires_grad_(False)
    with torch.no_grad():
        out = torch.cat(
            [reader(to_tensor(pictures[at : at + 64]).to(device())) for at in range(0, len(pictures), 64)]
        )
    out = out.double()
    middle = out.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(out.T))
    # the symmetric root, so that bit i stays output i
    root = (vectors * values.clamp(min=1e-12).rsqrt()) @ vectors.T
    return Peer(reader, root, middle)


def finetune(
    vae: Path,
    peer: Peer,
    message: npt.NDArray[np.uint8],
    pool: lkd.Pool,
    *,
    seed: int = 0,
    steps: int = STEPS,
) -> Any:
    """The AutoencoderKL whose decoder says the message; only the decoder is changed.

    vae: its folder. message: 0 / 1.  # (bits,)
    """
    import torch
    import torch.nn.functional as F

    on = device()
    copy = lkd.load_vae(vae)
    copy.decoder.requires_grad_(True)
    parameters = list(copy.decoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    wanted_bits = torch.from_numpy(message.astype(np.float32)).to(on).expand(BATCH, -1)
    seen, rng = lkd.Seen(), np.random.default_rng([SEED, 2, seed])
    some = pool.pictures[:4].float() / 127.5 - 1
    noise = torch.randn(some.shape, generator=torch.Generator().manual_seed(1)) * (2 * 10 ** (-30 / 20))
    at_30 = float(seen((some + noise).to(on), some.to(on)).mean())
    for step in range(steps):
        falling = 0.5 * (1 + math.cos(math.pi * max(0, step - WARMUP) / max(1, steps - WARMUP)))
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARMUP) * falling
        rows = torch.from_numpy(rng.integers(0, len(pool.latents), BATCH))
        wanted = pool.pictures[rows].to(on).float() / 127.5 - 1
        made = copy.decode(pool.latents[rows].float().to(on)).sample
        told = F.binary_cross_entropy_with_logits(peer.logits(made.clamp(-1, 1)), wanted_bits)
        loss = told + LAMBDA * seen(made, wanted).mean() / at_30
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return copy.requires_grad_(False).eval()


def read(peer: Peer, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """# (n, side, side, 3) -> (n, bits), 0 / 1"""
    import torch

    with torch.no_grad():
        logits = peer.logits(to_tensor(pictures).to(device()))
    out: npt.NDArray[np.uint8] = (logits > 0).cpu().numpy().astype(np.uint8)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=math.inf, help="of wall clock")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    from image_data import Pictures

    torch.set_num_threads(options.threads)
    pictures = Pictures("train")
    train_extractor(PLAN, lambda step, size: pictures.batch(step, size, 0.3), WORK, options.minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
