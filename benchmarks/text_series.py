"""What the text benchmark generates: prompts, series, and the mark of each series.

A series is a method at one strength. All series answer the same prompts, in the same batches. Ends of text are never
drawn, as in the papers, so that all texts of a series have the same length.

Peers run as their own libraries have them, with their default parameters except for the strength: transformers'
KGW (Kirchenbauer et al. 2023) and SynthID (Dathathri et al., Nature 2024), MarkLLM's Unigram (Zhao et al. 2024),
SWEET (Lee et al. 2024) and EXP (Aaronson 2023), and our re-implementation of MPAC (peers/mpac.py). The strength of
those that have one is matched to BIN+'s default by step-wise perplexity (text_bench.py --match), kept in
texts/strengths.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))

import fetch_corpora
from fetch_model import STAMP, ensure_model
from peers import mpac
from text_model import ENGINE, Mark, Sampling, sample, stream
from texts import FOLDER, Origin, Store, Text
from zhiyi_watermark import prf, text_gaussian
from zhiyi_watermark.attacks import text as attacks
from zhiyi_watermark.payload import MAX_FINGERPRINT, Long, Short
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM, ZeroBit
from zhiyi_watermark.weights import TensorShape

VOCABULARY: Final = 49_152  # of SmolLM2
PROMPT_TOKENS: Final = 32  # of a human paragraph, quoted in the prompt
PROMPTS: Final = 200
REQUEST: Final = 'Write a long and detailed article. It begins like this: "{}'
STRENGTHS: Final = FOLDER / "strengths.json"
KEY: Final = hashlib.sha256(b"zhiyi text benchmark").digest()
SYNTHID_KEYS: Final = (
    654,
    400,
    836,
    123,
    340,
    443,
    597,
    160,
    57,
    29,
    590,
    639,
    13,
    715,
    468,
    990,
    966,
    226,
    324,
    585,
    118,
    504,
    421,
    521,
    129,
    669,
    732,
    225,
    90,
    960,
)  # transformers' example: 30 layers
SYNTHID_NGRAM: Final = 5
PIECE_WORDS: Final = 45  # of a text that is paraphrased in one go
PIECE_TOKENS: Final = 96  # that the model may take for it
KGW_PEER: Final[Mapping[str, Any]] = {
    "greenlist_ratio": 0.25,
    "context_width": 1,
    "seeding_scheme": "lefthash",
}
MARKLLM: Final = "0.1.5"
LICENSE: Final = 1  # whose marked copy writes
BUILD: Final = Path(__file__).resolve().parent.parent / "build" / "text_bench"


MATCHED: Final = "matched"  # the strength is the one in texts/strengths.json


class Plan(NamedTuple):
    """How a series' texts are made."""

    keys: dict[int, str]  # by index
    batches: list[list[int]]  # indices of the texts that are made together
    asked: Callable[[Sequence[int]], torch.Tensor]  # prompts of a batch.  # (rows, length)


@dataclass(frozen=True)
class Series:
    """One method at one strength."""

    name: str
    method: str
    count: int  # texts
    tokens: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    top_k: int = 50
    rows: int = 40  # texts of a batch

    @property
    def markllm(self) -> bool:
        """Whether its mark needs the environment of `make peers`."""
        return self.method.startswith("markllm-")

    @property
    def strength(self) -> float | None:
        """The parameter that is matched, if it is; None for methods without one or not matched yet."""
        given = self.parameters.get("delta")
        return strengths().get(self.method) if given == MATCHED else given

    @property
    def ready(self) -> bool:
        """Whether its strength is known."""
        return self.parameters.get("delta") != MATCHED or self.strength is not None

    def sampling(self, prompts: Prompts) -> Sampling:
        """How its texts are drawn."""
        return Sampling(self.tokens, self.temperature, self.top_k, self.method in SCALED, prompts.special)

    def mark(self, indices: Sequence[int]) -> Mark | None:
        """A fresh processor for these texts; None for plain ones."""
        parameters = dict(self.parameters)
        if parameters.get("delta") == MATCHED:
            if self.strength is None:
                raise ValueError(f"the strength of {self.method} is not known yet: run text_bench.py --match")
            parameters["delta"] = self.strength
        return MARKS[self.method](self, parameters, indices)

    def plan(self, prompts: Prompts, store: Store) -> Plan:
        """Keys and batches."""
        batches = [list(range(at, min(at + self.rows, self.count))) for at in range(0, self.count, self.rows)]
        return self._planned(prompts, batches, prompts.batch)

    def _planned(
        self, prompts: Prompts, batches: list[list[int]], asked: Callable[[Sequence[int]], torch.Tensor]
    ) -> Plan:
        method = {
            **self.parameters,
            "method": self.method,
            "tokens": self.tokens,
            "top_k": self.top_k,
            "temperature": self.temperature,
            "rows": self.rows,
            "delta": self.strength,
        }
        code = code_version(self)
        keys: dict[int, str] = {}
        for batch in batches:
            hashed = hashlib.sha256(asked(batch).numpy().astype("<i8").tobytes()).hexdigest()[:16]
            keys |= {i: Origin(prompts.model, self.name, method, code, hashed, i).key() for i in batch}
        return Plan(keys, batches, asked)

    def written(self, ids: Sequence[int], prompts: Prompts) -> tuple[int, ...]:
        """What is kept of the drawn ids."""
        return tuple(ids)

    def weights(self, prompts: Prompts) -> Path:
        """The folder of the model that writes."""
        return prompts.folder


@dataclass(frozen=True)
class Paraphrase(Series):
    """The first texts of another series, rewritten piece by piece by the plain model; a text here is a piece.

    Pieces whose prompts have the same length are made together. A piece ends where the model ends it.
    """

    source: str = ""
    source_tokens: int = 200

    def sampling(self, prompts: Prompts) -> Sampling:
        """With ends of text."""
        return Sampling(self.tokens, self.temperature, self.top_k)

    def pieces(self, prompts: Prompts, store: Store) -> list[tuple[int, list[int]]]:
        """For each piece the index of its text and its prompt; empty until all source texts are kept."""
        kept = current(SERIES[self.source], prompts, store)[: self.count]
        if len(kept) < self.count:
            return []
        return [
            (text.index, prompts.chat(attacks.PROMPT.format(piece)))
            for text in kept
            for piece in attacks._sentences(prompts.text(text.tokens[: self.source_tokens]), PIECE_WORDS)
        ]

    def plan(self, prompts: Prompts, store: Store) -> Plan:
        """Keys and batches."""
        asked = [ids for _, ids in self.pieces(prompts, store)]
        same: dict[int, list[int]] = {}
        for i, ids in enumerate(asked):
            same.setdefault(len(ids), []).append(i)
        batches = [
            found[at : at + self.rows]
            for _, found in sorted(same.items())
            for at in range(0, len(found), self.rows)
        ]
        return self._planned(prompts, batches, lambda batch: torch.tensor([asked[i] for i in batch]))

    def written(self, ids: Sequence[int], prompts: Prompts) -> tuple[int, ...]:
        """Up to the first end of text."""
        return tuple(takewhile(lambda token: token not in prompts.special, ids))


@dataclass(frozen=True)
class GswSeries(Series):
    """Texts of a licensed copy whose weights are marked, see text_weights.py; nothing is done to the logits."""

    scored: tuple[int, ...] = ()  # lengths that are scored

    @property
    def epsilon(self) -> float:
        """Step in standard deviations of a tensor."""
        return float(self.parameters["epsilon"])

    def spec(self, prompts: Prompts) -> text_gaussian.GswSpec:
        """Where and how strongly the copy is marked."""
        return text_gaussian.plan(
            prompts.folder, epsilon=self.epsilon, temperature=self.temperature, top_k=self.top_k
        )

    def weights(self, prompts: Prompts) -> Path:
        """The marked copy, made under build/ if it is not there."""
        out = BUILD / f"{self.name}-{prompts.model}-{_pattern()}"
        if not out.exists():
            text_gaussian.mark(prompts.folder, out, gsw_license(LICENSE), self.spec(prompts))
        return out


def gsw_license(number: int) -> bytes:
    """The key of a license's pattern."""
    return text_gaussian.license_key(prf.derive_key(KEY, "gsw"), number)


@cache
def _pattern() -> str:
    """Changes when a license's signs do: its totals of fixed integers."""
    spec = text_gaussian.GswSpec((TensorShape("probe", (64, 64)),), "0" * 64, "0" * 64)
    q = (np.arange(4096) % 255 - 127).astype(np.int16)
    fixed = text_gaussian.Gradient(q, spec.spec_hash().hex(), "", 0)
    sums = text_gaussian.totals(fixed, spec, [gsw_license(i) for i in range(8)])
    return hashlib.sha256(sums.astype("<i8").tobytes()).hexdigest()[:16]


def current(series: Series, prompts: Prompts, store: Store) -> list[Text]:
    """The kept texts of a series that its plan would make, ascending by index."""
    if not series.ready:
        return []
    kept = store.current(series.name, series.plan(prompts, store).keys)
    return [kept[i] for i in sorted(kept)]


@cache
def strengths() -> dict[str, float]:
    """The matched strength of each method."""
    if not STRENGTHS.exists():
        return {}
    return {name: row["delta"] for name, row in json.loads(STRENGTHS.read_text()).items()}


# --- prompts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Prompts:
    """The fixed requests, all of one length in tokens, and the tokenizer that cut them."""

    model: str  # pin of the weights
    folder: Path
    tokenizer: Any
    ids: torch.Tensor  # (prompts, length)

    def batch(self, indices: Sequence[int]) -> torch.Tensor:
        """The prompts of these texts.  # (texts, length)"""
        return self.ids[[i % len(self.ids) for i in indices]]

    @cached_property
    def special(self) -> tuple[int, ...]:
        """Ids of special tokens: ends of text and the like."""
        return tuple(sorted(i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special))

    def chat(self, request: str) -> list[int]:
        """A request in the chat template."""
        return chat(request, self.tokenizer)

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


@cache
def load_prompts(count: int = PROMPTS) -> Prompts:
    """Requests to continue the beginning of a human paragraph, in the chat template.

    The paragraphs are taken in the order of their hashes; one counts if its request has the usual length, which the
    tokenizer's merges at the seams decide. Raises FetchError when model or corpora can't be had.
    """
    from transformers import AutoTokenizer

    folder = ensure_model()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows: list[list[int]] = []
    length = len(chat(REQUEST.format(""), tokenizer)) + PROMPT_TOKENS
    for text in sorted(fetch_corpora.paragraphs("en"), key=lambda t: hashlib.sha256(t.encode()).digest()):
        head = tokenizer.encode(text, add_special_tokens=False)[:PROMPT_TOKENS]
        asked = chat(REQUEST.format(tokenizer.decode(head)), tokenizer)
        if len(asked) == length:
            rows.append(asked)
        if len(rows) == count:
            break
    pin = hashlib.sha256((folder / STAMP).read_bytes()).hexdigest()[:16]
    return Prompts(pin, folder, tokenizer, torch.tensor(rows))


def chat(request: str, tokenizer: Any) -> list[int]:
    """A user's request and the beginning of the answer."""
    said = [{"role": "user", "content": request}]
    text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


# --- marks --------------------------------------------------------------------------------------------------


def user(index: int) -> int:
    """The API user number in the text with this index."""
    return int.from_bytes(hashlib.sha256(f"user {index}".encode()).digest()[:2], "big")


def payload(index: int, long: bool) -> Short | Long:
    """The message in the text with this index."""
    if not long:
        return Short(user(index))
    number = int.from_bytes(hashlib.sha256(f"fingerprint {index}".encode()).digest()[:4], "big")
    return Long(number & MAX_FINGERPRINT, user(index))


def message(index: int) -> int:
    """The 32 bits in the text with this index, for a peer without a code of its own."""
    return int.from_bytes(hashlib.sha256(f"message {index}".encode()).digest()[:4], "big")


def binplus(series: Series, parameters: Mapping[str, Any]) -> BinPlus:
    """The mark of a BIN+ series."""
    config = BinPlusConfig(temperature=series.temperature, top_k=series.top_k, **parameters)
    return BinPlus(prf.derive_key(KEY, "binplus"), config)


def _plain(series: Series, parameters: Mapping[str, Any], indices: Sequence[int]) -> None:
    return None


def _binplus(series: Series, parameters: Mapping[str, Any], indices: Sequence[int]) -> Mark:
    mark = binplus(series, parameters)
    return mark.processor([payload(i, mark.config.long) for i in indices])


def zerobit(series: Series, parameters: Mapping[str, Any]) -> ZeroBit:
    """The mark of a zero-bit series of ours; `delta` is a green list's bias."""
    key, k, t = prf.derive_key(KEY, "zero-bit"), series.top_k, series.temperature
    if series.method == "tournament":
        return ZeroBit(key, replace(TOURNAMENT, top_k=k, temperature=t))
    base = {"kgw": KGW, "unigram": UNIGRAM}[series.method]
    return ZeroBit(key, replace(base, bias=float(parameters["delta"]), top_k=k, temperature=t))


def _zerobit(series: Series, parameters: Mapping[str, Any], indices: Sequence[int]) -> Mark:
    return zerobit(series, parameters).processor()


def _mpac(series: Series, parameters: Mapping[str, Any], indices: Sequence[int]) -> Mark:
    return mpac.Processor(mpac_of(parameters), [message(i) for i in indices])


def mpac_of(parameters: Mapping[str, Any]) -> mpac.Mpac:
    """The MPAC mark with a strength."""
    return mpac.Mpac(prf.derive_key(KEY, "mpac"), VOCABULARY, delta=float(parameters["delta"]))


def _kgw_peer(series: Series, parameters: Mapping[str, Any], indices: Sequence[int]) -> Mark:
    from transformers.generation.logits_process import WatermarkLogitsProcessor

    mark: Mark = WatermarkLogitsProcessor(VOCABULARY, "cpu", bias=float(parameters["delta"]), **KGW_PEER)
    return mark


def synthid_processor() -> Any:
    """transformers' SynthID processor with the parameters of its example, for detection."""
    from transformers.generation.logits_process import SynthIDTextWatermarkLogitsProcessor

    return SynthIDTextWatermarkLogitsProcessor(
        ngram_len=SYNTHID_NGRAM,
        keys=list(SYNTHID_KEYS),
        sampling_table_size=1 << 16,
        sampling_table_seed=0,
        context_history_size=1024,
        device=torch.device("cpu"),
    )


class OnSurvivors:
    """That processor on the tokens that can be drawn: it hashes the ids 0 .. columns-1, here it is told the real ones.
    The same scores without hashing the whole vocabulary 30 times a step."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self._keys = inner._compute_keys
        inner._compute_keys = lambda context, _: self._keys(context, self._ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """New scores.  # (rows, length), (rows, vocabulary)"""
        finite = int(torch.isfinite(scores).sum(dim=-1).max())
        top, self._ids = scores.topk(finite, dim=-1)
        out = torch.full_like(scores, -torch.inf)
        return out.scatter_(1, self._ids, self.inner(input_ids, top))


def _synthid_peer(series: Series, parameters: Mapping[str, Any], indices: Sequence[int]) -> Mark:
    return OnSurvivors(synthid_processor())


def _markllm(name: str, series: Series, parameters: Mapping[str, Any], indices: Sequence[int]) -> Mark:
    from peers import markllm_peer

    mark: Mark = markllm_peer.processor(name, parameters.get("delta"))
    return mark


MARKS: Final[Mapping[str, Callable[[Series, Mapping[str, Any], Sequence[int]], Mark | None]]] = {
    "plain": _plain,
    "paraphrase": _plain,
    "gsw": _plain,
    "binplus": _binplus,
    "tournament": _zerobit,
    "kgw": _zerobit,
    "unigram": _zerobit,
    "mpac": _mpac,
    "kgw-transformers": _kgw_peer,
    "synthid-transformers": _synthid_peer,
    "markllm-unigram": partial(_markllm, "Unigram"),
    "markllm-sweet": partial(_markllm, "SWEET"),
    "markllm-exp": partial(_markllm, "EXP"),
}
PEERS: Final = (
    "mpac",
    "kgw-transformers",
    "synthid-transformers",
    "markllm-unigram",
    "markllm-sweet",
    "markllm-exp",
)
SCALED: Final = frozenset(PEERS)  # these see scores divided by the temperature


# --- code version -------------------------------------------------------------------------------------------

_PROBE_STEPS: Final = 24


@cache
def _probe_scores(step: int) -> torch.Tensor:
    rng = np.random.Generator(np.random.Philox(step))
    return torch.from_numpy(rng.standard_normal((2, VOCABULARY), dtype=np.float32) * 3)


def code_version(series: Series) -> str:
    """A hash of what the series' mark and the sampler do to fixed scores: it changes when they draw other tokens, and
    does not when only their text changes. For MarkLLM, which has an environment of its own, its version."""
    if series.markllm:
        return f"engine {ENGINE}, markllm {MARKLLM}"
    steps = iter(range(_PROBE_STEPS))
    prompts = torch.arange(100, 116).reshape(2, 8)
    how = Sampling(_PROBE_STEPS, series.temperature, series.top_k, series.method in SCALED)
    streams = [stream(f"probe {row}") for row in range(2)]
    with torch.inference_mode():
        drawn, _ = sample(
            lambda _: _probe_scores(next(steps)).clone(), prompts, how, streams, series.mark([0, 1])
        )
    pattern = f", signs {_pattern()}" if isinstance(series, GswSeries) else ""
    return f"engine {ENGINE}, draws {hashlib.sha256(drawn.astype('<i8').tobytes()).hexdigest()[:16]}{pattern}"


# --- the list -----------------------------------------------------------------------------------------------


def _bin32(delta: float, count: int, tokens: int = 500, temperature: float = 1.0) -> Series:
    name = f"bin32-h{tokens}-d{delta:g}" + ("" if temperature == 1 else f"-t{temperature:g}")
    return Series(name, "binplus", count, tokens, {"delta": delta, "horizon": tokens}, temperature)


def _paraphrase(source: str) -> Paraphrase:
    return Paraphrase(f"paraphrase-{source}", "paraphrase", 60, PIECE_TOKENS, temperature=0.7, source=source)


def _peer(name: str, method: str, tokens: int, strong: bool = True) -> Series:
    return Series(name, method, 60, tokens, {"delta": MATCHED} if strong else {}, rows=30)


CURVE: Final = (0.6, 0.8, 1.0, 1.2)  # strengths of BIN+
DELTA: Final = BinPlusConfig().delta  # that of the main rows: what a user gets
MAIN: Final = f"bin32-h500-d{DELTA:g}"
LONGER: Final = f"bin32-h800-d{DELTA:g}"

SERIES: Final = {
    series.name: series
    for series in (
        Series("plain", "plain", 200, 200),
        *(_bin32(delta, 200 if delta == DELTA else 40) for delta in sorted({*CURVE, DELTA}, reverse=True)),
        Series("tournament", "tournament", 200, 200),
        Series("unigram", "unigram", 200, 200, {"delta": MATCHED}),
        Series("kgw", "kgw", 200, 200, {"delta": MATCHED}),
        _peer("kgw-transformers", "kgw-transformers", 200),
        _peer("synthid-transformers", "synthid-transformers", 200, strong=False),
        _peer("mpac", "mpac", 500),
        _peer("unigram-markllm", "markllm-unigram", 200),
        _peer("sweet-markllm", "markllm-sweet", 200),
        _peer("exp-markllm", "markllm-exp", 200, strong=False),
        Series("tournament-t0.7", "tournament", 200, 200, temperature=0.7),
        _paraphrase("unigram"),
        _paraphrase("tournament"),
        _paraphrase("unigram-markllm"),
        _paraphrase("synthid-transformers"),
        _bin32(DELTA, 200, tokens=800),
        Series("bin64-h800", "binplus", 80, 800, {"delta": DELTA, "horizon": 800, "long": True}),
        _bin32(DELTA, 80, temperature=0.7),
        GswSeries("gsw-e0.05", "gsw", 200, 1000, {"epsilon": 0.05}, scored=(1000,)),
        GswSeries("gsw-e0.057", "gsw", 200, 1000, {"epsilon": 0.057}, scored=(1000,)),
        GswSeries("gsw-e0.044", "gsw", 80, 2000, {"epsilon": 0.044}, scored=(2000,)),
    )
}  # in the order in which they are generated
