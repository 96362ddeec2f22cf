from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from riformer_deploy.common.enums import NormForm
from riformer_deploy.export.norms import Moments, channel_moments, single_group_norm, statistics, widened


def _inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    plain = torch.randn(3, 6, 9, 7, generator=generator, dtype=torch.float64)
    hot = plain.clone()
    hot[:, 0, 0, 0] = 1e4
    return {
        "plain": plain,
        "mean 1000 times the deviation": plain + 1000,
        "channels of their own": plain * torch.logspace(-2, 2, 6, dtype=torch.float64).reshape(1, -1, 1, 1),
        "one hot pixel": hot,
        "constant": torch.full((2, 6, 4, 4), 3.0, dtype=torch.float64),
        "zero": torch.zeros(2, 6, 4, 4, dtype=torch.float64),
    }


@pytest.mark.parametrize("form", NormForm)
@pytest.mark.parametrize("kind", list(_inputs()))
def test_every_form_equals_group_norm_in_float64(form: NormForm, kind: str) -> None:
    x = _inputs()[kind]
    torch.testing.assert_close(
        single_group_norm(x, form), functional.group_norm(x, 1, eps=1e-5), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("form", NormForm)
def test_a_mean_1000_times_the_deviation_keeps_float32_right(form: NormForm) -> None:
    x = _inputs()["mean 1000 times the deviation"]
    expected = functional.group_norm(x.float().double(), 1, eps=1e-5)
    assert float((single_group_norm(x.float(), form) - expected).abs().max()) < 2e-3


@pytest.mark.parametrize("form", NormForm)
def test_a_constant_image_gives_zeros_in_float32(form: NormForm) -> None:
    found = single_group_norm(torch.full((2, 6, 16, 16), 255.0), form)
    assert torch.isfinite(found).all()
    assert float(found.abs().max()) < 1e-2


@pytest.mark.parametrize("form", [form for form in NormForm if form is not NormForm.MOMENTS])
@pytest.mark.parametrize("kind", ["plain", "mean 1000 times the deviation"])
def test_the_operators_take_the_statistics_of_half_in_float32(form: NormForm, kind: str) -> None:
    """What is left is the rounding of the result: 2^-11 of each value at most."""
    x = _inputs()[kind].half()
    true = functional.group_norm(x.double(), 1, eps=1e-5)
    found = single_group_norm(x, form)
    assert found.dtype is torch.float16
    torch.testing.assert_close(found.double(), true, rtol=2**-11, atol=1e-4)


@pytest.mark.parametrize("kind", list(_inputs()))
def test_statistics_give_the_norm(kind: str) -> None:
    x = _inputs()[kind]
    torch.testing.assert_close(
        statistics(x).normalised(x), functional.group_norm(x, 1, eps=1e-5), rtol=1e-9, atol=1e-12
    )


def test_moments_of_a_multiple_plus_a_constant_follow_from_those_of_the_input() -> None:
    x = _inputs()["channels of their own"]
    gain = torch.linspace(0.5, 2, 18, dtype=torch.float64).reshape(3, 6, 1, 1)
    offset = torch.linspace(-5, 5, 18, dtype=torch.float64).reshape(3, 6, 1, 1)
    found, direct = channel_moments(x).scaled(gain, offset), channel_moments(gain * x + offset)
    torch.testing.assert_close(found.mean, direct.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.variance, direct.variance, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.inverse_deviation, direct.inverse_deviation, rtol=1e-12, atol=0)


def test_the_overall_variance_adds_the_spread_of_the_channels_means() -> None:
    moments = Moments(mean=torch.tensor([[[[1.0]], [[3.0]]]]), variance=torch.tensor([[[[2.0]], [[4.0]]]]))
    assert float(moments.overall_mean) == 2.0
    assert float(moments.inverse_deviation) == pytest.approx((3.0 + 1.0 + 1e-5) ** -0.5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_statistics_are_never_taken_in_half(given: torch.dtype, expected: torch.dtype) -> None:
    assert widened(torch.zeros(1, dtype=given)).dtype is expected
