"""``riformer-deploy score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from riformer_deploy.common.enums import Group

from .. import options, output, selection


def score(
    images: options.Images,
    target: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT.parquet", help="The file to write.", show_default=False),
    ],
    cluster: options.Cluster = None,
    backend: Annotated[
        options.RunnerChoice, typer.Option("--with", help="What runs the model.")
    ] = options.RunnerChoice.ONNX,
    precision: selection.PrecisionToRun = None,
    features: Annotated[
        bool, typer.Option("--features", help="Write pooled features instead of classes.")
    ] = False,
    top: Annotated[int, typer.Option(help="Classes of each picture.")] = 5,
    batch: options.BatchOfPictures = 32,
    actors: options.Actors = None,
    cpus: options.Cpus = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUT.parquet, and an interrupted pass of something else.")
    ] = False,
    bundle: options.BundleOption = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Score any number of pictures with Ray, here or on a cluster; an interrupted pass is taken up again."""
    from riformer_deploy.api.score import RayOptions, ScoreOptions, find_pictures, score_pictures

    arguments, chosen = options.split_bundle(images, bundle)
    asked = ScoreOptions(
        output=target,
        group=Group(backend),
        precision=precision,
        features=features,
        top=top,
        batch=batch,
        force=force,
        ray=RayOptions(cluster=cluster, actors=actors, cpus=cpus),
    )
    pictures = find_pictures(arguments)
    for text in pictures.notes:
        output.note(text)
    with output.counter("pictures") as count:
        report = score_pictures(options.chosen_bundle(chosen), pictures, asked, count)
    if report.broken:
        output.note(f"{output.pictures(report.broken)} could not be used; the column reason says why")
    if json:
        output.print_json(report)
    else:
        output.say(f"{report.output}: {output.pictures(report.images)}, scored by {report.model}")
