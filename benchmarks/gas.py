"""Gas of every operation, as whole transactions on an Anvil node with Prague's rules: docs/benchmarks/gas.json.

Deterministic: keys, times and salts are fixed, so that two runs of one code give the same figures. With `--check`
nothing is written; it fails when a row has grown by more than 1 % over the committed file, is over its target, or is
not in both.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(ROOT / folder) for folder in ("scripts", "benchmarks", "tests/contracts", "tests/contracts/court")
]
os.chdir(ROOT)  # Ape's project is the working directory
os.environ["PATH"] = f"{ROOT / 'node_modules' / '.bin'}{os.pathsep}{os.environ['PATH']}"
os.environ.setdefault("SOLCX_BINARY_PATH", str(ROOT / "tools" / "solcx"))

import ape  # noqa: E402
from ape.logging import logger  # noqa: E402
from market import deploy  # noqa: E402

import gas_court  # noqa: E402
import gas_market  # noqa: E402
import gas_onward  # noqa: E402
import gas_usage  # noqa: E402
import report  # noqa: E402
from gas_cited import table  # noqa: E402

COMMAND = "make gas"
TOLERANCE = 0.01  # what a row may grow over the committed value
START = 2_000_000_000  # unix seconds of the first block that is measured


def prepare(provider: Any) -> str:
    """Makes the node's clock a counter of blocks; returns the hardfork, which must be Prague."""
    info = provider.make_request("anvil_nodeInfo", [])
    if info["hardFork"].lower() != "prague":
        raise SystemExit(
            f"gas: the node runs {info['hardFork']}, budgets are for Prague: see ape-config.yaml"
        )
    provider.make_request("anvil_setBlockTimestampInterval", [1])
    provider.make_request("evm_setNextBlockTimestamp", [START])
    return str(info["hardFork"])


def measure() -> tuple[list[report.Row], dict[str, str]]:
    """All rows, and the environment."""
    logger.set_level("WARNING")
    with ape.networks.parse_network_choice("ethereum:local:foundry") as provider:
        hardfork = prepare(provider)
        project, accounts = ape.project, ape.accounts.test_accounts
        made = gas_market.rows(deploy(project, accounts), project)
        system = deploy(project, accounts)
        made += gas_onward.rows(system)
        made += gas_usage.rows(system)
        made += gas_court.rows(system)
        return made, report.environment(hardfork=hardfork, node=provider.client_version)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed file, write nothing")
    check = parser.parse_args().check
    committed = report.values("gas")
    made, environment = measure()
    comparison = report.compare(committed, made, TOLERANCE)
    for line in comparison.changes:
        print(line)
    for line in comparison.faults if check else report.over_target(made):
        print(f"gas: {line}", file=sys.stderr)
    if check:
        return 1 if comparison.faults else 0
    path = report.write("gas", COMMAND, made, environment=environment, notes=f"{NOTES}\n{table(made)}")
    print(path.relative_to(ROOT))
    return 1 if report.over_target(made) else 0


NOTES = """
Whole transactions, 21,000 and calldata included, one measurement each: gas is exact. `python benchmarks/gas.py --check`
fails when a row is over its target or more than 1 % over what this file says.

## Beside others

The figures of others are cited, not from a run of ours: rounded to 1,000, for the step named.
"""

if __name__ == "__main__":
    raise SystemExit(main())
