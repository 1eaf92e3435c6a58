"""The one table of pictures has every row of its parts, and says which part is not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import image_table
from report import Row, proportion, write


def test_rows_of_all_parts_are_united(tmp_path: Path) -> None:
    one = [
        proportion("dss_j50", "bits", 3, 4, target=0.9, sense=">=", against=("RivaGAN", 0.5)),
        Row("dss_psnr", "PSNR", 43.1, "dB", 4, 43.0, ">="),
    ]
    other = [Row("lkd_clean", "bits right", 1.0, "", 9)]
    assert image_table.unite(tmp_path) is None
    write("image_finished", "make a", one, environment={"cores": "2", "python": "3"}, folder=tmp_path)
    write("image_weights", "make b", other, environment={"cores": "2", "extractor": "ab"}, folder=tmp_path)
    assert image_table.unite(tmp_path) == tmp_path / "image.json"
    told = json.loads((tmp_path / "image.json").read_text())
    assert told["rows"] == [row.to_json() for row in (*one, *other)]
    assert told["environment"]["cores"] == "2"
    assert told["environment"]["image_weights, extractor"] == "ab"
    parts = {
        part: json.loads((tmp_path / f"{part}.json").read_text())
        for part in ("image_finished", "image_weights")
    }
    assert all(told["environment"][f"{part}, commit"] == parts[part]["commit"] for part in parts)
    page = (tmp_path / "image.md").read_text()
    assert "(image_finished.md)" in page
    assert "(image_generated.md)" not in page
    assert "image_generated: not made yet" in page
    assert "`dss_j50` | bits | 0.75 [" in page


def test_a_row_in_two_parts_is_an_error(tmp_path: Path) -> None:
    rows = [Row("kgs_tpr_none", "read", 1.0, "", 9)]
    for part in ("image_finished", "image_generated"):
        write(part, "make a", rows, environment={}, folder=tmp_path)
    with pytest.raises(ValueError, match="kgs_tpr_none of image_generated is in another part"):
        image_table.unite(tmp_path)
