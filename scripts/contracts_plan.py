"""How the system is deployed: the one list of contracts, constructor arguments, roles and grants.

Pure: from the factory's address it knows where everything will lie, on every chain alike. `contracts_rollout` runs it.

To add a contract: name it in `CONTRACTS`, give its arguments in `_arguments`, the functions behind `restricted` in
`zhiyi.roles.FUNCTION_ROLES`, its ABI in `zhiyi.abi.NAMES` and `scripts/export_abi.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak

from zhiyi.creation import create2_address, create3_address
from zhiyi.roles import CANCELLABLE, DAY, DELAYED_ROLES, FUNCTION_ROLES, MIN_ADMIN_DELAY, ROLES

ZERO_ADDRESS = "0x0000000000000000000000000000000000000000"
ETHER = 10**18
RANGE_ANSWER_TIME = 7 * DAY  # the escrow's, for a committee to answer a range claim

FACTORY = "DeploymentFactory"
MANAGER = "AccessManager"

# What the factory creates, in this order; addresses do not depend on the order.
CONTRACTS = (
    "AccessManager",
    "DeliveryCheck",
    "EvidenceLog",
    "IdentityRegistry",
    "ModelNFT",
    "LicenseNFT",
    "RoyaltyLedger",
    "EscrowExtension",
    "LicenseEscrow",
    "OracleCommittee",
    "CourtExtension",
    "MisuseCourt",
    "Oversight",
    "UsageChannel",
)

# The CREATE2 proxy that lies at one address on most chains, its code, the transaction that puts it there. Nobody has
# the key of PROXY_SIGNER; the transaction names no chain (it is older than EIP-155), so it counts on every one.
PROXY = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
PROXY_SIGNER = "0x3fAB184622Dc19b6109349B94811493BF2a45362"
PROXY_COST = 10**16  # wei: 100,000 gas at 100 gwei, fixed in the transaction
PROXY_CODE = bytes.fromhex(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b"
    "8082525050506014600cf3"
)
PROXY_TRANSACTION = (
    bytes.fromhex("f8a58085174876e800830186a08080b853604580600e600039806000f350fe")
    + PROXY_CODE
    + bytes.fromhex("1ba0" + "22" * 32 + "a0" + "22" * 32)
)

DEFAULT_SALT = "zhiyi 1"  # another one gives another deployment by the same account


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
    admin_delay: int = MIN_ADMIN_DELAY  # seconds between an announcement and its act, for every delayed role
    platform_bps: int = 500
    contract_uri: str = ""
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
        longest = max(self.court.post_window, RANGE_ANSWER_TIME)
        if self.announce_delay < longest:
            raise ValueError(
                f"announce_delay {self.announce_delay} s is under the {longest} s in which a committee has to "
                "answer: one that is replaced could not finish its cases; raise announce_delay"
            )
        for name in ("admin", "treasury", "appeal_authority", "last_instance"):
            if not any(to_canonical_address(getattr(self, name))):
                raise ValueError(f"{name} is the zero address: name an account")

    def check_for_production(self, deployer: str) -> None:
        """Raises ValueError when administrators would act without notice or the deployer would keep a power."""
        if self.admin_delay < MIN_ADMIN_DELAY:
            raise ValueError(
                f"admin_delay {self.admin_delay} s is under {MIN_ADMIN_DELAY} s: only a development chain may have it"
            )
        if _same(self.appeal_authority, self.last_instance):
            raise ValueError(
                f"appeal_authority and last_instance are one account, {self.last_instance}: name two"
            )
        for name in ("appeal_authority", "last_instance"):
            judge = getattr(self, name)
            held = [
                role
                for role, account in self.grants()
                if _same(account, judge) and role in ("ADMIN", "ORACLE_ADMIN")
            ]
            if held:
                raise ValueError(
                    f"{name} {judge} would hold {held[0]}: who appoints operators must not rule on their verdicts"
                )
        kept = [role for role, account in self.grants() if _same(account, deployer)]
        if kept:
            raise ValueError(
                f"the deployer {deployer} would hold {', '.join(kept)}: give the roles to other accounts, ADMIN to a "
                "multisig"
            )

    def grants(self) -> tuple[tuple[str, str], ...]:
        """(role, account), ADMIN last: granting it ends the deployer's work."""
        asked = [(role, account) for role, accounts in self.holders.items() for account in accounts]
        return (*dict.fromkeys([*asked, ("STEWARD", self.admin)]), ("ADMIN", self.admin))


class Deploy(NamedTuple):
    """Create `name` with the constructor arguments `args`; it will lie at `address`."""

    name: str
    args: tuple[object, ...]
    address: str


class FunctionRole(NamedTuple):
    """`role` may call `selector` of `target`."""

    target: str
    selector: bytes
    role: int


class Grant(NamedTuple):
    """`account` holds `role` and must announce what it does `delay` seconds ahead."""

    role: int
    account: str
    delay: int


class Call(NamedTuple):
    """A call of the AccessManager, from the deployer."""

    function: str
    args: tuple[object, ...]


class Plan(NamedTuple):
    """What has to be on the chain in the end."""

    factory: str
    deployer: str
    contracts: tuple[Deploy, ...]
    functions: tuple[FunctionRole, ...]
    guardians: tuple[tuple[int, int], ...]  # role -> the role that may cancel what it announced
    grants: tuple[Grant, ...]

    @property
    def at(self) -> dict[str, str]:
        """Addresses by name, the factory included."""
        return {FACTORY: self.factory, **{step.name: step.address for step in self.contracts}}

    def settings(self) -> tuple[Call, ...]:
        """Calls of the manager that set all roles; sent as one transaction. The last ends the deployer's power."""
        labels = [Call("labelRole", (number, role)) for role, number in ROLES.items() if number]
        together: dict[tuple[str, int], list[bytes]] = {}
        for item in self.functions:
            together.setdefault((item.target, item.role), []).append(item.selector)
        roles = [Call("setTargetFunctionRole", (target, s, role)) for (target, role), s in together.items()]
        guardians = [Call("setRoleGuardian", pair) for pair in self.guardians]
        grants = [Call("grantRole", tuple(grant)) for grant in self.grants]
        leave = [] if self.admin_stays else [Call("renounceRole", (ROLES["ADMIN"], self.deployer))]
        return (*labels, *roles, *guardians, *grants, *leave)

    @property
    def admin_stays(self) -> bool:
        """True when the deployer is the administrator, as on a development chain."""
        return any(g.role == ROLES["ADMIN"] and _same(g.account, self.deployer) for g in self.grants)


def name_word(name: str) -> bytes:
    """The factory's name of a contract: its bytes, zeros behind."""
    return name.encode("ascii").ljust(32, b"\0")


def salt_of(text: str) -> bytes:
    """The 32 bytes of a salt given as text."""
    return keccak(text=text)


def factory_init_code(creation_code: bytes, owner: str) -> bytes:
    """The factory's creation code with its argument."""
    return creation_code + to_canonical_address(owner).rjust(32, b"\0")


def factory_address(creation_code: bytes, owner: str, salt: bytes) -> str:
    """Where the proxy puts the factory of `owner`: on every chain alike."""
    return create2_address(PROXY, salt, keccak(factory_init_code(creation_code, owner)))


def selector(signature: str) -> bytes:
    return keccak(text=signature)[:4]


def plan(factory: str, deployer: str, params: Params) -> Plan:
    """What `deployer`, the factory's owner, has to make."""
    at = {name: create3_address(factory, name_word(name)) for name in CONTRACTS}
    arguments = _arguments(at, deployer, params)
    manager = at[MANAGER]
    functions = [
        FunctionRole(at[name], selector(signature), ROLES[role])
        for name, table in FUNCTION_ROLES.items()
        for signature, role in table.items()
    ]
    functions += [FunctionRole(manager, selector(signature), ROLES["STEWARD"]) for signature in CANCELLABLE]
    return Plan(
        factory=factory,
        deployer=deployer,
        contracts=tuple(Deploy(name, arguments[name], at[name]) for name in CONTRACTS),
        functions=tuple(functions),
        guardians=tuple((ROLES[role], ROLES["GUARDIAN"]) for role in DELAYED_ROLES if role != "ADMIN"),
        grants=tuple(
            Grant(ROLES[role], account, params.admin_delay if role in DELAYED_ROLES else 0)
            for role, account in params.grants()
        ),
    )


def _same(one: str, other: str) -> bool:
    return to_canonical_address(one) == to_canonical_address(other)


def _arguments(at: Mapping[str, str], deployer: str, params: Params) -> dict[str, tuple[object, ...]]:
    """Constructor arguments by contract; `at` says where the others lie."""
    peers = (
        at["ModelNFT"],
        at["LicenseNFT"],
        at["RoyaltyLedger"],
        at["OracleCommittee"],
        at["MisuseCourt"],
        at["UsageChannel"],
        at["IdentityRegistry"],
        at["DeliveryCheck"],
        params.treasury,
        params.min_fingerprinter_stake,
    )
    court = (
        at["AccessManager"],
        (
            at["LicenseEscrow"],
            at["LicenseNFT"],
            at["ModelNFT"],
            at["OracleCommittee"],
            params.appeal_authority,
            params.last_instance,
        ),
        params.court.as_tuple(),
    )
    return {
        "AccessManager": (deployer,),
        "DeliveryCheck": (),
        "EvidenceLog": (),
        "IdentityRegistry": (at["AccessManager"],),
        "ModelNFT": (
            at["AccessManager"],
            at["LicenseNFT"],
            at["MisuseCourt"],
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
        "CourtExtension": court,
        "MisuseCourt": (*court, at["CourtExtension"]),
        "Oversight": (at["AccessManager"], at["ModelNFT"], at["LicenseNFT"]),
        "UsageChannel": (at["LicenseEscrow"], at["ModelNFT"], at["LicenseNFT"]),
    }
