"""Every EIP-712 digest of the project, built in this one place.

On chain: Order, Renewal, ModelSale and RangeVerdict (escrow), Verdict (court), ParentConsent (models), SignerPossession
(committee), Attestation (identity), Voucher (channels). Off chain: Offer and CopyRequest, under a domain that names the
escrow. Types follow from the fields of `zhiyi.types`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from zhiyi.errors import BadSignature
from zhiyi.types import (
    NATIVE,
    Attestation,
    ChainStruct,
    CopyRequest,
    Delivery,
    ModelSale,
    Offer,
    Order,
    ParentConsent,
    RangeVerdict,
    Renewal,
    Sale,
    SignerPossession,
    Verdict,
    Voucher,
    keccak,
    to_address,
)

VERSION: Final = "1"
ESCROW_DOMAIN: Final = "ZhiYiChain LicenseEscrow"
COURT_DOMAIN: Final = "ZhiYiChain MisuseCourt"
COMMITTEE_DOMAIN: Final = "ZhiYiChain OracleCommittee"
MODEL_DOMAIN: Final = "ZhiYiChain ModelNFT"
CHANNEL_DOMAIN: Final = "ZhiYiChain UsageChannel"
IDENTITY_DOMAIN: Final = "ZhiYiChain IdentityRegistry"
OFF_CHAIN_DOMAIN: Final = "ZhiYiChain"
SECP256K1_N: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

Fields = tuple[tuple[str, str], ...]

_OFFER: Final[Fields] = (
    ("modelId", "uint64"),
    ("seller", "address"),
    ("fingerprinter", "address"),
    ("token", "address"),
    ("price", "uint96"),
    ("bond", "uint96"),
    ("terms", "uint96"),
    ("termsHash", "bytes32"),
    ("revealWindow", "uint32"),
    ("grace", "uint32"),
    ("complaintWindow", "uint32"),
    ("bondTail", "uint32"),
    ("validUntil", "uint40"),
    ("nonce", "uint64"),
    ("metadata", "string"),
    ("basis", "uint8"),
    ("source", "uint256"),
)
_COPY_REQUEST: Final[Fields] = (
    ("modelId", "uint64"),
    ("offerHash", "bytes32"),
    ("buyer", "address"),
    ("deliveryKey", "bytes32"),
    ("nonce", "uint64"),
    ("prepareFee", "uint96"),
    ("by", "uint40"),
)


class TypedData(NamedTuple):
    """What a signer signs: domain, types (without EIP712Domain; primary type first) and message."""

    domain: dict[str, Any]
    types: dict[str, list[dict[str, str]]]
    message: dict[str, Any]

    @property
    def primary(self) -> str:
        """Name of the primary type."""
        return next(iter(self.types))

    def domain_separator(self) -> bytes:
        """32 bytes."""
        fields: Fields = (
            ("name", "string"),
            ("version", "string"),
            ("chainId", "uint256"),
            ("verifyingContract", "address"),
        )
        return _hash("EIP712Domain", {"EIP712Domain": fields}, self.domain)

    def struct_hash(self) -> bytes:
        """32 bytes; what contracts keep of an order or verdict."""
        types = {name: tuple((f["name"], f["type"]) for f in fields) for name, fields in self.types.items()}
        return _hash(self.primary, types, self.message)

    def digest(self) -> bytes:
        """The 32 bytes that are signed: keccak256(0x19 01 | domain | struct)."""
        return keccak(b"\x19\x01" + self.domain_separator() + self.struct_hash())


def order(value: Order, chain_id: int, escrow: str) -> TypedData:
    """What seller and fingerprinter sign."""
    types = {"Order": (("sale", "Sale"), ("delivery", "Delivery")), **_struct(Delivery), **_struct(Sale)}
    message = {"sale": _message(value.sale), "delivery": _message(value.delivery)}
    return _typed(ESCROW_DOMAIN, chain_id, escrow, types, message)


def verdict(value: Verdict, chain_id: int, court: str) -> TypedData:
    """What an operator signs about a case."""
    return _typed(COURT_DOMAIN, chain_id, court, _struct(Verdict), _message(value))


def renewal(value: Renewal, chain_id: int, escrow: str) -> TypedData:
    """What a model's owner signs to extend a license."""
    return _typed(ESCROW_DOMAIN, chain_id, escrow, _struct(Renewal), _message(value))


def model_sale(value: ModelSale, chain_id: int, escrow: str) -> TypedData:
    """What a model's owner signs to sell the model token."""
    return _typed(ESCROW_DOMAIN, chain_id, escrow, _struct(ModelSale), _message(value))


def range_verdict(value: RangeVerdict, chain_id: int, escrow: str) -> TypedData:
    """What an operator signs about a range claim."""
    return _typed(ESCROW_DOMAIN, chain_id, escrow, _struct(RangeVerdict), _message(value))


def parent_consent(value: ParentConsent, chain_id: int, models: str) -> TypedData:
    """What the owner of a parent model signs."""
    return _typed(MODEL_DOMAIN, chain_id, models, _struct(ParentConsent), _message(value))


def signer_possession(value: SignerPossession, chain_id: int, committee: str) -> TypedData:
    """What a signer key signs to be registered by an account."""
    return _typed(COMMITTEE_DOMAIN, chain_id, committee, _struct(SignerPossession), _message(value))


def attestation(value: Attestation, chain_id: int, registry: str) -> TypedData:
    """What an issuer of identities signs."""
    return _typed(IDENTITY_DOMAIN, chain_id, registry, _struct(Attestation), _message(value))


def voucher(value: Voucher, chain_id: int, channels: str) -> TypedData:
    """What the signer of a usage channel signs, off chain, for each call or so."""
    return _typed(CHANNEL_DOMAIN, chain_id, channels, _struct(Voucher), _message(value))


def offer(value: Offer, chain_id: int, escrow: str) -> TypedData:
    """What a seller signs to offer a model to anybody (off chain)."""
    message = {
        "modelId": value.model_id,
        "seller": value.seller,
        "fingerprinter": value.fingerprinter or NATIVE,
        "token": value.token,
        "price": value.price,
        "bond": value.bond,
        "terms": value.terms.pack(),
        "termsHash": value.terms_hash,
        "revealWindow": value.reveal_window,
        "grace": value.grace,
        "complaintWindow": value.complaint_window,
        "bondTail": value.bond_tail,
        "validUntil": value.valid_until,
        "nonce": value.nonce,
        "metadata": value.metadata,
        "basis": int(value.basis),
        "source": value.source,
    }
    return _typed(OFF_CHAIN_DOMAIN, chain_id, escrow, {"Offer": _OFFER}, message)


def copy_request(value: CopyRequest, chain_id: int, escrow: str) -> TypedData:
    """What a buyer signs to ask for a copy (off chain; its struct hash is `Sale.requestHash`)."""
    message = {
        "modelId": value.model_id,
        "offerHash": value.offer_hash,
        "buyer": value.buyer,
        "deliveryKey": value.delivery_key,
        "nonce": value.nonce,
        "prepareFee": value.prepare_fee,
        "by": value.by,
    }
    return _typed(OFF_CHAIN_DOMAIN, chain_id, escrow, {"CopyRequest": _COPY_REQUEST}, message)


def order_hash(value: Order) -> bytes:
    """Struct hash of an order: independent of chain and contract."""
    return order(value, 0, NATIVE).struct_hash()


def sale_hash(value: Sale) -> bytes:
    """Struct hash of the sale half, as `revealKey` takes it."""
    return struct_hash(value)


def struct_hash(value: ChainStruct) -> bytes:
    """Struct hash of a value without nested structs: what contracts keep of it, and `cancel` takes."""
    kind = type(value)
    return _hash(kind.__name__, _struct(kind), _message(value))


def recover(digest: bytes, signature: bytes) -> str:
    """The account that signed `digest`: r | s | v, 65 bytes, v 27 or 28, low s. Raises BadSignature."""
    if len(signature) != 65:
        raise BadSignature(f"a signature has 65 bytes (r, s, v), this one {len(signature)}")
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if v not in (27, 28):
        raise BadSignature(f"signature byte v is {v}, it must be 27 or 28")
    if not 0 < r < SECP256K1_N or not 0 < s <= SECP256K1_N // 2:
        raise BadSignature("signature is malleable or out of range: r in 1..n-1 and s in 1..n/2 are needed")
    from eth_keys.datatypes import Signature
    from eth_keys.exceptions import BadSignature as Unrecoverable

    try:
        key = Signature(vrs=(v - 27, r, s)).recover_public_key_from_msg_hash(digest)
    except Unrecoverable as exc:
        raise BadSignature("no key can have made this signature over this digest") from exc
    return to_address(key.to_checksum_address())


def check_signed_by(data: TypedData, signature: bytes, signer: str) -> None:
    """Raises BadSignature unless the account `signer` (a key, not a contract) signed `data`."""
    found = recover(data.digest(), signature)
    if found != to_address(signer):
        raise BadSignature(f"{data.primary} is signed by {found}, not by {signer}: ask {signer} to sign it")


def _typed(
    name: str, chain_id: int, contract: str, types: Mapping[str, Fields], message: dict[str, Any]
) -> TypedData:
    domain = {
        "name": name,
        "version": VERSION,
        "chainId": chain_id,
        "verifyingContract": to_address(contract),
    }
    lists = {n: [{"name": field, "type": kind} for field, kind in fields] for n, fields in types.items()}
    return TypedData(domain, lists, message)


def _struct(cls: type[ChainStruct]) -> dict[str, Fields]:
    return {cls.__name__: cls.abi_fields()}


def _message(value: ChainStruct) -> dict[str, Any]:
    names = [name for name, _ in value.abi_fields()]
    return dict(zip(names, value.as_tuple(), strict=True))


def _hash(primary: str, types: Mapping[str, Fields], message: Mapping[str, Any]) -> bytes:
    """EIP-712 hashStruct for what we use: atomic types, string, bytes and nested structs."""
    from eth_abi.abi import encode as abi_encode

    kinds, words = ["bytes32"], [_type_hash(primary, types)]
    for name, kind in types[primary]:
        value = message[name]
        if kind in types:
            kind, value = "bytes32", _hash(kind, types, value)
        elif kind in ("string", "bytes"):
            kind, value = "bytes32", keccak(value.encode() if isinstance(value, str) else value)
        kinds.append(kind)
        words.append(value)
    return keccak(abi_encode(kinds, words))


def _type_hash(primary: str, types: Mapping[str, Fields]) -> bytes:
    used, queue = {primary}, [primary]
    while queue:
        for _, kind in types[queue.pop()]:
            if kind in types and kind not in used:
                used.add(kind)
                queue.append(kind)
    names = [primary, *sorted(used - {primary})]
    text = "".join(f"{n}({','.join(f'{kind} {field}' for field, kind in types[n])})" for n in names)
    return keccak(text.encode())
