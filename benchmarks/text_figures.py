"""Figures of the text benchmark from kept texts: what each detector reads after each attack, as rows and a plot.

Every detector is given text: kept ids are cut to a length, decoded, attacked, and encoded anew by the detector. A
figure whose texts are not there is left out.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from peers import mpac
from report import FOLDER, ROOT, Row, proportion
from text_series import (
    CURVE,
    DELTA,
    KGW_PEER,
    LONGER,
    MAIN,
    SERIES,
    VOCABULARY,
    GswSeries,
    Paraphrase,
    Prompts,
    binplus,
    current,
    load_prompts,
    message,
    mpac_of,
    payload,
    synthid_processor,
    zerobit,
)
from text_weights import HELD_OUT, OTHERS, read_scores, score_name
from texts import Store, Text
from zhiyi_watermark.attacks import text as attacks
from zhiyi_watermark.text_multibit import BinPlus
from zhiyi_watermark.text_stream import canonical_text, grams

sys.path.append(str(ROOT / "scripts"))

import fetch_corpora

PEERS_PYTHON: Final = ROOT / "build" / "peers" / "markllm" / "bin" / "python"
USERS: Final = 1 << 16  # registered users in every detection
TRACE: Final = math.log2(1e-6)  # of p_global, for rows; the detectors decide exactly
MUST_CHANGE: Final = 0.4  # of the words, for a paraphrase to count
HUMAN: Final = 500  # human texts a language
HUMAN_TOKENS: Final = 200
SLOW_HUMAN: Final = 100  # human texts a language for SWEET, whose detector runs the model: a second a text
DISTINCT_TOKENS: Final = 200  # of each text, in which repetitions are counted
ZERO_TOKENS: Final = (50, 100, 150, 200)
BIN_TOKENS: Final = (150, 250, 350, 500)

Words = Callable[[str, int], str]
"""An attack: the text and a seed to the attacked text."""


# --- texts and attacks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """The kept texts, where they are current."""

    store: Store
    prompts: Prompts
    limit: int | None = None  # texts of a series, for a quick look

    def texts(self, series: str) -> list[Text]:
        """Those of a series, ascending by index."""
        return current(SERIES[series], self.prompts, self.store)[: self.limit]

    def decoded(self, texts: Sequence[Text], tokens: int) -> list[str]:
        """Their first tokens as text."""
        return [decode(text.tokens[:tokens]) for text in texts]


@cache
def _tokenizer() -> Any:
    return load_prompts().tokenizer


def decode(tokens: Sequence[int]) -> str:
    """Token ids as text."""
    text: str = _tokenizer().decode(list(tokens), skip_special_tokens=True)
    return text


def encode(text: str) -> list[int]:
    """Text as a detector sees it: canonical, then token ids."""
    ids: list[int] = _tokenizer().encode(canonical_text(text), add_special_tokens=False)
    return ids


@cache
def human_texts(language: str, count: int, tokens: int) -> tuple[str, ...]:
    """Stretches of human prose one after another. Raises FetchError when the corpus can't be had."""
    out: list[str] = []
    stream: list[int] = []
    for paragraph in fetch_corpora.paragraphs(language):
        stream += encode(paragraph + "\n\n")
        while len(stream) >= tokens and len(out) < count:
            out.append(decode(stream[:tokens]))
            stream = stream[tokens:]
        if len(out) == count:
            break
    return tuple(out)


@cache
def _prose() -> tuple[str, ...]:
    return tuple(fetch_corpora.paragraphs("en"))


@cache
def _wordnet() -> attacks.WordNet:
    return attacks.WordNet(fetch_corpora.ensure_corpus(fetch_corpora.CORPORA["wordnet"]))


def paste25(text: str, seed: int) -> str:
    """A quarter of a longer text, the rest of which is human."""
    prose = _prose()
    needed = 4 * len(attacks.words(text))
    host: list[str] = []
    at = 37 * seed
    while needed > 0:
        host.append(prose[at % len(prose)])
        needed -= len(attacks.words(host[-1]))
        at += 1
    return attacks.paste(text, "\n\n".join(host), 0.25, seed=seed)


def _synonyms(share: float, text: str, seed: int) -> str:
    return attacks.substitute_synonyms(text, share, _wordnet(), seed=seed)


def _delete(share: float, text: str, seed: int) -> str:
    return attacks.delete_words(text, share, seed=seed)


def _insert(share: float, text: str, seed: int) -> str:
    return attacks.insert_words(text, share, seed=seed)


def _swap(share: float, text: str, seed: int) -> str:
    return attacks.swap_words(text, share, seed=seed)


def _half(text: str, seed: int) -> str:
    return attacks.truncate(text, 0.5, seed=seed)


def _invisible(text: str, seed: int) -> str:
    return attacks.zero_width(attacks.full_width(text), 0.3, seed=seed)


def _alike(text: str, seed: int) -> str:
    return attacks.homoglyphs(text, 0.1, seed=seed)


def _lower(text: str, seed: int) -> str:
    return attacks.change_case(text, "lower")


def _spaces(text: str, seed: int) -> str:
    return attacks.change_spaces(text, 0.1, seed=seed)


class Attack(NamedTuple):
    """One of the attacks that every table reports."""

    what: str
    run: Words


ATTACKS: Final[Mapping[str, Attack]] = {
    "del10": Attack("10 % of the words deleted", partial(_delete, 0.1)),
    "del20": Attack("20 % of the words deleted", partial(_delete, 0.2)),
    "del30": Attack("30 % of the words deleted", partial(_delete, 0.3)),
    "syn10": Attack("10 % of the words replaced by WordNet synonyms", partial(_synonyms, 0.1)),
    "syn30": Attack("30 % of the words replaced by WordNet synonyms", partial(_synonyms, 0.3)),
    "ins10": Attack("10 % of words inserted", partial(_insert, 0.1)),
    "swap10": Attack("10 % of the words swapped", partial(_swap, 0.1)),
    "half": Attack("one half of the text alone", _half),
    "paste25": Attack("a quarter of a text, the rest human", paste25),
    "invisible": Attack("full-width, with zero-width characters after 30 % of all", _invisible),
    "alike10": Attack("10 % of the letters replaced by look-alikes", _alike),
    "lower": Attack("lower case", _lower),
    "spaces10": Attack("10 % of the spaces doubled or made line ends", _spaces),
}


# --- readings -----------------------------------------------------------------------------------------------


class Message(NamedTuple):
    """What a multi-bit detector read, beside what was written."""

    right: bool  # every bit of the message, and accepted
    bits: float  # share of coded bits
    log2_p: float  # p_global


def read_binplus(series: str, index: int, text: str) -> Message:
    """BIN+: the whole detector, windows included, and the raw coded bits of the whole text."""
    found = SERIES[series]
    mark = binplus(found, found.parameters)
    ids = encode(text)
    seen = mark.detect(ids, USERS)
    wanted = payload(index, mark.config.long)
    return Message(
        seen.payload == mark.code.message(wanted),
        raw_bits(mark, ids, mark.code.encode(wanted)),
        seen.log2_p_global,
    )


def raw_bits(mark: BinPlus, ids: Sequence[int], coded: npt.NDArray[np.uint8]) -> float:
    """Share of the coded bits that the votes of the distinct pairs get right; a tie is half."""
    found = grams([ids], mark.config.context + 1)
    sums = mark.draws.signs(mark.draws.of_grams(found.distinct)).sum(axis=0, dtype=np.int64)
    right = np.sign(sums) * (2 * coded.astype(np.int64) - 1)
    return float((right + 1).mean() / 2)


def read_mpac(series: str, index: int, text: str) -> Message:
    """MPAC: its own decoding. It has no p."""
    found = SERIES[series]
    read = mpac_of({"delta": found.strength}).read(encode(text))
    wanted = mpac.bits_of(mpac.digits_of(message(index)))
    same = read == wanted
    return Message(bool(same.all()), float(same.mean()), 0.0)


class Score(NamedTuple):
    """What a zero-bit detector read."""

    score: float  # larger speaks for the mark
    log2_p: float | None  # its own p, after its own corrections; None where it has none


def read_zerobit(series: str, text: str) -> Score:
    """Our zero-bit profiles: p_global, windows counted."""
    found = SERIES[series]
    seen = zerobit(found, {"delta": found.strength}).detect(encode(text))
    return Score(-seen.log2_p, seen.log2_p_global)


def read_kgw_peer(series: str, text: str) -> Score:
    """transformers' WatermarkDetector and its p."""
    found = _kgw_detector(SERIES[series].strength)(torch.tensor([encode(text)]), return_dict=True)
    return Score(float(found.z_score[0]), math.log2(max(float(found.p_value[0]), 2.0**-1074)))


@cache
def _kgw_detector(delta: float) -> Any:
    from transformers import LlamaConfig, WatermarkDetector, WatermarkingConfig

    config = LlamaConfig(vocab_size=VOCABULARY, bos_token_id=1)
    return WatermarkDetector(config, "cpu", WatermarkingConfig(bias=delta, **KGW_PEER))


def read_synthid_peer(series: str, text: str) -> Score:
    """SynthID's weighted mean of g (paper, supplement): transformers has no p for it."""
    processor = synthid_processor()
    ids = torch.tensor([encode(text)])
    if ids.shape[1] < processor.ngram_len:
        return Score(0.0, None)
    g = processor.compute_g_values(input_ids=ids)[0].double()  # (places, depth)
    fresh = processor.compute_context_repetition_mask(input_ids=ids)[0].double()  # (places,)
    depth = g.shape[1]
    weights = torch.linspace(10, 1, depth, dtype=torch.float64)
    weights *= depth / weights.sum()
    mean = (g * weights * fresh[:, None]).sum() / (depth * fresh.sum().clamp(min=1))
    return Score(float(mean), None)


def read_markllm(method: str, texts: Sequence[str]) -> list[Score]:
    """MarkLLM's own detectors, in their environment. Answers are cached under build/."""
    cached = ROOT / "build" / "text_bench" / f"{method}.json"
    known: dict[str, list[float]] = json.loads(cached.read_text()) if cached.exists() else {}
    keys = [hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts]
    asked = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if asked:
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "scores.json"
            script = ROOT / "benchmarks" / "peers" / "markllm_peer.py"
            body = json.dumps({"method": method, "texts": list(asked.values())})
            subprocess.run([PEERS_PYTHON, script, answer], input=body, text=True, check=True, cwd=ROOT)
            found = json.loads(answer.read_text())
        known |= dict(zip(asked, map(list, zip(found["scores"], found["p"], strict=True)), strict=True))
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_text(json.dumps(known))
    return [Score(known[key][0], math.log2(max(known[key][1], 2.0**-1074))) for key in keys]


# --- figures ------------------------------------------------------------------------------------------------

TARGETS: Final[Mapping[str, tuple[Literal[">=", "<="], float]]] = {
    "bin32_ppl_increase": ("<=", 0.16),
    "bin32_message_500": (">=", 0.85),
    "bin32_message_800": (">=", 0.97),
    "bin32_acc_350": (">=", 0.88),
    "bin32_acc_500": (">=", 0.94),
    "bin32_del10": (">=", 0.85),
    "bin32_syn10": (">=", 0.82),
    "bin32_del30": (">=", 0.70),
    "bin32_paste25_tpr": (">=", 0.95),
    "zero_tpr_200_t1": (">=", 0.99),
    "zero_tpr_200_t07": (">=", 0.95),
    "zero_paraphrase_auc": (">=", 0.955),
    "gsw_tpr_1000": (">=", 0.95),
    "gsw_tpr_2000": (">=", 0.95),
}


def mean_of(values: Sequence[float]) -> tuple[float, float, float]:
    """A mean over texts and its normal 95 % interval: low, mean, high."""
    array = np.array(values, dtype=float)
    half = 1.96 * float(array.std(ddof=1)) / math.sqrt(len(array)) if len(array) > 1 else 0.0
    mean = float(array.mean())
    return mean - half, mean, mean + half


def increase(texts: Sequence[Text]) -> tuple[float, float, float]:
    """Step-wise increase of perplexity, exp(nats / tokens) - 1, with its interval over texts: low, value, high."""
    low, mean, high = mean_of([text.cost / len(text.tokens) for text in texts])
    return math.expm1(low), math.expm1(mean), math.expm1(high)


def distinct(tokens: Sequence[int]) -> float:
    """Share of distinct ones among the pairs of neighboring tokens: 1 where nothing repeats, 0 of fewer than two."""
    pairs = [*pairwise(tokens)]
    return len(set(pairs)) / max(1, len(pairs))


def auc(marked: Sequence[float], plain: Sequence[float]) -> float:
    """Chance that a marked text scores higher than a plain one, ties half. Raises ValueError without texts."""
    if not marked or not plain:
        raise ValueError("an AUC needs marked and plain scores")
    ordered = np.sort(np.array(plain))
    below = np.searchsorted(ordered, marked, side="left")
    upto = np.searchsorted(ordered, marked, side="right")
    return float((below + upto).mean() / 2 / len(ordered))


def above_rate(marked: Sequence[float], plain: Sequence[float], rate: float) -> list[bool]:
    """Which marked scores are above a threshold that at most that share of the plain ones exceeds."""
    ordered = sorted(plain)
    threshold = ordered[math.ceil(len(ordered) * (1 - rate)) - 1]
    return [score > threshold for score in marked]


@dataclass
class Curves:
    """What the plot shows: shares of texts that were detected or read."""

    tokens: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # length, share
    attacks: dict[str, dict[str, float]] = field(default_factory=dict)  # by attack
    strength: list[tuple[float, float]] = field(default_factory=list)  # increase of perplexity, share
    removal: dict[str, list[tuple[float, float]]] = field(
        default_factory=dict
    )  # chrF to the marked text, share


class Multi(NamedTuple):
    """A multi-bit mark in the tables."""

    prefix: str  # of its rows
    series: str
    what: str
    lengths: tuple[int, ...]
    attacked: bool = False


class Zero(NamedTuple):
    """A zero-bit mark in the tables."""

    prefix: str
    series: str
    what: str
    read: Callable[[str, str], Score] | None  # None for MarkLLM's
    markllm: str = ""


MULTI: Final = (
    Multi("bin32", MAIN, "BIN+", BIN_TOKENS, attacked=True),
    Multi("mpac", "mpac", "MPAC, re-implemented", BIN_TOKENS, attacked=True),
    Multi("bin32_h800", LONGER, "BIN+", (800,)),
    Multi("bin64", "bin64-h800", "BIN+ long, 64 bits", (800,)),
    Multi("bin32_t07", f"{MAIN}-t0.7", "BIN+ at T=.7", (500,)),
    *(
        Multi(f"bin32_d{d:g}", f"bin32-h500-d{d:g}", f"BIN+, delta {d:g}", (500,))
        for d in sorted({*CURVE, DELTA})
    ),
)
ZERO: Final = (
    Zero("zero_tournament", "tournament", "Tournament", read_zerobit),
    Zero("zero_tournament_t07", "tournament-t0.7", "Tournament at T=.7", read_zerobit),
    Zero("zero_unigram", "unigram", "Unigram", read_zerobit),
    Zero("zero_kgw", "kgw", "KGW", read_zerobit),
    Zero("kgw", "kgw-transformers", "transformers KGW", read_kgw_peer),
    Zero("synthid", "synthid-transformers", "transformers SynthID", read_synthid_peer),
    Zero("unigram", "unigram-markllm", "MarkLLM Unigram", None, "Unigram"),
    Zero("sweet", "sweet-markllm", "MarkLLM SWEET", None, "SWEET"),
    Zero("exp", "exp-markllm", "MarkLLM EXP", None, "EXP"),
)
RENAMED: Final = {
    "bin32_h800_message_800": "bin32_message_800",
    "bin32_h800_acc_800": "bin32_acc_800",
    "zero_tournament_tpr_200": "zero_tpr_200_t1",
    "zero_tournament_t07_tpr_200": "zero_tpr_200_t07",
    "zero_unigram_auc_paraphrase": "zero_paraphrase_auc",
    "gsw_e0.05_tpr_1000": "gsw_tpr_1000",  # the strongest within 5 % of perplexity
    "gsw_e0.044_tpr_2000": "gsw_tpr_2000",
}
AGAINST: Final = {  # of our rows, the peer's name and row
    "bin32_message_500": ("MPAC", "mpac_message_500"),
    "zero_tpr_200_t1": ("transformers KGW", "kgw_tpr_200"),
    "zero_paraphrase_auc": ("MarkLLM Unigram", "unigram_auc_paraphrase"),
}


@dataclass
class Figures:
    """Derives the rows. missing: what could not be, in lines for people."""

    kept: Kept
    pool: ProcessPoolExecutor
    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)
    _near: dict[str, float] = field(default_factory=dict)  # chrF of paraphrases, by series

    def derive(self) -> None:
        """Everything that the kept texts allow, with the peers' figures beside ours; a target without a row is
        missing."""
        if plain := self._need("plain"):
            self._distinct("plain", "plain texts of the model", plain)
        for multi in MULTI:
            if texts := self._need(multi.series):
                self._multi(multi, texts)
        if self.kept.texts(MAIN):
            seen = self.pool.map(partial(read_binplus, MAIN, 0), self._human(HUMAN), chunksize=8)
            hits = [found.log2_p <= TRACE for found in seen]
            self._share(
                "bin32_human_named", "BIN+, human texts, English and Chinese: named, p_global < 1e-6", hits
            )
        for zero in ZERO:
            if texts := self._need(zero.series):
                self._zero(zero, texts)
        for series in SERIES.values():
            if isinstance(series, GswSeries):
                self._gsw(series, self._need(series.name))
        found = {row.id: row.value for row in self.rows}
        for at, row in enumerate(self.rows):
            peer, other = AGAINST.get(row.id, ("", ""))
            if other in found:
                self.rows[at] = replace(row, against=(peer, found[other]))
        self.missing += [f"{id_}: no row" for id_ in TARGETS if id_ not in found]

    def _need(self, series: str) -> list[Text]:
        texts = self.kept.texts(series)
        if len(texts) < SERIES[series].count:
            self.missing.append(f"{series}: {len(texts)} of {SERIES[series].count} texts")
        return texts

    # the multi-bit marks

    def _multi(self, multi: Multi, texts: Sequence[Text]) -> None:
        """Strength, then bits and messages by length and by attack."""
        self._increase(f"{multi.prefix}_ppl_increase", multi.what, texts)
        self._distinct(multi.prefix, multi.what, texts)
        for tokens in multi.lengths:
            read = self._messages(multi, texts, tokens)
            self._bits(f"{multi.prefix}_acc_{tokens}", f"{multi.what}, {tokens} tokens", read)
            share = self._right(f"{multi.prefix}_message_{tokens}", f"{multi.what}, {tokens} tokens", read)
            if multi.attacked:
                self.curves.tokens.setdefault(f"{multi.what}: message", []).append((tokens, share))
        if multi.prefix.startswith("bin32_d"):
            self.curves.strength.append((increase(texts)[1], share))
        for name, attack in ATTACKS.items() if multi.attacked else ():
            read = self._messages(multi, texts, multi.lengths[-1], attack.run)
            if name != "paste25":  # of the whole text, most of which is human
                self._bits(f"{multi.prefix}_{name}", f"{multi.what}, {attack.what}", read)
            id_ = f"{multi.prefix}_paste25_tpr" if name == "paste25" else f"{multi.prefix}_message_{name}"
            share = self._right(id_, f"{multi.what}, {attack.what}", read)
            self._curve(f"{multi.what}: message", multi.series, name, texts, multi.lengths[-1], share)

    def _messages(
        self, multi: Multi, texts: Sequence[Text], tokens: int, run: Words | None = None
    ) -> list[Message]:
        read = read_mpac if SERIES[multi.series].method == "mpac" else read_binplus
        job = partial(_message_of, read, multi.series, tokens, run)
        return list(self.pool.map(job, texts, chunksize=4))

    def _bits(self, id_: str, what: str, read: Sequence[Message]) -> None:
        low, mean, high = mean_of([found.bits for found in read])
        self._add(
            Row(id_, f"{what}: raw bits right", mean, "", len(read), interval=(max(0.0, low), min(1.0, high)))
        )

    def _right(self, id_: str, what: str, read: Sequence[Message]) -> float:
        return self._share(id_, f"{what}: every bit right", [found.right for found in read])

    # the zero-bit marks

    def _zero(self, zero: Zero, texts: Sequence[Text]) -> None:
        """Strength, then detection by length and by attack, all against the same human texts."""
        slow = zero.markllm == "SWEET"
        human = self._human(SLOW_HUMAN if slow else HUMAN)
        if zero.read is None and not PEERS_PYTHON.exists():
            self.missing.append(f"{zero.series}: its detector; run `make peers`")
            return
        null = self._scores(zero, human)
        plain = [score.score for score in null]
        own_p = null[0].log2_p is not None
        self._increase(f"{zero.prefix}_ppl_increase", zero.what, texts)
        self._distinct(zero.prefix, zero.what, texts)
        if own_p:
            self._share(f"{zero.prefix}_human_hits", f"{zero.what}, human texts: its p < 1e-6", below(null))
            if (unmarked := self.kept.decoded(self.kept.texts("plain"), HUMAN_TOKENS)) and not slow:
                hits = below(self._scores(zero, unmarked))
                self._share(
                    f"{zero.prefix}_plain_hits", f"{zero.what}, plain texts of the model: its p < 1e-6", hits
                )
        lengths = ZERO_TOKENS[-1:] if slow else ZERO_TOKENS
        given = {f"{n}": (f"{n} tokens", self.kept.decoded(texts, n)) for n in lengths}
        whole = given[f"{ZERO_TOKENS[-1]}"][1]
        given |= {
            name: (attack.what, [attack.run(t, i) for i, t in enumerate(whole)])
            for name, attack in ATTACKS.items()
        }
        if rewritten := self._paraphrased(zero.series):
            given["paraphrase"] = ("paraphrased by the model itself", rewritten)
        for name, (what, attacked) in given.items():
            read = self._scores(zero, attacked)
            marked = [score.score for score in read]
            value = auc(marked, plain)
            self._add(
                Row(
                    f"{zero.prefix}_auc_{name}",
                    f"{zero.what}, {what}: AUC against human texts",
                    value,
                    "",
                    len(marked),
                )
            )
            found = above_rate(marked, plain, 0.01)
            share = self._share(
                f"{zero.prefix}_tpr1fpr_{name}", f"{zero.what}, {what}: above 99 % of human texts", found
            )
            if own_p:
                share = self._share(
                    f"{zero.prefix}_tpr_{name}", f"{zero.what}, {what}: its p < 1e-6", below(read)
                )
            label = zero.what if own_p else f"{zero.what}, at 1 % of human texts"
            if name in ATTACKS or name == "paraphrase":
                self._curve(label, zero.series, name, texts, ZERO_TOKENS[-1], share)
            else:
                self.curves.tokens.setdefault(label, []).append((int(name), share))

    def _scores(self, zero: Zero, given: Sequence[str]) -> list[Score]:
        if zero.read is None:
            return read_markllm(zero.markllm, given)
        return list(self.pool.map(partial(zero.read, zero.series), given, chunksize=8))

    # marked weights

    def _gsw(self, series: GswSeries, texts: Sequence[Text]) -> None:
        """From the kept scores."""
        known = read_scores()
        what = f"GSW, epsilon {series.epsilon:g}"
        label = f"gsw_e{series.epsilon:g}"
        if texts:
            self._distinct(label, what, texts)
        if texts and series.name in known:
            grown = float(known[series.name]["ppl_increase"])
            self._add(Row(f"{label}_ppl_increase", f"{what}: perplexity of human texts", grown, "", HELD_OUT))
        for tokens in series.scored:
            names = [score_name(text, tokens) for text in texts]
            scores = [known[name] for name in names if name in known]
            if len(scores) < len(names):
                self.missing.append(
                    f"{series.name}, {tokens} tokens: {len(scores)} of {len(names)} scores; run --score"
                )
            if scores:
                hits = [score["log2_p"] <= TRACE for score in scores]
                share = self._share(f"{label}_tpr_{tokens}", f"{what}, {tokens} tokens: p < 1e-6", hits)
                self.curves.tokens.setdefault(what, []).append((tokens, share))
                innocent = [i < score["innocent"] for score in scores for i in range(len(OTHERS))]
                self._share(
                    f"{label}_innocent_{tokens}",
                    f"{what}, {tokens} tokens: other licenses, p < 1e-6",
                    innocent,
                )

    # shared

    def _paraphrased(self, source: str) -> list[str]:
        """Paraphrases of texts of a series, of which enough words were changed; rows say how many and how near."""
        series = SERIES.get(f"paraphrase-{source}")
        if not isinstance(series, Paraphrase):
            return []
        of = [index for index, _ in series.pieces(self.kept.prompts, self.kept.store)]
        made = {text.index: text for text in current(series, self.kept.prompts, self.kept.store)}
        if not of or len(made) < len(of):
            self.missing.append(f"{series.name}: {len(made)} of {len(of) or 'all'} pieces")
            return []
        joined: dict[int, list[str]] = {}
        for piece, index in enumerate(of):
            joined.setdefault(index, []).append(decode(made[piece].tokens).strip())
        texts = {text.index: decode(text.tokens[: series.source_tokens]) for text in self.kept.texts(source)}
        pairs = [(texts[index], " ".join(parts)) for index, parts in joined.items() if index in texts]
        changed = [attacks.words_changed(before, after) >= MUST_CHANGE for before, after in pairs]
        self._share(
            f"paraphrase_{source}_counted", f"paraphrases of {source}: 40 % of the words changed", changed
        )
        counted = [pair for pair, enough in zip(pairs, changed, strict=True) if enough]
        if counted:
            low, near, high = mean_of([attacks.chrf(after, before) for before, after in counted])
            title = f"paraphrases of {source} that count: chrF to the marked text"
            self._add(Row(f"paraphrase_{source}_chrf", title, near, "", len(counted), interval=(low, high)))
            self._near[source] = near
        return [after for _, after in counted]

    def _human(self, count: int) -> list[str]:
        count = min(count, self.kept.limit or count)
        return [text for language in ("en", "zh") for text in human_texts(language, count, HUMAN_TOKENS)]

    def _increase(self, id_: str, what: str, texts: Sequence[Text]) -> None:
        low, value, high = increase(texts)
        self._add(
            Row(id_, f"{what}: step-wise perplexity over plain", value, "", len(texts), interval=(low, high))
        )

    def _distinct(self, prefix: str, what: str, texts: Sequence[Text]) -> None:
        low, mean, high = mean_of([distinct(text.tokens[:DISTINCT_TOKENS]) for text in texts])
        title = f"{what}: distinct pairs of neighbors in the first {DISTINCT_TOKENS} tokens"
        self._add(Row(f"{prefix}_distinct", title, mean, "", len(texts), interval=(low, high)))

    def _share(self, id_: str, what: str, hits: Sequence[bool]) -> float:
        row = proportion(id_, what, sum(hits), len(hits))
        self._add(row)
        return row.value

    def _add(self, row: Row) -> None:
        """With its target."""
        id_ = RENAMED.get(row.id, row.id)
        sense, target = TARGETS.get(id_, (None, None))
        self.rows.append(replace(row, id=id_, sense=sense, target=target))

    def _curve(
        self, label: str, series: str, attack: str, texts: Sequence[Text], tokens: int, share: float
    ) -> None:
        self.curves.attacks.setdefault(label, {})[attack] = share
        if attack == "paraphrase":
            near = self._near[series]
        elif attack == "paste25":
            return
        else:
            before = self.kept.decoded(texts[:20], tokens)
            near = float(np.mean([attacks.chrf(ATTACKS[attack].run(t, i), t) for i, t in enumerate(before)]))
        self.curves.removal.setdefault(label, []).append((near, share))


def _message_of(
    read: Callable[[str, int, str], Message], series: str, tokens: int, run: Words | None, text: Text
) -> Message:
    given = decode(text.tokens[:tokens])
    return read(series, text.index, run(given, text.index) if run else given)


def below(scores: Sequence[Score]) -> list[bool]:
    """Which have a p below 1e-6."""
    return [score.log2_p is not None and score.log2_p <= TRACE for score in scores]


def carried() -> list[Row]:
    """The calibration rows that belong to this table, from docs/benchmarks/calibration.json, where they are made."""
    path = FOLDER / "calibration.json"
    if not path.exists():
        return []
    out = []
    for row in json.loads(path.read_text())["rows"]:
        if row["id"] in ("fpr_1e4_low", "fpr_1e4_high", "innocent_license_hits"):
            interval = tuple(row["interval"]) if "interval" in row else None
            out.append(
                Row(
                    row["id"],
                    f"{row['what']} (from `make bench-calibration`)",
                    row["value"],
                    row["unit"],
                    row["n"],
                    row["target"],
                    row["sense"],
                    None,
                    interval,
                )
            )
    return out


def plot(curves: Curves) -> Path:
    """docs/benchmarks/text.svg: shares against length, attacks, strength, and quality left."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "text"
    from matplotlib import pyplot

    figure, ((lengths, hurt), (strength, removal)) = pyplot.subplots(2, 2, figsize=(11, 8.5))
    for label, points in curves.tokens.items():
        lengths.plot(*zip(*points, strict=True), marker=".", linewidth=0.9, label=label)
    lengths.set(xlabel="tokens", ylabel="share detected (p < 1e-6) or read", ylim=(-0.03, 1.03))
    for label, shares in curves.attacks.items():
        hurt.plot(list(shares), list(shares.values()), marker=".", linewidth=0.9, label=label)
    hurt.set(ylabel="share detected or read after the attack", ylim=(-0.03, 1.03))
    hurt.tick_params(axis="x", rotation=60, labelsize=8)
    if curves.strength:
        strength.plot(*zip(*sorted(curves.strength), strict=True), marker="o", linewidth=0.9)
    strength.set(xlabel="step-wise increase of perplexity", ylabel="BIN+, 500 tokens: messages read")
    for label, near in curves.removal.items():
        removal.plot(*zip(*sorted(near), strict=True), marker=".", linewidth=0, label=label)
    removal.set(xlabel="chrF of the attacked text to the marked one", ylabel="share detected or read")
    for axes in (lengths, hurt, removal):
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=7)
    figure.tight_layout()
    path = FOLDER / "text.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return path
