"""An ONNX graph that PyTorch runs, node by node, on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
import torch
from torch import Tensor

from tests.fakes.standin import operators as _operators  # noqa: F401  # registers them
from tests.fakes.standin import shape_operators as _shape_operators  # noqa: F401
from tests.fakes.standin.nodes import OPERATORS, Node
from tests.fakes.standin.types import DTYPES, NAMES, dtype_of, tensor_of

_SHAPE_TYPES = (torch.int64, torch.int32, torch.bool)
"""Constants of these types describe shapes, and stay on the host."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: Its name.
        dtype: Of its elements.
        shape: Its shape; -1 where dynamic.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    return Port(
        name=value.name,
        dtype=dtype_of(kind.elem_type),
        shape=tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim),
    )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What keeps a graph from being run.

    Attributes:
        index: Number of the node, or -1.
        node: The node's name.
        op: Its operator.
        problem: What is wrong with it.
    """

    index: int
    node: str
    op: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A graph as it was read.

    Attributes:
        inputs: Without the constants.
        outputs: In order.
        nodes: In the order of execution.
        constants: By name, on the host.
        layers: TensorRT's name of the type of each node's first output; FLOAT where it is not told.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    layers: tuple[str, ...]

    @classmethod
    def read(cls, content: bytes) -> Graph:
        """Read an ONNX file.

        Raises:
            google.protobuf.message.DecodeError: It is none.
            ValueError: A constant, input or output has a type that is not known.
        """
        graph = onnx.load_from_string(content).graph
        constants = {item.name: tensor_of(item) for item in graph.initializer}
        types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
        shown = (NAMES.get(DTYPES.get(types.get(node.output[0], 1), torch.float32)) for node in graph.node)
        return cls(
            inputs=tuple(_port(value) for value in graph.input if value.name not in constants),
            outputs=tuple(map(_port, graph.output)),
            nodes=tuple(map(Node.of, graph.node)),
            constants=constants,
            layers=tuple(name or "FLOAT" for name in shown),
        )

    def findings(self) -> tuple[Finding, ...]:
        """Every node whose operator is not known, and every input or output that no memory can hold."""
        unknown = [
            Finding(index=index, node=node.name, op=node.op, problem=f"there is no operator {node.op} here")
            for index, node in enumerate(self.nodes)
            if node.op not in OPERATORS and node.op != "Constant"
        ]
        bound = [
            Finding(index=-1, node=port.name, op="", problem=f"{port.dtype} is no type of an input or output")
            for port in (*self.inputs, *self.outputs)
            if port.dtype not in NAMES
        ]
        return (*unknown, *bound)


def _constant(node: Node) -> Tensor:
    for name, value in node.attributes.items():
        match name:
            case "value":
                return tensor_of(value)
            case "value_float" | "value_floats":
                return torch.tensor(value, dtype=torch.float32)
            case "value_int" | "value_ints":
                return torch.tensor(value, dtype=torch.int64)
    raise ValueError(f"{node.name} is a Constant of {', '.join(node.attributes)}")


@dataclass(kw_only=True)
class Scratch:
    """What one context keeps between its runs.

    Attributes:
        moved: Host values that an operator on the device needed there, by name. They follow from the shape
            of the input, so they are moved in the first run and not again: a copy from unpinned memory
            waits, which no capture allows.
    """

    moved: dict[str, Tensor] = field(default_factory=dict)


class Program:
    """A graph on a device: weights moved, and everything that does not depend on inputs computed.

    Args:
        graph: Without findings.
        device: Where it runs.
    """

    def __init__(self, graph: Graph, device: torch.device) -> None:
        self._device = torch.empty(0, device=device).device  # with its number
        self._known = {
            name: value if value.dtype in _SHAPE_TYPES else value.to(device)
            for name, value in graph.constants.items()
        }
        self._nodes: list[Node] = []
        scratch = Scratch()
        with torch.inference_mode():
            for node in graph.nodes:
                if node.op == "Constant":
                    value = _constant(node)
                    self._known[node.outputs[0]] = value if value.dtype in _SHAPE_TYPES else value.to(device)
                elif all(name in self._known for name in node.inputs if name):
                    self._known.update(self._done(node, self._known, scratch))
                else:
                    self._nodes.append(node)
        self.outputs = tuple(port.name for port in graph.outputs)
        self._last = self._last_uses()
        wanted = {name for node in self._nodes for name in node.inputs} | set(self.outputs)
        self._known = {name: value for name, value in self._known.items() if name in wanted}

    def _last_uses(self) -> list[tuple[str, ...]]:
        """For each node, what nobody needs after it."""
        seen = set(self.outputs)
        found: list[tuple[str, ...]] = []
        for node in reversed(self._nodes):
            names = dict.fromkeys((*node.inputs, *node.outputs))
            found.append(tuple(name for name in names if name and name not in seen))
            seen.update(names)
        return found[::-1]

    def _done(self, node: Node, values: Mapping[str, Tensor], scratch: Scratch) -> dict[str, Tensor]:
        """The outputs of a node."""
        given = [values[name] if name else None for name in node.inputs]
        if node.op not in _ON_HOST and any(v is not None and v.device == self._device for v in given):
            given = [
                value if value is None or value.device == self._device else self._there(name, value, scratch)
                for name, value in zip(node.inputs, given, strict=True)
            ]
        result = OPERATORS[node.op](node, *given)
        results = result if isinstance(result, tuple) else (result,)
        return {name: value for name, value in zip(node.outputs, results, strict=False) if name}

    def _there(self, name: str, value: Tensor, scratch: Scratch) -> Tensor:
        if name not in scratch.moved:
            scratch.moved[name] = value.to(self._device)
        return scratch.moved[name]

    def run(self, inputs: Mapping[str, Tensor], scratch: Scratch) -> dict[str, Tensor]:
        """The outputs.

        Args:
            inputs: On the device, by name.
            scratch: Of the context that runs it.
        """
        values = {**self._known, **inputs}
        for node, over in zip(self._nodes, self._last, strict=True):
            values.update(self._done(node, values, scratch))
            for name in over:
                del values[name]
        return {name: values[name] for name in self.outputs}


_ON_HOST = frozenset(
    {
        "Expand", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Reshape", "Slice", "Squeeze", "TopK",
        "Unsqueeze",
    }
)  # fmt: skip
"""Operators whose further inputs are shapes, axes or counts, which stay on the host."""


def run_once(content: bytes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a graph and run it on the host.

    Args:
        content: The ONNX file.
        inputs: By name.
    """
    program = Program(Graph.read(content), torch.device("cpu"))
    with torch.inference_mode():
        return program.run(inputs, Scratch())
