from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

from riformer_deploy.export.quantized_layers import (
    FLOAT8,
    ActivationQuantizer,
    QuantizedLayer,
    fitting_scale,
    quantize,
)


def _by_onnxruntime(
    x: NDArray[np.floating], scale: float, target: int = TensorProto.INT8
) -> NDArray[np.floating]:
    """``x`` through QuantizeLinear and DequantizeLinear, in its own type."""
    base = helper.np_dtype_to_tensor_dtype(x.dtype)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["stored"]),
        helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info("x", base, [None])],
        [helper.make_tensor_value_info("y", base, [None])],
        [
            helper.make_tensor("scale", base, [], [scale]),
            helper.make_tensor("zero", target, [], [0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[np.floating] = session.run(None, {"x": x})[0]
    return result


def test_values_are_rounded_to_nearest_even_and_clipped() -> None:
    x = torch.tensor([0.0, 0.24, 0.25, 0.75, 1.25, -0.25, -0.75, 63.5, 64.0, -64.0, -70.0])
    found = quantize(x, torch.tensor(0.5))
    assert found.tolist() == [0, 0, 0, 2, 2, 0, -2, 127, 127, -128, -128]
    assert found.dtype is torch.int8


def test_an_activation_is_rounded_as_onnxruntime_rounds_it() -> None:
    quantizer = ActivationQuantizer(3.0, torch.float32)
    x = torch.linspace(-4, 4, 5001)
    expected = _by_onnxruntime(x.numpy(), float(quantizer.get_buffer("scale")))
    assert np.array_equal(quantizer(x).numpy(), expected)
    assert len(np.unique(expected)) == 256


def test_a_float8_is_rounded_to_nearest_even_and_clipped_and_keeps_nan() -> None:
    steps = torch.tensor([1.0, 1.0625, 1.1875, 448.0, 470.0, 1e9, -1e9, 2**-9, 2**-10, torch.inf])
    found = quantize(steps * 0.5, torch.tensor(0.5), FLOAT8)
    assert found.dtype is FLOAT8
    assert found.tolist() == [1, 1, 1.25, 448, 448, 448, -448, 2**-9, 0, 448]
    assert quantize(torch.tensor([torch.nan]), torch.tensor(0.5), FLOAT8).float().isnan().all()


@pytest.mark.parametrize("base", [torch.float16, torch.float32])
def test_a_float8_activation_is_rounded_as_onnxruntime_rounds_it(base: torch.dtype) -> None:
    quantizer = ActivationQuantizer(3.0, base, FLOAT8)
    x = torch.cat([torch.linspace(-4, 4, 5001), torch.logspace(-7, 0, 2000), torch.tensor([1e4])]).to(base)
    scale = float(quantizer.get_buffer("scale"))
    found = quantizer(x)
    assert found.dtype is base
    assert np.array_equal(found.numpy(), _by_onnxruntime(x.numpy(), scale, TensorProto.FLOAT8E4M3FN))
    assert float(found.max()) == pytest.approx(3.0, rel=2e-3)  # the scale is rounded to half
    large = x[:5001].abs() > 1e-2
    error = ((found[:5001] - x[:5001].clamp(-3, 3)) / x[:5001])[large].abs()
    assert float(error.max()) <= 2**-4 * 1.01


@pytest.mark.parametrize("target", [torch.int8, FLOAT8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_scale_is_never_too_small_and_hardly_too_large(dtype: torch.dtype, target: torch.dtype) -> None:
    largest = torch.logspace(0, 4, 4001)
    scale = fitting_scale(largest, dtype, target)
    assert scale.dtype is dtype
    ratio = scale.double() * (127 if target is torch.int8 else 448) / largest.double()
    assert float(ratio.min()) >= 1
    assert float(ratio.max()) <= 1 + 2.5 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("largest", [0.0, 1e-30, 1e-9])
def test_a_range_of_almost_nothing_still_has_a_positive_scale(dtype: torch.dtype, largest: float) -> None:
    scale = fitting_scale(torch.tensor(largest), dtype)
    assert float(scale) > 0
    assert float(scale) * 127 >= float(torch.tensor(largest))


def test_weights_by_hand() -> None:
    layer = nn.Linear(2, 2)
    layer.load_state_dict(
        {"weight": torch.tensor([[127.0, -63.6], [0.0, 2.54]]), "bias": torch.tensor([1.0, 2.0])}
    )
    quantized = QuantizedLayer(layer, 127.0, torch.float32)
    assert quantized.get_buffer("weight").tolist() == [[127, -64], [0, 127]]
    assert quantized.get_buffer("weight_scale").tolist() == pytest.approx([1.0, 0.02])
    assert quantized(torch.tensor([[2.4, -1.6]])).tolist() == [
        pytest.approx([2 * 127 + 128 + 1.0, -2 * 2.54 + 2])
    ]


@pytest.mark.parametrize("base", [torch.float32, torch.float16])
def test_weights_are_within_half_a_step_in_every_output_channel(base: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 3)
    with torch.no_grad():
        layer.weight *= torch.logspace(-1, 2, 7).reshape(-1, 1, 1, 1)
    found = QuantizedLayer(layer, 1.0, base)
    steps = layer.weight.detach().flatten(1).abs().amax(1) / 127
    off = (found.dequantized_weight().float() - layer.weight.detach()).abs().flatten(1).amax(1) / steps
    assert found.get_buffer("weight").dtype is torch.int8
    assert found.get_buffer("bias").dtype is base
    assert float(off.max()) < (0.502 if base is torch.float32 else 0.62)


@pytest.mark.parametrize("base", [torch.float32, torch.float16])
def test_float8_weights_share_one_scale_and_each_is_within_a_sixteenth(base: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 1)
    with torch.no_grad():
        layer.weight *= torch.logspace(-2, 1, 7).reshape(-1, 1, 1, 1)
    found = QuantizedLayer(layer, 1.0, base, target=FLOAT8)
    stored = {name: found.get_buffer(name) for name in ("weight", "weight_scale", "weight_zero")}
    assert {name: value.dtype for name, value in stored.items()} == {
        "weight": FLOAT8, "weight_scale": base, "weight_zero": FLOAT8,
    }  # fmt: skip
    assert stored["weight_scale"].shape == stored["weight_zero"].shape == ()
    true = layer.weight.detach()
    error = (found.dequantized_weight().float() - true).abs() / true.abs()
    assert float(error[true.abs() > 1e-3 * true.abs().max()].max()) <= 2**-4 * 1.02
    assert found.get_buffer("weight").float().abs().max() >= 447


def test_equalising_leaves_the_function_alone() -> None:
    torch.manual_seed(1)
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1).requires_grad_(requires_grad=False)
    x = torch.randn(2, 4, 8, 8) * torch.tensor([0.1, 1.0, 10.0, 100.0]).reshape(1, -1, 1, 1)
    smoothquant_scale = torch.tensor([0.1, 1.0, 10.0, 100.0])
    true = layer(x).detach()

    def error(found: QuantizedLayer) -> float:
        return float((found(x) - true).norm() / true.norm())

    equalised = QuantizedLayer(
        layer,
        float((x / smoothquant_scale.reshape(1, -1, 1, 1)).abs().max()),
        torch.float32,
        smoothquant_scale,
    )
    assert error(equalised) < 0.03
    assert equalised(x).shape == true.shape


@pytest.mark.parametrize(
    "smoothquant_scale", [None, torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0, 5.0])], ids=["", "equalised"]
)
@pytest.mark.parametrize("target", [torch.int8, FLOAT8])
def test_a_1x1_convolution_is_the_same_as_a_matrix_product(
    target: torch.dtype, smoothquant_scale: Tensor | None
) -> None:
    torch.manual_seed(3)
    layer, x = nn.Conv2d(6, 4, 1), torch.randn(2, 6, 5, 3)
    conv, product = (
        QuantizedLayer(layer, float(x.abs().max()), torch.float32, smoothquant_scale, target, product=form)
        for form in (False, True)
    )
    assert product.get_buffer("weight").shape == (6, 4)
    tokens = product(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(2, 4, 5, 3)
    torch.testing.assert_close(tokens, conv(x))


@pytest.mark.parametrize("target", [torch.int8, FLOAT8])
def test_a_layer_equals_the_layer_of_its_dequantised_parts(target: torch.dtype) -> None:
    torch.manual_seed(2)
    layer = nn.Conv2d(3, 4, 7, stride=4, padding=2, bias=False)
    x = torch.randn(1, 3, 16, 16)
    found = QuantizedLayer(layer, float(x.abs().max()), torch.float32, target=target)
    expected = functional.conv2d(found.input(x), found.dequantized_weight(), None, (4, 4), (2, 2))
    assert torch.equal(found(x), expected)


@pytest.mark.parametrize("base", [torch.float16, torch.float32])
def test_a_product_of_tokens_is_the_convolution(base: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 5, 1)
    x = torch.randn(2, 6, 4, 3)
    convolution, product = (QuantizedLayer(layer, 3.0, base, product=kind) for kind in (False, True))
    assert product.get_buffer("weight").shape == (6, 5)
    assert torch.equal(product.dequantized_weight(), convolution.dequantized_weight()[:, :, 0, 0].t())
    found = product(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(2, 5, 4, 3)
    torch.testing.assert_close(found, convolution(x), rtol=4 * torch.finfo(base).eps, atol=1e-3)
