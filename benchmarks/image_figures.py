"""Figures of the benchmark of finished pictures from what is kept: rows, curves and example pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from image_regenerated import AVERAGED, HARMED, LEARNED, REGENERATED
from image_series import CAPACITY, MAIN, STRENGTHS, SWEEPS, SWEPT, Photo, Result
from report import FOLDER, Row, bootstrap, proportion
from zhiyi_watermark.attacks.image import SUITE

Results = Mapping[str, Sequence[Result]]  # by mark
Rgb = npt.NDArray[np.uint8]


class Line(NamedTuple):
    """A row of the table, of every mark."""

    id: str
    attack: str
    what: str
    bits: float | None = None  # target of our bits
    message: float | None = None  # of our messages


LINES: Final = (
    Line("none", "none", "as saved", 0.999),
    Line("j80", "jpeg80", "JPEG 80"),
    Line("j50", "jpeg50", "JPEG 50", 0.995, 0.97),
    Line("j25", "jpeg25", "JPEG 25", 0.99),
    Line("blur4", "blur4_8x8", "Gaussian blur, sigma 4 px in 8 x 8", 0.98),
    Line("blur4_full", "blur4", "Gaussian blur, sigma 4 px, whole kernel", 0.98),
    Line("noise05", "noise05", "Gaussian noise .05"),
    Line("noise10", "noise10", "Gaussian noise .1", 0.98),
    Line("bright15", "bright15", "brightness 1.5, under 20 % of px clipped", 0.99),
    Line("bright15_clipped", "bright15", "brightness 1.5, the other pictures"),
    Line("bright_u6", "bright_u6", "brightness U(0, 6)"),
    Line("saturation15", "saturation15", "saturation 1.5"),
    Line("contrast15", "contrast15", "contrast 1.5"),
    Line("resize50", "resize50", "resized to 50 % and back"),
    Line("resize30", "resize30", "resized to 30 % and back", 0.99),
    Line("crop_resize75", "crop_resize75", "cropped to 75 % of the area, resized to the size before"),
    Line("crop50", "crop50", "cropped to 50 % of the area, blind", 0.97, 0.90),
    Line("crop10", "crop10", "cropped to 10 % of the area, blind"),
    Line("drop40", "drop40", "40 % of the area black"),
    Line("rot5", "rotate5", "rotated by 5 degrees, blind"),
    Line("rot25", "rotate25", "rotated by 25 degrees, blind", 0.95),
    Line("rot75", "rotate75", "rotated by 75 degrees, blind"),
    Line("flip", "flip", "mirrored"),
    Line("median7", "median7", "median of 7 x 7", 0.99),
)
MODELED: Final = tuple(Line(id_, one.name, one.what) for id_, one in REGENERATED.items())
AVERAGES: Final = tuple(Line(id_, id_, what) for id_, what in AVERAGED.items())  # of results of their own


def quality_rows(results: Results) -> list[Row]:
    """PSNR, SSIM and seconds of each mark of MAIN that is there."""
    rows = []
    best = {
        key: max(
            (
                (float(np.mean([getattr(r, key) for r in results[name]])), MAIN[name])
                for name in MAIN
                if name != "dss" and results.get(name)
            ),
            default=None,
        )
        for key in ("psnr", "ssim")
    }
    targets: dict[str, float] = {"psnr": 43.0, "ssim": 0.98}
    for name in MAIN:
        found = results.get(name)
        if not found:
            continue
        n = len(found)
        for key, what, unit in (("psnr", "PSNR of RGB, mean", "dB"), ("ssim", "SSIM of luma, mean", "")):
            mean = float(np.mean([getattr(result, key) for result in found]))
            peer = best[key]
            if name == "dss":
                against = (peer[1], peer[0]) if peer else None
                rows.append(Row(f"dss_{key}", what, mean, unit, n, targets[key], ">=", against))
            else:
                rows.append(Row(f"{name}_{key}", f"{MAIN[name]}: {what}", mean, unit, n))
        least = min(result.psnr for result in found)
        own = "" if name == "dss" else f"{MAIN[name]}: "
        rows.append(Row(f"{name}_psnr_least", f"{own}PSNR of the picture that has least", least, "dB", n))
        spent = float(np.median([result.seconds for result in found]))
        rows.append(Row(f"{name}_embed_seconds", f"{own}marking a picture, CPU, median", spent, "s", n))
        reading = [r.seconds for result in found for a, r in result.readings.items() if a in SUITE]
        rows.append(
            Row(
                f"{name}_detect_seconds",
                f"{own}reading one, mean over attacks, CPU",
                float(np.mean(reading)),
                "s",
                n,
            )
        )
    return rows


def _under(line: Line, results: Sequence[Result]) -> list[Result]:
    """Those that a row is about."""
    about = [result for result in results if line.attack in result.readings]
    if line.attack == "bright15":
        about = [result for result in about if result.clipped == line.id.endswith("clipped")]
    return about


def accuracy(attack: str, results: Sequence[Result]) -> float:
    """Part of the bits that are right."""
    return sum(r.readings[attack].right for r in results) / sum(r.bits for r in results)


def found_share(attack: str, results: Sequence[Result]) -> float:
    """Part of the pictures that are found."""
    return sum(r.readings[attack].found for r in results) / len(results)


def attack_rows(results: Results, lines: Sequence[Line] = (*LINES, *MODELED)) -> list[Row]:
    """Bits and messages of every mark after every attack; ours beside the best peer of the same row."""
    rows = []
    for line in lines:
        about = {name: _under(line, results.get(name, ())) for name in MAIN}
        about = {name: found for name, found in about.items() if found}
        peers = [(accuracy(line.attack, found), MAIN[name]) for name, found in about.items() if name != "dss"]
        finding = [
            (found_share(line.attack, found), MAIN[name]) for name, found in about.items() if name != "dss"
        ]
        for name, found in about.items():
            n, hits = len(found), sum(r.readings[line.attack].found for r in found)
            right = accuracy(line.attack, found)
            span = bootstrap([r.readings[line.attack].right / r.bits for r in found])
            if name == "dss":
                against, other = (max(values)[::-1] if values else None for values in (peers, finding))
                rows.append(Row(f"dss_{line.id}", f"{line.what}: bits right", right, "", n, line.bits,
                                _sense(line.bits), against, span))  # fmt: skip
                rows.append(proportion(f"dss_message_{line.id}", f"{line.what}: named at p < 1e-6", hits, n,
                                       target=line.message, sense=_sense(line.message), against=other))  # fmt: skip
            else:
                what = f"{MAIN[name]}, {found[0].bits} bits, {line.what}"
                rows.append(Row(f"{name}_{line.id}", f"{what}: bits right", right, "", n, interval=span))
                rows.append(
                    proportion(f"{name}_tpr_{line.id}", f"{what}: known bits match at p < 1e-6", hits, n)
                )
    return rows


def _sense(target: float | None) -> Literal[">="] | None:
    return None if target is None else ">="


def rows(results: Results, averages: Results | None = None) -> list[Row]:
    """The table; averages: the results of pictures that all carry one message."""
    return [*quality_rows(results), *attack_rows(results), *attack_rows(averages or {}, AVERAGES)]


def capacity(results: Results) -> dict[str, tuple[float, dict[str, float]]]:
    """By mark: PSNR, and bits of a message that arrive after each attack of CAPACITY, on the same photographs.

    Bits that arrive: the message's length times 1 - H(e), e the part of wrong bits: what a perfect code would carry.
    """
    out = {}
    for name, found in results.items():
        about = [r for r in found if all(attack in r.readings for attack in CAPACITY)]
        numbers = {r.number for other in results.values() for r in other} if about else set()
        for other in results.values():
            numbers &= {r.number for r in other if all(attack in r.readings for attack in CAPACITY)}
        about = [r for r in about if r.number in numbers]
        if about:
            quality = float(np.mean([r.psnr for r in about]))
            out[name] = (
                quality,
                {a: about[0].bits * (1 - entropy(1 - accuracy(a, about))) for a in CAPACITY},
            )
    return out


def entropy(p: float) -> float:
    """Of a coin, in bits."""
    return 0.0 if p <= 0 or p >= 1 else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def per_picture(results: Results, photos: Sequence[Photo]) -> list[str]:
    """A line for each picture that we marked."""
    names = {photo.number: photo.name for photo in photos}
    out = []
    for result in sorted(results.get("dss", ()), key=lambda r: r.number):
        lost = [
            f"{line.id} {result.readings[line.attack].right}/{result.bits}"
            for line in LINES
            if _under(line, [result]) and not result.readings[line.attack].found
        ]
        missed = f"; not named: {', '.join(lost)}" if lost else ""
        out.append(f"{names[result.number]}: {result.psnr:.2f} dB, SSIM {result.ssim:.4f}{missed}")
    return out


# --- pictures of it -----------------------------------------------------------------------------------------

COLORS: Final = {"dss": "#1f4e9c", "rivagan": "#c44e52", "dwtdctsvd": "#dd8452", "blindwm": "#55a868"}


def plot(results: Results, folder: Path = FOLDER) -> Path:
    """image_finished.svg: bits, TPR against strength of four attacks, capacity against quality, quality by picture."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "image_finished"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 5, figsize=(17, 7))
    for column, (label, strengths) in enumerate(SWEEPS.items()):
        for name in MAIN:
            about = [
                r for r in results.get(name, ()) if all(attack in r.readings for attack in strengths.values())
            ]
            if not about:
                continue
            for row, value in enumerate((accuracy, found_share)):
                heights = [value(attack, about) for attack in strengths.values()]
                axes[row, column].plot(list(strengths), heights, marker=".", linewidth=1, color=COLORS[name],
                                       label=f"{MAIN[name]}, {about[0].bits} bits")  # fmt: skip
        for row, what in enumerate(("part of the bits right", "found at p < 1e-6")):
            axes[row, column].set(xlabel=label, ylim=(0.45 if row == 0 else -0.03, 1.02))
            axes[row, column].grid(alpha=0.2)
            if column == 0:
                axes[row, column].set_ylabel(what)
            if label == "JPEG quality" or label.startswith("crop"):
                axes[row, column].invert_xaxis()
    _plot_capacity(axes[0, 4], results)
    for name in MAIN:
        if results.get(name):
            heights = sorted(r.psnr for r in results[name])
            axes[1, 4].plot(np.linspace(0, 1, len(heights)), heights, color=COLORS[name], linewidth=1)
    axes[1, 4].set(xlabel="part of the pictures", ylabel="PSNR of at most, dB")
    axes[1, 4].grid(alpha=0.2)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=4, fontsize=9)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "image_finished.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return path


def _plot_capacity(axes: object, results: Results) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    for name, (quality, arrived) in capacity(results).items():
        family = "dss" if name in STRENGTHS else name.partition("-")[0]
        for attack, marker in zip(CAPACITY, ("o", "x"), strict=True):
            axes.plot([quality], [arrived[attack]], marker=marker, color=COLORS[family], linewidth=0)
    axes.set(
        xlabel="PSNR, dB (o as saved, x after JPEG 50)", ylabel="bits that arrive", yscale="symlog", ylim=0
    )
    axes.grid(alpha=0.2)


# CC-BY-4.0 all; the holders are told beside the pictures.
EXAMPLES: Final = (
    "friends_by_Aitzol_Berasategi-1",
    "picosdeeuropa_by_Aitzol_Berasategi-0",
    "Picture_1A_by_freespace-0",
)
TILE: Final = 160  # px
AMPLIFIED: Final = 16


def tile(picture: Rgb) -> Rgb:
    """Scaled down to TILE px a side by means."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.BOX))


def difference(marked: Rgb, plain: Rgb) -> Rgb:
    """AMPLIFIED times the difference about middle gray, the middle TILE px of the picture as they are."""
    height, width = plain.shape[:2]
    top, left = (height - TILE) // 2, (width - TILE) // 2
    cut = marked.astype(np.int64) - plain
    return np.clip(128 + AMPLIFIED * cut[top : top + TILE, left : left + TILE], 0, 255).astype(np.uint8)


def examples(shown: Sequence[tuple[Rgb, Sequence[Rgb]]], folder: Path = FOLDER) -> Path:
    """image_finished_examples.png: a line a picture: as it was, marked by the first, the difference of every mark.

    shown: plain picture, and the same by each mark.
    """
    from PIL import Image

    lines = [
        np.concatenate([tile(plain), tile(marked[0]), *(difference(m, plain) for m in marked)], axis=1)
        for plain, marked in shown
    ]
    sheet = Image.fromarray(np.concatenate(lines, axis=0)).quantize(
        192, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "image_finished_examples.png"
    sheet.save(path, optimize=True)
    return path


NOTES: Final = f"""
![Bits and detection against the strength of attacks; capacity against quality](image_finished.svg)

All marks are put into the same photographs (512 x 512 px squares of `scripts/fetch_pictures.py`, none of which DSS was
designed on) and attacked alike. DSS has 64 message bits after its code, found blindly among 65,536 users and as many
licenses, wrong messages included; RivaGAN and dwtDctSvd have 32 bits, blind-watermark 64, as they are
installed, with their own parameters and without a code. A peer counts as found (`*_tpr_*`) when as many bits of the one
message that it carries match as fair coins do with p < 1e-6 (30 of 32, 51 of 64): the easier question. Its decoder is
handed the picture as the attack leaves it, since it has no search for crops and turns; a picture under 256 x 256 px,
which invisible-watermark refuses, is enlarged for it. Brightness 1.5 that clips over 20 % of a picture's px is counted
apart. The curves are of {SWEPT} pictures, one of each photograph. Bits that arrive are the message's length times
1 - H(part of wrong bits), DSS at other strengths and the peers at other lengths: what a perfect code would carry.

Regeneration is by tests/models/tiny-image, a model of pictures of 64 px whose latents are of 2 x 2 px: those of large
models, of 8 x 8 px, may take more away. Intervals of bits right are bootstrapped over pictures.
`average*`: {HARMED} pictures less what {LEARNED} others (or fewer) of the same key and ONE message have in common;
`copied50`: the same added to unmarked pictures, where being found is a success of the forger.

![Pictures as they were, marked by DSS, and {AMPLIFIED} times the difference of each mark](image_finished_examples.png)

Left to right: the photograph, marked by DSS, and {AMPLIFIED} times the difference (the middle {TILE} px at full size)
of DSS"""
