"""Which of a bundle's artifacts Triton runs, how it batches them, and which container can."""

from __future__ import annotations

from collections.abc import Sequence

from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.engine_metadata import EngineArtifact, TensorRTFlavor
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision, RuntimeKind
from riformer_deploy.common.errors import BundleError, BundleIntegrityError
from riformer_deploy.evaluation.latency_sessions import standing_sessions
from riformer_deploy.evaluation.parity_failures import why_failed
from riformer_deploy.evaluation.results import LatencySamples, Timing
from riformer_deploy.evaluation.stored_parity import stored_parity
from riformer_deploy.serving.triton_config import Batching

CONTAINERS = {10: "nvcr.io/nvidia/tritonserver:26.05-py3", 11: "nvcr.io/nvidia/tritonserver:26.06-py3"}
"""The newest container with TensorRT 10, and the first with TensorRT 11."""
_LARGEST_UNMEASURED = 8
_ENOUGH = 0.95
"""A batch is as good as the best one from this share of its images per second on: smaller ones wait less."""


def served_artifact(
    bundle: Bundle, group: Group, precision: Precision | None
) -> OnnxArtifact | EngineArtifact:
    """The artifact that a repository serves.

    Args:
        bundle: Holds it.
        group: ``onnx`` or ``engine``.
        precision: What it computes in; None takes the first that Triton can run.

    Raises:
        BundleError: There is none; every one that was refused is named with the reason.
    """
    of_kind: tuple[OnnxArtifact | EngineArtifact, ...] = (
        bundle.manifest.engines if group is Group.ENGINE else bundle.manifest.onnx
    )
    refused = []
    for artifact in of_kind:
        if precision is not None and artifact.precision is not precision:
            refused.append(f"{artifact.file.path}: computes in {artifact.precision}")
            continue
        problem = _refusal(artifact) or _failed(bundle, artifact)
        if problem is None:
            return artifact
        refused.append(f"{artifact.file.path}: {problem}")
    what = "engine" if group is Group.ENGINE else "ONNX file"
    raise BundleError(
        f"{bundle.directory} holds no {what} that Triton can run"
        + (f" in {precision}." if precision is not None else "."),
        details=refused,
        remedy="Build one with `riformer-deploy build --backend tensorrt`, or say --with onnx."
        if group is Group.ENGINE
        else "Choose another precision, or export one with a dynamic batch.",
    )


def _refusal(artifact: OnnxArtifact | EngineArtifact) -> str | None:
    """Why Triton cannot run an artifact, or None where it can."""
    if isinstance(artifact, OnnxArtifact):
        return _graph_refusal(artifact)
    metadata = artifact.metadata
    if metadata.backend is TensorRTFlavor.TENSORRT_RTX:
        return "Triton has no backend for engines of TensorRT-RTX"
    if metadata.span.minimum > 1:
        return f"takes batches from {metadata.span.minimum} on, and Triton runs single requests"
    if _major(artifact) not in CONTAINERS:
        return f"no container with TensorRT {metadata.backend_version} is known"
    return None


def _graph_refusal(artifact: OnnxArtifact) -> str | None:
    if artifact.precision is Precision.BF16:
        return "ONNX Runtime has no CPU kernels for bfloat16"
    if artifact.batch is not None:
        return f"takes batches of {artifact.batch} only, and Triton puts requests together"
    return None


def _major(engine: EngineArtifact) -> int:
    major = engine.metadata.backend_version.partition(".")[0]
    return int(major) if major.isdigit() else 0


def _failed(bundle: Bundle, artifact: OnnxArtifact | EngineArtifact) -> str | None:
    """How an artifact failed its stored parity, or None where it did not."""
    kind = artifact.parity_kind if isinstance(artifact, EngineArtifact) else "parity"
    parity = stored_parity(bundle, kind)
    for failed in parity.failed if parity is not None else ():
        if failed.judges_file and failed.artifact_sha256 == artifact.file.sha256:
            return f"failed parity: {why_failed(failed)}"
    return None


def container_of(artifact: OnnxArtifact | EngineArtifact) -> tuple[str, tuple[str, ...]]:
    """Triton's image that can run an artifact, and what is to be known of it.

    Args:
        artifact: One that :func:`served_artifact` gave.
    """
    if isinstance(artifact, OnnxArtifact):
        return CONTAINERS[max(CONTAINERS)], ()
    metadata = artifact.metadata
    note = (
        f"The engine was built with TensorRT {metadata.backend_version} for compute capability "
        f"{metadata.targets}."
    )
    if not metadata.settings.version_compatible:
        note += (
            " Only that version loads it: if the container has another of the same major version, build the "
            "engine in the container, or with --version-compatible."
        )
    return CONTAINERS[_major(artifact)], (note,)


def batching_of(bundle: Bundle, artifact: OnnxArtifact | EngineArtifact) -> Batching:
    """Dynamic batching by the bundle's latencies.

    The preferred batch is the smallest whose images per second are as good as the best one's; a request
    waits for others at most half as long as a batch of one takes, since it is served that much later.

    Args:
        bundle: Holds the latencies of ``bench``, or none.
        artifact: What is served.

    Raises:
        BundleIntegrityError: The latencies' file was changed.
    """
    most = artifact.metadata.span.maximum if isinstance(artifact, EngineArtifact) else None
    measured = [item for item in _latencies(bundle, artifact) if most is None or item.batch <= most]
    if not measured:
        return Batching(
            largest=most or _LARGEST_UNMEASURED,
            preferred=(),
            longest_delay_us=0,
            source="without waiting, since the bundle holds no latencies of it (`riformer-deploy bench`)",
        )
    best = max(item.summary.images_per_s for item in measured)
    chosen = min(item.batch for item in measured if item.summary.images_per_s >= _ENOUGH * best)
    shortest_ms = min(item.summary.median_ms for item in measured)
    source = (
        f"by the latencies of {measured[0].name} in the bundle: batches of "
        f"{', '.join(str(item.batch) for item in measured)} were measured"
    )
    largest = most or max(item.batch for item in measured)
    if len(measured) == 1:  # which batch is the best one is not known
        largest = most or max(largest, _LARGEST_UNMEASURED)
        chosen, source = 1, f"without waiting, since one batch size alone was measured ({measured[0].batch})"
    preferred = (chosen,) if chosen > 1 else ()
    return Batching(
        largest=largest,
        preferred=preferred,
        longest_delay_us=int(500 * shortest_ms) if preferred else 0,
        source=source,
    )


def _latencies(bundle: Bundle, artifact: OnnxArtifact | EngineArtifact) -> Sequence[LatencySamples]:
    """Latencies of an artifact, one a batch size; none where they cannot be read: they only tune."""
    try:
        sessions, _ = standing_sessions(bundle)
    except BundleIntegrityError:
        raise
    except BundleError:
        return ()
    found: dict[int, LatencySamples] = {}
    for item in (item for session in sessions for item in session.samples):
        kind = item.config.runtime in {RuntimeKind.ONNX_RUNTIME, RuntimeKind.TENSORRT}
        if kind and item.artifact_sha256 == artifact.file.sha256 and item.timing is Timing.CALL:
            found.setdefault(item.batch, item)
    return [found[batch] for batch in sorted(found)]
