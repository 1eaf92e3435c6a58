"""Envelopes: every recipient opens them, nobody else does, and no byte can change."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyi.delivery import ecies
from zhiyi.delivery.ecies import FRAME_BYTES, NotARecipient
from zhiyi.errors import BadInput, IntegrityError, NotFound, ZhiyiError

KEYS = [X25519PrivateKey.from_private_bytes(bytes([k]) * 32) for k in (1, 2, 3)]
SECRETS = [key.private_bytes_raw() for key in KEYS]
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]
HEADER = 7 + 3 * 80 + 32


def sealed_file(folder: Path, data: bytes) -> Path:
    (folder / "plain").write_bytes(data)
    ecies.seal_file(folder / "plain", PUBLIC, folder / "sealed")
    return folder / "sealed"


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES])
def test_every_recipient_opens_a_file_of_any_length(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    sealed = sealed_file(tmp_path, data)
    assert data not in sealed.read_bytes() or size < 2
    for secret in SECRETS:
        ecies.open_file(sealed, secret, tmp_path / "opened")
        assert (tmp_path / "opened").read_bytes() == data
    frames = max(1, -(-size // FRAME_BYTES))
    assert sealed.stat().st_size == HEADER + size + 16 * frames


def test_two_envelopes_share_nothing(tmp_path: Path) -> None:
    one = sealed_file(tmp_path, b"the same").read_bytes()
    two = sealed_file(tmp_path, b"the same").read_bytes()
    assert one[7:39] != two[7:39]
    assert one[-24:] != two[-24:]


def test_others_do_not_open_it(tmp_path: Path) -> None:
    sealed = sealed_file(tmp_path, b"secret")
    with pytest.raises(NotARecipient):
        ecies.open_file(sealed, bytes([9]) * 32, tmp_path / "opened")
    for secret in (b"", bytes(31)):
        with pytest.raises(BadInput):
            ecies.open_file(sealed, secret, tmp_path / "opened")
    assert not (tmp_path / "opened").exists()


@pytest.fixture(scope="module")
def envelope(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return sealed_file(tmp_path_factory.mktemp("ecies"), b"some evidence" * 9).read_bytes()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_is_caught(
    envelope: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(envelope) - 1))
    bit = data.draw(st.integers(0, 7))
    folder = tmp_path_factory.mktemp("flip")
    (folder / "s").write_bytes(envelope[:at] + bytes([envelope[at] ^ 1 << bit]) + envelope[at + 1 :])
    with pytest.raises(ZhiyiError):
        ecies.open_file(folder / "s", SECRETS[1], folder / "o")
    assert [p.name for p in folder.iterdir()] == ["s"]


def test_frames_cannot_be_dropped_repeated_or_swapped(tmp_path: Path) -> None:
    sealed = sealed_file(tmp_path, random.Random(5).randbytes(2 * FRAME_BYTES + 100))
    raw, step = sealed.read_bytes(), FRAME_BYTES + 16
    head, one, two, last = (
        raw[:HEADER],
        raw[HEADER : HEADER + step],
        raw[HEADER + step : HEADER + 2 * step],
        raw[HEADER + 2 * step :],
    )
    for bad in (
        head + one + two,
        head + one,
        head,
        head + one + last,
        head + two + one + last,
        head + one + one + two + last,
        head + one + two + last + last,
        head + one + two + last + b"x",
        raw[:-1],
        raw[: HEADER - 1],
        raw[:3],
        b"",
    ):  # fmt: skip
        sealed.write_bytes(bad)
        with pytest.raises((IntegrityError, BadInput)):
            ecies.open_file(sealed, SECRETS[0], tmp_path / "opened")
        assert not (tmp_path / "opened").exists()


def test_folder_round_trip_and_kinds_are_not_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    (folder / "sub").mkdir(parents=True)
    contents = {"cipher.bin": random.Random(1).randbytes(FRAME_BYTES + 5), "empty": b"", "sub/é.json": b"{}"}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    ecies.seal_folder(folder, PUBLIC[:1], tmp_path / "sealed")
    ecies.open_folder(tmp_path / "sealed", SECRETS[0], tmp_path / "out")
    found = {
        p.relative_to(tmp_path / "out").as_posix(): p.read_bytes()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    }
    assert found == contents
    with pytest.raises(BadInput, match="holds a folder"):
        ecies.open_file(tmp_path / "sealed", SECRETS[0], tmp_path / "file")
    with pytest.raises(BadInput, match="exists already"):
        ecies.open_folder(tmp_path / "sealed", SECRETS[0], tmp_path / "out")
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="link"):
        ecies.seal_folder(folder, PUBLIC, tmp_path / "sealed2")


def entry(name: bytes, data: bytes, size: int | None = None) -> bytes:
    return (
        len(name).to_bytes(2, "big") + name + (len(data) if size is None else size).to_bytes(8, "big") + data
    )


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        entry(b"../escape", b"x"),
        entry(b"/tmp/escape", b"x"),
        entry(b"a/../../escape", b"x"),
        entry(b"", b"x"),
        entry(b"\xff", b"x"),
        entry(b"b", b"x") + entry(b"a", b"x"),
        entry(b"a", b"x") + entry(b"a", b"x"),
        entry(b"a", b"x") + entry(b"a/b", b"x"),
        entry(b"a", b"x", 1 << 60),
        entry(b"a", b"xyz")[:-1],
        entry(b"a", b"x") + b"\x00",
        b"\xff\xff" + b"a" * 65535 + bytes(8),
    ],
)  # fmt: skip
def test_a_hostile_folder_cannot_escape(tmp_path: Path, contents: bytes) -> None:
    with ecies._sealing(1, PUBLIC, tmp_path / "sealed") as sink:
        sink.write(contents)
    with pytest.raises((BadInput, IntegrityError)):
        ecies.open_folder(tmp_path / "sealed", SECRETS[2], tmp_path / "home" / "out")
    assert not any((tmp_path / "home").iterdir())


def test_sender_cannot_give_two_recipients_different_content_keys(tmp_path: Path) -> None:
    sealed = sealed_file(tmp_path, b"evidence")
    raw = bytearray(sealed.read_bytes())
    other = ecies._SUITE.encrypt(bytes(32), KEYS[1].public_key(), info=b"zhiyi.envelope.v1")
    raw[7 + 80 : 7 + 160] = other
    sealed.write_bytes(raw)
    with pytest.raises(IntegrityError, match="key commitment"):
        ecies.open_file(sealed, SECRETS[1], tmp_path / "opened")


def test_seal_refuses_bad_recipients_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    for keys in ([], [bytes(32)], [bytes(31)], [PUBLIC[0]] * 65):
        with pytest.raises(BadInput):
            ecies.seal_file(tmp_path / "f", keys, tmp_path / "s")
    with pytest.raises(NotFound):
        ecies.seal_file(tmp_path / "missing", PUBLIC, tmp_path / "s")
    (tmp_path / "d").mkdir()
    with pytest.raises(BadInput):
        ecies.seal_folder(tmp_path / "d", PUBLIC, tmp_path / "s")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "f"]
