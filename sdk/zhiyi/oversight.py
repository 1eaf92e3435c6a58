"""Complaints of the public to the regulator, and the regulator's demands for disclosure; each with a time to answer."""

from __future__ import annotations

from zhiyi.chain import Event, TxResult
from zhiyi.cid import cid_of, digest_of
from zhiyi.errors import BadInput, NotFound
from zhiyi.group import Group, reason_hash
from zhiyi.types import (
    Complaint,
    ComplaintOutcome,
    Demand,
    DemandState,
    SubjectKind,
    to_bytes,
)


class Oversight(Group):
    """The regulator's desk (contract Oversight). It moves no money; what is late or unanswered stays visible."""

    # -- complaints ----------------------------------------------------------------------------

    def complain(
        self,
        kind: SubjectKind,
        subject_id: int,
        evidence_hash: bytes,
        evidence_cid: str = "",
        *,
        dry_run: bool = False,
    ) -> TxResult:
        """Anyone, about a model or license: the regulator owes an answer within 15 days.

        `evidence_hash` is salted; `evidence_cid` names the papers, encrypted where they must be, or is empty.
        """
        arguments = (int(kind), subject_id, to_bytes(evidence_hash, 32), digest_of(evidence_cid))
        return self._send("Oversight", "fileComplaint", *arguments, dry_run=dry_run)

    def answer(
        self, complaint_id: int, outcome: ComplaintOutcome, reason: str, *, dry_run: bool = False
    ) -> TxResult:
        """Regulator, once; the chain keeps keccak256 of the reason's text."""
        if outcome is ComplaintOutcome.PENDING:
            raise BadInput("answer UPHELD, DISMISSED or REFERRED")
        arguments = (complaint_id, int(outcome), reason_hash(reason))
        return self._send("Oversight", "answerComplaint", *arguments, dry_run=dry_run)

    def complaint(self, complaint_id: int) -> Complaint:
        """One complaint as it stands. Raises NotFound."""
        found = self._events("Oversight", "ComplaintFiled", {"complaintId": complaint_id})
        if not found:
            raise NotFound(f"no complaint {complaint_id} was filed")
        return self._complaint(found[0])

    def complaints(self, *, pending: bool = False) -> tuple[Complaint, ...]:
        """All complaints, or those without an answer, oldest first."""
        found = (self._complaint(event) for event in self._events("Oversight", "ComplaintFiled"))
        return tuple(one for one in found if not pending or one.outcome is ComplaintOutcome.PENDING)

    def _complaint(self, filed: Event) -> Complaint:
        number = filed["complaintId"]
        kept = self._call("Oversight", "complaintOf", number)
        return Complaint(
            complaint_id=number,
            kind=SubjectKind(filed["kind"]),
            subject_id=filed["subjectId"],
            complainant=filed["complainant"],
            evidence_hash=filed["evidenceHash"],
            evidence_cid=cid_of(filed["cidDigest"]),
            filed_at=kept["filedAt"],
            answer_due=filed["answerDue"],
            outcome=ComplaintOutcome(kept["outcome"]),
            overdue=bool(self._call("Oversight", "isOverdue", number)),
        )

    # -- demands for disclosure ----------------------------------------------------------------

    def demand(
        self, kind: SubjectKind, subject_id: int, reason: str, answer_by: int, *, dry_run: bool = False
    ) -> TxResult:
        """Regulator: asks the model's owner or the license's holder to disclose by a time 1 to 30 days ahead."""
        arguments = (int(kind), subject_id, reason_hash(reason), answer_by)
        return self._send("Oversight", "demandDisclosure", *arguments, dry_run=dry_run)

    def disclose(self, demand_id: int, cid: str, *, dry_run: bool = False) -> TxResult:
        """The addressee, in time: names what was asked for, sealed to the regulator."""
        return self._send("Oversight", "answerDemand", demand_id, digest_of(cid), dry_run=dry_run)

    def mark_unanswered(self, demand_id: int, *, dry_run: bool = False) -> TxResult:
        """Anyone, once the time is over: puts on record that nothing was disclosed."""
        return self._send("Oversight", "markUnanswered", demand_id, dry_run=dry_run)

    def demands(self, *, pending: bool = False) -> tuple[Demand, ...]:
        """All demands, or those that are open, oldest first."""
        found = (self._demand(event) for event in self._events("Oversight", "DisclosureDemanded"))
        return tuple(one for one in found if not pending or one.state is DemandState.OPEN)

    def _demand(self, made: Event) -> Demand:
        number = made["demandId"]
        answered = self._events("Oversight", "DemandAnswered", {"demandId": number})
        return Demand(
            demand_id=number,
            kind=SubjectKind(made["kind"]),
            subject_id=made["subjectId"],
            addressee=made["addressee"],
            reason_hash=made["reasonHash"],
            answer_by=made["answerBy"],
            state=DemandState(self._call("Oversight", "demandOf", number)["state"]),
            answer_cid=cid_of(answered[0]["digest"]) if answered else "",
        )
