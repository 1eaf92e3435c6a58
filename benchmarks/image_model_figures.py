"""Figures of the benchmark of generated pictures, from what is kept: rows and a plot.

A KGS message counts as read when it is named at global p < 1e-6 among 100,000 licenses, searches paid; in the rows
`*_blind` among 65,536 users of each of all 2^28 fingerprint numbers. Gaussian Shading's counts when 64 known bits match
at p < 1e-6, nothing paid, which is the easier question;
Tree-Ring names nobody, and its row is the area under the ROC curve against unmarked pictures after the same attack
(where there are none, against those as drawn). A mean over conditions is left out while one of them is missing.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from image_model_series import KEY, PAYLOAD, Condition, Group, Studio, unpacked
from inversions import Item, Store
from report import FOLDER, Row, bootstrap, clopper_pearson, proportion
from zhiyi_watermark.image_generated import Kgs, KgsSpec

Float64 = npt.NDArray[np.float64]
USERS: Final = 1 << 16
LICENSES: Final = range(PAYLOAD.fingerprint - 50_000, PAYLOAD.fingerprint + 50_000)
TRACE: Final = float(np.log2(1e-6))
DETECTION: Final = -43.0
BOOTSTRAPS: Final = 200
LEAST: Final = 10  # pictures of a set whose features are compared
MEANS: Final[tuple[tuple[Group, str, float | None], ...]] = (
    ("distortion", "distortions", 0.999),
    ("regeneration", "regeneration", 0.99),
    ("averaging", "averaging", 0.99),
    ("weights", "weights", None),
    ("forgery", "forgery", None),
)
IN_PX: Final = {"blur4": ("blur4_px", "blur4_8x8_px"), "median7": ("median7_px",)}
SINGLE: Final = {"rotate75": "rot75", "cropscale75": "cropscale75"}  # rows with a target of their own


class Seen(NamedTuple):
    """What a detector that names somebody made of one picture."""

    right: float  # part of the bits
    named: bool
    detected: bool = False
    blind: bool = False  # named where any message may be


_mark: list[Kgs] = []


def _begin(spec: str) -> None:
    _mark[:] = [Kgs(KEY, KgsSpec.from_json(spec))]


def _read(item: Item) -> Seen:
    mark = _mark[0]
    noise = unpacked(item, mark.spec)
    said = mark.verdict([noise], [PAYLOAD.user], LICENSES)
    message = mark.code.message(PAYLOAD)
    bits = np.unpackbits(np.frombuffer(message, dtype=np.uint8))
    named = said.payload == message
    blind = mark.verdict([noise], USERS).payload == message
    right = float((mark.bits([noise]) == bits).mean())
    return Seen(right, named, named and said.log2_p_global <= DETECTION, blind)


@dataclass
class Figures:
    """Rows of what a store holds of a studio's conditions."""

    studio: Studio
    store: Store
    all: Mapping[str, Condition]
    most: int | None = None  # pictures of each row
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    shares: dict[tuple[str, str], float] = field(default_factory=dict)  # by mark and condition, for the plot

    def derive(self) -> None:
        """Fills rows and missing."""
        items = {name: self._kept(condition) for name, condition in self.all.items()}
        self._seen = self._kgs(items)
        for name in items:
            self._seen["gs", name] = [self._gs(item) for item in items[name].get("gs", [])]
        scores = {
            (mark, name): np.array([np.frombuffer(item.data, dtype="<f4")[0] for item in found.get(mark, [])])
            for name, found in items.items()
            for mark in ("treering", "plain")
            if self.all[name].group != "features"
        }
        for condition in self.all.values():
            if condition.group != "features":
                self._condition(condition, scores)
        self._means()
        for name in ("features", "rivagan"):
            if name in items:
                self._features(name, items[name])

    def _kept(self, condition: Condition) -> dict[str, list[Item]]:
        out: dict[str, list[Item]] = defaultdict(list)
        current = self.store.current(condition.name, self.studio.keys(condition))
        for place in sorted(current):
            if self.most is None or len(out[place[0]]) < self.most:
                out[place[0]].append(current[place])
        return out

    def _kgs(self, items: Mapping[str, Mapping[str, list[Item]]]) -> dict[tuple[str, str], list[Seen]]:
        places = [
            (name, item)
            for name, found in items.items()
            if self.all[name].group != "features"
            for item in found.get("kgs", [])
        ]
        given, spec = [item for _, item in places], self.studio.spec.to_json()
        if self.jobs == 1 or len(given) < 64:
            _begin(spec)
            read = list(map(_read, given))
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(self.jobs, context, _begin, (spec,)) as pool:
                read = list(pool.map(_read, given, chunksize=16))
        out: dict[tuple[str, str], list[Seen]] = defaultdict(list)
        for (name, _), seen in zip(places, read, strict=True):
            out["kgs", name].append(seen)
        return out

    def _gs(self, item: Item) -> Seen:
        gs, message = self.studio.gs, self.studio.message
        bits = gs.decided(np.frombuffer(item.data, dtype=np.uint8))
        return Seen(float((bits == message).mean()), gs.log2_p(bits, message) < TRACE)

    def _condition(self, condition: Condition, scores: Mapping[tuple[str, str], Any]) -> None:
        name, what = condition.name, condition.what
        peer = self._seen["gs", name]
        share = float(np.mean([seen.named for seen in peer])) if peer else None
        for mark in ("kgs", "gs"):
            seen = self._seen.get((mark, name), [])
            if not seen:
                if mark == "kgs":
                    self.missing.append(f"{name}: {what}")
                continue
            hits, n = sum(one.named for one in seen), len(seen)
            against = ("gs", share) if mark == "kgs" and share is not None else None
            id_ = SINGLE.get(name, name) if mark == "kgs" else name
            target = 0.99 if mark == "kgs" and name in SINGLE else None
            self.rows.append(
                proportion(
                    f"{mark}_tpr_{id_}", f"{what}: read at p < 1e-6", hits, n,
                    target=target, sense=">=" if target else None, against=against,
                )
            )  # fmt: skip
            rights = [one.right for one in seen]
            others = ("gs", float(np.mean([one.right for one in peer]))) if mark == "kgs" and peer else None
            self.rows.append(
                Row(
                    f"{mark}_bits_{id_}", f"{what}: bits right", float(np.mean(rights)), "", n,
                    against=others, interval=bootstrap(rights),
                )
            )  # fmt: skip
            self.shares[mark, name] = hits / n
        one, other = scores["treering", name], scores["plain", name]
        other = other if len(other) else scores["plain", "none"]
        if len(one) and len(other):
            area = float((one[:, None] < other).mean() + (one[:, None] == other).mean() / 2)
            self.rows.append(
                Row(f"treering_auc_{name}", f"{what}: area under the ROC curve", area, "", len(one))
            )
            self.shares["treering", name] = area

    def _means(self) -> None:
        for group, id_, target in MEANS:
            names = [name for name, condition in self.all.items() if condition.group == group]
            self._mean(names, id_, f"mean of {', '.join(names)}", target)
        names = [
            each
            for name, condition in self.all.items()
            if condition.group == "distortion"
            for each in IN_PX.get(name, (name,))
        ]
        self._mean(names, "distortions_px", "the same with the papers' px", None)

    def _mean(self, names: Sequence[str], id_: str, what: str, target: float | None) -> None:
        peer = _as_many([self._seen["gs", name] for name in names])
        share = float(np.mean([np.mean([s.named for s in seen]) for seen in peer])) if all(peer) else None
        for mark in ("kgs", "gs"):
            seen = _as_many([self._seen.get((mark, name), []) for name in names])
            if not seen or not all(seen):
                continue
            n = sum(map(len, seen))

            def row(part: str, field_: str, about: str, goal: float | None) -> Row:
                values = [[float(getattr(one, field_)) for one in each] for each in seen]  # noqa: B023
                hits = round(sum(map(sum, values)))
                span = clopper_pearson(hits, n) if field_ != "right" else None  # noqa: B023
                against = ("gs", share) if mark == "kgs" and part == "tpr" and share is not None else None  # noqa: B023
                mean = float(np.mean([np.mean(each) for each in values]))
                return Row(
                    f"{mark}_{part}_{id_}", about, mean, "", n, goal, ">=" if goal else None, against, span  # noqa: B023
                )  # fmt: skip

            own = mark == "kgs"
            self.rows.append(row("tpr", "named", f"read at p < 1e-6, {what}", target if own else None))
            goal = 0.97 if own and id_ == "distortions" else None
            self.rows.append(row("bits", "right", f"bits right, {what}", goal))
            if own:
                self.rows.append(row("blind", "blind", f"read among 2^44 messages, {what}", None))
            if own and id_ == "distortions":
                self.rows.append(row("detected", "detected", f"read at p <= 2^-43, {what}", None))

    def _features(self, name: str, items: Mapping[str, list[Item]]) -> None:
        sets = {
            mark: np.stack([np.frombuffer(item.data, dtype="<f2").astype(np.float64) for item in found])
            for mark, found in items.items()
            if found
        }
        tail = "" if name == "features" else f"_{name}"
        n = min(len(sets.get("kgs", ())), len(sets.get("plain", ())))
        if n < LEAST:
            self.missing.append(f"{name}: {self.all[name].what}")
            return
        marked, plain = sets["kgs"][:n], sets["plain"][:n]
        what = self.all[name].what
        if len(reference := sets.get("reference", np.empty((0, 1)))) >= LEAST:
            self.rows.append(
                Row(
                    f"kgs_fid_delta_se{tail}",
                    f"{what}: distance of marked to real pictures less that of unmarked, over its standard error",
                    delta(marked, plain, reference),
                    "", n, 1.0 if name == "features" else None, "<=" if name == "features" else None,
                )
            )  # fmt: skip
        self.rows.append(
            Row(
                f"kgs_fid_relabelled{tail}",
                f"{what}: distance of marked to unmarked pictures, deviations over that of relabelled pairs",
                relabelled(marked, plain),
                "", n,
            )
        )  # fmt: skip


def _as_many(seen: Sequence[Sequence[Seen]]) -> list[Sequence[Seen]]:
    """The first of each, as many as the fewest are: their mean is one proportion, with that one's interval."""
    least = min(map(len, seen), default=0)
    return [each[:least] for each in seen]


# --- feature distances --------------------------------------------------------------------------------------


def distance(one: Float64, other: Float64) -> float:
    """Frechet distance of the Gaussian laws with the sets' means and covariances.  # (n, features) both"""
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0)).sum()
    moved = one.mean(axis=0) - other.mean(axis=0)
    return float(moved @ moved + np.trace(a) + np.trace(b) - 2 * cross)


def delta(marked: Float64, plain: Float64, reference: Float64) -> float:
    """distance(marked, reference) - distance(plain, reference) over its standard error, prompts drawn anew."""
    rng = np.random.default_rng(0)
    found = distance(marked, reference) - distance(plain, reference)
    again = []
    for _ in range(BOOTSTRAPS):
        rows = rng.integers(0, len(marked), len(marked))
        others = reference[rng.integers(0, len(reference), len(reference))]
        again.append(distance(marked[rows], others) - distance(plain[rows], others))
    return found / max(float(np.std(again, ddof=1)), 1e-12)


def relabelled(marked: Float64, plain: Float64) -> float:
    """By how many deviations distance(marked, plain) exceeds what it is where each pair's labels are drawn."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(BOOTSTRAPS):
        swap = rng.integers(0, 2, len(marked)).astype(bool)[:, None]
        drawn.append(distance(np.where(swap, plain, marked), np.where(swap, marked, plain)))
    return (distance(marked, plain) - float(np.mean(drawn))) / max(float(np.std(drawn, ddof=1)), 1e-12)


# --- plots --------------------------------------------------------------------------------------------------

CURVES: Final[tuple[tuple[str, tuple[tuple[str, float], ...]], ...]] = (
    ("JPEG quality", (("none", 100), ("jpeg80", 80), ("jpeg50", 50), ("jpeg25", 25), ("jpeg10", 10))),
    (
        "Gaussian noise",
        (("none", 0), ("noise05", 0.05), ("noise10", 0.1), ("noise20", 0.2), ("noise40", 0.4)),
    ),
    ("blur, sigma in px at 512", (("none", 0), ("blur4", 4), ("blur8", 8), ("blur16", 16))),
    (
        "img2img, strength",
        (("none", 0), ("img2img10", 0.1), ("img2img30", 0.3), ("img2img50", 0.5), ("img2img70", 0.7)),
    ),
)


def plot(shares: Mapping[tuple[str, str], float], folder: Path = FOLDER) -> Path:
    """image_generated.svg: shares read, and Tree-Ring's area, against strength."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "image_generated"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(CURVES), figsize=(14, 3.6), sharey=True)
    for axes, (label, points) in zip(panels, CURVES, strict=True):
        for mark, said in (("kgs", "KGS"), ("gs", "Gaussian Shading"), ("treering", "Tree-Ring (area)")):
            there = [(x, shares[mark, name]) for name, x in points if (mark, name) in shares]
            if there:
                axes.plot(*zip(*there, strict=True), marker=".", linewidth=0.9, label=said)
        axes.set(xlabel=label, ylim=(-0.03, 1.03))
    panels[0].invert_xaxis()
    panels[0].set(ylabel="share read at p < 1e-6, area")
    if panels[0].get_legend_handles_labels()[1]:
        panels[0].legend(fontsize=7)
    figure.tight_layout()
    path = folder / "image_generated.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return path
