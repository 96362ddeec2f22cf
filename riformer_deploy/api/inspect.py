"""`inspect`: what a file is, be it a checkpoint, an ONNX graph, an engine, or a bundle.

PyTorch is imported for a checkpoint alone, and ``onnx`` for an ONNX file alone.
"""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.api.inspect_bundle import inspect_bundle
from riformer_deploy.api.inspections import (
    BundleInspection,
    CheckpointInspection,
    EngineInspection,
    EngineParity,
    Inspection,
    OnnxInspection,
    ShippedArtifact,
)
from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.store import is_bundle
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import CheckpointUnreadableError, OptionError

__all__ = [
    "BundleInspection",
    "CheckpointInspection",
    "EngineInspection",
    "EngineParity",
    "Inspection",
    "OnnxInspection",
    "ShippedArtifact",
    "inspect_file",
]

_PLANS = {".engine", ".plan", ".trt"}
"""What people call plan files; those of bundles are ``.engine``."""


def inspect_file(
    path: Path | str,
    *,
    weights: WeightSet | None = None,
    key: str | None = None,
    config: Path | str | None = None,
) -> Inspection:
    """Say what a file or folder is.

    Args:
        path: A checkpoint, an ONNX file, a bundle's engine, a bundle's folder or its ``bundle.json``.
        weights: Which set to look at where a checkpoint holds two.
        key: Which RIFormer to look at where a checkpoint holds several.
        config: mmengine's config file of a checkpoint.

    Raises:
        CheckpointError: It looks like a checkpoint and is not usable.
        BundleError: It is a folder and not a bundle, or an engine that the bundle around it does not list.
        RuntimeFailureError: It looks like ONNX and is not valid.
        OptionError: ``weights``, ``key`` or ``config`` is given and it is no checkpoint, or the config
            cannot be read.
    """
    path = Path(path)
    try:
        folder, there = path.is_dir(), path.exists()
    except OSError as err:  # a name that the system refuses
        raise CheckpointUnreadableError(f"{path} cannot be read: {err.strerror}") from err
    if not there:
        raise CheckpointUnreadableError(f"There is no file {path}.")
    if folder and not is_bundle(path) and any(path.glob("*.safetensors")):
        return _checkpoint(path, weights, key, config)
    inspection: Inspection
    if folder or path.name == MANIFEST:
        inspection = inspect_bundle(path if folder else path.parent)
    elif path.suffix.lower() in _PLANS:
        from riformer_deploy.api.inspect_engine import inspect_engine

        inspection = inspect_engine(path)
    elif path.suffix.lower() == ".onnx":
        from riformer_deploy.api.inspect_onnx import inspect_onnx

        inspection = inspect_onnx(path)
    else:
        return _checkpoint(path, weights, key, config)
    if any(choice is not None for choice in (weights, key, config)):
        raise OptionError(f"--weights, --key and --config are for checkpoints; {path} is none.")
    return inspection


def _checkpoint(
    path: Path, weights: WeightSet | None, key: str | None, config: Path | str | None
) -> CheckpointInspection:
    from riformer_deploy.api.inspect_checkpoint import inspect_checkpoint

    return inspect_checkpoint(path, weights, key, config)
