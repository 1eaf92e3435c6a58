"""14. Labels are missing: two licenses are suspended; one holder restores his label within 96 hours, one does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from story.stage import OPERATORS
from story.world import ETHER, World
from zhiyi import LocalSigner, case_evidence
from zhiyi.case_evidence import ObjectKind
from zhiyi.cid import cid_v0_from_digest
from zhiyi.errors import TxReverted
from zhiyi.types import CaseFile, CaseState, Decision, Kind, LicenseEnd, Verdict, to_hex

PROBE = hashlib.sha256(b"GB 45438-2025: implicit label in the file, explicit label in the text").digest()
OUTPUT = "The lighthouse stood alone against the storm, and nobody said who wrote this.\n"
LABEL = {"Label": "1", "ContentProducer": "buyer2", "ProduceID": "answer-1"}
NO_SHARE = 255
MAX_EVIDENCE = 1 << 24
HOUR = 3_600


def play(world: World) -> None:
    """Two DISCLOSURE cases; operators judge such a probe by hand."""
    small = world.facts["small"]
    cured, stubborn = (_report(world, small[which]) for which in ("resold", "sublicense"))
    for case_id in (cured, stubborn):
        _judge(world, case_id)
    _cure(world, cured)
    _revoke(world, stubborn)
    world.facts["label_cases"] = [cured, stubborn]


def _report(world: World, license_id: int) -> bytes:
    """The reporter asked the holder's service and got an answer without a label."""
    reporter, home = world.as_("reporter"), world.folder("reporter")
    output = home / f"output-{license_id}.txt"
    output.write_text(OUTPUT, encoding="utf-8")
    epoch = reporter.oracles.current_epoch().number
    sealed = case_evidence.seal(
        output,
        ObjectKind.TEXT,
        reporter=reporter.account,
        keys=reporter.oracles.sealing_keys(epoch),
        out=home / f"output-{license_id}.sealed",
    )
    bond = reporter.cases.min_bond(license_id, Kind.DISCLOSURE)
    cid = reporter.ipfs.add_file(sealed.file)
    filed = reporter.cases.report_disclosure(license_id, sealed.evidence_hash, cid, bond, value=bond)
    world.sent(
        f"an output of license {license_id} has no label: reported with a bond of {bond / ETHER:g} ETH",
        filed,
    )
    return filed.case_id


def _judge(world: World, case_id: bytes) -> None:
    """Two of three operators open the evidence with their own keys, look and sign; posting suspends the license."""
    file = world.as_("anyone").cases.file(case_id)
    first, second = OPERATORS[:2]
    verdict = _verdict(case_id, file, Decision.GUILTY, _look(world, first, case_id, file))
    again = _verdict(case_id, file, Decision.GUILTY, _look(world, second, case_id, file))
    assert again == verdict, "two operators saw different outputs"
    signatures = {**signed(world, first, verdict), **signed(world, second, verdict)}
    posted = world.as_(OPERATORS[0]).cases.post_verdict(verdict, signatures)
    world.sent("two operators find no label; posting is the notice, 96 hours run", posted)
    held = world.as_("anyone").licenses.get(file.license_id)
    assert (held.active, held.suspended, held.end) == (False, True, LicenseEnd.NONE)


def _look(world: World, role: str, case_id: bytes, file: CaseFile) -> bytes:
    """What the operator's probe looked at: its canonical root. Raises unless the output lacks the label."""
    found = opened(world, role, case_id, file)
    assert not _has_label(found.path), "this output is labelled"
    return found.canonical_root


def opened(world: World, role: str, case_id: bytes, file: CaseFile) -> case_evidence.Opened:
    """The evidence of a case, fetched and opened with the operator's own key."""
    home, me = world.folder(role), world.as_(role)
    sealed = home / "evidence.sealed"
    me.ipfs.download(cid_v0_from_digest(file.evidence_digest), sealed, MAX_EVIDENCE)
    secret = bytes.fromhex((home / "x25519.key").read_text().strip()[2:])
    return case_evidence.open_sealed(
        sealed,
        secret,
        home / f"evidence-{to_hex(case_id)[:10]}",
        reporter=file.reporter,
        expected=file.evidence_hash,
    )


def _has_label(path: Path) -> bool:
    return '"AIGC"' in path.read_text(encoding="utf-8")


def _verdict(case_id: bytes, file: CaseFile, decision: Decision, subject: bytes) -> Verdict:
    return Verdict(
        case_id=case_id,
        license_id=file.license_id,
        kind=Kind.DISCLOSURE,
        decision=decision,
        evidence_hash=file.evidence_hash,
        subject=subject,
        detector_hash=PROBE,
        share_index=NO_SHARE,
        samples=1,
        bucket=0,
        epoch=file.epoch,
        deadline=file.post_by,
    )


def signed(world: World, role: str, verdict: Verdict) -> Mapping[str, bytes]:
    """The operator's signer key, which is not its account's."""
    signer = LocalSigner((world.folder(role) / "signer.key").read_text().strip())
    return {signer.address: world.as_(role).with_signer(signer).cases.sign_verdict(verdict)}


def _cure(world: World, case_id: bytes) -> None:
    """The label is back: the operators probe again and sign that; the case closes, the license lives."""
    anyone = world.as_("anyone")
    file = anyone.cases.file(case_id)
    world.node.travel(48 * HOUR)
    output = world.folder("buyer2") / "labelled.txt"
    output.write_text(OUTPUT + json.dumps({"AIGC": LABEL}) + "\n", encoding="utf-8")
    assert _has_label(output)
    subject = case_evidence.canonical_root(output, ObjectKind.TEXT)
    passing = _verdict(anyone.cases.cure_id(case_id), file, Decision.NOT_GUILTY, subject)
    signatures = {**signed(world, OPERATORS[1], passing), **signed(world, OPERATORS[2], passing)}
    before = anyone.vault.balance(file.reporter)
    cured = anyone.cases.cure(case_id, passing, signatures)
    world.sent("after two days buyer2's outputs are labelled again; two operators sign it: cured", cured)
    held = anyone.licenses.get(file.license_id)
    assert (held.active, held.suspended) == (True, False)
    assert anyone.cases.get(case_id).state is CaseState.CLOSED
    fee = anyone.vault.case_bond_of(case_id)
    assert anyone.vault.balance(file.reporter) - before == file.bond - fee
    world.say(f"the reporter was right and has his bond back, less {fee / ETHER:g} ETH for the signers")


def _revoke(world: World, case_id: bytes) -> None:
    """Nothing comes from buyer 3: after 96 hours anyone has the license revoked; no bond is slashed."""
    anyone = world.as_("anyone")
    case = anyone.cases.get(case_id)
    license_id = case.file.license_id
    bond = anyone.licenses.bond(license_id).amount
    try:
        anyone.cases.execute(case_id, dry_run=True)
    except TxReverted as refused:
        if refused.error_name != "TooEarly":
            raise
        world.say("before the 96 hours are over nobody can revoke: TooEarly")
    else:
        raise AssertionError("a license was revoked before its holder had his 96 hours")
    world.node.travel(case.until - world.node.now() + 1)
    done = anyone.cases.execute(case_id)
    assert done.event("CaseExecuted")["slashed"] == 0
    world.sent(f"96 hours after the notice anyone has license {license_id} revoked", done)
    held = anyone.licenses.get(license_id)
    assert (held.end, held.active) == (LicenseEnd.REVOKED, False)
    left = anyone.licenses.bond(license_id)
    assert (left.amount, left.open_cases) == (bond, 0)
    world.say(f"its bond of {bond / ETHER:g} ETH was not touched")
