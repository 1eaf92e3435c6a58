"""DSS: a 64-bit message in any finished picture, detected without the original, in integers alone.

Class of method: informed spread spectrum on low-frequency luma (Cox et al. 1997, "Secure spread
spectrum watermarking for multimedia"; Miller, Doerr & Cox 2004, "Applying informed coding and embedding") with a
registration pattern of its own (after Pereira & Pun 2000, "Robust template matching for affine resistant image
watermarks", but searched for in the picture plane, not in the spectrum).

The picture's short side is 64 cells; cells are square, and the 64 x 64 chips repeat along the long side. Of a
cell's mean luma, q is what the eight neighbours do not explain, divided by the local mean and activity, an integer
-Q .. Q: frequencies that live through blur and median, unmoved by brightness and contrast. A quarter of the chips are
the sync pattern, which finds crop, scale, rotation and flip; the others carry the 127 coded bits, 24 chips a bit,
even over the picture.

Embedding is informed and may use floats: it knows q of the picture as it is and as it will be when blurred, filtered
or noised, moves the bits that lag, and spends no more than the margins need, so that a picture of little texture
stays above 46 dB while one of much, which hides it, gets more. Detecting: lattice by the sync pattern, then Q_b = sum
of q_i s_i per coded bit, the likeliest codeword, its MAC, and T = sum q_i s_i c_i over all payload chips under
hypothesis (a). The sync signs are independent of the payload signs, so that the choice of a lattice costs nothing,
however many are tried. All pictures of a case are added chip by chip, one sign a position.

A name can be wrong in a second way, in pictures that the key did mark, for others, perhaps several in one case. The
chips are the same in all pictures, so whoever has averaged many pictures of each of three messages can multiply what
he found to a fourth word, as clean as if it had been marked. No such word opens to a registered message but by luck
(payload, `mixable`), and p_global adds that luck: messages that could be named / 2^64, times the different readings
that are decoded, up to nine, times the keys tried. With 65,536 users and all 2^28 license numbers that is 2^-20 a
reading, too much for a picture that had to be searched: name the licenses that were issued.

Limits: the chips are the same in all pictures of a key, so averaging many marked pictures shows them; pictures
without texture or near white hold little; unequal stretching of height and width is not searched for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from zhiyi_watermark import prf, stats
from zhiyi_watermark.errors import SpecError, UnavailableError
from zhiyi_watermark.payload import MAX_FINGERPRINT, Long, Nameable, PayloadCode, Short
from zhiyi_watermark.pictures import MAX_PIXELS, Picture
from zhiyi_watermark.result import Detection, detection

METHOD: Final = "dss-3"
NULL: Final = (
    "the message named was put into none of the pictures: either they were made without this key, and its payload "
    "signs are fair coins, or with it for others, and what theirs mix to opens by chance to a message that may be named"
)
CHIPS: Final = 64  # chips a side
GRID: Final = 512  # canonical px of the short side
MIN_SIDE: Final = 128  # px of the picture
MAX_ASPECT: Final = 8
MAX_PICTURES: Final = 64  # of a case
MAX_Q: Final = 4  # |q| of one cell
GAIN: Final = 8  # q per unit of (cell - neighbours) / (activity / PART + mean / FLOOR)
PART: Final = 8
FLOOR: Final = 64

_CELL: Final = GRID // CHIPS
_SYNC: Final = 131  # of the 512 chips of a region; 381 = 3 * 127 carry bits
_REGION: Final = (16, 32)  # rows, columns
_ONE: Final = 1 << 16  # fixed point of lattices: canonical px
_SUB: Final = 8  # fraction bits with which the integral image is read
_SURE: Final = 49  # z^2 of the sync pattern at which the picture as it stands is not searched
_PLAIN: Final = 64  # z^2 at which a found lattice is believed
_TRIED: Final = 24  # lattices found that are refined: a faint mark's is often not among the first
_KEPT: Final = 8  # of these, refined further and read
# cells tried, in 1/64 of those of the picture as it stands: least, most, steps of 1/112
_SCALES: Final = (45, 208, 112)
_TURNS: Final = 47  # degrees tried each way, beyond right angles
_COARSE: Final = (4,)  # parts of a cell by which a lattice is moved
_FINE: Final = (8, 16)

Int64 = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]


class Lattice(NamedTuple):
    """Where the cells lie in the canonical picture, fixed point 1/65536 px, and what they are."""

    cell: int  # side of a cell
    turn: int  # t of the rotation ((1-t^2), 2t) / (1+t^2), in 1/65536
    y: int  # center of all cells
    x: int
    rows: int  # cells
    columns: int
    view: int = 0  # which of the eight turns and flips by right angles
    row: int = 0  # chip of the cell (0, 0)
    column: int = 0


@dataclass(frozen=True)
class DssConfig:
    """What the embedder may spend; nothing of it concerns the detector."""

    psnr_most: float = 47.5  # dB of the marked picture against the unmarked, where that is enough
    psnr_least: float = (
        37.5  # dB never gone below, 2.5 more without texture; if it is too little the mark is weak
    )

    def __post_init__(self) -> None:
        if not 25.0 <= self.psnr_least <= self.psnr_most <= 60.0:
            raise SpecError(
                f"psnr_least = {self.psnr_least} and psnr_most = {self.psnr_most} must lie in 25 .. 60, in this order"
            )


def spec_hash() -> bytes:
    """SHA-256 of everything the detector's verdict depends on besides the key and the picture."""
    parts = [METHOD, CHIPS, GRID, MIN_SIDE, MAX_ASPECT, MAX_Q, GAIN, PART, FLOOR, _SYNC, *_REGION, _SUB]
    search = [_SURE, _PLAIN, _TRIED, _KEPT, _SCALES, _TURNS, _COARSE, _FINE]
    limits = [str(stats.TRACE), str(stats.REJECT)]
    return hashlib.sha256(json.dumps([parts, search, limits]).encode()).digest()


# --- the picture in integers ---------------------------------------------------------------------------------


def check_size(picture: Picture) -> None:
    """Raises UnavailableError on a picture that is too small, too large or too long."""
    height, width = picture.rgb.shape[:2]
    short, long = min(height, width), max(height, width)
    if short < MIN_SIDE or long > MAX_ASPECT * short or height * width > MAX_PIXELS:
        raise UnavailableError(
            f"the picture has {width} x {height} px; marks are put into and read from pictures of at least "
            f"{MIN_SIDE} px a side, at most {MAX_ASPECT} : 1 and {MAX_PIXELS} px"
        )


def canonical(picture: Picture) -> Int64:
    """Mean luma (x 256, BT.601 weights) on the canonical grid: short side 512, square px, rounded.  # (h, w)

    Rows and columns of the picture that fill no whole canonical px are left out at the bottom and right.
    Raises UnavailableError on a picture that is too small or too long.
    """
    check_size(picture)
    rgb = picture.rgb
    height, width = rgb.shape[:2]
    short = min(height, width)
    rows, columns = height * GRID // short, width * GRID // short
    edges = np.arange(columns + 1, dtype=np.int64) * short  # in px / 512
    at, part = edges // GRID, edges % GRID
    area, flat = short * short, rgb.reshape(height, width * 3)
    out = np.empty((rows, columns), dtype=np.int64)
    running = np.zeros(width + 1, dtype=np.int64)
    for i in range(rows):
        y0, f0 = divmod(i * short, GRID)
        y1, f1 = divmod((i + 1) * short, GRID)
        total = np.add.reduce(flat[y0:y1], axis=0, dtype=np.int64) * GRID - flat[y0].astype(np.int64) * f0
        if f1:
            total += flat[y1].astype(np.int64) * f1
        luma = 77 * total[0::3] + 150 * total[1::3] + 29 * total[2::3]
        np.cumsum(luma, out=running[1:])
        sums = running[at] * GRID
        inside = part > 0
        sums[inside] += part[inside] * luma[at[inside]]
        out[i] = (np.diff(sums) + area // 2) // area
    return out


def integral(image: Int64) -> Int64:
    """Sums over all px above and to the left.  # (h, w) -> (h+1, w+1)"""
    out = np.zeros((image.shape[0] + 1, image.shape[1] + 1), dtype=np.int64)
    np.cumsum(np.cumsum(image, axis=0), axis=1, out=out[1:, 1:])
    return out


def _box(x: npt.NDArray[Any], reach: int) -> npt.NDArray[Any]:
    """Sums over squares of side 2 reach + 1, zeros outside.  # (..., h, w)"""
    rows, columns = x.shape[-2:]
    framed = np.zeros((*x.shape[:-2], rows + 2 * reach, columns + 2 * reach), dtype=x.dtype)
    framed[..., reach : reach + rows, reach : reach + columns] = x
    across = framed[..., :columns].copy()
    for i in range(1, 2 * reach + 1):
        across += framed[..., i : i + columns]
    out = across[..., :rows, :].copy()
    for i in range(1, 2 * reach + 1):
        out += across[..., i : i + rows, :]
    return out


def quantised(mean: Int64, valid: npt.NDArray[np.bool_]) -> Int64:
    """q of each cell, 0 where invalid or black.  # (..., h, w)

    mean: luma * 256. q = GAIN * (cell - mean of its eight neighbours) / (activity / PART + mean / FLOOR), rounded and
    clipped; activity is the mean distance of the 25 cells around from their neighbours.
    """
    ok = valid.astype(np.int64)
    mean = mean * ok
    near = _box(ok, 1)
    others = np.maximum(near - 1, 1)
    sums = _box(mean, 1)
    high = ok * (8 * (mean * (near - 1) - (sums - mean)) // others)  # 8 * difference
    wide = np.maximum(_box(ok, 2), 1)
    scale = _box(np.abs(high), 2) // (wide * PART) + 8 * sums // (np.maximum(near, 1) * FLOOR)
    q = (2 * GAIN * high + scale) // np.maximum(2 * scale, 1)
    return np.where(scale >= 8, np.clip(q, -MAX_Q, MAX_Q), 0) * ok


def _along(image: Int64, lines: Int64, axis: int) -> Int64:
    """The integral image on lines between its own, times 2^_SUB. lines: px * 2^_SUB, clipped to the picture."""
    lines = np.clip(lines, 0, (image.shape[axis] - 1) << _SUB)
    at = np.minimum(lines >> _SUB, image.shape[axis] - 2)
    part = lines - (at << _SUB)
    low, high = np.take(image, at, axis=axis), np.take(image, at + 1, axis=axis)
    part = part[:, None] if axis == 0 else part[None, :]
    out: Int64 = (low << _SUB) + part * (high - low)
    return out


def _point(image: Int64, y: Int64, x: Int64) -> Int64:
    """The integral image at points between its own, times 4^_SUB; y, x: px * 2^_SUB, inside."""
    row, column = np.minimum(y >> _SUB, image.shape[0] - 2), np.minimum(x >> _SUB, image.shape[1] - 2)
    fy, fx = y - (row << _SUB), x - (column << _SUB)
    flat, at, width = image.reshape(-1), row * image.shape[1] + column, image.shape[1]
    upper = (flat[at] << _SUB) + fx * (flat[at + 1] - flat[at])
    lower = (flat[at + width] << _SUB) + fx * (flat[at + width + 1] - flat[at + width])
    out: Int64 = (upper << _SUB) + fy * (lower - upper)
    return out


def _means(image: Int64, at: Lattice, half: bool) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Mean luma of the lattice's cells, in steps of a cell or half of one, and which lie in the picture."""
    step = 2 if half else 1
    rows, columns = at.rows * step, at.columns * step
    shift = 16 - _SUB
    slack = 1 << _SUB  # a cell may stick out by one px
    high, wide = (image.shape[0] - 1) << _SUB, (image.shape[1] - 1) << _SUB
    if at.turn == 0:
        y = (at.y + (2 * np.arange(rows + step, dtype=np.int64) - rows) * at.cell // (2 * step)) >> shift
        x = (
            at.x + (2 * np.arange(columns + step, dtype=np.int64) - columns) * at.cell // (2 * step)
        ) >> shift
        sums = _along(_along(image, y, 0), x, 1)
        sums = sums[step:, step:] - sums[:-step, step:] - sums[step:, :-step] + sums[:-step, :-step]
        yc, xc = np.clip(y, 0, high), np.clip(x, 0, wide)
        area = (yc[step:] - yc[:-step])[:, None] * (xc[step:] - xc[:-step])[None, :]
        in_y = (y[:-step] >= -slack) & (y[step:] <= high + slack)
        in_x = (x[:-step] >= -slack) & (x[step:] <= wide + slack)
        valid = in_y[:, None] & in_x[None, :] & (area > 0)
        return sums // np.maximum(area, 1), valid
    cos, sin = _rotation(at.turn)
    v = (2 * np.arange(rows, dtype=np.int64) + step - rows)[:, None] * at.cell // (2 * step)
    u = (2 * np.arange(columns, dtype=np.int64) + step - columns)[None, :] * at.cell // (2 * step)
    reach = at.cell >> (shift + 1)
    y = ((at.y << 16) + v * cos - u * sin) >> (16 + shift)
    x = ((at.x << 16) + v * sin + u * cos) >> (16 + shift)
    valid = (y >= reach) & (y <= high - reach) & (x >= reach) & (x <= wide - reach)
    y, x = np.where(valid, y, reach), np.where(valid, x, reach)
    sums = (
        _point(image, y + reach, x + reach) - _point(image, y - reach, x + reach)
        - _point(image, y + reach, x - reach) + _point(image, y - reach, x - reach)
    )  # fmt: skip
    return sums // (4 * reach * reach), valid


def _rotation(turn: int) -> tuple[int, int]:
    """cos, sin in 1/65536 of the angle with tan(angle/2) = turn / 65536."""
    square = turn * turn
    whole = _ONE * _ONE + square
    return (_ONE * (_ONE * _ONE - square)) // whole, (2 * _ONE * _ONE * turn) // whole


def _viewed(chips: npt.NDArray[Any], view: int) -> npt.NDArray[Any]:
    """The chips as they lie in a picture turned by view % 4 right angles, mirrored first if view >= 4."""
    return np.rot90(chips[:, ::-1] if view >= 4 else chips, view % 4)


def _folded(q: Int64) -> Int64:
    """Cells 64 apart are one chip: their sum.  # (..., h, w) -> (..., 64, 64)"""
    high, wide = -(-q.shape[-2] // CHIPS), -(-q.shape[-1] // CHIPS)
    widths = [(0, 0)] * (q.ndim - 2) + [
        (0, high * CHIPS - q.shape[-2]), (0, wide * CHIPS - q.shape[-1])
    ]  # fmt: skip
    tiles = np.pad(q, widths).reshape(*q.shape[:-2], high, CHIPS, wide, CHIPS)
    out: Int64 = tiles.sum(axis=(-4, -2))
    return out


class _Hit(NamedTuple):
    """A lattice and how well the sync pattern fits it: z^2 = total^2 / squares."""

    total: int
    squares: int
    lattice: Lattice

    def beats(self, other: _Hit) -> bool:
        """Whether z is larger."""
        ours, theirs = max(0, self.total), max(0, other.total)
        return ours * ours * max(1, other.squares) > theirs * theirs * max(1, self.squares)

    def reaches(self, square: int) -> bool:
        """Whether z > 0 and z^2 >= square."""
        return self.total > 0 and self.total * self.total >= square * self.squares


class _Read(NamedTuple):
    """What a reading of the chips was decoded to."""

    order: stats.Order
    test: stats.ChipTest
    besides: Fraction  # chance of a wrong name where the key marked it for others
    message: Long | Short | None  # None where nobody registered


# --- the mark ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Dss:
    """The mark under one model key."""

    key: bytes
    config: DssConfig = DssConfig()

    def __post_init__(self) -> None:
        prf.check_key(self.key)

    @cached_property
    def code(self) -> PayloadCode:
        """Messages to coded bits."""
        return PayloadCode(prf.derive_key(self.key, "dss payload"), long=True, mixable=True)

    @property
    def kit_key(self) -> bytes:
        """Key of Detection.digest."""
        return prf.derive_key(self.key, "dss digest")

    @cached_property
    def layout(self) -> Int64:
        """The coded bit of each chip, -1 for the sync pattern.  # (64, 64)"""
        rows, columns = _REGION
        out = np.empty((CHIPS, CHIPS), dtype=np.int64)
        for region, (y, x) in enumerate(
            (y, x) for y in range(0, CHIPS, rows) for x in range(0, CHIPS, columns)
        ):
            order = prf.permutation(prf.derive_key(self.key, "dss layout", region), rows * columns)
            bits = np.full(rows * columns, -1, dtype=np.int64)
            bits[order[_SYNC:]] = np.arange(rows * columns - _SYNC) % self.code.bits
            out[y : y + rows, x : x + columns] = bits.reshape(rows, columns)
        return out

    @cached_property
    def signs(self) -> npt.NDArray[np.int8]:
        """+-1 of each chip; the sync pattern's from a key of its own.  # (64, 64)"""
        count = CHIPS * CHIPS
        payload = prf.signs(prf.derive_key(self.key, "dss chips"), count)
        sync = prf.signs(prf.derive_key(self.key, "dss sync"), count)
        return np.where(self.layout.reshape(-1) < 0, sync, payload).reshape(CHIPS, CHIPS)

    @cached_property
    def _sync(self) -> Int64:
        """The sync pattern, 0 where chips carry bits, in all eight views.  # (8, 64, 64)"""
        pattern = np.where(self.layout < 0, self.signs, 0).astype(np.int64)
        return np.stack([_viewed(pattern, v) for v in range(8)])

    @cached_property
    def _spectra(self) -> npt.NDArray[np.complex128]:
        spectra: npt.NDArray[np.complex128] = np.fft.rfft2(self._sync.astype(np.float64))
        return spectra

    # --- embedding

    def embed(self, picture: Picture, payload: Long) -> Picture:
        """The picture with the message in it; alpha, profile and size are kept.

        Raises SpecError on a payload out of range, UnavailableError on sizes that are not marked and on pictures
        that RGB8 does not hold (16 bit, CMYK).
        """
        if picture.lossy:
            raise UnavailableError(
                f"this picture can't be marked as it is: {picture.lossy}; convert it to RGB8 first"
            )
        word = self.code.signs(payload).astype(np.int64)
        target = np.where(self.layout >= 0, self.signs * word[np.maximum(self.layout, 0)], self.signs)
        image = canonical(picture)
        rows, columns = image.shape[0] // _CELL, image.shape[1] // _CELL
        hosts = [
            x[: rows * _CELL, : columns * _CELL].reshape(rows, _CELL, columns, _CELL).mean((1, 3))
            for x in _foreseen(image)
        ]
        gray = picture.gray or not bool((picture.rgb != picture.rgb[..., :1]).any())
        shares = (1.0, 1.0, 1.0) if gray else _SHARES
        cost = sum(share * share for share in shares) / 3
        change = _informed(hosts, target, self._groups, self.config, cost)
        return picture.with_pixels(_added(picture.rgb, change, shares))

    @cached_property
    def _groups(self) -> Int64:
        """What lags together: the chips of a coded bit, and of the sync pattern in one region by 32.  # (64, 64)"""
        out = self.layout.copy()
        rows, columns = _REGION
        at = self.code.bits
        for y in range(0, CHIPS, rows):
            for x in range(0, CHIPS, columns):
                part = out[y : y + rows, x : x + columns]
                free = np.flatnonzero(part.reshape(-1) < 0)
                flat = part.reshape(-1).copy()
                flat[free] = at + np.arange(len(free)) * 4 // len(free)
                part[...] = flat.reshape(part.shape)
                at += 4
        return out

    # --- detecting

    def detect(
        self,
        picture: Picture,
        users: int | Collection[int],
        fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
        *,
        models: int = 1,
    ) -> Detection:
        """Whose message is in one picture; see detect_case."""
        return self.detect_case([picture], users, fingerprints, models=models)

    def detect_case(
        self,
        pictures: Sequence[Picture],
        users: int | Collection[int],
        fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
        *,
        models: int = 1,
    ) -> Detection:
        """Whose message is in these pictures together, all committed before detection; equal ones count once.

        users: the registered user numbers, or how many (then 0 .. users-1); fingerprints: the same for the license's
        number, all 2^28 unless given; models: how many keys are tried on these pictures. Every message that could be
        named counts, and every reading of chips(). A payload is given only where p_global <= 1e-6.
        Raises SpecError on numbers out of range or too many pictures, UnavailableError on sizes not examined.
        """
        return self.verdict(self.chips(pictures), users, fingerprints, models=models)

    def chips(self, pictures: Sequence[Picture]) -> Int64:
        """q of every chip, added over the case's distinct pictures, in several readings.  # (readings, 64, 64)

        A picture that the sync pattern fits plainly is read on that lattice in all of them; another on the next
        best lattice in each, and as it stands in the last.
        """
        if not 1 <= len(pictures) <= MAX_PICTURES:
            raise SpecError(f"a case has 1 .. {MAX_PICTURES} pictures, given {len(pictures)}")
        total = np.zeros((_KEPT + 1, CHIPS, CHIPS), dtype=np.int64)
        for picture in {p.digest: p for p in pictures}.values():
            image = integral(canonical(picture))
            lattices = [hit.lattice for hit in self._register(image)]
            if len(lattices) > 1:
                lattices = [*lattices, *[lattices[0]] * (_KEPT - len(lattices)), _standing(image)]
                total += np.stack([self._read(image, at) for at in lattices])
            else:
                total += self._read(image, lattices[0])
        return total

    def verdict(
        self,
        readings: Int64,
        users: int | Collection[int],
        fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1,
        *,
        models: int = 1,
    ) -> Detection:
        """The decision on the readings of chips(), all of them counted.  # (readings, 64, 64)

        Raises SpecError on numbers out of range.
        """
        known = Nameable.of(users, fingerprints)
        count = stats.hypotheses(models=models, licenses=known.count, windows=len(readings))
        wrong = models * self.code.wrong_message(known)
        mine = self.layout >= 0
        signs, bit = self.signs[mine], self.layout[mine]
        different = [reading[mine] for reading in {r.tobytes(): r for r in readings}.values()]
        best: _Read | None = None
        for chips in different:
            sums = stats.bit_sums(chips, signs, bit, self.code.bits).q
            found = self.code.decode_soft(sums) if sums.any() else None
            if found is not None and found in known:
                word = self.code.signs(found)
                test = stats.chip_test(chips, signs * word[bit])
                besides = wrong * len(different)
                made = _Read(stats.order(test.tail(), count, besides), test, besides, found)
                if best is None or best.message is None or made.order < best.order:
                    best = made
            elif best is None:
                test = stats.ChipTest(
                    0, int(np.count_nonzero(chips)), int((chips * chips).sum()), int(np.abs(chips).sum())
                )
                best = _Read(stats.order(test.tail(), count), test, Fraction(0), None)
        assert best is not None
        tail, test = best.test.tail(), best.test
        named = best.message if tail.at_most(stats.TRACE, count, best.besides) else None
        return detection(
            tail,
            method=METHOD,
            license=named.fingerprint if isinstance(named, Long) else None,
            payload=self.code.message(named) if named else None,
            n=test.n,
            T=test.total,
            sum_q2=test.sum_q2,
            hypotheses=count,
            besides=best.besides,
            threshold=stats.TRACE,
            null=NULL,
            spec_hash=spec_hash(),
        )

    def bits(self, readings: Int64) -> npt.NDArray[np.uint8]:
        """The 64 bits of the likeliest message, registered and authentic or not: for counting wrong bits."""
        mine = self.layout >= 0
        best: tuple[float, npt.NDArray[np.uint8]] | None = None
        for reading in readings:
            sums = stats.bit_sums(reading[mine], self.signs[mine], self.layout[mine], self.code.bits).q
            fit = float(np.abs(sums).sum()) / max(1.0, float((reading[mine] ** 2).sum())) ** 0.5
            if best is None or fit > best[0]:
                best = fit, self.code.data_bits(sums)
        assert best is not None
        return best[1]

    def _read(self, image: Int64, at: Lattice) -> Int64:
        """q of every chip on a lattice.  # (64, 64)"""
        cells = _folded(quantised(*_means(image, at, half=False)))
        index = _viewed(np.arange(CHIPS * CHIPS).reshape(CHIPS, CHIPS), at.view)
        out = np.zeros(CHIPS * CHIPS, dtype=np.int64)
        out[np.roll(index, (-at.row, -at.column), (0, 1)).reshape(-1)] = cells.reshape(-1)
        return out.reshape(CHIPS, CHIPS)

    def _register(self, image: Int64) -> list[_Hit]:
        """The lattices that the sync pattern fits best, best first; one alone where it fits plainly.

        Tried are the picture as it stands, then cropped and turned ones.
        """
        height, width = image.shape[0] - 1, image.shape[1] - 1
        first = self._scan(image, _standing(image), half=False, views=range(8))
        if first.reaches(_SURE):
            return [first]
        hits = [first]
        hits += [
            self._scan(image, at, half=half, views=views) for at, half, views in _searched(height, width)
        ]
        tried = [self._refined(image, hit, _COARSE) for hit in _strongest(hits, _TRIED)]
        refined = [self._refined(image, hit, _FINE) for hit in _strongest(tried, _KEPT)]
        refined = _strongest(refined, _KEPT)
        return refined[:1] if refined[0].reaches(_PLAIN) else refined

    def _scan(self, image: Int64, at: Lattice, *, half: bool, views: Sequence[int]) -> _Hit:
        """The best of all chip offsets and the given views on a lattice; half: also half a cell off.

        Correlations are sums of products of small integers: the transform's error is far under 1/2, so that
        rounding makes them exact.
        """
        mean, valid = _means(image, at, half)
        if half:
            mean = np.stack([mean[a::2, b::2] for a in (0, 1) for b in (0, 1)])
            valid = np.stack([valid[a::2, b::2] for a in (0, 1) for b in (0, 1)])
        else:
            mean, valid = mean[None], valid[None]
        q = quantised(mean, valid)
        spectra = np.fft.rfft2(_folded(q).astype(np.float64))  # (phases, 64, 33)
        products = np.conj(spectra)[:, None] * self._spectra[list(views)][None]
        totals = np.rint(np.fft.irfft2(products, s=(CHIPS, CHIPS))).astype(np.int64)
        phase, view, row, column = np.unravel_index(int(np.argmax(totals)), totals.shape)
        shift = at.cell // 2
        down, right = (int(phase) // 2 * shift, int(phase) % 2 * shift) if half else (0, 0)
        moved = at._replace(
            y=at.y + down, x=at.x + right, view=views[int(view)], row=int(row), column=int(column)
        )
        squares = int((q[phase] ** 2).sum()) * _SYNC * 8 // (CHIPS * CHIPS)
        return _Hit(int(totals[phase, view, row, column]), squares, moved)

    def _refined(self, image: Int64, hit: _Hit, parts: Sequence[int]) -> _Hit:
        """The same chips on a lattice moved, scaled and turned by these parts of a cell, as long as it fits better."""
        best = self._score(image, hit.lattice)
        for part in parts:
            improved = True
            while improved:
                improved = False
                at = best.lattice
                step, span = at.cell // part, max(at.rows, at.columns) // 2
                moves = [{"y": at.y + d, "x": at.x} for d in (step, -step)]
                moves += [{"x": at.x + d} for d in (step, -step)]
                moves += [{"cell": at.cell + d // span} for d in (step, -step)]
                moves += [
                    {"turn": at.turn + d} for d in (_ONE // (2 * part * span), -_ONE // (2 * part * span))
                ]
                for move in moves:
                    tried = self._score(image, best.lattice._replace(**move))
                    if tried.beats(best):
                        best, improved = tried, True
        return best

    def _score(self, image: Int64, at: Lattice) -> _Hit:
        """How well the sync pattern fits a lattice whose chips are known."""
        q = _folded(quantised(*_means(image, at, half=False)))
        pattern = np.roll(self._sync[at.view], (-at.row, -at.column), (0, 1))
        return _Hit(int((q * pattern).sum()), int((q * q)[pattern != 0].sum()), at)


def _standing(image: Int64) -> Lattice:
    """The lattice of a picture that nobody has cropped or turned. image: the integral image"""
    side = _CELL * _ONE
    rows, columns = (image.shape[0] - 1) // _CELL, (image.shape[1] - 1) // _CELL
    return Lattice(side, 0, rows * side // 2, columns * side // 2, rows, columns)


def _strongest(hits: list[_Hit], count: int) -> list[_Hit]:
    """The best hits, best first."""
    left, out = list(hits), list[_Hit]()
    while left and len(out) < count:
        best = left[0]
        for hit in left[1:]:
            if hit.beats(best):
                best = hit
        left.remove(best)
        out.append(best)
    return out


def _searched(height: int, width: int) -> list[tuple[Lattice, bool, Sequence[int]]]:
    """Lattices tried when the picture as it stands shows no sync pattern."""
    out: list[tuple[Lattice, bool, Sequence[int]]] = []
    cell = _CELL * _ONE * _SCALES[0] // 64
    while cell < _CELL * _ONE * _SCALES[1] // 64:  # parts of a larger picture, down to a tenth of its area
        rows, columns = height * _ONE // cell + 1, width * _ONE // cell + 1
        y, x = rows * cell // 2, columns * cell // 2
        out.append((Lattice(cell, 0, y, x, rows, columns), True, (0, 4)))
        cell += cell // _SCALES[2]
    for step in range(-_TURNS, _TURNS + 1):
        turn = step * _ONE // 114  # about a degree
        if step == 0:
            continue
        cos, sin = _rotation(turn)
        sin_ = abs(sin)
        side = _CELL * _ONE
        cells = [side]
        det = cos * cos - sin_ * sin_
        if det > _ONE * _ONE // 16:
            sides = [(a * cos - b * sin_) * _ONE * _ONE // det for a, b in ((width, height), (height, width))]
            if min(sides) > 0:
                cells.append(min(sides) // CHIPS)
        for cell in cells:
            span = (height * sin_ + width * cos) // cell + 2, (height * cos + width * sin_) // cell + 2
            columns, rows = (n + n % 2 for n in span)
            out.append(
                (Lattice(cell, turn, height * _ONE // 2, width * _ONE // 2, rows, columns), False, range(8))
            )
    return out


# --- the embedder, in floats ---------------------------------------------------------------------------------


def _smooth(x: Float, side: float) -> Float:
    """x smoothed by (side, 1 - 2 side, side) both ways, borders repeated.  # (h, w)"""
    out = (1 - side) * x
    out[1:-1] -= side * x[1:-1]
    out[1:] += side * x[:-1]
    out[:-1] += side * x[1:]
    x, out = out, (1 - side) * out
    out[:, 1:-1] -= side * x[:, 1:-1]
    out[:, 1:] += side * x[:, :-1]
    out[:, :-1] += side * x[:, 1:]
    return out


def _difference(cells: Float, near: Float) -> Float:
    """8 * (cell - mean of its neighbours), as quantised() has it.  # (h, w)"""
    return 8 * (cells - (_box(cells, 1) - cells) / (near - 1))


def _foreseen(image: Int64) -> list[Float]:
    """The canonical picture as it is, blurred and median-filtered, gray levels.  # (h, w) each"""
    from PIL import Image, ImageFilter

    plain = image / 256
    stored = Image.fromarray(np.clip(np.rint(plain), 0, 255).astype(np.uint8))
    return [
        plain,
        np.asarray(stored.filter(ImageFilter.GaussianBlur(2.5)), dtype=np.float64),
        np.asarray(stored.filter(ImageFilter.MedianFilter(7)), dtype=np.float64),
    ]


def _informed(hosts: list[Float], target: Int64, groups: Int64, config: DssConfig, cost: float) -> Float:
    """The change of each cell, gray levels, that brings the lagging groups forward with the least distortion.

    Gradient steps on sum over channels and groups g of exp(-z_g / hard), z_g = sum of q_i target_i over its chips /
    sqrt(chips), under a fixed energy that grows by half a dB until the margins hold or the config's limit is
    reached. A channel is a picture foreseen (hosts), a smoothing of the change and a noise, under which the clipped
    q is on average a softer function of the cell. target: +-1, groups: group of each chip.
    cost: mean squared error of RGB for a change of luma by 1.
    # [(h, w)], (64, 64), (64, 64) -> (h, w)
    """
    cells = hosts[0]
    rows, columns = cells.shape
    tiled = np.ix_(np.arange(rows) % CHIPS, np.arange(columns) % CHIPS)
    sign, group = target[tiled].astype(np.float64), groups[tiled]
    size = np.sqrt(np.bincount(group.reshape(-1)))
    bits = len(size) - _SYNC_GROUPS
    ones = np.ones_like(cells)
    near, wide = _box(ones, 1), _box(ones, 2)
    activity = _box(np.abs(_difference(cells, near)), 2) / wide / 8
    mask = _masking(cells, activity)
    hidden = min(1.0, float(np.percentile(activity, 20)) / _FULL)
    floor = min(config.psnr_most, config.psnr_least + _SPARED * (1 - hidden))
    decibel = config.psnr_most
    change = _spent(mask * mask * sign, decibel, cost)
    after = 0
    for _ in range(_STEPS):
        slope = np.zeros_like(cells)
        holds = True
        for host, smoothing, noise, weight, margin in _CHANNELS:
            drawn = _smooth(change, 1 / 8)  # between the centers of cells it is drawn smoothly
            seen = hosts[host] + (_smooth(drawn, smoothing) if smoothing else drawn)
            high = _difference(seen, near)
            loud = _LOUD * noise  # deviation of `high`
            spread = _box(np.abs(high), 2) / wide
            scale = np.sqrt(spread**2 + (0.8 * loud) ** 2) / PART + 8 * _box(seen, 1) / (near * FLOOR)
            slant = GAIN / np.maximum(scale, 0.5)
            q = slant * high
            top = MAX_Q * MAX_Q + 1.5 * (loud * slant) ** 2
            root = np.sqrt(top + q * q)
            z = np.bincount(group.reshape(-1), (sign * MAX_Q * q / root).reshape(-1)) / size
            sync = float((z * size)[bits:].sum()) / (MAX_Q * CHIPS / 2)
            holds &= bool(np.partition(z[:bits], bits // 20)[bits // 20] >= margin[0]) and sync >= margin[1]
            pull = np.exp(-np.clip(z / _HARD, -8, 8)) / size
            g = weight * sign * pull[group] * slant * top / root**3
            g -= _box(g / (near - 1), 1) - g / (near - 1)
            if smoothing:
                g = _smooth(g, smoothing)
            slope += _smooth(g, 1 / 8)
        after += 1
        if after >= (_SETTLE if decibel == config.psnr_most else _AGAIN):
            if holds or (decibel <= floor and after >= _SETTLE):
                break
            if decibel > floor:
                decibel, after = max(floor, decibel - 0.5), 0
        slope *= mask * mask
        slope *= _STEP * np.sqrt(float((change**2).mean()) / max(1e-30, float((slope**2).mean())))
        change = _spent(change + slope, decibel, cost)
    return change


def _spent(change: Float, decibel: float, cost: float) -> Float:
    """The change scaled so that the marked picture has that PSNR, rounding included.

    cost: mean squared error of RGB for a mean squared change of luma of 1
    """
    energy = max(0.05, 255**2 / 10 ** (decibel / 10) - _ROUNDING) / cost
    out: Float = change * np.sqrt(energy / max(1e-30, float((change * _smooth(change, 1 / 6)).mean())))
    return out


def _added(rgb: npt.NDArray[np.uint8], change: Float, shares: tuple[float, ...]) -> npt.NDArray[np.uint8]:
    """The picture with the change of each cell drawn smoothly over its px, in strips.

    shares: the change of R, G and B for a change of luma by 1. Fractions are dithered by an ordered 8 x 8 pattern,
    whose mean over a cell is exact, the same for all channels.
    """
    height, width = rgb.shape[:2]
    short = min(height, width)
    out = np.empty_like(rgb)
    x = (np.arange(width) + 0.5) * CHIPS / short - 0.5
    left, right, fx = _between(x, change.shape[1])
    for top in range(0, height, _STRIP):
        bottom = min(height, top + _STRIP)
        y = (np.arange(top, bottom) + 0.5) * CHIPS / short - 0.5
        low, high, fy = _between(y, change.shape[0])
        rows = change[low] * (1 - fy[:, None]) + change[high] * fy[:, None]
        drawn = (rows[:, left] * (1 - fx) + rows[:, right] * fx).astype(np.float32)
        dither = np.take(np.take(_BAYER, np.arange(top, bottom) % 8, axis=0), np.arange(width) % 8, axis=1)
        for channel, share in enumerate(shares):
            steps = np.floor(drawn * np.float32(share) + dither).astype(np.int16)
            out[top:bottom, :, channel] = np.clip(rgb[top:bottom, :, channel] + steps, 0, 255)
    return out


def _between(at: Float, count: int) -> tuple[Int64, Int64, Float]:
    """Neighbours below and above a position and the part of the way between them."""
    at = np.clip(at, 0, count - 1)
    low = np.minimum(at.astype(np.int64), max(0, count - 2))
    return low, np.minimum(low + 1, count - 1), at - low


def _bayer() -> npt.NDArray[np.float32]:
    """Ordered dither thresholds, 1/128 .. 127/128.  # (8, 8)"""
    pattern = np.zeros((1, 1))
    for _ in range(3):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    return ((pattern + 0.5) / 64).astype(np.float32)


_BAYER: Final = _bayer()
_STRIP: Final = 256  # rows
_LUMA: Final = (0.299, 0.587, 0.114)
_SQUARES: Final = sum(w * w for w in _LUMA)
_SHARES: Final = tuple(
    w / _SQUARES for w in _LUMA
)  # the least change of RGB that changes luma by 1 is along these
_ROUNDING: Final = 1 / 6  # mean squared error of dithered rounding
_LOUD: Final = 8.5  # deviation of 8 * (cell - mean of eight neighbours) for noise of 1 in every cell
# host (as it is, blurred, median), part of each neighbour that a blur adds, noise in gray levels, weight,
# (least z of 19 in 20 bits, least z of the sync pattern) that make a margin
_CHANNELS: Final = (
    (0, 0.0, 2.3, 2.0, (3.3, 7.4)),
    (1, 0.05, 0.0, 1.0, (4.5, 9.8)),
    (2, 0.0, 0.0, 1.0, (4.5, 9.8)),
)
_SYNC_GROUPS: Final = 32
_FULL: Final = (
    8.0  # gray levels of activity in all but a fifth of the cells: texture hides the most that is spent
)
_SPARED: Final = 2.5  # dB less spent at most on a picture without
_HARD: Final = 1.6  # z by which the pull on a group falls by e
_STEP: Final = 0.3  # of a gradient step, relative
_STEPS: Final = 120  # at most
_SETTLE: Final = 20  # at the first and the last distortion
_AGAIN: Final = 5  # at those between


def _masking(cells: Float, activity: Float) -> Float:
    """How large a change of a cell the eye lets pass, relative.  # (h, w)"""
    return np.asarray((1.0 + activity) ** 0.1 * (0.5 + cells / 255))
