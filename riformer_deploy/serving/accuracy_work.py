"""A data set that one machine would take too long for, asked about on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.base import CandidateSet
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.evaluation.accuracy import AccuracyTask, AnswerSource
from riformer_deploy.evaluation.answers import answers_of, scores_of
from riformer_deploy.evaluation.resume_log import Answers
from riformer_deploy.serving.bulk_work import ExpectedModel, column_of, one_batch, reasons_of
from riformer_deploy.serving.ray_pictures import Columns, EncodedPictures, PictureJob, map_pictures
from riformer_deploy.serving.ray_session import RayOptions


def accuracy_candidates(
    bundle: Bundle, groups: tuple[Group, ...], precisions: tuple[Precision, ...], threads: int | None = None
) -> CandidateSet:
    """The artifacts whose accuracy is measured, wherever that is.

    Args:
        bundle: Holds them.
        groups: Which kinds.
        precisions: Of graphs and engines; none for every one.
        threads: CPU threads of each; None leaves the choice to what runs it.

    Raises:
        BundleError: The bundle holds no engine where engines alone are asked for, or none in a precision.
    """
    return select_candidates(
        bundle,
        groups,
        threads=threads,
        folded=False,
        keep_memory=False,  # all artifacts are open at once
        gpu=GpuOptions(required=True, cuda_graphs=(False,)),
        precisions=precisions,
    )


@dataclass(frozen=True, kw_only=True)
class AccuracyWork:
    """Scores of every artifact, as ``scores0`` and so on, null for a picture that cannot be used.

    Attributes:
        expected: The model.
        groups: Which artifacts.
        precisions: Of graphs and engines; none for every one.
        threads: Of each runtime.
        workers: Threads that decode.
    """

    expected: ExpectedModel
    groups: tuple[Group, ...]
    precisions: tuple[Precision, ...]
    threads: int
    workers: int

    def open(self) -> Callable[[EncodedPictures], Columns]:
        """Load the artifacts.

        Raises:
            RIFormerDeployError: One cannot be loaded; or the bundle is another one.
        """
        bundle = Bundle.open(self.expected.bundle)
        model = bundle.manifest.model
        found = accuracy_candidates(bundle, self.groups, self.precisions, self.threads).candidates
        self.expected.check(model, tuple(item.artifact_sha256 for item in found))
        lanes = [(candidate, candidate.open()) for candidate in found]

        def answer(pictures: EncodedPictures) -> Columns:
            batch, kind = one_batch(pictures, model, self.workers), require("pyarrow").float64()
            columns: Columns = {"reason": reasons_of(batch)}
            for number, scores in enumerate(scores_of(lanes, batch)):
                rows = dict(zip(batch.usable, scores, strict=True))
                columns[f"scores{number}"] = column_of(rows, batch.count, kind)
            return columns

        return answer


def answers_on(
    bundle: Bundle, groups: tuple[Group, ...], precisions: tuple[Precision, ...], options: RayOptions
) -> AnswerSource:
    """What asks a bundle's artifacts with Ray; :func:`~riformer_deploy.evaluation.accuracy.measure_accuracy`.

    Args:
        bundle: Every machine of the cluster has it, and the pictures, at the same path.
        groups: Which artifacts.
        precisions: Of graphs and engines; none for every one.
        options: Where they are asked.
    """

    def ask(task: AccuracyTask, start: int) -> Generator[Answers]:
        paths = [sample.path for sample in task.dataset.samples if sample.path is not None]
        if len(paths) != len(task.dataset):
            raise OptionError(
                f"{task.dataset.location} is one file, and --cluster reads pictures from files of their own.",
                remedy="Leave --cluster out, or name a folder of pictures.",
            )
        work = AccuracyWork(
            expected=ExpectedModel(
                bundle=str(bundle.directory.absolute()),
                model=bundle.manifest.model,
                artifacts=tuple(item.artifact_sha256 for item in task.candidates),
            ),
            groups=groups,
            precisions=precisions,
            threads=options.cpus,
            workers=task.loader.workers or options.cpus,
        )
        job = PictureJob(
            pictures=task.dataset,
            paths=paths,
            work=work,
            batch=task.loader.batch,
            stand_in=Path(bundle.directory, MANIFEST),
            gpus=1 if Group.ENGINE in groups else 0,
        )
        for first, table in map_pictures(job, options, start=start):
            reasons = enumerate(table["reason"].to_pylist(), first)
            broken = {number: why for number, why in reasons if why is not None}
            scores = [_scores(table[f"scores{number}"]) for number in range(len(task.candidates))]
            yield answers_of(range(first, first + len(table)), broken, scores, task.dataset)

    return ask


def _scores(column: Any) -> NDArray[np.float64]:
    """(N, classes) of the rows that are not null; (0, 1) where there is none."""
    rows = column.drop_null().combine_chunks()
    if not len(rows):
        return np.empty((0, 1))
    values: NDArray[np.float64] = rows.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(rows), -1)
