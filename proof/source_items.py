"""What can be covered in a Solidity source, and which instructions of a contract's code show that it was.

Items are statements and the two outcomes of every decision: `if`, loops, `?:`, `&&`, `||`, `require`, `assert`. A
statement is shown by the instructions whose source range lies inside its own and not inside a statement nested in it, a
decision by the one jump that has its range. An assembly block is one statement: all of it has one range.

The compiler pushes return addresses early, under the range of the later statement, so pushes of jump destinations never
count; and where a statement has operations that do something, those that only move the stack do not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from solc import is_measured

JUMP, JUMPI, JUMPDEST = 0x56, 0x57, 0x5B
PUSHES = range(0x5F, 0x80)
STACK_ONLY = {0x50, JUMPDEST, *PUSHES, *range(0x80, 0xA0)}  # POP, JUMPDEST, PUSH, DUP, SWAP
BLOCKS = ("Block", "UncheckedBlock")
NOT_STATEMENTS = ("PlaceholderStatement",)
LOOPS = ("ForStatement", "WhileStatement", "DoWhileStatement")
CHECKS = ("require", "assert")
NESTED = ("body", "trueBody", "falseBody", "clauses", "initializationExpression", "loopExpression")
"""Where a statement holds other statements."""
JUMPS_IF_HELD = ("if", "&&")
"""Other decisions are compiled to ask for the opposite: `||` and loops `if iszero(c)`, the rest `switch c case 0`."""


class Range(NamedTuple):
    """Bytes of a source file: [start, end)."""

    file: str
    start: int
    end: int

    def holds(self, other: Range) -> bool:
        """Whether `other` lies inside."""
        return self.file == other.file and self.start <= other.start and other.end <= self.end


@dataclass(frozen=True)
class Item:
    """A statement, or one outcome of a decision: of `a && b` and `a || b`, that `a` held or did not."""

    id: int
    kind: Literal["statement", "branch"]
    range: Range
    line: int
    text: str  # of a branch: its condition
    decision: str = ""  # of a branch: "if", "if else", "loop", "?:", "&&", "||" or "require"
    outcome: bool | None = None  # of a branch: whether the condition held


class Instruction(NamedTuple):
    """One instruction of a contract's code, with the source it was made from."""

    pc: int
    op: int
    argument: int
    range: Range | None


@dataclass
class CodeMap:
    """What the execution of a contract's code says about the items."""

    shown_by: dict[int, int] = field(default_factory=dict)  # pc -> statement
    decided_at: dict[int, tuple[int, int]] = field(default_factory=dict)
    """pc of a conditional jump -> (item if it jumps, item if not)"""
    checked_at: dict[int, tuple[int, int]] = field(default_factory=dict)
    """pc of a call to the compiler's `require` -> (item if it comes back, to the next pc; item if it reverts)"""


class Items:
    """All items of the measured sources, in order of file and place."""

    def __init__(self, answer: dict[str, Any], texts: dict[str, str]) -> None:
        self.all: list[Item] = []
        self._decisions: dict[Range, tuple[int, int, str]] = {}  # range -> (held, failed, kind of node)
        self._texts = {path: text.encode() for path, text in texts.items()}
        self.places: dict[str, tuple[str, int, int]] = {}
        """Function -> (hash of its text, its first item, how many it has)."""
        for path in sorted(answer["sources"]):
            if is_measured(path):
                for contract, node in functions(answer["sources"][path]["ast"]):
                    first = len(self.all)
                    self._add(path, node["body"])
                    self._place(
                        f"{path} {contract}.{node.get('name') or node.get('kind')}", path, node, first
                    )
        self._statements = [item for item in self.all if item.kind == "statement"]

    def _range(self, path: str, node: dict[str, Any]) -> Range:
        start, length, _ = (int(part) for part in node["src"].split(":"))
        return Range(path, start, start + length)

    def _new(self, where: Range, text_at: Range, decision: str = "", outcome: bool | None = None) -> int:
        source = self._texts[where.file]
        line = source.count(b"\n", 0, where.start) + 1
        text = " ".join(source[text_at.start : text_at.end].decode().split())
        kind: Literal["statement", "branch"] = "branch" if decision else "statement"
        self.all.append(Item(len(self.all), kind, where, line, text, decision, outcome))
        return len(self.all) - 1

    def _add(self, path: str, node: dict[str, Any]) -> None:
        kind = node["nodeType"]
        if kind in BLOCKS:
            for statement in node["statements"]:
                self._add(path, statement)
            return
        if kind == "TryCatchClause":
            return self._add(path, node["block"])
        if kind in NOT_STATEMENTS:
            return
        where = self._range(path, node)
        if kind != "VariableDeclarationStatement" or node.get("initialValue"):
            self._new(where, where)
        if kind == "IfStatement":
            self._decide(where, path, node["condition"], "if else" if node.get("falseBody") else "if")
        if kind in LOOPS and node.get("condition"):
            self._decide(self._range(path, node["condition"]), path, node["condition"], "loop")
        for inner in _expressions(node):
            at = self._range(path, inner)
            if inner["nodeType"] == "Conditional":
                self._decide(at, path, inner["condition"], "?:")
            elif inner["nodeType"] == "BinaryOperation" and inner["operator"] in ("&&", "||"):
                self._decide(at, path, inner, inner["operator"])
            elif inner["nodeType"] == "FunctionCall" and inner["expression"].get("name") in CHECKS:
                self._decide(at, path, inner["arguments"][0], "require")
        for name in NESTED:
            found = node.get(name) or []
            for nested in found if isinstance(found, list) else [found]:
                self._add(path, nested)

    def _decide(self, where: Range, path: str, condition: dict[str, Any], kind: str) -> None:
        """`where` is the range that the deciding jump has."""
        if where not in self._decisions:
            text_at = self._range(path, condition)
            held, failed = (self._new(where, text_at, kind, outcome) for outcome in (True, False))
            self._decisions[where] = (held, failed, kind)

    def _place(self, name: str, path: str, node: dict[str, Any], first: int) -> None:
        where = self._range(path, node)
        text = hashlib.sha256(self._texts[path][where.start : where.end]).hexdigest()[:16]
        while name in self.places:  # of one name with other parameters
            name += "'"
        self.places[name] = text, first, len(self.all) - first

    def code_map(self, code: bytes, source_map: str, paths: dict[int, str]) -> CodeMap:
        """Reads a contract's code; `paths` are the compiler's file numbers."""
        every = list(instructions(code, source_map, paths))
        found = CodeMap()
        targets = {one.pc for one in every if one.op == JUMPDEST}
        innermost = _Innermost(self._statements)
        strong: dict[int, list[int]] = {}
        weak: dict[int, list[int]] = {}
        for one in every:
            statement = innermost.of(one.range) if one.range else None
            if statement is None:
                continue
            if one.op not in STACK_ONLY:
                strong.setdefault(statement, []).append(one.pc)
            elif not (one.op in PUSHES and one.argument in targets):
                weak.setdefault(statement, []).append(one.pc)
        for statement in strong.keys() | weak.keys():
            for pc in strong.get(statement) or weak[statement]:
                found.shown_by[pc] = statement
        for place, one in enumerate(every[:-1]):
            decision = self._decisions.get(one.range) if one.range else None
            if decision is None:
                continue
            held, failed, kind = decision
            if one.op == JUMPI and kind != "require":
                found.decided_at[one.pc] = (held, failed) if kind in JUMPS_IF_HELD else (failed, held)
            elif one.op == JUMP and kind == "require" and every[place + 1].op == JUMPDEST:
                found.checked_at[one.pc] = (held, failed)
        return found


class _Innermost:
    """Finds the innermost statement that holds a range."""

    def __init__(self, statements: list[Item]) -> None:
        self._of: dict[str, list[Item]] = {}
        for item in statements:
            self._of.setdefault(item.range.file, []).append(item)
        self._known: dict[Range, int | None] = {}

    def of(self, where: Range) -> int | None:
        """The id of the statement, None outside all of them."""
        if where not in self._known:
            around = [item for item in self._of.get(where.file, ()) if item.range.holds(where)]
            self._known[where] = min(around, key=lambda i: i.range.end - i.range.start).id if around else None
        return self._known[where]


def instructions(code: bytes, source_map: str, paths: dict[int, str]) -> Iterator[Instruction]:
    """The code's instructions; what follows the last entry of the map is data."""
    pc = 0
    last = ["0", "0", "-1"]
    for entry in source_map.split(";"):
        for place, part in enumerate(entry.split(":")[:3]):
            if part:
                last[place] = part
        start, length, file = (int(part) for part in last)
        op = code[pc]
        size = op - 0x5F if 0x60 <= op <= 0x7F else 0
        where = Range(paths[file], start, start + length) if file in paths else None
        yield Instruction(pc, op, int.from_bytes(code[pc + 1 : pc + 1 + size], "big"), where)
        pc += 1 + size


def functions(node: dict[str, Any], contract: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(contract, node) of the functions and modifiers with a body in a source's syntax tree."""
    for child in node.get("nodes", ()):
        if child["nodeType"] == "ContractDefinition":
            yield from functions(child, child["name"])
        elif child["nodeType"] in ("FunctionDefinition", "ModifierDefinition") and child.get("body"):
            yield contract, child


def _expressions(statement: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of the statement's own expressions, not of statements nested in it."""
    open_ = [value for name, value in statement.items() if name not in NESTED]
    while open_:
        value = open_.pop()
        if isinstance(value, list):
            open_ += value
        elif isinstance(value, dict):
            if "nodeType" in value:
                yield value
            open_ += value.values()
