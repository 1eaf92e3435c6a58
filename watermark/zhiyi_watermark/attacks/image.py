"""What is done to a marked picture, with the parameters of the papers that the tables are compared with.

Every attack takes and gives RGB, uint8 0 .. 255, (height, width, 3), leaves the caller's array alone, and draws
from a generator seeded by the caller alone. Parameters are those of Gaussian Shading (Yang et al., CVPR 2024),
Tree-Ring (Wen et al., NeurIPS 2023) and Stable Signature (Fernandez et al., ICCV 2023) unless said otherwise.
Attacks that need a generative model (VAE re-encoding, img2img, style transfer, imprinting) are in image_model.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from zhiyi_watermark.errors import SpecError

if TYPE_CHECKING:
    from PIL.Image import Image

Rgb = npt.NDArray[np.uint8]
Attack = Callable[[Rgb, int], Rgb]  # picture, seed

_LUMA: Final = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def _pil(picture: Rgb) -> Image:
    from PIL import Image

    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise SpecError(f"a picture is uint8 (height, width, 3), given {picture.dtype} {picture.shape}")
    return Image.fromarray(np.ascontiguousarray(picture))


def _array(image: Image) -> Rgb:
    return np.array(image, dtype=np.uint8)


def _bytes(values: npt.NDArray[np.float64]) -> Rgb:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SpecError(f"{name} = {value} is outside {low} .. {high}")


def jpeg(picture: Rgb, quality: int) -> Rgb:
    """Saved as JPEG of that quality (1 .. 95), chroma halved both ways, and read again."""
    from PIL import Image

    _within("quality", quality, 1, 95)
    stored = io.BytesIO()
    _pil(picture).save(stored, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(stored) as again:
        return _array(again)


def blur(picture: Rgb, sigma: float = 4.0, size: int | None = None) -> Rgb:
    """Gaussian blur of that deviation in px; size cuts the kernel (8 in some papers), None goes to 4 sigma.

    An even kernel is centred between pixels and shifts by half of one. Borders are mirrored.
    """
    _within("sigma", sigma, 0.1, 64)
    taps = 2 * int(4 * sigma + 0.5) + 1 if size is None else size
    _within("size", taps, 1, 1024)
    x = np.arange(taps) - (taps - 1) / 2
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    out = picture.astype(np.float64)
    for axis in (0, 1):
        before = taps // 2
        widths = [(before, taps - 1 - before) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(out, widths, mode="symmetric")
        n = out.shape[axis]
        out = sum(
            (w * np.take(padded, range(i, i + n), axis=axis) for i, w in enumerate(kernel.tolist())),
            np.zeros_like(out),
        )
    return _bytes(out)


def noise(picture: Rgb, deviation: float = 0.1, seed: int = 0) -> Rgb:
    """Gaussian noise on every value; deviation in parts of the full range."""
    _within("deviation", deviation, 0, 1)
    drawn = np.random.default_rng(seed).normal(0, 255 * deviation, picture.shape)
    return _bytes(picture + drawn)


def brightness(picture: Rgb, factor: float) -> Rgb:
    """All values times the factor, clipped."""
    _within("factor", factor, 0, 16)
    return _bytes(picture * float(factor))


def brightness_jitter(picture: Rgb, highest: float = 6.0, seed: int = 0) -> Rgb:
    """brightness with a factor drawn from U(0, highest)."""
    return brightness(picture, float(np.random.default_rng(seed).uniform(0, highest)))


def contrast(picture: Rgb, factor: float) -> Rgb:
    """Distance from the mean luma of the picture times the factor, clipped."""
    _within("factor", factor, 0, 16)
    middle = float((picture @ _LUMA).mean())
    return _bytes(middle + (picture - middle) * factor)


def saturation(picture: Rgb, factor: float) -> Rgb:
    """Distance from each pixel's luma times the factor, clipped; 0 makes it gray."""
    _within("factor", factor, 0, 16)
    gray = (picture @ _LUMA)[..., None]
    return _bytes(gray + (picture - gray) * factor)


def _resized(picture: Rgb, width: int, height: int) -> Rgb:
    from PIL import Image

    return _array(_pil(picture).resize((max(1, width), max(1, height)), Image.Resampling.BICUBIC))


def resize(picture: Rgb, factor: float) -> Rgb:
    """Resampled (bicubic) to a part of width and height, and left so."""
    _within("factor", factor, 0.01, 8)
    height, width = picture.shape[:2]
    return _resized(picture, round(width * factor), round(height * factor))


def resize_and_back(picture: Rgb, factor: float) -> Rgb:
    """Resampled to a part of width and height and back to the size before."""
    height, width = picture.shape[:2]
    return _resized(resize(picture, factor), width, height)


def crop(picture: Rgb, area: float, seed: int = 0) -> Rgb:
    """A rectangle of that part of the area, of the same proportions, at a drawn place; the rest is gone."""
    _within("area", area, 1e-4, 1)
    height, width = picture.shape[:2]
    rows, columns = max(1, round(height * area**0.5)), max(1, round(width * area**0.5))
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    return picture[top : top + rows, left : left + columns].copy()


def crop_and_resize(picture: Rgb, area: float, seed: int = 0) -> Rgb:
    """crop, then enlarged to the size before."""
    height, width = picture.shape[:2]
    return _resized(crop(picture, area, seed), width, height)


def drop(picture: Rgb, area: float = 0.4, seed: int = 0) -> Rgb:
    """A rectangle of that part of the area, at a drawn place, becomes black."""
    _within("area", area, 0, 1)
    height, width = picture.shape[:2]
    rows, columns = round(height * area**0.5), round(width * area**0.5)
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    out = picture.copy()
    out[top : top + rows, left : left + columns] = 0
    return out


def rotate(picture: Rgb, degrees: float, expand: bool = False) -> Rgb:
    """Turned counter-clockwise about the center (bilinear), black outside; expand enlarges the frame to fit."""
    from PIL import Image

    return _array(_pil(picture).rotate(degrees, Image.Resampling.BILINEAR, expand=expand))


def flip(picture: Rgb) -> Rgb:
    """Left and right exchanged."""
    return picture[:, ::-1].copy()


def median(picture: Rgb, size: int = 7) -> Rgb:
    """Median of a square of that odd size in px, each channel by itself."""
    from PIL import ImageFilter

    if size % 2 == 0 or not 1 <= size <= 31:
        raise SpecError(f"a median's size is odd, 1 .. 31, given {size}")
    return _array(_pil(picture).filter(ImageFilter.MedianFilter(size)))


def averaged_difference(marked: Iterable[Rgb], plain: Iterable[Rgb]) -> npt.NDArray[np.float64]:
    """Mean of (marked - plain) over pictures of one size: what averaging learns of a fixed pattern.

    plain: the same pictures unmarked (gray box) or any others of that size (black box; Yang et al. 2024,
    "Can simple averaging defeat modern watermarks?"). Streamed.  # (height, width, 3)
    Raises SpecError without pictures or on other sizes.
    """
    return _mean(marked) - _mean(plain)


def remove_average(picture: Rgb, difference: npt.NDArray[np.float64], strength: float = 1.0) -> Rgb:
    """The picture less what averaged_difference found."""
    if difference.shape != picture.shape:
        raise SpecError(f"the difference {difference.shape} is not of the picture's size {picture.shape}")
    return _bytes(picture - strength * difference)


def _mean(pictures: Iterable[Rgb]) -> npt.NDArray[np.float64]:
    total: npt.NDArray[np.float64] | None = None
    count = 0
    for picture in pictures:
        if total is None:
            total = np.zeros(picture.shape)
        if picture.shape != total.shape:
            raise SpecError(f"pictures of {picture.shape} and {total.shape} can't be averaged")
        total += picture
        count += 1
    if total is None:
        raise SpecError("no pictures to average")
    return total / count


SUITE: Final[dict[str, Attack]] = {
    "none": lambda p, s: p.copy(),
    "jpeg80": lambda p, s: jpeg(p, 80),
    "jpeg50": lambda p, s: jpeg(p, 50),
    "jpeg25": lambda p, s: jpeg(p, 25),
    "blur4": lambda p, s: blur(p, 4.0),
    "blur4_8x8": lambda p, s: blur(p, 4.0, 8),
    "noise05": lambda p, s: noise(p, 0.05, s),
    "noise10": lambda p, s: noise(p, 0.1, s),
    "bright15": lambda p, s: brightness(p, 1.5),
    "bright_u6": lambda p, s: brightness_jitter(p, 6.0, s),
    "saturation15": lambda p, s: saturation(p, 1.5),
    "contrast15": lambda p, s: contrast(p, 1.5),
    "resize50": lambda p, s: resize_and_back(p, 0.5),
    "resize30": lambda p, s: resize_and_back(p, 0.3),
    "crop_resize75": lambda p, s: crop_and_resize(p, 0.75, s),
    "crop50": lambda p, s: crop(p, 0.5, s),
    "crop10": lambda p, s: crop(p, 0.1, s),
    "drop40": lambda p, s: drop(p, 0.4, s),
    "rotate5": lambda p, s: rotate(p, 5),
    "rotate25": lambda p, s: rotate(p, 25),
    "rotate75": lambda p, s: rotate(p, 75),
    "flip": lambda p, s: flip(p),
    "median7": lambda p, s: median(p, 7),
}
"""Every attack of the tables that needs no model: name -> picture, seed -> picture."""
