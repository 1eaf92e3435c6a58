"""A model's folder on disk: tokenizer and causal language model of transformers, or a text-to-image pipeline of
diffusers; never from a hub, never its code.

What such folders hold comes of strangers, and transformers, diffusers, tokenizers and safetensors answer broken ones
with errors of many kinds; here they are one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zhiyi_watermark.errors import UnavailableError
from zhiyi_watermark.text_stream import Tokenizer

if TYPE_CHECKING:  # torch is heavy and only who loads a model needs it
    import torch

_ERRORS: Final = (
    OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, AssertionError, ArithmeticError,
    ImportError, RecursionError,
)  # fmt: skip
_OWN: Final[dict[str, dict[str, Any]]] = {  # no other's check or mark on the pictures
    "StableDiffusionPipeline": {"safety_checker": None, "requires_safety_checker": False},
    "StableDiffusionXLPipeline": {"add_watermarker": False},
}
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
        made, told = loaded
        lacking = sorted(told["missing_keys"])
        if lacking:
            raise ValueError(f"{len(lacking)} tensors are missing, {lacking[0]} the first")
        model: torch.nn.Module = made.eval()
        return model


def load_pipeline(folder: Path) -> Any:
    """The text-to-image pipeline in a folder as float32; safetensors only, no safety checker, no mark of its own.

    Raises UnavailableError where none can be loaded, it is of a class that PIPELINES lacks, or weights are missing:
    transformers would draw those.
    """
    import torch

    with _told(folder, "pipeline", _PIPELINE):
        import diffusers
        from diffusers.utils import logging

        index = folder / "model_index.json"
        with index.open("rb") as file:
            text = file.read(_MAX_INDEX + 1)
        said = json.loads(text) if len(text) <= _MAX_INDEX else None
        name = said.get("_class_name") if isinstance(said, dict) else None
        if name not in PIPELINES:
            raise ValueError(f"{index.name} names class {name!r:.60}; read are {', '.join(PIPELINES)}")
        logging.disable_progress_bar()
        made: Any = getattr(diffusers, name).from_pretrained(
            folder,
            torch_dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            **_OWN[name],
        )
        for part in ("vae", "unet", "text_encoder", "text_encoder_2"):
            module = getattr(made, part, None)
            if module is not None and _tensors(folder / part) < len(module.state_dict()):
                raise ValueError(f"{part} lacks {len(module.state_dict()) - _tensors(folder / part)} tensors")
    made.set_progress_bar_config(disable=True)
    return made


def _tensors(folder: Path) -> int:
    """How many tensors a part's files hold."""
    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            count += len(file.keys())
    return count


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
