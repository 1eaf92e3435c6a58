"""The mutator on a small contract: each operator finds its places, and what it writes compiles."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proof")]

from mutants import Mutant, drawn, mutants  # noqa: E402
from solc import AST, compile_sources  # noqa: E402

PATH = "contracts/Sample.sol"
SOURCE = """\
// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

contract Sample {
    uint256 private constant TAIL = 90 days; // not 91 days, and "1 + 1" stays
    uint256 public sum;

    error Refused(uint256 given, uint256 least);
    event Added(uint256 given);

    modifier once() {
        require(sum == 0, Refused(sum, 0));
        _;
    }

    function add(uint256 given, bool twice) external once {
        if (given < TAIL) revert Refused(given, TAIL);
        for (uint256 i; i < 3; ++i) {
            sum += twice && given != 7 ? given * 2 : given;
        }
        emit Added(given);
        assembly ("memory-safe") {
            mstore(0, add(given, 1))
        }
    }
}
"""


@pytest.fixture(scope="module")
def every() -> list[Mutant]:
    return mutants(PATH, compile_sources({PATH: SOURCE}, AST)["sources"][PATH]["ast"], SOURCE)


def changes(every: list[Mutant], operator: str) -> set[tuple[str, str]]:
    return {(mutant.before, mutant.after) for mutant in every if mutant.operator == operator}


def test_each_operator_finds_its_places(every: list[Mutant]) -> None:
    assert changes(every, "relational") == {("==", "!="), ("<", "<="), ("!=", "==")}
    assert changes(every, "arithmetic") == {("++i", "--i"), ("+=", "-="), ("*", "/")}
    assert changes(every, "boolean") == {
        ("&&", "||"),
        ("twice && given != 7 ? given * 2 : given", "twice && given != 7 ? given : given * 2"),
    }
    assert changes(every, "check removed") == {
        ("require(sum == 0, Refused(sum, 0));", "{}"),
        ("if (given < TAIL) revert Refused(given, TAIL);", "{}"),
    }
    assert changes(every, "modifier removed") == {("once", "")}
    assert changes(every, "arguments swapped") == {("given, TAIL", "TAIL, given")}
    assert changes(every, "statement removed") == {
        ("sum += twice && given != 7 ? given * 2 : given;", "{}"),
        ("emit Added(given);", "{}"),
    }
    assert changes(every, "assembly") == {("add", "sub")}
    constants = changes(every, "constant")
    assert {before for before, _ in constants} == {"0", "90 days", "3", "7", "2"}
    assert all(abs(int(a.split()[0]) - int(b.split()[0])) == 1 for a, b in constants)


def test_what_is_written_compiles_or_is_refused_for_its_types(every: list[Mutant]) -> None:
    for mutant in every:
        changed = mutant.applied(SOURCE)
        assert changed != SOURCE
        compile_sources({PATH: changed}, AST)


def test_ids_differ_and_the_draw_is_fair_and_fixed(every: list[Mutant]) -> None:
    assert len({mutant.id for mutant in every}) == len(every)
    order = drawn(every, 1)
    assert sorted(order, key=id) == sorted(every, key=id)
    assert order == drawn(list(reversed(every)), 1)
    operators = {mutant.operator for mutant in every}
    assert Counter(mutant.operator for mutant in order[: len(operators)]) == dict.fromkeys(operators, 1)
