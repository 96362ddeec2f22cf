"""``riformer-deploy serve triton`` and ``serve check``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from riformer_deploy.common.enums import Group, Precision

from .. import options, output
from ..tables.serve import print_check


class ServedChoice(StrEnum):
    """``serve triton --with``: what Triton runs."""

    ONNX = "onnx"
    ENGINE = "engine"


class PreprocessChoice(StrEnum):
    """``serve triton --preprocess``."""

    PYTHON = "python"
    NONE = "none"
    DALI = "dali"


def triton(
    repository: Annotated[
        Path, typer.Option("-o", "--output", metavar="REPO", help="The folder to write.", show_default=False)
    ],
    bundle: options.BundlePath = None,
    backend: Annotated[
        ServedChoice, typer.Option("--with", help="What Triton runs: the ONNX file or a TensorRT plan.")
    ] = ServedChoice.ONNX,
    precision: Annotated[
        Precision | None,
        typer.Option(help="What it computes in.", show_default="the first that can be served"),
    ] = None,
    preprocess: Annotated[
        PreprocessChoice,
        typer.Option(
            help="python: clients send pictures, or tensors; none: tensors alone; dali is refused, since its "
            "pixels differ."
        ),
    ] = PreprocessChoice.PYTHON,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model.", show_default="the bundle's folder")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a repository that was written before.")
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write a Triton model repository: the model, its preprocessing, and the ensemble of both."""
    from riformer_deploy.api.serve import PicturePreprocessing, TritonOptions, write_triton_repository

    report = write_triton_repository(
        options.chosen_bundle(bundle),
        TritonOptions(
            output=repository,
            group=Group(backend),
            precision=precision,
            preprocess=PicturePreprocessing(preprocess),
            name=name,
            force=force,
        ),
    )
    for text in report.notes:
        output.note(text)
    if json:
        output.print_json(report)
        return
    output.say(f"{report.output}: {', '.join(report.models)}, serving {report.artifact}")
    output.say(f"batches of up to {report.largest_batch}, {report.batching}")
    output.say(report.command)


class TransportChoice(StrEnum):
    """``serve check --transport``."""

    HTTP = "http"
    GRPC = "grpc"


def check(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="http://HOST:PORT of the server.", show_default=False)
    ],
    bundle: options.BundlePath = None,
    grpc: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where it answers gRPC.", show_default="HTTP's port + 1"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model.", show_default="the bundle's folder")
    ] = None,
    transport: Annotated[
        list[TransportChoice] | None, typer.Option(help="A protocol to check.", show_default="both")
    ] = None,
    concurrency: Annotated[
        list[int] | None, typer.Option(help="Clients that ask at once.", show_default="1, 4, 16")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="Timed requests for each; 0 measures nothing.", show_default="64")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that an answer may take.", show_default="60")
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Compare what a Triton server gives with what a bundle keeps; exit 1 where it differs."""
    from riformer_deploy.api.serve import ServeCheckOptions, Status, Transport, check_server

    default = ServeCheckOptions(url=url)
    asked = ServeCheckOptions(
        url=url,
        grpc=grpc,
        name=name,
        transports=tuple(map(Transport, transport)) if transport else default.transports,
        concurrencies=tuple(concurrency) if concurrency else default.concurrencies,
        requests=default.requests if requests is None else requests,
        timeout_s=default.timeout_s if timeout is None else timeout,
    )
    with output.progress() as progress:
        result = check_server(options.chosen_bundle(bundle), asked, progress)
    if json:
        output.print_json(result)
    else:
        print_check(result)
    if result.status is Status.FAILED:
        raise typer.Exit(1)
