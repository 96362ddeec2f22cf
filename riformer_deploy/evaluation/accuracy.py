"""Measures how often artifacts are right: every one of them in one pass over the pictures."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.base import Candidate
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.common.errors import DatasetError, OptionError
from riformer_deploy.common.interruption import kept_on_interruption
from riformer_deploy.common.progress import CountCallback, uncounted
from riformer_deploy.common.serialization import to_jsonable
from riformer_deploy.data.datasets import Dataset
from riformer_deploy.data.loader import LoaderOptions, load_batches
from riformer_deploy.data.unusable_image import UnusableImage
from riformer_deploy.evaluation.accuracy_results import (
    ANSWER_COLUMNS,
    TOP,
    AccuracyComparison,
    AccuracyResult,
    ArtifactAccuracy,
    DatasetRecord,
    Published,
    compare_accuracy,
    share_of,
)
from riformer_deploy.evaluation.answers import answers_of, scores_of
from riformer_deploy.evaluation.published import far_below
from riformer_deploy.evaluation.results import RESULT_SCHEMA, Status
from riformer_deploy.evaluation.resume_log import Answers, ResumeLog, answers_fit, joined, key_of
from riformer_deploy.system.machine import describe_machine, library_versions

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AccuracyTask:
    """What to measure.

    Attributes:
        candidates: The artifacts; the first is the baseline of the others.
        dataset: The labelled pictures.
        loader: How they are brought to the network.
        published: Figures to stand beside.
        max_drop_points: The largest drop of top-1 from the baseline that passes; None for no gate.
        resume_folder: Where a resume log is kept while the pass runs; None keeps none.
        skipped: Artifacts that were asked for and cannot run; listed in the result.
        classes: How many the model has, which answers of an interrupted pass are checked against.
    """

    candidates: Sequence[Candidate]
    dataset: Dataset
    loader: LoaderOptions
    published: Published | None = None
    max_drop_points: float | None = None
    resume_folder: Path | None = None
    skipped: Sequence[Skipped] = ()
    classes: int | None = None

    def __post_init__(self) -> None:
        if self.max_drop_points is None:
            return
        if not 0 <= self.max_drop_points <= 100:
            raise OptionError(f"--max-drop must be from 0 to 100 points, got {self.max_drop_points}.")
        if len(self.candidates) < 2:
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
                "preprocessing": to_jsonable(self.loader.preprocessing),
                "artifacts": [[to_jsonable(item.config), item.artifact_sha256] for item in self.candidates],
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


AnswerSource = Callable[[AccuracyTask, int], Generator[Answers]]
"""Asks every artifact of a task about its pictures from a number on, batch after batch, in order."""


def answers_here(task: AccuracyTask, start: int) -> Generator[Answers]:
    """Ask the artifacts in this process, all open at once.

    Args:
        task: Says what to ask of what.
        start: The first picture.

    Raises:
        RuntimeFailureError: An artifact cannot be loaded or run.
        MissingDependencyError: An artifact's backend is not installed.
    """
    with contextlib.ExitStack() as stack:
        lanes = []
        for candidate in task.candidates:
            runtime = candidate.open()
            stack.callback(runtime.close)
            lanes.append((candidate, runtime))
        batches = stack.enter_context(
            contextlib.closing(load_batches(task.dataset, task.loader, start=start))
        )
        for batch in batches:
            pictures = range(batch.start, batch.start + batch.count)
            yield answers_of(pictures, batch.broken, scores_of(lanes, batch), task.dataset)


def measure_accuracy(
    task: AccuracyTask, count: CountCallback = uncounted, ask: AnswerSource = answers_here
) -> Measured:
    """Run every artifact on every picture; each picture is decoded once.

    Args:
        task: What to measure.
        count: Called with how far it is.
        ask: What asks the artifacts.

    Raises:
        DatasetError: None of the pictures can be used.
        RuntimeFailureError: An artifact cannot be loaded or run.
        MissingDependencyError: An artifact's backend is not installed.
        BundleError: Another process is at the same pass.
    """
    with _resume_log(task) as resume_log:
        done = list(resume_log.answers) if resume_log else []
        first = done[-1].start + done[-1].count if done else 0
        if first:
            _LOG.warning(
                "taking up an interrupted pass: %d of %d pictures are done", first, len(task.dataset)
            )
        count(first, len(task.dataset))

        def kept() -> str:
            count_done = done[-1].start + done[-1].count if resume_log and done else 0
            return f"{count_done:,} of {len(task.dataset):,} pictures are done" if count_done else ""

        with kept_on_interruption(kept), contextlib.closing(ask(task, first)) as asked:
            for answers in asked if first < len(task.dataset) else ():
                done.append(answers)
                if resume_log:
                    resume_log.add(answers)
                count(answers.start + answers.count, len(task.dataset))
        answers = joined(done)
        result = _result(task, answers, first)
        if task.published is not None and (text := far_below(result.artifacts[0].top1, task.published)):
            _LOG.warning("%s", text)
        return Measured(result=result, answers=answers)


def answers_table(measured: Measured, dataset: Dataset) -> str:
    """Every answer as CSV: picture, its label, and first class, place of the right one and score by artifact.

    Args:
        measured: A finished pass.
        dataset: What it was measured on.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [item.name for item in measured.result.artifacts]
    writer.writerow(["picture", "label", *(f"{name}: {what}" for name in names for what in ANSWER_COLUMNS)])
    answers = measured.answers
    for row, number in enumerate(answers.usable):
        columns = zip(answers.predicted, answers.places, answers.scores, strict=True)
        sample = dataset.samples[number]
        writer.writerow([sample.name, sample.label, *(values[row] for own in columns for values in own)])
    return stream.getvalue()


@contextlib.contextmanager
def _resume_log(task: AccuracyTask) -> Iterator[ResumeLog | None]:
    """The pass's resume log, removed once the pass is through."""
    resume_log = None
    if task.resume_folder is not None:
        key, labels = task.key, [sample.label for sample in task.dataset.samples]

        def fits(answers: Answers) -> bool:
            return answers_fit(answers, labels, task.classes, len(task.candidates))

        try:
            resume_log = ResumeLog(task.resume_folder / f".accuracy-{key[:16]}.jsonl", key, fits)
        except OSError as err:
            _LOG.warning("the pass cannot be taken up again if it is interrupted: %s", err)
    finished = False
    try:
        yield resume_log
        finished = True
    finally:
        if resume_log is not None:
            resume_log.close(finished=finished)


def _result(task: AccuracyTask, answers: Answers, resumed_from: int) -> AccuracyResult:
    broken = tuple(
        UnusableImage(image=task.dataset.name_of(int(number)), reason=why)
        for number, why in answers.broken.items()
    )
    if not answers.usable:
        raise DatasetError(
            f"None of the {answers.count} pictures of {task.dataset.location} can be used.",
            details=[item.reason for item in broken[:20]],
        )
    predicted, places = np.array(answers.predicted), np.array(answers.places)
    comparisons = tuple(
        _compare(task, number, predicted, places) for number in range(1, len(task.candidates))
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
        preprocessing=task.loader.preprocessing,
        skipped=tuple(task.skipped),
        published=task.published,
        artifacts=tuple(
            ArtifactAccuracy(
                config=candidate.config,
                artifact_sha256=candidate.artifact_sha256,
                images=len(answers.usable),
                not_finite=int((predicted[number] < 0).sum()),
                top1=share_of(int((places[number] == 0).sum()), len(answers.usable)),
                top5=share_of(int((places[number] < TOP).sum()), len(answers.usable)),
            )
            for number, candidate in enumerate(task.candidates)
        ),
        comparisons=comparisons,
        broken=broken,
        max_drop_points=task.max_drop_points,
        resumed_from=resumed_from,
        status=Status.FAILED if failed else Status.PASSED,
    )


def _compare(
    task: AccuracyTask, number: int, predicted: NDArray[np.int64], places: NDArray[np.int64]
) -> AccuracyComparison:
    right, own = places[0] == 0, places[number] == 0
    return compare_accuracy(
        task.candidates[number].config,
        task.candidates[0].config,
        lost=int((right & ~own).sum()),
        gained=int((own & ~right).sum()),
        changed=int((predicted[0] != predicted[number]).sum()),
        images=predicted.shape[1],
        max_drop_points=task.max_drop_points,
    )
