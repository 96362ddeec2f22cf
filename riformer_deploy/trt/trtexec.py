"""The ``trtexec`` command lines that do what ``build`` and ``bench`` do.

The defaults of 10.x and 11.x differ (11.x: strongly typed, CUDA graph on, copies off, spinning while it
waits), so each line spells out what it means. Flags are those that NVIDIA documents for these versions.
"""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings
from riformer_deploy.common.enums import HardwareCompatibility

_COMPATIBILITY = {
    HardwareCompatibility.AMPERE_PLUS: "ampere+",
    HardwareCompatibility.SAME_COMPUTE_CAPABILITY: "sameComputeCapability",
}


class TrtexecVersion(StrEnum):
    """Major versions whose command lines differ."""

    V10 = "10.x"
    V11 = "11.x"


def _shape(graph: OnnxArtifact, batch: int) -> str:
    sizes = (batch, *graph.inputs[0].shape[1:])
    return f"{graph.inputs[0].name}:{'x'.join(map(str, sizes))}"


def _profiles(graph: OnnxArtifact, profiles: tuple[BatchProfile, ...]) -> list[str]:
    if graph.batch is not None:
        return []
    flags = []
    for number, profile in enumerate(profiles):
        flags += [f"--profile={number}"] if len(profiles) > 1 else []
        flags += [
            f"--minShapes={_shape(graph, profile.minimum)}",
            f"--optShapes={_shape(graph, profile.optimum)}",
            f"--maxShapes={_shape(graph, profile.maximum)}",
        ]
    return flags


def plan_name(graph: OnnxArtifact) -> str:
    """The file, in the current folder, that trtexec writes: what it builds has no place in a bundle."""
    return f"model.{graph.precision}.trtexec.plan"


def build_command(
    graph: OnnxArtifact,
    folder: Path,
    profiles: tuple[BatchProfile, ...],
    settings: BuildSettings,
    version: TrtexecVersion,
    timing_cache: Path | str | None = None,
) -> str:
    """The line that builds an engine as ``build --backend tensorrt`` does.

    Args:
        graph: The ONNX model.
        folder: The bundle's.
        profiles: Batch sizes of each optimisation profile.
        settings: How.
        version: Of trtexec.
        timing_cache: The file of kernel timings, if one is used.
    """
    engine = plan_name(graph)
    words = ["trtexec", f"--onnx={folder / graph.file.path}", f"--saveEngine={engine}"]
    words += ["--stronglyTyped"] if version is TrtexecVersion.V10 else []  # 11.x knows nothing else
    words += _profiles(graph, profiles)
    words += [] if settings.tf32 else ["--noTF32"]
    words += ["--refit"] if settings.refittable else []
    words += ["--versionCompatible"] if settings.version_compatible else []
    if settings.hardware_compatibility is not HardwareCompatibility.NONE:
        words.append(f"--hardwareCompatibilityLevel={_COMPATIBILITY[settings.hardware_compatibility]}")
    if settings.optimization_level is not None:
        words.append(f"--builderOptimizationLevel={settings.optimization_level}")
    if settings.workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{settings.workspace_bytes}B")
    if timing_cache is not None:
        words.append(f"--timingCacheFile={timing_cache}")
    words += ["--profilingVerbosity=detailed", "--skipInference"]
    return shlex.join(words)


def bench_command(graph: OnnxArtifact, batch: int, version: TrtexecVersion, *, whole: bool) -> str:
    """The line that times an engine as ``bench`` does.

    Args:
        graph: The ONNX model that it was built from.
        batch: Images per call.
        version: Of trtexec.
        whole: Time calls with copies and without a CUDA graph; otherwise kernels alone, in a CUDA graph.
    """
    engine = plan_name(graph)
    words = ["trtexec", f"--loadEngine={engine}"]
    words += [] if graph.batch is not None else [f"--shapes={_shape(graph, batch)}"]
    match version:
        case TrtexecVersion.V10:
            words += [] if whole else ["--useCudaGraph", "--noDataTransfers", "--useSpinWait"]
        case TrtexecVersion.V11:
            words += ["--noCudaGraph", "--includeDataTransfers", "--noSpinWait"] if whole else []
        case _:
            assert_never(version)
    words += ["--warmUp=500", "--duration=10", "--percentile=90,95,99"]
    return shlex.join(words)


def _why(version: TrtexecVersion, default: TrtexecVersion) -> str:
    """What to add where a version has no flag for it, because it is what it does anyway."""
    return f" ({version}'s own defaults: it has no flags that say so)" if version is default else ""


def command_lines(
    graph: OnnxArtifact,
    folder: Path,
    profiles: tuple[BatchProfile, ...],
    settings: BuildSettings,
    timing_cache: Path | str | None = None,
) -> tuple[str, ...]:
    """Every line for one graph, for both versions, with a comment before each.

    Args:
        graph: The ONNX model.
        folder: The bundle's.
        profiles: Batch sizes of each optimisation profile.
        settings: How it is built.
        timing_cache: The file of kernel timings, if one is used.
    """
    lines: list[str] = []
    batch = profiles[0].optimum
    for version in TrtexecVersion:
        plain = {v: _why(version, v) for v in TrtexecVersion}
        kernels = f"kernels alone, CUDA graph, spinning, batch {batch}{plain[TrtexecVersion.V11]}"
        calls = f"whole calls, copies, no graph, no spinning, batch {batch}{plain[TrtexecVersion.V10]}"
        lines += [
            f"# TensorRT {version}: build {graph.precision}",
            build_command(graph, folder, profiles, settings, version, timing_cache),
            f"# TensorRT {version}: time {kernels}",
            bench_command(graph, batch, version, whole=False),
            f"# TensorRT {version}: time {calls}",
            bench_command(graph, batch, version, whole=True),
        ]
    return tuple(lines)
