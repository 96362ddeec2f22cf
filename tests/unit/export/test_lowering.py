from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import InputForm, Method, NormForm, OutputForm, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.serialization import dump_json, load_json
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import normalize
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.export.lowering import LoweredRIFormer, lower
from riformer_deploy.export.onnx_export import OnnxOptions, export_onnx
from riformer_deploy.export.quantized_layers import QuantizedLayer
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import VARIANTS, Variant
from riformer_deploy.quantization.calibration import CalibrationConfig, CalibrationResult, measure
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.quantization.resolving import resolve_lowering

PLAIN = Preprocessing(resize_short_edge_px=None, crop_px=(64, 64))


def _sqnr_db(reference: NDArray[np.float64], found: NDArray[np.float32]) -> float:
    return float(-20 * np.log10(np.linalg.norm(found - reference) / np.linalg.norm(reference)))


def _logits(model: LoweredRIFormer, images: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        parts = [model(part) for part in torch.split(torch.from_numpy(images), 32)]
    result: NDArray[np.float32] = torch.cat(parts).numpy()
    return result


@pytest.mark.parametrize("norm", NormForm)
def test_every_norm_form_is_the_folded_model_in_float64(tiny_model: RIFormer, norm: NormForm) -> None:
    folded = fold(tiny_model).double()
    images = torch.randn(3, 3, 64, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    config = LoweringConfig(norm=norm)
    torch.testing.assert_close(lower(folded, config, PLAIN)(images), folded(images), rtol=1e-11, atol=1e-12)


@pytest.mark.untraced
@pytest.mark.parametrize("norm", NormForm)
def test_fp16_of_the_digits_has_60_db_and_changes_no_class(
    digits_folded: RIFormer,
    digits_inputs: NDArray[np.float32],
    digits_reference: NDArray[np.float64],
    norm: NormForm,
) -> None:
    found = _logits(
        lower(digits_folded, LoweringConfig(precision=Precision.FP16, norm=norm), PLAIN), digits_inputs
    )
    assert _sqnr_db(digits_reference, found) >= 60
    assert np.array_equal(found.argmax(1), digits_reference.argmax(1))


@pytest.mark.untraced
@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("norm", "base"), [*((norm, "fp32") for norm in NormForm), (NormForm.INSTANCE, "fp16")]
)
def test_int8_of_the_digits_has_38_5_db_and_loses_no_more_than_0_3_points(
    digits_folded: RIFormer,
    digits_inputs: NDArray[np.float32],
    digits_reference: NDArray[np.float64],
    digits_data: dict[str, NDArray[np.int64]],
    calibrated: CalibrationResult,
    norm: NormForm,
    base: str,
) -> None:
    config = LoweringConfig(precision=Precision.INT8, norm=norm, int8_base=Precision(base))
    model = lower(digits_folded, resolve_lowering(config, calibrated), PLAIN)
    found, labels = _logits(model, digits_inputs), digits_data["val_labels"]
    lost = (digits_reference.argmax(1) == labels).mean() - (found.argmax(1) == labels).mean()
    assert _sqnr_db(digits_reference, found) >= 38.5
    assert 100 * lost <= 0.3


@pytest.mark.untraced
@pytest.mark.sampled(2)
@pytest.mark.parametrize("norm", NormForm)
def test_fp8_of_the_digits_has_39_5_db_and_loses_no_more_than_0_3_points(
    digits_folded: RIFormer,
    digits_inputs: NDArray[np.float32],
    digits_reference: NDArray[np.float64],
    digits_data: dict[str, NDArray[np.int64]],
    calibrated: CalibrationResult,
    norm: NormForm,
) -> None:
    config = resolve_lowering(LoweringConfig(precision=Precision.FP8, norm=norm), calibrated)
    found, labels = _logits(lower(digits_folded, config, PLAIN), digits_inputs), digits_data["val_labels"]
    lost = (digits_reference.argmax(1) == labels).mean() - (found.argmax(1) == labels).mean()
    assert _sqnr_db(digits_reference, found) >= 39.5
    assert 100 * lost <= 0.3


def test_fp8_that_clips_is_worse_than_its_tolerance_and_range_costs_nothing(
    digits_folded: RIFormer,
    digits_inputs: NDArray[np.float32],
    digits_reference: NDArray[np.float64],
    calibrated: CalibrationResult,
) -> None:
    images, true = digits_inputs[:128], digits_reference[:128]
    config = resolve_lowering(LoweringConfig(precision=Precision.FP8), calibrated)

    def noise_db(factor: float) -> float:
        ranges = {name: factor * top for name, top in config.ranges.items()}
        return _sqnr_db(
            true, _logits(lower(digits_folded, dataclasses.replace(config, ranges=ranges), PLAIN), images)
        )

    whole, least = noise_db(1), TOLERANCES[Precision.FP8].min_sqnr_db
    assert least is not None
    assert noise_db(1 / 8) < least < whole - 10
    assert abs(noise_db(32) - whole) < 1


def test_fp8_leaves_stem_downsampling_and_head_in_half_and_float32(
    digits_folded: RIFormer, calibrated: CalibrationResult
) -> None:
    model = lower(digits_folded, resolve_lowering(LoweringConfig(precision=Precision.FP8), calibrated), PLAIN)
    modules = {name: layer for name, layer in model.named_modules() if name in calibrated.calibration.ranges}
    quantised = {name for name, layer in modules.items() if isinstance(layer, QuantizedLayer)}
    assert quantised == {name for name in modules if ".mlp." in name}
    assert {modules[name].get_buffer("weight").dtype for name in quantised} == {torch.float8_e4m3fn}
    plain = {name: modules[name].get_parameter("weight").dtype for name in set(modules) - quantised}
    assert plain.pop("head.fc") is torch.float32
    assert set(plain.values()) == {torch.float16}


def test_equalised_downsampling_inputs_are_worth_a_decibel(
    digits_folded: RIFormer,
    digits_inputs: NDArray[np.float32],
    digits_reference: NDArray[np.float64],
    calibrated: CalibrationResult,
) -> None:
    images, true = digits_inputs[:128], digits_reference[:128]
    config = resolve_lowering(LoweringConfig(precision=Precision.INT8), calibrated)
    assert set(config.smoothquant_scales) == {f"backbone.network.{index}.proj" for index in (1, 3, 5)}
    excluding = dataclasses.replace(config, exclude_layers=tuple(config.smoothquant_scales))
    without = resolve_lowering(excluding, calibrated)
    assert not without.smoothquant_scales
    assert _sqnr_db(true, _logits(lower(digits_folded, without, PLAIN), images)) > _sqnr_db(
        true, _logits(lower(digits_folded, config, PLAIN), images)
    )


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.untraced
def test_a_stored_config_rebuilds_the_very_same_model(tiny_model: RIFormer, precision: Precision) -> None:
    folded = fold(tiny_model)
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images = CalibrationSet(
        source="a",
        random=False,
        count=2,
        content_sha256="",
        warnings=(),
        batches=lambda: iter([batch.numpy()]),
    )
    measured = measure(
        Observations(folded, images), "key", CalibrationConfig(method=Method.MSE, residual=True)
    )
    asked = LoweringConfig(
        precision=precision, quantize_residual=True, exclude_layers=("backbone.network.4.1.mlp.fc2",)
    )
    config = resolve_lowering(asked, CalibrationResult(images=images, calibration=measured))
    stored = load_json(LoweringConfig, dump_json(config))
    first, again = (lower(folded, each, PLAIN) for each in (config, stored))
    before, after = first.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(first(batch), again(batch))


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_a_quantised_model_without_ranges_is_refused(digits_folded: RIFormer, precision: Precision) -> None:
    with pytest.raises(OptionError, match=f"{precision} holds no ranges"):
        lower(digits_folded, LoweringConfig(precision=precision), PLAIN)


def _golden_folded(architecture: Architecture, filled: Callable[..., dict[str, Tensor]]) -> RIFormer:
    return fold(model_from_state(architecture, Form.TRAINING, filled(architecture)))


def _golden_error(repository: Path, variant: Variant, found: NDArray[np.float32]) -> float:
    """Relative L2 error of the first golden image's logits, at most.

    mmpretrain's logits are float32: within 3e-7 of float64 for each of the ten, for which 1e-6 is added.
    """
    with np.load(repository / "tests" / "data" / "variants.npz") as stored:
        true = stored[f"{variant.config}/logits"][:1].astype(np.float64)
    return float(np.linalg.norm(found - true) / np.linalg.norm(true)) + 1e-6


@pytest.mark.untraced
@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.endswith("384")])
def test_fp16_of_golden_weights_is_within_1e_3_of_float64_at_both_sizes(
    name: str, golden: ModuleType, filled: Callable[..., dict[str, Tensor]], repository: Path
) -> None:
    """The variant of 224 px and that of 384 px have the same golden weights: filled and folded once."""
    sizes = (VARIANTS[name], VARIANTS[f"{name}-384"])
    assert sizes[0].architecture == sizes[1].architecture
    folded = _golden_folded(sizes[0].architecture, filled)
    model = lower(folded, LoweringConfig(precision=Precision.FP16), PLAIN)
    for variant in sizes:
        found = _logits(model, golden.golden_input(variant.image_size_px, batch=1))
        assert _golden_error(repository, variant, found) <= 1e-3, variant.name


@pytest.mark.slow
def test_fp16_of_golden_s12_keeps_its_tolerance_in_onnx_runtime(
    golden: ModuleType, filled: Callable[..., dict[str, Tensor]], repository: Path, tmp_path: Path
) -> None:
    variant, path = VARIANTS["riformer-s12_in1k"], tmp_path / "model.onnx"
    side = variant.image_size_px
    model = lower(
        _golden_folded(variant.architecture, filled), LoweringConfig(precision=Precision.FP16), PLAIN
    )
    export_onnx(model, path, OnnxOptions(image_size_px=(side, side)), {})
    found = OnnxRuntime(path, threads=1).run(golden.golden_input(side, batch=1))["logits"]
    error, least_db = _golden_error(repository, variant, found), TOLERANCES[Precision.FP16].min_sqnr_db
    assert least_db is not None
    assert -20 * np.log10(error) >= least_db
    assert error <= 1e-3


def test_a_block_that_stays_in_float32_computes_and_stores_float32(digits_folded: RIFormer) -> None:
    config = LoweringConfig(precision=Precision.FP16, float32_blocks=("backbone.network.0.1",))
    model = lower(digits_folded, config, PLAIN)
    seen: dict[str, torch.dtype] = {}
    for name in ("backbone.network.0.0", "backbone.network.0.1", "backbone.network.0.1.mlp.fc1", "head"):
        module = dict(model.named_modules())[name]
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.dtype}))
    model(torch.zeros(1, 3, 64, 64))
    assert seen == {
        "backbone.network.0.0": torch.float16,
        "backbone.network.0.1": torch.float32,
        "backbone.network.0.1.mlp.fc1": torch.float32,
        "head": torch.float32,
    }


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_uint8_pictures_are_normalised_in_the_model(digits_folded: RIFormer, order: str) -> None:
    preprocessing = Preprocessing(resize_short_edge_px=None, crop_px=(64, 64), channel_order=order)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    plain = lower(digits_folded, LoweringConfig(), preprocessing)
    model = lower(digits_folded, LoweringConfig(input_form=InputForm.UINT8), preprocessing)
    expected = plain(torch.from_numpy(normalize(pixels, preprocessing)))
    torch.testing.assert_close(model(torch.from_numpy(pixels)), expected, rtol=1e-5, atol=1e-5)


def test_outputs_are_those_of_the_folded_model(
    digits_folded: RIFormer, digits_inputs: NDArray[np.float32]
) -> None:
    images = torch.from_numpy(digits_inputs[:4])
    logits, probabilities, features = digits_folded.all_outputs(images)
    found = {
        form: lower(digits_folded, LoweringConfig(output_form=form, topk=3), PLAIN)(images)
        for form in OutputForm
        if form is not OutputForm.MAPS
    }
    scores, labels = probabilities.topk(3)
    torch.testing.assert_close(found[OutputForm.LOGITS], logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[OutputForm.PROBABILITIES], probabilities, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[OutputForm.FEATURES], features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[OutputForm.TOPK][0], scores, rtol=1e-4, atol=1e-6)
    assert torch.equal(found[OutputForm.TOPK][1], labels)


@pytest.mark.parametrize("norm", NormForm)
def test_maps_are_those_of_the_folded_model_with_their_norms(
    tiny_architecture: Architecture, filled: Callable[..., dict[str, Tensor]], norm: NormForm
) -> None:
    indices = (0, 3, 6)
    state = {key: value.double() for key, value in filled(tiny_architecture, out_indices=indices).items()}
    folded = fold(model_from_state(tiny_architecture, Form.TRAINING, state, out_indices=indices))
    images = torch.randn(3, 3, 64, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    config = LoweringConfig(norm=norm, output_form=OutputForm.MAPS, out_indices=indices)
    lowered = lower(folded, config, PLAIN)
    assert lowered.output_names == ("stage1", "downsampling2", "stage4")
    for found, expected in zip(lowered(images), folded.backbone(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    half = dataclasses.replace(config, precision=Precision.FP16, io=Precision.FP16)
    assert [item.dtype for item in lower(folded, half, PLAIN)(images)] == [torch.float16] * 3


def test_lowering_leaves_the_folded_model_as_it_was(tiny_model: RIFormer) -> None:
    folded = fold(tiny_model)
    before = {key: value.clone() for key, value in folded.state_dict().items()}
    lower(folded, LoweringConfig(precision=Precision.FP16), PLAIN)
    assert all(torch.equal(before[key], value) for key, value in folded.state_dict().items())
