"""TensorRT's API over :mod:`tests.fakes.standin.program`: plans hold the graph, and contexts run it.

The protocol is that of the fake TensorRT, and so are its rules; what it computes is real.
"""

from __future__ import annotations

import dataclasses
import importlib.machinery
import json
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from torch import Tensor

from tests.fakes import trt_building, trt_running
from tests.fakes.gpu import FakeGpu
from tests.fakes.standin.machines import Machine
from tests.fakes.standin.program import Graph, Program, Scratch
from tests.fakes.standin.types import NAMES
from tests.fakes.strict import Bound
from tests.fakes.tensorrt import FakeTensorRT
from tests.fakes.trt_running import Plan

VERSION = "99.0+standin"
"""No release of TensorRT: nothing measured with it can be taken for TensorRT's. New enough for us."""
FLAVOR = "tensorrt-11.4"
"""Whose API it has: it captures no graphs itself, so ours are used."""
MARK = b"stand-in plan\n"

_TORCH_TYPES = {name: dtype for dtype, name in NAMES.items()}


class OnnxParser(trt_building.OnnxParser):
    """Takes what can be run, and says which nodes cannot."""

    def parse(self, model: Any, path: str | None = None) -> bool:  # noqa: ARG002
        content = bytes(model)
        try:
            graph = Graph.read(content)
        except (ValueError, DecodeError) as err:
            self._trt._say("ERROR", f"ModelImporter: the model cannot be read: {err}")
            return False
        tensors = [
            {"name": p.name, "dtype": NAMES.get(p.dtype, ""), "input": is_input, "shape": p.shape}
            for is_input, ports in ((True, graph.inputs), (False, graph.outputs))
            for p in ports
        ]
        self._network._graph = {"tensors": tensors, "layers": graph.layers, "onnx": content}
        self._findings = [(f.index, f.node, f.op, f.problem) for f in graph.findings()]
        return not self._findings


class Builder(trt_building.Builder):
    """Adds the graph to what a fake plan says."""

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        made = super().build_serialized_network(network, config)
        if made is None:
            return None
        header = bytes(made).removeprefix(trt_building.PLAN_MARK)
        return self._trt.IHostMemory._made(MARK + header + b"\n" + network._graph["onnx"])


class Runtime(trt_running.Runtime):
    """Loads plans of its own."""

    def deserialize_cuda_engine(self, content: Any) -> Any:
        content = bytes(content)
        if self._trt._gpu.refuses("deserialize_cuda_engine"):
            self._trt._say("ERROR", "out of memory")
            return None
        if not content.startswith(MARK):
            self._trt._say("ERROR", "this is no plan of the stand-in")
            return None
        header, _, onnx = content.removeprefix(MARK).partition(b"\n")
        plan = Plan(trt_building.PLAN_MARK + header)
        return self._trt.ICudaEngine._made(plan, Graph.read(onnx))


class ICudaEngine(trt_running.ICudaEngine):
    """A plan whose weights are on the device."""

    def _init(self, *arguments: Any) -> None:
        plan, self._graph = arguments
        super()._init(plan)
        device = self._trt._machine.device
        self._program = Program(self._graph, device)
        if device.type == "cuda":  # other streams read the weights
            torch.cuda.current_stream(device).synchronize()

    @property
    def num_layers(self) -> int:
        return len(self._graph.nodes)

    def create_engine_inspector(self) -> Any:
        return self._trt.EngineInspector._made([f"{node.op} {node.name}" for node in self._graph.nodes])

    def create_execution_context(self, how: Any = None) -> Any:  # noqa: ARG002
        if self._trt._gpu.refuses("create_execution_context"):
            self._trt._say("ERROR", "no memory for activations")
            return None
        return self._trt.IExecutionContext._made(self._plan, self._program)


class EngineInspector(trt_running.EngineInspector):
    """Names the graph's nodes."""

    def _init(self, *arguments: Any) -> None:
        (self._layers,) = arguments

    def get_engine_information(self, how: Any) -> str:
        return json.dumps({"Layers": self._layers}) if how.name == "JSON" else "\n".join(self._layers)


@dataclasses.dataclass
class _Activations:
    """Device memory of one context, given back in the right order."""

    machine: Machine
    scratch: Scratch
    pools: list[Any]

    def release(self) -> None:
        self.scratch.moved.clear()
        self.machine.retire(self.pools)


class IExecutionContext(trt_running.IExecutionContext):
    """Runs the graph on the addresses and the stream that it is given."""

    def _init(self, *arguments: Any) -> None:
        plan, self._program = arguments
        super()._init(plan, None)
        self._handle: int | None = None
        self._bound: dict[str, Callable[[], Tensor]] = {}
        self._activations = _Activations(
            machine=self._trt._machine, scratch=Scratch(), pools=[self._trt._machine.new_pool()]
        )
        weakref.finalize(self, self._activations.release).atexit = False

    def _on(self, handle: int) -> None:
        if self._handle not in (None, handle):
            raise self._gpu.violate("a context is used on a second stream")
        self._handle = handle

    def set_optimization_profile_async(self, number: int, handle: int) -> bool:
        self._bound = {}
        return super().set_optimization_profile_async(number, handle)

    def set_input_shape(self, name: str, shape: Any) -> bool:
        before = self._shape
        done = super().set_input_shape(name, shape)
        if self._shape != before:
            self._bound = {}
            self._activations.scratch.moved.clear()
        return done

    def set_tensor_address(self, name: str, address: int) -> bool:
        if self._shape is None:
            raise self._gpu.violate(f"{name} is bound before the shape of the input is set")
        if name not in self._plan.tensors or self._gpu.refuses("set_tensor_address"):
            self._trt._say("ERROR", f"{name} cannot be bound")
            return False
        tensor = self._plan.tensors[name]
        shape, _ = tensor.size_of(self._shape[0])
        self._bound[name] = self._trt._machine.memory(address, shape, _TORCH_TYPES[tensor.dtype])
        return True

    def execute_async_v3(self, handle: int) -> bool:
        self._on(handle)
        if missing := self._plan.tensors.keys() - self._bound.keys():
            raise self._gpu.violate(f"execution without addresses of {sorted(missing)}")
        machine: Machine = self._trt._machine
        capturing = machine.capturing(handle)
        if capturing and not self._warm:
            raise self._gpu.violate("a context is captured that never ran: it allocates at its first run")
        if self._gpu.refuses("execute_async_v3"):
            self._trt._say("ERROR", "no kernel image is available")
            return False
        machine.put(handle, self._activations.pools[0], self._work())
        self._warm = True
        return True

    def _work(self) -> Callable[[], None]:
        """One inference with the addresses of now."""
        program, scratch, bound, plan = self._program, self._activations.scratch, self._bound, self._plan
        inputs = [name for name, tensor in plan.tensors.items() if tensor.is_input]

        def work() -> None:
            results = program.run({name: bound[name]() for name in inputs}, scratch)
            for name, result in results.items():
                bound[name]().copy_(result)

        return work


_KINDS = (OnnxParser, Builder, Runtime, ICudaEngine, EngineInspector, IExecutionContext)


class StandInTensorRT(FakeTensorRT):
    """The module.

    Args:
        machine: Where its engines run.
        gpu: Keeps the book on what exists.
    """

    _behaviours: ClassVar[Mapping[str, type[Bound]]] = {
        **FakeTensorRT._behaviours,
        **{kind.__name__: kind for kind in _KINDS},
    }

    def __init__(self, machine: Machine, gpu: FakeGpu) -> None:
        super().__init__(FLAVOR, gpu)
        self._machine = machine
        self.__version__ = VERSION
        self.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)  # find_spec wants one
