#!/usr/bin/env python3
"""Mutation tests of escrow and court: docs/mutation.json is the state, docs/mutation.md the report with answers.

`proof/mutation.py [--count N] [--seed N] [--files A,B] [--again] [--restart]` goes on until N mutants were judged by
the tests, of the contracts named if any are; `--again` judges survivors anew, `--report` only writes the report anew.
Each survivor has a row there (`id` | where | change | answer); a row without an answer (`?`) makes this command and a
test fail. It needs what `make coverage` left in build/coverage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from solc import ROOT

STATE = ROOT / "docs" / "mutation.json"
DOCUMENT = ROOT / "docs" / "mutation.md"
COUNT = 112
SEED = 20261122
OPEN_ANSWER = "?"
ROW = re.compile(r"^\| `([0-9a-f]{8})` \| .* \| (.*?) \|$")
JUDGED = ("killed", "survived")
HEAD = """\
# Mutation tests

Small wrong changes of the contracts that hold money and judge, one at a time, drawn by a seed; the contract tests
should notice each. Made by `make mutation` from `docs/mutation.json`; rows are written by the command, answers by
people.
"""


def run(count: int, seed: int, files: str) -> int:
    """Judges mutants until `count` are; pytest's exit status."""
    command = [
        *(str(Path(sys.executable).with_name("ape")), "test", "tests/contracts"),
        *("--network", "ethereum:local:foundry", "-q", "-p", "mutation_plugin"),
        *("--mutants", str(count), "--mutation-seed", str(seed), "--mutation-files", files),
    ]
    path = os.pathsep.join([str(ROOT / "proof"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def answers(document: str) -> dict[str, str]:
    """id -> answer of every survivor's row."""
    rows = (ROW.match(line) for line in document.splitlines())
    return {row.group(1): row.group(2) for row in rows if row}


def problems(state: dict[str, Any], document: str) -> list[str]:
    """Survivors without an answer, answers without a survivor."""
    given = answers(document)
    alive = {one["id"] for one in state["mutants"] if one["result"] == "survived"}
    new = [f"not answered: {id_}" for id_ in sorted(alive) if given.get(id_, OPEN_ANSWER) == OPEN_ANSWER]
    return new + [f"no longer a survivor: {id_}" for id_ in sorted(given.keys() - alive)]


def report(state: dict[str, Any], document: str) -> str:
    """The document for this state; answers stay."""
    given = answers(document)
    every = state["mutants"]
    counts = Counter(one["result"] for one in every)
    judged = sum(counts[result] for result in JUDGED)
    share = f"{100 * counts['killed'] / judged:.1f} % of those judged" if judged else "none judged yet"
    lines = [
        HEAD,
        f"Seed {state['seed']}; of {state['drawn_from']} mutants that can be made, {len(every)} were drawn:",
        f"{counts['killed']} killed ({share}), {counts['survived']} survived, {counts['invalid']} do not compile,",
        f"{counts['same code']} are the same code.",
        "",
        "| operator | killed | survived |",
        "|---|---|---|",
    ]
    for operator in sorted({one["operator"] for one in every}):
        of = Counter(one["result"] for one in every if one["operator"] == operator)
        lines.append(f"| {operator} | {of['killed']} | {of['survived']} |")
    lines += ["", "## Survivors", "", "| id | where | change | answer |", "|---|---|---|---|"]
    for one in every:
        if one["result"] == "survived":
            where = f"`{one['in']}`, {one['file'].removeprefix('contracts/')}:{one['line']}"
            change = f"`{_cell(one['before'])}` to `{_cell(one['after'])}`"
            lines.append(f"| `{one['id']}` | {where} | {change} | {given.get(one['id'], OPEN_ANSWER)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "¦")
    return text if len(text) < 80 else text[:79] + "…"


def main() -> int:
    """0 when enough mutants were judged and every survivor is answered."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT, help="mutants to judge")
    parser.add_argument("--seed", type=int, default=SEED, help="which mutants are drawn")
    parser.add_argument("--files", default="", help="contracts whose mutants are judged now, by name")
    parser.add_argument("--again", action="store_true", help="forget the survivors")
    parser.add_argument("--restart", action="store_true", help="forget what was judged")
    parser.add_argument("--report", action="store_true", help="only write the report")
    options = parser.parse_args()
    status = 0
    if options.restart:
        STATE.unlink(missing_ok=True)
    if options.again and STATE.exists():
        state = json.loads(STATE.read_text())
        state["mutants"] = [one for one in state["mutants"] if one["result"] != "survived"]
        STATE.write_text(json.dumps(state, indent=1, ensure_ascii=False) + "\n")
    if not options.report:
        status = run(options.count, options.seed, options.files)
    if not STATE.exists():
        return status or 1
    state = json.loads(STATE.read_text())
    document = report(state, DOCUMENT.read_text() if DOCUMENT.exists() else "")
    DOCUMENT.write_text(document)
    wrong = problems(state, document)
    print("\n".join(wrong))
    return status or (1 if wrong else 0)


if __name__ == "__main__":
    sys.exit(main())
