"""The same integers on every machine: figures of fixed files, with one thread and with two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

GOLDEN: Final = {
    "spec": "4bd13db044ef5656e640f82d92cd63c77fadc3b23a7bdcbc7c2bdc421f0b1bec",
    "blind": [3330, 121, 6747],  # T, n, sum q^2
    "informed": [4210, 128, 3200],
    "confirm": [20425, 4085, 102125],
    "shuffled": [20048, 3974, 159426],
    "rounded": [18151, 3704, 286843],
}
SCRIPT: Final = """
import json, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from zhiyi_watermark import prf, weights
from zhiyi_watermark.attacks import weights as attacks

folder, key = Path(sys.argv[1]), bytes(range(32))
names = [f"model.layers.{i}.mlp.down_proj.weight" for i in range(4)]
shape = (96, 128)
base = {}
for i, name in enumerate(names):
    drawn = prf.keystream(prf.derive_key(key, "base", i), 4 * 96 * 128).reshape(*shape, 4).sum(axis=2, dtype=np.int64)
    base[name] = ((drawn - 510) / np.float32(4096)).astype(np.float32)
save_file(base, folder / "base.safetensors")
spec = weights.WfpSpec(tuple(weights.TensorShape(n, shape) for n in names), 0.03125, 128, 192, 2, 4096)
kit = weights.TraceKit.derive(key, spec)
seeds = [prf.derive_key(key, "share", i) for i in range(2)]
copy, base = folder / "copy.safetensors", folder / "base.safetensors"
weights.mark(base, copy, spec, kit.trace_key, 5, seeds)
attacks.reshuffle(copy, folder / "shuffled", attacks.Heads(2, 1, 64), seed=1, scale=1, residual=True)
attacks.quantise(copy, folder / "rounded", 5)
figures = lambda found: [found.T, found.n, found.sum_q2]
print(json.dumps({
    "spec": spec.spec_hash().hex(),
    "blind": figures(weights.trace(copy, kit, range(50))),
    "informed": figures(weights.trace(copy, kit, range(50), base=base)),
    "confirm": figures(weights.confirm(copy, base, spec, 0, seeds[0])),
    "shuffled": figures(weights.confirm(folder / "shuffled", base, spec, 0, seeds[0])),
    "rounded": figures(weights.confirm(folder / "rounded", base, spec, 0, seeds[0])),
}))
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_the_statistics_of_fixed_files(threads: int, tmp_path: Path) -> None:
    """Shuffled and rounded copies go through the alignment, whose sums are floats that hold integers."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    around = os.environ | dict.fromkeys(names, str(threads))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=around, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == GOLDEN
