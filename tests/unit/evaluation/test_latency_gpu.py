"""Candidates that keep time on a device, and the GPU that is watched around them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from riformer_deploy.backends.base import Candidate, DeviceTimes, Outputs, Runtime, WarmTime
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.common.enums import Role
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.common.serialization import dump_json, load_json
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation import latency
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.latency import measure_latency
from riformer_deploy.evaluation.results import InputImages, LatencyResult, Timing
from riformer_deploy.system.records import GpuState
from tests.candidates import labelled

ROUNDS = 5
WARM_UP = 2
OPTIONS = BenchOptions(batches=(2,), rounds=ROUNDS, repeats=3, warmup=WARM_UP, threads=1)
IMAGES = np.zeros((2, 3, 8, 8), dtype=np.float32)
INPUTS = InputImages(description="zeros", image_size_px=(8, 8), batches=(2,), seed=None)
COOL = GpuState(
    name="Fake L4",
    driver="580.1",
    sm_clock_mhz=1200,
    sm_clock_max_mhz=1980,
    memory_clock_mhz=3201,
    temperature_c=41,
    power_w=None,
    memory_used_bytes=7,
    throttling=(),
)
HOT = replace(COOL, throttling=("HwThermalSlowdown",))


@dataclass
class OnDevice(Runtime):
    """Each inference takes a millisecond more than the one before; copies take as long as they take."""

    fails_at: int | None = None
    log: list[str] = field(default_factory=list)
    first_ms: float = 10.0
    step_ms: float = 1.0
    unhidden: tuple[int, ...] = ()
    inferences: list[int] = field(default_factory=list)

    def run(self, images: Images) -> Outputs:
        self.log.append("call")
        return {"logits": np.zeros((len(images), 2))}

    def device_times(self, images: Images) -> DeviceTimes:
        assert len(images) == 2
        number = self.log.count("device")
        if number == self.fails_at:
            raise RuntimeFailureError("the GPU fell off the bus")
        self.log.append("device")
        return DeviceTimes(
            staging_ms=0.125,
            to_device_ms=0.25,
            compute_ms=self.first_ms + number * self.step_ms,
            to_host_ms=0.5,
            launch_hidden=number not in self.unhidden,
        )

    def warm_time(self, images: Images, inferences: int) -> WarmTime:
        assert len(images) == 2
        self.log.append("warm")
        self.inferences.append(inferences)
        return WarmTime(compute_ms=8.0, launch_hidden=not self.unhidden)

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        raise NotImplementedError

    def close(self) -> None:
        self.log.append("closed")


class OnHost(Runtime):
    """Keeps no time."""

    def run(self, images: Images) -> Outputs:
        return {"logits": np.zeros((len(images), 2))}

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing."""


def _candidate(name: str, runtime: Runtime) -> Candidate:
    return Candidate(config=labelled(name), artifact_sha256="ab", open=lambda: runtime)


LOST = "failed in round 2: the GPU fell off the bus"
Readings = list[tuple[GpuState | None, str | None]]


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    """What the GPU says before, under load, and after."""
    said: Readings = [(COOL, None)] * 3
    monkeypatch.setattr(latency, "read_gpu", lambda: said.pop(0))
    return said


def _measure(*candidates: Candidate) -> LatencyResult:
    return measure_latency(candidates, IMAGES, INPUTS, OPTIONS)


@pytest.mark.usefixtures("readings")
def test_a_device_gives_a_series_of_each_part() -> None:
    runtime = OnDevice()
    result = _measure(_candidate("D", runtime), _candidate("H", OnHost()))
    series = {(item.name, item.timing): item for item in result.samples}
    assert series.keys() == {("D", timing) for timing in Timing} | {("H", Timing.CALL)}
    count = ROUNDS * OPTIONS.repeats
    assert series["D", Timing.COMPUTE].samples_ms == tuple(10.0 + number for number in range(count))
    assert series["D", Timing.TRANSFERS].samples_ms == (0.75,) * count
    assert series["D", Timing.STAGING].samples_ms == (0.125,) * count
    assert series["D", Timing.COMPUTE_WARM].samples_ms == (8.0,) * ROUNDS
    assert series["D", Timing.COMPUTE_WARM].summary.images_per_s == 2 * 1000 / 8.0
    assert len(series["D", Timing.CALL].samples_ms) == count
    assert series["D", Timing.COMPUTE].summary.median_ms == 10.0 + (count - 1) / 2
    assert runtime.log[:WARM_UP] == ["call"] * WARM_UP
    turn = ["call"] * (1 + OPTIONS.repeats) + ["device"] * OPTIONS.repeats + ["warm"]
    assert runtime.log[WARM_UP:-1] == turn * ROUNDS


@pytest.mark.usefixtures("readings")
@pytest.mark.parametrize(("compute_ms", "inferences"), [(0.01, 8), (2.0, 5), (9.9, 2), (40.0, 1)])
def test_as_many_inferences_run_back_to_back_as_take_ten_milliseconds_but_no_more_than_eight(
    compute_ms: float, inferences: int
) -> None:
    runtime = OnDevice(first_ms=compute_ms, step_ms=0)
    _measure(_candidate("D", runtime))
    assert runtime.inferences == [inferences] * ROUNDS


@pytest.mark.usefixtures("readings")
def test_samples_whose_launching_was_not_hidden_are_counted_in_the_warning_of_their_series() -> None:
    result = _measure(_candidate("D", OnDevice(unhidden=(3, 4), step_ms=0)))
    warnings = {item.timing: item.warning for item in result.samples}
    said = (
        "the host could not launch fast enough in {} of {} samples, so their times contain some of its work"
    )
    assert warnings[Timing.COMPUTE] == said.format(2, 15)
    assert warnings[Timing.COMPUTE_WARM] == said.format(5, 5)
    assert warnings[Timing.TRANSFERS] is warnings[Timing.STAGING] is None


@pytest.mark.usefixtures("readings")
def test_a_series_keeps_the_role_of_its_model() -> None:
    one, other = _candidate("D", OnDevice()), _candidate("B", OnDevice())
    result = _measure(one, replace(other, role=Role.BASELINE))
    assert {(item.name, item.role) for item in result.samples} == {
        ("D", Role.CANDIDATE),
        ("B", Role.BASELINE),
    }
    assert load_json(LatencyResult, dump_json(result)) == result


@pytest.mark.usefixtures("readings")
def test_a_series_that_drifts_on_the_device_carries_its_warning() -> None:
    warnings = {item.timing: item.warning for item in _measure(_candidate("D", OnDevice())).samples}
    assert "the second half is" in str(warnings[Timing.COMPUTE])
    assert warnings[Timing.TRANSFERS] is None


@pytest.mark.usefixtures("readings")
def test_a_device_that_fails_half_way_leaves_no_series_behind() -> None:
    runtime = OnDevice(fails_at=4)
    result = _measure(_candidate("D", runtime), _candidate("H", OnHost()))
    assert [item.name for item in result.samples] == ["H"]
    assert result.skipped == (Skipped(config=labelled("D"), reason=LOST),)
    assert runtime.log.count("closed") == 1


@pytest.mark.usefixtures("readings")
def test_a_device_that_cannot_even_be_closed_does_not_hide_why_it_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Lost(OnDevice):
        def close(self) -> None:
            super().close()
            raise RuntimeFailureError("the driver is gone")

    result = _measure(_candidate("D", Lost(fails_at=4)), _candidate("H", OnHost()))
    assert result.skipped == (Skipped(config=labelled("D"), reason=LOST),)
    assert "could not be closed: the driver is gone" in caplog.text


DOWN = "the GPU's clocks were held down: HwThermalSlowdown"


@pytest.mark.parametrize(
    ("before", "load", "after", "said"),
    [
        ((COOL, None), (COOL, None), (COOL, None), None),
        ((COOL, None), (COOL, None), (HOT, None), DOWN),
        ((COOL, None), (HOT, None), (COOL, None), DOWN),
        ((None, "no NVML"), (None, "no NVML"), (None, "no NVML"), "the GPU's clocks are not known: no NVML"),
        ((COOL, None), (COOL, None), (None, "lost"), "the GPU's clocks are not known: lost"),
    ],
    ids=["cool", "throttled after", "throttled under load", "no NVML", "lost"],
)
def test_the_gpu_is_watched_around_the_measurement(
    readings: Readings,
    caplog: pytest.LogCaptureFixture,
    before: tuple[GpuState | None, str | None],
    load: tuple[GpuState | None, str | None],
    after: tuple[GpuState | None, str | None],
    said: str | None,
) -> None:
    readings[:] = [before, load, after]
    with caplog.at_level(logging.WARNING):
        result = _measure(_candidate("D", OnDevice()))
    assert result.gpu is not None
    assert (result.gpu.before, result.gpu.after) == (before[0], after[0])
    assert result.gpu.under_load == (() if load[0] is None else (load[0],))
    assert result.gpu.warning == said
    assert (said is None) == ("clocks" not in caplog.text)
    assert load_json(LatencyResult, dump_json(result)) == result


def test_no_gpu_is_watched_where_nobody_ran_on_one(readings: Readings) -> None:
    assert _measure(_candidate("H", OnHost())).gpu is None
    assert len(readings) == 2


def test_an_interrupt_while_warming_up_closes_what_was_opened(readings: Readings) -> None:
    class Interrupted(OnDevice):
        def run(self, images: Images) -> Outputs:
            raise KeyboardInterrupt(len(images))

    runtime, other = Interrupted(), OnDevice()
    with pytest.raises(KeyboardInterrupt):
        _measure(_candidate("O", other), _candidate("D", runtime))
    assert runtime.log == ["closed"]
    assert other.log[-1] == "closed"
    assert readings
