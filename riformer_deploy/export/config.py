"""How to rebuild a model: every choice of a lowering, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from riformer_deploy.common.enums import InputForm, MlpForm, Norm2Form, NormForm, OutputForm


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
        divisors: For some of these layers, what their input channels are divided by first.
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
    divisors: Mapping[str, Tensor] = field(default_factory=dict)
    residual_ranges: Mapping[str, float] = field(default_factory=dict)
    target: torch.dtype = torch.int8
    io: torch.dtype = torch.float32
    input_form: InputForm = InputForm.NORMALISED
    output_form: OutputForm = OutputForm.LOGITS
    topk: int = 5

    def dtype_of(self, name: str) -> torch.dtype:
        """Type that a block or layer computes in."""
        return torch.float32 if name in self.float32_blocks else self.base
