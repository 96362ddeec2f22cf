"""``riformer-deploy fuse``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from riformer_deploy.common.enums import WeightSet

from .. import options, output


def fuse(
    checkpoint: options.CheckpointOrName,
    target: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write.")],
    config: options.Config = None,
    weights: options.Weights = None,
    key: options.Key = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fold the affine branch into its norm: mmpretrain's reparameterize tool, without mmpretrain."""
    from riformer_deploy.api.fuse import fuse_checkpoint

    path = options.chosen_checkpoint(checkpoint)
    chosen = WeightSet(weights) if weights is not None else None
    report = fuse_checkpoint(path, target, weights=chosen, key=key, config=config, force=force)
    if json:
        output.print_json(report)
        return
    if report.source_form == "deploy":
        output.note("the checkpoint was in deploy form already; its weights are unchanged")
    for text in report.notes:
        output.note(text)
    output.say(f"{report.output}: deploy form, {report.parameters:,} parameters, sha256 {report.sha256}")
    output.next_step("inspect", report.output)
