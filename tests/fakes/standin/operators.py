"""ONNX operators in PyTorch, as far as this project's graphs use them (opset 18 or later).

An operator gets its tensors where they lie: what shapes are computed of is on the host, everything else on
the device. Nothing here waits for the device, so that it can be captured as a CUDA graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fakes.standin.nodes import OPERATORS, Node, Operator, ints, operator
from tests.fakes.standin.types import DTYPES


def _wide(value: Tensor) -> Tensor:
    """As float32, where it is narrower: what half-precision kernels accumulate in."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _elementwise(function: Callable[..., Tensor]) -> Operator:
    return lambda _node, *values: function(*values)


def _divide(left: Tensor, right: Tensor) -> Tensor:
    rounding = None if left.is_floating_point() else "trunc"
    return torch.div(left, right, rounding_mode=rounding)


OPERATORS.update(
    {
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
)


@operator("Gelu")
def _gelu(node: Node, value: Tensor) -> Tensor:
    return F.gelu(value, approximate=node.get("approximate", b"none").decode())


@operator("Conv")
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


@operator("MatMul")
def _matmul(_node: Node, left: Tensor, right: Tensor) -> Tensor:
    return _product(left, right)


@operator("Gemm")
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


@operator("InstanceNormalization")
def _instance_norm(node: Node, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    normed = _normalised(value, range(2, value.ndim), node.get("epsilon", 1e-5))
    return _affine(normed, _per_channel(scale, value.ndim), _per_channel(bias, value.ndim), value.dtype)


@operator("GroupNormalization")  # of opset 21: scale and bias are per channel
def _group_norm(node: Node, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    grouped = value.reshape(value.shape[0], node.attributes["num_groups"], -1)
    normed = _normalised(grouped, (2,), node.get("epsilon", 1e-5)).reshape(value.shape)
    return _affine(normed, _per_channel(scale, value.ndim), _per_channel(bias, value.ndim), value.dtype)


@operator("LayerNormalization")
def _layer_norm(node: Node, value: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    first = node.get("axis", -1) % value.ndim
    normed = _normalised(value, range(first, value.ndim), node.get("epsilon", 1e-5))
    return _affine(normed, scale, bias, value.dtype)


def _reduction(function: Callable[..., Tensor]) -> Operator:
    def reduce(node: Node, value: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = node.get("axes", None) if axes is None else ints(axes)
        if not chosen:
            if node.get("noop_with_empty_axes", 0):
                return value
            chosen = range(value.ndim)
        return function(_wide(value), tuple(chosen), bool(node.get("keepdims", 1))).to(value.dtype)

    return reduce


OPERATORS.update(
    {
        "ReduceMean": _reduction(lambda value, axes, keep: value.mean(axes, keepdim=keep)),
        "ReduceSum": _reduction(lambda value, axes, keep: value.sum(axes, keepdim=keep)),
        "ReduceSumSquare": _reduction(lambda value, axes, keep: value.square().sum(axes, keepdim=keep)),
    }
)


@operator("GlobalAveragePool")
def _pool(_node: Node, value: Tensor) -> Tensor:
    return _wide(value).mean(tuple(range(2, value.ndim)), keepdim=True).to(value.dtype)


@operator("Softmax")
def _softmax(node: Node, value: Tensor) -> Tensor:
    return torch.softmax(value, dim=node.get("axis", -1))


@operator("TopK")
def _topk(node: Node, value: Tensor, count: Tensor) -> tuple[Tensor, ...]:
    (wanted,) = ints(count)
    largest, ordered = bool(node.get("largest", 1)), bool(node.get("sorted", 1))
    return tuple(torch.topk(value, wanted, dim=node.get("axis", -1), largest=largest, sorted=ordered))


@operator("Cast")
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


@operator("QuantizeLinear")
def _quantize(node: Node, value: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    kind = torch.uint8 if not node.get("output_dtype", 0) else DTYPES[node.attributes["output_dtype"]]
    kind = kind if zero is None else zero.dtype
    steps = _wide(value) / _along(_wide(scale), value, node)
    if not kind.is_floating_point:
        steps = torch.round(steps)  # half to even, as ONNX says
    if zero is not None:
        steps = steps + _along(zero.float(), value, node)
    return torch.clamp(steps, *_limits(kind)).to(kind)


@operator("DequantizeLinear")
def _dequantize(node: Node, value: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    steps = value.float()
    if zero is not None:
        steps = steps - _along(zero.float(), value, node)
    return (steps * _along(_wide(scale), value, node)).to(scale.dtype)
