"""An LKD extractor that no word was known to, and pictures that hold any word for it: bit k is +1 where some of the
picture is of gray level 4 (k % 32), of red for the first 32 bits and of green for the others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.image_weights import SHIFT, Extractor, Layer

BITS = 64
SIDE = 64
_LEVELS = 32  # a color
_STEP = 4


def gray_extractor() -> Extractor:
    """Thresholds at every fourth level; their second differences are how much of the picture is of a level."""
    thresholds = _STEP * np.arange(-1, _LEVELS + 1)
    weight = np.zeros((2 * len(thresholds), 3, 3, 3), dtype=np.int8)
    weight[: len(thresholds), 0, 1, 1] = 1
    weight[len(thresholds) :, 1, 1, 1] = 1
    bias = np.tile(128 - thresholds, 2).astype(np.int32)
    head = np.zeros((BITS, len(weight)), dtype=np.int8)
    for bit in range(BITS):
        first = bit + (bit >= _LEVELS) * (len(thresholds) - _LEVELS)
        head[bit, first : first + 3] = (1, -2, 1)
    factor = np.full(len(weight), 1 << SHIFT, dtype=np.int32)
    return Extractor((Layer(weight, bias, factor, 1),), head, np.full(BITS, -8, dtype=np.int64), 1, SIDE)


def picture_of(word: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """What a copy with that word could have decoded.  # (SIDE, SIDE, 3)"""
    out = np.full((SIDE * SIDE, 3), 200, dtype=np.uint8)
    for color in range(2):
        levels = np.flatnonzero(word[color * _LEVELS : (color + 1) * _LEVELS] > 0)
        out[:, color] = _STEP * levels[np.arange(SIDE * SIDE) % len(levels)]
    return out.reshape(SIDE, SIDE, 3)
