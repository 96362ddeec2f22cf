"""Medians and percentiles of series, to the last bit as NumPy computes them.

Reading a result derives its statistics again and compares them exactly. Without NumPy, looking at a bundle
is quick, and what was stored stays readable whatever NumPy does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_FEWEST_FOR_INTERVAL = 6


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two in the middle.

    Args:
        values: At least one, in any order.
    """
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile, between two values by linear interpolation, which ``numpy.percentile`` does by default.

    Args:
        ordered: Values in rising order, at least one.
        percent: From 0 to 100.
    """
    place = (len(ordered) - 1) * (percent / 100)
    below = math.floor(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    part, step = place - below, high - low
    # from the nearer end, as NumPy: the two ways differ by rounding
    return low + step * part if part < 0.5 else high - step * (1 - part)


def median_interval(ordered: Sequence[float]) -> tuple[float, float] | None:
    """95 % confidence interval of a median; None for fewer than 6 values, which bound none.

    Ranks n/2 +- 1.96 sqrt(n)/2 of the ordered sample bound it (normal approximation to the binomial; Conover,
    Practical Nonparametric Statistics, 3.2).

    Args:
        ordered: Values in rising order.
    """
    count = len(ordered)
    if count < _FEWEST_FOR_INTERVAL:
        return None
    half = 0.98 * math.sqrt(count)
    low, high = math.floor(count / 2 - half), math.ceil(count / 2 + half)
    return ordered[max(low, 0)], ordered[min(high, count - 1)]
