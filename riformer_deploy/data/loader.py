"""Pictures decoded ahead in threads, so that a model never waits for one that could have been ready."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.common.errors import ImageError, OptionError
from riformer_deploy.data.decoding import Picture
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import Images, check_supported, fit, normalize
from riformer_deploy.system.machine import usable_cores


class Pictures(Protocol):
    """Pictures in a fixed order; both methods are called from several threads."""

    def __len__(self) -> int:
        """How many."""

    def name_of(self, index: int) -> str:
        """What errors call one."""

    def picture(self, index: int) -> Picture:
        """Decode one; raises ImageError where that cannot be done."""


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How pictures are brought to a model.

    Attributes:
        preprocessing: What is done to each.
        batch: Pictures at a time.
        workers: Threads that decode; None takes one a core.
    """

    preprocessing: Preprocessing
    batch: int = 32
    workers: int | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, got {value}"
            for name, value in (("batch", self.batch), ("workers", self.workers))
            if value is not None and value < 1
        ]
        if problems:
            raise OptionError("Pictures cannot be fed as asked.", details=problems)
        check_supported(self.preprocessing)


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Consecutive pictures, ready for the network.

    Attributes:
        start: Number of the first.
        count: How many, broken ones included.
        usable: Numbers of those that could be used, in order.
        images: These, (N, 3, H, W) float32, normalised; N may be 0.
        broken: Reasons by number, for the others.
    """

    start: int
    count: int
    usable: tuple[int, ...]
    images: Images
    broken: dict[int, str]


def load_batches(pictures: Pictures, loader: LoaderOptions, *, start: int = 0) -> Generator[ImageBatch]:
    """Every picture from ``start`` on, in order, decoded and normalised up to two batches ahead.

    Pillow and NumPy let go of Python's lock while they work, so threads decode beside the model.

    Args:
        pictures: Where they come from.
        loader: How.
        start: The first one.

    Yields:
        Batches of ``loader.batch``; the last may be smaller.
    """

    def prepare(index: int) -> NDArray[np.float32] | ImageError:
        name = pictures.name_of(index)
        try:
            fitted = fit(pictures.picture(index), loader.preprocessing, name=name)
        except ImageError as err:
            return err
        image: NDArray[np.float32] = normalize([fitted], loader.preprocessing)[0]
        return image

    count = len(pictures)
    workers = loader.workers or usable_cores()
    ahead = 2 * loader.batch + workers
    waiting: deque[Future[NDArray[np.float32] | ImageError]] = deque()
    asked = start
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for first in range(start, count, loader.batch):
            size = min(loader.batch, count - first)
            ready: dict[int, NDArray[np.float32]] = {}
            broken: dict[int, str] = {}
            for index in range(first, first + size):
                while asked < count and len(waiting) < ahead:
                    waiting.append(pool.submit(prepare, asked))
                    asked += 1
                result = waiting.popleft().result()
                if isinstance(result, ImageError):
                    broken[index] = result.message
                else:
                    ready[index] = result
            yield ImageBatch(
                start=first,
                count=size,
                usable=tuple(ready),
                images=_stack(list(ready.values()), loader.preprocessing),
                broken=broken,
            )
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _stack(images: list[NDArray[np.float32]], preprocessing: Preprocessing) -> Images:
    return np.stack(images) if images else np.empty((0, 3, *preprocessing.crop_px), np.float32)
