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
from riformer_deploy.common.files import sync_directory
from riformer_deploy.common.serialization import RecordError, load_json

COMMIT = ".commit"
PENDING = ".pending-"


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
    """Remove what killed writers left; a live one's folder is younger than an hour."""
    for path in directory.glob(f"{PENDING}*"):
        with contextlib.suppress(OSError):  # another writer has just finished with it
            newest = max(child.stat().st_mtime for child in (path, *path.iterdir()))
            if newest < (directory / MANIFEST).stat().st_mtime - 3600:
                shutil.rmtree(path, ignore_errors=True)
