from __future__ import annotations

import numpy as np
import pytest

from riformer_deploy.evaluation.order_stats import median, median_interval, percentile


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 10, 11, 100, 101, 999, 1000])
def test_statistics_are_numpys_to_the_last_bit(count: int) -> None:
    rng = np.random.Generator(np.random.PCG64(count))
    for _ in range(20):
        values = rng.lognormal(size=count)
        ordered = np.sort(values).tolist()
        assert median(values.tolist()) == np.median(values)
        for percent in (0, 2.5, 25, 50, 75, 90, 95, 97.5, 99, 100):
            assert percentile(ordered, percent) == np.percentile(values, percent)


def test_the_interval_of_a_median_covers_it_as_often_as_it_says() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    bounds = [median_interval(sorted(rng.lognormal(size=25).tolist())) for _ in range(400)]
    inside = sum(low <= 1 <= high for low, high in filter(None, bounds))
    assert 0.93 <= inside / 400 <= 0.99
    assert median_interval([1.0] * 5) is None
