"""LKD: words, the integer extractor, issuing by folding, and the verdict."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gray_word import gray_extractor, picture_of

from zhiyi_watermark import image_weights, stats, tensorfile
from zhiyi_watermark.detect import DecoderSuspect, detect
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.image_weights import (
    EXTRACTOR,
    MODULATION,
    SHIFT,
    Extractor,
    Layer,
    LayerModulation,
    LkdReader,
    Modulation,
    Parts,
    Reading,
    decoder_config,
    decoder_hash,
    decoder_layers,
    issue,
    resized,
    turned,
    word,
    words,
)
from zhiyi_watermark.pictures import Picture, save_picture
from zhiyi_watermark.tensorfile import appear, scratch_beside

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
LICENSES = [(7 << 28) | n for n in range(1000)]
BITS = 64
NET = bytes(range(2, 34))  # hash of an extractor
UInt8 = npt.NDArray[np.uint8]


def small_extractor(seed: int = 1, bits: int = BITS, side: int = 32) -> Extractor:
    rng = np.random.default_rng(seed)
    layers = []
    for a, b, stride in ((3, 8, 1), (8, 12, 2), (12, 16, 2)):
        layers.append(
            Layer(
                rng.integers(-127, 128, (b, a, 3, 3)).astype(np.int8),
                rng.integers(-9000, 9000, b).astype(np.int32),
                rng.integers((1 << SHIFT) // 300, (1 << SHIFT) // 100, b).astype(np.int32),
                stride,
            )
        )
    head = rng.integers(-127, 128, (bits, 16)).astype(np.int8)
    shift = rng.integers(-(1 << 20), 1 << 20, bits)
    return Extractor(tuple(layers), head, shift, 200_000, side)


def photo(seed: int = 3, height: int = 32, width: int = 32) -> UInt8:
    rng = np.random.default_rng(seed)
    return resized(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8), height, width)


def reading(
    extractor: Extractor, license: int, wrong: int, seed: int, size: int = 8, key: bytes = KEY
) -> Reading:
    """What the extractor would say of a picture with that many bits of the word wrong."""
    rng = np.random.default_rng(seed)
    q = word(key, license, extractor.bits, extractor.net_hash()) * rng.integers(
        size - 2, size + 3, extractor.bits
    ).astype(np.int8)
    flipped = rng.choice(extractor.bits, wrong, replace=False)
    q[flipped] = -q[flipped]
    return Reading(q, 1, extractor.spec_hash().hex(), hashlib.sha256(bytes([seed])).hexdigest())


# --- words --------------------------------------------------------------------------------------------------


def test_words_are_functions_of_key_and_license_and_fair() -> None:
    drawn = words(KEY, range(2000), BITS, NET)
    assert set(np.unique(drawn)) == {-1, 1}
    assert np.array_equal(drawn[17], word(KEY, 17, BITS, NET))
    assert not np.array_equal(word(KEY, 17, BITS, NET), word(OTHER, 17, BITS, NET))
    assert np.array_equal(word(KEY, 17, 32, NET), word(KEY, 17, BITS, NET)[:32])
    assert np.abs(drawn.mean(axis=0)).max() < 5 / 2000**0.5
    shared = (drawn[:1000].astype(int) * drawn[1000:]).sum(axis=1)  # of two licenses: a walk of 64 steps
    assert abs(float((shared**2).mean()) - BITS) < 15
    assert not np.array_equal(word(KEY, 17, BITS, NET), word(KEY, 17, BITS, bytes(32)))
    with pytest.raises(SpecError, match="32 bytes, given 31"):
        word(KEY, 17, BITS, NET[:31])
    for bits in (7, 257):
        with pytest.raises(SpecError, match="8 to 256 bits"):
            word(KEY, 1, bits, NET)


# --- the extractor ------------------------------------------------------------------------------------------


def by_loops(extractor: Extractor, rgb: UInt8) -> list[int]:
    """The same net in Python's integers."""
    x = rgb.astype(np.int64) - 128
    for layer in extractor.layers:
        framed = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        out = []
        for i in range(0, x.shape[0], layer.stride):
            for j in range(0, x.shape[1], layer.stride):
                window = framed[i : i + 3, j : j + 3].transpose(2, 0, 1)
                for taps, bias, factor in zip(layer.weight, layer.bias, layer.factor, strict=True):
                    total = int((window * taps.astype(np.int64)).sum()) + int(bias)
                    out.append(min(255, max(0, (total * int(factor) + (1 << (SHIFT - 1))) >> SHIFT)))
        x = np.array(out, dtype=np.int64).reshape(-(-x.shape[0] // layer.stride), -1, len(layer.weight))
    pooled = [int(v) * 256 // (x.shape[0] * x.shape[1]) for v in x.sum(axis=(0, 1))]
    return [
        sum(int(w) * p for w, p in zip(row, pooled, strict=True)) + int(b)
        for row, b in zip(extractor.head, extractor.head_bias, strict=True)
    ]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 12)])
def test_the_extractor_computes_whole_numbers(height: int, width: int) -> None:
    extractor, rgb = small_extractor(bits=16), photo(4, height, width)
    assert extractor.logits(rgb).tolist() == by_loops(extractor, rgb)


def test_readings_are_the_same_on_every_machine() -> None:
    extractor = small_extractor()
    state = hashlib.sha256(extractor.spec_hash())
    for seed, (height, width) in enumerate(((32, 32), (57, 41), (200, 90))):
        state.update(extractor.read(Picture(photo(seed, height, width)), wide=True).q.tobytes())
    assert state.hexdigest()[:32] == "be9b2906af62a94c8e2a7db16192ba9e"


def test_q_is_rounded_alike_on_both_sides_of_zero_and_clipped() -> None:
    made = small_extractor(bits=8)
    sums = np.array([0, 1, 2, 3, -2, -3, 10**9, -(10**9)], dtype=np.int64)
    made = replace(made, head=np.zeros_like(made.head), head_bias=sums, unit=4)
    assert made.q(photo()).tolist() == [0, 0, 1, 1, -1, -1, 15, -15]


def test_sums_that_float32_cannot_hold_are_refused() -> None:
    made = small_extractor()
    loud = np.full((4, 16, 3, 3), 127, dtype=np.int8)  # 127 * 255 * 144 is under 2^24
    wide = np.full((4, 160, 3, 3), 127, dtype=np.int8)
    bias, factor = np.zeros(4, dtype=np.int32), np.ones(4, dtype=np.int32)
    head = np.zeros((BITS, 4), dtype=np.int8)
    Extractor((*made.layers, Layer(loud, bias, factor, 1)), head, made.head_bias, 1, 32)
    many = Layer(np.ones((160, 3, 3, 3), np.int8), np.zeros(160, np.int32), np.ones(160, np.int32), 1)
    with pytest.raises(SpecError, match="exact to 16777216"):
        Extractor((many, Layer(wide, bias, factor, 1)), head, made.head_bias, 1, 32)
    with pytest.raises(SpecError, match="head takes 16 channels, the last layer gives 12"):
        replace(made, layers=made.layers[:2])
    with pytest.raises(SpecError, match="layer 0"):
        replace(made, layers=made.layers[1:])
    with pytest.raises(SpecError, match="no extractor"):
        replace(made, unit=0)


def test_numbers_that_only_look_right_are_refused() -> None:
    made = small_extractor()
    least = made.head_bias.copy()
    least[0] = np.iinfo(np.int64).min  # its absolute value is negative
    with pytest.raises(SpecError, match=r"over 2\^40"):
        replace(made, head_bias=least)
    for stride in (1.0, True, np.int64(1)):
        layers = (made.layers[0]._replace(stride=stride), *made.layers[1:])  # type: ignore[arg-type]  # hostile
        with pytest.raises(SpecError, match="layer 0"):
            replace(made, layers=layers)
    for name in ("unit", "side"):
        with pytest.raises(SpecError, match="no extractor"):
            replace(made, **{name: float(getattr(made, name))})
    many = Layer(np.ones((64, 3, 3, 3), np.int8), np.zeros(64, np.int32), np.ones(64, np.int32), 1)
    with pytest.raises(SpecError, match="268435456 activations"):
        Extractor((many,), np.zeros((BITS, 64), np.int8), made.head_bias, 1, 1024)


def test_the_spec_hash_pins_every_number_of_the_net() -> None:
    made = small_extractor()
    first = made.layers[0]
    weight = first.weight.copy()
    weight[0, 0, 0, 0] ^= 1
    others = [
        replace(made, layers=(first._replace(weight=weight), *made.layers[1:])),
        replace(made, layers=(first._replace(bias=first.bias + 1), *made.layers[1:])),
        replace(made, layers=(first._replace(factor=first.factor + 1), *made.layers[1:])),
        replace(made, layers=(first._replace(stride=2), *made.layers[1:])),
        replace(made, head_bias=made.head_bias + 1),
        replace(made, unit=made.unit + 1),
        replace(made, side=made.side + 1),
    ]
    assert len({other.spec_hash() for other in [made, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    "name",
    [
        "METHOD", "LEVELS", "MAX_PICTURES", "MIN_SIDE", "MAX_ASPECT", "MAX_PIXELS", "NATIVE", "SHIFT", "KERNEL", "_TOP",
        "_MIDDLE", "_POOLED", "_TURN", "_TURNED",
    ],
)  # fmt: skip
def test_the_spec_hash_pins_every_constant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = small_extractor()
    before = extractor.spec_hash(), extractor.net_hash()
    monkeypatch.setattr(image_weights, name, getattr(image_weights, name) * 2)
    assert extractor.spec_hash() != before[0]
    assert extractor.net_hash() == before[1]  # copies that were issued stay readable


def peak(work: Callable[[], object]) -> int:
    """Bytes allocated at once, at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_large_pictures_take_little_memory() -> None:
    """Resampling and convolving go by bands: neither copies the picture in floats, nor its windows at once."""
    rgb = np.zeros((2048, 3072, 3), dtype=np.uint8)  # 19 MB; as float64 151 MB
    assert peak(lambda: resized(rgb, 64, 96)) < 64 << 20
    tall = np.zeros((16384, 64, 3), dtype=np.uint8)
    assert peak(lambda: resized(tall, 4096, 16)) < 64 << 20  # weights of all rows would be 512 MB
    extractor = small_extractor(side=512)
    # 12 channels of 256 x 256; the windows of 8 channels of 512 x 512, taken every other time, are 19 MB more
    assert peak(lambda: extractor.q(np.zeros((512, 512, 3), np.uint8))) < 72 << 20


def test_resampling_keeps_flat_pictures_and_averages() -> None:
    flat = np.full((37, 50, 3), 201, dtype=np.uint8)
    assert np.array_equal(resized(flat, 64, 16), np.full((64, 16, 3), 201, dtype=np.uint8))
    steps = np.repeat(np.array([0, 100, 200, 100], dtype=np.uint8), 3).reshape(4, 1, 3)
    # halved: rows weigh 3, 3, 1, 0
    assert resized(steps, 2, 1)[:, 0, 0].tolist() == [round(500 / 7), round(1000 / 7)]
    assert np.array_equal(resized(steps, 4, 1), steps)


def test_turning_is_exact_at_right_angles_and_undone() -> None:
    rgb = photo(5, 24, 24)
    assert np.array_equal(turned(rgb, 16), np.rot90(rgb))
    assert np.array_equal(turned(rgb, 0), rgb)
    there = turned(rgb, 3)
    back, there, rgb = (x[6:-6, 6:-6].astype(int) for x in (turned(there, -3), there, rgb))
    assert np.abs(back - rgb).mean() < 0.2 * np.abs(there - rgb).mean()


def test_a_turned_or_mirrored_picture_is_read_where_it_says_most() -> None:
    """The way is chosen by sum |q|, without any word."""
    extractor, rgb = small_extractor(), photo(6)
    plain, wide = extractor.read(Picture(rgb)), extractor.read(Picture(rgb), wide=True)
    assert (plain.ways, wide.ways) == (1, 42)
    assert np.abs(wide.q.astype(int)).sum() >= np.abs(plain.q.astype(int)).sum()
    ways = [turned(rgb[:, ::-1], k) for k in (-16, -3, 4)]
    assert np.abs(wide.q.astype(int)).sum() >= max(np.abs(extractor.q(w).astype(int)).sum() for w in ways)
    assert extractor.read(Picture(photo(6, 48, 48))).ways == 2
    assert extractor.read(Picture(photo(6, 480, 480))).ways == 1


def test_sizes_that_are_not_read_are_told() -> None:
    for height, width in ((15, 40), (20, 81)):
        with pytest.raises(UnavailableError, match=f"{width} x {height} px"):
            small_extractor().read(Picture(np.zeros((height, width, 3), dtype=np.uint8)))


# --- the verdict --------------------------------------------------------------------------------------------


def test_one_picture_is_a_trace_and_eight_are_a_detection() -> None:
    extractor = small_extractor()
    reader = LkdReader(extractor, KEY)
    one = [reading(extractor, LICENSES[5], 3, 1)]
    found = reader.verdict(one, LICENSES)
    assert (found.decision, found.license, found.also, found.hypotheses) == (
        "detected", LICENSES[5], (), len(LICENSES)
    )  # fmt: skip
    case = reader.verdict(one, LICENSES, threshold=stats.CONVICT)
    assert (case.decision, case.license) == ("inconclusive", None)
    eight = [reading(extractor, LICENSES[5], 9, seed) for seed in range(8)]
    case = reader.verdict(eight, LICENSES, threshold=stats.CONVICT)
    assert (case.decision, case.license, case.bucket) == ("detected", LICENSES[5], 12)
    assert reader.verdict(one, LICENSES, models=3).hypotheses == 3 * len(LICENSES)
    assert reader.verdict(eight[:2], LICENSES, offered=4).hypotheses == 6 * len(LICENSES)


def test_p_is_exact() -> None:
    extractor = small_extractor()
    marked = reading(extractor, LICENSES[5], 0, 1)
    flat = replace(marked, q=np.sign(marked.q).astype(np.int8))
    few = flat.q.copy()
    few[:2] *= -1
    found = LkdReader(extractor, KEY).verdict([replace(flat, q=few)], LICENSES[5:6])
    assert found.log2_p == pytest.approx(np.log2(1 + 64 + 64 * 63 // 2) - 64, abs=1e-5)


def test_nobody_else_is_named() -> None:
    """Words of other licenses and of other keys; the marked license is not registered."""
    extractor = small_extractor()
    eight = [reading(extractor, LICENSES[5], 0, seed, size=12) for seed in range(8)]
    for key, numbers in ((KEY, [n for n in LICENSES if n != LICENSES[5]]), (OTHER, LICENSES)):
        found = LkdReader(extractor, key).verdict(eight, numbers)
        assert (found.license, found.also) == (None, ())
        assert found.decision == "not_detected"


def test_the_null_holds_for_any_integers() -> None:
    """5,000 keys on one fixed q of very unequal sizes: p <= x at most as often as x."""
    extractor = small_extractor()
    q = (np.arange(64) % 16).astype(np.int8)
    one = Reading(q, 1, extractor.spec_hash().hex(), "00" * 32)
    p = []
    for i in range(5000):
        key = hashlib.sha256(i.to_bytes(4, "big")).digest()
        p.append(2.0 ** LkdReader(extractor, key).verdict([one], [1]).log2_p)
    for level in (0.3, 0.05, 0.01):
        share = float((np.array(p) <= level).mean())
        assert share <= level + 4 * (level / 5000) ** 0.5
    assert float((np.array(p) <= 0.3).mean()) > 0.25  # no weaker than it must be


def test_all_whose_bits_are_there_are_named() -> None:
    """Two copies averaged, with words of 256 bits: a bit in which they differ says nothing."""
    extractor = small_extractor(bits=256)
    pair = words(KEY, LICENSES[:2], 256, extractor.net_hash()).astype(np.int64)
    q = (4 * pair.sum(axis=0)).astype(np.int8)
    found = LkdReader(extractor, KEY).verdict(
        [Reading(q, 1, extractor.spec_hash().hex(), "00" * 32)], LICENSES
    )
    assert {found.license, *found.also} == set(LICENSES[:2])


def test_a_case_must_be_one() -> None:
    extractor = small_extractor()
    reader, good = LkdReader(extractor, KEY), reading(extractor, 1, 0, 1)
    cases: Sequence[tuple[list[Reading], list[int], type[Exception], str]] = (
        ([], [1], SpecError, "1 to 64 pictures"),
        ([good, good], [1], SpecError, "given twice"),
        ([good], [], SpecError, "0 licenses"),
        ([good], [1, 1], SpecError, "each once"),
        ([replace(good, spec_hash="00" * 32)], [1], UnavailableError, "another extractor"),
        ([replace(good, q=good.q[:32])], [1], UnavailableError, "another extractor"),
    )
    for readings, numbers, error, text in cases:
        with pytest.raises(error, match=text):
            reader.verdict(readings, numbers)
    with pytest.raises(SpecError, match="32 bytes"):
        LkdReader(extractor, b"short")


def test_detect_tries_decoders_of_all_models(tmp_path: Path) -> None:
    extractor = gray_extractor()
    marked = picture_of(word(KEY, LICENSES[9], BITS, extractor.net_hash()))
    save_picture(Picture(marked), tmp_path / "found.png")
    ours = DecoderSuspect("ours", LkdReader(extractor, KEY), LICENSES)
    strange = DecoderSuspect("strange", LkdReader(extractor, OTHER), LICENSES)
    found = detect(tmp_path / "found.png", [strange, ours])
    assert found.detection is not None
    assert (found.model, found.detection.license) == ("ours", LICENSES[9])
    assert found.detection.hypotheses == 2 * len(LICENSES)
    assert [finding.model for finding in found.passing] == ["ours"]


def test_an_extractor_made_for_a_known_word_names_nobody() -> None:
    """Whatever it says, the words that count are drawn from what it is."""
    made = small_extractor()
    victim = LICENSES[9]
    for _ in range(3):
        says = word(KEY, victim, BITS, made.net_hash()).astype(np.int64) * made.unit * 15
        made = replace(made, head=np.zeros_like(made.head), head_bias=says)
    one = made.read(Picture(photo()))
    assert np.abs(one.q).min() == 15
    found = LkdReader(made, KEY).verdict([one], LICENSES)
    assert (found.decision, found.license) == ("not_detected", None)


def test_readings_made_otherwise_are_not_mixed() -> None:
    extractor = small_extractor()
    plain, wide = (extractor.read(Picture(photo(n)), wide=n == 1) for n in (0, 1))
    assert (plain.wide, wide.wide) == (False, True)
    assert len({plain.spec_hash, wide.spec_hash}) == 2
    for turns in (False, True):
        with pytest.raises(UnavailableError, match=f"this reader is of wide={turns}"):
            LkdReader(extractor, KEY, wide=turns).verdict([plain, wide], LICENSES)
    said = [LkdReader(extractor, KEY, wide=r.wide).verdict([r], LICENSES) for r in (plain, wide)]
    assert [one.spec_hash for one in said] == [plain.spec_hash, wide.spec_hash]


# --- issuing ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small AutoencoderKL of random weights."""
    from diffusion import tiny_pipeline

    folder = tmp_path_factory.mktemp("lkd") / "vae"
    tiny_pipeline().vae.save_pretrained(folder)
    return folder


def modulation_of(folder: Path, bits: int = BITS, rank: int = 4, size: float = 0.05) -> Modulation:
    rng = np.random.default_rng(8)

    def drawn(*shape: int) -> npt.NDArray[np.float32]:
        return (rng.standard_normal(shape) * size).astype(np.float16).astype(np.float32)

    layers = {}
    for name, shape in decoder_layers(folder):
        if name.endswith(".weight"):
            parts = (drawn(shape[0], bits), drawn(shape[0], rank), drawn(rank, *shape[1:]), drawn(rank, bits))
            layers[name.removesuffix(".weight")] = LayerModulation(*parts)
    return Modulation(layers, decoder_hash(folder), decoder_config(folder), NET.hex())


def pictures_of(folder: Path) -> npt.NDArray[np.float32]:
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder).eval()
    latents = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 4, 8, 8)).astype(np.float32))
    with torch.no_grad():
        made: npt.NDArray[np.float32] = vae.decode(latents).sample.numpy()
    return made


def test_a_copy_is_a_plain_autoencoder_whose_pictures_its_order_of_channels_leaves(
    decoder: Path, tmp_path: Path
) -> None:
    modulation = modulation_of(decoder)
    relative = issue(decoder, tmp_path / "a", modulation, KEY, 1, reorder=False)
    issue(decoder, tmp_path / "b", modulation, KEY, 1)
    issue(decoder, tmp_path / "c", modulation, KEY, 2)
    assert relative.keys() == modulation.layers.keys()
    assert all(0 < value < 1 for value in relative.values())
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == sorted(p.name for p in decoder.iterdir())
    base, plain, ordered, other = (pictures_of(f) for f in (decoder, *(tmp_path / n for n in "abc")))
    assert np.abs(plain - ordered).max() < 1e-4 * np.abs(plain).max()
    assert np.abs(plain - base).max() > 1e-3 * np.abs(base).max()
    assert np.abs(plain - other).max() > 1e-3 * np.abs(base).max()


def test_copies_differ_in_the_order_of_their_channels(decoder: Path, tmp_path: Path) -> None:
    """So the average of two, weight by weight, is further from both than they are from each other."""
    from safetensors.numpy import load_file, save_file

    file = "diffusion_pytorch_model.safetensors"
    modulation = modulation_of(decoder, size=0.01)
    for license in (1, 2):
        issue(decoder, tmp_path / f"{license}", modulation, KEY, license)
    one, two = (load_file(tmp_path / name / file) for name in "12")
    mean = tmp_path / "mean"
    mean.mkdir()
    (mean / "config.json").write_bytes((decoder / "config.json").read_bytes())
    save_file({name: (one[name] + two[name]) / 2 for name in one}, mean / file)
    first, second, both = (pictures_of(tmp_path / name) for name in ("1", "2", "mean"))
    assert np.abs(both - first).mean() > 3 * np.abs(second - first).mean()


def test_folding_is_the_formula(decoder: Path) -> None:
    modulation = modulation_of(decoder)
    layer = next(iter(modulation.layers.values()))
    rng = np.random.default_rng(1)
    weight = rng.standard_normal(layer.right.shape[1:]).astype(np.float32)
    weight = np.stack([weight] * len(layer.left))
    c = word(KEY, 3, BITS, NET)
    new, bias = layer.folded(weight, np.ones(len(layer.left), dtype=np.float32), c)
    gains = 1 + layer.gain.astype(float) @ c
    kernel = np.einsum(
        "or,rb,b,rihw->oihw", *(x.astype(float) for x in (layer.left, layer.mix, c, layer.right))
    )
    assert np.allclose(new, weight * gains[:, None, None, None] + kernel, atol=1e-5)
    assert np.allclose(bias, gains, atol=1e-5)


def test_what_cannot_be_issued_is_told(decoder: Path, tmp_path: Path) -> None:
    modulation = modulation_of(decoder)
    with pytest.raises(UnavailableError, match="the modulation was trained with"):
        issue(decoder, tmp_path / "x", replace(modulation, base_hash="00" * 32), KEY, 1)
    with pytest.raises(SpecError, match="is no folder"):
        issue(tmp_path / "none", tmp_path / "x", modulation, KEY, 1)
    (tmp_path / "there").mkdir()
    with pytest.raises(SpecError, match="never written over"):
        issue(decoder, tmp_path / "there", modulation, KEY, 1)
    assert not (tmp_path / "x").exists()
    from safetensors.numpy import save_file

    empty = tmp_path / "empty"
    empty.mkdir()
    save_file({"decoder.conv.weight": np.zeros((2, 2, 1, 1), np.float32)}, empty / "model.safetensors")
    with pytest.raises(UnavailableError, match="no decoder of an AutoencoderKL"):
        decoder_layers(empty)
    name, layer = next(iter(modulation.layers.items()))
    with pytest.raises(SpecError, match="do not fit together"):
        replace(modulation, layers={name: layer._replace(mix=layer.mix[:, :-1])})
    rank0 = layer._replace(left=layer.left[:, :0], right=layer.right[:0], mix=layer.mix[:0])
    with pytest.raises(SpecError, match="do not fit together"):
        replace(modulation, layers={name: rank0})
    with pytest.raises(SpecError, match="extractor is 64 hexadecimal digits"):
        replace(modulation, extractor="00")
    for config, said in (({}, r"config is that of decoder_config\(\), given \[\]"),
                         ({**modulation.config, "norm_num_groups": True}, "from 1, given True")):  # fmt: skip
        with pytest.raises(SpecError, match=said):
            replace(modulation, config=config)
    with pytest.raises(SpecError, match="infinite"):
        replace(modulation, layers={name: layer._replace(gain=layer.gain * np.float32(np.inf))})


def test_a_decoder_that_computes_otherwise_is_refused(decoder: Path, tmp_path: Path) -> None:
    """Other groups, or another weight of a normalisation, would spoil the copy without a word."""
    from safetensors.numpy import load_file, save_file

    modulation = modulation_of(decoder)
    config = json.loads((decoder / "config.json").read_text())
    cases: tuple[tuple[str, str], ...] = (
        (
            json.dumps(config | {"norm_num_groups": 8}),
            "says norm_num_groups 8, the modulation was trained with 4",
        ),
        (json.dumps({k: v for k, v in config.items() if k != "norm_num_groups"}), "norm_num_groups 32"),
        (
            json.dumps(config | {"act_fn": "relu"}),
            'says act_fn "relu", the modulation was trained with "silu"',
        ),
        (json.dumps(config | {"scaling_factor": 0.5}), "says scaling_factor 0.5, .* trained with 0.18215"),
        (json.dumps(config | {"force_upcast": False}), "says force_upcast false, .* trained with true"),
        (json.dumps(config | {"shift_factor": 0.1}), "says shift_factor 0.1, .* trained with null"),
        ("[]", "it is no object"),
        ("{", "cannot be read"),
    )
    for i, (text, said) in enumerate(cases):
        other = Path(shutil.copytree(decoder, tmp_path / f"other{i}"))
        (other / "config.json").write_text(text)
        with pytest.raises(UnavailableError, match=said):
            issue(other, tmp_path / "x", modulation, KEY, 1)
    (other / "config.json").unlink()
    with pytest.raises(UnavailableError, match="cannot be read"):
        issue(other, tmp_path / "x", modulation, KEY, 1)
    os.mkfifo(other / "config.json")
    with pytest.raises(UnavailableError, match="no plain file"):
        issue(other, tmp_path / "x", modulation, KEY, 1)
    for name in (
        "decoder.conv_norm_out.weight",
        "decoder.mid_block.attentions.0.to_q.weight",
        "post_quant_conv.bias",
    ):
        other = Path(shutil.copytree(decoder, tmp_path / name))
        file = other / "diffusion_pytorch_model.safetensors"
        tensors = load_file(file)
        save_file({**tensors, name: tensors[name] + 1}, file)
        with pytest.raises(UnavailableError, match="the modulation was trained with"):
            issue(other, tmp_path / "x", modulation, KEY, 1)
    assert not (tmp_path / "x").exists()


def test_a_configuration_is_what_diffusers_makes_of_it(decoder: Path, tmp_path: Path) -> None:
    """Defaults are filled in, and versions, names and what is the encoder's or a tile's are no matter."""
    import inspect

    from diffusers import AutoencoderKL

    parameters = inspect.signature(AutoencoderKL.__init__).parameters
    defaults = {name: p.default for name, p in parameters.items() if name != "self"}
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    found = decoder_config(bare)
    assert found.pop("_class_name") == "AutoencoderKL"
    assert found.pop("quantization_config") is None
    assert found == {name: list(v) if isinstance(v := defaults[name], tuple) else v for name in found}
    assert defaults.keys() - found.keys() == {
        "in_channels", "down_block_types", "sample_size", "use_quant_conv"
    }  # fmt: skip

    other = Path(shutil.copytree(decoder, tmp_path / "other"))
    config = json.loads((decoder / "config.json").read_text())
    noted = {"_diffusers_version": "9.9.9", "_name_or_path": "x", "sample_size": 9, "further": 1}
    said = {k: v for k, v in config.items() if v != defaults.get(k)} | noted
    assert len(said) < len(config)
    (other / "config.json").write_text(json.dumps(said))
    assert decoder_config(other) == decoder_config(decoder)
    issue(other, tmp_path / "copy", modulation_of(decoder), KEY, 1)
    assert (tmp_path / "copy" / "config.json").read_bytes() == (other / "config.json").read_bytes()


def test_a_copy_that_its_types_cannot_hold_is_refused(decoder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    half = Path(shutil.copytree(decoder, tmp_path / "half"))
    file = half / "diffusion_pytorch_model.safetensors"
    tensors = {name: value.astype(np.float16) for name, value in load_file(file).items()}
    tensors["decoder.conv_in.weight"][:] = 60000  # near the largest of float16
    save_file(tensors, file)
    with pytest.raises(UnavailableError, match=r"decoder\.conv_in\.weight has values that F16 cannot hold"):
        issue(half, tmp_path / "x", modulation_of(half), KEY, 1)
    modulation = modulation_of(decoder, size=0.05)
    largest = max(issue(decoder, tmp_path / "quiet", modulation, KEY, 1).values())
    shutil.rmtree(tmp_path / "quiet")
    for factor, issued in ((30 / largest, True), (34 / largest, False)):
        layers = {
            name: layer._replace(gain=layer.gain * np.float32(factor), mix=layer.mix * np.float32(factor))
            for name, layer in modulation.layers.items()
        }
        if issued:
            issue(decoder, tmp_path / "loud", replace(modulation, layers=layers), KEY, 1)
            shutil.rmtree(tmp_path / "loud")
            continue
        with pytest.raises(UnavailableError, match=r"at most 32\.0 is issued"):
            issue(decoder, tmp_path / "x", replace(modulation, layers=layers), KEY, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half"]
    modulation = modulation_of(decoder)
    name, layer = next(iter(modulation.layers.items()))
    loud = replace(modulation, layers={name: layer._replace(gain=layer.gain + np.float32(7e4))})
    with pytest.raises(SpecError, match="float16 cannot hold"):
        loud.save(tmp_path / "loud.safetensors")
    assert not (tmp_path / "loud.safetensors").exists()


@pytest.mark.parametrize("prefix", ["first_stage_model.", "model."])
def test_a_decoder_under_a_longer_name_is_refused(decoder: Path, tmp_path: Path, prefix: str) -> None:
    """As single-file checkpoints call it: a buyer would find the unmarked decoder there."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(decoder / "diffusion_pytorch_model.safetensors")
    old = {prefix + name: value for name, value in weights.items() if name.startswith("decoder.")}
    for part, said in (("unet", "may hold the unmarked decoder"), ("vae", "none of an AutoencoderKL")):
        pipeline = tmp_path / part
        shutil.copytree(decoder, pipeline / "vae")
        (pipeline / "unet").mkdir()
        index = {"vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "x"]}
        (pipeline / "model_index.json").write_text(json.dumps(index))
        save_file(old, pipeline / part / "extra.safetensors")
        with pytest.raises(CarrierError, match=said):
            issue(pipeline, tmp_path / "x", modulation_of(decoder), KEY, 1)
    assert not (tmp_path / "x").exists()


def test_a_copy_is_not_written_where_a_link_leads_nowhere(decoder: Path, tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SpecError, match="never written over"):
        issue(decoder, tmp_path / "x", modulation_of(decoder), KEY, 1)


def test_pipes_and_layers_without_channels_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MODULATION)
    with pytest.raises(CarrierError, match="no plain file"):
        Parts.load(tmp_path)
    empty = Layer(np.zeros((0, 3, 3, 3), np.int8), np.zeros(0, np.int32), np.zeros(0, np.int32), 1)
    with pytest.raises(SpecError, match="layer 0 of the extractor"):
        Extractor((empty,), np.zeros((BITS, 0), np.int8), np.zeros(BITS, np.int64), 1, 64)


def test_what_a_killed_run_left_is_taken_away_and_a_living_ones_stays(tmp_path: Path) -> None:
    dead = tmp_path / ".zhiyi-issue-dead"
    (dead / "copy").mkdir(parents=True)
    (dead / "copy" / "model.safetensors").write_bytes(b"a whole model")
    (dead / "lock").touch()
    with scratch_beside(tmp_path / "a", ".zhiyi-issue-") as living:
        assert not dead.exists()
        with scratch_beside(tmp_path / "b", ".zhiyi-issue-") as second:
            assert living.is_dir()
            (second / "copy").mkdir()
            appear(second / "copy", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_takes_the_place_of_another_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, out = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    (made / "new").touch()
    tensorfile.take_place(made, out)
    assert not made.exists()
    made.mkdir()
    (made / "newer").touch()
    tensorfile.take_place(made, out)
    assert [path.name for path in (*made.iterdir(), *out.iterdir())] == ["new", "newer"]
    monkeypatch.setattr(tensorfile, "_EXCHANGE", 1 << 20)  # no flag of any system
    with pytest.raises(OSError, match=r"can't be replaced in one step here .*write to a new folder"):
        tensorfile.take_place(made, out)
    assert [path.name for path in (*made.iterdir(), *out.iterdir())] == ["new", "newer"]


def test_a_copy_has_its_name_when_it_is_on_the_disk(
    decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        tensorfile, "_sync", lambda path: synced.append(f"{path.name} {(tmp_path / 'x').exists()}")
    )
    issue(decoder, tmp_path / "x", modulation_of(decoder), KEY, 1)
    names = sorted(path.name for path in decoder.iterdir())
    assert synced == [*(f"{name} False" for name in (*names, "copy")), f"{tmp_path.name} True"]


# --- files --------------------------------------------------------------------------------------------------


def test_files_are_read_back_and_others_refused(decoder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    extractor, modulation = small_extractor(), modulation_of(decoder)
    one, two = tmp_path / "extractor.safetensors", tmp_path / "modulation.safetensors"
    extractor.save(one)
    modulation.save(two)
    assert Extractor.load(one).spec_hash() == extractor.spec_hash()
    again = Modulation.load(two)
    assert (again.base_hash, again.groups, again.bits) == (modulation.base_hash, 4, BITS)
    assert again.config == modulation.config == decoder_config(decoder)
    assert again.extractor == NET.hex()
    for name, layer in modulation.layers.items():
        assert all(np.array_equal(a, b) for a, b in zip(layer, again.layers[name], strict=True))
    with pytest.raises(CarrierError, match="is no LKD modulation"):
        Modulation.load(one)
    with pytest.raises(CarrierError, match="is no LKD extractor"):
        Extractor.load(two)
    with pytest.raises(CarrierError, match="cannot be read"):
        Extractor.load(tmp_path / "none.safetensors")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(CarrierError):
        Extractor.load(bad)
    for name, value in (
        ("head", np.zeros((BITS, 5), np.int8)), ("head", np.zeros((BITS, 16), np.float32)),
        ("about", np.frombuffer(b'{"side":32,"strides":3,"unit":1}', np.uint8)),
        ("about", np.frombuffer(b'{"side":"32","strides":[1,2,2],"unit":1}', np.uint8)),
        ("about", np.frombuffer(b'{"side":32,"strides":[true,2,2],"unit":1}', np.uint8)),
        ("about", np.frombuffer(b'{"side":32,"strides":[1.0,2,2],"unit":1}', np.uint8)),
        ("about", np.frombuffer(b"[]", np.uint8)),
    ):  # fmt: skip
        save_file({**load_file(one), name: value}, bad)
        with pytest.raises(CarrierError, match="is no LKD extractor"):
            Extractor.load(bad)
    about = json.loads(load_file(two)["about"].tobytes())
    for config, told in (
        (None, "does not tell its decoder's configuration"),
        (["silu"], "config is"),
        ({}, "config"),
    ):
        other = {k: v for k, v in about.items() if k != "config"} | (
            {} if config is None else {"config": config}
        )
        save_file({**load_file(two), "about": np.frombuffer(json.dumps(other).encode(), np.uint8)}, bad)
        with pytest.raises(CarrierError, match=f"is no LKD modulation.*{told}"):
            Modulation.load(bad)
    first = next(iter(modulation.layers))
    save_file({**load_file(two), f"{first}.gain": np.zeros((), np.float16)}, bad)
    with pytest.raises(CarrierError, match="is no LKD modulation"):
        Modulation.load(bad)


def test_parts_of_two_trainings_are_refused(decoder: Path, tmp_path: Path) -> None:
    extractor = small_extractor()
    modulation = replace(modulation_of(decoder), extractor=extractor.net_hash().hex())
    extractor.save(tmp_path / EXTRACTOR)
    modulation.save(tmp_path / MODULATION)
    assert Parts.load(tmp_path).extractor.net_hash() == extractor.net_hash()
    replace(extractor, unit=extractor.unit + 1).save(tmp_path / EXTRACTOR)
    with pytest.raises(UnavailableError, match="take both files of one export"):
        Parts.load(tmp_path)
    with pytest.raises(UnavailableError, match="the extractor reads 32"):
        Parts(modulation, small_extractor(bits=32))


def test_the_example_of_the_docs_runs(decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "marks.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    (block,) = (block for block in blocks if "image_weights" in block)
    extractor = gray_extractor()
    shutil.copytree(decoder, tmp_path / "model" / "vae")
    (tmp_path / "parts").mkdir()
    extractor.save(tmp_path / "parts" / EXTRACTOR)
    replace(modulation_of(decoder), extractor=extractor.net_hash().hex()).save(
        tmp_path / "parts" / MODULATION
    )
    marked = picture_of(word(KEY, 268435457, BITS, extractor.net_hash()))
    save_picture(Picture(marked), tmp_path / "found.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"Path": Path, "detect": detect, "key": KEY}
    exec(block, names)
    assert (tmp_path / "copy" / "vae" / "config.json").is_file()
    assert names["found"].detection.license == 268435457
