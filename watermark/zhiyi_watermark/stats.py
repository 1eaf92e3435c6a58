"""The keyed sign test: exact tails, one closed bound, corrections, thresholds.

A detector turns an object into integers q_i without the key; a secret key gives fair signs s_i. Two
hypotheses are kept apart by type, because scoring one at the other's level accuses innocents:

(a) "this key is in the object": ChipTest, T = sum q_i s_i c_i. H0: the object was made without the key.
(b) "this license": BitSums, Q_b = sum over the chips of bit b of q_i s_i, then T_j = sum Q_b w(c_jb). H0: the
license's own secret bits were not used. An object marked for A *was* made with B's chip signs (they are the
model's), so only the codeword is random for B.

Laws: "binomial" and "exact" are the true tail, rounded up; "bound" is Hoeffding's P(T >= t) <= exp(-t^2 / (2
sum q^2)) in integer arithmetic, for a contract or for n where the exact law is too slow; "two-point" is the
exact law of independent two-point variables (a Tardos code's innocent). There is no Gaussian approximation,
and decisions use no library logarithm: they compare exact rationals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.errors import SpecError

TRACE: Final = Fraction(1, 10**6)  # p_global below this names a candidate: information, no money
CONVICT: Final = Fraction(1, 2**43)  # p_global at or below this is a detection in a case
REJECT: Final = Fraction(1, 10**3)  # p above this says: not detected
GRIND_CORRECTION_BITS: Final = 40  # keys a dishonest fingerprinter could have tried before committing
BUCKETS: Final = (40, 20, 12)  # what the chain may learn of -log10 p_global

# 2 ln 2 = 1.386294361119890...; rounded up, so that the bound never claims more bits than it has.
TWO_LN2_NUM: Final = 1_386_294_362
TWO_LN2_DEN: Final = 10**9

_FLOAT_SLACK: Final = 1.0 + 2.0**-30  # covers rounding of at most 2^20 positive float64 additions
_FLOAT_FLOOR: Final = 2.0**-900  # covers underflow; no tail from a float law is reported below it
_EXACT_WORK: Final = 400_000_000  # cell updates of the exact law, about a second
_FIXED_BITS: Final = 192  # fixed-point bits of the binomial series

Law = Literal["binomial", "exact", "bound", "two-point"]
Decision = Literal["detected", "not_detected", "inconclusive"]
IntArray = npt.NDArray[np.int64]


def _ceil_log2(value: Fraction) -> int:
    """The least k with 2^k >= value, value > 0."""
    k = value.numerator.bit_length() - value.denominator.bit_length() - 1
    while value > (Fraction(1 << k) if k >= 0 else Fraction(1, 1 << -k)):
        k += 1
    return k


def _log2(value: Fraction) -> float:
    """log2 for display only."""
    shift = value.numerator.bit_length() - value.denominator.bit_length()
    scaled = value / (1 << shift) if shift >= 0 else value * (1 << -shift)
    return shift + math.log2(scaled)


@dataclass(frozen=True)
class Tail:
    """An upper bound on P(T >= t | H0), exact or closed.

    p is set for the exact laws; the closed bound keeps t and sum q^2 and is compared without ever leaving
    integers.
    """

    law: Law
    p: Fraction | None = None
    total: int = 0
    sum_q2: int = 0

    @property
    def log2_p(self) -> float:
        """log2 of p, at most 0: for people and reports, not for decisions."""
        if self.p is not None:
            return min(0.0, _log2(self.p))
        if self.total <= 0 or self.sum_q2 <= 0:
            return 0.0
        return -float(Fraction(self.total**2 * TWO_LN2_DEN, self.sum_q2 * TWO_LN2_NUM))

    def log2_p_global(self, hypotheses: int) -> float:
        """log2 of min(1, hypotheses * p), for people and reports."""
        return min(0.0, self.log2_p + _log2(Fraction(hypotheses)))

    def at_most(self, threshold: Fraction, hypotheses: int = 1) -> bool:
        """Whether hypotheses * p <= threshold, decided exactly (the bound: with whole bits, rounded against
        it)."""
        if threshold <= 0 or hypotheses < 1:
            raise SpecError(f"threshold {threshold} must be > 0 and hypotheses {hypotheses} >= 1")
        if self.p is not None:
            return self.p * hypotheses <= threshold
        return bound_reaches(self.total, self.sum_q2, _ceil_log2(hypotheses / threshold))


def bound_reaches(total: int, sum_q2: int, bits: int) -> bool:
    """The contract's rule: T > 0 and T^2 >= 2 ln2 * bits * sum q^2, in integers. bits <= 0 always holds."""
    if bits <= 0:
        return True
    return total > 0 and total * total * TWO_LN2_DEN >= TWO_LN2_NUM * bits * sum_q2


def bound_tail(total: int, sum_q2: int) -> Tail:
    """Hoeffding's bound for any integers q with that sum of squares. Raises SpecError on a negative sum."""
    if sum_q2 < 0:
        raise SpecError(f"a sum of squares can't be {sum_q2}")
    return Tail("bound", None, int(total), int(sum_q2))


def binomial_tail(matches: int, n: int) -> Tail:
    """P(at least `matches` of n fair coins), an exact value rounded up by less than 2^-100 of itself."""
    if n < 0 or not 0 <= matches <= n:
        raise SpecError(f"matches {matches} must lie in 0 .. n = {n}")
    if (
        2 * matches <= n
    ):  # the series below falls only above the middle; a tail of half or more decides nothing
        return Tail("binomial", Fraction(1))
    first = math.comb(n, matches)
    # sum_{k >= M} C(n,k) / C(n,M), with every division rounded up
    term = total = 1 << _FIXED_BITS
    k = matches
    while k < n and term > 1:
        term = -(-term * (n - k) // (k + 1))
        total += term
        k += 1
    total += term * (n - k)  # what is left is at most this many terms no larger than the last
    return Tail("binomial", min(Fraction(1), Fraction(first * total, 1 << (n + _FIXED_BITS))))


@dataclass(frozen=True, eq=False)
class TwoPointLaw:
    """The law of sum_b X_b, X_b independent, two values each; made by two_point_law."""

    base: int  # the least value of the sum
    at_least: npt.NDArray[np.float64]  # P(sum >= base + k) before slack.  # (reach + 1,)

    def tail(self, total: int) -> Tail:
        """P(sum >= total), rounded up."""
        k = total - self.base
        if k <= 0:
            return Tail("two-point", Fraction(1))
        p = float(self.at_least[k]) * _FLOAT_SLACK if k < len(self.at_least) else 0.0
        return Tail("two-point", Fraction(min(1.0, p + _FLOAT_FLOOR)))


def two_point_law(high: IntArray, low: IntArray, numerator: IntArray, denominator: int) -> TwoPointLaw:
    """The law of sum_b X_b with X_b = high_b with probability numerator_b/denominator, else low_b.

    The denominator is a power of two, so that the probabilities are exact floats. Only additions and products
    of positive numbers: the relative error stays far under the slack that tail() adds. high, low, numerator:
    (bits,)
    Raises SpecError when the table would be too large; scale the values down then.
    """
    high, low, numerator = (np.asarray(x, dtype=np.int64) for x in (high, low, numerator))
    if denominator < 1 or denominator & (denominator - 1):
        raise SpecError(f"the denominator must be a power of two, given {denominator}")
    if numerator.size and not (int(numerator.min()) >= 0 and int(numerator.max()) <= denominator):
        raise SpecError(f"probabilities must lie in 0 .. {denominator}/{denominator}")
    least, gap = np.minimum(high, low), np.abs(high - low)
    above = np.where(high >= low, numerator, denominator - numerator)  # chance of the larger value, in parts
    reach = int(gap.sum())
    if reach > 1 << 23 or gap.size * (reach + 1) > 2 * _EXACT_WORK:
        raise SpecError(
            f"{gap.size} variables reaching {reach} are too many for the exact law; scale them down"
        )
    order = np.argsort(gap, kind="stable")
    law = np.zeros(reach + 1, dtype=np.float64)
    law[0] = 1.0
    filled = 1
    for step, parts in zip(gap[order].tolist(), above[order].tolist(), strict=True):
        if step == 0:
            continue
        up = law[:filled] * (parts / denominator)
        law[:filled] *= (denominator - parts) / denominator
        law[step : step + filled] += up
        filled += step
    return TwoPointLaw(int(least.sum()), np.add.accumulate(law[::-1])[::-1])


def sign_tail(magnitudes: IntArray, total: int) -> Tail:
    """P(sum of ±|q_i| >= total) for fair signs: the exact law where affordable, else the closed bound.

    magnitudes: |q_i|, zeros allowed, each under 2^31.  # (n,)
    Raises SpecError if no signs could reach that total.
    """
    values = np.abs(np.asarray(magnitudes, dtype=np.int64))
    values = values[values > 0]
    if total <= 0:
        return Tail("exact", Fraction(1))
    reach = int(values.sum())
    if total > reach:
        raise SpecError(f"T = {total} is more than sum |q| = {reach}; T and q are not of one object")
    unit = int(np.gcd.reduce(values))
    if unit * values.size == reach:  # all equal: a count of matches
        return binomial_tail((values.size + -(-total // unit) + 1) // 2, values.size)
    if values.size * reach // unit > _EXACT_WORK or reach // unit > 1 << 22:
        if int(values.max()) >= 1 << 31:
            raise SpecError(f"|q| is {int(values.max())}, at most 2^31-1 are allowed")
        return bound_tail(total, sum(int(v) * int(v) * int(c) for v, c in _histogram(values)))
    values //= unit
    law = two_point_law(values, -values, np.ones_like(values), 2)
    return Tail("exact", law.tail(-(-total // unit)).p)


def _histogram(values: IntArray) -> list[tuple[int, int]]:
    found, counts = np.unique(values, return_counts=True)
    return list(zip(found.tolist(), counts.tolist(), strict=True))


@dataclass(frozen=True)
class ChipTest:
    """Hypothesis (a), is this key in the object: T = sum q_i s_i c_i over chips with fair, independent
    signs."""

    total: int
    n: int  # chips with q != 0
    sum_q2: int
    reach: int  # sum |q|, the largest possible T

    def tail(self) -> Tail:
        """The closed bound: chips are too many for the exact law, and the bound is what a contract can
        check."""
        return bound_tail(self.total, self.sum_q2)


def chip_test(q: npt.NDArray[np.signedinteger[Any]], signs: npt.NDArray[np.int8]) -> ChipTest:
    """Scores integers q (any shape) against ±1 signs of the same shape, for hypothesis (a)."""
    if q.shape != signs.shape:
        raise SpecError(f"q has shape {q.shape}, the signs {signs.shape}")
    wide = q.astype(np.int64)
    return ChipTest(
        total=int((wide * signs).sum()),
        n=int(np.count_nonzero(q)),
        sum_q2=int((wide * wide).sum()),
        reach=int(np.abs(wide).sum()),
    )


@dataclass(frozen=True, eq=False)
class BitSums:
    """Hypothesis (b), which license: chips already summed with the key's signs, one integer a codeword
    bit."""

    q: IntArray  # (bits,)

    def quantised(self, levels: int) -> BitSums:
        """The sums in units that put their median magnitude near levels/3, clipped at ±levels: integers only.

        The unit depends on no license's codeword, so the law under (b) is not touched.
        """
        magnitudes = np.sort(np.abs(self.q))
        median = int(magnitudes[len(magnitudes) // 2]) if len(magnitudes) else 0
        unit = max(1, (3 * median + levels - 1) // levels)
        rounded = (2 * np.abs(self.q) + unit) // (2 * unit)
        clipped: IntArray = np.minimum(rounded, levels)
        return BitSums(np.where(self.q < 0, -clipped, clipped))


def bit_sums(
    q: npt.NDArray[np.signedinteger[Any]],
    signs: npt.NDArray[np.int8],
    bit: npt.NDArray[np.signedinteger[Any]],
    bits: int,
) -> BitSums:
    """Q_b = sum of q_i s_i over the chips with bit_i = b. q, signs, bit: (chips,)"""
    if not q.shape == signs.shape == bit.shape:
        raise SpecError(f"q {q.shape}, signs {signs.shape} and bits {bit.shape} differ in shape")
    sums = np.zeros(bits, dtype=np.int64)
    np.add.at(sums, bit, q.astype(np.int64) * signs)
    return BitSums(sums)


def fair_license_tail(sums: BitSums, codeword: npt.NDArray[np.int8]) -> Tail:
    """Hypothesis (b) for codewords of fair independent bits ±1: P(sum ±|Q_b| >= T_j). codeword: (bits,)"""
    return sign_tail(sums.q, int((sums.q * codeword).sum()))


def hypotheses(
    *, models: int = 1, licenses: int = 1, sync: int = 1, windows: int = 1, grind_bits: int = 0
) -> int:
    """How many hypotheses were tried: p_global = min(1, this * p). Raises SpecError on a count under 1."""
    counts = {"models": models, "licenses": licenses, "sync": sync, "windows": windows}
    for name, count in counts.items():
        if count < 1:
            raise SpecError(f"{name} = {count}: every hypothesis tried is counted, so at least 1")
    if not 0 <= grind_bits <= 256:
        raise SpecError(f"grind_bits must lie in 0 .. 256, given {grind_bits}")
    return math.prod(counts.values()) << grind_bits


def decide(tail: Tail, *, count: int, tried: int, threshold: Fraction) -> Decision:
    """detected if count*p <= threshold, not_detected if tried*p > REJECT, else inconclusive.

    count: every correction; tried: the hypotheses scored here, without the allowance for ground keys, which
    would turn everything short of a detection into "not detected".
    """
    if tail.at_most(threshold, count):
        return "detected"
    return "inconclusive" if tail.at_most(REJECT, tried) else "not_detected"


def bucket(tail: Tail, count: int) -> int:
    """-log10 p_global rounded down to 40, 20, 12 or 0: the only figure that may leave the committee."""
    return next((b for b in BUCKETS if tail.at_most(Fraction(1, 10**b), count)), 0)
