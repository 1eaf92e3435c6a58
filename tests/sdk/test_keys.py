"""Key files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zhiyi import keys
from zhiyi.errors import BadInput, ConfigError
from zhiyi.keys import KeyKind, load_key, new_key, public_key, save_key


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SCRYPT_N", 1 << 4)


def test_public_key_is_that_of_rfc_7748() -> None:
    # section 5.2, after one iteration: scalar and base point are both 9
    secret = bytes([9]) + bytes(31)
    assert public_key(secret).hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"


@pytest.mark.parametrize("kind", list(KeyKind))
def test_keys_survive_their_file(tmp_path: Path, kind: KeyKind) -> None:
    pair = new_key(kind)
    assert save_key(tmp_path / "k.json", kind, pair.secret, password="pw") == pair
    assert load_key(tmp_path / "k.json", kind, password="pw") == pair
    assert pair.secret.hex() not in (tmp_path / "k.json").read_text()
    assert (tmp_path / "k.json").stat().st_mode & 0o777 == 0o600


def test_wrong_password_kind_and_mode_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    save_key(path, KeyKind.DELIVERY, new_key(KeyKind.DELIVERY).secret, password="pw")
    for password in ("other", "", None):
        with pytest.raises(ConfigError):
            load_key(path, KeyKind.DELIVERY, password=password)
    with pytest.raises(ConfigError, match="'encryption' is needed"):
        load_key(path, KeyKind.ENCRYPTION, password="pw")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(path, KeyKind.DELIVERY, password="pw")


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    save_key(tmp_path / "k.json", KeyKind.TRACE, bytes(31) + b"\x01", password="pw")
    with pytest.raises(ConfigError, match="never overwritten"):
        save_key(tmp_path / "k.json", KeyKind.TRACE, bytes(31) + b"\x02", password="pw")


def test_plain_keys_only_on_request(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="password"):
        save_key(tmp_path / "k.json", KeyKind.TRACE, bytes(31) + b"\x01")
    assert not (tmp_path / "k.json").exists()
    pair = save_key(tmp_path / "k.json", KeyKind.TRACE, bytes(31) + b"\x01", unsafe_plain=True)
    assert load_key(tmp_path / "k.json", KeyKind.TRACE) == pair


def changed(path: Path, **fields: object) -> Path:
    content = json.loads(path.read_text())
    for name, value in fields.items():
        place = content
        *outer, last = name.split("__")
        for part in outer:
            place = place[part]
        place[last] = value
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"kdf__n": 1 << 30},
        {"kdf__n": "16"},
        {"kdf__p": 99},
        {"kdf__salt": "0x00"},
        {"kdf__name": "none"},
        {"cipher__text": "0x" + "00" * 48},
        {"cipher__nonce": "0x" + "00" * 12},
        {"public": "0x" + "01" * 32},
        {"schema": "other"},
        {"kind": "trace"},
        {"kdf": None},
    ],
)
def test_tampered_files_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "k.json"
    save_key(path, KeyKind.DELIVERY, new_key(KeyKind.DELIVERY).secret, password="pw")
    with pytest.raises(ConfigError):
        load_key(changed(path, **change), KeyKind.DELIVERY, password="pw")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    for text in ("", "[]", "null", "{", "x" * 10_000):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(ConfigError):
            load_key(path, KeyKind.DELIVERY, password="pw")
    with pytest.raises(ConfigError):
        load_key(tmp_path / "missing", KeyKind.DELIVERY)
