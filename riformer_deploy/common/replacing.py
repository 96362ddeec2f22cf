"""Replacing files without a moment in which one is half written."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from riformer_deploy.common.files import locked


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
