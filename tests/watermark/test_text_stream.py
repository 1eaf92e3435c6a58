"""What the text marks share: canonical text, grams and windows, draws, and the processor's promises."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import VOCABULARY, write_text
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyi_watermark import text_stream
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.payload import Long, PayloadCode, Short
from zhiyi_watermark.text_multibit import MOST_DECODED, BinPlus, BinPlusConfig
from zhiyi_watermark.text_stream import (
    _ALIKE,
    CANONICAL,
    MAX_CHARACTERS,
    MAX_MARKS,
    MAX_TOKENS,
    MIN_WINDOW,
    Draws,
    Int64,
    Processor,
    Writer,
    canonical_text,
    grams,
    tokenizer_hash,
    windows,
)
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM, Tournament, ZeroBit

KEY = hashlib.sha256(b"text stream").digest()
DEVICES = ["cpu"] + [
    name
    for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
    if there
]


def make_writers() -> dict[str, Writer]:
    """One of each mark. Tournaments of one layer show their draw in every token's logit."""
    return {
        "binplus": BinPlus(KEY, BinPlusConfig(top_k=20)).writer(Short(3)),
        "kgw": ZeroBit(KEY, KGW).writer(),
        "unigram": ZeroBit(KEY, UNIGRAM).writer(),
        "tournament": ZeroBit(KEY, Tournament(layers=1)).writer(),
    }


# --- text ---------------------------------------------------------------------------------------------------


def test_unicode_tricks_are_undone() -> None:
    assert canonical_text("ｅ\u200bvi\u00addence\r\n\ufb01x") == "evidence\nfix"
    assert (
        canonical_text("e\u200b\u0301t\u2060e\u0301") == "\u00e9t\u00e9"
    )  # a format character between letter and mark


ENGLISH = """The old dog's bark, though loud, frightened nobody: it was well-known in every street of the town.
A kilogram of \u03b1-iron costs $3.50 (\u2248 \u20ac3.20); \u0394T was 5 \u00b0C,
R = 20 k\u03a9, na\u00efve caf\u00e9s aside. I saw XX. Ok?"""
CHINESE = "水印是一种把信息藏在文本里的方法，检测者需要密钥。“没有密钥的人”看不出任何区别！Python 3 也可以。"
RUSSIAN = """А и Б сидели на трубе. В XX веке Сократ, Аврора и она видели с горы Арарат: оса, сор, рёв.
Он купил iPhone с экраном OLED, о чём и рассказал; IT-отдел был против. Съешь ещё этих мягких булок."""
GREEK = """Η Ζωή πήρε τον καφέ και ο Νίκος το Ουίσκι της. Τι ώρα είναι; Το Windows και το iPhone του.
Ο ένας ή ο άλλος, υιός, ρόα, νέο ύφος."""


@pytest.mark.parametrize(
    "text", [ENGLISH, CHINESE, RUSSIAN, GREEK], ids=["English", "Chinese", "Russian", "Greek"]
)
def test_plain_texts_stay_as_they_are(text: str) -> None:
    plain = unicodedata.normalize("NFKC", text)
    assert canonical_text(text) == plain
    assert canonical_text(plain.replace(" ", " \u2066\u200e\u00ad\ufe0f\u034f\u3164\x1b")) == plain


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Тhе оld dоg'ѕ bаrk", "The old dog's bark"),  # Cyrillic and Greek letters among Latin ones
        ("Υеѕ, а cаt аѕ ѕооn", "Yes, a cat as soon"),  # words of look-alikes alone
        ("\u039fne \u03bdiew \u03bff \u03a4om", "One view of Tom"),
        (
            "Пpивет, миp! Я cам из Pима, a?",
            "Привет, мир! Я сам из Рима, a?",
        ),  # Latin letters among Cyrillic ones
        ("а\u0301tom cаf\u0435\u0301", "\u00e1tom caf\u00e9"),  # composed again
        ("WiFiсеть и Дon", "WiFiсеть и Дon"),  # letters of both scripts that are like none of the other
        ("он и a", "он и a"),
        (
            "\u03bc\u03bf\u03bd\u03bf \u03bf\u03c1\u03bf\u03c2",
            "\u03bc\u03bf\u03bd\u03bf \u03bf\u03c1\u03bf\u03c2",
        ),
        ("с\nа cat\nона", "с\na cat\nона"),  # lines go by themselves
        ("a\u2028b\x85c\x0bd", "a\nb\nc\nd"),
        ("ev\x08i\ufe00d\U000e0100e\u180b\u034fnce", "evidence"),
    ],
)
def test_look_alikes_are_folded_where_words_mix_scripts(text: str, folded: str) -> None:
    assert canonical_text(text) == folded
    assert canonical_text(folded) == folded


def test_the_table_of_look_alikes_is_pinned() -> None:
    """Letters of UTS #39 with their names: whoever edits the table raises CANONICAL."""
    names = {unicodedata.name(c).split()[0] for c in _ALIKE}
    assert names == {"CYRILLIC", "GREEK"}
    assert all(c.isascii() and c.isalpha() for c in _ALIKE.values())
    listed = "".join(f"{c}{latin}" for c, latin in sorted(_ALIKE.items()))
    pinned = (CANONICAL, hashlib.sha256(listed.encode()).hexdigest()[:16])
    assert pinned == (2, "279bc340a6293cf3")


MIXED = "aceHoxyBnν" + "асеНохуВноижёЯ" + "ανοΥΖωάΪ" + "é\u0301\u0306\u0308\u200b\ufe0f '\n-1中\x07"

ANYTHING = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=60)


@given(st.one_of(ANYTHING, st.text(alphabet=MIXED, max_size=40)))
@settings(max_examples=400, deadline=None)
def test_canonical_text_stays_as_it_is(text: str) -> None:
    once = canonical_text(text)
    assert canonical_text(once) == once
    assert not any(unicodedata.category(c) in ("Cf", "Cc") for c in once.replace("\n", "").replace("\t", ""))
    assert unicodedata.is_normalized("NFKC", once)
    assert canonical_text(unicodedata.normalize("NFD", text)) == canonical_text(
        unicodedata.normalize("NFC", text)
    )


def test_marks_without_end_are_cut() -> None:
    """Two classes of marks in turn: ordering a million of them pair by pair would take hours."""
    text = "a" + "\u0316\u0301" * 500_000 + "b" + "\u200b\u0301" * 40
    out = canonical_text(text)
    assert len(out) < 2 + 2 * MAX_MARKS
    assert out.startswith("á")
    assert "b" in out
    # U+FF9E is a mark only once it is taken apart
    assert len(canonical_text("\u0334\uff9e" * 500_000)) <= MAX_MARKS
    assert canonical_text("\uff76\uff9e" * 50) == "\u30ac" * 50


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a" * (MAX_CHARACTERS + 1), "characters"),
        ("a" * 10_000_000, "characters"),
        ("\ufdfa" * (MAX_CHARACTERS // 17), "in NFKC"),  # 18 characters each
        ("\x7fELF\2\1\1\0\0", "binary"),
        ("half \ud83d of a pair", "character 5 .* surrogate"),
        (b"bytes", "decode"),
        (None, "NoneType"),
    ],
    ids=["long", "10 MB", "ligatures", "binary", "surrogate", "bytes", "nothing"],
)
def test_what_is_no_text_is_refused(text: Any, said: str) -> None:
    with pytest.raises(CarrierError, match=said):
        canonical_text(text)


# --- grams and windows --------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=4), st.integers(1, 4), st.integers(4, 8))
@settings(max_examples=150, deadline=None)
def test_a_window_has_each_gram_once(texts: list[list[int]], width: int, size: int) -> None:
    found = grams(texts, width)
    plain, starts, offset = [], [], 0
    for text in texts:
        for i in range(len(text) - width + 1):
            plain.append(tuple(text[i : i + width]))
            starts.append(offset + i)
        offset += len(text)
    packed = [np.array(g, dtype="<u4").tobytes() for g in plain]
    assert found.distinct == list(dict.fromkeys(packed))
    assert found.start.tolist() == starts
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text_stream, "MIN_WINDOW", size)
        spans = found.windows
        counts, present = found.sums(np.eye(len(found.distinct), dtype=np.int8))
    for (low, high), count, row in zip(spans, counts, present, strict=True):
        assert [int(gram in packed[low:high]) for gram in found.distinct] == row.tolist()
        assert count == len(set(packed[low:high]))
        span = found.span((low, high))
        assert span == ((starts[low], starts[high - 1] + width) if high > low else (0, 0))


@pytest.mark.parametrize("period", [1, 3, 100])
def test_a_text_that_repeats_itself_costs_no_more_than_another(
    period: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in words decoded, not in seconds."""
    decoded: list[object] = []
    decode = PayloadCode.decode_soft

    def counted(code: PayloadCode, scores: Int64) -> Long | Short | None:
        decoded.append(scores)
        return decode(code, scores)

    monkeypatch.setattr(PayloadCode, "decode_soft", counted)
    found = BinPlus(KEY).detect(list(range(period)) * (30_000 // period), 1)
    assert found.payload is None
    assert len(decoded) <= MOST_DECODED


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 500, 2000, 5000])
def test_windows_cover_the_text(n: int) -> None:
    spans = windows(n)
    assert spans[0] == (0, n)
    assert len(set(spans)) == len(spans)
    assert all(0 <= a <= b <= n for a, b in spans)
    assert all(b - a >= MIN_WINDOW for a, b in spans[1:])
    for size in {b - a for a, b in spans[1:]}:
        assert set().union(*(range(a, b) for a, b in spans if b - a == size)) == set(range(n))


@pytest.mark.parametrize(
    "tokens",
    [[-1, 2, 3], [1 << 32, 1, 1], [[1], [2]], [[1], [2, 3]], ["a", "b"], [1 << 70, 2, 3], [1.0, 2.0], [True, False],
     "1 2 3", b"123", [None, 1], torch.ones(3)],
)  # fmt: skip
def test_token_ids_that_are_none_are_refused(tokens: Any) -> None:
    for detect in (ZeroBit(KEY).detect, lambda ids: BinPlus(KEY).detect(ids, 10)):
        with pytest.raises(SpecError):
            detect(tokens)


def test_texts_in_place_of_ids_are_refused() -> None:
    with pytest.raises(SpecError, match="token ids"):
        ZeroBit(KEY).detect(7)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(SpecError, match="at most"):
        grams([range(MAX_TOKENS), range(1)], 3)


def test_arrays_of_ids_are_taken() -> None:
    ids = list(range(40))
    plain = ZeroBit(KEY).detect(ids)
    assert ZeroBit(KEY).detect(np.array(ids, dtype=np.uint16)) == plain  # type: ignore[arg-type]  # works all the same
    assert ZeroBit(KEY).detect(torch.tensor(ids)) == plain  # type: ignore[arg-type]  # works all the same


# --- draws --------------------------------------------------------------------------------------------------


def test_draws_are_keyed_blake2b() -> None:
    draws = Draws(KEY, 63)
    found = draws.of_tokens([1, 2], [3, 70_000])
    expected = [
        hashlib.blake2b(b"".join(x.to_bytes(4, "little") for x in (1, 2, t)), key=KEY, digest_size=8).digest()
        for t in (3, 70_000)
    ]
    assert [row.tobytes() for row in found] == expected
    assert draws.of_grams(grams([[1, 2, 3]], 3).distinct).tobytes() == expected[0]
    bits = "".join(f"{byte:08b}" for byte in expected[0])[:63]
    assert draws.signs(found)[0].tolist() == [2 * int(b) - 1 for b in bits]
    assert draws.of_grams([]).shape == (0, 8)


# --- the processor ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", make_writers())
def test_every_device_and_precision_draws_the_same(name: str, device: str) -> None:
    """What is added to a token's logit has the sign of its draw, whatever the tensors are made of."""
    text = list(range(100, 112))
    values = torch.linspace(3, 1, VOCABULARY)
    reference = make_writers()[name](text, values) - values
    assert (reference[:10] > 0).any()
    assert (reference[:10] <= 0).any()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        scores = values.to(device, dtype)
        out = make_writers()[name](text, scores)
        assert (out.device.type, out.dtype) == (device, torch.float32)
        assert torch.equal((out - scores)[:10].cpu() > 0, reference[:10] > 0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", make_writers())
def test_a_servers_function_is_the_processor(name: str, threads: int, text_model: Any) -> None:
    """Eight rows at once, one by one, with one thread and two, and by a model in bf16: the draws are the same."""
    steps: list[tuple[Any, Any, Any]] = []
    processor = Processor(lambda _: make_writers()[name])

    def watched(ids: Any, scores: Any) -> Any:
        out = processor(ids, scores)
        steps.append((ids.clone(), scores.clone(), out.clone()))
        return out

    torch.set_num_threads(threads)
    try:
        write_text(text_model, watched, tokens=9, rows=8)
    finally:
        torch.set_num_threads(1)
    for ids, scores, out in (steps[0], steps[6], steps[-1]):
        for row in range(8):
            alone = make_writers()[name](ids[row, 4:].tolist(), scores[row])
            assert torch.equal(alone, out[row])
    half = text_model.to(torch.bfloat16)
    try:
        with torch.no_grad():
            low = half(steps[-1][0]).logits[:, -1]
    finally:
        text_model.to(torch.float32)
    ids, scores, out = steps[-1]
    for row in range(8):
        moved = make_writers()[name](ids[row, 4:].tolist(), low[row])
        both = [t for t in low[row].topk(10).indices.tolist() if t in scores[row].topk(10).indices.tolist()]
        assert both
        assert torch.equal((moved - low[row])[both] > 0, (out[row] - scores[row])[both] > 0)


@pytest.mark.parametrize("name", make_writers())
def test_a_writer_depends_on_the_text_alone(name: str) -> None:
    """A server may go back, go on elsewhere, or come back."""
    rng = random.Random(3)
    texts = [[rng.randrange(8) for _ in range(30)] for _ in range(3)]
    scores = torch.linspace(2, 0, 8)
    used = make_writers()[name]
    for text, length in ((0, 10), (0, 11), (0, 5), (1, 30), (2, 0), (2, 1), (0, 30), (0, 30), (0, 29)):
        ids = texts[text][:length]
        assert torch.equal(used(tuple(ids), scores), make_writers()[name](ids, scores))


@pytest.mark.parametrize("name", make_writers())
def test_the_callers_scores_are_left_alone(name: str) -> None:
    processor = Processor(lambda _: make_writers()[name])
    scores = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(1))
    kept = scores.clone()
    context = make_writers()[name].context
    for length in range(context + 3):
        out = processor(torch.arange(3 + length).expand(2, -1), scores)
        assert torch.equal(scores, kept)
        assert torch.equal(out, scores) == (length < context)  # until then the context is still in the prompt
    top = set(scores[0].topk(make_writers()[name].top_k).indices.tolist())
    changed = set((out != scores)[0].nonzero().flatten().tolist())
    if make_writers()[name].exclusive:
        assert out[0].isfinite().nonzero().flatten().tolist() == sorted(top)
    else:
        assert changed <= top
        assert len(changed) > len(top) // 3


def test_a_processor_serves_one_call() -> None:
    processor = ZeroBit(KEY).processor()
    ids, scores = torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, VOCABULARY)
    processor(ids, scores)
    with pytest.raises(SpecError, match="one generate"):
        processor(torch.zeros(1, 9, dtype=torch.long), scores)
    with pytest.raises(SpecError, match="one generate"):
        processor(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, VOCABULARY))


@pytest.mark.parametrize("shapes", [((4,), (1, 9)), ((1, 4), (9,)), ((1, 4), (2, 9)), ((1, 4), (1, 1, 9))])
def test_wrong_shapes_are_refused(shapes: Sequence[tuple[int, ...]]) -> None:
    with pytest.raises(SpecError, match="one batch"):
        ZeroBit(KEY).processor()(torch.zeros(shapes[0], dtype=torch.long), torch.zeros(shapes[1]))
    with pytest.raises(SpecError, match="one dimension"):
        ZeroBit(KEY).writer()([1, 2], torch.zeros(1, 9))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    scores = torch.zeros(9)
    scores[3] = bad
    with pytest.raises(SpecError, match="NaN"):
        ZeroBit(KEY, UNIGRAM).writer()([], scores)
    with pytest.raises(SpecError, match="finite"):
        ZeroBit(KEY, UNIGRAM).writer()([], torch.full((9,), float("-inf")))


@pytest.mark.parametrize("name", make_writers())
def test_tokens_that_are_ruled_out_stay_so(name: str) -> None:
    scores = torch.linspace(2, 0, 9)
    scores[[1, 4]] = float("-inf")
    out = make_writers()[name]([1, 2, 3, 4, 5], scores)
    assert out[[1, 4]].tolist() == [float("-inf")] * 2
    assert out[0].isfinite()
    assert not out.isnan().any()


@pytest.mark.parametrize("token", [-1, 1 << 32])
def test_a_writer_refuses_what_is_no_token_id(token: int) -> None:
    for writer in make_writers().values():
        with pytest.raises(SpecError, match="token ids"):
            writer([1, 2, 3, 4, 5, token], torch.zeros(9))


def test_a_tokenizer_is_known_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    assert tokenizer_hash(tmp_path) == hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(UnavailableError, match="missing"):
        tokenizer_hash(tmp_path / "elsewhere")


def test_profiles_and_messages_have_keys_of_their_own() -> None:
    draws = [ZeroBit(KEY, p).draws.of_tokens([1], [2]).tobytes()[:4] for p in (KGW, UNIGRAM, TOURNAMENT)]
    draws.append(BinPlus(KEY).draws.of_tokens([1], [2]).tobytes()[:4])
    assert len(set(draws)) == 4
