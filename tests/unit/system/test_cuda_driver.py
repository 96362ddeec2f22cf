from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from riformer_deploy.system import cuda_driver
from riformer_deploy.system.cuda_driver import Driver, Gpu, query_driver

H200 = ("NVIDIA H200", 9, 0, 150_754_820_096)
T4 = ("Tesla T4", 7, 5, 15_655_829_504)
NO_DEVICE, INVALID, STUB = 100, 1, 34


class FakeCuda:
    """libcuda's functions that are called, with CUDA's own conventions: out parameters, error codes."""

    def __init__(
        self, gpus: Sequence[tuple[str, int, int, int]], version: int = 13000, *, init: int = 0
    ) -> None:
        self.gpus = gpus
        self.version = version
        self.init = init
        self.failing: dict[str, int] = {}

    def _failed(self, name: str) -> int:
        return self.failing.get(name, 0)

    def cuDriverGetVersion(self, out: Any) -> int:  # noqa: N802 (libcuda's name, as those below)
        if not (code := self._failed("cuDriverGetVersion")):
            out._obj.value = self.version
        return code

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, out: Any) -> int:  # noqa: N802
        if not (code := self._failed("cuDeviceGetCount")):
            out._obj.value = len(self.gpus)
        return code

    def cuDeviceGet(self, out: Any, index: int) -> int:  # noqa: N802
        out._obj.value = index + 1000  # a handle is not an index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        if not (code := self._failed("cuDeviceGetName")):
            name.value = self.gpus[device.value - 1000][0].encode()[: size - 1]
        return code

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: ctypes.c_int) -> int:  # noqa: N802
        if not (code := self._failed("cuDeviceGetAttribute")):
            out._obj.value = self.gpus[device.value - 1000][{75: 1, 76: 2}[attribute]]
        return code

    def cuDeviceGetPCIBusId(self, address: Any, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        if not (code := self._failed("cuDeviceGetPCIBusId")):
            address.value = f"0000:{device.value - 1000 + 0x3B:02x}:00.0".encode()[: size - 1]
        return code

    def cuDeviceGetUuid_v2(self, out: Any, device: ctypes.c_int) -> int:  # noqa: N802
        if not (code := self._failed("cuDeviceGetUuid_v2")):
            out[:] = bytes(range(15)) + bytes([device.value - 1000])
        return code

    def cuDeviceTotalMem_v2(self, out: Any, device: ctypes.c_int) -> int:  # noqa: N802
        if not (code := self._failed("cuDeviceTotalMem_v2")):
            out._obj.value = self.gpus[device.value - 1000][3]
        return code


def _install(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    monkeypatch.setattr(cuda_driver, "_library", lambda: library)


def test_a_machine_without_the_driver_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_LIBRARIES", ("libcuda-of-nowhere.so.1",))
    driver = query_driver()
    assert (driver.cuda_version, driver.gpus) == (None, ())
    assert driver.problem is not None
    assert "no NVIDIA driver" in driver.problem


@pytest.mark.parametrize(
    ("number", "shown"), [(13000, "13.0"), (12060, "12.6"), (11080, "11.8"), (12120, "12.12")]
)
def test_gpus_are_read_with_all_their_bits(monkeypatch: pytest.MonkeyPatch, number: int, shown: str) -> None:
    _install(monkeypatch, FakeCuda([H200, T4], number))
    assert query_driver() == Driver(
        cuda_version=shown,
        gpus=(
            Gpu(
                name="NVIDIA H200",
                compute_capability="9.0",
                memory_bytes=150_754_820_096,
                pci_address="0000:3b:00.0",
                uuid="00010203-0405-0607-0809-0a0b0c0d0e00",
            ),
            Gpu(
                name="Tesla T4",
                compute_capability="7.5",
                memory_bytes=15_655_829_504,
                pci_address="0000:3c:00.0",
                uuid="00010203-0405-0607-0809-0a0b0c0d0e01",
            ),
        ),
        problem=None,
    )


def test_a_driver_that_sees_no_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, FakeCuda([]))
    assert query_driver() == Driver(cuda_version="13.0", gpus=(), problem="the driver sees no GPU")


def test_a_driver_that_does_not_start_is_told_with_cuda_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, FakeCuda([H200], init=NO_DEVICE))
    driver = query_driver()
    assert (driver.cuda_version, driver.gpus) == ("13.0", ())
    assert driver.problem is not None
    assert "CUDA error 100" in driver.problem


def test_a_stub_library_s_unset_version_is_not_reported_as_cuda_0(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = FakeCuda([], 0, init=STUB)
    stub.failing["cuDriverGetVersion"] = STUB
    _install(monkeypatch, stub)
    driver = query_driver()
    assert driver.cuda_version is None
    assert driver.problem is not None
    assert "CUDA error 34" in driver.problem


@pytest.mark.parametrize("function", ["cuDeviceGetName", "cuDeviceGetAttribute", "cuDeviceTotalMem_v2"])
def test_a_question_that_the_driver_refuses_is_no_figure_of_zero(
    monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    library = FakeCuda([H200])
    library.failing[function] = INVALID
    _install(monkeypatch, library)
    driver = query_driver()
    whole = Gpu(name="NVIDIA H200", compute_capability="9.0", memory_bytes=150_754_820_096)
    assert all(gpu == whole for gpu in driver.gpus)
    assert driver.problem is not None
    assert "CUDA error 1" in driver.problem


@pytest.mark.parametrize(
    ("function", "field"), [("cuDeviceGetPCIBusId", "pci_address"), ("cuDeviceGetUuid_v2", "uuid")]
)
def test_an_address_that_the_driver_refuses_loses_nothing_else(
    monkeypatch: pytest.MonkeyPatch, function: str, field: str
) -> None:
    whole, library = FakeCuda([H200]), FakeCuda([H200])
    _install(monkeypatch, whole)
    expected = query_driver()
    library.failing[function] = INVALID
    _install(monkeypatch, library)
    changed = replace(expected.gpus[0], **{field: None})  # type: ignore[arg-type]
    assert query_driver() == replace(expected, gpus=(changed,))


def test_a_count_that_the_driver_refuses_is_not_called_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCuda([H200])
    library.failing["cuDeviceGetCount"] = INVALID
    _install(monkeypatch, library)
    driver = query_driver()
    assert driver.problem is not None
    assert "CUDA error 1" in driver.problem


def test_a_library_that_lacks_a_function_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, ctypes.CDLL(None))  # the C library: it is one, and has none of CUDA's functions
    driver = query_driver()
    assert driver.gpus == ()
    assert driver.problem
