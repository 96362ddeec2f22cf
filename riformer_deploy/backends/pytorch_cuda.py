"""PyTorch on a GPU, eager or compiled: what engines are measured against."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from riformer_deploy.backends.base import DeviceTimed, DeviceTimes, WarmTime
from riformer_deploy.backends.pytorch import PyTorchRuntime, as_array, as_tuple, failing
from riformer_deploy.backends.timing import EVENTS, OCCUPYING_BYTES, Inference, StreamTimer
from riformer_deploy.common.enums import CompileMode
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.transforms import Images


class _CurrentStream:
    """PyTorch's current stream; :class:`~riformer_deploy.backends.timing.Stream`."""

    def record(self, event: torch.Event) -> None:
        event.record()

    def is_done(self, event: torch.Event) -> bool:
        return event.query()

    def elapsed_ms(self, start: torch.Event, end: torch.Event) -> float:
        return start.elapsed_time(end)

    def synchronize(self) -> None:
        torch.cuda.synchronize()


def _event() -> torch.Event:
    return torch.Event("cuda", enable_timing=True)


def _page_locked(like: Tensor) -> Tensor:
    """Memory on the host for what a tensor holds, in its shape and type."""
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)


class CudaPyTorchRuntime(PyTorchRuntime, DeviceTimed):
    """Runs a module on the first GPU, and keeps time there.

    For the whole process, float32 then means float32, never TF32, and cuDNN chooses convolutions by timing
    them. Images and outputs go through page-locked memory, as those of an engine do.

    Args:
        model: In evaluation mode; it is moved and cast.
        dtype: What it computes in.
        compiled: Run it, and the cast of its images, through ``torch.compile``, as CUDA graphs.
        channels_last: Keep weights and images in NHWC order.
        mode: How it is compiled.
        conv_1x1_as_mm: Compile 1x1 convolutions as matrix products.
    """

    _DEVICE = "cuda"

    def __init__(
        self,
        model: nn.Module,
        *,
        dtype: torch.dtype,
        compiled: bool = False,
        channels_last: bool = False,
        mode: CompileMode = CompileMode.REDUCE_OVERHEAD,
        conv_1x1_as_mm: bool = False,
    ) -> None:
        self._mode, self._conv_1x1_as_mm = mode, conv_1x1_as_mm
        super().__init__(
            model.to(dtype), dtype=dtype, compiled=compiled, device=self._DEVICE, channels_last=channels_last
        )
        self._staged: Tensor | None = None
        self._given: Tensor | None = None
        self._fetched: tuple[Tensor, ...] = ()
        self._scratch: Tensor | None = None
        self._stream = _CurrentStream()
        with failing("cannot prepare the model here"):
            self._timer = StreamTimer(self._stream, [_event() for _ in range(EVENTS)], self._fill)

    def _configure(self) -> None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True

    def _options(self) -> Mapping[str, bool]:
        options: dict[str, bool] = torch._inductor.list_mode_options(self._mode)  # noqa: SLF001
        return {**options, "conv_1x1_as_mm": self._conv_1x1_as_mm}

    def _stage(self, images: Images) -> None:
        """Put the images into page-locked memory; there is some for the last shape."""
        source = torch.from_numpy(images)
        if self._staged is None or (self._staged.shape, self._staged.dtype) != (source.shape, source.dtype):
            self._staged = _page_locked(source)
            self._given = torch.empty_like(source, device=self._device)
            if self._compiled:  # a CUDA graph reads it where it is, as an engine does, and copies nothing
                torch._dynamo.mark_static_address(self._given)  # noqa: SLF001
        self._staged.copy_(source)

    def _send(self) -> Tensor:
        """Copy the images to the device."""
        if self._staged is None or self._given is None:
            raise RuntimeFailureError("No images were staged.")
        return self._given.copy_(self._staged, non_blocking=True)

    def _fetch(self, results: tuple[Tensor, ...]) -> None:
        """Copy outputs into page-locked memory, in which they are once the stream has been waited for."""
        if [(t.shape, t.dtype) for t in self._fetched] != [(t.shape, t.dtype) for t in results]:
            self._fetched = tuple(_page_locked(value) for value in results)
        for target, value in zip(self._fetched, results, strict=True):
            target.copy_(value, non_blocking=True)

    def _load_batches(self, images: Images) -> Tensor:
        self._stage(images)
        return self._send()

    def _arrays(self, results: tuple[Tensor, ...]) -> list[np.ndarray]:
        self._fetch(results)
        self._stream.synchronize()
        return [as_array(value.clone()) for value in self._fetched]

    def _fill(self) -> None:
        if self._scratch is None:
            self._scratch = torch.empty(OCCUPYING_BYTES, dtype=torch.uint8, device=self._device)
        self._scratch.zero_()

    def _inference(self, images: Images) -> Inference[tuple[Tensor, ...]]:
        given: list[Tensor] = []

        def send() -> None:
            given[:] = [self._send()]

        return Inference(
            stage=lambda: self._stage(images),
            send=send,
            compute=lambda: as_tuple(self._forward(given[0])),
            fetch=self._fetch,
        )

    @override
    def device_times(self, images: Images) -> DeviceTimes:
        self._opened()
        with failing("could not run the model"), self._calls(images), torch.inference_mode():
            return self._timer.cold(self._inference(images))

    @override
    def warm_time(self, images: Images, inferences: int) -> WarmTime:
        self._opened()
        with failing("could not run the model"), self._calls(images), torch.inference_mode():
            return self._timer.warm(self._inference(images), inferences)

    @override
    def close(self) -> None:
        """Let go of the model and of the GPU's memory."""
        super().close()
        self._staged = self._given = self._scratch = None
        self._fetched = ()
        torch.cuda.empty_cache()
