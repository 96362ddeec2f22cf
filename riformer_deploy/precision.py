"""From a folded model to one of a given precision: which choices to make, and a record of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch

from riformer_deploy.artifacts import CalibrationRecord, LoweringRecord
from riformer_deploy.calibration import Calibration, quantizable
from riformer_deploy.calibration_sets import CalibrationSet
from riformer_deploy.choices import InputForm, Method, MlpForm, Norm2Form, NormForm, OutputForm, Precision
from riformer_deploy.errors import OptionError
from riformer_deploy.model import RIFormer
from riformer_deploy.plans import LoweringPlan

HALF_LIMIT = 65504 / 2
"""Largest calibration value that half precision may store: half its range is left for unseen images."""
GROUP_NORM_OPSET = 21
"""The first operator set whose GroupNormalization has one scale per channel."""
BF16_OPSET = 22
"""The first whose Conv takes bfloat16."""
HALF_SCALE_OPSET = 19
"""The first whose QuantizeLinear takes half."""


@dataclass(frozen=True, kw_only=True)
class PrecisionOptions:
    """How to lower.

    Attributes:
        norm: Which operators compute the norms.
        norm_io: Type of the norms' inputs and outputs, with no casts around them: fp32, or else fp16 or bf16,
            which must then be the base.
        mlp: Which operators compute fc1 and fc2.
        norm2: Where ``norm2`` is computed; ``folded`` not with int8.
        int8_base: What an int8 model computes in where it is not int8: fp32 or fp16.
        method: How ranges are chosen.
        equalize: Equalise the inputs of the downsampling layers before quantising them.
        quantize_residual: Make the inputs of residual additions int8 too.
        keep: Layers to keep in the base precision, by name.
        io: Type of floating-point inputs and outputs: fp32 or fp16.
        input_form: What the graph takes.
        output_form: What the graph gives.
        topk: Number of classes where the output is ``topk``.
    """

    norm: NormForm = NormForm.INSTANCE
    norm_io: Precision = Precision.FP32
    mlp: MlpForm = MlpForm.CONV
    norm2: Norm2Form = Norm2Form.EXPLICIT
    int8_base: Precision = Precision.FP32
    method: Method = Method.MSE
    equalize: bool = True
    quantize_residual: bool = False
    keep: frozenset[str] = frozenset()
    io: Precision = Precision.FP32
    input_form: InputForm = InputForm.NORMALISED
    output_form: OutputForm = OutputForm.LOGITS
    topk: int = 5

    def __post_init__(self) -> None:
        problems = []
        if self.int8_base not in (Precision.FP32, Precision.FP16):
            problems.append(f"the base of int8 is fp32 or fp16, got {self.int8_base}")
        if self.io not in (Precision.FP32, Precision.FP16):
            problems.append(f"inputs and outputs are fp32 or fp16, got {self.io}")
        if self.norm_io not in (Precision.FP32, Precision.FP16, Precision.BF16):
            problems.append(f"the norms' inputs and outputs are fp32, fp16 or bf16, got {self.norm_io}")
        elif self.norm_io is not Precision.FP32 and self.norm is NormForm.MOMENTS:
            problems.append(
                f"norm form {self.norm} has no operator that takes {self.norm_io}; it takes float32 only"
            )
        if self.topk < 1:
            problems.append(f"topk must be at least 1, got {self.topk}")
        if problems:
            raise OptionError("The model cannot be lowered as asked.", details=problems)


def torch_dtype(precision: Precision) -> torch.dtype:
    """PyTorch's type of a floating precision.

    Raises:
        OptionError: The precision is int8.
    """
    match precision:
        case Precision.FP32:
            return torch.float32
        case Precision.FP16:
            return torch.float16
        case Precision.BF16:
            return torch.bfloat16
        case Precision.INT8:
            raise OptionError("int8 is no floating type.")
        case _:
            assert_never(precision)


def check_opset(precisions: Sequence[Precision], options: PrecisionOptions, opset: int) -> None:
    """See that an operator set can express what is asked for.

    Args:
        precisions: The precisions.
        options: How to lower.
        opset: Version of ONNX's default operator set.

    Raises:
        OptionError: It cannot; everything wrong is listed.
    """
    needs = []
    if options.norm is NormForm.GROUP:
        needs.append(("norm form group", GROUP_NORM_OPSET))
    if Precision.BF16 in precisions:
        needs.append(("bf16 (convolutions in bfloat16)", BF16_OPSET))
    if Precision.INT8 in precisions and options.int8_base is Precision.FP16:
        needs.append(("int8 with fp16 as its base (scales in half)", HALF_SCALE_OPSET))
    problems = [f"{what} needs opset {least}" for what, least in needs if opset < least]
    if problems:
        least = max(least for _, least in needs)
        raise OptionError(
            f"Opset {opset} cannot express what is asked for.",
            details=problems,
            remedy=f"Say --opset {least}.",
        )


def _unfit_forms(precision: Precision, options: PrecisionOptions) -> list[str]:
    """Forms of the graph that a precision cannot have."""
    base = options.int8_base if precision is Precision.INT8 else precision
    problems = []
    if options.norm_io not in (Precision.FP32, base):
        problems.append(
            f"inputs and outputs of norms in {options.norm_io} need it as the base, and that is {base}"
        )
    if options.norm2 is Norm2Form.FOLDED and precision is Precision.INT8:
        problems.append("norm2 folded into fc1 gives fc1 what the norm takes, of which int8 has no range")
    return problems


def check_options(precision: Precision, options: PrecisionOptions, model: RIFormer) -> None:
    """See that a model can be lowered as asked, before any work is done.

    Args:
        precision: The precision.
        options: How to lower.
        model: Whose layers ``options.keep`` names.

    Raises:
        OptionError: It cannot; everything wrong is listed.
    """
    layers = quantizable(model)
    classes = model.architecture.num_classes
    unknown = sorted(options.keep - set(layers))
    problems = [f"no layer is called {name}" for name in unknown] + _unfit_forms(precision, options)
    if options.output_form is OutputForm.TOPK and options.topk > classes:
        problems.append(f"topk {options.topk} of {classes} classes")
    if options.io is Precision.FP16 and precision is Precision.FP32:
        problems.append("inputs and outputs in fp16 round more than the budget of fp32 allows")
    if problems:
        raise OptionError(
            f"{precision} cannot be exported as asked.",
            details=problems,
            remedy=f"Its layers are: {', '.join(layers)}." if unknown else "",
        )


def plan_lowering(
    precision: Precision, options: PrecisionOptions, calibration: Calibration | None
) -> LoweringPlan:
    """Every choice of a lowering.

    Args:
        precision: The precision.
        options: How to lower.
        calibration: Ranges and peaks; needed for int8, and for fp16 or a half base to find overflows.

    Raises:
        OptionError: int8 without a calibration, or with one that lacks ranges of residual inputs which shall
            be int8; a form of the graph that the precision cannot have.
    """
    if problems := _unfit_forms(precision, options):
        raise OptionError(f"{precision} cannot be exported as asked.", details=problems)
    base = options.int8_base if precision is Precision.INT8 else precision
    quantized: dict[str, float] = {}
    residual: dict[str, float] = {}
    if precision is Precision.INT8:
        if calibration is None:
            raise OptionError(
                "int8 needs calibration images.", remedy="Give --calibration FOLDER or FILE.npz."
            )
        quantized = {name: top for name, top in calibration.ranges.items() if name not in options.keep}
        residual = dict(calibration.residual_ranges) if options.quantize_residual else {}
        if options.quantize_residual and not residual:
            raise OptionError(
                "The calibration holds no ranges of residual inputs, which shall be int8.",
                remedy="Calibrate with Wish(residual=True).",
            )
    wide: frozenset[str] = frozenset()
    if base is Precision.FP16 and calibration is not None:
        wide = frozenset(name for name, top in calibration.peaks.items() if not top <= HALF_LIMIT)
    divisors = (
        {name: torch.tensor(value) for name, value in calibration.divisors.items() if name in quantized}
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
        divisors=divisors,
        residual_ranges=residual,
        io=torch_dtype(options.io),
        input_form=options.input_form,
        output_form=options.output_form,
        topk=options.topk,
    )


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
            method=str(options.method),
        )
    unquantized = [name for name in quantizable(model) if name not in plan.ranges]
    return LoweringRecord(
        norm=str(options.norm),
        base=options.int8_base if precision is Precision.INT8 else precision,
        io=options.io,
        input_form=str(options.input_form),
        output_form=str(options.output_form),
        topk=options.topk if options.output_form is OutputForm.TOPK else None,
        float32_blocks=tuple(sorted(plan.float32_blocks)),
        unquantized=tuple(unquantized) if precision is Precision.INT8 else (),
        equalized=tuple(plan.divisors),
        quantized_residual=bool(plan.residual_ranges),
        calibration=calibration,
        norm_io=options.norm_io,
        mlp=str(options.mlp),
        norm2=str(options.norm2),
    )


def needs_calibration(precision: Precision, options: PrecisionOptions) -> bool:
    """Whether a lowering depends on images: for ranges, or to find what half precision cannot hold."""
    base = options.int8_base if precision is Precision.INT8 else precision
    return precision is Precision.INT8 or base is Precision.FP16
