"""Convolutions and linear layers in one floating type, 1x1 convolutions as matrix products too."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.export.norms import widened


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


def bias_of(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Its bias, or zeros where it has none: (out_channels,)."""
    return layer.bias.detach() if layer.bias is not None else torch.zeros(len(layer.weight))


class Operator(nn.Module):
    """What a convolution or linear layer computes, of weights that are given with each call.

    Args:
        layer: The layer.
        product: The layer is a 1x1 convolution and shall be a matrix product of tokens, (N, H * W, channels).
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, *, product: bool = False) -> None:
        super().__init__()
        self._product = product
        self._stride = layer.stride if isinstance(layer, nn.Conv2d) else None
        self._padding = layer.padding if isinstance(layer, nn.Conv2d) else 0

    def computed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's result.

        Args:
            x: In the type of the weights.
            weight: As the layer has it, or (in_channels, out_channels) for a product.
            bias: (out_channels,), or what broadcasts alike for a product; None for none.
        """
        if self._product:
            result = torch.matmul(x, weight)
            return result if bias is None else result + bias
        if self._stride is None:
            return functional.linear(x, weight, bias)
        return functional.conv2d(x, weight, bias, self._stride, self._padding)


class _Weights(Operator):
    """Weights and bias of a convolution or linear layer in one floating type.

    Args:
        layer: The layer.
        dtype: Its type.
        product: The layer is a 1x1 convolution and shall be a matrix product of tokens, (N, H * W, channels).
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, dtype: torch.dtype, *, product: bool = False) -> None:
        super().__init__(layer, product=product)
        self.dtype = dtype
        weight = layer.weight.detach()
        if product:  # (in_channels, out_channels): nothing is transposed when it runs
            weight = weight.flatten(1).t().contiguous()
        self.weight, self.bias = (
            nn.Parameter(value.to(dtype), requires_grad=False) for value in (weight, bias_of(layer))
        )

    def applied(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's result in its type, with its bias or none; ``x`` is cast to it first."""
        return self.computed(x.to(self.dtype), self.weight, bias)


class PlainLayer(_Weights):
    """A convolution or linear layer in one floating type, whatever its input is in."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer's result in its type."""
        return self.applied(x, self.bias)


class NormFoldedLayer(_Weights):
    """A 1x1 convolution of a norm's result, computed from the norm's input: ``(W y - m W1) / s + b``.

    ``m`` is the mean and ``s`` the deviation of each sample, ``W1`` the sum of the weights of each output.
    ``W y`` is in the layer's type, all else in float32 (float64 in float64). Where ``|m|`` is far above ``s``
    nearly all of ``W y`` cancels, and what half precision rounded off it remains.
    """

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype, *, product: bool = False) -> None:
        super().__init__(layer, dtype, product=product)
        shape, axis = ((1, 1, -1), 0) if product else ((1, -1, 1, 1), (1, 2, 3))
        # The sum of the weights as they are stored: so a constant map cancels.
        total = self.weight.detach().double().sum(axis)
        wide = torch.promote_types(dtype, torch.float32)
        self.register_buffer("weight_sum", total.to(wide).reshape(shape))
        self.bias = nn.Parameter(bias_of(layer).to(wide).reshape(shape), requires_grad=False)

    def forward(self, y: Tensor, mean: Tensor, inverse_deviation: Tensor) -> Tensor:
        """The layer's result, in its type.

        Args:
            y: The norm's input, (N, C, H, W), or (N, H * W, C) for a product.
            mean: Of each sample, (N, 1, 1, 1), float32 or float64.
            inverse_deviation: ``1 / s`` of each sample, (N, 1, 1, 1), in the type of ``mean``.
        """
        if self._product:
            mean, inverse_deviation = mean.flatten(2), inverse_deviation.flatten(2)
        offset = self.bias - mean * inverse_deviation * self.get_buffer("weight_sum")
        return (widened(self.applied(y, None)) * inverse_deviation + offset).to(self.dtype)
