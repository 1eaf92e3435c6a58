"""Comparing a run with the committed file."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from report import Row, bootstrap, compare


def row(value: float, target: float | None = None, id_: str = "open") -> Row:
    return Row(id_, "what", value, "gas", 1, target, None if target is None else "<=")


def test_a_bootstrap_covers_the_mean_and_narrows() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.random(20), rng.random(2000)
    low, high = bootstrap(few.tolist()) or (0.0, 0.0)
    assert low < few.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * few.std() / math.sqrt(20), rel=0.2)
    narrow = bootstrap(many.tolist()) or (0.0, 1.0)
    assert narrow[1] - narrow[0] < (high - low) / 4
    assert bootstrap([0.5, 0.5]) == (0.5, 0.5)
    assert bootstrap([0.5]) is None


def test_an_equal_row_is_neither_change_nor_fault() -> None:
    found = compare({"open": 1_000.0}, [row(1_000, 1_000)], 0.01)
    assert (found.changes, found.faults) == ([], [])


def test_a_row_may_grow_by_the_tolerance() -> None:
    found = compare({"open": 1_000.0}, [row(1_010)], 0.01)
    assert found.changes == ["open 1000 -> 1010 (+1.00%)"]
    assert not found.faults


def test_a_row_that_grows_more_is_a_fault() -> None:
    found = compare({"open": 1_000.0}, [row(1_011)], 0.01)
    assert len(found.changes) == 1
    assert found.faults == ["open 1000 -> 1011 (+1.10%): over the 1% that a row may grow"]


def test_a_row_that_falls_is_a_change() -> None:
    found = compare({"open": 1_000.0}, [row(500)], 0.01)
    assert found.changes == ["open 1000 -> 500 (-50.00%)"]
    assert not found.faults


def test_a_row_over_its_target_is_a_fault_though_it_did_not_grow() -> None:
    assert compare({"open": 1_000.0}, [row(1_000, 999)], 0.01).faults == ["open 1000: the target is <= 999"]


def test_rows_of_one_side_are_faults() -> None:
    found = compare({"open": 1_000.0}, [row(5, id_="fresh")], 0.01)
    assert found.faults == [
        "fresh 5: not in the committed file, write it anew",
        "open: committed, but not measured",
    ]
