"""Engines as tables, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .output import print_table, say

if TYPE_CHECKING:
    from riformer_deploy.api.build import BuildReport
    from riformer_deploy.api.inspect import EngineInspection, EngineParity


def print_build(report: BuildReport) -> None:
    """What was built, for which GPUs and batch sizes."""
    print_table(
        f"Engines of {report.bundle}",
        ("engine", "backend", "for compute capability", "batches", ">MiB", ">seconds", "sha256"),
        [
            (
                engine.file.path,
                f"{engine.metadata.backend.label} {engine.metadata.backend_version}",
                engine.targets,
                ", ".join(map(str, engine.metadata.profiles)),
                f"{engine.file.size_bytes / 2**20:.2f}",
                f"{engine.metadata.build_ms / 1000:.1f}",
                engine.file.sha256[:16],
            )
            for engine in report.engines
        ],
    )
    say("Prove them with `riformer-deploy verify parity`, on a machine with the GPU that they are for.")


def parity_text(parity: EngineParity | None) -> str:
    """Whether an engine is proven, where and when, in words."""
    if parity is None:
        return "NOT proven: run verify parity on its GPU"
    return f"{parity.status} on {' and '.join(parity.gpus) or 'an unknown GPU'}, {parity.created_utc}"


def print_engine(found: EngineInspection) -> None:
    """An engine's metadata, and whether it runs here."""
    engine, metadata = found.artifact, found.artifact.metadata
    settings = metadata.settings
    layers = ", ".join(f"{count} {kind}" for kind, count in metadata.network_layers.items())
    limits = {"workspace": settings.workspace_bytes, "optimisation level": settings.optimization_level}
    rows = [
        (
            "backend",
            f"{metadata.backend.label} {metadata.backend_version}, CUDA {metadata.backend_cuda or '?'}",
        ),
        ("precision", str(engine.precision)),
        *((f"input {spec.name}", f"{spec.dtype} {list(spec.shape)}") for spec in engine.inputs),
        *((f"output {spec.name}", f"{spec.dtype} {list(spec.shape)}") for spec in engine.outputs),
        ("batches (MIN:OPT:MAX)", ", ".join(map(str, metadata.profiles))),
        ("built on", f"{metadata.gpu or 'no GPU'}, driver's CUDA {metadata.driver_cuda or '-'}"),
        ("driver", metadata.driver_version or "not known"),
        ("for compute capability", engine.targets),
        ("hardware compatibility", str(settings.hardware_compatibility)),
        ("TF32", "allowed" if settings.tf32 else "no"),
        ("refittable", "yes" if settings.refittable else "no"),
        ("version-compatible", "yes" if settings.version_compatible else "no"),
        *((name, "the backend's own" if value is None else str(value)) for name, value in limits.items()),
        ("layers of the network", f"{sum(metadata.network_layers.values())}: {layers}"),
        (
            "layers of the engine",
            "not known: no GPU" if metadata.engine_layers is None else str(metadata.engine_layers),
        ),
        ("build time", f"{metadata.build_ms / 1000:.1f} s"),
        ("size", f"{engine.file.size_bytes / 2**20:.2f} MiB"),
        ("ONNX sha256", metadata.onnx_sha256),
        ("weights sha256", metadata.weights_sha256),
        ("log", f"{engine.log.path}, sha256 {engine.log.sha256}"),
        ("sha256", engine.file.sha256),
        ("parity", parity_text(found.parity)),
        ("preflight here", "passed" if found.fits else "failed"),
    ]
    print_table(f"Engine {found.path}", ("", ""), rows)
    for finding in found.findings:
        say(f"does not fit: {finding.problem} {finding.remedy}")
