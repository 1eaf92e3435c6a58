"""Speed of the marks of pictures, each beside what it is compared with; CPU seconds, one thread.

    python benchmarks/image_speed.py            # two CPU minutes; writes docs/benchmarks/image_speed.json and .md
    python benchmarks/image_speed.py --quick    # one round, short inversions; writes nothing

DSS marks and reads a photograph of 512 x 512 px beside invisible-watermark's RivaGAN (`make peers`; left out without
it) and one of 2048 x 2048 px. KGS reads a picture that tests/models/tiny-image makes, beside the inversion alone. LKD's
extractor (tests/models/tiny-image-lkd; left out without it) reads pictures of 256 x 256 px in two processes at once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from image_series import KEY, MAIN, USERS, PeerProcess
from report import ROOT, Row, environment, write
from text_speed import in_turn, ratio

sys.path.append(str(ROOT / "scripts"))

from fetch_model import FetchError
from fetch_pictures import SEEN, photographs
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.image_generated import Inverter, Kgs, generate, plan
from zhiyi_watermark.image_weights import NATIVE, Extractor, LkdReader
from zhiyi_watermark.payload import Long
from zhiyi_watermark.pictures import Picture

Rgb = npt.NDArray[np.uint8]
SIDE: Final = 512  # px
TIMES: Final = 4  # the large picture's side over SIDE
ROUNDS: Final = 5
TINY: Final = ROOT / "tests" / "models" / "tiny-image"
LKD: Final = ROOT / "tests" / "models" / "tiny-image-lkd" / "extractor.safetensors"
LKD_SIDE: Final = 256  # px
LKD_NATIVE: Final = 128  # px, twice the side of an extractor of 64 px: the largest also read as they are
LKD_PICTURES: Final = 40  # a process and round
LKD_LICENSES: Final = 100_000


def photograph(side: int) -> Rgb:
    """The middle of a held-out photograph.  # (side, side, 3)"""
    from PIL import Image

    chosen = next(p for p in photographs() if p.name not in SEEN)
    with Image.open(chosen.path) as file:
        image = file.convert("RGB")
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    return np.array(square.resize((side, side), Image.Resampling.LANCZOS))


def finished(rounds: int) -> list[Row]:
    """dss_vs_rivagan and dss_scaling."""
    dss, payload = Dss(KEY), Long(7, 7)
    pictures = {"small": Picture(photograph(SIDE)), "large": Picture(photograph(TIMES * SIDE))}
    marked = {name: dss.embed(picture, payload) for name, picture in pictures.items()}
    if any(dss.detect(picture, USERS).payload != dss.code.message(payload) for picture in marked.values()):
        raise RuntimeError(
            "the marked photographs of this benchmark are not detected, so their time says nothing"
        )
    runs: dict[str, Callable[[], object]] = {}
    for name in pictures:
        runs[f"mark {name}"] = lambda name=name: dss.embed(pictures[name], payload)  # type: ignore[misc]  # bound early
        runs[f"read {name}"] = lambda name=name: dss.detect(marked[name], USERS)  # type: ignore[misc]  # bound early
    found = in_turn(runs, rounds)
    both = {
        name: [a + b for a, b in zip(found[f"mark {name}"], found[f"read {name}"], strict=True)]
        for name in pictures
    }
    size = f"{SIDE} x {SIDE} px"
    rows = []
    with PeerProcess() as process:
        if process.installed:
            theirs = rivagan(process, pictures["small"].rgb, rounds)
            seconds = statistics.median(theirs)
            rows.append(
                Row("dss_vs_rivagan", f"RivaGAN's seconds over DSS's, marking and reading {size}",
                    seconds / statistics.median(both["small"]), "", rounds, 3.0, ">=", (MAIN["rivagan"], seconds))
            )  # fmt: skip
    larger = [big / (TIMES * TIMES * small) for big, small in zip(both["large"], both["small"], strict=True)]
    rows += [
        Row("dss_scaling", f"marking and reading {TIMES * TIMES} times the pixels of {size}: seconds a pixel",
            statistics.median(larger), "", rounds, 1.15, "<="),
        *(
            Row(f"dss_{what}_{name}_s", f"{verb} {side} x {side} px", statistics.median(found[f"{what} {name}"]),
                "s", rounds)
            for name, side in (("small", SIDE), ("large", TIMES * SIDE))
            for what, verb in (("mark", "marking"), ("read", "reading"))
        ),
    ]  # fmt: skip
    return rows


def rivagan(process: PeerProcess, picture: Rgb, rounds: int) -> list[float]:
    """CPU seconds of RivaGAN for marking and reading, after one round that is not counted."""
    bits = np.random.default_rng(0).integers(0, 2, 32, dtype=np.uint8)
    spent = []
    for _ in range(rounds + 1):
        marked = process.embed("rivagan", picture, bits)
        ((said, seconds),) = process.read("rivagan", [marked.picture], len(bits))
        if (said == bits).mean() < 0.9:
            raise RuntimeError("RivaGAN does not read what it marked, so its time says nothing")
        spent.append(marked.seconds + seconds)
    return spent[1:]


def generated(rounds: int, steps: int) -> list[Row]:
    """kgs_detect_overhead: a picture made by the small model, read as it is."""
    import torch

    from train_image_model import load_pipeline

    torch.set_num_threads(1)
    pipeline: Any = load_pipeline(TINY)
    spec = plan(pipeline, steps=steps)
    mark, model = Kgs(KEY, spec), Inverter(pipeline, spec)
    picture = generate(pipeline, mark, ["a picture of an owl"], Long(7, 7), seed=1, steps=10)[0].picture
    pixels = torch.from_numpy(picture.rgb[None].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)

    def inverted() -> None:
        with torch.inference_mode():
            model.invert(model.encode(pixels), steps)

    noise = model.noise(picture, mark, ())
    runs: dict[str, Callable[[], object]] = {
        "inversion": inverted,
        "detection": lambda: mark.verdict([model.noise(picture, mark, ())], USERS),
        "verdict": lambda: mark.verdict([noise], USERS),
        "first": lambda: Kgs(KEY, spec).verdict([noise], USERS),
    }
    found = in_turn(runs, rounds)
    seconds = statistics.median(found["inversion"])
    what = f"detection of a picture as it is over its inversion in {steps} steps, {spec.chips} values"
    return [
        Row("kgs_detect_overhead", what, ratio(found, "detection", "inversion"), "", rounds, 1.05, "<="),
        Row("kgs_inversion_s", "inversion alone, batch of one", seconds, "s", rounds),
        *(
            Row(name, what, statistics.median(found[run]), "s", rounds)
            for name, what, run in (
                ("kgs_verdict_s", "from the integers to the verdict", "verdict"),
                ("kgs_first_verdict_s", "the same, a key's first", "first"),
            )
        ),
    ]


def _lkd_rate(path: str, count: int, side: int) -> float:
    """Pictures of that side a CPU second of one process."""
    extractor = Extractor.load(Path(path))
    rng = np.random.default_rng(0)
    pictures = [Picture(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]
    extractor.read(pictures[0])
    started = time.process_time()
    for picture in pictures:
        extractor.read(picture)
    return count / (time.process_time() - started)


def weights(rounds: int, path: Path = LKD, count: int = LKD_PICTURES) -> list[Row]:
    """lkd_detect_per_s; nothing without the extractor."""
    if not path.is_file():
        return []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        rates = {
            side: [sum(pool.map(_lkd_rate, [str(path)] * 2, [count] * 2, [side] * 2)) for _ in range(rounds)]
            for side in (LKD_SIDE, LKD_NATIVE)
        }
    reader = LkdReader(Extractor.load(path), KEY)
    reading = reader.extractor.read(Picture(photograph(LKD_SIDE)))
    spent = in_turn({"verdict": lambda: reader.verdict([reading], range(LKD_LICENSES))}, 1)["verdict"][0]
    own, rows = reader.extractor.side, []
    for id_, side, target in (
        ("lkd_detect_per_s", LKD_SIDE, 50.0),
        ("lkd_detect_native_per_s", LKD_NATIVE, None),
    ):
        how = f"as they are and at {own} px" if side <= NATIVE * own else f"at {own} px alone"
        rows.append(
            Row(id_, f"pictures of {side} x {side} px read {how}, two processes", statistics.median(rates[side]),
                "pictures per second of two cores", rounds, target, ">=" if target else None)
        )  # fmt: skip
    return [
        *rows,
        Row("lkd_verdict_1e5_s", f"a case's integers scored for {LKD_LICENSES} licenses, once a case", spent, "s", 1),
    ]  # fmt: skip


PARTS: Final = ("dss", "kgs", "lkd")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one round, short inversions; writes nothing")
    parser.add_argument(
        "--only", default="", metavar="MARK,...", help=f"of {', '.join(PARTS)}; writes nothing"
    )
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    if unknown := sorted(set(only) - set(PARTS)):
        sys.exit(f"error: no mark {', '.join(unknown)}; there are {', '.join(PARTS)}")
    rounds, steps = (1, 5) if options.quick else (ROUNDS, 50)
    made: dict[str, Callable[[], list[Row]]] = {
        "dss": lambda: finished(rounds),
        "kgs": lambda: generated(rounds, steps),
        "lkd": lambda: weights(rounds),
    }
    try:
        rows = [row for name in only or PARTS for row in made[name]()]
    except FetchError as error:
        sys.exit(f"error: {error}")
    present = {row.id for row in rows}
    for id_, why in (
        ("dss_vs_rivagan", "`make peers` installs RivaGAN"),
        ("lkd_detect_per_s", f"no {LKD.name}"),
    ):
        if not only and id_ not in present:
            print(f"left out: {id_}: {why}", file=sys.stderr)
    for row in rows:
        met = {None: "", True: "met", False: "NOT MET"}[row.met]
        beside = f"{row.against[0]} {row.against[1]:.4g}" if row.against else ""
        print(f"{row.id:24} {row.value:10.4g} {row.unit:34} {met:8} {beside}")
    if options.quick or only:
        return 0
    write("image_speed", "make bench-image-speed", rows, environment=environment(threads="1"), notes=NOTES)
    return 0 if all(row.met is not False for row in rows) else 1


NOTES: Final = """
CPU seconds of one thread, medians, after one round that is not counted. RivaGAN runs in its own process with its
networks on one thread; loading them is not counted. A KGS detection here looks for no turns and crops: that is more
inversions, not more reading. The signs under all nonces are drawn once a key; that is in `kgs_first_verdict_s` only.
LKD brings a picture to its extractor's side, and reads it as it is too where that is at most twice the side.
"""

if __name__ == "__main__":
    sys.exit(main())
