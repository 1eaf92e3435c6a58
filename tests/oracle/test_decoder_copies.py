"""`zhiyi mark decoder` and `zhiyi trace --decoder`: copies issued, their pictures traced, and what is refused."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import MODEL_KEY

sys.path.append(str(Path(__file__).resolve().parents[1] / "watermark"))

from gray_word import BITS, gray_extractor, picture_of

from zhiyi_watermark import detect
from zhiyi_watermark import image_weights as lkd
from zhiyi_watermark.image_weights import LayerModulation, Modulation
from zhiyi_watermark.pictures import Picture, save_picture

TINY = Path(__file__).resolve().parents[1] / "models" / "tiny-image"
MODEL = 3
LICENSES = [(MODEL << 28) | n for n in range(1, 200)]
OURS = LICENSES[17]
NET = gray_extractor()

Run = Callable[..., Any]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Of the small pipeline's decoder, drawn at random."""
    folder = tmp_path / "parts"
    folder.mkdir()
    rng = np.random.default_rng(4)

    def drawn(*shape: int) -> Any:
        return (0.01 * rng.standard_normal(shape)).astype(np.float32)

    layers = {
        tensor.name.removesuffix(".weight"): LayerModulation(
            drawn(tensor.shape[0], BITS),
            drawn(tensor.shape[0], 2),
            drawn(2, *tensor.shape[1:]),
            drawn(2, BITS),
        )
        for tensor in lkd.decoder_layers(TINY / "vae")
        if tensor.name.endswith(".weight")
    }
    net = NET.net_hash().hex()
    vae = TINY / "vae"
    Modulation(layers, lkd.decoder_hash(vae), lkd.decoder_config(vae), net).save(folder / lkd.MODULATION)
    NET.save(folder / lkd.EXTRACTOR)
    return folder


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "pipeline"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_pipelines_copy_differs_in_its_decoder_alone(
    run: Run, key: Path, parts: Path, tmp_path: Path
) -> None:
    words = ["--parts", parts, "--model-key", key, "--license", OURS]
    told = run("mark", "decoder", TINY, tmp_path / "copy", *words)
    assert (told["license_id"], told["bits"]) == (OURS, BITS)
    assert told["extractor_hash"] == "0x" + NET.net_hash().hex()
    assert told["detector_hash"] == "0x" + NET.spec_hash().hex()
    assert told["detector_hash_turned"] == "0x" + NET.spec_hash(wide=True).hex()
    assert 0 < told["largest_relative_change"] < 1
    base, copy = files(TINY), files(tmp_path / "copy")
    assert base.keys() == copy.keys()
    assert [name for name in base if base[name] != copy[name]] == ["vae/diffusion_pytorch_model.safetensors"]
    run("mark", "decoder", TINY / "vae", tmp_path / "vae", *words)
    assert files(tmp_path / "vae") == files(tmp_path / "copy" / "vae")
    run("mark", "decoder", TINY, tmp_path / "copy", *words, fails=2)  # never over anything
    words[-1] = LICENSES[0]
    run("mark", "decoder", TINY, tmp_path / "other", *words)
    assert files(tmp_path / "other") != copy
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_copies_that_would_carry_the_unmarked_decoder_are_refused(
    run: Run, key: Path, parts: Path, pipeline: Path, tmp_path: Path
) -> None:
    words = [pipeline, tmp_path / "copy", "--parts", parts, "--model-key", key, "--license", OURS]
    weights = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    for name in ("whole.safetensors", "vae/old/x.safetensors", "unet/vae.safetensors", "vae/x.fp16.safetensors",
                 "vae/model.ckpt", "extra/model.safetensors"):  # fmt: skip
        target = pipeline / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(weights, target)
        told = run("mark", "decoder", *words, fails=2)["error"]["message"]
        assert "unmarked" in told or "two files" in told, name
        target.unlink()
    (pipeline / "link").symlink_to(weights)
    assert "plain file" in run("mark", "decoder", *words, fails=2)["error"]["message"]
    (pipeline / "link").unlink()
    run("mark", "decoder", *words)


@pytest.mark.parametrize("index", ["[]", "{", '{"unet": ["diffusers", "x"]}', "[" * 9000])
def test_a_pipelines_index_that_names_no_vae_is_refused(
    run: Run, key: Path, parts: Path, pipeline: Path, index: str, tmp_path: Path
) -> None:
    (pipeline / "model_index.json").write_text(index)
    words = ["--parts", parts, "--model-key", key, "--license", OURS]
    told = run("mark", "decoder", pipeline, tmp_path / "copy", *words, fails=2)["error"]["message"]
    assert "model_index.json" in told
    assert not (tmp_path / "copy").exists()


def test_what_does_not_fit_is_one_clear_error(run: Run, key: Path, parts: Path, tmp_path: Path) -> None:
    def told(folder: Path, given: Path = parts) -> str:
        words = ["--parts", given, "--model-key", key, "--license", OURS]
        text: str = run("mark", "decoder", folder, tmp_path / "copy", *words, fails=2)["error"]["message"]
        return text

    assert "cannot be read" in told(TINY, tmp_path / "none")
    assert "is no folder" in told(tmp_path / "none")
    inside = Path(shutil.copytree(TINY, tmp_path / "inside"))
    shutil.copytree(parts, inside / "parts")
    assert "part of every copy" in told(inside, inside / "parts")
    replace(NET, head=NET.head[:32], head_bias=NET.head_bias[:32]).save(parts / lkd.EXTRACTOR)
    assert "the extractor reads 32" in told(TINY)
    replace(NET, unit=2).save(parts / lkd.EXTRACTOR)
    assert "take both files of one export" in told(TINY)
    NET.save(parts / lkd.EXTRACTOR)
    found = Modulation.load(parts / lkd.MODULATION)
    replace(found, base_hash="00" * 32).save(parts / lkd.MODULATION)
    assert "was trained with" in told(TINY)
    replace(found, config={**found.config, "act_fn": "gelu"}).save(parts / lkd.MODULATION)
    assert 'says act_fn "silu", the modulation was trained with "gelu"' in told(TINY)
    (parts / lkd.MODULATION).write_bytes(b"x" * 100)
    assert "modulation" in told(TINY)
    assert not (tmp_path / "copy").exists()


def pictures(folder: Path, count: int, wrong: int = 0) -> list[Path]:
    """What OURS' copy could have decoded, with that many bits wrong, the same in each."""
    signs = lkd.word(MODEL_KEY, OURS, BITS, NET.net_hash())
    signs[:wrong] *= -1
    folder.mkdir(exist_ok=True)
    out = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(out):
        rgb = picture_of(signs)
        rgb[..., 2] = i  # blue is not read
        save_picture(Picture(rgb), path)
    return out


def test_pictures_of_a_copy_are_traced_alone_and_together(
    run: Run, key: Path, parts: Path, tmp_path: Path
) -> None:
    one = pictures(tmp_path / "found", 1)[0]
    registered = tmp_path / "licenses.txt"
    registered.write_text("\n".join(map(str, LICENSES)))
    looked = ["--model-key", key, "--decoder", f"{MODEL}={parts}", "--licenses", f"{MODEL}={registered}"]
    found = run("trace", one, *looked)
    assert (found["found"], found["decision"], found["license_id"]) == (True, "detected", OURS)
    assert (found["method"], found["model_id"], found["copies_tried"]) == (lkd.METHOD, MODEL, len(LICENSES))
    assert (found["payload"], found["user_number"], found["also"]) == (None, None, [])
    assert found["extractors"] == {str(MODEL): "0x" + NET.net_hash().hex()}
    assert [c["license_id"] for c in found["candidates"]] == [OURS]
    assert not {"T", "n", "log2_p"} & set(found)
    full = run("trace", one, *looked, "--full")["detection"]
    assert full["hypotheses"] == 2 * len(LICENSES)  # the mark of finished pictures is looked for too
    assert full["spec_hash"] == NET.spec_hash().hex()

    faint = tmp_path / "faint"
    one, *others = pictures(faint, 4, wrong=20)  # of one picture no trace
    rows = run("trace", faint, *looked)
    assert [(row["found"], row["license_id"]) for row in rows] == [(False, None)] * 4
    case = run("trace", one, *others, *looked, "--together")
    assert len(case["files"]) == 4
    assert case["found"] is False  # the same bits are wrong each time: pictures add up, and add nothing
    one, *others = pictures(faint, 4, wrong=6)
    same = run("trace", one, *others, *looked, "--together", "--full")
    alone = run("trace", one, *looked, "--full")
    assert same["license_id"] == alone["license_id"] == OURS
    assert same["detection"]["T"] == 4 * alone["detection"]["T"]
    assert same["detection"]["hypotheses"] == alone["detection"]["hypotheses"]
    again = tmp_path / "again.png"
    shutil.copyfile(one, again)
    twice = run("trace", one, again, *looked, "--together", "--full")
    assert twice["detection"]["T"] == alone["detection"]["T"]  # equal pictures count once


def test_turned_pictures_are_looked_for_where_it_is_asked(
    run: Run, key: Path, parts: Path, tmp_path: Path
) -> None:
    rgb = picture_of(lkd.word(MODEL_KEY, OURS, BITS, NET.net_hash()))
    rgb = np.sort(rgb.reshape(-1, 3), axis=0).reshape(rgb.shape)  # in bands, which turning leaves
    one, registered = tmp_path / "a.png", tmp_path / "licenses.txt"
    save_picture(Picture(rgb), one)
    registered.write_text(f"{OURS}\n")
    looked = ["--model-key", key, "--decoder", f"{MODEL}={parts}", "--licenses", f"{MODEL}={registered}"]
    for wide in (False, True):
        found = run("trace", one, *looked, "--full", *["--turned"] * wide)
        assert found["license_id"] == OURS
        assert found["detection"]["spec_hash"] == NET.spec_hash(wide=wide).hex()
    assert "--decoder" in run("trace", one, "--model-key", key, "--turned", fails=3)["error"]["message"]


def test_an_extractor_made_for_a_known_word_names_nobody(
    run: Run, key: Path, parts: Path, tmp_path: Path
) -> None:
    known = lkd.word(MODEL_KEY, OURS, BITS, NET.net_hash())
    aimed = replace(NET, head=np.zeros_like(NET.head), head_bias=known.astype(np.int64) * 15)
    aimed.save(parts / lkd.EXTRACTOR)
    found = Modulation.load(parts / lkd.MODULATION)
    replace(found, extractor=aimed.net_hash().hex()).save(parts / lkd.MODULATION)
    registered = tmp_path / "licenses.txt"
    registered.write_text("\n".join(map(str, LICENSES)))
    one = pictures(tmp_path / "found", 1)[0]
    looked = ["--model-key", key, "--decoder", f"{MODEL}={parts}", "--licenses", f"{MODEL}={registered}"]
    said = run("trace", one, *looked)
    assert (said["found"], said["license_id"], said["candidates"]) == (False, None, [])
    assert said["copies_tried"] == len(LICENSES)


def test_options_that_do_not_fit_are_refused(run: Run, key: Path, parts: Path, tmp_path: Path) -> None:
    one = pictures(tmp_path / "found", 1)[0]
    registered, text = tmp_path / "licenses.txt", tmp_path / "a.txt"
    text.write_text("words")
    looked = ["trace", one, "--model-key", key, "--licenses", f"{MODEL}={registered}"]
    decoder = ["--decoder", f"{MODEL}={parts}"]
    registered.write_text(f"{OURS}\n")
    run(*looked, fails=3)  # of no decoder
    run(*looked, *decoder)
    for content in ("", "twelve", "-1", "1.5", "٣"):
        registered.write_text(content)
        told = run(*looked, *decoder, fails=2)["error"]["message"]
        assert "one a line" in told
    registered.write_text("9" * 78)  # no number of 256 bits
    assert "2^256" in run(*looked, *decoder, fails=2)["error"]["message"]
    run(*looked, "--decoder", f"{MODEL}={tmp_path}", fails=2)
    other = Path(shutil.copytree(parts, tmp_path / "other"))
    replace(NET, unit=2).save(other / lkd.EXTRACTOR)
    registered.write_text(f"{OURS}\n")
    told = run(*looked, "--decoder", f"{MODEL}={other}", fails=2)["error"]["message"]
    assert "take both files of one export" in told
    told = run("trace", text, "--model-key", key, *decoder, fails=3)["error"]["message"]
    assert "--decoder" in told
    told = run(*looked, *decoder, text, "--together", fails=2)["error"]["message"]
    assert "pictures alone" in told


def test_too_many_pictures_are_no_case(run: Run, key: Path, tmp_path: Path) -> None:
    given = pictures(tmp_path / "found", 65)
    told = run("trace", *given, "--together", "--model-key", key, fails=2)["error"]["message"]
    assert "at most 64" in told


def test_a_picture_that_a_mark_does_not_read_is_left_out_and_told(
    run: Run, key: Path, parts: Path, tmp_path: Path
) -> None:
    """Else whoever publishes one banner beside his pictures is not traced by them."""
    given = pictures(tmp_path / "found", 3)
    banner, registered = tmp_path / "banner.png", tmp_path / "licenses.txt"
    save_picture(Picture(np.full((130, 700, 3), 77, np.uint8)), banner)  # over 4 : 1
    registered.write_text("\n".join(map(str, LICENSES)))
    looked = ["--model-key", key, "--decoder", f"{MODEL}={parts}", "--licenses", f"{MODEL}={registered}"]
    found = run("trace", *given, banner, *looked, "--together")
    assert (found["decision"], found["license_id"]) == ("detected", OURS)
    assert found["copies_tried"] == len(LICENSES)
    left = {(n["file"], n["method"], n["model_id"]) for n in found["not_examined"]}
    assert (str(banner), lkd.METHOD, MODEL) in left
    assert not {(str(path), lkd.METHOD, MODEL) for path in given} & left
    assert any("700 x 130" in one["reason"] for one in found["not_examined"])
    wide = tmp_path / "wide.png"
    save_picture(
        Picture(np.full((150, 620, 3), 77, np.uint8)), wide
    )  # over 4 : 1, not for the mark of pictures
    found = run("trace", wide, *looked)
    assert (found["decision"], found["copies_tried"], found["extractors"]) == ("not_detected", 0, {})
    assert [one["method"] for one in found["not_examined"]] == [lkd.METHOD]


def test_an_unreadable_picture_of_a_case_is_named(run: Run, key: Path, tmp_path: Path) -> None:
    given = pictures(tmp_path / "found", 3)
    given[1].write_bytes(given[1].read_bytes()[:80])
    told = run("trace", *given, "--together", "--model-key", key, fails=2)["error"]["message"]
    assert str(given[1]) in told


def test_a_cases_pictures_are_bounded(
    run: Run, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "MAX_CASE_PIXELS", 2 * 64 * 64)
    given = pictures(tmp_path / "found", 4)
    told = run("trace", *given, "--together", "--model-key", key, fails=2)["error"]["message"]
    assert "the first 3 of 4 pictures have 12288 px, a case has at most 8192" in told


def test_noise_of_several_pictures_is_not_exchanged(run: Run, key: Path, tmp_path: Path) -> None:
    given = pictures(tmp_path / "found", 2)
    words = ["trace", *given, "--together", "--model-key", key, "--pipeline", f"1={TINY}"]
    for option in ("--noise-out", "--noise-in"):
        told = run(*words, option, tmp_path / "noise", fails=3)["error"]["message"]
        assert "one picture" in told


def test_a_model_is_named_once_and_by_its_own_licenses(
    run: Run, key: Path, parts: Path, tmp_path: Path
) -> None:
    one = pictures(tmp_path / "found", 1)[0]
    registered, more = tmp_path / "licenses.txt", tmp_path / "more.txt"
    registered.write_text(f"{OURS}\n")
    more.write_text(f"{LICENSES[3]}\n")
    looked = ["trace", one, "--model-key", key]
    decoder, licenses = ["--decoder", f"{MODEL}={parts}"], ["--licenses", f"{MODEL}={registered}"]
    for twice in (["--licenses", f"{MODEL}={more}"], ["--licenses", f"0{MODEL}={more}"], decoder):
        told = run(*looked, *decoder, *licenses, *twice, fails=2)["error"]["message"]
        assert f"names model {MODEL} twice" in told
    for number in (str(1 << 64), "9" * 5000):
        told = run(*looked, "--decoder", f"{number}={parts}", fails=2)["error"]["message"]
        assert "64 bits" in told
    more.write_text(f"{OURS}\n{(5 << 28) | 1}\n")
    told = run(*looked, *decoder, "--licenses", f"{MODEL}={more}", fails=2)["error"]["message"]
    assert "is of model 5" in told


def test_the_extractor_alone_is_enough_to_trace_by(run: Run, key: Path, parts: Path, tmp_path: Path) -> None:
    """And the trace says by which detector, as it reads."""
    one, registered = pictures(tmp_path / "found", 1)[0], tmp_path / "licenses.txt"
    registered.write_text(f"{OURS}\n")
    (parts / lkd.MODULATION).unlink()
    looked = ["--decoder", f"{MODEL}={parts / lkd.EXTRACTOR}", "--licenses", f"{MODEL}={registered}"]
    for wide in (False, True):
        found = run("trace", one, "--model-key", key, *looked, *["--turned"] * wide)
        assert wide or found["license_id"] == OURS
        assert found["detectors"] == {str(MODEL): "0x" + NET.spec_hash(wide=wide).hex()}
