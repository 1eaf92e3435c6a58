"""The keyed sign test against scipy, big-integer laws, and the mistakes seen elsewhere."""

from __future__ import annotations

import ast
import bisect
import inspect
import math
from collections import Counter
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from zhiyi_watermark import prf, stats
from zhiyi_watermark.errors import SpecError

NEARLY = Fraction(1, 2**250)  # how far over the truth a law in fixed point may be


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
    for n, matches in ((31_500, 16_300), (31_501, 17_000), (5_000, 2_501), (4_000_000, 2_004_000)):
        ours = stats.binomial_tail(matches, n).log2_p
        assert ours == pytest.approx(float(binom.logsf(matches - 1, n, 0.5)) / math.log(2), rel=1e-8)


@pytest.mark.parametrize("n", [8193, 8194, 9001, 12_000])
@pytest.mark.parametrize("chance", [Fraction(1, 2), Fraction(1, 4), Fraction(7, 100), Fraction(1, 10**5)])
def test_binomial_tails_of_many_coins_are_upper_bounds_and_close(n: int, chance: Fraction) -> None:
    yes, no = chance.numerator, chance.denominator - chance.numerator
    spread = math.isqrt(n * yes * no // chance.denominator**2) + 1
    mean = n * yes // chance.denominator
    near = Fraction(1, 2**28) if chance == Fraction(1, 2) else 1 / (7 * n * chance * (1 - chance))
    for matches in (mean + 1, mean + spread, mean + 5 * spread, mean + 12 * spread):
        weight = math.comb(n, matches) * yes**matches * no ** (n - matches)
        exact = 0
        for k in range(matches, min(n, matches + 60 * spread) + 1):  # what is left is far under any float
            exact += weight
            weight = weight * (n - k) * yes // ((k + 1) * no)
        found = stats.binomial_tail(matches, n, chance).p
        assert found is not None
        truth = Fraction(exact, chance.denominator**n)
        assert truth <= found
        if mean > 0:
            assert found <= truth * (1 + near)


def test_a_certain_text_has_a_p_that_can_be_written_down() -> None:
    """Millions of votes all of which match: no p is smaller than 2^-1024, and none takes long."""
    for n in (2000, 66_060_288):
        found = stats.binomial_tail(n, n)
        assert found.p == Fraction(1, 2**1024)
        assert found.log2_p == -1024


@given(st.lists(st.integers(0, 15), min_size=1, max_size=40), st.data())
@settings(max_examples=80, deadline=None)
def test_sign_tail_is_the_exact_law(magnitudes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(-3, sum(magnitudes)))
    exact = big_integer_tail(magnitudes, total) if total > 0 else Fraction(1)
    found = stats.sign_tail(np.array(magnitudes), total).p
    assert found is not None
    least = max(exact, Fraction(1, 2**1024))
    assert (
        least <= found <= least * (1 + Fraction(1, 2**100))
    )  # equal magnitudes are coins, rounded up by less


@given(st.integers(321, 700), st.integers(0, 2**32), st.data())
@settings(max_examples=12, deadline=None)
def test_sign_tail_of_many_signs_is_the_law_rounded_up(n: int, seed: int, data: st.DataObject) -> None:
    q = np.random.default_rng(seed).integers(0, 6, n)
    total = data.draw(st.integers(1, int(q.sum())))
    exact = big_integer_tail(q.tolist(), total)
    found = stats.sign_tail(q, total).p
    assert found is not None
    assert exact <= found <= exact + NEARLY


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


def test_the_law_of_many_signs_is_the_exact_one_rounded_up() -> None:
    """Against the big-integer law, for several shapes of q and totals of both parities."""
    rng = np.random.default_rng(4)
    for q in (
        rng.integers(-7, 8, 3000), rng.integers(1, 3, 4001), 3 * rng.integers(0, 4, 2500),
        np.append(np.ones(6000, dtype=np.int64), [40, 40, 30]),
    ):  # fmt: skip
        law = stats.sign_law(Counter(np.abs(q).tolist()))
        assert law is not None
        assert law.slack < Fraction(1, 2**149)
        reference = stats.two_point_law(np.abs(q), -np.abs(q), np.ones_like(q), 2)
        spread = math.isqrt(int((q * q).sum()))
        for total in (1, 2, spread // 3, *(k * spread - k % 2 for k in (1, 4, 5, 10, 13, 16))):
            found, truth = law.tail(total).p, reference.tail(total).p
            assert found is not None
            assert truth is not None
            assert truth <= found <= truth + 2 * law.slack + NEARLY
        assert law.tail(0).p == law.tail(-spread).p == 1
        beyond = law.tail(
            40 * spread
        ).p  # taken for 16 standard deviations: an upper bound, never below the truth
        assert beyond is not None
        assert Fraction(1, 2**1024) < beyond < Fraction(1, 2**149)


@given(st.integers(500, 1500), st.lists(st.integers(0, 40), max_size=12), st.integers(1, 2000))
@settings(max_examples=20, deadline=None)
def test_the_law_of_signs_is_never_below_the_truth(ones: int, counts: list[int], total: int) -> None:
    magnitudes = np.repeat(np.arange(len(counts) + 2), [0, ones, *counts])
    truth = stats.two_point_law(magnitudes, -magnitudes, np.ones_like(magnitudes), 2).tail(total).p
    law = stats.sign_law(dict(enumerate([0, ones, *counts])))
    if law is not None:
        found = law.tail(total).p
        assert found is not None
        assert truth is not None
        assert truth <= found + NEARLY


def test_a_million_signs_cost_no_power() -> None:
    """z of 4.76 is enough for 1e-6, where the closed bound takes 5.26."""
    q = np.clip(np.rint(4 * np.random.default_rng(1).standard_t(4, 1_000_000)), -127, 127).astype(np.int64)
    spread = math.sqrt(int((q * q).sum()))
    enough, short = (stats.sign_tail(q, round(z * spread)) for z in (4.76, 4.74))
    assert (enough.law, short.law) == ("exact", "exact")
    assert enough.at_most(stats.TRACE)
    assert not short.at_most(stats.TRACE)
    assert not stats.bound_tail(round(5.25 * spread), int((q * q).sum())).at_most(stats.TRACE)


def test_long_objects_without_small_q_fall_back_to_the_bound_and_say_so() -> None:
    q = np.resize(np.array([6, 10, 15]), 70_000)
    tail = stats.sign_tail(q, 20_000)
    assert tail.law == "bound"
    assert tail.sum_q2 == int((q * q).sum())
    assert stats.sign_tail(q[:500], 500).law == "exact"
    assert stats.sign_tail(np.resize(np.array([1, 3, 1 << 20]), 70_000), 1 << 24).law == "bound"
    doubled = stats.sign_tail(2 * np.resize(np.array([1, 15, 7]), 70_000), 39_999)
    assert doubled.p == stats.sign_tail(np.resize(np.array([1, 15, 7]), 70_000), 20_000).p
    assert stats.sign_law({0: 5}) is stats.sign_law({}) is stats.sign_law({7: 0}) is None
    for wrong in ({1: -1}, {-1: 1}):
        with pytest.raises(SpecError, match="negative"):
            stats.sign_law(wrong)


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 8)), min_size=1, max_size=9),
    st.integers(-100, 100),
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
    assert found == max(exact, Fraction(1, 2**1024))


def test_the_law_of_a_long_tardos_code_against_counting() -> None:
    """The shape of a trace: probabilities in 1/256, one unit for all gaps, rounded up many times."""
    rng = np.random.default_rng(8)
    q = rng.integers(-6, 7, 200)
    cheap = rng.random(200) < 0.5
    parts = np.where(cheap, 54, 202)
    one, zero = np.where(cheap, 15, 4) * q, np.where(cheap, -4, -15) * q
    law = {0: 1}
    for high, low, ways in zip(one.tolist(), zero.tolist(), parts.tolist(), strict=True):
        following: dict[int, int] = {}
        for value, count in law.items():
            for moved, chance in ((value + high, ways), (value + low, 256 - ways)):
                following[moved] = following.get(moved, 0) + count * chance
        law = following
    found = stats.two_point_law(one, zero, parts, 256)
    for total in (-3000, -500, 0, 1, 700, 1500, 2500, max(law)):
        exact = Fraction(sum(w for v, w in law.items() if v >= total), 256**200)
        p = found.tail(total).p
        assert p is not None
        assert exact <= p <= exact + NEARLY
    assert found.tail(max(law) + 1).p == Fraction(1, 2**1024)


@given(st.integers(1, 60), st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=20), st.data())
@settings(max_examples=60, deadline=None)
def test_binomial_tail_of_biased_coins(n: int, chance: Fraction, data: st.DataObject) -> None:
    matches = data.draw(st.integers(0, n))
    exact = sum(
        (math.comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(matches, n + 1)), Fraction(0)
    )
    found = stats.binomial_tail(matches, n, chance).p
    assert found is not None
    assert exact <= found
    if matches > n * chance:
        assert found <= exact * (1 + Fraction(1, 2**100))


@given(st.integers(1, 9), st.integers(10, 19), st.integers(1, 40), st.integers(1, 40), st.data())
@settings(max_examples=80, deadline=None)
def test_two_sizes_of_signs_have_the_law_of_all_their_sums(
    a: int, b: int, many: int, few: int, data: st.DataObject
) -> None:
    total = data.draw(st.integers(1, a * many + b * few))
    ways = 0
    for i in range(many + 1):
        for k in range(few + 1):
            if a * (2 * i - many) + b * (2 * k - few) >= total:
                ways += math.comb(many, i) * math.comb(few, k)
    exact = Fraction(ways, 1 << many + few)
    found = stats.sign_tail(np.array([a, 0] * many + [-b] * few), total)
    assert found == stats.sign_counts_tail({0: 5, a: many, b: few}, total)
    assert found.p is not None
    assert exact <= found.p <= exact + NEARLY


def test_two_sizes_of_many_signs() -> None:
    """Far beyond what can be listed: against scipy's binomials, summed over the rarer size."""
    many, few, total = 40_000, 60, 1700
    expected = sum(
        math.comb(few, k)
        / 2**few
        * float(binom.sf(math.ceil((total - 7 * (2 * k - few) + many) / 2) - 1, many, 0.5))
        for k in range(few + 1)
    )
    found = stats.sign_counts_tail({1: many, 7: few}, total)
    assert found.law == "exact"
    assert found.p is not None
    assert float(found.p) == pytest.approx(expected, rel=1e-6)
    assert stats.sign_counts_tail({2: 15 << 20, 1: 15 << 20}, 10**6).at_most(stats.CONVICT)
    assert stats.sign_counts_tail({}, 0).p == 1
    for wrong in ({-1: 3}, {1: -3}):
        with pytest.raises(SpecError, match="negative"):
            stats.sign_counts_tail(wrong, 1)


@given(st.lists(st.integers(0, 15), min_size=2, max_size=30), st.data())
@settings(max_examples=40, deadline=None)
def test_more_evidence_never_has_a_larger_p(q: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(1, max(1, sum(q))))
    if total >= sum(q):
        return
    here, above = (stats.sign_tail(np.array(q), t) for t in (total, total + 1))
    assert not here.beats(above)
    assert stats.bound_tail(total + 1, 100).beats(stats.bound_tail(total, 100))
    assert stats.bound_tail(total, 99).beats(stats.bound_tail(total, 100))
    if here.at_most(Fraction(1, 50)):
        assert above.at_most(Fraction(1, 50))


def test_exact_laws_and_bounds_are_not_compared() -> None:
    with pytest.raises(SpecError, match="compared"):
        stats.bound_tail(3, 9).beats(stats.binomial_tail(3, 3))
    assert not stats.bound_tail(-5, 9).beats(stats.bound_tail(0, 9))


def test_no_float_takes_part_in_a_decision() -> None:
    """Only three functions know floats, they serve people, and nothing else in the file calls them."""
    for_people = {"_log2", "log2_p", "log2_p_global"}
    tree = ast.parse(inspect.getsource(stats))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert for_people < {f.name for f in functions}
    for function in functions:
        if function.name in for_people:
            continue
        body = list(ast.walk(function))
        constants = [n.value for n in body if isinstance(n, ast.Constant)]
        assert not any(isinstance(c, float) for c in constants), function.name
        names = {n.id for n in body if isinstance(n, ast.Name)} | {
            n.attr for n in body if isinstance(n, ast.Attribute)
        }
        assert not names & (for_people | {"float", "float32", "float64", "log", "log2", "exp", "sqrt"})
    divided = {
        ast.unparse(n.left) for n in ast.walk(tree) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)
    }
    # an int over a Fraction; a Fraction over another; _log2's Fraction; a Fraction over an int
    assert {d.partition("(")[0] for d in divided} == {"hypotheses", "Fraction", "value", "near"}


def test_a_threshold_between_two_floats_is_still_met_exactly() -> None:
    p = Fraction(1, 2**43)
    inside, outside = p, p + Fraction(1, 2**200)
    assert float(inside) == float(outside)
    for found, said in ((inside, "detected"), (outside, "inconclusive")):
        tail = stats.Tail("exact", found)
        assert stats.decide(tail, count=1, tried=1, threshold=stats.CONVICT) == said


def test_a_case_that_the_normal_approximation_gets_wrong() -> None:
    # a green list of .25, n = 96, z = 6.13: the normal tail is 4.4e-10, the exact value 1.19e-8
    n, green = 96, 50
    z = (green - n / 4) / math.sqrt(n * 0.25 * 0.75)
    assert z == pytest.approx(6.13, abs=0.01)
    ones = np.ones(n, dtype=np.int64)
    tail = stats.two_point_law(ones, 0 * ones, ones, 4).tail(green)
    assert tail.p is not None
    assert float(tail.p) == pytest.approx(1.19e-8, rel=0.01)
    assert float(tail.p) == pytest.approx(float(binom.sf(green - 1, n, 0.25)), rel=1e-9)
    counted = stats.binomial_tail(green, n, Fraction(1, 4)).p
    assert counted is not None
    assert tail.p <= counted <= tail.p * (1 + Fraction(1, 2**100))


def test_p_values_of_unmarked_objects_are_not_too_small() -> None:
    rng = np.random.default_rng(11)
    q = rng.integers(-15, 16, 600)
    law = stats.two_point_law(q, -q, np.ones_like(q), 2)
    tails = [law.tail(int((q * prf.signs(prf.derive_key(bytes(32), "t", i), 600)).sum())) for i in range(300)]
    p = np.array([float(t.p or 0) for t in tails])
    for level in (0.5, 0.1, 0.02):
        # Clopper-Pearson would do; four standard deviations are simpler and can still fail
        assert (p <= level).mean() <= level + 4 * math.sqrt(level * (1 - level) / 300)
    assert (p <= 0.5).mean() > 0.3  # nor useless


def test_every_hypothesis_is_counted() -> None:
    assert stats.hypotheses(models=2, licenses=1000, windows=3) == 6000
    assert stats.allowance(grind_bits=40) == 1 << 40
    with pytest.raises(SpecError):
        stats.hypotheses(licenses=0)
    tail = stats.Tail("exact", Fraction(1, 10**9))
    assert tail.at_most(stats.TRACE, 1000)
    assert not tail.at_most(stats.TRACE, 1001)


def test_objects_chosen_after_the_fact_pay_for_every_choice() -> None:
    assert stats.hypotheses(licenses=10, offered=100, used=8) == 10 * math.comb(100, 8)
    assert stats.hypotheses(offered=5, used=5) == 1
    with pytest.raises(SpecError, match="chosen"):
        stats.hypotheses(offered=3, used=4)


def test_the_best_of_many_unmarked_objects_is_no_evidence() -> None:
    """Of 100 objects without the mark the 8 with the largest T pass 1e-6 together; not once their choice is paid."""
    n, trials, naive, paid = 64, 40, 0, 0
    for trial in range(trials):
        key = prf.derive_key(bytes(32), "chosen", trial)
        totals = prf.signs(key, n * 100).reshape(100, n).astype(np.int64).sum(axis=1)
        best = int(np.sort(totals)[-8:].sum())
        tail = stats.binomial_tail((8 * n + best) // 2, 8 * n)
        naive += tail.at_most(stats.TRACE)
        paid += tail.at_most(stats.TRACE, stats.hypotheses(offered=100, used=8))
    assert naive > trials // 4
    assert paid == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-4, 4)), max_size=40),
    st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_every_position_is_used_once_over_all_objects(rows: list[tuple[int, int, int]], clip: int) -> None:
    positions = np.array([r[:2] for r in rows], dtype=np.int64).reshape(-1, 2)
    first, q = stats.pooled(positions, np.array([r[2] for r in rows], dtype=np.int64), clip)
    sums: dict[tuple[int, int], int] = {}
    for a, b, value in rows:
        sums[a, b] = sums.get((a, b), 0) + value
    assert [(int(a), int(b)) for a, b in positions[first]] == list(sums)
    assert q.tolist() == [max(-clip, min(clip, value)) for value in sums.values()]


def test_repeated_positions_counted_twice_are_false_evidence() -> None:
    """A text that repeats itself: 60 pairs used five times each pass 1e-3 far too often, pooled they do not."""
    positions = np.tile(np.arange(60), 5)[:, None]
    ones = np.ones(300, dtype=np.int64)
    first, q = stats.pooled(positions, ones, 1)
    assert (len(first), int(q.sum())) == (60, 60)
    twice = once = 0
    for i in range(2000):
        signs = prf.signs(prf.derive_key(bytes(32), "repeat", i), 60).astype(np.int64)
        total = int(signs.sum())
        twice += stats.binomial_tail(max(0, (300 + 5 * total) // 2), 300).at_most(stats.REJECT)
        once += stats.sign_tail(q, total).at_most(stats.REJECT)
    assert twice > 40
    assert once <= 6  # 2 expected


def test_a_marks_shares_together_stay_under_the_threshold() -> None:
    """Each share pays for all 16, so the chance that any of them speaks against an innocent is one threshold."""
    assert stats.allowance(shares=16, grind_bits=40) == 16 << 40
    threshold = Fraction(1, 50)
    wrong = {16: 0, 1: 0}
    for mark in range(300):
        key = prf.derive_key(bytes(32), "shares", mark)
        totals = prf.signs(key, 16 * 400).reshape(16, 400).astype(np.int64).sum(axis=1)
        best = stats.binomial_tail((400 + int(totals.max())) // 2, 400)
        for counted in wrong:
            wrong[counted] += best.at_most(threshold, stats.allowance(shares=counted))
    assert wrong[16] <= 300 * threshold + 4 * math.sqrt(300 * threshold)
    assert wrong[1] > 50  # a threshold for each share alone: 16 of them err together
    with pytest.raises(SpecError, match="share"):
        stats.allowance(shares=0)
    with pytest.raises(SpecError, match="grind_bits"):
        stats.allowance(grind_bits=-1)


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


def test_binplus_votes_read_for_another_license() -> None:
    """A text marked for one codeword by 63 votes a token: at chip level many innocent codewords have a small p,
    because the votes are the key's and not theirs; at bit level none has."""
    rng = np.random.default_rng(5)
    bits, tokens, innocents = 63, 500, 10_000
    key = prf.derive_key(bytes(32), "votes")
    words = prf.signs(prf.derive_key(key, "words"), bits * (innocents + 1)).reshape(-1, bits)
    guilty = words[0].astype(np.int64)
    votes = np.where(
        rng.random((tokens, bits)) < 0.5 + 0.06, guilty, -guilty
    )  # 56 % of the votes for the word
    sums = stats.BitSums(votes.sum(axis=0))
    n = tokens * bits
    candidates = range(n // 2, n)
    passes = bisect.bisect_left(
        candidates, True, key=lambda m: stats.binomial_tail(m, n).at_most(stats.TRACE)
    )
    totals = words[1:].astype(np.int64) @ sums.q  # (innocents,)
    chip_hits = int(((n + totals) // 2 >= candidates[passes]).sum())
    law = stats.two_point_law(sums.q, -sums.q, np.ones(bits, dtype=np.int64), 2)
    bit_hits = sum(law.tail(int(t)).at_most(stats.TRACE) for t in np.sort(totals)[-50:])
    assert chip_hits > 50
    assert bit_hits == 0
    assert stats.fair_license_tail(sums, words[0]).at_most(stats.TRACE, innocents + 1)


def test_the_two_hypotheses_are_different_types() -> None:
    scored = stats.chip_test(np.ones(4, dtype=np.int64), np.ones(4, dtype=np.int8))
    with pytest.raises(AttributeError):
        stats.fair_license_tail(scored, np.ones(4, dtype=np.int8))  # type: ignore[arg-type]  # the mistake
    assert not hasattr(stats.BitSums(np.ones(4, dtype=np.int64)), "tail")


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
        stats.two_point_law(np.array([1 << 24, 3]), np.array([0, 0]), np.array([1, 1]), 2)
    with pytest.raises(SpecError, match="list"):
        stats.two_point_law(np.array([1, 2]), np.array([0]), np.array([1]), 2)
    with pytest.raises(SpecError, match="chance"):
        stats.binomial_tail(1, 2, Fraction(1))
    with pytest.raises(SpecError):
        stats.Tail("exact", Fraction(1, 2)).at_most(Fraction(0))
    with pytest.raises(SpecError):
        stats.chip_test(np.zeros(3, dtype=np.int64), np.ones(4, dtype=np.int8))
    with pytest.raises(SpecError, match="signs"):
        stats.chip_test(np.zeros(3, dtype=np.int64), np.array([1, 0, -1], dtype=np.int8))
    with pytest.raises(SpecError, match="too large"):
        stats.chip_test(np.full(3, 1 << 31), np.ones(3, dtype=np.int8))
    with pytest.raises(SpecError, match="rows"):
        stats.pooled(np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.int64), 1)
    with pytest.raises(SpecError, match="clip"):
        stats.pooled(np.zeros((3, 1), dtype=np.int64), np.ones(3, dtype=np.int64), 0)


def test_another_way_of_being_wrong_is_added() -> None:
    tail = stats.Tail("exact", Fraction(1, 1000))
    five, more = Fraction(5, 1000), Fraction(5001, 10**6)
    assert tail.at_most(Fraction(1, 100), 5, five)
    assert not tail.at_most(Fraction(1, 100), 5, more)
    assert not tail.at_most(five, 1, five)
    assert tail.log2_p_global(5, five) == pytest.approx(math.log2(0.01))
    assert stats.decide(tail, count=5, tried=1, threshold=Fraction(1, 100), besides=five) == "detected"
    assert stats.decide(tail, count=5, tried=1, threshold=Fraction(1, 100), besides=more) == "not_detected"
    sure = stats.Tail("exact", Fraction(1, 10**30))
    assert [stats.bucket(sure, 1, b) for b in (Fraction(0), Fraction(1, 10**13), Fraction(1, 10**6))] == [
        20,
        12,
        0,
    ]
    bound = stats.bound_tail(100, 400)  # 2^-18.03
    assert bound.at_most(Fraction(1, 1 << 17), 1, Fraction(1, 1 << 18))
    assert not bound.at_most(Fraction(1, 1 << 17), 1, Fraction(3, 1 << 19))
    with pytest.raises(SpecError, match="besides"):
        tail.at_most(five, 1, Fraction(-1))


def test_a_bound_is_sorted_by_what_else_may_be_wrong_too() -> None:
    """Two closed bounds far below their other chance of a wrong name: that chance decides which is told."""
    strong, weak = stats.bound_tail(2000, 1000), stats.bound_tail(1000, 1000)
    likely, rare = Fraction(1, 1 << 20), Fraction(1, 1 << 60)
    assert stats.order(strong, 8) < stats.order(weak, 8)
    assert stats.order(weak, 8, rare) < stats.order(strong, 8, likely)
    assert stats.order(strong, 8, rare) < stats.order(weak, 8, likely)
    assert stats.order(weak, 8, rare)[0] == -59  # rounded up, as p_global is no less
    assert stats.order(stats.bound_tail(0, 9), 1, likely)[0] == 0
