"""Graphs that would make a runtime work or allocate without end, and the rules that tell sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from riformer_deploy.bundle import graph_bounds
from riformer_deploy.bundle.graph_bounds import check_graph
from riformer_deploy.bundle.graph_reader import GraphError

Constants = Mapping[str, np.ndarray]


def graph(
    nodes: Sequence[NodeProto],
    constants: Constants = MappingProxyType({}),
    x: Sequence[int | str] = ("n", 3, 8, 8),
) -> onnx.ModelProto:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, x)
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [given], [], tensors))


def node(operator: str, *inputs: str, out: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs, [out], **attributes)


ONE = np.ones((1, 1), np.float32)
RULES: dict[str, tuple[NodeProto, Constants]] = {
    "padded": (node("Conv", "x", "w", pads=[1, 2, 0, 1], strides=[2, 1]), {"w": np.ones((4, 3, 3, 2), "f4")}),
    "dilated": (node("Conv", "x", "w", dilations=[2, 3]), {"w": np.ones((4, 3, 3, 2), "f4")}),
    "in groups": (node("Conv", "x", "w", group=3), {"w": np.ones((6, 1, 1, 1), "f4")}),
    "broadcast": (node("Mul", "x", "w"), {"w": np.ones((3, 1, 1), "f4")}),
    "product": (node("MatMul", "x", "w"), {"w": np.ones((8, 5), "f4")}),
    "copied and inferred": (node("Reshape", "x", "to"), {"to": np.array([0, 1, -1])}),
    "transposed": (node("Transpose", "x", perm=[0, 2, 3, 1]), {}),
    "reversed": (node("Transpose", "x"), {}),
    "mean": (node("ReduceMean", "x", "axes", keepdims=0), {"axes": np.array([-1, 2])}),
    "mean kept": (node("ReduceMean", "x", "axes"), {"axes": np.array([1])}),
    "mean of all": (node("ReduceMean", "x"), {}),
    "pooled": (node("GlobalAveragePool", "x"), {}),
    "flattened": (node("Flatten", "x"), {}),
    "best": (helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=-2), {"k": np.array([5])}),
    "same": (node("Softmax", "x", axis=1), {}),
    "squeezed": (node("Squeeze", "x", "axes"), {"axes": np.array([0])}),
    "squeezed wherever it can be": (node("Squeeze", "x"), {}),
    "unsqueezed": (node("Unsqueeze", "x", "axes"), {"axes": np.array([0, -1])}),
    "a constant of its own": (node("Constant", value=numpy_helper.from_array(ONE)), {}),
}


@pytest.mark.parametrize("name", RULES)
def test_sizes_are_those_that_onnx_infers(name: str) -> None:
    operation, constants = RULES[name]
    model = graph([operation], constants, x=(1, 3, 8, 8))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True, strict_mode=True).graph.value_info
    true = {item.name: tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim) for item in inferred}
    found = check_graph(model.SerializeToString())
    assert {value: found[value] for value in operation.output} == true


def test_a_product_of_matrices_either_way() -> None:
    weights = np.ones((5, 192), np.float32)
    rows = node("Flatten", "x", out="f")
    check_graph(graph([rows, node("Gemm", "f", "w", transB=1)], {"w": weights}).SerializeToString())
    check_graph(graph([rows, node("Gemm", "f", "w")], {"w": weights.T.copy()}).SerializeToString())
    with pytest.raises(GraphError, match="cannot be told"):
        check_graph(graph([rows, node("Gemm", "f", "w")], {"w": weights}).SerializeToString())


def _loop() -> onnx.ModelProto:
    body = helper.make_graph([], "body", [], [])
    return graph([helper.make_node("Loop", ["", ""], ["y"], body=body)])


def _outer(side: int = 100_000) -> onnx.ModelProto:
    constants = {"row": np.ones((1, side), "f4"), "column": np.ones((side, 1), "f4")}
    return graph([node("Mul", "row", "column")], constants)


def _doubled() -> onnx.ModelProto:
    """Every product is 8 times as many values as the one before."""
    nodes = [node("Reshape", "x", "row", out="a0")]
    for n in range(8):
        nodes += [
            node("Reshape", f"a{n}", "column", out=f"b{n}"),
            node("MatMul", f"b{n}", f"a{n}", out=f"c{n}"),
        ]
        nodes.append(node("Reshape", f"c{n}", "row", out=f"a{n + 1}"))
    return graph(nodes, {"row": np.array([1, -1]), "column": np.array([-1, 1])})


def _squared_batch() -> onnx.ModelProto:
    nodes = [node("Flatten", "x", out="f"), node("Transpose", "f", out="t"), node("MatMul", "f", "t")]
    return graph(nodes)


def _padding() -> onnx.ModelProto:
    return graph([node("Conv", "x", "w", pads=[2**40] * 4)], {"w": np.ones((1, 3, 1, 1), "f4")})


def _many_products() -> onnx.ModelProto:
    nodes = [node("MatMul", "w", "w", out=f"y{n}") for n in range(3)]
    return graph(nodes, {"w": np.zeros((4, 4), "f4")})


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a loop": (_loop, "graphs within nodes"),
    "values out of nothing": (
        lambda: graph([node("ConstantOfShape", "s")], {"s": np.array([2**40])}),
        "operators",
    ),
    "a range": (lambda: graph([node("Range", "s", "s", "s")], {"s": np.array(1)}), "operators .*: Range"),
    "repetition": (lambda: graph([node("Tile", "x", "s")], {"s": np.array([1] * 4)}), "operators .*: Tile"),
    "an operator of others": (lambda: graph([node("Gelu", "x", domain="own")]), "operators .*: own.Gelu"),
    "an outer product": (_outer, "more than 2,147,483,648"),
    "squares of squares": (_doubled, "multiply-adds"),
    "the batch times itself": (_squared_batch, "faster than the batch"),
    "padding": (_padding, "multiply-adds"),
    "a size that is computed": (lambda: graph([node("Reshape", "x", "x")]), "cannot be told"),
    "no batch alone": (lambda: graph([node("Sqrt", "x")], x=("n", 3, "h", 8)), "no fixed size"),
    "no such value": (lambda: graph([node("Sqrt", "z")]), "before it is given"),
    "a value twice": (lambda: graph([node("Sqrt", "x"), node("Erf", "x")]), "given twice"),
    "nothing left": (lambda: graph([node("Conv", "x", "w")], {"w": np.ones((1, 3, 9, 9), "f4")}), "empty"),
    "divided by nothing": (
        lambda: graph([node("Conv", "x", "w", strides=[0, 1])], {"w": ONE}),
        "cannot be told",
    ),
    "three inputs short": (lambda: graph([node("Add", "x")]), "cannot be told"),
    "no constant": (lambda: graph([node("Constant", value_ints=[1])]), "cannot be told"),
}


UNTOLD: dict[str, tuple[NodeProto, Constants]] = {
    "a side that is not one": (node("Squeeze", "x", "axes"), {"axes": np.array([1])}),
    "no such axis": (node("Unsqueeze", "x", "axes"), {"axes": np.array([9])}),
    "more of the best than there are": (
        helper.make_node("TopK", ["x", "k"], ["y", "i"]),
        {"k": np.array([9])},
    ),
    "a permutation that is none": (node("Transpose", "x", perm=[0, 0, 1, 2]), {}),
    "another count of values": (node("Reshape", "x", "to"), {"to": np.array([1, 7])}),
    "two sides to infer": (node("Reshape", "x", "to"), {"to": np.array([-1, -1])}),
    "sizes that do not go together": (node("Add", "x", "w"), {"w": np.ones(5, "f4")}),
    "a product that does not fit": (node("MatMul", "x", "w"), {"w": np.ones((5, 2), "f4")}),
    "a kernel of another rank": (node("Conv", "x", "w", strides=[1]), {"w": np.ones((1, 3, 1, 1), "f4")}),
    "padding that the runtime chooses": (
        node("Conv", "x", "w", auto_pad="SAME_UPPER"),
        {"w": np.ones((1, 3, 1, 1), "f4")},
    ),
    "an attribute of another type": (node("Flatten", "x", axis=[1]), {}),
    "one number for many": (node("Transpose", "x", perm=1), {}),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_sizes_that_do_not_follow_are_refused(name: str) -> None:
    operation, constants = UNTOLD[name]
    with pytest.raises(GraphError, match="cannot be told"):
        check_graph(graph([operation], constants).SerializeToString())


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_export_does_is_refused(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(GraphError, match=said):
        check_graph(make().SerializeToString())


def test_all_values_and_all_products_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _many_products().SerializeToString()
    check_graph(content)
    monkeypatch.setattr(graph_bounds, "MOST_MULTIPLY_ADDS", 3 * 64 - 1)
    with pytest.raises(GraphError, match="more than 191 multiply-adds"):
        check_graph(content)
    monkeypatch.undo()
    monkeypatch.setattr(graph_bounds, "MOST_VALUES_TOGETHER", 3 * 16 - 1)
    with pytest.raises(GraphError, match="together more than 47"):
        check_graph(content)
