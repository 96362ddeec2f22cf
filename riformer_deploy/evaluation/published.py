"""What was published of a model, and whether a measured accuracy is far below it."""

from __future__ import annotations

from riformer_deploy.evaluation.accuracy_results import Published, Share
from riformer_deploy.model.architecture import Architecture
from riformer_deploy.model.variants import Variant, variant_of

_FAR_POINTS = 3.0
"""More than int8 and another resizing cost together; another channel order or mean costs more."""


def published_of(architecture: Architecture, image_size_px: tuple[int, int], sha256: str) -> Published | None:
    """The published figures of a model; None for one of the user's own shape.

    Args:
        architecture: The model's.
        image_size_px: Height and width of its input.
        sha256: Of the checkpoint that it was made from.
    """
    variant = variant_of(architecture, image_size_px)
    return None if variant is None else figures_of(variant, sha256)


def figures_of(variant: Variant, sha256: str) -> Published:
    """The published figures of a variant.

    Args:
        variant: One of the published models.
        sha256: Of the checkpoint that is measured, which may be another training of it.
    """
    return Published(
        variant=variant.name,
        top1_percent=variant.top1_percent,
        top5_percent=variant.top5_percent,
        same_file=sha256.startswith(variant.sha256_prefix),
    )


def far_below(top1: Share, published: Published) -> str | None:
    """Why a top-1 looks as if the model was not run as it was trained, or None.

    The whole 95 % interval must be more than 3 points below what was published, so that few pictures
    alone give no reason.

    Args:
        top1: Measured with the first artifact, whose precision costs nothing.
        published: What to measure it by.
    """
    if top1.ci95_percent[1] >= published.top1_percent - _FAR_POINTS:
        return None
    whose = "" if published.same_file else " (if these weights are of the same training)"
    return (
        f"top-1 is {top1.percent:.2f} %, far below the {published.top1_percent:.2f} % that was published of "
        f"{published.variant}{whose}: other preprocessing or class order, or not ImageNet-1k's pictures?"
    )
