"""The calibration itself: it scores what the detectors score, counts exactly, and would notice a wrong p."""

from __future__ import annotations

import sys
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import calibration
import zhiyi_watermark.image_generated as generated
import zhiyi_watermark.image_weights as decoders
from calibration import LEVELS, PAIRS, Block, Count, Objects
from fetch_model import FetchError
from report import clopper_pearson
from zhiyi_watermark import prf, stats, weights
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.payload import Long, Short
from zhiyi_watermark.pictures import Picture
from zhiyi_watermark.text_multibit import BinPlus
from zhiyi_watermark.text_stream import grams
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM, Profile, ZeroBit


def make_texts(count: int) -> list[list[int]]:
    rng = np.random.default_rng(4)
    return [rng.permutation(49_152)[: PAIRS + 2].tolist() for _ in range(count)]


def counted(*blocks: Block) -> Count:
    count = Count()
    for block in blocks:
        count.add(block)
    return count


@pytest.mark.parametrize(("hits", "n"), [(0, 40), (40, 40), (3, 1000), (117, 1_000_000), (1, 1)])
def test_intervals_of_proportions_are_scipys(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(hits, n) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_intervals_refuse_what_is_no_proportion() -> None:
    for hits, n in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match="proportion"):
            clopper_pearson(hits, n)


def test_binplus_totals_are_the_detectors() -> None:
    texts = make_texts(3)
    rows = np.stack([calibration.texts_of(text, 1)[0] for text in texts])
    (block,) = calibration.binplus_votes(rows, 3)
    mark = BinPlus(prf.derive_key(calibration.ROOT_KEY, "binplus", 0))
    word = 2 * mark.code.encode(Short(0)).astype(np.int64) - 1
    for text, matches in zip(texts, block.totals.tolist(), strict=True):
        votes = mark.draws.signs(mark.draws.of_grams(grams([text], 3).distinct))
        assert votes.shape == (PAIRS, 63)
        assert int(votes.sum(axis=0, dtype=np.int64) @ word) == 2 * matches - votes.size


@pytest.mark.parametrize("profile", [KGW, UNIGRAM, TOURNAMENT], ids=lambda p: p.name)
def test_zero_bit_totals_are_the_detectors(profile: Profile) -> None:
    texts = make_texts(2)
    rows = np.stack([calibration.texts_of(text, 1)[0] for text in texts])
    blocks = [block for _, block in calibration.zero_bit(profile, Objects({"en": rows}, []), 6)]
    for i, (text, block) in enumerate(zip(texts, blocks, strict=True)):
        for k, total in enumerate(block.totals.tolist()):
            key = prf.derive_key(calibration.ROOT_KEY, f"{profile.name}_en", i, k)
            found = ZeroBit(key, profile).detect(text)
            assert total == found.T
            assert found.log2_p == round(block.tail(total).log2_p, 6)


def test_a_pair_is_in_one_text_only() -> None:
    a, b = make_texts(2)
    found = calibration.texts_of(a + b + a + b[:50] + a, 2)
    assert found[0].tolist() == [a[i : i + 3] for i in range(PAIRS)]
    assert len({tuple(row) for row in found.reshape(-1, 3).tolist()}) == 2 * PAIRS
    with pytest.raises(FetchError, match="are wanted"):
        calibration.texts_of(a + a + a, 2)


def test_counts_are_those_of_every_single_p() -> None:
    tail = cache(partial(stats.binomial_tail, n=200))
    totals = np.random.default_rng(7).binomial(200, 0.55, 240)
    found = counted(Block(tail, totals[:100]), Block(tail, totals[100:]))
    assert found.pairs == 240
    for level, hits in found.hits.items():
        assert hits == sum(tail(int(t)).at_most(level) for t in totals)


def test_votes_counted_twice_are_noticed() -> None:
    """The mistake of repeated text: a million pairs would show it a hundred times over."""
    rng = np.random.default_rng(9)
    fair, twice = rng.binomial(1000, 0.5, 20_000), 2 * rng.binomial(500, 0.5, 20_000)
    tail = partial(stats.binomial_tail, n=1000)
    level = LEVELS["1e3"]
    low, _ = clopper_pearson(counted(Block(tail, twice)).hits[level], 20_000)
    assert low > 5 * level
    low, high = clopper_pearson(counted(Block(tail, fair)).hits[level], 20_000)
    assert low < level < high


def test_the_null_laws_of_weights_hold(tmp_path: Path) -> None:
    objects = Objects({}, calibration.random_tensors(tmp_path, 2), suspects=8)
    counts: dict[str, Count] = {}
    for label, block in calibration.wfp_confirm(objects, 4000):
        assert block.totals.shape == (500,)
        counts.setdefault(label, Count()).add(block)
    level = LEVELS["1e2"]
    exact, bound = counts["wfp_confirm"], counts["wfp_confirm_bound"]
    low, high = clopper_pearson(exact.hits[level], exact.pairs, 0.999)
    assert low <= level <= high
    assert bound.hits[level] <= exact.hits[level]


def test_confirm_totals_are_the_detectors(tmp_path: Path) -> None:
    """The product in float32 is exact."""
    objects = Objects({}, calibration.random_tensors(tmp_path, 1), suspects=1)
    _, block = next(iter(calibration.wfp_confirm(objects, 10)))
    q = calibration.confirm_objects(objects.tensors, 1)[0]
    signs = prf.signs(prf.derive_key(calibration.ROOT_KEY, "wfp signs", 0, 5), len(q))
    assert int(block.totals[5]) == stats.chip_test(q, signs).total


def test_the_extremes_are_of_exact_laws_only() -> None:
    level = LEVELS["1e4"]
    hits = {
        name: dict.fromkeys(LEVELS.values(), 0) for name in ("binplus_en", "wfp_trace", "wfp_confirm_bound")
    }
    hits["binplus_en"][level], hits["wfp_trace"][level] = 90, 160
    rows = {
        row.id: row for row in calibration.rates({name: Count(10**6, found) for name, found in hits.items()})
    }
    assert rows["binplus_en_fpr_1e4"].value == 90e-6
    assert rows["fpr_1e4_low"].value == pytest.approx(0.9)
    assert rows["fpr_1e4_low"].met
    assert rows["fpr_1e4_high"].value == pytest.approx(1.6)
    assert rows["fpr_1e4_high"].met is False
    assert "wfp_trace" in rows["fpr_1e4_high"].what


def test_innocent_licenses_pass_at_chip_level_only(tmp_path: Path) -> None:
    found = calibration.innocent_licenses(calibration.random_tensors(tmp_path, 1), tmp_path, 10_000)
    assert (found.tests, found.hits, found.named, found.objects) == (10_000, 0, 1, 1)
    assert found.chip_hits > 100


def test_license_scores_are_those_of_single_codewords(tmp_path: Path) -> None:
    (tensor,) = calibration.random_tensors(tmp_path, 1)
    kit = weights.TraceKit.derive(bytes(32), calibration.spec_of(tensor.name, tensor.shape))
    q = np.random.default_rng(1).integers(-15, 16, kit.spec.code_bits)
    scored = weights.LicenseScores.of(kit.trace_key, q)
    chances = [Fraction(int(p), 256) for p in scored.parts]
    for license_id, total in zip((3, 4, 99), scored.totals([3, 4, 99]).tolist(), strict=True):
        word = weights.codeword(kit.trace_key, license_id, len(q)).tolist()
        expected = sum(
            v * ((15 if p < 0.5 else 4) if bit > 0 else (-4 if p < 0.5 else -15))
            for v, bit, p in zip(q.tolist(), word, chances, strict=True)
        )
        assert total == expected


def make_picture(seed: int = 0, side: int = 128) -> Picture:
    rough = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Picture(np.kron(rough, np.ones((8, 8, 1), dtype=np.uint8)))


def test_totals_of_a_finished_picture_are_the_detectors() -> None:
    picture, key = make_picture(), prf.derive_key(calibration.ROOT_KEY, "dss", 0)
    mark = Dss(key)
    mine = mark.layout >= 0
    readings = mark.chips([picture])
    word = mark.code.signs(Long(1, 1))[mark.layout[mine]]
    signs = mark.signs[mine]
    for q, reading in zip(calibration.dss_chips(picture, key), (readings[0], readings[-1]), strict=True):
        expected = stats.chip_test(reading[mine], signs * word)
        (total,) = calibration.keyed_totals(q, 1, lambda _: bytes(32))
        assert total == stats.chip_test(q, prf.signs(bytes(32), len(q))).total
        assert stats.chip_test(q, signs) == expected


def test_finished_pictures_give_a_million_pairs() -> None:
    blocks = list(calibration.dss(Objects({}, [], pictures=[make_picture(), make_picture(1)]), 4000))
    assert [label for label, _ in blocks] == ["dss", "dss_bound"] * 4
    assert sum(block.totals.size for label, block in blocks if label == "dss") == 4000
    counts = {"dss": Count(), "dss_bound": Count()}
    for label, block in blocks:
        counts[label].add(block)
    level = LEVELS["1e2"]
    low, high = clopper_pearson(counts["dss"].hits[level], 4000, 0.999)
    assert low <= level <= high
    assert counts["dss_bound"].hits[level] <= counts["dss"].hits[level]


def test_totals_of_a_generated_picture_are_the_detectors() -> None:
    spec = generated.KgsSpec("0" * 64, "epsilon", 4, 16, 16, 2)
    q = np.random.default_rng(2).integers(-15, 16, (1, *spec.shape)).astype(np.int8)
    noise = generated.Noise(q, (generated.View(),), spec.spec_hash().hex(), "00")
    key, nonce = bytes(range(32)), 77
    mark = generated.Kgs(key, spec)
    flat, signs_key = calibration.kgs_chips(noise, spec, key, nonce)
    (total,) = calibration.keyed_totals(flat, 1, lambda _: signs_key)
    carried = mark.signs(Long(1, 1), nonce).reshape(-1)
    chips = mark._places[1]
    assert total == stats.chip_test(q.reshape(-1)[chips], carried[chips]).total


def test_words_on_pictures_have_the_law_that_the_detector_reports(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layer = decoders.Layer(
        rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8), np.zeros(8, dtype=np.int32),
        np.full(8, (1 << decoders.SHIFT) // 200, dtype=np.int32), 2,
    )  # fmt: skip
    head = rng.integers(-127, 128, (64, 8)).astype(np.int8)
    extractor = decoders.Extractor((layer,), head, rng.integers(-(1 << 20), 1 << 20, 64), 200_000, 64)
    extractor.save(tmp_path / "extractor.safetensors")
    picture = make_picture()
    ((label, block),) = calibration.lkd(
        Objects({}, [], pictures=[picture]), 500, tmp_path / "extractor.safetensors"
    )
    assert label == "lkd"
    key = prf.derive_key(calibration.ROOT_KEY, "lkd", 0)
    reader = decoders.LkdReader(extractor, key)
    found = reader.verdict([extractor.read(picture)], range(500))
    best = int(block.totals.max())
    assert best == found.T
    assert block.tail(best).log2_p == pytest.approx(found.log2_p, abs=1e-6)
    assert not list(calibration.lkd(Objects({}, [], pictures=[picture]), 500, tmp_path / "none"))


def test_every_method_has_a_line_for_each_label() -> None:
    assert {"dss", "dss_bound", "kgs", "kgs_bound", "kgs_word", "kgs_listed", "lkd"} <= set(
        calibration.SERIES
    )
    only = {row.id for row in calibration.rates({"lkd": Count(10, dict.fromkeys(LEVELS.values(), 0))})}
    assert only == {f"lkd_fpr_{name}" for name in LEVELS}  # no exact law with p near every level: no extremes
