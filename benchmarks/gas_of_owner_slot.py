"""Gas of an ERC-721 with 96 bits of status in the owner's slot and in a slot of its own: docs/decisions/0002."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from web3 import Web3

from gas_of_delivery import ROOT, node

SOURCE = "benchmarks/solidity/OwnerSlot.sol"
STATUS = 0x0123456789ABCDEF01234567


def compiled() -> dict[str, Any]:
    """Both contracts with the project's settings."""
    settings = {
        "viaIR": True,
        "evmVersion": "cancun",
        "optimizer": {"enabled": True, "runs": 200},
        "remappings": [
            "@openzeppelin/contracts=node_modules/@openzeppelin/contracts",
            "solady=node_modules/solady/src",
        ],
        "outputSelection": {SOURCE: {"*": ["abi", "evm.bytecode.object"]}},
    }
    sources = {SOURCE: {"content": (ROOT / SOURCE).read_text()}}
    request = json.dumps({"language": "Solidity", "sources": sources, "settings": settings})
    made = subprocess.run(
        [str(ROOT / "tools" / "solc"), "--standard-json", "--base-path", str(ROOT)],
        input=request,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SOLC_JS_DIR": str(ROOT / "node_modules" / "solc")},
    )
    output = json.loads(made.stdout)
    errors = [e["formattedMessage"] for e in output.get("errors", []) if e["severity"] == "error"]
    if errors:
        raise RuntimeError(errors[0])
    return dict(output["contracts"][SOURCE])


def measure(web3: Web3, made: Any) -> dict[str, int]:
    """Whole transactions; the owner has a token before."""
    owner = web3.eth.accounts[0]

    def gas(sent: Any) -> int:
        return int(web3.eth.wait_for_transaction_receipt(sent)["gasUsed"])

    factory = web3.eth.contract(abi=made["abi"], bytecode=made["evm"]["bytecode"]["object"])
    receipt = web3.eth.wait_for_transaction_receipt(factory.constructor().transact({"from": owner}))
    token = web3.eth.contract(address=receipt["contractAddress"], abi=made["abi"]).functions
    gas(token.mint(owner, 1, STATUS).transact({"from": owner}))
    return {
        "mint with status, the owner's next": gas(token.mint(owner, 2, STATUS).transact({"from": owner})),
        "read owner and status": gas(token.read(2).transact({"from": owner})),
        "change status": gas(token.set(2, STATUS + 1).transact({"from": owner})),
        "transfer": gas(token.transferFrom(owner, web3.eth.accounts[1], 1).transact({"from": owner})),
    }


def main() -> int:
    contracts = compiled()
    with node() as web3:
        packed, apart = measure(web3, contracts["Packed"]), measure(web3, contracts["Apart"])
    print("| operation | one slot (solady) | two slots (OpenZeppelin) | saved |")
    print("|---|---|---|---|")
    for name in packed:
        print(f"| {name} | {packed[name]:,} | {apart[name]:,} | {apart[name] - packed[name]:,} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
