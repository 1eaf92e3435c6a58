"""Complaints, demands and pauses on a real node, each with its time."""

from __future__ import annotations

import pytest
from conftest import DAY, Clients
from test_story import CID, agree, bought, h, make_record, opened, register

from zhiyi.errors import BadInput, NotFound, TxReverted
from zhiyi.group import reason_hash
from zhiyi.types import ComplaintOutcome, DemandState, Pause, SubjectKind


def test_a_complaint_is_answered_or_seen_to_be_late(clients: Clients) -> None:
    model_id = register(clients)
    stranger, regulator = clients["stranger"], clients["regulator"]
    with pytest.raises(TxReverted, match="NoSuchModel"):
        stranger.oversight.complain(SubjectKind.MODEL, 99, h("papers"))
    filed = stranger.oversight.complain(SubjectKind.MODEL, model_id, h("papers"), CID)
    number = filed.event("ComplaintFiled")["complaintId"]
    second = stranger.oversight.complain(SubjectKind.MODEL, model_id, h("more papers"))
    found = stranger.oversight.complaint(number)
    assert (found.subject_id, found.evidence_cid, found.complainant) == (model_id, CID, stranger.account)
    assert (found.outcome, found.overdue) == (ComplaintOutcome.PENDING, False)
    assert found.answer_due == found.filed_at + 15 * DAY
    with pytest.raises(BadInput, match="UPHELD"):
        regulator.oversight.answer(number, ComplaintOutcome.PENDING, "later")
    with pytest.raises(TxReverted, match="AccessManagedUnauthorized"):
        stranger.oversight.answer(number, ComplaintOutcome.UPHELD, "mine")
    regulator.oversight.answer(number, ComplaintOutcome.UPHELD, "label added")
    with pytest.raises(TxReverted, match="ComplaintIsAnswered"):
        regulator.oversight.answer(number, ComplaintOutcome.DISMISSED, "or not")
    clients.node.travel(15 * DAY + 1)
    [late] = stranger.oversight.complaints(pending=True)
    assert late.complaint_id == second.event("ComplaintFiled")["complaintId"]
    assert (late.overdue, late.evidence_cid) == (True, "")
    assert stranger.oversight.complaint(number).outcome == ComplaintOutcome.UPHELD
    with pytest.raises(NotFound):
        stranger.oversight.complaint(99)


def test_a_demand_is_answered_by_whom_it_concerns(clients: Clients) -> None:
    license_id = bought(clients, register(clients)).order.delivery.license_id
    regulator, now = clients["regulator"], clients.node.chain.now()
    with pytest.raises(TxReverted, match="AnswerTimeOutOfRange"):
        regulator.oversight.demand(SubjectKind.LICENSE, license_id, "logs", now + 31 * DAY)
    made = regulator.oversight.demand(SubjectKind.LICENSE, license_id, "logs", now + 3 * DAY)
    number = made.event("DisclosureDemanded")["demandId"]
    regulator.oversight.demand(SubjectKind.LICENSE, license_id, "more logs", now + 3 * DAY)
    with pytest.raises(TxReverted, match="NotTheAddressee"):
        clients["stranger"].oversight.disclose(number, CID)
    clients["buyer"].oversight.disclose(number, CID)
    with pytest.raises(TxReverted, match="TooEarly"):
        clients["stranger"].oversight.mark_unanswered(number + 1)
    clients.node.travel(3 * DAY + 1)
    clients["stranger"].oversight.mark_unanswered(number + 1)
    first, second = clients["stranger"].oversight.demands()
    assert (first.state, first.answer_cid) == (DemandState.ANSWERED, CID)
    assert (second.state, second.answer_cid) == (DemandState.UNANSWERED, "")
    assert clients["stranger"].oversight.demands(pending=True) == ()


def test_what_the_regulator_did_to_models_is_told_in_order(clients: Clients) -> None:
    first = register(clients)
    second = register(clients, make_record(weights_root=h("other weights")))
    desk, reader = clients["regulator"].regulator, clients["stranger"].regulator
    until = clients.node.chain.now() + 3600
    day = until // DAY + 2
    sent = [
        desk.freeze(first, until, "a").tx_hash,
        desk.delist(second, day, "b").tx_hash,
        desk.lift(first, "c").tx_hash,
        desk.delist(second, 0, "d").tx_hash,
    ]
    acts = reader.acts()
    assert [(one.act, one.model_id, one.until) for one in acts] == [
        ("ModelFrozen", first, until),
        ("ModelDelisted", second, day * DAY),
        ("FreezeLifted", first, 0),
        ("ModelDelisted", second, 0),
    ]
    assert [one.tx_hash for one in acts] == sent
    assert [one.reason_hash for one in acts] == [reason_hash(text) for text in "abcd"]
    assert {one.by for one in acts} == {clients["regulator"].account}
    assert [one.time for one in acts] == sorted(one.time for one in acts)
    assert reader.acts(first) == (acts[0], acts[2])


def test_a_freeze_and_a_pause_stop_new_orders_until_they_end(clients: Clients) -> None:
    model_id = register(clients)
    purchase = agree(clients, model_id)
    regulator, pauser = clients["regulator"].regulator, clients["deployer"].regulator
    regulator.freeze(model_id, clients.node.chain.now() + 3600, "court order 7")
    with pytest.raises(TxReverted, match="ModelFrozen"):
        opened(clients, purchase)
    regulator.lift(model_id, "order withdrawn")
    with pytest.raises(TxReverted, match="PauseTooLong"):
        pauser.pause_opening(clients.node.chain.now() + 8 * DAY)
    assert pauser.pauses() == ()
    end = clients.node.chain.now() + 3600
    pauser.pause_opening(end)
    opening = Pause(what="opening", by=clients["deployer"].account, until=end)
    assert regulator.pauses() == (opening,)
    with pytest.raises(TxReverted, match="OpeningIsPaused"):
        opened(clients, purchase)
    pauser.pause_posting(end)
    posting = Pause(what="posting", by=clients["deployer"].account, until=end)
    assert regulator.pauses() == (opening, posting)
    pauser.resume_opening()
    assert regulator.pauses() == (posting,)
    opened(clients, purchase)
    pauser.resume_posting()
    assert regulator.pauses() == ()
    pauser.pause_posting(end)
    clients.node.travel(3600)
    assert regulator.pauses() == ()
    with pytest.raises(TxReverted, match="NotPaused"):
        pauser.resume_posting()
