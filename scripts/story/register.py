"""1. The creator registers the model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from story.world import World
from zhiyi import metadata
from zhiyi.delivery import Bundle, Tree, range_for_tensors
from zhiyi.types import ModelRecord, Preference, Preferences, Review, Split, to_hex
from zhiyi_watermark import weights

COLLABORATOR_BPS = 1_000  # 10 % of what is left after the platform
MAX_CHANGE_PPM = 30_000  # a fingerprint may change a tensor by at most 3 % of its norm
LICENSE_TEXT = "ZhiYiChain demo license: use as the order's terms say; no redistribution of the weights."


def play(world: World) -> None:
    """Hashes the weights, commits to key and range, publishes metadata, registers, and a registrar approves."""
    creator = world.as_("creator")
    bundle = Bundle.scan(world.model)
    tree = Tree(bundle.leaves(world.model))
    world.say(
        f"bundle: {bundle.total_bytes:,} bytes in {bundle.chunks:,} chunks, root {to_hex(tree.root)[:18]}…"
    )
    spec = weights.plan(world.model)
    model_key = hashlib.sha256(b"demo watermark key" + world.key("creator")).digest()
    kit = weights.TraceKit.derive(model_key, spec)
    declared = range_for_tensors(
        world.model, bundle, [t.name for t in spec.tensors], max_change_ppm=MAX_CHANGE_PPM
    )
    share = declared.covered_bytes(bundle) / bundle.total_bytes
    world.say(
        f"declared range: {len(declared.intervals)} intervals, {share:.1%} of the bytes, {len(spec.tensors)} tensors"
    )

    home = world.folder("creator")
    tree.save(home / "leaves.bin")
    _private(home / "kit.json", kit.to_json().encode())
    (home / "range.json").write_text(json.dumps(declared.to_json()))
    _private(home / "model.key", model_key)
    preferences = Preferences(
        data_mining=Preference.ALLOWED,
        ai_inference=Preference.CONSTRAINED,
        ai_training=Preference.NOT_ALLOWED,
        ai_generative_training=Preference.NOT_ALLOWED,
    )
    terms_cid = creator.ipfs.add_bytes(LICENSE_TEXT.encode())
    described = metadata.build(
        name="SmolLM2-135M-Instruct",
        description="A small instruction-tuned language model (Apache-2.0), registered by the demo.",
        preferences=preferences,
        license=metadata.License(
            name="demo license",
            document=f"ipfs://{terms_cid}",
            terms_hash=hashlib.sha256(LICENSE_TEXT.encode()).digest(),
        ),
        model={
            "weights_root": to_hex(tree.root),
            "leaves_cid": creator.ipfs.add_file(home / "leaves.bin"),
            "manifest_cid": creator.ipfs.add_bytes(bundle.manifest),
            "declared_range": declared.to_json(),
            "format": "safetensors",
            "params": 134_515_008,
            "modality": "text",
        },
        watermark={
            "alg": weights.METHOD_CONFIRM,
            "spec": json.loads(spec.to_json()),
            "key_commitment": to_hex(kit.commitment()),
        },
    )
    metadata_cid = creator.ipfs.add_bytes(metadata.encode(described))
    world.say(f"metadata with dataMiningPreference: ipfs://{metadata_cid}")
    record = ModelRecord(
        weights_root=tree.root,
        total_bytes=bundle.total_bytes,
        chunks=bundle.chunks,
        chunk_size=bundle.chunk_size,
        detector_hash=spec.spec_hash(),
        trace_key_commit=kit.commitment(),
        range_hash=declared.hash(),
    )
    split = Split(account=world.address("collaborator"), bps=COLLABORATOR_BPS)
    done = creator.models.register(record, metadata_cid, preferences, [split])
    model_id = done.model_id
    world.sent(f"model {model_id} registered, 10 % of its income to the collaborator", done)
    commit = json.dumps({"assetTreeCid": metadata_cid, "weightsRoot": to_hex(tree.root)}, sort_keys=True)
    world.sent("ERC-7053 commit", creator.evidence.commit(metadata_cid, commit))
    reviewed = world.as_("registrar").models.review(
        model_id, Review.APPROVED, "weights, range and metadata agree"
    )
    world.sent("the registrar approves", reviewed)
    world.facts |= {
        "model_id": model_id,
        "terms_hash": hashlib.sha256(LICENSE_TEXT.encode()).digest(),
        "declared": declared,
    }


def _private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
