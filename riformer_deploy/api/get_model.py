"""Models by name, with or without weights, as PyTorch modules."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from riformer_deploy.checkpoints.load import check_expectations, load_checkpoint
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.variants import get_variant


def get_model(
    name: str | Architecture,
    checkpoint: Path | str | None = None,
    *,
    num_classes: int | None = None,
    weights: WeightSet | str | None = None,
) -> RIFormer:
    """A RIFormer in evaluation mode.

    Args:
        name: A published model, such as ``riformer-s12_in1k``, or an architecture of your own.
        checkpoint: A file to load; None leaves PyTorch's initial weights, in training form.
        num_classes: Classes of the head; None takes the model's own.
        weights: ``averaged`` or ``raw`` where the file holds both.

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
    loaded = load_checkpoint(checkpoint, weights=weights)
    check_expectations(loaded, architecture=wanted, num_classes=None)
    # Trainable, as an unloaded one is; the toolkit's own models are not.
    return model_from_state(loaded.architecture, loaded.form, loaded.state).requires_grad_()
