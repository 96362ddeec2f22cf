"""What ``inspect`` found, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from riformer_deploy.bundle.lowering_config import quantizes
from riformer_deploy.common.enums import OutputForm

from ..output import print_table, say

if TYPE_CHECKING:
    from riformer_deploy.api.inspect import (
        BundleInspection,
        CheckpointInspection,
        EngineInspection,
        EngineParity,
        Inspection,
        OnnxInspection,
    )
    from riformer_deploy.bundle.artifacts import OnnxArtifact
    from riformer_deploy.bundle.engine_metadata import EngineArtifact


def _pairs(title: str, rows: list[tuple[str, str]]) -> None:
    print_table(title, ("", ""), rows)


def _print_checkpoint(found: CheckpointInspection) -> None:
    shape = found.architecture
    size = found.preprocessing
    rows = [
        ("published model", " or ".join(found.variants) or "none: a custom architecture"),
        ("form", f"{found.form} ({found.weights} weights, stored as {', '.join(found.stored_dtypes)})"),
        ("layers", str(list(shape.layers))),
        ("widths", f"{list(shape.embed_dims)}, MLP {list(shape.hidden_dims)}"),
        (
            "classes",
            f"{shape.num_classes}" + (f": {', '.join(found.class_names[:5])}…" if found.class_names else ""),
        ),
        ("norms of maps at", ", ".join(map(str, found.out_indices))),
        ("parameters", f"{found.parameters:,} ({found.deploy_parameters:,} once fused)"),
        ("input", f"{size.crop_px[0]}x{size.crop_px[1]} px, from: {size.source}" if size else "size unknown"),
        ("FLOPs", f"{found.flops / 1e9:.3f} G multiply-adds, fused" if found.flops else "-"),
        *([("config file", found.config)] if found.config is not None else []),
        *((f"training: {key}", value) for key, value in found.training.items()),
        ("sha256", found.sha256),
        *(("note", text) for text in found.notes),
    ]
    _pairs(f"Checkpoint {found.path}", rows)


def _print_onnx(found: OnnxInspection) -> None:
    rows = [
        ("producer", found.producer),
        ("opset", str(found.opset)),
        *((f"input {spec.name}", f"{spec.dtype} {list(spec.shape)}") for spec in found.inputs),
        *((f"output {spec.name}", f"{spec.dtype} {list(spec.shape)}") for spec in found.outputs),
        ("parameters", f"{found.parameters:,}"),
        ("FLOPs", f"{found.flops / 1e9:.3f} G multiply-adds per image" if found.flops else "-"),
        ("size", f"{found.size_bytes / 2**20:.2f} MiB"),
        *((key, value) for key, value in found.provenance.items()),
        ("sha256", found.sha256),
    ]
    _pairs(f"ONNX {found.path}", rows)
    print_table(
        "Nodes",
        ("operator", "precision", ">count"),
        [(n.op_type, n.dtype, str(n.count)) for n in found.nodes],
    )


def _lowering(artifact: OnnxArtifact) -> str:
    """How a model came to its precision, in words."""
    config = artifact.lowering
    output: str = config.output_form
    if config.output_form is OutputForm.TOPK:
        output = f"top {config.topk}"
    elif config.output_form is OutputForm.MAPS:
        output = " and ".join(spec.name for spec in artifact.outputs)
    parts = [
        f"opset {artifact.opset}",
        f"norm {config.norm}",
        f"{config.input_form} input",
        f"{output} output",
    ]
    forms = {"norms' inputs and outputs": config.norm_io, "mlp": config.mlp, "norm2": config.norm2}
    forms["inputs and outputs"] = config.io
    parts += [f"{what} {how}" for what, how in forms.items() if how not in ("fp32", "conv", "explicit")]
    if config.precision.is_quantized:
        parts.append(f"the rest {config.base}")
    if config.residual_ranges:
        where = f" of {', '.join(config.residual_blocks)}" if config.residual_blocks else ""
        parts.append(f"residual {config.residual_form}{where} int8")
    excluded = [name for name in config.exclude_layers if quantizes(config.precision, name)]
    parts += [f"{name} excluded, in {config.base}" for name in excluded]
    parts += [f"{name} in fp32: half would overflow" for name in config.float32_blocks]
    if config.calibration is not None:
        images = config.calibration
        kind = "RANDOM images: accuracy is not known" if images.random else f"images of {images.source}"
        ranges = f", {images.method} scales" if artifact.precision.is_quantized else ""
        parts.append(f"calibrated on {images.images} {kind}{ranges}")
    return "; ".join(parts)


def _engine(engine: EngineArtifact, found: BundleInspection) -> str:
    """What an engine was built with, and whether its parity was verified, in words."""
    metadata = engine.metadata
    profiles = ", ".join(map(str, metadata.profiles))
    parity = _parity(found.engine_parity.get(engine.file.path))
    return f"{metadata.backend.label} {metadata.backend_version}; batches {profiles}; {parity}"


def _print_bundle(found: BundleInspection) -> None:
    manifest = found.manifest
    model = manifest.model
    rows = [
        ("model", model.variant or f"custom, layers {list(model.architecture.layers)}"),
        ("classes", str(model.architecture.num_classes)),
        ("input", f"{model.preprocessing.crop_px[0]}x{model.preprocessing.crop_px[1]} px"),
        (
            "made from",
            f"{manifest.source.file_name} ({manifest.source.form} form, {manifest.source.weights} weights)",
        ),
        ("source sha256", manifest.source.sha256),
        *((f"{item.precision} model", _lowering(item)) for item in manifest.onnx),
        *((item.file.path, _engine(item, found)) for item in manifest.engines),
        ("made by", f"riformer-deploy {manifest.tool_version}, {manifest.created_utc}"),
        *(
            (record.path, f"{record.size_bytes / 2**20:.2f} MiB, sha256 {record.sha256}")
            for record in manifest.files
        ),
        ("parameters", f"{found.deploy_parameters:,} once fused"),
        ("FLOPs", f"{found.flops / 1e9:.3f} G multiply-adds, fused"),
        ("parity", _models_parity(found)),
        *(("failed parity", text) for text in found.parity_failures),
        ("integrity", "every file is as recorded" if found.intact else "; ".join(found.problems)),
        *([("not the bundle's", ", ".join(found.foreign))] if found.foreign else []),
    ]
    _pairs(f"Bundle {found.path}", rows)
    for graph in found.graphs:
        _print_onnx(graph)


def _models_parity(found: BundleInspection) -> str:
    if found.parity_unproven:
        return f"NOT proven: {'; '.join(found.parity_unproven)}"
    return f"{found.parity}, {found.parity_utc}" if found.parity else "none under default limits"


def _parity(parity: EngineParity | None) -> str:
    """Whether an engine's parity was verified, where and when, in words."""
    if parity is None:
        return "NOT verified: run verify parity on its GPU"
    return f"{parity.status} on {' and '.join(parity.gpus) or 'an unknown GPU'}, {parity.created_utc}"


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
        ("parity", _parity(found.parity)),
        ("preflight here", "passed" if found.fits else "failed"),
    ]
    print_table(f"Engine {found.path}", ("", ""), rows)
    for finding in found.findings:
        say(f"does not fit: {finding.problem} {finding.remedy}")


def print_inspection(found: Inspection) -> None:
    """Whatever ``inspect`` found."""
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
            _print_bundle(found)
        case EngineInspection():
            _print_engine(found)
        case _:
            assert_never(found)
