"""What the probes say of chains that lack something. Older rules are real Anvil, other lacks a stub in front of one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import CHAIN_ID, Node, start_anvil
from stub_node import Answer, refusing, stub

from zhiyi.chain import Chain
from zhiyi.errors import ConfigError, RpcUnavailable
from zhiyi.probe import Finding, probe, require

CANCUN = {"opcode PUSH0", "opcode MCOPY", "opcode TSTORE"}


@contextmanager
def rules(hardfork: str) -> Iterator[Chain]:
    """A chain with the rules of an upgrade of Ethereum."""
    process, url = start_anvil(hardfork=hardfork)
    try:
        yield Chain(url)
    finally:
        process.terminate()
        process.wait(10)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def faults(findings: list[Finding]) -> dict[str, str]:
    return {finding.what: finding.state for finding in findings if finding.state != "ok"}


def tried(behind: Node, answer: Answer, **options: Any) -> list[Finding]:
    with stub(behind.url, answer) as url:
        return probe(Chain(url), **options)


@pytest.mark.parametrize("hardfork", ["cancun", "prague", "osaka"])
def test_nothing_is_missing_from_cancun_on(hardfork: str) -> None:
    with rules(hardfork) as chain:
        findings = probe(chain, signer_chain_id=CHAIN_ID)
    assert faults(findings) == {}
    require(findings)


@pytest.mark.parametrize(
    ("hardfork", "missing"),
    [
        ("shanghai", {"opcode MCOPY": "failed", "opcode TSTORE": "failed"}),
        ("london", dict.fromkeys(CANCUN, "failed")),
        (
            "petersburg",
            dict.fromkeys((*CANCUN, "chain id"), "failed")
            | dict.fromkeys(("precompile 0x09", "EIP-1559"), "note"),
        ),
    ],
)
def test_older_rules_are_named_with_what_to_do(hardfork: str, missing: dict[str, str]) -> None:
    with rules(hardfork) as chain:
        findings = probe(chain)
    assert faults(findings) == missing
    transient = by_name(findings)["opcode TSTORE"]
    assert "EIP-1153" in transient.detail
    assert "cancunTime" in transient.detail
    assert "reentrancy" in transient.detail
    assert "Cancun 升级" in transient.detail_zh
    with pytest.raises(ConfigError, match="EIP-1153") as caught:
        require(findings)
    assert "防重入" in str(caught.value)


def test_every_fault_is_told_in_both_languages(anvil: Node) -> None:
    with rules("petersburg") as chain:
        findings = probe(chain)
    findings += tried(anvil, refusing("eth_getProof", "eth_getLogs"))
    for finding in findings:
        assert not re.search(r"[一-鿿]", finding.detail)
        if finding.state != "ok":
            assert re.search(r"[一-鿿]", finding.detail_zh), finding


@pytest.mark.parametrize(
    ("number", "state", "says", "says_zh"),
    [
        (1, "failed", "no signature", "签名"),
        (2, "failed", "complaint", "交付申诉"),
        (9, "note", "does not need it", "并不需要"),
    ],
)
@pytest.mark.parametrize(
    "reply", [{"result": "0x"}, {"error": {"code": -32000, "message": "no such account"}}]
)
def test_missing_precompiles(
    anvil: Node, reply: dict[str, Any], number: int, state: str, says: str, says_zh: str
) -> None:
    def answer(method: str, params: list[Any]) -> dict[str, Any] | None:
        to = params[0].get("to") if method == "eth_call" else None
        return reply if to == f"0x{number:040x}" else None

    findings = tried(anvil, answer)
    assert faults(findings) == {f"precompile 0x{number:02x}": state}
    found = by_name(findings)[f"precompile 0x{number:02x}"]
    assert says in found.detail
    assert says_zh in found.detail_zh


def test_without_storage_proofs_only_court_packages_are_weaker(anvil: Node) -> None:
    findings = tried(anvil, refusing("eth_getProof"))
    assert faults(findings) == {"eth_getProof": "note"}
    found = by_name(findings)["eth_getProof"]
    assert "receipts root" in found.detail
    assert "EIP-1186" in found.detail_zh
    require(findings)


def test_without_events_nothing_can_be_followed(anvil: Node) -> None:
    assert faults(tried(anvil, refusing("eth_getLogs"))) == {"eth_getLogs": "failed"}


def test_without_finalized_blocks_the_services_stand_still(anvil: Node) -> None:
    def answer(method: str, params: list[Any]) -> dict[str, Any] | None:
        return {"result": None} if method == "eth_getBlockByNumber" and params[0] == "finalized" else None

    assert faults(tried(anvil, answer)) == {"finalized": "note"}


def test_chain_id_of_node_contracts_and_signer_must_agree(anvil: Node) -> None:
    findings = tried(anvil, lambda method, params: {"result": "0x1"} if method == "eth_chainId" else None)
    assert faults(findings) == {"chain id": "failed"}
    assert f"contracts on it see chain {CHAIN_ID}" in by_name(findings)["chain id"].detail
    found = by_name(probe(Chain(anvil.url), signer_chain_id=5))["chain id"]
    assert found.state == "failed"
    assert "signs for chain 5" in found.detail


def fisco(
    *, milliseconds: bool = False, sm3: bool = False, own_addresses: bool = False, cancun: bool = True
) -> Answer:
    """A FISCO BCOS 3 node's Web3 endpoint with some of its features off."""

    def answer(method: str, params: list[Any]) -> dict[str, Any] | None:
        if method == "web3_clientVersion":
            return {"result": "FISCO-BCOS-Web3RPC/3.16.4-Release/linux/0123456"}
        if method == "eth_getProof":
            return {"error": UNKNOWN}
        code = params[0].get("data", "") if method == "eth_call" and "to" not in params[0] else ""
        if milliseconds and code.startswith("0x42"):
            return {"result": "0x" + (1_790_000_000_000).to_bytes(32, "big").hex()}
        if sm3 and code.startswith("0x6000600020"):
            return {"result": "0x1ab21d8355cfa17f8e61194831e81a8f22bec8c728fefb747ed035eb5082aa2b"}
        if own_addresses and code.startswith("0x30"):
            return {"result": "0x" + "00" * 12 + "11" * 20 + "00" * 12 + "22" * 20 + "00" * 12 + "33" * 20}
        if not cancun and any(opcode in code for opcode in ("5d60005c", "205e60")):
            return {"error": {"code": -32000, "message": "undefined instruction"}}
        return None

    return answer


UNKNOWN = {"code": -32601, "message": "Method not found"}


def test_a_fisco_chain_with_all_features_can_be_used(anvil: Node) -> None:
    findings = tried(anvil, fisco())
    assert faults(findings) == {"client": "note", "eth_getProof": "note"}
    assert "feature_evm_cancun" in by_name(findings)["client"].detail
    require(findings)


@pytest.mark.parametrize(
    ("off", "what", "says"),
    [
        ({"cancun": False}, {"opcode TSTORE", "opcode MCOPY"}, "setSystemConfigByKey feature_evm_cancun 1"),
        ({"milliseconds": True}, {"clock"}, "feature_evm_timestamp 1"),
        ({"own_addresses": True}, {"addresses"}, "feature_evm_address 1"),
        ({"sm3": True}, {"keccak256"}, "sm_crypto=false"),
    ],
)
def test_a_fisco_chain_is_told_which_feature_it_lacks(
    anvil: Node, off: dict[str, bool], what: set[str], says: str
) -> None:
    findings = tried(anvil, fisco(**off))
    assert {name for name, state in faults(findings).items() if state == "failed"} == what
    for name in what:
        assert says in by_name(findings)[name].detail
        assert says in by_name(findings)[name].detail_zh


def test_an_endpoint_without_ethereums_rpc_is_named(anvil: Node) -> None:
    findings = tried(anvil, lambda method, params: {"error": UNKNOWN})
    assert [(f.what, f.state) for f in findings] == [("rpc", "failed")]
    assert "[web3_rpc]" in findings[0].detail


def test_an_endpoint_that_runs_no_code_is_named(anvil: Node) -> None:
    findings = tried(
        anvil,
        lambda method, params: {"error": UNKNOWN} if method == "eth_call" and "to" not in params[0] else None,
    )
    assert [(f.what, f.state) for f in findings[1:]] == [("evm", "failed")]


def test_a_dead_endpoint_is_no_finding() -> None:
    with pytest.raises(RpcUnavailable):
        probe(Chain("http://127.0.0.1:9"))
