"""15. Verdicts on the small model are appealed: a false one costs its signers, a true one freezes the model, once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from story import buy, label, oversight
from story.stage import OPERATORS
from story.world import ETHER, World
from zhiyi import case_evidence
from zhiyi.case_evidence import ObjectKind
from zhiyi.delivery import Bundle
from zhiyi.delivery.hashing import HASH_BYTES
from zhiyi.errors import BadInput, TxReverted
from zhiyi.types import Case, CaseFile, CaseState, Decision, Kind, Verdict, to_hex

BOND = ETHER
CLAIM = "I trained Harbour small in my own house. Signed, and dated a year before its registration.\n"
BY_HAND = bytes(32)  # no detector: two operators read and compared
NO_SHARE = 255
AGREED = "the owner and the parent's author have agreed on a share"
DAY = 86_400


def play(world: World) -> None:
    """Overturned; then upheld by the last instance, because the authority was silent; then brought again."""
    model_id = world.facts["small"]["model_id"]
    world.facts["model_cases"] = []
    _overturned(world, model_id)
    parent = _parent(world)
    _upheld(world, model_id, parent)
    _brought_again(world, model_id, parent)
    lifted = world.as_("regulator").regulator.lift(model_id, AGREED)
    world.sent("the regulator lifts the freeze that the verdict brought", lifted)
    oversight.publish(world, AGREED)
    world.as_("anyone").offers.verify(buy.make_offer(world, nonce=15, seller="heir", model_id=model_id))


def _overturned(world: World, model_id: int) -> None:
    """Two operators believe a forged paper; the owner challenges, the authority sees the chain of title."""
    paper = world.folder("liar") / "claim.txt"
    paper.write_text(CLAIM, encoding="utf-8")
    case_id = _report(world, "liar", model_id, Kind.OWNERSHIP, paper)
    _judge(world, case_id)
    heir, authority = world.as_("heir"), world.as_("authority")
    title = {"registered": model_id, "bought": world.facts["model_sales"]}
    cid = heir.ipfs.add_bytes(json.dumps(title).encode())
    world.sent("the owner files his defence: registration and sale", heir.cases.file_defence(case_id, cid))
    _challenge(world, case_id)
    before = _held(world, case_id)
    ruled = authority.cases.rule(case_id, uphold=False)
    row = _note(world, case_id, before, "authority")
    bond = heir.cases.params().challenge_bond
    assert (row["state"], row["to_accused"]) == (CaseState.CLEARED.name, BOND + bond)
    assert row["stakes_lost"] == row["to_judge"] == bond
    assert heir.models.status(model_id).frozen_until <= world.node.now()
    world.sent(
        f"the authority overturns it: the reporter's {BOND / ETHER:g} ETH go whole to the owner, who also has his "
        f"challenge bond back; the two signers pay the authority {bond / ETHER:g} ETH from their stakes",
        ruled,
    )
    try:
        world.as_(OPERATORS[0]).cases.claim_fee(case_id, _seat(world, OPERATORS[0], case_id), dry_run=True)
    except TxReverted as refused:
        if refused.error_name != "NothingToClaim":
            raise
        world.say("and have no fee: NothingToClaim")
    else:
        raise AssertionError("a signer of an overturned verdict had a fee")


def _upheld(world: World, model_id: int, parent: Path) -> None:
    """The second version comes from a model that nobody named. The authority says nothing; the last instance does."""
    anyone = world.as_("anyone")
    case_id = _report(world, "reporter", model_id, Kind.UNDECLARED_PARENT, parent)
    _judge(world, case_id)
    _challenge(world, case_id)
    before = _held(world, case_id)
    silence = anyone.cases.get(case_id).until - world.node.now() + 1
    world.node.travel(silence)
    world.sent(
        f"{silence // DAY} days without a ruling: anyone escalates to the last instance",
        anyone.cases.escalate(case_id),
    )
    world.sent(
        "the last instance upholds; the challenge bond is its own", anyone.cases.rule(case_id, uphold=True)
    )
    done = anyone.cases.execute(case_id)
    row = _note(world, case_id, before, "anyone")
    assert row["frozen_until"] == anyone.models.status(model_id).frozen_until
    world.sent(
        f"anyone executes: model {model_id} is frozen for {(row['frozen_until'] - world.node.now()) // DAY} days",
        done,
    )
    assert (row["state"], row["to_accused"], row["stakes_lost"]) == (CaseState.EXECUTED.name, 0, 0)
    assert row["to_reporter"] == BOND - row["fee"]
    _not_for_sale(world, model_id)


def _brought_again(world: World, model_id: int, parent: Path) -> None:
    """The same weights in a new envelope are the same subject: no second freeze, and no harm to the reporter."""
    anyone = world.as_("anyone")
    frozen_until = anyone.models.status(model_id).frozen_until
    case_id = _report(world, "reporter", model_id, Kind.UNDECLARED_PARENT, parent)
    subject = _judge(world, case_id)
    assert anyone.cases.is_counted(model_id, subject)
    before = _held(world, case_id)
    world.node.travel(anyone.cases.get(case_id).until - world.node.now() + 1)
    closed = anyone.cases.finalize(case_id)
    world.sent("the same evidence brought again is closed: it has been counted", closed)
    row = _note(world, case_id, before, "")
    assert (row["state"], row["to_reporter"]) == (CaseState.CLOSED.name, BOND - row["fee"])
    assert anyone.models.status(model_id).frozen_until == frozen_until > world.node.now()


def _report(world: World, who: str, model_id: int, kind: Kind, found: Path) -> bytes:
    """The evidence, sealed to the committee under a salt of its own, and the bond."""
    me = world.as_(who)
    name = "weights" if found.is_dir() else "paper"
    sealed = case_evidence.seal(
        found,
        ObjectKind.WEIGHTS if found.is_dir() else ObjectKind.TEXT,
        reporter=me.account,
        keys=me.oracles.sealing_keys(me.oracles.current_epoch().number),
        out=world.folder(who) / f"{name}.sealed",
    )
    cid = me.ipfs.add_file(sealed.file)
    sealed.file.unlink()
    opened = me.cases.open(0, model_id, kind, sealed.evidence_hash, cid, BOND, value=BOND)
    world.sent(f"the {who} brings a case against model {model_id}: {kind.name}", opened)
    return opened.case_id


def _judge(world: World, case_id: bytes) -> bytes:
    """Two of three operators open the evidence with their own keys, judge by hand and sign; returns the subject."""
    file = world.as_("anyone").cases.file(case_id)
    first, second = OPERATORS[:2]
    verdict = _verdict(case_id, file, _look(world, first, case_id, file))
    again = _verdict(case_id, file, _look(world, second, case_id, file))
    assert again == verdict, "two operators saw different evidence"
    signatures = {**label.signed(world, first, verdict), **label.signed(world, second, verdict)}
    posted = world.as_(first).cases.post_verdict(verdict, signatures)
    world.sent("two operators find the model's owner guilty", posted)
    return verdict.subject


def _look(world: World, role: str, case_id: bytes, file: CaseFile) -> bytes:
    """A paper is believed; weights are compared with the registered leaves, which are public. The canonical root."""
    found = label.opened(world, role, case_id, file)
    if file.kind is Kind.OWNERSHIP:
        assert found.path.read_text(encoding="utf-8") == CLAIM
        return found.canonical_root
    known = world.as_(role).delivery.registered(file.model_id).leaves
    shown = Bundle.scan(found.path).leaves(found.path)
    chunks = len(known) // HASH_BYTES
    same = sum(
        known[at : at + HASH_BYTES] == shown[at : at + HASH_BYTES] for at in range(0, len(known), HASH_BYTES)
    )
    world.say(
        f"{role}: {same:,} of the model's {chunks:,} chunks are, byte for byte, those of the weights shown"
    )
    assert same > chunks // 2, "these weights are not what the model was made from"
    return found.canonical_root


def _verdict(case_id: bytes, file: CaseFile, subject: bytes) -> Verdict:
    return Verdict(
        case_id=case_id,
        license_id=0,
        kind=file.kind,
        decision=Decision.GUILTY,
        evidence_hash=file.evidence_hash,
        subject=subject,
        detector_hash=BY_HAND,
        share_index=NO_SHARE,
        samples=1,
        bucket=0,
        epoch=file.epoch,
        deadline=file.post_by,
    )


def _challenge(world: World, case_id: bytes) -> None:
    heir = world.as_("heir")
    bond = heir.cases.params().challenge_bond
    challenged = heir.cases.challenge(case_id, value=bond)
    world.sent(f"the owner challenges with {bond / ETHER:g} ETH", challenged)
    assert heir.cases.get(case_id).state is CaseState.CHALLENGED


def _not_for_sale(world: World, model_id: int) -> None:
    offer = buy.make_offer(world, nonce=15, seller="heir", model_id=model_id)
    try:
        world.as_("anyone").offers.verify(offer)
    except BadInput as refused:
        world.say(f"meanwhile nothing is sold: {refused}")
    else:
        raise AssertionError("a frozen model was for sale")


def _parent(world: World) -> Path:
    """A model published before; the second version differs in one tensor. The story makes it from the child."""
    child, parent = world.folder("creator", "small") / "v2", world.folder("reporter") / "parent"
    shutil.copytree(child, parent)
    tensors = load_file(parent / "model.safetensors")
    name = sorted(tensors)[-1]
    tensors[name] = tensors[name] * 0.9
    save_file(tensors, parent / "model.safetensors")
    return parent


def _seat(world: World, role: str, case_id: bytes) -> int:
    desk = world.as_(role)
    seats = desk.oracles.seats(desk.cases.file(case_id).epoch)
    return [info.account for info in seats].index(desk.account)


def _held(world: World, case_id: bytes) -> dict[str, int]:
    """Free balances of everybody whom the case can pay, and the operators' stakes, wei."""
    vault, file = world.as_("anyone").vault, world.as_("anyone").cases.file(case_id)
    found = {role: vault.balance(world.address(role)) for role in ("authority", "anyone")}
    found |= {"reporter": vault.balance(file.reporter), "accused": vault.balance(file.accused)}
    return found | {"stakes": sum(vault.stake_of(world.address(role)).staked for role in OPERATORS)}


def _note(world: World, case_id: bytes, before: dict[str, int], judge: str) -> dict[str, Any]:
    """What the end of a case moved since `before`; the check says the same from events."""
    client = world.as_("anyone")
    case: Case = client.cases.get(case_id)
    moved = {who: amount - before[who] for who, amount in _held(world, case_id).items()}
    executed = case.state is CaseState.EXECUTED
    row = {
        "case_id": to_hex(case_id),
        "kind": case.file.kind.name,
        "model_id": case.file.model_id,
        "accused": case.file.accused,
        "challenger": case.challenger or "",
        "judge": world.address(judge) if judge else "",
        "ruling": "" if not judge else "OVERTURNED" if case.state is CaseState.CLEARED else "UPHELD",
        "state": case.state.name,
        "to_reporter": moved["reporter"],
        "to_accused": moved["accused"],
        "to_judge": moved[judge] if judge else 0,
        "stakes_lost": -moved["stakes"],
        "fee": client.vault.case_bond_of(case_id),
        "frozen_until": client.models.status(case.file.model_id).frozen_until if executed else 0,
    }
    world.facts["model_cases"].append(row)
    return row
