"""`verify accuracy`: a bundle's artifacts on labelled pictures."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.backends.candidates import require_backends
from riformer_deploy.backends.skipped import warn_of_skipped
from riformer_deploy.bundle.results import recording_failures, store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import require_installed
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import (
    BundleError,
    EngineUnfitError,
    OptionError,
    RuntimeFailureError,
)
from riformer_deploy.common.progress import CountCallback, uncounted
from riformer_deploy.common.serialization import RecordError, load_json
from riformer_deploy.data.class_folders import ClassList
from riformer_deploy.data.datasets import open_dataset
from riformer_deploy.data.loader import LoaderOptions
from riformer_deploy.evaluation.accuracy import (
    AccuracyTask,
    AnswerSource,
    answers_here,
    answers_table,
    measure_accuracy,
)
from riformer_deploy.evaluation.accuracy_results import ANSWERS, AccuracyResult
from riformer_deploy.evaluation.failed_candidates import warn_of_failures
from riformer_deploy.evaluation.published import published_of
from riformer_deploy.evaluation.results import Status
from riformer_deploy.serving.accuracy_work import accuracy_candidates, answers_on
from riformer_deploy.serving.ray_session import RayOptions

__all__ = [
    "AccuracyOptions",
    "AccuracyResult",
    "RayOptions",
    "Status",
    "accuracy_bundle",
]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AccuracyOptions:
    """What to measure accuracy on, and how.

    Attributes:
        data: The folder or ``.npz`` file of labelled pictures.
        split: Which part of it.
        groups: Which artifacts take part; with PyTorch, its first form is the baseline of the others.
        limit: Use so many pictures only, spread evenly; None for all.
        batch: Pictures at a time.
        workers: Threads that decode; None takes one a core.
        max_drop_points: The largest drop of top-1 from the baseline that passes; None for no gate.
        precisions: Of graphs and engines; none for every one.
        ray: Where the pictures are worked on, with Ray; None does it in this process.
    """

    data: Path | str
    split: str = "val"
    groups: tuple[Group, ...] = (Group.TORCH, Group.ONNX)
    limit: int | None = None
    batch: int = 32
    workers: int | None = None
    max_drop_points: float | None = None
    precisions: tuple[Precision, ...] = ()
    ray: RayOptions | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit must be at least 1, got {self.limit}.")


def accuracy_bundle(
    directory: Path | str, options: AccuracyOptions, count: CountCallback = uncounted
) -> AccuracyResult:
    """``verify accuracy``: measure a bundle's artifacts on labelled pictures, and store the result in it.

    A stored pass that says the same and more, of more pictures or artifacts, stays in its place.

    Args:
        directory: The bundle; while the pass runs it also holds its resume log, so that an interrupted
            pass is taken up again.
        options: On what and how.
        count: Called with how far it is.

    Raises:
        BundleError: It is not a bundle, a file was changed, or another process is at the same pass.
        DatasetError: The pictures cannot be found, or their labels do not fit the model.
        OptionError: An option cannot be honoured.
        RuntimeFailureError: An artifact cannot be run, or Ray fails.
        EngineUnfitError: Engines alone were asked for, and none fits this machine.
        MissingDependencyError: An artifact's backend is not installed.
    """
    require_backends(options.groups)
    bundle = Bundle.open(Path(directory))
    selected = accuracy_candidates(bundle, options.groups, options.precisions)
    if not selected.candidates:
        unfit = EngineUnfitError if set(options.groups) == {Group.ENGINE} else RuntimeFailureError
        raise unfit(
            "Nothing can be run on this machine.", details=[f"{s.name}: {s.reason}" for s in selected.skipped]
        )
    warn_of_skipped(selected.skipped)
    warn_of_failures(bundle, selected.candidates)
    model = bundle.manifest.model
    classes = ClassList(count=model.architecture.num_classes, names=model.class_names)
    dataset = open_dataset(Path(options.data), classes, split=options.split).limited(options.limit)
    task = AccuracyTask(
        candidates=selected.candidates,
        dataset=dataset,
        loader=LoaderOptions(preprocessing=model.preprocessing, batch=options.batch, workers=options.workers),
        published=published_of(
            model.architecture, model.preprocessing.crop_px, bundle.manifest.source.sha256
        ),
        max_drop_points=options.max_drop_points,
        resume_folder=bundle.directory,
        skipped=selected.skipped,
        classes=model.architecture.num_classes,
    )
    ask: AnswerSource = answers_here
    if options.ray is not None:
        require_installed("ray")
        ask = answers_on(bundle, options.groups, options.precisions, options.ray)
    measured = measure_accuracy(task, count, ask)
    if _stays(bundle.directory, measured.result):
        return measured.result
    with recording_failures("accuracy"):
        store_result(bundle, "accuracy", measured.result, {ANSWERS: answers_table(measured, dataset)})
    return measured.result


def _stays(directory: Path, new: AccuracyResult) -> bool:
    """Whether the stored pass stays in the place of a new one; the user is told which of the two is lost."""
    with contextlib.suppress(BundleError):  # which storing the new one reports
        stored = stored_accuracy(Bundle.open(directory))
        if stored is None:
            return False
        sizes = (stored.created_utc, stored.images, len(stored.artifacts), new.images, len(new.artifacts))
        if stored.outweighs(new):
            _LOG.warning(
                "accuracy.json stays the pass of %s, over %s pictures and %s artifacts; "
                "this one, over %s and %s, is not stored",
                *sizes,
            )
            return True
        if stored.images > new.images or not stored.measured <= new.measured:
            _LOG.warning(
                "accuracy.json of %s, over %s pictures and %s artifacts, is replaced: "
                "this one is over %s and %s",
                *sizes,
            )
    return False


def stored_accuracy(bundle: Bundle) -> AccuracyResult | None:
    """The stored figures, if they and the answers behind them are what was recorded."""
    results = bundle.manifest.results
    if "accuracy" not in results or ANSWERS not in results:
        return None
    try:
        bundle.path_of(results[ANSWERS])
        return load_json(AccuracyResult, bundle.text(results["accuracy"]))
    except (BundleError, RecordError, UnicodeDecodeError):
        return None
