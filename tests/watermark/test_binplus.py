"""BIN+ on a tiny random Llama: who is named, who never is, what survives, and what the processor promises."""

from __future__ import annotations

import bisect
import hashlib
import math
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from conftest import VOCABULARY, write_text

from zhiyi_watermark import stats
from zhiyi_watermark.bch import Bits
from zhiyi_watermark.errors import SpecError
from zhiyi_watermark.payload import Long, PayloadCode, Short, fingerprint_of, user_of
from zhiyi_watermark.text_multibit import (
    MOST_DECODED,
    BinPlus,
    BinPlusConfig,
    _least_bits,
    _words,
    loudest,
    weights,
)
from zhiyi_watermark.text_stream import NO_TOKENIZER, grams, windows

KEY = hashlib.sha256(b"text key").digest()
USERS = 1000


@pytest.fixture(scope="module")
def mark() -> BinPlus:
    return BinPlus(KEY, BinPlusConfig(horizon=400))


@pytest.fixture(scope="module")
def texts(text_model: Any, mark: BinPlus) -> list[list[int]]:
    """Three texts, of users 11, 22 and 999."""
    return write_text(text_model, mark.processor([Short(11), Short(22), Short(999)]), rows=3)


@pytest.fixture(scope="module")
def plain(text_model: Any) -> list[list[int]]:
    return write_text(text_model, None, rows=6, seed=5)


def test_each_row_of_a_batch_names_its_user(mark: BinPlus, texts: list[list[int]]) -> None:
    for text, user in zip(texts, (11, 22, 999), strict=True):
        found = mark.detect(text, USERS)
        assert found.decision == "detected"
        assert found.payload is not None
        assert user_of(found.payload) == user
        assert found.log2_p_global < math.log2(1e-6)
        assert found.n == found.sum_q2 == 63 * len({tuple(text[i : i + 3]) for i in range(len(text) - 2)})


def test_unmarked_text_names_nobody(mark: BinPlus, plain: list[list[int]]) -> None:
    for text in plain:
        found = mark.detect(text, 1 << 16)
        assert (found.decision, found.payload, found.bucket) == ("not_detected", None, 0)


def test_another_models_key_names_nobody(texts: list[list[int]]) -> None:
    for i in range(30):
        other = BinPlus(hashlib.sha256(bytes([i])).digest())
        assert all(other.detect(t, 1 << 16).decision == "not_detected" for t in texts)


def test_a_user_who_is_not_registered_is_not_named(mark: BinPlus, texts: list[list[int]]) -> None:
    assert mark.detect(texts[2], 999).decision == "not_detected"
    assert mark.detect(texts[0], {10, 12}).payload is None
    assert mark.detect(texts[0], {11}).payload is not None


def voted(mark: BinPlus, coded: Bits, tokens: int, seed: int, of: int = 4) -> list[int]:
    """A text that votes for a word, each token the best of a few random ones.  # coded: (bits,)"""
    rng = random.Random(seed)
    signs = 2 * coded.astype(np.int64) - 1
    text = [rng.randrange(VOCABULARY) for _ in range(2)]
    while len(text) < tokens:
        offered = [rng.randrange(VOCABULARY) for _ in range(of)]
        votes = mark.draws.signs(mark.draws.of_tokens(text[-2:], offered)) @ signs
        text.append(offered[int(votes.argmax())])
    return text


@pytest.mark.parametrize("long", [False, True])
def test_a_word_with_a_wrong_check_value_names_nobody(long: bool) -> None:
    """Three words of a linear code add up to a fourth: here it says user 1 ^ 2 ^ 4 = 7, who is registered, and its
    check value is the sum of theirs."""
    mark = BinPlus(KEY, BinPlusConfig(long=long))
    word = np.bitwise_xor.reduce([mark.code.encode(Long(9, u) if long else Short(u)) for u in (1, 2, 4)])
    text = voted(mark, word, 500, seed=1)
    found = mark.detect(text, 1 << 16)
    assert (found.decision, found.payload, found.T) == ("not_detected", None, 0)
    right = voted(mark, mark.code.encode(Long(9, 7) if long else Short(7)), 500, seed=1)
    payload = mark.detect(right, 1 << 16).payload
    assert payload is not None
    assert user_of(payload) == 7


def test_texts_of_some_users_are_never_read_as_anothers(mark: BinPlus) -> None:
    """Passages of three users in one text: the likeliest word is often nobody's, and only its check value tells."""
    others = 0
    for i in range(30):
        users = [3 * i, 3 * i + 1, 3 * i + 2]
        words = [mark.code.encode(Short(u)) for u in users]
        text = [t for n, word in enumerate(words) for t in voted(mark, word, 84, seed=3 * i + n, of=16)]
        sums = mark.draws.signs(mark.draws.of_grams(grams([text], 3).distinct)).sum(axis=0, dtype=np.int64)
        read = mark.code.data_bits(sums)
        others += not any(
            np.array_equal(read, mark.code.data_bits(2 * w.astype(np.int64) - 1)) for w in words
        )
        payload = mark.detect(text, 1 << 16).payload
        assert payload is None or user_of(payload) in users
    assert others >= 10


@pytest.mark.parametrize(("users", "strength"), [(0, 0), (1, 0.9), (2, 1.5), (2, 3), (3, 2), (3, 8), (5, 4)])
@pytest.mark.parametrize("long", [False, True])
def test_words_that_nobody_wrote_come_as_near_as_their_law_says(
    users: int, strength: float, long: bool
) -> None:
    """Sums of users' words in all shares, with noise: no level is passed more often than it says."""
    rng = np.random.default_rng(users)
    code = PayloadCode(KEY, long)
    rounds = 60 if long else 150
    near = []
    for _ in range(rounds):
        words = np.array(
            [2 * code.encode(Long(int(u), 1) if long else Short(int(u))).astype(np.int64) - 1
             for u in rng.choice(1 << 16, users, replace=False)]
        ).reshape(users, code.bits)  # fmt: skip
        mixed = rng.dirichlet(np.ones(users) * 5) @ words if users else 0.0
        sums = np.rint(20 * (strength * mixed + rng.standard_normal(code.bits))).astype(np.int64)
        plain = np.empty_like(sums)
        plain[code._order()] = sums
        read = 2 * code.code.decode_soft(plain)[code._order()].astype(np.int8) - np.int8(1)
        if not any(np.array_equal(read, word) for word in words):
            near.append(stats.wrong_word(stats.BitSums(sums), read, data_bits=code.code.k, check_bits=0))
    assert len(near) > 0.03 * rounds
    for level in (Fraction(1, 2), Fraction(1, 8), Fraction(1, 64)):
        share = sum(x <= level for x in near) / rounds
        assert share <= level + 4 * math.sqrt(level * (1 - level) / rounds)
    if users == 0:
        assert sum(x <= Fraction(1, 2) for x in near) >= rounds / 10  # it does not claim too little either


def test_every_word_and_key_pays_for_a_wrong_name(mark: BinPlus) -> None:
    """Weak texts, whose chips are far below any doubt: the more keys are tried, the more of the code must agree."""
    refused = 0
    for seed in range(12):
        text = voted(mark, mark.code.encode(Short(5)), 200, seed)[: 150 + 5 * seed]
        sums = mark.draws.signs(mark.draws.of_grams(grams([text], 3).distinct)).sum(axis=0, dtype=np.int64)
        word = 2 * mark.code.encode(Short(5)).astype(np.int8) - np.int8(1)
        wrong = stats.wrong_word(stats.BitSums(sums), word, data_bits=36, check_bits=20)
        for models in (1, 1 << 12, 1 << 20):
            found = mark.detect_case([text], USERS, models=models)
            if found.T == 0:
                continue
            p = stats.binomial_tail((found.n + found.T) // 2, found.n).p
            assert p is not None
            total = p * models * USERS + models * wrong
            assert found.log2_p_global == pytest.approx(min(0, math.log2(total)), abs=1e-5)
            assert (found.payload is not None) == (total <= stats.TRACE)
            refused += p * models * USERS <= stats.TRACE < total
    assert refused > 0
    assert [_words(0, 1), _words(0, 16), _words(1, 16), _words(1, 2)] == [1, 2, 30, 2]


def test_windows_that_are_decoded_are_sixteen_and_the_loudest() -> None:
    """A window of few grams, as spam has, is no louder for that."""
    rng = np.random.default_rng(3)
    counts = [5000, 1, 2, *[250] * 40]
    sums = np.stack([rng.integers(0, 2, (n, 63)).sum(axis=0) * 2 - n for n in counts])
    sums[30] += 30
    chosen = loudest(counts, sums)
    assert chosen[:2] == [0, 30]
    assert len(chosen) == len(set(chosen)) == MOST_DECODED
    assert loudest([0], np.zeros((1, 63), dtype=np.int64)) == [0]


@pytest.mark.parametrize("attack", ["delete 10 %", "synonyms 10 %", "insert 10 %", "truncate to 60 %"])
def test_what_survives_editing(attack: str, mark: BinPlus, texts: list[list[int]]) -> None:
    rng = random.Random(4)
    found = 0
    for text, user in zip(texts, (11, 22, 999), strict=True):
        if attack.startswith("delete"):
            edited = [t for t in text if rng.random() > 0.1]
        elif attack.startswith("synonyms"):
            edited = [rng.randrange(VOCABULARY) if rng.random() < 0.1 else t for t in text]
        elif attack.startswith("insert"):
            edited = [
                x for t in text for x in ([t, rng.randrange(VOCABULARY)] if rng.random() < 0.1 else [t])
            ]
        else:
            edited = text[: len(text) * 6 // 10]
        payload = mark.detect(edited, USERS).payload
        found += payload is not None and user_of(payload) == user
    assert found >= 2


def test_marked_text_pasted_into_other_text_is_found_in_a_window(
    mark: BinPlus, texts: list[list[int]], plain: list[list[int]]
) -> None:
    pasted = plain[0] + plain[1] + texts[1] + plain[2] + plain[3]
    found = mark.detect(pasted, USERS)
    assert found.decision == "detected"
    assert found.payload is not None
    assert user_of(found.payload) == 22
    low, high = found.spans[0]
    assert 700 <= low < high <= 1300  # tokens; the marked ones are 800 to 1200
    assert found.hypotheses == USERS * len(windows(len(pasted) - 2))


def test_repeating_a_text_adds_no_evidence(mark: BinPlus, texts: list[list[int]]) -> None:
    once, case = mark.detect(texts[0], USERS), mark.detect_case([texts[0]] * 5, USERS)
    assert (once.n, once.T, once.log2_p) == (case.n, case.T, case.log2_p)
    looped = [1, 2, 3, 4, 5] * 2000  # 5 distinct pairs, whatever the key says of them
    assert mark.detect(looped, USERS).n == 63 * 5


def test_texts_of_one_case_add_up(mark: BinPlus) -> None:
    parts = [voted(mark, mark.code.encode(Short(7)), 60, seed) for seed in range(5)]
    assert all(mark.detect(p, USERS).payload is None for p in parts)
    case = mark.detect_case(parts, USERS)
    assert case.payload is not None
    assert user_of(case.payload) == 7
    assert case.n == 63 * len({tuple(p[i : i + 3]) for p in parts for i in range(len(p) - 2)})
    long = BinPlus(KEY, BinPlusConfig(long=True))
    word = long.code.encode(Long(1 << 20, 7))
    several = long.detect_case([voted(long, word, 150, seed) for seed in range(4)], USERS)
    assert several.payload == long.code.message(Long(1 << 20, 7))


@pytest.mark.parametrize("tokens", [135, 420])
def test_the_null_is_calibrated(
    tokens: int, mark: BinPlus, plain: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The detector on an unmarked text that repeats itself, under many keys, as if each word it decodes were a
    registered user's: no level is passed more often than it says."""
    monkeypatch.setattr(PayloadCode, "decode_soft", lambda *_: Short(5))
    text = plain[0][: tokens // 3] * 3
    rounds = 400 if tokens == 135 else 60
    p = []
    for i in range(rounds):
        found = BinPlus(hashlib.sha256(b"null %d" % i).digest()).detect(text, 10)
        p.append(min(1.0, 2.0**found.log2_p * len(windows(len(text) - 2))))
    for level in (0.5, 0.1, 0.01):
        share = float(np.mean(np.array(p) <= level))
        assert share <= level + 4 * math.sqrt(level * (1 - level) / rounds)
        if tokens == 135:
            assert share >= level / 2 - 4 * math.sqrt(level / rounds) / 2
    assert min(p) < 0.2


def test_long_payloads_come_back_from_800_tokens(text_model: Any) -> None:
    mark = BinPlus(KEY, BinPlusConfig(long=True, horizon=800, delta=1.0))
    message = Long(123_456, 77)
    text = write_text(text_model, mark.processor(message), tokens=800, seed=2)[0]
    found = mark.detect(text, 100)
    assert found.decision == "detected"
    assert found.payload is not None
    assert found.payload == mark.code.message(message)
    assert (user_of(found.payload), fingerprint_of(found.payload)) == (77, 123_456)
    assert found.hypotheses == 100 * (1 << 28) * len(windows(len(text) - 2))
    assert mark.detect(text, 100, {123_456, 5}).payload == found.payload
    assert mark.detect(text, 100, {123_456, 5}).hypotheses == 200 * len(windows(len(text) - 2))
    assert mark.detect(text, 77).payload is None  # user 77 is not registered
    assert mark.detect(text, 100, {5}).payload is None  # nor is the license


def test_every_message_that_could_be_named_counts(mark: BinPlus) -> None:
    """64 bits leave the fingerprint number free: counting users alone, 2^-16 of random texts would be named with a
    p as small as the best of 2^28 messages makes it."""
    long = BinPlus(KEY, BinPlusConfig(long=True))
    assert long.detect([1, 2, 3], 10).hypotheses == 10 << 28
    assert mark.detect([1, 2, 3], 10, {5}).hypotheses == 10  # no such number in 32 bits
    for wrong in (0, (1 << 28) + 1, {-1}, set()):
        with pytest.raises(SpecError, match="fingerprint"):
            long.detect([1, 2, 3], 10, wrong)
    assert long.detect([1, 2, 3], 10, range(1 << 28)).hypotheses == 10 << 28  # never listed
    with pytest.raises(SpecError, match="8 bytes"):
        fingerprint_of(bytes(4))


def test_the_processor_leaves_the_callers_scores_and_other_tokens_alone(mark: BinPlus) -> None:
    processor = mark.processor(Short(3))
    prompt = torch.tensor([[1, 2, 3]])
    scores = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(1))
    kept = scores.clone()
    assert torch.equal(processor(prompt, scores), scores)  # the context is still in the prompt
    processor(torch.tensor([[1, 2, 3, 4]]), scores)
    changed = processor(torch.tensor([[1, 2, 3, 4, 5]]), scores)
    assert torch.equal(scores, kept)
    moved = (changed != scores).nonzero()[:, 1]
    assert len(moved) == 50
    assert set(moved.tolist()) <= set(scores.topk(50).indices[0].tolist())


def test_the_bias_scales_with_the_samplers_temperature() -> None:
    rows = []
    for temperature in (1.0, 0.5):
        processor = BinPlus(KEY, BinPlusConfig(temperature=temperature)).processor(Short(3))
        scores = torch.zeros(1, VOCABULARY)
        for length in (3, 4, 5):
            out = processor(torch.arange(length)[None], scores)
        rows.append(out)
    assert torch.allclose(rows[0], rows[1] * 2)


def test_a_processor_has_a_payload_for_each_row(mark: BinPlus) -> None:
    processor = mark.processor([Short(1), Short(2)])
    with pytest.raises(SpecError, match="2 payloads"):
        processor(torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, 9))


def test_pairs_that_count_already_get_no_bias(mark: BinPlus) -> None:
    writer = mark.writer(Short(3))
    scores = torch.zeros(9)
    first = writer([1, 2], scores)
    assert (first != 0).all()
    again = writer([1, 2, 5, 1, 2], scores)
    assert torch.softmax(again, 0)[5].item() == pytest.approx(1 / 9)
    assert torch.softmax(first, 0)[5].item() != pytest.approx(1 / 9)


@pytest.mark.parametrize("count", [1, 1000, 65_536 * 50, (1 << 28) * 1000 * 500])
@pytest.mark.parametrize("n", [200 * 63, 256 * 63, 1024 * 127, 4096 * 63])
def test_a_window_that_is_not_decoded_could_not_have_decided(n: int, count: int) -> None:
    """The least T with count * p <= 1e-6 has the bits that are asked of a window; half as far from the mean has not."""
    candidates = range(n // 2, n)
    matches = candidates[
        bisect.bisect_left(
            candidates, True, key=lambda m: stats.binomial_tail(m, n).at_most(stats.TRACE, count)
        )
    ]
    bits = _least_bits(count, n)
    assert stats.bound_reaches(2 * matches - n, n, bits)
    assert not stats.bound_reaches((2 * matches - n) // 2, n, bits)


def test_lagging_bits_get_more_weight_and_the_rms_is_one() -> None:
    margin = np.array([-10, 0, 10, 30])
    rho = weights(margin, 200, 400)
    assert (np.diff(rho) < 0).all()
    assert float((rho**2).mean()) == pytest.approx(1)
    assert np.isfinite(weights(margin * 1000, 5000, 400)).all()


def test_detect_text_uses_the_canonical_form(mark: BinPlus, texts: list[list[int]]) -> None:
    class Letters:
        """A tokenizer whose tokens are code points from U+4E00."""

        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return [ord(c) - 0x4E00 for c in text]

    text = "\u200b".join(chr(0x4E00 + t) for t in texts[0])
    found = mark.detect_text(text, Letters(), USERS)
    assert found.T == mark.detect(texts[0], USERS).T


def test_wrong_settings_are_refused(mark: BinPlus) -> None:
    wrong_users: list[Any] = [
        0,
        -1,
        (1 << 16) + 1,
        {-1},
        {1 << 16},
        set(),
        {"a"},
        {1, "a"},
        1.5,
        None,
        [[1]],
        range(0),
    ]
    for users in wrong_users:
        with pytest.raises(SpecError, match="user numbers"):
            mark.detect([1, 2, 3], users)
    for wrong in ({"delta": -1.0}, {"context": 0}, {"temperature": 0.0}, {"top_k": 1}, {"delta": math.nan}):
        with pytest.raises(SpecError):
            BinPlusConfig(**wrong)
    with pytest.raises(SpecError, match="tokens"):
        mark.detect(range(1 << 21), USERS)
    wrong_messages: list[Any] = [7, None, Long(1, 2), Short("a"), Short(1.5)]  # type: ignore[arg-type]  # the mistakes
    for message in wrong_messages:
        with pytest.raises(SpecError, match=r"payload code|whole numbers"):
            mark.writer(message)


def test_empty_and_short_texts_are_no_evidence(mark: BinPlus) -> None:
    for tokens in ([], [1], [1, 2], [1, 2, 3]):
        assert mark.detect(tokens, USERS).decision == "not_detected"


def test_only_what_the_verdict_depends_on_is_in_the_spec_hash() -> None:
    def spec(tokenizer: str = NO_TOKENIZER, **config: Any) -> bytes:
        return BinPlus(KEY, BinPlusConfig(**config), tokenizer).spec_hash()

    assert spec() == spec(delta=0.5, horizon=99, temperature=0.7, top_k=20)
    assert len({spec(), spec(context=3), spec(long=True), spec("1" * 64)}) == 4
    for wrong in ("", "0" * 63, "G" * 64, None):
        with pytest.raises(SpecError, match="64 hexadecimal"):
            spec(wrong)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("delta", [1.0, 8.0])
def test_more_strength_is_more_votes(text_model: Any, delta: float) -> None:
    """Also where the bias outweighs the model: what counts already must not become the likeliest."""
    mark = BinPlus(KEY, BinPlusConfig(delta=delta, horizon=300))
    (text,) = write_text(text_model, mark.processor(Short(5)), tokens=300)
    found = mark.detect(text, USERS)
    assert found.payload is not None
    assert (200 if delta == 1.0 else 3000) < found.T
