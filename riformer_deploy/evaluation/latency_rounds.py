"""How many rounds a measurement takes, and how sure the ratio of two latencies then is."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from riformer_deploy.common.enums import Role
from riformer_deploy.evaluation.order_stats import median, median_interval

FEWEST_ROUNDS = 5
_FEWEST_FOR_INTERVAL = 6
_FIRST_LOOK = 10
_NEXT_LOOK = 1.25
"""The interval is looked at after ten rounds, and then after a quarter more each time: looking after every
round would stop at the first interval that is narrow by chance."""
MOST_ROUNDS = 2000
NARROW = 1.06
"""Upper over lower end of the interval of a ratio: about 3 % either way."""


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
    ratios = sorted(slower / faster for slower, faster in zip(*turns, strict=False))
    return Ratio(value=median(ratios), ci95=median_interval(ratios))


def _turns(values_ms: Sequence[float], repeats: int) -> list[float]:
    """Median of each turn."""
    size = repeats if len(values_ms) % repeats == 0 else 1
    return [median(values_ms[start : start + size]) for start in range(0, len(values_ms), size)]


def strongest_series(series: Sequence[tuple[Role, Sequence[float]]]) -> Sequence[float]:
    """The fastest baseline by its median, or the first series where there is no baseline.

    Args:
        series: Role and samples of each model, at least one.
    """
    baselines = [samples for role, samples in series if role is Role.BASELINE]
    return min(baselines, key=median, default=series[0][1])


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
