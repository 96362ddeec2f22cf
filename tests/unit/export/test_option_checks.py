from __future__ import annotations

from typing import Any

import pytest

from riformer_deploy.common.enums import Method, MlpForm, Norm2Form, NormForm, OutputForm, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.export.config import PrecisionOptions
from riformer_deploy.export.option_checks import check_opset, check_options, refuse_unused
from riformer_deploy.model.network import RIFormer

INT8_HALF = PrecisionOptions(int8_base=Precision.FP16)


@pytest.mark.parametrize(
    ("precision", "options", "needed"),
    [
        (Precision.BF16, PrecisionOptions(), 22),
        (Precision.INT8, INT8_HALF, 19),
        (Precision.FP8, PrecisionOptions(), 19),
        (Precision.FP8, PrecisionOptions(mlp=MlpForm.MATMUL), 21),
        (Precision.FP32, PrecisionOptions(norm=NormForm.GROUP), 21),
    ],
)
def test_what_an_opset_cannot_express_is_refused_with_the_one_that_can(
    precision: Precision, options: PrecisionOptions, needed: int
) -> None:
    with pytest.raises(OptionError, match=f"needs opset {needed}") as caught:
        check_opset([precision], options, needed - 1)
    assert caught.value.remedy == f"Say --opset {needed}."
    check_opset([precision], options, needed)


@pytest.mark.parametrize(
    ("precision", "options", "told"),
    [
        (
            Precision.INT8,
            PrecisionOptions(keep=frozenset({"head.fc", "nothing"})),
            "no layer is called nothing",
        ),
        (Precision.FP16, PrecisionOptions(output_form=OutputForm.TOPK, topk=11), "topk 11 of 10 classes"),
        (Precision.FP32, PrecisionOptions(io=Precision.FP16), "round more than the tolerance of fp32"),
        (Precision.FP8, PrecisionOptions(norm2=Norm2Form.FOLDED), "of which fp8 has no range"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(
    digits_folded: RIFormer, precision: Precision, options: PrecisionOptions, told: str
) -> None:
    with pytest.raises(OptionError, match=told):
        check_options(precision, options, digits_folded)


FP32, FP16, INT8, FP8 = Precision.FP32, Precision.FP16, Precision.INT8, Precision.FP8
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
        refuse_unused(precisions, PrecisionOptions(**fields))
    (detail,) = caught.value.details
    assert detail.startswith(option)
    refuse_unused((*precisions, INT8), PrecisionOptions(**fields))


def test_every_option_without_effect_is_told_at_once() -> None:
    fields = {name: value for each in INT8_ALONE.values() for name, value in each.items()}
    with pytest.raises(OptionError) as caught:
        refuse_unused((FP16,), PrecisionOptions(**fields, keep=frozenset({"head.fc"})))
    assert [detail.partition(":")[0].partition(",")[0] for detail in caught.value.details] == [
        *INT8_ALONE,
        "--keep",
    ]


@pytest.mark.parametrize(
    "options", [PrecisionOptions(method=Method.MAX), PrecisionOptions(keep=frozenset({"head.fc"}))]
)
def test_what_fp8_does_anyway_or_heeds_is_no_mistake(options: PrecisionOptions) -> None:
    refuse_unused((FP8,), options)
    with pytest.raises(OptionError, match="no effect on fp16"):
        refuse_unused((FP16,), options)
