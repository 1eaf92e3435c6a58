"""Keys and streams: pinned values, independence, refusal of wrong input."""

from __future__ import annotations

import numpy as np
import pytest

from zhiyi_watermark import prf
from zhiyi_watermark.errors import SpecError

KEY = bytes(range(32))


def test_keystream_is_rfc_8439_chacha20() -> None:
    # RFC 8439 appendix A.1, test vector 1: zero key, zero nonce, counter 0
    assert prf.keystream(bytes(32), 16).tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_derived_keys_are_pinned() -> None:
    assert prf.derive_key(KEY, "wfp trace", b"x", 7).hex() == (
        "d2fce69e885bc15c381beedfe207e2dd8549d748792b268bb3b673396615fbf8"
    )


def test_derived_keys_differ_by_key_purpose_and_context() -> None:
    made = [
        prf.derive_key(KEY, "a"),
        prf.derive_key(bytes(32), "a"),
        prf.derive_key(KEY, "b"),
        prf.derive_key(KEY, "a", b""),
        prf.derive_key(KEY, "a", b"", b""),
        prf.derive_key(KEY, "a", b"bc"),
        prf.derive_key(KEY, "ab", b"c"),
        prf.derive_key(KEY, "a", b"b", b"c"),
        prf.derive_key(KEY, "a", 1),
    ]
    assert len(set(made)) == len(made)


def test_signs_are_fair_and_prefixes_agree() -> None:
    drawn = prf.signs(KEY, 100_001)
    assert set(np.unique(drawn)) == {-1, 1}
    assert abs(int(drawn.astype(np.int64).sum())) < 5 * 100_001**0.5
    assert (drawn[:777] == prf.signs(KEY, 777)).all()


def test_integers_are_in_range_and_uniform() -> None:
    drawn = prf.integers(KEY, 60_000, 6)
    counts = np.bincount(drawn, minlength=6)
    assert len(counts) == 6
    assert np.abs(counts - 10_000).max() < 500
    assert (prf.integers(KEY, 100, 3_000_000_000) < 3_000_000_000).all()  # rejects about 30 % of the words


def test_permutation_is_one_and_depends_on_the_key() -> None:
    drawn = prf.permutation(KEY, 1000)
    assert sorted(drawn.tolist()) == list(range(1000))
    assert (drawn != prf.permutation(bytes(32), 1000)).any()


@pytest.mark.parametrize("key", [b"", b"short", bytes(33)])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(SpecError, match="32 bytes"):
        prf.derive_key(key, "a")


def test_out_of_range_arguments_are_refused() -> None:
    with pytest.raises(SpecError):
        prf.derive_key(KEY, "a", -1)
    with pytest.raises(SpecError):
        prf.integers(KEY, 1, 0)
    with pytest.raises(SpecError):
        prf.mac(KEY, b"", 0)
    with pytest.raises(SpecError):
        prf.keystream(KEY, -1)
