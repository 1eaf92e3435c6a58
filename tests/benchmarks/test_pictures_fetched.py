"""The fetched photographs: each with the license that its package gives, cut into squares that do not overlap."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import fetch_pictures
from fetch_model import FetchError
from fetch_pictures import LICENSES, PACKAGES, Photograph, squares

COPYRIGHT = b"""Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: nature/Aqua.jpg
       nature/Garden.jpg
Copyright: 2008, Charles Barbin
License: GPL-2+
Comment: none

Files: 16.04/Bridge_*.jpg
Copyright: 2018, Sander
           2019, Klootwijk
License: CC-BY-SA-4.0

Files: debian/*
Copyright: 2020, Packager
License: Expat
 Permission is hereby granted.
"""


def test_licenses_are_those_of_the_package() -> None:
    files = {"/usr/share/doc/x/copyright": COPYRIGHT, "/p/Garden.jpg": b"1", "/p/Bridge_by_S.jpg": b"2"}
    found = fetch_pictures._chosen(("Garden.jpg", "Bridge_by_S.jpg"), "/p", files)
    assert found["Garden.jpg"] == b"1"
    assert json.loads(found[LICENSES]) == {
        "Bridge_by_S.jpg": {"license": "CC-BY-SA-4.0", "holders": "2018, Sander 2019, Klootwijk"},
        "Garden.jpg": {"license": "GPL-2+", "holders": "2008, Charles Barbin"},
    }
    with pytest.raises(FetchError, match=r"nothing of Other\.jpg"):
        fetch_pictures._terms(COPYRIGHT.decode(), "Other.jpg")


def test_wallpapers_bring_their_own_license() -> None:
    plugin = {"KPlugin": {"License": "CC-BY-SA-4.0", "Authors": [{"Name": "A"}, {"Name": "B"}]}}
    folder = "/usr/share/wallpapers/Path"
    files = {
        f"{folder}/metadata.json": json.dumps(plugin).encode(),
        f"{folder}/contents/images/2560x1600.jpg": b"1",
    }
    found = fetch_pictures._plasma(("Path",), files)
    assert found["Path.jpg"] == b"1"
    assert json.loads(found[LICENSES])["Path.jpg"] == {"license": "CC-BY-SA-4.0", "holders": "A, B"}


def test_packages_are_pinned() -> None:
    for package in PACKAGES.values():
        assert len(package.sha256) == 64
        assert package.version.rpartition(":")[2] in package.pool


def test_squares_do_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name, width, height in (
        ("wide", 1536, 1024),
        ("tall", 700, 2048),
        ("small", 600, 560),
        ("Aqua", 512, 512),
    ):
        x, y = np.meshgrid(np.arange(width) // 16 % 256, np.arange(height) // 16 % 256)
        Image.fromarray(np.stack([x, y, 0 * x], axis=2).astype(np.uint8)).save(tmp_path / f"{name}.png")
        made.append(Photograph(tmp_path / f"{name}.png", "CC0-1.0", "", "x"))
    monkeypatch.setattr(fetch_pictures, "photographs", lambda: made)
    found = dict(squares(seen=False))
    assert sorted(found) == ["small-0", "tall-0", "tall-1", "tall-2", "wide-0", "wide-1", "wide-2"]
    assert all(pixels.shape == (512, 512, 3) for pixels in found.values())
    wide = [found[f"wide-{i}"][..., 0] for i in range(3)]
    assert [int(w.max()) - int(w.min()) for w in wide] == [31, 31, 31]
    assert [int(w.min()) for w in wide] == [0, 32, 64]
    assert [name for name, _ in squares(seen=True)] == ["Aqua-0"]
