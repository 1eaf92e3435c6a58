"""Gas of one chunk check as a whole transaction on Anvil under Prague rules, for a 4 GiB file."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from web3 import Web3
from web3.providers.rpc import HTTPProvider

from zhiyi.delivery.hashing import delivery_leaves, keystream_xor, plain_leaves

ROOT = Path(__file__).resolve().parent.parent
FILE_BYTES = 4 << 30
HARNESS = "contracts/test/DeliveryHarness.sol"
OTHERS = "benchmarks/solidity/DeliveryAlternatives.sol"
LIBRARY = "contracts/libraries/FairDelivery.sol"
BINARIES = ROOT / "node_modules" / ".bin"


@contextmanager
def node() -> Iterator[Web3]:
    """A fresh Anvil under Prague rules on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(BINARIES / "anvil"), "--port", str(port), "--hardfork", "prague", "--silent"]
    )
    try:
        web3 = Web3(HTTPProvider(f"http://127.0.0.1:{port}"))
        for _ in range(200):
            if web3.is_connected():
                break
            time.sleep(0.05)
        info = web3.provider.make_request("anvil_nodeInfo", [])["result"]  # type: ignore[arg-type]
        if str(info["hardFork"]).lower() != "prague":
            raise RuntimeError(f"the node runs {info['hardFork']} rules, Prague is needed")
        yield web3
    finally:
        process.terminate()
        process.wait()


def compiled() -> dict[str, Any]:
    """Both contracts with the project's settings: via IR, 200 optimizer runs, cancun."""
    sources = {name: {"content": (ROOT / name).read_text()} for name in (HARNESS, OTHERS, LIBRARY)}
    wanted = {"*": {"*": ["abi", "evm.bytecode.object"]}}
    settings = {
        "viaIR": True,
        "evmVersion": "cancun",
        "optimizer": {"enabled": True, "runs": 200},
        "outputSelection": wanted,
    }
    request = json.dumps({"language": "Solidity", "sources": sources, "settings": settings})
    made = subprocess.run(
        [str(ROOT / "tools" / "solc"), "--standard-json"],
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
    return {
        "harness": output["contracts"][HARNESS]["DeliveryHarness"],
        "others": output["contracts"][OTHERS]["DeliveryAlternatives"],
    }


def measure(sizes: tuple[int, ...]) -> list[tuple[str, int, int]]:
    """(keystream, chunk size, gas) for each; every check is run honest and wrong, and must answer so."""
    rows = []
    with node() as web3:
        contracts = {name: _deploy(web3, made) for name, made in compiled().items()}
        for size in sizes:
            for keystream in ("chacha20", "chacha20_rows", "blake2b_ctr"):
                for wrong in (False, True):
                    proof = _proof(size, keystream, wrong)
                    if keystream == "chacha20":
                        function = contracts["harness"].functions.spend(*proof[:3], 1, *proof[3:])
                    else:
                        name = "chachaRows" if keystream == "chacha20_rows" else "blake2bCtr"
                        function = getattr(contracts["others"].functions, name)(proof)
                    sent = function.transact({"from": web3.eth.accounts[0]})
                    receipt = web3.eth.wait_for_transaction_receipt(sent)
                    if int.from_bytes(receipt["logs"][0]["data"], "big") != wrong:
                        raise RuntimeError(f"{keystream} with {size} bytes answered {not wrong}")
                rows.append((keystream, size, int(receipt["gasUsed"])))
    return rows


def _deploy(web3: Web3, made: Any) -> Any:
    factory = web3.eth.contract(abi=made["abi"], bytecode=made["evm"]["bytecode"]["object"])
    receipt = web3.eth.wait_for_transaction_receipt(
        factory.constructor().transact({"from": web3.eth.accounts[0]})
    )
    return web3.eth.contract(address=receipt["contractAddress"], abi=made["abi"])


def _proof(size: int, keystream: str, wrong: bool) -> tuple[Any, ...]:
    noise = random.Random(size)
    chunks = -(-FILE_BYTES // size)
    index, key, data = chunks * 3 // 5, noise.randbytes(32), noise.randbytes(size)
    cipher = bytearray(size)
    if keystream == "blake2b_ctr":
        first = index * size // 64
        stream = b"".join(
            blake2b((first + k).to_bytes(8, "little"), key=key).digest() for k in range(size // 64)
        )
        cipher[:] = bytes(a ^ b for a, b in zip(data, stream, strict=True))
    else:
        keystream_xor(key, index * size, data, cipher)
    leaf = noise.randbytes(32) if wrong else plain_leaves(index, data, size)
    at, path = delivery_leaves(index, cipher, size, leaf), []
    for level in range((chunks - 1).bit_length()):
        step = noise.randbytes(32)
        path.append(step)
        at = sha256(b"\x01" + (step + at if index >> level & 1 else at + step)).digest()
    return at, chunks, size, key, index, bytes(cipher), leaf, path
