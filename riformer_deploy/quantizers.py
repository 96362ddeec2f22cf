"""Convolutions and linear layers in INT8, as modules that run in PyTorch and export as explicit Q/DQ.

Symmetric, zero point 0: weights per output channel and stored as int8, activations per tensor, biases in
floating point. In ONNX: ``QuantizeLinear`` and ``DequantizeLinear`` before the layer, and a
``DequantizeLinear`` over the int8 weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LOWEST, HIGHEST = -128, 127
"""The range of int8."""


def fitting_scale(largest: Tensor, dtype: torch.dtype) -> Tensor:
    """A scale of ``dtype`` with which ``largest`` still fits 127 steps, at most two roundings above it.

    Args:
        largest: Largest absolute value, any shape.
        dtype: Type that the scale is stored in.

    Returns:
        Positive scales; rounding never makes one too small.
    """
    info = torch.finfo(dtype)
    exact = (largest.double() / HIGHEST).clamp_min(info.smallest_normal * info.eps)
    nearest = exact.to(dtype)
    above = (exact * (1 + info.eps) + info.smallest_normal * info.eps).to(dtype)
    return torch.where(nearest.double() < exact, above, nearest)


def quantize(x: Tensor, scale: Tensor) -> Tensor:
    """``round(x / scale)`` to nearest even, clipped to int8, as ONNX's QuantizeLinear does.

    Args:
        x: float32.
        scale: float32, broadcast against ``x``.
    """
    return torch.round(x / scale).clamp(LOWEST, HIGHEST).to(torch.int8)


class ActivationQuantizer(nn.Module):
    """Rounds an activation to int8 and back: one Q/DQ pair in ONNX.

    Args:
        largest: The absolute value that 127 steps reach; larger ones are clipped.
        base: Type of the scale and of the result.
    """

    def __init__(self, largest: float, base: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("scale", fitting_scale(torch.tensor(largest), base))
        self.register_buffer("zero", torch.tensor(0, dtype=torch.int8))
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        """``x``, in the base type, on the grid of the scale."""
        scale, zero = self.get_buffer("scale"), self.get_buffer("zero")
        if torch.onnx.is_in_onnx_export():
            symbolic = torch.onnx.ops.symbolic
            stored = symbolic("QuantizeLinear", (x, scale, zero), dtype=torch.int8, shape=x.shape)
            return symbolic("DequantizeLinear", (stored, scale, zero), dtype=self.base, shape=x.shape)
        wide = scale.float()
        return (quantize(x.float(), wide).float() * wide).to(self.base)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer whose input and weights are int8.

    Args:
        layer: The layer to quantise, float32.
        largest: The absolute value of the input that 127 steps reach, after the division.
        base: Type of the result.
        divisor: What to divide the input channels by first, (in_channels,); the weights are multiplied
            with it, so that the layer's function stays.
        product: The layer is a 1x1 convolution and shall be a matrix product of tokens, (N, H * W, channels).
    """

    factor: Tensor | None

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        largest: float,
        base: torch.dtype,
        divisor: Tensor | None = None,
        *,
        product: bool = False,
    ) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        trailing = (1,) * (weight.ndim - 2)
        if divisor is not None:
            weight = weight * divisor.reshape(1, -1, *trailing)
            self.register_buffer("factor", (1 / divisor.double()).to(base).reshape(1, -1, *trailing))
        else:
            self.register_buffer("factor", None)
        if product:  # (out_channels, in_channels) until it is quantised
            weight = weight.flatten(1)
        self._per_channel = (-1, *(1,) * (weight.ndim - 1))
        scale = fitting_scale(weight.abs().flatten(1).amax(1), base)
        self.register_buffer("weight", quantize(weight, scale.float().reshape(self._per_channel)))
        self._axis, self._product = 0, product
        if product:  # (in_channels, out_channels): nothing is transposed when it runs
            self.weight = self.get_buffer("weight").t().contiguous()
            self._axis, self._per_channel = 1, (1, -1)
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero", torch.zeros(len(scale), dtype=torch.int8))
        bias = layer.bias if layer.bias is not None else torch.zeros(len(weight))
        self.register_buffer("bias", bias.detach().to(base))
        self.input = ActivationQuantizer(largest, base)
        self.base = base
        self._stride = layer.stride if isinstance(layer, nn.Conv2d) else None
        self._padding = layer.padding if isinstance(layer, nn.Conv2d) else 0

    def dequantized_weight(self) -> Tensor:
        """The weights that the int8 ones stand for, in the base type."""
        weight, scale = self.get_buffer("weight"), self.get_buffer("weight_scale")
        if torch.onnx.is_in_onnx_export():
            return torch.onnx.ops.symbolic(
                "DequantizeLinear",
                (weight, scale, self.get_buffer("weight_zero")),
                attrs={"axis": self._axis},
                dtype=self.base,
                shape=weight.shape,
            )
        return (weight.float() * scale.float().reshape(self._per_channel)).to(self.base)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's result in the base type; ``x`` is cast to it first."""
        x = x.to(self.base)
        if self.factor is not None:
            x = x * self.factor
        taken, weight, bias = self.input(x), self.dequantized_weight(), self.get_buffer("bias")
        if self._product:
            return torch.matmul(taken, weight) + bias
        if self._stride is None:
            return functional.linear(taken, weight, bias)
        return functional.conv2d(taken, weight, bias, self._stride, self._padding)
