"""Every signature that a contract takes, made in every wrong way: malformed, by another, for another use, another
deployment, another epoch; by wallets that say yes, no, nothing or too much.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import ape
import pytest
from busy_stage import Busy, make_busy
from courtroom import Kind
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from market import DAY, ETHER, NATIVE, System, deploy, malleable_twin
from quick_node import Reverted
from signed_calls import SignedCall, signed_calls
from stage_play import FAR, Play
from walk_stage import DELIVERY_TYPE, DOMAIN, RICH, SALE_TYPE, STAKE, TEXT, Actor, actor, build, typed_digest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def busy(system: System, project: Any) -> Busy:
    found = make_busy(Play(build(system, project)))
    found.play.wait(2 * DAY)  # that a prepare fee waits
    found.play.send("EvidenceLog", "commit", "a block of this time", "", by="sam")
    return found


@pytest.fixture(scope="module")
def calls(busy: Busy) -> list[SignedCall]:
    return signed_calls(busy)


def simulate(busy: Busy, signed: SignedCall, signature: bytes) -> str:
    """The error with which the call is refused, empty when it succeeds."""
    contract, function, arguments, by, value = signed.call(signature)
    face = busy.stage.faces[contract]
    call = (face.address, face.data(function, *arguments), busy.play.address(by), value)
    (answer,) = busy.stage.node.simulate_all([call], busy.stage.time + 1)
    return answer.error if isinstance(answer, Reverted) else ""


def signature_of(busy: Busy, signed: SignedCall, change: Callable[[bytes], bytes] = lambda s: s) -> bytes:
    digest = busy.stage.digest(signed.contract, signed.hash)
    return joined(busy, signed.signers, digest, change)


def joined(
    busy: Busy, signers: tuple[str, ...], digest: bytes, change: Callable[[bytes], bytes] = lambda s: s
) -> bytes:
    return b"".join(change(busy.stage.people[name].sign(digest)) for name in signers)


def compact(signature: bytes) -> bytes:
    """EIP-2098: 64 bytes."""
    parity = signature[64] - 27
    return signature[:32] + (int.from_bytes(signature[32:64], "big") | parity << 255).to_bytes(32, "big")


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "high s": malleable_twin,
    "high s, same v": lambda s: malleable_twin(s)[:64] + s[64:],
    "v of 0 or 1": lambda s: s[:64] + bytes([s[64] - 27]),
    "v of 29": lambda s: s[:64] + b"\x1d",
    "other v": lambda s: s[:64] + bytes([55 - s[64]]),
    "compact": compact,
    "a byte too many": lambda s: s + b"\0",
    "a byte too few": lambda s: s[:-1],
    "empty": lambda s: b"",
    "zeros": lambda s: bytes(65),
    "s of zero": lambda s: s[:32] + bytes(32) + s[64:],
    "one bit flipped": lambda s: bytes([s[0] ^ 1]) + s[1:],
}


# ---------------------------------------------------------------- nothing is left out


def test_every_typed_struct_of_the_contracts_is_tried(calls: list[SignedCall]) -> None:
    """A kind of signature that is added to a contract must be added to `signed_calls`."""
    sources = [path.read_text() for path in sorted((ROOT / "contracts").glob("*.sol"))]
    sources += [path.read_text() for path in sorted((ROOT / "contracts" / "libraries").glob("*.sol"))]
    constants = [
        found for source in sources for found in re.findall(r"_TYPEHASH\s*=\s*keccak256\(([^;]*)\);", source)
    ]
    types = {"".join(re.findall(r'"([^"]*)"', constant)) for constant in constants}
    assert types == {signed.type for signed in calls} | {SALE_TYPE, DELIVERY_TYPE}
    domains = {
        name for source in sources for name in re.findall(r'EIP712\("ZhiYiChain (\w+)", "1"\)', source)
    }
    assert domains == {signed.contract for signed in calls}


def test_every_function_that_takes_a_signature_is_tried(busy: Busy, calls: list[SignedCall]) -> None:
    """By the names of the parameters; views, and the token's own permit, apart."""
    found = {
        f"{name}.{item['name']}"
        for name, face in busy.stage.faces.items()
        if name in busy.stage.system.at
        for item in face.abi
        if item["type"] == "function" and item["stateMutability"] not in ("view", "pure")
        if any(
            re.search("ignature|possession", parameter["name"]) for parameter in parameters(item["inputs"])
        )
    }
    assert found == {signed.function for signed in calls}


def parameters(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*items, *(inner for item in items for inner in parameters(item.get("components", [])))]


# ---------------------------------------------------------------- wrong signatures


def test_every_signature_counts_where_it_belongs(busy: Busy, calls: list[SignedCall]) -> None:
    """Or the refusals below would show nothing."""
    for signed in calls:
        assert simulate(busy, signed, signature_of(busy, signed)) == "", signed.name


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_signature_never_counts(busy: Busy, calls: list[SignedCall], kind: str) -> None:
    for signed in calls:
        answer = simulate(busy, signed, signature_of(busy, signed, MALFORMED[kind]))
        assert answer in signed.errors, (signed.name, answer)


def test_somebody_elses_signature_never_counts(busy: Busy, calls: list[SignedCall]) -> None:
    for signed in calls:
        others = replace(signed, signers=tuple("hugo" for _ in signed.signers))
        assert simulate(busy, signed, signature_of(busy, others)) in signed.errors, signed.name


def test_no_signature_counts_as_another_kind(busy: Busy, calls: list[SignedCall]) -> None:
    """What somebody signed for one purpose is tried for every other that takes his word."""
    for signed in calls:
        for other in calls:
            if other.hash != signed.hash:
                digest = busy.stage.digest(other.contract, other.hash)
                answer = simulate(busy, signed, joined(busy, signed.signers, digest))
                assert answer in signed.errors, (signed.name, other.name)


def test_no_signature_counts_for_another_thing_of_its_kind(busy: Busy, calls: list[SignedCall]) -> None:
    """Another order, case, epoch, account, channel, number."""
    for signed in calls:
        assert signed.others, signed.name
        for name, hash_ in signed.others.items():
            digest = busy.stage.digest(signed.contract, hash_)
            answer = simulate(busy, signed, joined(busy, signed.signers, digest))
            assert answer in signed.errors, (signed.name, name, answer)


def test_no_signature_counts_twice(busy: Busy, calls: list[SignedCall]) -> None:
    """The same call again is refused, or, of a call that only says what is so, changes nothing."""
    for signed in calls:
        contract, function, arguments, by, value = signed.call(signature_of(busy, signed))
        with busy.play.undone():
            busy.play.send(contract, function, *arguments, by=by, value=value)
            if signed.again:
                with busy.play.refuses(*signed.again):
                    busy.play.send(contract, function, *arguments, by=by, value=value)
            else:
                face, sender = busy.stage.faces[contract], busy.play.address(by)
                data = face.data(function, *arguments)
                time = busy.stage.time + 1
                assert not busy.stage.node.changes(face.address, data, sender=sender, time=time), signed.name


# ---------------------------------------------------------------- wrong domains

DOMAINS: dict[str, dict[str, Any]] = {
    "another chain": {"chain_id": 1},
    "no chain": {"chain_id": 0},
    "another contract": {"address": "0x" + "ad" * 20},
    "no contract": {"address": NATIVE},
    "another name": {"name": "ZhiYiChain"},
    "another version": {"version": "2"},
}


@pytest.mark.parametrize("kind", DOMAINS)
def test_no_signature_counts_under_another_domain(busy: Busy, calls: list[SignedCall], kind: str) -> None:
    for signed in calls:
        digest = foreign(busy, signed, **DOMAINS[kind])
        assert simulate(busy, signed, joined(busy, signed.signers, digest)) in signed.errors, signed.name
        own = foreign(busy, signed)
        assert own == busy.stage.digest(signed.contract, signed.hash)


def foreign(busy: Busy, signed: SignedCall, **changes: Any) -> bytes:
    own = {
        "name": f"ZhiYiChain {signed.contract}",
        "version": "1",
        "chain_id": ape.chain.chain_id,
        "address": busy.stage.faces[signed.contract].address,
    }
    values = own | changes
    types = ["bytes32", "bytes32", "bytes32", "uint256", "address"]
    named = [keccak(text=DOMAIN), keccak(text=values["name"]), keccak(text=values["version"])]
    return typed_digest(keccak(encode(types, [*named, values["chain_id"], values["address"]])), signed.hash)


def test_the_struct_without_a_domain_is_not_signed(busy: Busy, calls: list[SignedCall]) -> None:
    """Neither its bare hash nor a personal message over it."""
    for signed in calls:
        digest = busy.stage.digest(signed.contract, signed.hash)
        message = keccak(b"\x19Ethereum Signed Message:\n32" + digest)
        for other in (signed.hash, message):
            assert simulate(busy, signed, joined(busy, signed.signers, other)) in signed.errors, signed.name


def test_after_a_fork_each_chain_hears_its_own_signatures(busy: Busy, calls: list[SignedCall]) -> None:
    """The chain's number is asked for, not remembered from the deployment."""
    node, own = busy.stage.node, ape.chain.chain_id
    try:
        node.ask("anvil_setChainId", own + 1)
        for signed in calls:
            assert simulate(busy, signed, signature_of(busy, signed)) in signed.errors, signed.name
            if signed.name in ("verdict that contradicts another", "second copy under one license id"):
                continue  # the other of the two was signed before the fork
            if signed.name.startswith("order") and signed.name != "order that was let pass":
                continue  # so was the other half of the order
            there = joined(busy, signed.signers, foreign(busy, signed, chain_id=own + 1))
            assert simulate(busy, signed, there) == "", signed.name
    finally:
        node.ask("anvil_setChainId", own)


def test_no_signature_counts_in_a_second_deployment(
    busy: Busy, calls: list[SignedCall], project: Any, accounts: Any
) -> None:
    """The same contracts once more on the same chain: what is signed for them is worth nothing here."""
    with busy.play.undone():
        second = deploy(project, accounts)
        assert second.escrow.address != busy.stage.faces["LicenseEscrow"].address
        for signed in calls:
            digest = foreign(busy, signed, address=second.at[signed.contract].address)
            assert simulate(busy, signed, joined(busy, signed.signers, digest)) in signed.errors, signed.name


@pytest.mark.parametrize(
    "signature", [b"", bytes(65), bytes(64) + b"\x1b", bytes(31) + b"\x01" * 33 + b"\x1b"]
)
def test_nobody_has_signed_nothing(busy: Busy, signature: bytes) -> None:
    """Where address 0 should have signed, what recovers to address 0 does not pass for its word."""
    play, stage = busy.play, busy.stage
    order = play.order()
    seller, fingerprinter = stage.signed(order, "anna", "fred")
    due = order.sale.price + order.sale.bond
    nobody = (NATIVE, *busy.attestation()[1:])
    channel = (*busy.channel[:2], NATIVE, *busy.channel[3:])
    renewal = astuple(busy.renewal(busy.orders["expiring"], seller=NATIVE))
    tries: list[tuple[Any, ...]] = [
        ("LicenseEscrow", "open", order.with_(seller=NATIVE).as_tuple(), signature, fingerprinter, due),
        ("LicenseEscrow", "open", order.with_(fingerprinter=NATIVE).as_tuple(), seller, signature, due),
        ("LicenseEscrow", "renew", renewal, signature, 7),
        ("IdentityRegistry", "attest", nobody, signature, 0),
        ("UsageChannel", "redeem", channel, 1, signature, 0),
        ("OracleCommittee", "join", 1, NATIVE, TEXT, 10 * ETHER, "https://e.example", FAR, signature, 0),
    ]
    for contract, function, *arguments, value in tries:
        face = stage.faces[contract]
        call = (face.address, face.data(function, *arguments), play.address("emma"), value)
        (answer,) = stage.node.simulate_all([call], stage.time + 1)
        assert isinstance(answer, Reverted), (contract, function)
        assert answer.data[:4] in stage.node.errors, (contract, function, answer.error)


def test_a_committee_of_another_epoch_is_not_heard(busy: Busy) -> None:
    """The next committee cannot judge the cases of the present one, nor the present one those of the next."""
    with busy.play.undone():
        try_other_epochs(busy)


def try_other_epochs(busy: Busy) -> None:
    play, stage = busy.play, busy.stage
    newcomer, leaver = "newcomer", stage.names[stage.operators[0].address]
    seated = sorted(
        [o.address for o in stage.operators[1:]] + [join(busy, newcomer).address], key=lambda a: int(a, 16)
    )
    play.send("OracleCommittee", "announceEpoch", seated, 3, by="admin")
    play.at(play.view("OracleCommittee", "activeFrom", 2))
    play.send("OracleCommittee", "activateEpoch", 2, by="sam")
    file = play.accuse(None, Kind.OWNERSHIP)
    assert file.epoch == 2
    verdict = play.verdict(file)
    digest = play.digest(verdict)
    olds = [o.address for o in stage.operators]
    with play.refuses("CommitteeMismatch"):
        play.post(file, verdict=verdict, signed=stage.committee_signs(digest, [0, 1, 2]))
    first = replace(verdict, epoch=1)
    with play.refuses("VerdictMismatch"):
        play.post(file, verdict=first, signed=stage.committee_signs(play.digest(first), [0, 1, 2]))
    with play.refuses("BadSigner"):
        signatures = b"".join(stage.people[leaver].sign(digest) for _ in range(3))
        play.post(file, verdict=verdict, signed=(seated, 0b111, signatures))
    good = b"".join(stage.people[stage.names[a]].sign(digest) for a in seated[:3])
    play.post(file, verdict=verdict, signed=(seated, 0b111, good))
    assert olds != seated


def join(busy: Busy, name: str) -> Actor:
    """A new operator."""
    stage, person = busy.stage, actor(name)
    stage.people[name], stage.names[person.address] = person, name
    stage.node.batch(
        ("anvil_impersonateAccount", [person.address]), ("anvil_setBalance", [person.address, hex(RICH)])
    )
    busy.play.send("LicenseEscrow", "depositNative", person.address, by=name, value=STAKE)
    arguments = (1, person.address, b"\x01" * 32, STAKE, "https://n.example", 0, b"")
    busy.play.send("OracleCommittee", "join", *arguments, by=name)
    return person


# ---------------------------------------------------------------- wallets

# Runtime code that answers isValidSignature: PUSH4 0x1626ba7e, shifted to the left of a word, returned.
SAYS_YES = "0x631626ba7e60e01b5f5260205ff3"
WALLETS = {
    "says no": "0x5f5f5260205ff3",
    "reverts": "0x5f5ffd",
    "says nothing": "0x5f5ff3",
    "says it in four bytes": "0x631626ba7e60e01b5f5260045ff3",
    "says it at the wrong end": "0x631626ba7e5f5260205ff3",
    "says it with more behind": "0x631626ba7e60e01b6001175f5260205ff3",
    "burns all gas": "0x5b5f56",
    "tries to write": "0x60015f55631626ba7e60e01b5f5260205ff3",
}


def with_code(busy: Busy, signed: SignedCall, code: str, signature: bytes) -> str:
    """The call while the signer's account holds this code."""
    node = busy.stage.node
    address = busy.play.address(signed.signers[0])
    node.ask("anvil_setCode", address, code)
    try:
        return simulate(busy, signed, signature)
    finally:
        node.ask("anvil_setCode", address, "0x")


def test_a_wallet_contract_may_sign_what_people_sign_and_no_verdict(
    busy: Busy, calls: list[SignedCall]
) -> None:
    """ERC-1271 for owners, buyers, issuers; never for the keys of operators."""
    for signed in calls:
        answer = with_code(busy, signed, SAYS_YES, b"any bytes")
        assert (answer == "") is signed.wallets, (signed.name, answer)
        assert signed.wallets or answer in signed.errors


@pytest.mark.parametrize("kind", WALLETS)
def test_a_wallet_that_does_not_say_yes_has_not_signed(
    busy: Busy, calls: list[SignedCall], kind: str
) -> None:
    for signed in calls:
        if signed.wallets:
            assert with_code(busy, signed, WALLETS[kind], b"any bytes") in signed.errors, signed.name


def test_a_delegated_account_still_signs_with_its_key(busy: Busy, calls: list[SignedCall]) -> None:
    """EIP-7702: the account has code, that of a wallet that says no, and its key counts."""
    for signed in calls:
        if signed.wallets:
            answer = with_code(busy, signed, WALLETS["says no"], signature_of(busy, signed))
            assert answer == "", (signed.name, answer)
