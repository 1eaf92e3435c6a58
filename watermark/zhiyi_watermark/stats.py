"""The keyed sign test: exact tails, one closed bound, corrections, thresholds.

A detector turns an object into integers q_i without the key; a secret key gives fair signs s_i. Two
hypotheses are kept apart by type, because scoring one at the other's level accuses innocents:

(a) "this key is in the object": ChipTest, T = sum q_i s_i c_i. H0: the object was made without the key.
(b) "this license": BitSums, Q_b = sum over the chips of bit b of q_i s_i, then T_j = sum Q_b w(c_jb). H0: the
license's own secret bits were not used. An object marked for A *was* made with B's chip signs (they are the
model's), so only the codeword is random for B. A codeword with structure (BCH) has no such null: it is
decoded, its MAC checked and every registered one counted under (a). Only on places whose bits are independent, of a
message that went through a keyed permutation, it has one (payload, `independent`).

Laws: "binomial", "exact" and "two-point" are the true tail, rounded up: counts of fair or biased coins, signs
on unequal integers, and independent two-point variables (a Tardos code's innocent). Signs by the million are
summed through their characteristic function, in integers with every error counted (SignLaw). "bound" is
Hoeffding's P(T >= t) <= exp(-t^2 / (2 sum q^2)) (Hoeffding 1963, theorem 2), for a contract or where no exact law
is to be had. There is no Gaussian approximation. Decisions are made of integers and exact rationals alone: no
float and no library logarithm, so they are the same on every machine.

Families: every hypothesis tried is counted (hypotheses, Bonferroni), and so is what others could have tried
out of sight (allowance). Objects of a case are pooled: each PRF position gives one sign, however many objects
repeat it (pooled).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import accumulate
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.errors import SpecError

TRACE: Final = Fraction(1, 10**6)  # p_global at or below this names a candidate: information, no money
CONVICT: Final = Fraction(1, 2**43)  # p_global at or below this is a detection in a case
REJECT: Final = Fraction(1, 10**3)  # p above this says: not detected
GRIND_CORRECTION_BITS: Final = 40  # keys a dishonest fingerprinter could have tried before committing
BUCKETS: Final = (40, 20, 12)  # what the chain may learn of -log10 p_global

# 2 ln 2 = 1.386294361119890...; rounded up, so that the bound never claims more bits than it has.
TWO_LN2_NUM: Final = 1_386_294_362
TWO_LN2_DEN: Final = 10**9

_EXACT_WORK: Final = 150_000_000  # variables * values of their sum that the exact law may cost: seconds
_EXACT_REACH: Final = 1 << 20  # values of the sum that it may have: 100 MB of memory
_FIXED_BITS: Final = 192  # fixed-point bits of the binomial series
_EXACT_COINS: Final = 1 << 13  # up to here a binomial coefficient is computed, beyond bounded
_WALK_BITS: Final = 256  # fixed-point bits of the walk from the mode; half of them stay significant
_PI_TIMES_1E30: Final = 3_141_592_653_589_793_238_462_643_383_279  # pi, rounded down, for an upper bound
_LAW_BITS: Final = 320  # fixed-point bits of the other laws where exact counts would be longer
_LAW_REST: Final = 32  # bits of such a count under which a binomial's far ends are bounded instead of listed
_LAW_SPARE: Final = 64  # bits by which they may grow before they are rounded up again
_WAVE_BITS: Final = 384  # fixed-point bits of a characteristic function
_FAR: Final = 16  # standard deviations beyond which the law of many signs is not told apart: 2^-184
_MOST_WAVES: Final = 1 << 10  # of the characteristic function of many signs
_WIDEST: Final = 1 << 12  # largest |q|, in units of their common divisor, that the law of many signs takes
_PI2: Final = Fraction(98_696, 10_000)  # pi^2, rounded down
_LOG2_E: Final = Fraction(1_442_695, 10**6)  # rounded down
_LEAST: Final = Fraction(1, 1 << 1024)  # what is impossible is reported as this, so that p has a logarithm
_COARSE: Final = 31  # levels of a coded bit's sum that keep its exact law small
_MAX_Q: Final = (1 << 31) - 1  # squares of q, and their sums over 2^1 q of this size, fit 63 bits

Law = Literal["binomial", "exact", "bound", "two-point"]
Decision = Literal["detected", "not_detected", "inconclusive"]
Order = tuple[int, bool, Fraction]
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

    def log2_p_global(self, hypotheses: int, besides: Fraction = Fraction(0)) -> float:
        """log2 of min(1, hypotheses * p + besides), for people and reports."""
        counted = self.log2_p + _log2(Fraction(hypotheses))
        if not besides:
            return min(0.0, counted)
        high, low = max(counted, _log2(besides)), min(counted, _log2(besides))
        return min(0.0, high + math.log2(1 + 2.0 ** (low - high)))

    def at_most(self, threshold: Fraction, hypotheses: int = 1, besides: Fraction = Fraction(0)) -> bool:
        """Whether hypotheses * p + besides <= threshold, decided exactly (the bound: with whole bits, rounded against
        it). besides: the chance of being wrong in another way than this law's."""
        if threshold <= 0 or hypotheses < 1 or besides < 0:
            raise SpecError(
                f"threshold {threshold} must be > 0, hypotheses {hypotheses} >= 1 and besides {besides} >= 0"
            )
        threshold -= besides
        if threshold <= 0:
            return False
        if self.p is not None:
            return self.p * hypotheses <= threshold
        return bound_reaches(self.total, self.sum_q2, _ceil_log2(hypotheses / threshold))

    def beats(self, other: Tail) -> bool:
        """Whether p is smaller than the other's, decided exactly. Raises SpecError on a bound and an exact law:
        they are not on one scale."""
        if self.p is not None and other.p is not None:
            return self.p < other.p
        if self.p is not None or other.p is not None:
            raise SpecError(f"tails of the laws {self.law} and {other.law} can't be compared")
        ours, theirs = max(0, self.total), max(0, other.total)
        return ours * ours * other.sum_q2 > theirs * theirs * self.sum_q2


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


def binomial_tail(matches: int, n: int, chance: Fraction = Fraction(1, 2)) -> Tail:
    """P(at least `matches` of n coins of that chance), rounded up.

    By less than 2^-100 of itself up to 8,192 coins; beyond, in a time that grows as the square root of n, by less
    than 2^-28 for chance 1/2 and one part in 7 n chance (1-chance) for others. chance: 0 < chance < 1; 1/2 for
    signs, gamma for a green list. At or below the mean the answer is 1, which decides nothing.
    Raises SpecError on values out of range.
    """
    if n < 0 or not 0 <= matches <= n:
        raise SpecError(f"matches {matches} must lie in 0 .. n = {n}")
    if not 0 < chance < 1:
        raise SpecError(f"a chance of {chance} leaves nothing to test")
    yes, no, of = chance.numerator, chance.denominator - chance.numerator, chance.denominator
    if matches * of <= n * yes:  # the series below falls only above the mean
        return Tail("binomial", Fraction(1))
    if n <= _EXACT_COINS:
        point = Fraction(math.comb(n, matches) * yes**matches * no ** (n - matches), of**n)
    else:
        point = _point_at_most(matches, n, yes, no)
    # sum_{k >= M} C(n,k) yes^k no^(n-k) over its first term, with every division rounded up
    term = total = 1 << _FIXED_BITS
    k = matches
    while k < n and term > 1:
        term = -(-term * (n - k) * yes // ((k + 1) * no))
        total += term
        k += 1
    total += term * (n - k)  # what is left is at most this many terms no larger than the last
    return Tail("binomial", max(_LEAST, min(Fraction(1), point * Fraction(total, 1 << _FIXED_BITS))))


def _point_at_most(matches: int, n: int, yes: int, no: int) -> Fraction:
    """An upper bound on P(exactly `matches` of n coins), matches above the mean, by walking there from the mean.

    Robbins (1955) on factorials gives P(k) <= sqrt(n / (2 pi k (n-k))) e^-x, x = 1/(12k+1) + 1/(12(n-k)+1) -
    1/(12n), for any chance; e^-x <= 1/(1+x). The ratio of neighbours does the rest, divisions rounded up.
    """
    coins = n + n % 2 if yes == no else n  # of an odd number the middle is as likely as of one coin more
    k = min(matches, (2 * coins * yes + yes + no) // (2 * (yes + no)))  # next to the mean
    term, exponent = 1 << _WALK_BITS, _WALK_BITS  # the chance is term / 2^exponent
    if 0 < k < coins:
        x = Fraction(1, 12 * k + 1) + Fraction(1, 12 * (coins - k) + 1) - Fraction(1, 12 * coins)
        square = Fraction(coins * 10**30, 2 * _PI_TIMES_1E30 * k * (coins - k)) / (1 + x) ** 2
        term = min(term, math.isqrt(-(-(square.numerator << 2 * _WALK_BITS) // square.denominator)) + 1)
    while k < matches:
        term = -(-term * (n - k) * yes // ((k + 1) * no))
        k += 1
        if term >> (_WALK_BITS // 2) == 0:
            term, exponent = term << (_WALK_BITS // 2), exponent + _WALK_BITS // 2
            if exponent > _WALK_BITS + 1024 + 64:  # the tail has fewer than 2^64 terms, none above this one
                return Fraction(1, 1 << 1024 + 64)
    return Fraction(term, 1 << exponent)


@dataclass(frozen=True, eq=False)
class TwoPointLaw:
    """The law of sum_b X_b, X_b independent, two values each; made by two_point_law."""

    base: int  # the least value of the sum
    unit: int  # the sum is base + a multiple of this
    at_least: tuple[int, ...]  # P(sum >= base + k unit) in parts of 2^scale, rounded up.  # (values,)
    scale: int

    def tail(self, total: int) -> Tail:
        """P(sum >= total), exact or rounded up."""
        k = -(-(total - self.base) // self.unit)
        if k <= 0:
            return Tail("two-point", Fraction(1))
        p = Fraction(self.at_least[k], 1 << self.scale) if k < len(self.at_least) else _LEAST
        return Tail("two-point", min(Fraction(1), max(_LEAST, p)))


def two_point_law(high: IntArray, low: IntArray, numerator: IntArray, denominator: int) -> TwoPointLaw:
    """The law of sum_b X_b with X_b = high_b with probability numerator_b/denominator, else low_b.

    The denominator is a power of two. The law is one big integer with a slot for each value of the sum; a
    variable multiplies it by (denominator - numerator) + numerator x^step. Counts are exact while they fit 320
    bits, else fixed-point, always rounded up: by less than 2^-280 in all. high, low, numerator: (bits,)
    Raises SpecError when the table would be too large; scale the values down then.
    """
    high, low, numerator = (np.asarray(x, dtype=np.int64) for x in (high, low, numerator))
    if denominator < 1 or denominator & (denominator - 1):
        raise SpecError(f"the denominator must be a power of two, given {denominator}")
    if not high.shape == low.shape == numerator.shape or high.ndim != 1:
        raise SpecError(
            f"high {high.shape}, low {low.shape} and chances {numerator.shape} are not one list each"
        )
    if numerator.size and not (int(numerator.min()) >= 0 and int(numerator.max()) <= denominator):
        raise SpecError(f"probabilities must lie in 0 .. {denominator}/{denominator}")
    base = int(np.minimum(high, low).sum())
    gap = np.abs(high - low)
    above = np.where(high >= low, numerator, denominator - numerator)  # chance of the larger value, in parts
    gap, above = gap[gap > 0], above[gap > 0]
    unit = int(np.gcd.reduce(gap)) if gap.size else 1
    values = int(gap.sum()) // unit + 1
    if values > _EXACT_REACH or gap.size * values > _EXACT_WORK:
        raise SpecError(
            f"{gap.size} variables with {values} sums are too many for the exact law; scale them down"
        )
    bits = denominator.bit_length() - 1  # by which one variable makes the counts grow
    exact = bits * gap.size <= _LAW_BITS
    room = bits * gap.size if exact else max(_LAW_SPARE, bits)
    width = (room + (0 if exact else _LAW_BITS) + 8 + 7) // 8  # bytes of a slot
    scale = 0 if exact else _LAW_BITS
    law, filled, grown = 1 << scale, 1, 0
    order = np.argsort(gap, kind="stable")
    for step, parts in zip((gap[order] // unit).tolist(), above[order].tolist(), strict=True):
        if grown + bits > room:
            law, grown = _rounded_up(law, grown, width, filled), 0
        law = law * (denominator - parts) + (law * parts << (8 * width * step))
        filled += step
        grown += bits
    raw = law.to_bytes(width * values, "little")
    slots = (int.from_bytes(raw[at : at + width], "little") for at in range(width * (values - 1), -1, -width))
    return TwoPointLaw(base, unit, tuple(accumulate(slots))[::-1], scale + grown)


def _rounded_up(law: int, bits: int, width: int, filled: int) -> int:
    """Every slot divided by 2^bits, rounded up. width: bytes of a slot, filled: slots."""
    up = int.from_bytes(((1 << bits) - 1).to_bytes(width, "little") * filled, "little")
    mask = int.from_bytes(((1 << (8 * width - bits)) - 1).to_bytes(width, "little") * filled, "little")
    return ((law + up) >> bits) & mask


def sign_tail(magnitudes: IntArray, total: int) -> Tail:
    """P(sum of ±|q_i| >= total) for fair signs: the exact law where there is one, else the closed bound.

    magnitudes: |q_i|, zeros allowed, each under 2^31.  # (n,)
    Raises SpecError if no signs could reach that total.
    """
    sizes, counts = np.unique(np.abs(np.asarray(magnitudes, dtype=np.int64)), return_counts=True)
    return sign_counts_tail(dict(zip(sizes.tolist(), counts.tolist(), strict=True)), total)


def sign_counts_tail(counts: Mapping[int, int], total: int) -> Tail:
    """sign_tail of a histogram: how many q have which magnitude, magnitudes of 0 to 2^31-1.

    One magnitude has the binomial law, two that of two independent binomials (rounded up by less than 2^-256 up to
    2^30 signs), more the law of two_point_law or, where that is too slow, of sign_law; else the closed bound.
    Raises SpecError if no signs could reach that total, or on a negative magnitude or count.
    """
    if any(size < 0 or count < 0 for size, count in counts.items()):
        raise SpecError(f"magnitudes and their counts are not negative, given {dict(counts)}")
    kept = {size: count for size, count in sorted(counts.items()) if size and count}
    if total <= 0:
        return Tail("exact", Fraction(1))
    reach = sum(size * count for size, count in kept.items())
    if total > reach:
        raise SpecError(f"T = {total} is more than sum |q| = {reach}; T and q are not of one object")
    n = sum(kept.values())
    unit = math.gcd(*kept)
    if len(kept) == 1:  # a count of matches
        return binomial_tail((n + -(-total // unit) + 1) // 2, n)
    if len(kept) == 2:
        (small, few), (large, many) = kept.items()
        return Tail("exact", _two_sizes(large, many, small, few, total))
    if n * (reach // unit + 1) > _EXACT_WORK or reach // unit + 1 > _EXACT_REACH:
        smooth = sign_law(kept)
        squares = sum(size * size * count for size, count in kept.items())
        return smooth.tail(total) if smooth is not None else bound_tail(total, squares)
    values = np.repeat(np.array(list(kept), dtype=np.int64), list(kept.values()))
    law = two_point_law(values, -values, np.ones_like(values), 2)
    return Tail("exact", law.tail(total).p)


def _two_sizes(a: int, many: int, b: int, few: int, total: int) -> Fraction:
    """P(a A + b B >= total), A and B sums of `many` and `few` fair signs: rounded up, at most 1."""
    first, from_first = _coins(many)
    second, from_second = _coins(few)
    above = [*accumulate(reversed(second), initial=0)][
        ::-1
    ]  # P(B's matches >= from_second + i), without the ends
    found = 2 * (many + few) << _LAW_REST  # for the matches of both that are too far out to be listed
    for i, chance in enumerate(first):
        least = -(-(total - a * (2 * (from_first + i) - many) + b * few) // (2 * b)) - from_second
        if least < len(second):
            found += -(-chance * above[max(0, least)] >> _LAW_BITS)
    return max(_LEAST, min(Fraction(1), Fraction(found, 1 << _LAW_BITS)))


def _coins(n: int) -> tuple[list[int], int]:
    """P(k of n fair coins) in parts of 2^320, rounded up, for all k with more than 2^32 parts; and the least k."""
    middle = (n + 1) // 2
    exact = n <= _EXACT_COINS
    p = Fraction(math.comb(n, middle), 1 << n) if exact else _point_at_most(middle, n, 1, 1)
    up = [-(-(p.numerator << _LAW_BITS) // p.denominator)]
    down = up[:]
    k = middle
    while k < n and up[-1] >> _LAW_REST:
        up.append(-(-up[-1] * (n - k) // (k + 1)))
        k += 1
    k = middle
    while k > 0 and down[-1] >> _LAW_REST:
        down.append(-(-down[-1] * k // (n - k + 1)))
        k -= 1
    return down[:0:-1] + up, k


@dataclass(frozen=True, eq=False)
class SignLaw:
    """The law of T = sum ±q_i for fair signs, n up to billions; made by sign_law.

    X = T/2 lies on a lattice of step 1; counted modulo an odd M, P(c <= X < c + L mod M) is a sum over M waves,
    1/M sum_k psi(2 pi k / M) D_k(c) with psi(a) = prod cos(a q_i / 2) and D_k = sum_{j<L} cos(2 pi k (c+j) / M)
    (Fourier inversion on a lattice). psi is next to nothing but for the first few. L and M are 8 and 24 standard
    deviations of T, so what lies beyond the window, or is counted twice because it wraps around, is under 2^-184.
    That, the waves left out and every rounding are `slack`, and added: p is an upper bound, by at most twice that.
    """

    unit: int  # common divisor of the q; everything below is in this unit
    parity: int  # of sum |q|, so of every T
    far: int  # totals beyond are taken for this one: _FAR standard deviations
    length: int  # L
    period: int  # M
    waves: tuple[int, ...]  # 2 psi_k sin(pi k L / M) / sin(pi k / M), in 2^-_WAVE_BITS.  # (K,)
    slack: Fraction

    def tail(self, total: int) -> Tail:
        """P(T >= total), rounded up by at most twice the slack."""
        if total <= 0:
            return Tail("exact", Fraction(1))
        t = min(-(-total // self.unit), self.far)
        t += (t + self.parity) & 1
        part = self.length << _WAVE_BITS
        cosine, _ = _turn(t + self.length - 1, self.period)
        before, here = 1 << _WAVE_BITS, cosine  # cos 0, cos x and then cos (k x)
        for wave in self.waves:
            part += wave * here >> _WAVE_BITS
            before, here = here, (2 * cosine * here >> _WAVE_BITS) - before
        p = Fraction(part, self.period << _WAVE_BITS) + self.slack
        return Tail("exact", min(Fraction(1), max(_LEAST, p)))


def sign_law(counts: Mapping[int, int]) -> SignLaw | None:
    """The law of sum ±|q_i|, in a time that depends on how many different |q| there are; None where it has none.

    counts: how many q have which magnitude.
    There is none when too few |q| are small (their common divisor taken out): then the law is no smooth one.
    Raises SpecError on a negative magnitude or count.
    """
    if any(size < 0 or count < 0 for size, count in counts.items()):
        raise SpecError(f"magnitudes and their counts are not negative, given {dict(counts)}")
    unit = math.gcd(*(size for size, count in counts.items() if count))
    widest = max((size for size, count in counts.items() if count), default=0) // max(1, unit)
    if not 0 < widest <= _WIDEST:
        return None
    number = [counts.get(unit * size, 0) for size in range(widest + 1)]  # of 0, unit, 2 unit, ...
    n = sum(number[1:])
    squares = sum(count * size * size for size, count in enumerate(number))
    far = _FAR * (math.isqrt(squares) + 1)
    length = far // 2 + 1
    period = 3 * length | 1
    terms = _FAR * period // (3 * math.isqrt(squares)) + 1
    needed = 150 + period.bit_length()
    while (
        sure := _bits_left_out(number, Fraction(2 * (terms + 1), period))
    ) < needed and terms < _MOST_WAVES:
        terms += terms // 4
    if sure < needed or 2 * (terms + 1) >= period:
        return None
    waves = tuple(_wave(k, number, length, period) for k in range(1, terms + 1))
    # In units of 2^-_WAVE_BITS: a value of _turn is off by under 2^8, so the cosine of w times an angle by w^2 2^9, and
    # its power by twice the exponent times that.
    rounding = 4 * terms * (n * widest * widest * 512 + widest + 1024 * (period + 1) + terms * terms * 512)
    beyond = Fraction(1, 1 << math.floor(Fraction(_FAR * _FAR, 2) * _LOG2_E))
    slack = Fraction(rounding, 1 << _WAVE_BITS) + Fraction(period, 1 << sure) + beyond
    return SignLaw(unit, sum(number[1::2]) & 1, far, length, period, waves, slack)


def _bits_left_out(number: Sequence[int], first: Fraction) -> int:
    """psi is under 2^-this at all angles from pi `first` to pi. number: how many q are 0, 1, 2, ...

    |cos x| <= exp(-x^2/2) up to pi/2, and q up to w reach that at the angle pi/w: the least exponent, in bits, over
    all intervals (pi/(w+1), pi/w].
    """
    bits, inside, widest = 1 << 20, 0, len(number) - 1
    for w in range(1, widest + 1):
        if first * w > 1:
            break
        inside += number[w] * w * w
        lowest = first if w == widest else max(first, Fraction(1, w + 1))
        bits = min(bits, math.floor(Fraction(inside, 8) * _PI2 * lowest * lowest * _LOG2_E))
    return bits


def _wave(k: int, counts: Sequence[int], length: int, period: int) -> int:
    """2 psi_k sin(pi k L / M) / sin(pi k / M) in 2^-_WAVE_BITS. counts: how many q have each magnitude."""
    cosine, sine = _turn(k, period)
    before, here, psi = 1 << _WAVE_BITS, cosine, 1 << _WAVE_BITS  # cos 0, cos x and then cos (w x)
    for count in counts[1:]:
        power, left = here, count
        while left:
            if left & 1:
                psi = psi * power >> _WAVE_BITS
            power, left = power * power >> _WAVE_BITS, left >> 1
        before, here = here, (2 * cosine * here >> _WAVE_BITS) - before
    return 2 * psi * _turn(k * length, period)[1] // sine


def _turn(numerator: int, denominator: int) -> tuple[int, int]:
    """cos and sin of pi numerator/denominator in 2^-_WAVE_BITS, each off by less than 2^8 units."""
    quarter = (4 * numerator + denominator) // (2 * denominator)  # the nearest multiple of pi/2
    x = _pi() * (2 * numerator - quarter * denominator) // (2 * denominator)  # within ±pi/4
    square = x * x >> _WAVE_BITS
    cosine = term = 1 << _WAVE_BITS
    sine = odd = x
    n = 1
    while term or odd:
        term = -(term * square >> _WAVE_BITS) // (2 * n * (2 * n - 1))
        odd = -(odd * square >> _WAVE_BITS) // (2 * n * (2 * n + 1))
        cosine, sine, n = cosine + term, sine + odd, n + 1
    turned = ((cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine))
    return turned[quarter % 4]


@cache
def _pi() -> int:
    """pi in 2^-_WAVE_BITS by Machin's formula, 16 arctan 1/5 - 4 arctan 1/239."""
    spare = 16

    def arctan_of_one_over(x: int) -> int:
        power = total = (1 << (_WAVE_BITS + spare)) // x
        n = 1
        while power:
            power //= -x * x
            n += 2
            total += power // n
        return total

    return (16 * arctan_of_one_over(5) - 4 * arctan_of_one_over(239)) >> spare


def _sum_of_squares(values: IntArray) -> int:
    """sum q^2. Raises SpecError if an int64 could not hold it."""
    largest = int(np.abs(values).max(initial=0))
    if largest > _MAX_Q or largest * largest * values.size >= 1 << 63:
        raise SpecError(f"|q| reaches {largest} in {values.size} values: too large to be summed exactly")
    return int((values * values).sum())


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
    """Scores integers q (any shape) against ±1 signs of the same shape, for hypothesis (a).

    Raises SpecError on other signs, other shapes, and integers too large to be summed exactly.
    """
    if q.shape != signs.shape:
        raise SpecError(f"q has shape {q.shape}, the signs {signs.shape}")
    if not bool((np.abs(signs) == 1).all()):
        raise SpecError("signs are -1 or +1")
    wide = q.astype(np.int64)
    return ChipTest(
        sum_q2=_sum_of_squares(wide),
        total=int((wide * signs).sum()),
        n=int(np.count_nonzero(q)),
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


def wrong_word(sums: BitSums, codeword: npt.NDArray[np.int8], *, data_bits: int, check_bits: int) -> Fraction:
    """How likely a message that nobody wrote is read, with this word or a nearer one, by decoding these sums once.

    sums, codeword: of the coded bits, ±1.  # (bits,)
    data_bits, check_bits: of the code's messages, and of the MAC in each.
    2^-check_bits is certain of any sums whatever, those of many users' texts in one included: the check value of
    somebody who wrote none of it is uniform and independent of them. The other factor is what the code's redundancy
    adds, that any of its 2^data_bits words comes so near: exact where the signs of the sums are fair, as in a text
    made without the key; a model where they are several users' mixed.
    """
    coarse = sums.quantised(_COARSE)
    tail = fair_license_tail(coarse, codeword)
    near = min(Fraction(1), (tail.p or Fraction(1)) * (1 << data_bits))
    return near / (1 << check_bits)


def pooled(positions: IntArray, q: IntArray, clip: int) -> tuple[IntArray, IntArray]:
    """All objects of a case as one: each PRF position once, so that its sign is used once.

    positions: what the PRF is asked for, a row each, over all objects in turn.  # (n, width)
    q: the integers there.  # (n,)
    clip: largest |q| after summing over equal positions: 1 for texts, where a repeated (context, token) pair
    is no new evidence; the carrier's own bound times the objects where pictures or copies are added up.
    Returns the row of each position's first use, ascending, and its q.  # (m,), (m,)
    Raises SpecError on other shapes.
    """
    positions, q = np.ascontiguousarray(positions, dtype=np.int64), np.asarray(q, dtype=np.int64)
    if positions.ndim != 2 or positions.shape[1] < 1 or q.shape != positions.shape[:1]:
        raise SpecError(f"positions {positions.shape} and q {q.shape} are not rows and one integer for each")
    if clip < 1:
        raise SpecError(f"clip = {clip} would leave nothing")
    if not q.size:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    rows = positions.view(np.dtype((np.void, positions.dtype.itemsize * positions.shape[1])))[:, 0]
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    sums = np.zeros(len(first), dtype=np.int64)
    np.add.at(sums, group, q)
    order = np.argsort(first)
    return first[order], np.clip(sums[order], -clip, clip)


def hypotheses(
    *,
    models: int = 1,
    licenses: int = 1,
    sync: int = 1,
    windows: int = 1,
    offered: int = 1,
    used: int = 1,
) -> int:
    """How many hypotheses were tried: p_global = min(1, this * allowance * p).

    offered, used: of how many objects the used ones were chosen after the key could be tried on them; the
    choices, C(offered, used), all count. Objects committed before detection and used together are one choice.
    Raises SpecError on a count under 1, or on more objects used than offered.
    """
    counts = {
        "models": models,
        "licenses": licenses,
        "sync": sync,
        "windows": windows,
        "offered": offered,
        "used": used,
    }
    for name, count in counts.items():
        if count < 1:
            raise SpecError(f"{name} = {count}: every hypothesis tried is counted, so at least 1")
    if used > offered:
        raise SpecError(f"{used} objects can't be chosen of {offered}")
    return models * licenses * sync * windows * math.comb(offered, used)


def allowance(*, grind_bits: int = 0, shares: int = 1) -> int:
    """A factor of p_global for hypotheses that are not tried here: keys that a dishonest fingerprinter could
    have ground before committing, and a confirm mark's other shares.

    Shares are opened one by one, in different cases, and each verdict is final when given. So every share pays
    for all of its mark from the start (Bonferroni): the chance that any share of a mark ever speaks against an
    innocent stays under the threshold whatever the order, and whenever opening stops. Counting only those
    opened so far would sum to threshold * (1 + 1/2 + ... + 1/16) = 3.4 thresholds; Holm's step-down needs all
    p-values at once and could change a verdict already given. It costs log2(16) = 4 bits.
    """
    if not 0 <= grind_bits <= 256:
        raise SpecError(f"grind_bits must lie in 0 .. 256, given {grind_bits}")
    if shares < 1:
        raise SpecError(f"a mark has at least one share, given {shares}")
    return shares << grind_bits


def decide(
    tail: Tail, *, count: int, tried: int, threshold: Fraction, besides: Fraction = Fraction(0)
) -> Decision:
    """detected if count*p + besides <= threshold, not_detected if tried*p + besides > REJECT, else inconclusive.

    count: every correction; tried: the hypotheses scored here, without the allowance, which would turn
    everything short of a detection into "not detected".
    """
    if tail.at_most(threshold, count, besides):
        return "detected"
    return "inconclusive" if tail.at_most(REJECT, tried, besides) else "not_detected"


def order(tail: Tail, count: int, besides: Fraction = Fraction(0)) -> Order:
    """Sorts by p_global, the least first, in exact numbers.

    By whole bits of count * p + besides; among equals exact laws by that number, then closed bounds without besides by
    T^2 / sum q^2. Of a bound with besides p is taken in whole bits, rounded up. Secret, as T.
    """
    if tail.p is not None:
        p = min(Fraction(1), tail.p * count + besides)
        return (_ceil_log2(p), False, p) if p else (-(1 << 20), False, p)
    if tail.total <= 0 or tail.sum_q2 <= 0:
        return 0, True, Fraction(0)
    square = tail.total**2
    bits = square * TWO_LN2_DEN // (TWO_LN2_NUM * tail.sum_q2)
    if besides:
        p = min(Fraction(1), Fraction(count, 1 << bits) + besides)
        return _ceil_log2(p), False, p
    bits -= _ceil_log2(Fraction(count))
    return min(0, -bits), True, -Fraction(square, tail.sum_q2)


def bucket(tail: Tail, count: int, besides: Fraction = Fraction(0)) -> int:
    """-log10 p_global rounded down to 40, 20, 12 or 0: the only figure that may leave the committee."""
    return next((b for b in BUCKETS if tail.at_most(Fraction(1, 10**b), count, besides)), 0)
