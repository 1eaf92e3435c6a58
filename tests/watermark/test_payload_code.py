"""BCH against bchlib and brute force; authenticated payloads."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import bchlib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyi_watermark import prf
from zhiyi_watermark.bch import BCH_63, BCH_127, Bch
from zhiyi_watermark.errors import SpecError
from zhiyi_watermark.payload import Long, Nameable, PayloadCode, Short

KEY = prf.derive_key(bytes(32), "payload tests")
CODES = [pytest.param(BCH_63, id="63"), pytest.param(BCH_127, id="127")]


def data_bits(code: Bch, raw: bytes) -> npt.NDArray[np.uint8]:
    bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8))
    return np.concatenate([np.zeros(code.k - len(bits), dtype=np.uint8), bits])


@pytest.mark.parametrize("code", CODES)
def test_parity_is_that_of_bchlib(code: Bch) -> None:
    peer = bchlib.BCH(code.t, m=code.m)
    rng = np.random.default_rng(1)
    for _ in range(20):
        raw = rng.bytes(code.k // 8)
        parity = code.encode(data_bits(code, raw))[code.k :]
        assert np.packbits(parity).tobytes() == bytes(peer.encode(raw))[: -(-len(parity) // 8)]


def test_code_sizes() -> None:
    assert (BCH_63.n, BCH_63.k, BCH_63.t) == (63, 36, 5)
    assert (BCH_127.n, BCH_127.k, BCH_127.t) == (127, 64, 10)


@pytest.mark.parametrize("code", CODES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_up_to_t_errors_are_corrected(code: Bch, seed: int) -> None:
    rng = np.random.default_rng(seed)
    word = code.encode(rng.integers(0, 2, code.k, dtype=np.uint8))
    hurt = word.copy()
    hurt[rng.choice(code.n, rng.integers(0, code.t + 1), replace=False)] ^= 1
    kept = hurt.copy()
    fixed = code.decode(hurt)
    assert fixed is not None
    assert (fixed == word).all()
    assert (hurt == kept).all()


@pytest.mark.parametrize("code", CODES)
def test_decoding_is_bounded_distance(code: Bch) -> None:
    """Beyond t errors: None, or a codeword that is within t of the word; never anything else."""
    rng = np.random.default_rng(2)
    nothing = 0
    for _ in range(150):
        word = rng.integers(0, 2, code.n, dtype=np.uint8)
        fixed = code.decode(word)
        if fixed is None:
            nothing += 1
            continue
        assert (code.encode(fixed[: code.k]) == fixed).all()
        assert int((fixed != word).sum()) <= code.t
    assert nothing > 100  # the balls fill 6 % of the space of BCH(63,36), less of the other


def test_brute_force_agrees_for_every_pattern_of_two_errors() -> None:
    word = BCH_63.encode(data_bits(BCH_63, b"\xde\xad\xbe\xef"))
    for a, b in combinations(range(63), 2):
        hurt = word.copy()
        hurt[[a, b]] ^= 1
        fixed = BCH_63.decode(hurt)
        assert fixed is not None
        assert (fixed == word).all()


@pytest.mark.parametrize("code", CODES)
def test_soft_decoding_beats_the_radius_and_always_returns_a_codeword(code: Bch) -> None:
    rng = np.random.default_rng(4)
    right = beyond = 0
    for _ in range(30):
        word = code.encode(rng.integers(0, 2, code.k, dtype=np.uint8))
        scores = np.rint(20 * (2.0 * word - 1 + rng.normal(0, 0.72, code.n))).astype(np.int64)
        found = code.decode_soft(scores)
        assert (code.encode(found[: code.k]) == found).all()
        right += bool((found == word).all())
        beyond += int(((scores > 0) != word).sum()) > code.t
    assert right >= 26
    assert beyond >= 5


@given(user=st.integers(0, 0xFFFF), fingerprint=st.integers(0, 2**28 - 1))
@settings(max_examples=25, deadline=None)
def test_payloads_come_back(user: int, fingerprint: int) -> None:
    for code, payload in (
        (PayloadCode(KEY, False), Short(user)),
        (PayloadCode(KEY, True), Long(fingerprint, user)),
    ):
        word = code.encode(payload)
        assert code.decode(word) == payload
        assert code.decode_soft(2 * word.astype(np.int64) - 1) == payload
        hurt = word.copy()
        hurt[: code.code.t] ^= 1
        assert code.decode(hurt) == payload


def test_message_layout() -> None:
    short = PayloadCode(KEY, False).message(Short(0xABCD))
    assert len(short) == 4
    assert short[:2] == b"\xab\xcd"
    long = PayloadCode(KEY, True).message(Long(0x1234567, 0xABCD))
    assert len(long) == 8
    assert long[:6] == bytes.fromhex("11234567abcd")


def test_another_key_reads_nothing() -> None:
    other = PayloadCode(prf.derive_key(KEY, "other"), False)
    mine = PayloadCode(KEY, False)
    assert all(other.decode_soft(2 * mine.encode(Short(u)).astype(np.int64) - 1) is None for u in range(200))


def test_a_wrong_codeword_almost_never_passes_the_mac() -> None:
    code = PayloadCode(KEY, False)
    rng = np.random.default_rng(6)
    assert sum(code.decode_soft(rng.integers(-50, 51, 63)) is not None for _ in range(400)) == 0


def test_every_bit_of_the_message_is_authenticated() -> None:
    """Moving to the codeword of a message with one bit changed never yields an accepted message."""
    code = PayloadCode(KEY, False)
    plain = np.empty(63, dtype=np.uint8)
    plain[code._order()] = code.encode(Short(77))
    for row in code.code.rows:
        assert code.decode((plain ^ row)[code._order()]) is None


def test_values_out_of_range_are_refused() -> None:
    for payload in (Short(-1), Short(1 << 16), Long(1, 2)):
        with pytest.raises(SpecError):
            PayloadCode(KEY, False).encode(payload)
    with pytest.raises(SpecError, match="fingerprint"):
        PayloadCode(KEY, True).encode(Long(1 << 28, 0))
    with pytest.raises(SpecError):
        BCH_63.encode(np.zeros(35, dtype=np.uint8))
    with pytest.raises(SpecError):
        BCH_63.decode(np.full(63, 2, dtype=np.uint8))


def test_a_mixable_code_carries_every_message() -> None:
    code = PayloadCode(KEY, long=True, mixable=True)
    rng = np.random.default_rng(3)
    for _ in range(20):
        payload = Long(int(rng.integers(1 << 28)), int(rng.integers(1 << 16)))
        word = code.encode(payload)
        assert code.decode(word) == payload
        assert code.decode_soft(2 * word.astype(np.int64) - 1) == payload
        said = np.packbits(code.data_bits(2 * word.astype(np.int64) - 1)).tobytes()
        assert said == code.message(payload)
    assert (PayloadCode(KEY, long=True).encode(payload) != word).any()
    assert (PayloadCode(bytes(32), long=True, mixable=True).encode(payload) != word).any()


def test_the_product_of_three_words_of_a_mixable_code_opens_to_fair_bits() -> None:
    code = PayloadCode(KEY, long=True, mixable=True)
    opened = []
    for i in range(200):
        words = [code.encode(Long(3 * i + j, 7 * i + j)) for j in range(3)]
        product = words[0] ^ words[1] ^ words[2]
        assert code.decode(product) is None
        opened.append(code.data_bits(2 * product.astype(np.int64) - 1))
    ones = np.mean(opened, axis=0)  # a bit's standard deviation is .035
    assert np.abs(ones - 0.5).max() < 0.16
    assert PayloadCode(KEY, long=True).decode(product) is None  # by its MAC alone
    with pytest.raises(SpecError, match="mixable"):
        PayloadCode(KEY, long=True).wrong_message(Nameable.of(1))
    assert code.wrong_message(Nameable.of(1 << 16)) == Fraction(1, 1 << 20)


@pytest.mark.parametrize("long", [True, False])
def test_a_list_has_the_word_of_every_message(long: bool) -> None:
    code = PayloadCode(KEY, long=long, mixable=long)
    known = Nameable.of([3, 9, 65_535], range(7, 11), long=long)
    messages, words = code.listed(known)
    assert len(messages) == len(set(messages)) == known.count == len(words)
    assert all(message in known for message in messages)
    for message, word in zip(messages, words, strict=True):
        assert np.array_equal(word, code.signs(message))


def test_the_places_of_most_weight_tell_a_codeword() -> None:
    code = PayloadCode(KEY, long=True, mixable=True)
    rng = np.random.default_rng(5)
    scores = rng.integers(-500, 500, 127)
    places = code.independent(scores)
    assert len(np.unique(places)) == 64
    assert np.abs(scores[places]).mean() > np.abs(scores).mean() * 1.3
    _, words = code.listed(Nameable.of(1, range(300)))
    parts = (words[:, places] > 0).astype(np.uint8)
    assert len(np.unique(parts, axis=0)) == 300
    assert abs(float(parts.mean()) - 0.5) < 4 * 0.5 / np.sqrt(parts.size)
    codewords = np.stack([code.encode(Long(i, 1)) for i in range(64)])  # independent, so are those places
    assert _rank(codewords[:, places]) == _rank(codewords)


def _rank(rows: npt.NDArray[np.uint8]) -> int:
    """Over GF(2)."""
    left, rank = [int("".join(map(str, row)), 2) for row in rows.tolist()], 0
    while any(left):
        pivot = max(left)
        left = [min(row, row ^ pivot) for row in left if row != pivot]
        rank += 1
    return rank
