"""Signers and signature checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from zhiyi import CallbackSigner, KeystoreSigner, LocalSigner, Signer, UnsignedSigner, eip712
from zhiyi.errors import BadInput, BadSignature, ConfigError
from zhiyi.types import NATIVE, ParentConsent

KEY = bytes.fromhex("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")
ADDRESS = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
N = eip712.SECP256K1_N
DATA = eip712.parent_consent(
    ParentConsent(parent_id=1, weights_root=bytes(32), registrant=ADDRESS, bps=1, deadline=2), 31337, ADDRESS
)
TX = {
    "type": 2,
    "chainId": 31337,
    "nonce": 0,
    "maxPriorityFeePerGas": 10**9,
    "maxFeePerGas": 3 * 10**9,
    "gas": 100_000,
    "to": "0x" + "11" * 20,
    "value": 10**18,
    "data": "0x" + "ab" * 300,
}


def test_transactions_are_those_of_eth_account() -> None:
    signer = LocalSigner(KEY)
    for change in ({}, {"nonce": 1}, {"nonce": 128}, {"value": 0}, {"data": "0x"}, {"data": "0x01"}):
        tx = {**TX, **change}
        expected = Account.sign_transaction(tx, KEY).raw_transaction
        assert signer.sign_transaction(tx) == bytes(expected)
    deployment = {key: value for key, value in TX.items() if key != "to"}
    expected = Account.sign_transaction(deployment, KEY).raw_transaction
    assert signer.sign_transaction({**deployment, "to": ""}) == bytes(expected)


def test_typed_data_is_signed_as_eth_account_does() -> None:
    signature = LocalSigner(KEY).sign_typed_data(DATA.domain, DATA.types, DATA.message)
    message = encode_typed_data(DATA.domain, DATA.types, DATA.message)
    assert signature == bytes(Account.sign_message(message, KEY).signature)
    eip712.check_signed_by(DATA, signature, ADDRESS)


def test_wrong_transactions_are_refused() -> None:
    signer = LocalSigner(KEY)
    with pytest.raises(BadInput, match="chainId"):
        signer.sign_transaction({key: value for key, value in TX.items() if key != "chainId"})
    with pytest.raises(BadInput, match="gasPrice"):
        signer.sign_transaction({**TX, "gasPrice": 1})


@pytest.mark.parametrize("key", [b"", b"\x01", bytes(32), N.to_bytes(32, "big"), "59c6", "0x1"])
def test_bad_keys_are_refused(key: bytes | str) -> None:
    with pytest.raises(BadInput):
        LocalSigner(key)


def test_keys_are_not_shown() -> None:
    assert "59c6995e" not in repr(LocalSigner(KEY))


def test_signers_are_signers() -> None:
    for signer in (LocalSigner(KEY), UnsignedSigner(ADDRESS), CallbackSigner(ADDRESS, lambda digest: b"")):
        assert isinstance(signer, Signer)


def test_keystore_opens_with_its_password_only(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(Account.encrypt(KEY, "right", kdf="scrypt", iterations=2)))
    path.chmod(0o600)
    assert KeystoreSigner(path, "right").address == ADDRESS
    with pytest.raises(ConfigError, match="wrong password"):
        KeystoreSigner(path, "wrong")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        KeystoreSigner(path, "right")
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(ConfigError):
        KeystoreSigner(path, "right")
    path.write_text("no json")
    with pytest.raises(ConfigError):
        KeystoreSigner(path, "right")
    with pytest.raises(ConfigError):
        KeystoreSigner(tmp_path / "missing.json", "right")
    with pytest.raises(BadInput):
        KeystoreSigner.from_ape("../../etc/passwd", "x")


def test_ape_accounts_are_found_by_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".ape" / "accounts" / "me.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(Account.encrypt(KEY, "right", kdf="scrypt", iterations=2)))
    path.chmod(0o600)
    assert KeystoreSigner.from_ape("me", "right").address == ADDRESS


def test_callback_signatures_are_normalized_and_checked() -> None:
    inner = LocalSigner(KEY)

    def high_s(digest: bytes) -> bytes:
        signature = inner.unsafe_sign_hash(digest)
        s = N - int.from_bytes(signature[32:64], "big")
        return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])

    signature = CallbackSigner(ADDRESS, high_s).sign_typed_data(*DATA)
    assert signature == inner.sign_typed_data(*DATA)

    def parity(digest: bytes) -> bytes:
        signature = inner.unsafe_sign_hash(digest)
        return signature[:64] + bytes([signature[64] - 27])

    assert CallbackSigner(ADDRESS, parity).sign_typed_data(*DATA) == inner.sign_typed_data(*DATA)
    other = LocalSigner(b"\x01" * 32)
    with pytest.raises(BadSignature, match="configure the right key"):
        CallbackSigner(ADDRESS, other.unsafe_sign_hash).sign_typed_data(*DATA)
    with pytest.raises(BadSignature, match="64 bytes"):
        CallbackSigner(ADDRESS, lambda digest: bytes(64)).sign_typed_data(*DATA)


def test_unsigned_signer_signs_nothing() -> None:
    with pytest.raises(ConfigError):
        UnsignedSigner(ADDRESS).sign_transaction(TX)
    with pytest.raises(ConfigError):
        UnsignedSigner(ADDRESS).sign_typed_data(*DATA)


def test_malleable_and_malformed_signatures_are_refused() -> None:
    digest = DATA.digest()
    good = LocalSigner(KEY).sign_typed_data(*DATA)
    r, s, v = good[:32], int.from_bytes(good[32:64], "big"), good[64]
    bad = {
        "high s": r + (N - s).to_bytes(32, "big") + bytes([55 - v]),
        "short": good[:64],
        "long": good + b"\x00",
        "parity v": good[:64] + bytes([v - 27]),
        "zero r": bytes(32) + good[32:],
        "zero s": r + bytes(32) + bytes([v]),
        "large r": N.to_bytes(32, "big") + good[32:],
    }
    for signature in bad.values():
        with pytest.raises(BadSignature):
            eip712.recover(digest, signature)
    assert eip712.recover(digest, good) == ADDRESS


@pytest.mark.parametrize("field", ["chainId", "verifyingContract", "name", "version"])
def test_signatures_count_in_one_domain_only(field: str) -> None:
    signature = LocalSigner(KEY).sign_typed_data(*DATA)
    changed = {"chainId": 1, "verifyingContract": NATIVE, "name": "Other", "version": "2"}
    elsewhere = DATA._replace(domain={**DATA.domain, field: changed[field]})
    with pytest.raises(BadSignature):
        eip712.check_signed_by(elsewhere, signature, ADDRESS)
