"""What a device layer offers: one stream, memory for it, events and, where it can, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class DeviceBuffer:
    """Device memory.

    Attributes:
        address: Device pointer.
        size_bytes: Its size.
        owner: What the layer frees it by.
    """

    address: int
    size_bytes: int
    owner: Any


@dataclass(frozen=True, kw_only=True)
class HostBuffer:
    """Page-locked host memory, which the device copies from and to without help.

    Attributes:
        data: (size,) uint8.
        owner: What the layer frees it by.
    """

    data: NDArray[np.uint8]
    owner: Any


class Device(Protocol):
    """One stream on the first GPU, in the primary context, which PyTorch uses too.

    Every method raises :class:`~riformer_deploy.common.errors.RuntimeFailureError` where the driver refuses.
    Copies, ``clear`` and ``launch`` return at once; ``synchronize`` waits for them.

    Attributes:
        stream: Its handle.
        captures_graphs: Whether :meth:`capture` is offered.
    """

    stream: int
    captures_graphs: bool

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """Device memory; at least one byte."""

    def free(self, buffer: DeviceBuffer) -> None:
        """Give it back; the stream must be synchronised."""

    def allocate_host(self, size_bytes: int) -> HostBuffer:
        """Page-locked host memory; at least one byte."""

    def free_host(self, buffer: HostBuffer) -> None:
        """Give it back; the stream must be synchronised. It may be closed: views may outlive a runtime."""

    def to_device(self, target: DeviceBuffer, source: HostBuffer) -> None:
        """Copy all of the host buffer."""

    def to_host(self, target: HostBuffer, source: DeviceBuffer) -> None:
        """Fill all of the host buffer."""

    def clear(self, buffer: DeviceBuffer) -> None:
        """Fill all of a device buffer with zeros."""

    def event(self) -> Any:
        """A new event that keeps time."""

    def record(self, event: Any) -> None:
        """Put the event on the stream."""

    def is_done(self, event: Any) -> bool:
        """Whether the device has reached a recorded event; does not wait."""

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two recorded events; waits for the second."""

    def free_event(self, event: Any) -> None:
        """Destroy an event."""

    def capture(self, work: Callable[[], None]) -> Any:
        """Capture what ``work`` puts on the stream as a CUDA graph that can be launched."""

    def launch(self, graph: Any) -> None:
        """Put a captured graph on the stream."""

    def free_graph(self, graph: Any) -> None:
        """Destroy a captured graph; the stream must be synchronised."""

    def synchronize(self) -> None:
        """Wait for the stream."""

    def memory_bytes(self) -> tuple[int, int]:
        """Free and total device memory."""

    def close(self) -> None:
        """Destroy the stream; everything but host memory that it was used for must be freed."""


def allocate_pair(device: Device, size_bytes: int) -> tuple[DeviceBuffer, HostBuffer]:
    """Memory of one size on both sides, for what is copied between them; at least one byte.

    Args:
        device: Allocates both.
        size_bytes: Of each.

    Raises:
        RuntimeFailureError: There is not enough memory; nothing is left.
    """
    there = device.allocate(max(size_bytes, 1))
    try:
        return there, device.allocate_host(max(size_bytes, 1))
    except BaseException:
        device.free(there)
        raise
