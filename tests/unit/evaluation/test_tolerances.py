from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance
from riformer_deploy.export.quantized_layers import FLOAT8, quantize

FP32 = TOLERANCES[Precision.FP32]


def test_every_precision_has_a_tolerance_stated_by_default() -> None:
    assert set(TOLERANCES) == set(Precision)
    assert {tolerance.stated for tolerance in TOLERANCES.values()} == {"default"}


def test_fp8_is_held_to_what_the_four_roundings_of_an_mlp_leave() -> None:
    """A single rounding, of normally distributed values, has four times less noise."""
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    scale = 2 * values.abs().max() / 448
    noise = quantize(values, scale, FLOAT8).float() * scale - values
    rounding_db = 20 * math.log10(values.norm() / noise.norm())
    tolerance = TOLERANCES[Precision.FP8]
    assert tolerance.min_sqnr_db is not None
    assert 0 < rounding_db - 10 * math.log10(4) - tolerance.min_sqnr_db < 1
    assert tolerance.stage_relative_l2 == pytest.approx(10 ** (-tolerance.min_sqnr_db / 20), rel=0.01)


def test_float32_is_held_to_the_contract_of_deployment() -> None:
    assert (FP32.rtol, FP32.atol, FP32.stage_relative_l2) == (1e-4, 1e-5, 1e-5)


@pytest.mark.parametrize("name", ["rtol", "atol", "stage_relative_l2"])
@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, -math.inf])
def test_a_limit_that_is_negative_or_not_finite_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{name} must be .* got {value}"):
        dataclasses.replace(FP32, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=f"{name} must be .* got {value}"):
        FP32.with_changes(**{name: value})


def test_both_tolerances_cannot_be_zero_but_either_can() -> None:
    with pytest.raises(OptionError, match="cannot both be 0"):
        FP32.with_changes(rtol=0, atol=0)
    assert FP32.with_changes(rtol=0).rtol == 0
    assert FP32.with_changes(atol=0).atol == 0


@pytest.mark.parametrize("name", ["rtol", "atol", "stage_relative_l2"])
def test_a_changed_limit_is_marked_and_leaves_the_others(name: str) -> None:
    changed = FP32.with_changes(**{name: 0.5})
    expected = {"rtol": 1e-4, "atol": 1e-5, "stage_relative_l2": 1e-5} | {name: 0.5}
    assert changed == Tolerance(**expected, stated="user")
    assert FP32.stated == "default"


def test_no_change_is_no_change() -> None:
    assert FP32.with_changes() == FP32
