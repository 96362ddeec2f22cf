"""Extreme activations and images in every precision and norm form: finite, and within the tolerance.

The models are lowered as ``export`` lowers them: calibrated on the images, so that a block which half
precision cannot hold stays in float32 by name. The reference is the training form in float64.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Method, MlpForm, Norm2Form, NormForm, Precision
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.evaluation.metrics import deviation
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.export.lowering import LoweredRIFormer, lower
from riformer_deploy.export.norms import single_group_norm
from riformer_deploy.export.onnx_export import OnnxOptions, export_onnx
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.calibration import CalibrationConfig, CalibrationResult, measure
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.quantization.resolving import HALF_LIMIT, resolve_lowering
from riformer_deploy.quantization.sensitivity import (
    Gate,
    QuantizedEvaluator,
    choose_excluded_layers,
    rank_layers,
)

pytestmark = pytest.mark.untraced

_ARCHITECTURE = Architecture(
    layers=(1, 1, 1, 1), embed_dims=(32, 48, 64, 96), hidden_dims=(64, 96, 128, 192), num_classes=50
)
"""Wide enough that rounding errors average as they do in a published model."""
_SIZE = (64, 64)
_PREPROCESSING = Preprocessing(resize_short_edge_px=None, crop_px=_SIZE)
_BLOCK = "backbone.network.2.0"
"""The one block of stage 2."""

Filled = Callable[..., dict[str, Tensor]]
Array = NDArray[np.float32]


def _ordinary(count: int = 8) -> Array:
    rng = np.random.Generator(np.random.PCG64(7))
    return rng.standard_normal((count, 3, *_SIZE)).astype(np.float32)


def _hot_pixel() -> Array:
    images = 0.01 * _ordinary()
    images[:, :, 16, 16] = 1000.0
    return images


def _constant() -> Array:
    values = np.array([-2.0, -1.0, -0.1, 0.1, 0.5, 1.0, 2.0, 2.6], dtype=np.float32)
    return np.broadcast_to(values[:, None, None, None], (8, 3, *_SIZE)).copy()


IMAGES: dict[str, Callable[[], Array]] = {
    "ordinary": _ordinary,
    "mean 1000 times the deviation": lambda: 1000 + _ordinary(),
    "scaled by 3e4": lambda: 3e4 / 4 * _ordinary(),
    "constant": _constant,
    "all zero": lambda: np.zeros((8, 3, *_SIZE), dtype=np.float32),
    "one hot pixel": _hot_pixel,
}
"""Normalised images; nothing that a camera makes is as extreme."""


def _stem_times_3e4(state: dict[str, Tensor]) -> None:
    """Activations of the first stage reach 3e4."""
    for kind in ("weight", "bias"):
        state[f"backbone.patch_embed.proj.{kind}"] *= 3e4 / 4


def _branch_times_3e4(state: dict[str, Tensor]) -> None:
    """The residual branch of one block reaches more than 3e4."""
    for kind in ("weight", "bias"):
        state[f"{_BLOCK}.mlp.fc2.{kind}"] *= 3e4


def _mean_1000_deviations(state: dict[str, Tensor]) -> None:
    """The stem's result has a mean 1000 times its deviation."""
    state["backbone.patch_embed.proj.bias"].fill_(1000.0)


def _dead_channels(state: dict[str, Tensor]) -> None:
    """Channels that are always zero: no weight, no bias, no range."""
    for kind in ("weight", "bias"):
        state[f"backbone.network.1.proj.{kind}"][::2] = 0
        state[f"{_BLOCK}.mlp.fc1.{kind}"].zero_()


WEIGHTS: dict[str, Callable[[dict[str, Tensor]], None]] = {
    "stem times 3e4": _stem_times_3e4,
    "branch times 3e4": _branch_times_3e4,
    "mean 1000 times the deviation": _mean_1000_deviations,
    "dead channels": _dead_channels,
}

CASES = {f"images {name}": (name, None) for name in IMAGES} | {
    f"weights {name}": ("ordinary", name) for name in WEIGHTS
}
"""By name: which images, and what is done to the weights."""
ALL_AT_ONCE = "every kind of image"
"""One artifact for all images: what is deployed does not know which kind comes."""
_UNIFORM = ("images constant", "images all zero")


class Case:
    """A model and images, measured as ``export`` measures them.

    Args:
        model: In training form.
        images: Normalised.
    """

    def __init__(self, model: RIFormer, images: Array) -> None:
        self.images = images
        self.folded = fold(model)
        with torch.inference_mode():
            wide = model_from_state(
                model.architecture,
                Form.TRAINING,
                {key: value.double() for key, value in model.state_dict().items()},
            )
            self.true: NDArray[np.float64] = wide(torch.from_numpy(images).double()).numpy()

        source = CalibrationSet(
            source="torture", random=False, count=len(images), content_sha256="0" * 64, warnings=(),
            batches=lambda: iter([images]),
        )  # fmt: skip
        self.source = source
        self.result = self._result(CalibrationConfig(method=Method.MSE))
        self.abs_max = self.result.calibration.abs_max

    def _result(self, config: CalibrationConfig) -> CalibrationResult:
        measured = measure(Observations(self.folded, self.source), "key", config)
        return CalibrationResult(images=self.source, calibration=measured)

    @functools.cache  # noqa: B019  # cases live as long as the tests
    def measured(self, *, folded: bool, narrow: bool) -> CalibrationResult:
        """What ``export`` measures for a form: ``norm2`` folded into fc1, or norms in half."""
        return self._result(CalibrationConfig(ranges=False, products=folded, branches=narrow))

    @functools.cache  # noqa: B019  # cases live as long as the tests
    def excluded(
        self, norm: NormForm, base: Precision, precision: Precision = Precision.INT8
    ) -> frozenset[str]:
        """Layers that ``export --min-sqnr`` would exclude for the tolerance to hold."""
        evaluator = QuantizedEvaluator(
            model=self.folded,
            calibration=self.result,
            config=LoweringConfig(precision=precision, norm=norm, int8_base=base),
            preprocessing=_PREPROCESSING,
            images=self.images,
            reference=self.true,
        )
        gate = Gate(min_sqnr_db=TOLERANCES[precision].min_sqnr_db)
        if gate.holds(evaluator.cost(frozenset())):
            return frozenset()
        excluded, cost = choose_excluded_layers(evaluator, rank_layers(evaluator).layers, gate)
        assert gate.holds(cost)
        return excluded

    def lowered(self, precision: Precision, norm: NormForm, base: Precision) -> LoweredRIFormer:
        """The model as it would be exported, with the gate that the tolerance of int8 or fp8 is."""
        excluded = self.excluded(norm, base, precision) if precision.is_quantized else frozenset()
        config = LoweringConfig(
            precision=precision, norm=norm, int8_base=base, exclude_layers=tuple(sorted(excluded))
        )
        return lower(self.folded, resolve_lowering(config, self.result), _PREPROCESSING)

    def in_form(self, config: LoweringConfig) -> LoweredRIFormer:
        """The model in a form that is none of the norms' alone; not int8."""
        measured = self.measured(
            folded=config.norm2 is Norm2Form.FOLDED, narrow=config.norm_io is Precision.FP16
        )
        return lower(self.folded, resolve_lowering(config, measured), _PREPROCESSING)


@pytest.fixture(scope="module")
def case_of(filled: Filled) -> Callable[[str], Case]:
    """``case_of(name)``: the case, measured once."""

    @functools.cache
    def make(name: str) -> Case:
        if name == ALL_AT_ONCE:
            pictures, change = np.concatenate([make() for make in IMAGES.values()]), None
        else:
            kind, change = CASES[name]
            pictures = IMAGES[kind]()
        state = filled(_ARCHITECTURE)
        if change is not None:
            WEIGHTS[change](state)
        return Case(model_from_state(_ARCHITECTURE, Form.TRAINING, state), pictures)

    return make


LANES = [
    (Precision.FP32, Precision.FP32),
    (Precision.FP16, Precision.FP32),
    (Precision.BF16, Precision.FP32),
    (Precision.INT8, Precision.FP32),
    (Precision.INT8, Precision.FP16),
    (Precision.FP8, Precision.FP16),
]
"""Each precision, and the base where it is quantised."""
_LANE_NAMES = [f"{p}-on-{base}" if p.is_quantized else str(p) for p, base in LANES]


def _check(case: Case, got: NDArray[np.floating], precision: Precision) -> None:
    """Finite, and within the tolerance of the precision."""
    tolerance = TOLERANCES[precision]
    rtol, atol = tolerance.elementwise or (0.0, 1.0)
    distance = deviation(case.true, got, rtol=rtol, atol=atol)
    assert distance.finite
    if tolerance.elementwise is not None:
        assert distance.elementwise_used is not None
        assert distance.elementwise_used <= 1, distance
    if tolerance.min_sqnr_db is not None and distance.max_abs != 0:
        assert distance.sqnr_db is not None
        assert distance.sqnr_db >= tolerance.min_sqnr_db, distance


@pytest.mark.sampled(60)
@pytest.mark.parametrize("norm", NormForm)
@pytest.mark.parametrize(("precision", "base"), LANES, ids=_LANE_NAMES)
@pytest.mark.parametrize("name", CASES)
def test_the_module_is_finite_and_within_its_tolerance(
    case_of: Callable[[str], Case], name: str, precision: Precision, base: Precision, norm: NormForm
) -> None:
    case = case_of(name)
    with torch.inference_mode():
        got = case.lowered(precision, norm, base)(torch.from_numpy(case.images)).numpy()
    _check(case, got, precision)


FORMS = [
    (NormForm.GROUP, MlpForm.CONV, Norm2Form.EXPLICIT, True),
    (NormForm.LAYER, MlpForm.MATMUL, Norm2Form.EXPLICIT, True),
    (NormForm.GROUP, MlpForm.MATMUL, Norm2Form.FOLDED, True),
    (NormForm.INSTANCE, MlpForm.CONV, Norm2Form.FOLDED, False),
    (NormForm.MOMENTS, MlpForm.MATMUL, Norm2Form.FOLDED, False),
]
"""Norm, MLP, norm2, and whether norms are in the base type."""


@pytest.mark.parametrize(("norm", "mlp", "norm2", "narrow"), FORMS)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.BF16])
@pytest.mark.parametrize("name", CASES)
def test_the_module_in_every_other_form_is_finite_and_within_its_tolerance(
    case_of: Callable[[str], Case],
    name: str,
    precision: Precision,
    norm: NormForm,
    mlp: MlpForm,
    norm2: Norm2Form,
    *,
    narrow: bool,
) -> None:
    case = case_of(name)
    io = precision if narrow else Precision.FP32
    config = LoweringConfig(precision=precision, norm=norm, norm_io=io, mlp=mlp, norm2=norm2)
    with torch.inference_mode():
        got = case.in_form(config)(torch.from_numpy(case.images)).numpy()
    _check(case, got, precision)


def test_a_product_that_half_cannot_hold_keeps_its_block_in_float32(case_of: Callable[[str], Case]) -> None:
    """With norm2 folded, fc1's product is stored before it is divided by the deviation."""
    case = case_of("weights stem times 3e4")
    plain = LoweringConfig(precision=Precision.FP16)
    folded = dataclasses.replace(plain, norm2=Norm2Form.FOLDED)
    before = resolve_lowering(plain, case.result).float32_blocks
    after = resolve_lowering(folded, case.measured(folded=True, narrow=False)).float32_blocks
    assert set(before) < set(after)


def test_only_what_must_be_is_excluded(case_of: Callable[[str], Case]) -> None:
    """Rounding errors of constant images are all alike and do not average; nothing else needs excluding."""
    excluded = {name: case_of(name).excluded(NormForm.INSTANCE, Precision.FP32) for name in CASES}
    layers = set(quantizable(case_of("images ordinary").folded))
    for name, found in excluded.items():
        assert found <= layers
        assert len(found) <= (len(layers) // 2 if name in _UNIFORM else 0), (name, sorted(found))


@pytest.mark.parametrize("base", [Precision.FP16, Precision.INT8, Precision.FP8])
def test_a_block_that_half_cannot_hold_stays_in_float32_by_name(
    case_of: Callable[[str], Case], base: Precision
) -> None:
    case = case_of("weights branch times 3e4")
    lowered = case.lowered(base, NormForm.INSTANCE, Precision.FP16)
    held = set(lowered.config.float32_blocks)
    assert _BLOCK in held
    assert "backbone.patch_embed.proj" not in held
    abs_max = {name for name, top in case.abs_max.items() if top > HALF_LIMIT}
    assert held == abs_max
    assert {p.dtype for p in lowered.backbone.network[2].buffers() if p.is_floating_point()} == {
        torch.float32
    }


def test_an_activation_of_3e4_is_held_without_it_but_half_of_the_range_is_left(
    case_of: Callable[[str], Case],
) -> None:
    """3e4 is below the limit, what the next blocks add to it may not be."""
    case = case_of("weights stem times 3e4")
    assert 2e4 < case.abs_max["backbone.patch_embed.proj"] < 65504
    lowered = case.lowered(Precision.FP16, NormForm.INSTANCE, Precision.FP32)
    assert set(lowered.config.float32_blocks) == {
        name for name, top in case.abs_max.items() if top > HALF_LIMIT
    }


@pytest.mark.parametrize("norm", NormForm)
def test_a_mean_1000_times_the_deviation_keeps_the_statistics(norm: NormForm) -> None:
    """``E[x^2] - E[x]^2`` in float32 would lose the variance altogether at a mean of 1e4."""
    generator = torch.Generator().manual_seed(0)
    for mean in (1e3, 1e4):
        x = mean + torch.randn(4, 32, 16, 16, generator=generator)
        true = single_group_norm(x.double(), NormForm.GROUP)
        distance = deviation(true.numpy(), single_group_norm(x, norm).numpy(), rtol=0, atol=1)
        assert distance.finite
        assert distance.relative_l2 is not None
        assert distance.relative_l2 < 3e-7 * mean


def _graph(model: LoweredRIFormer, folder: Path, name: str) -> OnnxRuntime:
    path = folder / f"{name}.onnx"
    export_onnx(model, path, OnnxOptions(image_size_px=_SIZE, opset=21), {})
    return OnnxRuntime(path, threads=1)


_SAMPLED = {
    "fp16": NormForm.MOMENTS,
    "int8-on-fp16": NormForm.GROUP,
    "fp8-on-fp16": NormForm.INSTANCE,
}
"""What half precision can overflow in, a norm each: a graph in every run; the others are slow."""
_GRAPHS = [
    pytest.param(
        *lane, norm, id=f"{name}-{norm}", marks=[pytest.mark.slow] * (norm is not _SAMPLED.get(name))
    )
    for name, lane in zip(_LANE_NAMES, LANES, strict=True)
    if lane[0] is not Precision.BF16  # for which ONNX Runtime has no kernels
    for norm in NormForm
]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "base", "norm"), _GRAPHS)
def test_the_graph_is_finite_and_within_its_tolerance(
    case_of: Callable[[str], Case], tmp_path: Path, precision: Precision, base: Precision, norm: NormForm
) -> None:
    """One graph, calibrated on every kind of image at once, run on each kind."""
    everything = case_of(ALL_AT_ONCE)
    runtime = _graph(everything.lowered(precision, norm, base), tmp_path, "model")
    _check(everything, runtime.run(everything.images)["logits"], precision)
    for name in IMAGES:
        case = case_of(f"images {name}")
        got = runtime.run(case.images)["logits"]
        # Int8's ranges that hold 3e4 leave nothing of values near 1; fp8's do, where errors average.
        if precision is Precision.INT8 or (precision is Precision.FP8 and f"images {name}" in _UNIFORM):
            assert np.isfinite(got).all(), name
        else:
            _check(case, got, precision)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "mlp", "norm2"),
    [
        (NormForm.LAYER, MlpForm.MATMUL, Norm2Form.EXPLICIT),
        pytest.param(NormForm.GROUP, MlpForm.CONV, Norm2Form.FOLDED, marks=pytest.mark.slow),
    ],
)
def test_the_graph_with_norms_in_half_is_finite_and_within_its_tolerance(
    case_of: Callable[[str], Case], tmp_path: Path, norm: NormForm, mlp: MlpForm, norm2: Norm2Form
) -> None:
    everything = case_of(ALL_AT_ONCE)
    config = LoweringConfig(precision=Precision.FP16, norm=norm, norm_io=Precision.FP16, mlp=mlp, norm2=norm2)
    runtime = _graph(everything.in_form(config), tmp_path, "model")
    for name in IMAGES:
        case = case_of(f"images {name}")
        _check(case, runtime.run(case.images)["logits"], Precision.FP16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "base"),
    [
        pytest.param("weights stem times 3e4", Precision.INT8, marks=pytest.mark.slow),
        ("weights branch times 3e4", Precision.FP16),
        pytest.param("weights stem times 3e4", Precision.FP16, marks=pytest.mark.slow),
        pytest.param("weights stem times 3e4", Precision.FP8, marks=pytest.mark.slow),
        pytest.param("weights branch times 3e4", Precision.INT8, marks=pytest.mark.slow),
        pytest.param("weights branch times 3e4", Precision.FP8, marks=pytest.mark.slow),
    ],
)
def test_the_graph_of_scaled_weights_is_finite_and_within_its_tolerance(
    case_of: Callable[[str], Case], tmp_path: Path, name: str, base: Precision
) -> None:
    case = case_of(name)
    runtime = _graph(case.lowered(base, NormForm.INSTANCE, Precision.FP16), tmp_path, "model")
    _check(case, runtime.run(case.images)["logits"], base)
