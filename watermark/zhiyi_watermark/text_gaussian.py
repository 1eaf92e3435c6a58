"""GSW: a mark in a language model's weights that shows in every text it writes, at no cost of generation.

GaussMark class (Block, Sekhari, Rakhlin: "GaussMark: A Practical Approach for Structural Watermarking of Language
Models", ICML 2025), with a pattern of signs in place of the Gaussian one, so that the law of the test is exact.
Symbols: W0 base, W marked, s = ±1 a sign for every declared weight from the license's key, eps the step in standard
deviations of a tensor.
- Marking: W = W0 + eps * std * s in all MLP up and down and all attention output projections.
- Detecting, from a text and the base weights: g = gradient at W0 of the text's log-likelihood under the sampler: its
  temperature, and only the top_k likeliest tokens if it draws from those. Without the latter the rest of the
  vocabulary pulls every token's gradient the same way, which adds to q and says nothing. q = g * std of its tensor, in
  quarters of its root mean square over all tensors, rounded and clipped; T = sum q s. A marked model prefers tokens
  that its pattern made likelier, so T grows with eps and the root of the number of tokens; perplexity grows with eps
  squared.
- Every license has a key of its own, so only hypothesis (a) of stats is needed: q is made without keys, and under H0
  a license's signs are fair. One q serves all licenses.

q comes of floats and differs in a few units of the last place from machine to machine, so it is shared: the first
operator gives q as integers, others compute T of it exactly, and accept it by detect_shared alone (see shared).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf, shared, stats
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.model_folder import load_model, load_tokenizer
from zhiyi_watermark.result import Detection, detection
from zhiyi_watermark.tensorfile import (
    FLOATS,
    Checkpoint,
    Entry,
    Float32,
    TensorFile,
    check_out,
    copy_bundle,
    files_of,
    from_storage,
    parsed,
    to_storage,
)
from zhiyi_watermark.text_stream import Tokenizer, canonical_text, text_form, tokenizer_hash
from zhiyi_watermark.weights import MAX_LICENSES, MarkReport, TensorShape, check_tensors, spec_fields

if TYPE_CHECKING:  # torch is heavy and only the gradient needs it
    import torch

METHOD: Final = "gsw-2"
BLOCK: Final = 1 << 20  # weights that one key's sign stream covers
LEVELS: Final = 2047  # |q| of one weight
# of q in a root mean square of the gradient. LEVELS is 512 of those: few weights hold much of the gradient's
# energy, and the mark's with it.
UNITS: Final = 4
MAX_TOKENS: Final = 1 << 17  # of all texts of a case: an hour of a small model on one core
_KINDS: Final[Mapping[str, type[str | int | float]]] = {
    "base_hash": str, "tokenizer_hash": str, "epsilon": float, "temperature": float, "top_k": int,
    "window": int
}  # fmt: skip
NULL: Final = (
    "the texts were made without this license's key: its signs are fair and independent of texts and base"
)

_AT_ONCE: Final = 1 << 16  # weights summed at once
_EXACT_IN_FLOAT32: Final = 1 << 24  # sums of integers up to here
_MARKED: Final = re.compile(
    r"\.(up_proj|down_proj|o_proj|out_proj|c_fc|c_proj|fc1|fc2|fc_in|fc_out|dense_h_to_4h|dense_4h_to_h|w2|w3|wo)\.weight$"
    r"|\battention\.dense\.weight$"
)

Int16 = npt.NDArray[np.int16]
Int64 = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]


def _quiet(done: int, total: int) -> None:
    return None


# --- the specification --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GswSpec:
    """Where and how strongly a model's licensed copies are marked; public, pinned at registration by spec_hash()."""

    tensors: tuple[TensorShape, ...]
    base_hash: str  # hex, SHA-256 of the declared tensors as float32, see base_hash()
    tokenizer_hash: str  # hex, SHA-256 of tokenizer.json
    epsilon: float = 0.045  # step, in standard deviations of a tensor
    temperature: float = 1.0  # of the sampler
    top_k: int = 50  # of the sampler, transformers' default; 0: it draws from the whole vocabulary
    window: int = 1024  # tokens that the model sees at once; longer texts are cut

    def __post_init__(self) -> None:
        check_tensors(self.tensors)
        for name, value, low, high in (
            ("epsilon", self.epsilon, 1e-4, 1.0),
            ("temperature", self.temperature, 0.05, 10.0),
        ):
            if type(value) not in (float, int) or not low <= value <= high:
                raise SpecError(f"{name} = {value!r:.40} is outside {low} .. {high}")
            object.__setattr__(self, name, float(value))  # one text for one spec
        for name, low in (("top_k", 0), ("window", 2)):
            count = getattr(self, name)
            if type(count) is not int or not low <= count <= 1 << 20:
                raise SpecError(f"{name} = {count!r:.40} is outside {low} .. {1 << 20}")
        for name in ("base_hash", "tokenizer_hash"):
            value = getattr(self, name)
            if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
                raise SpecError(f"{name} is 64 hexadecimal digits, given {value!r:.80}")

    @cached_property
    def weights(self) -> int:
        """Weights that carry a sign."""
        return sum(math.prod(t.shape) for t in self.tensors)

    def to_json(self) -> str:
        """Canonical JSON, read back by from_json."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> GswSpec:
        """Raises SpecError on anything but the output of to_json."""
        try:
            return cls(**spec_fields(text, _KINDS))
        except ValueError as error:
            raise SpecError(f"not a GSW specification: {error!s:.120}") from error

    def spec_hash(self) -> bytes:
        """SHA-256 over the spec, the constants of this file and the thresholds: the detector's identity."""
        constants = [METHOD, BLOCK, LEVELS, UNITS, *text_form()]
        limits = [str(x) for x in (stats.TRACE, stats.CONVICT, stats.REJECT, shared.AGREEMENT)]
        text = json.dumps([self.to_json(), constants, limits], separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()


def plan(
    base: Path, *, epsilon: float = 0.045, temperature: float = 1.0, top_k: int = 50, window: int = 1024
) -> GswSpec:
    """A spec for a transformers folder: all MLP up and down and attention output projections.

    The window is cut to what the model's config.json allows.
    Raises SpecError when there are no such tensors, UnavailableError without tokenizer.json or config.json,
    CarrierError on malformed files.
    """
    with Checkpoint(base) as checkpoint:
        found = [e for e in checkpoint if _MARKED.search(e.name) and len(e.shape) == 2 and e.dtype in FLOATS]
        if not found:
            raise SpecError(
                f"{base} has no tensor named like an MLP up or down or attention output projection; "
                "write a GswSpec with the names of its matrices"
            )
        found.sort(key=lambda e: ([int(x) for x in re.findall(r"\d+", e.name)], e.name))
        tensors = tuple(TensorShape(e.name, e.shape) for e in found)
        hashed = base_hash(tensors, checkpoint.floats)
    try:
        config = parsed((base / "config.json").read_bytes())
        limit = config.get("max_position_embeddings", window) if isinstance(config, dict) else None
        if type(limit) is not int:
            raise ValueError(f"max_position_embeddings is {limit!r:.40}")
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{base}/config.json can't be read: {error!s:.120}") from error
    return GswSpec(tensors, hashed, tokenizer_hash(base), epsilon, temperature, top_k, min(window, limit))


def base_hash(tensors: Sequence[TensorShape], floats: Callable[[str, tuple[int, ...]], Float32]) -> str:
    """SHA-256, hex, of tensors as little-endian float32, one after another: the same for a file and a loaded model.

    floats: gives a tensor by name and shape, flat.
    """
    state = hashlib.sha256()
    for name, shape in tensors:
        state.update(np.ascontiguousarray(floats(name, shape), dtype="<f4").data)
    return state.hexdigest()


# --- keys ---------------------------------------------------------------------------------------------------


def license_key(model_key: bytes, license: int) -> bytes:
    """The 32-byte key of one license's pattern."""
    return prf.derive_key(model_key, "gsw license", license)


def digest_key(model_key: bytes) -> bytes:
    """Key of Detection.digest."""
    return prf.derive_key(model_key, "gsw digest")


def _blocks(tensors: Sequence[TensorShape]) -> Iterator[tuple[TensorShape, int, int, int]]:
    """Every block: its tensor, its number there, and where it lies in the row of all weights, [low, high)."""
    at = 0
    for tensor in tensors:
        size = math.prod(tensor.shape)
        for number, low in enumerate(range(0, size, BLOCK)):
            yield tensor, number, at + low, at + min(size, low + BLOCK)
        at += size


def _stream(key: bytes, tensor: TensorShape, number: int, count: int) -> prf.UInt8:
    """The sign bits of a block, packed.  # (ceil(count / 8),)"""
    block_key = prf.derive_key(key, "gsw signs", tensor.name.encode(), number)
    return prf.keystream(block_key, -(-count // 8))


# --- marking ------------------------------------------------------------------------------------------------


def mark(base: Path, out: Path, key: bytes, spec: GswSpec, progress: Progress = _quiet) -> MarkReport:
    """Writes the copy of one license: the folder `base` with W0 + eps * std * s in the declared tensors.

    Every other file of the folder is copied. Header, dtypes, order and lengths stay; zeros and non-finite weights
    stay as they are. One tensor is in memory at a time. The result appears under its name when complete; `out` must
    not exist. max_step of the report is in standard deviations.
    Raises SpecError, CarrierError (malformed shards, symbolic links, files that would carry the unmarked weights),
    UnavailableError (tensors missing, of another shape, or not those of the spec).
    """
    prf.check_key(key)
    if not base.is_dir() or base.is_symlink():
        raise SpecError(f"{base} is no folder; give the folder of the model")
    check_out(base, out)
    shards = files_of(base)
    with Checkpoint(base) as checkpoint:
        _same_base(spec, base_hash(spec.tensors, checkpoint.floats))
    places: dict[str, list[tuple[TensorShape, int, int]]] = {}
    for tensor, number, low, high in _blocks(spec.tensors):
        places.setdefault(tensor.name, []).append((tensor, number, high - low))
    relative: dict[str, float] = {}
    largest, touched = 0.0, 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".zhiyi-mark-", dir=out.parent) as scratch:
        made = Path(scratch) / "copy"
        copy_bundle(base, made, {shard.name for shard in shards})
        for shard in shards:
            with TensorFile(made / shard.name, writable=True) as file:
                for entry in file.entries:
                    if entry.name not in places:
                        continue
                    before = file.floats(entry)
                    after = _moved(before, entry, places[entry.name], key, spec.epsilon)
                    file.store(entry, after.tobytes())
                    live = np.isfinite(before)
                    change = (from_storage(after, entry.dtype) - np.where(live, before, 0))[live]
                    norm = float(np.linalg.norm(before[live]))
                    relative[entry.name] = float(np.linalg.norm(change)) / norm if norm else 0.0
                    touched += int(np.count_nonzero(change))
                    unit = _deviation(before)
                    largest = max(largest, float(np.abs(change).max(initial=0)) / unit if unit else 0.0)
                    progress(len(relative), len(spec.tensors))
        os.replace(made, out)
    return MarkReport(relative, max(relative.values()), largest, touched, spec.spec_hash().hex())


def _deviation(values: Float32) -> float:
    """Standard deviation of the finite weights, to eight bits: a float sum's last bits differ between machines."""
    finite = values[np.isfinite(values)]
    mantissa, exponent = math.frexp(float(np.std(finite, dtype=np.float64)) if finite.size else 0.0)
    return math.ldexp(round(mantissa * 256) / 256, exponent)


def _moved(
    before: Float32, entry: Entry, blocks: Sequence[tuple[TensorShape, int, int]], key: bytes, epsilon: float
) -> npt.NDArray[np.generic]:
    """The stored tensor with every weight moved by ±eps * std.  # (count,)"""
    step = np.float32(_deviation(before) * epsilon)
    wanted = before.copy()
    at = 0
    for tensor, number, count in blocks:
        bits = np.unpackbits(_stream(key, tensor, number, count), count=count).view(np.bool_)
        wanted[at : at + count] += np.where(bits, step, -step)
        at += count
    stored = to_storage(before, entry.dtype)
    changed = to_storage(wanted, entry.dtype)
    keep = (before == 0) | ~np.isfinite(before) | ~np.isfinite(from_storage(changed, entry.dtype))
    return np.where(keep, stored, changed).astype(stored.dtype)


def _same_base(spec: GswSpec, found: str) -> None:
    if found != spec.base_hash:
        raise UnavailableError(
            f"the declared tensors have SHA-256 {found[:16]}…, the spec names {spec.base_hash[:16]}…; give the model "
            "that was registered, in no lower precision than it is stored in"
        )


# --- the gradient of a text ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Gradient:
    """What texts say about every declared weight, made without keys: the object of the test."""

    q: Int16  # all declared tensors in a row, |q| <= LEVELS.  # (weights,)
    spec_hash: str  # hex
    texts_hash: str  # hex, SHA-256 of the distinct texts' token ids in their order
    tokens: int  # tokens whose likelihood was summed

    @property
    def _about(self) -> bytes:
        fields = {
            "method": METHOD,
            "q_sha256": hashlib.sha256(self.q.data).hexdigest(),
            "spec_hash": self.spec_hash,
            "texts_hash": self.texts_hash,
            "tokens": self.tokens,
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> bytes:
        """SHA-256 over q and all other fields: what the committee writes down. 32 bytes."""
        return hashlib.sha256(b"zhiyi.gsw-gradient.v1\0" + self._about).digest()

    def save(self, path: Path) -> None:
        """Writes safetensors: q as int16, and `about`, the other fields with q's hash as JSON bytes. Raises OSError."""
        from safetensors.numpy import save

        path.write_bytes(save({"about": np.frombuffer(self._about, dtype=np.uint8), "q": self.q}))

    @classmethod
    def load(cls, path: Path, spec: GswSpec) -> Gradient:
        """What save wrote, of this spec. Raises CarrierError on a missing, cut, changed or any other file, pickles and
        zip archives included, and on a gradient of another spec."""
        try:
            file = TensorFile(path)
            entries = {e.name: e for e in file.entries}
            kinds = {name: (entry.dtype, len(entry.shape)) for name, entry in entries.items()}
            if kinds != {"about": ("U8", 1), "q": ("I16", 1)} or entries["about"].count > 4096:
                raise ValueError("it has other tensors than `about` and `q`")
            if entries["q"].count != spec.weights:
                raise ValueError(f"it has {entries['q'].count} weights, the spec has {spec.weights}")
            about = parsed(file.raw(entries["about"]))
            kinds_of = {name: type(about[name]) for name in ("spec_hash", "texts_hash", "tokens")}
            if kinds_of != {"spec_hash": str, "texts_hash": str, "tokens": int}:
                raise ValueError("its `about` has values of other types")
            if about["spec_hash"] != spec.spec_hash().hex():
                raise ValueError(
                    f"it is of the spec {about['spec_hash']:.16}…, wanted {spec.spec_hash().hex():.16}…"
                )
            q = np.frombuffer(file.raw(entries["q"]), dtype="<i2")
            made = cls(q, about["spec_hash"], about["texts_hash"], about["tokens"])
            if (
                made._about != file.raw(entries["about"])
                or not -LEVELS <= int(q.min()) <= int(q.max()) <= LEVELS
            ):
                raise ValueError("its hash is wrong or |q| too large")
        except OSError as error:
            raise CarrierError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise CarrierError(f"{path.name} is no GSW gradient: {error!s:.120}") from error
        return made


class Base:
    """A registered model's folder. Its tokenizer and weights are loaded when they are first needed, and kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: tuple[tuple[GswSpec, list[list[int]]], Gradient] | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises UnavailableError."""
        return load_tokenizer(self.folder)

    @cached_property
    def model(self) -> torch.nn.Module:
        """As float32. Raises UnavailableError."""
        return load_model(self.folder)

    @cached_property
    def _tokenizer_hash(self) -> str:
        return tokenizer_hash(self.folder)

    def encode(self, texts: Sequence[str], spec: GswSpec) -> list[list[int]]:
        """Token ids of texts as found: canonical form, then the model's tokenizer.

        Raises UnavailableError on another tokenizer than the spec's, CarrierError as canonical_text.
        """
        if self._tokenizer_hash != spec.tokenizer_hash:
            raise UnavailableError(
                f"tokenizer.json has SHA-256 {self._tokenizer_hash[:16]}…, the spec names "
                f"{spec.tokenizer_hash[:16]}…; give the registered model's folder"
            )
        return [self.tokenizer.encode(canonical_text(text), add_special_tokens=False) for text in texts]

    def gradient(
        self, texts: Sequence[Sequence[int]], spec: GswSpec, progress: Progress = _quiet
    ) -> Gradient:
        """q of all texts of a case together, see gradient. The last one is kept."""
        about = (spec, [list(text) for text in texts])
        if self._last is None or self._last[0] != about:
            self._last = about, gradient(self.model, texts, spec, progress)
        return self._last[1]


def encode(folder: Path, texts: Sequence[str], spec: GswSpec) -> list[list[int]]:
    """Token ids of texts as found, by the tokenizer of a model's folder, see Base.encode."""
    return Base(folder).encode(texts, spec)


def gradient(
    model: Path | torch.nn.Module, texts: Sequence[Sequence[int]], spec: GswSpec, progress: Progress = _quiet
) -> Gradient:
    """q of all texts of a case together: the sum of their gradients, identical texts once.

    model: the base, a transformers folder (read as float32; no pickle) or a loaded causal language model, which is
    left as it was. texts: token ids, all that were committed.
    Raises UnavailableError when the model cannot be loaded, when its weights are not the spec's or when there is
    nothing to score, SpecError on ids that are none of the model's or too many of them.
    """
    import torch

    loaded: Any = load_model(model) if isinstance(model, Path) else model
    parameters = _parameters(loaded, spec)
    flat = dict(zip((t.name for t in spec.tensors), parameters, strict=True))
    _same_base(spec, base_hash(spec.tensors, lambda name, _: _numpy(flat[name])))
    rows = _distinct(texts, int(loaded.get_input_embeddings().weight.shape[0]))
    pieces = [row[at : at + spec.window] for row in rows for at in range(0, len(row) - 1, spec.window - 1)]
    if not pieces:
        raise UnavailableError("no text has two tokens; a likelihood needs a token and one before it")

    sums = [torch.zeros(p.shape, dtype=torch.float32, device=p.device) for p in parameters]
    wanted = [p.requires_grad for p in loaded.parameters()]
    training = loaded.training
    loaded.eval()
    try:
        for parameter in loaded.parameters():
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        for done, piece in enumerate(pieces, 1):
            ids = torch.tensor([piece], device=parameters[0].device)
            with torch.enable_grad():
                logits = loaded(input_ids=ids, use_cache=False).logits[0, :-1].float()
                loss = _loss(logits / spec.temperature, ids[0, 1:], spec.top_k)
                parts = torch.autograd.grad(loss, parameters)
            for total, part in zip(sums, parts, strict=True):
                total -= part.float()
            progress(done, len(pieces))
    finally:
        loaded.train(training)
        for parameter, flag in zip(loaded.parameters(), wanted, strict=True):
            parameter.requires_grad_(flag)
    weighted = [_numpy(g) * np.float32(_deviation(_numpy(p))) for g, p in zip(sums, parameters, strict=True)]
    packed = [np.asarray(row, dtype="<u4").tobytes() for row in rows]
    named = hashlib.sha256(b"".join(len(row).to_bytes(8, "big") + row for row in packed)).hexdigest()
    scored = sum(len(piece) - 1 for piece in pieces)
    return Gradient(_quantised(weighted), spec.spec_hash().hex(), named, scored)


def _loss(logits: torch.Tensor, drawn: torch.Tensor, top_k: int) -> torch.Tensor:
    """Nats of the drawn tokens under the sampler; one outside the top_k, which it can't have drawn, says nothing.

    logits: (tokens, vocabulary), at the temperature; drawn: (tokens,)
    """
    from torch.nn import functional

    if 0 < top_k < logits.shape[1]:
        likeliest, ids = logits.topk(top_k, dim=1)  # (tokens, top_k)
        places = ids == drawn[:, None]
        kept = places.any(dim=1)
        logits, drawn = likeliest[kept], places[kept].int().argmax(dim=1)
    return functional.cross_entropy(logits, drawn, reduction="sum")


def _numpy(tensor: torch.Tensor) -> Float32:
    """A flat float32 copy on the host, or a view where it is one already."""
    import torch

    values: Float32 = tensor.detach().to("cpu", torch.float32).reshape(-1).numpy()
    return values


def _parameters(model: torch.nn.Module, spec: GswSpec) -> list[torch.nn.Parameter]:
    """The spec's tensors in the model; a checkpoint may name them without the model's own prefix."""
    named = dict(model.named_parameters())
    out = []
    for name, shape in spec.tensors:
        matches = [name] if name in named else [other for other in named if other.endswith("." + name)]
        if len(matches) != 1:
            raise UnavailableError(f"the model has {len(matches)} tensors for {name} of the spec")
        if tuple(named[matches[0]].shape) != shape:
            raise UnavailableError(
                f"tensor {name} has shape {tuple(named[matches[0]].shape)}, the spec says {shape}"
            )
        out.append(named[matches[0]])
    return out


def _distinct(texts: Sequence[Sequence[int]], vocabulary: int) -> list[tuple[int, ...]]:
    """The texts that differ, in their order. Raises SpecError on ids outside 0 .. vocabulary-1, or too many."""
    rows: dict[tuple[int, ...], None] = {}
    for text in texts:
        try:
            ids = np.asarray(text, dtype=np.int64)
        except (ValueError, TypeError, OverflowError) as error:
            raise SpecError("token ids must be a flat list of whole numbers") from error
        if ids.ndim != 1 or (ids.size and not np.array_equal(ids, np.asarray(text))):
            raise SpecError("token ids must be a flat list of whole numbers")
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
            raise SpecError(
                f"token ids {int(ids.min())} .. {int(ids.max())} are not all in 0 .. {vocabulary - 1}; "
                "they are of another model's tokenizer"
            )
        rows[tuple(ids.tolist())] = None
    if sum(len(row) for row in rows) > MAX_TOKENS:
        raise SpecError(f"a case has at most {MAX_TOKENS} tokens; split the texts into several cases")
    return list(rows)


def _quantised(weighted: Sequence[Float32]) -> Int16:
    """All in a row, in quarters of the root mean square over all, rounded and clipped.  # (weights,)"""
    squares = sum(float(np.square(part, dtype=np.float64).sum()) for part in weighted)
    size = sum(part.size for part in weighted)
    if not math.isfinite(squares) or squares == 0:
        raise UnavailableError(
            f"the gradient has a sum of squares of {squares}; the model or the text is degenerate"
        )
    scale = np.float32(UNITS / math.sqrt(squares / size))
    q = np.empty(size, dtype="<i2")
    at = 0
    for part in weighted:
        q[at : at + part.size] = np.clip(np.rint(part * scale), -LEVELS, LEVELS)
        at += part.size
    return q


# --- detection ----------------------------------------------------------------------------------------------


def totals(gradient: Gradient, spec: GswSpec, keys: Sequence[bytes]) -> Int64:
    """T = sum q s of every key: exact integers, signs streamed block by block.  # (keys,)

    Raises SpecError if q is not of this spec.
    """
    if gradient.spec_hash != spec.spec_hash().hex() or gradient.q.shape != (spec.weights,):
        raise SpecError("the gradient was made for another specification; make it anew from the texts")
    out = np.zeros(len(keys), dtype=np.int64)
    for tensor, number, low, high in _blocks(spec.tensors):
        parts = [_summable(gradient.q[at : min(high, at + _AT_ONCE)]) for at in range(low, high, _AT_ONCE)]
        whole = int(gradient.q[low:high].sum(dtype=np.int64))
        for j, key in enumerate(keys):
            packed = _stream(key, tensor, number, high - low)
            plus = 0
            for i, part in enumerate(parts):
                bits = np.unpackbits(packed[i * _AT_ONCE // 8 : (i + 1) * _AT_ONCE // 8], count=len(part))
                plus += int(part @ bits.astype(part.dtype))
            out[j] += 2 * plus - whole
    return out


def _summable(q: Int16) -> npt.NDArray[np.floating[Any]]:
    """q in a float type that holds the sum of any of them exactly.  # (n,)"""
    reach = int(np.abs(q).sum(dtype=np.int64))
    return q.astype(np.float32 if reach <= _EXACT_IN_FLOAT32 else np.float64)


def law_of(gradient: Gradient) -> tuple[Callable[[int], stats.Tail], int]:
    """The tail of T under H0, exact where there is such a law, else the closed bound; and sum q^2."""
    counts = np.zeros(LEVELS + 1, dtype=np.int64)
    for at in range(0, gradient.q.size, BLOCK):
        counts += np.bincount(np.abs(gradient.q[at : at + BLOCK]), minlength=LEVELS + 1)
    sum_q2 = int((counts * np.arange(LEVELS + 1, dtype=np.int64) ** 2).sum())
    law = stats.sign_law(dict(enumerate(counts.tolist())))
    return (law.tail if law is not None else partial(stats.bound_tail, sum_q2=sum_q2)), sum_q2


def detect(
    gradient: Gradient,
    spec: GswSpec,
    keys: Mapping[int, bytes],
    *,
    models: int = 1,
    threshold: Fraction = stats.TRACE,
    grind_bits: int = 0,
) -> Detection:
    """Which license's copy wrote the texts (hypothesis (a), a key a license), or none.

    keys: of every registered license of the model, all are counted; models: how many models' bases are tried on
    these texts; grind_bits: for keys that could have been ground before they were committed. `also` lists further
    licenses under the same threshold.
    Raises SpecError on a gradient of another spec, no keys, or one key for two licenses.
    """
    if not 1 <= len(keys) <= MAX_LICENSES:
        raise SpecError(
            f"{len(keys)} licenses given; 1 to {MAX_LICENSES} registered licenses are scored at once"
        )
    if len(set(keys.values())) != len(keys):
        raise SpecError("two licenses have one key; they can't be told apart")
    ids, each = list(keys), [prf.check_key(key) for key in keys.values()]
    scores = totals(gradient, spec, each).tolist()
    tail_of, sum_q2 = law_of(gradient)
    count = stats.hypotheses(models=models, licenses=len(ids))
    allowed = stats.allowance(grind_bits=grind_bits)
    ranked = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))
    passing = []
    for i in ranked[:65]:
        if not tail_of(scores[i]).at_most(threshold, count * allowed):
            break
        passing.append(ids[i])
    return detection(
        tail_of(scores[ranked[0]]),
        method=METHOD,
        license=passing[0] if passing else None,
        n=int(np.count_nonzero(gradient.q)),
        T=scores[ranked[0]],
        sum_q2=sum_q2,
        hypotheses=count,
        allowance=allowed,
        threshold=threshold,
        null=NULL,
        spec_hash=spec.spec_hash(),
        also=tuple(passing[1:]),
    )


def agreement(ours: Gradient, theirs: Gradient) -> Fraction:
    """Share of weights where two operators' q differ by at most one.

    Raises UnavailableError when they are of other texts or another spec.
    """
    if (ours.spec_hash, ours.texts_hash, ours.q.shape) != (
        theirs.spec_hash,
        theirs.texts_hash,
        theirs.q.shape,
    ):
        raise UnavailableError("the two gradients are of different texts or specifications")
    return shared.agreement(ours.q, theirs.q)


def compare_shared(
    given: Gradient,
    ours: Gradient,
    spec: GswSpec,
    keys: Mapping[int, bytes],
    *,
    models: int = 1,
    threshold: Fraction = stats.TRACE,
    grind_bits: int = 0,
) -> shared.Shared:
    """The detection on the first operator's q, which every operator gets alike, beside that on one's own q.

    Raises UnavailableError when they are of other texts or another spec.
    """
    share = agreement(ours, given)
    said, own = (
        detect(g, spec, keys, models=models, threshold=threshold, grind_bits=grind_bits)
        for g in (given, ours)
    )
    return shared.Shared(share, said, own)


def detect_shared(
    given: Gradient,
    ours: Gradient,
    spec: GswSpec,
    keys: Mapping[int, bytes],
    *,
    models: int = 1,
    threshold: Fraction = stats.TRACE,
    grind_bits: int = 0,
) -> Detection:
    """The detection on the first operator's q, checked against one's own q.

    Raises CarrierError when fewer than 99 % of the weights agree within one, or when one's own q names other
    licenses, decides otherwise or lies in another bucket: it must not be signed then. See the head of the file.
    """
    return compare_shared(
        given, ours, spec, keys, models=models, threshold=threshold, grind_bits=grind_bits
    ).accepted()
