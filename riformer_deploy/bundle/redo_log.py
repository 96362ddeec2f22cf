"""The redo log that makes a write to a bundle all or nothing.

New files and the new manifest are gathered in ``.pending-*``, synced, and that folder is renamed to
``.commit``: from this one rename on the bundle is the new one. Its files are then moved into place,
the manifest last. Whoever opens a bundle that still has a ``.commit`` finishes the moves first, so an
interruption leaves the bundle as it was or complete.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.common.files import locked, sync_directory
from riformer_deploy.common.serialization import RecordError, load_json

COMMIT = ".commit"
PENDING = ".pending-"
RESUME_LOGS = ".accuracy-*.jsonl"


def roll_forward(directory: Path) -> None:
    """Finish an interrupted write, if there is one; the caller holds the folder's lock.

    Raises:
        OSError: A file cannot be moved into place.
    """
    pending = directory / COMMIT
    if not pending.is_dir():
        return
    if (pending / MANIFEST).is_file():
        _drop_unlisted(directory, pending)
        for path in sorted(pending.iterdir()):
            if path.name != MANIFEST:
                path.replace(directory / path.name)
        sync_directory(directory)
        (pending / MANIFEST).replace(directory / MANIFEST)
        sync_directory(directory)
    pending.rmdir()


def _drop_unlisted(directory: Path, pending: Path) -> None:
    """Remove what the old manifest lists and the new one does not."""
    with contextlib.suppress(OSError, RecordError, UnicodeDecodeError):
        old = load_json(Manifest, (directory / MANIFEST).read_text(encoding="utf-8"))
        new = load_json(Manifest, (pending / MANIFEST).read_text(encoding="utf-8"))
        kept = {record.path for record in new.files}
        for record in old.files:
            if record.path not in kept:
                (directory / record.path).unlink(missing_ok=True)


def remove_stale(directory: Path) -> None:
    """Remove what killed writers left; a live one holds the lock of its folder.

    The caller holds the bundle folder's lock, under which writers make their own folders.
    """
    for path in directory.glob(f"{PENDING}*"):
        # a live writer's is locked, or gone by now
        with contextlib.suppress(OSError), locked(path, blocking=False):
            shutil.rmtree(path, ignore_errors=True)


def remove_abandoned_logs(directory: Path) -> None:
    """Remove resume logs of passes over models that the bundle does not hold any more; not a live pass's."""
    for path in directory.glob(RESUME_LOGS):
        with contextlib.suppress(OSError), locked(path, blocking=False):
            path.unlink()
