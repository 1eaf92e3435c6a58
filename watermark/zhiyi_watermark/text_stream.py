"""What the text marks share: canonical text, pairs of context and token, windows, keyed draws, and the processor.

A mark draws keyed bits for a gram, that is the last h tokens (the context) and the next one. While generating,
each text in the making has a Writer, which changes the logits of the surviving top-k tokens; Processor holds one
for each row of a transformers batch, and a server that samples row by row calls the Writer itself. Detecting,
texts become Grams: every place with the gram that is there, so that a window counts each gram once.

The draws are BLAKE2b of the key, the context and the token: integers alone, so the same on every machine and
device, whatever the precision of the model.

Look-alike letters are those of Unicode Technical Standard #39 (confusables.txt), Cyrillic and Greek ones that are
listed with one letter of ASCII.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import stats
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError

if TYPE_CHECKING:  # torch is heavy and only the processor's caller needs it
    import torch

CANONICAL: Final = 2  # version of canonical_text and its tables
NO_TOKENIZER: Final = "0" * 64  # in place of a tokenizer's hash, where token ids are all there is
MAX_TOKENS: Final = 1 << 20  # of all texts of a case
MAX_CHARACTERS: Final = 1 << 22
MAX_MARKS: Final = 30  # combining characters in a row, as in UAX #15's stream-safe format
MIN_WINDOW: Final = 256  # tokens; shorter windows can't carry 32 bits and would cost more hypotheses

_GREEK: Final = "\u0370-\u03ff\u1f00-\u1fff"
_CYRILLIC: Final = "\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f"
_LATIN: Final = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
_ALIKE: Final = dict(
    zip(
        "аҽсԁеһіꙇӏјоԛгѕѵѡԝхуүЬАВСЕԌНІӀЈКМОРЅТѴԜХУҮр" + "αιϳορσυνγΑΒΕϜΗΙͿΚΜϺΝΟΡΤΧΥΖ",
        "aecdehiiijoqrsvwwxyybABCEGHIIJKMOPSTVWXYYp" + "aijopouvyABEFHIJKMMNOPTXYZ",
        strict=True,
    )
)  # of UTS #39 15.1; a capital that it lists with l is an I
_TO_LATIN: Final = str.maketrans(_ALIKE)
_TO_CYRILLIC: Final = str.maketrans(
    {latin: c for c, latin in _ALIKE.items() if "\u0400" <= c < "\u0460" and c != "Ь"}
)
_WORD: Final = re.compile(f"[{_LATIN}{_GREEK}{_CYRILLIC}\u0300-\u036f]+")
_OTHER_SCRIPT: Final = re.compile(f"[{_GREEK}{_CYRILLIC}]")
_CYRILLIC_ALONE: Final = re.compile(
    f"(?![{''.join(_ALIKE)}])[{_CYRILLIC}]"
)  # letters that look like no Latin one
_LATIN_LETTER: Final = re.compile(f"[{_LATIN}]")
_LATIN_ALONE: Final = re.compile(f"(?![{''.join(map(chr, _TO_CYRILLIC))}])[{_LATIN}]")
_GREEK_LETTER: Final = re.compile(f"[{_GREEK}]")
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)  # Default_Ignorable_Code_Point of the UCD, less format characters, which are known by their category
_CONTROLS: Final = {**dict.fromkeys([*range(9), *range(14, 32), *range(0x7F, 0xA0)])} | dict.fromkeys(
    (0x0B, 0x0C, 0x85, 0x2028, 0x2029), "\n"
)

Bytes2 = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Tokenizer(Protocol):
    """What detect_text needs of a transformers tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""
        ...


# --- detecting ----------------------------------------------------------------------------------------------


def canonical_text(text: str) -> str:
    """NFKC without what is invisible, line ends as \\n, and words that mix scripts by look-alikes in one of them.

    Invisible are zero-width and bidirectional characters, soft hyphens, fillers, variation selectors and controls.
    A word of Latin letters and look-alikes of them becomes Latin; one of Cyrillic letters and Latin look-alikes of
    them Cyrillic; others stay. A word of Cyrillic look-alikes alone becomes Latin in a line with Latin letters and
    no Cyrillic ones but look-alikes, so texts in Cyrillic stay as they are.
    Of more than 30 combining characters in a row the rest are dropped: no language needs them, and putting
    them in order takes a time that grows as the square of their number.
    Raises CarrierError on bytes, NUL characters, lone surrogates, and over 4 Mi characters before or after.
    """
    if not isinstance(text, str):
        raise CarrierError(f"a text is a str, given {type(text).__name__}; decode the file as UTF-8 first")
    if len(text) > MAX_CHARACTERS:
        raise CarrierError(f"the text has {len(text)} characters, at most {MAX_CHARACTERS} are examined")
    if "\0" in text:
        raise CarrierError("the text has a NUL character: this is binary data; give the text in it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CarrierError(
            f"character {error.start} is half of a surrogate pair: not valid Unicode"
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)
    if text.isascii():
        return text
    folded = unicodedata.normalize("NFKC", "".join(_stream_safe(_INVISIBLE.sub("", text))))
    if len(folded) > MAX_CHARACTERS:
        raise CarrierError(
            f"the text has {len(folded)} characters in NFKC, at most {MAX_CHARACTERS} are examined"
        )
    if not _OTHER_SCRIPT.search(folded):
        return folded
    return unicodedata.normalize("NFKC", "\n".join(map(_in_one_script, folded.split("\n"))))


def _in_one_script(line: str) -> str:
    """Folding replaces look-alikes by look-alikes alone, so what it goes by stays: folded again, nothing changes."""
    if not _OTHER_SCRIPT.search(line):
        return line
    latin = bool(_LATIN_LETTER.search(line)) and not _CYRILLIC_ALONE.search(line)

    def fold(found: re.Match[str]) -> str:
        word = found.group()
        others = _OTHER_SCRIPT.findall(word)
        if not others:
            return word
        greek, mixed = bool(_GREEK_LETTER.search(word)), bool(_LATIN_LETTER.search(word))
        if all(c in _ALIKE for c in others):
            if mixed or (latin and not all(_GREEK_LETTER.match(c) for c in others)):
                return word.translate(_TO_LATIN)
        elif mixed and not greek and not _LATIN_ALONE.search(word):
            return word.translate(_TO_CYRILLIC)
        return word

    return _WORD.sub(fold, line)


def tokenizer_hash(folder: Path) -> str:
    """SHA-256, hex, of a transformers folder's tokenizer.json. Raises UnavailableError without one."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UnavailableError(f"{path} is missing; the mark is read with the model's own tokenizer")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_tokenizer_hash(value: str) -> str:
    """The hash itself. Raises SpecError unless it is 64 hexadecimal digits."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise SpecError(f"tokenizer_hash is 64 hexadecimal digits, given {value!r:.80}")
    return value


def _stream_safe(text: str) -> Iterator[str]:
    """Without format characters first: taken away later, they would leave marks apart from their letters."""
    run = 0
    for c in text:
        if c >= "\x80":
            if unicodedata.category(c) == "Cf":
                continue
            whole, marks = _marks(c)
            run = run + marks if whole else marks
            if run > MAX_MARKS:
                continue
        else:
            run = 0
        yield c


@lru_cache(maxsize=1 << 16)
def _marks(c: str) -> tuple[bool, int]:
    """Whether a character is combining ones alone once taken apart, and how many it ends with."""
    parts = unicodedata.normalize("NFKD", c)
    count = next((n for n, part in enumerate(reversed(parts)) if not unicodedata.combining(part)), len(parts))
    return count == len(parts), count


class Grams(NamedTuple):
    """The grams of a case's texts in turn; none reaches from one text into the next."""

    distinct: list[bytes]  # ids of context and token, 4 bytes each, little-endian, in order of first use
    at: Int64  # which of them is at each place.  # (places,)
    before: Int64  # the last earlier place of the same gram, or -1.  # (places,)
    start: Int64  # position of its first token, the texts counted on.  # (places,)
    width: int  # tokens of a gram

    @property
    def windows(self) -> list[tuple[int, int]]:
        """Of places: the whole first, then those of `windows`."""
        return windows(len(self.at))

    def sums(self, values: npt.NDArray[np.signedinteger[Any]]) -> tuple[list[int], Int64]:
        """For each window: how many grams are in it, each counted once, and the sum of their values.

        values: a row for each distinct gram.  # (grams, columns) -> (windows,), (windows, columns)
        In time that grows with tokens and windows: grams are in order of first use, so those that a window uses
        first are a stretch of rows, and what is left are its repeats of earlier ones.
        """
        fresh = np.cumsum(
            np.concatenate(([0], self.before < 0))
        )  # grams first used before a place.  # (places + 1,)
        repeats = np.flatnonzero(self.before >= 0)
        spans = np.array(self.windows)
        rows, places = fresh[spans], np.searchsorted(repeats, spans)  # both (windows, 2)
        edges = np.unique(rows)
        below = np.zeros((len(edges), values.shape[1]), dtype=np.int64)  # sums of the rows before an edge
        if len(edges) > 1:
            np.cumsum(np.add.reduceat(values, edges[:-1], axis=0, dtype=np.int64), axis=0, out=below[1:])
        low, high = np.searchsorted(edges, rows).T
        counts, sums = np.diff(rows)[:, 0], below[high] - below[low]
        for window, (first, end) in enumerate(places.tolist()):
            if first == end:
                continue
            again = repeats[first:end]
            again = self.at[again[self.before[again] < spans[window, 0]]]
            counts[window] += len(again)
            sums[window] += values[again].sum(axis=0, dtype=np.int64)
        return counts.tolist(), sums

    def span(self, window: tuple[int, int]) -> tuple[int, int]:
        """The tokens of a window of places, [start, end)."""
        low, high = window
        return (int(self.start[low]), int(self.start[high - 1]) + self.width) if high > low else (0, 0)


def grams(texts: Sequence[Sequence[int]], width: int) -> Grams:
    """All grams of `width` tokens. Raises SpecError on ids that are no whole numbers 0 .. 2^32-1, or too many."""
    try:
        total = sum(len(text) for text in texts)
    except TypeError as error:
        raise SpecError("texts are lists of token ids; tokenize them, or use detect_text") from error
    if total > MAX_TOKENS:
        raise SpecError(f"a case has at most {MAX_TOKENS} tokens, given {total}; split it into several cases")
    index: dict[bytes, int] = {}
    at: list[int] = []
    start: list[int] = []
    offset = 0
    for text in texts:
        raw = _packed(text)
        count = max(0, len(text) - width + 1)
        at += [index.setdefault(raw[4 * i : 4 * (i + width)], len(index)) for i in range(count)]
        start += range(offset, offset + count)
        offset += len(text)
    last = [-1] * len(index)
    before = np.empty(len(at), dtype=np.int64)
    for place, gram in enumerate(at):
        before[place] = last[gram]
        last[gram] = place
    return Grams(list(index), np.array(at, dtype=np.int64), before, np.array(start, dtype=np.int64), width)


def _packed(text: Sequence[int]) -> bytes:
    try:
        given = np.asarray(text)
    except (ValueError, TypeError, OverflowError) as error:
        raise SpecError("token ids must be a flat list of whole numbers") from error
    if given.size == 0 and given.ndim == 1:
        return b""
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise SpecError(
            f"token ids must be a flat list of whole numbers, given {given.ndim} dimensions of {given.dtype}"
        )
    low, high = int(given.min()), int(given.max())
    if not 0 <= low <= high < 1 << 32:
        raise SpecError(f"token ids must lie in 0 .. 2^32-1, given {low} .. {high}")
    return given.astype("<u4").tobytes()


def windows(n: int) -> list[tuple[int, int]]:
    """The whole, then dyadic windows of MIN_WINDOW * 2^k < n in steps of a quarter of their length, largest first.

    Somewhere in a longer text, a passage of 500 tokens is then met by a window of 512 with 440 of them at least;
    half steps may leave 380.
    """
    out = [(0, n)]
    size = MIN_WINDOW
    sizes = []
    while size < n:
        sizes.append(size)
        size *= 2
    for size in reversed(sizes):
        starts = [*range(0, n - size, size // 4), n - size]
        out += [(a, a + size) for a in starts]
    return out


def text_form() -> list[str | int]:
    """What canonical_text depends on, for specs: its version, Python's of Unicode, its limit."""
    return [CANONICAL, unicodedata.unidata_version, MAX_MARKS]


def spec_hash(*parts: str | int, tokenizer: str) -> bytes:
    """SHA-256 of what a text detector's verdict depends on besides the key and the text. tokenizer: its hash."""
    shared = [tokenizer, *text_form(), MIN_WINDOW, str(stats.TRACE), str(stats.REJECT)]
    return hashlib.sha256(json.dumps([*parts, *shared]).encode()).digest()


# --- drawing ------------------------------------------------------------------------------------------------


class Draws:
    """Keyed bits for grams: BLAKE2b(key; context, token), cut to whole bytes."""

    def __init__(self, key: bytes, bits: int) -> None:
        self.bits = bits
        self._size = (bits + 7) // 8
        self._state = hashlib.blake2b(key=key, digest_size=self._size)

    def of_grams(self, packed: Sequence[bytes]) -> Bytes2:
        """For grams as Grams has them.  # (grams, bytes)"""
        return self._digests(self._state, packed)

    def of_tokens(self, context: Sequence[int], tokens: Sequence[int]) -> Bytes2:
        """For each of the tokens after one context.  # (tokens, bytes)"""
        head = self._state.copy()
        head.update(np.array(context, dtype="<u4").tobytes())
        raw = np.array(tokens, dtype="<u4").tobytes()
        return self._digests(head, [raw[i : i + 4] for i in range(0, len(raw), 4)])

    def _digests(self, head: hashlib.blake2b, ends: Sequence[bytes]) -> Bytes2:
        found = []
        for end in ends:
            state = head.copy()
            state.update(end)
            found.append(state.digest())
        return np.frombuffer(bytearray().join(found), dtype=np.uint8).reshape(len(found), self._size)

    def signs(self, digests: Bytes2) -> npt.NDArray[np.int8]:
        """The bits as -1 / +1.  # (grams, bytes) -> (grams, bits)"""
        return (np.unpackbits(digests, axis=1, count=self.bits).view(np.int8) << 1) - np.int8(1)


# --- generating ---------------------------------------------------------------------------------------------


class Writer(ABC):
    """One text in the making: what a mark makes of the logits of the tokens that survive top-k.

    Its answers depend on the text so far alone. It remembers the text only to be quick, and starts over when it
    is shown another one, so that a server may rewind, preempt or re-order requests.
    """

    exclusive: ClassVar[bool] = False  # whether all tokens but the surviving ones get probability 0

    def __init__(self, context: int, top_k: int) -> None:
        self.context, self.top_k = context, top_k
        self._start()

    def _start(self) -> None:
        self._text: list[int] = []
        self._taken: dict[tuple[int, ...], set[int]] = {}  # tokens that followed a context

    def _counts(self, context: tuple[int, ...], token: int) -> None:
        """A gram was written for the first time."""
        return

    @abstractmethod
    def _marked(self, context: tuple[int, ...], tokens: Sequence[int], values: Float64) -> Float64:
        """The values to sample by.  # (tokens,) -> (tokens,)"""

    @property
    def ready(self) -> bool:
        """Whether a whole context was generated; a detector never sees the prompt, so nothing is marked before."""
        return len(self._text) >= self.context

    def append(self, token: int) -> None:
        """A token was sampled. Raises SpecError on what is no token id."""
        if not 0 <= token < 1 << 32:
            raise SpecError(f"token ids must lie in 0 .. 2^32-1, given {token}")
        if self.ready:
            context = self._context()
            taken = self._taken.setdefault(context, set())
            if token not in taken:
                taken.add(token)
                self._counts(context, token)
        self._text.append(token)

    def _taken_of(self, context: tuple[int, ...], tokens: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which of the tokens followed the context before.  # (tokens,)"""
        taken = self._taken.get(context, ())
        return np.array([token in taken for token in tokens], dtype=np.bool_)

    def _context(self) -> tuple[int, ...]:
        return tuple(self._text[len(self._text) - self.context :])

    def rewrite(self, tokens: Sequence[int], values: Float64) -> Float64:
        """New logits of the surviving tokens, once `ready`.  # (tokens,) -> (tokens,)"""
        return self._marked(self._context(), tokens, values)

    def __call__(self, generated: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        """New logits for the next token; for servers such as vLLM, whose processors of a request are called so.

        generated: ids of the text so far, without the prompt. logits: before temperature and top-k, left as
        they are.  # (vocabulary,)
        Raises SpecError on another shape, or where no logit is finite.
        """
        if logits.ndim != 1:
            raise SpecError(f"logits of one row have one dimension, given shape {tuple(logits.shape)}")
        ids = list(generated)
        if ids[: len(self._text)] != self._text:
            self._start()
        for token in ids[len(self._text) :]:
            self.append(token)
        return _rewritten([self], logits[None])[0]


def biased(values: Float64, bias: Float64, taken: npt.NDArray[np.bool_], temperature: float) -> Float64:
    """The surviving tokens' logits with a bias on those that are not taken, by which the taken ones, which would count
    for nothing, become neither likelier nor rarer among all of these.  # all (tokens,)"""
    out = values + bias
    free = ~taken
    if taken.any() and free.any():
        plain = np.exp((values[free] - values[free].max()) / temperature)
        most = bias[free].max()
        gained = float(plain @ np.exp((bias[free] - most) / temperature) / plain.sum())
        out[taken] = values[taken] + most + temperature * math.log(gained)
    elif taken.any():
        out = values
    return out


def _rewritten(writers: Sequence[Writer], scores: torch.Tensor) -> torch.Tensor:
    """In float32 at least: next to a logit of 20, bf16 has steps of 1/8.  # (batch, vocabulary)"""
    out = scores.float() if scores.dtype.itemsize < 4 else scores.clone()
    if not writers[0].ready:
        return out
    values, tokens = out.topk(min(writers[0].top_k, out.shape[-1]), dim=-1)
    given = values.float().cpu().numpy().astype(np.float64)
    if not np.isfinite(given[:, 0]).all():
        raise SpecError("a row of logits has NaN or no finite value; look at the model's output before this")
    new = np.stack([w.rewrite(t, v) for w, t, v in zip(writers, tokens.tolist(), given, strict=True)])
    if writers[0].exclusive:
        out.fill_(float("-inf"))
    return out.scatter_(-1, tokens, out.new_tensor(new))


class Processor:
    """A mark for one call of transformers' generate(logits_processor=[...]): sampling, no beams.

    What comes before the first call's last token is the prompt.
    """

    def __init__(self, writer: Callable[[int], Writer], rows: int | None = None) -> None:
        """writer: makes that of a row; rows: the batch that it can serve, None for any."""
        self._writer, self._expected = writer, rows
        self._writers: list[Writer] = []
        self._length = -1

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """New scores; the caller's are left as they are. input_ids: (batch, length), scores: (batch,
        vocabulary)"""
        if input_ids.ndim != 2 or scores.ndim != 2 or len(input_ids) != len(scores):
            raise SpecError(
                f"ids {tuple(input_ids.shape)} and scores {tuple(scores.shape)} are not of one batch"
            )
        batch, length = input_ids.shape
        if self._length < 0:
            if self._expected not in (None, batch):
                raise SpecError(f"{self._expected} payloads were given for a batch of {batch} rows")
            self._writers = [self._writer(row) for row in range(batch)]
        elif length != self._length + 1 or batch != len(self._writers):
            raise SpecError(
                "a processor serves one generate() call with sampling; make a new one for each call"
            )
        else:
            for writer, token in zip(self._writers, input_ids[:, -1].tolist(), strict=True):
                writer.append(token)
        self._length = length
        return _rewritten(self._writers, scores)
