"""``riformer-deploy run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from riformer_deploy.common.enums import Target

from .. import options, output, parsing, selection
from ..tables.run import print_run


def run(
    checkpoint: options.CheckpointOrName,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="BUNDLE",
            help="The folder to write, or to go on with.",
            show_default="CKPT's name",
        ),
    ] = None,
    target: Annotated[Target, typer.Option(help="Where the artifacts are to run.")] = Target.AUTO,
    calibration: options.Calibration = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Labelled pictures that accuracy is measured on."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Choose nothing whose top-1 is lower than the baseline's by more percentage points.",
            show_default="no gate",
        ),
    ] = None,
    batch: Annotated[
        list[str] | None,
        typer.Option(metavar="N,...", help="Batch sizes to decide for.", show_default="1,8"),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Limit of all timed rounds, seconds.", show_default="60")
    ] = None,
    limit: options.Limit = None,
    split: options.Split = "val",
    image_size: Annotated[
        str | None, typer.Option(metavar="PX|HxW", help="Input size.", show_default="the model's own")
    ] = None,
    preprocess: options.Preprocess = None,
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class names, one a line.", show_default="those stored"),
    ] = None,
    config: options.Config = None,
    weights: options.Weights = None,
    key: options.Key = None,
    skip_bad: options.SkipBad = False,
    mirror: options.Mirror = None,
    force: options.Force = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Take a checkpoint to the decision what to ship: export, build, verify, measure, report, answer."""
    size = parsing.parse_image_size(image_size) if image_size is not None else None
    batches = selection.chosen_batches(batch)

    from riformer_deploy.api.run import (
        AS_FOUND,
        DownloadOptions,
        RunOptions,
        Status,
        WeightSet,
        find_variant,
        named_checkpoint,
        parse_changes,
        run_checkpoint,
    )

    with output.counter("bytes") as count:
        path = named_checkpoint(checkpoint, DownloadOptions(folder=Path(), mirror=mirror), count)
    published = find_variant(checkpoint)
    default = RunOptions(checkpoint=path, output=path)
    asked = RunOptions(
        checkpoint=path,
        output=bundle or Path(published.name if published is not None else path.stem),
        target=target,
        calibration=calibration,
        skip_bad=skip_bad,
        data=data,
        split=split,
        limit=limit,
        max_drop_points=max_drop,
        batches=batches or default.batches,
        max_seconds=default.max_seconds if max_seconds is None else max_seconds,
        image_size_px=size,
        preprocessing=parse_changes(preprocess) if preprocess is not None else AS_FOUND,
        config=config,
        weights=WeightSet(weights) if weights is not None else None,
        key=key,
        class_names=classes,
        force=force,
    )
    with output.progress() as progress:
        report = run_checkpoint(asked, progress)
    for text in report.notes:
        output.note(text)
    if json:
        output.print_json(report)
    else:
        print_run(report)
        output.next_step(*report.next_command)
    if report.status is Status.FAILED:
        raise typer.Exit(1)
