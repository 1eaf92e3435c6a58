"""build/demo/report.json: what happened, as the run saw it."""

from __future__ import annotations

import json
from typing import Any

from story import accounts, judge, record
from story.world import ETHER, World
from zhiyi import abi
from zhiyi.types import Kind, OrderState, to_address, to_hex


def write(world: World) -> bool:
    """Writes the report and prints every account's balance; True when the story ended as it has to."""
    money = accounts.money(world)
    for row in money["accounts"]:
        if row["name"].startswith("unused") or not any(
            row[k] for k in ("before", "wallet", "vault_free", "stake")
        ):
            continue
        wallet, free = row["wallet"] / ETHER, row["vault_free"] / ETHER
        world.say(
            f"{row['name']:<18}{wallet:>16.6f} in the wallet {free:>10.4f} free in the vault "
            f"{row['stake'] / ETHER:>8.2f} staked {row['gas_paid'] / ETHER:>10.6f} paid for gas"
        )
    world.say(
        f"the vault holds {money['vault']['held'] / ETHER:g} ETH, vault error {money['vault_error']} wei; "
        f"balance error over all accounts, gas included: {money['balance_error']} wei"
    )
    found: dict[str, Any] = {
        "chain": _chain(world),
        "accounts": json.loads((world.out / "accounts.json").read_text()),
        "contracts": dict(world.deployment.contracts),
        "steps": _steps(world),
        "model": _model(world),
        "orders": _orders(world),
        "cases": _cases(world),
        "leak": world.facts["leak"],
        "refusals": world.facts["refusals"],
        "detections": world.facts["detections"],
        "operators": [_operator(result) for result in judge.results(world)],
    }
    found |= record.sections(world)
    found |= {
        "money": money,
    }
    found["ok"] = _ok(found, world.facts["licenses"]["buyer2"])
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    (world.out / "report.json").write_text(text, encoding="utf-8")
    world.say(f"report: {world.out / 'report.json'}, ok: {found['ok']}")
    return bool(found["ok"])


def _ok(found: dict[str, Any], suspect: int) -> bool:
    """Whether the story ended as it has to; `suspect` is the license that really leaked."""
    first = found["model"]["model_id"]
    orders = [order for order in found["orders"] if order["license_id"] >> 28 == first]
    reasons = [order["refund_reason"] for order in orders]
    leaks = [case for case in found["cases"] if case["kind"] == Kind.LEAK.name]
    ends = {
        (
            case["license_id"] == suspect,
            case["decision"],
            case["state"],
            case["license_end"],
            case["slashed"] > 0,
        )
        for case in leaks
    }
    by_case = [
        [entry for entry in found["operators"] if entry["case_id"] == case["case_id"]] for case in leaks
    ]
    return (
        found["money"]["balance_error"] == 0
        and found["money"]["vault_error"] == 0
        and ends
        == {(True, "GUILTY", "EXECUTED", "REVOKED", True), (False, "NOT_GUILTY", "DISMISSED", "NONE", False)}
        and sorted(reasons) == [0, 0, 1, 2]
        and {refusal["error"] for refusal in found["refusals"]} == {"ChunkIsRight", "NotInDelivery"}
        and any("payload" in item for item in found["detections"])
        and found["detections"][-1]["license"] == suspect
        and all(len({entry["pid"] for entry in entries}) == 3 for entries in by_case)
        and all(len({entry["digest"] for entry in entries}) == 1 for entries in by_case)
    )


def _chain(world: World) -> dict[str, Any]:
    return {
        "chain_id": int(world.node.rpc("eth_chainId"), 16),
        "hardfork": world.node.rpc("anvil_nodeInfo")["hardFork"],
        "last_block": world.block(),
    }


def _steps(world: World) -> list[dict[str, Any]]:
    names = {address: name for name, address in world.deployment.contracts.items()}
    selectors = {
        name: {abi.selector(entry): entry["name"] for entry in abi.interface(name).functions.values()}
        for name in names.values()
        if name in abi.NAMES
    }
    steps = []
    for line in (world.out / "steps.jsonl").read_text(encoding="utf-8").splitlines():
        step = json.loads(line)
        step["transactions"] = []
        for number in range(step["first_block"], step["last_block"] + 1):
            for tx in world.node.rpc("eth_getBlockByNumber", hex(number), True)["transactions"]:
                name = names.get(to_address(tx["to"]) if tx["to"] else "", "transfer")
                function = selectors.get(name, {}).get(bytes.fromhex(tx["input"][2:10]), "")
                receipt = world.node.rpc("eth_getTransactionReceipt", tx["hash"])
                step["transactions"].append(
                    {
                        "name": f"{name}.{function}" if function else name,
                        "hash": tx["hash"],
                        "from": to_address(tx["from"]),
                        "gas": int(receipt["gasUsed"], 16),
                    }
                )
        steps.append(step)
    return steps


def _model(world: World) -> dict[str, Any]:
    model = world.as_("anyone").models.get(world.facts["model_id"])
    return {
        "model_id": model.model_id,
        "owner": model.owner,
        "weights_root": to_hex(model.record.weights_root),
        "total_bytes": model.record.total_bytes,
        "chunks": model.record.chunks,
        "metadata_cid": model.metadata_cid,
        "preferences": model.status.preferences,
        "collaborator_bps": model.royalties.collaborators[0].bps,
    }


def _orders(world: World) -> list[dict[str, Any]]:
    client = world.as_("anyone")
    escrow = client.deployment.contract("LicenseEscrow")
    refunds = {event["licenseId"]: event for event in client.chain.events(escrow, "OrderRefunded")}
    found = []
    for order in client.orders.list():
        license_id = order.delivery.license_id
        refund = refunds.get(license_id)
        found.append(
            {
                "license_id": license_id,
                "buyer": order.delivery.buyer,
                "state": OrderState(client.orders.state(license_id).state).name,
                "price": order.sale.price,
                "bond": order.sale.bond,
                "copy_root": to_hex(order.delivery.copy_root),
                "refund_reason": refund["reason"] if refund else 0,
                "refund": refund["refund"] if refund else 0,
                "penalty": refund["penalty"] if refund else 0,
            }
        )
    return found


def _cases(world: World) -> list[dict[str, Any]]:
    client = world.as_("anyone")
    escrow = client.deployment.contract("LicenseEscrow")
    cured = {
        event["caseId"] for event in client.chain.events(client.deployment.contract("MisuseCourt"), "Cured")
    }
    executed = {event["caseId"]: event for event in client.chain.events(escrow, "CaseExecuted")}
    found = []
    for case in client.cases.list():
        assert case.posted is not None
        done = executed.get(case.case_id)
        found.append(
            {
                "case_id": to_hex(case.case_id),
                "kind": case.file.kind.name,
                "license_id": case.file.license_id,
                "model_id": case.file.model_id,
                "reporter": case.file.reporter,
                "bond": case.file.bond,
                "state": case.state.name,
                "decision": case.posted.verdict.decision.name,
                "bucket": case.posted.verdict.bucket,
                "samples": case.posted.verdict.samples,
                "signatures": case.posted.bitmap.bit_count(),
                "share_index": case.share_index,
                "bond_back": done["bondBack"] if done else 0,
                "slashed": done["slashed"] if done else 0,
                "reward": done["toReporter"] if done else 0,
                "to_owner": done["toOwner"] if done else 0,
                "cured": case.case_id in cured,
                "license_end": client.licenses.get(case.file.license_id).end.name
                if case.file.license_id
                else "",
            }
        )
    return found


def _operator(result: dict[str, Any]) -> dict[str, Any]:
    detection = result["detection"]
    return {
        "operator": result["operator"],
        "pid": result["pid"],
        "signer": result["signer"],
        "case_id": result["case_id"],
        "decision": result["decision"],
        "digest": result["digest"],
        "n": detection["n"],
        "T": detection["T"],
        "log2_p": detection["log2_p"],
        "log2_p_global": detection["log2_p_global"],
    }
