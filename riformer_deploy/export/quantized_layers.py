"""Convolutions and linear layers in INT8 or FP8, as modules that run in PyTorch and export as explicit Q/DQ.

Symmetric, zero point 0, weights stored in the target type, biases in floating point. In ONNX:
``QuantizeLinear`` and ``DequantizeLinear`` before the layer, and a ``DequantizeLinear`` over the weights.
Activations have one scale per tensor; weights have one per output channel in int8 and one per tensor in
float8, which TensorRT's fused FP8 kernels ask for and which costs nothing: a floating-point grid is as fine
for a quiet channel as for a loud one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from riformer_deploy.bundle.lowering_config import quantizes
from riformer_deploy.common.enums import Precision
from riformer_deploy.export.layers import Operator, bias_of
from riformer_deploy.model.network import RIFormer

FLOAT8 = torch.float8_e4m3fn
"""E4M3: 4 bits of exponent, 3 of mantissa, no infinity (Micikevicius et al., 2022, arXiv:2209.05433)."""
_LIMITS = {torch.int8: (-128, 127), FLOAT8: (-448, 448)}
"""Smallest and largest value of each target type."""


def quantizable(model: RIFormer, precision: Precision = Precision.INT8) -> tuple[str, ...]:
    """Names of the layers that a precision quantises, in the network's order: in int8 every one.

    Args:
        model: In folded form.
        precision: What they are quantised to.
    """
    return tuple(
        name
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and quantizes(precision, name)
    )


def fitting_scale(largest: Tensor, dtype: torch.dtype, target: torch.dtype = torch.int8) -> Tensor:
    """A scale of ``dtype`` with which ``largest`` still fits the target type, at most two roundings above it.

    Args:
        largest: Largest absolute value, any shape.
        dtype: Type that the scale is stored in.
        target: ``torch.int8`` or :data:`FLOAT8`.

    Returns:
        Positive scales; rounding never makes one too small.
    """
    info = torch.finfo(dtype)
    exact = (largest.double() / _LIMITS[target][1]).clamp_min(info.smallest_normal * info.eps)
    nearest = exact.to(dtype)
    above = (exact * (1 + info.eps) + info.smallest_normal * info.eps).to(dtype)
    return torch.where(nearest.double() < exact, above, nearest)


def quantize(x: Tensor, scale: Tensor, target: torch.dtype = torch.int8) -> Tensor:
    """``x / scale`` rounded to nearest even and clipped to the target type, as ONNX's QuantizeLinear does.

    Args:
        x: float32.
        scale: float32, broadcast against ``x``.
        target: ``torch.int8`` or :data:`FLOAT8`; a float8 keeps NaN.
    """
    steps = (x / scale).clamp(*_LIMITS[target])  # first: PyTorch's cast to float8 makes NaN of what is larger
    return (steps if target.is_floating_point else torch.round(steps)).to(target)


class ActivationQuantizer(nn.Module):
    """Rounds an activation to the target type and back: one Q/DQ pair in ONNX.

    Args:
        largest: The absolute value that the target type's largest one stands for; larger ones are clipped.
        base: Type of the scale and of the result.
        target: ``torch.int8`` or :data:`FLOAT8`.
    """

    def __init__(self, largest: float, base: torch.dtype, target: torch.dtype = torch.int8) -> None:
        super().__init__()
        self.register_buffer("scale", fitting_scale(torch.tensor(largest), base, target))
        self.register_buffer("zero", torch.tensor(0, dtype=target))
        self.base, self.target = base, target

    def forward(self, x: Tensor) -> Tensor:
        """``x``, in the base type, on the grid of the scale."""
        scale, zero = self.get_buffer("scale"), self.get_buffer("zero")
        if torch.onnx.is_in_onnx_export():
            symbolic = torch.onnx.ops.symbolic
            stored = symbolic("QuantizeLinear", (x, scale, zero), dtype=self.target, shape=x.shape)
            return symbolic("DequantizeLinear", (stored, scale, zero), dtype=self.base, shape=x.shape)
        wide = scale.float()
        return (quantize(x.float(), wide, self.target).float() * wide).to(self.base)


class QuantizedLayer(Operator):
    """A convolution or linear layer whose input and weights are of the target type.

    Args:
        layer: The layer to quantise, float32.
        largest: The absolute value of the input, after the division, that the target type's largest one
            stands for.
        base: Type of the result.
        smoothquant_scale: What to divide the input channels by first, (in_channels,); the weights are
            multiplied with it, so that the layer's function stays.
        target: ``torch.int8`` or :data:`FLOAT8`.
        product: The layer is a 1x1 convolution and shall be a matrix product of tokens, (N, H * W, channels).
    """

    factor: Tensor | None

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        largest: float,
        base: torch.dtype,
        smoothquant_scale: Tensor | None = None,
        target: torch.dtype = torch.int8,
        *,
        product: bool = False,
    ) -> None:
        super().__init__(layer, product=product)
        weight = layer.weight.detach().float()
        if product:  # (out_channels, in_channels) until it is quantised
            weight = weight.flatten(1)
        trailing = (1,) * (weight.ndim - 2)
        if smoothquant_scale is not None:
            weight = weight * smoothquant_scale.reshape(1, -1, *trailing)
            self.register_buffer(
                "factor", (1 / smoothquant_scale.double()).to(base).reshape(1, -1, *trailing)
            )
        else:
            self.register_buffer("factor", None)
        per_channel = target is torch.int8
        self._broadcast = (-1, *(1,) * (weight.ndim - 1)) if per_channel else ()
        largest_weight = weight.abs().flatten(1).amax(1) if per_channel else weight.abs().max()
        scale = fitting_scale(largest_weight, base, target)
        self.register_buffer("weight", quantize(weight, scale.float().reshape(self._broadcast), target))
        self._axis = int(product) if per_channel else None
        if product:  # (in_channels, out_channels): nothing is transposed when it runs
            self.weight = self.get_buffer("weight").t().contiguous()
            self._broadcast = self._broadcast[::-1]
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero", torch.zeros(scale.shape, dtype=target))
        # With a fixed batch, ONNX Runtime 1.27 makes a product and a bias of one dimension a Gemm between two
        # Reshapes; from opset 21 on it then moves int8 past the Reshapes as uint8, and refuses the graph.
        shape = (1, 1, -1) if product else (-1,)
        self.register_buffer("bias", bias_of(layer).to(base).reshape(shape))
        self.input = ActivationQuantizer(largest, base, target)
        self.base = base

    def dequantized_weight(self) -> Tensor:
        """The weights that the stored ones stand for, in the base type."""
        weight, scale = self.get_buffer("weight"), self.get_buffer("weight_scale")
        if torch.onnx.is_in_onnx_export():
            return torch.onnx.ops.symbolic(
                "DequantizeLinear",
                (weight, scale, self.get_buffer("weight_zero")),
                attrs=None if self._axis is None else {"axis": self._axis},
                dtype=self.base,
                shape=weight.shape,
            )
        return (weight.float() * scale.float().reshape(self._broadcast)).to(self.base)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's result in the base type; ``x`` is cast to it first."""
        x = x.to(self.base)
        if self.factor is not None:
            x = x * self.factor
        return self.computed(self.input(x), self.dequantized_weight(), self.get_buffer("bias"))
