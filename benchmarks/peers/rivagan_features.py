"""What RivaGAN's decoder (Zhang et al. 2019; in the package invisible-watermark) gives for pictures: 32 values each.

    build/peers/pictures/bin/python benchmarks/peers/rivagan_features.py PICTURES.npy FEATURES.npy

PICTURES: RGB uint8 (n, height, width, 3); enlarged to a short side of 256 px, as the decoder takes.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

LEAST = 256  # px of the short side


def main() -> None:
    """The command."""
    found = find_spec("imwatermark")
    if found is None or not found.submodule_search_locations:
        sys.exit("invisible-watermark is not installed")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(next(iter(found.submodule_search_locations))) / "rivagan_decoder.onnx"
    decoder = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = decoder.get_inputs()[0].name
    out = []
    for picture in np.load(sys.argv[1], allow_pickle=False):
        factor = max(1.0, LEAST / min(picture.shape[:2]))
        size = round(picture.shape[1] * factor), round(picture.shape[0] * factor)
        large = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)[..., ::-1]  # BGR, as in the package
        frame = (large.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None, :, None]
        out.append(decoder.run(None, {name: np.ascontiguousarray(frame)})[0].reshape(-1))
    np.save(sys.argv[2], np.stack(out).astype(np.float32))


if __name__ == "__main__":
    main()
