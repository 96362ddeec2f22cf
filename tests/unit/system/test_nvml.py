from __future__ import annotations

import ast
import inspect
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from riformer_deploy.common.errors import MissingDependencyError
from riformer_deploy.system import nvml as module
from riformer_deploy.system.cuda_driver import Driver, Gpu
from riformer_deploy.system.nvml import read_gpu
from riformer_deploy.system.records import GpuState, GpuWatch

GPU = Gpu(
    name="NVIDIA H200 MIG 1g.18gb",
    compute_capability="9.0",
    memory_bytes=10,
    pci_address="0000:3b:00.0",
    uuid="00010203-0405-0607-0809-0a0b0c0d0e0f",
)
IDLE, USER, POWER_CAP, HEAT = 0x1, 0x2, 0x4, 0x40


class FakeNvml:
    """pynvml of a machine with one GPU, whose clocks are held down for the given reasons."""

    class NVMLError(Exception):
        """NVML's root of errors."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_DEVICE_MIG_ENABLE = 1, 2, 0, 1
    nvmlClocksEventReasonNone = 0x0  # noqa: N815 (NVML's names, as those below)
    nvmlClocksEventReasonGpuIdle = IDLE  # noqa: N815
    nvmlClocksEventReasonApplicationsClocksSetting = USER  # noqa: N815
    nvmlClocksEventReasonUserDefinedClocks = USER  # noqa: N815
    nvmlClocksEventReasonSwPowerCap = POWER_CAP  # noqa: N815
    nvmlClocksEventReasonHwThermalSlowdown = HEAT  # noqa: N815
    nvmlClocksEventReasonAll = 0x47  # noqa: N815

    def __init__(self, reasons: int = 0, failing: str = "", *, as_bytes: bool = False) -> None:
        self.reasons, self.failing, self.as_bytes = reasons, failing, as_bytes
        self.mig = 0
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

    def nvmlDeviceGetHandleByPciBusId(self, pciBusId: str) -> str:  # noqa: N802, N803
        assert pciBusId == GPU.pci_address
        return str(self._asked("nvmlDeviceGetHandleByPciBusId", "handle"))

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        assert uuid == f"GPU-{GPU.uuid}"
        return str(self._asked("nvmlDeviceGetHandleByUUID", "handle"))

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        assert handle
        return list(self._asked("nvmlDeviceGetMigMode", [self.mig, 0]))

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return int(self._asked("nvmlDeviceGetPowerUsage", 123_456 if handle else 0))

    def nvmlDeviceGetName(self, handle: str) -> str | bytes:  # noqa: N802
        assert handle
        value: str | bytes = b"NVIDIA H200" if self.as_bytes else "NVIDIA H200"
        self._asked("nvmlDeviceGetName", None)
        return value

    def nvmlSystemGetDriverVersion(self) -> str | bytes:  # noqa: N802
        value: str | bytes = b"580.1" if self.as_bytes else "580.1"
        self._asked("nvmlSystemGetDriverVersion", None)
        return value

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        assert handle
        clocks = {self.NVML_CLOCK_SM: 1200, self.NVML_CLOCK_MEM: 3201}
        return int(self._asked("nvmlDeviceGetClockInfo", clocks[kind]))

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        assert handle
        return int(self._asked("nvmlDeviceGetMaxClockInfo", {self.NVML_CLOCK_SM: 1980}[kind]))

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        assert handle
        assert sensor == self.NVML_TEMPERATURE_GPU
        return int(self._asked("nvmlDeviceGetTemperature", 41))

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        assert handle
        return self._asked("nvmlDeviceGetMemoryInfo", SimpleNamespace(used=7, free=3, total=10))

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        assert handle
        return int(self._asked("nvmlDeviceGetCurrentClocksEventReasons", self.reasons))


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


def _install(monkeypatch: pytest.MonkeyPatch, nvml: Any, *gpus: Gpu) -> None:
    driver = Driver(cuda_version="13.0", gpus=gpus or (GPU,), problem=None)
    monkeypatch.setattr(module, "require", lambda _: nvml)
    monkeypatch.setattr(module, "query_driver", lambda: driver)


@pytest.mark.parametrize("as_bytes", [False, True], ids=["text", "bytes, as older versions"])
def test_the_first_gpu_of_cuda_is_read(monkeypatch: pytest.MonkeyPatch, *, as_bytes: bool) -> None:
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


FIELDS = {
    "nvmlDeviceGetName": ("name",),
    "nvmlSystemGetDriverVersion": ("driver",),
    "nvmlDeviceGetClockInfo": ("sm_clock_mhz", "memory_clock_mhz"),
    "nvmlDeviceGetMaxClockInfo": ("sm_clock_max_mhz",),
    "nvmlDeviceGetTemperature": ("temperature_c",),
    "nvmlDeviceGetPowerUsage": ("power_w",),
    "nvmlDeviceGetMemoryInfo": ("memory_used_bytes",),
    "nvmlDeviceGetCurrentClocksEventReasons": ("throttling",),
    "nvmlDeviceGetMigMode": (),
}


@pytest.mark.parametrize("call", FIELDS)
def test_what_a_gpu_does_not_tell_is_left_out_and_the_rest_is_read(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    nvml = FakeNvml(failing=call)
    _install(monkeypatch, nvml)
    lost: dict[str, Any] = dict.fromkeys(FIELDS[call])
    assert read_gpu() == (replace(STATE, **lost), None)
    assert nvml.open == 0


def test_a_gpu_whose_pci_address_is_not_known_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, FakeNvml(failing="nvmlDeviceGetHandleByPciBusId"), replace(GPU, pci_address=None))
    assert read_gpu() == (STATE, None)


def test_a_gpu_that_cannot_be_told_from_others_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    _install(monkeypatch, nvml, replace(GPU, pci_address=None, uuid=None))
    assert read_gpu() == (None, "the driver does not say which GPU is CUDA's first")
    assert nvml.open == 0


def test_a_driver_without_a_gpu_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, FakeNvml())
    monkeypatch.setattr(
        module, "query_driver", lambda: Driver(cuda_version="13.0", gpus=(), problem="it sees none")
    )
    assert read_gpu() == (None, "it sees none")


def test_an_instance_of_a_divided_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    nvml.mig = nvml.NVML_DEVICE_MIG_ENABLE
    _install(monkeypatch, nvml)
    assert read_gpu() == (replace(STATE, mig="NVIDIA H200 MIG 1g.18gb"), None)


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetHandleByPciBusId"])
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

    monkeypatch.setattr(module, "require", missing)
    assert read_gpu() == (None, "nvidia-ml-py is not installed.")


HOT = replace(STATE, throttling=("HwThermalSlowdown",))
MUTE = replace(STATE, throttling=None)
CAPPED = replace(STATE, throttling=("SwPowerCap", "HwThermalSlowdown"))


@pytest.mark.parametrize(
    ("before", "after", "problem", "said"),
    [
        (STATE, STATE, None, None),
        (STATE, HOT, None, "the GPU's clocks were held down: HwThermalSlowdown"),
        (HOT, CAPPED, None, "the GPU's clocks were held down: HwThermalSlowdown, SwPowerCap"),
        (None, None, "NVML: no", "the GPU's clocks are not known: NVML: no"),
        (STATE, None, "NVML: lost", "the GPU's clocks are not known: NVML: lost"),
        (STATE, MUTE, None, "the GPU does not say whether its clocks were held down"),
        (HOT, MUTE, None, "the GPU's clocks were held down: HwThermalSlowdown"),
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
    names = _used(inspect.getsource(module))
    assert len(names) >= 14
    assert [name for name in sorted(names) if not hasattr(nvml, name)] == []
    assert names <= set(dir(FakeNvml))
    reasons = {name for name in dir(FakeNvml) if name.startswith(module._PREFIX)}
    for name in reasons - {f"{module._PREFIX}All"}:
        assert getattr(nvml, name) == getattr(FakeNvml, name), name
    assert {f"{module._PREFIX}{name}" for name in module._HARMLESS} <= set(dir(nvml))


def test_the_real_package_without_a_gpu_gives_a_reason() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed (extra dev)")
    state, problem = read_gpu()
    assert (state is None) == (problem is not None)
    assert problem is None or problem.startswith("NVML: ")
