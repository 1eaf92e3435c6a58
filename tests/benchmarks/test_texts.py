"""The text benchmark's store, sampler and generation, on a tiny random model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import text_bench
import text_figures
import text_series
from report import FOLDER, Row
from text_model import Llama, Sampling, sample, stream
from text_series import MATCHED, OnSurvivors, Paraphrase, Prompts, Series
from texts import Origin, Store, StoreError, Text

ORIGIN = Origin("model", "series", {"delta": 1.0, "tokens": 5}, "code", "prompts", 3)
VOCABULARY = 300


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Prompts:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8, tie_word_embeddings=True, initializer_range=0.4,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    ids = torch.randint(20, VOCABULARY, (8, 7), generator=torch.Generator().manual_seed(1))
    return Prompts("tiny", folder, SimpleNamespace(added_tokens_decoder={}), ids)


def a_series(name: str = "bin", method: str = "binplus", **more: Any) -> Series:
    parameters = {"delta": 1.0, "horizon": 20} if method == "binplus" else {}
    return replace(Series(name, method, 6, 12, parameters, rows=3), **more)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    series = {s.name: s for s in (a_series(), a_series("plain", "plain"))}
    monkeypatch.setattr(text_bench, "SERIES", series)
    return Store(tmp_path / "texts")


def wanted() -> list[Series]:
    return list(text_bench.SERIES.values())


# --- the store ----------------------------------------------------------------------------------------------


def test_a_kept_text_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    texts = [Text("a", 1, (5, 49151, 0), 0.25), Text("b", 0, (7,), -1e-6)]
    store.add("series", texts)
    assert store.read("series") == {1: texts[0], 0: texts[1]}
    assert store.current("series", {0: "b", 1: "other"}) == {0: texts[1]}
    assert store.read("nothing") == {}
    assert 0 < store.size() == store.path("series").stat().st_size


def test_adding_replaces_by_index_and_the_file_depends_on_the_texts_alone(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    store.add("series", [Text("old", 0, (1,), 0.0), Text("b", 1, (2,), 0.0)])
    store.add("series", [Text("new", 0, (3,), 0.0)])
    other.add("series", [Text("b", 1, (2,), 0.0), Text("new", 0, (3,), 0.0)])
    assert store.path("series").read_bytes() == other.path("series").read_bytes()


@pytest.mark.parametrize("field", ["model", "series", "code", "prompt"])
def test_a_key_changes_with_what_made_the_text(field: str) -> None:
    assert replace(ORIGIN, **{field: "another"}).key() != ORIGIN.key()


def test_a_key_changes_with_parameters_and_index() -> None:
    keys = {
        ORIGIN.key(),
        replace(ORIGIN, method={"delta": 1.1, "tokens": 5}).key(),
        replace(ORIGIN, index=4).key(),
    }
    assert len(keys) == 3
    assert replace(ORIGIN, method={"tokens": 5, "delta": 1.0}).key() == ORIGIN.key()


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add("series", [Text("a", 0, tuple(range(500)), 0.0)])
    whole = store.path("series").read_bytes()
    for damaged in (whole[:-9], b"no archive", whole[:20] + bytes(20) + whole[40:]):
        store.path("series").write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            store.read("series")
    with pytest.raises(StoreError, match="not a line"):
        Text.from_line('{"key": "a"}')


# --- the model and the sampler ------------------------------------------------------------------------------


def test_the_loop_computes_what_transformers_computes(prompts: Prompts) -> None:
    from transformers import AutoModelForCausalLM

    theirs: Any = AutoModelForCausalLM.from_pretrained(prompts.folder, dtype=torch.float32)
    ours = Llama(prompts.folder, torch.float32)
    more = torch.tensor([[30, 31], [40, 41], [50, 51]])
    with torch.inference_mode():
        cache = ours.start(3, 12)
        got = [ours.logits(cache, prompts.ids[:3])] + [
            ours.logits(cache, more[:, i : i + 1]) for i in range(2)
        ]
        whole = theirs(torch.cat([prompts.ids[:3], more], dim=1)).logits
    for step, logits in enumerate(got):
        assert torch.allclose(logits, whole[:, 6 + step], atol=2e-4)


def fixed(rows: int) -> torch.Tensor:
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.normal(0, 2, (1, VOCABULARY)).astype(np.float32)).repeat(rows, 1)


def test_tokens_are_drawn_as_often_as_they_should() -> None:
    scores, rows = fixed(400), 400
    how = Sampling(20, temperature=0.8, top_k=5, banned=(int(scores[0].argmax()),))
    streams = [stream(f"{i}") for i in range(rows)]
    drawn, costs = sample(lambda _: scores.clone(), torch.zeros(rows, 3, dtype=torch.long), how, streams)
    rest = scores[0].clone()
    rest[list(how.banned)] = -torch.inf
    top, ids = rest.topk(5)
    expected = torch.softmax(top / 0.8, dim=0).numpy()
    seen = np.array([(drawn == int(i)).mean() for i in ids])
    assert seen.sum() == pytest.approx(1)
    assert np.abs(seen - expected).max() < 5 * 0.5 / np.sqrt(drawn.size)
    assert not costs.any()


def test_a_step_costs_the_change_of_the_expected_surprise() -> None:
    scores = fixed(1)
    top, ids = scores[0].topk(4)

    def mark(_: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        out = given.clone()
        out[0, ids[2]] += 1.5
        return out

    how = Sampling(3, temperature=2.0, top_k=4)
    _, costs = sample(lambda _: scores.clone(), torch.zeros(1, 2, dtype=torch.long), how, [stream("x")], mark)
    p = torch.softmax(top.double() / 2, dim=0)
    q = torch.softmax((top.double() + torch.tensor([0, 0, 1.5, 0])) / 2, dim=0)
    assert costs[0] == pytest.approx(3 * float(((p - q) * p.log()).sum()), rel=1e-6)


def test_a_row_draws_the_same_beside_other_rows() -> None:
    scores = fixed(3)
    how = Sampling(8)
    start = torch.zeros(3, 2, dtype=torch.long)
    one, _ = sample(lambda _: scores.clone(), start, how, [stream(k) for k in "abc"])
    two, _ = sample(lambda _: scores.clone(), start, how, [stream(k) for k in "xbz"])
    assert (one[1] == two[1]).all()
    assert (one[0] != two[0]).any()


def test_synthid_on_survivors_is_transformers_synthid() -> None:
    slow, quick = text_series.synthid_processor(), OnSurvivors(text_series.synthid_processor())
    rng = np.random.default_rng(2)
    ids = torch.from_numpy(rng.integers(0, VOCABULARY, (2, 4)))
    for step in range(9):
        scores = torch.full((2, VOCABULARY), -torch.inf)
        kept = torch.from_numpy(np.stack([rng.permutation(VOCABULARY)[:6] for _ in range(2)]))
        scores.scatter_(1, kept, torch.from_numpy(rng.normal(0, 1, (2, 6)).astype(np.float32)))
        theirs, ours = slow(ids, scores), quick(ids, scores)
        assert torch.allclose(theirs.gather(1, kept).softmax(1), ours.gather(1, kept).softmax(1), atol=1e-6)
        new = kept[:, step % 2 : step % 2 + 1] if step < 4 else ids[:, -4:-3]  # later the contexts repeat
        ids = torch.cat([ids, new], dim=1)


# --- generation ---------------------------------------------------------------------------------------------


def test_generation_goes_on_where_it_was_stopped(prompts: Prompts, store: Store, tmp_path: Path) -> None:
    assert text_bench.generate(store, prompts, wanted(), 1e6) == 0
    whole = {name: store.read(name) for name in text_bench.SERIES}
    assert {len(texts) for texts in whole.values()} == {6}
    again = Store(tmp_path / "again")
    again.add("bin", [whole["bin"][i] for i in (0, 1, 2, 4)])  # the second batch broke off
    assert text_bench.generate(again, prompts, wanted(), 1e6) == 0
    assert {name: again.read(name) for name in text_bench.SERIES} == whole


def test_texts_of_other_code_are_made_again(prompts: Prompts, store: Store) -> None:
    series = wanted()[0]
    plan = series.plan(prompts, store)
    store.add(series.name, [Text("stale", i, (1, 2), 0.0) for i in range(6)])
    assert text_bench.missing(store, series, plan) == [[0, 1, 2], [3, 4, 5]]
    text_bench.generate(store, prompts, [series], 1e6)
    assert text_bench.missing(store, series, plan) == []


def test_no_batch_begins_after_the_time(prompts: Prompts, store: Store) -> None:
    assert text_bench.generate(store, prompts, wanted(), -1.0) == 4
    assert store.size() == 0


def test_regeneration_finds_a_changed_token(prompts: Prompts, store: Store) -> None:
    text_bench.generate(store, prompts, wanted(), 1e6)
    assert text_bench.regenerate(store, prompts, wanted(), 12) == []
    kept = store.read("bin")[4]
    other = (*kept.tokens[:7], (kept.tokens[7] + 1) % VOCABULARY, *kept.tokens[8:])
    store.add("bin", [replace(kept, tokens=other)])
    assert text_bench.regenerate(store, prompts, wanted(), 12) == [
        "bin 4: the kept text differs from token 7 on"
    ]


def test_marked_texts_cost_something_and_plain_ones_nothing(prompts: Prompts, store: Store) -> None:
    text_bench.generate(store, prompts, wanted(), 1e6)
    assert all(text.cost == 0 for text in store.read("plain").values())
    assert sum(text.cost for text in store.read("bin").values()) > 0


def test_paraphrases_start_from_kept_texts(
    prompts: Prompts, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Letters:
        """A tokenizer whose tokens are letters; id 20 ends a text."""

        added_tokens_decoder: ClassVar = {20: SimpleNamespace(special=True)}

        def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
            return "".join(". "[i % 7 > 0 :][:1] if i % 5 == 0 else chr(97 + i % 26) for i in ids)

        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return [21 + ord(c) % 200 for c in text]

        def apply_chat_template(self, said: Any, **_: Any) -> str:
            return str(said[0]["content"])[-30:]

    asked = replace(prompts, tokenizer=Letters())
    more = Paraphrase("more", "paraphrase", 3, 8, temperature=0.7, rows=2, source="plain")
    monkeypatch.setitem(text_series.SERIES, "plain", text_bench.SERIES["plain"])
    assert text_bench.generate(store, asked, [more], 1e6) == 1  # nothing to start from
    assert text_bench.generate(store, asked, [text_bench.SERIES["plain"], more], 1e6) == 0
    pieces, made = more.pieces(asked, store), text_series.current(more, asked, store)
    assert [text.index for text in made] == list(range(len(pieces)))
    assert sorted({index for index, _ in pieces}) == [0, 1, 2]
    assert all(len(text.tokens) <= 8 and 20 not in text.tokens and text.cost == 0 for text in made)
    assert all(len({len(pieces[i][1]) for i in batch}) == 1 for batch in more.plan(asked, store).batches)
    source = store.read("plain")[0]
    store.add("plain", [replace(source, tokens=(90, *source.tokens[1:]))])
    assert len(text_series.current(more, asked, store)) < len(made)  # the source is another text


# --- what makes a text --------------------------------------------------------------------------------------


def test_code_version_follows_what_is_drawn() -> None:
    one = text_series.code_version(a_series())
    assert one == text_series.code_version(a_series("another name"))
    assert one != text_series.code_version(a_series(parameters={"delta": 2.0, "horizon": 20}))
    assert one != text_series.code_version(a_series(temperature=0.7))


def test_a_matched_strength_is_needed_and_part_of_the_key(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = a_series("peer", "mpac", parameters={"delta": MATCHED})
    monkeypatch.setattr(text_series, "strengths", dict)
    assert not series.ready
    with pytest.raises(ValueError, match="--match"):
        series.mark([0])
    keys = []
    for delta in (1.0, 1.5):
        monkeypatch.setattr(text_series, "strengths", lambda delta=delta: {"mpac": delta})
        assert series.ready
        keys.append(series.plan(prompts, Store(Path("nowhere"))).keys[0])
    assert keys[0] != keys[1]


def test_the_best_strength_tried_is_kept(
    prompts: Prompts, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = a_series("main", "plain", tokens=500)
    peer = a_series("peer", "mpac", tokens=500, parameters={"delta": MATCHED})
    for name, value in {"SERIES": {"main": main, "peer": peer}, "MAIN": "main"}.items():
        monkeypatch.setattr(text_bench, name, value)
    monkeypatch.setattr(text_bench, "STRENGTHS", store.folder / "strengths.json")
    tried: list[float] = []

    def made(model: Any, asked: Any, series: Series, *_: Any) -> list[Text]:
        assert (series.tokens, series.count) == (
            150,
            peer.rows,
        )  # later tokens repeat the first, which is free
        if series.method == "plain":
            return [Text("k", 0, (1,) * 10, 1.0)]
        tried.append(series.parameters["delta"])
        return [Text("k", 0, (1,) * 10, [0.3, 0.6, 1.1, 1.4, 0.7][len(tried) - 1])]

    monkeypatch.setattr(text_bench, "make", made)
    store.folder.mkdir()
    assert text_bench.match(prompts, ["mpac"]) == 0
    assert len(tried) == 5
    kept = json.loads((store.folder / "strengths.json").read_text())["mpac"]
    assert kept["delta"] == tried[2]
    assert kept["increase"] == pytest.approx(np.expm1(0.11), abs=1e-4)


def test_the_list_of_series_is_sound() -> None:
    for name, series in text_series.SERIES.items():
        assert name == series.name
        assert series.count >= 40
        assert series.method in text_series.MARKS
    tables = [*text_figures.MULTI, *text_figures.ZERO]
    names = {text_series.MAIN, text_series.LONGER, *(table.series for table in tables)}
    assert names <= set(text_series.SERIES)
    assert text_series.SERIES[text_series.MAIN].count >= 200


# --- figures ------------------------------------------------------------------------------------------------


def test_auc_and_rates_at_a_threshold() -> None:
    assert text_figures.auc([2, 3], [0, 1]) == 1
    assert text_figures.auc([1, 1], [1, 1]) == 0.5
    assert text_figures.auc([0.0, 2.0], [1.0]) == 0.5
    plain = [float(i) for i in range(100)]
    assert text_figures.above_rate([98.0, 98.5, 99.5], plain, 0.01) == [False, True, True]
    with pytest.raises(ValueError, match="plain"):
        text_figures.auc([1.0], [])


def test_increase_is_the_exponential_of_the_nats_a_token() -> None:
    texts = [Text("a", 0, (1,) * 10, 1.0), Text("b", 1, (1,) * 10, 3.0)]
    low, value, high = text_figures.increase(texts)
    assert value == pytest.approx(np.expm1(0.2))
    assert low < value < high


class InTurn:
    """A pool that maps here."""

    def map(self, job: Any, given: Any, chunksize: int = 1) -> Any:
        return map(job, given)


class Numbers:
    """Kept texts of numbers, as text."""

    limit = None

    def __init__(self, texts: list[Text]) -> None:
        self._texts = texts

    def texts(self, series: str) -> list[Text]:
        return self._texts if series == "numbers" else []

    def decoded(self, texts: list[Text], tokens: int) -> list[str]:
        return [" ".join(map(str, text.tokens[:tokens])) for text in texts]


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Human texts, prose and synonyms without a corpus."""
    human = ("1 2 3 9 4 4 1 1",) * 50
    monkeypatch.setattr(text_figures, "human_texts", lambda language, count, tokens: human)
    monkeypatch.setattr(text_figures, "_prose", lambda: ("just some human words here",))
    monkeypatch.setattr(text_figures, "_wordnet", lambda: SimpleNamespace(synonyms=lambda word: ()))


def nines(series: str, text: str) -> text_figures.Score:
    share = text.count("9") / max(1, len(text))
    return text_figures.Score(share, -30.0 if share > 0.2 else -1.0)


@pytest.mark.usefixtures("little")
def test_rows_of_a_zero_bit_mark() -> None:
    marked = [Text("a", i, (9,) * 200, 2.0) for i in range(3)] + [Text("a", 3, (1,) * 200, 2.0)]
    figures = text_figures.Figures(Numbers(marked), InTurn())  # type: ignore[arg-type]
    zero = text_figures.Zero("zero_tournament", "numbers", "Tournament", nines)
    figures._zero(zero, marked)
    rows = {row.id: row for row in figures.rows}
    assert rows["zero_tpr_200_t1"].value == 0.75
    assert (rows["zero_tpr_200_t1"].target, rows["zero_tpr_200_t1"].met) == (0.99, False)
    assert rows["zero_tournament_tpr_50"].interval is not None
    assert rows["zero_tournament_auc_200"].value == 0.75
    assert rows["zero_tournament_human_hits"].value == 0
    assert rows["zero_tournament_human_hits"].n == 100
    assert rows["zero_tournament_ppl_increase"].value == pytest.approx(np.expm1(0.01))
    assert rows["zero_tournament_distinct"].value == pytest.approx(1 / 199)
    assert not any("paraphrase" in id_ for id_ in rows)  # there are none of these texts
    assert rows["zero_tournament_tpr_invisible"].value == 0  # this detector does not read canonical text
    assert {f"zero_tournament_auc_{name}" for name in text_figures.ATTACKS} <= set(rows)
    assert figures.curves.tokens["Tournament"] == [(50, 0.75), (100, 0.75), (150, 0.75), (200, 0.75)]


@pytest.mark.usefixtures("little")
def test_paraphrases_have_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    marked = [Text("a", i, (9,) * 200, 2.0) for i in range(3)]
    figures = text_figures.Figures(Numbers(marked), InTurn())  # type: ignore[arg-type]

    def rewritten(source: str) -> list[str]:
        assert source == "numbers"
        figures._near[source] = 0.5
        return ["9 9 9", "1 1 1"]

    monkeypatch.setattr(figures, "_paraphrased", rewritten)
    figures._zero(text_figures.Zero("zero_unigram", "numbers", "Unigram", nines), marked)
    rows = {row.id: row for row in figures.rows}
    assert (rows["zero_paraphrase_auc"].value, rows["zero_paraphrase_auc"].n) == (0.5, 2)
    assert rows["zero_paraphrase_auc"].target == 0.955
    assert rows["zero_unigram_tpr_paraphrase"].value == 0.5
    assert (0.5, 0.5) in figures.curves.removal["Unigram"]


def test_a_target_without_a_row_is_missing_and_peers_stand_beside_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = text_figures.Figures(Numbers([]), InTurn())  # type: ignore[arg-type]
    figures.rows = [
        Row("bin32_message_500", "ours", 0.9, "", 200),
        Row("mpac_message_500", "theirs", 0.8, "", 60),
        Row("zero_tpr_200_t1", "ours, its peer not installed", 1.0, "", 200),
    ]
    figures.derive()
    assert [row.against for row in figures.rows] == [("MPAC", 0.8), None, None]
    absent = set(text_figures.TARGETS) - {"bin32_message_500", "zero_tpr_200_t1"}
    assert {f"{id_}: no row" for id_ in absent} <= set(figures.missing)
    assert "bin32_message_500: no row" not in figures.missing


def test_every_target_is_in_the_committed_table() -> None:
    rows = {row["id"]: row for row in json.loads((FOLDER / "text.json").read_text())["rows"]}
    for id_, (sense, target) in text_figures.TARGETS.items():
        assert (rows[id_]["sense"], rows[id_]["target"]) == (sense, target)
    assert rows["gsw_e0.05_ppl_increase"]["value"] <= 0.05  # the strength of gsw_tpr_1000
    assert rows["gsw_e0.044_ppl_increase"]["value"] <= 0.03  # and of gsw_tpr_2000


def test_repetitions_are_counted() -> None:
    assert text_figures.distinct([1, 2, 3, 4]) == 1
    assert text_figures.distinct([1, 2, 1, 2, 1]) == 0.5
    assert text_figures.distinct([1]) == 0


def test_one_missed_target_does_not_keep_the_other_tables_from_being_made() -> None:
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        ["make", "-o", "setup", "-o", "contracts", "bench", "PY=false"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode != 0
    for script in ("gas.py", "text_bench.py", "weights_bench.py", "image_model_bench.py"):
        assert f"false benchmarks/{script}" in run.stdout


def test_rows_of_marked_weights_come_from_kept_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    series = text_series.SERIES["gsw-e0.05"]
    assert isinstance(series, text_series.GswSeries)
    known = {
        "gsw-e0.05": {"ppl_increase": 0.04},
        "a 1000 gsw-2": {"log2_p": -25.0, "innocent": 0},
        "b 1000 gsw-2": {"log2_p": -3.0, "innocent": 1},
    }
    monkeypatch.setattr(text_figures, "read_scores", lambda: known)
    figures = text_figures.Figures(Numbers([]), InTurn())  # type: ignore[arg-type]
    figures._gsw(series, [Text(key, i, (1,) * 1000, 0.0) for i, key in enumerate("abc")])
    rows = {row.id: row for row in figures.rows}
    assert (rows["gsw_tpr_1000"].value, rows["gsw_tpr_1000"].n, rows["gsw_tpr_1000"].met) == (0.5, 2, False)
    assert rows["gsw_e0.05_innocent_1000"].value == 1 / 20
    assert rows["gsw_e0.05_ppl_increase"].value == 0.04
    assert figures.missing == ["gsw-e0.05, 1000 tokens: 2 of 3 scores; run --score"]
    assert "signs" in text_series.code_version(series)


def test_mpac_reads_what_it_wrote() -> None:
    mark = text_series.mpac_of({"delta": 8.0})
    messages = [text_series.message(i) for i in range(2)]
    process = text_series.mpac.Processor(mark, messages)
    rng = np.random.default_rng(4)
    how = Sampling(200)

    def scores(_: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((2, text_series.VOCABULARY), dtype=np.float32))

    drawn, costs = sample(scores, torch.full((2, 2), 9), how, [stream("m"), stream("n")], process)
    for row, wanted in enumerate(messages):
        bits = mark.read(drawn[row].tolist())
        assert int("".join(map(str, bits.tolist())), 2) == wanted
    assert mark.read([1, 2]).shape == (32,)
    assert (costs > 0).all()


def test_raw_bits_of_a_marked_text() -> None:
    from zhiyi_watermark.payload import Short

    series = a_series(parameters={"delta": 3.0, "horizon": 300})
    mark = text_series.binplus(series, series.parameters)
    rng = np.random.default_rng(4)

    def scores(_: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((1, 4096), dtype=np.float32))

    drawn, _ = sample(scores, torch.full((1, 2), 9), Sampling(300), [stream("b")], mark.processor(Short(77)))
    ids = drawn[0].tolist()
    assert text_figures.raw_bits(mark, ids, mark.code.encode(Short(77))) > 0.95
    assert 0.25 < text_figures.raw_bits(mark, ids, mark.code.encode(Short(78))) < 0.75
    assert text_figures.raw_bits(mark, [], mark.code.encode(Short(77))) == 0.5
