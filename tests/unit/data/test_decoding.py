"""Every kind of file; the pixels expected follow from how it was made, and are what OpenCV 5 gives."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from riformer_deploy.common.errors import ImageError
from riformer_deploy.data import decoding
from riformer_deploy.data.decoding import decode_image, rgb_of

Pixels = NDArray[np.uint8]


@pytest.fixture
def pixels() -> Pixels:
    """Noise, odd in both directions, (37, 53, 3)."""
    return np.random.Generator(np.random.PCG64(5)).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand: what Pillow cannot write, and headers that lie."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = _chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + body + _chunk(b"IEND", b"")


def deep_png(values: NDArray[np.uint16], colour: int) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, colour, rows)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("PPM", {}), ("TIFF", {})],
)
def test_lossless_files_give_their_pixels_back(kind: str, options: dict[str, Any], pixels: Pixels) -> None:
    found = decode_image(encoded(Image.fromarray(pixels), kind, **options))
    np.testing.assert_array_equal(found, pixels)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_files_are_near_a_smooth_picture(kind: str) -> None:
    ramp = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    smooth = np.dstack([ramp, 255 - ramp, ramp // 2])
    found = decode_image(encoded(Image.fromarray(smooth), kind, quality=95))
    assert np.abs(found.astype(int) - smooth).max() < 12


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("L", "BMP"), ("1", "PNG"), ("L", "WEBP")])
def test_grey_is_repeated_in_three_channels(mode: str, kind: str, pixels: Pixels) -> None:
    image = Image.fromarray(pixels).convert(mode)
    grey = np.asarray(image.convert("L"))
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode_image(encoded(image, kind, **options))
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(200))], ids=["opaque", "one", "each"])
def test_a_palette_is_looked_up_and_its_transparency_ignored(
    transparency: int | bytes | None, pixels: Pixels
) -> None:
    image = Image.fromarray(pixels).quantize(200)
    expected = np.asarray(image.convert("RGB"))
    options = {} if transparency is None else {"transparency": transparency}
    np.testing.assert_array_equal(decode_image(encoded(image, "PNG", **options)), expected)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_alpha_is_dropped_not_blended(kind: str, options: dict[str, Any], pixels: Pixels) -> None:
    alpha = np.arange(pixels.shape[0] * pixels.shape[1]).reshape(pixels.shape[:2]).astype(np.uint8)
    content = encoded(Image.fromarray(np.dstack([pixels, alpha])), kind, **options)
    np.testing.assert_array_equal(decode_image(content), pixels)


def test_grey_with_alpha_is_grey(pixels: Pixels) -> None:
    content = encoded(Image.fromarray(np.ascontiguousarray(pixels[..., :2]), "LA"), "PNG")
    np.testing.assert_array_equal(decode_image(content), np.repeat(pixels[..., :1], 3, axis=2))


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_cut_to_the_upper_eight(colour: int, channels: int) -> None:
    values = np.random.Generator(np.random.PCG64(1)).integers(0, 65536, (9, 7, channels)).astype(np.uint16)
    upper = (values >> 8).astype(np.uint8)
    expected = upper[..., :3] if channels >= 3 else np.repeat(upper[..., :1], 3, axis=2)
    np.testing.assert_array_equal(decode_image(deep_png(values, colour)), expected)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bit_tiff_of_either_byte_order_is_cut_too(order: str) -> None:
    values = np.random.Generator(np.random.PCG64(2)).integers(0, 65536, (5, 6)).astype(order)
    content = encoded(Image.fromarray(values), "TIFF")
    expected = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(content), expected)


def test_cmyk_is_converted_with_opencvs_rounding() -> None:
    inks = np.full((16, 16, 4), (255, 0, 128, 40), dtype=np.uint8)
    found = decode_image(encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100))
    # OpenCV 5 on light = 215: 215 - (255 * 215 >> 8) = 1, 215 - 0 = 215, 215 - (128 * 215 >> 8) = 108
    assert np.abs(found.reshape(-1, 3).astype(int) - (1, 215, 108)).max() <= 1
    assert found.reshape(-1, 3).min(axis=0)[0] == 1


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: a.transpose(1, 0, 2)[:, ::-1]),
        (7, lambda a: a.transpose(1, 0, 2)[::-1, ::-1]),
        (8, lambda a: a.transpose(1, 0, 2)[::-1]),
        (9, lambda a: a),  # no such orientation
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_orientation_is_applied(
    orientation: int, turned: Callable[[Pixels], Pixels], kind: str, pixels: Pixels
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(Image.fromarray(pixels), kind, exif=exif, **options)
    np.testing.assert_array_equal(decode_image(content), turned(pixels))


def test_a_jpeg_is_turned_as_its_exif_says(pixels: Pixels) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = decode_image(encoded(Image.fromarray(pixels), "JPEG"))
    turned = decode_image(encoded(Image.fromarray(pixels), "JPEG", exif=exif))
    np.testing.assert_array_equal(turned, plain.transpose(1, 0, 2)[:, ::-1])


def test_damaged_exif_counts_as_none(pixels: Pixels) -> None:
    content = encoded(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    np.testing.assert_array_equal(decode_image(content), pixels)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 1), (20_000, 11)])
def test_odd_shapes_are_decoded(width: int, height: int) -> None:
    expected = np.random.Generator(np.random.PCG64(3)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(expected), "PNG")), expected)


@pytest.mark.parametrize("side", [9_460, 30_000, 65_000])  # above our limit, Pillow's, and any memory
def test_a_bomb_is_refused_by_its_header_before_decoding(side: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 8, 2, b"\0" * 1000))  # decoding it would say that data is missing
    with pytest.raises(ImageError, match="too large") as caught:
        decode_image(path)
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 60


def test_the_limit_itself_is_decoded(monkeypatch: pytest.MonkeyPatch, pixels: Pixels) -> None:
    content = encoded(Image.fromarray(pixels), "PNG")
    monkeypatch.setattr(decoding, "MAX_PIXELS", pixels.shape[0] * pixels.shape[1])
    assert decode_image(content).shape == pixels.shape
    monkeypatch.setattr(decoding, "MAX_PIXELS", pixels.shape[0] * pixels.shape[1] - 1)
    with pytest.raises(ImageError, match="53x37 px are 1,961 pixels"):
        decode_image(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be decoded"),
        (b"not a picture at all", "cannot identify"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),
    ],
    ids=["empty", "text", "postscript"],
)
def test_what_is_no_picture_is_refused_by_name(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_file_is_refused(kind: str, part: float, pixels: Pixels) -> None:
    content = encoded(Image.fromarray(pixels), kind)
    with pytest.raises(ImageError, match=r"cannot be decoded|cannot identify"):
        decode_image(content[: int(part * len(content))])


def test_a_flipped_bit_in_png_data_is_refused(pixels: Pixels) -> None:
    content = bytearray(encoded(Image.fromarray(pixels), "PNG"))
    content[len(content) // 2] ^= 0x10
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(bytes(content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png cannot be decoded: there is no such file"):
        decode_image(tmp_path / "gone.png")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_without_a_known_range_are_refused(dtype: type, tmp_path: Path) -> None:
    path = tmp_path / "heights.tif"
    Image.fromarray(np.ones((4, 4), dtype)).save(path)
    with pytest.raises(ImageError, match="32 bits"):
        decode_image(path)


def test_an_animation_gives_its_first_frame(pixels: Pixels) -> None:
    first, second = Image.fromarray(pixels), Image.fromarray(255 - pixels)
    content = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    np.testing.assert_array_equal(decode_image(content), pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_an_opened_picture_is_the_same_as_its_file_and_stays_as_it_was(pixels: Pixels, mode: str) -> None:
    image = Image.fromarray(pixels)
    image = image.quantize(100) if mode == "P" else image.convert(mode)
    options = {"transparency": 3} if mode == "P" else {}
    content = encoded(image, "TIFF" if mode == "CMYK" else "PNG", **options)
    opened = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(rgb_of(opened), decode_image(content))
    assert opened.mode == mode
    assert ("transparency" in opened.info) == (mode == "P")


def test_an_opened_picture_that_is_cut_short_is_refused(pixels: Pixels) -> None:
    content = encoded(Image.fromarray(pixels), "PNG")
    with pytest.raises(ImageError, match="it cannot be decoded"):
        rgb_of(Image.open(io.BytesIO(content[: len(content) // 2])), name="it")
