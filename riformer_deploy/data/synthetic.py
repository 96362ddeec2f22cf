"""Pictures of noise and waves, for what needs no real ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.data.transforms import Images


def synthetic_images(count: int, image_size_px: tuple[int, int], *, seed: int) -> Images:
    """Random images, for where there are no real ones: half of them noise, half of them smooth.

    Every second image is a sum of low-frequency waves instead of white noise, so that the
    normalisations see both kinds of statistics; both have about mean 0 and deviation 1.

    Args:
        count: How many.
        image_size_px: Height and width.
        seed: The same seed gives the same images, whatever ``count`` is.

    Returns:
        (count, 3, H, W) float32, as if normalised.
    """
    height, width = image_size_px
    images = np.empty((count, 3, height, width), dtype=np.float32)
    rows = np.linspace(0, 2 * np.pi, height, dtype=np.float32)[:, None]
    columns = np.linspace(0, 2 * np.pi, width, dtype=np.float32)[None, :]
    for index in range(count):
        rng = np.random.Generator(np.random.PCG64([seed, index]))
        if index % 2 == 0:
            images[index] = rng.standard_normal((3, height, width), dtype=np.float32)
            continue
        waves = np.zeros((3, height, width), dtype=np.float32)
        for channel in range(3):
            for _ in range(4):
                across, down, phase = rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(0, 2 * np.pi)
                waves[channel] += np.sin(down * rows + across * columns + phase, dtype=np.float32)
        images[index] = waves / np.float32(np.sqrt(2)) + rng.normal(0, 0.5, (3, 1, 1)).astype(np.float32)
    return images


def synthetic_pixels(count: int, image_size_px: tuple[int, int], *, seed: int) -> NDArray[np.uint8]:
    """The images of :func:`synthetic_images` as pictures: mean grey 116, deviation 57.

    Args:
        count: How many.
        image_size_px: Height and width.
        seed: The same seed gives the same images, whatever ``count`` is.

    Returns:
        (count, H, W, 3) uint8.
    """
    scaled = synthetic_images(count, image_size_px, seed=seed) * np.float32(57) + np.float32(116)
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
