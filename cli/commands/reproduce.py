"""``riformer-deploy reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import completion, options, output
from ..tables.accuracy import print_reproduction


def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Published models.",
            show_default="all ten",
            autocompletion=completion.published_names,
        ),
    ] = None,
    data: options.Data = ...,  # type: ignore[assignment]  # Typer's mark of an option that must be given
    split: options.Split = "val",
    checkpoints: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the published files are, or go.", show_default="here")
    ] = Path(),
    mirror: options.Mirror = None,
    limit: options.Limit = None,
    batch: options.BatchOfPictures = 32,
    workers: options.Workers = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure the published results table: parameters, FLOPs, top-1 and top-5, unfused and fused."""
    from riformer_deploy.api.reproduce import VARIANTS, ReproduceOptions, get_variant, reproduce_table

    asked = ReproduceOptions(
        variants=tuple(get_variant(name) for name in dict.fromkeys(names or VARIANTS)),
        data=data,
        checkpoints=checkpoints,
        split=split,
        mirror=mirror,
        limit=limit,
        batch=batch,
        workers=workers,
    )
    with output.counter("pictures") as count:
        result = reproduce_table(asked, output.note, count)
    if json:
        output.print_json(result)
    else:
        print_reproduction(result)
        output.next_step("export", asked.variants[0].name)
