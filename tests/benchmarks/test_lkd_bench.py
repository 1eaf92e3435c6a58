"""The benchmark of decoders' marks gives every row from toy parts, goes on where it stopped, and counts as it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import lkd_bench as bench  # noqa: E402
import train_lkd as lkd  # noqa: E402
from image_data import Batch, texture  # noqa: E402
from peers import stable_signature as peer  # noqa: E402
from zhiyi_watermark import image_weights, stats  # noqa: E402
from zhiyi_watermark.image_weights import Extractor, LkdReader, Reading, words  # noqa: E402

TOY = lkd.Plan(
    bits=8, rank=2, channels=(4, 8, 8), strides=(2, 2, 2), pool=16, batch=4, steps=4, warmup=2, few=8, loud=12.0,
    enough_at_first=0.3, enough=0.3, group=2,
)  # fmt: skip
SIZE = bench.Size(
    licenses=50, copies=4, peers=2, pictures=8, attacked=2, turned=1, suite=1, trained=1, coalitions=2, stops=(1, 2),
    anew=(1,), pushed=2,
)  # fmt: skip
TARGETS = {
    "lkd_psnr", "lkd_clean", "lkd_attacked", "lkd_rot25", "lkd_resize30", "lkd_j50", "lkd_prune50", "lkd_int8",
    "lkd_identify_1e5_one", "lkd_issue_s", "lkd_collude2_named",
}  # fmt: skip


def textures(step: int, size: int) -> Batch:
    rng = np.random.default_rng([7, step])
    return Batch(np.stack([texture(rng) for _ in range(size)]), np.full(size, -1), [""] * size)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("bench") / "vae"
    diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def parts(vae: Path) -> Path:
    lkd.train(TOY, vae, textures, vae.parent / "work")
    lkd.export(TOY, vae, textures, vae.parent / "work", vae.parent / "parts")
    return vae.parent / "parts"


@pytest.fixture(scope="module")
def measured(vae: Path, parts: Path) -> tuple[bench.Bench, list[Any], dict[str, Any]]:
    made = bench.Bench(vae, SIZE, vae.parent / "bench", textures, textures)
    rows, points = bench.measured(made, bench.Lkd(vae, parts, SIZE.copies))
    state = peer.train_extractor(TOY._replace(steps=2), textures, vae.parent / "peer")
    assert state["step"] == 2
    signature = bench.trained_peer(made, textures, TOY._replace(steps=2), vae.parent / "peer", steps=1)
    assert signature is not None
    theirs, curve = bench.measured(made, signature)
    return made, rows + theirs, {"lkd": points, "stablesig": curve}


def test_every_row_is_there_once_and_targets_are_ours(measured: Any) -> None:
    _, rows, _ = measured
    ids = [row.id for row in rows]
    assert len(set(ids)) == len(ids)
    assert {row.id for row in rows if row.target is not None} == TARGETS
    wanted = (
        "j50", "rot25", "combined", "reencode", "averaged", "prune30", "int4", "finetune2", "whitebox1", "distil1",
        "swap1", "collude4_aligned_named", "unsaid8", "framed8", "issue_s", "unmarked",
        "copied", "copied_framed",
    )  # fmt: skip
    for name in (*wanted, "lora5", "collude3_aligned_named"):
        assert f"lkd_{name}" in ids
        assert (f"stablesig_{name}" in ids) == (
            not name.startswith(("collude3", "collude4"))
        )  # of two copies no four are averaged
    for row in rows:
        assert np.isfinite(row.value), row.id
        if row.unit == "":
            assert 0 <= row.value <= 1, row.id
    by = {row.id: row for row in rows}
    assert by["lkd_clean"].n == 4 * 8
    assert by["lkd_trace_1e5_eight"].n == 4
    assert "lkd_identify_1e5_eight" not in by  # of eight bits
    assert by["lkd_collude2_plain_named"].n == by["lkd_collude2_named"].n == 2
    assert by["stablesig_collude2_plain_named"].n == 1  # of two copies there is one pair
    assert by["lkd_collude2_named"].interval is not None
    low, high = by["lkd_j50"].interval
    assert low <= by["lkd_j50"].value <= high
    assert by["lkd_attacked_all"].interval is not None
    assert by["lkd_unsaid1_psnr"].value > by["lkd_unsaid8_psnr"].value


def test_what_was_measured_is_kept(measured: Any, parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, rows, _ = measured

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("measured again")

    again = bench.Bench(made.vae, SIZE, made.work, textures, textures)
    monkeypatch.setattr(bench, "read", never)
    monkeypatch.setattr(bench.attacks, "tuned", never)
    found, _ = bench.measured(again, bench.Lkd(made.vae, parts, SIZE.copies))
    assert found == [row for row in rows if row.id.startswith("lkd_")]


def test_the_curve_begins_where_its_pictures_are(measured: Any) -> None:
    """The copy is told of the pictures that its attacked decoders are told of, not of all."""
    made, _, curves = measured
    start = curves["lkd"][0]
    few = made.decoded(bench.trainer.load_vae(made.work / "lkd-0"), 0, SIZE.attacked)
    assert start.id == "copy"
    wanted = bench.mean_square(few, made.plain(0, SIZE.attacked))
    assert start.error == pytest.approx(wanted, rel=1e-3)  # a byte may be rounded otherwise in another batch


def test_the_curve_is_drawn(measured: Any, tmp_path: Path) -> None:
    bench.plot(measured[2], tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text.count("<path") > 20
    bench.plot(measured[2], tmp_path / "b.svg")
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")


def test_a_peer_that_is_not_trained_to_its_end_is_left_out(measured: Any, vae: Path) -> None:
    made, _, _ = measured
    assert bench.trained_peer(made, textures, TOY._replace(steps=3), vae.parent / "peer") is None
    assert bench.trained_peer(made, textures, TOY, vae.parent / "none") is None


@pytest.mark.parametrize(("wrong", "loud"), [(0, 3), (4, 3), (6, 3), (12, 3), (25, 1), (64, 1)])
def test_identification_is_what_the_detector_says(parts: Path, wrong: int, loud: int) -> None:
    """64 bits among 2,000 licenses: the same names as LkdReader.verdict."""
    found = Extractor.load(parts / image_weights.EXTRACTOR)
    extractor = Extractor(
        found.layers, np.zeros((64, found.head.shape[1]), np.int8), np.zeros(64, np.int64), 1, 64
    )
    registered = words(bench.KEY, range(1, 2001), 64, extractor.net_hash())
    word = registered[6]
    q = (loud * word).astype(np.int8)
    q[:wrong] *= -1
    reader = LkdReader(extractor, bench.KEY)
    one = [Reading(q, 1, extractor.spec_hash().hex(), "00" * 32)]
    said = bench.identified(q.astype(np.int64), word, registered)
    for threshold, named in ((stats.TRACE, said.traced), (stats.CONVICT, said.convicted)):
        verdict = reader.verdict(one, range(1, 2001), threshold=threshold)
        assert named == (verdict.license == 7 and not verdict.also)
    assert said.first == (int((registered.astype(int) @ q).argmax()) == 6 and wrong < 25)
    totals = registered.astype(np.int64) @ q.astype(np.int64)
    traced = reader.verdict(one, range(1, 2001))
    names = set() if traced.license is None else {traced.license, *traced.also}
    assert {i + 1 for i in bench.passing(q.astype(np.int64), totals)} == names


class Counting:
    """A mark of so many bits, as identification sees it."""

    def __init__(self, id_: str, bits: int) -> None:
        self.id, self.bits, self.step = id_, bits, 1


def test_names_that_a_mark_cannot_give_have_no_row() -> None:
    """48 bits, all right, among 10^5 licenses are 2^-31: no figure of ours says that this is the peer's failure."""
    for bits, there in ((48, False), (64, True)):
        registered = words(bench.KEY, range(1, bench.LICENSES + 1), bits, bench.PEER_NET)
        said = [(registered[3], 9 * np.repeat(registered[3:4], 8, axis=0).astype(np.int64))]
        mark: Any = Counting("stablesig" if bits == 48 else "lkd", bits)
        rows = {row.id: row for row in bench.identification_rows(mark, registered, said, said)}
        names = ("identify_1e5_eight", "detect_1e5_one", "identify_1e5_eight_clean", "detect_1e5_one_clean")
        assert [f"{mark.id}_{name}" in rows for name in names] == [there] * 4
        for name in ("trace_1e5_eight", "first_1e5_eight", "trace_1e5_one", "identify_1e5_one"):
            assert rows[f"{mark.id}_{name}"].value == 1
        if there:
            assert rows["lkd_identify_1e5_eight"].met


def test_every_row_of_ours_is_set_against_the_peers(tmp_path: Path) -> None:
    ours = [bench.Row("lkd_j50", "bits", 0.9, "", 3), bench.Row("lkd_issue_large_s", "seconds", 0.9, "s", 3)]
    theirs = [
        bench.Row("stablesig_j50", "bits", 0.8, "", 3),
        bench.Row("stablesig_clean", "bits", 1.0, "", 3),
    ]
    found = {row.id: row.against for row in bench.beside(ours, theirs)}
    assert found == {
        "lkd_j50": ("Stable Signature", 0.8), "lkd_issue_large_s": None, "stablesig_j50": None, "stablesig_clean": None,
    }  # fmt: skip


def test_examples_show_both_marks_and_what_they_change(tmp_path: Path) -> None:
    from PIL import Image

    plain = np.full((3, 8, 8, 3), 100, dtype=np.uint8)
    bench.examples(plain, [plain + np.uint8(1), plain - np.uint8(2)], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as file:
        sheet = np.asarray(file)
    assert sheet.shape == (48, 80, 3)
    assert [int(sheet[0, x, 0]) for x in (0, 16, 32, 48, 64)] == [100, 101, 144, 98, 96]


def test_pictures_are_redrawn_by_the_pipeline_of_the_decoder(
    measured: Any, parts: Path, vae: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sys.path.append(str(Path(__file__).resolve().parents[1] / "watermark"))
    from diffusion import tiny_pipeline

    made = bench.Bench(vae, SIZE, measured[0].work, textures, textures)
    assert made.model == ""  # this autoencoder belongs to none, so there are no such rows
    assert not any("img2img" in row.id or row.id == "lkd_style" for row in measured[1])
    made.pipeline = tiny_pipeline()
    mark = bench.Lkd(vae, parts, SIZE.copies)
    monkeypatch.setattr(bench, "read", lambda _, pictures: [x.tobytes().hex() for x in pictures])
    clean = bench.read(mark, made.pictures(mark, 0, SIZE.attacked))
    for name in bench.REGENERATED:
        said = bench._regenerated(made, mark, 0, name)
        assert said == bench._regenerated(made, mark, 0, name)
        assert [len(one) for one in said] == [len(one) for one in clean]  # of the same size
        assert all(one != other for one, other in zip(said, clean, strict=True))


def test_the_model_of_a_decoder_is_known_by_its_weights(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("vae", "unet"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_bytes(b"a")
    (folder / "model_index.json").write_text("{}")

    def model() -> str:
        return bench.Bench(folder / "vae", SIZE, tmp_path / "work", textures, textures).model

    before = model()
    assert len(before) == 8
    (folder / "unet" / "model.safetensors").write_bytes(b"b")
    assert model() not in (before, "")


def test_a_silent_bit_is_half_a_bit() -> None:
    word = words(bench.KEY, [1], 48, bench.PEER_NET)[0]

    def said(q: Any) -> list[str]:
        return [row.astype(np.int8).tobytes().hex() for row in np.atleast_2d(q)]

    assert bench.right(said(np.zeros(48)), word) == 0.5
    assert bench.right(said(word), word) == 1
    assert bench.right(said(-word), word) == 0
    logits = np.random.default_rng(0).standard_normal((500, 48))
    fair = np.rint(4 * logits)  # levels so coarse that one in ten is silent
    assert (fair == 0).mean() > 0.08
    assert abs(bench.right(said(fair), word) - 0.5) < 0.01
    levels = np.array([bench.in_levels(row) for row in logits])
    assert (np.sign(levels) == np.sign(logits)).all()  # the peer's bits are its signs, as in the papers
    assert np.abs(levels).max() <= 127
    mark: Any = Counting("stablesig", 48)
    mark.step = bench.PEER_STEP
    assert np.abs(bench.for_t(mark, said(levels)) - np.clip(4 * logits, -15, 15)).max() <= 0.6


def test_coalitions_are_of_different_members() -> None:
    for copies, count, most, wanted in ((6, 2, 50, 15), (6, 4, 50, 15), (32, 2, 50, 50), (4, 4, 9, 1)):
        found = bench.coalitions(copies, count, most)
        assert len({frozenset(members) for members in found}) == len(found) == wanted
        assert all(len(set(members)) == count and max(members) < copies for members in found)
        assert found == bench.coalitions(copies, count, most)


def test_held_out_pictures_are_of_every_square_and_none_was_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def few(*, seen: bool) -> Any:
        asked.append(seen)
        for photograph, count in (("a", 3), ("b", 1), ("c", 2)):
            for i in range(count):
                yield f"{photograph}-{i}", np.full((512, 512, 3), 40 * len(asked_of), dtype=np.uint8)
                asked_of.append(photograph)

    asked_of: list[str] = []
    monkeypatch.setattr(bench, "squares", few)
    found = bench.Squares(64)
    assert asked == [False]
    assert (found.count, found.photographs) == (6, 3)
    batch = found(0, 12)
    assert batch.pictures.shape == (12, 64, 64, 3)
    assert [int(p[0, 0, 0]) // 40 for p in batch.pictures] == [0, 3, 4, 1, 5, 2] * 2
    assert np.array_equal(batch.pictures, found(0, 12).pictures)
    rough = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    monkeypatch.setattr(bench, "squares", lambda *, seen: iter([("a-0", rough)]))
    one = bench.Squares(64)(0, 4).pictures
    assert len({p.tobytes() for p in one}) == 4  # other crops


def test_the_own_decoder_is_known_however_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.ROOT)
    assert bench.is_own(Path("tests/models/tiny-image/vae"), Path("tests/models/../models/tiny-image-lkd"))
    assert not bench.is_own(Path("tests/models/tiny-image"), Path("tests/models/tiny-image-lkd"))
    assert not bench.is_own(Path("tests/models/tiny-image/vae"), Path("tests/models"))


def test_a_tag_changes_with_the_code(vae: Path, parts: Path, tmp_path: Path) -> None:
    files = sorted(parts.glob("*.safetensors"))
    before = bench.tag_of(vae, files, SIZE)
    other = tmp_path / "vae"
    other.mkdir()
    for file in vae.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert before == bench.tag_of(other, files, SIZE)
    config = other / "config.json"
    config.write_text(config.read_text().replace('"norm_num_groups": 4', '"norm_num_groups": 2'))
    assert before != bench.tag_of(other, files, SIZE)
    source = tmp_path / "data.py"
    for module in (bench, bench.image_data, bench.tensorfile):
        with pytest.MonkeyPatch.context() as patch:
            source.write_text(Path(str(module.__file__)).read_text(encoding="utf-8") + "\nMORE = 1\n")
            patch.setattr(module, "__file__", str(source))
            bench.source_hash.cache_clear()
            assert before != bench.tag_of(vae, files, SIZE)
    bench.source_hash.cache_clear()


def test_a_tag_changes_with_the_parts(vae: Path, parts: Path, tmp_path: Path) -> None:
    files = sorted(parts.glob("*.safetensors"))
    before = bench.tag_of(vae, files, SIZE)
    assert before == bench.tag_of(vae, files, SIZE)
    assert before != bench.tag_of(vae, files, bench.QUICK)
    other = tmp_path / "parts"
    other.mkdir()
    for file in parts.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    made = Extractor.load(other / image_weights.EXTRACTOR)
    Extractor(made.layers, made.head, made.head_bias + 1, made.unit, made.side).save(
        other / image_weights.EXTRACTOR
    )
    assert before != bench.tag_of(vae, sorted(other.glob("*.safetensors")), SIZE)


def test_attacks_of_the_curriculum_exist() -> None:
    assert set(bench.CURRICULUM) | set(bench.TURNED) | set(bench.NAMES) <= set(bench.on_pictures(64))
