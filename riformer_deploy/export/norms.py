"""RIFormer's norm in the forms that a graph can hold; all compute the same function.

With one group, the norm of ``x`` (N, C, H, W) takes one mean and one variance per sample::

    n(x) = (x - mean) / sqrt(variance + eps)

Statistics are float32, or float64 for float64 input: with one group they run over as many as
885,000 values, and a mean may be a thousand times the deviation, so neither half precision nor
``E[x^2] - E[x]^2`` is used for them. For input in half precision they are the operator's own: PyTorch's and
ONNX Runtime's take them in float32.

Shapes are written with the image's sizes, which are constants of a graph, and -1 for the batch, so that a
graph of any batch computes no shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional

from riformer_deploy.common.enums import NormForm
from riformer_deploy.model.blocks import EPSILON


def widened(x: Tensor) -> Tensor:
    """``x`` in the type that statistics are taken in."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def single_group_norm(x: Tensor, form: NormForm) -> Tensor:
    """``n(x)`` of a tensor (N, C, H, W), in its type.

    Args:
        x: The input; float32 or float64 where the form is ``moments``.
        form: Which operators to use.
    """
    _, *sizes = x.shape
    if form is NormForm.INSTANCE and x.dtype.itemsize < 4 and not torch.onnx.is_in_onnx_export():
        form = NormForm.GROUP  # the same function, for which PyTorch does not compute in half
    match form:
        case NormForm.INSTANCE:
            flat = x.reshape(-1, 1, prod(sizes))
            return functional.instance_norm(flat, eps=EPSILON).reshape(-1, *sizes)
        case NormForm.GROUP:
            # The exporter's own unit weights would be computed in the graph where they are bfloat16.
            weight, bias = (
                torch.full((sizes[0],), value, dtype=x.dtype, device=x.device) for value in (1.0, 0.0)
            )
            return functional.group_norm(x, 1, weight, bias, EPSILON)
        case NormForm.LAYER:
            flat = x.reshape(-1, prod(sizes))
            return functional.layer_norm(flat, (prod(sizes),), eps=EPSILON).reshape(-1, *sizes)
        case NormForm.MOMENTS:
            return channel_moments(x).overall().normalised(x)
        case _:
            assert_never(form)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a norm with one group takes of each sample, both (N, 1, 1, 1).

    Attributes:
        mean: The mean.
        inverse_deviation: ``1 / sqrt(variance + eps)``.
    """

    mean: Tensor
    inverse_deviation: Tensor

    def normalised(self, x: Tensor) -> Tensor:
        """``n(x)`` of what these are the statistics of."""
        return (x - self.mean) * self.inverse_deviation


def statistics(x: Tensor) -> Statistics:
    """Those of a float32 or float64 tensor (N, C, H, W); the variance is taken about the mean."""
    mean = x.mean((1, 2, 3), keepdim=True)
    variance = (x - mean).square().mean((1, 2, 3), keepdim=True)
    return Statistics(mean=mean, inverse_deviation=torch.rsqrt(variance + EPSILON))


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Statistics of (N, C, H, W): per channel, and overall.

    Attributes:
        mean: Of each channel, (N, C, 1, 1).
        variance: Of each channel about its own mean, (N, C, 1, 1).
    """

    mean: Tensor
    variance: Tensor

    @property
    def overall_mean(self) -> Tensor:
        """Of each sample, (N, 1, 1, 1)."""
        return self.mean.mean(1, keepdim=True)

    @property
    def inverse_deviation(self) -> Tensor:
        """``1 / sqrt(variance + eps)`` of each sample, (N, 1, 1, 1).

        The law of total variance: the mean of the channels' variances plus the variance of their means.
        """
        spread = (self.mean - self.overall_mean).square().mean(1, keepdim=True)
        return torch.rsqrt(self.variance.mean(1, keepdim=True) + spread + EPSILON)

    def overall(self) -> Statistics:
        """Those of each sample."""
        return Statistics(mean=self.overall_mean, inverse_deviation=self.inverse_deviation)

    def scaled(self, factor: Tensor, offset: Tensor) -> Moments:
        """The moments of ``factor * x + offset``, both per sample and channel."""
        return Moments(mean=factor * self.mean + offset, variance=factor.square() * self.variance)


def channel_moments(x: Tensor) -> Moments:
    """Mean and variance of each channel; the variance is taken about the mean."""
    mean = x.mean((2, 3), keepdim=True)
    return Moments(mean=mean, variance=(x - mean).square().mean((2, 3), keepdim=True))
