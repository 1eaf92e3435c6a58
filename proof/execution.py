"""Which statements and outcomes ran: a node's traces, read against the code of the contracts that they ran in.

A trace says which program counters ran in which frame; the call tree says whose code a frame runs. A `DELEGATECALL`
runs the code of the contract that is called, a creation the code that is sent. Code that is not in the book (tokens of
tests, contracts of others) is passed over.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from source_items import CodeMap, Items

STEPS_ONLY = {"disableStack": True, "disableMemory": True, "disableStorage": True}
CREATIONS = ("CREATE", "CREATE2")


class Step(msgspec.Struct):
    """One executed instruction; the rest of what the node says about it is not read."""

    pc: int
    op: str
    depth: int


class _Steps(msgspec.Struct):
    structLogs: list[Step]


class _Answer(msgspec.Struct):
    result: _Steps | None = None


class Frame(msgspec.Struct):
    """One call of the call tree."""

    type: str
    to: str | None = None
    input: str = "0x"
    calls: list[Frame] = []


class _TreeAnswer(msgspec.Struct):
    result: Frame | None = None


@dataclass(frozen=True)
class Code:
    """A compiled contract. Immutables are zero in `runtime` and anything on the chain."""

    name: str
    creation: bytes
    runtime: bytes
    immutables: tuple[tuple[int, int], ...]  # (start, length) in `runtime`
    creation_map: CodeMap
    runtime_map: CodeMap

    def is_at(self, code: bytes) -> bool:
        """Whether this is the code on the chain."""
        if len(code) != len(self.runtime):
            return False
        found = bytearray(code)
        for start, length in self.immutables:
            found[start : start + length] = bytes(length)
        return bytes(found) == self.runtime


class CodeBook:
    """The contracts whose execution is read."""

    def __init__(self) -> None:
        self._codes: list[Code] = []

    def add(self, answer: Mapping[str, Any], items: Items) -> None:
        """Every contract with code in the compiler's answer (`solc.CODE`)."""
        paths = {source["id"]: path for path, source in answer["sources"].items()}
        for contracts in answer["contracts"].values():
            for name, contract in contracts.items():
                creation, runtime = (contract["evm"][part] for part in ("bytecode", "deployedBytecode"))
                if not runtime["object"]:
                    continue
                references = runtime["immutableReferences"].values()
                places = tuple((one["start"], one["length"]) for group in references for one in group)
                code, deployed = bytes.fromhex(creation["object"]), bytes.fromhex(runtime["object"])
                self._codes.append(
                    Code(
                        name,
                        code,
                        deployed,
                        places,
                        items.code_map(code, creation["sourceMap"], paths),
                        items.code_map(deployed, runtime["sourceMap"], paths),
                    )
                )

    def deployed(self, code: bytes) -> CodeMap | None:
        """The map of a contract on the chain."""
        return next((one.runtime_map for one in self._codes if code and one.is_at(code)), None)

    def created(self, sent: bytes) -> CodeMap | None:
        """The map of creation code, whatever arguments follow it."""
        return next((one.creation_map for one in self._codes if sent.startswith(one.creation)), None)


class Reader:
    """Reads traces of one node. `ask` sends a request and returns the answer as it came."""

    def __init__(self, book: CodeBook, ask: Callable[[str, list[Any]], bytes]) -> None:
        self._book = book
        self._ask = ask
        self._codes: dict[str, bytes] = {}
        self._maps: dict[bytes, CodeMap | None] = {}

    def forget_addresses(self) -> None:
        """After the chain went back, other code may come to lie at an address."""
        self._codes.clear()

    def ask_for(self, method: str, params: list[Any]) -> Any:
        """The result of a request, None where there is none."""
        return msgspec.json.decode(self._ask(method, params)).get("result")

    def code_at(self, address: str) -> bytes:
        """The code on the chain, empty for accounts of people."""
        found = self._codes.get(address)
        if found is None:
            found = bytes.fromhex(self.ask_for("eth_getCode", [address, "latest"])[2:])
            if found:
                self._codes[address] = found
        return found

    def map_at(self, address: str) -> CodeMap | None:
        """What is known of the code at an address."""
        code = self.code_at(address)
        if code not in self._maps:
            self._maps[code] = self._book.deployed(code)
        return self._maps[code]

    def transaction(self, transaction_hash: str) -> frozenset[int]:
        """Ids of the items that a mined transaction showed.

        Raises LookupError if the node has no trace, or where steps and call tree don't fit."""
        return self._read("debug_traceTransaction", [transaction_hash])

    def call(self, params: list[Any]) -> frozenset[int]:
        """The same for a call: the parameters of `eth_call`, without overrides."""
        return self._read("debug_traceCall", params)

    def _read(self, method: str, params: list[Any]) -> frozenset[int]:
        steps = msgspec.json.decode(self._ask(method, [*params, STEPS_ONLY]), type=_Answer).result
        tree = msgspec.json.decode(
            self._ask(method, [*params, {"tracer": "callTracer"}]), type=_TreeAnswer
        ).result
        if steps is None or tree is None:
            raise LookupError(f"the node has no trace for {method} {str(params)[:200]}")
        if not steps.structLogs and self._map_of(tree) is not None:
            raise RuntimeError("the node keeps no steps of transactions: start it with --steps-tracing")
        shown: set[int] = set()
        for frame, pcs in self._frames(steps.structLogs, tree):
            code = self._map_of(frame)
            if code is not None:
                shown |= _shown(code, pcs)
        return frozenset(shown)

    def _frames(self, steps: list[Step], tree: Frame) -> Iterator[tuple[Frame, list[int]]]:
        """(frame, program counters in order) of every frame that ran code."""
        created = {frame.to for frame in _every(tree) if frame.type in CREATIONS}
        open_: list[tuple[Frame, Iterator[Frame], list[int]]] = []
        before: Step | None = None
        for step in steps:
            while len(open_) > step.depth:
                frame, _, pcs = open_.pop()
                yield frame, pcs
            if len(open_) < step.depth:
                frame = tree if before is None else self._entered(open_[-1][1], before.op, created)
                open_.append((frame, iter(frame.calls), []))
            open_[-1][2].append(step.pc)
            before = step
        for frame, _, pcs in reversed(open_):
            yield frame, pcs

    def _entered(self, calls: Iterator[Frame], op: str, created: set[str | None]) -> Frame:
        """The next call that ran code: accounts without code and precompiles are in the tree and take no step."""
        for frame in calls:
            runs = op in CREATIONS or frame.to in created or (frame.to and self.code_at(frame.to))
            if frame.type == op and runs:
                return frame
        raise LookupError(f"the call tree has no {op} where the steps enter one")

    def _map_of(self, frame: Frame) -> CodeMap | None:
        if frame.type in CREATIONS:
            return self._book.created(bytes.fromhex(frame.input[2:]))
        return self.map_at(frame.to) if frame.to else None


def _every(frame: Frame) -> Iterator[Frame]:
    yield frame
    for call in frame.calls:
        yield from _every(call)


def _shown(code: CodeMap, pcs: list[int]) -> set[int]:
    ran = set(pcs)
    shown = {code.shown_by[pc] for pc in ran if pc in code.shown_by}
    for pc, after in itertools.pairwise(pcs):
        if pc in code.decided_at:
            jumps, goes_on = code.decided_at[pc]
            shown.add(goes_on if after == pc + 1 else jumps)
    for pc in ran & code.checked_at.keys():
        held, refused = code.checked_at[pc]
        came_back = pcs.count(pc + 1)
        if came_back:
            shown.add(held)
        if came_back < pcs.count(pc):
            shown.add(refused)
    return shown
