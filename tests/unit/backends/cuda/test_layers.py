"""Every device layer keeps what :class:`Device` promises; the fake device that other tests use does too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from riformer_deploy.backends.cuda.base import Device, DeviceBuffer, HostBuffer
from riformer_deploy.backends.cuda.cuda_python import CudaPythonDevice
from riformer_deploy.backends.cuda.opening import open_device
from riformer_deploy.backends.cuda.pycuda import PyCudaDevice
from riformer_deploy.common.enums import DeviceLayer
from riformer_deploy.common.errors import MissingDependencyError, RuntimeFailureError
from tests.fakes.cuda_runtime import FakeCudaRuntime
from tests.fakes.gpu import FakeDevice, FakeGpu
from tests.fakes.pycuda_driver import FakePyCuda

Open = Callable[[], Device]


@pytest.fixture(params=["fake", *DeviceLayer], ids=str)
def start(request: pytest.FixtureRequest, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens a device of each layer over fake bindings."""
    cuda, pycuda = FakeCudaRuntime(gpu), FakePyCuda(gpu)
    monkeypatch.setattr("riformer_deploy.backends.cuda.cuda_python.require", lambda *_: cuda)
    monkeypatch.setattr("riformer_deploy.backends.cuda.pycuda.require", lambda *_: pycuda)
    return lambda: FakeDevice(gpu) if request.param == "fake" else open_device(request.param)


@pytest.fixture
def device(start: Open) -> Iterator[Device]:
    """One, closed at the end."""
    opened = start()
    yield opened
    opened.close()


def _pair(device: Device, size: int) -> tuple[DeviceBuffer, HostBuffer, HostBuffer]:
    return device.allocate(size), device.allocate_host(size), device.allocate_host(size)


def _free(device: Device, memory: DeviceBuffer, *hosts: HostBuffer) -> None:
    device.free(memory)
    for host in hosts:
        device.free_host(host)


def test_what_is_copied_to_the_device_and_back_is_the_same_once_it_is_waited_for(device: Device) -> None:
    memory, source, target = _pair(device, 1000)
    assert memory.size_bytes == 1000
    assert source.data.shape == (1000,)
    assert source.data.dtype == np.uint8
    assert isinstance(memory.address, int)
    values = np.arange(1000) % 251
    target.data[...] = 7
    source.data[...] = values
    device.to_device(memory, source)
    device.to_host(target, memory)
    assert set(target.data) == {7}
    device.synchronize()
    np.testing.assert_array_equal(target.data, values)
    _free(device, memory, source, target)


def test_device_memory_is_cleared_in_order(device: Device) -> None:
    memory, source, target = _pair(device, 16)
    source.data[...], target.data[...] = 9, 9
    device.to_device(memory, source)
    device.clear(memory)
    device.to_host(target, memory)
    assert target.data.all()
    device.synchronize()
    assert not target.data.any()
    _free(device, memory, source, target)


def test_host_memory_can_be_seen_as_what_it_holds(device: Device) -> None:
    host = device.allocate_host(4 * 6)
    host.data.view(np.float32).reshape(2, 3)[...] = [[1, 2, 3], [4, 5, 6]]
    assert host.data.view(np.float32).sum() == 21
    device.free_host(host)


def test_events_measure_what_lies_between_them(device: Device) -> None:
    memory, source, target = _pair(device, 8)
    events = [device.event() for _ in range(3)]
    device.record(events[0])
    device.to_device(memory, source)
    device.record(events[1])
    device.to_host(target, memory)
    device.to_host(target, memory)
    device.record(events[2])
    both, last = device.elapsed_ms(events[0], events[2]), device.elapsed_ms(events[1], events[2])
    assert both > last > 0
    for event in events:
        device.free_event(event)
    events.clear()
    event = None  # PyCUDA destroys what nobody refers to
    _free(device, memory, source, target)


def test_an_event_is_done_once_the_stream_has_reached_it_and_asking_does_not_wait(device: Device) -> None:
    memory, source, target = _pair(device, 8)
    event = device.event()
    target.data[...] = 7
    source.data[...] = 1
    device.to_device(memory, source)
    device.to_host(target, memory)
    device.record(event)
    assert not device.is_done(event)
    assert set(target.data) == {7}
    device.synchronize()
    assert device.is_done(event)
    device.free_event(event)
    event = None  # PyCUDA destroys what nobody refers to
    _free(device, memory, source, target)


def test_a_captured_graph_runs_when_it_is_launched_and_as_often(device: Device) -> None:
    if not device.captures_graphs:
        with pytest.raises(RuntimeFailureError, match="captures no CUDA graphs"):
            device.capture(lambda: None)
        with pytest.raises(RuntimeFailureError, match="captures no CUDA graphs"):
            device.launch(None)
        device.free_graph(None)
        return
    memory, source, target = _pair(device, 4)

    def work() -> None:
        device.to_device(memory, source)
        device.to_host(target, memory)

    graph = device.capture(work)
    target.data[...] = 0
    device.synchronize()
    assert not target.data.any()
    for value in (3, 5):
        source.data[...] = value
        device.launch(graph)
        device.synchronize()
        assert set(target.data) == {value}
    device.free_graph(graph)
    _free(device, memory, source, target)


def test_a_capture_that_breaks_is_left_and_its_cause_kept(device: Device) -> None:

    def broken() -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError if device.captures_graphs else RuntimeFailureError):
        device.capture(broken)
    device.synchronize()  # which is an error inside a capture
    if device.captures_graphs:
        device.free_graph(device.capture(lambda: None))


def test_free_and_total_memory_are_bytes(device: Device) -> None:
    free, total = device.memory_bytes()
    assert 0 < free <= total


def test_host_memory_may_be_given_back_after_closing(start: Open, gpu: FakeGpu) -> None:
    device = start()
    first, second = device.allocate_host(8), device.allocate_host(8)
    device.close()
    device.free_host(first)
    second.data[...] = 5
    assert set(second.data) == {5}
    device.free_host(second)
    del device, first, second
    gpu.assert_at_rest()


def test_closing_leaves_nothing(start: Open, gpu: FakeGpu) -> None:
    device = start()
    assert device.stream
    assert gpu.live
    device.close()
    del device
    gpu.assert_at_rest()


CALLS: dict[DeviceLayer, list[tuple[str, Callable[[Device], Any]]]] = {
    DeviceLayer.CUDA_PYTHON: [
        ("cudaMalloc", lambda device: device.allocate(8)),
        ("cudaHostAlloc", lambda device: device.allocate_host(8)),
        ("cudaEventCreate", lambda device: device.event()),
        ("cudaStreamSynchronize", lambda device: device.synchronize()),
        ("cudaStreamBeginCapture", lambda device: device.capture(lambda: None)),
        ("cudaStreamEndCapture", lambda device: device.capture(lambda: None)),
        ("cudaGraphInstantiate", lambda device: device.capture(lambda: None)),
    ],
    DeviceLayer.PYCUDA: [
        ("mem_alloc", lambda device: device.allocate(8)),
        ("pagelocked_empty", lambda device: device.allocate_host(8)),
        ("Event", lambda device: device.event()),
        ("synchronize", lambda device: device.synchronize()),
        ("mem_get_info", lambda device: device.memory_bytes()),
    ],
}


@pytest.mark.parametrize(
    ("layer", "call", "use"),
    [(layer, *row) for layer, rows in CALLS.items() for row in rows],
    ids=[row[0] for rows in CALLS.values() for row in rows],
)
def test_what_the_driver_refuses_is_a_runtime_failure_that_names_the_call(
    gpu: FakeGpu,
    monkeypatch: pytest.MonkeyPatch,
    layer: DeviceLayer,
    call: str,
    use: Callable[[Device], Any],
) -> None:
    fakes: dict[DeviceLayer, Any] = {
        DeviceLayer.CUDA_PYTHON: FakeCudaRuntime(gpu),
        DeviceLayer.PYCUDA: FakePyCuda(gpu),
    }
    name = {DeviceLayer.CUDA_PYTHON: "cuda_python", DeviceLayer.PYCUDA: "pycuda"}[layer]
    monkeypatch.setattr(f"riformer_deploy.backends.cuda.{name}.require", lambda *_: fakes[layer])
    device = open_device(layer)
    idle = dict(gpu.live)
    gpu.refusals[call] = 0
    with pytest.raises(RuntimeFailureError, match=f"{call} failed"):
        use(device)
    assert dict(gpu.live) == idle
    device.close()


def test_a_capture_that_breaks_and_cannot_be_ended_keeps_its_cause(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCudaRuntime(gpu)
    cuda.failing = cuda.cudaError_t.cudaErrorStreamCaptureInvalidated
    monkeypatch.setattr("riformer_deploy.backends.cuda.cuda_python.require", lambda *_: cuda)
    device = CudaPythonDevice()
    gpu.refusals["cudaStreamEndCapture"] = 0

    def broken() -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        device.capture(broken)
    device.synchronize()
    device.close()


@pytest.mark.parametrize("call", ["init", "Device", "push", "Stream"])
def test_pycuda_that_does_not_start_leaves_no_context_behind(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    pycuda = FakePyCuda(gpu)
    monkeypatch.setattr("riformer_deploy.backends.cuda.pycuda.require", lambda *_: pycuda)
    gpu.refusals[call] = 0
    with pytest.raises(RuntimeFailureError, match=f"PyCUDA: {call} failed"):
        PyCudaDevice()
    assert not pycuda.current


def test_cuda_that_does_not_start_is_a_runtime_failure(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCudaRuntime(gpu)
    cuda.failing = cuda.cudaError_t.cudaErrorInsufficientDriver
    gpu.refusals["cudaStreamCreateWithFlags"] = 0
    monkeypatch.setattr("riformer_deploy.backends.cuda.cuda_python.require", lambda *_: cuda)
    said = r"cudaStreamCreateWithFlags failed: text of cudaErrorInsufficientDriver"
    with pytest.raises(RuntimeFailureError, match=said):
        CudaPythonDevice()


@pytest.mark.parametrize(
    ("layer", "said"),
    [(DeviceLayer.CUDA_PYTHON, "cuda-bindings is not"), (DeviceLayer.PYCUDA, "pycuda is not")],
)
def test_a_layer_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, layer: DeviceLayer, said: str
) -> None:
    monkeypatch.setattr("riformer_deploy.common.dependencies._installed", lambda _: None)
    with pytest.raises(MissingDependencyError, match=said):
        open_device(layer)
