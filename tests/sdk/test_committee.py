"""Faults of operators and fingerprinters that anyone can prove, hidden test cases, and answers to range claims."""

from __future__ import annotations

import pytest
from conftest import DAY, ETHER, Clients
from test_story import (
    BOND,
    CID,
    OPERATORS,
    PRICE,
    agree,
    committee,
    h,
    leak_case,
    make_verdict,
    opened,
    register,
)

from zhiyi.canaries import CanaryCase, CanarySet
from zhiyi.errors import NotFound, TxReverted
from zhiyi.types import (
    CanaryState,
    Decision,
    OrderState,
    RangeVerdict,
    SignedVerdict,
    Verdict,
    keccak,
    license_id_of,
)

CANARIES = CanarySet(
    cases=tuple(
        CanaryCase(
            salt=h(f"salt {i}"),
            evidence_hash=h("evidence") if i == 2 else h(f"evidence {i}"),
            decision=Decision.NOT_GUILTY,
            bucket=0,
            samples=1000,
        )
        for i in range(5)
    )
)


def signed(clients: Clients, operator: str, verdict: Verdict) -> SignedVerdict:
    return SignedVerdict(verdict=verdict, signature=clients[operator].cases.sign_verdict(verdict))


def test_two_contradicting_verdicts_cost_the_stake(clients: Clients) -> None:
    _, case_id = leak_case(clients)
    guilty = make_verdict(clients, case_id)
    cleared = make_verdict(clients, case_id, decision=Decision.NOT_GUILTY, bucket=0)
    oracles, account = clients["stranger"].oracles, clients["operator1"].account
    ours, theirs = signed(clients, "operator1", guilty), signed(clients, "operator2", cleared)
    with pytest.raises(TxReverted, match="NotEquivocation"):
        oracles.prove_equivocation(ours, theirs)
    event = oracles.prove_equivocation(ours, signed(clients, "operator1", cleared)).event("Equivocated")
    assert (event["account"], event["slashed"]) == (account, 5 * ETHER)
    assert clients["stranger"].vault.stake_of(account).staked == 0


def test_two_copies_under_one_license_bar_the_fingerprinter(clients: Clients) -> None:
    model_id, maker = register(clients), clients["fingerprinter"]
    first, second = agree(clients, model_id), agree(clients, model_id, buyer="buyer2")
    other = agree(clients, model_id, fingerprint=78)
    oracles = clients["stranger"].oracles
    pair = (first.order, first.signed.fingerprinter_signature)
    with pytest.raises(TxReverted, match="NotADoubleCopy"):
        oracles.prove_double_copy(*pair, other.order, other.signed.fingerprinter_signature)
    proof = oracles.prove_double_copy(*pair, second.order, second.signed.fingerprinter_signature)
    assert proof.event("DoubleCopied")["licenseId"] == license_id_of(model_id, 77)
    assert oracles.is_barred(maker.account)
    assert oracles.is_barred(clients["stranger"].account) is False
    with pytest.raises(TxReverted, match="DepositsNotAllowed"):
        opened(clients, other)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_every_canary_leads_to_the_root(count: int) -> None:
    made = CanarySet(cases=CANARIES.cases[:count])
    for case in made.cases:
        expected, node = made.expected(case.evidence_hash), case.leaf()
        for step in expected.path:
            node = keccak(b"".join(sorted((node, step))))
        assert node == expected.root == made.root()
    with pytest.raises(NotFound):
        made.expected(h("nothing"))


def accused(clients: Clients) -> tuple[bytes, SignedVerdict]:
    """Canaries committed, one of them reported, one operator who did not look."""
    clients["deployer"].oracles.commit_canaries(1, CANARIES.root())
    _, case_id = leak_case(clients)
    wrong = signed(clients, "operator1", make_verdict(clients, case_id))
    oracles, file = clients["stranger"].oracles, clients["stranger"].cases.file(case_id)
    expected = CANARIES.expected(file.evidence_hash)
    right = make_verdict(clients, case_id, decision=Decision.NOT_GUILTY, bucket=0)
    with pytest.raises(TxReverted, match="VerdictAsExpected"):
        oracles.accuse_canary(file, signed(clients, "operator1", right), expected)
    with pytest.raises(TxReverted, match="NotACanary"):
        oracles.accuse_canary(file, wrong, expected.model_copy(update={"salt": h("other")}))
    oracles.accuse_canary(file, wrong, expected)
    return case_id, wrong


def test_an_operator_who_did_not_look_pays_by_a_ruling(clients: Clients) -> None:
    case_id, _ = accused(clients)
    account, oracles = clients["operator1"].account, clients["stranger"].oracles
    assert oracles.canary_accusation(account, case_id).state == CanaryState.ACCUSED
    assert oracles.accusations(account) == 1
    with pytest.raises(TxReverted, match="TooEarly"):
        oracles.end_canary(account, case_id)
    clients.node.travel(7 * DAY + 1)
    with pytest.raises(TxReverted, match="TooLate"):
        clients["operator1"].oracles.contest_canary(case_id, CID)
    before = clients["stranger"].vault.stake_of(account).staked
    with pytest.raises(TxReverted, match="TooEarly"):
        oracles.end_canary(account, case_id)
    ruled = clients["authority"].oracles.rule_canary(account, case_id, True)
    assert ruled.event("CanaryEnded")["upheld"]
    assert clients["stranger"].vault.stake_of(account).staked < before
    assert (oracles.accusations(account), oracles.canary_accusation(account, case_id).state) == (
        0,
        CanaryState.ENDED,
    )


def test_nobody_pays_while_the_authority_is_silent(clients: Clients) -> None:
    case_id, _ = accused(clients)
    account, oracles = clients["operator1"].account, clients["stranger"].oracles
    before = oracles.canary_accusation(account, case_id)
    clients.node.travel(21 * DAY + 1)
    with pytest.raises(TxReverted, match="TooLate"):
        clients["authority"].oracles.rule_canary(account, case_id, True)
    event = oracles.end_canary(account, case_id).event("CanaryEnded")
    assert (before.state, event["upheld"], event["slashed"]) == (CanaryState.ACCUSED, False, 0)


def test_a_contested_canary_is_ruled_on_at_once(clients: Clients) -> None:
    case_id, _ = accused(clients)
    account, authority = clients["operator1"].account, clients["authority"].oracles
    clients["operator1"].oracles.contest_canary(case_id, CID)
    with pytest.raises(TxReverted, match="NotTheAuthority"):
        clients["stranger"].oracles.rule_canary(account, case_id, True)
    before = authority.canary_accusation(account, case_id)
    assert before.state == CanaryState.CONTESTED
    event = authority.rule_canary(account, case_id, False).event("CanaryEnded")
    assert (event["upheld"], event["slashed"]) == (False, 0)


def test_a_range_claim_is_answered_by_the_committee(clients: Clients) -> None:
    model_id, buyer = register(clients), clients["buyer"]
    committee(clients)
    purchase = agree(clients, model_id)
    opened(clients, purchase)
    order, license_id = purchase.order, purchase.order.delivery.license_id
    clients["fingerprinter"].orders.reveal(order, purchase.key)
    claimed = buyer.orders.range_claim(order, evidence_cid=CID).event("RangeClaimed")
    assert claimed["bond"] == PRICE // 10
    assert buyer.orders.state(license_id).state == OrderState.RANGE_CHECK
    epoch = buyer.oracles.epoch(claimed["epoch"])
    answer = RangeVerdict(
        license_id=license_id,
        order_hash=order.hash(),
        upheld=True,
        epoch=epoch.number,
        deadline=clients.node.chain.now() + DAY,
    )
    assert buyer.orders.range_epoch(license_id) == epoch.number
    votes = {
        clients[name].account: clients[name].orders.sign_range(answer).signature for name in OPERATORS[:2]
    }
    clients["stranger"].orders.resolve_range(order, answer, epoch, votes)
    assert buyer.orders.state(license_id).state == OrderState.REFUNDED
    assert buyer.vault.balance() == PRICE + BOND + PRICE // 10 + order.delivery.deposit


def test_an_unanswered_range_claim_is_refunded(clients: Clients) -> None:
    purchase = agree(clients, register(clients))
    committee(clients)
    opened(clients, purchase)
    clients["fingerprinter"].orders.reveal(purchase.order, purchase.key)
    clients["buyer"].orders.range_claim(purchase.order)
    clients.node.travel(7 * DAY + 1)
    clients["stranger"].orders.refund(purchase.order)
    assert clients["buyer"].vault.balance() == PRICE + BOND + PRICE // 10
    assert clients["stranger"].vault.stake_of(clients["fingerprinter"].account).locked == 0
