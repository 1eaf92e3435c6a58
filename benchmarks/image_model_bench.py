"""KGS beside Gaussian Shading and Tree-Ring on pictures that one diffusion model made, under attack.

    python benchmarks/image_model_bench.py               # all figures, from what is kept: image_generated.*
    python benchmarks/image_model_bench.py --quick       # the same from a few pictures each; writes nothing
    python benchmarks/image_model_bench.py --list        # what is kept and what is missing
    python benchmarks/image_model_bench.py --generate [--only CONDITION,...] [--minutes M]     # makes what is missing
    python benchmarks/image_model_bench.py --model FOLDER --prompts FILE --kept FOLDER ...     # any Stable Diffusion

Drawing, attacking and inverting take hours of a core in all; they can be stopped at any time and go on at the first
missing unit, and every beginning gives a usable table (image_model_series.units). What inversion gave is kept in
benchmarks/pictures/, by the hash of the model and of everything else that made it: what another model made is never
used. The figures need the model only for its hash. The peers are our own re-implementations (benchmarks/peers).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from report import ROOT, environment, write

sys.path.append(str(ROOT / "scripts"))

from fetch_model import FetchError
from image_data import NAMES, Pictures
from image_model_figures import Figures, plot
from image_model_series import MARKS, Condition, Rgb, Settings, Studio, conditions, todo
from image_table import unite
from inversions import FOLDER, LIMIT, Store
from train_image_model import MODEL, device
from zhiyi_watermark.errors import UnavailableError
from zhiyi_watermark.image_generated import check_solver
from zhiyi_watermark.model_folder import load_pipeline

EXAMPLES: Final = "examples.png"
SHOWN: Final = (
    "jpeg25",
    "noise10",
    "blur4",
    "median7",
    "reencode_other",
    "img2img30",
    "img2img50",
    "rotate75",
)


def say(what: str) -> None:
    """To people, not into files."""
    print(what, file=sys.stderr, flush=True)


# --- generation ---------------------------------------------------------------------------------------------


class Pace:
    """How long a picture of a condition takes."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def told(self, condition: Condition, pictures: int, seconds: float) -> None:
        """After a unit."""
        self._seconds[condition.name] = seconds / pictures

    def expected(self, condition: Condition, pictures: int) -> float:
        """Seconds; those of the slowest condition known where this one is not."""
        each = self._seconds.get(condition.name, max(self._seconds.values(), default=0.0))
        return each * pictures


def generate(store: Store, studio: Studio, wanted: Sequence[Condition], minutes: float) -> int:
    """Makes what is missing, unit after unit, until the time is over. Returns how many units are still missing."""
    deadline = time.monotonic() + 60 * minutes
    pace, unmade = Pace(), 0
    left = list(todo(store, studio, wanted))
    refused: set[str] = set()
    for at, unit in enumerate(left):
        condition, count = unit.condition, len(unit.indices)
        if condition.name in refused:
            unmade += 1
            continue
        started = time.monotonic()
        if started + pace.expected(condition, count) > deadline:
            unmade += len(left) - at
            say(f"{len(left) - at} units left for another time")
            break
        try:
            items = studio.make(unit)
        except UnavailableError as error:
            if condition.group != "features":
                raise
            say(f"{condition.name}: {error}")
            refused.add(condition.name)
            unmade += 1
            continue
        store.add(condition.name, items, studio.keys(condition))
        spent = time.monotonic() - started
        pace.told(condition, count, spent)
        rest = sum(pace.expected(u.condition, len(u.indices)) for u in left[at + 1 :]) / 60
        where = f"{condition.name} {unit.mark} {unit.indices[0]}-{unit.indices[-1]}"
        say(
            f"{where}: {spent / count:.2f} s a picture; {len(left) - at - 1} units left, at most {rest:.0f} min"
        )
    if left:
        examples(store, studio)
    if store.size() > LIMIT:
        say(f"error: what is kept has {store.size()} bytes, at most {LIMIT} may be committed")
    return unmade


def examples(store: Store, studio: Studio) -> None:
    """examples.png beside what is kept: eight pictures of each mark, and one of KGS after eight attacks."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    path = store.folder / EXAMPLES
    if _shown_model(path) == studio.spec.model_hash:
        return
    all_ = conditions(studio.side)
    columns = min(len(SHOWN), studio.settings.first)
    lines: list[list[Rgb]] = [[studio.picture(mark, i) for i in range(columns)] for mark in MARKS]
    attacked = []
    for condition in (all_[name] for name in SHOWN[:columns]):
        assert condition.run is not None
        attacked.append(condition.run(studio, "kgs", 0, **condition.parameters))
    lines.append(attacked)
    sheet = np.concatenate([np.concatenate(line, axis=1) for line in lines])
    about = PngInfo()
    about.add_text("model", studio.spec.model_hash)
    store.folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path, optimize=True, pnginfo=about)


def _shown_model(path: Path) -> str:
    from PIL import Image

    if not path.exists():
        return ""
    with Image.open(path) as shown:
        return str(shown.info.get("model", ""))


# --- figures ------------------------------------------------------------------------------------------------

NOTES: Final = """
![Share read against strength](image_generated.svg)
{examples}
Every prompt is drawn once with each mark and once without ({steps} steps of DDIM, guidance {guidance:g}), all pictures
of a mark with one message under one key; read by {inversion} steps of inversion without a prompt. KGS counts as read
when it names the message at global p < 1e-6 among 100,000 licenses, in rows `*_blind` among 65,536 users of each of
2^28 fingerprint numbers, too many to try each; Gaussian Shading, own re-implementation, when the {bits} known bits
match at p < 1e-6; Tree-Ring, own re-implementation, names nobody and is given by its area under the ROC curve. Bits
right are those of the likeliest of all words, no license known. n is told for each row. Intervals of bits right are
bootstrapped over pictures.

- Distortions leave every pixel at its place or mirror the picture; turns and crops have rows of their own, where KGS
  looks for them ({search} steps an inversion) and the peers, which have no search, read the picture as it is.
  `cropscale75` keeps the proportions; `cropstretch75`, the whole height and 75 % of the width stretched to the size
  before, is what Tree-Ring's own code does under the name of crop and scale, and nothing searches for it. Sizes in
  px are the papers' for 512 px times side / 512; `*_px` rows and `distortions_px` use the papers' px on these
  pictures of {side} px. JPEG's blocks and noise a pixel are as they are.
- Averaging subtracts the mean difference of marked pictures of ONE key and message and unmarked ones, or, in
  `average_noise20`, draws the picture again without the mean of the noise found in 20. The papers' 5,000 are not
  reached.
- Forgery: whoever has the model finds the noise of one marked picture and puts it into another, without the key. A
  high share there is a success of the forger. `forged_proxy_*`: the forger has the model fine-tuned on 100 unmarked
  pictures, the detector the model itself. A mark of this kind traces, it convicts nobody.
- `weights_*`: the picture is read by a model whose weights are not those that drew it.
- `kgs_fid_*`: features are 32 means of a random network with a fixed seed, and the 32 outputs of RivaGAN's decoder
  where it is installed (`make peers`). Real pictures are composed ones of the held-out split.
"""


def derive(store: Store, studio: Studio, all_: Mapping[str, Condition], quick: bool, report: bool) -> int:
    """Rows and plot. Returns the exit status: 1 if a target was missed. report: whether docs/ is written."""
    figures = Figures(studio, store, all_, 8 if quick else None)
    figures.derive()
    for row in figures.rows:
        verdict = "" if row.met is None else "met" if row.met else f"MISSED, {row.sense} {row.target:g}"
        print(f"{row.id:32} {row.value:.4f} n={row.n} {verdict}")
    for line in figures.missing:
        print(f"missing: {line}")
    if report and not quick and figures.rows:
        settings = studio.settings
        shown = (
            f"\n![Eight pictures of each mark, and one after attacks](../../benchmarks/pictures/{EXAMPLES})\n"
        )
        there = _shown_model(store.folder / EXAMPLES) == studio.spec.model_hash
        notes = NOTES.format(
            examples=shown if there else "", steps=settings.steps, guidance=settings.guidance,
            inversion=settings.inversion, search=settings.search, bits=studio.gs.bits, side=studio.side,
        )  # fmt: skip
        if figures.missing:
            notes += (
                "\nNot made yet: " + ", ".join(line.partition(":")[0] for line in figures.missing) + ".\n"
            )
        found = environment(
            model=f"{MODEL.relative_to(ROOT)}, SHA-256 {studio.spec.model_hash[:16]}",
            kept=f"{store.size()} bytes of what inversion gave",
        )
        write("image_generated", "make bench-image-model", figures.rows, environment=found, notes=notes)
        plot(figures.shares)
        unite()
    return int(any(row.met is False for row in figures.rows))


def report_kept(store: Store, studio: Studio, wanted: Sequence[Condition]) -> None:
    """What is there."""
    for condition in wanted:
        keys = studio.keys(condition)
        held, kept = store.read(condition.name), store.current(condition.name, keys)
        count: dict[str, int] = defaultdict(int)
        for mark, _ in kept:
            count[mark] += 1
        wants = {mark: condition.count(mark, studio.settings) for mark in (*MARKS, "reference")}
        told = ", ".join(f"{mark} {count[mark]} of {n}" for mark, n in wants.items() if n)
        stale = f"; {len(held) - len(kept)} of another model or code" if len(held) > len(kept) else ""
        print(f"{condition.name:18} {told}{stale}")
    print(f"{store.size()} bytes of {LIMIT}")


def composed() -> Any:
    """Real pictures of the held-out split, or None where font or photographs can't be had."""
    try:
        pictures = Pictures("check")
    except FetchError as error:
        say(f"no real pictures: {error}")
        return None
    return lambda i: pictures.batch((1 << 41) + i, 1).pictures[0]


def with_solver(pipeline: Any) -> Any:
    """The pipeline, with DDIM where its own scheduler adds noise or may: PNDM of Stable Diffusion 1.5, Euler of XL."""
    from diffusers import DDIMScheduler

    try:
        check_solver(pipeline)
    except UnavailableError:
        before = type(pipeline.scheduler).__name__
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        say(f"{before} is not drawn with: DDIM in its place, on the same noise schedule")
    return pipeline


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a few pictures of each row; writes nothing")
    parser.add_argument("--list", action="store_true", help="what is kept")
    parser.add_argument("--generate", action="store_true", help="make what is missing")
    parser.add_argument("--only", default="", metavar="CONDITION,...", help="these conditions alone")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop before a unit that would end later")
    parser.add_argument("--threads", type=int, default=1, help="of torch, while generating")
    parser.add_argument("--model", type=Path, default=MODEL, help="a folder of Stable Diffusion 1, 2 or XL")
    parser.add_argument(
        "--prompts", type=Path, help="a text file, one prompt a line; else the model's captions"
    )
    parser.add_argument("--kept", type=Path, default=FOLDER, help="where what is read is kept")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="of drawing")
    parser.add_argument("--guidance", type=float, default=Settings.guidance)
    parser.add_argument("--inversion", type=int, default=Settings.inversion, help="steps of reading")
    given = parser.parse_args()
    if not (given.model / "model_index.json").is_file():
        sys.exit(f"error: {given.model} holds no pipeline; give a folder with model_index.json")
    own = given.model.resolve() == MODEL and given.prompts is None
    if not own and given.kept == FOLDER:
        sys.exit(
            "error: give --kept FOLDER for another model or other prompts: theirs is not to be overwritten"
        )
    captions = given.prompts.read_text(encoding="utf-8").splitlines() if given.prompts else list(NAMES)
    if not captions:
        sys.exit(f"error: {given.prompts} has no prompts")

    import torch

    torch.set_num_threads(given.threads)
    settings = Settings(steps=given.steps, guidance=given.guidance, inversion=given.inversion)
    try:
        studio = Studio(
            with_solver(load_pipeline(given.model)).to(device()),
            captions,
            settings,
            reference=composed() if own and given.generate else None,
        )
    except UnavailableError as error:
        sys.exit(f"error: {error}")
    all_ = conditions(studio.side)
    only = [name for name in given.only.split(",") if name]
    if unknown := sorted(set(only) - set(all_)):
        sys.exit(f"error: no {', '.join(unknown)}; there are {', '.join(all_)}")
    wanted = [condition for name, condition in all_.items() if not only or name in only]
    store = Store(given.kept)
    if given.generate:
        return int(generate(store, studio, wanted, given.minutes) > 0)
    if given.list:
        report_kept(store, studio, wanted)
        return 0
    return derive(store, studio, {c.name: c for c in wanted}, given.quick, own and not only)


if __name__ == "__main__":
    sys.exit(main())
