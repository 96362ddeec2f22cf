"""The search for the fastest config that holds a gate: it sees configs and outcomes, never a file or a clock.

It goes through the dimensions one by one, for every precision that is still in the running. Challengers that
hold the gate race beside the leader of their precision, the faster half of them twice as long, until one is
left; it takes the lead where the whole interval of the ratio is above 1. Precisions are halved the same way.
At the end the best leader has to beat every plain form in a final run of its own, or the fastest of these is
the answer: with whatever noise, the answer is never one that is not proven to be faster than they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.quantization.search_budget import SearchBudget, TimeIsOverError
from riformer_deploy.quantization.search_records import (
    Judge,
    Race,
    SearchGate,
    SearchTrace,
    Trial,
    TrialVerdict,
)
from riformer_deploy.quantization.search_space import Dimension, Effect, alternatives

_FEW = 2
"""So many precisions are searched to the end."""


@dataclass(frozen=True, kw_only=True)
class SearchTask:
    """What to search.

    Attributes:
        plain: Forms that the answer has to beat, of different precisions; the first is float32 if possible.
        starts: Quantised forms to begin with, one for each precision.
        held: Forms that the bundle holds already, so that nothing slower takes their place.
        dimensions: What to choose.
        runtime: The target.
        gate: What the answer must hold to.
        max_seconds: Limit of it all; None for none.
    """

    plain: tuple[LoweringConfig, ...]
    starts: tuple[LoweringConfig, ...]
    held: tuple[LoweringConfig, ...]
    dimensions: tuple[Dimension, ...]
    runtime: RuntimeKind
    gate: SearchGate
    max_seconds: float | None = None


def search(task: SearchTask, judge: Judge, progress: Progress = silent) -> SearchTrace:
    """Search; the same outcomes give the same trace.

    Args:
        task: What to search.
        judge: Builds and measures.
        progress: Called with each step.
    """
    return _Search(task, judge, progress).run()


class _Search:
    """The state of one search."""

    def __init__(self, task: SearchTask, judge: Judge, progress: Progress) -> None:
        self._task, self._judge, self._progress = task, judge, progress
        self._budget = SearchBudget(task.max_seconds)
        self._trials: list[Trial] = []
        self._races: list[Race] = []
        self._known: dict[str, int] = {}
        self._leaders: dict[Precision, int] = {}
        self._dropped: list[int] = []
        self._rivals: list[int] = []
        self._untuned: list[int] = []
        self._held: list[int] = []
        self._anchor: int | None = None

    def run(self) -> SearchTrace:
        """Every step in order; whatever the time, an answer."""
        complete = True
        try:
            self._begin()
            for dimension in self._task.dimensions:
                for precision in tuple(self._leaders):
                    self._improve(precision, dimension)
                self._halve()
        except TimeIsOverError:
            complete = False
        answer, confirmed = self._answer()
        if answer is not None:
            self._mark(answer, TrialVerdict.CONFIRMED if confirmed else TrialVerdict.KEPT)
        return SearchTrace(
            trials=tuple(self._trials),
            races=tuple(self._races),
            rivals=tuple(self._rivals),
            anchor=self._anchor,
            answer=answer,
            confirmed=confirmed,
            complete=complete,
            spent_s=self._budget.spent_s,
        )

    # -- trials and races

    def _try(self, tried: str, config: LoweringConfig, *, must: bool = False) -> int | None:
        """The number of a config's trial, new or not; None where it is one that was tried before."""
        key = repr(config.heeded())
        if key in self._known:
            return None
        if not must:
            self._budget.require_trial()
        self._progress(f"trying {config.precision}, {tried}")
        judged = self._judge.judge(config)
        self._budget.tried(judged.spent_s)
        number = len(self._trials)
        failed = judged.failure is not None
        verdict = TrialVerdict.FAILED if failed else TrialVerdict.NOT_BETTER
        if not failed and not self._task.gate.holds(judged):
            verdict = TrialVerdict.OUTSIDE
        self._trials.append(
            Trial(number=number, tried=tried, config=config.heeded(), judged=judged, verdict=verdict)
        )
        self._known[key] = number
        return number

    def _mark(self, number: int, verdict: TrialVerdict) -> None:
        self._trials[number] = dataclasses.replace(self._trials[number], verdict=verdict)

    def _runs(self, number: int) -> bool:
        return self._trials[number].verdict is not TrialVerdict.FAILED

    def _holds(self, number: int) -> bool:
        return self._runs(number) and self._task.gate.holds(self._trials[number].judged)

    def _sqnr(self, number: int) -> float:
        sqnr = self._trials[number].judged.sqnr_db
        return float("inf") if sqnr is None else sqnr

    def _race(self, purpose: str, numbers: Sequence[int], seconds: float) -> Race:
        """Time trials beside the anchor; who does not run to the end has failed."""
        anchor = [] if self._anchor is None else [self._anchor]
        lanes = list(dict.fromkeys((*numbers, *anchor)))
        self._progress(f"timing {purpose}: {len(lanes)} side by side")
        timed = self._judge.race({number: self._trials[number].config for number in lanes}, seconds)
        self._budget.raced(timed.spent_s, seconds)
        race = Race(purpose=purpose, spent_s=timed.spent_s, lanes=timed.lanes, failures=timed.failures)
        self._races.append(race)
        for number in map(int, timed.failures):
            failed = dataclasses.replace(
                self._trials[number].judged, failure=f"while it was timed: {timed.failures[str(number)]}"
            )
            self._trials[number] = dataclasses.replace(
                self._trials[number], judged=failed, verdict=TrialVerdict.FAILED
            )
        return race

    # -- steps

    def _begin(self) -> None:
        """The plain forms, the fastest of which is the anchor, and the first leaders."""
        for place, config in enumerate(self._task.plain):
            number = self._try("the default form", config, must=place == 0)
            if number is not None and self._holds(number):
                self._mark(number, TrialVerdict.PLAIN)
                self._rivals.append(number)
                self._leaders[config.precision] = number
                self._anchor = self._rivals[0]
        if len(self._rivals) > 1:
            seconds = self._budget.require_race()
            race = self._race("the plain forms", self._rivals, seconds)
            self._anchor = self._fastest_of(race, self._rivals, self._rivals[0])
        for config in self._task.starts:
            number = self._try("the default form", config)
            if number is not None and self._runs(number):
                self._leaders[config.precision] = number
                self._untuned += [number] if self._holds(number) else []
        for config in self._task.held:
            number = self._try("as the bundle holds it", config)
            if number is None or not self._runs(number):
                continue
            if self._holds(number):
                self._untuned.append(number)
                self._held.append(number)
            if config.precision in self._leaders:
                self._contest(config.precision, Effect.BOTH, [number], "what the bundle holds")

    def _improve(self, precision: Precision, dimension: Dimension) -> None:
        """Try the choices of one dimension that the leader of a precision does not have."""
        config = self._trials[self._leaders[precision]].config
        challengers = [
            number
            for choice, changed in alternatives(dimension, config, self._task.runtime)
            if (number := self._try(f"{dimension.name}: {choice.name}", changed)) is not None
            and self._runs(number)
        ]
        if challengers:
            self._contest(precision, dimension.effect, challengers, f"{precision}, {dimension.name}")

    def _contest(
        self, precision: Precision, effect: Effect, challengers: Sequence[int], purpose: str
    ) -> None:
        """Give the lead of a precision to a challenger that is better."""
        leader = self._leaders[precision]
        holding = [number for number in challengers if self._holds(number)]
        best: int | None
        if not self._holds(leader):
            if holding:
                best = self._fastest(None, holding, purpose)
            elif effect is Effect.SPEED:
                best = self._fastest(leader, challengers, purpose)
            else:
                best = self._more_accurate(leader, challengers)
        else:
            match effect:
                case Effect.ACCURACY:
                    best = self._more_accurate(leader, holding)
                case Effect.SPEED | Effect.BOTH:
                    best = self._fastest(leader, holding, purpose)
                case _:
                    assert_never(effect)
        if best is not None:
            self._leaders[precision] = best
            if self._holds(best):
                self._mark(best, TrialVerdict.BETTER)
        elif not self._runs(leader):  # it failed while it was timed
            del self._leaders[precision]

    def _more_accurate(self, leader: int, challengers: Sequence[int]) -> int | None:
        best = max(challengers, key=self._sqnr, default=leader)
        return best if self._sqnr(best) > self._sqnr(leader) else None

    def _fastest(self, leader: int | None, challengers: Sequence[int], purpose: str) -> int | None:
        """The fastest challenger by successive halving, if it is proven to be faster than the leader.

        Args:
            leader: Whom it has to beat; None where it has to beat nobody.
            challengers: All that take part.
            purpose: What is decided.
        """
        pool = list(challengers)
        if leader is None and len(pool) == 1:
            return pool[0]
        rung, beat = 0, [] if leader is None else [leader]
        while pool:
            race = self._race(purpose, [*beat, *pool], self._budget.require_race(rung))
            rung += 1
            ran = [number for number in pool if self._runs(number)]
            base = leader if leader is not None else self._anchor if self._anchor is not None else ran[0]
            speed = {number: race.speed_up(base, number) or 0.0 for number in ran}
            pool = [n for n in sorted(ran, key=lambda n: -speed[n]) if leader is None or speed[n] > 1]
            halved = pool[: (len(pool) + 1) // 2]
            if len(pool) > 1 and len(halved) > 1:
                pool = halved
                continue
            pool = halved
            if not pool or leader is None or race.faster(leader, pool[0]):
                break
            if rung > 1:  # it had a longer race already
                return None
        return pool[0] if pool else None

    def _halve(self) -> None:
        """Search the faster half of the precisions on, while there are more than a few."""
        if len(self._leaders) <= _FEW:
            return
        leaders = dict(self._leaders)
        race = self._race("the precisions", tuple(leaders.values()), self._budget.require_race())
        base = self._anchor if self._anchor is not None else next(iter(leaders.values()))
        order = sorted(leaders, key=lambda item: -(race.speed_up(base, leaders[item]) or 0.0))
        for precision in order[max((len(order) + 1) // 2, _FEW) :]:
            self._dropped.append(self._leaders.pop(precision))

    # -- the end

    def _answer(self) -> tuple[int | None, bool]:
        """The trial to ship, and whether it was confirmed to be faster than every plain form."""
        if not self._rivals:
            return None, False
        plain = self._anchor if self._anchor is not None else self._rivals[0]
        best = self._best_leader()
        contenders = list(dict.fromkeys((*([best] if best is not None else []), *self._untuned)))
        contenders = [number for number in contenders if self._holds(number) and number not in self._rivals]
        seconds = self._budget.final_s()
        if not contenders or seconds is None:
            return self._unless_held(None, plain), False
        final = self._race("the final run", [*self._rivals, *contenders], seconds)
        rivals = [number for number in self._rivals if final.times_of(number)]
        ranked = sorted(
            (number for number in contenders if final.times_of(number)),
            key=lambda number: (number != best, -(final.speed_up(rivals[0], number) or 0) if rivals else 0),
        )
        for number in ranked:
            others = [item for item in self._untuned if item != number and final.times_of(item)]
            proven = bool(rivals) and all(final.faster(rival, number) for rival in rivals)
            if proven and (number != best or all(self._preferred(final, number, u) for u in others)):
                return number, True
        fastest = self._fastest_of(final, rivals, rivals[0]) if rivals else plain
        return self._unless_held(final, fastest), False

    def _best_leader(self) -> int | None:
        """The fastest of the leaders that hold the gate, those of dropped precisions among them."""
        found = [
            number
            for number in dict.fromkeys((*self._leaders.values(), *self._dropped))
            if self._holds(number) and number not in self._rivals
        ]
        if len(found) > 1 and (seconds := self._budget.race_before_final_s()) is not None:
            race = self._race("the leaders", found, seconds)
            found = [number for number in found if self._runs(number)]
            base = self._anchor if self._anchor is not None else found[0]
            return self._fastest_of(race, found, base) if found else None
        return found[0] if found else None

    def _preferred(self, final: Race, number: int, other: int) -> bool:
        """Whether a trial is to be taken before another one: it is faster, or as fast and as accurate."""
        as_fast = not final.faster(number, other)
        return final.faster(other, number) or (as_fast and self._sqnr(number) >= self._sqnr(other))

    def _unless_held(self, final: Race | None, plain: int) -> int:
        """The plain form, unless the bundle holds its precision in another form that is not proven slower."""
        precision = self._trials[plain].config.precision
        for number in self._held:
            same = self._trials[number].config.precision is precision and self._holds(number)
            if same and (final is None or not final.faster(number, plain)):
                return number
        return plain

    @staticmethod
    def _fastest_of(race: Race, numbers: Sequence[int], base: int) -> int:
        return max(numbers, key=lambda number: race.speed_up(base, number) or 0.0)
