"""From what artifacts score to what they answer: the first class, and the place of the right one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.base import Candidate, Runtime
from riformer_deploy.data.datasets import Dataset
from riformer_deploy.data.loader import ImageBatch
from riformer_deploy.evaluation.classification import first_class, logits_of, place_of
from riformer_deploy.evaluation.resume_log import Answers


def scores_of(
    lanes: Sequence[tuple[Candidate, Runtime]], batch: ImageBatch
) -> tuple[NDArray[np.float64], ...]:
    """Scores of a batch's usable pictures, (N, classes) of each artifact; (0, 1) where there is none.

    Args:
        lanes: Artifacts, open.
        batch: Pictures.
    """
    if not batch.usable:
        return (np.empty((0, 1)),) * len(lanes)
    return tuple(logits_of(candidate, runtime, batch.images) for candidate, runtime in lanes)


def answers_of(
    pictures: range, broken: Mapping[int, str], scores: Sequence[NDArray[np.float64]], dataset: Dataset
) -> Answers:
    """What scores say of consecutive pictures.

    Args:
        pictures: Their numbers in the dataset.
        broken: Why some cannot be used, by number.
        scores: Of the others, as :func:`scores_of` gives them.
        dataset: Holds the labels.
    """
    usable = tuple(number for number in pictures if number not in broken)
    labels = np.array([dataset.samples[number].label for number in usable], dtype=np.int64)
    predicted, chances, places = [], [], []
    for of_artifact in scores:
        classes, sure = first_class(of_artifact)
        predicted.append(tuple(classes.tolist()))
        chances.append(tuple(sure.tolist()))
        places.append(tuple(place_of(of_artifact, labels).tolist()))
    return Answers(
        start=pictures.start,
        count=len(pictures),
        usable=usable,
        predicted=tuple(predicted),
        scores=tuple(chances),
        places=tuple(places),
        broken={str(number): why for number, why in broken.items()},
    )
