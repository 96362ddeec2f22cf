"""JPEG data, and TIFF files that hold it."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")


def with_scans(jpeg: bytes, count: int) -> bytes:
    """A progressive JPEG file whose first scan is there so many times more."""
    scan = jpeg.index(b"\xff\xda")
    end = _END_OF_SCAN.search(jpeg, scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big"))
    assert end is not None
    return jpeg[: end.start()] + jpeg[scan : end.start()] * count + jpeg[end.start() :]


def tiff_of(strips: Sequence[bytes], size: tuple[int, int], *, compression: int = 7) -> bytes:
    """A grey TIFF file of strips, of which each is a JPEG file of the same height.

    Args:
        strips: From top to bottom.
        size: Width and height in pixels.
        compression: 7 for JPEG, 6 for the kind before it.
    """
    width, height = size
    body = b"".join(strips)
    offsets = [8 + sum(map(len, strips[:index])) for index in range(len(strips))]
    tables = struct.pack(f"<{2 * len(strips)}I", *offsets, *map(len, strips))
    place = 8 + len(body)
    entries = [
        (256, width), (257, height), (258, 8), (259, compression), (262, 1), (277, 1),
        (278, height // len(strips)),
    ]  # fmt: skip
    packed = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries]
    for tag, start, values in ((273, place, offsets), (279, place + 4 * len(strips), list(map(len, strips)))):
        one = len(values) == 1
        packed.append(struct.pack("<HHII", tag, 4, len(values), values[0] if one else start))
    packed.sort()
    folder = struct.pack("<H", len(packed)) + b"".join(packed) + bytes(4)
    return b"II*\0" + struct.pack("<I", place + len(tables)) + body + tables + folder
