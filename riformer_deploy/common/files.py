"""Opening, hashing and locking files, and replacing them without a moment in which one is half written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import stat
import tempfile
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


_PIECE_BYTES = 1 << 20


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
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind != stat.S_IFREG:
            what = _KINDS.get(kind, "something else")
            raise NotRegularFileError(errno.EINVAL, f"is {what}, not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


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


@contextlib.contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """A file's path for a library that takes UTF-8 alone: its own, or for the block that of a link to it."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder, f"file{path.suffix}")
            link.symlink_to(path.absolute())
            yield str(link)
    else:
        yield str(path)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's content, read in pieces.

    Raises:
        NotRegularFileError: It is not a regular file.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk, where the system can say so."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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


def _make_partial(path: Path) -> tuple[int, Path]:
    """A new file beside ``path``, locked: the descriptor that holds the lock, and its name."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return descriptor, Path(name)
        except BlockingIOError:  # somebody takes it for a killed process's, and is about to remove it
            pass
        except BaseException:
            os.close(descriptor)
            Path(name).unlink(missing_ok=True)
            raise
        os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of :func:`replacing` this path; a live one holds a lock."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.????????.partial"):
        with contextlib.suppress(OSError):
            if not partial.is_symlink() and partial.is_file():
                with locked(partial, blocking=False):
                    partial.unlink()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file beside its name; on success it is synced and moved into place.

    Args:
        path: The final name; its folder must exist.

    Yields:
        A new name in the same folder. If the block raises, it is removed and ``path`` stays as it was; if
        the process is killed, the next one that replaces ``path`` removes it.
    """
    _remove_abandoned(path)
    descriptor, partial = _make_partial(path)
    try:
        yield partial
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)
        sync_file(partial)
        partial.replace(path)
        sync_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)
        os.close(descriptor)
