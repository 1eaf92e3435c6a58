"""How the system is deployed: the one list of contracts, constructor arguments, roles and grants.

Pure: it knows the deployer's address and nonce, and gives the steps in order. Tests run them with Ape,
`scripts/deploy.py` with web3. Contracts name each other at construction, so the addresses of those that come
later are predicted from (deployer, nonce); a runner must check that what it deployed lies where `addresses` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from eth_utils.address import to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

ZERO_ADDRESS = "0x0000000000000000000000000000000000000000"
DAY = 86_400
ETHER = 10**18

# Role ids of the AccessManager. 0 is OpenZeppelin's ADMIN_ROLE.
ROLES = {
    "ADMIN": 0,
    "REGISTRAR": 1,
    "REGULATOR": 2,
    "ARBITRATOR": 3,
    "ORACLE_ADMIN": 4,
    "IDENTITY_ADMIN": 5,
    "PAUSER": 6,
    "GUARDIAN": 7,
}

# Who may call what; every function behind `restricted` is here, ADMIN's too, so that none is left to a default.
FUNCTION_ROLES: dict[str, dict[str, str]] = {
    "ModelNFT": {
        "review(uint64,uint8,bytes32)": "REGISTRAR",
        "freeze(uint64,uint40,bytes32)": "REGULATOR",
        "lift(uint64,bytes32)": "REGULATOR",
        "delist(uint64,bool,bytes32)": "REGULATOR",
        "setContractURI(string)": "ADMIN",
    },
    "LicenseEscrow": {
        "listToken(address,bool)": "ADMIN",
        "pauseOpening(uint40)": "PAUSER",
        "resumeOpening()": "PAUSER",
    },
    "OracleCommittee": {
        "announceEpoch(address[],uint8)": "ORACLE_ADMIN",
        "commitCanaries(uint64,bytes32)": "ORACLE_ADMIN",
    },
    "MisuseCourt": {
        "pausePosting(uint40)": "PAUSER",
        "resumePosting()": "PAUSER",
    },
}

# Deployment order; the n-th has the deployer's n-th nonce.
CONTRACTS = (
    "AccessManager",
    "DeliveryCheck",
    "EvidenceLog",
    "ModelNFT",
    "LicenseNFT",
    "RoyaltyLedger",
    "EscrowExtension",
    "LicenseEscrow",
    "OracleCommittee",
    "MisuseCourt",
)


@dataclass(frozen=True, kw_only=True)
class CourtParams:
    """Members in the order of the contract's struct. Seconds, wei, basis points."""

    min_report_bond: int = ETHER // 20
    fee_bps: int = 2_000
    post_window: int = 7 * DAY
    challenge_window: int = 6 * DAY
    ruling_window: int = 14 * DAY
    last_window: int = 14 * DAY
    mark_age: int = 7 * DAY
    reporter_bps: int = 1_000
    slash_bps: tuple[int, int, int] = (2_500, 5_000, 10_000)
    challenge_bond: int = ETHER // 10
    missed_share_penalty: int = ETHER // 10

    def as_tuple(self) -> tuple[object, ...]:
        return (
            self.min_report_bond,
            self.fee_bps,
            self.post_window,
            self.challenge_window,
            self.ruling_window,
            self.last_window,
            self.mark_age,
            self.reporter_bps,
            list(self.slash_bps),
            self.challenge_bond,
            self.missed_share_penalty,
        )


@dataclass(frozen=True, kw_only=True)
class Params:
    """What a deployment chooses. The defaults are for production; a development chain shortens the delays."""

    admin: str
    treasury: str
    appeal_authority: str
    last_instance: str
    holders: dict[str, tuple[str, ...]] = field(default_factory=dict)  # role name -> accounts, without ADMIN
    admin_delay: int = 2 * DAY  # seconds between an administrator's announcement and its act
    platform_bps: int = 500
    contract_uri: str = ""
    identity: str = ZERO_ADDRESS
    min_operator_stake: int = 5 * ETHER
    min_fingerprinter_stake: int = ETHER  # also the part of a stake that deposits cannot lock
    min_threshold: int = 3
    announce_delay: int = 14 * DAY
    court: CourtParams = CourtParams()

    def __post_init__(self) -> None:
        unknown = set(self.holders) - set(ROLES) | ({"ADMIN"} & set(self.holders))
        if unknown:
            raise ValueError(
                f"no such role to hold: {', '.join(sorted(unknown))}; roles are "
                f"{', '.join(r for r in ROLES if r != 'ADMIN')}, and ADMIN is `admin`"
            )
        if self.court.missed_share_penalty > self.min_fingerprinter_stake:
            raise ValueError(
                f"missed_share_penalty {self.court.missed_share_penalty} exceeds the unlocked stake "
                f"{self.min_fingerprinter_stake}: raise min_fingerprinter_stake"
            )


class Deploy(NamedTuple):
    """Deploy `name` with `args`; it must land at `address`."""

    name: str
    args: tuple[object, ...]
    address: str


class Call(NamedTuple):
    """Call `function` of the deployed `name` with `args`, from the deployer."""

    name: str
    function: str
    args: tuple[object, ...]


Step = Deploy | Call


def create_address(deployer: str, nonce: int) -> str:
    """Address that `deployer` creates with `nonce`: the low 20 bytes of keccak(rlp([deployer, nonce]))."""
    if nonce < 0 or nonce >= 2**64 - 1:
        raise ValueError(f"nonce {nonce} is not an account nonce (0 to 2^64 - 2)")
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    coded = number if len(number) == 1 and number[0] < 0x80 else bytes([0x80 + len(number)]) + number
    payload = b"\x94" + to_canonical_address(deployer) + coded
    return to_checksum_address(keccak(bytes([0xC0 + len(payload)]) + payload)[12:])


def addresses(deployer: str, nonce: int) -> dict[str, str]:
    """Where each contract will lie when `deployer` runs the plan starting at `nonce`."""
    return {name: create_address(deployer, nonce + i) for i, name in enumerate(CONTRACTS)}


def selector(signature: str) -> bytes:
    return keccak(text=signature)[:4]


def plan(deployer: str, nonce: int, params: Params) -> list[Step]:
    """All steps, in order, each sent by `deployer`; the deployments come first and use the first nonces."""
    at = addresses(deployer, nonce)
    peers = (
        at["ModelNFT"],
        at["LicenseNFT"],
        at["RoyaltyLedger"],
        at["OracleCommittee"],
        at["MisuseCourt"],
        ZERO_ADDRESS,
        params.identity,
        at["DeliveryCheck"],
        params.treasury,
        params.min_fingerprinter_stake,
    )
    args: dict[str, tuple[object, ...]] = {
        "AccessManager": (deployer,),
        "DeliveryCheck": (),
        "EvidenceLog": (),
        "ModelNFT": (
            at["AccessManager"],
            at["LicenseNFT"],
            params.treasury,
            params.platform_bps,
            params.contract_uri,
        ),
        "LicenseNFT": (at["LicenseEscrow"], at["MisuseCourt"]),
        "RoyaltyLedger": (at["LicenseEscrow"], at["ModelNFT"], params.treasury),
        "EscrowExtension": (at["AccessManager"], peers),
        "LicenseEscrow": (at["AccessManager"], peers, at["EscrowExtension"]),
        "OracleCommittee": (
            at["AccessManager"],
            at["LicenseEscrow"],
            at["MisuseCourt"],
            params.min_threshold,
            params.min_operator_stake,
            params.min_fingerprinter_stake,
            params.announce_delay,
        ),
        "MisuseCourt": (
            at["AccessManager"],
            at["LicenseEscrow"],
            at["LicenseNFT"],
            at["ModelNFT"],
            at["OracleCommittee"],
            at["LicenseEscrow"],
            params.appeal_authority,
            params.last_instance,
            params.court.as_tuple(),
        ),
    }
    steps: list[Step] = [Deploy(name, args[name], at[name]) for name in CONTRACTS]
    manager = "AccessManager"
    for role, role_id in ROLES.items():
        if role != "ADMIN":
            steps.append(Call(manager, "labelRole", (role_id, role)))
    for name, functions in FUNCTION_ROLES.items():
        for role in dict.fromkeys(functions.values()):
            selectors = [selector(s) for s, r in functions.items() if r == role]
            steps.append(Call(manager, "setTargetFunctionRole", (at[name], selectors, ROLES[role])))
    for role, accounts in params.holders.items():
        steps.extend(Call(manager, "grantRole", (ROLES[role], account, 0)) for account in accounts)
    # Last, because it ends the deployer's immediate power.
    steps.append(Call(manager, "grantRole", (ROLES["ADMIN"], params.admin, params.admin_delay)))
    if to_canonical_address(params.admin) != to_canonical_address(deployer):
        steps.append(Call(manager, "renounceRole", (ROLES["ADMIN"], deployer)))
    return steps
