"""One layer of the folded model, as a lowering config wants it."""

from __future__ import annotations

import torch
from torch import nn

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision
from riformer_deploy.export.layers import PlainLayer, torch_dtype
from riformer_deploy.export.quantized_layers import FLOAT8, QuantizedLayer


def layer_dtype(precision: Precision, layer: nn.Conv2d | nn.Linear) -> torch.dtype:
    """What a precision means for a layer: fp32 is the folded model's own type, float32 or float64.

    Args:
        precision: fp32, fp16 or bf16.
        layer: Of the folded model.

    Raises:
        OptionError: The precision is a quantised one.
    """
    return layer.weight.dtype if precision is Precision.FP32 else torch_dtype(precision)


def config_layer(
    config: LoweringConfig,
    name: str,
    layer: nn.Conv2d | nn.Linear,
    dtype: torch.dtype,
    *,
    product: bool = False,
) -> nn.Module:
    """A layer of the folded model as the config wants it: quantised where the config has a range for it.

    Args:
        config: Resolved.
        name: The layer's, as in the model.
        layer: Of the folded model.
        dtype: Type of the result.
        product: Compute a 1x1 convolution as a matrix product.
    """
    if name not in config.ranges:
        return PlainLayer(layer, dtype, product=product)
    scale = config.smoothquant_scales.get(name)
    return QuantizedLayer(
        layer,
        config.ranges[name],
        dtype,
        None if scale is None else torch.tensor(scale),
        FLOAT8 if config.precision is Precision.FP8 else torch.int8,
        product=product,
    )
