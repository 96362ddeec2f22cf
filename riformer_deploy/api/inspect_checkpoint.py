"""What a checkpoint file is."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.checkpoints.preprocessing import resolve_preprocessing
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.flops import complexity

_SHOWN = ("epoch", "iter", "time", "experiment_name", "mmengine_version", "mmcls_version", "riformer_deploy")
"""Entries of ``meta`` worth showing."""


@dataclass(frozen=True, kw_only=True)
class CheckpointInspection:
    """A checkpoint file.

    Attributes:
        kind: Always ``checkpoint``.
        path: The file.
        sha256: Of its content.
        variants: Published models with this backbone.
        architecture: Recognised from the tensors' shapes.
        form: The form that the weights are in.
        weights: Which set was looked at.
        stored_dtypes: How the file stores the weights.
        parameters: Number of weights in the stored form.
        deploy_parameters: Number of weights once fused.
        preprocessing: What is known of the input, or None where nothing says its size.
        flops: Multiply-adds of one image in the deploy form at that size, or None where nothing says it.
        class_names: If stored.
        training: What ``meta`` says of the training: epoch, iteration, time, framework version.
        notes: What was assumed.
    """

    kind: str
    path: str
    sha256: str
    variants: tuple[str, ...]
    architecture: Architecture
    form: Form
    weights: WeightSet
    stored_dtypes: tuple[str, ...]
    parameters: int
    deploy_parameters: int
    preprocessing: Preprocessing | None
    flops: int | None
    class_names: tuple[str, ...] | None
    training: dict[str, str]
    notes: tuple[str, ...]


def inspect_checkpoint(path: Path) -> CheckpointInspection:
    """What a checkpoint holds, what it costs once fused, and what its training stored.

    Args:
        path: The file.

    Raises:
        CheckpointError: It is not usable.
    """
    checkpoint = load_checkpoint(path)
    notes = list(checkpoint.notes)
    try:
        preprocessing = resolve_preprocessing(checkpoint, variant=None, image_size_px=None, notes=notes)
    except OptionError as err:
        preprocessing = None
        notes.append(err.message)
    cost = complexity(checkpoint.architecture, Form.DEPLOY, preprocessing.crop_px) if preprocessing else None
    return CheckpointInspection(
        kind="checkpoint",
        path=str(path),
        sha256=checkpoint.sha256,
        variants=tuple(variant.name for variant in checkpoint.variants),
        architecture=checkpoint.architecture,
        form=checkpoint.form,
        weights=checkpoint.weights,
        stored_dtypes=checkpoint.stored_dtypes,
        parameters=sum(value.numel() for value in checkpoint.state.values()),
        deploy_parameters=sum(prod(shape) for shape in checkpoint.architecture.shapes(Form.DEPLOY).values()),
        preprocessing=preprocessing,
        flops=cost.flops if cost else None,
        class_names=checkpoint.class_names,
        training={key: str(checkpoint.meta[key]) for key in _SHOWN if key in checkpoint.meta},
        notes=tuple(notes),
    )
