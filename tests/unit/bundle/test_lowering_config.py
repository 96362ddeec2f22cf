from __future__ import annotations

import json
from typing import Any

import pytest

from riformer_deploy.bundle.lowering_config import CalibrationRecord, LoweringConfig
from riformer_deploy.common.enums import (
    Method,
    MlpForm,
    Norm2Form,
    NormForm,
    OutputForm,
    Precision,
    ResidualForm,
)
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.serialization import RecordError, dump_json, load_json

FOLDED_HALF: dict[str, Any] = {"norm2": Norm2Form.FOLDED, "norm_io": Precision.FP16}
IN_HALF = "inputs and outputs of norms in fp16 need it as the base, and that is"


def test_every_bad_option_is_told_at_once() -> None:
    with pytest.raises(OptionError, match="fp32 cannot be exported as asked") as caught:
        LoweringConfig(int8_base=Precision.BF16, io=Precision.INT8, topk=0, norm_io=Precision.INT8)
    assert len(caught.value.details) == 4


@pytest.mark.parametrize(
    ("precision", "fields", "told"),
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
            {**FOLDED_HALF, "int8_base": Precision.FP16},
            ["norm2 folded into fc1 gives fc1 what the norm takes"],
        ),
        (Precision.FP8, {"norm2": Norm2Form.FOLDED}, ["of which fp8 has no range"]),
        (Precision.FP16, {"norm_io": Precision.BF16}, ["norms in bf16 need it as the base"]),
        (
            Precision.FP16,
            {"norm_io": Precision.FP16, "norm": NormForm.MOMENTS},
            ["norm form moments has no operator that takes fp16"],
        ),
    ],
)
def test_forms_that_a_precision_cannot_have_are_refused_by_name(
    precision: Precision, fields: dict[str, Any], told: list[str]
) -> None:
    with pytest.raises(OptionError, match=f"{precision} cannot be exported as asked") as caught:
        LoweringConfig(precision=precision, **fields)
    assert len(caught.value.details) == len(told)
    assert all(text in detail for text, detail in zip(told, caught.value.details, strict=True))


@pytest.mark.parametrize(
    ("precision", "int8_base", "base", "needed"),
    [
        (Precision.FP32, None, Precision.FP32, False),
        (Precision.FP16, Precision.FP32, Precision.FP16, True),
        (Precision.BF16, None, Precision.BF16, False),
        (Precision.INT8, None, Precision.FP32, True),
        (Precision.INT8, Precision.FP16, Precision.FP16, True),
        (Precision.FP8, Precision.FP32, Precision.FP16, True),
    ],
)
def test_the_base_and_whether_images_are_needed(
    precision: Precision, int8_base: Precision | None, base: Precision, *, needed: bool
) -> None:
    config = LoweringConfig(precision=precision, int8_base=int8_base, float32_blocks=("a",))
    assert (config.base, config.needs_calibration) == (base, needed)
    assert (config.precision_of("a"), config.precision_of("b")) == (Precision.FP32, base)


def test_how_ranges_are_chosen_goes_with_the_precision() -> None:
    assert LoweringConfig(precision=Precision.INT8).range_method is Method.MSE
    assert LoweringConfig(precision=Precision.INT8, method=Method.ENTROPY).range_method is Method.ENTROPY
    assert LoweringConfig(precision=Precision.FP8).range_method is Method.MAX


ASKED: dict[str, Any] = {
    "int8_base": Precision.FP16,
    "method": Method.MAX,
    "equalize": False,
    "quantize_residual": True,
    "residual_form": ResidualForm.RESULTS,
    "residual_blocks": ("backbone.network.0",),
    "exclude_layers": ("head.fc",),
}


@pytest.mark.parametrize(
    ("precision", "heeded"),
    [
        (Precision.INT8, set(ASKED)),
        (Precision.FP8, {"method", "exclude_layers"}),
        (Precision.FP16, set()),
    ],
)
def test_only_what_the_precision_heeds_is_kept(precision: Precision, heeded: set[str]) -> None:
    asked = LoweringConfig(precision=precision, norm=NormForm.LAYER, **ASKED)
    expected = {name: value for name, value in ASKED.items() if name in heeded}
    assert asked.heeded() == LoweringConfig(precision=precision, norm=NormForm.LAYER, **expected)


def test_a_method_that_fp8_does_not_follow_is_dropped() -> None:
    asked = LoweringConfig(precision=Precision.FP8, method=Method.ENTROPY)
    assert asked.heeded() == LoweringConfig(precision=Precision.FP8)


def test_it_is_read_back_as_it_was_written_to_the_last_bit() -> None:
    third = 1 / 3
    config = LoweringConfig(
        precision=Precision.INT8,
        norm=NormForm.LAYER,
        mlp=MlpForm.MATMUL,
        exclude_layers=("head.fc",),
        output_form=OutputForm.TOPK,
        calibration=CalibrationRecord(source="a", random=True, images=1, key="k", method=Method.MSE),
        float32_blocks=("backbone.network.0.0",),
        ranges={"backbone.patch_embed.proj": third},
        smoothquant_scales={"backbone.network.1.proj": (third, 2.0)},
        residual_ranges={"backbone.network.0.0.stream": 1e-30},
    )
    assert load_json(LoweringConfig, dump_json(config)) == config


@pytest.mark.parametrize(
    "fields", [{"residual_blocks": ("backbone.network.0",)}, {"residual_form": ResidualForm.RESULTS}]
)
def test_how_residuals_are_quantised_needs_that_they_are(fields: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="are for quantize_residual, which was not asked for"):
        LoweringConfig(precision=Precision.INT8, **fields)


def test_a_stored_config_that_no_precision_can_have_is_refused() -> None:
    written = json.loads(dump_json(LoweringConfig(precision=Precision.FP8)))
    with pytest.raises(RecordError, match="fp8 cannot be exported as asked"):
        load_json(LoweringConfig, json.dumps({**written, "norm2": "folded"}))
    with pytest.raises(RecordError, match="norm: expected 'instance' or 'group'"):
        load_json(LoweringConfig, json.dumps({**written, "norm": "batch"}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"output_form": OutputForm.MAPS}, "need each other"),
        ({"out_indices": (0, 6)}, "need each other"),
        ({"output_form": OutputForm.MAPS, "out_indices": (0, 2)}, "must hold 6, the last stage"),
        ({"output_form": OutputForm.MAPS, "out_indices": (6, 0)}, "ascending"),
        ({"output_form": OutputForm.MAPS, "out_indices": (0, 7)}, "from 0 to 6"),
    ],
)
def test_positions_of_maps_are_ascending_with_the_last_stage(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        LoweringConfig(**fields)
