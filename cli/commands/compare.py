"""``riformer-deploy compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options, output, parsing
from ..tables.compare import print_comparison

_RESULT = "A bundle, or a parity.json, latency.json or accuracy.json."


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help=_RESULT, show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="B", help="What it became.", show_default=False)],
    max_slowdown: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT", help="Fail if a series of B is slower by more.", show_default="no gate"
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Fail if top-1 of B is lower by more percentage points.",
            show_default="no gate",
        ),
    ] = None,
    across_machines: Annotated[
        bool, typer.Option("--across-machines", help="Compare latencies of different machines, too.")
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what changed from A to B: files, parity, accuracy, latency; exit 1 where a gate does not hold."""
    slowdown = parsing.parse_percent(max_slowdown, "--max-slowdown") if max_slowdown is not None else None

    from riformer_deploy.api.compare import CompareOptions, Status, compare_bundles

    asked = CompareOptions(
        max_slowdown_percent=slowdown, max_drop_points=max_drop, across_machines=across_machines
    )
    report = compare_bundles(before, after, asked)
    if json:
        output.print_json(report)
    else:
        print_comparison(report)
        output.next_step("report", after if after.is_dir() else after.parent)
    if report.status is Status.FAILED:
        raise typer.Exit(1)
