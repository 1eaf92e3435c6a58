"""One table of all marks of pictures, from the tables of finished and generated pictures and of decoders.

    python benchmarks/image_table.py   # docs/benchmarks/image.json, .md from the three that are there

The benchmark of each writes it anew. Nothing is measured here: rows are the parts' own, with the commit of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from report import FOLDER, Row, write

PARTS: Final = {
    "image_finished": ("finished pictures: DSS and its peers", "bench-image-finished"),
    "image_generated": ("generated pictures: KGS and its peers", "bench-image-model"),
    "image_weights": ("decoders: LKD and its peer", "bench-image-weights"),
}


def united(reports: dict[str, dict[str, Any]]) -> tuple[list[Row], dict[str, str]]:
    """Rows and environment of the reports, by part. Raises ValueError when two parts have a row of one id."""
    rows: dict[str, Row] = {}
    around: dict[str, str] = {}
    for part, report in reports.items():
        around[f"{part}, commit"] = report["commit"]
        for said in report["rows"]:
            row = _row(said)
            if row.id in rows:
                raise ValueError(f"row {row.id} of {part} is in another part too; give it another id")
            rows[row.id] = row
    for key in dict.fromkeys(key for report in reports.values() for key in report["environment"]):
        values = {part: report["environment"].get(key) for part, report in reports.items()}
        if len(set(values.values())) == 1:
            around[key] = next(iter(values.values()))
        else:
            around |= {f"{part}, {key}": value for part, value in values.items() if value is not None}
    return list(rows.values()), around


def _row(said: dict[str, Any]) -> Row:
    against, interval = said["against"], said.get("interval")
    return Row(
        said["id"], said["what"], said["value"], said["unit"], said["n"], said["target"], said["sense"],
        (against["name"], against["value"]) if against else None, (interval[0], interval[1]) if interval else None,
    )  # fmt: skip


def unite(folder: Path = FOLDER) -> Path | None:
    """Writes image.json and image.md; None while no part is there."""
    there = {part: folder / f"{part}.json" for part in PARTS}
    reports = {part: json.loads(path.read_text()) for part, path in there.items() if path.is_file()}
    if not reports:
        return None
    rows, around = united(reports)
    links = [f"- [{part}]({part}.md): {PARTS[part][0]}." for part in reports]
    missing = [
        f"- {part}: not made yet; {PARTS[part][0]} by `make {PARTS[part][1]}`."
        for part in PARTS
        if part not in reports
    ]
    notes = "\n".join(["What rows mean, curves and examples:", *links, *missing])
    return write("image", "make bench-image", rows, environment=around, notes=notes, folder=folder)


if __name__ == "__main__":
    made = unite()
    if made is None:
        sys.exit(f"error: none of {', '.join(PARTS)} is in {FOLDER}; make bench-image measures them")
    print(made)
