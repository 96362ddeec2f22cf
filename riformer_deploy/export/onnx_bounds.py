"""Limits of an ONNX graph, checked before shape inference and counting, which it could make endless."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import onnx

MOST_NODES = 50_000
"""Nodes, a call of a function counted as what it holds; the largest variant's graph has some thousands."""
_MOST_TENSORS, _MOST_DIMENSIONS, _MOST_DEPTH = 100_000, 64, 16
_Name = tuple[str, str]


class GraphError(ValueError):
    """A graph that is not looked into."""


def check_bounds(model: onnx.ModelProto) -> None:
    """Refuse a graph beyond the limits.

    Args:
        model: As it was parsed, without data from other files.

    Raises:
        GraphError: It has more than :data:`MOST_NODES` nodes, functions that call themselves, graphs nested
            more than 16 deep, tensors that state more values than they store, or data in other files.
    """
    _check_tensors(model.graph.initializer)
    _Counter(model).count(model.graph.node, 0, frozenset())


class _Counter:
    """Counts nodes; each function is looked into once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._functions = {(item.domain, item.name): item for item in model.functions}
        self._known: dict[_Name, int] = {}

    def count(self, nodes: Iterable[onnx.NodeProto], depth: int, calling: frozenset[_Name]) -> int:
        if depth > _MOST_DEPTH:
            raise GraphError(f"its graphs and functions are nested more than {_MOST_DEPTH} deep")
        total = 0
        for node in nodes:
            total += 1 + self._called((node.domain, node.op_type), depth, calling)
            for graph in _graphs_of(node):
                _check_tensors(graph.initializer)
                total += self.count(graph.node, depth + 1, calling)
            if total > MOST_NODES:
                raise GraphError(f"it has more than {MOST_NODES:,} nodes")
        return total

    def _called(self, name: _Name, depth: int, calling: frozenset[_Name]) -> int:
        if name not in self._functions:
            return 0
        if name in calling:
            raise GraphError(f"its function {name[1]} calls itself")
        if name not in self._known:
            self._known[name] = self.count(self._functions[name].node, depth + 1, calling | {name})
        return self._known[name]


def _graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        _check_tensors([*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors])
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_tensors(tensors: Sequence[onnx.TensorProto]) -> None:
    if len(tensors) > _MOST_TENSORS:
        raise GraphError(f"it has more than {_MOST_TENSORS:,} tensors")
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise GraphError(f"its tensor {tensor.name} is in another file, which nothing vouches for")
        if len(tensor.dims) > _MOST_DIMENSIONS or any(size < 0 for size in tensor.dims):
            raise GraphError(f"its tensor {tensor.name} has no shape of counts")
        if prod(tensor.dims) > 8 * tensor.ByteSize():  # a value has at least one bit
            raise GraphError(f"its tensor {tensor.name} states more values than it stores")
