"""Who may administer what: the roles of the AccessManager, the functions behind them, and their delays.

The deployment plan sets these on a chain, the self-check reads them back.
"""

from __future__ import annotations

from typing import Final

DAY: Final = 86_400

# Role ids of the AccessManager. 0 is OpenZeppelin's ADMIN_ROLE. Who rules on appeals is no role: the court's two
# addresses are fixed when it is deployed.
ROLES: Final[dict[str, int]] = {
    "ADMIN": 0,
    "REGISTRAR": 1,
    "REGULATOR": 2,
    "ORACLE_ADMIN": 4,
    "IDENTITY_ADMIN": 5,
    "PAUSER": 6,
    "GUARDIAN": 7,
    "STEWARD": 8,
}

# Who may call what; every function behind `restricted` is here, so that none is left to a default. None has ADMIN: what
# ADMIN itself schedules no guardian can cancel, so settings of the contracts are the STEWARD's.
FUNCTION_ROLES: Final[dict[str, dict[str, str]]] = {
    "ModelNFT": {
        "review(uint64,bytes32,uint8,bytes32)": "REGISTRAR",
        "freeze(uint64,uint40,bytes32)": "REGULATOR",
        "lift(uint64,bytes32)": "REGULATOR",
        "delist(uint64,uint16,bytes32)": "REGULATOR",
        "setContractURI(string)": "STEWARD",
    },
    "IdentityRegistry": {
        "setIssuer(address,uint8)": "IDENTITY_ADMIN",
    },
    "LicenseEscrow": {
        "listToken(address,bool)": "STEWARD",
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
    "Oversight": {
        "answerComplaint(uint64,uint8,bytes32)": "REGULATOR",
        "demandDisclosure(uint8,uint256,bytes32,uint40)": "REGULATOR",
    },
}

# Their holders announce what they do and wait; GUARDIAN can cancel it meanwhile.
DELAYED_ROLES: Final = ("ADMIN", "STEWARD", "ORACLE_ADMIN", "IDENTITY_ADMIN")
MIN_ADMIN_DELAY: Final = 2 * DAY  # seconds, on any chain but a development one
DEVELOPMENT_CHAINS: Final = (1337, 31337)  # ids that development nodes use; short delays are no fault there

# The manager's own functions that ADMIN calls. They get STEWARD's number in the manager's table: it permits nothing
# there (the manager asks for ADMIN whatever the table says), but it names the guardian who may cancel. `revokeRole` is
# left out on purpose, so that a guardian who cancels everything can be removed.
CANCELLABLE: Final = (
    "labelRole(uint64,string)",
    "setRoleAdmin(uint64,uint64)",
    "setRoleGuardian(uint64,uint64)",
    "setGrantDelay(uint64,uint32)",
    "setTargetAdminDelay(address,uint32)",
    "updateAuthority(address,address)",
    "setTargetClosed(address,bool)",
    "setTargetFunctionRole(address,bytes4[],uint64)",
    "grantRole(uint64,address,uint32)",
)
