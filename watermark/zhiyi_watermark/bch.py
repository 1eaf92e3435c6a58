"""Binary BCH codes BCH(63,36,t=5) and BCH(127,64,t=10): encoding, bounded-distance and ordered-statistics
decoding.

Bose & Ray-Chaudhuri 1960, Hocquenghem 1959; decoding by Berlekamp-Massey (Massey 1969) and Chien search; soft
decoding by ordered statistics (Fossorier & Lin 1995). A word is an array of 0/1, coefficient of x^(n-1)
first: data, then parity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.errors import SpecError

Bits = npt.NDArray[np.uint8]
_PRIMITIVE = {6: 0b1000011, 7: 0b10000011}  # x^6+x+1, x^7+x+1: those of the Linux BCH library


@dataclass(frozen=True)
class Bch:
    """A primitive narrow-sense binary BCH code of length n = 2^m - 1 correcting t errors."""

    m: int
    t: int

    @property
    def n(self) -> int:
        """Code length in bits."""
        return (1 << self.m) - 1

    @cached_property
    def _tables(self) -> tuple[list[int], list[int]]:
        power, log = [0] * (2 * self.n), [0] * (self.n + 1)
        x = 1
        for i in range(self.n):
            power[i] = power[i + self.n] = x
            log[x] = i
            x <<= 1
            if x >> self.m:
                x ^= _PRIMITIVE[self.m]
        return power, log

    @cached_property
    def generator(self) -> int:
        """The generator polynomial, bit i = coefficient of x^i."""
        power, log = self._tables
        product = [1]  # over GF(2^m), lowest degree first; ends with coefficients 0 and 1
        seen: set[int] = set()
        for odd in range(1, 2 * self.t, 2):
            root = odd
            while root not in seen:
                seen.add(root)
                shifted = [0, *product]
                for i, c in enumerate(product):
                    if c:
                        shifted[i] ^= power[log[c] + root]
                product = shifted
                root = 2 * root % self.n
        return sum(c << i for i, c in enumerate(product))

    @cached_property
    def k(self) -> int:
        """Data bits."""
        return self.n + 1 - self.generator.bit_length()

    @cached_property
    def rows(self) -> Bits:
        """The systematic generator matrix.  # (k, n)"""
        out = np.zeros((self.k, self.n), dtype=np.uint8)
        for i in range(self.k):
            word = 1 << (self.n - 1 - i)
            rest = word
            while rest.bit_length() >= self.generator.bit_length():
                rest ^= self.generator << (rest.bit_length() - self.generator.bit_length())
            out[i] = _to_bits(word ^ rest, self.n)
        return out

    def encode(self, data: Bits) -> Bits:
        """The codeword of k data bits.  # (k,) -> (n,)"""
        if data.shape != (self.k,) or int(data.max(initial=0)) > 1:
            raise SpecError(f"BCH({self.n},{self.k}) takes {self.k} bits 0/1, given shape {data.shape}")
        out: Bits = np.bitwise_xor.reduce(self.rows[data.astype(bool)], axis=0, initial=0).astype(np.uint8)
        return out

    def decode(self, word: Bits) -> Bits | None:
        """The only codeword within t errors of the word, or None if there is none.  # (n,) -> (n,) | None"""
        if word.shape != (self.n,) or int(word.max(initial=0)) > 1:
            raise SpecError(f"a word has {self.n} bits 0/1, given shape {word.shape}")
        power, log = self._tables
        ones = [self.n - 1 - i for i in np.flatnonzero(word).tolist()]  # exponents
        syndromes = [0] * (2 * self.t)
        for j in range(2 * self.t):
            for e in ones:
                syndromes[j] ^= power[e * (j + 1) % self.n]
        if not any(syndromes):
            return word.copy()

        def times(a: int, b: int) -> int:
            return power[log[a] + log[b]] if a and b else 0

        # Berlekamp-Massey: the shortest locator polynomial, lowest degree first
        locator, previous, length, gap, last = [1], [1], 0, 1, 1
        for step in range(2 * self.t):
            discrepancy = syndromes[step]
            for i in range(1, min(length, len(locator) - 1) + 1):
                discrepancy ^= times(locator[i], syndromes[step - i])
            if discrepancy == 0:
                gap += 1
                continue
            scale = power[log[discrepancy] - log[last] + self.n]
            updated = locator + [0] * max(0, len(previous) + gap - len(locator))
            for i, c in enumerate(previous):
                updated[i + gap] ^= times(scale, c)
            if 2 * length <= step:
                previous, last, length, gap = locator, discrepancy, step + 1 - length, 1
            else:
                gap += 1
            locator = updated
        while locator[-1] == 0:
            locator.pop()
        errors = len(locator) - 1
        if errors > self.t or errors != length:
            return None
        # Chien search: alpha^-e is a root for an error at exponent e
        found = []
        for e in range(self.n):
            value = 0
            for i, c in enumerate(locator):
                if c:
                    value ^= power[(log[c] + i * (self.n - e)) % self.n]
            if value == 0:
                found.append(e)
        if len(found) != errors:
            return None
        fixed = word.copy()
        for e in found:
            fixed[self.n - 1 - e] ^= 1
        return fixed

    def decode_soft(self, scores: npt.NDArray[np.int64], order: int = 2) -> Bits:
        """A codeword of (nearly) largest sum of scores * (2c-1); integers only, ties by position.  # (n,) ->
        (n,)

        Always returns some codeword: the caller needs a MAC and a p-value to believe it. order: how many of
        the most reliable independent bits may be wrong (2 is near maximum likelihood for these lengths).
        """
        if scores.shape != (self.n,):
            raise SpecError(f"soft decoding takes {self.n} scores, given shape {scores.shape}")
        basis, chosen = self._reliable_basis(_ranked(scores))
        hard = (scores > 0).astype(np.uint8)
        start = np.bitwise_xor.reduce(basis[hard[chosen].astype(bool)], axis=0, initial=0).astype(np.uint8)
        patterns = [start[None, :]]
        for size in range(1, order + 1):
            flips = np.array(list(combinations(range(self.k), size)))  # (patterns, size)
            patterns.append(np.bitwise_xor.reduce(basis[flips], axis=1) ^ start)
        words = np.concatenate(patterns)  # (patterns, n)
        value = words.astype(np.int64) @ scores
        best: Bits = words[int(np.argmax(value))]
        return best

    def most_reliable(self, scores: npt.NDArray[np.int64]) -> list[int]:
        """The k positions of largest |score| on which a codeword's bits are independent and tell it.  # (n,) -> (k,)"""
        return self._reliable_basis(_ranked(scores))[1]

    def _reliable_basis(self, ranked: npt.NDArray[np.int64]) -> tuple[Bits, list[int]]:
        """Rows of the code that are unit vectors on the k most reliable independent positions."""
        rows = [int("".join(map(str, r)), 2) for r in self.rows[:, ranked].tolist()]
        chosen: list[int] = []
        for column in range(self.n):
            mask = 1 << (self.n - 1 - column)
            at = len(chosen)
            pivot = next((i for i in range(at, self.k) if rows[i] & mask), None)
            if pivot is None:
                continue
            rows[at], rows[pivot] = rows[pivot], rows[at]
            head = rows[at]
            rows = [r ^ head if i != at and r & mask else r for i, r in enumerate(rows)]
            chosen.append(column)
            if len(chosen) == self.k:
                break
        reduced = np.stack([_to_bits(r, self.n) for r in rows])
        back = np.empty_like(reduced)
        back[:, ranked] = reduced
        return back, [int(ranked[c]) for c in chosen]


def _ranked(scores: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions by falling |score|, ties by position."""
    return np.argsort(-np.abs(scores), kind="stable")


def _to_bits(value: int, n: int) -> Bits:
    packed = np.frombuffer(value.to_bytes((n + 7) // 8, "big"), dtype=np.uint8)
    return np.unpackbits(packed)[-n:]


BCH_63 = Bch(6, 5)  # 36 data bits
BCH_127 = Bch(7, 10)  # 64 data bits
