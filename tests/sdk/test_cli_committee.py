"""Commands against operators and fingerprinters who fail, and for what they sign."""

from __future__ import annotations

from pathlib import Path

from conftest import DAY, Clients, Node
from pydantic import BaseModel
from test_cli import Shell
from test_cli import ipfs_node as ipfs_node  # fixtures
from test_cli import zhiyi as zhiyi
from test_committee import CANARIES, signed
from test_story import (
    OPERATORS,
    Purchase,
    agree,
    committee,
    h,
    leak_case,
    make_record,
    make_verdict,
    opened,
    register,
)

from zhiyi.cli.orders import OrderFile
from zhiyi.types import Decision, to_hex


def write(zhiyi: Shell, name: str, value: BaseModel) -> Path:
    path = zhiyi.folder / name
    path.write_text(value.model_dump_json())
    return path


def order_file(purchase: Purchase) -> OrderFile:
    found = purchase.signed
    return OrderFile(order=found.order, fingerprinter_signature=found.fingerprinter_signature)


def test_contradictions_and_double_copies_are_proven(zhiyi: Shell, clients: Clients) -> None:
    _, case_id = leak_case(clients)
    guilty = write(zhiyi, "guilty", signed(clients, "operator1", make_verdict(clients, case_id)))
    other = make_verdict(clients, case_id, decision=Decision.NOT_GUILTY, bucket=0)
    cleared = write(zhiyi, "cleared", signed(clients, "operator1", other))
    prove = ("committee", "prove-equivocation", guilty)
    assert zhiyi("stranger", *prove, guilty, code=6)["error"]["error_name"] == "NotEquivocation"
    assert zhiyi("stranger", *prove, cleared)["status"] == "mined"

    model_id = register(clients, make_record(weights_root=h("more weights")))
    first = write(zhiyi, "first", order_file(agree(clients, model_id)))
    second = write(zhiyi, "second", order_file(agree(clients, model_id, buyer="buyer2")))
    bare = write(zhiyi, "bare", OrderFile(order=agree(clients, model_id).order))
    zhiyi("stranger", "committee", "prove-double-copy", first, bare, code=2)
    assert zhiyi("stranger", "committee", "prove-double-copy", first, second)["status"] == "mined"


def test_a_canary_is_committed_opened_and_ended(zhiyi: Shell, clients: Clients, node: Node) -> None:
    canaries = write(zhiyi, "canaries", CANARIES)
    root = zhiyi("deployer", "committee", "commit-canaries", 1, canaries)["root"]
    assert root == to_hex(CANARIES.root())
    _, case_id = leak_case(clients)
    account = {name: clients[name].account for name in OPERATORS}
    for name in ("operator1", "operator2", "operator3"):
        wrong = write(zhiyi, name, signed(clients, name, make_verdict(clients, case_id)))
        zhiyi("stranger", "committee", "accuse-canary", wrong, "--canaries", canaries)
    (zhiyi.folder / "answer").write_text("the file changed after it was sealed")
    case = to_hex(case_id)
    zhiyi("operator1", "committee", "contest-canary", case, zhiyi.folder / "answer")
    zhiyi("authority", "committee", "rule-canary", account["operator1"], case, "--reject")
    node.travel(7 * DAY + 1)  # who did not answer is ruled on all the same
    upheld = zhiyi("authority", "committee", "rule-canary", account["operator2"], case, "--uphold")
    node.travel(14 * DAY)
    dropped = zhiyi("stranger", "committee", "end-canary", account["operator3"], case)
    ends = [
        event["args"]
        for done in (upheld, dropped)
        for event in done["events"]
        if event["name"] == "CanaryEnded"
    ]
    assert [(end["upheld"], end["slashed"] > 0) for end in ends] == [(True, True), (False, False)]


def test_a_range_claim_is_made_and_answered(zhiyi: Shell, clients: Clients) -> None:
    committee(clients)
    purchase = agree(clients, register(clients))
    opened(clients, purchase)
    clients["fingerprinter"].orders.reveal(purchase.order, purchase.key)
    license_id = purchase.order.delivery.license_id
    answer = ("order", "answer-range", license_id, "--reject", "--valid", "2000000000", "--out")
    zhiyi("operator1", *answer, zhiyi.folder / "early", code=4)
    zhiyi("buyer", "order", "range-claim", license_id)
    files = [zhiyi.folder / name for name in OPERATORS[:2]]
    for name, file in zip(OPERATORS, files, strict=False):
        zhiyi(name, *answer, file)
    zhiyi("operator3", *answer[:3], "--uphold", *answer[4:], zhiyi.folder / "other")
    zhiyi("stranger", "order", "resolve-range", files[0], zhiyi.folder / "other", code=2)
    zhiyi("stranger", "order", "resolve-range", files[0], code=2)  # one is too few
    zhiyi("stranger", "order", "resolve-range", *files)
    assert zhiyi("", "order", "state", license_id)["state"] == "settled"
