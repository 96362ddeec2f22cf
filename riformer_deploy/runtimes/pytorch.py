"""PyTorch on the CPU, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from riformer_deploy.errors import RuntimeFailureError
from riformer_deploy.runtimes.base import Images, Outputs


class PyTorchRuntime:
    """Runs a module.

    Args:
        model: In evaluation mode; its block names are those of ``named_modules``.
        outputs: Names of what it gives, in order.
        forward: What to call instead of the module itself; it gives the outputs named.
        dtype: What the images are cast to; None takes the type of the model's first parameter.
        compiled: Run the module through ``torch.compile``.
        threads: Intra-op threads; this is PyTorch's setting for the whole process.
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
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._model: nn.Module | None = model
        self._outputs = tuple(outputs)
        self._dtype = dtype or next(model.parameters()).dtype
        try:
            if compiled:
                # Dynamo stops compiling a function, without a word, once it has compiled it eight times;
                # one compiled model is alive at a time, so earlier ones can go. Nothing may stay eager.
                torch.compiler.reset()
                self._forward: Callable[[Tensor], Tensor | tuple[Tensor, ...]] = torch.compile(
                    model, dynamic=False, fullgraph=True
                )
            else:
                self._forward = forward or model
        except Exception as err:  # an interpreter or platform that PyTorch cannot compile for
            raise RuntimeFailureError(f"PyTorch cannot compile here: {_brief(err)}") from err

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
        self._model = None
        self._forward = nn.Identity()

    def _opened(self) -> nn.Module:
        if self._model is None:
            raise RuntimeFailureError("The PyTorch runtime was closed.")
        return self._model


def _array(value: Tensor) -> np.ndarray:
    result: np.ndarray = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return result


def _brief(err: Exception) -> str:
    lines = [line for line in str(err).strip().splitlines() if line.strip()]
    text = f"{type(err).__name__}: {lines[0] if lines else ''}"
    return text if len(text) <= 300 else text[:297] + "..."
