"""Undoing what a thief may do to a matrix for free: permute, scale and flip its rows and columns.

Hidden channels of an MLP can be permuted and rescaled without changing the model, and the channels between layers
permuted and flipped. Given the base matrix, each line (row or column) of the suspect is matched to the base line that
it is most like; a match counts only if it is mutual. No key takes part, so the choice costs nothing in p_global.
Integers: products are of quantised weights, summed in floats that hold such sums exactly.

All pairs of lines are compared, a part of them at a time: beside the arrays that it is given and the candidate that it
gives, undo takes at most 12 bytes a weight and 160 MiB, and five comparisons of lines that each cost the number of
pairs times at most TERMS multiplications. For a matrix of MAX_SIDE * MAX_SIDE weights these are 3 * 10^12 at most.

A rotation of the channels between layers is not undone: it needs a singular value decomposition, which differs from
machine to machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]
Whole = npt.NDArray[np.integer[Any]]

METHOD: Final = "align-2"  # part of the identity of the detectors that use it
MAX_SIDE: Final = 12288  # lines; a matrix with more is left as it is
TERMS: Final = 4096  # places of a line that are compared, evenly spaced: unrelated lines correlate by 1/64
_CELLS: Final = 1 << 21  # pairs of lines, or weights, that are looked at at once
_LEVELS: Final = 15
_EXACT: Final = 1 << 24  # sums of integers up to here are exact in float32
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


def _parts(lines: int, width: int) -> Iterator[slice]:
    """Lines in runs of at most _CELLS entries, but at least one line."""
    step = max(1, _CELLS // max(1, width))
    return (slice(low, min(lines, low + step)) for low in range(0, lines, step))


def _in_order(q_suspect: Int8, q_base: Int8) -> _Match | None:
    """Rows left where they are, if nearly all are more like their own base row than like the next one."""
    count = len(q_base)
    own, other = np.zeros(count), np.zeros(count)
    for part in _parts(*q_base.shape):
        right = q_suspect[part].astype(np.float32)
        before = (np.arange(part.start, part.stop) - 1) % count
        own[part] = (q_base[part] * right).sum(axis=1)  # integers under 2^24: exact in any order
        other[part] = (q_base[before] * right).sum(axis=1)
    if (own**2 > other**2).sum() < _IN_ORDER * count:
        return None
    return _Match(np.arange(count), np.sign(own).astype(np.int64), np.ones(count, dtype=np.bool_))


def _lines(suspect: Float32, base: Float32, q_suspect: Int8, q_base: Int8) -> Float32:
    """Rows matched to rows."""
    return _placed(suspect, base, _matched(q_suspect, q_base))


def _placed(suspect: Float32, base: Float32, found: _Match) -> Float32:
    """The suspect's rows in the base's order, scale and sign."""
    size, wanted = _middle(suspect)[found.line], _middle(base)
    usable = found.mutual & (found.sign != 0) & (size > 0) & (wanted > 0)
    factor = np.where(usable, found.sign * wanted / np.where(usable, size, 1), 0).astype(np.float32)
    return _taken(suspect, found.line, factor)


def _taken(lines: Float32, order: Int64, factor: Float32) -> Float32:
    """Rows in another order, each times a factor; what is not finite is zero."""
    out = np.empty((len(order), lines.shape[1]), dtype=np.float32)
    for part in _parts(*out.shape):
        finite = np.nan_to_num(lines[order[part]], posinf=0, neginf=0)
        np.multiply(finite, factor[part, None], out=out[part])
    return out


def _both(suspect: Float32, base: Float32, q_suspect: Int8, q_base: Int8) -> Float32:
    """Columns are known again by the sorted magnitudes in them, rows by the magnitudes in known columns, then signs by
    the pattern of agreement, which has rank one, and at last all columns by correlation with the rows in place."""
    column, known = _nearest(_profiles(suspect.T), _profiles(base.T))
    placed: Int8 = np.where(known, np.abs(q_suspect[:, column]), np.int8(0))
    row = _matched(_centred(placed), _centred(np.where(known, np.abs(q_base), np.int8(0))))
    del placed
    agree = np.empty(q_base.shape, dtype=np.int8)
    for part in _parts(*q_base.shape):
        signs = np.sign(q_suspect[row.line[part]][:, column]) * np.sign(q_base[part]) * known
        agree[part] = signs * (row.mutual & (row.sign > 0))[part, None]
    most = int(np.array([np.count_nonzero(line) for line in agree]).argmax())
    rows = np.sign(_times(agree, agree[most].astype(np.float32)))
    for _ in range(_SIGN_ROUNDS):
        rows = np.sign(_times(agree, np.sign(_times(agree.T, rows))))
    del agree
    turned = _taken(suspect, row.line, rows)
    q_turned = q_suspect[row.line] * rows.astype(np.int8)[:, None]
    return np.ascontiguousarray(_lines(turned.T, base.T, q_turned.T, q_base.T).T)


def _times(signs: Int8, vector: Float32) -> Float32:
    """A matrix of signs times a vector of signs: at most MAX_SIDE terms, so exact.  # (n, k) (k,) -> (n,)"""
    out = np.empty(len(signs), dtype=np.float32)
    for part in _parts(*signs.shape):
        out[part] = signs[part].astype(np.float32) @ vector
    return out


def _matched(q_suspect: Int8, q_base: Int8) -> _Match:
    """Each base row with the suspect row of the largest squared correlation."""
    suspect, base = _spaced(q_suspect), _spaced(q_base)
    norms = np.maximum(_squares(suspect), 1)
    # integers below 2^53 and one division
    line, product, mutual = _mutual(base, suspect, _LEVELS, lambda products, _: products**2 / norms)
    return _Match(line, np.sign(product).astype(np.int64), mutual)


def _nearest(suspect: Whole, base: Whole) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Each base row's nearest suspect row by squared distance, and whether that is mutual."""
    theirs, ours = _squares(suspect), _squares(base)
    line, _, mutual = _mutual(
        base, suspect, _PROFILE_TOP, lambda products, part: 2 * products - theirs - ours[part, None]
    )
    return line, mutual


def _mutual(
    base: Whole, suspect: Whole, largest: int, likeness: Callable[[Float64, slice], Float64]
) -> tuple[Int64, Float64, npt.NDArray[np.bool_]]:
    """Each base row's likest suspect row, the first of equals; their product; whether each is the other's likest.

    largest: of any |entry|; likeness: of the products of a run of base rows with all suspect rows.
    """
    count, others = len(base), len(suspect)
    line, product = np.empty(count, dtype=np.int64), np.empty(count)
    back, reached = np.zeros(others, dtype=np.int64), np.full(others, -np.inf)
    for part in _parts(count, others):
        products = _products(base[part], suspect, largest)
        found = likeness(products, part)
        line[part] = found.argmax(axis=1)
        product[part] = products[np.arange(len(products)), line[part]]
        top = found.argmax(axis=0)
        value = found[top, np.arange(others)]
        better = value > reached
        reached[better], back[better] = value[better], part.start + top[better]
    return line, product, back[line] == np.arange(count)


def _products(left: Whole, right: Whole, largest: int) -> Float64:
    """left @ right.T of integers, exactly.  # (n, k) (m, k) -> (n, m)"""
    out = np.zeros((len(left), len(right)))
    step = max(1, min(_EXACT // largest**2, _CELLS // len(right)))
    for at in range(0, left.shape[1], step):
        part = slice(at, at + step)
        out += left[:, part].astype(np.float32) @ right[:, part].astype(np.float32).T
    return out


def _spaced(lines: Int8) -> Int8:
    """At most TERMS places of each row, the same of every row."""
    width = lines.shape[1]
    return lines if width <= TERMS else lines[:, np.arange(TERMS) * width // TERMS]


def _squares(lines: Whole) -> Int64:
    """The sum of squares of each row."""
    out = np.empty(len(lines), dtype=np.int64)
    for part in _parts(*lines.shape):
        out[part] = (lines[part].astype(np.int64) ** 2).sum(axis=1)
    return out


def _profiles(lines: Float32) -> npt.NDArray[np.uint8]:
    """The magnitudes of each row in units of their median, ascending, at most TERMS of them: whatever its order, scale
    and signs."""
    width = lines.shape[1]
    kept = np.arange(min(width, TERMS)) * width // min(width, TERMS)
    out = np.empty((len(lines), len(kept)), dtype=np.uint8)
    middle = _middle(lines)
    unit = np.where(middle > 0, middle, np.float32(1))
    for part in _parts(*lines.shape):
        magnitudes = np.nan_to_num(np.abs(lines[part]), nan=0.0, posinf=0.0)
        levels = np.minimum(np.rint(magnitudes / unit[part, None] * np.float32(_PROFILE)), _PROFILE_TOP)
        out[part] = np.sort(levels.astype(np.uint8), axis=1)[:, kept]
    return out


def _centred(magnitudes: Int8) -> Int8:
    """Without the mean level of what is not zero, rounded; zeros stay."""
    seen = magnitudes != 0
    count = max(1, int(np.count_nonzero(seen)))
    level = (2 * int(magnitudes.sum(dtype=np.int64)) + count) // (2 * count)
    return np.where(seen, magnitudes - np.int8(level), np.int8(0))


def _middle(lines: Float32) -> Float32:
    """The lower median of |w| of each row: an order statistic, the same on every machine."""
    k = (lines.shape[1] - 1) // 2
    out = np.empty(len(lines), dtype=np.float32)
    for part in _parts(*lines.shape):
        magnitudes = np.nan_to_num(np.abs(lines[part]), nan=0.0, posinf=0.0)
        out[part] = np.partition(magnitudes, k, axis=1)[:, k]
    return out
