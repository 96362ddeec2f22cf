"""PyCUDA, in the primary context, which PyTorch uses too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from typing_extensions import override

from riformer_deploy.backends.cuda.base import Device, DeviceBuffer, HostBuffer
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import RuntimeFailureError


class PyCudaDevice(Device):
    """The CUDA driver through PyCUDA; :class:`~riformer_deploy.backends.cuda.base.Device`.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        RuntimeFailureError: There is no GPU, or its driver is too old.
    """

    captures_graphs = False

    def __init__(self) -> None:
        self._cuda: Any = require("pycuda", "driver")
        self._call(self._cuda.init)
        self._context = self._call(self._call(self._cuda.Device, 0).retain_primary_context)
        self._call(self._context.push)
        try:
            self._stream = self._call(self._cuda.Stream)
        except BaseException:
            self._context.pop()
            raise
        self.stream = int(self._stream.handle)
        self._host_buffers, self._closed = 0, False

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._cuda.Error as err:
            raise RuntimeFailureError(f"PyCUDA: {err}") from err

    @override
    def allocate(self, size_bytes: int) -> DeviceBuffer:
        owner = self._call(self._cuda.mem_alloc, size_bytes)
        return DeviceBuffer(address=int(owner), size_bytes=size_bytes, owner=owner)

    @override
    def free(self, buffer: DeviceBuffer) -> None:
        self._call(buffer.owner.free)

    @override
    def allocate_host(self, size_bytes: int) -> HostBuffer:
        data = self._call(self._cuda.pagelocked_empty, size_bytes, np.uint8)
        self._host_buffers += 1
        return HostBuffer(data=data, owner=data.base)

    @override
    def free_host(self, buffer: HostBuffer) -> None:
        """Free it in the context, which the last buffer releases."""
        if not self._closed:
            self._call(buffer.owner.free)
            self._host_buffers -= 1
            return
        self._call(self._context.push)
        try:
            self._call(buffer.owner.free)
        finally:
            self._context.pop()
        self._host_buffers -= 1
        self._release()

    @override
    def to_device(self, target: DeviceBuffer, source: HostBuffer) -> None:
        self._call(self._cuda.memcpy_htod_async, target.owner, source.data, self._stream)

    @override
    def to_host(self, target: HostBuffer, source: DeviceBuffer) -> None:
        self._call(self._cuda.memcpy_dtoh_async, target.data, source.owner, self._stream)

    @override
    def clear(self, buffer: DeviceBuffer) -> None:
        self._call(self._cuda.memset_d8_async, buffer.owner, 0, buffer.size_bytes, self._stream)

    @override
    def event(self) -> Any:
        return self._call(self._cuda.Event)

    @override
    def record(self, event: Any) -> None:
        self._call(event.record, self._stream)

    @override
    def is_done(self, event: Any) -> bool:
        return bool(self._call(event.query))

    @override
    def elapsed_ms(self, start: Any, end: Any) -> float:
        self._call(end.synchronize)
        return float(self._call(end.time_since, start))

    @override
    def free_event(self, event: Any) -> None:
        """PyCUDA destroys it when nobody refers to it."""

    @override
    def capture(self, work: Callable[[], None]) -> Any:
        """Not offered.

        Raises:
            RuntimeFailureError: Always.
        """
        raise RuntimeFailureError("PyCUDA captures no CUDA graphs.", remedy="Use --device-layer cuda-python.")

    @override
    def launch(self, graph: Any) -> None:
        """Not offered, as :meth:`capture`."""
        raise RuntimeFailureError("PyCUDA captures no CUDA graphs.")

    @override
    def free_graph(self, graph: Any) -> None:
        """Nothing: there is no graph."""

    @override
    def synchronize(self) -> None:
        self._call(self._stream.synchronize)

    @override
    def memory_bytes(self) -> tuple[int, int]:
        free, total = self._call(self._cuda.mem_get_info)
        return int(free), int(total)

    @override
    def close(self) -> None:
        """Leave the primary context, which belongs to everybody in the process."""
        del self._stream
        self._context.pop()
        self._closed = True
        self._release()

    def _release(self) -> None:
        if self._host_buffers == 0:
            del self._context  # the last one to go releases it
