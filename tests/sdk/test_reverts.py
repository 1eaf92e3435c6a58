"""Refusals: every custom error has its hint in two languages, and odd data stays visible."""

from __future__ import annotations

import re

import pytest
from eth_abi.abi import encode

from zhiyi import abi
from zhiyi.reverts import HINTS, reverted

FROM_LIBRARIES = {
    "InvalidShortString",
    "StringTooLong",
    "StringsInsufficientHexLength",
    "AccountBalanceOverflow",
}
ERRORS = sorted(abi.all_errors().values(), key=abi.signature)


@pytest.mark.parametrize("entry", ERRORS, ids=abi.signature)
def test_every_error_has_hints_that_name_its_own_values(entry: abi.Entry) -> None:
    if entry["name"] in FROM_LIBRARIES:
        return
    english, chinese = HINTS[entry["name"]]
    names = {item["name"] for item in entry["inputs"]}
    for text in (english, chinese):
        assert text
        assert set(re.findall(r"\{(\w+)\}", text)) <= names
    assert re.search(r"[一-鿿]", chinese)
    assert not re.search(r"[一-鿿]", english)


def test_no_hint_is_left_over() -> None:
    assert set(HINTS) <= {entry["name"] for entry in ERRORS}


def test_enums_are_named() -> None:
    entry = next(e for e in ERRORS if e["name"] == "WrongState")
    data = abi.selector(entry) + encode(["uint256", "uint8", "uint8"], [5, 1, 2])
    error = reverted(data, "LicenseEscrow.settle")
    assert error.values == {"licenseId": 5, "given": "OPEN", "needed": "REVEALED"}
    assert "OPEN" in error.hint
    assert str(error).startswith("LicenseEscrow.settle: WrongState(licenseId=5, given=OPEN, needed=REVEALED)")


@pytest.mark.parametrize(
    ("name", "kinds", "values", "says", "chinese"),
    [
        (
            "NotTheAddressee",
            ["address", "address"],
            ["0x" + "11" * 20] * 2,
            "when it was demanded",
            "提出要求时",
        ),
        (
            "SaleNonceStale",
            ["uint24", "uint24"],
            [3, 0],
            "a resale or sublicense has 0",
            "转售与分许可应为 0",
        ),
        (
            "BondTooSmall",
            ["uint256"] * 3,
            [5, 1, 2],
            "left of its source's bond, in the same token",
            "同一代币",
        ),
        (
            "NotNeutral",
            ["address"],
            ["0x" + "11" * 20],
            "owns the model that a holder passes on",
            "模型所有者",
        ),
    ],
)
def test_hints_fit_onward_orders_and_demands(
    name: str, kinds: list[str], values: list[object], says: str, chinese: str
) -> None:
    entry = next(e for e in ERRORS if e["name"] == name)
    error = reverted(abi.selector(entry) + encode(kinds, values), "f")
    assert error.error_name == name
    assert says in error.hint
    assert chinese in error.hint_zh


def test_enum_values_of_a_newer_contract_stay_numbers() -> None:
    entry = next(e for e in ERRORS if e["name"] == "WrongState")
    data = abi.selector(entry) + encode(["uint256", "uint8", "uint8"], [5, 99, 2])
    assert reverted(data, "x").values["given"] == 99


def test_require_strings_and_panics_are_shown() -> None:
    text = reverted(bytes.fromhex("08c379a0") + encode(["string"], ["too bad"]), "f")
    assert (text.error_name, text.values["message"]) == ("Error", "too bad")
    panic = reverted(bytes.fromhex("4e487b71") + encode(["uint256"], [0x11]), "f")
    assert (panic.error_name, panic.values["code"]) == ("Panic", 0x11)


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\xde\xad\xbe\xef", bytes.fromhex("08c379a0") + b"\x01" * 40]
)
def test_unknown_or_broken_data_keeps_its_hex(data: bytes) -> None:
    error = reverted(data, "f", message="execution reverted")
    assert error.error_name == "Reverted"
    assert error.values.get("data", b"") == data


def test_truncated_custom_errors_do_not_break_the_decoder() -> None:
    for entry in ERRORS:
        if entry["inputs"]:
            error = reverted(abi.selector(entry) + b"\x01" * 5, "f")
            assert error.error_name == "Reverted"
