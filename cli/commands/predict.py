"""``riformer-deploy predict``."""

from __future__ import annotations

from typing import Annotated

import typer

from riformer_deploy.common.enums import Group

from .. import options, output, selection


def predict(
    images: options.Images,
    backend: Annotated[
        options.RunnerChoice, typer.Option("--with", help="What runs the model.")
    ] = options.RunnerChoice.ONNX,
    precision: selection.PrecisionToRun = None,
    top: Annotated[int, typer.Option(help="Classes to show of each picture.")] = 5,
    batch: options.BatchOfPictures = 32,
    workers: options.Workers = None,
    bundle: options.BundleOption = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what pictures show: files, folders or quoted patterns; the last argument may be a bundle."""
    from riformer_deploy.api.predict import find_pictures, predict_images

    arguments, chosen = options.split_bundle(images, bundle)
    pictures = find_pictures(arguments)
    for text in pictures.notes:
        output.note(text)
    directory = options.chosen_bundle(chosen)
    report = predict_images(
        directory,
        pictures,
        group=Group(backend),
        top=top,
        batch=batch,
        workers=workers,
        precision=precision,
    )
    if json:
        output.print_json(report)
    elif report.predictions:
        output.print_table(
            f"{report.model}, bundle {report.bundle}",
            ("picture", ">class", "name", ">score"),
            [
                (prediction.image if place == 0 else "", str(g.label), g.name or "-", f"{g.score:.4f}")
                for prediction in report.predictions
                for place, g in enumerate(prediction.guesses)
            ],
        )
        output.next_step("verify", "accuracy", directory, "--data", "DIR")
    output.exit_for_unusable([item.reason for item in report.broken])
