"""Pipelines for tests: tiny ones of diffusers with random weights, and one whose pictures show the noise itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

WIDTH = 16
WORDS = 8


def scheduler(kind: str, prediction: str) -> Any:
    """ddim or dpm, with the noise schedule of Stable Diffusion."""
    made = {"ddim": DDIMScheduler, "dpm": DPMSolverMultistepScheduler}[kind]
    options = {"clip_sample": False, "set_alpha_to_one": False} if kind == "ddim" else {}
    return made(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        prediction_type=prediction, **options,
    )  # fmt: skip


def tiny_pipeline(
    kind: str = "ddim", prediction: str = "epsilon", *, side: int = 16, xl: bool = False
) -> Any:
    """A pipeline of random weights with latents of 4 x side x side, two px a cell."""
    torch.manual_seed(5)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=2 * side,
    )
    extra = (
        {"addition_embed_type": "text_time", "addition_time_embed_dim": 8,
         "projection_class_embeddings_input_dim": 6 * 8 + WIDTH}
        if xl else {}
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=side,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=2 * WIDTH if xl else WIDTH,
        attention_head_dim=4,
        **extra,
    )
    vocabulary = {
        "<|startoftext|>": 0,
        "<|endoftext|>": 1,
        "o": 2,
        "w": 3,
        "l": 4,
        "o</w>": 5,
        "w</w>": 6,
        "l</w>": 7,
    }
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=WORDS)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH, projection_dim=WIDTH,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=WORDS,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    parts = {"vae": vae, "unet": unet, "tokenizer": tokenizer, "scheduler": scheduler(kind, prediction)}
    pipeline: Any
    if xl:
        pipeline = StableDiffusionXLPipeline(
            **parts, text_encoder=CLIPTextModel(config), text_encoder_2=CLIPTextModelWithProjection(config),
            tokenizer_2=tokenizer, add_watermarker=False,
        )  # fmt: skip
    else:
        pipeline = StableDiffusionPipeline(
            **parts, text_encoder=CLIPTextModel(config), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class _Part(torch.nn.Module):
    device, dtype = torch.device("cpu"), torch.float32


class _Mosaic(_Part):
    """A VAE whose latents are the mean colors of 2 x 2 px, two deviations a full half range."""

    config = SimpleNamespace(scaling_factor=1.0, shift_factor=None, block_out_channels=(1, 1))

    def encode(self, pixels: torch.Tensor) -> Any:
        latents = 2.5 * torch.nn.functional.avg_pool2d(pixels, 2)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


class _Gaussian(_Part):
    """The best denoiser of pictures that are white Gaussian noise: the flow keeps every latent as it is."""

    def __init__(self, side: int, alphas: torch.Tensor) -> None:
        super().__init__()
        self.config = SimpleNamespace(sample_size=side, in_channels=3)
        self._alphas = alphas

    def forward(self, x: torch.Tensor, t: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        return (x * (1 - self._alphas[t]).sqrt(),)


def open_pipeline(side: int = 32) -> Any:
    """A pipeline whose pictures of 3 x side x side latents show the starting noise as colors: what is left to test is
    all that happens to a picture, and none of what a network makes of it."""
    schedule = scheduler("ddim", "epsilon")
    return SimpleNamespace(
        vae=_Mosaic(),
        unet=_Gaussian(side, schedule.alphas_cumprod),
        text_encoder=_Part(),
        scheduler=schedule,
        encode_prompt=lambda **_: (torch.zeros(1, 1, 1), None),
    )
