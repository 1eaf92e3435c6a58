"""The market of a test: the whole system as deployed, its roles, and the moves that tests make with them.

Hashes, leaves and signatures are made here anew, from the documents, not taken from the SDK: two writers of one format
find each other's mistakes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields, replace
from enum import IntEnum
from typing import Any

import ape
import pytest
from ape.exceptions import ContractLogicError, CustomError
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from eth_abi import decode, encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak

from ape_signer import ApeSigner
from contracts_plan import CONTRACTS, FACTORY, ZERO_ADDRESS, Params
from contracts_rollout import artifact, rollout
from zhiyi.chain import Chain, ChainOptions
from zhiyi.delivery import CHUNK_SIZE as CHUNK

ETHER = 10**18
FIRST_ONWARD = 1 << 27  # least fingerprint number of a license that is passed on
HOUR = 3_600
DAY = 86_400
NATIVE = ZERO_ADDRESS
EMPTY_CID = b"\xc1" * 32


class State(IntEnum):
    NONE, OPEN, REVEALED, RANGE_CHECK, SETTLED, REFUNDED = range(6)


class Review(IntEnum):
    PENDING, APPROVED, REJECTED = range(3)


# ---------------------------------------------------------------- values


def terms(
    *,
    flags: int = 1,
    territory: int = 0,
    expiry: int = 0,
    uses: int = 0,
    derivative_bps: int = 0,
    onward_bps: int = 0,
    min_tier: int = 0,
) -> int:
    shares = derivative_bps << 64 | onward_bps << 77 | min_tier << 90
    return flags | territory << 8 | expiry << 18 | uses << 58 | shares


@dataclass(frozen=True)
class Sale:
    seller: str
    token: str
    price: int
    bond: int
    terms: int
    termsHash: bytes
    requestHash: bytes
    basis: int
    saleNonce: int
    orderNonce: int
    openBy: int
    bondTail: int
    source: int


@dataclass(frozen=True)
class Delivery:
    licenseId: int
    buyer: str
    fingerprinter: str
    deposit: int
    copyRoot: bytes
    deliveryRoot: bytes
    keyCommit: bytes
    markCommit: bytes
    totalBytes: int
    chunks: int
    chunkSize: int
    suite: int
    revealWindow: int
    grace: int
    complaintWindow: int


# fmt: off
SALE_TYPES = [
    "address", "address", "uint96", "uint96", "uint96", "bytes32", "bytes32", "uint8", "uint24", "uint64", "uint40",
    "uint32", "uint256",
]
DELIVERY_TYPES = [
    "uint256", "address", "address", "uint128", "bytes32", "bytes32", "bytes32", "bytes32", "uint64", "uint32",
    "uint16", "uint8", "uint32", "uint32", "uint32",
]
# fmt: on


@dataclass(frozen=True)
class Order:
    sale: Sale
    delivery: Delivery

    def with_(self, **changes: Any) -> Order:
        """The order with members of either half replaced."""
        sale = {k: v for k, v in changes.items() if k in Sale.__dataclass_fields__}
        delivery = {k: v for k, v in changes.items() if k in Delivery.__dataclass_fields__}
        assert set(changes) == set(sale) | set(delivery), changes
        return Order(replace(self.sale, **sale), replace(self.delivery, **delivery))

    def as_tuple(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return astuple(self.sale), astuple(self.delivery)

    def typed_data(self, chain_id: int, escrow: str) -> dict[str, Any]:
        return {
            "domain": {
                "name": "ZhiYiChain LicenseEscrow",
                "version": "1",
                "chainId": chain_id,
                "verifyingContract": escrow,
            },
            "types": {
                "EIP712Domain": [
                    {"name": "name", "type": "string"},
                    {"name": "version", "type": "string"},
                    {"name": "chainId", "type": "uint256"},
                    {"name": "verifyingContract", "type": "address"},
                ],
                "Order": [{"name": "sale", "type": "Sale"}, {"name": "delivery", "type": "Delivery"}],
                "Sale": _members(Sale, SALE_TYPES),
                "Delivery": _members(Delivery, DELIVERY_TYPES),
            },
            "primaryType": "Order",
            "message": {"sale": vars(self.sale), "delivery": vars(self.delivery)},
        }


def _members(cls: type, types: list[str]) -> list[dict[str, str]]:
    return [{"name": f.name, "type": t} for f, t in zip(fields(cls), types, strict=True)]


@dataclass(frozen=True)
class ModelRecord:
    weightsRoot: bytes
    totalBytes: int = 10 * CHUNK
    chunks: int = 10
    chunkSize: int = CHUNK
    detectorHash: bytes = b"\xde" * 32
    traceKeyCommit: bytes = b"\x7c" * 32
    rangeHash: bytes = b"\x4a" * 32
    royaltyHash: bytes = bytes(32)

    def hash(self) -> bytes:
        types = ["bytes32", "uint64", "uint32", "uint16", "bytes32", "bytes32", "bytes32", "bytes32"]
        return keccak(encode(types, astuple(self)))


@dataclass(frozen=True)
class RoyaltyTerms:
    platformBps: int
    collaborators: tuple[tuple[str, int], ...] = ()
    ancestors: tuple[tuple[int, int], ...] = ()

    def as_tuple(self) -> tuple[int, list[tuple[str, int]], list[tuple[int, int]]]:
        return self.platformBps, list(self.collaborators), list(self.ancestors)

    def hash(self) -> bytes:
        return keccak(encode(["(uint16,(address,uint16)[],(uint64,uint16)[])"], [self.as_tuple()]))


@dataclass(frozen=True)
class Model:
    """A registered model, with what opens its record."""

    id: int
    record: ModelRecord
    royalties: RoyaltyTerms

    @property
    def opening(self) -> tuple[Any, Any]:
        return astuple(self.record), self.royalties.as_tuple()

    @property
    def shares(self) -> tuple[Any, ...]:
        """The royalty terms as the ledger takes them."""
        return self.royalties.as_tuple()


# ---------------------------------------------------------------- delivery


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def keystream_xor(key: bytes, offset: int, data: bytes) -> bytes:
    assert offset % 64 == 0
    counter = (offset // 64).to_bytes(8, "little") + bytes(8)
    return Cipher(ChaCha20(key, counter), mode=None).encryptor().update(data)


def plain_leaf(index: int, data: bytes) -> bytes:
    return sha(b"\x00", u32(index), u32(len(data)), data)


def delivery_leaf(index: int, plain: bytes, cipher: bytes) -> bytes:
    return sha(b"\x02", u32(index), u32(len(cipher)), plain, cipher)


def tree(leaves: list[bytes]) -> list[list[bytes]]:
    """All levels, leaves first; places without a leaf hold sha256(0x03)."""
    depth = (len(leaves) - 1).bit_length()
    level = leaves + [sha(b"\x03")] * (2**depth - len(leaves))
    levels = [level]
    while len(level) > 1:
        level = [sha(b"\x01", level[i], level[i + 1]) for i in range(0, len(level), 2)]
        levels.append(level)
    return levels


def path_of(levels: list[list[bytes]], index: int) -> list[bytes]:
    return [level[(index >> i) ^ 1] for i, level in enumerate(levels[:-1])]


@dataclass(frozen=True)
class Parcel:
    """A prepared copy of a few chunks. Chunk `wrong` decrypts to something else than its plain leaf says."""

    key: bytes
    chunks: tuple[bytes, ...]
    wrong: int | None = None
    size: int = CHUNK
    plain: list[bytes] = field(init=False)
    cipher: list[bytes] = field(init=False)
    levels: list[list[bytes]] = field(init=False)

    def __post_init__(self) -> None:
        plain = [plain_leaf(i, chunk) for i, chunk in enumerate(self.chunks)]
        sent = [bytes(len(c)) if i == self.wrong else c for i, c in enumerate(self.chunks)]
        cipher = [keystream_xor(self.key, i * self.size, chunk) for i, chunk in enumerate(sent)]
        object.__setattr__(self, "plain", plain)
        object.__setattr__(self, "cipher", cipher)
        leaves = [delivery_leaf(i, p, c) for i, (p, c) in enumerate(zip(plain, cipher, strict=True))]
        object.__setattr__(self, "levels", tree(leaves))

    @property
    def figures(self) -> dict[str, Any]:
        return {
            "copyRoot": tree(self.plain)[-1][0],
            "deliveryRoot": self.levels[-1][0],
            "totalBytes": sum(map(len, self.chunks)),
            "chunks": len(self.chunks),
            "chunkSize": self.size,
            "suite": 1,
        }

    def proof(self, index: int) -> tuple[bytes, int, bytes, bytes, list[bytes]]:
        """key, index, cipher, plain leaf, path: what a complaint brings besides the order."""
        return self.key, index, self.cipher[index], self.plain[index], path_of(self.levels, index)


def make_parcel(seed: str = "parcel", count: int = 5, wrong: int | None = None, size: int = CHUNK) -> Parcel:
    chunks = [hashlib.shake_256(f"{seed}{i}".encode()).digest(size) for i in range(count - 1)]
    chunks.append(hashlib.shake_256(f"{seed}-last".encode()).digest(300))
    return Parcel(sha(f"key {seed}".encode()), tuple(chunks), wrong, size)


def deep_parcel(
    depth: int, *, wrong: bool, size: int = CHUNK
) -> tuple[Parcel, dict[str, Any], tuple[Any, ...]]:
    """One real chunk in a tree of 2^depth full chunks whose other nodes are noise: figures and proof for index 0."""
    base = make_parcel(f"deep {depth} {size}", count=2, wrong=0 if wrong else None, size=size)
    path = [sha(b"noise", u32(i)) for i in range(depth)]
    node = delivery_leaf(0, base.plain[0], base.cipher[0])
    for sibling in path:
        node = sha(b"\x01", node, sibling)
    figures = base.figures | {"deliveryRoot": node, "chunks": 2**depth, "totalBytes": size << depth}
    return base, figures, (base.key, 0, base.cipher[0], base.plain[0], path)


def key_commit(key: bytes, license_id: int, buyer: str) -> bytes:
    return keccak(encode(["bytes32", "uint256", "address"], [key, license_id, buyer]))


# ---------------------------------------------------------------- system


def sign_digest(digest: bytes, account: Any) -> bytes:
    return bytes(Account.unsafe_sign_hash(digest, account.private_key).signature)


def malleable_twin(signature: bytes) -> bytes:
    """The other signature of the same key over the same digest: s mirrored, v flipped."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


@dataclass
class System:
    """The deployed contracts and the people; `at` looks a contract up by name."""

    at: dict[str, Any]
    deployer: Any
    creator: Any
    buyer: Any
    fingerprinter: Any
    registrar: Any
    regulator: Any
    pauser: Any
    treasury: Any
    collaborator: Any
    stranger: Any
    params: Params

    def __post_init__(self) -> None:
        self.models = self.at["ModelNFT"]
        self.licenses = self.at["LicenseNFT"]
        self.escrow = self.at["IEscrow"]
        self.royalties = self.at["RoyaltyLedger"]
        self.evidence = self.at["EvidenceLog"]
        self.committee = self.at["OracleCommittee"]
        self.court = self.at["ICourt"]
        self.manager = self.at["AccessManager"]
        self.identity = self.at["IdentityRegistry"]
        self.oversight = self.at["Oversight"]
        self.channels = self.at["UsageChannel"]

    # --- time

    @property
    def now(self) -> int:
        return int(ape.chain.pending_timestamp)

    def pass_time(self, seconds: int) -> None:
        ape.chain.mine(deltatime=seconds)

    def go_to(self, timestamp: int) -> None:
        """The next transaction runs in a block of exactly this time."""
        ape.chain.pending_timestamp = timestamp

    # --- people

    def as_contract(self, name: str) -> Any:
        """The peer itself as a sender: what it may do, whatever its code would do."""
        address = self.at[name].address
        ape.chain.provider.set_balance(address, ETHER)
        return ape.accounts[address]

    def as_peer(self, name: str) -> Any:
        """A peer of the escrow, by the name of the immutable that holds its address."""
        address = getattr(self.at["LicenseEscrow"], name)()
        ape.chain.provider.set_balance(address, ETHER)
        return ape.accounts[address]

    def fund(self, account: Any, amount: int) -> None:
        self.escrow.depositNative(account, sender=account, value=amount)

    def stake(self, account: Any, amount: int, *, role: int = 2) -> None:
        self.fund(account, amount)
        url = "https://example.org"
        self.committee.join(role, account, b"\xe5" * 32, amount, url, 0, b"", sender=account)

    def verify(self, account: Any, tier: int) -> None:
        """The registrar, made an issuer, attests the account, which records it."""
        self.identity.setIssuer(self.registrar, 3, sender=self.deployer)
        nonce = self.identity.nonceOf(self.registrar, account)
        attestation = (
            self.registrar.address, account.address, bytes(32), tier, self.now + 365 * DAY, nonce, self.now + DAY
        )  # fmt: skip
        digest = bytes(self.identity.attestationDigest(attestation))
        self.identity.attest(attestation, sign_digest(digest, self.registrar), sender=account)

    # --- models

    def pool(self, model: Model, token: str = NATIVE) -> int:
        """What the vault holds of the model's income."""
        return int(self.escrow.royaltyOf(model.id, token).balance)

    def open_terms(self, model: Model) -> None:
        """The ledger learns who shares the model's income."""
        self.royalties.openTerms(model.id, *model.opening, sender=self.stranger)

    def income(self, model: Model, amount: int) -> None:
        """Coins for the model, as an API user's channel brings them."""
        self.fund(self.stranger, amount)
        channels = self.as_peer("channels")
        self.escrow.lockChannel(self.stranger, NATIVE, amount, sender=channels)
        self.escrow.payChannelRoyalty(model.id, NATIVE, amount, sender=channels)

    def register(
        self,
        owner: Any,
        seed: str = "model",
        *,
        preferences: int = 0,
        collaborators: tuple[tuple[str, int], ...] = (),
        parents: tuple[Any, ...] = (),
        ancestors: tuple[tuple[int, int], ...] = (),
    ) -> Model:
        """`ancestors` is the flattened lineage that the test expects of `parents`."""
        record = ModelRecord(sha(seed.encode()))
        self.models.register(
            astuple(record), EMPTY_CID, preferences, list(collaborators), list(parents), sender=owner
        )
        royalties = RoyaltyTerms(self.params.platform_bps, collaborators, ancestors)
        stored = replace(record, royaltyHash=royalties.hash())
        return Model(self.models.modelCount(), stored, royalties)

    def approve(self, model: Model) -> None:
        root = model.record.weightsRoot
        self.models.review(model.id, root, Review.APPROVED, b"\x01" * 32, sender=self.registrar)

    # --- orders

    def make_order(self, model: Model, parcel: Parcel, number: int = 1, **changes: Any) -> Order:
        """An order that opens as it is; `changes` replace members, and the key commitment follows them."""
        status = self.models.statusOf(model.id)
        license_id = changes.pop("licenseId", model.id << 28 | number)
        buyer = changes.get("buyer", self.buyer.address)
        sale = Sale(
            seller=status.owner,
            token=NATIVE,
            price=ETHER // 10,
            bond=ETHER // 5,
            terms=terms(),
            termsHash=b"\x7e" * 32,
            requestHash=bytes(32),
            basis=0,
            saleNonce=status.saleNonce,
            orderNonce=self.escrow.orderFloor(status.owner),
            openBy=self.now + DAY,
            bondTail=90 * DAY,
            source=0,
        )
        delivery = Delivery(
            licenseId=license_id,
            buyer=buyer,
            fingerprinter=self.fingerprinter.address,
            deposit=ETHER // 10,
            keyCommit=key_commit(parcel.key, license_id, buyer),
            markCommit=b"\x3a" * 32,
            revealWindow=2 * HOUR,
            grace=HOUR // 2,
            complaintWindow=DAY,
            **parcel.figures,
        )
        return Order(sale, delivery).with_(**changes)

    def digest(self, order: Order) -> bytes:
        data = order.typed_data(ape.chain.chain_id, self.escrow.address)
        message = encode_typed_data(full_message=data)
        return keccak(b"\x19" + message.version + message.header + message.body)

    def order_hash(self, order: Order) -> bytes:
        data = order.typed_data(ape.chain.chain_id, self.escrow.address)
        return bytes(encode_typed_data(full_message=data).body)

    def signatures(self, order: Order) -> tuple[bytes, bytes]:
        digest = self.digest(order)
        return sign_digest(digest, self.creator), sign_digest(digest, self.fingerprinter)

    def open(self, order: Order, *, sender: Any = None, value: int | None = None) -> Any:
        if value is None:
            value = order.sale.price + order.sale.bond if order.sale.token == NATIVE else 0
        return self.escrow.open(
            order.as_tuple(), *self.signatures(order), sender=sender or self.buyer, value=value
        )

    def reveal(self, order: Order, parcel: Parcel, *, sender: Any = None) -> Any:
        sale_hash = self.escrow.saleHash(astuple(order.sale))
        return self.escrow.revealKey(
            sale_hash, astuple(order.delivery), parcel.key, sender=sender or self.fingerprinter
        )

    def settle(self, order: Order) -> Any:
        self.pass_time(order.delivery.complaintWindow + 1)
        return self.escrow.settle(order.as_tuple(), sender=self.stranger)

    def buy(self, order: Order, parcel: Parcel) -> Any:
        """From open to settled; the receipt of the settlement."""
        self.open(order)
        self.reveal(order, parcel)
        return self.settle(order)

    def state(self, order: Order) -> State:
        return State(self.escrow.orderState(order.delivery.licenseId)[0])

    def free(self, account: Any, token: str = NATIVE) -> int:
        return int(self.escrow.balanceOf(account, token))


def deploy(project: Any, accounts: Any, **changes: Any) -> System:
    """As `scripts/deploy.py` does, with short delays."""
    project.load_contracts()  # all that changed: asked for one by one, Ape leaves others as they were
    people = list(accounts[:10])
    deployer, _, _, _, registrar, regulator, pauser, treasury, _, _ = people
    params = Params(
        **{
            "admin": deployer.address,
            "treasury": treasury.address,
            "appeal_authority": registrar.address,
            "last_instance": regulator.address,
            "holders": {
                "REGISTRAR": (registrar.address,),
                "REGULATOR": (regulator.address,),
                "PAUSER": (pauser.address,),
                "ORACLE_ADMIN": (deployer.address,),
                "IDENTITY_ADMIN": (deployer.address,),
            },
            "admin_delay": 0,
            "contract_uri": "ipfs://collection",
            **changes,
        }
    )
    kinds = {name: getattr(project, name).contract_type for name in (FACTORY, *CONTRACTS)}
    built = {name: artifact(name, kind.model_dump(mode="json")) for name, kind in kinds.items()}
    chain = Chain(ape.networks.provider.http_uri, signer=ApeSigner(deployer), options=ChainOptions(poll=0.01))
    book = rollout(chain, params, built, salt=f"test {deployer.nonce}")
    at = {name: getattr(project, name).at(address) for name, address in book.contracts.items()}
    at["IEscrow"] = project.IEscrow.at(at["LicenseEscrow"].address)
    at["ICourt"] = project.ICourt.at(at["MisuseCourt"].address)
    return System(at, *people, params=params)


@contextmanager
def isolated() -> Iterator[None]:
    """Undoes on the chain what is done inside. What is raised inside comes out: Ape's `isolate` swallows it, and
    with it every failed assertion."""
    isolation = ape.chain.isolate()  # noqa: TID251
    isolation.__enter__()
    try:
        yield
    finally:
        isolation.__exit__(None, None, None)


@contextmanager
def reverts(error: Any, values: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Expects a revert with this custom error of a contract and, if given, these values of it.

    Ape's own `reverts` lets a revert that it can't decode pass, and takes every keyword for a value's name."""
    with pytest.raises(ContractLogicError) as caught:
        yield
    abi, found = error.abi, caught.value
    if isinstance(found, CustomError):
        signature, given = found.abi.selector, found.inputs
    else:  # raised by a contract below the one called, whose ABI lacks it
        data = _revert_data(str(found.revert_message))
        assert data[:4] == keccak(text=abi.selector)[:4], f"{found!r} is not {abi.selector}"
        decoded = decode([one.canonical_type for one in abi.inputs], data[4:])
        signature, given = abi.selector, dict(zip([one.name for one in abi.inputs], decoded, strict=True))
    assert signature == abi.selector, f"{found!r} is not {abi.selector}"
    for name, expected in (values or {}).items():
        wanted, value = getattr(expected, "address", expected), given[name]
        same = value.lower() == wanted.lower() if isinstance(value, str) else value == wanted
        assert same, f"{abi.name}: {name} is {value}, not {wanted}"


def _revert_data(message: str) -> bytes:
    """What a contract reverted with, from what Ape tells. Of a view, words that are UTF-8 come as text."""
    told = re.fullmatch(r"(?s)(?:custom error )?0x([0-9a-f]{8})(?:: )?(.*)", message)
    if told is None:
        return message.encode()
    selector, words = told.groups()
    is_hex = re.fullmatch("(?:[0-9a-f]{64})*", words)
    return bytes.fromhex(selector) + (bytes.fromhex(words) if is_hex else words.encode())


@contextmanager
def refuses(signature: str) -> Iterator[None]:
    """Expects a revert with this error, whichever contract it came through."""
    with pytest.raises(ContractLogicError) as caught:
        yield
    abi = getattr(caught.value, "abi", None)
    found = keccak(text=abi.selector)[:4].hex() if abi else str(caught.value.revert_message)[2:10]
    assert found == keccak(text=signature)[:4].hex(), f"{caught.value!r} is not {signature}"
