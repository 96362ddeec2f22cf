"""Blank the machine code of other GPUs in a wheel's libraries, so that less has to be carried.

    python prune_architectures.py WHEEL 90

CUDA's libraries hold a copy of their kernels for each architecture, and the driver takes the one that fits.
Where there is machine code of exactly the wanted architecture, the others' bytes become zeros, which
compress to nothing; everything else of the wheel stays as it is. The layout of these containers ("fatbin")
is not documented: a header of magic number, version, header size and size of the content, then entries
whose header tells kind (1: PTX, 2: machine code), header size, size of the content and architecture. A
region that does not follow it to the last byte is left alone.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

_MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, 16)
_HEADER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIII")
_MACHINE_CODE = 2


class Entry(NamedTuple):
    """Code for one architecture: its kind, and where it begins and ends."""

    kind: int
    architecture: int
    first: int
    last: int


def _entries(content: bytes, start: int, end: int) -> list[Entry]:
    """The entries of a container; none where the layout is another one."""
    found = []
    while start < end:
        if end - start < _ENTRY.size:
            return []
        kind, _, header, size, _, _, _, architecture = _ENTRY.unpack_from(content, start)
        if header < _ENTRY.size or start + header + size > end:
            return []
        found.append(Entry(kind, architecture, start + header, start + header + size))
        start += header + size
    return found


def pruned(content: bytes, architecture: int) -> bytes:
    """The library with zeros for other architectures' code, where there is machine code of the wanted one.

    Args:
        content: Of the library.
        architecture: As 90 for compute capability 9.0.
    """
    kept = bytearray(content)
    at = content.find(_MAGIC)
    while 0 <= at <= len(content) - _HEADER.size:
        _, _, header, size = _HEADER.unpack_from(content, at)
        end = at + header + size
        entries = _entries(content, at + header, end) if end <= len(content) else []
        if any((entry.kind, entry.architecture) == (_MACHINE_CODE, architecture) for entry in entries):
            for entry in entries:
                if entry.architecture != architecture:
                    kept[entry.first : entry.last] = bytes(entry.last - entry.first)
        at = content.find(_MAGIC, end if entries else at + 1)
    return bytes(kept)


def main() -> int:
    """Rewrite the wheel."""
    path, architecture = Path(sys.argv[1]), int(sys.argv[2])
    written = path.with_suffix(".pruned")
    with zipfile.ZipFile(path) as wheel, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as smaller:
        for item in wheel.infolist():
            content = wheel.read(item)
            is_library = item.filename.endswith(".so") or ".so." in item.filename
            smaller.writestr(item, pruned(content, architecture) if is_library else content, compresslevel=9)
    print(
        f"{path.name}: {path.stat().st_size >> 20} MiB, now {written.stat().st_size >> 20}", file=sys.stderr
    )
    written.replace(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
