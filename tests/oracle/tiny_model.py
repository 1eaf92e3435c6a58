"""A tiny registered model, and everything that its registration fixes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zhiyi.delivery import Bundle, DeclaredRange, Tree, range_for_tensors
from zhiyi.types import ModelRecord
from zhiyi_watermark import weights

MODEL_KEY = bytes(range(32))


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """F32 arrays, in the order given."""
    header, at = {}, 0
    for name, value in tensors.items():
        size = value.size * 4
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as out:
        out.write(len(raw).to_bytes(8, "little") + raw)
        for value in tensors.values():
            out.write(value.astype("<f4").tobytes())


@dataclass(frozen=True)
class Registered:
    """A model as a creator registers it."""

    folder: Path
    bundle: Bundle
    tree: Tree
    declared: DeclaredRange
    spec: weights.WfpSpec
    kit: weights.TraceKit
    record: ModelRecord


def make_registered(folder: Path, seed: int = 7) -> Registered:
    """Four megabytes of weights, of which two tensors are declared."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    tensors = {"model.embed_tokens.weight": rng.normal(0, 0.02, (1500, 256)).astype(np.float32)}
    for layer in range(3):
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"] = rng.normal(0, 0.02, (128, 512)).astype(
            np.float32
        )
        tensors[f"model.layers.{layer}.mlp.up_proj.weight"] = rng.normal(0, 0.02, (512, 128)).astype(
            np.float32
        )
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text('{"model_type":"tiny"}')
    spec = weights.plan(folder, epsilon=0.06, code_bits=128, weights_per_bit=256, weights_per_share=2048)
    kit = weights.TraceKit.derive(MODEL_KEY, spec)
    bundle = Bundle.scan(folder)
    tree = Tree(bundle.leaves(folder))
    declared = range_for_tensors(folder, bundle, [t.name for t in spec.tensors], max_change_ppm=100_000)
    record = ModelRecord(
        weights_root=tree.root,
        total_bytes=bundle.total_bytes,
        chunks=bundle.chunks,
        chunk_size=bundle.chunk_size,
        detector_hash=spec.spec_hash(),
        trace_key_commit=kit.commitment(),
        range_hash=declared.hash(),
    )
    return Registered(folder, bundle, tree, declared, spec, kit, record)
