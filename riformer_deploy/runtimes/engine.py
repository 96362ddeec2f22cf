"""TensorRT and TensorRT-RTX engines on a GPU."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.devices.base import Device, DeviceBuffer, HostBuffer
from riformer_deploy.errors import RuntimeFailureError
from riformer_deploy.passports import Passport
from riformer_deploy.runtime_caches import RuntimeCache
from riformer_deploy.runtimes.base import DeviceTimes, Images, Outputs, WarmTime
from riformer_deploy.runtimes.timing import EVENTS, OCCUPYING_BYTES, Inference, StreamTimer
from riformer_deploy.trt.bindings import TensorRT
from riformer_deploy.trt.running import Context, Engine, EngineTensor

_SHAPES_KEPT = 4
"""Shapes that stay prepared, with their buffers; the one unused the longest goes first."""


@dataclass(frozen=True, kw_only=True)
class _Binding:
    """One tensor of a prepared shape, on both sides."""

    tensor: EngineTensor
    shape: tuple[int, ...]
    device: DeviceBuffer
    host: HostBuffer

    @property
    def array(self) -> NDArray[Any]:
        """The host side as what it holds."""
        return self.host.data.view(self.tensor.dtype).reshape(self.shape)


@dataclass(kw_only=True)
class _Prepared:
    """A batch size that is ready to run: its context, buffers, and graph once captured."""

    context: Context
    bindings: list[_Binding]
    graph: Any = None


class EngineRuntime:
    """An engine; its buffers are allocated once per shape and its calls go through one stream.

    Args:
        plan: The plan file; preflight has seen it.
        passport: The engine's.
        trt: The bindings of its flavour.
        device: Where memory and stream come from; closed with the runtime.
        cuda_graphs: Run each shape as a CUDA graph, captured by TensorRT-RTX itself or by us.
        kept: Where kernels that TensorRT-RTX compiled are kept between runs; None keeps none.
        sha256: Of the plan: other content, put there since preflight, is not loaded. None takes any.

    Raises:
        RuntimeFailureError: The plan cannot be read or loaded, or the device layer captures no graphs.
    """

    def __init__(
        self,
        plan: Path,
        passport: Passport,
        trt: TensorRT,
        device: Device,
        *,
        cuda_graphs: bool = False,
        kept: RuntimeCache | None = None,
        sha256: str | None = None,
    ) -> None:
        self._passport, self._device, self._kept, self._plan = passport, device, kept, plan
        self._prepared: OrderedDict[tuple[int, ...], _Prepared] = OrderedDict()
        self._events: list[Any] = []
        self._scratch: DeviceBuffer | None = None
        self._engine: Engine | None = None
        with ExitStack() as undo:
            undo.callback(device.close)
            engine = Engine(
                trt,
                self._content(sha256),
                what=str(plan),
                cuda_graphs=cuda_graphs,
                runtime_cache=None if kept is None else kept.read(),
                host_code=passport.settings.version_compatible,
            )
            undo.callback(engine.close)
            self._captures = cuda_graphs and not engine.captures_graphs
            if self._captures and not device.captures_graphs:
                raise RuntimeFailureError(
                    f"{plan} cannot run as a CUDA graph: this device layer captures none.",
                    remedy="Use --device-layer cuda-python.",
                )
            for _ in range(EVENTS):
                self._events.append(device.event())
                undo.callback(device.free_event, self._events[-1])
            self._inputs = [tensor for tensor in engine.tensors if tensor.is_input]
            self._engine = engine
            self._timer = StreamTimer(device, self._events, self._fill)
            undo.pop_all()

    def _content(self, sha256: str | None) -> bytes:
        try:
            plan = self._plan.read_bytes()
        except OSError as err:
            raise RuntimeFailureError(f"{self._plan} cannot be read: {err.strerror}.") from err
        if sha256 is not None and hashlib.sha256(plan).hexdigest() != sha256:
            raise RuntimeFailureError(f"{self._plan} was changed while it was being used.")
        return plan

    def _opened(self) -> Engine:
        if self._engine is None:
            raise RuntimeFailureError(f"The runtime of {self._plan} was closed.")
        return self._engine

    def _profile(self, batch: int) -> int:
        number = self._passport.profile_of(batch)
        if number is None:
            profiles = ", ".join(map(str, self._passport.profiles))
            raise RuntimeFailureError(
                f"{self._plan} does not take batch {batch}: its profiles are {profiles} (MIN:OPT:MAX).",
                remedy=f"Build it with a --profile that holds {batch}.",
            )
        return number

    def _prepare(self, images: Images) -> _Prepared:
        """What runs images of this shape; made at the first call."""
        engine, given, shape = self._opened(), self._inputs[0], images.shape
        if shape in self._prepared and images.dtype == given.dtype:
            self._prepared.move_to_end(shape)
            return self._prepared[shape]
        expected = given.shape[1:]
        if len(shape) != len(given.shape) or tuple(shape[1:]) != expected or images.dtype != given.dtype:
            raise RuntimeFailureError(
                f"{self._plan} takes {given.dtype} {('N', *expected)}, got {images.dtype} {shape}."
            )
        profile = self._profile(shape[0])
        while len(self._prepared) >= _SHAPES_KEPT:
            self._discard(self._prepared.popitem(last=False)[1])
        prepared = _Prepared(context=engine.context(), bindings=[])
        try:
            shapes = prepared.context.prepare(given.name, shape, profile=profile, stream=self._device.stream)
            for tensor in engine.tensors:
                prepared.bindings.append(self._bind(tensor, shapes[tensor.name]))
                prepared.context.bind(tensor.name, prepared.bindings[-1].device.address)
            if self._captures:
                self._device.synchronise()
                prepared.context.execute(self._device.stream)  # allocations that no capture may hold
                self._device.synchronise()
                prepared.graph = self._device.capture(lambda: prepared.context.execute(self._device.stream))
        except BaseException:
            self._discard(prepared)
            raise
        self._prepared[shape] = prepared
        return prepared

    def _bind(self, tensor: EngineTensor, shape: tuple[int, ...]) -> _Binding:
        size = max(int(np.prod(shape)) * tensor.dtype.itemsize, 1)
        device = self._device.allocate(size)
        try:
            host = self._device.allocate_host(size)
        except BaseException:
            self._device.free(device)
            raise
        return _Binding(tensor=tensor, shape=shape, device=device, host=host)

    def _discard(self, prepared: _Prepared) -> None:
        """Wait, then free; what cannot be freed does not keep the rest from it."""
        with ExitStack() as last_to_first:
            for binding in prepared.bindings:
                last_to_first.callback(self._device.free, binding.device)
                last_to_first.callback(self._device.free_host, binding.host)
            last_to_first.callback(prepared.context.close)
            if prepared.graph is not None:
                last_to_first.callback(self._device.free_graph, prepared.graph)
            last_to_first.callback(self._device.synchronise)

    def _send(self, prepared: _Prepared) -> None:
        for binding in prepared.bindings:
            if binding.tensor.is_input:
                self._device.to_device(binding.device, binding.host)

    def _compute(self, prepared: _Prepared) -> None:
        if prepared.graph is not None:
            self._device.launch(prepared.graph)
        else:
            prepared.context.execute(self._device.stream)

    def _fetch(self, prepared: _Prepared) -> None:
        for binding in prepared.bindings:
            if not binding.tensor.is_input:
                self._device.to_host(binding.host, binding.device)

    def _stage(self, prepared: _Prepared, images: Images) -> None:
        """Put the images into their host buffer."""
        next(b for b in prepared.bindings if b.tensor.is_input).array[...] = images

    def run(self, images: Images) -> Outputs:
        """Every output of the engine, on the host.

        Args:
            images: (N, 3, H, W) float32, normalised, or what else the graph takes; N within a profile.

        Raises:
            RuntimeFailureError: The shape is outside the profiles, or TensorRT or the driver fails.
        """
        prepared = self._prepare(images)
        self._stage(prepared, images)
        self._send(prepared)
        self._compute(prepared)
        self._fetch(prepared)
        self._device.synchronise()
        return {b.tensor.name: b.array.copy() for b in prepared.bindings if not b.tensor.is_input}

    def _inference(self, images: Images) -> Inference[None]:
        prepared = self._prepare(images)
        return Inference(
            stage=lambda: self._stage(prepared, images),
            send=lambda: self._send(prepared),
            compute=lambda: self._compute(prepared),
            fetch=lambda _: self._fetch(prepared),
        )

    def device_times(self, images: Images) -> DeviceTimes:
        """Run once, timed by events on the stream.

        Args:
            images: As for :meth:`run`.

        Raises:
            RuntimeFailureError: As :meth:`run`.
        """
        return self._timer.cold(self._inference(images))

    def warm_time(self, images: Images, inferences: int) -> WarmTime:
        """Run once, then so many times back to back, timed by events on the stream.

        Args:
            images: As for :meth:`run`.
            inferences: How many are timed, at least one.

        Raises:
            RuntimeFailureError: As :meth:`run`.
        """
        return self._timer.warm(self._inference(images), inferences)

    def _fill(self) -> None:
        """Put the filling of device memory, which keeps the GPU busy, on the stream."""
        if self._scratch is None:
            self._scratch = self._device.allocate(OCCUPYING_BYTES)
        self._device.clear(self._scratch)

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:  # noqa: ARG002
        """Not offered: what an engine computes inside is fused beyond recognition.

        Raises:
            RuntimeFailureError: Always.
        """
        raise RuntimeFailureError(
            f"{self._plan} shows no activations of {', '.join(tensors)}: it is an engine."
        )

    def _keep(self, engine: Engine) -> None:
        if self._kept is not None and (cache := engine.runtime_cache()):
            self._kept.write(cache)

    def close(self) -> None:
        """Free everything, contexts and buffers first, even where a part of it fails; once is enough."""
        if self._engine is None:
            return
        engine, self._engine = self._engine, None
        with ExitStack() as last_to_first:
            last_to_first.callback(self._device.close)
            last_to_first.callback(engine.close)
            last_to_first.callback(self._keep, engine)
            if self._scratch is not None:
                last_to_first.callback(self._device.free, self._scratch)
            while self._events:
                last_to_first.callback(self._device.free_event, self._events.pop())
            while self._prepared:
                last_to_first.callback(self._discard, self._prepared.popitem()[1])
            last_to_first.callback(self._device.synchronise)
