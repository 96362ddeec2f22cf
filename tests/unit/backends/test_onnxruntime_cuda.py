"""ONNX Runtime on memory of ours; its CPU provider on a device whose memory is the host's stands for CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riformer_deploy.api.export import ExportOptions, export_checkpoint
from riformer_deploy.backends.base import DeviceTimed
from riformer_deploy.backends.onnxruntime import CPU_PROVIDER, OnnxRuntime
from riformer_deploy.backends.onnxruntime_cuda import CudaOnnxRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import InputForm, OutputForm, Precision
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.synthetic import synthetic_images
from tests.fakes.host_device import HostDevice

SIZE = (64, 48)


@pytest.fixture(scope="module")
def path(tiny_bundle: Path) -> Path:
    return next(tiny_bundle.glob("*.onnx"))


def opened(path: Path) -> tuple[CudaOnnxRuntime, HostDevice]:
    device = HostDevice()
    return CudaOnnxRuntime(path, device, provider=CPU_PROVIDER), device


def test_every_batch_gives_exactly_what_an_ordinary_session_gives(path: Path) -> None:
    runtime, _ = opened(path)
    plain = OnnxRuntime(path)
    for seed, batch in enumerate((2, 1, 3, 8, 2)):
        images = synthetic_images(batch, SIZE, seed=seed)
        found = runtime.run(images)
        assert list(found) == ["logits"]
        np.testing.assert_array_equal(found["logits"], plain.run(images)["logits"])
    runtime.close()


def test_results_stay_as_they_are_when_the_next_images_come(path: Path) -> None:
    runtime, _ = opened(path)
    first = runtime.run(synthetic_images(2, SIZE, seed=0))["logits"]
    before = first.copy()
    runtime.run(synthetic_images(2, SIZE, seed=1))
    np.testing.assert_array_equal(first, before)
    runtime.close()


@pytest.mark.slow
def test_half_and_integer_outputs_are_bound_as_what_they_are(tmp_path: Path, tiny_checkpoint: Path) -> None:
    options = ExportOptions(
        checkpoint=tiny_checkpoint,
        output=tmp_path / "bundle",
        image_size_px=SIZE,
        lowerings=(
            LoweringConfig(
                precision=Precision.FP16,
                io=Precision.FP16,
                output_form=OutputForm.TOPK,
                topk=3,
                input_form=InputForm.UINT8,
            ),
        ),
    )
    assert export_checkpoint(options).bundle is not None
    path = tmp_path / "bundle" / "model.fp16.onnx"
    pixels: Any = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    runtime, _ = opened(path)
    found, expected = runtime.run(pixels), OnnxRuntime(path).run(pixels)
    assert {name: value.dtype for name, value in found.items()} == {"scores": np.float16, "labels": np.int64}
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    runtime.close()


def test_it_keeps_time_as_engines_do(path: Path) -> None:
    runtime, _ = opened(path)
    assert isinstance(runtime, DeviceTimed)
    times = runtime.device_times(synthetic_images(2, SIZE, seed=0))
    assert min(times.staging_ms, times.to_device_ms, times.compute_ms, times.to_host_ms) > 0
    assert not times.launch_hidden  # a host cannot hide anything
    assert runtime.warm_time(synthetic_images(2, SIZE, seed=0), 3).compute_ms > 0
    runtime.close()


def test_closing_frees_everything_once(path: Path) -> None:
    runtime, device = opened(path)
    runtime.run(synthetic_images(2, SIZE, seed=0))
    runtime.run(synthetic_images(3, SIZE, seed=0))
    runtime.device_times(synthetic_images(1, SIZE, seed=0))
    runtime.close()
    runtime.close()
    assert device.live == {}
    assert device.closed
    with pytest.raises(RuntimeFailureError, match="was closed"):
        runtime.run(synthetic_images(2, SIZE, seed=0))


def test_a_refused_shape_is_named_and_leaves_nothing_behind(path: Path) -> None:
    runtime, device = opened(path)
    with pytest.raises(RuntimeFailureError, match=r"images of shape \(2, 3, 32, 48\)"):
        runtime.run(synthetic_images(2, (32, 48), seed=0))
    images = synthetic_images(2, SIZE, seed=0)
    np.testing.assert_array_equal(runtime.run(images)["logits"], OnnxRuntime(path).run(images)["logits"])
    runtime.close()
    assert device.live == {}


def test_a_file_that_does_not_load_closes_the_device(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a graph")
    device = HostDevice()
    with pytest.raises(RuntimeFailureError, match="cannot load"):
        CudaOnnxRuntime(broken, device, provider=CPU_PROVIDER)
    assert device.closed
    assert device.live == {}


def test_the_cuda_provider_that_does_not_start_is_an_error_and_closes_the_device(path: Path) -> None:
    device = HostDevice()
    with pytest.raises(RuntimeFailureError, match="CUDAExecutionProvider"):
        CudaOnnxRuntime(path, device)
    assert device.closed
