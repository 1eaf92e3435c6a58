"""Model metadata and ERC-7517 preferences."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhiyi.errors import BadInput, IntegrityError
from zhiyi.metadata import (
    MAX_BYTES,
    License,
    build,
    check_bits,
    effective,
    encode,
    parse,
    preferences_from_json,
    preferences_to_json,
)
from zhiyi.types import Preference, Preferences

LICENSE = License(name="Community 1.0", document="ipfs://Qm", terms_hash=b"\x01" * 32)
KEYS = {
    "dataMining",
    "aiInference",
    "aiTraining",
    "aiGenerativeTraining",
    "aiTrainingWithAuthorship",
    "aiGenerativeTrainingWithAuthorship",
}


def made(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "name": "模型 m",
        "description": "d",
        "preferences": Preferences(ai_training=Preference.CONSTRAINED, data_mining=Preference.NOT_ALLOWED),
        "license": LICENSE,
        "model": {"weights_root": b"\x02" * 32, "leaves_cid": "Qm"},
    }
    return encode(build(**(fields | changes)))  # type: ignore[arg-type]  # fields are those of build


@given(st.integers(0, 2**12 - 1))
def test_bits_and_json_say_the_same(bits: int) -> None:
    preferences = Preferences.unpack(bits)
    value = preferences_to_json(preferences)
    assert set(value) <= KEYS
    assert set(value.values()) <= {"allowed", "notAllowed", "constrained"}
    assert preferences_from_json(value) == preferences


def test_metadata_is_read_back() -> None:
    metadata = parse(made())
    assert metadata.name == "模型 m"
    assert metadata.license == LICENSE
    assert metadata.model["weights_root"] == "0x" + "02" * 32
    check_bits(metadata, metadata.preferences.pack())
    with pytest.raises(IntegrityError, match="the chain rules"):
        check_bits(metadata, 0)


def test_json_is_canonical() -> None:
    assert made() == made()
    assert json.loads(made())["dataMiningPreference"] == {
        "aiTraining": "constrained",
        "dataMining": "notAllowed",
    }


def test_constrained_needs_a_license() -> None:
    with pytest.raises(BadInput, match="license reference"):
        made(license=None)
    assert effective(Preference.CONSTRAINED, license_given=False) == Preference.NOT_ALLOWED
    assert effective(Preference.CONSTRAINED, license_given=True) == Preference.CONSTRAINED
    assert effective(Preference.NOT_STATED, license_given=False) == Preference.NOT_STATED


def test_the_prose_spelling_is_read_and_nothing_invented() -> None:
    found = preferences_from_json({"aiTraining": "constraint", "x": "notAllowed"})
    assert found == Preferences(ai_training=Preference.CONSTRAINED)


@pytest.mark.parametrize("value", ["yes", "ALLOWED", 1, True, [], {}])
def test_unknown_preference_values_are_refused(value: object) -> None:
    with pytest.raises(BadInput):
        preferences_from_json({"aiTraining": value})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b'{"model":[]}',
        b'{"dataMiningPreference":[]}',
        b'{"name":"\\ud800"}',
        b"[" * 100_000,
        b" " * (MAX_BYTES + 1),
    ],
)
def test_hostile_metadata_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput):
        parse(data)


def test_unusable_license_reads_as_none() -> None:
    for value in (None, "x", {}, {"name": "a", "document": "b", "termsHash": "0x01"}, {"name": 1}):
        raw = json.loads(made()) | {"license": value}
        assert parse(json.dumps(raw).encode()).license is None


def test_oversized_texts_are_refused_when_built_and_cut_when_read() -> None:
    with pytest.raises(BadInput):
        made(name="x" * 201)
    with pytest.raises(BadInput):
        made(model={"x": "y" * MAX_BYTES})
    raw = json.loads(made()) | {"name": "x" * 5000}
    assert len(parse(json.dumps(raw).encode()).name) == 200
