"""What the benchmark of finished pictures marks, attacks and reads, and how that is kept under build/image_bench.

A file holds all readings of one mark on one photograph. Its name has a hash of what made them (the mark's, the code's
and the attacks' source without their comments; of a peer, its lock and its script), so results of other code are never
mixed in. Every prefix of PHOTOGRAPHS' order is a table: first one square of each photograph, then the others.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from image_regenerated import AVERAGED, AVERAGES, HARMED, LEARNED, REGENERATED, RUN, averaged, patterns
from report import ROOT

sys.path.append(str(ROOT / "scripts"))

from zhiyi_watermark import stats
from zhiyi_watermark.attacks import image as attacks
from zhiyi_watermark.image_finished import Dss, DssConfig
from zhiyi_watermark.payload import Long
from zhiyi_watermark.pictures import Picture

Rgb = npt.NDArray[np.uint8]
FOLDER: Final = ROOT / "build" / "image_bench"
PEERS: Final = ROOT / "build" / "peers" / "pictures"
SCRIPT: Final = ROOT / "benchmarks" / "peers" / "pictures_peer.py"
KEY: Final = hashlib.sha256(b"zhiyi image benchmark").digest()
USERS: Final = 1 << 16
LICENSES: Final = 1 << 16
CLIPPED: Final = 0.2  # part of the px that brightness may clip before a picture is counted apart
SWEPT: Final = 23  # photographs of the curves: one square of each
WEIGHED: Final = 12  # photographs on which capacity is held against quality


# --- attacks ------------------------------------------------------------------------------------------------

# What the tables' attacks do not have of the curves.
EXTRA: Final[dict[str, attacks.Attack]] = {
    "jpeg10": lambda p, s: attacks.jpeg(p, 10),
    "jpeg15": lambda p, s: attacks.jpeg(p, 15),
    "jpeg35": lambda p, s: attacks.jpeg(p, 35),
    "blur1": lambda p, s: attacks.blur(p, 1.0),
    "blur2": lambda p, s: attacks.blur(p, 2.0),
    "blur6": lambda p, s: attacks.blur(p, 6.0),
    "blur8": lambda p, s: attacks.blur(p, 8.0),
    "noise15": lambda p, s: attacks.noise(p, 0.15, s),
    "noise20": lambda p, s: attacks.noise(p, 0.2, s),
    "noise30": lambda p, s: attacks.noise(p, 0.3, s),
    "crop75": lambda p, s: attacks.crop(p, 0.75, s),
    "crop35": lambda p, s: attacks.crop(p, 0.35, s),
    "crop25": lambda p, s: attacks.crop(p, 0.25, s),
}
ATTACKS: Final[dict[str, attacks.Attack]] = {**attacks.SUITE, **EXTRA}
# axis -> strength -> attack, the weakest first
SWEEPS: Final[dict[str, dict[float, str]]] = {
    "JPEG quality": {80: "jpeg80", 50: "jpeg50", 35: "jpeg35", 25: "jpeg25", 15: "jpeg15", 10: "jpeg10"},
    "blur: sigma, px": {0: "none", 1: "blur1", 2: "blur2", 4: "blur4", 6: "blur6", 8: "blur8"},
    "noise: deviation": {
        0: "none", 0.05: "noise05", 0.1: "noise10", 0.15: "noise15", 0.2: "noise20", 0.3: "noise30",
    },
    "crop: part of the area": {
        1: "none", 0.75: "crop75", 0.5: "crop50", 0.35: "crop35", 0.25: "crop25", 0.1: "crop10",
    },
}  # fmt: skip
CAPACITY: Final = ("none", "jpeg50")  # attacks of capacity against quality


# --- marks --------------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """What a detector made of one attacked picture."""

    right: int  # of the message's bits
    found: bool  # at p < 1e-6: named by us; known bits match by a peer
    log2_p: float
    seconds: float  # of the CPU


class Marked(NamedTuple):
    """A picture with its mark."""

    picture: Rgb
    seconds: float  # of the CPU


class Mark(Protocol):
    """What is measured; number: of the photograph, on which the message depends."""

    bits: int

    def version(self) -> str:
        """Of everything that its results depend on, in hex."""

    def embed(self, picture: Rgb, number: int) -> Marked:
        """The picture with the message of that number."""

    def read(self, pictures: Sequence[Rgb], number: int) -> list[Reading]:
        """Each picture by itself."""


@cache
def source_hash(*paths: Path) -> str:
    """Of Python files as they run, without comments and docstrings, and of other files as they are; 16 hex digits."""
    state = hashlib.sha256()
    for path in paths:
        body = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            tree = ast.parse(body)
            for node in ast.walk(tree):
                lines = getattr(node, "body", None)
                if isinstance(lines, list):
                    node.body = [line for line in lines if not _is_text(line)]  # type: ignore[attr-defined]  # it has one
            body = ast.dump(tree)
        state.update(f"{path.name}\0{len(body)}\0{body}".encode())
    return state.hexdigest()[:16]


def _is_text(line: object) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )


@cache
def _attacks_hash() -> str:
    """Of what is done to pictures; the extra attacks are calls of the same functions, by name."""
    return source_hash(Path(attacks.__file__))


class Ours:
    """DSS: 64 bits, looked for among 65,536 users of 65,536 licenses, blindly."""

    bits = 64

    def __init__(self, config: DssConfig | None = None) -> None:
        self.dss = Dss(KEY, config or DssConfig())

    def version(self) -> str:
        """Of the detector and all that it stands on, and of the strength."""
        package = Path(stats.__file__).parent
        names = ("image_finished", "payload", "bch", "stats", "prf", "pictures", "result")
        code = source_hash(*(package / f"{name}.py" for name in names))
        return hashlib.sha256(
            f"{code} {_attacks_hash()} {self.dss.config} {np.__version__}".encode()
        ).hexdigest()[:16]

    def payload(self, number: int) -> Long:
        """The message of a photograph."""
        return Long(40_503 * number % LICENSES, 7919 * number % USERS)

    def embed(self, picture: Rgb, number: int) -> Marked:
        """See Mark."""
        started = time.process_time()
        marked = self.dss.embed(Picture(picture), self.payload(number)).rgb
        return Marked(marked, time.process_time() - started)

    def read(self, pictures: Sequence[Rgb], number: int) -> list[Reading]:
        """See Mark."""
        message = self.dss.code.message(self.payload(number))
        known = np.unpackbits(np.frombuffer(message, dtype=np.uint8))
        out = []
        for picture in pictures:
            started = time.process_time()
            readings = self.dss.chips([Picture(picture)])
            said = self.dss.verdict(readings, USERS, LICENSES)
            seconds = time.process_time() - started
            right = int((self.dss.bits(readings) == known).sum())
            out.append(Reading(right, said.payload == message, said.log2_p_global, seconds))
        return out


class Peer:
    """A mark of another project, in its own environment and with its own parameters.

    Its decoder is handed the pictures as they are and never searches. The picture counts as found when as many of the
    known bits match as fair coins do with p < 1e-6: the one message is tried, so nothing else counts.
    """

    def __init__(self, process: PeerProcess, method: str, bits: int) -> None:
        self._process, self._method, self.bits = process, method, bits

    def version(self) -> str:
        """Of the pinned packages and how they are called."""
        code = source_hash(SCRIPT, SCRIPT.parent / "pictures.lock")
        return hashlib.sha256(f"{code} {_attacks_hash()} {self._method} {self.bits}".encode()).hexdigest()[
            :16
        ]

    def message(self, number: int) -> npt.NDArray[np.uint8]:
        """Bits by the photograph's number.  # (bits,)"""
        return np.random.default_rng(number).integers(0, 2, self.bits, dtype=np.uint8)

    def embed(self, picture: Rgb, number: int) -> Marked:
        """See Mark."""
        return self._process.embed(self._method, picture, self.message(number))

    def read(self, pictures: Sequence[Rgb], number: int) -> list[Reading]:
        """See Mark."""
        known = self.message(number)
        out = []
        for said, seconds in self._process.read(self._method, pictures, self.bits):
            right = int((said == known).sum())
            tail = stats.binomial_tail(right, self.bits)
            out.append(Reading(right, tail.at_most(stats.TRACE), tail.log2_p, seconds))
        return out


class PeerProcess:
    """The peers' script, started when it is first asked. A context; files pass through a folder of its own."""

    def __init__(self, python: Path = PEERS / "bin" / "python") -> None:
        self._python = python
        self._running: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="zhiyi-peers-")

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None and self._running.stdin is not None:
            self._running.stdin.close()
            self._running.wait()
        self._folder.cleanup()

    @property
    def installed(self) -> bool:
        """Whether `make peers` has made their environment."""
        return (self._python.parent.parent / ".ready").is_file()

    def _ask(self, question: Mapping[str, Any]) -> Any:
        if self._running is None:
            self._running = subprocess.Popen(
                [self._python, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write(json.dumps(question) + "\n")
        self._running.stdin.flush()
        answer = self._running.stdout.readline()
        if not answer:
            raise RuntimeError(
                f"the peers' process ended with {self._running.wait()}; see above, `make peers` installs anew"
            )
        return json.loads(answer)

    def embed(self, method: str, picture: Rgb, bits: npt.NDArray[np.uint8]) -> Marked:
        """The peer's marked picture. Raises RuntimeError when it fails."""
        given, made = (Path(self._folder.name) / name for name in ("plain.npy", "marked.npy"))
        np.save(given, picture)
        asked = {"method": method, "bits": bits.tolist(), "picture": str(given), "out": str(made)}
        seconds = self._ask(asked)["seconds"]
        return Marked(np.load(made), seconds)

    def read(
        self, method: str, pictures: Sequence[Rgb], bits: int
    ) -> list[tuple[npt.NDArray[np.uint8], float]]:
        """The peer's bits of each picture, and CPU seconds. Raises RuntimeError when it fails."""
        paths = [Path(self._folder.name) / f"{i}.npy" for i in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            np.save(path, picture)
        found = self._ask({"method": method, "length": bits, "pictures": [str(path) for path in paths]})
        return [
            (np.array(said, dtype=np.uint8), seconds)
            for said, seconds in zip(found["bits"], found["seconds"], strict=True)
        ]


MAIN: Final = {
    "dss": "DSS",
    "rivagan": "RivaGAN of invisible-watermark 0.2.0",
    "dwtdctsvd": "dwtDctSvd of invisible-watermark 0.2.0",
    "blindwm": "blind-watermark 0.4.4",
}
# (mark, strength or length) whose quality and capacity are told beside the main ones
STRENGTHS: Final = {
    "dss-49": (49.5, 39.5),
    "dss-45": (45.5, 35.5),
    "dss-43": (43.5, 33.5),
}  # dB, most and least
LENGTHS: Final = {
    "dwtdctsvd-64": ("dwtdctsvd", 64), "dwtdctsvd-128": ("dwtdctsvd", 128),
    "blindwm-32": ("blindwm", 32), "blindwm-128": ("blindwm", 128), "blindwm-256": ("blindwm", 256),
}  # fmt: skip
NAMES: Final = (*MAIN, *STRENGTHS, *LENGTHS)


def marks(process: PeerProcess) -> dict[str, Mark]:
    """All marks that are installed, by name."""
    out: dict[str, Mark] = {"dss": Ours()}
    if process.installed:
        out |= {name: Peer(process, name, bits) for name, bits in
                (("rivagan", 32), ("dwtdctsvd", 32), ("blindwm", 64))}  # fmt: skip
    out |= {name: Ours(DssConfig(most, least)) for name, (most, least) in STRENGTHS.items()}
    if process.installed:
        out |= {name: Peer(process, method, bits) for name, (method, bits) in LENGTHS.items()}
    return out


# --- photographs --------------------------------------------------------------------------------------------


class Photo(NamedTuple):
    """A held-out square."""

    number: int  # seeds attacks and messages
    name: str
    picture: Rgb


def in_order(photos: Sequence[Photo]) -> list[Photo]:
    """The first square of each photograph, then the second ones and third ones."""
    return sorted(photos, key=lambda photo: (int(photo.name.rpartition("-")[2]), photo.number))


def held_out() -> list[Photo]:
    """Squares of 512 x 512 px that DSS was not designed on, in the order in which they are measured.

    Raises FetchError when the photographs can't be had.
    """
    from fetch_pictures import squares

    return in_order([Photo(i, name, picture) for i, (name, picture) in enumerate(squares(seen=False))])


def wanted(name: str, place: int) -> list[str]:
    """Attacks that a mark is read after on the photograph at that place of the order."""
    if name not in MAIN:
        return list(CAPACITY) if place < WEIGHED else []
    model = [one.name for one in REGENERATED.values() if place < one.most]
    return [*(ATTACKS if place < SWEPT else attacks.SUITE), *model]


# --- quality ------------------------------------------------------------------------------------------------


def psnr(marked: Rgb, plain: Rgb) -> float:
    """dB over all channels; infinite for equal pictures."""
    error = float(((marked.astype(np.float64) - plain) ** 2).mean())
    return 10 * math.log10(255**2 / error) if error else float("inf")


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


def clips(plain: Rgb) -> bool:
    """Whether brightness 1.5 clips so much of the picture that it is counted apart."""
    return float((plain.max(axis=2) * 1.5 > 255).mean()) > CLIPPED


# --- what is kept -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """One mark on one photograph."""

    number: int
    bits: int
    psnr: float  # dB
    ssim: float
    clipped: bool
    seconds: float  # of marking, CPU
    readings: dict[str, Reading]  # by attack


class Kept:
    """The files under build/image_bench."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def _path(self, name: str, mark: Mark, photo: Photo) -> Path:
        pixels = hashlib.sha256(np.ascontiguousarray(photo.picture).data).hexdigest()[:16]
        return self._folder / f"{name}-{mark.version()}" / f"{photo.number:03d}-{photo.name}-{pixels}.json"

    def load(self, name: str, mark: Mark, photo: Photo) -> Result | None:
        """What was kept of this mark's code on this picture; None without."""
        path = self._path(name, mark, photo)
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        return Result(**{**found, "readings": {k: Reading(*v) for k, v in found["readings"].items()}})

    def save(self, name: str, mark: Mark, photo: Photo, result: Result) -> None:
        """Keeps it; whole or not at all."""
        path = self._path(name, mark, photo)
        path.parent.mkdir(parents=True, exist_ok=True)
        body = json.dumps({**vars(result), "readings": result.readings})
        partly = path.with_suffix(".part")
        partly.write_text(body)
        partly.replace(path)


def measure(mark: Mark, photo: Photo, names: Sequence[str], before: Result | None) -> Result:
    """Marks the photograph, attacks it and reads it, beyond what `before` has."""
    marked = mark.embed(photo.picture, photo.number)
    readings = dict(before.readings) if before else {}
    missing = [name for name in names if name not in readings]
    attacked = [{**ATTACKS, **RUN}[name](marked.picture, photo.number) for name in missing]
    readings |= zip(missing, mark.read(attacked, photo.number), strict=True)
    return Result(
        photo.number, mark.bits, psnr(marked.picture, photo.picture), ssim(marked.picture, photo.picture),
        clips(photo.picture), marked.seconds, readings,
    )  # fmt: skip


# --- averages -----------------------------------------------------------------------------------------------


def averages_of(kept: Kept, name: str, mark: Mark, photos: Sequence[Photo]) -> list[Result]:
    """What is kept of a mark's averages; empty unless whole."""
    if len(photos) < HARMED + LEARNED:
        return []
    found = [kept.load(_averages_name(name, photos), mark, photo) for photo in photos[:HARMED]]
    whole = [one for one in found if one is not None and one.readings.keys() == AVERAGED.keys()]
    return whole if len(whole) == HARMED else []


def measure_averages(kept: Kept, name: str, mark: Mark, photos: Sequence[Photo]) -> None:
    """Marks all photographs with one message, learns on some and reads others; photos: HARMED + LEARNED at least."""
    others = photos[HARMED : HARMED + LEARNED]
    learned = patterns(
        [mark.embed(photo.picture, 0).picture for photo in others], [photo.picture for photo in others]
    )
    for photo in photos[:HARMED]:
        marked = mark.embed(photo.picture, 0)
        harmed = [averaged(id_, marked.picture, photo.picture, learned[id_]) for id_ in AVERAGED]
        readings = dict(zip(AVERAGED, mark.read(harmed, 0), strict=True))
        made = Result(
            photo.number, mark.bits, psnr(marked.picture, photo.picture), ssim(marked.picture, photo.picture),
            clips(photo.picture), marked.seconds, readings,
        )  # fmt: skip
        kept.save(_averages_name(name, photos), mark, photo, made)


def _averages_name(name: str, photos: Sequence[Photo]) -> str:
    state = hashlib.sha256()
    for photo in photos[HARMED : HARMED + LEARNED]:
        state.update(np.ascontiguousarray(photo.picture).data)
    return f"{name}-averages{AVERAGES}-{state.hexdigest()[:8]}"
