"""One detector for what was found: the right suspect, everything counted, clear refusals."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zhiyi_watermark import weights
from zhiyi_watermark.detect import Found, Suspect, TextSuspect, WeightsSuspect, detect
from zhiyi_watermark.errors import CarrierError, SpecError
from zhiyi_watermark.payload import Short
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig, user_of
from zhiyi_watermark.text_stream import Writer
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


def test_without_a_suspect_of_its_kind_nothing_is_said(base_file: Path) -> None:
    with pytest.raises(SpecError, match="in weights: none of the 5"):
        detect(base_file, suspects())
    with pytest.raises(SpecError, match="in a text: none of the 0"):
        detect("1 2 3", [])
