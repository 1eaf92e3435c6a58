"""16. Royalties are pulled, what is free is withdrawn, and the books are balanced to the last wei."""

from __future__ import annotations

from typing import Any

from devnode import ACCOUNTS, ETH_EACH
from story import onward
from story.world import ETHER, ROLES, World, private_key
from zhiyi import LocalSigner
from zhiyi.errors import TxReverted

GENESIS = ACCOUNTS * ETH_EACH * ETHER


def play(world: World) -> None:
    """Pulls every share of both models' income, withdraws, and prints every balance."""
    onward.play_tail(world)
    model_id, small = world.facts["model_id"], world.facts["small"]["model_id"]
    anyone = world.as_("anyone").royalties
    # The small model's share in its parent's income first: what an ancestor inherits is shared out like its own.
    world.sent("the parent's part of the small model's income goes up", anyone.pull_ancestor(small, 0))
    for number, owner in ((model_id, "creator"), (small, "heir")):
        waiting = anyone.claimable(number)
        if waiting["platform"]:
            world.sent(f"the platform's share of model {number} is pulled", anyone.pull_platform(number))
        if waiting["collaborator:0"]:
            world.sent(f"the collaborator's of model {number}", anyone.pull_collaborator(number, 0))
        if waiting["owner"]:
            world.sent(f"the {owner}'s of model {number}", anyone.pull_owner(number))
        assert not any(anyone.claimable(number).values()), f"model {number} has shares that nobody pulled"
    for role in ("operator1", "operator2", "operator3"):
        client = world.as_(role)
        appealed = [bytes.fromhex(row["case_id"][2:]) for row in world.facts["model_cases"]]
        for case_id in (*world.facts["cases"], *world.facts["label_cases"], *appealed):
            _claim(world, role, case_id, client.account)
    for role in (
        "creator",
        "collaborator",
        "heir",
        "buyer1",
        "buyer2",
        "buyer3",
        "reporter",
        "authority",
        "anyone",
    ):
        me = world.as_(role)
        if free := me.vault.balance():
            world.sent(f"{role} withdraws {free / ETHER:g} ETH", me.vault.withdraw(free))
        assert me.vault.balance() == 0


def _claim(world: World, role: str, case_id: bytes, account: str) -> None:
    """A signer's part of the fee, where it signed the posted verdict."""
    client = world.as_(role)
    case = client.cases.get(case_id)
    seats = [info.account for info in client.oracles.seats(case.file.epoch)]
    seat = seats.index(account)
    if case.posted is None or not case.posted.bitmap >> seat & 1:
        return
    try:
        client.cases.claim_fee(case_id, seat)
    except TxReverted as refused:
        world.say(f"{role} has no fee to claim: {refused.error_name}")


def money(world: World) -> dict[str, Any]:
    """What everybody has: wallets from the node, claims on the vault from its records, all in wei.

    The supply is what the node gave its accounts; base fees are burnt, the rest must be somewhere.
    """
    client = world.as_("anyone")
    chain, vault = client.chain, client.vault
    last = world.block()
    paid, burnt, seen = _gas(world, last)
    signers = {
        (world.out / role / "signer.key").read_text().strip(): role
        for role in ROLES
        if role[:8] == "operator"
    }
    names = {world.address(role): role for role in ROLES}
    names |= {LocalSigner(key).address: f"{role}.signer" for key, role in signers.items()}
    names |= {address: name for name, address in world.deployment.contracts.items()}
    names |= {LocalSigner(private_key(i)).address: f"unused{i}" for i in range(len(ROLES), ACCOUNTS)}
    for address in seen - set(names):
        names[address] = "fees" if int(address, 16) == 0 else "other"
    rows: list[dict[str, Any]] = []
    for address, name in sorted(names.items(), key=lambda item: item[1]):
        stake = vault.stake_of(address)
        genesis = ETH_EACH * ETHER if name in ROLES or name.startswith("unused") else 0
        rows.append(
            {
                "name": name,
                "address": address,
                "before": genesis,
                "wallet": chain.balance(address),
                "vault_free": vault.balance(address),
                "stake": stake.staked,
                "gas_paid": paid.get(address, 0),
            }
        )
    held = chain.balance(world.deployment.contracts["LicenseEscrow"])
    licenses = client.licenses.list()
    cases = client.cases.list()
    parts = {
        "free": sum(row["vault_free"] for row in rows),
        "stakes": sum(row["stake"] for row in rows),
        "bonds": sum(client.licenses.bond(item.license_id).amount for item in licenses),
        "case_bonds": sum(vault.case_bond_of(case.case_id) for case in cases),
        "royalties": sum(vault.royalty_of(model.model_id).balance for model in client.models.list()),
        "channels": vault.channel_funds(),
    }
    return {
        "accounts": rows,
        "vault": parts | {"held": held},
        "vault_error": held - sum(parts.values()),
        "genesis": GENESIS,
        "burnt": burnt,
        "balance_error": sum(row["wallet"] for row in rows) + burnt - GENESIS,
    }


def _gas(world: World, last: int) -> tuple[dict[str, int], int, set[str]]:
    """(wei each sender paid for gas, wei burnt, all addresses that sent, received, or took fees)."""
    from zhiyi.types import to_address

    paid: dict[str, int] = {}
    burnt, seen = 0, set()
    for number in range(1, last + 1):
        block = world.node.rpc("eth_getBlockByNumber", hex(number), True)
        burnt += int(block["gasUsed"], 16) * int(block["baseFeePerGas"], 16)
        seen.add(to_address(block["miner"]))
        for tx in block["transactions"]:
            receipt = world.node.rpc("eth_getTransactionReceipt", tx["hash"])
            sender = to_address(tx["from"])
            paid[sender] = paid.get(sender, 0) + int(receipt["gasUsed"], 16) * int(
                receipt["effectiveGasPrice"], 16
            )
            seen |= {to_address(a) for a in (tx["from"], tx.get("to"), receipt.get("contractAddress")) if a}
    return paid, burnt, seen
