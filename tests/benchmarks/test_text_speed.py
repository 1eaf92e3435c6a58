"""The speed benchmark times what it says: every run in turn, and texts that do carry a mark."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import text_speed
from zhiyi_watermark.payload import user_of
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig


def test_runs_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    found = text_speed.in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, 3)  # type: ignore[misc]  # bound early
    assert calls == ["a", "b"] * 4
    assert {name: len(times) for name, times in found.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_the_median_of_neighbours() -> None:
    found = {"plain": [1.0, 2.0, 9.0], "marked": [2.0, 2.0, 3.0]}
    assert text_speed.ratio(found, "plain", "marked") == 1.0


@pytest.mark.parametrize("long", [False, True])
def test_the_marked_texts_are_marked(long: bool) -> None:
    mark = BinPlus(text_speed.KEY, BinPlusConfig(long=long))
    payload = mark.detect(text_speed.written(mark, text_speed.TOKENS), 8).payload
    assert payload is not None
    assert user_of(payload) == 7
