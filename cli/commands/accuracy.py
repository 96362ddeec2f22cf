"""``riformer-deploy verify accuracy``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from riformer_deploy.common.enums import Group
from riformer_deploy.common.errors import OptionError

from .. import completion, options, output, selection
from ..tables.accuracy import print_accuracy

if TYPE_CHECKING:
    from riformer_deploy.api.accuracy import RayOptions


def accuracy(
    bundle: options.BundlePath = None,
    data: options.Data = ...,  # type: ignore[assignment]  # Typer's mark of an option that must be given
    split: options.Split = "val",
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar=",".join(options.RunnerChoice),
            help="What runs the models.",
            show_default="torch,onnx",
            autocompletion=completion.of_list(options.RunnerChoice),
        ),
    ] = None,
    precision: selection.PrecisionsToRun = None,
    limit: options.Limit = None,
    batch: options.BatchOfPictures = 32,
    workers: options.Workers = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Fail if top-1 is lower than the baseline's by more percentage points.",
            show_default="no gate",
        ),
    ] = None,
    cluster: options.Cluster = None,
    actors: options.Actors = None,
    cpus: options.Cpus = 1,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure top-1 and top-5 of artifacts in one pass over labelled pictures."""
    from riformer_deploy.api.accuracy import AccuracyOptions, Status, accuracy_bundle

    chosen = selection.chosen_runners(backend) or (options.RunnerChoice.TORCH, options.RunnerChoice.ONNX)
    asked = AccuracyOptions(
        data=data,
        split=split,
        groups=tuple(Group(item) for item in chosen),
        precisions=selection.chosen_precisions(precision),
        limit=limit,
        batch=batch,
        workers=workers,
        max_drop_points=max_drop,
        ray=_on_cluster(cluster, actors, cpus),
    )
    directory = options.chosen_bundle(bundle)
    with output.counter("pictures") as count:
        result = accuracy_bundle(directory, asked, count)
    if json:
        output.print_json(result)
    else:
        print_accuracy(result)
        output.next_step("bench", directory)
    if result.status is Status.FAILED:
        raise typer.Exit(1)


def _on_cluster(cluster: str | None, actors: int | None, cpus: int) -> RayOptions | None:
    from riformer_deploy.api.accuracy import RayOptions

    if cluster is not None:
        return RayOptions(cluster=cluster, actors=actors, cpus=cpus)
    if actors is not None or cpus != 1:
        raise OptionError("--actors and --cpus are of a cluster.", remedy="Add --cluster, or leave them out.")
    return None
