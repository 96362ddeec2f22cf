"""PyTorch on the CPU or a GPU, eager or compiled."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from riformer_deploy.errors import RuntimeFailureError
from riformer_deploy.runtimes.base import (
    OCCUPYING_BYTES,
    OCCUPYING_REPEATS,
    DeviceTimes,
    Images,
    Outputs,
)

_COMPILED: weakref.WeakSet[PyTorchRuntime] = weakref.WeakSet()
"""Open runtimes whose module is compiled."""


class PyTorchRuntime:
    """Runs a module.

    Args:
        model: In evaluation mode; its block names are those of ``named_modules``.
        outputs: Names of what it gives, in order.
        forward: What to call instead of the module itself; it gives the outputs named.
        dtype: What the images are cast to; None takes the type of the model's first parameter.
        compiled: Run the module through ``torch.compile``; on a GPU, with CUDA graphs.
        threads: Intra-op threads; this is PyTorch's setting for the whole process.
        device: ``cpu``, or ``cuda`` for :class:`CudaPyTorchRuntime`, which feeds it: the module is moved
            there, and float32 means float32, never TF32, for the whole process.
        channels_last: Keep weights in NHWC order, and images where they are fed so.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        outputs: Sequence[str] = ("logits",),
        forward: Callable[[Tensor], Tensor | tuple[Tensor, ...]] | None = None,
        dtype: torch.dtype | None = None,
        compiled: bool = False,
        threads: int | None = None,
        device: str = "cpu",
        channels_last: bool = False,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._outputs = tuple(outputs)
        self._dtype = dtype or next(model.parameters()).dtype
        try:
            model = model.to(self._device).to(memory_format=self._layout)  # type: ignore[call-overload]
            self._model: nn.Module | None = model
            if compiled:
                # Dynamo stops compiling a function, without a word, once it has compiled it eight times, so
                # earlier ones go when nobody runs them any more. Nothing may stay eager.
                if not _COMPILED:
                    torch.compiler.reset()
                _COMPILED.add(self)
                mode = "reduce-overhead" if self._device.type == "cuda" else "default"
                self._forward: Callable[[Tensor], Tensor | tuple[Tensor, ...]] = torch.compile(
                    model, dynamic=False, fullgraph=True, mode=mode
                )
            else:
                self._forward = forward or model
        except Exception as err:  # an interpreter or platform that PyTorch cannot compile for
            raise RuntimeFailureError(f"PyTorch cannot prepare the model here: {_brief(err)}") from err

    def _feed(self, images: Images) -> Tensor:
        return torch.from_numpy(images).to(self._dtype)

    def run(self, images: Images) -> Outputs:
        """The named outputs, the batch first; bfloat16 ones as float32, since NumPy has no such type.

        Args:
            images: (N, 3, H, W) float32, normalised.

        Raises:
            RuntimeFailureError: PyTorch could not compile or run the model.
        """
        self._opened()
        try:
            with torch.inference_mode():
                results = self._forward(self._feed(images))
        except Exception as err:  # whatever a compiler, a C++ toolchain or a kernel raises
            raise RuntimeFailureError(f"PyTorch could not run the model: {_brief(err)}") from err
        tensors = results if isinstance(results, tuple) else (results,)
        return {name: _array(value) for name, value in zip(self._outputs, tensors, strict=True)}

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        """Activations after the named modules, run eagerly.

        Args:
            images: (N, 3, H, W) float32, normalised.
            tensors: Names of modules.

        Raises:
            RuntimeFailureError: A module does not exist or PyTorch could not run the model.
        """
        model = self._opened()
        modules = dict(model.named_modules())
        unknown = [name for name in tensors if name not in modules]
        if unknown:
            raise RuntimeFailureError("The PyTorch model has no such modules.", details=unknown)
        taken: dict[str, np.ndarray] = {}

        def keep(name: str) -> RemovableHandle:
            def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
                taken[name] = _array(output)

            handle: RemovableHandle = modules[name].register_forward_hook(hook)
            return handle

        handles = [keep(name) for name in tensors]
        try:
            with torch.inference_mode():
                model(self._feed(images))
        except Exception as err:  # as above
            raise RuntimeFailureError(f"PyTorch could not run the model: {_brief(err)}") from err
        finally:
            for handle in handles:
                handle.remove()
        return {name: taken[name] for name in tensors}

    def close(self) -> None:
        """Let go of the model."""
        _COMPILED.discard(self)
        self._model = None
        self._forward = nn.Identity()

    def _opened(self) -> nn.Module:
        if self._model is None:
            raise RuntimeFailureError("The PyTorch runtime was closed.")
        return self._model


class CudaPyTorchRuntime(PyTorchRuntime):
    """Runs a module on the first GPU, and keeps time there.

    Args:
        model: As for :class:`PyTorchRuntime`.
        dtype: What the module and the images are cast to.
        compiled: Through ``torch.compile``, with CUDA graphs.
        channels_last: Keep weights and images in NHWC order.
    """

    def __init__(
        self, model: nn.Module, *, dtype: torch.dtype, compiled: bool = False, channels_last: bool = False
    ) -> None:
        super().__init__(
            model.to(dtype), dtype=dtype, compiled=compiled, device="cuda", channels_last=channels_last
        )
        self._events = [torch.Event("cuda", enable_timing=True) for _ in range(5)]
        self._staged: Tensor | None = None
        self._scratch: Tensor | None = None

    def _feed(self, images: Images) -> Tensor:
        """Through page-locked memory, and cast on the GPU: as an engine gets its images."""
        given = torch.from_numpy(images)
        if self._staged is None or (self._staged.shape, self._staged.dtype) != (given.shape, given.dtype):
            self._staged = torch.empty(given.shape, dtype=given.dtype, pin_memory=True)
        self._staged.copy_(given)
        return self._staged.to(self._device, non_blocking=True).to(self._dtype, memory_format=self._layout)

    def _occupy(self) -> None:
        """Keep the GPU busy while Python launches what comes next, so that launching is not timed."""
        if self._scratch is None:
            self._scratch = torch.empty(OCCUPYING_BYTES, dtype=torch.uint8, device=self._device)
        for _ in range(OCCUPYING_REPEATS):
            self._scratch.zero_()

    def close(self) -> None:
        """Let go of the model and of the GPU's memory."""
        super().close()
        self._staged = self._scratch = None
        torch.cuda.empty_cache()

    def device_times(self, images: Images) -> DeviceTimes:
        """Run once, timed by events on the stream.

        Args:
            images: (N, 3, H, W) float32, normalised.

        Raises:
            RuntimeFailureError: As :meth:`run`.
        """
        self._opened()
        start, sent, begun, computed, fetched = self._events
        try:
            with torch.inference_mode():
                start.record()
                given = self._feed(images)
                sent.record()
                self._occupy()
                begun.record()
                results = self._forward(given)
                computed.record()
                for value in results if isinstance(results, tuple) else (results,):
                    value.cpu()
                fetched.record()
            torch.cuda.synchronize()
        except Exception as err:  # as for run
            raise RuntimeFailureError(f"PyTorch could not run the model: {_brief(err)}") from err
        return DeviceTimes(
            to_device_ms=start.elapsed_time(sent),
            compute_ms=begun.elapsed_time(computed),
            to_host_ms=computed.elapsed_time(fetched),
        )


def _array(value: Tensor) -> np.ndarray:
    result: np.ndarray = (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()
    return result


def _brief(err: Exception) -> str:
    lines = [line for line in str(err).strip().splitlines() if line.strip()]
    text = f"{type(err).__name__}: {lines[0] if lines else ''}"
    return text if len(text) <= 300 else text[:297] + "..."
