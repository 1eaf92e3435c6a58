"""What is done to a marked picture with a generative model of the attacker's own.

Every attack takes and gives RGB, uint8 0 .. 255, (height, width, 3), of the pipeline's size in px; the pipeline, any
Stable Diffusion of diffusers, is left as it was, and draws come of the seed alone.

- VAE re-encoding and img2img regenerate the picture (Zhao et al., "Invisible Image Watermarks Are Provably Removable
  Using Generative AI", NeurIPS 2024).
- Style transfer gives the latent the means and deviations of another picture's (after Huang & Belongie, "Arbitrary
  Style Transfer in Real-time with Adaptive Instance Normalization", ICCV 2017, in the VAE's latent instead of VGG's).
- Reprompting and imprinting put a mark that was found in one picture into others, without the key (Mueller et al.,
  "Black-Box Forgery Attacks on Semantic Watermarks for Diffusion Models", CVPR 2025). The model is a proxy: the mark's
  own, or another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.attacks.image import Rgb
from zhiyi_watermark.errors import SpecError
from zhiyi_watermark.image_generated import Inverter, plan

if TYPE_CHECKING:
    import torch


def _tensor(picture: Rgb) -> torch.Tensor:
    """0 .. 255 to -1 .. 1.  # (height, width, 3) -> (1, 3, height, width)"""
    import torch

    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise SpecError(f"a picture is uint8 (height, width, 3), given {picture.dtype} {picture.shape}")
    return torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def _pixels(values: npt.NDArray[np.floating[Any]]) -> Rgb:
    """0 .. 1 to 0 .. 255."""
    out: Rgb = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return out


def _inverter(pipeline: Any, picture: Rgb, steps: int) -> Inverter:
    height, width = picture.shape[:2]
    return Inverter(pipeline, plan(pipeline, height=height, width=width, steps=steps))


def _decoded(pipeline: Any, latents: torch.Tensor) -> Rgb:
    config = pipeline.vae.config
    made = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
    drawn = pipeline.vae.decode(made.to(pipeline.vae.dtype), return_dict=False)[0]
    return _pixels((drawn[0].float().permute(1, 2, 0).cpu().numpy() + 1) / 2)


def reencode(pipeline: Any, picture: Rgb) -> Rgb:
    """Through the pipeline's VAE and back."""
    import torch

    with torch.inference_mode():
        return _decoded(pipeline, _inverter(pipeline, picture, 2).encode(_tensor(picture)))


def img2img(
    pipeline: Any,
    picture: Rgb,
    strength: float,
    *,
    seed: int,
    prompt: str = "",
    steps: int = 50,
    guidance: float = 1.0,
) -> Rgb:
    """Noised to that part of the way (.3 and .5 in the papers) and drawn again; strength in (0, 1]."""
    import torch
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import (
        StableDiffusionImg2ImgPipeline,
    )
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import (
        StableDiffusionXLImg2ImgPipeline,
    )
    from PIL import Image

    if not 0 < strength <= 1 or int(steps * strength) < 1:
        raise SpecError(f"strength {strength} must lie in (0, 1] and leave a step of {steps}")
    made: Any = StableDiffusionImg2ImgPipeline
    options: dict[str, Any] = {"requires_safety_checker": False}
    if getattr(pipeline, "text_encoder_2", None) is not None:
        made, options = StableDiffusionXLImg2ImgPipeline, {"add_watermarker": False}  # nobody else's mark
        options["force_zeros_for_empty_prompt"] = pipeline.config.force_zeros_for_empty_prompt
    again = made(**pipeline.components, **options)
    again.set_progress_bar_config(disable=True)
    out = again(
        prompt=prompt,
        image=Image.fromarray(picture),
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator(pipeline.unet.device).manual_seed(seed),
        output_type="np",
    ).images
    return _pixels(np.asarray(out[0]))


def transfer_style(pipeline: Any, picture: Rgb, style: Rgb, strength: float = 1.0) -> Rgb:
    """The picture with each latent channel's mean and deviation moved to the style's by that part of the way."""
    import torch

    if not 0 <= strength <= 1:
        raise SpecError(f"strength {strength} is outside 0 .. 1")
    if style.shape != picture.shape:
        raise SpecError(f"the style {style.shape} is not of the picture's size {picture.shape}")
    with torch.inference_mode():
        model = _inverter(pipeline, picture, 2)
        content, other = model.encode(_tensor(picture)), model.encode(_tensor(style))
        deviation, mean = torch.std_mean(content, dim=(2, 3), keepdim=True)
        wanted, middle = torch.std_mean(other, dim=(2, 3), keepdim=True)
        moved = (content - mean) / deviation.clamp(min=1e-6) * wanted + middle
        return _decoded(pipeline, content + strength * (moved - content))


def reprompt(
    pipeline: Any,
    marked: Rgb,
    prompt: str,
    *,
    steps: int = 50,
    guidance: float = 7.5,
    inversion_steps: int = 50,
) -> Rgb:
    """A new picture from the noise that the proxy finds in a marked one."""
    import torch

    with torch.inference_mode():
        model = _inverter(pipeline, marked, inversion_steps)
        noise = model.invert(model.encode(_tensor(marked)), inversion_steps)
    out = pipeline(
        prompt=prompt,
        latents=noise.clone(),
        height=marked.shape[0],
        width=marked.shape[1],
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="np",
    ).images
    return _pixels(np.asarray(out[0]))


def imprint(
    pipeline: Any,
    cover: Rgb,
    marked: Rgb,
    *,
    rounds: int = 100,
    rate: float = 0.01,
    inversion_steps: int = 10,
) -> Rgb:
    """The cover, changed until the proxy finds the marked picture's noise in it.

    rounds: of Adam on the cover's latent, each a differentiated inversion; rate: its step. The attack of the paper,
    with fewer steps of inversion.
    """
    import torch

    if cover.shape != marked.shape:
        raise SpecError(f"the cover {cover.shape} is not of the marked picture's size {marked.shape}")
    if rounds < 1 or not 0 < rate <= 1:
        raise SpecError(f"rounds = {rounds} must be at least 1 and rate = {rate} lie in (0, 1]")
    model = _inverter(pipeline, cover, inversion_steps)
    with torch.no_grad():
        wanted = model.invert(model.encode(_tensor(marked)), inversion_steps)
        latent = model.encode(_tensor(cover)).clone().requires_grad_(True)
    adam = torch.optim.Adam([latent], lr=rate)
    flags = [(p, p.requires_grad) for p in pipeline.unet.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        for _ in range(rounds):
            adam.zero_grad()
            torch.nn.functional.mse_loss(model.invert(latent, inversion_steps), wanted).backward()  # type: ignore[no-untyped-call]
            adam.step()
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    with torch.no_grad():
        return _decoded(pipeline, latent)
