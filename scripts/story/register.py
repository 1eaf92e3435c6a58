"""1. The creator registers the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from story.world import World
from zhiyi import metadata
from zhiyi.delivery import Bundle, DeclaredRange, Tree, range_for_tensors
from zhiyi.types import ModelRecord, Preference, Preferences, Review, Split, to_hex
from zhiyi_watermark import weights

COLLABORATOR_BPS = 1_000  # 10 % of what is left after the platform
MAX_CHANGE_PPM = 30_000  # a fingerprint may change a tensor by at most 3 % of its norm
LICENSE_TEXT = "ZhiYiChain demo license: use as the order's terms say; no redistribution of the weights."
TERMS_HASH = hashlib.sha256(LICENSE_TEXT.encode()).digest()
PREFERENCES = Preferences(
    data_mining=Preference.ALLOWED,
    ai_inference=Preference.CONSTRAINED,
    ai_training=Preference.NOT_ALLOWED,
    ai_generative_training=Preference.NOT_ALLOWED,
)


@dataclass(frozen=True)
class Measured:
    """What the creator's files come to; nothing of it needs a chain."""

    folder: Path
    bundle: Bundle
    tree: Tree
    kit: weights.TraceKit
    declared: DeclaredRange

    @property
    def record(self) -> ModelRecord:
        """What the chain keeps of the model."""
        return ModelRecord(
            weights_root=self.tree.root,
            total_bytes=self.bundle.total_bytes,
            chunks=self.bundle.chunks,
            chunk_size=self.bundle.chunk_size,
            detector_hash=self.kit.spec.spec_hash(),
            trace_key_commit=self.kit.commitment(),
            range_hash=self.declared.hash(),
        )


def measure(folder: Path, spec: weights.WfpSpec, model_key: bytes, max_change_ppm: int) -> Measured:
    """Hashes the weights, derives the trace kit and declares what a fingerprint may change."""
    bundle = Bundle.scan(folder)
    names = [tensor.name for tensor in spec.tensors]
    return Measured(
        folder=folder,
        bundle=bundle,
        tree=Tree(bundle.leaves(folder)),
        kit=weights.TraceKit.derive(model_key, spec),
        declared=range_for_tensors(folder, bundle, names, max_change_ppm=max_change_ppm),
    )


def describe(
    world: World,
    made: Measured,
    *,
    name: str,
    description: str,
    preferences: Preferences,
    home: Path,
    params: int,
    modality: str = "text",
) -> str:
    """Publishes leaves, manifest, license text and metadata; returns the metadata's CID."""
    ipfs = world.as_("creator").ipfs
    made.tree.save(home / "leaves.bin")
    described = metadata.build(
        name=name,
        description=description,
        preferences=preferences,
        license=metadata.License(
            name="demo license",
            document=f"ipfs://{ipfs.add_bytes(LICENSE_TEXT.encode())}",
            terms_hash=TERMS_HASH,
        ),
        model={
            "weights_root": to_hex(made.tree.root),
            "leaves_cid": ipfs.add_file(home / "leaves.bin"),
            "manifest_cid": ipfs.add_bytes(made.bundle.manifest),
            "declared_range": made.declared.to_json(),
            "format": "safetensors",
            "params": params,
            "modality": modality,
        },
        watermark={
            "alg": weights.METHOD_CONFIRM,
            "spec": json.loads(made.kit.spec.to_json()),
            "key_commitment": to_hex(made.kit.commitment()),
        },
    )
    return ipfs.add_bytes(metadata.encode(described))


def collaborators(world: World) -> Sequence[Split]:
    """Who shares the income with the owner."""
    return (Split(account=world.address("collaborator"), bps=COLLABORATOR_BPS),)


def play(world: World) -> None:
    """Hashes the weights, commits to key and range, publishes metadata, registers, and a registrar approves."""
    creator = world.as_("creator")
    model_key = hashlib.sha256(b"demo watermark key" + world.key("creator")).digest()
    made = measure(world.model, weights.plan(world.model), model_key, MAX_CHANGE_PPM)
    bundle, tree = made.bundle, made.tree
    world.say(
        f"bundle: {bundle.total_bytes:,} bytes in {bundle.chunks:,} chunks, root {to_hex(tree.root)[:18]}…"
    )
    share = made.declared.covered_bytes(bundle) / bundle.total_bytes
    world.say(
        f"declared range: {len(made.declared.intervals)} intervals, {share:.1%} of the bytes, "
        f"{len(made.kit.spec.tensors)} tensors"
    )

    home = world.folder("creator")
    private(home / "kit.json", made.kit.to_json().encode())
    (home / "range.json").write_text(json.dumps(made.declared.to_json()))
    private(home / "model.key", model_key)
    metadata_cid = describe(
        world,
        made,
        name="SmolLM2-135M-Instruct",
        description="A small instruction-tuned language model (Apache-2.0), registered by the demo.",
        preferences=PREFERENCES,
        home=home,
        params=134_515_008,
    )
    world.say(f"metadata with dataMiningPreference: ipfs://{metadata_cid}")
    done = creator.models.register(made.record, metadata_cid, PREFERENCES, collaborators(world))
    model_id = done.model_id
    world.sent(f"model {model_id} registered, 10 % of its income to the collaborator", done)
    commit = json.dumps({"assetTreeCid": metadata_cid, "weightsRoot": to_hex(tree.root)}, sort_keys=True)
    world.sent("ERC-7053 commit", creator.evidence.commit(metadata_cid, commit))
    reviewed = world.as_("registrar").models.review(
        model_id, Review.APPROVED, "weights, range and metadata agree"
    )
    world.sent("the registrar approves", reviewed)
    world.facts |= {"model_id": model_id, "terms_hash": TERMS_HASH, "declared": made.declared}


def private(path: Path, data: bytes) -> None:
    """A file that only its owner reads."""
    path.touch(mode=0o600)
    path.write_bytes(data)
