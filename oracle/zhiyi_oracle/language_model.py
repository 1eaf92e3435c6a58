"""A causal language model of transformers that writes under a mark. torch is imported only when one is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from zhiyi.errors import BadInput, ConfigError
from zhiyi_watermark.detect import Progress, no_progress
from zhiyi_watermark.errors import UnavailableError
from zhiyi_watermark.model_folder import load_model, load_tokenizer
from zhiyi_watermark.text_stream import Processor

MAX_CONTEXT_TOKENS: Final = 4_096


class TransformersGenerator:
    """A causal language model of transformers, on the CPU unless told otherwise. One answer at a time."""

    def __init__(self, folder: Path, *, temperature: float = 0.8, threads: int = 1) -> None:
        """Loads safetensors from a local folder; never from a hub, never code of the folder.

        Raises:
            ConfigError: no model can be loaded from there.
        """
        import torch

        torch.set_num_threads(threads)
        try:
            self.tokenizer: Any = load_tokenizer(folder)
            self._model: Any = load_model(folder)
        except UnavailableError as exc:
            raise ConfigError(str(exc)) from exc
        self._temperature = temperature

    def generate(
        self,
        prompt: str,
        processor: Processor,
        *,
        top_k: int,
        max_new_tokens: int,
        seed: int | None,
        min_new_tokens: int = 0,
        progress: Progress = no_progress,
    ) -> str:
        """Samples among the top k, of what the processor makes of them; the text does not end before min_new_tokens.

        progress is told the tokens written so far, of max_new_tokens.

        Raises:
            BadInput: the prompt has no token, or it has more, or with the answer, than the model reads.
        """
        import torch

        if self.tokenizer.chat_template:
            turn = [{"role": "user", "content": prompt}]
            inputs = self.tokenizer.apply_chat_template(
                turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        else:
            inputs = self.tokenizer(prompt, return_tensors="pt")
        length = inputs["input_ids"].shape[1]
        most = min(
            MAX_CONTEXT_TOKENS, getattr(self._model.config, "max_position_embeddings", MAX_CONTEXT_TOKENS)
        )
        if not length:
            raise BadInput("the prompt has no token: write something for the model to go on from")
        if length > most:
            raise BadInput(f"the prompt has {length} tokens, at most {most} are read; shorten it")

        def counted(written: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            progress(written.shape[1] - length, max_new_tokens)
            return logits

        if seed is not None:
            torch.manual_seed(seed)
        try:
            with torch.no_grad():
                found = self._model.generate(
                    **inputs,
                    do_sample=True,
                    temperature=self._temperature,
                    top_k=top_k,
                    max_new_tokens=max_new_tokens,
                    min_new_tokens=min_new_tokens,
                    logits_processor=[processor, counted],
                    pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
                )
        except IndexError as exc:  # of a model with learned positions
            raise BadInput(
                f"the prompt of {length} tokens and {max_new_tokens} more do not fit into the {most} tokens that the "
                "model reads; ask for fewer"
            ) from exc
        text: str = self.tokenizer.decode(
            found[0][length:], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
