"""LKD beside Stable Signature: one decoder, the same pictures, under attack on pictures and on the decoder itself.

    python benchmarks/lkd_bench.py           # docs/benchmarks/image_weights.json, .md, .svg
    python benchmarks/lkd_bench.py --quick   # few copies and pictures; prints, writes nothing
    python benchmarks/lkd_bench.py --vae FOLDER --parts FOLDER   # another decoder; prints, writes nothing

Parts: scripts/train_lkd.py. The peer (benchmarks/peers/stable_signature.py) is left out, and that is said, while its
extractor is not trained. Pictures are crops of the photographs of scripts/fetch_pictures.py that nothing was trained
or designed on (Squares); copies decode their latents. The attacker's own pictures are of the split "train" of
scripts/image_data.py.
- Bits right: of all bits of a word; one on which the picture is silent counts as a half. PSNR: to what the unmarked
  decoder makes of the same latents, over all pictures. Sizes in px of an attack are the papers' at 512 px times side /
  512.
- `attacked` is the mean over the attacks whose kind and strength the extractor was trained for (CURRICULUM),
  `attacked_all` over all of them. Turned and mirrored pictures are read by LKD with its search, which uses no word; the
  peer has none.
- Identification is among 10^5 licenses, of pictures under the papers' "combined" attack: half the area cropped,
  brightness 1.5, JPEG 80. One picture: the license is the only one of largest T. Eight: it is named at p_global <=
  2^-43. Groups of eight share no picture. A mark whose bits are too few for 2^-43 among so many has no such rows.
- Copies averaged: named means one of them, and nobody else, at p_global <= 1e-6 from eight pictures. No two coalitions
  have the same members, so few copies have few. The row with a target also counts a coalition whose average lies 10 dB
  or more further from the unmarked decoder than its copies; it is that of the worse of the attacker's two ways, with
  and without putting the channels in one order first.

What is done is kept under build/lkd-bench, by the hash of parts, decoder and code: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from report import FOLDER, Kept, Row, bootstrap, environment, proportion, write

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

import fetch_pictures  # noqa: E402
import image_data  # noqa: E402
import train_lkd as trainer  # noqa: E402
from fetch_model import FetchError  # noqa: E402
from fetch_pictures import squares  # noqa: E402
from image_data import Batch  # noqa: E402
from image_series import source_hash  # noqa: E402
from image_table import unite  # noqa: E402
from lkd_figures import EXAMPLES, NOTES, beside, examples, plot, psnr  # noqa: E402
from peers import stable_signature as peer  # noqa: E402
from train_image_model import Draw, _load  # noqa: E402
from zhiyi_watermark import image_weights, prf, stats, tensorfile  # noqa: E402
from zhiyi_watermark.attacks import decoder as attacks  # noqa: E402
from zhiyi_watermark.attacks import image, image_model, weights  # noqa: E402
from zhiyi_watermark.errors import CarrierError, UnavailableError  # noqa: E402
from zhiyi_watermark.image_weights import LayerModulation, Modulation, Parts, issue, words  # noqa: E402
from zhiyi_watermark.pictures import Picture  # noqa: E402

Rgb = npt.NDArray[np.uint8]
Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
KEY: Final = hashlib.sha256(b"zhiyi lkd benchmark").digest()
WORK: Final = ROOT / "build" / "lkd-bench"
EXTRACTOR_OF_PEER: Final = peer.WORK / "extractor.pt"
LICENSES: Final = 100_000
HELD_OUT: Final = 1 << 20  # step of the first held-out picture
NAMES: Final = {"jpeg80": "j80", "jpeg50": "j50", "jpeg25": "j25", "rotate5": "rot5", "rotate25": "rot25",
                "rotate75": "rot75", "none": "clean"}  # fmt: skip
TURNED: Final = ("rotate25", "rotate75", "flip")
CURRICULUM: Final = (
    "jpeg80", "jpeg50", "jpeg25", "blur4", "blur4_8x8", "noise05", "noise10", "bright15", "saturation15", "contrast15",
    "resize50", "resize30", "crop_resize75", "crop50", "drop40", "rotate5",
)  # fmt: skip
COST: Final = 10.0  # dB
PEER_LEVELS: Final = 32  # of one unit of a logit of the peer, when rounded; none becomes zero
PEER_STEP: Final = 8  # of these, a unit of T: as for LKD, T's are -15 .. 15
PEER_NET: Final = hashlib.sha256(b"stable signature").digest()  # its words are drawn from no net


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    licenses: int  # registered
    copies: int  # issued by LKD
    peers: int  # copies fine-tuned by the peer
    pictures: int  # of each copy, as they are and for identification; divisible by eight
    attacked: int  # of each copy, under each attack on pictures
    turned: int  # of each copy, turned and mirrored: read with the search
    suite: int  # copies whose decoder is attacked
    trained: int  # of these, by training
    coalitions: int
    stops: tuple[int, ...]  # steps of the attacker's training
    anew: tuple[int, ...]  # steps of a new decoder's training
    pushed: int  # pictures of each of the trained copies, changed by the extractor's gradient


FULL: Final = Size(LICENSES, 32, 6, 64, 8, 4, 6, 1, 50, (100, 200, 500, 1000), (200, 600), 32)
QUICK: Final = Size(LICENSES, 2, 1, 8, 2, 1, 1, 1, 2, (10, 20), (20,), 4)


def say(what: str) -> None:
    """Progress, for people."""
    print(f"[{time.process_time():6.0f} CPU s] {what}", file=sys.stderr, flush=True)


# --- the two marks ------------------------------------------------------------------------------------------


class Mark(Protocol):
    """What both marks are measured by."""

    id: str
    bits: int
    net: bytes  # what words are drawn from besides the key, 32 bytes
    copies: int
    step: int  # of what is read, a unit of T

    def copy(self, number: int, out: Path) -> None:
        """Writes the AutoencoderKL of one license."""

    def read(self, picture: Rgb, *, wide: bool = False) -> list[int]:
        """What a picture says, an integer a bit."""

    def logits(self) -> attacks.Logits:
        """The same for who has the extractor."""


class Lkd:
    """LKD with the parts of a folder."""

    id = "lkd"
    step = 1

    def __init__(self, vae: Path, parts: Path, copies: int) -> None:
        self.vae, self.copies = vae, copies
        trained = Parts.load(parts)
        self.modulation, self.extractor = trained.modulation, trained.extractor
        self.bits, self.net = self.extractor.bits, self.extractor.net_hash()

    def copy(self, number: int, out: Path) -> None:
        issue(self.vae, out, self.modulation, KEY, license_of(number))

    def read(self, picture: Rgb, *, wide: bool = False) -> list[int]:
        said: list[int] = self.extractor.read(Picture(picture), wide=wide).q.tolist()
        return said

    def logits(self) -> attacks.Logits:
        return attacks.logits_of(self.extractor)


class Signature:
    """The peer, read as it is and at the side it was trained with, as LKD is."""

    id = "stablesig"
    net = PEER_NET
    step = PEER_STEP

    def __init__(self, bench: Bench, made: peer.Peer, pool: trainer.Pool, bits: int, steps: int) -> None:
        self.vae, self.made, self.pool, self.bits, self.steps = bench.vae, made, pool, bits, steps
        self.copies, self.side = bench.size.peers, int(pool.pictures.shape[-1])

    def copy(self, number: int, out: Path) -> None:
        message = (words(KEY, [license_of(number)], self.bits, self.net)[0] > 0).astype(np.uint8)
        made = peer.finetune(self.vae, self.made, message, self.pool, seed=number, steps=self.steps)
        made.save_pretrained(out)

    def read(self, picture: Rgb, *, wide: bool = False) -> list[int]:
        import torch

        height, width = picture.shape[:2]
        ways = [picture]
        if (short := min(height, width)) != self.side:
            ways.append(
                image_weights.resized(picture, height * self.side // short, width * self.side // short)
            )
        with torch.no_grad():
            said = [
                self.made.logits(trainer.to_tensor(way[None]).to(trainer.device()))[0].cpu() for way in ways
            ]
        best = max(said, key=lambda x: float(x.abs().sum()))
        return in_levels(best.double().numpy())

    def logits(self) -> attacks.Logits:
        return lambda x: self.made.logits(x.to(trainer.device())).to(x.device)


def in_levels(logits: npt.NDArray[np.float64]) -> list[int]:
    """Logits of the peer in whole levels, each with its sign.  # (bits,) -> -127 .. 127, never 0"""
    sizes = np.clip(np.rint(np.abs(logits) * PEER_LEVELS), 1, 127).astype(np.int64)
    out: list[int] = np.where(logits > 0, sizes, -sizes).tolist()
    return out


def license_of(number: int) -> int:
    """The registered license of a copy."""
    return 1 + 3 * number


# --- what they are measured on ------------------------------------------------------------------------------


# row id, what, field of Identified, target
QUESTIONS: Final[dict[int, tuple[tuple[str, str, str, float | None], ...]]] = {
    1: (
        ("identify_1e5_one", "its T alone is the largest", "first", 0.9),
        ("trace_1e5_one", "named at 1e-6 and nobody else", "traced", None),
        ("detect_1e5_one", "named at 2^-43 and nobody else", "convicted", None),
    ),
    8: (
        ("identify_1e5_eight", "named at 2^-43 and nobody else", "convicted", 0.999),
        ("trace_1e5_eight", "named at 1e-6 and nobody else", "traced", None),
        ("first_1e5_eight", "its T alone is the largest", "first", None),
    ),
}


class Squares:
    """Pictures of the held-out photographs: of each square of 512 px in turn a crop by seed, scaled down to side px."""

    def __init__(self, side: int) -> None:
        """Raises FetchError when the photographs can't be had."""
        found = list(squares(seen=False))
        found.sort(
            key=lambda one: int(one[0].rpartition("-")[2])
        )  # the first square of each photograph first
        self.side, self._squares = side, [picture for _, picture in found]
        self.count, self.photographs = len(found), len({name.rpartition("-")[0] for name, _ in found})

    def __call__(self, step: int, count: int) -> Batch:
        """16 pictures a step at most; any 67 that follow each other are of all squares."""
        from PIL import Image

        rng = np.random.default_rng([20250304, step])
        out = []
        for i in range(count):
            whole = self._squares[(16 * step + i) % len(self._squares)]
            most = whole.shape[0]
            side = int(rng.integers(min(2 * self.side, most), min(6 * self.side, most) + 1))
            top, left = (int(rng.integers(0, most - side + 1)) for _ in range(2))
            cut = Image.fromarray(np.ascontiguousarray(whole[top : top + side, left : left + side]))
            out.append(np.asarray(cut.resize((self.side, self.side), Image.Resampling.BOX)))
        return Batch(np.stack(out), np.full(count, -1, dtype=np.int64), [""] * count)


class Bench:
    """A decoder, held-out pictures, and what was measured on them before."""

    def __init__(self, vae: Path, size: Size, work: Path, held_out: Draw, own: Draw) -> None:
        """held_out: pictures nothing was trained on; own: those that attacker and peer train on."""
        self.vae, self.size, self._held_out, self._own = vae, size, held_out, own
        self._words: dict[str, Int8] = {}
        self._keep_in(work)

    def _keep_in(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.kept = work, Kept(work / "results.json")

    def apart(self, work: Path) -> Bench:
        """The same decoder and pictures, what is measured kept elsewhere."""
        out = copy.copy(self)
        out._keep_in(work)
        return out

    @cached_property
    def base(self) -> Any:
        """The unmarked autoencoder."""
        return trainer.load_vae(self.vae)

    @cached_property
    def model(self) -> str:
        """Of the pipeline that the autoencoder belongs to, 8 hex digits; empty where there is none."""
        folder = self.vae.resolve().parent
        if not (folder / "model_index.json").is_file():
            return ""
        state = hashlib.sha256()
        for file in sorted([*folder.glob("*/*.safetensors"), *folder.glob("*/*.json")]):
            state.update(file.read_bytes())
        return state.hexdigest()[:8]

    @cached_property
    def pipeline(self) -> Any:
        """That pipeline. Raises UnavailableError where it can't be loaded."""
        from zhiyi_watermark.model_folder import load_pipeline

        return load_pipeline(self.vae.resolve().parent).to(trainer.device())

    @cached_property
    def pool(self) -> trainer.Pool:
        """Held-out latents and what the unmarked decoder makes of them, `pictures` for each copy."""
        say(f"encoding {self.size.copies * self.size.pictures} held-out pictures")
        return trainer.pool_of(
            self.base, self._held_out, self.size.copies * self.size.pictures, first=HELD_OUT
        )

    def own(self, step: int, count: int) -> Rgb:
        """The attacker's pictures."""
        return self._own(1 + step, count).pictures

    def registered(self, mark: Mark) -> Int8:
        """The words of all licenses, license n in row n - 1.  # (licenses, bits)"""
        if mark.id not in self._words:
            self._words[mark.id] = words(KEY, range(1, self.size.licenses + 1), mark.bits, mark.net)
        return self._words[mark.id]

    def plain(self, number: int, count: int) -> Rgb:
        """What the unmarked decoder makes of the first latents of a copy."""
        low = number * self.size.pictures
        return _rgb(self.pool.pictures[low : low + count])

    def decoded(self, vae: Any, number: int, count: int) -> Rgb:
        """What another makes of them."""
        import torch

        low = number * self.size.pictures
        out = []
        with torch.no_grad():
            for at in range(low, low + count, 16):
                z = self.pool.latents[at : min(at + 16, low + count)].float().to(trainer.device())
                out.append(trainer.to_bytes(vae.decode(z).sample).cpu())
        return _rgb(torch.cat(out))

    def copy(self, mark: Mark, number: int) -> Path:
        """The folder of a copy, made once."""
        path = self.work / f"{mark.id}-{number}"
        if not path.exists():
            made = path.with_name(path.name + ".made")
            shutil.rmtree(made, ignore_errors=True)
            mark.copy(number, made)
            made.rename(path)
        return path

    def pictures(self, mark: Mark, number: int, count: int) -> Rgb:
        """Those that a copy decodes."""
        return self.decoded(trainer.load_vae(self.copy(mark, number)), number, count)

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder that an attack writes, made anew."""
        out = self.work / f"attacked-{name}"
        shutil.rmtree(out, ignore_errors=True)
        make(out)
        return out


def _rgb(pictures: Any) -> Rgb:
    out: Rgb = np.ascontiguousarray(pictures.permute(0, 2, 3, 1).numpy())
    return out


def mean_square(made: Rgb, plain: Rgb) -> float:
    """Of values 0 .. 255."""
    return float(((made.astype(np.float64) - plain) ** 2).mean())


class Said(NamedTuple):
    """Pictures that were read; JSON."""

    q: list[str]  # see read()
    error: float  # mean squared, to the unmarked decoder's


def right(said: Sequence[str], word: Int8) -> float:
    """The share of bits that are right, as trainer.share_right. word: (bits,)."""
    return trainer.share_right(whole(said), word)


def read(mark: Mark, pictures: Rgb | Sequence[Rgb], *, wide: bool = False) -> list[str]:
    """Each picture by itself: a byte a bit, signed, in hex."""
    return [np.array(mark.read(picture, wide=wide), dtype=np.int8).tobytes().hex() for picture in pictures]


def whole(said: Sequence[str]) -> Int64:
    """What read() gave, as integers.  # (pictures, bits)"""
    return np.stack([np.frombuffer(bytes.fromhex(one), dtype=np.int8) for one in said]).astype(np.int64)


def for_t(mark: Mark, said: Sequence[str]) -> Int64:
    """The same in units of T, -15 .. 15.  # (pictures, bits)"""
    q = np.rint(whole(said) / mark.step).astype(np.int64)
    return np.clip(q, -15, 15)


# --- attacks on pictures ------------------------------------------------------------------------------------


def combined(picture: Rgb, seed: int) -> Rgb:
    """The papers' attack of that name."""
    return image.jpeg(image.brightness(image.crop(picture, 0.5, seed), 1.5), 80)


def on_pictures(side: int) -> dict[str, image.Attack]:
    """All that need no model."""
    return {**trainer.suite(side), "combined": combined}


def picture_rows(bench: Bench, mark: Mark) -> list[Row]:
    """Quality, bits right after each attack, identification."""
    size, kept = bench.size, bench.kept
    side = bench.plain(0, 1).shape[1]
    shares: dict[str, list[float]] = {}
    clean: list[tuple[Int8, Int64]] = []
    harmed: list[tuple[Int8, Int64]] = []
    errors, plain_said, copied_bits = [], [], []
    copied: list[bool] = []
    registered = bench.registered(mark)
    for number in range(mark.copies):
        word = registered[license_of(number) - 1]
        found = Said(*kept.get(f"{mark.id} clean {number}", partial(_clean, bench, mark, number)))
        errors.append(found.error)
        clean.append((word, for_t(mark, found.q)))
        shares.setdefault("none", []).append(right(found.q, word))
        for name in on_pictures(side):
            if name == "none":
                continue
            count = size.pictures if name == "combined" else size.turned if name in TURNED else size.attacked
            got = kept.get(f"{mark.id} {name} {number}", partial(_attacked, bench, mark, number, name, count))
            shares.setdefault(name, []).append(right(got, word))
            if name == "combined":
                harmed.append((word, for_t(mark, got)))
        for name, attack in (("reencode", _reencoded), ("averaged", _averaged)):
            got = kept.get(f"{mark.id} {name} {number}", partial(attack, bench, mark, number, size.attacked))
            shares.setdefault(name, []).append(right(got, word))
        for name in REGENERATED if bench.model else ():
            got = kept.get(
                f"{mark.id} {name} {bench.model} {number}", partial(_regenerated, bench, mark, number, name)
            )
            shares.setdefault(name, []).append(right(got, word))
        plain_said.append(
            right(kept.get(f"{mark.id} plain {number}", partial(_plain, bench, mark, number)), word)
        )
        got = kept.get(f"{mark.id} copied {number}", partial(_copied, bench, mark, number))
        copied_bits.append(right(got, word))
        copied += [identified(one, word, registered).traced for one in for_t(mark, got)]
    mean = {name: float(np.mean(values)) for name, values in shares.items()}
    counted = {"none": size.pictures, "combined": size.pictures, **dict.fromkeys(TURNED, size.turned)}

    def row(name: str, target: float | None = None) -> Row:
        id_ = f"{mark.id}_{NAMES.get(name, name)}"
        n = mark.copies * counted.get(name, size.attacked)
        return _row(mark, id_, f"bits right: {name}", mean[name], n, target, copies=shares[name])

    def over(names: Sequence[str]) -> list[float]:
        return np.mean([shares[name] for name in names], axis=0).tolist()

    harms = [name for name in mean if name != "none"]
    targets = {"none": 0.9995, "rotate25": 0.95, "resize30": 0.95, "jpeg50": 0.97}
    rows = [
        _row(mark, f"{mark.id}_psnr", "PSNR to the unmarked decoder, dB", psnr(float(np.mean(errors))),
             mark.copies * size.pictures, 36.0, unit="dB"),
        row("none", targets["none"]),
        _row(mark, f"{mark.id}_attacked",
             f"bits right, mean over the {len(CURRICULUM)} attacks of the curriculum; of all, `attacked_all`",
             float(np.mean(over(CURRICULUM))), mark.copies * size.attacked, 0.996, copies=over(CURRICULUM)),
        _row(mark, f"{mark.id}_attacked_all", f"bits right, mean over all {len(harms)} attacks on pictures",
             float(np.mean(over(harms))), mark.copies * size.attacked, copies=over(harms)),
        *(row(name, targets.get(name)) for name in mean if name != "none"),
        _row(mark, f"{mark.id}_unmarked", "bits of the word in pictures of the unmarked decoder",
             float(np.mean(plain_said)), mark.copies * size.attacked, copies=plain_said),
        _row(mark, f"{mark.id}_copied", "bits of the word in unmarked pictures with the average difference added",
             float(np.mean(copied_bits)), len(copied), copies=copied_bits),
        proportion(f"{mark.id}_copied_framed", "those: the license is named at 1e-6 of one picture",
                   sum(copied), len(copied)),
    ]  # fmt: skip
    return rows + identification_rows(mark, registered, clean, harmed)


def _row(
    mark: Mark,
    id_: str,
    what: str,
    value: float,
    n: int,
    target: float | None = None,
    *,
    unit: str = "",
    copies: Sequence[float] = (),
) -> Row:
    """A row; the peer has no targets. copies: what each copy gave, for the interval."""
    aim = target if mark.id == "lkd" else None
    return Row(id_, what, value, unit, n, aim, ">=" if aim is not None else None, interval=bootstrap(copies))


def _clean(bench: Bench, mark: Mark, number: int) -> list[Any]:
    say(f"{mark.id}: copy {number}")
    made = bench.pictures(mark, number, bench.size.pictures)
    error = mean_square(made, bench.plain(number, bench.size.pictures))
    return [read(mark, made), error]


def _attacked(bench: Bench, mark: Mark, number: int, name: str, count: int) -> list[str]:
    made = bench.pictures(mark, number, count)
    attack = on_pictures(made.shape[1])[name]
    seeds = range(number * bench.size.pictures, number * bench.size.pictures + count)
    harmed = [attack(picture, seed) for picture, seed in zip(made, seeds, strict=True)]
    return read(mark, harmed, wide=name in TURNED)


def _reencoded(bench: Bench, mark: Mark, number: int, count: int) -> list[str]:
    """Through the unmarked autoencoder."""
    import torch

    x = trainer.to_tensor(bench.pictures(mark, number, count)).to(trainer.device())
    with torch.no_grad():
        again = trainer.to_bytes(bench.base.decode(bench.base.encode(x).latent_dist.mode()).sample).cpu()
    return read(mark, _rgb(again))


REGENERATED: Final = ("img2img30", "img2img50", "style")


def _regenerated(bench: Bench, mark: Mark, number: int, name: str) -> list[str]:
    """By the unmarked pipeline; the style is of an unmarked picture of other latents."""
    count = bench.size.attacked
    made, pipeline = bench.pictures(mark, number, count), bench.pipeline
    if name == "style":
        styles = bench.plain((number + 1) % bench.size.copies, count)
        pairs = zip(made, styles, strict=True)
        return read(mark, [image_model.transfer_style(pipeline, *pair) for pair in pairs])
    strength = int(name.removeprefix("img2img")) / 100
    low = number * bench.size.pictures
    return read(mark, [image_model.img2img(pipeline, x, strength, seed=low + i) for i, x in enumerate(made)])


def _averaged(bench: Bench, mark: Mark, number: int, count: int) -> list[str]:
    """Less what all of a copy's pictures differ by, on average, from the unmarked ones: the attacker has both."""
    made, plain = (made(number, bench.size.pictures) for made in (partial(bench.pictures, mark), bench.plain))
    pattern = image.averaged_difference(made, plain)
    return read(mark, [image.remove_average(picture, pattern) for picture in made[:count]])


def _plain(bench: Bench, mark: Mark, number: int) -> list[str]:
    return read(mark, bench.plain(number, bench.size.attacked))


def _copied(bench: Bench, mark: Mark, number: int) -> list[str]:
    """Unmarked pictures of other latents with that average difference added: framing without the extractor."""
    made, plain = (made(number, bench.size.pictures) for made in (partial(bench.pictures, mark), bench.plain))
    pattern = image.averaged_difference(made, plain)
    others = bench.plain((number + 1) % mark.copies, bench.size.attacked)
    return read(mark, [image.remove_average(picture, -pattern) for picture in others])


def identification_rows(
    mark: Mark,
    registered: Int8,
    clean: Sequence[tuple[Int8, Int64]],
    harmed: Sequence[tuple[Int8, Int64]],
) -> list[Row]:
    """Top one, a trace and a detection, of one picture and of eight."""
    rows = []
    for count, asked in QUESTIONS.items():
        for name, given in (("", harmed), ("_clean", clean)):
            under = "as they are" if name else "under the combined attack"
            found = [
                identified(q[at : at + count].sum(axis=0), word, registered)
                for word, q in given
                for at in range(0, len(q) - count + 1, count)
            ]
            for id_, what, of, target in asked:
                if of == "convicted" and len(registered) > stats.CONVICT * 2**mark.bits:
                    continue  # all bits right are too few
                aim = target if not name and mark.id == "lkd" else None
                rows.append(
                    proportion(
                        f"{mark.id}_{id_}{name}",
                        f"{count} picture{'s' * (count > 1)} {under}, {len(registered)} licenses: {what}",
                        sum(bool(getattr(one, of)) for one in found),
                        len(found),
                        target=aim,
                        sense=None if aim is None else ">=",
                    )
                )
    return rows


class Identified(NamedTuple):
    """What the sums of a case say of its license."""

    first: bool  # no other has as large a T
    traced: bool
    convicted: bool


def identified(sums: Int64, word: Int8, registered: Int8) -> Identified:
    """By the exact law of LkdReader.verdict, every license counted."""
    totals = registered.astype(np.int64) @ sums
    own, highest = int(sums @ word), int(totals.max(initial=-(1 << 60)))
    first = own == highest and int((totals == highest).sum()) == 1
    tail = stats.sign_tail(sums, own)
    others = np.unique(totals[totals < own])
    nobody = not len(others) or not stats.sign_tail(sums, int(others[-1])).at_most(
        stats.TRACE, len(registered)
    )
    return Identified(
        first,
        first and nobody and tail.at_most(stats.TRACE, len(registered)),
        first and nobody and tail.at_most(stats.CONVICT, len(registered)),
    )


# --- attacks on the decoder ---------------------------------------------------------------------------------


class Point(NamedTuple):
    """One strength of one attack on decoders: a point of a curve."""

    id: str
    family: str
    strength: str
    shares: list[float]  # bits right, of each copy
    error: float  # mean squared, to the unmarked decoder


def rounded(bits: int, group: int | None = None) -> Callable[[Path, Path], None]:
    """Prune and the like take the decoder's tensors only."""
    return partial(weights.quantise, bits=bits, group=group, where=attacks.in_decoder)


SIMPLE: Final[dict[str, tuple[str, str, Callable[[Path, Path], None]]]] = {
    **{
        f"prune{p}": ("prune", f"{p} %", partial(weights.prune, share=p / 100, where=attacks.in_decoder))
        for p in (10, 30, 50, 70)
    },
    "int8": ("round", "int8 by channels", rounded(8)),
    "int4": ("round", "int4 by 32", rounded(4, 32)),
    "int3": ("round", "int3 by 32", rounded(3, 32)),
    **{
        f"weightnoise{p}": (
            "noise on weights", f"{p} %", partial(weights.noise, relative=p / 100, seed=1, where=attacks.in_decoder)
        )
        for p in (5, 10, 20)
    },
    **{
        f"lora{p}": (
            "LoRA of rank 8 merged", f"{p} %",
            partial(weights.merge_lora, relative=p / 100, seed=1, where=attacks.in_decoder),
        )
        for p in (5, 10)
    },
}  # fmt: skip


def suite(bench: Bench, mark: Mark) -> list[Point]:
    """Every attack on the decoder of one copy."""
    size, kept, copies = bench.size, bench.kept, min(bench.size.suite, mark.copies)
    registered = bench.registered(mark)
    word_of = [registered[license_of(number) - 1] for number in range(copies)]
    out = []

    def add(id_: str, family: str, strength: str, said: Sequence[Said]) -> None:
        shares = [right(one.q, word_of[i]) for i, one in enumerate(said)]
        out.append(Point(id_, family, strength, shares, float(np.mean([one.error for one in said]))))

    plain = [
        Said(*kept.get(f"{mark.id} copy {n}", partial(_unharmed, bench, mark, n))) for n in range(copies)
    ]
    add("copy", "none", "", plain)
    for name, (family, strength, attack) in SIMPLE.items():
        said = [
            Said(*kept.get(f"{mark.id} {name} {n}", partial(_rewritten, bench, mark, n, name, attack)))
            for n in range(copies)
        ]
        add(name, family, strength, said)
    trainings: tuple[tuple[str, str, tuple[int, ...], dict[str, Any]], ...] = (
        ("finetune", "fine-tune on own pictures", size.stops, {}),
        ("whitebox", "fine-tune against the extractor", size.stops, {"unsaid": mark.logits()}),
        (
            "distil",
            "new decoder, of the copy's pictures",
            size.anew,
            {"anew": True, "from_copy": True, "rate": 2e-3},
        ),
        ("swap", "new decoder, of own pictures", size.anew, {"anew": True, "rate": 2e-3}),
    )
    for name, family, stops, options in trainings:
        each = [
            [Said(*one) for one in kept.get(f"{mark.id} {name} {stops} {n}",
                                            partial(_trained, bench, mark, n, name, stops, options))]
            for n in range(min(size.trained, copies))
        ]  # fmt: skip
        for i, steps in enumerate(stops):
            add(f"{name}{steps}", family, f"{steps} steps", [stages[i] for stages in each])
    return out


def _measured(bench: Bench, mark: Mark, number: int, vae: Any) -> list[Any]:
    made = bench.decoded(vae, number, bench.size.attacked)
    return [read(mark, made), mean_square(made, bench.plain(number, bench.size.attacked))]


def _unharmed(bench: Bench, mark: Mark, number: int) -> list[Any]:
    """On the pictures that its attacked decoders are told of."""
    return _measured(bench, mark, number, trainer.load_vae(bench.copy(mark, number)))


def _rewritten(
    bench: Bench, mark: Mark, number: int, name: str, attack: Callable[[Path, Path], None]
) -> list[Any]:
    say(f"{mark.id}: {name}, copy {number}")
    source = bench.copy(mark, number)
    return _measured(bench, mark, number, trainer.load_vae(bench.made(name, lambda out: attack(source, out))))


def _trained(
    bench: Bench, mark: Mark, number: int, name: str, stops: tuple[int, ...], options: dict[str, Any]
) -> list[list[Any]]:
    say(f"{mark.id}: {name}, {stops[-1]} steps, copy {number}")
    vae = trainer.load_vae(bench.copy(mark, number))
    return [
        _measured(bench, mark, number, made) for _, made in attacks.tuned(vae, bench.own, stops, **options)
    ]


def suite_rows(mark: Mark, points: Sequence[Point], pictures: int) -> list[Row]:
    """Bits right and the quality left, of each."""
    targets = {"prune50": 0.98, "int8": 0.995}
    rows = []
    for point in points:
        if point.id == "copy":
            continue
        what, n = f"{point.family} {point.strength}", len(point.shares) * pictures
        bits = float(np.mean(point.shares))
        rows.append(
            _row(
                mark,
                f"{mark.id}_{point.id}",
                f"bits right: {what}",
                bits,
                n,
                targets.get(point.id),
                copies=point.shares,
            )
        )
        rows.append(Row(f"{mark.id}_{point.id}_psnr", f"PSNR: {what}", psnr(point.error), "dB", n))
    return rows


# --- coalitions ---------------------------------------------------------------------------------------------


class Coalition(NamedTuple):
    """What came of averaged copies; JSON."""

    named: bool  # one of them and nobody else
    innocent: bool  # somebody else
    share: float  # of the bits in which the copies agree, those right
    lost: float  # dB, against the copies'


def collusion_rows(bench: Bench, mark: Mark) -> list[Row]:
    """Two, three and four copies averaged, as they are and after their channels were put in one order."""
    rows: list[Row] = []
    rates: dict[tuple[int, str], tuple[int, int]] = {}
    innocents = total = 0
    for count in (2, 3, 4):
        if mark.copies < count:
            continue
        for way in ("plain", "aligned"):
            found = [
                Coalition(*bench.kept.get(f"{mark.id} collude {way} {members}",
                                          partial(_collude, bench, mark, members, way)))
                for members in coalitions(mark.copies, count, bench.size.coalitions)
            ]  # fmt: skip
            n = len(found)
            innocents, total = innocents + sum(c.innocent for c in found), total + n
            rates[count, way] = sum(c.named or c.lost >= COST for c in found), n
            stem = f"{mark.id}_collude{count}_{way}"
            what = f"{count} copies averaged, channels {'as they are' if way == 'plain' else 'put in one order first'}"
            rows += [
                proportion(f"{stem}_named", f"{what}: one is named and nobody else", sum(c.named for c in found), n),
                Row(f"{stem}_lost", f"{what}: dB lost", float(np.mean([c.lost for c in found])), "dB", n),
                Row(f"{stem}_agreed", f"{what}: right of the bits that all copies share",
                    float(np.mean([c.share for c in found])), "", n),
            ]  # fmt: skip
    for count in (2, 3, 4):
        if (count, "plain") in rates:
            worse = min(("plain", "aligned"), key=lambda way: rates[count, way])
            aim = 0.99 if count == 2 and mark.id == "lkd" else None
            rows.insert(0, proportion(
                f"{mark.id}_collude{count}_named",
                f"{count} copies averaged: one named and nobody else, or {COST:g} dB lost; worse way: {worse}",
                *rates[count, worse], target=aim, sense=">=" if aim else None,
            ))  # fmt: skip
    if total:
        rows.append(proportion(f"{mark.id}_collude_innocents", "coalitions by which somebody else is named",
                               innocents, total))  # fmt: skip
    return rows


def coalitions(copies: int, count: int, most: int) -> list[list[int]]:
    """So many sets of copies, no two of the same members; all there are, if fewer. Pictures are of the first."""
    rng = np.random.default_rng(count)
    out: dict[frozenset[int], list[int]] = {}
    while len(out) < min(most, math.comb(copies, count)):
        members = rng.choice(copies, count, replace=False).tolist()
        out.setdefault(frozenset(members), members)
    return list(out.values())


def _collude(bench: Bench, mark: Mark, members: list[int], way: str) -> list[Any]:
    count = len(members)
    say(f"{mark.id}: copies {members} averaged, {way}")
    folders = [bench.copy(mark, n) for n in members]
    if way == "aligned":
        others = (partial(attacks.align, folder, folders[0]) for folder in folders[1:])
        folders = [folders[0], *(bench.made(f"aligned{i}", other) for i, other in enumerate(others))]
    mean = bench.made("mean", partial(attacks.average, folders))
    where = members[0]
    made = bench.decoded(trainer.load_vae(mean), where, 8)
    sums = for_t(mark, read(mark, made)).sum(axis=0)
    registered = bench.registered(mark)
    totals = registered.astype(np.int64) @ sums
    named = passing(sums, totals)
    own = {license_of(n) - 1 for n in members}
    together = registered[sorted(own)].astype(np.int64)
    agreed = np.abs(together.sum(axis=0)) == count
    share = float((sums * together[0] > 0)[agreed].mean()) if agreed.any() else 0.0
    before = mean_square(bench.pictures(mark, where, 8), bench.plain(where, 8))
    after = mean_square(made, bench.plain(where, 8))
    return [bool(named) and named <= own, bool(named - own), share, psnr(before) - psnr(after)]


def passing(sums: Int64, totals: Int64) -> set[int]:
    """Rows of the licenses that a trace names."""
    out: set[int] = set()
    for i in np.argsort(-totals, kind="stable").tolist():
        if not stats.sign_tail(sums, int(totals[i])).at_most(stats.TRACE, len(totals)):
            break
        out.add(i)
    return out


# --- who has the extractor ----------------------------------------------------------------------------------


def gradient_rows(bench: Bench, mark: Mark) -> list[Row]:
    """Pictures changed by the extractor's gradient: unsaid, and made to say another license's word."""
    size, rows = bench.size, []
    registered = bench.registered(mark)
    for levels in (1, 2, 4, 8):
        unsaid, framed, bits, errors = [], [], [], []
        for number in range(min(size.trained, mark.copies)):
            word = registered[license_of(number) - 1]
            q, error, forged = bench.kept.get(
                f"{mark.id} gradient {levels} {number}", partial(_pushed, bench, mark, number, levels)
            )
            unsaid.append(right(q, word))
            errors.append(error)
            bits.append(right(forged, word))
            framed += [identified(one, word, registered).traced for one in for_t(mark, forged)]
        n, what = (
            len(unsaid) * size.pushed,
            f"pictures changed by {levels} of 255 along the extractor's gradient",
        )
        rows += [
            Row(f"{mark.id}_unsaid{levels}", f"{what}: bits right", float(np.mean(unsaid)), "", n),
            Row(f"{mark.id}_unsaid{levels}_psnr", f"{what}: PSNR to them", psnr(float(np.mean(errors))), "dB", n),
            Row(f"{mark.id}_forged{levels}", f"unmarked {what} towards what one picture of a copy says: bits right",
                float(np.mean(bits)), "", n),
            proportion(f"{mark.id}_framed{levels}", "those: the copy's license is named at 1e-6 of one picture",
                       sum(framed), len(framed)),
        ]  # fmt: skip
    return rows


def _pushed(bench: Bench, mark: Mark, number: int, levels: int) -> list[Any]:
    say(f"{mark.id}: the extractor's gradient, {levels} levels, copy {number}")
    logits = mark.logits()
    made = bench.pictures(mark, number, bench.size.pushed)
    away = attacks.pushed(made, logits, levels)
    seen = np.sign(np.array(mark.read(made[0]), dtype=np.int64)).astype(np.int8)
    forged = attacks.pushed(bench.plain(number, bench.size.pushed), logits, levels, towards=seen)
    return [read(mark, away), mean_square(away, made), read(mark, forged)]


# --- issuing ------------------------------------------------------------------------------------------------


def issue_rows(bench: Bench, mark: Mark) -> list[Row]:
    """Wall clock of one copy, the median of five (of the peer one)."""
    seconds = bench.kept.get(f"{mark.id} issue", partial(_issued, bench, mark, 5 if mark.id == "lkd" else 1))
    aim = 1.0 if mark.id == "lkd" else None
    parameters = sum(p.numel() for p in bench.base.decoder.parameters())
    what = f"issuing a copy, a decoder of {parameters / 1e6:.2f} million weights, wall clock"
    return [
        Row(
            f"{mark.id}_issue_s",
            what,
            float(np.median(seconds)),
            "s",
            len(seconds),
            aim,
            "<=" if aim else None,
        )
    ]


def _issued(bench: Bench, mark: Mark, count: int) -> list[float]:
    seconds = []
    for number in range(count):
        out = bench.work / "issued"
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        mark.copy(number, out)
        seconds.append(time.perf_counter() - started)
    return seconds


def large_row(bench: Bench) -> Row:
    """LKD on an autoencoder of Stable Diffusion's shapes; weights and modulation are drawn, as time asks for none."""
    seconds = bench.kept.get("issue large", partial(_large, bench.work / "large"))
    what = "issuing a copy of an autoencoder of Stable Diffusion's shapes (84 million weights, float16), wall clock"
    return Row("lkd_issue_large_s", what, float(np.median(seconds)), "s", len(seconds))


def _large(folder: Path) -> list[float]:
    import torch
    from diffusers import AutoencoderKL

    say("issuing copies of a large autoencoder")
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(1)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    ).half().save_pretrained(folder / "vae")
    rng = np.random.default_rng(1)
    layers = {}
    for tensor in image_weights.decoder_layers(folder / "vae"):
        if tensor.name.endswith(".weight"):
            shapes = ((tensor.shape[0], 64), (tensor.shape[0], 16), (16, *tensor.shape[1:]), (16, 64))
            parts = [(0.01 * rng.standard_normal(shape)).astype(np.float32) for shape in shapes]
            layers[tensor.name.removesuffix(".weight")] = LayerModulation(*parts)
    vae = folder / "vae"
    modulation = Modulation(
        layers, image_weights.decoder_hash(vae), image_weights.decoder_config(vae), "00" * 32
    )
    seconds = []
    for number in range(5):
        started = time.perf_counter()
        issue(folder / "vae", folder / f"copy-{number}", modulation, KEY, number)
        seconds.append(time.perf_counter() - started)
    shutil.rmtree(folder)
    return seconds


# --- the report ---------------------------------------------------------------------------------------------


def measured(bench: Bench, mark: Mark) -> tuple[list[Row], list[Point]]:
    """All rows of a mark, those with a target first, and the curves."""
    points = suite(bench, mark)
    rows = [
        *picture_rows(bench, mark),
        *suite_rows(mark, points, bench.size.attacked),
        *collusion_rows(bench, mark),
        *gradient_rows(bench, mark),
        *issue_rows(bench, mark),
    ]
    return sorted(rows, key=lambda row: row.target is None), points


def _weights_of(vae: Path) -> list[Path]:
    return [*sorted(vae.glob("*.safetensors")), *sorted(vae.glob("*.json"))]


def is_own(vae: Path, parts: Path) -> bool:
    """Whether they are those that the table is of, however they are written."""
    own = (trainer.IMAGE_MODEL / "vae").resolve(), trainer.MODEL.resolve()
    return (vae.resolve(), parts.resolve()) == own


def tag_of(vae: Path, files: Sequence[Path], size: Size) -> str:
    """A name for results that hold only for this decoder, a mark's files, sizes and code."""
    state = hashlib.sha256(repr(size).encode())
    modules = (image_weights, stats, prf, image, image_model, weights, attacks, tensorfile, peer, trainer,
               image_data, fetch_pictures)  # fmt: skip
    state.update(source_hash(Path(__file__), *(Path(str(module.__file__)) for module in modules)).encode())
    for file in (*_weights_of(vae), *files):
        state.update(file.read_bytes())
    return state.hexdigest()[:16]


def trained_peer(
    bench: Bench, draw: Draw, plan: Any = peer.PLAN, work: Path = peer.WORK, steps: int = peer.STEPS
) -> Signature | None:
    """The peer with its extractor, None where that is not trained. steps: of a copy. It trains on the split "train"."""
    state = _load(work / EXTRACTOR_OF_PEER.name)
    if state is None or int(state["step"]) < plan.steps:
        return None
    pool = trainer.pool_of(bench.base, draw, 512)
    return Signature(bench, peer.whitened(plan, state, _rgb(pool.pictures)), pool, plan.bits, steps)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="few copies and pictures; writes nothing")
    parser.add_argument(
        "--vae", type=Path, default=trainer.IMAGE_MODEL / "vae", help="folder of the AutoencoderKL"
    )
    parser.add_argument("--parts", type=Path, default=trainer.MODEL, help="folder by scripts/train_lkd.py")
    parser.add_argument(
        "--pictures", type=Path, help="folder of pictures that who attacks trains on, instead of tiny-image's"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(options.threads)
    size = QUICK if options.quick else FULL
    try:
        mark = Lkd(options.vae, options.parts, size.copies)
        held_out = Squares(mark.extractor.side)
        train = trainer.drawing("train", options.pictures, mark.extractor.side)
    except (FetchError, CarrierError, UnavailableError) as error:
        sys.exit(f"error: {error}; scripts/train_lkd.py makes the parts")

    files = sorted(options.parts.glob("*.safetensors"))
    bench = Bench(options.vae, size, WORK / tag_of(options.vae, files, size), held_out, train)
    curves: dict[str, list[Point]] = {}
    rows, curves["lkd"] = measured(bench, mark)
    rows.append(large_row(bench))
    signature, peers = trained_peer(bench, train), bench
    if signature is None:
        say(f"{EXTRACTOR_OF_PEER} is not trained to its end: the peer is left out")
    else:
        peers = bench.apart(WORK / tag_of(options.vae, [EXTRACTOR_OF_PEER], size))
        theirs, curves["stablesig"] = measured(peers, signature)
        rows = beside(rows, theirs)
    for row in rows:
        met = (
            ""
            if row.met is None
            else f"  target {row.sense} {row.target:g}: {'met' if row.met else 'NOT MET'}"
        )
        print(f"{row.id:32s} {row.value:.4f} {row.unit} n={row.n}{met}")
    say("done")
    if options.quick or not is_own(options.vae, options.parts):
        return 0
    told = json.loads((options.parts / trainer.LOG).read_text(encoding="utf-8"))
    around = environment(
        numpy=np.__version__, extractor=mark.extractor.spec_hash().hex()[:16],
        trained=f"{told['step']} steps, {told['cpu_minutes']} CPU minutes",
    )  # fmt: skip
    told_peer = (
        (
            f"Stable Signature's {signature.bits} bits among {LICENSES} licenses cannot reach 2^-43, so "
            "rows of names at it are LKD's alone."
        )
        if signature
        else "Stable Signature is not in this table: its extractor was not trained."
    )
    write(
        "image_weights",
        "make bench-image-weights",
        rows,
        environment=around,
        notes=NOTES.format(peer=told_peer, squares=held_out.count, photographs=held_out.photographs),
    )
    plot(curves, FOLDER / "image_weights.svg")
    shown = [bench.pictures(mark, 0, EXAMPLES)]
    shown += [peers.pictures(signature, 0, EXAMPLES)] if signature else []
    examples(bench.plain(0, EXAMPLES), shown, FOLDER / "image_weights_examples.png")
    unite()
    return 0


if __name__ == "__main__":
    sys.exit(main())
