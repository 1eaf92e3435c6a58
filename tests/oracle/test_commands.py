"""The commands, as typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_stage import World, address_of, key_of
from PIL import Image
from tiny_model import MODEL_KEY, make_registered

from zhiyi.cli import main
from zhiyi.cli.orders import OrderFile
from zhiyi.delivery import mark_commit
from zhiyi.keys import KeyKind, save_key
from zhiyi.types import OrderState, to_hex
from zhiyi_oracle.fingerprinter.service import Prepared
from zhiyi_oracle.language_model import TransformersGenerator
from zhiyi_oracle.tracer.trace_weights import licenses_of
from zhiyi_watermark import weights
from zhiyi_watermark.text_zerobit import ZeroBit

Run = Callable[..., Any]


@pytest.fixture
def run(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("fingerprint", "status")` → what it printed as JSON; `fails=N` expects that exit code."""
    world.deployment.save(tmp_path / "deployment.json")

    def call(*words: str, role: str = "fingerprinter", fails: int = 0) -> Any:
        key = tmp_path / f"{role}.hex"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_text(key_of(role).hex())
        options = ["--json", "--rpc", world.node.url, "--ipfs", world.ipfs.api, "--key-file", str(key)]
        options += ["--deployment", str(tmp_path / "deployment.json")]
        capsys.readouterr()
        try:
            main([*options, *words])
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        text = capsys.readouterr().out
        assert code == fails, text
        return json.loads(text) if text.strip() else None

    return call


def test_a_copy_from_plan_to_key_by_commands_alone(world: World, run: Run, tmp_path: Path) -> None:
    registered, home = world.registered, str(tmp_path / "home")
    kit, order_file = tmp_path / "kit.json", tmp_path / "order.json"
    kit.write_text(registered.kit.to_json())
    (tmp_path / "range.json").write_text(json.dumps(registered.declared.to_json()))
    run("fingerprint", "init", "--home", home)
    words = ["fingerprint", "add-model", str(world.model_id), str(registered.folder), "--kit", str(kit)]
    run(*words, "--range", str(tmp_path / "range.json"), "--home", home)
    offer = world.offer()
    request = world.request("buyer2", offer, 77)
    (tmp_path / "offer.json").write_text(offer.model_dump_json())
    (tmp_path / "request.json").write_text(request.model_dump_json())
    papers = [str(tmp_path / "offer.json"), str(tmp_path / "request.json")]
    shown = run("fingerprint", "prepare", *papers, "--out", str(tmp_path / "prepared.json"), "--home", home)
    made = Prepared.model_validate_json((tmp_path / "prepared.json").read_text())
    assert shown["license_id"] == made.delivery.license_id
    order = world.order(offer, request, made)
    seller = world.as_("creator").orders.sign(order)
    order_file.write_text(
        OrderFile(order=order, seller_signature=seller, package_cid=made.package_cid).model_dump_json()
    )
    run("fingerprint", "sign", str(order_file), "--home", home)
    signed = OrderFile.model_validate_json(order_file.read_text()).signed()
    world.as_("buyer2").orders.open(order, signed.seller_signature, signed.fingerprinter_signature)
    world.node.mine()
    run("fingerprint", "run", "--once", "--home", home)
    assert world.as_("buyer2").orders.state(made.delivery.license_id).state is OrderState.REVEALED
    copies = run("fingerprint", "status", "--home", home)["copies"]
    assert [(c["license_id"], c["step"]) for c in copies] == [(made.delivery.license_id, "revealed")]


def test_a_plan_names_tensors_and_commitments_and_the_kit_is_private(run: Run, tmp_path: Path) -> None:
    folder = make_registered(tmp_path / "model").folder
    save_key(tmp_path / "model.key", KeyKind.TRACE, MODEL_KEY, unsafe_plain=True)
    kit, plan = tmp_path / "kit.json", tmp_path / "plan.json"
    words = ["fingerprint", "plan", str(folder), "--model-key", str(tmp_path / "model.key")]
    shown = run(*words, "--out", str(plan), "--kit", str(kit), fails=2)
    assert "too small" in json.dumps(shown) or "need" in json.dumps(shown)  # default marks want a real model
    assert not kit.exists()


def test_an_operators_folder_is_made_checked_and_shown(world: World, run: Run, tmp_path: Path) -> None:
    home = tmp_path / "operator"
    made = run("oracle", "init", str(home))
    assert (home / "signer.key").stat().st_mode & 0o077 == 0
    assert made["signer"].startswith("0x")
    run("oracle", "init", str(home), fails=3)
    config = world.write_config("operator2", folder=tmp_path / "second")
    findings = run("oracle", "check", "--config", str(config))
    assert all(f["good"] for f in findings)
    assert run("oracle", "run", "--once", "--config", str(config)) is None
    assert isinstance(run("oracle", "status", "--config", str(config)), list)
    assert world.signer_key("operator2").hex() not in json.dumps(findings)


def test_check_fails_with_a_code_when_something_is_missing(world: World, run: Run, tmp_path: Path) -> None:
    config = world.write_config("operator2", folder=tmp_path / "second")
    config.write_text(config.read_text().replace(world.ipfs.api, "http://127.0.0.1:1"))
    findings = {f["check"]: f["good"] for f in run("oracle", "check", "--config", str(config), fails=1)}
    assert [name for name, good in findings.items() if not good] == ["IPFS"]


def test_a_leaked_file_is_traced_by_command(world: World, run: Run, sold: Any, tmp_path: Path) -> None:
    kit = tmp_path / "kit.json"
    kit.write_text(world.registered.kit.to_json())
    found = run("trace", str(sold.second_copy), "--kit", f"{world.model_id}={kit}", "--json")
    assert (found["found"], found["license_id"]) == (True, sold.second)
    keys = world.as_("creator").models.trace_keys(world.model_id)
    assert (found["key_since"], found["key_until"], found["not_committed"]) == (keys[0].since, None, [])
    other = tmp_path / "other.json"
    other.write_text(replace(world.registered.kit, trace_key=bytes(32)).to_json())
    strange = run("trace", str(sold.second_copy), "--kit", f"{world.model_id}={other}", "--json")
    assert (strange["key_since"], strange["not_committed"]) == (None, [world.model_id])
    run("trace", str(sold.second_copy), fails=3)
    run("trace", str(sold.second_copy), "--kit", str(kit), fails=2)
    (tmp_path / "x.bin").write_bytes(b"\x80")
    run("trace", str(tmp_path / "x.bin"), "--kit", f"{world.model_id}={kit}", fails=2)


def test_a_folder_of_files_is_traced_one_by_one(world: World, run: Run, sold: Any, tmp_path: Path) -> None:
    kit = tmp_path / "kit.json"
    kit.write_text(world.registered.kit.to_json())
    found = tmp_path / "found"
    shutil.copytree(sold.second_copy, found / "a model")
    (found / "junk").mkdir()
    (found / "junk" / "model.safetensors").write_bytes(b"no header")
    (found / "notes.csv").write_text("not looked at")
    rows = run("trace", str(found), "--kit", f"{world.model_id}={kit}", fails=2)
    assert [Path(row["file"]).name for row in rows] == ["a model", "junk"]
    assert (rows[0]["found"], rows[0]["license_id"]) == (True, sold.second)
    assert rows[1]["found"] is None
    assert "malformed" in rows[1]["error"]
    shutil.rmtree(found / "junk")
    ((row,), full) = (
        run("trace", str(found), "--kit", f"{world.model_id}={kit}", *more) for more in ((), ("--full",))
    )
    assert "detection" not in row
    assert (full[0]["detection"]["method"], full[0]["detection"]["license"]) == (
        weights.METHOD_TRACE,
        sold.second,
    )
    both = run("trace", str(found / "a model"), str(sold.first_copy), "--kit", f"{world.model_id}={kit}")
    assert [row["license_id"] for row in both] == [sold.second, sold.first]
    shutil.rmtree(found / "a model")
    run("trace", str(found), "--kit", f"{world.model_id}={kit}", fails=2)


def test_a_copy_marked_by_hand_is_traced_and_convicts(
    world: World, run: Run, sold: Any, tmp_path: Path
) -> None:
    kit, seeds, copy = tmp_path / "kit.json", tmp_path / "seeds.json", tmp_path / "copy"
    kit.write_text(world.registered.kit.to_json())
    folder = world.registered.folder

    def mark(out: Path, license_id: int, fails: int = 0) -> Any:
        words = ["--kit", str(kit), "--license", str(license_id), "--seeds", str(seeds)]
        return run("mark", "weights", str(folder), str(out), *words, fails=fails)

    made = mark(copy, sold.second)
    assert seeds.stat().st_mode & 0o077 == 0
    given = [bytes.fromhex(seed.removeprefix("0x")) for seed in json.loads(seeds.read_text())["seeds"]]
    assert made["mark_commit"] == to_hex(mark_commit(sold.second, given))
    assert (copy / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    again = mark(tmp_path / "again", sold.second)
    assert again["mark_commit"] == made["mark_commit"]
    name = "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (copy / name).read_bytes()
    assert run("trace", str(copy), "--kit", f"{world.model_id}={kit}")["license_id"] == sold.second
    share = weights.confirm(copy, folder, world.registered.spec, 3, given[3])
    assert share.decision == "detected"
    mark(copy, sold.second, fails=2)  # never over anything
    shutil.copytree(folder, tmp_path / "open")
    (tmp_path / "open" / "pytorch_model.bin").write_bytes(b"the unmarked weights")
    words = ["--kit", str(kit), "--license", "1", "--seeds"]
    run("mark", "weights", str(tmp_path / "open"), str(tmp_path / "x"), *words, str(tmp_path / "s1"), fails=2)
    inside = tmp_path / "open" / "seeds.json"  # a secret in the folder would be delivered
    run("mark", "weights", str(tmp_path / "open"), str(tmp_path / "x"), *words, str(inside), fails=2)
    run("mark", "weights", str(folder), str(folder / "x"), *words, str(tmp_path / "s2"), fails=2)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "s1").exists()
    assert not inside.exists()
    mark(tmp_path / "other", sold.first, fails=2)  # another license's seeds would frame its holder
    assert not (tmp_path / "other").exists()
    seeds.write_text(json.dumps({"license_id": sold.second, "seeds": ["0x" + "11" * 32] * 16}))
    mark(tmp_path / "other", sold.second, fails=2)


TINY = Path(__file__).resolve().parents[1] / "models" / "tiny-lm"


@pytest.mark.parametrize("method", ["binplus", "tournament"])
def test_a_text_marked_by_hand_is_traced(run: Run, tmp_path: Path, method: str) -> None:
    key, text = tmp_path / "model.key", tmp_path / "answer.txt"
    save_key(key, KeyKind.TRACE, MODEL_KEY, unsafe_plain=True)
    provider = tmp_path / "provider"
    users = [run("provider", "add-user", name, "--home", str(provider))["number"] for name in ("ana", "ben")]
    chosen = ["--user", str(users[1]), "--strength", "3"] if method == "binplus" else ["--method", method]
    words = ["--prompt", "The package", "--model-key", str(key), "--tokens", "400", "--at-least", "400"]
    words += ["--seed", "1", *chosen]
    made = run("mark", "text", str(TINY), *words, "--out", str(text))
    assert (made["method"], made["characters"]) == (method, len(text.read_text()))
    assert run("mark", "text", str(TINY), *words)["text"] == text.read_text()
    looked = ["--model-key", str(key), "--tokenizer", str(TINY), "--profile", "tournament"]
    found = run("trace", str(text), *looked, "--provider", str(provider))
    version = {"binplus": "binplus-2", "tournament": "tournament-1"}[method]
    assert (found["found"], found["method"]) == (True, version)
    assert found["user_number"] == (users[1] if method == "binplus" else None)
    plain = tmp_path / "plain.txt"
    plain.write_text((TINY / "piece.txt").read_text())
    assert run("trace", str(plain), *looked)["found"] is False
    (tmp_path / "binary.md").write_bytes(bytes(range(256)))
    run("trace", str(tmp_path / "binary.md"), *looked, fails=2)
    (tmp_path / "empty.txt").write_text("\n")
    run("trace", str(tmp_path / "empty.txt"), *looked, fails=2)
    looked += ["--provider", str(provider), "--detector", made["detector_hash"]]
    assert run("trace", str(text), *looked) == found
    other = tmp_path / "other"
    other.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, other)
    (other / "tokenizer.json").write_text((TINY / "tokenizer.json").read_text() + "\n")
    looked[looked.index(str(TINY))] = str(other)
    run("trace", str(text), *looked, fails=3)
    assert run("trace", str(text), *looked[:-2])["found"] is True  # read alike, though it is another file
    if method == "binplus":
        run("trace", str(text), *looked, "--bits", "64", fails=3)
    run("trace", str(text), "--model-key", str(key), "--tokenizer", str(TINY), fails=3)
    run("mark", "text", str(TINY), *words, "--prompt-file", str(plain), fails=3)


def test_a_generator_tells_how_many_tokens_are_written() -> None:
    said: list[tuple[int, int]] = []
    TransformersGenerator(TINY).generate(
        "The", ZeroBit(MODEL_KEY).processor(), top_k=50, max_new_tokens=5, min_new_tokens=5, seed=1,
        progress=lambda done, total: said.append((done, total)),
    )  # fmt: skip
    assert said == [(done, 5) for done in range(5)]


def test_the_license_of_a_copy_shows_in_what_it_writes(
    world: World, run: Run, sold: Any, tmp_path: Path
) -> None:
    key, spec, copy, text = (tmp_path / name for name in ("model.key", "gsw.json", "copy", "said.txt"))
    save_key(key, KeyKind.TRACE, MODEL_KEY, unsafe_plain=True)
    given = ["--spec", str(spec), "--model-key", str(key), "--epsilon", "0.8"]
    made = run("mark", "writer", str(TINY), str(copy), *given, "--license", str(sold.second))
    assert made["license_id"] == sold.second
    run("mark", "writer", str(TINY), str(copy), *given, "--license", str(sold.second), fails=2)
    words = ["--method", "unigram", "--strength", "0", "--tokens", "400", "--at-least", "400"]
    words += ["--seed", "3", "--temperature", "1"]
    run("mark", "text", str(copy), "--prompt", "The", "--model-key", str(key), *words, "--out", str(text))
    looked = ["--model-key", str(key), "--tokenizer", str(TINY), "--writer", f"{world.model_id}={spec}"]
    found = run("trace", str(text), *looked, "--full")
    assert (found["found"], found["method"], found["license_id"]) == (True, "gsw-2", sold.second)
    assert found["detection"]["hypotheses"] == len(licenses_of(world.as_("creator"), world.model_id))


def picture() -> Image.Image:
    """Of 400 x 320 px, with texture enough for a mark."""
    rows, columns = np.mgrid[0:320, 0:400]
    ripples = sum(np.sin((rows * a + columns * b) / 9) for a, b in ((1, 3), (4, 1), (2, -5), (7, 2)))
    grain = np.random.default_rng(1).normal(0, 12, (320, 400))
    return Image.fromarray(np.clip(128 + 18 * ripples + grain, 0, 255).astype(np.uint8)).convert("RGB")


def test_a_picture_marked_by_hand_is_traced(run: Run, tmp_path: Path) -> None:
    key, found = tmp_path / "model.key", tmp_path / "found"
    save_key(key, KeyKind.TRACE, MODEL_KEY, unsafe_plain=True)
    plain = tmp_path / "plain.png"
    picture().save(plain)
    found.mkdir()
    words = ["--model-key", str(key), "--user", "7", "--fingerprint", "123"]
    run("mark", "image", str(plain), str(found / "marked.jpg"), *words, "--quality", "90")
    run("mark", "image", str(plain), str(found / "marked.jpg"), *words, fails=2)  # never over anything
    run("mark", "image", str(plain), str(tmp_path / "marked.xyz"), *words, fails=2)
    looked = ["--model-key", str(key), "--fingerprint", "123", "--fingerprint", "4567890"]
    assert run("trace", str(found / "marked.jpg"), "--model-key", str(key))["decision"] == "inconclusive"
    told = run("trace", str(found / "marked.jpg"), *looked)
    assert (told["found"], told["user_number"], told["fingerprint"]) == (True, 7, 123)
    shutil.copy(plain, found / "plain.png")
    (found / "cut.png").write_bytes(plain.read_bytes()[:2000])
    rows_told = run("trace", str(found), *looked, fails=2)
    assert [(Path(row["file"]).name, row["found"]) for row in rows_told] == [
        ("cut.png", None),
        ("marked.jpg", True),
        ("plain.png", False),
    ]
    run("trace", str(plain), fails=3)


def test_a_folder_of_pictures_is_marked_one_by_one(run: Run, tmp_path: Path) -> None:
    key, folder, out = tmp_path / "model.key", tmp_path / "photos", tmp_path / "marked"
    save_key(key, KeyKind.TRACE, MODEL_KEY, unsafe_plain=True)
    folder.mkdir()
    for name in ("b.bmp", "c.jpg", "e.PNG"):
        picture().save(folder / name)
    (folder / "a.png").write_bytes((folder / "e.PNG").read_bytes()[:2000])
    picture().save(folder / "b.bmp.png")  # a name that b.bmp takes
    (folder / "d.png").symlink_to(folder / "e.PNG")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "inner").mkdir()
    words = ["mark", "image", str(folder), str(out), "--model-key", str(key), "--user", "7"]
    words += ["--fingerprint", "123"]
    rows = run(*words, fails=2)
    assert [(Path(row["file"]).name, row["marked"] and Path(row["marked"]).name) for row in rows] == [
        ("a.png", None),
        ("b.bmp", "b.bmp.png"),
        ("b.bmp.png", None),
        ("c.jpg", "c.jpg"),
        ("e.PNG", "e.PNG"),
    ]
    assert "malformed" in rows[0]["error"]
    assert "rename" in rows[2]["error"]
    made = sorted(path for path in out.iterdir())
    assert [path.name for path in made] == ["b.bmp.png", "c.jpg", "e.PNG"]
    traced = run("trace", str(out), "--model-key", str(key), "--fingerprint", "123")
    assert [(row["found"], row["user_number"]) for row in traced] == [(True, 7)] * 3
    run(*words, fails=2)  # never into a folder that is there
    assert [path.stat().st_mtime_ns for path in made] == [
        path.stat().st_mtime_ns for path in sorted(out.iterdir())
    ]
    words[2:4] = [str(folder / "inner"), str(tmp_path / "none")]
    run(*words, fails=2)
    assert not (tmp_path / "none").exists()
    whole = tmp_path / "whole"
    whole.mkdir()
    picture().save(whole / "c.png")
    words[2:4] = [str(whole), str(tmp_path / "all")]
    assert [Path(row["marked"]).name for row in run(*words)] == ["c.png"]


def test_users_are_added_and_dropped_by_command(run: Run, tmp_path: Path) -> None:
    home = str(tmp_path / "provider")
    first = run("provider", "add-user", "ana", "--home", home)
    assert first["number"] == 1
    assert len(first["token"]) > 40
    run("provider", "add-user", "ana", "--home", home, fails=2)
    assert run("provider", "drop-user", "ana", "--home", home) == {"name": "ana", "active": False}
    run("provider", "drop-user", "nobody", "--home", home, fails=4)
    assert run("provider", "anchor", "--model-id", "3", "--home", home) == {"anchored": 0}


def test_a_wrong_kit_is_refused_by_command(world: World, run: Run, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    other = weights.TraceKit.derive(b"\7" * 32, world.registered.spec)
    (tmp_path / "kit.json").write_text(other.to_json())
    (tmp_path / "range.json").write_text(json.dumps(world.registered.declared.to_json()))
    run("fingerprint", "init", "--home", home)
    words = ["fingerprint", "add-model", str(world.model_id), str(world.registered.folder)]
    run(
        *words,
        "--kit",
        str(tmp_path / "kit.json"),
        "--range",
        str(tmp_path / "range.json"),
        "--home",
        home,
        fails=5,
    )
    assert address_of("fingerprinter")
