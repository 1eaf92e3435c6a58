"""Sealed evidence: opens for the committee, and only as what the case fixed."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from zhiyi.case_evidence import ObjectKind, canonical_root, evidence_hash, open_sealed, seal
from zhiyi.delivery import ecies
from zhiyi.delivery.bundle import Bundle
from zhiyi.delivery.merkle import root_of
from zhiyi.errors import BadInput, IntegrityError, NotFound, ZhiyiError
from zhiyi.keys import KeyKind, new_key
from zhiyi.usage_log import output_hash

REPORTER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
COPIER = "0x" + "11" * 20
KEYS = [new_key(KeyKind.ENCRYPTION) for _ in range(3)]
PUBLIC = [pair.public for pair in KEYS]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "suspect"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "sub" / "config.json").write_text("{}")
    return folder


def test_evidence_hash_is_as_documented() -> None:
    salt, root = b"\x01" * 32, b"\x02" * 32
    assert (
        evidence_hash(REPORTER, salt, root)
        == sha256(b"\x05" + bytes.fromhex(REPORTER[2:]) + salt + root).digest()
    )


def test_every_operator_opens_the_same_weights(weights: Path, tmp_path: Path) -> None:
    sealed = seal(weights, ObjectKind.WEIGHTS, reporter=REPORTER, keys=PUBLIC, out=tmp_path / "sealed")
    assert sealed.canonical_root == root_of(Bundle.scan(weights).leaves(weights))
    for number, pair in enumerate(KEYS):
        out = tmp_path / f"operator{number}"
        opened = open_sealed(sealed.file, pair.secret, out, reporter=REPORTER, expected=sealed.evidence_hash)
        assert (opened.kind, opened.canonical_root) == (ObjectKind.WEIGHTS, sealed.canonical_root)
        assert (opened.path / "model.safetensors").read_bytes() == (
            weights / "model.safetensors"
        ).read_bytes()
        assert (opened.path / "sub" / "config.json").read_text() == "{}"
    assert b"safetensors" not in sealed.file.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".evidence")] == []


def test_single_file_and_text(weights: Path, tmp_path: Path) -> None:
    file = weights / "model.safetensors"
    sealed = seal(file, ObjectKind.WEIGHTS, reporter=REPORTER, keys=PUBLIC, out=tmp_path / "s1")
    assert sealed.canonical_root == canonical_root(file, ObjectKind.WEIGHTS)
    text = tmp_path / "text.txt"
    text.write_bytes("一段文字\r\nline".encode())
    sealed = seal(text, ObjectKind.TEXT, reporter=REPORTER, keys=PUBLIC, out=tmp_path / "s2")
    assert sealed.canonical_root == output_hash("一段文字\r\nline")
    opened = open_sealed(
        sealed.file, KEYS[0].secret, tmp_path / "o", reporter=REPORTER, expected=sealed.evidence_hash
    )
    assert opened.path.read_bytes() == text.read_bytes()


def test_copied_report_does_not_fit_its_case(weights: Path, tmp_path: Path) -> None:
    sealed = seal(weights, ObjectKind.WEIGHTS, reporter=REPORTER, keys=PUBLIC, out=tmp_path / "sealed")
    with pytest.raises(IntegrityError, match="what the case fixed"):
        open_sealed(
            sealed.file, KEYS[0].secret, tmp_path / "o", reporter=COPIER, expected=sealed.evidence_hash
        )
    assert not (tmp_path / "o").exists()
    with pytest.raises(IntegrityError):
        open_sealed(sealed.file, KEYS[0].secret, tmp_path / "o", reporter=REPORTER, expected=bytes(32))


def test_outsiders_open_nothing(weights: Path, tmp_path: Path) -> None:
    sealed = seal(weights, ObjectKind.WEIGHTS, reporter=REPORTER, keys=PUBLIC, out=tmp_path / "sealed")
    outsider = new_key(KeyKind.ENCRYPTION)
    with pytest.raises(BadInput):
        open_sealed(
            sealed.file, outsider.secret, tmp_path / "o", reporter=REPORTER, expected=sealed.evidence_hash
        )


def test_damaged_or_shortened_evidence_is_refused(weights: Path, tmp_path: Path) -> None:
    sealed = seal(weights, ObjectKind.WEIGHTS, reporter=REPORTER, keys=PUBLIC, out=tmp_path / "sealed")
    data = sealed.file.read_bytes()
    for bad in (data[:-1], data[:-20], data[: len(data) // 2] + b"\x00" + data[len(data) // 2 + 1 :], b""):
        sealed.file.write_bytes(bad)
        with pytest.raises(ZhiyiError):
            open_sealed(
                sealed.file, KEYS[0].secret, tmp_path / "o", reporter=REPORTER, expected=sealed.evidence_hash
            )
        assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "header",
    [
        {"root": "0x" + "00" * 32},
        {"kind": "text"},
        {"kind": "image"},
        {"schema": "other"},
        {"salt": "0x00"},
        {"root": None},
    ],
)
def test_hostile_headers_are_refused(weights: Path, tmp_path: Path, header: dict[str, object]) -> None:
    sealed = seal(weights, ObjectKind.WEIGHTS, reporter=REPORTER, keys=PUBLIC, out=tmp_path / "sealed")
    ecies.open_folder(sealed.file, KEYS[0].secret, tmp_path / "plain")
    path = tmp_path / "plain" / "evidence.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | header))
    ecies.seal_folder(tmp_path / "plain", PUBLIC, tmp_path / "again")
    with pytest.raises(ZhiyiError):
        open_sealed(
            tmp_path / "again",
            KEYS[0].secret,
            tmp_path / "o",
            reporter=REPORTER,
            expected=sealed.evidence_hash,
        )
    assert not (tmp_path / "o").exists()


def test_files_beside_the_object_are_refused(weights: Path, tmp_path: Path) -> None:
    sealed = seal(weights, ObjectKind.WEIGHTS, reporter=REPORTER, keys=PUBLIC, out=tmp_path / "sealed")
    ecies.open_folder(sealed.file, KEYS[0].secret, tmp_path / "plain")
    (tmp_path / "plain" / "extra").write_text("x")
    ecies.seal_folder(tmp_path / "plain", PUBLIC, tmp_path / "again")
    with pytest.raises(BadInput, match="must hold"):
        open_sealed(
            tmp_path / "again",
            KEYS[0].secret,
            tmp_path / "o",
            reporter=REPORTER,
            expected=sealed.evidence_hash,
        )


def test_pickles_links_and_nothing_are_not_sealed(weights: Path, tmp_path: Path) -> None:
    def attempt(path: Path, kind: ObjectKind = ObjectKind.WEIGHTS) -> None:
        seal(path, kind, reporter=REPORTER, keys=PUBLIC, out=tmp_path / "sealed")

    (weights / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(BadInput, match="pickle"):
        attempt(weights)
    (weights / "pytorch_model.bin").unlink()
    (weights / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadInput):
        attempt(weights)
    with pytest.raises(NotFound):
        attempt(tmp_path / "missing")
    with pytest.raises(NotFound):
        attempt(weights / "link")
    with pytest.raises(BadInput, match="UTF-8"):
        attempt(weights / "model.safetensors", ObjectKind.TEXT)
    assert not (tmp_path / "sealed").exists()
