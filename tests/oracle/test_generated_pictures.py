"""`zhiyi mark image --generate` and `zhiyi trace --pipeline`: drawn, named again, exchanged and refused."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_model import MODEL_KEY

sys.path.append(str(Path(__file__).resolve().parents[1] / "watermark"))

from gray_word import gray_extractor

from zhiyi.errors import BadInput, ConfigError
from zhiyi.keys import KeyKind, save_key
from zhiyi_oracle.marker import generated, nonces
from zhiyi_oracle.tracer import trace_picture
from zhiyi_watermark import image_generated as kgs
from zhiyi_watermark.detect import DecoderSuspect, Finding, Found, PictureSuspect
from zhiyi_watermark.errors import UnavailableError
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.image_generated import NONCES, Kgs, KgsSpec, Noise
from zhiyi_watermark.image_weights import METHOD as LKD
from zhiyi_watermark.image_weights import LkdReader
from zhiyi_watermark.model_folder import load_pipeline
from zhiyi_watermark.payload import Long
from zhiyi_watermark.pictures import Picture, save_picture
from zhiyi_watermark.result import Detection, detection
from zhiyi_watermark.stats import TRACE, Tail

TINY = Path(__file__).resolve().parents[1] / "models" / "tiny-image"
MODEL = 3
OTHER_KEY = b"\x09" * 32

Run = Callable[..., Any]


def plain(path: Path, side: int = 64) -> Path:
    save_picture(Picture(np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)), path)
    return path


def test_drawn_pictures_are_traced_and_their_noise_is_exchanged(run: Run, key: Path, tmp_path: Path) -> None:
    spec, prompts = tmp_path / "kgs.json", tmp_path / "prompts.txt"
    prompts.write_text("fox\n\n  photo \ncat\n")
    words = ["--generate", "--model-key", key, "--user", 7, "--fingerprint", 123, "--spec", spec]
    words += ["--steps", 8, "--guidance", 3]
    drawn = run(
        "mark", "image", TINY, tmp_path / "out", *words, "--prompts-file", prompts, "--seed", 1, "--batch", 2
    )
    rows = drawn["pictures"]
    first = rows[0]["nonce"]
    assert [(Path(row["file"]).name, (row["nonce"] - first) % NONCES, row["prompt"]) for row in rows] == [
        ("0001.png", 0, "fox"),
        ("0002.png", 1, "photo"),
        ("0003.png", 2, "cat"),
    ]
    logged = tmp_path / "out" / "pictures.jsonl"
    assert [json.loads(line) for line in logged.read_text().splitlines()] == rows
    assert logged.stat().st_mode & 0o077 == 0
    chosen = KgsSpec.from_json(spec.read_text())
    assert drawn["detector_hash"] == "0x" + chosen.spec_hash().hex()
    assert chosen.shape == (4, 32, 32)
    again = run("mark", "image", TINY, tmp_path / "more", *words, "--prompt", "fox")
    assert [(row["nonce"] - first) % NONCES for row in again["pictures"]] == [3]
    assert (drawn["ledger_begun"], again["ledger_begun"]) == (True, False)

    looked = ["--model-key", key, "--pipeline", f"{MODEL}={TINY}", "--fingerprint", 123]
    noise = tmp_path / "noise.safetensors"
    found = run("trace", rows[1]["file"], *looked, "--noise-out", noise)
    assert (found["found"], found["user_number"], found["fingerprint"]) == (True, 7, 123)
    assert (found["method"], found["model_id"]) == (kgs.METHOD, MODEL)
    (candidate,) = found["candidates"]
    assert (candidate["license_id"], candidate["fingerprint"]) == (None, 123)  # 123 is a license of model 0
    assert not {"T", "n", "log2_p"} & set(found)
    ours = Noise.load(noise)
    assert (found["shared"]["digest"], found["shared"]["accepted"]) == ("0x" + ours.digest().hex(), None)
    same = run(
        "trace", rows[1]["file"], *looked, "--noise-in", noise, "--pipeline-spec", f"{MODEL}={spec}", "--full"
    )
    told = same["shared"]
    assert (told["agreement"], told["accepted"], told["reason"]) == (1.0, True, None)
    assert same["detection"]["hypotheses"] == 2 * 2 << 16  # DSS is looked for too

    run("trace", rows[1]["file"], *looked, "--noise-out", noise, fails=2)  # never over anything
    noise.unlink()
    far = np.clip(-ours.q, -15, 15).astype(np.int8)
    Noise(far, ours.views, ours.spec_hash, ours.picture_hash).save(noise)
    refused = run("trace", rows[1]["file"], *looked, "--noise-in", noise, fails=5)["shared"]
    assert (refused["accepted"], refused["reason"]) == (False, "too few of them agree")
    other = tmp_path / "other.key"  # under which the picture is unmarked
    save_key(other, KeyKind.TRACE, OTHER_KEY, unsafe_plain=True)
    unmarked, looked[1] = rows[1]["file"], other
    noise.unlink()
    run("trace", unmarked, *looked, "--noise-out", noise)
    theirs = Noise.load(noise)
    noise.unlink()
    forged = np.clip(theirs.q + Kgs(OTHER_KEY, chosen).signs(Long(9, 9), 40), -15, 15).astype(np.int8)
    Noise(forged, theirs.views, theirs.spec_hash, theirs.picture_hash).save(noise)
    framed = run("trace", unmarked, *looked, "--noise-in", noise, fails=5)
    assert framed["found"] is False
    assert framed["shared"]["reason"] == "it says another thing than ours"
    run("trace", rows[0]["file"], *looked, "--noise-in", noise, fails=2)  # another picture's
    noise.write_bytes(noise.read_bytes()[:-3])
    run("trace", unmarked, *looked, "--noise-in", noise, fails=2)


def test_a_picture_too_small_for_every_mark_is_refused_clearly(run: Run, key: Path, tmp_path: Path) -> None:
    told = run("trace", plain(tmp_path / "small.png"), "--model-key", key, fails=2)
    assert "the picture has 64 x 64 px; marks are put into" in told["error"]["message"]


def test_options_that_do_not_fit_are_refused(run: Run, key: Path, tmp_path: Path) -> None:
    picture, spec, out = plain(tmp_path / "a.png"), tmp_path / "kgs.json", tmp_path / "out"
    base = ["mark", "image", TINY, out, "--model-key", key, "--user", 1, "--generate"]
    run(*base, "--prompt", "fox", fails=3)  # no spec
    run(*base, "--spec", spec, fails=2)  # no prompt
    spec.write_text("{}")
    run(*base, "--spec", spec, "--prompt", "fox", fails=2)
    run(*base, "--spec", spec, "--prompt", "fox", "--height", 64, fails=3)
    out.mkdir()
    run(*base, "--spec", tmp_path / "new.json", "--prompt", "fox", fails=2)  # never over anything
    run(
        "mark",
        "image",
        picture,
        tmp_path / "b.png",
        "--model-key",
        key,
        "--user",
        1,
        "--prompt",
        "x",
        fails=3,
    )
    finished = ["mark", "image", picture, tmp_path / "b.png", "--model-key", key, "--user", 1]
    for option in ("--steps", "--guidance", "--batch"):
        assert option in run(*finished, option, 5, fails=3)["error"]["message"]
    assert "--quality" in run(*base, "--spec", spec, "--quality", 90, fails=3)["error"]["message"]
    text = tmp_path / "a.txt"
    text.write_text("owl")
    for option in ("--pipeline", "--pipeline-spec"):
        told = run("trace", text, "--model-key", key, option, f"{MODEL}={TINY}", fails=3)
        assert "for pictures" in told["error"]["message"]
    looked = ["trace", picture, "--model-key", key]
    run(*looked, "--noise-out", tmp_path / "q", fails=3)
    assert "--turned" in run(*looked, "--turned", fails=3)["error"]["message"]
    run(*looked, "--pipeline-spec", f"{MODEL}={spec}", fails=2)
    run(*looked, "--pipeline", TINY, fails=2)
    told = run(*looked, "--pipeline", f"{MODEL}={tmp_path}", fails=3)["error"]["message"]
    assert "model_index.json" in told
    assert not nonces.ledger_of(key).exists()


def test_a_name_too_long_to_be_written_is_one_pictures_error(run: Run, key: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    long = "a" * 251 + ".bmp"  # becomes NAME.bmp.png
    for name in (long, "b.png"):
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(
            folder / name
        )
    first, second = run("mark", "image", folder, out, "--model-key", key, "--user", 1, fails=2)
    assert (Path(first["file"]).name, first["marked"]) == (long, None)
    assert "File name too long" in first["error"]
    assert [path.name for path in out.iterdir()] == ["b.png"] == [Path(second["marked"]).name]


def test_a_byte_order_mark_is_none_of_a_prompt(
    run: Run, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\ufefffox\r\ncat\n")

    def drawn(*given: Any) -> Any:
        assert given[6].prompts == ["fox", "cat"]
        raise ConfigError("far enough")

    monkeypatch.setattr("zhiyi_oracle.marker.cli.draw", drawn)
    words = ["--model-key", key, "--user", 1, "--spec", tmp_path / "kgs.json", "--prompts-file", prompts]
    told = run("mark", "image", TINY, tmp_path / "out", "--generate", *words, fails=3)
    assert told["error"]["message"] == "far enough"


def test_what_was_drawn_before_an_error_is_logged(
    run: Run, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generated.generate

    def breaks(pipeline: Any, mark: Kgs, prompts: Sequence[str], *rest: Any, **more: Any) -> Any:
        if prompts == ["cat"]:
            raise UnavailableError("the pipeline draws infinite values")
        return made(pipeline, mark, prompts, *rest, **more)

    monkeypatch.setattr(generated, "generate", breaks)
    words = ["--generate", "--model-key", key, "--user", 7, "--spec", tmp_path / "kgs.json"]
    words += ["--steps", 1, "--batch", 1, "--prompt", "fox", "--prompt", "cat"]
    told = run("mark", "image", TINY, tmp_path / "out", *words, fails=3)
    assert "infinite" in told["error"]["message"]
    (row,) = [json.loads(line) for line in (tmp_path / "out" / generated.LOG).read_text().splitlines()]
    assert (row["file"], row["prompt"]) == (str(tmp_path / "out" / "0001.png"), "fox")
    assert nonces.reserve(key, MODEL_KEY, 1) == [(row["nonce"] + 2) % NONCES]


def test_a_run_that_can_write_nothing_leaves_nothing(run: Run, key: Path, tmp_path: Path) -> None:
    base = ["--generate", "--model-key", key, "--user", 7, "--prompt", "fox", "--spec"]
    (tmp_path / "file").write_text("")
    run("mark", "image", TINY, tmp_path / "file" / "out", *base, tmp_path / "kgs.json", fails=2)
    assert not (tmp_path / "kgs.json").exists()
    run("mark", "image", TINY, tmp_path / "out", *base, tmp_path / "file" / "kgs.json", fails=2)
    assert not (tmp_path / "out").exists()
    assert not nonces.ledger_of(key).exists()


def said(method: str, payload: bytes | None, log2_p: int) -> Detection:
    return detection(
        Tail("exact", Fraction(1, 1 << log2_p)), method=method, n=1, T=1, sum_q2=1, hypotheses=1,
        threshold=TRACE, null="", spec_hash=bytes(32), payload=payload,
    )  # fmt: skip


def test_a_mark_that_names_goes_before_a_better_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = bytes(8)
    nameless, names, none = said("kgs", None, 200), said("dss", payload, 90), said("kgs", None, 1)
    names = replace(names, license=0)
    suspects = [
        PictureSuspect("", Dss(MODEL_KEY), 1, 1),
        DecoderSuspect(str(MODEL), LkdReader(gray_extractor(), MODEL_KEY), [7, 8]),
    ]

    def traced(*passing: Finding) -> Any:
        best = passing[0] if passing else Finding(str(MODEL), none)
        monkeypatch.setattr(trace_picture, "detect", lambda *_: Found(*best, passing))
        return trace_picture.trace_picture([Path("a.png")], suspects)

    both, told = traced(Finding(str(MODEL), nameless), Finding("", names))
    assert (both.found, both.method, both.model_id, both.user_number) == (True, "dss", None, 0)
    assert (both.payload, both.bucket, told) == (payload.hex(), 20, names)
    assert [(one.method, one.license_id, one.fingerprint) for one in both.candidates] == [
        ("kgs", None, None),
        ("dss", None, 0),
    ]
    key_only, told = traced(Finding(str(MODEL), nameless))
    assert (key_only.found, key_only.decision) == (True, "detected")
    assert (key_only.method, key_only.model_id, key_only.user_number) == ("kgs", MODEL, None)
    nothing, _ = traced()
    assert (nothing.found, nothing.decision, nothing.method) == (False, "not_detected", None)
    assert nothing.model_id is None
    copy = replace(said(LKD, None, 150), license=7, also=(8,))
    decoded, told = traced(Finding(str(MODEL), nameless), Finding(str(MODEL), copy), Finding("", names))
    assert (decoded.found, decoded.license_id, decoded.also, told) == (True, 7, (8,), copy)
    assert (decoded.method, decoded.model_id, decoded.payload, decoded.copies_tried) == (LKD, MODEL, None, 2)
    assert [one.license_id for one in decoded.candidates] == [None, 7, None]
    assert (both.license_id, both.also) == (None, ())


# --- pipelines in folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy whose large files are links."""
    return Path(
        shutil.copytree(TINY, tmp_path / "pipeline", copy_function=lambda a, b: Path(b).symlink_to(a))
    )


def replaced(path: Path, content: str | None) -> None:
    path.unlink()
    if content is not None:
        path.write_text(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model_index.json", None),
        ("model_index.json", "[" * 5000),
        ("model_index.json", "[]"),
        ("model_index.json", '{"_class_name": "FluxPipeline"}'),
        ("model_index.json", '{"_class_name": ["own.py", "Pipeline"]}'),
        ("model_index.json", '{"_class_name": "StableDiffusionPipeline"}'),
        ("unet/config.json", "[]"),
        ("unet/diffusion_pytorch_model.safetensors", "x"),
        ("text_encoder/model.safetensors", None),
        ("tokenizer/tokenizer.json", "3"),
        ("scheduler/scheduler_config.json", "{"),
    ],
)
def test_a_broken_pipeline_is_one_clear_error(folder: Path, name: str, content: str | None) -> None:
    replaced(folder / name, content)
    with pytest.raises(UnavailableError, match="give the folder of the model"):
        load_pipeline(folder)


@pytest.mark.parametrize("variant", [False, True])
@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_a_pipeline_that_lacks_weights_is_refused(folder: Path, part: str, variant: bool) -> None:
    """The libraries would draw them anew each time; another variant beside, which has them, is not read."""
    from safetensors.numpy import load_file, save_file

    path = next((folder / part).glob("*.safetensors"))
    tensors = load_file(path)
    if variant:
        save_file(tensors, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    tensors.pop(sorted(tensors)[0])
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UnavailableError, match=f"{part}: 1 tensors are missing"):
        load_pipeline(folder)


@pytest.mark.parametrize(
    "named",
    [["this", "Zen"], ["strange", "DDIMScheduler"], ["diffusers", "Zen"], ["diffusers"], "this", None],
)
def test_a_pipeline_imports_nothing_that_its_index_names(
    folder: Path, named: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "strange.py").write_text("from diffusers import DDIMScheduler\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    index = json.loads((folder / "model_index.json").read_text())
    replaced(folder / "model_index.json", json.dumps(index | {"scheduler": named}))
    with pytest.raises(UnavailableError, match="scheduler is"):
        load_pipeline(folder)
    ignored = {part: ["this", "Zen"] for part in ("safety_checker", "feature_extractor", "other")}
    replaced(folder / "model_index.json", json.dumps(index | ignored))
    assert load_pipeline(folder).safety_checker is None
    assert not {"this", "strange"} & set(sys.modules)


def test_another_model_than_the_specs_is_refused(run: Run, key: Path, tmp_path: Path) -> None:
    spec = tmp_path / "kgs.json"
    spec.write_text(KgsSpec("0" * 64, "epsilon", 4, 32, 32, 2).to_json())
    base = ["mark", "image", TINY, tmp_path / "out", "--model-key", key, "--user", 1, "--generate"]
    told = run(*base, "--spec", spec, "--prompt", "fox", fails=3)["error"]["message"]
    assert "another model" in told
    looked = ["trace", plain(tmp_path / "a.png"), "--model-key", key, "--pipeline", f"{MODEL}={TINY}"]
    told = run(*looked, "--pipeline-spec", f"{MODEL}={spec}", fails=3)["error"]["message"]
    assert "SHA-256" in told
    assert not (tmp_path / "out").exists()


def spec_of(**other: Any) -> str:
    return replace(kgs.plan(load_pipeline(TINY)), **other).to_json()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"cell": 4}, "the spec says rows 32, the pipeline has 64"),
        ({"channels": 8}, "channels 8, the pipeline has 4"),
        ({"prediction": "epsilon"}, "prediction epsilon, the pipeline has v_prediction"),
        ({"rows": 33, "columns": 33}, "66 x 66 px are no multiples of 8"),
    ],
)
def test_a_spec_that_is_not_of_the_pipeline_spends_no_nonce(
    run: Run, key: Path, tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    """Pictures drawn by it could not be read again."""
    spec = tmp_path / "kgs.json"
    spec.write_text(spec_of(**other))
    base = ["mark", "image", TINY, tmp_path / "out", "--model-key", key, "--user", 1, "--generate"]
    assert said in run(*base, "--spec", spec, "--prompt", "fox", fails=3)["error"]["message"]
    looked = ["trace", plain(tmp_path / "a.png"), "--model-key", key, "--pipeline", f"{MODEL}={TINY}"]
    assert said in run(*looked, "--pipeline-spec", f"{MODEL}={spec}", fails=3)["error"]["message"]
    assert not (tmp_path / "out").exists()
    assert not nonces.ledger_of(key).exists()


def test_a_size_that_the_pipeline_cannot_draw_spends_no_nonce(run: Run, key: Path, tmp_path: Path) -> None:
    base = ["mark", "image", TINY, tmp_path / "out", "--model-key", key, "--user", 1, "--generate"]
    words = [*base, "--spec", tmp_path / "kgs.json", "--prompt", "fox", "--height", 66]
    assert "no multiples of 8" in run(*words, fails=2)["error"]["message"]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "kgs.json").exists()
    assert not nonces.ledger_of(key).exists()


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("vae/config.json", "scaling_factor", None, "scaling_factor is None"),
        ("vae/config.json", "scaling_factor", float("nan"), "scaling_factor is nan"),
        ("vae/config.json", "scaling_factor", 0, "scaling_factor is 0"),
        ("vae/config.json", "shift_factor", "a", "shift_factor 'a'"),
        ("unet/config.json", "sample_size", None, "sample_size is None"),
        ("unet/config.json", "sample_size", "32", "sample_size is '32'"),
        ("scheduler/scheduler_config.json", "beta_end", float("nan"), "do not fall from 1 to 0"),
        ("scheduler/scheduler_config.json", "beta_end", 5.0, "do not fall from 1 to 0"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 1, "do not fall from 1 to 0"),
    ],
)
def test_a_configuration_that_reads_nothing_is_refused(
    folder: Path, name: str, field: str, value: object, said: str
) -> None:
    given = json.loads((folder / name).read_text())
    replaced(folder / name, json.dumps(given | {field: value}))
    with pytest.raises(UnavailableError, match=said):
        kgs.plan(load_pipeline(folder))


# --- nonces


def test_nonces_are_spent_once_and_end(key: Path, tmp_path: Path) -> None:
    spent = nonces.reserve(key, MODEL_KEY, 3)
    (tmp_path / "link.key").symlink_to(key)
    spent += nonces.reserve(tmp_path / "link.key", MODEL_KEY, NONCES - 4)
    with pytest.raises(BadInput, match="1 of 4096 nonces left"):
        nonces.reserve(key, MODEL_KEY, 2)
    spent += nonces.reserve(key, MODEL_KEY, 1)
    assert sorted(spent) == list(range(NONCES))
    assert nonces.ledger_of(key).stat().st_mode & 0o077 == 0


def test_a_ledger_that_was_lost_begins_elsewhere(key: Path) -> None:
    firsts = set()
    for _ in range(4):
        firsts.add(nonces.reserve(key, MODEL_KEY, 1)[0])
        nonces.ledger_of(key).unlink()
    assert len(firsts) > 1  # but for one time in 2^36


def test_a_key_file_under_two_names_is_refused(key: Path, tmp_path: Path) -> None:
    os.link(key, tmp_path / "same.key")
    for name in (key, tmp_path / "same.key"):
        with pytest.raises(ConfigError, match="hard links"):
            nonces.reserve(name, MODEL_KEY, 1)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 900,
        "[]",
        '{"key": 1, "used": -1}',
        '{"first": 0, "used": 5000}',
        '{"first": 0, "used": true}',
        '{"first": 4096, "used": 1}',
        '{"used": 1}',
    ],
)
def test_a_broken_ledger_never_starts_anew(key: Path, content: str) -> None:
    nonces.reserve(key, MODEL_KEY, 1)
    nonces.ledger_of(key).write_text(content)
    with pytest.raises(ConfigError, match="restore"):
        nonces.reserve(key, MODEL_KEY, 1)
    assert nonces.ledger_of(key).read_text() == content


def test_the_ledger_of_another_key_is_refused(key: Path) -> None:
    nonces.reserve(key, bytes(32), 1)
    with pytest.raises(ConfigError, match="another key"):
        nonces.reserve(key, MODEL_KEY, 1)


def test_a_crash_before_the_ledger_is_whole_spends_nothing_and_after_repeats_nothing(
    key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = nonces.reserve(key, MODEL_KEY, 5)

    def full(*_: object) -> None:
        raise OSError(28, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(nonces.os, "fsync", full)
        with pytest.raises(ConfigError, match="no space"):
            nonces.reserve(key, MODEL_KEY, 5)
    assert [path.name for path in key.parent.iterdir() if path.name.startswith(".")] == []
    assert nonces.reserve(key, MODEL_KEY, 1) == [(spent[-1] + 1) % NONCES]


def test_links_in_the_way_of_a_ledger_are_not_followed(key: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("as it was")
    ledger = nonces.ledger_of(key)
    ledger.with_name(f".{ledger.name}.{os.getpid()}").symlink_to(other)
    nonces.reserve(key, MODEL_KEY, 1)
    assert other.read_text() == "as it was"


def test_a_ledger_is_written_under_a_lock_on_the_key_file(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved, tried = os.replace, []

    def replace(*names: Any) -> None:
        with key.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried.append(names)
        moved(*names)

    monkeypatch.setattr(nonces.os, "replace", replace)
    nonces.reserve(key, MODEL_KEY, 1)
    assert len(tried) == 1


def _spend(path: Path, answers: Any) -> None:
    answers.put([nonces.reserve(path, MODEL_KEY, 1)[0] for _ in range(20)])


def test_two_processes_share_no_nonce(key: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=_spend, args=(key, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    spent = [nonce for _ in workers for nonce in answers.get(timeout=60)]
    for worker in workers:
        worker.join()
    (after,) = nonces.reserve(key, MODEL_KEY, 1)
    assert sorted((after - nonce) % NONCES for nonce in spent) == list(range(1, 61))
