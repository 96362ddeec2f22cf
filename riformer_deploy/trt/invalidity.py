"""What to do about an engine that its backend calls invalid (``EngineInvalidityDiagnostics``)."""

from __future__ import annotations

from collections.abc import Mapping

from riformer_deploy.bundle.engine_metadata import EngineArtifact, TensorRTFlavor

REMEDIES: Mapping[str, str] = {
    "CUDA_ERROR": "See whether the GPU works at all: `riformer-deploy doctor`, `nvidia-smi`.",
    "INSUFFICIENT_GPU_MEMORY": "Free memory of the GPU. {rebuild} with a smaller --profile MAX if that is"
    " not enough.",
    # Its file is as it was written, or preflight would not have come to ask: restoring it changes nothing.
    "MALFORMED_ENGINE": "{rebuild}.",
    "OLD_CUDA_DRIVER": "Install a newer NVIDIA driver; `riformer-deploy doctor` says what is there.",
    "OLD_CUDA_RUNTIME": "Install {label} {version} for a newer CUDA.",
    "UNSUPPORTED_CC": "{elsewhere}",
    "VERSION_MISMATCH": "{rebuild}, or install {label} {version}, which built it.",
}
"""By the name of the diagnostic; braces stand for what depends on the engine."""


def rebuild(artifact: EngineArtifact) -> str:
    """The command that builds an engine again, as the beginning of a sentence.

    Args:
        artifact: The engine.
    """
    metadata = artifact.metadata
    return f"Run `riformer-deploy build --precision {artifact.precision} --backend {metadata.backend}` again"


def elsewhere(artifact: EngineArtifact) -> str:
    """The remedy where the backend of an engine does not run on a GPU.

    Args:
        artifact: The engine.
    """
    backend = artifact.metadata.backend
    if backend is TensorRTFlavor.TENSORRT:  # which builds for the GPU at hand
        return f"{rebuild(artifact)} on this GPU."
    return (
        f"{backend.label} does not run on this GPU, whatever it builds. Run `riformer-deploy build "
        f"--precision {artifact.precision} --backend {TensorRTFlavor.TENSORRT}` here, or take the bundle to "
        "another GPU."
    )


def remedy_of(reason: str, artifact: EngineArtifact) -> str:
    """What would make an engine run, by the reason that its backend gives.

    Args:
        reason: Name of the diagnostic; where it is not known, the engine is to be built again.
        artifact: The engine; its file is the one that was built.
    """
    metadata = artifact.metadata
    return REMEDIES.get(reason, "{rebuild}.").format(
        rebuild=rebuild(artifact),
        elsewhere=elsewhere(artifact),
        label=metadata.backend.label,
        version=metadata.backend_version,
    )
