"""``riformer-deploy download``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import completion, options, output


def download(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A published model, as `models` lists it.",
            show_default=False,
            autocompletion=completion.published_names,
        ),
    ],
    folder: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where to.", show_default="here")
    ] = Path(),
    mirror: options.Mirror = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fetch a published checkpoint by name and check it against the hash in its file name."""
    from riformer_deploy.api.download import DownloadOptions, download_checkpoint, get_variant

    asked = DownloadOptions(folder=folder, mirror=mirror)
    with output.counter("bytes") as count:
        report = download_checkpoint(get_variant(name), asked, count)
    if json:
        output.print_json(report)
    else:
        how = "was there already" if report.fetched_bytes == 0 else f"{report.fetched_bytes:,} bytes fetched"
        output.say(f"{report.path}: {how}, sha256 {report.sha256}")
        output.next_step("export", report.path)
