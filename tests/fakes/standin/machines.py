"""Where the engines of a stand-in run: a GPU, or host memory under the fake CUDA runtime."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from tests.fakes.cuda_runtime import FakeCudaRuntime, Handle, Result, cudaError_t
from tests.fakes.gpu import FakeGpu

Shape = tuple[int, ...]

_TYPESTRS = {
    torch.float32: "<f4",
    torch.float16: "<f2",
    torch.int8: "|i1",
    torch.uint8: "|u1",
    torch.int32: "<i4",
    torch.int64: "<i8",
    torch.bool: "|b1",
}
"""NumPy's type strings; what NumPy has not, nobody can bind."""


class Machine(Protocol):
    """What runs programs.

    Attributes:
        device: Where weights and activations lie.
    """

    device: torch.device

    def memory(self, address: int, shape: Shape, dtype: torch.dtype) -> Callable[[], Tensor]:
        """What gives the tensor at an address, without a copy.

        Args:
            address: Device pointer.
            shape: Of the tensor.
            dtype: Of its elements.
        """

    def capturing(self, handle: int) -> bool:
        """Whether a stream is being captured."""

    def new_pool(self) -> Any:
        """Memory for the activations of one context, which a captured graph goes on using."""

    def retire(self, pools: list[Any]) -> None:
        """Take pools that nobody uses any more out of a list, and give their memory back."""

    def put(self, handle: int, pool: Any, work: Callable[[], None]) -> None:
        """Put work on a stream; its allocations come from a pool."""


class LockedGpu(FakeGpu):
    """The book of a GPU that several threads use at once."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()

    def born(self, kind: str) -> None:
        """As :class:`FakeGpu`."""
        with self._lock:
            super().born(kind)

    def died(self, kind: str) -> None:
        """As :class:`FakeGpu`."""
        with self._lock:
            super().died(kind)

    def new_id(self, size: int = 1) -> int:
        """As :class:`FakeGpu`."""
        with self._lock:
            return super().new_id(size)


class _External:
    """Device memory of somebody else, as PyTorch takes it."""

    def __init__(self, address: int, shape: Shape, typestr: str) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "typestr": typestr,
            "version": 2,
        }


class CudaMachine:
    """The first GPU, through PyTorch, on the streams and the memory of others.

    Nothing here waits for more than a stream: waiting for the device would spoil a capture in another
    thread. Each context has a memory pool of its own, filled by its first run, since PyTorch does not know
    of captures that it did not begin, and would hand a graph's memory to others. A pool that ends frees its
    memory, which CUDA refuses to a thread that captures: by the stacks that was how PyTorch 2.11 aborted the
    process on an H200, out of a destructor. So no run that is captured ends any, and none ends while a thread
    is in a run. (Around a run lie a few lines of the capture in which garbage collection alone could.)
    """

    def __init__(self) -> None:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        self.device = torch.device("cuda", 0)
        self._begun: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._retired: list[Any] = []

    def memory(self, address: int, shape: Shape, dtype: torch.dtype) -> Callable[[], Tensor]:
        """As the protocol says; the address is looked at now."""
        tensor = torch.as_tensor(_External(address, shape, _TYPESTRS[dtype]), device=self.device)
        assert tensor.data_ptr() == address, "PyTorch made a copy"
        return lambda: tensor

    def _stream(self, handle: int) -> Any:
        return torch.cuda.ExternalStream(handle, device=self.device)  # type: ignore[no-untyped-call]

    def capturing(self, handle: int) -> bool:
        """As the protocol says."""
        with torch.cuda.stream(self._stream(handle)):
            return torch.cuda.is_current_stream_capturing()

    def new_pool(self) -> Any:
        """As the protocol says."""
        return torch.cuda.MemPool()

    def retire(self, pools: list[Any]) -> None:
        """As the protocol says; while a thread is in :meth:`put` they wait for a run that is no capture."""
        while pools:
            self._retired.append(pools.pop())  # no other reference may outlive the lock
        self._end_retired()

    def _end_retired(self) -> None:
        if self._lock.acquire(blocking=False):  # whoever holds it ends them afterwards
            try:
                self._retired.clear()
            finally:
                self._lock.release()

    def _begin(self, handle: int) -> None:
        """Let cuBLAS take its workspace for this thread and stream from the common pool: it keeps it."""
        key = (threading.get_ident(), handle)
        if key in self._begun:
            return
        self._begun.add(key)
        for dtype in (torch.float32, torch.float16):
            square = torch.zeros(16, 16, device=self.device, dtype=dtype)
            torch.addmm(square[0], square, square)
            torch.matmul(square, square)

    def put(self, handle: int, pool: Any, work: Callable[[], None]) -> None:
        """As the protocol says."""
        on_stream = torch.cuda.stream(self._stream(handle))
        with self._lock, torch.inference_mode(), torch.cuda.device(self.device), on_stream:
            captured = torch.cuda.is_current_stream_capturing()
            if not captured:
                self._begin(handle)
            with torch.cuda.use_mem_pool(pool):
                work()
        if not captured:
            self._end_retired()


class HostCudaRuntime(FakeCudaRuntime):
    """The fake CUDA runtime, which can be asked what lies where, and for a stream by its number."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__(gpu)
        self._streams: dict[int, Handle] = {}

    def cudaStreamCreateWithFlags(self, flags: int) -> Result:
        code, stream = super().cudaStreamCreateWithFlags(flags)
        if code == cudaError_t.cudaSuccess:
            self._streams[int(stream)] = stream
        return code, stream

    def cudaStreamDestroy(self, stream: Any) -> Result:
        self._streams.pop(int(stream), None)
        return super().cudaStreamDestroy(stream)

    def stream(self, handle: int) -> Handle:
        """The stream of a number."""
        if handle not in self._streams:
            raise self._gpu.violate(f"no stream has the handle {handle}")
        return self._streams[handle]

    def block(self, address: int, size: int) -> Any:
        """Memory that was allocated at an address and not freed, of this size at least."""
        found = self._memory.get(address)
        if found is None or ctypes.sizeof(found) < size:
            raise self._gpu.violate(f"{size} bytes are used at {address:#x}, where there is no such memory")
        return found

    def launch(self, stream: Handle, work: Callable[[], None]) -> None:
        """Put a kernel on a stream."""
        self._put(stream, work)

    def _put(self, stream: Handle, work: Callable[[], None]) -> Result:
        """Everything takes as long by the stream's clock as by the host's."""

        def timed() -> None:
            begun_ms, start = stream.content.clock_ms, time.perf_counter()
            work()
            stream.content.clock_ms = begun_ms + 1000 * (time.perf_counter() - start)

        return super()._put(stream, timed)


class HostMachine:
    """Host memory under the fake CUDA runtime.

    Args:
        cuda: Whose memory and streams.
    """

    device = torch.device("cpu")

    def __init__(self, cuda: HostCudaRuntime) -> None:
        self._cuda = cuda

    def memory(self, address: int, shape: Shape, dtype: torch.dtype) -> Callable[[], Tensor]:
        """As the protocol says; the address is looked at now, and at each use."""
        count = torch.Size(shape).numel()

        def tensor() -> Tensor:
            block = self._cuda.block(address, count * dtype.itemsize)
            return torch.frombuffer(block, dtype=dtype, count=count).reshape(shape)

        tensor()
        return tensor

    def capturing(self, handle: int) -> bool:
        """As the protocol says."""
        return self._cuda.stream(handle).content.captured is not None

    def new_pool(self) -> Any:
        """None: the host's memory is enough."""

    def retire(self, pools: list[Any]) -> None:
        """As the protocol says."""
        pools.clear()

    def put(self, handle: int, pool: Any, work: Callable[[], None]) -> None:  # noqa: ARG002
        """As the protocol says."""

        def infer() -> None:
            with torch.inference_mode():
                work()

        self._cuda.launch(self._cuda.stream(handle), infer)
