"""Evidence and base tensors: by CID from IPFS, opened with the operator's key, checked against the chain.

Promises: may be repeated; nothing is parsed before its size and hash are known; what comes out of `evidence` is what
the reporter fixed when the case was opened, what comes out of `base` is what the model's registration fixed.
"""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from zhiyi import metadata
from zhiyi.case_evidence import ObjectKind, open_sealed
from zhiyi.cid import cid_v0_from_digest
from zhiyi.delivery import ecies
from zhiyi.delivery.hashing import HASH_BYTES
from zhiyi.delivery.merkle import RootBuilder
from zhiyi.errors import BadInput, ConfigError, IntegrityError, NotFound, Timeout
from zhiyi.ipfs import Ipfs
from zhiyi.keys import public_key
from zhiyi.types import CaseFile, Kind, OpenedShare
from zhiyi_oracle.base_tensors import BaseTensors, read_base
from zhiyi_oracle.errors import BadBase, BadEvidence, NotSealedToUs, NotYet, Unable, names_at_fault
from zhiyi_oracle.judge.ledger import RegisteredModel

# A base package is at most a quarter of the bundle, headers and facts; twice that is beyond any honest one.
MAX_BASE_SHARE: Final = 2
BASE_ROOM_BYTES: Final = 256 << 20
MAX_LEAVES_BYTES: Final = 4 << 30
MAX_CACHED_LEAVES: Final = 8  # models
_PIECE: Final = 1 << 20


class Evidence(NamedTuple):
    """Evidence of a case, opened and checked."""

    path: Path  # folder of safetensors, or a text where the case is not a LEAK
    root: bytes  # canonical root, 32 bytes


class IpfsFetcher:
    """Fetches through one IPFS daemon, which is not trusted: every byte is hashed."""

    def __init__(self, ipfs: Ipfs, secret: bytes, *, max_evidence_bytes: int, cache: Path) -> None:
        """secret: the operator's X25519 key, 32 bytes. cache: folder for registered leaves, made when needed."""
        self._ipfs, self._secret, self._max_evidence = ipfs, secret, max_evidence_bytes
        self._cache = cache
        self._checked: set[bytes] = set()  # roots whose cached leaves this process has checked

    def evidence(self, file: CaseFile, folder: Path) -> Evidence:
        """The suspect object in the new folder `folder`.

        Raises:
            NotYet: nobody serves it now, or the daemon is away.
            Unable: this machine cannot store it now.
            NotSealedToUs: it does not open with our key.
            BadEvidence: too large, not what the case fixed, or, for a LEAK, not weights.
        """
        sealed = folder.with_name(f"{folder.name}.sealed")
        try:
            self._download(file.evidence_digest, sealed, self._max_evidence, BadEvidence)
            opened = open_sealed(
                sealed, self._secret, folder, reporter=file.reporter, expected=file.evidence_hash
            )
        except ecies.NotARecipient as exc:
            raise NotSealedToUs(f"evidence: {exc}", public_key(self._secret)) from exc
        except (BadInput, IntegrityError, NotFound) as exc:
            raise BadEvidence(str(exc)) from exc
        except OSError as exc:
            shutil.rmtree(folder, ignore_errors=True)
            if names_at_fault(exc):
                raise BadEvidence(f"the evidence cannot be laid out: {exc.strerror}") from exc
            raise Unable(f"the evidence cannot be stored on this machine: {exc}") from exc
        finally:
            sealed.unlink(missing_ok=True)
        if file.kind is Kind.LEAK and opened.kind is not ObjectKind.WEIGHTS:
            raise BadEvidence(f"a LEAK case needs weights, the evidence is {opened.kind}")
        return Evidence(opened.path, opened.canonical_root)

    def base(self, model: RegisteredModel, share: OpenedShare, folder: Path) -> BaseTensors:
        """The registered tensors of the declared range, rebuilt in the new folder `folder`.

        Raises:
            NotYet: package, metadata or leaves are not served now, or the daemon is away.
            Unable: this machine cannot store them now.
            NotSealedToUs: the package does not open with our key.
            BadBase: too large, or not the registered tensors.
        """
        sealed, package = (
            folder.with_name(f"{folder.name}.sealed"),
            folder.with_name(f"{folder.name}.package"),
        )
        limit = model.record.total_bytes // MAX_BASE_SHARE + BASE_ROOM_BYTES
        try:
            leaves = self._leaves(model)
            self._download(share.base_cid, sealed, limit, BadBase)
            ecies.open_file(sealed, self._secret, package)
            with _mapped(leaves) as rows:
                return read_base(package, record=model.record, leaves=rows, out=folder)
        except ecies.NotARecipient as exc:
            raise NotSealedToUs(f"base tensors: {exc}", public_key(self._secret)) from exc
        except OSError as exc:
            shutil.rmtree(folder, ignore_errors=True)
            if names_at_fault(exc):
                raise BadBase(f"the base tensors cannot be laid out: {exc.strerror}") from exc
            raise Unable(f"the base tensors cannot be stored on this machine: {exc}") from exc
        except (BadInput, IntegrityError) as exc:
            raise BadBase(str(exc)) from exc
        except BadBase:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            sealed.unlink(missing_ok=True)
            package.unlink(missing_ok=True)

    def _leaves(self, model: RegisteredModel) -> Path:
        """The file of the registered leaves, as the metadata names them, fetched once and checked against the chain.

        That they cannot be had, or are others, is not the fingerprinter's fault, so it is waited for.
        """
        root = model.record.weights_root
        path = self._cache / f"leaves-{root.hex()}.bin"
        if path.exists() and root in self._checked:
            path.touch()
            return path
        size = model.record.chunks * HASH_BYTES
        if size > MAX_LEAVES_BYTES:
            raise BadBase(
                f"{model.record.chunks} chunks have {size} bytes of leaves, over {MAX_LEAVES_BYTES}"
            )
        if path.exists() and path.stat().st_size == size and _root_of(path) == root:
            self._checked.add(root)
            return path
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        fetched = path.with_suffix(".new")
        try:
            document = metadata.parse(self._ipfs.cat(model.metadata_cid, metadata.MAX_BYTES))
            cid = document.model.get("leaves_cid")
            if not isinstance(cid, str):
                raise NotYet(f"the metadata of model {model.model_id} names no leaves file")
            if self._ipfs.download(cid, fetched, size) != size or _root_of(fetched) != root:
                raise NotYet(f"the leaves file of model {model.model_id}, {cid}, is not the registered one")
            fetched.replace(path)
        except (NotFound, Timeout, ConfigError, IntegrityError, BadInput) as exc:
            raise NotYet(f"the registered leaves of model {model.model_id} cannot be had: {exc}") from exc
        finally:
            fetched.unlink(missing_ok=True)
        self._checked.add(root)
        kept = sorted(self._cache.glob("leaves-*.bin"), key=lambda file: file.stat().st_mtime)
        for old in kept[:-MAX_CACHED_LEAVES]:
            old.unlink()
        return path

    def _download(
        self, cid: bytes | str, path: Path, limit: int, broken: type[BadEvidence] | type[BadBase]
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = cid if isinstance(cid, str) else cid_v0_from_digest(cid)
        try:
            self._ipfs.download(name, path, limit)
        except BadInput as exc:  # larger than the limit; a CID made from a digest is well-formed
            raise broken(str(exc)) from exc
        except (
            NotFound,
            Timeout,
            ConfigError,
            IntegrityError,
        ) as exc:  # a lying daemon does not break the evidence
            raise NotYet(str(exc)) from exc


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as rows:
        yield rows


def _root_of(path: Path) -> bytes:
    """Root over the leaves in a file, read in pieces. Raises BadInput for an empty one."""
    builder = RootBuilder()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            builder.add(piece)
    return builder.root()
