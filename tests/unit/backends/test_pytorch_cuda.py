"""PyTorch's GPU runtime on the CPU: what of it asks CUDA for something stands on stand-ins here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from riformer_deploy.backends import pytorch_cuda
from riformer_deploy.backends.base import DeviceTimed
from riformer_deploy.backends.pytorch_cuda import CudaPyTorchRuntime
from riformer_deploy.backends.timing import EVENTS, OCCUPYING_REPEATS
from riformer_deploy.common.enums import CompileMode
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.model.network import RIFormer

IMAGES = synthetic_images(2, (48, 64), seed=1)


class Clock:
    """A stream whose events are a millisecond apart, and of which none is done before it is waited for."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}
        self.ticks = itertools.count()
        self.log: list[str] = []

    def record(self, event: int) -> None:
        self.times[event] = float(next(self.ticks))
        self.log.append("event")

    def is_done(self, event: int) -> bool:
        assert event in self.times
        return False

    def elapsed_ms(self, start: int, end: int) -> float:
        return self.times[end] - self.times[start]

    def synchronize(self) -> None:
        self.log.append("wait")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Of every runtime that is opened; settings of the process are as before afterwards."""
    made, numbers = Clock(), itertools.count()
    monkeypatch.setattr(pytorch_cuda, "_CurrentStream", lambda: made)
    monkeypatch.setattr(pytorch_cuda, "_event", lambda: next(numbers))
    monkeypatch.setattr(pytorch_cuda, "_page_locked", lambda like: torch.empty(like.shape, dtype=like.dtype))
    monkeypatch.setattr(pytorch_cuda, "OCCUPYING_BYTES", 64)
    monkeypatch.setattr(CudaPyTorchRuntime, "_DEVICE", "cpu")
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32
    yield made
    cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32 = before


def _expected(model: RIFormer) -> Any:
    with torch.inference_mode():
        return model(torch.from_numpy(IMAGES)).numpy()


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)], ids=str)
def test_scores_are_the_models_and_images_of_other_shapes_and_values_follow(
    tiny_model: RIFormer, dtype: torch.dtype, tolerance: float, *, channels_last: bool
) -> None:
    expected = _expected(tiny_model)
    atol = tolerance * np.abs(expected).max()
    runtime = CudaPyTorchRuntime(tiny_model, dtype=dtype, channels_last=channels_last)
    first = runtime.run(IMAGES)["logits"]
    np.testing.assert_allclose(first, expected, rtol=0, atol=atol)
    assert first.dtype == np.float32
    np.testing.assert_allclose(runtime.run(IMAGES[:1])["logits"], expected[:1], rtol=0, atol=atol)
    runtime.run(-IMAGES)
    np.testing.assert_allclose(first, expected, rtol=0, atol=atol)  # of the caller's own
    tapped = runtime.tap(IMAGES, ["backbone.network.4.1"])["backbone.network.4.1"]
    assert tapped.shape[0] == 2
    runtime.close()


class Layout(nn.Module):
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)
        self.given: list[tuple[torch.dtype, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.given.append((images.dtype, images.is_contiguous(memory_format=torch.channels_last)))
        return images.flatten(1)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_cast_and_layout_are_a_part_of_what_is_timed_as_kernels(
    clock: Clock, dtype: torch.dtype, *, channels_last: bool
) -> None:
    model = Layout()
    runtime = CudaPyTorchRuntime(model, dtype=dtype, channels_last=channels_last)
    seen: list[Tensor] = []
    forward = runtime._forward

    def note(images: Tensor) -> Any:
        seen.append(images)
        return forward(images)

    runtime._forward = note
    runtime.run(IMAGES)
    clock.log.clear()
    runtime.device_times(IMAGES)
    runtime.warm_time(IMAGES, 2)
    assert model.given == [(dtype, channels_last)] * 5
    assert {(images.dtype, images.is_contiguous()) for images in seen} == {(torch.float32, True)}
    assert len({images.data_ptr() for images in seen}) == 1  # where a CUDA graph finds them
    runtime.close()


def test_parts_are_timed_by_events_around_them(clock: Clock, tiny_model: RIFormer) -> None:
    runtime = CudaPyTorchRuntime(tiny_model, dtype=torch.float32)
    assert isinstance(runtime, DeviceTimed)
    filled: list[None] = []
    runtime._timer._fill = lambda: filled.append(None)
    times = runtime.device_times(IMAGES)
    assert (times.to_device_ms, times.compute_ms, times.to_host_ms) == (1.0, 1.0, 1.0)
    assert times.staging_ms > 0
    assert times.launch_hidden
    assert clock.log == ["event"] * EVENTS + ["wait"]
    assert len(filled) == 1 + OCCUPYING_REPEATS  # once before the images are sent
    assert runtime.warm_time(IMAGES, 4).compute_ms == 0.25
    runtime.close()


@pytest.mark.usefixtures("clock")
def test_the_filling_and_buffers_go_with_the_runtime(tiny_model: RIFormer) -> None:
    runtime = CudaPyTorchRuntime(tiny_model, dtype=torch.float32)
    runtime.device_times(IMAGES)
    assert runtime._scratch is not None
    assert runtime._scratch.numel() == 64
    runtime.close()
    assert [runtime._scratch, runtime._staged, runtime._given] == [None] * 3
    for use in (runtime.run, runtime.device_times, lambda images: runtime.warm_time(images, 1)):
        with pytest.raises(RuntimeFailureError, match="was closed"):
            use(IMAGES)


@pytest.mark.usefixtures("clock")
def test_float32_is_never_tf32_and_cudnn_may_choose(tiny_model: RIFormer) -> None:
    CudaPyTorchRuntime(tiny_model, dtype=torch.float32).close()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.benchmark


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("conv_1x1_as_mm", [False, True])
@pytest.mark.parametrize("mode", list(CompileMode))
def test_compiler_options_are_of_one_module_alone(
    tiny_model: RIFormer, monkeypatch: pytest.MonkeyPatch, mode: CompileMode, *, conv_1x1_as_mm: bool
) -> None:
    given: list[dict[str, Any]] = []
    real = torch.compile

    def note(model: nn.Module, **options: Any) -> Any:
        given.append(options)
        real(model, **options)  # whose options PyTorch checks, and compiles nothing yet
        return model

    monkeypatch.setattr(torch, "compile", note)
    runtime = CudaPyTorchRuntime(
        tiny_model, dtype=torch.float32, compiled=True, mode=mode, conv_1x1_as_mm=conv_1x1_as_mm
    )
    runtime.run(IMAGES)
    (options,) = given
    assert options["options"]["triton.cudagraphs"] is True
    assert options["options"]["conv_1x1_as_mm"] is conv_1x1_as_mm
    assert options["options"].get("max_autotune", False) is (mode is CompileMode.MAX_AUTOTUNE)
    assert options["fullgraph"] is True
    assert torch._inductor.config.conv_1x1_as_mm is False
    runtime.close()
