"""Small wrong changes of the contracts, one at a time: what a test suite should notice.

Each mutant replaces one place of one source. Places come from the compiler's syntax tree, so text in comments and
strings is never touched. Which mutants are tried is drawn by a seed, every operator as often as the others while it has
mutants left; the order depends on nothing but the sources.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from source_items import Range, functions

RELATIONAL = {"<": "<=", ">": ">=", "<=": "<", ">=": ">", "==": "!=", "!=": "=="}
ARITHMETIC = {
    **{
        "+": "-",
        "-": "+",
        "*": "/",
        "/": "*",
        "%": "+",
        "<<": ">>",
        ">>": "<<",
        "&": "|",
        "|": "&",
        "^": "&",
    },
    **{"+=": "-=", "-=": "+=", "|=": "&=", "&=": "|=", "^=": "|=", "++": "--", "--": "++"},
}
BOOLEAN = {"&&": "||", "||": "&&"}
YUL = {
    **{"add": "sub", "sub": "add", "mul": "add", "shl": "shr", "shr": "shl"},
    **{"and": "or", "or": "and", "xor": "or", "lt": "gt", "gt": "lt"},
}
KEPT = ("require", "assert")  # calls whose removal counts as a check removed


@dataclass(frozen=True)
class Mutant:
    """One change. `scope` is the function, modifier or constant that it lies in."""

    file: str
    start: int
    end: int
    after: str
    operator: str
    scope: Range
    name: str
    line: int
    before: str

    @property
    def range(self) -> Range:
        """The replaced place."""
        return Range(self.file, self.start, self.end)

    @property
    def id(self) -> str:
        """Stable while its scope's place in the file is."""
        text = f"{self.file} {self.name} {self.operator} {self.start} {self.before} {self.after}"
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def applied(self, source: str) -> str:
        """The source with the change."""
        raw = source.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.end :]).decode()


def mutants(file: str, tree: dict[str, Any], source: str) -> list[Mutant]:
    """Every mutant of a source file, in order of place."""
    return sorted(_Maker(file, source).all(tree), key=lambda m: (m.start, m.end, m.operator, m.after))


def drawn(every: list[Mutant], seed: int) -> list[Mutant]:
    """In the order in which they are tried, that of a hash: what changes in one file moves nothing in another."""
    by_operator: dict[str, list[Mutant]] = {}
    for mutant in sorted(every, key=lambda m: hashlib.sha256(f"{seed} {m.id}".encode()).digest()):
        by_operator.setdefault(mutant.operator, []).append(mutant)
    rounds = itertools.zip_longest(*(by_operator[operator] for operator in sorted(by_operator)))
    return [mutant for one in rounds for mutant in one if mutant is not None]


class _Maker:
    def __init__(self, file: str, source: str) -> None:
        self._file, self._raw = file, source.encode()

    def all(self, tree: dict[str, Any]) -> Iterator[Mutant]:
        for contract, node in functions(tree):
            name = f"{contract}.{node.get('name') or node.get('kind', '')}"
            scope = self._range(node)
            for call in node.get("modifiers", ()):
                if call.get("kind") == "modifierInvocation":
                    yield self._made(scope, name, "modifier removed", self._range(call), "")
            for inner, parents in _walk(node["body"], ()):
                yield from self._of(scope, name, inner, parents)
        for contract, node in _constants(tree):
            scope = self._range(node)
            for inner, parents in _walk(node["value"], ()):
                if inner["nodeType"] == "Literal":
                    yield from self._of(scope, f"{contract}.{node['name']}", inner, parents)

    def _range(self, node: dict[str, Any]) -> Range:
        start, length, _ = (int(part) for part in node["src"].split(":"))
        return Range(self._file, start, start + length)

    def _text(self, where: Range) -> str:
        return self._raw[where.start : where.end].decode()

    def _made(self, scope: Range, name: str, operator: str, where: Range, after: str) -> Mutant:
        line = self._raw.count(b"\n", 0, where.start) + 1
        return Mutant(
            self._file, where.start, where.end, after, operator, scope, name, line, self._text(where)
        )

    def _with_semicolon(self, where: Range) -> Range:
        """The range of a simple statement ends before its semicolon."""
        return where._replace(end=self._raw.index(b";", where.end) + 1)

    def _between(self, left: dict[str, Any], right: dict[str, Any], operator: str) -> Range:
        """The place of an operator between its operands."""
        start = self._raw.index(operator.encode(), self._range(left).end, self._range(right).start)
        return Range(self._file, start, start + len(operator))

    def _of(
        self, scope: Range, name: str, node: dict[str, Any], parents: tuple[str, ...]
    ) -> Iterator[Mutant]:
        kind, where = node["nodeType"], self._range(node)

        def made(operator: str, place: Range, after: str) -> Mutant:
            return self._made(scope, name, operator, place, after)

        if kind == "BinaryOperation":
            operator = node["operator"]
            place = self._between(node["leftExpression"], node["rightExpression"], operator)
            for label, table in (
                ("relational", RELATIONAL),
                ("arithmetic", ARITHMETIC),
                ("boolean", BOOLEAN),
            ):
                if operator in table:
                    yield made(label, place, table[operator])
        elif kind == "Assignment" and node["operator"] in ARITHMETIC:
            place = self._between(node["leftHandSide"], node["rightHandSide"], node["operator"])
            yield made("arithmetic", place, ARITHMETIC[node["operator"]])
        elif kind == "UnaryOperation" and node["operator"] in ARITHMETIC:
            yield made(
                "arithmetic", where, self._text(where).replace(node["operator"], ARITHMETIC[node["operator"]])
            )
        elif kind == "UnaryOperation" and node["operator"] == "!":
            yield made("boolean", where, self._text(self._range(node["subExpression"])))
        elif kind == "Conditional":
            parts = (self._range(node[key]) for key in ("condition", "falseExpression", "trueExpression"))
            condition, no, yes = map(self._text, parts)
            yield made("boolean", where, f"{condition} ? {no} : {yes}")
        elif kind == "Literal" and node.get("kind") == "bool":
            yield made("boolean", where, "false" if node["value"] == "true" else "true")
        elif kind == "Literal" and node.get("kind") == "number" and "FunctionCallOptions" not in parents:
            number, text = (
                int(str(node["value"]).replace("_", ""), 0) if _is_int(node) else None,
                self._text(where),
            )
            if number is not None:
                unit = text.partition(" ")[2]
                changed = number + 1 if number == 0 or where.start % 2 else number - 1
                yield made("constant", where, f"{changed} {unit}".strip())
        elif kind == "IfStatement":
            condition_at = self._range(node["condition"])
            if _only_reverts(node["trueBody"]) and not node.get("falseBody"):
                in_braces = node["trueBody"]["nodeType"] == "Block"
                yield made("check removed", where if in_braces else self._with_semicolon(where), "{}")
            else:
                yield made("boolean", condition_at, f"!({self._text(condition_at)})")
        elif kind in ("ExpressionStatement", "EmitStatement"):
            call = node.get("expression") or node["eventCall"]
            checks = call["nodeType"] == "FunctionCall" and call["expression"].get("name") in KEPT
            if "ForHeader" not in parents:
                label = "check removed" if checks else "statement removed"
                yield made(label, self._with_semicolon(where), "{}")
        elif kind == "FunctionCall" and node.get("kind") == "functionCall":
            for one, other in zip(node["arguments"], node["arguments"][1:], strict=False):
                places = self._range(one), self._range(other)
                types = {arg["typeDescriptions"].get("typeString") for arg in (one, other)}
                texts = self._text(places[0]), self._text(places[1])
                if len(types) == 1 and texts[0] != texts[1]:
                    middle = self._text(Range(self._file, places[0].end, places[1].start))
                    yield made(
                        "arguments swapped",
                        Range(self._file, places[0].start, places[1].end),
                        texts[1] + middle + texts[0],
                    )
        elif kind == "YulFunctionCall" and node["functionName"]["name"] in YUL:
            yield made("assembly", self._range(node["functionName"]), YUL[node["functionName"]["name"]])


def _is_int(node: dict[str, Any]) -> bool:
    value = str(node["value"]).replace("_", "")
    return value.isdigit() or value.startswith("0x")


def _only_reverts(body: dict[str, Any]) -> bool:
    statements = body["statements"] if body["nodeType"] == "Block" else [body]
    return len(statements) == 1 and statements[0]["nodeType"] == "RevertStatement"


def _walk(node: Any, parents: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Every node with the kinds of its ancestors; what stands in the head of a `for` is under a "ForHeader"."""
    if isinstance(node, list):
        for one in node:
            yield from _walk(one, parents)
    elif isinstance(node, dict):
        if "nodeType" in node:
            yield node, parents
            parents = (*parents, node["nodeType"])
        for key, value in node.items():
            header = key in ("initializationExpression", "loopExpression")
            yield from _walk(value, (*parents, "ForHeader") if header else parents)


def _constants(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for contract in tree["nodes"]:
        if contract["nodeType"] == "ContractDefinition":
            for node in contract["nodes"]:
                if node["nodeType"] == "VariableDeclaration" and node.get("constant") and node.get("value"):
                    yield contract["name"], node
