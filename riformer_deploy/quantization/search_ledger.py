"""What a search has tried and timed so far, and what of it may still be taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.progress import Progress
from riformer_deploy.quantization.search_budget import SearchBudget
from riformer_deploy.quantization.search_records import (
    Judge,
    Race,
    SearchGate,
    Trial,
    TrialVerdict,
)

_FAR = 3.0
"""No form was seen to be so much faster than its precision's default (2.2 times: products on a GPU)."""


class SearchLedger:
    """Trials and races, each asked of the judge once and counted against the budget.

    Args:
        judge: Builds and measures.
        gate: What an answer must hold to.
        max_seconds: Limit of it all; None for none.
        progress: Called with each step.

    Attributes:
        budget: What there is time for.
        trials: In order of their numbers.
        races: In order.
        anchor: The trial that takes part in every race; None for none.
    """

    def __init__(self, judge: Judge, gate: SearchGate, max_seconds: float | None, progress: Progress) -> None:
        self._judge, self._gate, self._progress = judge, gate, progress
        self.budget = SearchBudget(max_seconds)
        self.trials: list[Trial] = []
        self.races: list[Race] = []
        self.anchor: int | None = None
        self._known: set[str] = set()

    def attempt(self, tried: str, config: LoweringConfig, *, must: bool = False) -> int | None:
        """Judge a config that was not tried before.

        Args:
            tried: What about it is new.
            config: As asked for.
            must: Whether it is tried however little time there is.

        Returns:
            The number of its trial; None where it was tried before.

        Raises:
            TimeIsOverError: There is no time for it.
        """
        key = repr(config.heeded())
        if key in self._known:
            return None
        if not must:
            self.budget.require_trial()
        self._progress(f"trying {config.precision}, {tried}")
        judged = self._judge.judge(config)
        self.budget.tried(judged.spent_s)
        number = len(self.trials)
        failed = judged.failure is not None
        verdict = TrialVerdict.FAILED if failed else TrialVerdict.NOT_COMPARED
        if not failed and not self._gate.holds(judged):
            verdict = TrialVerdict.OUTSIDE
        self.trials.append(
            Trial(number=number, tried=tried, config=config.heeded(), judged=judged, verdict=verdict)
        )
        self._known.add(key)
        return number

    def mark(self, number: int, verdict: TrialVerdict) -> None:
        """Give a trial another verdict."""
        self.trials[number] = dataclasses.replace(self.trials[number], verdict=verdict)

    def compared(self, number: int) -> None:
        """Say that a trial was compared, and is no better if nothing else is said of it."""
        if self.trials[number].verdict is TrialVerdict.NOT_COMPARED:
            self.mark(number, TrialVerdict.NOT_BETTER)

    def runs(self, number: int) -> bool:
        """Whether a trial was built and has run whenever it was to."""
        return self.trials[number].verdict is not TrialVerdict.FAILED

    def holds(self, number: int) -> bool:
        """Whether a trial may be the answer."""
        return self.runs(number) and self._gate.holds(self.trials[number].judged)

    def outpaced(self, race: Race, numbers: Sequence[int]) -> list[int]:
        """Those trials that no tuning saves: one that may be the answer is proven to be far faster.

        Args:
            race: Of all of them.
            numbers: The trials.
        """
        holding = [number for number in numbers if self.holds(number)]
        return [n for n in numbers if any(race.faster(n, other, _FAR) for other in holding)]

    def sqnr_of(self, number: int) -> float:
        """Its SQNR, dB; infinity where nothing differs."""
        sqnr = self.trials[number].judged.sqnr_db
        return float("inf") if sqnr is None else sqnr

    def _beside_anchor(self, numbers: Sequence[int]) -> list[int]:
        anchor = [] if self.anchor is None or not self.runs(self.anchor) else [self.anchor]
        return list(dict.fromkeys((*numbers, *anchor)))

    def short_race(self, purpose: str, numbers: Sequence[int], rung: int = 0) -> Race:
        """A race of the search, if there is time for it; raises TimeIsOverError where not."""
        seconds = self.budget.require_race(len(self._beside_anchor(numbers)), rung)
        return self.race(purpose, numbers, seconds)

    def race(self, purpose: str, numbers: Sequence[int], seconds: float) -> Race:
        """Time trials beside the anchor; who does not run to the end has failed."""
        lanes = self._beside_anchor(numbers)
        self._progress(f"timing {purpose}: {len(lanes)} side by side")
        timed = self._judge.race({number: self.trials[number].config for number in lanes}, seconds)
        self.budget.raced(timed.spent_s, seconds, len(lanes))
        race = Race(purpose=purpose, spent_s=timed.spent_s, lanes=timed.lanes, failures=timed.failures)
        self.races.append(race)
        for number in map(int, timed.failures):
            failed = dataclasses.replace(
                self.trials[number].judged, failure=f"while it was timed: {timed.failures[str(number)]}"
            )
            self.trials[number] = dataclasses.replace(
                self.trials[number], judged=failed, verdict=TrialVerdict.FAILED
            )
        return race
