"""PyTorch, eager or compiled; on the CPU, unless a subclass feeds another device."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from riformer_deploy.backends.base import Outputs, Runtime
from riformer_deploy.backends.compiling import brief, compile_module, first_calls, forget, quiet
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.transforms import Images

Forward = Callable[[Tensor], Tensor | tuple[Tensor, ...]]

_FIRST_CALLS = 3
"""Calls of a shape in which PyTorch compiles, and records a CUDA graph."""


class _Cast(nn.Module):
    """A module, or a function of one, that casts and lays out its images itself."""

    def __init__(self, forward: Forward, dtype: torch.dtype, layout: torch.memory_format) -> None:
        super().__init__()
        self._inner, self._dtype, self._layout = forward, dtype, layout

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self._inner(images.to(self._dtype, memory_format=self._layout))


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Whatever PyTorch raises is a RuntimeFailureError that says what it could not do."""
    try:
        yield
    except RuntimeFailureError:
        raise
    except Exception as err:  # whatever a compiler, a C++ toolchain or a kernel raises
        raise RuntimeFailureError(f"PyTorch {what}: {brief(err)}") from err


class _ProcessThreads:
    """PyTorch's intra-op threads, one setting for the process: as found once the last user is through."""

    def __init__(self) -> None:
        self._found, self._users = 0, 0

    def hold(self, threads: int) -> None:
        if self._users == 0:
            self._found = torch.get_num_threads()
        self._users += 1
        torch.set_num_threads(threads)

    def release(self) -> None:
        self._users -= 1
        if self._users == 0:
            torch.set_num_threads(self._found)


_THREADS = _ProcessThreads()


class PyTorchRuntime(Runtime):
    """Runs a module.

    Args:
        model: In evaluation mode; its block names are those of ``named_modules``.
        outputs: Names of what it gives, in order.
        forward: What to call instead of the module itself; it gives the outputs named.
        dtype: What the images are cast to; None takes the type of the model's first parameter.
        compiled: Run the module, and the cast of its images, through ``torch.compile``.
        threads: Intra-op threads, of the whole process until every runtime that asked for some is closed;
            None leaves the setting alone.
        device: Where the module is moved to; other than ``cpu`` for a subclass, which feeds it.
        channels_last: Keep weights and images in NHWC order.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        outputs: Sequence[str] = ("logits",),
        forward: Forward | None = None,
        dtype: torch.dtype | None = None,
        compiled: bool = False,
        threads: int | None = None,
        device: str = "cpu",
        channels_last: bool = False,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self._device = torch.device(device)
        self._outputs = tuple(outputs)
        self._compiled = compiled
        self._seen: Counter[tuple[int, ...]] = Counter()
        with failing("cannot prepare the model here"), quiet():
            self._configure()
            model = model.to(self._device).to(memory_format=layout)  # type: ignore[call-overload]
            self._model: nn.Module | None = model
            dtype = dtype or next(model.parameters()).dtype
            eager = _Cast(model, dtype, layout)
            self._eager: Forward = eager
            if compiled:  # nothing may stay eager, the cast included
                self._forward: Forward = compile_module(self, eager, self._options())
            else:
                self._forward = eager if forward is None else _Cast(forward, dtype, layout)
        self._threads: Callable[[], object] | None = None
        if threads is not None:
            _THREADS.hold(threads)
            finalizer = weakref.finalize(self, _THREADS.release)  # once, also where nobody closes it
            finalizer.atexit = False
            self._threads = finalizer

    def _configure(self) -> None:
        """Settings of PyTorch's for the whole process."""

    def _options(self) -> Mapping[str, bool] | None:
        """Options of ``torch.compile``; None for its defaults."""
        return None

    def _calls(self, images: Images) -> AbstractContextManager[None]:
        """Around calls of the model with images of this shape."""
        self._seen[images.shape] += 1
        if self._compiled and self._seen[images.shape] <= _FIRST_CALLS:
            return first_calls()
        return nullcontext()

    def _load_batches(self, images: Images) -> Tensor:
        """The images, as float32, on the device."""
        return torch.from_numpy(images)

    def _arrays(self, results: tuple[Tensor, ...]) -> list[np.ndarray]:
        return [as_array(value) for value in results]

    @override
    def run(self, images: Images) -> Outputs:
        """The named outputs, the batch first; bfloat16 ones as float32, since NumPy has no such type.

        Args:
            images: (N, 3, H, W) float32, normalised.

        Raises:
            RuntimeFailureError: PyTorch could not compile or run the model.
        """
        self._opened()
        with failing("could not run the model"), self._calls(images), torch.inference_mode():
            arrays = self._arrays(as_tuple(self._forward(self._load_batches(images))))
        return dict(zip(self._outputs, arrays, strict=True))

    @override
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
                taken[name] = as_array(output)

            handle: RemovableHandle = modules[name].register_forward_hook(hook)
            return handle

        handles = [keep(name) for name in tensors]
        try:
            with failing("could not run the model"), torch.inference_mode():
                self._eager(self._load_batches(images))
        finally:
            for handle in handles:
                handle.remove()
        return {name: taken[name] for name in tensors}

    @override
    def close(self) -> None:
        """Let go of the model."""
        if self._threads is not None:
            self._threads()
        forget(self)
        self._model = None
        self._forward = self._eager = nn.Identity()

    def _opened(self) -> nn.Module:
        if self._model is None:
            raise RuntimeFailureError("The PyTorch runtime was closed.")
        return self._model


def as_tuple(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a model gives, as several outputs."""
    return results if isinstance(results, tuple) else (results,)


def as_array(value: Tensor) -> np.ndarray:
    """A tensor on the host; bfloat16 as float32."""
    result: np.ndarray = (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()
    return result
