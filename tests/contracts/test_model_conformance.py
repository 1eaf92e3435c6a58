"""The model token against the standards it names: ERC-165, 721, 2981, 4906, 5267, 7572; ERC-7517 behind tokenURI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import reduce
from typing import Any, Literal

import ape
import pytest
from eth_abi import encode
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from market import Model, Review, System, isolated, reverts, sha
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from contracts_plan import ZERO_ADDRESS
from zhiyi import metadata
from zhiyi.types import Preference, Preferences

REASON = b"\x05" * 32
# An ERC's id is the exclusive or of its functions' selectors; ERC-4906 has none and fixes its own.
ERC165 = ("supportsInterface(bytes4)",)
ERC721 = (
    "balanceOf(address)",
    "ownerOf(uint256)",
    "approve(address,uint256)",
    "getApproved(uint256)",
    "setApprovalForAll(address,bool)",
    "isApprovedForAll(address,address)",
    "transferFrom(address,address,uint256)",
    "safeTransferFrom(address,address,uint256)",
    "safeTransferFrom(address,address,uint256,bytes)",
)
ERC721_METADATA = ("name()", "symbol()", "tokenURI(uint256)")
ERC2981 = ("royaltyInfo(uint256,uint256)",)
ERC4906_ID = bytes.fromhex("49064906")


def interface_id(functions: tuple[str, ...]) -> bytes:
    selectors = (int.from_bytes(keccak(text=f)[:4], "big") for f in functions)
    return reduce(lambda a, b: a ^ b, selectors).to_bytes(4, "big")


def topics(receipt: Any, event: str) -> Iterator[list[bytes]]:
    """Topics of the receipt's events of that signature."""
    for log in receipt.logs:
        found = [bytes(topic) for topic in log["topics"]]
        if found[0] == keccak(text=event):
            yield found


@pytest.fixture
def receiver(system: System, project: Any) -> Any:
    return system.deployer.deploy(project.TokenReceiver)


# ---------------------------------------------------------------- ERC-165


def test_interface_ids_are_those_of_the_functions_that_are_there(system: System) -> None:
    abi = {function.selector for function in system.models.contract_type.methods}
    for functions in (ERC165, ERC721, ERC721_METADATA, ERC2981):
        assert set(functions) <= abi
        assert system.models.supportsInterface(interface_id(functions))
    assert system.models.supportsInterface(ERC4906_ID)


def test_other_interfaces_are_denied_cheaply(system: System) -> None:
    for other in (b"\xff" * 4, bytes(4), bytes.fromhex("b45a3c0e"), bytes.fromhex("8c65f84d")):
        assert not system.models.supportsInterface(other)
    call = system.models.supportsInterface.encode_input(b"\xff" * 4)
    gas = ape.chain.provider.web3.eth.estimate_gas({"to": system.models.address, "data": call.hex()})
    assert gas - 21_000 < 30_000  # the limit of ERC-165


# ---------------------------------------------------------------- ERC-721


def test_registering_is_a_transfer_from_nobody(system: System) -> None:
    before = system.models.balanceOf(system.creator)
    model = system.register(system.creator, "conforming")
    block = ape.chain.provider.get_block("latest")
    (receipt,) = (ape.chain.provider.get_receipt(tx.txn_hash.hex()) for tx in block.transactions)
    (found,) = topics(receipt, "Transfer(address,address,uint256)")
    assert [int.from_bytes(t, "big") for t in found[1:]] == [0, int(system.creator.address, 16), model.id]
    assert system.models.balanceOf(system.creator) == before + 1
    assert system.models.ownerOf(model.id) == system.creator


def test_queries_of_nothing_are_refused(system: System) -> None:
    with reverts(system.models.BalanceQueryForZeroAddress):
        system.models.balanceOf(ZERO_ADDRESS)
    for call in (system.models.ownerOf, system.models.getApproved):
        with reverts(system.models.TokenDoesNotExist):
            call(999)


def test_a_transfer_moves_the_token_and_clears_its_approval(system: System, model: Model) -> None:
    models, owner, to = system.models, system.creator, system.stranger
    models.approve(system.buyer, model.id, sender=owner)
    assert models.getApproved(model.id) == system.buyer
    balances = [models.balanceOf(account) for account in (owner, to)]
    receipt = models.transferFrom(owner, to, model.id, sender=owner)
    (found,) = topics(receipt, "Transfer(address,address,uint256)")
    assert [int.from_bytes(t, "big") for t in found[1:]] == [
        int(owner.address, 16),
        int(to.address, 16),
        model.id,
    ]
    assert models.ownerOf(model.id) == to
    assert [models.balanceOf(account) for account in (owner, to)] == [balances[0] - 1, balances[1] + 1]
    assert models.getApproved(model.id) == ZERO_ADDRESS
    with reverts(system.models.NotOwnerNorApproved):
        models.transferFrom(to, system.buyer, model.id, sender=system.buyer)


def test_approved_accounts_and_operators_transfer(system: System, model: Model) -> None:
    models, owner, other = system.models, system.creator, system.stranger
    receipt = models.approve(other, model.id, sender=owner)
    assert len(list(topics(receipt, "Approval(address,address,uint256)"))) == 1
    models.transferFrom(owner, system.buyer, model.id, sender=other)
    receipt = models.setApprovalForAll(other, True, sender=system.buyer)
    assert len(list(topics(receipt, "ApprovalForAll(address,address,bool)"))) == 1
    assert models.isApprovedForAll(system.buyer, other)
    models.approve(system.regulator, model.id, sender=other)  # an operator approves, too
    assert models.getApproved(model.id) == system.regulator
    models.transferFrom(system.buyer, owner, model.id, sender=other)
    models.setApprovalForAll(other, False, sender=system.buyer)
    assert not models.isApprovedForAll(system.buyer, other)


def test_nobody_else_transfers_or_approves(system: System, model: Model) -> None:
    models, owner, other = system.models, system.creator, system.stranger
    for sender in (other, system.deployer, system.regulator, system.as_contract("MisuseCourt")):
        with reverts(system.models.NotOwnerNorApproved):
            models.transferFrom(owner, other, model.id, sender=sender)
        with reverts(system.models.NotOwnerNorApproved):
            models.approve(sender, model.id, sender=sender)


def test_a_transfer_names_the_owner_and_somebody(system: System, model: Model) -> None:
    models, owner = system.models, system.creator
    with reverts(system.models.TransferFromIncorrectOwner):
        models.transferFrom(system.buyer, system.stranger, model.id, sender=owner)
    with reverts(system.models.TransferToZeroAddress):
        models.transferFrom(owner, ZERO_ADDRESS, model.id, sender=owner)
    with reverts(system.models.TokenDoesNotExist):
        models.transferFrom(owner, system.stranger, 999, sender=owner)


def test_a_safe_transfer_asks_the_contract_that_receives(system: System, model: Model, receiver: Any) -> None:
    """After the move, with operator, former owner, id and data."""
    types = ["address", "address", "address", "uint256", "bytes", "address"]
    models, owner = system.models, system.creator
    models.approve(system.buyer, model.id, sender=owner)
    for operator, data in ((system.buyer, b""), (owner, b"why")):
        with isolated():
            extra = (data,) if data else ()
            models.safeTransferFrom(owner, receiver, model.id, *extra, sender=operator)
            told = (models.address, operator.address, owner.address, model.id, data, receiver.address)
            assert bytes(receiver.seen()) == keccak(encode(types, told))
            assert models.ownerOf(model.id) == receiver


def test_a_contract_that_does_not_answer_right_gets_no_token(
    system: System, model: Model, receiver: Any
) -> None:
    transfer = system.models.safeTransferFrom
    receiver.tell(b"\x15\x0b\x7a\x03", ZERO_ADDRESS, sender=system.deployer)
    for to in (receiver, system.models):
        with reverts(system.models.TransferToNonERC721ReceiverImplementer):
            transfer(system.creator, to, model.id, sender=system.creator)
    assert system.models.ownerOf(model.id) == system.creator
    assert system.models.statusOf(model.id).saleNonce == 0


def test_a_receiver_that_passes_the_token_on_leaves_no_trace(
    system: System, model: Model, receiver: Any
) -> None:
    receiver.tell(bytes.fromhex("150b7a02"), system.stranger, sender=system.deployer)
    system.models.safeTransferFrom(system.creator, receiver, model.id, b"on", sender=system.creator)
    status = system.models.statusOf(model.id)
    assert (status.owner, status.saleNonce) == (system.stranger, 2)
    assert system.models.balanceOf(receiver) == 0


# ---------------------------------------------------------------- ERC-2981


@settings(max_examples=25, deadline=None)
@given(price=st.integers(0, 2**96))
def test_the_royalty_is_a_rounded_down_share_of_the_price(system: System, price: int) -> None:
    receiver, amount = system.models.royaltyInfo(1, price)
    assert receiver == system.treasury
    assert amount == price * system.params.platform_bps // 10_000


# ---------------------------------------------------------------- ERC-4906, 7572, 5267


def test_metadata_changes_are_told_unindexed(system: System, model: Model) -> None:
    models = system.models
    receipt = models.setPreferences(model.id, 1, REASON, sender=system.creator)
    assert [len(found) for found in topics(receipt, "MetadataUpdate(uint256)")] == [1]
    (log,) = [
        log for log in receipt.logs if bytes(log["topics"][0]) == keccak(text="MetadataUpdate(uint256)")
    ]
    assert int.from_bytes(bytes(log["data"]), "big") == model.id


def test_the_collection_tells_when_its_metadata_changes(system: System) -> None:
    receipt = system.models.setContractURI("ipfs://other", sender=system.deployer)
    assert [len(found) for found in topics(receipt, "ContractURIUpdated()")] == [1]
    assert system.models.contractURI() == "ipfs://other"


def test_the_eip712_domain_is_readable(system: System) -> None:
    fields, name, version, chain_id, contract, salt, extensions = system.models.eip712Domain()
    assert (bytes(fields), name, version) == (b"\x0f", "ZhiYiChain ModelNFT", "1")
    assert (chain_id, contract) == (ape.chain.chain_id, system.models.address)
    assert (bytes(salt), list(extensions)) == (bytes(32), [])


# ---------------------------------------------------------------- ERC-7517

Word = Literal["allowed", "notAllowed", "constrained"]


class DataMiningPreference(BaseModel):
    """As the ERC has it: all keys optional, three values, further keys allowed."""

    model_config = ConfigDict(strict=True, extra="allow")
    dataMining: Word | None = None
    aiInference: Word | None = None
    aiTraining: Word | None = None
    aiGenerativeTraining: Word | None = None
    aiTrainingWithAuthorship: Word | None = None
    aiGenerativeTrainingWithAuthorship: Word | None = None


class LicenseReference(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    name: str
    document: str


class TokenMetadata(BaseModel):
    """ERC-721 metadata with an ERC-7517 statement; `constrained` has its license reference beside it."""

    model_config = ConfigDict(strict=True, extra="allow")
    name: str
    description: str
    image: str | None = None
    dataMiningPreference: DataMiningPreference
    license: LicenseReference | None = None

    @model_validator(mode="after")
    def constrained_names_a_license(self) -> TokenMetadata:
        if "constrained" in self.dataMiningPreference.__dict__.values() and self.license is None:
            raise ValueError("constrained needs a license reference")
        return self


# Bits 2i and 2i+1 of the token's preferences are category i, in the ERC's order.
CATEGORIES = tuple(DataMiningPreference.model_fields)
CODES = (None, "allowed", "constrained", "notAllowed")


def ipfs_block(data: bytes) -> bytes:
    """The dag-pb block of a small file: PBNode{Data: UnixFS{Type: File, Data, filesize}}."""

    def varint(number: int) -> bytes:
        out = b""
        while number >= 0x80:
            out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
        return out + bytes([number])

    unixfs = b"\x08\x02\x12" + varint(len(data)) + data + b"\x18" + varint(len(data))
    return b"\x0a" + varint(len(unixfs)) + unixfs


def described(preferences: Preferences) -> bytes:
    """Metadata as the SDK writes it."""
    reference = metadata.License(name="Terms", document="ipfs://terms", terms_hash=REASON)
    constrained = any(code == Preference.CONSTRAINED for code in dict(preferences).values())
    return metadata.encode(
        metadata.build(
            name="Model",
            description="A model.",
            preferences=preferences,
            license=reference if constrained else None,
            model={"weights_root": REASON},
            compliance={"genai_filing_no": "Beijing-000"},
        )
    )


@pytest.mark.parametrize("bits", [0, 0b11_10_01_00_01_10, 0b10_10_10_10_10_10, 0xFFF, 0x555])
def test_the_token_uri_leads_to_an_erc7517_statement_that_says_what_the_bits_say(
    system: System, bits: int
) -> None:
    document = described(Preferences.unpack(bits))
    ipfs = {sha(ipfs_block(document)).hex(): document}
    model = system.register(system.creator, f"described {bits}", preferences=bits)
    system.models.setPreferences(model.id, bits, sha(ipfs_block(document)), sender=system.creator)
    uri = system.models.tokenURI(model.id)
    assert uri.startswith("ipfs://f01701220")  # CIDv1, base16, dag-pb, sha2-256, 32 bytes
    found = TokenMetadata.model_validate_json(ipfs[uri.removeprefix("ipfs://f01701220")])
    kept = system.models.statusOf(model.id).preferences
    for place, category in enumerate(CATEGORIES):
        assert getattr(found.dataMiningPreference, category) == CODES[kept >> 2 * place & 3], category


def test_the_check_of_statements_sees_what_is_wrong() -> None:
    good = json.loads(described(Preferences(ai_training=Preference.CONSTRAINED)))
    TokenMetadata.model_validate(good)
    for wrong in (
        {**good, "license": None},
        {**good, "dataMiningPreference": {"aiTraining": "constraint"}},
        {**good, "dataMiningPreference": {"dataMining": True}},
        {k: v for k, v in good.items() if k != "dataMiningPreference"},
    ):
        with pytest.raises(ValidationError):
            TokenMetadata.model_validate(wrong)


def test_a_change_of_preferences_can_be_traced_to_its_statement(system: System, model: Model) -> None:
    """Bits and digest of every state are in the events, who owned the token then in its transfers."""
    digests = []
    for code in (1, 3, 2):
        preferences = Preferences.unpack(code)
        digest = sha(ipfs_block(described(preferences)))
        receipt = system.models.setPreferences(model.id, code, digest, sender=system.creator)
        (event,) = receipt.decode_logs(system.models.PreferencesChanged)
        assert (event.preferences, bytes(event.metadataDigest)) == (code, digest)
        digests.append((event.before, code))
    assert digests == [(0, 1), (1, 3), (3, 2)]
    assert system.models.statusOf(model.id).review == Review.APPROVED
