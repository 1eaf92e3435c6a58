"""MPAC, our re-implementation of a peer: multi-bit marks by position allocation.

Yoo, Ahn, Kwak, "Advancing Beyond Identification: Multi-bit Watermark for Large Language Models via Position
Allocation" (NAACL 2024). The message is written in radix r = 1/gamma. At each token the preceding one seeds a
generator that picks a position of the message and cuts the vocabulary into r color lists; the list of the digit there
gets delta. Reading: each token votes for its color at its position, the most voted digit wins. gamma = 1/4, one
preceding token ("lefthash"), no error correction, as in the paper. Here each (preceding token, token) pair votes once,
which is in its favor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from zhiyi_watermark import prf

COLORS: Final = 4  # 1 / gamma
BITS: Final = 32
DIGITS: Final = BITS // 2


@dataclass(frozen=True)
class Mpac:
    """The mark under one key."""

    key: bytes
    vocabulary: int
    delta: float = 2.0

    def __post_init__(self) -> None:
        prf.check_key(self.key)

    def colors(self, previous: int) -> tuple[int, npt.NDArray[np.uint8]]:
        """The position after this token, and the color of every token there.  # (vocabulary,)"""
        return _colors(self.key, self.vocabulary, previous)

    def read(self, tokens: Sequence[int]) -> npt.NDArray[np.uint8]:
        """The 32 message bits, most significant first. A position without votes reads 0.  # (32,)"""
        votes = np.zeros((DIGITS, COLORS), dtype=np.int64)
        for previous, token in dict.fromkeys(pairwise(tokens)):
            position, color = self.colors(previous)
            votes[position, color[token]] += 1
        return bits_of(votes.argmax(axis=1))


@lru_cache(maxsize=2048)
def _colors(key: bytes, vocabulary: int, previous: int) -> tuple[int, npt.NDArray[np.uint8]]:
    seed = int.from_bytes(prf.derive_key(key, "mpac", previous)[:16], "big")
    rng = np.random.Generator(np.random.PCG64(seed))
    position = int(rng.integers(DIGITS))
    return position, (rng.permutation(vocabulary) * COLORS // vocabulary).astype(np.uint8)


def bits_of(digits: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Bits of radix-4 digits, most significant first.  # (16,) -> (32,)"""
    bits: npt.NDArray[np.uint8] = np.stack([digits >> 1, digits & 1], axis=1).astype(np.uint8).reshape(-1)
    return bits


def digits_of(message: int) -> npt.NDArray[np.int64]:
    """Radix-4 digits of a 32-bit message, most significant first.  # (16,)"""
    return np.array([message >> (BITS - 2 - 2 * i) & 3 for i in range(DIGITS)], dtype=np.int64)


class Processor:
    """Adds delta to the color of each row's message, on the scores that are left after top-k."""

    def __init__(self, mark: Mpac, messages: Sequence[int]) -> None:
        self.mark = mark
        self.digits = [digits_of(m) for m in messages]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """New scores.  # (rows, length), (rows, vocabulary)"""
        out = scores.clone()
        for row, previous in enumerate(input_ids[:, -1].tolist()):
            position, color = self.mark.colors(previous)
            favored = torch.from_numpy(color == self.digits[row][position])
            out[row, favored] += self.mark.delta
        return out
