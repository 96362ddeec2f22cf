"""TensorRT-RTX's parser and builder take every variant, precision and norm form; no GPU is needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, TensorRTFlavor
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import MlpForm, Norm2Form, NormForm, Precision
from riformer_deploy.common.errors import EngineBuildError
from riformer_deploy.common.progress import silent
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import DEFAULT_OPSET, INPUT_NAME, OnnxOptions, export_onnx
from riformer_deploy.export.option_checks import BF16_OPSET, FLOAT8_TRANSPOSE_OPSET, GROUP_NORM_OPSET
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import ARCHITECTURES, VARIANTS
from riformer_deploy.trt.bindings import TensorRT, load
from riformer_deploy.trt.builder import BuildRequest, BuiltPlan, build_plan

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")

DEPTHS = {
    "s12": Precision.INT8,
    "s24": Precision.INT8,
    "s36": Precision.FP16,
    "m36": Precision.FP32,
    "m48": Precision.FP16,
}
"""The five architectures, an eighth as wide, each in one precision: what is deep here is not large.

`benchmarks/rtx_builds.py` builds all ten variants as published, in FP32, FP16 and INT8.
"""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How to lower."""

    precision: Precision
    norm: NormForm = NormForm.INSTANCE
    base: Precision = Precision.FP32
    norm_io: Precision = Precision.FP32
    mlp: MlpForm = MlpForm.CONV
    norm2: Norm2Form = Norm2Form.EXPLICIT

    def __str__(self) -> str:
        base = f"-on-{self.base}" if self.precision is Precision.INT8 else ""
        io = "" if self.norm_io is Precision.FP32 else f"-in-{self.norm_io}"
        return f"{self.precision}{base}-{self.norm}{io}-{self.mlp}-{self.norm2}"

    @property
    def config(self) -> LoweringConfig:
        """Without ranges."""
        return LoweringConfig(
            precision=self.precision,
            norm=self.norm,
            norm_io=self.norm_io,
            mlp=self.mlp,
            norm2=self.norm2,
            int8_base=self.base,
        )

    @property
    def opset(self) -> int:
        """The default, or the first that can express it."""
        needed = {Precision.BF16: BF16_OPSET, Precision.FP8: FLOAT8_TRANSPOSE_OPSET}.get(
            self.precision, DEFAULT_OPSET
        )
        return max(needed, GROUP_NORM_OPSET) if self.norm is NormForm.GROUP else needed


FLOATS = (Precision.FP32, Precision.FP16, Precision.BF16)
QUICK = "fp8-instance-matmul-explicit"
"""Of the kinds, what every run builds; other tests build engines of fp32, fp16 and int8."""
KINDS = [
    *(Kind(precision=precision, norm=norm) for precision in FLOATS for norm in NormForm),
    *(Kind(precision=Precision.INT8, norm=norm) for norm in (NormForm.INSTANCE, NormForm.GROUP)),
    Kind(precision=Precision.INT8, norm=NormForm.MOMENTS, base=Precision.FP16),
    *(Kind(precision=Precision.FP8, norm=norm) for norm in (NormForm.INSTANCE, NormForm.GROUP)),
    *(Kind(precision=precision, mlp=MlpForm.MATMUL) for precision in (Precision.INT8, Precision.FP8)),
    *(
        Kind(precision=Precision.FP16, norm=norm, norm_io=Precision.FP16, mlp=mlp)
        for norm, mlp in (
            (NormForm.INSTANCE, MlpForm.CONV),
            (NormForm.GROUP, MlpForm.CONV),
            (NormForm.LAYER, MlpForm.MATMUL),
        )
    ),
    Kind(precision=Precision.FP32, norm=NormForm.LAYER, mlp=MlpForm.MATMUL, norm2=Norm2Form.FOLDED),
    Kind(precision=Precision.FP16, norm=NormForm.MOMENTS, norm2=Norm2Form.FOLDED),
    Kind(
        precision=Precision.BF16,
        norm=NormForm.GROUP,
        norm_io=Precision.BF16,
        mlp=MlpForm.MATMUL,
        norm2=Norm2Form.FOLDED,
    ),
    Kind(precision=Precision.INT8, norm=NormForm.LAYER, mlp=MlpForm.MATMUL),
    Kind(
        precision=Precision.INT8,
        norm=NormForm.LAYER,
        base=Precision.FP16,
        norm_io=Precision.FP16,
        mlp=MlpForm.MATMUL,
    ),
]


@pytest.fixture(scope="module")
def trt() -> TensorRT:
    return load(TensorRTFlavor.TENSORRT_RTX)


Filled = Callable[..., dict[str, Tensor]]


def _export(
    path: Path, architecture: Architecture, filled: Filled, kind: Kind, side_px: int, batch: int | None
) -> Path:
    torch.set_num_threads(1)
    model = fold(model_from_state(architecture, Form.TRAINING, filled(architecture)))
    ranges = dict.fromkeys(
        quantizable(model, kind.precision), 4.0
    )  # a graph looks the same whatever they are
    config = dataclasses.replace(kind.config, ranges=ranges)
    size = (side_px, side_px)
    preprocessing = Preprocessing(resize_short_edge_px=None, crop_px=size)
    options = OnnxOptions(image_size_px=size, batch=batch, opset=kind.opset)
    export_onnx(lower(model, config, preprocessing), path, options, {})
    return path


def _build(
    trt: TensorRT, path: Path, side_px: int, profiles: tuple[BatchProfile, ...] = ()
) -> tuple[BuiltPlan, set[str]]:
    """The plan, and what the builder warned of."""
    said: set[str] = set()
    request = BuildRequest(
        onnx=path,
        input_name=INPUT_NAME,
        sample_shape=(3, side_px, side_px),
        profiles=profiles,
        settings=BuildSettings(compute_capabilities=("8.9",)),
    )
    return build_plan(trt, request, silent, lambda severity, text: said.add(f"{severity} {text}")), said


def test_the_quick_kind_is_one() -> None:
    assert QUICK in map(str, KINDS)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (str(kind) != QUICK)) for kind in KINDS],
    ids=str,
)
def test_every_precision_and_form_parses_and_builds_for_a_range_of_batches(
    trt: TensorRT, tmp_path: Path, filled: Filled, kind: Kind
) -> None:
    shallow = Architecture.from_arch((1, 1, 1, 1), (8, 16, 24, 32), num_classes=7)
    path = _export(tmp_path / "shallow.onnx", shallow, filled, kind, 64, None)
    built, said = _build(trt, path, 64, (BatchProfile(minimum=1, optimum=4, maximum=8),))
    assert len(built.plan) > 1000
    if kind.base is Precision.FP16:
        assert {text for text in said if "scales to fp32" not in text} == set()
    else:
        assert said == set()
    layers = 13  # eight in the blocks, the stem, three downsampling layers, the head
    assert built.network_layers.get("INT8", 0) == (2 * layers if kind.precision is Precision.INT8 else 0)
    assert built.network_layers.get("FP8", 0) == (2 * 8 if kind.precision is Precision.FP8 else 0)
    halves = {Precision.FP16: "HALF", Precision.BF16: "BF16"}
    base = kind.config.base
    for precision, name in halves.items():
        assert (name in built.network_layers) == (base is precision)
    # No shapes are computed: of an InstanceNormalization or GroupNormalization the parser makes two
    # constants, the axes that weight and bias lack.
    norms = 5 if kind.norm2 is Norm2Form.FOLDED else 9
    axes = 0 if kind.norm in (NormForm.LAYER, NormForm.MOMENTS) else 2 * norms
    assert built.network_layers.get("INT32", 0) == axes
    assert "INT64" not in built.network_layers


@pytest.mark.slow
@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=[pytest.mark.slow] * (size != "s12")) for size in DEPTHS]
)
def test_every_architecture_builds_at_its_full_depth_with_a_fixed_batch(
    trt: TensorRT, tmp_path: Path, filled: Filled, size: str
) -> None:
    real = ARCHITECTURES[size]
    narrow = Architecture.from_arch(real.layers, tuple(dim // 8 for dim in real.embed_dims))
    path = _export(tmp_path / f"{size}.onnx", narrow, filled, Kind(precision=DEPTHS[size]), 32, 2)
    built, said = _build(trt, path, 32)
    assert said == set()
    assert len(built.plan) > 1000
    layers = 2 * sum(real.layers) + 5
    assert built.network_layers.get("INT8", 0) == (2 * layers if DEPTHS[size] is Precision.INT8 else 0)
    assert ("HALF" in built.network_layers) == (DEPTHS[size] is Precision.FP16)


def test_these_are_the_architectures_of_all_published_variants() -> None:
    assert {ARCHITECTURES[size] for size in DEPTHS} == {v.architecture for v in VARIANTS.values()}


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [(Precision.FP16, 0.49, 0.53), (Precision.INT8, 0.24, 0.30)],  # graph and scales weigh in a small model
)
def test_files_shrink_as_they_should(
    precise_bundle: Path, precision: Precision, least: float, most: float
) -> None:
    sizes = {graph.precision: graph.file.size_bytes for graph in Bundle.open(precise_bundle).manifest.onnx}
    assert least <= sizes[precision] / sizes[Precision.FP32] <= most


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A valid ONNX file with an operator that nobody has."""
    node = onnx.helper.make_node("Abacus", ["images"], ["logits"], name="counter", domain="com.example")
    spec = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3, 32, 32])
        for name in ("images", "logits")
    ]
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.example", 1)]
    path = tmp_path / "foreign.onnx"
    graph = onnx.helper.make_graph([node], "g", spec[:1], spec[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_a_graph_that_cannot_be_parsed_is_refused_by_node_and_operator(trt: TensorRT, foreign: Path) -> None:
    with pytest.raises(EngineBuildError, match="cannot parse") as caught:
        _build(trt, foreign, 32)
    assert str(foreign) in caught.value.message
    assert any("counter, operator Abacus" in detail for detail in caught.value.details)


def test_what_is_no_graph_is_refused_with_the_parsers_words(trt: TensorRT, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(EngineBuildError, match=r"broken\.onnx") as caught:
        _build(trt, tmp_path / "broken.onnx", 64)
    assert caught.value.details
