"""``export``: from a checkpoint to a bundle, every stage in order."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from riformer_deploy.api.bundle_assembly import (
    ExportInputs,
    source_of,
    stage_graphs,
    stage_parity,
    stage_samples,
    stage_weights,
)
from riformer_deploy.api.export_records import ExportOptions, ExportReport
from riformer_deploy.api.parity import MODELS, measure_parity
from riformer_deploy.api.parity_reference import ParityReference, parity_reference
from riformer_deploy.api.previous_bundle import dropped_notes, read_previous_bundle, refuse_losses
from riformer_deploy.bundle.failed_exports import check_failed_target, keep_failed
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import SCHEMA_VERSION, Manifest, ModelRecord
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import check_target, commit, staging
from riformer_deploy.checkpoints.config_agreement import with_config
from riformer_deploy.checkpoints.load import Checkpoint, check_expectations, load_checkpoint
from riformer_deploy.checkpoints.preprocessing import resolve_preprocessing
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.interruption import kept_on_interruption
from riformer_deploy.common.progress import Progress, silent, within
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.data.class_names import resolve_class_names
from riformer_deploy.data.preprocessing_changes import AS_FOUND, parse_changes
from riformer_deploy.evaluation.parity_failures import advice_on, why_failed
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.evaluation.tolerances import changed_tolerances
from riformer_deploy.export.onnx_export import DEFAULT_OPSET, OnnxOptions
from riformer_deploy.model.architecture import POSITIONS, checked_out_indices
from riformer_deploy.model.network import model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import find_variant, get_variant, variant_of
from riformer_deploy.quantization.accuracy_control import calibrate_lowerings
from riformer_deploy.quantization.calibration import kept_calibration
from riformer_deploy.quantization.sensitivity import Gate
from riformer_deploy.system.machine import library_versions

__all__ = [
    "AS_FOUND",
    "DEFAULT_OPSET",
    "ExportOptions",
    "ExportReport",
    "Gate",
    "LoweringConfig",
    "Status",
    "changed_tolerances",
    "checked_out_indices",
    "export_checkpoint",
    "find_variant",
    "get_variant",
    "parse_changes",
]


def model_record(checkpoint: Checkpoint, options: ExportOptions, notes: list[str]) -> ModelRecord:
    """What the model of an export is.

    Args:
        checkpoint: From :func:`load_asked`.
        options: What the export is asked for.
        notes: Assumptions that are made are added to it.

    Raises:
        OptionError: Nothing says the size of the images, or an option cannot be honoured.
    """
    preprocessing = resolve_preprocessing(
        checkpoint,
        variant=options.variant,
        image_size_px=options.image_size_px,
        notes=notes,
        changes=options.preprocessing,
    )
    published = variant_of(checkpoint.architecture, preprocessing.crop_px)
    return ModelRecord(
        variant=published.name if published is not None else None,
        architecture=checkpoint.architecture,
        preprocessing=preprocessing,
        class_names=resolve_class_names(
            checkpoint.class_names, checkpoint.architecture.num_classes, options.class_names, notes
        ),
    )


def load_asked(options: ExportOptions) -> Checkpoint:
    """The checkpoint of an export, with the weights that were asked for.

    Args:
        options: What the export is asked for.

    Raises:
        CheckpointError: The checkpoint is not usable.
    """
    checkpoint = load_checkpoint(
        options.checkpoint, weights=options.weights, key=options.key, out_indices=POSITIONS
    )
    checkpoint = with_config(checkpoint, options.config)
    check_expectations(
        checkpoint,
        architecture=options.variant.architecture if options.variant else None,
        num_classes=options.num_classes,
    )
    return checkpoint


def _prove(
    bundle: Bundle, expected: ParityReference, options: ExportOptions, notes: list[str], progress: Progress
) -> ParityResult:
    """Measure the parity of a staged bundle's models, with a note for each runtime that fails by itself."""
    parity = measure_parity(bundle, options.tolerances, progress, expected=expected, groups=MODELS)
    notes += [
        f"{why_failed(candidate)}: this runtime's own verdict; the file is judged in ONNX Runtime"
        for candidate in parity.failed
        if not candidate.judges_file
    ]
    return parity


def _report(
    options: ExportOptions, manifest: Manifest, parity: ParityResult, notes: list[str], kept: Path | None
) -> ExportReport:
    lowerings = [graph.lowering for graph in manifest.onnx]
    written = parity.status is Status.PASSED
    return ExportReport(
        status=parity.status,
        bundle=str(options.output) if written else None,
        model=manifest.model,
        source=manifest.source,
        files=manifest.files if written else (),
        parity=parity,
        notes=tuple(notes),
        advice=advice_on(parity, lowerings),
        kept=None if kept is None else str(kept),
    )


def export_checkpoint(options: ExportOptions, progress: Progress = silent) -> ExportReport:
    """Checkpoint to bundle: load, recognise, fuse, fold, export, compare; then put it in place.

    Args:
        options: What to export and where to.
        progress: Called with each step.

    Returns:
        The report; where parity failed no bundle was written.

    Raises:
        CheckpointError: The checkpoint is not usable.
        BundleConflictError: The output folder holds something else.
        OptionError: An option cannot be honoured.
        ExportError: ONNX export failed.
        MissingDependencyError: ONNX Runtime is not installed.
        RuntimeFailureError: A model cannot be run.
        CalibrationError: The calibration images cannot be used.
        GateError: int8 or fp8 cannot hold the gate.
    """
    require("onnxruntime")  # the parity report runs the file; refused now rather than after minutes of work
    progress("loading the checkpoint")
    checkpoint, output = load_asked(options), Path(options.output)
    notes = list(checkpoint.notes)
    model, source = model_record(checkpoint, options, notes), source_of(checkpoint)
    graph = OnnxOptions(image_size_px=model.preprocessing.crop_px, batch=options.batch, opset=options.opset)
    base = check_target(output, source, force=options.force)
    if options.keep_failed:
        check_failed_target(output)
    previous = read_previous_bundle(output, model, source, options.precisions, options.batch)
    if not options.force:
        refuse_losses(output, previous)
    notes += dropped_notes(previous.lost)
    training = model_from_state(
        checkpoint.architecture, checkpoint.form, checkpoint.state, out_indices=checkpoint.out_indices
    )
    folded = fold(training)
    images = CalibrationSource(source=options.calibration, skip_bad=options.skip_bad)
    calibrated = calibrate_lowerings(
        training, folded, model, source.weights_sha256, options.lowerings, images, options.gate, progress
    )
    notes += calibrated.notes
    failed_folder = None
    with kept_on_interruption(lambda: kept_calibration(calibrated.result)), staging(output) as staged:
        progress("fusing")
        weights = stage_weights(staged, checkpoint)
        parent = weights[0].file.sha256
        del checkpoint, training  # exporting needs the memory
        inputs = ExportInputs(
            model=folded, record=model, source=source, parent_sha256=parent, calibration=calibrated.result
        )
        made = stage_graphs(staged, inputs, calibrated.lowerings, graph, progress)
        del folded, inputs
        kept = previous.kept_beside(made, weights, staged)
        notes += dropped_notes(kept.dropped)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            tool_version=VERSION,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            model=model,
            source=source,
            weights=weights,
            onnx=kept.onnx,
            engines=kept.engines,
            samples=stage_samples(staged, calibrated.samples, parent) or previous.samples,
            libraries=library_versions(),
        )
        bundle, proving = Bundle(staged, manifest, base=output), within("proving parity", progress)
        expected = parity_reference(bundle, proving)
        parity = _prove(bundle, expected, options, notes, proving)
        report = stage_parity(staged, parity, parent)
        if parity.status is Status.PASSED:
            results = {"parity": report, **kept.results}
            outputs = expected.stage(staged, parent)
            manifest = dataclasses.replace(manifest, results=results, reference_outputs=outputs)
            commit(output, staged, manifest, force=options.force, base=base)
        elif options.keep_failed:
            failed_folder = keep_failed(output, staged, manifest, made, report)
    return _report(options, manifest, parity, notes, failed_folder)
