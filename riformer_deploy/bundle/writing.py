"""Writing a bundle: who may, gathering new files, and committing them (see ``redo_log``)."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from riformer_deploy.bundle.artifacts import MANIFEST, FileRecord
from riformer_deploy.bundle.folder_lock import folder_lock
from riformer_deploy.bundle.manifest import Manifest, Source
from riformer_deploy.bundle.redo_log import (
    COMMIT,
    PENDING,
    has_commit,
    read_commit,
    remove_abandoned_logs,
    remove_stale,
    roll_forward,
)
from riformer_deploy.bundle.store import Bundle, is_bundle, read_manifest
from riformer_deploy.common.errors import (
    BundleChangedError,
    BundleConflictError,
    BundleError,
)
from riformer_deploy.common.files import locked
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.interruption import interruption_deferred
from riformer_deploy.common.replacing import sync_directory, sync_file
from riformer_deploy.common.serialization import dump_json

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}
"""What writing a file fails with: no room, a limit, or no permission."""


def check_target(directory: Path, source: Source, *, force: bool) -> str | None:
    """See that a bundle may be written here, before any work is done.

    Args:
        directory: The bundle's folder.
        source: The checkpoint, and the weights of it, that it is made from.
        force: Allow a bundle of another checkpoint, or a damaged one, to be replaced.

    Returns:
        The :func:`manifest_digest` of what is there, for :func:`commit`.

    Raises:
        BundleConflictError: The folder holds something else.
    """
    _check_folder(directory, source, force=force)
    return manifest_digest(directory)


def _check_folder(directory: Path, source: Source, *, force: bool) -> None:
    try:
        exists = directory.exists()
    except OSError as err:  # a name that the system refuses
        raise BundleError(f"{directory} cannot be written: {err.strerror}") from err
    if not exists:
        return
    if not directory.is_dir():
        raise BundleConflictError(
            f"{directory} is a file; a bundle is a folder.", remedy="Choose another -o."
        )
    if not is_bundle(directory):
        foreign = sorted(child.name for child in directory.iterdir() if not child.name.startswith(PENDING))
        if foreign:
            raise BundleConflictError(
                f"{directory} holds files and is not a bundle (among them {foreign[0]}).",
                remedy="Choose another -o; --force does not replace foreign files.",
            )
        return
    if force:
        return
    try:
        present = Bundle.open(directory).manifest.source
    except BundleError as err:
        raise BundleConflictError(
            f"{directory} holds a bundle that cannot be read: {err.message}",
            details=err.details,
            remedy="Use --force to replace it, or choose another -o.",
        ) from err
    if (present.sha256, present.weights) != (source.sha256, source.weights):
        raise BundleConflictError(
            f"{directory} is the bundle of another checkpoint or of its other weights "
            f"({present.file_name}, {present.weights} weights, sha256 {present.sha256[:12]}…; "
            f"this one: {source.weights} weights, {source.sha256[:12]}…).",
            remedy="Use --force to replace it, or choose another -o.",
        )


@contextlib.contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """A folder to gather new files in; gone afterwards, whether or not they were committed.

    Args:
        directory: The bundle's folder, created with its parents if need be (and removed again if left empty).

    Raises:
        BundleError: A file cannot be written, there or by the block: the disk is full, or a limit is reached.
    """
    with contextlib.ExitStack() as alive:
        try:
            staged = _set_up(directory, alive)
            try:
                yield staged
            except OSError as err:
                if err.errno not in _DISK:  # of something else, such as whoever is told of the steps
                    raise
                raise BundleError(f"{directory} cannot be written: {err}") from err
        finally:
            with interruption_deferred():
                alive.close()


def _set_up(directory: Path, alive: contextlib.ExitStack) -> Path:
    """A new folder in the bundle's; ``alive`` removes it again, and what was created for it."""
    try:
        created = [path for path in (directory, *directory.parents) if not path.exists()]
        alive.callback(_remove_empty, created)
        directory.mkdir(parents=True, exist_ok=True)
        with folder_lock(directory), interruption_deferred():
            roll_forward(directory)
            remove_stale(directory)
            staged = Path(tempfile.mkdtemp(prefix=PENDING, dir=directory))
            alive.callback(shutil.rmtree, staged, ignore_errors=True)
            # until the end, so that nobody takes it for a killed one's
            alive.enter_context(locked(staged))
            return staged
    except OSError as err:
        raise BundleError(f"{directory} cannot be written: {err}") from err


def _remove_empty(folders: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):  # what is not empty stays, and its parents with it
        for path in folders:
            path.rmdir()


def record_file(path: Path, parent_sha256: str) -> FileRecord:
    """The record of a staged file; it is synced and hashed here."""
    sync_file(path)
    return FileRecord(
        path=path.name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        parent_sha256=parent_sha256,
    )


def manifest_digest(directory: Path) -> str | None:
    """What tells the manifest in force from others; None where there is none.

    Raises:
        BundleChangedError: A writer does not come to an end.
        BundleError: It cannot be read.
    """
    try:
        if has_commit(directory):
            with folder_lock(directory, reader=True):
                if read_commit(directory) is not None:
                    return sha256_of(directory / COMMIT / MANIFEST)
        return sha256_of(directory / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise BundleError(f"The bundle {directory} cannot be read: {err}") from err


def commit(
    directory: Path, staged: Path, manifest: Manifest, *, force: bool, base: str | None = ""
) -> Bundle:
    """Make the staged files and this manifest the bundle's.

    Args:
        directory: The bundle's folder.
        staged: From :func:`staging`; the new files, each listed in ``manifest``.
        manifest: The new manifest; a listed file that is not staged must be in place already.
        force: As for :func:`check_target`, which is asked again: others may have written meanwhile.
        base: What :func:`check_target` gave before the work; the empty text asks nothing.

    Raises:
        BundleConflictError: The folder holds something else by now.
        BundleChangedError: Another process changed the bundle since ``base``.
        BundleError: The folder cannot be written; the bundle is as it was or complete.
    """

    def guarded() -> Manifest:
        found = check_target(directory, manifest.source, force=force)
        if base not in ("", found):
            raise BundleChangedError(
                f"Another process changed the bundle {directory} while this one was at work; nothing was "
                "written.",
                remedy="Run the command again.",
            )
        remove_abandoned_logs(directory)
        return manifest

    return _commit(directory, staged, guarded, force=force)


def update(directory: Path, staged: Path, change: Callable[[Manifest], Manifest]) -> Bundle:
    """Add staged files to a bundle, starting from the manifest that is in force at that moment.

    Args:
        directory: The bundle's folder.
        staged: From :func:`staging`; the new files.
        change: Makes the new manifest of the present one; runs while other writers wait.

    Raises:
        BundleError: The folder is no bundle any more, or cannot be written.
    """
    return _commit(directory, staged, lambda: change(read_manifest(directory)))


def _commit(
    directory: Path, staged: Path, manifest_of: Callable[[], Manifest], *, force: bool = False
) -> Bundle:
    try:
        with folder_lock(directory), interruption_deferred():
            roll_forward(directory)
            manifest = manifest_of()
            _check_foreign(directory, staged, force=force)
            path = staged / MANIFEST
            path.write_text(dump_json(manifest), encoding="utf-8")
            sync_file(path)
            sync_directory(staged)
            staged.rename(directory / COMMIT)
            sync_directory(directory)
            roll_forward(directory)
            remove_stale(directory)
    except OSError as err:
        raise BundleError(f"The bundle {directory} cannot be written: {err}") from err
    return Bundle(directory, manifest)


def _check_foreign(directory: Path, staged: Path, *, force: bool) -> None:
    """Refuse to replace files that the bundle in the folder does not list.

    A damaged manifest lists nothing; to replace such a bundle is what ``force`` is for.
    """
    try:
        listed = {record.path for record in read_manifest(directory).files}
    except BundleError:
        if force and is_bundle(directory):
            return
        listed = set()
    foreign = [p.name for p in staged.iterdir() if p.name not in listed and (directory / p.name).exists()]
    if foreign:
        raise BundleConflictError(
            f"{directory} holds files of these names that are not the bundle's.",
            details=sorted(foreign),
            remedy="Move them away, or choose another -o.",
        )
