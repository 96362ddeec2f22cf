"""`inspect`: what a file is, be it a checkpoint, an ONNX graph, an engine, or a bundle.

PyTorch is imported for a checkpoint alone, and ``onnx`` for an ONNX file alone.
"""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.api.inspect_bundle import inspect_bundle, inspect_engine
from riformer_deploy.api.inspections import (
    BundleInspection,
    CheckpointInspection,
    EngineInspection,
    EngineParity,
    Inspection,
    OnnxInspection,
)
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
        from riformer_deploy.api.inspect_onnx import inspect_onnx

        return inspect_onnx(path)
    from riformer_deploy.api.inspect_checkpoint import inspect_checkpoint

    return inspect_checkpoint(path)
