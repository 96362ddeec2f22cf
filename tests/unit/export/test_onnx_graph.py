from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from riformer_deploy.bundle.artifacts import NodeCount
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import OnnxOptions, export_onnx
from riformer_deploy.export.onnx_graph import graph_flops, node_counts, opset_of, spec_of
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.flops import complexity
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold

Shape = Sequence[int | str | None]


def _graph(
    nodes: Sequence[onnx.NodeProto],
    source: Shape,
    result: Shape,
    weights: dict[str, Sequence[int]],
    opsets: Sequence[tuple[str, int]] = (("", 20),),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(source))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(result))],
        [numpy_helper.from_array(np.zeros(shape, dtype=np.float32), name) for name, shape in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*item) for item in opsets])
    onnx.checker.check_model(model)
    return model


def _one(op: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, ["x", *inputs], ["y"], **attributes)


CONV = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}


@pytest.mark.parametrize("batch", ["batch", None, 1])
def test_a_convolution_costs_its_weights_at_every_output_pixel(batch: str | int | None) -> None:
    graph = _graph([_one("Conv", "w", **CONV)], [batch, 3, 10, 6], [batch, 8, 5, 3], {"w": (8, 3, 3, 3)})
    assert graph_flops(graph) == 8 * 3 * 3 * 3 * 5 * 3


def test_a_grouped_convolution_costs_what_its_smaller_weights_do() -> None:
    graph = _graph([_one("Conv", "w", group=4)], [1, 4, 5, 5], [1, 8, 5, 5], {"w": (8, 1, 1, 1)})
    assert graph_flops(graph) == 8 * 25


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_linear_layer_costs_its_weights(transposed: int) -> None:
    weight = (7, 5) if transposed else (5, 7)
    graph = _graph([_one("Gemm", "w", transB=transposed)], ["n", 5], ["n", 7], {"w": weight})
    assert graph_flops(graph) == 35


def test_norms_cost_five_and_poolings_one_per_value() -> None:
    norm = _graph(
        [_one("InstanceNormalization", "s", "b")], ["n", 4, 5, 6], ["n", 4, 5, 6], {"s": (4,), "b": (4,)}
    )
    assert graph_flops(norm) == 5 * 4 * 5 * 6
    pool = _graph([_one("GlobalAveragePool")], ["n", 4, 5, 6], ["n", 4, 1, 1], {})
    assert graph_flops(pool) == 4 * 5 * 6


def test_elementwise_operators_cost_nothing() -> None:
    assert graph_flops(_graph([_one("Relu")], ["n", 4, 5, 6], ["n", 4, 5, 6], {})) == 0


def test_the_cost_is_unknown_where_the_image_size_is() -> None:
    graph = _graph([_one("Conv", "w", **CONV)], ["n", 3, "h", "w_"], ["n", 8, "i", "j"], {"w": (8, 3, 3, 3)})
    assert graph_flops(graph) is None


def test_a_matrix_product_of_tokens_costs_its_weights_for_each_token() -> None:
    graph = _graph([_one("MatMul", "w")], ["n", 196, 16], ["n", 196, 8], {"w": (16, 8)})
    assert graph_flops(graph) in (None, 196 * 16 * 8)


@pytest.mark.parametrize(
    ("node", "source", "result", "weights", "cost"),
    [
        (_one("ConvTranspose", "w"), [1, 3, 4, 4], [1, 5, 6, 6], {"w": (3, 5, 3, 3)}, 3 * 5 * 9 * 16),
        (
            _one("LayerNormalization", "s", axis=1),
            [1, 4, 5, 6],
            [1, 4, 5, 6],
            {"s": (4, 5, 6)},
            5 * 120,
        ),
        (_one("AveragePool", kernel_shape=[2, 2]), [1, 3, 4, 4], [1, 3, 3, 3], {}, 3 * 9),
        (_one("Einsum", "w", equation="nk,km->nm"), [1, 5], [1, 7], {"w": (5, 7)}, 35),
    ],
    ids=["ConvTranspose", "LayerNormalization", "AveragePool", "Einsum"],
)
def test_an_operator_that_computes_is_counted_or_the_total_is_unknown_but_never_free(
    node: onnx.NodeProto, source: Shape, result: Shape, weights: dict[str, Sequence[int]], cost: int
) -> None:
    assert graph_flops(_graph([node], source, result, weights)) in (None, cost)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("batch", "opset"),
    [(None, 18), (2, 21), (2, 20)],
    ids=["dynamic, opset 18", "batch 2, opset 21", "batch 2"],
)
def test_an_exported_graph_costs_per_image_what_its_model_does(
    tmp_path: Path,
    tiny_architecture: Architecture,
    tiny_model: RIFormer,
    batch: int | None,
    opset: int,
) -> None:
    path = tmp_path / "model.onnx"
    plain = Preprocessing(resize_short_edge_px=None, crop_px=(64, 48))
    lowered = lower(fold(tiny_model), LoweringConfig(), plain)
    export_onnx(lowered, path, OnnxOptions(image_size_px=(64, 48), batch=batch, opset=opset), {})
    expected = complexity(tiny_architecture, Form.FOLDED, (64, 48)).flops
    assert graph_flops(onnx.load(path)) == expected


def test_counting_leaves_the_graph_as_it_was(tiny_bundle: Path, onnx_of: Callable[[Path], Path]) -> None:
    graph = onnx.load(onnx_of(tiny_bundle))
    before = graph.SerializeToString(deterministic=True)
    graph_flops(graph)
    node_counts(graph)
    assert graph.SerializeToString(deterministic=True) == before


def test_nodes_are_counted_by_operator_and_by_the_type_of_their_output() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
    ]
    assert node_counts(_graph(nodes, ["n", 4], ["n", 4], {})) == (
        NodeCount(op_type="Cast", dtype="float16", count=1),
        NodeCount(op_type="Cast", dtype="float32", count=1),
        NodeCount(op_type="Relu", dtype="float16", count=1),
        NodeCount(op_type="Relu", dtype="float32", count=2),
    )


def test_every_node_of_an_export_computes_in_float32(
    tiny_bundle: Path, onnx_of: Callable[[Path], Path], tiny_architecture: Architecture
) -> None:
    counts = node_counts(onnx.load(onnx_of(tiny_bundle)))
    assert {item.dtype for item in counts} == {"float32"}
    blocks = sum(tiny_architecture.layers)
    assert {item.op_type: item.count for item in counts}["Conv"] == 4 + 2 * blocks


@pytest.mark.parametrize(
    ("dims", "shape"),
    [((1, 3, 64, 48), (1, 3, 64, 48)), (("batch", 3, 64, 48), ("batch", 3, 64, 48))],
)
def test_a_specification_has_sizes_and_the_names_of_dynamic_ones(
    dims: Shape, shape: tuple[int | str, ...]
) -> None:
    spec = spec_of(helper.make_tensor_value_info("images", TensorProto.FLOAT16, list(dims)))
    assert (spec.name, spec.dtype, spec.shape) == ("images", "float16", shape)


def test_a_dynamic_size_without_a_name_is_not_a_size_of_zero() -> None:
    assert spec_of(helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])).shape[0] != 0


def test_the_opset_is_the_default_domain_s_whatever_else_is_imported() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    assert opset_of(_graph([node], [1], [1], {}, [("com.example", 3), ("", 19)])) == 19
    assert opset_of(_graph([node], [1], [1], {}, [("ai.onnx", 18)])) == 18
