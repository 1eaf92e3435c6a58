"""A court with a committee and one licensed model, and the few moves that its tests make.

Everything is the real contract except `VaultForCourt`, which is the real vault with a short cut to a settled license.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import ape
import pytest
from eth_abi.abi import decode, encode
from eth_account import Account
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from web3.exceptions import ContractCustomError, ContractLogicError

ETHER = 10**18
GWEI = 10**9
DAY = 86_400
HOUR = 3_600
ZERO = "0x" + "00" * 20
NO_SHARE = 255
DISCLOSURE_DUTY = 16  # in the packed terms
NO_PROOF = (0, b"")  # a signer key that is the account's own needs none
FAR = 2**40 - 1


class Kind(IntEnum):
    NONE, LEAK, TERMS, DISCLOSURE, UNLICENSED, UNDECLARED_PARENT, OWNERSHIP = range(7)


class Decision(IntEnum):
    NONE, GUILTY, NOT_GUILTY, INCONCLUSIVE, UNAVAILABLE, UNLICENSED = range(6)


class State(IntEnum):
    (
        NONE, OPEN, POSTED, SERVING, CHALLENGED, ESCALATED, FINAL_GUILTY, LAPSED, CLOSED, DISMISSED, CLEARED,
        EXECUTED,
    ) = range(12)  # fmt: skip


@dataclass(frozen=True)
class Params:
    min_report_bond: int = ETHER // 10
    fee_bps: int = 2_000
    post_window: int = 3 * DAY
    challenge_window: int = 6 * DAY
    ruling_window: int = 10 * DAY
    last_window: int = 14 * DAY
    mark_age: int = 7 * DAY
    reporter_bps: int = 1_000
    slash_bps: tuple[int, int, int] = (4_000, 7_000, 10_000)
    challenge_bond: int = ETHER // 5
    missed_share_penalty: int = ETHER // 2

    def as_tuple(self) -> tuple[Any, ...]:
        return (
            self.min_report_bond,
            self.fee_bps,
            self.post_window,
            self.challenge_window,
            self.ruling_window,
            self.last_window,
            self.mark_age,
            self.reporter_bps,
            list(self.slash_bps),
            self.challenge_bond,
            self.missed_share_penalty,
        )


@dataclass(frozen=True)
class CaseFile:
    kind: Kind
    model_id: int
    license_id: int
    reporter: str
    accused: str
    bond: int
    evidence_hash: bytes
    evidence_digest: bytes
    epoch: int
    authority: str
    opened_at: int
    post_by: int

    def as_tuple(self) -> tuple[Any, ...]:
        return (
            int(self.kind),
            self.model_id,
            self.license_id,
            self.reporter,
            self.accused,
            self.bond,
            self.evidence_hash,
            self.evidence_digest,
            self.epoch,
            self.authority,
            self.opened_at,
            self.post_by,
        )

    @property
    def id(self) -> bytes:
        types = "(uint8,uint64,uint256,address,address,uint96,bytes32,bytes32,uint64,address,uint40,uint40)"
        return keccak(encode([types], [self.as_tuple()]))


@dataclass(frozen=True)
class Verdict:
    case_id: bytes
    license_id: int
    kind: Kind
    decision: Decision
    evidence_hash: bytes
    subject: bytes = b"\x51" * 32
    detector_hash: bytes = b"\xde" * 32
    share_index: int = NO_SHARE
    samples: int = 65_536
    bucket: int = 20
    epoch: int = 1
    deadline: int = 2**40 - 1

    def as_tuple(self) -> tuple[Any, ...]:
        return (
            self.case_id,
            self.license_id,
            int(self.kind),
            int(self.decision),
            self.evidence_hash,
            self.subject,
            self.detector_hash,
            self.share_index,
            self.samples,
            self.bucket,
            self.epoch,
            self.deadline,
        )

    TYPES = "(bytes32,uint256,uint8,uint8,bytes32,bytes32,bytes32,uint8,uint32,uint8,uint64,uint40)"

    def encoded(self) -> bytes:
        return encode([self.TYPES], [self.as_tuple()])


@dataclass(frozen=True)
class LicenseRecord:
    order_hash: bytes
    copy_root: bytes
    mark_commit: bytes
    terms_hash: bytes
    fingerprinter: str

    def as_tuple(self) -> tuple[Any, ...]:
        return (self.order_hash, self.copy_root, self.mark_commit, self.terms_hash, self.fingerprinter)


SHARE_DOMAIN = keccak(b"zhiyi.share.v1")


def share_seeds(tag: str) -> list[bytes]:
    return [hashlib.sha256(f"{tag}/{i}".encode()).digest() for i in range(16)]


def share_levels(license_id: int, seeds: list[bytes]) -> list[list[bytes]]:
    level = [
        keccak(encode(["bytes32", "uint256", "uint256", "bytes32"], [SHARE_DOMAIN, license_id, i, seed]))
        for i, seed in enumerate(seeds)
    ]
    levels = [level]
    while len(level) > 1:
        level = [keccak(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
        levels.append(level)
    return levels


def share_proof(license_id: int, seeds: list[bytes], index: int) -> list[bytes]:
    return [level[(index >> depth) ^ 1] for depth, level in enumerate(share_levels(license_id, seeds)[:-1])]


MISSING_LEAF = hashlib.sha256(b"\x03").digest()


def copy_chunks(license_id: int) -> list[bytes]:
    """The three chunks of a licensed copy."""
    return [f"chunk {i} of the copy of {license_id}".encode() * (3 - i) for i in range(3)]


def copy_levels(license_id: int) -> list[list[bytes]]:
    """The tree over the plain leaves, from the leaves up."""
    level = [
        hashlib.sha256(b"\x00" + i.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data).digest()
        for i, data in enumerate(copy_chunks(license_id))
    ]
    levels = [[*level, MISSING_LEAF]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = zip(below[::2], below[1::2], strict=True)
        levels.append([hashlib.sha256(b"\x01" + left + right).digest() for left, right in pairs])
    return levels


def copy_path(license_id: int, index: int) -> list[bytes]:
    return [level[(index >> depth) ^ 1] for depth, level in enumerate(copy_levels(license_id)[:-1])]


@dataclass(frozen=True)
class Operator:
    account: Any
    key: bytes
    signer: str

    def sign(self, digest: bytes) -> bytes:
        return bytes(Account.unsafe_sign_hash(digest, self.key).signature)


def impersonated(name: str, wei: int = 1_000 * ETHER) -> Any:
    """An account of its own, unlocked on the node; the ten test accounts are too few for a committee."""
    address = to_checksum_address(keccak(text=f"zhiyi-test/{name}")[12:])
    ape.chain.provider.set_balance(address, wei)
    return ape.accounts[address]


def operator_key(name: str) -> bytes:
    return keccak(text=f"zhiyi-test-key/{name}")


def read(*calls: tuple[Any, ...]) -> list[Any]:
    """What the view methods return for their arguments, in one request to the node; a struct comes as a tuple."""
    requests = []
    for method, *arguments in calls:
        abi = method.abis[0]
        data = keccak(text=abi.selector)[:4] + encode(
            [argument.canonical_type for argument in abi.inputs], [address_of(a) for a in arguments]
        )
        requests.append(("eth_call", [{"to": method.contract.address, "data": "0x" + data.hex()}, "latest"]))
    if not requests:
        return []  # an empty batch is an error
    answers = ape.chain.provider.web3.provider.make_batch_request(requests)
    results = []
    for (method, *_), answer in zip(calls, answers, strict=True):
        types = [output.canonical_type for output in method.abis[0].outputs]
        values = decode(types, bytes.fromhex(answer["result"][2:]))
        results.append(values[0] if len(values) == 1 else values)
    return results


def address_of(value: Any) -> Any:
    return getattr(value, "address", value)


class Refused(Exception):
    """A call that reverted, with what it returned."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data.hex())
        self.data = data


_refusing: list[bool] = []


@contextmanager
def refusing() -> Iterator[None]:
    """Inside, `send` simulates, and must be refused."""
    _refusing.append(True)
    try:
        yield
    finally:
        _refusing.pop()


@contextmanager
def refused(contract: Any, error: str, **inputs: Any) -> Iterator[None]:
    """The block's one `send` reverts with this custom error of `contract` and these values.

    `contract` may lie below the one called. It is simulated at the time of the next block and leaves no block behind.
    """
    abi = getattr(contract, error).abi
    types = [argument.canonical_type for argument in abi.inputs]
    with pytest.raises(Refused) as caught, refusing():
        yield
    given = caught.value.data
    selector = keccak(text=abi.selector)[:4]
    assert given[:4] == selector, f"{error} was expected, not 0x{given.hex()}"
    values = dict(zip([argument.name for argument in abi.inputs], decode(types, given[4:]), strict=True))
    for name, expected in inputs.items():
        value = values[name]
        assert value == (expected.lower() if isinstance(value, str) else expected), (
            error,
            name,
            value,
            expected,
        )


def send(method: Any, *arguments: Any, sender: Any, value: int = 0) -> Any:
    """A transaction; inside `refused`, a simulation of it."""
    if not _refusing:
        return method(*arguments, sender=sender, value=value)
    call = {
        "from": sender.address,
        "to": method.contract.address,
        "data": bytes(method.encode_input(*arguments)),
        "value": value,
    }
    try:
        ape.chain.provider.web3.eth.call(call, "pending")
    except (ContractLogicError, ContractCustomError) as error:
        raise Refused(bytes.fromhex(str(error.data).removeprefix("0x"))) from error
    pytest.fail("a refusal was expected, but the call succeeds")


def bits(*seats: int) -> int:
    return sum(1 << seat for seat in seats)


@dataclass
class Courtroom:
    params: Params
    authority: Any
    vault: Any
    licenses: Any
    models: Any
    ledger: Any
    committee: Any
    court: Any
    admin: Any
    owner: Any
    holder: Any
    reporter: Any
    fingerprinter: Any
    stranger: Any
    arbiter: Any
    last_instance: Any
    treasury: Any
    poster: Any
    operators: list[Operator] = field(default_factory=list)
    records: dict[int, LicenseRecord] = field(default_factory=dict)
    cases: dict[bytes, CaseFile] = field(default_factory=dict)
    opened: int = 0
    last: Any = None  # receipt of the last opening
    others: dict[str, Any] = field(default_factory=dict)
    model_id: int = 1
    operator_stake: int = 5 * ETHER
    fingerprinter_stake: int = 4 * ETHER

    # ---- building

    @property
    def signers(self) -> list[str]:
        return [operator.signer for operator in self.operators]

    def join(self, name: str, stake: int | None = None) -> Operator:
        stake = self.operator_stake if stake is None else stake
        account, key = impersonated(name), operator_key(name)
        self.others[name] = account
        operator = Operator(account, key, Account.from_key(key).address)
        self.vault.depositNative(account, sender=account, value=stake)
        self.committee.join(
            1,
            operator.signer,
            b"\x01" * 32,
            stake,
            f"https://{name}.example",
            *self.possession(key, account),
            sender=account,
        )
        return operator

    def possession(self, key: bytes, account: Any, deadline: int = FAR) -> tuple[int, bytes]:
        """The signer key's word that it is the account's."""
        digest = bytes(self.committee.possessionDigest(account, deadline))
        return deadline, bytes(Account.unsafe_sign_hash(digest, key).signature)

    def place_license(
        self,
        number: int = 1,
        *,
        bond: int = 10 * ETHER,
        price: int = 2 * ETHER,
        holder: Any = None,
        age: int = 8 * DAY,
        terms: int = DISCLOSURE_DUTY,
    ) -> int:
        license_id = self.model_id << 28 | number
        seeds = share_seeds(str(license_id))
        record = LicenseRecord(
            b"\x0d" * 32,
            copy_levels(license_id)[-1][0],
            share_levels(license_id, seeds)[-1][0],
            b"\x07" * 32,
            self.fingerprinter.address,
        )
        self.vault.place(
            license_id, holder or self.holder, price, terms, record.as_tuple(), sender=self.poster, value=bond
        )
        self.records[license_id] = record
        if age:
            self.wait(age)
        return license_id

    # ---- time

    @property
    def now(self) -> int:
        return int(ape.chain.pending_timestamp)

    def wait(self, seconds: int) -> None:
        ape.chain.mine(deltatime=seconds)

    def wait_until(self, deadline: int) -> None:
        """The next transaction happens at `deadline` at the latest second that still counts."""
        ape.chain.pending_timestamp = deadline

    # ---- moves

    def open(
        self,
        license_id: int,
        kind: Kind = Kind.LEAK,
        *,
        reporter: Any = None,
        bond: int = ETHER,
        evidence: bytes | None = None,
        value: int | None = None,
        model_id: int | None = None,
    ) -> CaseFile:
        reporter = reporter or self.reporter
        self.opened += 1
        evidence = evidence or keccak(text=f"evidence {self.opened}")
        receipt = send(
            self.court.openCase,
            license_id,
            self.model_id if model_id is None else model_id,
            int(kind),
            evidence,
            b"\xcd" * 32,
            bond,
            sender=reporter,
            value=bond if value is None else value,
        )
        self.last = receipt
        accused = ZERO
        if kind <= Kind.DISCLOSURE:
            accused = self.licenses.ownerOf(license_id)
        elif kind != Kind.UNLICENSED:
            accused = self.models.ownerOf(self.model_id)
        file = CaseFile(
            kind,
            self.model_id,
            license_id,
            reporter.address,
            accused,
            bond,
            evidence,
            b"\xcd" * 32,
            self.committee.currentEpoch(),
            self.arbiter.address,
            receipt.timestamp,
            receipt.timestamp - self.paused() + self.params.post_window,
        )
        self.cases[file.id] = file
        return file

    def paused(self) -> int:
        return int(ape.chain.blocks.head.timestamp) - int(self.court.clock())

    def open_share(self, file: CaseFile, index: int = 0, *, sender: Any = None, **changes: Any) -> Any:
        seeds = share_seeds(str(file.license_id))
        record = changes.get("record", self.records[file.license_id])
        return send(
            self.court.openShare,
            file.as_tuple(),
            record.as_tuple(),
            index,
            changes.get("seed", seeds[index % 16]),
            changes.get("proof", share_proof(file.license_id, seeds, index % 16)),
            b"\xba" * 32,
            sender=sender or self.fingerprinter,
        )

    def verdict(self, file: CaseFile, decision: Decision = Decision.GUILTY, **changes: Any) -> Verdict:
        share = self.share(file)
        base = Verdict(
            file.id,
            file.license_id,
            file.kind,
            decision,
            file.evidence_hash,
            share_index=share,
            epoch=file.epoch,
        )
        return replace(base, **changes)

    def digest(self, verdict: Verdict) -> bytes:
        return bytes(self.court.verdictDigest(verdict.as_tuple()))

    def sign(self, verdict: Verdict, seats: tuple[int, ...]) -> bytes:
        digest = self.digest(verdict)
        return b"".join(self.operators[seat].sign(digest) for seat in sorted(seats))

    def post(
        self,
        file: CaseFile,
        decision: Decision = Decision.GUILTY,
        *,
        seats: tuple[int, ...] = (0, 1, 2),
        verdict: Verdict | None = None,
        signatures: bytes | None = None,
        bitmap: int | None = None,
        signers: list[str] | None = None,
        **changes: Any,
    ) -> Any:
        verdict = verdict or self.verdict(file, decision, **changes)
        return send(
            self.court.postVerdict,
            file.as_tuple(),
            verdict.as_tuple(),
            self.signers if signers is None else signers,
            bits(*seats) if bitmap is None else bitmap,
            self.sign(verdict, seats) if signatures is None else signatures,
            sender=self.poster,
        )

    def guilty_leak(self, license_id: int, *, share: int = 0, bucket: int = 20, **opening: Any) -> CaseFile:
        """A LEAK case up to the posted guilty verdict."""
        file = self.open(license_id, **opening)
        self.open_share(file, share)
        self.post(file, bucket=bucket)
        return file

    def challenge(self, file: CaseFile, by: Any, *, value: int | None = None) -> Any:
        bond = self.params.challenge_bond
        return send(self.court.challenge, file.as_tuple(), sender=by, value=bond if value is None else value)

    def call(self, name: str, file: CaseFile, *arguments: Any, by: Any = None) -> Any:
        return send(getattr(self.court, name), file.as_tuple(), *arguments, sender=by or self.stranger)

    def ask(self, file: CaseFile, *, by: Any = None, key: bytes = b"\x19" * 32) -> Any:
        """The accused asks to be served."""
        return self.call("requestService", file, key, by=by or self.holder)

    def serve(self, file: CaseFile, *, by: Any = None, seat: int = 0) -> Any:
        return self.call("serve", file, seat, b"\x5e" * 32, by=by or self.reporter)

    def passing(self, file: CaseFile, **changes: Any) -> Verdict:
        """A verdict that cures: of a case id of its own, on evidence of its own."""
        base = self.verdict(file, Decision.NOT_GUILTY, bucket=0)
        case_id = bytes(self.court.cureIdOf(file.id))
        return replace(base, **{"case_id": case_id, "evidence_hash": b"\x9e" * 32, **changes})

    def cure(
        self, file: CaseFile, verdict: Verdict | None = None, *, signers: list[str] | None = None
    ) -> Any:
        verdict = verdict or self.passing(file)
        return self.call(
            "cure",
            file,
            verdict.as_tuple(),
            self.signers if signers is None else signers,
            bits(0, 1, 2),
            self.sign(verdict, (0, 1, 2)),
        )

    def open_chunk(self, file: CaseFile, index: int = 0, *, by: Any = None, **changes: Any) -> Any:
        license_id = file.license_id
        return self.call(
            "openChunk",
            file,
            changes.get("record", self.records[license_id]).as_tuple(),
            changes.get("chunks", 3),
            index,
            changes.get("data", copy_chunks(license_id)[index % 3]),
            changes.get("path", copy_path(license_id, index % 3)),
            by=by or self.holder,
        )

    def until(self, file: CaseFile) -> int:
        return int(self.court.caseState(file.id)[2])

    def past(self, file: CaseFile) -> None:
        """Time goes to the first second after the deadline of the present state."""
        state, _, until, _ = self.court.caseState(file.id)
        self.wait_until((file.post_by if state == State.OPEN else int(until)) + self.paused() + 1)

    # ---- looks

    def state(self, file: CaseFile) -> State:
        return State(self.court.caseState(file.id)[0])

    def share(self, file: CaseFile) -> int:
        return int(self.court.caseState(file.id)[3])

    def free(self, account: Any) -> int:
        return int(self.vault.balanceOf(account, ZERO))

    def stake(self, account: Any) -> int:
        return int(self.vault.stakeOf(account).staked)

    def bond(self, license_id: int) -> Any:
        return self.vault.bondOf(license_id)

    def royalties(self) -> int:
        """What the vault holds of the model's income."""
        return int(self.vault.royaltyOf(self.model_id, ZERO).balance)

    def least(self, license_id: int, kind: Kind = Kind.LEAK) -> int:
        """The smallest bond of the next case."""
        return int(self.court.minReportBondFor(license_id, int(kind)))

    def share_by(self, file: CaseFile) -> int:
        """The last second for a share."""
        return file.post_by - self.params.post_window // 2

    def fee(self, file: CaseFile) -> int:
        return file.bond * self.params.fee_bps // 10_000

    def rest(self, file: CaseFile) -> int:
        return file.bond - self.fee(file)

    def accounts(self) -> dict[str, Any]:
        named = {
            "owner": self.owner,
            "holder": self.holder,
            "reporter": self.reporter,
            "fingerprinter": self.fingerprinter,
            "stranger": self.stranger,
            "arbiter": self.arbiter,
            "last": self.last_instance,
            "treasury": self.treasury,
        }
        named |= {f"operator{i}": operator.account for i, operator in enumerate(self.operators)}
        seated = {account.address for account in named.values()}
        return named | {name: other for name, other in self.others.items() if other.address not in seated}

    def money(self, file: CaseFile | None = None) -> dict[str, int]:
        """Every pot of the vault that the court can touch, in wei."""
        accounts, vault = self.accounts(), self.vault
        free = read(*((vault.balanceOf, account, ZERO) for account in accounts.values()))
        stakes = read(*((vault.stakeOf, account) for account in accounts.values()))
        bonds = read(*((vault.bondOf, license_id) for license_id in self.records))
        pots = dict(zip(accounts, free, strict=True))
        pots["stakes"] = sum(staked for staked, *_ in stakes)
        pots["bonds"] = sum(amount for amount, *_ in bonds)
        pots["royalties"] = self.royalties()
        if file is not None:
            pots["case"] = read((vault.caseBondOf, file.id))[0]
        return pots

    def books(self) -> tuple[int, int]:
        """What the vault holds, and what all its accounts add up to."""
        pots = read(*((self.vault.caseBondOf, case_id) for case_id in self.cases))
        owed = sum(self.money().values()) + sum(pots)
        return int(self.vault.balance), owed

    def moved(self, before: dict[str, int], file: CaseFile) -> dict[str, int]:
        after = self.money(file)
        return {name: after[name] - before[name] for name in after if after[name] != before[name]}
