"""What every backend offers: prepared once, run many times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.graph_state import GraphState, worst
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.common.enums import Precision, Role
from riformer_deploy.data.transforms import Images

Outputs = dict[str, NDArray[np.floating]]
"""Arrays by name; the first axis is the batch."""


class Runtime(Protocol):
    """A model that is ready to run.

    Every method raises :class:`~riformer_deploy.common.errors.RuntimeFailureError` where the backend fails.
    """

    def run(self, images: Images) -> Outputs:
        """The model's outputs, ``logits`` (N, classes) among them, on the host."""

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        """Activations (N, C, H, W) after the named blocks, such as ``backbone.network.0.1``."""

    def close(self) -> None:
        """Give back memory and threads; the runtime is not used afterwards."""


@dataclass(frozen=True, kw_only=True)
class DeviceTimes:
    """The four parts of one inference, in milliseconds; with the same bounds for every runtime.

    Each part but the first is timed by events on the device.

    Attributes:
        staging_ms: By the host's clock: copying the images into page-locked memory of the runtime's own.
        to_device_ms: Copying them from there to the device.
        compute_ms: From the images in device memory, (N, 3, H, W) float32 (or what else the graph takes),
            to the outputs in device memory: casts and changes of layout are included. The L2 cache holds
            none of the model's data at its beginning.
        to_host_ms: Copying the outputs into page-locked memory.
        launch_hidden: Whether the device was still busy when the last kernel had been launched. If it was
            not, ``compute_ms`` contains some of the host's time.
    """

    staging_ms: float
    to_device_ms: float
    compute_ms: float
    to_host_ms: float
    launch_hidden: bool = True


@dataclass(frozen=True, kw_only=True)
class WarmTime:
    """Inferences back to back, by events on the device.

    Attributes:
        compute_ms: Milliseconds of one inference, averaged; from and to where ``DeviceTimes.compute_ms``
            is timed, but each inference finds in the L2 cache what the one before it left there.
        launch_hidden: As in :class:`DeviceTimes`.
    """

    compute_ms: float
    launch_hidden: bool = True


@runtime_checkable
class DeviceTimed(Protocol):
    """A runtime on a device that keeps time itself; raises RuntimeFailureError as ``run`` does."""

    def device_times(self, images: Images) -> DeviceTimes:
        """Run once, with a cold L2 cache, and say how long each part took."""

    def warm_time(self, images: Images, inferences: int) -> WarmTime:
        """Run once, then so many times back to back (at least one), and say how long one of these took."""


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
class BatchRange:
    """Batch sizes that a model takes.

    Attributes:
        ranges: Smallest and largest size of each range, None for no limit; there may be gaps between them.
    """

    ranges: tuple[tuple[int, int | None], ...] = ((1, None),)

    @classmethod
    def of(cls, fixed: int | None) -> BatchRange:
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


ANY_BATCH = BatchRange()
"""No limit."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A runtime that can be opened when its turn comes.

    Attributes:
        config: What it is, and what it is called for it.
        artifact_sha256: Of the file that it runs, or of the weights' file.
        open: Loads and prepares it.
        batches: Batch sizes that it takes.
        parity_batches: Batch sizes that parity must cover beyond its own, such as those that each profile
            of an engine has kernels of its own for.
        observable: Whether its inner activations can be looked at (``tap``).
        role: What it is in a comparison of latencies.
        file: The bundle's file that its parity is about.
    """

    config: CandidateConfig
    artifact_sha256: str
    open: Callable[[], Runtime]
    batches: BatchRange = ANY_BATCH
    parity_batches: tuple[int, ...] = ()
    observable: bool = True
    role: Role = Role.CANDIDATE
    file: str | None = None

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        return self.config.name

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        return self.config.precision


@dataclass(frozen=True, kw_only=True)
class CandidateSet:
    """What takes part in a measurement.

    Attributes:
        candidates: Candidates, in order.
        skipped: Artifacts that cannot, with the reason.
    """

    candidates: tuple[Candidate, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def __add__(self, other: CandidateSet) -> CandidateSet:
        return CandidateSet(
            candidates=self.candidates + other.candidates, skipped=self.skipped + other.skipped
        )


def run_all(runtime: Runtime, images: Images, batches: BatchRange) -> Outputs:
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
