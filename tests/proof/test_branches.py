"""The branch lists are those of the contracts, and every leaf names a test that exists."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proof")]

import branches  # noqa: E402
from branches import Leaf, leaves, problems, read, rendered  # noqa: E402
from solc import AST, compile_sources, sources  # noqa: E402
from source_items import Items  # noqa: E402

PATH = "contracts/Sample.sol"
SOURCE = """\
// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

contract Sample {
    uint256 public sum;

    error Refused(uint256 given);

    function add(uint256 given) external {
        require(given != 0 && given != 9, Refused(given));
        if (given > 10) revert Refused(given);
        sum += given > 5 ? 5 : given;
    }

    function clear() external {
        sum = 0;
    }

    function half() external view returns (uint256) {
        return sum / 2;
    }
}
"""
TREE = """\
# Branches of Sample; `make branches` brings conditions up to date, people name the tests.

add
├── require given != 0 && given != 9
│   ├── yes → test_sample.py::test_add
│   └── no: reverts Refused → test_sample.py::test_refuses
├── if given > 10
│   ├── yes: reverts Refused → test_sample.py::test_refuses
│   └── no → test_sample.py::test_add
└── ?: given > 5
    ├── yes → unreachable: an example, with a comma
    └── no → test_sample.py::test_add

clear
└── runs → test_sample.py::test_clear
"""


@pytest.fixture
def sample() -> dict[str, list[Leaf]]:
    texts = {PATH: SOURCE}
    answer = compile_sources(texts, AST)
    return leaves(answer, Items(answer, texts))


@pytest.fixture
def some_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"test_sample.py": {"test_add", "test_refuses", "test_clear"}}
    monkeypatch.setattr(branches, "known_tests", lambda: there)


@pytest.mark.usefixtures("some_tests")
def test_a_list_that_fits_has_no_problems(sample: dict[str, list[Leaf]]) -> None:
    assert problems({"Sample": TREE}, sample) == []
    assert rendered("Sample", sample["Sample"], read(TREE)) == TREE


@pytest.mark.usefixtures("some_tests")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("test_clear", "test_clears"), "there is no test test_sample.py::test_clears"),
        (("test_sample.py::test_clear", "?"), "no test"),
        (("given > 10", "given > 11"), "not as the contract is"),
        (("clear\n└── runs → test_sample.py::test_clear\n", ""), "not as the contract is"),
    ],
)
def test_a_list_that_does_not_fit_is_found(
    sample: dict[str, list[Leaf]], change: tuple[str, str], problem: str
) -> None:
    assert any(problem in found for found in problems({"Sample": TREE.replace(*change)}, sample))


@pytest.mark.usefixtures("some_tests")
def test_a_list_of_no_contract_is_found(sample: dict[str, list[Leaf]]) -> None:
    assert any("no such contract" in found for found in problems({"Sample": TREE, "Gone": TREE}, sample))


def test_the_lists_are_those_of_the_contracts() -> None:
    texts = sources()
    answer = compile_sources(texts, AST)
    lists = {path.stem: path.read_text() for path in branches.LISTS.glob("*.tree")}
    assert problems(lists, leaves(answer, Items(answer, texts))) == []
