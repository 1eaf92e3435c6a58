"""What strangers can send an operator: none of it ends the process, holds up other cases, or gets a false signature."""

from __future__ import annotations

import errno
import gzip
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from judge_stage import (
    EPOCH,
    OPENED,
    RECORD,
    GivenDetector,
    GivenFetcher,
    MemoryChain,
    Stage,
    make_file,
    make_stage,
)
from tiny_model import make_registered

from zhiyi import case_evidence, metadata
from zhiyi.cid import cid_v0_from_digest
from zhiyi.delivery import ecies
from zhiyi.errors import BadInput, NotFound
from zhiyi.keys import KeyKind, new_key
from zhiyi.types import CaseFile, OpenedShare, Preferences
from zhiyi_oracle.base_tensors import write_base
from zhiyi_oracle.errors import BadBase, BadEvidence, JudgeError, LyingPeer, NotSealedToUs, NotYet, Unable
from zhiyi_oracle.judge import fetch, service
from zhiyi_oracle.judge.attest import MAX_ATTESTATION_BYTES, Peers, ask_peer
from zhiyi_oracle.judge.detect import ConfirmJob, InProcess
from zhiyi_oracle.judge.fetch import IpfsFetcher
from zhiyi_oracle.judge.ledger import RegisteredKey, RegisteredModel
from zhiyi_oracle.judge.store import CaseRow, CaseStep
from zhiyi_watermark import weights
from zhiyi_watermark.errors import WatermarkError
from zhiyi_watermark.weights import TensorShape, WfpSpec

FILE = make_file()
OTHER = make_file(license_id=(1 << 28) | 78)
OURS = new_key(KeyKind.ENCRYPTION)


class MemoryFiles:
    """IPFS as a dictionary; counts what is fetched."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.error: OSError | None = None

    def add(self, data: bytes) -> str:
        cid = cid_v0_from_digest(sha256(data).digest())
        self.held[cid] = data
        return cid

    def cat(self, cid: str, max_bytes: int) -> bytes:
        self.fetched.append(cid)
        if cid not in self.held:
            raise NotFound(cid)
        if len(self.held[cid]) > max_bytes:
            raise BadInput("too large")
        return self.held[cid]

    def download(self, cid: str, path: Path, max_bytes: int) -> int:
        if self.error:
            raise self.error
        return path.write_bytes(self.cat(cid, max_bytes))


def make_fetcher(tmp_path: Path) -> tuple[IpfsFetcher, MemoryFiles]:
    files = MemoryFiles()
    fetcher = IpfsFetcher(
        files,  # type: ignore[arg-type]
        OURS.secret,
        max_evidence_bytes=1 << 24,
        cache=tmp_path / "leaves",
    )
    return fetcher, files


def hostile_envelope(tmp_path: Path, names: list[str], keys: list[bytes]) -> bytes:
    """A sealed folder as a careful client would never write it."""
    target = tmp_path / "hostile"
    with ecies._sealing(ecies._FOLDER, keys, target) as sink:
        for name in names:
            raw = name.encode()
            sink.write(struct.pack(">H", len(raw)) + raw + struct.pack(">Q", 1) + b"x")
    return target.read_bytes()


def evidence_of(files: MemoryFiles, sealed: bytes) -> CaseFile:
    files.add(sealed)
    return make_file(evidence_digest=sha256(sealed).digest())


# -- evidence


@pytest.mark.parametrize("name", ["object/" + "a" * 300, "object/" + "ä" * 200 + "/b", "a" * 256])
def test_a_name_no_file_system_takes_is_broken_evidence(tmp_path: Path, name: str) -> None:
    fetcher, files = make_fetcher(tmp_path)
    file = evidence_of(files, hostile_envelope(tmp_path, [name], [OURS.public]))
    with pytest.raises(BadEvidence, match="255"):
        fetcher.evidence(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENAMETOOLONG, BadEvidence),
        (errno.ENOTDIR, BadEvidence),
        (errno.ENOSPC, Unable),
        (errno.EMFILE, Unable),
        (errno.EIO, Unable),
    ],
)
def test_errors_of_the_system_are_the_senders_or_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, "said the system")

    fetcher, files = make_fetcher(tmp_path)
    file = evidence_of(files, hostile_envelope(tmp_path, ["a"], [OURS.public]))
    monkeypatch.setattr(fetch, "open_sealed", fail)
    with pytest.raises(expected):
        fetcher.evidence(file, tmp_path / "out")
    monkeypatch.setattr(weights, "confirm", fail)
    job = ConfirmJob(tmp_path, tmp_path, SPEC, 0, bytes(32), bytes(32), bytes(32))
    with pytest.raises(expected):
        InProcess().confirm(job)
    files.error = OSError(code, "said the system")
    share = OpenedShare(case_id=bytes(32), license_id=1, index=0, seed=bytes(32), base_cid="Qm")
    monkeypatch.setattr(IpfsFetcher, "_leaves", lambda *_: tmp_path)
    with pytest.raises(BadBase if expected is BadEvidence else Unable):
        fetcher.base(RegisteredModel(1, RECORD, "Qm"), share, tmp_path / "base")


SPEC = WfpSpec((TensorShape("w", (1 << 12, 1 << 12)),)).to_json()


def test_a_full_disk_never_becomes_an_unavailable_verdict(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a", fetcher=GivenFetcher(evidence_error=Unable("disk full")))
    stage.chain.open_case(FILE)
    stage.chain.time = FILE.post_by
    stage.judge.step()
    assert row_of(stage).step == CaseStep.SEEN
    assert row_of(stage).evidence is None


# -- one case's trouble


def row_of(stage: Stage, file: CaseFile = FILE) -> CaseRow:
    row = stage.store.case("0x" + file.hash().hex())
    assert row is not None
    return row


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EMFILE, "Too many open files"), WatermarkError("odd"), JudgeError("odd"), Unable("odd")],
)
def test_a_detection_that_fails_is_noted_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    now = [1000.0]
    monkeypatch.setattr("zhiyi_oracle.judge.service.time.monotonic", lambda: now[0])
    stage = make_stage(tmp_path / "a", detector=GivenDetector(error=error))
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    for _ in range(3):
        stage.judge.step()
    assert len(stage.detector.jobs) == 1
    assert (row_of(stage).step, row_of(stage).note) == (CaseStep.FETCHED, str(error))
    stage.detector.error = None
    stage.chain.open_case(OTHER)
    stage.chain.open_share(OTHER)
    stage.judge.step()
    assert row_of(stage, OTHER).step == CaseStep.SIGNED
    assert row_of(stage).step == CaseStep.FETCHED
    stage.detector.error = error
    for pause in (5, 10, 20):
        now[0] += pause
        before = len(stage.detector.jobs)
        stage.judge.step()
        stage.judge.step()
        assert len(stage.detector.jobs) == before + 1
    stage.detector.error = None
    now[0] += 40
    stage.judge.step()
    assert row_of(stage).step == CaseStep.SIGNED


def test_a_case_put_off_still_ends_in_time(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "a", detector=GivenDetector(error=JudgeError("odd")))
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    stage.judge.step()
    stage.chain.time = FILE.post_by + 1
    stage.judge.step()
    assert row_of(stage).step == CaseStep.ENDED


# -- keys


@pytest.mark.parametrize(
    ("key", "since", "blamed"),
    [
        (b"\x0b" * 32, OPENED - service.KEY_CHANGE_SECONDS, True),
        (b"\x0b" * 32, OPENED - service.KEY_CHANGE_SECONDS + 1, False),
        (b"\x0c" * 32, 0, False),
    ],
    ids=["ours for long", "ours since yesterday", "not ours"],
)
@pytest.mark.parametrize("what", ["evidence", "base"])
def test_only_a_sender_who_had_our_key_is_blamed_for_not_using_it(
    tmp_path: Path, what: str, key: bytes, since: int, blamed: bool
) -> None:
    error = NotSealedToUs("does not open", b"\x0b" * 32)
    stage = make_stage(tmp_path / "a", fetcher=GivenFetcher(**{f"{what}_error": error}))  # type: ignore[arg-type]
    stage.chain.key = RegisteredKey(key, since)
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    stage.judge.step()
    row = row_of(stage)
    assert row.step == (CaseStep.SIGNED if blamed else CaseStep.SEEN)
    assert getattr(row, what) == ("broken" if blamed else None)
    stage.chain.time = FILE.post_by
    stage.judge.step()
    assert row_of(stage).step == row.step


def test_evidence_and_base_sealed_to_another_key_are_told_apart_from_junk(tmp_path: Path) -> None:
    fetcher, files = make_fetcher(tmp_path)
    (tmp_path / "suspect").mkdir()
    (tmp_path / "suspect" / "a.safetensors").write_bytes(b"x")
    sealed = case_evidence.seal(
        tmp_path / "suspect",
        case_evidence.ObjectKind.WEIGHTS,
        reporter=FILE.reporter,
        keys=[new_key(KeyKind.ENCRYPTION).public],
        out=tmp_path / "sealed",
    )
    with pytest.raises(NotSealedToUs) as found:
        fetcher.evidence(evidence_of(files, sealed.file.read_bytes()), tmp_path / "out")
    assert found.value.key == OURS.public
    with pytest.raises(BadEvidence):
        fetcher.evidence(evidence_of(files, b"junk"), tmp_path / "out")


# -- registered leaves


def test_leaves_are_fetched_once_a_model_and_only_the_registered_ones_are_kept(tmp_path: Path) -> None:
    registered = make_registered(tmp_path / "model")
    fetcher, files = make_fetcher(tmp_path)
    registered.tree.save(tmp_path / "leaves.bin")
    rows = (tmp_path / "leaves.bin").read_bytes()

    def described(leaves: bytes) -> RegisteredModel:
        fields: dict[str, Any] = {"weights_root": registered.tree.root, "leaves_cid": files.add(leaves)}
        text = metadata.build(name="m", description="", preferences=Preferences(), model=fields)
        return RegisteredModel(1, registered.record, files.add(metadata.encode(text)))

    write_base(
        registered.folder,
        registered.bundle,
        registered.declared,
        registered.spec,
        bytes(32),
        tmp_path / "base.package",
    )
    ecies.seal_file(tmp_path / "base.package", [OURS.public], tmp_path / "base.sealed")
    late = (tmp_path / "base.sealed").read_bytes()
    share = OpenedShare(
        case_id=bytes(32),
        license_id=1,
        index=0,
        seed=bytes(32),
        base_cid=cid_v0_from_digest(sha256(late).digest()),
    )
    for wrong in (rows[:-32], bytes(len(rows)), rows + rows):
        with pytest.raises(NotYet):
            fetcher.base(described(wrong), share, tmp_path / "none")
        assert not list((tmp_path / "leaves").glob("*"))
    good = described(rows)
    for _ in range(3):  # the package is not there yet
        with pytest.raises(NotYet):
            fetcher.base(good, share, tmp_path / "none")
    files.add(late)
    assert fetcher.base(good, share, tmp_path / "one").spec == registered.spec
    again = IpfsFetcher(files, OURS.secret, max_evidence_bytes=1, cache=tmp_path / "leaves")  # type: ignore[arg-type]
    again.base(good, share, tmp_path / "two")
    assert files.fetched.count(cid_v0_from_digest(sha256(rows).digest())) == 1
    (kept,) = (tmp_path / "leaves").glob("*")
    kept.write_bytes(bytes(len(rows)))
    afresh = IpfsFetcher(files, OURS.secret, max_evidence_bytes=1, cache=tmp_path / "leaves")  # type: ignore[arg-type]
    afresh.base(good, share, tmp_path / "three")


# -- peers


@pytest.mark.parametrize(
    "url",
    [
        "http://x..y",
        "http://.",
        "http://" + "a" * 300,
        "http://" + "a." * 150,
        "http://xn--aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "http://xn--\u00e4",
        "http://127.0.0.1:18446744073709551616",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:-1",
        "http://\ud800/",
        "http://127.0.0.1:1/\ud800",
        "http://[::1",
        "http://",
        "http://\x00",
        "http://127.0.0.1\r\nX: y",
    ],
)
def test_an_address_that_cannot_be_asked_is_an_absent_peer(tmp_path: Path, url: str) -> None:
    with httpx.Client(trust_env=False) as client, pytest.raises(NotYet):
        ask_peer(client, url, bytes(32))
    stage = make_stage(tmp_path / "a", MemoryChain(urls={EPOCH.signers[1]: url}))
    stage.judge.http = httpx.Client(trust_env=False)
    stage.chain.open_case(FILE)
    stage.chain.open_share(FILE)
    stage.judge.step()
    assert row_of(stage).step == CaseStep.SIGNED
    assert stage.judge.not_ready() is None


def test_a_compressed_answer_is_refused_unpacked() -> None:
    asked: list[str] = []

    def pieces() -> Iterator[bytes]:
        yield gzip.compress(bytes(1 << 20))

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        return httpx.Response(200, headers={"content-encoding": "gzip"}, content=pieces())

    transport = httpx.MockTransport(answer)
    with httpx.Client(transport=transport) as client, pytest.raises(LyingPeer, match="compressed"):
        ask_peer(client, "http://peer", bytes(32))
    assert asked == ["identity"]
    assert len(gzip.compress(bytes(1 << 20))) < MAX_ATTESTATION_BYTES


@contextmanager
def dripping() -> Iterator[tuple[str, list[int]]]:
    """A server whose headers never end; counts its callers."""
    callers: list[int] = []
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def drip(caller: socket.socket) -> None:
        with caller:
            try:
                caller.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not stop.wait(0.02):
                    caller.sendall(b"a")
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            callers.append(1)
            threading.Thread(target=drip, args=(caller,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", callers
    finally:
        stop.set()
        server.close()


class Answering(httpx.BaseTransport):
    """Real sockets but for the host `good`."""

    def __init__(self) -> None:
        self._real = httpx.HTTPTransport(trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "good":
            return httpx.Response(200, content=json.dumps({"from": "good"}).encode())
        return self._real.handle_request(request)


def test_a_peer_whose_headers_never_end_holds_up_nobody() -> None:
    peers = Peers(seconds=0.3)
    with dripping() as (url, callers), httpx.Client(transport=Answering()) as client:
        urls = {"slow": url, "good": "http://good"}
        for _ in range(2):
            assert [signer for signer, _ in peers.ask(client, urls, bytes(32))] == ["good"]
        assert len(callers) == 1
