"""Cases: report, share, verdict, appeal, end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from zhiyi import eip712
from zhiyi.chain import Event, TxResult
from zhiyi.cid import cid_of, cid_v0_from_digest, digest_from_cid
from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi.group import Group
from zhiyi.licenses import Licenses
from zhiyi.oracles import Oracles
from zhiyi.signers import sign
from zhiyi.types import (
    NATIVE,
    Case,
    CaseDefence,
    CaseFile,
    CaseState,
    CourtParams,
    Decision,
    Kind,
    OpenedShare,
    PostedVerdict,
    Verdict,
    camel,
    keccak,
    to_bytes,
    to_hex,
)
from zhiyi.votes import bundle, seats_of

_CURE_DOMAIN: Final = keccak(b"zhiyi.cure.v1")
_COURT_PARAMS: Final = (
    "min_report_bond",
    "fee_bps",
    "post_window",
    "challenge_window",
    "ruling_window",
    "last_window",
    "mark_age",
    "reporter_bps",
    "challenge_bond",
    "missed_share_penalty",
)


class Cases(Group):
    """Reports of misuse (contract MisuseCourt). A case id is 32 bytes, the hash of its file."""

    def open(
        self,
        license_id: int,
        model_id: int,
        kind: Kind,
        evidence_hash: bytes,
        evidence_cid: str,
        bond: int,
        *,
        value: int = 0,
        dry_run: bool = False,
    ) -> TxResult:
        """Reporter: opens a case; `result.case_id`. `license_id` 0 where no license is accused.

        The bond (wei) comes from the caller's free balance in the vault, to which `value` is added first.
        """
        return self._send(
            "MisuseCourt",
            "openCase",
            license_id,
            model_id,
            int(kind),
            to_bytes(evidence_hash, 32),
            digest_from_cid(evidence_cid),
            bond,
            value=value,
            dry_run=dry_run,
        )

    def report_disclosure(
        self,
        license_id: int,
        evidence_hash: bytes,
        evidence_cid: str,
        bond: int,
        *,
        value: int = 0,
        dry_run: bool = False,
    ) -> TxResult:
        """Reporter: outputs under this license lack the label its terms ask for. A DISCLOSURE case; bond as in `open`.

        Judged guilty, the license is suspended; without a passing probe within 96 hours anyone may have it revoked.
        """
        return self._send(
            "MisuseCourt",
            "reportDisclosureDisabled",
            license_id,
            to_bytes(evidence_hash, 32),
            digest_from_cid(evidence_cid),
            bond,
            value=value,
            dry_run=dry_run,
        )

    def min_bond(self, license_id: int | None = None, kind: Kind = Kind.LEAK) -> int:
        """The smallest bond of a report, wei.

        For a license: of the next case of `kind` against it, at least a hundredth of a bond in the native coin that
        the case would hold (LEAK, TERMS). It doubles with every case that holds the license's bond and, for LEAK, with
        every share ever opened, up to 256 times.
        """
        if license_id is None:
            return int(self._call("MisuseCourt", "minReportBond"))
        return int(self._call("MisuseCourt", "minReportBondFor", license_id, int(kind)))

    # -- reading -------------------------------------------------------------------------------

    def file(self, case_id: bytes) -> CaseFile:
        """The case as it was opened. Raises NotFound, IntegrityError."""
        return _file(self._opened(case_id))

    def get(self, case_id: bytes) -> Case:
        """The case as it stands now. Raises NotFound, IntegrityError."""
        return self._case(self._opened(case_id))

    def list(self, license_id: int | None = None) -> tuple[Case, ...]:
        """Cases, oldest first, of one license or all."""
        filters = {"licenseId": license_id} if license_id is not None else None
        return tuple(self._case(event) for event in self._events("MisuseCourt", "CaseOpened", filters))

    def _opened(self, case_id: bytes) -> Event:
        found = self._events("MisuseCourt", "CaseOpened", {"caseId": to_bytes(case_id, 32)})
        if not found:
            raise NotFound(f"no case {to_hex(case_id)} was opened")
        return found[0]

    def _case(self, opened: Event) -> Case:
        case_id, file = bytes(opened["caseId"]), _file(opened)
        state, decision, until, share_index = self._call("MisuseCourt", "caseState", case_id)
        challenger, unpaid, _, held = self._call("MisuseCourt", "caseDetail", case_id)
        shares = self._events("MisuseCourt", "ShareOpened", {"caseId": case_id})
        posted = self._events("MisuseCourt", "VerdictPosted", {"caseId": case_id})
        return Case(
            case_id=case_id,
            file=file,
            evidence_cid=cid_v0_from_digest(file.evidence_digest),
            state=CaseState(state),
            decision=Decision(decision),
            until=until,
            share_index=share_index,
            share=_share(shares[0]) if shares else None,
            posted=_posted(posted[0]) if posted else None,
            challenger=challenger if challenger != NATIVE else None,
            unpaid_seats=seats_of(unpaid),
            held=held,
            opened_block=opened.block_number,
            opened_tx=opened.tx_hash,
        )

    def defence(self, case_id: bytes) -> CaseDefence:
        """What the accused has done, how he was served, and until when a label can be restored."""
        key = {"caseId": to_bytes(case_id, 32)}
        asked, opened, cure_by = self._call("MisuseCourt", "defenceOf", key["caseId"])
        requested = self._events("MisuseCourt", "ServiceRequested", key)
        served = self._events("MisuseCourt", "Served", key)
        filed = self._events("MisuseCourt", "DefenceFiled", key)
        return CaseDefence(
            service_key=requested[0]["encryptionKey"] if asked else None,
            served_cid=cid_of(served[0]["digest"]) if served else "",
            filed_cids=tuple(cid_of(event["digest"]) for event in filed),
            chunk_opened=opened,
            cure_by=cure_by,
        )

    def params(self) -> CourtParams:
        """What the deployment fixed for cases: bonds, windows, slashes, who rules."""
        found = self._call("MisuseCourt", "params")
        return CourtParams(
            appeal_authority=self._call("MisuseCourt", "APPEAL_AUTHORITY"),
            last_instance=self._call("MisuseCourt", "LAST_INSTANCE"),
            slash_bps=tuple(found["slashBps"]),
            **{name: found[camel(name)] for name in _COURT_PARAMS},
        )

    def slashed_for(self, license_id: int, kind: Kind) -> int:
        """What cases of this kind have taken of a license's bond; the table's amount for a new one is less by it."""
        return int(self._call("MisuseCourt", "slashedFor", license_id, int(kind)))

    def leak_bucket(self, license_id: int) -> int:
        """Highest bucket of a final guilty LEAK verdict against a license; the same or a lower one adds nothing."""
        return int(self._call("MisuseCourt", "leakBucket", license_id))

    def is_counted(self, number: int, subject: bytes) -> bool:
        """Whether a final guilty verdict counted this subject: against a license (TERMS), or a model by its id."""
        return bool(self._call("MisuseCourt", "counted", number, to_bytes(subject, 32)))

    def shares_opened(self, license_id: int) -> int:
        """Bitmap of the confirm shares of a license that were ever opened."""
        return int(self._call("MisuseCourt", "sharesOpened", license_id))

    # -- detection -----------------------------------------------------------------------------

    def open_share(
        self,
        case_id: bytes,
        index: int,
        seed: bytes,
        proof: Sequence[bytes],
        base_cid: str,
        *,
        dry_run: bool = False,
    ) -> TxResult:
        """Fingerprinter: opens one unused confirm share and names the base tensors sealed to the committee."""
        file = self.file(case_id)
        record = Licenses(self._chain, self._deployment).record(file.license_id)
        path = [to_bytes(step, 32) for step in proof]
        arguments = (index, to_bytes(seed, 32), path, digest_from_cid(base_cid))
        return self._send(
            "MisuseCourt", "openShare", file.as_tuple(), record.as_tuple(), *arguments, dry_run=dry_run
        )

    def share_missed(self, case_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Anyone, after the first half of the time for a verdict: no share was opened, the fingerprinter pays."""
        file = self.file(case_id)
        record = Licenses(self._chain, self._deployment).record(file.license_id)
        return self._send("MisuseCourt", "shareMissed", file.as_tuple(), record.as_tuple(), dry_run=dry_run)

    def verdict_data(self, verdict: Verdict) -> eip712.TypedData:
        """What an operator signs."""
        return eip712.verdict(verdict, self._deployment.chain_id, self._deployment.contracts["MisuseCourt"])

    def sign_verdict(self, verdict: Verdict) -> bytes:
        """The caller's 65 bytes over a verdict."""
        return sign(self._chain.signer, self.verdict_data(verdict))

    def verdict_signer(self, verdict: Verdict, signature: bytes) -> str:
        """Who signed a verdict. Raises BadSignature when malformed."""
        return eip712.recover(self.verdict_data(verdict).digest(), signature)

    def post_verdict(
        self, verdict: Verdict, signatures: Mapping[str, bytes], *, dry_run: bool = False
    ) -> TxResult:
        """Anyone: posts a verdict with the committee's signatures, by signer. Raises BadInput below the threshold."""
        file = self.file(verdict.case_id)
        epoch = Oracles(self._chain, self._deployment).epoch(file.epoch)
        bitmap, joined = bundle(epoch, signatures)
        return self._send(
            "MisuseCourt",
            "postVerdict",
            file.as_tuple(),
            verdict.as_tuple(),
            list(epoch.signers),
            bitmap,
            joined,
            dry_run=dry_run,
        )

    # -- serving and defence -------------------------------------------------------------------

    def request_service(self, case_id: bytes, encryption_key: bytes, *, dry_run: bool = False) -> TxResult:
        """Accused, once, of a guilty verdict or where the reporter appeals: asks for the evidence, sealed to this key.

        `encryption_key`: X25519, public. The case waits for at most 24 hours; if nobody serves him, `clear_unserved`
        clears him.
        """
        return self._by_file("requestService", case_id, to_bytes(encryption_key, 32), dry_run=dry_run)

    def serve(self, case_id: bytes, cid: str, *, dry_run: bool = False) -> TxResult:
        """Reporter, or an operator of the case's committee: names the evidence, sealed to the accused's key.

        The window that was running starts anew. Raises BadInput for anybody else.
        """
        file = self.file(case_id)
        seat = 0 if self._chain.account == file.reporter else self._seat(file.epoch)
        arguments = (file.as_tuple(), seat, digest_from_cid(cid))
        return self._send("MisuseCourt", "serve", *arguments, dry_run=dry_run)

    def _seat(self, epoch: int) -> int:
        accounts = [info.account for info in Oracles(self._chain, self._deployment).seats(epoch)]
        if self._chain.account not in accounts:
            raise BadInput(f"{self._chain.account} is neither the reporter nor an operator of epoch {epoch}")
        return accounts.index(self._chain.account)

    def clear_unserved(self, case_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Anyone, 24 hours after the accused asked in vain: cleared without prejudice."""
        return self._by_file("clearUnserved", case_id, dry_run=dry_run)

    def cure_id(self, case_id: bytes) -> bytes:
        """The `case_id` of a verdict that cures, so that nobody who signed both contradicts himself."""
        from eth_abi.abi import encode as abi_encode

        return keccak(abi_encode(["bytes32", "bytes32"], [_CURE_DOMAIN, to_bytes(case_id, 32)]))

    def cure(
        self, case_id: bytes, verdict: Verdict, signatures: Mapping[str, bytes], *, dry_run: bool = False
    ) -> TxResult:
        """Anyone, within 96 hours of notice: a passing probe that the committee signed ends a guilty DISCLOSURE case.

        Whatever is decided meanwhile: until `defence(case_id).cure_by` nobody can execute it.
        `verdict` is NOT_GUILTY under `cure_id`, of the case's epoch or a later one; `signatures` by signer.
        """
        epoch = Oracles(self._chain, self._deployment).epoch(verdict.epoch)
        bitmap, joined = bundle(epoch, signatures)
        arguments = (verdict.as_tuple(), list(epoch.signers), bitmap, joined)
        return self._by_file("cure", case_id, *arguments, dry_run=dry_run)

    def open_chunk(
        self,
        case_id: bytes,
        chunks: int,
        index: int,
        data: bytes,
        path: Sequence[bytes],
        *,
        dry_run: bool = False,
    ) -> TxResult:
        """Accused of a leak: shows a plain chunk of his own copy, so that the authority can see which mark it carries.

        `chunks` of the copy, `path` of chunk `index` under its root: see `zhiyi.delivery.plain_chunk`.
        """
        file = self.file(case_id)
        record = Licenses(self._chain, self._deployment).record(file.license_id)
        steps = [to_bytes(step, 32) for step in path]
        arguments = (file.as_tuple(), record.as_tuple(), chunks, index, data, steps)
        return self._send("MisuseCourt", "openChunk", *arguments, dry_run=dry_run)

    def rule_fault(self, case_id: bytes, *, dry_run: bool = False) -> TxResult:
        """The case's authority: the copy never carried the mark found. Cleared, at the fingerprinter's cost."""
        file = self.file(case_id)
        record = Licenses(self._chain, self._deployment).record(file.license_id)
        return self._send("MisuseCourt", "ruleFault", file.as_tuple(), record.as_tuple(), dry_run=dry_run)

    # -- appeal --------------------------------------------------------------------------------

    def file_defence(self, case_id: bytes, cid: str, *, dry_run: bool = False) -> TxResult:
        """Accused: names a defence on IPFS."""
        file = self.file(case_id)
        return self._send(
            "MisuseCourt", "fileDefence", file.as_tuple(), digest_from_cid(cid), dry_run=dry_run
        )

    def challenge(self, case_id: bytes, *, value: int = 0, dry_run: bool = False) -> TxResult:
        """Accused, anyone later (guilty), or the reporter (anything else): asks for a ruling, with the bond C.

        Not whoever would rule. Overturned, C comes back, and the signers lose their fee; where they had said guilty or
        not guilty, as much as C of stake, too.
        The bond comes from the caller's free balance in the vault, to which `value` is added first.
        """
        return self._by_file("challenge", case_id, value=value, dry_run=dry_run)

    def rule(self, case_id: bytes, uphold: bool, *, dry_run: bool = False) -> TxResult:
        """The case's authority (or, escalated, the last instance): upholds or overturns."""
        return self._by_file("rule", case_id, uphold, dry_run=dry_run)

    def escalate(self, case_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Anyone: the authority was silent."""
        return self._by_file("escalate", case_id, dry_run=dry_run)

    def clear_silent(self, case_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Anyone: the last instance was silent too; cleared without prejudice."""
        return self._by_file("clearSilent", case_id, dry_run=dry_run)

    def release_hold(self, case_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Anyone, 14 d after a clearing by silence: the license bond is free of this case."""
        return self._by_file("releaseHold", case_id, dry_run=dry_run)

    # -- end -----------------------------------------------------------------------------------

    def lapse(self, case_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Anyone: nobody posted in time, the reporter's bond goes back."""
        return self._by_file("lapse", case_id, dry_run=dry_run)

    def finalize(self, case_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Anyone: ends a posted verdict whose window is over."""
        return self._by_file("finalize", case_id, dry_run=dry_run)

    def execute(self, case_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Anyone: slashes, revokes, pays; finalizes first where the window is over."""
        return self._by_file("execute", case_id, dry_run=dry_run)

    def claim_fee(self, case_id: bytes, seat: int, *, dry_run: bool = False) -> TxResult:
        """Anyone: the account behind a seat that signed the verdict gets its part of the fee."""
        return self._by_file("claimFee", case_id, seat, dry_run=dry_run)

    def _by_file(
        self, function: str, case_id: bytes, *args: object, value: int = 0, dry_run: bool = False
    ) -> TxResult:
        file = self.file(case_id)
        return self._send("MisuseCourt", function, file.as_tuple(), *args, value=value, dry_run=dry_run)


def _file(opened: Event) -> CaseFile:
    file = CaseFile.from_abi(opened["file"])
    if file.hash() != opened["caseId"]:
        raise IntegrityError(f"the file of case {to_hex(opened['caseId'])} does not hash to its id")
    return file


def _share(event: Event) -> OpenedShare:
    return OpenedShare(
        case_id=event["caseId"],
        license_id=event["licenseId"],
        index=event["index"],
        seed=event["seed"],
        base_cid=cid_v0_from_digest(event["baseDigest"]),
    )


def _posted(event: Event) -> PostedVerdict:
    return PostedVerdict(
        verdict=Verdict.from_abi(event["verdict"]),
        bitmap=event["bitmap"],
        challenge_until=event["challengeUntil"],
    )
