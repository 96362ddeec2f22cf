"""What a file is: a checkpoint, an ONNX graph, an engine, or a bundle."""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.api.inspect_bundle import BundleInspection, inspect_bundle
from riformer_deploy.api.inspect_checkpoint import CheckpointInspection, inspect_checkpoint
from riformer_deploy.api.inspect_engine import EngineInspection, EngineParity, inspect_engine
from riformer_deploy.api.inspect_onnx import OnnxInspection, inspect_onnx
from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.common.errors import CheckpointUnreadableError

__all__ = [
    "BundleInspection",
    "CheckpointInspection",
    "EngineInspection",
    "EngineParity",
    "Inspection",
    "OnnxInspection",
    "inspect_file",
]

_PLANS = {".engine", ".plan", ".trt"}
"""What people call plan files; those of bundles are ``.engine``."""

Inspection = CheckpointInspection | OnnxInspection | BundleInspection | EngineInspection


def inspect_file(path: Path | str) -> Inspection:
    """Say what a file or folder is.

    Args:
        path: A checkpoint, an ONNX file, a bundle's engine, a bundle's folder or its ``bundle.json``.

    Raises:
        CheckpointError: It looks like a checkpoint and is not usable.
        BundleError: It is a folder and not a bundle, or an engine that the bundle around it does not list.
        RuntimeFailureError: It looks like ONNX and is not valid.
    """
    path = Path(path)
    try:
        folder, there = path.is_dir(), path.exists()
    except OSError as err:  # a name that the system refuses
        raise CheckpointUnreadableError(f"{path} cannot be read: {err.strerror}") from err
    if not there:
        raise CheckpointUnreadableError(f"There is no file {path}.")
    if folder:
        return inspect_bundle(path)
    if path.name == MANIFEST:
        return inspect_bundle(path.parent)
    if path.suffix.lower() in _PLANS:
        return inspect_engine(path)
    if path.suffix.lower() == ".onnx":
        return inspect_onnx(path)
    return inspect_checkpoint(path)
