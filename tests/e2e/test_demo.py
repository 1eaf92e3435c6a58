"""The whole story, once, and its report held against node, IPFS and files."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = 60

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--out", str(out), "--plain"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=2400, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    return out


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all figures: numbers, truth values, and strings (hashes, decisions, addresses)."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from leaves(item, (*path, i))
    else:
        yield path


def changed(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.0001 + 0.0001
    return ("0" if value[-1:] != "0" else "1").join((value[:-1], ""))


def mutated(report: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    made = copy.deepcopy(report)
    place: Any = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = changed(place[path[-1]])
    return made


def test_the_story_ends_as_it_should(demo: Path) -> None:
    report = json.loads((demo / "report.json").read_text())
    assert report["ok"] is True
    assert report["chain"]["hardfork"] == "Prague"
    assert report["money"]["balance_error"] == 0
    assert report["money"]["vault_error"] == 0
    leaks = [case for case in report["cases"] if case["kind"] == "LEAK"]
    by_state = {case["state"]: case for case in leaks}
    assert by_state["EXECUTED"]["slashed"] > 0
    assert by_state["EXECUTED"]["license_end"] == "REVOKED"
    assert by_state["DISMISSED"]["slashed"] == 0
    assert by_state["DISMISSED"]["license_end"] == "NONE"
    assert [order["refund_reason"] for order in report["orders"]].count(2) == 1, "the cheat was not refunded"
    assert [order["refund_reason"] for order in report["orders"]].count(1) == 1, "no refund without a key"
    operators = {entry["operator"]: entry["pid"] for entry in report["operators"]}
    assert len(operators) == len(set(operators.values())) == 3, "operators must be separate processes"
    for case in leaks:
        entries = [entry for entry in report["operators"] if entry["case_id"] == case["case_id"]]
        assert len({(entry["T"], entry["digest"]) for entry in entries}) == 1, (
            "operators saw different figures"
        )
    texts = [found for found in report["detections"] if found["what"].startswith("text")]
    assert texts, "no text was traced"
    assert all(found["log2_p_global"] < -19.9 for found in texts), "a trace needs p_global < 1e-6"
    assert 0 < report["leak"]["relative_change"] < 0.2


def test_what_follows_a_purchase_ends_as_it_should(demo: Path) -> None:
    report = json.loads((demo / "report.json").read_text())
    roles = report["accounts"]
    _, rejected, small = report["registry"]
    assert [row["review"] for row in report["registry"]] == ["APPROVED", "REJECTED", "APPROVED"]
    assert rejected["versions"] == small["versions"][:1], "rejected weights may be registered anew"
    assert len(small["versions"]) == 2
    assert small["owner"] == roles["heir"]
    mine = {row["basis"]: row for row in report["licenses"] if row["model_id"] == small["model_id"]}
    assert {basis: (row["end"], row["active"]) for basis, row in mine.items()} == {
        "OWNER": ("RESOLD", False),
        "SUBLICENSE": ("REVOKED", False),
        "RESALE": ("NONE", True),
    }
    assert mine["OWNER"]["bond"] == 0, "the tail is over, the bond was released"
    assert mine["SUBLICENSE"]["bond"] == mine["RESALE"]["bond"] > 0, "a missing label costs no bond"
    labels = [case for case in report["cases"] if case["kind"] == "DISCLOSURE"]
    assert [(case["cured"], case["slashed"]) for case in labels] == [(True, 0), (False, 0)]
    for income in report["income"]:
        assert sum(income["by"].values()) == income["gross"]
        assert income["left"] < 10, "only what rounding leaves"
    assert report["income"][0]["inherited"] == report["income"][2]["gross"] // 10
    assert [one["tier"] for one in report["identities"]] == [2, 2, 1]
    assert [one["state"] for one in report["oversight"]["demands"]] == ["ANSWERED", "UNANSWERED"]
    assert {channel["phase"] for channel in report["channels"]} == {"CLOSED"}
    titles = [(step["title"], step["title_zh"]) for step in report["steps"]]
    assert len(titles) == 16
    assert all(all(pair) for pair in titles)


def test_appeals_pay_whom_the_protocol_says(demo: Path) -> None:
    report = json.loads((demo / "report.json").read_text())
    roles, wei = report["accounts"], 10**18
    false, true, again = report["model_cases"]
    assert {row["model_id"] for row in report["model_cases"]} == {report["registry"][2]["model_id"]}
    assert (false["kind"], false["ruling"], false["state"]) == ("OWNERSHIP", "OVERTURNED", "CLEARED")
    assert (false["judge"], false["accused"]) == (roles["authority"], roles["heir"])
    assert (false["to_reporter"], false["to_accused"]) == (0, wei + wei // 10), "R whole, and C back"
    assert (false["stakes_lost"], false["to_judge"], false["fee"]) == (wei // 10, wei // 10, 0)
    assert (true["kind"], true["ruling"], true["state"]) == ("UNDECLARED_PARENT", "UPHELD", "EXECUTED")
    assert true["judge"] == roles["anyone"], "the last instance, because the authority was silent"
    assert (true["to_reporter"], true["fee"], true["to_judge"]) == (wei * 8 // 10, wei // 5, wei // 10)
    assert true["frozen_until"] > 0 == true["stakes_lost"]
    assert (again["ruling"], again["state"], again["frozen_until"]) == ("", "CLOSED", 0)
    assert (again["to_reporter"], again["fee"]) == (wei * 8 // 10, wei // 5), (
        "an honest reporter loses the fee alone"
    )
    assert report["oversight"]["acts"][-1]["act"] == "FreezeLifted"
    assert not report["registry"][2]["frozen"]


def test_everything_started_is_stopped(demo: Path) -> None:
    running = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            running.append(command.read_bytes().decode(errors="replace"))
        except OSError:  # ended while we looked
            continue
    assert not [line for line in running if str(demo) in line]


def test_the_check_accepts_the_report_and_refuses_every_changed_figure(demo: Path, tmp_path: Path) -> None:
    report = json.loads((demo / "report.json").read_text())
    paths = list(leaves(report))
    drawn = random.Random(20).sample(paths, min(MUTATIONS, len(paths)))
    sections = {path[0] for path in paths}
    drawn += [next(path for path in paths if path[0] == section) for section in sorted(sections)]
    files = [demo / "report.json"]
    for i, path in enumerate(drawn):
        files.append(tmp_path / f"{i}.json")
        files[-1].write_text(json.dumps(mutated(report, path)))
    command = [sys.executable, str(ROOT / "scripts" / "check_report.py"), str(demo)]
    for file in files:
        command += ["--report", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    lines = run.stdout.splitlines()
    assert run.returncode == 1, run.stdout[-2000:] + run.stderr[-2000:]
    assert "report.json: every figure recomputed and equal" in lines
    accepted = [
        drawn[i] for i in range(len(drawn)) if f"{i}.json: every figure recomputed and equal" in lines
    ]
    assert not accepted, f"changed figures that were not noticed: {accepted}"


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--out", str(tmp_path / "out")]
        run = subprocess.run(
            [*command, "--rpc-port", port, "--plain"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert run.returncode == 1
    assert f"port {port} is in use" in run.stdout
