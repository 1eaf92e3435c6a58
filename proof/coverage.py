#!/usr/bin/env python3
"""Line and branch coverage of the contracts by the contract tests: docs/benchmarks/coverage.json and .md.

`proof/coverage.py [pytest arguments]`; without arguments all contract tests run, in parts with a node each, and only
then the documents are written. An interrupted run goes on with the parts that are missing or whose contracts or tests
changed; with `--keep` it does not run a part anew because contracts changed, but forgets what it showed of functions
that did.
A line is covered when every statement that starts on it ran, a branch is one outcome of one decision. What the tests
showed is kept in build/coverage/hits.json, where the mutation tests look which tests reach a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from solc import AST, ROOT, compile_sources, digest, measured_code, sources
from source_items import Item, Items

sys.path.insert(0, str(ROOT / "benchmarks"))

from report import Row, environment, write

HITS = ROOT / "build" / "coverage" / "hits.json"
TESTS = ROOT / "tests" / "contracts"
STAGES = (
    "court",
    "system",
)  # folders of TESTS with a node of their own; the files beside them make up the market
FILES_A_PART = 5
LINES_TARGET = 98.0  # percent of the lines of all contracts
COMMAND = "make coverage"
KEEP = "--keep"


def run_tests(arguments: list[str], out: Path = HITS) -> int:
    """Runs contract tests on the measured code; pytest's exit status."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    command = [
        *(str(Path(sys.executable).with_name("ape")), "test", *arguments),
        *("--network", "ethereum:local:foundry", "-q"),
        *("-p", "coverage_plugin", "--coverage-out", str(out)),
    ]
    path = os.pathsep.join([str(ROOT / "proof"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def parts(files: list[Path]) -> list[list[Path]]:
    """What to run on one node: a stage, or a few files of the market."""
    by_stage = {name: [path for path in files if path.parent.name == name] for name in STAGES}
    market = [path for path in files if path.parent == TESTS]
    few = [market[start : start + FILES_A_PART] for start in range(0, len(market), FILES_A_PART)]
    return [part for part in (*by_stage.values(), *few) if part]


def run_parts(keep: bool, items: Items) -> int:
    """Runs all contract tests that have not run on these contracts; the first exit status that is not 0.

    With `keep`, what ran on other contracts counts too, for the functions that are still the same."""
    contracts, status = digest(sources()), 0
    now = {
        str(path.relative_to(ROOT)): digest({"": path.read_text()})
        for path in sorted(TESTS.rglob("test_*.py"))
    }
    found = []
    for path in sorted(HITS.parent.glob("part-*.json")):
        hits = json.loads(path.read_text())
        valid = {file for file, text in hits["of"].items() if now.get(file) == text}
        if valid and (keep or hits["sources"] == contracts):
            found.append(only(hits, valid))
        else:
            path.unlink()
    done = {file for hits in found for file in hits["of"]}
    for part in parts([ROOT / file for file in now if file not in done]):
        of = {str(path.relative_to(ROOT)): digest({"": path.read_text()}) for path in part}
        out = HITS.with_name("running.json")
        status = run_tests(list(of), out) or status
        if not out.exists():
            return status or 1
        hits = {**json.loads(out.read_text()), "of": of}
        out.unlink()
        HITS.with_name(f"part-{digest({**of, '': contracts})[:12]}.json").write_text(json.dumps(hits))
        found.append(hits)
    HITS.write_text(json.dumps({**merged(found, items), "sources": contracts}))
    return status


def only(hits: dict[str, Any], files: set[str]) -> dict[str, Any]:
    """The hits of tests in these files, and of what they share."""

    def stays(test: str) -> bool:
        return test.split("::")[0] in {"", *files}

    return {
        **hits,
        "of": {file: hits["of"][file] for file in files},
        "tests": {test: seen for test, seen in hits["tests"].items() if stays(test)},
        "seconds": {test: seconds for test, seconds in hits["seconds"].items() if stays(test)},
        "failed": [test for test in hits["failed"] if stays(test)],
    }


def merged(found: list[dict[str, Any]], items: Items) -> dict[str, Any]:
    """One file of hits out of several. What they showed of a function that has changed since is forgotten."""
    whole: dict[str, Any] = {"tests": {}, "traces": [], "failed": [], "seconds": {}, "unread": []}
    for hits in found:
        now = {
            first + n: items.places[name][1] + n
            for name, (text, first, count) in hits["places"].items()
            if name in items.places and items.places[name][0] == text
            for n in range(count)
        }
        before = len(whole["traces"])
        for test, seen in hits["tests"].items():
            whole["tests"].setdefault(test, []).extend(before + place for place in seen)
        whole["traces"] += [[now[item] for item in shown if item in now] for shown in hits["traces"]]
        whole["seconds"].update(hits["seconds"])
        whole["failed"] += hits["failed"]
        whole["unread"] += hits["unread"]
    return {**whole, "places": items.places}


class Coverage:
    """Items and which of them ran. Those without an instruction of their own in any contract can't be seen to run."""

    def __init__(self, items: Items, hits: dict[str, Any], seen_by_code: set[int]) -> None:
        self._items = [item for item in items.all if item.id in seen_by_code]
        self.without_code = [item for item in items.all if item.id not in seen_by_code]
        self.shown = {item for trace in hits["traces"] for item in trace}
        self.files = sorted({item.range.file for item in self._items})

    def _of(self, kind: str, file: str | None) -> list[Item]:
        return [item for item in self._items if item.kind == kind and file in (None, item.range.file)]

    def lines(self, file: str | None = None) -> tuple[int, int]:
        """(covered, all)"""
        lines: dict[tuple[str, int], bool] = defaultdict(lambda: True)
        for item in self._of("statement", file):
            lines[item.range.file, item.line] &= item.id in self.shown
        return sum(lines.values()), len(lines)

    def branches(self, file: str | None = None) -> tuple[int, int]:
        """(covered, all)"""
        every = self._of("branch", file)
        return sum(item.id in self.shown for item in every), len(every)

    def left(self) -> list[str]:
        """What did not run, as FILE:LINE with the text."""
        found = []
        for item in self._items:
            if item.id not in self.shown:
                text = item.text if len(item.text) < 90 else item.text[:89] + "…"
                what = "" if item.kind == "statement" else f" {item.decision} never {item.outcome}".lower()
                found.append(f"{item.range.file}:{item.line}{what}: `{text}`")
        return found


def seen_by_code(items: Items, texts: dict[str, str]) -> set[int]:
    """The items that an instruction of some contract shows."""
    found: set[int] = set()
    for path in texts:
        answer = measured_code(path, texts)
        paths = {source["id"]: name for name, source in answer["sources"].items()}
        for contract in answer["contracts"].get(path, {}).values():
            for part in (contract["evm"]["bytecode"], contract["evm"]["deployedBytecode"]):
                if part["object"]:
                    code = items.code_map(bytes.fromhex(part["object"]), part["sourceMap"], paths)
                    found |= set(code.shown_by.values())
                    for outcomes in (*code.decided_at.values(), *code.checked_at.values()):
                        found |= set(outcomes)
    return found


def rows(coverage: Coverage) -> list[Row]:
    """The whole first, then file by file."""
    found = []
    for file in (None, *coverage.files):
        name = "all" if file is None else Path(file).stem
        where = "all contracts" if file is None else f"`{file}`"
        covered, every = coverage.lines(file)
        if every:
            row = Row(f"lines-{name}", f"lines of {where}", 100 * covered / every, "%", every)
            found.append(row if file else replace(row, target=LINES_TARGET, sense=">="))
        covered, every = coverage.branches(file)
        if every:
            found.append(Row(f"branches-{name}", f"branches of {where}", 100 * covered / every, "%", every))
    return found


def main() -> int:
    """0 when the tests passed and the target is met."""
    arguments = [argument for argument in sys.argv[1:] if argument != KEEP]
    texts = sources()
    items = Items(compile_sources(texts, AST), texts)
    status = run_tests(arguments) if arguments else run_parts(KEEP in sys.argv, items)
    if not HITS.exists():
        return status or 1
    hits = json.loads(HITS.read_text())
    coverage = Coverage(items, hits, seen_by_code(items, texts))
    measured = rows(coverage)
    left = coverage.left()
    if not arguments:
        notes = [
            "Computed from the program counters of every transaction and call that the contract tests send and the",
            "compiler's source maps; the code is compiled without optimization for that. A line counts when every",
            "statement that starts on it ran; a branch is one outcome of `if`, a loop, `?:`, `&&`, `||` or `require`.",
            "",
            "## Not covered" if left else "Everything is covered.",
            "",
            *(f"- {one}" for one in left),
            "",
            "## Not counted",
            "",
            "Nothing in the compiled code is theirs alone:",
            "",
            *(f"- {item.range.file}:{item.line} `{item.text}`" for item in coverage.without_code),
        ]
        write("coverage", COMMAND, measured, environment=environment(), notes="\n".join(notes))
    print("\n".join(left))
    for row in measured:
        print(f"{row.value:7.2f} % of {row.n:4d} {row.what}")
    for test in hits["failed"]:
        print(f"failed on the measured code: {test}")
    for reason in hits["unread"]:
        print(f"a trace could not be read: {reason}")
    missed = [row.id for row in measured if row.met is False] if not arguments else []
    return status or len(missed)


if __name__ == "__main__":
    sys.exit(main())
