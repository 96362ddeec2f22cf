"""Parameters and multiply-adds, from the shape of the network alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from riformer_deploy.model.architecture import Architecture, Form, sides_after

_NORM_FLOPS, _POOL_FLOPS = 5, 1
"""Per value; fvcore's convention, which mmengine's ``get_model_complexity_info`` follows."""


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


def _block_flops(form: Form, dim: int, hidden: int, pixels: int) -> int:
    affine = dim * pixels if form is Form.TRAINING else 0
    return affine + 2 * _NORM_FLOPS * dim * pixels + 2 * dim * hidden * pixels


def complexity(architecture: Architecture, form: Form, image_size_px: tuple[int, int]) -> Complexity:
    """Count a RIFormer's parameters and multiply-adds.

    Args:
        architecture: Shape of the network.
        form: The form to count.
        image_size_px: Height and width of the image, at least 3 each.
    """
    shapes = architecture.shapes(form)
    sides = sides_after(image_size_px, kernel=7, stride=4, padding=2)
    flops = prod(sides) * prod(shapes["backbone.patch_embed.proj.weight"])
    for stage, count in enumerate(architecture.layers):
        if stage > 0:
            sides = sides_after(sides, kernel=3, stride=2, padding=1)
            flops += prod(sides) * prod(shapes[f"backbone.network.{2 * stage - 1}.proj.weight"])
        dim, hidden = architecture.embed_dims[stage], architecture.hidden_dims[stage]
        flops += count * _block_flops(form, dim, hidden, prod(sides))
    last = architecture.embed_dims[-1]
    flops += (_NORM_FLOPS + _POOL_FLOPS) * last * prod(sides) + last * architecture.num_classes
    return Complexity(parameters=sum(map(prod, shapes.values())), flops=flops, image_size_px=image_size_px)
