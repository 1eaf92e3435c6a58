"""What a user must know before he pays, read from the chain: figures of a deployment, quotes, where a case stands."""

from __future__ import annotations

from dataclasses import asdict

from conftest import ETHER, Clients, Node
from test_cli import Shell
from test_cli import ipfs_node as ipfs_node  # fixtures
from test_cli import zhiyi as zhiyi
from test_story import (
    BOND,
    OPERATORS,
    PRICE,
    SEEDS,
    agree,
    committee,
    h,
    leak_case,
    make_verdict,
    opened,
    proof_of,
    register,
)

from contracts_plan import CourtParams as PlannedCourt
from contracts_plan import Params
from zhiyi.cid import cid_v0_from_digest
from zhiyi.types import Kind, to_hex


def test_figures_are_those_of_the_plan(clients: Clients, zhiyi: Shell) -> None:
    client = clients["stranger"]
    authority = clients["authority"].account
    court, planned = client.cases.params(), asdict(PlannedCourt())
    assert court.model_dump(exclude={"appeal_authority", "last_instance"}) == planned
    assert (court.appeal_authority, court.last_instance) == (authority, authority)
    assert zhiyi("", "case", "params") == court.model_dump(mode="json")
    plan = Params(admin=authority, treasury=authority, appeal_authority=authority, last_instance=authority)
    found = client.oracles.params()
    assert found.min_threshold == 2
    assert found.max_seats == 31
    assert found.min_operator_stake == plan.min_operator_stake
    assert found.min_fingerprinter_stake == found.stake_reserve == plan.min_fingerprinter_stake
    assert (found.announce_delay, found.overlap) == (plan.announce_delay, plan.announce_delay)
    assert found.exit_delay == 90 * 86_400
    assert zhiyi("", "committee", "params") == found.model_dump(mode="json")


def test_a_range_claim_costs_its_quote(clients: Clients, zhiyi: Shell) -> None:
    committee(clients)
    purchase = agree(clients, register(clients), price=PRICE - 1)
    opened(clients, purchase)
    clients["fingerprinter"].orders.reveal(purchase.order, purchase.key)
    quote = clients["buyer"].orders.range_bond(purchase.order)
    assert quote == PRICE // 10 - 1  # rounded down
    claim = ("order", "range-claim", purchase.order.delivery.license_id)
    assert zhiyi("buyer", *claim, "--dry-run")["bond"] == quote
    (event,) = [e for e in zhiyi("buyer", *claim)["events"] if e["name"] == "RangeClaimed"]
    assert event["args"]["bond"] == quote


def test_a_case_says_who_challenged_and_who_is_to_be_paid(clients: Clients, node: Node, zhiyi: Shell) -> None:
    purchase, case_id = leak_case(clients)
    stranger, license_id = clients["stranger"], purchase.order.delivery.license_id
    case = stranger.cases.get(case_id)
    assert (case.challenger, case.unpaid_seats, case.held) == (None, (), True)
    base = cid_v0_from_digest(h("base"))
    clients["fingerprinter"].cases.open_share(case_id, 3, SEEDS[3], proof_of(purchase, 3), base)
    verdict = make_verdict(clients, case_id)
    votes = {clients[n].account: clients[n].cases.sign_verdict(verdict) for n in OPERATORS[:2]}
    stranger.cases.post_verdict(verdict, votes)
    epoch = stranger.oracles.current_epoch()
    seats = tuple(sorted(epoch.seat(account) for account in votes))
    assert stranger.cases.get(case_id).unpaid_seats == seats
    bond = stranger.cases.params().challenge_bond
    before = node.chain.balance(clients["buyer"].account)
    said = zhiyi("buyer", "case", "challenge", to_hex(case_id), "--value", bond)
    assert said["bond"] == bond
    assert before - node.chain.balance(clients["buyer"].account) == bond + said["gas_cost"]
    assert stranger.cases.get(case_id).challenger == clients["buyer"].account
    assert stranger.cases.leak_bucket(license_id) == 0
    clients["authority"].cases.rule(case_id, True)
    assert stranger.cases.leak_bucket(license_id) == 40
    assert stranger.cases.slashed_for(license_id, Kind.LEAK) == 0
    stranger.cases.execute(case_id)
    assert stranger.cases.slashed_for(license_id, Kind.LEAK) == BOND
    assert not stranger.cases.is_counted(
        license_id, h("object")
    )  # of TERMS, OWNERSHIP, UNDECLARED_PARENT only
    shown = zhiyi("", "case", "show", to_hex(case_id))
    assert shown["challenger"] == clients["buyer"].account
    assert (shown["unpaid_seats"], shown["held"]) == (list(seats), False)
    stranger.cases.claim_fee(case_id, seats[0])
    assert stranger.cases.get(case_id).unpaid_seats == seats[1:]
    assert bond == ETHER // 10
