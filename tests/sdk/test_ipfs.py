"""The IPFS client against a real embedded Kubo node, and against a daemon that lies."""

from __future__ import annotations

import http.server
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyi.cid import cid_v0_from_digest, digest_from_cid
from zhiyi.errors import BadInput, ConfigError, IntegrityError, MissingExtra, NotFound, Timeout
from zhiyi.ipfs import LEAF_BYTES, LINKS_PER_NODE, CidHasher, Ipfs, cid_of_bytes, cid_of_file
from zhiyi.ipfs_node import EmbeddedNode

MIB = 1 << 20
ABSENT = cid_of_bytes(b"nobody ever added this")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNode]:
    with EmbeddedNode(tmp_path_factory.mktemp("ipfs")) as started:
        yield started


@pytest.fixture(scope="module")
def ipfs(node: EmbeddedNode) -> Ipfs:
    return Ipfs(node.api, timeout=20)


def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes without a period of a leaf, made quickly."""
    block = b"".join(i.to_bytes(4, "big") for i in range(seed, seed + 16_384 + 1))
    return (block * (length // len(block) + 1))[:length]


# ---- CID


def test_published_cids() -> None:
    assert cid_of_bytes(b"") == "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"
    assert cid_of_bytes(b"hello world") == "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"


@pytest.mark.parametrize(
    "length",
    [
        1,
        LEAF_BYTES - 1,
        LEAF_BYTES,
        LEAF_BYTES + 1,
        LEAF_BYTES * LINKS_PER_NODE,
        LEAF_BYTES * LINKS_PER_NODE + 1,
        LEAF_BYTES * (LINKS_PER_NODE + 1),
    ],
)
def test_the_cid_and_the_bytes_agree_with_kubo_at_the_edges_of_the_tree(ipfs: Ipfs, length: int) -> None:
    data = pattern(length)
    cid = ipfs.add_bytes(data)  # raises when Kubo names another CID than ours
    assert ipfs.cat(cid, length) == data


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2000), max_size=5))
def test_the_cid_does_not_depend_on_how_the_bytes_arrive(data: bytes, cuts: list[int]) -> None:
    hasher = CidHasher()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        hasher.update(data[start:end])
    assert hasher.cid() == cid_of_bytes(data)


def test_the_cid_of_a_file_is_the_cid_of_its_bytes(tmp_path: Path) -> None:
    data = pattern(3 * LEAF_BYTES + 7)
    (tmp_path / "file").write_bytes(data)
    seen: list[tuple[int, int]] = []
    assert cid_of_file(
        tmp_path / "file", progress=lambda done, total: seen.append((done, total))
    ) == cid_of_bytes(data)
    assert seen[-1] == (len(data), len(data))


def test_a_cid_and_its_digest_are_one_to_one() -> None:
    digest = digest_from_cid("Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD")
    assert cid_v0_from_digest(digest) == "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"
    assert digest_from_cid("ipfs://f01701220" + digest.hex()) == digest  # tokenURI of the model contract


@pytest.mark.parametrize(
    "cid", ["", "Qm", "Qm" + "0" * 44, "Qm" + "z" * 44, "bafybeigdyrzt", "../../etc/passwd", "Q" * 10_000]
)
def test_what_is_no_cid_is_refused_before_any_request(cid: str) -> None:
    with pytest.raises(BadInput):
        Ipfs("http://127.0.0.1:1").cat(cid)


# ---- real node


def test_a_large_file_goes_in_and_out_in_bounded_memory(node: EmbeddedNode, tmp_path: Path) -> None:
    source, back = tmp_path / "in", tmp_path / "out"
    with source.open("wb") as file:
        block = pattern(MIB)
        for i in range(160):
            file.write(i.to_bytes(4, "big") + block[4:])
    script = (
        "import resource, sys; from pathlib import Path; from zhiyi.ipfs import Ipfs\n"
        "ipfs = Ipfs(sys.argv[1]); ipfs.version()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "ipfs.download(ipfs.add_file(Path(sys.argv[2])), Path(sys.argv[3]), 1 << 30)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    arguments = [sys.executable, "-c", script, node.api, str(source), str(back)]
    grown_kib = int(subprocess.run(arguments, check=True, capture_output=True).stdout)
    assert cid_of_file(back) == cid_of_file(source)
    assert grown_kib < 50 * 1024
    status = Path(f"/proc/{node.pid}/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    assert peak_kib < 320 * 1024


def test_a_read_stops_at_the_limit_and_leaves_no_file(ipfs: Ipfs, tmp_path: Path) -> None:
    data = pattern(3 * MIB)
    cid = ipfs.add_bytes(data)
    with pytest.raises(BadInput, match="limit of 1048576 bytes"):
        ipfs.cat(cid, MIB)
    with pytest.raises(BadInput):
        ipfs.download(cid, tmp_path / "file", len(data) - 1)
    assert list(tmp_path.iterdir()) == []
    assert ipfs.download(cid, tmp_path / "file", len(data)) == len(data)
    assert (tmp_path / "file").read_bytes() == data


def test_a_missing_object_times_out_and_the_node_still_answers(node: EmbeddedNode, tmp_path: Path) -> None:
    impatient = Ipfs(node.api, timeout=0.5)
    for _ in range(3):
        with pytest.raises(Timeout, match="not found within"):
            impatient.cat(ABSENT)
    with pytest.raises(Timeout):
        impatient.pin(ABSENT)
    assert not impatient.has(ABSENT)
    assert Ipfs(node.api).cat(Ipfs(node.api).add_bytes(b"still here")) == b"still here"


def test_pins_are_kept_until_removed(ipfs: Ipfs) -> None:
    cid = ipfs.add_bytes(b"keep me")
    ipfs.pin(cid)
    assert ipfs.has(cid)
    ipfs.unpin(cid)
    assert not ipfs.has(cid)
    with pytest.raises(NotFound):
        ipfs.unpin(cid)


def test_data_survives_a_restart_and_two_nodes_exchange_it(tmp_path: Path) -> None:
    with EmbeddedNode(tmp_path / "one") as one:
        cid = Ipfs(one.api).add_bytes(pattern(LEAF_BYTES * 3))
    with EmbeddedNode(tmp_path / "one") as one, EmbeddedNode(tmp_path / "two") as two:
        with pytest.raises(Timeout):
            Ipfs(two.api, timeout=0.5).cat(cid)
        address = json.loads(post(f"{one.api}/api/v0/id"))["Addresses"][0]
        post(f"{two.api}/api/v0/swarm/connect?arg={address}")
        assert Ipfs(two.api).cat(cid) == pattern(LEAF_BYTES * 3)


def test_two_nodes_in_one_folder_are_a_clear_error(node: EmbeddedNode) -> None:
    with pytest.raises(ConfigError, match=r"node\.log"):
        EmbeddedNode(node.repo).start()
    assert Ipfs(node.api).version()


def test_a_taken_port_is_a_clear_error(node: EmbeddedNode, tmp_path: Path) -> None:
    port = int(node.api.rsplit(":", 1)[1])
    with pytest.raises(ConfigError):
        EmbeddedNode(tmp_path / "other", port=port).start()
    assert f"port {port} is taken" in (tmp_path / "other" / "node.log").read_text()


def test_the_node_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from zhiyi.ipfs_node import EmbeddedNode\n"
        "node = EmbeddedNode(Path(sys.argv[1])).start(); print(node.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "repo")], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return  # ended; nobody here is its parent to reap it
        except FileNotFoundError:
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the node outlived its parent")


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="node"):
        EmbeddedNode(tmp_path).start()


def post(url: str, headers: dict[str, str] | None = None) -> bytes:
    request = urllib.request.Request(url, data=b"", headers=headers or {})
    with urllib.request.urlopen(request) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}])
def test_the_node_refuses_web_pages(node: EmbeddedNode, headers: dict[str, str]) -> None:
    assert b"0.22.0" in post(f"{node.api}/api/v0/version")
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(f"{node.api}/api/v0/version", headers)
    assert refused.value.code == 403


def test_the_node_refuses_bad_arguments(node: EmbeddedNode, ipfs: Ipfs) -> None:
    cid = ipfs.add_bytes(b"x")
    for query in (
        "cat?arg=nonsense",
        f"cat?arg={cid}&offset=-1",
        f"cat?arg={cid}&timeout=soon",
        "block/get?arg=../../x",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(f"{node.api}/api/v0/{query}")
        assert refused.value.code == 400, query


def test_offset_and_length_cut_across_leaves(node: EmbeddedNode, ipfs: Ipfs) -> None:
    data = pattern(2 * LEAF_BYTES + 100)
    cid = ipfs.add_bytes(data)
    for offset, length in (
        (0, 1),
        (LEAF_BYTES - 1, 2),
        (LEAF_BYTES, LEAF_BYTES + 1),
        (len(data) - 1, 9),
        (len(data), 9),
    ):
        got = post(f"{node.api}/api/v0/cat?arg={cid}&offset={offset}&length={length}")
        assert got == data[offset : offset + length]


def test_a_block_changed_on_disk_is_noticed(node: EmbeddedNode, ipfs: Ipfs, tmp_path: Path) -> None:
    data = b"only here " + pattern(1000)
    cid = ipfs.add_bytes(data)
    changed = 0
    for block in (node.repo / "blocks").rglob("*.data"):
        if data in (content := block.read_bytes()):
            block.write_bytes(content.replace(data, data[:-1] + bytes([data[-1] ^ 1])))
            changed += 1
    assert changed == 1
    with pytest.raises(IntegrityError, match=cid):
        ipfs.cat(cid)
    with pytest.raises(IntegrityError):
        ipfs.download(cid, tmp_path / "file", 10_000)
    assert list(tmp_path.iterdir()) == []


# ---- daemons that are absent or lie


def test_no_daemon_says_how_to_start_one() -> None:
    for call in (
        lambda i: i.version(),
        lambda i: i.add_bytes(b"x"),
        lambda i: i.cat(ABSENT),
        lambda i: i.has(ABSENT),
    ):
        with pytest.raises(ConfigError, match="zhiyi ipfs"):
            call(Ipfs("http://127.0.0.1:9"))


@pytest.mark.parametrize(
    "api", ["", "ftp://x", "http://", "http://x:99999", "http://x/api", "127.0.0.1:5001"]
)
def test_an_address_that_is_none_is_refused(api: str) -> None:
    with pytest.raises(ConfigError):
        Ipfs(api)


class _Liar(http.server.BaseHTTPRequestHandler):
    body = b""
    promised: int | None = None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body) if self.promised is None else self.promised))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def liar() -> Iterator[Ipfs]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Liar)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Ipfs(f"http://127.0.0.1:{server.server_port}", timeout=5)
    server.shutdown()
    server.server_close()
    thread.join()
    _Liar.body, _Liar.promised = b"", None


def test_other_bytes_than_the_cids_are_refused(liar: Ipfs) -> None:
    cid = cid_of_bytes(b"truth")
    for lie in (b"", b"trutH", b"truth ", b"trut"):
        _Liar.body = lie
        with pytest.raises(IntegrityError):
            liar.cat(cid)
    _Liar.body = b"truth"
    assert liar.cat(cid) == b"truth"


def test_an_answer_that_breaks_off_is_refused(liar: Ipfs, tmp_path: Path) -> None:
    _Liar.body, _Liar.promised = b"truth", 500
    with pytest.raises(IntegrityError, match="broke off"):
        liar.download(cid_of_bytes(b"truth"), tmp_path / "file", 1000)
    assert list(tmp_path.iterdir()) == []


def test_a_daemon_that_sends_too_much_is_cut_off(liar: Ipfs) -> None:
    _Liar.body = b"x" * (4 * MIB)
    with pytest.raises(BadInput, match="limit"):
        liar.cat(ABSENT, 1000)
