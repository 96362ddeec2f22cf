"""Ratios of latencies that were not taken in the same rounds, with an interval by resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from riformer_deploy.evaluation.latency_rounds import Ratio

_RESAMPLES = 2000


def ratio_of_medians(over_ms: Sequence[float], under_ms: Sequence[float]) -> Ratio:
    """The ratio of the medians of two series that were taken at different times.

    Args:
        over_ms: At least one sample.
        under_ms: At least one sample.

    Returns:
        With a 95 % percentile interval of 2000 bootstrap resamples of each; the same every time.
    """
    over, under = np.array(over_ms), np.array(under_ms)
    rng = np.random.Generator(np.random.PCG64(0))
    medians = [
        np.median(values[rng.integers(0, len(values), (_RESAMPLES, len(values)))], axis=1)
        for values in (over, under)
    ]
    low, high = (float(value) for value in np.percentile(medians[0] / medians[1], (2.5, 97.5)))
    enough = min(len(over), len(under)) >= 6
    return Ratio(value=float(np.median(over) / np.median(under)), ci95=(low, high) if enough else None)
