"""The known failures of published systems, each tried on ours.

Seen in published code: a key given to someone who never paid; a refund that sends nothing; a proof that hashes fewer
levels than the tree has; a signature without chain id; a settlement that can be blocked; only the first event of a
transaction read. And what breaks systems of this kind: framing, bonds that leave too early, squatting, disputes that
only one party can end, loops without bound, claims that pay twice.
"""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import ape
import pytest
from courtroom import Decision, Kind, operator_key, share_proof, share_seeds
from courtroom import State as CaseState
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from market import DAY, ETHER, HOUR, NATIVE, Order, State, System, key_commit, path_of, sha, terms, tree
from quick_node import Face
from reference_books import COMMERCIAL, RESALE, SUBLICENSE
from stage_play import Play
from walk_stage import (
    PARCELS,
    ModelSale,
    RangeVerdict,
    Renewal,
    Stage,
    build,
    domain,
    order_hash,
    sale_hash,
    struct_hash,
    typed_digest,
    verdict_hash,
)

FAR = 2**40 - 1
WRONG = PARCELS[1]


@pytest.fixture(scope="module")
def stage(system: System, project: Any) -> Stage:
    return build(system, project)


@pytest.fixture
def play(stage: Stage) -> Play:
    return Play(stage)


def deployed(stage: Stage, project: Any, name: str, *arguments: Any, value: int = 0) -> Face:
    """A contract of a stranger, known to the stage by its name."""
    found = stage.system.deployer.deploy(getattr(project, name), *arguments, value=value)
    stage.time = max(stage.time, int(ape.chain.blocks.head.timestamp))
    face = Face(name, found.address, found.contract_type.model_dump(mode="json")["abi"])
    stage.faces[name] = face
    stage.node.faces[face.address.lower()] = face
    return face


# ---------------------------------------------------------------- a key given to someone who never paid


def test_a_token_that_only_says_it_paid_opens_nothing(play: Play, project: Any) -> None:
    """The key is revealed for an open order; an order opens when the money has arrived, whatever the token returns."""
    lying = deployed(play.stage, project, "LyingToken")
    play.send("LicenseEscrow", "listToken", lying.address, True, by="admin")
    play.send("LyingToken", "setLying", True, by="emma")
    order = play.order(token=lying.address)
    with play.refuses("TransferTaxed"):
        play.open(order)
    assert play.state(order) == State.NONE
    with play.refuses("WrongState"):
        play.reveal(order)


def test_the_key_of_a_copy_is_not_released_to_another_buyer(play: Play) -> None:
    """Neither by an order that was never opened, nor by one that a stranger opens for himself or pays short."""
    order = play.order()
    with play.refuses("WrongState"):
        play.reveal(order)
    stolen = order.with_(buyer=play.address("gina"))
    with play.refuses("BadSignature"):
        signed = play.stage.signed(order, "anna", "fred")
        play.send("LicenseEscrow", "open", stolen.as_tuple(), *signed, by="gina", value=3 * ETHER // 10)
    with play.refuses("NotTheBuyer"):
        play.open(order, by="gina")
    with play.refuses("PaymentMismatch"):
        play.open(order, value=order.sale.price)
    play.open(order)
    with play.refuses("WrongOrder"):
        play.reveal(stolen_with_its_parcel(play, stolen))
    with play.refuses("WrongKey"):
        play.reveal(order, key=b"\x01" * 32)


def stolen_with_its_parcel(play: Play, order: Order) -> Order:
    play.parcels[order.delivery.licenseId] = PARCELS[None]
    return order


# ---------------------------------------------------------------- a refund that sends nothing


@pytest.mark.parametrize("native", [True, False], ids=["coins", "token"])
@pytest.mark.parametrize("reason", ["no reveal", "wrong chunk", "claim upheld", "claim unanswered"])
def test_a_refund_can_be_carried_away(play: Play, reason: str, native: bool) -> None:
    """Price and bond are at an address of the buyer's in the end, with the penalty that the reason brings."""
    token = NATIVE if native else play.stage.token.address
    order = play.order(token=token, parcel=WRONG if reason == "wrong chunk" else PARCELS[None])
    before, coins = play.free("emma", token), play.free("emma")
    paid, deposit = order.sale.price + order.sale.bond, order.delivery.deposit
    play.open(order)
    penalty = deposit
    if reason == "no reveal":
        play.wait(order.delivery.revealWindow + order.delivery.grace + 1)
        play.on(order, "refund")
        penalty = deposit // 10
    else:
        play.reveal(order)
    if reason == "wrong chunk":
        play.complain(order)
    elif reason.startswith("claim"):
        play.on(order, "rangeClaim", bytes(32), by="emma", value=order.sale.price // 10 if native else 0)
        if reason == "claim upheld":
            answer(play, order, True)
        else:
            play.wait(7 * DAY + 1)
            play.on(order, "refund")
            penalty = 0
    claim = order.sale.price // 10 if reason.startswith("claim") else 0
    assert play.state(order) == State.REFUNDED
    gained = play.free("emma", token) - before
    assert gained == paid + claim + (penalty if native else 0)
    assert play.free("emma") - coins == (gained if native else penalty)
    pocket = to_checksum_address(keccak(text=reason)[:20])
    play.send("LicenseEscrow", "withdraw", token, before + gained, pocket, by="emma")
    assert held(play, token, pocket) == before + gained
    assert play.free("emma", token) == 0


def answer(play: Play, order: Order, upheld: bool) -> None:
    verdict = RangeVerdict(order.delivery.licenseId, order_hash(order), upheld, 1, FAR)
    signed = play.stage.committee_signs(play.stage.digest("LicenseEscrow", struct_hash(verdict)), [0, 1, 2])
    play.on(order, "resolveRange", upheld, 1, FAR, *signed)


def held(play: Play, token: str, account: str) -> int:
    if token == NATIVE:
        return int(play.stage.node.ask("eth_getBalance", account, "latest"), 16)
    return int(play.view("Token", "balanceOf", account))


# ---------------------------------------------------------------- a proof that hashes fewer levels than the tree


def test_a_proof_shorter_or_longer_than_the_tree_proves_nothing(play: Play) -> None:
    """An inner node is no leaf, at whatever height a proof ends."""
    order = play.revealed(parcel=WRONG)
    key, index, cipher, plain, path = WRONG.proof(1)
    for forged in (path[1:], path[:-1], path[:1], [], [*path, path[-1]], [*path, *[path[-1]] * 30]):
        with play.refuses("WrongPathLength"):
            play.on(order, "complain", key, index, cipher, plain, forged, by="emma")
    with play.refuses("IndexOutOfRange"):
        play.on(order, "complain", key, len(WRONG.plain), cipher, plain, path, by="emma")
    with play.refuses("NotInDelivery"):
        play.on(order, "complain", key, 3, cipher, plain, path, by="emma")
    assert play.state(order) == State.REVEALED


def test_a_share_proof_of_fewer_levels_is_refused(play: Play) -> None:
    """The fingerprinter cannot open an inner node of its shares as a seventeenth one."""
    order = play.leaked_license()
    file = play.accuse(order)
    number = order.delivery.licenseId
    proof = share_proof(number, share_seeds(str(number)), 0)
    for forged in (proof[1:], proof[:-1], [], [*proof, proof[0]]):
        with play.refuses("ShareNotInCommit"):
            play.share(file, 0, order=order, proof=forged)
    play.share(file, 0, order=order)


def test_an_anchored_leaf_needs_the_whole_path(play: Play) -> None:
    levels = tree([sha(b"leaf", bytes([i])) for i in range(5)])
    root, leaf, path = levels[-1][0], levels[0][2], path_of(levels, 2)
    assert play.view("EvidenceLog", "verifyLeaf", root, leaf, 2, 5, path)
    inner = levels[1][1]
    assert not play.view("EvidenceLog", "verifyLeaf", root, inner, 1, 5, path[1:])
    assert not play.view("EvidenceLog", "verifyLeaf", root, leaf, 2, 2, path[:1])
    assert not play.view("EvidenceLog", "verifyLeaf", levels[1][1], leaf, 2, 5, path[:1])


# ---------------------------------------------------------------- a signature without chain id


@pytest.mark.parametrize("foreign", ["chain", "contract", "unbound"])
def test_what_was_signed_for_elsewhere_counts_nowhere_else(play: Play, foreign: str) -> None:
    """Each kind of signature, made for another chain id, for a twin contract, or without a domain at all."""
    stage = play.stage
    license_ = play.buy(terms=terms(flags=COMMERCIAL, expiry=play.now + 50 * DAY))
    claimed = play.revealed()
    play.on(claimed, "rangeClaim", bytes(32), by="emma", value=claimed.sale.price // 10)
    file = play.accuse(None, Kind.OWNERSHIP)

    def elsewhere(contract: str, hash_: bytes) -> bytes:
        if foreign == "unbound":
            return hash_
        chain_id = ape.chain.chain_id + (1 if foreign == "chain" else 0)
        address = stage.faces[contract].address if foreign == "chain" else play.address("sam")
        return typed_digest(domain(f"ZhiYiChain {contract}", chain_id, address), hash_)

    order = play.order()
    signed = [
        stage.people[name].sign(elsewhere("LicenseEscrow", order_hash(order))) for name in ("anna", "fred")
    ]
    good = stage.signed(order, "anna", "fred")
    for pair in ((signed[0], good[1]), (good[0], signed[1])):
        with play.refuses("BadSignature"):
            play.send("LicenseEscrow", "open", order.as_tuple(), *pair, by="emma", value=3 * ETHER // 10)

    renewal = Renewal(license_.delivery.licenseId, play.address("anna"), NATIVE, 1, FAR - 1, 0, 0, FAR)
    signature = stage.people["anna"].sign(elsewhere("LicenseEscrow", struct_hash(renewal)))
    with play.refuses("BadSignature"):
        play.send("LicenseEscrow", "renew", astuple(renewal), signature, by="emma", value=1)

    sale = ModelSale(play.model, play.address("anna"), NATIVE, NATIVE, 0, bytes(32), 0, 0, FAR)
    signature = stage.people["anna"].sign(elsewhere("LicenseEscrow", struct_hash(sale)))
    play.send("ModelNFT", "approve", stage.faces["LicenseEscrow"].address, play.model, by="anna")
    with play.refuses("BadSignature"):
        play.send(
            "LicenseEscrow", "buyModel", astuple(sale), stage.models[play.model].shares, signature, by="sam"
        )

    said = RangeVerdict(claimed.delivery.licenseId, order_hash(claimed), True, 1, FAR)
    votes = stage.committee_signs(elsewhere("LicenseEscrow", struct_hash(said)), [0, 1, 2])
    with play.refuses("BadSigner"):
        play.on(claimed, "resolveRange", True, 1, FAR, *votes)

    verdict = play.verdict(file)
    hash_ = verdict_hash(verdict)
    assert stage.digest("MisuseCourt", hash_) == play.digest(verdict)
    votes = stage.committee_signs(elsewhere("MisuseCourt", hash_), [0, 1, 2])
    with play.refuses("BadSigner"):
        play.post(file, verdict=verdict, signed=votes)

    possession = keccak(
        encode(["bytes32", "address", "uint40"], [POSSESSION_TYPEHASH, play.address("sam"), FAR])
    )
    proof = stage.people["kim"].sign(elsewhere("OracleCommittee", possession))
    with play.refuses("NotInPossession"):
        arguments = (1, play.address("kim"), b"\x01" * 32, 10 * ETHER, "https://sam.example", FAR, proof)
        play.send("OracleCommittee", "join", *arguments, by="sam")

    channel = (
        play.address("emma"), play.address("anna"), play.address("emma"), NATIVE, ETHER, FAR, play.model, 0, bytes(32),
    )  # fmt: skip
    play.send("UsageChannel", "open", channel, by="emma")
    number = play.view("UsageChannel", "channelIdOf", channel)
    voucher = keccak(encode(["bytes32", "bytes32", "uint96"], [VOUCHER_TYPEHASH, number, 7]))
    with play.refuses("VoucherUnsigned"):
        signature = stage.people["emma"].sign(elsewhere("UsageChannel", voucher))
        play.send("UsageChannel", "redeem", channel, 7, signature, by="anna")
    signature = stage.people["emma"].sign(stage.digest("UsageChannel", voucher))
    play.send("UsageChannel", "redeem", channel, 7, signature, by="anna")


POSSESSION_TYPEHASH = keccak(text="SignerPossession(address account,uint40 deadline)")
VOUCHER_TYPEHASH = keccak(text="Voucher(bytes32 channelId,uint96 cumulative)")


# ---------------------------------------------------------------- a settlement that can be blocked


def test_nothing_that_happens_after_the_opening_blocks_a_settlement(play: Play) -> None:
    """Pause, freeze, delisting of model and token, sale of the model, exit and fall of the fingerprinter."""
    stage, token = play.stage, play.stage.token.address
    order = play.order(token=token)
    play.open(order)
    play.reveal(order)
    play.send("LicenseEscrow", "cancel", order_hash(order), by="anna")
    play.send("LicenseEscrow", "cancelAll", by="anna")
    play.send("LicenseEscrow", "pauseOpening", play.now + 6 * DAY, by="pauser")
    play.send("LicenseEscrow", "listToken", token, False, by="admin")
    play.send("ModelNFT", "delist", play.model, play.now // DAY + 30, bytes(32), by="last")
    play.send("ModelNFT", "freeze", play.model, play.now + 20 * DAY, bytes(32), by="last")
    play.send("ModelNFT", "transferFrom", play.address("anna"), play.address("sam"), play.model, by="anna")
    play.send("OracleCommittee", "requestExit", by="fred")
    twin = order.with_(price=0, copyRoot=b"\x01" * 32)
    both = [x for o in (order, twin) for x in (o.as_tuple(), stage.signed(o, "fred")[0])]
    play.send("OracleCommittee", "proveDoubleCopy", *both, by="gina")
    assert play.view("LicenseEscrow", "stakeOf", play.address("fred"))[0] == order.delivery.deposit
    play.wait(order.delivery.complaintWindow + 1)
    play.on(order, "settle", by="gina")
    assert play.state(order) == State.SETTLED
    assert play.view("LicenseNFT", "isActive", order.delivery.licenseId)


def test_a_refund_is_not_blocked_either(play: Play) -> None:
    order = play.order()
    play.open(order)
    play.send("LicenseEscrow", "pauseOpening", play.now + 6 * DAY, by="pauser")
    play.send("ModelNFT", "freeze", play.model, play.now + 20 * DAY, bytes(32), by="last")
    play.send("OracleCommittee", "requestExit", by="fred")
    play.wait(order.delivery.revealWindow + order.delivery.grace + 1)
    before = play.free("emma")
    play.on(order, "refund", by="gina")
    assert play.free("emma") == before + order.sale.price + order.sale.bond + order.delivery.deposit // 10


# ---------------------------------------------------------------- a callback that reverts


def test_a_receiver_that_reverts_blocks_no_settlement(play: Play, project: Any) -> None:
    """Seller, buyer and collaborator are contracts that take neither coins nor tokens nor questions about them."""
    stage = play.stage
    wallet = deployed(stage, project, "BatchWallet", play.address("gina"), value=10 * ETHER)
    play.send("ModelNFT", "transferFrom", play.address("anna"), wallet.address, play.model, by="anna")
    order = play.order(buyer="gina", saleNonce=1)
    number = order.delivery.licenseId
    commit = key_commit(PARCELS[None].key, number, wallet.address)
    order = order.with_(seller=wallet.address, buyer=wallet.address, keyCommit=commit)
    gina, fred = stage.signed(order, "gina", "fred")
    call = (
        stage.faces["LicenseEscrow"].address,
        order.sale.price + order.sale.bond,
        stage.faces["LicenseEscrow"].data("open", order.as_tuple(), gina, fred),
    )
    play.send("BatchWallet", "execute", [call], by="sam")
    play.reveal(order)
    play.wait(order.delivery.complaintWindow + 1)
    play.on(order, "settle")
    assert play.view("LicenseNFT", "ownerOf", number) == wallet.address.lower()
    shares = stage.models[play.model].shares
    play.send("RoyaltyLedger", "pullOwner", play.model, NATIVE, shares, by="sam")
    owed = play.view("LicenseEscrow", "balanceOf", wallet.address, NATIVE)
    assert owed > 0
    withdraw = stage.faces["LicenseEscrow"].data("withdraw", NATIVE, owed, wallet.address)
    with play.refuses("TransferFailed"):
        play.send("BatchWallet", "execute", [(call[0], 0, withdraw)], by="sam")
    elsewhere = stage.faces["LicenseEscrow"].data("withdraw", NATIVE, owed, play.address("gina"))
    play.send("BatchWallet", "execute", [(call[0], 0, elsewhere)], by="sam")


# ---------------------------------------------------------------- only the first event of a transaction is read


def test_every_event_of_a_transaction_is_read(play: Play, project: Any) -> None:
    """One transaction opens two orders and files a request; the index knows all three, and in their order."""
    from zhiyi.chain import Chain
    from zhiyi.deployment import Deployment
    from zhiyi.index import Index

    stage = play.stage
    wallet = deployed(stage, project, "BatchWallet", play.address("gina"), value=10 * ETHER)
    escrow = stage.faces["LicenseEscrow"]
    orders, calls = [], []
    for _ in range(2):
        order = play.order(buyer="gina")
        number = order.delivery.licenseId
        order = order.with_(
            buyer=wallet.address, keyCommit=key_commit(PARCELS[None].key, number, wallet.address)
        )
        data = escrow.data("open", order.as_tuple(), *stage.signed(order, "anna", "fred"))
        calls.append((escrow.address, order.sale.price + order.sale.bond, data))
        orders.append(order)
    fee = escrow.data(
        "payPrepareFee", b"\x07" * 32, play.model, play.address("fred"), NATIVE, 5, play.now + DAY
    )
    play.send("BatchWallet", "execute", [calls[0], (escrow.address, 5, fee), calls[1]], by="sam")
    contracts = {name: stage.system.at[name].address for name in stage.faces if name in stage.system.at}
    book = Deployment(
        chain_id=ape.chain.chain_id, contracts=contracts, block=0, deployer=play.address("admin")
    )
    index = Index("sqlite://")
    try:
        index.sync(Chain(ape.networks.provider.http_uri), book)
        rows = [index.order(order.delivery.licenseId) for order in orders]
        assert [(row.state, row.buyer) for row in rows] == [(State.OPEN, wallet.address)] * 2
        assert rows[0].opened_tx == rows[1].opened_tx
    finally:
        index.close()


# ---------------------------------------------------------------- framing


def test_a_seller_cannot_frame_a_buyer_with_what_he_holds(play: Play) -> None:
    """He has the weights, the trace kit and every copy's roots; what convicts is a share that he does not open."""
    order = play.leaked_license()
    with play.refuses("NotNeutral"):  # nor is he his own fingerprinter
        play.open(play.order(fingerprinter=play.address("anna")), signers=("anna", "anna"))
    file = play.accuse(order, by="anna")
    with play.refuses("NotTheFingerprinter"):
        play.share(file, 0, order=order, by="anna")
    with play.refuses("ShareNotOpened"):
        play.post(file, share_index=0)
    with play.refuses("ShareNotOpened"):
        play.post(file, bucket=40)
    forged = replace(play.record(order), fingerprinter=play.address("anna"))
    with play.refuses("RecordMismatch"):
        play.share(file, 0, order=order, by="anna", record=forged)
    play.wait(4 * DAY)
    play.court("shareMissed", file, play.record(order).as_tuple())
    assert play.bond(order) == order.sale.bond
    assert play.view("LicenseNFT", "isActive", order.delivery.licenseId)


def test_operators_below_the_threshold_convict_nobody(play: Play) -> None:
    """Two of three signatures, one of them twice, a stranger's, a former key's, or seats beyond the committee."""
    stage = play.stage
    order = play.leaked_license()
    file = play.accuse(order)
    play.share(file, order=order)
    verdict = play.verdict(file)
    signers, _, _ = stage.committee_signs(play.digest(verdict), [0, 1])
    two = [stage.operators[seat].sign(play.digest(verdict)) for seat in (0, 1)]
    stranger = stage.people["sam"].sign(play.digest(verdict))
    for bitmap, signatures, error in (
        (0b11, b"".join(two), "NotEnoughSignatures"),
        (0b111, b"".join(two), "SignaturesMalformed"),
        (0b111, b"".join([*two, two[1]]), "BadSigner"),
        (0b111, b"".join([*two, stranger]), "BadSigner"),
        (0b100011, b"".join([*two, two[0]]), "BitmapOutOfRange"),
        (0b111, b"".join([*two, bytes(65)]), "BadSigner"),
    ):
        with play.refuses(error):
            play.post(file, verdict=verdict, signed=(signers, bitmap, signatures))
    with play.refuses("CommitteeMismatch"):
        play.post(file, verdict=verdict, signed=([play.address("sam")] * 3, 0b111, b"".join([stranger] * 3)))


def test_an_opened_share_convicts_once_and_only_its_own_license(play: Play) -> None:
    """Whoever saw a share opened can put its mark into anything: so it never counts again, and for no other license."""
    order, other = play.leaked_license(), play.leaked_license()
    first = play.accuse(order)
    play.share(first, 3, order=order)
    play.post(first, Decision.INCONCLUSIVE)
    second = play.accuse(order, bond=2 * ETHER)
    with play.refuses("ShareAlreadyOpened"):
        play.share(second, 3, order=order)
    with play.refuses("ShareNotOpened"):
        play.post(second, share_index=3)
    third = play.accuse(other)
    seeds = share_seeds(str(order.delivery.licenseId))
    proof = share_proof(order.delivery.licenseId, seeds, 3)
    with play.refuses("ShareNotInCommit"):
        play.share(third, 3, order=other, seed=seeds[3], proof=proof)
    with play.refuses("RecordMismatch"):
        play.share(third, 3, order=other, seed=seeds[3], proof=proof, record=play.record(order))


def test_a_verdict_on_one_case_ends_no_other(play: Play) -> None:
    """Signatures are for one case; no member of the verdict can be exchanged."""
    order = play.leaked_license()
    file, other = play.accuse(order), play.accuse(order, bond=2 * ETHER)
    play.share(file, 0, order=order)
    play.share(other, 1, order=order)
    good = play.verdict(file)
    signed = play.stage.committee_signs(play.digest(good), [0, 1, 2])
    with play.refuses("VerdictMismatch"):
        play.post(other, verdict=good, signed=signed)
    for changes in (
        {"case_id": other.id, "evidence_hash": other.evidence_hash, "share_index": 1},
        {"decision": Decision.INCONCLUSIVE},
        {"bucket": 40},
        {"deadline": FAR - 1},
        {"subject": b"\x01" * 32},
    ):
        target = other if "case_id" in changes else file
        with play.refuses("BadSigner"):
            play.post(target, verdict=replace(good, **changes), signed=signed)
    play.post(file, verdict=good, signed=signed)


# ---------------------------------------------------------------- bonds


def test_a_bond_stays_while_the_copy_is_in_use(play: Play) -> None:
    """Active, sublicensed, suspended or renewed at the last moment: no way to be licensed without a bond."""
    escrow, end = "LicenseEscrow", play.now + 30 * DAY
    order = play.buy(terms=terms(flags=COMMERCIAL | RESALE | SUBLICENSE | 16, expiry=end))
    number = order.delivery.licenseId
    with play.refuses("LicenseStillActive"):
        play.send(escrow, "requestBondRelease", number, by="emma")
    file = play.accuse(order, Kind.DISCLOSURE)
    play.post(file, share_index=255)
    assert play.view("LicenseNFT", "isSuspended", number)
    with play.refuses("LicenseStillActive"):
        play.send(escrow, "requestBondRelease", number, by="emma")
    play.at(end)
    play.send(escrow, "requestBondRelease", number, by="emma")
    renewal = Renewal(number, play.address("anna"), NATIVE, 1, end + DAY, 0, 0, FAR)
    (signature,) = [play.stage.people["anna"].sign(play.stage.digest(escrow, struct_hash(renewal)))]
    with play.refuses("LicenseEnded"):
        play.send(escrow, "renew", astuple(renewal), signature, by="emma", value=1)
    play.wait(order.sale.bondTail - 5)
    with play.refuses("BondHeld"):
        play.on(order, "releaseBond", by="emma")
    assert play.bond(order) == order.sale.bond


def test_reporting_oneself_frees_no_bond(play: Play) -> None:
    """A friend reports the holder. Convicted, both together have less than had he given the license back, no sooner."""
    honest, guilty = play.leaked_license(), play.leaked_license()
    mine, friend = play.free("emma"), play.free("hugo")
    file = play.guilty_leak(guilty, bucket=12)
    with play.refuses("LicenseStillActive"):
        play.send("LicenseEscrow", "requestBondRelease", guilty.delivery.licenseId, by="emma")
    play.past(file)
    play.court("execute", file)
    for order in (honest, guilty):
        if order is honest:
            play.send("LicenseNFT", "surrender", order.delivery.licenseId, by="emma")
        play.send("LicenseEscrow", "requestBondRelease", order.delivery.licenseId, by="emma")
    asked = play.now
    with play.refuses("BondHeld"):
        play.simulated(
            "LicenseEscrow", "releaseBond", guilty.as_tuple(), by="emma", at=asked + guilty.sale.bondTail - 1
        )
    play.at(asked + guilty.sale.bondTail)
    play.on(guilty, "releaseBond", by="emma")
    together = play.free("emma") - mine + play.free("hugo") - friend
    assert together < guilty.sale.bond
    before = play.free("emma")
    play.on(honest, "releaseBond", by="emma")
    assert play.free("emma") - before == honest.sale.bond


def test_an_open_report_of_a_friend_delays_and_never_frees(play: Play) -> None:
    """A case that ends in nothing frees the bond no earlier than the tail; while it is open the bond cannot leave."""
    order = play.leaked_license()
    play.send("LicenseNFT", "surrender", order.delivery.licenseId, by="emma")
    play.send("LicenseEscrow", "requestBondRelease", order.delivery.licenseId, by="emma")
    asked = play.now
    play.at(asked + order.sale.bondTail - 2)
    file = play.accuse(order)
    play.wait(10)
    with play.refuses("BondHeld"):
        play.on(order, "releaseBond", by="emma")
    play.wait(4 * DAY)
    play.court("shareMissed", file, play.record(order).as_tuple())
    play.on(order, "releaseBond", by="emma")
    assert play.bond(order) == 0


# ---------------------------------------------------------------- a late open


@pytest.mark.parametrize("first", ["key", "refund"])
def test_a_late_open_gives_no_key_with_a_refund(play: Play, first: str) -> None:
    """Windows count from the opening, however late; the key's last second and the refund's first do not meet."""
    order = play.order()
    play.at(order.sale.openBy + 1)
    with play.refuses("OrderExpired"):
        play.open(order)
    order = play.order()
    play.at(order.sale.openBy)
    play.open(order)
    delivery = order.delivery
    last = play.now + delivery.revealWindow + delivery.grace
    refund = ("LicenseEscrow", "refund", order.as_tuple())
    reveal = ("LicenseEscrow", "revealKey", sale_hash(order), astuple(delivery), PARCELS[None].key)
    with play.refuses("TooEarly"):
        play.simulated(*refund, by="emma", at=last)
    with play.refuses("TooLate"):
        play.simulated(*reveal, by="fred", at=last + 1)
    play.at(last if first == "key" else last + 1)
    play.send(*(reveal if first == "key" else refund), by="sam")
    with play.refuses("WrongState"):
        play.send(*(refund if first == "key" else reveal), by="sam")


def test_a_key_in_the_last_second_leaves_the_buyer_his_window(play: Play) -> None:
    order = play.order()
    play.open(order)
    delivery = order.delivery
    play.at(play.now + delivery.revealWindow + delivery.grace)
    play.reveal(order)
    revealed = play.now
    with play.refuses("WrongState"):
        play.on(order, "refund", by="emma")
    end = revealed + delivery.complaintWindow
    with play.refuses("TooEarly"):
        play.simulated("LicenseEscrow", "settle", order.as_tuple(), by="anna", at=end)
    play.at(end + 1)
    play.on(order, "settle", by="anna")


# ---------------------------------------------------------------- fingerprint numbers


@pytest.mark.parametrize("before", ["open", "revealed", "settled", "refunded"])
def test_two_orders_never_have_one_fingerprint_number(play: Play, before: str) -> None:
    """Whatever became of the first; for other buyers, other copies, other bases, other spellings of the number."""
    flags = COMMERCIAL | RESALE | SUBLICENSE
    source = play.buy(terms=terms(flags=flags))
    order = play.order()
    play.open(order)
    if before in ("revealed", "settled"):
        play.reveal(order)
    if before == "settled":
        play.accept(order)
    if before == "refunded":
        play.wait(order.delivery.revealWindow + order.delivery.grace + 1)
        play.on(order, "refund")
    number = order.delivery.licenseId & 0xFFFFFFF
    for twin in (
        play.order(number=number, buyer="gina"),
        play.order(number=number, parcel=WRONG),
        play.order(number=number, basis=1, source=source.delivery.licenseId, owner="emma", buyer="gina"),
        play.order(number=number, basis=2, source=source.delivery.licenseId, owner="emma", buyer="gina"),
    ):
        with play.refuses("WrongState"):
            play.open(twin)
    high = order.delivery.licenseId | 1 << 92
    alias = play.order().with_(
        licenseId=high, keyCommit=key_commit(PARCELS[None].key, high, play.address("emma"))
    )
    with play.refuses("NotALicenseId"):
        play.open(alias)


# ---------------------------------------------------------------- evidence


def test_squatting_on_an_evidence_hash_blocks_nobody(play: Play) -> None:
    """A front-runner files the hash that he saw pending; the finder's own case opens all the same, judged alone."""
    order, evidence = play.leaked_license(), sha(b"what the finder found")
    squatted = play.accuse(order, by="sam", evidence=evidence, bond=ETHER)
    own = play.accuse(order, by="hugo", evidence=evidence, bond=ETHER)
    assert squatted.id != own.id
    play.share(own, 0, order=order)
    verdict = play.verdict(own)
    signed = play.stage.committee_signs(play.digest(verdict), [0, 1, 2])
    with play.refuses("VerdictMismatch"):
        play.post(squatted, verdict=verdict, signed=signed)
    play.post(own, verdict=verdict, signed=signed)
    play.past(own)
    before = play.free("hugo")
    play.court("execute", own)
    assert play.free("hugo") > before
    assert play.view("MisuseCourt", "caseState", own.id)[0] == CaseState.EXECUTED


def test_the_same_report_twice_in_a_block_is_one_case(play: Play, project: Any) -> None:
    deployed(play.stage, project, "BatchWallet", play.address("gina"), value=10 * ETHER)
    order = play.leaked_license()
    court = play.stage.faces["MisuseCourt"]
    data = court.data(
        "openCase", order.delivery.licenseId, play.model, 1, b"\x01" * 32, bytes(32), ETHER // 2
    )
    call = (court.address, ETHER, data)
    with play.refuses("CaseAlreadyOpen", "ReportBondTooSmall"):
        play.send("BatchWallet", "execute", [call, call], by="sam")


# ---------------------------------------------------------------- disputes that only one party can end


def test_a_judged_dispute_is_ended_by_anyone(play: Play) -> None:
    """Every way out of every state of a case is walked by someone who has no part in it."""
    order = play.leaked_license()
    a, b, c = (play.leaked_license() for _ in range(3))
    play.wait(DAY)
    record = play.record
    silent = play.accuse(order)  # no share
    lapsed = play.accuse(a)
    play.share(lapsed, order=a)
    guilty = play.guilty_leak(b, bucket=12)
    escalated = play.guilty_leak(c)
    play.court("challenge", escalated, by="emma")
    innocent = play.accuse(b, Kind.TERMS, bond=ETHER)
    play.post(innocent, Decision.NOT_GUILTY, samples=5)
    unclear = play.accuse(None, Kind.OWNERSHIP)
    play.post(unclear, Decision.INCONCLUSIVE)
    nobody = "gina"
    play.wait(8 * DAY)
    play.court("finalize", unclear, by=nobody)
    play.court("shareMissed", silent, record(order).as_tuple(), by=nobody)
    play.court("lapse", lapsed, by=nobody)
    play.court("finalize", innocent, by=nobody)
    play.court("finalize", guilty, by=nobody)
    play.court("execute", guilty, by=nobody)
    play.court("claimFee", guilty, 0, by=nobody)
    play.past(escalated)
    play.court("escalate", escalated, by=nobody)
    play.past(escalated)
    play.court("clearSilent", escalated, by=nobody)
    play.past(escalated)
    play.court("releaseHold", escalated, by=nobody)
    for o in (order, a, b, c):
        assert play.view("LicenseEscrow", "bondOf", o.delivery.licenseId)[2] == 0


# ---------------------------------------------------------------- loops


def test_what_others_pile_up_makes_nobody_pay_more(play: Play) -> None:
    """A dozen cases on one license, a dozen licenses of one model: one more costs what the second cost."""
    stage, order = play.stage, play.leaked_license()
    court = stage.faces["MisuseCourt"]

    def gas() -> int:
        data = court.data(
            "openCase", order.delivery.licenseId, play.model, 2, b"\x09" * 32, bytes(32), 20 * ETHER
        )
        call = {"from": play.address("hugo"), "to": court.address, "data": "0x" + data.hex()}
        return int(stage.node.ask("eth_estimateGas", call), 16)

    play.accuse(order, Kind.TERMS, bond=ETHER)  # the slots of the first are new
    first = gas()
    for _ in range(12):
        play.accuse(order, Kind.TERMS, bond=13 * ETHER, by="kim" if _ % 2 else "kai")
        play.buy()
    assert gas() <= first * 101 // 100


def test_every_list_has_an_end(play: Play) -> None:
    """Each list that someone brings is bounded, or its only cost is his own."""
    stage = play.stage
    people = [(play.address("kim"), 1)] * 11
    record = astuple(
        replace(stage.models[play.model].record, weightsRoot=sha(b"wide"), royaltyHash=bytes(32))
    )
    with play.refuses("TooManyShares"):
        play.send("ModelNFT", "register", record, bytes(32), 0, people, [], by="sam")
    with play.refuses("TooManySigners"):
        crowd = sorted(Account.from_key(operator_key(str(i))).address for i in range(32))
        play.send("OracleCommittee", "announceEpoch", crowd, 17, by="admin")
    with play.refuses("TermsMismatch"):
        wide = (500, [(play.address("kim"), 1)] * 300, [])
        play.send("RoyaltyLedger", "pullPlatform", play.model, NATIVE, wide, by="sam")
    with play.refuses("BatchTooLarge"):
        play.send("EvidenceLog", "anchor", bytes(32), bytes(32), 2**20 + 1, bytes(32), by="sam")
    parents = [proof_of(play, 1)] * 2
    with play.refuses("ParentRepeated"):
        play.send("ModelNFT", "register", record, bytes(32), 0, [], parents, by="sam")


def proof_of(play: Play, bps: int) -> Any:
    model = play.stage.models[play.model]
    root, deadline = sha(b"wide"), play.now + DAY
    digest = play.view("ModelNFT", "consentDigest", model.id, root, play.address("sam"), bps, deadline)
    signature = play.stage.people["anna"].sign(digest)
    return (model.id, bps, 0, deadline, signature, model.shares, astuple(model.record))


# ---------------------------------------------------------------- claims that pay twice


def test_a_claim_twice_pays_once(play: Play) -> None:
    """Everything that pays out is asked for a second time at once: refused, and nobody's balance moves."""
    stage, shares = play.stage, play.stage.models[play.model].shares
    request, sent = b"\x0f" * 32, play.send

    def once(error: str, contract: str, function: str, *arguments: Any, by: str = "sam") -> None:
        sent(contract, function, *arguments, by=by)
        names = ("emma", "anna", "kim", "treasury", "fred", "hugo", "operator 0", by)
        before = [play.free(name) for name in names]
        with play.refuses(error):
            sent(contract, function, *arguments, by=by)
        assert [play.free(name) for name in names] == before

    sent(
        "LicenseEscrow",
        "payPrepareFee",
        request,
        play.model,
        play.address("fred"),
        NATIVE,
        5,
        play.now + DAY,
        by="emma",
        value=5,
    )
    order = play.leaked_license()
    for function, index in (("pullPlatform", ()), ("pullCollaborator", (0,)), ("pullOwner", ())):
        once("NothingToPull", "RoyaltyLedger", function, play.model, NATIVE, *index, shares)
    once("RequestUnknown", "LicenseEscrow", "reclaimPrepareFee", request, by="emma")
    file = play.guilty_leak(order, bucket=12)
    play.past(file)
    once("WrongCaseState", "MisuseCourt", "execute", file.as_tuple())
    for seat in (0, 1, 2):
        once("NothingToClaim", "MisuseCourt", "claimFee", file.as_tuple(), seat)
    sent("LicenseEscrow", "requestBondRelease", order.delivery.licenseId, by="emma")
    with play.refuses("NothingToDo"):  # asking again does not start the tail anew
        sent("LicenseEscrow", "requestBondRelease", order.delivery.licenseId, by="emma")
    play.wait(order.sale.bondTail)
    once("NothingToDo", "LicenseEscrow", "releaseBond", order.as_tuple())
    refunded = play.order()
    play.open(refunded)
    play.wait(3 * HOUR)
    once("WrongState", "LicenseEscrow", "refund", refunded.as_tuple())
    settled = play.revealed()
    play.wait(2 * DAY)
    once("WrongState", "LicenseEscrow", "settle", settled.as_tuple())
    with play.refuses("WrongState"):
        play.accept(settled)
    left = play.free("kim")
    once("BalanceTooSmall", "LicenseEscrow", "withdraw", NATIVE, left, play.address("kim"), by="kim")
    assert stage.view("LicenseEscrow", "caseBondOf", file.id) == 0
