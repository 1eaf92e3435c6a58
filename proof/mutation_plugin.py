"""A pytest plugin for Ape that runs the contract tests against mutants, in one process and on one node.

For each mutant only the contracts that contain the changed place are compiled; the tests that reached it under
`make coverage` run, quickest first, until one fails. A test that kills is run once without any mutant, so that a test
that fails anyway kills nothing. Tests slower than `SLOWEST` are left out: what only they would notice survives. The
state file is written after every mutant: an interrupted run goes on from there. Mutants of a file that changed since
are judged anew.
"""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from ape_foundry.provider import FoundryProvider

from coverage import HITS
from coverage_plugin import SHARED, use_code
from mutants import Mutant, drawn, mutants
from mutation import JUDGED, STATE
from solc import AST, CODE, CompileError, compile_sources, digest, measured_code, sources
from source_items import Item, Items, Range, instructions

TARGETS = tuple(
    f"contracts/{name}.sol"
    for name in (
        *("CourtBase", "CourtExtension", "MisuseCourt", "OracleCommittee"),
        *("EscrowBase", "EscrowExtension", "LicenseEscrow", "Vault", "VaultBase"),
        *("libraries/CourtMoney", "libraries/FairDelivery", "libraries/LicenseTerms"),
    )
)
NODE = ["--disable-code-size-limit", "--gas-limit", "40000000"]
TEST_SECONDS = 300  # a test that takes longer hangs in the mutant
SLOWEST = 15.0  # seconds, under coverage
STAGES = (
    "tests/contracts/court/",
    "tests/contracts/system/",
)  # a session is set up for one of them, or for the rest
SHARED_SECONDS = 90.0  # of tests that reach the place only through shared fixtures


def pytest_addoption(parser: pytest.Parser) -> None:
    """--mutants, --mutation-seed, --mutation-files"""
    parser.addoption("--mutants", type=int, required=True, help="how many to judge")
    parser.addoption("--mutation-seed", type=int, required=True, help="which ones")
    parser.addoption("--mutation-files", default="", help="judge only those of these contracts")


def pytest_configure() -> None:
    """A mutant may loop until its gas is gone: the node must not keep each step in memory."""
    build_command = FoundryProvider.build_command

    def command(provider: FoundryProvider) -> list[str]:
        return [part for part in build_command(provider) if part != "--steps-tracing"] + NODE

    FoundryProvider.build_command = command  # type: ignore


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """In place of running each test once."""
    option = session.config.getoption
    names = option("--mutation-files").split(",") if option("--mutation-files") else []
    Trial(session, option("--mutation-seed"), names).judge(option("--mutants"))
    return True


class Trial:
    """Judges mutants in the order drawn."""

    def __init__(self, session: pytest.Session, seed: int, names: list[str]) -> None:
        self._session = session
        self._texts = sources()
        answer = compile_sources(self._texts, AST)
        self._items, self._places = (found := Items(answer, self._texts)).all, found.places
        self._hits = _hits(self._texts)
        trees = {path: answer["sources"][path]["ast"] for path in TARGETS}
        every = drawn(
            [m for path, tree in trees.items() for m in mutants(path, tree, self._texts[path])], seed
        )
        self._drawn = [one for one in every if not names or Path(one.file).stem in names]
        self._built = Built(self._texts)
        self._state = _state(seed, self._texts, len(every))
        self._tests = {
            item.nodeid: item
            for item in session.items
            if item.nodeid not in self._hits["failed"]
            and self._hits["seconds"].get(item.nodeid, 0.0) < SLOWEST
        }
        self._sound: set[str] = set()

    def judge(self, count: int) -> None:
        """Goes on until `count` mutants were killed or survived."""
        known = {one["id"] for one in self._state["mutants"]}
        judged = sum(one["result"] in JUDGED for one in self._state["mutants"])
        for mutant in self._drawn:
            if judged >= count:
                break
            if mutant.id in known:
                continue
            start = time.monotonic()
            result, by = self._verdict(mutant)
            judged += result in JUDGED
            found = {
                "id": mutant.id,
                "file": mutant.file,
                "text": _hash(self._texts[mutant.file]),
                "line": mutant.line,
                "in": mutant.name,
                "operator": mutant.operator,
                "before": mutant.before,
                "after": mutant.after,
                "result": result,
                "by": by,
            }
            self._state["mutants"].append(found)
            STATE.write_text(json.dumps(self._state, indent=1, ensure_ascii=False) + "\n")
            took = time.monotonic() - start
            where = f"{mutant.name}:{mutant.line} {mutant.operator}"
            print(f"{judged}/{count} {mutant.id} {result} {took:.0f} s {where} {by}", flush=True)

    def _verdict(self, mutant: Mutant) -> tuple[str, str]:
        """(result, test that killed it)"""
        try:
            changed = self._built.with_(mutant, self._texts)
        except CompileError:
            return "invalid", ""
        if not changed:
            return "same code", ""
        for test in self._killers(mutant, changed):
            if self._is_sound(test):
                return "killed", test
        return "survived", ""

    def _killers(self, mutant: Mutant, changed: Mapping[str, Any]) -> Iterable[str]:
        """Tests that fail with the mutant, one after the other while they are asked for."""
        reaching = self._tests_of(mutant)
        for stage in (*STAGES, ""):
            left = [test for test in reaching if _stage(test) == stage]
            while left:
                use_code({**self._built.contracts, **changed})
                failed = self._first_failure(left)
                use_code(self._built.contracts)
                if failed is None:
                    break
                yield failed
                left = left[left.index(failed) + 1 :]

    def _is_sound(self, test: str) -> bool:
        """Whether the test passes without a mutant."""
        if test not in self._sound and self._first_failure([test]) is None:
            self._sound.add(test)
        return test in self._sound

    def _first_failure(self, tests: list[str]) -> str | None:
        """Runs tests until one fails; shared fixtures are set up anew."""
        try:
            for place, test in enumerate(tests):
                following = self._tests[tests[place + 1]] if place + 1 < len(tests) else None
                signal.signal(signal.SIGALRM, _hangs)
                signal.alarm(TEST_SECONDS)
                reports = runtestprotocol(self._tests[test], log=False, nextitem=following)
                signal.alarm(0)
                if any(report.failed for report in reports):
                    return test
        finally:
            signal.alarm(0)
            self._session._setupstate.teardown_exact(None)
        return None

    def _tests_of(self, mutant: Mutant) -> list[str]:
        """Tests that reached the changed place, quickest first; if shared fixtures did, others while there is time."""
        items = {item.id for item in self._reaching(mutant)}
        traces = {place for place, shown in enumerate(self._hits["traces"]) if not items.isdisjoint(shown)}
        reached = [test for test, seen in self._hits["tests"].items() if not traces.isdisjoint(seen)]
        seconds = self._hits["seconds"]
        quickest = sorted(self._tests, key=lambda test: (seconds.get(test, 0.0), test))
        found = [test for test in quickest if test in reached]
        if SHARED in reached:
            spent = 0.0
            for test in quickest:
                spent += seconds.get(test, 0.0)
                if test not in reached and spent < SHARED_SECONDS:
                    found.append(test)
        return found

    def _reaching(self, mutant: Mutant) -> list[Item]:
        """Statements that run the place: the innermost around it, of a header the body, of a constant its users.

        Of a modifier also its refusals, which keep tests from the body."""
        statements = [item for item in self._items if item.kind == "statement"]
        around = [item for item in statements if item.range.holds(mutant.range)]
        if around:
            return [min(around, key=lambda item: item.range.end - item.range.start)]
        body = [item for item in statements if mutant.scope.holds(item.range)]
        if mutant.operator == "modifier removed":
            modifier = mutant.before.split("(")[0]
            for name, (_, first, count) in self._places.items():
                if name.endswith(f".{modifier}"):
                    body += [item for item in self._items[first : first + count] if _refuses(item)]
        constant = mutant.name.split(".")[-1]
        return body or [item for item in statements if constant in item.text]


class Built:
    """The contracts as they are, and which of them contain a place of a source."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.contracts: dict[str, Any] = {}
        self._file: dict[str, str] = {}
        self._ranges: dict[str, set[Range]] = {}
        for path in texts:
            answer = measured_code(path, texts)
            paths = {source["id"]: name for name, source in answer["sources"].items()}
            for name, contract in answer["contracts"][path].items():
                parts = (contract["evm"]["bytecode"], contract["evm"]["deployedBytecode"])
                if not parts[1]["object"]:
                    continue
                self.contracts[name], self._file[name] = contract, path
                self._ranges[name] = {
                    one.range
                    for part in parts
                    for one in instructions(bytes.fromhex(part["object"]), part["sourceMap"], paths)
                    if one.range
                }

    def with_(self, mutant: Mutant, texts: Mapping[str, str]) -> dict[str, Any]:
        """The contracts whose code the mutant changes, compiled. Raises CompileError."""
        touched = [name for name, ranges in self._ranges.items() if any(map(mutant.scope.holds, ranges))]
        if not touched:
            return {}
        files = {self._file[name] for name in touched} | {mutant.file}
        given = {path: texts[path] for path in files} | {mutant.file: mutant.applied(texts[mutant.file])}
        selection: dict[str, dict[str, Iterable[str]]] = {}
        for name in touched:
            selection.setdefault(self._file[name], {})[name] = CODE
        answer = compile_sources(given, selection)
        found = {name: answer["contracts"][self._file[name]][name] for name in touched}
        return {
            name: contract
            for name, contract in found.items()
            if _code(contract) != _code(self.contracts[name])
        }


def _code(contract: Mapping[str, Any]) -> str:
    return str(contract["evm"]["bytecode"]["object"])


def _refuses(item: Item) -> bool:
    return item.text.startswith("revert ") or (item.decision == "require" and item.outcome is False)


def _hangs(*_: object) -> None:
    raise TimeoutError(f"no end after {TEST_SECONDS} seconds")


def _stage(test: str) -> str:
    return next((stage for stage in STAGES if test.startswith(stage)), "")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hits(texts: Mapping[str, str]) -> dict[str, Any]:
    if not HITS.exists():
        raise pytest.UsageError("build/coverage/hits.json is missing: run `make coverage` first")
    hits: dict[str, Any] = json.loads(HITS.read_text())
    if hits["sources"] != digest(texts):
        raise pytest.UsageError("the contracts changed since `make coverage`: run it again")
    return hits


def _state(seed: int, texts: Mapping[str, str], drawn_from: int) -> dict[str, Any]:
    """What was judged before of files that are as they were then."""
    judged = []
    if STATE.exists():
        state: dict[str, Any] = json.loads(STATE.read_text())
        if state["seed"] != seed:
            raise pytest.UsageError("docs/mutation.json is of another seed: --restart")
        judged = [one for one in state["mutants"] if one["text"] == _hash(texts.get(one["file"], ""))]
    return {"seed": seed, "drawn_from": drawn_from, "mutants": judged}
