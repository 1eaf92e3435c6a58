"""WFP on a small synthetic model: what survives, who is named, who never is, and hostile suspects."""

from __future__ import annotations

import hashlib
import json
import math
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Array, from_bf16, to_bf16, write_tensors

from zhiyi_watermark import prf, stats, weights
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.result import Detection
from zhiyi_watermark.tensorfile import Checkpoint
from zhiyi_watermark.weights import TraceKit, WfpSpec

MODEL_KEY = hashlib.sha256(b"model key").digest()
LICENSES = [(7 << 28) | i for i in range(300)]
GUILTY = LICENSES[42]
SHARE = 2


def seeds_of(license_id: int, spec: WfpSpec) -> list[bytes]:
    return [hashlib.sha256(f"{license_id} {i}".encode()).digest() for i in range(spec.shares)]


def floats(path: Path) -> dict[str, Array]:
    with Checkpoint(path) as found:
        return {e.name: found.floats(e.name, e.shape).reshape(e.shape) for e in found}


@pytest.fixture(scope="module")
def spec(base_file: Path) -> WfpSpec:
    return weights.plan(
        base_file, epsilon=0.04, code_bits=512, weights_per_bit=640, shares=4, weights_per_share=16384
    )


@pytest.fixture(scope="module")
def kit(spec: WfpSpec) -> TraceKit:
    return TraceKit.derive(MODEL_KEY, spec)


@pytest.fixture(scope="module")
def copies(
    base_file: Path, spec: WfpSpec, kit: TraceKit, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Copies of licenses 42, 43, 44."""
    folder = tmp_path_factory.mktemp("copies")
    out = []
    for license_id in LICENSES[42:45]:
        out.append(folder / f"{license_id}.safetensors")
        weights.mark(base_file, out[-1], spec, kit.trace_key, license_id, seeds_of(license_id, spec))
    return out


@pytest.fixture(scope="module")
def base_only(base_file: Path, spec: WfpSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("base-only") / "base.safetensors"
    weights.extract_base(base_file, spec, out)
    return out


def confirm(suspect: Path, base: Path, spec: WfpSpec, license_id: int = GUILTY) -> Detection:
    return weights.confirm(suspect, base, spec, SHARE, seeds_of(license_id, spec)[SHARE])


# --- the plan ---


def test_the_plan_fits_the_declared_range(base_file: Path, spec: WfpSpec) -> None:
    with Checkpoint(base_file) as found:
        entries = list(found)
        total = found.data_bytes
    declared = {t.name for t in spec.tensors}
    runs = sum(
        e.name in declared and (i == 0 or entries[i - 1].name not in declared) for i, e in enumerate(entries)
    )
    assert runs <= 8
    assert sum(e.end - e.start for e in entries if e.name in declared) <= total / 4
    assert spec.blocks >= spec.blocks_needed
    assert not any("embed" in n or "norm" in n for n in declared)


def test_a_model_too_small_for_the_marks_is_refused(base_file: Path) -> None:
    with pytest.raises(SpecError, match="24 %"):
        weights.plan(base_file)


def test_the_regions_of_all_marks_are_disjoint(spec: WfpSpec, kit: TraceKit) -> None:
    trace = set(weights._choose_trace(kit.trace_key, spec).block.tolist())
    parts = [set(weights._choose_share(s, spec, i).block.tolist()) for i, s in enumerate(seeds_of(1, spec))]
    assert len(trace) == spec.trace_blocks
    assert all(len(p) == spec.share_blocks for p in parts)
    assert len(trace.union(*parts)) == spec.blocks_needed


def test_spec_and_kit_survive_json_and_pin_the_detector(spec: WfpSpec, kit: TraceKit) -> None:
    assert WfpSpec.from_json(spec.to_json()) == spec
    assert TraceKit.from_json(kit.to_json()) == kit
    assert len(kit.commitment()) == 32
    assert replace(spec, epsilon=0.05).spec_hash() != spec.spec_hash()
    assert TraceKit.derive(MODEL_KEY, replace(spec, epsilon=0.05)).trace_key != kit.trace_key
    assert kit.trace_key.hex() not in repr(kit)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"tensors":3}', '{"tensors":[["a",[64]]],"epsilon":0.02,"x":1}']
)
def test_other_json_is_no_spec_and_no_kit(text: str) -> None:
    with pytest.raises(SpecError):
        WfpSpec.from_json(text)
    with pytest.raises(SpecError):
        TraceKit.from_json(text)


# --- marking ---


def test_marking_changes_nothing_but_the_declared_tensors(
    base_file: Path, copies: list[Path], spec: WfpSpec
) -> None:
    before, after = base_file.read_bytes(), copies[0].read_bytes()
    assert len(before) == len(after)
    declared = {t.name for t in spec.tensors}
    with Checkpoint(base_file) as found:
        first = min(e.start for e in found)
        assert before[:first] == after[:first]
        for entry in found:
            same = before[entry.start : entry.end] == after[entry.start : entry.end]
            assert same == (entry.name not in declared)


def test_marking_is_deterministic_and_reports_what_it_did(
    base_file: Path, copies: list[Path], spec: WfpSpec, kit: TraceKit, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    report = weights.mark(
        base_file, tmp_path / "again.safetensors", spec, kit.trace_key, GUILTY, seeds_of(GUILTY, spec),
        lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert (tmp_path / "again.safetensors").read_bytes() == copies[0].read_bytes()
    assert seen[-1] == (len(spec.tensors), len(spec.tensors))
    measured = weights.relative_change(copies[0], base_file, spec)
    assert report.relative_change == pytest.approx(measured)
    assert 0.01 < report.max_relative_change < 0.04
    assert report.positions == pytest.approx(spec.blocks_needed * weights.BLOCK, rel=1e-3)


def test_rounding_never_eats_the_mark(
    base_file: Path, copies: list[Path], spec: WfpSpec, kit: TraceKit
) -> None:
    base, marked = floats(base_file), floats(copies[0])
    code = weights.codeword(kit.trace_key, GUILTY, spec.code_bits)
    trace = weights._choose_trace(kit.trace_key, spec)
    shares = [weights._choose_share(s, spec, i) for i, s in enumerate(seeds_of(GUILTY, spec))]
    for tensor, low, high in weights._slices(spec):
        wanted = weights._directions(low, high, trace, code, shares)
        change = (marked[tensor.name] - base[tensor.name]).reshape(-1)[: wanted.size].reshape(wanted.shape)
        assert (np.sign(change) == wanted)[base[tensor.name].reshape(wanted.shape) != 0].all()


def test_wrong_arguments_are_refused(base_file: Path, spec: WfpSpec, kit: TraceKit, tmp_path: Path) -> None:
    good = seeds_of(GUILTY, spec)
    for seeds in (good[:-1], [good[0]] * spec.shares):
        with pytest.raises(SpecError, match="seeds"):
            weights.mark(base_file, tmp_path / "x", spec, kit.trace_key, GUILTY, seeds)
    with pytest.raises(SpecError, match="exists"):
        weights.mark(base_file, base_file, spec, kit.trace_key, GUILTY, good)
    with pytest.raises(SpecError):
        weights.mark(base_file, tmp_path / "x", spec, kit.trace_key, -1, good)
    with pytest.raises(SpecError):
        weights.confirm(base_file, base_file, spec, spec.shares, good[0])
    with pytest.raises(SpecError):
        weights.trace(base_file, kit, [])
    assert not (tmp_path / "x").exists()


# --- detection under attack ---


def noise(t: Array, sigma: float) -> Array:
    rng = np.random.default_rng(9)
    moved: Array = t + rng.normal(0, sigma * t.std(), t.shape).astype(np.float32)
    return moved


def prune(t: Array, part: float) -> Array:
    return np.where(np.abs(t) < np.quantile(np.abs(t), part), np.float32(0), t)


def fake_quantise(t: Array, bits: int, group: int) -> Array:
    flat = t.reshape(-1, group)
    scale = np.abs(flat).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    rounded: Array = np.rint(flat / np.maximum(scale, 1e-12)) * scale
    return rounded.reshape(t.shape).astype(np.float32)


def drift(t: Array, size: float) -> Array:
    """Like fine-tuning: a smooth low-rank move plus a little noise, of relative size `size`."""
    rng = np.random.default_rng(5)
    low = rng.normal(size=(t.shape[0], 4)) @ rng.normal(size=(4, t.shape[1]))
    move = low / np.linalg.norm(low) + 0.5 * rng.normal(size=t.shape) / math.sqrt(t.size)
    moved: Array = t + size * np.linalg.norm(t) * move / np.linalg.norm(move)
    return moved.astype(np.float32)


ATTACKS: dict[str, Callable[[Array], Array]] = {
    "none": lambda t: t,
    "noise 5 %": lambda t: noise(t, 0.05),
    "noise 20 %": lambda t: noise(t, 0.2),
    "fine-tune 5 %": lambda t: drift(t, 0.05),
    "prune 60 %": lambda t: prune(t, 0.6),
    "int8": lambda t: fake_quantise(t, 8, t.shape[1]),
    "int4": lambda t: fake_quantise(t, 4, 32),
    "sign kept, 4 bits of mantissa": lambda t: from_bf16(to_bf16(t) & 0xFFF8),
}


def attacked(path: Path, attack: Any, out: Path, dtype: str = "float32") -> Path:
    tensors = {n: attack(t) if t.ndim == 2 else t for n, t in floats(path).items()}
    return write_tensors(
        out, {n: to_bf16(t) if dtype == "bf16" else t.astype(dtype) for n, t in tensors.items()}
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_a_leaked_copy_is_traced_blind_and_confirmed_by_one_share(
    name: str, copies: list[Path], base_only: Path, spec: WfpSpec, kit: TraceKit, tmp_path: Path
) -> None:
    suspect = attacked(copies[0], ATTACKS[name], tmp_path / "leak.safetensors", "bf16")
    found = weights.trace(suspect, kit, LICENSES)
    assert (found.decision, found.license, found.also) == ("detected", GUILTY, ())
    assert found.log2_p_global < math.log2(1e-6)
    proof = confirm(suspect, base_only, spec)
    assert proof.decision == "detected"
    assert proof.bucket >= 12
    innocent = confirm(suspect, base_only, spec, LICENSES[43])
    assert innocent.decision == "not_detected"


def shuffle(t: Array, axis: int, *, scaled: bool = True) -> Array:
    """Lines permuted, scaled between 1/3 and 3 and flipped, as the function-preserving attack does."""
    rng = np.random.default_rng(13)
    n = t.shape[axis]
    factor = np.exp(rng.uniform(-1.1, 1.1, n) * scaled) * rng.choice([-1, 1], n)
    moved: Array = np.take(t, rng.permutation(n), axis=axis) * np.expand_dims(factor, 1 - axis)
    return moved.astype(np.float32)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("then", ["none", "fine-tune 5 %", "int4"])
def test_permuted_scaled_and_flipped_lines_are_put_back(
    axes: tuple[int, ...],
    then: str,
    copies: list[Path],
    base_only: Path,
    spec: WfpSpec,
    kit: TraceKit,
    tmp_path: Path,
) -> None:
    declared = {t.name for t in spec.tensors}
    tensors = floats(copies[0])
    for name in declared:
        tensors[name] = ATTACKS[then](tensors[name])
        for (
            axis
        ) in axes:  # rows (axis 0) stand for channels between layers, which can't be scaled if columns are
            tensors[name] = shuffle(tensors[name], axis, scaled=axes == (0,) or axis == 1)
    suspect = write_tensors(tmp_path / "turned.safetensors", {n: to_bf16(t) for n, t in tensors.items()})
    assert confirm(suspect, base_only, spec).decision == "detected"
    assert confirm(suspect, base_only, spec, LICENSES[43]).decision == "not_detected"
    found = weights.trace(suspect, kit, LICENSES, base=base_only)
    assert (found.decision, found.license) == ("detected", GUILTY)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bf16"])
def test_a_resaved_or_sharded_copy_gives_the_same_statistic(
    dtype: str, copies: list[Path], base_only: Path, spec: WfpSpec, kit: TraceKit, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    tensors = floats(copies[0])
    names = sorted(tensors, reverse=True)
    for i in range(3):
        stored = {
            n: to_bf16(tensors[n]) if dtype == "bf16" else tensors[n].astype(dtype) for n in names[i::3]
        }
        write_tensors(folder / f"model-{i}.safetensors", stored)
    found, original = weights.trace(folder, kit, LICENSES), weights.trace(copies[0], kit, LICENSES)
    assert found.license == GUILTY
    if dtype != "float16":  # fp16 rounds bf16's smallest values away
        assert (found.T, found.n, found.sum_q2) == (original.T, original.n, original.sum_q2)
        again = confirm(folder, base_only, spec)
        assert again.digest(kit.kit_key) == confirm(copies[0], base_only, spec).digest(kit.kit_key)


@pytest.mark.parametrize("how", ["average", "minority", "majority", "interleave"])
def test_three_colluders_name_one_of_them_and_nobody_else(
    how: str, copies: list[Path], base_only: Path, kit: TraceKit, tmp_path: Path
) -> None:
    parts = [floats(c) for c in copies]
    rng = np.random.default_rng(8)
    mixed: dict[str, Array] = {}
    for name in parts[0]:
        stack = np.stack([p[name] for p in parts])
        if how == "average":
            mixed[name] = stack.mean(axis=0)
        elif how == "majority":
            mixed[name] = np.median(stack, axis=0)
        elif how == "minority":
            middle = np.median(stack, axis=0)
            far = np.abs(stack - middle).argmax(axis=0)
            mixed[name] = np.take_along_axis(stack, far[None], axis=0)[0]
        else:
            mixed[name] = np.take_along_axis(stack, rng.integers(0, 3, stack.shape[1:])[None], axis=0)[0]
    suspect = write_tensors(tmp_path / "mix.safetensors", {n: t.astype(np.float32) for n, t in mixed.items()})
    found = weights.trace(suspect, kit, LICENSES, base=base_only)
    assert found.decision == "detected"
    assert {found.license, *found.also} <= set(LICENSES[42:45])


def test_an_unmarked_model_names_nobody(
    base_file: Path, base_only: Path, spec: WfpSpec, kit: TraceKit
) -> None:
    assert weights.trace(base_file, kit, LICENSES).decision == "not_detected"
    assert weights.model_present(base_file, kit, LICENSES).decision == "not_detected"
    assert confirm(base_file, base_only, spec).decision == "not_detected"


def test_another_models_kit_names_nobody(copies: list[Path], spec: WfpSpec) -> None:
    other = TraceKit.derive(hashlib.sha256(b"another").digest(), spec)
    found = weights.trace(copies[0], other, LICENSES)
    assert (found.decision, found.license) == ("not_detected", None)
    assert weights.model_present(copies[0], other, LICENSES).decision == "not_detected"


def test_innocent_licenses_never_pass_at_bit_level_but_do_at_chip_level(
    copies: list[Path], kit: TraceKit
) -> None:
    """Hypothesis (a) says the model's key is there - for any codeword; only (b) may name."""
    innocents = [x for x in range(20_000) if x != GUILTY]
    found = weights.trace(copies[0], kit, innocents)
    assert found.decision != "detected"
    assert found.license is None
    present = weights.model_present(copies[0], kit, innocents[:50])
    assert (present.decision, present.license) == ("detected", None)


def test_the_innocents_p_values_follow_their_law(copies: list[Path], kit: TraceKit) -> None:
    p = np.array([2.0 ** weights.trace(copies[0], kit, [x]).log2_p for x in range(80)])
    for level in (0.5, 0.1):
        assert (p <= level).mean() <= level + 4 * math.sqrt(level * (1 - level) / len(p))
    assert (p <= 0.5).mean() > 0.3


def test_unopened_seeds_p_values_follow_the_bound(copies: list[Path], base_only: Path, spec: WfpSpec) -> None:
    p = np.array([
        2.0 ** weights.confirm(copies[0], base_only, spec, 0, hashlib.sha256(bytes([i])).digest()).log2_p
        for i in range(100)
    ])  # fmt: skip
    assert (p <= 0.1).mean() <= 0.1
    assert p.min() > 1e-6


def test_a_share_convicts_only_at_its_own_index_and_spec(
    copies: list[Path], base_only: Path, spec: WfpSpec
) -> None:
    seed = seeds_of(GUILTY, spec)[SHARE]
    assert weights.confirm(copies[0], base_only, spec, SHARE, seed).decision == "detected"
    assert weights.confirm(copies[0], base_only, spec, SHARE + 1, seed).decision == "not_detected"
    assert (
        weights.confirm(copies[0], base_only, replace(spec, epsilon=0.05), SHARE, seed).decision
        == "not_detected"
    )


def test_whoever_holds_the_kit_can_forge_a_trace_but_no_share(
    base_file: Path, base_only: Path, spec: WfpSpec, kit: TraceKit, tmp_path: Path
) -> None:
    victim = LICENSES[7]
    forged = tmp_path / "forged.safetensors"
    weights.mark(base_file, forged, spec, kit.trace_key, victim, seeds_of(999, spec))
    assert weights.trace(forged, kit, LICENSES).license == victim
    for share in range(spec.shares):
        found = weights.confirm(forged, base_only, spec, share, seeds_of(victim, spec)[share])
        assert found.decision == "not_detected"


# --- hostile suspects ---


def changed(path: Path, out: Path, change: Mapping[str, Any]) -> Path:
    return write_tensors(out, {n: change[n](t) if n in change else t for n, t in floats(path).items()})


def test_missing_and_reshaped_tensors_are_unavailable(
    copies: list[Path], base_only: Path, spec: WfpSpec, kit: TraceKit, tmp_path: Path
) -> None:
    name = spec.tensors[0].name
    tensors = floats(copies[0])
    cut = write_tensors(tmp_path / "cut.safetensors", {n: t for n, t in tensors.items() if n != name})
    turned = changed(copies[0], tmp_path / "turned.safetensors", {name: lambda t: np.ascontiguousarray(t.T)})
    for suspect in (cut, turned):
        with pytest.raises(UnavailableError, match=name):
            weights.trace(suspect, kit, LICENSES)
        with pytest.raises(UnavailableError, match=name):
            confirm(suspect, base_only, spec)


def test_nan_inf_and_zero_tensors_say_nothing_and_crash_nothing(
    copies: list[Path], base_only: Path, spec: WfpSpec, kit: TraceKit, tmp_path: Path
) -> None:
    fills = {"nan": np.nan, "inf": np.inf, "zero": 0.0, "huge": 3e38}
    for i, (kind, value) in enumerate(fills.items()):
        poison = {t.name: (lambda a, v=value: np.full_like(a, v)) for t in spec.tensors}
        suspect = changed(copies[0], tmp_path / f"{i}.safetensors", poison)
        assert weights.trace(suspect, kit, LICENSES).decision == "not_detected", kind
        decision = confirm(suspect, base_only, spec).decision
        assert decision == ("not_detected" if kind == "huge" else "inconclusive"), kind
    one = {spec.tensors[0].name: lambda a: np.full_like(a, np.nan)}
    suspect = changed(copies[0], tmp_path / "one.safetensors", one)
    assert weights.trace(suspect, kit, LICENSES).license == GUILTY
    assert confirm(suspect, base_only, spec).decision == "detected"


@pytest.mark.parametrize("head", [b"\x80\x02}q\x00", b"\x80\x04\x95", b"PK\x03\x04\x14\x00\x00\x00"])
def test_a_pickle_is_refused_by_its_name(head: bytes, kit: TraceKit, base_only: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(head + b"\xff" * 200)
    with pytest.raises(CarrierError, match="pickle"):
        weights.trace(path, kit, LICENSES)
    with pytest.raises(CarrierError, match="pickle"):
        confirm(path, base_only, kit.spec)
    with pytest.raises(CarrierError, match="pickle"):
        weights.mark(path, tmp_path / "out", kit.spec, kit.trace_key, GUILTY, seeds_of(GUILTY, kit.spec))


@pytest.mark.parametrize("cut", [5, 100, -1])
def test_a_truncated_copy_is_refused(
    cut: int, copies: list[Path], base_only: Path, spec: WfpSpec, kit: TraceKit, tmp_path: Path
) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(copies[0].read_bytes()[:cut])
    with pytest.raises(CarrierError):
        weights.trace(path, kit, LICENSES, base=base_only)
    with pytest.raises(CarrierError):
        confirm(path, base_only, spec)


def test_each_of_the_shares_convicts_alone(
    copies: list[Path], base_only: Path, spec: WfpSpec, tmp_path: Path
) -> None:
    for index, seed in enumerate(seeds_of(GUILTY, spec)):
        assert weights.confirm(copies[0], base_only, spec, index, seed).decision == "detected"
        for innocent in (seeds_of(LICENSES[1], spec)[index], seeds_of(GUILTY, spec)[index - 1]):
            assert weights.confirm(copies[0], base_only, spec, index, innocent).decision == "not_detected"


def test_a_model_of_many_shards_takes_less_memory_than_two_of_them(tmp_path: Path) -> None:
    """Synthetic: five shards of 4 MB; marking, both ways of tracing, and confirming look at a tensor at a time."""
    folder = tmp_path / "model"
    folder.mkdir()
    rng = np.random.default_rng(1)
    shape = (128, 256)
    for shard in range(5):
        names = [
            f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(64 * shard, 64 * (shard + 1))
        ]
        write_tensors(
            folder / f"{shard}.safetensors",
            {n: to_bf16(rng.standard_normal(shape, np.float32)) for n in names},
        )
    size = (folder / "0.safetensors").stat().st_size
    names = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(0, 320, 16)]
    spec = WfpSpec(tuple(weights.TensorShape(n, shape) for n in names), 0.05, 256, 1024, 2, 16384)
    kit = TraceKit.derive(MODEL_KEY, spec)
    tracemalloc.start()
    try:
        weights.mark(folder, tmp_path / "copy", spec, kit.trace_key, GUILTY, seeds_of(GUILTY, spec))
        weights.extract_base(folder, spec, tmp_path / "base.safetensors")
        blind = weights.trace(tmp_path / "copy", kit, LICENSES)
        informed = weights.trace(tmp_path / "copy", kit, LICENSES, base=folder)
        found = weights.confirm(tmp_path / "copy", folder, spec, 1, seeds_of(GUILTY, spec)[1])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert blind.license == informed.license == GUILTY
    assert found.decision == "detected"
    assert peak < 2 * size


# --- what leaves the committee ---


def test_the_statistic_stays_inside(copies: list[Path], kit: TraceKit) -> None:
    found = weights.trace(copies[0], kit, LICENSES)
    assert set(found.public()) == {"method", "decision", "license", "bucket", "spec_hash"}
    assert json.loads(found.to_json())["T"] == found.T
    key = kit.kit_key
    assert found.digest(key) == replace(found, log2_p=-1.0).digest(key)
    for other in (
        replace(found, T=found.T + 1).digest(key),
        replace(found, n=found.n + 1).digest(key),
        replace(found, sum_q2=found.sum_q2 + 1).digest(key),
        replace(found, spec_hash="00").digest(key),
        found.digest(key, b"\1" * 32),
        found.digest(prf.derive_key(key, "x")),
    ):
        assert other != found.digest(key)


def test_the_trace_correction_counts_every_license_and_model(copies: list[Path], kit: TraceKit) -> None:
    one = weights.trace(copies[0], kit, LICENSES)
    five = weights.trace(copies[0], kit, LICENSES + LICENSES[:10], models=5)
    assert one.hypotheses == len(LICENSES)
    assert five.hypotheses == 5 * len(LICENSES)
    assert five.log2_p_global == pytest.approx(one.log2_p_global + math.log2(5), abs=1e-5)
    assert confirm_count(copies[0], kit) == kit.spec.shares << stats.GRIND_CORRECTION_BITS


def confirm_count(path: Path, kit: TraceKit) -> int:
    return weights.confirm(path, path, kit.spec, 0, bytes(32)).hypotheses


# --- documents and shares ---


def document(spec: WfpSpec, **changed: Any) -> str:
    return json.dumps(json.loads(spec.to_json()) | changed)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("epsilon", (1, True, "0.02", None, [0.02], math.nan)),
        ("code_bits", (512.0, True, "512", None, 0, weights.MAX_CODE_BITS + 1)),
        ("weights_per_bit", (640.0, "640", 63)),
        ("shares", (4.5, True, -1)),
        ("weights_per_share", ("16384", 1 << 33)),
        (
            "tensors",
            ({}, "ab", [["a"]], [[1, [64, 64]]], [["a", 4096]], [["a", [64.0, 64]]], [["a", [True]]], []),
        ),
        ("tensors", ([["\ud800", [1 << 12, 1 << 12]]], [["", [1 << 24]]], [["a" * 2000, [1 << 24]]])),
        ("unknown", (1,)),
    ],
)
def test_a_spec_of_other_types_is_refused_not_converted(
    spec: WfpSpec, field: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        text = document(spec, **{field: value})
        with pytest.raises(SpecError):
            WfpSpec.from_json(text)
        with pytest.raises(SpecError):
            TraceKit.from_json(
                json.dumps({"kit": "zhiyi-wfp-1", "spec": json.loads(text), "trace_key": "ab" * 32})
            )


@pytest.mark.parametrize("key", ["AB" * 32, "ab " * 32, "ab" * 31, 7, None, "é" * 64])
def test_a_kits_key_is_in_one_writing(spec: WfpSpec, key: Any) -> None:
    fields = {"kit": "zhiyi-wfp-1", "spec": json.loads(spec.to_json()), "trace_key": key}
    with pytest.raises(SpecError, match="trace_key"):
        TraceKit.from_json(json.dumps(fields))


def test_documents_that_are_too_deep_or_say_a_thing_twice_are_refused(spec: WfpSpec) -> None:
    deep = '{"tensors":' * 1200 + "1" + "}" * 1200
    twice = spec.to_json()[:-1] + ',"shares":4}'
    for text in (deep, twice, f'{{"kit":"zhiyi-wfp-1","spec":{deep},"trace_key":"{"ab" * 32}"}}'):
        for read in (WfpSpec.from_json, TraceKit.from_json):
            with pytest.raises(SpecError):
                read(text)


def test_one_spec_has_one_text(spec: WfpSpec) -> None:
    whole = replace(spec, epsilon=0.5)
    assert WfpSpec.from_json(whole.to_json()).to_json() == whole.to_json()
    assert replace(spec, epsilon=np.float64(0.04).item()).spec_hash() == spec.spec_hash()
    with pytest.raises(SpecError, match="code_bits"):
        replace(spec, code_bits=512.0)  # type: ignore[arg-type]


def test_what_a_plan_may_say_a_trace_can_read() -> None:
    """The exact law of the largest code, at the largest levels, is within the work that stats allows."""
    reach = weights.MAX_CODE_BITS * weights.BIT_LEVELS + 1
    assert weights.MAX_CODE_BITS * reach <= stats._EXACT_WORK
    assert reach <= stats._EXACT_REACH


def test_a_plan_over_the_limit_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="code_bits 4097"):
        weights.plan(tmp_path / "none", code_bits=4097)


def test_several_shares_are_tested_with_one_alignment(
    copies: list[Path], base_only: Path, spec: WfpSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = np.random.default_rng(1).permutation(512)
    shuffled = changed(
        copies[0],
        tmp_path / "shuffled.safetensors",
        {t.name: (lambda a: a[:, order]) for t in spec.tensors if t.shape[1] == 512},
    )
    seeds = dict(enumerate(seeds_of(GUILTY, spec)))
    alone = {index: weights.confirm(shuffled, base_only, spec, index, seed) for index, seed in seeds.items()}
    aligned: list[int] = []
    plain = weights.align.undo

    def counted(*given: Any) -> Any:
        aligned.append(1)
        return plain(*given)

    monkeypatch.setattr(weights.align, "undo", counted)
    assert weights.confirm_shares(shuffled, base_only, spec, seeds) == alone
    assert 0 < len(aligned) <= len(spec.tensors)
    assert {found.decision for found in alone.values()} == {"detected"}


def test_base_tensors_are_checked_before_they_are_used(
    base_only: Path, spec: WfpSpec, tmp_path: Path
) -> None:
    weights.check_base(base_only, spec)
    tensors = floats(base_only)
    name = spec.tensors[0].name
    for i, wrong in enumerate(
        ({n: t for n, t in tensors.items() if n != name}, tensors | {name: tensors[name].T})
    ):
        path = write_tensors(
            tmp_path / f"{i}.safetensors", {n: np.ascontiguousarray(t) for n, t in wrong.items()}
        )
        with pytest.raises(UnavailableError, match=name):
            weights.check_base(path, spec)
