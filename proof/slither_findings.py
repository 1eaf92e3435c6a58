#!/usr/bin/env python3
"""Runs Slither on the contracts; every finding must have an answer in docs/slither.md, every answer there a finding.

The file is the baseline: one section a detector, one table row a finding (`id` | where | answer). Ids hang on names
and expressions, not on line numbers, nor, as Slither's own do, on the order in which it comes upon them. `--write` adds
rows for new findings with `?` as their answer, which is none, and removes rows that nothing is found for any more; an
answer moves along when only the id of a place changed.

Slither reads the compiler's syntax trees only, so no code is generated: seconds, and no stack that is too deep.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from solc import AST, ROOT, compile_sources, is_measured, sources

DOCUMENT = ROOT / "docs" / "slither.md"
OTHERS = r"node_modules/|contracts/test/"  # not looked at
NOT_RUN = ("naming-convention", "timestamp", "too-many-digits")  # the reasons are in the document
ID_LENGTH = 10
LINES = re.compile(r" \([^()]*#[0-9-]+\)")
OPEN_ANSWER = "?"
ROW = re.compile(r"^\| `([0-9a-f]{10})` \| (.*?) \| (.*?) \|$")
IMPACTS = ("High", "Medium", "Low", "Informational", "Optimization")


class Finding(NamedTuple):
    """One result of one detector."""

    id: str
    check: str
    impact: str
    confidence: str
    where: str
    text: str

    @property
    def heading(self) -> str:
        """The heading of its detector's section."""
        return f"{self.check} ({self.impact.lower()} impact, {self.confidence.lower()} confidence)"


def export(folder: Path) -> Path:
    """Writes the project as Slither reads it without compiling: crytic-compile's export format, no code in it."""
    answer = compile_sources(sources(), AST)

    def names(path: str) -> dict[str, str]:
        return {"absolute": str(ROOT / path), "used": path, "short": path, "relative": path}

    units: dict[str, Any] = {}
    for path, source in answer["sources"].items():
        contracts = {}
        for name, contract in answer["contracts"].get(path, {}).items():
            contracts[name] = {
                "abi": contract["abi"],
                **dict.fromkeys(("bin", "bin-runtime", "srcmap", "srcmap-runtime"), ""),
                "filenames": names(path),
                "libraries": {},
                "is_dependency": not path.startswith("contracts/"),
                "userdoc": {},
                "devdoc": {},
            }
        units[path] = {"ast": source["ast"], "contracts": contracts}
    compiler = {"compiler": "solc", "version": "0.8.30", "optimized": True}
    unit = {"compiler": compiler, "source_units": units, "filenames": [names(path) for path in units]}
    whole = {
        "compilation_units": {"zhiyi": unit},
        "package": "zhiyi",
        "working_dir": str(ROOT),
        "type": 1,  # solc
        "unit_tests": [],
        "crytic_version": "0.0.2",
    }
    file = folder / "zhiyi_export.json"  # Slither knows the format by the name's end
    file.write_text(json.dumps(whole))
    return file


def findings() -> list[Finding]:
    """Everything Slither finds in the project's own contracts, worst first.

    Raises RuntimeError when Slither itself fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "slither.json"
        command = [
            str(Path(sys.executable).with_name("slither")),
            str(export(Path(folder))),
            *("--filter-paths", OTHERS),
            *("--exclude", ",".join(NOT_RUN)),
            *("--json", str(report)),
            "--no-fail-pedantic",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        found = json.loads(report.read_text()) if report.exists() else {}
    if not found.get("success"):
        raise RuntimeError(f"Slither failed: {found.get('error') or done.stderr}")
    # A finding about a library's function as our contract inherits it names only files of others.
    own = [one for one in found["results"].get("detectors", []) if any(map(is_measured, _files(one)))]
    results = {
        one.id: one
        for one in (
            Finding(
                _id(one),
                one["check"],
                one["impact"],
                one["confidence"],
                _where(one),
                one["description"].strip(),
            )
            for one in own
        )
    }
    return sorted(results.values(), key=lambda f: (IMPACTS.index(f.impact), f.check, f.where, f.id))


def _id(one: dict[str, Any]) -> str:
    lines = sorted({line.strip() for line in LINES.sub("", one["description"]).splitlines()})
    return hashlib.sha256("\n".join([one["check"], *lines]).encode()).hexdigest()[:ID_LENGTH]


def _files(one: dict[str, Any]) -> Iterable[str]:
    return (element["source_mapping"]["filename_relative"] for element in one["elements"])


def _where(one: dict[str, Any]) -> str:
    """`Contract.function`, and what in it where the detector names that."""
    first = one["elements"][0]
    names: list[str] = []
    place: Any = first
    while place and place["type"] in ("variable", "function", "contract", "node", "event", "struct", "enum"):
        if place["type"] != "node":
            names.insert(0, str(place["name"]))
        place = place.get("type_specific_fields", {}).get("parent")
    where = f"`{'.'.join(names)}`"
    nodes = [element for element in one["elements"][1:] if element["type"] == "node"]
    if nodes and one["check"] != "assembly":
        kind = _kind(nodes[-1])
        text = " ".join(min(str(node["name"]) for node in nodes if _kind(node) == kind).split())
        where += f": `{text[:70] + '…' if len(text) > 71 else text}`"
    return where.replace("|", "¦")


def _kind(node: dict[str, Any]) -> str:
    """Of what a finding is made of: calls, variables written after them, events."""
    return str(node.get("additional_fields", {}).get("underlying_type", ""))


class Row(NamedTuple):
    """What the document says about a finding."""

    check: str
    where: str
    answer: str


def answers(document: str) -> dict[str, Row]:
    """id -> its row."""
    found, check = {}, ""
    for line in document.splitlines():
        row = ROW.match(line)
        if line.startswith("## "):
            check = line[3:].split(" (")[0]
        elif row:
            found[row.group(1)] = Row(check, row.group(2), row.group(3))
    return found


def problems(found: list[Finding], document: str) -> list[str]:
    """Findings without an answer, answers without a finding."""
    given = answers(document)
    known = {finding.id for finding in found}
    new = [
        f"not answered: {f.id} {f.check} ({f.impact})\n    {f.text}"
        for f in found
        if f.id not in given or given[f.id].answer == OPEN_ANSWER
    ]
    gone = [
        f"no longer found: {id_} {row.check} {row.where}" for id_, row in given.items() if id_ not in known
    ]
    return new + gone


def rewritten(found: list[Finding], document: str) -> str:
    """The document with a row for every finding and none besides; text of people stays."""
    given = answers(document)
    moved = {(row.check, row.where): row for row in given.values()}
    head, *sections = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    texts = {}
    for section in sections:
        title, _, body = section.partition("\n")
        texts[title[3:].split(" (")[0]] = "\n".join(
            line for line in body.splitlines() if not line.startswith("| ") and not line.startswith("|---")
        ).strip()
    parts = [head.rstrip() + "\n"]
    for check in dict.fromkeys(finding.check for finding in found):
        of_check = [finding for finding in found if finding.check == check]
        text = texts.get(check, "")
        rows = []
        for finding in of_check:
            row = given.get(finding.id) or moved.get((check, finding.where))
            rows.append(f"| `{finding.id}` | {finding.where} | {row.answer if row else OPEN_ANSWER} |")
        table = "\n".join(["| id | where | answer |", "|---|---|---|", *rows])
        parts.append(f"## {of_check[0].heading}\n" + (f"\n{text}\n" if text else "") + f"\n{table}\n")
    return "\n".join(parts)


def main() -> int:
    """0 when findings and answers are the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="bring the document's rows up to date")
    arguments = parser.parse_args()
    found = findings()
    document = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    if arguments.write:
        document = rewritten(found, document)
        DOCUMENT.write_text(document)
    wrong = problems(found, document)
    print("\n".join(wrong) if wrong else f"{len(found)} findings, each answered in docs/slither.md")
    if wrong:
        print("write the new rows with `make slither-write`, then answer them in docs/slither.md")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
