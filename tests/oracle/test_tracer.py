"""`zhiyi trace` and `zhiyi mark` as typed, where no chain is needed: what is printed, exchanged and refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import MODEL_KEY

from zhiyi.cli.session import Session
from zhiyi.delivery import Bundle
from zhiyi.errors import BadInput
from zhiyi_oracle.api_users import ApiUsers
from zhiyi_oracle.tracer import cli
from zhiyi_watermark import text_gaussian, weights
from zhiyi_watermark.model_folder import load_model
from zhiyi_watermark.tensorfile import TensorFile, check_bundle

TINY = Path(__file__).resolve().parents[1] / "models" / "tiny-lm"
EXACT = {"n", "T", "sum_q2", "log2_p", "log2_p_global", "p"}
MODEL = 3
LICENSES = [(MODEL << 28) | n for n in (1, 77, 123)]

Run = Callable[..., Any]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The licenses of one model, in place of a chain."""
    monkeypatch.setattr(Session, "reader", None)
    monkeypatch.setattr(cli, "licenses_of", lambda _, model: LICENSES if model == MODEL else [])


def names(value: Any) -> set[str]:
    """Every name in a JSON document."""
    if isinstance(value, dict):
        return set(value) | {name for inner in value.values() for name in names(inner)}
    return {name for inner in value for name in names(inner)} if isinstance(value, list) else set()


def write(run: Run, key: Path, out: Path, *words: str) -> Path:
    asked = [
        "--prompt",
        "The package",
        "--model-key",
        key,
        "--tokens",
        "300",
        "--at-least",
        "300",
        "--seed",
        "1",
    ]
    run("mark", "text", TINY, *asked, *words, "--out", out)
    return out


def test_a_trace_tells_decision_and_bucket_and_no_figure_of_the_keys_signs(
    run: Run, key: Path, tmp_path: Path
) -> None:
    """T is linear in the signs: who collects T, or an exact p, solves for them."""
    text = write(run, key, tmp_path / "answer.txt", "--method", "kgw", "--strength", "4")
    looked = ["--model-key", key, "--tokenizer", TINY, "--profile", "kgw", "--profile", "unigram"]
    found = run("trace", text, *looked)
    assert (found["found"], found["decision"], found["method"]) == (True, "detected", "kgw-1")
    assert found["bucket"] in (12, 20, 40)
    assert [one["method"] for one in found["candidates"]] == ["kgw-1"]
    assert not names(found) & EXACT
    whole = run("trace", text, *looked, "--full")
    assert set(whole["detection"]) > {"n", "T", "sum_q2", "log2_p", "log2_p_global"}
    assert "secret" in whole["warning"]
    nothing = run("trace", TINY / "piece.txt", *looked)
    assert (nothing["found"], nothing["bucket"], nothing["candidates"]) == (False, 0, [])
    assert (nothing["method"], nothing["spans"]) == (None, []), (
        "which mark came nearest, and where, tells of the key"
    )
    pooled = run("trace", text, TINY / "piece.txt", *looked, "--together")
    assert [Path(name).name for name in pooled["files"]] == ["answer.txt", "piece.txt"]
    assert pooled["found"] is True
    picture = tmp_path / "x.png"
    picture.write_bytes(b"")
    run("trace", text, picture, *looked, "--together", fails=2)


def test_64_bits_hold_license_and_user(run: Run, key: Path, tmp_path: Path, registry: None) -> None:
    provider = tmp_path / "provider"
    users = ApiUsers(provider)
    number = users.add("ana")[0].number
    users.close()
    words = ["--user", str(number), "--bits", "64", "--strength", "5"]
    text = write(run, key, tmp_path / "answer.txt", *words, "--fingerprint", "123")
    looked = ["--model-key", key, "--tokenizer", TINY, "--provider", provider, "--bits", "64"]
    found = run("trace", text, *looked, "--licenses-of", MODEL, "--full")
    assert (found["found"], found["user_number"], found["fingerprint"]) == (True, number, 123)
    every = run("trace", text, *looked, "--full")
    assert every["detection"]["hypotheses"] * 4 == found["detection"]["hypotheses"] * (1 << 28)
    run(
        "mark",
        "text",
        TINY,
        "--prompt",
        "x",
        "--model-key",
        key,
        "--user",
        "1",
        "--fingerprint",
        "1",
        fails=3,
    )
    run("mark", "text", TINY, "--prompt", "x", "--model-key", key, "--method", "kgw", "--bits", "64", fails=3)


def test_operators_exchange_the_gradient_of_a_text(
    run: Run, key: Path, tmp_path: Path, registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "gsw.json"
    chosen = text_gaussian.plan(TINY, epsilon=0.8)
    spec.write_text(chosen.to_json())
    keys = {n: text_gaussian.license_key(MODEL_KEY, n) for n in LICENSES}
    text_gaussian.mark(TINY, tmp_path / "copy", keys[LICENSES[1]], chosen)
    asked = [
        "--prompt",
        "The",
        "--model-key",
        key,
        "--method",
        "unigram",
        "--strength",
        "0",
        "--temperature",
        "1",
    ]
    text = tmp_path / "said.txt"
    run(
        "mark",
        "text",
        tmp_path / "copy",
        *asked,
        "--tokens",
        "200",
        "--at-least",
        "200",
        "--seed",
        "3",
        "--out",
        text,
    )
    loaded: list[Path] = []
    monkeypatch.setattr(
        text_gaussian, "load_model", lambda folder: loaded.append(folder) or load_model(folder)
    )
    looked = ["--model-key", key, "--tokenizer", TINY, "--writer", f"{MODEL}={spec}"]
    q = tmp_path / "q.safetensors"
    first = run("trace", text, *looked, "--gradient-out", q)
    assert (first["found"], first["model_id"], first["license_id"]) == (True, MODEL, LICENSES[1])
    assert (first["shared"]["digest"], first["shared"]["accepted"]) == (
        "0x" + read(q, chosen).digest().hex(),
        None,
    )
    assert loaded == [TINY]
    second = run("trace", text, *looked, "--gradient-in", q)
    told = second["shared"]
    assert (told["agreement"], told["accepted"], told["reason"]) == (1.0, True, None)
    assert (told["same_decision"], told["same_license"], told["same_bucket"]) == (True, True, True)
    assert not names(second) & EXACT

    ours = read(q, chosen)
    framed = ours.q.copy()
    at = 0
    for tensor, number, low, high in text_gaussian._blocks(chosen.tensors):
        bits = text_gaussian.np.unpackbits(
            text_gaussian._stream(keys[LICENSES[0]], tensor, number, high - low), count=high - low
        )
        framed[low:high] += 2 * bits.astype("i2") - 1
        at = high
    assert at == framed.size
    text_gaussian.Gradient(
        framed.clip(-text_gaussian.LEVELS, text_gaussian.LEVELS), ours.spec_hash, ours.texts_hash, ours.tokens
    ).save(q)
    refused = run("trace", text, *looked, "--gradient-in", q, fails=5)["shared"]
    assert (refused["agreement"], refused["accepted"], refused["same_license"]) == (1.0, False, False)
    assert refused["reason"] == "it says another thing than ours"

    q.write_bytes(q.read_bytes()[:-7])
    assert "cut" in run("trace", text, *looked, "--gradient-in", q, fails=2)["error"]["message"]
    run("trace", text, text, *looked, "--gradient-in", q, fails=3)
    run("trace", text, *looked, "--gradient-out", tmp_path / "none" / "q", fails=2)


def read(path: Path, spec: text_gaussian.GswSpec) -> text_gaussian.Gradient:
    return text_gaussian.Gradient.load(path, spec)


def test_weights_are_traced_by_their_difference_to_the_base(
    run: Run, tmp_path: Path, registered: Any, registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns of a copy reordered: nothing without the base tensors, the license with them."""
    monkeypatch.setattr(cli, "key_of", lambda *_: None)
    kit, copy = tmp_path / "kit.json", tmp_path / "copy"
    kit.write_text(registered.kit.to_json())
    seeds = [bytes([i]) * 32 for i in range(16)]
    weights.mark(registered.folder, copy, registered.spec, registered.kit.trace_key, LICENSES[1], seeds)
    reorder(copy / "model.safetensors", {t.name: t.shape for t in registered.spec.tensors})
    words = ["trace", copy, "--kit", f"{MODEL}={kit}"]
    blind, informed = run(*words), run(*words, "--base", f"{MODEL}={registered.folder}")
    assert (blind["found"], blind["informed"]) == (False, [])
    assert (informed["found"], informed["license_id"], informed["informed"]) == (True, LICENSES[1], [MODEL])
    assert [one["license_id"] for one in informed["candidates"]] == [LICENSES[1]]
    assert not names([blind, informed]) & EXACT
    run(*words, "--base", f"{MODEL}={TINY}", fails=2)
    run(*words, "--base", f"{MODEL + 1}={registered.folder}", fails=3)


def reorder(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    with TensorFile(path, writable=True) as file:
        for entry in file.entries:
            if entry.name in shapes:
                values = file.floats(entry).reshape(entry.shape)
                file.store(entry, values[:, ::-1].astype("<f4").tobytes())


def test_a_prompt_the_model_cannot_read_is_refused(run: Run, key: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder, prompt = tmp_path / "gpt2", tmp_path / "prompt.txt"
    GPT2LMHeadModel(
        GPT2Config(vocab_size=4096, n_positions=64, n_embd=8, n_layer=1, n_head=1)
    ).save_pretrained(folder)
    for file in TINY.glob("tokenizer*"):
        shutil.copy(file, folder)
    words = ["--prompt-file", prompt, "--model-key", key, "--method", "kgw"]
    cases = (
        (TINY, b"", 5, "no token"),
        (TINY, b"x " * 2_000, 5, "at most 512"),
        (folder, b"a b c", 100, "the 64 tokens"),
    )
    for model, content, tokens, said in cases:
        prompt.write_bytes(content)
        told = run("mark", "text", model, *words, "--tokens", tokens, fails=2)["error"]["message"]
        assert said in told
    for content in (b"\xff\xfe", b"x" * 70_000):
        prompt.write_bytes(content)
        run("mark", "text", TINY, *words, fails=2)
    prompt.write_text("a\x00\x1b[2J\u202e\u200b\ud800".encode("utf-8", "ignore").decode())
    assert run("mark", "text", TINY, *words, "--tokens", 5)["characters"]


def test_what_no_text_can_be_marked_with_is_refused(run: Run, key: Path) -> None:
    words = ["mark", "text", TINY, "--model-key", key, "--prompt"]
    broken = os.fsdecode(b"owls \xff")  # as a shell hands over what is no UTF-8
    assert "not UTF-8" in run(*words, broken, "--method", "kgw", fails=2)["error"]["message"]
    for user in (-1, 1 << 16):
        run(*words, "owls", f"--user={user}", fails=2)
    for seed in (-1, 1 << 64):
        run(*words, "owls", "--method", "kgw", f"--seed={seed}", fails=2)
    words += ["owls", "--user", (1 << 16) - 1, "--seed", (1 << 64) - 1, "--tokens", 5]
    assert run(*words)["user"] == (1 << 16) - 1


@pytest.mark.parametrize(
    ("name", "content"), [("tokenizer.json", "{}"), ("tokenizer_config.json", "[]"), ("config.json", "[]")]
)
def test_a_broken_model_folder_is_a_fault_of_the_configuration(
    run: Run, key: Path, tmp_path: Path, name: str, content: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    (folder / name).write_text(content)
    words = ["--model-key", key, "--tokenizer", folder, "--profile", "kgw"]
    told = run("trace", TINY / "piece.txt", *words, fails=3)["error"]
    assert "give the folder" in told["message"]
    told = run("mark", "text", folder, "--prompt", "x", "--model-key", key, "--method", "kgw", fails=3)[
        "error"
    ]
    assert told["kind"] == "ConfigError"


def test_a_file_nobody_should_load_is_refused_before_any_node_is_asked(
    run: Run, tmp_path: Path, registered: Any
) -> None:
    kit, pickles, junk = tmp_path / "kit.json", tmp_path / "pickles", tmp_path / "junk.safetensors"
    kit.write_text(registered.kit.to_json())
    pickles.mkdir()
    (pickles / "pytorch_model.bin").write_bytes(b"\x80\x04")
    junk.write_bytes(b"\xff" * 100)
    asked = ["--rpc", "http://127.0.0.1:9", "trace"]
    for bad, said, code in ((pickles / "pytorch_model.bin", "may hold a pickle", 2), (junk, "malformed", 5)):
        assert said in run(*asked, bad, "--kit", f"{MODEL}={kit}", fails=code)["error"]["message"]
    words = ["--kit", kit, "--license", LICENSES[0], "--seeds", tmp_path / "seeds.json"]
    told = run("mark", "weights", pickles, tmp_path / "copy", *words, fails=2)["error"]
    assert "may be a pickle" in told["message"]


def test_a_tensor_in_two_shards_is_not_marked_in_one_of_them(
    run: Run, tmp_path: Path, registered: Any
) -> None:
    kit, folder = tmp_path / "kit.json", tmp_path / "model"
    kit.write_text(registered.kit.to_json())
    shutil.copytree(registered.folder, folder)
    shutil.copy(folder / "model.safetensors", folder / "z.safetensors")  # would stay unmarked in the copy
    words = ["--kit", kit, "--license", LICENSES[0], "--seeds", tmp_path / "seeds.json"]
    told = run("mark", "weights", folder, tmp_path / "copy", *words, fails=2)["error"]
    assert "is in two files" in told["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kit.json", "model"]


def test_weights_that_no_mark_changes_leave_no_copy(run: Run, tmp_path: Path, registered: Any) -> None:
    kit, dead, copy = tmp_path / "kit.json", tmp_path / "dead", tmp_path / "copy"
    kit.write_text(registered.kit.to_json())
    shutil.copytree(registered.folder, dead)
    with TensorFile(dead / "model.safetensors", writable=True) as file:
        for entry in file.entries:
            file.store(entry, bytes(entry.end - entry.start))
    words = ["--kit", kit, "--license", LICENSES[0], "--seeds", tmp_path / "seeds.json"]
    told = run("mark", "weights", dead, copy, *words, fails=2)["error"]
    assert "changes nothing" in told["message"]
    assert not copy.exists()


def test_what_is_not_there_is_said_and_not_made(run: Run, key: Path, tmp_path: Path) -> None:
    assert "is not there" in run("trace", tmp_path / "none", fails=4)["error"]["message"]
    words = ["--model-key", key, "--tokenizer", TINY, "--provider", tmp_path / "none"]
    assert "no provider's folder" in run("trace", TINY / "piece.txt", *words, fails=3)["error"]["message"]
    assert not (tmp_path / "none").exists()


def test_folders_are_walked_in_order_and_not_too_deep(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.png", "a.txt", "c/model.safetensors", "c/notes.txt", "d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "e.txt").symlink_to(tmp_path / "a.txt")
    found = [str(path.relative_to(tmp_path)) for path in cli.objects_of(tmp_path)]
    assert found == ["a.txt", "b/1.png", "b/2.txt", "c"]


def test_a_folder_of_1200_folders_is_refused_and_a_bundle_of_it_too(tmp_path: Path) -> None:
    subprocess.run(["mkdir", "-p", "/".join("d" * 1200)], cwd=tmp_path, check=True)
    try:
        with pytest.raises(BadInput, match="100 folders"):
            cli.objects_of(tmp_path)
        (tmp_path / "a.txt").write_bytes(b"1")
        assert [path for path, _ in Bundle.scan(tmp_path).files] == ["a.txt"]
        check_bundle(tmp_path, set())
    finally:
        subprocess.run(["rm", "-r", "d"], cwd=tmp_path, check=True)


def test_a_name_that_is_no_utf8_is_shown(run: Run, key: Path, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.txt")).write_text("one two three")
    (row,) = run("trace", folder, "--model-key", key, "--tokenizer", TINY, "--profile", "kgw")
    assert row["file"].endswith("\\xff.txt")


def test_a_writers_spec_holds_the_sampler_of_its_copies(run: Run, key: Path, tmp_path: Path) -> None:
    spec = tmp_path / "gsw.json"
    words = ["mark", "writer", TINY, tmp_path / "copy", "--spec", spec, "--model-key", key, "--license", "5"]
    told = run(*words, "--temperature", "0.7", "--top-k", "0")
    chosen = text_gaussian.GswSpec.from_json(spec.read_text())
    assert (chosen.temperature, chosen.top_k) == (0.7, 0)
    assert set(told) == {"copy", "license_id", "spec", "detector_hash", "largest_relative_change"}
    told = run(*words, "--epsilon", "0.05", fails=3)["error"]["message"]
    assert "has epsilon 0.045, given 0.05" in told
    other = tmp_path / "other"
    shutil.copytree(TINY, other)
    (other / "tokenizer.json").write_text((TINY / "tokenizer.json").read_text() + "\n")
    words[2:4] = [other, tmp_path / "copy of other"]
    assert "another tokenizer.json" in run(*words, fails=2)["error"]["message"]
    run(*words[:-1], "-1", fails=2)
    licenses, short = tmp_path / "licenses.txt", tmp_path / "short.txt"
    licenses.write_text(str(LICENSES[0]))
    short.write_text("a")
    asked = ["--model-key", key, "--tokenizer", TINY, "--writer", f"{MODEL}={spec}"]
    told = run("trace", short, *asked, "--licenses", f"{MODEL}={licenses}", fails=2)["error"]["message"]
    assert "over 131072" in told
    asked[3:4] = [other, "--profile", "kgw"]
    asked += ["--licenses", f"{MODEL}={licenses}"]
    told = run("trace", TINY / "piece.txt", *asked, fails=3)["error"]["message"]
    assert "another tokenizer.json" in told
