"""What ``inspect`` found of a bundle: first what its user needs, then how it came about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from riformer_deploy.bundle.lowering_config import quantizes
from riformer_deploy.common.display import ms_text
from riformer_deploy.common.enums import OutputForm

from ..output import print_pairs, print_table, say

if TYPE_CHECKING:
    from riformer_deploy.api.inspect import BundleInspection, EngineParity, ShippedArtifact
    from riformer_deploy.bundle.artifacts import NodeCount, OnnxArtifact, TensorSpec
    from riformer_deploy.bundle.engine_metadata import EngineArtifact
    from riformer_deploy.bundle.manifest import Source
    from riformer_deploy.data.preprocessing import Preprocessing

_NAMES_SHOWN = 5


def classes_text(count: int, names: Sequence[str] | None) -> str:
    """How many classes there are, and the first of their names."""
    if not names:
        return f"{count}, without names"
    between = "; " if any("," in name for name in names[:_NAMES_SHOWN]) else ", "
    return f"{count}: {between.join(names[:_NAMES_SHOWN])}" + ("…" if len(names) > _NAMES_SHOWN else "")


def preprocessing_text(found: Preprocessing) -> str:
    """What is done to a picture first, in words."""
    height, width = found.crop_px
    parts = [f"centre crop {height}x{width} px", found.channel_order]
    how = f", {found.interpolation} ({found.resize_backend})"
    if found.resize_to_px is not None:
        parts.insert(0, f"resize to {found.resize_to_px[0]}x{found.resize_to_px[1]} px{how}")
    elif found.resize_short_edge_px is not None:
        parts.insert(0, f"short edge {found.resize_short_edge_px} px{how}")
    for name, values in (("mean", found.mean), ("std", found.std)):
        parts.append(f"{name} {', '.join(f'{value:g}' for value in values)}")
    parts += [f"NOT DONE HERE: {step}" for step in found.unsupported]
    return "; ".join(parts) + f" (from: {found.source})"


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
    parity = parity_text(found.engine_parity.get(engine.file.path))
    return f"{metadata.backend.label} {metadata.backend_version}; batches {profiles}; {parity}"


def _tensors(found: BundleInspection, *, inputs: bool) -> list[tuple[str, str]]:
    """The inputs or outputs of the models; where the models differ, each says whose it is."""
    graphs = found.manifest.onnx
    specs: dict[TensorSpec, list[str]] = {}
    for graph in graphs:
        for spec in graph.inputs if inputs else graph.outputs:
            specs.setdefault(spec, []).append(graph.precision)
    what = "input" if inputs else "output"
    return [
        (
            f"{what} {spec.name}",
            f"{spec.dtype} {list(spec.shape)}" + (f" ({', '.join(of)})" if len(of) < len(graphs) else ""),
        )
        for spec, of in specs.items()
    ]


def _shipped(choice: ShippedArtifact) -> str:
    text = f"{choice.file or choice.name} in {choice.name}, {ms_text(choice.median_ms)} ms"
    if choice.ratio is not None and choice.baseline is not None:
        text += f", {choice.ratio.value:.2f} times as fast as {choice.baseline}"
        text += "" if choice.ratio.decided else " (which of both is faster is not known)"
    text += f"; parity {choice.parity or 'NOT verified'}; "
    return text + (
        "accuracy not measured" if choice.top1_percent is None else f"top-1 {choice.top1_percent:.2f} %"
    )


def source_text(source: Source) -> str:
    """What a bundle was made from, and whether damage to it would have been noticed."""
    text = f"{source.file_name} ({source.form} form, {source.weights} weights)"
    return text if source.checksums is not False else f"{text}, in a format without checksums"


def print_bundle(found: BundleInspection, *, verbose: bool) -> None:
    """A bundle.

    Args:
        found: What was found.
        verbose: Whether hashes and node counts are shown, too.
    """
    manifest = found.manifest
    model, source = manifest.model, manifest.source
    rows = [
        ("model", model.variant or f"custom, layers {list(model.architecture.layers)}"),
        ("preprocessing", preprocessing_text(model.preprocessing)),
        *_tensors(found, inputs=True),
        *_tensors(found, inputs=False),
        ("classes", classes_text(model.architecture.num_classes, model.class_names)),
        *((f"ship, batch {item.batch}", _shipped(item)) for item in found.shipped),
        *(
            (
                "accuracy",
                f"{item.name}: top-1 {item.top1.percent:.2f} %, top-5 {item.top5.percent:.2f} % "
                f"of {item.images} pictures",
            )
            for item in found.accuracy
        ),
        ("parity", _models_parity(found)),
        *(("failed parity", text) for text in found.parity_failures),
        *((f"{item.precision} model", _lowering(item)) for item in manifest.onnx),
        *((item.file.path, _engine(item, found)) for item in manifest.engines),
        *(("not verified", text) for text in found.not_verified),
        ("made from", source_text(source)),
        ("made by", f"riformer-deploy {manifest.tool_version}, {manifest.created_utc}"),
        ("parameters", f"{found.deploy_parameters:,} once fused"),
        ("FLOPs", f"{found.flops / 1e9:.3f} G multiply-adds, fused"),
        ("integrity", "every file is as recorded" if found.intact else "; ".join(found.problems)),
        *([("not the bundle's", ", ".join(found.foreign))] if found.foreign else []),
    ]
    print_pairs(f"Bundle {found.path}", rows)
    if not verbose:
        return
    say("Files, each above its sha256")
    for record in manifest.files:
        say(f"{record.path}, {record.size_bytes / 2**20:.2f} MiB\n  {record.sha256}")
    say(f"{source.file_name}, the checkpoint\n  {source.sha256}")
    for graph in found.graphs:
        print_nodes(f"Nodes of {graph.path}", graph.nodes)


def print_nodes(title: str, nodes: Sequence[NodeCount]) -> None:
    """How many nodes of each operator and precision a graph has."""
    say(title)
    print_table("", ("operator", "precision", ">count"), [(n.op_type, n.dtype, str(n.count)) for n in nodes])


def _models_parity(found: BundleInspection) -> str:
    if found.parity_not_verified:
        return f"NOT verified: {'; '.join(found.parity_not_verified)}"
    return f"{found.parity}, {found.parity_utc}" if found.parity else "none under default limits"


def parity_text(parity: EngineParity | None) -> str:
    """Whether an engine's parity was verified, where and when, in words."""
    if parity is None:
        return "NOT verified: run verify parity on its GPU"
    return f"{parity.status} on {' and '.join(parity.gpus) or 'an unknown GPU'}, {parity.created_utc}"
