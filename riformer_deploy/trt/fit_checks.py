"""What keeps an engine from running on a machine, one check a cause; nothing here loads TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from riformer_deploy.bundle.engine_metadata import (
    FP8_CAPABILITY,
    EngineArtifact,
    EngineMetadata,
    TensorRTFlavor,
    has_precision,
)
from riformer_deploy.bundle.rtx_support import major_minor, rtx_support
from riformer_deploy.common.dependencies import PACKAGES
from riformer_deploy.common.enums import HardwareCompatibility
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.system.cuda_driver import Driver, Gpu
from riformer_deploy.trt.invalidity import elsewhere, rebuild
from riformer_deploy.trt.mismatch import Mismatch

_CROSS_MAJOR = {(8, 10), (10, 11)}
"""Major versions of TensorRT whose version-compatible engines a later one loads (its support matrix)."""
_AMPERE = (8, 0)
_OTHER_PRECISION = "Build the int8 or the fp16 model for this GPU."


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a machine offers to engines.

    Attributes:
        versions: Installed version of each backend, or None.
        driver: The NVIDIA driver and its GPUs; the first one runs engines.
    """

    versions: Mapping[TensorRTFlavor, str | None]
    driver: Driver


def check_file(artifact: EngineArtifact, path: Path) -> list[Mismatch]:
    """Whether a file is the one that was built.

    Args:
        artifact: The engine.
        path: The file.
    """
    record = artifact.file
    remedy = f"Restore it. {rebuild(artifact)} if it is lost."
    try:
        size = path.stat().st_size
        if size != record.size_bytes:
            how = "truncated" if size < record.size_bytes else "too long"
            text = f"{path} is {how}: {size} bytes, {record.size_bytes} were written."
            return [Mismatch(problem=text, remedy=remedy)]
        found = sha256_of(path)
    except OSError as err:
        return [Mismatch(problem=f"{path} cannot be read: {err.strerror}.", remedy=remedy)]
    if found != record.sha256:
        text = f"{path} was altered: its sha256 is {found}, expected {record.sha256}."
        return [Mismatch(problem=text, remedy=remedy)]
    return []


def _same(here: str, built: str) -> bool:
    """Whether two versions are one; a package may be released again without its libraries (``.post1``)."""
    try:
        return Version(here).release == Version(built).release
    except InvalidVersion:
        return here == built


def check_version(artifact: EngineArtifact, host: Host) -> list[Mismatch]:
    """Whether the installed backend loads an engine of its builder's version.

    Args:
        artifact: The engine.
        host: The machine.
    """
    metadata = artifact.metadata
    backend, built = metadata.backend, metadata.backend_version
    here = host.versions.get(backend)
    install = f'Run: pip install "{PACKAGES[backend.module].distributions[0]}=={built}"'
    if here is None:
        return [Mismatch(problem=f"{backend.label} is not installed.", remedy=f"{install}.")]
    if _same(here, built):
        return []
    problem = f"it was built by {backend.label} {built}; {here} is installed."
    remedy = f"{rebuild(artifact)}, or: {install.removeprefix('Run: ')}."
    if not metadata.settings.version_compatible:
        return [Mismatch(problem=problem, remedy=remedy)]
    try:
        old, new = Version(built), Version(here)
    except InvalidVersion:
        return [Mismatch(problem=problem, remedy=remedy)]
    if new >= old and (new.major == old.major or (old.major, new.major) in _CROSS_MAJOR):
        return []
    return [
        Mismatch(problem=f"{problem} Version-compatible engines run on newer versions only.", remedy=remedy)
    ]


def _runs_on(metadata: EngineMetadata, capability: str) -> bool:
    """Whether the engine runs on a GPU of this compute capability."""
    if metadata.backend is TensorRTFlavor.TENSORRT_RTX:
        support, targets = rtx_support(metadata.backend_version), metadata.settings.compute_capabilities
        if support is not None and not support.supports(capability):
            return False
        if metadata.for_current_gpu:
            return capability == metadata.gpu_compute_capability
        if targets:
            return capability in targets
        return support is None or support.runs_by_default(capability)
    if metadata.settings.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS:
        return major_minor(capability) >= _AMPERE
    return capability == metadata.gpu_compute_capability


def _other_gpu(artifact: EngineArtifact, gpu: Gpu) -> Mismatch:
    """What helps where an engine is not for this GPU: another build, if any build of it can run here."""
    metadata, here = artifact.metadata, gpu.compute_capability
    problem = f"it is for compute capability {metadata.targets}; {gpu.name} has {here}"
    by_rtx, can = metadata.backend is TensorRTFlavor.TENSORRT_RTX, has_precision(here, artifact.precision)
    support = rtx_support(metadata.backend_version) if by_rtx else None
    if support is not None and not support.supports(here):
        label = f"{metadata.backend.label} {metadata.backend_version}"
        return Mismatch(
            problem=f"{problem}, which {label} does not support.",
            remedy=elsewhere(artifact) if can else "Take the bundle to another GPU.",
        )
    if not can:
        return Mismatch(problem=f"{problem}.", remedy=_OTHER_PRECISION)
    if not by_rtx:
        return Mismatch(problem=f"{problem}.", remedy=f"{rebuild(artifact)} on this GPU.")
    ways = []
    if support is None or here in support.named:
        ways.append(f"with --compute-capability {here}")
    if support is None or support.runs_by_default(here):
        ways.append("without --compute-capability")
    return Mismatch(problem=f"{problem}.", remedy=f"{rebuild(artifact)} {', or '.join(ways)}.")


def check_gpu(artifact: EngineArtifact, host: Host) -> list[Mismatch]:
    """Whether there is a GPU that the engine was built for, with a driver that its libraries can use.

    Args:
        artifact: The engine.
        host: The machine.
    """
    metadata, driver = artifact.metadata, host.driver
    if not driver.gpus:
        return [
            Mismatch(
                problem=f"there is no NVIDIA GPU to run on: {driver.problem}.",
                remedy="Take the bundle to a machine with a GPU.",
            )
        ]
    findings = []
    gpu = driver.gpus[0]
    if not _runs_on(metadata, gpu.compute_capability):
        findings.append(_other_gpu(artifact, gpu))
    needed = metadata.backend_cuda
    if (
        needed is not None
        and driver.cuda_version is not None
        and major_minor(driver.cuda_version)[0] < needed
    ):
        findings.append(
            Mismatch(
                problem=f"its libraries need CUDA {needed}; the driver supports {driver.cuda_version}.",
                remedy=f"Install a driver for CUDA {needed} or newer.",
            )
        )
    return findings


def check_precision(artifact: EngineArtifact, host: Host) -> list[Mismatch]:
    """Whether the GPU computes in an engine's precision; that there is no GPU is found by :func:`check_gpu`.

    Args:
        artifact: The engine.
        host: The machine.
    """
    return [
        Mismatch(
            problem=f"it computes in {artifact.precision}, which needs compute capability {FP8_CAPABILITY} "
            f"or later; {gpu.name} has {gpu.compute_capability}.",
            remedy=_OTHER_PRECISION,
        )
        for gpu in host.driver.gpus[:1]
        if not has_precision(gpu.compute_capability, artifact.precision)
    ]


def check_batch(artifact: EngineArtifact, batch: int) -> list[Mismatch]:
    """Whether an engine takes a batch size.

    Args:
        artifact: The engine.
        batch: The size.
    """
    metadata = artifact.metadata
    if metadata.profile_of(batch) is not None:
        return []
    profiles = ", ".join(map(str, metadata.profiles))
    return [
        Mismatch(
            problem=f"it does not take batch {batch}: its profiles are {profiles} (MIN:OPT:MAX).",
            remedy=f"{rebuild(artifact)} with a --profile that holds {batch}.",
        )
    ]
