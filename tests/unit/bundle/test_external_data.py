"""ONNX files whose weights lie elsewhere, made by ``onnx`` itself, and files that only look like ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from riformer_deploy.bundle import external_data
from riformer_deploy.bundle.external_data import ExternalDataError, refuse_external_data


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


@pytest.fixture(name="model")
def fixture_model() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "own")
    graph = helper.make_graph([helper.make_node("Add", ["x", "own"], ["y"])], "g", [x], [], [weights])
    return helper.make_model(graph)


def test_a_file_that_holds_its_weights_passes(tmp_path: Path, model: onnx.ModelProto) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    refuse_external_data(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "change",
    [
        initializer,
        location_alone,
        constant,
        inner_graph,
        graphs_of_an_attribute,
        sparse,
        function,
        training,
    ],
    ids=lambda change: change.__name__,
)
def test_external_data_is_found_wherever_a_tensor_can_be(
    tmp_path: Path, model: onnx.ModelProto, change: Callable[[onnx.ModelProto], None]
) -> None:
    change(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExternalDataError, match="another file"):
        refuse_external_data(tmp_path / "model.onnx")


def test_external_data_in_a_second_part_of_the_graph_is_found(tmp_path: Path, model: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    initializer(other)  # protobuf merges what is given twice
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString() + other.SerializeToString())
    with pytest.raises(ExternalDataError, match="another file"):
        refuse_external_data(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "content",
    [b"", b"ir_version: 8", b"\x0a\xff", b"\x3b\x3c", b"\x3a" + b"\xff" * 10, b"\x00\x00", b"\x3a\x05"],
)
def test_what_cannot_be_told_to_hold_its_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ExternalDataError):
        refuse_external_data(tmp_path / "model.onnx")


def varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def test_nesting_and_the_number_of_fields_are_bounded(
    tmp_path: Path, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    content = b""
    for _ in range(22):  # graph, node, attribute, graph, ...
        for number in (6, 5, 1):
            content = bytes([number << 3 | 2]) + varint(len(content)) + content
    path.write_bytes(b"\x3a" + varint(len(content)) + content)
    with pytest.raises(ExternalDataError, match="deeper than 64"):
        refuse_external_data(path)
    onnx.save(model, path)
    monkeypatch.setattr(external_data, "MOST_FIELDS", 10)
    with pytest.raises(ExternalDataError, match="more than 10 fields"):
        refuse_external_data(path)
