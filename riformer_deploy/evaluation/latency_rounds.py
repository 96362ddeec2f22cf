"""How many rounds a measurement takes, and how sure the ratio of two latencies then is."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from riformer_deploy.common.enums import Role

FEWEST_ROUNDS = 5
_FEWEST_FOR_INTERVAL = 6
_FIRST_LOOK = 10
_NEXT_LOOK = 1.25
"""The interval is looked at after ten rounds, and then after a quarter more each time: looking after every
round would stop at the first interval that is narrow by chance."""
MOST_ROUNDS = 2000
NARROW = 1.06
"""Upper over lower end of the interval of a ratio: about 3 % either way."""
_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times faster one model is than another.

    Attributes:
        value: Median over rounds of the one's time by the other's.
        ci95: 95 % confidence interval of that median, by order statistics; None for fewer than 6 rounds.
    """

    value: float
    ci95: tuple[float, float] | None

    @property
    def narrow(self) -> bool:
        """Whether the interval is narrow enough to end a measurement."""
        return self.ci95 is not None and self.ci95[1] <= NARROW * self.ci95[0]

    @property
    def decided(self) -> bool:
        """Whether it is known which of both is faster: the whole interval is on one side of 1."""
        return self.ci95 is not None and (self.ci95[0] > 1 or self.ci95[1] < 1)


def ratio_of_series(slower_ms: Sequence[float], faster_ms: Sequence[float], repeats: int) -> Ratio:
    """The ratio of two series that were taken in the same rounds.

    Both models have a turn in each round, so a drift of the machine falls on both and out of the ratio. What
    hits single calls does not: where that is common, the ratio is of the machine as it was, not of a quiet
    one.

    Args:
        slower_ms: Samples of what is compared with, in order.
        faster_ms: Samples of the other; of the same length where the rounds were the same. Otherwise the
            two are compared by their order, as far as both go.
        repeats: Samples of each turn.
    """
    turns = [_turns(values, repeats) for values in (slower_ms, faster_ms)]
    count = min(map(len, turns))
    ratios = np.sort(turns[0][:count] / turns[1][:count])
    return Ratio(value=float(np.median(ratios)), ci95=median_interval(ratios))


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


def _turns(values_ms: Sequence[float], repeats: int) -> np.ndarray:
    """Median of each turn."""
    values = np.array(values_ms)
    size = repeats if len(values) % repeats == 0 else 1
    medians: np.ndarray = np.median(values.reshape(-1, size), axis=1)
    return medians


def median_interval(ordered: np.ndarray) -> tuple[float, float] | None:
    """95 % confidence interval of a median; None for fewer than 6 values, which bound none.

    Ranks n/2 +- 1.96 sqrt(n)/2 of the ordered sample bound it (normal approximation to the binomial; Conover,
    Practical Nonparametric Statistics, 3.2).

    Args:
        ordered: Values in rising order, at least one.
    """
    count = len(ordered)
    half = 0.98 * np.sqrt(count)
    low = max(int(np.floor(count / 2 - half)), 0)
    high = min(int(np.ceil(count / 2 + half)), count - 1)
    return (float(ordered[low]), float(ordered[high])) if count >= 6 else None


def strongest_series(series: Sequence[tuple[Role, Sequence[float]]]) -> Sequence[float]:
    """The fastest baseline by its median, or the first series where there is no baseline.

    Args:
        series: Role and samples of each model, at least one.
    """
    baselines = [samples for role, samples in series if role is Role.BASELINE]
    return min(baselines, key=lambda samples: float(np.median(samples)), default=series[0][1])


class Rounds:
    """Says whether another round is to be taken: a number that was asked for, or until ratios are narrow.

    Args:
        fixed: The number that was asked for; None for as many as it takes.
        repeats: Samples of each turn.
        seconds: When to stop at the latest, once there are enough rounds for an interval; a fixed number has
            no limit.
        later_s: Seconds that batch sizes after this one may take; only told.
    """

    def __init__(self, fixed: int | None, repeats: int, seconds: float, later_s: float = 0.0) -> None:
        self._fixed, self._repeats, self._seconds, self._later_s = fixed, repeats, seconds, later_s
        self._start = time.monotonic()
        self._look = _FIRST_LOOK
        self.taken = 0

    @property
    def spent_s(self) -> float:
        """Seconds since the first round began."""
        return time.monotonic() - self._start

    @property
    def label(self) -> str:
        """The round that comes next and the time that is left for all batch sizes, for progress."""
        if self._fixed is not None:
            return f"round {self.taken + 1} of {self._fixed}"
        left_s = self._seconds - self.spent_s
        if left_s <= 0:  # an interval needs more rounds than there was time for
            return f"round {self.taken + 1} of {_FEWEST_FOR_INTERVAL}"
        return f"round {self.taken + 1}, at most {left_s + self._later_s:.0f} s left"

    @property
    def planned(self) -> int:
        """How many rounds there are; 0 where that is not known beforehand."""
        return self._fixed or 0

    def more(self, series: Sequence[tuple[Role, Sequence[float]]]) -> bool:
        """Whether to take another round.

        Args:
            series: Role and samples so far of every model; empty before the first round.
        """
        if self._fixed is not None:
            return self.taken < self._fixed
        if self.taken < _FEWEST_FOR_INTERVAL:
            return True
        # A round that would end after the limit is not begun.
        if self.taken >= MOST_ROUNDS or self.spent_s * (1 + 1 / self.taken) > self._seconds:
            return False
        if self.taken < self._look:
            return True
        self._look = math.ceil(self._look * _NEXT_LOOK)
        strongest = strongest_series(series)
        return not all(
            samples is strongest or ratio_of_series(strongest, samples, self._repeats).narrow
            for _, samples in series
        )
