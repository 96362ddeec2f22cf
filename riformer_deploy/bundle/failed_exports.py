"""An export whose parity failed, kept for inspection in a folder that is no bundle."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from riformer_deploy.bundle.artifacts import FAILED_MANIFEST, FileRecord, OnnxArtifact
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.common.errors import BundleConflictError, BundleError
from riformer_deploy.common.serialization import dump_json


def _failed_folder(output: Path) -> Path:
    whole = output.resolve()
    return whole.with_name(f"{whole.name}.failed")


def check_failed_target(output: Path) -> None:
    """See that a failed export could be kept, before any work is done.

    Args:
        output: The bundle's folder.

    Raises:
        BundleConflictError: What is there is not an earlier failed export.
    """
    folder = _failed_folder(output)
    if folder.exists() and not (folder / FAILED_MANIFEST).is_file():
        raise BundleConflictError(
            f"{folder}, where a failed export would be kept, exists and is not one.",
            remedy="Move it away, choose another -o, or leave --keep-failed out.",
        )


def keep_failed(
    output: Path, staged: Path, manifest: Manifest, made: Sequence[OnnxArtifact], parity: FileRecord
) -> Path:
    """Move what was staged beside the bundle's folder, in place of an earlier failed export.

    Args:
        output: The bundle's folder.
        staged: From :func:`~riformer_deploy.bundle.writing.staging`.
        manifest: Of the bundle that was to be.
        made: Those of its graphs that are staged; what it would have kept of an earlier bundle stays there.
        parity: The parity report, staged.

    Returns:
        The folder.

    Raises:
        BundleError: It cannot be written.
    """
    folder = _failed_folder(output)
    held = dataclasses.replace(manifest, onnx=tuple(made), engines=(), results={"parity": parity})
    if held.samples is not None and not (staged / held.samples.path).exists():
        held = dataclasses.replace(held, samples=None)  # an earlier export's, which stay in its bundle
    try:
        (staged / FAILED_MANIFEST).write_text(dump_json(held), encoding="utf-8")
        check_failed_target(output)
        if folder.exists():
            shutil.rmtree(folder)
        mask = os.umask(0)
        os.umask(mask)
        staged.chmod(0o777 & ~mask)
        staged.rename(folder)
    except OSError as err:
        raise BundleError(f"The failed export cannot be kept in {folder}: {err}") from err
    return folder
