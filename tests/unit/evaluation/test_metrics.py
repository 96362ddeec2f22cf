from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from riformer_deploy.evaluation.metric_records import Decisions, Deviation
from riformer_deploy.evaluation.metrics import decisions, deviation

Floats = NDArray[np.float64]


def array(*values: object) -> Floats:
    return np.array(values, dtype=np.float64)


def test_figures_of_a_case_worked_by_hand() -> None:
    # reference (3, 4), got (3, 4.5): error (0, 0.5), norms 5 and 0.5
    found = deviation(array(3, 4), array(3, 4.5), rtol=0.0625, atol=0.25)
    assert found == Deviation(
        finite=True,
        max_abs=0.5,
        max_relative=0.125,
        relative_l2=0.1,
        sqnr_db=20.0,
        cosine=27 / (5 * float(np.sqrt(29.25))),
        elementwise_used=1.0,  # 0.5 / (0.25 + 0.0625 * 4)
    )


def test_the_tolerance_is_compared_value_by_value_not_at_the_largest_error() -> None:
    # errors 0.5 on 0 and 1 on 1000: the smaller one is out
    found = deviation(array(0, 1000), array(0.5, 1001), rtol=1e-2, atol=0.25)
    assert found.max_abs == 1.0
    assert found.elementwise_used == 2.0


def test_the_criterion_is_that_of_numpys_assert_allclose() -> None:
    rng = np.random.default_rng(0)
    verdicts = set()
    for _ in range(200):
        reference = rng.normal(size=5)
        got = reference + rng.normal(size=5) * 1e-3
        used = deviation(reference, got, rtol=1e-3, atol=5e-4).elementwise_used
        assert used is not None
        verdicts.add(used <= 1)
        assert (used <= 1) == np.allclose(got, reference, rtol=1e-3, atol=5e-4)
    assert verdicts == {True, False}


def test_equal_values_have_no_noise_and_hence_no_sqnr() -> None:
    found = deviation(array([1, -2], [3, 4]), array([1, -2], [3, 4]), rtol=1e-4, atol=1e-5)
    assert (found.max_abs, found.max_relative, found.relative_l2, found.elementwise_used) == (0, 0, 0, 0)
    assert found.sqnr_db is None
    assert found.cosine == pytest.approx(1, abs=1e-15)


def test_opposite_and_orthogonal_vectors_have_cosine_minus_one_and_zero() -> None:
    assert deviation(array(3, 4), array(-3, -4), rtol=0, atol=1).cosine == -1.0
    assert deviation(array(3, 4), array(-4, 3), rtol=0, atol=1).cosine == 0.0


def test_noise_above_the_signal_has_negative_sqnr() -> None:
    assert deviation(array(1), array(11), rtol=0, atol=1).sqnr_db == -20.0


def test_a_zero_reference_has_no_relative_figures() -> None:
    found = deviation(array(0, 0), array(0, 0.5), rtol=1e-4, atol=0.25)
    assert found == Deviation(
        finite=True, max_abs=0.5, max_relative=None, relative_l2=None, sqnr_db=None, cosine=None,
        elementwise_used=2.0,
    )  # fmt: skip


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_leaves_no_figure(bad: float) -> None:
    assert deviation(array(1, 2), array(1, bad), rtol=1, atol=1) == Deviation(
        finite=False, max_abs=None, max_relative=None, relative_l2=None, sqnr_db=None, cosine=None,
        elementwise_used=None,
    )  # fmt: skip
    with pytest.raises(ValueError, match="not finite"):
        deviation(array(1, bad), array(1, 2), rtol=1, atol=1)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 2, 1)])
def test_differing_shapes_are_refused_and_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"reference \(2, 2\), got"):
        deviation(np.zeros((2, 2)), np.zeros(shape), rtol=1, atol=1)


def test_float32_and_float16_are_compared_in_float64() -> None:
    reference = array(2.0**24 + 1)
    got = reference.astype(np.float32)  # 2**24
    assert deviation(reference, got, rtol=0, atol=1).max_abs == 1.0
    half = np.full(4096, 1.0, dtype=np.float16)
    assert deviation(half, half * np.float16(2), rtol=0, atol=1).relative_l2 == 1.0


def test_an_absolute_tolerance_of_zero_accepts_equal_zeros_and_nothing_else() -> None:
    equal = deviation(array(0, 2), array(0, 2), rtol=0.5, atol=0)
    assert equal.elementwise_used == 0.0
    other = deviation(array(0, 2), array(1e-9, 2), rtol=0.5, atol=0)
    assert other.elementwise_used is None or other.elementwise_used > 1


def test_nothing_compared_is_no_agreement() -> None:
    with pytest.raises(ValueError, match="empty"):
        deviation(array(), array(), rtol=1, atol=1)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_figures_survive_extreme_scales(scale: float) -> None:
    found = deviation(array(3, 4) * scale, array(3, 4.5) * scale, rtol=1, atol=1)
    assert found.relative_l2 == pytest.approx(0.1)
    assert found.cosine == pytest.approx(27 / (5 * math.sqrt(29.25)))


def test_flips_and_decided_flips_of_a_case_worked_by_hand() -> None:
    reference = array([5, 1, 0], [1, 1.5, 0], [0, 0, 3], [2, 1, 0])
    got = array([1, 5, 0], [1.5, 1, 0], [0, 0, 3], [2, 1, 0])  # rows 0 and 1 flip, by margins 4 and 0.5
    assert decisions(reference, got, rtol=0, atol=0.5) == Decisions(
        images=4, top1_agreement=0.5, flips=2, decided_flips=1
    )


@pytest.mark.parametrize(("atol", "decided"), [(0.25, 0), (0.2499, 1)])
def test_a_margin_of_twice_the_tolerance_is_not_yet_decided(atol: float, decided: int) -> None:
    found = decisions(array([1.5, 1]), array([1, 1.5]), rtol=0, atol=atol)
    assert (found.flips, found.decided_flips) == (1, decided)


@pytest.mark.parametrize(("rtol", "decided"), [(0.25, 0), (0.2499, 1)])
def test_the_relative_part_counts_at_the_larger_of_the_two_scores(rtol: float, decided: int) -> None:
    found = decisions(array([-4, -2, -9]), array([-2, -4, -9]), rtol=rtol, atol=0)
    assert (found.flips, found.decided_flips) == (1, decided)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_counts_as_flipped(bad: float) -> None:
    found = decisions(array([9, 1], [9, 1]), array([9, bad], [9, 1]), rtol=0, atol=0.5)
    assert found == Decisions(images=2, top1_agreement=0.5, flips=1, decided_flips=1)


def test_a_single_class_never_flips_unless_it_is_not_finite() -> None:
    assert decisions(array([1], [2]), array([3], [math.nan]), rtol=0, atol=1) == Decisions(
        images=2, top1_agreement=0.5, flips=1, decided_flips=1
    )


@pytest.mark.parametrize("shape", [(3, 2), (1, 3)])
def test_decisions_on_differing_shapes_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        decisions(array([1, 0]), np.zeros(shape), rtol=0, atol=1)


def test_decisions_against_a_reference_that_is_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        decisions(array([math.nan, 0]), array([0, 1]), rtol=0, atol=1)


def test_decisions_on_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        decisions(np.zeros((0, 3)), np.zeros((0, 3)), rtol=0, atol=1)
