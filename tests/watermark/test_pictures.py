"""Pictures from outside: limits before decoding, one canonical object, nothing lost on the way back."""

from __future__ import annotations

import io
import os
import resource
import signal
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zhiyi_watermark import pictures
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.pictures import Picture, encode_picture, open_picture, save_picture

PIXELS = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """A PNG by hand, RGB of that depth, with whatever rows."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_pixels_come_as_stored() -> None:
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("BMP", {})):
        found = open_picture(stored(IMAGE, kind, **options))
        assert np.array_equal(found.rgb, PIXELS)
        assert found.alpha is None
        assert not found.gray
        assert not found.lossy


def test_what_is_no_plain_file_is_refused_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path, Path("/dev/zero")):
        with pytest.raises(CarrierError, match=f"{path} is no plain file"):
            open_picture(path)
    with pytest.raises(CarrierError, match=r"can't read .*No such file"):
        open_picture(tmp_path / "none")
    (tmp_path / "p.png").write_bytes(stored(IMAGE))
    plain = os.stat(tmp_path / "p.png")
    monkeypatch.setattr(os, "stat", lambda path: plain)  # a pipe took its place just then
    with pytest.raises(CarrierError, match="is no plain file"):
        open_picture(tmp_path / "pipe")


def test_a_file_and_its_bytes_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(stored(IMAGE))
    assert open_picture(path).digest == open_picture(stored(IMAGE)).digest == Picture(PIXELS).digest
    with pytest.raises(CarrierError, match="can't read"):
        open_picture(tmp_path / "missing.png")


def test_the_canonical_object_is_pixels_and_size() -> None:
    plain = Picture(PIXELS)
    assert Picture(PIXELS, icc=b"profile", gray=False).digest == plain.digest
    assert Picture(PIXELS.reshape(60, 40, 3)).digest != plain.digest
    other = PIXELS.copy()
    other[0, 0, 0] ^= 1
    assert Picture(other).digest != plain.digest


@pytest.mark.parametrize("size", [(30_000, 30_000), (9_000, 9_000), (70_000, 2)])
def test_a_header_over_the_limits_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(CarrierError, match=r"decoded|too large"):
        open_picture(png(*size, 8, b""))


def test_a_file_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    with pytest.raises(CarrierError, match="more than 100 bytes"):
        open_picture(stored(IMAGE))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_a_file_cut_short_is_refused(kind: str) -> None:
    whole = stored(IMAGE, kind)
    for part in (0, 10, len(whole) // 2):
        with pytest.raises(CarrierError):
            open_picture(whole[:part])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(kind: str) -> None:
    whole = stored(IMAGE, kind)
    refused = 0
    for at in range(0, len(whole), max(1, len(whole) // 150)):
        body = bytearray(whole)
        body[at] ^= 0xFF
        try:
            assert open_picture(bytes(body)).rgb.size
        except (CarrierError, UnavailableError):
            refused += 1
    assert refused


def test_an_archive_under_the_name_of_a_picture_is_refused_and_one_behind_a_picture_is_left_out() -> None:
    archive = b"PK\x03\x04" + bytes(200)
    with pytest.raises(CarrierError, match="not a picture"):
        open_picture(archive)
    behind = open_picture(stored(IMAGE) + archive)
    assert np.array_equal(behind.rgb, PIXELS)
    assert b"PK\x03\x04" not in encode_picture(behind, "PNG")


def test_a_text_chunk_that_swells_is_refused() -> None:
    swelling = b"t\x00\x00" + zlib.compress(bytes(1 << 27))
    whole = stored(IMAGE)
    with pytest.raises(CarrierError):
        open_picture(whole[:33] + chunk(b"zTXt", swelling) + whole[33:])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, 16, 0), 16, 1)
    image = Image.fromarray(np.repeat(smooth[..., None], 3, axis=2))
    options = {"lossless": True} if kind == "WEBP" else {}
    turned = open_picture(stored(image, kind, exif=exif, **options))
    assert turned.rgb.shape == (48, 32, 3)
    assert np.abs(turned.rgb[..., 0].astype(int) - np.rot90(smooth, -1)).max() <= 4


def test_sixteen_bits_are_read_by_their_upper_half_and_said_so() -> None:
    deep = np.random.default_rng(2).integers(0, 1 << 16, (40, 60), dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        found = open_picture(stored(Image.fromarray(deep), kind))
        assert np.array_equal(found.rgb[..., 1], deep >> 8)
        assert "16 bits" in found.lossy
    rows = b"".join(b"\0" + bytes(range(180)) * 2 for _ in range(40))
    found = open_picture(png(60, 40, 16, rows))
    assert found.rgb.shape == (40, 60, 3)
    assert "16 bits" in found.lossy


def test_cmyk_is_read_and_said_so() -> None:
    found = open_picture(stored(IMAGE.convert("CMYK"), "JPEG", icc_profile=b"press"))
    assert "CMYK" in found.lossy
    assert found.icc is None
    assert found.rgb.shape == (40, 60, 3)


def test_modes_that_are_no_picture_are_refused() -> None:
    with pytest.raises(UnavailableError, match="mode is F"):
        open_picture(stored(IMAGE.convert("F"), "TIFF"))
    with pytest.raises(UnavailableError, match="mode is LAB"):
        open_picture(stored(IMAGE.convert("RGB").convert("LAB"), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_needs_a_frame(kind: str) -> None:
    second = IMAGE.rotate(180)
    options = {"lossless": True} if kind == "WEBP" else {}
    body = stored(IMAGE, kind, save_all=True, append_images=[second], **options)
    with pytest.raises(UnavailableError, match="it is an animation"):
        open_picture(body)
    assert not np.array_equal(open_picture(body, frame=0).rgb, open_picture(body, frame=1).rgb)
    with pytest.raises(SpecError, match="no frame 2"):
        open_picture(body, frame=2)
    for frame in (-1, 1000):
        with pytest.raises(SpecError, match="outside 0"):
            open_picture(body, frame=frame)


def directories(count: int) -> bytes:
    """A TIFF of 1 x 1 px with so many directories, each of one more picture."""
    about = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1))
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in about)
    size = 2 + len(fields) + 4
    out = b"II*\0" + struct.pack("<II", 12, 0)
    for at in range(count):
        follows = 12 + size * (at + 1) if at + 1 < count else 0
        out += struct.pack("<H", len(about)) + fields + struct.pack("<I", follows)
    return out


def test_nobody_counts_the_frames_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """To count them takes time with the square of the directories."""

    def counted(self: object) -> int:
        raise AssertionError("n_frames was asked for")

    for name in ("TiffImagePlugin.TiffImageFile", "GifImagePlugin.GifImageFile"):
        monkeypatch.setattr(f"PIL.{name}.n_frames", property(counted))
    many = directories(300)
    with pytest.raises(UnavailableError, match="it is an animation"):
        open_picture(many)
    assert open_picture(directories(1)).rgb.shape == open_picture(many, frame=2).rgb.shape == (1, 1, 3)
    with pytest.raises(SpecError, match="no frame 300"):
        open_picture(many, frame=300)
    assert open_picture(stored(IMAGE, "GIF")).rgb.shape == (40, 60, 3)


def test_of_a_telephones_photograph_the_first_picture_is_read() -> None:
    body = stored(IMAGE, "MPO", save_all=True, append_images=[IMAGE.resize((20, 10))])
    assert Image.open(io.BytesIO(body)).format == "MPO"
    assert np.array_equal(open_picture(body).rgb, open_picture(stored(IMAGE, "JPEG")).rgb)
    assert open_picture(body, frame=1).rgb.shape == (10, 20, 3)


def segments(*inner: bytes) -> bytes:
    """A progressive JPEG with these segments before its first scan."""
    whole = stored(IMAGE, "JPEG", progressive=True)
    return whole[:2] + b"".join(inner) + whole[2:]


def scanned(count: int, inner: bytes = b"") -> bytes:
    """A progressive JPEG with so many scans."""
    whole = segments(inner)
    first = whole.index(b"\xff\xda")
    own = whole.count(b"\xff\xda", first)
    last = whole[whole.rindex(b"\xff\xda") : -2]  # the last bits of one color, which may come again
    return whole[:-2] + last * (count - own) + whole[-2:]


def test_a_jpeg_of_many_scans_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes are a scan, and each scan goes over all pixels."""
    assert open_picture(scanned(100)).rgb.shape == (40, 60, 3)
    hidden = b"\xff\xe1\x00\x06\xff\xd9\xff\xd9"  # ends of a picture, inside a segment
    padded = b"\xff" * 9 + hidden[1:]
    monkeypatch.setattr(Image, "open", lambda *given, **more: pytest.fail("it was opened"))
    for inner in (b"", hidden, padded):
        with pytest.raises(CarrierError, match="more than 100 scans"):
            open_picture(scanned(101, inner))


def test_a_jpeg_of_many_segments_or_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    comment = b"\xff\xfe\x00\x03c"
    assert open_picture(segments(comment * 50, b"junk", comment)).rgb.shape == (40, 60, 3)
    monkeypatch.setattr(Image, "open", lambda *given, **more: pytest.fail("it was opened"))
    for inner, said in (
        (comment * (1 << 16), "65536 segments"),
        (bytes(1 << 16) + b"\0" + comment, "65536 bytes between"),
        (b"\xff\xfe\x00\x01", "malformed"),
        (b"\xff\xf0\x00\x02", "malformed"),
        (b"\xff\xd9", "no scan"),
    ):
        with pytest.raises(CarrierError, match=said):
            open_picture(segments(inner))


def tiled(side: int, size: int = 256) -> bytes:
    """A gray TIFF by hand, of one tile of that side, all zero."""
    packed = zlib.compress(bytes(side * side) if side < 1 << 12 else b"")
    values = {256: size, 257: size, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    values |= {324: 8 + 2 + 12 * 10 + 4, 325: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + packed


def test_tiles_of_a_tiff_over_the_limit_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte is 20,000 x 20,000 px of tile, decoded whole for a picture of 256 x 256."""
    assert open_picture(tiled(272)).rgb.shape == (256, 256, 3)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    for side in (8208, 20480):
        with pytest.raises(CarrierError, match=f"tiles of the TIFF make up {side} x {side} px"):
            open_picture(tiled(side))


def test_a_png_of_many_chunks_or_color_profiles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, empty = stored(IMAGE), chunk(b"tEXt", b"a\0")
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(1 << 20)))  # a kilobyte that swells to a megabyte
    found = open_picture(whole[:33] + empty * 50 + profile + whole[33:])
    assert len(found.icc or b"") == 1 << 20
    monkeypatch.setattr(Image, "open", lambda *given, **more: pytest.fail("it was opened"))
    for more in (empty * (1 << 16), profile * 2):
        with pytest.raises(CarrierError, match="more than 65536 chunks or one color profile"):
            open_picture(whole[:33] + more + whole[33:])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P"])
@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_writing_and_reading_again_keeps_everything(mode: str, ending: str, tmp_path: Path) -> None:
    image = IMAGE.convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(PIXELS[..., 0]))
    before = open_picture(stored(image, icc_profile=b"\0" * 128))
    save_picture(before, tmp_path / f"p.{ending}")
    after = open_picture(tmp_path / f"p.{ending}")
    assert after.digest == before.digest
    assert after.icc == before.icc
    assert (after.alpha is None) == (before.alpha is None) == ("A" not in mode)
    assert after.alpha is None or np.array_equal(after.alpha, PIXELS[..., 0])


def test_of_other_metadata_nothing_is_kept() -> None:
    whole, exif = stored(IMAGE), Image.Exif()
    exif[0x8298] = "copyright"
    for other in (chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"tEXt", b"Author\0A")):
        again = encode_picture(open_picture(whole[:33] + other + whole[33:]), "PNG")
        assert other[4:8] not in again
        assert again == encode_picture(Picture(PIXELS), "PNG")
    assert b"copyright" not in encode_picture(open_picture(stored(IMAGE, "JPEG", exif=exif)), "JPEG")


def test_what_can_not_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="ending"):
        save_picture(Picture(PIXELS), tmp_path / "p.gif")
    with pytest.raises(SpecError, match="no alpha"):
        encode_picture(Picture(PIXELS, PIXELS[..., 0].copy()), "JPEG")
    with pytest.raises(SpecError, match="at most 16383 px a side, not 16384 x 8; write PNG or TIFF"):
        encode_picture(Picture(np.zeros((8, 16384, 3), dtype=np.uint8)), "WEBP")
    for kind, quality in (("GIF", 90), ("JPEG", 0), ("JPEG", 96)):
        with pytest.raises(SpecError, match="quality"):
            encode_picture(Picture(PIXELS), kind, quality=quality)


def test_a_file_that_cannot_be_written_whole_leaves_the_former(tmp_path: Path) -> None:
    """As on a full disk: the system takes no file of over 64 bytes."""
    path = tmp_path / "p.png"
    path.write_bytes(b"former")
    former, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, former[1]))
        with pytest.raises(OSError, match="too large"):
            save_picture(Picture(PIXELS), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_other_pixels_are_refused() -> None:
    with pytest.raises(SpecError, match="uint8"):
        Picture(PIXELS.astype(np.float32))  # type: ignore[arg-type]  # what callers may pass
    with pytest.raises(SpecError, match="alpha"):
        Picture(PIXELS, PIXELS[:5, :5, 0])
    with pytest.raises(SpecError, match="size"):
        Picture(PIXELS).with_pixels(PIXELS[:5])
