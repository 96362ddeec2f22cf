"""Pictures in, classes out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.image_files import PictureFiles, find_pictures
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.unusable_image import UnusableImage
from riformer_deploy.serving.classifier import Classifier, Guess, Prediction

__all__ = [
    "Classifier",
    "Guess",
    "Prediction",
    "PredictionReport",
    "UnusableImage",
    "find_pictures",
    "predict_images",
]


@dataclass(frozen=True, kw_only=True)
class PredictionReport:
    """What ``predict`` found.

    Attributes:
        bundle: The bundle's folder.
        model: What was run.
        artifact_sha256: Of its file.
        preprocessing: What was done to each picture first.
        predictions: One a picture that could be used, in the order asked for.
        broken: The others.
    """

    bundle: str
    model: str
    artifact_sha256: str
    preprocessing: Preprocessing
    predictions: tuple[Prediction, ...]
    broken: tuple[UnusableImage, ...]


def predict_images(
    directory: Path | str,
    pictures: PictureFiles,
    *,
    group: Group = Group.ONNX,
    top: int = 5,
    batch: int = 32,
    workers: int | None = None,
    precision: Precision | None = None,
) -> PredictionReport:
    """Run a bundle's model on pictures.

    Args:
        directory: The bundle.
        pictures: Files to read.
        group: What runs it.
        top: How many classes to give of each; a graph that gives its first K alone gives no more.
        batch: Pictures at a time.
        workers: Threads that decode; None takes one a core.
        precision: Of the model that runs; None takes the bundle's first.

    Returns:
        The report; a picture that cannot be used is in its ``broken``.

    Raises:
        BundleError: It is not a bundle, a file was changed, or it holds nothing that ``group`` runs.
        EngineUnfitError: None of its engines fits this machine.
        RuntimeFailureError: The model cannot run.
        MissingDependencyError: What runs it is not installed.
        OptionError: A number is not positive.
    """
    if top < 1:
        raise OptionError(f"--top must be at least 1, got {top}.")
    with Classifier.open(
        directory, with_=group, precision=precision, warm_up=False, keep_memory=False
    ) as classifier:
        found = list(classifier.stream(pictures, top=top, batch=batch, workers=workers))
    return PredictionReport(
        bundle=str(directory),
        model=classifier.name,
        artifact_sha256=classifier.artifact_sha256,
        preprocessing=classifier.model.preprocessing,
        predictions=tuple(item for item in found if isinstance(item, Prediction)),
        broken=tuple(item for item in found if isinstance(item, UnusableImage)),
    )
