"""13. The regulator: a complaint, a freeze with its end, demands for disclosure; nobody else's money is touched."""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path

from story import buy
from story.world import ETHER, World
from zhiyi.delivery import ecies
from zhiyi.errors import BadInput, TxReverted
from zhiyi.group import reason_hash, salted_hash
from zhiyi.keys import KeyKind, new_key
from zhiyi.types import ComplaintOutcome, DemandState, SubjectKind

PAPERS = b"Outputs of Harbour small name living persons; three screenshots."
ANSWER = b"Training texts of Harbour small: list of 41 sources with their licenses."
REASON = "complaint 1: personal data in the training texts"
NAMED, TAKE_OUT, DONE = "the sources were named", "three sources to take out", "three sources were taken out"
DAY = 86_400


def play(world: World) -> None:
    """Everything about the small model, which belongs to the heir by now."""
    model_id = world.facts["small"]["model_id"]
    regulator = world.as_("regulator")
    complaint = _complain(world, model_id)
    frozen = regulator.regulator.freeze(model_id, world.node.now() + 10 * DAY, REASON)
    publish(world, REASON)
    world.sent("the regulator freezes the model for ten days, with the hash of the reason", frozen)
    _while_frozen(world, model_id)
    _demands(world, model_id)
    lifted = regulator.regulator.lift(model_id, NAMED)
    world.sent("the regulator lifts the freeze early", lifted)
    publish(world, NAMED)
    pulled = world.as_("heir").royalties.pull_owner(model_id)
    world.sent("the owner pulls his share again", pulled)
    answered = regulator.oversight.answer(
        complaint, ComplaintOutcome.UPHELD, "the owner has named the sources and takes three of them out"
    )
    world.sent("the complaint is answered: upheld", answered)
    found = regulator.oversight.complaint(complaint)
    assert (found.outcome, found.overdue) == (ComplaintOutcome.UPHELD, False)
    _delisting(world, model_id)


def _complain(world: World, model_id: int) -> int:
    """Anybody, with papers whose salted hash is on chain."""
    anyone = world.as_("anyone")
    cid = anyone.ipfs.add_bytes(PAPERS)
    filed = anyone.oversight.complain(
        SubjectKind.MODEL, model_id, salted_hash(secrets.token_bytes(32), PAPERS), cid
    )
    number = int(filed.event("ComplaintFiled")["complaintId"])
    world.sent(f"somebody files complaint {number}; the regulator owes an answer within 15 days", filed)
    pending = world.as_("regulator").oversight.complaints(pending=True)
    assert [one.complaint_id for one in pending] == [number]
    return number


def _while_frozen(world: World, model_id: int) -> None:
    """No new sale, no pull by the owner; licenses, and what belongs to others, go on."""
    heir, anyone = world.as_("heir"), world.as_("anyone")
    offer = buy.make_offer(world, nonce=14, seller="heir", model_id=model_id)
    try:
        anyone.offers.verify(offer)
    except BadInput as refused:
        world.say(f"meanwhile nothing is sold: {refused}")
    else:
        raise AssertionError("a frozen model was for sale")
    try:
        heir.royalties.pull_owner(model_id, dry_run=True)
    except TxReverted as refused:
        if refused.error_name != "OwnerPullFrozen":
            raise
        world.say("the owner pulls nothing: OwnerPullFrozen")
    else:
        raise AssertionError("the owner of a frozen model pulled")
    before = anyone.vault.balance(world.address("collaborator"))
    pulled = anyone.royalties.pull_collaborator(model_id, 0)
    got = anyone.vault.balance(world.address("collaborator")) - before
    world.sent(f"the collaborator's {got / ETHER:.6g} ETH are not touched by it", pulled)
    assert heir.licenses.is_active(world.facts["small"]["sublicense"])


def _demands(world: World, model_id: int) -> None:
    """One answered by the owner, sealed to the regulator; one that a holder lets pass."""
    desk, heir, anyone = world.as_("regulator").oversight, world.as_("heir"), world.as_("anyone")
    key = new_key(KeyKind.ENCRYPTION)
    first = desk.demand(SubjectKind.MODEL, model_id, REASON, world.node.now() + 5 * DAY)
    world.sent("the regulator demands disclosure from the model's owner within five days", first)
    second = desk.demand(
        SubjectKind.LICENSE, world.facts["small"]["sublicense"], REASON, world.node.now() + 2 * DAY
    )
    world.sent("and from the holder of the sublicense within two", second)
    sealed = _sealed(world.folder("heir"), key.public)
    cid = heir.ipfs.add_file(sealed)
    disclosed = heir.oversight.disclose(first.event("DisclosureDemanded")["demandId"], cid)
    world.sent("the heir discloses, sealed to the regulator's key", disclosed)
    fetched, opened = world.folder("regulator") / "answer.sealed", world.folder("regulator") / "answer.txt"
    anyone.ipfs.download(cid, fetched, 1 << 20)
    ecies.open_file(fetched, key.secret, opened)
    assert hashlib.sha256(opened.read_bytes()).digest() == hashlib.sha256(ANSWER).digest()
    world.node.travel(2 * DAY + 1)
    missed = anyone.oversight.mark_unanswered(second.event("DisclosureDemanded")["demandId"])
    world.sent("the holder does not answer: anyone puts that on record", missed)
    assert [one.state for one in desk.demands()] == [DemandState.ANSWERED, DemandState.UNANSWERED]


def _sealed(folder: Path, key: bytes) -> Path:
    plain, sealed = folder / "answer.txt", folder / "answer.sealed"
    plain.write_bytes(ANSWER)
    ecies.seal_file(plain, [key], sealed)
    return sealed


def _delisting(world: World, model_id: int) -> None:
    """Out of the market until a day begins, and back in."""
    desk, anyone = world.as_("regulator").regulator, world.as_("anyone")
    day = world.node.now() // DAY + 30
    world.sent("the model is delisted for a month", desk.delist(model_id, day, TAKE_OUT))
    publish(world, TAKE_OUT)
    assert anyone.models.status(model_id).delisted
    world.sent("and listed again", desk.delist(model_id, 0, DONE))
    publish(world, DONE)
    assert not anyone.models.status(model_id).delisted


def publish(world: World, reason: str) -> None:
    """The reasons' texts are published; the chain keeps their hashes."""
    reasons = world.facts.setdefault("reasons", {})
    reasons[reason_hash(reason)] = reason
    text = json.dumps(list(reasons.values()), ensure_ascii=False, indent=1)
    (world.folder("regulator") / "reasons.json").write_text(text + "\n", encoding="utf-8")
