"""How a graph is lowered: one record that is asked for, stored in the manifest and run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import assert_never

from riformer_deploy.common.enums import (
    InputForm,
    Method,
    MlpForm,
    Norm2Form,
    NormForm,
    OutputForm,
    Precision,
    ResidualForm,
)
from riformer_deploy.common.errors import OptionError
from riformer_deploy.model.architecture import LAST_STAGE, checked_out_indices

_INPUTS = ResidualForm.INPUTS


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord:
    """What a lowering was calibrated on.

    Attributes:
        source: What the user named, without its folder.
        random: Whether the images were random, so that accuracy on real ones is not known.
        images: How many.
        key: sha256 of everything that the calibration depends on.
        method: How ranges were chosen.
    """

    source: str
    random: bool
    images: int
    key: str
    method: Method


@dataclass(frozen=True, kw_only=True)
class LoweringConfig:
    """How a folded model is rebuilt for one precision.

    The first fields are chosen by the user. Those from ``calibration`` on follow from calibration images:
    :func:`~riformer_deploy.quantization.resolving.resolve_lowering` fills them in. The manifest holds all
    of them, so that the model of every stored graph can be rebuilt; the largest, the SmoothQuant scales of
    the downsampling layers, are 512 numbers in S models and 672 in M models.

    Attributes:
        precision: What the model computes in.
        norm: Operators that compute the norms.
        norm_io: Type of the norms' inputs and outputs, and of what is computed between, with no casts around
            them: fp32, or else fp16 or bf16, which must then be the base.
        mlp: Operators that compute fc1 and fc2.
        norm2: Where ``norm2`` is computed; ``folded`` not with int8 or fp8.
        int8_base: What an int8 model computes in where it is not int8: fp32 or fp16; None is fp32.
        method: How int8's ranges are chosen; None is MSE. FP8's are always chosen by MAX: the others weigh
            clipping against steps that are even, and a floating-point grid's are not.
        equalize: Equalise the inputs of the downsampling layers before quantising them to int8; None does.
        quantize_residual: Make the inputs or results of an int8 model's residual additions int8 too.
        residual_form: Which of the two.
        residual_blocks: Blocks to which ``quantize_residual`` is limited, each by its name or by that of its
            stage (``backbone.network.4``); none is all.
        exclude_layers: Layers that stay in the base precision: by name, by the name of a block or stage, or
            by a :class:`~riformer_deploy.common.enums.LayerGroup`; those that the precision leaves there
            anyway may be among them. Resolved, it holds names of layers.
        io: Type of floating-point inputs and outputs: fp32 or fp16.
        input_form: What the graph takes.
        output_form: What the graph gives.
        topk: Number of classes where the output is ``topk``.
        out_indices: Positions in ``backbone.network`` whose maps are given where the output is ``maps``,
            ascending; the last stage is among them, since a graph holds the whole network.
        calibration: What the fields below follow from; None where nothing was calibrated.
        float32_blocks: Blocks and layers that stay in float32 because half precision would overflow, by name.
        ranges: For each quantised layer, by name, the absolute input value that the largest one of int8 or
            float8 stands for.
        smoothquant_scales: For some of these layers, what each input channel is divided by first.
        residual_ranges: For each quantised tensor of the residual stream the absolute value that the largest
            one of int8 stands for: of an addition's inputs by name of the block and ``stream`` or ``branch``;
            of results by name of the block and ``stream`` (the first addition's) or ``result``, and by name
            of the embedding (``backbone.network.1``) and ``result``.

    Raises:
        OptionError: The precision cannot have one of these choices; every such choice is listed.
    """

    precision: Precision = Precision.FP32
    norm: NormForm = NormForm.INSTANCE
    norm_io: Precision = Precision.FP32
    mlp: MlpForm = MlpForm.CONV
    norm2: Norm2Form = Norm2Form.EXPLICIT
    int8_base: Precision | None = None
    method: Method | None = None
    equalize: bool | None = None
    quantize_residual: bool = False
    residual_form: ResidualForm = ResidualForm.INPUTS
    residual_blocks: tuple[str, ...] = ()
    exclude_layers: tuple[str, ...] = ()
    io: Precision = Precision.FP32
    input_form: InputForm = InputForm.NORMALISED
    output_form: OutputForm = OutputForm.LOGITS
    topk: int = 5
    out_indices: tuple[int, ...] = ()
    calibration: CalibrationRecord | None = None
    float32_blocks: tuple[str, ...] = ()
    ranges: dict[str, float] = field(default_factory=dict)
    smoothquant_scales: dict[str, tuple[float, ...]] = field(default_factory=dict)
    residual_ranges: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        if self.int8_base not in (None, Precision.FP32, Precision.FP16):
            problems.append(f"the base of int8 is fp32 or fp16, got {self.int8_base}")
        if self.io not in (Precision.FP32, Precision.FP16):
            problems.append(f"inputs and outputs are fp32 or fp16, got {self.io}")
        if not self.quantize_residual and (self.residual_blocks or self.residual_form is not _INPUTS):
            problems.append(
                "residual_blocks and residual_form are for quantize_residual, which was not asked for"
            )
        problems += self._norm_problems()
        if self.topk < 1:
            problems.append(f"topk must be at least 1, got {self.topk}")
        problems += self._map_problems()
        if problems:
            raise OptionError(f"{self.precision} cannot be exported as asked.", details=problems)

    def _map_problems(self) -> list[str]:
        if (self.output_form is OutputForm.MAPS) != bool(self.out_indices):
            return [f"out_indices and the output maps need each other, got {self.out_indices}"]
        if self.out_indices and self.out_indices != checked_out_indices(self.out_indices):
            return [f"out_indices must be ascending positions from 0 to {LAST_STAGE}, got {self.out_indices}"]
        if self.out_indices and LAST_STAGE not in self.out_indices:
            return [
                f"out_indices must hold {LAST_STAGE}, the last stage, since the graph is the whole network; "
                f"got {self.out_indices}"
            ]
        return []

    def _norm_problems(self) -> list[str]:
        if self.norm_io not in (Precision.FP32, Precision.FP16, Precision.BF16):
            return [f"the norms' inputs and outputs are fp32, fp16 or bf16, got {self.norm_io}"]
        problems = []
        if self.norm_io is not Precision.FP32 and self.norm is NormForm.MOMENTS:
            problems.append(
                f"norm form {self.norm} has no operator that takes {self.norm_io}; it takes float32 only"
            )
        if self.norm_io not in (Precision.FP32, self.base):
            problems.append(
                f"inputs and outputs of norms in {self.norm_io} need it as the base, and that is {self.base}"
            )
        if self.norm2 is Norm2Form.FOLDED and self.precision.is_quantized:
            problems.append(
                f"norm2 folded into fc1 gives fc1 what the norm takes, of which {self.precision} has no range"
            )
        return problems

    @property
    def base(self) -> Precision:
        """What everything that is not int8 or fp8, and not a statistic, computes in: a floating precision."""
        match self.precision:
            case Precision.INT8:
                return self.int8_base or Precision.FP32
            case Precision.FP8:
                return Precision.FP16
            case Precision.FP32 | Precision.FP16 | Precision.BF16:
                return self.precision
            case _:
                assert_never(self.precision)

    @property
    def range_method(self) -> Method:
        """How the ranges of a quantised precision are chosen."""
        return Method.MAX if self.precision is Precision.FP8 else self.method or Method.MSE

    @property
    def needs_calibration(self) -> bool:
        """Whether it depends on images: for ranges, or to find what half precision cannot hold."""
        return self.precision.is_quantized or self.base is Precision.FP16

    def heeded(self) -> LoweringConfig:
        """The config without choices that have no effect on its precision, so that none of them is stored."""
        int8, float8 = self.precision is Precision.INT8, self.precision is Precision.FP8
        return dataclasses.replace(
            self,
            int8_base=self.int8_base if int8 else None,
            method=self.method if int8 or (float8 and self.method is Method.MAX) else None,
            equalize=self.equalize if int8 else None,
            quantize_residual=self.quantize_residual and int8,
            residual_form=self.residual_form if int8 else _INPUTS,
            residual_blocks=self.residual_blocks if int8 else (),
            exclude_layers=self.exclude_layers if int8 or float8 else (),
        )

    def precision_of(self, name: str) -> Precision:
        """The floating precision of a block or layer, where it is not quantised."""
        return Precision.FP32 if name in self.float32_blocks else self.base


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
