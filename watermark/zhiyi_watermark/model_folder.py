"""A model's folder on disk: tokenizer and causal language model of transformers, or a text-to-image pipeline of
diffusers; never from a hub, never its code.

What such folders hold comes of strangers, and transformers, diffusers, tokenizers and safetensors answer broken ones
with errors of many kinds; here they are one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zhiyi_watermark.errors import UnavailableError
from zhiyi_watermark.tensorfile import parsed
from zhiyi_watermark.text_stream import Tokenizer

if TYPE_CHECKING:  # torch is heavy and only who loads a model needs it
    import torch

_ERRORS: Final = (
    OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, AssertionError, ArithmeticError,
    ImportError, RecursionError,
)  # fmt: skip
_PARTS: Final = {  # what a pipeline's index may name, and nothing else is ever imported
    "vae": ("diffusers", ("AutoencoderKL",)),
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "text_encoder_2": ("transformers", ("CLIPTextModelWithProjection",)),
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
    "tokenizer_2": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
    "scheduler": ("diffusers", (
        "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
        "HeunDiscreteScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "UniPCMultistepScheduler",
    )),
}  # fmt: skip
_WEIGHTS: Final = ("vae", "unet", "text_encoder", "text_encoder_2")
_OWN: Final[dict[str, dict[str, Any]]] = {  # no other's check or mark on the pictures
    "StableDiffusionPipeline": {
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False,
    },
    "StableDiffusionXLPipeline": {"add_watermarker": False},
}  # fmt: skip
PIPELINES: Final = tuple(_OWN)
_TRANSFORMERS: Final = "config.json, tokenizer.json"
_PIPELINE: Final = "model_index.json, the folders of its parts"
_MAX_INDEX: Final = 1 << 16  # bytes


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer. Raises UnavailableError where none can be loaded."""
    from transformers import AutoTokenizer

    with _told(folder, "tokenizer"):
        made: Tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return made


def load_model(folder: Path) -> torch.nn.Module:
    """The folder's causal language model as float32, ready to be evaluated; safetensors only.

    Raises UnavailableError where none can be loaded, or where weights are missing: transformers would draw those.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UnavailableError(f"{folder} holds no config.json; give the folder of a transformers model")
    with _told(folder, "language model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model: torch.nn.Module = _whole(loaded).eval()
        return model


def load_pipeline(folder: Path) -> Any:
    """The text-to-image pipeline in a folder as float32; safetensors only, no safety checker, no mark of its own.

    Its index names the class of every part, and libraries import what an index says: here only _PARTS are loaded.
    Raises UnavailableError where none can be loaded, it or a part is of another class, or weights are missing: the
    libraries would draw those.
    """
    with _told(folder, "pipeline", _PIPELINE):
        import diffusers
        from diffusers.utils import logging

        index = folder / "model_index.json"
        with index.open("rb") as file:
            text = file.read(_MAX_INDEX + 1)
        said: Any = parsed(text) if len(text) <= _MAX_INDEX else None
        name = said.get("_class_name") if isinstance(said, dict) else None
        if name not in PIPELINES:
            raise ValueError(f"{index.name} names class {name!r:.60}; read are {', '.join(PIPELINES)}")
        logging.disable_progress_bar()
        options = dict(_OWN[name])
        if type(said.get("force_zeros_for_empty_prompt")) is bool:  # of XL
            options["force_zeros_for_empty_prompt"] = said["force_zeros_for_empty_prompt"]
        wanted = [part for part in _PARTS if name == "StableDiffusionXLPipeline" or not part.endswith("_2")]
        parts = {part: _part(folder / part, part, said.get(part)) for part in wanted}
        made: Any = getattr(diffusers, name)(**parts, **options)
    made.set_progress_bar_config(disable=True)
    return made


def _part(folder: Path, part: str, said: object) -> Any:
    """A part of a pipeline, of the class that the index names, if it is one of _PARTS."""
    import torch

    library, names = _PARTS[part]
    if not isinstance(said, list) or len(said) != 2 or said[0] != library or said[1] not in names:
        raise ValueError(f"{part} is {said!r:.80}; read are {library}'s {', '.join(names)}")
    if not folder.is_dir():  # a library would take it for a name on the hub
        raise ValueError(f"the folder {part} is missing")
    kind: Any = getattr(importlib.import_module(library), said[1])
    if part not in _WEIGHTS:
        return kind.from_pretrained(folder, local_files_only=True)
    dtype = {"dtype" if library == "transformers" else "torch_dtype": torch.float32}
    return _whole(
        kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **dtype
        ),
        f"{part}: ",
    )


def _whole(loaded: tuple[Any, dict[str, Any]], what: str = "") -> Any:
    """The model of a library's answer. Raises ValueError where tensors are missing."""
    model, told = loaded
    lacking = sorted(told["missing_keys"])
    if lacking:
        raise ValueError(f"{what}{len(lacking)} tensors are missing, {lacking[0]} the first")
    return model


@contextmanager
def _told(folder: Path, what: str, holds: str = _TRANSFORMERS) -> Iterator[None]:
    """Errors of the libraries as UnavailableError."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    if not folder.is_dir():
        raise UnavailableError(f"{folder} is no folder; give the model's folder")
    known: tuple[type[BaseException], ...] = (*_ERRORS, StrictDataclassError, SafetensorError)
    try:
        yield
    except BaseException as error:
        # what tokenizers raises has no class of its own
        if isinstance(error, known) or type(error) is Exception:
            raise _unavailable(folder, what, holds, error) from error
        raise


def _unavailable(folder: Path, what: str, holds: str, error: BaseException) -> UnavailableError:
    why = " ".join(str(error).split())
    return UnavailableError(
        f"no {what} can be loaded from {folder} ({type(error).__name__}: {why:.160}); give the folder of the model "
        f"as it was published, with {holds} and all its safetensors"
    )
