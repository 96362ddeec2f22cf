"""Foreign graphs that would keep shape inference busy without end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from riformer_deploy.export import onnx_bounds
from riformer_deploy.export.onnx_bounds import GraphError, check_bounds

OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]


def call(name: str, domain: str = "own") -> NodeProto:
    return helper.make_node(name, ["a"], ["b"], domain=domain)


def model(*nodes: NodeProto) -> ModelProto:
    return helper.make_model(helper.make_graph(list(nodes), "g", [], []), opset_imports=OPSETS)


def add_function(made: ModelProto, name: str, *nodes: NodeProto) -> None:
    made.functions.append(helper.make_function("own", name, ["a"], ["b"], list(nodes), OPSETS))


def inside(depth: int) -> NodeProto:
    node = call("Relu", "")
    for _ in range(depth):
        inner = helper.make_graph([node], "inner", [], [])
        node = helper.make_node("If", ["a"], ["b"], then_branch=inner, else_branch=inner)
    return node


def test_calls_count_as_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model(call("f"), call("f"), call("Relu", ""))
    add_function(made, "f", call("g"), call("g"))
    add_function(made, "g", call("Relu", ""))
    monkeypatch.setattr(onnx_bounds, "MOST_NODES", 11)  # 1 + 2 calls, of 2 calls of 1 node each
    check_bounds(made)
    monkeypatch.setattr(onnx_bounds, "MOST_NODES", 10)
    with pytest.raises(GraphError, match="more than 10 nodes"):
        check_bounds(made)


def test_functions_that_double_are_counted_and_not_walked() -> None:
    made = model(call("f0"))
    for n in range(15):
        inner = call(f"f{n + 1}") if n < 14 else call("Relu", "")
        add_function(made, f"f{n}", inner, inner, inner, inner)
    with pytest.raises(GraphError, match="nodes"):
        check_bounds(made)


def test_a_function_that_calls_itself_is_named() -> None:
    made = model(call("f"))
    add_function(made, "f", call("g"))
    add_function(made, "g", call("f"))
    with pytest.raises(GraphError, match="function f calls itself"):
        check_bounds(made)


def test_the_depth_of_graphs_is_bounded() -> None:
    check_bounds(model(inside(10)))
    with pytest.raises(GraphError, match="more than 16 deep"):
        check_bounds(model(inside(17)))


def _external(tensor: TensorProto) -> None:
    onnx.external_data_helper.set_external_data(tensor, "/dev/zero")


def _many(tensor: TensorProto) -> None:
    tensor.dims[:] = [2**62, 2**62]


def _negative(tensor: TensorProto) -> None:
    tensor.dims[:] = [-1]


def _ranks(tensor: TensorProto) -> None:
    tensor.dims[:] = [1] * 65


@pytest.mark.parametrize(
    ("change", "why"),
    [(_external, "in another file"), (_many, "more values"), (_negative, "of counts"), (_ranks, "of counts")],
)
@pytest.mark.parametrize("place", ["initializer", "attribute", "inner"])
def test_tensors_are_looked_at_wherever_they_are(
    change: Callable[[TensorProto], None], why: str, place: str
) -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    made = {
        "initializer": model(),
        "attribute": model(helper.make_node("Constant", [], ["b"], value=tensor)),
        "inner": model(inside(1)),
    }[place]
    check_bounds(made)
    change(tensor)
    if place == "initializer":
        made.graph.initializer.append(tensor)
    elif place == "attribute":
        made.graph.node[0].attribute[0].t.CopyFrom(tensor)
    else:
        made.graph.node[0].attribute[0].g.initializer.append(tensor)
    with pytest.raises(GraphError, match=f"its tensor w .*{why}"):
        check_bounds(made)
