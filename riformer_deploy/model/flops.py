"""Parameters and multiply-adds, counted on the module itself without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import empty_model


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """What one image costs.

    Attributes:
        parameters: Number of trainable values.
        flops: Multiply-adds of one image as the published table counts them: one per product of a
            convolution or linear layer, five per normalised value and one per pooled value
            (fvcore's convention, which mmengine's ``get_model_complexity_info`` follows).
        image_size_px: Height and width.
    """

    parameters: int
    flops: int
    image_size_px: tuple[int, int]


# FlopCounterMode counts two per multiply-add; these return twice fvcore's figure to match.
def _norm_flops(shape: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * 5 * prod(shape)


def _pool_flops(shape: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(shape)


def complexity(architecture: Architecture, form: Form, image_size_px: tuple[int, int]) -> Complexity:
    """Count a RIFormer's parameters and multiply-adds.

    Args:
        architecture: Shape of the network.
        form: The form to count.
        image_size_px: Height and width of the image, at least 3 each.
    """
    model = empty_model(architecture, form)
    aten = torch.ops.aten
    counter = FlopCounterMode(
        display=False,
        custom_mapping={aten.native_group_norm: _norm_flops, aten.mean: _pool_flops},
    )
    with counter, torch.inference_mode():
        model(torch.empty(1, 3, *image_size_px, device="meta"))
    return Complexity(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=counter.get_total_flops() // 2,
        image_size_px=image_size_px,
    )
