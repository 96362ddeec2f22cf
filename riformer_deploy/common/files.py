"""Opening and locking files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class NotRegularFileError(OSError):
    """What a path names is not a regular file: reading it could block, never end, or change something."""


class FileTooLargeError(OSError):
    """A file holds more bytes than its reader takes."""


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read; every file that the toolkit did not just make is opened by this.

    Links are followed. A file that is none is refused before a byte is read of it, and a named pipe
    that nobody writes to does not block.

    Raises:
        NotRegularFileError: It is a folder, a named pipe, a device or a socket.
        OSError: It cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        if err.errno == errno.ENXIO:  # what Linux says of a socket
            raise NotRegularFileError(err.errno, "is a socket, not a regular file", str(path)) from err
        raise
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind == stat.S_IFREG:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    what = _KINDS.get(kind, "something else")
    raise NotRegularFileError(errno.EINVAL, f"is {what}, not a regular file", str(path))


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """The whole content of a regular file.

    Args:
        path: The file.
        limit_bytes: The most that is read; a larger file is refused, whatever its stated size.

    Raises:
        NotRegularFileError: It is not a regular file.
        FileTooLargeError: It holds more.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        content = file.read(limit_bytes + 1) if size_bytes <= limit_bytes else b""
    if size_bytes > limit_bytes or len(content) > limit_bytes:
        raise FileTooLargeError(errno.EFBIG, f"holds more than {limit_bytes:,} bytes", str(path))
    return content


@contextlib.contextmanager
def locked(path: Path, *, blocking: bool = True, shared: bool = False) -> Iterator[None]:
    """Hold the lock of an existing file or folder; the system frees it however the process ends.

    Args:
        path: What is locked (``flock``); its content is not touched.
        blocking: Wait for another holder.
        shared: Let others hold it too that ask for no more than this.

    Raises:
        BlockingIOError: Another process or thread holds it and ``blocking`` is false.
        OSError: The path cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | (0 if blocking else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> str | None:
    """The process that holds a lock of :func:`locked`, in words; None where the system does not say."""
    try:
        status = path.stat()
        where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == where and int(fields[4]) > 0:
                command = Path("/proc", fields[4], "comm").read_text(encoding="utf-8", errors="replace")
                shown = "".join(c if c.isprintable() else "?" for c in command.strip())
                return f"process {fields[4]} ({shown})"
    except (OSError, ValueError, IndexError):
        return None
    return None
