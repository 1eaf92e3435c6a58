"""The values of the record, as in `contracts/interfaces/*.sol`, in snake_case.

All are frozen and checked when made. `bytes32` is `bytes` of length 32 (0x-hex in JSON), an address is a
checksummed string, an amount is an `int` in the token's smallest unit, a time is Unix seconds.
`as_tuple()` is the ABI form; `hash()` is what the chain keeps, where it keeps a hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum, IntFlag
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from zhiyi.errors import BadInput, IntegrityError

NATIVE: Final = "0x0000000000000000000000000000000000000000"  # token address of the chain's own coin
FINGERPRINT_BITS: Final = 28  # licenseId = modelId << 28 | fingerprint
MAX_FINGERPRINT: Final = (1 << FINGERPRINT_BITS) - 1
FIRST_ONWARD: Final = 1 << (FINGERPRINT_BITS - 1)  # least number of a license that a holder passes on
ZERO32: Final = bytes(32)
_HEX_DIGITS: Final = frozenset("0123456789abcdefABCDEF")  # bytes.fromhex also takes spaces


def keccak(data: bytes) -> bytes:
    """Keccak-256."""
    from eth_hash.auto import keccak as _keccak

    return bytes(_keccak(data))


def license_id_of(model_id: int, fingerprint: int) -> int:
    """The license id of a model's fingerprint number (1 .. 2^28-1). Raises BadInput out of range."""
    if not 0 < model_id < 1 << 64:
        raise BadInput(f"model id {model_id} is not in 1 .. 2^64-1")
    if not 0 < fingerprint <= MAX_FINGERPRINT:
        raise BadInput(f"fingerprint {fingerprint} is not in 1 .. {MAX_FINGERPRINT}")
    return model_id << FINGERPRINT_BITS | fingerprint


def model_of_license(license_id: int) -> int:
    """The model id inside a license id."""
    return license_id >> FINGERPRINT_BITS


def fingerprint_of_license(license_id: int) -> int:
    """The fingerprint number inside a license id."""
    return license_id & MAX_FINGERPRINT


def to_address(value: str) -> str:
    """The checksummed form. Raises BadInput for anything but 20 bytes of 0x-hex or a wrong checksum."""
    if (
        not isinstance(value, str)
        or len(value) != 42
        or value[:2] != "0x"
        or not _HEX_DIGITS.issuperset(value[2:])
    ):
        raise BadInput(f"{str(value)[:80]!r} is not an address: 0x and 40 hex digits are needed")
    digits = value[2:]
    lower = digits.lower()
    mask = keccak(lower.encode()).hex()
    sums = "0x" + "".join(c.upper() if int(m, 16) > 7 else c for c, m in zip(lower, mask, strict=False))
    if digits not in (lower, lower.upper(), sums[2:]):
        raise BadInput(f"{value} has a wrong checksum: a character is mistyped; the right form may be {sums}")
    return sums


def to_bytes(value: bytes | str, length: int | None = None) -> bytes:
    """Bytes from bytes or 0x-hex. Raises BadInput when malformed or not `length` long."""
    if isinstance(value, str):
        if value[:2] != "0x" or len(value) % 2 or not _HEX_DIGITS.issuperset(value[2:]):
            raise BadInput(f"{value[:80]!r} is not 0x-hex")
        raw = bytes.fromhex(value[2:])
    elif isinstance(value, bytes):
        raw = bytes(value)
    else:
        raise BadInput(f"{type(value).__name__} is not bytes")
    if length is not None and len(raw) != length:
        raise BadInput(f"{len(raw)} bytes given, {length} needed")
    return raw


def to_hex(value: bytes) -> str:
    """0x-hex of bytes."""
    return "0x" + bytes(value).hex()


class Abi(NamedTuple):
    """ABI type of a field."""

    name: str


def _address(value: object) -> object:
    return _as_value_error(to_address, value) if isinstance(value, str) else value


def _sized(length: int | None) -> Any:
    def check(value: object) -> object:
        return (
            _as_value_error(lambda v: to_bytes(v, length), value) if isinstance(value, str | bytes) else value
        )

    return BeforeValidator(check)


def _as_value_error(function: Any, value: Any) -> Any:
    try:
        return function(value)
    except BadInput as exc:
        raise ValueError(str(exc)) from exc


_HEX = PlainSerializer(to_hex, return_type=str, when_used="json")

Address = Annotated[str, BeforeValidator(_address), Abi("address")]
Bytes32 = Annotated[bytes, _sized(32), _HEX, Abi("bytes32")]
Bytes26 = Annotated[bytes, _sized(26), _HEX, Abi("bytes26")]
HexBytes = Annotated[bytes, _sized(None), _HEX, Abi("bytes")]
Signature = Annotated[bytes, _sized(None), _HEX]
U8 = Annotated[int, Field(ge=0, lt=1 << 8), Abi("uint8")]
U16 = Annotated[int, Field(ge=0, lt=1 << 16), Abi("uint16")]
U24 = Annotated[int, Field(ge=0, lt=1 << 24), Abi("uint24")]
U32 = Annotated[int, Field(ge=0, lt=1 << 32), Abi("uint32")]
U40 = Annotated[int, Field(ge=0, lt=1 << 40), Abi("uint40")]
U64 = Annotated[int, Field(ge=0, lt=1 << 64), Abi("uint64")]
U96 = Annotated[int, Field(ge=0, lt=1 << 96), Abi("uint96")]
U120 = Annotated[int, Field(ge=0, lt=1 << 120), Abi("uint120")]
U128 = Annotated[int, Field(ge=0, lt=1 << 128), Abi("uint128")]
U256 = Annotated[int, Field(ge=0, lt=1 << 256), Abi("uint256")]


def camel(name: str) -> str:
    """`license_id` → `licenseId`."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


class Value(BaseModel):
    """A frozen value: no coercion, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ChainStruct(Value):
    """A struct of the contracts: fields in the struct's order, each with its ABI type."""

    @classmethod
    def abi_fields(cls) -> tuple[tuple[str, str], ...]:
        """(name in Solidity, ABI type) of each field, in order; nested structs as tuple types."""
        return tuple(
            (camel(name), _abi_type(field.annotation, field.metadata))
            for name, field in cls.model_fields.items()
        )

    @classmethod
    def abi_type(cls) -> str:
        """The tuple type, as in a function selector."""
        return "(" + ",".join(kind for _, kind in cls.abi_fields()) + ")"

    def as_tuple(self) -> tuple[Any, ...]:
        """The ABI form."""
        return tuple(_lower(getattr(self, name)) for name in type(self).model_fields)

    @classmethod
    def from_abi(cls, value: Mapping[str, Any] | Sequence[Any]) -> Self:
        """From a decoded struct: a mapping by Solidity name, or a sequence in order.

        Raises IntegrityError when it does not fit.
        """
        names = list(cls.model_fields)
        try:
            items = [value[camel(n)] for n in names] if isinstance(value, Mapping) else list(value)
            fields = {n: _lift(cls.model_fields[n].annotation, v) for n, v in zip(names, items, strict=True)}
            return cls(**fields)
        except (KeyError, ValueError, ValidationError) as exc:
            raise IntegrityError(
                f"the chain's {cls.__name__} does not fit this version of the SDK: {exc}"
            ) from exc

    def encode(self) -> bytes:
        """`abi.encode(struct)`."""
        from eth_abi.abi import encode as abi_encode

        return bytes(abi_encode([self.abi_type()], [self.as_tuple()]))

    def keccak(self) -> bytes:
        """`keccak256(abi.encode(struct))`."""
        return keccak(self.encode())


def _abi_type(annotation: Any, metadata: Sequence[Any]) -> str:
    for item in metadata:
        if isinstance(item, Abi):
            return item.name
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _abi_type(inner, more)
    if origin is tuple:
        return _abi_type(get_args(annotation)[0], ()) + "[]"
    if isinstance(annotation, type) and issubclass(annotation, ChainStruct):
        return annotation.abi_type()
    if isinstance(annotation, type) and issubclass(annotation, IntEnum):
        return "uint8"
    if annotation is bool:
        return "bool"
    if annotation is str:
        return "string"
    raise TypeError(f"no ABI type for {annotation!r}")


def _lower(value: Any) -> Any:
    if isinstance(value, ChainStruct):
        return value.as_tuple()
    if isinstance(value, tuple):
        return [_lower(item) for item in value]
    if isinstance(value, IntEnum):
        return int(value)
    return value


def _lift(annotation: Any, value: Any) -> Any:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _lift(get_args(annotation)[0], value)
    if origin is tuple:
        return tuple(_lift(get_args(annotation)[0], item) for item in value)
    if isinstance(annotation, type) and issubclass(annotation, ChainStruct):
        return annotation.from_abi(value)
    if isinstance(annotation, type) and issubclass(annotation, IntEnum):
        return annotation(value)
    return value


# -- enums -----------------------------------------------------------------------------------------


class OrderState(IntEnum):
    """Where an order stands (IEscrowBase)."""

    NONE = 0
    OPEN = 1
    REVEALED = 2
    RANGE_CHECK = 3
    SETTLED = 4
    REFUNDED = 5


class Basis(IntEnum):
    """By what right a license is sold (IEscrowBase)."""

    OWNER = 0  # of the model token
    RESALE = 1  # by a license that allows it, which ends
    SUBLICENSE = 2  # by a license that allows it, which stays


class LicenseEnd(IntEnum):
    """How a license ended before its expiry (ILicenseNFT)."""

    NONE = 0
    REVOKED = 1
    SURRENDERED = 2
    RESOLD = 3


class Review(IntEnum):
    """A registrar's decision on a model (IModelNFT)."""

    PENDING = 0
    APPROVED = 1
    REJECTED = 2


class Kind(IntEnum):
    """What a case is about (IMisuseCourt)."""

    NONE = 0
    LEAK = 1
    TERMS = 2
    DISCLOSURE = 3
    UNLICENSED = 4
    UNDECLARED_PARENT = 5
    OWNERSHIP = 6


class Decision(IntEnum):
    """What the committee found (IMisuseCourt)."""

    NONE = 0
    GUILTY = 1
    NOT_GUILTY = 2
    INCONCLUSIVE = 3
    UNAVAILABLE = 4
    UNLICENSED = 5


class CaseState(IntEnum):
    """Where a case stands (IMisuseCourt)."""

    NONE = 0
    OPEN = 1
    POSTED = 2
    SERVING = 3  # the accused asked for the evidence and waits for it
    CHALLENGED = 4
    ESCALATED = 5
    FINAL_GUILTY = 6
    LAPSED = 7
    CLOSED = 8
    DISMISSED = 9
    CLEARED = 10
    EXECUTED = 11


class CanaryState(IntEnum):
    """Where an accusation by a canary stands (IOracleCommittee)."""

    NONE = 0
    ACCUSED = 1
    CONTESTED = 2
    ENDED = 3


class Role(IntEnum):
    """What a member of the committee does (IOracleCommittee)."""

    NONE = 0
    OPERATOR = 1
    FINGERPRINTER = 2


class RefundReason(IntEnum):
    """`reason` of the event OrderRefunded."""

    NO_REVEAL = 1
    WRONG_CHUNK = 2
    RANGE_CLAIM_UPHELD = 3
    RANGE_CLAIM_UNANSWERED = 4


class ChannelPhase(IntEnum):
    """Where a usage channel stands (IUsageChannel)."""

    NONE = 0
    OPEN = 1
    CLOSED = 2


class SubjectKind(IntEnum):
    """What a complaint or a demand is about (IOversight)."""

    MODEL = 0
    LICENSE = 1


class ComplaintOutcome(IntEnum):
    """The regulator's answer to a complaint (IOversight)."""

    PENDING = 0
    UPHELD = 1
    DISMISSED = 2
    REFERRED = 3


class DemandState(IntEnum):
    """Where a demand for disclosure stands (IOversight)."""

    NONE = 0
    OPEN = 1
    ANSWERED = 2
    UNANSWERED = 3


class Use(IntEnum):
    """The six categories of ERC-7517; the value is the place in the preference bits and in `useMask`."""

    DATA_MINING = 0
    AI_INFERENCE = 1
    AI_TRAINING = 2
    AI_GENERATIVE_TRAINING = 3
    AI_TRAINING_WITH_AUTHORSHIP = 4
    AI_GENERATIVE_TRAINING_WITH_AUTHORSHIP = 5


class Preference(IntEnum):
    """What a model's owner says about one category, 2 bits on chain. Not stated is not consent."""

    NOT_STATED = 0
    ALLOWED = 1
    CONSTRAINED = 2
    NOT_ALLOWED = 3


# -- models ----------------------------------------------------------------------------------------


class Preferences(Value):
    """The owner's preference for each ERC-7517 category; 12 bits on chain."""

    data_mining: Preference = Preference.NOT_STATED
    ai_inference: Preference = Preference.NOT_STATED
    ai_training: Preference = Preference.NOT_STATED
    ai_generative_training: Preference = Preference.NOT_STATED
    ai_training_with_authorship: Preference = Preference.NOT_STATED
    ai_generative_training_with_authorship: Preference = Preference.NOT_STATED

    def of(self, use: Use) -> Preference:
        """The preference for one category."""
        value: Preference = getattr(self, use.name.lower())
        return value

    def pack(self) -> int:
        """The 12 bits: category i in bits 2i and 2i+1."""
        return sum(self.of(use) << 2 * use for use in Use)

    @classmethod
    def unpack(cls, bits: int) -> Self:
        """From the 12 bits. Raises BadInput above 2^12."""
        if not 0 <= bits < 1 << 12:
            raise BadInput(f"preference bits {bits:#x} are more than 12 bits")
        return cls(**{use.name.lower(): Preference(bits >> 2 * use & 3) for use in Use})


class Split(ChainStruct):
    """A collaborator's share."""

    account: Address
    bps: U16  # of what is left after platform and ancestors


class Ancestor(ChainStruct):
    """An ancestor model's share."""

    model_id: U64
    bps: U16  # of the gross


class RoyaltyTerms(ChainStruct):
    """Who shares a model's income; fixed at registration."""

    platform_bps: U16
    collaborators: tuple[Split, ...]
    ancestors: tuple[Ancestor, ...]

    def hash(self) -> bytes:
        """`ModelRecord.royalty_hash`."""
        return self.keccak()


class ModelRecord(ChainStruct):
    """What is fixed about a model; the chain keeps its hash."""

    weights_root: Bytes32
    total_bytes: U64
    chunks: U32
    chunk_size: U16
    detector_hash: Bytes32
    trace_key_commit: Bytes32
    range_hash: Bytes32
    royalty_hash: Bytes32 = ZERO32  # the contract fills it in at registration

    def hash(self) -> bytes:
        """The first 24 bytes are what `ModelNFT.recordHashOf` keeps."""
        return self.keccak()


class ParentProof(ChainStruct):
    """Leave to record a parent model: a license of it (`license_id`) or its owner's signed consent."""

    parent_id: U64
    bps: U16
    license_id: U256
    deadline: U40
    signature: HexBytes
    parent_terms: RoyaltyTerms
    parent_record: ModelRecord


class ModelStatus(ChainStruct):
    """What an order is checked against."""

    owner: Address
    preferences: U16
    review: Review
    delisted: bool  # now
    freeze_count: U8
    frozen_until: U40
    delisted_until: U40  # unix seconds, 0: never, or listed again
    sale_nonce: U24


class Model(Value):
    """A registered model: records and royalties (checked against the chain's hashes), status now."""

    model_id: U64
    owner: Address
    versions: tuple[ModelRecord, ...] = Field(min_length=1)  # the first, then those added and approved
    trace_key_commit: Bytes32  # now; the records keep what they were registered with
    royalties: RoyaltyTerms
    status: ModelStatus
    metadata_cid: str  # now: of a version that waits, or was rejected, until the owner states something else
    record_cid: str  # that the version in force was submitted with; names its public files
    registered_block: int
    registered_tx: str

    @property
    def record(self) -> ModelRecord:
        """Of the version in force: the last one approved, or the first."""
        return self.versions[-1]

    @property
    def preferences(self) -> Preferences:
        """The owner's preferences now."""
        return Preferences.unpack(self.status.preferences)


class ModelVersion(Value):
    """Weights of a model with the metadata that they were submitted with, which names their public files."""

    record: ModelRecord
    metadata_cid: str


class TraceKey(Value):
    """A commitment to a model's trace kit and when it counts: from its commitment on, until the next one's."""

    commit: Bytes32
    since: U40
    until: U40  # 0: still


class ReviewItem(Value):
    """Weights that were submitted for review, and what came of it; who reviewed them is None while they wait."""

    model_id: U64
    owner: Address
    weights_root: Bytes32
    metadata_cid: str
    is_version: bool  # of a model that is sold already
    submitted: U40
    submitted_tx: str
    outcome: Review = Review.PENDING
    registrar: Address | None = None
    reason_hash: Bytes32 | None = None
    reviewed: U40 | None = None
    reviewed_tx: str | None = None

    def has_reason(self, text: str) -> bool:
        """Whether this is the text of the reason, of which the chain keeps the hash."""
        return self.reason_hash == keccak(text.encode())


class PreferenceChange(Value):
    """What an owner stated, from when on."""

    preferences: Preferences
    metadata_cid: str
    time: U40
    tx_hash: str


# -- licenses --------------------------------------------------------------------------------------


class TermsFlag(IntFlag):
    """Bits 0-7 of the packed terms."""

    COMMERCIAL = 1
    RESALE = 2
    SUBLICENSE = 4
    DERIVATIVES = 8
    DISCLOSURE_DUTY = 16
    UPDATES = 32


_TERMS_BITS: Final = 92  # the license token keeps its own state in the four above
_MAX_SHARE_BPS: Final = 5_000
_SHARE = Annotated[int, Field(ge=0, le=_MAX_SHARE_BPS)]


class LicenseTerms(Value):
    """What a license allows.

    Packed: flags 0-7 | territory 8-17 | expiry 18-57 | uses 58-63 | derivative's share 64-76 | onward share 77-89 |
    tier 90-91.
    """

    commercial: bool = False
    resale: bool = False
    sublicense: bool = False
    derivatives: bool = False
    disclosure_duty: bool = False
    updates: bool = False  # later versions of the model are owed without a new price
    territory: Annotated[int, Field(ge=0, le=999)] = 0  # ISO 3166-1 numeric, 0 worldwide
    expires_at: U40 = 0  # unix seconds, 0 never
    uses: frozenset[Use] = frozenset()
    derivative_bps: _SHARE = 0  # least part of its gross that a derivative's lineage gives the model
    onward_bps: _SHARE = 0  # part of a resale's or sublicense's price, and of API income, that is the model's
    min_tier: Annotated[int, Field(ge=0, le=3)] = 0  # identity tier that a holder must have when he buys

    def pack(self) -> int:
        """The 96 bits of `Sale.terms`."""
        flags = sum(flag for flag in TermsFlag if getattr(self, str(flag.name).lower()))
        shares = self.derivative_bps << 64 | self.onward_bps << 77 | self.min_tier << 90
        return flags | self.territory << 8 | self.expires_at << 18 | self.use_mask << 58 | shares

    @classmethod
    def unpack(cls, packed: int) -> Self:
        """From the 96 bits. Raises BadInput when a bit is set that means nothing."""
        flags, territory, uses = packed & 0xFF, packed >> 8 & 0x3FF, packed >> 58 & 0x3F
        derivative, onward = packed >> 64 & 0x1FFF, packed >> 77 & 0x1FFF
        whole = 0 <= packed < 1 << _TERMS_BITS and flags <= sum(TermsFlag) and territory <= 999
        if not whole or max(derivative, onward) > _MAX_SHARE_BPS:
            raise BadInput(f"packed terms {packed:#x} have bits that mean nothing")
        named = {str(flag.name).lower(): bool(flags & flag) for flag in TermsFlag}
        return cls(
            territory=territory,
            expires_at=packed >> 18 & (1 << 40) - 1,
            uses=frozenset(use for use in Use if uses >> use & 1),
            derivative_bps=derivative,
            onward_bps=onward,
            min_tier=packed >> 90,
            **named,
        )

    def beyond(self, source: LicenseTerms) -> tuple[str, ...]:
        """Fields that give more, or demand less, than `source`: empty where a holder of it may pass these terms on."""
        rights = [str(flag.name).lower() for flag in TermsFlag if flag is not TermsFlag.DISCLOSURE_DUTY]
        found = [name for name in rights if getattr(self, name) and not getattr(source, name)]
        end, mine = source.expires_at, self.expires_at
        checks = {
            "disclosure_duty": source.disclosure_duty and not self.disclosure_duty,
            "territory": source.territory not in (0, self.territory),
            "expires_at": end != 0 and (mine == 0 or mine > end),
            "uses": bool(self.uses - source.uses),
            "derivative_bps": self.derivative_bps < source.derivative_bps,
            "onward_bps": self.onward_bps < source.onward_bps,
            "min_tier": self.min_tier < source.min_tier,
        }
        return (*found, *(name for name, wrong in checks.items() if wrong))

    @property
    def use_mask(self) -> int:
        """One bit a category."""
        return sum(1 << use for use in self.uses)


class LicenseRecord(ChainStruct):
    """What a case needs of a license; the chain keeps its hash."""

    order_hash: Bytes32
    copy_root: Bytes32
    mark_commit: Bytes32
    terms_hash: Bytes32
    fingerprinter: Address

    def hash(self) -> bytes:
        """What `LicenseNFT.recordHash` keeps."""
        return self.keccak()


class License(Value):
    """A license token as it stands now."""

    license_id: U256
    model_id: U64
    fingerprint: U32
    holder: Address
    terms: LicenseTerms
    record: LicenseRecord
    end: LicenseEnd
    active: bool
    suspended: bool
    offered: bool  # a resale of it is open
    issued_block: int
    issued_tx: str


# -- orders ----------------------------------------------------------------------------------------


class Delivery(ChainStruct):
    """To whom, what and how it is delivered."""

    license_id: U256
    buyer: Address
    fingerprinter: Address
    deposit: U128  # wei, locked from the fingerprinter's stake
    copy_root: Bytes32
    delivery_root: Bytes32
    key_commit: Bytes32  # keccak256(abi.encode(key, licenseId, buyer))
    mark_commit: Bytes32
    total_bytes: U64
    chunks: U32
    chunk_size: U16
    suite: U8
    reveal_window: U32  # seconds
    grace: U32
    complaint_window: U32


class Sale(ChainStruct):
    """What is paid for what."""

    seller: Address
    token: Address = NATIVE
    price: U96
    bond: U96
    terms: U96  # LicenseTerms.pack()
    terms_hash: Bytes32
    request_hash: Bytes32 = ZERO32
    basis: Basis = Basis.OWNER
    sale_nonce: U24
    order_nonce: U64
    open_by: U40
    bond_tail: U32
    source: U256 = 0  # license that is resold or sublicensed


class Order(ChainStruct):
    """One order for one buyer and one prepared copy, signed by seller and fingerprinter, never stored."""

    sale: Sale
    delivery: Delivery

    def hash(self) -> bytes:
        """EIP-712 struct hash; the chain keeps its first 26 bytes."""
        from zhiyi import eip712

        return eip712.order_hash(self)


class SignedOrder(Value):
    """An order with the two signatures that `open` needs."""

    order: Order
    seller_signature: Signature
    fingerprinter_signature: Signature


class Renewal(ChainStruct):
    """Longer life for a license that has not ended; signed by the model's owner, paid at once by the holder."""

    license_id: U256
    seller: Address
    token: Address = NATIVE
    price: U96
    expiry: U40  # the new one, 0 for never
    sale_nonce: U24
    order_nonce: U64
    open_by: U40

    def hash(self) -> bytes:
        """EIP-712 struct hash; `cancel` takes it."""
        from zhiyi import eip712

        return eip712.struct_hash(self)


class ModelSale(ChainStruct):
    """Sale of the model token: copyright transfer. Signed by the owner, who has approved the escrow for the token."""

    model_id: U64
    seller: Address
    buyer: Address = NATIVE  # zero: anyone
    token: Address = NATIVE
    price: U96
    terms_hash: Bytes32  # hash of the contract's text
    sale_nonce: U24
    order_nonce: U64
    open_by: U40

    def hash(self) -> bytes:
        """EIP-712 struct hash; `cancel` takes it."""
        from zhiyi import eip712

        return eip712.struct_hash(self)


class SignedRenewal(Value):
    """A renewal with the owner's signature."""

    renewal: Renewal
    signature: Signature


class SignedModelSale(Value):
    """A sale of the model token with the owner's signature."""

    sale: ModelSale
    signature: Signature


class PrepareFee(ChainStruct):
    """A buyer's prepare fee that waits in the vault; all zero if none."""

    fingerprinter: Address
    fee: U96
    by: U40  # until then the fingerprinter may earn it, then the buyer may take it back
    token_index: U8
    model_id: U64
    paid_at: U40


class OrderStatus(Value):
    """What the escrow keeps of an order."""

    license_id: U256
    state: OrderState
    since: U40  # time of the last transition
    hash: Bytes26  # first 26 bytes of the order hash


class Offer(Value):
    """What a model's owner, or a license's holder, offers to anybody; signed off chain. `terms` become `Sale.terms`."""

    model_id: U64
    seller: Address
    fingerprinter: Address | None = None  # None: any staked fingerprinter
    token: Address = NATIVE
    price: U96
    bond: U96
    terms: LicenseTerms
    terms_hash: Bytes32
    reveal_window: U32 = 3600 * 4
    grace: U32 = 1800
    complaint_window: U32 = 86400
    bond_tail: U32 = 90 * 86400
    valid_until: U40
    nonce: U64
    metadata: str = ""  # CID of more about the offer, or empty
    basis: Basis = Basis.OWNER
    source: U256 = 0  # the seller's license, where it is resold or sublicensed

    @model_validator(mode="after")
    def _has_its_source(self) -> Self:
        if self.basis is Basis.OWNER and self.source:
            raise ValueError("an owner's offer names no source license")
        if self.basis is not Basis.OWNER and model_of_license(self.source) != self.model_id:
            raise ValueError(f"source {self.source} is no license of model {self.model_id}")
        return self


class SignedOffer(Value):
    """An offer with its seller's signature."""

    offer: Offer
    signature: Signature


class CopyRequest(Value):
    """What a buyer asks of a fingerprinter: a copy under this offer, sealed to this delivery key."""

    model_id: U64
    offer_hash: Bytes32
    buyer: Address
    delivery_key: Bytes32  # X25519 public key
    nonce: U64
    prepare_fee: U96 = 0  # at most 5 % of the price
    by: U40  # unix seconds until which the copy is wanted


class SignedRequest(Value):
    """A copy request with its buyer's signature."""

    request: CopyRequest
    signature: Signature


# -- vault -----------------------------------------------------------------------------------------


class Bond(ChainStruct):
    """A license's misuse bond."""

    amount: U96
    price: U96
    open_cases: U16
    release_requested_at: U40
    token_index: U8


class Stake(ChainStruct):
    """An operator's or fingerprinter's stake."""

    staked: U120
    locked: U120
    may_lock: bool = False  # orders may lock deposits from it


class Royalty(ChainStruct):
    """What sales and slashes brought a model in one token, and what of it the vault still holds."""

    gross: U128  # never falls
    balance: U128  # own and inherited income that nobody has pulled


# -- usage channels --------------------------------------------------------------------------------


class Channel(ChainStruct):
    """Who pays whom for the use of a model, fixed at opening; its hash with the contract is the channel's id."""

    payer: Address
    provider: Address  # the model's owner, or the holder of `license_id`
    signer: Address  # of vouchers: the payer's API key
    token: Address = NATIVE
    amount: U96  # locked at opening
    expiry: U40  # like a close request of that time
    model_id: U64
    license_id: U256 = 0  # 0: the owner provides
    salt: Bytes32


class ChannelState(ChainStruct):
    """The moving part of a channel."""

    deposited: U96  # all that was locked
    redeemed: U96  # all that was paid out on vouchers
    closes_at: U40  # 0: the payer did not ask
    onward_bps: U16  # of the income, to the model
    phase: ChannelPhase


class ChannelInfo(Value):
    """A channel as it stands now."""

    channel_id: Bytes32
    channel: Channel
    state: ChannelState
    opened_tx: str

    @property
    def left(self) -> int:
        """What vouchers can still bring."""
        return self.state.deposited - self.state.redeemed


class Voucher(ChainStruct):
    """What the channel's signer owes in all since the opening. A later voucher replaces an earlier one."""

    channel_id: Bytes32
    cumulative: U96


class SignedVoucher(Value):
    """A voucher with its signature; only its provider needs to see it."""

    voucher: Voucher
    signature: Signature


# -- identity --------------------------------------------------------------------------------------


class Attestation(ChainStruct):
    """What an issuer signs about an account. No personal data: the claim is a salted hash."""

    issuer: Address
    subject: Address
    claim_hash: Bytes32
    tier: Annotated[U8, Field(ge=1, le=3)]
    expiry: U40  # unix seconds; counts until the second before
    nonce: U64
    deadline: U40  # recorded then at the latest


class SignedAttestation(Value):
    """An attestation with its issuer's signature; its subject records it."""

    attestation: Attestation
    signature: Signature


class IdentityStatus(Value):
    """What an account recorded last, and the tier that counts now."""

    account: Address
    tier: U8
    issuer: Address  # zero: none
    attested_tier: U8
    expiry: U40
    claim_hash: Bytes32


# -- oversight -------------------------------------------------------------------------------------


class RegulatorAct(Value):
    """Something that the regulator did to a model, with its reason's hash."""

    act: str  # the event: ModelFrozen, FreezeLifted, ModelDelisted
    model_id: U64
    by: Address
    until: U40  # unix seconds; 0: lifted, or listed again
    reason_hash: Bytes32
    time: U40
    tx_hash: str


class Pause(Value):
    """A pause that is running."""

    what: Literal["opening", "posting"]  # of orders, of verdicts
    by: Address
    until: U40  # unix seconds


class Complaint(Value):
    """A complaint and what became of it."""

    complaint_id: U64
    kind: SubjectKind
    subject_id: U256
    complainant: Address
    evidence_hash: Bytes32  # salted
    evidence_cid: str  # empty: none was named
    filed_at: U40
    answer_due: U40
    outcome: ComplaintOutcome
    overdue: bool


class Demand(Value):
    """A regulator's demand for disclosure and what became of it."""

    demand_id: U64
    kind: SubjectKind
    subject_id: U256
    addressee: Address
    reason_hash: Bytes32
    answer_by: U40
    state: DemandState
    answer_cid: str  # empty: no answer


class ListedToken(Value):
    """An ERC-20 token that orders may be paid in, or could be before it was taken off the list."""

    token: Address
    index: U8
    listed: bool


# -- committee and cases ---------------------------------------------------------------------------


class Member(ChainStruct):
    """A member of the committee, as the contract keeps it."""

    role: Role
    signer: Address
    exit_at: U40  # 0: not leaving
    encryption_key: Bytes32


class MemberInfo(Value):
    """A member with what its last event said."""

    account: Address
    member: Member
    url: str


class Epoch(Value):
    """A committee: its signers in seat order and how many must sign."""

    number: U64
    signers: tuple[Address, ...]
    threshold: U8

    @model_validator(mode="after")
    def _sane(self) -> Self:
        if len(self.signers) > 31 or not 0 < self.threshold <= len(self.signers):
            raise ValueError(f"threshold {self.threshold} of {len(self.signers)} signers")
        return self

    def seat(self, signer: str) -> int:
        """The seat of a signer. Raises NotFound-like BadInput when it has none."""
        try:
            return self.signers.index(to_address(signer))
        except ValueError as exc:
            raise BadInput(f"{signer} has no seat in epoch {self.number}") from exc


class OracleParams(Value):
    """What a deployment fixed for the committee. Seconds, wei."""

    min_threshold: U8
    max_seats: int
    min_operator_stake: U256
    min_fingerprinter_stake: U256
    stake_reserve: U128  # part of every stake that no deposit may lock
    announce_delay: U40  # between the announcement of an epoch and its activation
    overlap: U40  # for which an epoch that was replaced counts on
    exit_delay: U40  # between the wish to leave and the stake's return


class CourtParams(Value):
    """What a deployment fixed for cases. Seconds, wei, basis points."""

    appeal_authority: Address  # rules on challenged verdicts
    last_instance: Address  # rules where the authority is silent
    min_report_bond: U96  # doubled for each case open on the license and, for LEAK, each share spent
    fee_bps: U16  # of the reporter's bond, to the signers of a verdict
    post_window: U40  # from opening to the last moment for a verdict
    challenge_window: U40  # its first third belongs to the accused alone
    ruling_window: U40
    last_window: U40
    mark_age: U40  # a license must be older than a LEAK case against it
    reporter_bps: U16  # of a slash, to the reporter
    slash_bps: tuple[U16, ...]  # of the original bond, for buckets 12, 20, 40
    challenge_bond: U96
    missed_share_penalty: U96


class CaseFile(ChainStruct):
    """A case as it was opened; its hash is the case id."""

    kind: Kind
    model_id: U64
    license_id: U256
    reporter: Address
    accused: Address
    bond: U96
    evidence_hash: Bytes32
    evidence_digest: Bytes32
    epoch: U64
    authority: Address
    opened_at: U40
    post_by: U40

    def hash(self) -> bytes:
        """The case id."""
        return self.keccak()


class Verdict(ChainStruct):
    """What the committee signs about a case."""

    case_id: Bytes32
    license_id: U256
    kind: Kind
    decision: Decision
    evidence_hash: Bytes32
    subject: Bytes32
    detector_hash: Bytes32
    share_index: U8  # 255 where no confirm share was used
    samples: U32
    bucket: U8  # -log10 p_global rounded down to 0, 12, 20 or 40
    epoch: U64
    deadline: U40

    def hash(self) -> bytes:
        """EIP-712 struct hash."""
        from zhiyi import eip712

        return eip712.struct_hash(self)


class SignedVerdict(Value):
    """A verdict with one operator's signature."""

    verdict: Verdict
    signature: Signature


class Canary(ChainStruct):
    """What a committed test case expects, with its path under the root."""

    root: Bytes32
    salt: Bytes32
    decision: Decision
    bucket: U8
    samples: U32
    path: tuple[Bytes32, ...]


class CanaryAccusation(Value):
    """Where an operator's accusation by a canary stands."""

    account: Address
    case_id: Bytes32
    state: CanaryState
    until: U40  # court time: last second to contest, or to rule


class RangeVerdict(ChainStruct):
    """What the committee signs about a range claim."""

    license_id: U256
    order_hash: Bytes32
    upheld: bool
    epoch: U64
    deadline: U40


class SignedRangeVerdict(Value):
    """An answer to a range claim with one operator's signature."""

    verdict: RangeVerdict
    signature: Signature


class ParentConsent(ChainStruct):
    """What a parent model's owner signs to let a child record it."""

    parent_id: U64
    weights_root: Bytes32
    registrant: Address
    bps: U16
    deadline: U40


class SignerPossession(ChainStruct):
    """What a signer key signs so that `account` may register it with the committee."""

    account: Address
    deadline: U40  # unix seconds


class ProvenSigner(Value):
    """A signer key with its word that it is the account's."""

    signer: Address
    possession: SignerPossession
    signature: Signature


class SignedConsent(Value):
    """A parent's owner's consent with the signature."""

    consent: ParentConsent
    signature: Signature


class OpenedShare(Value):
    """A confirm share that the fingerprinter opened for a case."""

    case_id: Bytes32
    license_id: U256
    index: U8
    seed: Bytes32
    base_cid: str


class PostedVerdict(Value):
    """The verdict of a case with who signed it."""

    verdict: Verdict
    bitmap: U32
    challenge_until: U40


class CaseDefence(Value):
    """What the accused of a case has done, and what was done for him."""

    service_key: Bytes32 | None  # X25519 key to which he asked for the evidence
    served_cid: str  # empty: not served
    filed_cids: tuple[str, ...]
    chunk_opened: bool
    cure_by: U40  # court time; 0: nothing to cure


class Case(Value):
    """A case: how it was opened and where it stands now."""

    case_id: Bytes32
    file: CaseFile
    evidence_cid: str
    state: CaseState
    decision: Decision
    until: U40  # end of the current window
    share_index: U8
    share: OpenedShare | None
    posted: PostedVerdict | None
    challenger: Address | None
    unpaid_seats: tuple[int, ...]  # signed the verdict and have not been paid
    held: bool  # the case holds the license's bond
    opened_block: int
    opened_tx: str
