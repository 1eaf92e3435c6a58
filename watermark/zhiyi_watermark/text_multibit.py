"""BIN+: a 32-bit (or 64-bit) message in generated text, voted by every token.

Class of method: multi-bit by per-token pseudorandom votes with a balanced bias (binary-vote marks after
Kirchenbauer et al. 2023 and its multi-bit followers), plus: stateful weights rho, a MAC-checked BCH payload,
soft decoding. G(context, token) in {0,1}^n is the keyed BLAKE2b of the last h tokens and the token; c the
coded payload, n bits.

Generating: the sampler adds delta * sum_i rho_i (2[G_i = c_i] - 1) / sqrt(n) to the top-k logits; rho, of rms
1, leans towards the bits still lagging with respect to the expected length. Detecting: needs no model. Q_i =
number of votes for 1 minus votes for 0 over distinct (context, token) pairs, all integers; the likeliest
codeword of Q must have the right MAC and name a registered user, and the matches of all chips with that one
codeword give p (hypothesis (a): chips are fair for a text made without the key), times all registered users
and windows tried. A text made with the key for another user is named wrongly only past the MAC: 2^-20.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf, stats
from zhiyi_watermark.errors import CarrierError, SpecError
from zhiyi_watermark.payload import MAX_USER, Long, PayloadCode, Short
from zhiyi_watermark.result import Detection, detection

if TYPE_CHECKING:  # torch is heavy and only the processor's caller needs it
    import torch

METHOD: Final = "binplus-1"
UNICODE: Final = "NFKC without format characters"
MAX_TOKENS: Final = 1 << 20  # of all texts of a case
MAX_CHARACTERS: Final = 1 << 22
MIN_WINDOW: Final = 256  # tokens; shorter windows can't carry 32 bits
NULL: Final = (
    "the text was made without this key: every (context, token) vote is a fair coin; a text made with the key "
    "for another user passes the MAC with 2^-20 (short) or 2^-16 (long) per window"
)

Votes = npt.NDArray[np.int8]


class Tokenizer(Protocol):
    """What detect_text needs of a transformers tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""
        ...


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
        parts = [METHOD, UNICODE, unicodedata.unidata_version, MIN_WINDOW, self.context, self.long]
        limits = [str(stats.TRACE), str(stats.REJECT)]
        return hashlib.sha256(json.dumps([parts, limits]).encode()).digest()


def user_of(payload: bytes) -> int:
    """The API user number in a decoded message of Detection.payload (4 or 8 bytes)."""
    if len(payload) not in (4, 8):
        raise SpecError(f"a message has 4 or 8 bytes, given {len(payload)}")
    return int.from_bytes(payload[-4:-2], "big")


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
    def _hash(self) -> Any:
        size = (self.code.bits + 7) // 8
        return hashlib.blake2b(key=prf.derive_key(self.key, "binplus votes"), digest_size=size)

    @property
    def kit_key(self) -> bytes:
        """Key of Detection.digest."""
        return prf.derive_key(self.key, "binplus digest")

    def votes(self, context: Sequence[int], tokens: Iterable[int]) -> Votes:
        """2 G(context, token) - 1 for each token; context: the `config.context` ids before it.  # (tokens,
        bits)"""
        head = self._hash.copy()
        head.update(np.asarray(context, dtype="<u4").tobytes())
        digests = []
        for token in tokens:
            state = head.copy()
            state.update(int(token).to_bytes(4, "little"))
            digests.append(state.digest())
        return self._unpack(digests)

    def _unpack(self, digests: Sequence[bytes]) -> Votes:
        packed = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(digests), -1)
        bits = np.unpackbits(packed, axis=1, count=self.code.bits).view(np.int8)
        return (bits << 1) - np.int8(1)

    def processor(self, payload: Short | Long | Sequence[Short | Long]) -> BinPlusProcessor:
        """A logits processor for one call of transformers' generate(logits_processor=[...]).

        One payload for all rows of the batch, or one a row. Sampling only: no beams.
        """
        return BinPlusProcessor(self, payload)

    def detect(self, token_ids: Sequence[int], users: int | Collection[int]) -> Detection:
        """Whose message is in one text. users: the registered user numbers, or how many (then 0 ..
        users-1)."""
        return self.detect_case([token_ids], users)

    def detect_case(self, texts: Sequence[Sequence[int]], users: int | Collection[int]) -> Detection:
        """Whose message is in these texts together, all committed before detection.

        Every (context, token) pair counts once over all texts. Windows of 256 and more tokens, half
        overlapping, are tried after the whole; all are counted from the start. Spans are in distinct pairs,
        in order of occurrence.
        Raises SpecError on ids or user numbers out of range, or too many tokens.
        """
        registered = range(users) if isinstance(users, int) else frozenset(users)
        if not registered or min(registered) < 0 or max(registered) > MAX_USER:
            raise SpecError(f"user numbers must lie in 0 .. {MAX_USER} and at least one must be registered")
        votes = self._distinct_votes(texts)
        running = np.zeros((len(votes) + 1, self.code.bits), dtype=np.int64)
        np.cumsum(votes, axis=0, out=running[1:])
        spans = windows(len(votes))
        count = stats.hypotheses(licenses=len(registered), windows=len(spans))
        best: tuple[stats.Tail, int, int, bytes, tuple[int, int]] | None = None
        for span in spans:
            scores = running[span[1]] - running[span[0]]
            found = self.code.decode_soft(scores) if scores.any() else None
            if found is None or found.user not in registered:
                continue
            total = int(scores @ (2 * self.code.encode(found).astype(np.int64) - 1))
            n = (span[1] - span[0]) * self.code.bits
            tail = stats.binomial_tail(max(0, (n + total) // 2), n)
            if best is None or tail.beats(best[0]):
                best = (tail, total, n, self.code.message(found), span)
            if tail.at_most(stats.TRACE, count):
                break  # the count stays: stopping early can't lower it
        if best is None:
            n = len(votes) * self.code.bits
            best = (stats.binomial_tail(0, n), 0, n, b"", (0, len(votes)))
        tail, total, n, message, span = best
        named = tail.at_most(stats.TRACE, count)
        return detection(
            tail,
            method=METHOD,
            payload=message if named else None,
            n=n,
            T=total,
            sum_q2=n,
            hypotheses=count,
            threshold=stats.TRACE,
            null=NULL,
            spec_hash=self.config.spec_hash(),
            spans=(span,),
        )

    def detect_text(self, text: str, tokenizer: Tokenizer, users: int | Collection[int]) -> Detection:
        """Whose message is in a text as found: canonical form, then the tokenizer of the model.

        Raises CarrierError on a text over 4 Mi characters.
        """
        return self.detect(tokenizer.encode(canonical_text(text), add_special_tokens=False), users)

    def _distinct_votes(self, texts: Sequence[Sequence[int]]) -> Votes:
        h = self.config.context
        if sum(len(t) for t in texts) > MAX_TOKENS:
            raise SpecError(f"a case has at most {MAX_TOKENS} tokens; split the texts into several cases")
        seen: dict[bytes, None] = {}
        for text in texts:
            try:
                packed = np.asarray(text, dtype=np.int64)
            except (ValueError, TypeError, OverflowError) as error:
                raise SpecError("token ids must be a flat list of whole numbers") from error
            if packed.ndim != 1 or (
                packed.size and not 0 <= int(packed.min()) <= int(packed.max()) < 1 << 32
            ):
                raise SpecError("token ids must be a flat list of numbers 0 .. 2^32-1")
            raw = packed.astype("<u4").tobytes()
            for i in range(len(text) - h):
                seen[raw[4 * i : 4 * (i + h + 1)]] = None
        digests = []
        for gram in seen:
            state = self._hash.copy()
            state.update(gram)
            digests.append(state.digest())
        return self._unpack(digests) if digests else np.zeros((0, self.code.bits), dtype=np.int8)


def canonical_text(text: str) -> str:
    """NFKC without format characters (zero-width and the like), line ends as \\n."""
    if len(text) > MAX_CHARACTERS:
        raise CarrierError(f"the text has {len(text)} characters, at most {MAX_CHARACTERS} are examined")
    folded = unicodedata.normalize("NFKC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return "".join(c for c in folded if unicodedata.category(c) != "Cf")


def windows(n: int) -> list[tuple[int, int]]:
    """The whole, then dyadic windows of MIN_WINDOW * 2^k < n in steps of half their length, largest first."""
    out = [(0, n)]
    size = MIN_WINDOW
    sizes = []
    while size < n:
        sizes.append(size)
        size *= 2
    for size in reversed(sizes):
        starts = [*range(0, n - size, size // 2), n - size]
        out += [(a, a + size) for a in starts]
    return out


class BinPlusProcessor:
    """Adds the mark's bias to the logits of one generate() call, row by row; keeps the votes it has won.

    Made by BinPlus.processor. The bias is computed for the top-k tokens only and is zero for pairs already
    counted and for the first `context` tokens, whose context lies in the prompt, which a detector never sees.
    """

    def __init__(self, mark: BinPlus, payload: Short | Long | Sequence[Short | Long]) -> None:
        self.mark = mark
        single = isinstance(payload, Short | Long)
        given = [payload] if isinstance(payload, Short | Long) else list(payload)
        self._shared = single
        self._codes = [2 * mark.code.encode(p).astype(np.int8) - np.int8(1) for p in given]  # ±1, (bits,)
        self._prompt = self._length = -1
        self._rows: list[_Row] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """New scores; the caller's are left as they are. input_ids: (batch, length), scores: (batch,
        vocabulary)"""
        batch, length = input_ids.shape
        self._start_or_continue(batch, length)
        h = self.mark.config.context
        generated = input_ids[:, max(self._prompt, length - h - 1) :].tolist()
        k = min(self.mark.config.top_k, scores.shape[-1])
        out = scores.clone()
        if length - self._prompt < h:
            return out
        values, tokens = scores.topk(k, dim=-1)
        for row, state in enumerate(self._rows):
            recent = generated[row]
            if len(recent) > h:
                state.won(tuple(recent[-h - 1 :]), self.mark)
            bias = state.bias(recent[-h:], tokens[row].tolist(), self.mark, length - self._prompt)
            out[row, tokens[row]] = values[row] + values.new_tensor(bias)
        return out

    def _start_or_continue(self, batch: int, length: int) -> None:
        if self._length < 0:
            if not self._shared and batch != len(self._codes):
                raise SpecError(f"{len(self._codes)} payloads were given for a batch of {batch} rows")
            self._prompt = length
            self._rows = [_Row(self._codes[0 if self._shared else i]) for i in range(batch)]
        elif length != self._length + 1 or batch != len(self._rows):
            raise SpecError(
                "a processor serves one generate() call with sampling; make a new one for each call"
            )
        self._length = length


class _Row:
    """One text in the making: votes won per bit, and the pairs that have been counted."""

    def __init__(self, code: Votes) -> None:
        self.code = code
        self.margin = np.zeros(len(code), dtype=np.int64)
        self.seen: set[tuple[int, ...]] = set()

    def won(self, gram: tuple[int, ...], mark: BinPlus) -> None:
        """Counts the votes of a token that was sampled, once a pair."""
        if gram not in self.seen:
            self.seen.add(gram)
            self.margin += mark.votes(gram[:-1], gram[-1:])[0] * self.code

    def bias(self, context: list[int], tokens: list[int], mark: BinPlus, done: int) -> list[float]:
        """What to add to the logits of these tokens.  # (tokens,)"""
        config = mark.config
        rho = weights(self.margin, done, config.horizon)
        match = mark.votes(context, tokens) * self.code  # (tokens, bits), ±1
        raw = match @ rho * (config.delta * config.temperature / math.sqrt(len(self.code)))
        head = tuple(context)
        return [0.0 if (*head, t) in self.seen else b for t, b in zip(tokens, raw.tolist(), strict=True)]


def weights(margin: npt.NDArray[np.int64], done: int, horizon: int) -> npt.NDArray[np.float64]:
    """rho, rms 1: how much each bit's next vote is worth, by the odds that it ends on the wrong side.

    With r votes to come of drift mu, the bit's final margin is about margin + r mu with deviation sqrt(r);
    the weight is the square root of the slope of the log of the logistic stand-in for P(right). The slope
    itself evens the bits out further but costs votes in all, and with them p: of simulated texts of 250 tokens
    at T = .7 it named .51, its root .76.
    """
    left = max(horizon - done, horizon / 8, 8)
    x = (margin + _DRIFT * left) / math.sqrt(left)
    rho = 1 / np.sqrt(1 + np.exp(np.clip(1.7 * x, -30, 30)))
    return np.asarray(rho / math.sqrt(float((rho * rho).mean())))


_DRIFT: Final = 0.06  # votes a token by which a bit's margin grows at delta = .8 [measured on SmolLM2]
