"""How many scans a JPEG file makes a decoder go through: each one passes over the whole picture again."""

from __future__ import annotations

import re

JPEG_SIGNATURE = b"\xff\xd8\xff"

MAX_SCANS = 100
"""Progressive files have about ten, the most refined ones some dozens; one of 20 kB can have thousands."""

_START_OF_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length: restarts, and the ends of an image


def check_scans(data: bytes) -> None:
    """Refuse JPEG data of more than :data:`MAX_SCANS` scans.

    Args:
        data: A file, or a part of a TIFF file.

    Raises:
        ValueError: It has more.
    """
    # Within coded values no marker can stand: few of these bytes are few scans, whatever the segments hold.
    if data.count(_START_OF_SCAN) > MAX_SCANS and _scans(data) > MAX_SCANS:
        raise ValueError(f"it has more than {MAX_SCANS} scans, which would take minutes")


def _scans(data: bytes) -> int:
    """Scans outside of the segments that carry other data, such as a thumbnail."""
    found, at = 0, len(JPEG_SIGNATURE) - 1
    while marker := _MARKER.search(data, at):
        at = marker.end()
        kind = marker[1][0]
        found += kind == _START_OF_SCAN[1]
        if kind not in _BARE:
            at += int.from_bytes(data[at : at + 2], "big")
    return found
