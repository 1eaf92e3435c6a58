"""GSW's part of the weights benchmark: attacks are done to the copy, the verdict is from texts and base, it resumes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import weights_gsw as bench_of
from weights_gsw import LICENSES, Bench, Reading, Size
from zhiyi_watermark.tensorfile import Checkpoint

TINY = Path(__file__).resolve().parents[1] / "models" / "tiny-lm"
SIZE = Size(1, 1, (1, 2, 3), 2, 1, 1, 256)
BY_ID = {attack.id: attack for attack in bench_of.attacks_of(SIZE)}


def quiet(what: str) -> None:
    return None


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    from transformers import AutoTokenizer

    text = (TINY / "piece.txt").read_text(encoding="utf-8")
    tokens = AutoTokenizer.from_pretrained(TINY).encode(text)
    return Bench(TINY, tokens, tokens, SIZE, tmp_path_factory.mktemp("weights-gsw"))


@pytest.fixture(scope="module")
def lines(bench: Bench) -> list[bench_of.Line]:
    return bench_of.survival(bench, [BY_ID["none"], BY_ID["int8"]], quiet)


def test_the_texts_of_a_copy_name_it_and_the_same_texts_are_not_right_for_another(
    bench: Bench, lines: list[bench_of.Line]
) -> None:
    for line in lines:
        (case,), (together,) = line.cases, line.together
        assert (case.right, case.innocent) == (True, 0)
        assert case == together  # one case is all there is
        assert case.log10_p < -6
        assert 900 < case.tokens <= bench_of.TEXTS * bench_of.TOKENS + 50
    ids = bench_of.written(bench.copy(0), bench.held_out, bench_of.TEXTS, seed=0)
    tokenizer: Any = bench.verifier.tokenizer
    texts = [tokenizer.decode(text) for text in ids]
    accused = bench_of.read(bench, texts, 1)
    assert (accused.right, accused.innocent) == (False, 1)
    assert abs(accused.z) < 4
    assert bench_of.read(bench, texts, 0, guilty=2).right


def test_the_bases_texts_name_nobody(bench: Bench) -> None:
    tokenizer: Any = bench.verifier.tokenizer
    ids = bench_of.written(TINY, bench.held_out, bench_of.TEXTS, seed=0)
    found = bench_of.read(bench, [tokenizer.decode(text) for text in ids], 0)
    assert (found.right, found.innocent) == (False, 0)


@pytest.mark.parametrize("attack", BY_ID.values(), ids=list(BY_ID))
def test_every_attack_makes_a_whole_model_of_other_weights(
    bench: Bench, attack: bench_of.Attack, tmp_path: Path
) -> None:
    folder = attack.apply(bench, 0, tmp_path / "out")
    assert (folder / "config.json").is_file()
    name = bench.names[0]
    shape = bench.spec.tensors[0].shape
    with Checkpoint(folder) as new, Checkpoint(bench.copy(0)) as old:
        same = np.array_equal(new.floats(name, shape), old.floats(name, shape))
    assert same == (attack.id == "none")


def test_what_is_done_is_not_done_again(
    bench: Bench, lines: list[bench_of.Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: Any) -> Any:
        raise AssertionError("made again")

    again = Bench(TINY, bench.train, bench.held_out, SIZE, bench.work.parent)
    other = Bench(TINY, bench.train, bench.held_out, replace(SIZE, cases=2), bench.work.parent)
    assert again.work == bench.work != other.work
    monkeypatch.setattr(bench_of, "measured", never)
    assert bench_of.survival(again, [BY_ID["none"], BY_ID["int8"]], quiet) == lines
    with pytest.raises(AssertionError, match="made again"):
        bench_of.survival(again, [BY_ID["int4"]], quiet)


def test_rows_count_cases_copies_and_innocents() -> None:
    def reading(right: bool, innocent: int = 0) -> Reading:
        return Reading(1000, 5.0, -7.0, right, innocent)

    one = bench_of.Line(BY_ID["int4"], [reading(True), reading(False)], [reading(True)], 3.0)
    two = bench_of.Line(BY_ID["average2"], [reading(False, 1)], [reading(True)], 3.0)
    rows = {row.id: row for row in bench_of.rows([one, two], SIZE)}
    assert (rows["gsw_int4"].value, rows["gsw_int4"].n) == (0.5, 2)
    assert (rows["gsw_int4_together"].value, rows["gsw_int4_together"].n) == (1, 1)
    assert rows["gsw_average2"].value == 0
    tests = 3 * (LICENSES - 1) + 2 * (LICENSES - 2)
    assert (rows["gsw_innocents"].value * tests, rows["gsw_innocents"].n) == (pytest.approx(1), tests)
    assert len(bench_of.table([one, two], SIZE)) == 4


def test_the_report_says_how_far_fine_tuning_went(bench: Bench, lines: list[bench_of.Line]) -> None:
    text = bench_of.notes(lines, bench)
    first, *_, last = bench.changes(0)
    assert 0 < first < last
    assert f"{first:.1%} after 1" in text
    assert "| int8 by rows | 1/1 |" in text
