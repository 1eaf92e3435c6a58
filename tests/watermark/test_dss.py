"""DSS: who is named, who never is, what a mark survives, and that the detector is the same on every machine."""

from __future__ import annotations

import hashlib
import math
import tracemalloc
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from luck import lucky

from zhiyi_watermark import image_finished, prf, stats
from zhiyi_watermark.attacks import image as attacks
from zhiyi_watermark.errors import SpecError, UnavailableError
from zhiyi_watermark.image_finished import CHIPS, MAX_Q, Dss, DssConfig, canonical, spec_hash
from zhiyi_watermark.payload import Long, fingerprint_of, user_of
from zhiyi_watermark.pictures import Picture

KEY = hashlib.sha256(b"picture key").digest()
PAYLOAD = Long(123_456, 77)
USERS = 1000
Rgb = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


def textured(height: int, width: int, name: bytes = b"texture") -> Rgb:
    """A picture with detail of all sizes, made in integers: the same everywhere.  # (height, width, 3)"""
    total = np.zeros((height, width, 3), dtype=np.int64)
    for size in (4, 8, 16, 32, 64):
        rows, columns = height // size + 2, width // size + 2
        drawn = prf.keystream(prf.derive_key(KEY, "texture", name, size), rows * columns * 3).astype(np.int64)
        coarse = drawn.reshape(rows, columns, 3)
        y, x = np.arange(height), np.arange(width)
        fy, fx = (y % size)[:, None, None], (x % size)[None, :, None]
        low = coarse[y // size][:, x // size] * (size - fx) + coarse[y // size][:, x // size + 1] * fx
        high = (
            coarse[y // size + 1][:, x // size] * (size - fx) + coarse[y // size + 1][:, x // size + 1] * fx
        )
        total += (low * (size - fy) + high * fy) * size // (size * size)
    return np.clip(total // 124 + 30, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def dss() -> Dss:
    return Dss(KEY)


@pytest.fixture(scope="module")
def plain() -> Rgb:
    return textured(400, 400)


@pytest.fixture(scope="module")
def marked(dss: Dss, plain: Rgb) -> Rgb:
    return dss.embed(Picture(plain), PAYLOAD).rgb


def names(dss: Dss, *pictures: Rgb) -> bool:
    """Whether PAYLOAD is named; another message is a failure."""
    found = dss.detect_case([Picture(p) for p in pictures], USERS)
    assert found.payload in (None, dss.code.message(PAYLOAD))
    assert (
        (found.license == PAYLOAD.fingerprint)
        == (found.payload is not None)
        == (found.decision == "detected")
    )
    return found.payload is not None


def psnr(a: Rgb, b: Rgb) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean()))


def test_the_message_is_read_and_the_picture_hardly_changes(dss: Dss, plain: Rgb, marked: Rgb) -> None:
    found = dss.detect(Picture(marked), USERS)
    assert found.decision == "detected"
    assert found.license == PAYLOAD.fingerprint
    assert found.payload == dss.code.message(PAYLOAD)
    assert found.log2_p_global < -25  # 2^28 licenses could be named
    issued = dss.detect(Picture(marked), USERS, range(123_400, 123_500))
    assert issued.payload == found.payload
    assert issued.log2_p_global < -43
    assert issued.bucket >= 12
    assert psnr(marked, plain) > 37.4
    assert found.T > 0
    assert 0 < found.n <= 8 * 381
    assert found.sum_q2 <= found.n * MAX_Q**2


@pytest.mark.parametrize(
    "name",
    ["jpeg50", "blur4_8x8", "noise05", "bright15", "contrast15", "resize50", "median7", "drop40", "flip"],
)
def test_it_lives_through(name: str, dss: Dss, marked: Rgb) -> None:
    assert names(dss, attacks.SUITE[name](marked, 3))


@pytest.mark.parametrize("name", ["crop50", "rotate25", "crop_resize75"])
def test_it_is_found_blind(name: str, dss: Dss, marked: Rgb) -> None:
    assert names(dss, attacks.SUITE[name](marked, 3))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_it_is_found_turned_by_right_angles(turns: int, dss: Dss, marked: Rgb) -> None:
    assert names(dss, np.rot90(marked, turns))


@pytest.mark.parametrize("factor", [0.4, 1.7])
def test_the_size_of_the_copy_does_not_matter(factor: float, dss: Dss, marked: Rgb) -> None:
    assert names(dss, attacks.resize(marked, factor))


@pytest.mark.parametrize("size", [(128, 128), (150, 420), (701, 333)])
def test_any_size_and_proportion_is_marked(size: tuple[int, int], dss: Dss) -> None:
    picture = textured(*size)
    made = dss.embed(Picture(picture), PAYLOAD).rgb
    assert made.shape == picture.shape
    assert psnr(made, picture) > 37.4
    assert names(dss, attacks.jpeg(made, 80))


def to_light(red: tuple[float, float], green: tuple[float, float], blue: tuple[float, float]) -> Matrix:
    """Linear colors of these primaries (CIE x, y) under D65 to XYZ (IEC 61966-2-1, Adobe RGB 1998, Display P3)."""
    x, y = np.array([red, green, blue]).T
    primaries = np.array([x / y, np.ones(3), (1 - x - y) / y])
    white = np.array([0.3127 / 0.329, 1, (1 - 0.3127 - 0.329) / 0.329])
    return np.asarray(primaries * np.linalg.solve(primaries, white), dtype=np.float64)


SRGB = to_light((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
PROFILES = {
    "Adobe RGB": to_light((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
    "Display P3": to_light((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_it_lives_through_a_conversion_to_srgb(profile: str, dss: Dss, marked: Rgb) -> None:
    """Profiles are kept and never applied, so whoever converts a marked picture changes its stored values."""
    stored = marked / 255
    curve = stored**2.2 if profile == "Adobe RGB" else np.where(
        stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4
    )  # fmt: skip
    linear = np.clip(curve @ np.linalg.solve(SRGB, PROFILES[profile]).T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    converted = np.rint(255 * srgb).astype(np.uint8)
    assert psnr(converted, marked) < 36
    assert names(dss, converted)


def test_nobody_is_named_from_an_unmarked_picture_or_by_another_key(
    dss: Dss, plain: Rgb, marked: Rgb
) -> None:
    for key, picture in ((KEY, plain), (bytes(32), marked)):
        found = Dss(key).detect(Picture(picture), 1 << 16)
        assert found.decision == "not_detected"
        assert found.payload is None
        assert found.license is None
        assert found.log2_p_global == 0
        assert found.bucket == 0


def test_a_message_that_is_not_registered_is_not_named(dss: Dss, marked: Rgb) -> None:
    readings = dss.chips([Picture(marked)])
    assert dss.verdict(readings, [77], [123_456]).decision == "detected"
    for users, fingerprints in (([76, 78], [123_456]), ([77], [123_455, 123_457])):
        assert dss.verdict(readings, users, fingerprints).decision == "not_detected"


def test_every_hypothesis_counts(dss: Dss, marked: Rgb) -> None:
    readings = dss.chips([Picture(marked)])
    alone = dss.verdict(readings, [77], [123_456])
    assert alone.hypotheses == len(readings)
    many = dss.verdict(readings, 1 << 10, 1 << 20, models=4)
    assert many.hypotheses == len(readings) << 32
    assert many.log2_p == alone.log2_p
    assert alone.log2_p_global == pytest.approx(-64)  # of one reading: the search was not needed
    assert many.log2_p_global == pytest.approx(-64 + 32)
    noise = np.random.default_rng(1).integers(-1, 2, (9, *readings[0].shape))
    apart = dss.verdict(readings + noise * (np.arange(9) > 0)[:, None, None], [77], [123_456])
    assert apart.log2_p_global == pytest.approx(-64 + math.log2(9))


def mixed(dss: Dss, payloads: list[Long], seed: int, noise: float = 4) -> npt.NDArray[np.int64]:
    """One reading of pictures of several messages as one case, with noise.  # (1, 64, 64)"""
    rng = np.random.default_rng(seed)
    words = sum(dss.code.signs(payload).astype(np.int64) for payload in payloads)
    chips = dss.signs * np.where(dss.layout < 0, len(payloads), words[np.maximum(dss.layout, 0)])
    return np.asarray(chips + np.rint(rng.normal(0, noise, chips.shape)).astype(np.int64))[None]


def test_a_word_that_several_messages_mix_to_names_nobody(dss: Dss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven messages in one case: the likeliest word is often nobody's, and the chips speak for it plainly, because
    the key marked them. Here it opens to a right message by chance, and that chance is what is told."""
    mine = dss.layout >= 0
    nobodys = plain = 0
    for seed in range(16):
        payloads = [Long(10 * seed + i, i + 1) for i in range(7)]
        readings = mixed(dss, payloads, seed)
        sums = stats.bit_sums(readings[0][mine], dss.signs[mine], dss.layout[mine], 127).q
        with monkeypatch.context() as patched:
            innocent = lucky(patched, dss.code, sums)
            said = dss.verdict(readings, 1 << 16)
        assert said.license in (None, innocent.fingerprint)
        if innocent not in payloads:
            nobodys += 1
            plain += said.log2_p < -20
            assert said.log2_p_global >= -20  # 2^44 messages of 2^64
    assert nobodys >= 8
    assert plain == nobodys


def test_three_messages_do_not_multiply_to_a_fourth(dss: Dss) -> None:
    """Whoever knows the patterns of three messages, by averaging many pictures, can draw their product."""
    for first in range(0, 60, 3):
        payloads = [Long(first + i, 5 * first + i) for i in range(3)]
        patterns = [mixed(dss, [payload], 0, noise=0) for payload in payloads]
        product = np.prod(patterns, axis=0)
        head = Long(*np.bitwise_xor.reduce(payloads).tolist())
        said = np.packbits(dss.bits(product)).tobytes()
        assert (user_of(said), fingerprint_of(said)) != (head.user, head.fingerprint)
        assert dss.verdict(product, 1 << 16).license is None


def test_pictures_of_a_case_add_up(dss: Dss) -> None:
    weak = Dss(KEY, DssConfig(psnr_most=50.0, psnr_least=50.0))
    made = []
    for i in range(4):
        picture = textured(256, 256, bytes([i]))
        noisy = attacks.noise(weak.embed(Picture(picture), PAYLOAD).rgb, 0.1, i)
        made.append(noisy)
    assert not names(dss, made[0])
    assert names(dss, *made)


def test_equal_pictures_of_a_case_count_once(dss: Dss, marked: Rgb) -> None:
    once, twice = dss.chips([Picture(marked)]), dss.chips([Picture(marked), Picture(marked.copy())])
    assert np.array_equal(once, twice)


def test_bits_are_told_whether_or_not_they_are_a_message(dss: Dss, plain: Rgb, marked: Rgb) -> None:
    message = np.unpackbits(np.frombuffer(dss.code.message(PAYLOAD), dtype=np.uint8))
    assert np.array_equal(dss.bits(dss.chips([Picture(marked)])), message)
    other = dss.bits(dss.chips([Picture(plain)]))
    assert other.shape == (64,)
    assert 10 < int((other != message).sum()) < 54


def test_only_pixels_change_and_the_callers_stay(dss: Dss) -> None:
    pixels = textured(128, 160)
    before = Picture(pixels.copy(), pixels[..., 0].copy(), b"profile", False)
    after = dss.embed(before, PAYLOAD)
    assert after.icc == b"profile"
    assert after.alpha is not None
    assert np.array_equal(after.alpha, pixels[..., 0])
    assert np.array_equal(before.rgb, pixels)
    assert not np.array_equal(after.rgb, pixels)


def test_gray_pictures_stay_gray(dss: Dss) -> None:
    level = textured(256, 256)[..., :1]
    picture = Picture(np.repeat(level, 3, axis=2), gray=True)
    made = dss.embed(picture, PAYLOAD).rgb
    assert int(np.ptp(made.astype(int), axis=2).max()) == 0
    assert psnr(made, picture.rgb) > 37.4
    assert names(dss, made)


def test_flat_pictures_are_examined_without_a_message(dss: Dss) -> None:
    for level in (0, 255):
        flat = np.full((128, 128, 3), level, dtype=np.uint8)
        assert dss.detect(Picture(flat), USERS).payload is None
        assert dss.embed(Picture(flat), PAYLOAD).rgb.shape == flat.shape


def test_sizes_that_are_not_marked_are_refused(dss: Dss) -> None:
    for shape in ((1, 1, 3), (127, 500, 3), (128, 1025, 3)):
        picture = Picture(np.zeros(shape, dtype=np.uint8))
        for call in (lambda p: dss.detect(p, USERS), lambda p: dss.embed(p, PAYLOAD)):
            with pytest.raises(UnavailableError, match="128 px a side"):
                call(picture)


def test_what_can_not_be_marked_or_asked_is_refused(dss: Dss, plain: Rgb) -> None:
    with pytest.raises(UnavailableError, match="16 bits"):
        dss.embed(Picture(plain, lossy="it has 16 bits"), PAYLOAD)
    with pytest.raises(SpecError, match="pictures"):
        dss.chips([])
    with pytest.raises(SpecError, match="pictures"):
        dss.chips([Picture(plain)] * 65)
    readings = np.zeros((1, CHIPS, CHIPS), dtype=np.int64)
    for users, fingerprints in ((0, 1), ([], 1), ([1 << 16], 1), (1, [-1]), (1, (1 << 28) + 1)):
        with pytest.raises(SpecError, match="numbers must lie"):
            dss.verdict(readings, users, fingerprints)
    for least, most in ((45.0, 40.0), (10.0, 40.0), (40.0, 90.0)):
        with pytest.raises(SpecError, match="psnr_least"):
            DssConfig(psnr_most=most, psnr_least=least)
    with pytest.raises(SpecError, match="32 bytes"):
        Dss(b"short")


def test_area_means_are_exact_on_odd_sizes() -> None:
    rgb = textured(131, 173)
    found = canonical(Picture(rgb))
    luma = rgb.astype(object) @ np.array([77, 150, 29], dtype=object)
    assert found.shape == (512, 173 * 512 // 131)
    for i, j in ((0, 0), (3, 7), (200, 511), (511, 675)):
        total = Fraction(0)
        for y in range(i * 131 // 512, min(131, (i + 1) * 131 // 512 + 1)):
            for x in range(j * 131 // 512, min(173, (j + 1) * 131 // 512 + 1)):
                high = min(512 * (y + 1), (i + 1) * 131) - max(512 * y, i * 131)
                wide = min(512 * (x + 1), (j + 1) * 131) - max(512 * x, j * 131)
                total += max(0, high) * max(0, wide) * Fraction(int(luma[y, x]))
        assert found[i, j] == (total / 131**2 + Fraction(1, 2)).__floor__()


def test_the_sync_pattern_is_drawn_apart_and_bits_lie_evenly(dss: Dss) -> None:
    for y in range(0, CHIPS, 16):
        for x in range(0, CHIPS, 32):
            counts = np.bincount(dss.layout[y : y + 16, x : x + 32].reshape(-1) + 1)
            assert counts[0] == 131
            assert (counts[1:] == 3).all()
            assert len(counts) == 128


def test_memory_is_bounded_by_the_picture_and_strips(dss: Dss) -> None:
    rgb = np.tile(textured(256, 256), (6, 8, 1))  # 1536 x 2048
    tracemalloc.start()
    dss.embed(Picture(rgb), PAYLOAD)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rgb.nbytes + (40 << 20)


def test_fifty_megapixels_are_marked_in_bounded_memory(dss: Dss) -> None:
    rgb = np.tile(textured(512, 512, b"large"), (12, 16, 1))  # 6144 x 8192
    tracemalloc.start()
    made = dss.embed(Picture(rgb), PAYLOAD).rgb
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        peak < rgb.nbytes + 256 * 8192 * 40
    )  # the marked picture, and 40 bytes a pixel of a strip of 256 rows
    assert names(dss, made)


def test_a_lattice_that_twelve_others_hide_at_first_is_found(
    dss: Dss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a faint mark the coarse search shows wrong lattices before the right one; what is refined decides."""
    image = image_finished.integral(canonical(Picture(integer_marked(dss, 192))))
    right = image_finished._standing(image)
    near = right._replace(y=right.y + right.cell // 8)
    wrong = [right._replace(cell=right.cell - 65536 * (i + 1) // 16, row=9, column=i) for i in range(12)]
    shown = iter([image_finished._Hit(60 - i, 100, at) for i, at in enumerate([*wrong, near])])
    nothing = image_finished._Hit(0, 100, right._replace(row=1))
    monkeypatch.setattr(Dss, "_scan", lambda self, image, at, **how: next(shown, nothing))
    found = dss._register(image)
    assert found[0].reaches(image_finished._SURE)
    assert (found[0].lattice.row, found[0].lattice.column) == (0, 0)
    assert abs(found[0].lattice.y - right.y) < right.cell // 16


def integer_marked(dss: Dss, size: int) -> Rgb:
    """A picture marked without floats: 3 px a cell, +-8 gray levels on a texture."""
    word = 2 * dss.code.encode(PAYLOAD).astype(np.int64) - 1
    chips = dss.signs * np.where(dss.layout < 0, 1, word[np.maximum(dss.layout, 0)])
    drawn = np.repeat(np.repeat(chips, size // CHIPS, axis=0), size // CHIPS, axis=1)
    return np.clip(textured(size, size, b"golden").astype(np.int64) + 8 * drawn[..., None], 0, 255).astype(
        np.uint8
    )


GOLDEN = {
    "as it is": "91d7d5a2f67c7d162d344460451efe93",
    "cropped": "8eda4b10eeb7a4f371aa908d4848d84d",
    "turned": "91d7d5a2f67c7d162d344460451efe93",
}


def test_detection_is_the_same_on_every_machine(dss: Dss) -> None:
    picture = integer_marked(dss, 192)
    objects = {"as it is": picture, "cropped": picture[17:162, 5:150], "turned": np.rot90(picture)}
    found = {}
    for name, pixels in objects.items():
        readings = dss.chips([Picture(np.ascontiguousarray(pixels))])
        said = dss.verdict(readings, USERS)
        assert said.license == PAYLOAD.fingerprint, name
        found[name] = hashlib.sha256(readings.astype("<i8").tobytes() + said.digest(dss.kit_key)).hexdigest()[
            :32
        ]
    assert found == GOLDEN
    assert spec_hash().hex()[:32] == "891840acc57e2ae8e7431063a763ce36"
