"""What is measured of a bundle, kept in it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import record_file, staging, update
from riformer_deploy.common.errors import (
    BundleChangedError,
    BundleError,
)
from riformer_deploy.common.serialization import dump_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def recording_failures(what: str) -> Iterator[None]:
    """A result that was measured is given to the user even where it cannot be stored."""
    try:
        yield
    except BundleChangedError:
        raise
    except (OSError, BundleError) as err:
        _LOG.warning("the %s result could not be stored in the bundle: %s", what, err)


def _all_others(current: Manifest, _staged: Path) -> Mapping[str, FileRecord]:
    return current.results


def store_result(
    bundle: Bundle,
    kind: str,
    result: DataclassInstance,
    tables: Mapping[str, str] = MappingProxyType({}),
    *,
    beside: Callable[[Manifest, Path], Mapping[str, FileRecord]] = _all_others,
) -> None:
    """Put a result into the bundle, in place of the last one of its kind.

    Args:
        bundle: Open.
        kind: ``parity``, ``parity-user`` (limits of the user's own), ``latency``, ``accuracy`` or the
            ``parity_kind`` of an engine; the file's name.
        result: What was measured.
        tables: Raw figures that go beside it: texts by file name, which is also their kind.
        beside: Gives the other results that the bundle shall hold, of the manifest in force, and writes them
            into the folder given, if they are new files; all stay if it is not given.

    Raises:
        BundleError: The bundle cannot be written.
    """
    with staging(bundle.directory) as staged:
        path = staged / f"{kind}.json"
        path.write_text(dump_json(result), encoding="utf-8")
        records = {kind: record_file(path, bundle.manifest.reference.file.sha256)}
        for name, text in tables.items():
            # names of files are the bytes that they are, UTF-8 or not
            (staged / name).write_text(text, encoding="utf-8", errors="surrogateescape")
            records[name] = record_file(staged / name, records[kind].sha256)

        _add(bundle, staged, kind, records, beside)


def store_pages(bundle: Bundle, pages: Mapping[str, str]) -> None:
    """Put pages about a bundle's results into it, in place of the last ones.

    Args:
        bundle: Open.
        pages: Texts by file name, which is also their kind.

    Raises:
        BundleError: The bundle cannot be written.
    """
    with staging(bundle.directory) as staged:
        records = {}
        for name, text in pages.items():
            (staged / name).write_text(text, encoding="utf-8")
            records[name] = record_file(staged / name, bundle.manifest.reference.file.sha256)
        _add(bundle, staged, "report", records)


def _add(
    bundle: Bundle,
    staged: Path,
    kind: str,
    records: Mapping[str, FileRecord],
    beside: Callable[[Manifest, Path], Mapping[str, FileRecord]] = _all_others,
) -> None:
    """Commit what was staged, unless the models that it is about have changed meanwhile."""

    def add(current: Manifest) -> Manifest:
        now, then = current, bundle.manifest
        if (now.onnx, now.weights, now.engines) != (then.onnx, then.weights, then.engines):
            raise BundleChangedError(
                f"The bundle {bundle.directory} was exported or built anew while its old models were "
                f"being measured; the {kind} result is not of what it holds now.",
                remedy="Run the command again.",
            )
        return dataclasses.replace(current, results={**beside(current, staged), **records})

    update(bundle.directory, staged, add)
