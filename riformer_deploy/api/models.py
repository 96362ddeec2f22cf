"""The published models: their names, and the table of what they weigh and cost."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from riformer_deploy.model.architecture import Form
from riformer_deploy.model.flops import complexity
from riformer_deploy.model.variants import VARIANTS


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A row of the published table; parameters and multiply-adds are computed, not copied.

    Attributes:
        name: mmpretrain's name.
        image_size_px: Side of the square input.
        resize_short_edge_px: Short edge before the centre crop.
        parameters: Of the deploy form.
        flops: Multiply-adds of one image in the deploy form.
        top1_percent: Published top-1 accuracy on ImageNet-1k.
        top5_percent: Published top-5 accuracy on ImageNet-1k.
        file_name: The published checkpoint's.
    """

    name: str
    image_size_px: int
    resize_short_edge_px: int
    parameters: int
    flops: int
    top1_percent: float
    top5_percent: float
    file_name: str


@dataclass(frozen=True, kw_only=True)
class ModelTable:
    """The published models.

    Attributes:
        models: In the order of the published table.
    """

    models: tuple[PublishedModel, ...]


def published_models() -> ModelTable:
    """The ten published models, with what this toolkit's own model of each weighs and costs."""
    rows = []
    for variant in VARIANTS.values():
        cost = complexity(variant.architecture, Form.DEPLOY, variant.preprocessing.crop_px)
        rows.append(
            PublishedModel(
                name=variant.name,
                image_size_px=variant.image_size_px,
                resize_short_edge_px=variant.resize_short_edge_px,
                parameters=cost.parameters,
                flops=cost.flops,
                top1_percent=variant.top1_percent,
                top5_percent=variant.top5_percent,
                file_name=variant.file_name,
            )
        )
    return ModelTable(models=tuple(rows))


def list_models(pattern: str | None = None, exclude_patterns: Sequence[str] = ()) -> list[str]:
    """Names of the published models, sorted.

    Args:
        pattern: A wildcard pattern that names must begin with, such as ``riformer-s*``; None for all.
        exclude_patterns: Names that begin with one of these are left out.
    """
    return sorted(
        name
        for name in VARIANTS
        if fnmatch.fnmatchcase(name, f"{pattern or ''}*")
        and not any(fnmatch.fnmatchcase(name, f"{excluded}*") for excluded in exclude_patterns)
    )
