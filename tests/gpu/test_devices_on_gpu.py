"""What engines stand on and are measured against, on a real GPU: memory, events, NVML and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from riformer_deploy.backends.cuda.opening import open_device
from riformer_deploy.backends.pytorch_cuda import CudaPyTorchRuntime
from riformer_deploy.backends.stored_models import model_of, reference
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import installed_version
from riformer_deploy.common.enums import DeviceLayer
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.system.cuda_driver import query_driver
from riformer_deploy.system.nvml import read_gpu


def test_the_driver_and_its_gpu_are_found() -> None:
    driver = query_driver()
    assert driver.problem is None
    assert driver.gpus[0].memory_bytes > 2**30
    assert torch.cuda.get_device_name(0) == driver.gpus[0].name


@pytest.mark.skipif(installed_version("pynvml") is None, reason="nvidia-ml-py is not installed")
def test_clocks_are_read() -> None:
    state, problem = read_gpu()
    assert problem is None
    assert state is not None
    assert state.sm_clock_mhz is not None
    assert state.sm_clock_max_mhz is not None
    assert 0 < state.sm_clock_mhz <= state.sm_clock_max_mhz
    assert state.name == torch.cuda.get_device_name(0)


@pytest.mark.parametrize("layer", list(DeviceLayer), ids=str)
def test_what_is_copied_there_comes_back_and_time_passes(layer: DeviceLayer) -> None:
    if installed_version({"cuda-python": "cuda.bindings"}.get(layer, layer)) is None:
        pytest.skip(f"{layer} is not installed")
    device = open_device(layer)
    try:
        size = 2**20
        there, source, target = device.allocate(size), device.allocate_host(size), device.allocate_host(size)
        start, end = device.event(), device.event()
        source.data[:] = np.arange(size, dtype=np.uint8)
        device.record(start)
        device.to_device(there, source)
        device.to_host(target, there)
        device.record(end)
        device.synchronize()
        assert device.is_done(end)
        np.testing.assert_array_equal(target.data, source.data)
        assert 0 < device.elapsed_ms(start, end) < 1000
        for event in (start, end):
            device.free_event(event)
        device.free(there)
        device.free_host(source)
        device.free_host(target)
    finally:
        device.close()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 2e-2)], ids=str)
def test_baselines_compute_the_references_function(
    tiny_bundle_on_gpu: Bundle, dtype: torch.dtype, tolerance: float, *, compiled: bool
) -> None:
    images = synthetic_images(4, (64, 48), seed=0)
    true = reference(tiny_bundle_on_gpu).open().run(images)["logits"]
    model = model_of(tiny_bundle_on_gpu.directory / "deploy.pth")
    half = dtype is torch.float16
    runtime = CudaPyTorchRuntime(
        model, dtype=dtype, compiled=compiled, channels_last=half, conv_1x1_as_mm=half
    )
    try:
        for _ in range(3):  # a compiled model replays its graph from the third call on
            got = runtime.run(images)["logits"]
            np.testing.assert_allclose(got, true, rtol=0, atol=tolerance * np.abs(true).max())
        times = runtime.device_times(images)
        assert min(times.staging_ms, times.to_device_ms, times.compute_ms, times.to_host_ms) > 0
        assert runtime.warm_time(images, 3).compute_ms > 0
    finally:
        runtime.close()
