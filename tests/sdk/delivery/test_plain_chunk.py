"""Chunks of one's own copy, as the court takes them."""

from __future__ import annotations

import pytest

from zhiyi.delivery import plain_chunk, verify_path
from zhiyi.delivery.hashing import plain_leaves
from zhiyi.errors import BadInput, IntegrityError

from .conftest import Scene, flip_bit


def test_every_chunk_opens_under_the_copy_root(scene: Scene) -> None:
    figures = scene.prepared.figures
    for index in (0, 1, figures.chunks // 2, figures.chunks - 1):
        found = plain_chunk(scene.marked, figures, index)
        assert (found.chunks, found.index) == (figures.chunks, index)
        leaf = plain_leaves(index, found.data, figures.chunk_size)
        verify_path(figures.copy_root, leaf, index, figures.chunks, found.path)


def test_another_copy_or_a_chunk_that_is_not_there_is_refused(scene: Scene) -> None:
    figures = scene.prepared.figures
    with pytest.raises(IntegrityError, match="copy root"):
        plain_chunk(scene.base, figures, 0)
    with pytest.raises(BadInput, match="not below"):
        plain_chunk(scene.marked, figures, figures.chunks)
    flip_bit(scene.marked / "model.safetensors", 5_000)
    with pytest.raises(IntegrityError):
        plain_chunk(scene.marked, figures, 0)
