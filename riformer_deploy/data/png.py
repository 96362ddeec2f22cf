"""PNG files without their ancillary chunks, whose size and checksums decide nothing about the pixels."""

from __future__ import annotations

import zlib
from typing import IO

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = frozenset({b"tRNS", b"eXIf"})  # ancillary: transparency of a palette, and the orientation
_LONGEST = 2**31 - 1


def plain_png(file: IO[bytes]) -> bytes:
    """The signature and every chunk that tells of the pixels; the rest is not even read.

    Args:
        file: Opened at the signature, seekable.

    Returns:
        The file's content without the rest.

    Raises:
        ValueError: The file is cut short, or the checksum of a critical chunk is wrong.
    """
    parts = [file.read(len(PNG_SIGNATURE))]
    while len(header := file.read(8)) == 8:
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if length > _LONGEST:
            raise ValueError(f"a chunk of {length:,} bytes is longer than a PNG's may be")
        critical = not kind[0] & 0x20
        if not critical and kind not in _KEPT:
            file.seek(length + 4, 1)
            continue
        body, checksum = file.read(length), file.read(4)
        if len(checksum) < 4:
            raise ValueError("image file is truncated")
        if zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(checksum, "big"):
            parts += [header, body, checksum]
        elif critical:
            name = kind.decode("latin-1")
            raise ValueError(f"the checksum of its {'pixels' if kind == b'IDAT' else name} is wrong")
        if kind == b"IEND":
            return b"".join(parts)
    raise ValueError("image file is truncated")
