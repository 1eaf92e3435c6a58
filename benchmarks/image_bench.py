"""The marks of pictures under attack: DSS beside three peers on photographs that it was not designed on.

    python benchmarks/image_bench.py               # measures what is missing; writes docs/benchmarks/image_finished.*
    python benchmarks/image_bench.py --minutes 50  # the same, but stops before a photograph that would end later
    python benchmarks/image_bench.py --mark dss    # measures one mark alone; another process may measure the others
    python benchmarks/image_bench.py --derive      # writes the table of what has been measured
    python benchmarks/image_bench.py --quick       # DSS on 14 photographs; prints, writes no table

A photograph takes the CPU seconds that image_finished.md tells, most of them RivaGAN's. What is measured is kept under
build/image_bench and used again unless the code of its mark has changed (image_series), so a run may be ended at any
time. Peers come by `make peers`; one that is not installed is said and left out. Photographs and their licenses:
scripts/fetch_pictures.py. Attacks and their parameters: zhiyi_watermark.attacks.image. See image_figures for the rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence

import image_figures as figures
from image_regenerated import HARMED, LEARNED
from image_series import (
    FOLDER,
    MAIN,
    NAMES,
    Kept,
    Mark,
    PeerProcess,
    Photo,
    Result,
    averages_of,
    held_out,
    marks,
    measure,
    measure_averages,
    wanted,
)
from image_table import unite
from report import ROOT, Row, environment, write

sys.path.append(str(ROOT / "scripts"))

from fetch_model import FetchError

QUICK = 14  # photographs


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def run(kept: Kept, photos: Sequence[Photo], chosen: Mapping[str, Mark], minutes: float) -> int:
    """Measures what is missing, photograph by photograph, then averages. Returns how many of them are still missing."""
    started = time.monotonic()
    left, slowest = 0, 0.0  # seconds; the first is measured in any case
    for place, photo in enumerate(photos):
        for name, mark in chosen.items():
            names = wanted(name, place)
            before = kept.load(name, mark, photo)
            if all(attack in (before.readings if before else {}) for attack in names):
                continue
            if left or (slowest and time.monotonic() - started + slowest > 60 * minutes):
                left += 1
                continue
            began = time.monotonic()
            result = measure(mark, photo, names, before)
            kept.save(name, mark, photo, result)
            slowest = max(slowest, time.monotonic() - began)
            say(
                f"{place + 1} / {len(photos)} {photo.name} {name}: {result.psnr:.2f} dB, found after "
                f"{sum(r.found for r in result.readings.values())} of {len(result.readings)} attacks, "
                f"{time.monotonic() - began:.1f} s"
            )
    for name, mark in chosen.items():
        if name not in MAIN or len(photos) < HARMED + LEARNED or averages_of(kept, name, mark, photos):
            continue
        if left or time.monotonic() - started > 60 * minutes:
            left += 1
            continue
        began = time.monotonic()
        measure_averages(kept, name, mark, photos)
        say(f"averages of {name}: {time.monotonic() - began:.1f} s")
    return left


def results_of(kept: Kept, photos: Sequence[Photo], chosen: Mapping[str, Mark]) -> dict[str, list[Result]]:
    """What is kept, by mark; a photograph counts where all its attacks are there."""
    out = {}
    for name, mark in chosen.items():
        found = [(kept.load(name, mark, photo), wanted(name, place)) for place, photo in enumerate(photos)]
        out[name] = [r for r, names in found if r is not None and names and set(names) <= set(r.readings)]
    return out


def show(rows: Sequence[Row]) -> None:
    """Prints rows with their targets."""
    for row in rows:
        met = "" if row.met is None else "met" if row.met else "NOT MET"
        target = "" if row.met is None else f"  target {row.sense} {row.target:g}: {met}"
        print(f"{row.id:32s} {row.value:.4f} {row.unit} n={row.n}{target}")


def publish(
    rows: Sequence[Row],
    results: Mapping[str, Sequence[Result]],
    photos: Sequence[Photo],
    chosen: Mapping[str, Mark],
) -> None:
    """Writes the table, the plot and the example pictures."""
    by_name = {photo.name: photo for photo in photos}
    picked = [name for name in MAIN if results.get(name)]
    shown = []
    for name in figures.EXAMPLES:
        photo = by_name[name]
        shown.append((photo.picture, [chosen[m].embed(photo.picture, photo.number).picture for m in picked]))
    figures.examples(shown)
    figures.plot(results)
    absent = [MAIN[name] for name in MAIN if not results.get(name)]
    notes = [
        figures.NOTES.strip() + "".join(f", {MAIN[name]}" for name in picked[1:]) + ". "
        + "Photographs: " + "; ".join(credits()) + ".",
        *([f"Not measured, and so left out: {', '.join(absent)}."] if absent else []),
        "Each picture:",
        "\n".join(f"- {line}" for line in figures.per_picture(results, photos)),
    ]  # fmt: skip
    command = "make bench-image-finished"
    print(write("image_finished", command, list(rows), environment=environment(), notes="\n\n".join(notes)))
    unite()


def credits() -> list[str]:
    """Name, holders and license of the example pictures."""
    from fetch_pictures import photographs

    wanted_names = {name.rpartition("-")[0] for name in figures.EXAMPLES}
    return [f"{p.name}, {p.holders}, {p.license}" for p in photographs() if p.name in wanted_names]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"DSS on {QUICK} photographs; writes no table")
    parser.add_argument("--mark", default="", metavar="NAME,...", help="measure these alone; writes no table")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop before what would end later")
    parser.add_argument("--derive", action="store_true", help="measure nothing")
    given = parser.parse_args()
    only = ["dss"] if given.quick else [name for name in given.mark.split(",") if name]
    if unknown := sorted(set(only) - set(NAMES)):
        sys.exit(f"error: no mark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    try:
        photos = held_out()
    except FetchError as error:
        sys.exit(f"error: {error}")
    if given.quick:
        photos = photos[:QUICK]
    kept = Kept()
    with PeerProcess() as process:
        chosen = marks(process)
        if missing := sorted(set(only) - set(chosen)):
            sys.exit(f"error: {', '.join(missing)}: not installed; `make peers` does it")
        if not process.installed:
            say("the peers are not installed and left out; `make peers` does it")
        if only:
            chosen = {name: chosen[name] for name in only}
        left = 0 if given.derive else run(kept, photos, chosen, given.minutes)
        if left:
            say(f"{left} photographs of a mark are still to be measured; the same command goes on")
        results = results_of(kept, photos, chosen)
        if not any(results.values()):
            sys.exit(
                f"error: nothing is kept in {FOLDER.relative_to(ROOT)} for this code; run without --derive"
            )
        averages = {name: averages_of(kept, name, chosen[name], photos) for name in MAIN if name in chosen}
        rows = figures.rows(results, averages)
        show(rows)
        if not only:
            publish(rows, results, photos, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
