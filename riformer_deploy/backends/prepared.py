"""Shapes of an engine that are ready to run: context, buffers, and the CUDA graph where one is wanted."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.cuda.base import Device, DeviceBuffer, HostBuffer, allocate_pair
from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.trt.engine import Context, Engine, EngineTensor

_LOG = logging.getLogger(__name__)
_SHAPES_KEPT = 4
"""Batch sizes that stay prepared; the one unused the longest goes first, but none that a view is held of."""
_RUNS_TO_REPLAY = 3
"""TensorRT-RTX captures nothing in the first run of a shape, captures in the second, replays in the third."""


class _Lent:
    """What views of a host buffer keep alive: NumPy makes it the base of the first array over it."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.__array_interface__ = data.__array_interface__


@dataclass(kw_only=True)
class Binding:
    """One tensor of a prepared shape, on both sides."""

    tensor: EngineTensor
    shape: tuple[int, ...]
    device: DeviceBuffer
    host: HostBuffer
    _lent: weakref.ref[_Lent] | None = None

    @property
    def array(self) -> NDArray[Any]:
        """The host side as what it holds."""
        return self.host.data.view(self.tensor.dtype).reshape(self.shape)

    @property
    def lent(self) -> _Lent | None:
        """What is alive as long as a view of the host side is in somebody's hands."""
        return None if self._lent is None else self._lent()

    def view(self) -> NDArray[Any]:
        """The host side for callers: while they hold it, or a part of it, the memory stays."""
        lent = self.lent
        if lent is None:
            lent = _Lent(self.host.data)
            self._lent = weakref.ref(lent)
        return np.asarray(lent).view(self.tensor.dtype).reshape(self.shape)


@dataclass(kw_only=True)
class Prepared:
    """A batch size that is ready to run.

    Attributes:
        context: Its execution context.
        bindings: Its inputs and outputs.
        graph: The CUDA graph that we captured, if we did.
        graph_state: What is known of its CUDA graph; None where none was asked for.
    """

    context: Context
    bindings: list[Binding]
    graph: Any = None
    graph_state: GraphState | None = None

    @property
    def images(self) -> Binding:
        """The input."""
        return next(binding for binding in self.bindings if binding.tensor.is_input)

    @property
    def lent(self) -> bool:
        """Whether a view of one of its buffers is in somebody's hands."""
        return any(binding.lent is not None for binding in self.bindings)


def prepare(
    engine: Engine, device: Device, shape: tuple[int, ...], *, profile: int, graphs: bool
) -> Prepared:
    """Make a shape ready: where a CUDA graph is wanted, the next run is a replay of it.

    Args:
        engine: The engine that takes them.
        device: Where memory and stream come from; the stream is waited for where graphs are wanted.
        shape: Of the input.
        profile: Number of the optimisation profile.
        graphs: Run it as a CUDA graph.

    Raises:
        RuntimeFailureError: TensorRT or the driver refuses; nothing is left.
    """
    prepared = Prepared(context=engine.context(), bindings=[])
    try:
        name = engine.images.name
        shapes = prepared.context.prepare(name, shape, profile=profile, stream=device.stream)
        for tensor in engine.tensors:
            prepared.bindings.append(_bind(device, tensor, shapes[tensor.name]))
            prepared.context.bind(tensor.name, prepared.bindings[-1].device.address)
        if graphs and engine.captures_graphs:
            _let_capture(prepared, device)
        elif graphs:
            _capture(prepared, device)
    except BaseException:
        discard(device, prepared)
        raise
    return prepared


def _bind(device: Device, tensor: EngineTensor, shape: tuple[int, ...]) -> Binding:
    memory, host = allocate_pair(device, int(np.prod(shape)) * tensor.dtype.itemsize)
    return Binding(tensor=tensor, shape=shape, device=memory, host=host)


def _run_once(prepared: Prepared, device: Device) -> None:
    """On whatever the buffers hold."""
    prepared.context.execute(device.stream)
    device.synchronize()


def _capture(prepared: Prepared, device: Device) -> None:
    device.synchronize()
    _run_once(prepared, device)  # allocations that no capture may hold
    prepared.graph = device.capture(lambda: prepared.context.execute(device.stream))
    prepared.graph_state = GraphState.CAPTURED


def _let_capture(prepared: Prepared, device: Device) -> None:
    """Run until the flavor replays, and ask whether it can: it falls back silently."""
    _run_once(prepared, device)  # kernels are compiled
    able = prepared.context.capturable(device.stream)
    prepared.graph_state = GraphState.CAPTURABLE if able else GraphState.NOT_CAPTURABLE
    for _ in range(_RUNS_TO_REPLAY - 1):
        _run_once(prepared, device)


def discard(device: Device, prepared: Prepared) -> None:
    """Wait, then free; what cannot be freed does not keep the rest from it.

    Host memory of which a view is in somebody's hands is freed with the last view.
    """
    with ExitStack() as last_to_first:
        for binding in prepared.bindings:
            last_to_first.callback(device.free, binding.device)
            last_to_first.callback(_free_host, device, binding)
        last_to_first.callback(prepared.context.close)
        if prepared.graph is not None:
            last_to_first.callback(device.free_graph, prepared.graph)
        last_to_first.callback(device.synchronize)


def _free_host(device: Device, binding: Binding) -> None:
    lent = binding.lent
    if lent is None:
        device.free_host(binding.host)
    else:
        weakref.finalize(lent, device.free_host, binding.host).atexit = False  # the process frees it then


class PreparedShapes:
    """The batch sizes of an engine that were used last.

    Args:
        engine: The engine that takes them.
        device: Where memory and stream come from.
        graphs: Run each as a CUDA graph.
        what: What messages call the engine.

    Attributes:
        graph_states: By batch size, of all so far, what is known of its CUDA graph.
    """

    def __init__(self, engine: Engine, device: Device, *, graphs: bool, what: str) -> None:
        self._engine, self._device, self._graphs, self._what = engine, device, graphs, what
        self._ready: OrderedDict[int, Prepared] = OrderedDict()
        self.graph_states: dict[int, GraphState] = {}

    def find(self, batch: int) -> Prepared | None:
        """One that is ready, which is the last used from now on; None where it is not."""
        if batch in self._ready:
            self._ready.move_to_end(batch)
        return self._ready.get(batch)

    def add(self, batch: int, profile: int) -> Prepared:
        """Make another one ready.

        Args:
            batch: Its size.
            profile: Number of its optimisation profile.

        Raises:
            RuntimeFailureError: As :func:`prepare`.
        """
        surplus = max(len(self._ready) + 1 - _SHAPES_KEPT, 0)
        unused = [size for size, prepared in self._ready.items() if not prepared.lent]
        for size in unused[:surplus]:
            discard(self._device, self._ready.pop(size))
        shape = (batch, *self._engine.images.shape[1:])
        prepared = prepare(self._engine, self._device, shape, profile=profile, graphs=self._graphs)
        if prepared.graph_state is not None:
            self.graph_states[batch] = prepared.graph_state
        if prepared.graph_state is GraphState.NOT_CAPTURABLE:
            _LOG.warning("%s, batch %d: no CUDA graph can be captured; it runs plain", self._what, batch)
        self._ready[batch] = prepared
        return prepared

    def close(self) -> None:
        """Discard all, even where one of them fails."""
        with ExitStack() as last_to_first:
            while self._ready:
                last_to_first.callback(discard, self._device, self._ready.popitem()[1])
