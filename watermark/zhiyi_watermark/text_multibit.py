"""BIN+: a 32-bit (or 64-bit) message in generated text, voted by every token.

Class of method: multi-bit by per-token pseudorandom votes with a balanced bias (binary-vote marks after
Kirchenbauer et al. 2023 and its multi-bit followers), plus: stateful weights rho, a MAC-checked BCH payload,
soft decoding. G(context, token) in {0,1}^n is the keyed BLAKE2b of the last h tokens and the token; c the
coded payload, n bits.

Generating: the sampler adds delta * sum_i rho_i (2[G_i = c_i] - 1) / sqrt(n) to the top-k logits; rho, of rms
1, leans towards the bits still lagging with respect to the expected length. Detecting: needs no model. Q_i =
number of votes for 1 minus votes for 0 over distinct (context, token) pairs, all integers; the likeliest
codeword of Q must have the right MAC and name a registered user, and the matches of all chips with that one
codeword give p (hypothesis (a): chips are fair for a text made without the key), times all messages that
could be named (registered users, and with 64 bits the fingerprint numbers too) and windows tried. A text made
with the key for another user is named wrongly only past the MAC: 2^-20.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf, stats
from zhiyi_watermark.errors import SpecError
from zhiyi_watermark.payload import MAX_FINGERPRINT, MAX_USER, Long, PayloadCode, Short
from zhiyi_watermark.result import Detection, detection
from zhiyi_watermark.text_stream import (
    MAX_TOKENS,
    Draws,
    Float64,
    Processor,
    Tokenizer,
    Writer,
    biased,
    canonical_text,
    grams,
    spec_hash,
)

METHOD: Final = "binplus-1"
NULL: Final = (
    "the text was made without this key: every (context, token) vote is a fair coin; a text made with the key "
    "for another user passes the MAC with 2^-20 (short) or 2^-16 (long) per window"
)

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

    def spec_hash(self) -> bytes:
        """SHA-256 of everything the detector's verdict depends on besides the key and the tokens."""
        return spec_hash(METHOD, self.context, self.long)


def user_of(payload: bytes) -> int:
    """The API user number in a decoded message of Detection.payload (4 or 8 bytes)."""
    if len(payload) not in (4, 8):
        raise SpecError(f"a message has 4 or 8 bytes, given {len(payload)}")
    return int.from_bytes(payload[-4:-2], "big")


def fingerprint_of(payload: bytes) -> int:
    """The fingerprint number of the license, of this model, in a decoded long message (8 bytes)."""
    if len(payload) != 8:
        raise SpecError(f"only a long message, of 8 bytes, has a fingerprint number; given {len(payload)}")
    return int.from_bytes(payload[:6], "big") >> 16 & MAX_FINGERPRINT


@dataclass(frozen=True, repr=False)
class BinPlus:
    """The mark under one model key."""

    key: bytes
    config: BinPlusConfig = BinPlusConfig()

    def __post_init__(self) -> None:
        prf.check_key(self.key)

    @cached_property
    def code(self) -> PayloadCode:
        """Messages to coded bits."""
        return PayloadCode(prf.derive_key(self.key, "binplus payload"), self.config.long)

    @cached_property
    def draws(self) -> Draws:
        """G: one vote a coded bit for each (context, token)."""
        return Draws(prf.derive_key(self.key, "binplus votes"), self.code.bits)

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
        the whole; all are counted from the start and the span of the best is given, in tokens, the texts counted
        on. A payload is given only where p_global <= 1e-6.
        Raises SpecError on ids, user or fingerprint numbers out of range, or too many tokens.
        """
        known = _registered(users, MAX_USER, "user")
        licensed = _registered(fingerprints, MAX_FINGERPRINT, "fingerprint") if self.config.long else range(1)
        found = grams(texts, self.config.context + 1)
        votes = self.draws.signs(self.draws.of_grams(found.distinct))  # (grams, bits)
        count = stats.hypotheses(
            models=models, licenses=len(known) * len(licensed), windows=len(found.windows)
        )
        best: tuple[int, int, bytes, tuple[int, int]] | None = None
        whole = found.windows[0]
        for window in found.windows:
            rows = found.within(window)
            n = len(rows) * self.code.bits
            scores = votes[rows].sum(axis=0, dtype=np.int64)  # votes for 1 minus votes for 0
            most = int(np.abs(scores).sum())  # T of the best of all words
            if best is not None and most * most * best[1] <= best[0] * best[0] * n:
                continue
            if window != whole and not stats.bound_reaches(most, n, _least_bits(count, n)):
                continue
            message = self.code.decode_soft(scores)
            if message is None or message.user not in known:
                continue
            if isinstance(message, Long) and message.fingerprint not in licensed:
                continue
            total = int(scores @ (2 * self.code.encode(message).astype(np.int64) - 1))
            # the window of the largest T^2 / n; any choice is fair, since all of them count
            if total > 0 and (best is None or total * total * best[1] > best[0] * best[0] * n):
                best = (total, n, self.code.message(message), window)
        total, n, payload, window = best or (0, len(found.distinct) * self.code.bits, b"", whole)
        tail = stats.binomial_tail((n + total) // 2, n)
        named = tail.at_most(stats.TRACE, count)
        return detection(
            tail,
            method=METHOD,
            payload=payload if named else None,
            n=n,
            T=total,
            sum_q2=n,
            hypotheses=count,
            threshold=stats.TRACE,
            null=NULL,
            spec_hash=self.config.spec_hash(),
            spans=(found.span(window),),
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


def _registered(numbers: int | Collection[int], largest: int, what: str) -> range | frozenset[int]:
    known: range | frozenset[int]
    if isinstance(numbers, int):
        known, low, high = range(numbers), 0, numbers - 1
    else:
        known = frozenset(numbers)
        low, high = min(known, default=0), max(known, default=-1)
    if not known or low < 0 or high > largest:
        raise SpecError(f"{what} numbers must lie in 0 .. {largest} and at least one must be registered")
    return known


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
        self._code = 2 * mark.code.encode(payload).astype(np.int8) - np.int8(1)  # ±1, (bits,)
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
