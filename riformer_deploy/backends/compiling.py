"""``torch.compile`` so that many modules are compiled in one process, and none is run eagerly instead."""

from __future__ import annotations

import logging
import re
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_LOG = logging.getLogger(__name__)
_OPEN: weakref.WeakSet[object] = weakref.WeakSet()
"""Runtimes that hold a compiled module."""
_BRIEF = 500
_RESETS = 3
"""Tries before the last one, whose error is raised."""


def _reset() -> None:
    """Drop what was compiled before.

    PyTorch walks over the compilers that it has seen and resets each. The first reset of one may import a
    module that makes PyTorch note one more, which breaks the walk; the next time it is imported.
    """
    for _ in range(_RESETS):
        try:
            torch.compiler.reset()
        except RuntimeError as err:
            _LOG.debug("PyTorch could not forget what it compiled: %s", err)
        else:
            return
    torch.compiler.reset()


def compile_module(
    owner: object, module: nn.Module, options: Mapping[str, bool] | None
) -> Callable[[Tensor], Tensor | tuple[Tensor, ...]]:
    """Compile a module for shapes that it is compiled anew for, in one graph.

    Args:
        owner: Who runs it; give it to :func:`forget` when nobody does any more.
        module: In evaluation mode.
        options: Of inductor, for this module alone; None takes PyTorch's defaults.
    """
    # Dynamo stops compiling a function, without a word, once it has compiled it eight times, so earlier
    # ones go when nobody runs them any more.
    if not _OPEN:
        _reset()
    _OPEN.add(owner)
    if options is None:
        return torch.compile(module, dynamic=False, fullgraph=True)
    return torch.compile(module, dynamic=False, fullgraph=True, options=dict(options))


def forget(owner: object) -> None:
    """What was compiled for it is not run any more."""
    _OPEN.discard(owner)


@contextmanager
def quiet() -> Iterator[None]:
    """Around what PyTorch warns of on its own account: it is logged, and never raised as an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for item in caught:
                _LOG.debug("PyTorch: %s: %s", item.category.__name__, item.message)


@contextmanager
def first_calls() -> Iterator[None]:
    """Around calls that make PyTorch compile; every open runtime may, as often as one function may."""
    with quiet():
        config = torch._dynamo.config  # noqa: SLF001  # imported when it is first asked for
        with config.patch(recompile_limit=config.recompile_limit * max(len(_OPEN), 1)):
            yield


def brief(err: Exception) -> str:
    """An error in one line: its first, what that introduces, and the first one that names an error.

    Compilers of PyTorch's raise pages, whose first line may be only ``backend='inductor' raised:``.
    """
    lines = [line.strip() for line in str(err).splitlines() if line.strip()] or [""]
    shown = [lines.pop(0)]
    while shown[-1].endswith(":") and lines:
        shown.append(lines.pop(0))
    shown += [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)][:1]
    text = f"{type(err).__name__}: {' '.join(shown)}"
    return text if len(text) <= _BRIEF else text[: _BRIEF - 3] + "..."
