"""A real Anvil node as a child process, with time travel and a state file that outlives it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from json import dumps, loads
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHAIN_ID = 31337
MNEMONIC = "test test test test test test test test test test test junk"
ACCOUNTS = 20
ETH_EACH = 10_000
START_SECONDS = 90.0  # a busy machine has been seen to need 20


class NodeError(RuntimeError):
    """The node could not be started or stopped answering."""


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def anvil_path() -> str:
    """The pinned Anvil, else one on PATH.

    Raises NodeError when neither is there."""
    pinned = ROOT / "node_modules" / ".bin" / "anvil"
    found = str(pinned) if pinned.exists() else shutil.which("anvil")
    if not found:
        raise NodeError(
            "anvil was not found in node_modules/.bin nor on PATH: run `make setup`, or install Foundry"
        )
    return found


class Node:
    """`anvil` on loopback, Prague rules, one slot an epoch so that `finalized` lags two blocks."""

    def __init__(
        self,
        *,
        port: int | None = None,
        state: Path | None = None,
        load: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._state, self._load, self._options = state, load, options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Node:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", self.port)) == 0:
                raise NodeError(
                    f"port {self.port} is in use by another program: stop it, or choose another with --rpc-port"
                )
        command = [
            anvil_path(),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--silent",
            "--hardfork",
            "prague",
        ]
        command += ["--slots-in-an-epoch", "1", "--chain-id", str(CHAIN_ID), "--mnemonic", MNEMONIC]
        command += ["--accounts", str(ACCOUNTS), "--balance", str(ETH_EACH)]
        if self._state:
            command += ["--dump-state", str(self._state)]
        if self._load:
            command += ["--load-state", str(self._load)]
        command += self._options
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise NodeError(f"anvil ended at once with status {self._process.returncode}")
            try:
                if int(self.rpc("eth_chainId"), 16) == CHAIN_ID:
                    return self
            except (OSError, ValueError):  # not listening yet, or half an answer
                time.sleep(0.05)
        self.__exit__()
        raise NodeError(f"anvil did not answer on port {self.port} within {START_SECONDS:.0f} s")

    def __exit__(self, *_: object) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()  # anvil writes the state file on SIGTERM
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def rpc(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call; raises NodeError with the node's message."""
        body = dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            reply = loads(answer.read())
        if "error" in reply:
            raise NodeError(f"{method}: {reply['error'].get('message', reply['error'])}")
        return reply["result"]

    def mine(self, blocks: int = 2) -> None:
        """Two blocks make what went before final."""
        self.rpc("anvil_mine", hex(blocks))

    def travel(self, seconds: int) -> None:
        """Moves the chain's clock forward and mines two blocks."""
        self.rpc("evm_increaseTime", seconds)
        self.mine()

    def now(self) -> int:
        """Timestamp of the latest block: the only clock that the story knows."""
        return int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
