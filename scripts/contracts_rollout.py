#!/usr/bin/env python3
"""Runs the deployment plan on a chain, from wherever it stopped before, and checks what came of it.

What is there already is compared with this build and these parameters, and left alone; anything else at its place
stops the run. `scripts/deploy.py` is the command; tests and the demo call `deploy`.

As a command it writes the development chain's address book into the SDK (`--check`: compares):

    scripts/contracts_rollout.py [--check]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from contracts_plan import (
    CONTRACTS,
    DEFAULT_SALT,
    FACTORY,
    MANAGER,
    PROXY,
    PROXY_CODE,
    PROXY_COST,
    PROXY_SIGNER,
    PROXY_TRANSACTION,
    Call,
    Deploy,
    Params,
    Plan,
    factory_address,
    factory_init_code,
    name_word,
    plan,
    salt_of,
)
from zhiyi.abi import Interface, encode_call, interface
from zhiyi.chain import Chain, TxResult
from zhiyi.deployment import Contract, Deployment
from zhiyi.errors import ConfigError, IntegrityError, RpcRefused, Timeout
from zhiyi.probe import probe, require
from zhiyi.reverts import reverted
from zhiyi.roles import DEVELOPMENT_CHAINS, ROLES
from zhiyi.self_check import self_check
from zhiyi.types import keccak, to_bytes, to_hex

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = Path(os.environ.get("ZHIYI_BUILD_MANIFEST", ROOT / ".build" / "__local__.json"))
BOOKS = ROOT / "sdk" / "zhiyi" / "deployments"
DEVELOPMENT_CHAIN = 31337
DEVELOPER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"  # Anvil's first account

# Estimates before anything is there, gas. A creation is estimated alone; the factory adds inner proxy and record.
FACTORY_CREATION = 350_000
OVER_CREATION = 90_000
A_SETTING = 20_000  # one row of the manager's tables
A_BASE = 60_000

Say = Callable[[str, TxResult | None], None]


class Artifact(NamedTuple):
    """What the compiler made of a contract."""

    interface: Interface
    creation: bytes
    runtime: bytes

    def init_code(self, args: tuple[object, ...]) -> bytes:
        """Creation code with constructor arguments. Raises BadInput when they do not fit."""
        return self.creation + self.interface.encode_constructor(args)


class Estimate(NamedTuple):
    """One line of a dry run. `gas` is 0 for what is there already."""

    step: str
    address: str
    gas: int


def artifacts(manifest: Path = MANIFEST) -> dict[str, Artifact]:
    """Ape's build by contract. Raises ConfigError when something was not compiled."""
    try:
        types = json.loads(manifest.read_text(encoding="utf-8"))["contractTypes"]
        return {name: artifact(name, types[name]) for name in (FACTORY, *CONTRACTS)}
    except (OSError, KeyError, ValueError) as exc:
        raise ConfigError(f"{manifest} lacks compiled contracts ({exc!r}): run `make contracts`") from exc


def artifact(name: str, kind: Any) -> Artifact:
    """One contract type of Ape's, as JSON holds it."""
    creation, runtime = (kind[key]["bytecode"] for key in ("deploymentBytecode", "runtimeBytecode"))
    return Artifact(Interface(name, kind["abi"]), to_bytes(creation), to_bytes(runtime))


def same_code(built: bytes, found: bytes) -> bool:
    """True when `found` is the compiler's output `built` with its immutables filled in.

    The compiler leaves an immutable as PUSH32 and 32 zero bytes, and writes no such instruction for anything else.
    """
    if len(built) != len(found):
        return False
    at = 0
    while at < len(built):
        width = max(0, built[at] - 0x5F) if built[at] <= 0x7F else 0
        end = at + 1 + width
        immutable = width == 32 and not any(built[at + 1 : end])
        if built[at] != found[at] or (not immutable and built[at + 1 : end] != found[at + 1 : end]):
            return False
        at = end
    return True


def plan_of(deployer: str, params: Params, built: dict[str, Artifact], salt: str = DEFAULT_SALT) -> Plan:
    """The plan of `deployer` with these artifacts."""
    return plan(factory_address(built[FACTORY].creation, deployer, salt_of(salt)), deployer, params)


def deploy(
    chain: Chain,
    params: Params,
    *,
    salt: str = DEFAULT_SALT,
    manifest: Path = MANIFEST,
    say: Say = lambda text, result: None,
) -> Deployment:
    """Tries the chain, runs the plan from the chain's account, checks the result; returns the address book.

    May be repeated after any failure. Raises ZhiyiError; a half-run plan holds no money.
    """
    require(probe(chain))
    book = rollout(chain, params, artifacts(manifest), salt=salt, say=say)
    require(self_check(chain, book))
    return book


def rollout(
    chain: Chain,
    params: Params,
    built: dict[str, Artifact],
    *,
    salt: str = DEFAULT_SALT,
    say: Say = lambda text, result: None,
) -> Deployment:
    """Runs what is left of the plan. Raises ConfigError, IntegrityError when something else is at its place."""
    return _Rollout(chain, params, built, salt, say).run()


def estimate(
    chain: Chain, params: Params, built: dict[str, Artifact], *, salt: str = DEFAULT_SALT
) -> list[Estimate]:
    """What `rollout` would do, and about how much gas it takes. Sends nothing. Raises as `rollout`."""
    return list(_Rollout(chain, params, built, salt, lambda text, result: None).estimates())


def put_proxy(chain: Chain, say: Say = lambda text, result: None) -> None:
    """Puts the CREATE2 proxy where every chain has it: pays its signer, sends its transaction.

    Raises ConfigError when the node refuses it.
    """
    if chain.code(PROXY):
        return
    lacking = PROXY_COST - chain.balance(PROXY_SIGNER)
    if lacking > 0:
        say(f"pay the CREATE2 proxy's signer {lacking} wei", chain.transact(PROXY_SIGNER, value=lacking))
    try:
        tx_hash = chain.rpc("eth_sendRawTransaction", to_hex(PROXY_TRANSACTION))
    except RpcRefused as exc:
        raise ConfigError(
            f"the node refuses the CREATE2 proxy's transaction ({exc.message}): it names no chain and pays 100 gwei a "
            "gas; ask the chain's operators to let it through once (geth: --rpc.allow-unprotected-txs), or to put the "
            f"code {to_hex(PROXY_CODE)} at {PROXY} in the genesis file"
        ) from exc
    deadline = time.monotonic() + chain.options.receipt_timeout
    while not chain.code(PROXY):
        if time.monotonic() > deadline:
            raise Timeout(f"the CREATE2 proxy's transaction {tx_hash} is not mined yet", tx_hash=tx_hash)
        time.sleep(chain.options.poll)
    say(f"CREATE2 proxy at {PROXY}", None)


class _Rollout:
    def __init__(self, chain: Chain, params: Params, built: dict[str, Artifact], salt: str, say: Say) -> None:
        if chain.chain_id not in DEVELOPMENT_CHAINS:
            try:
                params.check_for_production(chain.account)
            except ValueError as exc:
                raise ConfigError(str(exc)) from exc
        self.chain, self.built, self.salt, self.say = chain, built, salt, say
        self.plan = plan_of(chain.account, params, built, salt)
        self.factory = Contract(FACTORY, self.plan.factory, interface(FACTORY))
        self.manager = Contract(MANAGER, self.plan.at[MANAGER], interface(MANAGER))

    def run(self) -> Deployment:
        self._check_proxy()
        if self._factory_is_there():
            self.say(f"{FACTORY} is at {self.plan.factory}", None)
        else:
            result = self.chain.transact(PROXY, salt_of(self.salt) + self._factory_code())
            self._check_code(FACTORY, self.plan.factory)
            self.say(f"{FACTORY} at {self.plan.factory}", result)
        for step in self.plan.contracts:
            if self._is_there(step):
                self.say(f"{step.name} is at {step.address}", None)
            else:
                self.say(f"{step.name} at {step.address}", self._create(step))
        if self.differences():
            self.say("roles", self.chain.transact(self.manager.address, self._settings()))
            left = self.differences()
            if left:
                raise IntegrityError(f"the roles are not as planned: {'; '.join(left)}")
        else:
            self.say("roles are set", None)
        if self.chain.call(self.factory, "closed"):
            self.say(f"{FACTORY} is closed", None)
        else:
            self.say(f"{FACTORY} closed", self.chain.send(self.factory, "close"))
        return self._book()

    def estimates(self) -> list[Estimate]:
        self._check_proxy()
        there = self._factory_is_there()
        lines = [Estimate(FACTORY, self.plan.factory, 0 if there else FACTORY_CREATION)]
        for step in self.plan.contracts:
            done = there and self._is_there(step)
            gas = 0 if done else self._creation_gas(step)
            lines.append(Estimate(step.name, step.address, gas))
        made = all(line.gas == 0 for line in lines)
        settings = len(self.plan.functions) + len(self.plan.settings())
        gas = 0 if made and not self.differences() else A_BASE + settings * A_SETTING
        lines.append(Estimate("roles", self.manager.address, gas))
        closed = there and self.chain.call(self.factory, "closed")
        lines.append(Estimate("close", self.plan.factory, 0 if closed else A_BASE))
        return lines

    def differences(self) -> list[str]:
        """What of the planned roles is not so on the chain."""
        found = []
        for target, selector, role in self.plan.functions:
            held = self.chain.call(self.manager, "getTargetFunctionRole", target, selector)
            if held != role:
                found.append(f"function {to_hex(selector)} of {target} belongs to role {held}, not {role}")
        for role, guardian in self.plan.guardians:
            if self.chain.call(self.manager, "getRoleGuardian", role) != guardian:
                found.append(f"role {role} lacks its guardian")
        for role, account, delay in self.plan.grants:
            if self.chain.call(self.manager, "hasRole", role, account) != (True, delay):
                found.append(f"{account} does not hold role {role} with a delay of {delay} s")
        if not self.plan.admin_stays and self._is_admin():
            found.append(f"the deployer {self.plan.deployer} still holds ADMIN")
        return found

    def _is_admin(self) -> bool:
        return bool(self.chain.call(self.manager, "hasRole", ROLES["ADMIN"], self.plan.deployer)[0])

    def _settings(self) -> bytes:
        if not self._is_admin():
            raise IntegrityError(
                f"the roles differ from the plan, and {self.plan.deployer} is no administrator any more: "
                f"{'; '.join(self.differences())}. Repeat with the parameters of before, or take another salt"
            )
        calls = [self._encoded(call) for call in self.plan.settings()]
        return encode_call(self.manager.interface.function("multicall"), [calls])

    def _encoded(self, call: Call) -> bytes:
        return encode_call(self.manager.interface.function(call.function), call.args)

    def _check_proxy(self) -> None:
        code = self.chain.code(PROXY)
        if not code:
            raise ConfigError(
                f"this chain has no CREATE2 proxy at {PROXY}, so the addresses cannot be the same as elsewhere: run "
                f"again with --put-proxy, which pays {PROXY_COST / 10**18} coin to {PROXY_SIGNER} and sends its "
                "transaction, or have the chain's operators put it there"
            )
        if code != PROXY_CODE:
            raise IntegrityError(
                f"at {PROXY} is not the CREATE2 proxy but other code: this chain cannot be used"
            )

    def _factory_code(self) -> bytes:
        return factory_init_code(self.built[FACTORY].creation, self.plan.deployer)

    def _factory_is_there(self) -> bool:
        there = bool(self.chain.code(self.plan.factory))
        if there:
            self._check_code(FACTORY, self.plan.factory)
        return there

    def _is_there(self, step: Deploy) -> bool:
        """True for a contract that was made from this build with these arguments. Raises IntegrityError for another."""
        made_of = self.chain.call(self.factory, "initCodeHashOf", name_word(step.name))
        if not any(made_of):
            if self.chain.call(self.factory, "closed"):
                raise IntegrityError(
                    f"the factory at {self.plan.factory} is closed and has no {step.name}: this deployment was "
                    "finished by another version; take another --salt"
                )
            return False
        if made_of != keccak(self.built[step.name].init_code(step.args)):
            raise IntegrityError(
                f"{step.name} at {step.address} was created from other code or other arguments than these: repeat with "
                "the build and the parameters of before, or take another --salt for a new deployment"
            )
        self._check_code(step.name, step.address)
        return True

    def _check_code(self, name: str, address: str) -> None:
        if not same_code(self.built[name].runtime, self.chain.code(address)):
            raise IntegrityError(f"the code at {address} is not that of {name} as it was built here")

    def _create(self, step: Deploy) -> TxResult:
        self._creation_gas(
            step
        )  # alone first: a constructor that refuses is decoded, through the factory it is not
        code = self.built[step.name].init_code(step.args)
        result = self.chain.send(self.factory, "create", name_word(step.name), code)
        if not self._is_there(step):
            raise IntegrityError(f"{step.name} is not at {step.address} after it was created")
        return result

    def _creation_gas(self, step: Deploy) -> int:
        """About what it takes. Raises TxReverted for a constructor that refuses, ConfigError for small blocks."""
        ask = {"from": self.chain.account, "data": to_hex(self.built[step.name].init_code(step.args))}
        limit = int(self.chain.rpc("eth_getBlockByNumber", "latest", False)["gasLimit"], 16)
        try:
            gas = int(self.chain.rpc("eth_estimateGas", ask), 16) + OVER_CREATION
        except RpcRefused as exc:
            if "gas" in exc.message.lower() and "revert" not in exc.message.lower():
                raise ConfigError(f"{step.name} fits into no block of {limit:,} gas: {exc.message}") from exc
            raw = exc.data if isinstance(exc.data, str) and exc.data.startswith("0x") else "0x"
            raise reverted(to_bytes(raw), f"constructor of {step.name}", message=exc.message) from exc
        if gas * self.chain.options.gas_factor > limit:
            raise ConfigError(
                f"{step.name} takes about {gas:,} gas, a block of this chain has {limit:,}: have its operators "
                "raise the limit"
            )
        return gas

    def _book(self) -> Deployment:
        return Deployment(
            chain_id=self.chain.chain_id,
            contracts=self.plan.at,
            block=self.chain.call(self.factory, "startBlock"),
            deployer=self.plan.deployer,
            code={name: keccak(self.chain.code(address)) for name, address in self.plan.at.items()},
        )


def development_book(built: dict[str, Artifact]) -> Deployment:
    """Where everything lies on a fresh Anvil node when its first account deploys. No code hashes: parameters vary."""
    people = dict.fromkeys(("admin", "treasury", "appeal_authority", "last_instance"), DEVELOPER)
    at = plan_of(DEVELOPER, Params(**people), built).at
    return Deployment(chain_id=DEVELOPMENT_CHAIN, contracts=at, block=0, deployer=DEVELOPER)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    path = BOOKS / f"{DEVELOPMENT_CHAIN}.json"
    try:
        book = development_book(artifacts())
    except ConfigError as exc:
        print(f"contracts_rollout: {exc}", file=sys.stderr)
        return 1
    if not parser.parse_args().check:
        book.save(path)
    elif not path.is_file() or Deployment.load(path) != book:
        print(
            "contracts_rollout: the development chain's address book is out of date: run `make abi`",
            file=sys.stderr,
        )
        return 1
    print(f"contracts_rollout: {path.relative_to(ROOT)} has {len(book.contracts)} contracts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
