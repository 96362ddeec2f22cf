"""The search for the fastest config that holds a gate: it sees configs and outcomes, never a file or a clock.

It goes through the dimensions one by one, for every precision that is still in the running. Challengers that
hold the gate race beside the leader of their precision, the faster half of them twice as long, until one is
left; it takes the lead where the whole interval of the ratio is above 1. Precisions are halved the same way.
One that is far slower to begin with is not searched. At the end the best leader has to beat every plain form
in a final run of its own, or one of these is the answer, which no other of them is proven to be faster than:
whatever the noise, nothing unproven is shipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.quantization.search_answer import (
    FINAL_RUN,
    confirmed_in,
    fastest_of,
    held_or,
    proven_fastest,
)
from riformer_deploy.quantization.search_budget import TimeIsOverError
from riformer_deploy.quantization.search_ledger import SearchLedger
from riformer_deploy.quantization.search_records import (
    Judge,
    Race,
    SearchGate,
    SearchTrace,
    TrialVerdict,
    last_speed_up,
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
        self._task = task
        self._ledger = SearchLedger(judge, task.gate, task.max_seconds, progress)
        self._leaders: dict[Precision, int] = {}
        self._dropped: list[int] = []
        self._rivals: list[int] = []
        self._untuned: list[int] = []
        self._held: list[int] = []

    def run(self) -> SearchTrace:
        """Every step in order; whatever the time, an answer."""
        complete = True
        try:
            self._begin()
            for dimension in self._task.dimensions if self._rivals else ():
                for precision in self._fastest_first():
                    self._improve(precision, dimension)
                self._halve()
        except TimeIsOverError:
            complete = False
        answer, confirmed = self._answer()
        if answer is not None:
            self._ledger.mark(answer, TrialVerdict.CONFIRMED if confirmed else TrialVerdict.KEPT)
        return SearchTrace(
            trials=tuple(self._ledger.trials),
            races=tuple(self._ledger.races),
            rivals=tuple(self._rivals),
            anchor=self._ledger.anchor,
            answer=answer,
            confirmed=confirmed,
            complete=complete,
            spent_s=self._ledger.budget.spent_s,
        )

    # -- steps

    def _begin(self) -> None:
        """The default forms, side by side, and what the bundle holds: the first leaders and the anchor."""
        ledger = self._ledger
        for place, config in enumerate(self._task.plain):
            number = ledger.attempt("the default form", config, must=place == 0)
            if number is not None and ledger.holds(number):
                ledger.mark(number, TrialVerdict.PLAIN)
                self._rivals.append(number)
                self._leaders[config.precision] = number
                ledger.anchor = self._rivals[0]
        if not self._rivals:  # where not even a plain form holds the gate, nothing else does
            return
        for config in self._task.starts:
            number = ledger.attempt("the default form", config)
            if number is not None and ledger.runs(number):
                self._leaders[config.precision] = number
                self._untuned += [number] if ledger.holds(number) else []
        ledger.budget.final_lanes = len(self._rivals) + len(self._untuned) + len(self._task.held) + 1
        if len(self._leaders) > 1:
            race = ledger.short_race("the default forms", tuple(self._leaders.values()))
            left_out = ledger.outpaced(race, tuple(self._leaders.values()))
            self._leaders = {
                p: number
                for p, number in self._leaders.items()
                if ledger.runs(number) and number not in left_out
            }
            for number in self._untuned:
                ledger.compared(number)
            alive = [number for number in self._rivals if ledger.runs(number)]
            ledger.anchor = fastest_of(race, alive, alive[0]) if alive else None
        self._take_held()

    def _take_held(self) -> None:
        """Let the forms that the bundle holds take part."""
        for config in self._task.held:
            number = self._ledger.attempt("as the bundle holds it", config)
            if number is None or not self._ledger.runs(number):
                continue
            if self._ledger.holds(number):
                self._untuned.append(number)
                self._held.append(number)
            if config.precision in self._leaders:
                self._contest(config.precision, Effect.BOTH, [number], "what the bundle holds")

    def _fastest_first(self) -> list[Precision]:
        """The precisions in the running, the fastest first: where time is short, it goes to these."""
        races, anchor = self._ledger.races, self._ledger.anchor
        return sorted(
            self._leaders, key=lambda item: -(last_speed_up(races, anchor, self._leaders[item]) or 0.0)
        )

    def _improve(self, precision: Precision, dimension: Dimension) -> None:
        """Try the choices of one dimension that the leader of a precision does not have."""
        config = self._ledger.trials[self._leaders[precision]].config
        challengers = [
            number
            for choice, changed in alternatives(dimension, config, self._task.runtime)
            if (number := self._ledger.attempt(f"{dimension.name}: {choice.name}", changed)) is not None
            and self._ledger.runs(number)
        ]
        if challengers:
            self._contest(precision, dimension.effect, challengers, f"{precision}, {dimension.name}")

    def _contest(
        self, precision: Precision, effect: Effect, challengers: Sequence[int], purpose: str
    ) -> None:
        """Give the lead of a precision to a challenger that is better."""
        leader = self._leaders[precision]
        holding = [number for number in challengers if self._ledger.holds(number)]
        best: int | None
        if not self._ledger.holds(leader):
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
        for number in challengers:
            self._ledger.compared(number)
        if best is not None:
            self._leaders[precision] = best
            if self._ledger.holds(best):
                self._ledger.mark(best, TrialVerdict.BETTER)
        elif not self._ledger.runs(leader):  # it failed while it was timed
            del self._leaders[precision]

    def _more_accurate(self, leader: int, challengers: Sequence[int]) -> int | None:
        best = max(challengers, key=self._ledger.sqnr_of, default=leader)
        return best if self._ledger.sqnr_of(best) > self._ledger.sqnr_of(leader) else None

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
            race = self._ledger.short_race(purpose, [*beat, *pool], rung)
            rung += 1
            ran = [number for number in pool if self._ledger.runs(number)]
            base = (
                leader
                if leader is not None
                else self._ledger.anchor
                if self._ledger.anchor is not None
                else ran[0]
            )
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
        race = self._ledger.short_race("the precisions", tuple(leaders.values()))
        base = self._ledger.anchor if self._ledger.anchor is not None else next(iter(leaders.values()))
        order = sorted(leaders, key=lambda item: -(race.speed_up(base, leaders[item]) or 0.0))
        for precision in order[max((len(order) + 1) // 2, _FEW) :]:
            self._dropped.append(self._leaders.pop(precision))

    # -- the end

    def _answer(self) -> tuple[int | None, bool]:
        """The trial to ship, and whether it was confirmed to be faster than every plain form."""
        ledger = self._ledger
        rivals = [number for number in self._rivals if ledger.holds(number)]
        if not rivals:
            return None, False
        best = self._best_leader()
        contenders = list(dict.fromkeys((*([best] if best is not None else []), *self._untuned)))
        contenders = [number for number in contenders if ledger.holds(number) and number not in rivals]
        timed = [number for number in rivals if ledger.races and ledger.races[0].times_of(number)]
        plain = proven_fastest(ledger.races[0], timed) if timed else rivals[0]
        final: Race | None = None
        if len(rivals) + len(contenders) > 1 and (seconds := ledger.budget.final_s()) is not None:
            final = ledger.race(FINAL_RUN, [*rivals, *contenders], seconds)
        if final is not None:
            confirmed = confirmed_in(final, ledger, rivals, contenders, best)
            if confirmed is not None:
                return confirmed, True
            rivals = [number for number in rivals if final.times_of(number)]
            if not rivals:
                return None, False
            plain = proven_fastest(final, rivals)
        return held_or(plain, self._held, final, ledger), False

    def _best_leader(self) -> int | None:
        """The fastest of the leaders that hold the gate, those of dropped precisions among them."""
        ledger = self._ledger
        found = [
            number
            for number in dict.fromkeys((*self._leaders.values(), *self._dropped))
            if ledger.holds(number) and number not in self._rivals
        ]
        if len(found) > 1 and (seconds := ledger.budget.race_before_final_s()) is not None:
            race = ledger.race("the leaders", found, seconds)
            found = [number for number in found if ledger.runs(number)]
            base = ledger.anchor if ledger.anchor is not None else found[0]
            return fastest_of(race, found, base) if found else None
        return found[0] if found else None
