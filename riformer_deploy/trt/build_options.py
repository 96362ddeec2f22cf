"""What is to be built, by whom, and of which graphs: settled before the builder starts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.engine_metadata import (
    CURRENT,
    FP8_CAPABILITY,
    BatchProfile,
    BuildSettings,
    TensorRTFlavor,
    has_precision,
)
from riformer_deploy.bundle.rtx_support import rtx_support
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import PACKAGES, installed_version
from riformer_deploy.common.enums import HardwareCompatibility, Precision
from riformer_deploy.common.errors import MissingDependencyError, OptionError, RuntimeFailureError
from riformer_deploy.system.cuda_driver import Driver

DEFAULT_PROFILE = BatchProfile(minimum=1, optimum=8, maximum=32)
"""Batch sizes of an engine whose graph takes any, where none were asked for."""


_MOST_VALUES = 2**31
"""TensorRT counts the values of a tensor in 32 bits."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to build, and how.

    Attributes:
        precisions: Of the bundle's graphs; none means all of them.
        backend: The flavor; None takes TensorRT where it is installed and there is a GPU, else TensorRT-RTX.
        profiles: Batch sizes of each optimisation profile; none means 1:8:32.
        image_size_px: Height and width that the graph must have; None takes what it has.
        settings: How.
        timing_cache: File of kernel timings, read if it exists and written anew; TensorRT only.
    """

    precisions: tuple[Precision, ...] = ()
    backend: TensorRTFlavor | None = None
    profiles: tuple[BatchProfile, ...] = ()
    image_size_px: tuple[int, int] | None = None
    settings: BuildSettings = dataclasses.field(default_factory=BuildSettings)
    timing_cache: Path | str | None = None

    def __post_init__(self) -> None:
        settings = self.settings
        problems = []
        if len(set(self.precisions)) != len(self.precisions):
            problems.append("each precision can be asked for once")
        if settings.workspace_bytes is not None and settings.workspace_bytes < 1:
            problems.append(f"the workspace must be positive, got {settings.workspace_bytes} bytes")
        if settings.optimization_level is not None and not 0 <= settings.optimization_level <= 5:
            problems.append(f"the optimisation level is 0 to 5, got {settings.optimization_level}")
        if len(set(settings.compute_capabilities)) != len(settings.compute_capabilities):
            problems.append("each compute capability can be asked for once")
        if CURRENT in settings.compute_capabilities and len(settings.compute_capabilities) > 1:
            problems.append(f"the compute capability {CURRENT} stands alone: it is this GPU's only")
        if problems:
            raise OptionError("The engine cannot be built as asked.", details=problems)


def choose_backend(wanted: TensorRTFlavor | None, driver: Driver) -> TensorRTFlavor:
    """The flavor to build with.

    Args:
        wanted: What was asked for, or None.
        driver: This machine's.

    Raises:
        MissingDependencyError: It is not installed.
        RuntimeFailureError: TensorRT was asked for and there is no GPU, which it cannot build without.
    """
    usable = bool(driver.gpus)
    if wanted is None:
        if usable and installed_version(TensorRTFlavor.TENSORRT.module) is not None:
            return TensorRTFlavor.TENSORRT
        if installed_version(TensorRTFlavor.TENSORRT_RTX.module) is not None:
            return TensorRTFlavor.TENSORRT_RTX
        choice = PACKAGES[TensorRTFlavor.TENSORRT_RTX.module].install_command
        also = (
            f", or, for this GPU alone: {PACKAGES[TensorRTFlavor.TENSORRT.module].install_command}"
            if usable
            else ""
        )
        raise MissingDependencyError("No TensorRT is installed.", remedy=f"Run: {choice}{also}")
    if wanted is TensorRTFlavor.TENSORRT and not usable:
        raise RuntimeFailureError(
            f"TensorRT builds on a GPU only, and {driver.problem}.",
            remedy="Use --backend tensorrt-rtx, which builds without one, or a machine with a GPU.",
        )
    return wanted


def refuse_unfit(options: BuildOptions, backend: TensorRTFlavor) -> None:
    """Refuse options that a flavor has no use for.

    Args:
        options: What was asked for.
        backend: The flavor.

    Raises:
        OptionError: There are some; each is listed.
    """
    settings = options.settings
    problems = []
    if backend is TensorRTFlavor.TENSORRT_RTX:
        if settings.hardware_compatibility is not HardwareCompatibility.NONE:
            problems.append("--hardware-compat: say --compute-capability, or nothing for its own choice")
        if options.timing_cache is not None:
            problems.append("--timing-cache: it times no kernels when it builds")
    elif settings.compute_capabilities:
        problems.append("--compute-capability: it builds for the GPU that it runs on; see --hardware-compat")
    if problems:
        raise OptionError(f"{backend.label} has no use for these options.", details=problems)


def refuse_precisions(
    graphs: Sequence[OnnxArtifact], settings: BuildSettings, capability: str | None = None
) -> None:
    """Refuse precisions that GPUs lack which engines are to run on.

    Args:
        graphs: What is to be built.
        settings: How.
        capability: Compute capability of the GPU that TensorRT would build on, where that is known.

    Raises:
        OptionError: There are some; each is listed.
    """
    named = [item for item in settings.compute_capabilities if re.fullmatch(r"[0-9]+\.[0-9]+", item)]
    places = {f"--compute-capability {item}": item for item in named}
    if settings.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS:
        places["--hardware-compat ampere-plus"] = "8.0"
    if capability is not None:
        places[f"this GPU, of compute capability {capability}"] = capability
    precisions = dict.fromkeys(graph.precision for graph in graphs)
    problems = [
        f"{precision}: {place}"
        for precision in precisions
        for place, least in places.items()
        if not has_precision(least, precision)
    ]
    if problems:
        raise OptionError(
            f"{Precision.FP8} needs compute capability {FP8_CAPABILITY} or later.",
            details=problems,
            remedy="Name newer GPUs only, or other precisions with --precision.",
        )


def require_gpu_at_hand(options: BuildOptions, driver: Driver) -> None:
    """Refuse to build for the GPU at hand where there is none: the builder would give no plan.

    Args:
        options: What was asked for.
        driver: This machine's.

    Raises:
        RuntimeFailureError: There is no GPU.
    """
    if CURRENT in options.settings.compute_capabilities and not driver.gpus:
        raise RuntimeFailureError(
            f"--compute-capability {CURRENT} builds for the GPU of this machine, and {driver.problem}.",
            remedy="Name some, such as 8.9, leave the option out, or use a machine with a GPU.",
        )


def unsupported_gpu(backend: TensorRTFlavor, version: str, driver: Driver) -> str | None:
    """Why engines will not run on the machine that builds them, where that is known; else None.

    Args:
        backend: The flavor.
        version: Its version.
        driver: This machine's.
    """
    support = rtx_support(version) if backend is TensorRTFlavor.TENSORRT_RTX else None
    if support is None or not driver.gpus or support.supports(driver.gpus[0].compute_capability):
        return None
    gpu = driver.gpus[0]
    return (
        f"The engines will not run on this machine: {backend.label} {version} does not support compute "
        f"capability {gpu.compute_capability} ({gpu.name}). "
        f"Use --backend {TensorRTFlavor.TENSORRT} for this GPU."
    )


def graphs_of(bundle: Bundle, options: BuildOptions) -> list[OnnxArtifact]:
    """The graphs to build.

    Args:
        bundle: Holds the graphs.
        options: What was asked for.

    Raises:
        OptionError: The bundle has none of that precision or size.
    """
    held = {artifact.precision: artifact for artifact in bundle.manifest.onnx}
    missing = [precision for precision in options.precisions if precision not in held]
    if missing:
        raise OptionError(
            f"The bundle {bundle.directory} holds no {', '.join(missing)} model, only {', '.join(held)}.",
            remedy=f"Export it first: riformer-deploy export CKPT --precision {missing[0]}.",
        )
    size = bundle.manifest.model.preprocessing.crop_px
    if options.image_size_px is not None and options.image_size_px != size:
        raise OptionError(
            f"The graphs of {bundle.directory} take images of {size[0]}x{size[1]} px, not "
            f"{options.image_size_px[0]}x{options.image_size_px[1]}.",
            remedy="Export the checkpoint with this --image-size into another bundle.",
        )
    return [held[precision] for precision in options.precisions] or list(held.values())


def profiles_of(artifact: OnnxArtifact, wanted: tuple[BatchProfile, ...]) -> tuple[BatchProfile, ...]:
    """The optimisation profiles of a graph's engine.

    Args:
        artifact: The graph.
        wanted: What was asked for; none means the default.

    Raises:
        OptionError: The graph has a fixed batch that is not the one asked for, or a batch is too large.
    """
    if artifact.batch is None:
        sample = prod(int(size) for size in artifact.inputs[0].shape[1:])
        if huge := [profile for profile in wanted if profile.maximum * sample >= _MOST_VALUES]:
            raise OptionError(
                f"A batch of {huge[0].maximum} is more than an engine takes: its input would have "
                f"{huge[0].maximum * sample} values, and 2^31 is the limit.",
                remedy="Choose a smaller MAX.",
            )
        return wanted or (DEFAULT_PROFILE,)
    fixed = BatchProfile(minimum=artifact.batch, optimum=artifact.batch, maximum=artifact.batch)
    if wanted not in ((), (fixed,)):
        raise OptionError(
            f"{artifact.file.path} has a fixed batch of {artifact.batch}; "
            f"{', '.join(map(str, wanted))} is no profile of it.",
            remedy="Export it with --batch dynamic, or leave --profile out.",
        )
    return (fixed,)
