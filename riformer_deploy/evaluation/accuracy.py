"""Measures how often artifacts are right: every one of them in one pass over the pictures."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.base import Contestant, Runtime, Skipped
from riformer_deploy.common.errors import DatasetError, OptionError
from riformer_deploy.common.progress import Counter, uncounted
from riformer_deploy.common.serialization import to_jsonable
from riformer_deploy.data.datasets import Dataset
from riformer_deploy.data.loader import Batch, Feeding, feed
from riformer_deploy.evaluation.accuracy_results import (
    TOP,
    AccuracyResult,
    ArtifactAccuracy,
    BrokenPicture,
    Comparison,
    DatasetRecord,
    Published,
    compare,
    share_of,
)
from riformer_deploy.evaluation.classification import logits_of, place_of
from riformer_deploy.evaluation.results import RESULT_SCHEMA, Status
from riformer_deploy.evaluation.resume_log import Answers, Journal, joined, key_of
from riformer_deploy.system.machine import describe_machine, library_versions

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AccuracyTask:
    """What to measure.

    Attributes:
        contestants: The artifacts; the first is the baseline of the others.
        dataset: The labelled pictures.
        feeding: How they are brought to the network.
        published: Figures to stand beside.
        max_drop_points: The largest drop of top-1 from the baseline that passes; None for no gate.
        journal_folder: Where a journal is kept while the pass runs; None keeps none.
        skipped: Artifacts that were asked for and cannot run; listed in the result.
    """

    contestants: Sequence[Contestant]
    dataset: Dataset
    feeding: Feeding
    published: Published | None = None
    max_drop_points: float | None = None
    journal_folder: Path | None = None
    skipped: Sequence[Skipped] = ()

    def __post_init__(self) -> None:
        if self.max_drop_points is None:
            return
        if not 0 <= self.max_drop_points <= 100:
            raise OptionError(f"--max-drop must be from 0 to 100 points, got {self.max_drop_points}.")
        if len(self.contestants) < 2:
            raise OptionError(
                "--max-drop compares artifacts, and only one takes part.",
                remedy="Add the baseline: --with torch beside the others, or no --with at all.",
            )

    @property
    def key(self) -> str:
        """Everything that an answer depends on."""
        return key_of(
            {
                "libraries": to_jsonable(library_versions()),
                "dataset": self.dataset.identity,
                "samples": [len(self.dataset), self.dataset.total],
                "preprocessing": to_jsonable(self.feeding.preprocessing),
                "artifacts": [[item.name, item.artifact_sha256] for item in self.contestants],
            }
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A finished pass.

    Attributes:
        result: The figures.
        answers: What each artifact said of each picture, in the order of ``result.artifacts``.
    """

    result: AccuracyResult
    answers: Answers


def measure_accuracy(task: AccuracyTask, count: Counter = uncounted) -> Measured:
    """Run every artifact on every picture; each picture is decoded once.

    Args:
        task: What to measure.
        count: Told how far it is.

    Raises:
        DatasetError: None of the pictures can be used.
        RuntimeFailureError: An artifact cannot be loaded or run.
        MissingDependencyError: An artifact's backend is not installed.
        BundleError: Another process is at the same pass.
    """
    with _journal(task) as journal:
        done = list(journal.answers) if journal else []
        first = done[-1].start + done[-1].count if done else 0
        if first:
            _LOG.warning(
                "taking up an interrupted pass: %d of %d pictures are done", first, len(task.dataset)
            )
        count(first, len(task.dataset))
        with contextlib.ExitStack() as stack:
            lanes = []
            for contestant in task.contestants if first < len(task.dataset) else ():
                runtime = contestant.open()
                stack.callback(runtime.close)
                lanes.append((contestant, runtime))
            batches = stack.enter_context(contextlib.closing(feed(task.dataset, task.feeding, start=first)))
            for batch in batches:
                answers = _ask(lanes, batch, task.dataset)
                done.append(answers)
                if journal:
                    journal.add(answers)
                count(batch.start + batch.count, len(task.dataset))
        answers = joined(done)
        return Measured(result=_judge(task, answers, first), answers=answers)


def answers_table(measured: Measured, dataset: Dataset) -> str:
    """Every answer as CSV: picture, its label, and each artifact's first class and place of the right one.

    Args:
        measured: A finished pass.
        dataset: What it was measured on.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [item.name for item in measured.result.artifacts]
    writer.writerow(
        ["picture", "label", *(f"{name}: {what}" for name in names for what in ("class", "place"))]
    )
    answers = measured.answers
    for row, number in enumerate(answers.usable):
        pairs = zip(answers.predicted, answers.places, strict=True)
        sample = dataset.samples[number]
        writer.writerow([sample.name, sample.label, *(v[row] for pair in pairs for v in pair)])
    return stream.getvalue()


@contextlib.contextmanager
def _journal(task: AccuracyTask) -> Iterator[Journal | None]:
    """The pass's journal, removed once the pass is through."""
    journal = None
    if task.journal_folder is not None:
        key = task.key
        try:
            journal = Journal(task.journal_folder / f".accuracy-{key[:16]}.jsonl", key)
        except OSError as err:
            _LOG.warning("the pass cannot be taken up again if it is interrupted: %s", err)
    finished = False
    try:
        yield journal
        finished = True
    finally:
        if journal is not None:
            journal.close(finished=finished)


def _ask(lanes: Sequence[tuple[Contestant, Runtime]], batch: Batch, dataset: Dataset) -> Answers:
    labels = np.array([dataset.samples[number].label for number in batch.usable], dtype=np.int64)
    predicted, places = [], []
    for contestant, runtime in lanes:
        if batch.usable:
            scores = logits_of(contestant, runtime, batch.images)
            finite = np.isfinite(scores).all(axis=1)
            predicted.append(tuple(np.where(finite, scores.argmax(axis=1), -1).tolist()))
            places.append(tuple(place_of(scores, labels).tolist()))
        else:
            predicted.append(())
            places.append(())
    return Answers(
        start=batch.start,
        count=batch.count,
        usable=batch.usable,
        predicted=tuple(predicted),
        places=tuple(places),
        broken={str(number): why for number, why in batch.broken.items()},
    )


def _judge(task: AccuracyTask, answers: Answers, resumed_from: int) -> AccuracyResult:
    broken = tuple(
        BrokenPicture(name=task.dataset.name_of(int(number)), reason=why)
        for number, why in answers.broken.items()
    )
    if not answers.usable:
        raise DatasetError(
            f"None of the {answers.count} pictures of {task.dataset.location} can be used.",
            details=[item.reason for item in broken[:20]],
        )
    predicted, places = np.array(answers.predicted), np.array(answers.places)
    comparisons = tuple(
        _compare(task, number, predicted, places) for number in range(1, len(task.contestants))
    )
    failed = any(item.status is Status.FAILED for item in comparisons)
    return AccuracyResult(
        schema=RESULT_SCHEMA,
        kind="accuracy",
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(),
        dataset=DatasetRecord(
            location=task.dataset.location,
            layout=task.dataset.layout,
            identity=task.dataset.identity,
            total=task.dataset.total,
            asked=len(task.dataset),
            notes=task.dataset.notes,
        ),
        preprocessing=task.feeding.preprocessing,
        skipped=tuple(task.skipped),
        published=task.published,
        artifacts=tuple(
            ArtifactAccuracy(
                name=contestant.name,
                precision=contestant.precision,
                artifact_sha256=contestant.artifact_sha256,
                images=len(answers.usable),
                not_finite=int((predicted[number] < 0).sum()),
                top1=share_of(int((places[number] == 0).sum()), len(answers.usable)),
                top5=share_of(int((places[number] < TOP).sum()), len(answers.usable)),
            )
            for number, contestant in enumerate(task.contestants)
        ),
        comparisons=comparisons,
        broken=broken,
        max_drop_points=task.max_drop_points,
        resumed_from=resumed_from,
        status=Status.FAILED if failed else Status.PASSED,
    )


def _compare(
    task: AccuracyTask, number: int, predicted: NDArray[np.int64], places: NDArray[np.int64]
) -> Comparison:
    right, own = places[0] == 0, places[number] == 0
    return compare(
        (task.contestants[number].name, task.contestants[0].name),
        lost=int((right & ~own).sum()),
        gained=int((own & ~right).sum()),
        changed=int((predicted[0] != predicted[number]).sum()),
        images=predicted.shape[1],
        max_drop_points=task.max_drop_points,
    )
