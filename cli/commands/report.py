"""``riformer-deploy report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options, output


def report(
    bundle: options.BundlePath = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE.html",
            help="The file to write.",
            show_default="report.html in the bundle",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE.npz", help="Pictures that accuracy was measured on, for thumbnails of mistakes."
        ),
    ] = None,
    sensitivity: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="What `sensitivity --json` printed.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write what was measured of a bundle as one self-contained HTML file, and its model card."""
    from riformer_deploy.api.report import ReportOptions, report_bundle

    asked = ReportOptions(output=target, data=data, sensitivity=sensitivity, force=force)
    directory = options.chosen_bundle(bundle)
    written = report_bundle(directory, asked)
    if json:
        output.print_json(written)
        return
    output.say(f"{written.html}: {written.size_bytes / 2**10:.0f} KiB; {written.model_card}")
    output.next_step("compare", directory, "OTHER_BUNDLE", "--max-slowdown", "5%")
