"""Picture files as RGB arrays, as OpenCV (which mmpretrain decodes with) gives them.

Decoding equals OpenCV 5's ``IMREAD_COLOR`` to the last bit for every kind of file that the tests name:
EXIF orientation is applied, 16 bits are cut to the upper 8, grey is repeated, a palette is looked up,
alpha is dropped (not blended), CMYK is converted with OpenCV's own rounding. Where it differs, on purpose:

- a truncated or damaged file is refused; OpenCV fills what is missing with grey and says nothing;
- a PNG is refused where the checksum of its pixels is wrong; a wrong one elsewhere is read past, as there;
- CMYK that Adobe did not invert is read as CMYK; OpenCV takes it for inverted and gives a negative;
- a file is refused by the size in its header before anything is decoded (:data:`MAX_PIXELS`), by its own size
  (:data:`MAX_FILE_BYTES`), and JPEG data, in a TIFF file too, by the number of its scans
  (:data:`~riformer_deploy.data.jpeg.MAX_SCANS`).
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from riformer_deploy.common.errors import ImageError
from riformer_deploy.common.files import open_regular
from riformer_deploy.common.foreign_data import reason_of
from riformer_deploy.data.jpeg import JPEG_SIGNATURE, check_scans
from riformer_deploy.data.png import PNG_SIGNATURE, plain_png
from riformer_deploy.data.tiff import check_tiff

Rgb = NDArray[np.uint8]
"""A picture, (H, W, 3) uint8, RGB, C-contiguous."""
Picture = Rgb | Image.Image
"""A picture as an array or as Pillow holds it, decoded, in mode RGB."""

MAX_PIXELS = 89_478_485
"""Largest picture that is decoded, 256 MiB as RGB: the size from which Pillow suspects a bomb."""

MAX_FILE_BYTES = 1 << 30
"""Largest file that is read: four times the largest picture without compression."""

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif",
)  # fmt: skip
"""File names that are pictures, in any case: mmpretrain's list, and the other names of what is decoded."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")  # none of these runs a program
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(source: Path | bytes, *, name: str | None = None) -> Rgb:
    """Decode one picture; of an animation, its first frame.

    Args:
        source: A file, or its content.
        name: What errors call it; the path, or "the picture" for bytes.

    Raises:
        ImageError: As :func:`decode_picture`.
    """
    return np.ascontiguousarray(np.asarray(decode_picture(source, name=name)))


def decode_picture(source: Path | bytes, *, name: str | None = None) -> Image.Image:
    """As :func:`decode_image`, without the copy into an array.

    Args:
        source: A file, or its content.
        name: What errors call it; the path, or "the picture" for bytes.

    Raises:
        ImageError: The file is no regular file, cannot be read, is no picture of a known format, is damaged,
            truncated, or larger than this module's limits.
    """
    called = name or (str(source) if isinstance(source, Path) else "the picture")
    try:
        with _opened(source) as file, Image.open(file, formats=_FORMATS) as image:
            check_size(image.size, called)
            check_tiff(image, file)
            image.load()
            return _to_rgb(image, called)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise _too_large(called, str(err)) from err
    except Exception as err:  # decoders raise OSError, SyntaxError, struct.error and more for damage
        raise _undecodable(called, err) from err


def rgb_of(image: Image.Image, *, name: str = "the picture") -> Rgb:
    """A picture that Pillow holds, opened or made, as :func:`decode_image` gives its file.

    Args:
        image: Of any mode; an EXIF orientation that it still has is applied.
        name: What errors call it.

    Raises:
        ImageError: As :func:`decode_picture`.
    """
    check_size(image.size, name)
    try:
        image.load()
        return np.ascontiguousarray(np.asarray(_to_rgb(image, name)))
    except ImageError:
        raise
    except Exception as err:  # as above: Pillow decodes an opened file only now
        raise _undecodable(name, err) from err


def _undecodable(called: str, err: Exception) -> ImageError:
    return ImageError(
        f"{called} cannot be decoded: {_reason(err)}",
        remedy="Replace or remove the file; JPEG, PNG, WebP, BMP, TIFF, PPM and GIF are read.",
    )


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[IO[bytes]]:
    """A file to read from; a PNG's without what OpenCV does not look at either."""
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file:
        if (size_bytes := file.seek(0, os.SEEK_END)) > MAX_FILE_BYTES:
            raise ValueError(f"the file has {size_bytes:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        file.seek(0)
        head = file.read(len(PNG_SIGNATURE))
        file.seek(0)
        if head == PNG_SIGNATURE:
            yield io.BytesIO(plain_png(file))
        elif head.startswith(JPEG_SIGNATURE):
            check_scans(content := file.read())
            yield io.BytesIO(content)
        else:
            yield file


def check_size(size: tuple[int, int], called: str) -> None:
    """Refuse a picture of too many pixels.

    Args:
        size: Width and height in pixels.
        called: What the error calls it.

    Raises:
        ImageError: It has more than :data:`MAX_PIXELS`.
    """
    width, height = size
    if width * height > MAX_PIXELS:
        raise _too_large(called, f"{width}x{height} px are {width * height:,} pixels")


def _too_large(called: str, what: str) -> ImageError:
    return ImageError(
        f"{called} is too large: {what}; at most {MAX_PIXELS:,} are decoded.",
        remedy="Scale it down first; a file this large may be made to exhaust memory.",
    )


def _reason(err: Exception) -> str:
    if isinstance(err, FileNotFoundError):
        return "there is no such file"
    return reason_of(err).partition(" <_io")[0]


def _to_rgb(image: Image.Image, called: str) -> Image.Image:
    match image.mode:
        case "RGB":
            flat = image
        case "I;16" | "I;16L" | "I;16B":
            upper = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            flat = Image.fromarray(upper).convert("RGB")
        case "CMYK":
            flat = Image.fromarray(_from_cmyk(np.asarray(image)))
        case "I" | "F":
            raise ImageError(
                f"{called} holds numbers of 32 bits; their range is not known, so no 8 bits are made of it.",
                remedy="Convert it to 8 or 16 bits per channel.",
            )
        case _:
            bare = image.copy() if "transparency" in image.info else image
            bare.info.pop("transparency", None)  # alpha is dropped, whatever it is
            flat = bare.convert("RGB")
    turn = _TURNS.get(_orientation(image))
    return flat.transpose(turn) if turn is not None else flat


def _from_cmyk(inks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of (H, W, 4) inks with OpenCV's rounding: ``k - (c * k >> 8)``, ``k`` being 255 less the black."""
    light = 255 - inks[..., 3:].astype(np.int32)
    return (light - (inks[..., :3] * light >> 8)).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; damaged EXIF data counts as none, as in OpenCV."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  # whatever a parser meets in damaged data
        return 1
