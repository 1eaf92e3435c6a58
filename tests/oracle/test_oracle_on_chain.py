"""Fingerprinter and operators through real cases: real node, contracts, IPFS, keys and processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from chain_stage import DAY, OPERATORS, Sold, World, run_operator, tune
from flask import Flask, Response
from tiny_model import make_registered

from zhiyi import case_evidence, delivery
from zhiyi.chain import Event
from zhiyi.cid import cid_v0_from_digest
from zhiyi.delivery import ecies
from zhiyi.errors import TxReverted
from zhiyi.keys import KeyKind, new_key
from zhiyi.signers import sign
from zhiyi.types import CaseState, Decision, Verdict
from zhiyi_oracle.base_tensors import write_base
from zhiyi_oracle.judge import operator
from zhiyi_oracle.judge.attest import Attestation, result_tag
from zhiyi_oracle.judge.chain_ledger import ChainPoster
from zhiyi_oracle.judge.config import load
from zhiyi_oracle.judge.http import HttpServer
from zhiyi_oracle.judge.store import CaseStep, CaseStore, ServiceStep


@contextmanager
def running(world: World, *names: str) -> Iterator[dict[str, int]]:
    """Operators as processes; gives their process ids, stops them at the end."""
    processes = {name: run_operator(world.write_config(name)) for name in names}
    try:
        yield {name: process.pid for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            process.wait(20)


def result(world: World, name: str, case_id: bytes) -> dict[str, object]:
    path = world.folder / name / "state" / "cases" / f"0x{case_id.hex()}" / "result.json"
    found: dict[str, object] = json.loads(path.read_text())
    return found


def open_share(world: World, sold: Sold) -> None:
    sold.service.step()
    world.node.mine()


def test_a_leaked_copy_is_convicted_though_one_operator_lies(
    world: World, sold: Sold, tmp_path: Path
) -> None:
    """Two honest processes and a third that serves signed lies under its registered address."""
    leak = tune(sold.second_copy, tmp_path / "leak")
    case_id = world.report(sold.second, leak)
    open_share(world, sold)
    with lying(world, "operator3", case_id), running(world, "operator1", "operator2") as pids:
        world.wait_for_verdict(case_id)
        world.node.mine()
        posted = world.as_("stranger").cases.get(case_id).posted
    assert posted is not None
    verdict = posted.verdict
    assert (verdict.decision, verdict.license_id, verdict.bucket) == (Decision.GUILTY, sold.second, 40)
    epoch = world.as_("stranger").oracles.epoch(verdict.epoch)
    seats = [epoch.signers[i] for i in range(3) if posted.bitmap >> i & 1]
    assert sorted(seats) == sorted(world.signers[n].address for n in ("operator1", "operator2"))
    first, second = result(world, "operator1", case_id), result(world, "operator2", case_id)
    assert first["pid"] == pids["operator1"]
    assert second["pid"] == pids["operator2"]
    assert first["digest"] == second["digest"] != "0x" + bytes(32).hex()
    assert first["detection"] == second["detection"]
    log = "".join((world.folder / n / "log.jsonl").read_text() for n in ("operator1", "operator2"))
    assert "5: decision NOT_GUILTY, ours is GUILTY" in log
    for name in ("operator1", "operator2"):
        assert world.signer_key(name).hex() not in log
    world.node.travel(6 * DAY + 1)
    stranger = world.as_("stranger")
    stranger.cases.execute(case_id)
    assert stranger.cases.get(case_id).state is CaseState.EXECUTED
    assert not stranger.licenses.is_active(sold.second)
    assert stranger.licenses.is_active(sold.first)


@contextmanager
def lying(world: World, name: str, case_id: bytes) -> Iterator[None]:
    """An operator that measured, but signs the opposite and serves it."""
    client, signer = world.as_("stranger"), world.signers[name]

    def answer(case: str) -> Response | tuple[str, int]:
        for peer in (
            "operator1",
            "operator2",
        ):  # copies all it can from an honest peer, and turns the decision
            folder = world.folder / peer / "state"
            store = CaseStore(folder) if (folder / "judge.sqlite").exists() else None
            ours = store.ours(case) if store else None
            if ours is not None:
                honest = Verdict.model_validate_json(ours.verdict)
                lie = honest.model_copy(update={"decision": Decision.NOT_GUILTY, "bucket": 0})
                given = Attestation(
                    signer=signer.address,
                    verdict=lie,
                    signature=sign(signer, client.cases.verdict_data(lie)),
                    tag=result_tag(bytes(32), case_id, signer.address),
                )
                return Response(given.model_dump_json(), mimetype="application/json")
        return "nothing to copy yet", 404

    app = Flask("liar")
    app.add_url_rule("/attestations/<case>", view_func=answer)
    server = HttpServer(app, "127.0.0.1", world.ports[name])
    server.start()
    try:
        yield
    finally:
        server.stop()


def test_a_false_report_is_dismissed_though_one_operator_is_killed(
    world: World, sold: Sold, tmp_path: Path
) -> None:
    """Buyer 2's file, reported against buyer 1. Operator 3 is killed in the middle of its work."""
    leak = tune(sold.second_copy, tmp_path / "leak", seed=4)
    with running(world, *OPERATORS) as pids:
        case_id = world.report(sold.first, leak)
        os.kill(pids["operator3"], signal.SIGKILL)
        open_share(world, sold)
        world.wait_for_verdict(case_id)
    case = world.as_("stranger").cases.get(case_id)
    assert case.posted is not None
    assert case.posted.verdict.decision is Decision.NOT_GUILTY
    assert case.posted.verdict.bucket == 0
    world.node.travel(6 * DAY + 1)
    world.as_("stranger").cases.finalize(case_id)
    assert world.as_("stranger").cases.get(case_id).state is CaseState.DISMISSED
    assert world.as_("stranger").licenses.is_active(sold.first)


def step_in_process(world: World, *names: str, dry_run: bool = False) -> dict[str, operator.Operator]:
    """Operators inside the test, pages served, each stepped until a verdict is posted or nothing moves."""
    made = {name: operator.build(load(world.write_config(name, dry_run=dry_run))) for name in names}
    for one in made.values():
        one.server.start()
    return made


@pytest.fixture
def operators(world: World) -> Iterator[dict[str, operator.Operator]]:
    made = step_in_process(world, *OPERATORS)
    yield made
    for one in made.values():
        one.server.stop()
        one.store.close()


def settle(world: World, operators: dict[str, operator.Operator], rounds: int = 3) -> None:
    for _ in range(rounds):
        for one in operators.values():
            one.judge.step()
        world.node.mine()


def test_evidence_sealed_to_strangers_is_unavailable(
    world: World, sold: Sold, operators: dict[str, operator.Operator], tmp_path: Path
) -> None:
    leak = tune(sold.first_copy, tmp_path / "leak")
    case_id = world.report(sold.first, leak, keys=(new_key(KeyKind.ENCRYPTION).public,))
    settle(world, operators)
    case = world.as_("stranger").cases.get(case_id)
    assert case.posted is not None
    assert case.posted.verdict.decision is Decision.UNAVAILABLE


def test_a_copied_report_is_unavailable(
    world: World, sold: Sold, operators: dict[str, operator.Operator], tmp_path: Path
) -> None:
    """Somebody files another reporter's sealed evidence as his own."""
    epoch = world.as_("stranger").oracles.current_epoch()
    sealed = case_evidence.seal(
        tune(sold.first_copy, tmp_path / "leak"),
        case_evidence.ObjectKind.WEIGHTS,
        reporter=world.as_("stranger").account,
        keys=world.as_("stranger").oracles.encryption_keys(epoch.number),
        out=tmp_path / "sealed",
    )
    case_id = world.report_cid(sold.first, sealed.evidence_hash, world.ipfs.add_file(sealed.file))
    settle(world, operators)
    case = world.as_("stranger").cases.get(case_id)
    assert case.posted is not None
    assert case.posted.verdict.decision is Decision.UNAVAILABLE


def test_junk_for_evidence_is_unavailable(
    world: World, sold: Sold, operators: dict[str, operator.Operator]
) -> None:
    case_id = world.report_cid(sold.first, b"\7" * 32, world.ipfs.add_bytes(b"not an envelope"))
    settle(world, operators)
    case = world.as_("stranger").cases.get(case_id)
    assert case.posted is not None
    assert case.posted.verdict.decision is Decision.UNAVAILABLE


def test_base_tensors_of_another_model_leave_it_inconclusive(
    world: World, sold: Sold, operators: dict[str, operator.Operator], tmp_path: Path
) -> None:
    """A fingerprinter that hands over other tensors cannot convict anybody."""
    case_id = world.report(sold.first, tune(sold.first_copy, tmp_path / "leak"))
    maker = world.as_("fingerprinter")
    other = make_registered(tmp_path / "other", seed=99)
    write_base(
        other.folder, other.bundle, other.declared, world.registered.spec, bytes(32), tmp_path / "base"
    )
    epoch = maker.oracles.current_epoch()
    ecies.seal_file(tmp_path / "base", maker.oracles.encryption_keys(epoch.number), tmp_path / "base.sealed")
    cid = world.ipfs.add_file(tmp_path / "base.sealed")
    store = sold.service._store
    row = store.copy(sold.first)
    assert row is not None
    seeds = store.secrets_of(row).seeds
    opened = maker.cases.shares_opened(sold.first)
    index = next(i for i in range(15, -1, -1) if not opened >> i & 1)
    proof = delivery.share_proof(sold.first, seeds, index)
    maker.cases.open_share(case_id, index, seeds[index], proof, cid)
    world.node.mine()
    settle(world, operators)
    case = world.as_("stranger").cases.get(case_id)
    assert case.posted is not None
    assert case.posted.verdict.decision is Decision.INCONCLUSIVE
    row_of = operators["operator1"].store.case("0x" + case_id.hex())
    assert row_of is not None
    assert row_of.base == "broken"


def test_an_operator_that_was_away_still_records_its_own_finding(
    world: World, sold: Sold, tmp_path: Path
) -> None:
    case_id = world.report(sold.first, tune(sold.second_copy, tmp_path / "leak", seed=9))
    open_share(world, sold)
    for names in (("operator1", "operator2"), ("operator3",)):
        made = step_in_process(world, *names)
        settle(world, made, rounds=4)
        for one in made.values():
            row = one.store.case("0x" + case_id.hex())
            assert row is not None
            assert row.step == CaseStep.FINAL
            one.server.stop()
            one.store.close()
    assert result(world, "operator3", case_id)["digest"] == result(world, "operator1", case_id)["digest"]
    assert result(world, "operator3", case_id)["decision"] == "NOT_GUILTY"


def test_check_finds_what_is_missing(world: World, tmp_path: Path) -> None:
    good = {f.name: f for f in operator.check(load(world.write_config("operator1")))}
    assert all(f.good for f in good.values()), good
    config = world.write_config("operator1", folder=tmp_path / "home")
    text = config.read_text()
    (tmp_path / "home" / "x25519.key").write_text("0x" + "11" * 32)
    config.write_text(text.replace(world.ipfs.api, "http://127.0.0.1:1"))
    bad = {f.name: f for f in operator.check(load(config))}
    assert not bad["registered key"].good
    assert "update the registration" in bad["registered key"].found
    assert not bad["IPFS"].good
    (tmp_path / "home" / "signer.key").chmod(0o644)
    bad = {f.name: f for f in operator.check(load(config))}
    assert not bad["secrets"].good
    assert "chmod 600" in bad["secrets"].found


def test_the_process_serves_its_page_and_ends_when_asked(world: World) -> None:
    process = run_operator(world.write_config("operator1"))
    page = f"http://127.0.0.1:{world.ports['operator1']}"
    end = time.monotonic() + 60
    try:
        while True:
            try:
                if httpx.get(f"{page}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < end
            time.sleep(0.1)
        assert "zhiyi_oracle_finalized_block" in httpx.get(f"{page}/metrics").text
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


class Crash(BaseException):
    """The power goes."""


def convict(world: World, sold: Sold, operators: dict[str, operator.Operator], folder: Path) -> bytes:
    """A guilty verdict on buyer 1, posted and final on chain; returns the case id."""
    case_id = world.report(sold.first, tune(sold.first_copy, folder))
    open_share(world, sold)
    settle(world, operators)
    case = world.as_("stranger").cases.get(case_id)
    assert (case.state, case.decision) == (CaseState.POSTED, Decision.GUILTY)
    return case_id


def ask(world: World, case_id: bytes, key: bytes) -> None:
    """By hand: the SDK refuses a key that nothing can be sealed to."""
    accused = world.as_("buyer1")
    court = accused.deployment.contract("MisuseCourt")
    accused.chain.send(court, "requestService", accused.cases.file(case_id).as_tuple(), key)


def servings(world: World, case_id: bytes) -> list[Event]:
    client = world.as_("stranger")
    court = client.deployment.contract("MisuseCourt")
    return client.chain.events(court, "Served", filters={"caseId": case_id})


def service_of(one: operator.Operator, case_id: bytes) -> str:
    row = one.store.service("0x" + case_id.hex())
    assert row is not None
    return row.step


def restart(world: World, operators: dict[str, operator.Operator], name: str) -> None:
    operators[name].server.stop()
    operators[name].store.close()
    operators.update(step_in_process(world, name))


def test_a_convicted_holder_who_asks_is_served_though_one_operator_crashes(
    world: World,
    sold: Sold,
    operators: dict[str, operator.Operator],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first operator dies with its transaction written down; the second serves; the first sends nothing."""
    case_id = convict(world, sold, operators, tmp_path / "leak")
    accused, key = world.as_("buyer1"), new_key(KeyKind.ENCRYPTION)
    ask(world, case_id, key.public)
    assert accused.cases.get(case_id).state is CaseState.SERVING
    world.node.mine()

    def crash(self: ChainPoster, tx: bytes) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(ChainPoster, "send", crash)
        with pytest.raises(Crash):
            operators["operator1"].judge.step()
    assert service_of(operators["operator1"], case_id) == ServiceStep.SENT
    operators["operator2"].judge.step()
    restart(world, operators, "operator1")
    settle(world, operators)
    assert [service_of(one, case_id) for one in operators.values()] == [ServiceStep.DONE] * 3
    case = accused.cases.get(case_id)
    assert (case.state, case.decision) == (CaseState.POSTED, Decision.GUILTY)
    served = servings(world, case_id)
    assert [event["by"] for event in served] == [world.signers["operator2"].address]
    cid = cid_v0_from_digest(served[0]["digest"])
    assert cid != case.evidence_cid
    world.ipfs.download(cid, tmp_path / "sealed", 1 << 30)
    opened = case_evidence.open_sealed(
        tmp_path / "sealed",
        key.secret,
        tmp_path / "seen",
        reporter=case.file.reporter,
        expected=case.file.evidence_hash,
    )
    leak = (tmp_path / "leak" / "model.safetensors").read_bytes()
    assert (opened.path / "model.safetensors").read_bytes() == leak
    for name in OPERATORS:
        assert not (world.folder / name / "state" / "cases" / f"0x{case_id.hex()}" / "evidence").exists()


def test_a_broken_key_clears_nobody_and_a_seat_serves_for_itself(
    world: World,
    sold: Sold,
    operators: dict[str, operator.Operator],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The accused asks with a point of low order; the operator dies after its transaction is out, before it knows."""
    case_id = convict(world, sold, operators, tmp_path / "leak")
    accused, low = world.as_("buyer1"), (1).to_bytes(32, "little")
    file, chain = accused.cases.file(case_id), accused.chain
    court = accused.deployment.contract("MisuseCourt")
    ask(world, case_id, low)
    world.node.mine()
    epoch, signer = accused.oracles.epoch(file.epoch), world.signers["operator1"].address
    wrong = (epoch.seat(signer) + 1) % 3
    with pytest.raises(TxReverted, match="NotAllowedToServe"):
        chain.call(court, "serve", file.as_tuple(), wrong, bytes(32), sender=signer)
    whole = ChainPoster.send

    def crash(self: ChainPoster, tx: bytes) -> None:
        whole(self, tx)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(ChainPoster, "send", crash)
        with pytest.raises(Crash):
            operators["operator1"].judge.step()
    restart(world, operators, "operator1")
    settle(world, operators)
    assert [service_of(one, case_id) for one in operators.values()] == [ServiceStep.DONE] * 3
    served = servings(world, case_id)
    assert [event["by"] for event in served] == [signer]
    cid = cid_v0_from_digest(served[0]["digest"])
    assert world.ipfs.cat(cid) == case_evidence.unusable_key_notice(case_id, low)
    assert accused.cases.get(case_id).state is CaseState.POSTED
