"""`python -m zhiyi_frontend` on a real node, the real contracts and a real IPFS node: what is registered appears."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account

from zhiyi import LocalSigner, Zhiyi, metadata
from zhiyi.chain import Chain, ChainOptions
from zhiyi.ipfs import Ipfs
from zhiyi.ipfs_node import EmbeddedNode
from zhiyi.types import ModelRecord, Preference, Preferences

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
SECONDS = 30  # for the page to follow; it takes one or two


def h(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Zhiyi, Path]]:
    """A node with the deployed contracts, IPFS, and a creator."""
    import deploy
    import devnode
    from contracts_plan import CourtParams, Params

    folder = tmp_path_factory.mktemp("page")
    Account.enable_unaudited_hdwallet_features()
    keys = [
        bytes(Account.from_mnemonic(devnode.MNEMONIC, account_path=f"m/44'/60'/0'/0/{i}").key)
        for i in range(2)
    ]
    admin, creator = (LocalSigner(key) for key in keys)
    with devnode.Node() as node, EmbeddedNode(folder / "ipfs") as ipfs:
        options = ChainOptions(poll=0.01, receipt_timeout=20.0)
        params = Params(
            admin=admin.address,
            treasury=admin.address,
            appeal_authority=admin.address,
            last_instance=admin.address,
            holders={"REGISTRAR": (admin.address,)},
            admin_delay=0,
            min_threshold=2,
            court=CourtParams(),
        )
        book = deploy.deploy(Chain(node.url, signer=admin, options=options), params)
        book.save(folder / "deployment.json")
        yield Zhiyi.connect(node.url, signer=creator, deployment=book, ipfs=ipfs.api, options=options), folder


@pytest.fixture(scope="module")
def site(system: tuple[Zhiyi, Path]) -> Iterator[str]:
    client, folder = system
    environment = {
        **os.environ,
        "ZHIYI_RPC": client.chain.urls[0],
        "ZHIYI_DEPLOYMENT": str(folder / "deployment.json"),
        "ZHIYI_IPFS": client.ipfs.api,
        "ZHIYI_INDEX": f"sqlite:///{folder / 'index.db'}",
        "ZHIYI_PAGE_SYNC_SECONDS": "0.2",
    }
    command = [sys.executable, "-m", "zhiyi_frontend", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout is not None
        yield page.stdout.readline().strip().rstrip("/")
        page.send_signal(signal.SIGTERM)
        assert page.wait(20) == 0


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def eventually(url: str, expected: str) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        status, text = get(url)
        if status == 200 and expected in text:
            return text
        time.sleep(0.1)
    pytest.fail(f"{expected!r} did not appear at {url}")


def test_a_registered_model_appears_with_its_name(system: tuple[Zhiyi, Path], site: str) -> None:
    client, _ = system
    eventually(f"{site}/readyz", "ready")
    preferences = Preferences(ai_inference=Preference.ALLOWED)
    document = metadata.build(
        name="山水 <b>bold</b>",
        description="A model.",
        preferences=preferences,
        model={"weights_root": h("w")},
    )
    cid = Ipfs(client.ipfs.api).add_bytes(metadata.encode(document))
    record = ModelRecord(
        weights_root=h("w"),
        total_bytes=4096,
        chunks=4,
        chunk_size=1024,
        detector_hash=h("d"),
        trace_key_commit=h("t"),
        range_hash=h("r"),
    )
    model_id = client.models.register(record, cid, preferences).model_id
    html = eventually(f"{site}/zh/models/{model_id}", "山水")
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert "待审核" in html
    assert "链上为准" not in html
    assert client.account in eventually(f"{site}/en/", "山水")
    assert get(f"{site}/healthz")[0] == 200


def test_the_server_refuses_what_is_too_large(site: str) -> None:
    status, _ = get(f"{site}/en/?below={'9' * 20_000}")
    assert status in (400, 414, 431)


def test_settings_that_cannot_be_used_end_with_3(tmp_path: Path) -> None:
    for listen, extra in (
        ("127.0.0.1:0", {"ZHIYI_PAGE_SYNC_SECONDS": "never"}),
        ("127.0.0.1:0", {}),
        ("nonsense", {}),
    ):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ZHIYI_")} | extra
        environment |= {"ZHIYI_INDEX": f"sqlite:///{tmp_path / 'index.db'}"}
        command = [sys.executable, "-m", "zhiyi_frontend", "--listen", listen]
        if listen == "nonsense":
            command.append("--no-sync")
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode == 3, ended.stderr
        assert ended.stderr
