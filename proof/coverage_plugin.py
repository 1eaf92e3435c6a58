"""A pytest plugin for Ape: runs the contract tests on code with a faithful source map and writes down what ran.

`pytest -p coverage_plugin --coverage-out FILE`. The tests' contracts keep their names and ABIs and get other bytecode;
the node gets room for it. Every transaction and call that the tests send is traced, except those that look like one
seen before: same code, same function, same gas and result. That can only miss what ran, never invent it.

The file: {"tests": {test: [trace]}, "traces": [[item]], "failed": [test], "seconds": {test: time}, "unread": [reason],
"sources": digest, "places": {function: [hash, first item, items]}}. What fixtures of a session or module do is under
the test "" (empty).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from ape_foundry.provider import FoundryProvider
from web3.providers.rpc import HTTPProvider

from execution import CodeBook, Reader
from solc import AST, compile_sources, digest, measured_code, sources
from source_items import Items

ROOM = ["--disable-code-size-limit", "--gas-limit", "100000000"]
SENDING = ("eth_sendRawTransaction", "eth_sendTransaction")
GOING_BACK = ("evm_revert", "anvil_reset", "anvil_setCode", "anvil_loadState")
SHARED = ""
JSON = {"Content-Type": "application/json"}


def measured_items() -> tuple[Items, dict[str, str]]:
    """The items of the project's sources, and the sources."""
    texts = sources()
    return Items(compile_sources(texts, AST), texts), texts


def use_code(contracts: Mapping[str, Mapping[str, Any]]) -> None:
    """From now on the tests deploy these contracts (name -> the compiler's output); those without code stay."""
    import ape

    ape.project.load_contracts()
    for name, contract in (ape.project.manifest.contract_types or {}).items():
        evm = contracts.get(name, {}).get("evm")
        if evm and evm["deployedBytecode"]["object"]:
            contract.deployment_bytecode.bytecode = "0x" + evm["bytecode"]["object"]
            contract.runtime_bytecode.bytecode = "0x" + evm["deployedBytecode"]["object"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """--coverage-out"""
    parser.addoption("--coverage-out", type=Path, required=True, help="where to write what ran")


def pytest_configure(config: pytest.Config) -> None:
    """Compiles, and stands between Ape and the node."""
    config.pluginmanager.register(Recorder(config.getoption("--coverage-out")), "coverage-recorder")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The measured code is larger than the deployed one."""
    for item in items:
        if item.get_closest_marker("deployed_code"):
            item.add_marker(pytest.mark.skip(reason="not the deployed code"))


class Recorder:
    """Listens to the requests of the tests."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._items, texts = measured_items()
        self._digest = digest(texts)
        self._book = CodeBook()
        self._codes: dict[str, dict[str, Any]] = {}
        for path in texts:
            answer = measured_code(path, texts)
            self._book.add(answer, self._items)
            self._codes.update(answer["contracts"][path])
        self._readers: dict[str, Reader] = {}
        self._session = requests.Session()
        self._waiting: dict[str, str] = {}  # hash of a transaction not read yet -> its node
        self._seen: dict[tuple[Any, ...], int] = {}
        self._traces: list[list[int]] = []
        self._tests: dict[str, set[int]] = {SHARED: set()}
        self._failed: list[str] = []
        self._seconds: dict[str, float] = {}
        self._now = SHARED
        self._unread: list[str] = []
        self._listen()

    def _listen(self) -> None:
        recorder = self
        make_request, build_command = HTTPProvider.make_request, FoundryProvider.build_command

        def listening(provider: HTTPProvider, method: Any, params: Any) -> Any:
            answer = make_request(provider, method, params)
            recorder._heard(str(provider.endpoint_uri), method, params, answer)
            return answer

        HTTPProvider.make_request = listening  # type: ignore[method-assign]
        FoundryProvider.build_command = lambda provider: [*build_command(provider), *ROOM]  # type: ignore

    def pytest_collection_finish(self) -> None:
        """Gives the tests' contracts the code that is measured."""
        use_code(self._codes)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """What is heard belongs to this test."""
        self._now = item.nodeid
        self._tests[self._now] = set()
        yield
        self._now = SHARED

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """What shared fixtures do belongs to no test alone."""
        now = self._now
        if fixturedef.scope != "function":
            self._now = SHARED
        yield
        self._now = now

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self) -> None:
        """Before the chain goes back: transactions whose receipt nobody asked for."""
        for transaction_hash in list(self._waiting):
            self._read_transaction(transaction_hash)
        self._waiting.clear()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that fails may fail because of the other code: its name is in the file."""
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self._failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Writes the file."""
        found = {
            "tests": {test: sorted(traces) for test, traces in self._tests.items()},
            "traces": self._traces,
            "failed": self._failed,
            "seconds": {test: round(seconds, 2) for test, seconds in self._seconds.items()},
            "unread": self._unread,
            "sources": self._digest,
            "places": self._items.places,
        }
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._out.write_text(json.dumps(found))

    def _reader(self, endpoint: str) -> Reader:
        def ask(method: str, params: list[Any]) -> bytes:
            question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return self._session.post(endpoint, data=json.dumps(question, default=str), headers=JSON).content

        return self._readers.setdefault(endpoint, Reader(self._book, ask))

    def _heard(self, endpoint: str, method: str, params: Any, answer: Any) -> None:
        if method in GOING_BACK:
            self._reader(endpoint).forget_addresses()
        elif method in SENDING and answer.get("result"):
            self._waiting[_text(answer["result"])] = endpoint
        elif method == "eth_getTransactionReceipt" and answer.get("result"):
            self._read_transaction(_text(params[0]))
        elif method == "eth_call" and len(params) < 3:
            self._read_call(endpoint, [*params, "latest"][:2], answer)

    def _read_transaction(self, transaction_hash: str) -> None:
        """Once for each, when its receipt is there."""
        endpoint = self._waiting.get(transaction_hash)
        if endpoint is None:
            return
        reader = self._reader(endpoint)
        receipt = reader.ask_for("eth_getTransactionReceipt", [transaction_hash])
        if receipt is None:
            return
        del self._waiting[transaction_hash]
        sent = reader.ask_for("eth_getTransactionByHash", [transaction_hash])
        to = receipt["to"]
        key = (
            reader.code_at(to) if to else sent["input"],
            sent["input"][:10],
            receipt["gasUsed"],
            receipt["status"],
            len(receipt["logs"]),
        )
        self._note(key, lambda: reader.transaction(transaction_hash))

    def _read_call(self, endpoint: str, params: list[Any], answer: Any) -> None:
        reader = self._reader(endpoint)
        to = params[0].get("to")
        code = reader.code_at(to) if to else b""
        if code:
            data = params[0].get("data") or params[0].get("input")
            result = json.dumps(answer.get("result") or answer.get("error"), default=str)
            self._note((code, data, result), lambda: reader.call(params))

    def _note(self, key: tuple[Any, ...], read: Callable[[], frozenset[int]]) -> None:
        if key not in self._seen:
            try:
                shown = read()
            except LookupError as reason:
                self._unread.append(f"{self._now}: {reason}")
                return
            self._seen[key] = len(self._traces)
            self._traces.append(sorted(shown))
        self._tests[self._now].add(self._seen[key])


def _text(transaction_hash: Any) -> str:
    return transaction_hash if isinstance(transaction_hash, str) else "0x" + bytes(transaction_hash).hex()
