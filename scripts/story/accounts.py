"""8. Royalties are pulled, what is free is withdrawn, and the books are balanced to the last wei."""

from __future__ import annotations

from typing import Any

from devnode import ACCOUNTS, ETH_EACH
from story.world import ETHER, ROLES, World, private_key
from zhiyi import LocalSigner
from zhiyi.errors import TxReverted

GENESIS = ACCOUNTS * ETH_EACH * ETHER


def play(world: World) -> None:
    """Pulls every share of the model's income, withdraws, and prints every balance."""
    model_id = world.facts["model_id"]
    anyone = world.as_("anyone").royalties
    world.sent("the platform's share is pulled", anyone.pull_platform(model_id))
    world.sent(
        "the collaborator's 10 % is pulled", anyone.pull_collaborator(model_id, world.address("collaborator"))
    )
    world.sent("the owner's share is pulled", anyone.pull_owner(model_id))
    for role in ("creator", "collaborator", "buyer3", "reporter"):
        me = world.as_(role)
        if free := me.vault.balance():
            world.sent(f"{role} withdraws {free / ETHER:g} ETH", me.vault.withdraw(free))
    for role, client in ((r, world.as_(r)) for r in ("operator1", "operator2", "operator3")):
        for case_id in world.facts["cases"]:
            _claim(world, role, case_id, client.account)


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
    rows = []
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
