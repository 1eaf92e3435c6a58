"""9. The registrar's desk: a small model is rejected, comes back, states other preferences, gets new weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from story import buy, register
from story.world import World
from zhiyi.errors import BadInput
from zhiyi.types import ParentConsent, ParentProof, Preference, Preferences, Review, to_hex
from zhiyi_watermark import weights

PARENT_BPS = 1_000  # of its gross go to the model that it was derived from
MAX_CHANGE_PPM = 100_000
FIRST = Preferences(ai_inference=Preference.ALLOWED, ai_training=Preference.NOT_ALLOWED)
LATER = Preferences(ai_inference=Preference.CONSTRAINED, ai_training=Preference.NOT_ALLOWED)
POOR, FULL = "A small model.", "A small model, tuned from the first one; its training texts are listed."
PARAMS = 1500 * 256 + 6 * 128 * 512
HOUR = 3_600


def play(world: World) -> None:
    """Rejected with a reason, registered anew, approved; preferences change; a second version is reviewed."""
    home = world.folder("creator", "small")
    made = _small_model(world, home / "v1", seed=1)
    rejected = _submit(world, made, POOR)
    _review(world, rejected, Review.REJECTED, "the description does not say what it was trained on")
    model_id = _submit(world, made, FULL)
    _review(world, model_id, Review.APPROVED, "description and lineage are complete")
    assert world.as_("anyone").models.of_root(made.tree.root) == model_id
    world.facts["small"] = {"model_id": model_id, "rejected": rejected}
    _change_preferences(world, made, model_id)
    _second_version(world, home, model_id)


def _small_model(world: World, folder: Path, *, seed: int) -> register.Measured:
    """Four megabytes of random weights: what follows is about papers and money, and a copy takes a second."""
    folder.mkdir()
    rng = np.random.default_rng(seed)

    def drawn(rows: int, columns: int) -> npt.NDArray[np.float32]:
        return rng.normal(0, 0.02, (rows, columns)).astype(np.float32)

    tensors = {"model.embed_tokens.weight": drawn(1500, 256)}
    for layer in range(3):
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"] = drawn(128, 512)
        tensors[f"model.layers.{layer}.mlp.up_proj.weight"] = drawn(512, 128)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type":"small"}')
    spec = weights.plan(folder, epsilon=0.06, code_bits=128, weights_per_bit=256, weights_per_share=2048)
    key = hashlib.sha256(b"small watermark key" + world.key("creator")).digest()
    return register.measure(folder, spec, key, MAX_CHANGE_PPM)


def _describe(
    world: World, made: register.Measured, description: str, preferences: Preferences = FIRST
) -> str:
    return register.describe(
        world,
        made,
        name="Harbour small",
        description=description,
        preferences=preferences,
        home=made.folder.parent,
        params=PARAMS,
    )


def _submit(world: World, made: register.Measured, description: str) -> int:
    """The creator names the first model as a parent; being its owner, he consents himself."""
    creator = world.as_("creator")
    parent: ParentProof = creator.models.parent_by_consent(
        creator.models.sign_consent(
            ParentConsent(
                parent_id=world.facts["model_id"],
                weights_root=made.tree.root,
                registrant=creator.account,
                bps=PARENT_BPS,
                deadline=world.node.now() + HOUR,
            )
        )
    )
    cid = _describe(world, made, description)
    done = creator.models.register(made.record, cid, FIRST, register.collaborators(world), [parent])
    world.sent(f"model {done.model_id} registered, a tenth of its gross goes to its parent", done)
    return done.model_id


def _review(world: World, model_id: int, outcome: Review, reason: str) -> None:
    """The registrar takes the longest waiting item of the queue and says what was examined."""
    desk = world.as_("registrar").models
    item = desk.queue()[0]
    assert item.model_id == model_id, f"the queue has model {item.model_id} first"
    what = "version" if item.is_version else "model"
    world.say(
        f"in the registrar's queue: a {what} of {item.owner[:10]}…, weights {to_hex(item.weights_root)[:18]}…"
    )
    done = desk.review(model_id, outcome, reason, weights_root=item.weights_root)
    world.sent(f"{outcome.name.lower()}: {reason}", done)
    assert not desk.queue()


def _change_preferences(world: World, made: register.Measured, model_id: int) -> None:
    models = world.as_("creator").models
    changed = models.set_preferences(model_id, LATER, _describe(world, made, FULL, LATER))
    world.sent("inference is constrained from now on: bits, metadata and ERC-4906 event", changed)
    changed.event("MetadataUpdate")
    stated = [change.preferences for change in models.preference_history(model_id)]
    assert stated == [FIRST, LATER], f"the history says {stated}"


def _second_version(world: World, home: Path, model_id: int) -> None:
    creator, anyone = world.as_("creator").models, world.as_("anyone")
    waiting = buy.make_offer(world, nonce=10, model_id=model_id)
    anyone.offers.verify(waiting)
    made = _small_model(world, home / "v2", seed=2)
    cid = _describe(world, made, FULL, LATER)
    added = creator.add_version(model_id, made.record, cid)
    world.sent("new weights under the same token wait for review", added)
    try:
        anyone.offers.verify(waiting)
    except BadInput as refused:
        world.say(f"meanwhile the owner's offers are refused: {refused}")
    else:
        raise AssertionError("a model was for sale while its version waited for review")
    _review(world, model_id, Review.APPROVED, "the new weights do what the old ones did")
    versions = creator.get(model_id).versions
    assert [version.weights_root for version in versions][1:] == [made.tree.root]
    anyone.offers.verify(waiting)
    register.private(home / "kit.json", made.kit.to_json().encode())
    buy.fingerprinter(world).add_model(model_id, made.folder, made.kit.to_json(), made.declared)
    world.say(f"model {model_id} has {len(versions)} versions; the fingerprinter takes the new one on")
