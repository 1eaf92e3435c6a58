"""Every signature that any contract takes, with the call that brings it: to be made wrongly in every way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import Any

from busy_stage import ATTESTATION_TYPE, CONSENT_TYPE, POSSESSION_TYPE, VOUCHER_TYPE, Busy, typed
from courtroom import Decision
from market import DAY, ETHER, sha
from stage_play import FAR
from walk_stage import (
    ORDER_TYPE,
    TEXT,
    VERDICT_TYPE,
    ModelSale,
    RangeVerdict,
    Renewal,
    order_hash,
    struct_hash,
    verdict_hash,
)

Call = tuple[str, str, tuple[Any, ...], str, int]  # contract, function, arguments, sender, value


@dataclass(frozen=True)
class SignedCall:
    """One use of one kind of signature."""

    name: str
    contract: str  # whose domain it is under
    type: str  # EIP-712 encodeType
    hash: bytes  # of the struct
    signers: tuple[str, ...]  # whose signatures, joined, the call takes
    call: Callable[[bytes], Call]
    errors: tuple[str, ...]  # of a signature that does not count
    again: tuple[str, ...]  # errors of the same call a second time; none: it succeeds and changes nothing
    others: dict[str, bytes]  # what the same signers may sign besides: struct hashes that are of no use here
    wallets: bool = False  # a contract may be the signer (ERC-1271)

    @property
    def function(self) -> str:
        contract, function, *_ = self.call(b"")
        return f"{contract}.{function}"


def signed_calls(busy: Busy) -> list[SignedCall]:
    return [
        *of_orders(busy), *of_sales(busy), *of_verdicts(busy), *of_misconduct(busy), *of_people(busy)
    ]  # fmt: skip


def of_orders(busy: Busy) -> list[SignedCall]:
    play, stage, escrow = busy.play, busy.stage, "LicenseEscrow"
    order = play.order(token=stage.token.address)
    passed = play.order(requestHash=busy.request, openBy=stage.time - 1)
    seller, fingerprinter = stage.signed(order, "anna", "fred")
    others = {
        "another order": order_hash(play.order(token=stage.token.address)),
        "another buyer": order_hash(order.with_(buyer=play.address("kim"))),
        "another price": order_hash(order.with_(price=1)),
        "another copy": order_hash(order.with_(copyRoot=TEXT)),
        "another key": order_hash(order.with_(keyCommit=TEXT)),
        "other terms": order_hash(order.with_(termsHash=bytes(32))),
    }

    def of(name: str, signer: str, call: Callable[[bytes], Call]) -> SignedCall:
        return SignedCall(
            name,
            escrow,
            ORDER_TYPE,
            order_hash(order),
            (signer,),
            call,
            ("BadSignature",),
            ("WrongState",),
            others,
            True,
        )

    return [
        of(
            "order, by the seller", "anna",
            lambda s: (escrow, "open", (order.as_tuple(), s, fingerprinter), "emma", 0),
        ),
        of(
            "order, by the fingerprinter", "fred",
            lambda s: (escrow, "open", (order.as_tuple(), seller, s), "emma", 0),
        ),
        of(
            "order with a permit, by the seller", "anna",
            lambda s: (
                escrow, "openWithPermit", (order.as_tuple(), s, fingerprinter, FAR, 27, TEXT, TEXT), "emma", 0,
            ),
        ),
        SignedCall(
            "order that was let pass", escrow, ORDER_TYPE, order_hash(passed), ("anna",),
            lambda s: (escrow, "earnPrepareFee", (passed.as_tuple(), s), "sam", 0),
            ("BadSignature",), ("RequestUnknown",),
            {"another request": order_hash(passed.with_(requestHash=TEXT))}, True,
        ),
    ]  # fmt: skip


def of_sales(busy: Busy) -> list[SignedCall]:
    play, stage, escrow = busy.play, busy.stage, "LicenseEscrow"
    renewal, sale = busy.renewal(busy.orders["expiring"]), busy.model_sale()
    parent = stage.models[play.model]
    new = replace(parent.record, weightsRoot=sha(b"child"), royaltyHash=bytes(32))
    sam, other_license = play.address("sam"), busy.orders["guilty"].delivery.licenseId

    def consent(model: int = play.model, root: bytes = new.weightsRoot, to: str = sam, bps: int = 9) -> bytes:
        return typed(CONSENT_TYPE, model, root, to, bps, FAR)

    def child(signature: bytes) -> Call:
        proof = (play.model, 9, 0, FAR, signature, parent.shares, astuple(parent.record))
        return "ModelNFT", "register", (astuple(new), bytes(32), 0, [], [proof]), "sam", 0

    return [
        SignedCall(
            "renewal", escrow, Renewal.TYPE, struct_hash(renewal), ("anna",),
            lambda s: (escrow, "renew", (astuple(renewal), s), "emma", renewal.price),
            ("BadSignature",), ("NotLonger",),
            {
                "another license": struct_hash(replace(renewal, licenseId=other_license)),
                "another price": struct_hash(replace(renewal, price=8)),
                "another time": struct_hash(replace(renewal, expiry=renewal.expiry + DAY)),
            },
            True,
        ),
        SignedCall(
            "sale of the model", escrow, ModelSale.TYPE, struct_hash(sale), ("anna",),
            lambda s: (escrow, "buyModel", (astuple(sale), parent.shares, s), "emma", ETHER),
            ("BadSignature",), ("NotTheOwner",),
            {
                "another model": struct_hash(replace(sale, modelId=play.model + 1)),
                "another buyer": struct_hash(replace(sale, buyer=sam)),
                "another price": struct_hash(replace(sale, price=2 * ETHER)),
            },
            True,
        ),
        SignedCall(
            "consent of a parent", "ModelNFT", CONSENT_TYPE, consent(), ("anna",), child,
            ("ParentNotAgreed",), ("RootAlreadyRegistered",),
            {
                "another parent": consent(model=play.model + 1),
                "another child": consent(root=TEXT),
                "another owner": consent(to=play.address("kim")),
                "another share": consent(bps=8),
            },
            True,
        ),
    ]  # fmt: skip


def of_verdicts(busy: Busy) -> list[SignedCall]:
    """Of the committee of the epoch."""
    play, stage, court = busy.play, busy.stage, "MisuseCourt"
    operators = tuple(stage.names[operator.address] for operator in stage.operators[:3])
    seats, errors = [operator.address for operator in stage.operators], ("BadSigner", "SignaturesMalformed")
    claimed = busy.orders["claimed"]
    answer = RangeVerdict(claimed.delivery.licenseId, order_hash(claimed), True, 1, FAR)
    file, suspended = busy.files["open"], busy.files["suspended"]
    verdict, cure = play.verdict(file, Decision.NOT_GUILTY), busy.cure()
    return [
        SignedCall(
            "answer to a range claim", "LicenseEscrow", RangeVerdict.TYPE, struct_hash(answer), operators,
            lambda s: (
                "LicenseEscrow", "resolveRange", (claimed.as_tuple(), True, 1, FAR, seats, 0b111, s), "sam", 0,
            ),
            errors, ("WrongState",),
            {
                "another claim": struct_hash(answer._replace(licenseId=busy.orders["wrong"].delivery.licenseId)),
                "another order": struct_hash(answer._replace(orderHash=TEXT)),
                "the contrary": struct_hash(answer._replace(upheld=False)),
                "another epoch": struct_hash(answer._replace(epoch=2)),
                "another time": struct_hash(answer._replace(deadline=FAR - 1)),
            },
        ),
        SignedCall(
            "verdict", court, VERDICT_TYPE, verdict_hash(verdict), operators,
            lambda s: (court, "postVerdict", (file.as_tuple(), verdict.as_tuple(), seats, 0b111, s), "sam", 0),
            errors, ("WrongCaseState",),
            {
                "another case": verdict_hash(replace(verdict, case_id=busy.files["canary"].id)),
                "the contrary": verdict_hash(replace(verdict, decision=Decision.GUILTY)),
                "another epoch": verdict_hash(replace(verdict, epoch=2)),
                "other evidence": verdict_hash(replace(verdict, evidence_hash=TEXT)),
            },
        ),
        SignedCall(
            "verdict that cures", court, VERDICT_TYPE, verdict_hash(cure), operators,
            lambda s: (court, "cure", (suspended.as_tuple(), cure.as_tuple(), seats, 0b111, s), "sam", 0),
            errors, ("WrongCaseState",),
            {
                "the case itself": verdict_hash(replace(cure, case_id=suspended.id)),
                "another case": verdict_hash(replace(cure, case_id=TEXT)),
                "another epoch": verdict_hash(replace(cure, epoch=2)),
            },
        ),
    ]  # fmt: skip


def of_misconduct(busy: Busy) -> list[SignedCall]:
    """Signatures that cost who gave them."""
    play, stage, committee = busy.play, busy.stage, "OracleCommittee"
    operator = stage.names[stage.operators[0].address]
    file, canary = busy.files["open"], busy.files["canary"]
    verdict, wrong = play.verdict(file, Decision.NOT_GUILTY), play.verdict(canary)
    other = replace(verdict, decision=Decision.INCONCLUSIVE)
    first = stage.people[operator].sign(stage.digest("MisuseCourt", verdict_hash(other)))
    order, twin = busy.orders["opened"], busy.orders["opened"].with_(copyRoot=b"\x01" * 32)
    (signed,) = stage.signed(order, "fred")
    return [
        SignedCall(
            "verdict that contradicts another", "MisuseCourt", VERDICT_TYPE, verdict_hash(verdict), (operator,),
            lambda s: (committee, "proveEquivocation", (verdict.encoded(), s, other.encoded(), first), "sam", 0),
            ("NotEquivocation",), ("NotEquivocation",),
            {
                "another case": verdict_hash(replace(verdict, case_id=canary.id)),
                "another epoch": verdict_hash(replace(verdict, epoch=2)),
            },
        ),
        SignedCall(
            "verdict on a canary", "MisuseCourt", VERDICT_TYPE, verdict_hash(wrong), (operator,),
            lambda s: (
                committee, "accuseCanary", (canary.as_tuple(), wrong.as_tuple(), s, busy.canary), "sam", 0,
            ),
            ("NotAnOperator",), ("WrongCanaryState",),
            {
                "what was expected": verdict_hash(replace(wrong, decision=Decision.NOT_GUILTY, bucket=0)),
                "another case": verdict_hash(replace(wrong, case_id=file.id)),
            },
        ),
        SignedCall(
            "second copy under one license id", "LicenseEscrow", ORDER_TYPE, order_hash(twin), ("fred",),
            lambda s: (
                committee, "proveDoubleCopy", (order.as_tuple(), signed, twin.as_tuple(), s), "sam", 0,
            ),
            ("NotADoubleCopy",), (),
            {"the first": order_hash(order), "another order": order_hash(twin.with_(licenseId=7))}, True,
        ),
    ]  # fmt: skip


def of_people(busy: Busy) -> list[SignedCall]:
    play, stage, committee = busy.play, busy.stage, "OracleCommittee"
    operator, gina = stage.names[stage.operators[0].address], play.address("gina")
    issuer, subject, claim, tier, expiry, nonce, deadline = busy.attestation()
    channel = play.view("UsageChannel", "channelIdOf", busy.channel)
    return [
        SignedCall(
            "possession of a signer key", committee, POSSESSION_TYPE, busy.possession("sam"), ("gina",),
            lambda s: (
                committee, "join",
                (1, gina, b"\x01" * 32, 10 * ETHER, "https://sam.example", FAR, s), "sam", 0,
            ),
            ("NotInPossession",), ("AlreadyMember",),
            {
                "another account": busy.possession("kim"),
                "another time": typed(POSSESSION_TYPE, play.address("sam"), FAR - 1),
            },
        ),
        SignedCall(
            "possession of a new signer key", committee, POSSESSION_TYPE, busy.possession(operator), ("gina",),
            lambda s: (committee, "update", (gina, b"\x02" * 32, "https://o.example", FAR, s), operator, 0),
            ("NotInPossession",), (), {"another account": busy.possession("kim")},
        ),
        SignedCall(
            "attestation", "IdentityRegistry", ATTESTATION_TYPE, typed(ATTESTATION_TYPE, *busy.attestation()), ("kim",),
            lambda s: ("IdentityRegistry", "attest", (busy.attestation(), s), "emma", 0),
            ("AttestationUnsigned",), ("WrongNonce",),
            {
                "somebody else": typed(ATTESTATION_TYPE, issuer, issuer, claim, tier, expiry, nonce, deadline),
                "another tier": typed(ATTESTATION_TYPE, issuer, subject, claim, 1, expiry, nonce, deadline),
                "a later number": typed(ATTESTATION_TYPE, issuer, subject, claim, tier, expiry, 1, deadline),
            },
            True,
        ),
        SignedCall(
            "voucher", "UsageChannel", VOUCHER_TYPE, busy.voucher(9), ("emma",),
            lambda s: ("UsageChannel", "redeem", (busy.channel, 9, s), "sam", 0),
            ("VoucherUnsigned",), ("VoucherTooSmall",),
            {
                "another channel": typed(VOUCHER_TYPE, TEXT, 9),
                "less": typed(VOUCHER_TYPE, channel, 8),
            },
            True,
        ),
    ]  # fmt: skip
