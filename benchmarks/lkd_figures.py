"""How the benchmark of decoders' marks is told: notes, examples, curves. What is kept does not depend on it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from report import Row

if TYPE_CHECKING:
    from lkd_bench import Point

Rgb = npt.NDArray[np.uint8]
AMPLIFIED: Final = 16
EXAMPLES: Final = 6  # pictures


def psnr(error: float) -> float:
    """dB of a mean squared error of values 0 .. 255, 100 at most."""
    return min(100.0, 10 * math.log10(255**2 / max(error, 1e-9)))


def beside(rows: Sequence[Row], theirs: Sequence[Row]) -> list[Row]:
    """Both, each row of LKD set against the peer's of the same name."""
    values = {row.id.partition("_")[2]: row.value for row in theirs}
    out = []
    for row in rows:
        mark, _, name = row.id.partition("_")
        there = mark == "lkd" and name in values
        out.append(replace(row, against=("Stable Signature", values[name])) if there else row)
    return [*out, *theirs]


def examples(plain: Rgb, marked: Sequence[Rgb], out: Path) -> None:
    """A line a picture: of the unmarked decoder, then of each mark's copy and AMPLIFIED times the difference.

    plain, and each of marked: # (pictures, side, side, 3)
    """
    from PIL import Image

    columns = [plain]
    for made in marked:
        change = np.clip(128 + AMPLIFIED * (made.astype(np.int64) - plain), 0, 255).astype(np.uint8)
        columns += [made, change]
    sheet = np.concatenate([np.concatenate(list(column)) for column in columns], axis=1)
    twice = Image.fromarray(np.kron(sheet, np.ones((2, 2, 1), dtype=np.uint8)))
    out.parent.mkdir(parents=True, exist_ok=True)
    twice.save(out, optimize=True)


def plot(curves: dict[str, list[Point]], out: Path) -> None:
    """Bits right against the quality left, a line for each kind of attack; open: the peer."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "image_weights"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.2))
    colors: dict[str, Any] = {}
    for mark, points in curves.items():
        start = next(point for point in points if point.family == "none")
        for family in dict.fromkeys(point.family for point in points if point.family != "none"):
            own = [start, *(point for point in points if point.family == family)]
            if family.startswith("new decoder"):
                own = own[1:]
            (line,) = axes.plot(
                [psnr(point.error) for point in own], [float(np.mean(point.shares)) for point in own],
                marker="o", color=colors.get(family), label=family if family not in colors else None,
                markerfacecolor=None if mark == "lkd" else "white", linestyle="-" if mark == "lkd" else ":",
            )  # fmt: skip
            colors[family] = line.get_color()
    axes.axhline(0.5, color="black", linewidth=0.8)
    axes.set_xlabel("PSNR to the unmarked decoder, dB")
    axes.set_ylabel("bits right (open, dotted: Stable Signature)" if len(curves) > 1 else "bits right")
    axes.grid(alpha=0.2)
    axes.legend(fontsize=8)
    figure.tight_layout()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text.getvalue(), encoding="utf-8")


NOTES: Final = """
![Bits right against the quality left](image_weights.svg)

The decoder is that of [tests/models/tiny-image](../../tests/models/tiny-image/README.md), 64 x 64 px: what this says of
large models is not known. Pictures are decoded latents of crops, scaled down, of {squares} squares of {photographs}
photographs that nothing was trained on (scripts/fetch_pictures.py). n counts crops, many of them of one photograph, so
intervals are of these photographs and too narrow for others. {peer}

![Pictures of the unmarked decoder and of copies](image_weights_examples.png)

Left to right: the unmarked decoder, LKD's copy and 16 times the difference, and the same of Stable Signature where it
is in this table. Intervals of bits right are bootstrapped over copies, of which the peer has few.

- `img2img*`, `style`: pictures redrawn by the whole unmarked model, or given the style of another picture's latent.
- `swap`: a decoder of the same shapes that the attacker trains from nothing on pictures of his own; the decoder of the
  same family that somebody publishes does it for free. It has no mark, and the bits are chance.
- `distil`: the same, but it learns what the copy decodes.
- `whitebox`, `unsaid*`: by who has the extractor, which stays with the seller and the committee.
- `forged*`, `framed*`: an unmarked picture changed until it says what one picture of a copy says: the extractor alone,
  without the key, is enough to make it. So a trace convicts nobody.
- `averaged`: pictures less what a copy's pictures differ by, on average, from the unmarked decoder's of the same
  latents; `copied`: the same average, added to unmarked pictures of other latents.
- `unmarked`: pictures of the unmarked decoder say a word's bits as a fair coin does.
"""
