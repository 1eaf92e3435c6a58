"""The marks of pictures under attack: DSS on photographs that it was not designed on.

    python benchmarks/image_bench.py            # docs/benchmarks/image.json, .md: every photograph (minutes)
    python benchmarks/image_bench.py --quick    # every fifth one; prints, writes nothing

Photographs and their licenses: scripts/fetch_pictures.py. Bit accuracy is of the 64 message bits after the code, wrong
messages included; a message counts as read when the detector names it at global p < 1e-6 among 65,536 users and all
2^28 fingerprint numbers. Attacks and their parameters: zhiyi_watermark.attacks.image.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from report import Row, environment, proportion, write

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

from fetch_model import FetchError  # noqa: E402
from fetch_pictures import squares  # noqa: E402
from zhiyi_watermark.attacks.image import SUITE  # noqa: E402
from zhiyi_watermark.image_finished import Dss  # noqa: E402
from zhiyi_watermark.payload import Long  # noqa: E402
from zhiyi_watermark.pictures import Picture  # noqa: E402

Rgb = npt.NDArray[np.uint8]
KEY: Final = hashlib.sha256(b"zhiyi image benchmark").digest()
USERS: Final = 1 << 16
CLIPPED: Final = 0.2  # part of the px that brightness may clip before a picture is counted apart

# row id, attack, what, target of the bit accuracy, target of the message
ROWS: Final = (
    ("none", "none", "as saved", 0.999, None),
    ("j80", "jpeg80", "JPEG 80", None, None),
    ("j50", "jpeg50", "JPEG 50", 0.995, 0.97),
    ("j25", "jpeg25", "JPEG 25", 0.99, None),
    ("blur4", "blur4_8x8", "Gaussian blur, sigma 4 px in 8 x 8", 0.98, None),
    ("blur4_full", "blur4", "Gaussian blur, sigma 4 px, whole kernel", None, None),
    ("noise05", "noise05", "Gaussian noise .05", None, None),
    ("noise10", "noise10", "Gaussian noise .1", 0.98, None),
    ("bright15", "bright15", "brightness 1.5, under 20 % of px clipped", 0.99, None),
    ("bright15_clipped", "bright15", "brightness 1.5, the other pictures", None, None),
    ("bright_u6", "bright_u6", "brightness U(0, 6)", None, None),
    ("saturation15", "saturation15", "saturation 1.5", None, None),
    ("contrast15", "contrast15", "contrast 1.5", None, None),
    ("resize50", "resize50", "resized to 50 % and back", None, None),
    ("resize30", "resize30", "resized to 30 % and back", 0.99, None),
    ("crop_resize75", "crop_resize75", "cropped to 75 % of the area, resized to the size before", None, None),
    ("crop50", "crop50", "cropped to 50 % of the area, blind", 0.97, 0.90),
    ("crop10", "crop10", "cropped to 10 % of the area, blind", None, None),
    ("drop40", "drop40", "40 % of the area black", None, None),
    ("rot5", "rotate5", "rotated by 5 degrees, blind", None, None),
    ("rot25", "rotate25", "rotated by 25 degrees, blind", 0.95, None),
    ("rot75", "rotate75", "rotated by 75 degrees, blind", None, None),
    ("flip", "flip", "mirrored", None, None),
    ("median7", "median7", "median of 7 x 7", 0.99, None),
)


class Reading(NamedTuple):
    """What the detector made of one attacked picture."""

    right: int  # of 64 bits
    named: bool
    log2_p: float
    seconds: float


def read(dss: Dss, payload: Long, attacked: Rgb) -> Reading:
    """One detection, timed."""
    started = time.process_time()
    readings = dss.chips([Picture(attacked)])
    said = dss.verdict(readings, USERS, 1 << 28)
    seconds = time.process_time() - started
    message = np.unpackbits(np.frombuffer(dss.code.message(payload), dtype=np.uint8))
    named = said.payload == dss.code.message(payload)
    return Reading(int((dss.bits(readings) == message).sum()), named, said.log2_p_global, seconds)


def psnr(marked: Rgb, plain: Rgb) -> float:
    """dB over all channels; infinite for equal pictures."""
    error = float(((marked.astype(np.float64) - plain) ** 2).mean())
    return 10 * np.log10(255**2 / error) if error else float("inf")


def ssim(marked: Rgb, plain: Rgb) -> float:
    """Mean structural similarity of luma (Wang et al. 2004): Gaussian window of 1.5 px, K = .01, .03."""
    from scipy.ndimage import gaussian_filter

    weights = np.array([0.299, 0.587, 0.114])
    x, y = marked.astype(np.float64) @ weights, plain.astype(np.float64) @ weights

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(gaussian_filter(values, 1.5, truncate=3.5))

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def measure(names: list[str], every: int) -> tuple[list[Row], list[str]]:
    """Rows over every n-th held-out photograph, and a line of each picture."""
    dss = Dss(KEY)
    quality: list[tuple[float, float]] = []
    embedding: list[float] = []
    found: dict[str, list[Reading]] = defaultdict(list)
    lines = []
    wanted = [row for row in ROWS if not names or row[0] in names]
    for number, (name, plain) in enumerate(list(squares(seen=False))[::every]):
        payload = Long(1_000_003 * number % (1 << 28), 7919 * number % USERS)
        started = time.process_time()
        marked = dss.embed(Picture(plain), payload).rgb
        embedding.append(time.process_time() - started)
        quality.append((psnr(marked, plain), ssim(marked, plain)))
        clipped = float((marked.max(axis=2) * 1.5 > 255).mean()) > CLIPPED
        wrong = []
        for id_, attack, *_ in wanted:
            if id_.startswith("bright15") and clipped != id_.endswith("clipped"):
                continue
            reading = read(dss, payload, SUITE[attack](marked, number))
            found[id_].append(reading)
            if not reading.named:
                wrong.append(f"{id_} {reading.right}/64")
        lines.append(
            f"{name}: {quality[-1][0]:.2f} dB, SSIM {quality[-1][1]:.4f}; not named: {', '.join(wrong)}"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    n = len(quality)
    rows = [
        Row("dss_psnr", "PSNR of RGB, mean", float(np.mean([q[0] for q in quality])), "dB", n, 43.0, ">="),
        Row("dss_psnr_least", "PSNR of the picture that needs most", min(q[0] for q in quality), "dB", n),
        Row("dss_ssim", "SSIM of luma, mean", float(np.mean([q[1] for q in quality])), "", n, 0.98, ">="),
    ]
    for id_, _, what, bits, message in wanted:
        if not found[id_]:
            continue
        got = found[id_]
        accuracy = sum(r.right for r in got) / (64 * len(got))
        rows.append(
            Row(f"dss_{id_}", f"{what}: bits right", accuracy, "", len(got), bits, ">=" if bits else None)
        )
        rows.append(
            proportion(
                f"dss_message_{id_}",
                f"{what}: named at p < 1e-6",
                sum(r.named for r in got),
                len(got),
                target=message,
                sense=">=" if message else None,
            )
        )
    rows.append(Row("dss_embed_seconds", "marking a picture, CPU", float(np.mean(embedding)), "s", n))
    every_reading = [r.seconds for got in found.values() for r in got]
    rows.append(
        Row(
            "dss_detect_seconds", "reading one, mean over attacks, CPU", float(np.mean(every_reading)), "s", n
        )
    )
    return rows, lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="every fifth photograph; writes nothing")
    parser.add_argument("--only", default="", metavar="ROW,...", help="these attacks alone; writes nothing")
    given = parser.parse_args()
    names = [name for name in given.only.split(",") if name]
    if unknown := sorted(set(names) - {row[0] for row in ROWS}):
        sys.exit(f"error: no row {', '.join(unknown)}; there are {', '.join(row[0] for row in ROWS)}")
    try:
        rows, lines = measure(names, 5 if given.quick else 1)
    except FetchError as error:
        sys.exit(f"error: {error}")
    for row in rows:
        met = (
            ""
            if row.met is None
            else f"  target {row.sense} {row.target:g}: {'met' if row.met else 'NOT MET'}"
        )
        print(f"{row.id:28s} {row.value:.4f} {row.unit} n={row.n}{met}")
    if not given.quick and not names:
        notes = "\n".join(["Each picture:", "", *(f"- {line}" for line in lines)])
        print(
            write("image", "python benchmarks/image_bench.py", rows, environment=environment(), notes=notes)
        )


if __name__ == "__main__":
    main()
