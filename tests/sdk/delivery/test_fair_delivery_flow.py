"""Prepare, verify, decrypt, complain: honest deliveries pass, and each corruption is caught at its step."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zhiyi.delivery import (
    DeclaredRange,
    DeliveryFigures,
    Interval,
    Tree,
    WrongChunk,
    complaint,
    decrypt,
    prepare,
    verify_before_payment,
    verify_path,
)
from zhiyi.delivery.hashing import delivery_leaves, keystream_xor, plain_leaves
from zhiyi.delivery.package import CIPHER, LEAVES, MANIFEST
from zhiyi.delivery.prepare import new_key
from zhiyi.errors import BadInput, IntegrityError, NotFound, ZhiyiError

from .conftest import KEY, Scene, change_tensors, flip_bit, header

SLOW = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_honest_delivery_gives_the_marked_copy(scene: Scene, backend: str) -> None:
    steps: list[tuple[int, int]] = []
    verify_before_payment(
        scene.package, scene.prepared.figures, scene.registered, lambda a, b: steps.append((a, b))
    )
    out = decrypt(scene.package, scene.prepared.figures, KEY, scene.home / "copy")
    assert files_of(out.folder) == files_of(scene.marked)
    assert files_of(out.folder) != files_of(scene.base)
    assert (out.chunks, out.total_bytes) == (scene.bundle.chunks, scene.bundle.total_bytes)
    assert steps[-1] == (scene.bundle.total_bytes, scene.bundle.total_bytes)
    assert steps == sorted(steps)
    assert 0 < scene.prepared.changed_chunks <= sum(b - a for a, b in scene.declared.intervals)
    assert scene.prepared.figures.copy_root == Tree(scene.bundle.leaves(scene.marked)).root


def test_both_backends_make_the_same_package(scene: Scene, backend: str) -> None:
    again = prepare(scene.marked, scene.base, scene.tree, scene.declared, KEY, scene.home / "again")
    assert again.figures == scene.prepared.figures
    assert files_of(again.folder) == files_of(scene.package)


def test_ciphertext_hides_equal_chunks_and_starts_anew_per_chunk(scene: Scene) -> None:
    cipher = (scene.package / CIPHER).read_bytes()
    for index in (0, 5, scene.bundle.chunks - 1):
        place = scene.bundle.place(index)
        start = place.segment.offset + place.start
        out = bytearray(place.size)
        keystream_xor(KEY, index * 704, cipher[start : start + place.size], out)
        expected = (
            scene.bundle.manifest
            if not place.segment.path
            else (scene.marked / place.segment.path).read_bytes()
        )
        assert bytes(out) == expected[place.start : place.start + place.size]


@SLOW
@given(data=st.data())
def test_every_flipped_bit_before_payment_is_caught(scene: Scene, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([MANIFEST, LEAVES, CIPHER]))
    path = scene.package / name
    at = data.draw(st.integers(0, path.stat().st_size - 1))
    flip_bit(path, at)
    try:
        with pytest.raises(ZhiyiError):
            verify_before_payment(scene.package, scene.prepared.figures, scene.registered)
    finally:
        flip_bit(path, at)
    verify_before_payment(scene.package, scene.prepared.figures, scene.registered)


@pytest.mark.parametrize("name", [MANIFEST, LEAVES, CIPHER])
def test_cut_grown_linked_and_missing_files_are_refused(scene: Scene, name: str) -> None:
    path, data = scene.package / name, (scene.package / name).read_bytes()
    for changed in (data[:-1], data + b"x", b""):
        path.write_bytes(changed)
        with pytest.raises((IntegrityError, BadInput)):
            verify_before_payment(scene.package, scene.prepared.figures, scene.registered)
    path.unlink()
    with pytest.raises(NotFound):
        verify_before_payment(scene.package, scene.prepared.figures, scene.registered)
    (scene.home / "elsewhere").write_bytes(data)
    path.symlink_to(scene.home / "elsewhere")
    with pytest.raises(BadInput):
        verify_before_payment(scene.package, scene.prepared.figures, scene.registered)


@pytest.mark.parametrize("field", DeliveryFigures._fields)
def test_each_figure_of_the_order_is_checked(scene: Scene, field: str) -> None:
    figures = scene.prepared.figures
    value = getattr(figures, field)
    other = bytes(32) if isinstance(value, bytes) else value + 1
    with pytest.raises((IntegrityError, BadInput)):
        verify_before_payment(scene.package, figures._replace(**{field: other}), scene.registered)


def test_registered_side_is_checked(scene: Scene) -> None:
    figures, good = scene.prepared.figures, scene.registered
    leaves = bytearray(good.leaves)
    leaves[-1] ^= 1
    wider = DeclaredRange((Interval(2, 3), *good.declared_range.intervals), 50_000)
    for bad in (
        dataclasses.replace(good, weights_root=bytes(32)),
        dataclasses.replace(good, leaves=bytes(leaves)),
        dataclasses.replace(good, leaves=good.leaves[:-32]),
        dataclasses.replace(good, range_hash=bytes(32)),
        dataclasses.replace(good, declared_range=wider),
        dataclasses.replace(
            good, declared_range=dataclasses.replace(good.declared_range, max_change_ppm=49_999)
        ),
    ):
        with pytest.raises(IntegrityError):
            verify_before_payment(scene.package, figures, bad)


def test_buyer_refuses_another_model_outside_the_range(scene: Scene) -> None:
    """The fingerprinter's hashes are consistent, but a chunk outside the range is not the registered one."""
    other = scene.home / "other"
    shutil.copytree(scene.marked, other)
    flip_bit(other / "config.json", 3)
    made = prepare(other, other, Tree(scene.bundle.leaves(other)), scene.declared, KEY, scene.home / "bad")
    with pytest.raises(IntegrityError, match="outside the declared range"):
        verify_before_payment(made.folder, made.figures, scene.registered)


def test_buyer_refuses_other_names_over_the_same_bytes(scene: Scene) -> None:
    other = scene.home / "other"
    shutil.copytree(scene.marked, other)
    (other / "config.json").rename(other / "config.jsoo")
    bundle = type(scene.bundle).scan(other)
    assert bundle.chunks == scene.bundle.chunks
    made = prepare(other, other, Tree(bundle.leaves(other)), scene.declared, KEY, scene.home / "bad")
    with pytest.raises(IntegrityError, match="chunk 0"):
        verify_before_payment(made.folder, made.figures, scene.registered)


def test_prepare_refuses_changes_outside_the_range(scene: Scene) -> None:
    change_tensors(scene.marked, ("t9",))
    with pytest.raises(IntegrityError, match=r"chunk \d+ \(byte \d+ of 'model.safetensors'\)"):
        prepare(scene.marked, scene.base, scene.tree, scene.declared, KEY, scene.home / "bad")
    assert not (scene.home / "bad").exists()
    assert not list(scene.home.glob(".bad*"))


def test_prepare_refuses_another_layout_header_or_key(scene: Scene) -> None:
    def refuse(match: str) -> None:
        with pytest.raises((IntegrityError, BadInput), match=match):
            prepare(scene.marked, scene.base, scene.tree, scene.declared, KEY, scene.home / "bad")

    model = scene.marked / "model.safetensors"
    good = model.read_bytes()
    model.write_bytes(good.replace(b'"t1"', b'"u1"', 1))
    refuse("another header")
    model.write_bytes(good + b"x")
    refuse("other files or lengths")
    model.write_bytes(good)
    (scene.marked / "extra.txt").write_text("x")
    refuse("other files or lengths")
    (scene.marked / "extra.txt").unlink()
    for key in (b"", bytes(31), bytes(32)):
        with pytest.raises(BadInput, match="delivery key"):
            prepare(scene.marked, scene.base, scene.tree, scene.declared, key, scene.home / "bad")
    with pytest.raises(BadInput, match="exists already"):
        prepare(scene.marked, scene.base, scene.tree, scene.declared, KEY, scene.package)
    with pytest.raises(BadInput, match="leaves"):
        prepare(scene.marked, scene.base, Tree(bytes(32)), scene.declared, KEY, scene.home / "bad")
    assert len({new_key() for _ in range(8)}) == 8
    assert header() in good


def cheat(scene: Scene, index: int) -> DeliveryFigures:
    """Other bytes at one chunk, all hashes consistent; only decryption shows it."""
    cipher = bytearray((scene.package / CIPHER).read_bytes())
    leaves = (scene.package / LEAVES).read_bytes()
    place = scene.bundle.place(index)
    cipher[place.segment.offset + place.start + place.size - 1] ^= 0x80
    (scene.package / CIPHER).write_bytes(cipher)
    sealed = b""
    for w in scene.bundle.windows():
        start = w.segment.offset + w.start
        promised = leaves[32 * w.first : 32 * (w.first + w.chunks)]
        sealed += delivery_leaves(w.first, cipher[start : start + w.size], 704, promised)
    return scene.prepared.figures._replace(delivery_root=Tree(sealed).root)


@pytest.mark.parametrize("index", [0, 1, 40, -1])
def test_a_wrong_chunk_shows_only_on_decryption_and_is_provable(
    scene: Scene, index: int, backend: str
) -> None:
    index %= scene.bundle.chunks
    figures = cheat(scene, index)
    verify_before_payment(scene.package, figures, scene.registered)
    with pytest.raises(WrongChunk) as caught:
        decrypt(scene.package, figures, KEY, scene.home / "copy")
    assert (caught.value.index, caught.value.wrong) == (index, (index,))
    assert not (scene.home / "copy").exists()
    assert not list(scene.home.glob(".copy*"))
    proof = complaint(scene.package, figures, index)
    leaf = delivery_leaves(index, proof.cipher, 704, proof.plain_leaf)
    verify_path(figures.delivery_root, leaf, index, figures.chunks, proof.path)
    out = bytearray(len(proof.cipher))
    keystream_xor(KEY, index * 704, proof.cipher, out)
    assert plain_leaves(index, out, 704) != proof.plain_leaf


def test_a_wrong_key_makes_every_chunk_wrong(scene: Scene) -> None:
    with pytest.raises(WrongChunk) as caught:
        decrypt(scene.package, scene.prepared.figures, bytes(31) + b"\x01", scene.home / "copy")
    assert caught.value.wrong == tuple(range(scene.bundle.chunks))
    with pytest.raises(BadInput):
        decrypt(scene.package, scene.prepared.figures, bytes(31), scene.home / "copy")


def test_complaint_refuses_a_package_that_changed(scene: Scene) -> None:
    flip_bit(scene.package / CIPHER, 100)
    with pytest.raises(IntegrityError, match="delivery root"):
        complaint(scene.package, scene.prepared.figures, 3)
    with pytest.raises(BadInput):
        complaint(scene.package, scene.prepared.figures, scene.bundle.chunks)


def test_decrypt_never_overwrites(scene: Scene) -> None:
    (scene.home / "copy").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        decrypt(scene.package, scene.prepared.figures, KEY, scene.home / "copy")
