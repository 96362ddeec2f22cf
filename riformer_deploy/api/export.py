"""``export``: from a checkpoint to a bundle, every stage in order."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
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
from riformer_deploy.api.parity import MODELS, measure_parity
from riformer_deploy.api.parity_reference import ParityReference, parity_reference
from riformer_deploy.api.previous_bundle import dropped_notes, read_previous_bundle, refuse_losses
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import SCHEMA_VERSION, Manifest, ModelRecord, Source
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import check_target, commit, staging
from riformer_deploy.checkpoints.config_agreement import with_config
from riformer_deploy.checkpoints.download import DownloadOptions, named_checkpoint
from riformer_deploy.checkpoints.load import Checkpoint, check_expectations, load_checkpoint
from riformer_deploy.checkpoints.preprocessing import resolve_preprocessing
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.enums import Precision, WeightSet
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.data.class_names import resolve_class_names
from riformer_deploy.data.preprocessing_changes import AS_FOUND, PreprocessingChanges, parse_changes
from riformer_deploy.evaluation.parity_failures import why_failed
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance, changed_tolerances
from riformer_deploy.export.onnx_export import DEFAULT_OPSET, OnnxOptions
from riformer_deploy.export.option_checks import check_opset, refuse_unused
from riformer_deploy.model.network import model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import Variant, find_variant, get_variant
from riformer_deploy.quantization.accuracy_control import (
    calibrate_lowerings,
)
from riformer_deploy.quantization.sensitivity import Gate
from riformer_deploy.system.machine import library_versions

__all__ = [
    "AS_FOUND",
    "DEFAULT_OPSET",
    "DownloadOptions",
    "ExportOptions",
    "ExportReport",
    "Gate",
    "LoweringConfig",
    "Status",
    "changed_tolerances",
    "export_checkpoint",
    "find_variant",
    "get_variant",
    "named_checkpoint",
    "parse_changes",
]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export and where to.

    Attributes:
        checkpoint: The file.
        output: The bundle's folder.
        variant: The published model that the checkpoint must be; None recognises it.
        num_classes: The number of classes that it must have; None accepts what it has.
        weights: Which set of weights to take where the file holds two.
        key: Which RIFormer to take where it holds several.
        config: mmengine's config file of the checkpoint; None takes the one stored in it.
        image_size_px: Height and width; None takes what the checkpoint or the variant says.
        preprocessing: Settings that go before what the checkpoint or the variant says.
        class_names: A file of class names, one a line; None takes those stored, else ImageNet-1k's
            for 1000 classes.
        opset: Version of ONNX's default operator set.
        batch: A fixed batch size, or None for a dynamic one.
        tolerances: Limits by precision.
        force: Replace a bundle of another checkpoint.
        lowerings: What to export, one config for each precision; models of other precisions that the bundle
            holds already stay.
        calibration: ``random``, an ``.npz`` file or a folder of images; None for none. Parity, too, runs on
            real ones.
        skip_bad: Use the rest of the calibration images where part of them cannot be used.
        gate: What int8 and fp8 must hold to on the calibration images, excluding layers if need be.
    """

    checkpoint: Path | str
    output: Path | str
    variant: Variant | None = None
    num_classes: int | None = None
    weights: WeightSet | None = None
    key: str | None = None
    config: Path | str | None = None
    image_size_px: tuple[int, int] | None = None
    preprocessing: PreprocessingChanges = AS_FOUND
    class_names: Path | str | None = None
    opset: int = DEFAULT_OPSET
    batch: int | None = None
    tolerances: dict[Precision, Tolerance] = dataclasses.field(default_factory=lambda: dict(TOLERANCES))
    force: bool = False
    lowerings: tuple[LoweringConfig, ...] = (LoweringConfig(),)
    calibration: Path | str | None = None
    skip_bad: bool = False
    gate: Gate | None = None

    def __post_init__(self) -> None:
        precisions = self.precisions
        if not precisions or len(set(precisions)) != len(precisions):
            raise OptionError(f"Each precision can be asked for once, got {list(map(str, precisions))}.")
        if self.gate is not None and not any(precision.is_quantized for precision in precisions):
            raise OptionError(
                "--min-sqnr and --max-drop choose layers of int8 and fp8, and neither was asked for."
            )
        refuse_unused(self.lowerings)
        check_opset(self.lowerings, self.opset)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What to export."""
        return tuple(config.precision for config in self.lowerings)


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


def _load(options: ExportOptions) -> Checkpoint:
    checkpoint = load_checkpoint(options.checkpoint, weights=options.weights, key=options.key)
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


def _proving(progress: Progress) -> Progress:
    """Steps of the parity report as steps of the export."""
    return lambda step: progress(f"proving parity: {step}")


def _report(
    options: ExportOptions, manifest: Manifest, parity: ParityResult, notes: list[str]
) -> ExportReport:
    written = parity.status is Status.PASSED
    return ExportReport(
        status=parity.status,
        bundle=str(options.output) if written else None,
        model=manifest.model,
        source=manifest.source,
        files=manifest.files if written else (),
        parity=parity,
        notes=tuple(notes),
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
    checkpoint, output = _load(options), Path(options.output)
    notes = list(checkpoint.notes)
    model, source = _model_record(checkpoint, options, notes), source_of(checkpoint)
    graph = OnnxOptions(image_size_px=model.preprocessing.crop_px, batch=options.batch, opset=options.opset)
    base = check_target(output, source, force=options.force)
    previous = read_previous_bundle(output, model, source, options.precisions, options.batch)
    if not options.force:
        refuse_losses(output, previous)
    notes += dropped_notes(previous.lost)
    training = model_from_state(checkpoint.architecture, checkpoint.form, checkpoint.state)
    folded = fold(training)
    images = CalibrationSource(source=options.calibration, skip_bad=options.skip_bad)
    calibrated = calibrate_lowerings(
        training, folded, model, source.weights_sha256, options.lowerings, images, options.gate, progress
    )
    notes += calibrated.notes
    with staging(output) as staged:
        progress("fusing")
        weights = stage_weights(staged, checkpoint)
        parent = weights[0].file.sha256
        del checkpoint, training  # exporting needs the memory
        inputs = ExportInputs(
            model=folded, record=model, source=source, parent_sha256=parent, calibration=calibrated.result
        )
        made = stage_graphs(staged, inputs, calibrated.lowerings, graph, progress)
        del folded, inputs
        kept = previous.kept_beside(made, parent)
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
        bundle, proving = Bundle(staged, manifest, base=output), _proving(progress)
        expected = parity_reference(bundle, proving)
        parity = _prove(bundle, expected, options, notes, proving)
        if parity.status is Status.PASSED:
            results = {"parity": stage_parity(staged, parity, parent), **kept.results}
            outputs = expected.stage(staged, parent)
            manifest = dataclasses.replace(manifest, results=results, reference_outputs=outputs)
            commit(output, staged, manifest, force=options.force, base=base)
    return _report(options, manifest, parity, notes)
