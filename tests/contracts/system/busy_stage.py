"""A stage where everything is under way, and a tour through every function that somebody may call."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any

from courtroom import CaseFile, Decision, Kind, Verdict
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from market import DAY, ETHER, NATIVE, Order, Review, sha, terms
from reference_books import COMMERCIAL, DISCLOSURE, RESALE, SUBLICENSE
from stage_play import FAR, Play, copy_path
from walk_stage import (
    PARCELS,
    TEXT,
    ModelSale,
    RangeVerdict,
    Renewal,
    Stage,
    order_hash,
    struct_hash,
    verdict_hash,
)

ATTESTATION_TYPE = (
    "Attestation(address issuer,address subject,bytes32 claimHash,uint8 tier,uint40 expiry,uint64 nonce,"
    "uint40 deadline)"
)
VOUCHER_TYPE = "Voucher(bytes32 channelId,uint96 cumulative)"
POSSESSION_TYPE = "SignerPossession(address account,uint40 deadline)"
CONSENT_TYPE = (
    "ParentConsent(uint64 parentId,bytes32 weightsRoot,address registrant,uint16 bps,uint40 deadline)"
)
CANARY_EVIDENCE, CANARY_SALT = b"\xca" * 32, b"\x5a" * 32
CANARY = keccak(
    encode(
        ["bytes32", "bytes32", "bytes32", "uint8", "uint8", "uint32"],
        [keccak(text="zhiyi.canary.v1"), CANARY_SALT, CANARY_EVIDENCE, int(Decision.NOT_GUILTY), 0, 65_536],
    )
)
RIGHTS = terms(flags=COMMERCIAL | RESALE | SUBLICENSE | DISCLOSURE)


@dataclass(repr=False)
class Busy:
    """What is under way."""

    play: Play
    orders: dict[str, Order]
    files: dict[str, CaseFile]
    channel: tuple[Any, ...]
    request: bytes

    def __repr__(self) -> str:
        return "busy"  # hypothesis would print all of it

    @property
    def stage(self) -> Stage:
        return self.play.stage

    # ---------------------------------------------------------------- what people sign

    def renewal(self, order: Order, **changes: Any) -> Renewal:
        expiry = order.sale.terms >> 18 & 2**40 - 1
        anna = self.play.address("anna")
        base = Renewal(order.delivery.licenseId, anna, NATIVE, 7, expiry + DAY, 0, 0, FAR)
        return replace(base, **changes)

    def model_sale(self, **changes: Any) -> ModelSale:
        play = self.play
        base = ModelSale(
            play.model, play.address("anna"), play.address("emma"), NATIVE, ETHER, TEXT, 0, 0, FAR
        )
        return replace(base, **changes)

    def signed(self, value: Any, name: str) -> bytes:
        return self.stage.people[name].sign(self.stage.digest("LicenseEscrow", struct_hash(value)))

    def range_answer(self, order: Order, upheld: bool = True) -> tuple[Any, ...]:
        verdict = RangeVerdict(order.delivery.licenseId, order_hash(order), upheld, 1, FAR)
        signed = self.stage.committee_signs(
            self.stage.digest("LicenseEscrow", struct_hash(verdict)), [0, 1, 2]
        )
        return (upheld, 1, FAR, *signed)

    def attestation(self) -> tuple[Any, ...]:
        play = self.play
        return (play.address("kim"), play.address("emma"), b"\x0c" * 32, 2, FAR, 0, FAR)

    def voucher(self, cumulative: int) -> bytes:
        return typed(VOUCHER_TYPE, self.play.view("UsageChannel", "channelIdOf", self.channel), cumulative)

    def possession(self, account: str) -> bytes:
        return typed(POSSESSION_TYPE, self.play.address(account), FAR)

    def cure(self, **changes: Any) -> Verdict:
        """What ends the suspension."""
        file = self.files["suspended"]
        verdict = self.play.verdict(file, Decision.NOT_GUILTY, share_index=255)
        return replace(verdict, case_id=self.play.view("MisuseCourt", "cureIdOf", file.id), **changes)

    @property
    def canary(self) -> tuple[Any, ...]:
        return (CANARY, CANARY_SALT, int(Decision.NOT_GUILTY), 0, 65_536, [])


def typed(kind: str, *values: Any) -> bytes:
    """EIP-712 hash of a flat struct."""
    types = [member.split(" ")[0] for member in kind[kind.index("(") + 1 : -1].split(",")]
    return keccak(encode(["bytes32", *types], [keccak(text=kind), *values]))


def make_busy(play: Play) -> Busy:
    """Orders in every state, cases before and after their verdicts, a fee, a channel, a complaint, a demand."""
    end = play.now + 300 * DAY
    play.send("OracleCommittee", "commitCanaries", 1, CANARY, by="admin")
    orders = {
        name: play.buy(terms=RIGHTS)
        for name in ("guilty", "challenged", "convicted", "innocent", "suspended")
    }
    orders["silent"] = play.buy(terms=RIGHTS, token=play.stage.token.address)
    orders["expiring"] = play.buy(terms=RIGHTS | end << 18)
    orders["ended"] = play.buy()
    ended = orders["ended"].delivery.licenseId
    play.send("LicenseNFT", "surrender", ended, by="emma")
    play.send("LicenseEscrow", "requestBondRelease", ended, by="emma")
    play.wait(8 * DAY)
    files = {name: play.guilty_leak(orders[name]) for name in ("guilty", "challenged", "convicted")}
    play.court("challenge", files["challenged"], by="emma")
    files["innocent"] = play.accuse(orders["innocent"], Kind.TERMS)
    play.post(files["innocent"], Decision.NOT_GUILTY, samples=4)
    play.past(files["convicted"])
    play.court("finalize", files["convicted"])
    files["suspended"] = play.accuse(orders["suspended"], Kind.DISCLOSURE)
    play.post(files["suspended"], share_index=255)
    request = b"\x0e" * 32
    fee = (request, play.model, play.address("fred"), NATIVE, 5, play.now + 20 * DAY)
    play.send("LicenseEscrow", "payPrepareFee", *fee, by="emma", value=5)
    emma, anna = play.address("emma"), play.address("anna")
    channel = (emma, anna, emma, NATIVE, ETHER, play.now + 50 * DAY, play.model, 0, bytes(32))
    play.send("UsageChannel", "open", channel, by="emma")
    play.send("IdentityRegistry", "setIssuer", play.address("kim"), 2, by="admin")
    play.send("Oversight", "fileComplaint", 0, play.model, TEXT, TEXT, by="emma")
    play.send("Oversight", "demandDisclosure", 0, play.model, TEXT, play.now + 5 * DAY, by="last")
    files["silent"] = play.accuse(orders["silent"])
    for name in ("opened", "refunded"):
        orders[name] = play.order()
        play.open(orders[name])
    orders["revealed"], orders["claimed"] = play.revealed(), play.revealed()
    orders["wrong"] = play.revealed(parcel=PARCELS[1])
    play.on(orders["claimed"], "rangeClaim", bytes(32), by="emma", value=orders["claimed"].sale.price // 10)
    files["open"] = play.accuse(orders["innocent"], Kind.TERMS, bond=2 * ETHER)
    files["canary"] = play.accuse(orders["innocent"], Kind.TERMS, bond=4 * ETHER, evidence=CANARY_EVIDENCE)
    play.send("ModelNFT", "approve", play.stage.faces["LicenseEscrow"].address, play.model, by="anna")
    return Busy(play, orders, files, channel, request)


def tour(busy: Busy) -> None:
    """Everything once, by whom it is meant for, to be replayed by others; the chain is as before after it."""
    for part in (tour_of_defences, tour_of_misconduct):
        with busy.play.undone():
            part(busy)
    with busy.play.undone():
        tour_of_models(busy)
        tour_of_the_market(busy)
        tour_of_people(busy)
        tour_of_the_court(busy)


def tour_of_defences(busy: Busy) -> None:
    play, f, parcel = busy.play, busy.files, PARCELS[None]
    operator = busy.stage.names[busy.stage.operators[1].address]
    record = play.record(busy.orders["challenged"]).as_tuple()
    play.court("requestService", f["challenged"], TEXT, by="emma")
    play.court("serve", f["challenged"], 1, TEXT, by=operator)
    play.court(
        "openChunk",
        f["challenged"],
        record,
        len(parcel.chunks),
        1,
        parcel.chunks[1],
        copy_path(parcel, 1),
        by="emma",
    )
    play.court("ruleFault", f["challenged"], record, by="arbiter")
    cure = busy.cure()
    signed = busy.stage.committee_signs(busy.stage.digest("MisuseCourt", verdict_hash(cure)), [0, 1, 2])
    play.court("cure", f["suspended"], cure.as_tuple(), *signed, by="emma")
    sold = busy.orders["suspended"].delivery.licenseId
    play.send("MisuseCourt", "reportDisclosureDisabled", sold, TEXT, TEXT, ETHER, by="hugo")
    fresh = play.accuse(None, Kind.OWNERSHIP)
    play.post(fresh)
    play.court("requestService", fresh, TEXT, by="anna")
    play.wait(2 * DAY)
    play.court("clearUnserved", fresh)


def tour_of_misconduct(busy: Busy) -> None:
    play, stage, committee, file = busy.play, busy.stage, "OracleCommittee", busy.files["canary"]
    wrong = play.verdict(file)
    one, two = stage.operators[:2]
    for operator in (one, two):
        signature = operator.sign(stage.digest("MisuseCourt", verdict_hash(wrong)))
        play.send(
            committee, "accuseCanary", file.as_tuple(), wrong.as_tuple(), signature, busy.canary, by="sam"
        )
    play.send(committee, "contestCanary", file.id, TEXT, by=stage.names[one.address])
    play.send(committee, "ruleCanary", one.address, file.id, True, by="arbiter")
    verdicts = [replace(wrong, decision=decision) for decision in (Decision.GUILTY, Decision.NOT_GUILTY)]
    told = [(v.encoded(), one.sign(stage.digest("MisuseCourt", verdict_hash(v)))) for v in verdicts]
    play.send(committee, "proveEquivocation", *told[0], *told[1], by="sam")
    copies = [busy.orders["opened"], busy.orders["opened"].with_(copyRoot=TEXT)]
    shown = [part for order in copies for part in (order.as_tuple(), stage.signed(order, "fred")[0])]
    play.send(committee, "proveDoubleCopy", *shown, by="sam")
    play.wait(30 * DAY)
    play.send(committee, "endCanary", two.address, file.id, by="sam")


def tour_of_models(busy: Busy) -> None:
    play, send, model = busy.play, busy.play.send, busy.play.model
    anna, sam, old = play.address("anna"), play.address("sam"), busy.stage.models[busy.play.model].record
    new = replace(old, weightsRoot=sha(b"second version"))
    send("ModelNFT", "setPreferences", model, 3, TEXT, by="anna")
    send("ModelNFT", "setPreferences", model, 0, TEXT, by="anna")
    send("ModelNFT", "rotateTraceKey", model, b"\x0a" * 32, by="anna")
    send("ModelNFT", "addVersion", model, astuple(old), astuple(new), TEXT, by="anna")
    send("ModelNFT", "review", model, new.weightsRoot, int(Review.APPROVED), TEXT, by="arbiter")
    send("ModelNFT", "freeze", model, play.now + DAY, TEXT, by="last")
    send("ModelNFT", "lift", model, TEXT, by="last")
    send("ModelNFT", "delist", model, play.now // DAY + 3, TEXT, by="last")
    send("ModelNFT", "delist", model, 0, TEXT, by="last")
    send("ModelNFT", "setContractURI", "ipfs://other", by="admin")
    send("ModelNFT", "setApprovalForAll", sam, True, by="anna")
    send("ModelNFT", "approve", sam, model, by="anna")
    send("ModelNFT", "transferFrom", anna, sam, model, by="sam")
    send("ModelNFT", "safeTransferFrom", sam, anna, model, by="sam")
    shares = busy.stage.models[model].shares
    for function, index in (("pullPlatform", ()), ("pullCollaborator", (0,)), ("pullOwner", ())):
        send("RoyaltyLedger", function, model, NATIVE, *index, shares, by="sam")


def tour_of_the_market(busy: Busy) -> None:
    play, send, o = busy.play, busy.play.send, busy.orders
    escrow, token = "LicenseEscrow", busy.stage.token.address
    send(escrow, "depositToken", token, ETHER, play.address("emma"), by="emma")
    send(escrow, "withdraw", token, 7, play.address("emma"), by="emma")
    send(escrow, "withdraw", NATIVE, 7, play.address("emma"), by="emma")
    renewal = busy.renewal(o["expiring"], saleNonce=2)
    send(escrow, "renew", astuple(renewal), busy.signed(renewal, "anna"), by="emma", value=7)
    permitted = play.order(token=token, saleNonce=2)
    signed = busy.stage.signed(permitted, "anna", "fred")
    send(escrow, "openWithPermit", permitted.as_tuple(), *signed, FAR, 27, TEXT, TEXT, by="emma")
    play.accept(o["revealed"])
    play.complain(o["wrong"])
    play.on(o["claimed"], "resolveRange", *busy.range_answer(o["claimed"]))
    send(escrow, "cancel", b"\x0b" * 32, by="anna")
    sale = busy.model_sale(saleNonce=2)
    send("ModelNFT", "approve", busy.stage.faces[escrow].address, play.model, by="anna")
    shares = busy.stage.models[play.model].shares
    send(escrow, "buyModel", astuple(sale), shares, busy.signed(sale, "anna"), by="emma", value=ETHER)
    send("ModelNFT", "transferFrom", play.address("emma"), play.address("anna"), play.model, by="emma")
    send(escrow, "pauseOpening", play.now + DAY, by="pauser")
    send(escrow, "resumeOpening", by="pauser")
    send(escrow, "listToken", token, False, by="admin")
    send("LicenseNFT", "approve", play.address("sam"), o["guilty"].delivery.licenseId, by="emma")
    send("LicenseNFT", "cancelSubscription", o["expiring"].delivery.licenseId, by="emma")
    send("UsageChannel", "topUp", busy.channel, 5, by="emma")
    voucher = busy.stage.people["emma"].sign(busy.stage.digest("UsageChannel", busy.voucher(9)))
    send("UsageChannel", "redeem", busy.channel, 9, voucher, by="anna")
    send("UsageChannel", "requestClose", busy.channel, by="emma")
    play.wait(2 * DAY)
    send("UsageChannel", "close", busy.channel, by="gina")
    play.on(o["opened"], "refund")
    play.wait(20 * DAY)
    send(escrow, "reclaimPrepareFee", busy.request, by="emma")
    send(escrow, "cancelAll", by="anna")
    play.wait(90 * DAY)
    play.on(o["ended"], "releaseBond")


def tour_of_people(busy: Busy) -> None:
    play, send, stage = busy.play, busy.play.send, busy.stage
    signature = stage.people["kim"].sign(
        stage.digest("IdentityRegistry", typed(ATTESTATION_TYPE, *busy.attestation()))
    )
    send("IdentityRegistry", "attest", busy.attestation(), signature, by="emma")
    send("IdentityRegistry", "revoke", play.address("emma"), TEXT, by="kim")
    send("IdentityRegistry", "resign", by="kim")
    send("Oversight", "answerComplaint", 1, 1, TEXT, by="last")
    send("Oversight", "demandDisclosure", 0, play.model, TEXT, play.now + 9 * DAY, by="last")
    send("Oversight", "answerDemand", 2, TEXT, by="anna")
    send("Oversight", "markUnanswered", 1, by="gina")
    operator = stage.names[stage.operators[0].address]
    send("OracleCommittee", "addStake", 5, by=operator)
    proof = stage.people["gina"].sign(stage.digest("OracleCommittee", busy.possession(operator)))
    send(
        "OracleCommittee",
        "update",
        play.address("gina"),
        b"\x02" * 32,
        "https://o.example",
        FAR,
        proof,
        by=operator,
    )
    send("OracleCommittee", "commitCanaries", 1, TEXT, by="admin")
    send("OracleCommittee", "requestExit", by="flora")
    send("EvidenceLog", "commit", "bafy", "data", by="anna")
    send("EvidenceLog", "anchor", TEXT, TEXT, 4, TEXT, by="anna")


def tour_of_the_court(busy: Busy) -> None:
    """Long after the windows of the cases that are under way; new ones for what needs its time."""
    play, f, o = busy.play, busy.files, busy.orders
    play.court("execute", f["convicted"])
    play.court("execute", f["guilty"])
    play.court("claimFee", f["guilty"], 0)
    play.court("escalate", f["challenged"])
    play.court("rule", f["challenged"], True, by="last")
    play.court("finalize", f["innocent"])
    play.court("shareMissed", f["silent"], play.record(o["silent"]).as_tuple())
    fresh = [play.accuse(None, Kind.OWNERSHIP) for _ in range(3)]
    play.court("fileDefence", fresh[0], TEXT, by="anna")
    play.post(fresh[0])
    play.court("challenge", fresh[0], by="anna")
    play.past(fresh[0])
    play.court("escalate", fresh[0])
    play.past(fresh[0])
    play.court("clearSilent", fresh[0])
    play.court("lapse", fresh[1])
    play.send("MisuseCourt", "pausePosting", play.now + DAY, by="pauser")
    play.send("MisuseCourt", "resumePosting", by="pauser")
