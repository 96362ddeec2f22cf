"""What every backend offers: prepared once, run many times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.choices import Precision
from riformer_deploy.graph_states import GraphState, worst

Images = NDArray[np.float32]
"""Normalised images, (N, 3, H, W) float32, C-contiguous."""
Outputs = dict[str, NDArray[np.floating]]
"""Arrays by name; the first axis is the batch."""

OCCUPYING_BYTES = 256 * 2**20
"""Device memory that is filled before kernels are timed, so that launching them is hidden behind it."""
OCCUPYING_REPEATS = 24
"""How often: some milliseconds on a large GPU, more than a launch of any of our models takes."""


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
        compute_ms: From the first kernel to the last, launched while the device was still busy, so that
            what the host takes to launch them is not part of it (unless it takes longer than that).
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


@runtime_checkable
class GraphLaunched(Protocol):
    """A runtime that can be asked to launch CUDA graphs."""

    @property
    def graph_states(self) -> Mapping[int, GraphState]:
        """By batch size, of all that ran, what is known of its graph; empty where none was asked for."""


def graph_of(runtime: Runtime) -> GraphState | None:
    """What is known of the CUDA graphs of a runtime, which may be closed; None where none was asked for.

    Args:
        runtime: Any; it has run.
    """
    return worst(runtime.graph_states.values()) if isinstance(runtime, GraphLaunched) else None


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Batch sizes that a model takes.

    Attributes:
        ranges: Smallest and largest size of each range, None for no limit; there may be gaps between them.
    """

    ranges: tuple[tuple[int, int | None], ...] = ((1, None),)

    @classmethod
    def of(cls, fixed: int | None) -> Batches:
        """One size only, or, for None, any."""
        return cls() if fixed is None else cls(ranges=((fixed, fixed),))

    def refusal(self, size: int) -> str | None:
        """Why a size is not taken, or None where it is."""
        if any(size >= least and (most is None or size <= most) for least, most in self.ranges):
            return None
        shown = [
            str(least) if least == most else f"{least} to {most or 'any size'}" for least, most in self.ranges
        ]
        what = (
            f"batch {shown[0]}"
            if shown[0].isdigit() and len(shown) == 1
            else f"batches of {', '.join(shown)}"
        )
        return f"takes {what} only, not {size}"

    def fitting(self, size: int) -> int:
        """The size to run so many images in: the least that holds them, else the largest there is."""
        if self.refusal(size) is None:
            return size
        larger = [least for least, _ in self.ranges if least > size]
        return min(larger) if larger else max(most for _, most in self.ranges if most is not None)


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
        proof_batches: Batch sizes that a proof must cover beyond its own, such as those that each profile of
            an engine has kernels of its own for.
        observable: Whether its inner activations can be looked at (``tap``).
    """

    name: str
    precision: Precision
    artifact_sha256: str
    open: Callable[[], Runtime]
    batches: Batches = ANY_BATCH
    proof_batches: tuple[int, ...] = ()
    observable: bool = True
