"""6. A text and a leaked copy are traced; the reporter opens a case, the fingerprinter opens one share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from adversaries.leaking_buyer import tune_and_resave
from story import buy, language_model, serve
from story.world import ETHER, World
from zhiyi import case_evidence
from zhiyi.case_evidence import ObjectKind
from zhiyi.types import Kind, to_hex
from zhiyi.usage_log import UsageLog
from zhiyi_oracle.api_users import ApiUsers
from zhiyi_oracle.provider.anchor import usage_topic
from zhiyi_oracle.tracer.trace_text import check_on_chain, trace_text
from zhiyi_oracle.tracer.trace_weights import licenses_of, read_kit, trace_weights
from zhiyi_watermark import weights

TEXTS = Path(__file__).resolve().parent / "texts"
STEPS, LEARNING_RATE, SEED = 6, 3e-4, 5
REPORT_BOND = ETHER
TRACED_WORDS = 150
DAY = 86_400


def play(world: World) -> None:
    """Text first, then weights; then the case."""
    _trace_texts(world)
    leaked = _leak(world)
    candidate = _trace_weights(world, leaked)
    # The mark must be older than the case by the court's mark age.
    world.node.travel(8 * DAY)
    world.say("eight days pass: a case may only use marks that were committed a week before it")
    world.facts["cases"] = {}
    report(world, "reporter", candidate, leaked)
    maker = buy.fingerprinter(world)
    maker.step()
    world.node.mine()
    case = world.as_("reporter").cases.get(next(iter(world.facts["cases"])))
    assert case.share is not None, "the fingerprinter opened no share"
    world.say(
        f"the fingerprinter opens share {case.share.index} of 16 and seals the base tensors to the committee"
    )


def _trace_texts(world: World) -> None:
    home = world.folder("provider")
    users, found = ApiUsers(home / "users"), []
    _, tokenizer = language_model.load(world.model)
    mark = serve.mark_of(world)
    creator, topic = world.as_("creator"), usage_topic(world.facts["model_id"])
    with UsageLog(home / "log") as log:
        for number, (name, *_) in enumerate(serve.ASKED):
            text = (home / f"answer-{number}.txt").read_text(encoding="utf-8")
            if len(text.split()) < TRACED_WORDS:
                continue  # too short to carry 32 bits
            trace, detection = trace_text(text, mark, tokenizer, users, log)
            if not trace.found:
                world.say(f"answer {number}: no user can be named ({trace.decision})")
                continue
            assert trace.user_number == users.by_name(name).number, "a text was traced to an innocent user"
            assert trace.exact is not None
            block = check_on_chain(creator, creator.account, topic, trace.exact)
            world.say(
                f"answer {number}: payload {trace.payload} names user {trace.user_number}; its leaf "
                f"{trace.exact.number} is in the batch anchored in block {block}"
            )
            entry = {
                "what": f"text {number}",
                "payload": trace.payload,
                "user": trace.user_number,
                "leaf": trace.exact.number,
                "root": to_hex(trace.exact.proof.root),
                "anchored_in": block,
            }
            found.append(entry | figures(detection))
    users.close()
    assert found, "none of the user's texts could be traced"
    world.facts["detections"] = found
    world.say("traced, no case: a provider's own mark never slashes a user")


def _leak(world: World) -> Path:
    leaked = world.folder("leaker") / "found"
    with world.bar("buyer 2 tunes the copy and saves it anew") as progress:
        losses = tune_and_resave(
            world.folder("buyer2") / "copy",
            (TEXTS / "tune.txt").read_text(encoding="utf-8"),
            leaked,
            steps=STEPS,
            learning_rate=LEARNING_RATE,
            seed=SEED,
            progress=progress,
        )
    heldout = (TEXTS / "heldout.txt").read_text(encoding="utf-8")
    (world.folder("leaker") / "heldout.txt").write_text(heldout, encoding="utf-8")
    (world.folder("leaker") / "losses.json").write_text(json.dumps(losses))
    spec = weights.TraceKit.from_json((world.folder("creator") / "kit.json").read_text()).spec
    change = weights.relative_change(leaked, world.folder("buyer2") / "copy", spec)
    numbers = {
        "steps": len(losses),
        "relative_change": max(change.values()),
        "perplexity_registered": language_model.perplexity(world.model, heldout),
        "perplexity_delivered": language_model.perplexity(world.folder("buyer2") / "copy", heldout),
        "perplexity_leaked": language_model.perplexity(leaked, heldout),
        "sha256": hashlib.sha256((leaked / "model.safetensors").read_bytes()).hexdigest(),
    }
    world.facts["leak"] = numbers
    world.say(
        f"buyer 2's copy turns up, tuned by AdamW for {STEPS} steps: largest relative change "
        f"{numbers['relative_change']:.4f}, perplexity {numbers['perplexity_registered']:.2f} registered, "
        f"{numbers['perplexity_delivered']:.2f} delivered, {numbers['perplexity_leaked']:.2f} leaked"
    )
    return leaked


def _trace_weights(world: World, leaked: Path) -> int:
    """An operator's tracer, with the file and the kit and nothing else."""
    model_id = world.facts["model_id"]
    kit = read_kit(world.folder("creator") / "kit.json")
    ids = licenses_of(world.as_("operator1"), model_id)
    trace, detection = trace_weights(leaked, {model_id: kit}, {model_id: ids})
    assert trace.license_id is not None, "the leaked copy could not be traced"
    assert detection is not None
    world.say(
        f"the tracer names license {trace.license_id} among {trace.licenses_tried} "
        f"(bucket {trace.bucket}); a candidate, not a verdict"
    )
    world.facts["detections"].append({"what": "leaked copy"} | figures(detection))
    return trace.license_id


def report(world: World, reporter: str, license_id: int, suspect: Path) -> bytes:
    """Opens a LEAK case with a bond; the evidence is sealed to the present committee."""
    me = world.as_(reporter)
    epoch = me.oracles.current_epoch()
    sealed = case_evidence.seal(
        suspect,
        ObjectKind.WEIGHTS,
        reporter=me.account,
        keys=me.oracles.encryption_keys(epoch.number),
        out=world.folder(reporter) / f"evidence-{license_id}.sealed",
    )
    cid = me.ipfs.add_file(sealed.file)
    opened = me.cases.open(
        license_id,
        world.facts["model_id"],
        Kind.LEAK,
        sealed.evidence_hash,
        cid,
        REPORT_BOND,
        value=REPORT_BOND,
    )
    world.sent(
        f"{reporter} opens a LEAK case against license {license_id}, bond {REPORT_BOND / ETHER:g} ETH", opened
    )
    world.facts["cases"][opened.case_id] = reporter
    sealed.file.unlink()
    return opened.case_id


def figures(detection: Any) -> dict[str, Any]:
    """What the report says of a detection."""
    return {
        "method": detection.method,
        "decision": detection.decision,
        "license": detection.license,
        "n": detection.n,
        "T": detection.T,
        "log2_p": detection.log2_p,
        "log2_p_global": detection.log2_p_global,
    }
