"""What every backend offers: prepared once, run many times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.artifacts import Precision

Images = NDArray[np.float32]
"""Normalised images, (N, 3, H, W) float32, C-contiguous."""
Outputs = dict[str, NDArray[np.floating]]
"""Arrays by name; the first axis is the batch."""


class Runtime(Protocol):
    """A model that is ready to run.

    Every method raises :class:`~riformer_deploy.errors.RuntimeFailureError` where the backend fails.
    """

    def run(self, images: Images) -> Outputs:
        """The model's outputs, ``logits`` (N, classes) among them, on the host."""

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        """Activations (N, C, H, W) after the named blocks, such as ``backbone.network.0.1``."""

    def close(self) -> None:
        """Give back memory and threads; the runtime is not used afterwards."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A runtime that can be opened when its turn comes.

    Attributes:
        name: What tables call it.
        precision: What it computes in.
        artifact_sha256: Of the file that it runs, or of the weights' file.
        batch: The only batch size that it takes, or None.
        open: Loads and prepares it.
    """

    name: str
    precision: Precision
    artifact_sha256: str
    batch: int | None
    open: Callable[[], Runtime]
