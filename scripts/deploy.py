#!/usr/bin/env python3
"""Deploys the system on any EVM chain and writes its address book.

    scripts/deploy.py --rpc URL --key-file FILE --out deployment.json --admin 0x… --treasury 0x… \\
        --appeal-authority 0x… --last-instance 0x…

The bytecode is Ape's (`make contracts`), the steps are `contracts_plan.plan`. Checks chain id, Cancun opcodes and the
precompiles that complaints need before anything is sent, and every address and the roles after.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from contracts_plan import CONTRACTS, ROLES, Deploy, Params, Step, plan
from zhiyi.chain import Chain, TxResult
from zhiyi.deployment import Contract, Deployment
from zhiyi.errors import ConfigError, ZhiyiError
from zhiyi.signers import LocalSigner

MANIFEST = Path(__file__).resolve().parents[1] / ".build" / "__local__.json"
# PUSH1 1 PUSH1 0 TSTORE PUSH1 0 TLOAD PUSH1 0 MSTORE PUSH1 32 PUSH1 0 RETURN: 1 where EIP-1153 is known.
TRANSIENT_PROBE = bytes.fromhex("600160005d60005c60005260206000f3")
SHA256_EMPTY = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def artifacts() -> dict[str, Any]:
    """Ape's contract types by name. Raises ConfigError when nothing was compiled."""
    try:
        return cast("dict[str, Any]", json.loads(MANIFEST.read_text(encoding="utf-8"))["contractTypes"])
    except (OSError, KeyError, ValueError) as exc:
        raise ConfigError(f"{MANIFEST} has no compiled contracts ({exc}): run `make contracts`") from exc


def check_chain(chain: Chain) -> None:
    """Raises ConfigError on a chain where the contracts would deploy but not work."""
    probe = chain.rpc("eth_call", {"data": "0x" + TRANSIENT_PROBE.hex()}, "latest")
    if int(probe, 16) != 1:
        raise ConfigError(
            "this chain does not know EIP-1153 (transient storage): it needs the Cancun upgrade for these contracts"
        )
    empty = chain.rpc("eth_call", {"to": "0x" + "02".rjust(40, "0"), "data": "0x"}, "latest")
    if bytes.fromhex(empty[2:]) != SHA256_EMPTY:
        raise ConfigError(
            "this chain's SHA-256 precompile (address 2) does not answer: complaints could not be judged"
        )


def deploy(
    chain: Chain, params: Params, say: Callable[[str, TxResult], None] = lambda text, result: None
) -> Deployment:
    """Runs the plan from the chain's signer. Raises ZhiyiError; a half-run plan holds no money."""
    check_chain(chain)
    types = artifacts()
    missing = [name for name in CONTRACTS if name not in types]
    if missing:
        raise ConfigError(f"not compiled: {', '.join(missing)}; run `make contracts`")
    nonce = int(chain.rpc("eth_getTransactionCount", chain.account, "latest"), 16)
    steps = plan(chain.account, nonce, params)
    at = {step.name: step.address for step in steps if isinstance(step, Deploy)}
    first = chain.block().number + 1
    for step in steps:
        say(*_run(chain, step, types, at))
    book = Deployment(chain_id=chain.chain_id, contracts=at, block=first, deployer=chain.account)
    book.check(chain)
    manager = Contract("AccessManager", at["AccessManager"], book.contract("AccessManager").interface)
    is_admin, _ = chain.call(manager, "hasRole", ROLES["ADMIN"], params.admin)
    if not is_admin:
        raise ConfigError(f"{params.admin} did not become administrator of {at['AccessManager']}")
    return book


def _run(chain: Chain, step: Step, types: dict[str, Any], at: dict[str, str]) -> tuple[str, TxResult]:
    abi = types[step.name]["abi"]
    if isinstance(step, Deploy):
        bytecode = types[step.name]["deploymentBytecode"]["bytecode"]
        data = chain.w3.eth.contract(abi=abi, bytecode=bytecode).constructor(*step.args).data_in_transaction
        result = chain.transact(None, bytes.fromhex(data[2:]) if isinstance(data, str) else bytes(data))
        found = result.receipt["contractAddress"]
        if found.lower() != step.address.lower():
            raise ConfigError(
                f"{step.name} landed at {found}, the plan expects {step.address}: is the account in use?"
            )
        return f"{step.name} at {step.address}", result
    contract = chain.w3.eth.contract(address=cast(Any, at[step.name]), abi=abi)
    data = contract.encode_abi(step.function, list(step.args))
    return f"{step.name}.{step.function}", chain.transact(at[step.name], bytes.fromhex(data[2:]))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rpc", required=True)
    parser.add_argument(
        "--key-file", type=Path, required=True, help="file with the deployer's private key, hex"
    )
    parser.add_argument("--out", type=Path, required=True, help="address book to write")
    parser.add_argument("--admin", required=True, help="a multisig; gets ADMIN with two days' delay")
    parser.add_argument("--treasury", required=True)
    parser.add_argument("--appeal-authority", required=True)
    parser.add_argument("--last-instance", required=True)
    parser.add_argument(
        "--holder",
        action="append",
        default=[],
        metavar="ROLE=ADDRESS",
        help=f"repeatable; roles: {', '.join(ROLES)}",
    )
    args = parser.parse_args()
    holders: dict[str, tuple[str, ...]] = {}
    for item in args.holder:
        role, _, account = item.partition("=")
        holders[role] = (*holders.get(role, ()), account)
    try:
        key = args.key_file.read_text(encoding="utf-8").strip()
        chain = Chain(args.rpc, signer=LocalSigner(key))
        params = Params(
            admin=args.admin,
            treasury=args.treasury,
            appeal_authority=args.appeal_authority,
            last_instance=args.last_instance,
            holders=holders,
        )
        book = deploy(chain, params, lambda text, result: print(f"{text}  gas {result.gas_used:,}"))
    except (ZhiyiError, OSError, ValueError) as exc:
        print(f"deploy: {exc}", file=sys.stderr)
        return 1
    book.save(args.out)
    print(f"address book: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
