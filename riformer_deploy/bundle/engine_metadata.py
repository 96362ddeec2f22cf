"""TensorRT engines as records: what each was built from, with, and for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from riformer_deploy.bundle.artifacts import FileRecord, TensorSpec
from riformer_deploy.bundle.rtx_support import major_minor, rtx_support
from riformer_deploy.common.enums import HardwareCompatibility, Precision

CURRENT = "current"
"""In place of compute capabilities: that of the GPU that builds."""
FP8_CAPABILITY = "8.9"
"""The least compute capability that has FP8: Ada, then Hopper (9.0) and Blackwell."""


def has_precision(capability: str, precision: Precision) -> bool:
    """Whether GPUs of a compute capability (``8.6``) compute in a precision."""
    return precision is not Precision.FP8 or major_minor(capability) >= major_minor(FP8_CAPABILITY)


class TensorRTFlavor(StrEnum):
    """The flavor of TensorRT."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"

    @property
    def module(self) -> str:
        """Name of its Python module."""
        return self.value.replace("-", "_")

    @property
    def label(self) -> str:
        """What people call it."""
        return "TensorRT-RTX" if self is TensorRTFlavor.TENSORRT_RTX else "TensorRT"


@dataclass(frozen=True, kw_only=True)
class BatchProfile:
    """Batch sizes of one optimisation profile.

    Attributes:
        minimum: The smallest that the engine takes.
        optimum: The one that it is tuned for.
        maximum: The largest that it takes.
    """

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise ValueError(f"a profile is 1 <= MIN <= OPT <= MAX, got {self}")

    def __str__(self) -> str:
        return f"{self.minimum}:{self.optimum}:{self.maximum}"

    def holds(self, batch: int) -> bool:
        """Whether the engine takes this batch size."""
        return self.minimum <= batch <= self.maximum


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How an engine was built.

    Attributes:
        workspace_bytes: Most scratch memory that a layer may use; None is the backend's own limit.
        optimization_level: 0 to 5; None is the backend's own.
        tf32: Whether float32 convolutions may be computed in TF32 (10 bits of mantissa).
        refittable: Whether its weights can be replaced.
        version_compatible: Whether newer versions of the backend load it.
        hardware_compatibility: Which other GPUs run it (TensorRT).
        compute_capabilities: Those that it was built for, such as ``8.9`` (TensorRT-RTX), or ``current``
            alone: that of the GPU that built it; none means the backend's own choice.
    """

    workspace_bytes: int | None = None
    optimization_level: int | None = None
    tf32: bool = False
    refittable: bool = False
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    compute_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineMetadata:
    """Where an engine comes from and where it may go.

    Attributes:
        backend: The flavor of TensorRT.
        backend_version: Its exact version.
        backend_cuda: Major version of CUDA that its libraries were made for, or None where not known.
        onnx_sha256: Of the graph.
        weights_sha256: Of the weights, over names, shapes and float32 values.
        driver_cuda: Newest CUDA of the driver that was present, or None.
        gpu: Name of the GPU that it was built on, or None.
        gpu_compute_capability: Its compute capability, or None.
        profiles: Batch sizes of each optimisation profile; one of MIN = OPT = MAX for a static graph.
        settings: How it was built.
        build_ms: Duration of the builder's call.
        network_layers: Layers of the parsed network by the type of their first output.
        engine_layers: Number of layers after fusion, where a GPU was there to ask the engine.
        driver_version: The driver's own, where NVML says it.
    """

    backend: TensorRTFlavor
    backend_version: str
    backend_cuda: int | None
    onnx_sha256: str
    weights_sha256: str
    driver_cuda: str | None
    gpu: str | None
    gpu_compute_capability: str | None
    profiles: tuple[BatchProfile, ...]
    settings: BuildSettings
    build_ms: float
    network_layers: dict[str, int]
    engine_layers: int | None
    driver_version: str | None = None

    def __post_init__(self) -> None:
        if not self.profiles:
            raise ValueError("an engine has at least one profile")

    @property
    def for_current_gpu(self) -> bool:
        """Whether TensorRT-RTX built it for the GPU at hand."""
        return CURRENT in self.settings.compute_capabilities

    @property
    def targets(self) -> str:
        """The compute capabilities that it runs on, in words."""
        named = self.settings.compute_capabilities
        if named and not self.for_current_gpu:
            return ", ".join(named)
        if self.settings.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS:
            return "8.0 and later"
        if self.backend is TensorRTFlavor.TENSORRT_RTX and not named:
            support = rtx_support(self.backend_version)
            return "of its builder's own choice" if support is None else str(support)
        return self.gpu_compute_capability or "of an unknown GPU"

    @property
    def span(self) -> BatchProfile:
        """The batch sizes of all profiles together: smallest, tuned for, largest."""
        return BatchProfile(
            minimum=min(profile.minimum for profile in self.profiles),
            optimum=self.profiles[0].optimum,
            maximum=max(profile.maximum for profile in self.profiles),
        )

    def profile_of(self, batch: int) -> int | None:
        """Number of the profile for a batch size: of those that hold it, the one tuned nearest to it."""
        fitting = [number for number, profile in enumerate(self.profiles) if profile.holds(batch)]
        return min(fitting, key=lambda number: abs(self.profiles[number].optimum - batch), default=None)


@dataclass(frozen=True, kw_only=True)
class EngineArtifact:
    """An engine: a plain plan file.

    Attributes:
        file: The ``.engine`` file; its parent is the ONNX file.
        precision: What the graph computes in.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        metadata: Where it comes from and where it may go.
        log: What the builder said.
        layers: The inspector's account of every layer, where a GPU was there to ask the engine.
    """

    file: FileRecord
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: EngineMetadata
    log: FileRecord
    layers: FileRecord | None = None

    def __post_init__(self) -> None:
        if self.file.parent_sha256 != self.metadata.onnx_sha256:
            raise ValueError(f"{self.file.path} has the engine metadata of another graph's engine")

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.metadata.backend.label} {self.precision}"

    @property
    def targets(self) -> str:
        """The compute capabilities that it runs on, in words: of its metadata's, those with its precision."""
        targets, chosen = self.metadata.targets, self.metadata.settings.compute_capabilities
        if self.precision is not Precision.FP8 or self.metadata.backend is TensorRTFlavor.TENSORRT or chosen:
            return targets
        return f"{targets}, in {self.precision} from {FP8_CAPABILITY}"

    @property
    def parity_kind(self) -> str:
        """Kind of the result that holds its parity, which is measured on its GPU and kept when others are."""
        return f"{self.file.path.removesuffix('.engine')}.parity"

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Its files, the engine first."""
        return (self.file, self.log) if self.layers is None else (self.file, self.log, self.layers)
