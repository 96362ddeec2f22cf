"""Watches what flows into each layer and chooses the range that int8 shall cover.

Two passes over the images: the first finds the largest value of every layer, the second fills a
histogram of fixed bins up to it. Memory depends on the number of layers, not of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BINS = 8192
_SEARCH = np.linspace(0.2, 1.0, 321)
"""Fractions of the largest value that are tried as ranges."""
_STEPS = 127


class Method(StrEnum):
    """How a range is chosen."""

    MAX = "max"
    """The largest value seen: nothing is clipped."""
    MSE = "mse"
    """The least squared error of the layer's *output*: every input channel's error counts with the energy
    of the weights that it meets."""
    PERCENTILE = "percentile"
    """The value that 99.99 % of the inputs do not exceed."""
    ENTROPY = "entropy"
    """The least Kullback-Leibler divergence between the values and their rounding (Migacz, GTC 2017)."""


PERCENTILE = 99.99


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Absolute values that flowed into a layer.

    Attributes:
        largest: The largest one; the bins divide 0 to it evenly.
        counts: How many fell into each bin.
        energy: Likewise, each counted with the energy of the weights of its channel.
    """

    largest: float
    counts: NDArray[np.float64]
    energy: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of each bin."""
        return (np.arange(len(self.counts)) + 0.5) * (self.largest / len(self.counts))


def _channel_energy(layer: nn.Module) -> Tensor:
    """Sum of squared weights that each input channel meets, (in_channels,)."""
    if isinstance(layer, nn.Conv2d):
        return layer.weight.detach().double().square().sum((0, 2, 3))
    if isinstance(layer, nn.Linear):
        return layer.weight.detach().double().square().sum(0)
    raise TypeError(f"{type(layer).__name__} is no convolution or linear layer")


def _by_channel(x: Tensor) -> Tensor:
    """(N, C, ...) as (C, everything else)."""
    return x.detach().transpose(0, 1).flatten(1).abs()


def _observe(
    model: nn.Module, names: Iterable[str], batches: Iterable[Tensor], see: Callable[[str, Tensor], None]
) -> None:
    """Run the model on every batch and show the input of each named layer."""
    modules = dict(model.named_modules())

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            see(name, inputs[0])

        handle: torch.utils.hooks.RemovableHandle = modules[name].register_forward_pre_hook(hook)
        return handle

    handles = [watch(name) for name in names]
    try:
        with torch.inference_mode():
            for batch in batches:
                model(batch)
    finally:
        for handle in handles:
            handle.remove()


def largest_inputs(model: nn.Module, names: Iterable[str], batches: Iterable[Tensor]) -> dict[str, float]:
    """Largest absolute input of each named module.

    Args:
        model: In evaluation mode.
        names: Modules, as ``named_modules`` calls them.
        batches: Images as the model takes them.

    Returns:
        By name; infinity or NaN where one was seen.
    """
    found = dict.fromkeys(names, 0.0)

    def see(name: str, x: Tensor) -> None:
        value = float(x.abs().max())
        found[name] = value if not value <= found[name] else found[name]

    _observe(model, found, batches, see)
    return found


def histograms(
    model: nn.Module, largest: Mapping[str, float], batches: Iterable[Tensor], *, bins: int = BINS
) -> dict[str, Histogram]:
    """Histograms of the inputs of convolutions and linear layers.

    Args:
        model: In evaluation mode.
        largest: From :func:`largest_inputs`, on the same images.
        batches: The images again.
        bins: Number of bins.
    """
    modules = dict(model.named_modules())
    energies = {name: _channel_energy(modules[name]) for name in largest}
    counts = {name: np.zeros(bins) for name in largest}
    energy = {name: np.zeros(bins) for name in largest}

    def see(name: str, x: Tensor) -> None:
        top = largest[name] or 1.0
        for channel, weight in zip(_by_channel(x), energies[name], strict=True):
            hit = torch.histc(channel.float(), bins, 0, top).double().numpy()
            counts[name] += hit
            energy[name] += float(weight) * hit

    _observe(model, largest, batches, see)
    return {
        name: Histogram(largest=top, counts=counts[name], energy=energy[name]) for name, top in largest.items()
    }


def _least_squares(histogram: Histogram) -> float:
    centres, weights = histogram.centres, histogram.energy
    errors = []
    for fraction in _SEARCH:
        step = histogram.largest * fraction / _STEPS
        rounded = np.clip(np.round(centres / step), 0, _STEPS) * step
        errors.append(float(((rounded - centres) ** 2) @ weights))
    return histogram.largest * float(_SEARCH[int(np.argmin(errors))])


def _percentile(histogram: Histogram) -> float:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    index = int(np.searchsorted(share, PERCENTILE / 100))
    return histogram.largest * (index + 1) / len(histogram.counts)


def _divergence(counts: NDArray[np.float64], kept: int) -> float:
    """KL divergence of the first ``kept`` bins, outliers in the last, from 128 merged levels."""
    true = counts[:kept].copy()
    true[-1] += counts[kept:].sum()
    edges = np.linspace(0, kept, _STEPS + 2).round().astype(int)
    rounded = np.zeros(kept)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        part = counts[low:high]
        filled = part > 0
        if filled.any():
            rounded[low:high][filled] = part.sum() / filled.sum()
    p, q = true / true.sum(), rounded / max(rounded.sum(), 1e-300)
    seen = p > 0
    if (q[seen] <= 0).any():
        q = np.where(q > 0, q, 1e-9)
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


def _entropy(histogram: Histogram) -> float:
    counts = histogram.counts.reshape(2048, -1).sum(1)
    candidates = range(2 * (_STEPS + 1), len(counts) + 1, 16)
    best = min(candidates, key=lambda kept: _divergence(counts, kept))
    return histogram.largest * best / len(counts)


def chosen_range(histogram: Histogram, method: Method) -> float:
    """The absolute value that 127 steps shall reach.

    Args:
        histogram: Of the layer's input.
        method: How to choose; a layer whose input is always zero keeps a range of 1.
    """
    if histogram.largest == 0:
        return 1.0
    match method:
        case Method.MAX:
            return histogram.largest
        case Method.MSE:
            return _least_squares(histogram)
        case Method.PERCENTILE:
            return _percentile(histogram)
        case Method.ENTROPY:
            return _entropy(histogram)
        case _:
            assert_never(method)
