"""KGS: the noise stays Gaussian, messages come back through flips, turns and crops, and innocents are left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from luck import lucky
from scipy import stats as reference

from zhiyi_watermark import image_generated as kgs
from zhiyi_watermark import stats
from zhiyi_watermark.attacks import image as attacks
from zhiyi_watermark.detect import PictureSuspect, detect
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.image_generated import FLIPS, Inverter, Kgs, KgsReader, KgsSpec, Noise, View
from zhiyi_watermark.model_folder import load_pipeline
from zhiyi_watermark.payload import Long
from zhiyi_watermark.pictures import Picture, save_picture

KEY = bytes(range(32))
PAYLOAD = Long(fingerprint=123_456, user=77)
USERS = 1 << 16
MARK = Kgs(KEY, KgsSpec("0" * 64, "epsilon", 4, 32, 32, 2))


def seen(mark: Kgs, latent: npt.NDArray[np.float32], flips: float, seed: int, name: str = "00") -> Noise:
    """What an inversion gives that adds so much Gaussian noise that this share of the signs is wrong."""
    right = np.cos(np.pi * flips)
    noise = np.random.default_rng(seed).standard_normal(latent.shape)
    q = np.clip(np.rint(4 * (right * latent + np.sqrt(1 - right * right) * noise)), -15, 15).astype(np.int8)
    return Noise(q[None], (View(),), mark.spec.spec_hash().hex(), name)


def marked(mark: Kgs, nonce: int, flips: float, seed: int, name: str = "00") -> Noise:
    return seen(mark, mark.latents([PAYLOAD], [nonce], np.random.default_rng(seed))[0], flips, seed + 1, name)


# --- the noise


def test_starting_noise_is_gaussian() -> None:
    rng = np.random.default_rng(1)
    parts = []
    for i in range(40):
        mark = Kgs(bytes([i]) * 32, MARK.spec)
        parts.append(mark.latents([PAYLOAD, Long(i, i)], [i, 4095 - i], rng))
    every = np.concatenate(parts)  # (80, 4, 32, 32)
    assert every.dtype == np.float32
    assert reference.kstest(every.reshape(-1), "norm").pvalue > 1e-3
    assert (
        reference.kstest(every.mean(axis=0).reshape(-1) * np.sqrt(80), "norm").pvalue > 1e-3
    )  # at each place
    beside = (every[..., :-1] * every[..., 1:]).mean()
    assert abs(beside) * np.sqrt(every.size) < 4


def test_pictures_of_one_message_share_nothing_unless_they_share_the_nonce() -> None:
    rng = np.random.default_rng(2)
    one, other, same = MARK.latents([PAYLOAD] * 3, [5, 6, 5], rng)
    assert abs((np.sign(one) * np.sign(other)).mean()) < 4 / np.sqrt(one.size)
    assert np.array_equal(np.sign(one), np.sign(same))
    assert not np.array_equal(one, same)


def test_noise_that_cannot_be_made_is_refused() -> None:
    rng = np.random.default_rng(0)
    for payloads, nonces in (
        ([PAYLOAD], [4096]),
        ([PAYLOAD], [-1]),
        ([PAYLOAD], []),
        ([Long(1 << 28, 0)], [0]),
    ):
        with pytest.raises(SpecError):
            MARK.latents(payloads, nonces, rng)


# --- reading


@pytest.mark.parametrize(("side", "flips"), [(32, 0.1), (32, 0.3), (32, 0.37), (64, 0.4)])
def test_the_message_comes_back_through_wrong_signs(side: int, flips: float) -> None:
    mark = Kgs(KEY, replace(MARK.spec, rows=side, columns=side))
    noise = marked(mark, 3210, flips, seed=side)
    said = mark.verdict([noise], USERS)
    assert (said.decision, said.license, said.payload) == ("detected", 123_456, mark.code.message(PAYLOAD))
    assert mark.chosen(noise).nonce == 3210
    assert (
        mark.bits([noise]).tobytes() == np.unpackbits(np.frombuffer(said.payload, dtype=np.uint8)).tobytes()
    )


def test_another_key_finds_nothing() -> None:
    noise = marked(MARK, 7, 0.1, seed=1)
    said = Kgs(bytes(32), MARK.spec).verdict([noise], USERS)
    assert (said.decision, said.license, said.payload, said.bucket) == ("not_detected", None, None, 0)


def test_numbers_that_are_not_registered_are_never_named() -> None:
    noise = marked(MARK, 7, 0.2, seed=1)
    for users, fingerprints in ((range(77), [123_456]), ([77], [123_457]), ([78], 1 << 28)):
        said = MARK.verdict([noise], users, fingerprints)
        assert (said.license, said.payload) == (None, None)
        assert said.decision == "detected"  # the key is in it, and nobody is named
    assert MARK.verdict([noise], [77], [123_456]).license == 123_456


def as_likely(sums: npt.NDArray[np.int64], word: npt.NDArray[np.uint8]) -> float:
    """P that fair signs of |sums|, in units of which their median has 21 and at most 63, agree as well with a word."""
    unit = (3 * int(np.median(np.abs(sums))) + 62) // 63
    sizes = np.minimum((2 * np.abs(sums) + unit) // (2 * unit), 63)
    law = np.ones(1)  # of the total from -sum(sizes) on
    for size in sizes.tolist():
        step = np.zeros(2 * size + 1)
        step[0] += 0.5
        step[-1] += 0.5
        law = np.convolve(law, step)
    total = int((sizes * np.sign(sums) * (2 * word.astype(int) - 1)).sum())
    return float(law[int(sizes.sum()) + total :].sum())


def test_every_message_is_paid_for() -> None:
    noise = marked(MARK, 7, 0.2, seed=1)
    many = MARK.verdict([noise], USERS)
    assert many.hypotheses == 2 << 44
    fair = as_likely(MARK.chosen(noise).sums, MARK.code.encode(PAYLOAD))
    assert fair < 2.0**-70
    assert many.log2_p_global == pytest.approx(np.log2(2.0**45 * fair + 2.0**-20), abs=1e-3)
    few = MARK.verdict([noise], [77, 78], [123_456], models=3)
    assert (few.license, few.hypotheses, few.n) == (123_456, 2 * 3 * 2, 64)
    assert few.log2_p_global == pytest.approx(np.log2(12 * 2.0**-64 + 6 * 2.0**-64), abs=1e-3)  # no bit wrong


def test_a_bare_key_pays_for_every_nonce_reading_and_message() -> None:
    said = MARK.verdict([marked(MARK, 7, 0.2, seed=1)], [78], models=3)
    assert (said.license, said.hypotheses) == (None, 3 * 2 * kgs.NONCES * kgs.READINGS << 64)


def test_a_message_too_faint_for_its_crowd_is_not_named() -> None:
    word = MARK.code.encode(PAYLOAD)
    noise = marked(MARK, 9, 0.44, seed=7)
    sums = MARK.chosen(noise).sums
    assert 2.0**-66 < as_likely(sums, word) < 2.0**-64
    assert np.array_equal(MARK.code.nearest(sums), word)
    assert MARK.verdict([noise], [77], [123_456]).license == 123_456  # one message was looked for
    assert MARK.verdict([noise], USERS).license is None  # 2^44 were


def test_wrong_bits_of_which_little_was_seen_cost_little() -> None:
    """15 or more wrong bits of 127 lie in one of 2^44 balls too often, whatever they weigh."""
    word = MARK.code.encode(PAYLOAD)
    noise = marked(MARK, 9, 0.42, seed=6)
    wrong = MARK.chosen(noise).sums * (2 * word.astype(int) - 1) <= 0
    assert 14 < np.count_nonzero(wrong) < 26
    assert MARK.verdict([noise], USERS).license == 123_456


def test_few_messages_are_each_tried_where_the_likeliest_word_is_nobodys() -> None:
    noise = marked(MARK, 9, 0.44, seed=1)
    assert MARK.bits([noise]).tobytes() != MARK.bits([marked(MARK, 9, 0.1, seed=1)]).tobytes()
    assert MARK.verdict([noise], USERS).license is None
    said = MARK.verdict([noise], [77], range(123_000, 124_000))
    assert (said.license, said.hypotheses) == (123_456, 2000)
    assert said.payload == MARK.code.message(PAYLOAD)


def test_equal_totals_name_nobody() -> None:
    silent = Noise(np.zeros((1, 4, 32, 32), dtype=np.int8), (View(),), MARK.spec.spec_hash().hex(), "00")
    for users in ([77], range(9)):
        said = MARK.verdict([silent], users, [123_456])
        assert (said.decision, said.license) == ("not_detected", None)


@pytest.mark.parametrize("others", [0, 1, 3])
def test_a_list_names_nobody_too_often(monkeypatch: pytest.MonkeyPatch, others: int) -> None:
    """Of pictures without the key, made for somebody who is not listed, or multiplied of three: the law holds."""
    monkeypatch.setattr(kgs, "NONCES", 8)
    mark = Kgs(b"\x09" * 32, replace(MARK.spec, rows=16, columns=16))
    rng = np.random.default_rng(8)
    tails = []
    for trial in range(150):
        made = rng.standard_normal(mark.spec.shape).astype(np.float32)
        if others:
            payloads = [Long(10_000 + 10 * trial + i, 5) for i in range(others)]
            made = np.abs(made) * np.prod(np.sign(mark.latents(payloads, [3] * others, rng)), axis=0)
        sums = mark.chosen(seen(mark, made, 0.2, trial)).sums
        places = mark.code.independent(sums)
        for fingerprint in range(20):
            word = mark.code.signs(Long(20 * trial + fingerprint, 0)).astype(np.int64)
            tails.append(stats.sign_tail(sums[places], int((sums * word)[places].sum())).log2_p)
    for p in (0.3, 0.1, 0.01, 0.001):
        passed = np.count_nonzero(np.array(tails) <= np.log2(p))
        assert passed <= reference.binom(len(tails), p).isf(1e-4)


def test_signs_without_the_key_are_fair_coins_and_the_bound_holds() -> None:
    mark = Kgs(b"\7" * 32, replace(MARK.spec, rows=16, columns=16))
    rng = np.random.default_rng(4)
    q = np.clip(np.rint(4 * rng.standard_normal((32, 896))), -15, 15).astype(np.int64)
    signs = np.stack([mark._signs(nonce) for nonce in range(4096)]).astype(np.int64)
    totals = signs @ q.T  # (4096, 32): 131,072 pairs
    squares = (q * q).sum(axis=1)
    z = totals / np.sqrt(squares)
    assert abs(float((z * z).mean()) - 1) < 5 * np.sqrt(2 / z.size)
    for p in (1e-1, 1e-2, 1e-3, 1e-4):
        passed = sum(
            stats.bound_tail(int(t), int(s)).log2_p <= np.log2(p)
            for t, s in zip(
                totals[z > 1].tolist(), np.broadcast_to(squares, z.shape)[z > 1].tolist(), strict=True
            )
        )
        assert passed <= reference.binom(z.size, p).isf(1e-4)


def test_the_choice_of_a_nonce_tells_nothing_about_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kgs, "NONCES", 64)
    mark = Kgs(b"\x08" * 32, replace(MARK.spec, rows=16, columns=16))
    word = 2 * mark.code.encode(PAYLOAD).astype(int) - 1
    rng = np.random.default_rng(6)
    wrong, tails = [], []
    for _ in range(400):
        noise = seen(
            mark, rng.standard_normal(mark.spec.shape).astype(np.float32), 0.2, int(rng.integers(1 << 30))
        )
        sums = mark.chosen(noise).sums
        wrong.append(float((1 - np.sign(sums * word)).sum() / 2))
        tails.append(as_likely(sums, (word > 0).astype(np.uint8)))
    for p in (0.3, 0.1, 0.03):
        assert np.count_nonzero(np.array(tails) <= p) <= reference.binom(400, p).isf(1e-4)
    law = reference.binom(127, 0.5)
    assert abs(np.mean(wrong) - 63.5) < 4 * law.std() / np.sqrt(400)
    assert 0.7 < np.var(wrong) / law.var() < 1.3


def test_a_word_that_several_messages_mix_to_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven pictures of seven messages as one case: the nearest word is often nobody's, 19 to 28 bits away, which is
    near enough where one message is registered. Here it opens to a right message by chance, and that is told."""
    monkeypatch.setattr(kgs, "NONCES", 128)
    mark = Kgs(KEY, MARK.spec)  # signs are kept in it
    nobodys = 0
    for seed in range(12):
        payloads = [Long(10 * seed + i, i + 1) for i in range(7)]
        rng = np.random.default_rng(seed)
        noises = [
            seen(mark, mark.latents([payload], [10 * seed + i], rng)[0], 0.1, seed * 10 + i, str(i))
            for i, payload in enumerate(payloads)
        ]
        sums = np.sum([mark.chosen(noise).sums for noise in noises], axis=0)
        with monkeypatch.context() as patched:
            innocent = lucky(patched, mark.code, sums)
            said = mark.verdict(noises, [innocent.user], 1 << 28)
        assert said.license in (None, innocent.fingerprint)
        if innocent not in payloads:
            nobodys += 1
            assert said.license is None or said.log2_p_global >= -36  # 2^28 messages of 2^64
    assert nobodys >= 8


# --- cases of several pictures


def test_where_nobody_is_named_the_null_is_of_pictures_made_without_the_key() -> None:
    """Those made with it for a license that may not be named are detected."""
    noise = marked(MARK, 9, 0.1, seed=1)
    named, other = MARK.verdict([noise], USERS), MARK.verdict([noise], [78])
    assert (named.decision, named.license, named.null) == ("detected", 123_456, kgs.NULL)
    assert (other.decision, other.license, other.null) == ("detected", None, kgs.NULL_KEY)


def test_pictures_of_one_message_are_one_case() -> None:
    noises = [marked(MARK, nonce, 0.44, seed=10 * nonce + 1, name=str(nonce)) for nonce in (11, 12, 13)]
    assert all(MARK.verdict([noise], USERS).license is None for noise in noises)
    said = MARK.verdict(noises, USERS)
    assert said.license == 123_456
    assert said.hypotheses == 2 << 44
    bare = MARK.verdict(noises, [78])
    assert (bare.license, bare.hypotheses) == (None, 2 * (kgs.NONCES * kgs.READINGS) ** 3 << 64)


def test_replayed_noise_is_no_new_evidence() -> None:
    noise = marked(MARK, 11, 0.3, seed=5)
    alone, bare = MARK.verdict([noise], USERS), MARK.verdict([noise], [78])
    again = [noise, replace(noise, picture_hash="01")]
    twice, bare_twice = MARK.verdict(again, USERS), MARK.verdict(again, [78])
    assert twice.log2_p_global == pytest.approx(alone.log2_p_global, abs=0.01)
    assert (bare_twice.n, bare_twice.T, bare_twice.sum_q2) == (bare.n, 2 * bare.T, 4 * bare.sum_q2)
    assert bare_twice.log2_p_global >= bare.log2_p_global
    assert MARK.verdict([noise, noise], USERS) == alone  # one picture given twice


def test_cases_that_make_no_sense_are_refused() -> None:
    noise = marked(MARK, 11, 0.3, seed=5)
    other = Kgs(KEY, replace(MARK.spec, steps=25))
    wrong: tuple[Callable[[], object], ...] = (
        lambda: MARK.verdict([], USERS),
        lambda: MARK.verdict([replace(noise, picture_hash=str(i)) for i in range(65)], USERS),
        lambda: MARK.verdict([noise], []),
        lambda: MARK.verdict([noise], (1 << 16) + 1),
        lambda: MARK.verdict([noise], USERS, models=0),
        lambda: other.verdict([noise], USERS),
        lambda: replace(noise, q=noise.q.astype(np.int16)),
        lambda: replace(noise, q=np.full_like(noise.q, 16)),
        lambda: replace(noise, views=(View(), View())),
    )
    for call in wrong:
        with pytest.raises(SpecError):
            call()


# --- integers shared between operators


def test_shared_noise_within_one_unit_is_accepted() -> None:
    ours = marked(MARK, 11, 0.2, seed=5)
    rng = np.random.default_rng(1)
    q = np.clip(ours.q + rng.integers(-1, 2, ours.q.shape), -15, 15).astype(np.int8)
    given = replace(ours, q=q)
    assert kgs.detect_shared(MARK, [given], [ours], USERS) == MARK.verdict([given], USERS)


def test_who_adds_a_key_to_shared_noise_is_found_out() -> None:
    """One unit everywhere is within the agreement, and names whom the forger likes."""
    rng = np.random.default_rng(3)
    ours = seen(MARK, rng.standard_normal(MARK.spec.shape).astype(np.float32), 0.0, 1)
    q = np.clip(ours.q + MARK.signs(Long(9, 9), 40), -15, 15).astype(np.int8)
    forged = replace(ours, q=q)
    assert MARK.verdict([forged], USERS).license == 9
    with pytest.raises(CarrierError, match="do not sign"):
        kgs.detect_shared(MARK, [forged], [ours], USERS)


def test_shared_noise_of_something_else_is_refused() -> None:
    ours = marked(MARK, 11, 0.2, seed=5)
    far = replace(ours, q=np.where(np.arange(32) < 1, -ours.q, ours.q).astype(np.int8))
    with pytest.raises(CarrierError, match="agrees"):
        kgs.detect_shared(MARK, [far], [ours], USERS)
    for other in (
        replace(ours, picture_hash="01"),
        replace(ours, spec_hash="00"),
        replace(ours, views=(View(turn=1),)),
    ):
        with pytest.raises(UnavailableError):
            kgs.detect_shared(MARK, [other], [ours], USERS)
    with pytest.raises(UnavailableError):
        kgs.detect_shared(MARK, [], [], USERS)


def test_noise_is_kept_in_a_file(tmp_path: Path) -> None:
    noise = marked(MARK, 11, 0.2, seed=5)
    path = tmp_path / "noise.safetensors"
    noise.save(path)
    again = Noise.load(path)
    assert np.array_equal(again.q, noise.q)
    assert (again.views, again.digest()) == (noise.views, noise.digest())
    body = bytearray(path.read_bytes())
    body[body.index(noise.q.tobytes())] ^= 1
    path.write_bytes(body)
    with pytest.raises(CarrierError, match="hash"):
        Noise.load(path)
    path.write_bytes(body[:-1])
    with pytest.raises(CarrierError):
        Noise.load(path)


def test_noise_is_written_into_a_new_file_only(tmp_path: Path) -> None:
    noise, path, link = marked(MARK, 11, 0.2, seed=5), tmp_path / "noise.safetensors", tmp_path / "link"
    path.write_bytes(b"as it was")
    link.symlink_to(tmp_path / "nowhere")
    for taken in (path, link):
        with pytest.raises(FileExistsError):
            noise.save(taken)
    assert path.read_bytes() == b"as it was"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("view", [b"[0.0,1000,false", b"[0,1000,0", b"[false,1000,false", b'["",1000,false'])
def test_a_view_of_other_types_is_no_view(tmp_path: Path, view: bytes) -> None:
    """0.0 equals 0 and would give the same noise another digest."""
    from safetensors.numpy import save_file

    noise, path = marked(MARK, 11, 0.2, seed=5), tmp_path / "noise.safetensors"
    about = noise._about.replace(b"[0,1000,false", view)
    assert about != noise._about
    save_file({"about": np.frombuffer(about, dtype=np.uint8), "q": noise.q}, path)
    with pytest.raises(CarrierError, match="is no view"):
        Noise.load(path)


def test_a_file_of_other_tensors_is_no_noise(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    q = np.zeros((1, 4, 8, 8), dtype=np.int8)
    path = tmp_path / "noise.safetensors"
    for about in (
        b"[]",
        b"{",
        b"[" * 3000,
        b'{"views": 3}',
        b'{"views": [[1]], "spec_hash": 1, "picture_hash": 2}',
    ):
        save_file({"about": np.frombuffer(about, dtype=np.uint8), "q": q}, path)
        with pytest.raises(CarrierError):
            Noise.load(path)
    save_file({"q": q}, path)
    with pytest.raises(CarrierError):
        Noise.load(path)


# --- specifications


def test_a_spec_is_read_back_and_nothing_else_is() -> None:
    text = MARK.spec.to_json()
    assert KgsSpec.from_json(text) == MARK.spec
    fields = json.loads(text)
    for wrong in (
        "", "[]", "3", "[" * 5000, text[:-1], text.replace(":32", ":32.0"), json.dumps(fields),
        json.dumps(fields | {"more": 1}),
    ):  # fmt: skip
        with pytest.raises(SpecError):
            KgsSpec.from_json(wrong)
    for name, value in (
        ("model_hash", "x"), ("model_hash", 3), ("prediction", "sample"), ("channels", 0), ("rows", True),
        ("columns", 4096), ("rows", 8.0), ("cell", 0), ("steps", 1), ("search_steps", "9"), ("rows", 9),
    ):  # fmt: skip
        spec = fields | {"columns": 8} if (name, value) == ("rows", 9) else fields
        with pytest.raises(SpecError):
            KgsSpec(**{**spec, name: value})


def test_everything_of_a_spec_is_in_its_hash() -> None:
    base = MARK.spec.spec_hash()
    for change in (
        {"model_hash": "1" * 64}, {"prediction": "v_prediction"}, {"channels": 8}, {"rows": 16}, {"columns": 16},
        {"cell": 8}, {"steps": 20}, {"search_steps": 5},
    ):  # fmt: skip
        assert replace(MARK.spec, **change).spec_hash() != base


# --- what happens to a picture


@pytest.fixture(scope="module")
def shown() -> tuple[Inverter, Kgs, Picture]:
    """A reader of pictures that show the noise, and a marked one of them: 64 x 64 px, 3 x 32 x 32 chips."""
    from diffusion import open_pipeline

    pipeline = open_pipeline()
    spec = kgs.plan(pipeline, search_steps=2, steps=4)
    assert spec.shape == (3, 32, 32)
    mark = Kgs(KEY, spec)
    latent = mark.latents([PAYLOAD], [99], np.random.default_rng(8))[0]
    colors = np.clip(np.rint(127.5 * (1 + latent.transpose(1, 2, 0) / 2.5)), 0, 255).astype(np.uint8)
    return Inverter(pipeline, spec), mark, Picture(np.repeat(np.repeat(colors, 2, axis=0), 2, axis=1))


def test_a_picture_as_it_is_needs_no_search(shown: tuple[Inverter, Kgs, Picture]) -> None:
    model, mark, picture = shown
    noise = model.noise(picture, mark, kgs.wide_views(mark.spec))
    assert noise.views == (View(),)
    assert mark.verdict([noise], USERS).license == 123_456


@pytest.mark.parametrize(
    ("attack", "undone"),
    [
        (lambda rgb: attacks.flip(rgb), {"flip": True}),
        (lambda rgb: attacks.rotate(rgb, 24), {"turn": 24}),
        (lambda rgb: attacks.rotate(rgb, 75), {"turn": 74}),
        (lambda rgb: attacks.flip(attacks.rotate(rgb, 40)), {"turn": 40, "flip": True}),
    ],
)
def test_turned_and_mirrored_pictures_are_put_back(
    shown: tuple[Inverter, Kgs, Picture], attack: Callable[[Any], Any], undone: dict[str, int]
) -> None:
    model, mark, picture = shown
    views = [view for view in kgs.wide_views(mark.spec) if view.scale == 1000]
    noise = model.noise(Picture(attack(picture.rgb)), mark, views)
    assert View(**undone) in noise.views[1:]
    said = mark.verdict([noise], USERS)
    assert said.license == 123_456
    assert mark.chosen(noise).nonce == 99


@pytest.mark.parametrize("seed", [1, 2])
def test_cropped_pictures_are_put_back(shown: tuple[Inverter, Kgs, Picture], seed: int) -> None:
    model, mark, picture = shown
    views = [v for v in kgs.wide_views(mark.spec) if 800 < v.scale < 950 and not v.flip]
    cut = attacks.crop_and_resize(picture.rgb, 0.75, seed)
    noise = model.noise(Picture(cut), mark, views)
    assert len(noise.views) > 1
    assert mark.verdict([noise], USERS).license == 123_456
    assert mark.verdict([model.noise(Picture(cut), mark, ())], USERS).license is None


def test_pictures_read_together_are_read_as_each_alone(shown: tuple[Inverter, Kgs, Picture]) -> None:
    model, mark, picture = shown
    given = [picture, Picture(attacks.flip(picture.rgb)), Picture(attacks.jpeg(picture.rgb, 80))]
    together = model.noises(given, mark)
    mirrored = (View(), View(late=True), View(flip=True))
    assert [noise.views for noise in together] == [(View(),), mirrored, (View(),)]
    for one, noise in zip(given, together, strict=True):
        assert noise.digest() == model.noise(one, mark).digest()
    assert model.noises([], mark) == []


def test_the_pictures_of_a_case_are_inverted_in_batches(
    shown: tuple[Inverter, Kgs, Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, mark, picture = shown
    given = [Picture(attacks.jpeg(picture.rgb, quality)) for quality in (95, 90, 85)]
    alone = mark.verdict([model.noise(one, mark) for one in given], USERS)
    sizes: list[int] = []
    invert = model.invert

    def counted(latents: Any, steps: int, **options: bool) -> Any:
        sizes.append(len(latents))
        return invert(latents, steps, **options)

    monkeypatch.setattr(model, "invert", counted)
    monkeypatch.setattr(model, "batch", 2)
    reader = KgsReader(mark, model)
    said = reader.detect_case([given[0], *given], USERS)
    assert sizes == [2, 1]
    assert (said.license, said.n, said.T) == (alone.license, alone.n, alone.T)
    reader.noise(given[-1])  # is kept
    reader.detect(given[-1], USERS)
    assert sizes == [2, 1]
    reader.detect_case(given, USERS)
    assert sizes == [2, 1, 2]


def test_what_fits_nothing_is_read_as_it_is(shown: tuple[Inverter, Kgs, Picture]) -> None:
    model, mark, _ = shown
    plain = Picture(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise = model.noise(plain, mark, kgs.wide_views(mark.spec)[:120])
    assert noise.views == (View(), View(late=True))
    assert mark.verdict([noise], USERS).decision == "not_detected"


def test_what_is_damaged_is_inverted_late_and_searched_only_if_that_is_unclear(
    shown: tuple[Inverter, Kgs, Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, mark, picture = shown
    invert, asked = model.invert, []

    def misled(latents: Any, steps: int, *, late: bool = False) -> Any:
        asked.append((len(latents), steps, late))
        return invert(latents, steps) if late else 0 * latents

    monkeypatch.setattr(model, "invert", misled)
    noise = model.noise(picture, mark, kgs.wide_views(mark.spec))
    assert noise.views == (View(), View(late=True))
    assert asked == [(1, mark.spec.steps, False), (1, mark.spec.search_steps, True)]
    assert mark.chosen(noise).reading == 1
    assert mark.verdict([noise], USERS).license == 123_456
    with pytest.raises(SpecError, match="read late where they need it"):
        model.noise(picture, mark, [View(turn=5, late=True)])


def test_views_are_undone_where_the_picture_reaches() -> None:
    spec = KgsSpec("0" * 64, "epsilon", 4, 16, 16, 2)
    rgb = np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3)
    frame, inside = kgs._framed(Picture(rgb), View(), spec)
    assert np.array_equal(frame, rgb)
    assert inside.all()
    frame, inside = kgs._framed(Picture(rgb), View(flip=True), spec)
    assert np.array_equal(frame, rgb[:, ::-1])
    _, inside = kgs._framed(Picture(rgb), View(turn=45), spec)
    assert not inside[0, 0]
    assert inside[8, 8]
    assert 0.6 < inside.mean() < 0.85
    frame, inside = kgs._framed(Picture(rgb), View(scale=500, down=1), spec)
    assert inside.sum() == 7 * 8
    assert (frame[~np.repeat(np.repeat(inside, 2, 0), 2, 1)][:40] == 128).all()


def test_cells_are_moved_with_zeros_after_them() -> None:
    q = np.arange(1, 13, dtype=np.int8).reshape(1, 3, 4)
    assert kgs.moved(q, 1, -1).tolist() == [[[0, 0, 0, 0], [2, 3, 4, 0], [6, 7, 8, 0]]]
    assert kgs.moved(q, -2, 1).tolist() == [[[0, 9, 10, 11], [0, 0, 0, 0], [0, 0, 0, 0]]]
    assert np.array_equal(kgs.moved(q, 0, 0), q)


@pytest.mark.parametrize("shape", [(4, 64), (64, 800)])
def test_pictures_of_unfit_sizes_are_refused(
    shown: tuple[Inverter, Kgs, Picture], shape: tuple[int, int]
) -> None:
    model, mark, _ = shown
    with pytest.raises(UnavailableError, match="px"):
        model.noise(Picture(np.zeros((*shape, 3), dtype=np.uint8)), mark)


def test_detect_names_the_maker_of_a_generated_picture(
    shown: tuple[Inverter, Kgs, Picture], tmp_path: Path
) -> None:
    model, mark, picture = shown
    save_picture(Picture(attacks.flip(picture.rgb)), tmp_path / "found.png")
    found = detect(tmp_path / "found.png", [PictureSuspect("ours", KgsReader(mark, model), USERS)])
    assert found.detection is not None
    assert (found.model, found.detection.license) == ("ours", 123_456)
    bare = detect(tmp_path / "found.png", [PictureSuspect("ours", KgsReader(mark, model, views=()), USERS)])
    assert bare.detection is not None
    assert bare.detection.license is None


# --- pipelines of diffusers


@pytest.mark.parametrize("kind", ["ddim", "dpm"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_inversion_leads_back_to_the_starting_noise(kind: str, prediction: str) -> None:
    import torch
    from diffusion import tiny_pipeline

    pipeline = tiny_pipeline(kind, prediction)
    spec = kgs.plan(pipeline)
    assert (spec.shape, spec.cell, spec.prediction) == ((4, 16, 16), 2, prediction)
    mark, model = Kgs(KEY, spec), Inverter(pipeline, spec)
    noise = torch.from_numpy(mark.latents([PAYLOAD] * 2, [1, 2], np.random.default_rng(3)))
    ends = pipeline(
        prompt=["owl", ""], latents=noise, guidance_scale=1.0, num_inference_steps=50, output_type="latent"
    ).images
    with torch.inference_mode():
        back = model.invert(ends, 50)
    assert float((back.sign() == noise.sign()).float().mean()) > 0.97
    assert float(back.std()) == pytest.approx(1, abs=0.15)


def test_late_inversions_begin_with_latents_as_they_are_scaled_there() -> None:
    import torch
    from diffusion import tiny_pipeline

    pipeline = tiny_pipeline()
    model = Inverter(pipeline, kgs.plan(pipeline))
    latents = torch.ones(1, 4, 16, 16)
    seen = []
    pipeline.unet.register_forward_pre_hook(
        lambda _, given: seen.append((int(given[1]), float(given[0].mean())))
    )
    with torch.inference_mode():
        model.invert(latents, 3)
        model.invert(latents, 3, late=True)
    alphas = kgs._alphas(pipeline)
    assert [t for t, _ in seen] == [0, 333, 666, 249, 499, 749]
    assert seen[0][1] == 1.0
    assert seen[3][1] == pytest.approx(alphas[249] ** 0.5)


@pytest.mark.parametrize("xl", [False, True])
def test_pictures_are_made_and_read(xl: bool) -> None:
    from diffusion import tiny_pipeline

    pipeline = tiny_pipeline(xl=xl)
    spec = kgs.plan(pipeline, steps=3, search_steps=2)
    mark = Kgs(KEY, spec)
    made = kgs.generate(pipeline, mark, ["owl", "ow"], PAYLOAD, seed=1, nonces=[4, 5], steps=3)
    again = kgs.generate(pipeline, mark, ["owl", "ow"], PAYLOAD, seed=1, nonces=[4, 5], steps=3)
    assert [m.nonce for m in made] == [4, 5]
    assert made[0].picture.rgb.shape == (32, 32, 3)
    assert [m.picture.digest for m in made] == [m.picture.digest for m in again]
    assert made[0].picture.digest != made[1].picture.digest
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    one, two = Inverter(pipeline, spec, batch=1), Inverter(pipeline, spec, batch=8)
    views = (*FLIPS, View(turn=10), View(scale=900))
    framed = [(made[0].picture, view) for view in views]
    alone, together = one._read(framed, 3), two._read(framed, 3)
    assert int(np.abs(alone.astype(int) - together).max()) <= 1
    assert one.noise(made[0].picture, mark, ()).q.shape == (2, *spec.shape)
    assert all(bool((value == before[name]).all()) for name, value in pipeline.unet.state_dict().items())


@pytest.mark.parametrize("xl", [False, True])
def test_a_pipeline_is_the_same_from_its_folder(xl: bool, tmp_path: Path) -> None:
    from diffusion import tiny_pipeline

    pipeline = tiny_pipeline(xl=xl)
    pipeline.save_pretrained(tmp_path)
    assert kgs.plan(load_pipeline(tmp_path)) == kgs.plan(pipeline)


def test_drawn_nonces_lie_in_range_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusion import tiny_pipeline

    pipeline = tiny_pipeline()
    mark = Kgs(KEY, kgs.plan(pipeline))
    made = kgs.generate(pipeline, mark, ["owl"] * 6, PAYLOAD, seed=1, steps=1)
    assert len({m.nonce for m in made}) > 1
    assert all(0 <= m.nonce < kgs.NONCES for m in made)


def test_one_seed_gives_other_sizes_to_each_nonce_payload_and_key_and_batches_do_not_matter() -> None:
    import torch
    from diffusion import scheduler

    seen: list[npt.NDArray[np.float32]] = []

    def pipeline(latents: torch.Tensor, **_: Any) -> Any:
        seen.append(np.abs(latents.numpy()))
        return SimpleNamespace(images=np.zeros((len(latents), 64, 64, 3)))

    pipeline.scheduler = scheduler("ddim", "epsilon")  # type: ignore[attr-defined]  # as a pipeline has it
    pipeline.unet = SimpleNamespace(device="cpu", dtype=torch.float32)  # type: ignore[attr-defined]  # the same
    kgs.generate(pipeline, MARK, ["owl", "ow"], PAYLOAD, seed=1, nonces=[4, 5])
    kgs.generate(pipeline, MARK, ["ow"], PAYLOAD, seed=1, nonces=[5])
    kgs.generate(pipeline, MARK, ["ow"], PAYLOAD, seed=2, nonces=[5])
    kgs.generate(pipeline, MARK, ["ow"], PAYLOAD._replace(user=78), seed=1, nonces=[5])
    kgs.generate(pipeline, replace(MARK, key=bytes(32)), ["ow"], PAYLOAD, seed=1, nonces=[5])
    (four, five), *others = seen[0], *(one[0] for one in seen[1:])
    assert np.array_equal(others[0], five)
    for other in (four, *others[1:]):
        assert abs(np.corrcoef(other.reshape(-1), five.reshape(-1))[0, 1]) < 5 / np.sqrt(five.size)
    with pytest.raises(SpecError, match="as many nonces"):
        kgs.generate(pipeline, MARK, ["owl", "ow"], PAYLOAD, seed=1, nonces=[4])


def test_pictures_without_numbers_are_refused() -> None:
    """As a VAE in half precision draws them; saved they would be black."""
    from diffusion import tiny_pipeline

    pipeline = tiny_pipeline()
    pipeline.vae.decoder.conv_out.bias.data[:] = float("nan")
    with pytest.raises(UnavailableError, match="infinite"):
        kgs.generate(pipeline, Kgs(KEY, kgs.plan(pipeline)), ["owl"], PAYLOAD, seed=1, steps=1)


def test_another_model_is_refused() -> None:
    from diffusion import tiny_pipeline

    pipeline = tiny_pipeline()
    spec = kgs.plan(pipeline)
    assert kgs.plan(tiny_pipeline("dpm")) == spec  # the solver does not matter, the weights do
    Inverter(pipeline, spec)
    for part in ("vae", "unet", "text_encoder"):
        value = next(iter(getattr(pipeline, part).parameters()))
        value.data[0] += 1
        with pytest.raises(UnavailableError, match="SHA-256"):
            Inverter(pipeline, spec)
        value.data[0] -= 1
    with pytest.raises(SpecError):
        Inverter(pipeline, spec, batch=0)


def test_pipelines_that_cannot_be_marked_are_refused() -> None:
    from diffusers import EulerAncestralDiscreteScheduler
    from diffusion import scheduler, tiny_pipeline

    pipeline = tiny_pipeline()
    mark = Kgs(KEY, kgs.plan(pipeline))
    for wrong in ({"height": 33}, {"width": 2}):
        with pytest.raises(SpecError):
            kgs.plan(pipeline, **wrong)
    with pytest.raises(SpecError):
        kgs.generate(pipeline, mark, [], PAYLOAD, seed=1)
    pipeline.scheduler = scheduler("ddim", "sample")
    with pytest.raises(UnavailableError, match="predicts"):
        kgs.plan(pipeline)
    pipeline.scheduler = EulerAncestralDiscreteScheduler()
    with pytest.raises(UnavailableError, match="noise"):
        kgs.generate(pipeline, mark, ["owl"], PAYLOAD, seed=1)
    pipeline.unet = None
    with pytest.raises(UnavailableError, match="unet"):
        kgs.plan(pipeline)
