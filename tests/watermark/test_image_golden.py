"""Marks of pictures: detectors make the same of fixed integers on every machine, with one thread and with two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import test_dss

GOLDEN: Final = {
    "dss": [test_dss.GOLDEN["as it is"], test_dss.GOLDEN["cropped"]],
    "lkd": "be9b2906af62a94c8e2a7db16192ba9e",  # that of test_lkd.py
    "kgs": "dc0e35c54962a3c35e6bb9b4711de21f",
}
SCRIPT: Final = """
import hashlib, json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import test_dss, test_lkd
from zhiyi_watermark import prf
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.image_generated import Kgs, KgsSpec, Noise, View
from zhiyi_watermark.payload import Long
from zhiyi_watermark.pictures import Picture

def dss():
    mark = Dss(test_dss.KEY)
    picture = test_dss.integer_marked(mark, 192)
    for pixels in (picture, np.ascontiguousarray(picture[17:162, 5:150])):
        readings = mark.chips([Picture(pixels)])
        said = mark.verdict(readings, test_dss.USERS)
        assert said.license == test_dss.PAYLOAD.fingerprint
        yield hashlib.sha256(readings.astype("<i8").tobytes() + said.digest(mark.kit_key)).hexdigest()[:32]

def lkd():
    extractor = test_lkd.small_extractor()
    state = hashlib.sha256(extractor.spec_hash())
    for seed, (height, width) in enumerate(((32, 32), (57, 41), (200, 90))):
        state.update(extractor.read(Picture(test_lkd.photo(seed, height, width)), wide=True).q.tobytes())
    return state.hexdigest()[:32]

def kgs():
    key = bytes(range(32))
    mark = Kgs(key, KgsSpec("0" * 64, "epsilon", 4, 32, 32, 2))
    drawn = prf.keystream(prf.derive_key(key, "golden noise"), 2 * mark.spec.chips).astype(np.int64)
    size, other = drawn.reshape(2, *mark.spec.shape)
    signs = mark.signs(Long(123_456, 77), 3210) * np.where(other < 64, -1, 1)  # a quarter are wrong
    q = np.stack([(other >> 4) - 8, signs * (size >> 5)]).astype(np.int8)
    noise = Noise(q, (View(), View(flip=True)), mark.spec.spec_hash().hex(), "00")
    chosen, said = mark.chosen(noise), mark.verdict([noise], 1 << 16)
    assert (chosen.reading, chosen.nonce, said.license) == (1, 3210, 123_456)
    listed = mark.verdict([noise], [77], range(123_000, 123_900))
    assert listed.license == 123_456
    fits = [mark.sync_fit(np.roll(reading, 1, axis=2), reach=2) for reading in q]
    state = hashlib.sha256(noise.digest() + chosen.sums.astype("<i8").tobytes())
    state.update(json.dumps(fits).encode() + said.digest(mark.kit_key) + listed.digest(mark.kit_key))
    return state.hexdigest()[:32]

print(json.dumps({"dss": list(dss()), "lkd": lkd(), "kgs": kgs()}))
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_readings_and_verdicts_of_fixed_integers(threads: int) -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    around = os.environ | dict.fromkeys(names, str(threads))
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, here], env=around, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == GOLDEN
