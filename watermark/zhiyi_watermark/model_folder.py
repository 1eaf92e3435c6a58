"""A transformers folder on disk: its tokenizer and its causal language model, never from a hub, never its code.

What such folders hold comes of strangers, and transformers, tokenizers and safetensors answer broken ones with errors
of many kinds; here they are one.
"""

from __future__ import annotations

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
    ImportError,
)  # fmt: skip


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


@contextmanager
def _told(folder: Path, what: str) -> Iterator[None]:
    """Errors of the libraries as UnavailableError."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    if not folder.is_dir():
        raise UnavailableError(f"{folder} is no folder; give the folder of a transformers model")
    known: tuple[type[BaseException], ...] = (*_ERRORS, StrictDataclassError, SafetensorError)
    try:
        yield
    except BaseException as error:
        # what tokenizers raises has no class of its own
        if isinstance(error, known) or type(error) is Exception:
            raise _unavailable(folder, what, error) from error
        raise


def _unavailable(folder: Path, what: str, error: BaseException) -> UnavailableError:
    why = " ".join(str(error).split())
    return UnavailableError(
        f"no {what} can be loaded from {folder} ({type(error).__name__}: {why:.160}); give the folder of the model "
        "as it was published, with config.json, tokenizer.json and all its safetensors"
    )
