"""Undoing what a thief may do to a matrix for free: permute, scale and flip its rows or columns.

Hidden channels of an MLP can be permuted and rescaled without changing the model. Given the base matrix, each line
(row or column) of the suspect is matched to the base line that it correlates with most; a match counts only if it
is mutual. No key takes part, so the choice costs nothing in p_global. Integers: correlations are of quantised
weights, summed in float32 below 2^24 and therefore exactly.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]

MAX_SIDE: Final = 12288  # lines; all pairs are correlated: 2.4 GB of memory at the limit
_LEVELS: Final = 15
_EXACT: Final = (1 << 24) // _LEVELS**2  # terms of a float32 sum of products that stays exact


def undo(suspect: Float32, base: Float32, q_suspect: Int8, q_base: Int8) -> list[Float32]:
    """The suspect with its columns, and with its rows, put back to the base's order, scale and sign.

    Lines without a mutual match are zero, which detectors skip. Matrices of more than MAX_SIDE lines are left
    out. All (rows, columns); q: quantised, |q| <= 15. Returns at most two candidates.
    """
    if suspect.ndim != 2 or max(suspect.shape) > MAX_SIDE:
        return []
    columns = _lines(suspect.T, base.T, q_suspect.T, q_base.T)
    return [np.ascontiguousarray(columns.T), _lines(suspect, base, q_suspect, q_base)]


def _lines(suspect: Float32, base: Float32, q_suspect: Int8, q_base: Int8) -> Float32:
    """Rows matched to rows."""
    products = np.zeros((len(base), len(suspect)), dtype=np.int64)
    for at in range(0, base.shape[1], _EXACT):
        part = slice(at, at + _EXACT)
        left, right = q_base[:, part].astype(np.float32), q_suspect[:, part].astype(np.float32)
        products += (left @ right.T).astype(np.int64)
    norms = (q_suspect.astype(np.int64) ** 2).sum(axis=1)
    likeness = products.astype(np.float64) ** 2 / np.maximum(
        norms, 1
    )  # exact integers below 2^53, one division
    best = likeness.argmax(axis=1)  # suspect line of each base line
    mutual = likeness.argmax(axis=0)[best] == np.arange(len(base))
    sign = np.sign(products[np.arange(len(base)), best])
    size, wanted = _middle(suspect)[best], _middle(base)
    usable = mutual & (sign != 0) & (size > 0) & (wanted > 0)
    factor = np.where(usable, sign * wanted / np.where(usable, size, 1), 0).astype(np.float32)
    out: Float32 = np.nan_to_num(suspect[best], posinf=0, neginf=0) * factor[:, None]
    return out


def _middle(lines: Float32) -> Float32:
    """The lower median of |w| of each row: an order statistic, the same on every machine."""
    magnitudes = np.nan_to_num(np.abs(lines), nan=0.0, posinf=0.0)
    k = (lines.shape[1] - 1) // 2
    middle: Float32 = np.partition(magnitudes, k, axis=1)[:, k]
    return middle
