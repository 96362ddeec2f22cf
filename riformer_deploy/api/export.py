"""The stages in order: from a checkpoint to a bundle, or to a fused checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from riformer_deploy.api.bundle_assembly import (
    ExportInputs,
    previous_bundle,
    refuse_losses,
    stage_onnx,
    stage_samples,
    stage_weights,
)
from riformer_deploy.api.parity import MODELS, measure_parity
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.manifest import SCHEMA_VERSION, Manifest, ModelRecord, Source
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import check_target, commit, record_file, staging
from riformer_deploy.checkpoints.config_agreement import with_config
from riformer_deploy.checkpoints.load import Checkpoint, check_expectations, load_checkpoint
from riformer_deploy.checkpoints.preprocessing import resolve_preprocessing
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.enums import Precision, WeightSet
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.data.class_names import resolve_class_names
from riformer_deploy.data.preprocessing_changes import AS_FOUND, PreprocessingChanges
from riformer_deploy.evaluation.parity_failures import why_failed
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance
from riformer_deploy.export.config import PrecisionOptions
from riformer_deploy.export.onnx_export import DEFAULT_OPSET, OnnxOptions
from riformer_deploy.export.option_checks import check_opset, check_options, refuse_unused
from riformer_deploy.model.network import model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import Variant
from riformer_deploy.quantization.accuracy_control import calibrate_for, parity_images, restore_accuracy
from riformer_deploy.quantization.sensitivity import Gate
from riformer_deploy.system.machine import library_versions


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export and where to.

    Attributes:
        checkpoint: The file.
        output: The bundle's folder.
        variant: The published model that the checkpoint must be; None recognises it.
        num_classes: The number of classes that it must have; None accepts what it has.
        weights: Which set of weights to take where the file holds two.
        config: mmengine's config file of the checkpoint; None takes the one stored in it.
        image_size_px: Height and width; None takes what the checkpoint or the variant says.
        preprocessing: Settings that go before what the checkpoint or the variant says.
        class_names: A file of class names, one a line; None takes those stored, else ImageNet-1k's
            for 1000 classes.
        opset: Version of ONNX's default operator set.
        batch: A fixed batch size, or None for a dynamic one.
        tolerances: Limits by precision.
        force: Replace a bundle of another checkpoint.
        precisions: What to export; models of other precisions that the bundle holds already stay.
        lowering: How to lower.
        calibration: ``random``, an ``.npz`` file or a folder of images; None for none. Parity, too, runs on
            real ones.
        skip_bad: Use the rest of the calibration images where part of them cannot be used.
        gate: What int8 and fp8 must hold to on the calibration images, sparing layers if need be.
    """

    checkpoint: Path
    output: Path
    variant: Variant | None = None
    num_classes: int | None = None
    weights: WeightSet | None = None
    config: Path | None = None
    image_size_px: tuple[int, int] | None = None
    preprocessing: PreprocessingChanges = AS_FOUND
    class_names: Path | None = None
    opset: int = DEFAULT_OPSET
    batch: int | None = None
    tolerances: dict[Precision, Tolerance] = dataclasses.field(default_factory=lambda: dict(TOLERANCES))
    force: bool = False
    precisions: tuple[Precision, ...] = (Precision.FP32,)
    lowering: PrecisionOptions = dataclasses.field(default_factory=PrecisionOptions)
    calibration: str | None = None
    skip_bad: bool = False
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if not self.precisions or len(set(self.precisions)) != len(self.precisions):
            raise OptionError(f"Each precision can be asked for once, got {list(map(str, self.precisions))}.")
        if self.gate is not None and not any(precision.is_quantized for precision in self.precisions):
            raise OptionError(
                "--min-sqnr and --max-drop choose layers of int8 and fp8, and neither was asked for."
            )
        refuse_unused(self.precisions, self.lowering)
        check_opset(self.precisions, self.lowering, self.opset)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export did.

    Attributes:
        status: ``failed`` if a file's parity did not hold; then nothing was written. A runtime's own verdict,
            such as OpenVINO's, is in ``parity`` and ``notes`` and keeps no file from being written.
        bundle: The bundle's folder, or None where nothing was written.
        model: What the model is.
        source: What it was made from.
        files: Every file of the bundle but ``bundle.json``; none where nothing was written.
        parity: The parity report.
        notes: What the user should know, such as an assumption that was made.
    """

    status: Status
    bundle: str | None
    model: ModelRecord
    source: Source
    files: tuple[FileRecord, ...]
    parity: ParityResult
    notes: tuple[str, ...]


def _model_record(checkpoint: Checkpoint, options: ExportOptions, notes: list[str]) -> ModelRecord:
    preprocessing = resolve_preprocessing(
        checkpoint,
        variant=options.variant,
        image_size_px=options.image_size_px,
        notes=notes,
        changes=options.preprocessing,
    )
    published = [
        variant.name
        for variant in checkpoint.variants
        if variant.architecture == checkpoint.architecture
        and (variant.image_size_px,) * 2 == preprocessing.crop_px
    ]
    return ModelRecord(
        variant=published[0] if published else None,
        architecture=checkpoint.architecture,
        preprocessing=preprocessing,
        class_names=resolve_class_names(
            checkpoint.class_names, checkpoint.architecture.num_classes, options.class_names, notes
        ),
    )


def export_checkpoint(options: ExportOptions, progress: Progress = silent) -> ExportReport:
    """Checkpoint to bundle: load, recognise, fuse, fold, export, prove; then put it in place.

    Args:
        options: What to export and where to.
        progress: Called with each step.

    Returns:
        The report; where parity failed nothing was written.

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
    require("onnxruntime")  # the parity report runs the file; told now rather than after minutes of work
    progress("loading the checkpoint")
    checkpoint = with_config(load_checkpoint(options.checkpoint, weights=options.weights), options.config)
    check_expectations(
        checkpoint,
        architecture=options.variant.architecture if options.variant else None,
        num_classes=options.num_classes,
    )
    notes = list(checkpoint.notes)
    model = _model_record(checkpoint, options, notes)
    graph = OnnxOptions(image_size_px=model.preprocessing.crop_px, batch=options.batch, opset=options.opset)
    source = Source(
        file_name=checkpoint.path.name.encode(errors="replace").decode(),
        sha256=checkpoint.sha256,
        form=checkpoint.form,
        weights=checkpoint.weights,
        weights_sha256=checkpoint.weights_sha256,
    )
    check_target(options.output, source, force=options.force)
    kept, lost = previous_bundle(options.output, model, source, options.precisions, options.batch)
    if not options.force:
        refuse_losses(options.output, lost)
    notes += [f"dropped from the bundle: {text}" for text in lost]
    training = model_from_state(checkpoint.architecture, checkpoint.form, checkpoint.state)
    folded = fold(training)
    for precision in options.precisions:
        check_options(precision, options.lowering, folded)
    images = CalibrationSource(source=options.calibration, skip_bad=options.skip_bad)
    measured, remarks = calibrate_for(
        folded, source.weights_sha256, model, options.precisions, options.lowering, images, progress
    )
    real, more = parity_images(measured, images, model)
    notes += (*remarks, *more)
    lowerings = dict.fromkeys(options.precisions, options.lowering)
    if measured is not None and options.gate is not None:
        for precision in [item for item in options.precisions if item.is_quantized]:
            lowerings[precision], text = restore_accuracy(
                folded, training, model, measured, precision, options.lowering, options.gate, progress
            )
            notes.append(text)
    with staging(options.output) as staged:
        progress("fusing")
        weights = stage_weights(staged, checkpoint)
        parent = weights[0].file.sha256
        del checkpoint, training
        made_of = ExportInputs(
            model=folded, record=model, source=source, parent_sha256=parent, measured=measured
        )
        artifacts = list(kept.onnx)
        for precision in options.precisions:
            progress(f"exporting {precision} to ONNX")
            artifacts.append(stage_onnx(staged, made_of, precision, lowerings[precision], graph))
        del folded, made_of
        samples = stage_samples(staged, real, parent) or kept.samples
        order = list(Precision)
        onnx = tuple(sorted(artifacts, key=lambda artifact: order.index(artifact.precision)))
        engines = kept.engines_of(onnx)
        notes += [
            f"dropped from the bundle: {engine.file.path}: it was built from a model that is replaced"
            for engine in kept.engines
            if engine not in engines
        ]
        notes += [
            f"dropped from the bundle: {record.path}: it was measured before this export"
            for kind, record in kept.results.items()
            if kind != "parity" and kind not in kept.parity_of(engines, parent)
        ]
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            tool_version=VERSION,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            model=model,
            source=source,
            weights=weights,
            onnx=onnx,
            engines=engines,
            samples=samples,
            libraries=library_versions(),
        )
        parity = measure_parity(
            Bundle(staged, manifest, base=options.output),
            options.tolerances,
            lambda step: progress(f"proving parity: {step}"),
            groups=MODELS,
        )
        notes += [
            f"{why_failed(candidate)}: this runtime's own verdict; the file is judged in ONNX Runtime"
            for candidate in parity.failed
            if not candidate.judges_file
        ]
        if parity.status is Status.PASSED:
            path = staged / "parity.json"
            path.write_text(dump_json(parity), encoding="utf-8")
            report = record_file(path, weights[0].file.sha256)
            manifest = dataclasses.replace(
                manifest, results={"parity": report, **kept.parity_of(engines, parent)}
            )
            commit(options.output, staged, manifest, force=options.force)
    return ExportReport(
        status=parity.status,
        bundle=str(options.output) if parity.status is Status.PASSED else None,
        model=model,
        source=source,
        files=manifest.files if parity.status is Status.PASSED else (),
        parity=parity,
        notes=tuple(notes),
    )
