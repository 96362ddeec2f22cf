"""Pictures in, classes out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.api.runner import only_runner
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.image_files import PictureFiles, find_pictures
from riformer_deploy.data.loader import LoaderOptions, UnusableImage, load_batches
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.evaluation.classification import first_guesses

__all__ = [
    "Guess",
    "Prediction",
    "PredictionReport",
    "UnusableImage",
    "find_pictures",
    "predict_images",
]


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A class and how sure the model is of it.

    Attributes:
        label: Number of the class.
        name: Its name, if known.
        score: Softmax of the scores over all classes.
    """

    label: int
    name: str | None
    score: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model says of one picture.

    Attributes:
        image: The file.
        guesses: Best first.
    """

    image: str
    guesses: tuple[Guess, ...]


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
    bundle = Bundle.open(Path(directory))
    model = bundle.manifest.model
    loader = LoaderOptions(preprocessing=model.preprocessing, batch=batch, workers=workers)
    candidate = only_runner(bundle, group, precision=precision)
    names = model.class_names
    predictions, broken = [], []
    with contextlib.closing(candidate.open()) as runtime:
        for part in load_batches(pictures, loader):
            broken += [UnusableImage(image=pictures.name_of(i), reason=why) for i, why in part.broken.items()]
            if not part.usable:
                continue
            first = first_guesses(candidate, runtime, part.images, top)
            for index, labels, scores in zip(part.usable, *first, strict=True):
                guesses = tuple(
                    Guess(label=int(label), name=names[label] if names else None, score=float(score))
                    for label, score in zip(labels, scores, strict=True)
                )
                predictions.append(Prediction(image=pictures.name_of(index), guesses=guesses))
    return PredictionReport(
        bundle=str(directory),
        model=candidate.name,
        artifact_sha256=candidate.artifact_sha256,
        preprocessing=model.preprocessing,
        predictions=tuple(predictions),
        broken=tuple(broken),
    )
