"""A ``cuda.bindings.runtime`` without CUDA: its conventions, real memory, and work that waits.

Every function gives a tuple that begins with an error code. What is on a stream happens when the stream
is waited for; a copy of memory that was freed is a broken rule.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.fakes.gpu import FakeGpu

COPY_MS = 2.0


class cudaError_t(enum.IntEnum):
    """Codes."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNotReady = 600
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    """Directions."""

    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    """Modes."""

    cudaStreamCaptureModeThreadLocal = 1


class Handle:
    """A stream, event or graph."""

    def __init__(self, number: int, **content: Any) -> None:
        self._number = number
        self.content = SimpleNamespace(**content)

    def __int__(self) -> int:
        return self._number


Result = tuple[Any, ...]


class FakeCudaRuntime:
    """The module.

    Args:
        gpu: Whose book is kept.
    """

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._memory: dict[int, Any] = {}
        self.failing = cudaError_t.cudaErrorMemoryAllocation

    def _refused(self, name: str) -> bool:
        return self._gpu.refuses(name)

    def _made(self, name: str, kind: str, **content: Any) -> Result:
        if self._refused(name):
            return self.failing, None
        self._gpu.born(kind)
        return cudaError_t.cudaSuccess, Handle(self._gpu.new_id(), **content)

    def _gone(self, kind: str, handle: Handle) -> Result:
        if not vars(handle.content).pop("live", True):
            raise self._gpu.violate(f"a {kind} is destroyed twice")
        handle.content.live = False
        self._gpu.died(kind)
        return (cudaError_t.cudaSuccess,)

    def _allocated(self, name: str, kind: str, size: int) -> Result:
        if self._refused(name):
            return self.failing, None
        block = ctypes.create_string_buffer(size)
        self._memory[ctypes.addressof(block)] = block
        self._gpu.born(kind)
        return cudaError_t.cudaSuccess, ctypes.addressof(block)

    def _freed(self, kind: str, address: int) -> Result:
        if self._memory.pop(address, None) is None:
            raise self._gpu.violate("memory is freed that is none")
        self._gpu.died(kind)
        return (cudaError_t.cudaSuccess,)

    def cudaGetErrorString(self, error: Any) -> Result:
        return cudaError_t.cudaSuccess, f"text of {error.name}".encode()

    def cudaSetDevice(self, device: int) -> Result:
        assert device == 0
        return (cudaError_t.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Result:
        assert flags == self.cudaStreamNonBlocking
        return self._made("cudaStreamCreateWithFlags", "stream", pending=[], captured=None, clock_ms=0.0)

    def cudaStreamDestroy(self, stream: Any) -> Result:
        return self._gone("stream", stream)

    def cudaStreamSynchronize(self, stream: Any) -> Result:
        if stream.content.captured is not None:
            raise self._gpu.violate("waiting for a stream that is being captured")
        if self._refused("cudaStreamSynchronize"):
            return (self.failing,)
        while stream.content.pending:
            stream.content.pending.pop(0)()
        return (cudaError_t.cudaSuccess,)

    def cudaMalloc(self, size: int) -> Result:
        return self._allocated("cudaMalloc", "device buffer", size)

    def cudaFree(self, devPtr: Any) -> Result:
        return self._freed("device buffer", devPtr)

    def cudaHostAlloc(self, size: int, flags: int) -> Result:
        assert flags == self.cudaHostAllocDefault
        return self._allocated("cudaHostAlloc", "host buffer", size)

    def cudaFreeHost(self, ptr: Any) -> Result:
        return self._freed("host buffer", ptr)

    def cudaMemGetInfo(self) -> Result:
        return cudaError_t.cudaSuccess, 300, 1000

    def _put(self, stream: Handle, work: Callable[[], None]) -> Result:
        captured = stream.content.captured
        (stream.content.pending if captured is None else captured).append(work)
        return (cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(self, dst: Any, src: Any, count: int, kind: Any, stream: Any) -> Result:
        assert isinstance(kind, cudaMemcpyKind)

        def work() -> None:
            for address in (dst, src):
                if address not in self._memory or len(self._memory[address]) < count:
                    raise self._gpu.violate("a copy of memory that is none, or too small")
            ctypes.memmove(dst, src, count)
            stream.content.clock_ms += COPY_MS

        return self._put(stream, work)

    def cudaMemsetAsync(self, devPtr: Any, value: int, count: int, stream: Any) -> Result:
        def work() -> None:
            if devPtr not in self._memory or len(self._memory[devPtr]) < count:
                raise self._gpu.violate("memory is set that is none, or too small")
            ctypes.memset(devPtr, value, count)

        return self._put(stream, work)

    def cudaEventCreate(self) -> Result:
        return self._made("cudaEventCreate", "event", time_ms=None)

    def cudaEventDestroy(self, event: Any) -> Result:
        return self._gone("event", event)

    def cudaEventRecord(self, event: Any, stream: Any) -> Result:
        def work() -> None:
            event.content.time_ms = stream.content.clock_ms

        event.content.stream = stream
        return self._put(stream, work)

    def cudaEventSynchronize(self, event: Any) -> Result:
        return self.cudaStreamSynchronize(event.content.stream)

    def cudaEventQuery(self, event: Any) -> Result:
        if self._refused("cudaEventQuery"):
            return (self.failing,)
        done = event.content.time_ms is not None
        return (cudaError_t.cudaSuccess if done else cudaError_t.cudaErrorNotReady,)

    def cudaEventElapsedTime(self, start: Any, end: Any) -> Result:
        if start.content.time_ms is None or end.content.time_ms is None:
            raise self._gpu.violate("the time between events that did not happen")
        return cudaError_t.cudaSuccess, end.content.time_ms - start.content.time_ms

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> Result:
        assert isinstance(mode, cudaStreamCaptureMode)
        if self._refused("cudaStreamBeginCapture"):
            return (self.failing,)
        stream.content.captured = []
        return (cudaError_t.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: Any) -> Result:
        work, stream.content.captured = stream.content.captured, None
        assert work is not None
        return self._made("cudaStreamEndCapture", "graph", work=work)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Result:
        assert flags == 0
        return self._made("cudaGraphInstantiate", "executable graph", work=graph.content.work)

    def cudaGraphDestroy(self, graph: Any) -> Result:
        return self._gone("graph", graph)

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> Result:
        stream.content.pending.extend(graphExec.content.work)
        return (cudaError_t.cudaSuccess,)

    def cudaGraphExecDestroy(self, graphExec: Any) -> Result:
        return self._gone("executable graph", graphExec)
