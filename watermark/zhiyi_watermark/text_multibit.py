"""BIN+: a 32-bit (or 64-bit) message in generated text, voted by every token.

Class of method: multi-bit by per-token pseudorandom votes with a balanced bias (binary-vote marks after
Kirchenbauer et al. 2023 and its multi-bit followers), plus: stateful weights rho, a MAC-checked BCH payload,
soft decoding. G(context, token) in {0,1}^n is the keyed BLAKE2b of the last h tokens and the token; c the
coded payload, n bits.

Generating: the sampler adds delta * sum_i rho_i (2[G_i = c_i] - 1) / sqrt(n) to the top-k logits; rho, of rms
1, leans towards the bits still lagging with respect to the expected length. Detecting: needs no model. Q_i =
number of votes for 1 minus votes for 0 over distinct (context, token) pairs, all integers; the likeliest
codeword of Q must have the right MAC and name a registered user.

A name can be wrong in two ways, and p_global is the sum of both:
- The text was made without the key. Chips are fair, and the matches of all of them with the codeword give p
  (hypothesis (a) of stats), times every message that could be named (registered users, and with 64 bits the
  fingerprint numbers too), every window and every key tried.
- It was made with the key, for others, perhaps for many in one text. Then chips are not fair, and only the check value
  tells. Words and windows depend on the texts' own messages, never on the check value of one who wrote none of it: that
  is right with 2^-20 for a word (32 bits; 2^-16 with 64), whatever was mixed or pooled. Times the chance that any word
  of the code comes so near to the votes (stats.wrong_word), which bounds how much of the word was corrected; times
  the words, those of the whole and of the 15 windows with the largest sums of Q^2 for their votes, as many as there
  are, decoded or not: the whole pays 2, each of k others 2 k; times the keys tried.
A text of one window, 32 bits and one key is safe by the check value alone, under 10^-6; otherwise the second factor has
to make up for it: at most 2^-1 of the whole, 2^-5 of one of 15 windows (2^-5 and 2^-9 with 64 bits).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf, stats
from zhiyi_watermark.errors import SpecError
from zhiyi_watermark.payload import MAX_FINGERPRINT, Long, Nameable, PayloadCode, Short
from zhiyi_watermark.result import Detection, detection
from zhiyi_watermark.text_stream import (
    MAX_TOKENS,
    NO_TOKENIZER,
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

METHOD: Final = "binplus-2"
NULL: Final = (
    "the user named wrote none of it: either the text was made without this key, and every (context, token) vote is a "
    "fair coin, or with it for others, and the check value of one word fits by chance, 2^-20 (32 bits) or 2^-16 (64)"
)

MOST_DECODED: Final = 16  # windows of a case, the whole included

Votes = npt.NDArray[np.int8]


@dataclass(frozen=True)
class BinPlusConfig:
    """Strength and shape of the mark; only context and long concern the detector."""

    delta: float = 0.8  # added to log-probabilities at the sampling temperature, rms over tokens
    context: int = 2  # preceding tokens hashed with each token
    top_k: int = 50  # candidates that get votes; the sampler's own top_k should not be larger
    temperature: float = 1.0  # of the sampler: it divides our bias as well, so it is multiplied in
    horizon: int = 400  # expected length in tokens
    long: bool = False  # 64 bits in BCH(127,64), from 800 tokens; else 32 in BCH(63,36)

    def __post_init__(self) -> None:
        bounds = {
            "delta": (self.delta, 0.0, 20.0),
            "context": (self.context, 1, 16),
            "top_k": (self.top_k, 2, 1024),
            "temperature": (self.temperature, 1e-3, 10.0),
            "horizon": (self.horizon, 16, MAX_TOKENS),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise SpecError(f"{name} = {value} is outside {low} .. {high}")


@dataclass(frozen=True, repr=False)
class BinPlus:
    """The mark under one model key."""

    key: bytes
    config: BinPlusConfig = BinPlusConfig()
    tokenizer_hash: str = NO_TOKENIZER  # hex, see text_stream.tokenizer_hash; in the spec hash

    def __post_init__(self) -> None:
        prf.check_key(self.key)
        check_tokenizer_hash(self.tokenizer_hash)

    @cached_property
    def code(self) -> PayloadCode:
        """Messages to coded bits."""
        return PayloadCode(prf.derive_key(self.key, "binplus payload"), self.config.long)

    @cached_property
    def draws(self) -> Draws:
        """G: one vote a coded bit for each (context, token)."""
        return Draws(prf.derive_key(self.key, "binplus votes"), self.code.bits)

    def spec_hash(self) -> bytes:
        """SHA-256 of everything the detector's verdict depends on besides the key and the text."""
        return spec_hash(
            METHOD, self.config.context, self.config.long, MOST_DECODED, tokenizer=self.tokenizer_hash
        )

    @property
    def kit_key(self) -> bytes:
        """Key of Detection.digest."""
        return prf.derive_key(self.key, "binplus digest")

    def processor(self, payload: Short | Long | Sequence[Short | Long]) -> Processor:
        """A logits processor for one call of transformers' generate(logits_processor=[...]).

        One payload for all rows of the batch, or one a row.
        """
        if isinstance(payload, Short | Long):
            return Processor(lambda _: BinPlusWriter(self, payload))
        each = list(payload)
        return Processor(lambda row: BinPlusWriter(self, each[row]), len(each))

    def writer(self, payload: Short | Long) -> BinPlusWriter:
        """A function of (ids generated so far, logits of one row) that gives new logits, for servers."""
        return BinPlusWriter(self, payload)

    def detect(
        self,
        token_ids: Sequence[int],
        users: int | Collection[int],
        fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
    ) -> Detection:
        """Whose message is in one text; see detect_case."""
        return self.detect_case([token_ids], users, fingerprints)

    def detect_case(
        self,
        texts: Sequence[Sequence[int]],
        users: int | Collection[int],
        fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
        *,
        models: int = 1,
    ) -> Detection:
        """Whose message is in these texts together, all committed before detection.

        users: the registered user numbers, or how many (then 0 .. users-1); fingerprints: the same for the
        license's number in a long message, all 2^28 unless given; models: how many keys are tried on these texts.
        Every message that could be named counts.
        Every (context, token) pair counts once over all texts. Windows of 256 and more tokens are tried after
        the whole, the 15 with the most uneven votes; all are counted from the start and the span of the best is given,
        in tokens, the texts counted on. A payload is given only where p_global <= 1e-6.
        Raises SpecError on ids, user or fingerprint numbers out of range, or too many tokens.
        """
        known = Nameable.of(users, fingerprints, long=self.config.long)
        found = grams(texts, self.config.context + 1)
        votes = self.draws.signs(self.draws.of_grams(found.distinct))  # (grams, bits)
        count = stats.hypotheses(models=models, licenses=known.count, windows=len(found.windows))
        counts, sums = found.sums(votes)  # of a window: grams; votes for 1 minus votes for 0
        decoded = loudest(counts, sums)
        best = _Word(stats.binomial_tail(0, 0), Fraction(0), 0, len(found.distinct) * self.code.bits, None, 0)
        for window in decoded:
            scores, n = sums[window], counts[window] * self.code.bits
            most = int(np.abs(scores).sum())  # T of the best of all words
            if most * most * best.n <= best.total * best.total * n:
                continue
            if window and not stats.bound_reaches(most, n, _least_bits(count, n)):
                continue
            message = self.code.decode_soft(scores)
            if message is None or message not in known:
                continue
            word = self.code.signs(message)
            wrong = self.code.wrong_word(scores, word)
            total = int(scores @ word)
            made = _Word(
                stats.binomial_tail((n + total) // 2, n),
                models * _words(window, len(decoded)) * wrong,
                total,
                n,
                message,
                window,
            )
            if best.message is None or made.wrong_name(count) < best.wrong_name(count):
                best = made
        named = best.message is not None and best.tail.at_most(stats.TRACE, count, best.besides)
        return detection(
            best.tail,
            method=METHOD,
            payload=self.code.message(best.message) if best.message is not None and named else None,
            n=best.n,
            T=best.total,
            sum_q2=best.n,
            hypotheses=count,
            besides=best.besides,
            threshold=stats.TRACE,
            null=NULL,
            spec_hash=self.spec_hash(),
            spans=(found.span(found.windows[best.window]),),
        )

    def detect_text(
        self,
        text: str,
        tokenizer: Tokenizer,
        users: int | Collection[int],
        fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
    ) -> Detection:
        """Whose message is in a text as found: canonical form, then the tokenizer of the model.

        Raises CarrierError on what is no text, or over 4 Mi characters.
        """
        return self.detect(
            tokenizer.encode(canonical_text(text), add_special_tokens=False), users, fingerprints
        )


class _Word(NamedTuple):
    """A registered message that a window's votes were decoded to."""

    tail: stats.Tail  # of its chips, where the text was made without the key
    besides: Fraction  # chance of a wrong name where it was made with the key
    total: int
    n: int
    message: Short | Long | None  # None where there is none
    window: int

    def wrong_name(self, count: int) -> Fraction:
        """p_global, without limit to 1."""
        return count * (self.tail.p or Fraction(1)) + self.besides


def loudest(counts: Sequence[int], sums: Int64) -> list[int]:
    """The windows to decode: the whole, then those with the largest sums of Q^2 for their votes, 16 in all.

    Without a mark that figure is 1 a bit in the mean, however few the votes; so neither spam nor length draws the
    choice.  # (windows,), (windows, bits) -> up to 16 windows
    """
    energies = (sums * sums).sum(axis=1).tolist()
    others = sorted(range(1, len(counts)), key=lambda i: (-Fraction(energies[i], max(1, counts[i])), i))
    return [0, *others[: MOST_DECODED - 1]]


def _words(window: int, decoded: int) -> int:
    """What a decoded word pays for all of them: the whole has half of the chance of a wrong name, the others share the
    other half."""
    return 1 if decoded == 1 else 2 if window == 0 else 2 * (decoded - 1)


def _least_bits(count: int, n: int) -> int:
    """Bits of Hoeffding's bound that T of n fair coins has at least when count * p <= 1e-6.

    A window without them is not worth decoding. P(T >= t) >= e^(-n D) / sqrt(2 n) (Ash 1965) with n D above
    t^2 / (2 n) by a part in 600 while t < n / 10; one bit is left for that.
    """
    return count.bit_length() + 17 - (n.bit_length() + 2) // 2


class BinPlusWriter(Writer):
    """Adds the mark's bias to the logits of one text; keeps the votes it has won.

    Pairs that were counted before become neither likelier nor rarer. Tokens outside the top-k keep their logits.
    """

    def __init__(self, mark: BinPlus, payload: Short | Long) -> None:
        config = mark.config
        self._draws, self._horizon = mark.draws, config.horizon
        self._code = mark.code.signs(payload)
        self._temperature = config.temperature
        self._scale = config.delta * config.temperature / math.sqrt(len(self._code))
        super().__init__(config.context, config.top_k)

    def _start(self) -> None:
        super()._start()
        self._margin = np.zeros(len(self._code), dtype=np.int64)

    def _votes(self, context: tuple[int, ...], tokens: Sequence[int]) -> Votes:
        return self._draws.signs(self._draws.of_tokens(context, tokens))

    def _counts(self, context: tuple[int, ...], token: int) -> None:
        self._margin += self._votes(context, [token])[0] * self._code

    def _marked(self, context: tuple[int, ...], tokens: Sequence[int], values: Float64) -> Float64:
        rho = weights(self._margin, len(self._text), self._horizon)
        bias = self._votes(context, tokens) @ (self._code * rho * self._scale)
        return biased(values, bias, self._taken_of(context, tokens), self._temperature)


def weights(margin: npt.NDArray[np.int64], done: int, horizon: int) -> npt.NDArray[np.float64]:
    """rho, rms 1: how much each bit's next vote is worth, by the odds that it ends on the wrong side.

    With r votes to come of drift mu, the bit's final margin is about margin + r mu with deviation sqrt(r);
    the weight is the square root of the slope of the log of the logistic stand-in for P(right). The slope
    itself evens the bits out further but costs votes in all, and with them p.
    """
    left = max(horizon - done, horizon / 8, 8)
    x = (margin + _DRIFT * left) / math.sqrt(left)
    rho = 1 / np.sqrt(1 + np.exp(np.clip(1.7 * x, -30, 30)))
    return np.asarray(rho / math.sqrt(float((rho * rho).mean())))


_DRIFT: Final = (
    0.06  # votes a token by which a bit's margin is taken to grow; a guess costs evenness, not rightness
)
