"""What a chain and its endpoint can do, tried out: each answer says what depends on it and what to do about it.

Nothing is sent; code runs by `eth_call`, written with opcodes that are older than Shanghai but for the one tried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from zhiyi.chain import Chain
from zhiyi.creation import create2_address, create_address
from zhiyi.errors import ConfigError, RpcRefused
from zhiyi.types import keccak, to_address, to_bytes, to_hex

_RETURN: Final = bytes.fromhex("60005260206000f3")  # return the word on the stack
_MILLISECONDS: Final = 10**11  # a time in seconds reaches this in the year 5138
_FISCO: Final = "FISCO"


class Finding(NamedTuple):
    """One thing that was looked at. `failed` must be put right, `note` is worth knowing."""

    what: str
    state: Literal["ok", "note", "failed"]
    detail: str
    detail_zh: str = ""


def require(findings: list[Finding]) -> None:
    """Raises ConfigError that names, in both languages, everything that failed."""
    failed = [f for f in findings if f.state == "failed"]
    if failed:
        raise ConfigError("\n".join(f"{f.what}: {f.detail}\n{f.detail_zh}".rstrip() for f in failed))


def probe(chain: Chain, *, signer_chain_id: int | None = None) -> list[Finding]:
    """All that the contracts and the services need. `signer_chain_id`: the chain that the account signs for, if known.

    Raises RpcUnavailable when no endpoint answers.
    """
    client = _text(chain, "web3_clientVersion")
    fisco = _FISCO in client.upper()
    try:
        chain_id = int(chain.rpc("eth_chainId"), 16)
    except (RpcRefused, TypeError, ValueError):
        return [_no_ethereum(client)]
    found = [_client(client, fisco)]
    if _run(chain, b"\x60\x01" + _RETURN) != _word(1):
        found.append(
            Finding(
                "evm",
                "failed",
                "this endpoint runs no code by eth_call without an address, so nothing about the chain can be tried: "
                "use an endpoint that does (geth, Besu, Nethermind, Erigon, Anvil)",
                "该节点不支持无目标地址的 eth_call，无法检测链的能力："
                "请改用支持的节点（geth、Besu、Nethermind、Erigon、Anvil）。",
            )
        )
        return found
    found += _identity(chain, chain_id, signer_chain_id)
    found += _opcodes(chain, fisco)
    found += _hashing(chain, fisco)
    found += _endpoint(chain)
    return found


def _identity(chain: Chain, chain_id: int, signer_chain_id: int | None) -> Iterator[Finding]:
    code = _run(chain, b"\x46" + _RETURN)
    if code is None or int.from_bytes(code, "big") != chain_id:
        inside = "unknown" if code is None else int.from_bytes(code, "big")
        yield Finding(
            "chain id",
            "failed",
            f"the endpoint says chain {chain_id}, contracts on it see chain {inside}: every EIP-712 signature would be "
            "refused; configure one id (Ganache: --chain.chainId; FISCO BCOS: chain_id of [web3] in config.genesis)",
            f"节点报告链 ID {chain_id}，合约内看到的是 {inside}：所有 EIP-712 签名都会被拒绝；请把两者配置为同一个 ID"
            "（Ganache：--chain.chainId；FISCO BCOS：config.genesis 的 [web3] chain_id）。",
        )
    elif signer_chain_id is not None and signer_chain_id != chain_id:
        yield Finding(
            "chain id",
            "failed",
            f"the node is chain {chain_id}, the account signs for chain {signer_chain_id}: nothing it signs counts "
            "here; name another --rpc, address book or network",
            f"节点是链 {chain_id}，账户却为链 {signer_chain_id} 签名：其签名在此无效；请更换 --rpc、地址簿或网络。",
        )
    else:
        yield Finding("chain id", "ok", f"{chain_id}, in contracts too", f"{chain_id}，合约内一致")
    time = _run(chain, b"\x42" + _RETURN)
    if time is None or int.from_bytes(time, "big") >= _MILLISECONDS:
        yield Finding(
            "clock",
            "failed",
            "block.timestamp counts milliseconds here: every window would be a thousand times too short (FISCO BCOS: "
            "setSystemConfigByKey feature_evm_timestamp 1)",
            "该链的 block.timestamp 以毫秒计：所有期限都会缩短为千分之一（FISCO BCOS：setSystemConfigByKey "
            "feature_evm_timestamp 1）。",
        )
    else:
        yield Finding("clock", "ok", "block.timestamp counts seconds", "block.timestamp 以秒计")


def _opcodes(chain: Chain, fisco: bool) -> Iterator[Finding]:
    tried = (
        ("PUSH0", "EIP-3855, Shanghai", bytes.fromhex("5f") + _RETURN, _word(0)),
        (
            "MCOPY",
            "EIP-5656, Cancun",
            bytes.fromhex("60076000526020600060205e602051") + _RETURN,
            _word(7),
        ),
        ("TSTORE", "EIP-1153, Cancun", bytes.fromhex("600160005d60005c") + _RETURN, _word(1)),
    )
    todo, todo_zh = "", ""
    if fisco:
        todo = "; FISCO BCOS: setSystemConfigByKey feature_evm_cancun 1 (nodes older than that feature must be updated)"
        todo_zh = "；FISCO BCOS：在控制台执行 setSystemConfigByKey feature_evm_cancun 1（不认识该特性的旧节点须先升级）"
    uses = {
        "PUSH0": ("the compiler writes it everywhere", "编译器处处使用它"),
        "MCOPY": ("the compiler copies memory with it", "编译器用它复制内存"),
        "TSTORE": ("the guard against reentrancy is transient storage", "防重入锁使用瞬态存储"),
    }
    for name, eip, code, expected in tried:
        if _run(chain, code) == expected:
            yield Finding(f"opcode {name}", "ok", eip, eip)
            continue
        why, why_zh = uses[name]
        yield Finding(
            f"opcode {name}",
            "failed",
            f"this chain lacks {eip}: {why}, so these contracts cannot work here. Use a chain with the Cancun "
            f"upgrade, or have its operators schedule it (cancunTime in the genesis of geth or Besu){todo}",
            f"该链缺少 {eip}：{why_zh}，本系统的合约无法在此运行。请换用已完成 Cancun 升级的链，或请运营方启用该升级"
            f"（geth、Besu 创世配置的 cancunTime）{todo_zh}。",
        )


def _hashing(chain: Chain, fisco: bool) -> Iterator[Finding]:
    if _run(chain, bytes.fromhex("6000600020") + _RETURN) != keccak(b""):
        yield Finding(
            "keccak256",
            "failed",
            "KECCAK256 gives another hash here (SM3, on a FISCO BCOS chain with sm_crypto=true): ids, addresses and "
            "signatures would all differ; use a chain with secp256k1 and Keccak (sm_crypto=false at genesis)",
            "该链的 KECCAK256 不是 Keccak-256（FISCO BCOS 国密链 sm_crypto=true 时为 SM3）：编号、地址、签名都会不同；"
            "请使用 secp256k1 与 Keccak 的链（创世时 sm_crypto=false）。",
        )
        return
    yield Finding("keccak256", "ok", "Keccak-256", "Keccak-256")
    yield _addresses(chain, fisco)
    signed, signer = _ecrecover()
    yield _precompile(
        chain,
        1,
        signed,
        signer,
        "ecrecover",
        "failed",
        "no signature of an order, a verdict or a voucher could be checked",
        "订单、裁决、凭单的签名都无法验证",
    )
    yield _precompile(
        chain,
        2,
        b"",
        hashlib.sha256(b"").digest(),
        "SHA-256",
        "failed",
        "chunks and leaves are hashed with it: no complaint about a wrong chunk could be judged",
        "分块与叶子用它求哈希：错误分块的交付申诉将无法判定",
    )
    yield _precompile(
        chain,
        9,
        _blake2f(),
        hashlib.blake2b(b"abc").digest(),
        "BLAKE2b (EIP-152)",
        "note",
        "it would serve a cipher or hash made of BLAKE2b; this system uses ChaCha20 and SHA-256 and does not need it",
        "它用于基于 BLAKE2b 的密码或哈希；本系统使用 ChaCha20 与 SHA-256，并不需要它",
    )


def _addresses(chain: Chain, fisco: bool) -> Finding:
    """CREATE2 and CREATE of nothing, from the code that is being run: do the addresses follow Ethereum's rules?"""
    code = "30600052" + "6000600060006000f5602052" + "600060006000f0604052" + "60606000f3"
    raw = _run(chain, bytes.fromhex(code))
    words = [raw[i + 12 : i + 32] for i in (0, 32, 64)] if raw is not None and len(raw) == 96 else []
    if words:
        here = to_address(to_hex(words[0]))
        expected = (create2_address(here, bytes(32), keccak(b"")), create_address(here, 2))
        if expected == tuple(to_address(to_hex(word)) for word in words[1:]):
            return Finding(
                "addresses", "ok", "CREATE and CREATE2 follow Ethereum's rules", "合约地址遵循以太坊规则"
            )
    todo = " (FISCO BCOS: setSystemConfigByKey feature_evm_address 1)" if fisco else ""
    todo_zh = "（FISCO BCOS：setSystemConfigByKey feature_evm_address 1）" if fisco else ""
    return Finding(
        "addresses",
        "failed",
        "CREATE or CREATE2 gives other addresses than on Ethereum: the contracts could not know each other's "
        f"addresses before they exist{todo}",
        f"CREATE 或 CREATE2 得到的地址与以太坊不同：合约无法在部署前互相知道地址{todo_zh}。",
    )


def _endpoint(chain: Chain) -> Iterator[Finding]:
    zero = "0x" + "00" * 20
    if _text(chain, "eth_getProof", zero, [], "latest"):
        yield Finding("eth_getProof", "ok", "storage proofs (EIP-1186)", "可取得存储证明（EIP-1186）")
    else:
        yield Finding(
            "eth_getProof",
            "note",
            "this endpoint gives no storage proofs (EIP-1186). Court packages made here are weaker: they prove events "
            "by receipts under a block's receipts root, but not what a contract stored at that block, for which they "
            "rest on several endpoints saying the same; all else works. Use an archive endpoint of a full client",
            "该节点不提供存储证明（EIP-1186）。由此生成的法庭证据包较弱：仍可用区块收据根证明事件，但不能证明合约在该区块的"
            "存储内容，只能依靠多个节点给出一致回答；其余功能不受影响。可改用完整客户端的归档节点。",
        )
    try:
        head = chain.rpc("eth_getBlockByNumber", "latest", False)
        chain.rpc("eth_getLogs", {"fromBlock": head["number"], "toBlock": head["number"], "address": [zero]})
        yield Finding("eth_getLogs", "ok", "events can be read", "可读取事件")
    except (RpcRefused, TypeError, KeyError):
        yield Finding(
            "eth_getLogs",
            "failed",
            "this endpoint gives no events: the index, the services and the audit read nothing else; use another one",
            "该节点不提供事件日志：索引、服务与审计都依赖它；请更换节点。",
        )
        return
    if head.get("baseFeePerGas") is None:
        yield Finding(
            "EIP-1559",
            "note",
            "blocks carry no base fee; the SDK signs transactions of type 2, which such a chain may refuse",
            "区块没有基础费；SDK 签署类型 2 交易，这样的链可能拒绝。",
        )
    if not _text(chain, "eth_getBlockByNumber", "finalized", False):
        yield Finding(
            "finalized",
            "note",
            "this endpoint does not know the block tag `finalized`: fingerprinter and judge wait for finalized blocks, "
            "so they need an endpoint that does; selling and buying work",
            "该节点不支持 finalized 区块标签：指纹服务与判定服务只处理最终确认的区块，需改用支持的节点；买卖不受影响。",
        )


def _precompile(
    chain: Chain,
    number: int,
    data: bytes,
    expected: bytes,
    name: str,
    state: Literal["note", "failed"],
    why: str,
    why_zh: str,
) -> Finding:
    what = f"precompile 0x{number:02x}"
    try:
        answer = to_bytes(chain.rpc("eth_call", {"to": f"0x{number:040x}", "data": to_hex(data)}, "latest"))
    except RpcRefused:
        answer = b""
    if answer == expected:
        return Finding(what, "ok", name, name)
    rest = "" if state == "note" else "; use another chain, or have its operators enable the precompile"
    rest_zh = "" if state == "note" else "；请换链或请运营方启用该预编译合约"
    return Finding(
        what,
        state,
        f"{name} does not answer here: {why}{rest}",
        f"{name} 在该链上不可用：{why_zh}{rest_zh}。",
    )


def _client(client: str, fisco: bool) -> Finding:
    if not fisco:
        return Finding("client", "ok", client or "unnamed", client or "未报告")
    return Finding(
        "client",
        "note",
        f"{client}: a FISCO BCOS chain. It needs the features feature_evm_cancun, feature_evm_address, "
        "feature_evm_timestamp and feature_balance (console: setSystemConfigByKey NAME 1), keccak and secp256k1 "
        "(sm_crypto=false), and accounts funded with its balance commands; blocks are final at once",
        f"{client}：FISCO BCOS 链。需启用 feature_evm_cancun、feature_evm_address、feature_evm_timestamp、"
        "feature_balance（控制台：setSystemConfigByKey 名称 1），使用 keccak 与 secp256k1（sm_crypto=false），"
        "并用其余额命令为账户充值；其区块立即最终确认。",
    )


def _no_ethereum(client: str) -> Finding:
    return Finding(
        "rpc",
        "failed",
        f"this endpoint ({client or 'it gives no name'}) does not speak Ethereum's JSON-RPC: eth_chainId is unknown. "
        "FISCO BCOS 3: set enable=true under [web3_rpc] in config.ini, restart, and use its port (8545), not that of "
        "[rpc] (20200); FISCO BCOS 2 has no such interface and cannot be used",
        f"该节点（{client or '未报告名称'}）不支持以太坊 JSON-RPC：没有 eth_chainId。FISCO BCOS 3：请在 config.ini 的 "
        "[web3_rpc] 设 enable=true 并重启，使用其端口（8545）而非 [rpc] 的端口（20200）；"
        "FISCO BCOS 2 没有此接口，无法使用。",
    )


def _run(chain: Chain, code: bytes) -> bytes | None:
    """What the code returns, None when the chain does not know an opcode in it."""
    try:
        return to_bytes(chain.rpc("eth_call", {"data": to_hex(code)}, "latest"))
    except RpcRefused:
        return None


def _text(chain: Chain, method: str, *params: object) -> str:
    """The answer as text, empty when the endpoint has none."""
    try:
        return str(chain.rpc(method, *params) or "")
    except RpcRefused:
        return ""


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _ecrecover() -> tuple[bytes, bytes]:
    """A signature over keccak256("") by the key 1, with k = 1, so that r is the generator's x and can be read here."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    x = 0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798
    y = 0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8
    digest = keccak(b"")
    s, v = (int.from_bytes(digest, "big") + x) % order, 27 + (y & 1)
    if s > order // 2:
        s, v = order - s, 55 - v
    public = x.to_bytes(32, "big") + y.to_bytes(32, "big")
    return digest + _word(v) + _word(x) + _word(s), keccak(public)[12:].rjust(32, b"\0")


def _blake2f() -> bytes:
    """Input of the last (and only) block of BLAKE2b-512("abc"): rounds, state, message, counters, final flag."""
    state = [
        0x6A09E667F3BCC908 ^ 0x01010040,
        0xBB67AE8584CAA73B,
        0x3C6EF372FE94F82B,
        0xA54FF53A5F1D36F1,
        0x510E527FADE682D1,
        0x9B05688C2B3E6C1F,
        0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179,
    ]
    words = b"".join(word.to_bytes(8, "little") for word in state)
    return (12).to_bytes(4, "big") + words + b"abc".ljust(128, b"\0") + (3).to_bytes(16, "little") + b"\x01"
