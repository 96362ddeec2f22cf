"""PNGs whose ancillary chunks are odd, against the pixels that OpenCV reads."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from riformer_deploy.common.errors import ImageError
from riformer_deploy.data.decoding import decode_image

SIGNATURE = 8


def _chunk(kind: bytes, body: bytes, *, wrong: bool = False) -> bytes:
    checksum = zlib.crc32(kind + body) ^ int(wrong)
    return len(body).to_bytes(4, "big") + kind + body + checksum.to_bytes(4, "big")


@pytest.fixture
def png(tmp_path: Path) -> tuple[np.ndarray, bytes]:
    """A picture, and the PNG file of it."""
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    return pixels, (tmp_path / "plain.png").read_bytes()


def _behind_header(data: bytes, chunk: bytes) -> bytes:
    end = SIGNATURE + 25  # IHDR is 13 bytes between length, name and checksum
    return data[:end] + chunk + data[end:]


def test_three_megabytes_of_text_beside_whole_pixels_are_read_past(repository: Path) -> None:
    path = repository / "tests" / "data" / "png-large-text.png"
    with pytest.raises(ValueError, match="too large"), Image.open(path) as refused:
        refused.load()  # the control: what Pillow says of it
    assert decode_image(path).shape == (64, 64, 3)


@pytest.mark.parametrize(
    "chunk",
    [
        _chunk(b"tEXt", b"Comment\0hello", wrong=True),
        _chunk(b"iCCP", b"bad\0\0not compressed"),
        _chunk(b"eXIf", b"MM\0*", wrong=True),
        _chunk(b"tIME", b"\xff" * 7, wrong=True),
        _chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**21))),
        _chunk(b"gAMA", b"\0\0\0\0"),
    ],
    ids=["text checksum", "profile", "exif checksum", "time", "inflating text", "gamma"],
)
def test_odd_ancillary_chunks_decide_nothing(png: tuple[np.ndarray, bytes], chunk: bytes) -> None:
    pixels, data = png
    np.testing.assert_array_equal(decode_image(_behind_header(data, chunk)), pixels)


def test_the_orientation_that_a_png_stores_is_still_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (7, 9)).save(tmp_path / "turned.png", exif=exif)
    assert decode_image(tmp_path / "turned.png").shape == (7, 9, 3)


@pytest.mark.parametrize(("kind", "said"), [(b"IDAT", "pixels"), (b"IHDR", "IHDR")])
def test_a_wrong_checksum_of_pixels_or_header_is_refused(
    png: tuple[np.ndarray, bytes], kind: bytes, said: str
) -> None:
    data = bytearray(png[1])
    place = data.index(kind)
    length = int.from_bytes(data[place - 4 : place], "big")
    data[place + 4 + length] ^= 1
    with pytest.raises(ImageError, match=f"checksum of its {said} is wrong"):
        decode_image(bytes(data))


def test_a_png_cut_anywhere_is_refused(png: tuple[np.ndarray, bytes]) -> None:
    _, data = png
    for length in range(SIGNATURE, len(data), 7):
        with pytest.raises(ImageError, match="truncated"):
            decode_image(data[:length])


def test_a_chunk_of_impossible_length_is_refused(png: tuple[np.ndarray, bytes]) -> None:
    with pytest.raises(ImageError, match="longer than"):
        decode_image(_behind_header(png[1], b"\xff\xff\xff\xfftEXt"))
