"""Reads an ONNX graph: its inputs and outputs, what its nodes compute in, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod

import onnx

from riformer_deploy.bundle.artifacts import GraphContents, NodeCount, TensorSpec
from riformer_deploy.export.onnx_metadata import MODEL_KEYS

_FREE = frozenset(
    {
        "Add", "Cast", "Concat", "Constant", "DequantizeLinear", "Div", "Erf", "Expand", "Flatten", "Gather",
        "Gelu", "Identity", "Mul", "Pow", "QuantizeLinear", "Reciprocal", "Relu", "Reshape", "Shape", "Slice",
        "Softmax", "Sqrt", "Squeeze", "Sub", "TopK", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that fvcore's counting gives no cost; any other that is not counted makes the sum unknown."""
_NORM_FLOPS, _POOL_FLOPS = 5, 1  # per value, as riformer_deploy.model.flops counts them


_MOST_FLOPS = 2**63


def spec_of(info: onnx.ValueInfoProto) -> TensorSpec:
    """Name, type and shape of a graph's input or output; a sequence or map has type ``unsupported``."""
    if not info.type.HasField("tensor_type"):
        return TensorSpec(name=info.name, dtype="unsupported", shape=())
    tensor = info.type.tensor_type
    dims = tensor.shape.dim
    return TensorSpec(
        name=info.name,
        dtype=_type_name(tensor.elem_type),
        shape=tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims),
    )


def opset_of(graph: onnx.ModelProto) -> int:
    """Version of the default operator set; 0 where the graph uses none."""
    return next((int(item.version) for item in graph.opset_import if item.domain in ("", "ai.onnx")), 0)


def _sizes(graph: onnx.ModelProto) -> dict[str, tuple[int, ...] | None]:
    """Shape of every tensor with the batch set to 1; None where another size is unknown."""
    one = onnx.ModelProto()
    one.CopyFrom(graph)
    symbols = {
        info.type.tensor_type.shape.dim[0].dim_param
        for info in one.graph.input
        if len(info.type.tensor_type.shape.dim) > 1
    } - {""}
    for info in (*one.graph.input, *one.graph.value_info, *one.graph.output):
        for place, dim in enumerate(info.type.tensor_type.shape.dim):
            if dim.dim_param in symbols or (place == 0 and not dim.HasField("dim_value")):
                dim.dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(one, data_prop=True).graph
    found: dict[str, tuple[int, ...] | None] = {
        item.name: tuple(item.dims) for item in graph.graph.initializer
    }
    for info in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = info.type.tensor_type.shape.dim
        known = all(dim.HasField("dim_value") for dim in dims) and info.type.tensor_type.HasField("shape")
        found[info.name] = tuple(dim.dim_value for dim in dims) if known else None
    return found


def _node_flops(node: onnx.NodeProto, sizes: dict[str, tuple[int, ...] | None]) -> int | None:
    """Multiply-adds of one node for one image, or None where a shape or the operator is unknown."""
    source, result = sizes.get(_first(node.input)), sizes.get(_first(node.output))
    weight = sizes.get(node.input[1]) if len(node.input) > 1 else None
    cost: int | None = None
    match node.op_type:
        case "Conv" if weight and result:
            cost = prod(weight) * prod(result[2:])
        case "Gemm" if weight:
            cost = prod(weight)
        case "MatMul" if source and result:
            cost = prod(result[1:]) * source[-1]
        case "InstanceNormalization" | "GroupNormalization" | "LayerNormalization" if source:
            cost = _NORM_FLOPS * prod(source[1:])
        case "ReduceMean" | "GlobalAveragePool" if source:
            cost = _POOL_FLOPS * prod(source[1:])
        case free if free in _FREE:
            cost = 0
        case _:  # its cost, or a shape that it depends on, is not known
            pass
    return cost


def graph_flops(graph: onnx.ModelProto) -> int | None:
    """Multiply-adds of one image, counted as :mod:`riformer_deploy.model.flops` does.

    Args:
        graph: With a static image size; the batch may be dynamic.

    Returns:
        None where the shape of a node that computes is unknown, or they are absurdly many.
    """
    sizes = _sizes(graph)
    costs = [_node_flops(node, sizes) for node in graph.graph.node]
    known = [cost for cost in costs if cost is not None]
    total = sum(known)
    return total if len(known) == len(costs) and total < _MOST_FLOPS else None


def _first(names: Sequence[str]) -> str:
    return names[0] if names else ""


def _type_name(elem_type: int) -> str:
    """NumPy's name of an element type; a file may state any number."""
    if elem_type == onnx.TensorProto.UNDEFINED or elem_type not in onnx.TensorProto.DataType.values():
        return "unknown"
    return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type))


def node_counts(graph: onnx.ModelProto) -> tuple[NodeCount, ...]:
    """Nodes by operator and by the type of their first output.

    Args:
        graph: A valid one.
    """
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    types = {
        info.name: _type_name(info.type.tensor_type.elem_type)
        for info in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    counts = Counter((node.op_type, types.get(_first(node.output), "unknown")) for node in graph.graph.node)
    return tuple(NodeCount(op_type=op, dtype=dtype, count=n) for (op, dtype), n in sorted(counts.items()))


def entries_of(graph: onnx.ModelProto) -> dict[str, str]:
    """The file's ``metadata_props``."""
    return {item.key: item.value for item in graph.metadata_props}


def graph_contents(graph: onnx.ModelProto) -> GraphContents:
    """What a graph holds beside its inputs and outputs; what it says of its model is not in ``provenance``.

    Args:
        graph: A valid one.
    """
    kinds = onnx.TensorProto
    floating = {kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE}
    quantized = {kinds.INT8, kinds.FLOAT8E4M3FN}
    return GraphContents(
        producer=f"{graph.producer_name} {graph.producer_version}".strip(),
        parameters=sum(
            prod(tensor.dims)
            for tensor in graph.graph.initializer
            if tensor.data_type in floating or (tensor.data_type in quantized and len(tensor.dims) > 1)
        ),
        flops=graph_flops(graph),
        nodes=node_counts(graph),
        provenance={key: text for key, text in entries_of(graph).items() if key not in MODEL_KEYS},
    )
