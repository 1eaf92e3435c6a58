"""The weights benchmark reads what the detectors read, resumes, and its shortcut for coalitions is exact."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import weights_bench as bench
from report import Kept
from weights_bench import BY_ID, Size, Subject, license_of
from zhiyi_watermark import stats, weights

SIZE = Size(2, 2, 6, 3, 2, 64, 128, 3.0, 16)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A tiny random Llama with four layers of it marked."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights-bench")
    model: Any = LlamaForCausalLM(  # type: ignore[no-untyped-call]  # transformers
        LlamaConfig(
            vocab_size=96, hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=0,
        )
    )  # fmt: skip
    model.to(torch.bfloat16).save_pretrained(folder / "model")
    names = [f"model.layers.{i}.mlp.down_proj.weight" for i in range(4)]
    spec = weights.WfpSpec(tuple(weights.TensorShape(n, (64, 192)) for n in names), 0.05, 256, 128, 2, 2048)
    tokens = [(i * i + 3 * i) % 90 + 1 for i in range(2000)]
    return Subject(folder / "model", spec, SIZE, tokens, folder / "work")


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "results.json")


def test_results_are_kept_after_each(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return 7

    assert [Kept(tmp_path / "x").get("a", make), Kept(tmp_path / "x").get("a", make)] == [7, 7]
    assert made == [1]


def test_an_attacked_copy_is_read_as_the_detectors_read_it(subject: Subject, kept: Kept) -> None:
    """quality raises unless trace and confirm on the whole attacked model agree with the reading."""
    for name in ("none", "int4", "permute_residual"):
        found = bench.quality(subject, kept, BY_ID[name])
        reading = bench.attacked(subject, kept, BY_ID[name], 0)
        assert (found.changed == 0) == (name == "none")
        assert np.isfinite(found.nll)
        assert reading.named == [license_of(0)]
        assert reading.convicted == len(reading.shares)
    clean = bench.attacked(subject, kept, BY_ID["none"], 0)
    assert clean.wrong == 0
    assert clean.log10_p < -6
    with pytest.raises(RuntimeError, match="T ="):
        bench.check_against_detectors(
            subject, subject.copy(0), license_of(0), replace(clean, total=clean.total + 1)
        )
    with pytest.raises(RuntimeError, match="share 0"):
        bench.check_against_detectors(
            subject, subject.copy(0), license_of(0), replace(clean, shares=[0, *clean.shares[1:]])
        )


def test_fine_tuning_is_real_for_one_copy_and_carried_to_others(subject: Subject, kept: Kept) -> None:
    first = bench.quality(subject, kept, BY_ID["finetune5"])
    assert 0.05 <= first.changed < 0.1
    second = bench.attacked(subject, kept, BY_ID["finetune5_int4"], 1)
    assert second.named == [license_of(1)]
    stages = subject.tuning("all")
    assert 0.05 <= stages[0].relative_change < 0.15 <= stages[1].relative_change
    assert bench.attacked(subject, kept, BY_ID["finetune_declared5"], 1).named == [license_of(1)]


def test_the_least_total_that_names_is_the_detectors_threshold(subject: Subject) -> None:
    sums, _, _ = weights._trace_sums(subject.copy(0), subject.kit, subject.base)
    law = weights.LicenseScores.of(subject.kit.trace_key, sums.quantised(weights.BIT_LEVELS).q).law
    least = bench.least_named(law)
    assert law.tail(least).at_most(stats.TRACE, bench.LICENSES)
    assert not law.tail(least - law.unit).at_most(stats.TRACE, bench.LICENSES)


@pytest.mark.parametrize("how", bench.STRATEGIES)
def test_tables_give_what_files_of_coalitions_have(how: Any, subject: Subject) -> None:
    """play raises when one integer differs."""
    tables = bench.Tables(subject)
    assert 0 <= bench.play(subject, tables, how, 3, 1) <= 1


def test_colluders_are_named_and_innocents_are_not(subject: Subject) -> None:
    found = bench.collude(subject, bench.Tables(subject), "average", 2, 6)
    assert (found.coalitions, found.right, found.accused) == (6, 6, 0)
    assert 0 < found.largest_bound <= 1e-6
    assert len(set(bench.coalition_of(3, 5))) == 5


def test_a_row_is_made_of_what_was_read(subject: Subject, kept: Kept) -> None:
    lines = list(bench.survival(subject, kept, [BY_ID["none"], BY_ID["int8"]]))
    rows = {row.id: row for row in bench.survival_rows(subject, lines)}
    assert rows["wfp_ber_int8"].n == SIZE.copies * subject.spec.code_bits
    assert rows["wfp_ber_int8"].target == 0
    assert rows["wfp_ber_none"].target is None
    assert len(bench.table(lines, subject)) == 4
    increase = bench.perplexity_row(subject, kept)
    assert increase.interval is not None
    assert increase.interval[0] <= increase.value <= increase.interval[1]
    assert increase.n == SIZE.held_out_long - 1


def test_a_rotation_is_said_to_hide_the_mark(subject: Subject, kept: Kept) -> None:
    row = bench.rotation_row(subject, kept)
    assert row.value > 0.3
    assert row.target is None


def test_a_student_has_no_mark(subject: Subject, kept: Kept) -> None:
    found = bench.distilled(subject, kept, 2)
    assert not found.named
    assert found.convicted == 0
    assert 0.3 < found.wrong / found.bits < 0.7
