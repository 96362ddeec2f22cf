"""Watches what flows into each layer and addition and chooses the range that int8 shall cover.

Two passes over the images: the first finds the largest value of every input channel, the second fills a
histogram of fixed bins up to it. Memory depends on the number of layers, not of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from riformer_deploy.common.enums import Method

BINS = 8192
PERCENTILE = 99.99
_STEPS = 127
_SEARCH = np.concatenate([np.geomspace(0.002, 0.2, 100, endpoint=False), np.linspace(0.2, 1.0, 321)])
"""Fractions of the largest value that are tried as ranges."""
_ENTROPY_BINS, _ENTROPY_STRIDE = 2048, 8

BatchSource = Callable[[], Iterable[Tensor]]
"""Gives the images from the start, as the model takes them, each time it is called."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Absolute values that were seen at one place.

    Attributes:
        largest: The largest one; the bins divide 0 to it evenly.
        counts: How many fell into each bin.
        energy: The same, each value counted with the energy of the weights of its channel.
    """

    largest: float
    counts: NDArray[np.float64]
    energy: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of each bin."""
        count = len(self.counts)
        return np.linspace(0, self.largest, count, endpoint=False) + self.largest / (2 * count)


def _weight_by_input(layer: nn.Module) -> Tensor:
    """Weights that each input channel meets, (in_channels, anything), float64."""
    weight = layer.get_parameter("weight").detach().double()
    return weight.transpose(0, 1).flatten(1)


@dataclass(frozen=True, kw_only=True)
class ObservedTensor:
    """Where a tensor is to be seen.

    Attributes:
        module: Name of the module that takes it, as ``named_modules`` calls it.
        result: It is what the module gives instead.
    """

    module: str
    result: bool = False


def _observe(
    model: nn.Module,
    places: Mapping[str, ObservedTensor],
    batches: BatchSource,
    see: Callable[[str, Tensor], None],
) -> None:
    """Run the model on every batch and show the tensor at each place, channels first: (C, values)."""
    modules = dict(model.named_modules())

    def watch(name: str, place: ObservedTensor) -> RemovableHandle:
        def show(value: Tensor) -> None:
            see(name, value.detach().transpose(0, 1).flatten(1).abs())

        def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            show(inputs[0])

        def after(_module: nn.Module, _inputs: object, result: Tensor) -> None:
            show(result)

        module = modules[place.module]
        handle: RemovableHandle = (
            module.register_forward_hook(after) if place.result else module.register_forward_pre_hook(before)
        )
        return handle

    handles = [watch(name, place) for name, place in places.items()]
    try:
        with torch.inference_mode():
            for batch in batches():
                model(batch)
    finally:
        for handle in handles:
            handle.remove()


def largest_inputs(model: nn.Module, names: Iterable[str], batches: BatchSource) -> dict[str, Tensor]:
    """Largest absolute input of each named layer, by channel.

    Args:
        model: In evaluation mode.
        names: Convolutions and linear layers, as ``named_modules`` calls them.
        batches: The images.

    Returns:
        By name, (in_channels,) float32; infinity or NaN where one was seen.
    """
    found: dict[str, Tensor] = {}
    wanted = {name: ObservedTensor(module=name) for name in names}

    def see(name: str, values: Tensor) -> None:
        top = values.amax(1)
        found[name] = torch.maximum(found[name], top) if name in found else top

    _observe(model, wanted, batches, see)
    return found


def equalizer(layer: nn.Module, largest: Tensor) -> Tensor:
    """What to divide each input channel by, and multiply its weights with, before quantising.

    ``max|x_c|^0.5 / max|w_c|^0.5``, scaled to mean 1: SmoothQuant's migration with alpha 0.5 (Xiao et al.,
    ICML 2023, equation 4). The layer computes the same function; its input channels become alike in range.

    Args:
        layer: A convolution or linear layer.
        largest: Largest absolute value of each input channel.

    Returns:
        (in_channels,) float32, positive.
    """
    strength = _weight_by_input(layer).abs().amax(1).clamp_min(1e-12)
    smoothquant_scale = (largest.double().clamp_min(1e-12) / strength).sqrt()
    return (smoothquant_scale / smoothquant_scale.mean()).clamp(1e-3, 1e3).to(torch.float32)


def histograms(
    model: nn.Module,
    largest: Mapping[str, Tensor],
    batches: BatchSource,
    smoothquant_scales: Mapping[str, Tensor] | None = None,
    places: Mapping[str, ObservedTensor] | None = None,
    *,
    bins: int = BINS,
) -> dict[str, Histogram]:
    """Histograms of the inputs of convolutions and linear layers, and of other tensors.

    Args:
        model: In evaluation mode.
        largest: Largest absolute values on the same images, by name: (in_channels,) of a layer's input, from
            :func:`largest_inputs`; (1,) of another tensor.
        batches: The same images again.
        smoothquant_scales: By layer, from :func:`equalizer`: what its input channels are divided by first.
        places: By name, where those tensors are that are no layer's input. They meet no weights: the energy
            of each of their channels is 1.
        bins: Number of bins.
    """
    modules, elsewhere = dict(model.named_modules()), places or {}
    shares = {
        name: (smoothquant_scales or {}).get(name, torch.ones_like(top)).float()
        for name, top in largest.items()
    }
    tops = {name: float((top / shares[name]).max()) for name, top in largest.items()}
    energies = {
        name: torch.ones(1, dtype=torch.float64)
        if name in elsewhere
        else (_weight_by_input(modules[name]) * shares[name].double()[:, None]).square().sum(1)
        for name in largest
    }
    counts = {name: np.zeros(bins) for name in largest}
    energy = {name: np.zeros(bins) for name in largest}

    def see(name: str, values: Tensor) -> None:
        scaled = values / shares[name][:, None] * (bins / (tops[name] or 1.0))
        index = scaled.to(torch.int64).clamp_(0, bins - 1)
        weights = energies[name][:, None].expand_as(index).reshape(-1)
        flat = index.reshape(-1)
        counts[name] += torch.bincount(flat, minlength=bins).numpy()
        energy[name] += torch.bincount(flat, weights=weights, minlength=bins).numpy()

    watched = {name: elsewhere.get(name, ObservedTensor(module=name)) for name in largest}
    _observe(model, watched, batches, see)
    return {name: Histogram(largest=tops[name], counts=counts[name], energy=energy[name]) for name in largest}


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
    return histogram.largest * min(index + 1, len(share)) / len(share)


def _divergence(counts: NDArray[np.float64], kept: int) -> float:
    """KL divergence of the first ``kept`` bins, outliers in the last, from their merging to 128 levels."""
    true = counts[:kept].copy()
    true[-1] += counts[kept:].sum()
    occupied = counts[:kept] > 0
    level = np.minimum(np.arange(kept) * (_STEPS + 1) // kept, _STEPS)
    total = np.bincount(level, weights=counts[:kept], minlength=_STEPS + 1)
    share = np.bincount(level, weights=occupied, minlength=_STEPS + 1)
    merged = np.where(occupied, total[level] / np.maximum(share[level], 1), 0)
    p, q = true / true.sum(), merged / merged.sum()
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))).sum())


def _entropy(histogram: Histogram) -> float:
    counts = histogram.counts.reshape(_ENTROPY_BINS, -1).sum(1)
    first = int(np.argmax(counts > 0)) + 1
    candidates = range(max(_STEPS + 1, first), len(counts) + 1, _ENTROPY_STRIDE)
    best = min(candidates, key=lambda kept: _divergence(counts, kept))
    return histogram.largest * best / len(counts)


def chosen_range(histogram: Histogram, method: Method) -> float:
    """The absolute value that 127 steps shall reach.

    Args:
        histogram: Of the tensor to quantise.
        method: How to choose; a tensor that is always zero gets a range of 1.
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
