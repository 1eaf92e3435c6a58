"""The coverage tool against a contract of which we know what ran and what did not, on a real node."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "proof")]

from eth_utils import keccak  # noqa: E402

from coverage import merged  # noqa: E402
from devnode import Node  # noqa: E402
from execution import CodeBook, Reader  # noqa: E402
from solc import AST, CODE, compile_sources  # noqa: E402
from source_items import Items  # noqa: E402

PATH = "contracts/Sample.sol"
SOURCE = """\
// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

error Refused(uint256 given);

library Sums {
    function upTo(uint256 n) internal pure returns (uint256 sum) {
        for (uint256 i; i < n; ++i) {
            if (i == 7) continue;
            sum += i;
        }
    }
}

contract Extension {
    uint256 public immutable base;
    uint256 public stored;

    constructor(uint256 base_) {
        base = base_;
        if (base_ == 99) revert Refused(base_);
    }

    function store(uint256 given) external {
        if (given > 10) revert Refused(given);
        stored = given + base;
    }
}

contract Sample is Extension(5) {
    Extension private immutable other;

    modifier small(uint256 n) {
        require(n < 100, Refused(n));
        _;
    }

    constructor() {
        other = new Extension(1);
    }

    function sum(uint256 n) external view small(n) returns (uint256 result) {
        result = Sums.upTo(n);
        if (result > 1000) {
            result = 1000;
        } else {
            result += 1;
        }
        assembly ("memory-safe") {
            result := add(result, 0)
        }
    }

    function choose(bool a, bool b) external view returns (uint256) {
        uint256 size = a && b ? base : 2;
        if (a || b) return size;
        return 0;
    }

    function delegate(uint256 given) external {
        (bool done,) = address(other).delegatecall(abi.encodeCall(Extension.store, (given)));
        if (!done) revert();
        other.store(given);
    }

    function later(uint256 n) external pure returns (uint256 found) {
        require(n != 3, Refused(n));
        found = n * 2;
        require(found != 8, Refused(found));
        return _never(found);
    }

    function _never(uint256 n) private pure returns (uint256) {
        return n;
    }

    function untouched() external pure returns (uint256) {
        return 1;
    }
}
"""


class Bench:
    """A node with the sample deployed, and what ran there so far."""

    def __init__(self, url: str) -> None:
        self._url, self._session = url, requests.Session()
        texts = {PATH: SOURCE}
        self.items = Items(compile_sources(texts, AST), texts)
        answer = compile_sources(texts, {PATH: {"*": CODE}})
        book = CodeBook()
        book.add(answer, self.items)
        self.reader = Reader(book, self._ask)
        self.shown: set[int] = set()
        self._sender = self.reader.ask_for("eth_accounts", [])[0]
        self._sample = answer["contracts"][PATH]["Sample"]["evm"]["bytecode"]["object"]
        self.at = ""

    def _ask(self, method: str, params: list[Any]) -> bytes:
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return self._session.post(self._url, json=question).content

    def deploy(self) -> None:
        self.at = self._send({"data": "0x" + self._sample})["contractAddress"]

    def send(self, signature: str, *words: int) -> None:
        self._send({"to": self.at, "data": _data(signature, words)})

    def call(self, signature: str, *words: int) -> None:
        transaction = {"from": self._sender, "to": self.at, "data": _data(signature, words)}
        self.shown |= self.reader.call([transaction, "latest"])

    def _send(self, transaction: dict[str, str]) -> dict[str, Any]:
        sent = {"from": self._sender, "gas": hex(10_000_000), **transaction}
        transaction_hash = self.reader.ask_for("eth_sendTransaction", [sent])
        receipt = None
        while receipt is None:
            receipt = self.reader.ask_for("eth_getTransactionReceipt", [transaction_hash])
        self.shown |= self.reader.transaction(transaction_hash)
        return dict(receipt)

    def statements(self) -> dict[str, bool]:
        """Each statement's text -> whether it ran."""
        return {item.text: item.id in self.shown for item in self.items.all if item.kind == "statement"}

    def ran(self) -> set[str]:
        return {text for text, seen in self.statements().items() if seen}

    def outcomes(self) -> dict[str, str]:
        """Each decision and its condition -> what it came to: "T", "F", "TF" or ""."""
        found: dict[str, str] = {}
        for item in self.items.all:
            if item.kind == "branch":
                letter = ("T" if item.outcome else "F") if item.id in self.shown else ""
                name = f"{item.decision} {item.text}"
                found[name] = found.get(name, "") + letter
        return found


def _data(signature: str, words: tuple[int, ...]) -> str:
    return "0x" + (keccak(text=signature)[:4] + b"".join(word.to_bytes(32, "big") for word in words)).hex()


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with Node(options=("--steps-tracing",)) as running:
        yield running.url


@pytest.fixture
def bench(node: str) -> Bench:
    return Bench(node)


def test_nothing_ran_before_the_first_transaction(bench: Bench) -> None:
    assert not any(bench.statements().values())
    assert set(bench.outcomes().values()) == {""}


def test_creation_code_is_the_contracts_own_also_where_a_contract_creates(bench: Bench) -> None:
    bench.deploy()
    assert bench.ran() == {
        "base = base_",
        "if (base_ == 99) revert Refused(base_)",
        "other = new Extension(1)",
    }
    seen = {text: found for text, found in bench.outcomes().items() if found}
    assert seen == {"if base_ == 99": "F"}


def test_statements_after_a_refusal_did_not_run(bench: Bench) -> None:
    bench.deploy()
    bench.shown.clear()
    bench.call("later(uint256)", 3)
    assert bench.ran() == {"require(n != 3, Refused(n))"}
    bench.call("later(uint256)", 4)
    assert bench.ran() == {
        "require(n != 3, Refused(n))",
        "found = n * 2",
        "require(found != 8, Refused(found))",
    }
    assert bench.outcomes()["require n != 3"] == "TF"
    assert bench.outcomes()["require found != 8"] == "F"
    bench.call("later(uint256)", 5)
    assert {"return _never(found)", "return n"} <= bench.ran()
    assert bench.outcomes()["require found != 8"] == "TF"


def test_delegated_code_is_that_of_the_contract_called(bench: Bench) -> None:
    bench.deploy()
    bench.shown.clear()
    bench.send("delegate(uint256)", 1)
    assert bench.outcomes()["if given > 10"] == "F"
    assert "stored = given + base" in bench.ran()
    assert "if (!done) revert()" in bench.ran()
    assert "revert()" not in bench.ran()


def test_each_outcome_is_seen_by_itself(bench: Bench) -> None:
    bench.deploy()
    both, either, condition = "&& a && b", "|| a || b", "?: a && b"
    bench.call("choose(bool,bool)", 0, 0)
    assert [bench.outcomes()[text] for text in (both, either, condition)] == ["F", "F", "F"]
    assert "return 0" in bench.ran()
    assert "return size" not in bench.ran()
    bench.shown.clear()
    bench.call("choose(bool,bool)", 1, 0)
    assert [bench.outcomes()[text] for text in (both, either, condition)] == ["T", "T", "F"]
    bench.call("choose(bool,bool)", 1, 1)
    assert bench.outcomes()[condition] == "TF"


def test_loops_modifiers_libraries_and_assembly(bench: Bench) -> None:
    bench.deploy()
    bench.shown.clear()
    bench.call("sum(uint256)", 100)
    assert bench.ran() == {"require(n < 100, Refused(n))"}
    bench.call("sum(uint256)", 0)
    assert bench.outcomes()["loop i < n"] == "F"
    assert "sum += i" not in bench.ran()
    bench.call("sum(uint256)", 7)
    assert bench.outcomes()["loop i < n"] == "TF"
    assert bench.outcomes()["if i == 7"] == "F"
    assert "continue" not in bench.ran()
    bench.call("sum(uint256)", 8)
    assert "continue" in bench.ran()
    assert any(text.startswith("assembly") for text in bench.ran())
    assert bench.outcomes()["if else result > 1000"] == "F"
    assert "result = 1000" not in bench.ran()
    bench.call("sum(uint256)", 99)
    assert bench.outcomes()["if else result > 1000"] == "TF"


def test_what_never_ran_is_left(bench: Bench) -> None:
    bench.deploy()
    for n in (0, 8, 99, 100):
        bench.call("sum(uint256)", n)
    for n in (3, 4, 5):
        bench.call("later(uint256)", n)
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        bench.call("choose(bool,bool)", a, b)
    bench.send("delegate(uint256)", 1)
    bench.send("delegate(uint256)", 11)
    left = set(bench.statements()) - bench.ran()
    assert left == {"return 1", "revert Refused(base_)"}
    assert {text for text, seen in bench.outcomes().items() if seen != "TF"} == {"if base_ == 99"}


def test_parts_are_put_together_and_forget_what_changed() -> None:
    def items(source: str) -> Items:
        return Items(compile_sources({PATH: source}, AST), {PATH: source})

    before, after = items(SOURCE), items(SOURCE.replace("if (a || b)", "a;\n        if (a || b)"))
    same, changed = f"{PATH} Sample.later", f"{PATH} Sample.choose"
    assert before.places[same] != after.places[same]  # other numbers
    one = {"tests": {"": [0], "a": [0, 1]}, "seconds": {"a": 1.0}, "failed": [], "unread": []}
    two = {"tests": {"": [0], "b": [0]}, "seconds": {"b": 2.0}, "failed": ["b"], "unread": ["why"]}
    then, now = before.places[same][1], after.places[same][1]
    gone = before.places[changed][1]
    found = merged(
        [
            {**one, "traces": [[then], [gone, then + 1]], "places": before.places},
            {**two, "traces": [[now + 2]], "places": after.places},
        ],
        after,
    )
    assert found["traces"] == [[now], [now + 1], [now + 2]]
    assert found["tests"] == {"": [0, 2], "a": [0, 1], "b": [2]}
    assert (found["seconds"], found["failed"], found["unread"]) == ({"a": 1.0, "b": 2.0}, ["b"], ["why"])
