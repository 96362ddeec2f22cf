"""``test``: how often a checkpoint is right, without a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.backends.base import Candidate, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.checkpoints.config_agreement import with_config
from riformer_deploy.checkpoints.config_files import read_config
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.checkpoints.preprocessing import resolve_preprocessing
from riformer_deploy.common.enums import Precision, RuntimeKind, WeightSet
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.progress import CountCallback, Progress, silent, uncounted
from riformer_deploy.data.class_folders import ClassList
from riformer_deploy.data.class_names import resolve_class_names
from riformer_deploy.data.datasets import open_dataset
from riformer_deploy.data.loader import LoaderOptions
from riformer_deploy.evaluation.accuracy import AccuracyTask, measure_accuracy
from riformer_deploy.evaluation.accuracy_results import AccuracyResult
from riformer_deploy.evaluation.published import published_of
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import model_from_state
from riformer_deploy.model.reparameterize import fuse

__all__ = [
    "CheckpointAccuracyOptions",
    "evaluate_checkpoint",
]

DEFAULT_DATA = Path("data/imagenet")
"""Where mmpretrain's configs look for ImageNet."""


@dataclass(frozen=True, kw_only=True)
class CheckpointAccuracyOptions:
    """What to measure, and on what.

    Attributes:
        checkpoint: The file; an interrupted pass leaves its resume log beside it.
        config: mmengine's config file of the checkpoint; None takes the one stored in it. Where it says
            ``deploy=True``, a checkpoint in training form is fused first.
        weights: Which set of weights to take where the file holds two.
        key: Which RIFormer to take where the file holds several.
        data: The folder or ``.npz`` file of labelled pictures.
        split: Which part of it.
        limit: Use so many pictures only, spread evenly; None for all.
        batch: Pictures at a time.
        workers: Threads that decode; None takes one a core.
    """

    checkpoint: Path | str
    config: Path | str | None = None
    weights: WeightSet | None = None
    key: str | None = None
    data: Path | str = DEFAULT_DATA
    split: str = "val"
    limit: int | None = None
    batch: int = 32
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit must be at least 1, got {self.limit}.")


def evaluate_checkpoint(
    options: CheckpointAccuracyOptions, progress: Progress = silent, count: CountCallback = uncounted
) -> AccuracyResult:
    """Top-1 and top-5 of a checkpoint in PyTorch, float32, on the CPU.

    Args:
        options: What to measure, and on what.
        progress: Called with each thing that was assumed.
        count: Called with how far it is.

    Raises:
        CheckpointError: The checkpoint is not usable, or is not what the config describes.
        OptionError: The config cannot be read, or nothing says what size the images have.
        DatasetError: The pictures cannot be found, or their labels do not fit the model.
    """
    config = read_config(options.config) if options.config is not None else None
    checkpoint = with_config(
        load_checkpoint(options.checkpoint, weights=options.weights, key=options.key), config
    )
    fused = config is not None and config.deploy
    notes = list(checkpoint.notes)
    preprocessing = resolve_preprocessing(checkpoint, variant=None, image_size_px=None, notes=notes)
    classes = checkpoint.architecture.num_classes
    names = resolve_class_names(checkpoint.class_names, classes, None, [])
    for text in notes:
        progress(text)
    dataset = open_dataset(
        Path(options.data), ClassList(count=classes, names=names), split=options.split
    ).limited(options.limit)

    def start() -> Runtime:
        model = model_from_state(checkpoint.architecture, checkpoint.form, checkpoint.state)
        return PyTorchRuntime(fuse(model) if fused else model)

    form = Form.DEPLOY if fused else checkpoint.form
    task = AccuracyTask(
        candidates=[
            Candidate(
                config=CandidateConfig(
                    runtime=RuntimeKind.PYTORCH,
                    precision=Precision.FP32,
                    form=form,
                    label=f"PyTorch, {form} form",
                ),
                artifact_sha256=checkpoint.sha256,
                open=start,
            )
        ],
        dataset=dataset,
        loader=LoaderOptions(preprocessing=preprocessing, batch=options.batch, workers=options.workers),
        published=published_of(checkpoint.architecture, preprocessing.crop_px, checkpoint.sha256),
        resume_folder=Path(options.checkpoint).resolve().parent,
    )
    return measure_accuracy(task, count).result
