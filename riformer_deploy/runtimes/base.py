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
class Batches:
    """Batch sizes that a model takes.

    Attributes:
        least: The smallest.
        most: The largest; None for no limit.
    """

    least: int = 1
    most: int | None = None

    @classmethod
    def of(cls, fixed: int | None) -> Batches:
        """One size only, or, for None, any."""
        return cls() if fixed is None else cls(least=fixed, most=fixed)

    def refusal(self, size: int) -> str | None:
        """Why a size is not taken, or None where it is."""
        if size >= self.least and (self.most is None or size <= self.most):
            return None
        if self.least == self.most:
            return f"takes batch {self.least} only, not {size}"
        return f"takes batches of {self.least} to {self.most or 'any size'}, not {size}"


ANY_BATCH = Batches()
"""No limit."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A runtime that can be opened when its turn comes.

    Attributes:
        name: What tables call it.
        precision: What it computes in.
        artifact_sha256: Of the file that it runs, or of the weights' file.
        open: Loads and prepares it.
        batches: Batch sizes that it takes.
        observable: Whether its inner activations can be looked at (``tap``).
    """

    name: str
    precision: Precision
    artifact_sha256: str
    open: Callable[[], Runtime]
    batches: Batches = ANY_BATCH
    observable: bool = True
