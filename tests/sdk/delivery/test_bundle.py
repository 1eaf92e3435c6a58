"""Bundles: what they refuse, how chunks are numbered, what a manifest fixes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyi.delivery import Bundle, DeclaredRange, Interval, range_for_tensors
from zhiyi.delivery.bundle import MAX_MANIFEST_BYTES, check_path
from zhiyi.delivery.hashing import plain_leaves
from zhiyi.errors import BadInput, IntegrityError, NotFound

from .conftest import Scene, header, make_model


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=6).filter(any),
    chunk=st.sampled_from([64, 128, 704]),
)
def test_every_file_begins_a_chunk_and_every_byte_has_one_place(sizes: list[int], chunk: int) -> None:
    bundle = Bundle(chunk, tuple((f"f{k}", size) for k, size in enumerate(sizes)))
    assert Bundle.from_manifest(bundle.manifest) == bundle
    seen = 0
    for window in bundle.windows():
        assert window.first == window.segment.first + window.start // chunk
        assert window.start % chunk == 0
        seen += window.size
    assert seen == bundle.total_bytes == len(bundle.manifest) + sum(sizes)
    places = [bundle.place(k) for k in range(bundle.chunks)]
    assert sum(place.size for place in places) == bundle.total_bytes
    for place in places:
        last = place.start + chunk >= place.segment.size
        assert place.size == chunk if not last else 0 < place.size <= chunk


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "C:x",
        "a\x00b",
        "a\nb",
        " a",
        "a.",
        "x" * 600,
        "x" * 256,
        "a/" + "ä" * 128 + ".safetensors/b",
        "\ud800",
        "model.bin",
        "sub/weights.PT",
        "a.pkl",
        "b.ckpt",
    ],
)
def test_refuses_paths_that_escape_or_run_code(path: str) -> None:
    with pytest.raises(BadInput):
        check_path(path)


def test_scan_refuses_links_devices_pickles_and_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with pytest.raises(NotFound):
        Bundle.scan(folder)
    folder.mkdir()
    with pytest.raises(BadInput, match="empty"):
        Bundle.scan(folder)
    (folder / "empty").touch()
    with pytest.raises(BadInput, match="empty"):
        Bundle.scan(folder)
    (folder / "a.safetensors").write_bytes(b"x")
    Bundle.scan(folder)
    os.symlink("/etc/passwd", folder / "link")
    with pytest.raises(BadInput, match="link"):
        Bundle.scan(folder)
    (folder / "link").unlink()
    os.symlink(tmp_path, folder / "dirlink")
    with pytest.raises(BadInput, match="link"):
        Bundle.scan(folder)
    (folder / "dirlink").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(BadInput, match="neither"):
        Bundle.scan(folder)
    (folder / "pipe").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(BadInput, match="pickle"):
        Bundle.scan(folder)


def test_manifest_is_strict() -> None:
    good = Bundle(704, (("a", 1), ("b/c", 2))).manifest
    value = json.loads(good)

    def refuse(change: dict[str, object]) -> None:
        text = json.dumps({**value, **change}, separators=(",", ":"), sort_keys=True).encode()
        with pytest.raises(BadInput):
            Bundle.from_manifest(text)

    for bad in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b" " + good,
        good + b"\n",
        good.replace(b":1}", b":1.0}"),
    ):
        with pytest.raises(BadInput):
            Bundle.from_manifest(bad)
    with pytest.raises(BadInput, match="too large"):
        Bundle.from_manifest(bytes(MAX_MANIFEST_BYTES + 1))
    refuse({"schema": "zhiyi.bundle.v2"})
    refuse({"extra": 1})
    refuse({"chunkSize": 100})
    refuse({"chunkSize": 8192})
    refuse({"chunkSize": True})
    refuse({"files": []})
    refuse({"files": [{"path": "a", "size": 0}]})
    refuse({"files": [{"path": "b", "size": 1}, {"path": "a", "size": 1}]})
    refuse({"files": [{"path": "a", "size": 1}, {"path": "a", "size": 1}]})
    refuse({"files": [{"path": "A", "size": 1}, {"path": "a", "size": 1}]})
    refuse({"files": [{"path": "a", "size": 1}, {"path": "a/b", "size": 1}]})
    refuse({"files": [{"path": "../a", "size": 1}]})
    refuse({"files": [{"path": "a", "size": -1}]})
    refuse({"files": [{"path": "a", "size": 1 << 53}]})
    refuse({"files": [{"path": "a", "size": 1 << 45}]})
    refuse({"files": [{"path": 3, "size": 1}]})


def test_leaves_fix_names_and_lengths_too(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name in ((one, "a.txt"), (two, "b.txt")):
        folder.mkdir()
        (folder / name).write_bytes(b"same bytes")
    first, second = Bundle.scan(one), Bundle.scan(two)
    assert first.leaves(one)[32:] == second.leaves(two)[32:]
    assert first.leaves(one)[:32] != second.leaves(two)[:32]
    assert first.leaves(one)[:32] == plain_leaves(0, first.manifest, 704)


def test_leaves_refuse_a_file_that_changed_length(tmp_path: Path) -> None:
    make_model(tmp_path / "m")
    bundle = Bundle.scan(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"config\.json has 2 bytes"):
        bundle.leaves(tmp_path / "m")
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(NotFound):
        bundle.leaves(tmp_path / "m")


def test_range_covers_whole_tensors_and_merges_neighbors(scene: Scene) -> None:
    segment = next(s for s in scene.bundle.segments if s.path == "model.safetensors")
    start = len(header()) + 5 * 4000
    assert len(scene.declared.intervals) == 2
    assert scene.declared.intervals[0] == Interval(
        segment.first + start // 704, segment.first + -(-(start + 8000) // 704)
    )
    covered = sum(scene.bundle.place(k).size for i in scene.declared.intervals for k in range(*i))
    assert scene.declared.covered_bytes(scene.bundle) == covered
    outside = {k for i in scene.declared.outside(scene.bundle.chunks) for k in range(*i)}
    assert outside == {k for k in range(scene.bundle.chunks) if not scene.declared.contains(k)}


def test_range_limits(scene: Scene) -> None:
    base, bundle = scene.base, scene.bundle
    with pytest.raises(BadInput, match="no such tensor"):
        range_for_tensors(base, bundle, ["t5", "nope"], max_change_ppm=1)
    with pytest.raises(BadInput, match="at least one"):
        range_for_tensors(base, bundle, [], max_change_ppm=1)
    with pytest.raises(BadInput, match="quarter"):
        range_for_tensors(base, bundle, ["t1", "t2", "t3", "t4", "t5", "t6"], max_change_ppm=1)
    with pytest.raises(BadInput, match="at most 8"):
        DeclaredRange(tuple(Interval(3 * k, 3 * k + 1) for k in range(9)), 1)
    with pytest.raises(BadInput, match="manifest"):
        DeclaredRange((Interval(0, 1),), 1).check(bundle)
    with pytest.raises(BadInput, match="bundle has"):
        DeclaredRange((Interval(bundle.chunks, bundle.chunks + 1),), 1).check(bundle)
    for bad in (
        (Interval(5, 5),),
        (Interval(5, 4),),
        (Interval(5, 7), Interval(6, 9)),
        (Interval(5, 7), Interval(7, 9)),
    ):
        with pytest.raises(BadInput):
            DeclaredRange(bad, 1)
    for value in (None, {}, {"intervals": [[1, 2, 3]], "maxChangePpm": 1}, {"intervals": [[-1, 2]], "maxChangePpm": 1},
                  {"intervals": [[1, 2]], "maxChangePpm": True}):  # fmt: skip
        with pytest.raises(BadInput):
            DeclaredRange.from_json(value)


@pytest.mark.parametrize(
    "data",
    [b"", b"1234567", bytes(8) + b"x", b"\xff" * 8 + b"{}", (2).to_bytes(8, "little") + b"[]xxx",
     (40).to_bytes(8, "little") + b'{"t": {"data_offsets": [0, 99]}}        '],
)  # fmt: skip
def test_malformed_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(data)
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises((IntegrityError, BadInput)):
        range_for_tensors(tmp_path, Bundle.scan(tmp_path), ["t"], max_change_ppm=1)
