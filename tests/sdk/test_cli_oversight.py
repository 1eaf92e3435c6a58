"""`zhiyi oversight`: complaint, answer, demand, disclosure, pause."""

from __future__ import annotations

import json

from conftest import DAY, Clients, Node
from test_cli import Shell
from test_cli import ipfs_node as ipfs_node  # fixtures
from test_cli import zhiyi as zhiyi
from test_story import register

from zhiyi.delivery import ecies
from zhiyi.group import salted_hash
from zhiyi.ipfs import Ipfs
from zhiyi.keys import KeyKind, load_key
from zhiyi.types import to_bytes


def test_complaints_demands_and_pauses_by_commands(zhiyi: Shell, clients: Clients, node: Node) -> None:
    model_id, folder = register(clients), zhiyi.folder
    papers, out = folder / "papers.txt", folder / "complaint.json"
    papers.write_text("its outputs carry no label")
    key = zhiyi("", "keys", "new", "encryption", folder / "regulator.x25519", "--unsafe-plain")["public"]
    complain = ("oversight", "complain", "model", model_id, papers, "--out", out)
    both = zhiyi("stranger", *complain, "--publish", "--seal-to", key, code=2)
    assert "not both" in both["error"]["message"]
    filed = zhiyi("stranger", *complain, "--seal-to", key)
    kept = json.loads(out.read_text())
    assert kept["complaint_id"] == filed["complaint_id"]
    assert salted_hash(to_bytes(kept["salt"], 32), papers.read_bytes()).hex() == kept["evidence_hash"][2:]
    Ipfs(zhiyi.ipfs).download(filed["evidence_cid"], folder / "sealed", 1 << 20)
    secret = load_key(folder / "regulator.x25519", KeyKind.ENCRYPTION).secret
    ecies.open_file(folder / "sealed", secret, folder / "opened")
    assert (folder / "opened").read_bytes() == papers.read_bytes()
    [waiting] = zhiyi("", "oversight", "complaints", "--pending")
    assert (waiting["kind"], waiting["outcome"], waiting["overdue"]) == ("model", "pending", False)
    zhiyi("regulator", "oversight", "answer", filed["complaint_id"], "upheld", "--reason", "label added")
    assert zhiyi("", "oversight", "complaints", "--pending") == []

    demand = ("oversight", "demand", "model", model_id, "--answer-by", "+2d", "--reason", "sources")
    first = zhiyi("regulator", *demand)["demand_id"]
    second = zhiyi("regulator", *demand)["demand_id"]
    zhiyi("creator", "oversight", "disclose", first, papers, "--seal-to", key)
    node.travel(2 * DAY + 1)
    zhiyi("stranger", "oversight", "mark-unanswered", second)
    states = [one["state"] for one in zhiyi("", "oversight", "demands")]
    assert states == ["answered", "unanswered"]
    zhiyi("regulator", "oversight", "demand", "model", "x", "--answer-by", "+2d", "--reason", "r", code=2)

    clients["regulator"].regulator.freeze(model_id, clients.node.chain.now() + DAY, "sources")
    [frozen] = zhiyi("", "oversight", "acts", "--model", model_id)
    assert (frozen["act"], frozen["model_id"], frozen["by"]) == (
        "ModelFrozen",
        model_id,
        clients["regulator"].account,
    )
    for what in ("opening", "posting"):
        zhiyi("deployer", "oversight", "pause", what, "--until", "+2d")
        assert [row["what"] for row in zhiyi("", "oversight", "pauses")] == [what]
        zhiyi("deployer", "oversight", "resume", what)
        assert zhiyi("deployer", "oversight", "resume", what, code=6)["error"]["error_name"] == "NotPaused"
