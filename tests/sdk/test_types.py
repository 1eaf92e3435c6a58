"""Values: bounds, packing, hashes, JSON."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_utils import keccak as reference_keccak
from eth_utils import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from zhiyi.errors import BadInput, IntegrityError
from zhiyi.types import (
    Ancestor,
    Basis,
    Delivery,
    Epoch,
    LicenseTerms,
    ModelRecord,
    Offer,
    Order,
    Preference,
    Preferences,
    Review,
    RoyaltyTerms,
    Split,
    TermsFlag,
    Use,
    fingerprint_of_license,
    keccak,
    license_id_of,
    model_of_license,
    to_address,
    to_bytes,
)

A = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
RECORD = ModelRecord(
    weights_root=b"\x01" * 32,
    total_bytes=10,
    chunks=2,
    chunk_size=1024,
    detector_hash=b"\x02" * 32,
    trace_key_commit=b"\x03" * 32,
    range_hash=b"\x04" * 32,
)


@given(st.binary(max_size=300))
def test_keccak_is_ethereums(data: bytes) -> None:
    assert keccak(data) == reference_keccak(data)


@given(st.binary(min_size=20, max_size=20))
def test_addresses_get_their_checksum(raw: bytes) -> None:
    assert to_address("0x" + raw.hex()) == to_checksum_address(raw)
    assert to_address(to_checksum_address(raw)) == to_checksum_address(raw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        A[:-1],
        A + "0",
        A[2:],
        A.replace("C8", "c8"),
        "0x" + "g" * 40,
        "0x" + "0" * 38 + "  ",
        "0X" + A[2:],
    ],
)
def test_wrong_addresses_are_refused(text: str) -> None:
    with pytest.raises(BadInput):
        to_address(text)


def test_bytes_are_refused_by_length_and_form() -> None:
    assert to_bytes("0x0102", 2) == b"\x01\x02"
    for wrong in ("0102", "0x010", "0x01 02", b"\x01"):
        with pytest.raises(BadInput):
            to_bytes(wrong, 2)


@given(st.integers(1, 2**64 - 1), st.integers(1, 2**28 - 1))
def test_license_ids_hold_model_and_fingerprint(model: int, fingerprint: int) -> None:
    license_id = license_id_of(model, fingerprint)
    assert (model_of_license(license_id), fingerprint_of_license(license_id)) == (model, fingerprint)


@pytest.mark.parametrize(("model", "fingerprint"), [(0, 1), (1, 0), (1, 2**28), (2**64, 1), (1, -1)])
def test_license_ids_out_of_range_are_refused(model: int, fingerprint: int) -> None:
    with pytest.raises(BadInput):
        license_id_of(model, fingerprint)


@given(
    st.builds(
        LicenseTerms,
        **{str(flag.name).lower(): st.booleans() for flag in TermsFlag},
        territory=st.integers(0, 999),
        expires_at=st.integers(0, 2**40 - 1),
        uses=st.frozensets(st.sampled_from(Use)),
        derivative_bps=st.integers(0, 5_000),
        onward_bps=st.integers(0, 5_000),
        min_tier=st.integers(0, 3),
    )
)
def test_terms_survive_packing(terms: LicenseTerms) -> None:
    assert LicenseTerms.unpack(terms.pack()) == terms
    assert terms.pack() < 1 << 92  # the license token keeps its own state above
    assert LicenseTerms.model_validate_json(terms.model_dump_json()) == terms


def test_terms_pack_as_the_contract_reads_them() -> None:
    terms = LicenseTerms(
        commercial=True, derivatives=True, territory=156, expires_at=7, uses=frozenset({Use.AI_TRAINING})
    )
    assert terms.pack() == 1 | 8 | 156 << 8 | 7 << 18 | 0b100 << 58
    shares = LicenseTerms(updates=True, derivative_bps=300, onward_bps=5_000, min_tier=2)
    assert shares.pack() == 32 | 300 << 64 | 5_000 << 77 | 2 << 90


@pytest.mark.parametrize("packed", [1 << 6, 1 << 7, 1000 << 8, 5001 << 64, 5001 << 77, 1 << 92, 1 << 96, -1])
def test_terms_with_meaningless_bits_are_refused(packed: int) -> None:
    with pytest.raises(BadInput):
        LicenseTerms.unpack(packed)


SOURCE = LicenseTerms(
    resale=True,
    commercial=True,
    disclosure_duty=True,
    territory=156,
    expires_at=1000,
    uses=frozenset({Use.AI_INFERENCE}),
    derivative_bps=100,
    onward_bps=200,
    min_tier=1,
)


@pytest.mark.parametrize(
    ("change", "beyond"),
    [
        ({}, ()),
        ({"commercial": False, "resale": False, "uses": frozenset(), "expires_at": 999}, ()),
        ({"derivative_bps": 101, "onward_bps": 201, "min_tier": 2}, ()),
        ({"updates": True, "derivatives": True}, ("derivatives", "updates")),
        ({"disclosure_duty": False}, ("disclosure_duty",)),
        ({"territory": 0}, ("territory",)),
        ({"expires_at": 0}, ("expires_at",)),
        ({"expires_at": 1001, "uses": frozenset({Use.AI_TRAINING})}, ("expires_at", "uses")),
        (
            {"derivative_bps": 99, "onward_bps": 199, "min_tier": 0},
            ("derivative_bps", "onward_bps", "min_tier"),
        ),
    ],
)
def test_terms_passed_on_stay_within_their_source(change: dict[str, object], beyond: tuple[str, ...]) -> None:
    assert SOURCE.model_copy(update=change).beyond(SOURCE) == beyond
    anywhere = LicenseTerms(**{**dict(SOURCE), "territory": 0, "expires_at": 0})
    assert SOURCE.beyond(anywhere) == ()


@given(st.integers(0, 2**12 - 1))
def test_preferences_survive_packing(bits: int) -> None:
    assert Preferences.unpack(bits).pack() == bits


def test_preferences_have_two_bits_each() -> None:
    preferences = Preferences(data_mining=Preference.ALLOWED, ai_training=Preference.NOT_ALLOWED)
    assert preferences.pack() == 1 | 3 << 4
    assert preferences.of(Use.AI_TRAINING) == Preference.NOT_ALLOWED
    with pytest.raises(BadInput):
        Preferences.unpack(1 << 12)


def test_record_hash_is_keccak_of_abi_encode() -> None:
    types = ["bytes32", "uint64", "uint32", "uint16", "bytes32", "bytes32", "bytes32", "bytes32"]
    assert RECORD.hash() == reference_keccak(encode(types, RECORD.as_tuple()))


def test_royalty_terms_hash_is_keccak_of_the_dynamic_struct() -> None:
    terms = RoyaltyTerms(
        platform_bps=500,
        collaborators=(Split(account=A, bps=1000),),
        ancestors=(Ancestor(model_id=3, bps=100), Ancestor(model_id=4, bps=50)),
    )
    expected = encode(["(uint16,(address,uint16)[],(uint64,uint16)[])"], [terms.as_tuple()])
    assert terms.hash() == reference_keccak(expected)


@pytest.mark.parametrize(
    "change",
    [
        {"total_bytes": -1},
        {"total_bytes": 2**64},
        {"total_bytes": "10"},
        {"total_bytes": 10.0},
        {"total_bytes": True},
        {"weights_root": b"\x01" * 31},
        {"weights_root": "0x01"},
        {"unknown": 1},
    ],
)
def test_values_refuse_what_does_not_fit(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ModelRecord(**(RECORD.model_dump() | change))


def test_values_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        RECORD.total_bytes = 5  # type: ignore[misc]  # that is the point


def test_values_survive_json_with_hex() -> None:
    text = RECORD.model_dump_json()
    assert '"weights_root":"0x0101' in text
    assert ModelRecord.model_validate_json(text) == RECORD


def test_structs_from_the_chain_are_read_by_name_or_order() -> None:
    names = [name for name, _ in ModelRecord.abi_fields()]
    assert names[5] == "traceKeyCommit"
    assert ModelRecord.from_abi(dict(zip(names, RECORD.as_tuple(), strict=True))) == RECORD
    assert ModelRecord.from_abi(RECORD.as_tuple()) == RECORD
    with pytest.raises(IntegrityError):
        ModelRecord.from_abi(RECORD.as_tuple()[:-1])
    with pytest.raises(IntegrityError):
        ModelRecord.from_abi({"weightsRoot": b""})


def test_abi_types_are_those_of_the_solidity_structs() -> None:
    from zhiyi.abi import interface, type_of

    entry = interface("LicenseEscrow").function("open")
    assert type_of(entry["inputs"][0]) == Order.abi_type()
    fields = entry["inputs"][0]["components"][1]["components"]
    assert [(f["name"], f["type"]) for f in fields] == list(Delivery.abi_fields())


def test_unknown_enum_values_are_an_integrity_error() -> None:
    from zhiyi.types import ModelStatus

    with pytest.raises(IntegrityError):
        ModelStatus.from_abi((A, 0, 9, False, 0, 0, 0, 0))
    assert ModelStatus.from_abi((A, 0, 1, False, 0, 0, 0, 0)).review == Review.APPROVED


def test_offers_name_a_source_just_where_they_need_one() -> None:
    fields: dict[str, object] = {
        "model_id": 7,
        "seller": A,
        "price": 1,
        "bond": 1,
        "terms": LicenseTerms(),
        "terms_hash": bytes(32),
        "valid_until": 1,
        "nonce": 1,
    }
    assert Offer(**fields, basis=Basis.RESALE, source=license_id_of(7, 1)).source == license_id_of(7, 1)
    for basis, source in (
        (Basis.OWNER, license_id_of(7, 1)),
        (Basis.RESALE, 0),
        (Basis.SUBLICENSE, license_id_of(8, 1)),
    ):
        with pytest.raises(ValidationError, match="source"):
            Offer(**fields, basis=basis, source=source)


def test_epochs_know_their_seats() -> None:
    epoch = Epoch(number=1, signers=(A,), threshold=1)
    assert epoch.seat(A.lower()) == 0
    with pytest.raises(BadInput, match="no seat"):
        epoch.seat("0x" + "00" * 20)
    with pytest.raises(ValidationError):
        Epoch(number=1, signers=(A,), threshold=2)
