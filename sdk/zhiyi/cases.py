"""Cases: report, share, verdict, appeal, end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zhiyi import eip712
from zhiyi.chain import Event, TxResult
from zhiyi.cid import cid_v0_from_digest, digest_from_cid
from zhiyi.errors import IntegrityError, NotFound
from zhiyi.group import Group
from zhiyi.licenses import Licenses
from zhiyi.oracles import Oracles
from zhiyi.signers import sign
from zhiyi.types import (
    Case,
    CaseFile,
    CaseState,
    Decision,
    Kind,
    OpenedShare,
    PostedVerdict,
    Verdict,
    to_bytes,
    to_hex,
)
from zhiyi.votes import bundle


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

    def min_bond(self, license_id: int | None = None, kind: Kind = Kind.LEAK) -> int:
        """The smallest bond of a report, wei.

        For a license: of the next case of `kind` against it. It doubles with every case that holds the license's bond
        and, for LEAK, with every share ever opened, up to 256 times.
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
            opened_block=opened.block_number,
            opened_tx=opened.tx_hash,
        )

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
        """Anyone, after the time for a verdict: no share was opened, the fingerprinter pays."""
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

    # -- appeal --------------------------------------------------------------------------------

    def file_defence(self, case_id: bytes, cid: str, *, dry_run: bool = False) -> TxResult:
        """Accused: names a defence on IPFS."""
        file = self.file(case_id)
        return self._send(
            "MisuseCourt", "fileDefence", file.as_tuple(), digest_from_cid(cid), dry_run=dry_run
        )

    def challenge(self, case_id: bytes, *, value: int = 0, dry_run: bool = False) -> TxResult:
        """Accused, anyone later (guilty), or the reporter (not guilty): asks for a ruling, with the bond C.

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
