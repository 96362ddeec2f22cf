"""A device that is the host: real memory at real addresses, and a stream whose work is done at once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from riformer_deploy.backends.cuda.base import DeviceBuffer, HostBuffer


class HostDevice:
    """A :class:`riformer_deploy.backends.cuda.base.Device` on host memory, for what takes addresses of it.

    Attributes:
        live: Buffers and events that were made and not freed.
        closed: Whether it was closed.
    """

    stream = 0
    captures_graphs = False

    def __init__(self) -> None:
        self.live: dict[int, Any] = {}
        self.closed = False
        self._numbers = itertools.count()
        self._times: dict[int, float] = {}

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        data = np.zeros(size_bytes, dtype=np.uint8)
        number = next(self._numbers)
        self.live[number] = data
        return DeviceBuffer(address=data.ctypes.data, size_bytes=size_bytes, owner=number)

    def free(self, buffer: DeviceBuffer) -> None:
        del self.live[buffer.owner]

    def allocate_host(self, size_bytes: int) -> HostBuffer:
        number = next(self._numbers)
        self.live[number] = np.zeros(size_bytes, dtype=np.uint8)
        return HostBuffer(data=self.live[number], owner=number)

    def free_host(self, buffer: HostBuffer) -> None:
        del self.live[buffer.owner]

    def to_device(self, target: DeviceBuffer, source: HostBuffer) -> None:
        self.live[target.owner][: len(source.data)] = source.data

    def to_host(self, target: HostBuffer, source: DeviceBuffer) -> None:
        target.data[:] = self.live[source.owner][: len(target.data)]

    def clear(self, buffer: DeviceBuffer) -> None:
        del buffer  # nothing waits behind it here

    def event(self) -> Any:
        number = next(self._numbers)
        self.live[number] = "event"
        return number

    def record(self, event: Any) -> None:
        self._times[event] = time.perf_counter()

    def is_done(self, event: Any) -> bool:
        return event in self._times

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return 1000 * (self._times[end] - self._times[start])

    def free_event(self, event: Any) -> None:
        del self.live[event]

    def capture(self, _work: Callable[[], None]) -> Any:
        raise AssertionError("it captures no graphs")

    def launch(self, _graph: Any) -> None:
        raise AssertionError("it captures no graphs")

    def free_graph(self, _graph: Any) -> None:
        raise AssertionError("it captures no graphs")

    def synchronize(self) -> None:
        pass

    def memory_bytes(self) -> tuple[int, int]:
        return 2**30, 2**31

    def close(self) -> None:
        self.closed = True
