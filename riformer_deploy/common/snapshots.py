"""Reading a file as it was at one moment, although somebody may be writing it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from riformer_deploy.common.files import FileTooLargeError, open_regular

_PIECE_BYTES = 1 << 20


class FileChangedError(OSError):
    """A file was written, or another one put in its place, while it was read."""


def read_unchanged(path: Path, limit_bytes: int) -> bytearray:
    """The whole content of a regular file as it was at one moment.

    It is read twice and compared: what neither the size nor the time of change tells (a file system keeps
    that time in steps of some milliseconds) is seen in the content, unless it is changed back meanwhile.

    Args:
        path: The file.
        limit_bytes: The most that is read.

    Raises:
        NotRegularFileError: It is not a regular file.
        FileTooLargeError: It holds more.
        FileChangedError: It changed meanwhile.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        if before.st_size > limit_bytes:
            raise FileTooLargeError(errno.EFBIG, f"holds more than {limit_bytes:,} bytes", str(path))
        content = bytearray(before.st_size)
        with memoryview(content) as rest:
            done = 0
            while got := file.readinto(rest[done:]):
                done += got
        same = done == len(content) and not file.read(1)
        file.seek(0)
        for start in range(0, len(content), _PIECE_BYTES):
            same = same and file.read(_PIECE_BYTES) == content[start : start + _PIECE_BYTES]
        after, named = os.fstat(file.fileno()), path.stat()
    states = {
        (state.st_ino, state.st_dev, state.st_size, state.st_mtime_ns) for state in (before, after, named)
    }
    if not same or len(states) != 1:
        raise FileChangedError(errno.EBUSY, "was changed while it was being read", str(path))
    return content
