"""Attacks on marked texts, and how much of a text they changed.

Shares of deleted and substituted words (.1, .2, .3 and .1, .3) are those that multi-bit papers report; pasting into
human text is Kirchenbauer et al., "On the Reliability of Watermarks" (2024); homoglyphs, zero-width and full-width
characters are Boucher et al., "Bad Characters" (2022); synonyms come from WordNet (Miller 1995, files of version 3.0);
chrF is Popovic (2015).

A word is a run of letters and digits; in scripts without spaces (Chinese, Japanese) a run of at most two characters.
A text is its lead and its words, each with what follows it up to the next word: attacks move words, never bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np

from zhiyi_watermark.errors import SpecError, UnavailableError

_NO_SPACES: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD: Final = re.compile(
    rf"[{_NO_SPACES}]{{1,2}}|(?:(?![{_NO_SPACES}])[^\W_])+(?:['’\-](?:(?![{_NO_SPACES}])[^\W_])+)*"
)


class Codec(Protocol):
    """What re-tokenising needs of a transformers tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""
        ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids."""
        ...


class _Pieces(NamedTuple):
    """A text cut at its words: lead + word + gap + word + gap ..."""

    lead: str
    words: list[str]
    gaps: list[str]

    def join(self) -> str:
        """The text again; no space is left before a comma where a word went."""
        out = self.lead
        for word, gap in zip(self.words, self.gaps, strict=True):
            if not word and gap[:1].strip() and out[-1:] == " ":
                out = out[:-1]
            out += word + gap
        return out


def _cut(text: str) -> _Pieces:
    found = list(_WORD.finditer(text))
    ends = [*(m.start() for m in found), len(text)][1:]
    gaps = [text[m.end() : end] for m, end in zip(found, ends, strict=True)]
    return _Pieces(text[: found[0].start()] if found else text, [m.group() for m in found], gaps)


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    return _WORD.findall(text)


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise SpecError(f"a share lies in 0 .. 1, given {value}")
    return value


def _picked(n: int, share: float, rng: np.random.Generator) -> list[int]:
    """round(share n) of 0 .. n-1, ascending."""
    return sorted(rng.choice(n, size=round(_share(share) * n), replace=False).tolist()) if n else []


# --- words --------------------------------------------------------------------------------------------------


def delete_words(text: str, share: float, *, seed: int) -> str:
    """Without that share of its words, chosen evenly. Papers: .1, .2, .3."""
    lead, kept, gaps = _cut(text)
    for i in _picked(len(kept), share, np.random.default_rng(seed)):
        kept[i] = ""
        if not gaps[i].strip() and "\n" not in gaps[i]:
            gaps[i] = ""
    return _Pieces(lead, kept, gaps).join()


def swap_words(text: str, share: float, *, seed: int) -> str:
    """With neighbouring words exchanged, so that about that share of them has moved. Papers: .1, .3."""
    pieces = _cut(text)
    rng = np.random.default_rng(seed)
    for pair in _picked(len(pieces.words) // 2, share, rng):
        at = 2 * pair
        pieces.words[at], pieces.words[at + 1] = pieces.words[at + 1], pieces.words[at]
    return pieces.join()


def insert_words(text: str, share: float, *, seed: int, vocabulary: Sequence[str] = ()) -> str:
    """With that share of its number of words put in, drawn from the vocabulary, else from the text. Papers: .1, .3."""
    lead, old, gaps = _cut(text)
    rng = np.random.default_rng(seed)
    pool = list(vocabulary) or list(old)
    for i in _picked(len(old), share, rng):
        new = pool[int(rng.integers(len(pool)))]
        old[i] += new if re.match(rf"[{_NO_SPACES}]", old[i]) else f" {new}"
    return _Pieces(lead, old, gaps).join()


def truncate(text: str, keep: float, *, seed: int | None = None) -> str:
    """One stretch of that share of the words: the first ones, or anywhere if a seed is given. Papers: .25, .5."""
    lead, old, gaps = _cut(text)
    count = round(_share(keep) * len(old))
    start = 0 if seed is None else int(np.random.default_rng(seed).integers(len(old) - count + 1))
    part = _Pieces(lead if start == 0 else "", old[start : start + count], gaps[start : start + count])
    return part.join().rstrip() if count < len(old) else text


def paste(text: str, host: str, share: float = 0.25, *, seed: int) -> str:
    """The text inside human text, of which it then makes that share of the words. Paper: .25 and .1, one stretch.

    Raises SpecError when the host has too few words.
    """
    if not 0 < share <= 1:
        raise SpecError(f"a pasted text makes a share in 0 .. 1 of the whole, not {share}")
    count = len(words(text))
    around = round(count * (1 - share) / share)
    lead, old, gaps = _cut(host)
    if len(old) < around:
        raise SpecError(
            f"{around} words of human text are needed around {count} words, the host has {len(old)}"
        )
    at = int(np.random.default_rng(seed).integers(around + 1))
    before = _Pieces(lead, old[:at], gaps[:at]).join()
    after = _Pieces("", old[at:around], gaps[at:around]).join()
    return "\n\n".join(part for part in (before.rstrip(), text.strip(), after.rstrip()) if part)


def retokenise(token_ids: Sequence[int], tokenizer: Codec) -> list[int]:
    """The tokens that a detector sees of a generated text: its text, encoded anew."""
    text = tokenizer.decode(list(token_ids), skip_special_tokens=True)
    return tokenizer.encode(text, add_special_tokens=False)


# --- synonyms -----------------------------------------------------------------------------------------------

_PARTS: Final = ("noun", "verb", "adj", "adv")
_ENDINGS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "noun": (("ies", "y"), ("es", ""), ("s", "")),
    "verb": (
        ("ies", "y"),
        ("es", ""),
        ("s", ""),
        ("ied", "y"),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ),
    "adj": (),
    "adv": (),
}
_FUNCTION_WORDS: Final = (
    "a about after all also am an and any are as at be been before being but by can could did do does doing done "
    "down each else ever few for from get gets getting given go goes going got had has have having he her here hers "
    "him his how i if in into is it its just less like made make makes making many may me might mine more most much "
    "must my no nor not now of off on one only or other our out over own same set shall she should so some still "
    "such take taken than that the their them then there these they this those through thus to too two under until "
    "up upon us use used very was way we well were what when where which while who whom whose why will with within "
    "without would yes yet you your"
)
_FUNCTION: Final = frozenset(_FUNCTION_WORDS.split())


class WordNet:
    """Synonyms from the database files of WordNet 3.0 (index.*, data.*, *.exc)."""

    def __init__(self, folder: Path) -> None:
        """Raises UnavailableError without the files."""
        self._index: dict[str, dict[str, tuple[int, list[int]]]] = {}
        self._data: dict[str, bytes] = {}
        self._irregular: dict[str, frozenset[str]] = {}  # base forms with an inflection of their own
        for part in _PARTS:
            try:
                self._index[part] = dict(self._entries((folder / f"index.{part}").read_text("ascii")))
                self._data[part] = (folder / f"data.{part}").read_bytes()
                listed = (folder / f"{part}.exc").read_text("ascii").splitlines()
                self._irregular[part] = frozenset(line.split()[1] for line in listed)
            except (OSError, ValueError, IndexError) as error:
                raise UnavailableError(f"{folder} holds no WordNet database: {error!s:.120}") from error

    @staticmethod
    def _entries(text: str) -> Iterable[tuple[str, tuple[int, list[int]]]]:
        """Lemma, how often its senses were tagged in a corpus, offsets of its synsets, most frequent first."""
        for line in text.splitlines():
            if not line.startswith("  "):
                lemma, _, synsets, pointers, *rest = line.split()
                rest = rest[int(pointers) :]
                yield lemma, (int(rest[1]), [int(x) for x in rest[2 : 2 + int(synsets)]])

    def synonyms(self, word: str) -> tuple[str, ...]:
        """Other words of its most frequent sense that has any, in the word's own inflection; lower case, sorted.

        Regular inflections only. Function words and what is not one plain word have none.
        """
        plain = word.lower()
        if not (plain.isascii() and plain.isalpha()) or len(plain) < 3 or plain in _FUNCTION:
            return ()
        readings = [
            (count, part, lemma, ending, offsets)
            for part in _PARTS
            for lemma, ending in _lemmas(plain, part)
            if lemma in self._index[part]
            for count, offsets in (self._index[part][lemma],)
        ]
        readings.sort(key=lambda r: (-r[0], r[3] != "", _PARTS.index(r[1])))
        for _, part, lemma, ending, offsets in readings[:1]:
            for offset in offsets:
                others = [
                    w
                    for w in self._words(part, offset)
                    if w != lemma
                    and w.isalpha()
                    and w.islower()
                    and not (ending and w in self._irregular[part])
                ]
                if others:
                    return tuple(sorted({_inflect(w, ending) for w in others}))
        return ()

    def _words(self, part: str, offset: int) -> list[str]:
        data = self._data[part]
        fields = data[offset : data.index(b"\n", offset)].decode("ascii").split()
        count = int(fields[3], 16)
        return [re.sub(r"\(\w+\)$", "", w) for w in fields[4 : 4 + 2 * count : 2]]


def _lemmas(word: str, part: str) -> Iterable[tuple[str, str]]:
    """Possible base forms with the ending that was taken off: "", "s", "ed" or "ing"."""
    yield word, ""
    for ending, base in _ENDINGS[part]:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            kind = "s" if ending[-1] == "s" else ending[-3:] if ending == "ing" else "ed"
            yield word[: -len(ending)] + base, kind


def _inflect(word: str, ending: str) -> str:
    """A regular form: "s", "ed", "ing", or "" for none."""
    if not ending:
        return word
    consonant_y = word.endswith("y") and word[-2:-1] not in "aeiou"
    if ending == "s":
        if consonant_y:
            return word[:-1] + "ies"
        return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")
    if ending == "ing":
        return (word[:-1] if word.endswith("e") and not word.endswith("ee") else word) + "ing"
    if consonant_y:
        return word[:-1] + "ied"
    return word + ("d" if word.endswith("e") else "ed")


def substitute_synonyms(text: str, share: float, wordnet: WordNet, *, seed: int) -> str:
    """With that share of all words replaced by synonyms, or as many as have some. Papers: .1, .3. English.

    Words are taken in random order; of several synonyms one is drawn. Capitals stay.
    """
    pieces = _cut(text)
    rng = np.random.default_rng(seed)
    wanted = round(_share(share) * len(pieces.words))
    for i in rng.permutation(len(pieces.words)).tolist():
        if wanted == 0:
            break
        word = pieces.words[i]
        options = wordnet.synonyms(word)
        if not options:
            continue
        new = options[int(rng.integers(len(options)))]
        pieces.words[i] = new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new
        wanted -= 1
    return pieces.join()


# --- characters ---------------------------------------------------------------------------------------------

_ALIKE: Final = dict(
    zip("aceijopsxyABCEHIJKMOPSTXYZ", "асеіјорѕхуАВСЕНІЈКМОРЅТХΥΖ", strict=True)
)  # Latin to Cyrillic and Greek
_ZERO_WIDTH: Final = "\u200b\u200c\u200d\u2060\ufeff"
_FULL_WIDTH: Final = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_TRADITIONAL: Final = str.maketrans("“”‘’《》", "「」『』〈〉")


def homoglyphs(text: str, share: float, *, seed: int) -> str:
    """With that share of the letters that have one replaced by a look-alike of another script. Paper: up to 1."""
    at = [i for i, c in enumerate(text) if c in _ALIKE]
    out = list(text)
    for i in _picked(len(at), share, np.random.default_rng(seed)):
        out[at[i]] = _ALIKE[out[at[i]]]
    return "".join(out)


def zero_width(text: str, share: float, *, seed: int) -> str:
    """With invisible characters after that share of all characters. Paper: up to 1."""
    rng = np.random.default_rng(seed)
    out = list(text)
    for i in _picked(len(out), share, rng):
        out[i] += _ZERO_WIDTH[int(rng.integers(len(_ZERO_WIDTH)))]
    return "".join(out)


def full_width(text: str) -> str:
    """With every printable ASCII character in its full-width form."""
    return text.translate(_FULL_WIDTH)


def traditional_punctuation(text: str) -> str:
    """Chinese quotation marks and title marks in the forms of Taiwan and Hong Kong; other characters stay."""
    return text.translate(_TRADITIONAL)


def change_case(text: str, how: Literal["lower", "upper", "swap"]) -> str:
    """In lower case, upper case, or with every case turned."""
    return {"lower": text.lower, "upper": text.upper, "swap": text.swapcase}[how]()


def change_spaces(text: str, share: float, *, seed: int) -> str:
    """With that share of single spaces doubled or made a line end, evenly."""
    rng = np.random.default_rng(seed)
    at = [m.start() for m in re.finditer(r"(?<!\s) (?!\s)", text)]
    out = list(text)
    for i in _picked(len(at), share, rng):
        out[at[i]] = ("  ", "\n")[int(rng.integers(2))]
    return "".join(out)


# --- paraphrase ---------------------------------------------------------------------------------------------

PROMPT: Final = (
    "Rewrite the following text in your own words. Keep its meaning. Answer with the new text only.\n\n{}"
)


def paraphrase(
    texts: Sequence[str],
    model: Any,
    tokenizer: Any,
    *,
    seed: int,
    batch: int = 8,
    chunk_words: int = 60,
    temperature: float = 0.7,
    top_k: int = 50,
    prompt: str = PROMPT,
) -> list[str]:
    """Each text rewritten piece by piece by a language model, sampled.

    model, tokenizer: any causal language model of transformers; a chat template is used where the tokenizer has one.
    Pieces of about chunk_words end at sentences. Torch's random state is put back. What the model writes is taken as
    it is: measure with words_changed and chrf whether it is a paraphrase.
    """
    import torch

    pieces = [(i, piece) for i, text in enumerate(texts) for piece in _sentences(text, chunk_words)]
    out: list[list[str]] = [[] for _ in texts]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for at in range(0, len(pieces), batch):
            group = pieces[at : at + batch]
            asked = [_asked(prompt.format(piece), tokenizer) for _, piece in group]
            longest = max(len(ids) for ids in asked)
            ids = torch.tensor([[pad] * (longest - len(x)) + x for x in asked], device=model.device)
            mask = torch.tensor([[0] * (longest - len(x)) + [1] * len(x) for x in asked], device=model.device)
            written = model.generate(
                ids, attention_mask=mask, do_sample=True, temperature=temperature, top_k=top_k, pad_token_id=pad,
                max_new_tokens=max(16, 3 * chunk_words),
            )[:, longest:]  # fmt: skip
            for (i, _), row in zip(group, written.tolist(), strict=True):
                out[i].append(tokenizer.decode(row, skip_special_tokens=True).strip())
    return [" ".join(part for part in parts if part) for parts in out]


def _asked(text: str, tokenizer: Any) -> list[int]:
    if getattr(tokenizer, "chat_template", None):
        chat = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _sentences(text: str, size: int) -> list[str]:
    """The text in pieces of whole sentences with about `size` words."""
    out: list[str] = []
    room = 0
    for sentence in re.findall(r".+?(?:[.!?。！？]+[\"'”’」』)]*\s*|$)", text, flags=re.DOTALL):
        count = len(words(sentence))
        if not out or count > room:
            out.append("")
            room = size
        out[-1] += sentence
        room -= count
    return [piece.strip() for piece in out if piece.strip()]


# --- how much was changed -----------------------------------------------------------------------------------


def words_changed(before: str, after: str) -> float:
    """1 - (longest common subsequence of words) / (words of the longer text), without regard to case; 0 .. 1."""
    a, b = words(before.lower()), words(after.lower())
    if not a or not b:
        return float(a != b)
    where: dict[str, int] = {}
    for i, word in enumerate(a):
        where[word] = where.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full  # a zero bit for each word of a matched so far, as in Hyyro (2004)
    for word in b:
        matched = row & where.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return 1 - (len(a) - row.bit_count()) / max(len(a), len(b))


def chrf(text: str, reference: str, *, order: int = 6, beta: float = 2.0) -> float:
    """chrF, 0 .. 1: F-score of character n-grams up to the order, spaces left out, averaged over the orders."""
    a, b = ("".join(x.split()) for x in (text, reference))
    precision = recall = 0.0
    orders = [n for n in range(1, order + 1) if len(a) >= n and len(b) >= n]
    for n in orders:
        one, other = (Counter(x[i : i + n] for i in range(len(x) - n + 1)) for x in (a, b))
        common = (one & other).total()
        precision += common / one.total() / len(orders)
        recall += common / other.total() / len(orders)
    if not orders or precision + recall == 0:
        return float(a == b)
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
