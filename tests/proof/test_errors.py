"""Every custom error of the contracts is triggered by a contract test that asks for that very error."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "contracts"
VECTORS = ROOT / "tests" / "vectors" / "delivery.json"
ASKING = {"reverts": 0, "refuses": 0, "refused": 1}  # which argument names the error
ERROR = re.compile(r"^\s*error (\w+)\(", re.MULTILINE)
CANNOT_COME = {
    # When a precompile fails for want of gas, a 64th of what it lacked is left: at most 25 gas for a chunk of 4,096
    # bytes, too little to say why. test_starving_a_hash_of_gas_never_makes_an_honest_chunk_wrong tries it.
    "HashFailed",
}
NAME = re.compile(r"^([A-Z]\w+)(?:\(|$)")


def declared() -> dict[str, str]:
    """Error -> the file that declares it."""
    found = {}
    for path in sorted((ROOT / "contracts").rglob("*.sol")):
        if "test" not in path.relative_to(ROOT).parts:
            found.update(dict.fromkeys(ERROR.findall(path.read_text()), path.name))
    return found


def named(node: ast.AST) -> Iterator[str]:
    """Names of errors in an expression: `contract.Error`, "Error", "Error(uint256)"."""
    for part in ast.walk(node):
        text = part.attr if isinstance(part, ast.Attribute) else getattr(part, "value", None)
        match = NAME.match(text) if isinstance(text, str) else None
        if match:
            yield match.group(1)


def asked(path: Path) -> dict[str, set[str]]:
    """Error -> tests of a file that ask for it.

    An error that comes in by a variable is looked for in the whole test and in the tables of the file that it uses."""
    module = ast.parse(path.read_text())
    tables = {}
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        tables.update({target.id: node for target in targets if isinstance(target, ast.Name)})
    found: dict[str, set[str]] = {}
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef):
            continue
        used = [
            tables[part.id] for part in ast.walk(function) if isinstance(part, ast.Name) and part.id in tables
        ]
        for call in ast.walk(function):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name not in ASKING or len(call.args) <= ASKING[name]:
                continue
            direct = set(named(call.args[ASKING[name]]))
            for error in direct or {error for part in (function, *used) for error in named(part)}:
                found.setdefault(error, set()).add(f"{path.name}::{function.name}")
    return found


@pytest.fixture(scope="module")
def triggered() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for error, tests in asked(path).items():
            found.setdefault(error, set()).update(tests)
    for case in json.loads(VECTORS.read_text())["invalid"]:
        found.setdefault(case["error"], set()).add("test_fair_delivery.py::test_bad_proofs_revert")
    return found


@pytest.mark.parametrize("error", declared())
def test_a_test_asks_for_it(error: str, triggered: dict[str, set[str]]) -> None:
    if error in CANNOT_COME:
        assert error not in triggered, f"{error} can come about after all"
    else:
        assert triggered.get(error), f"no contract test asks for {error} ({declared()[error]})"
