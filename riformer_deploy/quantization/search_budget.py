"""How a search spends its time: short races first, and always enough left for the final run."""

from __future__ import annotations


class TimeIsOverError(Exception):
    """The next step would not leave the time for the final run."""


_RUNG_S, _FINAL_S = 3.0, 30.0
"""Rounds of the first race among challengers, and of the final run, where time is not limited."""
_SHARE_OF_RUNG, _SHARE_OF_FINAL = 1 / 60, 1 / 6
_MOST_RUNG_S = 10.0


class SearchBudget:
    """Counts the seconds of trials and races, and says what there is time for.

    What a step takes is estimated by the longest of its kind so far, so that the limit is kept where steps of
    a kind take about the same time.

    Args:
        limit_s: Of everything; None for no limit.

    Attributes:
        spent_s: Seconds so far.
        final_lanes: How many are going to take part in the final run.
    """

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self.spent_s = 0.0
        self._trial_s = 0.0
        self._lane_s = 0.0
        self.final_lanes = 1
        share = limit_s if limit_s is not None else 0.0
        self._rung_s = _RUNG_S if limit_s is None else min(share * _SHARE_OF_RUNG, _MOST_RUNG_S)
        self._final_s = _FINAL_S if limit_s is None else share * _SHARE_OF_FINAL

    def tried(self, spent_s: float) -> None:
        """Count a trial."""
        self.spent_s += spent_s
        self._trial_s = max(self._trial_s, spent_s)

    def raced(self, spent_s: float, seconds: float, lanes: int) -> None:
        """Count a race whose rounds were to take ``seconds``; opening and warming up come on top."""
        self.spent_s += spent_s
        self._lane_s = max(self._lane_s, (spent_s - seconds) / lanes)

    @property
    def _left_s(self) -> float:
        """Seconds until the limit."""
        return float("inf") if self._limit_s is None else self._limit_s - self.spent_s

    @property
    def _reserve_s(self) -> float:
        """What the final run takes, and the race of the leaders before it."""
        return self._final_s + self._rung_s + 2 * self.final_lanes * self._lane_s

    def require_trial(self) -> None:
        """See that there is time for one more trial, and a race of it.

        Raises:
            TimeIsOverError: There is not.
        """
        if self._left_s - self._reserve_s < self._trial_s + self._rung_s + 3 * self._lane_s:
            raise TimeIsOverError

    def require_race(self, lanes: int, rung: int = 0) -> float:
        """Seconds of the rounds of a race; each rung takes twice as long as the one before.

        Args:
            lanes: How many take part.
            rung: From 0.

        Raises:
            TimeIsOverError: There is no time for it.
        """
        seconds = self._rung_s * (1 << rung)
        if self._left_s - self._reserve_s < seconds + lanes * self._lane_s:
            raise TimeIsOverError
        return seconds

    def race_before_final_s(self) -> float | None:
        """Seconds of the race of the leaders; None where there is no time for it."""
        return self._rung_s if self._left_s >= self._reserve_s else None

    def final_s(self) -> float | None:
        """Seconds of the final run: what it was to have, or what is left; None where nothing is."""
        seconds = min(self._final_s, self._left_s - self.final_lanes * self._lane_s)
        return seconds if seconds > 0 else None
