"""Weights files as models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from riformer_deploy.bundle.artifacts import WeightsArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.checkpoints.load import Checkpoint, load_checkpoint
from riformer_deploy.common.errors import BundleChangedError, BundleIntegrityError
from riformer_deploy.model.architecture import LAST_STAGE
from riformer_deploy.model.network import RIFormer, model_from_state


def stored_model(
    bundle: Bundle,
    weights: WeightsArtifact,
    dtype: torch.dtype,
    *,
    out_indices: Sequence[int] = (LAST_STAGE,),
) -> RIFormer:
    """The model of one of the bundle's weights files, which is the recorded one while it is read.

    Args:
        bundle: Holds the file.
        weights: The file's record.
        dtype: Of the parameters.
        out_indices: Positions in ``backbone.network`` whose maps the model gives, where the file holds norms
            for them.

    Raises:
        BundleIntegrityError: The file was changed, or holds another model than the manifest says.
        BundleChangedError: The file was replaced meanwhile.
    """
    checkpoint = load_checkpoint(bundle.path_of(weights.file), out_indices=out_indices)
    if checkpoint.sha256 != weights.file.sha256:
        raise BundleChangedError(
            f"{checkpoint.path} was changed while it was being used.", remedy="Run the command again."
        )
    stated, form = bundle.manifest.model.architecture, weights.form
    if (checkpoint.architecture, checkpoint.form) != (stated, form):
        raise BundleIntegrityError(
            f"{checkpoint.path} does not hold the model that the bundle's manifest describes.",
            details=[
                f"the manifest: {form} form, {stated}",
                f"the file: {checkpoint.form} form, {checkpoint.architecture}",
            ],
            remedy="Restore the bundle, or export the checkpoint again.",
        )
    return _model(checkpoint, dtype)


def _model(checkpoint: Checkpoint, dtype: torch.dtype) -> RIFormer:
    state = {key: value.to(dtype) for key, value in checkpoint.state.items()}
    return model_from_state(
        checkpoint.architecture, checkpoint.form, state, out_indices=checkpoint.out_indices
    )


def model_of(path: Path, dtype: torch.dtype = torch.float32) -> RIFormer:
    """The model of a checkpoint file, in the form that it is stored in.

    Args:
        path: Any checkpoint that :func:`~riformer_deploy.checkpoints.load.load_checkpoint` accepts.
        dtype: Of the parameters.

    Raises:
        CheckpointError: As ``load_checkpoint``.
    """
    return _model(load_checkpoint(path), dtype)
