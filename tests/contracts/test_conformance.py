"""Licenses, evidence and signing against the standards they name: ERC-165, 721, 4906, 5192, 5643, 7053; EIP-712, 5267.

The model token has a file of its own, `test_model_conformance.py`.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import ape
import pytest
from eth_abi import encode
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from market import DAY, NATIVE, Model, Order, Parcel, System, reverts, terms
from test_model_conformance import ERC165, ERC721, ERC721_METADATA, ERC4906_ID, interface_id, topics

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"
ERC5192 = ("locked(uint256)",)
ERC5643 = (
    "renewSubscription(uint256,uint64)",
    "cancelSubscription(uint256)",
    "expiresAt(uint256)",
    "isRenewable(uint256)",
)
SIGNING = {  # name of the domain by contract, as wallets show it
    "LicenseEscrow": "ZhiYiChain LicenseEscrow",
    "MisuseCourt": "ZhiYiChain MisuseCourt",
    "OracleCommittee": "ZhiYiChain OracleCommittee",
    "ModelNFT": "ZhiYiChain ModelNFT",
    "IdentityRegistry": "ZhiYiChain IdentityRegistry",
    "UsageChannel": "ZhiYiChain UsageChannel",
}
DOMAIN = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]


@pytest.fixture
def issued(system: System, model: Model, order: Order, parcel: Parcel) -> Order:
    """The buyer's license, a hundred days long."""
    timed = order.with_(terms=terms(expiry=system.now + 100 * DAY))
    system.buy(timed, parcel)
    return timed


# ---------------------------------------------------------------- ERC-165


def test_a_license_tokens_ids_are_those_of_the_functions_that_are_there(system: System) -> None:
    abi = {function.selector for function in system.licenses.contract_type.methods}
    for functions in (ERC165, ERC721, ERC721_METADATA, ERC5192, ERC5643):
        assert set(functions) <= abi
        assert system.licenses.supportsInterface(interface_id(functions))
    assert interface_id(ERC5192).hex() == "b45a3c0e"
    assert interface_id(ERC5643).hex() == "8c65f84d"
    assert system.licenses.supportsInterface(ERC4906_ID)


def test_a_license_token_denies_what_it_is_not(system: System) -> None:
    for other in (b"\xff" * 4, bytes(4), interface_id(("royaltyInfo(uint256,uint256)",))):
        assert not system.licenses.supportsInterface(other)
    call = system.licenses.supportsInterface.encode_input(b"\xff" * 4)
    gas = ape.chain.provider.web3.eth.estimate_gas({"to": system.licenses.address, "data": call.hex()})
    assert gas - 21_000 < 30_000  # the limit of ERC-165


# ---------------------------------------------------------------- ERC-721


def test_issuing_is_a_transfer_from_nobody(system: System, order: Order, parcel: Parcel) -> None:
    before = system.licenses.balanceOf(system.buyer)
    receipt = system.buy(order, parcel)
    number = order.delivery.licenseId
    (found,) = topics(receipt, "Transfer(address,address,uint256)")
    assert [int.from_bytes(t, "big") for t in found[1:]] == [0, int(system.buyer.address, 16), number]
    assert system.licenses.ownerOf(number) == system.buyer
    assert system.licenses.balanceOf(system.buyer) == before + 1


def test_every_transfer_of_a_license_is_refused(system: System, issued: Order) -> None:
    """By holder, approved account and operator; in every form; to whomever; also after its end."""
    licenses, number = system.licenses, issued.delivery.licenseId
    licenses.approve(system.stranger, number, sender=system.buyer)
    licenses.setApprovalForAll(system.collaborator, True, sender=system.buyer)
    for ended in (False, True):
        if ended:
            licenses.surrender(number, sender=system.buyer)
        for sender in (system.buyer, system.stranger, system.collaborator):
            for to in (system.stranger, system.buyer):
                for move in (licenses.transferFrom, licenses.safeTransferFrom):
                    with reverts(licenses.LicenseCarriesFingerprint, values={"licenseId": number}):
                        move(system.buyer, to, number, sender=sender)
                with reverts(licenses.LicenseCarriesFingerprint):
                    licenses.safeTransferFrom(system.buyer, to, number, b"data", sender=sender)
    assert licenses.ownerOf(number) == system.buyer


def test_queries_of_licenses_that_are_not_there_are_refused(system: System) -> None:
    with reverts(system.licenses.BalanceQueryForZeroAddress):
        system.licenses.balanceOf(NATIVE)
    for call in (system.licenses.ownerOf, system.licenses.getApproved):
        with reverts(system.licenses.TokenDoesNotExist):
            call(999)
    for call in (
        system.licenses.tokenURI,
        system.licenses.locked,
        system.licenses.expiresAt,
        system.licenses.isRenewable,
    ):
        with reverts(system.licenses.NoSuchLicense):
            call(999)


def test_a_license_says_what_it_is_without_anything_else(system: System, issued: Order) -> None:
    """ERC-721's metadata schema, whole in the token: strings under `name` and `description`."""
    head, _, body = system.licenses.tokenURI(issued.delivery.licenseId).partition(";base64,")
    assert head == "data:application/json"
    shown = json.loads(base64.b64decode(body, validate=True))
    assert set(shown) == {"name", "description"}
    assert all(isinstance(value, str) and value for value in shown.values())


# ---------------------------------------------------------------- ERC-5192, 5643, 4906


def test_a_license_is_locked_from_its_first_second_to_its_end(
    system: System, order: Order, parcel: Parcel
) -> None:
    """ERC-5192: Locked when it is made, locked ever after; no Unlocked."""
    receipt = system.buy(order, parcel)
    (event,) = receipt.decode_logs(system.licenses.Locked)
    assert event.tokenId == order.delivery.licenseId
    assert not list(receipt.decode_logs(system.licenses.Unlocked))
    assert system.licenses.locked(order.delivery.licenseId)
    system.licenses.surrender(order.delivery.licenseId, sender=system.buyer)
    assert system.licenses.locked(order.delivery.licenseId)


def test_a_subscription_tells_its_end(system: System, model: Model, issued: Order, parcel: Parcel) -> None:
    """ERC-5643: the expiry of a license, 2^64 - 1 where there is none, 0 once it was cancelled; an update each time."""
    licenses, number = system.licenses, issued.delivery.licenseId
    end = issued.sale.terms >> 18 & 2**40 - 1
    assert licenses.expiresAt(number) == end
    assert licenses.isRenewable(number)
    receipt = licenses.cancelSubscription(number, sender=system.buyer)
    (event,) = receipt.decode_logs(licenses.SubscriptionUpdate)
    assert (event.tokenId, event.expiration) == (number, 0)
    (event,) = receipt.decode_logs(licenses.MetadataUpdate)
    assert event.tokenId == number
    assert licenses.expiresAt(number) == 0
    assert not licenses.isRenewable(number)
    endless = system.make_order(model, parcel, 2, terms=terms())
    system.buy(endless, parcel)
    assert licenses.expiresAt(endless.delivery.licenseId) == 2**64 - 1
    assert not licenses.isRenewable(endless.delivery.licenseId)


def test_an_expired_subscription_is_not_renewable(system: System, issued: Order) -> None:
    end = issued.sale.terms >> 18 & 2**40 - 1
    system.go_to(end)
    ape.chain.mine()
    assert system.licenses.expiresAt(issued.delivery.licenseId) == end
    assert not system.licenses.isRenewable(issued.delivery.licenseId)
    assert not system.licenses.isActive(issued.delivery.licenseId)


@pytest.mark.parametrize("value", [0, 1])
def test_the_standards_own_renewal_takes_no_money(system: System, issued: Order, value: int) -> None:
    with reverts(system.licenses.RenewalIsAnOrder):
        system.licenses.renewSubscription(issued.delivery.licenseId, DAY, sender=system.buyer, value=value)
    assert system.licenses.balance == 0


def test_every_change_of_a_license_is_told_as_the_standards_tell_it(system: System, issued: Order) -> None:
    """ERC-5643's SubscriptionUpdate where the end moves, ERC-4906's MetadataUpdate wherever anything does."""
    licenses, number = system.licenses, issued.delivery.licenseId
    court, later = system.as_contract("MisuseCourt"), system.now + 300 * DAY
    renewed = licenses.renew(number, system.buyer, later, sender=system.as_contract("LicenseEscrow"))
    assert licenses.expiresAt(number) == later
    suspended = licenses.suspend(number, True, b"\x01" * 32, sender=court)
    revoked = licenses.revoke(number, b"\x01" * 32, sender=court)
    assert licenses.expiresAt(number) == 0
    for receipt, ends in ((renewed, [later]), (suspended, []), (revoked, [0])):
        told = receipt.decode_logs(licenses.SubscriptionUpdate)
        assert [(event.tokenId, event.expiration) for event in told] == [(number, end) for end in ends]
        assert [event.tokenId for event in receipt.decode_logs(licenses.MetadataUpdate)] == [number]


# ---------------------------------------------------------------- ERC-7053


def test_a_commit_is_read_by_its_topics(system: System) -> None:
    """Commit(address indexed recorder, string indexed assetCid, string commitData); the call returns its block."""
    receipt = system.evidence.commit("bafy", '{"assetCid":"bafy"}', sender=system.stranger)
    (found,) = topics(receipt, "Commit(address,string,string)")
    assert found[1][12:] == bytes.fromhex(system.stranger.address[2:])
    assert found[2] == keccak(text="bafy")
    assert bytes(receipt.logs[0]["data"]) == encode(["string"], ['{"assetCid":"bafy"}'])
    assert receipt.return_value == receipt.block_number
    assert system.evidence.getCommits("bafy") == [receipt.block_number]


# ---------------------------------------------------------------- EIP-712, EIP-5267


@pytest.mark.parametrize("contract", SIGNING)
def test_a_signing_contract_describes_its_domain(system: System, project: Any, contract: str) -> None:
    """EIP-5267: name, version, chain and contract, nothing else; at the address that people talk to."""
    at = getattr(project, contract).at(system.at[contract].address)
    fields, name, version, chain_id, verifying, salt, extensions = at.eip712Domain()
    assert bytes(fields) == b"\x0f"
    assert (name, version) == (SIGNING[contract], "1")
    assert (chain_id, verifying) == (ape.chain.chain_id, at.address)
    assert (bytes(salt), list(extensions)) == (bytes(32), [])


def test_the_list_of_signing_contracts_is_whole() -> None:
    domains = re.compile(r'EIP712\("([^"]+)", "1"\)')
    found = [name for path in CONTRACTS.rglob("*.sol") for name in domains.findall(path.read_text())]
    assert sorted(found) == sorted(SIGNING.values())


def test_a_wallets_digest_is_the_contracts(system: System) -> None:
    """EIP-712 as a wallet computes it, from the domain that the contract describes."""
    channels = system.channels
    fields = dict(
        zip(
            ("fields", "name", "version", "chainId", "verifyingContract"),
            channels.eip712Domain(),
            strict=False,
        )
    )
    fields.pop("fields")
    data: dict[str, Any] = {
        "domain": fields,
        "types": {
            "EIP712Domain": DOMAIN,
            "Voucher": [{"name": "channelId", "type": "bytes32"}, {"name": "cumulative", "type": "uint96"}],
        },
        "primaryType": "Voucher",
        "message": {"channelId": b"\x07" * 32, "cumulative": 5},
    }
    message = encode_typed_data(full_message=data)
    digest = keccak(b"\x19" + message.version + message.header + message.body)
    assert bytes(channels.voucherDigest(b"\x07" * 32, 5)) == digest
