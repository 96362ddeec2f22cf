"""A bundle's model that is loaded once and asked often, from any number of threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from riformer_deploy.backends.base import Runtime
from riformer_deploy.bundle.manifest import ModelRecord
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import OptionError, RuntimeFailureError
from riformer_deploy.data.decoding import Picture, Rgb, decode_picture, rgb_of
from riformer_deploy.data.loader import LoaderOptions, Pictures, load_batches
from riformer_deploy.data.transforms import Images, normalize
from riformer_deploy.data.unusable_image import UnusableImage
from riformer_deploy.evaluation.classification import first_guesses, logits_of, softmax
from riformer_deploy.serving.runner import only_runner

ImageSource = Path | str | bytes | Rgb | Image.Image
"""A file, by path; an encoded picture; a decoded one, (H, W, 3) uint8 RGB or as Pillow holds it."""


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
        image: The file; ``image N``, counted from 0, where it was no file.
        guesses: Best first.
    """

    image: str
    guesses: tuple[Guess, ...]


class Classifier:
    """A model that is ready to classify pictures; a context manager, whose methods may be called by threads.

    :meth:`open` loads one. Threads decode side by side; the model runs for one of them at a time, on all the
    cores that it may use.

    Args:
        bundle: Holds the model.
        group: What runs it.
        precision: What it computes in; None takes the first that runs and passed parity.
        threads: CPU threads that it may use; None leaves the choice to what runs it.
        keep_memory: Keep what a run of ONNX Runtime needed for the next.

    Attributes:
        name: What runs which artifact, such as ``ONNX Runtime int8``.
        artifact_sha256: Of the artifact's file.
        model: The bundle's record: architecture, preprocessing, class names.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        group: Group = Group.ONNX,
        precision: Precision | None = None,
        threads: int | None = None,
        keep_memory: bool = True,
    ) -> None:
        candidate = only_runner(bundle, group, precision=precision, threads=threads, keep_memory=keep_memory)
        self.name = candidate.name
        self.artifact_sha256 = candidate.artifact_sha256
        self.model: ModelRecord = bundle.manifest.model
        self._candidate = candidate
        self._lock = threading.Lock()
        self._runtime: Runtime | None = candidate.open()

    @classmethod
    def open(
        cls,
        bundle: Bundle | Path | str,
        *,
        with_: Group | str = Group.ONNX,
        precision: Precision | str | None = None,
        threads: int | None = None,
        warm_up: bool = True,
        keep_memory: bool = True,
    ) -> Classifier:
        """Load a bundle's model.

        Args:
            bundle: A bundle, or its folder.
            with_: What runs the model: ``torch``, ``onnx``, ``openvino`` or ``engine``.
            precision: What it computes in; None takes the bundle's first that runs and passed parity.
            threads: CPU threads that the model may use; None leaves the choice to what runs it.
            warm_up: Run it once now, so that the first picture does not wait for what is prepared then.
            keep_memory: Keep what a run of ONNX Runtime needed for the next: faster, and more memory.

        Raises:
            BundleError: It is not a bundle, a file was changed, it holds nothing of that kind that runs here,
                or what it holds failed parity.
            EngineUnfitError: None of its engines fits this machine.
            RuntimeFailureError: The model cannot be loaded or run.
            MissingDependencyError: What runs it is not installed.
            OptionError: A value is not one of those above.
        """
        try:
            group = Group(with_)
            chosen = None if precision is None else Precision(precision)
        except ValueError as err:
            raise OptionError(
                f"The model cannot be run as asked: {err}.",
                remedy=f"with_ is one of {', '.join(Group)}, precision one of {', '.join(Precision)}.",
            ) from err
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        classifier = cls(opened, group=group, precision=chosen, threads=threads, keep_memory=keep_memory)
        with contextlib.ExitStack() as undo:
            undo.callback(classifier.close)
            if warm_up:
                classifier._warm_up()
            undo.pop_all()
        return classifier

    def _warm_up(self) -> None:
        preprocessing = self.model.preprocessing
        black = np.zeros((1, *preprocessing.crop_px, 3), np.uint8)
        self._first(normalize(black, preprocessing), 1)

    def classify(
        self, images: Sequence[ImageSource], *, top: int = 5, batch: int = 32, workers: int | None = None
    ) -> list[Prediction | UnusableImage]:
        """What pictures show.

        Args:
            images: Files, encoded pictures or decoded ones, mixed as you like.
            top: How many classes to give of each.
            batch: Pictures that the model is given at a time.
            workers: Threads that decode; None takes one a core.

        Returns:
            One for each, in order; an :class:`UnusableImage` with the reason for one that cannot be used.

        Raises:
            OptionError: A number is not positive, or what was given is no list of pictures.
            RuntimeFailureError: The model cannot run, gives no finite numbers, or was closed.
        """
        return list(self.stream(_Given(images), top=top, batch=batch, workers=workers))

    def stream(
        self, pictures: Pictures, *, top: int = 5, batch: int = 32, workers: int | None = None
    ) -> Generator[Prediction | UnusableImage]:
        """As :meth:`classify`, of any number of pictures, decoded up to two batches ahead of the model.

        Args:
            pictures: Files, as ``find_pictures`` finds them, or what else decodes by number.
            top: How many classes to give of each.
            batch: Pictures that the model is given at a time.
            workers: Threads that decode; None takes one a core.

        Yields:
            One for each, in order.

        Raises:
            OptionError: A number is not positive, or pictures cannot be prepared as the bundle says.
            MissingDependencyError: The bundle's pictures are resized with OpenCV, which is not installed.
            RuntimeFailureError: The model cannot run, gives no finite numbers, or was closed.
        """
        if top < 1:
            raise OptionError(f"top must be at least 1, got {top}.")
        loader = LoaderOptions(preprocessing=self.model.preprocessing, batch=batch, workers=workers)
        for part in load_batches(pictures, loader):
            found: dict[int, Prediction | UnusableImage] = {
                index: UnusableImage(image=pictures.name_of(index), reason=reason)
                for index, reason in part.broken.items()
            }
            if part.usable:
                for index, labels, scores in zip(part.usable, *self._first(part.images, top), strict=True):
                    pairs = zip(labels.tolist(), scores.tolist(), strict=True)
                    guesses = tuple(self._guess(label, score) for label, score in pairs)
                    found[index] = Prediction(image=pictures.name_of(index), guesses=guesses)
            yield from (found[index] for index in sorted(found))

    def _guess(self, label: int, score: float) -> Guess:
        names = self.model.class_names
        return Guess(label=label, name=names[label] if names else None, score=score)

    def _open_runtime(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeFailureError(f"The classifier ({self.name}) was closed.")
        return self._runtime

    def _first(self, images: Images, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        with self._lock:
            return first_guesses(self._candidate, self._open_runtime(), images, count)

    def scores(self, images: Images) -> NDArray[np.float64]:
        """Softmax scores of images that are prepared already.

        Args:
            images: (N, 3, H, W) float32, normalised, N at least 1.

        Returns:
            (N, classes).

        Raises:
            BundleError: The model gives no scores of every class.
            RuntimeFailureError: The model cannot run, gives no finite numbers, or was closed.
        """
        with self._lock:
            logits = logits_of(self._candidate, self._open_runtime(), images)
        return softmax(logits)

    def close(self) -> None:
        """Give memory and threads back, after the run that is under way; more than once does nothing."""
        with self._lock:
            runtime, self._runtime = self._runtime, None
            if runtime is not None:
                runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Given:
    """What :meth:`Classifier.classify` was given, as :class:`~riformer_deploy.data.loader.Pictures`."""

    def __init__(self, images: Sequence[ImageSource]) -> None:
        if isinstance(images, (str, bytes, Path, np.ndarray, Image.Image)):
            raise OptionError(
                f"classify takes a list of pictures, got one {type(images).__name__}.",
                remedy="Write [picture] for a single one; of an array (N, H, W, 3), list(array).",
            )
        odd = [f"image {number}: {problem}" for number, item in enumerate(images) if (problem := _odd(item))]
        if odd:
            raise OptionError("Some of the images are none that can be classified.", details=odd)
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def name_of(self, index: int) -> str:
        """The path, or the place in the list."""
        image = self._images[index]
        return str(image) if isinstance(image, (str, Path)) else f"image {index}"

    def picture(self, index: int) -> Picture:
        """Decode one; raises ImageError where that cannot be done."""
        image, name = self._images[index], self.name_of(index)
        if isinstance(image, np.ndarray):
            return image
        if isinstance(image, Image.Image):
            return rgb_of(image, name=name)
        return decode_picture(Path(image) if isinstance(image, str) else image, name=name)


def _odd(image: object) -> str | None:
    """Why something is no picture, or None where it may be one."""
    if isinstance(image, np.ndarray):
        fits = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0
        return None if fits else f"expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
    if isinstance(image, (str, Path, bytes, Image.Image)):
        return None
    return f"expected a path, bytes, an array or a Pillow image, got {type(image).__name__}"
