"""What the manifest says of a lowering."""

from __future__ import annotations

from riformer_deploy.bundle.artifacts import CalibrationRecord, LoweringRecord
from riformer_deploy.common.enums import OutputForm, Precision
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.export.config import LoweringPlan, PrecisionOptions, quantizable
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.calibration import Calibration


def record_lowering(
    model: RIFormer,
    precision: Precision,
    options: PrecisionOptions,
    plan: LoweringPlan,
    measured: tuple[CalibrationSet, Calibration] | None,
) -> LoweringRecord:
    """What the manifest says of a lowering.

    Args:
        model: In folded form.
        precision: The precision.
        options: How it was lowered.
        plan: The choices that were made.
        measured: What it was calibrated on.
    """
    calibration = None
    if measured is not None:
        images, result = measured
        calibration = CalibrationRecord(
            source=images.source,
            random=images.random,
            images=images.count,
            key=result.key,
            method=str(options.method_of(precision)),
        )
    unquantized = [name for name in quantizable(model, precision) if name not in plan.ranges]
    return LoweringRecord(
        norm=str(options.norm),
        base=options.base_of(precision),
        io=options.io,
        input_form=str(options.input_form),
        output_form=str(options.output_form),
        topk=options.topk if options.output_form is OutputForm.TOPK else None,
        float32_blocks=tuple(sorted(plan.float32_blocks)),
        unquantized=tuple(unquantized),
        equalized=tuple(plan.smoothquant_scales),
        quantized_residual=bool(plan.residual_ranges),
        calibration=calibration,
        norm_io=options.norm_io,
        mlp=str(options.mlp),
        norm2=str(options.norm2),
    )
