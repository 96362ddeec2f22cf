"""TensorRT and TensorRT-RTX engines on a GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from typing_extensions import override

from riformer_deploy.backends.base import (
    DeviceTimed,
    DeviceTimes,
    GraphLaunched,
    Outputs,
    Runtime,
    WarmTime,
)
from riformer_deploy.backends.cuda.base import Device
from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.backends.prepared import Prepared, PreparedShapes
from riformer_deploy.backends.staging import stage_images
from riformer_deploy.backends.timing import DeviceTimer, Inference
from riformer_deploy.bundle.engine_metadata import EngineMetadata
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.common.files import open_regular
from riformer_deploy.data.transforms import Images
from riformer_deploy.trt.bindings import TensorRT
from riformer_deploy.trt.engine import Engine
from riformer_deploy.trt.runtime_cache import RuntimeCache


class EngineRuntime(Runtime, DeviceTimed, GraphLaunched):
    """An engine; its buffers are allocated once per shape and its calls go through one stream.

    Args:
        plan: The plan file; preflight has seen it.
        metadata: The engine's.
        trt: The bindings of its flavor.
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
        metadata: EngineMetadata,
        trt: TensorRT,
        device: Device,
        *,
        cuda_graphs: bool = False,
        kept: RuntimeCache | None = None,
        sha256: str | None = None,
    ) -> None:
        self._metadata, self._device, self._kept, self._plan = metadata, device, kept, plan
        self._engine: Engine | None = None
        self._settled = False
        with ExitStack() as undo:
            undo.callback(device.close)
            engine = Engine(
                trt,
                self._content(sha256),
                what=str(plan),
                cuda_graphs=cuda_graphs,
                runtime_cache=None if kept is None else kept.read(),
                host_code=metadata.settings.version_compatible,
            )
            undo.callback(engine.close)
            if cuda_graphs and not (engine.captures_graphs or device.captures_graphs):
                raise RuntimeFailureError(
                    f"{plan} cannot run as a CUDA graph: this device layer captures none.",
                    remedy="Use --device-layer cuda-python.",
                )
            self._timer = DeviceTimer(device)
            self._engine = engine
            self._shapes = PreparedShapes(engine, device, graphs=cuda_graphs, what=str(plan))
            undo.pop_all()

    def _content(self, sha256: str | None) -> bytes:
        try:
            with open_regular(self._plan) as file:
                plan = file.read()
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
        number = self._metadata.profile_of(batch)
        if number is None:
            profiles = ", ".join(map(str, self._metadata.profiles))
            raise RuntimeFailureError(
                f"{self._plan} does not take batch {batch}: its profiles are {profiles} (MIN:OPT:MAX).",
                remedy=f"Build it with a --profile that holds {batch}.",
            )
        return number

    def _prepare(self, images: Images) -> Prepared:
        """What runs images of this shape; made at the first call."""
        given, shape = self._opened().images, images.shape
        expected = given.shape[1:]
        if len(shape) != len(given.shape) or tuple(shape[1:]) != expected or images.dtype != given.dtype:
            raise RuntimeFailureError(
                f"{self._plan} takes {given.dtype} {('N', *expected)}, got {images.dtype} {shape}."
            )
        return self._prepare_batch(shape[0])

    def _prepare_batch(self, batch: int) -> Prepared:
        self._opened()
        return self._shapes.find(batch) or self._shapes.add(batch, self._profile(batch))

    @property
    @override
    def graph_states(self) -> dict[int, GraphState]:
        """By batch size, of every shape so far, what is known of its CUDA graph; empty if none was wanted."""
        return dict(self._shapes.graph_states)

    def _send(self, prepared: Prepared) -> None:
        for binding in prepared.bindings:
            if binding.tensor.is_input:
                self._device.to_device(binding.device, binding.host)

    def _compute(self, prepared: Prepared) -> None:
        if prepared.graph is not None:
            self._device.launch(prepared.graph)
        else:
            prepared.context.execute(self._device.stream)

    def _fetch(self, prepared: Prepared) -> None:
        for binding in prepared.bindings:
            if not binding.tensor.is_input:
                self._device.to_host(binding.host, binding.device)

    def _stage(self, prepared: Prepared, images: Images) -> None:
        """Put the images into their host buffer."""
        stage_images(prepared.images.array, images)

    @override
    def run(self, images: Images) -> Outputs:
        """Every output of the engine, on the host.

        Args:
            images: (N, 3, H, W) float32, normalised, or what else the graph takes; N within a profile.

        Raises:
            RuntimeFailureError: The shape is outside the profiles, or TensorRT or the driver fails.
        """
        prepared = self._prepare(images)
        self._stage(prepared, images)
        self._execute(prepared)
        return {b.tensor.name: b.array.copy() for b in prepared.bindings if not b.tensor.is_input}

    def _execute(self, prepared: Prepared) -> None:
        self._send(prepared)
        self._compute(prepared)
        self._fetch(prepared)
        self._device.synchronize()

    def input_view(self, batch: int) -> NDArray[Any]:
        """The page-locked memory that images are copied to the GPU from, to be filled by the caller.

        It is the memory of this batch size: :meth:`run` and :meth:`device_times` of as many images write
        into it as well. While a caller holds the view, or a part of it, the shape stays prepared; after
        :meth:`close` it is ordinary memory that nothing reads, freed with the last view.

        Args:
            batch: Number of images, within a profile.

        Returns:
            A writable array of the engine's input: its dtype, (N, 3, H, W) or what the graph takes. What it
            holds at first means nothing.

        Raises:
            RuntimeFailureError: As :meth:`run`.
        """
        return self._prepare_batch(batch).images.view()

    def run_filled(self, batch: int, *, copy: bool = True) -> Outputs:
        """As :meth:`run`, of what the caller wrote into :meth:`input_view`: no copy on the host.

        Args:
            batch: As for ``input_view``.
            copy: Give arrays of the caller's own; otherwise views of page-locked memory, which the next call
                of this batch size overwrites, and which keep the shape prepared as ``input_view`` does.

        Raises:
            RuntimeFailureError: Nobody holds a view of the input of this batch size, or as :meth:`run`.
        """
        self._opened()
        prepared = self._shapes.find(batch)
        if prepared is None or prepared.images.lent is None:
            raise RuntimeFailureError(
                f"{self._plan} has no images of batch {batch}: no view of its input is held.",
                remedy=f"Fill input_view({batch}) and keep it until the call is over.",
            )
        self._execute(prepared)
        outputs = (binding for binding in prepared.bindings if not binding.tensor.is_input)
        return {b.tensor.name: b.array.copy() if copy else b.view() for b in outputs}

    def _inference(self, images: Images) -> Inference[None]:
        prepared = self._prepare(images)
        return Inference(
            stage=lambda: self._stage(prepared, images),
            send=lambda: self._send(prepared),
            compute=lambda: self._compute(prepared),
            fetch=lambda _: self._fetch(prepared),
        )

    @override
    def device_times(self, images: Images) -> DeviceTimes:
        return self._timer.cold(self._inference(images))

    @override
    def warm_time(self, images: Images, inferences: int) -> WarmTime:
        return self._timer.warm(self._inference(images), inferences)

    @override
    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        """Not offered: what an engine computes inside is fused beyond recognition.

        Raises:
            RuntimeFailureError: Always.
        """
        raise RuntimeFailureError(
            f"{self._plan} shows no activations of {', '.join(tensors)}: it is an engine."
        )

    def _settle(self) -> None:
        self._device.synchronize()
        self._settled = True

    def _keep(self, engine: Engine) -> None:
        """Unless the GPU failed: nobody knows what its kernels are worth then."""
        if self._kept is not None and self._settled and (cache := engine.runtime_cache()):
            self._kept.write(cache)

    @override
    def close(self) -> None:
        """Free everything, contexts and buffers first, even where a part of it fails; once is enough."""
        if self._engine is None:
            return
        engine, self._engine = self._engine, None
        with ExitStack() as last_to_first:
            last_to_first.callback(self._device.close)
            last_to_first.callback(engine.close)
            last_to_first.callback(self._keep, engine)
            last_to_first.callback(self._timer.close)
            last_to_first.callback(self._shapes.close)
            last_to_first.callback(self._settle)
