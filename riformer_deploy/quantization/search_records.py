"""What a search asked of its judge, what the judge said, and the trace that is stored of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.errors import OptionError
from riformer_deploy.evaluation.latency_rounds import Ratio, ratio_of_series


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What building one config gave, and how accurate the artifact is on the target.

    Attributes:
        spent_s: Seconds that it took.
        failure: Why it was not built or did not run; then nothing else is known.
        artifact_sha256: Of the graph.
        sqnr_db: Least SQNR of its outputs against the float64 reference; None where nothing differs.
        changed_percent: Images whose first class differs from the reference's; None where it gives no scores.
        top1_percent: On labelled pictures; None where none were given.
        drop_points: How much lower that is than the reference's, percentage points.
        within_tolerance: Whether its outputs are within the parity tolerance of its precision.
    """

    spent_s: float
    failure: str | None = None
    artifact_sha256: str = ""
    sqnr_db: float | None = None
    changed_percent: float | None = None
    top1_percent: float | None = None
    drop_points: float | None = None
    within_tolerance: bool = False


def shown_figures(judged: Judged) -> str:
    """What was found of an artifact, or why it failed, in a few words."""
    if judged.failure is not None:
        return judged.failure
    figures = ["no error" if judged.sqnr_db is None else f"{judged.sqnr_db:.2f} dB"]
    if judged.changed_percent is not None:
        figures.append(f"{judged.changed_percent:.2f} % of first classes changed")
    if judged.drop_points is not None and judged.top1_percent is not None:
        figures.append(f"top-1 {judged.top1_percent:.2f} % ({-judged.drop_points:+.2f} points)")
    if not judged.within_tolerance:
        figures.append("out of the parity tolerance")
    return ", ".join(figures)


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One trial's times in a race.

    Attributes:
        trial: Its number.
        batch: Images per call.
        samples_ms: One a round, in order; kernels alone where the runtime keeps time, else whole calls.
    """

    trial: int
    batch: int
    samples_ms: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples_ms or min(self.samples_ms) <= 0:
            raise ValueError("the samples are not times")


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What a race gave: several configs timed in interleaved rounds.

    Attributes:
        spent_s: Seconds that it took, opening the artifacts included.
        lanes: Every trial that ran to the end, by batch size.
        failures: Why others did not, by their numbers.
    """

    spent_s: float
    lanes: tuple[Lane, ...]
    failures: dict[str, str]


class Judge(Protocol):
    """Builds and measures configs; what cannot be built or run is a result, not an error."""

    def judge(self, config: LoweringConfig) -> Judged:
        """Build one config and measure its accuracy on the target."""

    def race(self, configs: Mapping[int, LoweringConfig], seconds: float) -> Timed:
        """Time configs that were judged, in interleaved rounds.

        Args:
            configs: By number of their trial; the others are timed until their ratio to the first is sure.
            seconds: Limit of all rounds; there are as many as an interval takes, whatever it says.
        """


class TrialVerdict(StrEnum):
    """What became of one config."""

    PLAIN = "plain"
    """One of the forms that the answer has to beat."""
    FAILED = "failed"
    """It was not built, or did not run."""
    OUTSIDE = "outside-gate"
    """It ran, and does not hold the gate."""
    NOT_COMPARED = "not-compared"
    """It holds the gate, and the time was over before it was compared with anything."""
    NOT_BETTER = "not-better"
    """It holds the gate and is not proven to be better than what it was compared with."""
    BETTER = "better"
    """It took the place of what it was compared with, in its own precision."""
    CONFIRMED = "confirmed"
    """It is the answer: faster than every plain form in the final run."""
    KEPT = "kept"
    """It is the answer, a plain form: nothing was confirmed to be faster."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One config that was tried.

    Attributes:
        number: From 0, in order.
        tried: What about it is new, such as ``norm form: group``.
        config: As asked for, before calibration.
        judged: What the judge said.
        verdict: What became of it.
    """

    number: int
    tried: str
    config: LoweringConfig
    judged: Judged
    verdict: TrialVerdict

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        return f"{self.config.precision}, {self.tried}"


@dataclass(frozen=True, kw_only=True)
class Race:
    """Trials that were timed in interleaved rounds.

    Attributes:
        purpose: What it was to decide.
        spent_s: Seconds that it took.
        lanes: Every trial that ran to the end, by batch size.
        failures: Why others did not, by their numbers.
    """

    purpose: str
    spent_s: float
    lanes: tuple[Lane, ...]
    failures: dict[str, str]

    def times_of(self, trial: int) -> dict[int, tuple[float, ...]]:
        """A trial's samples by batch size; empty where it did not run to the end."""
        return {lane.batch: lane.samples_ms for lane in self.lanes if lane.trial == trial}

    def speed_ups(self, baseline: int, trial: int) -> dict[int, Ratio]:
        """How many times as fast a trial is as another, by batch size; empty where either did not run."""
        over, under = self.times_of(baseline), self.times_of(trial)
        return {batch: ratio_of_series(over[batch], under[batch], 1) for batch in over if batch in under}

    def faster(self, baseline: int, trial: int, by: float = 1.0) -> bool:
        """Whether a trial is more than ``by`` times as fast at every batch size, with the whole interval."""
        ratios = self.speed_ups(baseline, trial).values()
        return bool(ratios) and all(r.ci95 is not None and r.ci95[0] > by for r in ratios)

    def speed_up(self, baseline: int, trial: int) -> float | None:
        """The geometric mean of the ratios over batch sizes; None where either did not run."""
        ratios = [ratio.value for ratio in self.speed_ups(baseline, trial).values()]
        return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def last_speed_up(races: Sequence[Race], baseline: int | None, trial: int) -> float | None:
    """How many times as fast a trial was as another in the last race of both; None if there was none."""
    if baseline is None:
        return None
    found = (race.speed_up(baseline, trial) for race in reversed(races))
    return next((value for value in found if value is not None), None)


@dataclass(frozen=True, kw_only=True)
class SearchGate:
    """What an answer must hold to, beyond the parity tolerance of its precision.

    Attributes:
        min_sqnr_db: Least SQNR of its outputs.
        max_drop_points: Largest drop of top-1, percentage points; without labelled pictures, largest share of
            changed first classes, percent.
    """

    min_sqnr_db: float | None = None
    max_drop_points: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop_points is not None and not 0 <= self.max_drop_points <= 100:
            raise OptionError(f"--max-drop is from 0 to 100 points, got {self.max_drop_points}.")
        if self.min_sqnr_db is not None and not -200 <= self.min_sqnr_db <= 200:
            raise OptionError(f"--min-sqnr is in decibels, got {self.min_sqnr_db}.")

    def holds(self, judged: Judged) -> bool:
        """Whether an artifact ran and is accurate enough."""
        if judged.failure is not None or not judged.within_tolerance:
            return False
        if self.min_sqnr_db is not None and judged.sqnr_db is not None and judged.sqnr_db < self.min_sqnr_db:
            return False
        if self.max_drop_points is None:
            return True
        drop = judged.changed_percent if judged.drop_points is None else judged.drop_points
        return drop is not None and drop <= self.max_drop_points


@dataclass(frozen=True, kw_only=True)
class SearchTrace:
    """A search from its first trial to its answer.

    Attributes:
        trials: Every config, in the order of their numbers.
        races: Every race, in order; the last is the final run, where there was one.
        rivals: The plain forms that hold the gate: what an answer has to beat.
        anchor: The one of these that was the fastest at the beginning; it takes part in every race.
        answer: The trial to ship; None where no plain form holds the gate, so that there is none.
        confirmed: Whether the answer beat every plain form in the final run; else it is one of these.
        complete: Whether the search came to its end before its time did.
        spent_s: Seconds that judging and racing took.
    """

    trials: tuple[Trial, ...]
    races: tuple[Race, ...]
    rivals: tuple[int, ...]
    anchor: int | None
    answer: int | None
    confirmed: bool
    complete: bool
    spent_s: float

    def __post_init__(self) -> None:
        if [trial.number for trial in self.trials] != list(range(len(self.trials))):
            raise ValueError("the trials are not numbered in order")
        raced = [lane.trial for race in self.races for lane in race.lanes]
        named = [n for n in (*raced, *self.rivals, self.anchor, self.answer) if n is not None]
        if not set(named) <= set(range(len(self.trials))):
            raise ValueError("a trial is named that there is none of")
        if self.confirmed and not self._beaten():
            raise ValueError("an answer is said to be confirmed, and the final run does not say so")

    def _beaten(self) -> bool:
        """Whether the answer was faster than every plain form that ran in the final run."""
        if self.answer is None or not self.races:
            return False
        final = self.races[-1]
        ran = [number for number in self.rivals if final.times_of(number)]
        return bool(ran) and all(final.faster(number, self.answer) for number in ran)

    def speed_up_of(self, trial: int) -> float | None:
        """How many times as fast as the anchor a trial was when it was last timed; None if it never was."""
        return last_speed_up(self.races, self.anchor, trial)
