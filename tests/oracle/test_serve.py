"""Giving an accused the evidence: ledger in memory, real envelopes."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from judge_stage import (
    EPOCH,
    OPENED,
    POST_BY,
    RECORD,
    SIGNERS,
    GivenFetcher,
    MemoryChain,
    Stage,
    make_file,
    make_stage,
)

from zhiyi import case_evidence
from zhiyi.cid import cid_v0_from_digest
from zhiyi.errors import RpcUnavailable
from zhiyi.keys import KeyKind, KeyPair, new_key
from zhiyi.types import CaseFile, CaseState, Decision, Kind, Verdict
from zhiyi_oracle.errors import BadEvidence, NotYet
from zhiyi_oracle.judge.config import FeesSection
from zhiyi_oracle.judge.fetch import Evidence
from zhiyi_oracle.judge.serve import LOOK_AGAIN_SECONDS, idempotency_key, turn_to_serve
from zhiyi_oracle.judge.store import CaseStep, CaseStore, ServiceStep
from zhiyi_oracle.judge.submit import turn_order

REPORTER = "0x" + "aa" * 20
OPERATOR, ACCUSED = new_key(KeyKind.ENCRYPTION), new_key(KeyKind.ENCRYPTION)
# Points of low order, the last two written in another way (RFC 7748: 2^255 - 19 and more are taken modulo it).
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


@dataclass
class SealedFetcher(GivenFetcher):
    """Opens the reporter's envelope, as from IPFS."""

    sealed: Path = field(default=Path())

    def evidence(self, file: CaseFile, folder: Path) -> Evidence:
        super().evidence(file, folder)
        opened = case_evidence.open_sealed(
            self.sealed, OPERATOR.secret, folder, reporter=file.reporter, expected=file.evidence_hash
        )
        return Evidence(opened.path, opened.canonical_root)


@dataclass
class Scene:
    """A case and the envelope of its evidence."""

    folder: Path
    sealed: case_evidence.Sealed
    file: CaseFile
    chain: MemoryChain = field(default_factory=MemoryChain)

    @property
    def case(self) -> str:
        return "0x" + self.file.hash().hex()

    def stage(self, seat: int = 0, **changes: object) -> Stage:
        fetcher = SealedFetcher(sealed=self.sealed.file)
        return make_stage(
            self.folder / str(seat),
            self.chain,
            seat,
            **{"fetcher": fetcher, **changes},  # type: ignore[arg-type]
        )

    def convict(self, *stages: Stage, decision: Decision = Decision.GUILTY) -> None:
        """Somebody posted a verdict, and the stages have noticed."""
        self.chain.open_case(self.file)
        self.chain.open_share(self.file)
        verdict = Verdict(
            case_id=self.file.hash(),
            license_id=self.file.license_id,
            kind=self.file.kind,
            decision=decision,
            evidence_hash=self.file.evidence_hash,
            subject=self.sealed.canonical_root,
            detector_hash=RECORD.detector_hash,
            share_index=0,
            samples=2048,
            bucket=40,
            epoch=1,
            deadline=POST_BY,
        )
        self.chain.post(self.file.hash(), verdict)
        for stage in stages:
            stage.judge.step()

    def evidence_of(self, stage: Stage) -> Path:
        return stage.store.folder / "cases" / self.case / "evidence"

    def step_of(self, stage: Stage) -> str | None:
        row = stage.store.service(self.case)
        return row.step if row else None

    def note_of(self, stage: Stage) -> str:
        row = stage.store.service(self.case)
        assert row is not None
        return row.note or ""

    @property
    def served(self) -> list[bytes]:
        return self.chain.served.get(self.file.hash(), [])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    suspect = tmp_path / "suspect"
    suspect.mkdir()
    (suspect / "w.safetensors").write_bytes(bytes(range(256)) * 40)
    sealed = case_evidence.seal(
        suspect,
        case_evidence.ObjectKind.WEIGHTS,
        reporter=REPORTER,
        keys=[OPERATOR.public],
        out=tmp_path / "sealed",
    )
    return Scene(tmp_path, sealed, make_file(evidence_hash=sealed.evidence_hash, reporter=REPORTER))


def opened_by(scene: Scene, stage: Stage, who: KeyPair = ACCUSED) -> case_evidence.Opened:
    """What the accused makes of the digest on chain."""
    received = scene.folder / "received"
    received.write_bytes(stage.files.kept[cid_v0_from_digest(scene.served[-1])])
    return case_evidence.open_sealed(
        received, who.secret, scene.folder / "seen", reporter=REPORTER, expected=scene.file.evidence_hash
    )


def test_the_accused_gets_what_the_committee_got(scene: Scene) -> None:
    stage = scene.stage()
    scene.convict(stage)
    row = stage.store.case(scene.case)
    assert row is not None
    assert row.step == CaseStep.FINAL
    assert scene.step_of(stage) == ServiceStep.KEPT
    assert scene.evidence_of(stage).exists()
    scene.chain.ask(scene.file, ACCUSED.public)
    stage.judge.step()
    assert len(scene.served) == 1
    seen = opened_by(scene, stage)
    assert seen.canonical_root == scene.sealed.canonical_root
    assert (seen.path / "w.safetensors").read_bytes() == bytes(range(256)) * 40
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.DONE
    assert not scene.evidence_of(stage).exists()
    assert not (scene.evidence_of(stage).parent / "served.sealed").exists()
    assert stage.fetcher.calls.count("evidence") == 1
    stage.judge.step()
    assert len(scene.served) == len(stage.ledger.sent) == 1


@pytest.mark.parametrize("damage", ["gone", "changed", "another file", "cut"])
def test_evidence_that_is_no_longer_whole_is_fetched_again(scene: Scene, damage: str) -> None:
    stage = scene.stage()
    scene.convict(stage)
    held = scene.evidence_of(stage)
    if damage == "gone":
        shutil.rmtree(held)
    elif damage == "changed":
        path = held / "object" / "w.safetensors"
        path.write_bytes(b"\xff" + path.read_bytes()[1:])
    elif damage == "another file":
        (held / "note.txt").write_text("left by somebody")
    else:
        shutil.rmtree(held / "object")
    scene.chain.ask(scene.file, ACCUSED.public)
    stage.judge.step()
    assert opened_by(scene, stage).canonical_root == scene.sealed.canonical_root
    assert stage.fetcher.calls.count("evidence") == 2


def test_a_case_that_marks_do_not_decide_is_served_too(scene: Scene) -> None:
    scene.file = make_file(kind=Kind.TERMS, evidence_hash=scene.sealed.evidence_hash, reporter=REPORTER)
    stage = scene.stage()
    scene.convict(stage)
    scene.chain.ask(scene.file, ACCUSED.public)
    stage.judge.step()
    assert opened_by(scene, stage).canonical_root == scene.sealed.canonical_root
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.DONE
    assert not scene.evidence_of(stage).exists()


def test_an_accused_whose_acquittal_is_challenged_is_served(scene: Scene) -> None:
    stage = scene.stage()
    scene.convict(stage, decision=Decision.NOT_GUILTY)
    assert scene.step_of(stage) is None
    assert not scene.evidence_of(stage).exists()
    scene.chain.ask(scene.file, ACCUSED.public)
    stage.judge.step()
    assert opened_by(scene, stage).canonical_root == scene.sealed.canonical_root


@pytest.mark.parametrize("key", LOW_ORDER, ids=lambda key: key.hex()[:8])
def test_a_key_that_nothing_can_be_sealed_to_clears_nobody(scene: Scene, key: bytes) -> None:
    stage = scene.stage()
    scene.convict(stage)
    scene.chain.ask(scene.file, key)
    stage.judge.step()
    notice = stage.files.kept[cid_v0_from_digest(scene.served[0])]
    assert notice == case_evidence.unusable_key_notice(scene.file.hash(), key)
    assert key.hex() in notice.decode()
    assert scene.case in notice.decode()
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.DONE


def test_an_operator_without_a_seat_leaves_it_to_the_committee(scene: Scene) -> None:
    stranger = EPOCH.model_copy(update={"signers": tuple(s.address for s in SIGNERS[1:])})
    stage = scene.stage()
    stage.ledger.epoch = lambda number: stranger  # type: ignore[method-assign]
    scene.convict(stage)
    scene.chain.ask(scene.file, ACCUSED.public)
    stage.judge.step()
    assert scene.step_of(stage) is None
    assert not stage.ledger.sent


def test_a_request_in_an_unknown_case_is_passed_over(scene: Scene) -> None:
    stage = scene.stage()
    scene.chain.ask(scene.file, ACCUSED.public)
    stage.judge.step()
    assert stage.store.service(scene.case) is None


def test_a_dry_run_serves_nobody(scene: Scene) -> None:
    stage = scene.stage(dry_run=True)
    scene.convict(stage)
    scene.chain.ask(scene.file, ACCUSED.public)
    stage.judge.step()
    assert not stage.files.kept
    assert not stage.ledger.sent
    assert "dry run" in scene.note_of(stage)


def test_a_request_found_too_late_sends_nothing(scene: Scene) -> None:
    """This operator was away for two days."""
    stage = scene.stage()
    scene.convict(stage)
    scene.chain.ask(scene.file, ACCUSED.public)
    scene.chain.time += 86_401
    stage.judge.step()
    assert not stage.ledger.sent
    assert scene.note_of(stage) == "the time to serve is over"
    assert scene.step_of(stage) == ServiceStep.DONE
    assert not scene.evidence_of(stage).exists()


def test_a_request_in_the_last_second_is_served(scene: Scene) -> None:
    stage = scene.stage(turn_delay=600)
    scene.convict(stage)
    scene.chain.ask(scene.file, ACCUSED.public, seconds=0)
    stage.judge.step()
    assert len(scene.served) == 1


def test_a_transaction_of_ours_that_is_late_is_given_up(scene: Scene) -> None:
    scene.chain.mine_at_once = False
    stage = scene.stage()
    scene.convict(stage)
    scene.chain.ask(scene.file, ACCUSED.public)
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.SENT
    scene.chain.time += 86_401
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.DONE
    assert not stage.store.in_flight()


def test_the_evidence_leaves_the_disk_when_the_case_ends_unasked(scene: Scene) -> None:
    stage = scene.stage()
    scene.convict(stage)
    scene.chain.end(scene.file, CaseState.FINAL_GUILTY)
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.DONE
    assert not scene.evidence_of(stage).exists()


def test_an_execution_that_tells_nobody_is_noticed(scene: Scene) -> None:
    stage = scene.stage()
    scene.convict(stage)
    scene.chain.time = POST_BY + 1
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.KEPT
    scene.chain.states[scene.file.hash()] = CaseState.EXECUTED
    stage.judge.step()
    assert scene.evidence_of(stage).exists()
    scene.chain.time += LOOK_AGAIN_SECONDS + 1
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.DONE
    assert not scene.evidence_of(stage).exists()


# -- several operators


def test_each_waits_for_its_turn_to_serve(scene: Scene) -> None:
    stages = [scene.stage(seat, turn_delay=100) for seat in range(3)]
    scene.convict(*stages)
    scene.chain.ask(scene.file, ACCUSED.public)
    for stage in stages * 2:
        stage.judge.step()
    first = next(s for s in stages if s.ledger.signer.address == turn_order(scene.file.hash(), EPOCH)[0])
    assert [bool(s.ledger.sent) for s in stages] == [s is first for s in stages]
    assert [scene.step_of(s) for s in stages] == [ServiceStep.DONE] * 3
    assert [bool(s.files.kept) for s in stages] == [s is first for s in stages]
    assert len(scene.served) == 1


def test_the_next_in_turn_serves_when_the_first_is_dead(scene: Scene) -> None:
    stages = [scene.stage(seat, turn_delay=100) for seat in range(3)]
    scene.convict(*stages)
    order = turn_order(scene.file.hash(), EPOCH)
    alive = [s for s in stages if s.ledger.signer.address != order[0]]
    scene.chain.ask(scene.file, ACCUSED.public)
    for stage in alive * 2:
        stage.judge.step()
    assert not scene.served
    assert "our turn to serve" in scene.note_of(alive[0])
    scene.chain.time += 100
    for stage in alive * 2:
        stage.judge.step()
    assert len(scene.served) == 1
    assert [scene.step_of(s) for s in alive] == [ServiceStep.DONE] * 2


def test_two_that_race_serve_once(scene: Scene) -> None:
    scene.chain.mine_at_once = False
    one, two = (scene.stage(seat, fees=FeesSection()) for seat in (0, 1))
    scene.convict(one, two)
    scene.chain.ask(scene.file, ACCUSED.public)
    for stage in (one, two):
        stage.judge.step()
    assert [scene.step_of(s) for s in (one, two)] == [ServiceStep.SENT] * 2
    scene.chain.mine()
    for stage in (one, two) * 2:
        stage.judge.step()
    assert len(scene.served) == 1
    assert [scene.step_of(s) for s in (one, two)] == [ServiceStep.DONE] * 2
    assert len(one.ledger.sent) == len(two.ledger.sent) == 1


def test_turns_fit_into_the_time_that_is_left() -> None:
    assert [turn_to_serve(i, 3, 1_000, 1_600, 86_400) for i in range(3)] == [1_000, 1_100, 1_200]
    assert [turn_to_serve(i, 3, 1_000, 900, 60) for i in range(3)] == [1_000] * 3
    assert [turn_to_serve(i, 3, 1_000, 87_400, 60) for i in range(3)] == [1_000, 1_060, 1_120]


# -- what goes wrong


def test_a_reorganisation_serves_again(scene: Scene) -> None:
    stage = scene.stage()
    scene.convict(stage)
    scene.chain.ask(scene.file, ACCUSED.public)
    finalized = scene.chain.finalized
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.MINED
    scene.chain.finalized = finalized
    scene.chain.events.pop()
    scene.chain.states[scene.file.hash()] = CaseState.SERVING
    digest = scene.chain.served.pop(scene.file.hash())
    stage.judge.step()
    assert scene.served == digest
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.DONE


def test_a_serving_that_fails_is_made_anew(scene: Scene) -> None:
    scene.chain.mine_at_once = False
    stage = scene.stage()
    scene.convict(stage)
    scene.chain.ask(scene.file, ACCUSED.public)
    stage.judge.step()
    scene.chain.fail_next = True
    scene.chain.mine()
    scene.chain.mine_at_once = True
    stage.judge.step()
    stage.judge.step()
    assert scene.step_of(stage) == ServiceStep.DONE
    assert {row.nonce for row in stage.store.outbox(idempotency_key(scene.file.hash()))} == {0, 1}


def test_the_fee_of_a_serving_is_raised_up_to_the_cap(scene: Scene) -> None:
    scene.chain.mine_at_once = False
    stage = scene.stage(fees=FeesSection(max_fee_gwei=2.5, bump_after_s=0.0000001))
    scene.convict(stage)
    scene.chain.ask(scene.file, ACCUSED.public)
    for _ in range(3):
        stage.judge.step()
    paid = [row.fee for row in stage.store.outbox(idempotency_key(scene.file.hash()))]
    assert paid == [2_000_000_000, 2_250_000_001, 2_500_000_000]
    stage.judge.step()
    assert "raise fees.max_fee_gwei" in scene.note_of(stage)
    scene.chain.mine()
    other = scene.stage()
    other.ledger.sent = stage.ledger.sent
    for _ in range(2):
        other.judge.step()
    assert scene.step_of(other) == ServiceStep.DONE
    assert len(scene.served) == 1


def test_evidence_that_is_not_served_now_is_asked_for_again(scene: Scene) -> None:
    fetcher = SealedFetcher(sealed=scene.sealed.file)
    stage = scene.stage(fetcher=fetcher)
    scene.convict(stage)
    shutil.rmtree(scene.evidence_of(stage))
    fetcher.evidence_error = NotYet("nobody serves it")
    scene.chain.ask(scene.file, ACCUSED.public)
    stage.judge.step()
    assert (scene.step_of(stage), scene.note_of(stage)) == (ServiceStep.ASKED, "nobody serves it")
    fetcher.evidence_error = None
    stage.judge.step()
    assert len(scene.served) == 1


def test_a_service_that_fails_stops_no_other_case(scene: Scene) -> None:
    fetcher = SealedFetcher(sealed=scene.sealed.file)
    stage = scene.stage(fetcher=fetcher)
    scene.convict(stage)
    shutil.rmtree(scene.evidence_of(stage))
    fetcher.evidence_error = BadEvidence("not what the case fixed")
    scene.chain.ask(scene.file, ACCUSED.public)
    other = make_file(
        license_id=scene.file.license_id + 1, evidence_hash=scene.file.evidence_hash, reporter=REPORTER
    )
    scene.chain.open_case(other)
    calls = len(fetcher.calls)
    stage.judge.step()
    assert scene.note_of(stage) == "not what the case fixed"
    assert len(fetcher.calls) > calls + 1
    before = fetcher.calls.count("evidence")
    fetcher.evidence_error = None
    stage.judge.step()
    assert fetcher.calls.count("evidence") == before  # put off: not asked for at every step
    assert not scene.served


def test_a_node_that_is_away_is_waited_for(scene: Scene) -> None:
    fetcher = SealedFetcher(sealed=scene.sealed.file)
    stage = scene.stage(fetcher=fetcher)
    scene.convict(stage)
    shutil.rmtree(scene.evidence_of(stage))
    scene.chain.ask(scene.file, ACCUSED.public)
    fetcher.evidence_error = RpcUnavailable("away")
    with pytest.raises(RpcUnavailable):
        stage.judge.step()
    fetcher.evidence_error = None
    stage.judge.step()
    assert len(scene.served) == 1


class Crash(BaseException):
    """The power goes."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("place", ["add_service", "advance_service", "put_serving", "sent", "add_file"])
def test_a_crash_at_any_step_of_a_serving_loses_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, place: str, moment: str
) -> None:
    files = scene.stage().files
    owner: type = type(files) if place == "add_file" else CaseStore
    whole, crashed = getattr(owner, place), 0

    def crash(self: object, *args: object, **kwargs: object) -> object:
        nonlocal crashed
        crashed += 1
        if moment == "after":
            whole(self, *args, **kwargs)
        raise Crash

    scene.convict()
    for nth in range(16):
        if nth == 4:
            scene.chain.ask(scene.file, ACCUSED.public)
        stage = scene.stage(files=files)
        if nth % 2 == 0:
            monkeypatch.setattr(owner, place, crash)
        with suppress(Crash):
            stage.judge.step()
        monkeypatch.setattr(owner, place, whole)
        stage.store.close()
    assert crashed >= 1
    last = scene.stage(files=files)
    assert scene.step_of(last) == ServiceStep.DONE
    assert len(scene.served) == 1
    assert len(last.store.outbox(idempotency_key(scene.file.hash()))) == 1
    assert opened_by(scene, last).canonical_root == scene.sealed.canonical_root
    assert not scene.evidence_of(last).exists()
    assert scene.chain.time == OPENED
