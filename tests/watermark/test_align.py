"""Lines put back: exactly, with whatever was done to them, and without harm where there is nothing to put back."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from zhiyi_watermark import align, weights

Float32 = npt.NDArray[np.float32]


def quantised(values: Float32) -> npt.NDArray[np.int8]:
    return weights._quantise(values.reshape(-1), weights._spread(values.reshape(-1))).reshape(values.shape)


def candidates(suspect: Float32, base: Float32) -> list[Float32]:
    return list(align.undo(suspect, base, quantised(suspect), quantised(base)))


@pytest.fixture
def base() -> Float32:
    return np.random.default_rng(1).standard_t(5, (96, 160)).astype(np.float32)


@pytest.mark.parametrize("kind", ["columns", "rows", "both"])
def test_lines_are_put_back(kind: str, base: Float32) -> None:
    rng = np.random.default_rng(2)
    rows, columns = ((rng.permutation(n), rng.choice([-1, 1], n).astype(np.float32)) for n in base.shape)
    scale = np.exp(rng.uniform(-1, 1, base.shape[0 if kind == "rows" else 1])).astype(np.float32)
    suspect = base
    if kind in ("columns", "both"):
        suspect = suspect[:, columns[0]] * (columns[1] * scale)
    if kind in ("rows", "both"):
        suspect = suspect[rows[0]] * (rows[1] * (scale if kind == "rows" else 1))[:, None]
    found = candidates(suspect, base)[["columns", "rows", "both"].index(kind)]
    assert np.allclose(found, base, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_lines_in_their_order_are_only_scaled_and_flipped_back(axis: int, base: Float32) -> None:
    rng = np.random.default_rng(2)
    n = base.shape[axis]
    factor = np.exp(rng.uniform(-1, 1, n)) * rng.choice([-1, 1], n)
    found = candidates((base * np.expand_dims(factor, 1 - axis)).astype(np.float32), base)
    assert len(found) <= 2
    assert any(np.allclose(one, base, rtol=1e-5) for one in found)


def test_lines_that_are_gone_are_zero_and_others_are_put_back(base: Float32) -> None:
    suspect = base.copy()
    suspect[:, :20] = np.random.default_rng(3).standard_normal((96, 20))
    found = candidates(suspect[:, ::-1].copy(), base)[0]
    assert np.allclose(found[:, 20:], base[:, 20:], rtol=1e-5)
    assert (found[:, :20] == 0).all(axis=0).mean() > 0.3  # unrelated lines are seldom each other's best


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan, np.inf])
def test_lines_without_content_crash_nothing(value: float, base: Float32) -> None:
    suspect = base.copy()
    suspect[:40, :] = value
    suspect[:, :50] = value
    for found in candidates(suspect, base):
        assert found.shape == base.shape
        assert np.isfinite(found).all()


def test_large_and_other_than_square_things_are_left_out(
    base: Float32, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert candidates(base.reshape(-1, 4, 8), base.reshape(-1, 4, 8)) == []
    monkeypatch.setattr(align, "MAX_SIDE", 100)
    assert candidates(base, base) == []


def shuffled(base: Float32) -> Float32:
    rng = np.random.default_rng(4)
    rows, columns = (rng.permutation(n) for n in base.shape)
    flips = rng.choice([-1, 1], base.shape[1]).astype(np.float32)
    return np.ascontiguousarray((base[rows][:, columns] * flips).astype(np.float32))


def test_the_parts_that_are_looked_at_at_once_change_nothing(
    base: Float32, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspect = shuffled(base)
    suspect[:30] = 0
    whole = candidates(suspect, base)
    monkeypatch.setattr(align, "_CELLS", 700)
    assert all(np.array_equal(a, b) for a, b in zip(whole, candidates(suspect, base), strict=True))


def test_of_long_lines_some_places_are_compared(base: Float32, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align, "TERMS", 48)
    assert np.allclose(candidates(shuffled(base), base)[-1], base, rtol=1e-5)


@pytest.mark.parametrize("shape", [(96, 160), (400, 30)])
def test_the_work_is_as_stated(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Five comparisons of all pairs of lines, of at most TERMS places each."""
    base = np.random.default_rng(1).standard_t(5, shape).astype(np.float32)
    work: list[int] = []
    plain = align._products

    def counted(left: Any, right: Any, largest: int) -> Any:
        assert len(left) * len(right) <= max(align._CELLS, len(right))
        work.append(len(left) * len(right) * left.shape[1])
        return plain(left, right, largest)

    monkeypatch.setattr(align, "_products", counted)
    monkeypatch.setattr(align, "_CELLS", 5000)
    monkeypatch.setattr(align, "TERMS", 20)
    candidates(shuffled(base), base)
    rows, columns = shape
    assert sum(work) == 20 * (3 * columns**2 + 2 * rows**2)


@pytest.mark.parametrize("shape", [(3000, 40), (700, 600)])
def test_memory_is_as_stated(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3,000 lines, all pairs at once would be 70 MB in each array."""
    base = np.random.default_rng(1).standard_t(5, shape).astype(np.float32)
    suspect = shuffled(base)
    q_suspect, q_base = quantised(suspect), quantised(base)
    cells = 1 << 15
    monkeypatch.setattr(align, "_CELLS", cells)
    tracemalloc.start()
    try:
        for _ in align.undo(suspect, base, q_suspect, q_base):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    candidate = 4 * base.size
    assert peak < candidate + 12 * base.size + 80 * cells + 200 * sum(shape)
