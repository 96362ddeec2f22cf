from __future__ import annotations

import time

import numpy as np
import pytest

from riformer_deploy.common.enums import Role
from riformer_deploy.evaluation import latency_rounds
from riformer_deploy.evaluation.latency_rounds import Rounds, ratio_of_series

STEADY, BUSY = [10.0, 10.1], [10.0, 30.0, 12.0, 20.0]


def test_what_the_machine_did_in_a_round_falls_out_of_the_ratio() -> None:
    slower = np.array([10.0, 30.0, 11.0, 25.0, 14.0, 90.0, 10.0, 12.0])
    found = ratio_of_series(list(slower), list(slower / 2), repeats=1)
    assert found.value == pytest.approx(2)
    assert found.ci95 == pytest.approx((2, 2))
    assert found.narrow


def test_the_calls_of_a_turn_count_once() -> None:
    once = ratio_of_series([10.0, 20.0] * 3, [5.0] * 6, repeats=1)
    turns = ratio_of_series([10.0, 20.0] * 3, [5.0] * 6, repeats=2)
    assert (once.value, turns.value) == (3.0, 3.0)
    assert once.ci95 == (2.0, 4.0)
    assert turns.ci95 is None  # three turns bound nothing
    assert not turns.narrow


def test_series_of_different_lengths_are_compared_as_far_as_both_go() -> None:
    assert ratio_of_series([10.0] * 8, [5.0] * 6, repeats=1).ci95 == (2.0, 2.0)


def _rounds_of(pattern: list[float], seconds: float, limit: int = 10_000) -> int:
    """Rounds that two models take, of which one is steady and the other follows a pattern."""
    rounds, series = Rounds(None, 1, seconds), ([], [])  # type: tuple[Rounds, tuple[list[float], list[float]]]
    while rounds.more([(Role.BASELINE, series[0]), (Role.CANDIDATE, series[1])]) and rounds.taken < limit:
        series[0].append(10.0)
        series[1].append(pattern[rounds.taken % len(pattern)])
        rounds.taken += 1
    return rounds.taken


def test_steady_ratios_end_a_measurement_early_and_busy_ones_go_on() -> None:
    assert _rounds_of(STEADY, seconds=60) == 10
    assert _rounds_of(BUSY, seconds=60, limit=100) == 100
    assert _rounds_of(BUSY, seconds=600) == latency_rounds.MOST_ROUNDS


def test_the_limit_ends_it_once_there_is_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    assert _rounds_of(BUSY, seconds=0.5) == 6
    clock = iter(range(10**6))
    assert 6 < _rounds_of(BUSY, seconds=15) < 25
    late = Rounds(None, 1, 0.5)
    late.taken = 4
    assert late.label == "round 5 of 6"


def test_a_number_of_rounds_that_was_asked_for_is_taken() -> None:
    rounds = Rounds(7, 1, 0.001)
    while rounds.more([]):
        rounds.taken += 1
    assert rounds.taken == 7
    rounds.taken = 2
    assert rounds.label == "round 3 of 7"
