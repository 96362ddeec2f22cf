"""Models by name, with or without weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.checkpoints.load import check_expectations, load_checkpoint
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.flops import complexity
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.variants import VARIANTS, get_variant


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


def get_model(
    name: str | Architecture,
    checkpoint: Path | str | None = None,
    *,
    num_classes: int | None = None,
    weights: WeightSet | str | None = None,
    key: str | None = None,
) -> RIFormer:
    """A RIFormer in evaluation mode.

    Args:
        name: A published model, such as ``riformer-s12_in1k``, or an architecture of your own.
        checkpoint: A file to load; None leaves PyTorch's initial weights, in training form.
        num_classes: Classes of the head; None takes the model's own.
        weights: ``averaged`` or ``raw`` where the file holds both.
        key: Which RIFormer to take where the file holds several.

    Returns:
        The model, in the form that the checkpoint is in;
        :func:`~riformer_deploy.model.reparameterize.fuse` gives its deploy form.

    Raises:
        OptionError: No published model has that name.
        CheckpointError: The checkpoint is not usable, or is another model's.
    """
    base = get_variant(name).architecture if isinstance(name, str) else name
    wanted = base if num_classes is None else dataclasses.replace(base, num_classes=num_classes)
    if checkpoint is None:
        return RIFormer(wanted, Form.TRAINING).eval()
    loaded = load_checkpoint(checkpoint, weights=weights, key=key)
    check_expectations(loaded, architecture=wanted, num_classes=None)
    # Trainable, as an unloaded one is; the toolkit's own models are not.
    return model_from_state(loaded.architecture, loaded.form, loaded.state).requires_grad_()
