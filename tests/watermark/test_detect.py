"""One detector for what was found: the right suspect, everything counted, clear refusals."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zhiyi_watermark import stats, weights
from zhiyi_watermark import text_gaussian as gsw
from zhiyi_watermark.detect import Found, Suspect, TextSuspect, WeightsSuspect, WriterSuspect, detect
from zhiyi_watermark.errors import CarrierError, SpecError
from zhiyi_watermark.model_folder import load_model
from zhiyi_watermark.payload import Long, Short, fingerprint_of, user_of
from zhiyi_watermark.result import Detection, detection
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_stream import MAX_CHARACTERS, Writer
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM, ZeroBit

KEY, OTHER = (hashlib.sha256(name).digest() for name in (b"ours", b"theirs"))
VOCABULARY = 3000
BINPLUS = BinPlus(KEY, BinPlusConfig(delta=3.0))


class Numbers:
    """One token a word: its number."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        self.calls += 1
        return [int(word) for word in text.split()]


def written(writer: Writer, tokens: int = 300) -> str:
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(1)
    ids: list[int] = []
    for _ in range(tokens):
        values, tokens = writer(ids, torch.randn(VOCABULARY, generator=draw)).topk(50)
        ids.append(int(tokens[torch.multinomial(torch.softmax(values, -1), 1, generator=draw)]))
    return " ".join(map(str, ids))


def suspects() -> list[Suspect]:
    tokenizer = Numbers()
    marks = [ZeroBit(KEY, profile) for profile in (KGW, TOURNAMENT, UNIGRAM)]
    return [
        TextSuspect("theirs", ZeroBit(OTHER), tokenizer),
        TextSuspect("ours, with users", BINPLUS, tokenizer, users=50),
        *(TextSuspect(f"ours, {mark.config.name}", mark, tokenizer) for mark in marks),
    ]


@pytest.mark.parametrize("name", ["kgw", "tournament", "unigram"])
def test_the_mark_that_is_there_is_told(name: str) -> None:
    mark = ZeroBit(KEY, {"kgw": KGW, "tournament": TOURNAMENT, "unigram": UNIGRAM}[name])
    found = detect(written(mark.writer()), suspects())
    assert found.detection is not None
    assert (found.model, found.detection.method) == (f"ours, {name}", f"{name}-1")
    assert found.detection.decision == "detected"


def test_a_payload_is_told_and_every_suspect_counts() -> None:
    text = written(BINPLUS.writer(Short(7)))
    found, alone = (
        detect(text, given).detection
        for given in (suspects(), [TextSuspect("", BINPLUS, Numbers(), users=50)])
    )
    assert found is not None
    assert alone is not None
    assert found.payload is not None
    assert user_of(found.payload) == 7
    assert found.hypotheses == 5 * alone.hypotheses
    assert found.log2_p == alone.log2_p


def test_a_text_is_tokenized_once_a_tokenizer() -> None:
    given = suspects()
    detect("1 2 3", given)
    assert isinstance(given[0], TextSuspect)
    assert isinstance(given[0].tokenizer, Numbers)
    assert given[0].tokenizer.calls == 1


def test_a_text_of_nobody_is_nobodys() -> None:
    rng = np.random.default_rng(3)
    found = detect(" ".join(map(str, rng.integers(0, VOCABULARY, 400))), suspects())
    assert found.detection is not None
    assert found.detection.decision != "detected"
    assert found.detection.payload is None


def test_a_file_is_a_text_by_its_suffix(tmp_path: Path) -> None:
    text = written(ZeroBit(KEY).writer())
    path = tmp_path / "found.TXT"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())  # with a byte order mark, as editors write
    assert detect(path, suspects()) == detect(text, suspects())
    for junk, why in ((b"\xff\xfe1\x002\x00", "not UTF-8"), (b"1 2 \x00 3", "NUL")):
        path.write_bytes(junk)
        with pytest.raises(CarrierError, match=why):
            detect(path, suspects())
    with pytest.raises(CarrierError, match="cannot be read"):
        detect(tmp_path / "none.txt", suspects())
    for nothing in (b"", b"\xef\xbb\xbf \n\t", "\u200b \u2060\n".encode()):
        path.write_bytes(nothing)
        with pytest.raises(CarrierError, match="empty"):
            detect(path, suspects())
        with pytest.raises(CarrierError, match="empty"):
            detect([nothing.decode("utf-8-sig"), ""], suspects())
    path.write_bytes(b"1 " * (1 << 24))
    with pytest.raises(CarrierError, match="more than"):
        detect(path, suspects())


def test_weights_are_looked_for_among_the_models_whose_tensors_they_have(
    base_file: Path, tmp_path: Path
) -> None:
    spec = weights.plan(base_file, epsilon=0.05, code_bits=256, weights_per_bit=1024, weights_per_share=4096)
    kit = weights.TraceKit.derive(KEY, spec)
    ids = [(1 << 28) | n for n in range(20)]
    weights.mark(
        base_file, tmp_path / "copy", spec, kit.trace_key, ids[3], [bytes([i]) * 32 for i in range(16)]
    )
    strange = weights.TraceKit.derive(
        OTHER, replace(spec, tensors=(weights.TensorShape("other.weight", (4096, 4096)),))
    )
    mine = WeightsSuspect("ours", kit, ids)
    found = detect(tmp_path / "copy", [mine, WeightsSuspect("strange", strange, [1]), *suspects()])
    assert found.detection is not None
    assert (found.model, found.detection.license) == ("ours", ids[3])
    assert found.detection.hypotheses == 2 * len(ids)
    assert detect(tmp_path / "copy", [WeightsSuspect("strange", strange, [1])]) == Found(None, None)


def test_all_that_pass_are_told_the_least_p_first() -> None:
    text = written(ZeroBit(KEY, KGW).writer())
    tokenizer = Numbers()
    pair = [TextSuspect(name, ZeroBit(KEY, KGW), tokenizer) for name in ("one", "other")]
    found = detect(text, [*suspects(), *pair])
    assert [finding.model for finding in found.passing] == ["ours, kgw", "one", "other"]
    assert found.passing[0] == (found.model, found.detection)
    assert {finding.detection.decision for finding in found.passing} == {"detected"}
    nobody = detect("1 2 3", suspects())
    assert (nobody.passing, nobody.detection is None) == ((), False)


def of_tail(tail: stats.Tail, hypotheses: int = 1) -> Detection:
    return detection(
        tail,
        method="",
        n=1,
        T=1,
        sum_q2=1,
        hypotheses=hypotheses,
        threshold=stats.TRACE,
        null="",
        spec_hash=b"",
    )


def test_the_best_is_chosen_in_exact_numbers() -> None:
    """Of p that differ in the 90th bit, which no rounded logarithm shows; and counts of hypotheses weigh in."""
    p = Fraction(1, 10**30)
    small, smaller = (of_tail(stats.Tail("exact", x)) for x in (p, p - Fraction(1, 1 << 190)))
    thrice = of_tail(stats.Tail("exact", p / 2), hypotheses=3)
    assert small.log2_p_global == smaller.log2_p_global
    wide, narrow = (of_tail(stats.bound_tail(t, 10**12)) for t in (8_000_000, 8_000_001))
    nothing = of_tail(stats.bound_tail(-5, 10))
    ranked = sorted([nothing, wide, thrice, narrow, small, smaller], key=lambda found: found.order or ())
    assert [id(found) for found in ranked] == [id(x) for x in (smaller, small, thrice, narrow, wide, nothing)]
    assert "order" not in json.loads(small.to_json())


def test_the_order_counts_the_bits_that_the_law_reaches() -> None:
    for tail in (
        stats.binomial_tail(180, 256),
        stats.bound_tail(100, 300),
        stats.Tail("exact", Fraction(1, 1 << 50)),
    ):
        for count in (1, 3, 64):
            bits = -stats.order(tail, count)[0]
            assert tail.at_most(Fraction(1, 1 << bits), count)
            assert not tail.at_most(Fraction(1, 1 << (bits + 1)), count)
    assert stats.order(stats.Tail("exact", Fraction(1)), 5)[0] == 0


def test_texts_of_a_case_are_pooled_and_what_they_repeat_counts_once() -> None:
    mark = BinPlus(KEY, BinPlusConfig(delta=0.5))
    whole = written(mark.writer(Short(7)), 400).split()
    parts = [" ".join(whole[at : at + 100]) for at in range(0, 400, 100)]
    given = [TextSuspect("", mark, Numbers(), users=50)]
    alone, pooled, twice = (detect(case, given).detection for case in (parts[0], parts, [*parts, parts[0]]))
    assert alone is not None
    assert pooled is not None
    assert twice is not None
    assert alone.payload is None
    assert pooled.payload is not None
    assert user_of(pooled.payload) == 7
    assert twice.n == pooled.n


def test_only_known_licenses_count_and_can_be_named() -> None:
    mark = BinPlus(KEY, BinPlusConfig(delta=4.0, long=True, horizon=500))
    text = written(mark.writer(Long(123, 7)), 500)
    every, known, others = (
        detect(text, [TextSuspect("", mark, Numbers(), users=50, **given)]).detection
        for given in ({}, {"fingerprints": [5, 123]}, {"fingerprints": [5, 124]})
    )
    assert every is not None
    assert known is not None
    assert others is not None
    assert known.payload is not None
    assert fingerprint_of(known.payload) == 123
    assert every.hypotheses == known.hypotheses << 27
    assert others.payload is None


def test_texts_of_a_case_have_one_limit() -> None:
    half = "1 " * (MAX_CHARACTERS // 4 + 1)
    with pytest.raises(CarrierError, match="in all"):
        detect([half, half], suspects())


def test_a_writer_is_told_among_suspects_of_other_kinds(tmp_path: Path) -> None:
    tiny = Path(__file__).resolve().parents[1] / "models" / "tiny-lm"
    base = gsw.Base(tiny)
    spec = gsw.plan(tiny, epsilon=0.8, top_k=0)
    keys = {number: gsw.license_key(KEY, number) for number in range(1, 6)}
    gsw.mark(tiny, tmp_path / "copy", keys[3], spec)
    model, tokenizer = load_model(tmp_path / "copy"), base.tokenizer
    torch.manual_seed(3)
    prompt = torch.tensor([tokenizer.encode("The", add_special_tokens=False)])
    said: Any = model.generate(  # type: ignore[operator]  # transformers
        prompt, attention_mask=torch.ones_like(prompt), do_sample=True, top_k=0, max_new_tokens=150, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    text: str = tokenizer.decode(said[0].tolist())  # type: ignore[attr-defined]
    foreign = replace(spec, tokenizer_hash="0" * 64)  # passed over, and counted
    found = detect(
        text,
        [
            *(
                TextSuspect(name, ZeroBit(KEY, profile), tokenizer)
                for name, profile in (("kgw", KGW), ("uni", UNIGRAM))
            ),
            WriterSuspect("ours", base, spec, keys),
            WriterSuspect("foreign", base, foreign, keys),
        ],
    )
    assert found.detection is not None
    assert [finding.model for finding in found.passing] == ["ours"]
    assert (found.model, found.detection.license, found.detection.hypotheses) == ("ours", 3, 4 * len(keys))


def test_without_a_suspect_of_its_kind_nothing_is_said(base_file: Path) -> None:
    with pytest.raises(SpecError, match="in weights: none of the 5"):
        detect(base_file, suspects())
    with pytest.raises(SpecError, match="in a text: none of the 0"):
        detect("1 2 3", [])
    with pytest.raises(SpecError, match="no text"):
        detect([], suspects())
