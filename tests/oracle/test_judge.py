"""The judge's way through a case: order of steps, crashes, peers, postings."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from flask import Flask
from judge_stage import (
    EPOCH,
    OPENED,
    POST_BY,
    RECORD,
    SIGNERS,
    GivenDetector,
    GivenFetcher,
    MemoryChain,
    Stage,
    make_detection,
    make_file,
    make_stage,
)

from zhiyi.errors import RpcUnavailable
from zhiyi.types import CaseState, Decision, Kind, Verdict
from zhiyi_oracle.errors import BadBase, BadEvidence, JudgeError, NotYet
from zhiyi_oracle.judge.attest import Attestation
from zhiyi_oracle.judge.config import FeesSection
from zhiyi_oracle.judge.http import create_app
from zhiyi_oracle.judge.service import DEADLINE_SLACK
from zhiyi_oracle.judge.store import CaseStep, CaseStore, OutboxRow
from zhiyi_oracle.judge.submit import idempotency_key

FILE = make_file()
CASE = "0x" + FILE.hash().hex()
KEY = idempotency_key(FILE.hash(), RECORD.detector_hash)


class Peers(httpx.BaseTransport):
    """Serves judges' pages under http://SEAT/ without sockets; a seat that was removed is dead.

    Pages are made here, not when asked: CPython 3.11 cannot build Flask's routes in two threads at once (gh-106905).
    """

    def __init__(self) -> None:
        self._pages: dict[str, Flask] = {}

    def put(self, name: str, stage: Stage) -> None:
        self._pages[name] = create_app(stage.store, stage.judge.metrics.registry, stage.judge.not_ready)

    def remove(self, name: str) -> None:
        del self._pages[name]

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        page = self._pages.get(request.url.host)
        if page is None:
            raise httpx.ConnectError("connection refused", request=request)
        answer = page.test_client().get(request.url.path)
        return httpx.Response(answer.status_code, content=answer.data)


def make_committee(tmp_path: Path, **changes: object) -> tuple[MemoryChain, list[Stage], Peers]:
    chain, peers = MemoryChain(), Peers()
    stages = []
    for seat in range(3):
        detector, fetcher = GivenDetector(), GivenFetcher()
        stage = make_stage(
            tmp_path / str(seat),
            chain,
            seat,
            transport=peers,
            detector=detector,
            fetcher=fetcher,
            **changes,  # type: ignore[arg-type]
        )
        peers.put(f"seat{seat}", stage)
        chain.urls[EPOCH.signers[seat]] = f"http://seat{seat}"
        stages.append(stage)
    return chain, stages, peers


def step_of(stage: Stage) -> str:
    row = stage.store.case(CASE)
    assert row is not None
    return row.step


def test_three_operators_agree_and_one_posts(tmp_path: Path) -> None:
    chain, stages, _ = make_committee(tmp_path)
    chain.open_case(FILE)
    chain.open_share(FILE, 5)
    for _ in range(3):
        for stage in stages:
            stage.judge.step()
    assert [step_of(s) for s in stages] == [CaseStep.FINAL] * 3
    assert sum(len(s.ledger.sent) for s in stages) == 1
    posted = chain.events[-1].posted  # type: ignore[union-attr]
    assert posted.verdict.decision is Decision.GUILTY
    assert (posted.verdict.share_index, posted.verdict.bucket, posted.verdict.samples) == (5, 40, 2048)
    assert (posted.verdict.subject, posted.verdict.deadline) == (b"\x08" * 32, POST_BY + DEADLINE_SLACK)
    digests = {s.store.case(CASE).digest for s in stages}  # type: ignore[union-attr]
    assert len(digests) == 1
    tags = [ours.tag for s in stages if (ours := s.store.ours(CASE))]
    assert len(set(tags)) == len(tags) == 2


@pytest.mark.parametrize("of", [b"\1" * 32, b"\x77" * 32], ids=["older", "newer"])
def test_base_tensors_of_any_version_that_the_license_can_be_of_are_taken(tmp_path: Path, of: bytes) -> None:
    """A copy may be older than the version in force when its order was opened; the verdict names its detector."""
    newer = RECORD.model_copy(update={"weights_root": b"\x77" * 32, "detector_hash": b"\x78" * 32})
    detector = newer.detector_hash if of == newer.weights_root else RECORD.detector_hash
    stage = make_stage(
        tmp_path / "a",
        MemoryChain(versions=(newer, RECORD)),
        fetcher=GivenFetcher(base_root=of),
        detector=GivenDetector(found=make_detection(detector=detector)),
    )
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    for _ in range(3):
        stage.judge.step()
    ours = stage.store.ours(CASE)
    assert ours is not None
    verdict = Verdict.model_validate_json(ours.verdict)
    assert (verdict.decision, verdict.detector_hash) == (Decision.GUILTY, detector)


def test_base_tensors_of_no_version_are_broken(tmp_path: Path) -> None:
    chain = MemoryChain(versions=(RECORD, RECORD.model_copy(update={"weights_root": b"\x77" * 32})))
    stage = make_stage(tmp_path / "a", chain, fetcher=GivenFetcher(base_root=b"\x99" * 32))
    chain.open_case(FILE)
    chain.open_share(FILE)
    for _ in range(3):
        stage.judge.step()
    assert stage.fetcher.calls.count("base") == 2
    ours = stage.store.ours(CASE)
    assert ours is not None
    assert Verdict.model_validate_json(ours.verdict).decision is not Decision.GUILTY


def test_the_result_is_on_disk_before_the_signature(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a", dry_run=True)
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    stage.judge.step()
    result = tmp_path / "a" / "cases" / CASE / "result.json"
    assert result.exists()
    assert result.stat().st_mode & 0o077 == 0
    assert stage.store.ours(CASE) is None


def test_dry_run_signs_and_sends_nothing(tmp_path: Path) -> None:
    chain, stages, _ = make_committee(tmp_path, dry_run=True)
    chain.open_case(FILE)
    chain.open_share(FILE)
    for _ in range(3):
        for stage in stages:
            stage.judge.step()
    assert [step_of(s) for s in stages] == [CaseStep.DETECTED] * 3
    assert not any(s.ledger.sent for s in stages)
    assert all(s.store.ours(CASE) is None for s in stages)


def test_a_dead_operator_does_not_stop_the_verdict(tmp_path: Path) -> None:
    chain, stages, peers = make_committee(tmp_path)
    peers.remove("seat1")
    chain.open_case(FILE)
    chain.open_share(FILE)
    for _ in range(3):
        for stage in (stages[0], stages[2]):
            stage.judge.step()
    assert step_of(stages[0]) == step_of(stages[2]) == CaseStep.FINAL
    assert chain.states[FILE.hash()] is CaseState.POSTED


def test_a_lying_operator_is_not_counted(tmp_path: Path) -> None:
    chain, stages, _ = make_committee(tmp_path)
    stages[1].detector.found = make_detection("not_detected")
    chain.open_case(FILE)
    chain.open_share(FILE)
    for _ in range(3):
        for stage in stages:
            stage.judge.step()
    posted = chain.events[-1].posted  # type: ignore[union-attr]
    assert posted.verdict.decision is Decision.GUILTY
    for honest in (stages[0], stages[2]):
        assert EPOCH.signers[1] not in {a.signer for a in honest.store.attestations(CASE)}
        lie = honest.store.lies(CASE)
        assert not lie or lie[0].signer == EPOCH.signers[1]
    assert any(s.store.lies(CASE) for s in (stages[0], stages[2]))


def test_two_liars_of_three_make_honest_operators_wait(tmp_path: Path) -> None:
    """The honest one never posts what it did not find; two colluding seats are the threshold's trust assumption."""
    chain, stages, _ = make_committee(tmp_path)
    for liar in (stages[1], stages[2]):
        liar.detector.found = make_detection("not_detected")
    chain.open_case(FILE)
    chain.open_share(FILE)
    stages[0].judge.step()
    for stage in stages[1:]:
        stage.fetcher.evidence_error = NotYet("slow")
        stage.judge.step()
    for _ in range(3):
        stages[0].judge.step()
    assert step_of(stages[0]) == CaseStep.SIGNED
    assert chain.states[FILE.hash()] is CaseState.OPEN


def test_equal_numbers_without_the_result_are_not_counted(tmp_path: Path) -> None:
    """An operator that copies its peer's verdict without measuring cannot make the tag."""
    chain, stages, _ = make_committee(tmp_path)
    chain.open_case(FILE)
    chain.open_share(FILE)
    copied = make_detection()
    stages[1].detector.found = make_detection("detected")
    object.__setattr__(
        stages[1].detector, "found", copied.__class__(**{**copied.__dict__, "T": copied.T - 1})
    )
    for stage in stages[:2]:
        stage.judge.step()
    stages[0].judge.step()
    assert {a.signer for a in stages[0].store.attestations(CASE)} == {EPOCH.signers[0]}
    assert "7: the result digest differs" in stages[0].store.lies(CASE)[0].reason


@pytest.mark.parametrize("field", ["signature", "tag", "signer", "verdict"])
def test_one_changed_field_of_a_peer_is_not_counted(tmp_path: Path, field: str) -> None:
    chain, stages, _ = make_committee(tmp_path)
    chain.open_case(FILE)
    chain.open_share(FILE)
    stages[1].judge.step()
    row = stages[1].store.ours(CASE)
    assert row is not None
    good = Attestation(
        signer=row.signer,
        verdict=Verdict.model_validate_json(row.verdict),
        signature=row.signature,
        tag=row.tag,
    )
    flipped = {
        "signature": {"signature": bytes([good.signature[0] ^ 1]) + good.signature[1:]},
        "tag": {"tag": bytes([good.tag[0] ^ 1]) + good.tag[1:]},
        "signer": {"signer": EPOCH.signers[2]},
        "verdict": {"verdict": good.verdict.model_copy(update={"samples": 1})},
    }[field]
    bad = good.model_copy(update=flipped)
    answer = httpx.Response(200, content=bad.model_dump_json().encode())
    stages[0].judge.http = httpx.Client(transport=httpx.MockTransport(lambda request: answer))
    stages[0].judge.step()
    assert {a.signer for a in stages[0].store.attestations(CASE)} == {EPOCH.signers[0]}
    assert stages[0].store.lies(CASE)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=b"x" * 70_000),
        httpx.Response(200, content=b"{}"),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(302, headers={"location": "http://127.0.0.1:1/"}),
        httpx.Response(500),
    ],
)
def test_a_peer_that_answers_nonsense_is_harmless(tmp_path: Path, answer: httpx.Response) -> None:
    chain = MemoryChain(urls={EPOCH.signers[1]: "http://peer"})
    stage = make_stage(tmp_path / "a", chain, transport=httpx.MockTransport(lambda request: answer))
    chain.open_case(FILE)
    chain.open_share(FILE)
    stage.judge.step()
    stage.judge.step()
    assert step_of(stage) == CaseStep.SIGNED


def test_only_web_addresses_of_peers_are_asked(tmp_path: Path) -> None:
    chain = MemoryChain(urls={EPOCH.signers[1]: "file:///etc/passwd"})
    stage = make_stage(tmp_path / "a", chain)
    chain.open_case(FILE)
    chain.open_share(FILE)
    stage.judge.step()
    assert "not http" in stage.store.lies(CASE)[0].reason


# -- waiting and giving up


def test_the_share_is_awaited(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a")
    stage.chain.open_case(FILE)
    stage.judge.step()
    assert step_of(stage) == CaseStep.SEEN
    assert "share" in (stage.store.case(CASE).note or "")  # type: ignore[union-attr]
    stage.chain.time = POST_BY + 1
    stage.judge.step()
    assert step_of(stage) == CaseStep.ENDED
    assert stage.store.ours(CASE) is None


def test_missing_evidence_counts_as_unavailable_after_its_time(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a", fetcher=GivenFetcher(evidence_error=NotYet("not found")))
    stage.chain.open_case(FILE)
    stage.chain.time = OPENED + (POST_BY - OPENED) * 3 // 4 - 1
    stage.judge.step()
    assert step_of(stage) == CaseStep.SEEN
    stage.chain.time += 1
    stage.judge.step()
    assert step_of(stage) == CaseStep.SIGNED
    ours = stage.store.ours(CASE)
    assert ours is not None
    assert Verdict.model_validate_json(ours.verdict).decision is Decision.UNAVAILABLE


def test_broken_evidence_is_unavailable_at_once_and_no_share_is_needed(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a", fetcher=GivenFetcher(evidence_error=BadEvidence("hash")))
    stage.chain.open_case(FILE)
    stage.judge.step()
    ours = stage.store.ours(CASE)
    assert ours is not None
    verdict = Verdict.model_validate_json(ours.verdict)
    assert (verdict.decision, verdict.share_index, verdict.subject) == (Decision.UNAVAILABLE, 255, bytes(32))


def test_evidence_that_is_no_model_is_unavailable(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a", detector=GivenDetector(error=BadEvidence("no such tensor")))
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    stage.judge.step()
    ours = stage.store.ours(CASE)
    assert ours is not None
    assert Verdict.model_validate_json(ours.verdict).decision is Decision.UNAVAILABLE


def test_broken_base_tensors_are_inconclusive(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a", fetcher=GivenFetcher(base_error=BadBase("leaf")))
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    stage.judge.step()
    ours = stage.store.ours(CASE)
    assert ours is not None
    assert Verdict.model_validate_json(ours.verdict).decision is Decision.INCONCLUSIVE
    assert not stage.detector.jobs


def test_a_detector_that_is_not_the_registered_one_signs_nothing(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a", detector=GivenDetector(found=make_detection(detector=rb"\9" * 32)))
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    for _ in range(2):
        stage.judge.step()
    assert step_of(stage) == CaseStep.FETCHED
    assert stage.store.ours(CASE) is None


@pytest.mark.parametrize("changes", [{"kind": Kind.TERMS}, {"kind": Kind.UNLICENSED, "license_id": 0}])
def test_cases_of_other_kinds_are_left_alone(tmp_path: Path, changes: dict[str, object]) -> None:
    stage = make_stage(tmp_path / "a")
    file = make_file(**changes)
    stage.chain.open_case(file)
    stage.judge.step()
    row = stage.store.case("0x" + file.hash().hex())
    assert row is not None
    assert row.step == CaseStep.ENDED
    assert not stage.fetcher.calls


def test_a_case_that_lapses_ends(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a")
    stage.chain.open_case(FILE)
    stage.judge.step()
    stage.chain.end(FILE, CaseState.LAPSED)
    stage.judge.step()
    assert step_of(stage) == CaseStep.ENDED


def test_a_node_that_is_away_loses_nothing(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a", fetcher=GivenFetcher(evidence_error=RpcUnavailable("down")))
    stage.chain.open_case(FILE)
    with pytest.raises(RpcUnavailable):
        stage.judge.step()
    stage.fetcher.evidence_error = None
    stage.chain.open_share(FILE)
    stage.judge.step()
    assert step_of(stage) == CaseStep.SIGNED


def test_a_full_disk_stops_one_case_and_no_other(tmp_path: Path) -> None:
    stage = make_stage(
        tmp_path / "a", fetcher=GivenFetcher(evidence_error=OSError(28, "No space left on device"))
    )
    other = make_file(license_id=(1 << 28) | 78)
    stage.chain.open_case(FILE)
    stage.judge.step()
    assert "No space" in (stage.store.case(CASE).note or "")  # type: ignore[union-attr]
    stage.fetcher.evidence_error = None
    stage.chain.open_case(other)
    stage.chain.open_share(other)
    stage.judge.step()
    row = stage.store.case("0x" + other.hash().hex())
    assert row is not None
    assert row.step == CaseStep.SIGNED


# -- crashes: the process dies at a place, a new one starts on the same folder


class Crash(BaseException):
    """The power goes."""


CRASH_PLACES = ["add_case", "set_cursor", "record", "advance", "sign", "put_outbox", "sent", "add_peer"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("place", CRASH_PLACES)
def test_a_crash_at_any_write_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, moment: str
) -> None:
    chain, stages, peers = make_committee(tmp_path)
    chain.open_case(FILE)
    chain.open_share(FILE)
    stages[1].judge.step()
    whole = getattr(CaseStore, place)
    crashed = 0

    def crash(self: CaseStore, *args: object, **kwargs: object) -> object:
        nonlocal crashed
        crashed += 1
        if moment == "after":
            whole(self, *args, **kwargs)
        raise Crash

    count = 0
    for nth in range(12):
        stage = make_stage(tmp_path / "0", chain, 0, transport=peers)
        peers.put("seat0", stage)
        if nth % 2 == 0:
            monkeypatch.setattr(CaseStore, place, crash)
            try:
                stage.judge.step()
            except Crash:
                count += 1
            monkeypatch.setattr(CaseStore, place, whole)
        else:
            stage.judge.step()
        stage.store.close()
    assert crashed >= 1
    final = CaseStore(tmp_path / "0")
    row = final.case(CASE)
    assert row is not None
    assert row.step == CaseStep.FINAL
    assert len(final.outbox(KEY)) == 1
    verdicts = [e for e in chain.events if hasattr(e, "posted")]
    assert len(verdicts) == 1
    ours = final.ours(CASE)
    assert ours is not None
    assert Verdict.model_validate_json(ours.verdict).decision is Decision.GUILTY


def test_a_case_is_never_signed_twice(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a")
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    stage.judge.step()
    with pytest.raises(JudgeError, match="only a detected one is signed"):
        stage.store.sign(CASE, SIGNERS[0].address, "{}", b"s" * 65, b"t" * 32, 0)
    stage.store.advance(CASE, CaseStep.SIGNED, CaseStep.DETECTED)
    with pytest.raises(JudgeError, match="never signed again"):
        stage.store.sign(CASE, SIGNERS[0].address, "{}", b"s" * 65, b"t" * 32, 0)


# -- posting


def ready_to_post(tmp_path: Path, **changes: object) -> tuple[MemoryChain, Stage, Stage]:
    chain, stages, _ = make_committee(tmp_path, **changes)
    chain.mine_at_once = False
    chain.open_case(FILE)
    chain.open_share(FILE)
    stages[1].judge.step()
    stages[0].judge.step()
    return chain, stages[0], stages[1]


def test_each_waits_for_its_turn(tmp_path: Path) -> None:
    chain, stages, _ = make_committee(tmp_path, turn_delay=100)
    chain.open_case(FILE)
    chain.open_share(FILE)
    for _ in range(2):
        for stage in stages:
            stage.judge.step()
    assert sum(bool(s.ledger.sent) for s in stages) == 1
    assert all(step_of(s) in (CaseStep.FINAL, CaseStep.MINED) for s in stages if s.ledger.sent)


def test_the_next_in_turn_posts_when_the_first_is_dead(tmp_path: Path) -> None:
    chain, stages, _ = make_committee(tmp_path, turn_delay=100)
    first = int.from_bytes(FILE.hash(), "big") % 3
    others = [s for i, s in enumerate(stages) if i != first]
    chain.open_case(FILE)
    chain.open_share(FILE)
    for stage in others * 2:
        stage.judge.step()
    assert chain.states[FILE.hash()] is CaseState.OPEN
    chain.time += 100
    for stage in others:
        stage.judge.step()
    assert chain.states[FILE.hash()] is CaseState.POSTED


def test_the_fee_is_raised_up_to_the_cap(tmp_path: Path) -> None:
    fees = FeesSection(max_fee_gwei=2.5, bump_after_s=0.0000001)
    chain, stage, _ = ready_to_post(tmp_path, fees=fees)
    assert step_of(stage) == CaseStep.SUBMITTED
    for _ in range(5):
        stage.judge.step()
    paid = [row.fee for row in stage.store.outbox(KEY)]
    assert paid == sorted(set(paid))
    assert paid[0] == 2_000_000_000
    assert paid[-1] == 2_500_000_000
    assert {row.nonce for row in stage.store.outbox(KEY)} == {0}
    assert "raise fees.max_fee_gwei" in (stage.store.case(CASE).note or "")  # type: ignore[union-attr]
    chain.mine()
    stage.judge.step()
    assert step_of(stage) in (CaseStep.MINED, CaseStep.FINAL)
    assert len([e for e in chain.events if hasattr(e, "posted")]) == 1


def test_a_verdict_posted_by_somebody_else_ends_ours(tmp_path: Path) -> None:
    chain, stage, other = ready_to_post(tmp_path)
    chain.mempool.clear()
    ours = other.store.ours(CASE)
    assert ours is not None
    chain.post(FILE.hash(), Verdict.model_validate_json(ours.verdict))
    stage.judge.step()
    assert step_of(stage) == CaseStep.FINAL


def test_a_posting_that_fails_while_the_case_is_open_is_made_anew(tmp_path: Path) -> None:
    chain, stage, _ = ready_to_post(tmp_path)
    chain.fail_next = True
    chain.mine()
    chain.mine_at_once = True
    for _ in range(3):
        stage.judge.step()
    assert step_of(stage) == CaseStep.FINAL
    assert {row.nonce for row in stage.store.outbox(KEY)} == {0, 1}


def test_a_reorganisation_posts_again(tmp_path: Path) -> None:
    chain, stages, _ = make_committee(tmp_path)
    chain.open_case(FILE)
    chain.open_share(FILE)
    finalized = chain.finalized
    stages[1].judge.step()
    stages[0].judge.step()
    chain.finalized = finalized  # the posting is in a block, not in a finalized one
    assert step_of(stages[0]) == CaseStep.MINED
    chain.events.pop()
    chain.states[FILE.hash()] = CaseState.OPEN
    stages[0].judge.step()
    assert chain.states[FILE.hash()] is CaseState.POSTED
    stages[0].judge.step()
    assert step_of(stages[0]) == CaseStep.FINAL


def test_the_outbox_keeps_one_row_a_nonce_and_fee(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a")
    stage.chain.open_case(FILE)
    stage.judge.step()

    def row(tx_hash: str) -> OutboxRow:
        return OutboxRow(
            idempotency_key="k", case_id=CASE, nonce=1, fee=2, tip=1, tx_hash=tx_hash, raw=b"", sent_at=None
        )

    assert stage.store.put_outbox(row("0x1"), case_id=CASE)
    assert not stage.store.put_outbox(row("0x2"), case_id=CASE)
    assert len(stage.store.outbox("k")) == 1


# -- page


def test_the_page_shows_an_attestation_and_no_statistic(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a")
    page = create_app(stage.store, stage.judge.metrics.registry, stage.judge.not_ready).test_client()
    assert page.get("/readyz").status_code == 503
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    assert page.get(f"/attestations/{CASE}").status_code == 404
    stage.judge.step()
    assert page.get("/healthz").status_code == 200
    assert page.get("/readyz").status_code == 200
    answer = page.get(f"/attestations/{CASE}")
    given = Attestation.from_wire(answer.data)
    assert given.signer == SIGNERS[0].address
    assert set(given.model_dump()) == {"signer", "verdict", "signature", "tag"}
    assert b"zhiyi_oracle_cases" in page.get("/metrics").data


@pytest.mark.parametrize(
    "path", ["/attestations/0x12", "/attestations/" + "f" * 66, "/attestations/0x" + "F" * 64]
)
def test_the_page_refuses_what_is_no_case_id(tmp_path: Path, path: str) -> None:
    stage = make_stage(tmp_path / "a")
    page = create_app(stage.store, stage.judge.metrics.registry, stage.judge.not_ready).test_client()
    assert page.get(path).status_code == 400
