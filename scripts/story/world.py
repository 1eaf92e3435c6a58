"""The stage: node, IPFS, contracts, roles; what happens on it is written to build/demo as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from devnode import MNEMONIC, Node
from zhiyi import LocalSigner, Zhiyi
from zhiyi.chain import TxResult
from zhiyi.deployment import Deployment

Account.enable_unaudited_hdwallet_features()

ROLES = (
    "deployer",  # also holds every administrative role; a multisig on a real chain
    "creator",
    "collaborator",
    "buyer1",
    "buyer2",
    "buyer3",
    "fingerprinter",
    "cheat",
    "reporter",
    "liar",
    "operator1",
    "operator2",
    "operator3",
    "registrar",
    "authority",
    "treasury",
    "anyone",
    "issuer",  # of identities
    "regulator",
    "heir",  # buys the small model's copyright
)
ETHER = 10**18


def private_key(index: int) -> bytes:
    """The key of the node's development account `index`."""
    return bytes(Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}").key)


@dataclass
class World:
    """Everything the chapters share. One `Zhiyi` client a role, as if each sat at its own desk."""

    out: Path
    node: Node
    ipfs_api: str
    deployment: Deployment
    model: Path
    console: Console
    facts: dict[str, Any] = field(default_factory=dict)
    _clients: dict[str, Zhiyi] = field(default_factory=dict)
    _chapter: int = 0

    def key(self, role: str) -> bytes:
        """Private key of a role's account."""
        return private_key(ROLES.index(role))

    def address(self, role: str) -> str:
        """Account of a role."""
        return str(Account.from_key(self.key(role)).address)

    def as_(self, role: str) -> Zhiyi:
        """The SDK as `role` uses it."""
        if role not in self._clients:
            self._clients[role] = Zhiyi.connect(
                self.node.url,
                signer=LocalSigner(self.key(role)),
                deployment=self.deployment,
                ipfs=self.ipfs_api,
            )
        return self._clients[role]

    def folder(self, *parts: str) -> Path:
        """A folder under the demo's output, made if missing."""
        path = self.out.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def chapter(self, title: str, title_zh: str) -> Iterator[None]:
        """Prints the title in both languages, times what happens inside, and writes its block range to steps.jsonl."""
        self._chapter += 1
        self.console.rule(f"[bold]{self._chapter}. {title} · {title_zh}")
        first, started = self.block() + 1, time.monotonic()
        yield
        self.node.mine()
        seconds = round(time.monotonic() - started, 1)
        line = {
            "n": self._chapter,
            "title": title,
            "title_zh": title_zh,
            "first_block": first,
            "last_block": self.block(),
            "seconds": seconds,
        }
        with (self.out / "steps.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.console.print(f"   [dim]{seconds} s[/dim]")

    def block(self) -> int:
        """Number of the latest block."""
        return int(self.node.rpc("eth_blockNumber"), 16)

    def say(self, text: str) -> None:
        """One plain sentence of the story."""
        self.console.print(f"   {text}", highlight=False)

    def sent(self, text: str, result: TxResult) -> TxResult:
        """A sentence about a mined transaction, with its gas and hash; then two blocks make it final."""
        self.say(f"{text}  [dim]gas {result.gas_used:,} · {result.tx_hash[:18]}…[/dim]")
        self.node.mine()
        return result

    def earned(self, model_id: int, source: str, amount: int) -> None:
        """Notes what a chapter brought a model, wei; the books must say the same."""
        by = self.facts.setdefault("income", {}).setdefault(model_id, {})
        by[source] = by.get(source, 0) + amount

    def refused(self, what: str, license_id: int, chunk: int, error: str) -> None:
        """Notes a complaint that the contract refused."""
        entry = {"what": what, "license_id": license_id, "chunk": chunk, "error": error}
        self.facts.setdefault("refusals", []).append(entry)

    @contextmanager
    def bar(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar; yields the callback (done, total) that the SDK and the marks take."""
        columns = (
            TextColumn("   {task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total or 1)
