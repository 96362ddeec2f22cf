"""From a folded model to one of a given precision: which choices to make."""

from __future__ import annotations

import torch

from riformer_deploy.common.enums import (
    Precision,
)
from riformer_deploy.common.errors import OptionError
from riformer_deploy.export.config import LoweringPlan, PrecisionOptions, quantizes, torch_dtype, unfit_forms
from riformer_deploy.export.quantized_layers import FLOAT8
from riformer_deploy.quantization.calibration import Calibration

HALF_LIMIT = 65504 / 2
"""Largest calibration value that half precision may store: half its range is left for unseen images."""
FP8_HEADROOM = 2
"""FP8's ranges reach so many times the largest value that calibration saw.

Clipping costs much and range almost nothing: E4M3's 3 bits of mantissa are as fine over 14 powers of two.
"""


def _ranges(precision: Precision, calibration: Calibration, wide: frozenset[str]) -> dict[str, float]:
    """Ranges by layer, of every layer that the precision quantises.

    Raises:
        OptionError: The calibration holds none.
    """
    if precision is Precision.INT8:
        if not calibration.ranges:
            raise OptionError(
                "The calibration holds no ranges for int8.",
                remedy="Calibrate with CalibrationConfig(ranges=True).",
            )
        return calibration.ranges
    if not calibration.largest:
        raise OptionError(
            "The calibration holds no largest inputs of layers, from which fp8's ranges follow.",
            remedy="Calibrate again: every calibration measures them.",
        )
    # What stays in float32 stays out of fp8 too: ONNX Runtime 1.27 fuses a product of float8 whose scales
    # are float32 into an operator for int8, and then refuses the graph.
    return {
        name: FP8_HEADROOM * (top or 1.0)
        for name, top in calibration.largest.items()
        if quantizes(precision, name) and name.rsplit(".mlp.", 1)[0] not in wide
    }


def resolve_lowering(
    precision: Precision, options: PrecisionOptions, calibration: Calibration | None
) -> LoweringPlan:
    """Every choice of a lowering.

    Args:
        precision: The precision.
        options: How to lower.
        calibration: Ranges and absolute maxima; needed for int8 and fp8, and for fp16 or a half base to find
            overflows.

    Raises:
        OptionError: int8 or fp8 without a calibration, or with one that lacks its ranges or, for int8, those
            of residual inputs which shall be int8; a form of the graph that the precision cannot have.
    """
    if problems := unfit_forms(precision, options):
        raise OptionError(f"{precision} cannot be exported as asked.", details=problems)
    base = options.base_of(precision)
    wide: frozenset[str] = frozenset()
    if base is Precision.FP16 and calibration is not None:
        wide = frozenset(name for name, top in calibration.abs_max.items() if not top <= HALF_LIMIT)
    quantized: dict[str, float] = {}
    residual: dict[str, float] = {}
    if precision.is_quantized:
        if calibration is None:
            raise OptionError(
                f"{precision} needs calibration images.", remedy="Give --calibration FOLDER or FILE.npz."
            )
        quantized = {
            name: top
            for name, top in _ranges(precision, calibration, wide).items()
            if name not in options.keep
        }
    if precision is Precision.INT8 and calibration is not None:
        residual = dict(calibration.residual_ranges) if options.quantize_residual else {}
        if options.quantize_residual and not residual:
            raise OptionError(
                "The calibration holds no ranges of residual inputs, which shall be int8.",
                remedy="Calibrate with CalibrationConfig(residual=True).",
            )
    smoothquant_scales = (
        {
            name: torch.tensor(value)
            for name, value in calibration.smoothquant_scales.items()
            if name in quantized
        }
        if calibration is not None
        else {}
    )
    return LoweringPlan(
        base=torch_dtype(base),
        norm=options.norm,
        norm_io=torch_dtype(options.norm_io),
        mlp=options.mlp,
        norm2=options.norm2,
        float32_blocks=wide,
        ranges=quantized,
        smoothquant_scales=smoothquant_scales,
        residual_ranges=residual,
        target=FLOAT8 if precision is Precision.FP8 else torch.int8,
        io=torch_dtype(options.io),
        input_form=options.input_form,
        output_form=options.output_form,
        topk=options.topk,
    )


def needs_calibration(precision: Precision, options: PrecisionOptions) -> bool:
    """Whether a lowering depends on images: for ranges, or to find what half precision cannot hold."""
    return precision.is_quantized or options.base_of(precision) is Precision.FP16
