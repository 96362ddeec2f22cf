"""``riformer-deploy fuse``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options, output


def fuse(
    checkpoint: options.Checkpoint,
    target: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write.")],
    config: options.Config = None,
    weights: options.Weights = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fold the affine branch into its norm: mmpretrain's reparameterize tool, without mmpretrain."""
    from riformer_deploy.api.fuse import fuse_checkpoint
    from riformer_deploy.common.enums import WeightSet

    chosen = WeightSet(weights) if weights is not None else None
    report = fuse_checkpoint(checkpoint, target, weights=chosen, config=config, force=force)
    if json:
        output.print_json(report)
        return
    if report.source_form == "deploy":
        output.note("the checkpoint was in deploy form already; its weights are unchanged")
    for text in report.notes:
        output.note(text)
    output.say(f"{report.output}: deploy form, {report.parameters:,} parameters, sha256 {report.sha256}")
