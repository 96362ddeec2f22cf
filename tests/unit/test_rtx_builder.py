"""TensorRT-RTX's parser and builder take every precision and norm form; no GPU is needed to build."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from riformer_deploy.architecture import Form
from riformer_deploy.artifacts import Precision
from riformer_deploy.calibration import Calibration, quantizable
from riformer_deploy.choices import NormForm
from riformer_deploy.entrants import model_of
from riformer_deploy.export import DEFAULT_OPSET, OnnxOptions, export_onnx
from riformer_deploy.fusion import fold
from riformer_deploy.lowering import lower
from riformer_deploy.model import RIFormer, model_from_state
from riformer_deploy.precision import BF16_OPSET, GROUP_NORM_OPSET, PrecisionOptions, plan_lowering
from riformer_deploy.variants import VARIANTS, Preprocessing

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")

S12, DIGITS = "riformer-s12_in1k", "riformer-digits"
SIZES_PX = {S12: 224, DIGITS: 64}
GROUP, INSTANCE, MOMENTS = NormForm.GROUP, NormForm.INSTANCE, NormForm.MOMENTS


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What to export and build."""

    model: str
    precision: Precision
    norm: NormForm
    base: Precision = Precision.FP32

    def __str__(self) -> str:
        base = f"-on-{self.base}" if self.precision is Precision.INT8 else ""
        return f"{self.model}-{self.precision}{base}-{self.norm}"

    @property
    def opset(self) -> int:
        """The default, or the first that can express it."""
        needed = {Precision.BF16: BF16_OPSET}.get(self.precision, DEFAULT_OPSET)
        return max(needed, GROUP_NORM_OPSET) if self.norm is GROUP else needed


KINDS = [
    *(Kind(model=DIGITS, precision=precision, norm=norm) for precision in Precision for norm in NormForm),
    # S12's graphs have the nodes of the digits model's; every precision and every norm form once.
    Kind(model=S12, precision=Precision.FP32, norm=INSTANCE),
    Kind(model=S12, precision=Precision.FP16, norm=GROUP),
    Kind(model=S12, precision=Precision.BF16, norm=GROUP),
    Kind(model=S12, precision=Precision.INT8, norm=MOMENTS, base=Precision.FP16),
]


@dataclass(frozen=True, kw_only=True)
class Built:
    """What came of a kind."""

    onnx_bytes: int
    plan_bytes: int
    layer_types: dict[str, int]


class _Log(trt.ILogger):  # type: ignore[name-defined, misc]  # untyped
    """Keeps errors, which the builder only logs."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: Any, text: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(text)


def build(path: Path, side_px: int) -> Built:
    """Parse a file and build an engine for compute capability 8.9, batches 1 to 8."""
    log = _Log()
    builder = trt.Builder(log)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse_from_file(str(path))
    assert parsed, [str(parser.get_error(index)) for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    shapes = [(batch, 3, side_px, side_px) for batch in (1, 4, 8)]
    profile.set_shape("images", *shapes)
    assert config.add_optimization_profile(profile) >= 0
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, log.errors
    assert not log.errors
    types: dict[str, int] = {}
    for index in range(network.num_layers):
        name = str(network.get_layer(index).type).removeprefix("LayerType.")
        types[name] = types.get(name, 0) + 1
    return Built(onnx_bytes=path.stat().st_size, plan_bytes=plan.nbytes, layer_types=types)


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory,
    digits_checkpoint: Path,
    filled: Callable[..., dict[str, Tensor]],
) -> Callable[[Kind], Built]:
    """``built(kind)``: exported and built, once."""
    folder = tmp_path_factory.mktemp("rtx")

    @functools.cache
    def folded(name: str) -> RIFormer:
        if name == DIGITS:
            return fold(model_of(digits_checkpoint))
        architecture = VARIANTS[name].architecture
        return fold(model_from_state(architecture, Form.TRAINING, filled(architecture)))

    @functools.cache
    def make(kind: Kind) -> Built:
        torch.set_num_threads(1)
        model, side = folded(kind.model), SIZES_PX[kind.model]
        calibration = Calibration(  # what a graph looks like does not depend on its ranges
            key="", images=1, ranges=dict.fromkeys(quantizable(model), 4.0), divisors={}, residual_ranges={},
            peaks={},
        )  # fmt: skip
        options = PrecisionOptions(norm=kind.norm, int8_base=kind.base)
        plan = plan_lowering(kind.precision, options, calibration)
        preprocessing = Preprocessing(resize_short_edge_px=None, crop_px=(side, side))
        path = folder / f"{kind}.onnx"
        export_onnx(
            lower(model, plan, preprocessing),
            path,
            OnnxOptions(image_size_px=(side, side), opset=kind.opset),
            {},
        )
        return build(path, side)

    return make


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_parses_and_builds(built: Callable[[Kind], Built], kind: Kind) -> None:
    result = built(kind)
    assert result.plan_bytes > 0
    quantizers = [result.layer_types.get(name, 0) for name in ("QUANTIZE", "DEQUANTIZE")]
    layers = 29  # 24 in the blocks, the stem, three downsampling layers, the head
    assert quantizers == ([layers, 2 * layers] if kind.precision is Precision.INT8 else [0, 0])
    assert ("NORMALIZATION" in result.layer_types) == (kind.norm is not MOMENTS)


@pytest.mark.parametrize(
    ("small", "large", "least", "most"),
    [
        (KINDS[-3], KINDS[-4], 0.49, 0.53),
        (KINDS[-2], KINDS[-4], 0.49, 0.53),
        (KINDS[-1], KINDS[-4], 0.24, 0.27),
        (
            Kind(model=DIGITS, precision=Precision.FP16, norm=INSTANCE),
            Kind(model=DIGITS, precision=Precision.FP32, norm=INSTANCE),
            0.49,
            0.53,
        ),
        (
            Kind(model=DIGITS, precision=Precision.INT8, norm=INSTANCE),
            Kind(model=DIGITS, precision=Precision.FP32, norm=INSTANCE),
            0.24,
            0.30,  # the graph itself and the scales weigh more in a small model
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Kind) else "",
)
def test_files_shrink_as_they_should(
    built: Callable[[Kind], Built], small: Kind, large: Kind, least: float, most: float
) -> None:
    assert least <= built(small).onnx_bytes / built(large).onnx_bytes <= most


def test_what_the_parser_refuses_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(AssertionError, match=r"ModelImporter|parse|deserialize|Failed"):
        build(path, 64)
