"""One judge over a ledger in memory: what the chain would say is set by hand, signatures are real."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from zhiyi import eip712
from zhiyi.errors import NotFound
from zhiyi.ipfs import cid_of_bytes
from zhiyi.signers import LocalSigner, sign
from zhiyi.types import (
    CaseFile,
    CaseState,
    Epoch,
    Kind,
    ModelRecord,
    OpenedShare,
    PostedVerdict,
    Verdict,
    keccak,
)
from zhiyi_oracle.base_tensors import BaseTensors
from zhiyi_oracle.errors import BadBase
from zhiyi_oracle.judge.config import FeesSection
from zhiyi_oracle.judge.detect import ConfirmJob
from zhiyi_oracle.judge.fetch import Evidence
from zhiyi_oracle.judge.ledger import (
    CaseEnded,
    CaseSeen,
    CaseStatus,
    Fee,
    Head,
    Mined,
    Observation,
    RegisteredKey,
    RegisteredModel,
    ServiceAsked,
    ServiceDone,
    ShareSeen,
    SignedTx,
    VerdictSeen,
)
from zhiyi_oracle.judge.serve import Server
from zhiyi_oracle.judge.service import Judge, Metrics, Parts
from zhiyi_oracle.judge.store import CaseStore
from zhiyi_oracle.judge.submit import Carrier, Submitter
from zhiyi_watermark.result import Detection
from zhiyi_watermark.weights import TensorShape, WfpSpec

COURT = "0x" + "c0" * 20
CHAIN = 31337
SIGNERS = sorted((LocalSigner(keccak(bytes([i]))) for i in range(3)), key=lambda s: int(s.address, 16))
EPOCH = Epoch(number=1, signers=tuple(s.address for s in SIGNERS), threshold=2)
RECORD = ModelRecord(
    weights_root=b"\1" * 32,
    total_bytes=1000,
    chunks=1,
    chunk_size=1024,
    detector_hash=b"\2" * 32,
    trace_key_commit=b"\3" * 32,
    range_hash=b"\4" * 32,
)
OPENED, POST_BY = 1_000, 9_000


def make_file(**changes: object) -> CaseFile:
    fields: dict[str, object] = {
        "kind": Kind.LEAK,
        "model_id": 1,
        "license_id": (1 << 28) | 77,
        "reporter": "0x" + "aa" * 20,
        "accused": "0x" + "bb" * 20,
        "bond": 10**17,
        "evidence_hash": b"\5" * 32,
        "evidence_digest": b"\6" * 32,
        "epoch": 1,
        "authority": "0x" + "dd" * 20,
        "opened_at": OPENED,
        "post_by": POST_BY,
    }
    return CaseFile(**{**fields, **changes})  # type: ignore[arg-type]


def make_detection(
    decision: str = "detected", n: int = 2048, bucket: int = 40, detector: bytes = b"\2" * 32
) -> Detection:
    return Detection(
        method="wfp-confirm-3",
        decision=decision,  # type: ignore[arg-type]
        license=None,
        payload=None,
        n=n,
        T=n,
        sum_q2=n,
        log2_p=-2000.0 if decision == "detected" else 0.0,
        log2_p_global=-1960.0 if decision == "detected" else 0.0,
        law="exact",
        bucket=bucket if decision == "detected" else 0,
        hypotheses=1,
        null="",
        spec_hash=detector.hex(),
    )


@dataclass
class MemoryChain:
    """Blocks, events and case states, shared by all judges of a test."""

    events: list[Observation] = field(default_factory=list)
    states: dict[bytes, CaseState] = field(default_factory=dict)
    shares: dict[bytes, int] = field(default_factory=dict)
    finalized: int = 0
    time: int = OPENED
    urls: dict[str, str] = field(default_factory=dict)
    mempool: dict[str, tuple[int, Callable[[], bool]]] = field(default_factory=dict)  # nonce, what it does
    receipts: dict[str, Mined] = field(default_factory=dict)
    mine_at_once: bool = True
    fail_next: bool = False
    built: dict[bytes, tuple[str, int, Callable[[], bool]]] = field(default_factory=dict)
    served: dict[bytes, list[bytes]] = field(default_factory=dict)  # digests by case
    key: RegisteredKey = field(default_factory=lambda: RegisteredKey(b"\x0a" * 32, 0))
    nonces: dict[str, set[int]] = field(default_factory=dict)  # seen in the pool, by account
    versions: Sequence[ModelRecord] = (RECORD,)  # that a license can be of, the likeliest first

    def open_case(self, file: CaseFile) -> bytes:
        case_id = file.hash()
        self.finalized += 1
        self.events.append(CaseSeen(self.finalized, case_id, file))
        self.states[case_id] = CaseState.OPEN
        self.shares[case_id] = 255
        return case_id

    def open_share(self, file: CaseFile, index: int = 0) -> None:
        self.finalized += 1
        share = OpenedShare(
            case_id=file.hash(), license_id=file.license_id, index=index, seed=b"\7" * 32, base_cid="Qm"
        )
        self.events.append(ShareSeen(self.finalized, share))
        self.shares[file.hash()] = index

    def end(self, file: CaseFile, state: CaseState) -> None:
        self.finalized += 1
        self.states[file.hash()] = state
        self.events.append(CaseEnded(self.finalized, file.hash(), state))

    def post(self, case_id: bytes, verdict: Verdict, bitmap: int = 3) -> None:
        self.finalized += 1
        posted = PostedVerdict(verdict=verdict, bitmap=bitmap, challenge_until=POST_BY)
        self.events.append(VerdictSeen(self.finalized, case_id, posted))
        self.states[case_id] = CaseState.POSTED

    def ask(self, file: CaseFile, key: bytes, seconds: int = 86_400) -> None:
        """The accused asks to be served."""
        self.finalized += 1
        self.states[file.hash()] = CaseState.SERVING
        self.events.append(ServiceAsked(self.finalized, file.hash(), key, self.time + seconds))

    def serve(self, file: CaseFile, digest: bytes) -> None:
        self.finalized += 1
        self.states[file.hash()] = CaseState.POSTED
        self.served.setdefault(file.hash(), []).append(digest)
        self.events.append(ServiceDone(self.finalized, file.hash()))

    def mine(self) -> None:
        """Everything that was sent, in order; what meets another state than it needs fails."""
        for tx_hash, (_, act) in list(self.mempool.items()):
            good = not self.fail_next and act()
            self.fail_next = False
            self.receipts[tx_hash] = Mined(self.finalized, good)
        self.mempool.clear()


class MemoryLedger:
    """Implements Ledger and Poster for one signer."""

    def __init__(self, chain: MemoryChain, signer: LocalSigner) -> None:
        self.chain, self.signer = chain, signer
        self.sent: list[bytes] = []

    def finalized(self) -> int:
        return self.chain.finalized

    def head(self) -> Head:
        return Head(self.chain.finalized, self.chain.time)

    def observations(self, first: int, last: int) -> list[Observation]:
        return [e for e in self.chain.events if first <= e.block <= last]

    def epoch(self, number: int) -> Epoch:
        if number != 1:
            raise NotFound(f"no epoch {number}")
        return EPOCH

    def peer_urls(self, epoch: Epoch) -> dict[str, str]:
        return self.chain.urls

    def encryption_key(self, epoch: Epoch, signer: str) -> RegisteredKey:
        return self.chain.key

    def models_of(self, file: CaseFile) -> Sequence[RegisteredModel]:
        return [RegisteredModel(file.model_id, record, "Qm") for record in self.chain.versions]

    def case_status(self, case_id: bytes) -> CaseStatus:
        return CaseStatus(self.chain.states[case_id], self.chain.shares[case_id])

    def verdict_digest(self, verdict: Verdict) -> bytes:
        return eip712.verdict(verdict, CHAIN, COURT).digest()

    def sign_verdict(self, verdict: Verdict) -> bytes:
        return sign(self.signer, eip712.verdict(verdict, CHAIN, COURT))

    def build(
        self,
        file: CaseFile,
        verdict: Verdict,
        seats: Sequence[str],
        bitmap: int,
        signatures: bytes,
        *,
        fee: Fee,
        nonce: int | None,
    ) -> SignedTx:
        chosen = [i for i in range(len(seats)) if bitmap >> i & 1]
        assert len(signatures) == 65 * len(chosen)
        assert len(chosen) >= EPOCH.threshold
        for place, seat in enumerate(chosen):
            recovered = eip712.recover(self.verdict_digest(verdict), signatures[65 * place : 65 * place + 65])
            assert recovered == seats[seat]

        def act() -> bool:
            if self.chain.states[verdict.case_id] is not CaseState.OPEN:
                return False
            self.chain.post(verdict.case_id, verdict)
            return True

        return self._signed(f"post {verdict.case_id.hex()}", act, fee, nonce)

    def build_serving(
        self, file: CaseFile, seat: int, digest: bytes, *, fee: Fee, nonce: int | None
    ) -> SignedTx:
        assert EPOCH.signers[seat] == self.signer.address

        def act() -> bool:
            if self.chain.states[file.hash()] is not CaseState.SERVING:
                return False
            self.chain.serve(file, digest)
            return True

        return self._signed(f"serve {file.hash().hex()} {digest.hex()}", act, fee, nonce)

    def _signed(self, what: str, act: Callable[[], bool], fee: Fee, nonce: int | None) -> SignedTx:
        if nonce is None:
            nonce = len(self.chain.nonces.get(self.signer.address, ()))
        raw = f"{self.signer.address}|{nonce}|{fee.most}|{what}".encode()
        tx_hash = "0x" + keccak(raw).hex()
        self.chain.built[raw] = (tx_hash, nonce, act)
        return SignedTx(tx_hash, raw, nonce, fee)

    def suggest_fee(self) -> Fee:
        return Fee(2_000_000_000, 1_000_000_000)

    def send(self, tx: bytes) -> None:
        self.sent.append(tx)
        tx_hash, nonce, act = self.chain.built[tx]
        self.chain.nonces.setdefault(self.signer.address, set()).add(nonce)
        for other, (taken, _) in list(self.chain.mempool.items()):
            if taken == nonce:
                del self.chain.mempool[other]
        if tx_hash not in self.chain.receipts:
            self.chain.mempool[tx_hash] = (nonce, act)
        if self.chain.mine_at_once:
            self.chain.mine()

    def mined(self, tx_hash: str) -> Mined | None:
        return self.chain.receipts.get(tx_hash)


@dataclass
class GivenFetcher:
    """Evidence and base tensors without files; errors can be set."""

    root: bytes = b"\x08" * 32
    evidence_error: Exception | None = None
    base_error: Exception | None = None
    base_root: bytes | None = None  # of the version that the base tensors are of; None: of any
    calls: list[str] = field(default_factory=list)

    def evidence(self, file: CaseFile, folder: Path) -> Evidence:
        self.calls.append("evidence")
        if self.evidence_error:
            raise self.evidence_error
        return Evidence(folder, self.root)

    def base(self, model: RegisteredModel, share: OpenedShare, folder: Path) -> BaseTensors:
        self.calls.append("base")
        if self.base_error:
            raise self.base_error
        if self.base_root not in (None, model.record.weights_root):
            raise BadBase("4: other tensors")
        folder.mkdir()
        spec = WfpSpec((TensorShape("w", (1 << 12, 1 << 12)),))
        return BaseTensors(folder, b"\x09" * 32, spec)


@dataclass
class GivenDetector:
    """One detection, set by the test."""

    found: Detection = field(default_factory=make_detection)
    error: Exception | None = None
    jobs: list[ConfirmJob] = field(default_factory=list)

    def confirm(self, job: ConfirmJob) -> tuple[Detection, bytes]:
        self.jobs.append(job)
        if self.error:
            raise self.error
        return self.found, self.found.digest(job.committee_key, job.subject)


@dataclass
class GivenFiles:
    """Content by CID, in memory."""

    kept: dict[str, bytes] = field(default_factory=dict)

    def add_file(self, path: Path) -> str:
        return self.add_bytes(path.read_bytes())

    def add_bytes(self, data: bytes) -> str:
        cid = cid_of_bytes(data)
        self.kept[cid] = data
        return cid


@dataclass
class Stage:
    """A judge with everything that a test may want to reach."""

    chain: MemoryChain
    ledger: MemoryLedger
    store: CaseStore
    fetcher: GivenFetcher
    detector: GivenDetector
    files: GivenFiles
    judge: Judge
    transport: httpx.MockTransport | None = None


def make_stage(
    folder: Path,
    chain: MemoryChain | None = None,
    seat: int = 0,
    *,
    dry_run: bool = False,
    turn_delay: int = 0,
    transport: httpx.BaseTransport | None = None,
    fetcher: GivenFetcher | None = None,
    detector: GivenDetector | None = None,
    files: GivenFiles | None = None,
    fees: FeesSection | None = None,
) -> Stage:
    chain = chain or MemoryChain()
    signer = SIGNERS[seat]
    ledger = MemoryLedger(chain, signer)
    store = CaseStore(folder)
    fetcher, detector = fetcher or GivenFetcher(), detector or GivenDetector()
    files = files or GivenFiles()
    carrier = Carrier(store, ledger, fees or FeesSection(bump_after_s=0.001))
    judge = Judge(
        Parts(
            signer=signer.address,
            store=store,
            ledger=ledger,
            fetcher=fetcher,
            detector=detector,
            submitter=Submitter(
                store=store, ledger=ledger, poster=ledger, carrier=carrier, signer=signer.address
            ),
            server=Server(
                store=store,
                ledger=ledger,
                poster=ledger,
                carrier=carrier,
                fetcher=fetcher,
                files=files,
                signer=signer.address,
                turn_delay=turn_delay,
            ),
            http=httpx.Client(
                transport=transport or httpx.MockTransport(lambda request: httpx.Response(404))
            ),
            metrics=Metrics(),
            start_block=0,
            turn_delay=turn_delay,
            dry_run=dry_run,
        )
    )
    return Stage(chain, ledger, store, fetcher, detector, files, judge)
