"""Files by content id, from any Kubo RPC endpoint (`ipfs daemon`, or the embedded node of `zhiyi.ipfs_node`).

A daemon is not trusted: every read is hashed again, as `ipfs add` does with its defaults (CIDv0: leaves of
256 KiB, dag-pb and UnixFS, balanced tree of 174 links), and bytes that do not hash to the CID raise
IntegrityError. Files stream both ways. Sources: github.com/ipfs/specs UNIXFS.md, dag-pb spec on ipld.io,
boxo ipld/unixfs/importer/balanced.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zhiyi.cid import cid_v0_from_digest, digest_from_cid
from zhiyi.errors import BadInput, ConfigError, IntegrityError, NotFound, Timeout, ZhiyiError

LEAF_BYTES = 262_144  # Kubo's default chunker, size-262144
LINKS_PER_NODE = 174  # Kubo's default width of a balanced tree
READ_BYTES = 1 << 16
CONNECT_SECONDS = 5.0
SMALL_OBJECT_BYTES = 16 << 20  # default limit of `cat`, which holds the object in memory

Progress = Callable[[int, int], None]  # bytes done, bytes in all (0: unknown)


# ---- CID


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class _Link:
    """A finished node: its digest, the file bytes and the serialized bytes (its own included) under it."""

    __slots__ = ("digest", "file_bytes", "tree_bytes")

    def __init__(self, block: bytes, file_bytes: int, children_bytes: int) -> None:
        self.digest = hashlib.sha256(block).digest()
        self.file_bytes = file_bytes
        self.tree_bytes = len(block) + children_bytes


def _leaf(data: bytes) -> _Link:
    unixfs = (
        b"\x08\x02" + (b"\x12" + _varint(len(data)) + data if data else b"") + b"\x18" + _varint(len(data))
    )
    return _Link(b"\x0a" + _varint(len(unixfs)) + unixfs, len(data), 0)


def _node(children: list[_Link]) -> _Link:
    links = bytearray()
    for child in children:
        link = b"\x0a\x22\x12\x20" + child.digest + b"\x12\x00\x18" + _varint(child.tree_bytes)
        links += b"\x12" + _varint(len(link)) + link
    size = sum(child.file_bytes for child in children)
    sizes = b"".join(b"\x20" + _varint(child.file_bytes) for child in children)
    unixfs = b"\x08\x02\x18" + _varint(size) + sizes
    block = bytes(links) + b"\x0a" + _varint(len(unixfs)) + unixfs
    return _Link(block, size, sum(child.tree_bytes for child in children))


class CidHasher:
    """CIDv0 of a file given in pieces; holds at most one leaf and 174 links a level."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._levels: list[list[_Link]] = [[]]

    def update(self, data: bytes) -> None:
        self._partial += data
        whole = len(self._partial) - len(self._partial) % LEAF_BYTES
        for start in range(0, whole, LEAF_BYTES):
            self._push(0, _leaf(bytes(self._partial[start : start + LEAF_BYTES])))
        del self._partial[:whole]

    def cid(self) -> str:
        """The CID of all bytes so far; call once, at the end."""
        if self._partial or not any(self._levels):
            self._push(0, _leaf(bytes(self._partial)))
            self._partial.clear()
        level = 0
        while True:
            links = self._levels[level]
            if level == len(self._levels) - 1 and len(links) == 1:
                return cid_v0_from_digest(links[0].digest)
            if links:
                self._levels[level] = []
                self._push(level + 1, _node(links))
            level += 1

    def _push(self, level: int, link: _Link) -> None:
        if level == len(self._levels):
            self._levels.append([])
        if (
            len(self._levels[level]) == LINKS_PER_NODE
        ):  # only when one more comes: 174 leaves make one node, not two
            full, self._levels[level] = self._levels[level], []
            self._push(level + 1, _node(full))
        self._levels[level].append(link)


def cid_of_bytes(data: bytes) -> str:
    """CIDv0 that `ipfs add` gives these bytes."""
    hasher = CidHasher()
    hasher.update(data)
    return hasher.cid()


def cid_of_file(path: Path, *, progress: Progress | None = None) -> str:
    """CIDv0 that `ipfs add` gives this file, streaming. Raises BadInput when it is no regular file."""
    if not path.is_file():
        raise BadInput(f"{path} is no file")
    hasher, done, total = CidHasher(), 0, path.stat().st_size
    with path.open("rb") as file:
        while data := file.read(LEAF_BYTES * 4):
            hasher.update(data)
            done += len(data)
            if progress:
                progress(done, total)
    return hasher.cid()


# ---- client


def _multiaddr(api: str) -> str:
    """The address in the form ipfshttpclient takes. Raises ConfigError."""
    if api.startswith("/"):
        return api
    parts = urlsplit(api)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.path.strip("/"):
        raise ConfigError(
            f"{api!r} is no IPFS API address; give http://127.0.0.1:5001 or /ip4/127.0.0.1/tcp/5001"
        )
    host = parts.hostname
    kind = "ip6" if ":" in host else "ip4" if host.replace(".", "").isdigit() else "dns"
    return f"/{kind}/{host}/tcp/{port}/{parts.scheme}"


class Ipfs:
    """One IPFS daemon. `api` is http://HOST:PORT or a multiaddr; `timeout` is seconds without any answer."""

    def __init__(self, api: str, *, timeout: float = 60.0) -> None:
        self.api = api
        self.timeout = timeout
        self._address = _multiaddr(api)
        self._connected: Any = None

    def version(self) -> str:
        """Version of the daemon. Raises ConfigError when none answers."""
        with self._errors("version"):
            return str(self._client.version()["Version"])

    def add_bytes(self, data: bytes) -> str:
        """Store and pin; returns the CIDv0. Raises ConfigError, IntegrityError (daemon names another CID)."""
        return self._add(io.BytesIO(data), cid_of_bytes(data))

    def add_file(self, path: Path, *, progress: Progress | None = None) -> str:
        """Store and pin a file, streaming; returns the CIDv0.

        Raises BadInput (no regular file), ConfigError, IntegrityError (the daemon names another CID than the
        file's: a faulty daemon, or the file changed meanwhile). `progress` counts the pass that hashes.
        """
        expected = cid_of_file(path, progress=progress)
        with path.open("rb") as file:
            return self._add(file, expected)

    def cat(self, cid: str, max_bytes: int = SMALL_OBJECT_BYTES) -> bytes:
        """The object's bytes, checked.

        Raises NotFound, Timeout, IntegrityError, BadInput (bad CID, or over max_bytes).
        """
        return b"".join(list(self._checked(cid, max_bytes)))

    def download(self, cid: str, path: Path, max_bytes: int, *, progress: Progress | None = None) -> int:
        """Stream the object into `path`, which appears or is replaced only once all is checked; returns its
        size.

        Raises NotFound, Timeout, IntegrityError, BadInput (bad CID, or over max_bytes).
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        done = 0
        try:
            with os.fdopen(handle, "wb") as file:
                for data in self._checked(cid, max_bytes):
                    file.write(data)
                    done += len(data)
                    if progress:
                        progress(done, 0)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
        return done

    def pin(self, cid: str) -> None:
        """Fetch the whole object, if need be, and keep it. Raises NotFound, Timeout."""
        name = cid_v0_from_digest(digest_from_cid(cid))
        with self._errors(name):
            self._client.pin.add(name, opts={"timeout": f"{self.timeout:g}s"}, timeout=self.timeout + 5)

    def unpin(self, cid: str) -> None:
        """Stop keeping the object. Raises NotFound when it is not pinned."""
        name = cid_v0_from_digest(digest_from_cid(cid))
        with self._errors(name):
            self._client.pin.rm(name)

    def has(self, cid: str) -> bool:
        """Whether this daemon keeps the whole object (pins it)."""
        name = cid_v0_from_digest(digest_from_cid(cid))
        try:
            with self._errors(name):
                return name in self._client.pin.ls(name)["Keys"]
        except NotFound:
            return False

    # ---- inside

    @property
    def _client(self) -> Any:  # ipfshttpclient's types say less than it does
        if self._connected is None:
            import ipfshttpclient

            # ipfshttpclient 0.8.0a2 hands urllib3 2 an argument that it ignores
            warnings.filterwarnings("ignore", message="The 'strict' parameter", category=FutureWarning)
            # the constructor, not connect(), which warns of every daemon newer than 0.9
            self._connected = ipfshttpclient.Client(self._address, timeout=(CONNECT_SECONDS, self.timeout))
        return self._connected

    def _add(self, file: Any, expected: str) -> str:
        with self._errors(expected):
            answer = self._client.add(
                file, pin=True, raw_leaves=False, chunker=f"size-{LEAF_BYTES}", cid_version=0
            )
        given = str(answer["Hash"])
        if given != expected:
            raise IntegrityError(
                f"the IPFS daemon at {self.api} stored {given}, but these bytes have the CID {expected};"
                " did the file change meanwhile?"
            )
        return given

    def _checked(self, cid: str, max_bytes: int) -> Iterator[bytes]:
        """The object in pieces; IntegrityError comes after the last one if the whole does not match."""
        name = cid_v0_from_digest(digest_from_cid(cid))
        hasher, done = CidHasher(), 0
        with contextlib.closing(self._stream(name, max_bytes + 1)) as pieces:
            for data in pieces:
                done += len(data)
                if done > max_bytes:
                    raise BadInput(f"{name} is larger than the limit of {max_bytes} bytes")
                hasher.update(data)
                yield data
        found = hasher.cid()
        if found != name:
            raise IntegrityError(
                f"the IPFS daemon at {self.api} answered {done} bytes for {name} that hash to {found}"
                " (files must be added with the defaults of `ipfs add`, CIDv0)"
            )

    def _stream(self, name: str, length: int) -> Generator[bytes, None, None]:
        parameters = [("arg", name), ("length", str(length)), ("timeout", f"{self.timeout:g}s")]
        with self._errors(name):
            # The public cat() returns all bytes at once, and so can its stream.
            closables, pieces = self._client._client._request(
                "POST",
                "cat",
                parameters,
                auth=None,
                data=None,
                headers={"Accept-Encoding": "identity"},
                timeout=(CONNECT_SECONDS, self.timeout + 5),
                chunk_size=READ_BYTES,
            )
            try:
                yield from pieces
            finally:
                for closable in closables:
                    closable.close()

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Translate ipfshttpclient's and requests' errors."""
        import requests
        from ipfshttpclient import exceptions

        try:
            yield
        except (exceptions.TimeoutError, requests.Timeout) as error:
            raise Timeout(
                f"the IPFS daemon at {self.api} did not answer for {what} within {self.timeout:g} s"
            ) from error
        except exceptions.ErrorResponse as error:
            if "not found in" in str(error) or "deadline exceeded" in str(error):
                raise Timeout(
                    f"{what} was not found within {self.timeout:g} s;"
                    f" is any node that holds it connected to {self.api}?"
                ) from error
            raise NotFound(f"{what}: the IPFS daemon at {self.api} says: {str(error)[:300]}") from error
        except exceptions.StatusError as error:
            raise ZhiyiError(f"{what}: the IPFS daemon at {self.api} answered {str(error)[:300]}") from error
        except (exceptions.ConnectionError, exceptions.AddressError) as error:
            raise ConfigError(
                f"no IPFS daemon answers at {self.api};"
                " start one with `zhiyi ipfs` or `ipfs daemon`, or set ZHIYI_IPFS"
            ) from error
        except (exceptions.CommunicationError, requests.RequestException) as error:
            raise IntegrityError(f"{what}: the answer of the IPFS daemon at {self.api} broke off") from error
