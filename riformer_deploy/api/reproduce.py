"""The published results table, measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from riformer_deploy.backends.base import Candidate, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.checkpoints.download import DownloadOptions, download_checkpoint
from riformer_deploy.checkpoints.load import check_expectations, load_checkpoint
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.progress import CountCallback, Progress, uncounted
from riformer_deploy.data.class_folders import ClassList
from riformer_deploy.data.datasets import open_dataset
from riformer_deploy.data.loader import LoaderOptions
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.unusable_image import UnusableImage
from riformer_deploy.evaluation.accuracy import AccuracyTask, measure_accuracy
from riformer_deploy.evaluation.accuracy_results import ArtifactAccuracy, DatasetRecord, Share
from riformer_deploy.evaluation.published import far_below, figures_of
from riformer_deploy.evaluation.results import RESULT_SCHEMA
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.flops import complexity
from riformer_deploy.model.reparameterize import fuse
from riformer_deploy.model.variants import VARIANTS, Variant, get_variant
from riformer_deploy.system.machine import describe_machine
from riformer_deploy.system.records import Machine

__all__ = [
    "VARIANTS",
    "ReproduceOptions",
    "ReproducedModel",
    "Reproduction",
    "get_variant",
    "reproduce_table",
]


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReproducedModel:
    """One row: a published model in one form.

    Attributes:
        variant: Its name.
        form: ``training`` as published, or ``deploy`` once fused.
        checkpoint_sha256: Of the published file.
        parameters: Counted here, in this form.
        flops: Multiply-adds of one image, counted here, in this form.
        images: Pictures that accuracy was measured on.
        top1: Measured here.
        top5: Measured here.
        published_params_m: As published, in millions (of the deploy form).
        published_flops_g: As published, in units of 1e9.
        published_top1_percent: As published.
        published_top5_percent: As published.
    """

    variant: str
    form: Form
    checkpoint_sha256: str
    parameters: int
    flops: int
    images: int
    top1: Share
    top5: Share
    published_params_m: float
    published_flops_g: float
    published_top1_percent: float
    published_top5_percent: float


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """The results table.

    Attributes:
        schema: Version of this record.
        kind: Always ``reproduction``.
        created_utc: When, in ISO 8601.
        machine: Where; every model ran in PyTorch, float32, on its CPU.
        dataset: On what.
        models: Two rows a variant: as published and fused.
        broken: Pictures that could not be used.
    """

    schema: int
    kind: str
    created_utc: str
    machine: Machine
    dataset: DatasetRecord
    models: tuple[ReproducedModel, ...]
    broken: tuple[UnusableImage, ...]


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """What to measure.

    Attributes:
        variants: Which of the published models, at least one.
        data: The labelled pictures.
        checkpoints: Where the published files are, or are fetched to; an interrupted pass leaves its
            resume log there.
        split: Which part of the dataset.
        mirror: Another folder with the files, as a URL; None for OpenMMLab's.
        limit: Use so many pictures only, spread evenly; None for all.
        batch: Pictures at a time.
        workers: Threads that decode; None takes one a core.
    """

    variants: tuple[Variant, ...]
    data: Path | str
    checkpoints: Path | str
    split: str = "val"
    mirror: str | None = None
    limit: int | None = None
    batch: int = 32
    workers: int | None = None

    def __post_init__(self) -> None:
        if not self.variants:
            raise OptionError("No model was asked for.", remedy="Run `riformer-deploy models` for the list.")
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit must be at least 1, got {self.limit}.")


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A variant in one form, about to be measured."""

    variant: Variant
    form: Form
    candidate: Candidate


def reproduce_table(
    options: ReproduceOptions, progress: Progress, count: CountCallback = uncounted
) -> Reproduction:
    """Measure published models beside their published figures.

    Models with the same preprocessing share a pass over the pictures.

    Args:
        options: What to measure.
        progress: Called with each step.
        count: Called with how far a pass is.

    Raises:
        DatasetError: The pictures cannot be found, or their labels do not fit the models.
        DownloadError: A file is not there and cannot be fetched.
        CheckpointError: A file is not the model that its name says.
    """
    classes = ClassList(count=options.variants[0].architecture.num_classes, names=None)
    dataset = open_dataset(Path(options.data), classes, split=options.split).limited(options.limit)
    groups: dict[Preprocessing, list[_Entry]] = {}
    for variant in options.variants:
        progress(f"checking {variant.name}")
        groups.setdefault(variant.preprocessing, []).extend(_entries(variant, options))
    rows: dict[tuple[str, Form], ReproducedModel] = {}
    broken: dict[str, UnusableImage] = {}
    record = None
    for preprocessing, entries in groups.items():
        progress(f"measuring {', '.join(dict.fromkeys(entry.variant.name for entry in entries))}")
        task = AccuracyTask(
            candidates=[entry.candidate for entry in entries],
            dataset=dataset,
            loader=LoaderOptions(preprocessing=preprocessing, batch=options.batch, workers=options.workers),
            resume_folder=Path(options.checkpoints),
        )
        result = measure_accuracy(task, count).result
        record = result.dataset
        broken |= {item.image: item for item in result.broken}
        for entry, measured in zip(entries, result.artifacts, strict=True):
            rows[entry.variant.name, entry.form] = _row(entry, measured)
            figures = figures_of(entry.variant, measured.artifact_sha256)
            if (text := far_below(measured.top1, figures)) is not None:
                _LOG.warning("%s: %s", measured.name, text)
    assert record is not None  # noqa: S101  # there is at least one variant
    return Reproduction(
        schema=RESULT_SCHEMA,
        kind="reproduction",
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(),
        dataset=record,
        models=tuple(rows[v.name, form] for v in options.variants for form in _FORMS),
        broken=tuple(broken.values()),
    )


_FORMS = (Form.TRAINING, Form.DEPLOY)


def _entries(variant: Variant, options: ReproduceOptions) -> Sequence[_Entry]:
    source = DownloadOptions(folder=options.checkpoints, mirror=options.mirror)
    path = Path(download_checkpoint(variant, source).path)
    checkpoint = load_checkpoint(path)
    check_expectations(checkpoint, architecture=variant.architecture, num_classes=None)

    def start(form: Form) -> Callable[[], Runtime]:
        def open_runtime() -> Runtime:
            model = model_of(path)
            return PyTorchRuntime(model if form is Form.TRAINING else fuse(model))

        return open_runtime

    return [
        _Entry(
            variant=variant,
            form=form,
            candidate=Candidate(
                config=CandidateConfig(
                    runtime=RuntimeKind.PYTORCH,
                    precision=Precision.FP32,
                    form=form,
                    label=f"{variant.name}, {form} form",
                ),
                artifact_sha256=checkpoint.sha256,
                open=start(form),
            ),
        )
        for form in _FORMS
    ]


def _row(entry: _Entry, measured: ArtifactAccuracy) -> ReproducedModel:
    variant = entry.variant
    cost = complexity(variant.architecture, entry.form, variant.preprocessing.crop_px)
    return ReproducedModel(
        variant=variant.name,
        form=entry.form,
        checkpoint_sha256=measured.artifact_sha256,
        parameters=cost.parameters,
        flops=cost.flops,
        images=measured.images,
        top1=measured.top1,
        top5=measured.top5,
        published_params_m=variant.published_params_m,
        published_flops_g=variant.published_flops_g,
        published_top1_percent=variant.top1_percent,
        published_top5_percent=variant.top5_percent,
    )
