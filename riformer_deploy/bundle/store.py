"""A bundle on disk: opening it, checking its files, finding it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NoReturn

from riformer_deploy.bundle.artifacts import FAILED_MANIFEST, MANIFEST, FileRecord, OnnxArtifact
from riformer_deploy.bundle.engine_metadata import (
    EngineArtifact,
)
from riformer_deploy.bundle.folder_lock import folder_lock
from riformer_deploy.bundle.graph_bounds import check_graph
from riformer_deploy.bundle.graph_reader import GraphError
from riformer_deploy.bundle.manifest import SCHEMA_VERSION, Manifest
from riformer_deploy.bundle.redo_log import COMMIT, MOST_MANIFEST_BYTES, PENDING, has_commit, read_commit
from riformer_deploy.common.errors import (
    BundleChangedError,
    BundleError,
    BundleIntegrityError,
)
from riformer_deploy.common.files import open_regular, read_regular
from riformer_deploy.common.serialization import RecordError, load_json, schema_of

MOST_RESULT_BYTES = 64 * 2**20
"""A parity report of all precisions and runtimes takes 0.1 MB."""
_MOST_BYTES = 4 << 30


class Bundle:
    """A bundle on disk; :meth:`open` it, ask it for files.

    Attributes:
        directory: The folder.
        manifest: Its ``bundle.json``.
        base: Where files are looked for that ``directory`` does not hold: the bundle that a staged one
            is going to change.
    """

    def __init__(self, directory: Path | str, manifest: Manifest, base: Path | str | None = None) -> None:
        self.directory = Path(directory)
        self.manifest = manifest
        self.base = None if base is None else Path(base)
        self._verified: set[tuple[str, str]] = set()

    @classmethod
    def open(cls, directory: Path | str) -> Bundle:
        """Open a bundle; nothing is written.

        Beside a writer that is just moving files into place it waits. What a killed one has not moved yet is
        read where it lies; the next writer moves it.

        Raises:
            BundleChangedError: A writer does not come to an end.
            BundleError: The folder is not a bundle or its manifest is invalid.
        """
        directory = Path(directory)
        unfinished: Manifest | None = None
        try:
            if has_commit(directory):
                with folder_lock(directory, reader=True):
                    unfinished = read_commit(directory)
        except OSError as err:
            raise BundleError(
                f"The interrupted write {directory / COMMIT} cannot be read: {err.strerror or err}"
            ) from err
        return cls(directory, unfinished or read_manifest(directory))

    def place_of(self, record: FileRecord) -> Path:
        """Path of one of the bundle's files, whatever it holds by now."""
        places = [self.directory / COMMIT] if has_commit(self.directory) else []
        places += [self.directory] if self.base is None else [self.directory, self.base]
        found = (place / record.path for place in places if (place / record.path).exists())
        return next(found, places[-1] / record.path)

    def path_of(self, record: FileRecord) -> Path:
        """Path of one of the bundle's files, after checking its size and sha256 (once per opened bundle).

        Raises:
            BundleIntegrityError: The file is missing or not the one that was recorded.
            BundleChangedError: Another process replaced the bundle since it was opened.
        """
        path = self.place_of(record)
        if (record.path, record.sha256) not in self._verified:
            problem = misfit(path, record)
            if problem is not None and (moved := self.place_of(record)) != path:
                path, problem = moved, misfit(moved, record)  # a writer finished an interrupted write
            if problem is not None:
                self._refuse(problem)
            self._verified.add((record.path, record.sha256))
        return path

    def read(self, record: FileRecord) -> bytes:
        """Content of one of the bundle's files: what was checked is what is returned, from one read.

        Raises:
            BundleIntegrityError: As :meth:`path_of`.
            BundleChangedError: Another process replaced the bundle since it was opened.
        """
        path = self.place_of(record)
        content, problem = _content(path, record)
        if problem is not None and (moved := self.place_of(record)) != path:
            content, problem = _content(moved, record)  # a writer finished an interrupted write
        if problem is not None:
            self._refuse(problem)
        self._verified.add((record.path, record.sha256))
        return content

    def text(self, record: FileRecord, *, errors: str = "strict") -> str:
        """Text of one of the bundle's results, of at most :data:`MOST_RESULT_BYTES`.

        Args:
            record: The file's.
            errors: What is done with bytes that are not UTF-8, as for ``bytes.decode``.

        Raises:
            BundleIntegrityError: As :meth:`read`; or it is larger.
            BundleChangedError: As :meth:`read`.
            UnicodeDecodeError: It is not UTF-8, and ``errors`` is ``strict``.
        """
        if record.size_bytes > MOST_RESULT_BYTES:
            self._refuse(f"{self.place_of(record)} holds {record.size_bytes:,} bytes; no result is so large.")
        return self.read(record).decode("utf-8", errors)

    def graph(self, artifact: OnnxArtifact) -> bytes:
        """Content of one of the bundle's graphs, after checking that a runtime can be given it.

        Raises:
            BundleIntegrityError: As :meth:`path_of`; or it is no ``.onnx`` file, not one by itself (external
                data), or beyond the limits of :mod:`~riformer_deploy.bundle.graph_bounds`.
            BundleChangedError: Another process replaced the bundle since it was opened.
        """
        path = self.place_of(artifact.file)
        if path.suffix != ".onnx":  # by its name a runtime may take it for a format with a second file
            self._refuse(f"{path} is recorded as a graph and is not called so: expected a name in .onnx.")
        content = self.read(artifact.file)
        try:
            check_graph(content)
        except GraphError as err:
            self._refuse(f"{path} is not a graph that this toolkit wrote: {err}.")
        return content

    def graph_path(self, artifact: OnnxArtifact) -> Path:
        """Path of one of the bundle's graphs, after the checks of :meth:`graph`; raises as that does."""
        self.graph(artifact)
        return self.place_of(artifact.file)

    def _refuse(self, problem: str) -> NoReturn:
        """Raise for a file that is not the recorded one, which the bundle's new one may well be."""
        try:
            replaced = self.base is None and Bundle.open(self.directory).manifest != self.manifest
        except BundleError:
            replaced = False
        if replaced:
            raise BundleChangedError(
                f"Another process replaced the bundle {self.directory} while it was being read.",
                remedy="Run the command again.",
            )
        raise BundleIntegrityError(problem, remedy="Restore the file, or export the checkpoint again.")


def misfit(path: Path, record: FileRecord) -> str | None:
    """Why a file is not the one that was recorded, in words; None where it is.

    Args:
        path: The file; one of another size is not read.
        record: Of the bundle's.
    """
    try:
        with open_regular(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes != record.size_bytes:
                return _other_size(path, record, size_bytes)
            return _other_content(path, record, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as err:
        return f"{path} cannot be read: {err}"


def _content(path: Path, record: FileRecord) -> tuple[bytes, str | None]:
    """Content of a file, and why it is not the one that was recorded, as :func:`misfit`."""
    try:
        with open_regular(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes != record.size_bytes:
                return b"", _other_size(path, record, size_bytes)
            if size_bytes > _MOST_BYTES:
                return b"", f"{path} holds {size_bytes:,} bytes; at most {_MOST_BYTES:,} are read."
            content = file.read(size_bytes)
    except OSError as err:
        return b"", f"{path} cannot be read: {err}"
    return content, _other_content(path, record, hashlib.sha256(content).hexdigest())


def _other_size(path: Path, record: FileRecord, size_bytes: int) -> str:
    return _other(path, f"it holds {size_bytes:,} bytes", f"{record.size_bytes:,}")


def _other_content(path: Path, record: FileRecord, digest: str) -> str | None:
    return None if digest == record.sha256 else _other(path, f"its sha256 is {digest}", record.sha256)


def _other(path: Path, got: str, expected: str) -> str:
    return f"{path} is not the file that the bundle recorded: {got}, expected {expected}."


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        BundleError: The folder is not a bundle or its manifest is invalid.
    """
    try:
        text = read_regular(directory / MANIFEST, MOST_MANIFEST_BYTES).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError) as err:
        if (directory / FAILED_MANIFEST).is_file():
            raise BundleError(
                f"{directory} is a failed export that was kept for inspection, not a bundle: its models did "
                "not hold parity (parity.json says where).",
                remedy="Look at its files one by one, such as with `riformer-deploy inspect FILE.onnx`; mend "
                "what failed and export again.",
            ) from err
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
        remedy = "Export the checkpoint again with --force, which replaces this bundle."
        version = schema_of(text, "schema_version")
        if version is not None and version != SCHEMA_VERSION:
            raise BundleError(
                f"{directory / MANIFEST} is of schema version {version}; this toolkit reads version "
                f"{SCHEMA_VERSION}.",
                remedy=remedy,
            ) from err
        raise BundleError(
            f"{directory / MANIFEST} is not a valid manifest.", details=err.problems, remedy=remedy
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
        child for child in here.iterdir() if not child.name.startswith(PENDING) and is_bundle(child)
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
    return (directory / MANIFEST).is_file() or (directory / COMMIT / MANIFEST).is_file()


def engine_of(bundle: Bundle, path: Path) -> EngineArtifact:
    """The bundle's record of an engine file.

    Args:
        bundle: The bundle that is searched.
        path: The file.

    Raises:
        BundleError: The bundle does not list it.
    """
    for artifact in bundle.manifest.engines:
        if artifact.file.path == path.name:
            return artifact
    raise BundleError(
        f"{path} is not an engine that the bundle {bundle.directory} lists.",
        remedy="A plan says nothing of itself; build it with `riformer-deploy build`.",
    )
