from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from riformer_deploy.bundle.lowering_config import CalibrationRecord, LoweringConfig
from riformer_deploy.common.enums import Method, Precision, ResidualForm
from riformer_deploy.common.errors import OptionError
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.calibration import CalibrationResult
from riformer_deploy.quantization.resolving import FP8_HEADROOM, HALF_LIMIT, resolve_lowering

FP16 = LoweringConfig(precision=Precision.FP16)
INT8 = LoweringConfig(precision=Precision.INT8)
INT8_HALF = dataclasses.replace(INT8, int8_base=Precision.FP16)
FP8 = LoweringConfig(precision=Precision.FP8)


def _with(result: CalibrationResult, **measured: Any) -> CalibrationResult:
    return dataclasses.replace(result, calibration=dataclasses.replace(result.calibration, **measured))


@pytest.mark.parametrize("peak", [HALF_LIMIT * 1.01, float("inf"), float("nan")])
def test_a_block_that_would_overflow_half_stays_in_float32_by_name(
    calibrated: CalibrationResult, peak: float
) -> None:
    block = "backbone.network.2.0"
    loud = _with(calibrated, abs_max={**calibrated.calibration.abs_max, block: peak})
    for config in (FP16, INT8_HALF, FP8):
        assert resolve_lowering(config, loud).float32_blocks == (block,)
    plain, wide = (resolve_lowering(FP8, result).ranges for result in (calibrated, loud))
    assert set(plain) - set(wide) == {f"{block}.mlp.fc1", f"{block}.mlp.fc2"}
    assert not resolve_lowering(FP16, calibrated).float32_blocks
    assert not resolve_lowering(INT8, loud).float32_blocks


def test_what_depends_on_no_images_stays_as_it_is(calibrated: CalibrationResult) -> None:
    for config in (LoweringConfig(), LoweringConfig(precision=Precision.BF16)):
        assert resolve_lowering(config, calibrated) == config
    assert resolve_lowering(FP16, None) == FP16


@pytest.mark.parametrize("config", [LoweringConfig(), FP16], ids=lambda config: config.precision)
def test_what_a_precision_does_not_heed_is_not_stored(
    calibrated: CalibrationResult, config: LoweringConfig
) -> None:
    asked = dataclasses.replace(
        config, int8_base=Precision.FP16, quantize_residual=True, exclude_layers=("head.fc",)
    )
    assert resolve_lowering(asked, calibrated) == resolve_lowering(config, calibrated)


@pytest.mark.parametrize("config", [INT8, FP8], ids=lambda config: config.precision)
def test_a_quantised_precision_without_a_calibration_is_refused(config: LoweringConfig) -> None:
    with pytest.raises(OptionError, match=f"{config.precision} needs calibration images"):
        resolve_lowering(config, None)


@pytest.mark.parametrize(
    ("config", "field", "told"),
    [(INT8, "ranges", "no ranges for int8"), (FP8, "largest", "no largest inputs of layers")],
)
def test_a_calibration_that_lacks_what_a_precision_takes_its_ranges_from_is_refused(
    calibrated: CalibrationResult, config: LoweringConfig, field: str, told: str
) -> None:
    with pytest.raises(OptionError, match=told) as caught:
        resolve_lowering(config, _with(calibrated, **{field: {}}))
    assert caught.value.remedy.startswith("Calibrate")


def test_fp8_quantises_the_mlps_alone_to_twice_their_largest_inputs(
    digits_folded: RIFormer, calibrated: CalibrationResult
) -> None:
    layers = quantizable(digits_folded, Precision.FP8)
    assert set(layers) == {name for name in quantizable(digits_folded) if ".mlp." in name}
    excluded = layers[3]
    asked = dataclasses.replace(FP8, exclude_layers=(excluded, "head.fc"))
    resolved = resolve_lowering(asked, calibrated)
    largest = calibrated.calibration.largest
    assert resolved.ranges == {name: FP8_HEADROOM * largest[name] for name in layers if name != excluded}
    assert resolved.smoothquant_scales == {}
    assert resolved.exclude_layers == asked.exclude_layers


def test_a_layer_that_saw_only_zeros_still_has_a_range(calibrated: CalibrationResult) -> None:
    name = "backbone.network.0.0.mlp.fc1"
    silent = _with(calibrated, largest={**calibrated.calibration.largest, name: 0.0})
    assert resolve_lowering(FP8, silent).ranges[name] == FP8_HEADROOM


def test_excluded_layers_are_not_quantised_and_residuals_only_if_asked(
    calibrated: CalibrationResult,
) -> None:
    excluding = dataclasses.replace(INT8, exclude_layers=("head.fc",))
    plain = resolve_lowering(excluding, calibrated)
    assert set(calibrated.calibration.ranges) - set(plain.ranges) == {"head.fc"}
    assert not plain.residual_ranges
    asked = dataclasses.replace(INT8, quantize_residual=True)
    both = _with(calibrated, residual_ranges={"backbone.network.0.0.stream": 2.5})
    assert resolve_lowering(asked, both).residual_ranges == {"backbone.network.0.0.stream": 2.5}
    assert not resolve_lowering(dataclasses.replace(asked, precision=Precision.FP8), both).residual_ranges
    with pytest.raises(OptionError, match="no ranges of residual tensors") as caught:
        resolve_lowering(asked, calibrated)
    assert "residual=True" in caught.value.remedy


def test_what_is_excluded_by_group_block_or_stage_is_stored_by_name(calibrated: CalibrationResult) -> None:
    block = "backbone.network.4.0"
    asked = dataclasses.replace(INT8, exclude_layers=("head", block, "stem", "head.fc"))
    found = resolve_lowering(asked, calibrated)
    assert found.exclude_layers == (
        "head.fc",
        f"{block}.mlp.fc1",
        f"{block}.mlp.fc2",
        "backbone.patch_embed.proj",
    )
    assert set(calibrated.calibration.ranges) - set(found.ranges) == set(found.exclude_layers)
    assert resolve_lowering(found, calibrated) == found


@pytest.mark.parametrize(
    ("form", "named", "expected"),
    [
        (ResidualForm.INPUTS, (), {"0.0.stream", "0.0.branch", "4.0.stream", "4.1.stream", "4.1.branch"}),
        (ResidualForm.INPUTS, ("backbone.network.0.0",), {"0.0.stream", "0.0.branch"}),
        (ResidualForm.INPUTS, ("backbone.network.4",), {"4.0.stream", "4.1.stream", "4.1.branch"}),
        (
            ResidualForm.RESULTS,
            ("backbone.network.4",),
            {"3.result", "4.0.stream", "4.1.stream", "4.1.result"},
        ),
        # what a downsampling layer gives belongs to the block that reads it first
        (ResidualForm.RESULTS, ("backbone.network.4.1",), {"4.1.stream", "4.1.result"}),
    ],
)
def test_the_residual_stream_is_quantised_in_the_blocks_and_stages_that_are_named(
    calibrated: CalibrationResult, form: ResidualForm, named: tuple[str, ...], expected: set[str]
) -> None:
    places = "0.0.stream", "0.0.branch", "3.result", "4.0.stream", "4.1.stream", "4.1.branch", "4.1.result"
    measured = _with(calibrated, residual_ranges={f"backbone.network.{place}": 1.0 for place in places})
    asked = dataclasses.replace(INT8, quantize_residual=True, residual_form=form, residual_blocks=named)
    found = resolve_lowering(asked, measured).residual_ranges
    assert {name.removeprefix("backbone.network.") for name in found} == expected


def test_it_records_the_calibration_and_resolving_anew_leaves_nothing_of_the_first(
    calibrated: CalibrationResult,
) -> None:
    first = resolve_lowering(dataclasses.replace(INT8, method=Method.ENTROPY), calibrated)
    assert first.calibration == CalibrationRecord(
        source="calibration.npz",
        random=False,
        images=128,
        key=calibrated.calibration.key,
        method=Method.ENTROPY,
    )
    again = resolve_lowering(dataclasses.replace(first, precision=Precision.FP8), calibrated)
    assert again == resolve_lowering(FP8, calibrated)
