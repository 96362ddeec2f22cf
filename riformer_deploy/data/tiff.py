"""JPEG within TIFF files, whose scans are counted as those of JPEG files are."""

from __future__ import annotations

import os
from typing import IO

from PIL import Image, TiffImagePlugin

from riformer_deploy.data.jpeg import check_scans

_JPEG, _OLD_JPEG = 7, 6
_PARTS = (
    (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS),
    (TiffImagePlugin.TILEOFFSETS, TiffImagePlugin.TILEBYTECOUNTS),
)


def check_tiff(image: Image.Image, file: IO[bytes]) -> None:
    """Refuse a TIFF file whose JPEG data makes a decoder pass over the picture again and again.

    Args:
        image: Opened, not decoded yet; what is no TIFF file, or holds no JPEG data, passes.
        file: What it was opened from; its position is kept.

    Raises:
        ValueError: A part of it has more scans than a JPEG file may have, or its parts overlap.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    compression = image.tag_v2.get(TiffImagePlugin.COMPRESSION)
    if compression not in (_JPEG, _OLD_JPEG):
        return
    place = file.tell()
    size_bytes = file.seek(0, os.SEEK_END)
    parts = [(0, size_bytes)]  # of the old kind, whose tables and strips lie anywhere
    if compression == _JPEG:
        parts = [
            part for tags in _PARTS for part in zip(*map(image.tag_v2.get, tags, ((), ())), strict=False)
        ]
    if sum(length for _, length in parts) > size_bytes:
        raise ValueError("its parts are together larger than the file")
    for begin, length in parts:
        file.seek(begin)
        check_scans(file.read(length))
    file.seek(place)
