"""WFP: a fingerprint in the weights - a trace mark that names a license and 16 confirm shares that convict.

Symbols: W0 base, W marked, s chip signs, c_j the codeword of license j, eps the step in units of a tensor's
spread.
- The declared tensors are cut into blocks of 64 consecutive weights. A public permutation (from the spec's
  hash) gives disjoint regions to the trace mark and to each share; inside its region a mark chooses blocks
  with its own key.
- Trace mark: W = W0 + eps*spread * s * c_jb, c_j a Tardos code (Tardos 2003 in the discrete form of Nuida et
  al. 2009, Gauss-Legendre points for coalitions of 3-4), bits Bernoulli(p_b) from the trace key and the
  license id. Traced BLIND: q is the quantised suspect weight itself, no base tensors needed. The kit that can
  trace can also forge.
- Confirm mark: W = W0 + eps*spread * s, s from the share's own seed, opened only after a case fixed its
  evidence. Detected from W - W0: permutation, scale and sign undone (align), zeros masked, clipped at 3 eps,
  hypothesis (a) of stats. Everything in detection is an integer after one elementwise division and rounding by a
  spread that is an exact order statistic, so all machines get the same T (no float is ever summed). Informed
  tracing starts from the same difference.
- Memory: a tensor and its base at a time, whatever the number of shards, and 40 bytes a block for the keys.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import align, prf, stats
from zhiyi_watermark.errors import SpecError, UnavailableError
from zhiyi_watermark.result import Detection, detection
from zhiyi_watermark.tensorfile import (
    FLOATS,
    Checkpoint,
    Entry,
    Float32,
    TensorFile,
    files_of,
    from_storage,
    is_unicode,
    parsed,
    step_storage,
    to_storage,
)

METHOD_TRACE: Final = "wfp-trace-2"
METHOD_CONFIRM: Final = "wfp-confirm-3"
BLOCK: Final = 64  # consecutive weights that share a codeword bit; 8 bytes of sign stream
LEVELS: Final = 15  # |q| of one weight
CLIP: Final = 3  # in units of eps*spread (confirm) or spread (trace)
BIT_LEVELS: Final = 15  # |Q_b| after quantisation, keeps the exact law small
MAX_INTERVALS: Final = 8  # of the declared range, counted in runs of consecutive tensors
MAX_SHARE_OF_BYTES: Final = Fraction(24, 100)  # the range may be 25 %; chunk edges need the rest
MAX_BLOCKS: Final = 1 << 26  # 4.3e9 weights; a key's permutation of them takes 1 GiB
MAX_LICENSES: Final = 1 << 22  # tried in one trace
MAX_CODE_BITS: Final = 3072  # the exact law of more, at 15 levels a bit, is over the work that stats allows
MAX_NAME: Final = 1024  # characters of a tensor's name
_SPREAD: Final = 1.4826  # median |W| to standard deviation, for a Gaussian

# Nuida et al. 2009, 3-4 colluders: p = .2113 or .7887 with equal chance; in 1/256. Score of a 1 and of a 0,
# proportional to sqrt((1-p)/p) and -sqrt(p/(1-p)).
_P_PARTS: Final = (54, 202)
_SCORE_ONE: Final = (15, 4)
_SCORE_ZERO: Final = (-4, -15)

_KINDS: Final[Mapping[str, type[str | int | float]]] = {
    "epsilon": float, "code_bits": int, "weights_per_bit": int, "shares": int, "weights_per_share": int
}  # fmt: skip

NULL_TRACE: Final = (
    "the license was not used: its codeword's secret bits, Bernoulli(p_b), are independent of the object"
)
NULL_PRESENT: Final = (
    "the object was made without this model's trace key: the chip signs are fair and independent"
)
NULL_CONFIRM: Final = "the object was made without this share's seed: its signs are fair and independent"

Progress = Callable[[int, int], None]


def _quiet(done: int, total: int) -> None:
    return None


class TensorShape(NamedTuple):
    """A declared tensor."""

    name: str
    shape: tuple[int, ...]

    @property
    def blocks(self) -> int:
        """Whole blocks in the tensor."""
        return math.prod(self.shape) // BLOCK


def check_tensors(tensors: Sequence[TensorShape]) -> None:
    """Raises SpecError unless these are at least one tensor, each once, with usable names and dimensions."""
    for tensor in tensors:
        name, shape = tensor
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not is_unicode(name):
            raise SpecError(f"a tensor's name has 1 to {MAX_NAME} characters of Unicode, given {name!r:.80}")
        if any(type(d) is not int or d < 1 for d in shape):
            raise SpecError(
                f"tensor {name!r:.80} has the shape {shape!r:.80}; dimensions are positive integers"
            )
    if not tensors or len({t.name for t in tensors}) != len(tensors):
        raise SpecError("a spec names at least one tensor, each once")


def spec_fields(text: str, kinds: Mapping[str, type[str | int | float]]) -> dict[str, Any]:
    """The fields of a specification's JSON: `tensors`, and those of `kinds`, each of exactly that type.

    Nothing is converted. Raises ValueError, naming the field, on any other document.
    """
    fields = parsed(text)
    if not isinstance(fields, dict) or set(fields) != {"tensors", *kinds}:
        raise ValueError(f"it has the fields tensors, {', '.join(kinds)}, and no others")
    for name, kind in kinds.items():
        if type(fields[name]) is not kind:
            raise ValueError(f"{name} is {fields[name]!r:.40}, expected {kind.__name__}")
    rows = fields["tensors"]
    for row in rows if isinstance(rows, list) else [None]:
        if not (
            isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and isinstance(row[1], list)
        ):
            raise ValueError(f"tensors is a list of [name, [dimensions]], it holds {row!r:.80}")
    return {**fields, "tensors": tuple(TensorShape(name, tuple(shape)) for name, shape in rows)}


@dataclass(frozen=True)
class WfpSpec:
    """Where and how strongly a model's copies are marked; public, pinned at registration by spec_hash()."""

    tensors: tuple[TensorShape, ...]
    epsilon: float = 0.02  # step, fraction of a tensor's spread (1.4826 * median |W|)
    code_bits: int = 1024
    weights_per_bit: int = 4096
    shares: int = 16
    weights_per_share: int = 65536

    def __post_init__(self) -> None:
        check_tensors(self.tensors)
        if self.blocks > MAX_BLOCKS:
            raise SpecError(f"the tensors have {self.blocks} blocks, at most {MAX_BLOCKS} are taken")
        if type(self.epsilon) not in (float, int) or not 1e-4 <= self.epsilon <= 0.5:
            raise SpecError(f"epsilon {self.epsilon!r:.40} is outside .0001 .. .5 of a tensor's spread")
        object.__setattr__(self, "epsilon", float(self.epsilon))  # one text for one spec
        _check_counts(self.code_bits, self.weights_per_bit, self.shares, self.weights_per_share)
        if self.blocks_needed > self.blocks:
            raise SpecError(
                f"the marks need {self.blocks_needed * BLOCK} weights, "
                f"the tensors have {self.blocks * BLOCK}; "
                "name more tensors or lower code_bits, weights_per_bit or weights_per_share"
            )

    @cached_property
    def blocks(self) -> int:
        """Blocks in all declared tensors."""
        return sum(t.blocks for t in self.tensors)

    @property
    def trace_blocks(self) -> int:
        """Blocks that one trace mark occupies."""
        return self.code_bits * self.weights_per_bit // BLOCK

    @property
    def share_blocks(self) -> int:
        """Blocks that one share occupies."""
        return self.weights_per_share // BLOCK

    @property
    def blocks_needed(self) -> int:
        """Blocks that all marks occupy."""
        return self.trace_blocks + self.shares * self.share_blocks

    def to_json(self) -> str:
        """Canonical JSON, read back by from_json."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> WfpSpec:
        """Raises SpecError on anything but the output of to_json."""
        try:
            return cls(**spec_fields(text, _KINDS))
        except ValueError as error:
            raise SpecError(f"not a WFP specification: {error!s:.120}") from error

    def spec_hash(self) -> bytes:
        """SHA-256 over the spec, the constants of this file and the thresholds: the detector's identity."""
        constants = [
            METHOD_TRACE,
            METHOD_CONFIRM,
            align.METHOD,
            BLOCK,
            LEVELS,
            CLIP,
            BIT_LEVELS,
            _SPREAD,
            _P_PARTS,
            _SCORE_ONE,
            _SCORE_ZERO,
        ]
        limits = [
            str(stats.TRACE),
            str(stats.CONVICT),
            str(stats.REJECT),
            stats.TWO_LN2_NUM,
            stats.TWO_LN2_DEN,
        ]
        text = json.dumps([self.to_json(), constants, limits], separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()

    @cached_property
    def regions(self) -> tuple[prf.Int64, list[prf.Int64]]:
        """Block numbers open to the trace mark and to each share: public, disjoint, covering all blocks in
        proportion."""
        order = prf.permutation(prf.derive_key(self.spec_hash(), "wfp regions"), self.blocks)
        share = self.blocks * self.share_blocks // self.blocks_needed
        first = self.blocks - share * self.shares
        return order[:first], [order[first + i * share : first + (i + 1) * share] for i in range(self.shares)]


def _check_counts(code_bits: int, weights_per_bit: int, shares: int, weights_per_share: int) -> None:
    for name, count, top in (("code_bits", code_bits, MAX_CODE_BITS), ("shares", shares, 256)):
        if type(count) is not int or not 1 <= count <= top:
            raise SpecError(f"{name} {count!r:.40} is outside 1 .. {top}")
    for name, count in (("weights_per_bit", weights_per_bit), ("weights_per_share", weights_per_share)):
        if type(count) is not int or count < BLOCK or count % BLOCK or count > 1 << 32:
            raise SpecError(f"{name} {count!r:.40} must be a multiple of {BLOCK}, at least {BLOCK}")


# --- planning -----------------------------------------------------------------------------------------------


_PREFERRED: Final = (r"\bdown_proj\b", r"\b(w2|fc_out|fc2|c_proj|dense_4h_to_h)\b", r"\bo_proj\b", r"")
_NEVER: Final = re.compile(r"embed|wte|wpe|lm_head|norm|ln_|bias")


def _markable(entry: Entry) -> bool:
    large = len(entry.shape) >= 2 and entry.count >= BLOCK
    return large and entry.dtype in FLOATS and not _NEVER.search(entry.name)


def plan(
    weights: Path,
    *,
    epsilon: float = 0.02,
    code_bits: int = 1024,
    weights_per_bit: int = 4096,
    shares: int = 16,
    weights_per_share: int = 65536,
    max_tensors: int = 64,
) -> WfpSpec:
    """A spec for these weights: at most 8 runs of whole consecutive tensors, at most 24 % of the bytes.

    Starts from one down-projection (or the like) in each of up to 8 layers spread over the depth and adds the
    tensors that follow in the file until the marks fit with a quarter of the blocks to spare (blocks a key
    leaves untouched).
    Raises SpecError when the model is too small for the marks asked, or a count is out of its range.
    """
    _check_counts(code_bits, weights_per_bit, shares, weights_per_share)
    needed = (code_bits * weights_per_bit + shares * weights_per_share) * 5 // 4
    with Checkpoint(weights) as checkpoint:
        entries = list(checkpoint)
        budget = int(checkpoint.data_bytes * MAX_SHARE_OF_BYTES)
    pattern = next(
        p for p in _PREFERRED if any(_markable(e) and re.search(p, e.name) for e in entries) or not p
    )
    seeds = [i for i, e in enumerate(entries) if _markable(e) and re.search(pattern, e.name)]
    seeds = _natural(seeds, entries)

    best = 0
    for runs in range(min(MAX_INTERVALS, len(seeds)), 0, -1):
        picks = sorted(seeds[(2 * k + 1) * len(seeds) // (2 * runs)] for k in range(runs))
        chosen = list(dict.fromkeys(picks))
        while True:
            size = sum(entries[i].end - entries[i].start for i in chosen)
            room = sum(entries[i].count // BLOCK * BLOCK for i in chosen)
            if size > budget or len(chosen) > max_tensors:
                break
            best = max(best, room)
            if room >= needed:
                tensors = tuple(TensorShape(entries[i].name, entries[i].shape) for i in sorted(chosen))
                return WfpSpec(tensors, epsilon, code_bits, weights_per_bit, shares, weights_per_share)
            grown = [
                i + 1
                for i in chosen
                if i + 1 < len(entries) and i + 1 not in chosen and _markable(entries[i + 1])
            ]
            if not grown:
                break
            chosen += grown
    raise SpecError(
        f"the marks need {needed} weights with room to spare, at most {best} fit in 24 % of the bytes and "
        f"{MAX_INTERVALS} intervals; lower code_bits, weights_per_bit or weights_per_share"
    )


def _natural(indices: list[int], entries: list[Entry]) -> list[int]:
    """Indices by the numbers in their names (layer 2 before layer 10)."""
    return sorted(
        indices, key=lambda i: ([int(x) for x in re.findall(r"\d+", entries[i].name)], entries[i].name)
    )


# --- keys ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class TraceKit:
    """What operators need to trace: it can forge a trace mark, so it never convicts; holds no base
    tensors."""

    trace_key: bytes
    spec: WfpSpec

    def __post_init__(self) -> None:
        prf.check_key(self.trace_key)

    @classmethod
    def derive(cls, model_key: bytes, spec: WfpSpec) -> TraceKit:
        """The kit of a model: its trace key is bound to the spec."""
        return cls(prf.derive_key(model_key, "wfp trace", spec.spec_hash()), spec)

    @property
    def kit_key(self) -> bytes:
        """Key of Detection.digest."""
        return prf.derive_key(self.trace_key, "wfp digest")

    def to_json(self) -> str:
        """Secret: canonical JSON for the operators' encrypted kit."""
        fields = {
            "kit": "zhiyi-wfp-1",
            "spec": json.loads(self.spec.to_json()),
            "trace_key": self.trace_key.hex(),
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> TraceKit:
        """Raises SpecError on anything but the output of to_json."""
        try:
            fields = parsed(text)
            if not isinstance(fields, dict) or set(fields) != {"kit", "spec", "trace_key"}:
                raise ValueError("it has the fields kit, spec and trace_key, and no others")
            key = fields["trace_key"]
            if fields["kit"] != "zhiyi-wfp-1":
                raise ValueError("its kit is not zhiyi-wfp-1")
            if not isinstance(key, str) or not re.fullmatch("[0-9a-f]{64}", key):
                raise ValueError("its trace_key is not 64 hexadecimal digits")
            return cls(bytes.fromhex(key), WfpSpec.from_json(json.dumps(fields["spec"])))
        except ValueError as error:
            raise SpecError(f"not a WFP trace kit: {error!s:.120}") from error

    def commitment(self) -> bytes:
        """SHA-256 of the kit with a domain tag: committed on chain at registration. 32 bytes."""
        return hashlib.sha256(b"zhiyi.trace-kit.v1\0" + self.to_json().encode()).digest()


def _p_index(trace_key: bytes, bits: int) -> npt.NDArray[np.int64]:
    """Which of the two Bernoulli parameters each bit has.  # (bits,)"""
    return prf.integers(prf.derive_key(trace_key, "wfp tardos p"), bits, 2)


def codeword(trace_key: bytes, license_id: int, bits: int) -> prf.Int8:
    """The license's Tardos codeword, ±1, bit b is +1 with probability p_b.  # (bits,)"""
    parts = np.array(_P_PARTS, dtype=np.int64)[_p_index(trace_key, bits)]
    word: prf.Int8 = _codewords(trace_key, [license_id], parts)[0]
    return word


def _codewords(trace_key: bytes, licenses: Sequence[int], parts: npt.NDArray[np.int64]) -> prf.Int8:
    """Codewords of several licenses; parts: p_b in 1/256.  # (licenses, bits)"""
    bits = len(parts)
    drawn = [prf.keystream(prf.derive_key(trace_key, "wfp codeword", j), bits) for j in licenses]
    ones: npt.NDArray[np.bool_] = np.stack(drawn) < parts
    words: prf.Int8 = np.where(ones, np.int8(1), np.int8(-1))
    return words


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Blocks of one mark in ascending order, with their signs and what they carry."""

    block: prf.Int64  # (blocks,)
    tag: npt.NDArray[np.int64]  # codeword bit of each block; 0 in a share.  # (blocks,)
    packed: prf.UInt8  # sign stream, 8 bytes a block.  # (blocks, 8)

    def of(self, low: int, high: int) -> tuple[prf.Int64, npt.NDArray[np.int64], prf.Int8]:
        """Block numbers in [low, high), their tags, and signs ±1.  # (b,), (b,), (b, 64)"""
        a, b = np.searchsorted(self.block, (low, high))
        bits = np.unpackbits(self.packed[a:b], axis=1).view(np.int8)
        return self.block[a:b], self.tag[a:b], (bits << 1) - np.int8(1)


def _choose(key: bytes, region: prf.Int64, count: int, per_tag: int) -> _Chosen:
    picked = region[prf.permutation(prf.derive_key(key, "wfp blocks"), len(region))[:count]]
    stream = prf.keystream(prf.derive_key(key, "wfp signs"), count * BLOCK // 8).reshape(count, BLOCK // 8)
    order = np.argsort(picked)
    return _Chosen(picked[order], order // per_tag, stream[order])


def _choose_trace(trace_key: bytes, spec: WfpSpec) -> _Chosen:
    return _choose(trace_key, spec.regions[0], spec.trace_blocks, spec.weights_per_bit // BLOCK)


def _share_key(seed: bytes, spec: WfpSpec, index: int) -> bytes:
    return prf.derive_key(seed, "wfp share", spec.spec_hash(), index)


def _choose_share(seed: bytes, spec: WfpSpec, index: int) -> _Chosen:
    if not 0 <= index < spec.shares:
        raise SpecError(f"share {index} is outside 0 .. {spec.shares - 1}")
    region = spec.regions[1][index]
    return _choose(_share_key(seed, spec, index), region, spec.share_blocks, spec.share_blocks)


# --- tensors ------------------------------------------------------------------------------------------------


def _spread(values: Float32) -> np.float32:
    """1.4826 * median |W| over finite non-zero weights, truncated to bf16: an order statistic, the same
    everywhere.

    0 if there are none, or if the spread is no float32.
    """
    keys = ((values.view(np.uint32) >> 16) & 0x7FFF).astype(np.uint16)
    counts = np.bincount(keys, minlength=1 << 15)
    counts[0] = 0
    counts[0x7F80:] = 0
    total = int(counts.sum())
    if total == 0:
        return np.float32(0)
    middle = int(np.searchsorted(np.cumsum(counts), (total + 1) // 2))
    median = np.array([middle << 16], dtype=np.uint32).view(np.float32)[0]
    spread = float(median) * _SPREAD
    return np.float32(spread if spread < float(np.finfo(np.float32).max) else 0.0)


def _quantise(values: Float32, unit: np.float32) -> prf.Int8:
    """round(values/unit * LEVELS/CLIP), clipped at ±LEVELS; 0 where not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(values / (unit * np.float32(CLIP / LEVELS)))
    clipped: prf.Int8 = np.nan_to_num(np.clip(scaled, -LEVELS, LEVELS), nan=0.0).astype(np.int8)
    return clipped


def _slices(spec: WfpSpec) -> Iterator[tuple[TensorShape, int, int]]:
    at = 0
    for tensor in spec.tensors:
        yield tensor, at, at + tensor.blocks
        at += tensor.blocks


def _as_blocks(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values[: len(values) // BLOCK * BLOCK].reshape(-1, BLOCK)


@dataclass(frozen=True)
class MarkReport:
    """What marking did, measured on the stored values."""

    relative_change: dict[str, float]  # per tensor |W - W0| / |W0|, Frobenius
    max_relative_change: float  # the largest of them
    max_step: float  # largest single change, in units of its tensor's spread
    positions: int  # weights changed
    spec_hash: str


def mark(
    weights_in: Path,
    weights_out: Path,
    spec: WfpSpec,
    trace_key: bytes,
    license_id: int,
    share_seeds: Sequence[bytes],
    progress: Progress = _quiet,
) -> MarkReport:
    """Writes the copy of one license: header, dtypes, order and lengths stay, only the declared tensors
    change.

    weights_in: a safetensors file or a folder of shards; weights_out must not exist (of a folder, only the
    safetensors files are written). Deterministic. The result appears under its name when complete.
    Raises SpecError, CarrierError, UnavailableError.
    """
    if len(share_seeds) != spec.shares or len(set(share_seeds)) != spec.shares:
        raise SpecError(f"the spec takes {spec.shares} different share seeds, given {len(set(share_seeds))}")
    if weights_out.exists():
        raise SpecError(f"{weights_out} exists; a marked copy is never written over anything")
    code = codeword(trace_key, license_id, spec.code_bits)
    trace = _choose_trace(trace_key, spec)
    shares = [_choose_share(seed, spec, i) for i, seed in enumerate(share_seeds)]
    places = {tensor.name: (tensor, low, high) for tensor, low, high in _slices(spec)}

    sources = files_of(weights_in)
    folder = weights_in.is_dir()
    relative: dict[str, float] = {}
    largest, touched, done = 0.0, 0, 0
    weights_out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".zhiyi-mark-", dir=weights_out.parent) as scratch:
        made = Path(scratch) / "copy"
        made.mkdir()
        for source in sources:
            shutil.copyfile(source, made / source.name)
            with TensorFile(made / source.name, writable=True) as file:
                for entry in file.entries:
                    place = places.pop(entry.name, None)
                    if place is None:
                        continue
                    tensor, low, high = place
                    if entry.shape != tensor.shape:
                        raise UnavailableError(
                            f"{entry.name} has shape {entry.shape}, the spec says {tensor.shape}"
                        )
                    before = file.floats(entry)
                    unit = _spread(before)
                    direction = _directions(low, high, trace, code, shares)
                    after = _apply(before, entry, direction, unit, spec.epsilon)
                    file.store(entry, after.tobytes())
                    change = from_storage(after, entry.dtype) - before
                    norm = float(np.linalg.norm(before[np.isfinite(before)].astype(np.float64)))
                    relative[entry.name] = (
                        float(np.linalg.norm(np.nan_to_num(change))) / norm if norm else 0.0
                    )
                    touched += int(np.count_nonzero(change))
                    if unit:
                        largest = max(largest, float(np.nan_to_num(np.abs(change)).max() / unit))
                    done += 1
                    progress(done, len(spec.tensors))
        if places:
            raise UnavailableError(f"tensor {next(iter(places))} of the spec is not in {weights_in}")
        os.replace(made if folder else made / sources[0].name, weights_out)
    return MarkReport(relative, max(relative.values()), largest, touched, spec.spec_hash().hex())


def _directions(low: int, high: int, trace: _Chosen, code: prf.Int8, shares: Sequence[_Chosen]) -> prf.Int8:
    """-1, 0, +1 for every weight of the tensor whose blocks are [low, high).  # (blocks, 64)"""
    out = np.zeros((high - low, BLOCK), dtype=np.int8)
    block, bit, sign = trace.of(low, high)
    out[block - low] = sign * code[bit][:, None]
    for share in shares:
        block, _, sign = share.of(low, high)
        out[block - low] = sign
    return out


def _apply(
    before: Float32, entry: Entry, direction: prf.Int8, unit: np.float32, epsilon: float
) -> npt.NDArray[np.generic]:
    """The stored tensor with each marked weight moved by eps*unit, at least one representable step.  #
    (count,)

    Zeros, non-finite weights, and those whose next value would not be finite stay as they are.
    """
    stored = to_storage(before, entry.dtype)
    flat = np.zeros(len(before), dtype=np.int8)
    flat[: direction.size] = direction.reshape(-1)
    flat[~np.isfinite(before) | (before == 0)] = 0
    if not unit:
        return stored
    wanted = to_storage(before + flat * np.float32(unit * np.float32(epsilon)), entry.dtype)
    moved = from_storage(wanted, entry.dtype) - before
    lost = np.flatnonzero((moved * flat <= 0) & (flat != 0))
    wanted[lost] = step_storage(stored[lost], entry.dtype, flat[lost] > 0)
    keep = (flat == 0) | ~np.isfinite(from_storage(wanted, entry.dtype))
    return np.where(keep, stored, wanted).astype(stored.dtype)


def extract_base(weights: Path, spec: WfpSpec, out: Path) -> None:
    """Writes only the declared tensors, bytes as registered: what a case's committee gets.

    Raises UnavailableError if one is missing or has another shape.
    """
    with Checkpoint(weights) as checkpoint:
        header: dict[str, Any] = {}
        at = 0
        for tensor in spec.tensors:
            entry = checkpoint.entry(tensor.name)
            if entry.shape != tensor.shape:
                raise UnavailableError(f"{entry.name} has shape {entry.shape}, the spec says {tensor.shape}")
            size = entry.end - entry.start
            header[entry.name] = {
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "data_offsets": [at, at + size],
            }
            at += size
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with tempfile.NamedTemporaryFile(prefix=".zhiyi-base-", dir=out.parent, delete=False) as file:
            try:
                file.write(len(text).to_bytes(8, "little") + text)
                for tensor in spec.tensors:
                    file.write(checkpoint.raw(tensor.name))
                file.flush()
                os.replace(file.name, out)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


def check_base(base: Path, spec: WfpSpec) -> None:
    """Raises UnavailableError unless a file or folder has every declared tensor, in its shape and as floats."""
    with Checkpoint(base) as checkpoint:
        for tensor in spec.tensors:
            entry = checkpoint.entry(tensor.name)
            if entry.shape != tensor.shape or entry.dtype not in FLOATS:
                raise UnavailableError(
                    f"tensor {tensor.name} of {base} is {entry.dtype} of shape {entry.shape}, the spec says "
                    f"{tensor.shape}; give the registered model"
                )


def relative_change(copy: Path, base: Path, spec: WfpSpec) -> dict[str, float]:
    """|W - W0| / |W0| of every declared tensor (Frobenius), for the bound committed at registration."""
    out = {}
    with Checkpoint(copy) as new, Checkpoint(base) as old:
        for tensor in spec.tensors:
            w, w0 = new.floats(*tensor).astype(np.float64), old.floats(*tensor).astype(np.float64)
            out[tensor.name] = float(np.linalg.norm(w - w0) / max(float(np.linalg.norm(w0)), 1e-300))
    return out


# --- detection ----------------------------------------------------------------------------------------------


def _trace_sums(
    weights: Path, kit: TraceKit, base: Path | None, progress: Progress = _quiet
) -> tuple[stats.BitSums, int, int]:
    """Q_b of every codeword bit, chips with q != 0, and sum q^2.

    q from the weight itself (blind), or from its difference to the base tensors.
    """
    spec = kit.spec
    chosen = _choose_trace(kit.trace_key, spec)
    sums = np.zeros(spec.code_bits, dtype=np.int64)
    n = sum_q2 = 0
    with Checkpoint(weights) as suspect, Checkpoint(base or weights) as reference:
        for done, (tensor, low, high) in enumerate(_slices(spec)):
            progress(done, len(spec.tensors))
            values = suspect.floats(*tensor)
            block, bit, sign = chosen.of(low, high)
            if base is None:
                unit = _spread(values)
                q = _quantise(values, unit) if unit else np.zeros(len(values), dtype=np.int8)
            else:
                q = _difference(values, reference.floats(*tensor), tensor.shape, spec.epsilon)
            part = _as_blocks(q)[block - low]  # (b, 64)
            score = np.einsum("bi,bi->b", part, sign, dtype=np.int32, casting="unsafe")
            np.add.at(sums, bit, score.astype(np.int64))
            n += int(np.count_nonzero(part))
            sum_q2 += int((part.astype(np.int16) ** 2).sum(dtype=np.int64))
    return stats.BitSums(sums), n, sum_q2


def _difference(values: Float32, base: Float32, shape: tuple[int, ...], epsilon: float) -> prf.Int8:
    """q from W - W0 in units of eps*spread; weights that are 0 (pruned) say nothing.

    When most of the others moved further than a mark, a permutation, scaling and flipping of columns, rows or both
    is undone if that explains more of them: decided without any key.
    """
    unit = _spread(base)
    if not unit:
        return np.zeros(len(values), dtype=np.int8)
    step = np.float32(unit * np.float32(epsilon))
    best, near = _step_difference(values, base, step)
    spread = _spread(values)
    live = int(np.count_nonzero((values != 0) & np.isfinite(values)))
    if 2 * near < live and spread and len(shape) == 2:
        q_values, q_base = _quantise(values, spread).reshape(shape), _quantise(base, unit).reshape(shape)
        for candidate in align.undo(values.reshape(shape), base.reshape(shape), q_values, q_base):
            q, explained = _step_difference(candidate.reshape(-1), base, step)
            if explained > near:
                best, near = q, explained
            if 2 * near >= live:
                break
    return best


def _step_difference(values: Float32, base: Float32, step: np.float32) -> tuple[prf.Int8, int]:
    """q, and how many non-zero weights lie within the clip."""
    with np.errstate(over="ignore", invalid="ignore"):
        q = _quantise(values - base, step)
    q[values == 0] = 0
    return q, int(np.count_nonzero((np.abs(q) < LEVELS) & (values != 0) & np.isfinite(values)))


def _licenses(given: Sequence[int]) -> list[int]:
    licenses = list(dict.fromkeys(int(x) for x in given))
    if not 1 <= len(licenses) <= MAX_LICENSES:
        raise SpecError(
            f"{len(licenses)} licenses given; 1 to {MAX_LICENSES} registered licenses are scored at once"
        )
    return licenses


@dataclass(frozen=True, eq=False)
class LicenseScores:
    """Hypothesis (b) on one object: the score of every license, and the law of an innocent's."""

    trace_key: bytes
    parts: npt.NDArray[np.int64]  # p_b in 1/256.  # (bits,)
    gain: npt.NDArray[np.int64]  # what a 1 scores more than a 0.  # (bits,)
    all_zero: int  # score of the codeword without a 1
    law: stats.TwoPointLaw

    @classmethod
    def of(cls, trace_key: bytes, q: npt.NDArray[np.int64]) -> LicenseScores:
        """For an object's quantised bit sums.  # (bits,)"""
        which = _p_index(trace_key, len(q))
        parts = np.array(_P_PARTS, dtype=np.int64)[which]
        one, zero = np.array(_SCORE_ONE)[which] * q, np.array(_SCORE_ZERO)[which] * q
        law = stats.two_point_law(one, zero, parts, 256)
        return cls(trace_key, parts, (one - zero).astype(np.int64), int(zero.sum()), law)

    def totals(self, licenses: Sequence[int]) -> npt.NDArray[np.int64]:
        """T_j of every license.  # (licenses,)"""
        out = np.empty(len(licenses), dtype=np.int64)
        for at in range(0, len(licenses), 4096):
            words = _codewords(self.trace_key, licenses[at : at + 4096], self.parts) > 0  # (licenses, bits)
            out[at : at + 4096] = words @ self.gain + self.all_zero
        return out


def trace(
    weights: Path,
    kit: TraceKit,
    licenses: Sequence[int],
    *,
    base: Path | None = None,
    models: int = 1,
    progress: Progress = _quiet,
) -> Detection:
    """Names the registered license whose codeword is in the weights (hypothesis (b)), or nobody. Information
    only.

    Blind unless base tensors are given. licenses: every registered license of the model, all are counted;
    models: how many models' kits are tried on this object. `also` lists further licenses under the same
    threshold (colluders).
    Raises UnavailableError (missing tensors, other shapes), CarrierError, SpecError.
    """
    ids = _licenses(licenses)
    sums, _, _ = _trace_sums(weights, kit, base, progress)
    q = sums.quantised(BIT_LEVELS).q
    scored = LicenseScores.of(kit.trace_key, q)
    scores, law = scored.totals(ids).tolist(), scored.law
    ranked = sorted(range(len(ids)), key=lambda i: (-scores[i], i))
    count = stats.hypotheses(models=models, licenses=len(ids))
    best = ranked[0]
    tail = law.tail(scores[best])
    named = tail.at_most(stats.TRACE, count)
    also = []
    for i in ranked[1:65]:
        if not law.tail(scores[i]).at_most(stats.TRACE, count):
            break
        also.append(ids[i])
    return detection(
        tail,
        method=METHOD_TRACE,
        license=ids[best] if named else None,
        n=int(np.count_nonzero(q)),
        T=scores[best],
        sum_q2=int((q * q).sum()),
        hypotheses=count,
        threshold=stats.TRACE,
        null=NULL_TRACE,
        spec_hash=kit.spec.spec_hash(),
        also=tuple(also),
    )


def model_present(
    weights: Path, kit: TraceKit, licenses: Sequence[int], *, base: Path | None = None, models: int = 1
) -> Detection:
    """Whether this model's trace key is in the weights at all (hypothesis (a)): it names no license.

    Scored with the best registered codeword, all counted; an innocent license's codeword passes here too,
    because the chip signs are the model's.
    """
    ids = _licenses(licenses)
    sums, n, sum_q2 = _trace_sums(weights, kit, base)
    parts = np.array(_P_PARTS, dtype=np.int64)[_p_index(kit.trace_key, kit.spec.code_bits)]
    best = 0
    for at in range(0, len(ids), 4096):
        words = _codewords(kit.trace_key, ids[at : at + 4096], parts)
        best = max(best, int((words @ sums.q).max()))
    return detection(
        stats.ChipTest(best, n, sum_q2, n * LEVELS).tail(),
        method=METHOD_TRACE,
        n=n,
        T=best,
        sum_q2=sum_q2,
        hypotheses=stats.hypotheses(models=models, licenses=len(ids)),
        threshold=stats.TRACE,
        null=NULL_PRESENT,
        spec_hash=kit.spec.spec_hash(),
    )


def confirm(
    weights: Path,
    base: Path,
    spec: WfpSpec,
    share_index: int,
    share_seed: bytes,
    *,
    hypotheses: int = 1,
    grind_bits: int = stats.GRIND_CORRECTION_BITS,
) -> Detection:
    """Whether one opened share of the confirm mark is in the weights: confirm_shares of one."""
    found = confirm_shares(
        weights, base, spec, {share_index: share_seed}, hypotheses=hypotheses, grind_bits=grind_bits
    )
    return found[share_index]


def confirm_shares(
    weights: Path,
    base: Path,
    spec: WfpSpec,
    seeds: Mapping[int, bytes],
    *,
    hypotheses: int = 1,
    grind_bits: int = stats.GRIND_CORRECTION_BITS,
) -> dict[int, Detection]:
    """Whether each opened share of the confirm mark is in the weights (hypothesis (a) with the share's own key).

    seeds: of the shares to test, by their index; each tensor is read and put in order once for all of them. base: the
    registered tensors (extract_base, or the whole model). detected: p_global <= 2^-43, all shares of the mark counted
    for each; not_detected: p > 1e-3; inconclusive between, and when so few weights are left (neither zero nor NaN)
    that no sign pattern could convict.
    Raises UnavailableError (missing tensors, other shapes), CarrierError, SpecError.
    """
    shares = {index: (_choose_share(seed, spec, index), _Score()) for index, seed in seeds.items()}
    with Checkpoint(weights) as suspect, Checkpoint(base) as reference:
        for tensor, low, high in _slices(spec):
            here = [(score, *chosen.of(low, high)) for chosen, score in shares.values()]
            if not any(len(block) for _, block, _, _ in here):
                continue
            values = suspect.floats(*tensor)
            q = _as_blocks(_difference(values, reference.floats(*tensor), tensor.shape, spec.epsilon))
            live = _as_blocks(np.isfinite(values) & (values != 0))
            for score, block, _, sign in here:
                if len(block):
                    score.add(stats.chip_test(q[block - low], sign), int(np.count_nonzero(live[block - low])))
    tried = stats.hypotheses(models=hypotheses)
    elsewhere = stats.allowance(grind_bits=grind_bits, shares=spec.shares)
    return {index: score.verdict(spec, index, tried, elsewhere) for index, (_, score) in shares.items()}


class _Score:
    """What one share has gathered from the tensors so far."""

    def __init__(self) -> None:
        self._sum = stats.ChipTest(0, 0, 0, 0)
        self._seen = 0  # weights of the share's that are neither zero nor NaN

    def add(self, part: stats.ChipTest, seen: int) -> None:
        old = self._sum
        self._sum = stats.ChipTest(
            old.total + part.total, old.n + part.n, old.sum_q2 + part.sum_q2, old.reach + part.reach
        )
        self._seen += seen

    def verdict(self, spec: WfpSpec, index: int, tried: int, elsewhere: int) -> Detection:
        # a perfect match on every weight that still says something: n^2 / n
        powerless = not stats.bound_tail(self._seen, self._seen).at_most(stats.CONVICT, tried * elsewhere)
        return detection(
            self._sum.tail(),
            method=METHOD_CONFIRM,
            n=self._sum.n,
            T=self._sum.total,
            sum_q2=self._sum.sum_q2,
            hypotheses=tried,
            allowance=elsewhere,
            threshold=stats.CONVICT,
            null=NULL_CONFIRM,
            spec_hash=spec.spec_hash(),
            decision="inconclusive" if powerless else None,
            spans=((index, index + 1),),
        )
