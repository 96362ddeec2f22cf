"""Clocks, temperature and throttling of the GPU, asked of NVML around a measurement."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from riformer_deploy.errors import MissingDependencyError
from riformer_deploy.optional import require

_PREFIX = "nvmlClocksEventReason"
_HARMLESS = ("None", "GpuIdle", "ApplicationsClocksSetting")
"""No reason at all, nothing to do, and clocks that somebody set."""


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """The first GPU at a moment.

    Attributes:
        name: As the driver gives it.
        driver: Version of the driver.
        sm_clock_mhz: Clock of the multiprocessors.
        sm_clock_max_mhz: The highest it can be.
        memory_clock_mhz: Clock of the memory.
        temperature_c: Of the chip.
        power_w: Drawn now, or None where the GPU does not say.
        memory_used_bytes: By everybody.
        throttling: Why clocks are below what they could be, by NVML's names; idling is no reason.
    """

    name: str
    driver: str
    sm_clock_mhz: int
    sm_clock_max_mhz: int
    memory_clock_mhz: int
    temperature_c: int
    power_w: float | None
    memory_used_bytes: int
    throttling: tuple[str, ...]


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _reasons(nvml: Any, bits: int) -> tuple[str, ...]:
    """Names of the set bits."""
    named = {name.removeprefix(_PREFIX): getattr(nvml, name) for name in _names(nvml)}
    harmless = {named[name] for name in _HARMLESS if name in named}  # some bits have two names
    single = {value: name for name, value in named.items() if value.bit_count() == 1}
    return tuple(name for value, name in single.items() if bits & value and value not in harmless)


@functools.cache
def _names(nvml: Any) -> tuple[str, ...]:
    return tuple(name for name in dir(nvml) if name.startswith(_PREFIX))


def _read(nvml: Any) -> GpuState:
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    try:
        power = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
    except nvml.NVMLError:
        power = None
    return GpuState(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        driver=_text(nvml.nvmlSystemGetDriverVersion()),
        sm_clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        sm_clock_max_mhz=nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        memory_clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        temperature_c=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        power_w=power,
        memory_used_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
        throttling=_reasons(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)),
    )


@dataclass(frozen=True, kw_only=True)
class GpuWatch:
    """The first GPU around a measurement.

    Attributes:
        before: The GPU before it, or None where it could not be asked.
        after: The GPU after it, likewise.
        under_load: The GPU right after each series of timed calls.
        problem: Why it could not be asked, or None.
    """

    before: GpuState | None
    after: GpuState | None
    problem: str | None
    under_load: tuple[GpuState, ...] = ()

    @property
    def warning(self) -> str | None:
        """What to warn of: reasons that held the clocks down, or that nobody could look."""
        if self.problem is not None:
            return f"the GPU's clocks are not known: {self.problem}"
        states = [state for state in (self.before, *self.under_load, self.after) if state is not None]
        reasons = sorted({reason for state in states for reason in state.throttling})
        return f"the GPU's clocks were held down: {', '.join(reasons)}" if reasons else None


def read_gpu() -> tuple[GpuState | None, str | None]:
    """The first GPU now, and, where it cannot be asked, the reason in words."""
    try:
        nvml = require("pynvml")
    except MissingDependencyError as err:
        return None, err.message
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as err:
        return None, f"NVML: {err}"
    try:
        return _read(nvml), None
    except nvml.NVMLError as err:
        return None, f"NVML: {err}"
    finally:
        nvml.nvmlShutdown()
