"""From a folded model to one of a given precision: which choices to make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch

from riformer_deploy.common.enums import (
    InputForm,
    Method,
    MlpForm,
    Norm2Form,
    NormForm,
    OutputForm,
    Precision,
)
from riformer_deploy.common.errors import OptionError
from riformer_deploy.export.config import LoweringPlan
from riformer_deploy.export.quantized_layers import FLOAT8
from riformer_deploy.quantization.calibration import Calibration, quantizes

HALF_LIMIT = 65504 / 2
"""Largest calibration value that half precision may store: half its range is left for unseen images."""
GROUP_NORM_OPSET = 21
"""The first operator set whose GroupNormalization has one scale per channel."""
BF16_OPSET = 22
"""The first whose Conv takes bfloat16."""
HALF_SCALE_OPSET = 19
"""The first whose QuantizeLinear takes half, and the first with float8."""
FLOAT8_TRANSPOSE_OPSET = 21
"""The first whose Transpose takes float8: ONNX Runtime moves it there past QuantizeLinear."""
FP8_HEADROOM = 2
"""FP8's ranges reach so many times the largest value that calibration saw.

Clipping costs much and range almost nothing: E4M3's 3 bits of mantissa are as fine over 14 powers of two.
"""


@dataclass(frozen=True, kw_only=True)
class PrecisionOptions:
    """How to lower.

    Attributes:
        norm: Which operators compute the norms.
        norm_io: Type of the norms' inputs and outputs, with no casts around them: fp32, or else fp16 or bf16,
            which must then be the base.
        mlp: Which operators compute fc1 and fc2.
        norm2: Where ``norm2`` is computed; ``folded`` not with int8 or fp8.
        int8_base: What an int8 model computes in where it is not int8: fp32 or fp16; None is fp32. An fp8
            model's is fp16.
        method: How int8's ranges are chosen; None is MSE. FP8's are always chosen by MAX: the others weigh
            clipping against steps that are even, and a floating-point grid's are not.
        equalize: Equalise the inputs of the downsampling layers before quantising them to int8; None does.
        quantize_residual: Make the inputs of residual additions int8 too.
        keep: Layers to keep in the base precision, by name; those that a precision leaves there anyway may be
            among them.
        io: Type of floating-point inputs and outputs: fp32 or fp16.
        input_form: What the graph takes.
        output_form: What the graph gives.
        topk: Number of classes where the output is ``topk``.
    """

    norm: NormForm = NormForm.INSTANCE
    norm_io: Precision = Precision.FP32
    mlp: MlpForm = MlpForm.CONV
    norm2: Norm2Form = Norm2Form.EXPLICIT
    int8_base: Precision | None = None
    method: Method | None = None
    equalize: bool | None = None
    quantize_residual: bool = False
    keep: frozenset[str] = frozenset()
    io: Precision = Precision.FP32
    input_form: InputForm = InputForm.NORMALISED
    output_form: OutputForm = OutputForm.LOGITS
    topk: int = 5

    def __post_init__(self) -> None:
        problems = []
        if self.int8_base not in (None, Precision.FP32, Precision.FP16):
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

    def method_of(self, precision: Precision) -> Method:
        """How ranges of a quantised precision are chosen."""
        return Method.MAX if precision is Precision.FP8 else self.method or Method.MSE

    def base_of(self, precision: Precision) -> Precision:
        """What a model computes in where it is not quantised: a floating precision."""
        match precision:
            case Precision.INT8:
                return self.int8_base or Precision.FP32
            case Precision.FP8:
                return Precision.FP16
            case Precision.FP32 | Precision.FP16 | Precision.BF16:
                return precision
            case _:
                assert_never(precision)


def torch_dtype(precision: Precision) -> torch.dtype:
    """PyTorch's type of a floating precision.

    Raises:
        OptionError: The precision is a quantised one.
    """
    match precision:
        case Precision.FP32:
            return torch.float32
        case Precision.FP16:
            return torch.float16
        case Precision.BF16:
            return torch.bfloat16
        case Precision.INT8 | Precision.FP8:
            raise OptionError(f"{precision} is no type that a whole model computes in.")
        case _:
            assert_never(precision)


def unfit_forms(precision: Precision, options: PrecisionOptions) -> list[str]:
    """Forms of the graph that a precision cannot have."""
    base = options.base_of(precision)
    problems = []
    if options.norm_io not in (Precision.FP32, base):
        problems.append(
            f"inputs and outputs of norms in {options.norm_io} need it as the base, and that is {base}"
        )
    if options.norm2 is Norm2Form.FOLDED and precision.is_quantized:
        problems.append(
            f"norm2 folded into fc1 gives fc1 what the norm takes, of which {precision} has no range"
        )
    return problems


def _ranges(precision: Precision, calibration: Calibration, wide: frozenset[str]) -> dict[str, float]:
    """Ranges by layer, of every layer that the precision quantises.

    Raises:
        OptionError: The calibration holds none.
    """
    if precision is Precision.INT8:
        if not calibration.ranges:
            raise OptionError(
                "The calibration holds no ranges for int8.", remedy="Calibrate with Wish(ranges=True)."
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


def plan_lowering(
    precision: Precision, options: PrecisionOptions, calibration: Calibration | None
) -> LoweringPlan:
    """Every choice of a lowering.

    Args:
        precision: The precision.
        options: How to lower.
        calibration: Ranges and peaks; needed for int8 and fp8, and for fp16 or a half base to find overflows.

    Raises:
        OptionError: int8 or fp8 without a calibration, or with one that lacks its ranges or, for int8, those
            of residual inputs which shall be int8; a form of the graph that the precision cannot have.
    """
    if problems := unfit_forms(precision, options):
        raise OptionError(f"{precision} cannot be exported as asked.", details=problems)
    base = options.base_of(precision)
    wide: frozenset[str] = frozenset()
    if base is Precision.FP16 and calibration is not None:
        wide = frozenset(name for name, top in calibration.peaks.items() if not top <= HALF_LIMIT)
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
                remedy="Calibrate with Wish(residual=True).",
            )
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
        target=FLOAT8 if precision is Precision.FP8 else torch.int8,
        io=torch_dtype(options.io),
        input_form=options.input_form,
        output_form=options.output_form,
        topk=options.topk,
    )


def needs_calibration(precision: Precision, options: PrecisionOptions) -> bool:
    """Whether a lowering depends on images: for ranges, or to find what half precision cannot hold."""
    return precision.is_quantized or options.base_of(precision) is Precision.FP16
