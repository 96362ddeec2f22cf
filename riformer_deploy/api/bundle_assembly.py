"""Puts the files of a bundle together: weights, graphs, sample images, and models that it held before."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from riformer_deploy.bundle.artifacts import FileRecord, OnnxArtifact, WeightsArtifact
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.manifest import Manifest, ModelRecord, Source
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import record_file
from riformer_deploy.checkpoints.load import Checkpoint, load_checkpoint
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import BundleConflictError, BundleError, CheckpointValuesError
from riformer_deploy.common.files import replacing
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.export.config import PrecisionOptions
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import OnnxOptions, export_onnx
from riformer_deploy.export.onnx_graph import graph_contents
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fuse
from riformer_deploy.quantization.calibration import Calibration
from riformer_deploy.quantization.lowering_records import record_lowering
from riformer_deploy.quantization.planning import needs_calibration, resolve_lowering

_SAMPLES = 32
"""Calibration images that a bundle keeps for its parity reports."""

Measured = tuple[CalibrationSet, Calibration]
"""Calibration images and what was measured on them."""


def save_weights(path: Path, checkpoint: Checkpoint, form: Form) -> None:
    """Write a checkpoint's weights in a form, with where they come from.

    Args:
        path: The file.
        checkpoint: Whose.
        form: Its own form, or deploy form.

    Raises:
        CheckpointValuesError: The fused weights overflow float32.
    """
    model = model_from_state(checkpoint.architecture, checkpoint.form, checkpoint.state)
    state = model.state_dict() if form is checkpoint.form else fuse(model).state_dict()
    endless = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if endless:
        raise CheckpointValuesError(
            f"The weights of {checkpoint.path} overflow float32 when they are fused.",
            details=endless,
            remedy="Each is finite, their products are not; look at the training's norms and affine weights.",
        )
    provenance: dict[str, Any] = {
        "riformer_deploy": {
            "version": VERSION,
            "source_sha256": checkpoint.sha256,
            "weights": str(checkpoint.weights),
            "form": str(form),
            "mean": checkpoint.mean,
            "std": checkpoint.std,
        }
    }
    with replacing(path) as partial, partial.open("wb") as file:
        torch.save({"meta": {**checkpoint.meta, **provenance}, "state_dict": dict(state)}, file)
        file.flush()
        load_checkpoint(partial)  # what cannot be read back is not put in place


def stage_weights(staged: Path, checkpoint: Checkpoint) -> tuple[WeightsArtifact, ...]:
    """Write the weights: the reference first, the training form if there is one; then the deploy form.

    Args:
        staged: The folder.
        checkpoint: Whose.

    Raises:
        CheckpointValuesError: The fused weights overflow float32.
    """
    forms = (Form.TRAINING, Form.DEPLOY) if checkpoint.form is Form.TRAINING else (Form.DEPLOY,)
    parent = checkpoint.sha256
    artifacts = []
    for form in forms:
        path = staged / f"{form}.pth"
        save_weights(path, checkpoint, form)
        artifacts.append(WeightsArtifact(file=record_file(path, parent), form=form))
        parent = artifacts[0].file.sha256
    return tuple(artifacts)


@dataclass(frozen=True, kw_only=True)
class ExportInputs:
    """What graphs are made of.

    Attributes:
        model: In folded form, float32.
        record: The model's.
        source: The checkpoint.
        parent_sha256: Of the reference weights' file.
        measured: The calibration, where there is one.
    """

    model: RIFormer
    record: ModelRecord
    source: Source
    parent_sha256: str
    measured: Measured | None


def stage_onnx(
    staged: Path, made_of: ExportInputs, precision: Precision, options: PrecisionOptions, graph: OnnxOptions
) -> OnnxArtifact:
    """Write ``model.<precision>.onnx``.

    Args:
        staged: The folder.
        made_of: The model and what is known of it.
        precision: The precision.
        options: How to lower.
        graph: How to write the graph.

    Raises:
        ExportError: ONNX export failed.
        OptionError: int8 or fp8 without a calibration.
    """
    used = made_of.measured if needs_calibration(precision, options) else None
    plan = resolve_lowering(precision, options, used[1] if used else None)
    lowering = record_lowering(made_of.model, precision, options, plan, used)
    calibration = "none"
    if used is not None:
        calibration = "random images" if used[0].random else f"{used[0].count} images of {used[0].source}"
    path = staged / f"model.{precision}.onnx"
    inputs, outputs = export_onnx(
        lower(made_of.model, plan, made_of.record.preprocessing),
        path,
        graph,
        {
            "tool_version": VERSION,
            "precision": str(precision),
            "source_sha256": made_of.source.sha256,
            "weights_sha256": made_of.source.weights_sha256,
            "norm": lowering.norm,
            "norm_io": str(lowering.norm_io),
            "mlp": lowering.mlp,
            "norm2": lowering.norm2,
            "input": lowering.input_form,
            "output": lowering.output_form,
            "calibration": calibration.encode(errors="replace").decode(),
        },
    )
    return OnnxArtifact(
        file=record_file(path, made_of.parent_sha256),
        precision=precision,
        opset=graph.opset,
        inputs=inputs,
        outputs=outputs,
        contents=graph_contents(onnx.load(path)),
        lowering=lowering,
    )


def stage_samples(staged: Path, images: CalibrationSet | None, parent_sha256: str) -> FileRecord | None:
    """Write the images that parity runs on, where there are real ones.

    Args:
        staged: The folder.
        images: Real ones.
        parent_sha256: Of the reference weights' file.
    """
    if images is None:
        return None
    path = staged / "samples.npy"
    np.save(path, images.spread(_SAMPLES), allow_pickle=False)
    return record_file(path, parent_sha256)


@dataclass(frozen=True, kw_only=True)
class PreviousBundle:
    """What a bundle held before and goes on holding.

    Attributes:
        onnx: Models of precisions that are not made anew.
        engines: Every engine that it held.
        results: All evidence that it held, by kind.
        samples: Images for parity reports.
    """

    onnx: tuple[OnnxArtifact, ...] = ()
    engines: tuple[EngineArtifact, ...] = ()
    samples: FileRecord | None = None
    results: dict[str, FileRecord] = field(default_factory=dict)

    def engines_of(self, graphs: tuple[OnnxArtifact, ...]) -> tuple[EngineArtifact, ...]:
        """The engines that were built of these graphs, byte for byte."""
        held = {graph.file.sha256 for graph in graphs}
        return tuple(engine for engine in self.engines if engine.file.parent_sha256 in held)

    def parity_of(self, engines: tuple[EngineArtifact, ...], reference_sha256: str) -> dict[str, FileRecord]:
        """The parity reports of these engines against the same reference weights, by kind."""
        kinds = {engine.parity_kind for engine in engines}
        found = {kind: record for kind, record in self.results.items() if kind in kinds}
        return {kind: rec for kind, rec in found.items() if rec.parent_sha256 == reference_sha256}


def previous_bundle(
    output: Path, record: ModelRecord, source: Source, made: tuple[Precision, ...], batch: int | None
) -> tuple[PreviousBundle, tuple[str, ...]]:
    """What of an existing bundle stays, and the models that cannot, each with the reason.

    Args:
        output: The bundle's folder; there need not be one.
        record: The model's, now.
        source: The checkpoint.
        made: Precisions that are made anew.
        batch: The batch of the new models: all models of a bundle take the same.
    """
    try:
        before = Bundle.open(output).manifest
    except BundleError:
        return PreviousBundle(), ()
    others = [artifact for artifact in before.onnx if artifact.precision not in made]
    why = _changed(before, record, source)
    lost = {artifact.precision: why or _other_batch(artifact, batch) for artifact in others}
    reasons = tuple(f"model.{precision}.onnx: {text}" for precision, text in lost.items() if text)
    if why:
        return PreviousBundle(engines=before.engines, results=before.results), reasons
    stays = tuple(artifact for artifact in others if not lost[artifact.precision])
    return PreviousBundle(
        onnx=stays, engines=before.engines, samples=before.samples, results=before.results
    ), reasons


def _changed(before: Manifest, record: ModelRecord, source: Source) -> str:
    if (before.source.sha256, before.source.weights) != (source.sha256, source.weights):
        return "it was made of other weights"
    if before.tool_version != VERSION:
        return f"it was made by version {before.tool_version} of this toolkit"
    if before.model.preprocessing != record.preprocessing:
        return "it takes images that are prepared differently"
    return ""


def _other_batch(artifact: OnnxArtifact, batch: int | None) -> str:
    if artifact.batch == batch:
        return ""
    return f"its batch is {artifact.batch or 'dynamic'}, that of the new models {batch or 'dynamic'}"


def refuse_losses(output: Path, lost: tuple[str, ...]) -> None:
    """Refuse to drop models that a bundle holds.

    Raises:
        BundleConflictError: There are some.
    """
    if lost:
        raise BundleConflictError(
            f"{output} holds models that do not fit the new ones; they would be lost.",
            details=lost,
            remedy="Export these precisions too, choose another -o, or say --force to drop them.",
        )
