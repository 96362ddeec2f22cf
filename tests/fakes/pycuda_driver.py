"""A ``pycuda.driver`` without CUDA: objects free themselves, and a context must be current for every call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fakes.gpu import FakeGpu

COPY_MS = 2.0


class FakePyCuda:
    """The module.

    Args:
        gpu: Whose book is kept.
    """

    class Error(Exception):
        """PyCUDA's root of errors."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._initialised = False
        self.current: list[Any] = []

    def _begin(self, name: str) -> None:
        if not self.current:
            raise self._gpu.violate(f"{name} without a context")
        self._refuse(name)

    def _refuse(self, name: str) -> None:
        if self._gpu.refuses(name):
            raise self.Error(f"{name} failed: out of luck")

    def init(self) -> None:
        self._refuse("init")
        self._initialised = True

    def Device(self, number: int) -> Any:
        assert self._initialised
        assert number == 0
        self._refuse("Device")
        return _Device(self)

    def Stream(self, flags: int = 0) -> Any:
        assert flags == 0
        self._begin("Stream")
        return _Stream(self)

    def Event(self, flags: int = 0) -> Any:
        assert flags == 0
        self._begin("Event")
        return _Event(self)

    def mem_alloc(self, bytes: int) -> Any:
        self._begin("mem_alloc")
        return _Allocation(self, bytes, "device buffer")

    def pagelocked_empty(self, shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
        assert order == "C"
        assert mem_flags == 0
        self._begin("pagelocked_empty")
        return np.asarray(_PagelockedHostAllocation(self, int(shape) * np.dtype(dtype).itemsize))

    def _copy(self, stream: Any, sides: tuple[Any, Any], what: tuple[int, int, int]) -> None:
        def work() -> None:
            if any(not side.live for side in sides):
                raise self._gpu.violate("a copy of memory that was freed")
            ctypes.memmove(*what)
            stream.clock_ms += COPY_MS

        stream.pending.append(work)

    def memcpy_htod_async(self, dest: Any, src: Any, stream: Any) -> None:
        self._begin("memcpy_htod_async")
        assert isinstance(src.base, _PagelockedHostAllocation)
        assert dest.size >= src.nbytes
        self._copy(stream, (dest, src.base), (int(dest), src.ctypes.data, src.nbytes))

    def memcpy_dtoh_async(self, dest: Any, src: Any, stream: Any) -> None:
        self._begin("memcpy_dtoh_async")
        assert isinstance(dest.base, _PagelockedHostAllocation)
        assert src.size >= dest.nbytes
        self._copy(stream, (src, dest.base), (dest.ctypes.data, int(src), dest.nbytes))

    def memset_d8_async(self, dest: Any, data: int, count: int, stream: Any) -> None:
        self._begin("memset_d8_async")
        assert dest.size >= count

        def work() -> None:
            if not dest.live:
                raise self._gpu.violate("memory is set that was freed")
            ctypes.memset(int(dest), data, count)

        stream.pending.append(work)

    def mem_get_info(self) -> tuple[int, int]:
        self._begin("mem_get_info")
        return 300, 1000


class _Device:
    def __init__(self, cuda: FakePyCuda) -> None:
        self._cuda = cuda

    def retain_primary_context(self) -> Any:
        return _Context(self._cuda)


class _Context:
    """Retained, but current only between push and pop."""

    def __init__(self, cuda: FakePyCuda) -> None:
        self._cuda = cuda
        cuda._gpu.owned("primary context", self)

    def push(self) -> None:
        self._cuda._refuse("push")
        self._cuda.current.append(1)
        self._cuda._gpu.born("current context")

    def pop(self) -> None:
        self._cuda.current.pop()
        self._cuda._gpu.died("current context")


class _Stream:
    def __init__(self, cuda: FakePyCuda) -> None:
        self.pending: list[Callable[[], None]] = []
        self.clock_ms = 0.0
        self.handle = cuda._gpu.new_id()
        self._cuda = cuda
        cuda._gpu.owned("stream", self)

    def synchronize(self) -> None:
        self._cuda._begin("synchronize")
        while self.pending:
            self.pending.pop(0)()


class _Event:
    def __init__(self, cuda: FakePyCuda) -> None:
        self._cuda = cuda
        self._stream: Any = None
        self._time_ms: float | None = None
        cuda._gpu.owned("event", self)

    def record(self, stream: Any) -> Any:
        self._cuda._begin("record")
        self._stream = stream

        def work() -> None:
            self._time_ms = stream.clock_ms

        stream.pending.append(work)
        return self

    def synchronize(self) -> Any:
        self._stream.synchronize()
        return self

    def query(self) -> bool:
        self._cuda._begin("query")
        return self._time_ms is not None

    def time_since(self, event: Any) -> float:
        self._cuda._begin("time_since")
        if self._time_ms is None or event._time_ms is None:
            raise self._cuda._gpu.violate("the time between events that did not happen")
        return float(self._time_ms - event._time_ms)


class _Allocation:
    """Memory that is freed once."""

    def __init__(self, cuda: FakePyCuda, size: int, kind: str) -> None:
        self.size, self.live, self._kind, self._cuda = size, True, kind, cuda
        self._block = ctypes.create_string_buffer(size)
        cuda._gpu.born(kind)

    def __int__(self) -> int:
        return ctypes.addressof(self._block)

    def free(self) -> None:
        self._cuda._begin("free")
        if not self.live:
            raise self._cuda._gpu.violate("memory is freed twice")
        self.live = False
        self._cuda._gpu.died(self._kind)


class _PagelockedHostAllocation(_Allocation):
    """What ``pagelocked_empty`` gives an array of, whose ``base`` it is."""

    def __init__(self, cuda: FakePyCuda, size: int) -> None:
        super().__init__(cuda, size, "host buffer")

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.size,), "typestr": "|u1", "data": (int(self), False), "version": 3}
