"""A bundle on disk: opening it, checking its files, finding it."""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.bundle.artifacts import FAILED_MANIFEST, MANIFEST, FileRecord
from riformer_deploy.bundle.engine_metadata import (
    EngineArtifact,
)
from riformer_deploy.bundle.manifest import SCHEMA_VERSION, Manifest
from riformer_deploy.bundle.redo_log import COMMIT, PENDING, roll_forward
from riformer_deploy.common.errors import (
    BundleError,
    BundleIntegrityError,
)
from riformer_deploy.common.files import locked, sha256_of
from riformer_deploy.common.serialization import RecordError, load_json, schema_of


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
        """Open a bundle, finishing an interrupted write first.

        Raises:
            BundleError: The folder is not a bundle or its manifest is invalid.
        """
        directory = Path(directory)
        try:
            if (directory / COMMIT).is_dir():
                with locked(directory):
                    roll_forward(directory)
        except OSError as err:
            raise BundleError(f"The interrupted write of {directory} cannot be finished: {err}") from err
        return cls(directory, read_manifest(directory))

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


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        BundleError: The folder is not a bundle or its manifest is invalid.
    """
    try:
        text = (directory / MANIFEST).read_text(encoding="utf-8")
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
    return (directory / MANIFEST).is_file() or (directory / COMMIT).is_dir()


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
