"""`ape run deploy` on a node of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from devnode import Node
from zhiyi.deployment import Deployment

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = [f"0x{number:040x}" for number in range(0x1001, 0x1006)]


def ape_run(*options: str) -> subprocess.CompletedProcess[str]:
    admin, treasury, authority, last, guardian = PEOPLE
    command = [
        str(Path(sys.executable).with_name("ape")),
        "run",
        "deploy",
        "--network",
        "ethereum:local:foundry",
    ]
    command += ["--account", "TEST::0", "--admin", admin, "--treasury", treasury]
    command += ["--appeal-authority", authority, "--last-instance", last, "--holder", f"GUARDIAN={guardian}"]
    with Node() as node:  # Ape's own gives up after 20 s, which a busy machine may need
        return subprocess.run(
            [*command, *options],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | {"APE_FOUNDRY_HOST": node.url},
            timeout=300,
            check=False,
        )


def test_it_deploys_checks_and_writes_the_address_book(tmp_path: Path) -> None:
    out = tmp_path / "book.json"
    done = ape_run("--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    book = Deployment.load(out)
    assert book.contracts == Deployment.packaged(book.chain_id).contracts
    assert set(book.code) == set(book.contracts)
    assert "DeploymentFactory closed" in done.stdout
    assert "functions have their roles" in done.stdout
    assert "failed" not in done.stdout


def test_a_dry_run_prints_addresses_and_gas_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "book.json"
    done = ape_run("--dry-run", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    for name, address in Deployment.packaged(31337).contracts.items():
        assert f"{name:<18} {address}" in done.stdout
    assert not out.exists()


def test_a_wrong_chain_or_role_is_refused() -> None:
    wrong = ape_run("--chain-id", "5")
    assert wrong.returncode != 0
    assert "signs for chain 5" in wrong.stderr
    assert "registrer" in ape_run("--holder", f"registrer={PEOPLE[0]}").stderr
