"""Calibrates a model and chooses the layers that stay unquantised so that a gate holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from riformer_deploy.bundle.manifest import ModelRecord
from riformer_deploy.common.enums import Norm2Form, Precision
from riformer_deploy.common.errors import GateError
from riformer_deploy.common.progress import Progress
from riformer_deploy.data.calibration import CalibrationSet, random_set
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.export.config import PrecisionOptions
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.calibration import Calibration, CalibrationConfig, calibrate
from riformer_deploy.quantization.planning import needs_calibration
from riformer_deploy.quantization.sensitivity import (
    Cost,
    Gate,
    choose_excluded_layers,
    evaluator_of,
    rank_layers,
)

SWEEP = "fp16: whether an activation overflows was tried on random images; real ones were not given"


def calibrate_for(
    model: RIFormer,
    weights_sha256: str,
    record: ModelRecord,
    precisions: Sequence[Precision],
    options: PrecisionOptions,
    images: CalibrationSource,
    progress: Progress,
) -> tuple[tuple[CalibrationSet, Calibration] | None, tuple[str, ...]]:
    """The calibration, where any precision needs one, and what the user should know of it.

    Args:
        model: In folded form, float32.
        weights_sha256: Of its weights.
        record: The model's.
        precisions: What is going to be made.
        options: How to lower.
        images: Which images.
        progress: Called with each step.

    Raises:
        OptionError: int8 or fp8 without images.
        CalibrationError: The images cannot be used.
    """
    if not any(needs_calibration(precision, options) for precision in precisions):
        return None, ()
    quantized = [precision for precision in precisions if precision.is_quantized]
    sweep = images.source is None and not quantized
    given = (
        random_set(record.preprocessing)
        if sweep
        else images.open(record.preprocessing, " and ".join(quantized))
    )
    notes = (SWEEP,) if sweep else given.warnings
    config = calibration_config(options, ranges=Precision.INT8 in precisions)
    return (given, calibrate(model, weights_sha256, given, config, progress)), notes


def parity_images(
    measured: tuple[CalibrationSet, Calibration] | None, images: CalibrationSource, record: ModelRecord
) -> tuple[CalibrationSet | None, tuple[str, ...]]:
    """The images that parity runs on, where real ones were given, and what the user should know of them.

    Synthetic images can be far from all that a model was trained on: of those for riformer-digits, two have
    17 and 26 dB in bfloat16 even where only roundings are emulated, in float64; its real images have 51.

    Args:
        measured: The calibration, where a precision needed one.
        images: Which images were named.
        record: The model's.

    Raises:
        CalibrationError: The images cannot be used.
    """
    if measured is not None:
        return (None if measured[0].random else measured[0]), ()
    if images.source is None:
        return None, ()
    given = images.open(record.preprocessing, "parity")
    if given.random:
        return None, ("the calibration images were not used: fp32 and bf16 need none, and these are random",)
    return given, (*given.warnings, "fp32 and bf16 need no calibration; parity runs on its images")


def calibration_config(options: PrecisionOptions, *, ranges: bool) -> CalibrationConfig:
    """What a calibration must measure so that a model can be lowered with these options.

    Args:
        options: How to lower.
        ranges: Whether int8 is among the precisions, which needs histograms of the layers' inputs.
    """
    return CalibrationConfig(
        method=options.method_of(Precision.INT8),
        equalize=options.equalize is not False,
        ranges=ranges,
        residual=options.quantize_residual,
        products=options.norm2 is Norm2Form.FOLDED,
        branches=options.norm_io is Precision.FP16,
    )


def _told(cost: Cost) -> str:
    sqnr = "no error" if cost.sqnr_db is None else f"{cost.sqnr_db:.2f} dB"
    return f"{sqnr}, {cost.drop_points:.2f} % of first classes changed"


def restore_accuracy(
    model: RIFormer,
    reference: RIFormer,
    record: ModelRecord,
    measured: tuple[CalibrationSet, Calibration],
    precision: Precision,
    options: PrecisionOptions,
    gate: Gate,
    progress: Progress,
) -> tuple[PrecisionOptions, str]:
    """The options with the layers excluded that the gate asks for, and a sentence that names them.

    Args:
        model: In folded form, float32.
        reference: In training or deploy form.
        record: The model's.
        measured: The calibration.
        precision: A quantised one.
        options: How to lower.
        gate: What must hold on the calibration images.
        progress: Called with each step.

    Raises:
        GateError: Excluding every layer is not enough.
    """
    progress(f"measuring {precision} for the gate")
    evaluator = evaluator_of(model, reference, record, measured, options, precision)
    kept, cost = options.keep, evaluator.cost(options.keep)
    if not gate.holds(cost):
        ranking = rank_layers(evaluator, measured[0].source, progress).layers
        kept, cost = choose_excluded_layers(evaluator, ranking, gate, progress)
    base = options.base_of(precision)
    where = f"on {len(evaluator.images)} calibration images: {_told(cost)}"
    if not gate.holds(cost):
        residual = precision is Precision.INT8 and options.quantize_residual
        raise GateError(
            f"{precision} cannot hold the gate, even with every layer excluded; {where}.",
            remedy="Leave out --quantize-residual, which no excluded layer undoes, or loosen --min-sqnr or "
            "--max-drop."
            if residual
            else f"Loosen --min-sqnr or --max-drop: {base} itself is not as close.",
        )
    excluded = sorted(kept - options.keep)
    text = f"the gate of {precision} holds {where}; " + (
        f"kept in {base} for it: {', '.join(excluded)}" if excluded else "no layer had to be excluded"
    )
    return dataclasses.replace(options, keep=kept), text
