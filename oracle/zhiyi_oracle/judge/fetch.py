"""Evidence and base tensors: by CID from IPFS, opened with the operator's key, checked against the chain.

Promises: may be repeated; nothing is parsed before its size and hash are known; what comes out of `evidence` is what
the reporter fixed when the case was opened, what comes out of `base` is what the model's registration fixed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NamedTuple

from zhiyi import metadata
from zhiyi.case_evidence import ObjectKind, open_sealed
from zhiyi.cid import cid_v0_from_digest
from zhiyi.delivery import ecies
from zhiyi.delivery.hashing import HASH_BYTES
from zhiyi.errors import BadInput, ConfigError, IntegrityError, NotFound, Timeout
from zhiyi.ipfs import Ipfs
from zhiyi.types import CaseFile, OpenedShare
from zhiyi_oracle.base_tensors import BaseTensors, read_base
from zhiyi_oracle.errors import BadBase, BadEvidence, NotYet
from zhiyi_oracle.judge.ledger import RegisteredModel

# A base package is at most a quarter of the bundle, headers and facts; twice that is beyond any honest one.
MAX_BASE_SHARE: Final = 2
BASE_ROOM_BYTES: Final = 256 << 20
MAX_LEAVES_BYTES: Final = 4 << 30


class Evidence(NamedTuple):
    """Evidence of a case, opened and checked."""

    path: Path  # folder of safetensors
    root: bytes  # canonical root, 32 bytes


class IpfsFetcher:
    """Fetches through one IPFS daemon, which is not trusted: every byte is hashed."""

    def __init__(self, ipfs: Ipfs, secret: bytes, *, max_evidence_bytes: int) -> None:
        """secret: the operator's X25519 key, 32 bytes."""
        self._ipfs, self._secret, self._max_evidence = ipfs, secret, max_evidence_bytes

    def evidence(self, file: CaseFile, folder: Path) -> Evidence:
        """The suspect object in the new folder `folder`.

        Raises:
            NotYet: nobody serves it now, or the daemon is away.
            BadEvidence: too large, not sealed to us, not what the case fixed, or not weights.
        """
        sealed = folder.with_name(f"{folder.name}.sealed")
        self._download(file.evidence_digest, sealed, self._max_evidence, BadEvidence)
        try:
            opened = open_sealed(
                sealed, self._secret, folder, reporter=file.reporter, expected=file.evidence_hash
            )
        except (BadInput, IntegrityError, NotFound) as exc:
            raise BadEvidence(str(exc)) from exc
        finally:
            sealed.unlink(missing_ok=True)
        if opened.kind is not ObjectKind.WEIGHTS:
            raise BadEvidence(f"a LEAK case needs weights, the evidence is {opened.kind}")
        return Evidence(opened.path, opened.canonical_root)

    def base(self, model: RegisteredModel, share: OpenedShare, folder: Path) -> BaseTensors:
        """The registered tensors of the declared range, rebuilt in the new folder `folder`.

        Raises:
            NotYet: package, metadata or leaves are not served now, or the daemon is away.
            BadBase: too large, not sealed to us, or not the registered tensors.
        """
        leaves = self._leaves(model)
        sealed, package = (
            folder.with_name(f"{folder.name}.sealed"),
            folder.with_name(f"{folder.name}.package"),
        )
        limit = model.record.total_bytes // MAX_BASE_SHARE + BASE_ROOM_BYTES
        self._download(share.base_cid, sealed, limit, BadBase)
        try:
            ecies.open_file(sealed, self._secret, package)
            return read_base(package, record=model.record, leaves=leaves, out=folder)
        except (BadInput, IntegrityError) as exc:
            raise BadBase(str(exc)) from exc
        except BadBase:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            sealed.unlink(missing_ok=True)
            package.unlink(missing_ok=True)

    def _leaves(self, model: RegisteredModel) -> bytes:
        """The registered leaves, as the metadata names them; `read_base` checks them against the chain.

        That they cannot be had is not the fingerprinter's fault, so it is waited for.
        """
        size = model.record.chunks * HASH_BYTES
        if size > MAX_LEAVES_BYTES:
            raise BadBase(
                f"{model.record.chunks} chunks have {size} bytes of leaves, over {MAX_LEAVES_BYTES}"
            )
        try:
            document = metadata.parse(self._ipfs.cat(model.metadata_cid, metadata.MAX_BYTES))
            cid = document.model.get("leaves_cid")
            if not isinstance(cid, str):
                raise NotYet(f"the metadata of model {model.model_id} names no leaves file")
            return self._ipfs.cat(cid, size)
        except (NotFound, Timeout, ConfigError, IntegrityError, BadInput) as exc:
            raise NotYet(f"the registered leaves of model {model.model_id} cannot be had: {exc}") from exc

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
