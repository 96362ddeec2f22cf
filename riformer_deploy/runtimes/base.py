"""What every backend offers: prepared once, run many times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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
class DeviceTimes:
    """One inference by the device's own events, in milliseconds.

    Attributes:
        to_device_ms: Copying the images to the device.
        compute_ms: From the first kernel to the last.
        to_host_ms: Copying the outputs back.
    """

    to_device_ms: float
    compute_ms: float
    to_host_ms: float


@runtime_checkable
class DeviceTimed(Protocol):
    """A runtime on a device that keeps time itself."""

    def device_times(self, images: Images) -> DeviceTimes:
        """Run once and say how long each part took; raises RuntimeFailureError as ``run`` does."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A runtime that can be opened when its turn comes.

    Attributes:
        name: What tables call it.
        precision: What it computes in.
        artifact_sha256: Of the file that it runs, or of the weights' file.
        batch: The only batch size that it takes, or None.
        open: Loads and prepares it.
        largest_batch: The largest batch size that it takes, or None.
        smallest_batch: The smallest.
        observable: Whether its inner activations can be looked at (``tap``).
    """

    name: str
    precision: Precision
    artifact_sha256: str
    batch: int | None
    open: Callable[[], Runtime]
    largest_batch: int | None = None
    smallest_batch: int = 1
    observable: bool = True

    def refusal(self, batch: int) -> str | None:
        """Why it does not take a batch size, or None where it does."""
        if self.batch not in (None, batch):
            return f"takes batch {self.batch} only, not {batch}"
        if self.largest_batch is not None and not self.smallest_batch <= batch <= self.largest_batch:
            return f"takes batches {self.smallest_batch} to {self.largest_batch}, not {batch}"
        return None
