"""A pass over many pictures that can be taken up again after a kill: one line is appended a batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.common.serialization import JsonValue
from riformer_deploy.evaluation.record_log import RecordLog


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What artifacts said of consecutive pictures.

    Attributes:
        start: Number of the first picture.
        count: How many, broken ones included.
        usable: Numbers of those that were run.
        predicted: First class of each usable picture, for each artifact; -1 where scores are not finite.
        scores: Softmax probability of that class, from 0 to 1; 0 where scores are not finite.
        places: Place of the right class of each usable picture, for each artifact; 0 is the first.
        broken: Reasons by number, for the others.
    """

    start: int
    count: int
    usable: tuple[int, ...]
    predicted: tuple[tuple[int, ...], ...]
    scores: tuple[tuple[float, ...], ...]
    places: tuple[tuple[int, ...], ...]
    broken: dict[str, str]

    def __post_init__(self) -> None:
        columns = (self.predicted, self.scores, self.places)
        if len(set(map(len, columns))) != 1 or any(
            len(row) != len(self.usable) for column in columns for row in column
        ):
            raise ValueError("answers are missing")
        numbers = sorted([*self.usable, *map(int, self.broken)])
        if self.count != len(numbers) or numbers != list(range(self.start, self.start + len(numbers))):
            raise ValueError("pictures are missing")


def answers_fit(answers: Answers, labels: Sequence[int], classes: int | None, artifacts: int) -> bool:
    """Whether answers can be those of artifacts on a data set: its pictures, its labels, their classes.

    Args:
        answers: Read from a file.
        labels: Of the data set's pictures, in order.
        classes: How many the model has; None where that is not known.
        artifacts: How many take part.
    """
    if len(answers.predicted) != artifacts or answers.start + answers.count > len(labels):
        return False
    last = float("inf") if classes is None else classes
    for predicted, scores, places in zip(answers.predicted, answers.scores, answers.places, strict=True):
        for number, first, score, place in zip(answers.usable, predicted, scores, places, strict=True):
            # scores that are not finite have no first class, and put the right one behind all others
            within = -1 <= first < last and 0 <= place <= last and 0 <= score <= 1
            if not within or (place == 0) != (first == labels[number]) or (first == -1 and score > 0):
                return False
    return True


def key_of(parts: JsonValue) -> str:
    """A name for everything that answers depend on; other parts, another resume log."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ResumeLog(RecordLog[Answers]):
    """Answers on disk, in the order of the pictures.

    Args:
        path: The file, as of every :class:`~riformer_deploy.evaluation.record_log.RecordLog`.
        key: From :func:`key_of`.
        fits: Whether answers can be of this pass; see :func:`answers_fit`.

    Raises:
        BundleError: Another pass is writing this resume log.
        OSError: The file cannot be written, is no plain file, or is too large.
    """

    def __init__(self, path: Path, key: str, fits: Callable[[Answers], bool] = lambda _: True) -> None:
        def follows(answers: Answers, before: Sequence[Answers]) -> bool:
            return answers.start == (before[-1].start + before[-1].count if before else 0) and fits(answers)

        super().__init__(path, key, Answers, follows, "pass over the same pictures")

    @property
    def answers(self) -> tuple[Answers, ...]:
        """What the file held when it was opened, up to the first line that was not whole or does not fit."""
        return self.records


def joined(batches: Sequence[Answers]) -> Answers:
    """Consecutive answers as one; of one artifact set, at least one batch."""
    artifacts = range(len(batches[0].predicted))
    return Answers(
        start=batches[0].start,
        count=sum(item.count for item in batches),
        usable=tuple(number for item in batches for number in item.usable),
        predicted=tuple(tuple(v for item in batches for v in item.predicted[a]) for a in artifacts),
        scores=tuple(tuple(v for item in batches for v in item.scores[a]) for a in artifacts),
        places=tuple(tuple(v for item in batches for v in item.places[a]) for a in artifacts),
        broken={number: why for item in batches for number, why in item.broken.items()},
    )
