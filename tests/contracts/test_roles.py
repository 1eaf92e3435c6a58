"""Administration as a production deployment sets it: who may act, after how long, and who may stop it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from eth_abi import encode
from eth_utils import keccak
from market import DAY, System, deploy, refuses

from zhiyi.roles import CANCELLABLE, DELAYED_ROLES, ROLES

DELAY = 2 * DAY
NEW_URI = "ipfs://new"


@dataclass
class Office:
    """A deployment that its deployer has left, and the people who run it."""

    system: System
    admin: Any
    guardian: Any
    oracle_admin: Any

    @property
    def manager(self) -> Any:
        return self.system.manager

    def schedule(self, caller: Any, target: Any, data: bytes) -> None:
        self.manager.schedule(target, data, 0, sender=caller)

    def scheduled(self, caller: Any, target: Any, data: bytes) -> bool:
        return bool(self.manager.getSchedule(self.manager.hashOperation(caller, target, data)))


@pytest.fixture(scope="module")
def office(project: Any, accounts: Any) -> Office:
    _, admin, guardian, oracle_admin, registrar, regulator, pauser, _, _, _ = accounts[:10]
    holders = {
        "REGISTRAR": (registrar.address,),
        "REGULATOR": (regulator.address,),
        "PAUSER": (pauser.address,),
        "ORACLE_ADMIN": (oracle_admin.address,),
        "GUARDIAN": (guardian.address,),
    }
    system = deploy(project, accounts, admin=admin.address, admin_delay=DELAY, holders=holders)
    return Office(system, admin, guardian, oracle_admin)


def grant(role: str, account: Any, delay: int = 0) -> bytes:
    number = ROLES[role].to_bytes(32, "big")
    return selector("grantRole(uint64,address,uint32)") + number + word(account.address) + word(delay)


def revoke(role: str, account: Any) -> bytes:
    return selector("revokeRole(uint64,address)") + word(ROLES[role]) + word(account.address)


def set_uri() -> bytes:
    return selector("setContractURI(string)") + encode(["string"], [NEW_URI])


def selector(signature: str) -> bytes:
    return keccak(text=signature)[:4]


def word(value: int | str) -> bytes:
    number = int(value, 16) if isinstance(value, str) else value
    return number.to_bytes(32, "big")


def test_the_deployer_holds_no_role_and_can_do_nothing(office: Office) -> None:
    system, deployer = office.system, office.system.deployer
    for role in ROLES.values():
        assert office.manager.hasRole(role, deployer) == (False, 0)
    with refuses("AccessManagerUnauthorizedAccount(address,uint64)"):
        office.manager.grantRole(ROLES["PAUSER"], deployer, 0, sender=deployer)
    with refuses("AccessManagedUnauthorized(address)"):
        system.models.setContractURI(NEW_URI, sender=deployer)
    factory = system.at["DeploymentFactory"]
    with refuses("FactoryClosed()"):
        factory.create(b"x".ljust(32, b"\0"), b"\0", sender=deployer)


def test_delayed_roles_have_the_delay_and_the_others_none(office: Office) -> None:
    for role, account in (
        ("ADMIN", office.admin),
        ("STEWARD", office.admin),
        ("ORACLE_ADMIN", office.oracle_admin),
    ):
        assert role in DELAYED_ROLES
        assert office.manager.hasRole(ROLES[role], account) == (True, DELAY)
    assert office.manager.hasRole(ROLES["PAUSER"], office.system.pauser) == (True, 0)
    assert office.manager.hasRole(ROLES["GUARDIAN"], office.guardian) == (True, 0)


def test_what_admin_does_waits_two_days(office: Office) -> None:
    admin, manager, pauser = office.admin, office.manager, office.system.stranger
    data = grant("PAUSER", pauser)
    with refuses("AccessManagerNotScheduled(bytes32)"):
        manager.grantRole(ROLES["PAUSER"], pauser, 0, sender=admin)
    office.schedule(admin, manager, data)
    office.system.pass_time(DELAY - 10)
    with refuses("AccessManagerNotReady(bytes32)"):
        manager.grantRole(ROLES["PAUSER"], pauser, 0, sender=admin)
    office.system.pass_time(10)
    manager.grantRole(ROLES["PAUSER"], pauser, 0, sender=admin)
    assert manager.hasRole(ROLES["PAUSER"], pauser) == (True, 0)


def test_settings_of_contracts_wait_two_days(office: Office) -> None:
    models, admin = office.system.models, office.admin
    with refuses("AccessManagerNotScheduled(bytes32)"):
        office.manager.execute(models, set_uri(), sender=admin)
    office.schedule(admin, models, set_uri())
    office.system.pass_time(DELAY)
    office.manager.execute(models, set_uri(), sender=admin)
    assert models.contractURI() == NEW_URI


def test_a_guardian_cancels_what_is_scheduled(office: Office) -> None:
    system, admin, guardian = office.system, office.admin, office.guardian
    epoch = selector("commitCanaries(uint64,bytes32)") + word(1) + word(7)
    acts = [
        (admin, office.manager, grant("ADMIN", system.stranger)),
        (admin, system.models, set_uri()),
        (office.oracle_admin, system.committee, epoch),
    ]
    for caller, target, data in acts:
        office.schedule(caller, target, data)
        assert office.scheduled(caller, target, data)
        with refuses("AccessManagerUnauthorizedCancel(address,address,address,bytes4)"):
            office.manager.cancel(caller, target, data, sender=system.stranger)
        office.manager.cancel(caller, target, data, sender=guardian)
        assert not office.scheduled(caller, target, data)
        system.pass_time(DELAY)
        with refuses("AccessManagerNotScheduled(bytes32)"):
            office.manager.execute(target, data, sender=caller)


@pytest.mark.parametrize("signature", CANCELLABLE)
def test_every_function_of_the_manager_that_admin_calls_can_be_cancelled(
    office: Office, signature: str
) -> None:
    first = office.manager.address if "(address" in signature else ROLES["PAUSER"]
    data = selector(signature) + word(first) + bytes(128)
    office.schedule(office.admin, office.manager, data)
    office.manager.cancel(office.admin, office.manager, data, sender=office.guardian)
    assert not office.scheduled(office.admin, office.manager, data)


def test_a_guardian_cannot_keep_its_role(office: Office) -> None:
    data = revoke("GUARDIAN", office.guardian)
    office.schedule(office.admin, office.manager, data)
    with refuses("AccessManagerUnauthorizedCancel(address,address,address,bytes4)"):
        office.manager.cancel(office.admin, office.manager, data, sender=office.guardian)
    office.system.pass_time(DELAY)
    office.manager.execute(office.manager, data, sender=office.admin)
    assert office.manager.hasRole(ROLES["GUARDIAN"], office.guardian) == (False, 0)


def test_the_stewards_number_on_the_managers_functions_permits_nothing(office: Office) -> None:
    """It names who may cancel: the manager asks for ADMIN whatever its table says."""
    manager, admin, steward = office.manager, office.admin, office.system.stranger
    data = grant("STEWARD", steward)
    office.schedule(admin, manager, data)
    office.system.pass_time(DELAY)
    manager.execute(manager, data, sender=admin)
    assert manager.hasRole(ROLES["STEWARD"], steward) == (True, 0)
    office.system.models.setContractURI(NEW_URI, sender=steward)
    assert office.system.models.contractURI() == NEW_URI
    for act in (
        lambda: manager.grantRole(ROLES["ADMIN"], steward, 0, sender=steward),
        lambda: manager.setTargetClosed(office.system.escrow, True, sender=steward),
        lambda: manager.labelRole(ROLES["PAUSER"], "x", sender=steward),
    ):
        with refuses("AccessManagerUnauthorizedAccount(address,uint64)"):
            act()
    for attempt in (grant("ADMIN", steward), revoke("ADMIN", admin)):
        with refuses("AccessManagerUnauthorizedCall(address,address,bytes4)"):
            manager.execute(manager, attempt, sender=steward)
