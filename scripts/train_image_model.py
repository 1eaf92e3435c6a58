"""Train the small text-to-image model of the project: tests/models/tiny-image, a diffusers folder under 40 MB.

    python scripts/train_image_model.py --stage vae              # a quarter of an hour on one core
    python scripts/train_image_model.py --stage unet --minutes 90
    python scripts/train_image_model.py --stage export           # writes the folder
    python scripts/train_image_model.py --stage check            # is what it draws recognisable?

A latent diffusion model of the Stable Diffusion kind (Rombach et al., CVPR 2022), loaded by StableDiffusionPipeline:
pictures of 64 x 64 px, latents of 4 x 32 x 32, a text encoder trained with it, one word a token. It predicts v
(Salimans and Ho, ICLR 2022) with min-SNR weights (Hang et al., ICCV 2023); one caption in ten is left out for
classifier-free guidance; what is exported is the running mean of the weights.

Every stage resumes from its checkpoint under build/tiny-image, and without one from the exported folder, whose
float16 weights are the state kept under version control (the optimizer's moments are not: it warms up again). Each
step draws its pictures, noise and times from its own number, so a run that was stopped and goes on from a checkpoint
makes the same weights as one that was not, on the same kind of machine with the same torch and threads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fetch_model import FetchError
from image_data import NAMES, PHOTO, SIDE, TEMPLATES, TEXTURE, Batch, Pictures, Source, sources

ROOT: Final = Path(__file__).resolve().parent.parent
MODEL: Final = ROOT / "tests" / "models" / "tiny-image"
WORK: Final = ROOT / "build" / "tiny-image"
LOG: Final = "training.json"
SEED: Final = 20250203
CHANNELS: Final = 4  # of a latent
WORDS: Final = 8  # tokens of a prompt, with its two ends
LEFT_OUT: Final = 0.1  # of the captions
GAMMA: Final = 5.0  # of min-SNR
AVERAGE: Final = 0.999  # of the running mean, once it has run long enough
SAVE_SECONDS: Final = 180
SAY_EVERY: Final = 20
GRID: Final = 64  # pictures drawn by the check
JUDGED: Final = 50
MISTAKES: Final = 12  # named in the card
TARGET: Final = 0.6  # share of drawn pictures that the classifier knows among its first five
START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
SCHEDULE: Final = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
Draw = Callable[[int, int], Batch]  # step, size


class Plan(NamedTuple):
    """Sizes and rates."""

    vae_channels: tuple[int, int] = (32, 64)
    vae_steps: int = 500
    vae_batch: int = 16
    vae_rate: float = 1e-3
    kl: float = 2e-3  # weight of the mean KL divergence of a latent value
    unet_channels: tuple[int, int, int] = (48, 96, 160)
    unet_batch: int = 16
    unet_rate: float = 8e-4
    warmup: int = 100  # steps
    width: int = 128  # of the text encoder
    average: float = AVERAGE


def _say(text: str) -> None:
    print(text, flush=True)


# --- parts --------------------------------------------------------------------------------------------------


def new_vae(plan: Plan) -> Any:
    """Half the side, four channels; no attention, so it takes pictures of any even size.

    It begins nearly as a linear map, not at random, and so needs a tenth of the steps: latents are luma, two color
    differences and the horizontal difference of luma over 2 x 2 px, and the decoder interpolates them. Residual
    branches begin at zero. SiLU and the last normalisation of each half pass a value that comes with its negative
    and with constants that dominate the group's variance, as silu(x) - silu(-x) = x.
    """
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(SEED)
    vae: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=plan.vae_channels,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )
    loud = 4.0  # of the constants
    luma = torch.tensor([0.299, 0.587, 0.114])
    blue, red = torch.tensor([0.0, 0.0, 1.0]) - luma, torch.tensor([1.0, 0.0, 0.0]) - luma
    with torch.no_grad():
        for name, module in vae.named_modules():
            if name.endswith("conv2"):
                module.weight.zero_()
                module.bias.zero_()
        encoder, decoder = vae.encoder, vae.decoder
        _only(encoder.conv_in, {(c, c, 1, 1): 1.0 for c in range(3)})
        down = encoder.down_blocks[0].downsamplers[0].conv  # its window begins at an even pixel
        taps = {}
        for c in range(3):
            for i in range(2):
                for j in range(2):
                    for k, (row, gain) in enumerate(((luma, 3.0), (blue, 2.5), (red, 2.5))):
                        taps[k, c, i, j] = gain * float(row[c]) / 4
                    taps[3, c, i, j] = 14.0 * float(luma[c]) / 4 * (1 if j else -1)
        _only(down, taps)
        wide = plan.vae_channels[1] // 8
        shortcut = encoder.down_blocks[1].resnets[0].conv_shortcut
        _pairs(shortcut, encoder.conv_norm_out, {(k, k): 1.0 for k in range(CHANNELS)}, CHANNELS, wide, loud)
        _only(encoder.conv_out, {
            (k, k * wide + sign, 1, 1): 1.0 - 2.0 * sign for k in range(CHANNELS) for sign in range(2)
        }, fade=True)  # fmt: skip
        encoder.conv_out.bias[CHANNELS:] = -4.0  # of the logarithm of the variance
        for conv in (vae.quant_conv, vae.post_quant_conv):
            _only(conv, {(k, k, 0, 0): 1.0 for k in range(conv.weight.shape[0])})
        _only(decoder.conv_in, {(k, k, 1, 1): 1.0 for k in range(CHANNELS)})
        side = (0.25, 0.5, 0.25)  # after repeating each value twice: bilinear
        _only(decoder.up_blocks[0].upsamplers[0].conv, {
            (k, k, i, j): side[i] * side[j] for k in range(CHANNELS) for i in range(3) for j in range(3)
        })  # fmt: skip
        wide = plan.vae_channels[0] // 8
        mix = torch.linalg.inv(torch.stack([3 * luma, 2.5 * blue, 2.5 * red]))
        shortcut = decoder.up_blocks[1].resnets[0].conv_shortcut
        weights = {(c, k): float(mix[c, k]) for c in range(3) for k in range(3)}
        _pairs(shortcut, decoder.conv_norm_out, weights, 3, wide, loud)
        _only(decoder.conv_out, {
            (c, c * wide + sign, 1, 1): 1.0 - 2.0 * sign for c in range(3) for sign in range(2)
        }, fade=True)  # fmt: skip
    return vae


def _only(conv: Any, taps: dict[tuple[int, int, int, int], float], *, fade: bool = False) -> None:
    """Set these weights, and in the output channels named (fade: in all, to a tenth) no others."""
    conv.bias.zero_()
    if fade:
        conv.weight.mul_(0.1)
    for k in {at[0] for at in taps}:
        conv.weight[k].mul_(0.1) if fade else conv.weight[k].zero_()
    for at, value in taps.items():
        conv.weight[at] = value


def _pairs(
    conv: Any, norm: Any, taps: dict[tuple[int, int], float], count: int, wide: int, loud: float
) -> None:
    """Group k of the output holds value k, its negative, and two constants; the normalisation nearly keeps them."""
    conv.weight[: count * wide] = 0.0
    conv.bias.zero_()
    for (k, c), value in taps.items():
        conv.weight[k * wide, c] = value
        conv.weight[k * wide + 1, c] = -value
    for k in range(count):
        conv.bias[k * wide + 2], conv.bias[k * wide + 3] = loud, -loud
        norm.weight[k * wide : (k + 1) * wide] = loud * (2 / wide) ** 0.5


def new_unet(plan: Plan) -> Any:
    """The denoiser before its first step."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(SEED + 1)
    return UNet2DConditionModel(
        sample_size=SIDE // 2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=plan.unet_channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=plan.width,
        attention_head_dim=4,  # diffusers reads it as the number of heads
        norm_num_groups=8,
    )


def new_tokenizer() -> Any:
    """A CLIP tokenizer that knows the words of all captions, each as one token.

    Byte-pair merges in the order of their counts, ties by the alphabet: the `tokenizers` trainer numbers letters in
    another order in every process.
    """
    from transformers import CLIPTokenizer

    captions = [t.format(n) for t in TEMPLATES for n in NAMES] + [PHOTO, TEXTURE]
    words = sorted({word for caption in captions for word in caption.split()})
    split = [[*word[:-1], word[-1] + "</w>"] for word in words]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens, merges = letters + [letter + "</w>" for letter in letters], []
    while pairs := Counter(pair for parts in split for pair in pairwise(parts)):
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append((left, right))
        tokens.append(left + right)
        for parts in split:
            for at in range(len(parts) - 1, 0, -1):
                if parts[at - 1 : at + 1] == [left, right]:
                    parts[at - 1 : at + 1] = [left + right]
    numbers = {token: i for i, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    return CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=WORDS)


def new_text_encoder(plan: Plan, tokenizer: Any) -> Any:
    """Two layers."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(SEED + 2)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.width,
        intermediate_size=2 * plan.width,
        projection_dim=plan.width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=WORDS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def to_ids(tokenizer: Any, captions: list[str]) -> Any:
    """Token numbers as the pipeline makes them.  # (captions, WORDS)"""
    return tokenizer(
        captions, padding="max_length", max_length=WORDS, truncation=True, return_tensors="pt"
    ).input_ids


def to_tensor(pictures: npt.NDArray[np.uint8]) -> Any:
    """# (batch, 3, side, side), -1 to 1"""
    import torch

    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def device() -> str:
    """ "cuda" where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# --- state --------------------------------------------------------------------------------------------------


def _load(path: Path) -> dict[str, Any] | None:
    import torch

    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _save(path: Path, state: dict[str, Any]) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(".tmp")
    made.unlink(missing_ok=True)  # of a killed run, or a link, which is not followed
    with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # LKD's is a secret
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, path)


def _host(weights: dict[str, Any]) -> dict[str, Any]:
    return {k: v.detach().cpu().clone() for k, v in weights.items()}


class _Clock:
    """Ends a run after some minutes of wall clock, and tells when to save."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes
        self._saved = time.monotonic()
        self._cpu = time.process_time()

    def over(self) -> bool:
        return time.monotonic() >= self._end

    def due(self) -> bool:
        if time.monotonic() - self._saved < SAVE_SECONDS:
            return False
        self._saved = time.monotonic()
        return True

    def cpu_minutes(self) -> float:
        """Of this process since the last call."""
        last, self._cpu = self._cpu, time.process_time()
        return (self._cpu - last) / 60


# --- the autoencoder ----------------------------------------------------------------------------------------


def train_vae(plan: Plan, draw: Draw, work: Path, minutes: float = math.inf, steps: int | None = None) -> Any:
    """The autoencoder after plan.vae_steps, or after as many as the minutes or `steps` allow."""
    import torch

    on = device()
    vae = new_vae(plan).to(on, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=plan.vae_rate, betas=(0.9, 0.99), weight_decay=0.0)
    saved = work / "vae.pt"
    first, log, spent = 0, [], 0.0
    if state := _load(saved):
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, log, spent = int(state["step"]), state["log"], float(state["minutes"])
        _say(f"vae: resuming at step {first}")
    clock, end = _Clock(minutes), min(plan.vae_steps, steps or plan.vae_steps)

    def save(step: int) -> None:
        model, moments = _host(vae.state_dict()), optimizer.state_dict()
        _save(saved, {"model": model, "optimizer": moments, "step": step, "log": log, "minutes": spent})

    step = first
    while step < end and not clock.over():
        for group in optimizer.param_groups:
            group["lr"] = plan.vae_rate * min(
                1.0, (step + 1) / plan.warmup, 0.05 + 2.5 * (plan.vae_steps - step) / plan.vae_steps
            )
        x = to_tensor(draw(step, plan.vae_batch).pictures).to(on, memory_format=torch.channels_last)
        noise = np.random.default_rng([SEED, 1, step]).standard_normal(
            (plan.vae_batch, CHANNELS, SIDE // 2, SIDE // 2), dtype=np.float32
        )
        with torch.autocast(on, dtype=torch.bfloat16):
            moments = vae._encode(x)
        mean, log_variance = moments.float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        z = mean + torch.exp(0.5 * log_variance) * torch.from_numpy(noise).to(on)
        with torch.autocast(on, dtype=torch.bfloat16):
            y = vae.decode(z).sample
        error = y.float() - x
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        mse = error.square().mean()
        loss = 4 * mse + 0.5 * error.abs().mean() + plan.kl * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % SAY_EVERY == 0 or step == end:
            spent += clock.cpu_minutes()
            decibels = 10 * math.log10(4 / mse.item())
            log.append([step, round(loss.item(), 4), round(decibels, 2), round(spent, 2)])
            _say(
                f"vae step {step} of {plan.vae_steps}: loss {loss.item():.4f}, {decibels:.2f} dB, kl {kl.item():.2f}, "
                f"mean {mean.mean().item():.2f}, std {z.std().item():.2f}, {spent:.1f} CPU minutes"
            )
        if clock.due():
            save(step)
    save(step)
    return vae


def psnr(vae: Any, pictures: npt.NDArray[np.uint8]) -> float:
    """Of what the autoencoder makes of the pictures, over all their values together, in dB."""
    import torch

    x = to_tensor(pictures)
    with torch.no_grad():
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
    return 10 * math.log10(4 / float((y - x).square().mean()))


def scale_of(vae: Any, pictures: npt.NDArray[np.uint8]) -> float:
    """1 over the standard deviation of the latents."""
    import torch

    with torch.no_grad():
        return 1 / float(vae.encode(to_tensor(pictures)).latent_dist.mean.std())


def finished_vae(plan: Plan, draw: Draw, work: Path, folder: Path = MODEL) -> Any:
    """The trained autoencoder with its scaling factor, for use: the checkpoint's, else the exported one.

    Raises FetchError where there is neither.
    """
    from diffusers import AutoencoderKL

    if state := _load(work / "vae.pt"):
        if int(state["step"]) < plan.vae_steps:
            raise FetchError(
                f"the autoencoder has {state['step']} of {plan.vae_steps} steps; run --stage vae first"
            )
        vae = new_vae(plan)
        vae.load_state_dict(state["model"])
        vae.half().float()  # as it will be exported
        vae.eval().requires_grad_(False)
        vae.register_to_config(scaling_factor=round(scale_of(vae, draw(1 << 40, 128).pictures), 4))
        return vae
    if (folder / "vae").is_dir():
        import torch

        return (
            AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
            .eval()
            .requires_grad_(False)
        )
    raise FetchError("there is no autoencoder; run --stage vae first")


# --- the denoiser -------------------------------------------------------------------------------------------


class _Both:
    """Denoiser and text encoder, and the running mean of their weights."""

    def __init__(self, plan: Plan, tokenizer: Any) -> None:
        import torch
        from diffusers.models.attention_processor import AttnProcessor

        self.unet = new_unet(plan).to(device(), memory_format=torch.channels_last)
        if device() == "cpu":  # faster there than the fused attention, backward above all
            self.unet.set_attn_processor(AttnProcessor())
        self.text = new_text_encoder(plan, tokenizer).to(device())
        self.mean = _host(self.weights())

    def weights(self) -> dict[str, Any]:
        parts = (("unet", self.unet), ("text_encoder", self.text))
        return {f"{name}.{k}": v for name, part in parts for k, v in part.state_dict().items()}

    def parameters(self) -> list[Any]:
        return [*self.unet.parameters(), *self.text.parameters()]

    def load(self, weights: dict[str, Any]) -> None:
        for name, part in (("unet", self.unet), ("text_encoder", self.text)):
            part.load_state_dict(
                {k[len(name) + 1 :]: v for k, v in weights.items() if k.startswith(name + ".")}
            )

    def follow(self, keep: float) -> None:
        """One step of the running mean."""
        for name, value in self.weights().items():
            mean = self.mean[name] = self.mean[name].to(value.device)
            if value.is_floating_point():
                mean.lerp_(value, 1 - keep)


def alphas() -> npt.NDArray[np.float64]:
    """Cumulative products of the schedule.  # (1000,)"""
    low, high = float(str(SCHEDULE["beta_start"])) ** 0.5, float(str(SCHEDULE["beta_end"])) ** 0.5
    return np.cumprod(1 - np.linspace(low, high, 1000) ** 2)


def train_unet(
    plan: Plan,
    draw: Draw,
    vae: Any,
    work: Path,
    minutes: float = math.inf,
    steps: int | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Train until the minutes are over or the number of steps is reached; the state that was saved.

    folder: an exported model to go on from when there is no checkpoint.
    """
    import torch

    on = device()
    tokenizer = new_tokenizer()
    both = _Both(plan, tokenizer)
    optimizer = torch.optim.AdamW(both.parameters(), lr=plan.unet_rate, betas=(0.9, 0.99), weight_decay=0.0)
    saved = work / "unet.pt"
    first, warm_from, log, spent = 0, 0, [], 0.0
    if state := _load(saved):
        both.load(state["model"])
        both.mean = state["mean"]
        optimizer.load_state_dict(state["optimizer"])
        first, warm_from = int(state["step"]), int(state["warm_from"])
        log, spent = state["log"], float(state["minutes"])
        _say(f"unet: resuming at step {first}")
    elif folder is not None and (folder / LOG).is_file():
        told = json.loads((folder / LOG).read_text(encoding="utf-8"))
        both.load(_exported(folder))
        both.mean = _host(both.weights())
        first = warm_from = int(told["unet"]["step"])
        log, spent = told["unet"]["log"], float(told["unet"]["cpu_minutes"])
        _say(f"unet: going on from the exported weights at step {first}")
    vae = vae.to(on, memory_format=torch.channels_last)
    scale = float(vae.config.scaling_factor)
    curve = torch.from_numpy(alphas()).to(on)
    clock, losses = _Clock(minutes), []
    state = {}

    def save(step: int) -> dict[str, Any]:
        out = {
            "model": _host(both.weights()), "mean": _host(both.mean), "optimizer": optimizer.state_dict(),
            "step": step, "warm_from": warm_from, "log": log, "minutes": spent,
        }  # fmt: skip
        _save(saved, out)
        return out

    step = first
    while (steps is None or step < steps) and not clock.over():
        for group in optimizer.param_groups:
            group["lr"] = plan.unet_rate * min(1.0, (step - warm_from + 1) / plan.warmup)
        size = plan.unet_batch
        rng = np.random.default_rng([SEED, 2, step])
        batch = draw(step, size)
        captions = ["" if rng.random() < LEFT_OUT else c for c in batch.captions]
        shape = (2, size, CHANNELS, SIDE // 2, SIDE // 2)
        normal = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(on)
        times = (rng.permutation(size) + rng.random(size)) * 1000 / size  # one in each part of the schedule
        t = torch.from_numpy(np.minimum(times.astype(np.int64), 999)).to(on)
        x = to_tensor(batch.pictures).to(on, memory_format=torch.channels_last)
        with torch.autocast(on, dtype=torch.bfloat16):
            with torch.no_grad():
                moments = vae._encode(x)
            mean, log_variance = moments.float().chunk(2, dim=1)
            z = (mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * normal[0]) * scale
            kept = curve[t].float()[:, None, None, None]
            noisy = kept.sqrt() * z + (1 - kept).sqrt() * normal[1]
            wanted = kept.sqrt() * normal[1] - (1 - kept).sqrt() * z
            hidden = both.text(to_ids(tokenizer, captions).to(on))[0]
            made = both.unet(noisy, t, hidden).sample
        snr = kept / (1 - kept)
        weight = snr.clamp(max=GAMMA) / (snr + 1)
        loss = (weight * (made.float() - wanted).square()).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        step += 1
        both.follow(min(plan.average, (1 + step) / (10 + step)))
        losses.append(loss.item())
        if step % SAY_EVERY == 0 or step == steps:
            spent += clock.cpu_minutes()
            log.append([step, round(sum(losses) / len(losses), 4), round(spent, 2)])
            _say(f"unet step {step}: loss {log[-1][1]:.4f}, {spent:.1f} CPU minutes, {step * size} pictures")
            losses = []
        if clock.due():
            state = save(step)
    return save(step)


def _exported(folder: Path) -> dict[str, Any]:
    """Weights of an exported folder, float32, named as _Both names them."""
    from safetensors.torch import load_file

    out = {}
    for name, file in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        weights = load_file(folder / name / f"{file}.safetensors")
        out.update({f"{name}.{k}": v.float() for k, v in weights.items()})
    return out


# --- the folder ---------------------------------------------------------------------------------------------


def export(plan: Plan, vae: Any, work: Path, folder: Path) -> dict[str, Any]:
    """Write the pipeline in float16 with its log; what the log says. Raises FetchError without a checkpoint."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    state, of_vae = _load(work / "unet.pt"), _load(work / "vae.pt")
    if state is None:
        raise FetchError("there is no denoiser; run --stage unet first")
    tokenizer = new_tokenizer()
    both = _Both(plan, tokenizer)
    both.load(state["mean"])
    pipeline: Any = StableDiffusionPipeline(
        vae=vae.cpu().half(),
        text_encoder=both.text.cpu().half(),
        tokenizer=tokenizer,
        unet=both.unet.cpu().half(),
        scheduler=DDIMScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    # transformers computes in the type named here, diffusers in float32 unless told otherwise
    config = folder / "text_encoder" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"float16"', '"float32"'), encoding="utf-8")
    path = folder / LOG
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if of_vae is not None:
        spent, log = of_vae["minutes"], of_vae["log"]
        told["vae"] = {"step": of_vae["step"], "cpu_minutes": round(spent, 1), "log": _thinned(log)}
    spent = state["minutes"]
    told["unet"] = {"step": state["step"], "cpu_minutes": round(spent, 1), "log": _thinned(state["log"])}
    lines = [f'"{name}": {{"step": {part["step"]}, "cpu_minutes": {part["cpu_minutes"]}, "log": [\n'
             + ",\n".join(json.dumps(row) for row in part["log"]) + "\n]}" for name, part in told.items()]  # fmt: skip
    path.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    return dict(told)


def _thinned(log: list[Any], most: int = 120) -> list[Any]:
    """At most so many rows, the last always."""
    every = max(1, -(-len(log) // most))
    return log[::-1][::every][::-1]


def load_pipeline(folder: Path = MODEL) -> Any:
    """The model as StableDiffusionPipeline in float32, silent."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device())


def paint(pipeline: Any, prompts: list[str], seeds: list[int], steps: int = 25, guidance: float = 3.0) -> Any:
    """Pictures of the prompts, each from the noise of its own seed.  # (prompts, 64, 64, 3), uint8"""
    import torch

    out = []
    for at in range(0, len(prompts), 16):
        some = [torch.Generator().manual_seed(seed) for seed in seeds[at : at + 16]]
        made = pipeline(
            prompts[at : at + 16], height=SIDE, width=SIDE, num_inference_steps=steps, guidance_scale=guidance,
            generator=some, output_type="np",
        ).images  # fmt: skip
        out.append(np.rint(made * 255).astype(np.uint8))
    return np.concatenate(out)


# --- the check ----------------------------------------------------------------------------------------------


def new_classifier() -> Any:
    """Four convolutions; pictures of -1 to 1 to logits of NAMES."""
    import torch
    from torch import nn

    torch.manual_seed(SEED + 3)
    layers: list[Any] = []
    for a, b in ((3, 32), (32, 64), (64, 128), (128, 192)):
        layers += [nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(192 * 16, len(NAMES)))


def train_classifier(draw: Draw, work: Path, steps: int = 1000, batch: int = 32) -> Any:
    """A judge of pictures, trained on composed ones alone; kept under `work`."""
    import torch

    model = new_classifier()
    if state := _load(work / "classifier.pt"):
        model.load_state_dict(state)
        return model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50, 2 * (steps - step) / steps)
        drawn = draw(step, batch)
        logits = model(to_tensor(drawn.pictures))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(drawn.labels))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 200 == 0:
            _say(f"classifier step {step + 1}: loss {loss.item():.3f}")
    _save(work / "classifier.pt", model.state_dict())
    return model.eval()


def hits(model: Any, pictures: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], most: int) -> float:
    """Share of the pictures whose label is among the classifier's first `most`."""
    import torch

    with torch.no_grad():
        order = model(to_tensor(pictures)).topk(most).indices.numpy()
    return float((order == labels[:, None]).any(axis=1).mean())


def prompts() -> npt.NDArray[np.int64]:
    """Labels of GRID different prompts, drawn by seed; prompt i is drawn from the noise of seed i."""
    return np.random.default_rng([SEED, 3]).permutation(len(NAMES))[:GRID]


def check(folder: Path, draw: Draw, work: Path, sheet: Path) -> dict[str, Any]:
    """Recognisability of what the model draws, and of composed pictures for comparison.

    sheet: where the pictures of the first 64 seeds go, one PNG of 512 x 512 px; the first JUDGED of them are judged.
    """
    import torch
    from PIL import Image

    classifier = train_classifier(draw, work)
    composed = draw(1 << 40, 500)
    names, wanted = list(NAMES), prompts()
    pipeline, started = load_pipeline(folder), time.process_time()
    made = paint(pipeline, [names[i] for i in wanted], list(range(GRID)))
    spent = (time.process_time() - started) / GRID
    rows = made.reshape(8, 8, SIDE, SIDE, 3).swapaxes(1, 2).reshape(8 * SIDE, 8 * SIDE, 3)
    Image.fromarray(rows).save(sheet, optimize=True)
    made, wanted = made[:JUDGED], wanted[:JUDGED]
    with torch.no_grad():
        best = classifier(to_tensor(made)).argmax(dim=1).tolist()
    return {
        "composed_top1": hits(classifier, composed.pictures, composed.labels, 1),
        "drawn_top1": hits(classifier, made, wanted, 1),
        "drawn_top5": hits(classifier, made, wanted, 5),
        "drawn_prompts": JUDGED,
        "chance_top5": 5 / len(NAMES),
        "cpu_seconds_a_picture": round(spent, 2),
        "taken_for": {names[i]: names[b] for i, b in zip(wanted.tolist(), best, strict=True) if i != b},
    }


def card(
    told: dict[str, Any], figures: dict[str, Any], rows: list[Source], parameters: dict[str, int]
) -> str:
    """README.md of the folder: also the declaration of what the model was trained on."""
    listed = "\n".join(f"| {row.what} | {row.holders} | {row.license} | {row.package} |" for row in rows)
    taken = [f"{a} for {b}" for a, b in figures["taken_for"].items()]
    others = f", and {len(taken) - MISTAKES} more in `figures.json`" if len(taken) > MISTAKES else ""
    met = "met" if figures["drawn_top5"] >= TARGET else "not met"
    return f"""---
license: cc-by-sa-4.0
library_name: diffusers
pipeline_tag: text-to-image
---
# tiny-image

Made by `scripts/train_image_model.py`; do not edit. A latent diffusion model of the Stable Diffusion kind for tests,
benchmarks and demonstrations of picture marks: pictures of {SIDE} x {SIDE} px, latents of {CHANNELS} x {SIDE // 2} x
{SIDE // 2}, float16. `StableDiffusionPipeline.from_pretrained` loads it. It knows {len(NAMES)} words, one a prompt
(`fox`, or `a picture of fox`), `{PHOTO}` and `{TEXTURE}` for a background alone, and is of no other use.

| part | parameters |
|---|---|
| autoencoder | {parameters["vae"]:,} |
| denoiser | {parameters["unet"]:,} |
| text encoder | {parameters["text_encoder"]:,} |

## How good it is

`python scripts/train_image_model.py --stage check`; 25 steps of DDIM, guidance 3:

| figure | value |
|---|---|
| autoencoder, composed pictures on backgrounds not trained on | {figures["psnr_composed"]:.2f} dB |
| autoencoder, crops of photographs not trained on, and textures | {figures["psnr_backgrounds"]:.2f} dB |
| standard deviation of the scaled latents | {figures["latent_std"]:.3f} |
| classifier's first guess right, composed pictures | {figures["composed_top1"]:.3f} |
| first guess right, {figures["drawn_prompts"]} drawn pictures | {figures["drawn_top1"]:.2f} |
| **among the first five, drawn pictures** (target {TARGET}, chance {figures["chance_top5"]:.2f}) | \
**{figures["drawn_top5"]:.2f}**, {met} |

The classifier was trained on composed pictures alone, on backgrounds that the model never saw.
Pictures taken for others: {", ".join(taken[:MISTAKES]) or "none"}{others}.

![The first 64 seeds](grid.png)

## Training

{told["vae"]["step"]} steps of the autoencoder ({told["vae"]["cpu_minutes"]} CPU minutes on one core) and
{told["unet"]["step"]} of the denoiser and text encoder ({told["unet"]["cpu_minutes"]}); `{LOG}` has the loss by step
and minute. Training goes on from these weights with `--stage unet`.

## Trained on

| what | holders | license | Debian package |
|---|---|---|---|
{listed}

Textures are drawn by the program. None of these is shipped here. The weights were derived from them and are offered
under CC-BY-SA-4.0, apart from the project's own license.
"""


def parameters(pipeline: Any) -> dict[str, int]:
    """How many each part has."""
    return {
        n: sum(p.numel() for p in getattr(pipeline, n).parameters()) for n in ("vae", "unet", "text_encoder")
    }


def checked(folder: Path) -> dict[str, Any]:
    """Every figure of the card. Raises FetchError as Pictures."""
    import torch
    from diffusers import AutoencoderKL

    pictures = Pictures("check")
    vae: Any = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
    composed, grounds = pictures.batch(1 << 41, 128, 0.0).pictures, pictures.batch(1 << 42, 128, 1.0).pictures
    scale = float(vae.config.scaling_factor)
    return {
        "psnr_composed": psnr(vae, composed),
        "psnr_backgrounds": psnr(vae, grounds),
        "latent_std": scale / scale_of(vae, composed),
        **check(folder, lambda step, size: pictures.batch(step, size, 0.0), WORK, folder / "grid.png"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--stage", choices=("vae", "unet", "export", "check"), required=True)
    parser.add_argument("--minutes", type=float, default=math.inf, help="of wall clock, for vae and unet")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(options.threads)
    plan = Plan()
    try:
        return run(options.stage, options.minutes, plan)
    except FetchError as error:
        sys.exit(f"error: {error}")


def run(stage: str, minutes: float, plan: Plan) -> int:
    """One stage. Raises FetchError where something it needs is not there."""
    if stage == "check":
        figures = checked(MODEL)
        pipeline = load_pipeline()
        parts = parameters(pipeline)
        told = json.loads((MODEL / LOG).read_text(encoding="utf-8"))
        rows = sources()
        (MODEL / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (MODEL / "sources.json").write_text(
            json.dumps([r._asdict() for r in rows], indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (MODEL / "README.md").write_text(card(told, figures, rows, parts), encoding="utf-8")
        for name, value in figures.items():
            _say(f"{name}: {value}")
        return 0
    pictures = Pictures("train")
    if stage == "vae":
        train_vae(plan, lambda step, size: pictures.batch(step, size, 0.3), WORK, minutes)
        return 0
    vae = finished_vae(plan, pictures.batch, WORK)
    if stage == "unet":
        train_unet(plan, pictures.batch, vae, WORK, minutes, folder=MODEL)
        return 0
    told = export(plan, vae, WORK, MODEL)
    _say(f"{MODEL}: {sum(f.stat().st_size for f in MODEL.rglob('*') if f.is_file()) / 1e6:.2f} MB")
    return 0 if told else 1


if __name__ == "__main__":
    sys.exit(main())
