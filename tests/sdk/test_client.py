"""Connecting, the address book, and the asyncio client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHAIN_ID, FAST, Clients, key_of

from zhiyi import AsyncZhiyi, Deployment, LocalSigner, Zhiyi
from zhiyi.errors import ConfigError, NotFound, RpcUnavailable, WrongChain


def test_connect_by_file_object_and_environment(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sub" / "deployment.json"
    clients.deployment.save(path)
    assert Deployment.load(path) == clients.deployment
    url = clients.node.url
    assert Zhiyi.connect(url, deployment=path).deployment == clients.deployment
    assert Zhiyi.connect(url, deployment=clients.deployment).chain.chain_id == CHAIN_ID
    monkeypatch.setenv("ZHIYI_DEPLOYMENT", str(path))
    client = Zhiyi.connect(url)
    assert client.models.list() == ()
    with pytest.raises(ConfigError, match="signer"):
        _ = client.account
    assert client.with_signer(LocalSigner(key_of("buyer"))).account == clients["buyer"].account
    with pytest.raises(ConfigError, match="IPFS"):
        _ = client.ipfs


def test_missing_or_malformed_deployments_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZHIYI_DEPLOYMENT", raising=False)
    with pytest.raises(ConfigError, match="ZHIYI_DEPLOYMENT"):
        Deployment.load()
    with pytest.raises(RpcUnavailable):  # it has to be asked which chain it is
        Zhiyi.connect("http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"chain 999999.*ZHIYI_DEPLOYMENT"):
        Deployment.load(chain_id=lambda: 999_999)
    path = tmp_path / "d.json"
    with pytest.raises(ConfigError, match="cannot be read"):
        Deployment.load(path)
    for text in ("", "{}", "[]", "x" * 100_000, '{"chain_id":0,"contracts":{},"block":0,"deployer":"0x"}'):
        path.write_text(text)
        with pytest.raises(ConfigError):
            Deployment.load(path)


def test_deployment_of_another_chain_or_a_reset_node_is_refused(clients: Clients) -> None:
    other = clients.deployment.model_copy(update={"chain_id": 1})
    with pytest.raises(WrongChain):
        Zhiyi.connect(clients.node.url, deployment=other)
    moved = {**clients.deployment.contracts, "ModelNFT": "0x" + "42" * 20}
    with pytest.raises(ConfigError, match="ModelNFT has no code"):
        Zhiyi.connect(clients.node.url, deployment=clients.deployment.model_copy(update={"contracts": moved}))
    fewer = {k: v for k, v in clients.deployment.contracts.items() if k != "MisuseCourt"}
    with pytest.raises(ConfigError, match="MisuseCourt"):
        Zhiyi.connect(clients.node.url, deployment=clients.deployment.model_copy(update={"contracts": fewer}))


def test_async_client_has_every_method_of_the_sync_one(clients: Clients) -> None:
    sync = clients["creator"]
    client = AsyncZhiyi(sync)
    for name, group in vars(sync).items():
        if name.startswith("_") or name in ("deployment",):
            continue
        for method in dir(group):
            if not method.startswith("_") and callable(getattr(group, method)) and method != "w3":
                assert callable(getattr(getattr(client, name), method)), f"{name}.{method}"


def test_async_client_reads_and_writes(clients: Clients) -> None:
    async def story() -> None:
        signer = LocalSigner(key_of("creator"))
        client = await AsyncZhiyi.connect(
            clients.node.url, signer=signer, deployment=clients.deployment, options=FAST
        )
        results = await asyncio.gather(*(client.vault.deposit(1) for _ in range(5)))
        assert {r.status for r in results} == {"mined"}
        assert await client.vault.balance() == 5
        with pytest.raises(NotFound):
            await client.models.get(1)
        with pytest.raises(AttributeError):
            _ = client.models.nothing

    asyncio.run(story())


def test_import_is_light() -> None:
    code = (
        "import sys, json, zhiyi, zhiyi.types, zhiyi.errors, zhiyi.client;"
        "print(json.dumps([m for m in ('torch','transformers','ape','web3','numpy') if m in sys.modules]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(found.stdout) == []
