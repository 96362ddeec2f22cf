"""Parts of an inference on the fake device's clock, and the filling that hides launching."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from riformer_deploy.backends.cuda.base import DeviceBuffer
from riformer_deploy.backends.timing import (
    EVENTS,
    OCCUPYING_DOUBLINGS,
    OCCUPYING_REPEATS,
    Inference,
    StreamTimer,
)
from tests.fakes.gpu import (
    CLEAR_MS,
    COMPUTE_MS,
    COPY_TO_DEVICE_MS,
    COPY_TO_HOST_MS,
    FakeDevice,
    FakeGpu,
    Operation,
)

FILLING_MS = OCCUPYING_REPEATS * CLEAR_MS


class Rig:
    """A timer on a fake device, and an inference whose steps are logged where they reach the stream."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, self.device = gpu, FakeDevice(gpu)
        self.memory: DeviceBuffer = self.device.allocate(8)
        self.host = self.device.allocate_host(8)
        self.events = [self.device.event() for _ in range(EVENTS)]
        self.timer = StreamTimer(self.device, self.events, lambda: self.device.clear(self.memory))

    def _compute(self) -> str:
        self.gpu.log.append("compute")
        stream = self.gpu.stream(self.device.stream)
        stream.put(Operation(work=lambda: None, duration_ms=COMPUTE_MS))
        return "results"

    def _fetch(self, results: str) -> None:
        assert results == "results"
        self.gpu.log.append("fetch")
        self.device.to_host(self.host, self.memory)

    def _logged(self, name: str, step: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            self.gpu.log.append(name)
            step()

        return run

    @property
    def inference(self) -> Inference[str]:
        return Inference(
            stage=self._logged("stage", lambda: None),
            send=self._logged("send", lambda: self.device.to_device(self.memory, self.host)),
            compute=self._compute,
            fetch=self._fetch,
        )

    def fillings(self) -> list[int]:
        """How often memory was filled before the kernels of each sample."""
        samples = " ".join(self.gpu.log).split("send")[1:]
        return [sample.partition("compute")[0].count("clear") for sample in samples]


@pytest.fixture
def rig(gpu: FakeGpu) -> Iterator[Rig]:
    """Freed at the end."""
    made = Rig(gpu)
    yield made
    for event in made.events:
        made.device.free_event(event)
    made.device.free(made.memory)
    made.device.free_host(made.host)
    made.device.close()


def test_each_part_has_its_own_window_and_filling_belongs_to_none(rig: Rig) -> None:
    times = rig.timer.cold(rig.inference)
    assert (times.to_device_ms, times.compute_ms, times.to_host_ms) == (
        COPY_TO_DEVICE_MS,
        COMPUTE_MS,
        COPY_TO_HOST_MS,
    )
    assert times.staging_ms > 0
    assert times.launch_hidden
    filling = ["clear"] * OCCUPYING_REPEATS
    assert rig.gpu.log == ["stage", "clear", "send", *filling, "compute", "fetch"]


@pytest.mark.parametrize("count", [1, 5])
def test_a_warm_inference_follows_an_untimed_one_and_is_the_average_of_the_window(
    rig: Rig, count: int
) -> None:
    times = rig.timer.warm(rig.inference, count)
    assert (times.compute_ms, times.launch_hidden) == (COMPUTE_MS, True)
    expected = ["stage", "send", *["clear"] * OCCUPYING_REPEATS, *["compute"] * (1 + count)]
    assert rig.gpu.log == expected


def test_filling_grows_until_launching_is_hidden_and_stays_so(rig: Rig) -> None:
    rig.gpu.launch_ms = COPY_TO_DEVICE_MS + 3 * FILLING_MS
    first, second = rig.timer.cold(rig.inference), rig.timer.cold(rig.inference)
    assert first.launch_hidden
    assert second.launch_hidden
    assert first.compute_ms == second.compute_ms == COMPUTE_MS
    assert rig.fillings() == [OCCUPYING_REPEATS * times for times in (1, 2, 4, 4)]


def test_what_cannot_be_hidden_is_marked_and_not_tried_again(rig: Rig) -> None:
    rig.gpu.launch_ms = 1e9
    assert not rig.timer.cold(rig.inference).launch_hidden
    assert not rig.timer.cold(rig.inference).launch_hidden
    tried = [OCCUPYING_REPEATS * 2**power for power in range(OCCUPYING_DOUBLINGS + 1)]
    assert rig.fillings() == [*tried, OCCUPYING_REPEATS]
    rig.gpu.launch_ms = 0
    assert rig.timer.cold(rig.inference).launch_hidden


def test_back_to_back_inferences_grow_a_filling_of_their_own(rig: Rig) -> None:
    rig.gpu.launch_ms = COPY_TO_DEVICE_MS + FILLING_MS + COMPUTE_MS
    assert rig.timer.warm(rig.inference, 2).launch_hidden
    rig.gpu.launch_ms = 0
    rig.timer.cold(rig.inference)
    assert rig.fillings() == [OCCUPYING_REPEATS * times for times in (1, 2, 1)]
