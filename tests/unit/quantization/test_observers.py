from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from riformer_deploy.common.enums import Method
from riformer_deploy.quantization.observers import (
    BINS,
    Histogram,
    ObservedTensor,
    chosen_range,
    equalizer,
    histograms,
    largest_inputs,
)


def _histogram(
    counts: NDArray[np.float64], largest: float, energy: NDArray[np.float64] | None = None
) -> Histogram:
    return Histogram(largest=largest, counts=counts, energy=counts if energy is None else energy)


def _half_normal(largest: float = 8.0) -> Histogram:
    centres = (np.arange(BINS) + 0.5) * largest / BINS
    return _histogram(np.exp(-(centres**2) / 2) * 1e6, largest)


def _squared_error(histogram: Histogram, top: float) -> float:
    step = top / 127
    rounded = np.clip(np.round(histogram.centres / step), 0, 127) * step
    return float(((rounded - histogram.centres) ** 2) @ histogram.energy)


def test_max_is_the_largest_value() -> None:
    assert chosen_range(_half_normal(), Method.MAX) == 8.0


@pytest.mark.parametrize("largest", [8.0, 60.0])
def test_mse_is_the_argmin(largest: float) -> None:
    histogram = _half_normal(largest)
    found = chosen_range(histogram, Method.MSE)
    others = [_squared_error(histogram, top) for top in np.geomspace(largest / 500, largest, 500)]
    assert _squared_error(histogram, found) <= 1.005 * min(others)
    assert found < largest / 1.5


def test_mse_counts_the_energy_of_the_weights() -> None:
    counts = np.zeros(BINS)
    counts[: BINS // 10], counts[-1] = 1e5, 1e3
    quiet = counts.copy()
    quiet[-1] = 1e-9  # the channel of the large values meets no weights
    assert chosen_range(_histogram(counts, 1.0), Method.MSE) > 0.5
    assert chosen_range(_histogram(counts, 1.0, quiet), Method.MSE) < 0.15


def test_percentile_leaves_one_in_ten_thousand() -> None:
    counts = np.zeros(BINS)
    counts[:100], counts[-1] = 9999.5 / 100, 0.5
    assert chosen_range(_histogram(counts, 1.0), Method.PERCENTILE) == pytest.approx(100 / BINS)
    counts[-1] = 50
    assert chosen_range(_histogram(counts, 1.0), Method.PERCENTILE) == 1.0


def test_entropy_cuts_a_far_outlier_and_keeps_an_even_spread() -> None:
    assert 2 < chosen_range(_half_normal(60.0), Method.ENTROPY) < 10
    assert chosen_range(_histogram(np.full(BINS, 1e4), 1.0), Method.ENTROPY) > 0.9


@pytest.mark.parametrize("method", Method)
def test_a_layer_that_sees_only_zeros_gets_a_range_of_one(method: Method) -> None:
    counts = np.zeros(BINS)
    counts[0] = 100
    assert chosen_range(_histogram(counts, 0.0), method) == 1.0


@pytest.mark.parametrize("method", Method)
def test_a_single_value_is_covered(method: Method) -> None:
    counts = np.zeros(BINS)
    counts[-1] = 100
    assert chosen_range(_histogram(counts, 5.0), method) == pytest.approx(5.0, rel=0.01)


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 1)
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.first(x).mean((2, 3)))
        return result


def _batches() -> Iterator[Tensor]:
    yield torch.tensor([1.0, -3.0, 0.5, 0.25]).reshape(1, 2, 1, 2)
    yield torch.tensor([0.0, 2.0, -4.0, 1.0]).reshape(1, 2, 1, 2)


def test_largest_inputs_are_taken_by_channel_over_all_batches() -> None:
    found = largest_inputs(_Two(), ["first"], _batches)
    assert found["first"].tolist() == [3.0, 4.0]


def test_histograms_count_every_value_once_and_weigh_it_by_its_channel() -> None:
    model = _Two()
    with torch.no_grad():
        model.first.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 1.0]]).reshape(3, 2, 1, 1))
    largest = largest_inputs(model, ["first"], _batches)
    found = histograms(model, largest, _batches, bins=4)["first"]
    assert found.largest == 4.0
    assert found.counts.tolist() == [3, 2, 1, 2]  # 0.5 0.25 0 | 1 1 | 2 | 3 4
    assert found.energy.tolist() == [5 + 5 + 1, 1 + 5, 1, 1 + 5]
    assert found.centres.tolist() == [0.5, 1.5, 2.5, 3.5]


def test_histograms_of_a_result_count_every_channel_alike() -> None:
    model = _Two()
    with torch.no_grad():
        model.first.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]).reshape(3, 2, 1, 1))
        model.first.get_parameter("bias").zero_()
    places = {"after": ObservedTensor(module="first", result=True)}
    found = histograms(model, {"after": torch.tensor([4.0])}, _batches, places=places, bins=4)["after"]
    # both inputs again, and four zeros of the channel between them
    assert found.counts.tolist() == found.energy.tolist() == [3 + 4, 2, 1, 2]


def test_equalised_channels_are_alike_and_divisors_average_one() -> None:
    layer = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    smoothquant_scale = equalizer(layer, torch.tensor([1.0, 4.0, 16.0]))
    assert (smoothquant_scale / smoothquant_scale[0]).tolist() == pytest.approx([1, 2, 4])
    assert float(smoothquant_scale.mean()) == pytest.approx(1)


def test_hooks_are_gone_after_a_failure() -> None:
    model = _Two()

    def broken() -> Iterator[Tensor]:
        yield torch.zeros(1, 5, 1, 1)

    with pytest.raises(RuntimeError):
        largest_inputs(model, ["first"], broken)
    assert not model.first._forward_pre_hooks
