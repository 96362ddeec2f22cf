"""Whether engines of a flavor load on this GPU: every way of naming the target, with the exact errors."""

from __future__ import annotations

import shutil
from pathlib import Path

from riformer_deploy.api.build import BatchProfile, BuildOptions, BuildSettings, TensorRTFlavor, build_engines
from riformer_deploy.backends.cuda.opening import open_device
from riformer_deploy.backends.tensorrt import EngineRuntime

# Internals: loading is tried step by step, with each step's error.
from riformer_deploy.bundle.engine_metadata import CURRENT
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import DeviceLayer, Precision
from riformer_deploy.common.errors import RIFormerDeployError
from riformer_deploy.common.serialization import JsonValue
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.trt.bindings import load
from riformer_deploy.trt.preflight import preflight_here


def targets_tried(backend: TensorRTFlavor) -> tuple[tuple[str, ...], ...]:
    """The ways of naming targets that are tried: none, and for TensorRT-RTX the GPU at hand."""
    return ((), (CURRENT,)) if backend is TensorRTFlavor.TENSORRT_RTX else ((),)


def try_loading(
    bundle: Path, scratch: Path, backend: TensorRTFlavor, targets: tuple[str, ...]
) -> tuple[dict[str, JsonValue], bool]:
    """Build an engine, ask preflight, and load and run it whatever preflight says.

    Args:
        bundle: Holds a graph in half precision.
        scratch: A folder for the copy that the engine is built into.
        backend: The flavor.
        targets: Compute capabilities to build for; none means the flavor's own choice.

    Returns:
        What happened, and whether the engine ran.
    """
    row: dict[str, JsonValue] = {"backend": str(backend), "targets": list(targets) or "default"}
    copy = Path(shutil.copytree(bundle, scratch / f"loading-{backend}-{'-'.join(targets) or 'default'}"))
    settings = BuildSettings(compute_capabilities=targets)
    profile = BatchProfile(minimum=1, optimum=8, maximum=16)
    options = BuildOptions(
        backend=backend, precisions=(Precision.FP16,), profiles=(profile,), settings=settings
    )
    try:
        (engine,) = build_engines(copy, options).engines
    except RIFormerDeployError as err:
        return row | {"built": False, "error": str(err)}, False
    row |= {"built": True, "size_bytes": engine.file.size_bytes, "build_ms": engine.metadata.build_ms}
    opened = Bundle.open(copy)
    path = opened.path_of(engine.file)
    row["preflight"] = [str(finding) for finding in preflight_here(engine, path)]
    size = opened.manifest.model.preprocessing.crop_px
    try:
        runtime = EngineRuntime(path, engine.metadata, load(backend), open_device(DeviceLayer.CUDA_PYTHON))
        try:
            runtime.run(synthetic_images(1, size, seed=0))
        finally:
            runtime.close()
    except RIFormerDeployError as err:
        return row | {"ran": False, "error": str(err)}, False
    return row | {"ran": True}, True
