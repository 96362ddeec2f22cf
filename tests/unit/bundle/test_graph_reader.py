"""ONNX files made by ``onnx`` itself: what is read of them, and what is refused before a runtime sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from riformer_deploy.bundle import graph_reader
from riformer_deploy.bundle.graph_reader import (
    GraphError,
    GraphNode,
    StoredGraph,
    StoredTensor,
    read_graph,
    read_model,
)
from riformer_deploy.common.errors import RuntimeFailureError


def external(name: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones((4, 4), np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(external("w"))


def location_alone(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(TensorProto(data_location=TensorProto.EXTERNAL))


def constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=external("c")))


def inner_graph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [external("w")])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))


def graphs_of_an_attribute(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [external("w")])
    model.graph.node.append(helper.make_node("Custom", ["x"], ["y"], graphs=[inner]))


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=external("v"), dims=[4]))


def function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=external("c"))
    opset = helper.make_opsetid("", 20)
    model.functions.append(helper.make_function("own", "F", [], ["c"], [node], [opset]))


def training(model: onnx.ModelProto) -> None:
    model.training_info.append(
        onnx.TrainingInfoProto(algorithm=helper.make_graph([], "a", [], [], [external("w")]))
    )


def twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def two_values(model: onnx.ModelProto) -> None:
    node = helper.make_node("Softmax", ["x"], ["s"], axis=1)
    node.attribute[0].ints.append(7)  # parsers take the one that the kind names
    model.graph.node.append(node)


def more_than_stored(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


def negative(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-4, -4]


def shorter_numbers(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.array([1, 2]), "n")
    tensor.raw_data = tensor.raw_data[:-1]
    model.graph.initializer.append(tensor)


@pytest.fixture(name="model")
def fixture_model() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "own")
    graph = helper.make_graph([helper.make_node("Add", ["x", "own"], ["y"])], "g", [x], [], [weights])
    return helper.make_model(graph)


def test_nodes_constants_and_inputs_are_read(model: onnx.ModelProto) -> None:
    axes = numpy_helper.from_array(np.array([-1, 2**40]), "axes")
    unpacked = TensorProto(name="listed", data_type=TensorProto.INT64, dims=[2], int64_data=[-3, 5])
    model.graph.initializer.extend([axes, unpacked])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=axes),
        helper.make_node("Conv", ["x", "", "own"], ["z"], group=-2, pads=[0, 1], auto_pad="VALID", alpha=0.5),
        helper.make_node("Own", ["x"], [], domain="somebody"),
    ]
    model.graph.node.extend(nodes)
    add, constant, conv, own = (found := read_graph(model.SerializeToString())).nodes
    listed = StoredTensor(shape=(2,), numbers=(-1, 2**40))
    assert add == GraphNode(operator="Add", inputs=("x", "own"), outputs=("y",), attributes={})
    assert constant.attributes == {"value": listed}
    assert conv.inputs == ("x", "", "own")
    assert conv.attributes == {"group": -2, "pads": (0, 1), "auto_pad": "VALID", "alpha": None}
    assert (own.operator, own.outputs) == ("somebody.Own", ())
    assert found == StoredGraph(
        nodes=(add, constant, conv, own),
        tensors={
            "own": StoredTensor(shape=(4, 4), numbers=None),
            "axes": listed,
            "listed": StoredTensor(shape=(2,), numbers=(-3, 5)),
        },
        inputs={"x": (None, 4)},
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (initializer, "another file"),
        (location_alone, "another file"),
        (constant, "another file"),
        (inner_graph, "graphs within nodes"),
        (graphs_of_an_attribute, "graphs within nodes"),
        (sparse, "sparse tensors"),
        (function, "functions of its own"),
        (training, "a training graph"),
        (twice, "own twice"),
        (two_values, "its attribute axis"),
        (more_than_stored, "more values than it stores"),
        (negative, "no shape of counts"),
        (shorter_numbers, "does not store"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_no_export_holds_is_refused(
    model: onnx.ModelProto, change: Callable[[onnx.ModelProto], None], said: str
) -> None:
    read_graph(model.SerializeToString())
    change(model)
    with pytest.raises(GraphError, match=said):
        read_graph(model.SerializeToString())


def test_a_graph_in_two_parts_is_refused(model: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    initializer(other)  # protobuf merges what is given twice
    with pytest.raises(GraphError, match="twice"):
        read_graph(model.SerializeToString() + other.SerializeToString())


@pytest.mark.parametrize(
    "content",
    [b"", b"ir_version: 8", b"\x0a\xff", b"\x3b\x3c", b"\x3a" + b"\xff" * 10, b"\x00\x00", b"\x3a\x05"],
)
def test_what_is_no_onnx_file_is_refused(content: bytes) -> None:
    with pytest.raises(GraphError):
        read_graph(content)


def test_fields_and_nodes_are_bounded(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    content = model.SerializeToString()
    monkeypatch.setattr(graph_reader, "MOST_FIELDS", 10)
    with pytest.raises(GraphError, match="more than 10 fields"):
        read_graph(content)
    monkeypatch.undo()
    monkeypatch.setattr(graph_reader, "MOST_NODES", 0)
    with pytest.raises(GraphError, match="more than 0 nodes"):
        read_graph(content)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"content")
    assert read_model(tmp_path / "model.onnx") == b"content"
    with pytest.raises(RuntimeFailureError, match=r"absent\.onnx cannot be read: No such file"):
        read_model(tmp_path / "absent.onnx")
