"""The one format of every benchmark: rows with targets, as JSON and as a Markdown table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "benchmarks"


@dataclass(frozen=True)
class Row:
    """One measured value. `against` is the peer or floor measured in the same run, `interval` a 95 % interval."""

    id: str
    what: str
    value: float
    unit: str
    n: int
    target: float | None = None
    sense: Literal[">=", "<="] | None = None
    against: tuple[str, float] | None = None
    interval: tuple[float, float] | None = None

    @property
    def met(self) -> bool | None:
        """Whether the point value reaches the target; None without one."""
        if self.target is None or self.sense is None:
            return None
        return self.value >= self.target if self.sense == ">=" else self.value <= self.target

    def to_json(self) -> dict[str, Any]:
        """The row as the file has it."""
        row: dict[str, Any] = {
            "id": self.id,
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "target": self.target,
            "sense": self.sense,
            "met": self.met,
            "against": None if self.against is None else {"name": self.against[0], "value": self.against[1]},
            "n": self.n,
        }
        if self.interval is not None:
            row["interval"] = list(self.interval)
        return row


def proportion(
    id_: str,
    what: str,
    hits: int,
    n: int,
    *,
    target: float | None = None,
    sense: Literal[">=", "<="] | None = None,
    against: tuple[str, float] | None = None,
) -> Row:
    """A row for hits of n trials with its Clopper-Pearson interval. Raises ValueError without trials."""
    return Row(id_, what, hits / n, "", n, target, sense, against, clopper_pearson(hits, n))


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion. Raises ValueError unless 0 <= hits <= n and n >= 1."""
    from scipy.stats import beta

    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"{hits} of {n} is no proportion")
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def bootstrap(values: Sequence[float], draws: int = 2000) -> tuple[float, float] | None:
    """95 % interval of a mean, from means of the values drawn again by a fixed seed; None for fewer than two.

    Where all values are equal it has no width: what no picture showed it cannot tell.
    """
    if len(values) < 2:
        return None
    import numpy as np

    given, rng = np.asarray(values, dtype=float), np.random.default_rng(0)
    means = [float(given[rng.integers(0, len(given), len(given))].mean()) for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def environment(**more: str) -> dict[str, str]:
    """What the values depend on, read from the machine."""
    found = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in ("cryptography", "torch", "transformers", "web3"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, **more}


def write(
    name: str,
    command: str,
    rows: list[Row],
    *,
    environment: dict[str, str],
    notes: str = "",
    folder: Path = FOLDER,
) -> Path:
    """Write docs/benchmarks/NAME.json and NAME.md; returns the JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "command": command,
        "commit": (measured := commit()),  # before this call changes tracked files
        "environment": environment,
        "rows": [row.to_json() for row in rows],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    (folder / f"{name}.md").write_text(markdown(name, command, rows, environment, measured, notes))
    return path


def values(name: str) -> dict[str, float]:
    """Values by row of docs/benchmarks/NAME.json; empty without the file."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return {}
    return {row["id"]: row["value"] for row in json.loads(path.read_text())["rows"]}


class Kept:
    """Results by name, on disk after each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._all: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON value of that name, made if it is not there."""
        if name not in self._all:
            value = make()
            self._all[name] = value
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(self._all))
            new.replace(self._path)
        return self._all[name]


@dataclass(frozen=True)
class Comparison:
    """A run set beside the committed values, in lines for people."""

    changes: list[str]
    faults: list[str]


def compare(committed: dict[str, float], rows: list[Row], tolerance: float) -> Comparison:
    """For rows where less is better. Faults: a row over its target, one more than `tolerance` (a part of the value)
    over the committed one, and rows that only one side has."""
    changes, faults = [], over_target(rows)
    for row in rows:
        if row.id not in committed:
            faults.append(f"{row.id} {row.value:.6g}: not in the committed file, write it anew")
            continue
        before = committed[row.id]
        if row.value == before:
            continue
        line = f"{row.id} {before:.6g} -> {row.value:.6g} ({row.value / before - 1:+.2%})"
        changes.append(line)
        if row.value > before * (1 + tolerance):
            faults.append(f"{line}: over the {tolerance:.0%} that a row may grow")
    faults += [f"{id_}: committed, but not measured" for id_ in committed.keys() - {row.id for row in rows}]
    return Comparison(changes, faults)


def over_target(rows: list[Row]) -> list[str]:
    """One line for each row that misses its target."""
    return [f"{r.id} {r.value:.6g}: the target is {r.sense} {r.target:g}" for r in rows if r.met is False]


def markdown(
    name: str, command: str, rows: list[Row], environment: dict[str, str], measured: str, notes: str = ""
) -> str:
    """The same as a table. measured: the commit."""
    lines = [
        f"# {name}",
        "",
        f"Made by `{command}` at commit `{measured}`; do not edit.",
        "",
        "| row | what | value | target | met | against | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        value = f"{row.value:.6g} {row.unit}".strip()
        if row.interval:
            value += f" [{row.interval[0]:.4g}, {row.interval[1]:.4g}]"
        target = "" if row.target is None else f"{row.sense} {row.target:g}"
        met = "" if row.met is None else ("yes" if row.met else "**no**")
        against = "" if row.against is None else f"{row.against[0]}: {row.against[1]:.6g}"
        lines.append(f"| `{row.id}` | {row.what} | {value} | {target} | {met} | {against} | {row.n} |")
    lines += ["", *(f"- {key}: {value}" for key, value in environment.items())]
    if notes:
        lines += ["", notes.strip()]
    return "\n".join(lines) + "\n"


def commit() -> str:
    """The commit that was measured; "-dirty" when tracked files differ from it."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
