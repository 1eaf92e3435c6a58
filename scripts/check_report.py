#!/usr/bin/env python3
"""Recomputes every figure of a demo's report from the node's state, IPFS and files; fails on any difference.

    scripts/check_report.py build/demo

Starts its own Anvil on DIR/chain.json and its own IPFS node on DIR/ipfs (or asks ZHIYI_IPFS). Money, gas, orders and
cases come from the chain; detections are run again on the files, refused complaints are put to the contract again, and
perplexities are measured again. Seconds and process ids, which nothing can recompute, are compared with what steps and
operators wrote at the time (steps.jsonl, operator*/state). Nothing of the demo is imported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait do not burn the other core
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

from eth_account import Account

from check_market import Market
from devnode import ACCOUNTS, ETH_EACH, MNEMONIC, Node, NodeError
from zhiyi import Zhiyi, abi, delivery
from zhiyi.case_evidence import ObjectKind, canonical_root
from zhiyi.cid import cid_v0_from_digest
from zhiyi.delivery import ecies
from zhiyi.deployment import Deployment
from zhiyi.errors import TxReverted, ZhiyiError
from zhiyi.ipfs_node import EmbeddedNode
from zhiyi.metadata import parse
from zhiyi.types import CaseFile, Kind, LicenseEnd, Order, OrderState, Verdict, to_address, to_hex
from zhiyi.usage_log import Batch, UsageLeaf, output_hash
from zhiyi_oracle.base_tensors import read_base
from zhiyi_watermark import weights
from zhiyi_watermark.payload import user_of
from zhiyi_watermark.result import Detection
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_stream import tokenizer_hash

Account.enable_unaudited_hdwallet_features()

WEI = 10**18
HONEST_CHUNK = 4_242  # the chunk that buyer 1 complained about for nothing
TRACED_WORDS = 150  # shorter answers cannot carry the payload and were not traced
NO_SHARE = 255
OPERATORS = ("operator1", "operator2", "operator3")
DECISIONS = {"detected": "GUILTY", "not_detected": "NOT_GUILTY", "inconclusive": "INCONCLUSIVE"}
TEMPERATURE, HORIZON = 1.0, 448  # of the provider's mark; the detector depends on neither
TOLERANCE = {"perplexity": 1e-5}  # float sums depend on the machine's kernels; everything else is exact


class Checker:
    """Everything that can be known of a finished demo without asking it."""

    def __init__(self, folder: Path, node: Node, ipfs_api: str) -> None:
        self.folder, self.node = folder, node
        self.book = Deployment.load(folder / "deployment.json")
        self.client = Zhiyi.connect(node.url, deployment=self.book, ipfs=ipfs_api)
        self.roles: dict[str, str] = json.loads((folder / "accounts.json").read_text(encoding="utf-8"))
        self.last = int(node.rpc("eth_blockNumber"), 16)
        self.blocks = [self._block(n) for n in range(self.last + 1)]
        self.market = Market(self.client, folder, self.roles, int(self.blocks[-1]["timestamp"], 16))

    def _block(self, number: int) -> dict[str, Any]:
        block: dict[str, Any] = self.node.rpc("eth_getBlockByNumber", hex(number), True)
        for tx in block["transactions"]:
            tx["receipt"] = self.node.rpc("eth_getTransactionReceipt", tx["hash"])
        return block

    def logs(self, contract: str, event: str) -> list[dict[str, Any]]:
        """Arguments of every such event, in order."""
        found = self.client.chain.events(self.book.contract(contract), event, from_block=0)
        return [dict(item.args) for item in found]

    # -- the report, section by section ---------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """What the report has to say."""
        found: dict[str, Any] = {
            "chain": {
                "chain_id": int(self.node.rpc("eth_chainId"), 16),
                "hardfork": self.node.rpc("anvil_nodeInfo")["hardFork"],
                "last_block": self.last,
            },
            "accounts": self.accounts(),
            "contracts": dict(self.book.contracts),
            "steps": list(self.steps()),
            "model": self.model(),
            "orders": list(self.orders()),
            "cases": list(self.cases()),
            "leak": self.leak(),
            "refusals": list(self.refusals()),
            "detections": list(self.detections()),
            "operators": list(self.operators()),
        }
        found |= self.market.sections()
        found |= {
            "money": self.money(),
        }
        found["ok"] = self.ended_well(found)
        return found

    def ended_well(self, found: dict[str, Any]) -> bool:
        """What `ok` means: the books balance, and everybody got what the protocol promises."""
        leaker, first = self.roles["buyer2"], found["model"]["model_id"]
        orders = [order for order in found["orders"] if order["license_id"] >> 28 == first]
        leaked = [order["license_id"] for order in orders if order["buyer"] == leaker]
        leaks = [case for case in found["cases"] if case["kind"] == "LEAK"]
        cases = {case["license_id"]: case for case in leaks}
        guilty = cases.pop(leaked[0], None) if len(leaked) == 1 else None
        others = list(cases.values())
        entries = [[e for e in found["operators"] if e["case_id"] == c["case_id"]] for c in leaks]
        return (
            found["money"]["balance_error"] == found["money"]["vault_error"] == 0
            and guilty is not None
            and (guilty["decision"], guilty["state"], guilty["license_end"])
            == ("GUILTY", "EXECUTED", "REVOKED")
            and guilty["slashed"] > 0
            and len(others) == 1
            and (others[0]["decision"], others[0]["state"]) == ("NOT_GUILTY", "DISMISSED")
            and (others[0]["license_end"], others[0]["slashed"]) == ("NONE", 0)
            and sorted(order["refund_reason"] for order in orders) == [0, 0, 1, 2]
            and all(order["state"] == "SETTLED" for order in found["orders"] if order not in orders)
            and {refusal["error"] for refusal in found["refusals"]} == {"ChunkIsRight", "NotInDelivery"}
            and any("payload" in item for item in found["detections"])
            and found["detections"][-1]["license"] == leaked[0]
            and all(
                len({e["pid"] for e in group}) == 3 and len({e["digest"] for e in group}) == 1
                for group in entries
            )
            and self.market.ended_well(found)
        )

    def accounts(self) -> dict[str, str]:
        """Roles in the file's order are the node's development accounts."""
        return {role: _development_account(i) for i, role in enumerate(self.roles)}

    def steps(self) -> Iterator[dict[str, Any]]:
        names = {address.lower(): name for name, address in self.book.contracts.items()}
        for line in (self.folder / "steps.jsonl").read_text(encoding="utf-8").splitlines():
            step = json.loads(line)
            inside = self.blocks[step["first_block"] : step["last_block"] + 1]
            step["transactions"] = [
                {
                    "name": _called(names, tx),
                    "hash": tx["hash"],
                    "from": to_address(tx["from"]),
                    "gas": int(tx["receipt"]["gasUsed"], 16),
                }
                for block in inside
                for tx in block["transactions"]
            ]
            yield step

    def model(self) -> dict[str, Any]:
        registered = self.logs("ModelNFT", "ModelRegistered")[0]
        record, model_id = registered["record"], registered["modelId"]
        root = canonical_root(self.folder / "creator" / "model", ObjectKind.WEIGHTS)
        described = parse(self.client.ipfs.cat(cid_v0_from_digest(registered["metadataDigest"])))
        if described.preferences.pack() != registered["preferences"]:
            raise ZhiyiError("the metadata's dataMiningPreference is not what the chain's bits say")
        if root != record["weightsRoot"]:
            raise ZhiyiError(f"the creator's files have root {to_hex(root)}, the chain another")
        status = self.client.models.status(model_id)
        return {
            "model_id": model_id,
            "owner": status.owner,
            "weights_root": to_hex(root),
            "total_bytes": record["totalBytes"],
            "chunks": record["chunks"],
            "metadata_cid": cid_v0_from_digest(registered["metadataDigest"]),
            "preferences": status.preferences,
            "collaborator_bps": registered["royalties"]["collaborators"][0]["bps"],
        }

    def orders(self) -> Iterator[dict[str, Any]]:
        refunds = {event["licenseId"]: event for event in self.logs("LicenseEscrow", "OrderRefunded")}
        for event in self.logs("LicenseEscrow", "OrderOpened"):
            order = Order.from_abi(event["order"])
            license_id = order.delivery.license_id
            gone = refunds.get(license_id, {"reason": 0, "refund": 0, "penalty": 0})
            yield {
                "license_id": license_id,
                "buyer": order.delivery.buyer,
                "state": OrderState(self.client.orders.state(license_id).state).name,
                "price": order.sale.price,
                "bond": order.sale.bond,
                "copy_root": to_hex(order.delivery.copy_root),
                "refund_reason": gone["reason"],
                "refund": gone["refund"],
                "penalty": gone["penalty"],
            }

    def cases(self) -> Iterator[dict[str, Any]]:
        posted = {event["caseId"]: event for event in self.logs("MisuseCourt", "VerdictPosted")}
        done = {event["caseId"]: event for event in self.logs("LicenseEscrow", "CaseExecuted")}
        shares = {event["caseId"]: event for event in self.logs("MisuseCourt", "ShareOpened")}
        cured = {event["caseId"] for event in self.logs("MisuseCourt", "Cured")}
        nothing = {"bondBack": 0, "slashed": 0, "toReporter": 0, "toOwner": 0}
        for event in self.logs("MisuseCourt", "CaseOpened"):
            case_id, file = event["caseId"], CaseFile.from_abi(event["file"])
            verdict = Verdict.from_abi(posted[case_id]["verdict"])
            end = done.get(case_id, nothing)
            yield {
                "case_id": to_hex(case_id),
                "kind": file.kind.name,
                "license_id": file.license_id,
                "model_id": file.model_id,
                "reporter": file.reporter,
                "bond": file.bond,
                "state": self.client.cases.get(case_id).state.name,
                "decision": verdict.decision.name,
                "bucket": verdict.bucket,
                "samples": verdict.samples,
                "signatures": int(posted[case_id]["bitmap"]).bit_count(),
                "share_index": shares[case_id]["index"] if case_id in shares else NO_SHARE,
                "bond_back": end["bondBack"],
                "slashed": end["slashed"],
                "reward": end["toReporter"],
                "to_owner": end["toOwner"],
                "cured": case_id in cured,
                "license_end": LicenseEnd(self.client.licenses.get(file.license_id).end).name
                if file.license_id
                else "",
            }

    def refusals(self) -> Iterator[dict[str, Any]]:
        """The two complaints that had to fail, put to the contract's own arithmetic again with the buyers' packages."""
        orders = {order.delivery.license_id: order for order in self.client.orders.list()}
        for buyer, what in (("buyer1", "honest chunk"), ("buyer3", "wrong path")):
            package = self.folder / buyer / "package"
            order = next(
                o
                for o in orders.values()
                if o.delivery.buyer == self.roles[buyer]
                and (package / "cipher.bin").exists()
                and _fits(package, o)
            )
            license_id = order.delivery.license_id
            chunk = HONEST_CHUNK if what == "honest chunk" else self._wrong_chunk(license_id)
            proof = delivery.complaint(package, order.delivery, chunk)
            path = list(proof.path) if what == "honest chunk" else [bytes(32), *proof.path[1:]]
            key = self.client.orders.key(license_id)
            try:
                wrong = self.client.chain.call(
                    self.book.contract("DeliveryCheck"),
                    "complain",
                    order.as_tuple(),
                    key,
                    chunk,
                    proof.cipher,
                    proof.plain_leaf,
                    path,
                )
                error = "ChunkIsRight" if wrong is False else "accepted"
            except TxReverted as refused:
                error = refused.error_name
            yield {"what": what, "license_id": license_id, "chunk": chunk, "error": error}

    def _wrong_chunk(self, license_id: int) -> int:
        proven = {
            event["licenseId"]: event["index"] for event in self.logs("LicenseEscrow", "ChunkProvenWrong")
        }
        return int(proven[license_id])

    # -- detections -----------------------------------------------------------------------------

    def kit(self) -> weights.TraceKit:
        """The trace kit, which must be the one the chain committed to."""
        kit = weights.TraceKit.from_json((self.folder / "creator" / "kit.json").read_text(encoding="utf-8"))
        record = self.logs("ModelNFT", "ModelRegistered")[0]["record"]
        if kit.commitment() != record["traceKeyCommit"] or kit.spec.spec_hash() != record["detectorHash"]:
            raise ZhiyiError("creator/kit.json is not the kit and detector registered on chain")
        return kit

    def leak(self) -> dict[str, Any]:
        leaked, copy = self.folder / "leaker" / "found", self.folder / "buyer2" / "copy"
        heldout = (self.folder / "leaker" / "heldout.txt").read_text(encoding="utf-8")
        steps = len(json.loads((self.folder / "leaker" / "losses.json").read_text(encoding="utf-8")))
        return {
            "steps": steps,
            "relative_change": max(weights.relative_change(leaked, copy, self.kit().spec).values()),
            "perplexity_registered": perplexity(self.folder / "creator" / "model", heldout),
            "perplexity_delivered": perplexity(copy, heldout),
            "perplexity_leaked": perplexity(leaked, heldout),
            "sha256": hashlib.sha256((leaked / "model.safetensors").read_bytes()).hexdigest(),
        }

    def detections(self) -> Iterator[dict[str, Any]]:
        """Texts first, then the leaked copy; the marks are asked again, with nothing but key, file and records."""
        from transformers import AutoTokenizer

        home = self.folder / "provider"
        model = self.folder / "creator" / "model"
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        key = (self.folder / "creator" / "model.key").read_bytes()
        mark = BinPlus(key, BinPlusConfig(temperature=TEMPERATURE, horizon=HORIZON), tokenizer_hash(model))
        lines = (home / "log" / "leaves.jsonl").read_text(encoding="utf-8").splitlines()
        leaves = [UsageLeaf.model_validate_json(line) for line in lines]
        users = json.loads((home / "numbers.json").read_text(encoding="utf-8"))
        batch = Batch(0, tuple(leaves))
        anchors = self.client.evidence.anchors(self.roles["creator"])
        anchor = next(a for a in anchors if (a.root, a.leaf_count) == (batch.root, batch.count))
        for number, leaf in enumerate(leaves):
            text = (home / f"answer-{number}.txt").read_text(encoding="utf-8")
            found = mark.detect_text(text, tokenizer, users)
            if found.payload is None or len(text.split()) < TRACED_WORDS:
                continue
            batch.proof(number).verify(anchor.root)
            if leaf.output_hash != output_hash(text) or leaf.user_number != user_of(found.payload):
                raise ZhiyiError(f"answer {number} and its leaf in the anchored log disagree on text or user")
            yield {
                "what": f"text {number}",
                "payload": found.payload.hex(),
                "user": leaf.user_number,
                "leaf": number,
                "root": to_hex(anchor.root),
                "anchored_in": anchor.block_number,
            } | _figures(found)
        first = self.logs("ModelNFT", "ModelRegistered")[0]["modelId"]
        opened = (event["licenseId"] for event in self.logs("LicenseEscrow", "OrderOpened"))
        licenses = sorted(license_id for license_id in opened if license_id >> 28 == first)
        traced = weights.trace(self.folder / "leaker" / "found", self.kit(), licenses)
        yield {"what": "leaked copy"} | _figures(traced)

    def operators(self) -> Iterator[dict[str, Any]]:
        """What each operator wrote, against a confirm test run here on the base tensors from IPFS."""
        truth = {event["caseId"]: self._confirm(event) for event in self.logs("MisuseCourt", "ShareOpened")}
        seats = set(self.client.oracles.current_epoch().signers)
        for role in OPERATORS:
            for event in self.logs("MisuseCourt", "CaseOpened"):
                case_id = event["caseId"]
                if event["file"]["kind"] != Kind.LEAK:
                    continue  # judged by hand
                path = self.folder / role / "state" / "cases" / to_hex(case_id) / "result.json"
                wrote = json.loads(path.read_text(encoding="utf-8"))
                found, digest = truth[case_id]
                secret = (self.folder / role / "signer.key").read_text(encoding="utf-8").strip()
                signer = Account.from_key(secret).address
                if signer not in seats or wrote["signer"] != signer:
                    raise ZhiyiError(
                        f"{role} wrote as {wrote['signer']}, its key is {signer}: no seat, or another's result"
                    )
                wrote_found = wrote["detection"]
                if (wrote_found["T"], wrote_found["n"], wrote["digest"]) != (
                    found.T,
                    found.n,
                    to_hex(digest),
                ):
                    raise ZhiyiError(
                        f"{role}'s own record in {path} has other figures than the test run here"
                    )
                yield {
                    "operator": role,
                    "pid": wrote["pid"],
                    "signer": signer,
                    "case_id": to_hex(case_id),
                    "decision": {"detected": "GUILTY", "not_detected": "NOT_GUILTY"}.get(
                        found.decision, "INCONCLUSIVE"
                    ),
                    "digest": to_hex(digest),
                    "n": found.n,
                    "T": found.T,
                    "log2_p": found.log2_p,
                    "log2_p_global": found.log2_p_global,
                }

    def _confirm(self, share: dict[str, Any]) -> tuple[Detection, bytes]:
        """The share's test on the leaked file, with base tensors that equal the registered leaves."""
        registered = self.logs("ModelNFT", "ModelRegistered")[0]
        model = self.client.models.get(registered["modelId"])
        leaves_cid = parse(self.client.ipfs.cat(model.metadata_cid)).model["leaves_cid"]
        leaves = self.client.ipfs.cat(leaves_cid, 32 * model.record.chunks)
        secret = bytes.fromhex((self.folder / OPERATORS[0] / "x25519.key").read_text().strip()[2:])
        suspect = self.folder / "leaker" / "found"
        with tempfile.TemporaryDirectory() as scratch:
            sealed, package = Path(scratch) / "sealed", Path(scratch) / "package"
            self.client.ipfs.download(
                cid_v0_from_digest(share["baseDigest"]), sealed, model.record.total_bytes
            )
            ecies.open_file(sealed, secret, package)
            base = read_base(package, record=model.record, leaves=leaves, out=Path(scratch) / "base")
            found = weights.confirm(
                suspect, Path(scratch) / "base", self.kit().spec, share["index"], share["seed"]
            )
        return found, found.digest(base.committee_key, canonical_root(suspect, ObjectKind.WEIGHTS))

    # -- money ----------------------------------------------------------------------------------

    def money(self) -> dict[str, Any]:
        """Wallets, the vault's records, gas; supply = wallets + burnt."""
        names = {address: role for role, address in self.accounts().items()}
        for i in range(len(self.roles), ACCOUNTS):
            names[_development_account(i)] = f"unused{i}"
        for role in OPERATORS:
            secret = (self.folder / role / "signer.key").read_text(encoding="utf-8").strip()
            names[Account.from_key(secret).address] = f"{role}.signer"
        names |= {address: name for name, address in self.book.contracts.items()}
        paid: dict[str, int] = {}
        burnt = 0
        for block in self.blocks[1:]:
            burnt += int(block["gasUsed"], 16) * int(block["baseFeePerGas"], 16)
            names.setdefault(to_address(block["miner"]), "fees")
            for tx in block["transactions"]:
                cost = int(tx["receipt"]["gasUsed"], 16) * int(tx["receipt"]["effectiveGasPrice"], 16)
                sender = to_address(tx["from"])
                paid[sender] = paid.get(sender, 0) + cost
                for other in (sender, tx.get("to"), tx["receipt"].get("contractAddress")):
                    if other:
                        names.setdefault(to_address(other), "other")
        vault = self.client.vault
        given = {_development_account(i) for i in range(ACCOUNTS)}
        rows = [
            {
                "name": name,
                "address": address,
                "before": ETH_EACH * WEI if address in given else 0,
                "wallet": int(self.node.rpc("eth_getBalance", address, "latest"), 16),
                "vault_free": vault.balance(address),
                "stake": vault.stake_of(address).staked,
                "gas_paid": paid.get(address, 0),
            }
            for address, name in sorted(names.items(), key=lambda item: item[1])
        ]
        held = int(self.node.rpc("eth_getBalance", self.book.contracts["LicenseEscrow"], "latest"), 16)
        licenses = [event["licenseId"] for event in self.logs("LicenseNFT", "LicenseIssued")]
        cases = [event["caseId"] for event in self.logs("MisuseCourt", "CaseOpened")]
        models = [event["modelId"] for event in self.logs("ModelNFT", "ModelRegistered")]
        parts = {
            "free": sum(row["vault_free"] for row in rows),
            "stakes": sum(row["stake"] for row in rows),
            "bonds": sum(vault.bond_of(i).amount for i in licenses),
            "case_bonds": sum(vault.case_bond_of(case) for case in cases),
            "royalties": sum(vault.royalty_of(model).balance for model in models),
            "channels": vault.channel_funds(),
        }
        supply = ACCOUNTS * ETH_EACH * WEI
        return {
            "accounts": rows,
            "vault": parts | {"held": held},
            "vault_error": held - sum(parts.values()),
            "genesis": supply,
            "burnt": burnt,
            "balance_error": sum(row["wallet"] for row in rows) + burnt - supply,
        }


def _fits(package: Path, order: Order) -> bool:
    """Whether a package folder is that of this order: its promised leaves lead to the order's copy root."""
    return delivery.root_of((package / "plain_leaves.bin").read_bytes()) == order.delivery.copy_root


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key of the report stands twice")
    return found


def _development_account(index: int) -> str:
    return str(Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}").address)


def _called(names: dict[str, str], tx: dict[str, Any]) -> str:
    name = names.get((tx["to"] or "").lower(), "transfer")
    if name not in abi.NAMES:
        return name
    for entry in abi.interface(name).functions.values():
        if abi.selector(entry).hex() == tx["input"][2:10]:
            return f"{name}.{entry['name']}"
    return name


def _figures(found: Detection) -> dict[str, Any]:
    keys = ("method", "decision", "license", "n", "T", "log2_p", "log2_p_global")
    return {key: getattr(found, key) for key in keys}


def perplexity(folder: Path, text: str, window: int = 256) -> float:
    """exp of the mean negative log-likelihood per token, fp32, windows of 256 tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)(text, return_tensors="pt")[
        "input_ids"
    ][0]
    total, count = 0.0, 0
    for start in range(0, len(ids) - 1, window):
        part = ids[start : start + window + 1]
        with torch.inference_mode():
            scores = torch.log_softmax(model(part[None, :-1]).logits[0].float(), dim=-1)
        total -= float(scores[torch.arange(len(part) - 1), part[1:]].sum())
        count += len(part) - 1
    return math.exp(total / count)


def differences(found: Any, expected: Any, path: str = "") -> Iterator[str]:
    """Every place where two JSON values differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(set(found) | set(expected)):
            if key not in found or key not in expected:
                yield f"{path}.{key}: {'missing' if key not in found else 'not expected'}"
            else:
                yield from differences(found[key], expected[key], f"{path}.{key}")
    elif isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            yield f"{path}: {len(found)} entries, expected {len(expected)}"
        for i, (a, b) in enumerate(zip(found, expected, strict=False)):
            yield from differences(a, b, f"{path}[{i}]")
    elif isinstance(found, float) and isinstance(expected, float):
        tolerance = next((t for name, t in TOLERANCE.items() if name in path), 0.0)
        if not math.isclose(found, expected, rel_tol=tolerance, abs_tol=0.0):
            yield f"{path}: {found}, expected {expected}"
    elif found != expected or type(found) is not type(expected):
        yield f"{path}: {found!r}, expected {expected!r}"


def check(folder: Path, reports: list[Path]) -> dict[Path, list[str]]:
    """Recomputes once, compares each report; the differences by report."""
    given = os.environ.get("ZHIYI_IPFS", "")
    with Node(load=folder / "chain.json") as node, ExitStack() as stack:
        api = given or stack.enter_context(EmbeddedNode(folder / "ipfs")).api
        expected = json.loads(json.dumps(Checker(folder, node, api).report()))
    return {
        path: [
            *differences(
                json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_no_duplicates),
                expected,
                "report",
            ),
            *([] if expected["ok"] is True else ["report.ok: the story did not end as it has to"]),
        ]
        for path in reports
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the demo's folder")
    parser.add_argument(
        "--report", type=Path, action="append", help="another report file to hold against it; repeatable"
    )
    args = parser.parse_args()
    reports = args.report or [args.folder / "report.json"]
    try:
        found = check(args.folder.resolve(), reports)
    except (ZhiyiError, NodeError, OSError, KeyError, ValueError) as exc:
        print(f"check_report: cannot be checked: {type(exc).__name__}: {exc}", file=sys.stderr)
        return 2
    for path, wrong in found.items():
        for line in wrong[:50]:
            print(f"{path.name}: {line}")
        print(
            f"{path.name}: {'every figure recomputed and equal' if not wrong else f'{len(wrong)} differences'}"
        )
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
