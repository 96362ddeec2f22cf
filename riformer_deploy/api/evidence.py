"""Proves and times a bundle, and keeps the evidence in it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from riformer_deploy.api.parity import proofs_by_kind, prove_parity, synthetic_inputs
from riformer_deploy.backends.base import Contestant
from riformer_deploy.backends.candidates import Group, line_up, require_backends
from riformer_deploy.backends.gpu_candidates import GpuOptions
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.store import Bundle, record_file, staging, update
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import (
    BundleChangedError,
    BundleError,
    EngineUnfitError,
    OptionError,
    RuntimeFailureError,
)
from riformer_deploy.common.progress import Counter, Progress, silent, uncounted
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.data.datasets import ClassList, open_dataset
from riformer_deploy.data.loader import Feeding
from riformer_deploy.data.transforms import normalise, synthetic_pixels
from riformer_deploy.evaluation.accuracy import AccuracyTask, answers_table, measure_accuracy
from riformer_deploy.evaluation.accuracy_results import AccuracyResult, Published
from riformer_deploy.evaluation.latency import BenchOptions, measure_latency
from riformer_deploy.evaluation.parity_failures import stored_failure, why_failed
from riformer_deploy.evaluation.results import (
    LatencyResult,
    ParityResult,
)
from riformer_deploy.evaluation.tolerances import BUDGETS, Budget
from riformer_deploy.model.variants import VARIANTS

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def _recording_failures(what: str) -> Iterator[None]:
    """A result that was measured is given to the user even where it cannot be stored."""
    try:
        yield
    except BundleChangedError:
        raise
    except (OSError, BundleError) as err:
        _LOG.warning("the %s result could not be stored in the bundle: %s", what, err)


def _warn_of_failures(bundle: Bundle, contestants: Sequence[Contestant]) -> None:
    """Say which of them failed their stored parity; they are measured all the same."""
    for contestant in contestants:
        try:
            failure = stored_failure(bundle, contestant)
        except BundleError as err:  # a measurement needs no evidence of another kind
            _LOG.warning("whether parity holds is not known: %s", err.message)
            return
        if failure is not None:
            _LOG.warning("failed parity: %s", why_failed(failure))


def store_result(
    bundle: Bundle,
    kind: str,
    result: ParityResult | LatencyResult | AccuracyResult,
    tables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Put a result into the bundle, in place of the last one of its kind.

    Args:
        bundle: Open.
        kind: ``parity``, ``parity-user`` (limits of the user's own), ``latency``, ``accuracy`` or the
            ``proof`` of an engine; the file's name.
        result: What was measured.
        tables: Raw figures that go beside it: texts by file name, which is also their kind.

    Raises:
        BundleError: The bundle cannot be written.
    """
    with staging(bundle.directory) as staged:
        path = staged / f"{kind}.json"
        path.write_text(dump_json(result), encoding="utf-8")
        records = {kind: record_file(path, bundle.manifest.weights[0].file.sha256)}
        for name, text in tables.items():
            (staged / name).write_text(text, encoding="utf-8")
            records[name] = record_file(staged / name, records[kind].sha256)

        def add(current: Manifest) -> Manifest:
            now, then = current, bundle.manifest
            if (now.onnx, now.weights, now.engines) != (then.onnx, then.weights, then.engines):
                raise BundleChangedError(
                    f"The bundle {bundle.directory} was exported or built anew while its old models were "
                    f"being measured; the {kind} result is not of what it holds now.",
                    remedy="Run the command again.",
                )
            return dataclasses.replace(current, results={**current.results, **records})

        update(bundle.directory, staged, add)


def verify_bundle(
    directory: Path | str,
    budgets: dict[Precision, Budget] | None = None,
    progress: Progress = silent,
    *,
    gpu: GpuOptions | None = None,
) -> ParityResult:
    """``verify parity``: prove a bundle again, and store the result in it.

    Args:
        directory: The bundle.
        budgets: Limits by precision; None means the default table.
        progress: Told of each step.
        gpu: How engines are run; None means the defaults.

    Raises:
        BundleError: It is not a bundle, or a file was changed.
        RuntimeFailureError: A model cannot be run.
    """
    bundle = Bundle.open(Path(directory))
    result = prove_parity(bundle, BUDGETS if budgets is None else budgets, progress, gpu=gpu)
    # Evidence under limits of the user's own never takes the place of that under the default ones.
    if any(c.budget.stated != "default" for c in result.candidates):
        kinds = {"parity-user": result}
    else:
        kinds = proofs_by_kind(bundle, result)
    for kind, part in kinds.items():
        with _recording_failures(kind):
            store_result(bundle, kind, part)
    return result


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
    """

    data: Path
    split: str = "val"
    groups: tuple[Group, ...] = (Group.TORCH, Group.ONNX)
    limit: int | None = None
    batch: int = 32
    workers: int | None = None
    max_drop_points: float | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit must be at least 1, got {self.limit}.")


def accuracy_bundle(
    directory: Path | str, options: AccuracyOptions, count: Counter = uncounted
) -> AccuracyResult:
    """``verify accuracy``: measure a bundle's artifacts on labelled pictures, and store the result in it.

    Args:
        directory: The bundle; while the pass runs it also holds its journal, so that an interrupted
            pass is taken up again.
        options: On what and how.
        count: Told how far it is.

    Raises:
        BundleError: It is not a bundle, a file was changed, or another process is at the same pass.
        DatasetError: The pictures cannot be found, or their labels do not fit the model.
        OptionError: An option cannot be honoured.
        RuntimeFailureError: An artifact cannot be run.
        EngineUnfitError: Engines alone were asked for, and none fits this machine.
        MissingDependencyError: An artifact's backend is not installed.
    """
    require_backends(options.groups)
    bundle = Bundle.open(Path(directory))
    lineup = line_up(
        bundle, options.groups, folded=False, gpu=GpuOptions(required=True, cuda_graphs=(False,))
    )
    if not lineup.entered:
        unfit = EngineUnfitError if set(options.groups) == {Group.ENGINE} else RuntimeFailureError
        raise unfit(
            "Nothing can be run on this machine.", details=[f"{s.name}: {s.reason}" for s in lineup.skipped]
        )
    for item in lineup.skipped:
        _LOG.warning("%s was left out: %s", item.name, item.reason)
    _warn_of_failures(bundle, lineup.entered)
    model = bundle.manifest.model
    classes = ClassList(count=model.architecture.num_classes, names=model.class_names)
    dataset = open_dataset(options.data, classes, split=options.split).limited(options.limit)
    variant = VARIANTS.get(model.variant or "")
    task = AccuracyTask(
        contestants=lineup.entered,
        dataset=dataset,
        feeding=Feeding(preprocessing=model.preprocessing, batch=options.batch, workers=options.workers),
        published=None
        if variant is None
        else Published(
            variant=variant.name, top1_percent=variant.top1_percent, top5_percent=variant.top5_percent
        ),
        max_drop_points=options.max_drop_points,
        journal_folder=bundle.directory,
        skipped=lineup.skipped,
    )
    measured = measure_accuracy(task, count)
    with _recording_failures("accuracy"):
        store_result(bundle, "accuracy", measured.result, {"accuracy.csv": answers_table(measured, dataset)})
    return measured.result


def bench_bundle(
    directory: Path | str,
    groups: tuple[Group, ...] = tuple(Group),
    options: BenchOptions | None = None,
    progress: Progress = silent,
    *,
    gpu: GpuOptions | None = None,
) -> LatencyResult:
    """``bench``: time a bundle's models side by side, and store the result in it.

    Args:
        directory: The bundle.
        groups: Which contestants.
        options: How to measure; None means the defaults.
        progress: Told of each step.
        gpu: How engines are run; None means the defaults.

    Raises:
        BundleError: It is not a bundle, a file was changed, or it holds no engine where ``gpu`` requires
            one.
        EngineUnfitError: Engines alone were asked for, and none fits this machine.
        RuntimeFailureError: Nothing could be measured.
        MissingDependencyError: A contestant's backend is not installed.
    """
    options = options or BenchOptions()
    bundle = Bundle.open(Path(directory))
    size = bundle.manifest.model.preprocessing.crop_px
    pixels = synthetic_pixels(max(options.batches), size, seed=options.seed)
    images = normalise(pixels, bundle.manifest.model.preprocessing)
    inputs = synthetic_inputs(size, options.batches, options.seed)
    engines = {engine.file.sha256 for engine in bundle.manifest.engines}
    lineup = line_up(bundle, groups, threads=options.used_threads, gpu=gpu)
    alone = set(groups) <= {Group.ENGINE, Group.GPU}
    if alone and not any(contestant.artifact_sha256 in engines for contestant in lineup.entered):
        raise EngineUnfitError(
            "No engine of the bundle can run on this machine.",
            details=[f"{item.name}: {item.reason}" for item in lineup.skipped],
        )
    _warn_of_failures(bundle, lineup.entered)
    threads = torch.get_num_threads()
    try:
        result = measure_latency(
            lineup.entered, images, inputs, options, skipped=lineup.skipped, progress=progress
        )
    finally:
        torch.set_num_threads(threads)
    with _recording_failures("latency"):
        store_result(bundle, "latency", result)
    return result
