"""The bundle as a folder: opening, checking, and replacing it all or not at all.

Writing is a redo log. New files and the new manifest are gathered in ``.pending-*``, synced, and
that folder is renamed to ``.commit``: from this one rename on the bundle is the new one. Its files
are then moved into place, the manifest last. Whoever opens a bundle that still has a ``.commit``
finishes the moves first, so an interruption leaves the bundle as it was or complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from riformer_deploy.bundle.artifacts import MANIFEST, FileRecord
from riformer_deploy.bundle.manifest import Manifest, Source
from riformer_deploy.common.errors import BundleConflictError, BundleError, BundleIntegrityError
from riformer_deploy.common.files import sha256_of, sync_directory, sync_file
from riformer_deploy.common.serialization import RecordError, dump_json, load_json

_COMMIT = ".commit"
_PENDING = ".pending-"


class Bundle:
    """A bundle on disk; :meth:`open` it, ask it for files.

    Attributes:
        directory: The folder.
        manifest: Its ``bundle.json``.
        base: Where files are looked for that ``directory`` does not hold: the bundle that a staged one
            is going to change.
    """

    def __init__(self, directory: Path, manifest: Manifest, base: Path | None = None) -> None:
        self.directory = directory
        self.manifest = manifest
        self.base = base
        self._verified: set[tuple[str, str]] = set()

    @classmethod
    def open(cls, directory: Path | str) -> Bundle:
        """Open a bundle, finishing an interrupted write first.

        Raises:
            BundleError: The folder is not a bundle or its manifest is invalid.
        """
        directory = Path(directory)
        try:
            if (directory / _COMMIT).is_dir():
                with _locked(directory):
                    _roll_forward(directory)
        except OSError as err:
            raise BundleError(f"The interrupted write of {directory} cannot be finished: {err}") from err
        return cls(directory, _read(directory))

    def place_of(self, record: FileRecord) -> Path:
        """Path of one of the bundle's files, whatever it holds by now."""
        path = self.directory / record.path
        return path if self.base is None or path.exists() else self.base / record.path

    def path_of(self, record: FileRecord) -> Path:
        """Path of one of the bundle's files, after checking its sha256 (once per opened bundle).

        Raises:
            BundleIntegrityError: The file is missing or not the one that was recorded.
        """
        path = self.place_of(record)
        if (record.path, record.sha256) not in self._verified:
            remedy = "Restore the file, or export the checkpoint again."
            try:
                found = sha256_of(path)
            except OSError as err:
                raise BundleIntegrityError(f"{path} cannot be read: {err}", remedy=remedy) from err
            if found != record.sha256:
                raise BundleIntegrityError(
                    f"{path} is not the file that the bundle recorded: its sha256 is {found}, "
                    f"expected {record.sha256}.",
                    remedy=remedy,
                )
            self._verified.add((record.path, record.sha256))
        return path


def _read(directory: Path) -> Manifest:
    """The manifest of a bundle, as :meth:`Bundle.open` raises."""
    try:
        text = (directory / MANIFEST).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as err:
        what = f"it holds no {MANIFEST}" if directory.is_dir() else "it is a file"
        raise BundleError(
            f"{directory} is not a bundle: {what if directory.exists() else 'there is no such folder'}.",
            remedy="Make one with `riformer-deploy export CKPT`.",
        ) from err
    except (OSError, UnicodeDecodeError) as err:
        raise BundleError(f"The bundle {directory} cannot be read: {err}") from err
    try:
        return load_json(Manifest, text)
    except RecordError as err:
        raise BundleError(
            f"{directory / MANIFEST} is not a valid manifest.",
            details=err.problems,
            remedy="Export the checkpoint again, with --force to replace this bundle.",
        ) from err


def find_bundle(path: Path | None) -> Path:
    """The bundle that a command means.

    Args:
        path: What the user named, or None: the current folder if it is a bundle, else the one
            bundle that it holds.

    Raises:
        BundleError: There is none, or there are several.
    """
    if path is not None:
        return path
    here = Path()
    if is_bundle(here):
        return here
    found = sorted(
        child for child in here.iterdir() if not child.name.startswith(_PENDING) and is_bundle(child)
    )
    if len(found) == 1:
        return found[0]
    if found:
        raise BundleError(
            "The current folder holds several bundles.",
            details=[child.name for child in found],
            remedy="Name the one you mean.",
        )
    raise BundleError(
        "The current folder neither is nor holds a bundle.",
        remedy="Name one, or make one with `riformer-deploy export CKPT`.",
    )


def is_bundle(directory: Path) -> bool:
    """Whether a folder holds a bundle, complete or about to be completed."""
    return (directory / MANIFEST).is_file() or (directory / _COMMIT).is_dir()


def check_target(directory: Path, source: Source, *, force: bool) -> None:
    """See that a bundle may be written here, before any work is done.

    Args:
        directory: The bundle's folder.
        source: The checkpoint, and the weights of it, that it is made from.
        force: Allow a bundle of another checkpoint, or a damaged one, to be replaced.

    Raises:
        BundleConflictError: The folder holds something else.
    """
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
        foreign = sorted(child.name for child in directory.iterdir() if not child.name.startswith(_PENDING))
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
    """
    created: list[Path] = []
    try:
        created += [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=_PENDING, dir=directory))
    except OSError as err:
        raise BundleError(f"{directory} cannot be written: {err}") from err
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        with contextlib.suppress(OSError):  # what is not empty stays, and its parents with it
            for path in created:
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


def commit(directory: Path, staged: Path, manifest: Manifest, *, force: bool) -> Bundle:
    """Make the staged files and this manifest the bundle's.

    Args:
        directory: The bundle's folder.
        staged: From :func:`staging`; the new files, each listed in ``manifest``.
        manifest: The new manifest; a listed file that is not staged must be in place already.
        force: As for :func:`check_target`, which is asked again: others may have written meanwhile.

    Raises:
        BundleConflictError: The folder holds something else by now.
        BundleError: The folder cannot be written; the bundle is as it was or complete.
    """

    def guarded() -> Manifest:
        check_target(directory, manifest.source, force=force)
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
    return _commit(directory, staged, lambda: change(_read(directory)))


def _commit(
    directory: Path, staged: Path, manifest_of: Callable[[], Manifest], *, force: bool = False
) -> Bundle:
    try:
        with _locked(directory):
            _roll_forward(directory)
            manifest = manifest_of()
            _check_foreign(directory, staged, force=force)
            path = staged / MANIFEST
            path.write_text(dump_json(manifest), encoding="utf-8")
            sync_file(path)
            sync_directory(staged)
            staged.rename(directory / _COMMIT)
            sync_directory(directory)
            _roll_forward(directory)
    except OSError as err:
        raise BundleError(f"The bundle {directory} cannot be written: {err}") from err
    _remove_stale(directory)
    return Bundle(directory, manifest)


def _check_foreign(directory: Path, staged: Path, *, force: bool) -> None:
    """Refuse to replace files that the bundle in the folder does not list.

    A damaged manifest lists nothing; to replace such a bundle is what ``force`` is for.
    """
    try:
        listed = {record.path for record in _read(directory).files}
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


def _roll_forward(directory: Path) -> None:
    pending = directory / _COMMIT
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


def _remove_stale(directory: Path) -> None:
    """Remove what killed writers left; a live one's folder is younger than an hour."""
    for path in directory.glob(f"{_PENDING}*"):
        with contextlib.suppress(OSError):  # another writer has just finished with it
            newest = max(child.stat().st_mtime for child in (path, *path.iterdir()))
            if newest < (directory / MANIFEST).stat().st_mtime - 3600:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One committer at a time."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
