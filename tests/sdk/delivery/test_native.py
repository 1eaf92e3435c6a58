"""The compiled loops give what hashlib gives, through both ways they have."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyi.delivery import hashing, native

pytestmark = pytest.mark.skipif(native.LIBRARY is None, reason="not built: python -m zhiyi.delivery")


@settings(max_examples=80, deadline=None)
@given(
    size=st.integers(0, 5000),
    chunk=st.integers(1, 64).map(lambda k: 64 * k),
    first=st.integers(0, (1 << 32) - 200),
    seed=st.integers(0, 99),
)
def test_leaves_and_parents_equal_hashlib(size: int, chunk: int, first: int, seed: int) -> None:
    noise = random.Random(seed)
    data = noise.randbytes(size)
    count = -(-size // chunk)
    bound, level = noise.randbytes(32 * count), noise.randbytes(64 * (seed % 6))
    compiled, library = [], native.LIBRARY
    assert library is not None
    try:
        for used in (library, None):
            native.LIBRARY = used
            compiled.append(
                (
                    hashing.plain_leaves(first, data, chunk),
                    hashing.plain_leaves(first, memoryview(bytearray(data)), chunk),
                    hashing.delivery_leaves(first, data, chunk, bound),
                    hashing.parents(level),
                )
            )
    finally:
        native.LIBRARY = library
    assert compiled[0] == compiled[1]
    assert len(compiled[0][0]) == 32 * count


def test_openssl_loops_give_the_same() -> None:
    library = native.LIBRARY
    assert library is not None
    data, bound = random.Random(3).randbytes(3000), random.Random(4).randbytes(32 * 4)
    expected = library.leaves(2, 9, data, 896, bound), library.parents(bound)
    other = native.Library(native.BINARY, through_openssl=True)
    assert other.uses_openssl
    assert (other.leaves(2, 9, data, 896, bound), other.parents(bound)) == expected


def test_refuses_what_does_not_fit() -> None:
    library = native.LIBRARY
    assert library is not None
    for work in (
        lambda: library.leaves(2, 0, bytes(100), 64, bytes(32)),
        lambda: library.leaves(0, 0, bytes(100), 8192, None),
        lambda: library.parents(bytes(32)),
    ):
        with pytest.raises(ValueError):
            work()


def test_a_broken_library_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "broken.so").write_bytes(b"not a library")
    with pytest.raises(OSError):
        native.Library(tmp_path / "broken.so")
