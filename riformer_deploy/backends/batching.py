"""Any number of images through a model that takes some batch sizes only."""

from __future__ import annotations

import numpy as np

from riformer_deploy.backends.base import Batches, Images, Outputs, Runtime


def run_all(runtime: Runtime, images: Images, batches: Batches) -> Outputs:
    """Run images in parts that the model takes; a part that is too small is filled up.

    Args:
        runtime: The model.
        images: (N, 3, H, W) float32, N at least 1.
        batches: What it takes; what is missing are copies of the last image.

    Returns:
        Every output of the N images.

    Raises:
        RuntimeFailureError: The model cannot run them.
    """
    parts: dict[str, list[np.ndarray]] = {}
    first = 0
    while first < len(images):
        size = batches.fitting(len(images) - first)
        part = images[first : first + size]
        missing = size - len(part)
        padded = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
        for name, values in runtime.run(padded).items():
            parts.setdefault(name, []).append(values[: len(part)])
        first += len(part)
    return {name: np.concatenate(values) if len(values) > 1 else values[0] for name, values in parts.items()}
