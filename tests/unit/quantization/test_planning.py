from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from riformer_deploy.common.enums import Method, MlpForm, Norm2Form, NormForm, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.export.config import PrecisionOptions, quantizable, torch_dtype
from riformer_deploy.export.option_checks import check_options
from riformer_deploy.export.quantized_layers import FLOAT8
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.calibration import Calibration
from riformer_deploy.quantization.lowering_records import record_lowering
from riformer_deploy.quantization.planning import (
    FP8_HEADROOM,
    HALF_LIMIT,
    needs_calibration,
    resolve_lowering,
)

INT8_HALF = PrecisionOptions(int8_base=Precision.FP16)


def test_every_bad_option_is_told_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        PrecisionOptions(int8_base=Precision.BF16, io=Precision.INT8, topk=0, norm_io=Precision.INT8)
    assert len(caught.value.details) == 4


def test_moments_are_not_taken_in_half() -> None:
    with pytest.raises(OptionError, match="norm form moments has no operator that takes fp16"):
        PrecisionOptions(norm=NormForm.MOMENTS, norm_io=Precision.FP16)


FOLDED_HALF = PrecisionOptions(norm2=Norm2Form.FOLDED, norm_io=Precision.FP16)
IN_HALF = "inputs and outputs of norms in fp16 need it as the base, and that is"


@pytest.mark.parametrize(
    ("precision", "options", "told"),
    [
        (
            Precision.INT8,
            FOLDED_HALF,
            [f"{IN_HALF} fp32", "norm2 folded into fc1 gives fc1 what the norm takes"],
        ),
        (Precision.FP32, FOLDED_HALF, [f"{IN_HALF} fp32"]),
        (Precision.BF16, FOLDED_HALF, [f"{IN_HALF} bf16"]),
        (
            Precision.INT8,
            dataclasses.replace(FOLDED_HALF, int8_base=Precision.FP16),
            ["norm2 folded into fc1 gives fc1 what the norm takes"],
        ),
        (Precision.FP16, PrecisionOptions(norm_io=Precision.BF16), ["norms in bf16 need it as the base"]),
    ],
)
def test_forms_that_a_precision_cannot_have_are_refused_by_name(
    digits_folded: RIFormer,
    calibrate_for: Calibration,
    precision: Precision,
    options: PrecisionOptions,
    told: list[str],
) -> None:
    for refuse in (
        lambda: check_options(precision, options, digits_folded),
        lambda: resolve_lowering(precision, options, calibrate_for),
    ):
        with pytest.raises(OptionError, match=f"{precision} cannot be exported as asked") as caught:
            refuse()
        assert len(caught.value.details) == len(told)
        assert all(text in detail for text, detail in zip(told, caught.value.details, strict=True))


def test_forms_reach_the_plan(calibrate_for: Calibration) -> None:
    plan = resolve_lowering(
        Precision.FP16, dataclasses.replace(FOLDED_HALF, mlp=MlpForm.MATMUL), calibrate_for
    )
    assert (plan.norm_io, plan.mlp, plan.norm2) == (torch.float16, MlpForm.MATMUL, Norm2Form.FOLDED)


@pytest.mark.parametrize("peak", [HALF_LIMIT * 1.01, float("inf"), float("nan")])
def test_a_block_that_would_overflow_half_stays_in_float32_by_name(
    calibrate_for: Calibration, peak: float
) -> None:
    block = "backbone.network.2.0"
    loud = dataclasses.replace(calibrate_for, abs_max={**calibrate_for.abs_max, block: peak})
    halves = ((Precision.FP16, PrecisionOptions()), (Precision.INT8, INT8_HALF))
    for precision, options in (*halves, (Precision.FP8, PrecisionOptions())):
        assert resolve_lowering(precision, options, loud).float32_blocks == {block}
    plans = [resolve_lowering(Precision.FP8, PrecisionOptions(), found) for found in (calibrate_for, loud)]
    assert set(plans[0].ranges) - set(plans[1].ranges) == {f"{block}.mlp.fc1", f"{block}.mlp.fc2"}
    assert not resolve_lowering(Precision.FP16, PrecisionOptions(), calibrate_for).float32_blocks
    assert not resolve_lowering(Precision.INT8, PrecisionOptions(), loud).float32_blocks


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_a_quantised_precision_without_a_calibration_is_refused_and_is_no_type(precision: Precision) -> None:
    with pytest.raises(OptionError, match=f"{precision} needs calibration images"):
        resolve_lowering(precision, PrecisionOptions(), None)
    with pytest.raises(OptionError, match=f"{precision} is no type"):
        torch_dtype(precision)


@pytest.mark.parametrize(
    ("precision", "field", "told"),
    [
        (Precision.INT8, "ranges", "no ranges for int8"),
        (Precision.FP8, "largest", "no largest inputs of layers"),
    ],
)
def test_a_calibration_that_lacks_what_a_precision_takes_its_ranges_from_is_refused(
    calibrate_for: Calibration, precision: Precision, field: str, told: str
) -> None:
    lacking: dict[str, Any] = {field: {}}
    with pytest.raises(OptionError, match=told) as caught:
        resolve_lowering(precision, PrecisionOptions(), dataclasses.replace(calibrate_for, **lacking))
    assert caught.value.remedy.startswith("Calibrate")


def test_fp8_quantises_the_mlps_alone_to_twice_their_largest_inputs(
    digits_folded: RIFormer, calibrate_for: Calibration
) -> None:
    layers = quantizable(digits_folded, Precision.FP8)
    assert set(layers) == {name for name in quantizable(digits_folded) if ".mlp." in name}
    kept = layers[3]
    options = PrecisionOptions(keep=frozenset({kept, "head.fc"}))
    plan = resolve_lowering(Precision.FP8, options, calibrate_for)
    assert plan.ranges == {
        name: FP8_HEADROOM * calibrate_for.largest[name] for name in layers if name != kept
    }
    assert (plan.target, plan.base, dict(plan.smoothquant_scales)) == (FLOAT8, torch.float16, {})
    record = record_lowering(digits_folded, Precision.FP8, options, plan, None)
    assert (record.base, record.unquantized) == (Precision.FP16, (kept,))


def test_a_layer_that_saw_only_zeros_still_has_a_range(calibrate_for: Calibration) -> None:
    name = "backbone.network.0.0.mlp.fc1"
    silent = dataclasses.replace(calibrate_for, largest={**calibrate_for.largest, name: 0.0})
    assert resolve_lowering(Precision.FP8, PrecisionOptions(), silent).ranges[name] == FP8_HEADROOM


def test_how_ranges_are_chosen_goes_with_the_precision() -> None:
    assert PrecisionOptions().method_of(Precision.INT8) is Method.MSE
    assert PrecisionOptions(method=Method.ENTROPY).method_of(Precision.INT8) is Method.ENTROPY
    assert PrecisionOptions().method_of(Precision.FP8) is Method.MAX


def test_kept_layers_are_not_quantised_and_residuals_only_if_asked(calibrate_for: Calibration) -> None:
    plain = resolve_lowering(Precision.INT8, PrecisionOptions(keep=frozenset({"head.fc"})), calibrate_for)
    assert set(calibrate_for.ranges) - set(plain.ranges) == {"head.fc"}
    assert not plain.residual_ranges
    asked, ranges = PrecisionOptions(quantize_residual=True), {"backbone.network.0.0.stream": 2.5}
    both = dataclasses.replace(calibrate_for, residual_ranges=ranges)
    assert resolve_lowering(Precision.INT8, asked, both).residual_ranges == ranges
    with pytest.raises(OptionError, match="no ranges of residual inputs") as caught:
        resolve_lowering(Precision.INT8, asked, calibrate_for)
    assert "residual=True" in caught.value.remedy


@pytest.mark.parametrize(
    ("precision", "base", "dtype", "needed"),
    [
        (Precision.FP32, Precision.FP32, torch.float32, False),
        (Precision.FP16, Precision.FP32, torch.float16, True),
        (Precision.BF16, Precision.FP32, torch.bfloat16, False),
        (Precision.INT8, Precision.FP32, torch.float32, True),
        (Precision.INT8, Precision.FP16, torch.float16, True),
        (Precision.FP8, Precision.FP32, torch.float16, True),
    ],
)
def test_the_base_and_whether_images_are_needed(
    calibrate_for: Calibration, precision: Precision, base: Precision, dtype: torch.dtype, *, needed: bool
) -> None:
    options = PrecisionOptions(int8_base=base)
    assert resolve_lowering(precision, options, calibrate_for).base is dtype
    assert needs_calibration(precision, options) is needed
