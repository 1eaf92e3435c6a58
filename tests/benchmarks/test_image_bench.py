"""The benchmark of finished pictures: what is kept is used again and never mixed, and rows say what was measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import image_bench as bench
import image_figures as figures
import image_regenerated as regenerated
import image_series as series
from image_series import ATTACKS, MAIN, SWEEPS, Kept, Marked, Photo, Reading, Result, Rgb
from zhiyi_watermark import stats
from zhiyi_watermark.attacks.image import SUITE


def make_photo(number: int = 3, name: str = "field-0") -> Photo:
    rng = np.random.default_rng(number)
    rough = rng.integers(40, 200, (16, 16, 3), dtype=np.uint8)
    return Photo(number, name, np.kron(rough, np.ones((8, 8, 1), dtype=np.uint8)))


class Counted:
    """A mark that counts what it is asked; it reads the bits that `right` says."""

    bits = 32

    def __init__(self, version: str = "a", right: int = 32) -> None:
        self.code, self.right, self.reads = version, right, 0

    def version(self) -> str:
        return self.code

    def embed(self, picture: Rgb, number: int) -> Marked:
        return Marked(picture ^ np.uint8(1), 0.5)

    def read(self, pictures: Sequence[Rgb], number: int) -> list[Reading]:
        self.reads += len(pictures)
        return [Reading(self.right, self.right >= 30, -20.0, 0.1) for _ in pictures]


def make_result(
    number: int, right: int, *, bits: int = 64, clipped: bool = False, db: float = 43.0
) -> Result:
    readings = {name: Reading(right, right == bits, -30.0, 0.1) for name in ATTACKS}
    return Result(number, bits, db, 0.99, clipped, 0.2, readings)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks with the model leave the picture."""
    for name in regenerated.RUN:
        monkeypatch.setitem(regenerated.RUN, name, lambda picture, seed: picture)


@pytest.mark.usefixtures("no_model")
def test_a_run_goes_on_where_it_ended(tmp_path: Path) -> None:
    every = len(ATTACKS) + len(regenerated.RUN)
    kept, mark = Kept(tmp_path), Counted()
    photos = [make_photo(0, "a-0"), make_photo(1, "b-0"), make_photo(2, "a-1")]
    assert bench.run(kept, photos, {"rivagan": mark}, minutes=1e-9) == 2  # the first is measured in any case
    assert mark.reads == every
    assert bench.run(kept, photos, {"rivagan": mark}, minutes=1) == 0
    assert mark.reads == 3 * every
    assert bench.run(kept, photos, {"rivagan": mark}, minutes=1) == 0
    assert mark.reads == 3 * every
    found = bench.results_of(kept, photos, {"rivagan": mark})["rivagan"]
    assert [result.number for result in found] == [0, 1, 2]
    assert found[0].readings["jpeg50"] == Reading(32, True, -20.0, 0.1)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.usefixtures("no_model")
def test_results_of_other_code_or_pixels_are_not_used(tmp_path: Path) -> None:
    kept, photo = Kept(tmp_path), make_photo()
    bench.run(kept, [photo], {"dss": Counted("a")}, minutes=1)
    assert kept.load("dss", Counted("a"), photo) is not None
    assert kept.load("dss", Counted("b"), photo) is None
    assert kept.load("dss", Counted("a"), photo._replace(picture=photo.picture[::-1])) is None


def test_only_what_is_missing_of_a_photograph_is_read(tmp_path: Path) -> None:
    kept, photo, mark = Kept(tmp_path), make_photo(), Counted()
    first = series.measure(mark, photo, ["none", "jpeg50"], None)
    kept.save("dss", mark, photo, first)
    again = series.measure(mark, photo, ["none", "jpeg50", "flip"], kept.load("dss", mark, photo))
    assert mark.reads == 3
    assert list(again.readings) == ["none", "jpeg50", "flip"]
    assert again.psnr == pytest.approx(10 * np.log10(255**2))


def test_a_version_is_of_the_code_and_not_of_its_words(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    hashes = []
    for body in ('"""Doc."""\nX = 1  # why\n', "X = 1\n", "X = 2\n"):
        path.write_text(body)
        series.source_hash.cache_clear()
        hashes.append(series.source_hash(path))
    assert hashes[0] == hashes[1] != hashes[2]
    weak = series.DssConfig(49.5, 39.5)
    assert series.Ours().version() != series.Ours(weak).version()


def test_every_prefix_has_as_many_photographs_as_it_can() -> None:
    photos = [make_photo(i, f"{name}-{part}") for i, (name, part) in
              enumerate((n, p) for n in "abc" for p in range(3))]  # fmt: skip
    assert [photo.name for photo in series.in_order(photos)][:4] == ["a-0", "b-0", "c-0", "a-1"]


def test_the_curves_are_of_attacks_that_are_there() -> None:
    for strengths in SWEEPS.values():
        assert set(strengths.values()) <= set(ATTACKS)
    assert {line.attack for line in figures.LINES} == set(SUITE)
    assert set(series.wanted("dss", 0)) == {*ATTACKS, *regenerated.RUN}
    assert set(series.wanted("dss", series.SWEPT)) == set(SUITE)
    assert len(series.wanted("dss", 8)) == len(ATTACKS) + 2
    assert series.wanted("blindwm-32", series.WEIGHED) == []


def test_ours_is_read_as_the_detector_reads(tmp_path: Path) -> None:
    ours, photo = series.Ours(), make_photo()
    result = series.measure(ours, photo, ["none", "jpeg80"], None)
    assert result.readings["none"].right == 64
    assert result.readings["none"].found
    assert result.readings["none"].log2_p < -20
    unmarked = ours.read([photo.picture], photo.number)[0]
    assert not unmarked.found
    assert 16 < unmarked.right < 48


@pytest.mark.parametrize("name", regenerated.REGENERATED)
def test_regeneration_changes_the_picture_a_little_and_repeats(name: str) -> None:
    photo, one = make_photo(), regenerated.REGENERATED[name]
    made = one.run(photo.picture, 3)
    assert made.shape == photo.picture.shape
    assert made.dtype == np.uint8
    assert not np.array_equal(made, photo.picture)
    if name != "style":
        assert series.psnr(made, photo.picture) > 14
    assert np.array_equal(made, one.run(photo.picture, 3))
    assert one.name.startswith(f"{name} ")


class Adding:
    """A mark that adds a pattern to gray pictures and is found where it is there."""

    bits = 32

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.pattern = np.random.default_rng(1).integers(0, 9, (16, 16, 3))

    def version(self) -> str:
        return "a"

    def embed(self, picture: Rgb, number: int) -> Marked:
        self.numbers.add(number)
        return Marked((picture + self.pattern).astype(np.uint8), 0.5)

    def read(self, pictures: Sequence[Rgb], number: int) -> list[Reading]:
        self.numbers.add(number)
        found = [float(np.corrcoef(p.ravel(), self.pattern.ravel())[0, 1]) > 0.7 for p in pictures]
        return [Reading(32 if one else 16, one, -20.0, 0.1) for one in found]


def test_averages_are_of_one_message_and_of_other_pictures(tmp_path: Path) -> None:
    """A pattern that is the same in every picture goes with the average, and comes with it."""
    kept, mark = Kept(tmp_path), Adding()
    rng = np.random.default_rng(0)
    count = regenerated.HARMED + regenerated.LEARNED
    photos = [
        Photo(i, f"p{i}-0", np.clip(rng.normal(120, 2, (16, 16, 3)), 0, 255).astype(np.uint8))
        for i in range(count)
    ]
    assert series.averages_of(kept, "dss", mark, photos) == []
    series.measure_averages(kept, "dss", mark, photos)
    found = series.averages_of(kept, "dss", mark, photos)
    assert mark.numbers == {0}
    assert [one.number for one in found] == list(range(regenerated.HARMED))
    for one in found:
        said = {name: reading.found for name, reading in one.readings.items()}
        assert said == {**dict.fromkeys(regenerated.AVERAGED, False), "copied50": True}
    assert series.averages_of(kept, "dss", mark, photos[:-1]) == []  # too few to learn on
    other = [*photos[:-1], photos[-1]._replace(picture=photos[-1].picture[::-1])]
    assert series.averages_of(kept, "dss", mark, other) == []  # learned on others
    rows = {row.id: row for row in figures.rows({"dss": [make_result(0, 64)]}, {"dss": found})}
    assert rows["dss_message_average5"].value == 0
    assert (rows["dss_message_copied50"].value, rows["dss_message_copied50"].n) == (1, regenerated.HARMED)
    assert rows["dss_copied50"].target is None


@pytest.mark.usefixtures("no_model")
def test_a_run_averages_where_there_are_enough_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "HARMED", 1)
    monkeypatch.setattr(bench, "LEARNED", 2)
    monkeypatch.setattr(series, "HARMED", 1)
    monkeypatch.setattr(series, "LEARNED", 2)
    kept, mark, photos = Kept(tmp_path), Counted(), [make_photo(i, f"p{i}-0") for i in range(3)]
    assert bench.run(kept, photos, {"dss": mark}, minutes=1e-9) == 3  # two photographs and the averages
    assert bench.run(kept, photos, {"dss": mark}, minutes=1) == 0
    assert [one.number for one in series.averages_of(kept, "dss", mark, photos)] == [0]
    reads = mark.reads
    assert bench.run(kept, photos, {"dss": mark}, minutes=1) == 0
    assert mark.reads == reads


def test_peers_are_found_at_a_millionth() -> None:
    class Says:
        def read(self, method: str, pictures: Sequence[Rgb], bits: int) -> list[tuple[np.ndarray, float]]:
            known = np.random.default_rng(7).integers(0, 2, bits, dtype=np.uint8)
            known[: int(pictures[0][0, 0, 0])] ^= 1
            return [(known, 0.1)]

    for bits, most in ((32, 2), (64, 13)):
        peer = series.Peer(Says(), "dwtdctsvd", bits)  # type: ignore[arg-type]  # stands for the process
        for wrong, found in ((0, True), (most, True), (most + 1, False)):
            reading = peer.read([np.full((8, 8, 3), wrong, dtype=np.uint8)], 7)[0]
            assert (reading.right, reading.found) == (bits - wrong, found)
            assert reading.log2_p == stats.binomial_tail(bits - wrong, bits).log2_p


def test_rows_have_targets_and_the_best_peer() -> None:
    results = {
        "dss": [make_result(0, 64), make_result(1, 60)],
        "rivagan": [make_result(0, 24, bits=32, db=40.0)],
        "blindwm": [make_result(0, 64, db=37.0), make_result(1, 64, db=38.0)],
    }
    rows = {row.id: row for row in figures.rows(results)}
    assert rows["dss_j50"].value == pytest.approx(124 / 128)
    assert rows["dss_j50"].met is False
    assert rows["dss_j50"].against == (MAIN["blindwm"], 1.0)
    assert rows["dss_message_crop50"].value == 0.5
    assert rows["dss_message_crop50"].target == 0.9
    assert rows["dss_psnr"].against == (MAIN["rivagan"], 40.0)
    assert rows["rivagan_tpr_none"].value == 0
    assert rows["rivagan_none"].value == 0.75
    assert rows["blindwm_tpr_none"].n == 2
    assert not any(id_.startswith("dwtdctsvd") for id_ in rows)  # not there: left out


def test_pictures_that_clip_are_counted_apart() -> None:
    results = {"dss": [make_result(0, 64), make_result(1, 32, clipped=True)]}
    rows = {row.id: row for row in figures.rows(results)}
    assert (rows["dss_bright15"].value, rows["dss_bright15"].n) == (1.0, 1)
    assert (rows["dss_bright15_clipped"].value, rows["dss_bright15_clipped"].n) == (0.5, 1)
    assert rows["dss_j50"].n == 2


def test_bits_that_arrive_are_counted_on_the_same_photographs() -> None:
    results = {
        "dss": [make_result(0, 64), make_result(1, 32)],
        "blindwm-256": [make_result(0, 128, bits=256)],
    }
    found = figures.capacity(results)
    assert found["dss"][1] == {"none": 64.0, "jpeg50": 64.0}
    assert found["blindwm-256"][1]["jpeg50"] == 0.0


def test_plot_and_examples_are_written(tmp_path: Path) -> None:
    results = {
        name: [make_result(i, bits - i, bits=bits) for i in range(2)]
        for name, bits in (("dss", 64), ("rivagan", 32), ("blindwm-128", 128))
    }
    assert figures.plot(results, tmp_path).stat().st_size > 10_000
    plain = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    path = figures.examples([(plain, [plain ^ np.uint8(1)])], tmp_path)
    from PIL import Image

    with Image.open(path) as sheet:
        assert sheet.size == (3 * figures.TILE, figures.TILE)


def test_missing_peers_are_left_out(tmp_path: Path) -> None:
    with series.PeerProcess(tmp_path / "bin" / "python") as process:
        assert not process.installed
        assert set(series.marks(process)) == {"dss", *series.STRENGTHS}


@pytest.mark.parametrize(("method", "bits"), [("rivagan", 32), ("dwtdctsvd", 32), ("blindwm", 64)])
def test_peers_read_what_they_mark(method: str, bits: int) -> None:
    with series.PeerProcess() as process:
        if not process.installed:
            pytest.skip("`make peers` installs them")
        photo = make_photo()
        picture = np.kron(
            photo.picture, np.ones((3, 3, 1), dtype=np.uint8)
        )  # 384 px: they take no less than 256
        peer = series.Peer(process, method, bits)
        marked = peer.embed(picture, 5)
        assert marked.picture.dtype == np.uint8
        assert 25 < series.psnr(marked.picture, picture) < 60
        found, unmarked, small = peer.read([marked.picture, picture, marked.picture[:160, :160]], 5)
        assert found.right > 0.9 * bits
        assert not unmarked.found
        assert small.right >= 0


def test_the_lock_pins_every_file() -> None:
    lines = (series.SCRIPT.parent / "pictures.lock").read_text().splitlines()
    pinned = [line for line in lines if "==" in line]
    assert {line.partition("==")[0] for line in pinned} == {
        "blind-watermark", "invisible-watermark", "onnxruntime", "opencv-python-headless", "pywavelets",
    }  # fmt: skip
    assert sum("--hash=sha256:" in line for line in lines) >= len(pinned)


def test_kept_files_are_plain_json(tmp_path: Path) -> None:
    kept, photo, mark = Kept(tmp_path), make_photo(), Counted()
    kept.save("dss", mark, photo, series.measure(mark, photo, ["none"], None))
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())["readings"]["none"] == [32, True, -20.0, 0.1]
