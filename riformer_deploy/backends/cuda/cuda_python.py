"""NVIDIA's cuda-python: the CUDA runtime, whose primary context PyTorch uses too."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from typing_extensions import override

from riformer_deploy.backends.cuda.base import Device, DeviceBuffer, HostBuffer
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import RuntimeFailureError


class CudaPythonDevice(Device):
    """The CUDA runtime through ``cuda.bindings.runtime``.

    Raises:
        MissingDependencyError: cuda-python is not installed.
        RuntimeFailureError: There is no GPU, or its driver is too old.
    """

    captures_graphs = True

    def __init__(self) -> None:
        self._cuda: Any = require("cuda.bindings", "runtime")
        self._call(self._cuda.cudaSetDevice, 0)  # the one that preflight has looked at
        handle = self._call(self._cuda.cudaStreamCreateWithFlags, self._cuda.cudaStreamNonBlocking)
        self._stream = handle
        self.stream = int(handle)

    def _call(self, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
        """The function's results, without the error code that goes before them; a single one bare."""
        code, *results = function(*arguments)
        self._check(code, function)
        return results[0] if len(results) == 1 else results

    def _check(self, code: Any, function: Callable[..., tuple[Any, ...]]) -> None:
        if code != self._cuda.cudaError_t.cudaSuccess:
            _, text = self._cuda.cudaGetErrorString(code)
            shown = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
            raise RuntimeFailureError(f"{function.__name__} failed: {shown} ({code.name}).")

    @override
    def allocate(self, size_bytes: int) -> DeviceBuffer:
        pointer = self._call(self._cuda.cudaMalloc, size_bytes)
        return DeviceBuffer(address=int(pointer), size_bytes=size_bytes, owner=pointer)

    @override
    def free(self, buffer: DeviceBuffer) -> None:
        self._call(self._cuda.cudaFree, buffer.owner)

    @override
    def allocate_host(self, size_bytes: int) -> HostBuffer:
        pointer = self._call(self._cuda.cudaHostAlloc, size_bytes, self._cuda.cudaHostAllocDefault)
        data = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(int(pointer)))
        return HostBuffer(data=data, owner=pointer)

    @override
    def free_host(self, buffer: HostBuffer) -> None:
        self._call(self._cuda.cudaFreeHost, buffer.owner)

    def _copy(self, target: Any, source: Any, size_bytes: int, kind: Any) -> None:
        self._call(self._cuda.cudaMemcpyAsync, target, source, size_bytes, kind, self._stream)

    @override
    def to_device(self, target: DeviceBuffer, source: HostBuffer) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(target.owner, source.owner, source.data.nbytes, kind)

    @override
    def to_host(self, target: HostBuffer, source: DeviceBuffer) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(target.owner, source.owner, target.data.nbytes, kind)

    @override
    def clear(self, buffer: DeviceBuffer) -> None:
        self._call(self._cuda.cudaMemsetAsync, buffer.owner, 0, buffer.size_bytes, self._stream)

    @override
    def event(self) -> Any:
        return self._call(self._cuda.cudaEventCreate)

    @override
    def record(self, event: Any) -> None:
        self._call(self._cuda.cudaEventRecord, event, self._stream)

    @override
    def is_done(self, event: Any) -> bool:
        (code,) = self._cuda.cudaEventQuery(event)
        if code == self._cuda.cudaError_t.cudaErrorNotReady:
            return False
        self._check(code, self._cuda.cudaEventQuery)
        return True

    @override
    def elapsed_ms(self, start: Any, end: Any) -> float:
        self._call(self._cuda.cudaEventSynchronize, end)
        return float(self._call(self._cuda.cudaEventElapsedTime, start, end))

    @override
    def free_event(self, event: Any) -> None:
        self._call(self._cuda.cudaEventDestroy, event)

    @override
    def capture(self, work: Callable[[], None]) -> Any:
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(self._cuda.cudaStreamBeginCapture, self._stream, mode)
        try:
            work()
        except BaseException:
            code, graph = self._cuda.cudaStreamEndCapture(self._stream)  # leave the capture, keep the cause
            if code == self._cuda.cudaError_t.cudaSuccess:
                self._cuda.cudaGraphDestroy(graph)
            raise
        graph = self._call(self._cuda.cudaStreamEndCapture, self._stream)
        try:
            return self._call(self._cuda.cudaGraphInstantiate, graph, 0)
        finally:
            self._call(self._cuda.cudaGraphDestroy, graph)

    @override
    def launch(self, graph: Any) -> None:
        self._call(self._cuda.cudaGraphLaunch, graph, self._stream)

    @override
    def free_graph(self, graph: Any) -> None:
        self._call(self._cuda.cudaGraphExecDestroy, graph)

    @override
    def synchronize(self) -> None:
        self._call(self._cuda.cudaStreamSynchronize, self._stream)

    @override
    def memory_bytes(self) -> tuple[int, int]:
        free, total = self._call(self._cuda.cudaMemGetInfo)
        return int(free), int(total)

    @override
    def close(self) -> None:
        self._call(self._cuda.cudaStreamDestroy, self._stream)
