"""Convolutions and linear layers in one floating type, 1x1 convolutions as matrix products too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from riformer_deploy.norms import widened


class _Weights(nn.Module):
    """Weights and bias of a convolution or linear layer in one floating type.

    Args:
        layer: The layer.
        dtype: Its type.
        product: The layer is a 1x1 convolution and shall be a matrix product of tokens, (N, H * W, channels).
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, dtype: torch.dtype, *, product: bool = False) -> None:
        super().__init__()
        self.dtype = dtype
        weight = layer.weight.detach()
        if product:  # (in_channels, out_channels): nothing is transposed when it runs
            weight = weight.flatten(1).t().contiguous()
        bias = layer.bias if layer.bias is not None else torch.zeros(len(layer.weight))
        self.weight, self.bias = (
            nn.Parameter(value.detach().to(dtype), requires_grad=False) for value in (weight, bias)
        )
        self._product = product
        self._stride = layer.stride if isinstance(layer, nn.Conv2d) else None
        self._padding = layer.padding if isinstance(layer, nn.Conv2d) else 0

    def applied(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's result in its type, with its bias or none; ``x`` is cast to it first."""
        x = x.to(self.dtype)
        if self._product:
            result = torch.matmul(x, self.weight)
            return result if bias is None else result + bias
        if self._stride is None:
            return functional.linear(x, self.weight, bias)
        return functional.conv2d(x, self.weight, bias, self._stride, self._padding)


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
        bias = layer.bias if layer.bias is not None else torch.zeros(len(layer.weight))
        self.register_buffer("weight_sum", total.to(wide).reshape(shape))
        self.bias = nn.Parameter(bias.detach().to(wide).reshape(shape), requires_grad=False)

    def forward(self, y: Tensor, mean: Tensor, inverse_deviation: Tensor) -> Tensor:
        """The layer's result, in its type.

        Args:
            y: The norm's input, (N, C, H, W), or (N, H * W, C) for a product.
            mean: Of each sample, (N, 1, 1, 1), float32 or float64.
            inverse_deviation: ``1 / s`` of each sample, likewise.
        """
        if self._product:
            mean, inverse_deviation = mean.flatten(2), inverse_deviation.flatten(2)
        offset = self.bias - mean * inverse_deviation * self.get_buffer("weight_sum")
        return (widened(self.applied(y, None)) * inverse_deviation + offset).to(self.dtype)
