"""The suspect object of a case: sealed to the committee, fixed by a hash that only its reporter can have made.

    evidence hash = SHA-256(0x05 | reporter (20) | salt (32) | canonical root (32))

The canonical root of weights (a folder, or one file) is the root of their bundle's tree; of a text,
SHA-256(0x06 | UTF-8 in NFKC). A copied report has another reporter, so its hash does not fit: nobody can file it as
his own.

The sealed folder holds `evidence.json` and the object below `object/`. An accused who asks is served the same folder,
sealed to his key.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from shutil import copyfile, rmtree
from typing import Final, NamedTuple

from zhiyi.delivery import ecies
from zhiyi.delivery.bundle import CHUNK_SIZE, Bundle, open_file
from zhiyi.delivery.merkle import root_of
from zhiyi.errors import BadInput, IntegrityError, NotFound, ZhiyiError
from zhiyi.types import to_address, to_bytes, to_hex
from zhiyi.usage_log import output_hash

SCHEMA: Final = "zhiyi.evidence.v1"
NOTICE_SCHEMA: Final = "zhiyi.unusable-key.v1"
TAG: Final = b"\x05"
MAX_TEXT_BYTES: Final = 1 << 22
MAX_HEADER_BYTES: Final = 4096
_HEADER: Final = "evidence.json"
_OBJECT: Final = "object"
_TEXT: Final = "text.txt"


class ObjectKind(StrEnum):
    """What the suspect object is."""

    WEIGHTS = "weights"
    TEXT = "text"


class Sealed(NamedTuple):
    """A sealed object: the hash goes on chain, the file on IPFS, the salt stays with the reporter."""

    canonical_root: bytes
    evidence_hash: bytes
    salt: bytes
    file: Path


class Opened(NamedTuple):
    """An object that an operator opened; it is what the case's evidence hash fixed."""

    kind: ObjectKind
    canonical_root: bytes
    path: Path  # folder of the weights, or the text file


def evidence_hash(reporter: str, salt: bytes, root: bytes) -> bytes:
    """SHA-256(0x05 | reporter | salt | root). Raises BadInput for wrong lengths."""
    account = bytes.fromhex(to_address(reporter)[2:])
    return sha256(TAG + account + to_bytes(salt, 32) + to_bytes(root, 32)).digest()


def canonical_root(path: Path, kind: ObjectKind) -> bytes:
    """Root of an object: 32 bytes that do not depend on who reports it. Raises NotFound, BadInput.

    For weights: a folder, or a single file (its name counts). Pickles and links are refused.
    """
    if kind == ObjectKind.TEXT:
        return output_hash(_text(path))
    if path.is_dir():
        return root_of(Bundle.scan(path).leaves(path))
    if path.is_symlink() or not path.is_file():
        raise NotFound(f"{path} is neither a folder nor a file: name the suspect weights")
    return root_of(Bundle(CHUNK_SIZE, ((path.name, path.stat().st_size),)).leaves(path.parent))


def seal(
    path: str | Path,
    kind: ObjectKind,
    *,
    reporter: str,
    keys: Sequence[bytes],
    out: str | Path,
    salt: bytes | None = None,
) -> Sealed:
    """Seals an object to the X25519 keys of a committee. `salt` is drawn when not given.

    Raises NotFound, BadInput (pickles, links, too large a text, no keys).
    """
    source, target = Path(path), Path(out)
    drawn = to_bytes(salt, 32) if salt is not None else secrets.token_bytes(32)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".evidence-") as folder:
        stage = Path(folder) / "stage"
        stored = _stage(source, kind, stage / _OBJECT)
        root = canonical_root(stored, kind)
        header = {
            "schema": SCHEMA,
            "kind": str(kind),
            "reporter": to_address(reporter),
            "salt": to_hex(drawn),
            "root": to_hex(root),
        }
        (stage / _HEADER).write_text(json.dumps(header), encoding="utf-8")
        ecies.seal_folder(stage, keys, target)
    return Sealed(root, evidence_hash(reporter, drawn, root), drawn, target)


def open_sealed(
    sealed: str | Path, secret: bytes, out: str | Path, *, reporter: str, expected: bytes
) -> Opened:
    """Opens evidence with an operator's X25519 secret into the new folder `out`.

    1. The envelope opens with this key. 2. Header and layout are right. 3. The object's root is the header's.
    4. Reporter, salt and root hash to `expected`, the case's evidence hash. On failure `out` is removed.
    Raises BadInput (1, 2), IntegrityError (3, 4).
    """
    folder = Path(out)
    ecies.open_folder(Path(sealed), secret, folder)  # 1
    try:
        return check_opened(folder, reporter=reporter, expected=expected)
    except ZhiyiError:
        rmtree(folder, ignore_errors=True)
        raise


def check_opened(folder: Path, *, reporter: str, expected: bytes) -> Opened:
    """Checks an opened envelope, steps 2 to 4 of `open_sealed`. Raises BadInput (2), IntegrityError (3, 4)."""
    kind, salt, claimed = _header(folder / _HEADER)  # 2
    names = {entry.name for entry in os.scandir(folder)}
    if names != {_HEADER, _OBJECT}:
        raise BadInput(f"the evidence holds {sorted(names)[:5]}, it must hold {_HEADER} and {_OBJECT}/")
    path = folder / _OBJECT / _TEXT if kind == ObjectKind.TEXT else folder / _OBJECT
    root = canonical_root(path, kind)
    if root != claimed:  # 3
        raise IntegrityError("the evidence holds another object than its header names")
    if evidence_hash(reporter, salt, root) != to_bytes(expected, 32):  # 4
        raise IntegrityError("the evidence is not what the case fixed: another object, salt or reporter")
    return Opened(kind, root, path)


def unusable_key_notice(case_id: bytes, key: bytes) -> bytes:
    """What an accused is served who asked with a key that nothing can be sealed to: public, the same from everybody.

    JSON in UTF-8. Whoever reads it can check the key: `zhiyi.delivery.ecies.is_usable`.
    """
    notice = {
        "schema": NOTICE_SCHEMA,
        "case": to_hex(to_bytes(case_id, 32)),
        "encryption_key": to_hex(to_bytes(key, 32)),
        "reason": "a point of low order: nothing can be sealed to this X25519 key",
    }
    return json.dumps(notice, sort_keys=True, separators=(",", ":")).encode()


def _stage(source: Path, kind: ObjectKind, target: Path) -> Path:
    """Copies the object; returns what its root is taken of."""
    target.mkdir(parents=True)
    if kind == ObjectKind.TEXT:
        (target / _TEXT).write_text(_text(source), encoding="utf-8", newline="")
        return target / _TEXT
    if source.is_dir():
        for path, _ in Bundle.scan(source).files:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            copyfile(source / path, target / path, follow_symlinks=False)
    elif source.is_symlink() or not source.is_file():
        raise NotFound(f"{source} is neither a folder nor a file: name the suspect weights")
    else:
        copyfile(source, target / source.name, follow_symlinks=False)
    return target


def _text(path: Path) -> str:
    data = _limited(path, MAX_TEXT_BYTES)
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise BadInput(f"{path} is not UTF-8 text") from exc


def _header(path: Path) -> tuple[ObjectKind, bytes, bytes]:
    """(kind, salt, root) of a header that anybody may have written. Raises BadInput."""
    try:
        value = json.loads(_limited(path, MAX_HEADER_BYTES))
        if value["schema"] != SCHEMA:
            raise BadInput(f"evidence schema {str(value['schema'])[:40]!r} is unknown: {SCHEMA!r} is needed")
        return ObjectKind(value["kind"]), to_bytes(value["salt"], 32), to_bytes(value["root"], 32)
    except (ValueError, KeyError, TypeError, RecursionError, NotFound) as exc:
        raise BadInput(f"the evidence has no usable {_HEADER}: {exc!r:.200}") from exc


def _limited(path: Path, limit: int) -> bytes:
    with os.fdopen(open_file(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadInput(f"{path} has more than {limit} bytes")
    return data
