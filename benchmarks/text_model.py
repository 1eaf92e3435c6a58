"""Sampling from a Llama model in batches of equal prompts' length, with what a mark costs at every step.

A plain forward loop over transformers' weights: no padding, one matrix for query, key and value, a cache that grows in
blocks.
Every row draws from a stream of its own, so it depends on the others only by the kernels' rounding; a batch of the
same rows gives the same tokens again.

Step-wise perplexity: at each step p is the plain distribution at the sampling temperature over the surviving top-k,
p' the marked one at the same context; a text costs sum(E_p'[-ln p] - E_p[-ln p]) nats, and
exp(cost / tokens) - 1 is the increase. It compares at the same contexts: whole-text perplexity flatters plain text,
which repeats itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch.nn import functional

BLOCK: Final = 64  # tokens by which the cache grows
ENGINE: Final = 1  # raise it when the loop below computes something else

Mark = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""transformers' logits processor: (ids (rows, length), scores (rows, vocabulary)) to new scores."""


class Llama:
    """A Llama checkpoint: grouped attention, SiLU, no biases, as transformers' LlamaForCausalLM computes it."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.groups: int = config["num_key_value_heads"]
        self.size: int = config.get("head_dim") or config["hidden_size"] // self.heads
        self.epsilon: float = config["rms_norm_eps"]
        self.vocabulary: int = config["vocab_size"]
        self.dtype = dtype
        rope: dict[str, Any] = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 1e4)}
        if rope.get("rope_type", "default") != "default" or config.get("attention_bias"):
            raise ValueError(f"{folder}: only plain rotary positions without biases are supported")
        self._theta = float(rope["rope_theta"])
        weights = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
        self._embed = weights["model.embed_tokens.weight"]  # (vocabulary, width)
        self._head = weights.get("lm_head.weight", self._embed)
        self._norm = weights["model.norm.weight"]
        self._blocks = [self._block(weights, f"model.layers.{i}.") for i in range(self.layers)]

    @staticmethod
    def _block(weights: dict[str, torch.Tensor], at: str) -> tuple[torch.Tensor, ...]:
        qkv = torch.cat([weights[f"{at}self_attn.{x}_proj.weight"] for x in "qkv"])
        up = torch.cat([weights[f"{at}mlp.{x}_proj.weight"] for x in ("gate", "up")])
        names = ("input_layernorm", "post_attention_layernorm", "self_attn.o_proj", "mlp.down_proj")
        before, after, out, down = (weights[f"{at}{name}.weight"] for name in names)
        return before, qkv, out, after, up, down

    def start(self, rows: int, capacity: int) -> Cache:
        """An empty cache for `rows` texts of up to `capacity` tokens, prompt included."""
        position = torch.arange(capacity, dtype=torch.float32)[:, None]
        exponents = torch.arange(0, self.size, 2, dtype=torch.float32) / self.size
        angles = position / self._theta**exponents  # (capacity, size/2)
        turn = torch.cat([angles, angles], dim=1)
        empty = torch.zeros((self.layers, rows * self.groups, 0, self.size), dtype=self.dtype)
        return Cache(empty, empty, turn.cos().to(self.dtype), turn.sin().to(self.dtype))

    def logits(self, cache: Cache, ids: torch.Tensor) -> torch.Tensor:
        """Feeds ids to the cache and gives the next token's logits in fp32.

        ids: (rows, new); returns (rows, vocabulary)
        """
        rows, new = ids.shape
        begin, end = cache.length, cache.length + new
        cache.make_room(end)
        cos, sin = cache.cos[begin:end], cache.sin[begin:end]  # (new, size)
        q_width, kv_width = self.heads * self.size, self.groups * self.size
        x = functional.embedding(ids, self._embed)  # (rows, new, width)
        for layer, (before, qkv, out, after, up, down) in enumerate(self._blocks):
            joint = functional.linear(self._normed(x, before), qkv)
            q, k, v = torch.split(joint, [q_width, kv_width, kv_width], dim=-1)
            q = _turned(q.view(rows, new, self.heads, self.size).transpose(1, 2), cos, sin)
            k = _turned(k.view(rows, new, self.groups, self.size).transpose(1, 2), cos, sin)
            v = v.view(rows, new, self.groups, self.size).transpose(1, 2)
            cache.keys[layer, :, begin:end] = k.reshape(rows * self.groups, new, self.size)
            cache.values[layer, :, begin:end] = v.reshape(rows * self.groups, new, self.size)
            mixed = self._first(q, k, v) if begin == 0 else self._next(q, cache, layer, end)
            x = x + functional.linear(mixed.reshape(rows, new, q_width), out)
            gate, value = functional.linear(self._normed(x, after), up).chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate) * value, down)
        cache.length = end
        return functional.linear(self._normed(x[:, -1], self._norm), self._head).float()

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (x.shape[-1],), weight, self.epsilon)

    def _first(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """The prompt on itself.  # (rows, heads or groups, new, size) -> (rows, new, heads, size)"""
        k, v = (t.repeat_interleave(self.heads // self.groups, dim=1) for t in (k, v))
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    def _next(self, q: torch.Tensor, cache: Cache, layer: int, end: int) -> torch.Tensor:
        """One token a row on all before: the heads of a group are as many queries on one set of keys.

        Whole contiguous blocks, the unused end masked: oneDNN takes bf16 of any other layout at a third of the speed.
        # (rows, heads, 1, size) -> (rows, 1, heads, size)
        """
        rows, heads, new, size = q.shape
        if new != 1:
            raise ValueError(f"{new} tokens at once are fed to an empty cache only")
        keys, values = cache.keys[layer], cache.values[layer]  # (rows * groups, room, size)
        match = torch.bmm(q.reshape(rows * self.groups, heads // self.groups, size), keys.transpose(1, 2))
        scores = match.float() * size**-0.5
        scores[:, :, end:] = -torch.inf
        mixed = torch.bmm(scores.softmax(dim=-1).to(self.dtype), values)
        return mixed.reshape(rows, 1, heads, size)


@dataclass
class Cache:
    """Keys and values of the texts in the making."""

    keys: torch.Tensor  # (layers, rows * groups, room, size)
    values: torch.Tensor
    cos: torch.Tensor  # (capacity, size)
    sin: torch.Tensor
    length: int = 0

    def make_room(self, length: int) -> None:
        """For that many tokens, in whole blocks."""
        layers, sets, room, size = self.keys.shape
        if length > room:
            more = self.keys.new_zeros((layers, sets, -(-length // BLOCK) * BLOCK - room, size))
            self.keys = torch.cat([self.keys, more], dim=2)
            self.values = torch.cat([self.values, more], dim=2)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions.  # x: (rows, heads, new, size)"""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


@dataclass(frozen=True)
class Sampling:
    """How a text is drawn."""

    tokens: int
    temperature: float = 1.0
    top_k: int = 50
    scaled: bool = False  # whether the mark wants scores already divided by the temperature
    banned: tuple[int, ...] = ()  # ids never drawn: ends of text, so that all texts have the same length


Scores = Callable[[torch.Tensor], torch.Tensor]
"""The next logits given the ids that were added.  # (rows, new) -> (rows, vocabulary)"""


def sample(
    scores: Scores,
    prompts: torch.Tensor,
    how: Sampling,
    streams: Sequence[np.random.Generator],
    mark: Mark | None = None,
    tick: Callable[[int], None] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Texts of `how.tokens` tokens after the prompts, and what each cost, see the head of the file.

    prompts: (rows, length); streams: one a row; tick(step) is called after each step.
    Returns (rows, tokens), (rows,)
    """
    uniforms = np.stack([stream.random(how.tokens) for stream in streams])  # (rows, tokens)
    ids, fresh = prompts, prompts
    costs = np.zeros(len(prompts))
    for step in range(how.tokens):
        logits = scores(fresh)
        if how.banned:
            logits[:, list(how.banned)] = -torch.inf
        top, candidates = logits.topk(how.top_k, dim=-1)  # (rows, top_k), falling
        plain = marked = top / how.temperature
        if mark is not None:
            survivors = torch.full_like(logits, -torch.inf)
            survivors.scatter_(1, candidates, plain if how.scaled else top)
            marked = mark(ids, survivors).gather(1, candidates)
            marked = marked if how.scaled else marked / how.temperature
        log_p = torch.log_softmax(plain.double(), dim=-1).numpy()
        q = torch.softmax(marked.double(), dim=-1).numpy()
        if mark is not None:
            costs += ((np.exp(log_p) - q) * log_p).sum(axis=1)
        reached = q.cumsum(axis=1)
        chosen = (reached <= uniforms[:, step : step + 1] * reached[:, -1:]).sum(axis=1)
        fresh = candidates.gather(1, torch.from_numpy(chosen)[:, None])
        ids = torch.cat([ids, fresh], dim=1)
        if tick is not None:
            tick(step)
    made: npt.NDArray[np.int64] = ids[:, prompts.shape[1] :].numpy()
    return made, costs


def stream(key: str) -> np.random.Generator:
    """The draws of the text with this key."""
    seed = int.from_bytes(hashlib.sha256(f"draws {key}".encode()).digest()[:16], "big")
    return np.random.Generator(np.random.Philox(seed))


def write(
    model: Llama,
    prompts: torch.Tensor,
    how: Sampling,
    streams: Sequence[np.random.Generator],
    mark: Mark | None = None,
    tick: Callable[[int], None] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """`sample` from a model, from an empty cache."""
    with torch.inference_mode():
        cache = model.start(len(prompts), prompts.shape[1] + how.tokens)
        return sample(lambda fresh: model.logits(cache, fresh), prompts, how, streams, mark, tick)
