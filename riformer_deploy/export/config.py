"""How to rebuild a model: every choice of a lowering, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

import torch
from torch import Tensor, nn

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
from riformer_deploy.model.network import RIFormer


@dataclass(frozen=True, kw_only=True)
class LoweringPlan:
    """How to rebuild a folded model; every choice is made here, none while building.

    Attributes:
        base: Type of the convolutions and the residual stream.
        norm: Which operators compute the norms.
        norm_io: Type of the norms' inputs and outputs, and of what is computed between: float32, or else that
            of their block. Not float32 needs a norm form that is one operator.
        mlp: Which operators compute fc1 and fc2.
        norm2: Where ``norm2`` is computed; ``folded`` with none of the layers fc1 in ``ranges``.
        float32_blocks: Blocks and layers that stay in float32, by name.
        ranges: For each layer to quantise, by name, the absolute input value that the largest one of the
            target type stands for.
        smoothquant_scales: For some of these layers, what their input channels are divided by first.
        residual_ranges: For each residual input to quantise, by name of the block and ``stream`` or
            ``branch``, the absolute value that the largest one of int8 stands for.
        target: Type of the inputs and weights of these layers: ``torch.int8`` or ``torch.float8_e4m3fn``.
        io: Type of floating-point inputs and outputs.
        input_form: What the graph takes.
        output_form: What the graph gives.
        topk: Number of classes where the output is ``topk``.
    """

    base: torch.dtype = torch.float32
    norm: NormForm = NormForm.INSTANCE
    norm_io: torch.dtype = torch.float32
    mlp: MlpForm = MlpForm.CONV
    norm2: Norm2Form = Norm2Form.EXPLICIT
    float32_blocks: frozenset[str] = frozenset()
    ranges: Mapping[str, float] = field(default_factory=dict)
    smoothquant_scales: Mapping[str, Tensor] = field(default_factory=dict)
    residual_ranges: Mapping[str, float] = field(default_factory=dict)
    target: torch.dtype = torch.int8
    io: torch.dtype = torch.float32
    input_form: InputForm = InputForm.NORMALISED
    output_form: OutputForm = OutputForm.LOGITS
    topk: int = 5

    def dtype_of(self, name: str) -> torch.dtype:
        """Type that a block or layer computes in."""
        return torch.float32 if name in self.float32_blocks else self.base


GROUP_NORM_OPSET = 21
"""The first operator set whose GroupNormalization has one scale per channel."""


BF16_OPSET = 22
"""The first whose Conv takes bfloat16."""


HALF_SCALE_OPSET = 19
"""The first whose QuantizeLinear takes half, and the first with float8."""


FLOAT8_TRANSPOSE_OPSET = 21
"""The first whose Transpose takes float8: ONNX Runtime moves it there past QuantizeLinear."""


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


def quantizes(precision: Precision, name: str) -> bool:
    """Whether a precision quantises a layer of this name.

    FP8 takes the two layers of each MLP alone: TensorRT has no FP8 kernel for three input channels, the
    downsampling layers read the residual stream, and the head is too small to matter.
    """
    match precision:
        case Precision.INT8:
            return True
        case Precision.FP8:
            return name.endswith((".mlp.fc1", ".mlp.fc2"))
        case Precision.FP32 | Precision.FP16 | Precision.BF16:
            return False
        case _:
            assert_never(precision)


def quantizable(model: RIFormer, precision: Precision = Precision.INT8) -> tuple[str, ...]:
    """Names of the layers that a precision quantises, in the network's order: in int8 every one.

    Args:
        model: In folded form.
        precision: The precision.
    """
    return tuple(
        name
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and quantizes(precision, name)
    )
