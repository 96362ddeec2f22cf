"""Graphs of one operator each, in every way that this project's graphs use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 21


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operator.

    Attributes:
        op: Its name.
        inputs: What it computes of, in order: by name those that are given when it runs.
        constants: By name, those that the graph holds.
        order: Names of its inputs; empty where one is left out.
        outputs: How many it has.
        attributes: Of the node.
        then: An operator that is applied to its output, with constants of its own.
    """

    op: str
    inputs: Mapping[str, NDArray[Any]]
    order: Sequence[str]
    constants: Mapping[str, NDArray[Any] | onnx.TensorProto] = field(default_factory=dict)
    outputs: int = 1
    attributes: Mapping[str, Any] = field(default_factory=dict)
    then: tuple[str, tuple[str, ...]] | None = None

    def model(self) -> bytes:
        """The ONNX file."""
        names = [f"y{index}" for index in range(self.outputs)]
        nodes = [helper.make_node(self.op, list(self.order), names, name="tested", **self.attributes)]
        if self.then is not None:
            op, others = self.then
            nodes.append(helper.make_node(op, [*names, *others], ["z"]))
            names = ["z"]
        constants = []
        for name, value in self.constants.items():
            proto = value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value)
            proto.name = name
            constants.append(proto)
        given = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), [None, *value.shape[1:]]
            )
            for name, value in self.inputs.items()
        ]
        graph = helper.make_graph(
            nodes, "case", given, [onnx.ValueInfoProto(name=n) for n in names], initializer=constants
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opsets, ir_version=10), strict_mode=True
        )
        for output in model.graph.output:  # of an operator that is a function, ONNX infers nothing
            kind = output.type.tensor_type
            kind.elem_type = kind.elem_type or given[0].type.tensor_type.elem_type
        return bytes(model.SerializeToString())


def _random(*shape: int, dtype: type = np.float32, low: float = -2.0, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).uniform(low, 2.0, shape).astype(dtype)


def _ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _scalar(value: float, dtype: type) -> NDArray[Any]:
    return np.array(value, dtype=dtype)


def _float8(values: Sequence[float]) -> onnx.TensorProto:
    return helper.make_tensor(
        "float8", TensorProto.FLOAT8E4M3FN, [len(values)] if len(values) > 1 else [], values
    )


_MAP = _random(2, 4, 6, 5)
_ROWS = _random(3, 6)
_HALVES = _MAP.astype(np.float16)


def _unary(op: str, value: NDArray[Any], **attributes: Any) -> Case:
    return Case(op=op, inputs={"x": value}, order=["x"], attributes=attributes)


def _with(
    op: str, value: NDArray[Any], attributes: Mapping[str, Any] | None = None, **constants: Any
) -> Case:
    return Case(
        op=op, inputs={"x": value}, constants=constants, order=["x", *constants], attributes=attributes or {}
    )


_PER_CHANNEL: dict[str, Any] = {"scale": _random(4, low=0.5, seed=1), "bias": _random(4, seed=2)}
_STEPS: dict[str, Any] = {"scale": _scalar(0.03, np.float32), "zero": _scalar(0, np.int8)}
_CHANNEL_STEPS: dict[str, Any] = {
    "scale": _random(4, low=0.01, seed=3) / 50,
    "zero": np.zeros(4, dtype=np.int8),
}
_LEVELS = np.random.default_rng(4).integers(-128, 128, (2, 4, 3, 3)).astype(np.int8)

CASES: dict[str, Case] = {
    "add": Case(op="Add", inputs={"x": _MAP, "b": _random(2, 4, 1, 1, seed=1)}, order=["x", "b"]),
    "sub": _with("Sub", _MAP, b=_random(4, 1, 1, seed=1)),
    "mul in half": _with("Mul", _HALVES, b=_random(4, 1, 1, dtype=np.float16, seed=1)),
    "div": _with("Div", _MAP, b=_random(4, 1, 1, low=0.5, seed=1)),
    "pow": _with("Pow", _MAP, b=_scalar(2, np.float32)),
    "sqrt": _unary("Sqrt", np.abs(_MAP)),
    "reciprocal": _unary("Reciprocal", np.abs(_MAP) + 0.5),
    "erf": _unary("Erf", _MAP),
    "gelu": _unary("Gelu", _MAP),
    "gelu with tanh": _unary("Gelu", _MAP, approximate="tanh"),
    "clip": _with("Clip", _MAP, least=_scalar(-1, np.float32), most=_scalar(1, np.float32)),
    "pointwise convolution": _with("Conv", _MAP, w=_random(8, 4, 1, 1, seed=1), b=_random(8, seed=2)),
    "downsampling convolution": _with(
        "Conv",
        _MAP,
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]},
        w=_random(8, 4, 3, 3, seed=1),
    ),
    "convolution with uneven padding in groups": _with(
        "Conv", _MAP, {"pads": [0, 1, 2, 3], "group": 2, "dilations": [2, 1]}, w=_random(6, 2, 3, 3, seed=1)
    ),
    "convolution in half": _with(
        "Conv",
        _HALVES,
        w=_random(8, 4, 1, 1, dtype=np.float16, seed=1),
        b=_random(8, dtype=np.float16, seed=2),
    ),
    "matrix product": _with("MatMul", _random(2, 5, 4), w=_random(4, 7, seed=1)),
    "matrix product in half": _with(
        "MatMul", _random(2, 5, 4, dtype=np.float16), w=_random(4, 7, dtype=np.float16, seed=1)
    ),
    "gemm": _with("Gemm", _ROWS, {"transB": 1}, w=_random(7, 6, seed=1), b=_random(7, seed=2)),
    "gemm with factors": _with(
        "Gemm", _ROWS, {"alpha": 0.5, "beta": 2.0}, w=_random(6, 7, seed=1), b=_random(7, seed=2)
    ),
    "instance norm": _with("InstanceNormalization", _MAP, {"epsilon": 1e-3}, **_PER_CHANNEL),
    "group norm": _with("GroupNormalization", _MAP, {"num_groups": 2}, **_PER_CHANNEL),
    "layer norm": _with(
        "LayerNormalization", _MAP, {"axis": 1}, scale=_random(4, 6, 5, seed=1), bias=_random(4, 6, 5, seed=2)
    ),
    "layer norm without bias": _with("LayerNormalization", _MAP, {"axis": -1}, scale=_random(5, seed=1)),
    "mean": _with("ReduceMean", _MAP, axes=_ints(-2, -1)),
    "mean without the axes": _with("ReduceMean", _MAP, {"keepdims": 0}, axes=_ints(2, 3)),
    "sum of squares": _with("ReduceSumSquare", _MAP, axes=_ints(1, 2, 3)),
    "sum of everything": _unary("ReduceSum", _MAP),
    "global average": _unary("GlobalAveragePool", _MAP),
    "softmax": _unary("Softmax", _ROWS, axis=1),
    "topk": Case(op="TopK", inputs={"x": _ROWS}, constants={"k": _ints(3)}, order=["x", "k"], outputs=2),
    "cast to half": _unary("Cast", _MAP, to=TensorProto.FLOAT16),
    "cast of pixels": _unary("Cast", np.arange(24, dtype=np.uint8).reshape(2, 3, 4), to=TensorProto.FLOAT),
    "quantize": _with("QuantizeLinear", 3 * _MAP, **_STEPS),
    "quantize by channel": _with("QuantizeLinear", _MAP, {"axis": 1}, **_CHANNEL_STEPS),
    "quantize without a zero point": _with("QuantizeLinear", np.abs(_MAP), scale=_scalar(0.01, np.float32)),
    "dequantize": _with("DequantizeLinear", _LEVELS, **_STEPS),
    "dequantize by channel": _with("DequantizeLinear", _LEVELS, {"axis": 1}, **_CHANNEL_STEPS),
    "dequantize to half": _with("DequantizeLinear", _LEVELS, scale=_scalar(0.03, np.float16)),
    "quantize to float8 and back": Case(
        op="QuantizeLinear",
        inputs={"x": 400 * _MAP},
        constants={"scale": _scalar(1.5, np.float32), "zero": _float8([0.0])},
        order=["x", "scale", "zero"],
        then=("DequantizeLinear", ("scale", "zero")),
    ),
    "dequantize float8 constants": Case(
        op="DequantizeLinear",
        inputs={"x": _random(3, 4)},
        constants={"q": _float8([1.0, -2.5, 448.0, 0.001953125]), "scale": _scalar(0.5, np.float32)},
        order=["q", "scale"],
        then=("Add", ("x",)),
    ),
    "reshape with the batch kept": _with("Reshape", _MAP, shape=_ints(0, 1, -1)),
    "shape": Case(op="Shape", inputs={"x": _MAP}, order=["x"], attributes={"start": 1}),
    "flatten": _unary("Flatten", _MAP),
    "transpose": _unary("Transpose", _MAP, perm=[0, 2, 3, 1]),
    "squeeze": _with("Squeeze", _random(2, 4, 1, 1), axes=_ints(-1, 2)),
    "unsqueeze": _with("Unsqueeze", _ROWS, axes=_ints(-1, 1)),
    "expand": _with("Expand", _random(1, 4, 1), shape=_ints(3, 1, 5)),
    "concat": Case(
        op="Concat", inputs={"x": _ROWS, "b": _random(3, 2)}, order=["x", "b"], attributes={"axis": 1}
    ),
    "gather": _with("Gather", _MAP, {"axis": 1}, indices=np.array([[2, -1], [0, 1]], dtype=np.int64)),
    "slice": _with(
        "Slice", _MAP, starts=_ints(1, -3), ends=_ints(4, 100), axes=_ints(1, 3), steps=_ints(2, 1)
    ),
    "shape arithmetic": Case(
        op="Shape",
        inputs={"x": _ROWS},
        constants={"first": _ints(0)},
        order=["x"],
        then=("Gather", ("first",)),
    ),
}
"""By a name for people; those in half or with float8 compare within a rounding."""
