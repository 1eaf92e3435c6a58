"""invisible-watermark 0.2.0 (RivaGAN: Zhang et al. 2019; dwtDctSvd) and blind-watermark 0.4.4 as peers; runs in the
environment of `make peers` and answers each line of JSON on standard input with one.

    build/peers/pictures/bin/python benchmarks/peers/pictures_peer.py

{"method": "rivagan" | "dwtdctsvd" | "blindwm", "bits": [0, 1, ...], "picture": FILE, "out": FILE} marks a picture:
{"seconds": ...}. {"method": ..., "length": N, "pictures": [FILE, ...]} reads: {"bits": [[...], ...], "seconds": [...]}.
Files are .npy, RGB uint8 (height, width, 3); seconds are of the CPU. Parameters are the packages' own and all runs on
one thread; networks are those in the package. A picture of under 256 x 256 px, which invisible-watermark refuses, is
enlarged to a short side of 512 for it.
"""

from __future__ import annotations

import json
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
LEAST: Final = 256 * 256  # px that invisible-watermark takes
ENLARGED: Final = 512  # px of the short side


@cache
def _networks() -> None:
    """RivaGAN's sessions on one thread; loadModel, as the package has it, takes all cores."""
    import imwatermark
    import onnxruntime
    from imwatermark.rivaGan import RivaWatermark

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    folder = Path(imwatermark.__path__[0])
    made = [
        onnxruntime.InferenceSession(folder / f"rivagan_{part}.onnx", options, ["CPUExecutionProvider"])
        for part in ("encoder", "decoder")
    ]
    RivaWatermark.encoder, RivaWatermark.decoder = made


def _name(method: str) -> str:
    """invisible-watermark's name of its method."""
    if method == "rivagan":
        _networks()
        return "rivaGan"
    return {"dwtdctsvd": "dwtDctSvd"}[method]


def embed(method: str, picture: UInt8, bits: list[int]) -> UInt8:
    """The marked picture.  # (height, width, 3)"""
    bgr = np.ascontiguousarray(picture[..., ::-1])
    if method == "blindwm":
        mark = _blind()
        mark.read_img(img=bgr)
        mark.read_wm(list(bits), mode="bit")
        made = mark.embed()
    else:
        from imwatermark import WatermarkEncoder

        encoder = WatermarkEncoder()
        encoder.set_by_bits(bits)
        made = encoder.encode(bgr, _name(method))
    out: UInt8 = np.clip(np.rint(made), 0, 255).astype(np.uint8)[..., ::-1]
    return np.ascontiguousarray(out)


def read(method: str, picture: UInt8, length: int) -> list[int]:
    """The bits that the peer's decoder says."""
    bgr = np.ascontiguousarray(picture[..., ::-1])
    if method == "blindwm":
        with np.errstate(all="ignore"):  # where all its averages are equal it divides by no bits at all
            said = _blind().extract(embed_img=bgr, wm_shape=length, mode="bit")
    else:
        from imwatermark import WatermarkDecoder

        said = WatermarkDecoder("bits", length).decode(_enlarged(bgr), _name(method))
    return [int(bit) for bit in np.asarray(said).reshape(-1)]


def _blind() -> Any:
    import blind_watermark

    blind_watermark.bw_notes.close()
    return blind_watermark.WaterMark(password_wm=1, password_img=1)


def _enlarged(bgr: UInt8) -> UInt8:
    height, width = bgr.shape[:2]
    if height * width >= LEAST:
        return bgr
    part = ENLARGED / min(height, width)
    size = round(width * part), round(height * part)
    return np.asarray(cv2.resize(bgr, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """One request; see above."""
    if asked["method"] == "rivagan":
        _networks()  # not in the seconds
    if "out" in asked:
        plain = np.load(asked["picture"])
        started = time.process_time()
        marked = embed(asked["method"], plain, asked["bits"])
        seconds = time.process_time() - started
        np.save(asked["out"], marked)
        return {"seconds": seconds}
    said, spent = [], []
    for path in asked["pictures"]:
        picture = np.load(path)
        started = time.process_time()
        said.append(read(asked["method"], picture, asked["length"]))
        spent.append(time.process_time() - started)
    return {"bits": said, "seconds": spent}


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # the packages print
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
