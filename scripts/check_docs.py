"""Checks that the documents agree with the code; prints FILE:LINE for each problem, status 1 if there is any.

Checked in README*.md, CONTRIBUTING.md, CHANGELOG.md and docs/**/*.md:
1. relative links and their #anchors lead somewhere;
2. every `make target` is in the Makefile;
3. every `zhiyi command --option` is in the typer app, every `python -m zhiyi…` is a module;
4. every path in code marks that starts with a source folder exists;
5. every line of a ```eip712 block is, letter by letter, a type that a contract hashes or the SDK signs;
6. every default in the table of docs/protocol.md is that of scripts/contracts_plan.py;
7. the words that docs/glossary.md refuses do not occur in prose;
8. README.md and README.zh-CN.md have the same headings and the same code;
9. the example in README.md has at most ten lines, its imports resolve and mypy --strict accepts it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE_LINES = 10
SOURCE_FOLDERS = (
    "contracts",
    "sdk",
    "watermark",
    "oracle",
    "frontend",
    "scripts",
    "tests",
    "docs",
    "benchmarks",
    "tools",
)

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})\s*([\w-]*)")
HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*\s*$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
SPAN = re.compile(r"(`+)(.+?)\1")
MAKE = re.compile(r"(?<![\w/.-])make ((?:[a-z][a-z0-9-]*)(?: [a-z][a-z0-9-]*)*)")
COMMAND = re.compile(r"(?:^|(?<=[\s$(]))(?<!from )(?<!import )(?:\.venv/bin/)?zhiyi((?: +[^\s|;&#)]+)+)")
MODULE = re.compile(r"python -m ((?:zhiyi)[\w.]*)")
SOURCE_PATH = re.compile(rf"^(?:{'|'.join(SOURCE_FOLDERS)})/[\w./*-]+$")


class Line(NamedTuple):
    """One line of a document. `block` is the language of the fenced block it stands in, None in prose."""

    file: Path
    number: int
    text: str
    block: str | None

    def problem(self, text: str) -> str:
        """FILE:LINE: text, the file relative to the project."""
        return f"{self.file.relative_to(ROOT)}:{self.number}: {text}"

    def code(self) -> list[str]:
        """The line inside a block, the code spans of a line of prose."""
        return [self.text] if self.block is not None else [m.group(2) for m in SPAN.finditer(self.text)]

    def prose(self) -> str:
        """The line without code spans and link targets; empty inside a block."""
        return "" if self.block is not None else LINK.sub(" ", SPAN.sub(" ", self.text))


def documents() -> list[Path]:
    """Every document that is checked."""
    tops = [*ROOT.glob("README*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    return [path for path in [*tops, *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()]


def lines(path: Path) -> Iterator[Line]:
    """The lines of a document, fence lines left out."""
    fence: str | None = None
    language = ""
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = FENCE.match(text)
        if found and fence is None:
            fence, language = found.group(1), found.group(2)
        elif found and fence is not None and found.group(1).startswith(fence) and not found.group(2):
            fence = None
        else:
            yield Line(path, number, text, None if fence is None else language)


def headings(path: Path) -> list[tuple[int, str]]:
    """(level, text) of each heading."""
    found = (HEADING.match(line.text) for line in lines(path) if line.block is None)
    return [(len(match.group(1)), match.group(2)) for match in found if match]


def anchor_of(heading: str) -> str:
    """The #anchor that GitHub gives a heading."""
    text = re.sub(r"[`*_]|\]\([^)]*\)|\[", "", heading).lower()
    kept = (c for c in text if c in " -_" or unicodedata.category(c)[0] in "LN")
    return "".join(kept).strip().replace(" ", "-")


def check_links(every: list[Line]) -> Iterator[str]:
    """1. Relative links and anchors."""
    for line in every:
        if line.block is not None:
            continue
        for target in LINK.findall(SPAN.sub("", line.text)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (line.file.parent / name).resolve() if name else line.file
            if not file.exists():
                yield line.problem(f"the link {target} leads to no file")
            elif (
                anchor
                and file.suffix == ".md"
                and anchor not in {anchor_of(text) for _, text in headings(file)}
            ):
                yield line.problem(f"{file.name} has no heading for #{anchor}")


def check_make(every: list[Line]) -> Iterator[str]:
    """2. Makefile targets."""
    targets = set(
        re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for line in every:
        for code in line.code():
            for named in MAKE.findall(code):
                for target in named.split():
                    if target not in targets:
                        yield line.problem(f"`make {target}` is not in the Makefile")


def _command_problem(app: Any, words: list[str]) -> str | None:
    """Why `zhiyi words…` can't be run, or None. Words in capitals or <> stand for values."""
    command, path, is_value = app, ["zhiyi"], False
    for word in words:
        if is_value:
            is_value = False
        elif word.startswith("-"):
            takes_value = {"--help": False, "--json": False, "--dry-run": False}  # these may stand anywhere
            for param in command.params:
                names = (*param.opts, *param.secondary_opts)
                takes_value |= dict.fromkeys(names, not getattr(param, "is_flag", False))
            name, _, value = word.partition("=")
            if name not in takes_value:
                return f"`{' '.join(path)}` has no option {name}; it has {', '.join(sorted(takes_value))}"
            is_value = takes_value[name] and not value
        elif getattr(command, "commands", None):  # a group without commands takes arguments
            if word not in command.commands:
                return (
                    f"`{' '.join(path)}` has no command {word}; it has {', '.join(sorted(command.commands))}"
                )
            command, path = command.commands[word], [*path, word]
    return None


def check_commands(every: list[Line]) -> Iterator[str]:
    """3. The command line and modules that are run."""
    from typer.main import get_command

    cli: Any = importlib.import_module("zhiyi.cli.app")
    typed = cli.build()
    for name, entry in cli.plugins().items():
        try:
            typed.add_typer(entry.load(), name=name)
        except ImportError as exc:
            yield f"pyproject.toml: the entry point {name} = {entry.value} can't be loaded: {exc}"
    app: Any = get_command(typed)
    for line in every:
        for code in line.code():
            for module in MODULE.findall(code):
                if importlib.util.find_spec(module) is None:
                    yield line.problem(f"`python -m {module}`: there is no such module")
            if line.block not in (None, "sh", "bash", "console", "text"):
                continue
            for words in COMMAND.findall(code):
                problem = _command_problem(
                    app, [w.strip("`'\"") for w in words.split() if w not in ("…", "...", "\\")]
                )
                if problem:
                    yield line.problem(problem)


def check_paths(every: list[Line]) -> Iterator[str]:
    """4. Source paths."""
    for line in every:
        for code in line.code() if line.block is None else []:
            path = code.strip().rstrip("/")
            if SOURCE_PATH.match(path) and not (
                any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()
            ):
                yield line.problem(f"there is no {path}")


def check_types(every: list[Line]) -> Iterator[str]:
    """5. EIP-712 type strings."""
    from zhiyi import eip712

    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "contracts").rglob("*.sol"))
    )
    literals = re.findall(
        r'"((?:\w+\([\w ,]*\))+)"', re.sub(r'"\s*"', "", sources)
    )  # adjacent literals are one
    known = {kind for literal in literals for kind in re.findall(r"\w+\([^)]*\)", literal)}
    for name, members in (
        ("Offer", eip712._OFFER),
        ("CopyRequest", eip712._COPY_REQUEST),
    ):  # signed off chain only
        known.add(f"{name}({','.join(f'{kind} {field}' for field, kind in members)})")
    for line in every:
        if line.block == "eip712" and line.text.strip() not in known:
            yield line.problem("no contract has this type string, and the SDK signs no such type")


def _shown(name: str, value: Any) -> str:
    """A parameter as a reader sees it; its unit follows from its name or size."""
    if isinstance(value, tuple):
        return ", ".join(_shown(name, item) for item in value)
    if name.endswith("_bps"):
        return f"{value / 100:g} %"
    if name.endswith(("_window", "_age", "_delay")):
        return f"{value / 86_400:g} d"
    return f"{value / 10**18:g} ether" if value >= 10**15 else str(value)


def check_defaults(every: list[Line]) -> Iterator[str]:
    """6. Parameters of a deployment."""
    plan: Any = importlib.import_module("contracts_plan")
    known = {field.name: field.default for kind in (plan.CourtParams, plan.Params) for field in fields(kind)}
    for line in every:
        row = re.match(r"\| `(\w+)` \| ([^|]+) \|", line.text)
        if row and line.file.name == "protocol.md":
            name, given = row.groups()
            if name not in known:
                yield line.problem(f"the deployment has no parameter {name}")
            elif _shown(name, known[name]) != given:
                yield line.problem(f"{name} is {given} here, {_shown(name, known[name])} in the deployment")


def refused_words() -> dict[str, str]:
    """Refused word -> what to write, from the last table of the glossary."""
    rows = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").split("## Words not used")[1]
    pairs = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", rows, re.MULTILINE)
    return {
        word.strip(): use.strip()
        for words, use in pairs
        for word in words.split(",")
        if word.strip() != "not"
    }


def check_words(every: list[Line]) -> Iterator[str]:
    """7. One word for one thing."""
    refused = refused_words()
    for line in every:
        if line.file.name == "glossary.md":
            continue
        prose = line.prose()
        for word, use in refused.items():
            pattern = rf"\b{re.escape(word)}(?:s|es)?\b" if word.isascii() else re.escape(word)
            if re.search(pattern, prose, re.IGNORECASE):
                yield line.problem(f'"{word}" is not a word of this project: write {use}')


def check_twins() -> Iterator[str]:
    """8. The two READMEs."""
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    levels = [[level for level, _ in headings(path)] for path in (english, chinese)]
    if levels[0] != levels[1]:
        yield f"README.zh-CN.md: heading levels {levels[1]} differ from README.md's {levels[0]}"
    code = [
        [line.text for line in lines(path) if line.block in ("python", "sh")] for path in (english, chinese)
    ]
    if code[0] != code[1]:
        yield "README.zh-CN.md: the code blocks differ from README.md's"


def check_example() -> Iterator[str]:
    """9. The example of the README's first screen."""
    example = [line.text for line in lines(ROOT / "README.md") if line.block == "python"]
    if not example:
        yield "README.md: there is no python example"
        return
    if len([text for text in example if text.strip()]) > EXAMPLE_LINES:
        yield f"README.md: the example has more than {EXAMPLE_LINES} lines"
    source = "\n".join(example) + "\n"
    for node in ast.walk(ast.parse(source, "README.md")):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    yield f"README.md: {node.module} has no {name.name}"
        elif isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
    from mypy import api

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "readme_example.py"
        file.write_text(source, encoding="utf-8")
        report, trouble, status = api.run(
            ["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", str(file)]
        )
    if status:
        yield from (
            f"README.md example: {text.partition('.py:')[2] or text}"
            for text in (report + trouble).splitlines()
        )


def main() -> int:
    """Runs every check; 0 when the documents are right."""
    every = [line for path in documents() for line in lines(path)]
    problems = [
        *check_links(every),
        *check_make(every),
        *check_commands(every),
        *check_paths(every),
        *check_types(every),
        *check_defaults(every),
        *check_words(every),
        *check_twins(),
        *check_example(),
    ]
    print("\n".join(problems) if problems else f"{len(documents())} documents agree with the code")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
