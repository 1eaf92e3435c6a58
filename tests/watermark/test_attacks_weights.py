"""The attacks on weights do what they say, change no file of the caller, and keep the function where they claim to."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Array, to_bf16, write_tensors

from zhiyi_watermark.attacks import weights as attacks
from zhiyi_watermark.attacks.weights import Heads, Leg
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.tensorfile import Checkpoint

HEADS = Heads(4, 2, 8)


def floats(path: Path) -> dict[str, Array]:
    with Checkpoint(path) as found:
        return {e.name: found.floats(e.name, e.shape).reshape(e.shape) for e in found if e.dtype != "I8"}


def matrices(path: Path) -> dict[str, Array]:
    return {name: values for name, values in floats(path).items() if values.ndim == 2}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    tensors = {
        "a.weight": rng.normal(0, 0.05, (48, 64)).astype(np.float32),
        "b.weight": rng.standard_t(3, (32, 96)).astype(np.float32),
        "norm.weight": np.ones(64, dtype=np.float32),
        "ids": np.arange(64, dtype=np.int8).reshape(8, 8),
    }
    return write_tensors(tmp_path / "source.safetensors", tensors)


def relative(before: Array, after: Array) -> float:
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


ATTACKS: dict[str, Callable[[Path, Path], None]] = {
    "prune": lambda s, o: attacks.prune(s, o, 0.6),
    "noise": lambda s, o: attacks.noise(s, o, 0.1, seed=1),
    "int8": lambda s, o: attacks.quantise(s, o, 8),
    "int4": lambda s, o: attacks.quantise(s, o, 4, group=32),
    "lora": lambda s, o: attacks.merge_lora(s, o, 0.1, seed=1),
    "average": lambda s, o: attacks.collude([s, s], o, "average"),
    "reshuffle": lambda s, o: attacks.reshuffle(s, o, HEADS, seed=1),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_writes_a_new_file_only_and_the_same_each_time(
    name: str, source: Path, tmp_path: Path
) -> None:
    before = source.read_bytes()
    ATTACKS[name](source, tmp_path / "1")
    ATTACKS[name](source, tmp_path / "2")
    assert source.read_bytes() == before
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert len((tmp_path / "1").read_bytes()) == len(before)
    with pytest.raises(SpecError, match="exists"):
        ATTACKS[name](source, tmp_path / "1")
    made = matrices(tmp_path / "1")
    with Checkpoint(source) as old, Checkpoint(tmp_path / "1") as new:
        for untouched in ("norm.weight", "ids"):
            assert old.raw(untouched) == new.raw(untouched)
    assert set(made) == {"a.weight", "b.weight"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "source.safetensors"]


def test_shards_in_any_order_are_attacked_alike(source: Path, tmp_path: Path) -> None:
    with Checkpoint(source) as found:
        a, b = (found.floats(n, s).reshape(s) for n, s in (("a.weight", (48, 64)), ("b.weight", (32, 96))))
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tensors(folder / "1.safetensors", {"b.weight": b})
    write_tensors(folder / "2.safetensors", {"a.weight": a})
    (folder / "config.json").write_text("{}")
    attacks.noise(folder, tmp_path / "out", 0.1, seed=1)
    attacks.noise(source, tmp_path / "one", 0.1, seed=1)
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    sharded, whole = floats(tmp_path / "out"), matrices(tmp_path / "one")
    assert all((sharded[n] == whole[n]).all() for n in whole)


def test_a_malformed_file_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04" + bytes(100))
    with pytest.raises(CarrierError):
        attacks.prune(tmp_path / "x.safetensors", tmp_path / "out", 0.5)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_pruning_zeroes_the_smallest(source: Path, tmp_path: Path) -> None:
    attacks.prune(source, tmp_path / "out", 0.6)
    before, after = matrices(source), matrices(tmp_path / "out")
    for name, values in after.items():
        assert (values == 0).mean() == pytest.approx(0.6, abs=1e-3)
        kept = values != 0
        assert (values[kept] == before[name][kept]).all()
        assert np.abs(before[name][~kept]).max() <= np.abs(before[name][kept]).min()
    with pytest.raises(SpecError, match="share"):
        attacks.prune(source, tmp_path / "none", 1)


def test_noise_and_low_rank_updates_have_the_size_asked(source: Path, tmp_path: Path) -> None:
    attacks.noise(source, tmp_path / "noise", 0.2, seed=1)
    attacks.merge_lora(source, tmp_path / "lora", 0.2, rank=3, seed=1, where=lambda n: n.startswith("a"))
    before, noisy, merged = (matrices(p) for p in (source, tmp_path / "noise", tmp_path / "lora"))
    for name in before:
        assert relative(before[name], noisy[name]) == pytest.approx(0.2, rel=0.05)
    assert relative(before["a.weight"], merged["a.weight"]) == pytest.approx(0.2, rel=1e-3)
    assert np.linalg.matrix_rank(merged["a.weight"] - before["a.weight"], tol=1e-4) == 3
    assert (merged["b.weight"] == before["b.weight"]).all()


@pytest.mark.parametrize("grid", ["absmax", "minmax"])
@pytest.mark.parametrize(("bits", "group", "width"), [(8, None, 64), (4, 32, 32), (3, 16, 16), (4, 7, 64)])
def test_rounding_leaves_few_values_each_near_its_own(
    grid: Any, bits: int, group: int | None, width: int, source: Path, tmp_path: Path
) -> None:
    attacks.quantise(source, tmp_path / "out", bits, group=group, grid=grid, where=lambda n: n[0] == "a")
    before = floats(source)["a.weight"].reshape(-1, width)
    after = floats(tmp_path / "out")["a.weight"].reshape(-1, width)
    reach = np.abs(before).max(axis=1) * 2 if grid == "absmax" else np.ptp(before, axis=1)
    steps = 2**bits - (2 if grid == "absmax" else 1)
    assert (np.abs(after - before).max(axis=1) <= reach / steps / 2 * 1.001).all()
    assert max(len(np.unique(row)) for row in after) <= steps + 1
    again = tmp_path / "again"
    attacks.quantise(tmp_path / "out", again, bits, group=group, grid=grid, where=lambda n: n[0] == "a")
    assert np.allclose(floats(again)["a.weight"].reshape(-1, width), after, atol=1e-6)


def test_rounding_refuses_one_bit_and_survives_zeros(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "x", {"a.weight": np.zeros((4, 8), dtype=np.float32)})
    attacks.quantise(path, tmp_path / "out", 4)
    assert not floats(tmp_path / "out")["a.weight"].any()
    with pytest.raises(SpecError, match="bits"):
        attacks.quantise(path, tmp_path / "no", 1)


def test_a_change_is_carried_over_to_another_copy(source: Path, tmp_path: Path) -> None:
    attacks.noise(source, tmp_path / "tuned", 0.1, seed=1)
    attacks.prune(source, tmp_path / "other", 0.5)
    attacks.add_change(tmp_path / "other", tmp_path / "out", source, tmp_path / "tuned")
    old, tuned, other, out = (
        matrices(p) for p in (source, tmp_path / "tuned", tmp_path / "other", tmp_path / "out")
    )
    for name in old:
        assert np.allclose(out[name], other[name] + (tuned[name] - old[name]), atol=1e-6)


# --- collusion ---


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    """Three copies of one tensor, 1 or -1 added everywhere."""
    base = np.linspace(10, 20, 64, dtype=np.float32).reshape(8, 8)
    rng = np.random.default_rng(2)
    return [
        write_tensors(tmp_path / f"{i}", {"w": base + rng.choice([-1, 1], (8, 8)).astype(np.float32)})
        for i in range(3)
    ]


def test_strategies_of_colluders(copies: list[Path], tmp_path: Path) -> None:
    stack = np.stack([floats(p)["w"] for p in copies])
    for how in ("average", "majority", "minority", "interleave"):
        attacks.collude(copies, tmp_path / how, how, seed=3)  # type: ignore[arg-type]  # of the literal
    average, majority, minority, mixed = (
        floats(tmp_path / how)["w"] for how in ("average", "majority", "minority", "interleave")
    )
    assert np.allclose(average, stack.mean(axis=0))
    assert np.allclose(majority, np.median(stack, axis=0))
    differ = np.ptp(stack, axis=0) > 0
    assert (minority != majority)[differ].all()
    assert (minority == majority)[~differ].all()
    assert (mixed == stack).any(axis=0).all()
    shares = [(mixed == s)[differ].mean() for s in stack]
    assert all(0.3 < share < 0.95 for share in shares)
    attacks.collude(copies, tmp_path / "runs", "interleave", seed=3, unit=16)
    runs = floats(tmp_path / "runs")["w"].reshape(4, 16)
    whole = [(runs == s.reshape(4, 16)).all(axis=1) for s in stack]
    assert np.any(whole, axis=0).all()


def test_one_copy_and_unlike_copies_do_not_collude(copies: list[Path], source: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="two copies"):
        attacks.collude(copies[:1], tmp_path / "out", "average")
    with pytest.raises(UnavailableError):
        attacks.collude([copies[0], source], tmp_path / "out", "average")


# --- the function ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with shared keys, in fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    made: Any = LlamaForCausalLM(  # type: ignore[no-untyped-call]  # transformers
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, tie_word_embeddings=True, pad_token_id=0,
        )
    )  # fmt: skip
    for name, values in made.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(values, 0.5, 1.5)
        else:
            torch.nn.init.normal_(values, 0, 0.2)
    folder = tmp_path_factory.mktemp("model") / "model"
    made.save_pretrained(folder)
    return folder


def logits(folder: Path) -> Array:
    import torch

    with torch.no_grad():
        found: Array = attacks._load(folder)(input_ids=torch.arange(1, 41).reshape(2, 20)).logits.numpy()
    return found


@pytest.mark.parametrize("residual", [False, True])
def test_reshuffled_weights_compute_the_same(residual: bool, model: Path, tmp_path: Path) -> None:
    heads = Heads.of(model)
    assert heads == HEADS
    attacks.reshuffle(model, tmp_path / "out", heads, seed=5, residual=residual)
    before, after = floats(model), floats(tmp_path / "out")
    touched = {n.split(".")[-2] for n in before if not np.allclose(before[n], after[n])}
    expected = {"gate_proj", "up_proj", "down_proj", "q_proj", "k_proj", "v_proj", "o_proj"}
    norms = {"input_layernorm", "post_attention_layernorm", "norm", "embed_tokens"}
    assert touched == (expected | norms if residual else expected)
    for name in before:
        if name.split(".")[-2] in expected:
            assert relative(before[name], after[name]) > 0.5
    assert np.abs(logits(tmp_path / "out") - logits(model)).max() < 1e-4 * np.abs(logits(model)).max()


def test_what_cannot_be_reshuffled_is_said(tmp_path: Path) -> None:
    path = write_tensors(
        tmp_path / "x", {"model.layers.0.self_attn.q_proj.bias": np.ones(32, dtype=np.float32)}
    )
    with pytest.raises(UnavailableError, match="biases"):
        attacks.reshuffle(path, tmp_path / "out", HEADS, seed=1)
    with pytest.raises(UnavailableError, match=r"config\.json"):
        Heads.of(tmp_path)
    with pytest.raises(SpecError, match="attention"):
        Heads(9, 2, 64)


# --- training ---


def test_fine_tuning_stops_at_the_changes_asked_and_learns(model: Path, tmp_path: Path) -> None:
    text = [1 + (3 * i) % 50 for i in range(400)]
    watched = ["model.layers.0.mlp.down_proj.weight"]
    legs = [Leg(0.02, 1e-3, tmp_path / "2"), Leg(0.05, 3e-3, tmp_path / "5")]
    seen: list[attacks.Tuned] = []
    stages = attacks.finetune(model, legs, text, watched=watched, seed=1, length=16, progress=seen.append)
    assert [len(legs), stages[-1]] == [len(stages), seen[-1]]
    before = floats(model)
    for stage, leg in zip(stages, legs, strict=True):
        tuned = floats(leg.out)
        assert leg.relative_change <= stage.relative_change < leg.relative_change + 0.02
        assert relative(before[watched[0]], tuned[watched[0]]) == pytest.approx(
            stage.relative_change, rel=1e-4
        )
        assert set(tuned) == set(before)
    assert stages[1].loss < seen[0].loss


def test_fine_tuning_may_leave_most_weights_alone(model: Path, tmp_path: Path) -> None:
    text = [1 + (3 * i) % 50 for i in range(400)]
    name = "model.layers.1.mlp.up_proj.weight"
    attacks.finetune(
        model, [Leg(0.01, 3e-3, tmp_path / "x")], text, watched=[name], seed=1, length=16, trained=name.__eq__
    )
    before, after = floats(model), floats(tmp_path / "x")
    assert [n for n in before if (before[n] != after[n]).any()] == [name]


def test_fine_tuning_may_stop_after_a_number_of_steps(model: Path, tmp_path: Path) -> None:
    text = [1 + (3 * i) % 50 for i in range(400)]
    watched = ["model.layers.0.mlp.down_proj.weight"]
    legs = [Leg(math.inf, 1e-3, tmp_path / "a", 2), Leg(1e-9, 1e-3, tmp_path / "b", 9)]
    stages = attacks.finetune(model, legs, text, watched=watched, seed=1, length=16)
    assert [stage.steps for stage in stages] == [2, 3]  # the second is ended by its change
    with pytest.raises(SpecError, match="max_steps"):
        attacks.finetune(model, [legs[0]._replace(out=tmp_path / "c")], text, watched=watched, seed=1, length=16,
                         max_steps=1)  # fmt: skip


def test_what_cannot_be_fine_tuned_is_said(model: Path, tmp_path: Path) -> None:
    leg = Leg(0.5, 1e-5, tmp_path / "x")
    name = "model.layers.0.mlp.down_proj.weight"
    with pytest.raises(SpecError, match="max_steps"):
        attacks.finetune(model, [leg], [1, 2, 3] * 9, watched=[name], seed=1, length=16, max_steps=2)
    with pytest.raises(UnavailableError, match="nowhere"):
        attacks.finetune(model, [leg], [1, 2], watched=["nowhere"], seed=1)
    with pytest.raises(SpecError, match="tokens"):
        attacks.finetune(model, [leg], [1, 2], watched=[name], seed=1)
    assert not (tmp_path / "x").exists()


def test_a_student_is_made_anew_and_learns_from_the_outputs(model: Path, tmp_path: Path) -> None:
    text = [1 + (3 * i) % 50 for i in range(400)]
    sizes = {"num_hidden_layers": 1, "intermediate_size": 40}
    losses = [
        attacks.distil(
            model, tmp_path / str(n), sizes, text, seed=1, steps=n, batch=4, length=16, lr=3e-3
        )
        for n in (1, 60)
    ]  # fmt: skip
    assert losses[1] < losses[0]
    student = floats(tmp_path / "60")
    assert "model.layers.1.mlp.down_proj.weight" not in student
    assert student["model.layers.0.mlp.down_proj.weight"].shape == (32, 40)
    with pytest.raises(SpecError, match="no field"):
        attacks.distil(model, tmp_path / "x", {"layers": 1}, text, seed=1, steps=1)


def test_a_folder_of_pickles_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UnavailableError, match="safetensors"):
        attacks._load(tmp_path)


def test_bf16_is_attacked_in_its_own_type(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(0, 1, (8, 32)).astype(np.float32)
    path = write_tensors(tmp_path / "x", {"w": to_bf16(values)})
    attacks.noise(path, tmp_path / "out", 0.5, seed=1)
    with Checkpoint(tmp_path / "out") as found:
        assert found.entry("w").dtype == "BF16"
