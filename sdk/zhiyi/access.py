"""Who may administer: roles, their holders, and acts that are announced before they are done."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import PlainSerializer

from zhiyi import abi
from zhiyi.chain import Event, TxResult, jsonable
from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi.group import Group
from zhiyi.oracles import ascending
from zhiyi.roles import DELAYED_ROLES, DEVELOPMENT_CHAINS, MIN_ADMIN_DELAY, ROLES
from zhiyi.types import Address, Bytes32, HexBytes, Value, to_address, to_bytes, to_hex

_MANAGER: Final = "AccessManager"


class RoleHolder(Value):
    """Who holds a role, and how long before its acts he has to announce them."""

    role: str  # of `zhiyi.roles.ROLES`, or a bare number
    account: Address
    delay: int  # seconds; 0: acts at once


class PendingOperation(Value):
    """An act of administration that was announced: not yet done, cancelled or expired."""

    operation_id: Bytes32
    caller: Address  # who announced it and alone may do it
    target: Address
    contract: str  # of the deployment; empty for another target
    function: str  # signature; empty where the contract's ABI has none
    args: Annotated[dict[str, Any], PlainSerializer(jsonable, when_used="json")]
    data: HexBytes  # the call
    ready_at: int  # unix seconds, from which it can be done
    expires_at: int  # unix seconds, from which it can no longer be done


class Access(Group):
    """Roles (contract AccessManager). Holders with a delay announce an act by `schedule`; after the delay the call
    that does it, such as `oracles.announce_epoch`, goes through, from the same account with the same arguments."""

    # -- announcing ----------------------------------------------------------------------------

    def schedule(
        self, contract: str, function: str, *args: Any, when: int = 0, dry_run: bool = False
    ) -> TxResult:
        """Announces a call of a contract of this deployment; event OperationScheduled has its id and time.

        `function`: name or full signature, `args` in the ABI's types (`announceEpoch`: signers in any order).
        `when`: unix seconds, 0 for as soon as the caller's delay allows. Raises BadInput, TxReverted.
        """
        target = self._contract(contract)
        entry = target.interface.function(function)
        if (contract, entry["name"]) == ("OracleCommittee", "announceEpoch") and args:
            args = (ascending(args[0]), *args[1:])
        data = abi.encode_call(entry, args)
        return self._send(_MANAGER, "schedule", target.address, data, when, dry_run=dry_run)

    def execute(self, operation_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Does what the caller announced, once its delay is over. Raises NotFound, TxReverted.

        For what has no call of its own in the SDK, such as `setTargetFunctionRole` of the manager.
        """
        event = self._announced(operation_id)
        return self._send(_MANAGER, "execute", event["target"], event["data"], dry_run=dry_run)

    def cancel(self, operation_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Guardian, ADMIN, or whoever announced it: it can no longer be done. Raises NotFound, TxReverted."""
        event = self._announced(operation_id)
        arguments = (event["caller"], event["target"], event["data"])
        return self._send(_MANAGER, "cancel", *arguments, dry_run=dry_run)

    def pending(self) -> tuple[PendingOperation, ...]:
        """What was announced and can still be done, now or later; oldest first."""
        closed = {
            (event["operationId"], event["nonce"])
            for name in ("OperationExecuted", "OperationCanceled")
            for event in self._events(_MANAGER, name)
        }
        after = int(self._call(_MANAGER, "expiration"))
        now = self._chain.now()
        return tuple(
            self._pending(event, after)
            for event in self._events(_MANAGER, "OperationScheduled")
            if (event["operationId"], event["nonce"]) not in closed and event["schedule"] + after > now
        )

    def _pending(self, event: Event, after: int) -> PendingOperation:
        contract, function, args = self._decoded(event["target"], event["data"])
        return PendingOperation(
            operation_id=event["operationId"],
            caller=event["caller"],
            target=event["target"],
            contract=contract,
            function=function,
            args=args,
            data=event["data"],
            ready_at=event["schedule"],
            expires_at=event["schedule"] + after,
        )

    def _decoded(self, target: str, data: bytes) -> tuple[str, str, dict[str, Any]]:
        """Contract, function and arguments, as far as they are known: what is announced may be any bytes."""
        name = next(
            (n for n, at in self._deployment.contracts.items() if at == target and n in abi.NAMES), ""
        )
        entry = abi.interface(name).selectors.get(data[:4]) if name else None
        if entry is None:
            return name, "", {}
        try:
            return name, abi.signature(entry), abi.decode_arguments(entry, data[4:])
        except IntegrityError:
            return name, abi.signature(entry), {}

    def _announced(self, operation_id: bytes) -> Event:
        number = to_bytes(operation_id, 32)
        found = self._events(_MANAGER, "OperationScheduled", {"operationId": number})
        if not found:
            raise NotFound(f"no operation {to_hex(number)} was announced; `zhiyi access pending` lists them")
        return found[-1]

    # -- roles ---------------------------------------------------------------------------------

    def grant(self, role: str, account: str, *, delay: int | None = None, dry_run: bool = False) -> TxResult:
        """ADMIN: gives a role. Announces it where the caller has a delay; called again after that, it takes effect.

        `delay`: seconds between the holder's announcements and acts; default two days for roles that announce, else
        0. Also changes the delay of who holds the role. Raises BadInput, TxReverted.
        """
        name = _role(role)
        least = MIN_ADMIN_DELAY if name in DELAYED_ROLES else 0
        seconds = least if delay is None else delay
        if seconds < least and self._deployment.chain_id not in DEVELOPMENT_CHAINS:
            raise BadInput(
                f"{name} acts after {least} s or more; only a development chain may have {seconds} s"
            )
        return self._administer("grantRole", ROLES[name], to_address(account), seconds, dry_run=dry_run)

    def revoke(self, role: str, account: str, *, dry_run: bool = False) -> TxResult:
        """ADMIN: takes a role away. Announced first where the caller has a delay, as in `grant`; no guardian can
        cancel it."""
        return self._administer("revokeRole", ROLES[_role(role)], to_address(account), dry_run=dry_run)

    def holders(self) -> tuple[RoleHolder, ...]:
        """Who holds which role now, by role."""
        granted = self._events(_MANAGER, "RoleGranted")
        names = {number: name for name, number in ROLES.items()}
        found = []
        for number, account in sorted({(int(e["roleId"]), to_address(e["account"])) for e in granted}):
            member, delay = self._call(_MANAGER, "hasRole", number, account)
            if member:
                found.append(RoleHolder(role=names.get(number, str(number)), account=account, delay=delay))
        return tuple(found)

    def _administer(self, function: str, role: int, *args: Any, dry_run: bool) -> TxResult:
        """Announces a call of the manager itself, or does it: at once without a delay, else once it is announced."""
        manager = self._contract(_MANAGER)
        caller, admin = self._chain.account, self._call(_MANAGER, "getRoleAdmin", role)
        member, delay = self._call(_MANAGER, "hasRole", admin, caller)
        if member and delay:
            data = abi.encode_call(manager.interface.function(function), (role, *args))
            number = self._call(_MANAGER, "hashOperation", caller, manager.address, data)
            if not self._call(_MANAGER, "getSchedule", number):
                return self.schedule(_MANAGER, function, role, *args, dry_run=dry_run)
        return self._send(_MANAGER, function, role, *args, dry_run=dry_run)


def _role(name: str) -> str:
    """A role's name as `zhiyi.roles` has it. Raises BadInput."""
    wanted = name.strip().upper().replace("-", "_")
    if wanted not in ROLES:
        raise BadInput(f"{name!r} is no role; roles are {', '.join(ROLES)}")
    return wanted
