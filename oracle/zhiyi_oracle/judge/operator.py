"""One operator put together from its settings, and the checks it makes of itself before it starts."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from zhiyi.client import Zhiyi
from zhiyi.errors import BadInput, ConfigError, ZhiyiError
from zhiyi.ipfs import Ipfs
from zhiyi.keys import SCHEMA as KEY_SCHEMA
from zhiyi.keys import KeyKind, load_key, public_key
from zhiyi.signers import KeystoreSigner, LocalSigner
from zhiyi.types import Role
from zhiyi_oracle.errors import OracleError
from zhiyi_oracle.judge.chain_ledger import ChainLedger, ChainPoster
from zhiyi_oracle.judge.config import GIB, JudgeConfig
from zhiyi_oracle.judge.detect import InProcess
from zhiyi_oracle.judge.fetch import IpfsFetcher
from zhiyi_oracle.judge.http import HttpServer, create_app
from zhiyi_oracle.judge.serve import Server
from zhiyi_oracle.judge.service import Judge, Metrics, Parts
from zhiyi_oracle.judge.store import CaseStore
from zhiyi_oracle.judge.submit import Carrier, Submitter
from zhiyi_oracle.secret_files import read_secret

ETHER: Final = 10**18


@dataclass(frozen=True)
class Operator:
    """A judge, its page and what they stand on."""

    judge: Judge
    server: HttpServer
    store: CaseStore
    client: Zhiyi

    def run(self, stop: threading.Event, poll_s: float) -> None:
        """Serves and steps until `stop` is set."""
        self.server.start()
        try:
            self.judge.run(stop, poll_s)
        finally:
            self.server.stop()
            self.store.close()


def load_signer(config: JudgeConfig) -> LocalSigner:
    """The key that signs verdicts: hex, a plain key file of `zhiyi keys`, or a keystore v3 with its password file.

    Raises ConfigError.
    """
    path = config.operator.signer_key_file
    text = read_secret(path)
    if f'"{KEY_SCHEMA}"' in text:
        return LocalSigner(load_key(path, KeyKind.SIGNER).secret)
    if text.startswith("{"):
        password = config.operator.signer_password_file
        if password is None:
            raise ConfigError(
                f"{path} is a keystore; set operator.signer_password_file to the file with its password"
            )
        return KeystoreSigner(path, read_secret(password))
    try:
        return LocalSigner(text if text.startswith("0x") else f"0x{text}")
    except BadInput as exc:
        raise ConfigError(f"{path} holds no private key: {exc}") from exc


def load_encryption_key(config: JudgeConfig) -> bytes:
    """The X25519 key that opens evidence: hex, or a key file of `zhiyi keys`. Raises ConfigError."""
    path = config.operator.encryption_key_file
    text = read_secret(path)
    if text.startswith("{"):
        return load_key(path, KeyKind.ENCRYPTION).secret
    try:
        secret = bytes.fromhex(text.removeprefix("0x"))
        public_key(secret)
    except (ValueError, BadInput) as exc:
        raise ConfigError(f"{path} holds no X25519 key of 32 bytes in hex") from exc
    return secret


def connect(config: JudgeConfig) -> Zhiyi:
    """A client that signs as this operator. Raises ConfigError, WrongChain, RpcUnavailable."""
    return Zhiyi.connect(
        config.chain.rpc,
        signer=load_signer(config),
        deployment=config.chain.deployment,
        ipfs=Ipfs(config.ipfs.api, timeout=config.ipfs.timeout_s),
    )


def build(config: JudgeConfig) -> Operator:
    """Everything of one operator, not started. Raises ConfigError, WrongChain, RpcUnavailable."""
    client = connect(config)
    store = CaseStore(config.operator.folder)
    ledger, poster, metrics = ChainLedger(client), ChainPoster(client), Metrics()
    carrier = Carrier(store, poster, config.fees)
    fetcher = IpfsFetcher(
        client.ipfs,
        load_encryption_key(config),
        max_evidence_bytes=config.max_evidence_bytes,
        cache=config.operator.folder / "leaves",
    )
    judge = Judge(
        Parts(
            signer=client.account,
            store=store,
            ledger=ledger,
            fetcher=fetcher,
            detector=InProcess(),
            submitter=Submitter(
                store=store, ledger=ledger, poster=poster, carrier=carrier, signer=client.account
            ),
            server=Server(
                store=store,
                ledger=ledger,
                poster=poster,
                carrier=carrier,
                fetcher=fetcher,
                files=client.ipfs,
                signer=client.account,
                turn_delay=config.judge.turn_delay_s,
            ),
            http=httpx.Client(trust_env=False),
            metrics=metrics,
            start_block=max(config.chain.start_block, client.deployment.block),
            turn_delay=config.judge.turn_delay_s,
            dry_run=config.dry_run,
        )
    )
    app = create_app(store, metrics.registry, judge.not_ready)
    return Operator(judge, HttpServer(app, config.http.host, config.http.port), store, client)


@dataclass(frozen=True)
class Finding:
    """One check of `zhiyi oracle check`."""

    name: str
    good: bool
    found: str


def check(config: JudgeConfig) -> Iterator[Finding]:
    """Everything an operator needs, each looked at; a failing one does not hide the others."""
    yield _try("secrets", lambda: f"signer {load_signer(config).address}")
    yield _try("encryption key", lambda: "0x" + public_key(load_encryption_key(config)).hex())
    yield _try("folder", lambda: _room(config))
    try:
        client = connect(config)
    except ZhiyiError as exc:
        yield Finding("chain", False, str(exc))
        return
    yield Finding("chain", True, f"chain {client.deployment.chain_id}, block {client.chain.block().number}")
    yield _try("finalized", lambda: f"block {client.chain.block('finalized').number}")
    yield _try("balance", lambda: _balance(config, client))
    yield _try("seat", lambda: _seat(client))
    yield _try("registered key", lambda: _registered(config, client))
    yield _try("IPFS", lambda: f"Kubo {client.ipfs.version()}")


def _try(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except ZhiyiError as exc:
        return Finding(name, False, str(exc))


def _room(config: JudgeConfig) -> str:
    folder: Path = config.operator.folder
    where = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(where).free
    needed = 3 * config.max_evidence_bytes  # sealed, opened, base tensors
    if free < needed:
        raise OracleError(
            f"{where} has {free // GIB} GiB free, evidence of {config.judge.max_evidence_gib} GiB needs "
            f"{needed // GIB}; free some or lower judge.max_evidence_gib"
        )
    return f"{free // GIB} GiB free"


def _balance(config: JudgeConfig, client: Zhiyi) -> str:
    wei = client.chain.balance(client.account)
    if wei < config.fees.min_balance_ether * ETHER:
        raise OracleError(f"{client.account} has {wei} wei, less than fees.min_balance_ether; send it some")
    return f"{wei} wei"


def _seat(client: Zhiyi) -> str:
    epoch = client.oracles.current_epoch()
    return f"seat {epoch.seat(client.account)} of {len(epoch.signers)} in epoch {epoch.number}"


def _registered(config: JudgeConfig, client: Zhiyi) -> str:
    ours = public_key(load_encryption_key(config))
    for info in client.oracles.members():
        if info.member.signer == client.account and info.member.role is Role.OPERATOR:
            if info.member.encryption_key != ours:
                raise OracleError(
                    f"{info.account} registered 0x{info.member.encryption_key.hex()}, our key is 0x{ours.hex()}; "
                    "evidence is sealed to the registered one: update the registration"
                )
            return f"registered by {info.account}, at {info.url or 'no URL'}"
    raise OracleError(f"no operator registered the signer {client.account}; join the committee first")
