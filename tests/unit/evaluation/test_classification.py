from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from riformer_deploy.backends.base import BatchRange, Candidate, Outputs
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation.classification import first_class, first_classes, logits_of, place_of, softmax
from tests.candidates import labelled


class Sums:
    """A model of two classes: the sum of an image and its negative; it remembers the batches."""

    def __init__(self, only: int | None = None) -> None:
        self.only = only
        self.batches: list[int] = []

    def run(self, images: Images) -> Outputs:
        assert self.only in (None, len(images))
        self.batches.append(len(images))
        sums = images.sum((1, 2, 3))
        return {"logits": np.stack([sums, -sums], axis=1)}

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("fixed", "batches"), [(None, [5]), (1, [1] * 5), (2, [2, 2, 2]), (8, [8])])
def test_any_number_of_images_goes_through_a_model_of_any_batch(
    fixed: int | None, batches: list[int]
) -> None:
    images = np.arange(5 * 3, dtype=np.float32).reshape(5, 3, 1, 1)
    runtime = Sums(fixed)
    candidate = Candidate(
        config=labelled("sums"),
        artifact_sha256="",
        batches=BatchRange.of(fixed),
        open=lambda: runtime,
    )
    expected = images.sum((1, 2, 3))
    np.testing.assert_array_equal(
        logits_of(candidate, runtime, images), np.stack([expected, -expected], axis=1)
    )
    assert runtime.batches == batches


def test_softmax_is_stable_and_adds_up() -> None:
    scores = softmax(np.array([[1000.0, 1000.0, -1000.0], [0.0, np.log(3), -800.0]]))
    np.testing.assert_allclose(scores, [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]], atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_softmax_of_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(RuntimeFailureError, match="not finite"):
        softmax(np.array([[0.0, bad]]))


def test_first_classes_are_sorted_and_ties_go_to_the_lower_number() -> None:
    scores = np.array([[0.1, 0.5, 0.5, 0.3], [1.0, 1.0, 1.0, 1.0]])
    assert first_classes(scores, 3).tolist() == [[1, 2, 3], [0, 1, 2]]
    assert first_classes(scores, 9).shape == (2, 4)


def test_the_place_of_the_right_class_agrees_with_the_order() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    scores = rng.integers(0, 4, (200, 6)).astype(np.float64)  # many ties
    labels = rng.integers(0, 6, 200)
    order = first_classes(scores, 6)
    assert all(order[row, place] == labels[row] for row, place in enumerate(place_of(scores, labels)))


def test_a_row_that_is_not_finite_is_right_in_no_place() -> None:
    scores = np.array([[np.nan, 1.0, 0.0], [0.0, np.inf, 0.0]])
    assert place_of(scores, np.array([1, 1])).tolist() == [3, 3]


def test_the_first_class_has_its_probability_and_a_row_that_is_not_finite_has_none() -> None:
    scores = np.array([[0.0, np.log(3.0)], [1.0, 1.0], [np.nan, 5.0], [-1e4, 0.0]])
    classes, chances = first_class(scores)
    assert classes.tolist() == [1, 0, -1, 1]
    assert chances.tolist() == [0.75, 0.5, 0.0, 1.0]
