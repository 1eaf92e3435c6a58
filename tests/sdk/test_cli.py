"""The command line through the whole story on real contracts and a real IPFS node; then what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DAY, ETHER, ROOT, Clients, Node, key_of
from stub_node import refusing, stub

from zhiyi import delivery
from zhiyi.cli import words
from zhiyi.cli.app import main
from zhiyi.cli.console import plain
from zhiyi.cli.orders import Prepared
from zhiyi.delivery import Bundle, DeclaredRange, Tree, ecies
from zhiyi.deployment import Deployment
from zhiyi.errors import BadInput
from zhiyi.ipfs import Ipfs
from zhiyi.ipfs_node import EmbeddedNode
from zhiyi.keys import KeyKind, load_key
from zhiyi.types import (
    Decision,
    Delivery,
    Preference,
    SignedRequest,
    Use,
    Verdict,
    license_id_of,
    to_address,
    to_bytes,
)

sys.path.insert(0, str(ROOT / "tests"))
OPERATORS = ("operator1", "operator2", "operator3")
SEEDS = [hashlib.sha256(b"share %d" % i).digest() for i in range(16)]
ORDER_KEY = hashlib.sha256(b"order key").digest()


@pytest.fixture(scope="module")
def ipfs_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNode]:
    with EmbeddedNode(tmp_path_factory.mktemp("ipfs")) as started:
        yield started


class Shell:
    """`zhiyi` as one role after another would type it, in a folder of its own."""

    def __init__(
        self, node: Node, deployment: Deployment, ipfs: str, folder: Path, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.ipfs, self._capture = folder, ipfs, capture
        deployment.save(folder / "deployment.json")
        self.options = ["--rpc", node.url, "--ipfs", ipfs, "--deployment", str(folder / "deployment.json")]
        self.options += ["--index", f"sqlite:///{folder / 'index.db'}"]
        self.errors = ""

    def key_file(self, role: str) -> Path:
        path = self.folder / f"{role}.key"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(key_of(role).hex())
        return path

    def __call__(self, role: str, *arguments: object, code: int = 0) -> Any:
        """The JSON document that the command prints; fails unless it exits with `code`."""
        account = ["--key-file", str(self.key_file(role))] if role else []
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*self.options, *account, *map(str, arguments), "--json"])
        said = self._capture.readouterr()
        self.errors = said.err
        assert (ended.value.code or 0) == code, said.out + said.err
        return json.loads(said.out)

    def plain(self, role: str, *arguments: object) -> str:
        """What people see."""
        account = ["--key-file", str(self.key_file(role))] if role else []
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*self.options, *account, *map(str, arguments)])
        said = self._capture.readouterr()
        assert not ended.value.code, said.err
        return said.out


@pytest.fixture
def zhiyi(
    node: Node,
    deployment: Deployment,
    ipfs_node: EmbeddedNode,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    return Shell(node, deployment, ipfs_node.api, tmp_path, capsys)


def make_model(folder: Path) -> None:
    """A safetensors file of three tensors; `mark.me` is a tenth of it."""
    tensors = {"embed": 40_000, "mark.me": 8_000, "head": 32_000}
    header, data = {}, b""
    for name, count in tensors.items():
        values = struct.pack(f"<{count}f", *((i * 2654435761 % 1000 - 500) / 1e4 for i in range(count)))
        header[name] = {
            "dtype": "F32",
            "shape": [count],
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    (folder / "config.json").write_text('{"model_type": "tiny"}')


class Fingerprinter:
    """Makes copies by the library; the marks are a changed byte in the declared range."""

    def __init__(self, zhiyi: Shell, model: Path, registered: Path) -> None:
        self.zhiyi, self.model = zhiyi, model
        self.tree = Tree((registered / "leaves.bin").read_bytes())
        self.declared = DeclaredRange.from_json(json.loads((registered / "range.json").read_text()))
        self.address = to_address(zhiyi("fingerprinter", "keys", "address")["address"])

    def prepare(self, request: Path, out: Path, *, fingerprint: int, wrong_chunk: int | None = None) -> int:
        """Writes what `zhiyi order draft` reads; returns the license id."""
        from adversaries.cheating_fingerprinter import encrypt_other_bytes

        wanted = SignedRequest.model_validate_json(request.read_bytes()).request
        work = self.zhiyi.folder / f"work-{fingerprint}"
        marked = work / "marked"
        marked.mkdir(parents=True)
        for file in self.model.iterdir():
            (marked / file.name).write_bytes(file.read_bytes())
        bundle = Bundle.scan(marked)
        place = bundle.place(self.declared.intervals[0].start + 2)
        content = bytearray((marked / place.segment.path).read_bytes())
        content[place.start] ^= fingerprint & 0xFF
        (marked / place.segment.path).write_bytes(content)
        made = delivery.prepare(marked, self.model, self.tree, self.declared, ORDER_KEY, work / "package")
        assert made.changed_chunks == 1
        figures = made.figures
        if wrong_chunk is not None:
            figures = encrypt_other_bytes(work / "package", figures, wrong_chunk)
        ecies.seal_folder(work / "package", [wanted.delivery_key], work / "sealed")
        license_id = license_id_of(wanted.model_id, fingerprint)
        half = Delivery(
            license_id=license_id,
            buyer=wanted.buyer,
            fingerprinter=self.address,
            deposit=ETHER,
            copy_root=figures.copy_root,
            delivery_root=figures.delivery_root,
            key_commit=delivery.key_commit(ORDER_KEY, license_id, wanted.buyer),
            mark_commit=delivery.mark_commit(license_id, SEEDS),
            total_bytes=figures.total_bytes,
            chunks=figures.chunks,
            chunk_size=figures.chunk_size,
            suite=figures.suite,
            reveal_window=4 * 3600,
            grace=1800,
            complaint_window=DAY,
        )
        request_hash = to_bytes(json.loads((request.parent / f"{request.name}.hash").read_text()), 32)
        cid = Ipfs(self.zhiyi.ipfs).add_file(work / "sealed")
        prepared = Prepared(delivery=half, request_hash=request_hash, package_cid=cid)
        out.write_text(prepared.model_dump_json())
        return license_id


@pytest.fixture
def registered(zhiyi: Shell) -> dict[str, Any]:
    """A model on sale: registered, reviewed, with a staked fingerprinter and a signed offer."""
    make_model(zhiyi.folder / "model")
    plan = {"tensors": ["mark.*"], "detector_hash": "0x" + "d1" * 32, "trace_key_commit": "0x" + "71" * 32}
    (zhiyi.folder / "plan.json").write_text(json.dumps(plan | {"max_change_ppm": 20_000, "spec": "theirs"}))
    (zhiyi.folder / "license.txt").write_text("Do no harm.")
    collaborator = zhiyi("collaborator", "keys", "address")["address"]
    answer = zhiyi(
        *(
            "creator",
            "model",
            "register",
            zhiyi.folder / "model",
            "--name",
            "Tiny",
            "--description",
            "A model.",
        ),
        *("--plan", zhiyi.folder / "plan.json", "--out", zhiyi.folder / "registered"),
        *(
            "--prefer",
            "aiInference=allowed",
            "--prefer",
            "ai_training=not_allowed",
            "--prefer",
            "data_mining=constrained",
        ),
        *("--license-text", zhiyi.folder / "license.txt", "--collaborator", f"{collaborator}=10%"),
    )
    assert answer["status"] == "mined"
    zhiyi("registrar", "model", "review", answer["model_id"], "approve", "--reason", "papers seen")
    zhiyi("fingerprinter", "vault", "deposit", "10eth")
    signer = zhiyi("fingerprinter", "keys", "address")["address"]
    zhiyi(
        "fingerprinter",
        "committee",
        "join",
        "fingerprinter",
        "--signer",
        signer,
        "--encryption-key",
        "0x" + "ab" * 32,
        "--stake",
        "10eth",
    )
    offer = zhiyi(
        *(
            "creator",
            "offer",
            "sign",
            answer["model_id"],
            "--price",
            "1eth",
            "--bond",
            "2eth",
            "--use",
            "ai_inference",
        ),
        *(
            "--commercial",
            "--license-text",
            zhiyi.folder / "license.txt",
            "--out",
            zhiyi.folder / "offer.json",
        ),
        *("--fingerprinter", signer, "--publish"),
    )
    assert offer["cid"]
    return answer


def ordered(
    zhiyi: Shell,
    buyer: str,
    *,
    fingerprint: int,
    wrong_chunk: int | None = None,
    seller: str = "creator",
    offer_name: str = "offer.json",
) -> tuple[int, dict[str, Path]]:
    """Request, preparation, draft, both signatures, fetched package."""
    folder = zhiyi.folder / f"{buyer}-{fingerprint}"
    folder.mkdir()
    paths = {
        name: folder / name for name in ("request", "prepared", "order", "package", "copy", "delivery.key")
    }
    offer = zhiyi.folder / offer_name
    assert zhiyi(buyer, "offer", "check", offer)["ok"]
    zhiyi("", "keys", "new", "delivery", paths["delivery.key"], "--unsafe-plain")
    asked = zhiyi(
        buyer, "order", "request", offer, "--delivery-key", paths["delivery.key"], "--out", paths["request"]
    )
    (folder / "request.hash").write_text(json.dumps(asked["request_hash"]))
    maker = Fingerprinter(zhiyi, zhiyi.folder / "model", zhiyi.folder / "registered")
    license_id = maker.prepare(
        paths["request"], paths["prepared"], fingerprint=fingerprint, wrong_chunk=wrong_chunk
    )
    zhiyi(seller, "order", "draft", offer, paths["request"], paths["prepared"], "--out", paths["order"])
    zhiyi("fingerprinter", "order", "sign", paths["order"])
    zhiyi(
        buyer,
        "order",
        "fetch",
        paths["order"],
        "--delivery-key",
        paths["delivery.key"],
        "--package",
        paths["package"],
    )
    return license_id, paths


def agreed(zhiyi: Shell, paths: dict[str, Path], offer_name: str = "offer.json") -> list[object]:
    """Arguments of `order check` and `order buy`."""
    offer = zhiyi.folder / offer_name
    return [paths["order"], "--offer", offer, "--request", paths["request"], "--package", paths["package"]]


def reveal(zhiyi: Shell, license_id: int) -> Any:
    key = zhiyi.folder / "order.key"
    key.touch(mode=0o600)
    key.write_text("0x" + ORDER_KEY.hex())
    return zhiyi("fingerprinter", "order", "reveal", license_id, "--order-key-file", key)


def test_a_model_is_sold_used_and_its_income_shared(
    zhiyi: Shell, registered: dict[str, Any], node: Node
) -> None:
    model_id = registered["model_id"]
    shown = zhiyi("", "model", "show", model_id)
    assert shown["metadata"]["name"] == "Tiny"
    assert shown["metadata_agrees_with_chain"]
    assert shown["preferences"] == {
        "data_mining": "constrained",
        "ai_inference": "allowed",
        "ai_training": "not_allowed",
    }
    assert zhiyi("", "model", "check", model_id, zhiyi.folder / "model")["same"]
    commits = zhiyi("", "evidence", "commits", registered["metadata_cid"])
    assert json.loads(commits[0]["data"]) == {"assetTreeCid": registered["metadata_cid"], "modelId": model_id}

    license_id, paths = ordered(zhiyi, "buyer", fingerprint=77)
    assert zhiyi("buyer", "order", "check", *agreed(zhiyi, paths))["ok"]
    assert zhiyi("buyer", "order", "buy", *agreed(zhiyi, paths), "--dry-run")["status"] == "simulated"
    assert zhiyi("", "order", "state", license_id)["state"] == "none"
    assert zhiyi("buyer", "order", "buy", *agreed(zhiyi, paths))["license_id"] == license_id
    assert zhiyi("", "order", "state", license_id)["state"] == "open"
    zhiyi(
        "buyer", "order", "decrypt", license_id, "--package", paths["package"], "--out", paths["copy"], code=4
    )
    reveal(zhiyi, license_id)
    zhiyi(
        "buyer", "order", "decrypt", f"{model_id}/77", "--package", paths["package"], "--out", paths["copy"]
    )
    assert (paths["copy"] / "config.json").read_bytes() == (
        zhiyi.folder / "model" / "config.json"
    ).read_bytes()
    assert (paths["copy"] / "model.safetensors").stat().st_size == (
        zhiyi.folder / "model" / "model.safetensors"
    ).stat().st_size
    complaint = zhiyi("buyer", "order", "complain", license_id, "--package", paths["package"], code=2)
    assert "nothing to complain" in complaint["error"]["message"]
    early = zhiyi("stranger", "order", "settle", license_id, code=6)
    assert early["error"]["error_name"] == "TooEarly"
    node.travel(DAY + 1)
    zhiyi("stranger", "order", "settle", license_id)
    held = zhiyi("", "license", "show", f"{model_id}/77")
    assert (held["active"], held["end"], held["bond"]["amount"]) == (True, "none", 2 * ETHER)
    assert [row["license_id"] for row in zhiyi("", "license", "list", "--model", model_id)] == [license_id]
    assert [row["state"] for row in zhiyi("", "order", "list")] == ["settled"]

    due = zhiyi("", "royalty", "show", model_id)
    assert due["gross"] == ETHER
    zhiyi("stranger", "royalty", "pull", model_id, "collaborator", 0)
    zhiyi("stranger", "royalty", "pull", model_id, "owner")
    free = zhiyi("creator", "vault", "balance")["free"]
    assert free == due["claimable"]["owner"]
    assert zhiyi("creator", "vault", "withdraw", "all")["amount"] == free
    assert zhiyi("creator", "vault", "balance")["free"] == 0

    synced = zhiyi("", "index", "sync")
    assert (synced["models"], synced["licenses"], synced["documents"]) == (1, 1, 1)
    assert zhiyi("", "index", "sync")["events"] == 0
    assert zhiyi("", "index", "status")["block"] == synced["to_block"]
    for command in (
        ("model", "show", model_id),
        ("order", "state", license_id),
        ("license", "list"),
        ("royalty", "show", model_id),
    ):
        assert str(model_id) in zhiyi.plain("", *command)


def test_a_cheated_buyer_complains_and_gets_everything_back(zhiyi: Shell, registered: dict[str, Any]) -> None:
    license_id, paths = ordered(zhiyi, "buyer2", fingerprint=78, wrong_chunk=5)
    zhiyi("buyer2", "order", "buy", *agreed(zhiyi, paths))
    reveal(zhiyi, license_id)
    wrong = zhiyi(
        "buyer2",
        "order",
        "decrypt",
        license_id,
        "--package",
        paths["package"],
        "--out",
        paths["copy"],
        code=9,
    )
    assert wrong["error"]["index"] == 5
    assert not paths["copy"].exists()
    zhiyi("buyer2", "order", "complain", license_id, "--package", paths["package"])
    assert zhiyi("", "order", "state", license_id)["state"] == "refunded"
    assert zhiyi("buyer2", "vault", "balance")["free"] == 4 * ETHER  # price, bond and the deposit


def test_no_reveal_is_refunded_to_the_buyer(zhiyi: Shell, registered: dict[str, Any], node: Node) -> None:
    license_id, paths = ordered(zhiyi, "buyer", fingerprint=79)
    zhiyi("buyer", "order", "buy", *agreed(zhiyi, paths))
    node.travel(5 * 3600)
    zhiyi("stranger", "order", "refund", license_id)
    assert zhiyi("buyer", "vault", "balance")["free"] == 3 * ETHER + ETHER // 10


def test_a_leak_is_reported_judged_and_slashed(
    zhiyi: Shell, registered: dict[str, Any], node: Node, clients: Clients
) -> None:
    license_id, paths = ordered(zhiyi, "buyer", fingerprint=80)
    zhiyi("buyer", "order", "buy", *agreed(zhiyi, paths))
    reveal(zhiyi, license_id)
    zhiyi("buyer", "order", "decrypt", license_id, "--package", paths["package"], "--out", paths["copy"])
    zhiyi("buyer", "order", "accept", license_id)
    node.travel(8 * DAY)
    signers = []
    for name in OPERATORS:
        key = zhiyi.folder / f"{name}.x25519"
        zhiyi("", "keys", "new", "encryption", key, "--unsafe-plain")
        signers.append(zhiyi(name, "keys", "address")["address"])
        zhiyi(name, "vault", "deposit", "5eth")
        zhiyi(
            name,
            "committee",
            "join",
            "operator",
            "--signer",
            signers[-1],
            "--encryption-key",
            key,
            "--stake",
            "5eth",
        )
    zhiyi("deployer", "committee", "announce-epoch", 2, *signers)
    zhiyi("deployer", "committee", "activate-epoch", 1)
    assert zhiyi("", "committee", "epoch")["threshold"] == 2
    assert len(zhiyi("", "committee", "members")) == 4

    report = zhiyi.folder / "report.json"
    opened = zhiyi(
        "reporter", "case", "open", paths["copy"], "--license", license_id, "--out", report, "--value", "1eth"
    )
    kept = json.loads(report.read_text())
    assert (kept["case_id"], kept["license_id"]) == (opened["case_id"], license_id)
    sealed = zhiyi.folder / "evidence.sealed"
    zhiyi("", "ipfs", "get", opened["evidence_cid"], sealed)
    for name in OPERATORS:  # each operator opens it, and it is what the case fixed
        from zhiyi import case_evidence

        secret = load_key(zhiyi.folder / f"{name}.x25519", KeyKind.ENCRYPTION).secret
        found = case_evidence.open_sealed(
            sealed, secret, zhiyi.folder / f"{name}-evidence",
            reporter=clients["reporter"].account, expected=to_bytes(opened["evidence_hash"], 32),
        )  # fmt: skip
        assert (found.path / "config.json").exists()

    case_id = to_bytes(opened["case_id"], 32)
    base = Ipfs(zhiyi.ipfs).add_bytes(b"base tensors")
    file = clients["stranger"].cases.file(case_id)
    proof = delivery.share_proof(file.license_id, SEEDS, 0)
    clients["fingerprinter"].cases.open_share(case_id, 0, SEEDS[0], proof, base)
    verdict = Verdict(
        case_id=case_id,
        license_id=license_id,
        kind=file.kind,
        decision=Decision.GUILTY,
        evidence_hash=file.evidence_hash,
        subject=bytes(32),
        detector_hash=bytes(32),
        share_index=0,
        samples=1000,
        bucket=40,
        epoch=file.epoch,
        deadline=file.post_by,
    )
    signatures = {clients[name].account: clients[name].cases.sign_verdict(verdict) for name in OPERATORS[:2]}
    clients["operator1"].cases.post_verdict(verdict, signatures)
    shown = zhiyi("", "case", "show", opened["case_id"])
    assert (shown["state"], shown["decision"], shown["share_index"]) == ("posted", "guilty", 0)
    assert zhiyi("stranger", "case", "finalize", opened["case_id"], code=6)["error"]["kind"] == "TxReverted"
    node.travel(shown["until"] - shown["now"] + 1)
    executed = zhiyi("stranger", "case", "execute", opened["case_id"])
    slashed = next(e["args"]["slashed"] for e in executed["events"] if e["name"] == "CaseExecuted")
    assert slashed > 0
    assert [row["state"] for row in zhiyi("", "case", "list", "--license", license_id)] == ["executed"]
    assert zhiyi("", "license", "show", license_id)["end"] == "revoked"
    seat = clients["stranger"].oracles.current_epoch().seat(signers[0])
    zhiyi("stranger", "case", "claim-fee", opened["case_id"], seat)


def test_an_order_that_is_not_what_was_offered_is_refused_before_paying(
    zhiyi: Shell, registered: dict[str, Any]
) -> None:
    _, paths = ordered(zhiyi, "buyer", fingerprint=81)
    order = json.loads(paths["order"].read_text())
    order["order"]["sale"]["price"] *= 3
    order["seller_signature"] = order["fingerprinter_signature"] = None
    paths["order"].write_text(json.dumps(order))
    zhiyi("buyer", "order", "check", *agreed(zhiyi, paths), code=5)  # unsigned
    zhiyi("creator", "order", "sign", paths["order"])
    zhiyi("fingerprinter", "order", "sign", paths["order"])
    refused = zhiyi("buyer", "order", "buy", *agreed(zhiyi, paths), code=2)
    assert "price 3000000000000000000 instead of 1000000000000000000" in refused["error"]["message"]


def test_a_package_with_one_changed_byte_is_refused_before_paying(
    zhiyi: Shell, registered: dict[str, Any]
) -> None:
    license_id, paths = ordered(zhiyi, "buyer", fingerprint=82)
    cipher = paths["package"] / "cipher.bin"
    content = bytearray(cipher.read_bytes())
    content[1000] ^= 1
    cipher.write_bytes(content)
    refused = zhiyi("buyer", "order", "buy", *agreed(zhiyi, paths), code=5)
    assert refused["error"]["kind"] == "IntegrityError"
    assert zhiyi("", "order", "state", license_id)["state"] == "none"


def test_the_wrong_delivery_key_opens_nothing(zhiyi: Shell, registered: dict[str, Any]) -> None:
    _, paths = ordered(zhiyi, "buyer", fingerprint=83)
    other = zhiyi.folder / "other.key"
    zhiyi("", "keys", "new", "delivery", other, "--unsafe-plain")
    zhiyi(
        "buyer",
        "order",
        "fetch",
        paths["order"],
        "--delivery-key",
        other,
        "--package",
        zhiyi.folder / "p2",
        code=2,
    )
    assert not (zhiyi.folder / "p2").exists()


def test_a_stranger_cannot_sign_or_review(zhiyi: Shell, registered: dict[str, Any]) -> None:
    _, paths = ordered(zhiyi, "buyer", fingerprint=84)
    assert zhiyi("stranger", "order", "sign", paths["order"], code=5)["error"]["kind"] == "BadSignature"
    refused = zhiyi("stranger", "model", "review", registered["model_id"], "approve", code=6)
    assert refused["error"]["error_name"] == "AccessManagedUnauthorized"
    assert "next" in zhiyi.errors or "role" in zhiyi.errors


def test_regulator_and_owner_change_what_is_shown(zhiyi: Shell, registered: dict[str, Any]) -> None:
    model_id = registered["model_id"]
    zhiyi("regulator", "model", "freeze", model_id, "--until", "+5d", "--reason", "order 7")
    assert zhiyi("buyer", "offer", "check", zhiyi.folder / "offer.json", code=2)["error"]["message"].count(
        "frozen"
    )
    zhiyi("regulator", "model", "lift", model_id, "--reason", "withdrawn")
    zhiyi("creator", "model", "prefer", model_id, "ai_inference=not_allowed")
    shown = zhiyi("", "model", "show", model_id)
    assert shown["preferences"] == {"ai_inference": "not_allowed"}
    assert shown["metadata"]["dataMiningPreference"] == {"aiInference": "notAllowed"}
    assert shown["metadata_agrees_with_chain"]
    zhiyi("buyer", "offer", "check", zhiyi.folder / "offer.json", code=2)


def test_a_usage_log_is_anchored_once(zhiyi: Shell) -> None:
    from zhiyi.usage_log import UsageLeaf, UsageLog

    with UsageLog(zhiyi.folder / "log") as log:
        for number in range(3):
            log.append(
                UsageLeaf(
                    model_id=1, user_number=number, user_commitment=bytes(32), nonce=bytes(16),
                    output_hash=hashlib.sha256(b"%d" % number).digest(), time=1_700_000_000,
                )
            )  # fmt: skip
    first = zhiyi("creator", "evidence", "anchor", zhiyi.folder / "log")
    assert first["anchored"] == 3
    assert zhiyi("creator", "evidence", "anchor", zhiyi.folder / "log") == {"anchored": 0, "leaves": 3}
    assert zhiyi("", "evidence", "proof", zhiyi.folder / "log", 1)["root"] == first["root"]
    assert [batch["leaf_count"] for batch in zhiyi("", "evidence", "anchors", "--stream", "usage")] == [3]


# ---- without the story


def test_unsigned_prints_the_transaction_of_an_address(zhiyi: Shell, clients: Clients) -> None:
    zhiyi.options += ["--unsigned", clients["buyer"].account]
    answer = zhiyi("", "vault", "deposit", "1eth")
    assert (answer["status"], answer["transaction"]["value"]) == ("unsigned", ETHER)
    assert zhiyi("", "vault", "balance")["free"] == 0


def test_a_command_that_signs_says_how_to_give_an_account(zhiyi: Shell) -> None:
    refused = zhiyi("", "vault", "deposit", "1eth", code=3)
    assert "ZHIYI_KEYSTORE" in refused["error"]["message"]


def test_a_keystore_with_a_password_file_signs(zhiyi: Shell) -> None:
    password, keystore = zhiyi.folder / "password", zhiyi.folder / "account.json"
    password.touch(mode=0o600)
    password.write_text("correct horse")
    made = zhiyi("", "--password-file", password, "keys", "new", "account", keystore)
    shown = zhiyi("", "--keystore", keystore, "--password-file", password, "keys", "address")
    assert shown["address"] == made["address"]
    assert keystore.stat().st_mode & 0o777 == 0o600
    zhiyi("", "--password-file", password, "keys", "new", "account", keystore, code=3)
    password.write_text("wrong")
    zhiyi("", "--keystore", keystore, "--password-file", password, "keys", "address", code=3)


def test_secrets_that_others_can_read_are_refused(zhiyi: Shell) -> None:
    path = zhiyi.key_file("buyer")
    path.chmod(0o644)
    assert "chmod 600" in zhiyi("buyer", "keys", "address", code=3)["error"]["message"]


def test_no_secret_is_printed(zhiyi: Shell) -> None:
    file = zhiyi.folder / "delivery.key"
    zhiyi("", "keys", "new", "delivery", file, "--unsafe-plain")
    secret = load_key(file, KeyKind.DELIVERY).secret.hex()
    shown = zhiyi("", "keys", "show", file)
    assert secret not in json.dumps(shown)
    assert set(shown) == {"file", "kind", "public"}


def test_doctor_names_what_is_missing(zhiyi: Shell) -> None:
    rows = {row["what"]: row for row in zhiyi("buyer", "doctor")}
    assert {rows[what]["state"] for what in ("deployment", "chain", "contracts", "ipfs", "account")} == {"ok"}
    zhiyi.options[zhiyi.options.index("--ipfs") + 1] = "http://127.0.0.1:9"
    rows = {row["what"]: row for row in zhiyi("buyer", "doctor", code=3)}
    assert rows["ipfs"]["state"] == "failed"
    assert "zhiyi ipfs" in rows["ipfs"]["detail"]


def test_doctor_tells_what_the_chain_lacks(zhiyi: Shell, node: Node) -> None:
    rows = {row["what"]: row for row in zhiyi("", "doctor")}
    assert rows["abilities"]["state"] == "ok"
    with stub(node.url, refusing("eth_getProof")) as url:
        zhiyi.options[1] = url
        rows = {row["what"]: row for row in zhiyi("", "doctor")}
        assert "存储证明" in zhiyi.plain("", "doctor")
    assert rows["eth_getProof"]["state"] == "note"
    assert "EIP-1186" in rows["eth_getProof"]["detail_zh"]
    with stub(node.url, lambda method, _: {"result": "0x5"} if method == "eth_chainId" else None) as url:
        zhiyi.options[1] = url
        rows = {row["what"]: row for row in zhiyi("", "doctor", code=3)}
    assert "contracts on it see chain 31337" in rows["chain id"]["detail"]


def test_a_deployment_is_checked_shown_and_copied(zhiyi: Shell, deployment: Deployment) -> None:
    rows = {row["what"]: row for row in zhiyi("", "deployment", "check")}
    assert {rows[what]["state"] for what in ("opcode TSTORE", "code", "peers", "functions", "domains")} == {
        "ok"
    }
    assert rows["role ADMIN"]["state"] == "note"  # a development chain
    shown = zhiyi("", "deployment", "show")
    assert shown["contracts"] == deployment.contracts
    zhiyi("", "deployment", "export", zhiyi.folder / "copy.json")
    assert Deployment.load(zhiyi.folder / "copy.json") == deployment


def test_a_deployment_that_fails_its_check_ends_with_code_3(
    zhiyi: Shell, node: Node, deployment: Deployment
) -> None:
    node.rpc("anvil_setCode", deployment.contracts["MisuseCourt"], "0x00")
    rows = {row["what"]: row for row in zhiyi("", "deployment", "check", code=3)}
    assert rows["code MisuseCourt"]["state"] == "failed"


def test_without_a_file_the_packages_address_book_is_used(
    zhiyi: Shell, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZHIYI_DEPLOYMENT", raising=False)
    at = zhiyi.options.index("--deployment")
    del zhiyi.options[at : at + 2]
    assert zhiyi("", "deployment", "show")["contracts"] == deployment.contracts
    assert {row["what"]: row["state"] for row in zhiyi("", "deployment", "check")}["code"] == "note"


def test_exit_codes_tell_what_went_wrong(zhiyi: Shell, node: Node) -> None:
    zhiyi("", "model", "show", 99, code=4)
    zhiyi("", "case", "show", "0x1234", code=2)
    zhiyi("", "offer", "check", zhiyi.folder / "absent.json", code=2)
    (zhiyi.folder / "broken.json").write_text('{"offer": 1}')
    assert "offer" in zhiyi("", "offer", "check", zhiyi.folder / "broken.json", code=2)["error"]["message"]
    (zhiyi.folder / "huge.json").write_bytes(b" " * (2 << 20))
    zhiyi("", "offer", "check", zhiyi.folder / "huge.json", code=2)
    zhiyi.options[1] = "http://127.0.0.1:9"
    zhiyi("", "model", "list", code=8)


def test_values_that_fit_no_field_are_usage_errors(zhiyi: Shell) -> None:
    (zhiyi.folder / "license.txt").write_text("Do no harm.")
    arguments = [
        "offer",
        "sign",
        1,
        "--price",
        "1eth",
        "--bond",
        "1eth",
        "--license-text",
        zhiyi.folder / "license.txt",
    ]
    refused = zhiyi("creator", *arguments, "--out", zhiyi.folder / "o", "--territory", 5000, code=2)
    assert "territory" in refused["error"]["message"]
    huge = zhiyi("creator", *arguments, "--out", zhiyi.folder / "o", "--price", f"{2**100}", code=2)
    assert "price" in huge["error"]["message"]
    zhiyi("", "keys", "new", "delivery", "/proc/none/delivery.key", "--unsafe-plain", code=3)


def test_files_go_to_ipfs_and_back(zhiyi: Shell) -> None:
    (zhiyi.folder / "in").write_bytes(b"content")
    cid = zhiyi("", "ipfs", "add", zhiyi.folder / "in")["cid"]
    assert zhiyi("", "ipfs", "cid", zhiyi.folder / "in") == {"cid": cid}
    zhiyi("", "ipfs", "get", cid, zhiyi.folder / "out")
    assert (zhiyi.folder / "out").read_bytes() == b"content"
    zhiyi("", "ipfs", "get", cid, zhiyi.folder / "out2", "--max-bytes", 3, code=2)


def test_the_program_answers_as_a_program(zhiyi: Shell, tmp_path: Path) -> None:
    program = [str(Path(sys.executable).parent / "zhiyi")]
    shown = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("register", "model", "order", "case", "fingerprint", "doctor", "Exit codes"):
        assert name in shown or name == "register"
    wrong = subprocess.run([*program, "model", "shew"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ZHIYI_")}
    missing = subprocess.run(
        [*program, "--rpc", "http://127.0.0.1:9", "model", "list", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert missing.returncode == 8  # without an address book the chain is asked which one it is
    assert json.loads(missing.stdout)["error"]["kind"] == "RpcUnavailable"


def test_node_and_page_are_started_by_the_program(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "zhiyi")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ZHIYI_")}
    environment["ZHIYI_INDEX"] = f"sqlite:///{tmp_path / 'index.db'}"
    commands = (
        ["ipfs", "--repo", str(tmp_path / "repo"), "--port", "0"],
        ["page", "--no-sync", "--listen", "127.0.0.1:0"],
    )
    for command in commands:
        with subprocess.Popen(
            [program, *command], stdout=subprocess.PIPE, text=True, env=environment
        ) as running:
            assert running.stdout is not None
            assert "http://127.0.0.1:" in running.stdout.readline()
            running.terminate()
            assert running.wait(30) == 0


def test_loading_the_command_line_loads_no_heavy_package() -> None:
    script = (
        "import sys; import zhiyi.cli.app as app; app.build();"
        "print({'torch', 'transformers', 'ape', 'web3', 'flask', 'zhiyi_oracle', 'sqlalchemy'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"


@pytest.mark.parametrize(
    ("text", "wei"),
    [
        ("1eth", ETHER),
        ("1.5 eth", 3 * ETHER // 2),
        ("20gwei", 20 * 10**9),
        ("7", 7),
        ("7wei", 7),
        ("0.000000000000000001eth", 1),
    ],
)
def test_amounts_are_exact(text: str, wei: int) -> None:
    assert words.amount(text) == wei


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1e18", "1.5", "0.1wei", "1.0000000000000000001eth", "1btc", "NaN", "1_0", "١eth", "9" * 61],
)
def test_amounts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadInput):
        words.amount(text)


def test_words_for_times_ids_and_preferences() -> None:
    assert words.moment("+7d", 100) == 100 + 7 * DAY
    assert words.moment("1700000000", 0) == 1_700_000_000
    assert words.license_id("3/5") == license_id_of(3, 5)
    assert words.uses(["ai_inference", "dataMining"]) == {Use.AI_INFERENCE, Use.DATA_MINING}
    assert words.preferences(["ai-training=notAllowed"]).ai_training == Preference.NOT_ALLOWED
    account = "0x" + "11" * 20
    assert words.splits([f"{account}=12.5%", f"{account}=7"]) == words.splits(
        [f"{account}=1250", f"{account}=7"]
    )
    refused: list[Callable[[], object]] = [
        lambda: words.duration("4w"),
        lambda: words.moment("tomorrow", 0),
        lambda: words.license_id("x"),
        lambda: words.uses(["fun"]),
        lambda: words.preferences(["ai_training=maybe"]),
        lambda: words.preferences(["ai_training=allowed", "aiTraining=allowed"]),
        lambda: words.splits([f"{account}=101%"]),
        lambda: words.splits(["nobody=10%"]),
        lambda: words.case_id("0x00"),
    ]
    for call in refused:
        with pytest.raises(BadInput):
            call()


def test_hostile_names_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[2Jb‮c\u0000") == "a\\x1b[2Jb\\u202ec\\x00"
    assert plain("智易链 ok\n") == "智易链 ok\n"
    assert len(plain("x" * 10_000)) < 3_000
