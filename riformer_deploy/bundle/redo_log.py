"""The redo log that makes a write to a bundle all or nothing.

New files and the new manifest are gathered in ``.pending-*``, synced, and that folder is renamed to
``.commit``: from this one rename on the bundle is the new one. Its files are then moved into place,
the manifest last. The next writer finishes what an interrupted one did not; a reader, which changes
nothing, looks into ``.commit`` first.

A ``.commit`` is believed only where it can be ours: a folder, no link, that holds regular files which
its own manifest lists. Whoever sends a bundle could else name files outside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.common.files import locked, read_regular
from riformer_deploy.common.replacing import sync_directory
from riformer_deploy.common.serialization import RecordError, load_json

COMMIT = ".commit"
PENDING = ".pending-"
RESUME_LOGS = (".accuracy-*.jsonl", ".tune-*.jsonl")
MOST_MANIFEST_BYTES = 16 * 2**20
"""A manifest of 1,000 classes and five quantised models takes less than 1 MiB."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class ForeignCommitError(OSError):
    """A ``.commit`` is not what this toolkit leaves."""


def has_commit(directory: Path) -> bool:
    """Whether a folder holds anything of that name, whatever it is."""
    return os.path.lexists(directory / COMMIT)


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[tuple[int, int] | None]:
    """Descriptors of a folder and of its ``.commit``; None where it has none."""
    folder = os.open(directory, _FOLDER)
    try:
        try:
            log = os.open(COMMIT, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            yield None
            return
        except OSError as err:
            if err.errno in (errno.ELOOP, errno.ENOTDIR):
                raise _foreign(directory, "it is no folder") from err
            raise
        try:
            yield folder, log
        finally:
            os.close(log)
    finally:
        os.close(folder)


def _names(folder: int) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _foreign(directory: Path, why: str) -> ForeignCommitError:
    text = f"not left by an interrupted write: {why}; remove it if you do not know it"
    return ForeignCommitError(errno.EINVAL, text, str(directory / COMMIT))


def _read(directory: Path, log: int) -> Manifest | None:
    """The manifest in a ``.commit``; None where nothing but its removal was left to do."""
    names = _names(log)
    for name in sorted(names):
        if not stat.S_ISREG(os.stat(name, dir_fd=log, follow_symlinks=False).st_mode):
            raise _foreign(directory, f"{name!r} in it is no regular file")
    if MANIFEST not in names:
        if names:
            raise _foreign(directory, f"it holds no {MANIFEST}")
        return None
    try:
        text = read_regular(directory / COMMIT / MANIFEST, MOST_MANIFEST_BYTES).decode("utf-8")
        manifest = load_json(Manifest, text)
    except (RecordError, UnicodeDecodeError) as err:
        raise _foreign(directory, f"its {MANIFEST} is not a valid manifest ({err})") from err
    if odd := names - {MANIFEST} - {record.path for record in manifest.files}:
        raise _foreign(directory, f"its manifest does not list {min(odd)!r}")
    return manifest


def read_commit(directory: Path) -> Manifest | None:
    """The manifest of an interrupted write that the next writer will finish; None where there is none.

    Nothing is changed. The caller holds the folder's lock as a reader.

    Raises:
        ForeignCommitError: There is a ``.commit`` that this toolkit did not leave.
        OSError: It cannot be read.
    """
    with _opened(directory) as opened:
        return None if opened is None else _read(directory, opened[1])


def roll_forward(directory: Path) -> None:
    """Finish an interrupted write, if there is one; the caller holds the folder's lock as a writer.

    Raises:
        ForeignCommitError: There is a ``.commit`` that this toolkit did not leave; nothing was changed.
        OSError: A file cannot be moved into place.
    """
    with _opened(directory) as opened:
        if opened is None:
            return
        folder, log = opened
        manifest = _read(directory, log)
        if manifest is not None:
            _drop_unlisted(directory, manifest)
            for name in sorted(_names(log) - {MANIFEST}):
                os.replace(name, name, src_dir_fd=log, dst_dir_fd=folder)
            sync_directory(directory)
            os.replace(MANIFEST, MANIFEST, src_dir_fd=log, dst_dir_fd=folder)
            sync_directory(directory)
        os.rmdir(COMMIT, dir_fd=folder)


def _drop_unlisted(directory: Path, new: Manifest) -> None:
    """Remove what the old manifest lists and the new one does not."""
    with contextlib.suppress(OSError, RecordError, UnicodeDecodeError):
        text = read_regular(directory / MANIFEST, MOST_MANIFEST_BYTES).decode("utf-8")
        kept = {record.path for record in new.files}
        for record in load_json(Manifest, text).files:
            if record.path not in kept:
                (directory / record.path).unlink(missing_ok=True)


def remove_stale(directory: Path) -> None:
    """Remove what killed writers left; a live one holds the lock of its folder.

    The caller holds the bundle folder's lock, under which writers make their own folders.
    """
    for path in directory.glob(f"{PENDING}*"):
        # a live writer's is locked, or gone by now
        with contextlib.suppress(OSError):
            if not path.is_symlink() and path.is_dir():
                with locked(path, blocking=False):
                    shutil.rmtree(path, ignore_errors=True)


def remove_abandoned_logs(directory: Path) -> None:
    """Remove resume logs of passes over models that the bundle does not hold any more; not a live pass's."""
    for path in (path for pattern in RESUME_LOGS for path in directory.glob(pattern)):
        with contextlib.suppress(OSError):
            if not path.is_symlink() and path.is_file():
                with locked(path, blocking=False):
                    path.unlink()
