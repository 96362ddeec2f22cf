"""Clocks, temperature and throttling of the GPU, asked of NVML around a measurement."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import MissingDependencyError
from riformer_deploy.system.cuda_driver import Gpu, query_driver
from riformer_deploy.system.records import GpuState

_Value = TypeVar("_Value")
_PREFIX = "nvmlClocksEventReason"
_HARMLESS = ("None", "GpuIdle", "ApplicationsClocksSetting")
"""No reason at all, nothing to do, and clocks that somebody set."""


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


def _handle(nvml: Any, gpu: Gpu) -> Any:
    """NVML's handle of one of CUDA's GPUs, whose numbers are not NVML's (CUDA_VISIBLE_DEVICES)."""
    if gpu.pci_address is not None:
        return nvml.nvmlDeviceGetHandleByPciBusId(gpu.pci_address)
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{gpu.uuid}")


def _read(nvml: Any, gpu: Gpu) -> GpuState:
    handle = _handle(nvml, gpu)

    def field(read: Callable[[], _Value]) -> _Value | None:
        try:
            return read()
        except nvml.NVMLError:  # NotSupported, NoPermission: this GPU, or its container, keeps it to itself
            return None

    def clock(kind: int) -> int | None:
        return field(lambda: int(nvml.nvmlDeviceGetClockInfo(handle, kind)))

    return GpuState(
        name=field(lambda: _text(nvml.nvmlDeviceGetName(handle))),
        driver=field(lambda: _text(nvml.nvmlSystemGetDriverVersion())),
        sm_clock_mhz=clock(nvml.NVML_CLOCK_SM),
        sm_clock_max_mhz=field(lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM))),
        memory_clock_mhz=clock(nvml.NVML_CLOCK_MEM),
        temperature_c=field(lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        power_w=field(lambda: float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1000),
        memory_used_bytes=field(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used)),
        throttling=field(lambda: _reasons(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))),
        mig=gpu.name if field(lambda: _is_divided(nvml, handle)) else None,
    )


def _is_divided(nvml: Any, handle: Any) -> bool:
    current, _after_reset = nvml.nvmlDeviceGetMigMode(handle)
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def read_gpu() -> tuple[GpuState | None, str | None]:
    """CUDA's first GPU now, and, where it cannot be asked, the reason in words."""
    try:
        nvml = require("pynvml")
    except MissingDependencyError as err:
        return None, err.message
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as err:
        return None, f"NVML: {err}"
    try:
        driver = query_driver()
        if not driver.gpus:
            return None, driver.problem
        if driver.gpus[0].pci_address is None and driver.gpus[0].uuid is None:
            return None, "the driver does not say which GPU is CUDA's first"
        return _read(nvml, driver.gpus[0]), None
    except nvml.NVMLError as err:
        return None, f"NVML: {err}"
    finally:
        nvml.nvmlShutdown()
