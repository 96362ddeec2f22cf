from __future__ import annotations

from typing import Any

import pytest

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Method, MlpForm, NormForm, OutputForm, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.export.option_checks import check_config, check_opset, refuse_unused
from riformer_deploy.model.network import RIFormer

FP32, FP16, INT8, FP8 = Precision.FP32, Precision.FP16, Precision.INT8, Precision.FP8


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        (LoweringConfig(precision=Precision.BF16), 22),
        (LoweringConfig(precision=INT8, int8_base=FP16), 19),
        (LoweringConfig(precision=FP8), 19),
        (LoweringConfig(precision=FP8, mlp=MlpForm.MATMUL), 21),
        (LoweringConfig(norm=NormForm.GROUP), 21),
    ],
)
def test_what_an_opset_cannot_express_is_refused_with_the_one_that_can(
    config: LoweringConfig, needed: int
) -> None:
    with pytest.raises(OptionError, match=f"needs opset {needed}") as caught:
        check_opset([config], needed - 1)
    assert caught.value.remedy == f"Say --opset {needed}."
    check_opset([config], needed)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            LoweringConfig(precision=INT8, exclude_layers=("head.fc", "nothing")),
            "no layer, block, stage or group is called nothing",
        ),
        (
            LoweringConfig(precision=INT8, quantize_residual=True, residual_blocks=("backbone.network.1",)),
            "no block or stage is called backbone.network.1",
        ),
        (LoweringConfig(precision=FP16, output_form=OutputForm.TOPK, topk=11), "topk 11 of 10 classes"),
        (LoweringConfig(io=FP16), "round more than the tolerance of fp32"),
    ],
)
def test_a_config_that_does_not_fit_the_model_is_refused(
    digits_folded: RIFormer, config: LoweringConfig, told: str
) -> None:
    with pytest.raises(OptionError, match=told):
        check_config(config, digits_folded)


def _configs(*precisions: Precision, **fields: Any) -> tuple[LoweringConfig, ...]:
    return tuple(LoweringConfig(precision=precision, **fields) for precision in precisions)


INT8_ALONE: dict[str, dict[str, Any]] = {
    "--method": {"method": Method.MSE},
    "--int8-base": {"int8_base": Precision.FP32},  # the default, but said
    "--equalize": {"equalize": False},
    "--quantize-residual": {"quantize_residual": True},
}


@pytest.mark.parametrize("precisions", [(FP32,), (FP16, FP8), (FP8,)], ids="+".join)
@pytest.mark.parametrize("option", INT8_ALONE)
def test_what_only_int8_heeds_is_refused_without_it_by_name(
    option: str, precisions: tuple[Precision, ...]
) -> None:
    fields = INT8_ALONE[option]
    with pytest.raises(OptionError, match=f"no effect on {', '.join(precisions)}") as caught:
        refuse_unused(_configs(*precisions, **fields))
    (detail,) = caught.value.details
    assert detail.startswith(option)
    refuse_unused(_configs(*precisions, INT8, **fields))


def test_every_option_without_effect_is_told_at_once() -> None:
    fields = {name: value for each in INT8_ALONE.values() for name, value in each.items()}
    with pytest.raises(OptionError) as caught:
        refuse_unused(_configs(FP16, **fields, exclude_layers=("head.fc",)))
    assert [detail.partition(":")[0].partition(",")[0] for detail in caught.value.details] == [
        *INT8_ALONE,
        "--exclude-layers",
    ]


@pytest.mark.parametrize("fields", [{"method": Method.MAX}, {"exclude_layers": ("head.fc",)}])
def test_what_fp8_does_anyway_or_heeds_is_no_mistake(fields: dict[str, Any]) -> None:
    refuse_unused(_configs(FP8, **fields))
    with pytest.raises(OptionError, match="no effect on fp16"):
        refuse_unused(_configs(FP16, **fields))
