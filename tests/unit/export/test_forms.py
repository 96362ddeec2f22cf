"""Every form of the graph: the same function, no shape arithmetic, no casts where none were asked for.

`--norm-form`, `--norm-io`, `--mlp` and `--norm2` as modules in every combination that a precision can have,
as files in some: exporting takes seconds.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.bundle.graph_bounds import check_graph
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import InputForm, MlpForm, Norm2Form, NormForm, OutputForm, Precision
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.lowering import LoweredRIFormer, lower
from riformer_deploy.export.onnx_export import OnnxOptions, export_onnx
from riformer_deploy.export.onnx_graph import graph_flops
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.flops import complexity
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fold

_SIZE = (64, 32)
_PREPROCESSING = Preprocessing(resize_short_edge_px=None, crop_px=_SIZE)
_SHALLOW = Architecture.from_arch((1, 1, 1, 1), (8, 16, 24, 32), num_classes=7)
_NORMS = {"GroupNormalization", "InstanceNormalization", "LayerNormalization"}

Filled = Callable[..., dict[str, Tensor]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lane:
    """A precision, its base, and the type of the norms' inputs and outputs."""

    precision: Precision
    base: Precision = Precision.FP32
    norm_io: Precision = Precision.FP32

    def __str__(self) -> str:
        base = f"-on-{self.base}" if self.precision is Precision.INT8 else ""
        return f"{self.precision}{base}" + ("" if self.norm_io is Precision.FP32 else "-norms-too")

    def config(self, norm: NormForm, mlp: MlpForm, norm2: Norm2Form) -> LoweringConfig:
        """Of one form; without ranges."""
        return LoweringConfig(
            precision=self.precision,
            norm=norm,
            norm_io=self.norm_io,
            mlp=mlp,
            norm2=norm2,
            int8_base=self.base,
        )

    @property
    def rounding(self) -> float:
        """What rounding makes of the logits of these narrow models, as a share of their norm.

        int8 makes another step of a value at the edge of one, wherever half precision rounds differently.
        """
        alone = {
            Precision.FP32: 2e-6,
            Precision.FP16: 3e-3,
            Precision.BF16: 2.5e-2,
            Precision.INT8: 2e-2,
            Precision.FP8: 0.1,
        }
        return 0.1 if self.base is Precision.FP16 else alone[self.precision]


FP32, FP16 = Lane(precision=Precision.FP32), Lane(precision=Precision.FP16)
FP16_NORMS = Lane(precision=Precision.FP16, norm_io=Precision.FP16)
BF16, BF16_NORMS = Lane(precision=Precision.BF16), Lane(precision=Precision.BF16, norm_io=Precision.BF16)
INT8, INT8_HALF = Lane(precision=Precision.INT8), Lane(precision=Precision.INT8, base=Precision.FP16)
INT8_HALF_NORMS = Lane(precision=Precision.INT8, base=Precision.FP16, norm_io=Precision.FP16)
FP8, FP8_NORMS = Lane(precision=Precision.FP8), Lane(precision=Precision.FP8, norm_io=Precision.FP16)
LANES = (FP32, FP16, FP16_NORMS, BF16, BF16_NORMS, INT8, INT8_HALF, INT8_HALF_NORMS, FP8, FP8_NORMS)
INSTANCE, GROUP, LAYER, MOMENTS = NormForm
CONV, MATMUL = MlpForm
EXPLICIT, FOLDED = Norm2Form


def _has(lane: Lane, norm: NormForm, norm2: Norm2Form) -> bool:
    """Whether a lane has a form; test_lowering_config has the refusals of those that it has not."""
    moments_in_half = lane.norm_io is not Precision.FP32 and norm is MOMENTS
    return not moments_in_half and not (lane.precision.is_quantized and norm2 is FOLDED)


FILES = [
    (FP32, INSTANCE, CONV, FOLDED, None),
    (FP16_NORMS, GROUP, MATMUL, FOLDED, None),
    (BF16_NORMS, LAYER, CONV, EXPLICIT, None),
    (INT8_HALF, MOMENTS, MATMUL, EXPLICIT, None),
    (INT8, GROUP, MATMUL, EXPLICIT, 4),
    (FP8_NORMS, INSTANCE, CONV, EXPLICIT, None),
    (FP16, MOMENTS, CONV, FOLDED, 4),
]
"""Every precision, norm, MLP and norm2; norms in the base and in float32; any batch and a fixed one."""
MORE_FILES = [
    (FP16, MOMENTS, CONV, FOLDED, None),
    (BF16, LAYER, CONV, FOLDED, None),
    (BF16_NORMS, GROUP, CONV, EXPLICIT, None),
    (INT8, INSTANCE, CONV, EXPLICIT, None),
    (INT8_HALF_NORMS, LAYER, MATMUL, EXPLICIT, None),
    (FP16, MOMENTS, MATMUL, FOLDED, 4),
    (INT8_HALF, INSTANCE, MATMUL, EXPLICIT, 1),
    (FP8, INSTANCE, MATMUL, EXPLICIT, 4),
]
"""With those, every lane, and every pair of norm, MLP and norm2, of any batch; products of a fixed one."""


@pytest.fixture(scope="module")
def folded(filled: Filled) -> RIFormer:
    """One block a stage."""
    return fold(model_from_state(_SHALLOW, Form.TRAINING, filled(_SHALLOW)))


def _lowered(folded: RIFormer, config: LoweringConfig) -> LoweredRIFormer:
    largest = 12.0 if config.precision is Precision.FP8 else 6.0  # a graph looks the same whatever they are
    ranges = dict.fromkeys(quantizable(folded, config.precision), largest)
    return lower(folded, dataclasses.replace(config, ranges=ranges), _PREPROCESSING)


@pytest.mark.parametrize("norm2", Norm2Form)
@pytest.mark.parametrize("mlp", MlpForm)
@pytest.mark.parametrize("norm", NormForm)
def test_every_form_is_the_folded_model_in_float64(
    tiny_model: RIFormer, norm: NormForm, mlp: MlpForm, norm2: Norm2Form
) -> None:
    folded = fold(tiny_model).double()
    images = torch.randn(3, 3, *_SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    config = LoweringConfig(norm=norm, mlp=mlp, norm2=norm2)
    true = folded(images)
    assert float((lower(folded, config, _PREPROCESSING)(images) - true).norm() / true.norm()) < 1e-12


@pytest.mark.parametrize("lane", LANES, ids=str)
def test_the_forms_of_a_precision_differ_by_its_rounding_only(folded: RIFormer, lane: Lane) -> None:
    images = torch.randn(8, 3, *_SIZE, generator=torch.Generator().manual_seed(1))
    found = {
        forms: _lowered(folded, lane.config(*forms))(images)
        for forms in itertools.product(NormForm, MlpForm, Norm2Form)
        if _has(lane, forms[0], forms[2])
    }
    first = next(iter(found.values()))
    for forms, logits in found.items():
        assert float((logits - first).norm() / first.norm()) < lane.rounding, forms


def _types(graph: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    known = (*inferred.input, *inferred.value_info, *inferred.output)
    return {info.name: info.type.tensor_type.elem_type for info in known} | {
        item.name: item.data_type for item in inferred.initializer
    }


def _check_types(graph: onnx.ModelProto, lane: Lane) -> None:
    """Norms, and what flows around them, are in the type that was asked for."""
    types, nodes = _types(graph), graph.graph.node
    asked = {
        Precision.FP32: onnx.TensorProto.FLOAT,
        Precision.FP16: onnx.TensorProto.FLOAT16,
        Precision.BF16: onnx.TensorProto.BFLOAT16,
    }[lane.norm_io]
    made_by = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type in _NORMS:
            assert types[node.output[0]] == asked
            assert all(types[name] == asked for name in node.input)
        if node.op_type == "Cast" and lane.norm_io is not Precision.FP32:
            source = made_by.get(node.input[0])
            assert source is None or source.op_type not in _NORMS | {"Reshape"}, node.name
    if lane.norm_io is not Precision.FP32:
        for norm in (node for node in nodes if node.op_type in _NORMS):
            before = made_by[norm.input[0]]
            while before.op_type == "Reshape":
                before = made_by[before.input[0]]
            assert before.op_type != "Cast"


def _check_no_shapes(graph: onnx.ModelProto) -> None:
    """Nothing computes an integer: reshaping takes constants."""
    types = _types(graph)
    whole = {onnx.TensorProto.INT64, onnx.TensorProto.INT32}
    computed = {node.op_type for node in graph.graph.node if types[node.output[0]] in whole}
    assert computed == set()
    assert not {node.op_type for node in graph.graph.node} & {"Shape", "Gather", "Concat", "ConstantOfShape"}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("lane", "norm", "mlp", "norm2", "fixed"),
    [*FILES, *(pytest.param(*file, marks=pytest.mark.slow) for file in MORE_FILES)],
    ids=lambda value: "any" if value is None else str(value),
)
def test_every_form_is_a_file_without_shape_arithmetic_that_costs_what_the_model_does(
    folded: RIFormer,
    tmp_path: Path,
    lane: Lane,
    norm: NormForm,
    mlp: MlpForm,
    norm2: Norm2Form,
    fixed: int | None,
) -> None:
    model, path = _lowered(folded, lane.config(norm, mlp, norm2)), tmp_path / "model.onnx"
    export_onnx(model, path, OnnxOptions(image_size_px=_SIZE, batch=fixed, opset=22), {})
    graph = onnx.load(path)
    check_graph(path.read_bytes())
    _check_no_shapes(graph)
    _check_types(graph, lane)
    counts = [node.op_type for node in graph.graph.node]
    blocks = len(_SHALLOW.layers)
    products = 2 * blocks if mlp is MlpForm.MATMUL else 0
    assert counts.count("Conv") == 4 + 2 * blocks - products
    assert counts.count("MatMul") + counts.count("Gemm") == products + 1
    assert counts.count("Transpose") <= products + 1  # one into each product of tokens, one out; the head's
    norms = 1 + blocks * (1 if norm2 is Norm2Form.FOLDED else 2)
    assert sum(counts.count(kind) for kind in _NORMS) == (0 if norm is NormForm.MOMENTS else norms)
    if norm is not NormForm.MOMENTS and norm2 is Norm2Form.EXPLICIT:
        assert graph_flops(graph) == complexity(_SHALLOW, Form.FOLDED, _SIZE).flops
    if lane.precision is Precision.BF16:  # ONNX Runtime has no kernels for it; OpenVINO runs it elsewhere
        return
    runtime = OnnxRuntime(path, threads=1)
    for batch in (1, 3) if fixed is None else (fixed,):
        images = torch.randn(batch, 3, *_SIZE, generator=torch.Generator().manual_seed(batch))
        true = model(images).numpy()
        found = runtime.run(images.numpy())["logits"]
        assert np.linalg.norm(found - true) / np.linalg.norm(true) < lane.rounding


def test_other_inputs_and_outputs_need_no_shape_arithmetic_either(folded: RIFormer, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    config = LoweringConfig(input_form=InputForm.UINT8, output_form=OutputForm.TOPK, topk=2)
    export_onnx(lower(folded, config, _PREPROCESSING), path, OnnxOptions(image_size_px=_SIZE), {})
    graph = onnx.load(path)
    check_graph(path.read_bytes())
    assert not {node.op_type for node in graph.graph.node} & {"Shape", "Gather", "Concat"}


def test_weights_of_products_are_stored_as_they_are_multiplied(folded: RIFormer, tmp_path: Path) -> None:
    path, (lane, norm, mlp, norm2, batch) = tmp_path / "model.onnx", FILES[4]
    assert (lane, mlp) == (INT8, MATMUL)
    model = _lowered(folded, lane.config(norm, mlp, norm2))
    export_onnx(model, path, OnnxOptions(image_size_px=_SIZE, batch=batch, opset=22), {})
    graph = onnx.load(path).graph
    stored = {item.name: tuple(item.dims) for item in graph.initializer}
    assert stored["backbone.network.2.0.mlp.fc1.weight"] == (16, 64)
    assert stored["backbone.network.2.0.mlp.fc2.weight"] == (64, 16)
    made_by = {name: node for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    (axes,) = {
        tuple(a.i for a in made_by[node.input[1]].attribute if a.name == "axis")
        for node in products
        if made_by[node.input[1]].op_type == "DequantizeLinear" and "mlp" in made_by[node.input[1]].input[0]
    }
    assert axes == (1,)
