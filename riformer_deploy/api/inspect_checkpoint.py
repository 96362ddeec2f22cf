"""What a checkpoint is."""

from __future__ import annotations

from math import prod
from pathlib import Path

from riformer_deploy.api.inspections import CheckpointInspection
from riformer_deploy.checkpoints.allowlists import shown
from riformer_deploy.checkpoints.config_agreement import with_config
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.checkpoints.preprocessing import resolve_preprocessing
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import OptionError
from riformer_deploy.model.architecture import POSITIONS, Form
from riformer_deploy.model.flops import complexity

_TOLD = ("epoch", "iter", "time", "experiment_name", "mmengine_version", "mmcls_version", "riformer_deploy")
"""Entries of ``meta`` worth showing."""
_LONGEST_TOLD = 1000


def inspect_checkpoint(
    path: Path, weights: WeightSet | None, key: str | None, config: Path | str | None
) -> CheckpointInspection:
    """Say what a checkpoint holds.

    Args:
        path: The file.
        weights: Which set to look at where it holds two; None for the default.
        key: Which RIFormer to look at where it holds several.
        config: mmengine's config file of it; None for the one that it stores.

    Raises:
        CheckpointError: It is not usable.
    """
    loaded = load_checkpoint(path, weights=weights, key=key, out_indices=POSITIONS)
    checkpoint = with_config(loaded, config)
    notes = list(checkpoint.notes)
    try:
        preprocessing = resolve_preprocessing(checkpoint, variant=None, image_size_px=None, notes=notes)
    except OptionError as err:
        preprocessing = None
        notes.append(err.message)
    cost = complexity(checkpoint.architecture, Form.DEPLOY, preprocessing.crop_px) if preprocessing else None
    fused = checkpoint.architecture.shapes(Form.DEPLOY, checkpoint.out_indices)
    return CheckpointInspection(
        kind="checkpoint",
        path=str(path),
        config=None if config is None else str(config),
        sha256=checkpoint.sha256,
        variants=tuple(variant.name for variant in checkpoint.variants),
        architecture=checkpoint.architecture,
        out_indices=checkpoint.out_indices,
        form=checkpoint.form,
        weights=checkpoint.weights,
        stored_dtypes=checkpoint.stored_dtypes,
        parameters=sum(value.numel() for value in checkpoint.state.values()),
        deploy_parameters=sum(map(prod, fused.values())),
        preprocessing=preprocessing,
        flops=cost.flops if cost else None,
        class_names=checkpoint.class_names,
        training={key: _told(checkpoint.meta[key]) for key in _TOLD if key in checkpoint.meta},
        notes=tuple(notes),
    )


def _told(value: object) -> str:
    if isinstance(value, dict):
        said = {name: entry for name, entry in value.items() if entry is not None}
        if all(isinstance(part, str) for pair in said.items() for part in pair):
            value = ", ".join(f"{name}: {entry}" for name, entry in said.items())
    return value if isinstance(value, str) and len(value) <= _LONGEST_TOLD else shown(value)
