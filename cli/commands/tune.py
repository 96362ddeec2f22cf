"""``riformer-deploy tune``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from riformer_deploy.common.enums import Group

from .. import options, output, selection
from ..tables.tune import print_tuning


class TargetChoice(StrEnum):
    """``tune --with``: what a bundle can be tuned for."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    ENGINE = "engine"


def tune(
    bundle: options.BundlePath = None,
    calibration: options.Calibration = None,
    skip_bad: options.SkipBad = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Labelled pictures to judge on: ImageNet, class folders or .npz.",
            show_default="none: the calibration images alone",
        ),
    ] = None,
    split: options.Split = "val",
    limit: Annotated[
        int | None, typer.Option(help="So many labelled pictures, spread evenly.", show_default="1000")
    ] = None,
    target: Annotated[
        TargetChoice, typer.Option("--with", help="What runs the model that is searched for.")
    ] = TargetChoice.ONNX,
    batch: Annotated[
        list[str] | None,
        typer.Option(metavar="N,...", help="Batch sizes to be fast at, all of them.", show_default="1"),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Largest drop of top-1; without --data, largest share of changed first classes, percent.",
            show_default="no gate",
        ),
    ] = None,
    min_sqnr: Annotated[
        float | None,
        typer.Option(metavar="DB", help="Least SQNR of the outputs.", show_default="that of parity"),
    ] = None,
    max_seconds: Annotated[float, typer.Option(help="Limit of the search, seconds.")] = 600.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", show_default="every core")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Search even where the bundle holds the answer.")
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find the fastest model on this machine that holds a gate, and put it into the bundle."""
    from riformer_deploy.api.tune import SearchGate, Status, TuneOptions, tune_bundle

    asked = TuneOptions(
        calibration=calibration,
        skip_bad=skip_bad,
        data=data,
        split=split,
        limit=limit,
        group=Group(target),
        batches=selection.chosen_batches(batch) or (1,),
        gate=SearchGate(min_sqnr_db=min_sqnr, max_drop_points=max_drop),
        max_seconds=max_seconds,
        threads=threads,
        again=again,
    )
    directory = options.chosen_bundle(bundle)
    with output.progress() as progress:
        notes: list[str] = []
        result = tune_bundle(directory, asked, progress, tell=notes.append)
    stored = bool(notes) and result.status is Status.PASSED  # what was dropped for it was dropped back then
    for text in notes if stored else (*notes, *result.notes):
        output.note(text)
    if json:
        output.print_json(result)
    else:
        print_tuning(result)
        output.next_step("report", directory)
    if result.status is Status.FAILED:
        raise typer.Exit(1)
