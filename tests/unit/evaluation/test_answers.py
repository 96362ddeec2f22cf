from __future__ import annotations

from pathlib import Path

import numpy as np

from riformer_deploy.data.datasets import Dataset, Sample
from riformer_deploy.evaluation.answers import answers_of

DATASET = Dataset(
    location="d",
    layout="",
    samples=tuple(Sample(name=str(n), label=n % 2, path=Path(str(n))) for n in range(6)),
    total=6,
    identity="",
)


def test_scores_become_first_classes_and_places_of_the_usable_pictures() -> None:
    scores = (np.array([[1.0, 0.0], [np.nan, 0.0]]), np.array([[0.0, 1.0], [2.0, 1.0]]))
    answers = answers_of(range(2, 5), {3: "bad"}, scores, DATASET)
    assert (answers.start, answers.count, answers.usable, answers.broken) == (2, 3, (2, 4), {"3": "bad"})
    assert answers.predicted == ((0, -1), (1, 0))
    assert answers.scores == ((0.731059, 0.0), (0.731059, 0.731059))
    assert answers.places == ((0, 2), (1, 0))


def test_a_batch_without_a_usable_picture_has_no_answers() -> None:
    answers = answers_of(range(2), {0: "a", 1: "b"}, (np.empty((0, 1)),) * 2, DATASET)
    assert (answers.usable, answers.predicted, answers.places) == ((), ((), ()), ((), ()))
    assert answers.scores == ((), ())
