"""`docs/invariants.md` lists every invariant of the stateful tests, and none that is not checked."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEAST = 20


def checked() -> set[tuple[str, str]]:
    """(file, name) of every function under `@invariant()`."""
    found = set()
    for path in sorted((ROOT / "tests" / "contracts").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(map(is_invariant, node.decorator_list)):
                found.add((path.relative_to(ROOT).as_posix(), node.name))
    return found


def is_invariant(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "invariant"


def listed() -> list[tuple[str, str, list[str]]]:
    """(file, name, cells) of every row of the page."""
    rows = []
    file = ""
    for line in (ROOT / "docs" / "invariants.md").read_text().splitlines():
        if heading := re.fullmatch(r"## .*: `(tests/.*\.py)`", line):
            file = heading[1]
        elif row := re.fullmatch(r"\| `(\w+)` \| (.*) \|", line):
            rows.append((file, row[1], row[2].split(" | ")))
    return rows


def test_the_page_and_the_checks_name_the_same_invariants() -> None:
    rows = listed()
    names = [(file, name) for file, name, _ in rows]
    assert len(names) == len(set(names))
    assert set(names) == checked()
    assert len(names) >= LEAST


def test_every_invariant_is_said_and_explained() -> None:
    for _, name, cells in listed():
        assert len(cells) == 2, name
        assert all(cell.endswith(".") and len(cell) > 8 for cell in cells), name
