"""The deploy form of a checkpoint as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.api.bundle_assembly import (
    save_weights,
)
from riformer_deploy.checkpoints.config_agreement import with_config
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import BundleConflictError, OptionError
from riformer_deploy.model.architecture import POSITIONS, Form

__all__ = ["FuseReport", "fuse_checkpoint"]


@dataclass(frozen=True, kw_only=True)
class FuseReport:
    """What ``fuse`` wrote.

    Attributes:
        output: The file.
        sha256: Of its content.
        source_form: The form of the checkpoint; ``deploy`` means that there was nothing to fuse.
        parameters: Number of weights written.
        notes: What of the checkpoint was left out.
    """

    output: str
    sha256: str
    source_form: Form
    parameters: int
    notes: tuple[str, ...] = ()


def fuse_checkpoint(
    checkpoint_path: Path | str,
    output: Path | str,
    *,
    weights: WeightSet | None = None,
    key: str | None = None,
    config: Path | str | None = None,
    force: bool = False,
) -> FuseReport:
    """Mmpretrain's reparameterize tool: a checkpoint in training form as one in deploy form.

    Args:
        checkpoint_path: Any checkpoint that ``export`` accepts.
        output: The file to write; the result holds ``meta`` (plain data only) and ``state_dict``.
        weights: Which set of weights to take where the file holds two.
        key: Which RIFormer to take where it holds several.
        config: mmengine's config file of the checkpoint; the result holds it.
        force: Replace ``output`` if it exists.

    Raises:
        CheckpointError: The checkpoint is not usable.
        BundleConflictError: ``output`` exists and ``force`` was not given.
        OptionError: ``output`` cannot be written, or the config cannot be read.
    """
    checkpoint_path, output = Path(checkpoint_path), Path(output)
    try:
        if output.exists() and checkpoint_path.exists() and output.samefile(checkpoint_path):
            raise OptionError(
                f"{output} is the checkpoint itself; it is not replaced.", remedy="Choose another -o."
            )
        taken = output.exists() and (not force or output.is_dir())
    except OSError as err:  # a name that the system refuses
        raise OptionError(f"{output} cannot be written: {err.strerror}") from err
    if taken:
        raise BundleConflictError(
            f"{output} exists already.", remedy="Use --force to replace it, or another -o."
        )
    if not output.parent.is_dir():
        raise OptionError(f"The folder {output.parent} does not exist.", remedy="Create it first.")
    checkpoint = load_checkpoint(checkpoint_path, weights=weights, key=key, out_indices=POSITIONS)
    checkpoint = with_config(checkpoint, config)
    try:
        save_weights(output, checkpoint, Form.DEPLOY)
    except OSError as err:
        raise OptionError(f"{output} cannot be written: {err}") from err
    written = load_checkpoint(output, out_indices=POSITIONS)
    return FuseReport(
        output=str(output),
        sha256=written.sha256,
        source_form=checkpoint.form,
        parameters=sum(value.numel() for value in written.state.values()),
        notes=checkpoint.notes,
    )
