"""The deployment plan: what it deploys lies where it says, and every power belongs to a role."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import rlp
from eth_account import Account
from eth_utils import keccak, to_checksum_address
from market import DAY, ETHER, System

from contracts_plan import (
    CONTRACTS,
    PROXY,
    PROXY_CODE,
    PROXY_COST,
    PROXY_SIGNER,
    PROXY_TRANSACTION,
    ZERO_ADDRESS,
    Call,
    CourtParams,
    Params,
    factory_address,
    plan,
    salt_of,
    selector,
)
from zhiyi.creation import create_address
from zhiyi.errors import BadInput
from zhiyi.roles import DELAYED_ROLES, FUNCTION_ROLES, ROLES

ROOT = Path(__file__).resolve().parents[2]
DEPLOYER = "0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0"
OTHER = "0x" + "11" * 20
JUDGE = "0x" + "33" * 20
FACTORY_AT = "0x" + "22" * 20
ERRORS = re.compile(r"^\s*error (\w+)\(", re.MULTILINE)


def params(**changes: object) -> Params:
    people = {
        "admin": DEPLOYER,
        "treasury": DEPLOYER,
        "appeal_authority": DEPLOYER,
        "last_instance": JUDGE,
    }
    return Params(**{**people, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nonce", "address"),
    [
        (0, "0xcd234A471b72ba2F1Ccf0A70FCABA648a5eeCD8d"),
        (1, "0x343c43A37D37dfF08AE8C4A11544c718AbB4fCF8"),
        (2, "0xf778B86FA74E846c4f0a1fBd1335FE81c00a0C91"),
        (3, "0xffFd933A0bC612844eaF0C6Fe3E5b8E9B6C1d19c"),
    ],
)
def test_create_addresses(nonce: int, address: str) -> None:
    assert create_address(DEPLOYER, nonce) == address


def test_create_address_of_long_nonces() -> None:
    for nonce in (0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 2**64 - 2):
        expected = keccak(rlp.encode([bytes.fromhex(DEPLOYER[2:]), nonce]))[12:]
        assert create_address(DEPLOYER, nonce) == to_checksum_address(expected)
    for nonce in (-1, 2**64 - 1):
        with pytest.raises(BadInput, match="nonce"):
            create_address(DEPLOYER, nonce)


def test_addresses_depend_on_the_factory_and_the_name_alone() -> None:
    one, other = (plan(FACTORY_AT, DEPLOYER, params(**changes)) for changes in ({}, {"platform_bps": 1}))
    assert tuple(step.name for step in one.contracts) == CONTRACTS
    assert [step.address for step in one.contracts] == [step.address for step in other.contracts]
    assert len({*one.at.values()}) == len(CONTRACTS) + 1
    moved = plan(OTHER, DEPLOYER, params())
    assert not {*one.at.values()} & {*moved.at.values()}


def test_the_factory_lies_by_owner_salt_and_code() -> None:
    found = {
        factory_address(code, owner, salt_of(salt))
        for code in (b"\1", b"\2")
        for owner in (DEPLOYER, OTHER)
        for salt in ("a", "b")
    }
    assert len(found) == 8


def test_the_proxy_transaction_puts_the_proxy_at_its_address() -> None:
    assert Account.recover_transaction(PROXY_TRANSACTION) == PROXY_SIGNER
    assert create_address(PROXY_SIGNER, 0) == PROXY
    nonce, price, gas, to, value, data, *_ = rlp.decode(PROXY_TRANSACTION)
    assert (nonce, to, value) == (b"", b"", b"")
    assert int.from_bytes(price, "big") * int.from_bytes(gas, "big") == PROXY_COST
    assert data.endswith(PROXY_CODE)


def test_the_deployer_keeps_no_power_when_somebody_else_administers() -> None:
    last = plan(FACTORY_AT, DEPLOYER, params(admin=OTHER)).settings()[-2:]
    assert last[0] == Call("grantRole", (0, OTHER, 2 * DAY))
    assert last[1] == Call("renounceRole", (0, DEPLOYER))
    assert plan(FACTORY_AT, DEPLOYER, params()).settings()[-1] == Call("grantRole", (0, DEPLOYER, 2 * DAY))


def test_delayed_roles_wait_and_can_be_cancelled() -> None:
    holders = {role: (OTHER,) for role in ROLES if role != "ADMIN"}
    made = plan(FACTORY_AT, DEPLOYER, params(admin=OTHER, holders=holders))
    delays = {grant.role: grant.delay for grant in made.grants}
    names = {number: role for role, number in ROLES.items()}
    assert {names[role] for role, delay in delays.items() if delay == 2 * DAY} == set(DELAYED_ROLES)
    assert {names[role] for role, delay in delays.items() if delay == 0} == set(ROLES) - set(DELAYED_ROLES)
    assert {names[role] for role, _ in made.guardians} == set(DELAYED_ROLES) - {"ADMIN"}
    assert {guardian for _, guardian in made.guardians} == {ROLES["GUARDIAN"]}


def test_no_function_is_left_to_admin_whose_acts_no_guardian_can_cancel() -> None:
    assert not [s for table in FUNCTION_ROLES.values() for s, role in table.items() if role == "ADMIN"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"admin": OTHER, "admin_delay": 2 * DAY - 1}, "admin_delay"),
        ({"admin": DEPLOYER, "appeal_authority": OTHER}, "would hold STEWARD, ADMIN"),
        ({"admin": OTHER, "last_instance": DEPLOYER}, "one account"),
        ({"admin": OTHER, "last_instance": OTHER}, "last_instance .* would hold ADMIN"),
        ({"admin": OTHER, "holders": {"ORACLE_ADMIN": (JUDGE,)}}, "last_instance .* would hold ORACLE_ADMIN"),
        ({"admin": OTHER, "holders": {"PAUSER": (DEPLOYER.upper().replace("X", "x"),)}}, "would hold PAUSER"),
    ],
)
def test_production_refuses_short_delays_and_a_deployer_with_power(changes: dict[str, Any], why: str) -> None:
    params(admin=OTHER).check_for_production(DEPLOYER)
    with pytest.raises(ValueError, match=why):
        params(**changes).check_for_production(DEPLOYER)


def test_unknown_roles_and_impossible_stakes_are_refused() -> None:
    for role in ("REGISTRER", "ADMIN"):
        with pytest.raises(ValueError, match=role):
            params(holders={role: (DEPLOYER,)})
    with pytest.raises(ValueError, match="missed_share_penalty"):
        params(court=CourtParams(missed_share_penalty=2 * ETHER))
    for slow in (
        {"announce_delay": 7 * DAY - 1},
        {"announce_delay": 8 * DAY, "court": CourtParams(post_window=8 * DAY + 1)},
    ):
        with pytest.raises(ValueError, match="announce_delay"):
            params(**slow)
    assert params(announce_delay=7 * DAY).announce_delay == 7 * DAY
    for name in ("admin", "treasury", "appeal_authority", "last_instance"):
        with pytest.raises(ValueError, match=name):
            params(**{name: ZERO_ADDRESS})


def test_the_system_is_wired_to_itself(system: System) -> None:
    at = system.at
    assert (system.models.licenses(), system.models.court()) == (at["LicenseNFT"], at["MisuseCourt"])
    assert (system.licenses.escrow(), system.licenses.court()) == (at["LicenseEscrow"], at["MisuseCourt"])
    assert (system.royalties.vault(), system.royalties.models()) == (at["LicenseEscrow"], at["ModelNFT"])
    escrow = at["LicenseEscrow"]
    assert (escrow.models(), escrow.licenses(), escrow.royalties()) == (
        at["ModelNFT"],
        at["LicenseNFT"],
        at["RoyaltyLedger"],
    )
    assert (escrow.committee(), escrow.court()) == (at["OracleCommittee"], at["MisuseCourt"])
    assert escrow.deliveryCheck() == at["DeliveryCheck"]
    assert escrow.extension() == at["EscrowExtension"]
    channels = system.channels
    assert (channels.vault(), channels.models(), channels.licenses()) == (
        escrow,
        at["ModelNFT"],
        at["LicenseNFT"],
    )
    assert escrow.channels() == channels
    assert at["MisuseCourt"].COURT_EXTENSION() == at["CourtExtension"]
    assert (system.oversight.models(), system.oversight.licenses()) == (at["ModelNFT"], at["LicenseNFT"])
    assert escrow.identity() == at["IdentityRegistry"]
    for name in (
        "ModelNFT",
        "LicenseEscrow",
        "OracleCommittee",
        "MisuseCourt",
        "CourtExtension",
        "IdentityRegistry",
        "Oversight",
    ):
        assert at[name].authority() == at["AccessManager"]


def test_every_restricted_function_has_a_role(system: System) -> None:
    """As the sources have them, so that a new power cannot be forgotten in the plan."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "contracts").glob("*.sol"):
        for name in re.findall(r"function (\w+)\([^)]*\)[^{;]*\brestricted\b", path.read_text()):
            halves = {
                "Vault": "LicenseEscrow",
                "EscrowExtension": "LicenseEscrow",
                "CourtExtension": "MisuseCourt",
            }
            contract = halves.get(path.stem, path.stem)
            found.setdefault(contract, set()).add(name)
    planned = {c: {s.partition("(")[0] for s in functions} for c, functions in FUNCTION_ROLES.items()}
    assert found == planned
    for name, functions in FUNCTION_ROLES.items():
        for signature, role in functions.items():
            held = system.manager.getTargetFunctionRole(system.at[name], selector(signature))
            assert held == ROLES[role], signature


@pytest.mark.deployed_code
def test_no_contract_is_too_large(system: System) -> None:
    for name, contract in system.at.items():
        size = len(bytes(contract.provider.get_code(contract.address)))
        assert size <= 24_576, f"{name} has {size} bytes"


@pytest.mark.parametrize(
    "interface",
    [
        "IModelNFT",
        "ILicenseNFT",
        "IEscrowBase",
        "IVault",
        "IRoyaltyLedger",
        "IEvidenceLog",
        "IIdentityRegistry",
        "IOversight",
        "IUsageChannel",
    ],
)
def test_every_error_of_the_market_is_tested(interface: str) -> None:
    source = (ROOT / "contracts" / "interfaces" / f"{interface}.sol").read_text()
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    untested = [name for name in ERRORS.findall(source) if not re.search(rf"\b{name}\b", tests)]
    assert untested == []
