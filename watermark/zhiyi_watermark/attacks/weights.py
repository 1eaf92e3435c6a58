"""Attacks on marked weights: from safetensors files or folders to new ones, a tensor at a time.

Magnitude pruning: Han et al. (2015). Rounding to int8 and int4 in groups: absmax (Dettmers et al. 2022) and min-max,
the grid of GGUF's Q4_1. Low-rank updates: Hu et al., LoRA (2021). Collusion by average, majority, minority and
interleaving: Skoric et al. (2008) on Tardos codes. Permutation, scale and sign of hidden units leave a model's function
as it is (Ainsworth et al. 2023 on permutations). Fine-tuning is AdamW (Loshchilov and Hutter 2019); distillation is
Hinton et al. (2015).

Matrices are attacked, all or those that `where` takes by name; header, types and other tensors stay, values are rounded
to the stored type. Each draw comes from the seed and the tensor's name, so the order of tensors and shards is of no
matter. Outputs must not exist and appear when complete.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.errors import SpecError, UnavailableError
from zhiyi_watermark.tensorfile import FLOATS, Checkpoint, Entry, TensorFile, files_of, parsed, to_storage

Float32 = npt.NDArray[np.float32]
Where = Callable[[str], bool]
Change = Callable[[str, Float32], Float32]
Strategy = Literal["average", "majority", "minority", "interleave"]


def _everywhere(name: str) -> bool:
    return True


def _rng(seed: int, *parts: str | int) -> np.random.Generator:
    text = json.dumps([seed, *parts]).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest(), "big"))


@contextmanager
def _made(out: Path) -> Iterator[Path]:
    """A path to fill, which becomes `out`. Raises SpecError if that exists."""
    if out.exists():
        raise SpecError(f"{out} exists; an attack never writes over anything")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".zhiyi-attack-", dir=out.parent) as scratch:
        yield Path(scratch) / "made"
        os.replace(Path(scratch) / "made", out)


def rewrite(source: Path, out: Path, change: Change, *, where: Where = _everywhere, rank: int = 2) -> None:
    """A copy of a file or folder with each float tensor of that rank or more replaced by change(name, values).

    change gets and returns float32 of the tensor's shape. Other files of a folder (config, tokenizer) are copied.
    Raises SpecError if out exists or a shape changes, CarrierError on malformed files.
    """
    files = files_of(source)
    with _made(out) as made:
        if source.is_dir():
            shutil.copytree(source, made)
        else:
            shutil.copyfile(source, made)
        for file in files:
            with TensorFile(made / file.name if source.is_dir() else made, writable=True) as target:
                for entry in target.entries:
                    if len(entry.shape) >= rank and entry.dtype in FLOATS and where(entry.name):
                        values = target.floats(entry).reshape(entry.shape)
                        target.store(entry, _stored(change(entry.name, values), entry))


def _stored(values: Float32, entry: Entry) -> bytes:
    if values.shape != entry.shape:
        raise SpecError(f"{entry.name} has shape {entry.shape}, the attack made {values.shape}")
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    return to_storage(flat, entry.dtype).tobytes()


# --- of one copy --------------------------------------------------------------------------------------------


def prune(source: Path, out: Path, share: float, *, where: Where = _everywhere) -> None:
    """The smallest share of each matrix set to zero. Papers: .2, .5, .7."""
    if not 0 <= share < 1:
        raise SpecError(f"a share in 0 .. 1 is pruned, given {share}")

    def change(name: str, values: Float32) -> Float32:
        count = round(share * values.size)
        cut = values.copy()
        cut.reshape(-1)[np.argpartition(np.abs(values).reshape(-1), count)[:count]] = 0
        return cut

    rewrite(source, out, change, where=where)


def noise(source: Path, out: Path, relative: float, *, seed: int, where: Where = _everywhere) -> None:
    """With Gaussian noise of that size relative to each matrix's root mean square. Papers: .05 to .2."""

    def change(name: str, values: Float32) -> Float32:
        size = relative * float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
        return values + np.float32(size) * _rng(seed, name).standard_normal(values.shape, dtype=np.float32)

    rewrite(source, out, change, where=where)


def quantise(
    source: Path,
    out: Path,
    bits: int,
    *,
    group: int | None = None,
    grid: Literal["absmax", "minmax"] = "absmax",
    where: Where = _everywhere,
) -> None:
    """Rounded to `bits` and back, each group of consecutive weights of a row on a grid of its own.

    group: weights, None for whole rows (of a convolution all weights of an output channel); rows that it does not
    divide are one group. absmax: 2^bits - 1 levels about zero; minmax: 2^bits from the least to the largest. Papers:
    int8 by rows, int4 by 32 to 128.
    Raises SpecError on bits outside 2 .. 16.
    """
    if not 2 <= bits <= 16:
        raise SpecError(f"2 to 16 bits are rounded to, given {bits}")

    def change(name: str, values: Float32) -> Float32:
        width = math.prod(values.shape[1:])
        grouped = values.reshape(-1, group if group and width % group == 0 else width)
        if grid == "absmax":
            low, steps = np.float32(0), 2 ** (bits - 1) - 1
            reach = np.abs(grouped).max(axis=1, keepdims=True)
        else:
            low, steps = grouped.min(axis=1, keepdims=True), 2**bits - 1
            reach = grouped.max(axis=1, keepdims=True) - low
        step = np.where(reach > 0, reach / np.float32(steps), np.float32(1)).astype(np.float32)
        rounded: Float32 = (np.rint((grouped - low) / step) * step + low).astype(np.float32)
        return rounded.reshape(values.shape)

    rewrite(source, out, change, where=where)


def merge_lora(
    source: Path, out: Path, relative: float, *, rank: int = 8, seed: int, where: Where = _everywhere
) -> None:
    """With a random update of that rank added to each matrix, |update| = relative |W| (Frobenius)."""

    def change(name: str, values: Float32) -> Float32:
        rng = _rng(seed, name)
        flat = values.reshape(values.shape[0], -1)
        a = rng.standard_normal((flat.shape[0], rank), dtype=np.float32)
        b = rng.standard_normal((rank, flat.shape[1]), dtype=np.float32)
        update = a @ b
        factor = relative * float(np.linalg.norm(flat)) / float(np.linalg.norm(update))
        return (flat + np.float32(factor) * update).reshape(values.shape)

    rewrite(source, out, change, where=where)


def add_change(source: Path, out: Path, before: Path, after: Path, *, where: Where = _everywhere) -> None:
    """With what another copy was changed by: W + (after - before). Raises UnavailableError on a missing tensor."""
    with Checkpoint(before) as old, Checkpoint(after) as new:

        def change(name: str, values: Float32) -> Float32:
            moved = new.floats(name, values.shape) - old.floats(name, values.shape)
            return values + moved.reshape(values.shape)

        rewrite(source, out, change, where=where)


# --- of several copies --------------------------------------------------------------------------------------


def collude(
    sources: Sequence[Path],
    out: Path,
    how: Strategy,
    *,
    seed: int = 0,
    unit: int = 1,
    where: Where = _everywhere,
) -> None:
    """One file of several buyers' copies of a model. Papers: 2 to 5 copies.

    average: the mean. majority: the median (of an even number the lower one). minority: the value farthest from the
    median. interleave: each run of `unit` consecutive weights from a copy drawn at random.
    Raises SpecError on fewer than two copies, UnavailableError when tensors differ in name or shape.
    """
    if len(sources) < 2:
        raise SpecError(f"collusion takes at least two copies, given {len(sources)}")
    others = [Checkpoint(path) for path in sources[1:]]

    def change(name: str, values: Float32) -> Float32:
        copies = np.stack([values, *(c.floats(name, values.shape).reshape(values.shape) for c in others)])
        return mix(copies, how, _rng(seed, name), unit)

    rewrite(sources[0], out, change, where=where)


def mix(copies: Float32, how: Strategy, rng: np.random.Generator, unit: int = 1) -> Float32:
    """What collude writes for one tensor.  # (copies, ...) -> (...)"""
    if how == "average":
        return np.asarray(copies.mean(axis=0, dtype=np.float32), dtype=np.float32)
    if how == "interleave":
        size = copies[0].size
        pick = np.repeat(rng.integers(0, len(copies), -(-size // unit)), unit)[:size].reshape(copies[0].shape)
        chosen: Float32 = np.take_along_axis(copies, pick[None], axis=0)[0]
        return chosen
    middle: Float32 = np.sort(copies, axis=0)[(len(copies) - 1) // 2]
    if how == "majority":
        return middle
    far = np.abs(copies - middle).argmax(axis=0)
    rare: Float32 = np.take_along_axis(copies, far[None], axis=0)[0]
    return rare


# --- without changing the function --------------------------------------------------------------------------

_LAYER: Final = re.compile(r"layers\.(\d+)\.(?:mlp|self_attn)\.(gate|up|down|q|k|v|o)_proj\.weight$")
_TABLE_OR_NORM: Final = re.compile(r"(embed_tokens|lm_head|norm)\.weight$")
_UNKNOWN: Final = re.compile(r"_proj\.bias$|[qk]_norm\.weight$")
_READS_RESIDUAL: Final = ("gate", "up", "q", "k", "v")


@dataclass(frozen=True)
class Heads:
    """Shape of a Llama-like attention. Raises SpecError when the heads do not share keys evenly."""

    queries: int
    keys: int
    size: int

    def __post_init__(self) -> None:
        if min(self.queries, self.keys, self.size) < 1 or self.queries % self.keys or self.size % 2:
            raise SpecError(
                f"{self.queries} heads, {self.keys} key heads of size {self.size} are no attention"
            )

    @classmethod
    def of(cls, folder: Path) -> Heads:
        """From a folder's config.json. Raises UnavailableError without one of a Llama-like model."""
        try:
            config = parsed((folder / "config.json").read_bytes())
            queries, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
            keys = int(config.get("num_key_value_heads") or queries)
            return cls(queries, keys, int(config.get("head_dim") or hidden // queries))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError(
                f"{folder} has no config.json of a Llama-like model: {error!s:.120}"
            ) from error


@dataclass(frozen=True)
class _Lines:
    """New line i is old line order[i] times factor[i]."""

    order: npt.NDArray[np.int64]
    factor: Float32

    def rows(self, values: Float32, *, back: bool = False) -> Float32:
        """Of a matrix whose rows these are; back: divided by the factor."""
        by = 1 / self.factor if back else self.factor
        return values[self.order] * by.reshape(-1, *[1] * (values.ndim - 1))

    def columns(self, values: Float32, *, back: bool = False) -> Float32:
        """The same for columns."""
        return np.ascontiguousarray(self.rows(np.ascontiguousarray(values.T), back=back).T)


def _draw(rng: np.random.Generator, n: int, scale: float, *, flips: bool) -> _Lines:
    spread = math.log(scale)
    factor = np.exp(rng.uniform(-spread, spread, n))
    return _Lines(rng.permutation(n), (factor * (rng.choice([-1, 1], n) if flips else 1)).astype(np.float32))


def reshuffle(
    source: Path, out: Path, heads: Heads, *, seed: int, scale: float = 3.0, residual: bool = False
) -> None:
    """The same function from other weights: hidden units of a Llama-like model permuted, scaled and flipped.

    In every layer: units of the MLP (gate, up and down), groups of heads that share a key, heads within a group, and
    the channels of values within a head (v and o); keys are scaled against queries by rotary pair. Factors lie in
    1/scale .. scale. residual: the channels between the layers are permuted and flipped too.
    """

    def change(name: str, values: Float32) -> Float32:
        found = _LAYER.search(name)
        if _UNKNOWN.search(name):
            raise UnavailableError(
                f"{name}: only models without biases and norms inside of the attention are reshuffled"
            )
        channel = _residual_lines(seed, _residual_size(values, found)) if residual else None
        if found is None:
            if channel is None or not _TABLE_OR_NORM.search(name):
                return values
            return values[channel.order] if values.ndim == 1 else channel.columns(values)
        layer, kind = int(found.group(1)), found.group(2)
        if kind in ("gate", "up", "down"):
            units = values.shape[1 if kind == "down" else 0]
            lines = _draw(_rng(seed, "mlp", layer), units, scale, flips=True)
            if kind == "down":
                values = lines.columns(values, back=True)
            else:  # behind the nonlinearity nothing can be scaled or flipped
                values = lines.rows(values) if kind == "up" else values[lines.order]
        else:
            lines = _head_lines(heads, kind, _rng(seed, "heads", layer), scale)
            values = lines.columns(values, back=True) if kind == "o" else lines.rows(values, back=kind == "k")
        if channel is None:
            return values
        return channel.columns(values) if kind in _READS_RESIDUAL else channel.rows(values)

    rewrite(source, out, change, rank=1)


def _residual_size(values: Float32, found: re.Match[str] | None) -> int:
    writes = found is not None and found.group(2) not in _READS_RESIDUAL
    return values.shape[0] if writes else values.shape[-1]


def _residual_lines(seed: int, n: int) -> _Lines:
    return _draw(_rng(seed, "residual"), n, 1.0, flips=True)


def _head_lines(heads: Heads, kind: str, rng: np.random.Generator, scale: float) -> _Lines:
    """Lines of q, k, v (rows) or o (columns); one generator for all four, in one order of draws."""
    groups = rng.permutation(heads.keys)
    within = [rng.permutation(heads.queries // heads.keys) for _ in range(heads.keys)]
    values = [_draw(rng, heads.size, scale, flips=True) for _ in range(heads.keys)]
    half = [_draw(rng, heads.size // 2, scale, flips=False).factor for _ in range(heads.keys)]
    order, factor = [], []
    for new, old in enumerate(groups.tolist()):
        size = len(within[new])
        members = [old * size + int(i) for i in within[new]] if kind in ("q", "o") else [old]
        for member in members:
            lines = values[new]
            if kind in ("q", "k"):  # a rotary pair is channel i and i + size/2: one factor, no reordering
                lines = _Lines(np.arange(heads.size), np.tile(half[new], 2))
            order.append(member * heads.size + lines.order)
            factor.append(lines.factor)
    return _Lines(np.concatenate(order), np.concatenate(factor))


# --- by training --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tuned:
    """A stage of fine-tuning."""

    relative_change: float  # |W - W0| / |W0| over the watched tensors (Frobenius)
    steps: int
    loss: float  # mean over the last ten steps, nats a token


class Leg(NamedTuple):
    """A part of a training run."""

    relative_change: float  # of the watched tensors, where it ends
    lr: float
    out: Path  # the folder that the model is then written to
    steps: int | None = None  # of the run, where it ends at the latest


def finetune(
    source: Path,
    legs: Sequence[Leg],
    token_ids: Sequence[int],
    *,
    watched: Sequence[str],
    seed: int,
    trained: Where = _everywhere,
    batch: int = 1,
    length: int = 128,
    max_steps: int = 2000,
    progress: Callable[[Tuned], None] = lambda stage: None,
) -> list[Tuned]:
    """A causal language model trained on a text by AdamW in fp32, all of it or what `trained` takes by name.

    legs: by ascending change; each has its learning rate, the first ten steps of all warm up. length: tokens a row.
    Returns the stage at the end of each leg. Raises SpecError when max_steps do not suffice, UnavailableError when a
    watched tensor is missing.
    """
    import torch

    model = _load(source)
    parameters = dict(model.named_parameters())
    if missing := sorted(set(watched) - set(parameters)):
        raise UnavailableError(f"tensor {missing[0]} is not in {source}")
    start = {name: parameters[name].detach().clone() for name in watched}
    size = math.sqrt(sum(float(t.double().square().sum()) for t in start.values()))
    for name, values in parameters.items():
        values.requires_grad_(trained(name))
    learning = [values for values in parameters.values() if values.requires_grad]
    optimizer = torch.optim.AdamW(learning, weight_decay=0.01)
    rng = _rng(seed, "finetune")
    losses: list[float] = []
    stages: list[Tuned] = []
    stage = Tuned(0.0, 0, math.nan)
    model.train()
    for step in range(1, max_steps + 1):
        if len(stages) == len(legs):
            return stages
        for group in optimizer.param_groups:
            group["lr"] = legs[len(stages)].lr * min(1.0, step / 10)
        loss = model(input_ids=(rows := _rows(token_ids, batch, length, rng)), labels=rows).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        moved = sum(float((parameters[n].detach() - t).double().square().sum()) for n, t in start.items())
        stage = Tuned(math.sqrt(moved) / size, step, float(np.mean(losses[-10:])))
        progress(stage)
        leg = legs[len(stages)]
        if stage.relative_change >= leg.relative_change or step == leg.steps:
            _save(model, source, leg.out)
            stages.append(stage)
    if len(stages) < len(legs):
        raise SpecError(
            f"{max_steps} steps moved the weights by {stage.relative_change:.2%}; raise max_steps or the learning rate"
        )
    return stages


def distil(
    source: Path,
    out: Path,
    config: Mapping[str, Any],
    token_ids: Sequence[int],
    *,
    seed: int,
    steps: int,
    lr: float = 1e-3,
    batch: int = 8,
    length: int = 64,
    temperature: float = 1.0,
) -> float:
    """A new student that learns the source's next-token distributions on a text; its last loss, nats a token.

    config: fields of the source's config that the student has otherwise (fewer layers, smaller). Its weights are
    drawn anew, so no mark in the source's weights can be in them; marks in outputs may be.
    """
    import torch
    import transformers

    models: Any = transformers.AutoModelForCausalLM
    teacher = _load(source)
    teacher.eval()
    shape = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    for name, value in config.items():
        if not hasattr(shape, name):
            raise SpecError(f"the config of {source.name} has no field {name}")
        setattr(shape, name, value)
    rng = _rng(seed, "distil")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = models.from_config(shape, dtype=torch.float32)
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=0.01)
    losses: list[float] = []
    for _ in range(steps):
        rows = _rows(token_ids, batch, length, rng)
        with torch.no_grad():
            wanted = torch.softmax(teacher(input_ids=rows).logits / temperature, dim=-1)
        given = torch.log_softmax(student(input_ids=rows).logits / temperature, dim=-1)
        loss: Any = -(wanted * given).sum(dim=-1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    _save(student, source, out)
    return float(np.mean(losses[-10:]))


def _rows(token_ids: Sequence[int], batch: int, length: int, rng: np.random.Generator) -> Any:
    """Stretches of the text as a tensor.  # (batch, length)"""
    import torch

    if len(token_ids) < length + 1:
        raise SpecError(f"{len(token_ids)} tokens of text are fewer than the {length} of one row")
    starts = rng.integers(0, len(token_ids) - length, batch)
    return torch.tensor([list(token_ids[s : s + length]) for s in starts])


def _load(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        raise UnavailableError(f"{folder} is no folder with config.json and safetensors of a language model")
    files_of(folder)  # safetensors only: from_pretrained would take a pickle where there are none
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )


def _save(model: Any, source: Path, out: Path) -> None:
    """In the source's type, with its tokenizer if it has one."""
    import torch

    with Checkpoint(source) as checkpoint:
        kinds = {e.dtype for e in checkpoint}
    kind = torch.bfloat16 if "BF16" in kinds else torch.float16 if "F16" in kinds else torch.float32
    with _made(out) as made:
        copy.deepcopy(model).to(kind).save_pretrained(made)
        for file in source.glob("token*"):
            shutil.copyfile(file, made / file.name)
