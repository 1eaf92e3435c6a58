"""BIN+ on a tiny random Llama: who is named, who never is, what survives, and what the processor promises."""

from __future__ import annotations

import bisect
import hashlib
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from conftest import VOCABULARY, write_text

from zhiyi_watermark import stats
from zhiyi_watermark.errors import SpecError
from zhiyi_watermark.payload import Long, Short
from zhiyi_watermark.text_multibit import (
    BinPlus,
    BinPlusConfig,
    _least_bits,
    fingerprint_of,
    user_of,
    weights,
)
from zhiyi_watermark.text_stream import grams, windows

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


def test_texts_of_one_user_are_never_read_as_anothers(text_model: Any, mark: BinPlus) -> None:
    """Short, hard texts: a wrong message must fail its MAC."""
    short = write_text(text_model, mark.processor(Short(7)), tokens=60, rows=40, seed=9)
    named = [mark.detect(t, 1 << 16).payload for t in short]
    assert {user_of(p) for p in named if p} <= {7}


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


def test_texts_of_one_case_add_up(text_model: Any, mark: BinPlus) -> None:
    parts = write_text(
        text_model, BinPlus(KEY, BinPlusConfig(horizon=150)).processor(Short(7)), tokens=150, rows=3, seed=3
    )
    alone = [mark.detect(p, USERS).log2_p_global for p in parts]
    assert mark.detect_case(parts, USERS).log2_p_global < min(alone)


def test_the_null_is_calibrated(mark: BinPlus, plain: list[list[int]]) -> None:
    """Chips of unmarked text against many keys: mean and variance of T are those of fair coins."""
    z = []
    for i in range(150):
        other = BinPlus(hashlib.sha256(b"null" + bytes([i])).digest())
        votes = other.draws.signs(other.draws.of_grams(grams(plain[:2], 3).distinct))
        code = 2 * other.code.encode(Short(i)).astype(np.int64) - 1
        z.append(float((votes @ code).sum()) / math.sqrt(votes.size))
    assert abs(float(np.mean(z))) < 4 / math.sqrt(150)
    assert 0.75 < float(np.std(z)) < 1.3


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
    for users in (0, -1, (1 << 16) + 1, {-1}, {1 << 16}, set()):
        with pytest.raises(SpecError):
            mark.detect([1, 2, 3], users)
    for wrong in ({"delta": -1.0}, {"context": 0}, {"temperature": 0.0}, {"top_k": 1}, {"delta": math.nan}):
        with pytest.raises(SpecError):
            BinPlusConfig(**wrong)
    with pytest.raises(SpecError, match="tokens"):
        mark.detect(range(1 << 21), USERS)


def test_empty_and_short_texts_are_no_evidence(mark: BinPlus) -> None:
    for tokens in ([], [1], [1, 2], [1, 2, 3]):
        assert mark.detect(tokens, USERS).decision == "not_detected"


def test_only_what_the_verdict_depends_on_is_in_the_spec_hash() -> None:
    base = BinPlusConfig()
    assert base.spec_hash() == BinPlusConfig(delta=0.5, horizon=99, temperature=0.7, top_k=20).spec_hash()
    assert base.spec_hash() != BinPlusConfig(context=3).spec_hash()
    assert base.spec_hash() != BinPlusConfig(long=True).spec_hash()


@pytest.mark.parametrize("delta", [1.0, 8.0])
def test_more_strength_is_more_votes(text_model: Any, delta: float) -> None:
    """Also where the bias outweighs the model: what counts already must not become the likeliest."""
    mark = BinPlus(KEY, BinPlusConfig(delta=delta, horizon=300))
    (text,) = write_text(text_model, mark.processor(Short(5)), tokens=300)
    found = mark.detect(text, USERS)
    assert found.payload is not None
    assert (200 if delta == 1.0 else 3000) < found.T
