"""Trees: every way to a root agrees, and nothing but the right leaf at the right place verifies."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyi.delivery import Tree, root_of, verify_path
from zhiyi.delivery.merkle import RootBuilder, depth_of, root_and_path, roots_of_both
from zhiyi.errors import BadInput, IntegrityError


def leaves_of(count: int) -> bytes:
    return b"".join(sha256(k.to_bytes(4, "big")).digest() for k in range(count))


def slow_root(leaves: list[bytes]) -> bytes:
    """By the definition: pad with H(0x03) to a power of two, hash pairs."""
    level = list(leaves)
    while len(level) & (len(level) - 1):
        level.append(sha256(b"\x03").digest())
    while len(level) > 1:
        level = [sha256(b"\x01" + level[k] + level[k + 1]).digest() for k in range(0, len(level), 2)]
    return level[0]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 300), step=st.integers(1, 64), data=st.data())
def test_all_ways_to_the_root_agree(count: int, step: int, data: st.DataObject) -> None:
    leaves = leaves_of(count)
    expected = slow_root([leaves[k : k + 32] for k in range(0, len(leaves), 32)])
    builder = RootBuilder()
    for start in range(0, count, step):
        builder.add(leaves[32 * start : 32 * (start + step)])
    tree = Tree(leaves)
    assert tree.root == root_of(leaves) == builder.root() == expected
    index = data.draw(st.integers(0, count - 1))
    root, path = root_and_path(leaves, index)
    assert (root, list(path)) == (expected, tree.path(index))
    verify_path(expected, tree.leaf(index), index, count, path)


@pytest.mark.parametrize("count", [1, 2, 5, 8191, 8192, 8193, 20_000, 32_768])
def test_roots_of_both(count: int) -> None:
    one = leaves_of(count)
    for changed in ([], [0], [count - 1], [count // 2, count // 3]):
        other = bytearray(one)
        for index in changed:
            other[32 * index] ^= 1
        assert roots_of_both(one, bytes(other)) == (root_of(one), root_of(bytes(other)))
    with pytest.raises(BadInput):
        roots_of_both(one, one + bytes(32))


def test_root_builder_over_several_batches() -> None:
    leaves = leaves_of(20_001)
    builder = RootBuilder()
    for start in range(0, 20_001, 3_000):
        builder.add(leaves[32 * start : 32 * (start + 3_000)])
    assert builder.root() == root_of(leaves)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(2, 70), data=st.data())
def test_a_changed_proof_never_verifies(count: int, data: st.DataObject) -> None:
    tree = Tree(leaves_of(count))
    index = data.draw(st.integers(0, count - 1))
    path = tree.path(index)
    flaw = data.draw(st.sampled_from(["leaf", "path", "index", "root", "longer", "shorter", "other count"]))
    leaf, root, place, leaves = tree.leaf(index), tree.root, index, count
    if flaw == "leaf":
        leaf = flip(leaf, data)
    elif flaw == "root":
        root = flip(root, data)
    elif flaw == "path":
        at = data.draw(st.integers(0, len(path) - 1))
        path[at] = flip(path[at], data)
    elif flaw == "index":
        place = data.draw(st.integers(0, count - 1).filter(lambda k: k != index))
    elif flaw == "longer":
        path.append(bytes(32))
    elif flaw == "shorter":
        path.pop()
    else:
        leaves = 4 * count
    with pytest.raises((IntegrityError, BadInput)):
        verify_path(root, leaf, place, leaves, path)


def flip(value: bytes, data: st.DataObject) -> bytes:
    bit = data.draw(st.integers(0, 255))
    return (int.from_bytes(value, "big") ^ 1 << bit).to_bytes(32, "big")


def test_an_inner_node_is_no_leaf() -> None:
    tree = Tree(leaves_of(4))
    inner = sha256(b"\x01" + tree.leaf(0) + tree.leaf(1)).digest()
    with pytest.raises(BadInput):
        verify_path(tree.root, inner, 0, 4, tree.path(0)[1:])


def test_refuses_what_is_no_tree() -> None:
    for leaves in (b"", bytes(31), bytes(33)):
        with pytest.raises(BadInput):
            Tree(leaves)
        with pytest.raises(BadInput):
            root_of(leaves)
    with pytest.raises(BadInput):
        RootBuilder().root()
    with pytest.raises(BadInput):
        verify_path(bytes(32), bytes(32), 1, 1, [])
    with pytest.raises(BadInput):
        Tree(bytes(32)).path(-1)
    assert [depth_of(n) for n in (1, 2, 3, 4, 5, 1 << 32)] == [0, 1, 2, 2, 3, 32]
    with pytest.raises(BadInput):
        depth_of((1 << 32) + 1)


def test_load_refuses_another_root(tmp_path: Path) -> None:
    tree = Tree(leaves_of(9))
    tree.save(tmp_path / "leaves.bin")
    assert Tree.load(tmp_path / "leaves.bin", tree.root).leaves == tree.leaves
    with pytest.raises(IntegrityError):
        Tree.load(tmp_path / "leaves.bin", bytes(32))
    assert [p.name for p in tmp_path.iterdir()] == ["leaves.bin"]
