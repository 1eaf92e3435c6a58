#!/usr/bin/env python3
"""Branch lists of the contracts: tests/contracts/branches/CONTRACT.tree, one leaf an outcome, each with a test.

    open
    ├── if block.timestamp < _pause.until
    │   ├── yes: reverts OpeningIsPaused → test_escrow_open.py::test_nobody_opens_in_a_pause
    │   └── no → test_escrow_open.py::test_open_locks_the_deposit
    ├── …

Every function that decides something has its section, and so has every external function that may change state: one
that decides nothing has the one leaf `runs`. Conditions are the source's own words, so a list that is out of date is
found by comparing. An outcome that cannot come about says so: `→ unreachable: reason`.

`proof/branches.py` compares lists, contracts and tests; `--write` brings the lists up to date and names tests for
leaves that have none, from what `make coverage` saw; where it saw none the leaf gets `?`, which fails the check.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverage import HITS
from solc import AST, ROOT, compile_sources, digest, is_measured, sources
from source_items import Item, Items, Range, functions

TESTS = ROOT / "tests" / "contracts"
LISTS = TESTS / "branches"
RUNS = "runs"
UNREACHABLE = "unreachable: "
NONE = "?"
SHOWN = ("if", "if else", "loop", "?:", "require")  # `&&` and `||` are part of these
OUTSIDE = ("external", "public")
READS = ("view", "pure")
LEAF = re.compile(r"^(?P<bars>[│├└─ ]*)(?P<text>.*?)(?: → (?P<test>.*))?$")


@dataclass(frozen=True)
class Leaf:
    """One outcome in a function. `items` show that it came about."""

    section: str
    condition: str  # empty for `runs`
    outcome: str
    items: frozenset[int]

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it in a list."""
        return self.section, self.condition, self.outcome.split(":")[0]


def leaves(answer: Mapping[str, Any], items: Items) -> dict[str, list[Leaf]]:
    """Contract -> the leaves of its functions, in the order of the source."""
    found: dict[str, list[Leaf]] = {}
    for path in sorted(answer["sources"]):
        if not is_measured(path):
            continue
        tree = answer["sources"][path]["ast"]
        names = [_name(node) for _, node in functions(tree)]
        for contract, node in functions(tree):
            start, length, _ = (int(part) for part in node["src"].split(":"))
            where = Range(path, start, start + length)
            name = _name(node)
            if names.count(name) > 1:
                types = [one["typeDescriptions"]["typeString"] for one in node["parameters"]["parameters"]]
                name += f"({','.join(kind.split('.')[-1].split(' ')[0] for kind in types)})"
            inside = [item for item in items.all if where.holds(item.range)]
            found.setdefault(contract, []).extend(_of(name, node, inside))
    return {contract: of for contract, of in found.items() if of}


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("name") or node.get("kind"))


def _of(name: str, node: Mapping[str, Any], inside: list[Item]) -> Iterator[Leaf]:
    statements = frozenset(item.id for item in inside if item.kind == "statement")
    decisions = [item for item in inside if item.decision in SHOWN]
    for place, item in enumerate(decisions):
        twins = [one for one in decisions[:place] if one.text == item.text and one.outcome == item.outcome]
        condition = f"{item.decision.removesuffix(' else')} {item.text}" + " (again)" * len(twins)
        outcome = "yes" if item.outcome else "no"
        error = _error(item, inside)
        yield Leaf(name, condition, f"{outcome}: reverts {error}" if error else outcome, frozenset({item.id}))
    changes = node.get("visibility") in OUTSIDE and node.get("stateMutability") not in READS
    if not decisions and changes and statements:
        yield Leaf(name, "", RUNS, frozenset({min(statements)}))


def _error(item: Item, inside: list[Item]) -> str:
    """The error that this outcome of a check reverts with, else empty."""
    if item.decision == "require" and not item.outcome:
        whole = next(
            (one.text for one in inside if one.kind == "statement" and one.range.holds(item.range)), ""
        )
        found = re.match(r",\s*(?:\w+\.)?(\w+)\(", whole[whole.find(item.text) + len(item.text) :])
        return found.group(1) if found else ""
    if item.decision == "if" and item.outcome:
        for one in inside:
            if one.kind == "statement" and one.text.startswith("revert ") and item.range.holds(one.range):
                return one.text.removeprefix("revert ").split("(")[0].split(".")[-1]
    return ""


def rendered(contract: str, of: list[Leaf], tests: Mapping[tuple[str, str, str], str]) -> str:
    """The list of a contract."""
    lines = [
        f"# Branches of {contract}; `make branches` brings conditions up to date, people name the tests."
    ]
    for section in dict.fromkeys(leaf.section for leaf in of):
        own = [leaf for leaf in of if leaf.section == section]
        lines += ["", section]
        conditions = list(dict.fromkeys(leaf.condition for leaf in own))
        for condition in conditions:
            last = condition == conditions[-1]
            outcomes = [leaf for leaf in own if leaf.condition == condition]
            if condition:
                lines.append(f"{'└' if last else '├'}── {condition}")
            for leaf in outcomes:
                bars = ("    " if last else "│   ") if condition else ""
                bars += "└── " if leaf is outcomes[-1] else "├── "
                lines.append(f"{bars}{leaf.outcome} → {tests.get(leaf.key, NONE)}")
    return "\n".join(lines) + "\n"


def read(text: str) -> dict[tuple[str, str, str], str]:
    """(section, condition, outcome) -> what stands behind the arrow."""
    found: dict[tuple[str, str, str], str] = {}
    section = condition = ""
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = LEAF.match(line)
        assert match is not None
        if not match["bars"]:
            section, condition = match["text"], ""
        elif match["test"] is None:
            condition = match["text"]
        else:
            found[section, condition, match["text"].split(":")[0]] = match["test"]
    return found


def known_tests() -> dict[str, set[str]]:
    """File name -> the tests in it. A class of Hypothesis counts by the name that pytest runs it under."""
    found = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        names = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        }
        assigned = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id.startswith("Test")
        }
        found[path.name] = names | assigned
    return found


def problems(lists: Mapping[str, str], wanted: Mapping[str, list[Leaf]]) -> list[str]:
    """Where lists, contracts and tests do not agree."""
    tests = known_tests()
    wrong = [
        f"{name}.tree: there is no such contract, or it decides nothing"
        for name in lists.keys() - wanted.keys()
    ]
    for contract, of in wanted.items():
        given = read(lists.get(contract, ""))
        if lists.get(contract, "") != rendered(contract, of, given):
            wrong.append(f"{contract}.tree: not as the contract is; run `make branches`")
        for leaf in of:
            where = f"{contract}.tree: {leaf.section}: {leaf.condition} {leaf.outcome}"
            for test in given.get(leaf.key, NONE).split(", "):
                file, _, name = test.partition("::")
                if test.startswith(UNREACHABLE):
                    break
                if test == NONE:
                    wrong.append(f"{where}: no test")
                elif name not in tests.get(file, ()):
                    wrong.append(f"{where}: there is no test {test}")
    return wrong


class Seen:
    """What the tests of the last `make coverage` came to."""

    def __init__(self, hits: Mapping[str, Any]) -> None:
        self._traces = [frozenset(shown) for shown in hits["traces"]]
        self._tests = {test: frozenset(seen) for test, seen in hits["tests"].items() if test}
        self._failed = set(hits["failed"])

    def test_of(self, leaf: Leaf) -> str | None:
        """The test that does least besides, if any comes to the outcome."""
        showing = {place for place, shown in enumerate(self._traces) if leaf.items <= shown}
        able = [test for test, seen in self._tests.items() if seen & showing and test not in self._failed]
        if not able:
            return None

        def rank(test: str) -> tuple[bool, int, int, str]:
            error = leaf.outcome.partition("reverts ")[2]
            words = {word.lower()[:5] for word in re.findall("[A-Z][a-z]+", error)}
            names = {word[:5] for word in re.split(r"\W|_", test.split("::")[-1].lower())}
            return "stateful" in test, -len(words & names), len(self._tests[test]), test

        file, _, name = min(able, key=rank).split("[")[0].partition("::")
        return f"{Path(file).name}::{name.split('::')[0]}"


def main() -> int:
    """0 when lists, contracts and tests agree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="bring the lists up to date")
    options = parser.parse_args()
    texts = sources()
    answer = compile_sources(texts, AST)
    wanted = leaves(answer, Items(answer, texts))
    lists = {path.stem: path.read_text() for path in sorted(LISTS.glob("*.tree"))}
    if options.write:
        hits = json.loads(HITS.read_text()) if HITS.exists() else {"sources": ""}
        seen = Seen(hits) if hits["sources"] == digest(texts) else None
        if seen is None:
            print(
                "no tests are named: build/coverage/hits.json is missing or of other contracts (`make coverage`)"
            )
        LISTS.mkdir(exist_ok=True)
        for name in lists.keys() - wanted.keys():
            (LISTS / f"{name}.tree").unlink()
        tests = known_tests()
        for contract, of in wanted.items():
            given = read(lists.get(contract, ""))
            for leaf in of:
                file, _, name = given.get(leaf.key, NONE).split(", ")[0].partition("::")
                stays = file.startswith(UNREACHABLE) or name in tests.get(file, ())
                if not stays:
                    given[leaf.key] = (seen and seen.test_of(leaf)) or NONE
            (LISTS / f"{contract}.tree").write_text(rendered(contract, of, given))
        lists = {path.stem: path.read_text() for path in sorted(LISTS.glob("*.tree"))}
    wrong = problems(lists, wanted)
    print("\n".join(wrong) if wrong else f"{sum(map(len, wanted.values()))} leaves, each with its test")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
