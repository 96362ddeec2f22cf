"""Images to calibrate with, given a few at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.synthetic import synthetic_pixels
from riformer_deploy.data.transforms import Images, normalize

FEWEST = 64
"""With fewer images a range is a matter of luck."""
RANDOM_IMAGES = 64
_BATCH_PIXELS, _LARGEST_BATCH = 4 * 224 * 224, 16


@dataclass(frozen=True, kw_only=True)
class CalibrationSet:
    """Images as the network takes them.

    Attributes:
        source: What the user named, without its folder.
        random: Whether the images are random rather than real.
        count: Number of images.
        content_sha256: Over the images' content, their size and the preprocessing.
        warnings: What the user should know of them.
        batches: Gives them from the start: (a few, 3, H, W) float32, normalised.
    """

    source: str
    random: bool
    count: int
    content_sha256: str
    warnings: tuple[str, ...]
    batches: Callable[[], Iterator[Images]]

    def spread(self, count: int) -> NDArray[np.float32]:
        """``count`` images spread evenly over all of them, or all where there are not as many."""
        number = min(count, self.count)
        wanted = iter([index * self.count // number for index in range(number)])
        following, seen = next(wanted, None), 0
        taken: list[NDArray[np.float32]] = []
        for batch in self.batches():
            while following is not None and following < seen + len(batch):
                taken.append(batch[following - seen])
                following = next(wanted, None)
            seen += len(batch)
            if following is None:
                break
        return np.stack(taken)


def batch_size(image_size_px: tuple[int, int]) -> int:
    """Images to run at once, so that memory stays about the same whatever their size."""
    height, width = image_size_px
    return max(1, min(_LARGEST_BATCH, _BATCH_PIXELS // (height * width)))


def remarks(count: int, distinct: int) -> tuple[str, ...]:
    """Warnings about too few images, or images that are alike.

    Args:
        count: How many there are.
        distinct: How many of them differ.
    """
    found = []
    if count < FEWEST:
        found.append(f"only {count} calibration images; {FEWEST} or more are advised")
    if distinct == 1 and count > 1:
        found.append(f"all {count} calibration images are the same")
    elif distinct <= count // 2:
        found.append(f"only {distinct} of the {count} calibration images differ")
    return tuple(found)


def random_set(preprocessing: Preprocessing, seed: int = 0) -> CalibrationSet:
    """Random images, where there are no real ones; whatever is made of them is marked.

    Args:
        preprocessing: The model's.
        seed: Of the images.
    """
    size = preprocessing.crop_px
    digest = hashlib.sha256(f"random {seed} {RANDOM_IMAGES} {preprocessing!r}".encode())

    def batches() -> Iterator[Images]:
        pixels, step = synthetic_pixels(RANDOM_IMAGES, size, seed=seed), batch_size(size)
        for start in range(0, RANDOM_IMAGES, step):
            yield normalize(pixels[start : start + step], preprocessing)

    return CalibrationSet(
        source="random",
        random=True,
        count=RANDOM_IMAGES,
        content_sha256=digest.hexdigest(),
        warnings=("the calibration images are random: accuracy on real images is not known",),
        batches=batches,
    )
