"""Writes the files of a bundle with their records: weights, graphs, sample images and the parity report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from riformer_deploy.bundle.artifacts import FileRecord, OnnxArtifact, WeightsArtifact
from riformer_deploy.bundle.lowering_config import CalibrationRecord, LoweringConfig
from riformer_deploy.bundle.manifest import ModelRecord, Source
from riformer_deploy.bundle.writing import record_file
from riformer_deploy.checkpoints.load import Checkpoint, load_checkpoint
from riformer_deploy.checkpoints.save_tensors import save_tensors
from riformer_deploy.common.errors import CheckpointValuesError
from riformer_deploy.common.progress import Progress, Step
from riformer_deploy.common.replacing import replacing
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.evaluation.results import ParityResult
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import OnnxOptions, export_onnx
from riformer_deploy.export.onnx_graph import graph_contents
from riformer_deploy.export.onnx_metadata import model_metadata
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fuse
from riformer_deploy.quantization.calibration import CalibrationResult
from riformer_deploy.quantization.resolving import resolve_lowering

_SAMPLES = 32
"""Calibration images that a bundle keeps for its parity reports."""


def source_of(checkpoint: Checkpoint) -> Source:
    """The bundle's record of a checkpoint."""
    return Source(
        file_name=checkpoint.path.name.encode(errors="replace").decode(),
        sha256=checkpoint.sha256,
        form=checkpoint.form,
        weights=checkpoint.weights,
        weights_sha256=checkpoint.weights_sha256,
        checksums=checkpoint.checksums,
    )


def save_weights(path: Path, checkpoint: Checkpoint, form: Form) -> None:
    """Write a checkpoint's weights in a form, with where they come from.

    Args:
        path: The file.
        checkpoint: Holds the weights.
        form: Its own form, or deploy form.

    Raises:
        CheckpointValuesError: The fused weights overflow float32.
        OSError: The file cannot be written.
    """
    model = model_from_state(
        checkpoint.architecture, checkpoint.form, checkpoint.state, out_indices=checkpoint.out_indices
    )
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
        save_tensors({"meta": {**checkpoint.meta, **provenance}, "state_dict": dict(state)}, file)
        file.flush()
        load_checkpoint(partial)  # what cannot be read back is not put in place


def stage_weights(staged: Path, checkpoint: Checkpoint) -> tuple[WeightsArtifact, ...]:
    """Write the weights: the reference first, the training form if there is one; then the deploy form.

    Args:
        staged: The folder.
        checkpoint: Holds the weights.

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
        calibration: Where there is one.
    """

    model: RIFormer
    record: ModelRecord
    source: Source
    parent_sha256: str
    calibration: CalibrationResult | None


def stage_graphs(
    staged: Path,
    inputs: ExportInputs,
    configs: Sequence[LoweringConfig],
    graph: OnnxOptions,
    progress: Progress,
) -> tuple[OnnxArtifact, ...]:
    """Write ``model.<precision>.onnx`` for each config.

    Args:
        staged: The folder.
        inputs: The model and what is known of it.
        configs: How to lower; one for each precision.
        graph: How to write a graph.
        progress: Called with each step.

    Raises:
        ExportError: ONNX export failed.
        OptionError: int8 or fp8 without a calibration.
    """
    artifacts = []
    for done, config in enumerate(configs):
        work, part = f"exporting {config.precision} to ONNX", f"{done + 1} of {len(configs)}"
        progress(Step(work, part, done=done, total=len(configs), series="exporting"))
        artifacts.append(_stage_graph(staged, inputs, config, graph))
    return tuple(artifacts)


def _stage_graph(
    staged: Path, inputs: ExportInputs, config: LoweringConfig, graph: OnnxOptions
) -> OnnxArtifact:
    resolved = resolve_lowering(config, inputs.calibration)
    path = staged / f"model.{resolved.precision}.onnx"
    taken, given = export_onnx(
        lower(inputs.model, resolved, inputs.record.preprocessing),
        path,
        graph,
        {
            "tool_version": VERSION,
            "precision": str(resolved.precision),
            "source_sha256": inputs.source.sha256,
            "weights_sha256": inputs.source.weights_sha256,
            "norm": str(resolved.norm),
            "norm_io": str(resolved.norm_io),
            "mlp": str(resolved.mlp),
            "norm2": str(resolved.norm2),
            "input": str(resolved.input_form),
            "output": " ".join([str(resolved.output_form), ",".join(map(str, resolved.out_indices))]).strip(),
            "calibration": _calibration_text(resolved.calibration),
            **model_metadata(inputs.record.preprocessing, inputs.record.class_names),
        },
    )
    return OnnxArtifact(
        file=record_file(path, inputs.parent_sha256),
        opset=graph.opset,
        inputs=taken,
        outputs=given,
        contents=graph_contents(onnx.load(path)),
        lowering=resolved,
    )


def _calibration_text(record: CalibrationRecord | None) -> str:
    """What the ONNX file says of its calibration."""
    if record is None:
        return "none"
    text = "random images" if record.random else f"{record.images} images of {record.source}"
    return text.encode(errors="replace").decode()


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
    content = io.BytesIO()  # np.save of a file says nothing of why it cannot be written
    np.save(content, images.spread(_SAMPLES), allow_pickle=False)
    path.write_bytes(content.getbuffer())
    return record_file(path, parent_sha256)


def stage_parity(staged: Path, parity: ParityResult, parent_sha256: str) -> FileRecord:
    """Write the parity report.

    Args:
        staged: The folder.
        parity: The report.
        parent_sha256: Of the reference weights' file.
    """
    path = staged / "parity.json"
    path.write_text(dump_json(parity), encoding="utf-8")
    return record_file(path, parent_sha256)
