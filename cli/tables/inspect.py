"""What ``inspect`` found, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from ..output import print_pairs, say
from .inspect_bundle import classes_text, parity_text, preprocessing_text, print_bundle, print_nodes

if TYPE_CHECKING:
    from riformer_deploy.api.inspect import (
        CheckpointInspection,
        EngineInspection,
        Inspection,
        OnnxInspection,
    )


def _print_checkpoint(found: CheckpointInspection) -> None:
    shape = found.architecture
    size = found.preprocessing
    rows = [
        ("published model", " or ".join(found.variants) or "none: a custom architecture"),
        ("form", f"{found.form} ({found.weights} weights, stored as {', '.join(found.stored_dtypes)})"),
        ("layers", str(list(shape.layers))),
        ("widths", f"{list(shape.embed_dims)}, MLP {list(shape.hidden_dims)}"),
        ("classes", classes_text(shape.num_classes, found.class_names)),
        ("norms of maps at", ", ".join(map(str, found.out_indices))),
        ("parameters", f"{found.parameters:,} ({found.deploy_parameters:,} once fused)"),
        ("input", f"{size.crop_px[0]}x{size.crop_px[1]} px, from: {size.source}" if size else "size unknown"),
        ("FLOPs", f"{found.flops / 1e9:.3f} G multiply-adds, fused" if found.flops else "-"),
        *([("config file", found.config)] if found.config is not None else []),
        *((f"training: {key}", value) for key, value in found.training.items()),
        ("sha256", found.sha256),
        *(("note", text) for text in found.notes),
    ]
    print_pairs(f"Checkpoint {found.path}", rows)


def _print_onnx(found: OnnxInspection) -> None:
    rows = [
        ("producer", found.producer),
        ("opset", str(found.opset)),
        *((f"input {spec.name}", f"{spec.dtype} {list(spec.shape)}") for spec in found.inputs),
        *((f"output {spec.name}", f"{spec.dtype} {list(spec.shape)}") for spec in found.outputs),
        ("parameters", f"{found.parameters:,}"),
        ("FLOPs", f"{found.flops / 1e9:.3f} G multiply-adds per image" if found.flops else "-"),
        ("size", f"{found.size_bytes / 2**20:.2f} MiB"),
        *([("preprocessing", preprocessing_text(found.preprocessing))] if found.preprocessing else []),
        *(
            [("classes", classes_text(len(found.class_names), found.class_names))]
            if found.class_names
            else []
        ),
        *((key, value) for key, value in found.provenance.items()),
        ("sha256", found.sha256),
    ]
    print_pairs(f"ONNX {found.path}", rows)
    print_nodes("Nodes", found.nodes)


def _print_engine(found: EngineInspection) -> None:
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
    print_pairs(f"Engine {found.path}", rows)
    for finding in found.findings:
        say(f"does not fit: {finding.problem} {finding.remedy}")


def print_inspection(found: Inspection, *, verbose: bool) -> None:
    """Whatever ``inspect`` found; of a bundle, hashes and node counts only where that is asked for."""
    from riformer_deploy.api.inspect import (
        BundleInspection,
        CheckpointInspection,
        EngineInspection,
        OnnxInspection,
    )

    match found:
        case CheckpointInspection():
            _print_checkpoint(found)
        case OnnxInspection():
            _print_onnx(found)
        case BundleInspection():
            print_bundle(found, verbose=verbose)
        case EngineInspection():
            _print_engine(found)
        case _:
            assert_never(found)
