"""7. Three operators, each a process with its own keys, folder and database, judge two cases."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from story import buy, leak
from story.stage import OPERATORS
from story.world import ETHER, World
from zhiyi.types import CaseState, Decision, to_hex

PATIENCE = 300.0  # seconds for fetch, detect, sign and post


def play(world: World) -> None:
    """The guilty case to its slashing; then a false report, to its dismissal."""
    with operators(world) as running:
        first = next(iter(world.facts["cases"]))
        _await_verdict(world, first, running)
        _finish(world, first, CaseState.EXECUTED)
        false = leak.report(
            world, "liar", world.facts["licenses"]["buyer1"], world.folder("leaker") / "found"
        )
        world.say("the liar shows buyer 2's file and accuses buyer 1")
        buy.fingerprinter(world).step()
        world.node.mine()
        _await_verdict(world, false, running)
        _finish(world, false, CaseState.DISMISSED)


@contextmanager
def operators(world: World) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Starts `zhiyi oracle run` three times; stops all of them whatever happens."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for role in OPERATORS:
            folder = world.folder(role)
            config = folder / "oracle.toml"
            config.write_text(_config(world, folder))
            with (folder / "log.jsonl").open("wb") as log:
                running[role] = subprocess.Popen(_command(config), stdout=log, stderr=log)
            world.say(f"{role}: process {running[role].pid}, its own keys, folder and database")
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _command(config: Path) -> list[str]:
    return [str(Path(sys.executable).parent / "zhiyi"), "oracle", "run", "--config", str(config)]


def _config(world: World, folder: Path) -> str:
    port = int((folder / "port").read_text())
    return f"""dry_run = false

[chain]
rpc = ["{world.node.url}"]
deployment = "{world.out / "deployment.json"}"
start_block = {world.deployment.block}

[ipfs]
api = "{world.ipfs_api}"

[operator]
folder = "state"
signer_key_file = "signer.key"
encryption_key_file = "x25519.key"

[http]
port = {port}

[judge]
poll_s = 0.5
turn_delay_s = 5
"""


def _await_verdict(world: World, case_id: bytes, running: dict[str, subprocess.Popen[bytes]]) -> None:
    client = world.as_("anyone")
    started = time.monotonic()
    with world.bar("the operators fetch, detect, decide, sign and post") as progress:
        while time.monotonic() - started < PATIENCE:
            world.node.mine()  # what is mined becomes final, as on a live chain
            case = client.cases.get(case_id)
            if case.posted is not None and all(path.exists() for path in _results(world, case_id)):
                break
            for role, process in running.items():
                if process.poll() is not None:
                    raise AssertionError(
                        f"{role} ended with status {process.returncode}: see {world.out / role}/log.jsonl"
                    )
            progress(int(time.monotonic() - started), int(PATIENCE))
            time.sleep(1.0)
        else:
            raise AssertionError(
                f"no verdict within {PATIENCE:.0f} s: see operator*/log.jsonl in {world.out}"
            )
    assert case.posted is not None
    verdict, signers = case.posted.verdict, case.posted.bitmap.bit_count()
    world.say(
        f"verdict on {to_hex(case_id)[:18]}…: {Decision(verdict.decision).name}, bucket {verdict.bucket}, "
        f"{signers} signatures of {len(OPERATORS)} seats"
    )


def _finish(world: World, case_id: bytes, expected: CaseState) -> None:
    """The window passes; anyone executes or finalizes; what moved is said."""
    client = world.as_("anyone")
    case = client.cases.get(case_id)
    wait = case.until - world.node.now() + 1
    world.node.travel(wait)
    world.say(f"the challenge window of {wait // 86_400} days passes unused")
    if expected is CaseState.EXECUTED:
        done = client.cases.execute(case_id)
        end = done.event("CaseExecuted")
        slashed, reward = end["slashed"], end["toReporter"]
        world.earned(case.file.model_id, "slashes", end["toOwner"])
        world.sent(
            f"anyone executes: {slashed / ETHER:g} ETH of the bond slashed, {reward / ETHER:g} ETH to the reporter",
            done,
        )
        license_ = client.licenses.get(case.file.license_id)
        world.say(f"license {license_.license_id} is {license_.end.name.lower()}")
    else:
        done = client.cases.finalize(case_id)
        world.sent(
            "anyone finalizes: dismissed, the reporter's bond is lost to the accused and the treasury", done
        )
    state = client.cases.get(case_id).state
    assert state is expected, f"case ended as {state.name}, expected {expected.name}"


def _results(world: World, case_id: bytes) -> list[Path]:
    return [world.out / role / "state" / "cases" / to_hex(case_id) / "result.json" for role in OPERATORS]


def results(world: World) -> list[dict[str, Any]]:
    """What each operator wrote down in its own folder, case by case."""
    found = []
    for seat, role in enumerate(OPERATORS):
        for case_id in world.facts["cases"]:
            found.append({"operator": role} | json.loads(_results(world, case_id)[seat].read_text()))
    return found
