"""Is a deployment what it should be? Code, wiring, roles, delays and domains, read from the chain.

Needs the address book alone. What a deployment chose (treasury, windows, stakes) is not judged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from zhiyi.abi import NAMES
from zhiyi.chain import Chain
from zhiyi.deployment import Contract, Deployment
from zhiyi.errors import IntegrityError, TxReverted
from zhiyi.probe import Finding
from zhiyi.roles import CANCELLABLE, DELAYED_ROLES, DEVELOPMENT_CHAINS, FUNCTION_ROLES, MIN_ADMIN_DELAY, ROLES
from zhiyi.types import NATIVE, keccak

MANAGER: Final = "AccessManager"
FACTORY: Final = "DeploymentFactory"

# Getters by which contracts name each other (case ignored), whichever contract has them.
PEERS: Final[Mapping[str, str]] = {
    "authority": MANAGER,
    "models": "ModelNFT",
    "licenses": "LicenseNFT",
    "escrow": "LicenseEscrow",
    "vault": "LicenseEscrow",
    "royalties": "RoyaltyLedger",
    "committee": "OracleCommittee",
    "court": "MisuseCourt",
    "deliverycheck": "DeliveryCheck",
    "extension": "EscrowExtension",
    "court_extension": "CourtExtension",
    "identity": "IdentityRegistry",
    "channels": "UsageChannel",
}

INTERFACES: Final[Mapping[str, Mapping[str, str]]] = {
    "ModelNFT": {
        "ERC-165": "0x01ffc9a7",
        "ERC-721": "0x80ac58cd",
        "ERC-2981": "0x2a55205a",
        "ERC-4906": "0x49064906",
    },
    "LicenseNFT": {
        "ERC-165": "0x01ffc9a7",
        "ERC-721": "0x80ac58cd",
        "ERC-4906": "0x49064906",
        "ERC-5192": "0xb45a3c0e",
        "ERC-5643": "0x8c65f84d",
    },
}


def self_check(chain: Chain, book: Deployment) -> list[Finding]:
    """Everything, in order; later parts are left out when contracts are missing.

    Raises RpcUnavailable and RpcRefused when the chain cannot be read.
    """
    found = [_chain_id(chain, book)]
    if found[0].state == "ok":
        found += _code(chain, book)
    if any(finding.state == "failed" for finding in found):
        return found
    check = _Check(chain, book)
    for part in (check.factory, check.peers, check.domains, check.interfaces, check.functions, check.holders):
        found += part()
    return found


def _chain_id(chain: Chain, book: Deployment) -> Finding:
    if chain.chain_id == book.chain_id:
        return Finding("chain", "ok", f"chain {book.chain_id}", f"链 {book.chain_id}")
    return Finding(
        "chain",
        "failed",
        f"the node is chain {chain.chain_id}, the address book is of chain {book.chain_id}: use another one",
        f"节点是链 {chain.chain_id}，地址簿属于链 {book.chain_id}：请更换其一。",
    )


def _code(chain: Chain, book: Deployment) -> Iterator[Finding]:
    unknown = []
    for name in dict.fromkeys((*NAMES, *book.contracts)):
        address = book.contracts.get(name)
        code = chain.code(address) if address else b""
        if not code:
            yield Finding(
                f"code {name}",
                "failed",
                f"there is no {name} at {address or 'any address of the book'}: the node was reset, or the book is "
                "incomplete or of another chain",
                f"{address or '地址簿中'} 没有 {name}：节点可能已重置，或地址簿不完整、属于另一条链。",
            )
        elif name not in book.code:
            unknown.append(name)
        elif keccak(code) != book.code[name]:
            yield Finding(
                f"code {name}",
                "failed",
                f"{name} at {address} has other code than the address book was written for: send nothing to it",
                f"{address} 处 {name} 的代码与地址簿记录不同：请勿向其发送任何交易。",
            )
    if unknown:
        yield Finding(
            "code",
            "note",
            f"the book has no code hashes of {', '.join(unknown)}: that something lies there is all that was checked",
            f"地址簿没有以下合约的代码哈希：{', '.join(unknown)}；仅确认了该处有代码。",
        )
    else:
        yield Finding("code", "ok", "as in the address book", "与地址簿一致")


class _Check:
    def __init__(self, chain: Chain, book: Deployment) -> None:
        self.chain = chain
        self.book = book
        self.development = book.chain_id in DEVELOPMENT_CHAINS

    def factory(self) -> Iterator[Finding]:
        factory = self.book.contract(FACTORY)
        wrong = [
            name
            for name, address in self.book.contracts.items()
            if name != FACTORY and self._ask(factory, "addressOf", _key(name)) != address
        ]
        if wrong:
            yield Finding(
                "factory",
                "failed",
                f"the factory did not create {', '.join(wrong)}: the book mixes deployments",
                f"工厂合约没有创建 {', '.join(wrong)}：地址簿混用了不同的部署。",
            )
        if not self._ask(factory, "closed"):
            owner = self._ask(factory, "owner")
            yield Finding(
                "factory",
                "failed",
                f"the factory is open: {owner} can still create contracts in the name of this deployment; run the "
                "deployment again to finish it",
                f"工厂合约尚未关闭：{owner} 仍可以本部署的名义创建合约；请再次运行部署以完成。",
            )
        elif not wrong:
            yield Finding("factory", "ok", "created all, closed", "创建了全部合约，已关闭")

    def peers(self) -> Iterator[Finding]:
        count, wrong = 0, False
        for contract in self._contracts():
            for name, entry in contract.interface.functions.items():
                peer = PEERS.get(name.lower())
                if peer is None or entry["inputs"] or [o["type"] for o in entry["outputs"]] != ["address"]:
                    continue
                count += 1
                named, booked = self._ask(contract, name), self.book.contracts.get(peer, NATIVE)
                if named != booked:
                    wrong = True
                    yield Finding(
                        "peers",
                        "failed",
                        f"{contract.name}.{name} is {named}, the {peer} of the book is {booked}",
                        f"{contract.name}.{name} 是 {named}，地址簿中的 {peer} 是 {booked}。",
                    )
        if not wrong:
            yield Finding("peers", "ok", f"{count} references agree", f"{count} 处互相引用一致")

    def domains(self) -> Iterator[Finding]:
        names, wrong = [], False
        for contract in self._contracts():
            if "eip712Domain" not in contract.interface.functions:
                continue
            _, name, _, chain_id, verifier, *_ = self._ask(contract, "eip712Domain") or [None] * 7
            names.append(contract.name)
            if chain_id != self.book.chain_id or verifier != contract.address:
                wrong = True
                yield Finding(
                    "domains",
                    "failed",
                    f"{contract.name} checks signatures for chain {chain_id} and {verifier}, not for chain "
                    f"{self.book.chain_id} and {contract.address}",
                    f"{contract.name} 按链 {chain_id}、合约 {verifier} 验证签名，应为链 {self.book.chain_id}、"
                    f"{contract.address}。",
                )
            elif name != f"ZhiYiChain {contract.name}":
                wrong = True
                yield Finding(
                    "domains",
                    "failed",
                    f"{contract.name} signs as {name!r}",
                    f"{contract.name} 的签名域名称是 {name!r}。",
                )
        if not wrong:
            yield Finding("domains", "ok", f"EIP-712: {', '.join(names)}", f"EIP-712：{'、'.join(names)}")

    def interfaces(self) -> Iterator[Finding]:
        for name, table in INTERFACES.items():
            contract = self.book.contract(name)
            lacking = [
                erc
                for erc, number in table.items()
                if not self._ask(contract, "supportsInterface", bytes.fromhex(number[2:]))
            ]
            if self._ask(contract, "supportsInterface", b"\xff" * 4):
                lacking.append("ERC-165 (it claims 0xffffffff)")
            yield Finding(
                f"interfaces {name}",
                "failed" if lacking else "ok",
                f"does not answer for {', '.join(lacking)}" if lacking else ", ".join(table),
                f"不支持 {'、'.join(lacking)}" if lacking else "、".join(table),
            )

    def functions(self) -> Iterator[Finding]:
        manager = self.book.contract(MANAGER)
        expected = [(name, s, role) for name, table in FUNCTION_ROLES.items() for s, role in table.items()]
        expected += [(MANAGER, signature, "STEWARD") for signature in CANCELLABLE]
        wrong = False
        for name, signature, role in expected:
            selector = keccak(signature.encode())[:4]
            held = self._ask(manager, "getTargetFunctionRole", self.book.contracts[name], selector)
            if held != ROLES[role]:
                wrong = True
                yield Finding(
                    "functions",
                    "failed",
                    f"{name}.{signature} belongs to role {_role(held)}, not to {role}",
                    f"{name}.{signature} 属于角色 {_role(held)}，应为 {role}。",
                )
        for delayed in DELAYED_ROLES:
            guardian = self._ask(manager, "getRoleGuardian", ROLES[delayed])
            if delayed != "ADMIN" and guardian != ROLES["GUARDIAN"]:
                wrong = True
                yield Finding(
                    "functions",
                    "failed",
                    f"GUARDIAN cannot cancel what {delayed} scheduled: its guardian is {_role(guardian)}",
                    f"GUARDIAN 不能取消 {delayed} 排期的操作：其守护角色是 {_role(guardian)}。",
                )
        for name, number in ROLES.items():
            admin = self._ask(manager, "getRoleAdmin", number)
            if admin != ROLES["ADMIN"]:
                wrong = True
                yield Finding(
                    "functions",
                    "failed",
                    f"{name} is given and taken by role {_role(admin)}, not by ADMIN",
                    f"{name} 由角色 {_role(admin)} 授予和撤销，应为 ADMIN。",
                )
        if not wrong:
            text = f"{len(expected)} functions have their roles; GUARDIAN can cancel"
            yield Finding("functions", "ok", text, f"{len(expected)} 个函数的角色正确；GUARDIAN 可取消排期")

    def holders(self) -> Iterator[Finding]:
        """From the manager's events, so that nobody who was ever granted a role is overlooked."""
        manager = self.book.contract(MANAGER)
        first = self._ask(self.book.contract(FACTORY), "startBlock")
        start = self.book.block if first is None else min(first, self.book.block)
        granted = self.chain.events(manager, "RoleGranted", from_block=start)
        ever = dict.fromkeys((int(e["roleId"]), str(e["account"])) for e in granted)
        holders: dict[int, list[str]] = {}
        for role, account in ever:
            member, delay = self._ask(manager, "hasRole", role, account) or (False, 0)
            if not member:
                continue
            holders.setdefault(role, []).append(account)
            yield self._holder(role, account, delay)
        if ROLES["ADMIN"] not in holders:
            yield Finding("role ADMIN", "failed", "nobody holds it", "无人持有。")
        if ROLES["GUARDIAN"] not in holders:
            yield Finding(
                "role GUARDIAN",
                "note",
                "nobody holds it: what is scheduled can be cancelled by ADMIN alone",
                "无人持有：排期的操作只有 ADMIN 能取消。",
            )

    def _holder(self, role: int, account: str, delay: int) -> Finding:
        what, faults, faults_zh = f"role {_role(role)}", [], []
        if role not in ROLES.values():
            faults.append("no role of this system")
            faults_zh.append("本系统没有此角色")
        if account == self.book.deployer:
            faults.append("it is the deployer, who should hold none")
            faults_zh.append("它是部署账户，不应持有任何角色")
        if role in {ROLES[name] for name in DELAYED_ROLES} and delay < MIN_ADMIN_DELAY:
            faults.append(f"its acts take effect after {delay} s, not after {MIN_ADMIN_DELAY} s or more")
            faults_zh.append(f"其操作 {delay} 秒后生效，应不少于 {MIN_ADMIN_DELAY} 秒")
        if faults:
            state: Any = "note" if self.development else "failed"
            return Finding(
                what, state, f"{account}: {'; '.join(faults)}", f"{account}：{'；'.join(faults_zh)}。"
            )
        if role == ROLES["ADMIN"] and not self.chain.code(account):
            return Finding(
                what,
                "note",
                f"{account} is a plain key, not a contract: a multisig is safer",
                f"{account} 是普通账户而非合约：多签更安全。",
            )
        shown = f"{account}, delay {delay} s" if delay else account
        return Finding(what, "ok", shown, f"{account}，延迟 {delay} 秒" if delay else account)

    def _ask(self, contract: Contract, function: str, *args: Any) -> Any:
        """The answer, None when the code there has none."""
        try:
            return self.chain.call(contract, function, *args)
        except (TxReverted, IntegrityError):
            return None

    def _contracts(self) -> Iterator[Contract]:
        for name in NAMES:
            yield self.book.contract(name)


def _key(name: str) -> bytes:
    return name.encode("ascii").ljust(32, b"\0")


def _role(number: int) -> str:
    return next((name for name, role in ROLES.items() if role == number), str(number))
