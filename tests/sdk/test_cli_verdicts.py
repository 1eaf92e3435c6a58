"""Commands of operators who judge by hand: evidence, verdict, posting; then appeal and end."""

from __future__ import annotations

import json
from typing import Any

from conftest import DAY, Clients, Node
from test_cli import OPERATORS, Shell
from test_cli import ipfs_node as ipfs_node  # fixtures
from test_cli import zhiyi as zhiyi
from test_story import register


def seated(zhiyi: Shell) -> None:
    """Three operators with key files of their own; two must sign."""
    signers = []
    for name in OPERATORS:
        key = zhiyi.folder / f"{name}.x25519"
        zhiyi("", "keys", "new", "encryption", key, "--unsafe-plain")
        signers.append(zhiyi(name, "keys", "address")["address"])
        zhiyi(name, "vault", "deposit", "5eth")
        join = ("committee", "join", "operator", "--signer", signers[-1], "--encryption-key", key)
        zhiyi(name, *join, "--stake", "5eth")
    zhiyi("deployer", "committee", "announce-epoch", 2, *signers)
    zhiyi("deployer", "committee", "activate-epoch", 1)


def reported(zhiyi: Shell, model_id: int, kind: str, words: str) -> Any:
    found = zhiyi.folder / f"{kind}.txt"
    found.write_text(words)
    opening = ("case", "open", found, "--kind", kind, "--model", model_id, "--value", "1eth")
    return zhiyi("reporter", *opening, "--out", zhiyi.folder / f"{kind}.json")


def signing(zhiyi: Shell, case_id: str, decision: str, out: str, **more: object) -> tuple[object, ...]:
    """Arguments after the account: what an operator types who has read the evidence."""
    subject = more.pop("subject", "0x" + "5b" * 32)
    options = [text for name, value in more.items() for text in (f"--{name}", value)]
    file = zhiyi.folder / out
    return (
        "case",
        "sign-verdict",
        case_id,
        "--decision",
        decision,
        "--subject",
        subject,
        "--out",
        file,
        *options,
    )


def test_an_ownership_case_is_judged_by_hand_appealed_and_executed(
    zhiyi: Shell, clients: Clients, node: Node
) -> None:
    model_id = register(clients)
    seated(zhiyi)
    case_id = reported(zhiyi, model_id, "ownership", "it was mine before")["case_id"]
    roots = set()
    for name in OPERATORS[:2]:
        opening = (
            "case",
            "evidence",
            case_id,
            zhiyi.folder / f"{name}-seen",
            "--key",
            zhiyi.folder / f"{name}.x25519",
        )
        opened = zhiyi("", *opening)
        assert (zhiyi.folder / f"{name}-seen" / "object" / "text.txt").read_text() == "it was mine before"
        roots.add(opened["canonical_root"])
    (root,) = roots
    assert root == json.loads((zhiyi.folder / "ownership.json").read_text())["canonical_root"]

    given = {"subject": root, "samples": 1}
    for name in OPERATORS[:2]:
        signed = zhiyi(name, *signing(zhiyi, case_id, "guilty", f"{name}.json", **given))
        assert (signed["share_index"], signed["license_id"], signed["bucket"]) == (255, 0, 0)
    again = zhiyi(
        OPERATORS[0], *signing(zhiyi, case_id, "not-guilty", f"{OPERATORS[0]}.json", **given), code=2
    )
    assert "costs your stake" in again["error"]["message"]
    outsider = zhiyi("stranger", *signing(zhiyi, case_id, "guilty", "s.json", **given), code=2)
    assert "no seat" in outsider["error"]["message"]
    assert not (zhiyi.folder / "s.json").exists()

    files = [zhiyi.folder / f"{name}.json" for name in OPERATORS[:2]]
    alone = zhiyi("stranger", "case", "post-verdict", files[0], code=2)
    assert "needs 2" in alone["error"]["message"]
    zhiyi(OPERATORS[2], *signing(zhiyi, case_id, "guilty", "third.json", subject=root, samples=2))
    differing = zhiyi("stranger", "case", "post-verdict", files[0], zhiyi.folder / "third.json", code=2)
    assert "differs" in differing["error"]["message"]
    assert "in samples" in differing["error"]["message"]
    assert zhiyi("stranger", "case", "post-verdict", *files, "--dry-run")["status"] == "simulated"
    assert zhiyi("", "case", "show", case_id)["state"] == "open"
    zhiyi("stranger", "case", "post-verdict", *files)
    shown = zhiyi("", "case", "show", case_id)
    assert (shown["state"], shown["decision"], shown["verdict"]["verdict"]["subject"]) == (
        "posted",
        "guilty",
        root,
    )

    zhiyi("creator", "case", "challenge", case_id, "--value", "1eth")
    zhiyi("authority", "case", "rule", case_id, "--uphold")
    zhiyi("stranger", "case", "execute", case_id)
    assert zhiyi("", "case", "show", case_id)["state"] == "executed"
    assert zhiyi("", "model", "show", model_id, "--no-metadata")["frozen_until"] > node.chain.now()


def test_a_report_that_proves_nothing_is_closed_by_hand(zhiyi: Shell, clients: Clients, node: Node) -> None:
    model_id = register(clients)
    seated(zhiyi)
    case_id = reported(zhiyi, model_id, "undeclared-parent", "I feel so")["case_id"]
    files = [zhiyi.folder / f"{name}.json" for name in OPERATORS[1:]]
    until = node.chain.now() + DAY
    for name, file in zip(OPERATORS[1:], files, strict=True):
        more = {"detector": "0x" + "d7" * 32, "bucket": 12, "valid": until}
        signed = zhiyi(name, *signing(zhiyi, case_id, "inconclusive", file.name, **more))
        assert (signed["deadline"], signed["detector_hash"], signed["bucket"]) == (
            until,
            "0x" + "d7" * 32,
            12,
        )
    zhiyi("stranger", "case", "post-verdict", *files)
    shown = zhiyi("", "case", "show", case_id)
    node.travel(shown["until"] - shown["now"] + 1)
    zhiyi("stranger", "case", "finalize", case_id)
    shown = zhiyi("", "case", "show", case_id)
    assert (shown["state"], shown["decision"]) == ("closed", "inconclusive")
