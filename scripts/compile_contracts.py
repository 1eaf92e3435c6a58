"""Compile with Ape what is out of date, the users of a changed library, base or interface included.

`ape compile` alone compiles the changed file and leaves whoever imports it as it was: tests would run old code.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = ROOT / "contracts"
SETTINGS = ("ape-config.yaml", "package-lock.json")
RECORD = ROOT / ".build" / "compiled.json"  # source -> hash of it and of all it imports, as last compiled
IMPORT = re.compile(r'^import\s[^"]*"(?P<path>\.[^"]+)";', re.MULTILINE)  # packages are pinned in SETTINGS


def closure(source: Path, seen: set[Path] | None = None) -> set[Path]:
    """The source and all files of ours that it imports, directly or not."""
    seen = set() if seen is None else seen
    if source not in seen:
        seen.add(source)
        for found in IMPORT.finditer(source.read_text()):
            closure((source.parent / found["path"]).resolve(), seen)
    return seen


def state() -> dict[str, str]:
    """Hash by source: it changes when anything changes that the source's code depends on."""
    settings = b"".join((ROOT / name).read_bytes() for name in SETTINGS)
    found = {}
    for source in sorted(CONTRACTS.rglob("*.sol")):
        hasher = hashlib.sha256(settings)
        for file in sorted(closure(source)):
            hasher.update(file.read_bytes())
        found[str(source.relative_to(ROOT))] = hasher.hexdigest()
    return found


def main() -> int:
    wanted = state()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    stale = [source for source, value in wanted.items() if record.get(source) != value]
    if stale:
        done = subprocess.run(["ape", "compile", "--force", *stale], cwd=ROOT, check=False)
        if done.returncode:
            return done.returncode
    done = subprocess.run(["ape", "compile"], cwd=ROOT, check=False)  # drops what no longer exists
    if done.returncode == 0:
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(wanted, indent=1) + "\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
