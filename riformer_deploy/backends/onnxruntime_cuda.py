"""ONNX Runtime's CUDA provider on a stream and on memory of ours, timed as engines are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from riformer_deploy.backends.base import DeviceTimed, DeviceTimes, Outputs, WarmTime
from riformer_deploy.backends.cuda.base import Device, DeviceBuffer, HostBuffer, allocate_pair
from riformer_deploy.backends.onnxruntime import CUDA_PROVIDER, OnnxRuntime
from riformer_deploy.backends.staging import stage_images
from riformer_deploy.backends.timing import DeviceTimer, Inference
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.transforms import Images

_DEVICE_TYPES = {CUDA_PROVIDER: "cuda"}


@dataclass(frozen=True, kw_only=True)
class _Binding:
    """An input or output of one shape, on both sides."""

    name: str
    array: NDArray[Any]
    host: HostBuffer
    device: DeviceBuffer


class CudaOnnxRuntime(OnnxRuntime, DeviceTimed):
    """An ONNX file on a GPU; the buffers are those of the last batch size.

    Args:
        path: The model.
        device: Where memory and stream come from; closed with the runtime.
        read: As for :class:`~riformer_deploy.backends.onnxruntime.OnnxRuntime`.
        provider: ``CUDA_PROVIDER``, or the CPU's, which then works on the memory of a device that is none.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        RuntimeFailureError: The file cannot be loaded, or the provider does not start.
    """

    def __init__(
        self,
        path: Path,
        device: Device,
        *,
        read: Callable[[], bytes] | None = None,
        provider: str = CUDA_PROVIDER,
    ) -> None:
        self._device = device
        self._bindings: dict[str, _Binding] = {}
        self._bound: Any = None
        with ExitStack() as undo:
            undo.callback(device.close)
            stream = device.stream if provider == CUDA_PROVIDER else None
            super().__init__(path, read=read, provider=provider, stream=stream)
            undo.callback(super().close)
            self._memory = _DEVICE_TYPES.get(provider, "cpu")
            self._options: Any = require("onnxruntime").RunOptions()
            # Copies and events wait on the stream, not the host behind every call.
            self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
            self._timer = DeviceTimer(device)
            undo.pop_all()

    def _bind(self, images: Images) -> None:
        """Buffers and a binding for images of this shape."""
        if self._session is None:
            raise RuntimeFailureError(f"The ONNX Runtime session of {self._path} was closed.")
        given = self._bindings.get(self._input)
        if given is not None and given.array.shape == images.shape and given.array.dtype == images.dtype:
            return
        self._unbind()
        try:
            self._bound = self._session.io_binding()
            specs = [(self._input, images.shape, images.dtype, self._bound.bind_input)]
            for output in self._session.get_outputs():
                shape = (len(images), *output.shape[1:])
                dtype = np.dtype(_NUMPY_TYPES[output.type])
                specs.append((output.name, shape, dtype, self._bound.bind_output))
            for name, shape, dtype, bind in specs:
                binding = self._allocated(name, shape, dtype)
                self._bind_one(bind, binding, dtype)
        except BaseException:
            self._unbind()
            raise

    def _bind_one(self, bind: Callable[..., None], binding: _Binding, dtype: np.dtype[Any]) -> None:
        try:
            bind(binding.name, self._memory, 0, dtype.type, binding.array.shape, binding.device.address)
        except Exception as err:  # ONNX Runtime raises its own types, which have no common base
            raise RuntimeFailureError(
                f"ONNX Runtime cannot bind {binding.name} of {self._path}: {err}"
            ) from err

    def _allocated(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Binding:
        device, host = allocate_pair(self._device, int(np.prod(shape)) * dtype.itemsize)
        array = host.data.view(dtype).reshape(shape)
        self._bindings[name] = _Binding(name=name, array=array, host=host, device=device)
        return self._bindings[name]

    def _unbind(self) -> None:
        """Wait, then free the buffers of the last batch size."""
        self._bound = None
        with ExitStack() as last_to_first:
            while self._bindings:
                _, binding = self._bindings.popitem()
                last_to_first.callback(self._device.free, binding.device)
                last_to_first.callback(self._device.free_host, binding.host)
            last_to_first.callback(self._device.synchronize)

    def _inference(self, images: Images) -> Inference[None]:
        self._bind(images)
        given = self._bindings[self._input]
        outputs = [self._bindings[name] for name in self._outputs]

        def compute() -> None:
            try:
                self._session.run_with_iobinding(self._bound, self._options)
            except Exception as err:  # ONNX Runtime raises its own types, which have no common base
                raise RuntimeFailureError(
                    f"ONNX Runtime cannot run {self._path} on images of shape {images.shape}: {err}"
                ) from err

        def fetch(_results: None) -> None:
            for output in outputs:
                self._device.to_host(output.host, output.device)

        return Inference(
            stage=lambda: stage_images(given.array, images),
            send=lambda: self._device.to_device(given.device, given.host),
            compute=compute,
            fetch=fetch,
        )

    @override
    def run(self, images: Images) -> Outputs:
        inference = self._inference(images)
        inference.stage()
        inference.send()
        inference.fetch(inference.compute())
        self._device.synchronize()
        return {name: self._bindings[name].array.copy() for name in self._outputs}

    @override
    def device_times(self, images: Images) -> DeviceTimes:
        return self._timer.cold(self._inference(images))

    @override
    def warm_time(self, images: Images, inferences: int) -> WarmTime:
        return self._timer.warm(self._inference(images), inferences)

    @override
    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        """Inner tensors by name, in a second session on the same stream; errors as for :meth:`run`."""
        return super().tap(images, tensors)

    @override
    def close(self) -> None:
        """Free everything; once is enough."""
        if self._session is None:
            return
        with ExitStack() as last_to_first:
            last_to_first.callback(self._device.close)
            last_to_first.callback(self._timer.close)
            last_to_first.callback(super().close)
            last_to_first.callback(self._unbind)


_NUMPY_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}
"""What our graphs' outputs are, by ONNX Runtime's names."""
