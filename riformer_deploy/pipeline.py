"""The stages in order: from a checkpoint to a bundle, or to a fused checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from riformer_deploy import __version__
from riformer_deploy.architecture import Form
from riformer_deploy.artifacts import (
    SCHEMA_VERSION,
    FileRecord,
    Manifest,
    ModelRecord,
    OnnxArtifact,
    Precision,
    Source,
    WeightsArtifact,
    WeightSet,
)
from riformer_deploy.budgets import BUDGETS, Budget
from riformer_deploy.bundles import Bundle, check_target, commit, record_file, staging
from riformer_deploy.calibration import Calibration, calibrate
from riformer_deploy.calibration_sets import CalibrationSet, calibration_set
from riformer_deploy.checkpoints import Checkpoint, check_expectations, load_checkpoint
from riformer_deploy.errors import (
    BundleConflictError,
    BundleError,
    CheckpointValuesError,
    GateError,
    OptionError,
)
from riformer_deploy.evidence import PARITY_BATCHES, Progress, prove_parity, silent
from riformer_deploy.export import DEFAULT_OPSET, OnnxOptions, export_onnx
from riformer_deploy.files import replacing
from riformer_deploy.fusion import fold, fuse
from riformer_deploy.lineup import model_of
from riformer_deploy.lowering import lower
from riformer_deploy.machine import library_versions
from riformer_deploy.model import RIFormer, model_from_state
from riformer_deploy.precision import (
    PrecisionOptions,
    check_options,
    needs_calibration,
    plan_lowering,
    record_lowering,
)
from riformer_deploy.preprocessing import resolve_preprocessing
from riformer_deploy.records import dump_json
from riformer_deploy.results import ParityResult, Status
from riformer_deploy.sensitivity import (
    Gate,
    SensitivityReport,
    int8_meter,
    rank_layers,
    spared_layers,
)
from riformer_deploy.variants import Variant

_SAMPLES = sum(PARITY_BATCHES)
"""Calibration images that a bundle keeps for its proofs."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export and where to.

    Attributes:
        checkpoint: The file.
        output: The bundle's folder.
        variant: The published model that the checkpoint must be; None recognises it.
        num_classes: The number of classes that it must have; None accepts what it has.
        weights: Which set of weights to take where the file holds two.
        image_size_px: Height and width; None takes what the checkpoint or the variant says.
        opset: Version of ONNX's default operator set.
        batch: A fixed batch size, or None for a dynamic one.
        budgets: Limits by precision.
        force: Replace a bundle of another checkpoint.
        precisions: What to export; models of other precisions that the bundle holds already stay.
        lowering: How to lower.
        calibration: ``random``, an ``.npz`` file or a folder of images; None for none.
        gate: What int8 must hold to on the calibration images, sparing layers if need be.
    """

    checkpoint: Path
    output: Path
    variant: Variant | None = None
    num_classes: int | None = None
    weights: WeightSet | None = None
    image_size_px: tuple[int, int] | None = None
    opset: int = DEFAULT_OPSET
    batch: int | None = None
    budgets: dict[Precision, Budget] = dataclasses.field(default_factory=lambda: dict(BUDGETS))
    force: bool = False
    precisions: tuple[Precision, ...] = (Precision.FP32,)
    lowering: PrecisionOptions = dataclasses.field(default_factory=PrecisionOptions)
    calibration: str | None = None
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if not self.precisions or len(set(self.precisions)) != len(self.precisions):
            raise OptionError(f"Each precision can be asked for once, got {list(map(str, self.precisions))}.")
        if self.gate is not None and Precision.INT8 not in self.precisions:
            raise OptionError("--min-sqnr and --max-drop choose layers of int8, which was not asked for.")


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export did.

    Attributes:
        status: ``failed`` if parity did not hold; then nothing was written.
        bundle: The bundle's folder, or None where nothing was written.
        model: What the model is.
        source: What it was made from.
        files: Every file of the bundle but ``bundle.json``; none where nothing was written.
        parity: The proof.
        notes: What the user should know, such as an assumption that was made.
    """

    status: Status
    bundle: str | None
    model: ModelRecord
    source: Source
    files: tuple[FileRecord, ...]
    parity: ParityResult
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FuseReport:
    """What ``fuse`` wrote.

    Attributes:
        output: The file.
        sha256: Of its content.
        source_form: The form of the checkpoint; ``deploy`` means that there was nothing to fuse.
        parameters: Number of weights written.
    """

    output: str
    sha256: str
    source_form: Form
    parameters: int


def _model_record(checkpoint: Checkpoint, options: ExportOptions, notes: list[str]) -> ModelRecord:
    preprocessing = resolve_preprocessing(
        checkpoint, variant=options.variant, image_size_px=options.image_size_px, notes=notes
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
        class_names=checkpoint.class_names,
    )


def _save_weights(path: Path, checkpoint: Checkpoint, form: Form) -> None:
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
            "version": __version__,
            "source_sha256": checkpoint.sha256,
            "weights": str(checkpoint.weights),
            "form": str(form),
            "mean": checkpoint.mean,
            "std": checkpoint.std,
        }
    }
    with replacing(path) as partial, partial.open("wb") as file:
        torch.save({"meta": {**checkpoint.meta, **provenance}, "state_dict": dict(state)}, file)


def _stage_weights(staged: Path, checkpoint: Checkpoint) -> tuple[WeightsArtifact, ...]:
    """The reference first: the training form if there is one; then the deploy form."""
    forms = (Form.TRAINING, Form.DEPLOY) if checkpoint.form is Form.TRAINING else (Form.DEPLOY,)
    parent = checkpoint.sha256
    artifacts = []
    for form in forms:
        path = staged / f"{form}.pth"
        _save_weights(path, checkpoint, form)
        artifacts.append(WeightsArtifact(file=record_file(path, parent), form=form))
        parent = artifacts[0].file.sha256
    return tuple(artifacts)


def _measured(
    model: RIFormer, source: Source, record: ModelRecord, options: ExportOptions, progress: Progress
) -> tuple[CalibrationSet, Calibration] | None:
    """The calibration, where any of the precisions needs one."""
    if not any(needs_calibration(precision, options.lowering) for precision in options.precisions):
        return None
    if options.calibration is None and Precision.INT8 in options.precisions:
        raise OptionError(
            "int8 needs calibration images.",
            remedy="Give --calibration FOLDER or FILE.npz, or say --calibration random.",
        )
    images = calibration_set(options.calibration or "random", record.preprocessing)
    method, equalize = options.lowering.method, options.lowering.equalize
    calibration = calibrate(
        model, source.weights_sha256, images, method, equalize=equalize, progress=progress
    )
    return images, calibration


def _spared(
    model: RIFormer,
    reference: RIFormer,
    record: ModelRecord,
    measured: tuple[CalibrationSet, Calibration],
    options: ExportOptions,
    progress: Progress,
) -> PrecisionOptions:
    """The lowering's options, with the layers spared that the gate asks for."""
    gate = options.gate
    if gate is None:
        return options.lowering
    meter = int8_meter(model, reference, record, measured, options.lowering)
    cost = meter.cost(options.lowering.keep)
    if not gate.holds(cost):
        ranking = rank_layers(meter, measured[0].source, progress).layers
        kept, cost = spared_layers(meter, ranking, gate)
        options = dataclasses.replace(options, lowering=dataclasses.replace(options.lowering, keep=kept))
    if not gate.holds(cost):
        raise GateError(
            f"int8 cannot hold the gate, even with every layer spared: {cost.sqnr_db or 0:.1f} dB, "
            f"{cost.drop_points:.2f} points of changed classes.",
            remedy="Loosen --min-sqnr or --max-drop; the base precision itself is not as close.",
        )
    return options.lowering


def _stage_onnx(
    staged: Path,
    model: RIFormer,
    record: ModelRecord,
    parent_sha256: str,
    options: ExportOptions,
    precision: Precision,
    source: Source,
    measured: tuple[CalibrationSet, Calibration] | None,
) -> OnnxArtifact:
    used = measured if measured is not None and needs_calibration(precision, options.lowering) else None
    plan = plan_lowering(precision, options.lowering, used[1] if used else None)
    lowering = record_lowering(model, precision, options.lowering, plan, used)
    path = staged / f"model.{precision}.onnx"
    inputs, outputs = export_onnx(
        lower(model, plan, record.preprocessing),
        path,
        OnnxOptions(image_size_px=record.preprocessing.crop_px, batch=options.batch, opset=options.opset),
        {
            "tool_version": __version__,
            "precision": str(precision),
            "source_sha256": source.sha256,
            "weights_sha256": source.weights_sha256,
            "norm": lowering.norm,
            "input": lowering.input_form,
            "output": lowering.output_form,
            "calibration": "random images" if used and used[0].random else used[0].source if used else "none",
        },
    )
    return OnnxArtifact(
        file=record_file(path, parent_sha256),
        precision=precision,
        opset=options.opset,
        inputs=inputs,
        outputs=outputs,
        lowering=lowering,
    )


def _stage_samples(
    staged: Path, measured: tuple[CalibrationSet, Calibration] | None, parent_sha256: str
) -> FileRecord | None:
    """Calibration images for proofs, where there are real ones."""
    if measured is None or measured[0].random:
        return None
    path = staged / "samples.npy"
    np.save(path, measured[0].first(_SAMPLES), allow_pickle=False)
    return record_file(path, parent_sha256)


def _kept(output: Path, weights: tuple[WeightsArtifact, ...]) -> Manifest | None:
    """The bundle that is there already, where it was made of the same weights."""
    try:
        current = Bundle.open(output).manifest
    except BundleError:
        return None
    return current if [w.file.sha256 for w in current.weights] == [w.file.sha256 for w in weights] else None


def export_checkpoint(options: ExportOptions, progress: Progress = silent) -> ExportReport:
    """Checkpoint to bundle: load, recognise, fuse, fold, export, prove; then put it in place.

    Args:
        options: What to export and where to.
        progress: Told of each step.

    Returns:
        The report; where parity failed nothing was written.

    Raises:
        CheckpointError: The checkpoint is not usable.
        BundleConflictError: The output folder holds something else.
        OptionError: An option cannot be honoured.
        ExportError: ONNX export failed.
        RuntimeFailureError: A model cannot be run.
    """
    progress("loading the checkpoint")
    checkpoint = load_checkpoint(options.checkpoint, weights=options.weights)
    check_expectations(
        checkpoint,
        architecture=options.variant.architecture if options.variant else None,
        num_classes=options.num_classes,
    )
    notes: list[str] = []
    model = _model_record(checkpoint, options, notes)
    OnnxOptions(image_size_px=model.preprocessing.crop_px, batch=options.batch, opset=options.opset)
    check_target(options.output, checkpoint.sha256, force=options.force)
    source = Source(
        file_name=checkpoint.path.name.encode(errors="replace").decode(),
        sha256=checkpoint.sha256,
        form=checkpoint.form,
        weights=checkpoint.weights,
        weights_sha256=checkpoint.weights_sha256,
    )
    folded = fold(model_from_state(checkpoint.architecture, checkpoint.form, checkpoint.state))
    for precision in options.precisions:
        check_options(precision, options.lowering, folded, options.opset)
    measured = _measured(folded, source, model, options, progress)
    if measured is not None:
        notes += measured[0].warnings
        if Precision.INT8 in options.precisions:
            training = model_from_state(checkpoint.architecture, checkpoint.form, checkpoint.state)
            lowering = _spared(folded, training, model, measured, options, progress)
            options = dataclasses.replace(options, lowering=lowering)
    with staging(options.output) as staged:
        progress("fusing")
        weights = _stage_weights(staged, checkpoint)
        parent = weights[0].file.sha256
        del checkpoint
        artifacts = []
        for precision in options.precisions:
            progress(f"exporting {precision} to ONNX")
            artifacts.append(_stage_onnx(staged, folded, model, parent, options, precision, source, measured))
        del folded
        samples = _stage_samples(staged, measured, parent)
        before = _kept(options.output, weights)
        made = {artifact.precision for artifact in artifacts}
        if before is not None and before.model.preprocessing == model.preprocessing:
            artifacts += [a for a in before.onnx if a.precision not in made and a.batch == artifacts[0].batch]
            samples = samples or before.samples
        order = list(Precision)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            tool_version=__version__,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            model=model,
            source=source,
            weights=weights,
            onnx=tuple(sorted(artifacts, key=lambda artifact: order.index(artifact.precision))),
            samples=samples,
            libraries=library_versions(),
        )
        parity = prove_parity(
            Bundle(staged, manifest, base=options.output),
            options.budgets,
            lambda step: progress(f"proving parity: {step}"),
        )
        if parity.status is Status.PASSED:
            path = staged / "parity.json"
            path.write_text(dump_json(parity), encoding="utf-8")
            manifest = dataclasses.replace(manifest, results={"parity": record_file(path, parent)})
            commit(options.output, staged, manifest)
    return ExportReport(
        status=parity.status,
        bundle=str(options.output) if parity.status is Status.PASSED else None,
        model=model,
        source=source,
        files=manifest.files if parity.status is Status.PASSED else (),
        parity=parity,
        notes=tuple(notes),
    )


def fuse_checkpoint(
    checkpoint_path: Path, output: Path, *, weights: WeightSet | None = None, force: bool = False
) -> FuseReport:
    """Mmpretrain's reparameterize tool: a checkpoint in training form as one in deploy form.

    Args:
        checkpoint_path: Any checkpoint that ``export`` accepts.
        output: The file to write; the result holds ``meta`` (plain data only) and ``state_dict``.
        weights: Which set of weights to take where the file holds two.
        force: Replace ``output`` if it exists.

    Raises:
        CheckpointError: The checkpoint is not usable.
        BundleConflictError: ``output`` exists and ``force`` was not given.
        OptionError: ``output`` cannot be written.
    """
    try:
        taken = output.exists() and (not force or output.is_dir())
    except OSError as err:  # a name that the system refuses
        raise OptionError(f"{output} cannot be written: {err.strerror}") from err
    if taken:
        raise BundleConflictError(
            f"{output} exists already.", remedy="Use --force to replace it, or another -o."
        )
    if not output.parent.is_dir():
        raise OptionError(f"The folder {output.parent} does not exist.", remedy="Create it first.")
    checkpoint = load_checkpoint(checkpoint_path, weights=weights)
    try:
        _save_weights(output, checkpoint, Form.DEPLOY)
    except OSError as err:
        raise OptionError(f"{output} cannot be written: {err}") from err
    written = load_checkpoint(output)
    return FuseReport(
        output=str(output),
        sha256=written.sha256,
        source_form=checkpoint.form,
        parameters=sum(value.numel() for value in written.state.values()),
    )


def bundle_sensitivity(
    directory: Path, calibration: str, options: PrecisionOptions, progress: Progress = silent
) -> SensitivityReport:
    """``sensitivity``: what quantising each layer of a bundle's model alone costs.

    Args:
        directory: The bundle.
        calibration: ``random``, an ``.npz`` file or a folder of images.
        options: How to lower.
        progress: Told of each step.

    Raises:
        BundleError: It is not a bundle, or a file was changed.
        CalibrationError: The images are not usable.
    """
    bundle = Bundle.open(directory)
    record, source = bundle.manifest.model, bundle.manifest.source
    reference = model_of(bundle.path_of(bundle.manifest.weights[0].file))
    folded = fold(reference)
    images = calibration_set(calibration, record.preprocessing)
    calibrated = calibrate(
        folded, source.weights_sha256, images, options.method, equalize=options.equalize, progress=progress
    )
    meter = int8_meter(folded, reference, record, (images, calibrated), options)
    return rank_layers(meter, images.source, progress)
