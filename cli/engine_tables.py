"""Engines as tables, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .output import print_table, say

if TYPE_CHECKING:
    from riformer_deploy.api.build import BuildReport
    from riformer_deploy.api.inspect import EngineInspection, EngineProof


def print_build(report: BuildReport) -> None:
    """What was built, for which GPUs and batch sizes."""
    print_table(
        f"Engines of {report.bundle}",
        ("engine", "backend", "for compute capability", "batches", ">MiB", ">seconds", "sha256"),
        [
            (
                engine.file.path,
                f"{engine.passport.backend.label} {engine.passport.backend_version}",
                engine.targets,
                ", ".join(map(str, engine.passport.profiles)),
                f"{engine.file.size_bytes / 2**20:.2f}",
                f"{engine.passport.build_ms / 1000:.1f}",
                engine.file.sha256[:16],
            )
            for engine in report.engines
        ],
    )
    say("Prove them with `riformer-deploy verify parity`, on a machine with the GPU that they are for.")


def proof_text(proof: EngineProof | None) -> str:
    """Whether an engine is proven, where and when, in words."""
    if proof is None:
        return "NOT proven: run verify parity on its GPU"
    return f"{proof.status} on {' and '.join(proof.gpus) or 'an unknown GPU'}, {proof.created_utc}"


def print_engine(found: EngineInspection) -> None:
    """An engine's passport, and whether it runs here."""
    engine, passport = found.artifact, found.artifact.passport
    settings = passport.settings
    layers = ", ".join(f"{count} {kind}" for kind, count in passport.network_layers.items())
    limits = {"workspace": settings.workspace_bytes, "optimisation level": settings.optimization_level}
    rows = [
        (
            "backend",
            f"{passport.backend.label} {passport.backend_version}, CUDA {passport.backend_cuda or '?'}",
        ),
        ("precision", str(engine.precision)),
        *((f"input {spec.name}", f"{spec.dtype} {list(spec.shape)}") for spec in engine.inputs),
        *((f"output {spec.name}", f"{spec.dtype} {list(spec.shape)}") for spec in engine.outputs),
        ("batches (MIN:OPT:MAX)", ", ".join(map(str, passport.profiles))),
        ("built on", f"{passport.gpu or 'no GPU'}, driver's CUDA {passport.driver_cuda or '-'}"),
        ("driver", passport.driver_version or "not known"),
        ("for compute capability", engine.targets),
        ("hardware compatibility", str(settings.hardware_compatibility)),
        ("TF32", "allowed" if settings.tf32 else "no"),
        ("refittable", "yes" if settings.refittable else "no"),
        ("version-compatible", "yes" if settings.version_compatible else "no"),
        *((name, "the backend's own" if value is None else str(value)) for name, value in limits.items()),
        ("layers of the network", f"{sum(passport.network_layers.values())}: {layers}"),
        (
            "layers of the engine",
            "not known: no GPU" if passport.engine_layers is None else str(passport.engine_layers),
        ),
        ("build time", f"{passport.build_ms / 1000:.1f} s"),
        ("size", f"{engine.file.size_bytes / 2**20:.2f} MiB"),
        ("ONNX sha256", passport.onnx_sha256),
        ("weights sha256", passport.weights_sha256),
        ("log", f"{engine.log.path}, sha256 {engine.log.sha256}"),
        ("sha256", engine.file.sha256),
        ("parity", proof_text(found.proof)),
        ("preflight here", "passed" if found.fits else "failed"),
    ]
    print_table(f"Engine {found.path}", ("", ""), rows)
    for finding in found.findings:
        say(f"does not fit: {finding.problem} {finding.remedy}")
