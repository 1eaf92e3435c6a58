"""Undoing what a thief may do to a matrix for free: permute, scale and flip its rows and columns.

Hidden channels of an MLP can be permuted and rescaled without changing the model, and the channels between layers
permuted and flipped. Given the base matrix, each line (row or column) of the suspect is matched to the base line that
it is most like; a match counts only if it is mutual. No key takes part, so the choice costs nothing in p_global.
Integers: products are of quantised weights, summed in floats that hold such sums exactly.

A rotation of the channels between layers is not undone: it needs a singular value decomposition, which differs from
machine to machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]

MAX_SIDE: Final = 12288  # lines; all pairs are compared: several GB of memory at the limit
_LEVELS: Final = 15
_EXACT: Final = (1 << 24) // _LEVELS**2  # terms of a float32 sum of products that stays exact
_PROFILE: Final = 32  # levels of a profile up to a line's median |w|
_PROFILE_TOP: Final = 255
_SIGN_ROUNDS: Final = 2
_IN_ORDER: Final = 0.9  # of the lines; of shuffled ones half are


class _Match(NamedTuple):
    """For each base line: the suspect's line, the sign of their product, and whether the match is mutual."""

    line: Int64  # (base lines,)
    sign: Int64  # -1, 0 or 1.  # (base lines,)
    mutual: npt.NDArray[np.bool_]  # (base lines,)


def undo(suspect: Float32, base: Float32, q_suspect: Int8, q_base: Int8) -> Iterator[Float32]:
    """The suspect with its columns, then its rows, then both put back to the base's order, scale and sign.

    Where the lines are in the base's order already, only their scale and sign are. Lines without a mutual match are
    zero, which detectors skip. Matrices of more than MAX_SIDE lines are left out. All (rows, columns); q: quantised,
    |q| <= 15. Each candidate is made when it is asked for.
    """
    if suspect.ndim != 2 or max(suspect.shape) > MAX_SIDE:
        return
    columns, rows = _in_order(q_suspect.T, q_base.T), _in_order(q_suspect, q_base)
    if columns is not None:
        yield np.ascontiguousarray(_placed(suspect.T, base.T, columns).T)
    if rows is not None:
        yield _placed(suspect, base, rows)
    if (
        columns is not None or rows is not None
    ):  # rows that are like their own have their columns in order, too
        return
    yield np.ascontiguousarray(_lines(suspect.T, base.T, q_suspect.T, q_base.T).T)
    yield _lines(suspect, base, q_suspect, q_base)
    yield _both(suspect, base, q_suspect, q_base)


def _in_order(q_suspect: Int8, q_base: Int8) -> _Match | None:
    """Rows left where they are, if nearly all are more like their own base row than like the next one."""
    left, right = q_base.astype(np.float32), q_suspect.astype(np.float32)
    own = (left * right).sum(axis=1).astype(np.float64)  # integers under 2^24: exact in any order
    other = (np.roll(left, 1, axis=0) * right).sum(axis=1).astype(np.float64)
    if (own**2 > other**2).sum() < _IN_ORDER * len(own):
        return None
    every = np.arange(len(own))
    return _Match(every, np.sign(own).astype(np.int64), np.ones(len(own), dtype=np.bool_))


def _lines(suspect: Float32, base: Float32, q_suspect: Int8, q_base: Int8) -> Float32:
    """Rows matched to rows."""
    return _placed(suspect, base, _matched(q_suspect, q_base))


def _placed(suspect: Float32, base: Float32, found: _Match) -> Float32:
    """The suspect's rows in the base's order, scale and sign."""
    size, wanted = _middle(suspect)[found.line], _middle(base)
    usable = found.mutual & (found.sign != 0) & (size > 0) & (wanted > 0)
    factor = np.where(usable, found.sign * wanted / np.where(usable, size, 1), 0).astype(np.float32)
    out: Float32 = np.nan_to_num(suspect[found.line], posinf=0, neginf=0) * factor[:, None]
    return out


def _both(suspect: Float32, base: Float32, q_suspect: Int8, q_base: Int8) -> Float32:
    """Columns are known again by the sorted magnitudes in them, rows by the magnitudes in known columns, then signs by
    the pattern of agreement, which has rank one, and at last all columns by correlation with the rows in place."""
    column, known = _nearest(_profiles(suspect.T), _profiles(base.T))
    placed: Int8 = np.where(known, np.abs(q_suspect[:, column]), np.int8(0))
    row = _matched(_centred(placed), _centred(np.where(known, np.abs(q_base), np.int8(0))))
    agree = (np.sign(q_suspect[row.line][:, column]) * np.sign(q_base) * known).astype(np.float32)
    agree *= (row.mutual & (row.sign > 0))[:, None]
    rows = np.sign(agree @ agree[np.abs(agree).sum(axis=1).argmax()])
    for _ in range(_SIGN_ROUNDS):  # sums of at most MAX_SIDE signs are exact
        rows = np.sign(agree @ np.sign(rows @ agree))
    flip = rows.astype(np.int8)
    turned = np.nan_to_num(suspect[row.line], posinf=0, neginf=0) * flip[:, None].astype(np.float32)
    q_turned = q_suspect[row.line] * flip[:, None]
    return np.ascontiguousarray(_lines(turned.T, base.T, q_turned.T, q_base.T).T)


def _matched(q_suspect: Int8, q_base: Int8) -> _Match:
    """Each base row with the suspect row of the largest squared correlation."""
    products = np.zeros((len(q_base), len(q_suspect)), dtype=np.int64)
    for at in range(0, q_base.shape[1], _EXACT):
        part = slice(at, at + _EXACT)
        left, right = q_base[:, part].astype(np.float32), q_suspect[:, part].astype(np.float32)
        products += (left @ right.T).astype(np.int64)
    norms = (q_suspect.astype(np.int64) ** 2).sum(axis=1)
    likeness = products.astype(np.float64) ** 2 / np.maximum(norms, 1)  # integers below 2^53, one division
    best = likeness.argmax(axis=1)
    every = np.arange(len(q_base))
    return _Match(best, np.sign(products[every, best]), likeness.argmax(axis=0)[best] == every)


def _nearest(suspect: Int64, base: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Each base row's nearest suspect row by squared distance, and whether that is mutual."""
    wide = suspect.astype(np.float64)  # squares of 255, at most MAX_SIDE of them: exact
    distance = (suspect**2).sum(axis=1)[None, :] - 2 * (base.astype(np.float64) @ wide.T)
    distance += (base**2).sum(axis=1)[:, None]
    best = distance.argmin(axis=1)
    return best, distance.argmin(axis=0)[best] == np.arange(len(base))


def _profiles(lines: Float32) -> Int64:
    """The magnitudes of each row in units of their median, ascending: whatever its order, scale and signs."""
    magnitudes = np.nan_to_num(np.abs(lines), nan=0.0, posinf=0.0)
    middle = _middle(lines)
    unit = np.where(middle > 0, middle, np.float32(1))[:, None]
    levels = np.minimum(np.rint(magnitudes / unit * np.float32(_PROFILE)), _PROFILE_TOP)
    return np.sort(levels.astype(np.int64), axis=1)


def _centred(magnitudes: Int8) -> Int8:
    """Without the mean level of what is not zero, rounded; zeros stay."""
    seen = magnitudes != 0
    count = max(1, int(np.count_nonzero(seen)))
    level = (2 * int(magnitudes.sum(dtype=np.int64)) + count) // (2 * count)
    return np.where(seen, magnitudes - np.int8(level), 0).astype(np.int8)


def _middle(lines: Float32) -> Float32:
    """The lower median of |w| of each row: an order statistic, the same on every machine."""
    magnitudes = np.nan_to_num(np.abs(lines), nan=0.0, posinf=0.0)
    k = (lines.shape[1] - 1) // 2
    middle: Float32 = np.partition(magnitudes, k, axis=1)[:, k]
    return middle
