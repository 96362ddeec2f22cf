"""A GPU without a GPU: memory, streams, events and graphs that insist on CUDA's rules.

Nothing that is put on a stream happens before the stream is waited for. Whoever frees what pending work
uses, works on freed memory, launches a graph that was destroyed or waits inside a capture is told so:
a :class:`ProtocolError` is raised, and kept in :attr:`FakeGpu.violations` in case somebody swallows it.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.cuda.base import DeviceBuffer, HostBuffer
from riformer_deploy.common.errors import RuntimeFailureError

POISON = 0xCD
COPY_TO_DEVICE_MS, COMPUTE_MS, COPY_TO_HOST_MS, CLEAR_MS = 1.0, 4.0, 0.5, 0.125


class ProtocolError(AssertionError):
    """Something that crashes, corrupts memory or leaks on a real GPU."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """Work on a stream.

    Attributes:
        work: Does it.
        uses: Ids of what must stay alive until it is done.
        duration_ms: By the stream's clock.
    """

    work: Callable[[], None]
    uses: frozenset[object] = frozenset()
    duration_ms: float = 0.0


@dataclass
class Stream:
    """Work in order; captured or waiting. ``users`` are execution contexts that ran on it."""

    pending: list[Operation] = field(default_factory=list)
    captured: list[Operation] | None = None
    clock_ms: float = 0.0
    users: int = 0

    def put(self, operation: Operation) -> None:
        """At the end."""
        (self.pending if self.captured is None else self.captured).append(operation)


class FakeGpu:
    """The hardware, and the book on who owns what.

    Attributes:
        live: How many of each kind of thing exist.
        made: How many were ever made.
        violations: Every rule that was broken.
        refusals: Calls by name, and how many of them succeed before one fails.
        streams: By handle.
        memory: Device memory by address.
        log: What was put on streams, in order.
        launch_ms: What the device gets done of its pending work, in milliseconds of its clock, before the
            host asks whether it has reached an event.
    """

    def __init__(self) -> None:
        self.live: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self.violations: list[str] = []
        self.refusals: dict[str, int] = {}
        self.streams: dict[int, Stream] = {}
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.log: list[str] = []
        self.launch_ms = 0.0
        self._next = 0x7F00_0000

    def violate(self, text: str) -> ProtocolError:
        """Write a broken rule down; raise what this gives."""
        self.violations.append(text)
        return ProtocolError(text)

    def refuses(self, call: str) -> bool:
        """Whether this call is the one that shall fail; later ones succeed again."""
        if call not in self.refusals:
            return False
        self.refusals[call] -= 1
        if self.refusals[call] >= 0:
            return False
        del self.refusals[call]
        return True

    def born(self, kind: str) -> None:
        """One more of a kind."""
        self.live[kind] += 1
        self.made[kind] += 1

    def died(self, kind: str) -> None:
        """One less of a kind."""
        self.live[kind] -= 1
        self.live += Counter()  # drops zeros

    def owned(self, kind: str, thing: object, last: Callable[[], None] = lambda: None) -> None:
        """Count something that lives as long as Python refers to it; ``last`` is called at its end."""

        def end() -> None:
            self.died(kind)
            last()

        self.born(kind)
        weakref.finalize(thing, end).atexit = False

    def new_id(self, size: int = 1) -> int:
        """A number that looks like an address and is never used twice."""
        found = self._next
        self._next += (size // 256 + 2) * 256
        return found

    def in_use(self, thing: object) -> bool:
        """Whether pending work uses it."""
        return any(
            thing in operation.uses for stream in self.streams.values() for operation in stream.pending
        )

    def stream(self, handle: int) -> Stream:
        """The stream of a handle."""
        if handle not in self.streams:
            raise self.violate(f"no stream has the handle {handle}")
        return self.streams[handle]

    def view(self, address: int, size: int) -> NDArray[np.uint8]:
        """The first bytes at an address."""
        found = self.memory.get(address)
        if found is None:
            raise self.violate(f"{address:#x} is not, or no longer, device memory")
        if found.nbytes < size:
            raise self.violate(f"{size} bytes are used at {address:#x}, where {found.nbytes} were allocated")
        return found[:size]

    def wait(self, handle: int) -> None:
        """Do what is pending on a stream."""
        stream = self.stream(handle)
        if stream.captured is not None:
            raise self.violate("waiting for a stream that is being captured")
        while stream.pending:
            operation = stream.pending[0]
            operation.work()
            stream.clock_ms += operation.duration_ms
            stream.pending.pop(0)

    def assert_at_rest(self) -> None:
        """Nothing is left and no rule was broken."""
        assert not self.violations, self.violations
        assert not self.live, dict(self.live)


@dataclass
class FakeEvent:
    """Remembers when the stream reached it."""

    recorded: bool = False
    time_ms: float | None = None
    destroyed: bool = False


@dataclass
class FakeGraph:
    """Captured work; addresses are those of the capture."""

    operations: list[Operation]
    destroyed: bool = False


class FakeDevice:
    """One stream of a fake GPU; :class:`~riformer_deploy.backends.cuda.base.Device`.

    Args:
        gpu: Whose.
        captures_graphs: Whether it offers to.
    """

    def __init__(self, gpu: FakeGpu, *, captures_graphs: bool = True) -> None:
        self.captures_graphs = captures_graphs
        self._gpu = gpu
        self._own: Counter[str] = Counter()
        self.stream = gpu.new_id()
        gpu.streams[self.stream] = Stream()
        gpu.born("stream")

    def _born(self, kind: str) -> None:
        self._gpu.born(kind)
        self._own[kind] += 1

    def _died(self, kind: str) -> None:
        self._gpu.died(kind)
        self._own[kind] -= 1

    @property
    def _work(self) -> Stream:
        return self._gpu.stream(self.stream)

    def _begin(self, call: str, *, capturable: bool = False) -> None:
        if self._work.captured is not None and not capturable:
            raise self._gpu.violate(f"{call} while a capture is going on")
        if self._gpu.refuses(call):
            raise RuntimeFailureError(f"{call} failed: out of luck.")

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """As the protocol says; poisoned."""
        self._begin("allocate")
        if size_bytes < 1:
            raise self._gpu.violate(f"{size_bytes} bytes of device memory")
        address = self._gpu.new_id(size_bytes)
        self._gpu.memory[address] = np.full(size_bytes, POISON, dtype=np.uint8)
        self._born("device buffer")
        return DeviceBuffer(address=address, size_bytes=size_bytes, owner=address)

    def free(self, buffer: DeviceBuffer) -> None:
        """As the protocol says."""
        self._begin("free")
        if buffer.owner not in self._gpu.memory:
            raise self._gpu.violate(f"{buffer.owner:#x} is freed twice")
        if self._gpu.in_use(buffer.owner):
            raise self._gpu.violate(f"{buffer.owner:#x} is freed while pending work uses it")
        del self._gpu.memory[buffer.owner]
        self._died("device buffer")

    def allocate_host(self, size_bytes: int) -> HostBuffer:
        """As the protocol says; poisoned."""
        self._begin("allocate_host")
        data = np.full(size_bytes, POISON, dtype=np.uint8)
        self._born("host buffer")
        return HostBuffer(data=data, owner={"live": True})

    def free_host(self, buffer: HostBuffer) -> None:
        """As the protocol says; host memory outlives the stream where a view of it is held."""
        if self.stream in self._gpu.streams:
            self._begin("free_host")
        if not buffer.owner["live"]:
            raise self._gpu.violate("a host buffer is freed twice")
        if self._gpu.in_use(id(buffer.owner)):
            raise self._gpu.violate("a host buffer is freed while a copy uses it")
        buffer.owner["live"] = False
        self._died("host buffer")

    def _copy(self, device: DeviceBuffer, host: HostBuffer, work: Callable[[], None], cost_ms: float) -> None:
        if not host.owner["live"]:
            raise self._gpu.violate("a copy uses a host buffer that was freed")
        self._gpu.view(device.address, host.data.nbytes)
        uses = frozenset((device.owner, id(host.owner)))
        self._work.put(Operation(work=work, uses=uses, duration_ms=cost_ms))

    def to_device(self, target: DeviceBuffer, source: HostBuffer) -> None:
        """As the protocol says."""
        self._begin("to_device", capturable=True)
        size = source.data.nbytes

        def work() -> None:
            self._gpu.view(target.address, size)[...] = source.data

        self._copy(target, source, work, COPY_TO_DEVICE_MS)

    def to_host(self, target: HostBuffer, source: DeviceBuffer) -> None:
        """As the protocol says."""
        self._begin("to_host", capturable=True)
        size = target.data.nbytes

        def work() -> None:
            target.data[...] = self._gpu.view(source.address, size)

        self._copy(source, target, work, COPY_TO_HOST_MS)

    def clear(self, buffer: DeviceBuffer) -> None:
        """As the protocol says."""
        self._begin("clear", capturable=True)
        self._gpu.log.append("clear")

        def work() -> None:
            self._gpu.view(buffer.address, buffer.size_bytes)[...] = 0

        uses = frozenset((buffer.owner,))
        self._work.put(Operation(work=work, uses=uses, duration_ms=CLEAR_MS))

    def event(self) -> Any:
        """As the protocol says."""
        self._begin("event")
        self._born("event")
        return FakeEvent()

    def record(self, event: Any) -> None:
        """As the protocol says."""
        self._begin("record")
        if event.destroyed:
            raise self._gpu.violate("an event that was destroyed is recorded")
        event.recorded, event.time_ms = True, None
        stream = self._work

        def work() -> None:
            event.time_ms = stream.clock_ms

        stream.put(Operation(work=work, uses=frozenset((id(event),))))

    def is_done(self, event: Any) -> bool:
        """As the protocol says, of a device that is ``launch_ms`` ahead of what it has been waited for."""
        self._begin("is_done")
        if not event.recorded or event.destroyed:
            raise self._gpu.violate("an event that was not recorded, or destroyed, is asked for")
        if event.time_ms is not None:
            return True
        pending = self._work.pending
        place = next(n for n, operation in enumerate(pending) if id(event) in operation.uses)
        ahead_ms = sum(operation.duration_ms for operation in pending[:place])
        return ahead_ms <= self._gpu.launch_ms

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """As the protocol says."""
        self._begin("elapsed_ms")
        if not start.recorded or not end.recorded or start.destroyed or end.destroyed:
            raise self._gpu.violate("the time between events that were not recorded, or destroyed")
        self._gpu.wait(self.stream)
        return float(end.time_ms - start.time_ms)

    def free_event(self, event: Any) -> None:
        """As the protocol says."""
        self._begin("free_event")
        if event.destroyed or self._gpu.in_use(id(event)):
            raise self._gpu.violate("an event is destroyed twice, or while it is pending")
        event.destroyed = True
        self._died("event")

    @contextmanager
    def _capturing(self) -> Iterator[list[Operation]]:
        stream = self._work
        if stream.captured is not None or stream.pending:
            raise self._gpu.violate("a capture begins inside another, or behind pending work")
        stream.captured = []
        try:
            yield stream.captured
        finally:
            stream.captured = None

    def capture(self, work: Callable[[], None]) -> Any:
        """As the protocol says."""
        if not self.captures_graphs:
            raise self._gpu.violate("a layer that captures no graphs is asked to")
        self._begin("capture")
        with self._capturing() as operations:
            work()
            if self._gpu.refuses("end of capture"):
                raise RuntimeFailureError("the capture was invalidated")
        self._born("graph")
        return FakeGraph(operations)

    def launch(self, graph: Any) -> None:
        """As the protocol says."""
        self._begin("launch")
        self._gpu.log.append("launch")
        if graph.destroyed:
            raise self._gpu.violate("a graph that was destroyed is launched")
        for operation in graph.operations:
            uses = operation.uses | {id(graph)}
            self._work.put(Operation(work=operation.work, uses=uses, duration_ms=operation.duration_ms))

    def free_graph(self, graph: Any) -> None:
        """As the protocol says."""
        self._begin("free_graph")
        if graph.destroyed or self._gpu.in_use(id(graph)):
            raise self._gpu.violate("a graph is destroyed twice, or while it runs")
        graph.destroyed = True
        self._died("graph")

    def synchronize(self) -> None:
        """As the protocol says."""
        self._begin("synchronize")
        self._gpu.wait(self.stream)

    def memory_bytes(self) -> tuple[int, int]:
        """As the protocol says."""
        used = sum(part.nbytes for part in self._gpu.memory.values())
        return 2**30 - used, 2**30

    def close(self) -> None:
        """As the protocol says: nothing may be left."""
        if self._work.pending:
            raise self._gpu.violate("the stream is destroyed while work is pending")
        if left := +self._own - Counter({"host buffer": self._own["host buffer"]}):
            raise self._gpu.violate(f"the stream is destroyed before {dict(left)}")
        if self._work.users:
            raise self._gpu.violate("the stream is destroyed before the contexts that ran on it")
        del self._gpu.streams[self.stream]
        self._gpu.died("stream")
