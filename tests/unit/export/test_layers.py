from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.export.layers import NormFoldedLayer, PlainLayer, torch_dtype
from riformer_deploy.export.norms import statistics, widened


def _layer() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(32, 48, 1).requires_grad_(requires_grad=False)


def _map(mean: float) -> Tensor:
    """Deviation 1, float32."""
    return mean + torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(1))


def _folded(y: Tensor, dtype: torch.dtype, *, product: bool) -> Tensor:
    """fc1 of the norm of ``y``, (N, 48, H, W), with the norm folded."""
    layer = NormFoldedLayer(_layer().to(dtype), dtype, product=product)
    known = statistics(widened(y))
    taken = y.flatten(2).transpose(1, 2) if product else y
    found: Tensor = layer(taken, known.mean, known.inverse_deviation)
    return found.transpose(1, 2).reshape(2, 48, 8, 8) if product else found


def _relative(found: Tensor, true: Tensor) -> float:
    return float((found - true).norm() / true.norm())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_product_of_tokens_is_the_convolution(dtype: torch.dtype) -> None:
    x = _map(0.0)
    layer = PlainLayer(_layer(), dtype, product=True)
    assert layer.weight.shape == (32, 48)
    found = layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(2, 48, 8, 8)
    assert found.dtype is dtype
    assert _relative(found.double(), _layer().double()(x.double())) < torch.finfo(dtype).eps


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("mean", [0.0, 10.0, 1000.0])
def test_a_folded_norm_is_the_layer_of_the_norms_result_in_float64(mean: float, *, product: bool) -> None:
    y = _map(mean).double()
    true = _layer().double()(functional.group_norm(y, 1, eps=1e-5))
    assert _relative(_folded(y, torch.float64, product=product), true) < 1e-12


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("mean", [0.0, 10.0, 100.0, 1000.0])
def test_a_folded_norm_in_half_loses_about_2_to_the_minus_12_for_each_deviation_in_the_mean(
    mean: float, *, product: bool
) -> None:
    """``W y`` is rounded before ``m W1`` is taken from it: a known limit, which parity judges on real images.

    With the norm before the layer nothing of the kind is lost: the error stays that of the rounding.
    """
    y = _map(mean).half()
    true = _layer().half().double()(functional.group_norm(y.double(), 1, eps=1e-5))
    lost = _relative(_folded(y, torch.float16, product=product).double(), true)
    explicit = PlainLayer(_layer(), torch.float16)(functional.group_norm(y.float(), 1, eps=1e-5))
    assert _relative(explicit.double(), true) < 2**-11
    assert lost < 2**-11 * (1 + mean)
    if mean >= 100:
        assert lost > 2**-14 * mean


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_a_quantised_precision_is_no_type_of_a_whole_model(precision: Precision) -> None:
    with pytest.raises(OptionError, match=f"{precision} is no type"):
        torch_dtype(precision)
