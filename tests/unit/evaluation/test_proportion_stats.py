from __future__ import annotations

import itertools
import math

import pytest

from riformer_deploy.evaluation.proportion_stats import mcnemar_exact, paired_drop, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_published_intervals(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_contains_the_proportion() -> None:
    for trials in (1, 2, 7, 50_000):
        for successes in {0, 1, trials // 2, trials}:
            low, high = wilson_interval(successes, trials)
            assert 0 <= low <= successes / trials <= high <= 1
            other = wilson_interval(trials - successes, trials)
            assert (1 - other[1], 1 - other[0]) == pytest.approx((low, high))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_counts_that_are_no_proportion_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(successes, trials)


def test_mcnemar_is_the_binomial_sum() -> None:
    for lost, gained in itertools.product(range(12), repeat=2):
        trials = lost + gained
        as_bad = sum(
            math.comb(trials, k) for k in range(trials + 1) if abs(2 * k - trials) >= abs(lost - gained)
        )
        assert mcnemar_exact(lost, gained) == pytest.approx(as_bad / 2**trials)


@pytest.mark.parametrize(
    ("lost", "gained", "expected"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (10, 2, 0.03857421875)],
)
def test_mcnemar_of_known_counts(lost: int, gained: int, expected: float) -> None:
    assert mcnemar_exact(lost, gained) == mcnemar_exact(gained, lost) == expected


def test_mcnemar_of_very_many_flips_is_still_a_number() -> None:
    assert mcnemar_exact(2600, 2400) == pytest.approx(0.00488, abs=2e-4)  # normal approximation: 0.0049
    assert mcnemar_exact(5000, 100) == 0 or mcnemar_exact(5000, 100) < 1e-300


def test_a_paired_drop_is_the_difference_with_agresti_and_mins_interval() -> None:
    # Agresti and Min (2005): of 1600 voters 150 went one way and 86 the other; adjusted Wald 0.021 to 0.059
    drop, low, high = paired_drop(150, 86, 1600)
    assert drop == pytest.approx(0.04)
    assert (low, high) == pytest.approx((0.021, 0.059), abs=6e-4)
    mirrored = paired_drop(86, 150, 1600)
    assert mirrored == pytest.approx((-drop, -high, -low))


def test_no_flips_leave_an_interval_that_is_not_zero() -> None:
    drop, low, high = paired_drop(0, 0, 397)
    assert drop == 0
    assert low == -high
    assert 0.001 < high < 0.01


@pytest.mark.parametrize(("lost", "gained", "trials"), [(0, 0, 0), (2, 2, 3)])
def test_counts_that_cannot_be_are_refused(lost: int, gained: int, trials: int) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        paired_drop(lost, gained, trials)


def test_a_drop_of_a_tenth_of_a_point_is_told_from_noise() -> None:
    """On 50,000 pictures: 150 against 100 flips is a real drop, 1050 against 1000 may be chance."""
    assert paired_drop(150, 100, 50_000)[0] == paired_drop(1050, 1000, 50_000)[0] == 0.001
    assert mcnemar_exact(150, 100) < 0.01
    assert mcnemar_exact(1050, 1000) > 0.2
    assert paired_drop(150, 100, 50_000)[1] > 0
    assert paired_drop(1050, 1000, 50_000)[1] < 0
