"""The deployment plan: what it deploys lies where it says, and every power belongs to a role."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from market import DAY, ETHER, System

from contracts_plan import (
    CONTRACTS,
    FUNCTION_ROLES,
    ROLES,
    Call,
    CourtParams,
    Deploy,
    Params,
    create_address,
    plan,
    selector,
)

ROOT = Path(__file__).resolve().parents[2]
DEPLOYER = "0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0"
ERRORS = re.compile(r"^\s*error (\w+)\(", re.MULTILINE)


def params(**changes: object) -> Params:
    people = {
        "admin": DEPLOYER,
        "treasury": DEPLOYER,
        "appeal_authority": DEPLOYER,
        "last_instance": DEPLOYER,
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
    import rlp
    from eth_utils import keccak, to_checksum_address

    for nonce in (0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 2**64 - 2):
        expected = keccak(rlp.encode([bytes.fromhex(DEPLOYER[2:]), nonce]))[12:]
        assert create_address(DEPLOYER, nonce) == to_checksum_address(expected)
    for nonce in (-1, 2**64 - 1):
        with pytest.raises(ValueError, match="nonce"):
            create_address(DEPLOYER, nonce)


def test_deployments_come_first_and_in_order() -> None:
    steps = plan(DEPLOYER, 7, params())
    names = [step.name for step in steps if isinstance(step, Deploy)]
    assert tuple(names) == CONTRACTS
    assert all(isinstance(step, Call) for step in steps[len(names) :])
    assert [step.address for step in steps if isinstance(step, Deploy)] == [
        create_address(DEPLOYER, 7 + i) for i in range(len(CONTRACTS))
    ]


def test_the_deployer_keeps_no_power_when_somebody_else_administers() -> None:
    other = "0x" + "11" * 20
    last = plan(DEPLOYER, 0, params(admin=other))[-2:]
    assert last[0] == Call("AccessManager", "grantRole", (0, other, 2 * DAY))
    assert last[1] == Call("AccessManager", "renounceRole", (0, DEPLOYER))
    assert plan(DEPLOYER, 0, params())[-1] == Call("AccessManager", "grantRole", (0, DEPLOYER, 2 * DAY))


def test_unknown_roles_and_impossible_stakes_are_refused() -> None:
    for role in ("REGISTRER", "ADMIN"):
        with pytest.raises(ValueError, match=role):
            params(holders={role: (DEPLOYER,)})
    with pytest.raises(ValueError, match="missed_share_penalty"):
        params(court=CourtParams(missed_share_penalty=2 * ETHER))


def test_the_system_is_wired_to_itself(system: System) -> None:
    at = system.at
    assert system.models.licenses() == at["LicenseNFT"]
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
    for name in ("ModelNFT", "LicenseEscrow", "OracleCommittee", "MisuseCourt"):
        assert at[name].authority() == at["AccessManager"]


def test_every_restricted_function_has_a_role(system: System) -> None:
    """As the sources have them, so that a new power cannot be forgotten in the plan."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "contracts").glob("*.sol"):
        for name in re.findall(r"function (\w+)\([^)]*\)[^{;]*\brestricted\b", path.read_text()):
            contract = "LicenseEscrow" if path.stem in ("Vault", "EscrowExtension") else path.stem
            found.setdefault(contract, set()).add(name)
    planned = {c: {s.partition("(")[0] for s in functions} for c, functions in FUNCTION_ROLES.items()}
    assert found == planned
    for name, functions in FUNCTION_ROLES.items():
        for signature, role in functions.items():
            held = system.manager.getTargetFunctionRole(system.at[name], selector(signature))
            assert held == ROLES[role], signature


def test_no_contract_is_too_large(system: System) -> None:
    for name, contract in system.at.items():
        size = len(bytes(contract.provider.get_code(contract.address)))
        assert size <= 24_576, f"{name} has {size} bytes"


@pytest.mark.parametrize(
    "interface", ["IModelNFT", "ILicenseNFT", "IEscrowBase", "IVault", "IRoyaltyLedger", "IEvidenceLog"]
)
def test_every_error_of_the_market_is_tested(interface: str) -> None:
    source = (ROOT / "contracts" / "interfaces" / f"{interface}.sol").read_text()
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    untested = [name for name in ERRORS.findall(source) if not re.search(rf"\b{name}\b", tests)]
    assert untested == []
