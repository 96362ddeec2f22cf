"""What models do with pictures on other machines; each checks that it has the same model."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.bundle.manifest import ModelRecord
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import BundleIntegrityError
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.loader import ImageBatch, LoaderOptions, load_batches
from riformer_deploy.data.unusable_image import UnusableImage
from riformer_deploy.serving.classifier import Classifier
from riformer_deploy.serving.feature_extractor import FeatureExtractor, feature_runner
from riformer_deploy.serving.ray_pictures import Columns, EncodedPictures


@dataclass(frozen=True, kw_only=True)
class ExpectedModel:
    """What the bundle must hold, wherever it is opened.

    Attributes:
        bundle: Its folder, absolute.
        model: Its architecture, preprocessing and class names.
        artifacts: sha256 of the files that are run, in order.
        version: Of this toolkit.
    """

    bundle: str
    model: ModelRecord
    artifacts: tuple[str, ...]
    version: str = VERSION

    def check(self, model: ModelRecord, artifacts: tuple[str, ...]) -> None:
        """See that what was found here is that.

        Raises:
            BundleIntegrityError: It is not.
        """
        problems = []
        if self.version != VERSION:
            problems.append(f"riformer-deploy is {VERSION} there, {self.version} here")
        if artifacts != self.artifacts:
            problems.append(f"it runs {' '.join(artifacts)}, expected {' '.join(self.artifacts)} (sha256)")
        if model != self.model:
            problems.append("architecture, preprocessing or class names differ")
        if problems:
            raise BundleIntegrityError(
                f"The bundle {self.bundle} is another one on {platform.node()}.",
                details=problems,
                remedy="Put the same bundle and the same version at the same path on every machine.",
            )


@dataclass(frozen=True, kw_only=True)
class ScoreWork:
    """The likeliest classes: ``labels`` and ``scores``, best first, null for a picture that cannot be used.

    Attributes:
        expected: The model.
        group: What runs it.
        precision: What it computes in.
        top: How many classes.
        threads: Of the runtime, and that decode.
    """

    expected: ExpectedModel
    group: Group
    precision: Precision
    top: int
    threads: int

    def open(self) -> Callable[[EncodedPictures], Columns]:
        """Load the model.

        Raises:
            RIFormerDeployError: As :meth:`~riformer_deploy.serving.classifier.Classifier.open` says; or the
                bundle is another one.
        """
        classifier = Classifier.open(
            self.expected.bundle,
            with_=self.group,
            precision=self.precision,
            threads=self.threads,
            warm_up=False,
        )
        self.expected.check(classifier.model, (classifier.artifact_sha256,))

        def answer(pictures: EncodedPictures) -> Columns:
            pa = require("pyarrow")
            found = list(classifier.stream(pictures, top=self.top, batch=len(pictures), workers=self.threads))
            good = [None if isinstance(item, UnusableImage) else item.guesses for item in found]
            labels = [guesses and [guess.label for guess in guesses] for guesses in good]
            scores = [guesses and [guess.score for guess in guesses] for guesses in good]
            return {
                "labels": pa.array(labels, pa.list_(pa.int64())),
                "scores": pa.array(scores, pa.list_(pa.float64())),
                "reason": pa.array([getattr(item, "reason", None) for item in found], pa.string()),
            }

        return answer


@dataclass(frozen=True, kw_only=True)
class FeatureWork:
    """Pooled features, float32: ``features``, null for a picture that cannot be used.

    Attributes:
        expected: The model.
        group: What runs it.
        precision: What it computes in.
        threads: Of the runtime, and that decode.
    """

    expected: ExpectedModel
    group: Group
    precision: Precision
    threads: int

    def open(self) -> Callable[[EncodedPictures], Columns]:
        """Load the model.

        Raises:
            RIFormerDeployError: As :func:`~riformer_deploy.serving.feature_extractor.feature_runner` says; or
                the bundle is another one.
        """
        bundle = Bundle.open(self.expected.bundle)
        precision = None if self.group is Group.TORCH else self.precision
        candidate = feature_runner(bundle, self.group, precision=precision, threads=self.threads)
        model = bundle.manifest.model
        self.expected.check(model, (candidate.artifact_sha256,))
        extractor = FeatureExtractor(candidate, self.group, model.architecture.block_names)

        def answer(pictures: EncodedPictures) -> Columns:
            batch = one_batch(pictures, model, self.threads)
            values = extractor.features(batch.images) if batch.usable else np.empty((0, 0), np.float32)
            pa = require("pyarrow")
            features = column_of(dict(zip(batch.usable, values, strict=True)), batch.count, pa.float32())
            return {"features": features, "reason": reasons_of(batch)}

        return answer


def one_batch(pictures: EncodedPictures, model: ModelRecord, workers: int) -> ImageBatch:
    """Pictures as one batch for a model.

    Args:
        pictures: At least one.
        model: Says how they are prepared.
        workers: Threads that decode.
    """
    loader = LoaderOptions(preprocessing=model.preprocessing, batch=len(pictures), workers=workers)
    return next(load_batches(pictures, loader))


def reasons_of(batch: ImageBatch) -> Any:
    """Why each picture cannot be used, null where it can: a pyarrow array of strings."""
    pa = require("pyarrow")
    return pa.array([batch.broken.get(number) for number in range(batch.count)], pa.string())


def column_of(rows: dict[int, NDArray[np.floating]], count: int, kind: Any) -> Any:
    """Vectors by their place, null where there is none, as a pyarrow array of lists.

    Args:
        rows: (C,) each.
        count: How many places.
        kind: pyarrow's type of the numbers.
    """
    pa = require("pyarrow")
    lengths = [len(rows[number]) if number in rows else 0 for number in range(count)]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    flat = np.concatenate([rows[number] for number in sorted(rows)]) if rows else np.empty(0)
    mask = pa.array([number not in rows for number in range(count)])
    return pa.ListArray.from_arrays(offsets, pa.array(flat, kind), mask=mask)
