"""Captioned pictures of 64 x 64 px that the small image model is trained and checked on, composed by seed.

A picture is an emoji of Noto Color Emoji, of random size, place, turn and tint, on a crop of an openly licensed
photograph or on a drawn texture; some are backgrounds alone. No two are alike, so there is no set to memorise, and
no picture has a plain ground. The font is fetched once from a pinned Debian package as scripts/fetch_corpora.py
does; of the photographs of scripts/fetch_pictures.py only those of PHOTOGRAPHS are read, all among its SEEN, so
that none of those the benchmarks tell figures of is ever trained on.

A draw is a function of (split, step) alone. The splits "train" and "check" share the emoji but no background: the
photographs of the one are not those of the other, and the textures are drawn from other seeds.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fetch_corpora import Corpus, Files, ensure_corpus
from fetch_model import FetchError
from fetch_pictures import SEEN, photographs
from zhiyi_watermark.errors import WatermarkError
from zhiyi_watermark.pictures import open_picture

Split = Literal["train", "check"]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

SIDE: Final = 64  # px of a picture
STRIKE: Final = 109  # the only size of the font's bitmaps; a glyph is 136 x 128 px
ALONE: Final = 1 / 16  # share of pictures that are a background alone
PHOTO_SHARE: Final = 0.5  # of the backgrounds; the others are textures
SEEDS: Final = {"train": 20250201, "check": 20250202}
PHOTOGRAPHS: Final[dict[Split, tuple[str, ...]]] = {
    "train": (
        "Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Picture_0B_by_freespace",
        "aitzgorri_by_Aitzol_Berasategi", "life_by_Aitzol_Berasategi",
    ),
    "check": ("Wine_by_Jakkub_Mede", "seeding_by_Clements_Engelhardt"),
}  # fmt: skip
PICTURES: Final = frozenset((".png", ".jpg", ".jpeg", ".webp"))  # of a folder of one's own
PHOTO: Final = "photo"  # caption of a photograph alone
TEXTURE: Final = "texture"  # of a texture alone
TEMPLATES: Final = ("{}", "{}", "a picture of {}")

NAMES: Final = {
    "apple": "🍎", "pear": "🍐", "orange": "🍊", "lemon": "🍋", "banana": "🍌", "watermelon": "🍉", "grapes": "🍇",
    "strawberry": "🍓", "cherries": "🍒", "pineapple": "🍍", "kiwi": "🥝", "avocado": "🥑", "eggplant": "🍆",
    "carrot": "🥕", "corn": "🌽", "broccoli": "🥦", "mushroom": "🍄", "bread": "🍞", "cheese": "🧀",
    "hamburger": "🍔", "fries": "🍟", "pizza": "🍕", "egg": "🍳", "donut": "🍩", "cookie": "🍪", "cake": "🎂",
    "lollipop": "🍭", "beer": "🍺", "dog": "🐶", "cat": "🐱", "rabbit": "🐰", "fox": "🦊", "bear": "🐻",
    "panda": "🐼", "koala": "🐨", "tiger": "🐯", "lion": "🦁", "cow": "🐮", "pig": "🐷", "frog": "🐸",
    "monkey": "🐵", "chicken": "🐔", "penguin": "🐧", "owl": "🦉", "ladybug": "🐞", "butterfly": "🦋",
    "turtle": "🐢", "octopus": "🐙", "crab": "🦀", "whale": "🐳", "elephant": "🐘", "cactus": "🌵", "tree": "🌳",
    "pine": "🌲", "palm": "🌴", "tulip": "🌷", "rose": "🌹", "sunflower": "🌻", "blossom": "🌸", "clover": "🍀",
    "maple": "🍁", "sun": "🌞", "moon": "🌙", "star": "⭐", "rainbow": "🌈", "snowman": "⛄", "fire": "🔥",
    "droplet": "💧", "wave": "🌊", "earth": "🌍", "car": "🚗", "bus": "🚌", "rocket": "🚀", "sailboat": "⛵",
    "house": "🏠", "tent": "⛺", "football": "⚽", "basketball": "🏀", "tennis": "🎾", "trophy": "🏆",
    "guitar": "🎸", "drum": "🥁", "heart": "💗", "diamond": "💎", "crown": "👑", "lock": "🔒", "bell": "🔔",
    "clock": "🕐", "bulb": "💡", "book": "📕", "camera": "📷", "television": "📺", "balloon": "🎈", "gift": "🎁",
    "ghost": "👻", "alien": "👽", "robot": "🤖", "skull": "💀", "pumpkin": "🎃", "smile": "😀",
}  # fmt: skip


class Source(NamedTuple):
    """Something the model was trained on."""

    what: str
    holders: str
    license: str
    package: str


class Batch(NamedTuple):
    """Pictures and their captions."""

    pictures: UInt8  # (batch, 64, 64, 3)
    labels: npt.NDArray[np.int64]  # index into NAMES; -1: a background alone
    captions: list[str]


def _font(files: Files) -> dict[str, bytes]:
    return {Path(name).name: body for name, body in files.items() if name.endswith(".ttf")}


FONT: Final = Corpus(
    name="noto-color-emoji",
    package="fonts-noto-color-emoji",
    version="2.042-0+deb12u1",
    pool="pool/main/f/fonts-noto-color-emoji/fonts-noto-color-emoji_2.042-0+deb12u1_all.deb",
    sha256="a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",
    license="OFL-1.1",
    prefix="/usr/share/fonts/",
    extract=_font,
)


def sources() -> list[Source]:
    """Everything that training reads, with its license. Raises FetchError as ensure_corpus."""
    out = [
        Source(
            "Noto Color Emoji, the glyphs of NAMES",
            "Google Inc.",
            FONT.license,
            f"{FONT.package} {FONT.version}",
        )
    ]
    for photograph in photographs():
        if photograph.name in PHOTOGRAPHS["train"]:
            out.append(
                Source(
                    f"photograph {photograph.name}",
                    photograph.holders,
                    photograph.license,
                    photograph.package,
                )
            )
    return out


def glyphs() -> list[Image.Image]:
    """The emoji of NAMES in order, premultiplied RGBa of 68 x 64 px. Raises FetchError as ensure_corpus."""
    folder = ensure_corpus(FONT, shelf="fonts")
    font = ImageFont.truetype(io.BytesIO((folder / "NotoColorEmoji.ttf").read_bytes()), STRIKE)
    out = []
    for emoji in NAMES.values():
        image = Image.new("RGBA", (136, 128))
        ImageDraw.Draw(image).text((0, 0), emoji, font=font, embedded_color=True)
        box = image.getbbox()
        if box is None:
            raise ValueError(
                f"the font draws nothing for U+{ord(emoji[0]):X}; is it {FONT.package} {FONT.version}?"
            )
        cut = image.crop(box)
        square = Image.new("RGBA", (128, 128))
        square.paste(cut, ((128 - cut.width) // 2, (128 - cut.height) // 2))
        out.append(square.convert("RGBa").resize((SIDE, SIDE), Image.Resampling.BOX))
    return out


def _photographs(split: Split) -> list[UInt8]:
    """The photographs of a split, short side 256 px.  # each (height, width, 3)"""
    out = []
    for photograph in photographs():
        if photograph.name in PHOTOGRAPHS[split]:
            if photograph.name not in SEEN:
                raise ValueError(
                    f"{photograph.name} is one that figures are told of; take only those of SEEN"
                )
            with Image.open(photograph.path) as file:
                file.draft("RGB", (1024, 1024))
                image = file.convert("RGB")
            scale = 256 / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            out.append(np.array(image.resize(size, Image.Resampling.LANCZOS), dtype=np.uint8))
    return out


def _color(rng: np.random.Generator) -> Float32:
    """A color between 20 and 235 a channel.  # (3,)"""
    return rng.uniform(20, 235, 3).astype(np.float32)


def texture(rng: np.random.Generator) -> UInt8:
    """A drawn background: clouds, stripes or spots between two or three colors.  # (64, 64, 3)"""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    turn = rng.uniform(0, 2 * np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    cloud = np.zeros((SIDE, SIDE), dtype=np.float32)
    for cells, weight in ((3, 1.0), (6, 0.5), (12, 0.25)):
        small = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
        cloud += weight * np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    kind, waves = int(rng.integers(0, 4)), rng.uniform(2, 7)
    if kind == 0:
        field = cloud
    elif kind == 1:
        field = np.sin(2 * np.pi * waves * along + cloud)
    elif kind == 2:
        field = np.sin(2 * np.pi * waves * along) * np.sin(2 * np.pi * waves * across) + 0.4 * cloud
    else:
        field = 2 * along + 0.7 * cloud
    field = (field - field.min()) / (np.ptp(field) + np.float32(1e-6))
    a, b, c = _color(rng), _color(rng), _color(rng)
    shade = np.clip(y + 0.3 * cloud, 0, 1)[..., None]
    low = a + (c - a) * shade * np.float32(0.6)
    out: Float32 = low + (b - low) * field[..., None] * np.float32(rng.uniform(0.35, 1))
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


class Pictures:
    """Batches of one split.

    Raises FetchError when the font or the photographs can't be had.
    """

    def __init__(self, split: Split) -> None:
        self._seed = SEEDS[split]
        self._glyphs = glyphs()
        self._photographs = _photographs(split)

    def _crop(self, rng: np.random.Generator) -> UInt8:
        whole = self._photographs[int(rng.integers(0, len(self._photographs)))]
        side = int(rng.integers(SIDE, 3 * SIDE + 1))
        top = int(rng.integers(0, whole.shape[0] - side + 1))
        left = int(rng.integers(0, whole.shape[1] - side + 1))
        cut = Image.fromarray(whole[top : top + side, left : left + side])
        out = np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
        out = out * rng.uniform(0.75, 1.2, 3).astype(np.float32) + np.float32(rng.uniform(-15, 15))
        if rng.integers(0, 2):
            out = out[:, ::-1]
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)

    def _laid(self, rng: np.random.Generator, label: int, ground: UInt8) -> UInt8:
        """The emoji on the background."""
        scale = SIDE / rng.uniform(42, 58)
        turn = rng.uniform(-0.14, 0.14)
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        to_x, to_y = SIDE / 2 + rng.uniform(-4, 4), SIDE / 2 + rng.uniform(-4, 4)
        matrix = (
            cos, sin, SIDE / 2 - cos * to_x - sin * to_y,
            -sin, cos, SIDE / 2 + sin * to_x - cos * to_y,
        )  # fmt: skip
        moved: Any = self._glyphs[label].transform(
            (SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        layer = np.asarray(moved, dtype=np.float32)
        alpha = layer[..., 3:] / 255
        tint = rng.uniform(0.88, 1.08) * rng.uniform(0.95, 1.05, 3)
        out: Float32 = layer[..., :3] * tint.astype(np.float32) + ground * (1 - alpha)
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)

    def batch(self, step: int, size: int, alone: float = ALONE) -> Batch:
        """The pictures of one step; alone: share of backgrounds without emoji."""
        rng = np.random.default_rng([self._seed, step])
        pictures, labels, captions = [], [], []
        for _ in range(size):
            is_photo = rng.random() < PHOTO_SHARE
            ground = self._crop(rng) if is_photo else texture(rng)
            if rng.random() < alone:
                pictures.append(ground)
                labels.append(-1)
                captions.append(PHOTO if is_photo else TEXTURE)
                continue
            label = int(rng.integers(0, len(NAMES)))
            pictures.append(self._laid(rng, label, ground))
            labels.append(label)
            captions.append(TEMPLATES[int(rng.integers(0, len(TEMPLATES)))].format(list(NAMES)[label]))
        return Batch(np.stack(pictures), np.array(labels, dtype=np.int64), captions)


class FolderPictures:
    """Batches of squares cut out of a folder's pictures; about a tenth of the pictures are of the split "check".

    A square of any size from `side` px to the picture's shorter side, scaled down to `side`, mirrored or not by draw.
    Which split a picture is of is told by its name alone, so it never changes. Raises FetchError where there is none.
    """

    def __init__(self, split: Split, folder: Path, side: int) -> None:
        self._seed, self._side = SEEDS[split], side
        found = [path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file()]
        names = sorted(path.relative_to(folder).as_posix() for path in found)
        self._paths = [folder / name for name in names if (_tenth(name) == 0) == (split == "check")]
        if not self._paths:
            raise FetchError(
                f"{folder} has {len(names)} pictures ({' '.join(sorted(PICTURES))}), none of them for {split}; give "
                "more"
            )

    def batch(self, step: int, size: int) -> Batch:
        """The pictures of one step. Raises FetchError on a picture that is malformed or smaller than a square."""
        rng = np.random.default_rng([self._seed, step])
        pictures = [self._square(self._paths[int(at)], rng) for at in rng.integers(0, len(self._paths), size)]
        return Batch(np.stack(pictures), np.full(size, -1, dtype=np.int64), [PHOTO] * size)

    def _square(self, path: Path, rng: np.random.Generator) -> UInt8:
        try:
            whole = open_picture(path, frame=0).rgb
        except WatermarkError as error:
            raise FetchError(
                f"{path} can't be read: {error}; take it away or put a whole one there"
            ) from error
        height, width = whole.shape[:2]
        if min(height, width) < self._side:
            raise FetchError(
                f"{path} has {width} x {height} px, squares of {self._side} are to be cut; take it away"
            )
        side = int(rng.integers(self._side, min(height, width) + 1))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        cut = Image.fromarray(whole[top : top + side, left : left + side])
        out = np.asarray(cut.resize((self._side, self._side), Image.Resampling.BOX))
        return out[:, ::-1].copy() if rng.integers(0, 2) else out.copy()


def _tenth(name: str) -> int:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[0] % 10
