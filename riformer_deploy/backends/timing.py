"""Times inferences on a device's stream, in the same way for every backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from riformer_deploy.backends.base import DeviceTimes, WarmTime
from riformer_deploy.backends.cuda.base import Device, DeviceBuffer

OCCUPYING_BYTES = 256 * 2**20
"""Device memory that is filled before kernels are timed, so that launching them is hidden behind it; more
than any GPU's L2 cache holds, so that the model's data are not in it any more."""
OCCUPYING_REPEATS = 24
"""How often it is filled at first: about 2 ms on an H200."""
OCCUPYING_DOUBLINGS = 5
"""How often that number is doubled where launching took longer. All of it together with a model's kernels
should fit into the 1024 launches that a stream takes before it makes the host wait."""
EVENTS = 5
"""Events that a :class:`StreamTimer` needs."""

_Results = TypeVar("_Results")
_Times = TypeVar("_Times", DeviceTimes, WarmTime)


class Stream(Protocol):
    """What a timer asks of a stream; :class:`~riformer_deploy.backends.cuda.base.Device` offers it."""

    def record(self, event: Any) -> None:
        """Put the event on the stream."""

    def is_done(self, event: Any) -> bool:
        """Whether the device has reached a recorded event; does not wait."""

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two recorded events."""

    def synchronize(self) -> None:
        """Wait for the stream."""


@dataclass(frozen=True, kw_only=True)
class Inference(Generic[_Results]):
    """The steps of one inference; those after the first put work on the stream and do not wait for it.

    Attributes:
        stage: Copies the images into page-locked memory.
        send: Copies them from there to the device.
        compute: Launches the kernels.
        fetch: Copies what ``compute`` gave into page-locked memory.
    """

    stage: Callable[[], None]
    send: Callable[[], None]
    compute: Callable[[], _Results]
    fetch: Callable[[_Results], None]


class _Filling:
    """How often memory is filled before kernels are timed; grows until launching is hidden behind it.

    What cannot be hidden, such as more launches than a stream takes, is timed behind the first number.
    """

    def __init__(self) -> None:
        self._repeats, self._grows = OCCUPYING_REPEATS, True

    def sample(self, once: Callable[[int], _Times]) -> _Times:
        """One sample, taken again behind twice the filling where launching was not hidden."""
        times = once(self._repeats)
        while self._grows and not times.launch_hidden:
            if self._repeats == OCCUPYING_REPEATS * 2**OCCUPYING_DOUBLINGS:
                self._repeats, self._grows = OCCUPYING_REPEATS, False
            else:
                self._repeats *= 2
                times = once(self._repeats)
        return times


class StreamTimer:
    """Times inferences by events.

    Args:
        stream: Where they run.
        events: ``EVENTS`` of them, which keep time.
        fill: Puts the filling of ``OCCUPYING_BYTES`` of device memory on the stream.
    """

    def __init__(self, stream: Stream, events: list[Any], fill: Callable[[], None]) -> None:
        self._stream, self._events, self._fill = stream, events, fill
        self._cold, self._warm = _Filling(), _Filling()

    def _occupy(self, repeats: int) -> None:
        """Keep the device busy while what comes next is launched, so that launching is not timed."""
        for _ in range(repeats):
            self._fill()

    def cold(self, inference: Inference[_Results]) -> DeviceTimes:
        """Run once; the device's L2 cache holds nothing of the model when the kernels begin.

        Args:
            inference: What to run; a second time or more where launching was not hidden at first.
        """
        return self._cold.sample(lambda repeats: self._cold_once(inference, repeats))

    def _cold_once(self, inference: Inference[_Results], repeats: int) -> DeviceTimes:
        stream = self._stream
        start, sent, begun, computed, fetched = self._events
        before = time.perf_counter()
        inference.stage()
        staging_ms = 1000 * (time.perf_counter() - before)
        self._fill()  # so that the copy is launched, too, while the device is busy
        stream.record(start)
        inference.send()
        stream.record(sent)
        self._occupy(repeats)
        stream.record(begun)
        results = inference.compute()
        hidden = not stream.is_done(begun)
        stream.record(computed)
        inference.fetch(results)
        stream.record(fetched)
        stream.synchronize()
        return DeviceTimes(
            staging_ms=staging_ms,
            to_device_ms=stream.elapsed_ms(start, sent),
            compute_ms=stream.elapsed_ms(begun, computed),
            to_host_ms=stream.elapsed_ms(computed, fetched),
            launch_hidden=hidden,
        )

    def warm(self, inference: Inference[_Results], count: int) -> WarmTime:
        """Run once, then back to back.

        Args:
            inference: What to run; its images are sent once.
            count: How many inferences are timed, at least one.
        """
        return self._warm.sample(lambda repeats: self._warm_once(inference, count, repeats))

    def _warm_once(self, inference: Inference[_Results], count: int, repeats: int) -> WarmTime:
        stream = self._stream
        begun, computed = self._events[:2]
        inference.stage()
        inference.send()
        self._occupy(repeats)
        inference.compute()  # leaves its data in the cache, for those that are timed
        stream.record(begun)
        for _ in range(count):
            inference.compute()
        hidden = not stream.is_done(begun)
        stream.record(computed)
        stream.synchronize()
        return WarmTime(compute_ms=stream.elapsed_ms(begun, computed) / count, launch_hidden=hidden)


class DeviceTimer(StreamTimer):
    """A timer with events and memory of its own on a device's stream.

    Args:
        device: Whose stream; must outlive the timer.

    Raises:
        RuntimeFailureError: The driver makes no events.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._scratch: DeviceBuffer | None = None
        made: list[Any] = []
        super().__init__(device, made, self._clear)
        try:
            while len(made) < EVENTS:
                made.append(device.event())
        except BaseException:
            self.close()
            raise

    def _clear(self) -> None:
        if self._scratch is None:
            self._scratch = self._device.allocate(OCCUPYING_BYTES)
        self._device.clear(self._scratch)

    def close(self) -> None:
        """Free events and memory, each even where another cannot be; the stream must be synchronised."""
        with ExitStack() as last_to_first:
            if self._scratch is not None:
                last_to_first.callback(self._device.free, self._scratch)
                self._scratch = None
            while self._events:
                last_to_first.callback(self._device.free_event, self._events.pop())
