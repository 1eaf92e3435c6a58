"""The keyed sign test against scipy, big-integer laws, and the mistakes seen elsewhere."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from zhiyi_watermark import prf, stats
from zhiyi_watermark.errors import SpecError

TIGHT = Fraction(1, 2**28)  # how far over the truth a float law may be


def big_integer_tail(magnitudes: list[int], total: int) -> Fraction:
    """P(sum ±q >= total) by counting all sign patterns in a dictionary of big integers."""
    law = {0: 1}
    for q in magnitudes:
        following: dict[int, int] = {}
        for value, ways in law.items():
            for moved in (value + q, value - q):
                following[moved] = following.get(moved, 0) + ways
        law = following
    return Fraction(sum(w for v, w in law.items() if v >= total), 2 ** len(magnitudes))


@pytest.mark.parametrize(
    ("n", "fpr", "least"),
    [
        *((48, f, m) for f, m in zip((1e-2, 1e-3, 1e-6, 1e-9), (33, 36, 41, 44), strict=True)),
        *((64, f, m) for f, m in zip((1e-2, 1e-3, 1e-6, 1e-9, 1e-12), (42, 45, 51, 56, 59), strict=True)),
        *((128, f, m) for f, m in zip((1e-2, 1e-3, 1e-6, 1e-9), (78, 82, 92, 98), strict=True)),
        *((256, f, m) for f, m in zip((1e-2, 1e-3, 1e-6, 1e-9), (148, 154, 167, 176), strict=True)),
    ],
)
def test_the_least_number_of_matches_for_a_rate(n: int, fpr: float, least: int) -> None:
    assert stats.binomial_tail(least, n).at_most(Fraction(fpr))
    assert not stats.binomial_tail(least - 1, n).at_most(Fraction(fpr))


@given(st.integers(1, 400), st.data())
@settings(max_examples=60, deadline=None)
def test_binomial_tail_is_the_exact_one_rounded_up_by_almost_nothing(n: int, data: st.DataObject) -> None:
    matches = data.draw(st.integers(n // 2 + 1, n))
    exact = Fraction(sum(math.comb(n, k) for k in range(matches, n + 1)), 2**n)
    found = stats.binomial_tail(matches, n).p
    assert found is not None
    assert exact <= found <= exact * (1 + Fraction(1, 2**100))


def test_binomial_tail_agrees_with_scipy_for_many_chips() -> None:
    for n, matches in ((31_500, 16_300), (31_500, 17_000), (5_000, 2_501)):
        ours = stats.binomial_tail(matches, n).log2_p
        assert ours == pytest.approx(float(binom.logsf(matches - 1, n, 0.5)) / math.log(2), rel=1e-9)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=40), st.data())
@settings(max_examples=80, deadline=None)
def test_sign_tail_is_the_exact_law(magnitudes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(-3, sum(magnitudes)))
    exact = big_integer_tail(magnitudes, total) if total > 0 else Fraction(1)
    found = stats.sign_tail(np.array(magnitudes), total).p
    assert found is not None
    assert exact <= found <= exact * (1 + TIGHT) + Fraction(1, 2**800)


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=40), st.integers(1, 800))
@settings(max_examples=80, deadline=None)
def test_the_closed_bound_is_never_below_the_exact_law(q: list[int], total: int) -> None:
    exact = big_integer_tail(q, total)
    for bits in (1, 3, 10, 20, 43):
        if stats.bound_reaches(total, sum(x * x for x in q), bits) and any(q):
            assert exact <= Fraction(1, 2**bits)


def test_the_closed_bound_costs_what_the_docs_say() -> None:
    # z = T / sqrt(sum q^2) needed at 1e-6 (20 bits): 5.26 by the bound
    root = 10_000
    assert not stats.bound_reaches(int(5.26 * root), root * root, 20)
    assert stats.bound_reaches(int(5.27 * root), root * root, 20)
    assert not stats.bound_reaches(-10 * root, root * root, 20)  # a large negative T is no evidence
    assert not stats.bound_reaches(0, 0, 1)


def test_long_objects_fall_back_to_the_bound_and_say_so() -> None:
    q = np.resize(np.array([1, 15, 7]), 70_000)
    tail = stats.sign_tail(q, 20_000)
    assert tail.law == "bound"
    assert tail.sum_q2 == int((q * q).sum())
    assert stats.sign_tail(q[:500], 500).law == "exact"


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 8)), min_size=1, max_size=9),
    st.integers(-60, 60),
)
@settings(max_examples=80, deadline=None)
def test_two_point_law_against_enumeration(items: list[tuple[int, int, int]], total: int) -> None:
    exact = Fraction(0)
    for picks in product((0, 1), repeat=len(items)):
        chance = Fraction(1)
        value = 0
        for (high, low, parts), up in zip(items, picks, strict=True):
            chance *= Fraction(parts if up else 8 - parts, 8)
            value += high if up else low
        exact += chance if value >= total else 0
    high, low, parts_of = np.array(items).T
    found = stats.two_point_law(high, low, parts_of, 8).tail(total).p
    assert found is not None
    assert exact <= found <= exact * (1 + TIGHT) + Fraction(1, 2**800)


def test_a_case_that_the_normal_approximation_gets_wrong() -> None:
    # transformers' WatermarkDetector (green share .25, n = 96) reports 4.4e-10 at z = 6.13; the exact value
    # is 1.19e-8
    n, green = 96, 50
    z = (green - n / 4) / math.sqrt(n * 0.25 * 0.75)
    assert z == pytest.approx(6.13, abs=0.01)
    ones = np.ones(n, dtype=np.int64)
    tail = stats.two_point_law(ones, 0 * ones, ones, 4).tail(green)
    assert tail.p is not None
    assert float(tail.p) == pytest.approx(1.19e-8, rel=0.01)
    assert float(tail.p) == pytest.approx(float(binom.sf(green - 1, n, 0.25)), rel=1e-9)


def test_p_values_of_unmarked_objects_are_not_too_small() -> None:
    rng = np.random.default_rng(11)
    q = rng.integers(-15, 16, 600)
    tails = [
        stats.sign_tail(q, int((q * prf.signs(prf.derive_key(bytes(32), "t", i), 600)).sum()))
        for i in range(300)
    ]
    p = np.array([float(t.p or 0) for t in tails])
    for level in (0.5, 0.1, 0.02):
        # Clopper-Pearson would do; four standard deviations are simpler and can still fail
        assert (p <= level).mean() <= level + 4 * math.sqrt(level * (1 - level) / 300)
    assert (p <= 0.5).mean() > 0.3  # nor useless


def test_every_hypothesis_is_counted() -> None:
    assert stats.hypotheses(models=2, licenses=1000, windows=3) == 6000
    assert stats.hypotheses(licenses=5, grind_bits=40) == 5 << 40
    with pytest.raises(SpecError):
        stats.hypotheses(licenses=0)
    tail = stats.Tail("exact", Fraction(1, 10**9))
    assert tail.at_most(stats.TRACE, 1000)
    assert not tail.at_most(stats.TRACE, 1001)


def test_decisions_are_three_valued_and_exact_at_their_edges() -> None:
    def say(p: Fraction, grind: int = 0) -> str:
        return stats.decide(stats.Tail("exact", p), count=1 << grind, tried=1, threshold=stats.CONVICT)

    assert say(Fraction(1, 2**43)) == "detected"
    assert say(Fraction(1, 2**43) + Fraction(1, 2**90)) == "inconclusive"
    assert say(Fraction(1, 2**83), grind=40) == "detected"
    assert say(Fraction(1, 2**82), grind=40) == "inconclusive"
    assert say(Fraction(1, 1000)) == "inconclusive"
    assert say(Fraction(1, 999)) == "not_detected"


def test_bound_and_exact_decisions_agree_on_thresholds_in_bits() -> None:
    # T^2 = 2 ln2 * 83 * sum q^2 exactly reached and just missed
    total = math.isqrt(-(-stats.TWO_LN2_NUM * 83 * 10**8 // stats.TWO_LN2_DEN)) + 1
    assert stats.bound_tail(total, 10**8).at_most(stats.CONVICT, 1 << 40)
    assert not stats.bound_tail(total - 1, 10**8).at_most(stats.CONVICT, 1 << 40)


@pytest.mark.parametrize(
    ("exponent", "bucket"), [(11, 0), (12, 12), (19, 12), (20, 20), (39, 20), (40, 40), (99, 40)]
)
def test_the_bucket_is_rounded_down(exponent: int, bucket: int) -> None:
    assert stats.bucket(stats.Tail("exact", Fraction(1, 10**exponent)), 1) == bucket


def test_scoring_a_license_at_chip_level_accuses_innocents_and_at_bit_level_does_not() -> None:
    """The reason why (a) and (b) have types of their own."""
    rng = np.random.default_rng(3)
    bits, per_bit, licenses = 48, 400, 2000
    key = prf.derive_key(bytes(32), "demo")
    chips = prf.signs(key, bits * per_bit)
    bit = np.repeat(np.arange(bits), per_bit)
    codewords = prf.signs(prf.derive_key(key, "words"), bits * licenses).reshape(licenses, bits)
    guilty = codewords[0]
    q = np.rint(2.0 * chips * guilty[bit] + rng.normal(0, 2, bits * per_bit)).astype(np.int64)

    sums = stats.bit_sums(q, chips, bit, bits)
    hits_at_bit_level = hits_at_chip_level = 0
    for innocent in codewords[1:]:
        tail = stats.fair_license_tail(stats.BitSums(np.clip(sums.q, -40, 40)), innocent)
        hits_at_bit_level += tail.at_most(stats.TRACE, licenses)
        mixed = stats.chip_test(q, (chips * innocent[bit]).astype(np.int8)).tail()
        hits_at_chip_level += mixed.at_most(stats.TRACE, licenses)
    assert hits_at_bit_level == 0
    assert hits_at_chip_level > 100
    assert stats.fair_license_tail(stats.BitSums(np.clip(sums.q, -40, 40)), guilty).at_most(
        stats.TRACE, licenses
    )


def test_impossible_input_is_refused() -> None:
    with pytest.raises(SpecError, match="sum"):
        stats.sign_tail(np.array([1, 2]), 4)
    with pytest.raises(SpecError):
        stats.binomial_tail(5, 4)
    with pytest.raises(SpecError):
        stats.bound_tail(1, -1)
    with pytest.raises(SpecError):
        stats.two_point_law(np.array([1]), np.array([0]), np.array([1]), 3)
    with pytest.raises(SpecError):
        stats.two_point_law(np.array([1 << 24]), np.array([0]), np.array([1]), 2)
    with pytest.raises(SpecError):
        stats.Tail("exact", Fraction(1, 2)).at_most(Fraction(0))
    with pytest.raises(SpecError):
        stats.chip_test(np.zeros(3, dtype=np.int64), np.ones(4, dtype=np.int8))
