"""Zero-bit profiles: what is found, what never is, exact laws, undistorted sampling, golden verdicts."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_text
from transformers import SynthIDTextWatermarkingConfig, WatermarkingConfig

from zhiyi_watermark import prf, stats
from zhiyi_watermark.errors import SpecError
from zhiyi_watermark.result import Detection
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_stream import NO_TOKENIZER
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM, GreenList, Profile, Tournament, ZeroBit

KEY = hashlib.sha256(b"zero-bit key").digest()
PROFILES = {p.name: p for p in (KGW, UNIGRAM, TOURNAMENT)}
VECTORS = json.loads((Path(__file__).resolve().parents[1] / "vectors" / "text_marks.json").read_text())


@pytest.fixture(params=PROFILES, scope="module")
def mark(request: pytest.FixtureRequest) -> ZeroBit:
    return ZeroBit(KEY, PROFILES[request.param])


@pytest.fixture(scope="module")
def texts(text_model: Any, mark: ZeroBit) -> list[list[int]]:
    return write_text(text_model, mark.processor(), tokens=200, rows=3)


@pytest.fixture(scope="module")
def plain(text_model: Any) -> list[list[int]]:
    return write_text(text_model, None, tokens=300, rows=4, seed=5)


NONE_TAKEN = np.zeros(5, dtype=np.bool_)


def test_marked_text_is_found_and_other_text_is_not(
    mark: ZeroBit, texts: list[list[int]], plain: list[list[int]]
) -> None:
    for text in texts:
        found = mark.detect(text)
        assert (found.decision, found.payload, found.license) == ("detected", None, None)
        assert found.log2_p_global < math.log2(1e-6)
        assert found.method == f"{mark.config.name}-1"
    assert all(mark.detect(text).decision == "not_detected" for text in plain)
    other = ZeroBit(hashlib.sha256(b"another key").digest(), mark.config)
    assert all(other.detect(text).decision == "not_detected" for text in texts)


def test_marked_text_pasted_into_other_text_is_found_where_it_is(
    mark: ZeroBit, text_model: Any, plain: list[list[int]]
) -> None:
    strong = mark.config if isinstance(mark.config, Tournament) else replace(mark.config, bias=4.0)  # type: ignore[type-var]  # both are dataclasses
    text = write_text(text_model, ZeroBit(KEY, strong).processor(), tokens=300, seed=2)[0]
    found = mark.detect([*plain[0], *plain[1], *text, *plain[2], *plain[3]])  # 600 to 900 of 1,500
    assert found.decision == "detected"
    low, high = found.spans[0]
    assert 400 <= low < high <= 1100
    assert found.hypotheses > 10


def test_repetition_is_no_evidence(mark: ZeroBit, texts: list[list[int]]) -> None:
    once, case = mark.detect(texts[0]), mark.detect_case([texts[0]] * 4)
    assert (once.n, once.T, once.log2_p) == (case.n, case.T, case.log2_p)
    looped = [1, 2, 3, 4, 5] * 2000
    assert mark.detect(looped).n == 5 * mark.config.chips


def test_texts_of_a_case_add_up(mark: ZeroBit, texts: list[list[int]]) -> None:
    parts = [text[:60] for text in texts]
    assert mark.detect_case(parts).log2_p_global < min(mark.detect(p).log2_p_global for p in parts)


def test_p_is_that_of_the_law(mark: ZeroBit) -> None:
    """Against counts made here, of hashes made here."""
    text = prf.integers(KEY, 60, 50).tolist()
    h, profile = mark.config.context, mark.config
    seen = {tuple(text[i : i + h + 1]) for i in range(len(text) - h)}
    size = 8 if isinstance(profile, GreenList) else 4
    key = prf.derive_key(KEY, f"{profile.name} lists")
    draws = [
        hashlib.blake2b(b"".join(x.to_bytes(4, "little") for x in g), key=key, digest_size=size).digest()
        for g in seen
    ]
    found = mark.detect(text)
    if isinstance(profile, GreenList):
        green = sum(Fraction(int.from_bytes(d, "little"), 1 << 64) < profile.greenlist_ratio for d in draws)
        tail = stats.binomial_tail(green, len(seen), profile.greenlist_ratio)
        assert (
            green * profile.greenlist_ratio.denominator - len(seen) * profile.greenlist_ratio.numerator
            == found.T
        )
        assert found.n == len(seen)
    else:
        bits = [int.from_bytes(d, "big") >> (31 - layer) & 1 for d in draws for layer in range(30)]
        q = np.tile(np.array([2] * 15 + [1] * 15), len(seen))
        assert sum((2 * b - 1) * w for b, w in zip(bits, q.tolist(), strict=True)) == found.T
        assert (found.n, found.sum_q2) == (len(q), int((q * q).sum()))
        tail = stats.sign_tail(q, found.T)
    assert found.log2_p == round(tail.log2_p, 6)


def test_the_null_is_calibrated(mark: ZeroBit, plain: list[list[int]]) -> None:
    """1,200 keys on one unmarked text of 60 tokens: no level is passed more often than it says."""
    p = []
    for i in range(1200):
        tail = ZeroBit(prf.derive_key(KEY, "null", i), mark.config).detect(plain[0][:60])
        p.append(2.0**tail.log2_p)
    for level in (0.5, 0.1, 0.01):
        share = float(np.mean(np.array(p) <= level))
        assert share <= level + 4 * math.sqrt(level * (1 - level) / 1200)
        assert share >= level / 3  # few coins have few values


def test_a_tournament_changes_nothing_on_average() -> None:
    """Over the draw of the key the probabilities are the model's; the bias of a green list is not so."""
    p = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    values = np.log(p)
    digests = prf.keystream(KEY, 4 * 5 * 2000).reshape(2000, 5, 4)
    made = np.stack([np.exp(TOURNAMENT.marked(values, one, NONE_TAKEN)) for one in digests])  # (keys, tokens)
    assert np.allclose(made.sum(axis=1), 1)
    error = made.mean(axis=0) - p
    assert (np.abs(error) < 4 * made.std(axis=0) / math.sqrt(2000)).all()
    assert float(made.max(axis=1).mean()) > 0.9  # though each key has nearly made up its mind


def test_a_tournament_is_a_knock_out_between_two_draws() -> None:
    """One layer, by its definition: two tokens are drawn, the one with g = 1 wins, a tie is tossed."""
    p = np.array([0.5, 0.2, 0.2, 0.1])
    g = np.array([0, 1, 0, 1])
    expected = np.zeros(4)
    for x in range(4):
        for y in range(4):
            winners = [x, y] if g[x] == g[y] else [x] if g[x] else [y]
            for w in winners:
                expected[w] += p[x] * p[y] / len(winners)
    one = Tournament(layers=1, temperature=0.7)
    made = one.marked(0.7 * np.log(p), (g.astype(np.uint8) << 7)[:, None], NONE_TAKEN)
    assert np.allclose(np.exp(made / 0.7), expected)


def test_a_context_has_one_tournament() -> None:
    writer = ZeroBit(KEY, Tournament(ngram_len=3, top_k=8)).writer()
    scores = torch.linspace(2, 0, 8)
    assert not torch.equal(writer([1, 2], scores), scores)
    assert torch.equal(writer([1, 2, 3, 1, 2], scores), scores)
    assert not torch.equal(writer([1, 2, 3, 1, 2, 3, 3], scores), scores)


def test_a_token_that_counts_is_neither_favored_nor_avoided() -> None:
    writer = ZeroBit(KEY, UNIGRAM).writer()
    scores = torch.zeros(40)
    fresh, later = writer([], scores), writer([3, 4, 5], scores)
    assert torch.allclose(torch.softmax(later, 0)[3:6], torch.full((3,), 1 / 40))
    assert not torch.allclose(torch.softmax(fresh, 0)[3:6], torch.full((3,), 1 / 40))
    assert torch.equal(fresh[6:], later[6:])
    assert sorted(set(fresh.round(decimals=4).tolist())) == [0, UNIGRAM.bias]


def test_a_green_list_has_its_share() -> None:
    for ratio in (Fraction(1, 4), Fraction(1, 3), Fraction(9, 10)):
        profile = GreenList(ratio)
        scores = profile.scores(prf.keystream(KEY, 8 * 20_000).reshape(-1, 8))
        share = float((scores > 0).mean())
        assert abs(share - ratio) < 4 * math.sqrt(ratio * (1 - ratio) / 20_000)
        assert set(scores.tolist()) == {ratio.denominator - ratio.numerator, -ratio.numerator}
    edge = np.array([(1 << 62) - 1, 1 << 62], dtype="<u8").view(np.uint8).reshape(2, 8)
    assert KGW.scores(edge).tolist() == [3, -1]


def test_parameters_of_transformers_are_taken_over() -> None:
    ours = GreenList.of(WatermarkingConfig(greenlist_ratio=0.3, bias=1.5, context_width=2))  # type: ignore[no-untyped-call]  # transformers
    assert ours == GreenList(Fraction(3, 10), 1.5, 2)
    synthid = SynthIDTextWatermarkingConfig(ngram_len=4, keys=list(range(1, 25)))  # type: ignore[no-untyped-call]  # transformers
    assert Tournament.of(synthid, temperature=0.7) == Tournament(4, 24, temperature=0.7)
    with pytest.raises(SpecError, match="selfhash"):
        GreenList.of(WatermarkingConfig(seeding_scheme="selfhash"))  # type: ignore[no-untyped-call]  # transformers


def test_wrong_settings_are_refused() -> None:
    for wrong in (
        {"greenlist_ratio": 0.25}, {"greenlist_ratio": Fraction(0)}, {"greenlist_ratio": Fraction(1)},
        {"greenlist_ratio": Fraction(1, 1001)}, {"bias": -1.0}, {"bias": math.nan}, {"context_width": -1}, {"top_k": 1},
        {"temperature": 0.0},
    ):  # fmt: skip
        with pytest.raises(SpecError):
            GreenList(**wrong)  # type: ignore[arg-type]  # the mistakes
    for layers, ngram_len in ((0, 5), (257, 5), (30, 1), (30, 99)):
        with pytest.raises(SpecError):
            Tournament(ngram_len, layers)
    with pytest.raises(SpecError, match="32 bytes"):
        ZeroBit(b"short")


def test_empty_and_short_texts_are_no_evidence(mark: ZeroBit) -> None:
    for tokens in ([], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4, 5]):
        assert mark.detect(tokens).decision == "not_detected"
    assert mark.detect_case([]).n == 0


def test_only_what_the_verdict_depends_on_is_in_the_spec_hash() -> None:
    def spec(profile: Profile, tokenizer: str = NO_TOKENIZER) -> bytes:
        return ZeroBit(KEY, profile, tokenizer).spec_hash()

    assert spec(GreenList(bias=1.0, top_k=9, temperature=0.7)) == spec(GreenList())
    assert spec(Tournament(top_k=9, temperature=0.7)) == spec(Tournament())
    others: list[Profile] = [
        GreenList(), GreenList(Fraction(1, 2)), GreenList(context_width=2), UNIGRAM, Tournament(), Tournament(4),
        Tournament(layers=20),
    ]  # fmt: skip
    assert len({spec(p) for p in others} | {spec(KGW, "1" * 64)}) == len(others) + 1
    with pytest.raises(SpecError, match="64 hexadecimal"):
        spec(KGW, "no hash")


def test_detect_text_uses_the_canonical_form() -> None:
    class Letters:
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return [ord(c) for c in text]

    mark = ZeroBit(KEY)
    text = "The quick brown fox jumps over the lazy dog"
    assert mark.detect_text("\u200b".join(text), Letters()) == mark.detect([ord(c) for c in text])


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda c: f"{c['mark']}-{c['detection']['decision']}")
def test_golden_verdicts(case: dict[str, Any]) -> None:
    key = bytes.fromhex(VECTORS["key"][2:])
    context = list(range(5, 5 + case["context"]))
    found: Detection
    if case["mark"].startswith("binplus"):
        multi = BinPlus(key, BinPlusConfig(long="64" in case["mark"]))
        draw, kit_key = multi.draws.of_tokens(context, [9]), multi.kit_key
        found = multi.detect(case["tokens"], VECTORS["users"])
    else:
        zero = ZeroBit(key, PROFILES[case["mark"]])
        draw, kit_key = zero.draws.of_tokens(context, [9]), zero.kit_key
        found = zero.detect(case["tokens"])
    assert "0x" + draw.tobytes().hex() == case["firstDraw"]
    assert case["detection"] == {
        "decision": found.decision,
        "payload": None if found.payload is None else "0x" + found.payload.hex(),
        "n": found.n,
        "T": found.T,
        "sumQ2": found.sum_q2,
        "bucket": found.bucket,
        "hypotheses": found.hypotheses,
        "span": list(found.spans[0]),
        "law": found.law,
    }
    assert "0x" + replace(found, spec_hash="").digest(kit_key).hex() == case["digestOfNoSpec"]
