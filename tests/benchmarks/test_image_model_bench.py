"""The benchmark of generated pictures on one tiny pipeline: what is made, kept, taken up again, and the rows of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "watermark"))

from diffusion import tiny_pipeline

import image_model_bench as bench
import image_model_figures as figures
import image_model_series as series
from image_model_figures import Figures
from image_model_series import MARKS, Condition, Settings, Studio, conditions, todo, units
from inversions import Item, Store, StoreError
from zhiyi_watermark.errors import SpecError
from zhiyi_watermark.image_generated import KgsSpec, Noise, View

SETTINGS = Settings(steps=2, guidance=1.0, inversion=2, search=2, first=4, clean=6)
CHOSEN = ("none", "crop50", "reencode", "weights_int8", "features")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def real(index: int) -> series.Rgb:
    return np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def studio(folder: Path, settings: Settings = SETTINGS, pipeline: Any = None) -> Studio:
    return Studio(
        pipeline or tiny_pipeline(), ["owl", "low"], settings, build=folder / "build", reference=real
    )


def chosen(*names: str) -> list[Condition]:
    all_ = conditions(32)
    return [all_[name] for name in names]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all units of some conditions."""
    folder = tmp_path_factory.mktemp("made")
    assert bench.generate(Store(folder / "kept"), studio(folder), chosen(*CHOSEN), 1e6) == 0
    return folder


# --- what is kept -------------------------------------------------------------------------------------------


def test_items_come_back_and_others_go(tmp_path: Path) -> None:
    store = Store(tmp_path)
    items = [Item("a", "kgs", 0, b"\x01\x02"), Item("b", "gs", 1, b""), Item("c", "kgs", 1, b"\xff" * 300)]
    keys = {item.place: item.key for item in items}
    store.add("none", items[:2], keys)
    store.add("none", items[2:], keys)
    assert store.read("none") == {item.place: item for item in items}
    assert store.current("none", {("kgs", 0): "other", ("gs", 1): "b"}) == {("gs", 1): items[1]}
    store.add("none", [], {("gs", 1): "b"})
    assert store.read("none") == {("gs", 1): items[1]}
    assert store.size() == store.path("none").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.npz"]


@pytest.mark.parametrize("damage", [lambda raw: raw[:-40], lambda raw: b"", lambda raw: b"no archive at all"])
def test_a_damaged_file_is_an_error(tmp_path: Path, damage: Any) -> None:
    store = Store(tmp_path)
    store.add("none", [Item("a", "kgs", 0, bytes(range(256)))], {("kgs", 0): "a"})
    store.path("none").write_bytes(damage(store.path("none").read_bytes()))
    with pytest.raises(StoreError, match="damaged"):
        store.read("none")


def test_noise_takes_little_room_and_comes_back(tmp_path: Path) -> None:
    spec = KgsSpec("0" * 64, "epsilon", 4, 32, 32, 2)
    rng = np.random.default_rng(0)
    q = np.clip(np.rint(4 * rng.standard_normal((40, 1, *spec.shape))), -15, 15).astype(np.int8)
    items = [
        Item(f"{i}", "kgs", i, series.packed(Noise(x, (View(),), spec.spec_hash().hex(), "")))
        for i, x in enumerate(q)
    ]
    store = Store(tmp_path)
    store.add("none", items, {item.place: item.key for item in items})
    assert store.size() / len(items) < 2150  # 4.05 bits of entropy a value are 2,073 bytes
    again = series.unpacked(store.read("none")["kgs", 7], spec)
    assert np.array_equal(again.q, q[7])
    two = np.concatenate([q[0], q[1]])
    views = (View(), View(turn=-75, scale=870, flip=True, down=1, row=-2, column=3))
    back = series.unpacked(
        Item("k", "kgs", 0, series.packed(Noise(two, views, spec.spec_hash().hex(), ""))), spec
    )
    assert np.array_equal(back.q, two)
    assert back.views == views
    with pytest.raises(SpecError, match="wanted"):
        series.unpacked(Item("k", "kgs", 3, items[0].data[:-1]), spec)


# --- the order ----------------------------------------------------------------------------------------------


def test_every_beginning_of_the_order_is_a_usable_table() -> None:
    all_, settings = list(conditions(64).values()), Settings()
    seen: dict[tuple[str, str], int] = {}
    attacks = [c.name for c in all_ if c.group not in ("clean", "features")]
    for unit in units(all_, settings):
        name, mark = unit.condition.name, unit.mark
        assert unit.indices[0] == seen.get((name, mark), 0)  # without gaps, each once
        if name in attacks:
            assert all(seen["none", other] == 100 for other in MARKS)  # clean ones first
            if unit.indices[0] >= 25:  # and every attack on a quarter before any on more
                assert all(
                    seen[other, "kgs"] >= min(25, conditions(64)[other].counts[0]) for other in attacks
                )
        elif unit.indices[0] >= 100:  # the other clean ones last
            assert all(seen[other, "kgs"] == conditions(64)[other].counts[0] for other in attacks)
        seen[name, mark] = unit.indices[-1] + 1
    assert seen["none", "kgs"] == seen["features", "kgs"] == seen["features", "plain"] == 500
    assert seen["features", "reference"] == 500
    for condition in all_:
        for mark in MARKS:
            assert seen.get((condition.name, mark), 0) == condition.count(mark, settings)
    readings = sum(seen.get((c.name, "kgs"), 0) * (3 if c.wide else 1) for c in all_ if c.group != "features")
    assert readings * 2150 < 9_000_000


def test_sizes_in_px_follow_the_side() -> None:
    small, large = conditions(64), conditions(512)
    assert small["blur4"].parameters["sigma"] == 0.5
    assert large["blur4"].parameters == large["blur4_px"].parameters
    assert (small["median7"].parameters["size"], large["median7"].parameters["size"]) == (3, 7)
    assert small["jpeg50"] == large["jpeg50"]


# --- making -------------------------------------------------------------------------------------------------


def test_what_is_made_is_not_made_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = studio(made)
    assert list(todo(Store(made / "kept"), again, chosen(*CHOSEN))) == []
    monkeypatch.setattr(Studio, "make", lambda *_: pytest.fail("made again"))
    assert bench.generate(Store(made / "kept"), again, chosen(*CHOSEN), 1e6) == 0


def test_an_interrupted_run_goes_on_where_it_stopped(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, wanted = Store(tmp_path / "kept"), chosen("none", "crop50")
    real_make, left = Studio.make, [3]

    def stopping(self: Studio, unit: series.Unit) -> list[Item]:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real_make(self, unit)

    monkeypatch.setattr(Studio, "make", stopping)
    with pytest.raises(KeyboardInterrupt):
        bench.generate(store, studio(tmp_path), wanted, 1e6)
    whole = list(units(wanted, SETTINGS))
    rest = list(todo(store, studio(tmp_path), wanted))
    assert rest == [unit for unit in whole[3:] if unit.mark != "reference"]
    monkeypatch.setattr(Studio, "make", real_make)
    assert bench.generate(store, studio(tmp_path), wanted, 0) == len(rest)  # no time: nothing is made
    assert bench.generate(store, studio(tmp_path), wanted, 1e6) == 0
    for name in ("none", "crop50"):
        assert store.read(name).keys() == Store(made / "kept").read(name).keys()
        assert {i.key for i in store.read(name).values()} == {
            i.key for i in Store(made / "kept").read(name).values()
        }


def test_what_another_model_or_setting_made_is_never_used(made: Path) -> None:
    import torch

    store, everything = Store(made / "kept"), chosen(*CHOSEN)
    kept = sum(len(store.current(c.name, studio(made).keys(c))) for c in everything)
    assert kept == sum(len(store.read(c.name)) for c in everything) > 0
    trained = tiny_pipeline()
    with torch.no_grad():
        next(iter(trained.unet.parameters())).view(-1)[0] += 1e-3
    others = [
        studio(made, pipeline=trained),
        studio(made, pipeline=tiny_pipeline(kind="dpm")),
        studio(made, replace(SETTINGS, inversion=3)),
        studio(made, replace(SETTINGS, steps=3)),
        Studio(tiny_pipeline(), ["owl"], SETTINGS, build=made / "build"),
    ]
    for other in others:
        assert all(not store.current(c.name, other.keys(c)) for c in everything)
        found = Figures(other, store, conditions(32), jobs=1)
        found.derive()
        assert found.rows == []
    # more clean pictures leave what is there
    larger = studio(made, replace(SETTINGS, clean=8))
    assert sum(len(store.current(c.name, larger.keys(c))) for c in everything) == kept
    # other parameters of an attack do not
    crop = conditions(32)["crop50"]
    harder = replace(crop, parameters={**crop.parameters, "area": 0.4})
    assert store.current("crop50", studio(made).keys(crop))
    assert not store.current("crop50", studio(made).keys(harder))


@pytest.mark.parametrize(
    "name",
    [
        "average_noise20", "forged_average20", "forged_proxy_reprompt", "style", "img2img30", "blur4_px",
        "cropstretch75", "dpm", "reencode", "reencode_other", "average5", "forged_reprompt",
    ],
)  # fmt: skip
def test_every_kind_of_attack_gives_a_picture_and_repeats(made: Path, name: str) -> None:
    subject, condition = studio(made), conditions(32)[name]
    assert condition.run is not None
    one, other = (condition.run(subject, "kgs", 1, **condition.parameters) for _ in range(2))
    assert one.shape == subject.picture("kgs", 1).shape
    assert one.dtype == np.uint8
    assert np.array_equal(one, other)
    assert not np.array_equal(one, subject.picture("kgs", 1))


def test_another_solver_starts_at_the_same_noise_and_only_for_its_picture(made: Path) -> None:
    subject = studio(made)
    before = subject.pipeline.scheduler
    other = series.by_dpm_solver(subject, "kgs", 1).astype(int)
    assert subject.pipeline.scheduler is before
    same, another = (np.abs(subject.picture("kgs", i).astype(int) - other).mean() for i in (1, 2))
    assert same < another / 2


def test_averages_are_over_other_pictures(made: Path) -> None:
    subject = studio(made)
    assert subject.after(2, 99) == [3, 0, 1]
    assert subject.after(0, 2) == [1, 2]
    rng = np.random.default_rng(0)
    pattern = rng.integers(0, 30, (32, 32, 3))
    for i in range(4):
        plain = rng.integers(50, 200, (32, 32, 3))
        subject._pictures |= {
            ("plain", i): plain.astype(np.uint8),
            ("gs", i): (plain + pattern).astype(np.uint8),
        }
    subject._pictures["gs", 0] = np.full((32, 32, 3), 100, dtype=np.uint8)  # not in its own average
    assert np.array_equal(series.averaged(subject, "gs", 0, pictures=5), 100 - pattern)


def test_a_proxy_is_another_model_and_the_marked_picture_is_of_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = studio(tmp_path)
    real_one = {key: value.clone() for key, value in subject.pipeline.unet.state_dict().items()}
    seen = []

    def watched(self: Studio, mark: str, index: int) -> series.Rgb:
        state = self.pipeline.unet.state_dict()
        seen.append((mark, all(bool((state[key] == value).all()) for key, value in real_one.items())))
        return self.picture(mark, index)

    monkeypatch.setitem(series.FORGERS, "watched", watched)
    forged = series.by_proxy(subject, "kgs", 0, forger="watched")
    assert seen == [("kgs", False)]  # the forger works inside the other weights
    assert np.array_equal(forged, studio(tmp_path / "again").picture("kgs", 0))
    one = series.by_proxy(subject, "kgs", 0, forger="reprompt")
    assert not np.array_equal(one, series.reprompted(subject, "kgs", 0))
    few = {"rounds": 1, "rate": 0.02, "steps": 2}
    assert series.by_proxy(subject, "kgs", 0, forger="imprint", **few).shape == one.shape


def test_a_stretched_crop_keeps_the_height_and_three_quarters_of_the_width(tmp_path: Path) -> None:
    subject = studio(tmp_path)
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, :, None] * 8, (32, 32, 3)).copy()
    ramp[..., 1] = np.arange(32, dtype=np.uint8)[:, None] * 8  # rows
    lefts = set()
    for i in range(4):
        subject._pictures["kgs", i] = ramp
        out = series.stretched(subject, "kgs", i, width=0.75)
        assert out.shape == ramp.shape
        assert np.array_equal(out[..., 1], ramp[..., 1])  # rows stay
        assert 22 * 8 <= int(out[0, -1, 0]) - int(out[0, 0, 0]) <= 23 * 8
        lefts.add(int(out[0, 0, 0]))
    assert len(lefts) > 1


@pytest.mark.parametrize("name", ["bf16", "int8", "int4", "tuned"])
def test_other_weights_are_for_a_while(made: Path, name: str) -> None:
    subject = studio(made)
    before = {key: value.clone() for key, value in subject.pipeline.unet.state_dict().items()}

    def equal() -> bool:
        return all(
            bool((value == before[key]).all()) for key, value in subject.pipeline.unet.state_dict().items()
        )

    with subject.weights(name):
        assert not equal()
    assert equal()


def test_features_tell_pictures_apart() -> None:
    dark, light = np.full((4, 32, 32, 3), 40, dtype=np.uint8), np.full((4, 32, 32, 3), 220, dtype=np.uint8)
    one, other = series.features(list(dark)), series.features(list(light))
    assert one.shape == (4, series.FEATURES)
    assert np.abs(one - other).max() > 0.1


def test_without_rivagan_its_features_are_said_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(series, "RIVAGAN", tmp_path / "nowhere")
    assert bench.generate(Store(tmp_path / "kept"), studio(tmp_path), chosen("rivagan"), 1e6) > 0
    assert "make peers" in capsys.readouterr().err
    assert not Store(tmp_path / "kept").path("rivagan").exists()


# --- rows ---------------------------------------------------------------------------------------------------


def test_rows_say_what_is_there_and_what_is_not(made: Path) -> None:
    all_ = conditions(32)
    found = Figures(studio(made), Store(made / "kept"), all_, jobs=1)
    found.derive()
    rows = {row.id: row for row in found.rows}
    for name in ("none", "reencode"):
        for part in ("kgs_tpr", "kgs_bits", "gs_tpr", "gs_bits", "treering_auc"):
            assert 0 <= rows[f"{part}_{name}"].value <= 1
    assert rows["kgs_tpr_none"].n == 6
    assert rows["kgs_bits_none"].against == ("gs", rows["gs_bits_none"].value)
    assert rows["kgs_bits_weights_int8"].against is None
    low, high = rows["kgs_bits_none"].interval or (1.0, 0.0)
    assert low <= rows["kgs_bits_none"].value <= high
    assert rows["kgs_tpr_crop50"].n == 4
    assert rows["kgs_bits_weights_int8"].n == 4
    assert "gs_tpr_weights_int8" not in rows
    assert not any("distortions" in id_ or "regeneration" in id_ or "fid" in id_ for id_ in rows)
    missing = {line.partition(":")[0] for line in found.missing}
    assert missing == set(all_) - {"none", "crop50", "reencode", "weights_int8"}
    few = Figures(studio(made), Store(made / "kept"), all_, 2, 1)
    few.derive()
    assert {row.n for row in few.rows} == {2}


def test_a_mean_is_over_all_of_its_conditions(made: Path) -> None:
    from image_model_figures import Seen

    all_ = conditions(32)
    found = Figures(studio(made), Store(made / "nothing"), all_, jobs=1)
    names = [name for name, condition in all_.items() if condition.group == "distortion"]
    found._seen = {("kgs", name): [Seen(0.9, True, False)] * 10 for name in names}
    found._seen |= {("gs", name): [] for name in all_}
    found._seen["kgs", names[0]] = [Seen(0.5, False)] * 5 + [Seen(0.9, True, True, True)] * 5
    found._means()
    rows = {row.id: row for row in found.rows}
    assert rows["kgs_tpr_distortions"].value == pytest.approx(1 - 0.5 / len(names))
    assert rows["kgs_tpr_distortions"].met is False
    assert rows["kgs_bits_distortions"].value == pytest.approx(0.9 - 0.2 / len(names))
    assert rows["kgs_detected_distortions"].value == pytest.approx(0.5 / len(names))
    assert rows["kgs_blind_distortions"].value == pytest.approx(0.5 / len(names))
    parts = ("tpr", "bits", "blind", "detected")
    assert set(rows) == {f"kgs_{part}_distortions" for part in parts}
    found.rows.clear()
    found._seen["kgs", names[0]] *= 20  # more of the worst: each condition weighs alike, so does its interval
    found._means()
    named = found.rows[0]
    assert (named.value, named.n) == (pytest.approx(1 - 0.5 / len(names)), 10 * len(names))
    assert named.interval is not None
    assert named.interval[0] < named.value < named.interval[1]
    found.rows.clear()
    del found._seen["kgs", names[3]]
    found._means()
    assert found.rows == []


def test_feature_distances() -> None:
    rng = np.random.default_rng(0)
    one, same, moved = (
        rng.standard_normal((300, 5)),
        rng.standard_normal((300, 5)),
        rng.standard_normal((300, 5)) + 1,
    )
    assert figures.distance(one, one) == pytest.approx(0, abs=1e-9)
    assert figures.distance(one, moved) == pytest.approx(5, rel=0.15)
    assert figures.distance(one, moved) == pytest.approx(figures.distance(moved, one))
    reference = rng.standard_normal((300, 5))
    assert abs(figures.delta(one, same, reference)) < 3
    assert figures.delta(moved, same, reference) > 10
    assert figures.delta(same, moved, reference) < -10
    assert abs(figures.relabelled(one, same)) < 3
    assert figures.relabelled(moved, same) > 10


def test_the_plot_and_the_examples_are_made(made: Path, tmp_path: Path) -> None:
    path = figures.plot({("kgs", "none"): 1.0, ("kgs", "jpeg50"): 0.5, ("treering", "none"): 1.0}, tmp_path)
    assert path.read_text().startswith("<?xml")
    subject = studio(made)
    assert bench._shown_model(made / "kept" / bench.EXAMPLES) == subject.spec.model_hash
    assert bench._shown_model(tmp_path / bench.EXAMPLES) == ""


def test_what_is_kept_is_listed(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.report_kept(Store(made / "kept"), studio(made, replace(SETTINGS, inversion=3)), chosen("none"))
    assert "kgs 0 of 6" in (said := capsys.readouterr().out)
    assert "24 of another model or code" in said


def test_xl_is_read_the_same_way(tmp_path: Path) -> None:
    subject = studio(tmp_path, pipeline=tiny_pipeline(xl=True))
    wanted = chosen("weights_tuned")
    store = Store(tmp_path / "kept")
    assert bench.generate(store, subject, wanted, 1e6) == 0
    assert [len(store.current(c.name, subject.keys(c))) for c in wanted] == [4]
    encoder, name = subject.pipeline.text_encoder_2, "text_projection.weight"
    before = encoder.state_dict()[name].clone()
    with subject.weights("int8"):  # the second text encoder's, too
        assert not bool((encoder.state_dict()[name] == before).all())


@pytest.mark.parametrize(("xl", "solver"), [(False, "PNDMScheduler"), (True, "EulerDiscreteScheduler")])
def test_any_pipelines_folder_is_taken(
    xl: bool, solver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the schedulers that Stable Diffusion 1.5 and XL are published with."""
    made: list[Studio] = []

    class Seen(Studio):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            made.append(self)

    monkeypatch.setattr(bench, "Studio", Seen)
    published = tiny_pipeline(xl=xl)
    published.scheduler = getattr(diffusers, solver).from_config(published.scheduler.config)
    published.save_pretrained(tmp_path / "model")
    (tmp_path / "prompts").write_text("owl\nlow\n")
    words = ["--model", str(tmp_path / "model"), "--prompts", str(tmp_path / "prompts")]
    words += ["--kept", str(tmp_path / "kept"), "--inversion", "7", "--list"]
    monkeypatch.setattr(sys, "argv", ["image_model_bench.py", *words])
    assert bench.main() == 0
    assert "none" in capsys.readouterr().out
    assert type(made[0].pipeline.scheduler).__name__ == "DDIMScheduler"
    assert (hasattr(made[0].pipeline, "text_encoder_2"), made[0].spec.steps) == (xl, 7)
    (tmp_path / "model" / "vae" / "config.json").unlink()
    with pytest.raises(SystemExit, match="no pipeline can be loaded"):
        bench.main()
