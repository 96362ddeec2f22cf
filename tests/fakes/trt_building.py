"""The building half of the fake TensorRT: parser, configuration, builder.

It reads ONNX files for their inputs and outputs, and JSON that :func:`write_graph` makes, which can hold
errors too. Its plans are JSON and say how they were built.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tests.fakes.strict import Bound, callback

STEPS = 5
SAY_TIMING = "fake timing cache of "
PLAN_MARK = b"fake plan\n"


def write_graph(
    path: Path,
    *,
    shape: tuple[int, ...] = (-1, 3, 4, 4),
    dtype: str = "FLOAT",
    classes: int = 5,
    layers: tuple[str, ...] = ("FLOAT", "HALF", "HALF"),
    errors: tuple[tuple[int, str, str, str], ...] = (),
) -> Path:
    """A graph with the input ``images`` and the output ``logits``.

    Args:
        path: The file.
        shape: Of the input.
        dtype: Of the input.
        classes: Of the output.
        layers: Type of each layer's output.
        errors: What the parser finds: node, its name, operator, description.
    """
    graph = {
        "tensors": [
            {"name": "images", "dtype": dtype, "input": True, "shape": shape},
            {"name": "logits", "dtype": "FLOAT", "input": False, "shape": (shape[0], classes)},
        ],
        "layers": layers,
        "errors": errors,
    }
    path.write_text(json.dumps(graph), encoding="utf-8")
    return path


_DTYPES = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF", onnx.TensorProto.UINT8: "UINT8"}


def _read_graph(content: bytes) -> dict[str, Any]:
    if content.startswith(b"{"):
        found: dict[str, Any] = json.loads(content)
        return found
    graph = onnx.load_from_string(content).graph
    if not graph.node:
        raise ValueError("no nodes")
    tensors = [
        {
            "name": value.name,
            "dtype": _DTYPES[value.type.tensor_type.elem_type],
            "input": is_input,
            "shape": [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim],
        }
        for is_input, values in ((True, graph.input), (False, graph.output))
        for value in values
    ]
    return {"tensors": tensors, "layers": ["FLOAT"] * len(graph.node), "errors": []}


class ILogger(Bound):
    """To be subclassed; ``log`` is the subclass's."""


class IProgressMonitor(Bound):
    """To be subclassed."""


class IHostMemory(Bound):
    """Memory that TensorRT gave; what it holds is read as a buffer."""

    def _init(self, *arguments: Any) -> None:
        (self._content,) = arguments

    @property
    def nbytes(self) -> int:
        return len(self._content)

    def __bytes__(self) -> bytes:
        return bytes(self._content)


class ITensor(Bound):
    """Output of a layer."""

    def _init(self, *arguments: Any) -> None:
        (self._dtype,) = arguments

    @property
    def dtype(self) -> Any:
        return getattr(self._trt.DataType, self._dtype)


class ILayer(Bound):
    """A layer; an empty type means that it has no output."""

    def _init(self, *arguments: Any) -> None:
        (self._dtype,) = arguments

    @property
    def num_outputs(self) -> int:
        return int(bool(self._dtype))

    def get_output(self, index: int) -> Any:
        assert index < self.num_outputs
        return self._trt.ITensor._made(self._dtype)


class INetworkDefinition(Bound):
    """A graph, once it is parsed."""

    def _init(self, *arguments: Any) -> None:
        (self._flags,) = arguments
        self._graph: dict[str, Any] = {"layers": []}

    @property
    def num_layers(self) -> int:
        return len(self._graph["layers"])

    def get_layer(self, index: int) -> Any:
        return self._trt.ILayer._made(self._graph["layers"][index])


class ParserError(Bound):
    """A finding of the parser."""

    def _init(self, *arguments: Any) -> None:
        (self._finding,) = arguments

    def node(self) -> int:
        return int(self._finding[0])

    def node_name(self) -> str:
        return str(self._finding[1])

    def node_operator(self) -> str:
        return str(self._finding[2])

    def desc(self) -> str:
        return str(self._finding[3])


class OnnxParser(Bound):
    """Reads what :func:`write_graph` wrote."""

    def _init(self, *arguments: Any) -> None:
        self._network, self._logger = arguments
        self._findings: list[Any] = []

    def parse(self, model: Any, path: str | None = None) -> bool:  # noqa: ARG002
        try:
            graph = _read_graph(bytes(model))
        except (ValueError, DecodeError):
            self._trt._say("ERROR", "ModelImporter: no model")
            return False
        self._network._graph = graph
        self._findings = graph["errors"]
        return not self._findings

    @property
    def num_errors(self) -> int:
        return len(self._findings)

    def get_error(self, index: int) -> Any:
        return self._trt.ParserError._made(self._findings[index])


class IOptimizationProfile(Bound):
    """Shapes of the input."""

    def _init(self, *arguments: Any) -> None:
        assert not arguments
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self._shapes[name] = (tuple(least), tuple(usual), tuple(most))


class ITimingCache(Bound):
    """Timings; empty, or those that a fake of the same flavor made."""

    def _init(self, *arguments: Any) -> None:
        self._content, self._valid = arguments

    def serialize(self) -> Any:
        return self._trt.IHostMemory._made(self._content)


class IBuilderConfig(Bound):
    """Everything that is set is kept for the plan; TF32 is on until it is cleared, as in the real one."""

    def _init(self, *arguments: Any) -> None:
        assert not arguments
        self._flags = {"TF32"}
        self._profiles: list[Any] = []
        self._pools: dict[str, int] = {}
        self._cache: Any = None
        self._capabilities: dict[int, str] = {}

    progress_monitor: Any = None
    profiling_verbosity: Any = None
    builder_optimization_level: int = 3
    hardware_compatibility_level: Any = None
    num_compute_capabilities: int = 0

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._pools[pool.name] = size

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        if index >= self.num_compute_capabilities or self._trt._gpu.refuses("set_compute_capability"):
            return False
        self._capabilities[index] = capability.name
        return True

    def add_optimization_profile(self, profile: Any) -> int:
        if self._trt._gpu.refuses("add_optimization_profile"):
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, content: Any) -> Any:
        content = bytes(content)
        if self._trt._gpu.refuses("create_timing_cache"):
            return None
        valid = not content or content.startswith((SAY_TIMING + self._api.flavor).encode())
        return self._trt.ITimingCache._made(content, valid)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:  # noqa: FBT001 (TensorRT's own)
        if not cache._valid and not ignore_mismatch:
            self._trt._say("ERROR", "the timing cache is of another version")
            return False
        self._cache = cache
        return True

    def _said(self) -> dict[str, Any]:
        level = self.__dict__.get("hardware_compatibility_level")
        return {
            "flags": sorted(self._flags),
            "pools": self._pools,
            "level": self.builder_optimization_level,
            "hardware": None if level is None else level.name,
            "capabilities": [self._capabilities[index] for index in sorted(self._capabilities)],
            "verbosity": self.profiling_verbosity.name,
        }


class Builder(Bound):
    """Builds in the thread that calls it; needs no GPU."""

    def _init(self, *arguments: Any) -> None:
        self._trt._enter(self, "builder", *arguments)

    def create_network(self, flags: int) -> Any:
        strongly = 1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        if not flags & strongly:
            raise self._trt._gpu.violate("the network is not strongly typed")
        return self._trt.INetworkDefinition._made(flags)

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig._made()

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile._made()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        if not self._go_on(config.progress_monitor):
            return None
        for severity, text in self._trt.build_says:
            self._trt._say(severity, text)
        if self._trt.build_fails:
            return None
        if config._cache is not None:
            config._cache._content = f"{SAY_TIMING}{self._api.flavor}, 1 kernel".encode()
        profiles = [list(profile._shapes.values()) for profile in config._profiles]
        plan = {
            "flavor": self._api.flavor,
            "tensors": network._graph["tensors"],
            "profiles": profiles,
            "config": config._said(),
        }
        return self._trt.IHostMemory._made(PLAN_MARK + json.dumps(plan).encode())

    def _go_on(self, monitor: Any) -> bool:
        """Report steps; where the test interrupts, go on until the monitor says stop, then report the end."""
        callback(monitor, "phase_start", "Building", None, STEPS)
        going = True
        for number in range(STEPS):
            going = callback(monitor, "step_complete", "Building", number)
            if not going:
                break
        if going and self._trt.interrupt is not None:
            self._trt.interrupt()
            deadline = time.monotonic() + 20
            while (going := callback(monitor, "step_complete", "Building", STEPS - 1)) and (
                time.monotonic() < deadline
            ):
                threading.Event().wait(0.01)
        callback(monitor, "phase_finish", "Building")
        return bool(going)
