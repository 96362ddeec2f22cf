"""ONNX operators in PyTorch, as far as this project's graphs use them (opset 18 or later).

An operator gets its tensors where they lie: what shapes are computed of is on the host, everything else on
the device. Nothing here waits for the device, so that it can be captured as a CUDA graph.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fakes.standin.types import DTYPES

Result = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operator of a graph.

    Attributes:
        name: Its name in the graph.
        op: ONNX's name of the operator.
        inputs: Names of its inputs; empty where an optional one is left out.
        outputs: Names of its outputs.
        attributes: By name, as :func:`onnx.helper.get_attribute_value` gives them.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, proto: onnx.NodeProto) -> Node:
        """Read one."""
        return cls(
            name=proto.name,
            op=proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}",
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes={item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute},
        )

    def get(self, name: str, default: Any) -> Any:
        """An attribute, or the default that ONNX gives it."""
        return self.attributes.get(name, default)


Operator = Callable[..., Result]
OPERATORS: dict[str, Operator] = {}
"""By ONNX's name; each takes the node and its inputs, None where one is left out."""


def _operator(*names: str) -> Callable[[Operator], Operator]:
    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def _ints(value: Tensor | None) -> list[int]:
    """What shape arithmetic gave; it is on the host."""
    assert value is not None
    assert value.device.type == "cpu", "shapes are computed on the host"
    return [int(item) for item in value.reshape(-1).tolist()]


def _wide(value: Tensor) -> Tensor:
    """As float32, where it is narrower: what half-precision kernels accumulate in."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _elementwise(function: Callable[..., Tensor]) -> Operator:
    return lambda _node, *values: function(*values)


def _divide(left: Tensor, right: Tensor) -> Tensor:
    rounding = None if left.is_floating_point() else "trunc"
    return torch.div(left, right, rounding_mode=rounding)


OPERATORS |= {
    "Add": _elementwise(torch.add),
    "Sub": _elementwise(torch.sub),
    "Mul": _elementwise(torch.mul),
    "Div": _elementwise(_divide),
    "Pow": _elementwise(lambda base, exponent: torch.pow(base, exponent).to(base.dtype)),
    "Sqrt": _elementwise(torch.sqrt),
    "Reciprocal": _elementwise(torch.reciprocal),
    "Neg": _elementwise(torch.neg),
    "Abs": _elementwise(torch.abs),
    "Exp": _elementwise(torch.exp),
    "Erf": _elementwise(torch.erf),
    "Tanh": _elementwise(torch.tanh),
    "Sigmoid": _elementwise(torch.sigmoid),
    "Relu": _elementwise(torch.relu),
    "Identity": _elementwise(lambda value: value),
    "Clip": _elementwise(lambda value, least=None, most=None: torch.clamp(value, least, most)),
    "Max": _elementwise(lambda *values: functools.reduce(torch.maximum, values)),
    "Min": _elementwise(lambda *values: functools.reduce(torch.minimum, values)),
}


@_operator("Gelu")
def _gelu(node: Node, value: Tensor) -> Tensor:
    return F.gelu(value, approximate=node.get("approximate", b"none").decode())


@_operator("Conv")
def _conv(node: Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    spatial = value.ndim - 2
    pads = node.get("pads", [0] * 2 * spatial)
    begin, end = pads[:spatial], pads[spatial:]
    if begin != end:  # F.pad begins with the last dimension
        value = F.pad(value, [size for pair in zip(begin[::-1], end[::-1], strict=True) for size in pair])
        begin = [0] * spatial
    dtype = value.dtype
    if value.device.type == "cpu":  # not every processor has these kernels for half
        value, weight = _wide(value), _wide(weight)
        bias = None if bias is None else _wide(bias)
    # F.conv2d would ask global switches, which another thread may be changing: float32 shall be float32,
    # and the same from run to run.
    return torch.ops.aten._convolution.default(  # type: ignore[no-any-return]
        value,
        weight,
        bias,
        node.get("strides", [1] * spatial),
        begin,
        node.get("dilations", [1] * spatial),
        False,  # noqa: FBT003  # transposed
        [0] * spatial,
        node.get("group", 1),
        False,  # noqa: FBT003  # benchmark
        True,  # noqa: FBT003  # deterministic
        True,  # noqa: FBT003  # cudnn_enabled
        False,  # noqa: FBT003  # allow_tf32
    ).to(dtype)


def _product(left: Tensor, right: Tensor) -> Tensor:
    if left.device.type == "cpu":
        return torch.matmul(_wide(left), _wide(right)).to(left.dtype)
    return torch.matmul(left, right)


@_operator("MatMul")
def _matmul(_node: Node, left: Tensor, right: Tensor) -> Tensor:
    return _product(left, right)


@_operator("Gemm")
def _gemm(node: Node, left: Tensor, right: Tensor, added: Tensor | None = None) -> Tensor:
    left = left.T if node.get("transA", 0) else left
    right = right.T if node.get("transB", 0) else right
    result = _scaled(_product(left, right), node.get("alpha", 1.0))
    return result if added is None else result + _scaled(added, node.get("beta", 1.0))


def _scaled(value: Tensor, factor: float) -> Tensor:
    return value if factor == 1.0 else value * factor


def _normalised(value: Tensor, dims: Sequence[int], epsilon: float) -> Tensor:
    """Mean 0 and variance 1 over some dimensions; computed and given in float32 at least."""
    wide = _wide(value)
    variance, mean = torch.var_mean(wide, dim=tuple(dims), correction=0, keepdim=True)
    return (wide - mean) * torch.rsqrt(variance + epsilon)


def _affine(normed: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    result = normed * _wide(scale)
    return (result if bias is None else result + _wide(bias)).to(dtype)


def _per_channel(vector: Tensor, ndim: int) -> Tensor:
    return vector.reshape(1, -1, *[1] * (ndim - 2))


@_operator("InstanceNormalization")
def _instance_norm(node: Node, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    normed = _normalised(value, range(2, value.ndim), node.get("epsilon", 1e-5))
    return _affine(normed, _per_channel(scale, value.ndim), _per_channel(bias, value.ndim), value.dtype)


@_operator("GroupNormalization")  # of opset 21: scale and bias are per channel
def _group_norm(node: Node, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    grouped = value.reshape(value.shape[0], node.attributes["num_groups"], -1)
    normed = _normalised(grouped, (2,), node.get("epsilon", 1e-5)).reshape(value.shape)
    return _affine(normed, _per_channel(scale, value.ndim), _per_channel(bias, value.ndim), value.dtype)


@_operator("LayerNormalization")
def _layer_norm(node: Node, value: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    first = node.get("axis", -1) % value.ndim
    normed = _normalised(value, range(first, value.ndim), node.get("epsilon", 1e-5))
    return _affine(normed, scale, bias, value.dtype)


def _reduction(function: Callable[..., Tensor]) -> Operator:
    def reduce(node: Node, value: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = node.get("axes", None) if axes is None else _ints(axes)
        if not chosen:
            if node.get("noop_with_empty_axes", 0):
                return value
            chosen = range(value.ndim)
        return function(_wide(value), tuple(chosen), bool(node.get("keepdims", 1))).to(value.dtype)

    return reduce


OPERATORS |= {
    "ReduceMean": _reduction(lambda value, axes, keep: value.mean(axes, keepdim=keep)),
    "ReduceSum": _reduction(lambda value, axes, keep: value.sum(axes, keepdim=keep)),
    "ReduceSumSquare": _reduction(lambda value, axes, keep: value.square().sum(axes, keepdim=keep)),
}


@_operator("GlobalAveragePool")
def _pool(_node: Node, value: Tensor) -> Tensor:
    return _wide(value).mean(tuple(range(2, value.ndim)), keepdim=True).to(value.dtype)


@_operator("Softmax")
def _softmax(node: Node, value: Tensor) -> Tensor:
    return torch.softmax(value, dim=node.get("axis", -1))


@_operator("TopK")
def _topk(node: Node, value: Tensor, count: Tensor) -> tuple[Tensor, ...]:
    (wanted,) = _ints(count)
    largest, ordered = bool(node.get("largest", 1)), bool(node.get("sorted", 1))
    return tuple(torch.topk(value, wanted, dim=node.get("axis", -1), largest=largest, sorted=ordered))


@_operator("Cast")
def _cast(node: Node, value: Tensor) -> Tensor:
    return value.to(DTYPES[node.attributes["to"]])


def _limits(dtype: torch.dtype) -> tuple[float, float]:
    found = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return float(found.min), float(found.max)


def _along(parameter: Tensor, value: Tensor, node: Node) -> Tensor:
    """A scale or zero point in a shape that broadcasts: one for all, or one for each index of an axis."""
    if parameter.ndim == 0 or parameter.numel() == 1:
        return parameter.reshape([])
    assert parameter.ndim == 1, "blocked quantization is not known here"
    shape = [1] * value.ndim
    shape[node.get("axis", 1)] = -1
    return parameter.reshape(shape)


@_operator("QuantizeLinear")
def _quantize(node: Node, value: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    kind = torch.uint8 if not node.get("output_dtype", 0) else DTYPES[node.attributes["output_dtype"]]
    kind = kind if zero is None else zero.dtype
    steps = _wide(value) / _along(_wide(scale), value, node)
    if not kind.is_floating_point:
        steps = torch.round(steps)  # half to even, as ONNX says
    if zero is not None:
        steps = steps + _along(zero.float(), value, node)
    return torch.clamp(steps, *_limits(kind)).to(kind)


@_operator("DequantizeLinear")
def _dequantize(node: Node, value: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    steps = value.float()
    if zero is not None:
        steps = steps - _along(zero.float(), value, node)
    return (steps * _along(_wide(scale), value, node)).to(scale.dtype)


@_operator("Shape")
def _shape(node: Node, value: Tensor) -> Tensor:
    return torch.tensor(list(value.shape)[node.get("start", 0) : node.get("end", None)], dtype=torch.int64)


@_operator("Reshape")
def _reshape(node: Node, value: Tensor, shape: Tensor) -> Tensor:
    wanted = _ints(shape)
    if not node.get("allowzero", 0):
        wanted = [value.shape[index] if size == 0 else size for index, size in enumerate(wanted)]
    return value.reshape(wanted)


@_operator("Flatten")
def _flatten(node: Node, value: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + value.ndim if axis < 0 else axis
    return value.reshape(math.prod(value.shape[:axis]), math.prod(value.shape[axis:]))


@_operator("Transpose")
def _transpose(node: Node, value: Tensor) -> Tensor:
    return value.permute(node.get("perm", list(range(value.ndim))[::-1]))


@_operator("Squeeze")
def _squeeze(_node: Node, value: Tensor, axes: Tensor | None = None) -> Tensor:
    return value.squeeze() if axes is None else value.squeeze(tuple(_ints(axes)))


@_operator("Unsqueeze")
def _unsqueeze(_node: Node, value: Tensor, axes: Tensor) -> Tensor:
    chosen = _ints(axes)
    ndim = value.ndim + len(chosen)
    for axis in sorted(axis % ndim for axis in chosen):
        value = value.unsqueeze(axis)
    return value


@_operator("Expand")
def _expand(_node: Node, value: Tensor, shape: Tensor) -> Tensor:
    wanted = torch.broadcast_shapes(value.shape, tuple(_ints(shape)))  # type: ignore[no-untyped-call]
    return value.expand(wanted)


@_operator("Concat")
def _concat(node: Node, *values: Tensor) -> Tensor:
    return torch.cat(values, dim=node.attributes["axis"])


@_operator("Gather")
def _gather(node: Node, value: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0) % value.ndim
    size = value.shape[axis]
    flat = indices.reshape(-1)
    found = value.index_select(axis, torch.where(flat < 0, flat + size, flat))
    return found.reshape(*value.shape[:axis], *indices.shape, *value.shape[axis + 1 :])


@_operator("Slice")
def _slice(
    _node: Node,
    value: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    begin, end = _ints(starts), _ints(ends)
    chosen = list(range(len(begin))) if axes is None else _ints(axes)
    stride = [1] * len(begin) if steps is None else _ints(steps)
    assert min(stride) > 0, "PyTorch slices forward only"
    index = [slice(None)] * value.ndim
    for axis, *parts in zip(chosen, begin, end, stride, strict=True):
        index[axis] = slice(*parts)
    return value[tuple(index)]
