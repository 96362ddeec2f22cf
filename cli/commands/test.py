"""``riformer-deploy test``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options, output
from ..tables.accuracy import print_accuracy


def evaluate(
    config: options.ConfigArgument,
    checkpoint: options.CheckpointOrName,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Labelled pictures: ImageNet, class folders or .npz.")
    ] = Path("data/imagenet"),
    split: options.Split = "val",
    weights: options.Weights = None,
    key: options.Key = None,
    limit: options.Limit = None,
    batch: options.BatchOfPictures = 32,
    workers: options.Workers = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure a checkpoint's top-1 and top-5: mmpretrain's test tool, without mmpretrain."""
    from riformer_deploy.api.checkpoint_accuracy import (
        CheckpointAccuracyOptions,
        evaluate_checkpoint,
    )
    from riformer_deploy.common.enums import WeightSet

    path = options.chosen_checkpoint(checkpoint)
    asked = CheckpointAccuracyOptions(
        checkpoint=path,
        config=config,
        weights=WeightSet(weights) if weights is not None else None,
        key=key,
        data=data,
        split=split,
        limit=limit,
        batch=batch,
        workers=workers,
    )
    with output.counter("pictures") as count:
        result = evaluate_checkpoint(asked, output.note, count)
    if json:
        output.print_json(result)
        return
    print_accuracy(result)
    (model,) = result.artifacts
    output.say(f"accuracy/top1: {model.top1.percent:.4f}  accuracy/top5: {model.top5.percent:.4f}")
    output.next_step("export", path, "--config", config)
