"""The pinned compiler for proofs: what to compile, with which settings, and what comes out.

The settings that are deployed are Ape's (`ape-config.yaml`); the ones here are for looking at the code. `MEASURE` keeps
the source map faithful: IR with the least optimization that still fits the stack, nothing merged, nothing moved.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = ROOT / "contracts"
KEPT = ROOT / "build" / "proof"  # compiled code, by the hash of what it was made from
IMPORT = re.compile(
    r'^import\s[^"]*"(?P<path>\.[^"]+)";', re.MULTILINE
)  # packages are pinned by the lock file

_PASSES = (
    "peephole",
    "inliner",
    "jumpdestRemover",
    "orderLiterals",
    "deduplicate",
    "cse",
    "constantOptimizer",
)
MEASURE: dict[str, Any] = {
    "enabled": False,
    "details": {
        **dict.fromkeys(_PASSES, False),
        "yul": True,
        "yulDetails": {"stackAllocation": True, "optimizerSteps": "u:"},
    },
}
"""Optimizer settings: only unused functions go; the stack is allocated, or large functions would not compile."""

AST = {"*": {"": ["ast"], "*": ["abi"]}}
"""Output of everything that needs no code generation: a few seconds for the whole project."""

CODE = (
    "abi",
    "evm.bytecode.object",
    "evm.bytecode.sourceMap",
    "evm.deployedBytecode.object",
    "evm.deployedBytecode.sourceMap",
    "evm.deployedBytecode.immutableReferences",
)


class CompileError(Exception):
    """The compiler refused; the message is its own, with file and line."""


def sources() -> dict[str, str]:
    """Every Solidity file of the project by its path from the root, the tests' own contracts included."""
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(CONTRACTS.rglob("*.sol"))}


def digest(given: Mapping[str, str]) -> str:
    """One hash over sources, to know them again."""
    return hashlib.sha256(json.dumps(sorted(given.items())).encode()).hexdigest()


def closure(path: str, texts: Mapping[str, str]) -> dict[str, str]:
    """A source and all sources of the project that it imports, directly or not."""
    found: dict[str, str] = {}
    waiting = [path]
    while waiting:
        at = waiting.pop()
        if at not in found:
            found[at] = texts[at]
            folder = posixpath.dirname(at)
            waiting += [posixpath.normpath(f"{folder}/{one['path']}") for one in IMPORT.finditer(texts[at])]
    return found


def measured_code(path: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """The compiler's output (`CODE`) for the contracts of one source; kept, for it takes seconds to minutes.

    Raises CompileError."""
    made_from = [json.dumps(MEASURE), (ROOT / "package-lock.json").read_text(), digest(closure(path, texts))]
    file = KEPT / f"{hashlib.sha256(json.dumps(made_from).encode()).hexdigest()}.json"
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        return kept
    answer = compile_sources({path: texts[path]}, {path: {"*": CODE}})
    KEPT.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(answer))
    partial.replace(file)
    return answer


def is_measured(path: str) -> bool:
    """Whether a source file is the project's and deployed: not a library of others, not a contract for tests."""
    return path.startswith("contracts/") and not path.startswith("contracts/test/")


def compile_sources(
    given: Mapping[str, str],
    selection: Mapping[str, Mapping[str, Iterable[str]]],
    optimizer: Mapping[str, Any] = MEASURE,
) -> dict[str, Any]:
    """The compiler's standard JSON output. `given` maps path -> text; what they import is read from the project.

    Raises CompileError."""
    settings = yaml.safe_load((ROOT / "ape-config.yaml").read_text())["solidity"]
    question = {
        "language": "Solidity",
        "sources": {path: {"content": text} for path, text in given.items()},
        "settings": {
            "viaIR": settings["via_ir"],
            "evmVersion": settings["evm_version"],
            "optimizer": optimizer,
            "metadata": {"appendCBOR": False},  # so that the same code is the same bytes
            "remappings": settings["import_remapping"],
            "outputSelection": selection,
        },
    }
    done = subprocess.run(
        [str(ROOT / "tools" / "solc"), "--standard-json", "--base-path", "."],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    errors = [e["formattedMessage"] for e in answer.get("errors", []) if e["severity"] == "error"]
    if errors:
        raise CompileError("\n".join(errors))
    return answer
