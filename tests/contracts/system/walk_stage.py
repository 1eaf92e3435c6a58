"""The whole deployed system with its people, and everything they sign.

Four models, each derived from the one before; two fingerprinters; a committee of five, three of whom must sign.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, field, replace
from importlib.resources import files
from typing import Any, NamedTuple

import ape
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak
from market import (
    DAY,
    DELIVERY_TYPES,
    EMPTY_CID,
    ETHER,
    HOUR,
    NATIVE,
    SALE_TYPES,
    Delivery,
    ModelRecord,
    Order,
    Parcel,
    Review,
    RoyaltyTerms,
    Sale,
    System,
    key_commit,
    make_parcel,
    sha,
)
from quick_node import Face, Log, Node

from zhiyi import abi

BEGIN = 2_000_000_000  # unix seconds: a walk is the same whenever it is taken
RICH = 10**6 * ETHER
SEATS, THRESHOLD = 5, 3
STAKE = 12 * ETHER
TEXT = b"\x7e" * 32


class Actor(NamedTuple):
    """Somebody with a key, unlocked on the node."""

    name: str
    address: str
    key: bytes

    def sign(self, digest: bytes) -> bytes:
        return bytes(Account.unsafe_sign_hash(digest, self.key).signature)


def actor(name: str) -> Actor:
    key = keccak(text=f"zhiyi walk {name}")
    return Actor(name, Account.from_key(key).address, key)


@dataclass(frozen=True)
class Renewal:
    licenseId: int
    seller: str
    token: str
    price: int
    expiry: int
    saleNonce: int
    orderNonce: int
    openBy: int

    TYPE = (
        "Renewal(uint256 licenseId,address seller,address token,uint96 price,uint40 expiry,uint24 saleNonce,"
        "uint64 orderNonce,uint40 openBy)"
    )


@dataclass(frozen=True)
class ModelSale:
    modelId: int
    seller: str
    buyer: str
    token: str
    price: int
    termsHash: bytes
    saleNonce: int
    orderNonce: int
    openBy: int

    TYPE = (
        "ModelSale(uint64 modelId,address seller,address buyer,address token,uint96 price,bytes32 termsHash,"
        "uint24 saleNonce,uint64 orderNonce,uint40 openBy)"
    )


class Sent(NamedTuple):
    """A call that succeeded."""

    contract: str
    function: str
    arguments: tuple[Any, ...]
    by: str
    value: int


class RangeVerdict(NamedTuple):
    licenseId: int
    orderHash: bytes
    upheld: bool
    epoch: int
    deadline: int

    TYPE = "RangeVerdict(uint256 licenseId,bytes32 orderHash,bool upheld,uint64 epoch,uint40 deadline)"


def _struct(name: str, cls: Any, types: list[str]) -> str:
    members = zip(types, cls.__dataclass_fields__, strict=True)
    return f"{name}({','.join(f'{kind} {member}' for kind, member in members)})"


SALE_TYPE = _struct("Sale", Sale, SALE_TYPES)
DELIVERY_TYPE = _struct("Delivery", Delivery, DELIVERY_TYPES)
SALE_TYPEHASH, DELIVERY_TYPEHASH = keccak(text=SALE_TYPE), keccak(text=DELIVERY_TYPE)
ORDER_TYPE = "Order(Sale sale,Delivery delivery)" + DELIVERY_TYPE + SALE_TYPE
ORDER_TYPEHASH = keccak(text=ORDER_TYPE)
VERDICT_TYPE = (
    "Verdict(bytes32 caseId,uint256 licenseId,uint8 kind,uint8 decision,bytes32 evidenceHash,bytes32 subject,"
    "bytes32 detectorHash,uint8 shareIndex,uint32 samples,uint8 bucket,uint64 epoch,uint40 deadline)"
)
DOMAIN = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


def struct_hash(value: Any) -> bytes:
    """EIP-712 hash of a flat struct that names its type."""
    inside = value.TYPE[value.TYPE.index("(") + 1 : -1]
    types = ["bytes32", *(member.split(" ")[0] for member in inside.split(","))]
    members = astuple(value) if hasattr(value, "__dataclass_fields__") else tuple(value)
    return keccak(encode(types, (keccak(text=value.TYPE), *members)))


def order_hash(order: Order) -> bytes:
    sale = keccak(encode(["bytes32", *SALE_TYPES], [SALE_TYPEHASH, *astuple(order.sale)]))
    delivery = keccak(encode(["bytes32", *DELIVERY_TYPES], [DELIVERY_TYPEHASH, *astuple(order.delivery)]))
    return keccak(ORDER_TYPEHASH + sale + delivery)


def sale_hash(order: Order) -> bytes:
    return keccak(encode(["bytes32", *SALE_TYPES], [SALE_TYPEHASH, *astuple(order.sale)]))


def verdict_hash(verdict: Any) -> bytes:
    """Of the court's Verdict."""
    return keccak(keccak(text=VERDICT_TYPE) + verdict.encoded())


def domain(name: str, chain_id: int, contract: str) -> bytes:
    """EIP-712 domain separator of version 1."""
    types = ["bytes32", "bytes32", "bytes32", "uint256", "address"]
    return keccak(
        encode(types, [keccak(text=DOMAIN), keccak(text=name), keccak(text="1"), chain_id, contract])
    )


def typed_digest(separator: bytes, hash_: bytes) -> bytes:
    return keccak(b"\x19\x01" + separator + hash_)


def flatten(parent: int, bps: int, grand: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """A child's ancestors: those of its one parent share in the parent's part."""
    parts = [(ancestor, bps * part // 10_000) for ancestor, part in grand]
    return (*parts, (parent, bps - sum(part for _, part in parts)))


@dataclass(frozen=True)
class WalkModel:
    """A registered model and what opens it."""

    id: int
    record: ModelRecord
    royalties: RoyaltyTerms

    @property
    def shares(self) -> Any:
        return self.royalties.as_tuple()


PARCELS: dict[int | None, Parcel] = {w: make_parcel(f"walk {w}", wrong=w) for w in (None, 1)}


@dataclass
class Stage:
    """Who is there, what is deployed, and how to call it."""

    system: System
    node: Node
    faces: dict[str, Face]
    token: Face
    people: dict[str, Actor]
    names: dict[str, str]  # by address
    models: dict[int, WalkModel] = field(default_factory=dict)
    operators: list[Actor] = field(default_factory=list)  # of epoch 1, in the order of their seats
    time: int = 0
    history: list[Log] = field(default_factory=list)  # of the setup
    sent: list[Sent] = field(default_factory=list)  # of the setup

    # ---------------------------------------------------------------- calls

    def address(self, name: str) -> str:
        return self.people[name].address

    def send(self, contract: str, function: str, *arguments: Any, by: str, value: int = 0) -> list[Log]:
        """A transaction of `by`, at the stage's time; its events. Raises Reverted."""
        face = self.faces[contract]
        return self.node.send(
            face.address,
            face.data(function, *arguments),
            sender=self.address(by),
            value=value,
            time=self.time,
        )

    def setup(self, contract: str, function: str, *arguments: Any, by: str, value: int = 0) -> list[Log]:
        self.time += 1
        logs = self.send(contract, function, *arguments, by=by, value=value)
        self.history += logs
        self.sent.append(Sent(contract, function, arguments, by, value))
        return logs

    def view(self, contract: str, function: str, *arguments: Any) -> Any:
        return self.node.read((self.faces[contract], function, *arguments))[0]

    def separator(self, contract: str, *, chain_id: int | None = None, address: str | None = None) -> bytes:
        return domain(
            f"ZhiYiChain {contract}", chain_id or ape.chain.chain_id, address or self.faces[contract].address
        )

    def digest(self, contract: str, hash_: bytes) -> bytes:
        return typed_digest(self.separator(contract), hash_)

    # ---------------------------------------------------------------- orders

    def order(
        self, model: int, number: int, parcel: Parcel, *, seller: str, buyer: str, **changes: Any
    ) -> Order:
        """An order over a copy, signed by nobody yet. Names are addresses here."""
        license_id = model << 28 | number
        values: dict[str, Any] = {
            "seller": seller,
            "token": NATIVE,
            "price": ETHER // 10,
            "bond": ETHER // 5,
            "terms": 1,
            "termsHash": TEXT,
            "requestHash": bytes(32),
            "basis": 0,
            "saleNonce": 0,
            "orderNonce": 0,
            "openBy": self.time + DAY,
            "bondTail": 90 * DAY,
            "source": 0,
            "licenseId": license_id,
            "buyer": buyer,
            "fingerprinter": self.address("fred"),
            "deposit": ETHER // 3,
            "keyCommit": key_commit(parcel.key, license_id, buyer),
            "markCommit": b"\x3a" * 32,
            "revealWindow": 2 * HOUR,
            "grace": HOUR // 2,
            "complaintWindow": DAY,
            **parcel.figures,
            **changes,
        }
        sale = Sale(**{name: values[name] for name in Sale.__dataclass_fields__})
        return Order(sale, Delivery(**{name: values[name] for name in Delivery.__dataclass_fields__}))

    def signed(self, order: Order, *signers: str) -> list[bytes]:
        digest = self.digest("LicenseEscrow", order_hash(order))
        return [self.people[name].sign(digest) for name in signers]

    def committee_signs(self, digest: bytes, seats: list[int]) -> tuple[list[str], int, bytes]:
        """Signers, bitmap and signatures, as every function that hears the committee takes them."""
        signatures = b"".join(self.operators[seat].sign(digest) for seat in sorted(seats))
        return [o.address for o in self.operators], sum(1 << seat for seat in seats), signatures


ISSUER = "kai"  # of attestations, up to the second tier
OWNERS = ("anna", "bert", "carl", "dora")
BUYERS = ("emma", "finn", "gina")
OTHERS = ("kim", "kai", "fred", "flora", "hugo", "sam")


def build(system: System, project: Any) -> Stage:
    """Everybody rich, staked and seated; four approved models in a line, their terms opened."""
    token = system.deployer.deploy(project.PermitToken)
    faces = {
        name: Face(
            name, system.at[name].address, json.loads((files(abi) / f"{name}.json").read_text())["abi"]
        )
        for name in abi.NAMES
        if name in system.at
    }
    faces["Token"] = Face("Token", token.address, token.contract_type.model_dump(mode="json")["abi"])
    node = Node(ape.networks.provider.http_uri, list(faces.values()))
    people = {name: actor(name) for name in (*OWNERS, *BUYERS, *OTHERS)}
    people |= {f"operator {i}": actor(f"operator {i}") for i in range(SEATS)}
    own = {
        "admin": system.deployer,
        "arbiter": system.registrar,
        "last": system.regulator,
        "pauser": system.pauser,
        "treasury": system.treasury,
    }
    for name, account in own.items():
        people[name] = Actor(name, account.address, bytes.fromhex(account.private_key.removeprefix("0x")))
    stage = Stage(system, node, faces, faces["Token"], people, {p.address: p.name for p in people.values()})
    for person in people.values():
        node.batch(
            ("anvil_impersonateAccount", [person.address]), ("anvil_setBalance", [person.address, hex(RICH)])
        )
    stage.time = BEGIN
    _money(stage)
    _members(stage)
    stage.setup("IdentityRegistry", "setIssuer", stage.address(ISSUER), 2, by="admin")
    for owner, parent in zip(OWNERS, (None, 0, 1, 2), strict=True):
        _register(stage, owner, None if parent is None else list(stage.models.values())[parent])
    return stage


def _money(stage: Stage) -> None:
    stage.setup("LicenseEscrow", "listToken", stage.token.address, True, by="admin")
    for name in stage.people:
        stage.setup("Token", "mint", stage.address(name), RICH, by="admin")
        stage.setup("Token", "approve", stage.faces["LicenseEscrow"].address, 2**256 - 1, by=name)
        stage.setup("LicenseEscrow", "depositNative", stage.address(name), by=name, value=100 * ETHER)


def _members(stage: Stage) -> None:
    roles = [("fred", 2), ("flora", 2), *((f"operator {i}", 1) for i in range(SEATS))]
    for name, role in roles:
        arguments = (role, stage.address(name), b"\x01" * 32, STAKE, f"https://{name[-1]}.example", 0, b"")
        stage.setup("OracleCommittee", "join", *arguments, by=name)
    seated = [person for name, person in stage.people.items() if name.startswith("operator")]
    stage.operators = sorted(seated, key=lambda person: int(person.address, 16))
    signers = [person.address for person in stage.operators]
    stage.setup("OracleCommittee", "announceEpoch", signers, THRESHOLD, by="admin")
    epoch = stage.view("OracleCommittee", "currentEpoch") + 1
    stage.setup("OracleCommittee", "activateEpoch", epoch, by="sam")


def _register(stage: Stage, owner: str, parent: WalkModel | None) -> None:
    number = len(stage.models)
    record = ModelRecord(sha(f"walk model {number}".encode()))
    collaborators = ((stage.address(("kim", "kai", "kim", "kai")[number]), (1_000, 0, 2_500, 333)[number]),)
    bps = (0, 1_000, 2_001, 1_537)[number]
    proofs: list[Any] = []
    ancestors: tuple[tuple[int, int], ...] = ()
    if parent is not None:
        deadline = stage.time + DAY
        holder = stage.address(OWNERS[number - 1])
        digest = stage.view(
            "ModelNFT", "consentDigest", parent.id, record.weightsRoot, stage.address(owner), bps, deadline
        )
        signature = stage.people[stage.names[holder]].sign(digest)
        proofs.append((parent.id, bps, 0, deadline, signature, parent.shares, astuple(parent.record)))
        ancestors = flatten(parent.id, bps, parent.royalties.ancestors)
    stage.setup("ModelNFT", "register", astuple(record), EMPTY_CID, 0, list(collaborators), proofs, by=owner)
    model_id = stage.view("ModelNFT", "modelCount")
    royalties = RoyaltyTerms(stage.system.params.platform_bps, collaborators, ancestors)
    record = replace(record, royaltyHash=royalties.hash())
    model = WalkModel(model_id, record, royalties)
    stage.models[model_id] = model
    stage.setup("ModelNFT", "review", model_id, record.weightsRoot, int(Review.APPROVED), TEXT, by="arbiter")
    stage.setup("RoyaltyLedger", "openTerms", model_id, astuple(record), model.shares, by="sam")
