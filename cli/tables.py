"""Results as tables, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from riformer_deploy.backends.graph_state import titled

from .engine_tables import parity_text, print_engine
from .output import number, print_table, say

if TYPE_CHECKING:
    from riformer_deploy.api.inspect import (
        BundleInspection,
        CheckpointInspection,
        Inspection,
        OnnxInspection,
    )
    from riformer_deploy.bundle.artifacts import OnnxArtifact
    from riformer_deploy.bundle.engine_metadata import EngineArtifact
    from riformer_deploy.evaluation.results import CandidateParity, ParityResult

_DISTANCES = (">max abs", ">rel L2", ">SQNR dB", ">cosine", ">top-1", ">of tolerance")


def _stage_errors(candidate: CandidateParity) -> list[str]:
    """One a stage; dashes for an engine, whose inside cannot be looked at."""
    if not candidate.stages:
        return ["-"] * 4
    return [number(stage.deviation.relative_l2) for stage in candidate.stages]


def _stages_verdict(candidate: CandidateParity) -> str:
    """The stages' own, whatever the outputs are; a dash where there are none."""
    from riformer_deploy.evaluation.results import Status

    if not candidate.stages:
        return "-"
    block = candidate.first_bad_block
    if all(stage.status is Status.PASSED for stage in candidate.stages):
        return "passed" if block is None else f"passed, {block} within is out"
    return "failed" if block is None else f"failed, first at {block}"


def print_parity(result: ParityResult) -> None:
    """Every output and stage of every candidate, with the limit it was held to, and the verdict."""
    inputs = result.inputs
    say(
        f"Reference: {result.reference}; {sum(inputs.batches)} images of {inputs.image_size_px[0]}x"
        f"{inputs.image_size_px[1]} px in batches {', '.join(map(str, inputs.batches))}, {inputs.description}"
    )
    print_table(
        "Parity of outputs",
        ("candidate", "output", *_DISTANCES, "verdict"),
        [
            (
                titled(candidate.name, candidate.graph),
                item.name,
                number(item.deviation.max_abs),
                number(item.deviation.relative_l2),
                number(item.deviation.sqnr_db, ".1f"),
                number(item.deviation.cosine, ".9f"),
                "-" if item.decisions is None else f"{item.decisions.top1_agreement:.1%}",
                number(item.tolerance_used, ".1%"),
                str(item.status),
            )
            for candidate in result.candidates
            for item in candidate.outputs
        ],
    )
    print_table(
        "Parity of stages, relative L2",
        ("candidate", ">stage 1", ">stage 2", ">stage 3", ">stage 4", ">limit", "verdict"),
        [
            (
                titled(candidate.name, candidate.graph),
                *(_stage_errors(candidate)),
                number(candidate.tolerance.stage_relative_l2),
                _stages_verdict(candidate),
            )
            for candidate in result.candidates
        ],
    )
    for item in result.skipped:
        say(f"skipped: {item.name}: {item.reason}")
    for precision, tolerance in dict.fromkeys((c.precision, c.tolerance) for c in result.candidates):
        limits = []
        if tolerance.elementwise is not None:
            rtol, atol = tolerance.elementwise
            limits.append(f"|difference| <= {atol:g} + {rtol:g} |reference|")
        if tolerance.min_sqnr_db is not None:
            limits.append(f"SQNR >= {tolerance.min_sqnr_db:g} dB")
        stated = "" if tolerance.stated == "default" else " (limits changed by the user)"
        limits.append(f"stages <= {tolerance.stage_relative_l2:g}")
        say(f"Tolerance of {precision}: {', '.join(limits)}{stated}")
    _say_verdict(result)


def _say_verdict(result: ParityResult) -> None:
    """The closing lines: every candidate that failed, with figure and limit, or that none did."""
    from riformer_deploy.evaluation.parity_failures import why_failed

    count = len(result.unproven)
    more = f"; {count} engine{'s' * (count > 1)} NOT proven: {', '.join(result.unproven)}" if count else ""
    images = "synthetic images" if result.inputs.seed is not None else result.inputs.description
    for candidate in result.failed:
        whose = "" if candidate.judges_file else ", this runtime's own verdict"
        say(f"Parity: failed: {why_failed(candidate)} (on {images}{whose})")
    if not result.failed:
        say(f"Parity: {result.status}{more}")
    elif result.status == "passed":
        say(f"Parity of the files: passed{more}")
    elif more:
        say(more.removeprefix("; "))


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
        ("parameters", f"{found.parameters:,} ({found.deploy_parameters:,} once fused)"),
        ("input", f"{size.crop_px[0]}x{size.crop_px[1]} px, from: {size.source}" if size else "size unknown"),
        ("FLOPs", f"{found.flops / 1e9:.3f} G multiply-adds, fused" if found.flops else "-"),
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
    record = artifact.lowering
    output = record.output_form if record.topk is None else f"top {record.topk}"
    parts = [
        f"opset {artifact.opset}",
        f"norm {record.norm}",
        f"{record.input_form} input",
        f"{output} output",
    ]
    forms = {"norms' inputs and outputs": record.norm_io, "mlp": record.mlp, "norm2": record.norm2}
    forms["inputs and outputs"] = record.io
    parts += [f"{what} {how}" for what, how in forms.items() if how not in ("fp32", "conv", "explicit")]
    if artifact.precision.is_quantized:
        parts.append(f"the rest {record.base}")
    if record.quantized_residual:
        parts.append("residual inputs int8")
    parts += [f"{name} kept in {record.base}" for name in record.unquantized]
    parts += [f"{name} kept in fp32: half would overflow" for name in record.float32_blocks]
    if record.calibration is not None:
        images = record.calibration
        kind = "RANDOM images: accuracy is not proven" if images.random else f"images of {images.source}"
        ranges = f", {images.method} scales" if artifact.precision.is_quantized else ""
        parts.append(f"calibrated on {images.images} {kind}{ranges}")
    return "; ".join(parts)


def _engine(engine: EngineArtifact, found: BundleInspection) -> str:
    """What an engine was built with, and whether it is proven, in words."""
    metadata = engine.metadata
    profiles = ", ".join(map(str, metadata.profiles))
    proven = parity_text(found.engine_parity.get(engine.file.path))
    return f"{metadata.backend.label} {metadata.backend_version}; batches {profiles}; {proven}"


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
        (
            "parity",
            f"{found.parity}, {found.parity_utc}" if found.parity else "none under default limits",
        ),
        *(("failed parity", text) for text in found.parity_failures),
        ("integrity", "every file is as recorded" if found.intact else "; ".join(found.problems)),
        *([("not the bundle's", ", ".join(found.foreign))] if found.foreign else []),
    ]
    _pairs(f"Bundle {found.path}", rows)
    for graph in found.graphs:
        _print_onnx(graph)


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
            print_engine(found)
        case _:
            assert_never(found)
