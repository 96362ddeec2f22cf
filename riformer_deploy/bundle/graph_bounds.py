"""What a graph may make a runtime do: known operators alone, and values of bounded size.

Graphs come from this toolkit's exporter, which writes a few operators and no loops, no branches and no
arithmetic of shapes. So the size of every value is known before a runtime opens the file. It is computed here
for one image, or for the batch that the graph is fixed to; with the batch no value grows faster than it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from riformer_deploy.bundle.graph_reader import (
    GraphError,
    GraphNode,
    Shape,
    StoredGraph,
    StoredTensor,
    read_graph,
)

MOST_VALUES = 2**31
"""Of one tensor; the largest of the largest published model has 3.5 million an image at 384 px."""
MOST_VALUES_TOGETHER = 2**38
MOST_MULTIPLY_ADDS = 2**46
"""Of the whole graph; the largest published model needs 3.6e10 an image at 384 px."""


def check_graph(content: bytes) -> dict[str, Shape]:
    """See that a runtime can be given a graph.

    Args:
        content: The ONNX file's.

    Returns:
        Sizes of every value, for one image; of a part that is cut out, at most these.

    Raises:
        GraphError: As :func:`~riformer_deploy.bundle.graph_reader.read_graph`; or the graph has an operator
            that no export has, the size of a value cannot be told or grows with the square of the batch, or
            sizes are beyond this module's limits.
    """
    graph = read_graph(content)
    unknown = sorted({node.operator for node in graph.nodes} - OPERATORS)
    if unknown:
        raise GraphError(f"it has operators that no export of this toolkit has: {', '.join(unknown)[:200]}")
    shapes = _sizes_of(graph, batch=1)
    if any(shape[:1] == (None,) for shape in graph.inputs.values()):
        for name, shape in _sizes_of(graph, batch=2).items():
            if prod(shape) > 2 * prod(shapes[name]):
                raise GraphError(f"its value {name} grows faster than the batch")
    return shapes


def _sizes_of(graph: StoredGraph, batch: int) -> dict[str, Shape]:
    sizes = _Sizes(graph.tensors, graph.inputs, batch)
    for node in graph.nodes:
        try:
            sizes.add(node)
        except (IndexError, KeyError, TypeError, ZeroDivisionError) as err:
            raise GraphError(f"the sizes of what its node {node.outputs[:1]} gives cannot be told") from err
    return sizes.shapes


class _Sizes:
    """Shapes of the values so far, for a batch where the graph leaves it open."""

    def __init__(
        self, tensors: dict[str, StoredTensor], inputs: dict[str, tuple[int | None, ...]], batch: int
    ) -> None:
        self._constants = dict(tensors)
        self.shapes: dict[str, Shape] = {name: tensor.shape for name, tensor in tensors.items()}
        for name, shape in inputs.items():
            if name not in tensors:
                if None in shape[1:]:
                    raise GraphError(f"its input {name} has no fixed size")
                self._define(name, tuple(batch if size is None else size for size in shape))
        self._together = self._multiply_adds = 0

    def add(self, node: GraphNode) -> None:
        """Find the sizes of what a node gives."""
        if node.operator == "Constant":
            value = node.attributes["value"]
            if not isinstance(value, StoredTensor):
                raise TypeError
            (name,) = node.outputs
            self._constants[name] = value
            self._define(name, value.shape)
            return
        for name in node.inputs:
            if name and name not in self.shapes:
                raise GraphError(f"its value {name} is used before it is given")
        shape = _RULES[node.operator](self, node)
        for name in node.outputs:
            self._define(name, shape)
            self._together += prod(shape)
        if self._together > MOST_VALUES_TOGETHER:
            raise GraphError(f"its values are together more than {MOST_VALUES_TOGETHER:,}")

    def _define(self, name: str, shape: Shape) -> None:
        if name in self.shapes:
            raise GraphError(f"its value {name} is given twice")
        if min(shape, default=1) < 1:
            raise GraphError(f"its value {name} is empty: its sizes are {list(shape)}")
        if prod(shape) > MOST_VALUES:
            raise GraphError(f"its value {name} is of {list(shape)} numbers, more than {MOST_VALUES:,}")
        self.shapes[name] = shape

    def of(self, node: GraphNode, index: int) -> Shape:
        """Shape of one of a node's inputs."""
        return self.shapes[node.inputs[index]]

    def numbers(self, node: GraphNode, index: int) -> tuple[int, ...]:
        """Values of one of a node's inputs, which must be a constant."""
        found = self._constants[node.inputs[index]].numbers
        if found is None:
            raise TypeError
        return found

    def cost(self, multiply_adds: int) -> None:
        """Count what a node computes."""
        self._multiply_adds += multiply_adds
        if self._multiply_adds > MOST_MULTIPLY_ADDS:
            raise GraphError(f"it needs more than {MOST_MULTIPLY_ADDS:,} multiply-adds")


def _number(node: GraphNode, name: str, default: int) -> int:
    value = node.attributes.get(name, default)
    if not isinstance(value, int):
        raise TypeError
    return value


def _numbers(node: GraphNode, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    value = node.attributes.get(name, default)
    if not isinstance(value, tuple):
        raise TypeError
    return value


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise IndexError
    return axis % rank


def _broadcast(one: Shape, other: Shape) -> Shape:
    rank = max(len(one), len(other))
    pairs = zip((1,) * (rank - len(one)) + one, (1,) * (rank - len(other)) + other, strict=True)
    shape = []
    for a, b in pairs:
        if a != b and 1 not in (a, b):
            raise IndexError
        shape.append(max(a, b))
    return tuple(shape)


def _same(sizes: _Sizes, node: GraphNode) -> Shape:
    return sizes.of(node, 0)


def _elementwise(sizes: _Sizes, node: GraphNode) -> Shape:
    return _broadcast(sizes.of(node, 0), sizes.of(node, 1))


def _convolution(sizes: _Sizes, node: GraphNode) -> Shape:
    count, channels, *sides = sizes.of(node, 0)
    outputs, inputs, *kernel = sizes.of(node, 1)
    rank = len(sides)
    pads, strides = _numbers(node, "pads", (0,) * 2 * rank), _numbers(node, "strides", (1,) * rank)
    dilations = _numbers(node, "dilations", (1,) * rank)
    if node.attributes.get("auto_pad", "NOTSET") != "NOTSET" or channels != inputs * _number(
        node, "group", 1
    ):
        raise TypeError
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise IndexError
    if min(pads, default=0) < 0 or min(*strides, *dilations) < 1:
        raise IndexError
    given = tuple(
        (side + pads[i] + pads[i + rank] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, side in enumerate(sides)
    )
    sizes.cost(prod((outputs, inputs, *kernel)) * prod(given) * count)
    return (count, outputs, *given)


def _product(sizes: _Sizes, node: GraphNode) -> Shape:
    *batch, rows, inner = sizes.of(node, 0)
    *others, same, columns = sizes.of(node, 1)
    if inner != same:
        raise IndexError
    together = _broadcast(tuple(batch), tuple(others))
    sizes.cost(prod(together) * rows * inner * columns)
    return (*together, rows, columns)


def _gemm(sizes: _Sizes, node: GraphNode) -> Shape:
    rows, inner = sizes.of(node, 0)[:: -1 if _number(node, "transA", 0) else 1]
    same, columns = sizes.of(node, 1)[:: -1 if _number(node, "transB", 0) else 1]
    if inner != same:
        raise IndexError
    sizes.cost(rows * inner * columns)
    return rows, columns


def _reshape(sizes: _Sizes, node: GraphNode) -> Shape:
    source, target = sizes.of(node, 0), list(sizes.numbers(node, 1))
    if _number(node, "allowzero", 0) == 0:
        target = [source[place] if size == 0 else size for place, size in enumerate(target)]
    if target.count(-1) > 1 or min(target, default=1) < -1:
        raise IndexError
    if -1 in target:
        target[target.index(-1)] = prod(source) // -prod(target)
    if prod(target) != prod(source):
        raise IndexError
    return tuple(target)


def _transpose(sizes: _Sizes, node: GraphNode) -> Shape:
    source = sizes.of(node, 0)
    order = _numbers(node, "perm", tuple(reversed(range(len(source)))))
    if sorted(order) != list(range(len(source))):
        raise IndexError
    return tuple(source[place] for place in order)


def _mean(sizes: _Sizes, node: GraphNode) -> Shape:
    source = sizes.of(node, 0)
    axes = sizes.numbers(node, 1) if len(node.inputs) > 1 and node.inputs[1] else tuple(range(len(source)))
    taken = {_axis(axis, len(source)) for axis in axes}
    if _number(node, "keepdims", 1):
        return tuple(1 if place in taken else size for place, size in enumerate(source))
    return tuple(size for place, size in enumerate(source) if place not in taken)


def _pooled(sizes: _Sizes, node: GraphNode) -> Shape:
    count, channels, *sides = sizes.of(node, 0)
    return (count, channels, *(1 for _ in sides))


def _flattened(sizes: _Sizes, node: GraphNode) -> Shape:
    source = sizes.of(node, 0)
    axis = _axis(_number(node, "axis", 1), len(source) + 1)
    return prod(source[:axis]), prod(source[axis:])


def _squeezed(sizes: _Sizes, node: GraphNode) -> Shape:
    source = sizes.of(node, 0)
    if len(node.inputs) > 1 and node.inputs[1]:
        gone = {_axis(axis, len(source)) for axis in sizes.numbers(node, 1)}
    else:
        gone = {place for place, size in enumerate(source) if size == 1}
    if any(source[place] != 1 for place in gone):
        raise IndexError
    return tuple(size for place, size in enumerate(source) if place not in gone)


def _unsqueezed(sizes: _Sizes, node: GraphNode) -> Shape:
    source, axes = list(sizes.of(node, 0)), sizes.numbers(node, 1)
    for axis in sorted(_axis(axis, len(source) + len(axes)) for axis in axes):
        source.insert(axis, 1)
    return tuple(source)


def _best(sizes: _Sizes, node: GraphNode) -> Shape:
    source = list(sizes.of(node, 0))
    (count,) = sizes.numbers(node, 1)
    axis = _axis(_number(node, "axis", -1), len(source))
    if not 1 <= count <= source[axis]:
        raise IndexError
    source[axis] = count
    return tuple(source)


_RULES: dict[str, Callable[[_Sizes, GraphNode], Shape]] = {
    **dict.fromkeys(("Add", "Div", "Mul", "Pow", "Sub"), _elementwise),
    **dict.fromkeys(("Cast", "Erf", "Gelu", "Identity", "Reciprocal", "Softmax", "Sqrt"), _same),
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization", "LayerNormalization"), _same),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _same),
    "Slice": _same,  # the most that it can give
    "Conv": _convolution,
    "Flatten": _flattened,
    "Gemm": _gemm,
    "GlobalAveragePool": _pooled,
    "MatMul": _product,
    "ReduceMean": _mean,
    "Reshape": _reshape,
    "Squeeze": _squeezed,
    "TopK": _best,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueezed,
}
OPERATORS = frozenset(_RULES) | {"Constant"}
"""What exports of all precisions, forms and operator sets consist of."""
