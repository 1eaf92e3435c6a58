"""A real Anvil node, the real contracts on it, and clients by role."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from zhiyi import LocalSigner, Zhiyi
from zhiyi.chain import Chain, ChainOptions
from zhiyi.deployment import Deployment
from zhiyi.errors import RpcUnavailable

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = Path(os.environ.get("ZHIYI_BUILD_MANIFEST", ROOT / ".build" / "__local__.json"))
MNEMONIC = "test test test test test test test test test test test junk"
CHAIN_ID = 31337
DAY = 86_400
START_SECONDS = 90.0
ETHER = 10**18
ROLES = (
    "deployer",
    "creator",
    "collaborator",
    "buyer",
    "buyer2",
    "fingerprinter",
    "reporter",
    "operator1",
    "operator2",
    "operator3",
    "registrar",
    "regulator",
    "authority",
    "treasury",
    "stranger",
)
FAST = ChainOptions(poll=0.01, receipt_timeout=20.0)

sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
Account.enable_unaudited_hdwallet_features()


def key_of(role: str) -> bytes:
    """Private key of a role: one of the node's development accounts."""
    path = f"m/44'/60'/0'/0/{ROLES.index(role)}"
    return bytes(Account.from_mnemonic(MNEMONIC, account_path=path).key)


class Node:
    """Anvil and the tests' hands on its clock."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.chain = Chain(url, options=FAST)

    def rpc(self, method: str, *params: Any) -> Any:
        return self.chain.rpc(method, *params)

    def mine(self, blocks: int = 1) -> None:
        self.rpc("anvil_mine", hex(blocks))

    def travel(self, seconds: int) -> None:
        self.rpc("evm_increaseTime", seconds)
        self.mine()


def start_anvil(
    *extra: str, chain_id: int = CHAIN_ID, hardfork: str = "prague"
) -> tuple[subprocess.Popen[bytes], str]:
    """A node on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(ROOT / "node_modules" / ".bin" / "anvil"), "--port", str(port), "--silent"]
    command += [
        "--slots-in-an-epoch",
        "1",
        "--hardfork",
        hardfork,
        "--chain-id",
        str(chain_id),
    ]
    # States in memory alone: one that Anvil reads back from disk, after some 500 blocks, has lost its contracts' code.
    command += ["--prune-history", "5000"]
    command += ["--mnemonic", MNEMONIC, "--accounts", str(len(ROLES)), *extra]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"anvil ended at once with status {process.returncode}")
        try:
            Chain(url).rpc("eth_chainId")
            return process, url
        except RpcUnavailable:
            time.sleep(0.02)
    process.kill()
    raise RuntimeError("anvil did not answer")


@pytest.fixture(scope="session")
def anvil() -> Iterator[Node]:
    process, url = start_anvil()
    yield Node(url)
    process.terminate()
    process.wait(10)


@pytest.fixture
def node(anvil: Node) -> Iterator[Node]:
    """The node, put back after the test."""
    snapshot = anvil.rpc("evm_snapshot")
    yield anvil
    anvil.rpc("evm_revert", snapshot)


@pytest.fixture(scope="session")
def deployment(anvil: Node) -> Deployment:
    """The system, by the project's own deployment script (needs `make contracts`)."""
    from contracts_plan import CourtParams, Params
    from contracts_rollout import deploy

    signer = LocalSigner(key_of("deployer"))
    chain = Chain(anvil.url, signer=signer, options=FAST)
    address = {role: LocalSigner(key_of(role)).address for role in ROLES}
    params = Params(
        admin=address["deployer"],
        treasury=address["treasury"],
        appeal_authority=address["authority"],
        last_instance=address["authority"],
        holders={
            "REGISTRAR": (address["registrar"],),
            "REGULATOR": (address["regulator"],),
            "IDENTITY_ADMIN": (address["registrar"],),
            "ORACLE_ADMIN": (address["deployer"],),
            "PAUSER": (address["deployer"],),
        },
        admin_delay=0,
        min_threshold=2,
        court=CourtParams(),
    )
    return deploy(chain, params, manifest=MANIFEST)


class Clients:
    """`clients["buyer"]`: the SDK as that role uses it."""

    def __init__(self, node: Node, deployment: Deployment) -> None:
        self.node = node
        self.deployment = deployment

    def __getitem__(self, role: str) -> Zhiyi:
        chain = Chain(self.node.url, signer=LocalSigner(key_of(role)), chain_id=CHAIN_ID, options=FAST)
        return Zhiyi(chain, self.deployment)


@pytest.fixture
def clients(node: Node, deployment: Deployment) -> Clients:
    return Clients(node, deployment)
