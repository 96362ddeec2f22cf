from __future__ import annotations

import ast
import inspect
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from riformer_deploy import gpu_state
from riformer_deploy.errors import MissingDependencyError
from riformer_deploy.gpu_state import GpuState, GpuWatch, read_gpu

IDLE, USER, POWER_CAP, HEAT = 0x1, 0x2, 0x4, 0x40


class FakeNvml:
    """pynvml of a machine with one GPU, whose clocks are held down for the given reasons."""

    class NVMLError(Exception):
        """NVML's root of errors."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    nvmlClocksEventReasonNone = 0x0  # noqa: N815 (NVML's names, as those below)
    nvmlClocksEventReasonGpuIdle = IDLE  # noqa: N815
    nvmlClocksEventReasonApplicationsClocksSetting = USER  # noqa: N815
    nvmlClocksEventReasonUserDefinedClocks = USER  # noqa: N815
    nvmlClocksEventReasonSwPowerCap = POWER_CAP  # noqa: N815
    nvmlClocksEventReasonHwThermalSlowdown = HEAT  # noqa: N815
    nvmlClocksEventReasonAll = 0x47  # noqa: N815

    def __init__(self, reasons: int = 0, failing: str = "", *, as_bytes: bool = False) -> None:
        self.reasons, self.failing, self.as_bytes = reasons, failing, as_bytes
        self.open = 0

    def _asked(self, name: str, value: Any) -> Any:
        if name == self.failing:
            raise self.NVMLError(f"{name} is not supported")
        if name != "nvmlInit":
            assert self.open == 1
        return value

    def nvmlInit(self) -> None:  # noqa: N802
        self._asked("nvmlInit", None)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        assert index == 0
        return str(self._asked("nvmlDeviceGetHandleByIndex", "handle"))

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return int(self._asked("nvmlDeviceGetPowerUsage", 123_456 if handle else 0))

    def nvmlDeviceGetName(self, handle: str) -> str | bytes:  # noqa: N802
        assert handle
        return b"NVIDIA H200" if self.as_bytes else "NVIDIA H200"

    def nvmlSystemGetDriverVersion(self) -> str | bytes:  # noqa: N802
        return b"580.1" if self.as_bytes else "580.1"

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        assert handle
        return {self.NVML_CLOCK_SM: 1200, self.NVML_CLOCK_MEM: 3201}[kind]

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        assert handle
        return {self.NVML_CLOCK_SM: 1980}[kind]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        assert handle
        assert sensor == self.NVML_TEMPERATURE_GPU
        return int(self._asked("nvmlDeviceGetTemperature", 41))

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        assert handle
        return SimpleNamespace(used=7, free=3, total=10)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        assert handle
        return self.reasons


STATE = GpuState(
    name="NVIDIA H200",
    driver="580.1",
    sm_clock_mhz=1200,
    sm_clock_max_mhz=1980,
    memory_clock_mhz=3201,
    temperature_c=41,
    power_w=123.456,
    memory_used_bytes=7,
    throttling=(),
)


def _install(monkeypatch: pytest.MonkeyPatch, nvml: Any) -> None:
    monkeypatch.setattr(gpu_state, "require", lambda _: nvml)


@pytest.mark.parametrize("as_bytes", [False, True], ids=["text", "bytes, as older versions"])
def test_the_first_gpu_is_read(monkeypatch: pytest.MonkeyPatch, *, as_bytes: bool) -> None:
    nvml = FakeNvml(as_bytes=as_bytes)
    _install(monkeypatch, nvml)
    assert read_gpu() == (STATE, None)
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0, ()),
        (IDLE, ()),
        (USER, ()),
        (POWER_CAP, ("SwPowerCap",)),
        (HEAT | POWER_CAP | IDLE | USER, ("HwThermalSlowdown", "SwPowerCap")),
        (0x100, ()),
    ],
    ids=["none", "idle", "clocks set by the user", "power", "several", "unknown"],
)
def test_what_holds_clocks_down_is_named_and_idling_or_the_users_own_setting_is_not(
    monkeypatch: pytest.MonkeyPatch, bits: int, reasons: tuple[str, ...]
) -> None:
    _install(monkeypatch, FakeNvml(bits))
    assert read_gpu() == (replace(STATE, throttling=reasons), None)


def test_a_gpu_that_does_not_tell_its_power_is_read_without(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, FakeNvml(failing="nvmlDeviceGetPowerUsage"))
    assert read_gpu() == (replace(STATE, power_w=None), None)


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetTemperature"])
def test_what_nvml_refuses_is_a_reason_and_it_is_left_in_order(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    nvml = FakeNvml(failing=call)
    _install(monkeypatch, nvml)
    assert read_gpu() == (None, f"NVML: {call} is not supported")
    assert nvml.open == 0


def test_without_the_package_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise MissingDependencyError("nvidia-ml-py is not installed.")

    monkeypatch.setattr(gpu_state, "require", missing)
    assert read_gpu() == (None, "nvidia-ml-py is not installed.")


HOT = replace(STATE, throttling=("HwThermalSlowdown",))
CAPPED = replace(STATE, throttling=("SwPowerCap", "HwThermalSlowdown"))


@pytest.mark.parametrize(
    ("before", "after", "problem", "said"),
    [
        (STATE, STATE, None, None),
        (STATE, HOT, None, "the GPU's clocks were held down: HwThermalSlowdown"),
        (HOT, CAPPED, None, "the GPU's clocks were held down: HwThermalSlowdown, SwPowerCap"),
        (None, None, "NVML: no", "the GPU's clocks are not known: NVML: no"),
        (STATE, None, "NVML: lost", "the GPU's clocks are not known: NVML: lost"),
    ],
)
def test_a_watch_warns_of_what_held_clocks_down_or_that_nobody_could_look(
    before: GpuState | None, after: GpuState | None, problem: str | None, said: str | None
) -> None:
    assert GpuWatch(before=before, after=after, problem=problem).warning == said


def _used(source: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "nvml"}


def test_every_name_that_is_used_exists_in_nvmls_package() -> None:
    nvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed (extra dev)")
    names = _used(inspect.getsource(gpu_state))
    assert len(names) >= 14
    assert [name for name in sorted(names) if not hasattr(nvml, name)] == []
    assert names <= set(dir(FakeNvml))
    reasons = {name for name in dir(FakeNvml) if name.startswith(gpu_state._PREFIX)}
    for name in reasons - {f"{gpu_state._PREFIX}All"}:
        assert getattr(nvml, name) == getattr(FakeNvml, name), name
    assert {f"{gpu_state._PREFIX}{name}" for name in gpu_state._HARMLESS} <= set(dir(nvml))


def test_the_real_package_without_a_gpu_gives_a_reason() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed (extra dev)")
    state, problem = read_gpu()
    assert (state is None) == (problem is not None)
    assert problem is None or problem.startswith("NVML: ")
