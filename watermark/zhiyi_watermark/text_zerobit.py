"""Zero-bit text marks: was this text made with this key? Green lists (KGW, Unigram) and tournament sampling.

GreenList, after Kirchenbauer et al. 2023 (A Watermark for Large Language Models): a token is green after its
context with chance gamma; generating adds a bias to the green tokens' logits. With context_width = 0 there is one
list for all of a text, after Zhao et al. 2024 (Provable Robust Watermarking, "Unigram"): it lives through
paraphrase that keeps words. Tournament, after Dathathri et al. 2024 (SynthID-Text, Nature 634): 30 layers of fair
bits g; each is a knock-out between two candidates, which as an update of probabilities reads
p(x) <- p(x) (1 + g(x) - sum_y p(y) g(y)). Over the draw of the key the text's distribution is unchanged.

The parameters are those of transformers' WatermarkingConfig and SynthIDTextWatermarkingConfig; the lists are not,
because transformers draws them with a generator of the device, and what is green on a GPU need not be on a CPU.
Here every draw is a keyed BLAKE2b of context and token.

Detecting needs no model and is integers end to end. Every (context, token) counts once in a window, however often
a text repeats it, and generating leaves what already counts unbiased (a tournament: contexts already used), so
that repetition neither is evidence nor costs quality.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf, stats
from zhiyi_watermark.errors import SpecError
from zhiyi_watermark.result import Detection, detection
from zhiyi_watermark.text_stream import (
    NO_TOKENIZER,
    Bytes2,
    Draws,
    Float64,
    Int64,
    Processor,
    Tokenizer,
    Writer,
    biased,
    canonical_text,
    check_tokenizer_hash,
    grams,
    spec_hash,
)

_GREEN_BITS: Final = 64  # of a draw; gamma is rounded down to a multiple of 2^-64
_TOP_WEIGHT: Final = 2  # of a tournament's first half of layers, see Tournament


class Profile(ABC):
    """A zero-bit mark without its key: parameters, what they do to logits, how they are scored."""

    top_k: int
    temperature: float

    @property
    @abstractmethod
    def name(self) -> str:
        """The profile's name; its method is "NAME-1"."""

    @property
    @abstractmethod
    def context(self) -> int:
        """Preceding tokens hashed with each token."""

    @property
    @abstractmethod
    def bits(self) -> int:
        """Bits drawn for a gram."""

    @property
    @abstractmethod
    def null(self) -> str:
        """H0 in words."""

    @property
    @abstractmethod
    def variance(self) -> int:
        """Of one gram's score under H0."""

    @property
    @abstractmethod
    def chips(self) -> int:
        """Coins that take part for one gram."""

    @abstractmethod
    def scores(self, digests: Bytes2) -> Int64:
        """Each gram's part of T, of mean <= 0 under H0.  # (grams, bytes) -> (grams,)"""

    @abstractmethod
    def tail(self, total: int, count: int) -> stats.Tail:
        """P(T >= total) of so many distinct grams under H0."""

    @abstractmethod
    def marked(self, values: Float64, digests: Bytes2, taken: npt.NDArray[np.bool_]) -> Float64:
        """The logits to sample by instead of these; taken: tokens that would count for nothing.  # all (tokens,)"""

    @property
    @abstractmethod
    def scored(self) -> tuple[str | int, ...]:
        """What the detector's verdict depends on, for the spec hash."""


def _check(bounds: Mapping[str, tuple[Any, Any, Any]]) -> None:
    for name, (value, low, high) in bounds.items():
        if not low <= value <= high:
            raise SpecError(f"{name} = {value} is outside {low} .. {high}")


@dataclass(frozen=True)
class GreenList(Profile):
    """KGW, and Unigram with context_width 0. T = sum over grams of (1 - gamma if green, else -gamma), in units of
    1 / gamma's denominator: sum_q2 is its variance, the law binomial."""

    greenlist_ratio: Fraction = Fraction(1, 4)  # gamma
    bias: float = 2.0  # added to the logits of green tokens at the sampling temperature
    context_width: int = 1
    top_k: int = 50  # candidates that get a bias; the sampler's own top_k should not be larger
    temperature: float = 1.0  # of the sampler: it divides our bias as well, so it is multiplied in

    def __post_init__(self) -> None:
        if not isinstance(self.greenlist_ratio, Fraction):
            raise SpecError(f"greenlist_ratio is a Fraction, exactly; given {self.greenlist_ratio!r}")
        _check(
            {
                "greenlist_ratio": (self.greenlist_ratio, Fraction(1, 1000), Fraction(999, 1000)),
                "its denominator": (self.greenlist_ratio.denominator, 2, 1000),
                "bias": (self.bias, 0.0, 20.0),
                "context_width": (self.context_width, 0, 16),
                "top_k": (self.top_k, 2, 1024),
                "temperature": (self.temperature, 1e-3, 10.0),
            }
        )

    @classmethod
    def of(cls, config: Any, *, top_k: int = 50, temperature: float = 1.0) -> GreenList:
        """With the parameters of transformers' WatermarkingConfig. Raises SpecError on its "selfhash" scheme."""
        if config.seeding_scheme != "lefthash":
            raise SpecError(f'seeding_scheme {config.seeding_scheme!r} is not offered; use "lefthash"')
        ratio = Fraction(str(config.greenlist_ratio))
        return cls(ratio, config.bias, config.context_width, top_k, temperature)

    @property
    def name(self) -> str:
        """kgw or unigram."""
        return "kgw" if self.context_width else "unigram"

    @property
    def context(self) -> int:
        """Preceding tokens hashed with each token."""
        return self.context_width

    @property
    def bits(self) -> int:
        """Of one uniform integer."""
        return _GREEN_BITS

    @property
    def null(self) -> str:
        """Unigram's holds over the draw of the key, not over texts."""
        if self.context_width:
            return (
                "the text was made without this key: each distinct pair of context and token is green with chance "
                f"{self.greenlist_ratio}, independently"
            )
        return (
            "the text was made without this key: each distinct token is green with chance "
            f"{self.greenlist_ratio}, independently, over the draw of the key. The list is the same for every text: "
            "under one key, texts with the same words are flagged together, so p speaks of one text and not of the "
            "share of texts that an unlucky key would flag"
        )

    @property
    def variance(self) -> int:
        """Of one gram, in units of 1 / denominator^2."""
        return self.greenlist_ratio.numerator * (
            self.greenlist_ratio.denominator - self.greenlist_ratio.numerator
        )

    @property
    def chips(self) -> int:
        """One coin a gram."""
        return 1

    def _green(self, digests: Bytes2) -> Int64:
        # at most gamma of all values, so that the law at gamma is never too small
        limit = (self.greenlist_ratio.numerator << _GREEN_BITS) // self.greenlist_ratio.denominator
        return (np.ascontiguousarray(digests).view("<u8")[:, 0] < np.uint64(limit)).astype(np.int64)

    def scores(self, digests: Bytes2) -> Int64:
        """Each gram's part of T.  # (grams, bytes) -> (grams,)"""
        return self._green(digests) * self.greenlist_ratio.denominator - self.greenlist_ratio.numerator

    def tail(self, total: int, count: int) -> stats.Tail:
        """Binomial."""
        matches = (total + count * self.greenlist_ratio.numerator) // self.greenlist_ratio.denominator
        return stats.binomial_tail(matches, count, self.greenlist_ratio)

    def marked(self, values: Float64, digests: Bytes2, taken: npt.NDArray[np.bool_]) -> Float64:
        """The bias on green tokens; those that already count, frequent words in Unigram, keep their chance."""
        return biased(values, self._green(digests) * (self.bias * self.temperature), taken, self.temperature)

    @property
    def scored(self) -> tuple[str | int, ...]:
        """Without bias, top_k and temperature."""
        return f"{self.name}-1", str(self.greenlist_ratio), self.context_width


@dataclass(frozen=True)
class Tournament(Profile):
    """Tournament sampling with g in {0, 1}. T = sum over grams and layers of weight * (2 g - 1).

    Early layers tell more: what a layer moves is (1 - sum_x p(x)^2) / 2 of the distribution that it finds, and each
    leaves less of it. Weights 2 on the first half and 1 on the rest come near the best real ones where the drift falls
    slowly over the layers, and only two sizes keep the exact law of T quick (stats.sign_counts_tail).
    The sampler must use this temperature and top_k, and nothing that cuts the distribution further: all tokens but
    the top k get probability 0.
    """

    ngram_len: int = 5  # tokens of a gram, the sampled one included
    layers: int = 30
    top_k: int = 50
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check(
            {
                "ngram_len": (self.ngram_len, 2, 17),
                "layers": (self.layers, 1, 256),
                "top_k": (self.top_k, 2, 1024),
                "temperature": (self.temperature, 1e-3, 10.0),
            }
        )

    @classmethod
    def of(cls, config: Any, *, top_k: int = 50, temperature: float = 1.0) -> Tournament:
        """With the parameters of transformers' SynthIDTextWatermarkingConfig: a layer for each of its keys."""
        return cls(config.ngram_len, len(config.keys), top_k, temperature)

    @property
    def name(self) -> str:
        """tournament."""
        return "tournament"

    @property
    def context(self) -> int:
        """Preceding tokens hashed with each token."""
        return self.ngram_len - 1

    @property
    def bits(self) -> int:
        """One a layer."""
        return self.layers

    @property
    def null(self) -> str:
        """H0 in words."""
        return "the text was made without this key: each layer's bit of each distinct (context, token) is a fair coin"

    @property
    def _first(self) -> int:
        return (self.layers + 1) // 2  # layers of the top weight

    @property
    def variance(self) -> int:
        """Sum of squared weights."""
        return self._first * _TOP_WEIGHT**2 + self.layers - self._first

    @property
    def chips(self) -> int:
        """A coin a layer."""
        return self.layers

    def scores(self, digests: Bytes2) -> Int64:
        """Each gram's part of T.  # (grams, bytes) -> (grams,)"""
        bits = np.unpackbits(digests, axis=1, count=self.layers)  # (grams, layers)
        first, rest = (half.sum(axis=1, dtype=np.int64) for half in np.split(bits, [self._first], axis=1))
        total: Int64 = 2 * (_TOP_WEIGHT * first + rest) - (
            _TOP_WEIGHT * self._first + self.layers - self._first
        )
        return total

    def tail(self, total: int, count: int) -> stats.Tail:
        """Two sizes of fair signs."""
        return stats.sign_counts_tail(
            {_TOP_WEIGHT: count * self._first, 1: count * (self.layers - self._first)}, total
        )

    def marked(self, values: Float64, digests: Bytes2, taken: npt.NDArray[np.bool_]) -> Float64:
        """Layer by layer."""
        p = np.exp((values - values.max()) / self.temperature)
        p /= p.sum()
        odds = np.ones_like(p)  # of each token's new probability over its old one
        for g in np.unpackbits(digests, axis=1, count=self.layers).T.astype(np.float64):  # (tokens,)
            step = np.maximum(1 + g - p @ g, 0)
            p *= step
            odds *= step
        with np.errstate(divide="ignore"):
            marked: Float64 = values + self.temperature * np.log(odds)
        return marked

    @property
    def scored(self) -> tuple[str | int, ...]:
        """Without top_k and temperature."""
        return "tournament-1", self.ngram_len, self.layers, _TOP_WEIGHT


KGW: Final = GreenList()
UNIGRAM: Final = GreenList(Fraction(1, 2), 2.0, 0)
TOURNAMENT: Final = Tournament()


@dataclass(frozen=True, repr=False)
class ZeroBit:
    """A profile under one model key."""

    key: bytes
    config: Profile = TOURNAMENT
    tokenizer_hash: str = NO_TOKENIZER  # hex, see text_stream.tokenizer_hash; in the spec hash

    def __post_init__(self) -> None:
        prf.check_key(self.key)
        check_tokenizer_hash(self.tokenizer_hash)

    @property
    def method(self) -> str:
        """Name in Detection."""
        return f"{self.config.name}-1"

    @cached_property
    def draws(self) -> Draws:
        """Bits for each (context, token)."""
        return Draws(prf.derive_key(self.key, f"{self.config.name} lists"), self.config.bits)

    def spec_hash(self) -> bytes:
        """SHA-256 of everything the detector's verdict depends on besides the key and the text."""
        return spec_hash(*self.config.scored, tokenizer=self.tokenizer_hash)

    @property
    def kit_key(self) -> bytes:
        """Key of Detection.digest."""
        return prf.derive_key(self.key, f"{self.config.name} digest")

    def processor(self) -> Processor:
        """A logits processor for one call of transformers' generate(logits_processor=[...])."""
        return Processor(lambda _: self.writer())

    def writer(self) -> ZeroBitWriter:
        """A function of (ids generated so far, logits of one row) that gives new logits, for servers."""
        kind = TournamentWriter if isinstance(self.config, Tournament) else ZeroBitWriter
        return kind(self)

    def detect(self, token_ids: Sequence[int]) -> Detection:
        """Whether one text was made with the key; see detect_case."""
        return self.detect_case([token_ids])

    def detect_case(self, texts: Sequence[Sequence[int]], *, models: int = 1) -> Detection:
        """Whether these texts were, taken together, all committed before detection.

        Every (context, token) counts once. Windows of 256 and more tokens are tried after the whole; all are
        counted, and the span of the best is given, in tokens, the texts counted on.
        models: how many keys and profiles are tried on these texts.
        Raises SpecError on ids out of range, or too many tokens.
        """
        found = grams(texts, self.config.context + 1)
        scores = self.config.scores(self.draws.of_grams(found.distinct))  # (grams,)
        best, n, chosen = 0, len(found.distinct), found.windows[0]
        counts, totals = found.sums(scores[:, None])
        for window, count, total in zip(found.windows, counts, totals[:, 0].tolist(), strict=True):
            # the window of the largest T^2 / n; any choice is fair, since all of them count
            if total > 0 and (best <= 0 or total * total * n > best * best * count):
                best, n, chosen = total, count, window
        if best <= 0:
            best = int(scores.sum())
        return detection(
            self.config.tail(best, n),
            method=self.method,
            n=n * self.config.chips,
            T=best,
            sum_q2=n * self.config.variance,
            hypotheses=stats.hypotheses(models=models, windows=len(found.windows)),
            threshold=stats.TRACE,
            null=self.config.null,
            spec_hash=self.spec_hash(),
            spans=(found.span(chosen),),
        )

    def detect_text(self, text: str, tokenizer: Tokenizer) -> Detection:
        """Whether a text as found was: canonical form, then the tokenizer of the model.

        Raises CarrierError on what is no text, or over 4 Mi characters.
        """
        return self.detect(tokenizer.encode(canonical_text(text), add_special_tokens=False))


class ZeroBitWriter(Writer):
    """One text in the making: no bias for what already counts."""

    def __init__(self, mark: ZeroBit) -> None:
        self._mark = mark
        super().__init__(mark.config.context, mark.config.top_k)

    def _marked(self, context: tuple[int, ...], tokens: Sequence[int], values: Float64) -> Float64:
        digests = self._mark.draws.of_tokens(context, tokens)
        return self._mark.config.marked(values, digests, self._taken_of(context, tokens))


class TournamentWriter(ZeroBitWriter):
    """One text in the making by tournaments: none in a context that had one."""

    exclusive = True

    def _marked(self, context: tuple[int, ...], tokens: Sequence[int], values: Float64) -> Float64:
        return values if context in self._taken else super()._marked(context, tokens, values)
