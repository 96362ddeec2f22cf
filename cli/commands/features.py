"""``riformer-deploy features``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options, output


def features(
    images: options.Images,
    target: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE.npz", help="The file to write.", show_default=False),
    ],
    stage: Annotated[
        int | None, typer.Option(help="The map after this stage, 1 to 4.", show_default="pooled features")
    ] = None,
    backend: Annotated[
        options.RunnerChoice,
        typer.Option("--with", help="What runs the model."),
    ] = options.RunnerChoice.TORCH,
    batch: options.BatchOfPictures = 32,
    workers: options.Workers = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    bundle: options.BundleOption = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write features of pictures: files, folders or quoted patterns; the last argument may be a bundle."""
    from riformer_deploy.api.features import FeatureOptions, extract_features, find_pictures
    from riformer_deploy.common.enums import Group

    arguments, chosen = options.split_bundle(images, bundle)
    pictures = find_pictures(arguments)
    for text in pictures.notes:
        output.note(text)
    asked = FeatureOptions(
        output=target, stage=stage, batch=batch, workers=workers, force=force, group=Group(backend)
    )
    directory = options.chosen_bundle(chosen)
    report = extract_features(directory, pictures, asked)
    if json:
        output.print_json(report)
    else:
        output.say(f"{report.output}: {report.array} {list(report.shape)} float32, from {report.model}")
        output.next_step("predict", *images[:1], "--bundle", directory)
    output.exit_for_unusable([item.reason for item in report.broken])
