"""Pictures from outside: opened within limits, as the canonical object RGB8, and written back.

The canonical object of a picture is its decoded pixels, 8 bits a channel, turned as its EXIF orientation says, and
its size; nothing else of the file counts. Colors stay as they are stored: the ICC profile is kept beside the pixels
and written back, never applied.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import struct
import tempfile
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError

MAX_BYTES: Final = 256 << 20  # of a file
MAX_PIXELS: Final = 1 << 26
MAX_SIDE: Final = 1 << 16
MAX_FRAMES: Final = 1000  # of an animation, as far as `frame` reaches
MAX_SCANS: Final = (
    100  # of a JPEG; each goes over all pixels, and a few bytes are one. libtiff has the same limit
)
MAX_SEGMENTS: Final = 1 << 16  # of a JPEG
MAX_CHUNKS: Final = 1 << 16  # of a PNG
WEBP_SIDE: Final = (1 << 14) - 1  # px, all that the format holds
MAX_JUNK: Final = 1 << 16  # bytes between the segments before its first scan
FORMATS: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
WRITTEN: Final = {  # by endings
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_READ: Final = ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "RGBX", "La", "RGBa", "CMYK", "YCbCr")

# Of JPEG (ITU-T T.81, table B.1): the next marker that is no restart; those that a length follows
_SEGMENT: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SEGMENTS: Final = frozenset({*range(0xC0, 0xC8), *range(0xC9, 0xD0), *range(0xDA, 0xF0), 0xFE})
_SCAN: Final = 0xDA
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_END: Final = 0xD9

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Rgb = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """Decoded pixels and what has to be kept beside them."""

    rgb: Rgb  # 0 .. 255  # (height, width, 3)
    alpha: Rgb | None = None  # (height, width)
    icc: bytes | None = None  # profile of the stored colors
    gray: bool = False  # stored with one channel: the three are equal
    lossy: str = ""  # what decoding to RGB8 has lost, in words; such a picture is read but not marked

    def __post_init__(self) -> None:
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise SpecError(f"pixels are uint8 (height, width, 3), given {self.rgb.dtype} {self.rgb.shape}")
        if self.alpha is not None and (
            self.alpha.dtype != np.uint8 or self.alpha.shape != self.rgb.shape[:2]
        ):
            raise SpecError(
                f"alpha {self.alpha.dtype} {self.alpha.shape} does not fit pixels {self.rgb.shape}"
            )

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical object: width, height, RGB8."""
        height, width = self.rgb.shape[:2]
        state = hashlib.sha256(width.to_bytes(4, "big") + height.to_bytes(4, "big"))
        state.update(np.ascontiguousarray(self.rgb).data)
        return state.digest()

    def with_pixels(self, rgb: Rgb) -> Picture:
        """Other pixels of the same size, everything else kept."""
        if rgb.shape != self.rgb.shape:
            raise SpecError(f"pixels {rgb.shape} are not of the picture's size {self.rgb.shape}")
        return replace(self, rgb=rgb)


def open_picture(source: str | Path | bytes, *, frame: int | None = None) -> Picture:
    """A picture file (PNG, JPEG, WebP, TIFF, BMP, GIF), turned as its EXIF orientation says.

    source: a path or the file's bytes. frame: which one of an animation, 0 .. 999.
    Sizes are checked before pixels are decoded. 16-bit and CMYK pictures are read as RGB8, and `lossy` says so. Of a
    JPEG with further pictures behind it (MPO, as telephones write) the first is read.
    Raises CarrierError on what is no plain file (a pipe is not waited for) or no such picture, is cut short or is over
    a limit (256 MiB, 2^26 px, tiles included, 2^16 px a side; of a JPEG 100 scans, of a PNG 2^16 chunks and one color
    profile), UnavailableError on an animation without `frame`
    and on modes that are no RGB picture (floats, Lab), SpecError on a frame that is not there.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    body = _bytes_of(source)
    if body.startswith(b"\xff\xd8"):
        _check_scans(body)
    if body.startswith(_PNG):
        _check_chunks(body)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # from 89 Mpx; ours are fewer
            image: PilImage = Image.open(io.BytesIO(body), formats=FORMATS)
            _check_size(*image.size)
            _seek(image, frame)
            _check_tiles(image)
            lossy = _lossy(image, body)
            image.load()
            icc = image.info.get("icc_profile")
            image = ImageOps.exif_transpose(image)
            return _decoded(image, icc, lossy)
    except UnidentifiedImageError as error:
        raise CarrierError(f"not a picture in one of the formats {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise CarrierError(f"the picture is too large to be decoded: {error}") from error
    except _MALFORMED as error:
        raise CarrierError(f"the picture is malformed or cut short: {error}") from error


def save_picture(picture: Picture, path: str | Path, *, quality: int = 95) -> None:
    """Writes a picture in the format of the path's ending (.png, .jpg, .webp, .tif); what was there is replaced when
    all of it is written.

    PNG, TIFF and WebP are lossless; JPEG has that quality (1 .. 95) and full chroma, and holds no alpha.
    Raises SpecError on another ending or quality, alpha in a JPEG, or a WebP of over 16,383 px a side.
    """
    ending = Path(path).suffix.lower()
    if ending not in WRITTEN:
        raise SpecError(f"can't write {Path(path).name}: its ending must be one of {', '.join(WRITTEN)}")
    made = encode_picture(picture, WRITTEN[ending], quality=quality)
    with tempfile.TemporaryDirectory(prefix=".zhiyi-picture-", dir=Path(path).parent) as scratch:
        (Path(scratch) / "made").write_bytes(made)
        os.replace(Path(scratch) / "made", path)


def encode_picture(picture: Picture, kind: str, *, quality: int = 95) -> bytes:
    """The bytes of a picture file; kind: PNG, JPEG, WEBP or TIFF. See save_picture."""
    from PIL import Image

    if kind not in WRITTEN.values() or not 1 <= quality <= 95:
        raise SpecError(f"kind {kind} must be PNG, JPEG, WEBP or TIFF, and quality {quality} lie in 1 .. 95")
    if kind == "JPEG" and picture.alpha is not None:
        raise SpecError("JPEG holds no alpha; write PNG or WebP, or drop the alpha first")
    if kind == "WEBP" and max(picture.rgb.shape[:2]) > WEBP_SIDE:
        height, width = picture.rgb.shape[:2]
        raise SpecError(
            f"WebP holds at most {WEBP_SIDE} px a side, not {width} x {height}; write PNG or TIFF"
        )
    bands = picture.rgb[..., :1] if picture.gray and kind != "WEBP" else picture.rgb
    if picture.alpha is not None:
        bands = np.concatenate([bands, picture.alpha[..., None]], axis=2)
    image = Image.fromarray(np.ascontiguousarray(bands[..., 0] if bands.shape[2] == 1 else bands))
    options: dict[str, object] = {"icc_profile": picture.icc} if picture.icc else {}
    if kind == "JPEG":
        options |= {"quality": quality, "subsampling": "4:4:4"}
    elif kind == "WEBP":
        options |= {"lossless": True, "exact": True}
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _bytes_of(source: str | Path | bytes) -> bytes:
    if isinstance(source, bytes):
        body, name = source, "the picture"
    else:
        name = str(source)
        try:
            if not stat.S_ISREG(os.stat(source).st_mode):  # before it is opened: that alone may wind a tape
                raise CarrierError(f"{name} is no plain file; give a picture file")
            # Nor is a pipe waited for that took its place meanwhile
            with open(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise CarrierError(f"{name} is no plain file; give a picture file")
                body = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise CarrierError(f"can't read {name}: {error.strerror}") from error
    if len(body) > MAX_BYTES:
        raise CarrierError(f"{name} has more than {MAX_BYTES} bytes")
    return body


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise CarrierError(
            f"the header says {width} x {height} px; at most {MAX_PIXELS} px and {MAX_SIDE} a side are decoded"
        )


def _check_scans(body: bytes) -> None:
    """Walks the segments of a JPEG up to the end of its first picture, before anything is decoded.

    Raises CarrierError on more scans, segments or bytes between them than a picture has.
    """
    at = scans = segments = junk = 0
    while found := _SEGMENT.search(body, at):
        marker, start = body[found.end() - 1], found.end()
        junk += found.start() - at
        if marker == _END:
            break
        length = int.from_bytes(body[start : start + 2], "big")
        if marker not in _SEGMENTS or length < 2:
            raise CarrierError(
                f"the JPEG is malformed: byte {start - 1} begins segment {marker:#x}, {length} bytes"
            )
        segments += 1
        if not scans and junk > MAX_JUNK:
            raise CarrierError(f"the JPEG has more than {MAX_JUNK} bytes between its segments")
        scans += marker == _SCAN
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            raise CarrierError(
                f"the JPEG has more than {MAX_SCANS} scans or {MAX_SEGMENTS} segments; save it again to examine it"
            )
        at = start + length
    if not scans:
        raise CarrierError("the JPEG is malformed or cut short: it has no scan")


def _check_chunks(body: bytes) -> None:
    """Walks the chunks of a PNG before anything is decoded. Of each color profile up to a megabyte is unpacked.

    Raises CarrierError on more chunks than a picture has, or a second profile.
    """
    at, chunks, profiles = len(_PNG), 0, 0
    while at < len(body):
        chunks += 1
        profiles += body[at + 4 : at + 8] == b"iCCP"
        if chunks > MAX_CHUNKS or profiles > 1:
            raise CarrierError(
                f"the PNG has more than {MAX_CHUNKS} chunks or one color profile; save it again to examine it"
            )
        at += 12 + int.from_bytes(body[at : at + 4], "big")


def _check_tiles(image: PilImage) -> None:
    """Tiles of a TIFF are decoded whole, however little of them lies in the picture."""
    if image.format != "TIFF":
        return
    tags = getattr(image, "tag_v2", {})
    sides = [
        -(-side // tile) * tile
        for side, tile in zip(image.size, (int(tags.get(tag, 1)) for tag in (322, 323)), strict=True)
    ]
    if sides[0] * sides[1] > MAX_PIXELS:
        raise CarrierError(
            f"the tiles of the TIFF make up {sides[0]} x {sides[1]} px; at most {MAX_PIXELS} px are decoded"
        )


def _seek(image: PilImage, frame: int | None) -> None:
    if frame is None:
        # Not n_frames: it walks the file, in TIFF with the square of the directories
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise UnavailableError(
                "it is an animation; save the picture that is meant by itself (in Python: frame=0 for the first)"
            )
        return
    if not 0 <= frame < MAX_FRAMES:
        raise SpecError(f"frame {frame} is outside 0 .. {MAX_FRAMES - 1}")
    try:
        image.seek(frame)
    except EOFError as error:
        raise SpecError(f"the file has no frame {frame}; the first is 0") from error
    _check_size(*image.size)


def _lossy(image: PilImage, body: bytes) -> str:
    """What RGB8 does not hold of the file. Pillow reads 16-bit color as 8 bits without a word: the headers tell."""
    if image.mode == "CMYK":
        return "it is CMYK, read as RGB without its profile"
    deep = image.mode.startswith("I")
    if image.format == "PNG":
        deep = body[24:25] == b"\x10"
    elif image.format == "TIFF":
        depths = getattr(image, "tag_v2", {}).get(258, (8,))  # BitsPerSample
        deep = deep or max(depths if isinstance(depths, tuple) else (depths,)) > 8
    return "it has 16 bits a channel, of which the upper eight were read" if deep else ""


def _decoded(image: PilImage, icc: object, lossy: str) -> Picture:
    mode = image.mode
    if mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if int(values.min(initial=0)) < 0 or int(values.max(initial=0)) >= 1 << 16:
            raise UnavailableError("the picture's values are outside 0 .. 65535; give it as 8-bit RGB")
        level = (values >> 8).astype(np.uint8)
        return Picture(np.repeat(level[..., None], 3, axis=2), None, None, True, lossy)
    if mode not in _READ:
        raise UnavailableError(f"the picture's mode is {mode}; give it as 8-bit RGB, with or without alpha")
    alpha = None
    if mode in ("LA", "PA", "RGBA", "La", "RGBa") or (mode == "P" and "transparency" in image.info):
        straight = np.asarray(image.convert("RGBA"))
        rgb, alpha = straight[..., :3].copy(), straight[..., 3].copy()
    else:
        rgb = np.array(image.convert("RGB"))
    profile = icc if isinstance(icc, bytes) and mode != "CMYK" else None
    return Picture(rgb, alpha, profile, mode in ("1", "L", "LA", "La"), lossy)


# What Pillow's readers raise on hostile files
_MALFORMED: Final = (
    OSError, EOFError, SyntaxError, ValueError, IndexError, TypeError, KeyError, OverflowError, AttributeError,
    ZeroDivisionError, struct.error, zlib.error,
)  # fmt: skip
