"""TIFF files around JPEG data: decoded as that is, or refused as that is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from riformer_deploy.common.errors import ImageError
from riformer_deploy.data.decoding import decode_image
from riformer_deploy.data.jpeg import MAX_SCANS
from riformer_deploy.data.tiff import check_tiff
from tests.jpegs import tiff_of, with_scans

SIZE = (16, 32)


@pytest.fixture(scope="module")
def strips() -> list[bytes]:
    """Two progressive JPEG files, 16 px wide and high."""
    found = []
    for shift in (0, 100):
        file = io.BytesIO()
        pixels = (np.arange(256).reshape(16, 16) + shift).astype(np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", progressive=True, quality=100)
        found.append(file.getvalue())
    return found


def test_strips_of_few_scans_are_decoded(strips: list[bytes]) -> None:
    expected = np.concatenate([decode_image(strip) for strip in strips])
    np.testing.assert_array_equal(decode_image(tiff_of(strips, SIZE)), expected)


@pytest.mark.parametrize("compression", [7, 6])
def test_scans_within_a_strip_are_counted(
    strips: list[bytes], compression: int, capfd: pytest.CaptureFixture[str]
) -> None:
    many = [strips[0], with_scans(strips[1], MAX_SCANS)]
    with pytest.raises(ImageError, match=f"more than {MAX_SCANS} scans"):
        decode_image(tiff_of(many, SIZE, compression=compression))
    assert capfd.readouterr().err == ""  # libtiff has a limit, too, and tells the terminal of it


def test_parts_over_each_other_are_refused(strips: list[bytes]) -> None:
    file = tiff_of(strips, SIZE)
    first, second = (len(strip).to_bytes(4, "little") for strip in strips)
    assert file.count(first + second) == 1
    with pytest.raises(ImageError, match="together larger than the file"):
        decode_image(file.replace(first + second, second + (len(file) - 8).to_bytes(4, "little")))


def test_other_pictures_pass_and_the_position_is_kept(strips: list[bytes]) -> None:
    plain = io.BytesIO()
    Image.new("L", SIZE).save(plain, "TIFF")
    for content in (strips[0], plain.getvalue(), tiff_of(strips, SIZE)):
        file = io.BytesIO(content)
        with Image.open(file) as image:
            file.seek(5)
            check_tiff(image, file)
            assert file.tell() == 5
