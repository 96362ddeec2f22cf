"""RIFormer's norm in the forms that a graph can hold; all compute the same function.

With one group, the norm of ``x`` (N, C, H, W) takes one mean and one variance per sample::

    n(x) = (x - mean) / sqrt(variance + eps)

Statistics are float32, or float64 for float64 input: with one group they run over as many as
885,000 values, and a mean may be a thousand times the deviation, so neither half precision nor
``E[x^2] - E[x]^2`` is used for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional

from riformer_deploy.choices import NormForm
from riformer_deploy.model import EPSILON


def widened(x: Tensor) -> Tensor:
    """``x`` in the type that statistics are taken in."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def normalise(x: Tensor, form: NormForm) -> Tensor:
    """``n(x)`` of a float32 or float64 tensor (N, C, H, W).

    Args:
        x: The input.
        form: Which operators to use.
    """
    match form:
        case NormForm.INSTANCE:
            flat = x.reshape(x.shape[0], 1, -1)
            return functional.instance_norm(flat, eps=EPSILON).reshape(x.shape)
        case NormForm.GROUP:
            return functional.group_norm(x, 1, eps=EPSILON)
        case NormForm.MOMENTS:
            moments = channel_moments(x)
            return (x - moments.overall_mean) * moments.inverse_deviation
        case _:
            assert_never(form)


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

    def scaled(self, factor: Tensor, offset: Tensor) -> Moments:
        """The moments of ``factor * x + offset``, both per sample and channel."""
        return Moments(mean=factor * self.mean + offset, variance=factor.square() * self.variance)


def channel_moments(x: Tensor) -> Moments:
    """Mean and variance of each channel; the variance is taken about the mean."""
    mean = x.mean((2, 3), keepdim=True)
    return Moments(mean=mean, variance=(x - mean).square().mean((2, 3), keepdim=True))
